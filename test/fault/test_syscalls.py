"""A daemon is killed at, or denied, one system call after another of a whole life: start, ingest, flush,
commit, eviction, export, stop. See scenario.py.

Needs ptrace, an x86-64 machine, and SIDELIGHTD_PLAIN: sanitizers make calls of their own. A sample runs
by default; SIDELIGHT_EVERY=1 takes every call (test/fault/long), SIDELIGHT_FAULT=error:fdatasync:4:EIO
one of them.
"""

from __future__ import annotations

import itertools
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import pytest

from scenario import UNISTD, Fault, Stage

# Where the store changes: each of these is taken, in the sample, too.
DENSE = {"pwrite64", "pwritev", "fdatasync", "fsync", "ftruncate", "fallocate", "rename", "renameat2", "unlink"}

# What a call may say on a machine in trouble. Not among them: what no kernel says (EIO of an eventfd),
# and what libuv aborts on: its own pipes, epoll_ctl.
ERRORS = {
    "accept4": ["EMFILE", "ECONNABORTED", "EINTR", "ENOMEM"],
    "bind": ["EADDRINUSE", "EACCES"],
    "chmod": ["EIO", "EPERM"],
    "clone": ["EAGAIN", "ENOMEM"],
    "clone3": ["EAGAIN", "ENOMEM"],
    "close.file": ["EIO", "EINTR"],
    "close.socket": ["EINTR"],
    "connect": ["ENETUNREACH", "EINTR", "EAGAIN"],
    "epoll_create1": ["EMFILE", "ENOMEM"],
    "epoll_wait": ["EINTR"],
    "eventfd2": ["EMFILE", "ENOMEM"],
    "fallocate": ["ENOSPC", "EIO", "EOPNOTSUPP", "EINTR"],
    "fchmod": ["EIO", "EPERM"],
    "fcntl.file": ["ENOLCK"],
    "fdatasync": ["EIO", "ENOSPC", "EINTR"],
    "fstatfs": ["EIO"],
    "ftruncate": ["EIO", "ENOSPC", "EINTR"],
    "getrandom": ["EINTR", "EAGAIN"],
    "getsockname": ["ENOBUFS"],
    "getsockopt": ["ENOBUFS"],
    "ioctl": ["ENOTTY"],
    "listen": ["EADDRINUSE"],
    "lseek": ["EINVAL"],
    "madvise": ["ENOMEM"],
    "mkdir": ["ENOSPC", "EIO"],
    "mmap": ["ENOMEM"],
    "mprotect": ["ENOMEM"],
    "mremap": ["ENOMEM"],
    "newfstatat": ["EIO", "ENOMEM"],
    "openat": ["EMFILE", "ENFILE", "EACCES", "EIO", "ENOMEM", "EINTR"],
    "poll": ["EINTR", "ENOMEM"],
    "prctl": ["EINVAL"],
    "pread64": ["EIO", "short"],
    "prlimit64": ["EPERM"],
    "pwrite64": ["EIO", "ENOSPC", "EINTR", "short"],
    "pwritev": ["EIO", "ENOSPC", "EINTR", "short"],
    "read.file": ["EIO", "EINTR", "short"],
    "read.other": ["EAGAIN"],
    "read.pipe": ["EINTR"],
    "read.socket": ["ECONNRESET", "EINTR", "EAGAIN", "ENOMEM", "short"],
    "recvfrom": ["ECONNRESET", "EINTR", "EAGAIN", "short"],
    "rename": ["EIO", "ENOSPC"],
    "sendmsg": ["ECONNRESET", "EINTR", "EAGAIN", "ENOBUFS"],
    "sendto": ["ECONNRESET", "EPIPE", "EINTR", "EAGAIN", "ENOBUFS", "short"],
    "setsockopt": ["ENOMEM"],
    "shutdown": ["ENOTCONN"],
    "socket": ["EMFILE", "ENOBUFS"],
    "socketpair": ["EMFILE"],
    "statfs": ["EIO"],
    "unlink": ["EIO"],
    "wait4": ["EINTR"],
    "write.file": ["EIO", "ENOSPC", "EINTR", "short"],
    "write.socket": ["ECONNRESET", "EPIPE", "EINTR", "EAGAIN", "ENOBUFS", "short"],
    "writev.socket": ["ECONNRESET", "EPIPE", "EINTR", "EAGAIN", "ENOBUFS", "short"],
}


@pytest.fixture
def stage(plain_sidelightd, sink):
    inject = pathlib.Path(plain_sidelightd).resolve().parents[1] / "test" / "fault" / "inject"
    if not inject.exists():
        pytest.skip(f"{inject} is not built: it needs an x86-64 machine")
    if not UNISTD.exists():
        pytest.skip(f"{UNISTD} is missing: it has the numbers of the system calls")
    probe = subprocess.run([inject, os.devnull, "/bin/true"], capture_output=True, text=True)
    if probe.returncode != 0:
        pytest.skip(f"needs ptrace: {probe.stderr}")
    memory = pathlib.Path("/dev/shm")  # thousands of stores are nothing for a disk
    directory = pathlib.Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    try:
        yield Stage(plain_sidelightd, str(inject), directory, sink)
    finally:
        shutil.rmtree(directory)


def every() -> bool:
    return bool(os.environ.get("SIDELIGHT_EVERY"))


def first_and_last(call: str, count: int) -> set[int]:
    """Which of a call's occurrences are taken."""
    return set(range(1, count + 1)) if every() or call in DENSE else {1, count}


def kills(counts: dict[str, int]) -> list[Fault]:
    return [
        Fault("kill", call, n)
        for call, count in counts.items()
        for n in sorted(first_and_last(call, count))
    ]


def failures(counts: dict[str, int]) -> list[Fault]:
    """Every call with every error. In the sample a call's errors take turns: on its occurrences where
    the store changes, at the beginning, in the middle and at the end elsewhere."""
    faults = []
    for call, errors in ERRORS.items():
        count = counts.get(call, 0)
        if every():
            taken = itertools.product(range(1, count + 1), errors)
        elif call in DENSE:
            taken = zip(range(1, count + 1), itertools.cycle(errors))
        else:
            some = itertools.cycle([max(1, count // 2), count, 1])
            taken = zip(some, errors) if count else []
        faults += [
            Fault("short", call, n) if error == "short" else Fault("error", call, n, error)
            for n, error in taken
        ]
    return faults


def play_all(stage: Stage, faults: list[Fault]) -> None:
    """Each fault gets a life; all that went wrong is told together."""
    if only := os.environ.get("SIDELIGHT_FAULT"):
        faults = [Fault.parse(only)]
    failures, hits, began = [], 0, time.monotonic()
    for n, fault in enumerate(faults, 1):
        try:
            hits += stage.run(fault) is not None
        except AssertionError as failure:
            failures.append(f"SIDELIGHT_FAULT={fault}: {failure}\n{stage.log}")
            print(failures[-1], flush=True)
        if n % 100 == 0 or n == len(faults):
            rate = n / (time.monotonic() - began)
            print(f"{n} of {len(faults)} lives, {hits} spoiled, {len(failures)} failed, {rate:.1f}/s", flush=True)
    assert not failures, "\n".join(failures)
    assert hits > 0


@pytest.mark.timeout(0 if every() else 600)
def test_a_kill_at_a_system_call_loses_nothing_acknowledged(stage):
    assert stage.run(None) is None
    play_all(stage, kills(stage.counts()))


@pytest.mark.timeout(0 if every() else 600)
def test_a_system_call_that_fails_is_no_crash_and_no_false_word(stage):
    assert stage.run(None) is None
    play_all(stage, failures(stage.counts()))
