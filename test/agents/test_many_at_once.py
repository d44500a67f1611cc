"""Many requests at once in one process, and every span of each in its place: the real daemon."""

from __future__ import annotations

import asyncio
import collections
import json
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.runnables import RunnableLambda, RunnableSequence
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from majors import MODEL_RUNS, NODE, create_agent

import sidelight
from harness import arguments, assert_ledger, daemon, eventually, sidelightd  # noqa: F401
from scripted_openai import ScriptedOpenAI
from sidelight import SidelightCallbackHandler, _api

TASKS, THREADS = 200, 50


@pytest.fixture
def collector(daemon, monkeypatch):  # noqa: F811
    """A daemon that this process's client reports to."""
    running = daemon()
    for name in ("OTEL_SERVICE_NAME", "TRACEPARENT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_api, "_inherited", None)
    monkeypatch.setenv("SIDELIGHT_SOCKET", running.socket)
    _api.transport.after_fork()
    _api.transport.path = None
    yield running
    _api.transport.after_fork()


@pytest.fixture(scope="module")
def model():
    with ScriptedOpenAI(delay=0.05, final_delay=0.02) as server:
        yield ChatOpenAI(model="gpt-4o", base_url=server.base_url, api_key="scripted", timeout=60)


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    with sidelight.span(f"station {city}"):
        return f"sunny in {city}"


@tool
def days_until(date: str) -> str:
    """The days until a date."""
    return f"39 days until {date}"


def shape(spans: list[dict]) -> collections.Counter:
    """How often each kind of span stands below which."""
    names = {span["span_id"]: re.sub(r"City\d+", "City", span["name"]) for span in spans}
    return collections.Counter((names[s["span_id"]], names.get(s["parent_span_id"])) for s in spans)


def assert_one_tree_each(collector, traces: dict[int, str], expected: dict) -> None:
    """Each request has one root, its own spans and no other's, and each in its place."""
    assert len(set(traces.values())) == len(traces)
    for number, trace_id in traces.items():
        found = sidelight.trace(trace_id, 20)
        assert found is not None
        spans = found["spans"]
        assert {span["trace_id"] for span in spans} == {trace_id}
        assert sum(span["parent_span_id"] is None for span in spans) == 1
        assert shape(spans) == expected
        assert {span["status"]["code"] for span in spans} == {"ok"}
        assert set(re.findall(r"City(\d+)", json.dumps(spans))) == {str(number)}
    metrics = assert_ledger(collector)
    assert metrics("sidelight_frames_refused_total") == 0
    assert metrics("sidelight_open_runs") == 0
    assert metrics("sidelight_spans_stored_total") == len(traces) * sum(expected.values())


AGENT = {
    ("invoke_agent request", None): 1,
    ("invoke_agent LangGraph", "invoke_agent request"): 1,
    (NODE, "invoke_agent LangGraph"): 2,
    **{("chat gpt-4o" if n == "ChatOpenAI" else n, above): 2 for *_, above, n in MODEL_RUNS[1:]},
    ("tools", "invoke_agent LangGraph"): 2,
    ("execute_tool weather", "tools"): 1,
    ("execute_tool days_until", "tools"): 1,
    ("station City", "execute_tool weather"): 1,
}


def question(number: int) -> dict:
    return {"messages": [("user", f"weather in City{number} and days until 2027-01-01")]}


def config() -> dict:
    return {"callbacks": [SidelightCallbackHandler()]}


def test_agents_in_tasks(collector, model):
    agent = create_agent(model, [weather, days_until])
    traces = {}

    async def request(number: int) -> None:
        async with sidelight.span("request", kind="agent", session=f"City{number}") as run:
            await agent.ainvoke(question(number), config())
        traces[number] = run.trace_id

    async def all_at_once() -> None:
        await asyncio.gather(*map(request, range(TASKS)))

    asyncio.run(all_at_once())
    assert len(traces) == TASKS
    assert_one_tree_each(collector, traces, AGENT)


def test_agents_in_threads(collector, model):
    agent = create_agent(model, [weather, days_until])
    gate = threading.Barrier(THREADS)
    traces = {}

    def request(number: int) -> None:
        gate.wait(60)
        with sidelight.span("request", kind="agent", session=f"City{number}") as run:
            agent.invoke(question(number), config())
        traces[number] = run.trace_id

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(request, range(THREADS)))
    assert len(traces) == THREADS
    assert_one_tree_each(collector, traces, AGENT)


DECORATED = {
    ("invoke_agent request", None): 1,
    ("plan", "invoke_agent request"): 1,
    ("chat", "plan"): 1,
    ("execute_tool look_up", "invoke_agent request"): 4,
    ("documents", "execute_tool look_up"): 4,
    ("chat", "invoke_agent request"): 1,
    ("consumed", "invoke_agent request"): 3,
}


@sidelight.llm
async def tokens(city: str):
    for index in range(3):
        await asyncio.sleep(0.001)
        yield f"{city} {index} "


@sidelight.retriever
def documents(city: str) -> list[str]:
    return [city]


@sidelight.tool
def look_up(city: str) -> list[str]:
    return documents(city)


@sidelight.chain
async def plan(city: str) -> str:
    return "".join([token async for token in tokens(city)])


def decorated_request(pool: ThreadPoolExecutor, traces: dict[int, str]):
    @sidelight.agent
    async def request(number: int, city: str) -> str:
        traces[number] = sidelight.current().trace_id
        loop = asyncio.get_running_loop()
        await plan(city)
        found = await asyncio.gather(
            *(loop.run_in_executor(pool, sidelight.wrap(look_up), city) for _ in range(4))
        )
        async for _ in tokens(city):
            with sidelight.span("consumed", city=city):
                await asyncio.sleep(0)
        return found[0][0]

    return request


def test_decorated_functions_in_tasks_and_their_threads(collector):
    traces: dict[int, str] = {}
    with ThreadPoolExecutor(16) as pool:
        request = decorated_request(pool, traces)

        async def all_at_once() -> list[str]:
            return await asyncio.gather(*(request(n, f"City{n}") for n in range(TASKS)))

        answers = asyncio.run(all_at_once())
    assert answers == [f"City{n}" for n in range(TASKS)]
    assert_one_tree_each(collector, traces, DECORATED)


def test_decorated_functions_in_threads_with_loops_of_their_own(collector):
    traces: dict[int, str] = {}
    gate = threading.Barrier(THREADS)
    with ThreadPoolExecutor(16) as pool, ThreadPoolExecutor(THREADS) as callers:
        request = decorated_request(pool, traces)

        def call(number: int) -> str:
            gate.wait(60)
            return asyncio.run(request(number, f"City{number}"))

        answers = list(callers.map(call, range(THREADS)))
    assert answers == [f"City{n}" for n in range(THREADS)]
    assert_one_tree_each(collector, traces, DECORATED)


def test_a_process_started_from_a_run_is_in_its_trace(collector):
    """Three processes deep, told by nothing but the environment."""
    code = """
import os, subprocess, sys, sidelight
depth = int(sys.argv[1])
@sidelight.agent(name=f"process {depth}")
def work():
    if depth < 3:
        subprocess.run([sys.executable, "-c", sys.argv[2], str(depth + 1), sys.argv[2]], env=sidelight.environ(), check=True)
work()
"""
    with sidelight.span("root", kind="agent") as root:
        subprocess.run([sys.executable, "-c", code, "1", code], env=sidelight.environ(), check=True)

    def whole_trace():
        found = sidelight.trace(root)
        return found if found and len(found["spans"]) == 4 else None

    spans = eventually(whole_trace, what="all four are there")["spans"]
    by_name = {span["name"].removeprefix("invoke_agent "): span for span in spans}
    assert by_name["root"]["span_id"] == root.span_id
    for depth in (1, 2, 3):
        above = by_name[f"process {depth - 1}"] if depth > 1 else by_name["root"]
        assert by_name[f"process {depth}"]["parent_span_id"] == above["span_id"]
        assert by_name[f"process {depth}"]["trace_id"] == root.trace_id


def test_a_process_started_from_a_langchain_run_is_in_its_trace(collector, monkeypatch):
    """The run is below what started this process, and what it starts is below the run."""
    above = f"00-{'ab' * 16}-{'cd' * 8}-01"
    monkeypatch.setenv("TRACEPARENT", above)
    code = "import sidelight\nwith sidelight.span('child'): pass"

    @RunnableLambda
    def start(_: int) -> None:
        subprocess.run([sys.executable, "-c", code], env=sidelight.environ(), check=True)

    RunnableSequence(RunnableLambda(lambda x: x), start).invoke(1, config())

    def whole_trace():
        found = sidelight.trace("ab" * 16)
        return found if found and len(found["spans"]) == 4 else None

    spans = {s["name"]: s for s in eventually(whole_trace, what="all four are there")["spans"]}
    assert spans["invoke_agent RunnableSequence"]["parent_span_id"] == "cd" * 8
    assert spans["start"]["parent_span_id"] == spans["invoke_agent RunnableSequence"]["span_id"]
    assert spans["child"]["parent_span_id"] == spans["start"]["span_id"]


def test_a_trace_that_is_asked_for(collector):
    assert sidelight.trace("0" * 32) is None
    assert sidelight.trace("../../metrics") is None
    with sidelight.span("open", kind="agent") as run:
        found = sidelight.trace(run)
        assert found["trace"]["status"]["code"] == "running"
        assert [span["name"] for span in found["spans"]] == ["invoke_agent open"]
    for given in (run, run.id, run.trace_id, run.trace_id[:12]):
        assert sidelight.trace(given)["trace"]["trace_id"] == run.trace_id
    collector.stop()
    assert sidelight.trace(run) is None
    assert os.environ["SIDELIGHT_SOCKET"] == collector.socket
