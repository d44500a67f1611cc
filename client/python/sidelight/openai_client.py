"""Reports the calls of the openai client, of Azure's, and of every service it is pointed at."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Callable, Optional

from ._calls import Api, Pieces, get, plain, said, wrap

__all__ = ["install"]

# What the GenAI conventions call those who answer, by the end of their host's name.
PROVIDERS = {
    "api.openai.com": "openai",
    ".openai.azure.com": "azure.ai.openai",
    ".services.ai.azure.com": "azure.ai.inference",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral_ai",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "x_ai",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    ".amazonaws.com": "aws.bedrock",
    "openrouter.ai": "openrouter",
    "api.together.xyz": "together",
    "api.fireworks.ai": "fireworks",
    "api.cerebras.ai": "cerebras",
    "api.cohere.ai": "cohere",
    "api.cohere.com": "cohere",
}
OLLAMA_PORT = 11434

_MESSAGE = ("role", "content", "tool_calls", "function_call")


def _provider(client: Any) -> str:
    if "Azure" in type(client).__name__:
        return "azure.ai.openai"
    url = client.base_url
    return _provider_at(url.host, url.port)


@lru_cache(maxsize=64)
def _provider_at(host: str, port: Optional[int]) -> str:
    for end, name in PROVIDERS.items():
        if host.endswith(end):
            return name
    return "ollama" if port == OLLAMA_PORT else host


def _one_or_all(found: list[Any]) -> Any:
    return found[0] if len(found) == 1 else found or None


def _fields(
    response_id: Any, model: Any, usage: Any, finish: Any, output: Any, cut: Optional[int] = None
) -> dict[str, Any]:
    """Fields of an end; `cut` is how many bytes the output had, where some of them are missing."""
    attrs: dict[str, Any] = {}
    if response_id:
        attrs["gen_ai.response.id"] = response_id
    if cut is not None:
        attrs["sidelight.cut"] = {"output": cut}
    usage = plain(usage) or None
    return {"output": output, "usage": usage, "model": model, "finish": finish, "attrs": attrs}


class _Chat(Api):
    name = "openai.chat.completions"

    def __init__(self) -> None:
        self.id = self.model = self.usage = None
        self.pieces = Pieces()
        self.calls: dict[Any, dict[str, Any]] = {}  # by (choice, index): id and name
        self.finish: dict[int, str] = {}

    def answer(self, response: Any) -> dict[str, Any]:
        choices = get(response, "choices") or []
        output = [self._message(get(choice, "message")) for choice in choices]
        finish = [get(choice, "finish_reason") for choice in choices]
        finish = [reason for reason in finish if reason]
        usage, model = get(response, "usage"), get(response, "model")
        return _fields(get(response, "id"), model, usage, _one_or_all(finish), output or None)

    def _message(self, message: Any) -> dict[str, Any]:
        out = said(message, _MESSAGE)
        if "content" not in out:
            out["content"] = get(message, "refusal") or ""
        return out

    def feed(self, chunk: Any) -> bool:
        self.id = self.id or get(chunk, "id")
        self.model = self.model or get(chunk, "model")
        self.usage = get(chunk, "usage") or self.usage
        found = False
        for choice in get(chunk, "choices") or ():
            index = get(choice, "index") or 0
            found = self._delta(index, get(choice, "delta")) or found
            reason = get(choice, "finish_reason")
            if reason:
                self.finish[index] = reason
                self.is_whole = True
                self.usage = get(get(chunk, "x_groq"), "usage") or self.usage
        return found

    def _delta(self, choice: int, delta: Any) -> bool:
        text = get(delta, "content") or get(delta, "refusal")
        if text:
            self.pieces.add(choice, text, choice == 0)
        for call in get(delta, "tool_calls") or ():
            self._call(choice, call)
            text = True
        return bool(
            text
            or get(delta, "reasoning_content")
            or get(delta, "reasoning")
            or get(delta, "function_call")
        )

    def _call(self, choice: int, call: Any) -> None:
        key = (choice, get(call, "index") or 0)
        function = get(call, "function")
        if key not in self.calls and len(self.calls) < 256:
            self.calls[key] = {"id": get(call, "id"), "name": get(function, "name")}
        self.pieces.add(key, get(function, "arguments") or "")

    def gathered(self) -> dict[str, Any]:
        choices = {key for key in self.pieces.parts if type(key) is int}
        choices |= {choice for choice, _ in self.calls} | self.finish.keys()
        output = [self._gathered(choice) for choice in sorted(choices)]
        finish = [self.finish[choice] for choice in sorted(self.finish)]
        cut = self.pieces.full if self.pieces.is_cut else None
        told = self.id, self.model, self.usage, _one_or_all(finish)
        return _fields(*told, output or None, cut)

    def _gathered(self, choice: int) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": self.pieces.text(choice)}
        calls = [
            {**call, "arguments": self.pieces.text(key)}
            for key, call in self.calls.items()
            if key[0] == choice
        ]
        if calls:
            message["tool_calls"] = calls
        return message


class _Completions(_Chat):
    name = "openai.completions"

    def input(self, body: dict[str, Any]) -> Any:
        return body.get("prompt")

    def _message(self, message: Any) -> dict[str, Any]:
        return {"role": "assistant", "content": message}

    def answer(self, response: Any) -> dict[str, Any]:
        fields = super().answer(response)
        texts = [get(choice, "text") for choice in get(response, "choices") or ()]
        return {**fields, "output": [self._message(text) for text in texts] or None}

    def feed(self, chunk: Any) -> bool:
        super().feed(chunk)
        found = False
        for choice in get(chunk, "choices") or ():
            text = get(choice, "text")
            if text:
                index = get(choice, "index") or 0
                self.pieces.add(index, text, index == 0)
                found = True
        return found


class _Embeddings(Api):
    name = "openai.embeddings"
    kind = "embedding"

    def input(self, body: dict[str, Any]) -> Any:
        return body.get("input")

    def answer(self, response: Any) -> dict[str, Any]:
        return _fields(None, get(response, "model"), get(response, "usage"), None, None)


# Deltas of a streamed response that are part of its answer: what each is a piece of.
_DELTAS = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "text",
    "response.function_call_arguments.delta": "arguments",
    "response.custom_tool_call_input.delta": "arguments",
    "response.mcp_call_arguments.delta": "arguments",
    "response.reasoning_text.delta": None,
    "response.reasoning_summary_text.delta": None,
    "response.output_audio_transcript.delta": "text",
}
_TERMINAL = frozenset({"response.completed", "response.failed", "response.incomplete"})
_CALLS = frozenset({"function_call", "custom_tool_call", "mcp_call"})


class _Responses(Api):
    name = "openai.responses"

    def __init__(self) -> None:
        self.id = self.model = None
        self.pieces = Pieces()
        self.items: dict[int, dict[str, Any]] = {}  # the tool calls, by their place in the output
        self.last: Any = None  # the whole response, once it is there

    def input(self, body: dict[str, Any]) -> Any:
        given, system = body.get("input"), body.get("instructions")
        if not system:
            return given
        if type(given) is not list:
            given = [] if given is None else [{"role": "user", "content": given}]
        return [{"role": "system", "content": system}, *given]

    def answer(self, response: Any) -> dict[str, Any]:
        items = [plain(item) for item in get(response, "output") or ()]
        status = get(response, "status")
        reason = get(get(response, "incomplete_details"), "reason")
        usage, model = get(response, "usage"), get(response, "model")
        fields = _fields(get(response, "id"), model, usage, reason or status, _turn(items))
        error = get(response, "error")
        if error is not None:
            kind, message = get(error, "code") or "error", get(error, "message")
            fields["error"] = {"type": str(kind), "message": str(message)}
        return fields

    def feed(self, event: Any) -> bool:
        kind = get(event, "type")
        if kind in _DELTAS:
            part, delta = _DELTAS[kind], get(event, "delta")
            if part is not None and type(delta) is str:
                self.pieces.add((part, get(event, "output_index")), delta, part == "text")
            return bool(delta)
        if kind in _TERMINAL:
            self.last, self.is_whole = get(event, "response"), True
        elif kind == "response.created":
            response = get(event, "response")
            self.id, self.model = get(response, "id"), get(response, "model")
        elif kind == "response.output_item.added":
            item = get(event, "item")
            if get(item, "type") in _CALLS and len(self.items) < 256:
                self.items[get(event, "output_index")] = said(item, ("call_id", "id", "name"))
        return False

    def gathered(self) -> dict[str, Any]:
        if self.last is not None:
            return self.answer(self.last)
        text = "".join(self.pieces.text(key) for key in self.pieces.parts if key[0] == "text")
        calls = [
            {**item, "arguments": self.pieces.text(("arguments", index))}
            for index, item in self.items.items()
        ]
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if calls:
            message["tool_calls"] = calls
        cut = self.pieces.full if self.pieces.is_cut else None
        output = [message] if text or calls else None
        return _fields(self.id, self.model, None, None, output, cut)


def _turn(items: list[Any]) -> Any:
    """The items of a response's output as the one message that they are."""
    blocks: list[Any] = []
    calls: list[Any] = []
    for item in items:
        kind = item.get("type")
        if kind == "message":
            blocks += [_block(block) for block in item.get("content") or ()]
        elif kind in _CALLS:
            calls.append({**item, "arguments": item.get("arguments", item.get("input"))})
        elif kind != "reasoning":
            blocks.append(item)
    texts = [block["text"] for block in blocks if type(block.get("text")) is str]
    content: Any = "".join(texts) if len(texts) == len(blocks) else blocks
    message = {"role": "assistant", "content": content}
    if calls:
        message["tool_calls"] = calls
    return [message] if items else None


def _block(block: dict[str, Any]) -> dict[str, Any]:
    return {"type": "text", "text": block["refusal"]} if "refusal" in block else block


_ENDPOINTS: dict[str, Callable[[], Api]] = {
    "/chat/completions": _Chat,
    "/completions": _Completions,
    "/responses": _Responses,
    "/embeddings": _Embeddings,
}


def install() -> None:
    """Reports every call of the openai clients of this process, those that exist included."""
    import openai

    for client in (openai.OpenAI, openai.AsyncOpenAI):
        wrap(client, _ENDPOINTS.get, _provider)
