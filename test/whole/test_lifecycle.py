"""Start, reload, stop, and a disk that is full or read-only."""

from __future__ import annotations

import os
import re
import signal
import shutil
import socket
import statistics
import subprocess
import threading
import time
import uuid

import pytest

from conftest import READY, assert_ledger, clean_environment, eventually, frame

MS = 1_000_000


# --- the command line -------------------------------------------------------------------------


def run(sidelightd, *arguments: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sidelightd, *arguments],
        env={**clean_environment(), **env},
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_help_version_and_usage(sidelightd):
    done = run(sidelightd, "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: sidelightd") and not done.stderr
    done = run(sidelightd, "--version")
    assert done.returncode == 0 and re.fullmatch(r"sidelightd \d+\.\d+\.\d+\n", done.stdout)
    for wrong in (["--nonsense"], ["extra"], ["--socket"]):
        done = run(sidelightd, *wrong)
        assert done.returncode == 2 and "--help" in done.stderr and not done.stdout


def test_check_config_prints_what_holds_and_hides_secrets(sidelightd, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(
        "service: {name: chat-api}\n"
        "store: {retention: 3d}\n"
        "exporters:\n"
        "  - {name: tempo, type: otlp, endpoint: 'http://localhost:1', headers: {Authorization: '${env:TOKEN}'}}\n"
    )
    done = run(sidelightd, "--config", str(file), "--check-config", TOKEN="Bearer hush")
    assert done.returncode == 0 and not done.stderr
    assert "chat-api" in done.stdout and "3d" in done.stdout and "max_connections: 1024" in done.stdout
    assert "hush" not in done.stdout and "***" in done.stdout
    # What it prints is a configuration that says the same.
    again = tmp_path / "again.yaml"
    again.write_text(done.stdout)
    assert run(sidelightd, "--config", str(again), "--check-config").stdout == done.stdout
    assert not list(tmp_path.glob("**/data.mdb")) and not list(tmp_path.glob("*.sock"))


def test_a_bad_configuration_is_told_with_all_its_places(sidelightd, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("ingest: {scoket: /tmp/x.sock}\nstore: {retention: 30}\nspans: {convention: blue}\n")
    for more in ([], ["--check-config"]):
        done = run(sidelightd, "--config", str(file), *more)
        assert done.returncode == 2 and not done.stdout
        lines = done.stderr.splitlines()
        assert [line.split(":")[1] for line in lines] == ["1", "2", "3"]
        assert all(re.match(r".*c\.yaml:\d+:\d+: [a-z.]+: ", line) for line in lines)
        assert "did you mean 'socket'" in lines[0]
    done = run(sidelightd, "--config", str(tmp_path / "none.yaml"))
    assert done.returncode == 2 and "none.yaml" in done.stderr
    file.write_text("service: {name: '${env:NOT_SET}'}\n")
    assert run(sidelightd, "--config", str(file)).returncode == 2


def test_the_port_that_is_taken_is_named(refused):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, log = refused(http=f"127.0.0.1:{port}")
    assert code == 1 and f":{port}" in log and "taken" in log
    assert not READY.search(log)


def test_what_fails_to_start_leaves_no_socket_behind(refused, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused(http=f"127.0.0.1:{taken.getsockname()[1]}")
    assert [n for n in os.listdir(tmp_path) if ".sock" in n or n.endswith("~")] == []


# --- readiness --------------------------------------------------------------------------------


def test_the_ready_line_says_where_everything_is(daemon, tmp_path):
    running = daemon()
    assert running.socket == str(tmp_path / "s.sock") and running.data == str(tmp_path / "data")
    assert [line for line in running.lines if line.startswith("ready")] == running.lines[-1:]
    assert running.get("/readyz")[0] == 200
    assert running.get("/healthz")[0] == 200
    assert running.stop() == 0
    assert os.stat(tmp_path / "data").st_mode & 0o777 == 0o700


def test_systemd_is_told_when_it_is_ready_and_when_it_stops(daemon, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(10)
        running = daemon(env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        said = notify.recv(4096).decode()
        assert "READY=1" in said.split("\n")
        running.signal(signal.SIGTERM)
        assert "STOPPING=1" in notify.recv(4096).decode().split("\n")
        assert running.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_with_zero_and_takes_its_sockets_along(daemon, tmp_path, number):
    running = daemon()
    with running.agent() as agent:
        run_id = agent.start(kind="agent", name="open")
        agent.flush()
        running.signal(number)
        assert running.wait(10) == 0
        assert agent.is_closed()
    assert [n for n in os.listdir(tmp_path) if ".sock" in n] == []
    again = daemon()
    assert again.span(run_id)["status"]["code"] == "running"


def test_stdout_is_the_consoles_alone(daemon, tmp_path):
    with open(tmp_path / "out", "wb") as out:
        running = daemon(stdout=out)
        with running.agent() as agent:
            agent.runs(3)
            agent.flush()
            agent.bye()
        assert running.stop() == 0
    assert (tmp_path / "out").read_bytes() == b""


# --- SIGHUP -----------------------------------------------------------------------------------


def test_sighup_says_what_the_new_configuration_means(daemon, arguments):
    running = daemon()
    running.signal(signal.SIGHUP)
    running.wait_for_line("SIGHUP.*0 started, 0 stopped")
    arguments({"store": {"retention": "1d"}})
    running.signal(signal.SIGHUP)
    running.wait_for_line("SIGHUP.*changed.*restart")
    arguments({"store": {"retention": "soon"}})
    running.signal(signal.SIGHUP)
    running.wait_for_line(r"store\.retention: 'soon'")
    running.wait_for_line("SIGHUP.*nothing was changed")
    with running.agent() as agent:
        agent.runs(1)
        agent.flush()
        agent.bye()
    assert len(running.spans()) == 1
    assert_ledger(running)


# --- disks ------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    """disk(size) is a file system of its own."""
    mounted = []

    def mount(size: str, *options: str):
        at = tmp_path / "disk"
        at.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={size}", *options]), "tmpfs", str(at)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("only root can mount, and not in every container")
        mounted.append(at)
        return at

    yield mount
    for at in mounted:
        subprocess.run(["umount", "-l", str(at)], check=True)


def test_a_data_directory_that_can_not_be_written_is_refused_in_words(refused, tmp_path, disk):
    at = disk("32m", "ro")
    code, log = refused(data=at / "data")
    assert code == 1 and "--data" in log and ("read-only" in log.lower() or "Read-only" in log)
    (tmp_path / "file").write_text("x")
    code, log = refused(data=tmp_path / "file" / "data")
    assert code == 1 and "file/data" in log
    assert (tmp_path / "file").read_text() == "x"


def fill_up(at, leave: int = 0):
    """Takes all that is left of a disk, but for some."""
    hog = at / "hog"
    with open(hog, "wb", buffering=0) as file:
        for size in (65536, 4096):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
        file.truncate(file.tell() - leave)
    return hog


def test_a_disk_that_is_full_at_the_start_is_refused_in_words(refused, disk):
    at = disk("8m")
    fill_up(at)
    code, log = refused(data=at / "data")
    assert code == 1 and "store.size" in log and not READY.search(log)
    assert [n for n in os.listdir(at) if n.endswith(".sock")] == []


def start_on_a_small_disk(daemon, disk):
    """With less room than the store may take, so that it can't be reserved."""
    at = disk("24m")
    hog = fill_up(at, leave=6 << 20)
    return daemon({"store": {"size": "64MiB"}}, data=at / "data"), hog


class Steady(threading.Thread):
    """An agent that goes on sending and now and then gets a flush back."""

    def __init__(self, running):
        super().__init__(daemon=True)
        self.agent = running.agent()
        self.stop = threading.Event()
        self.sent: list[bytes] = []
        self.acknowledged = 0
        self.failure: BaseException | None = None

    def run(self):
        try:
            self.agent.socket.settimeout(60)
            while not self.stop.is_set():
                ids = self.agent.runs(20, input="x" * 4000)
                self.agent.flush()
                self.sent += ids
                self.acknowledged += len(ids)
                time.sleep(0.002)
        except BaseException as error:
            self.failure = error


@pytest.mark.alone
def test_a_disk_that_fills_up_holds_events_back_and_loses_none(daemon, disk):
    running, hog = start_on_a_small_disk(daemon, disk)
    steady = Steady(running)
    steady.start()
    eventually(lambda: running.get("/readyz")[0] == 503, timeout=30, what="the disk is full")
    status, why = running.get("/readyz")
    assert status == 503 and b"store" in why and b"space" in why
    assert running.get("/healthz")[0] == 200  # it lives, and answers
    assert len(running.spans()) >= steady.acknowledged > 0
    assert running.metrics()("sidelight_store_errors_total") > 0
    before = steady.acknowledged
    time.sleep(0.5)
    assert steady.acknowledged == before and steady.failure is None  # held back, not refused
    with running.agent() as other:
        began = time.monotonic()
        later = other.runs(5)
        assert time.monotonic() - began < 1  # who only sends isn't held up
        os.unlink(hog)  # there is room again
        began = time.monotonic()
        eventually(lambda: running.get("/readyz")[0] == 200, timeout=5, what="it is ready again")
        took = time.monotonic() - began
        other.flush()
        other.bye()
    print(f"ready again {took * 1000:.0f} ms after there was room")
    assert took < 1
    eventually(lambda: steady.acknowledged > before, what="it goes on")
    steady.stop.set()
    steady.join(30)
    assert steady.failure is None
    steady.agent.bye()
    metrics = assert_ledger(running)
    assert metrics("sidelight_store_spans_evicted_total") == 0
    assert metrics("sidelight_frames_refused_total") == 0
    wanted = sorted(i.hex() for i in steady.sent + later)
    assert sorted(s["trace_id"] for s in running.spans()) == wanted


def test_what_was_acknowledged_survives_a_kill_on_a_full_disk(daemon, disk):
    running, hog = start_on_a_small_disk(daemon, disk)
    steady = Steady(running)
    steady.start()
    eventually(lambda: running.get("/readyz")[0] == 503, timeout=30, what="the disk is full")
    running.kill()
    steady.join(30)
    os.unlink(hog)
    again = daemon({"store": {"size": "64MiB"}}, data=running.data)
    stored = {s["trace_id"] for s in again.spans()}
    assert steady.sent and {i.hex() for i in steady.sent} <= stored


def test_a_full_disk_does_not_hold_up_the_end(daemon, disk):
    running, _ = start_on_a_small_disk(daemon, disk)
    steady = Steady(running)
    steady.start()
    eventually(lambda: running.get("/readyz")[0] == 503, timeout=30, what="the disk is full")
    began = time.monotonic()
    running.signal(signal.SIGTERM)
    assert running.wait(20) == 0
    assert time.monotonic() - began < 12
    assert "lost" in running.log  # what could not be written, and was never acknowledged
    steady.join(30)


def test_a_half_frame_outlives_a_full_disk(daemon, disk):
    """Reading has paused: the client is not charged for that."""
    running, hog = start_on_a_small_disk(daemon, disk)
    data = frame([1, uuid.uuid4().bytes, time.time_ns(), 1, {"kind": "agent", "name": "half"}])
    half, loud = running.agent(), running.agent()
    half.flush()
    half.send_bytes(data[:30])
    loud.socket.settimeout(1)
    with pytest.raises(TimeoutError):  # until nothing is read any more
        while True:
            loud.runs(20, input="y" * 10_000)
    assert running.get("/readyz")[0] == 503
    assert not half.is_closed(11)
    os.unlink(hog)
    half.socket.settimeout(10)
    half.send_bytes(data[30:])
    assert half.flush() == []
    assert running.metrics()("sidelight_frames_refused_total", reason="timeout") == 0
    loud.close()
    half.bye()


# --- quick ------------------------------------------------------------------------------------


def seconds_until_seen(running, agent) -> float:
    run_id = uuid.uuid4().bytes
    began = time.monotonic()
    agent.start(run_id, kind="agent", name="look")
    agent.end(run_id)
    while running.get(f"/api/traces/{run_id.hex()}")[0] != 200:
        assert time.monotonic() - began < 10
        time.sleep(0.001)
    return time.monotonic() - began


def measure_looks(running) -> list[float]:
    took = []
    with running.agent() as agent:
        agent.flush()
        for _ in range(20):
            time.sleep(0.25)  # it is idle again
            took.append(seconds_until_seen(running, agent) * 1000)
        agent.bye()
    took.sort()
    print(f"seen through the API after p50 {statistics.median(took):.1f} ms, worst {took[-1]:.1f} ms")
    return took


@pytest.mark.alone
def test_an_event_is_soon_visible_through_the_api(daemon, plain_sidelightd):
    running = daemon(program=plain_sidelightd)
    assert statistics.median(measure_looks(running)) <= 50
    assert_ledger(running)


@pytest.mark.alone
def test_it_is_ready_quickly_and_idle_then(daemon, plain_sidelightd):
    began = time.monotonic()
    running = daemon(program=plain_sidelightd)
    assert time.monotonic() - began < 2

    def cpu_ticks() -> int:
        with open(f"/proc/{running.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    before = cpu_ticks()
    time.sleep(1)
    assert cpu_ticks() - before <= 1
    assert running.json("/api/traces") == {"traces": [], "next": None}


def test_a_store_that_was_removed_takes_nothing_more(daemon, tmp_path):
    running = daemon()
    with running.agent() as agent:
        agent.runs(1)
        agent.flush()
        shutil.rmtree(tmp_path / "data")
        agent.runs(1)
        eventually(lambda: running.get("/readyz")[0] == 503, what="the loss is noticed")
        assert b"removed" in running.get("/readyz")[1]
        agent.bye()
    running.stop()
