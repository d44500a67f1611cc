"""Answers that come in pieces, and what is kept of those that are cut off."""

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
import uuid

import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGenerationChunk
from scripted_openai import STORY, Handler, ScriptedOpenAI
from test_langchain import BOTH, Seen, agent, asked, config, model

from sidelight import SidelightCallbackHandler, _streams


class Breaks(Handler):
    """Hangs up in the middle of a streamed answer, after eight pieces."""

    def event(self, value):
        super().event(value)
        self.told = getattr(self, "told", 0) + 1
        if self.told == 8:
            # A reset: an end would look like that of the answer.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
            raise ConnectionResetError


class Holds(Handler):
    """Stops in the middle of a streamed answer, after eight pieces, until its client leaves."""

    def event(self, value):
        super().event(value)
        self.told = getattr(self, "told", 0) + 1
        if self.told == 8:
            self.server.script.hold(self.connection)
            raise ConnectionResetError


@pytest.fixture
def server(request):
    with ScriptedOpenAI(delay=0.001, final_delay=0.001) as server:
        server.RequestHandlerClass = request.param
        yield server


breaks = pytest.mark.parametrize("server", [Breaks], indirect=True)
holds = pytest.mark.parametrize("server", [Holds], indirect=True)
SAID = " ".join(STORY.split()[:7]) + " "  # the first of the eight pieces is the role


def assert_cut(end, error):
    assert end["error"]["type"] == error
    assert end["output"] == [{"role": "assistant", "content": SAID}]
    assert end["usage"] == {"output_tokens": -(-len(SAID) // 4), "sidelight.estimated": True}
    assert end["attrs"]["sidelight.chunks"] == 8


async def collect(items, taken):
    """Takes eight pieces, says so, and waits for one more until it is cancelled."""
    count = 0
    async for _ in items:
        count += 1
        if count == 8:
            taken.set()


async def cancel_after_eight(items):
    taken = asyncio.Event()
    task = asyncio.ensure_future(collect(items, taken))
    await taken.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@breaks
def test_a_model_s_broken_stream(recorder, server):
    with pytest.raises(Exception, match="."):
        list(model(server).stream("tell a story", config()))
    seen = Seen(recorder)
    end = seen.one("llm")[1]
    assert_cut(end, end["error"]["type"])
    assert len(seen.events) == 1


@breaks
def test_an_agent_s_broken_stream(recorder, server):
    """LangChain's own report of that has no text."""
    with pytest.raises(Exception, match="."):
        list(agent(server).stream(asked("tell a story"), config(), stream_mode="messages"))
    seen = Seen(recorder)
    end = seen.one("llm")[1]
    assert_cut(end, end["error"]["type"])
    assert seen.one("agent")[1]["error"]["type"] == end["error"]["type"]


@holds
def test_a_model_s_cancelled_stream(recorder, server):
    asyncio.run(cancel_after_eight(model(server).astream("tell a story", config())))
    assert_cut(Seen(recorder).one("llm")[1], "CancelledError")


@holds
def test_an_agent_s_cancelled_stream(recorder, server):
    """LangChain never says that the model's run ended; what it had said is told before its node ends."""
    stream = agent(server).astream(asked("tell a story"), config(), stream_mode="messages")
    asyncio.run(cancel_after_eight(stream))
    seen = Seen(recorder)
    (llm,) = seen.of("llm")
    assert_cut(seen.ends[llm], "CancelledError")
    assert set(seen.ends) == set(seen.starts)
    ended = [m[1] for m in seen.messages if m[0] == 2]
    assert ended.index(llm) < ended.index(seen.starts[llm]["parent"])


@holds
def test_an_agent_s_stream_that_is_left(recorder, server):
    async def leave():
        stream = agent(server).astream(asked("tell a story"), config(), stream_mode="messages")
        for _ in range(8):
            await anext(stream)
        await stream.aclose()

    asyncio.run(leave())
    seen = Seen(recorder)
    end = seen.one("llm")[1]
    assert_cut(end, end["error"]["type"])
    assert end["error"]["type"] in ("CancelledError", "GeneratorExit")


def test_a_stream_without_usage_has_none(recorder, model_server):
    """langchain-openai asks for it by itself only at OpenAI's own address; what is unknown is no 0."""
    list(model(model_server).stream("tell a story", config()))
    list(agent(model_server).stream(asked(BOTH), config(), stream_mode="messages"))
    seen = Seen(recorder)
    for run in seen.of("llm"):
        assert "usage" not in seen.ends[run]
        assert seen.ends[run]["attrs"]["sidelight.chunks"] > 5
    assert len(seen.events) == 3


# The handler alone


def token(handler, run_id, text, **more):
    handler.on_llm_new_token(text, run_id=run_id, **more)


def begun(handler, parent=None):
    run_id = uuid.uuid4()
    handler.on_chat_model_start({}, [[HumanMessage("hi")]], run_id=run_id, parent_run_id=parent)
    return run_id


def test_the_calls_of_tools_count_as_tokens(recorder):
    handler = SidelightCallbackHandler()
    run_id = begun(handler)
    for args in ('{"city"', ': "Oslo"}'):
        call = {"name": "weather", "args": args, "id": "c", "index": 0, "type": "tool_call_chunk"}
        chunk = ChatGenerationChunk(message=AIMessageChunk("", tool_call_chunks=[call]))
        token(handler, run_id, "", chunk=chunk)
    handler.on_llm_error(ConnectionError("cut"), run_id=run_id)
    end = Seen(recorder).ends[run_id.bytes]
    assert "output" not in end
    assert end["usage"] == {"output_tokens": 8, "sidelight.estimated": True}


def test_an_empty_stream_has_no_estimate(recorder):
    handler = SidelightCallbackHandler()
    run_id = begun(handler)
    token(handler, run_id, "")
    handler.on_llm_error(ConnectionError("cut"), run_id=run_id)
    end = Seen(recorder).ends[run_id.bytes]
    assert "output" not in end and "usage" not in end
    assert end["attrs"] == {"sidelight.chunks": 1}


@pytest.mark.parametrize("piece", ["word ", "wörter "])
def test_a_long_answer_is_kept_up_to_a_limit_and_its_length_told(recorder, piece):
    handler = SidelightCallbackHandler()
    run_id = begun(handler)
    count = 20_000
    for _ in range(count):
        token(handler, run_id, piece)
    handler.on_llm_error(ConnectionError("cut"), run_id=run_id)
    end = Seen(recorder).ends[run_id.bytes]
    kept = end["output"][0]["content"]
    size = len(piece.encode())
    assert kept == piece * (_streams.MAX_ANSWER // size)
    assert end["attrs"]["sidelight.cut"] == {"output": count * size}
    assert end["usage"]["output_tokens"] == count * len(piece) / 4


def test_a_cancelled_parent_ends_only_its_own_streams(recorder):
    handler = SidelightCallbackHandler()
    parent, failed = uuid.uuid4(), uuid.uuid4()
    mine, theirs, silent = begun(handler, parent), begun(handler, failed), begun(handler, parent)
    for run_id in (mine, theirs):
        token(handler, run_id, "hello")
    handler.on_chain_error(ValueError("no reason to stop the others"), run_id=failed)
    handler.on_chain_error(asyncio.CancelledError(), run_id=parent)
    token(handler, mine, "too late")
    handler.on_llm_error(asyncio.CancelledError(), run_id=mine)
    seen = Seen(recorder)  # asserts that no run ends twice
    assert seen.ends[mine.bytes]["output"] == [{"role": "assistant", "content": "hello"}]
    assert not {theirs.bytes, silent.bytes} & set(seen.ends)


def test_as_many_answers_are_kept_as_may_be(recorder):
    handler = SidelightCallbackHandler()
    before = len(_streams._open)
    runs = [begun(handler) for _ in range(_streams.MAX_STREAMS + 50)]
    for run_id in runs:
        token(handler, run_id, "hello")
    assert len(_streams._open) == _streams.MAX_STREAMS
    for run_id in runs:
        handler.on_llm_error(ConnectionError("cut"), run_id=run_id)
    assert len(_streams._open) <= before
    ends = Seen(recorder).ends
    assert sum("output" in ends[run_id.bytes] for run_id in runs) == _streams.MAX_STREAMS
    assert all(ends[run_id.bytes]["usage"]["output_tokens"] == 2 for run_id in runs)


MEMORY = """
import os, resource, sys
import sidelight.langchain
from langchain_core.callbacks import CallbackManager
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from sidelight import SidelightCallbackHandler, _streams

def work(count):
    for n in range(count):
        (run,) = manager.on_chat_model_start({"name": "m"}, [[HumanMessage("x" * 100)]])
        if n % 10 == 3:
            for _ in range(5):
                run.on_llm_new_token("z" * 1000)
        if n % 10 != 7 and n % 100 != 33:
            run.on_llm_end(result)

def memory():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

sidelight.configure(buffer=1 << 20)
manager = CallbackManager.configure(inheritable_callbacks=[SidelightCallbackHandler()])
result = LLMResult(generations=[[ChatGeneration(message=AIMessage("y" * 100))]])
work(200_000)  # until as many never ended as are remembered
before = memory()
work(100_000)
print((memory() - before) / (1 << 20))
assert len(sidelight.langchain._runs) <= sidelight.langchain.MAX_RUNS
assert len(_streams._open) <= _streams.MAX_STREAMS
"""

DRAIN = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
connection, _ = listener.accept()
while connection.recv(1 << 20): pass
"""


@pytest.mark.parametrize("there", [True, False], ids=["connected", "alone"])
def test_memory_is_flat_over_many_runs_of_which_a_tenth_never_ends(tmp_path, there):
    """As LangChain's own manager calls it. A tenth is streamed, and a tenth of that never ends."""
    path = str(tmp_path / "s.sock")
    reader = subprocess.Popen([sys.executable, "-c", DRAIN, path]) if there else None
    while there and not os.path.exists(path):
        assert reader.poll() is None
    env = {**os.environ, "SIDELIGHT_SOCKET": path}
    done = subprocess.run([sys.executable, "-c", MEMORY], env=env, capture_output=True, text=True, timeout=110)
    if there:
        assert reader.wait(10) == 0
    assert (done.returncode, done.stderr) == (0, "")
    print(f"{done.stdout.strip()} MiB more after 100000 runs")
    assert float(done.stdout) < 4
