"""The little of the wire protocol that a start, an end and a flush need."""

from __future__ import annotations

import struct


def pack(value) -> bytes:
    """The little of msgpack that a start and an end need."""
    if isinstance(value, bytes):
        return b"\xc4" + struct.pack("B", len(value)) + value
    if isinstance(value, str):
        return struct.pack("B", 0xA0 | len(value)) + value.encode()
    if isinstance(value, int):
        return b"\xcf" + struct.pack(">Q", value)
    if isinstance(value, dict):
        body = b"".join(pack(k) + pack(v) for k, v in value.items())
        return struct.pack("B", 0x80 | len(value)) + body
    return struct.pack("B", 0x90 | len(value)) + b"".join(pack(v) for v in value)


def frame(message: list) -> bytes:
    body = pack(message)
    return struct.pack(">I", len(body)) + body
