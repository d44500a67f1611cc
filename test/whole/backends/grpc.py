"""A gRPC backend over HTTP/2, made by hand so that it can be wrong."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import urllib.parse

import h2.config
import h2.connection
import h2.events
import h2.settings
from google.protobuf import any_pb2, duration_pb2

from backends import decode
from backends.server import Backend, Peer, Request


def retry_info(code: int, message: str, seconds: float | None) -> bytes:
    """A google.rpc.Status, by hand: its package is not needed for three fields. None: without a
    RetryInfo."""
    fields = b"\x08" + bytes([code]) + b"\x12" + bytes([len(message)]) + message.encode()
    if seconds is not None:
        whole = int(seconds)
        delay = duration_pb2.Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))
        delay = delay.SerializeToString()
        packed = any_pb2.Any(
            type_url="type.googleapis.com/google.rpc.RetryInfo",
            value=b"\x0a" + bytes([len(delay)]) + delay,
        ).SerializeToString()
        fields += b"\x1a" + bytes([len(packed)]) + packed
    return fields


def frame(message: bytes, flag: int = 0) -> bytes:
    return bytes([flag]) + len(message).to_bytes(4, "big") + message


@dataclasses.dataclass
class GrpcCall:
    """One request on its stream, for a way to answer."""

    peer: Peer
    h2: h2.connection.H2Connection
    stream: int
    path: str
    headers: dict
    record: Request | None = None

    @property
    def backend(self):
        return self.peer.backend

    @property
    def signal(self) -> str:
        return decode.signal_of(self.path)

    def flush(self) -> None:
        self.peer.send(self.h2.data_to_send())

    def send_headers(self, *pairs, end: bool = False) -> None:
        self.h2.send_headers(self.stream, list(pairs), end_stream=end)
        self.flush()

    def begin(self, status: int = 200, content_type: str | None = "application/grpc", *more):
        pairs = [(":status", str(status))]
        if content_type:
            pairs.append(("content-type", content_type))
        self.send_headers(*pairs, *more)

    def data(self, data: bytes, end: bool = False) -> None:
        while data:
            room = min(self.h2.local_flow_control_window(self.stream), self.h2.max_outbound_frame_size)
            if room == 0:
                return  # what is tested never needs more than the other side's first window
            self.h2.send_data(self.stream, data[:room])
            data = data[room:]
        if end:
            self.h2.end_stream(self.stream)
        self.flush()

    def trailers(self, status: int | str = 0, message: str = "", details: bytes | None = None):
        pairs = [("grpc-status", str(status))]
        if message:
            pairs.append(("grpc-message", urllib.parse.quote(message)))
        if details is not None:
            packed = base64.b64encode(details).decode().rstrip("=")
            pairs.append(("grpc-status-details-bin", packed))
        self.send_headers(*pairs, end=True)

    def ok(self, **partial) -> None:
        self.begin()
        self.data(frame(decode.response(self.signal, **partial)))
        self.trailers()

    def fail(self, status: int | str, message: str = "", details: bytes | None = None) -> None:
        """Trailers-Only, as gRPC servers do it."""
        pairs = [(":status", "200"), ("content-type", "application/grpc")]
        pairs.append(("grpc-status", str(status)))
        if message:
            pairs.append(("grpc-message", urllib.parse.quote(message)))
        if details is not None:
            packed = base64.b64encode(details).decode().rstrip("=")
            pairs.append(("grpc-status-details-bin", packed))
        self.send_headers(*pairs, end=True)

    def reset(self, code: int) -> None:
        self.h2.reset_stream(self.stream, code)
        self.flush()


class GrpcBackend(Backend):
    """head(call) is called with the request's headers, request(call) at its end."""

    def __init__(self, way=None, **options):
        super().__init__(way, protocol="grpc", **options)

    def converse(self, peer: Peer) -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        peer.send(connection.data_to_send())
        calls: dict[int, GrpcCall] = {}
        bodies: dict[int, bytearray] = {}
        while True:
            for event in connection.receive_data(peer.read_some()):
                if isinstance(event, h2.events.RequestReceived):
                    headers = dict(event.headers)
                    stream = event.stream_id
                    calls[stream] = GrpcCall(peer, connection, stream, headers[":path"], headers)
                    bodies[stream] = bytearray()
                    self.begun(calls[stream])
                elif isinstance(event, h2.events.DataReceived):
                    bodies[event.stream_id] += event.data
                    if event.flow_controlled_length:
                        connection.acknowledge_received_data(
                            event.flow_controlled_length, event.stream_id
                        )
                elif isinstance(event, h2.events.StreamEnded):
                    call = calls.pop(event.stream_id)
                    self.ended(call, bytes(bodies.pop(event.stream_id)))
                elif isinstance(event, h2.events.StreamReset):
                    calls.pop(event.stream_id, None)
                    bodies.pop(event.stream_id, None)
            peer.send(connection.data_to_send())

    def begun(self, call: GrpcCall) -> None:
        if not self.is_good:
            with self.lock:
                self.heads += 1
            if self.way.head:
                self.way.head(call)

    def ended(self, call: GrpcCall, body: bytes) -> None:
        if len(body) < 5 or int.from_bytes(body[1:5], "big") != len(body) - 5 or body[0] > 1:
            raise ValueError(f"no gRPC message: {body[:8]!r} of {len(body)} bytes")
        if call.headers.get("te") != "trailers" or call.headers.get(":method") != "POST":
            raise ValueError(f"no gRPC request: {call.headers}")
        message = body[5:]
        headers = dict(call.headers)
        if body[0] == 0:
            headers.pop("grpc-encoding", None)
        elif headers.get("grpc-encoding") != "gzip":
            raise ValueError(f"compressed without a word about it: {headers}")
        call.record = self.keep(call.path, headers, message)
        if not self.is_good and self.way.request:
            call.record.taken = bool(self.way.request(call))
            return
        call.record.taken = True
        call.ok()


def gzip_frame(message: bytes) -> bytes:
    return frame(gzip.compress(message), 1)
