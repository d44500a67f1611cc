"""Asks the collector for what it knows, over the socket of its HTTP API."""

from __future__ import annotations

import time
from typing import Any, Optional

from ._api import Run, flush, transport
from ._ids import run_bytes
from ._values import absorb

MAX_ANSWER = 64 << 20  # bytes


def trace(trace_id: Any, timeout: float = 2.0) -> Optional[dict[str, Any]]:
    """The trace as the collector has it, {"trace": {…}, "spans": […]}: first all that this
    process has reported is passed on. None if that isn't to be had in time. It blocks the thread.
    """
    try:
        deadline = time.monotonic() + timeout
        flush(timeout)
        return _ask(f"/api/traces/{_trace_id(trace_id)}", deadline)
    except BaseException as error:
        absorb(error)
        return None


def _trace_id(given: Any) -> str:
    if isinstance(given, Run):
        return given.trace_id
    if isinstance(given, bytes):
        return run_bytes(given).hex()
    if not isinstance(given, str):
        given = given.bytes.hex()  # a UUID
    found: str = given.replace("-", "")
    if not (found.isascii() and found.isalnum()):
        raise ValueError("no trace id")
    return found


def _ask(path: str, deadline: float) -> Optional[dict[str, Any]]:
    for socket_path in transport._paths():
        base = socket_path[:-5] if socket_path.endswith(".sock") and len(socket_path) > 5 else socket_path
        try:
            return _get(base + "-api.sock", path, deadline)
        except OSError:
            continue  # nobody there
    return None


def _get(socket_path: str, path: str, deadline: float) -> Optional[dict[str, Any]]:
    import http.client
    import json
    import socket

    connection = http.client.HTTPConnection("localhost")
    connection.sock = sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(_left(deadline))
        sock.connect(socket_path)
        connection.request("GET", path)
        response = connection.getresponse()
        body = bytearray()
        while response.status == 200 and len(body) <= MAX_ANSWER:
            sock.settimeout(_left(deadline))
            piece = response.read1(1 << 16)
            if not piece:
                found: dict[str, Any] = json.loads(body)
                return found
            body += piece
        return None
    finally:
        connection.close()
        sock.close()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
