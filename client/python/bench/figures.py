"""What tracing costs an agent, ours beside the peers, in one run:

    python3 bench/figures.py [--peers PYTHON] [--daemon SIDELIGHTD] [--quick]

PYTHON is an interpreter that has langchain, langchain-openai, langgraph, msgpack and any of the
peers: opentelemetry-sdk with opentelemetry-exporter-otlp-proto-http,
openinference-instrumentation-langchain, opentelemetry-instrumentation-langchain (Traceloop's) and
langfuse. Everything is measured with it, so that all have the same LangChain; without it, with this
one. What can't be imported is "not installed".

CPU is the process's, background threads and a last flush included, less that of the same loop with
a handler that does nothing; the pairs come in bursts of ten, as an agent's do, a thousand a second,
so that no batch processor drops any. Wall times are those of the calling thread, which computes for
50 µs between two pairs: back to back, 64 pairs fill a socket before any collector wakes up.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
CLIENT = os.path.dirname(HERE)
BURST = 10
BETWEEN_NS = 50_000
AGENTS = os.path.join(CLIENT, "..", "..", "test", "agents")


# In the process that is measured


def percentiles(times):
    times = sorted(times)
    return times[len(times) // 2] / 1e3, times[len(times) * 99 // 100] / 1e3


def timed(contestant, count, pause):
    times = []
    for n in range(count):
        made = contestant.prepare()
        began = time.perf_counter_ns()
        contestant.pair(made)
        times.append(time.perf_counter_ns() - began)
        if pause and n % BURST == 0:
            time.sleep(pause * BURST)
    return times


def timed_at_work(contestant, count):
    times = []
    for _ in range(count):
        made = contestant.prepare()
        began = time.perf_counter_ns()
        contestant.pair(made)
        ended = time.perf_counter_ns()
        times.append(ended - began)
        while time.perf_counter_ns() < ended + BETWEEN_NS:
            pass
    return times


def measure_pairs(contestant, options):
    """Microseconds a pair: the best of several rounds, since what else runs here only adds."""
    count, rounds = (400, 3) if options.quick else (1500, 5)
    cpu, wall, busy = [], [], []
    timed(contestant, 500, 0.0005)
    contestant.flush()
    for _ in range(rounds):
        began = time.process_time_ns()
        timed(contestant, count, 0.001)
        contestant.flush()
        cpu.append((time.process_time_ns() - began) / count / 1e3)
        wall.append(percentiles(timed_at_work(contestant, count)))
        contestant.flush()
    stop = threading.Event()
    thread = threading.Thread(target=lambda: [sum(range(1000)) for _ in iter(stop.is_set, True)])
    thread.start()
    for _ in range(rounds):
        busy.append(percentiles(timed_at_work(contestant, count)))
    stop.set()
    thread.join()
    return {"cpu": min(cpu), "wall": list(map(min, zip(*wall))), "busy": list(map(min, zip(*busy)))}


def make_agent():
    from langchain.agents import create_agent
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    @tool
    def weather(city: str) -> str:
        """The weather in a city."""
        return f"sunny in {city}"

    @tool
    def days_until(date: str) -> str:
        """The days until a date."""
        return f"39 days until {date}"

    llm = ChatOpenAI(model="gpt-4o", base_url=os.environ["MODEL"], api_key="scripted", max_retries=0)
    return create_agent(llm, [weather, days_until], system_prompt="Be brief.")


def measure_agent(contestant, options):
    """Added CPU in percent of a run, blocks without and with callbacks in turn: sync and async."""
    agent, loop = make_agent(), asyncio.new_event_loop()
    question = {"messages": [("user", "weather in Oslo and days until 2027-01-01")]}
    count, rounds = (5, 4) if options.quick else (10, 12)

    def block(run, config):
        began = time.process_time_ns()
        for _ in range(count):
            run(config)
        if config:
            contestant.flush()
        return time.process_time_ns() - began

    result = {}
    ways = {
        "sync": lambda config: agent.invoke(question, config),
        "async": lambda config: loop.run_until_complete(agent.ainvoke(question, config)),
    }
    for name, run in ways.items():
        traced = {"callbacks": contestant.callbacks}
        block(run, {}), block(run, traced)
        pairs = [(block(run, {}), block(run, traced)) for _ in range(rounds)]
        bare = min(b for b, _ in pairs)
        result[name] = [100 * statistics.median((t - b) / bare for b, t in pairs), bare / count / 1e6]
    return result


def killed(contestant):
    contestant.pair(contestant.prepare())
    os.kill(os.getpid(), signal.SIGKILL)


def measure_killed(contestant, options):
    """How many of ten spans arrive whose forked workers are killed right after."""
    processes = [multiprocessing.get_context("fork").Process(target=killed, args=(contestant,)) for _ in range(10)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    contestant.flush()
    time.sleep(0.5)
    with urllib.request.urlopen(os.environ["SINK"] + "/count", timeout=5) as reply:
        return sum(json.load(reply).values())


def measure_import(name, options):
    code = """
import resource, time
def memory():
    with open("/proc/self/statm") as file: return int(file.read().split()[1]) * resource.getpagesize()
before, began = memory(), time.process_time_ns()
import sidelight
print((time.process_time_ns() - began) / 1e6, (memory() - before) / (1 << 20))
"""
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(9)]
    return list(map(min, zip(*(map(float, run.stdout.split()) for run in runs))))


MEASURES = {"pairs": measure_pairs, "agent": measure_agent, "killed": measure_killed}


def one(name, what, options):
    """Prints a result, or null for what is not installed."""
    sys.path.insert(0, HERE)
    from contestants import ALL

    try:
        contestant = ALL[name]()
    except ImportError as error:
        print(f"{name}: {error}", file=sys.stderr)
        print(json.dumps(None))
        return
    print(json.dumps(MEASURES[what](contestant, options)), flush=True)
    os._exit(0)  # what a peer does at its exit is not measured


# The table


class Bench:
    def __init__(self, options):
        self.options = options
        self.python = options.peers or sys.executable
        self.directory = tempfile.mkdtemp()
        self.running = []
        self.env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        self.env["PYTHONPATH"] = CLIENT
        self.env["LANGSMITH_TRACING"] = "false"
        self.env["PYTHONWARNINGS"] = "ignore"
        self.sink_socket = os.path.join(self.directory, "sink.sock")
        sink = self.start([self.python, os.path.join(HERE, "sink.py"), self.sink_socket])
        self.env["SINK"] = f"http://127.0.0.1:{sink.stdout.readline().strip()}"
        model = [sys.executable, os.path.join(AGENTS, "scripted_openai.py"), "--delay=0", "--final-delay=0"]
        self.env["MODEL"] = self.start(model).stdout.readline().strip()
        self.env["SIDELIGHT_SOCKET"] = self.sink_socket
        if options.daemon:
            self.env["SIDELIGHT_SOCKET"] = os.path.join(self.directory, "s.sock")
            self.start_daemon(options.daemon)

    def start(self, command, **streams):
        streams = streams or {"stdout": subprocess.PIPE}
        self.running.append(subprocess.Popen(command, env=self.env, text=True, **streams))
        return self.running[-1]

    def start_daemon(self, program):
        data = os.path.join(self.directory, "data")
        command = [program, "--data", data, "--http", "127.0.0.1:0", "--socket", self.env["SIDELIGHT_SOCKET"]]
        daemon = self.start(command, stderr=subprocess.PIPE)
        while "ready " not in daemon.stderr.readline():
            if daemon.poll() is not None:
                raise SystemExit(f"{program} does not start")
        threading.Thread(target=daemon.stderr.read, daemon=True).start()

    def ask(self, name, what, **env):
        command = [self.python, os.path.abspath(__file__), "--one", name, what]
        command += ["--quick"] if self.options.quick else []
        stderr = None if self.options.verbose else subprocess.DEVNULL
        done = subprocess.run(
            command, env={**self.env, **env}, stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=540
        )
        return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None

    def spans(self):
        with urllib.request.urlopen(self.env["SINK"] + "/count", timeout=5) as reply:
            return sum(json.load(reply).values())

    def stop(self):
        for process in self.running:
            process.terminate()
            process.wait()


def verdict(value, goal):
    return f"{'reached' if value <= goal else 'MISSED'} (goal {goal:.3g})"


def pairs(bench, names):
    print("\nAn LLM start and end, 2 KB of prompt and 1 KB of answer: µs")
    print(f"{'':<34}{'CPU':>8}{'p50':>9}{'p99':>9}{'p50':>9}{'p99':>9}  (the last two beside a busy thread)")
    base, costs = bench.ask("nothing", "pairs"), {}
    for name in names:
        found = bench.ask(name, "pairs")
        if found is None:
            print(f"{name:<34} not installed")
            continue
        costs[name] = found["cpu"] - base["cpu"]
        numbers = [costs[name], *found["wall"], *found["busy"]]
        print(f"{name:<34}{numbers[0]:8.1f}" + "".join(f"{n:9.1f}" for n in numbers[1:]), flush=True)
        if name == "Sidelight":
            ours = found
    numbers = [base["cpu"], *base["wall"], *base["busy"]]
    print(f"{'the loop itself':<34}" + "{:8.1f}{:9.1f}{:9.1f}{:9.1f}{:9.1f}".format(*numbers), " (CPU: already taken off)")
    if "Sidelight" not in costs:
        return
    mine = costs["Sidelight"]
    langchain = [costs[n] for n in ("Traceloop", "Langfuse", "OpenInference") if n in costs]
    if langchain:
        print(f"CPU: 1/{min(langchain) / mine:.1f} of the best LangChain instrumentation", verdict(mine, min(langchain) / 20))
    if "OpenTelemetry SDK, 12 attributes" in costs:
        span = costs["OpenTelemetry SDK, 12 attributes"]
        print(f"CPU: 1/{span / mine:.1f} of an OpenTelemetry span", verdict(mine, span / 8))
    for what, times in (("alone", ours["wall"]), ("beside a busy thread", ours["busy"])):
        print(f"wall, {what}: p50 {verdict(times[0], 10)}, p99 {verdict(times[1], 50)}")


def agents(bench, names):
    print("\ncreate_agent with two tools, a server without delay: added CPU in % of a run")
    for name in names:
        found = bench.ask(name, "agent")
        if found is None:
            print(f"{name:<34} not installed")
            continue
        line = "   ".join(f"{way} {added:+6.1f} % of {ms:.1f} ms" for way, (added, ms) in found.items())
        if name == "Sidelight":
            line += "   " + verdict(max(added for added, _ in found.values()), 5)
        print(f"{name:<34} {line}", flush=True)


def kills(bench):
    print("\nForked workers that are killed right after their last event: spans that arrived")
    for name in ("Sidelight", "OpenTelemetry SDK, 12 attributes"):
        before = bench.spans()
        found = bench.ask(name, "killed", SIDELIGHT_SOCKET=bench.sink_socket)
        print(f"{name:<34} " + ("not installed" if found is None else f"{found - before} of 10"), flush=True)


def main():
    parser = argparse.ArgumentParser(description="What tracing costs an agent, ours beside the peers.")
    parser.add_argument("--peers", metavar="PYTHON", help="an interpreter that has the peers")
    parser.add_argument("--daemon", metavar="SIDELIGHTD", default=os.environ.get("SIDELIGHTD"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--verbose", action="store_true", help="show what the measured processes say")
    parser.add_argument("--only", choices=["import", "pairs", "agents", "kills"])
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return one(*options.one, options)
    bench = Bench(options)
    names = ["Sidelight", "Sidelight, all Python", "OpenTelemetry SDK, 12 attributes"]
    names += ["Traceloop", "Langfuse", "OpenInference"]
    wanted = [options.only] if options.only else ["import", "pairs", "agents", "kills"]
    try:
        if "import" in wanted:
            sys.path.insert(0, CLIENT)
            ms, mib = measure_import("sidelight", options)
            print(f"import: {ms:.1f} ms CPU {verdict(ms, 30)}, {mib:.1f} MiB {verdict(mib, 5)}")
        if "pairs" in wanted:
            pairs(bench, names)
        if "agents" in wanted:
            agents(bench, [name for name in names if "SDK" not in name])
        if "kills" in wanted:
            kills(bench)
    finally:
        bench.stop()
    return None


if __name__ == "__main__":
    main()
