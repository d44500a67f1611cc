"""The real daemon over its real socket: fixtures for every whole test.

SIDELIGHTD names the daemon under test, SIDELIGHT the command-line tool; a test that needs one
that is not named is skipped.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time
import uuid

import msgpack
import pytest

from otlp_sink import OtlpSink

READY = re.compile(r"ready socket=(\S+) http=(\S+) data=(\S+)")
SANITIZER = re.compile(r"(Address|Thread|Leak|Memory)Sanitizer|runtime error:")
SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)")
# A job in the background of a shell begins with SIGINT ignored, and so would all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def eventually(condition, timeout: float = 10.0, what: str = "the condition"):
    """Until condition() is true; returns its value. For what can't tell us by itself."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.02)


# --- the agent's side -----------------------------------------------------------------------


def frame(message) -> bytes:
    body = msgpack.packb(message, use_bin_type=True)
    return struct.pack(">I", len(body)) + body


class Agent:
    """A client that says exactly what it is told, frame by frame."""

    def __init__(self, path: str, service: str = "test-agent", hello: bool = True):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(10)
        self.socket.connect(path)
        self._tokens = itertools.count(1)
        if hello:
            self.send([0, {"v": 1, "service": service, "sdk": "test/0", "pid": os.getpid()}])

    def send(self, *messages) -> None:
        self.socket.sendall(b"".join(frame(m) for m in messages))

    def start(self, run_id: bytes | str | None = None, at: int | None = None, **fields):
        """Starts a run; returns its id."""
        run_id = run_id or uuid.uuid4().bytes
        now = at or time.time_ns()
        self.send([1, run_id, now, time.monotonic_ns() if at is None else 0, fields])
        return run_id

    def end(self, run_id, at: int | None = None, **fields) -> None:
        now = at or time.time_ns()
        self.send([2, run_id, now, time.monotonic_ns() if at is None else 0, fields])

    def send_bytes(self, data: bytes) -> None:
        self.socket.sendall(data)

    def event(self, run_id, name: str, **attrs) -> None:
        self.send([3, run_id, time.time_ns(), time.monotonic_ns(), name, attrs])

    def runs(self, count: int, **fields) -> list:
        """That many root runs, started and ended, in one write."""
        fields = {"kind": "agent", "name": "run", **fields}
        ids = [uuid.uuid4().bytes for _ in range(count)]
        now, mono = time.time_ns(), time.monotonic_ns()
        self.send(
            *itertools.chain.from_iterable(
                ([1, i, now, mono, fields], [2, i, now + 1000, mono + 1000, {}]) for i in ids
            )
        )
        return ids

    def receive(self):
        """The next message from the collector."""
        (length,) = struct.unpack(">I", self._read(4))
        return msgpack.unpackb(self._read(length), raw=False)

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise ConnectionError("the collector closed the connection")
            data += piece
        return data

    def flush(self) -> list[dict]:
        """Returns once everything sent so far is durable: what the collector complained of."""
        token = next(self._tokens)
        complaints = []
        self.send([4, token])
        while (message := self.receive()) != [5, token]:
            assert message[0] in (5, 8), message
            complaints += message[1:] if message[0] == 8 else []
        return complaints

    def is_closed(self, timeout: float = 10.0) -> bool:
        """Whether the collector closes the connection in time, whatever it says before."""
        self.socket.settimeout(timeout)
        try:
            while self.socket.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True

    def bye(self) -> None:
        self.send([7, {}])
        self.close()

    def close(self) -> None:
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


# --- the daemon -----------------------------------------------------------------------------


class Metrics(dict):
    """{(name, ((label, value), …)): number}; missing series are 0."""

    def __call__(self, name: str, **labels) -> float:
        """The sum over all series of a name that have these labels."""
        wanted = set(labels.items())
        return sum(v for (n, have), v in self.items() if n == name and wanted <= set(have))


def parse_metrics(text: str) -> Metrics:
    metrics = Metrics()
    for line in text.splitlines():
        if match := SAMPLE.match(line):
            name, labels, value = match.groups()
            metrics[name, tuple(sorted(LABEL.findall(labels or "")))] = float(value)
    return metrics


class Daemon:
    """A running sidelightd. `http` is host:port, `socket` and `data` are paths."""

    def __init__(self, command: list, env: dict, stdout):
        self.lines: list[str] = []
        self._more = threading.Condition()
        self.process = subprocess.Popen(
            command, env=env, stdout=stdout, stderr=subprocess.PIPE, text=True, errors="replace"
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        try:
            self.socket, self.http, self.data = self.wait_for_line(READY, 20).groups()
        except AssertionError:
            self.kill()
            raise

    def _read_log(self) -> None:
        for line in self.process.stderr:
            with self._more:
                self.lines.append(line.rstrip("\n"))
                self._more.notify_all()
        with self._more:
            self._more.notify_all()

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    def wait_for_line(self, pattern, timeout: float = 10.0):
        """The match of the first line of the log that has the pattern."""
        pattern = re.compile(pattern)
        deadline = time.monotonic() + timeout
        while True:
            with self._more:
                for line in self.lines:
                    if match := pattern.search(line):
                        return match
                ended = self.process.poll() is not None and not self._reader.is_alive()
                left = deadline - time.monotonic()
                assert left > 0 and not ended, f"no line {pattern.pattern!r} in:\n{self.log}"
                self._more.wait(min(left, 0.1))

    def get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.http, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def json(self, path: str):
        status, body = self.get(path)
        assert status == 200, (status, body)
        return json.loads(body)

    def pages(self, path: str, member: str) -> list:
        """All that a list of the API has, page after page."""
        found, cursor = [], None
        while True:
            page = self.json(path + (f"&cursor={cursor}" if cursor else ""))
            found += page[member]
            cursor = page["next"]
            if cursor is None:
                return found

    def spans(self) -> list:
        return self.pages("/api/spans?limit=1000", "spans")

    def observations(self) -> list:
        return self.pages("/api/observations?limit=1000", "observations")

    def span(self, run_id: bytes) -> dict | None:
        """The finished or running span of a run that is the root of its trace."""
        status, body = self.get(f"/api/traces/{run_id.hex()}")
        return json.loads(body)["spans"][0] if status == 200 else None

    def metrics(self) -> Metrics:
        status, body = self.get("/metrics")
        assert status == 200, (status, body)
        return parse_metrics(body.decode())

    def agent(self, **options) -> Agent:
        return Agent(self.socket, **options)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = 20.0) -> int:
        code = self.process.wait(timeout)
        self._reader.join(5)
        return code

    def stop(self, timeout: float = 20.0) -> int:
        """SIGTERM; returns the exit code."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()


def exporter_ledger(metrics: Metrics, exporter: str) -> dict:
    return {
        "delivered": metrics("sidelight_spans_delivered_total", exporter=exporter),
        "rejected": metrics("sidelight_spans_rejected_total", exporter=exporter),
        "evicted": metrics("sidelight_spans_evicted_total", exporter=exporter),
        "pending": metrics("sidelight_export_pending_spans", exporter=exporter),
    }


def _imbalance(metrics: Metrics, exporters, waiting: float) -> str | None:
    received = metrics("sidelight_frames_received_total")
    taken = metrics("sidelight_frames_accepted_total")
    refused = metrics("sidelight_frames_refused_total")
    if received != taken + refused:
        return f"received {received} != accepted {taken} + refused {refused}"
    stored = metrics("sidelight_spans_stored_total") + waiting
    for exporter in exporters:
        ledger = exporter_ledger(metrics, exporter)
        if stored != sum(ledger.values()):
            return f"{exporter}: stored {stored} != {ledger}"
    return None


def assert_ledger(daemon: Daemon, *exporters: str, waiting: float = 0) -> Metrics:
    """received = accepted + refused, and for each exporter named stored = delivered + rejected +
    evicted + pending. waiting: what was pending when the daemon started. Counters move one after
    another, so it may take a moment to hold."""
    last = None
    for _ in range(100):
        metrics = daemon.metrics()
        last = _imbalance(metrics, exporters, waiting)
        if last is None:
            return metrics
        time.sleep(0.05)
    raise AssertionError(last)


@pytest.fixture
def sidelightd() -> str:
    path = os.environ.get("SIDELIGHTD")
    if not path:
        pytest.skip("SIDELIGHTD does not name a daemon")
    return path


@pytest.fixture
def plain_sidelightd() -> str:
    """A daemon without sanitizers, for what is measured."""
    path = os.environ.get("SIDELIGHTD_PLAIN")
    if not path:
        pytest.skip("SIDELIGHTD_PLAIN does not name a daemon without sanitizers")
    return path


def clean_environment() -> dict:
    return {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("OTEL_", "SIDELIGHT_")) and not k.lower().endswith("_proxy")
    }


@pytest.fixture
def arguments(tmp_path):
    """arguments(config, places) writes the configuration and gives the command line."""

    def make(config: dict | None = None, socket=None, data=None, http="127.0.0.1:0") -> list[str]:
        file = tmp_path / "sidelight.yaml"
        file.write_text(json.dumps({"exporters": [], **(config or {})}))  # JSON is YAML
        places = ["--socket", str(socket or tmp_path / "s.sock")]
        places += ["--data", str(data or tmp_path / "data"), "--http", http]
        return ["--config", str(file), *places]

    return make


@pytest.fixture
def refused(sidelightd, arguments):
    """refused(config, places) is a daemon that ends by itself: its exit code and its log."""

    def run(config: dict | None = None, *more: str, **places) -> tuple[int, str]:
        command = [sidelightd, *arguments(config, **places), *more]
        done = subprocess.run(
            command, env=clean_environment(), capture_output=True, text=True, timeout=30
        )
        assert not SANITIZER.search(done.stderr), done.stderr
        return done.returncode, done.stderr

    return run


@pytest.fixture
def daemon(sidelightd, arguments):
    """start(config) runs a daemon with that configuration (a dict), in this test's directory; a
    second call with the first one ended finds the same data. All are ended with the test."""
    running = []

    def start(
        config: dict | None = None,
        env: dict | None = None,
        stdout=subprocess.DEVNULL,
        program: str | None = None,
        **places,
    ):
        command = [program or sidelightd, *arguments(config, **places)]
        running.append(Daemon(command, {**clean_environment(), **(env or {})}, stdout))
        return running[-1]

    yield start
    for one in running:
        one.kill()
        assert not SANITIZER.search(one.log), one.log


@pytest.fixture
def sink():
    """An OTLP backend that takes everything until it is told otherwise."""
    with OtlpSink() as one:
        yield one
