"""Many open runs at once: more than one commit takes, and more than the store is to hold."""

from __future__ import annotations

import time
import uuid

from conftest import eventually


def begin(agent, count: int, size: int, **fields) -> list[bytes]:
    """That many open runs with an input of that size."""
    ids = [uuid.uuid4().bytes for _ in range(count)]
    fields = {"kind": "tool", "name": "t", "input": "x" * size, **fields}
    for at in range(0, count, 50):
        now, mono = time.time_ns(), time.monotonic_ns()
        agent.send(*([1, i, now, mono, fields] for i in ids[at : at + 50]))
    return ids


def accounted_for(running) -> int:
    metrics = running.metrics()
    return metrics("sidelight_spans_stored_total") + metrics("sidelight_open_runs")


def test_every_run_of_a_lost_connection_is_closed_however_large(daemon):
    running = daemon()
    agent = running.agent()
    root = agent.start(kind="agent", name="root")
    begin(agent, 600, 60_000, parent=root)
    agent.flush()
    agent.close()
    eventually(lambda: running.metrics()("sidelight_open_runs") == 0, what="all are closed")
    eventually(lambda: running.metrics()("sidelight_spans_stored_total") == 601, what="all stored")
    assert running.metrics()("sidelight_spans_dropped_total") == 0
    assert {s["status"]["code"] for s in running.spans()} == {"error"}


def test_every_run_below_an_ended_root_is_closed_however_large(daemon):
    running = daemon()
    with running.agent() as agent:
        root = agent.start(kind="agent", name="root")
        begin(agent, 300, 60_000, parent=root)
        agent.end(root)
        eventually(lambda: running.metrics()("sidelight_spans_stored_total") == 301, timeout=15,
                   what="the rest is cancelled")
        assert running.metrics()("sidelight_spans_dropped_total") == 0
        (request,) = running.observations()
        assert request["span_count"] == 301
        agent.bye()


def test_a_flush_covers_starts_that_need_many_commits(daemon):
    running = daemon()
    with running.agent(hello=False) as agent:
        wide = {f"k{i}": "v" * 1000 for i in range(12)}
        agent.send([0, {"v": 1, "service": "wide", "resource": wide}])
        begin(agent, 8000, 10)
        agent.flush()
        running.kill()
    again = daemon()
    assert accounted_for(again) + len(again.spans()) >= 8000  # open still, or closed for room


def test_a_store_full_of_open_runs_goes_on(daemon, tmp_path):
    running = daemon({"store": {"path": str(tmp_path / "data"), "size": "16MiB"}})
    with running.agent() as agent:
        begin(agent, 400, 60_000)  # 24 MB
        agent.flush()
        metrics = running.metrics()
        assert metrics("sidelight_runs_given_up_total") > 0
        assert metrics("sidelight_spans_dropped_total") == 0
        agent.runs(10)
        agent.flush()
        agent.bye()
    assert running.get("/readyz")[0] == 200


def test_a_parent_that_comes_late_has_many_children(daemon):
    running = daemon()
    with running.agent() as agent:
        root = uuid.uuid4().bytes
        begin(agent, 20_000, 10, parent=root)
        began = time.monotonic()
        agent.start(root, kind="agent", name="late")
        agent.flush()
        assert time.monotonic() - began < 5
        agent.end(root)
        agent.bye()
    eventually(lambda: running.metrics()("sidelight_open_runs") == 0, timeout=30, what="all end")
    eventually(lambda: len(running.observations()) == 1, what="one request of them all")
    assert running.observations()[0]["span_count"] == 20_001
