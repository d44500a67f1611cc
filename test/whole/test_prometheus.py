"""Debian's Prometheus scraping the daemon: what it stores is what happened."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse
import uuid

import pytest

from conftest import assert_ledger, clean_environment, eventually

MS = 1_000_000
FOUR = ("chat_requests_total", "chat_request_duration_seconds", "llm_tokens_total", "tool_calls_total")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Prometheus:
    def __init__(self, program: str, directory, target: str):
        self.port = free_port()
        (directory / "prometheus.yml").write_text(
            json.dumps(
                {
                    "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
                    "scrape_configs": [
                        {"job_name": "sidelight", "static_configs": [{"targets": [target]}]}
                    ],
                }
            )
        )
        self.log = open(directory / "prometheus.log", "w+")
        self.process = subprocess.Popen(
            [
                program,
                f"--config.file={directory}/prometheus.yml",
                f"--storage.tsdb.path={directory}/tsdb",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            env={**clean_environment(), "GOMAXPROCS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=self.log,
        )

    def _get(self, path: str):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def is_ready(self) -> bool:
        assert self.process.poll() is None, "prometheus has ended"
        try:
            return self._get("/-/ready")[0] == 200
        except OSError:
            return False

    def query(self, expression: str) -> dict:
        """{labels: value}, the labels as a sorted tuple of pairs without job and instance."""
        status, body = self._get("/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
        answer = json.loads(body)
        assert status == 200 and answer["status"] == "success", answer
        found = {}
        for series in answer["data"]["result"]:
            labels = {k: v for k, v in series["metric"].items() if k not in ("job", "instance")}
            found[tuple(sorted(labels.items()))] = float(series["value"][1])
        return found

    def sees(self, expression: str, wanted: float) -> bool:
        return sum(self.query(expression).values()) == wanted

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


@pytest.fixture
def prometheus(tmp_path):
    program = shutil.which("prometheus")
    if not program:
        pytest.skip("no prometheus is installed")
    running = []

    def start(target: str) -> Prometheus:
        running.append(Prometheus(program, tmp_path, target))
        eventually(running[-1].is_ready, timeout=60, what="prometheus is ready")
        return running[-1]

    yield start
    for one in running:
        one.stop()


def request(agent, model: str, ms: int, tools=(), fails: bool = False, usage=(100, 20)) -> bytes:
    """A request that ended just now after that long, with a model call and some tools."""
    root, call = uuid.uuid4().bytes, uuid.uuid4().bytes
    at = time.time_ns() - ms * MS
    agent.start(root, at, kind="agent", name="a")
    agent.start(call, at, kind="llm", name="c", model=model, provider="openai", parent=root)
    agent.end(call, at + MS, usage={"prompt_tokens": usage[0], "completion_tokens": usage[1]})
    for tool in tools:
        run = agent.start(None, at + MS, kind="tool", name=tool, parent=root)
        agent.end(run, at + 2 * MS)
    error = {"error": {"type": "ValueError", "message": "no"}} if fails else {}
    agent.end(root, at + ms * MS, **error)
    return root


def labels(**pairs) -> tuple:
    return tuple(sorted(pairs.items()))


def test_prometheus_stores_what_the_observations_say(daemon, prometheus):
    running = daemon()
    server = prometheus(running.http)
    eventually(lambda: server.sees("up", 1), timeout=20, what="the first scrape")
    with running.agent() as agent:
        for n in range(10):
            request(agent, "gpt-4o", 400, tools=["weather"])
            request(agent, "gpt-4o-mini", 4000, tools=["weather", "days"], usage=(10, 2))
        request(agent, "gpt-4o-mini", 100, fails=True, usage=(10, 2))
        agent.flush()
        agent.bye()
    eventually(lambda: server.sees("chat_requests_total", 21), timeout=20, what="all requests")

    # Two models, two series; a failed request counts.
    one, other = (labels(provider="openai", model=m) for m in ("gpt-4o", "gpt-4o-mini"))
    assert server.query("sum by (provider, model) (chat_requests_total)") == {one: 10, other: 11}
    assert server.query("chat_request_duration_seconds_count") == {
        (("__name__", "chat_request_duration_seconds_count"), *k): v
        for k, v in {one: 10, other: 11}.items()
    }
    tokens = server.query("sum by (model, token_type) (llm_tokens_total)")
    assert tokens == {
        labels(model=m, token_type=f"{t}_tokens"): v
        for m, t, v in (
            ("gpt-4o", "prompt", 1000),
            ("gpt-4o", "completion", 200),
            ("gpt-4o", "total", 1200),
            ("gpt-4o-mini", "prompt", 110),
            ("gpt-4o-mini", "completion", 22),
            ("gpt-4o-mini", "total", 132),
        )
    }
    assert server.query("sum by (tool_name) (tool_calls_total)") == {
        labels(tool_name="weather"): 20,
        labels(tool_name="days"): 10,
    }

    # The same as from the observations.
    observations = running.observations()
    for model in ("gpt-4o", "gpt-4o-mini"):
        mine = [o for o in observations if o["model"] == model]
        only = f'{{model="{model}"}}'
        assert server.sees(f"chat_requests_total{only}", len(mine))
        for kind in ("prompt_tokens", "completion_tokens", "total_tokens"):
            which = f'{{model="{model}", token_type="{kind}"}}'
            assert server.sees(f"llm_tokens_total{which}", sum(o[kind] for o in mine))
        seconds = sum(server.query(f"chat_request_duration_seconds_sum{only}").values())
        assert seconds == pytest.approx(sum(o["latency_ms"] for o in mine) / 1000)
    assert server.sees("sum(tool_calls_total)", sum(o["tool_call_count"] for o in observations))

    # Quantiles: of the small model's, ten took 4 s and one 0.1 s.
    quantile = "histogram_quantile(%s, sum by (le, model) (chat_request_duration_seconds_bucket))"
    middle = server.query(quantile % 0.5)
    assert 0 < middle[labels(model="gpt-4o")] <= 0.5
    assert 2 < middle[labels(model="gpt-4o-mini")] <= 5
    assert server.query("sum by (model) (chat_request_duration_seconds_bucket{le='+Inf'})") == {
        labels(model="gpt-4o"): 10,
        labels(model="gpt-4o-mini"): 11,
    }
    assert_ledger(running)


def test_rates_work_over_a_restart_of_the_daemon(daemon, prometheus):
    port = free_port()
    running = daemon(http=f"127.0.0.1:{port}")
    server = prometheus(running.http)
    with running.agent() as agent:
        request(agent, "m", 100)
        agent.flush()
        eventually(lambda: server.sees("chat_requests_total", 1), timeout=20, what="the first")
        for _ in range(4):
            request(agent, "m", 100)
        agent.flush()
        agent.bye()
    eventually(lambda: server.sees("chat_requests_total", 5), timeout=20, what="the next")
    assert running.stop() == 0
    running = daemon(http=f"127.0.0.1:{port}")
    with running.agent() as agent:
        request(agent, "m", 100)
        agent.flush()
        agent.bye()
    eventually(lambda: server.sees("chat_requests_total", 1), timeout=20, what="it began anew")
    # Prometheus takes the fall for a reset: 4 more before and 1 after.
    assert sum(server.query("resets(chat_requests_total[5m])").values()) == 1
    assert sum(server.query("increase(chat_requests_total[5m])").values()) >= 4
    assert_ledger(running)


def test_promtool_finds_nothing_to_say(daemon):
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("no promtool is installed")
    running = daemon()
    with running.agent() as agent:
        for model in ('a"b', "c\\d", "e\nf", "ü" * 200):
            request(agent, model, 10, tools=[f"tool {model}"])
        agent.flush()
        agent.bye()
    _, text = running.get("/metrics")
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    names = {line.split()[2].decode() for line in text.splitlines() if line.startswith(b"# TYPE")}
    assert set(FOUR) <= names
    assert os.path.exists(running.socket)
    assert running.metrics()("chat_requests_total") == 4
