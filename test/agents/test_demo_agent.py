"""The demo's agent under the real daemon: what a person then finds in its traces."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from scripted_openai import ScriptedOpenAI

AGENT = Path(__file__).with_name("demo_agent.py")
pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif("SIDELIGHTD" not in os.environ, reason="SIDELIGHTD names no daemon"),
]


class Demo:
    """A daemon on a directory of its own, and everything the demo's agent did under it."""

    def __init__(self, directory):
        self.env = {**os.environ, "SIDELIGHT_SOCKET": f"{directory}/s.sock", "OTEL_SERVICE_NAME": "travel-agent"}
        self.daemon = subprocess.Popen(
            [os.environ["SIDELIGHTD"], "--data", f"{directory}/data", "--http", "127.0.0.1:0"],
            env=self.env,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        ready = next((line for line in self.daemon.stderr if line.startswith("ready ")), "")
        self.http = dict(word.split("=", 1) for word in ready.split()[1:])["http"]

    def run_agent(self):
        with ScriptedOpenAI(delay=0.05, final_delay=0.02) as service:
            env = {**self.env, "OPENAI_BASE_URL": service.base_url, "OPENAI_API_KEY": "scripted"}
            subprocess.run([sys.executable, str(AGENT)], env=env, check=True, timeout=90)
        deadline = time.monotonic() + 10
        while self.running() and time.monotonic() < deadline:
            time.sleep(0.02)

    def running(self):
        return [t for t in self.ask("traces")["traces"] if t["status"]["code"] == "running"]

    def ask(self, *command):
        tool = subprocess.run(
            [os.environ["SIDELIGHT_BIN"], *command, "--json"], env=self.env, check=True, timeout=10, stdout=subprocess.PIPE
        )
        return json.loads(tool.stdout)

    def observations(self):
        tool = subprocess.run(
            [os.environ["SIDELIGHT_BIN"], "dump"], env=self.env, check=True, timeout=10, stdout=subprocess.PIPE
        )
        return [json.loads(line) for line in tool.stdout.splitlines()]

    def metrics(self):
        url = self.http if self.http.startswith("http") else f"http://{self.http}"
        with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[:1] != "#"}

    def stop(self):
        self.daemon.terminate()
        return self.daemon.wait(20)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    demo = Demo(tmp_path_factory.mktemp("demo"))
    try:
        demo.run_agent()
        yield demo
    finally:
        status = demo.stop()
    assert status == 0


def spans_of(demo, wanted):
    """The spans of each trace whose root is like that."""
    traces = [demo.ask("trace", t["trace_id"]) for t in demo.ask("traces")["traces"]]
    return [t["spans"] for t in traces if wanted(t["spans"])]


def named(spans, tool):
    return [s for s in spans if s["kind"] == "tool" and tool in s["name"]]


def test_every_request_is_there_and_none_still_runs(demo):
    traces = demo.ask("traces")["traces"]
    assert len(traces) == 11
    assert sorted(t["status"]["code"] for t in traces) == ["error"] * 5 + ["ok"] * 6


def test_the_slow_tool_is_as_long_as_it_slept_and_inside_its_request(demo):
    slow = spans_of(demo, lambda spans: named(spans, "days_until"))
    assert len(slow) == 2
    for spans in slow:
        root, weather, days = spans[0], named(spans, "weather")[0], named(spans, "days_until")[0]
        assert 1200 <= weather["latency_ms"] < 1500
        assert 80 <= days["latency_ms"] < 400
        assert root["start_time"] <= weather["start_time"] < weather["end_time"] <= root["end_time"]
        assert max(spans[1:], key=lambda s: s["latency_ms"] * (s["kind"] in ("llm", "tool"))) is weather


def test_a_tool_that_raises_is_an_error_with_its_words(demo):
    raised = spans_of(demo, lambda s: any("Atlantis" in t["status"]["message"] for t in named(s, "weather")))
    assert len(raised) == 2
    for spans in raised:
        assert spans[0]["status"]["code"] == "error"
        assert named(spans, "weather")[0]["status"]["code"] == "error"


def test_the_killed_call_is_an_error_that_says_the_process_was_lost(demo):
    newest = max(demo.ask("traces")["traces"], key=lambda t: t["start_time"])
    spans = demo.ask("trace", newest["trace_id"])["spans"]
    call = [s for s in spans if s["kind"] == "llm"]
    assert len(call) == 1
    assert call[0]["status"]["code"] == "error"
    assert "lost" in call[0]["status"]["message"]
    assert call[0]["end_time"] is not None


def test_the_metrics_agree_with_the_observations(demo):
    observations, metrics = demo.observations(), demo.metrics()
    assert len(observations) == 11
    for model, count in (("gpt-4o", 6), ("gpt-4o-mini", 5)):
        labels = f'{{provider="openai",model="{model}"}}'
        mine = [o for o in observations if o["model"] == model]
        assert len(mine) == count == metrics[f"chat_requests_total{labels}"]
        assert count == metrics[f"chat_request_duration_seconds_count{labels}"]
        for kind in ("prompt_tokens", "completion_tokens", "total_tokens"):
            key = f'llm_tokens_total{{token_type="{kind}",provider="openai",model="{model}"}}'
            assert metrics[key] == sum(o[kind] or 0 for o in mine) > 0
    tools = [call["name"] for o in observations for call in o["tool_calls"]]
    for tool in ("weather", "days_until"):
        assert metrics[f'tool_calls_total{{tool_name="{tool}"}}'] == tools.count(tool) > 0


def test_the_conversation_and_the_person_are_kept(demo):
    for observation in demo.observations():
        assert observation["user_id"] == "ada"
        assert observation["session_id"].startswith("trip-gpt-4o")
        assert observation["prompt_key"] == "travel"
        assert str(observation["prompt_version"]) == "3"
