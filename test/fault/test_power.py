"""The power goes: what the file system had not been made to keep is gone, and nothing else may be.

A loop device with ext4 is shut down under the working daemon, as its own test suite does it
(FS_IOC_SHUTDOWN): what is only in the page cache, or only in an open journal transaction, is lost.
It shows neither a disk whose own cache lies nor a sector half written.

POWER_CUTS=200 makes it the long form.
"""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import struct
import subprocess
import time

import pytest

from load import Client, assert_all_there, finish
from preload import DiskFaults, ext4
from whole import assert_ledger, eventually

CUTS = int(os.environ.get("POWER_CUTS", "12"))
CUTS_A_STORE = 10
LIES = 3
STORE = {"store": {"size": "48MiB"}}

FS_IOC_SHUTDOWN = 0x8004587D
ALL_IS_FLUSHED, JOURNAL_IS_FLUSHED, NOTHING_IS_FLUSHED = 0, 1, 2  # before the end


@pytest.fixture
def disk(tmp_path):
    with ext4(tmp_path, "72M") as mount:
        yield mount


def cut_power(at, how: int) -> None:
    fd = os.open(at, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, FS_IOC_SHUTDOWN, struct.pack("I", how))
    finally:
        os.close(fd)


def restore_power(at, mount) -> None:
    """What a machine finds when it comes up again; the journal is replayed."""
    subprocess.run(["umount", str(at)], check=True)
    mount()


def acknowledged_roots(clients) -> set[str]:
    return {r.hex() for c in clients for r in c.acknowledged & c.roots}


def test_what_was_acknowledged_survives_a_power_cut(daemon, plain_sidelightd, disk, tmp_path):
    random.seed(20261124)
    at = disk()
    hows = [NOTHING_IS_FLUSHED, JOURNAL_IS_FLUSHED, NOTHING_IS_FLUSHED, ALL_IS_FLUSHED]
    total, clients = 0, []
    for n in range(CUTS):
        if n % CUTS_A_STORE == 0:
            shutil.rmtree(at / "data", ignore_errors=True)
            clients = [Client(str(tmp_path / "s.sock")) for _ in range(3)]
            running = daemon(STORE, data=at / "data", program=plain_sidelightd)
            for client in clients:
                client.start()
        time.sleep(random.uniform(0, 0.25))
        cut_power(at, hows[n % len(hows)])
        time.sleep(random.choice([0, 0, 0.02]))  # an answer that comes after it counts as well
        running.kill()
        promised = acknowledged_roots(clients)
        restore_power(at, disk)
        running = daemon(STORE, data=at / "data", program=plain_sidelightd)
        assert "was corrupt" not in running.log, running.log
        assert promised - {s["trace_id"] for s in running.spans()} == set()
        if n % CUTS_A_STORE == CUTS_A_STORE - 1 or n == CUTS - 1:
            finish(clients)
            assert_all_there(running, clients)
            assert_ledger(running)
            total += sum(len(c.acknowledged) for c in clients)
            assert running.stop() == 0
    print(f"{CUTS} cuts, {total} runs acknowledged, 0 lost")
    assert total > 50 * CUTS


def test_a_daemon_that_does_not_sync_is_caught(daemon, plain_sidelightd, disk, tmp_path):
    """The test of the test: the same daemon on the same disk, whose syncs only say that they did."""
    at = disk()
    faults = DiskFaults(tmp_path, plain_sidelightd)
    caught = 0
    for n in range(LIES):
        faults.lie()
        running = daemon(STORE, data=at / f"data{n}", program=plain_sidelightd, env=faults.env)
        client = Client(running.socket)
        client.start()
        eventually(lambda: len(client.acknowledged) > 100, what="some load")
        cut_power(at, NOTHING_IS_FLUSHED)
        running.kill()
        client.stop.set()
        promised = acknowledged_roots([client])
        restore_power(at, disk)
        running = daemon(STORE, data=at / f"data{n}", program=plain_sidelightd)
        client.join(30)
        caught += bool(promised - {s["trace_id"] for s in running.spans()})
        assert running.stop() == 0
    print(f"{caught} of {LIES} lies caught")
    assert caught > 0
