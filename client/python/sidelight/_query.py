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
    sock = None
    try:
        deadline = time.monotonic() + timeout
        path = f"/api/traces/{_trace_id(trace_id)}"
        sock = _connect(deadline)
        if sock is None:
            return None  # with nobody there, a flush would only wait
        flush(_left(deadline))
        return _get(sock, path, deadline)
    except BaseException as error:
        absorb(error)
        return None
    finally:
        if sock is not None:
            sock.close()


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


def _connect(deadline: float) -> Any:
    import socket

    for path in transport._paths():
        base = path[:-5] if path.endswith(".sock") and len(path) > 5 else path
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(_left(deadline))
            sock.connect(base + "-api.sock")
            return sock
        except BaseException as error:
            sock.close()
            if not isinstance(error, (OSError, ValueError)):  # nobody there
                raise
    return None


def _get(sock: Any, path: str, deadline: float) -> Optional[dict[str, Any]]:
    import http.client
    import json

    connection = http.client.HTTPConnection("localhost")
    connection.sock = sock
    sock.settimeout(_left(deadline))
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


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
