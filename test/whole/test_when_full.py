"""A full store and a dead backend: what goes, what is refused, and that each is counted."""

from __future__ import annotations

import signal
import time

import pytest

from conftest import assert_ledger, eventually, exporter_ledger
from otlp_sink import OtlpSink

BIG = "x" * 60_000  # the store of 16 MiB is full after some 200 of them


def config(sink: OtlpSink, when_full: str) -> dict:
    return {
        "store": {"size": "16MiB", "when_full": when_full},
        "exporters": [{"type": "otlp", "name": "a", "endpoint": sink.endpoint}],
    }


def fill(running, count: int) -> list:
    """Sends runs and flushes now and then; returns the complaints."""
    complaints = []
    with running.agent() as agent:
        for i in range(count):
            agent.runs(1, input=f"{i} {BIG}")
            if i % 20 == 19:
                complaints += agent.flush()
        complaints += agent.flush()
        agent.bye()
    return complaints


def is_ready(running) -> tuple[bool, str]:
    status, body = running.get("/readyz")
    return status == 200, body.decode()


def test_the_newest_are_refused_and_none_that_was_taken_is_lost(daemon):
    with OtlpSink(listening=False) as sink:
        running = daemon(config(sink, "refuse_newest"))
        complaints = fill(running, 400)
        assert [c["code"] for c in complaints] == ["store_full"]
        ready, why = is_ready(running)
        assert not ready and "full of what exporters have not got" in why
        metrics = running.metrics()
        stored = metrics("sidelight_spans_stored_total")
        refused = metrics("sidelight_spans_refused_total", exporter="a")
        assert 100 < stored < 400
        assert stored + refused == 400
        assert metrics("sidelight_spans_evicted_total", exporter="a") == 0
        # A start and an end of each, and nothing else.
        assert metrics("sidelight_frames_refused_total", reason="store_full") == 2 * refused

        sink.come_up()
        assert len({span.span_id for span in sink.wait_for_spans(int(stored), 20)}) == stored
        eventually(lambda: is_ready(running)[0], what="ready again")
        assert fill(running, 20) == []
        sink.wait_for_spans(int(stored) + 20)
        eventually(
            lambda: running.metrics()("sidelight_export_pending_spans") == 0, what="all settled"
        )
        assert_ledger(running, "a")


@pytest.mark.alone
def test_it_takes_runs_again_within_a_second_of_room(daemon):
    with OtlpSink(listening=False) as sink:
        running = daemon(config(sink, "refuse_newest"))
        fill(running, 300)
        assert not is_ready(running)[0]
        sink.come_up()
        eventually(
            lambda: running.metrics()("sidelight_export_pending_spans") == 0,
            what="delivered",
            timeout=20,
        )
        began = time.monotonic()
        eventually(lambda: is_ready(running)[0], what="ready again")
        assert time.monotonic() - began < 1.5  # a second, and a poll


def test_a_run_that_is_open_may_end_when_nothing_may_begin(daemon):
    with OtlpSink(listening=False) as sink:
        running = daemon(config(sink, "refuse_newest"))
        with running.agent() as agent:
            run = agent.start(kind="agent", name="early")
            agent.flush()
            fill(running, 300)
            assert not is_ready(running)[0]
            agent.end(run)
            assert agent.flush() == []
            agent.bye()
        assert any(span["name"].endswith("early") for span in running.spans())


def test_the_oldest_go_when_nothing_else_is_said(daemon):
    with OtlpSink(listening=False) as sink:
        running = daemon(config(sink, "drop_oldest"))
        assert fill(running, 400) == []
        metrics = assert_ledger(running, "a")
        assert exporter_ledger(metrics, "a")["evicted"] > 0
        assert metrics("sidelight_spans_refused_total", exporter="a") == 0
        assert is_ready(running)[0]


def test_an_exporter_that_is_taken_away_holds_nothing(daemon, arguments):
    with OtlpSink(listening=False) as sink:
        running = daemon(config(sink, "refuse_newest"))
        fill(running, 300)
        assert not is_ready(running)[0]
        arguments({"store": {"size": "16MiB", "when_full": "refuse_newest"}, "exporters": []})
        running.signal(signal.SIGHUP)
        eventually(lambda: is_ready(running)[0], what="ready again")
