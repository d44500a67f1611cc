"""What an HTTP/1.1 backend can do to an exporter. Each is a Way, or makes one."""

from __future__ import annotations

import gzip
import time
import zlib
from email.utils import formatdate

from backends.server import Call, Peer, Way

MIB = 1 << 20


def _http(status: str = "200 OK", *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


def hang_up(call) -> None:
    call.peer.socket.close()


# --- the connection ---------------------------------------------------------------------------


def _never_read(peer: Peer) -> None:
    peer.backend.good.wait(60)


def _read_a_little_and_reset(call: Call) -> bool:
    call.peer.read(16)
    call.peer.reset()
    return True


def _reset(call: Call) -> bool:
    call.peer.reset()
    return True


def _close(call: Call) -> bool:
    hang_up(call)
    return True


def _hang(call: Call) -> bool:
    call.peer.linger()
    hang_up(call)
    return True


never_reads = Way(connect=_never_read)
closes_at_once = Way(connect=lambda peer: None)
resets_at_once = Way(connect=Peer.reset)
says_nothing = Way(connect=Peer.linger)
resets_mid_body = Way(head=_read_a_little_and_reset)
resets_after_request = Way(request=_reset)
closes_after_request = Way(request=_close)
never_answers = Way(request=_hang)


def _drip(text: bytes):
    def drip(call: Call) -> bool:
        for byte in text:
            call.peer.send(bytes([byte]))
            if call.backend.good.wait(1):
                break
        hang_up(call)
        return True

    return Way(request=drip)


drips_an_answer = _drip(_http("200 OK", "Content-Length: 0"))


def _cut_answer(call: Call) -> bool:
    call.peer.send(_http("200 OK", "Content-Type: application/x-protobuf", "Content-Length: 100"))
    call.peer.send(b"\x0a")
    hang_up(call)
    return True


def _cut_head(call: Call) -> bool:
    call.peer.send(b"HTTP/1.1 200 OK\r\nContent-Le")
    hang_up(call)
    return True


cuts_its_answer = Way(request=_cut_answer)
cuts_its_head = Way(request=_cut_head)


def slow(seconds: float) -> Way:
    """Late, but fine."""

    def answer(call: Call) -> bool:
        time.sleep(seconds)
        call.ok()
        return True

    return Way(request=answer)


# --- statuses ---------------------------------------------------------------------------------


def status(code: int, body: bytes = b"", content_type: str | None = None, taken=False, **headers):
    """That status to every request."""

    def answer(call: Call) -> bool:
        values = {k: v() if callable(v) else v for k, v in headers.items()}
        call.reply(code, body, content_type, **values)
        return taken

    return Way(request=answer)


def retry_after(code: int, value) -> Way:
    return status(code, Retry_After=value)


def date(seconds: float):
    """An HTTP date, counted from when it is sent."""
    return lambda: formatdate(time.time() + seconds, usegmt=True)


def redirect(code: int, target) -> Way:
    return status(code, Location=f"{target.endpoint}/v1/traces")


def _only_traces(call: Call) -> bool:
    if call.signal != "traces":
        call.reply(404, b"no such page", "text/plain")
        return False
    call.ok()
    return True


only_traces = Way(request=_only_traces)


def too_large_over(spans: int) -> Way:
    """413 to a request of more spans than that."""

    def answer(call: Call) -> bool:
        if len(call.record.items) > spans:
            call.reply(413)
            return False
        call.ok()
        return True

    return Way(request=answer)


def flapping(bad: Way) -> Way:
    """Every other request goes the bad way."""

    def answer(call: Call) -> bool:
        with call.backend.lock:
            count = call.backend.state["count"] = call.backend.state.get("count", 0) + 1
        if count % 2:
            return bad.request(call)
        call.ok()
        return True

    return Way(request=answer)


def partly(rejected, message: str = "") -> Way:
    """partial_success; rejected may ask how many were sent."""

    def answer(call: Call) -> bool:
        count = len(call.record.items)
        call.ok(rejected=rejected(count) if callable(rejected) else rejected, message=message)
        return True

    return Way(request=answer)


# --- answers that are odd ---------------------------------------------------------------------


def raw(data: bytes, close: bool = True, taken: bool = True) -> Way:
    """These bytes instead of an answer."""

    def answer(call: Call) -> bool:
        call.peer.send(data)
        if close:
            hang_up(call)
        return taken

    return Way(request=answer)


def pouring(first: bytes, piece: bytes, pause: float = 0, limit: int | None = None) -> Way:
    """An answer without an end."""

    def answer(call: Call) -> bool:
        call.peer.send(first)
        try:
            call.peer.pour(piece, pause, limit)
        finally:
            hang_up(call)
        return True

    def answer_as_taken(call: Call) -> bool:
        call.record.taken = True  # also when the other side leaves
        return answer(call)

    return Way(request=answer_as_taken)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    piece = bytes(MIB)
    return b"".join([*(packer.compress(piece) for _ in range(size // MIB)), packer.flush()])


def gzip_bomb(size: int = 256 * MIB) -> Way:
    return status(
        200, _bomb(size), "application/x-protobuf", taken=True, Content_Encoding="gzip"
    )


def gzipped(body: bytes) -> Way:
    return status(
        200, gzip.compress(body), "application/x-protobuf", taken=True, Content_Encoding="gzip"
    )


garbage = bytes(range(255, 127, -1))
html = b"<!DOCTYPE html><html><body>Please sign in</body></html>"
proto_head = _http("200 OK", "Content-Type: application/x-protobuf")

says_continue_first = raw(
    _http("100 Continue") + _http("200 OK", "Content-Length: 0"), close=False
)
says_continue_for_ever = pouring(b"", _http("100 Continue") * 64, pause=0.01)
says_early_hints = raw(
    _http("103 Early Hints", "Link: </x>") + _http("200 OK", "Content-Length: 0"), close=False
)
only_continues = raw(_http("100 Continue"))
switches_protocols = raw(_http("101 Switching Protocols", "Upgrade: websocket"))
http_09 = raw(b"hello, this is no HTTP\n")
smtp_banner = Way(connect=lambda peer: peer.send(b"220 mail.example ESMTP ready\r\n") or peer.linger(1))
http_10 = raw(b"HTTP/1.0 200 OK\r\nContent-Type: application/x-protobuf\r\n\r\n")
bad_status_line = raw(b"HTTP/1.1 abc Nonsense\r\n\r\n")
status_999 = raw(_http("999 Beyond", "Content-Length: 0"))
chunked = raw(
    _http("200 OK", "Content-Type: application/x-protobuf", "Transfer-Encoding: chunked")
    + b"0\r\n\r\n",
    close=False,
)
chunked_garbage = raw(
    _http("200 OK", "Content-Type: application/x-protobuf", "Transfer-Encoding: chunked")
    + b"zzzz\r\nnot a chunk\r\n"
)
chunk_of_gigabytes = raw(
    _http("200 OK", "Content-Type: application/x-protobuf", "Transfer-Encoding: chunked")
    + b"ffffffffffffffffffff\r\n"
)
lying_length = raw(
    _http("200 OK", "Content-Type: application/x-protobuf", "Content-Length: 99999999999999999999")
)
negative_length = raw(_http("200 OK", "Content-Length: -5"))
two_lengths = raw(_http("200 OK", "Content-Length: 0", "Content-Length: 7") + b"garbage")
not_gzip = raw(
    _http("200 OK", "Content-Type: application/x-protobuf", "Content-Encoding: gzip", "Content-Length: 7")
    + b"garbage"
)
endless_body = pouring(proto_head, bytes(65536))
endless_body_of_an_error = pouring(_http("503 Busy"), b"x" * 65536)
endless_chunks = pouring(
    _http("200 OK", "Transfer-Encoding: chunked"), _chunk(bytes(16384))
)
endless_headers = pouring(b"HTTP/1.1 200 OK\r\n", b"X-More: " + b"y" * 1000 + b"\r\n")
endless_header = pouring(b"HTTP/1.1 200 OK\r\nX-Long: ", b"z" * 65536)
drips_headers = pouring(b"HTTP/1.1 200 OK\r\n", b"X-More: y\r\n", pause=0.05)
huge_header = raw(_http("200 OK", "X-Huge: " + "h" * 65000, "Content-Length: 0"), close=False)


def _answers_before_the_body(code: int, reads_on: bool) -> Way:
    def head(call: Call) -> bool:
        call.reply(code)
        if reads_on:
            call.read_body()
        else:
            call.peer.linger(0.2)
        hang_up(call)
        return True

    return Way(head=head)


early_answer = _answers_before_the_body(503, reads_on=True)
early_answer_and_close = _answers_before_the_body(400, reads_on=False)
