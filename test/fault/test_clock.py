"""Clocks are wrong, and are set right while we run: runs are as long as they were, nothing waits for a
time that never comes, and what is stored stays as long as it should."""

from __future__ import annotations

import time
import uuid

import pytest

from otlp_sink import OtlpSink
from preload import Warp
from whole import assert_ledger, eventually, exporter_ledger

HOUR, YEAR = 3600, 365 * 86400
S, MS = 10**9, 10**6


def to(date: float):
    """A step to that many seconds after 1970, wherever the clock is now."""
    return lambda: date - time.time()


STEPS = {
    "an hour ahead": lambda: HOUR,
    "an hour back": lambda: -HOUR,
    "to 1970": to(60),
    "past 2038": to(2**31 + 1000),
    "to 2200": to(230 * YEAR),
}


@pytest.fixture
def backend():
    with OtlpSink() as sink:
        yield sink


def exporting(backend, **store) -> dict:
    exporter = {"name": "backend", "type": "otlp", "endpoint": backend.endpoint}
    return {"exporters": [exporter], "store": {"size": "16MiB", **store}}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
@pytest.mark.alone
def test_a_step_in_mid_run_changes_no_duration_and_stops_no_timer(
    daemon, plain_sidelightd, tmp_path, backend, step
):
    warp = Warp(tmp_path, plain_sidelightd)
    running = daemon(exporting(backend), program=plain_sidelightd, env=warp.env)
    root, tool, cut = (uuid.uuid4().bytes for _ in range(3))
    wall, mono = time.time_ns(), time.monotonic_ns()
    with running.agent() as agent, running.agent() as other:
        agent.send([1, root, wall, mono, {"kind": "agent", "name": "root"}])
        agent.send([1, tool, wall + MS, mono + MS, {"kind": "tool", "name": "t", "parent": root}])
        other.send([1, cut, wall, mono, {"kind": "agent", "name": "cut"}])
        agent.flush()
        other.flush()
        warp.step(step())
        backend.go_down()
        stepped = max(0, int(wall + step() * S))  # the agent's clock is the same one
        agent.send([2, tool, stepped + 5 * MS, mono + 5 * MS, {}])
        agent.send([2, root, stepped + 9 * MS, mono + 9 * MS, {"output": "late"}])
        began = time.monotonic()
        agent.flush()
        took = time.monotonic() - began
        agent.bye()
    assert took < 1
    eventually(lambda: len(running.spans()) == 3, what="the run that was cut off is closed")
    backend.come_up()
    spans = {s.trace_id + s.name.encode(): s for s in backend.wait_for_spans(3)}
    assert all(s.end_time_unix_nano >= s.start_time_unix_nano > 0 for s in spans.values())
    by_name = {s["name"]: s for s in running.spans()}
    latencies = {s["name"].split()[-1]: s["latency_ms"] for s in by_name.values()}
    assert latencies["root"] == 9 and latencies["t"] == 4
    # Nobody said when it ended: the daemon did, by the monotonic clock.
    assert 0 <= latencies["cut"] < 60_000
    assert {s["trace_id"] for s in by_name.values()} == {root.hex(), cut.hex()}
    for path in ("/api/traces", "/api/traces?since=1h", "/api/observations", f"/api/traces/{root.hex()}"):
        assert running.get(path)[0] == 200, path
    assert_ledger(running, "backend")
    assert running.stop() == 0
    again = daemon(exporting(backend), program=plain_sidelightd, env=warp.env)
    assert "was corrupt" not in again.log
    with again.agent() as agent:
        agent.runs(5)
        agent.flush()
    assert again.stop() == 0


@pytest.mark.parametrize("seconds", [YEAR, -YEAR], ids=["ahead", "back"])
def test_a_step_ages_nothing_that_is_stored(daemon, plain_sidelightd, tmp_path, seconds):
    """A machine without a clock of its own wakes up in 1970 and is set right later: what it stored, and
    has not delivered, is a minute old all the same."""
    with OtlpSink(listening=False) as backend:
        warp = Warp(tmp_path, plain_sidelightd)
        running = daemon(exporting(backend, retention="1h"), program=plain_sidelightd, env=warp.env)
        with running.agent() as agent:
            early = agent.runs(20)
            agent.flush()
            warp.step(seconds)
            late = agent.runs(20)
            agent.flush()
            agent.bye()
        stored = {s["trace_id"] for s in running.spans()}
        assert stored == {i.hex() for i in early + late}
        ledger = exporter_ledger(assert_ledger(running, "backend"), "backend")
        assert (ledger["pending"], ledger["evicted"]) == (40, 0)
        backend.come_up()
        backend.wait_for_spans(40)
        assert running.stop() == 0


@pytest.mark.parametrize("seconds", [HOUR, -HOUR], ids=["ahead", "back"])
def test_retention_goes_on_after_a_step(daemon, plain_sidelightd, tmp_path, backend, seconds):
    warp = Warp(tmp_path, plain_sidelightd)
    config = exporting(backend, retention="1s")
    running = daemon(config, program=plain_sidelightd, env=warp.env)
    with running.agent() as agent:
        early = agent.runs(20)
        agent.flush()
        warp.step(seconds)

        def early_are_gone() -> bool:
            agent.runs(1)
            agent.flush()
            return not {i.hex() for i in early} & {s["trace_id"] for s in running.spans()}

        eventually(early_are_gone, timeout=5, what="they are too old")
    assert_ledger(running, "backend")
    assert running.stop() == 0


@pytest.mark.parametrize(
    "at", [1, 60 * S, 4102444800 * S, 2**63 - 1 - HOUR * S], ids=["0", "1970", "2100", "2262"]
)
def test_an_agent_with_a_wrong_clock_hurts_only_its_own_times(daemon, backend, at):
    running = daemon(exporting(backend, retention="1h"))
    wrong, right = uuid.uuid4().bytes, uuid.uuid4().bytes
    mono = time.monotonic_ns()
    with running.agent() as agent:
        agent.send([1, wrong, at, mono, {"kind": "agent", "name": "wrong"}])
        agent.send([3, wrong, at + MS, mono + MS, "first_token", {}])
        agent.send([2, wrong, at + 5 * MS, mono + 7 * MS, {}])
        now = time.time_ns()
        agent.send([1, right, now, mono, {"kind": "agent", "name": "right"}])
        agent.send([2, right, now, mono + 3 * MS, {}])
        assert agent.flush() == []
        agent.bye()
    latencies = {s["trace_id"]: s["latency_ms"] for s in running.spans()}
    assert latencies == {wrong.hex(): 7, right.hex(): 3}
    spans = {s.trace_id: s for s in backend.wait_for_spans(2)}
    assert spans[wrong].start_time_unix_nano == at
    assert spans[wrong].end_time_unix_nano == at + 7 * MS
    since = {t["trace_id"] for t in running.json("/api/traces?since=1h")["traces"]}
    assert right.hex() in since
    assert_ledger(running, "backend")
    assert running.stop() == 0
