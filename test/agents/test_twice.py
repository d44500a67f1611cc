"""Two instrumentations of one call: LangChain's handler and a client's wrapper, both installed."""

import asyncio
import gc
import sys

import openai
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from majors import create_agent
from seen import Seen

import sidelight
import sidelight.anthropic_client
import sidelight.openai_client
from sidelight import SidelightCallbackHandler

BOTH = "weather in Oslo and days until 2027-01-01"


@pytest.fixture(autouse=True)
def installed(recorder):
    sidelight.openai_client.install()
    sidelight.anthropic_client.install()


def config():
    return {"callbacks": [SidelightCallbackHandler()]}


def models(apis):
    options = {"api_key": "scripted", "max_retries": 0}
    return {
        "chat": ChatOpenAI(model="gpt-4o", base_url=apis.base_url, stream_usage=True, **options),
        "responses": ChatOpenAI(model="gpt-4o", base_url=apis.base_url, use_responses_api=True, **options),
        "completions": OpenAI(model="old", base_url=apis.base_url, **options),
        "anthropic": ChatAnthropic(model="claude", base_url=apis.root_url, **options),
    }


def invoke(model, text):
    model.invoke(text, config())


def stream(model, text):
    assert list(model.stream(text, config()))


def ainvoke(model, text):
    asyncio.run(model.ainvoke(text, config()))


def astream(model, text):
    async def drain():
        assert [c async for c in model.astream(text, config())]

    asyncio.run(drain())


def batch(model, text):
    model.batch([text] * 3, config())


@pytest.mark.parametrize("name", ["chat", "responses", "completions", "anthropic"])
@pytest.mark.parametrize("way", [invoke, stream, ainvoke, astream, batch], ids=lambda way: way.__name__)
def test_a_model_s_call_is_told_by_langchain_alone(recorder, apis, name, way):
    way(models(apis)[name], "hello")
    seen = Seen(recorder)
    assert len(seen.runs) == (3 if way is batch else 1)
    assert {run.name for run in seen.runs} <= {"ChatOpenAI", "ChatAnthropic", "OpenAI"}


@pytest.mark.parametrize("name", ["chat", "responses", "anthropic"])
def test_without_a_handler_the_wrapper_tells(recorder, apis, name):
    models(apis)[name].invoke("hello")
    run = Seen(recorder).one()
    assert run.name in ("openai.chat.completions", "openai.responses", "anthropic.messages")
    assert run.usage


def tools(apis):
    @tool
    def weather(city: str) -> str:
        """The weather in a city."""
        client = openai.OpenAI(base_url=apis.base_url, api_key="x")
        messages = [{"role": "user", "content": "hello"}]
        return client.chat.completions.create(model="small", messages=messages).choices[0].message.content

    @tool
    def days_until(date: str) -> str:
        """The days until a date."""
        return "39"

    return [weather, days_until]


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream"])
def test_a_tool_that_calls_a_model_by_itself(recorder, apis, way):
    graph = create_agent(models(apis)["chat"], tools(apis))
    asked = {"messages": [("user", BOTH)]}
    if way == "invoke":
        graph.invoke(asked, config())
    elif way == "ainvoke":
        asyncio.run(graph.ainvoke(asked, config()))
    else:
        list(graph.stream(asked, config(), stream_mode="messages"))
    seen = Seen(recorder)
    assert [seen.path(run) for run in seen.of("llm")].count(
        ("LangGraph", "tools", "weather", "openai.chat.completions")
    ) == 1
    assert len(seen.of("llm")) == 3
    assert sum(bool(run.usage) for run in seen.runs) == 3


class Wrapped(BaseChatModel):
    """A model of the user's own that asks another service, as people write them: with no async way."""

    url: str

    @property
    def _llm_type(self):
        return "wrapped"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        client = openai.OpenAI(base_url=self.url, api_key="x")
        asked = [{"role": "user", "content": m.content} for m in messages]
        text = client.chat.completions.create(model="gpt-4o", messages=asked).choices[0].message.content
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content=text))])


@pytest.mark.parametrize("way", [invoke, ainvoke], ids=lambda way: way.__name__)
def test_a_model_of_one_s_own_in_another_thread(recorder, apis, way):
    way(Wrapped(url=apis.base_url), "hello")
    assert Seen(recorder).one().name == "Wrapped"


def test_embeddings_have_no_callbacks_so_the_wrapper_tells(recorder, apis):
    embeddings = OpenAIEmbeddings(
        model="embed", base_url=apis.base_url, api_key="x", check_embedding_ctx_length=False
    )
    embeddings.embed_query("hello")
    assert Seen(recorder).one().kind == "embedding"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout() is of Python 3.11")
def test_after_a_cancelled_model_a_plain_call_is_told(recorder, apis):
    """LangChain tells no end of it: nothing of that may be left around the next call."""

    async def run():
        with pytest.raises(asyncio.TimeoutError):
            async with asyncio.timeout(0.2):
                await models(apis)["chat"].ainvoke("forever", config())
        async with openai.AsyncOpenAI(base_url=apis.base_url, api_key="x") as client:
            messages = [{"role": "user", "content": "hello"}]
            await client.chat.completions.create(model="gpt-4o", messages=messages)

    asyncio.run(run())
    gc.collect()
    assert sidelight.flush(5)
    names = [m[4]["name"] for m in recorder.messages if m != "EOF" and m[0] == 1]
    assert names == ["ChatOpenAI", "openai.chat.completions"]
