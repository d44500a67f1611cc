"""What the benchmark starts and measures; everything is ended by its pid."""

from __future__ import annotations

import mmap
import os
import re
import socket
import struct
import subprocess
import tempfile
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

READY = re.compile(r"ready socket=(\S+) http=(\S+) data=(\S+)")
PATIENCE_S = 180


def wait_until(condition, what: str, timeout: float = PATIENCE_S, pause: float = 0.002):
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout:g} s: {what}")
        time.sleep(pause)
    return value


class Process:
    """A child with its figures: CPU from the kernel's clock of the process, ended threads too."""

    def __init__(self, argv: list, **options):
        self.child = subprocess.Popen([str(a) for a in argv], **options)
        self.pid = self.child.pid
        self._clock = (~self.pid << 3) | 2  # clock_getcpuclockid(3)

    def cpu(self) -> float:
        return time.clock_gettime(self._clock)

    def status(self, key: str) -> int:
        """A number of /proc/PID/status; memory in KiB."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1])
        raise KeyError(key)

    def threads(self) -> dict:
        """Their names by id; those that have none of their own are told apart by a number."""
        names: dict = {}
        for tid in sorted(int(task.name) for task in Path(f"/proc/{self.pid}/task").iterdir()):
            name = Path(f"/proc/{self.pid}/task/{tid}/comm").read_text().strip()
            if name in names.values():
                name += f" {len(names)}"
            names[tid] = name
        return names

    def thread_cpu(self) -> dict:
        """CPU seconds of the threads that live now, summed by name."""
        spent: dict = {}
        for tid, name in self.threads().items():
            ns = int(Path(f"/proc/{self.pid}/task/{tid}/schedstat").read_text().split()[0])
            spent[name] = spent.get(name, 0.0) + ns / 1e9
        return spent

    def switches(self) -> tuple:
        """Voluntary and forced context switches of all threads."""
        text = "".join(
            Path(f"/proc/{self.pid}/task/{tid}/status").read_text() for tid in self.threads()
        )
        counts = re.findall(r"^(non)?voluntary_ctxt_switches:\s+(\d+)", text, re.M)
        voluntary = sum(int(n) for non, n in counts if not non)
        forced = sum(int(n) for non, n in counts if non)
        return voluntary, forced

    def stop(self) -> None:
        self.child.terminate()
        try:
            self.child.wait(20)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


class Peak(threading.Thread):
    """The highest anonymous RSS of a process, in KiB, looked at every 20 ms."""

    def __init__(self, process: Process):
        super().__init__(daemon=True)
        self._process = process
        self._end = threading.Event()
        self.anon = 0
        self.file = 0

    def run(self) -> None:
        while not self._end.wait(0.02):
            self.anon = max(self.anon, self._process.status("RssAnon"))
            self.file = max(self.file, self._process.status("RssFile"))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc) -> None:
        self._end.set()
        self.join()


class Sink(Process):
    def __init__(self, programs: Path, folder: Path, number: int = 0):
        counts = folder / f"sink-{number}"
        super().__init__([programs / "sink", counts], stdout=subprocess.PIPE, text=True)
        self.port = int(self.child.stdout.readline().split("=")[1])
        with open(counts, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), 24)

    def counts(self) -> tuple:
        """Requests, bytes and spans so far."""
        return struct.unpack("=3Q", self._map[:24])

    def spans(self) -> int:
        return self.counts()[2]


def otlp(name: str, port: int, compression: str = "none", start: str = "end") -> str:
    """An exporter, as the configuration has it."""
    return (f"{{type: otlp, name: {name}, endpoint: 'http://127.0.0.1:{port}', "
            f"compression: {compression}, from: {start}}}")


class Daemon(Process):
    """The collector on a folder of its own, ready to serve."""

    def __init__(self, build: Path, folder: Path, sink: Sink | None = None, size: str = "256MiB",
                 env: dict | None = None, exporters: list | None = None):
        if exporters is None:
            exporters = [otlp("sink", sink.port)] if sink else []
        config = folder / "sidelight.yaml"
        config.write_text("store: {size: %s}\nexporters: [%s]\n" % (size, ", ".join(exporters)))
        self.socket = folder / "s.sock"
        self.api = folder / "s-api.sock"
        self._log = open(folder / "daemon.log", "w+", encoding="utf-8")
        begin = time.monotonic()
        super().__init__(
            [build / "collector/sidelightd", "--config", config, "--socket", self.socket,
             "--data", folder / "data", "--http", "127.0.0.1:0"],
            stderr=self._log, stdout=subprocess.DEVNULL, env=dict(os.environ, **(env or {})))
        wait_until(lambda: self._ready() or self.child.poll() is not None, "ready", 60, 0.0005)
        self.start_s = time.monotonic() - begin
        if not self._ready():
            raise RuntimeError(f"the daemon did not start:\n{self.log()}")

    def _ready(self) -> bool:
        return bool(READY.search(self.log()))

    def log(self) -> str:
        return os.pread(self._log.fileno(), 1 << 20, 0).decode(errors="replace")

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        text = self.get("/metrics")[1].decode()
        found = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.M)
        return sum(float(v) for v in found)

    def held(self) -> int:
        """Spans in the store."""
        return int(self.metric("sidelight_spans_stored_total")
                   - self.metric("sidelight_store_spans_evicted_total"))

    def get(self, path: str) -> tuple:
        connection = UnixHTTP(str(self.api))
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


PEER_CONFIG = """\
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:%d"}}}}
exporters:
%s
service:
  telemetry: {metrics: {level: none}, logs: {level: error}}
  pipelines: {traces: {receivers: [otlp], exporters: [%s]}}
"""
PEER_EXPORTER = """\
  otlp_http/%d:
    endpoint: "http://127.0.0.1:%d"
    compression: %s
    sending_queue: {batch: {flush_timeout: 200ms, min_size: 512, max_size: 8192}}
"""


class Collector(Process):
    """An OpenTelemetry Collector that sends what it gets to each of the sinks, from its memory."""

    def __init__(self, folder: Path, sinks: list, compression: str = "none"):
        exporters = "".join(PEER_EXPORTER % (i, s.port, compression) for i, s in enumerate(sinks))
        names = ", ".join(f"otlp_http/{i}" for i in range(len(sinks)))
        self.port = free_port()
        config = folder / "collector.yaml"
        config.write_text(PEER_CONFIG % (self.port, exporters, names))
        log = folder / "collector.log"
        with open(log, "w", encoding="utf-8") as out:
            super().__init__([collector_program(), "--config", f"file:{config}"], stdout=out,
                             stderr=out)
        try:
            wait_until(self._answers, "the Collector's port", 30, 0.05)
        except TimeoutError as error:
            self.stop()
            raise RuntimeError(f"{error}:\n{log.read_text()}") from None

    def _answers(self) -> bool:
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0


def collector_program() -> str | None:
    """OTELCOL, or what tools/setup --tests has built; None: there is none."""
    built = Path(__file__).resolve().parents[2] / "build-peers/collector"
    return os.environ.get("OTELCOL") or (str(built) if built.exists() else None)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class UnixHTTP(HTTPConnection):
    def __init__(self, path: str):
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def load(programs: Path, path: Path, events: int, connections: int = 1, *more) -> dict:
    """Runs the load generator to its end; what it says, as numbers."""
    argv = [programs / "load", path, "--events", events, "--connections", connections, *more]
    done = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, text=True, check=True,
                          timeout=PATIENCE_S * 2)
    return parse(done.stdout)


def parse(line: str) -> dict:
    return {key: float(value) for key, value in (pair.split("=") for pair in line.split())}


def settle(sink: Sink, spans: int) -> float:
    """When the last span came to the sink: all of them, or none for 5 s."""
    have, since = sink.spans(), time.monotonic()
    while have < spans and time.monotonic() < since + 5:
        time.sleep(0.002)
        now = sink.spans()
        if now != have:
            have, since = now, time.monotonic()
    return since


class Folder(tempfile.TemporaryDirectory):
    """A folder for one measurement, as a Path, with a name short enough for sockets."""

    def __init__(self):
        super().__init__(prefix="slb-", dir=os.environ.get("BENCH_TMP"))

    def __enter__(self) -> Path:
        return Path(super().__enter__())
