"""Spans on their way out: the real daemon, a real backend, and everything that goes wrong between."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from conftest import assert_ledger, eventually, exporter_ledger
from otlp_sink import Answer, OtlpSink, partial_success

NAME = "backend"


def otlp(sink: OtlpSink, name: str = NAME, **options) -> dict:
    return {"name": name, "type": "otlp", "endpoint": sink.endpoint, **options}


def exporting(sink: OtlpSink, **options) -> dict:
    return {"exporters": [otlp(sink, **options)]}


def ids(spans) -> list[str]:
    return sorted(span.span_id.hex() for span in spans)


def assert_exactly_once(sink: OtlpSink, count: int) -> None:
    spans = ids(sink.spans())
    assert len(spans) == count
    assert len(set(spans)) == count


def settled(daemon, sink_count: int) -> dict:
    """The ledger once nothing is pending and that much was delivered."""
    return eventually(
        lambda: (ledger := exporter_ledger(daemon.metrics(), NAME))["pending"] == 0
        and ledger["delivered"] >= sink_count
        and ledger,
        what=f"{sink_count} delivered",
    )


def test_every_span_arrives_exactly_once(daemon, sink):
    d = daemon(exporting(sink))
    with d.agent() as agent:
        for _ in range(20):
            agent.runs(50)
        agent.flush()
    sink.wait_for_spans(1000)
    settled(d, 1000)
    assert_exactly_once(sink, 1000)
    assert assert_ledger(d, NAME)("sidelight_spans_delivered_total", exporter=NAME) == 1000
    assert d.stop() == 0


def test_a_span_carries_what_the_agent_said(daemon, sink):
    d = daemon(exporting(sink))
    with d.agent(service="chat-api") as agent:
        root = agent.start(kind="agent", name="helper")
        call = agent.start(kind="llm", name="chat", parent=root, model="gpt-4o", input="secret words")
        agent.end(call, usage={"prompt_tokens": 12, "completion_tokens": 3}, output="more secrets")
        agent.end(root, error={"type": "ValueError", "message": "no such city"})
        agent.flush()
    spans = {span.name: span for span in sink.wait_for_spans(2)}
    request = sink.requests[0]
    assert request.path == "/v1/traces"
    assert request.headers["Content-Type"] == "application/x-protobuf"
    assert request.headers["User-Agent"].startswith("sidelight/")
    assert "Expect" not in request.headers
    resource = request.message.resource_spans[0].resource
    attributes = {a.key: a.value.string_value for a in resource.attributes}
    assert attributes["service.name"] == "chat-api"
    assert request.message.resource_spans[0].scope_spans[0].scope.name == "sidelight"
    parent, child = spans["invoke_agent helper"], spans["chat gpt-4o"]
    assert child.parent_span_id == parent.span_id
    assert child.trace_id == parent.trace_id
    assert len(child.trace_id) == 16
    assert parent.start_time_unix_nano <= child.start_time_unix_nano
    assert child.end_time_unix_nano <= parent.end_time_unix_nano
    assert (parent.status.code, parent.status.message) == (2, "no such city")
    assert child.status.code == 0
    values = {a.key: a.value for a in child.attributes}
    assert values["gen_ai.usage.input_tokens"].int_value == 12
    assert "secret" not in str(request.message)


def test_content_leaves_only_when_asked_for(daemon):
    with OtlpSink() as plain, OtlpSink() as full:
        d = daemon({"exporters": [otlp(plain, "plain"), otlp(full, "full", content=True)]})
        with d.agent() as agent:
            agent.runs(5, input="my secret", kind="tool", name="search")
            agent.flush()
        assert "my secret" in str(full.wait_for_spans(5))
        assert "my secret" not in str(plain.wait_for_spans(5))
        assert_ledger(d, "plain", "full")


def test_agents_with_different_resources_keep_theirs(daemon, sink):
    d = daemon(exporting(sink))
    with d.agent(service="one") as one, d.agent(service="two") as two:
        for agent in (one, two, one, two):
            agent.runs(10)
            agent.flush()
    sink.wait_for_spans(40)
    per_service: dict[str, int] = {}
    for request in sink.accepted():
        for group in request.message.resource_spans:
            service = next(
                a.value.string_value for a in group.resource.attributes if a.key == "service.name"
            )
            count = sum(len(scope.spans) for scope in group.scope_spans)
            per_service[service] = per_service.get(service, 0) + count
    assert per_service == {"one": 20, "two": 20}


def test_a_backend_that_is_down_is_waited_for(daemon):
    with OtlpSink(listening=False) as sink:
        d = daemon(exporting(sink))
        with d.agent() as agent:
            agent.runs(100)
            agent.flush()
        d.wait_for_line(r"warning: exporter backend: no answer .* is the backend running\?")
        assert_ledger(d, NAME)
        assert exporter_ledger(d.metrics(), NAME)["pending"] == 100
        sink.come_up()
        back = time.monotonic()
        sink.wait_for_spans(100)
        assert time.monotonic() - back < 6
        settled(d, 100)
        assert_exactly_once(sink, 100)
        d.wait_for_line("exporter backend: delivering again")
        assert len([line for line in d.lines if "no answer" in line]) == 1
        assert_ledger(d, NAME)


def test_spans_wait_over_a_restart(daemon):
    with OtlpSink(listening=False) as sink:
        d = daemon(exporting(sink))
        with d.agent() as agent:
            agent.runs(50)
            agent.flush()
        assert d.stop() == 0
        sink.come_up()
        again = daemon(exporting(sink))
        sink.wait_for_spans(50)
        assert_exactly_once(sink, 50)
        settled(again, 50)
        assert_ledger(again, NAME, waiting=50)


def log_events(sink: OtlpSink) -> list:
    return [
        event
        for request in sink.accepted()
        if request.path == "/v1/logs"
        for resource in request.message.resource_logs
        for scope in resource.scope_logs
        for event in scope.log_records
    ]


def test_each_signal_goes_on_at_its_own_place_after_a_restart(daemon, sink):
    """Two spans a request, and one log event."""
    config = exporting(sink, signals=["traces", "logs"])
    for lives in (1, 2):
        d = daemon(config)
        with d.agent() as agent:
            for _ in range(20):
                root = agent.start(kind="agent", name="r")
                agent.end(agent.start(kind="tool", name="t", parent=root))
                agent.end(root)
            agent.bye()
        sink.wait(lambda s: len(s.spans()) >= 40 * lives and len(log_events(s)) >= 20 * lives)
        assert d.stop() == 0
        assert_exactly_once(sink, 40 * lives)
        assert len({event.trace_id for event in log_events(sink)}) == len(log_events(sink)) == 20 * lives


def test_nothing_acknowledged_is_missing_after_kills(daemon):
    """At least once: what was flushed arrives, whenever the daemon was killed."""
    sent = 0
    with OtlpSink() as sink:
        for _ in range(5):
            d = daemon(exporting(sink))
            with d.agent() as agent:
                for _ in range(4):
                    agent.runs(100)
                    agent.flush()
                    sent += 100
            d.kill()
        daemon(exporting(sink))
        sink.wait(lambda s: len({span.span_id for span in s.spans()}) >= sent)
        assert len({span.span_id for span in sink.spans()}) == sent


def test_what_retention_takes_is_counted_during_the_outage(daemon):
    with OtlpSink(listening=False) as sink:
        d = daemon({**exporting(sink), "store": {"size": "16MiB"}})
        with d.agent() as agent:
            for i in range(500):
                agent.runs(1, input=f"{i}" + "x" * 60000)
                if i % 50 == 49:
                    agent.flush()
        metrics = assert_ledger(d, NAME)
        lost = exporter_ledger(metrics, NAME)["evicted"]
        assert 0 < lost < 500
        assert exporter_ledger(metrics, NAME)["delivered"] == 0
        d.wait_for_line("leave the store before they could be delivered")
        sink.come_up()
        ledger = settled(d, 1)
        assert ledger == {"delivered": 500 - lost, "rejected": 0, "evicted": lost, "pending": 0}
        assert_exactly_once(sink, int(500 - lost))


def test_retry_after_is_obeyed(daemon, sink):
    sink.will(Answer(503, headers={"Retry-After": "1"}), Answer(429, headers={"Retry-After": "1"}))
    d = daemon(exporting(sink))
    with d.agent() as agent:
        agent.runs(10)
        agent.flush()
    first, second, third = sink.wait_for_requests(3)
    assert 1.0 <= second.time - first.time < 3
    assert 1.0 <= third.time - second.time < 3
    settled(d, 10)
    assert_exactly_once(sink, 10)
    metrics = assert_ledger(d, NAME)
    assert metrics("sidelight_export_failures_total", exporter=NAME) == 2


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_is_retryable_is_retried(daemon, sink, status):
    sink.will(Answer(status), Answer(hang_up=True))
    d = daemon(exporting(sink))
    with d.agent() as agent:
        agent.runs(10)
        agent.flush()
    sink.wait_for_spans(10)
    settled(d, 10)
    assert_exactly_once(sink, 10)
    assert_ledger(d, NAME)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(400, b"\x12\x0bno such dog"), "http_400"),
        (Answer(401), "http_401"),
        (Answer(404), "http_404"),
        (Answer(500), "http_500"),
        (Answer(302, headers={"Location": "/login"}), "http_other"),
        (Answer(200, b"<html>sign in</html>", content_type="text/html"), "not_otlp"),
        (Answer(200, b"\0" * (5 << 20)), "response_too_long"),
    ],
)
def test_what_is_refused_is_counted_and_passed_over(daemon, sink, answer, reason):
    sink.will(answer)
    d = daemon(exporting(sink))
    with d.agent() as agent:
        agent.runs(10)
        agent.flush()
        sink.wait_for_requests(1)
        d.wait_for_line(rf"10 spans rejected for good \({reason}\)")
        agent.runs(7)
        agent.flush()
    sink.wait_for_requests(2)
    settled(d, 7)
    metrics = assert_ledger(d, NAME)
    assert metrics("sidelight_spans_rejected_total", exporter=NAME, reason=reason) == 10
    assert metrics("sidelight_spans_delivered_total", exporter=NAME) == 7
    assert len(sink.requests) == 2


def test_the_backends_own_words_are_logged(daemon, sink):
    sink.will(Answer(400, b"\x12\x0bno such dog"))
    d = daemon(exporting(sink))
    with d.agent() as agent:
        agent.runs(1)
        agent.flush()
    d.wait_for_line("HTTP 400: no such dog")


def test_a_partial_success_is_never_sent_again(daemon, sink):
    sink.will(partial_success(3, "too old"))
    d = daemon(exporting(sink))
    with d.agent() as agent:
        agent.runs(10)
        agent.flush()
    settled(d, 7)
    metrics = assert_ledger(d, NAME)
    reason = {"exporter": NAME, "reason": "partial_success"}
    assert metrics("sidelight_spans_rejected_total", **reason) == 3
    assert len(sink.requests) == 1


def test_an_answer_in_json_counts_as_delivered(daemon, sink):
    sink.will(Answer(200, b'{"partialSuccess":{}}', content_type="application/json"))
    d = daemon(exporting(sink))
    with d.agent() as agent:
        agent.runs(10)
        agent.flush()
    settled(d, 10)
    assert_exactly_once(sink, 10)


def test_a_batch_that_is_too_large_is_halved_until_it_passes(daemon, sink):
    sink.will(*[Answer(413)] * 3)
    d = daemon(exporting(sink))
    with d.agent() as agent:
        agent.runs(100)
        agent.flush()
    sink.wait_for_spans(100)
    settled(d, 100)
    assert_exactly_once(sink, 100)
    assert_ledger(d, NAME)


def test_a_single_span_that_is_too_large_is_rejected(daemon):
    with OtlpSink(Answer(413)) as sink:
        d = daemon(exporting(sink))
        with d.agent() as agent:
            agent.runs(4)
            agent.flush()
        eventually(lambda: exporter_ledger(d.metrics(), NAME)["rejected"] == 4)
        assert_ledger(d, NAME)


def test_a_hanging_backend_times_out_and_is_tried_again(daemon, sink):
    sink.will(Answer(hang=True))
    d = daemon(exporting(sink, timeout="300ms"))
    with d.agent() as agent:
        agent.runs(10)
        agent.flush()
    sink.wait_for_spans(10)
    settled(d, 10)
    assert_ledger(d, NAME)


def test_a_hanging_backend_holds_up_neither_another_one_nor_the_end(daemon):
    with OtlpSink(Answer(hang=True)) as stuck, OtlpSink() as sink:
        config = {"exporters": [otlp(stuck, "stuck", timeout="60s"), otlp(sink)]}
        d = daemon(config)
        with d.agent() as agent:
            agent.runs(10)
            agent.flush()
        stuck.wait_for_requests(1)
        sink.wait_for_spans(10)
        before = time.monotonic()
        assert d.stop() == 0
        assert time.monotonic() - before < 7
        again = daemon({"exporters": [otlp(stuck, "stuck", timeout="60s")]})
        assert exporter_ledger(again.metrics(), "stuck")["pending"] == 10


@pytest.mark.alone
def test_a_dead_backend_does_not_hold_up_the_end(daemon):
    with OtlpSink(listening=False) as sink:
        d = daemon(exporting(sink))
        with d.agent() as agent:
            agent.runs(10)
            agent.flush()
        d.wait_for_line("no answer from")
        before = time.monotonic()
        assert d.stop() == 0
        assert time.monotonic() - before < 3


def test_what_is_stored_goes_out_before_the_end(daemon, sink):
    d = daemon(exporting(sink))
    with d.agent() as agent:
        for _ in range(40):
            agent.runs(100)
        agent.flush()
    assert d.stop() == 0
    assert_exactly_once(sink, 4000)
    again = daemon(exporting(sink))
    assert_ledger(again, NAME)
    assert len(sink.spans()) == 4000


def test_a_new_exporter_begins_at_the_end_and_an_old_one_where_it_was(daemon):
    with OtlpSink() as first, OtlpSink() as second:
        d = daemon({"exporters": [otlp(first, "first")]})
        with d.agent() as agent:
            agent.runs(10)
            agent.flush()
        first.wait_for_spans(10)
        assert d.stop() == 0
        d = daemon({"exporters": [otlp(first, "first"), otlp(second, "second")]})
        with d.agent() as agent:
            agent.runs(5)
            agent.flush()
        first.wait_for_spans(15)
        second.wait_for_spans(5)
        assert d.stop() == 0
        assert_exactly_once(first, 15)
        assert_exactly_once(second, 5)


def test_secrets_are_never_logged(daemon):
    with OtlpSink(Answer(401)) as sink:
        endpoint = sink.endpoint.replace("http://", "http://user:hunter2@")
        config = {"name": NAME, "type": "otlp", "endpoint": endpoint}
        config["headers"] = {"Authorization": "Bearer s3cr3t"}
        d = daemon({"exporters": [config]})
        with d.agent() as agent:
            agent.runs(1)
            agent.flush()
        assert sink.wait_for_requests(1)[0].headers["Authorization"] == "Bearer s3cr3t"
        d.wait_for_line("check the exporter's headers")
        sink.go_down()
        with d.agent() as agent:
            agent.runs(1)
            agent.flush()
        d.wait_for_line("no answer from")
        assert "s3cr3t" not in d.log
        assert "hunter2" not in d.log


# --- console --------------------------------------------------------------------------------


def console(output_format: str, **options) -> dict:
    return {"exporters": [{"type": "console", "format": output_format, **options}]}


def test_the_console_prints_each_span_once(daemon, tmp_path):
    with open(tmp_path / "out", "w+") as out:
        d = daemon(console("pretty"), stdout=out)
        with d.agent() as agent:
            agent.runs(200, kind="agent", name="helper")
            agent.flush()
        assert_ledger(d, "console")
        assert d.stop() == 0
        out.seek(0)
        lines = [line for line in out if "invoke_agent helper" in line]
    assert len(lines) == 200
    assert all(" ok" in line for line in lines)


def test_console_json_has_the_shape_of_pythons_exporter(daemon, tmp_path):
    with open(tmp_path / "out", "w+") as out:
        d = daemon(console("json"), stdout=out)
        with d.agent(service="chat-api") as agent:
            agent.runs(3, kind="tool", name="weather", input={"city": "Prestatyn"})
            agent.flush()
        assert d.stop() == 0
        out.seek(0)
        text = out.read()
    decoder, spans = json.JSONDecoder(), []
    while text.strip():
        span, end = decoder.raw_decode(text)
        assert text[:end] == json.dumps(span, indent=4, ensure_ascii=False)
        spans.append(span)
        text = text[end:].lstrip("\n")
    assert len(spans) == 3
    for span in spans:
        assert list(span) == [
            "name", "context", "kind", "parent_id", "start_time", "end_time", "status",
            "attributes", "events", "links", "resource",
        ]
        assert list(span["context"]) == ["trace_id", "span_id", "trace_state"]
        assert span["kind"] == "SpanKind.INTERNAL"
        assert span["status"] == {"status_code": "UNSET"}
        assert span["resource"]["attributes"]["service.name"] == "chat-api"


def test_a_reader_that_pauses_holds_up_nothing_else(daemon):
    read, write = os.pipe()
    try:
        d = daemon(console("json"), stdout=write)
        os.close(write)
        with d.agent() as agent:
            for _ in range(20):
                agent.runs(100)
            agent.flush()
        assert exporter_ledger(d.metrics(), "console")["delivered"] < 2000
        before = time.monotonic()
        assert d.stop() == 0
        assert time.monotonic() - before < 7
    finally:
        os.close(read)


def test_a_reader_that_is_gone_is_counted(daemon):
    read, write = os.pipe()
    d = daemon(console("pretty"), stdout=write)
    os.close(write)
    os.close(read)
    with d.agent() as agent:
        agent.runs(10)
        agent.flush()
    eventually(lambda: exporter_ledger(d.metrics(), "console")["rejected"] == 10)
    metrics = assert_ledger(d, "console")
    assert metrics("sidelight_spans_rejected_total", exporter="console", reason="closed") == 10
    d.wait_for_line("nobody reads stdout")


def test_an_idle_exporter_does_not_wake(daemon, sink):
    d = daemon(exporting(sink))
    with d.agent() as agent:
        agent.runs(1)
        agent.flush()
        sink.wait_for_spans(1)
        settled(d, 1)

        def switches() -> int:
            total = 0
            for task in os.scandir(f"/proc/{d.process.pid}/task"):
                status = Path(task, "status").read_text()
                if status.startswith("Name:\texport-"):
                    total += int(re.search(r"\nvoluntary_ctxt_switches:\s+(\d+)", status)[1])
            assert total > 0
            return total

        before = switches()
        time.sleep(2)  # the measurement, not a wait
        assert switches() == before


def test_the_daemon_says_what_is_wrong_with_an_endpoint(sidelightd, tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text('exporters: [{type: otlp, endpoint: "ftp://host"}]\n')
    command = [sidelightd, "--config", str(file), "--check-config"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert "endpoint" in done.stderr
