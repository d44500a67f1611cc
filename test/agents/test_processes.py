"""Servers, queues, forks and loops with real workers and the real daemon: every span of every task
arrives, also of a worker that is killed right after its last event."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

WORKERS = Path(__file__).with_name("workers.py")
COUNT = 10
pytestmark = pytest.mark.skipif("SIDELIGHTD" not in os.environ, reason="SIDELIGHTD names no daemon")


def eventually(condition, what, timeout=30):
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.02)
    return value


class Collector:
    """A daemon on a directory of its own, and the processes that report to it."""

    def __init__(self, directory):
        self.directory = directory
        strange = ("OTEL_", "SIDELIGHT_")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(strange)}
        self.env["SIDELIGHT_SOCKET"] = f"{directory}/s.sock"
        self.env["PYTHONPATH"] = os.pathsep.join([str(WORKERS.parent), os.environ.get("PYTHONPATH", "")])
        self.running = []
        command = [os.environ["SIDELIGHTD"], "--data", f"{directory}/data", "--http", "127.0.0.1:0"]
        self.daemon = self.start(command, stderr=subprocess.PIPE, text=True)
        ready = next((line for line in self.daemon.stderr if line.startswith("ready ")), "")
        self.http = dict(word.split("=", 1) for word in ready.split()[1:])["http"].removeprefix("http://")

    def start(self, command, **options):
        options = {"stdout": subprocess.DEVNULL, "env": self.env, "cwd": self.directory, **options}
        self.running.append(subprocess.Popen(command, **options))
        return self.running[-1]

    def spans(self):
        with urllib.request.urlopen(f"http://{self.http}/api/spans?limit=1000", timeout=10) as answer:
            return json.load(answer)["spans"]

    def whole(self):
        """The tasks of which every span is there, well ended and in its place."""
        spans = self.spans()
        names = {}
        for span in spans:
            assert span["status"]["code"] in ("ok", "running"), span
            if span["kind"] == "agent":
                inner = [s for s in spans if s["parent_span_id"] == span["span_id"]]
                assert {s["trace_id"] for s in inner} <= {span["trace_id"]}
                complete = [s["kind"] for s in inner if s["end_time"]]
                if sorted(complete) == ["llm", "tool"] and span["end_time"]:
                    name = span["name"].removeprefix("invoke_agent ")
                    assert name not in names, "a task came twice"
                    names[name] = span["trace_id"]
        assert len(set(names.values())) == len(names), "two tasks in one trace"
        return set(names)

    def wait_for(self, names):
        eventually(lambda: names <= self.whole(), f"all of {sorted(names)}")
        assert len(self.spans()) == 3 * len(self.whole())

    def stop(self):
        for process in reversed(self.running):
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def collector(tmp_path):
    collector = Collector(tmp_path)
    try:
        yield collector
    finally:
        collector.stop()
    assert collector.daemon.returncode == 0


def tasks(kind="task"):
    return {f"{kind}{n}" for n in range(COUNT)}


@pytest.mark.parametrize("ending", ["exit", "kill"])
@pytest.mark.parametrize("role", ["fork", "spawn", "forks_in_threads", "asyncio", "uvloop", "threads", "gevent"])
def test_every_span_of_every_task(collector, role, ending):
    command = [sys.executable, str(WORKERS), role, ending, str(COUNT)]
    process = collector.start(command, stderr=subprocess.PIPE)
    said = process.communicate(timeout=90)[1]
    in_here = role in ("asyncio", "uvloop", "threads", "gevent")
    assert (process.returncode, said) == (-signal.SIGKILL if ending == "kill" and in_here else 0, b"")
    parents = {"fork": {"parent"}, "spawn": {"parent"}, "forks_in_threads": tasks("parent")}
    collector.wait_for(tasks() | parents.get(role, set()))


class UnixHTTP(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self._path)


def get(path, what):
    """The status, or 0 when the worker was gone before it answered."""
    connection = UnixHTTP(path)
    try:
        connection.request("GET", what)
        return connection.getresponse().status
    except (http.client.HTTPException, ConnectionError):
        return 0
    finally:
        connection.close()


@pytest.mark.parametrize("preload", [False, True], ids=["", "preload"])
@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_gunicorn(collector, kind, preload):
    path = f"{collector.directory}/g.sock"
    command = [sys.executable, "-m", "gunicorn", "--workers=2", f"--worker-class={kind}", f"--bind=unix:{path}"]
    command += ["--threads=4"] if kind == "gthread" else []
    if preload:
        command += ["--preload"]
        collector.env["WORKERS_AT_LOAD"] = "1"
    server = collector.start([*command, "--no-control-socket", "--log-level=critical", "workers:app"])
    eventually(lambda: os.path.exists(path) or server.poll() is not None, "the server")
    assert [get(path, f"/task{n}/exit") for n in range(COUNT)] == [200] * COUNT
    assert [get(path, f"/killed{n}/kill") for n in range(COUNT)] == [0] * COUNT
    collector.wait_for(tasks() | tasks("killed") | ({"load"} if preload else set()))


def test_celery_with_one_task_a_child(collector):
    queue = collector.directory / "queue"
    for folder in (queue, collector.directory / "queue.control"):
        folder.mkdir()
    collector.env["WORKERS_QUEUE"] = str(queue)
    options = ["--pool=prefork", "--concurrency=2", "--max-tasks-per-child=1", "--loglevel=critical"]
    options += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    collector.start([sys.executable, "-m", "celery", "-A", "workers:celery", "worker", *options])
    send = "import sys, workers\nfor n in range(int(sys.argv[1])):\n"
    send += "    workers.celery.send_task('one', (f'task{n}', 'exit'))\n"
    send += "    workers.celery.send_task('one', (f'killed{n}', 'kill'))\n"
    subprocess.run([sys.executable, "-c", send, str(COUNT)], env=collector.env, check=True, timeout=60)
    collector.wait_for(tasks() | tasks("killed"))
