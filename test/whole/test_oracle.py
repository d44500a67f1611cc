"""What goes out is what the agent said, field by field, in every protocol: the official protobuf
package reads it, and a strict reader of our own the JSON."""

from __future__ import annotations

import itertools
import time

import pytest

import oracle
import oracle_metrics
from backends import decode
from backends.grpc import GrpcBackend
from backends.server import Backend
from conftest import assert_ledger, eventually

PROTOCOLS = ("http/protobuf", "http/json", "grpc")
RESOURCE = {
    "deployment.environment.name": "tést",
    "host.cpu.count": 2,
    "list": ["a", 1, None],
    "map": {"k": {"v": b"\x00\xff"}},
    "big": (1 << 62) + 1,
    "ratio": 0.5,
    "yes": True,
}
EXPECTED_RESOURCE = {
    "service.name": "oracle",
    **RESOURCE,
    "telemetry.sdk.name": "sidelight",
    "telemetry.sdk.version": "test/0",
}


def backend_of(protocol: str, **options) -> Backend:
    return GrpcBackend(**options) if protocol == "grpc" else Backend(protocol=protocol, **options)


def exporter(name: str, backend: Backend, **options) -> dict:
    return {"name": name, "type": "otlp", "endpoint": backend.endpoint,
            "protocol": backend.protocol, **options}  # fmt: skip


@pytest.fixture
def backends():
    """backends(protocol, …): open until the test ends; a request that does not decode fails it."""
    opened = []

    def make(protocol: str, **options) -> Backend:
        opened.append(backend_of(protocol, **options))
        opened[-1].turn_good()
        return opened[-1]

    yield make
    for backend in opened:
        backend.close()


def play(daemon) -> oracle.Session:
    session = oracle.Session(time.time_ns() - 60 * oracle.SECOND)
    with daemon.agent(hello=False) as agent:
        agent.send([0, {"v": 1, "service": "oracle", "sdk": "test/0", "resource": RESOURCE}])
        oracle.play(session, agent)
        assert agent.flush() == []
    return session


def requests_with(backend: Backend, signal: str, count: int) -> list:
    """The requests of that signal, once they have as many items."""
    return eventually(
        lambda: (found := backend.taken(signal)) and sum(len(r.items) for r in found) >= count and found,
        what=f"{count} {signal}: {backend.faults} {[len(r.items) for r in backend.taken(signal)]}",
    )


def test_every_protocol_says_every_field_of_every_span(daemon, backends):
    ways = list(itertools.product(PROTOCOLS, ("none", "gzip"), (False, True)))
    opened = [backends(protocol) for protocol, _, _ in ways]
    exporters = [
        exporter(f"e{number}", backend, compression=compression, content=content)
        for number, (backend, (_, compression, content)) in enumerate(zip(opened, ways))
    ]
    d = daemon({"exporters": exporters})
    session = play(d)
    for backend, (protocol, compression, content) in zip(opened, ways):
        expected = session.expected(content)
        requests = requests_with(backend, "traces", len(expected))
        found = oracle.differences(expected, oracle.spans_in(requests))
        for request in requests:
            found += oracle.resource_differences(EXPECTED_RESOURCE, request.message.resource_spans)
            scopes = [s for r in request.message.resource_spans for s in r.scope_spans]
            assert {s.scope.name for s in scopes} == {"sidelight"}
            encoding = "grpc-encoding" if protocol == "grpc" else "content-encoding"
            said = request.headers.get(encoding, "none")
            # What is too small to become smaller goes as it is.
            assert said == compression or (said == "none" and request.message.ByteSize() < 1024)
        assert found == [], f"{protocol}, {compression}, content {content}"
    assert_ledger(d, *(f"e{number}" for number in range(len(ways))))


def test_metrics_are_those_of_a_scrape(daemon, backends):
    began = time.time_ns()
    opened = [backends(protocol) for protocol in PROTOCOLS]
    options = {"signals": ["metrics"], "metrics_interval": "1s"}
    exporters = [exporter(f"e{n}", b, **options) for n, b in enumerate(opened)]
    d = daemon({"exporters": exporters, "service": {"name": "metered"}})
    play(d)
    for backend in opened:
        requests_with(backend, "metrics", 1)
    before = d.metrics()
    counts = [len(backend.taken("metrics")) for backend in opened]
    for backend, count in zip(opened, counts):
        eventually(lambda: len(backend.taken("metrics")) > count)
    reports = [backend.taken("metrics")[count].message for backend, count in zip(opened, counts)]
    after = d.metrics()
    for backend, report in zip(opened, reports):
        assert oracle_metrics.differences(before, report, after) == [], backend.protocol
        for metric in oracle_metrics.metrics_in(report):
            oracle_metrics.check_times(metric, began, time.time_ns())
            assert metric.description
        (resource,) = report.resource_metrics
        said = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
        assert said["service.name"]
        assert len(report.resource_metrics) == len(resource.scope_metrics) == 1
        assert resource.scope_metrics[0].scope.name == "sidelight"


def test_a_log_event_for_each_request(daemon, backends):
    """The event of a root's end: whose it is and when, with its content only where that is asked for."""
    ways = list(itertools.product(PROTOCOLS, (False, True)))
    opened = [backends(protocol) for protocol, _ in ways]
    exporters = [
        exporter(f"e{n}", backend, signals=["logs"], content=content)
        for n, (backend, (_, content)) in enumerate(zip(opened, ways))
    ]
    d = daemon({"exporters": exporters})
    session = play(d)
    roots = {oracle.span_id(run_id): session.spans[oracle.span_id(run_id)] for run_id in session.roots}
    same = {}
    for backend, (protocol, content) in zip(opened, ways):
        requests = eventually(
            lambda: (taken := backend.taken("logs"))
            and roots.keys() <= {record.span_id for r in taken for record in r.items}
            and taken,
            what=f"{len(roots)} requests' events: {backend.faults}",
        )
        # A child that comes after its request has ended has an event of its own.
        everything = [record for request in requests for record in request.items]
        records = [record for record in everything if record.span_id in roots]
        assert sorted(record.span_id for record in records) == sorted(roots)
        for record in records:
            root = roots[record.span_id]
            assert record.trace_id == root.trace_id
            assert root.start_time_unix_nano <= record.time_unix_nano <= root.end_time_unix_nano
            assert root.end_time_unix_nano <= record.observed_time_unix_nano <= time.time_ns()
            assert record.event_name == "sidelight.observation"
            oracle.attributes_of(record.attributes)  # none of them twice
        for request in requests:
            groups = request.message.resource_logs
            assert oracle.resource_differences(EXPECTED_RESOURCE, groups) == []
        assert ("Prestatyn" in str(records)) == content
        texts = sorted(record.SerializeToString(deterministic=True) for record in records)
        assert same.setdefault(content, texts) == texts, f"{protocol} says something else"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_unix_socket_is_an_endpoint(daemon, backends, tmp_path, protocol):
    backend = backends(protocol, path=tmp_path / "backend.sock")
    d = daemon({"exporters": [exporter("e", backend)]})
    expected = play(d).expected(content=False)
    requests = requests_with(backend, "traces", len(expected))
    assert oracle.differences(expected, oracle.spans_in(requests)) == []
    assert_ledger(d, "e")


# --- the oracle itself can fail ---------------------------------------------------------------


def leaves(message, path=()):
    """The path of every field that holds a value, down to the last."""
    for field, value in message.ListFields():
        several = list(value) if field.is_repeated else None
        for index, one in enumerate(several) if several is not None else [(None, value)]:
            here = (*path, (field.name, index))
            if field.message_type:
                yield from leaves(one, here)
            else:
                yield here


def altered(message, path):
    """A copy of the message with another value at that path."""
    copy = type(message).FromString(message.SerializeToString())
    at = copy
    for name, index in path[:-1]:
        at = getattr(at, name) if index is None else getattr(at, name)[index]
    (name, _), old = path[-1], getattr(at, path[-1][0])
    if isinstance(old, bool):
        new = not old
    elif isinstance(old, float):
        new = 42.5
    elif isinstance(old, int):
        new = old ^ 1
    else:
        new = old[:-1] + (b"~" if isinstance(old, bytes) else "~")
    setattr(at, name, new)
    return copy


def test_the_oracle_sees_every_change_of_a_span():
    class Nobody:
        def send(self, *messages):
            pass

    session = oracle.Session(time.time_ns())
    oracle.play(session, Nobody())
    seen = 0
    for key, span in session.expected(content=True).items():
        assert oracle.differences({key: span}, [span]) == []
        for path in leaves(span):
            assert oracle.differences({key: span}, [altered(span, path)]) != [], path
            seen += 1
    assert seen > 500


GOOD_JSON = (
    b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"' + b"0a" * 16 + b'","spanId":"'
    + b"0b" * 8 + b'","kind":3,"startTimeUnixNano":"17","attributes":[{"key":"n","value":'
    b'{"intValue":"5"}},{"key":"b","value":{"bytesValue":"AAE="}}]}]}]}]}'
)  # fmt: skip


def test_good_json_is_read():
    (span,) = decode.items("traces", decode.from_json("traces", GOOD_JSON))
    assert (span.trace_id, span.span_id) == (b"\x0a" * 16, b"\x0b" * 8)
    assert (span.kind, span.start_time_unix_nano) == (3, 17)
    assert [a.value.WhichOneof("value") for a in span.attributes] == ["int_value", "bytes_value"]


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (b'"17"', b"17"),
        (b'{"intValue":"5"}', b'{"intValue":5}'),
        (b'{"intValue":"5"}', b'{"doubleValue":NaN}'),
        (b'"kind":3', b'"kind":"SPAN_KIND_CLIENT"'),
        (b'"kind":3', b'"kind":3,"kind":3'),
        (b'"kind":3', b'"sort":3'),
        (b"0a" * 16, b"0A" * 16),
        (b"0a" * 16, b"CgoKCgoKCgoKCgoKCgoKCg=="),
        (b"startTimeUnixNano", b"start_time_unix_nano"),
        (b'"AAE="', b'"AAE"'),
        (b"}]}]}", b"}]}],}"),
    ],
)
def test_bad_json_is_refused(good, bad):
    assert good in GOOD_JSON
    with pytest.raises(Exception):
        decode.from_json("traces", GOOD_JSON.replace(good, bad, 1))
