"""Builds the frames of docs/protocol.md: a 4-byte big-endian length, then a msgpack array.

Keys come in the order of the protocol's tables, absent fields are left out, and a frame is
never longer than MAX_FRAME.
"""

from __future__ import annotations

from typing import Any, Optional, Union

import msgpack  # type: ignore[import-untyped]

from ._values import MAX_ATTRS, MAX_NODES, MAX_TEXT, Cleaner, absorb, is_plain, text

VERSION = 1
MAX_FRAME = 1 << 20
MAX_NAME = 1024  # bytes of an event's name and of a run id in text

RunId = Union[bytes, str]

# What a frame is cut down to: bytes of a string, elements. The last always fits MAX_FRAME:
# an element has a key of 256 bytes, a text of 512, and maybe its key once more among the cut.
_LIMITS = ((MAX_TEXT, MAX_NODES), (8192, 5000), (512, 500))

# Packers keep their buffer, so they are worth keeping. A packer is used by one call at a
# time: another thread, or a finalizer that runs in the middle of a call, takes another.
_packers: list[Any] = []


def _new_packer() -> Any:
    try:
        return msgpack.Packer(buf_size=64 * 1024)
    except TypeError:  # before msgpack 1.1 it has 1 MiB at once
        return msgpack.Packer()


def pack(message: list[Any]) -> bytes:
    """The message as a frame. Raises on what msgpack can't say."""
    try:
        packer = _packers.pop()
    except IndexError:
        packer = _new_packer()
    body: bytes = packer.pack(message)  # one that raised is not used again
    if len(_packers) < 4:
        _packers.append(packer)
    return len(body).to_bytes(4, "big") + body


def unpack(body: bytes) -> Any:
    """What the collector says. Raises on what is no msgpack."""
    return msgpack.unpackb(body)


def _pack_fields(message: list[Any], fields: dict[str, Any], clean: Any = Cleaner.fields) -> bytes:
    """The message with its fields at the end, cleaned and cut only where that is needed."""
    try:
        attrs = fields if message[0] == 3 else fields.get("attrs", ())
        if len(attrs) <= MAX_ATTRS and is_plain(fields):
            frame = pack([*message, fields])
            # Below this size no string can have more bytes than it may.
            if len(frame) <= MAX_TEXT:
                return frame
    except Exception as error:
        absorb(error)  # another thread changed a container, a lone surrogate, an int past 64 bits
    for max_text, max_nodes in _LIMITS:
        frame = pack([*message, clean(Cleaner(max_text, max_nodes), fields)])
        if len(frame) <= MAX_FRAME:
            break
    return frame


def _map(value: Any) -> Optional[dict[str, Any]]:
    """The value if it is a map or becomes one: a field of another type is refused as a whole."""
    if type(value) is dict:
        return value
    clean = Cleaner().fields({"": value})[""]
    return clean if type(clean) is dict else None


def _texts(value: Any) -> list[str]:
    if isinstance(value, (list, tuple, set, frozenset)):
        return [text(item) for item in value]
    return [text(value)]


def run_id_of(value: Any) -> Optional[RunId]:
    """16 bytes, a text, or a UUID's bytes; a parent that is none of these is left out."""
    if isinstance(value, str):
        raw = value.encode("utf-8", "replace")
        return raw.decode() if 0 < len(raw) <= MAX_NAME else None
    if not isinstance(value, bytes):
        value = getattr(value, "bytes", None)
    return value if isinstance(value, bytes) and len(value) == 16 and any(value) else None


def hello(
    service: Optional[str],
    resource: Optional[dict[str, Any]],
    sdk: Optional[str],
    pid: Optional[int],
) -> bytes:
    fields: dict[str, Any] = {"v": VERSION}
    if service is not None:
        fields["service"] = text(service)
    if resource:
        fields["resource"] = resource
    if sdk is not None:
        fields["sdk"] = sdk
    if pid is not None:
        fields["pid"] = pid
    return _pack_fields([0], fields)


def start(
    run_id: RunId,
    unix_ns: int,
    mono_ns: int,
    *,
    kind: Optional[str] = None,
    name: Optional[str] = None,
    parent: Optional[RunId] = None,
    traceparent: Optional[str] = None,
    session: Optional[str] = None,
    user: Optional[str] = None,
    model: Optional[str] = None,
    provider: Optional[str] = None,
    input: Any = None,
    tags: Optional[list[str]] = None,
    attrs: Optional[dict[str, Any]] = None,
) -> bytes:
    fields: dict[str, Any] = {}
    if kind is not None:
        fields["kind"] = text(kind)
    if name is not None:
        fields["name"] = text(name)
    above = run_id_of(parent)
    if above is not None:
        fields["parent"] = above
    if traceparent is not None:
        fields["traceparent"] = text(traceparent)
    if session is not None:
        fields["session"] = text(session)
    if user is not None:
        fields["user"] = text(user)
    if model is not None:
        fields["model"] = text(model)
    if provider is not None:
        fields["provider"] = text(provider)
    if input is not None:
        fields["input"] = input
    if tags:
        fields["tags"] = _texts(tags)
    if attrs:
        fields["attrs"] = attrs
    return _pack_fields([1, run_id, unix_ns, mono_ns], fields)


def end(
    run_id: RunId,
    unix_ns: int,
    mono_ns: int,
    *,
    input: Any = None,
    output: Any = None,
    usage: Optional[dict[str, Any]] = None,
    model: Optional[str] = None,
    finish: Union[str, list[str], None] = None,
    error: Optional[dict[str, str]] = None,
    attrs: Optional[dict[str, Any]] = None,
) -> bytes:
    fields: dict[str, Any] = {}
    if input is not None:
        fields["input"] = input
    if output is not None:
        fields["output"] = output
    counts = _map(usage) if usage else None
    if counts:
        fields["usage"] = counts
    if model is not None:
        fields["model"] = text(model)
    if finish is not None:
        fields["finish"] = _texts(finish) if isinstance(finish, (list, tuple)) else text(finish)
    if error is not None:
        fields["error"] = error
    if attrs:
        fields["attrs"] = attrs
    return _pack_fields([2, run_id, unix_ns, mono_ns], fields)


def run_frame(
    kind: int, run_id: RunId, unix_ns: int, mono_ns: int, fields: dict[str, Any]
) -> bytes:
    """A start (1) or an end (2); if a field's value makes that impossible, what can't fail."""
    build = start if kind == 1 else end
    try:
        return build(run_id, unix_ns, mono_ns, **fields)
    except BaseException as error:
        absorb(error)
        plain = {name: value for name, value in fields.items() if type(value) in (str, bytes)}
        return build(run_id, unix_ns, mono_ns, **plain)


def event(run_id: RunId, unix_ns: int, mono_ns: int, name: str, attrs: dict[str, Any]) -> bytes:
    name = text(name).encode("utf-8", "replace")[:MAX_NAME].decode("utf-8", "ignore")
    return _pack_fields([3, run_id, unix_ns, mono_ns, name or "event"], attrs, Cleaner.attrs)


def flush(token: int) -> bytes:
    return pack([4, token])


def dropped(count: int, reason: Optional[str]) -> bytes:
    return pack([6, {"count": count, "reason": reason} if reason else {"count": count}])


def bye() -> bytes:
    return pack([7, {}])


def child(pid: int, exit: Optional[int] = None, signal: Optional[int] = None) -> bytes:
    """A child of ours: only watched, or how it ended, by exactly one of the two."""
    fields = {"pid": pid, "exit": exit, "signal": signal}
    return pack([9, {key: n for key, n in fields.items() if n is not None}])
