"""What has come of answers that are streamed: for those whose end never comes, or comes empty."""

from __future__ import annotations

from typing import Any, Optional

MAX_ANSWER = 64 * 1024  # bytes that are kept of one
MAX_STREAMS = 256  # of which something is kept at once: the oldest is forgotten

_CHARACTERS_A_TOKEN = 4
_LOOSE = 256  # pieces that are not joined yet


class Stream:
    """One answer so far."""

    __slots__ = ("parent", "chunks", "_pieces", "_kept", "_bytes", "_characters")

    def __init__(self, parent: Optional[bytes]) -> None:
        self.parent = parent
        self.chunks = 0
        self._pieces: list[str] = []
        self._kept = 0
        self._bytes = 0
        self._characters = 0

    def add(self, piece: str) -> None:
        size = len(piece) if piece.isascii() else len(piece.encode("utf-8", "replace"))
        self._characters += len(piece)
        self._bytes += size
        if self._bytes == self._kept + size <= MAX_ANSWER:  # nothing is missing so far
            self._kept += size
            self._pieces.append(piece)
            if len(self._pieces) > _LOOSE:
                self._pieces = ["".join(self._pieces)]

    def count(self, characters: int) -> None:
        """Counts what is part of the answer and not of its text."""
        self._characters += characters

    def forget(self) -> None:
        self._pieces = []
        self._kept = 0

    def complete(self, fields: dict[str, Any]) -> None:
        """Adds to the fields of an end what they lack, of an answer that was cut off."""
        if "output" not in fields and self._kept:
            fields["output"] = [{"role": "assistant", "content": "".join(self._pieces)}]
            if self._kept < self._bytes:
                fields.setdefault("attrs", {})["sidelight.cut"] = {"output": self._bytes}
        if not fields.get("usage") and self._characters:
            tokens = -(-self._characters // _CHARACTERS_A_TOKEN)
            fields["usage"] = {"output_tokens": tokens, "sidelight.estimated": True}


_open: dict[bytes, Stream] = {}


def begin(run_id: bytes, parent: Optional[bytes]) -> Stream:
    _open[run_id] = stream = Stream(parent)
    if len(_open) > MAX_STREAMS:
        for oldest in list(_open)[: len(_open) - MAX_STREAMS]:
            gone = _open.pop(oldest, None)
            if gone is not None:
                gone.forget()
    return stream


def end(run_id: bytes) -> None:
    _open.pop(run_id, None)


def within(parent: bytes) -> list[bytes]:
    """The runs inside this one whose answers are still on their way."""
    return [run_id for run_id, stream in list(_open.items()) if stream.parent == parent]
