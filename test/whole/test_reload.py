"""Exporters that change while the daemon runs: SIGHUP with the real daemon and real backends."""

from __future__ import annotations

import os
import signal

import pytest

from conftest import assert_ledger, eventually
from otlp_sink import OtlpSink


def otlp(name: str, sink: OtlpSink, **keys) -> dict:
    return {"type": "otlp", "name": name, "endpoint": sink.endpoint, **keys}


@pytest.fixture
def other():
    with OtlpSink() as sink:
        yield sink


def send(running, count: int) -> None:
    with running.agent() as agent:
        agent.runs(count)
        agent.flush()
        agent.bye()


def shows(running, exporter: str) -> bool:
    return any(dict(labels).get("exporter") == exporter for _, labels in running.metrics())


def reload(running, arguments, exporters: list, says: str) -> None:
    arguments({"exporters": exporters})
    running.signal(signal.SIGHUP)
    running.wait_for_line(says)


def test_an_exporter_that_comes_gets_what_is_stored_if_it_wants(daemon, arguments, sink, other):
    running = daemon({"exporters": [otlp("a", sink)]})
    send(running, 20)
    sink.wait_for_spans(20)
    with OtlpSink() as third:
        reload(
            running,
            arguments,
            [
                otlp("a", sink),
                otlp("all", other, **{"from": "beginning"}),
                otlp("new", third),
            ],
            "1 go on as they are, 2 started, 0 stopped",
        )
        other.wait_for_spans(20)
        send(running, 10)
        for backend, count in (sink, 30), (other, 30), (third, 10):
            assert len(backend.wait_for_spans(count)) == count
        eventually(
            lambda: running.metrics()("sidelight_export_pending_spans") == 0, what="all settled"
        )
        metrics = running.metrics()
        for name, count in ("a", 30), ("all", 30), ("new", 10):
            assert metrics("sidelight_spans_delivered_total", exporter=name) == count


def test_one_that_goes_keeps_its_place_for_when_it_comes_back(daemon, arguments, sink, other):
    running = daemon({"exporters": [otlp("a", sink), otlp("b", other)]})
    send(running, 10)
    other.wait_for_spans(10)
    sink.wait_for_spans(10)
    reload(running, arguments, [otlp("a", sink)], "1 go on as they are, 0 started, 1 stopped")
    assert shows(running, "a") and not shows(running, "b")
    send(running, 10)
    sink.wait_for_spans(20)
    reload(
        running, arguments, [otlp("a", sink), otlp("b", other)], "1 go on as they are, 1 started"
    )
    assert len({span.span_id for span in other.wait_for_spans(20)}) == 20
    assert len(other.spans()) == 20
    eventually(
        lambda: running.metrics()("sidelight_spans_delivered_total", exporter="b") == 20,
        what="its counts go on",
    )


def test_a_new_endpoint_takes_over_where_the_dead_one_stood(daemon, arguments, other):
    with OtlpSink(listening=False) as dead:
        running = daemon({"exporters": [otlp("a", dead)]})
        send(running, 50)
        reload(running, arguments, [otlp("a", other)], "0 go on as they are, 1 started, 1 stopped")
        assert len(other.wait_for_spans(50)) == 50


def test_a_configuration_with_errors_changes_nothing(daemon, arguments, sink):
    running = daemon({"exporters": [otlp("a", sink)]})
    arguments({"exporters": [{"type": "otlp", "endpoint": "nonsense"}]})
    running.signal(signal.SIGHUP)
    running.wait_for_line("nothing was changed")
    send(running, 5)
    assert len(sink.wait_for_spans(5)) == 5
    eventually(lambda: running.metrics()("sidelight_export_pending_spans") == 0, what="settled")
    assert_ledger(running, "a")


@pytest.mark.parametrize("what", ["empty", "a pipe"])
def test_a_file_that_can_not_be_read_again_changes_nothing(daemon, arguments, tmp_path, sink, what):
    """An editor may be about to write it; a pipe would hold the collector up until somebody does."""
    running = daemon({"exporters": [otlp("a", sink)]})
    file = tmp_path / "sidelight.yaml"
    file.unlink()
    if what == "empty":
        file.touch()
    else:
        os.mkfifo(file)
    running.signal(signal.SIGHUP)
    running.wait_for_line("nothing was changed")
    send(running, 5)
    assert len(sink.wait_for_spans(5)) == 5
    assert running.stop() == 0


def test_many_changes_in_a_row_end_at_the_last(daemon, arguments, sink, other):
    running = daemon({"exporters": [otlp("a", sink)]})
    for i in range(10):
        arguments({"exporters": [otlp("a", sink), *([otlp("b", other)] if i % 2 else [])]})
        running.signal(signal.SIGHUP)
        send(running, 3)
    eventually(lambda: shows(running, "b"), what="the last configuration")
    assert len({span.span_id for span in sink.wait_for_spans(30)}) == 30
    assert len(sink.spans()) == 30


def test_names_without_end_are_refused_in_words(daemon, arguments, sink):
    running = daemon({"exporters": [otlp("n0", sink)]})
    for i in range(1, 64):
        arguments({"exporters": [otlp(f"n{i}", sink)]})
        running.signal(signal.SIGHUP)
        eventually(lambda: shows(running, f"n{i}"), what="the change")
    reload(running, arguments, [otlp("n64", sink)], "n64: could not be started: too many names")
