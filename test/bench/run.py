#!/usr/bin/env python3
"""Measures the collector and prints a table: figure, goal, measured, the floor where there is one.

    test/bench/run.py [--build DIR] [--events N] [--json] [ROW ...]

Without --build, a release build is made in build-bench. Rows: load-1, load-8, rate, idle, mallocs,
latency, flush, stored, start, export, exporters, backlog, peer; all of them without a name. export and peer
also measure the OpenTelemetry Collector that tools/setup --tests builds, or that of OTELCOL.
docs/performance.md says what each row measures.
Needs the standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

from export_rows import row_backlog, row_export, row_exporters, row_flush
from frames import request
from processes import (Collector, Daemon, Folder, Peak, Sink, collector_program, load, parse,
                       settle, wait_until)

ROOT = Path(__file__).resolve().parents[2]
MIB = 1024  # in the KiB of /proc


class Bench:
    def __init__(self, build: Path, events: int):
        self.build = build
        self.programs = build / "test/bench"
        self.events = events
        self.rows: list = []

    def add(self, figure: str, goal: str, measured: str, floor: str = "", **values) -> None:
        row = {"figure": figure, "goal": goal, "measured": measured, "floor": floor}
        self.rows.append({**row, **values})
        print(f"  {figure}: {measured}" + (f" (floor {floor})" if floor else ""), file=sys.stderr)

    def floor(self, events: int, connections: int, *more) -> tuple:
        """CPU seconds of a peer that does nothing but read, and the load's own figures."""
        with Folder() as folder:
            path = folder / "r.sock"
            reader = subprocess.Popen([str(self.programs / "load"), "--reader", str(path)],
                                      stdout=subprocess.PIPE, text=True)
            try:
                wait_until(path.exists, "the reader's socket", 10)
                sent = load(self.programs, path, events, connections, "--raw", *more)
                return parse(reader.communicate(timeout=30)[0])["cpu_seconds"], sent
            finally:
                reader.kill()
                reader.wait()


# --- under load -------------------------------------------------------------------------------


def row_load(bench: Bench, connections: int) -> None:
    bare_cpu, bare = bench.floor(bench.events, connections)
    with Folder() as folder:
        sink = Sink(bench.programs, folder)
        daemon = Daemon(bench.build, folder, sink)
        try:
            got = under_load(bench, daemon, sink, connections)
        finally:
            daemon.stop()
            sink.stop()
    million = got["events"] / 1e6
    bare_cpu /= bare["events"] / 1e6
    cpu = got["cpu"] / million
    of = f", {connections} connection" + ("s" if connections > 1 else "")
    parts = ", ".join(f"{n} {s / million:.2f}" for n, s in got["threads"].items() if s > 0.005)
    bench.add("CPU s per million events" + of, "<= 1.2", f"{cpu:.2f} ({parts})",
              f"{bare_cpu:.2f}: x {cpu / bare_cpu:.1f}", value=cpu)
    bench.add("events/s until durable" + of, ">= 600,000", f"{got['durable']:,.0f}",
              f"{bare['events_per_second']:,.0f} only read", value=got["durable"])
    bench.add("events/s until delivered" + of, ">= 600,000",
              f"{got['delivered']:,.0f}" + got["missing"], value=got["delivered"])
    bench.add("peak RSS, anonymous" + of, "<= 32 MiB",
              f"{got['anon'] / MIB:.1f} MiB (file pages {got['file'] / MIB:.0f} MiB)",
              value=got["anon"] / MIB)


def under_load(bench: Bench, daemon: Daemon, sink: Sink, connections: int) -> dict:
    cpu, threads = daemon.cpu(), daemon.thread_cpu()
    with Peak(daemon) as peak:
        sent = load(bench.programs, daemon.socket, bench.events, connections, "--flush")
        spans = int(sent["events"] / 2)
        last = settle(sink, spans)
        time.sleep(0.1)  # the cursor's own commit belongs to the count
        spent = daemon.thread_cpu()
        cpu = daemon.cpu() - cpu
    missing = spans - sink.spans()
    return {
        "events": sent["events"], "cpu": cpu, "anon": peak.anon, "file": peak.file,
        "threads": {n: s - threads.get(n, 0.0) for n, s in spent.items()},
        "durable": sent["events"] / sent["durable_seconds"],
        "delivered": 2 * sink.spans() / (last - sent["start_ns"] / 1e9),
        "missing": f" ({missing:,} spans evicted before)" if missing else "",
    }


# --- at rest and nearly so ----------------------------------------------------------------------


def row_rate(bench: Bench, seconds: int = 20) -> None:
    rate = 1000
    bare_cpu, _ = bench.floor(rate * seconds, 1, "--rate", rate)
    with Folder() as folder:
        sink = Sink(bench.programs, folder)
        daemon = Daemon(bench.build, folder, sink)
        try:
            load(bench.programs, daemon.socket, 3 * rate, 1, "--rate", rate)
            cpu, switches = daemon.cpu(), daemon.switches()[0]
            load(bench.programs, daemon.socket, rate * seconds, 1, "--rate", rate)
            cpu, switches = daemon.cpu() - cpu, daemon.switches()[0] - switches
        finally:
            daemon.stop()
            sink.stop()
    share = 100 * cpu / seconds
    bare = 100 * bare_cpu / seconds
    bench.add("CPU of a core at 1,000 events/s", "<= 0.5 %",
              f"{share:.2f} % ({switches / seconds:.0f} wakeups/s)",
              f"{bare:.2f} %: x {share / bare:.1f}", value=share)


def row_idle(bench: Bench, seconds: int = 10) -> None:
    with Folder() as folder:
        sink = Sink(bench.programs, folder)
        daemon = Daemon(bench.build, folder, sink)
        try:
            time.sleep(2)
            cpu, switches = daemon.cpu(), daemon.switches()[0]
            time.sleep(seconds)
            cpu, switches = daemon.cpu() - cpu, daemon.switches()[0] - switches
            anon, file = daemon.status("RssAnon"), daemon.status("RssFile")
        finally:
            daemon.stop()
            sink.stop()
    bench.add("idle RSS", "<= 6 MiB",
              f"{(anon + file) / MIB:.1f} MiB (anonymous {anon / MIB:.1f} MiB)",
              value=(anon + file) / MIB)
    bench.add("idle wakeups", "0", f"{switches} in {seconds} s, {cpu * 1e3:.2f} ms CPU",
              value=switches)


# --- allocations --------------------------------------------------------------------------------


def row_mallocs(bench: Bench) -> None:
    with Folder() as folder:
        counts = folder / "mallocs"
        sink = Sink(bench.programs, folder)
        preload = {"LD_PRELOAD": str(bench.programs / "libmallocs.so"),
                   "MALLOCS_COUNTS": str(counts)}
        daemon = Daemon(bench.build, folder, sink, env=preload)
        try:
            names = daemon.threads()
            warm = load(bench.programs, daemon.socket, bench.events // 2, 1, "--flush")
            settle(sink, int(warm["events"] / 2))
            before = allocations(counts)
            sent = load(bench.programs, daemon.socket, bench.events // 2, 1, "--flush")
            settle(sink, int((warm["events"] + sent["events"]) / 2))
            after = allocations(counts)
        finally:
            daemon.stop()
            sink.stop()
    made: dict = {}
    for thread, count in after.items():
        name = names.get(thread, "ended or late threads")
        made[name] = made.get(name, 0) + count - before.get(thread, 0)
    each = sum(made.values()) / sent["events"]
    parts = ", ".join(f"{n} {c:,}" for n, c in made.items() if c)
    bench.add("allocations per event", "0", f"{each:.4f} ({parts})", value=each)


def allocations(path: Path) -> dict:
    pairs = struct.iter_unpack("=2Q", path.read_bytes())
    return {thread: count for thread, count in pairs if thread}


# --- what a person waits for ----------------------------------------------------------------------


def row_latency(bench: Bench, samples: int = 40) -> None:
    took = []
    with Folder() as folder:
        daemon = Daemon(bench.build, folder)
        agent = socket.socket(socket.AF_UNIX)
        try:
            agent.connect(str(daemon.socket))
            for _ in range(samples):
                took.append(see_one(daemon, agent))
                time.sleep(0.5)  # at rest again
        finally:
            agent.close()
            daemon.stop()
    took.sort()
    p50, p99 = took[len(took) // 2], took[int(len(took) * 0.99)]
    bench.add("from sent to seen in the API, idle daemon", "<= 50 ms",
              f"p50 {p50:.1f} ms, p99 {p99:.1f} ms", value=p99)


def see_one(daemon: Daemon, agent) -> float:
    """Milliseconds from the write of a request's start and end to the API's showing its end."""
    run = os.urandom(16)
    events = request(run)
    begin = time.monotonic()
    agent.sendall(events)
    wait_until(lambda: ended(daemon, run.hex()), "the trace in the API", 10, 0.0005)
    return (time.monotonic() - begin) * 1e3


def ended(daemon: Daemon, trace: str) -> bool:
    status, body = daemon.get(f"/api/traces/{trace}")
    return status == 200 and json.loads(body)["spans"][0]["end_time"] is not None


def row_stored(bench: Bench, spans: int = 1_000_000) -> None:
    with Folder() as folder:
        daemon = Daemon(bench.build, folder, size="3GiB")
        try:
            load(bench.programs, daemon.socket, 2 * spans, 4, "--flush")
            kept = daemon.held()
            first, last = look_up(bench, daemon, "last"), look_up(bench, daemon, newest(daemon))
            prefix = look_up(bench, daemon, newest(daemon)[:12])
        finally:
            daemon.stop()
    bench.add(f"sidelight trace with {kept:,} spans stored", "<= 30 ms",
              f"last {first:.1f} ms, by id {last:.1f} ms, by prefix {prefix:.1f} ms",
              value=max(first, last, prefix))


def row_start(bench: Bench, spans: int = 1_500_000) -> None:
    with Folder() as folder:
        daemon = Daemon(bench.build, folder, size="1GiB")
        try:
            load(bench.programs, daemon.socket, 2 * spans, 4, "--flush")  # to the brim and past it
        finally:
            daemon.stop()
        sizes = os.stat(folder / "data" / "data.mdb")
        starts = [restart(bench, folder) for _ in range(5)]
    bench.add("start with a full store of 1 GiB", "<= 100 ms",
              f"{min(starts):.0f} ms, slowest {max(starts):.0f} ms of {len(starts)}",
              value=min(starts), file_bytes=sizes.st_size)


def newest(daemon: Daemon) -> str:
    return json.loads(daemon.get("/api/traces?limit=50")[1])["traces"][-1]["trace_id"]


def look_up(bench: Bench, daemon: Daemon, which: str) -> float:
    """Milliseconds that the tool takes as a process, the median of 11."""
    argv = [str(bench.build / "tools/sidelight"), "trace", which, "--socket", str(daemon.socket)]
    took = []
    for _ in range(11):
        begin = time.monotonic()
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, timeout=30)
        took.append((time.monotonic() - begin) * 1e3)
    return sorted(took)[5]


def restart(bench: Bench, folder: Path) -> float:
    daemon = Daemon(bench.build, folder, size="1GiB")
    daemon.stop()
    return daemon.start_s * 1e3


# --- a peer -------------------------------------------------------------------------------------


def row_peer(bench: Bench) -> None:
    """The OpenTelemetry Collector, batching from its memory queue: nothing of it is durable."""
    if not collector_program():
        print("  peer: there is no OpenTelemetry Collector; set OTELCOL", file=sys.stderr)
        return
    for batch, spans in ((1, bench.events // 10), (512, bench.events)):
        with Folder() as folder:
            sink = Sink(bench.programs, folder)
            peer = Collector(folder, [sink])
            try:
                measure_peer(bench, peer, sink, batch, spans)
            finally:
                peer.stop()
                sink.stop()


def measure_peer(bench: Bench, peer: Collector, sink: Sink, batch: int, spans: int) -> None:
    cpu = peer.cpu()
    argv = [bench.programs / "otlp_load", peer.port, "--spans", spans, "--batch", batch]
    with Peak(peer) as peak:
        out = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, text=True, check=True,
                             timeout=300).stdout
        sent = parse(out)
        last = settle(sink, int(sent["spans"]))
    cpu = (peer.cpu() - cpu) / (sent["spans"] / 1e6)
    of = "a span a request" if batch == 1 else f"{batch} spans a request"
    lost = int(sent["spans"]) - sink.spans()
    bench.add(f"OpenTelemetry Collector, {of}", "",
              f"{cpu:.1f} CPU s per million spans, "
              f"{sink.spans() / (last - sent['start_ns'] / 1e9):,.0f} spans/s delivered, "
              f"{peak.anon / MIB:.0f} MiB anonymous" + (f", {lost:,} lost" if lost else ""),
              value=cpu)


# --- the table ------------------------------------------------------------------------------------

ROWS = {
    "load-1": lambda b: row_load(b, 1),
    "load-8": lambda b: row_load(b, 8),
    "rate": row_rate,
    "idle": row_idle,
    "mallocs": row_mallocs,
    "latency": row_latency,
    "flush": row_flush,
    "stored": row_stored,
    "start": row_start,
    "export": row_export,
    "exporters": row_exporters,
    "backlog": row_backlog,
    "peer": row_peer,
}


def make_build(build: Path) -> None:
    if not (build / "build.ninja").exists():
        subprocess.run(["meson", "setup", build, ROOT, "-Dbuildtype=release"], check=True,
                       stdout=subprocess.DEVNULL)
    done = subprocess.run(
        ["ninja", "-C", build, "collector/sidelightd", "tools/sidelight", "bench"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(done.stdout)


def machine() -> str:
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    busy = os.getloadavg()[0]
    return (f"{os.cpu_count()} x {cpu}, Linux {platform.release()}; "
            f"load average {busy:.1f} at the start")


def print_table(rows: list) -> None:
    heads = ("figure", "goal", "measured", "floor")
    table = [heads] + [tuple(str(r[h]) for h in heads) for r in rows]
    widths = [max(len(line[i]) for line in table) for i in range(len(heads))]
    for number, line in enumerate(table):
        print("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (w + 2) for w in widths) + "|")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--build", type=Path, default=ROOT / "build-bench")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    unknown = set(options.rows) - set(ROWS)
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))

    host = machine()
    print(host, file=sys.stderr)
    build = options.build.resolve()
    make_build(build)
    bench = Bench(build, options.events)
    for name in options.rows or ROWS:
        ROWS[name](bench)
    if options.json:
        print(json.dumps({"machine": host, "events": options.events, "rows": bench.rows}, indent=1))
    else:
        print(host)
        print_table(bench.rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
