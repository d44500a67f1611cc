"""The scripted service, seen through OpenAI's own client: the scenes that other tests build on."""

import threading
import time

import openai
import pytest

from scripted_openai import ScriptedOpenAI

TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("weather", "days_until")
]
BOTH = "What is the weather in Oslo, and how many days until 2027-01-01?"


@pytest.fixture
def server():
    with ScriptedOpenAI(delay=0.01, final_delay=0.01) as server:
        yield server


def client(server, **options):
    return openai.OpenAI(base_url=server.base_url, api_key="scripted", **options)


def complete(server, text, **options):
    messages = [{"role": "user", "content": text}]
    retries = options.pop("max_retries", 0)
    completions = client(server, max_retries=retries).chat.completions
    return completions.create(model="gpt-4o", messages=messages, **options)


def test_two_tools_are_asked_for_at_once_and_their_results_answered(server):
    first = complete(server, BOTH, tools=TOOLS).choices[0]
    calls = first.message.tool_calls
    assert first.finish_reason == "tool_calls"
    assert [c.function.name for c in calls] == ["weather", "days_until"]
    results = [{"role": "tool", "tool_call_id": c.id, "content": f"result {i}"} for i, c in enumerate(calls)]
    messages = [{"role": "user", "content": BOTH}, first.message, *results]
    second = client(server).chat.completions.create(model="gpt-4o", messages=messages, tools=TOOLS)
    assert second.choices[0].message.content == "result 0 result 1"


def test_usage_is_inclusive_and_the_model_is_a_snapshot(server):
    answer = complete(server, "hello")
    assert answer.model == "gpt-4o-2026-08-07"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens > answer.usage.prompt_tokens_details.cached_tokens == 640
    assert answer.usage.completion_tokens > answer.usage.completion_tokens_details.reasoning_tokens == 32


def test_the_same_question_gives_the_same_answer(server):
    assert complete(server, BOTH, tools=TOOLS) == complete(server, BOTH, tools=TOOLS)


def test_a_stream_carries_the_plain_answer_and_its_usage_when_asked(server):
    plain = complete(server, "Tell me a story.")
    chunks = list(complete(server, "Tell me a story.", stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == plain.choices[0].message.content
    assert chunks[-1].usage == plain.usage
    assert all(c.usage is None for c in complete(server, "Tell me a story.", stream=True))


def test_rush_hour_refuses_once_and_then_answers(server):
    with pytest.raises(openai.RateLimitError):
        complete(server, "rush hour")
    assert complete(server, "rush hour").choices
    assert complete(server, "rush hour", max_retries=1).choices
    assert server.script.requests == 4


@pytest.mark.parametrize("text, status", [("outage", 500), ("too long", 400)])
def test_what_fails_for_good_fails_on_each_try(server, text, status):
    for _ in range(2):
        with pytest.raises(openai.APIStatusError) as raised:
            complete(server, text)
        assert raised.value.status_code == status


def test_a_held_request_is_counted_until_its_client_leaves(server):
    def ask():
        with pytest.raises(openai.APITimeoutError):
            client(server, max_retries=0, timeout=1).chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": "think forever"}]
            )

    asking = threading.Thread(target=ask)
    asking.start()
    assert becomes(lambda: server.script.hanging, 1)
    asking.join()
    assert becomes(lambda: server.script.hanging, 0)


def becomes(value, wanted, seconds=5):
    deadline = time.monotonic() + seconds
    while value() != wanted and time.monotonic() < deadline:
        time.sleep(0.01)
    return value() == wanted
