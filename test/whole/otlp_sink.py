"""A scripted OTLP/HTTP backend on loopback.

It decodes every request with the official protobuf package, remembers it, and answers as it is
told: with a status, headers and a body, late, never, or by hanging up. A request that does not
decode is a fault that close() raises.
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclasses.dataclass
class Answer:
    """What to say to one request."""

    status: int = 200
    body: bytes = b""
    headers: dict = dataclasses.field(default_factory=dict)
    content_type: str = "application/x-protobuf"
    hang: bool = False  # read the request, then say nothing until the sink is closed
    hang_up: bool = False  # close the connection without an answer


@dataclasses.dataclass
class Request:
    path: str
    headers: dict
    size: int
    message: ExportTraceServiceRequest
    answer: Answer
    time: float

    @property
    def spans(self):
        if not isinstance(self.message, ExportTraceServiceRequest):
            return []
        return [
            span
            for resource_spans in self.message.resource_spans
            for scope_spans in resource_spans.scope_spans
            for span in scope_spans.spans
        ]


def partial_success(rejected: int, message: str = "") -> Answer:
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = rejected
    response.partial_success.error_message = message
    return Answer(body=response.SerializeToString())


MESSAGES = {"/v1/logs": ExportLogsServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def finish(self):
        self.server.sockets.discard(self.request)
        super().finish()

    def do_POST(self):
        sink = self.server.sink
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:  # its sender died
            self.close_connection = True
            return
        answer = sink._take(self.path, dict(self.headers.items()), body)
        if answer.hang:
            sink._closing.wait()
        if answer.hang or answer.hang_up:
            self.close_connection = True
            return
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, *args):
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def get_request(self):
        connection, address = super().get_request()
        self.sockets.add(connection)
        return connection, address

    def waiting(self) -> int:
        """Connections that the kernel has taken and we have not."""
        info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28)
        return struct.unpack_from("I", info, 24)[0]  # of a listener, tcpi_unacked

    def handle_error(self, request, client_address):
        pass  # a client that goes away is not our business


class OtlpSink:
    """`with OtlpSink() as sink:` listens at `sink.endpoint` until the block ends."""

    def __init__(self, answer: Answer | None = None, listening: bool = True):
        self.default = answer or Answer()
        self.requests: list[Request] = []
        self.faults: list[str] = []
        self.connections = 0
        self._script: list[Answer] = []
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._server = None
        self._listen(0)
        self.port = self._server.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        if not listening:
            self.go_down()

    def _listen(self, port: int) -> None:
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.sink = self
        self._server.sockets = set()
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    def _take(self, path: str, headers: dict, body: bytes) -> Answer:
        message = MESSAGES.get(path, ExportTraceServiceRequest)()
        with self._changed:
            try:
                message.ParseFromString(body)
            except Exception as error:
                self.faults.append(f"{path}: {error}")
            answer = self._script.pop(0) if self._script else self.default
            self.requests.append(
                Request(path, headers, len(body), message, answer, time.monotonic())
            )
            self._changed.notify_all()
        return answer

    def will(self, *answers: Answer) -> None:
        """The next requests get these answers, later ones the default."""
        with self._changed:
            self._script.extend(answers)

    def go_down(self) -> None:
        """Closes every connection and refuses new ones from now on."""
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._server.sockets):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server = None

    def come_up(self) -> None:
        self._listen(self.port)

    def is_connected(self) -> bool:
        """Whether somebody is, or what somebody sent is still being read."""
        return bool(self._server.waiting() or self._server.sockets)

    def accepted(self) -> list[Request]:
        with self._changed:
            return [
                r
                for r in self.requests
                if 200 <= r.answer.status < 300 and not r.answer.hang and not r.answer.hang_up
            ]

    def spans(self) -> list:
        """The spans of every request that was answered with a 2xx."""
        return [span for request in self.accepted() for span in request.spans]

    def wait(self, condition, timeout: float = 10.0):
        """Until condition(self) is true; returns its value."""
        deadline = time.monotonic() + timeout
        while True:
            value = condition(self)
            if value:
                return value
            with self._changed:
                left = deadline - time.monotonic()
                assert left > 0, f"not within {timeout} s: {len(self.requests)} requests"
                self._changed.wait(min(left, 0.05))

    def wait_for_spans(self, count: int, timeout: float = 10.0) -> list:
        self.wait(lambda sink: len(sink.spans()) >= count, timeout)
        return self.spans()

    def wait_for_requests(self, count: int, timeout: float = 10.0) -> list:
        return self.wait(
            lambda sink: sink.requests[:] if len(sink.requests) >= count else None, timeout
        )

    def close(self) -> None:
        self._closing.set()
        if self._server:
            self.go_down()
        assert not self.faults, self.faults

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
