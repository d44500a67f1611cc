"""The real anthropic client over real HTTP: what the wrapper reports, and that nothing else changes."""

import asyncio
import contextlib
import gc

import anthropic
import pytest
from seen import Seen

import sidelight
import sidelight.anthropic_client

HELLO = "Hello! Ask me about the weather or a date."
TOOL = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}


@pytest.fixture(autouse=True)
def installed(recorder):
    sidelight.anthropic_client.install()
    sidelight.anthropic_client.install()


@pytest.fixture
def client(apis):
    with anthropic.Anthropic(base_url=apis.root_url, api_key="scripted", max_retries=0) as client:
        yield client


def asked(text="hello"):
    messages = [{"role": "user", "content": text}]
    return {"model": "claude", "max_tokens": 99, "system": "Be brief.", "messages": messages}


def text_of(events):
    deltas = (e.delta for e in events if e.type == "content_block_delta")
    return "".join(d.text for d in deltas if d.type == "text_delta")


def create(client):
    return client.messages.create(**asked()).content[0].text


def stream(client):
    return text_of(client.messages.create(**asked(), stream=True))


def helper(client):
    with client.messages.stream(**asked()) as events:
        return "".join(events.text_stream)


def helper_final(client):
    with client.messages.stream(**asked()) as events:
        return events.get_final_text()


def raw(client):
    return client.messages.with_raw_response.create(**asked()).parse().content[0].text


def raw_stream(client):
    return text_of(client.messages.with_raw_response.create(**asked(), stream=True).parse())


def streaming_response(client):
    with client.messages.with_streaming_response.create(**asked()) as response:
        return response.parse().content[0].text


def beta(client):
    return client.beta.messages.create(**asked()).content[0].text


async def acreate(client):
    return (await client.messages.create(**asked())).content[0].text


async def astream(client):
    return text_of([e async for e in await client.messages.create(**asked(), stream=True)])


async def ahelper(client):
    async with client.messages.stream(**asked()) as events:
        return "".join([text async for text in events.text_stream])


async def araw(client):
    response = await client.messages.with_raw_response.create(**asked())
    parsed = response.parse()
    return (await parsed if hasattr(parsed, "__await__") else parsed).content[0].text


STREAMS = {"stream", "helper", "helper_final", "raw_stream", "astream", "ahelper"}


def assert_hello(run, streamed):
    assert (run.kind, run.name, run.model, run.provider) == ("llm", "anthropic.messages", "claude", "anthropic")
    assert run.input == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
    assert run.attrs == {"gen_ai.request.max_tokens": 99}
    assert run.text == HELLO and run.error is None
    assert {k: v for k, v in run.usage.items() if k != "input_tokens"} == {
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 640,
        "output_tokens": 51,
    }
    assert (run.end["model"], run.end["finish"]) == ("claude-2026-08-07", "end_turn")
    assert run.end["attrs"]["gen_ai.response.id"] == "msg_0001"
    assert run.events == (["first_token"] if streamed else [])
    assert run.chunks == (9 if streamed else None)


WAYS = [create, stream, helper, helper_final, raw, raw_stream, streaming_response, beta]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_every_way_to_call_is_one_run_that_says_the_same(recorder, client, way):
    assert way(client) == HELLO
    assert_hello(Seen(recorder).one(), way.__name__ in STREAMS)


@contextlib.asynccontextmanager
async def async_client(apis):
    async with anthropic.AsyncAnthropic(base_url=apis.root_url, api_key="scripted", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("way", [acreate, astream, ahelper, araw], ids=lambda way: way.__name__)
def test_every_async_way_too(recorder, apis, way):
    async def run():
        async with async_client(apis) as client:
            return await way(client)

    assert asyncio.run(run()) == HELLO
    assert_hello(Seen(recorder).one(), way.__name__ in STREAMS)


@pytest.mark.parametrize("streamed", [False, True])
def test_tool_calls(recorder, client, streamed):
    answer = client.messages.create(**asked("weather in Oslo"), tools=[TOOL], stream=streamed)
    if streamed:
        list(answer)
    run = Seen(recorder).one()
    (block,) = run.end["output"][0]["content"]
    assert (block["type"], block["name"], block["input"]) == ("tool_use", "weather", {"city": "Oslo"})
    assert run.end["finish"] == "tool_use"


def assert_cut(run, words, error):
    assert run.error == error
    assert run.text.split() == "The keeper lit the lamp at dusk,".split()[:words]
    usage = run.usage
    assert usage.pop("sidelight.estimated") is True
    assert usage.pop("output_tokens") == words
    assert usage.pop("input_tokens") > 0 and usage.pop("cache_read_input_tokens") == 640
    assert run.events == ["first_token"] and run.chunks == words


def test_a_connection_that_is_cut(recorder, client):
    with pytest.raises(Exception) as raised:
        list(client.messages.create(**asked("a story cut off"), stream=True))
    assert_cut(Seen(recorder).one(), 4, type(raised.value).__name__)


def read_words(texts, count):
    for text in texts:
        count -= bool(text)
        if not count:
            break


def words(events):
    return (e.delta.text if e.type == "content_block_delta" else "" for e in events)


@pytest.mark.parametrize("how", ["close", "with", "helper", "dropped"])
def test_a_stream_that_is_left(recorder, client, how):
    if how == "helper":
        with client.messages.stream(**asked("endless story")) as events:
            read_words(events.text_stream, 3)
    elif how == "with":
        with client.messages.create(**asked("endless story"), stream=True) as events:
            read_words(words(events), 3)
    else:
        events = client.messages.create(**asked("endless story"), stream=True)
        assert type(events) is anthropic.Stream
        read_words(words(events), 3)
        if how == "close":
            events.close()
        else:
            del events
            gc.collect()
    assert_cut(Seen(recorder).one(), 3, "GeneratorExit")


def test_a_stream_that_is_dropped_needs_no_collector(recorder, client):
    """The client lets go of a dropped stream's connection at once; so it does with us in it."""
    gc.disable()
    try:
        events = client.messages.create(**asked("endless story"), stream=True)
        read_words(words(events), 3)
        response = events.response
        del events
        closed = response.is_closed
    finally:
        gc.enable()
    assert closed
    del response
    assert_cut(Seen(recorder).one(), 3, "GeneratorExit")


def test_an_async_stream_that_is_cancelled(recorder, apis):
    async def run():
        begun = asyncio.Event()

        async def read(client):
            async with client.messages.stream(**asked("endless story")) as events:
                async for _ in events.text_stream:
                    begun.set()

        async with async_client(apis) as client:
            task = asyncio.ensure_future(read(client))
            await begun.wait()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    asyncio.run(run())
    run = Seen(recorder).one()
    assert run.error == "CancelledError" and run.text.startswith("The ")
    assert run.usage["output_tokens"] == run.chunks and run.usage["sidelight.estimated"] is True


@pytest.mark.parametrize("text, status", [("too long", 400), ("rush hour", 429), ("outage", 500)])
@pytest.mark.parametrize("way", ["create", "stream", "helper"])
def test_a_refusal_is_an_error_with_its_status(recorder, client, text, status, way):
    with pytest.raises(anthropic.APIStatusError) as raised:
        if way == "helper":
            with client.messages.stream(**asked(text)):
                pass
        else:
            client.messages.create(**asked(text), stream=way == "stream")
    run = Seen(recorder).one()
    assert run.error == type(raised.value).__name__
    assert run.end["attrs"]["http.response.status_code"] == status == raised.value.status_code


def test_a_run_is_around_its_calls(recorder, client):
    with sidelight.run("answer", kind="agent", session="s1"):
        client.messages.create(**asked(), metadata={"user_id": "u1"})
    seen = Seen(recorder)
    assert seen.tree() == [("answer",), ("answer", "anthropic.messages")]
    assert seen.of("llm")[0].user == "u1"


def test_fifty_calls_at_once_in_a_loop(recorder, apis):
    async def ask(client, i):
        with sidelight.run(str(i), kind="agent"):
            async with client.messages.stream(**asked(f"hello {i}")) as events:
                await events.until_done()

    async def run():
        async with async_client(apis) as client:
            await asyncio.gather(*(ask(client, i) for i in range(50)))

    asyncio.run(run())
    seen = Seen(recorder)
    requests = {run.id: run.name for run in seen.of("agent")}
    assert len(seen.of("llm")) == len(requests) == 50
    for call in seen.of("llm"):
        assert call.input[1]["content"] == f"hello {requests.pop(call.parent)}"
        assert call.text == HELLO and call.chunks == 9


@pytest.mark.parametrize(
    "name, provider",
    [("Anthropic", "anthropic"), ("AnthropicBedrock", "aws.bedrock"), ("AsyncAnthropicVertex", "gcp.vertex_ai")],
)
def test_the_provider_is_known_by_the_client_s_class(name, provider):
    assert sidelight.anthropic_client._provider(type(name, (), {})()) == provider
