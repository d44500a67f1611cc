"""Reads LangChain's messages and results, from their fields.

Never through repr(), str() or model_dump(): they cost a hundred times as much. No import of
LangChain either: what has the fields is a message.
"""

from __future__ import annotations

from typing import Any, Optional

ROLES = {
    "human": "user",
    "HumanMessageChunk": "user",
    "ai": "assistant",
    "AIMessageChunk": "assistant",
    "system": "system",
    "SystemMessageChunk": "system",
    "tool": "tool",
    "ToolMessageChunk": "tool",
    "function": "tool",
    "FunctionMessageChunk": "tool",
}


def message(msg: Any, role: str) -> dict[str, Any]:
    """A message as the protocol words it."""
    held = getattr(msg, "__dict__", None)
    return _message(held if held is not None and "content" in held else _Fields(msg), role)


def _message(held: Any, role: str) -> dict[str, Any]:
    """From its dict: pydantic takes a microsecond to say that it has no such attribute."""
    get = held.get
    out: dict[str, Any] = {"role": ROLES.get(role) or get("role") or role, "content": get("content")}
    name = get("name")
    if name:
        out["name"] = name
    calls, broken = get("tool_calls"), get("invalid_tool_calls")
    if calls or broken:
        out["tool_calls"] = [
            {"id": call.get("id"), "name": call.get("name"), "args": call.get("args")}
            for call in [*(calls or ()), *(broken or ())]
        ]
    call_id = get("tool_call_id")
    if call_id:
        out["tool_call_id"] = call_id
    return out


class _Fields:
    """The fields of what keeps them elsewhere than in its dict."""

    def __init__(self, msg: Any) -> None:
        self._msg = msg

    def get(self, name: str) -> Any:
        return getattr(self._msg, name, None)


def name_of(serialized: Any, kwargs: dict[str, Any]) -> Optional[str]:
    name: Optional[str] = kwargs.get("name")
    if name or not serialized:
        return name
    path = serialized.get("id")
    return serialized.get("name") or (path[-1] if path else None)


def is_agent(name: Optional[str], metadata: Optional[dict[str, Any]]) -> bool:
    """A graph inside another run: an agent that is a tool or a node of another one."""
    return name == "LangGraph" or (bool(name) and (metadata or {}).get("lc_agent_name") == name)


def any_message(msg: Any) -> Any:
    """A message in any of the forms that LangChain takes."""
    held = getattr(msg, "__dict__", None)
    if held and "content" in held and "type" in held:
        return _message(held, held["type"])
    kind = getattr(msg, "type", None)
    if kind is not None and hasattr(msg, "content"):
        return message(msg, kind)
    if isinstance(msg, str):
        return {"role": "user", "content": msg}
    if isinstance(msg, (tuple, list)) and len(msg) == 2:
        return {"role": msg[0], "content": msg[1]}
    return msg


def conversation(inputs: Any) -> Any:
    messages = inputs.get("messages") if isinstance(inputs, dict) else None
    if isinstance(messages, list):
        return [any_message(msg) for msg in messages]
    if messages is not None:
        return [any_message(messages)]
    return inputs


def last_words(outputs: Any) -> Any:
    """The answer of a root run: of a conversation the last message."""
    messages = outputs.get("messages") if isinstance(outputs, dict) else None
    if isinstance(messages, list) and messages:
        return [any_message(messages[-1])]
    if hasattr(outputs, "content") and hasattr(outputs, "type"):
        return [any_message(outputs)]
    return outputs


def answer(response: Any) -> dict[str, Any]:
    """What an LLMResult says, as fields of an end."""
    told = response.llm_output or {}
    output, finish = [], []
    usage = metadata = response_id = None
    for choice in response.generations[0] if response.generations else ():
        msg = getattr(choice, "message", None)
        info = getattr(choice, "generation_info", None) or {}
        reason = info.get("finish_reason") or info.get("stop_reason")
        if msg is None:
            output.append({"role": "assistant", "content": choice.text})
        else:
            output.append(message(msg, "assistant"))
            said = msg.response_metadata or {}
            reason = said.get("finish_reason") or said.get("stop_reason") or reason
            if "model_name" in said or "model" in said:
                info = said
            usage = usage or getattr(msg, "usage_metadata", None)
            response_id = response_id or _response_id(msg, said)
        metadata = metadata or info
        if reason:
            finish.append(reason)
    metadata = metadata or {}
    fields: dict[str, Any] = {
        "output": output,
        "usage": usage or told.get("token_usage") or told.get("usage"),
        "model": metadata.get("model_name") or metadata.get("model") or told.get("model_name"),
        "finish": finish[0] if len(finish) == 1 else finish or None,
    }
    response_id = response_id or told.get("id")
    if response_id:
        fields["attrs"] = {"gen_ai.response.id": response_id}
    return fields


def size_of_calls(chunk: Any) -> int:
    """Characters of the tool calls in a piece of an answer."""
    calls = chunk.message.tool_call_chunks if chunk is not None else ()
    return sum(len(call.get("name") or "") + len(call.get("args") or "") for call in calls)


def found(documents: Any) -> list[Any]:
    """What a retriever found."""
    return [{"content": doc.page_content, "metadata": doc.metadata} for doc in documents]


def _response_id(msg: Any, said: dict[str, Any]) -> Optional[str]:
    """The provider's id of an answer, not the one that LangChain makes up."""
    found = said.get("id") or msg.id
    return None if not found or found.startswith(("lc_", "run-")) else found
