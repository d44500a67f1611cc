"""The rows of delivery: what an exporter costs, what it costs the agents, and what a flush takes."""

from __future__ import annotations

import os
import socket
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from frames import frame, request
from processes import (Collector, Daemon, Folder, Peak, Sink, collector_program, load, otlp,
                       settle)

if TYPE_CHECKING:
    from run import Bench

TRIES = 3
ROUNDS = 5
STORE = "2GiB"
KIB = 1024
GIB = 1 << 30
GOAL = {"none": 0.5, "gzip": 2.0}  # CPU seconds per million spans


# --- an exporter that catches up -------------------------------------------------------------------


def fill(bench: Bench, folder: Path, enough) -> int:
    """Stores spans until it is enough; returns how many. No exporter is there yet."""
    daemon = Daemon(bench.build, folder, size=STORE)
    try:
        while not enough(daemon):
            load(bench.programs, daemon.socket, 200_000, 4, "--flush")
        return daemon.held()
    finally:
        daemon.stop()


def catch_up(bench: Bench, folder: Path, name: str, port: int, sinks: list, spans: int,
             compression: str) -> dict:
    """A daemon whose new exporter brings all that is stored to a port, and so to each of the sinks."""
    before = [s.spans() for s in sinks]
    bytes_before = sinks[0].counts()[1]
    begin = time.monotonic()
    daemon = Daemon(bench.build, folder, size=STORE,
                    exporters=[otlp(name, port, compression, "beginning")])
    try:
        with Peak(daemon) as peak:
            last = max(settle(s, n + spans) for s, n in zip(sinks, before))
            time.sleep(0.1)  # the cursor's own commit belongs to the count
        cpu = daemon.thread_cpu()[f"export-{name}"]
        whole = daemon.cpu()
    finally:
        daemon.stop()
    for sink, n in zip(sinks, before):
        if sink.spans() != n + spans:
            raise RuntimeError(f"{sink.spans() - n:,} of {spans:,} spans arrived")
    return {"cpu": cpu / spans * 1e6, "whole": whole / spans * 1e6, "rate": spans / (last - begin),
            "anon": peak.anon, "bytes": (sinks[0].counts()[1] - bytes_before) / spans}


def row_export(bench: Bench) -> None:
    with Folder() as folder:
        spans = fill(bench, folder, lambda d: d.held() >= bench.events / 2)
        for compression in GOAL:
            ours = ours_exports(bench, folder, spans, compression)
            if collector_program():
                peer_exports(bench, folder, spans, compression, ours)
            else:
                print("  export: no OpenTelemetry Collector to compare with; set OTELCOL",
                      file=sys.stderr)


def ours_exports(bench: Bench, folder: Path, spans: int, compression: str) -> float:
    sink = Sink(bench.programs, folder)
    try:
        tries = [catch_up(bench, folder, f"{compression}{i}", sink.port, [sink], spans, compression)
                 for i in range(TRIES)]
    finally:
        sink.stop()
    best = min(tries, key=lambda t: t["cpu"])
    bench.add(f"CPU s per million spans of an exporter, compression {compression}",
              f"<= {GOAL[compression]}",
              f"{best['cpu']:.2f}, best of {TRIES}: {1e6 / best['cpu']:,.0f} spans/s of a core, "
              f"{best['bytes']:.0f} bytes a span; the whole daemon {best['whole']:.2f}",
              value=best["cpu"])
    return best["cpu"]


def peer_exports(bench: Bench, folder: Path, spans: int, compression: str, ours: float) -> None:
    """The same spans to a Collector and through it. What a second exporter adds is one's own share."""
    cpu = [peer_passes_on(bench, folder, spans, compression, sinks) for sinks in (1, 2)]
    share = cpu[1] - cpu[0]
    bench.add(f"OpenTelemetry Collector, the same spans, compression {compression}", "",
              f"{cpu[0]:.2f} CPU s per million spans from receiver to exporter, "
              f"{share:.2f} for one more exporter",
              f"x {cpu[0] / ours:.1f}, x {share / ours:.1f} of our exporter", value=cpu[0])


def peer_passes_on(bench: Bench, folder: Path, spans: int, compression: str, count: int) -> float:
    sinks = [Sink(bench.programs, folder, i) for i in range(count)]
    spent = []
    try:
        for i in range(TRIES):
            peer = Collector(folder, sinks, compression)
            try:
                cpu = peer.cpu()
                name = f"p{compression[0]}{count}{i}"
                catch_up(bench, folder, name, peer.port, sinks, spans, "none")
                spent.append((peer.cpu() - cpu) / spans * 1e6)
            finally:
                peer.stop()
    finally:
        for sink in sinks:
            sink.stop()
    return min(spent)


def row_backlog(bench: Bench) -> None:
    with Folder() as folder:
        spans = fill(bench, folder, lambda d: d.metric("sidelight_store_bytes") >= GIB)
        sink = Sink(bench.programs, folder)
        try:
            tries = [catch_up(bench, folder, f"b{i}", sink.port, [sink], spans, "none")
                     for i in range(TRIES)]
        finally:
            sink.stop()
    rates = sorted(t["rate"] for t in tries)
    anon = max(t["anon"] for t in tries) / KIB
    bench.add(f"spans/s catching up on 1 GiB, {spans:,} spans", ">= 500,000",
              f"{rates[-1]:,.0f}, best of {TRIES}; median {statistics.median(rates):,.0f}",
              value=rates[-1])
    bench.add("peak RSS while catching up, anonymous", "<= 32 MiB", f"{anon:.1f} MiB", value=anon)


# --- what exporters cost the agents ----------------------------------------------------------------


def row_exporters(bench: Bench) -> None:
    """One exporter and three in turn, one of these with a port that nobody listens at."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        runs: dict = {1: [], 3: []}
        for _ in range(ROUNDS):
            for count, got in runs.items():
                got.append(under_exporters(bench, count, port))
    one, three = ([rate for rate, _ in runs[count]] for count in (1, 3))
    cpu = [min(cpu for _, cpu in runs[count]) for count in (1, 3)]
    best = max(three) / max(one)
    median = statistics.median(three) / statistics.median(one)
    bench.add("events/s with three exporters, one dead, of those with one", ">= 90 %",
              f"best of {ROUNDS} each {100 * best:.0f} % ({max(three):,.0f} of {max(one):,.0f}), "
              f"medians {100 * median:.0f} %; "
              f"the loop's CPU s per million events {cpu[1]:.2f} and {cpu[0]:.2f}",
              value=best, median=median, cpu=cpu[1] / cpu[0])


def under_exporters(bench: Bench, count: int, dead_port: int) -> tuple:
    """Events/s until durable, and the loop's CPU seconds per million of them."""
    with Folder() as folder:
        sinks = [Sink(bench.programs, folder, i) for i in range(max(1, count - 1))]
        exporters = [otlp(f"live{i}", s.port) for i, s in enumerate(sinks)]
        if count > len(sinks):
            exporters.append(otlp("dead", dead_port))
        daemon = Daemon(bench.build, folder, exporters=exporters)
        try:
            sent = load(bench.programs, daemon.socket, bench.events, 1, "--flush")
            cpu = daemon.thread_cpu()["sidelightd"] / sent["events"] * 1e6
            return sent["events_per_second"], cpu
        finally:
            daemon.stop()
            for sink in sinks:
                sink.stop()


# --- a flush -----------------------------------------------------------------------------------------


def row_flush(bench: Bench, rounds: int = 10, samples: int = 200) -> None:
    """In turn: an append of 4 KiB with its fdatasync, and a request's start, end and flush. Of the
    rounds that one counts in which the disk by itself was quickest: it may have other work, too."""
    with Folder() as folder, socket.socket(socket.AF_UNIX) as agent:
        fd = os.open(folder / "disk", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        daemon = Daemon(bench.build, folder)
        try:
            agent.connect(str(daemon.socket))
            disk, flush = min((flush_round(fd, agent, samples) for _ in range(rounds)),
                              key=lambda times: times[0][1])
        finally:
            daemon.stop()
            os.close(fd)
    bench.add("flush round trip, idle daemon", "p99 <= an fdatasync's + 1 ms",
              f"p50 {flush[0]:.2f} ms, p99 {flush[1]:.2f} ms",
              f"fdatasync of 4 KiB: p50 {disk[0]:.2f} ms, p99 {disk[1]:.2f} ms",
              value=flush[1], disk=disk[1])


def flush_round(fd: int, agent: socket.socket, samples: int) -> tuple:
    """p50 and p99 of the disk and of the flush, in milliseconds."""
    times: tuple = ([], [])
    for token in range(samples):
        time.sleep(0.005)
        times[0].append(sync_once(fd))
        time.sleep(0.005)
        times[1].append(flush_once(agent, token))
    return tuple([sorted(t)[int(samples * share)] for share in (0.5, 0.99)] for t in times)


def sync_once(fd: int) -> float:
    begin = time.monotonic()
    os.write(fd, bytes(4096))
    os.fdatasync(fd)
    return (time.monotonic() - begin) * 1e3


def flush_once(agent: socket.socket, token: int) -> float:
    frames = request(os.urandom(16)) + frame([4, token])
    begin = time.monotonic()
    agent.sendall(frames)
    answer = agent.recv(64)
    took = (time.monotonic() - begin) * 1e3
    if answer[4:6] != b"\x92\x05":
        raise RuntimeError(f"no answer to a flush: {answer!r}")
    return took
