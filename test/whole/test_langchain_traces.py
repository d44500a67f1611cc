"""Real LangChain and LangGraph runs, as the daemon tells them: one tree a request, with true times."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import sys
import time

import pytest

from conftest import assert_ledger, eventually

pytest.importorskip("langgraph")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "agents"))

import sidelight  # noqa: E402
from langchain.agents import create_agent  # noqa: E402
from langchain_core.tools import tool  # noqa: E402
from langchain_openai import ChatOpenAI  # noqa: E402
from scripted_openai import ScriptedOpenAI  # noqa: E402
from sidelight import _api  # noqa: E402

pytestmark = pytest.mark.alone
BOTH = "weather in Oslo and days until 2027-01-01"
PARENT_KINDS = {"agent": {None}, "chain": {"agent", "chain"}, "llm": {"chain"}, "tool": {"chain"}}


@tool
def weather(city: str) -> str:
    """What the weather is."""
    if city == "Atlantis":
        raise LookupError("there is no such city")
    time.sleep(0.4)
    return f"sunny in {city}"


@tool
def days_until(date: str) -> str:
    """How many days it is."""
    return "39"


@pytest.fixture
def collector(daemon, monkeypatch):
    """A daemon that this process's client reports to."""
    running = daemon()
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    monkeypatch.setenv("SIDELIGHT_SOCKET", running.socket)
    _api.transport.after_fork()
    _api.transport.path = None
    yield running
    _api.transport.after_fork()
    _api.transport.path = None


@pytest.fixture
def service():
    with ScriptedOpenAI(delay=0.02, final_delay=0.01) as server:
        yield server


@pytest.fixture
def agent(collector, service):
    """agent(max_retries) is an agent with two tools whose model is the scripted service."""

    def make(max_retries=0):
        options = {"base_url": service.base_url, "api_key": "x", "stream_usage": True}
        model = ChatOpenAI(model="gpt-4o", max_retries=max_retries, **options)
        graph = create_agent(model, [weather, days_until], name="traveller")
        return graph.with_config({"callbacks": [sidelight.SidelightCallbackHandler()]})

    return make


def ask(text: str) -> dict:
    return {"messages": [("user", text)]}


def traces(collector, count: int, cancelled=False) -> list[dict]:
    """What the daemon has, once that many requests have ended: all are whole trees."""
    assert sidelight.flush(5)
    found = eventually(
        lambda: (o := collector.observations()) and len(o) >= count and o, what="the requests"
    )
    assert len(found) == count
    assert_ledger(collector)
    documents = [collector.json(f"/api/traces/{one['trace_id']}") for one in found]
    for document, observation in zip(documents, found):
        assert_tree(document["spans"], cancelled)
        document["observation"] = observation
    assert sum(len(document["spans"]) for document in documents) == len(collector.spans())
    return documents


def assert_tree(spans: list[dict], cancelled: bool) -> None:
    by_id = {span["span_id"]: span for span in spans}
    assert [s["name"] for s in spans if s["parent_span_id"] is None] == [spans[0]["name"]]
    for span in spans:
        parent = by_id.get(span["parent_span_id"])
        assert (parent and parent["kind"]) in PARENT_KINDS[span["kind"]], span
        if parent:
            assert parent["start_time"] <= span["start_time"], span
            # LangChain tells of a cancelled call only when the run around it has ended.
            assert cancelled or span["end_time"] <= parent["end_time"], span


def of_kind(document: dict, kind: str) -> list[dict]:
    return [span for span in document["spans"] if span["kind"] == kind]


def assert_whole(document: dict) -> None:
    """A request with two tools at once: every run once, and every token once."""
    models = of_kind(document, "llm")
    tools = {span["name"].split()[-1]: span for span in of_kind(document, "tool")}
    assert len(models) == 2 and len(of_kind(document, "tool")) == 2
    assert {span["status"]["code"] for span in document["spans"]} == {"ok"}
    assert 400 <= tools["weather"]["latency_ms"] <= 450
    assert tools["weather"]["parent_span_id"] != tools["days_until"]["parent_span_id"]
    observation = document["observation"]
    for what in ("input", "output"):
        tokens = sum(span["attributes"][f"gen_ai.usage.{what}_tokens"] for span in models)
        member = {"input": "prompt_tokens", "output": "completion_tokens"}[what]
        assert observation[member] == tokens > 0
    assert (observation["llm_calls"], observation["tool_call_count"]) == (2, 2)


def invoke(graph):
    graph.invoke(ask(BOTH))


def ainvoke(graph):
    asyncio.run(graph.ainvoke(ask(BOTH)))


def stream(graph):
    assert list(graph.stream(ask(BOTH), stream_mode="messages"))


def astream(graph):
    async def drain():
        async for _ in graph.astream(ask(BOTH), stream_mode=["messages", "updates"]):
            pass

    asyncio.run(drain())


@pytest.mark.parametrize("run", [invoke, ainvoke, stream, astream])
def test_a_request_is_one_tree_with_the_tool_as_long_as_it_was(agent, collector, run):
    run(agent())
    (document,) = traces(collector, 1)
    assert_whole(document)


def test_each_request_of_a_batch_has_its_own_tree(agent, collector):
    agent().batch([ask(BOTH)] * 3)
    for document in traces(collector, 3):
        assert_whole(document)


def test_requests_at_once_in_one_loop_stay_apart(agent, collector):
    async def gather():
        graph = agent()
        await asyncio.gather(*(graph.ainvoke(ask(BOTH)) for _ in range(3)))

    asyncio.run(gather())
    for document in traces(collector, 3):
        assert_whole(document)


def test_a_tool_that_raises_is_an_error_up_to_the_root(agent, collector):
    with pytest.raises(LookupError):
        agent().invoke(ask("weather in Atlantis"))
    (document,) = traces(collector, 1)
    (failed,) = of_kind(document, "tool")
    assert failed["status"]["code"] == "error" and "no such city" in failed["status"]["message"]
    assert document["observation"]["status"]["code"] == "error"
    assert [span["status"]["code"] for span in of_kind(document, "llm")] == ["ok"]


def test_a_retry_is_inside_its_call(agent, collector):
    agent(max_retries=2).invoke(ask("rush hour"))
    (document,) = traces(collector, 1)
    (call,) = of_kind(document, "llm")
    assert call["status"]["code"] == "ok" and call["latency_ms"] >= 400


def test_an_outage_is_an_error_of_the_call_and_of_the_request(agent, collector):
    with pytest.raises(Exception, match="The server had an error"):
        agent().invoke(ask("outage"))
    (document,) = traces(collector, 1)
    (call,) = of_kind(document, "llm")
    assert call["status"]["code"] == document["observation"]["status"]["code"] == "error"
    assert document["observation"]["prompt_tokens"] is None


def test_a_cancelled_request_is_told_as_such(agent, collector, service):
    async def cancel():
        task = asyncio.ensure_future(agent().ainvoke(ask("think forever")))
        deadline = time.monotonic() + 10
        while not service.script.hanging and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    (document,) = traces(collector, 1, cancelled=True)
    assert {span["status"]["code"] for span in document["spans"]} == {"cancelled"}
