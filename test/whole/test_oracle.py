"""What goes out is what the agent said, field by field, in every protocol: the official protobuf
package reads it, and a strict reader of our own the JSON."""

from __future__ import annotations

import itertools
import time

import pytest

import oracle
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
            assert request.headers.get(encoding) == ("gzip" if compression == "gzip" else None)
        assert found == [], f"{protocol}, {compression}, content {content}"
    assert_ledger(d, *(f"e{number}" for number in range(len(ways))))
