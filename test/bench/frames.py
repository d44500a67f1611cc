"""The little of the wire protocol that a start, an end and a flush need."""

from __future__ import annotations

import struct
import time


def pack(value) -> bytes:
    """msgpack of what these are made of: short texts, ids, numbers that are not negative."""
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


def request(run: bytes) -> bytes:
    """The start and the end of a request of a single run, now."""
    now, mono = time.time_ns(), time.monotonic_ns()
    return (frame([1, run, now, mono, {"kind": "agent", "name": "look"}])
            + frame([2, run, now + 1000, mono + 1000, {"output": "seen"}]))
