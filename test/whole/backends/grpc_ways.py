"""What a gRPC backend can do to an exporter. Each is a Way, or makes one."""

from __future__ import annotations

import h2.errors

from backends import decode
from backends.grpc import GrpcCall, frame, gzip_frame, retry_info
from backends.server import Gone, Way


def _way(answer, taken: bool = False) -> Way:
    def request(call: GrpcCall) -> bool:
        call.record.taken = taken  # also when the other side leaves
        answer(call)
        return taken

    return Way(request=request)


def fails(code, message: str = "", retry_seconds: float | None = None, details=None) -> Way:
    """That grpc-status, in Trailers-Only; retry_seconds: with a RetryInfo."""
    if retry_seconds is not None:
        details = retry_info(code, message, retry_seconds)
    return _way(lambda call: call.fail(code, message, details))


def fails_late(code: int, message: str = "") -> Way:
    """That grpc-status after an answer has begun."""

    def answer(call: GrpcCall) -> None:
        call.begin()
        call.trailers(code, message)

    return _way(answer)


def http_status(code: int) -> Way:
    """No gRPC at all: a proxy's answer."""

    def answer(call: GrpcCall) -> None:
        call.begin(code, "text/html")
        call.data(b"<html>proxy</html>", end=True)

    return _way(answer)


def answers(body: bytes, status: int | None = 0, content_type="application/grpc", taken=True, *more):
    """That body; status None: the stream ends without trailers."""

    def answer(call: GrpcCall) -> None:
        call.begin(200, content_type, *more)
        call.data(body, end=status is None)
        if status is not None:
            call.trailers(status)

    return _way(answer, taken)


def partly(rejected, message: str = "") -> Way:
    def answer(call: GrpcCall) -> None:
        count = len(call.record.items)
        call.ok(rejected=rejected(count) if callable(rejected) else rejected, message=message)

    return _way(answer, taken=True)


def _only_traces(call: GrpcCall) -> bool:
    if call.signal != "traces":
        call.fail(12, f"unknown service {call.path.split('/')[1]}")
        return False
    call.ok()
    return True


only_traces = Way(request=_only_traces)


def too_large_over(spans: int) -> Way:
    """grpcio's words when a message is over its limit."""

    def request(call: GrpcCall) -> bool:
        if len(call.record.items) > spans:
            call.fail(8, f"Received message larger than max ({len(call.record.body)} vs. 100)")
            return False
        call.ok()
        return True

    return Way(request=request)


def resets(code: int, taken: bool = False) -> Way:
    return _way(lambda call: call.reset(code), taken)


def resets_after_status(code: int) -> Way:
    """An answer that has begun, then RST_STREAM instead of the trailers."""

    def answer(call: GrpcCall) -> None:
        call.begin()
        call.data(frame(decode.response()))
        call.reset(code)

    return _way(answer, taken=True)


def _go_away(call: GrpcCall, last: int, code: int) -> None:
    call.h2.close_connection(error_code=code, last_stream_id=last)
    call.flush()
    call.peer.end()
    raise Gone


def goes_away(code: int = h2.errors.ErrorCodes.NO_ERROR) -> Way:
    """GOAWAY for every request, none of them seen: over and over."""
    return _way(lambda call: _go_away(call, 0, code))


def goes_away_after_the_answer(seconds: float) -> Way:
    def answer(call: GrpcCall) -> None:
        call.ok()
        call.backend.good.wait(seconds)
        _go_away(call, call.stream, 0)

    return _way(answer, taken=True)


def _storm(call: GrpcCall) -> None:
    one = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + call.stream.to_bytes(4, "big") + bytes(4)
    call.peer.pour(one * 500, pause=0.01)
    raise Gone


def _pings(call: GrpcCall) -> None:
    call.peer.pour((b"\x00\x00\x08\x06\x00\x00\x00\x00\x00" + b"pingping") * 500, pause=0.01)
    raise Gone


def _settings(call: GrpcCall) -> None:
    call.peer.pour(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" * 500, pause=0.01)
    raise Gone


goaway_storm = _way(_storm)
ping_flood = _way(_pings)
settings_flood = _way(_settings)


def _hang(call: GrpcCall) -> None:
    call.peer.linger()
    raise Gone


def _hang_after_headers(call: GrpcCall) -> None:
    call.begin()
    call.peer.linger()
    raise Gone


def _close(call: GrpcCall) -> None:
    raise Gone


def _drip(call: GrpcCall) -> None:
    call.begin()
    for byte in frame(b""):
        call.data(bytes([byte]))
        if call.backend.good.wait(1):
            break
    raise Gone


never_answers = _way(_hang, taken=True)
hangs_after_headers = _way(_hang_after_headers, taken=True)
closes_after_request = _way(_close, taken=True)
drips_an_answer = _way(_drip, taken=True)


def _pour_headers(call: GrpcCall) -> None:
    for _ in range(200):
        pairs = [(":status", "103")] + [(f"x-{i}", "y" * 100) for i in range(50)]
        call.h2.send_headers(call.stream, pairs)
        call.flush()
    call.ok()


def _huge_trailer(call: GrpcCall) -> None:
    call.begin()
    call.data(frame(b""))
    call.send_headers(("grpc-status", "0"), ("x-huge", "h" * 15000), end=True)


def _endless(call: GrpcCall) -> None:
    call.begin()
    piece = bytes(16384)
    head = b"\x00\xff\xff\xff\xff"
    call.data(head)
    try:
        while not call.backend.is_good:
            for event in call.h2.receive_data(b""):
                del event
            if call.h2.local_flow_control_window(call.stream) < len(piece):
                call.h2.receive_data(call.peer.read_some())
                continue
            call.data(piece)
    finally:
        call.record.taken = True
    raise Gone


informational_flood = _way(_pour_headers, taken=True)
huge_trailer = _way(_huge_trailer, taken=True)
endless_message = _way(_endless, taken=True)

http_1_only = Way(
    connect=lambda peer: (peer.read_some(), peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"))
)
not_http_2 = Way(connect=lambda peer: (peer.read_some(), peer.send(b"\x15\x03\x01\x00\x02\x02\x46" * 9)))

empty = frame(b"")
ok_gzipped = answers(gzip_frame(b""), 0, "application/grpc", True, ("grpc-encoding", "gzip"))
ok_unknown_encoding = answers(frame(b"\x01\x02\x03", 1), 0, "application/grpc", True, ("grpc-encoding", "snappy"))
no_status = answers(empty, None)
no_status_not_taken = answers(empty, None, "application/grpc", False)
no_status_no_message = answers(b"", None)
ok_without_a_message = answers(b"")
two_messages = answers(empty + empty)
cut_message = answers(b"\x00\x00\x00\x00\x09abc")
garbage_message = answers(frame(bytes(range(255, 200, -1))))
long_claim = answers(b"\x00\xff\xff\xff\xff" + b"x" * 100)
web_page = answers(b"<html>sign in</html>", None, "text/html", False)
wrong_content_type = answers(empty, 0, "application/json")
garbage_status = _way(lambda call: (call.begin(), call.data(empty), call.trailers("zero")), True)
odd_status = _way(lambda call: (call.begin(), call.data(empty), call.trailers(99, "beyond")))
negative_status = _way(lambda call: (call.begin(), call.data(empty), call.trailers(-1)))
