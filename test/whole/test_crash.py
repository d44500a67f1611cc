"""Agents that die, leave or only lose their connection: what is known of the runs they had open."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from conftest import assert_ledger, clean_environment, eventually

ROOT = pathlib.Path(__file__).parents[2]
AGENTS = ROOT / "test" / "agents"

SMALL = """
import os, sys
import sidelight
with sidelight.run("root", kind="agent", input="q"):
    with sidelight.run("chat", kind="llm", model="gpt-4o", provider="openai", input="hello"):
        sidelight.flush(10)
        print(os.getpid(), flush=True)
        sys.stdin.readline()
"""


def run_small(running, code: str = SMALL):
    """A process inside an LLM call; everything it did so far is durable."""
    env = {**clean_environment(), "SIDELIGHT_SOCKET": running.socket}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline().strip() == str(process.pid)
    return process


def finished_llm(running):
    return next((s for s in running.spans() if s["kind"] == "llm"), None)


@pytest.mark.alone
def test_a_killed_agents_open_call_is_an_error_with_evidence_within_a_second(daemon):
    running = daemon()
    process = run_small(running)
    try:
        (trace,) = running.json("/api/traces")["traces"]
        assert trace["status"]["code"] == "running" and trace["end_time"] is None
        killed_at = time.time_ns()
        process.kill()
        began = time.monotonic()
        span = eventually(lambda: finished_llm(running), timeout=1, what="the lost call")
        took = time.monotonic() - began
    finally:
        process.kill()
        process.wait()
    assert took < 1
    attributes = span["attributes"]
    assert span["status"]["code"] == "error" and "killed" in span["status"]["message"]
    assert attributes["error.type"] == "process_lost"
    assert str(process.pid) in attributes["sidelight.evidence"]
    assert attributes["gen_ai.request.model"] == "gpt-4o"
    whole = eventually(lambda: running.observations(), what="the request's observation")[0]
    assert whole["status"]["code"] == "error" and whole["span_count"] == 2
    ended = time.mktime(time.strptime(span["end_time"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
    assert abs(ended - killed_at / 1e9) < 2  # it ended when the process did
    metrics = assert_ledger(running)
    assert metrics("sidelight_runs_lost_total") == 2
    assert metrics("sidelight_open_runs") == 0
    assert metrics("chat_requests_total", provider="openai", model="gpt-4o") == 1


def test_a_langgraph_agent_killed_in_mid_call_shows_the_call(daemon):
    pytest.importorskip("langchain_openai")
    sys.path.insert(0, str(AGENTS))
    try:
        from scripted_openai import ScriptedOpenAI
    finally:
        sys.path.remove(str(AGENTS))
    running = daemon()
    with ScriptedOpenAI(delay=0.01, final_delay=0.01) as model:
        env = {**clean_environment(), "SIDELIGHT_SOCKET": running.socket}
        env |= {"OPENAI_BASE_URL": model.base_url, "OPENAI_API_KEY": "x", "LANGSMITH_TRACING": "false"}
        command = [sys.executable, str(AGENTS / "demo_agent.py"), "--ask", "think about it forever"]
        agent = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            eventually(lambda: model.script.hanging == 1, timeout=60, what="the agent waits for its model")
            agent.kill()
            span = eventually(lambda: finished_llm(running), timeout=1, what="the lost call")
        finally:
            agent.kill()
            out, err = agent.communicate(timeout=10)
    assert (out, err) == (b"", b"")
    assert span["attributes"]["error.type"] == "process_lost"
    assert str(agent.pid) in span["attributes"]["sidelight.evidence"]
    trace = running.json("/api/traces/last")
    assert trace["trace"]["status"]["code"] == "error"
    assert {s["status"]["code"] for s in trace["spans"]} == {"error"}
    assert trace["spans"][0]["kind"] == "agent" and trace["spans"][0]["parent_span_id"] is None
    assert_ledger(running)


def test_who_crashes_by_itself_is_lost_too(daemon):
    running = daemon()
    process = run_small(running, SMALL.replace("sys.stdin.readline()", "os._exit(7)"))
    assert process.wait(10) == 7
    process.stdin.close()
    span = eventually(lambda: finished_llm(running), what="the lost call")
    assert span["attributes"]["error.type"] == "process_lost"
    assert_ledger(running)


def test_who_ends_by_an_exception_has_said_so_itself(daemon):
    running = daemon()
    process = run_small(running, SMALL.replace("sys.stdin.readline()", "raise ValueError('boom')"))
    process.stdin.close()
    assert process.wait(20) == 1
    span = eventually(lambda: finished_llm(running), what="the failed call")
    assert span["status"] == {"code": "error", "message": "boom"}
    assert span["attributes"]["error.type"] == "ValueError"
    assert "sidelight.evidence" not in span["attributes"]
    metrics = assert_ledger(running)
    assert metrics("sidelight_runs_lost_total") == 0
    assert metrics("sidelight_connections_lost_total") == 0


def test_runs_that_are_open_at_bye_are_cancelled_without_words_of_a_crash(daemon):
    running = daemon()
    agent = running.agent()
    run = agent.start(kind="agent", name="left")
    agent.bye()
    eventually(lambda: running.spans(), what="the cancelled span")
    span = running.span(run)
    assert span["status"]["code"] == "cancelled"
    text = str(span)
    assert "lost" not in text and "killed" not in text and "sidelight.evidence" not in text
    metrics = assert_ledger(running)
    assert metrics("sidelight_runs_cancelled_total") == 1
    assert metrics("sidelight_runs_lost_total") == 0
    assert metrics("sidelight_connections_lost_total") == 0


def test_a_lost_connection_of_a_living_process_is_not_called_a_crash(daemon):
    running = daemon()
    agent = running.agent()
    run = agent.start(kind="tool", name="goes on")
    agent.flush()
    agent.socket.shutdown(socket.SHUT_RDWR)
    agent.close()
    eventually(lambda: running.spans(), what="the lost span")
    attributes = running.span(run)["attributes"]
    assert attributes["error.type"] == "connection_lost"
    assert str(os.getpid()) in attributes["sidelight.evidence"]
    assert_ledger(running)


def test_runs_of_other_connections_stay_open_when_one_is_lost(daemon):
    running = daemon()
    with running.agent() as one:
        other = running.agent()
        kept = one.start(kind="agent", name="kept")
        lost = other.start(kind="tool", name="lost", parent=kept)
        other.flush()
        other.close()
        one.flush()
        eventually(lambda: running.spans(), what="the lost span")
        assert running.span(kept)["status"]["code"] == "running"
        one.end(kept)
        one.flush()
        one.bye()
    spans = {s["kind"]: s for s in running.spans()}
    assert spans["tool"]["trace_id"] == kept.hex() and lost != kept
    assert spans["tool"]["attributes"]["error.type"] == "connection_lost"
    (observation,) = eventually(lambda: running.observations(), what="the observation")
    assert observation["tool_call_count"] == 1  # a tool that was cut counts as a call
    assert_ledger(running)


def test_a_run_that_another_connection_ends_before_the_kill_is_no_loss(daemon):
    running = daemon()
    process = run_small(running)
    try:
        (trace,) = running.json("/api/traces")["traces"]
        root = bytes.fromhex(trace["trace_id"])
        with running.agent() as other:
            other.end(root)
            other.flush()
            process.kill()
            process.wait()
            span = eventually(lambda: finished_llm(running), what="the lost call")
            other.bye()
    finally:
        process.kill()
    assert span["attributes"]["error.type"] == "process_lost"
    assert running.span(root)["status"]["code"] == "ok"
    assert assert_ledger(running)("sidelight_runs_lost_total") == 1


def test_a_forked_child_that_dies_takes_nothing_of_its_parent_along(daemon):
    code = """
import os, sys
import sidelight
with sidelight.run("root", kind="agent"):
    sidelight.flush(10)
    pid = os.fork()
    if pid == 0:
        with sidelight.run("in the child", kind="tool"):
            sidelight.flush(10)
            os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    print(os.getpid(), flush=True)
    sys.stdin.readline()
"""
    running = daemon()
    process = run_small(running, code)
    eventually(lambda: len(running.spans()) == 1, what="the child's span")
    (span,) = running.spans()
    assert span["kind"] == "tool" and span["attributes"]["error.type"] == "process_lost"
    assert str(process.pid) not in span["attributes"]["sidelight.evidence"].split()
    process.stdin.write("\n")
    process.stdin.close()
    assert process.wait(20) == 0
    root = eventually(lambda: [s for s in running.spans() if s["kind"] == "agent"], what="the root")[0]
    assert root["status"]["code"] == "ok"
    assert_ledger(running)


def test_a_forked_child_that_holds_the_socket_keeps_nothing_running(daemon):
    """No end of file comes, for the child has the socket, too; it is no agent itself."""
    code = """
import os, socket, struct, sys, msgpack
def frame(message):
    body = msgpack.packb(message)
    return struct.pack(">I", len(body)) + body
connection = socket.socket(socket.AF_UNIX)
connection.connect(os.environ["SIDELIGHT_SOCKET"])
connection.sendall(frame([1, b"r" * 16, 1, 1, {"kind": "agent", "name": "root"}]) + frame([4, 1]))
connection.recv(100)
if os.fork() == 0:
    sys.stdin.read()
    os._exit(0)
print(os.getpid(), flush=True)
os._exit(0)
"""
    running = daemon()
    process = run_small(running, code)
    try:
        assert process.wait(10) == 0
        assert running.span(b"r" * 16)["status"]["code"] == "running"
        span = eventually(lambda: running.spans(), timeout=15, what="the lost run")[0]
    finally:
        process.stdin.close()  # and the child ends
    assert span["attributes"]["error.type"] == "process_lost"
    assert f"pid {process.pid} is gone" in span["attributes"]["sidelight.evidence"]
    assert_ledger(running)


def test_sigterm_to_an_agent_in_a_call_leaves_the_call_visible(daemon):
    running = daemon()
    process = run_small(running)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == -signal.SIGTERM
    process.stdin.close()
    span = eventually(lambda: finished_llm(running), timeout=1, what="the lost call")
    assert span["attributes"]["error.type"] == "process_lost"
    assert_ledger(running)
