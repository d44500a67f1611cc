"""What has come of answers that are streamed: for those whose end never comes, or comes empty."""

from __future__ import annotations

from time import monotonic
from typing import Any, Optional

from ._api import run_event

MAX_ANSWER = 64 * 1024  # bytes that are kept of one
MAX_STREAMS = 256  # of which something is kept at once: the oldest is forgotten

FIRST_WORD = 0.1  # seconds after its first piece in which an answer is told for the first time;
LONGEST_WORD = 1.0  # then twice as many each time, up to this

_CHARACTERS_A_TOKEN = 4
_LOOSE = 256  # pieces that are not joined yet


class News:
    """What an answer has said since the collector was last told, which keeps it in case that we are
    killed before the answer's end. There is no timer: whoever adds to it looks whether it is due."""

    __slots__ = ("pieces", "came", "due", "_wait", "_told")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.came = self._told = 0  # bytes, also of what was left out
        self.begin()

    def begin(self) -> None:
        self._wait = FIRST_WORD
        self.due = monotonic() + FIRST_WORD

    def add(self, piece: str, size: int) -> None:
        """The size is in bytes. What comes faster than it can be told is left out, which the next
        one's place says."""
        if self.came - self._told < MAX_ANSWER:
            self.pieces.append(piece)
        self.came += size

    def tell(self, run_id: bytes, tokens: int = 0) -> None:
        """The tokens are those of the whole answer."""
        self._wait = min(2 * self._wait, LONGEST_WORD)
        self.due = monotonic() + self._wait
        attrs: dict[str, Any] = {}
        if self.pieces:
            attrs["text"], attrs["at"] = "".join(self.pieces), self._told
            self.forget()
        if tokens:
            attrs["tokens"] = tokens
        run_event(run_id, "partial_output", attrs)

    def forget(self) -> None:
        self.pieces = []
        self._told = self.came


def size_of(piece: str) -> int:
    """In bytes, as it travels."""
    return len(piece) if piece.isascii() else len(piece.encode("utf-8", "replace"))


class Stream:
    """One answer so far."""

    __slots__ = ("parent", "chunks", "_id", "_news", "_pieces", "_kept", "_characters")

    def __init__(self, run_id: bytes, parent: Optional[bytes]) -> None:
        self.parent = parent
        self._id = run_id
        self._news = News()
        self.chunks = 0
        self._pieces: list[str] = []
        self._kept = 0
        self._characters = 0

    def add(self, piece: str) -> None:
        size = len(piece) if piece.isascii() else size_of(piece)
        self._characters += len(piece)
        news = self._news
        if news.came == self._kept <= MAX_ANSWER - size:  # nothing is missing so far
            self._kept += size
            self._pieces.append(piece)
            if len(self._pieces) > _LOOSE:
                self._pieces = ["".join(self._pieces)]
        news.add(piece, size)
        if monotonic() >= news.due:
            news.tell(self._id, self._tokens())

    def count(self, characters: int) -> None:
        """Counts what is part of the answer and not of its text."""
        self._characters += characters
        if monotonic() >= self._news.due:
            self._news.tell(self._id, self._tokens())

    def _tokens(self) -> int:
        return -(-self._characters // _CHARACTERS_A_TOKEN)

    def forget(self) -> None:
        self._pieces = []
        self._news.forget()
        self._kept = 0

    def complete(self, fields: dict[str, Any]) -> None:
        """Adds to the fields of an end what they lack, of an answer that was cut off."""
        if "output" not in fields and self._kept:
            fields["output"] = [{"role": "assistant", "content": "".join(self._pieces)}]
            if self._kept < self._news.came:
                fields.setdefault("attrs", {})["sidelight.cut"] = {"output": self._news.came}
        if not fields.get("usage") and self._characters:
            fields["usage"] = {"output_tokens": self._tokens(), "sidelight.estimated": True}


_open: dict[bytes, Stream] = {}


def begin(run_id: bytes, parent: Optional[bytes]) -> Stream:
    _open[run_id] = stream = Stream(run_id, parent)
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
