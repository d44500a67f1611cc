"""Ways to run that LangChain offers beside the plain ones, and many requests at once."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from majors import create_agent
from pydantic import BaseModel, Field
from scripted_openai import ScriptedOpenAI
from test_langchain import BOTH, TREE, Seen, agent, asked, config, model, weather

from sidelight import SidelightCallbackHandler, _api


def below(seen, root):
    """The runs of a root's tree, itself first."""
    inside = [root]
    for run, start in seen.starts.items():  # parents start before their children
        if start.get("parent") in inside:
            inside.append(run)
    return inside


def test_a_batch_is_as_many_roots(recorder, model_server):
    graph = agent(model_server)
    graph.batch([asked(BOTH), asked("weather in Rome")], config())
    asyncio.run(graph.abatch([asked(BOTH), asked("weather in Rome")], config()))
    model(model_server).batch(["hi", "ho"], config())
    seen = Seen(recorder)
    roots = [run for run, start in seen.starts.items() if "parent" not in start]
    one_tool_less = len(TREE) - len(["tools", "days_until"])
    assert sorted(len(below(seen, root)) for root in roots) == [1, 1, *[one_tool_less] * 2, *[len(TREE)] * 2]
    assert set(seen.ends) == set(seen.starts)


def test_graphs_in_a_graph(recorder, model_server):
    """A graph that is a node of another one, and agents that are nodes of that."""

    def graph_of(**nodes):
        graph = StateGraph(MessagesState)
        for above, (name, node) in zip([START, *nodes], nodes.items()):
            graph.add_node(name, node)
            graph.add_edge(above, name)
        graph.add_edge(list(nodes)[-1], END)
        return graph

    expert = create_agent(model(model_server), [weather], name="expert")
    inner = graph_of(ask=expert, think=lambda state: {"messages": []}).compile(name="inner")
    outer = graph_of(first=inner, second=create_agent(model(model_server), [], name="writer")).compile(name="outer")
    outer.invoke(asked("weather in Oslo"), config())
    seen = Seen(recorder)
    tree = seen.tree()
    assert ("outer", "first", "inner", "ask", "expert", "tools", "weather") in tree
    assert [path for path in tree if len(path) == 1] == [("outer",)]
    assert set(seen.ends) == set(seen.starts)
    assert {seen.starts[run]["name"] for run in seen.of("agent")} >= {"outer"}


def test_a_retry_shows_each_try(recorder, model_server):
    tries = []

    def flaky(text):
        tries.append(text)
        if len(tries) < 3:
            raise ConnectionError("again")
        return model(model_server).invoke(text).content

    chain = RunnableLambda(flaky).with_retry(wait_exponential_jitter=False, stop_after_attempt=3)
    chain.invoke("hi", config())
    seen = Seen(recorder)
    root = next(run for run, start in seen.starts.items() if "parent" not in start)
    attempts = [run for run, start in seen.starts.items() if start.get("parent") == root]
    assert [seen.ends[run].get("error", {}).get("type") for run in attempts] == ["ConnectionError"] * 2 + [None]
    assert "error" not in seen.ends[root]
    assert seen.starts[seen.of("llm")[0]]["parent"] == attempts[2]
    assert "retry:attempt:2" in seen.starts[attempts[1]]["tags"]


def test_a_fallback_shows_the_failure_and_the_answer(recorder, model_server):
    with ScriptedOpenAI() as down:
        down.script.play = None  # every request of it is answered 400
        chain = model(down).with_fallbacks([model(model_server)])
        assert chain.invoke("hi", config()).content
    seen = Seen(recorder)
    first, second = seen.of("llm")
    assert "error" in seen.ends[first] and "error" not in seen.ends[second]
    assert seen.tree()[0] == ("RunnableWithFallbacks",)
    assert seen.tree()[1:] == [("RunnableWithFallbacks", "ChatOpenAI")] * 2
    assert "usage" not in seen.ends[first] and seen.ends[second]["usage"]["output_tokens"] > 0


class Place(BaseModel):
    """Where to look."""

    city: str = Field(description="its name")


Place.__name__ = "weather"  # the scripted model calls a tool of that name


def test_a_call_with_a_config_of_its_own_is_inside_all_the_same(recorder, model_server):
    def work(text):
        return model(model_server).invoke(text, config()).content

    RunnableLambda(work).invoke("hi", config())
    RunnableLambda(work).invoke("hi")  # nobody reports this one: it is no parent
    seen = Seen(recorder)
    assert seen.tree() == [("ChatOpenAI",), ("work",), ("work", "ChatOpenAI")]


def test_structured_output(recorder, model_server):
    chain = model(model_server).with_structured_output(Place, method="function_calling")
    assert chain.invoke("weather in Oslo", config()).city == "Oslo"
    seen = Seen(recorder)
    (llm,) = seen.of("llm")
    assert seen.ends[llm]["output"][0]["tool_calls"][0]["args"] == {"city": "Oslo"}
    root, root_end = seen.one("agent")
    assert root_end["output"] == {"city": "Oslo"}
    assert len(seen.starts) >= 3 and set(seen.ends) == set(seen.starts)


def test_wrong_arguments_and_a_tool_that_is_not_there(recorder, model_server):
    @tool("weather")
    def strict(city: int) -> str:
        """Cities by number."""
        return str(city)

    agent(model_server, [strict]).invoke(asked("weather in Oslo"), config())
    seen = Seen(recorder)
    assert seen.one("tool")[1]["error"]["type"] == "ValidationError"
    assert "error" not in seen.one("agent")[1]
    agent(model_server, []).invoke(asked("weather in Oslo"), config())
    assert len(Seen(recorder).of("tool")) == 1


def endless():
    graph = StateGraph(MessagesState)
    graph.add_node("again", lambda state: {"messages": []})
    graph.add_edge(START, "again")
    graph.add_edge("again", "again")
    return graph.compile()


@pytest.mark.parametrize("what", ["agent", "graph"])
def test_a_limit_of_recursion(recorder, model_server, what):
    graph = agent(model_server) if what == "agent" else endless()
    with pytest.raises(Exception, match="[Rr]ecursion"):
        graph.invoke(asked("weather in Oslo"), {**config(), "recursion_limit": 2})
    seen = Seen(recorder)
    assert seen.one("agent")[1]["error"]["type"] == "GraphRecursionError"
    assert set(seen.ends) == set(seen.starts)


def test_two_hundred_requests_at_once_span_by_span(recorder, monkeypatch):
    """Half of them on one event loop, half on threads: each has its own ten runs, and no other's."""
    monkeypatch.setattr(_api.transport, "limit", 256 << 20)
    count = 200

    def question(n):
        return asked(f"weather in City{n} and days until 2027-01-01")

    async def tasks(graph):
        await asyncio.gather(*(graph.ainvoke(question(n), config()) for n in range(count // 2)))

    with ScriptedOpenAI(delay=0.05, final_delay=0.05) as server, ThreadPoolExecutor(count // 2) as pool:
        server_side, handler = agent(server), {"callbacks": [SidelightCallbackHandler()]}
        threads = [pool.submit(server_side.invoke, question(n), handler) for n in range(count // 2, count)]
        asyncio.run(tasks(server_side))
        for thread in threads:
            thread.result()
    assert _api.transport.flush(30)
    seen = Seen(recorder)
    assert len(seen.starts) == len(seen.ends) == count * len(TREE)
    roots = [run for run, start in seen.starts.items() if "parent" not in start]
    children = {}
    for run, start in seen.starts.items():
        children.setdefault(start.get("parent"), []).append(run)
    cities = set()
    for root in roots:
        city = seen.starts[root]["input"][0]["content"].split()[2]
        cities.add(city)
        todo, runs = [root], []
        while todo:
            runs.append(todo.pop())
            todo += children.get(runs[-1], [])
        assert sorted(seen.path(run) for run in runs) == TREE
        by_name = {}
        for run in runs:
            assert "error" not in seen.ends[run]
            by_name.setdefault(seen.starts[run]["name"], []).append(run)
        (tool_run,) = by_name["weather"]
        assert seen.starts[tool_run]["input"] == {"city": city}
        assert seen.ends[tool_run]["output"] == f"sunny in {city}"
        for llm in by_name["ChatOpenAI"]:
            assert city in str(seen.starts[llm]["input"][1]["content"]).split()
            assert seen.ends[llm]["usage"]["output_tokens"] > 0
        assert city in seen.ends[root]["output"][0]["content"].split()
    assert len(cities) == count
