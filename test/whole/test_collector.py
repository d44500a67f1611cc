"""A real OpenTelemetry Collector takes what the daemon sends, in each protocol, with and without
TLS, and says the same again: a backend that others wrote agrees with ours about every field."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import oracle
import oracle_metrics
from backends.certs import Certificates
from backends.server import Backend
from conftest import Daemon, assert_ledger, clean_environment, eventually
from test_oracle import EXPECTED_RESOURCE, play, requests_with

MODULE = Path(__file__).parent.parent / "peers" / "collector"
PROTOCOLS = ("http/protobuf", "http/json", "grpc")
TRANSPORTS = ("plain", "tls", "mtls")


def go() -> list[str]:
    """The command that tools/setup builds it with, as far as it is there."""
    for program in (os.environ.get("GO"), shutil.which("go"), "/usr/local/go/bin/go"):
        if program and os.access(program, os.X_OK):
            return [program, "-C", str(MODULE)]
    pytest.skip("no Go: the Collector can't be built")


def version_of(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.search(r"go ?(\d+(?:\.\d+)*)", text)[1].split(".")))


@pytest.fixture(scope="module")
def collector_program(tmp_path_factory) -> Path:
    """SIDELIGHT_COLLECTOR names one that tools/setup built; else Go builds it here."""
    if built := os.environ.get("SIDELIGHT_COLLECTOR"):
        return Path(built)
    environment = {**os.environ, "GOFLAGS": "-buildvcs=false -mod=readonly", "GOTOOLCHAIN": "local"}

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [*go(), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)

    version = subprocess.run([go()[0], "version"], capture_output=True, text=True, check=True)
    needed = version_of(re.search(r"^go .*", (MODULE / "go.mod").read_text(), re.M)[0])
    if version_of(version.stdout.split("version")[1]) < needed:
        pytest.skip(f"{version.stdout.strip()} is older than the Collector needs")
    if run("mod", "download").returncode != 0:
        pytest.skip("the Collector's modules can't be had")
    path = tmp_path_factory.mktemp("collector") / "collector"
    done = run("build", "-o", str(path), ".")
    assert done.returncode == 0, done.stderr
    return path


class Collector:
    """Six receivers (gRPC and HTTP: plain, TLS, mutual TLS), each told apart by its pipeline's
    exporter: a backend of ours for each."""

    def __init__(self, program: Path, directory: Path):
        self.certs = Certificates(directory)
        self.outputs = {way: Backend(protocol="http/json") for way in TRANSPORTS}
        for backend in self.outputs.values():
            backend.turn_good()
        file = directory / "collector.yaml"
        file.write_text(json.dumps(self._config(), default=str))
        self.log = directory / "collector.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [str(program), "--config", f"file:{file}"], stdout=log, stderr=log, env=clean_environment()
            )
        self.ports = {}
        eventually(self._is_ready, 30, "the Collector is ready")

    def _config(self) -> dict:
        chain, key = self.certs.files("good")
        tls = {"cert_file": chain, "key_file": key}
        ways = {"plain": {}, "tls": {"tls": tls},
                "mtls": {"tls": {**tls, "client_ca_file": self.certs.ca_file}}}  # fmt: skip
        listen = {"endpoint": "127.0.0.1:0"}
        receivers = {
            f"otlp/{way}": {"protocols": {"grpc": {**listen, **more}, "http": {**listen, **more}}}
            for way, more in ways.items()
        }
        exporters = {
            f"otlp_http/{way}": {
                "endpoint": self.outputs[way].endpoint, "encoding": "json", "compression": "none",
                "sending_queue": {"enabled": False}, "retry_on_failure": {"enabled": False},
            }
            for way in ways
        }  # fmt: skip
        pipelines = {
            f"{signal}/{way}": {"receivers": [f"otlp/{way}"], "exporters": [f"otlp_http/{way}"]}
            for way in ways for signal in ("traces", "metrics", "logs")
        }  # fmt: skip
        telemetry = {"metrics": {"level": "none"}, "logs": {"encoding": "json"}}
        return {"receivers": receivers, "exporters": exporters,
                "service": {"pipelines": pipelines, "telemetry": telemetry}}  # fmt: skip

    def _is_ready(self) -> bool:
        """Its log says which ports it took."""
        said = self.log.read_text()
        assert self.process.poll() is None, said
        for line in said.splitlines():
            entry = json.loads(line)
            if match := re.match(r"Starting (GRPC|HTTP) server", entry.get("msg", "")):
                way = str(entry.get("otelcol.component.id")).split("/")[1]
                self.ports[way, match[1].lower()] = entry["endpoint"].rsplit(":", 1)[1]
        return "Everything is ready" in said and all(port != "0" for port in self.ports.values())

    def exporter(self, protocol: str, way: str, **options) -> dict:
        """What the daemon's configuration says of one way into it."""
        port = self.ports[way, "grpc" if protocol == "grpc" else "http"]
        tls = {"plain": {}, "tls": {"ca_file": str(self.certs.ca_file)}, "mtls": {}}[way]
        if way == "mtls":
            chain, key = self.certs.files("client")
            tls = {"ca_file": str(self.certs.ca_file), "cert_file": str(chain), "key_file": str(key)}
        scheme = "http" if way == "plain" else "https"
        return {
            "name": "collector", "type": "otlp", "endpoint": f"{scheme}://127.0.0.1:{port}",
            "protocol": protocol, **({"tls": tls} if tls else {}), **options,
        }  # fmt: skip

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        for backend in self.outputs.values():
            backend.close()


@pytest.fixture(scope="module")
def collector(collector_program, tmp_path_factory):
    one = Collector(collector_program, tmp_path_factory.mktemp("collector-config"))
    yield one
    one.close()


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_collector_says_the_same_again(daemon, collector, protocol, transport, compression):
    output = collector.outputs[transport]
    output.requests.clear()
    options = {"compression": compression, "content": True}
    d: Daemon = daemon({"exporters": [collector.exporter(protocol, transport, **options)]})
    began = time.monotonic()
    session = play(d)
    expected = session.expected(content=True)
    requests = requests_with(output, "traces", len(expected))
    assert time.monotonic() - began < 10
    found = oracle.differences(expected, oracle.spans_in(requests))
    for request in requests:
        found += oracle.resource_differences(EXPECTED_RESOURCE, request.message.resource_spans)
    assert found == []
    assert_ledger(d, "collector")
    assert d.stop() == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_collector_says_the_same_metrics_again(daemon, collector, protocol):
    output = collector.outputs["plain"]
    output.requests.clear()
    options = {"signals": ["metrics"], "metrics_interval": "1s"}
    d = daemon({"exporters": [collector.exporter(protocol, "plain", **options)]})
    play(d)
    count = len(requests_with(output, "metrics", 1))
    before = d.metrics()
    eventually(lambda: len(output.taken("metrics")) > count)
    after = d.metrics()
    report = output.taken("metrics")[count].message
    assert oracle_metrics.differences(before, report, after) == []


def is_all_delivered(metrics, exporter: str) -> bool:
    stored = metrics("sidelight_observations_stored_total") + metrics("sidelight_events_stored_total")
    return 0 < stored == metrics("sidelight_log_records_delivered_total", exporter=exporter)


def records_in(requests) -> list[bytes]:
    return sorted(r.SerializeToString(deterministic=True) for request in requests for r in request.items)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_collector_says_the_same_log_events_again(daemon, collector, protocol):
    output = collector.outputs["plain"]
    output.requests.clear()
    options = {"signals": ["logs"], "content": True}
    with Backend() as direct:
        direct.turn_good()
        straight = {**collector.exporter("http/protobuf", "plain", **options), "name": "straight"}
        d = daemon({"exporters": [collector.exporter(protocol, "plain", **options),
                                  {**straight, "endpoint": direct.endpoint}]})  # fmt: skip
        play(d)
        eventually(lambda: is_all_delivered(d.metrics(), "straight"), what="all is delivered")
        said = records_in(direct.taken("logs"))  # of requests, and of what came too late for one
        again = records_in(requests_with(output, "logs", len(said)))
    assert said == again
