"""Real runs of the OpenAI Agents SDK: which tree the processor makes of them."""

import asyncio
import contextlib

import agents
import openai
import pytest
from agents import Agent, GuardrailFunctionOutput, ModelSettings, Runner, function_tool, input_guardrail, trace
from agents.models.openai_chatcompletions import OpenAIChatCompletionsModel
from agents.models.openai_responses import OpenAIResponsesModel
from seen import Seen

import sidelight
import sidelight.openai_agents
import sidelight.openai_client

BOTH = "weather in Oslo and days until 2027-01-01"
MODELS = {"chat": OpenAIChatCompletionsModel, "responses": OpenAIResponsesModel}
LEAVES = {"chat": "generation", "responses": "response"}


@pytest.fixture(autouse=True)
def installed(recorder):
    agents.tracing.set_trace_processors([])  # OpenAI's own exporter asks for a key
    sidelight.openai_agents._current_span = None
    sidelight._calls.outer_reports.clear()
    sidelight.openai_agents.install()
    sidelight.openai_agents.install()
    sidelight.openai_client.install()


@function_tool
async def weather(city: str) -> str:
    """The weather in a city."""
    await asyncio.sleep(0.05)
    with sidelight.run("station"):
        if city == "Atlantis":
            raise LookupError("no such city")
        return f"sunny in {city}"


@function_tool
def days_until(date: str) -> str:
    """The days until a date."""
    return "39 days"


def agent(apis, kind, tools=(weather, days_until), **options):
    client = openai.AsyncOpenAI(base_url=apis.base_url, api_key="scripted", max_retries=0)
    model = MODELS[kind]("gpt-4o", client)
    options.setdefault("model_settings", ModelSettings(include_usage=True))
    return Agent(name="traveller", instructions="Be brief.", model=model, tools=list(tools), **options)


def ask(one, text):
    return asyncio.run(Runner.run(one, text)).final_output


def ask_streamed(one, text):
    async def run():
        result = Runner.run_streamed(one, text)
        async for _ in result.stream_events():
            pass
        return result.final_output

    return asyncio.run(run())


def tree(leaf):
    root = ("Agent workflow",)
    task = (*root, "Agent workflow")
    one = (*task, "traveller")
    turns = [(*one, "turn 1"), (*one, "turn 2")]
    in_first = [(*turns[0], name) for name in (leaf, "weather", "days_until")]
    station = (*turns[0], "weather", "station")
    return sorted([root, task, one, *turns, *in_first, station, (*turns[1], leaf)])


@pytest.mark.parametrize("way", [ask, ask_streamed], ids=lambda way: way.__name__)
@pytest.mark.parametrize("kind", ["chat", "responses"])
def test_a_run_with_two_tools_at_once(recorder, apis, kind, way):
    assert way(agent(apis, kind), BOTH) == "sunny in Oslo 39 days"
    seen = Seen(recorder)
    assert seen.tree() == tree(LEAVES[kind])
    assert [run.kind for run in seen.runs].count("llm") == 2
    assert {run.id for run in seen.runs if run.usage} == {run.id for run in seen.of("llm")}
    assert not any(run.error for run in seen.runs)

    first, second = seen.of("llm")
    assert first.usage["input_tokens_details"]["cached_tokens"] == 640
    assert first.usage["total_tokens"] == first.usage["input_tokens"] + first.usage["output_tokens"]
    calls = first.end["output"][0]["tool_calls"]
    assert [call.get("function", call)["name"] for call in calls] == ["weather", "days_until"]
    assert second.text == "sunny in Oslo 39 days"
    assert seen.runs[0].end["output"] == second.end["output"]
    tools = {run.name: run for run in seen.of("tool")}
    assert tools["weather"].end["input"] == '{"city": "Oslo"}' and tools["weather"].end["output"] == "sunny in Oslo"
    (one,) = seen.of("agent")
    assert one.end["attrs"]["openai.agents.tools"] == ["weather", "days_until"]
    if way is ask_streamed:
        assert first.events == second.events == ["first_token"] and second.chunks > 1
    if kind == "responses":
        assert first.end["model"] == "gpt-4o-2026-08-07"
        system, user = first.end["input"]
        assert (system["content"], user["content"]) == ("Be brief.", BOTH)
    else:
        assert first.model == "gpt-4o" and first.end["input"][-1]["content"] == BOTH


def test_a_stream_without_usage_has_none(recorder, apis):
    ask_streamed(agent(apis, "chat", [], model_settings=ModelSettings()), "hello")
    (call,) = Seen(recorder).of("llm")
    assert call.usage is None and call.text.startswith("Hello!") and call.error is None


@pytest.mark.parametrize("kind", ["chat", "responses"])
def test_without_the_client_s_wrapper_the_tree_is_the_same(recorder, apis, kind):
    sidelight._calls.outer_reports.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openai.AsyncOpenAI, "request", openai.AsyncOpenAI.request.__wrapped__, raising=False)
        ask(agent(apis, kind), BOTH)
    assert Seen(recorder).tree() == tree(LEAVES[kind])


def test_a_tool_that_calls_a_model_by_itself(recorder, apis):
    @function_tool
    async def weather(city: str) -> str:
        """The weather in a city."""
        async with openai.AsyncOpenAI(base_url=apis.base_url, api_key="x") as client:
            messages = [{"role": "user", "content": "hello"}]
            await client.chat.completions.create(model="small", messages=messages)
        return "sunny"

    ask(agent(apis, "responses", [weather]), "weather in Oslo")
    seen = Seen(recorder)
    (inner,) = [run for run in seen.of("llm") if run.model == "small"]
    assert seen.path(inner)[-2:] == ("weather", "openai.chat.completions")
    assert len(seen.of("llm")) == 3


def test_a_run_around_it_is_its_parent_and_the_trace_says_more(recorder, apis):
    with sidelight.run("request", kind="agent"):
        with trace("Holiday", trace_id="trace_" + "ab" * 16, group_id="s1", metadata={"user_id": "u1", "team": "blue"}):
            pass
    seen = Seen(recorder)
    assert seen.tree() == [("request",), ("request", "Holiday")]
    holiday = seen.runs[1]
    assert holiday.id == bytes.fromhex("ab" * 16)
    assert (holiday.session, holiday.user, holiday.attrs) == ("s1", "u1", {"team": "blue"})


def test_a_handoff(recorder, apis):
    other = agent(apis, "responses", [])
    other.name = "helper"
    assert ask(agent(apis, "responses", [], handoffs=[other]), "hand over").startswith("Hello!")
    seen = Seen(recorder)
    (over,) = [run for run in seen.runs if run.name == "handoff"]
    told = {**over.attrs, **over.end["attrs"]}
    assert told == {"openai.agents.handoff.from": "traveller", "openai.agents.handoff.to": "helper"}
    assert [run.name for run in seen.of("agent")] == ["traveller", "helper"]
    task = ("Agent workflow", "Agent workflow")
    assert {seen.path(run) for run in seen.of("agent")} == {(*task, "traveller"), (*task, "helper")}
    assert seen.path(over)[:3] == (*task, "traveller")
    assert len(seen.of("llm")) == 2 and not any(run.error for run in seen.runs)


def test_a_guardrail_that_lets_through_and_one_that_doesn_t(recorder, apis):
    @input_guardrail
    async def polite(context, agent, given):
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered="rude" in given)

    one = agent(apis, "responses", [], input_guardrails=[polite])
    ask(one, "hello")
    with pytest.raises(agents.InputGuardrailTripwireTriggered):
        ask(one, "rude")
    seen = Seen(recorder)
    rails = [run for run in seen.runs if run.name == "polite"]
    assert [run.end["attrs"]["openai.agents.guardrail.triggered"] for run in rails] == [False, True]
    roots = [run for run in seen.runs if run.parent is None]
    assert [run.error for run in roots] == [None, "InputGuardrailTripwireTriggered"]


def test_a_tool_that_fails_is_an_error_and_the_agent_goes_on(recorder, apis):
    ask(agent(apis, "responses"), "weather in Atlantis")
    seen = Seen(recorder)
    (failed,) = seen.of("tool")
    assert failed.error and "Error running tool" in failed.end["error"]["message"]
    (station,) = [run for run in seen.runs if run.name == "station"]
    assert station.error == "LookupError"
    assert not any(run.error for run in seen.runs if run not in (failed, station))


@pytest.mark.parametrize("kind", ["chat", "responses"])
def test_a_model_that_fails_is_an_error_up_to_the_root(recorder, apis, kind):
    with pytest.raises(openai.InternalServerError):
        ask(agent(apis, kind), "outage")
    seen = Seen(recorder)
    (call,) = seen.of("llm")
    assert call.error == "InternalServerError" and call.usage is None
    assert call.end["attrs"]["http.response.status_code"] == 500
    assert {run.error for run in seen.runs} == {"InternalServerError"}


@pytest.mark.parametrize("kind", ["chat", "responses"])
def test_a_run_that_is_cancelled(recorder, apis, kind):
    async def run():
        task = asyncio.ensure_future(Runner.run(agent(apis, kind), "forever"))
        while not apis.script.hanging:
            await asyncio.sleep(0.01)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(run())
    seen = Seen(recorder)
    assert len(seen.of("llm")) == 1
    assert {run.error for run in seen.runs} == {"CancelledError"}


@pytest.mark.parametrize("kind", ["chat", "responses"])
def test_a_stream_that_is_cut_keeps_what_came(recorder, apis, kind):
    with pytest.raises(Exception):
        ask_streamed(agent(apis, kind, []), "a story cut off")
    (call,) = Seen(recorder).of("llm")
    assert call.text == "The keeper lit the "
    assert call.usage == {"output_tokens": 4, "sidelight.estimated": True}
    assert call.error and call.chunks == 4 and call.events == ["first_token"]


def test_fifty_runs_at_once_stay_apart(recorder, apis):
    one = agent(apis, "responses")

    async def ask(i):
        with sidelight.run(f"request {i}", kind="agent"):
            await Runner.run(one, f"{BOTH} {i}")

    async def run():
        await asyncio.gather(*(ask(i) for i in range(50)))

    asyncio.run(run())
    seen = Seen(recorder)
    assert len(seen.of("llm")) == 100 and len(seen.of("tool")) == 100
    for call in seen.of("llm"):
        number = seen.path(call)[0].split()[1]
        asked = call.end["input"][1]["content"]
        assert asked == f"{BOTH} {number}"
