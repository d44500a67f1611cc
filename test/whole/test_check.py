"""sidelight check: exporters tried for real, and what it says of each; with a collector and without."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import time

import pytest

from conftest import clean_environment, eventually
from otlp_sink import Answer, OtlpSink


@pytest.fixture
def check(sidelight):
    """check(daemon, *options) is the exit code and the output."""

    def run(running, *options: str):
        done = subprocess.run(
            [sidelight, "check", "--socket", str(running.socket), *options],
            capture_output=True,
            text=True,
            timeout=60,
            env={**clean_environment(), "LC_ALL": "C.UTF-8"},
        )
        assert "Sanitizer" not in done.stderr, done.stderr
        return done.returncode, done.stdout

    return run


@pytest.fixture(scope="session")
def sidelight():
    tool = os.environ.get("SIDELIGHT")
    if not tool:
        pytest.skip("SIDELIGHT does not name the tool")
    return tool


def otlp(name: str, endpoint: str, **keys) -> dict:
    return {"type": "otlp", "name": name, "endpoint": endpoint, "timeout": "2s", **keys}


def stages(document: dict, exporter: str, signal: str = "traces") -> dict:
    (found,) = [e for e in document["exporters"] if e["name"] == exporter]
    (tried,) = [t for t in found["tries"] if t["signal"] == signal]
    return {stage["stage"]: stage for stage in tried["stages"]}


def test_what_works_and_what_does_not_is_said_step_by_step(daemon, check, sink):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with OtlpSink(Answer(401)) as strict:
            running = daemon(
                {
                    "exporters": [
                        otlp("good", sink.endpoint, signals=["traces", "metrics", "logs"]),
                        otlp("down", f"http://127.0.0.1:{port}"),
                        otlp("nowhere", "http://no-such-host.invalid:4318"),
                        otlp("plain", sink.endpoint.replace("http:", "https:")),
                        otlp("strict", strict.endpoint),
                        {"type": "console", "name": "screen"},
                    ]
                }
            )
            code, text = check(running, "--json")
    assert code == 1
    document = json.loads(text)
    assert not document["running"]
    for signal in "traces", "metrics", "logs":
        good = stages(document, "good", signal)
        assert list(good) == ["resolve", "connect", "request"]
        assert all(stage["ok"] and stage["hint"] is None for stage in good.values())
    down = stages(document, "down")
    assert down["resolve"]["ok"] and not down["connect"]["ok"]
    assert "running" in down["connect"]["hint"] and "request" not in down
    nowhere = stages(document, "nowhere")
    assert list(nowhere) == ["resolve"] and "host name" in nowhere["resolve"]["hint"]
    plain = stages(document, "plain")
    assert not plain["tls"]["ok"] and "http://" in plain["tls"]["hint"]
    strict_stages = stages(document, "strict")
    assert not strict_stages["request"]["ok"] and "headers" in strict_stages["request"]["hint"]
    assert "401" in strict_stages["request"]["message"]
    # The tries were requests of nothing.
    assert sink.spans() == []


def test_people_can_read_it(daemon, check, sink):
    running = daemon({"exporters": [otlp("good", sink.endpoint)]})
    with running.agent() as agent:
        agent.runs(30)
        agent.send_bytes(b"\x00\x00\x00\x01\xc1")  # no msgpack
        agent.flush()
        agent.bye()
    sink.wait_for_spans(30)
    eventually(
        lambda: "30 delivered, 0 to go" in check(running)[1], what="the cursor is saved", timeout=5
    )
    code, text = check(running)
    assert code == 0
    assert "exporter good (otlp)" in text
    assert sink.endpoint in text and "request  ok" in text
    assert "30 spans, 30 requests" in text
    assert "frames_refused/malformed 1" in text


def test_what_was_lost_is_still_known_after_a_restart(daemon, check, sink):
    config = {"exporters": [otlp("good", sink.endpoint)]}
    sink.will(Answer(400))
    running = daemon(config)
    with running.agent() as agent:
        agent.runs(10)
        agent.flush()
        agent.bye()
    eventually(
        lambda: running.metrics()("sidelight_spans_rejected_total", exporter="good") == 10,
        what="rejected",
    )
    assert running.stop() == 0
    running = daemon(config)
    code, text = check(running)
    assert code == 0
    assert "10 rejected (http_400 10)" in text


def test_without_a_collector_the_exporters_are_tried_all_the_same(daemon, sidelight, sink, tmp_path):
    running = daemon({})
    with running.agent() as agent:
        agent.runs(3)
        agent.flush()
        agent.bye()
    assert running.stop() == 0
    file = tmp_path / "check.yaml"
    file.write_text(json.dumps({"exporters": [otlp("good", sink.endpoint)]}))
    done = subprocess.run(
        [sidelight, "check", "--data", str(running.data), "--config", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        env=clean_environment(),
    )
    assert done.returncode == 0, done.stderr
    assert "3 spans, 3 requests" in done.stdout and "request  ok" in done.stdout


def fill(running, count: int) -> None:
    with running.agent() as agent:
        for i in range(count):
            agent.runs(1, input=f"{i} " + "x" * 60_000)
            if i % 20 == 19:
                agent.flush()
        agent.bye()


def progress(document: dict, exporter: str) -> dict:
    (cursor,) = [c for c in document["cursors"] if c["name"] == exporter]
    return cursor


def test_what_a_dead_backend_costs_is_said_while_it_is_dead(daemon, check):
    with OtlpSink(listening=False) as dead:
        running = daemon({"store": {"size": "16MiB"}, "exporters": [otlp("a", dead.endpoint)]})
        fill(running, 400)
        at = progress(json.loads(check(running, "--json")[1]), "a")
        assert at["delivered"] == 0 and at["evicted"] > 100
        assert at["evicted"] + at["pending"] == 400


def test_what_is_refused_is_said_and_why(daemon, check):
    with OtlpSink(listening=False) as dead:
        store = {"size": "16MiB", "when_full": "refuse_newest"}
        config = {"store": store, "exporters": [otlp("a", dead.endpoint)]}
        running = daemon(config)
        fill(running, 400)
        refused = running.metrics()("sidelight_spans_refused_total", exporter="a")
        assert refused > 100

        def said() -> dict:
            return json.loads(check(running, "--json")[1])

        eventually(lambda: progress(said(), "a")["refused"] == refused, what="it is saved")
        assert "full of what exporters have not got" in said()["store"]["held_back"]
        assert "new runs are refused" in check(running)[1]


def test_a_store_that_takes_nothing_is_said(daemon, check, sink):
    running = daemon({"exporters": [otlp("good", sink.endpoint)]})
    assert check(running)[0] == 0
    (pathlib.Path(running.data) / "data.mdb").unlink()
    with running.agent() as agent:
        agent.runs(3)
        eventually(lambda: running.get("/readyz")[0] == 503, what="it is noticed")
        code, text = check(running)
    assert code == 1
    assert "FAILED  the store can't be written: its file has been removed" in text


def test_each_step_that_fails_says_what_to_do(daemon, check, tmp_path):
    """Also where curl has no words for it: a socket that is not there, one that says nothing."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        port = mute.getsockname()[1]
        gone = otlp("gone", f"unix://{tmp_path}/none.sock")
        silent = otlp("silent", f"http://127.0.0.1:{port}", timeout="500ms")
        document = json.loads(check(daemon({"exporters": [gone, silent]}), "--json")[1])
    connect = stages(document, "gone")["connect"]
    assert "No such file or directory" in connect["message"] and "port" not in connect["message"]
    request = stages(document, "silent")["request"]
    assert not request["ok"] and "timeout" in request["hint"]


def test_backends_that_hang_are_tried_at_once(daemon, check):
    with OtlpSink(Answer(hang=True)) as hanging:
        config = {"exporters": [otlp(f"hangs-{n}", hanging.endpoint) for n in range(8)]}
        running = daemon(config)
        began = time.monotonic()
        code, text = check(running)
        took = time.monotonic() - began
    assert code == 1 and text.count("FAILED") == 8
    assert took < 8
