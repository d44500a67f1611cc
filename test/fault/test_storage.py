"""The store can't be written: agents are held back without harm, /readyz says why, and when it can be
written again all goes on by itself. What must end the daemon ends it with a word, and loses nothing
that was acknowledged.

What a small tmpfs can show is in test/whole/test_lifecycle.py; the files themselves, damaged byte by
byte, are in test_store_damage.c.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time

import pytest

from otlp_sink import OtlpSink
from preload import DiskFaults, ext4
from whole import assert_ledger, clean_environment, eventually, exporter_ledger

SMALL = {"store": {"size": "16MiB"}}
RECOVERY_S = 1.0


class Steady(threading.Thread):
    """An agent that goes on sending and waits for each flush."""

    def __init__(self, running, size: int = 1000):
        super().__init__(daemon=True)
        self.agent = running.agent()
        self.size = size
        self.stop = threading.Event()
        self.sent: list[bytes] = []
        self.acknowledged = 0
        self.failure: BaseException | None = None

    def run(self):
        try:
            self.agent.socket.settimeout(60)
            while not self.stop.is_set():
                self.sent += self.agent.runs(5, input="x" * self.size)
                self.agent.flush()
                self.acknowledged = len(self.sent)
                time.sleep(0.002)
        except BaseException as error:
            self.failure = error

    def traces(self) -> set[str]:
        return {i.hex() for i in self.sent[: self.acknowledged]}

    def finish(self) -> None:
        self.stop.set()
        self.join(30)
        assert self.failure is None, self.failure
        self.agent.bye()


# Calls as an agent makes them, and how long each took, in seconds.
EMITTER = """
import json, sys, time
import sidelight
took = []
for n in range(20000):
    began = time.perf_counter()
    with sidelight.run("r", kind="llm", input="x" * 1000) as run:
        run.output = "y" * 1000
    took.append(time.perf_counter() - began)
took.sort()
print(json.dumps({"p50": took[10000], "p99": took[19800], "max": took[-1]}))
"""


def emit_hard(running) -> dict:
    """An agent with the Python client sends more than the socket and its buffer can hold."""
    env = {**clean_environment(), "SIDELIGHT_SOCKET": running.socket}
    done = subprocess.run(
        [sys.executable, "-c", EMITTER], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def wait_until_held_back(running) -> str:
    def why():
        status, body = running.get("/readyz")
        return body.decode() if status == 503 else None

    return eventually(why, what="it says that it is not ready")


def recover(running, repair) -> float:
    """Seconds from the repair until it is ready."""
    repair()
    began = time.monotonic()
    eventually(lambda: running.get("/readyz")[0] == 200, what="it is ready again")
    return time.monotonic() - began


# --- what passes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, error",
    [("write", errno.ENOSPC), ("write", errno.EDQUOT), ("write", errno.EROFS), ("sync", errno.ENOSPC)],
)
@pytest.mark.alone
def test_a_disk_that_refuses_is_waited_out(daemon, plain_sidelightd, tmp_path, kind, error):
    """A disk that is full or over its quota says so when it is written, or (one that was promised more
    than there is) not before it is synced."""
    faults = DiskFaults(tmp_path, plain_sidelightd)
    running = daemon(SMALL, program=plain_sidelightd, env=faults.env)
    steady = Steady(running)
    steady.start()
    eventually(lambda: steady.acknowledged > 20, what="some load")
    fail = faults.fail_writes if kind == "write" else faults.fail_syncs
    fail(error)
    why = wait_until_held_back(running)
    assert "store" in why
    at = steady.acknowledged
    took = emit_hard(running)
    assert steady.acknowledged == at and steady.failure is None
    assert running.get("/healthz")[0] == 200
    assert len(running.spans()) >= at
    back = recover(running, lambda: fail(0))
    print(f"{errno.errorcode[error]}: {why.strip()!r}; ready after {back * 1000:.0f} ms; a call took"
          f" p50 {took['p50'] * 1e6:.0f} p99 {took['p99'] * 1e6:.0f} max {took['max'] * 1e6:.0f} us")
    assert back < RECOVERY_S
    assert took["p99"] < 0.01 and took["max"] < 0.25  # it never waits for us
    eventually(lambda: steady.acknowledged > at, what="it goes on")
    steady.finish()
    assert steady.traces() <= {s["trace_id"] for s in running.spans()}
    assert_ledger(running)
    assert running.stop() == 0


def test_a_limit_of_file_sizes_is_waited_out(daemon, plain_sidelightd):
    """RLIMIT_FSIZE comes with a signal that ends who doesn't ask not to be."""
    running = daemon(SMALL, program=plain_sidelightd)
    steady = Steady(running)
    steady.start()
    eventually(lambda: steady.acknowledged > 20, what="some load")
    before = resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (8192, -1))
    why = wait_until_held_back(running)
    assert "store" in why
    lift = lambda: resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, before)  # noqa: E731
    assert recover(running, lift) < RECOVERY_S
    at = steady.acknowledged
    eventually(lambda: steady.acknowledged > at, what="it goes on")
    steady.finish()
    assert steady.traces() <= {s["trace_id"] for s in running.spans()}
    assert running.stop() == 0


def test_a_start_under_a_limit_of_file_sizes_says_so(arguments, plain_sidelightd):
    """The limit stands in the way of the whole store."""
    command = [plain_sidelightd, *arguments(SMALL)]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # noqa: E731
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=20, preexec_fn=limit)
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert "store" in done.stderr


def fill_up(at) -> os.PathLike:
    """Takes all that is left of a disk."""
    hog = at / "hog"
    with open(hog, "wb", buffering=0) as file:
        for size in (65536, 1024):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
    return hog


def test_a_store_that_has_its_room_does_not_mind_a_full_disk(daemon, plain_sidelightd, tmp_path):
    with ext4(tmp_path, "40M") as mount:
        at = mount()
        running = daemon(SMALL, data=at / "data", program=plain_sidelightd)
        assert "reserved" not in running.log
        fill_up(at)
        steady = Steady(running, size=20_000)
        steady.start()
        evicted = "sidelight_store_spans_evicted_total"
        eventually(lambda: running.metrics()(evicted) > 100, timeout=30, what="it has gone round")
        steady.finish()
        assert running.metrics()("sidelight_store_errors_total") == 0
        assert running.get("/readyz")[0] == 200
        assert running.stop() == 0


def test_a_full_ext4_that_has_no_room_for_the_store_is_waited_out(daemon, plain_sidelightd, tmp_path):
    with ext4(tmp_path, "24M") as mount:
        at = mount()
        (at / "other").write_bytes(bytes(8 << 20))
        running = daemon({"store": {"size": "64MiB"}}, data=at / "data", program=plain_sidelightd)
        assert "could not be reserved" in running.log
        steady = Steady(running, size=20_000)
        steady.start()
        assert "space" in wait_until_held_back(running)
        back = recover(running, lambda: os.unlink(at / "other"))
        at_first = steady.acknowledged
        eventually(lambda: steady.acknowledged > at_first, what="it goes on")
        print(f"ready {back * 1000:.0f} ms after there was room")
        assert back < RECOVERY_S
        steady.stop.set()
        running.kill()
        steady.join(30)
        again = daemon({"store": {"size": "64MiB"}}, data=at / "data", program=plain_sidelightd)
        assert steady.traces() <= {s["trace_id"] for s in again.spans()}
        assert again.stop() == 0


# --- what ends it -----------------------------------------------------------------------------


def test_a_failed_sync_ends_it_and_loses_nothing(daemon, plain_sidelightd, tmp_path):
    faults = DiskFaults(tmp_path, plain_sidelightd)
    running = daemon(SMALL, program=plain_sidelightd, env=faults.env)
    steady = Steady(running)
    steady.start()
    eventually(lambda: steady.acknowledged > 20, what="some load")
    faults.fail_syncs(errno.EIO)
    assert running.wait(20) == 1
    running.wait_for_line("error: .*disk")
    steady.join(30)
    assert steady.failure is not None  # hung up on, not told that it was safe
    faults.fail_syncs(0)
    again = daemon(SMALL, program=plain_sidelightd)
    assert "was corrupt" not in again.log
    assert steady.traces() <= {s["trace_id"] for s in again.spans()}
    assert again.stop() == 0


def test_a_file_system_that_turns_read_only_loses_nothing(daemon, plain_sidelightd, tmp_path):
    """As ext4 does by itself when it finds itself damaged. It stays so until it is mounted anew."""
    with ext4(tmp_path, "40M") as mount:
        at = mount()
        running = daemon(SMALL, data=at / "data", program=plain_sidelightd)
        steady = Steady(running)
        steady.start()
        eventually(lambda: steady.acknowledged > 20, what="some load")
        turn_read_only(at)
        # Held back for as long as it lasts, or ended, as after any failed sync.
        eventually(
            lambda: running.process.poll() is not None or running.get("/readyz")[0] == 503,
            what="it notices",
        )
        running.kill()
        steady.join(30)
        print(running.lines[-1])
        assert running.process.returncode in (1, -signal.SIGKILL)
        assert "store can't be written" in running.log or "disk" in running.log
        subprocess.run(["umount", str(at)], check=True)
        mount()
        again = daemon(SMALL, data=at / "data", program=plain_sidelightd)
        assert "was corrupt" not in again.log
        assert steady.traces() <= {s["trace_id"] for s in again.spans()}
        assert again.stop() == 0


def turn_read_only(at) -> None:
    device = subprocess.run(
        ["findmnt", "-n", "-o", "SOURCE", str(at)], capture_output=True, text=True, check=True
    ).stdout.strip()
    knob = f"/sys/fs/ext4/{os.path.basename(device)}/trigger_fs_error"
    if not os.access(knob, os.W_OK):
        pytest.skip(f"needs {knob}")
    with open(knob, "w") as file:
        file.write("1")


# --- what is found at the start ---------------------------------------------------------------


def fill(running, rounds: int, count: int = 10, size: int = 10_000) -> list[bytes]:
    ids = []
    with running.agent() as agent:
        for _ in range(rounds):
            ids += agent.runs(count, input="x" * size)
            agent.flush()
        agent.bye()
    return ids


def test_a_smaller_quota_holds_for_what_is_kept(daemon, sink):
    """The newest stays; the file is as long as it was."""
    config = {"exporters": [{"name": "backend", "type": "otlp", "endpoint": sink.endpoint}]}
    running = daemon({"store": {"size": "64MiB"}, **config})
    ids = fill(running, 300)
    assert running.stop() == 0
    length = os.stat(f"{running.data}/data.mdb").st_size
    running = daemon({**SMALL, **config})
    ids += fill(running, 20)
    stored = {s["trace_id"] for s in running.spans()}
    assert {i.hex() for i in ids[-200:]} <= stored and ids[0].hex() not in stored
    metrics = assert_ledger(running, "backend")
    assert metrics("sidelight_store_bytes") <= 0.8 * (16 << 20)
    assert metrics("sidelight_store_limit_bytes") == 16 << 20
    assert os.stat(f"{running.data}/data.mdb").st_size == length
    assert running.get("/readyz")[0] == 200
    assert running.stop() == 0


def test_a_full_map_with_a_dead_exporter_holds_nobody_up(daemon):
    with OtlpSink(listening=False) as sink:
        config = {"exporters": [{"name": "backend", "type": "otlp", "endpoint": sink.endpoint}]}
        running = daemon({**SMALL, **config})
        slowest = 0.0
        with running.agent() as agent:
            for _ in range(60):
                began = time.monotonic()
                last = agent.runs(40, input="x" * 10_000)
                agent.flush()
                slowest = max(slowest, time.monotonic() - began)
                assert running.get("/readyz")[0] == 200
        ledger = exporter_ledger(assert_ledger(running, "backend"), "backend")
        assert ledger["evicted"] > 500 and ledger["pending"] > 500 and ledger["delivered"] == 0
        sink.come_up()
        spans = sink.wait_for_spans(int(ledger["pending"]), timeout=20)
        assert {i.hex() for i in last} <= {s.trace_id.hex() for s in spans}
        assert_ledger(running, "backend")
        print(f"slowest flush {slowest * 1000:.0f} ms; {ledger}")
        assert slowest < 2


def test_a_span_that_the_store_can_not_hold_is_dropped_and_counted(daemon):
    """Nobody is told that it is durable."""
    large = {"ingest": {"max_frame": "64MiB"}, "capture": {"max_value": "16MiB"}}
    running = daemon({**SMALL, **large})
    with running.agent() as agent:
        agent.end(agent.start(kind="agent"), output="x" * (16 << 20))
        with pytest.raises(ConnectionError):
            agent.flush()
    running.wait_for_line("1 spans were dropped")
    assert "held back" not in running.log
    with running.agent() as agent:
        agent.runs(3)
        agent.flush()
    metrics = assert_ledger(running)
    assert metrics("sidelight_spans_dropped_total") == 1
    assert metrics("sidelight_spans_stored_total") == 3
    assert running.get("/readyz")[0] == 200


def flip(path: str, nth: int) -> None:
    """One bit of the nth block of spans that is found in the file."""
    with open(path, "r+b") as file:
        data = file.read(64 << 20)
        at = -1
        for _ in range(nth):
            at = data.index(b"SLB1", at + 1)
            while data[at + 10] != 1:  # the header's type: spans
                at = data.index(b"SLB1", at + 1)
        file.seek(at + 100)
        file.write(bytes([data[at + 100] ^ 1]))


def test_a_corrupt_block_is_passed_over_and_counted(daemon):
    with OtlpSink(listening=False) as sink:
        config = {"exporters": [{"name": "backend", "type": "otlp", "endpoint": sink.endpoint}]}
        running = daemon({**SMALL, **config})
        ids = fill(running, 40, size=2000)
        assert running.stop() == 0
        flip(f"{running.data}/data.mdb", 8)
        sink.come_up()
        running = daemon({**SMALL, **config})
        assert "was corrupt" not in running.log
        found = {s["trace_id"] for s in running.spans()}
        lost = len(ids) - len(found)
        assert 0 < lost < 100 and found < {i.hex() for i in ids}
        sink.wait_for_spans(len(found))
        eventually(lambda: exporter_ledger(running.metrics(), "backend")["pending"] == 0, what="all out")
        metrics = assert_ledger(running, "backend", waiting=len(ids))
        ledger = exporter_ledger(metrics, "backend")
        assert (ledger["delivered"], ledger["evicted"]) == (len(found), lost)
        assert metrics("sidelight_blocks_corrupt_total") > 0
        assert running.get("/readyz")[0] == 200
        assert running.stop() == 0


def test_a_newer_store_is_refused_and_left_alone(daemon, refused):
    running = daemon(SMALL)
    fill(running, 2)
    assert running.stop() == 0
    path = f"{running.data}/data.mdb"
    with open(path, "r+b") as file:
        data = file.read()
        of_now = b"format" + (1).to_bytes(8, "little")
        assert of_now in data
        file.seek(0)
        file.write(data.replace(of_now, b"format" + (2).to_bytes(8, "little")))
    before = hashlib.sha256(open(path, "rb").read()).digest()
    code, log = refused(SMALL)
    assert code == 1 and "newer" in log and "--data" in log, log
    assert hashlib.sha256(open(path, "rb").read()).digest() == before
    assert sorted(n for n in os.listdir(running.data) if ".bad-" in n) == []
