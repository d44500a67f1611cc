"""Agents that are killed in the middle of an answer, and what is known of it then: the real daemon,
which may be killed as well."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from harness import arguments, clean_environment, daemon, eventually, sidelightd  # noqa: F401

# What a piece is late by that was told in time: a second, and what a busy machine takes.
LATE = 1.0 + 0.7

SAY = """
import asyncio, json, sys, time
import sidelight
url, root = sys.argv[1:]
asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": "an endless story"}]}

def say(piece):
    if piece:
        print(json.dumps([time.monotonic(), piece]), flush=True)

"""
AGENTS = {
    "langchain": """
from langchain_openai import ChatOpenAI
sidelight.install(only=["langchain"])
for chunk in ChatOpenAI(model="gpt-4o", base_url=url, api_key="x").stream("an endless story"):
    say(chunk.content)
""",
    "openai": """
import openai
sidelight.install(only=["openai"])
for chunk in openai.OpenAI(base_url=url, api_key="x").chat.completions.create(**asked, stream=True):
    say(chunk.choices[0].delta.content)
""",
    "responses": """
import openai
sidelight.install(only=["openai"])
client = openai.OpenAI(base_url=url, api_key="x")
for event in client.responses.create(model="gpt-4o", input="an endless story", stream=True):
    say(getattr(event, "delta", None))
""",
    "anthropic": """
import anthropic
sidelight.install(only=["anthropic"])
client = anthropic.Anthropic(base_url=root, api_key="x")
with client.messages.stream(**asked, max_tokens=9) as stream:
    for piece in stream.text_stream:
        say(piece)
""",
    "agents": """
import agents, openai
from agents.models.openai_chatcompletions import OpenAIChatCompletionsModel
agents.tracing.set_trace_processors([])
sidelight.install(only=["openai", "openai_agents"])
model = OpenAIChatCompletionsModel("gpt-4o", openai.AsyncOpenAI(base_url=url, api_key="x"))

async def main():
    async for event in agents.Runner.run_streamed(agents.Agent("a", model=model), "an endless story").stream_events():
        if event.type == "raw_response_event":
            say(getattr(event.data, "delta", None))

asyncio.run(main())
""",
    "decorator": """
import openai
@sidelight.llm
def story():
    for chunk in openai.OpenAI(base_url=url, api_key="x").chat.completions.create(**asked, stream=True):
        if chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content
for piece in story():
    say(piece)
""",
}


class Teller:
    """A process that hears an endless story, and says when it heard which piece."""

    def __init__(self, kind, apis, running):
        env = {**clean_environment(), "SIDELIGHT_SOCKET": running.socket, "LANGSMITH_TRACING": "false"}
        command = [sys.executable, "-c", SAY + AGENTS[kind], apis.base_url, apis.root_url]
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE)
        self.heard = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            if line.endswith(b"\n"):
                self.heard.append(json.loads(line))

    def kill(self):
        """Returns what it had heard then, and what it had heard some time before."""
        self.process.send_signal(signal.SIGKILL)
        at = time.monotonic()
        assert self.process.wait(20) == -signal.SIGKILL
        self._reader.join()
        early = [piece for when, piece in self.heard if when < at - LATE]
        return "".join(piece for _, piece in self.heard), "".join(early)

    def pieces_of(self, text):
        count = 0
        while text and count < len(self.heard):
            text = text[len(self.heard[count][1]) :]
            count += 1
        return count + bool(text)


@pytest.fixture
def tellers():
    running = []
    yield lambda *args: running.append(Teller(*args)) or running[-1]
    for one in running:
        if one.process.poll() is None:
            one.kill()


def ended(running):
    return eventually(lambda: [s for s in running.spans() if s["kind"] == "llm" and s["end_time"]], 30)


def output(span):
    attributes = span["attributes"]
    if "sidelight.output" in attributes:
        return attributes["sidelight.output"]
    ((message),) = json.loads(attributes["gen_ai.output.messages"])
    assert message["role"] == "assistant"
    return "".join(part["content"] for part in message["parts"])


def is_what_was_heard(said, heard):
    """A piece is told before the agent gets it, so there may be one more."""
    more = said[len(heard) :]
    return len(more) < 20 and (heard + more).startswith(said)


@pytest.mark.parametrize("kind", AGENTS)
def test_a_killed_agent_has_said_what_it_heard(daemon, apis, tellers, kind):  # noqa: F811
    running = daemon()
    teller = tellers(kind, apis, running)
    eventually(lambda: teller.heard and teller.heard[-1][0] - teller.heard[0][0] > 2.5, 60)
    heard, early = teller.kill()
    (span,) = ended(running)
    said, attributes = output(span), span["attributes"]
    assert is_what_was_heard(said, heard)
    assert len(said) >= len(early) > 100
    assert attributes["sidelight.partial_output"] is True
    assert span["status"]["code"] == "error"
    assert attributes["error.type"] == "process_lost" and attributes["sidelight.evidence"]
    assert 0 < attributes["gen_ai.response.time_to_first_chunk"] < 20
    assert [event["name"] for event in span["events"]] == ["first_token"]
    if kind == "decorator":
        return
    assert attributes["sidelight.usage.estimated"] is True
    pieces = teller.pieces_of(said)  # the wrapped clients' chunks are tokens, more or less
    tokens = len(said) / 4 if kind == "langchain" else pieces
    assert abs(attributes["gen_ai.usage.output_tokens"] - tokens) <= 2
    (observation,) = running.observations()
    assert observation["tokens_estimated"] is True
    if kind != "agents":
        assert observation["agent_response"] == said


@pytest.mark.parametrize("kind", ["langchain", "openai"])
def test_the_daemon_is_killed_as_well(daemon, apis, tellers, kind):  # noqa: F811
    running = daemon()
    teller = tellers(kind, apis, running)
    eventually(lambda: teller.heard and teller.heard[-1][0] - teller.heard[0][0] > 2, 60)
    running.kill()
    before = "".join(piece for when, piece in list(teller.heard) if when < time.monotonic() - LATE)
    running = daemon()
    time.sleep(2.5)  # for the client to find it, and to tell more
    heard, _ = teller.kill()
    (span,) = ended(running)
    said = output(span)
    assert is_what_was_heard(said, heard) and len(said) >= len(before) > 50
    assert span["attributes"]["sidelight.usage.estimated"] is True
    # Of what was on its way to the first daemon nothing is known: then the text ends there, and says so.
    if len(said) < len(before) + 100:
        assert span["attributes"]["sidelight.cut.output"] > len(said)


def test_an_answer_that_is_complete_is_shown_alone(daemon, apis, tellers):  # noqa: F811
    running = daemon()
    code = SAY + AGENTS["openai"].replace("**asked,", "**asked, max_tokens=1,")
    env = {**clean_environment(), "SIDELIGHT_SOCKET": running.socket}
    code = code.replace("endless", "slow").replace("say(chunk", "time.sleep(0.02) or say(chunk")
    command = [sys.executable, "-c", code, apis.base_url, apis.root_url]
    said = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True).stdout
    heard = [json.loads(line) for line in said.splitlines()]
    assert heard[-1][0] - heard[0][0] > 0.3  # it was told of in between
    (span,) = ended(running)
    assert output(span) == "".join(piece for _, piece in heard)
    assert not {"sidelight.partial_output", "sidelight.usage.estimated"} & span["attributes"].keys()
    assert span["status"]["code"] == "ok"
    metrics = running.metrics()
    assert metrics("sidelight_frames_received_total") >= 5  # hello, start, first token, partial, end
    assert metrics("sidelight_events_dropped_total") == 0
