"""OpenTelemetry's variables: the real daemon with no exporters in its file, and what its environment
makes of that."""

from __future__ import annotations

import json
import subprocess

import pytest

from conftest import Agent, assert_ledger, clean_environment, eventually

OTLP = "OTEL_EXPORTER_OTLP_"
NO_EXPORTERS = {"exporters": None}  # the file leaves them out


def traces(sink) -> list:
    """The requests that were sent to where traces go by default."""
    return [r for r in sink.accepted() if r.path == "/v1/traces"]


def only_traces(env: dict) -> dict:
    return {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none", **env}


@pytest.fixture
def check_config(sidelightd, tmp_path):
    """check_config(env, config) is the exit code, the output and the errors of --check-config; without
    a config there is no file at all."""

    def run(env: dict, config: dict | None = None):
        command = [sidelightd, "--check-config", "--socket", str(tmp_path / "s.sock")]
        command += ["--data", str(tmp_path / "data")]
        if config is not None:
            file = tmp_path / "sidelight.yaml"
            file.write_text(json.dumps(config))
            command += ["--config", str(file)]
        done = subprocess.run(
            command,
            env={**clean_environment(), **env},
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done.returncode, done.stdout, done.stderr

    return run


def test_an_endpoint_is_all_that_it_takes(daemon, sink):
    d = daemon(NO_EXPORTERS, env={OTLP + "ENDPOINT": sink.endpoint})
    with d.agent() as agent:
        agent.runs(50)
        agent.flush()
    sink.wait(lambda s: sum(len(r.spans) for r in traces(s)) >= 50)
    assert len({span.span_id for r in traces(sink) for span in r.spans}) == 50
    eventually(
        lambda: d.metrics()("sidelight_spans_delivered_total", exporter="otlp") == 50,
        what="50 spans delivered",
    )
    assert_ledger(d, "otlp")
    assert d.stop() == 0


def test_a_signals_own_endpoint_and_headers_are_taken_as_they_are(daemon, sink):
    env = {
        OTLP + "TRACES_ENDPOINT": sink.endpoint + "/in/spans",
        OTLP + "HEADERS": "authorization=not this",
        OTLP + "TRACES_HEADERS": "Authorization=Basic%20c2VjcmV0==, x-scope=a%2Cb",
        OTLP + "TRACES_COMPRESSION": "none",
    }
    d = daemon(NO_EXPORTERS, env=env)
    with d.agent() as agent:
        agent.runs(1)
        agent.flush()
    sink.wait_for_spans(1)
    (request,) = sink.requests
    assert request.path == "/in/spans"
    assert request.headers["Authorization"] == "Basic c2VjcmV0=="
    assert request.headers["x-scope"] == "a,b"
    assert d.stop() == 0
    assert "c2VjcmV0" not in d.log


def test_a_signals_own_endpoint_without_a_path_means_the_root(daemon, sink):
    d = daemon(NO_EXPORTERS, env={OTLP + "TRACES_ENDPOINT": sink.endpoint})
    with d.agent() as agent:
        agent.runs(1)
        agent.flush()
    assert sink.wait_for_requests(1)[0].path == "/"


def test_resource_attributes_are_for_agents_that_name_none(daemon, sink):
    env = only_traces(
        {
            OTLP + "ENDPOINT": sink.endpoint,
            "OTEL_SERVICE_NAME": "from-env",
            "OTEL_RESOURCE_ATTRIBUTES": "service.name=hidden,deployment.environment.name=a%2Cb,y=2",
        }
    )
    service = {"name": "from-file", "attributes": {"x": "1", "y": "file"}}
    d = daemon({**NO_EXPORTERS, "service": service}, env=env)
    with Agent(d.socket, hello=False) as agent:
        agent.runs(1)
        agent.flush()
    sink.wait_for_spans(1)
    resource = sink.requests[0].message.resource_spans[0].resource
    attributes = {a.key: a.value.string_value for a in resource.attributes}
    assert attributes["service.name"] == "from-env"
    assert attributes["deployment.environment.name"] == "a,b"
    assert (attributes["x"], attributes["y"]) == ("1", "2")


def test_traces_go_to_the_console_when_asked(daemon, tmp_path):
    with (tmp_path / "stdout").open("w") as stdout:
        d = daemon(NO_EXPORTERS, env={"OTEL_TRACES_EXPORTER": "console"}, stdout=stdout)
        with d.agent() as agent:
            agent.runs(1, name="somebody")
            agent.flush()
        eventually(lambda: "somebody" in (tmp_path / "stdout").read_text(), what="a printed span")


def test_an_environment_that_asks_for_nothing_sends_nothing(check_config):
    for env in ({}, {OTLP + "PROTOCOL": "grpc"}, {OTLP + "ENDPOINT": ""}):
        code, out, err = check_config(env)
        assert (code, err) == (0, "")
        assert "exporters: []\n" in out


def test_without_a_file_each_signal_has_an_exporter_of_its_own(check_config):
    code, out, err = check_config({OTLP + "ENDPOINT": "http://c:4318", OTLP + "HEADERS": "a=secret"})
    assert (code, err) == (0, "")
    names = [line.strip() for line in out.splitlines() if line.startswith("    name:")]
    assert names == ['name: "otlp"', 'name: "otlp-metrics"', 'name: "otlp-logs"']
    assert '"a": "***"' in out
    assert "secret" not in out


def test_the_files_exporters_win_and_the_check_says_so(check_config):
    env = {OTLP + "ENDPOINT": "http://c:4318", OTLP + "HEADERS": "secret"}
    code, out, err = check_config(env, {"exporters": [{"type": "console"}]})
    assert (code, err) == (0, "")
    assert f"# {OTLP}ENDPOINT is set and not used: the file has exporters\n" in out
    assert "otlp" not in out.split("exporters:\n")[1]
    assert "secret" not in out


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({OTLP + "PROTOCOL": "http"}, f"{OTLP}PROTOCOL: 'http' is not known"),
        ({OTLP + "TIMEOUT": "10s"}, f"{OTLP}TIMEOUT: '10s' is not a whole number"),
        ({OTLP + "HEADERS": "a=b,secret"}, f"{OTLP}HEADERS: entry 2 has no ="),
        ({OTLP + "CERTIFICATE": "/none.pem"}, f"{OTLP}CERTIFICATE: '/none.pem' does not exist"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "a"}, "OTEL_RESOURCE_ATTRIBUTES: entry 1 has no ="),
    ],
)
def test_what_is_ill_formed_is_said_by_the_name_of_its_variable(check_config, env, said):
    code, out, err = check_config({OTLP + "ENDPOINT": "https://c:4318", **env})
    assert code == 2
    assert out == ""
    assert err.startswith(said)
    assert len(err.splitlines()) == 1
    assert "secret" not in err
