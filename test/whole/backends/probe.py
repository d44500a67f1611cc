"""How soon the loops of some daemons answer, apart from waiting for a CPU.

    python -m backends.probe SOCKET:PID...

Asks each in turn, until stdin ends, with a new connection and a hello of a version that is not
spoken, which the loop answers at once and without the disk. The time that the loop's thread and
this one spent waiting for a CPU, as the kernel counts it, is taken off: what is left is the loop's
own doing. Prints a JSON list of milliseconds for each.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import sys
import time

import msgpack

HELLO = msgpack.packb([0, {"v": 9}])
HELLO = struct.pack(">I", len(HELLO)) + HELLO
EVERY = 0.01


def waited_ns(pid: str) -> int:
    with open(f"/proc/{pid}/task/{pid}/schedstat") as file:
        return int(file.read().split()[1])


def ask(path: str, pid: str) -> float:
    before = waited_ns(pid) + own_wait()
    began = time.perf_counter_ns()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.settimeout(30)
        one.connect(path)
        one.sendall(HELLO)
        while one.recv(4096):
            pass
    took = time.perf_counter_ns() - began
    return max(0, took - (waited_ns(pid) + own_wait() - before)) / 1e6


def own_wait() -> int:
    with open("/proc/thread-self/schedstat") as file:
        return int(file.read().split()[1])


def main() -> None:
    targets = [argument.rsplit(":", 1) for argument in sys.argv[1:]]
    times: list[list[float]] = [[] for _ in targets]
    print("probing", flush=True)
    while not select.select([sys.stdin], [], [], EVERY)[0]:
        for (path, pid), list_of in zip(targets, times):
            with contextlib.suppress(FileNotFoundError):
                list_of.append(ask(path, pid))
    print(json.dumps(times), flush=True)


if __name__ == "__main__":
    main()
