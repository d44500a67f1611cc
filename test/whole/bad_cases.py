"""The rows of test_bad_backends.py: what each backend does, and what must come of it."""

from __future__ import annotations

import dataclasses

from backends import decode
from backends import grpc_ways as g
from backends import http_ways as h
from backends.certs import Certificates
from backends.grpc import GrpcBackend
from backends.server import Backend, Way

WAITS = "waits"  # every span waits, and goes out once the backend is good
DELIVERS = "delivers"  # the backend is odd, but took them
PARKED = "parked"  # the backend asked for more time than a test has
HALVES = "halves"  # smaller requests pass
FLAPS = "flaps"  # every other request passes
MOST = 15  # rows of one daemon, that takes 16 exporters
ANY = "any"  # delivered, rejected or tried again: what matters is that the books are right


@dataclasses.dataclass
class Env:
    """What cases share."""

    certs: Certificates
    target: Backend  # where redirects lead to: nothing may ever come here


@dataclasses.dataclass
class Case:
    name: str
    way: object = dataclasses.field(default_factory=Way)  # or env -> one
    then: str = WAITS  # or the reason with which all are rejected
    log: str | None = None  # a pattern of what must be logged; None: nothing need be
    partly: object = None  # how many of a request's spans are rejected by partial_success
    ambiguous: bool = False  # it may have taken what is sent again: duplicates are allowed
    requests: int | None = None  # at most, while it is bad; None: what `then` allows
    timeout: str = "5s"
    protocol: str = "http/protobuf"
    group: str = "http"
    make: object = dataclasses.field(default_factory=dict)  # options of the backend, or env -> them
    options: object = dataclasses.field(default_factory=dict)  # of the exporter, or env -> them
    endpoint: str = "{scheme}://127.0.0.1:{port}"
    least_gap: float = 0  # seconds between two requests, at least
    flood: bool = False  # it pours as fast as it can: costs a CPU

    def backend(self, env: Env) -> Backend:
        way = self.way(env) if callable(self.way) else self.way
        make = self.make(env) if callable(self.make) else self.make
        if self.protocol == "grpc":
            return GrpcBackend(way, **make)
        return Backend(way, protocol=self.protocol, **make)

    def exporter(self, env: Env, backend: Backend) -> dict:
        """What the configuration says of it."""
        return {
            "name": self.name,
            "type": "otlp",
            "endpoint": self.endpoint.format(scheme=backend.scheme, port=backend.port),
            "protocol": self.protocol,
            "timeout": self.timeout,
            **(self.options(env) if callable(self.options) else self.options),
        }


def _silent(name: str, way: Way, log: str = "no answer|timed out|too slow", **more) -> Case:
    return Case(name, way, WAITS, log, timeout="500ms", **more)


def _odd(name: str, way: Way, **more) -> Case:
    return Case(name, way, DELIVERS, **more)


def _unsure(name: str, way: Way, **more) -> Case:
    """It read all and said nothing that can be understood."""
    return Case(name, way, WAITS, "no answer", ambiguous=True, **more)


# --- HTTP ---------------------------------------------------------------------------------------

CONNECTIONS = [
    Case("refused", then=WAITS, log="is the backend running", make={"listening": False}),
    _silent("syn_black_hole", Way(), make={"clogged": True}),
    _silent("never_reads", h.never_reads),
    _silent("says_nothing", h.says_nothing),
    Case("closes_at_once", h.closes_at_once, WAITS, "no answer"),
    Case("resets_at_once", h.resets_at_once, WAITS, "no answer"),
    Case("resets_mid_body", h.resets_mid_body, WAITS, "no answer"),
    _unsure("resets_after_request", h.resets_after_request),
    _unsure("closes_after_request", h.closes_after_request),
    _silent("never_answers", h.never_answers, ambiguous=True),
    _silent("one_byte_a_second", h.drips_an_answer, ambiguous=True),
    _odd("cuts_its_answer", h.cuts_its_answer, log="broke off"),
    _odd("cuts_its_head", h.cuts_its_head),
    _odd("slow_but_fine", h.slow(0.5)),
    Case("flapping_503", h.flapping(h.status(503)), FLAPS, "HTTP 503"),
]

def _refused(code: int, reason: str | None = None, log: str | None = None, **more) -> Case:
    reason = reason or f"http_{code}"
    return Case(f"status_{code}", h.status(code), reason, log or f"HTTP {code}", **more)


STATUSES = [
    *[_refused(code) for code in (400, 401, 403, 404, 405, 415, 422, 500)],
    *[_refused(code, "http_other") for code in (402, 408, 409, 410, 418, 431, 501, 505)],
    *[Case(f"status_{code}", h.status(code), WAITS, f"HTTP {code}") for code in (429, 502, 503, 504)],
    Case("status_400_own_words", h.status(400, b"\x12\x0bno such dog", "application/x-protobuf"),
         "http_400", "no such dog"),
    Case("status_500_page", h.status(500, h.html, "text/html"), "http_500", "HTTP 500"),
    Case("status_503_garbage", h.status(503, h.garbage, "application/x-protobuf"), WAITS, "HTTP 503"),
    Case("too_large_for_ever", h.status(413), "http_413", "HTTP 413", requests=2000),
    Case("too_large_over_7", h.too_large_over(7), HALVES, requests=2000),
    Case("flapping_400", h.flapping(h.status(400)), "some http_400", "HTTP 400"),
]  # fmt: skip

THROTTLES = [
    Case("retry_after_0", h.retry_after(503, 0), WAITS, "HTTP 503"),
    Case("retry_after_minus_1", h.retry_after(503, -1), WAITS, "HTTP 503"),
    Case("retry_after_1e9", h.retry_after(503, 10**9), PARKED, "HTTP 503", requests=1),
    Case("retry_after_1e30", h.retry_after(429, 10**30), PARKED, "HTTP 429", requests=1),
    Case("retry_after_1", h.retry_after(429, 1), WAITS, "HTTP 429", least_gap=1),
    Case("retry_after_past_date", h.retry_after(503, h.date(-3600)), WAITS, "HTTP 503"),
    Case("retry_after_1970", h.retry_after(503, "Thu, 01 Jan 1970 00:00:00 GMT"), WAITS, "HTTP 503"),
    Case("retry_after_future_date", h.retry_after(503, h.date(2.5)), WAITS, "HTTP 503",
         least_gap=1.2),
    Case("retry_after_far_date", h.retry_after(429, h.date(86400 * 365)), PARKED, "HTTP 429", requests=1),
    Case("retry_after_garbage", h.retry_after(503, "soon, I hope"), WAITS, "HTTP 503"),
    Case("retry_after_1s", h.retry_after(503, "1s"), WAITS, "HTTP 503"),
    Case("retry_after_empty", h.retry_after(429, ""), WAITS, "HTTP 429"),
    Case("retry_after_on_400", h.retry_after(400, 1), "http_400", "HTTP 400"),
]  # fmt: skip

BODIES = [
    _odd("no_body", h.status(200, taken=True)),
    _odd("status_201", h.status(201, taken=True)),
    _odd("status_202", h.status(202, taken=True)),
    _odd("status_204", h.status(204, taken=True)),
    _odd("garbage", h.status(200, h.garbage, "application/x-protobuf", taken=True), log="no OTLP"),
    _odd("text", h.status(200, b"OK\n", "text/plain", taken=True)),
    _odd("json_answer", h.status(200, b'{"partialSuccess":{}}', "application/json", taken=True)),
    _odd("json_answer_cut", h.status(200, b'{"partialSucc', "application/json", taken=True)),
    _odd("gzip_answer", h.gzipped(b""), ),
    _odd("not_gzip", h.not_gzip),
    Case("web_page", h.status(200, h.html, "text/html; charset=utf-8"), "not_otlp", "web page"),
    Case("gzip_bomb", h.gzip_bomb(), DELIVERS),
    Case("endless_body", h.endless_body, "response_too_long", "longer than", flood=True),
    Case("endless_chunks", h.endless_chunks, "response_too_long", "longer than", flood=True),
    Case("endless_503", h.endless_body_of_an_error, ANY, "longer than|HTTP 503", flood=True),
]  # fmt: skip

ANSWERS = [
    _odd("continue_first", h.says_continue_first),
    _silent("continue_for_ever", h.says_continue_for_ever, "no answer|longer", ambiguous=True, flood=True),
    _unsure("only_continues", h.only_continues),
    _odd("early_hints", h.says_early_hints),
    Case("switches_protocols", h.switches_protocols, ANY, "no answer|HTTP 101", ambiguous=True),
    _unsure("http_0.9", h.http_09),
    _odd("http_1.0", h.http_10),
    _unsure("bad_status_line", h.bad_status_line),
    Case("status_999", h.status_999, "http_other", "HTTP 999|no answer"),
    _odd("chunked", h.chunked),
    _odd("chunked_garbage", h.chunked_garbage),
    _odd("chunk_of_gigabytes", h.chunk_of_gigabytes),
    Case("lying_length", h.lying_length, ANY, ambiguous=True),
    Case("negative_length", h.negative_length, ANY, ambiguous=True),
    Case("two_lengths", h.two_lengths, ANY, ambiguous=True),
    Case("early_503", h.early_answer, WAITS, "HTTP 503"),
]

HEADERS = [
    Case("smtp_banner", h.smtp_banner, WAITS, "no answer"),
    Case("early_400_and_close", h.early_answer_and_close, "http_400", "HTTP 400"),
    Case("endless_headers", h.endless_headers, ANY, ambiguous=True, flood=True),
    Case("endless_header", h.endless_header, ANY, ambiguous=True, flood=True),
    _silent("drips_headers", h.drips_headers, "no answer|broke off", ambiguous=True),
    Case("huge_header", h.huge_header, ANY, ambiguous=True),
]

_SOME = dict(then="partial_success", log="not all")
PARTIAL = [
    Case("partly_3", h.partly(3, "too old"), partly=lambda n: min(3, n), **_SOME),
    Case("partly_all", h.partly(lambda n: n, "no"), partly=lambda n: n, **_SOME),
    Case("partly_more_than_sent", h.partly(lambda n: n + 1000), partly=lambda n: n, **_SOME),
    Case("partly_2_63", h.partly((1 << 63) - 1), partly=lambda n: n, **_SOME),
    Case("partly_negative", h.partly(-5), partly=lambda n: 0, then="partial_success"),
    Case("partly_a_message", h.partly(0, "hello there"), partly=lambda n: 0,
         then="partial_success", log="hello there"),
    Case("partly_0", h.partly(0), partly=lambda n: 0, then="partial_success"),
]  # fmt: skip


# --- http/json ----------------------------------------------------------------------------------


def _json(case: Case) -> Case:
    return dataclasses.replace(case, name=f"json_{case.name}", protocol="http/json", group="json")


_json_body = "application/json"
JSON = [
    *[_json(case) for case in PARTIAL],
    _json(_odd("garbage", h.status(200, b'{"partialSucc', _json_body, taken=True))),
    _json(_odd("nothing", h.status(200, b"", _json_body, taken=True))),
    _json(_odd("protobuf", h.status(200, decode.response(), "application/x-protobuf", taken=True))),
    _json(Case("own_words", h.status(400, b'{"code":3,"message":"no such cat"}', _json_body),
               "http_400", "no such cat")),
    _json(Case("deep", h.status(200, b"[" * 100000, _json_body, taken=True), DELIVERS)),
    _json(Case("status_415", h.status(415), "http_415", "HTTP 415")),
]  # fmt: skip


# --- gRPC ---------------------------------------------------------------------------------------


def _grpc(name: str, way: Way, then: str = WAITS, log: str | None = None, **more) -> Case:
    return Case(f"grpc_{name}", way, then, log, protocol="grpc", group="grpc", **more)


_RETRYABLE = (1, 4, 10, 11, 14, 15)
_REASONS = {2: "unknown", 3: "invalid_argument", 5: "not_found", 6: "other", 7: "permission_denied",
            8: "resource_exhausted", 9: "other", 12: "unimplemented", 13: "internal",
            16: "unauthenticated"}  # fmt: skip

GRPC_STATUSES = [
    *[_grpc(f"status_{c}", g.fails(c, "no luck"), WAITS, f"gRPC status {c}.*no luck") for c in _RETRYABLE],
    *[
        _grpc(f"status_{c}", g.fails(c, "no luck"), f"grpc_{reason}", f"gRPC status {c}.*no luck")
        for c, reason in _REASONS.items()
    ],
]

GRPC_THROTTLES = [
    _grpc("exhausted_retry_info", g.fails(8, "busy", 1.0), WAITS, "status 8", least_gap=1),
    _grpc("exhausted_retry_info_0", g.fails(8, "busy", 0), WAITS, "status 8"),
    _grpc("unavailable_retry_info", g.fails(14, "busy", 1.0), WAITS, "status 14", least_gap=1),
    _grpc("unavailable_retry_info_1e9", g.fails(14, "busy", 1e9), PARKED, "status 14", requests=1),
    _grpc("unavailable_retry_info_minus_1", g.fails(14, "busy", -1), WAITS, "status 14"),
    _grpc("exhausted_details_garbage", g.fails(8, "busy", details=b"\xff" * 50),
          "grpc_resource_exhausted", "status 8"),
    _grpc("larger_than_max_7", g.too_large_over(7), HALVES, requests=2000),
    _grpc("larger_than_max_for_ever", g.too_large_over(0), "grpc_too_large", "larger", requests=2000),
    _grpc("fails_late", g.fails_late(14, "changed my mind"), WAITS, "status 14"),
    _grpc("fails_late_for_good", g.fails_late(3, "changed my mind"), "grpc_invalid_argument", "status 3"),
    _grpc("http_503", g.http_status(503), WAITS, "503"),
    _grpc("http_429", g.http_status(429), WAITS, "429"),
    _grpc("http_401", g.http_status(401), "grpc_unauthenticated", "401"),
    _grpc("http_403", g.http_status(403), "grpc_permission_denied", "403"),
    _grpc("http_404", g.http_status(404), "grpc_unimplemented", "404"),
]  # fmt: skip

# OK without the one message that gRPC wants is INTERNAL, as it is to gRPC's own clients.
GRPC_ANSWERS = [
    _grpc("no_status", g.no_status, ANY, ambiguous=True, requests=25),
    _grpc("no_status_no_message", g.no_status_no_message, ANY, ambiguous=True, requests=25),
    _grpc("no_status_now_and_then", h.flapping(g.no_status_not_taken), FLAPS, "without a grpc-status"),
    _grpc("no_message", g.ok_without_a_message, "grpc_internal", "can be read"),
    _grpc("two_messages", g.two_messages, "grpc_internal", "can be read"),
    _grpc("cut_message", g.cut_message, "grpc_internal", "can be read"),
    _grpc("garbage_message", g.garbage_message, "grpc_internal", "can be read"),
    _grpc("long_claim", g.long_claim, "grpc_internal", "can be read"),
    _grpc("gzip_message", g.ok_gzipped, "grpc_internal", "can be read"),
    _grpc("unknown_encoding", g.ok_unknown_encoding, "grpc_internal", "can be read"),
    _grpc("web_page", g.web_page, ANY, "."),
    _grpc("wrong_content_type", g.wrong_content_type, DELIVERS),
    _grpc("status_zero_in_letters", g.garbage_status, ANY, ambiguous=True),
    _grpc("status_99", g.odd_status, ANY, "."),
    _grpc("status_minus_1", g.negative_status, ANY, "."),
    _grpc("huge_trailer", g.huge_trailer, DELIVERS),
]

GRPC_STREAMS = [
    _grpc("reset_7", g.resets(7), WAITS, ".", requests=150),  # REFUSED_STREAM: curl itself tries six times
    _grpc("reset_7_now_and_then", h.flapping(g.resets(7)), FLAPS),
    *[_grpc(f"reset_{c}", g.resets(c), WAITS, ".") for c in (8, 11)],
    *[_grpc(f"reset_{c}", g.resets(c, taken=True), ANY, ".", ambiguous=True) for c in (0, 1, 2)],
    _grpc("reset_instead_of_trailers", g.resets_after_status(2), ANY, ".", ambiguous=True),
    _grpc("goes_away", g.goes_away(), WAITS, "."),
    _grpc("goes_away_calm", g.goes_away(11), WAITS, "."),
    _grpc("goes_away_after_the_answer", g.goes_away_after_the_answer(0.05), DELIVERS),
    # curl 7.88 may lose trailers that come together with a GOAWAY.
    _grpc("goes_away_with_the_answer", g.goes_away_after_the_answer(0), ANY, ambiguous=True),
    _grpc("closes_after_request", g.closes_after_request, WAITS, ".", ambiguous=True),
    _grpc("never_answers", g.never_answers, WAITS, ".", ambiguous=True, timeout="500ms"),
    _grpc("hangs_after_headers", g.hangs_after_headers, WAITS, ".", ambiguous=True, timeout="500ms"),
    _grpc("one_byte_a_second", g.drips_an_answer, WAITS, ".", ambiguous=True, timeout="500ms"),
    _grpc("refused", Way(), WAITS, "is the backend running", make={"listening": False}),
]

GRPC_FLOODS = [
    _grpc("goaway_storm", g.goaway_storm, WAITS, ".", flood=True, timeout="500ms", ambiguous=True),
    _grpc("ping_flood", g.ping_flood, WAITS, ".", flood=True, timeout="500ms", ambiguous=True),
    _grpc("settings_flood", g.settings_flood, WAITS, ".", flood=True, timeout="500ms", ambiguous=True),
    _grpc("informational_flood", g.informational_flood, ANY, flood=True, ambiguous=True, timeout="2s"),
    _grpc("endless_message", g.endless_message, ANY, flood=True, ambiguous=True, timeout="2s"),
    _grpc("http_1_only", g.http_1_only, WAITS, "."),
    _grpc("not_http_2", g.not_http_2, WAITS, "."),
    _grpc("partly_3", g.partly(3, "too old"), partly=lambda n: min(3, n), **_SOME),
    _grpc("partly_more_than_sent", g.partly(lambda n: n + 9), partly=lambda n: n, **_SOME),
    _grpc("partly_a_message", g.partly(0, "hello"), partly=lambda n: 0, then="partial_success",
          log="hello"),
]


# --- redirects, TLS, names ----------------------------------------------------------------------


def _redirect(code: int) -> Case:
    return Case(f"redirect_{code}", lambda env: h.redirect(code, env.target), "http_other",
                f"HTTP {code}.*redirects are not followed")  # fmt: skip


def _trusting(env: Env) -> dict:
    return {"tls": {"ca_file": str(env.certs.ca_file)}}


def _tls(name: str, way: str, log: str = "certificate", **more) -> Case:
    """A certificate that is bad, then a good one."""

    def make(env: Env) -> dict:
        h2 = more.get("protocol") == "grpc"
        return {"tls": env.certs.server("good", h2), "bad_tls": env.certs.server(way, h2)}

    return Case(f"tls_{name}", Way(), WAITS, log, group="tls", make=make, options=_trusting, **more)


def _https(env: Env) -> dict:
    return {"tls": env.certs.server()}


def _https_h2(env: Env) -> dict:
    return {"tls": env.certs.server(h2=True)}


REDIRECTS = [_redirect(code) for code in (300, 301, 302, 303, 307, 308)]

TLS = [
    *[_tls(way, way) for way in ("expired", "not_yet_valid", "wrong_host", "unknown_authority", "self_signed")],
    _tls("expired_grpc", "expired", protocol="grpc"),
    Case("tls_handshake_hangs", h.says_nothing, WAITS, "no answer", group="tls", timeout="500ms",
         make=_https, options=_trusting),
    Case("tls_grpc_handshake_hangs", h.says_nothing, WAITS, ".", group="tls", timeout="500ms",
         protocol="grpc", make=_https_h2, options=_trusting),
    Case("tls_closes_at_once", h.closes_at_once, WAITS, "no answer", group="tls", make=_https, options=_trusting),
    Case("tls_plain_http_there", h.smtp_banner, WAITS, "no answer", group="tls", make=_https, options=_trusting),
    Case("tls_client_unknown", Way(), WAITS, ".", group="tls", options=_trusting, ambiguous=True,
         make=lambda env: {"tls": env.certs.server(), "bad_tls": env.certs.server(mutual=True)}),
    Case("tls_503", h.status(503), WAITS, "HTTP 503", group="tls", make=_https, options=_trusting),
    Case("tls_resets_after_request", h.resets_after_request, WAITS, "no answer", group="tls",
         make=_https, options=_trusting, ambiguous=True),
    Case("tls_no_h2", Way(), WAITS, ".", group="tls", protocol="grpc", options=_trusting,
         make=lambda env: {"tls": env.certs.server(h2=True), "bad_tls": env.certs.server()}),
    Case("http_to_an_https_port", Way(), WAITS, "no answer", group="tls", endpoint="http://127.0.0.1:{port}",
         make=lambda env: {"tls": None, "bad_tls": env.certs.server()}),
]  # fmt: skip

NAMES = [
    Case(f"name_{name}", Way(), WAITS, log, group="names", timeout="1s",
         endpoint=f"http://{name}.sidelight.test:{{port}}")
    for name, log in (("missing", "host name"), ("hang", "no answer"),
                      ("broken", "host name"), ("garbage", "no answer"))
]  # fmt: skip


def _groups(name: str, rows: list[Case]) -> dict[str, list[Case]]:
    """Alike ones together, as evenly as a daemon's limit of exporters lets them be."""
    count = -(-len(rows) // MOST)
    return {f"{name}_{i + 1}": rows[i::count] for i in range(count)}


GROUPS = {
    **_groups("http", CONNECTIONS + STATUSES + THROTTLES + BODIES + ANSWERS + HEADERS + PARTIAL + REDIRECTS),
    **_groups("json", JSON),
    **_groups("grpc", GRPC_STATUSES + GRPC_THROTTLES + GRPC_ANSWERS + GRPC_STREAMS + GRPC_FLOODS),
    **_groups("tls", TLS),
    "names": NAMES,
}
