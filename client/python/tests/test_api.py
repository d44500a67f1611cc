"""Runs and events as an agent's own code reports them."""

import asyncio
import os
import subprocess
import sys
import threading
import time

import pytest
from recorder import Recorder, only_runs

import sidelight
from sidelight import _transport


def starts(messages):
    return {m[4]["name"]: m for m in messages if m[0] == 1}


def test_a_run_is_a_start_and_an_end(collector):
    with sidelight.run(
        "chat", kind="llm", model="m", provider="p", input="hi", session="s", user="u", tags=["t"], extra=1
    ) as run:
        run.event("first_token", index=0)
        run.set(output="ho", finish="stop", answer=42)
        run.usage = {"input_tokens": 3}
    start, event, end = collector.wait_for_count(3)
    assert start[4] == {
        "kind": "llm",
        "name": "chat",
        "session": "s",
        "user": "u",
        "model": "m",
        "provider": "p",
        "input": "hi",
        "tags": ["t"],
        "attrs": {"extra": 1},
    }
    assert event[4:] == ["first_token", {"index": 0}]
    assert end[4] == {
        "output": "ho",
        "usage": {"input_tokens": 3},
        "finish": "stop",
        "attrs": {"answer": 42},
    }
    assert start[1] == event[1] == end[1] == run.id
    assert len(run.id) == 16
    assert abs(start[2] - time.time_ns()) < 60e9
    assert start[3] <= event[3] <= end[3] <= time.monotonic_ns()


def test_hello_comes_first(collector, monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "chat-api")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "a=1,b=x%20y,broken,service.name=other")
    with sidelight.run("x"):
        pass
    hello = collector.wait(lambda all: len(all) >= 3)[0]
    assert hello == [
        0,
        {
            "v": 1,
            "service": "chat-api",
            "resource": {"a": "1", "b": "x y"},
            "sdk": f"python/{sidelight.__version__}",
            "pid": os.getpid(),
        },
    ]


def test_configure_while_connected_says_hello_again(collector, monkeypatch):
    with sidelight.run("x"):
        pass
    sidelight.configure(service="late", resource={"team": "blue"})
    hellos = [m[1] for m in collector.wait(lambda all: sum(m[0] == 0 for m in all) == 2) if m[0] == 0]
    assert "service" not in hellos[0]
    assert (hellos[1]["service"], hellos[1]["resource"]) == ("late", {"team": "blue"})


def test_runs_nest(collector):
    with sidelight.run("outer") as outer:
        sidelight.event("note", text="in outer")
        with sidelight.run("inner") as inner:
            sidelight.event("note", text="in inner")
        with sidelight.run("sibling"):
            pass
    with sidelight.run("after"):
        pass
    sidelight.event("nowhere")
    messages = collector.wait_for_count(10)
    by_name = starts(messages)
    assert "parent" not in by_name["outer"][4]
    assert by_name["inner"][4]["parent"] == outer.id
    assert by_name["sibling"][4]["parent"] == outer.id
    assert "parent" not in by_name["after"][4]
    assert [(m[1], m[5]["text"]) for m in messages if m[0] == 3] == [
        (outer.id, "in outer"),
        (inner.id, "in inner"),
    ]


def test_a_parent_that_is_given(collector):
    run = sidelight.run("parent")
    with run, sidelight.run("around"), sidelight.run("child", parent=run):
        pass
    by_name = starts(collector.wait_for_count(6))
    assert by_name["child"][4]["parent"] == run.id


def test_runs_of_tasks_do_not_mix(collector):
    async def one(name):
        with sidelight.run(name):
            await asyncio.sleep(0.01)
            with sidelight.run(name + ".child"):
                await asyncio.sleep(0.01)

    async def all_():
        with sidelight.run("root"):
            await asyncio.gather(*(one(f"task{i}") for i in range(5)))

    asyncio.run(all_())
    by_name = starts(collector.wait_for_count(22))
    for i in range(5):
        assert by_name[f"task{i}"][4]["parent"] == by_name["root"][1]
        assert by_name[f"task{i}.child"][4]["parent"] == by_name[f"task{i}"][1]


def test_an_exception_is_recorded_and_goes_on(collector):
    with pytest.raises(KeyError):
        with sidelight.run("bad"):
            raise KeyError("lost")
    error = collector.wait_for_count(2)[1][4]["error"]
    assert error["type"] == "KeyError"
    assert error["message"] == "'lost'"
    assert 'raise KeyError("lost")' in error["stack"]


@pytest.mark.parametrize(
    "raised, recorded",
    [
        (SystemExit(0), None),
        (SystemExit(3), "SystemExit"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (asyncio.CancelledError(), "CancelledError"),
    ],
)
def test_endings_that_are_no_errors_of_the_code(collector, raised, recorded):
    with pytest.raises(type(raised)):
        with sidelight.run("x"):
            raise raised
    assert collector.wait_for_count(2)[1][4].get("error", {}).get("type") == recorded


def test_an_exception_that_cannot_be_printed(collector):
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no")

    with pytest.raises(Mute):
        with sidelight.run("x"):
            raise Mute()
    assert collector.wait_for_count(2)[1][4]["error"]["message"] == "<Mute>"


def test_an_endless_recursion_has_a_bounded_stack(collector):
    def recurse():
        recurse()

    with pytest.raises(RecursionError):
        with sidelight.run("x"):
            recurse()
    assert len(collector.wait_for_count(2)[1][4]["error"]["stack"]) <= 16 * 1024


@pytest.mark.parametrize(
    "error, recorded",
    [
        ("no answer", {"type": "Error", "message": "no answer"}),
        ({"type": "Timeout", "message": 5}, {"type": "Timeout", "message": "5"}),
    ],
)
def test_an_error_that_is_set(collector, error, recorded):
    with sidelight.run("x") as run:
        run.error = error
    assert collector.wait_for_count(2)[1][4]["error"] == recorded


def test_a_run_that_is_misused_raises_nothing(collector):
    run = sidelight.run("x")
    run.__exit__(None, None, None)
    with run, run:
        pass
    with run:
        pass
    with sidelight.run(None, kind=5, tags=7, session={"a": 1}) as odd:
        odd.set(usage="many", error=3, output=object())
    sidelight.event(None)
    sidelight.configure(resource=5)
    assert sidelight.flush("soon") is False
    assert [m[0] for m in collector.wait_for_count(4)] == [1, 2, 1, 2]
    assert "parent" not in collector.wait_for_count(4)[2][4]


def test_a_traceparent_is_passed_on(collector):
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with sidelight.run("x", traceparent=traceparent):
        pass
    assert collector.wait_for_count(2)[0][4]["traceparent"] == traceparent


def test_a_generator_closed_in_another_context(collector):
    def generate():
        with sidelight.run("generator"):
            yield 1

    generator = generate()
    next(generator)
    thread = threading.Thread(target=generator.close)
    thread.start()
    thread.join()
    assert collector.wait_for_count(2)[1][4]["error"]["type"] == "GeneratorExit"
    with sidelight.run("no child of the generator"):
        pass
    assert "parent" not in collector.wait_for_count(4)[2][4]


def test_nothing_heavy_is_imported():
    code = (
        "import sys; before = set(sys.modules); import sidelight;"
        "print(*(set(sys.modules) - before))"
    )
    out = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout
    loaded = set(out.decode().split())
    heavy = {"langchain_core", "asyncio", "socket", "logging"}
    if _transport.Lane is not None:  # else it is what sends
        heavy.add("ctypes")
    assert loaded.isdisjoint(heavy)


def test_the_package_knows_its_names():
    assert set(sidelight.__all__) <= set(dir(sidelight)) | {"SidelightCallbackHandler"}
    with pytest.raises(AttributeError):
        sidelight.nothing


def test_an_agent_without_a_collector_prints_nothing(tmp_path):
    code = """
import sidelight
with sidelight.run("x", input=object()) as run:
    run.output = {1: {2}}
sidelight.event("x")
"""
    env = {**os.environ, "SIDELIGHT_SOCKET": str(tmp_path / "none.sock")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_process_that_ends_says_bye(tmp_path):
    code = """
import sidelight
with sidelight.run("x"): pass
"""
    with Recorder(tmp_path / "s.sock") as recorder:
        env = {**os.environ, "SIDELIGHT_SOCKET": recorder.path}
        subprocess.run([sys.executable, "-c", code], env=env, check=True)
        messages = recorder.wait(lambda all: "EOF" in all)
    assert [m if m == "EOF" else m[0] for m in messages] == [0, 1, 2, 7, "EOF"]


def test_what_was_sent_before_a_kill_arrives(tmp_path):
    code = """
import os, signal, sidelight
run = sidelight.run("x", input="?").__enter__()
os.kill(os.getpid(), signal.SIGKILL)
"""
    with Recorder(tmp_path / "s.sock") as recorder:
        env = {**os.environ, "SIDELIGHT_SOCKET": recorder.path}
        subprocess.run([sys.executable, "-c", code], env=env)
        messages = recorder.wait(lambda all: "EOF" in all)
    assert len(only_runs(messages)) == 1
    assert [7, {}] not in messages


def test_every_keyword_may_be_an_attribute(collector):
    with sidelight.run("x", name="y") as run:
        run.set(self=1)
        run.event("e", self=2, name="z")
        sidelight.event("e", name="w")
    start, one, two, end = collector.wait_for_count(4)
    assert (start[4]["name"], start[4]["attrs"]) == ("x", {"name": "y"})
    assert (one[5], two[5]) == ({"self": 2, "name": "z"}, {"name": "w"})
    assert end[4]["attrs"] == {"self": 1}
