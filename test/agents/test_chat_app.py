"""The reference chat app, as its users and its operators see it: real FastAPI and uvicorn, a real
LangChain agent, the real daemon. Six checks, two drills, and what fails."""

from __future__ import annotations

import collections
import concurrent.futures
import datetime
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

import harness  # noqa: E402
from scripted_openai import ScriptedOpenAI  # noqa: E402

ROOT = pathlib.Path(__file__).parents[2]
APP = ROOT / "client" / "python" / "examples" / "chat_app"
BOTH = "What is the weather in Oslo, and how many days until 2027-01-01?"
MINI, LARGE = "gpt-4o-mini", "gpt-4o"
pytestmark = pytest.mark.skipif("SIDELIGHTD" not in os.environ, reason="SIDELIGHTD names no daemon")


class Service:
    """The daemon, the model, and the app in a process of its own."""

    def __init__(self, directory, first):
        self.config = directory / "sidelight.yaml"
        self.export_to(first)
        command = [os.environ["SIDELIGHTD"], "--config", str(self.config), "--http", "127.0.0.1:0"]
        command += ["--socket", str(directory / "s.sock"), "--data", str(directory / "data")]
        self.daemon = harness.Daemon(command, harness.clean_environment(), subprocess.DEVNULL)
        self.model = ScriptedOpenAI(delay=0.05, final_delay=0.02)
        self.model.__enter__()
        self.port = free_port()
        env = {
            **harness.clean_environment(),
            "SIDELIGHT_SOCKET": self.daemon.socket,
            "OPENAI_BASE_URL": self.model.base_url,
            "OPENAI_API_KEY": "scripted",
            "LANGSMITH_TRACING": "false",
        }
        env.pop("TRACEPARENT", None)
        command = [sys.executable, "-m", "uvicorn", "app:app", "--port", str(self.port), "--log-level", "warning"]
        self.app = subprocess.Popen(command, env=env, cwd=APP)

    def export_to(self, sink) -> None:
        exporter = {"type": "otlp", "name": "backend", "endpoint": sink.endpoint}
        self.config.write_text(json.dumps({"exporters": [exporter]}))

    def request(self, method: str, path: str, body: dict) -> tuple[int, dict]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def chat(self, message: str, **more) -> dict:
        """The answer of a request that went well."""
        status, answer = self.request("POST", "/api/chat", {"message": message, **more})
        assert (status, answer["error"]) == (200, None)
        return answer

    def fails(self, message: str) -> dict:
        status, answer = self.request("POST", "/api/chat", {"message": message})
        assert status == 500
        assert answer["error"]
        return answer

    def use(self, model: str) -> None:
        assert self.request("PUT", "/api/model", {"model": model}) == (200, {"model": model})

    def is_up(self) -> bool:
        assert self.app.poll() is None
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def stop(self) -> int:
        self.app.terminate()
        self.app.wait(30)
        self.model.__exit__()
        return self.daemon.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def sinks():
    with harness.OtlpSink() as first, harness.OtlpSink() as second:
        yield first, second


@pytest.fixture(scope="module")
def service(tmp_path_factory, sinks):
    service = Service(tmp_path_factory.mktemp("chat"), sinks[0])
    try:
        harness.eventually(service.is_up, 60, "the app listens")
        service.chat("Hello")  # the first one is slow: it makes the agent
        yield service
    finally:
        status = service.stop()
    assert status == 0
    assert not harness.SANITIZER.search(service.daemon.log), service.daemon.log


def of_kind(answer: dict, kind: str) -> list[dict]:
    return [span for span in answer["spans"] if span["kind"] == kind]


def when(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text[:26] + "+00:00")


def assert_is_a_tree(answer: dict) -> None:
    """One root, and every span inside of its parent."""
    spans = {span["span_id"]: span for span in answer["spans"]}
    assert len(spans) == len(answer["spans"])
    roots = [span for span in spans.values() if span["parent_span_id"] is None]
    assert [root["name"] for root in roots] == ["invoke_agent chat"]
    for span in spans.values():
        assert span["trace_id"] == answer["trace_id"]
        began, ended = when(span["start_time"]), when(span["end_time"])
        assert (ended - began).total_seconds() * 1e3 == pytest.approx(span["latency_ms"], abs=0.1)
        if span["parent_span_id"] is not None:
            parent = spans[span["parent_span_id"]]
            assert when(parent["start_time"]) <= began <= ended <= when(parent["end_time"])


def metrics_now(service: Service):
    return service.daemon.metrics()


# The six checks


def test_check_1_an_answer_carries_spans_with_latencies_per_model_call_and_tool(service):
    answer = service.chat(BOTH)
    assert_is_a_tree(answer)
    assert answer["answer"].startswith("Oslo: 3 °C")
    assert [span["name"] for span in of_kind(answer, "llm")] == [f"chat {MINI}"] * 2
    assert sorted(span["name"] for span in of_kind(answer, "tool")) == [
        "execute_tool days_until",
        "execute_tool weather",
    ]
    assert min(span["latency_ms"] for span in of_kind(answer, "llm")) >= 20
    weather = next(call for call in answer["tool_calls"] if call["name"] == "weather")
    assert json.loads(weather["input"]) == {"city": "Oslo"}
    assert weather["output"] == "Oslo: 3 °C, light snow."
    assert (weather["error"], weather["latency_ms"] >= 50) == (None, True)
    usage = answer["token_usage"]
    assert usage["prompt_tokens"] > 1400
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_check_2_and_3_metrics_with_provider_and_model(service):
    before = metrics_now(service)
    answers = [service.chat(BOTH) for _ in range(3)]
    harness.eventually(lambda: grew(service, before, "chat_requests_total") == 3, what="all counted")
    labels = {"provider": "openai", "model": MINI}
    assert grew(service, before, "chat_requests_total", **labels) == 3
    assert grew(service, before, "chat_request_duration_seconds_count", **labels) == 3
    assert grew(service, before, "chat_request_duration_seconds_bucket", le="60", **labels) == 3
    for kind in ("prompt_tokens", "completion_tokens", "total_tokens"):
        spent = sum(answer["token_usage"][kind] for answer in answers)
        assert grew(service, before, "llm_tokens_total", token_type=kind, **labels) == spent
    for tool in ("weather", "days_until"):
        assert grew(service, before, "tool_calls_total", tool_name=tool) == 3


def grew(service: Service, before, name: str, **labels) -> float:
    return metrics_now(service)(name, **labels) - before(name, **labels)


def test_check_4_the_exporter_is_swapped_in_one_place(service, sinks):
    first, second = sinks
    app = service.app.pid
    trace = service.chat("Hello")["trace_id"]
    harness.eventually(lambda: trace in traces_of(first), what="it is exported")
    service.export_to(second)
    service.daemon.signal(signal.SIGHUP)
    service.daemon.wait_for_line("1 started")
    trace = service.chat("Hello")["trace_id"]
    harness.eventually(lambda: trace in traces_of(second), what="it is exported elsewhere")
    assert trace not in traces_of(first)
    assert service.app.pid == app and service.app.poll() is None


def traces_of(sink) -> set[str]:
    return {span.trace_id.hex() for request in list(sink.requests) for span in request.spans}


def test_check_5_history_keeps_tool_calls_and_tokens_and_can_be_queried(service):
    answer = service.chat(BOTH, session_id="trip-7", user_id="ada")
    service.fails("outage")

    def kept():
        return [o for o in service.daemon.observations() if o["trace_id"] == answer["trace_id"]]

    (one,) = harness.eventually(kept, what="it is in the history")
    assert (one["user_message"], one["agent_response"]) == (BOTH, answer["answer"])
    assert (one["session_id"], one["user_id"], one["model"], one["provider"]) == ("trip-7", "ada", MINI, "openai")
    assert (one["prompt_key"], str(one["prompt_version"]), one["policy_mode"]) == ("travel", "3", "strict")
    for kind in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert one[kind] == answer["token_usage"][kind]
    assert sorted(call["name"] for call in one["tool_calls"]) == ["days_until", "weather"]
    assert one["created_at"]
    failed = service.daemon.pages("/api/observations?status=error&since=1h&limit=100", "observations")
    assert failed and {o["status"]["code"] for o in failed} == {"error"}


def test_check_6_a_tool_s_error_is_in_the_spans(service):
    before = metrics_now(service)
    answer = service.fails("What is the weather in Atlantis?")
    assert_is_a_tree(answer)
    (tool,) = of_kind(answer, "tool")
    assert tool["status"] == {"code": "error", "message": "no weather station in Atlantis"}
    assert tool["attributes"]["error.type"] == "LookupError"
    assert tool["latency_ms"] > 0
    (call,) = answer["tool_calls"]
    assert call["error"] == "no weather station in Atlantis"
    harness.eventually(lambda: grew(service, before, "tool_calls_total", tool_name="weather") == 1)


# The two drills


def slowest(answer: dict) -> dict:
    """What somebody who has nothing but the answer would name."""
    own_work = [span for span in answer["spans"] if span["kind"] in ("llm", "tool")]
    return max(own_work, key=lambda span: span["latency_ms"])


@pytest.mark.parametrize("what", ["tool", "model"])
def test_drill_1_the_slow_span_is_named_from_the_answer_alone(service, what):
    if what == "tool":
        answer = service.chat("What is the weather in Svalbard, and how many days until 2027-01-01?")
    else:
        service.model.script.final_delay = 5.2
        try:
            answer = service.chat(BOTH)
        finally:
            service.model.script.final_delay = 0.02
    root = answer["spans"][0]
    assert root["latency_ms"] > 5000
    slow = slowest(answer)
    assert slow["name"] == ("execute_tool weather" if what == "tool" else f"chat {MINI}")
    assert slow["latency_ms"] > 0.8 * root["latency_ms"]
    if what == "model":
        assert slow is of_kind(answer, "llm")[1]  # the second one, after the tools
    assert_is_a_tree(answer)


def test_drill_2_the_model_is_swapped_under_load(service):
    before = metrics_now(service)
    half = threading.Event()
    done = []

    def ask(number: int) -> dict:
        if number == 30:
            service.use(LARGE)
        answer = service.chat(BOTH, session_id=f"s{number}")
        done.append(number)
        if len(done) >= 30:
            half.set()
        return answer

    try:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, range(60)))
    finally:
        service.use(MINI)
    by_model = collections.Counter()
    tokens = collections.Counter()
    for answer in answers:
        assert_is_a_tree(answer)
        (model,) = {span["attributes"]["gen_ai.request.model"] for span in of_kind(answer, "llm")}
        assert answer["spans"][0]["attributes"]["gen_ai.request.model"] == model
        assert len(of_kind(answer, "llm")) == len(of_kind(answer, "tool")) == 2
        by_model[model] += 1
        tokens[model] += answer["token_usage"]["total_tokens"]
    assert set(by_model) == {MINI, LARGE}
    assert min(by_model.values()) >= 20
    assert len({answer["trace_id"] for answer in answers}) == 60
    harness.eventually(lambda: grew(service, before, "chat_requests_total") == 60, what="all counted")
    for model in (MINI, LARGE):
        labels = {"provider": "openai", "model": model}
        assert grew(service, before, "chat_requests_total", **labels) == by_model[model]
        assert grew(service, before, "chat_request_duration_seconds_count", **labels) == by_model[model]
        assert grew(service, before, "llm_tokens_total", token_type="total_tokens", **labels) == tokens[model]


# What fails


def test_a_request_that_fails_by_itself(service):
    before = metrics_now(service)
    answer = service.fails("My password is hunter2")
    assert_is_a_tree(answer)
    root, policy = answer["spans"]
    assert (root["status"]["code"], policy["status"]["code"]) == ("error", "error")
    assert policy["name"] == "check_policy"
    assert policy["attributes"]["error.type"] == "PermissionError"
    assert answer["token_usage"] == dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"))
    harness.eventually(lambda: grew(service, before, "chat_requests_total", model=MINI) == 1, what="it counts")


def test_a_tool_that_fails_leaves_what_was_done_before(service):
    answer = service.fails("What is the weather in Atlantis?")
    (model,) = of_kind(answer, "llm")
    assert model["status"]["code"] == "ok"
    assert answer["token_usage"]["total_tokens"] > 700
    assert answer["answer"] is None
    assert answer["error"].startswith("LookupError")


def test_a_model_that_fails(service):
    before = metrics_now(service)
    answer = service.fails("Which trains does the outage stop?")
    assert_is_a_tree(answer)
    (model,) = of_kind(answer, "llm")
    assert model["status"]["code"] == "error"
    assert "500" in model["status"]["message"]
    assert answer["tool_calls"] == []
    assert answer["token_usage"]["total_tokens"] is None
    harness.eventually(lambda: grew(service, before, "chat_requests_total", model=MINI) == 1, what="it counts")
    assert grew(service, before, "llm_tokens_total") == 0


def test_without_a_collector_the_app_answers_all_the_same(service):
    """Comes last: it ends the daemon."""
    assert service.daemon.stop() == 0
    answer = service.chat(BOTH)
    assert answer["answer"].startswith("Oslo: 3 °C")
    assert answer["spans"] == []
    assert len(answer["trace_id"]) == 32
