"""Plain calls of openai and anthropic and runs of the Agents SDK, as the daemon tells them."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import sys

import pytest

from conftest import assert_ledger, eventually

openai = pytest.importorskip("openai")
anthropic = pytest.importorskip("anthropic")
agents = pytest.importorskip("agents")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "agents"))

import sidelight  # noqa: E402
import sidelight.anthropic_client  # noqa: E402
import sidelight.openai_agents  # noqa: E402
import sidelight.openai_client  # noqa: E402
from scripted_apis import ScriptedApis  # noqa: E402
from sidelight import _api  # noqa: E402

BOTH = "weather in Oslo and days until 2027-01-01"


@pytest.fixture
def collector(daemon, monkeypatch):
    """A daemon that this process's client reports to, all of its wrappers in place."""
    running = daemon()
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    monkeypatch.setenv("SIDELIGHT_SOCKET", running.socket)
    _api.transport.after_fork()
    _api.transport.path = None
    agents.tracing.set_trace_processors([])  # OpenAI's own exporter asks for a key
    monkeypatch.setattr(sidelight.openai_agents, "_current_span", None)
    sidelight._calls.outer_reports.clear()
    for module in (sidelight.openai_agents, sidelight.openai_client, sidelight.anthropic_client):
        module.install()
    yield running
    _api.transport.after_fork()
    _api.transport.path = None


@pytest.fixture
def apis():
    with ScriptedApis() as server:
        yield server


def traces(collector, count: int) -> list[dict]:
    """What the daemon has, once that many requests have ended; each with its observation."""
    assert sidelight.flush(5)
    found = eventually(
        lambda: (o := collector.observations()) and len(o) >= count and o, what="the requests"
    )
    assert len(found) == count
    assert_ledger(collector)
    documents = [collector.json(f"/api/traces/{one['trace_id']}") for one in found]
    for document, observation in zip(documents, found):
        document["observation"] = observation
    assert sum(len(document["spans"]) for document in documents) == len(collector.spans())
    return documents


def of_kind(document: dict, kind: str) -> list[dict]:
    return [span for span in document["spans"] if span["kind"] == kind]


def asked(text: str) -> dict:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}


def plain(apis):
    with openai.OpenAI(base_url=apis.base_url, api_key="x") as client:
        client.chat.completions.create(**asked("hello"))


def streamed(apis):
    with openai.OpenAI(base_url=apis.base_url, api_key="x") as client:
        options = {"stream": True, "stream_options": {"include_usage": True}}
        assert list(client.chat.completions.create(**asked("hello"), **options))


def responses(apis):
    with openai.OpenAI(base_url=apis.base_url, api_key="x") as client:
        assert list(client.responses.create(model="gpt-4o", input="hello", stream=True))


def claude(apis):
    with anthropic.Anthropic(base_url=apis.root_url, api_key="x") as client:
        with client.messages.stream(**asked("hello"), max_tokens=9) as events:
            assert events.get_final_text()


@pytest.mark.parametrize("call", [plain, streamed, responses, claude])
def test_a_call_s_tokens_text_and_time(collector, apis, call):
    with sidelight.run("answer", kind="agent", input="hello"):
        call(apis)
    (document,) = traces(collector, 1)
    root, span = document["spans"]
    assert span["parent_span_id"] == root["span_id"] and span["kind"] == "llm"
    attributes, observation = span["attributes"], document["observation"]
    assert attributes["gen_ai.request.model"] == "gpt-4o"
    assert attributes["gen_ai.response.model"] == "gpt-4o-2026-08-07"
    assert attributes["gen_ai.usage.input_tokens"] == observation["prompt_tokens"] == 709
    assert attributes["gen_ai.usage.output_tokens"] == observation["completion_tokens"] == 51
    assert attributes["gen_ai.usage.cache_read.input_tokens"] == 640
    assert "Hello! Ask me" in attributes["gen_ai.output.messages"]
    assert '"hello"' in attributes["gen_ai.input.messages"]
    is_stream = call is not plain
    assert ("gen_ai.response.time_to_first_chunk" in attributes) == is_stream
    assert attributes.get("sidelight.chunks") == (9 if is_stream else None)
    assert observation["llm_calls"] == 1


def test_a_stream_that_is_left_is_cancelled_and_one_that_breaks_an_error(collector, apis):
    with openai.OpenAI(base_url=apis.base_url, api_key="x", max_retries=0) as client:
        with client.chat.completions.create(**asked("endless story"), stream=True) as chunks:
            for _ in zip(range(5), chunks):
                pass
        with contextlib.suppress(openai.APIConnectionError):
            list(client.chat.completions.create(**asked("a story cut off"), stream=True))
    found = {d["spans"][0]["status"]["code"]: d["spans"][0] for d in traces(collector, 2)}
    assert found.keys() == {"cancelled", "error"}
    for span in found.values():
        assert "The keeper lit the" in span["attributes"]["gen_ai.output.messages"]
        assert span["attributes"]["gen_ai.usage.output_tokens"] == 4


def test_a_refusal(collector, apis):
    with anthropic.Anthropic(base_url=apis.root_url, api_key="x", max_retries=0) as client:
        with pytest.raises(anthropic.InternalServerError):
            client.messages.create(**asked("outage"), max_tokens=9)
    (document,) = traces(collector, 1)
    (span,) = document["spans"]
    assert span["status"]["code"] == "error"
    assert span["attributes"]["error.type"] == "InternalServerError"
    assert span["attributes"]["http.response.status_code"] == 500
    assert document["observation"]["prompt_tokens"] is None


@agents.function_tool
async def weather(city: str) -> str:
    """The weather in a city."""
    await asyncio.sleep(0.1)
    return f"sunny in {city}"


@agents.function_tool
async def days_until(date: str) -> str:
    """The days until a date."""
    await asyncio.sleep(0.1)
    return "39"


def run_agent(apis, text: str, count: int = 1, **options):
    async def run():
        async with openai.AsyncOpenAI(base_url=apis.base_url, api_key="x", max_retries=0) as client:
            model = agents.OpenAIResponsesModel("gpt-4o", client)
            one = agents.Agent(name="traveller", model=model, tools=[weather, days_until], **options)
            await asyncio.gather(*(agents.Runner.run(one, text) for _ in range(count)))

    asyncio.run(run())


def test_agents_are_one_tree_each_with_its_tokens_counted_once(collector, apis):
    run_agent(apis, BOTH, count=10)
    for document in traces(collector, 10):
        by_id = {span["span_id"]: span for span in document["spans"]}
        assert [s["name"] for s in document["spans"] if s["parent_span_id"] is None] == ["Agent workflow"]
        models, tools = of_kind(document, "llm"), of_kind(document, "tool")
        assert len(models) == 2 and len(tools) == 2
        assert {by_id[s["parent_span_id"]]["name"] for s in tools} == {"turn 1"}
        assert {span["status"]["code"] for span in document["spans"]} == {"ok"}
        observation = document["observation"]
        for what, member in (("input", "prompt_tokens"), ("output", "completion_tokens")):
            tokens = sum(span["attributes"][f"gen_ai.usage.{what}_tokens"] for span in models)
            assert observation[member] == tokens > 0
        assert (observation["llm_calls"], observation["tool_call_count"]) == (2, 2)
        assert observation["user_message"] == BOTH
        assert observation["agent_response"] == "sunny in Oslo 39"
        assert {call["input"] for call in observation["tool_calls"]} == {
            '{"city": "Oslo"}',
            '{"date": "2027-01-01"}',
        }


def test_an_agent_that_is_cancelled(collector, apis):
    async def run():
        async with openai.AsyncOpenAI(base_url=apis.base_url, api_key="x") as client:
            model = agents.OpenAIResponsesModel("gpt-4o", client)
            one = agents.Agent(name="traveller", model=model)
            task = asyncio.ensure_future(agents.Runner.run(one, "forever"))
            while not apis.script.hanging:
                await asyncio.sleep(0.01)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    asyncio.run(run())
    (document,) = traces(collector, 1)
    assert {span["status"]["code"] for span in document["spans"]} == {"cancelled"}
    assert document["observation"]["prompt_tokens"] is None
