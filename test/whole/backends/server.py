"""A listening socket, what was sent there, and HTTP/1.1 by hand.

A backend has one bad way until `turn_good()`, and is an ordinary OTLP receiver from then on. A way
has up to three hooks, each called where its name says; what is not hooked is done well:

    connect(peer)   the connection is open, before TLS and before anything is read; it is closed
                    after the hook
    head(call)      the request's head is read, its body is not; true: done with this connection
    request(call)   all is read; true: the spans are taken, or may be

Requests that do not decode are faults, which close() raises.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import socket
import ssl
import struct
import threading
import time

from backends import decode

CONTENT_TYPES = {
    "http/protobuf": "application/x-protobuf",
    "http/json": "application/json",
    "grpc": "application/grpc",
}


@dataclasses.dataclass
class Way:
    """How a backend misbehaves."""

    connect: object = None
    head: object = None
    request: object = None


@dataclasses.dataclass
class Request:
    """One request that was read to its end."""

    signal: str
    path: str
    headers: dict
    body: bytes  # decompressed
    message: object
    time: float
    taken: bool = False

    @property
    def items(self) -> list:
        return decode.items(self.signal, self.message)

    @property
    def ids(self) -> list[str]:
        return [span.span_id.hex() for span in self.items]


class Gone(Exception):
    """The other side closed the connection."""


class Peer:
    """One accepted connection."""

    def __init__(self, backend: Backend, sock: socket.socket):
        self.backend, self.socket, self.pending = backend, sock, b""

    def read_some(self) -> bytes:
        data = self.socket.recv(65536)
        if not data:
            raise Gone
        return data

    def read_until(self, mark: bytes) -> bytes:
        while mark not in self.pending:
            self.pending += self.read_some()
        found, _, self.pending = self.pending.partition(mark)
        return found

    def read(self, count: int) -> bytes:
        pieces, have = [self.pending], len(self.pending)
        while have < count:
            pieces.append(self.read_some())
            have += len(pieces[-1])
        data = b"".join(pieces)
        self.pending = data[count:]
        return data[:count]

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reset(self) -> None:
        """Closes with RST instead of FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def end(self) -> None:
        """Says nothing more, and closes after the other side: nothing that was sent is lost."""
        self.socket.shutdown(socket.SHUT_WR)
        self.linger(0.5)

    def linger(self, seconds: float = 60) -> None:
        """Says nothing more until the other side leaves or the backend turns good."""
        deadline = time.monotonic() + seconds
        self.socket.settimeout(0.05)
        while time.monotonic() < deadline and not self.backend.is_good:
            with contextlib.suppress(TimeoutError, ssl.SSLWantReadError):
                if not self.socket.recv(65536):
                    return

    def pour(self, piece: bytes, pause: float = 0, limit: int | None = None) -> None:
        """Sends the piece again and again until the other side leaves or the backend turns good."""
        sent = 0
        while not self.backend.is_good and (limit is None or sent < limit):
            self.send(piece)
            sent += len(piece)
            if pause and self.backend.good.wait(pause):
                return


class Call:
    """One HTTP/1.1 request, for a way to answer."""

    def __init__(self, peer: Peer, path: str, headers: dict):
        self.peer, self.path, self.headers = peer, path, headers
        self.backend = peer.backend
        self.record: Request | None = None

    @property
    def signal(self) -> str:
        return decode.signal_of(self.path)

    def read_body(self) -> bytes:
        if self.headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.peer.read_until(b"\r\n").split(b";")[0], 16):
                body += self.peer.read(size)
                self.peer.read(2)
            self.peer.read(2)
            return body
        return self.peer.read(int(self.headers.get("content-length", 0)))

    def reply(self, status: int = 200, body: bytes = b"", content_type: str | None = "", **headers):
        """A whole answer. Headers' underscores are hyphens; a content type of None: none."""
        content_type = CONTENT_TYPES[self.backend.protocol] if content_type == "" else content_type
        lines = [f"HTTP/1.1 {status} Whatever"]
        if content_type:
            lines.append(f"Content-Type: {content_type}")
        if status not in (204, 304):
            lines.append(f"Content-Length: {len(body)}")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.peer.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def ok(self, **partial) -> None:
        """What an OTLP receiver says to a request that it took."""
        json = self.backend.protocol == "http/json"
        self.reply(body=(decode.response_json if json else decode.response)(self.signal, **partial))


class Backend:
    """`with Backend(way) as backend:` listens at `backend.endpoint` until the block ends.

    listening: False until it turns good: connections are refused; clogged: the kernel drops them.
    path: of a Unix socket to listen at."""

    def __init__(
        self,
        way: Way | None = None,
        *,
        protocol: str = "http/protobuf",
        tls: ssl.SSLContext | None = None,
        bad_tls: ssl.SSLContext | None = None,
        scheme: str | None = None,
        listening: bool = True,
        clogged: bool = False,
        path=None,
    ):
        self.way, self.protocol = way or Way(), protocol
        self._tls, self._bad_tls = tls, bad_tls or tls
        self.good = threading.Event()
        self.good_since = 0.0
        self.requests: list[Request] = []
        self.faults: list[str] = []
        self.connections = 0  # accepted while it was bad
        self.heads = 0  # of requests, while it was bad; for what is answered before it is read
        self.state: dict = {}  # for ways that count
        self.lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._fillers: list[socket.socket] = []
        self._closing = False
        self._thread = None
        self.scheme = scheme or ("https" if tls else "http")
        self._socket, self.port, self.endpoint = self._bind(path)
        if clogged:
            self._clog()
        elif listening:
            self._start()

    # --- life ---

    def _bind(self, path) -> tuple[socket.socket, int, str]:
        if path:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.bind(str(path))
            return sock, 0, f"unix://{path}"
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        return sock, port, f"{self.scheme}://127.0.0.1:{port}"

    @property
    def is_good(self) -> bool:
        return self.good.is_set()

    def _clog(self) -> None:
        """Its queue of connections is full, so that the kernel drops what else comes."""
        self._socket.listen(0)
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self._fillers.append(filler)

    def _start(self) -> None:
        self._socket.listen(64)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def turn_good(self) -> None:
        for filler in self._fillers:
            filler.close()
        self.good_since = time.monotonic()
        self.good.set()
        if not self._thread:
            self._start()

    def close(self) -> None:
        self._closing = True
        self.good.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        assert not self.faults, self.faults[:3]

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    # --- serving ---

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            if self.port:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        held = connection
        try:
            if not self.is_good:
                with self.lock:
                    self.connections += 1
                if self.way.connect:
                    self.way.connect(Peer(self, connection))
                    return
            context = self._tls if self.is_good else self._bad_tls
            if context:
                held = context.wrap_socket(connection, server_side=True)
            self.converse(Peer(self, held))
        except (OSError, Gone):
            pass  # ssl.SSLError is an OSError
        except Exception as error:
            if self.is_good or isinstance(error, ValueError):
                self.faults.append(repr(error))
        finally:
            self._open.discard(connection)
            for one in (held, connection):
                with contextlib.suppress(OSError):
                    one.close()

    def converse(self, peer: Peer) -> None:
        """HTTP/1.1, request after request."""
        while True:
            first, *lines = peer.read_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
            method, path, version = first.split(" ")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
            if (method, version) != ("POST", "HTTP/1.1"):
                self.faults.append(first)
            if not self.answer(Call(peer, path, headers)):
                return

    def answer(self, call: Call) -> bool:
        """False: the connection is done with."""
        bad = not self.is_good
        if bad:
            with self.lock:
                self.heads += 1
            if self.way.head and self.way.head(call):
                return False
        call.record = self.keep(call.path, call.headers, call.read_body())
        if bad and self.way.request:
            call.record.taken = bool(self.way.request(call))
            return call.peer.socket.fileno() >= 0
        call.record.taken = True
        call.ok()
        return True

    def keep(self, path: str, headers: dict, body: bytes) -> Request:
        """Decodes and records a request. gRPC's frame is off, its message still compressed."""
        encoding = headers.get("grpc-encoding" if self.protocol == "grpc" else "content-encoding")
        if encoding == "gzip":
            body = gzip.decompress(body)
        elif encoding not in (None, "identity"):
            raise ValueError(f"encoded as {encoding}")
        kind = headers.get("content-type", "none")
        if kind != CONTENT_TYPES[self.protocol]:
            raise ValueError(f"content type {kind}")
        signal = decode.signal_of(path)
        read = decode.from_json if self.protocol == "http/json" else decode.from_protobuf
        try:
            message = read(signal, body)
        except Exception as error:
            raise ValueError(f"{signal}: {error}") from error
        record = Request(signal, path, headers, body, message, time.monotonic())
        with self.lock:
            self.requests.append(record)
        return record

    # --- what came ---

    def taken(self, signal: str = "traces") -> list[Request]:
        with self.lock:
            return [r for r in self.requests if r.taken and r.signal == signal]

    def taken_ids(self) -> list[str]:
        """Span ids, as often as they were taken."""
        return [i for request in self.taken() for i in request.ids]
