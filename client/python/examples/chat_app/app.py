"""A chat service: FastAPI and a LangChain agent with two tools. What it tells of itself it gets
from Sidelight: metrics, history and exporters are the collector's, none of them is in here.

    OPENAI_API_KEY=… uvicorn app:app

    POST /api/chat   {"message": …, "session_id": …}: {answer, trace_id, spans, token_usage, tool_calls}
    PUT  /api/model  {"model": …}: who answers from now on
"""

import asyncio
import datetime
import functools
import os
import time
from typing import Any, Optional

import sidelight

sidelight.configure(service="chat-app")
sidelight.install()

from fastapi import FastAPI, Response  # noqa: E402
from langchain.agents import create_agent  # noqa: E402
from langchain_core.tools import tool  # noqa: E402
from langchain_openai import ChatOpenAI  # noqa: E402
from pydantic import BaseModel, Field  # noqa: E402

PROMPT: dict[str, Any] = {"prompt.key": "travel", "prompt.version": "3", "policy_mode": "strict"}
SYSTEM = "You are a travel assistant. Use the tools, and answer briefly."
FORBIDDEN = ("password", "credit card")
SHOWN = ("name", "kind", "trace_id", "span_id", "parent_span_id", "start_time", "end_time", "latency_ms", "status")
CONTENT = ("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions")

app = FastAPI()
app.state.model = os.environ.get("CHAT_MODEL", "gpt-4o-mini")


class Question(BaseModel):
    message: str = Field(min_length=1, max_length=16_000)
    session_id: Optional[str] = None
    user_id: Optional[str] = None


class Model(BaseModel):
    model: str = Field(min_length=1, max_length=100)


# What the agent can do


@tool
def weather(city: str) -> str:
    """The weather in a city now."""
    if city == "Atlantis":
        raise LookupError("no weather station in Atlantis")
    time.sleep(5.2 if city == "Svalbard" else 0.05)  # a station far away
    return f"{city}: 3 °C, light snow."


@tool
def days_until(date: str) -> str:
    """The number of days from today until a date, given as YYYY-MM-DD."""
    return f"{(datetime.date.fromisoformat(date) - datetime.date.today()).days} days until {date}."


@functools.lru_cache(maxsize=16)
def agent(model: str) -> Any:
    llm = ChatOpenAI(model=model, max_retries=1, timeout=60)
    return create_agent(llm, [weather, days_until], system_prompt=SYSTEM, name="travel-agent")


@sidelight.chain
def check_policy(message: str) -> None:
    if any(word in message.lower() for word in FORBIDDEN):
        raise PermissionError("this is nothing to talk about here")


async def ask(model: str, message: str) -> str:
    check_policy(message)
    state = await agent(model).ainvoke({"messages": [{"role": "user", "content": message}]})
    answer: str = state["messages"][-1].text
    return answer


# What it answers


@app.put("/api/model")
async def swap_model(wanted: Model) -> Model:
    app.state.model = wanted.model
    return wanted


@app.post("/api/chat")
async def chat(question: Question, response: Response) -> dict[str, Any]:
    """The answer and how it came about; of a request that failed, how it failed."""
    model = app.state.model
    request = sidelight.span(
        "chat",
        kind="agent",
        input=[{"role": "user", "content": question.message}],
        session=question.session_id,
        user=question.user_id,
        model=model,
        provider="openai",
        **PROMPT,
    )
    answer = error = None
    try:
        with request:
            answer = request.output = await ask(model, question.message)
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
        response.status_code = 500
    spans = await asyncio.to_thread(spans_of, request)
    return {
        "answer": answer,
        "error": error,
        "trace_id": request.trace_id,
        "spans": spans,
        "token_usage": token_usage(spans),
        "tool_calls": [tool_call(span) for span in spans if span["kind"] == "tool"],
    }


def spans_of(request: sidelight.Run) -> list[dict[str, Any]]:
    """The request's spans, parents first; none if the collector is away."""
    found = sidelight.trace(request.trace_id)
    spans, inside = [], {request.span_id}
    for span in found["spans"] if found else []:
        if span["span_id"] in inside or span["parent_span_id"] in inside:  # others may share the trace
            inside.add(span["span_id"])
            attributes = {k: v for k, v in span["attributes"].items() if k not in CONTENT}
            spans.append({**{name: span[name] for name in SHOWN}, "attributes": attributes})
    return spans


def token_usage(spans: list[dict[str, Any]]) -> dict[str, Optional[int]]:
    """Sums over the model calls; None where no call has said any."""
    calls = [span["attributes"] for span in spans if span["kind"] == "llm"]
    prompt = total(calls, "gen_ai.usage.input_tokens", "llm.prompt_tokens")
    completion = total(calls, "gen_ai.usage.output_tokens", "llm.completion_tokens")
    both = None if prompt is None or completion is None else prompt + completion
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": both}


def total(calls: list[dict[str, Any]], *names: str) -> Optional[int]:
    counts = [count for call in calls if (count := attribute(call, *names)) is not None]
    return sum(counts) if counts else None


def tool_call(span: dict[str, Any]) -> dict[str, Any]:
    attributes = span["attributes"]
    return {
        "name": attribute(attributes, "gen_ai.tool.name", "tool.name"),
        "input": attribute(attributes, "gen_ai.tool.call.arguments", "tool.input"),
        "output": attribute(attributes, "gen_ai.tool.call.result", "tool.output"),
        "error": span["status"]["message"] if span["status"]["code"] == "error" else None,
        "latency_ms": span["latency_ms"],
    }


def attribute(attributes: dict[str, Any], *names: str) -> Any:
    """By either of the collector's conventions for names: `spans.convention`."""
    return next((attributes[name] for name in names if name in attributes), None)
