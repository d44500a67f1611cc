"""Reports the calls of the anthropic client, on Bedrock and Vertex too."""

from __future__ import annotations

import json
from typing import Any, Callable, Optional

from ._calls import Api, Pieces, get, plain, said, wrap

__all__ = ["install"]

# By a word in the name of the client's class.
PROVIDERS = {
    "Bedrock": "aws.bedrock",
    "AWS": "aws.bedrock",
    "Vertex": "gcp.vertex_ai",
    "Foundry": "azure.ai.inference",
}
# What a delta adds to its block, and in which field of the two.
_DELTAS = {
    "text_delta": ("text", "text"),
    "input_json_delta": ("partial_json", "input"),
    "thinking_delta": ("thinking", "thinking"),
}
_BLOCK = ("type", "id", "name", "text", "thinking", "input")


def _provider(client: Any) -> str:
    name = type(client).__name__
    return next((p for word, p in PROVIDERS.items() if word in name), "anthropic")


class _Messages(Api):
    name = "anthropic.messages"

    def __init__(self) -> None:
        self.message: Any = None  # as the stream began it, with no content
        self.usage: dict[str, Any] = {}
        self.finish = None
        self.blocks: dict[int, dict[str, Any]] = {}
        self.pieces = Pieces()

    def input(self, body: dict[str, Any]) -> Any:
        messages, system = body.get("messages"), body.get("system")
        if not system or type(messages) is not list:
            return messages
        return [{"role": "system", "content": system}, *messages]

    def user(self, body: dict[str, Any]) -> Any:
        return get(body.get("metadata"), "user_id")

    def answer(self, response: Any) -> dict[str, Any]:
        content = [said(block, _BLOCK) for block in get(response, "content") or ()]
        return self._fields(response, plain(get(response, "usage")), content)

    def _fields(self, message: Any, usage: Any, content: list[Any]) -> dict[str, Any]:
        identity = get(message, "id")
        return {
            "output": [{"role": "assistant", "content": content}] if content else None,
            "usage": usage or None,
            "model": get(message, "model"),
            "finish": self.finish or get(message, "stop_reason"),
            "attrs": {"gen_ai.response.id": identity} if identity else {},
        }

    def feed(self, event: Any) -> bool:
        kind = get(event, "type")
        if kind == "content_block_delta":
            return self._delta(get(event, "index"), get(event, "delta"))
        if kind == "content_block_start":
            index, block = get(event, "index"), get(event, "content_block")
            if len(self.blocks) < 256:
                self.blocks[index] = said(block, _BLOCK)
        elif kind == "message_start":
            self.message = get(event, "message")
            self.usage = plain(get(self.message, "usage")) or {}
        elif kind == "message_delta":
            self.usage.update(plain(get(event, "usage")) or {})
            self.finish = get(get(event, "delta"), "stop_reason") or self.finish
            self.is_whole = True
        return False

    def _delta(self, index: Any, delta: Any) -> bool:
        field, of = _DELTAS.get(get(delta, "type"), (None, None))
        piece = get(delta, field) if field else None
        if piece:
            self.pieces.add((index, of), piece, of == "text")
        return bool(piece)

    def gathered(self) -> dict[str, Any]:
        content = []
        for index, block in self.blocks.items():
            for of in ("text", "input", "thinking"):
                text = self.pieces.text((index, of))
                if text:
                    block[of] = _parsed(text) if of == "input" else text
            content.append(block)
        fields = self._fields(self.message, self.usage, content)
        if self.pieces.is_cut:
            fields["attrs"]["sidelight.cut"] = {"output": self.pieces.full}
        return fields

    def estimated(self, usage: Optional[dict[str, Any]], chunks: int) -> Optional[dict[str, Any]]:
        """What goes in is said at the start; what came out only at the end."""
        if self.is_whole or not chunks:
            return usage
        return {**(usage or {}), "output_tokens": chunks, "sidelight.estimated": True}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text  # it was cut


_PATHS: dict[str, Callable[[], Api]] = {
    "/v1/messages": _Messages,
    "/v1/messages?beta=true": _Messages,
}


def install() -> None:
    """Reports every call of the anthropic clients of this process, those that exist included."""
    import anthropic

    for client in (anthropic.Anthropic, anthropic.AsyncAnthropic):
        wrap(client, _PATHS.get, _provider)
