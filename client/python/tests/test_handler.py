"""What LangChain tells a handler: the part in C and the Python beside it report the same of it."""

import contextlib
import inspect
import itertools
import os
import random
import subprocess
import sys
import types
import uuid

import pytest
from recorder import Recorder, only_runs

import sidelight
from sidelight import _api, _transport

pytest.importorskip("sidelight._fast")
langchain = pytest.importorskip("sidelight.langchain")

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage  # noqa: E402
from langchain_core.outputs import ChatGeneration, Generation, LLMResult  # noqa: E402
from langchain_core.runnables.config import var_child_runnable_config  # noqa: E402


class Text(str):
    pass


class Dict(dict):
    pass


class Said(AIMessage):
    pass


class Id(uuid.UUID):
    bytes = b"an id of its own"


NO_ID = uuid.UUID.__new__(uuid.UUID)


# What is called: what of a handler, its positional arguments, and its others. Runs are numbers.


def start(what, *args, run=1, parent=None, **more):
    return f"on_{what}_start", args, {"run_id": run, "parent_run_id": parent, **more}


def end(what, *args, run=1, parent=None, **more):
    return f"on_{what}_end", args, {"run_id": run, "parent_run_id": parent, **more}


SERIALIZED = {"id": ["langchain", "ChatOpenAI"], "name": "ChatOpenAI", "kwargs": {"temperature": 1}}
METADATA = {
    "ls_provider": "openai",
    "ls_model_name": "gpt-4o",
    "ls_temperature": 0.5,
    "ls_max_tokens": 100,
    "langgraph_step": 1,
    "langgraph_path": ("a", "b"),
    "checkpoint_ns": "model:1",
    "thread_id": "t",
    "user_id": "u",
    "prompt_key": "key",
    "policy_mode": "strict",
    "yes": True,
    "half": 0.5,
    "none": None,
}
ASKED = {"model": "gpt-4o-mini", "temperature": 0.7, "top_p": 1, "stop": None, "_type": "chat", "seed": 5}
MESSAGES = [SystemMessage("Be brief."), HumanMessage("é" * 100)]
CALLS = [{"id": "c1", "name": "weather", "args": {"city": "Oslo"}, "type": "tool_call"}]
USAGE = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7, "input_token_details": {"cache_read": 1}}
SAID = {"finish_reason": "stop", "model_name": "gpt-4o-2026", "id": "chatcmpl-1"}


def answer(*messages, info=None, told=None, of=ChatGeneration):
    choices = [of(message=message, generation_info=info) for message in messages]
    return LLMResult(generations=[choices], llm_output=told)


ANSWER = answer(AIMessage("42", usage_metadata=USAGE, response_metadata=SAID, tool_calls=CALLS))

PLAIN = {
    "a model call": [
        start("chat_model", SERIALIZED, [MESSAGES], metadata=METADATA, invocation_params=ASKED, tags=["a"], name=None),
        end("llm", ANSWER, tags=["a"]),
    ],
    "a model call in a chain": [
        start("chain", None, {"messages": MESSAGES}, name="agent", metadata=METADATA, tags=[]),
        start("chat_model", SERIALIZED, [MESSAGES], run=2, parent=1, metadata=METADATA, invocation_params=ASKED),
        end("llm", ANSWER, run=2, parent=1),
        end("chain", {"messages": [*MESSAGES, AIMessage("yes")]}),
    ],
    "a tool call": [
        start("chain", None, {}, name="tools"),
        start("tool", {"name": "weather", "description": "of a city"}, "{'city': 'Oslo'}", run=2, parent=1,
              inputs={"city": "Oslo"}, tool_call_id="c1", name="weather"),
        end("tool", ToolMessage("sunny", tool_call_id="c1"), run=2, parent=1),
        end("chain", {}),
    ],
    "a tool without inputs": [
        start("tool", {"name": "t", "description": ""}, "in", tool_call_id=None),
        end("tool", "out"),
    ],
    "a tool that returns blocks": [
        start("tool", {"name": "t"}, "in"),
        end("tool", ToolMessage([{"type": "text", "text": "x"}], tool_call_id="c1")),
    ],
    "an agent in an agent": [
        start("chain", None, "question", name="outer"),
        start("chain", None, {"messages": MESSAGES}, run=2, parent=1, name="inner", metadata={"lc_agent_name": "inner"}),
        start("chain", None, 5, run=3, parent=2, name="LangGraph"),
        start("chain", None, 5, run=4, parent=3, name="node", metadata={"lc_agent_name": "inner"}),
        end("chain", 5, run=4, parent=3),
        end("chain", None, run=3, parent=2),
        end("chain", {"messages": []}, run=2, parent=1),
        end("chain", AIMessage("done")),
    ],
    "nothing is known": [
        start("chat_model", None, [MESSAGES], metadata=None, tags=None),
        end("llm", answer(AIMessage(""), told={})),
    ],
    "a name from its path": [start("chat_model", {"id": ["a", "b"]}, [MESSAGES]), end("llm", ANSWER)],
    "a name from nowhere": [start("chat_model", {"id": []}, [MESSAGES], name=""), end("llm", ANSWER)],
    "many choices": [
        start("chat_model", SERIALIZED, [MESSAGES]),
        end("llm", answer(AIMessage("a", response_metadata=SAID), AIMessage("b", response_metadata={"stop_reason": "end"}),
                          AIMessage("c"), info={"finish_reason": "length"}, told={"token_usage": {"total_tokens": 3}})),
    ],
    "an answer that says little": [
        start("chat_model", SERIALIZED, [MESSAGES]),
        end("llm", answer(AIMessage("a", id="run-1"), told={"id": "told-1", "usage": USAGE, "model_name": "m"})),
    ],
    "a made up id": [
        start("chat_model", SERIALIZED, [MESSAGES]),
        end("llm", answer(AIMessage("a", id="lc_run--1", response_metadata={"id": "", "model": "m"}))),
    ],
    "a conversation of dicts": [
        start("chain", None, {"messages": [{"role": "user", "content": "hi"}, HumanMessage("hi")]}, name="x"),
        end("chain", {"messages": [HumanMessage("a")], "more": 1}),
    ],
    "a session by another name": [
        start("chain", None, {}, name="x", metadata={"session_id": "s", "conversation_id": "c", "prompt.version": "3"}),
        end("chain", {}),
    ],
}

ODD = {
    "told twice": PLAIN["a model call"] * 2,
    "started twice": [*PLAIN["a model call"][:1] * 2, *PLAIN["a model call"][1:]],
    "ended twice": [*PLAIN["a model call"], *PLAIN["a model call"][1:]],
    "never started": PLAIN["a model call"][1:],
    "no run": [("on_llm_end", (ANSWER,), {}), ("on_chain_start", (None, {}), {"name": "x"})],
    "a run that is none": [start("chain", None, {}, run="x"), start("chain", None, {}, run=2, parent=object())],
    "a run of another type": [start("chain", None, {}, run=Id(int=5), name="x"), end("chain", {}, run=Id(int=5))],
    "too little": [start("chat_model", run=1), start("chain", None, run=2), start("tool", run=3), end("llm"), end("tool")],
    "by name": [
        start("chat_model", serialized=SERIALIZED, messages=[MESSAGES]),
        end("llm", response=ANSWER),
    ],
    "a run without a number": [start("chain", None, {}, run=NO_ID, name="x"), start("chain", None, {}, parent=NO_ID, name="x")],
    "too much": [start("chain", None, {}, 1, 2, name="x"), end("chain", {}, 1, 2)],
    "too much at a tool's start": [start("tool", {"name": "t"}, "in", 1)],
    "too much at a tool's end": [start("tool", {"name": "t"}, "in"), end("tool", "out", 1)],
    "a stream": [
        PLAIN["a model call"][0],
        ("on_llm_new_token", ("a",), {"run_id": 1}),
        ("on_llm_new_token", ("b",), {"run_id": 1}),
        PLAIN["a model call"][1],
    ],
    "a failed tool": [
        start("tool", {"name": "t"}, "in"),
        end("tool", ToolMessage("broken", tool_call_id="c1", status="error")),
    ],
    "a failed tool that says so in a text of its own": [
        start("tool", {"name": "t"}, "in"),
        end("tool", ToolMessage.model_construct(content="broken", status=Text("error"))),
    ],
    "a tool that returns what is no message": [start("tool", {"name": "t"}, "in"), end("tool", {"a": 1})],
    "a message of another type": [
        start("chat_model", SERIALIZED, [[Said("x")]]),
        end("llm", answer(Said("x", usage_metadata=USAGE))),
    ],
    "an answer of another role": [start("chat_model", SERIALIZED, [MESSAGES]), end("llm", answer(HumanMessage("x")))],
    "an agent with a name of its own": [
        start("chain", None, {}, run=2, parent=1, name="inner", metadata={"lc_agent_name": Text("inner")}),
    ],
    "a completion": [
        ("on_llm_start", (SERIALIZED, ["prompt"]), {"run_id": 1, "invocation_params": ASKED}),
        end("llm", LLMResult(generations=[[Generation(text="x", generation_info={"finish_reason": "stop"})]])),
    ],
    "no choice": [start("chat_model", SERIALIZED, [MESSAGES]), end("llm", LLMResult(generations=[]))],
    "an empty choice": [start("chat_model", SERIALIZED, [MESSAGES]), end("llm", LLMResult(generations=[[]]))],
    "no messages": [start("chat_model", SERIALIZED, []), end("llm", ANSWER)],
    "tuples": [start("chain", None, {"messages": [("user", "hi")]}, name="x"), end("chain", {"messages": [("ai", "hi")]})],
    "one message": [start("chain", None, {"messages": HumanMessage("hi")}, name="x"), end("chain", {"messages": "hi"})],
}


def forget():
    for table in (langchain._runs, _api._above, *langchain._ended):
        table.clear()
    _api.transport.after_fork()


@contextlib.contextmanager
def by(way, path, monkeypatch):
    """A collector, and a process that reports in C or all in Python."""
    with monkeypatch.context() as patch:
        patch.setenv("SIDELIGHT_SOCKET", str(path))
        patch.setattr(_api, "_inherited", None)
        if way == "python":
            patch.setattr(_transport, "Lane", None)
        forget()
        with Recorder(path) as recorder:
            handler = sidelight.SidelightCallbackHandler()
            handler.on_chain_start(None, {}, run_id=uuid.UUID(int=1 << 90), name="first")
            handler.on_chain_end({}, run_id=uuid.UUID(int=1 << 90))
            yield recorder
        forget()


def call(handler, name, args, kwargs):
    if _transport.Lane is None:  # an argument whose name may have code of its own, so C looks at none
        kwargs = {**kwargs, Text("odd"): None}
    for key in ("run_id", "parent_run_id"):
        if type(kwargs.get(key)) is int and 0 < kwargs[key] < 1 << 64:
            kwargs = {**kwargs, key: uuid.UUID(int=kwargs[key])}
    assert getattr(handler, name)(*args, **kwargs) is None


def report(way, path, monkeypatch, calls):
    """What arrives, less the times, and what is remembered at the end."""
    with by(way, path, monkeypatch) as recorder:
        handler = sidelight.SidelightCallbackHandler()
        for name, args, kwargs in calls:
            call(handler, name, args, kwargs)
        assert sidelight.flush(5)
        arrived = [[*m[:2], *m[4:]] for m in only_runs(recorder.messages)[2:]]
        runs = {key: (run.parent, run.stream is None) for key, run in langchain._runs.items()}
        return arrived, runs, dict(_api._above), set().union(*langchain._ended)


@pytest.mark.parametrize("calls", [*PLAIN.values(), *ODD.values()], ids=[*PLAIN, *ODD])
def test_both_ways_report_the_same(tmp_path, monkeypatch, calls):
    by_c = report("fast", tmp_path / "c.sock", monkeypatch, calls)
    by_python = report("python", tmp_path / "p.sock", monkeypatch, calls)
    assert by_c == by_python


# Where it is called: within a span(), or in code that a LangChain run is around.


class Around:
    def __init__(self, monkeypatch):
        ids = itertools.count(1 << 80)
        monkeypatch.setattr(_api, "new_run_id", lambda: next(ids).to_bytes(16, "big"))
        self._handlers = [sidelight.SidelightCallbackHandler() for _ in range(2)]

    def begin(self, run, parent=None, handler=0):
        call(self._handlers[handler], *start("chain", None, {}, run=run, parent=parent, name=str(handler)))

    def end(self, run, handler=0):
        call(self._handlers[handler], *end("chain", handler, run=run))

    @contextlib.contextmanager
    def inside(self, run):
        callbacks = types.SimpleNamespace(parent_run_id=uuid.UUID(int=run))
        token = var_child_runnable_config.set({"callbacks": callbacks})
        yield
        var_child_runnable_config.reset(token)


def spanned(around):
    with sidelight.span("s"):
        around.begin(1)
        around.begin(2, parent=1)


def hidden(around):
    around.begin(1)
    with around.inside(1):
        around.begin(2)


def spanned_inside(around):
    around.begin(1)
    with around.inside(1):
        with sidelight.span("s"):
            around.begin(2, parent=1)
            around.begin(3)
            with around.inside(2), sidelight.span("deeper"):
                around.begin(4, parent=2)
                around.begin(5, parent=1)
        around.begin(6, parent=1)


def hidden_in_a_span(around):
    with sidelight.span("s"):
        around.begin(1)
        with around.inside(1):
            around.begin(2)


def ended_elsewhere(around):
    outer, inner = sidelight.span("outer"), sidelight.span("inner")
    with outer:
        inner.__enter__()
    around.begin(1)
    inner.__exit__(None, None, None)
    around.begin(2)


def under_another_process(around):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_api, "_inherited", (f"00-{1:032x}-{2:016x}-01", f"{1:032x}"))
        around.begin(1)
        around.begin(2, parent=1)


def told_to_two(around):
    for handler in (0, 1):
        around.begin(1, handler=handler)
    for handler in (1, 0, 1):
        around.end(1, handler=handler)


SCENES = [spanned, hidden, spanned_inside, hidden_in_a_span, ended_elsewhere, under_another_process, told_to_two]


@pytest.mark.parametrize("scene", SCENES)
def test_both_ways_put_it_under_the_same(tmp_path, monkeypatch, scene):
    arrived, tables = [], []
    for way in ("fast", "python"):
        with by(way, tmp_path / f"{way}.sock", monkeypatch) as recorder:
            scene(Around(monkeypatch))
            assert sidelight.flush(5)
            arrived.append([[*m[:2], *m[4:]] for m in only_runs(recorder.messages)[2:]])
            tables.append(({key: run.parent for key, run in langchain._runs.items()}, dict(_api._above)))
    assert arrived[0] == arrived[1]
    assert tables[0] == tables[1]


def test_what_is_remembered_is_bounded(tmp_path, monkeypatch):
    with by("fast", tmp_path / "c.sock", monkeypatch):
        handler, count = sidelight.SidelightCallbackHandler(), langchain.MAX_RUNS + 100
        for run in range(1, count):
            call(handler, *start("chain", None, {}, run=run, name="x"))
        assert len(langchain._runs) <= langchain.MAX_RUNS
        assert len(_api._above) <= _api.MAX_ABOVE
        for run in range(count - 2 * langchain.MAX_ENDED, count):
            call(handler, *end("chain", {}, run=run))
        assert [len(ids) <= langchain.MAX_ENDED for ids in langchain._ended] == [True, True]
        assert sidelight.flush(10)


@pytest.mark.parametrize("name", sorted({name for calls in PLAIN.values() for name, _, _ in calls}))
def test_a_method_has_a_signature(name):
    handler = sidelight.SidelightCallbackHandler()
    assert inspect.signature(getattr(handler, name)).bind({}, run_id=1)
    assert inspect.signature(getattr(type(handler), name)).bind(handler, {}, run_id=1)


def python_of(handler, calls):
    """The names of the client's functions that run."""
    called = []
    sys.setprofile(lambda frame, what, _: what == "call" and called.append(frame.f_code))
    try:
        for name, args, kwargs in calls:
            call(handler, name, args, kwargs)
    finally:
        sys.setprofile(None)
    return [code.co_name for code in called if "/sidelight/" in code.co_filename]


@pytest.mark.parametrize("calls", PLAIN.values(), ids=PLAIN)
def test_what_is_plain_runs_no_python(tmp_path, monkeypatch, calls):
    if langchain._CALL_ID_IS_LATE and any(name == "on_tool_end" for name, *_ in calls):
        return  # of such a LangChain, those are left to Python
    with by("fast", tmp_path / "c.sock", monkeypatch):
        assert not python_of(sidelight.SidelightCallbackHandler(), calls)
        assert sidelight.flush(5)


def test_the_other_way_is_python(tmp_path, monkeypatch):
    for calls in PLAIN.values():
        with by("python", tmp_path / "p.sock", monkeypatch):
            called = python_of(sidelight.SidelightCallbackHandler(), calls)
            assert [name for name in called if name.startswith("on_")] == [name for name, *_ in calls]


def start_and_end(run):
    yield from PLAIN["a model call"][:1] if run == 1 else [start("chat_model", SERIALIZED, [MESSAGES], run=run)]
    yield end("llm", ANSWER, run=run)


@pytest.mark.parametrize("where", ["away", "behind"])
def test_what_can_not_be_sent_waits_and_keeps_its_order(tmp_path, monkeypatch, where):
    """The collector is not there, or what was told before still waits."""
    with by("fast", tmp_path / "c.sock", monkeypatch) as recorder:
        handler, transport = sidelight.SidelightCallbackHandler(), _api.transport
        if where == "away":
            transport.after_fork()
            monkeypatch.setattr(transport, "path", str(tmp_path / "nowhere.sock"))
        else:
            transport._turn[0] = None  # somebody who has the turn, and does not get to run
        calls = [one for run in range(1, 200) for one in start_and_end(run)]
        assert set(python_of(handler, calls)).isdisjoint({"on_chat_model_start", "on_llm_end"})
        assert not only_runs(recorder.messages)[2:]
        if where == "away":
            monkeypatch.setattr(transport, "path", None)
            transport._retry_ns = 0
        else:
            transport._turn.clear()
        assert sidelight.flush(5)
        arrived = [(m[0], int.from_bytes(m[1], "big")) for m in only_runs(recorder.messages)[2:]]
        assert arrived == [(kind, run) for run in range(1, 200) for kind in (1, 2)]


def test_the_first_event_after_a_full_buffer_arrives(tmp_path, monkeypatch):
    """What waited makes room for it, when the collector is there again."""
    with by("fast", tmp_path / "c.sock", monkeypatch):
        handler, transport = sidelight.SidelightCallbackHandler(), _api.transport
        transport.after_fork()
        monkeypatch.setattr(transport, "limit", 100_000)
        monkeypatch.setenv("SIDELIGHT_SOCKET", str(tmp_path / "later.sock"))
        for run in range(1, 300):
            for one in start_and_end(run):
                call(handler, *one)
        assert transport._full
        with Recorder(tmp_path / "later.sock") as recorder:
            transport._retry_ns = 0
            for one in start_and_end(1000):
                call(handler, *one)
            assert sidelight.flush(5)
            arrived = [(m[0], int.from_bytes(m[1], "big")) for m in only_runs(recorder.messages)]
            dropped = sum(m[1]["count"] for m in recorder.messages if m != "EOF" and m[0] == 6)
            assert arrived[-2:] == [(1, 1000), (2, 1000)]
            assert len(arrived) + dropped == 2 * 300


def test_a_module_that_is_loaded_when_it_is_looked_into(tmp_path, monkeypatch):
    name, metadata, others = "langchain_core.runnables.config", {}, []
    real = sys.modules[name]

    class Lazy(types.ModuleType):
        def __getattribute__(self, attribute):
            metadata.clear()
            others.append(f"other {len(others)}" * 50)  # where the model was, unless that is held
            return getattr(real, attribute)

    with by("fast", tmp_path / "c.sock", monkeypatch) as recorder:
        handler = sidelight.SidelightCallbackHandler()
        monkeypatch.setitem(sys.modules, name, Lazy(name))
        for run in range(1, 100):
            metadata.update(ls_model_name=f"model {run}" * 50)
            call(handler, *start("chat_model", SERIALIZED, [MESSAGES], run=run, metadata=metadata))
        assert sidelight.flush(5)
        models = [message[4].get("model") for message in only_runs(recorder.messages)[2:]]
        assert models == [f"model {run}" * 50 for run in range(1, 100)]


def test_runs_that_never_ended_slow_none_down(tmp_path, monkeypatch):
    with by("fast", tmp_path / "c.sock", monkeypatch):
        handler = sidelight.SidelightCallbackHandler()
        for run in range(1, 2 * _api.MAX_ABOVE):
            call(handler, *start("chain", None, {}, run=run, name="x"))
        assert sidelight.flush(10)
        more = [start("chain", None, {}, run=run, name="x") for run in range(1 << 20, (1 << 20) + 200)]
        assert python_of(handler, more).count("on_chain_start") < 3
        assert sidelight.flush(10)


# Anything at all

WORDS = [
    *("name", "id", "description", "model", "model_name", "temperature", "stop", "seed", "type", "x", "…"),
    *("thread_id", "session_id", "conversation_id", "user_id", "prompt_key", "ls_model_name", "ls_provider", "ls_max_tokens"),
    *("lc_agent_name", "checkpoint_ns", "finish_reason", "stop_reason", "token_usage", "usage", "messages"),
]


class Anything:
    """Values as nobody would pass them, the same ones for the same seed."""

    def __init__(self, seed):
        self._random = random.Random(seed)
        self.choice = self._random.choice
        self._open = set()

    def odd(self):
        made = [None, "", "x", "é", 0, 7, -1, True, False, 0.5, b"b", [], {}, (), ["a"], ("a", 1), {"a": 1}, {1: 2}]
        made += [Text("t"), Dict(a=1), "\ud800", 1 << 70, {"s"}, MESSAGES[0], Said("s"), range(3), "x" * 70_000]
        return self.choice(made)

    def seldom(self):
        return self._random.random() < 0.03

    def some(self, plain):
        """Mostly what is expected: about half of the calls are plain in every part."""
        return self.odd() if self.seldom() else plain

    def value(self):
        return self.choice(["a", "b", "c", "run-1", "lc_1", "", None, True, 7, 0.5, {"x": 1}, ["y"]])

    def dict(self):
        count = self._random.randrange(9)
        made = {self.choice(WORDS): self.some(self.choice("abc") if n % 3 else self.value()) for n in range(count)}
        if self.seldom():
            made[Text(self.choice(WORDS))] = "v"
        return self.some(made)

    def message(self):
        used = self.choice([None, USAGE, {"input_tokens": self._random.randrange(9)}])
        named = self.choice(["id-1", "id-2", "lc_1", "run-1", None])
        fields = {"content": self.some("said"), "type": "ai", "tool_calls": self.some(CALLS), "id": self.some(named)}
        fields.update(usage_metadata=self.some(used), response_metadata=self.dict(), name=self.some(None))
        fields.update(invalid_tool_calls=self.some([]), additional_kwargs={})
        for name in ("id", "usage_metadata", "response_metadata", "tool_calls"):
            if self.seldom():
                del fields[name]
        return (Said if self.seldom() else AIMessage).model_construct(**fields)

    def result(self):
        def one():
            made = ChatGeneration.model_construct(message=self.some(self.message()), generation_info=self.dict())
            return self.some(made)

        choices = [one() for _ in range(self.choice([1, 1, 1, 0, 2]))]
        return LLMResult.model_construct(generations=self.some([self.some(choices)]), llm_output=self.dict())

    def conversation(self):
        return [self.some(HumanMessage("hi")) for _ in range(self._random.randrange(3))]

    def call(self):
        run = self._random.randrange(1, 12)
        more = {"run_id": self.some(run), "parent_run_id": self.choice([None, self.some(run - 1 or None)])}
        is_open = (run in self._open) != self.seldom()
        (self._open.discard if is_open else self._open.add)(run)
        what = self.choice(["llm", "chain end", "tool end"] if is_open else ["chat_model", "chain", "tool"])
        if what in ("chat_model", "chain", "tool"):
            more.update(tags=self.some(["a"]), metadata=self.dict(), name=self.some(self.choice(["a", "LangGraph", None])))
        if what == "chat_model":
            return "on_chat_model_start", (self.dict(), self.some([self.conversation()])), {**more, "invocation_params": self.dict()}
        if what == "llm":
            return "on_llm_end", (self.some(self.result()),), more
        if what == "chain":
            return "on_chain_start", (self.dict(), self.some({"messages": self.some(self.conversation())})), more
        if what == "chain end":
            return "on_chain_end", (self.some({"messages": self.some(self.conversation())}),), more
        if what == "tool":
            more.update(inputs=self.choice([None, self.dict()]), tool_call_id=self.some(self.choice(["c", None, ""])))
            return "on_tool_start", (self.dict(), self.some("in")), more
        return "on_tool_end", (self.some(ToolMessage.model_construct(content=self.some("x"), status=self.some(self.choice(["success", "error"])))),), more


@pytest.mark.parametrize("seed", range(6))
def test_both_ways_report_the_same_of_anything(tmp_path, monkeypatch, seed):
    anything = Anything(seed)
    calls = [anything.call() for _ in range(1500)]
    by_c = report("fast", tmp_path / "c.sock", monkeypatch, calls)
    by_python = report("python", tmp_path / "p.sock", monkeypatch, calls)
    assert len(by_c[0]) > 500
    for one, other in zip(by_c[0], by_python[0]):
        assert one == other
    assert by_c == by_python


def test_a_callback_after_all_else_at_exit(tmp_path):
    code = """if True:
        import atexit, codecs, uuid

        class Last:
            def __del__(self):
                self.say(self.id)

        def say(run_id):
            handler.on_chain_start(None, {}, run_id=run_id, name="x")
            handler.on_chain_end({}, run_id=run_id)

        atexit.register(say, uuid.UUID(int=1))  # after the connection was closed: that opens another
        import sidelight
        handler, last = sidelight.SidelightCallbackHandler(), Last()
        last.id = uuid.UUID(int=2)
        last.say = lambda run_id, handler=handler: handler.on_chain_start(None, {}, run_id=run_id, name="x")
        codecs.register(lambda name, last=last: None)  # kept longer than any module
    """
    with Recorder(tmp_path / "s.sock") as recorder:
        environment = {**os.environ, "SIDELIGHT_SOCKET": str(tmp_path / "s.sock")}
        subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
        assert only_runs(recorder.wait(lambda messages: "EOF" in messages[-1:]))[0][1] == bytes(15) + b"\x01"
