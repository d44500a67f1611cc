"""What was acknowledged is there, once, whatever became of the daemon meanwhile."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
import uuid

import pytest

from conftest import Agent, assert_ledger, clean_environment, eventually, frame
from load import Client, assert_all_there, finish

CYCLES = 50
CLIENTS = 4


def test_fifty_kills_in_mid_load_lose_nothing_and_double_nothing(daemon, tmp_path):
    random.seed(20261124)
    clients = [Client(str(tmp_path / "s.sock")) for _ in range(CLIENTS)]
    ready_ms = []
    for client in clients:
        client.start()
    for _ in range(CYCLES):
        began = time.monotonic()
        running = daemon()
        ready_ms.append((time.monotonic() - began) * 1000)
        time.sleep(random.uniform(0, 0.12))  # the random moment
        running.kill()
    running = daemon()
    finish(clients)
    assert_all_there(running, clients)
    assert_ledger(running)
    outlived = sum(c.outlived for c in clients)
    total = sum(len(c.acknowledged) for c in clients)
    ready_ms.sort()
    print(f"{total} runs, {outlived} open over a kill, {sum(c.connections for c in clients)} connections;"
          f" ready again p50 {statistics.median(ready_ms):.0f} p99 {ready_ms[-1]:.0f} ms")
    assert total > 1000 and outlived > 10
    assert ready_ms[-1] < 5000


def test_the_dump_of_a_stopped_store_agrees(daemon, tmp_path):
    tool = os.environ.get("SIDELIGHT")
    if not tool:
        pytest.skip("SIDELIGHT does not name the command-line tool")
    running = daemon()
    client = Client(running.socket)
    client.start()
    eventually(lambda: len(client.acknowledged) > 200, what="some load")
    running.kill()
    running = daemon()
    finish([client])
    assert_all_there(running, [client])
    ids = sorted(s["span_id"] for s in running.spans())
    assert running.stop() == 0
    done = subprocess.run(
        [tool, "dump", "--spans", "--data", str(tmp_path / "data")],
        env={**clean_environment(), "SIDELIGHT_SOCKET": str(tmp_path / "s.sock")},
        capture_output=True, text=True, timeout=60,
    )
    assert sorted(json.loads(line)["span_id"] for line in done.stdout.splitlines()) == ids


def test_open_runs_go_on_after_a_kill_and_end_as_if_nothing_had_been(daemon):
    running = daemon()
    root, tool = uuid.uuid4().bytes, uuid.uuid4().bytes
    at, mono = time.time_ns(), time.monotonic_ns()
    with running.agent(service="patient") as agent:
        agent.send([1, root, at, mono, {"kind": "agent", "name": "long", "input": "question", "session": "s1"}])
        agent.send([1, tool, at + 1000, mono + 1000, {"kind": "tool", "name": "t", "parent": root, "input": {"a": 1}}])
        agent.event(tool, "retry", n=1)
        agent.flush()
    running.kill()
    running = daemon()
    assert running.span(root)["status"]["code"] == "running"
    with running.agent(service="patient") as agent:
        agent.send([2, tool, at + 5_001_000, mono + 5_001_000, {"output": "rain"}])
        agent.send([2, root, at + 9_000_000, mono + 9_000_000, {"output": "answer"}])
        assert agent.flush() == []
        agent.bye()
    spans = {s["kind"]: s for s in running.spans()}
    assert spans["tool"]["latency_ms"] == 5 and spans["agent"]["latency_ms"] == 9
    assert [e["name"] for e in spans["tool"]["events"]] == ["retry"]
    assert spans["tool"]["service"] == "patient"
    (observation,) = running.observations()
    assert observation["session_id"] == "s1" and observation["user_message"] == "question"
    assert observation["agent_response"] == "answer" and observation["span_count"] == 2
    assert [c["input"] for c in observation["tool_calls"]] == ['{"a":1}']
    assert_ledger(running)


def test_an_agent_that_died_while_the_daemon_was_away_is_found_out(daemon):
    running = daemon()
    code = "import sidelight,sys,time\nwith sidelight.run('r',kind='agent'):\n sidelight.flush(9);print(1,flush=True);time.sleep(99)"
    env = {**clean_environment(), "SIDELIGHT_SOCKET": running.socket}
    agent = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True)
    assert agent.stdout.readline() == "1\n"
    running.kill()
    agent.kill()
    agent.wait()
    running = daemon()
    (span,) = eventually(lambda: running.spans(), what="the lost run")
    assert span["attributes"]["error.type"] == "process_lost"
    assert str(agent.pid) in span["attributes"]["sidelight.evidence"]
    assert_ledger(running)


def test_the_sequence_has_no_gaps(daemon):
    running = daemon()
    cursors, sent = [], 0
    for _ in range(3):
        with running.agent() as agent:
            agent.runs(7)
            sent += 7
            agent.flush()
        running.kill()
        running = daemon()
    cursor = None
    while True:
        page = running.json("/api/spans?limit=1" + (f"&cursor={cursor}" if cursor else ""))
        cursors += [page["next"]] if page["next"] else []
        if page["next"] is None:
            break
        cursor = page["next"]
    assert len(cursors) in (sent - 1, sent)
    numbers = [int(c) for c in cursors]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


# --- SIGTERM ----------------------------------------------------------------------------------


def fill(agent: Agent) -> list[bytes]:
    """Sends whole runs until the socket can hold no more; returns their ids."""
    agent.socket.setblocking(False)
    ids = []
    while True:
        run, now = uuid.uuid4().bytes, time.time_ns()
        data = frame([1, run, now, 1, {"kind": "agent", "name": "n", "input": "x" * 900}])
        data += frame([2, run, now + 1000, 1001, {}])
        try:
            if agent.socket.send(data) < len(data):
                return ids
        except BlockingIOError:
            return ids
        ids.append(run)


@pytest.mark.parametrize("when", ["connected", "in the backlog"])
def test_sigterm_stores_all_that_was_sent_before(daemon, when):
    """More than a commit can take, in sockets that the daemon had no time to read."""
    running = daemon()
    if when == "in the backlog":
        running.signal(signal.SIGSTOP)
    agents = [running.agent() for _ in range(30)]
    if when == "connected":
        for agent in agents:
            agent.flush()
        running.signal(signal.SIGSTOP)
    sent = []
    for agent in agents:
        agent.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sent += fill(agent)
    assert len(sent) * 1000 > 8 << 20
    running.signal(signal.SIGTERM)
    running.signal(signal.SIGCONT)
    assert running.wait(30) == 0
    running = daemon()
    assert sorted(s["trace_id"] for s in running.spans()) == sorted(i.hex() for i in sent)
    for agent in agents:
        agent.close()


def test_a_client_that_notices_the_stop_first_keeps_its_runs(daemon):
    """It closes its connection because of the stop, while the collector still reads the others'."""
    running = daemon()
    others = [running.agent() for _ in range(20)]
    for other in others:
        other.flush()
    agent = running.agent()
    run = agent.start(kind="agent", name="goes on")
    agent.flush()
    running.signal(signal.SIGSTOP)
    for other in others:
        other.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        fill(other)
    running.signal(signal.SIGTERM)
    running.signal(signal.SIGCONT)
    with pytest.raises(OSError):
        for _ in range(100_000):
            agent.send([6, {"count": 0}])
    agent.close()
    assert running.process.poll() is None  # it has not read them all
    assert running.wait(30) == 0
    running = daemon()
    assert running.span(run)["status"]["code"] == "running"
    with running.agent() as again:
        again.end(run)
        again.flush()
        assert running.span(run)["status"]["code"] == "ok"
        again.bye()
    for other in others:
        other.close()


def test_sigterm_under_load_is_quick_and_open_runs_go_on(daemon, tmp_path):
    running = daemon()
    clients = [Client(running.socket) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    for _ in range(4):
        target = sum(len(c.acknowledged) for c in clients) + 300
        eventually(lambda: sum(len(c.acknowledged) for c in clients) > target, what="some load")
        began = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - began < 5
        running = daemon()
    finish(clients)
    assert sum(c.outlived for c in clients) > 0
    assert_all_there(running, clients)
    assert_ledger(running)
