"""What is known of an agent's end: its parent's word, then the kernel's count of OOM kills, then the
lost connection alone."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from conftest import assert_ledger, clean_environment, eventually

CGROUPS = pathlib.Path("/sys/fs/cgroup")

# Inside an LLM call, all of it durable; then what it is told by a line.
AGENT = """
import os, sys
import sidelight
with sidelight.run("root", kind="agent", input="q"):
    with sidelight.run("chat", kind="llm", model="gpt-4o", input="hello"):
        sidelight.flush(10)
        print(os.getpid(), flush=True)
        exec(sys.stdin.readline())
"""

# Starts that agent and tells of it; a line of its own input ends it, then it waits for another.
PARENT = """
import subprocess, sys
import sidelight
agent = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE)
sidelight.watch(agent.pid)
sidelight.flush(10)
agent.stdin.write(sys.stdin.readline().encode())
agent.stdin.close()
agent.wait()
sidelight.exited(agent.pid, agent.returncode)
sidelight.flush(10)
sys.stdin.readline()
"""


def python(running, *arguments: str, **options):
    env = {**clean_environment(), "SIDELIGHT_SOCKET": running.socket}
    process = subprocess.Popen(
        [sys.executable, "-c", *arguments],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )
    return process, int(process.stdout.readline())


def tell(process, line: str) -> None:
    process.stdin.write(line + "\n")
    process.stdin.flush()


def lost_call(running, timeout: float = 5):
    def call():
        return next((s for s in running.spans() if s["kind"] == "llm"), None)

    span = eventually(call, timeout=timeout, what="the lost call")
    assert span["status"]["code"] == "error"
    return span["status"]["message"], span["attributes"]


@pytest.mark.parametrize(
    "end, error_type, message, evidence",
    [
        ("os.kill(os.getpid(), 9)", "process_killed", "signal 9 (SIGKILL)", "signal 9 (SIGKILL)"),
        ("os.kill(os.getpid(), 11)", "process_killed", "signal 11 (SIGSEGV)", "signal 11"),
        ("os._exit(3)", "process_exited", "exit code 3", "exit code 3"),
        ("os._exit(0)", "process_exited", "it left without ending it", "exit code 0"),
    ],
)
def test_a_parents_word_is_the_evidence(daemon, end, error_type, message, evidence):
    running = daemon()
    parent, pid = python(running, PARENT, AGENT)
    try:
        tell(parent, end)
        said, attributes = lost_call(running)
    finally:
        parent.communicate("\n", timeout=10)
    assert attributes["error.type"] == error_type and message in said
    assert f"pid {pid} is gone" in attributes["sidelight.evidence"]
    assert f"its parent says: {evidence}" in attributes["sidelight.evidence"]
    assert {s["attributes"]["error.type"] for s in running.spans()} == {error_type}
    assert assert_ledger(running)("sidelight_runs_lost_total") == 2


def test_a_parents_word_is_waited_for(daemon):
    """It comes a second late, as it may from a busy parent; the child's connection broke before."""
    running = daemon()
    late = PARENT.replace("agent.wait()", "agent.wait(); import time; time.sleep(1)")
    parent, _ = python(running, late, AGENT)
    try:
        tell(parent, "os._exit(9)")
        _, attributes = lost_call(running)
    finally:
        parent.communicate("\n", timeout=10)
    assert attributes["error.type"] == "process_exited"


@pytest.mark.alone
def test_a_parent_that_never_tells_is_waited_for_two_seconds(daemon):
    running = daemon()
    silent = PARENT.replace("sidelight.exited(agent.pid, agent.returncode)", "")
    parent, pid = python(running, silent, AGENT)
    try:
        tell(parent, "os._exit(9)")
        began = time.monotonic()
        _, attributes = lost_call(running)
        took = time.monotonic() - began
    finally:
        parent.communicate("\n", timeout=10)
    assert 1.5 < took < 4
    assert attributes["error.type"] == "process_lost"
    assert attributes["sidelight.evidence"].endswith(f"pid {pid} is gone")


def test_a_word_about_a_process_that_lives_is_not_believed(daemon):
    running = daemon()
    agent, pid = python(running, AGENT)
    try:
        with running.agent() as liar:
            liar.send([9, {"pid": pid, "signal": 9}])
            liar.flush()
            (trace,) = running.json("/api/traces")["traces"]
            assert trace["status"]["code"] == "running"
            liar.bye()
        tell(agent, "pass")
        assert agent.wait(10) == 0
    finally:
        agent.kill()
        agent.communicate()
    assert {s["status"]["code"] for s in eventually(running.spans)} == {"ok"}


@pytest.fixture
def cgroup(request):
    """A memory cgroup of this test's own, with a limit: its file of members."""
    v1 = CGROUPS / "memory"
    v2 = next((r for r in (CGROUPS, CGROUPS / "unified") if _controls_memory(r)), None)
    root, limit = (v1, "memory.limit_in_bytes") if v1.is_dir() else (v2, "memory.max")
    if root is None or os.geteuid() != 0 or not os.access(root, os.W_OK):
        pytest.skip("needs root and a memory cgroup to make another one in")
    own = root / f"sidelight-test-{os.getpid()}"
    own.mkdir()
    (own / limit).write_text(str(96 << 20))
    for swap, value in (("memory.swappiness", "0"), ("memory.swap.max", "0")):
        if (own / swap).exists():
            (own / swap).write_text(value)
    yield own / "cgroup.procs"
    eventually(lambda: not (own / "cgroup.procs").read_text(), what="its processes to be gone")
    own.rmdir()


def _controls_memory(root: pathlib.Path) -> bool:
    try:
        return "memory" in (root / "cgroup.subtree_control").read_text().split()
    except OSError:
        return False


GREEDY = "x = []; [x.append(bytearray(b'x' * (1 << 20))) for _ in range(1000)]"


def test_an_oom_kill_is_told_from_any_other(daemon, cgroup):
    running = daemon()
    agent, pid = python(running, AGENT, preexec_fn=lambda: cgroup.write_text(str(os.getpid())))
    tell(agent, GREEDY)
    assert agent.wait(30) == -signal.SIGKILL
    agent.communicate()
    said, attributes = lost_call(running)
    assert attributes["error.type"] == "oom_killed" and "out of memory" in said
    assert "oom_kill of its memory cgroup rose from 0 to 1" in attributes["sidelight.evidence"]
    # The next one in that cgroup is killed by a person; the count has not risen since.
    agent, pid = python(running, AGENT, preexec_fn=lambda: cgroup.write_text(str(os.getpid())))
    agent.kill()
    agent.communicate()

    def evidence():
        return [
            s["attributes"]["error.type"]
            for s in running.spans()
            if f"pid {pid} " in s["attributes"]["sidelight.evidence"]
        ]

    assert eventually(evidence) == ["process_lost"] * 2
    assert_ledger(running)


def test_a_parents_word_and_the_count_are_one_story(daemon, cgroup):
    """A SIGKILL that the parent tells of and a count that rose: the kernel says why it was sent."""
    running = daemon()
    join = f"import os; open({str(cgroup)!r}, 'w').write(str(os.getpid()))\n"
    parent, _ = python(running, PARENT, join + AGENT)
    try:
        tell(parent, GREEDY)
        _, attributes = lost_call(running, timeout=30)
    finally:
        parent.communicate("\n", timeout=10)
    assert attributes["error.type"] == "oom_killed"
    assert "its parent says: signal 9" in attributes["sidelight.evidence"]
    assert "oom_kill" in attributes["sidelight.evidence"]
