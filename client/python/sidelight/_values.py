"""Turns what an agent passes around into plain, bounded values.

Almost everything is plain already, so is_plain() answers that without copying; only what
isn't goes through a Cleaner, which never fails, never loops and bounds what it returns.
"""

from __future__ import annotations

import sys
from collections import deque
from itertools import islice
from types import BuiltinFunctionType, FrameType, FunctionType, ModuleType
from typing import Any, Callable, Optional, Union

from ._messages import message

MAX_TEXT = 64 * 1024  # bytes of one string
MAX_DEPTH = 8  # containers in one another, below a message's field
MAX_ATTRS = 1000  # the collector refuses more than 1024
MAX_NODES = 20_000  # elements of all containers of one message

_MAX_KEY = 256  # bytes
_CONTAINERS = frozenset({dict, list, tuple})
_ATOMS = frozenset({int, float, bool, type(None)})
_BY_REPR = frozenset({type, range, complex, FunctionType, BuiltinFunctionType, ModuleType})
_BY_STR = frozenset({"uuid", "decimal", "fractions", "pathlib", "pathlib._local", "ipaddress"})


def is_plain(fields: dict[str, Any]) -> bool:
    """Says whether a message's fields may be packed as they are.

    An int past 64 bits, a lone surrogate and a string whose bytes, not characters, are too
    many are left to the packer, which is faster at seeing them.
    """
    level: list[Any] = [fields]
    nodes = 0
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for container in level:
            nodes += len(container)
            if nodes > MAX_NODES:
                return False
            if type(container) is dict:
                for key in container:
                    if type(key) is not str:
                        return False
                container = container.values()
            for value in container:
                kind = type(value)
                if kind is str or kind is bytes:
                    if len(value) > MAX_TEXT:
                        return False
                elif kind in _CONTAINERS:
                    below.append(value)
                elif kind not in _ATOMS:
                    return False
        if not below:
            return True
        level = below
    return False


def absorb(error: BaseException) -> None:
    """Raises the error again unless it came from a value that was read.

    Reading a value runs its code, and what that raises, even a SystemExit, is not the agent's.
    What a signal handler raises meanwhile is: a KeyboardInterrupt, and what has passed a frame
    that was given the frame it interrupted. So is what another thread put into this one, as
    far as that can be told: no Exception, and raised by no code but ours.
    """
    if isinstance(error, KeyboardInterrupt) or _is_sent(error):
        raise error


def _is_sent(error: BaseException) -> bool:
    outer: Optional[FrameType] = None
    step = error.__traceback__
    while step is not None:
        frame = step.tb_frame
        if outer is not None and _was_given(frame, outer):
            return True
        outer, step = frame, step.tb_next
    ours = outer is not None and outer.f_globals.get("__package__") == __package__
    return ours and not isinstance(error, Exception)


def _was_given(frame: FrameType, outer: FrameType) -> bool:
    if frame.f_globals.get("__package__") == __package__:
        return False
    for value in frame.f_locals.values():
        if value is outer or type(value) is tuple and any(v is outer for v in value[:3]):
            return True
    return False


def read(function: Callable[..., Any], *args: Any, default: Any = None) -> Any:
    """What the function reads from values, or the default if it can't."""
    try:
        return function(*args)
    except BaseException as error:
        absorb(error)
        return default


def text(value: Any) -> str:
    """The value as a string, whatever it is."""
    if type(value) is str:
        return value
    try:
        return str.__str__(value) if isinstance(value, str) else str(value)
    except BaseException as error:
        absorb(error)
        return f"<{type(value).__name__}>"


class Cleaner:
    """Copies values into plain ones. One is for one message: it has a budget of elements.

    `cut` names each field of which text is missing, with the bytes the text had.
    """

    def __init__(self, max_text: int = MAX_TEXT, max_nodes: int = MAX_NODES) -> None:
        self.cut: dict[str, int] = {}
        self._max_text = max_text
        self._nodes = max_nodes
        self._field = ""

    def fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        """A message's fields, clean. What was cut from them stands in their attrs."""
        out: dict[str, Any] = {}
        for name, value in fields.items():
            if name == "attrs":
                out[name] = self._attrs(value)
                continue
            self._field = name
            out[name] = self._value(value, 0)
        if self.cut:
            out.setdefault("attrs", {})["sidelight.cut"] = self.cut
        return out

    def attrs(self, attrs: dict[Any, Any]) -> dict[str, Any]:
        """Attributes, clean, and what was cut from them."""
        out = self._attrs(attrs)
        if self.cut:
            out["sidelight.cut"] = self.cut
        return out

    def _attrs(self, attrs: dict[Any, Any]) -> dict[str, Any]:
        out = {}
        items = list(attrs.items())
        taken = min(self._take(len(items)), MAX_ATTRS)
        for key, value in items[:taken]:
            self._field = self._key(key)
            out[self._field] = self._value(value, 1)
        if taken < len(items):
            out["…"] = f"{len(items) - taken} more"
        return out

    def _key(self, key: Any) -> str:
        raw = text(key)[:_MAX_KEY].encode("utf-8", "replace")
        return raw[:_MAX_KEY].decode("utf-8", "ignore")

    def _text(self, value: str) -> str:
        limit = self._max_text
        if value.isascii():
            full = len(value)
            if full <= limit:
                return value
        else:
            raw = value.encode("utf-8", "replace")
            full = len(raw)
            if full <= limit:
                return raw.decode()
        self.cut[self._field] = self.cut.get(self._field, 0) + full
        return value[:limit].encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")

    def _bytes(self, value: Union[bytes, bytearray]) -> bytes:
        if len(value) > self._max_text:
            self.cut[self._field] = self.cut.get(self._field, 0) + len(value)
        return bytes(value[: self._max_text])

    def _value(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is str:
            return self._text(value)
        if kind is int:
            return value if -(1 << 63) <= value < 1 << 64 else _big_int(value)
        if kind in _ATOMS:
            return value
        self._nodes -= 1
        if self._nodes < 0:
            return "…"
        try:
            return self._container_or_object(value, depth)
        except BaseException as error:
            absorb(error)
            return f"<{kind.__name__}>"

    def _container_or_object(self, value: Any, depth: int) -> Any:
        if isinstance(value, (bytes, bytearray)):
            return self._bytes(value)
        if isinstance(value, (dict, list, tuple, set, frozenset, deque)):
            if depth >= MAX_DEPTH:
                return f"<{type(value).__name__} of {len(value)}>"
            if isinstance(value, dict):
                return self._dict(value, depth)
            return self._list(value, depth)
        return self._value(self._object(value, depth), depth)

    def _take(self, count: int) -> int:
        """Takes up to `count` elements from the budget. Returns how many there were."""
        taken = min(count, max(self._nodes, 0))
        self._nodes -= taken
        return taken

    def _dict(self, value: dict[Any, Any], depth: int) -> dict[str, Any]:
        items = list(value.items())
        taken = self._take(len(items))
        out = {self._key(k): self._value(v, depth + 1) for k, v in items[:taken]}
        if taken < len(items):
            out["…"] = f"{len(items) - taken} more"
        return out

    def _list(self, value: Any, depth: int) -> list[Any]:
        taken = self._take(len(value))
        out = [self._value(v, depth + 1) for v in islice(value, taken)]
        if taken < len(value):
            out.append(f"… {len(value) - taken} more")
        return out

    def _object(self, value: Any, depth: int) -> Any:
        """A step nearer to a plain value: what is returned is cleaned in turn."""
        kind = type(value)
        enum = sys.modules.get("enum")
        if enum is not None and isinstance(value, enum.Enum):
            return _plainer(value, value.value)
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            return int.__add__(value, 0)
        if isinstance(value, float):
            return float.__add__(value, 0.0)
        if kind.__module__ in _BY_STR:
            return str(value)
        if kind.__module__ == "numpy":
            return value.tolist() if value.size <= 1000 else f"<{kind.__name__} {value.shape}>"
        if callable(getattr(kind, "isoformat", None)):
            return text(value.isoformat())
        if depth >= MAX_DEPTH:
            return f"<{kind.__name__}>"
        if isinstance(getattr(value, "type", None), str) and hasattr(value, "content"):
            return message(value, value.type)
        if callable(getattr(kind, "model_dump", None)):
            return _model(value)
        if hasattr(kind, "__dataclass_fields__"):
            return {name: getattr(value, name, None) for name in kind.__dataclass_fields__}
        if isinstance(value, BaseException):
            return f"{kind.__name__}: {text(value)}"
        # Anybody's repr() may be endless, or ask a database.
        return repr(value) if kind in _BY_REPR else f"<{kind.__module__}.{kind.__qualname__}>"


def _model(value: Any) -> dict[str, Any]:
    """What pydantic holds, without what it was told to leave out of dumps."""
    fields = getattr(type(value), "__pydantic_fields__", {})
    return {k: v for k, v in value.__dict__.items() if not getattr(fields.get(k), "exclude", None)}


def _plainer(value: Any, inner: Any) -> Any:
    """The inner value, or the value's name where that would lead nowhere."""
    return f"<{type(value).__name__}>" if isinstance(inner, type(value)) else inner


def _big_int(value: int) -> str:
    """The digits of an int, or only its size: printing takes quadratic time."""
    bits = value.bit_length()
    return str(value) if bits <= 4096 else f"<int of {bits} bits>"
