"""What a run costs the agent: python3 bench/cost.py

A run is a start with 2 KB of prompt and an end with 1 KB of answer; percentiles are of its
wall time. The collectors are a process that reads and one that rests 5 ms after each read.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time

READER = """
import socket, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
connection, _ = listener.accept()
while connection.recv(1 << 20):
    time.sleep(float(sys.argv[2]))
"""
PROMPT = [{"role": "user", "content": "x" * 2000}]
ANSWER = [{"role": "assistant", "content": "y" * 1000}]
USAGE = {"input_tokens": 500, "output_tokens": 250, "total_tokens": 750}


def one_run(sidelight):
    with sidelight.run("chat", kind="llm", input=PROMPT, model="gpt-4o", provider="openai") as run:
        run.output = ANSWER
        run.usage = USAGE


def report(what, times, cpu):
    times.sort()
    p50, p99 = times[len(times) // 2] / 1e3, times[len(times) * 99 // 100] / 1e3
    print(f"{what:<34} p50 {p50:7.1f} µs   p99 {p99:7.1f} µs   CPU {cpu / len(times) / 1e3:6.1f} µs a run")


def measure(what, sidelight, count=5000, pause=0.0):
    for _ in range(200):
        one_run(sidelight)
    times = []
    cpu = time.thread_time_ns()
    for _ in range(count):
        begin = time.perf_counter_ns()
        one_run(sidelight)
        times.append(time.perf_counter_ns() - begin)
        if pause:
            time.sleep(pause)
    report(what, times, time.thread_time_ns() - cpu)


def with_reader(what, rest, **more):
    path = os.path.join(tempfile.mkdtemp(), "s.sock")
    reader = subprocess.Popen([sys.executable, "-c", READER, path, str(rest)])
    while not os.path.exists(path):
        time.sleep(0.01)
    sidelight.configure(socket=path)
    time.sleep(0.1)
    measure(what, sidelight, **more)
    _api.transport.close()
    reader.wait()


def busy(stop):
    while not stop.is_set():
        sum(range(1000))


begin = time.perf_counter()
import sidelight  # noqa: E402
from sidelight import _api  # noqa: E402

print(f"import {1e3 * (time.perf_counter() - begin):.1f} ms")
sidelight.configure(socket="/nonexistent/s.sock", buffer=1 << 30)
measure("no collector, room in the buffer", sidelight)
_api.transport.after_fork()
sidelight.configure(buffer=1 << 20)
measure("no collector, buffer full", sidelight)
_api.transport.after_fork()
with_reader("reader", 0)
with_reader("reader, a run each ms", 0, count=1000, pause=0.001)
with_reader("reader that rests 5 ms", 0.005)
stop = threading.Event()
thread = threading.Thread(target=busy, args=(stop,))
thread.start()
with_reader("the same, beside a busy thread", 0.005, count=2000)
stop.set()
thread.join()
