"""What a daemon may be run under: libraries that make its memory, its disk or its clock fail it.

They are built beside the plain daemon (SIDELIGHTD_PLAIN), and are loaded into no other: sanitizers
bring an allocator and a start of their own.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import pathlib
import struct
import subprocess
import time

import pytest


def library(name: str, program: str) -> str:
    """The path of lib`name`.so for that daemon; the test is skipped where there is none."""
    path = pathlib.Path(program).resolve().parents[1] / "test" / "fault" / f"lib{name}.so"
    if not path.exists():
        pytest.skip(f"{path} is not built")
    if b"__asan_init" in pathlib.Path(program).read_bytes():
        pytest.skip("needs a daemon without sanitizers")
    return str(path)


class Words:
    """A file that a running program has mapped, as numbers."""

    def __init__(self, path, form: str):
        self.path = str(path)
        self._form = struct.Struct(form)
        with open(self.path, "wb") as file:
            file.truncate(self._form.size)
        with open(self.path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), self._form.size)

    def read(self) -> list[int]:
        return list(self._form.unpack(self._map))

    def write(self, index: int, value: int) -> None:
        words = self.read()
        words[index] = value
        self._map[:] = self._form.pack(*words)


class DiskFaults(Words):
    """The disk under a daemon, as test/fault/disk_faults.c has it."""

    def __init__(self, directory, program: str):
        super().__init__(directory / "disk-faults", "=4I")
        self.env = {"LD_PRELOAD": library("disk_faults", program), "DISK_FAULTS": self.path}

    def lie(self, on: bool = True) -> None:
        self.write(0, on)

    def fail_syncs(self, error: int) -> None:
        self.write(1, error)

    def fail_writes(self, error: int) -> None:
        self.write(2, error)

    @property
    def failed(self) -> int:
        return self.read()[3]


class Warp(Words):
    """The clocks of a daemon, as test/fault/warp.c has them."""

    def __init__(self, directory, program: str, speed: int = 1):
        super().__init__(directory / "warp", "=3q")
        self.write(1, speed)
        self.env = {"LD_PRELOAD": library("warp", program), "WARP": self.path}

    def step(self, seconds: float) -> None:
        """From now on the wall clock is off by that much."""
        self.write(0, int(seconds * 1e9))

    def slow_down(self) -> None:
        """From now on time passes as it does."""
        self.write(2, time.monotonic_ns() + 2_000_000)
        time.sleep(0.002)


@contextlib.contextmanager
def ext4(directory, size: str, options: str = "errors=remount-ro"):
    """A file system of its own on a loop device, as a function that mounts it; it is unmounted at the
    end. Only root can, and not in every container."""
    image, at = directory / "image", directory / "disk"
    at.mkdir()
    made = subprocess.run(["truncate", "-s", size, str(image)])
    if os.geteuid() == 0 and made.returncode == 0:
        made = subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], capture_output=True)

    def mount() -> pathlib.Path:
        command = ["mount", "-o", f"loop,{options}", str(image), str(at)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"needs loop devices: {done.stderr.strip()}")
        return at

    if os.geteuid() != 0 or made.returncode != 0:
        pytest.skip("needs root and mkfs.ext4")
    try:
        yield mount
    finally:
        while os.path.ismount(at):
            subprocess.run(["umount", "-l", str(at)], check=True)  # a daemon may still run


PLACES = 8192


class AllocFaults(Words):
    """The memory of a daemon, as test/fault/alloc_faults.c has it."""

    def __init__(self, directory, program: str):
        super().__init__(directory / "alloc-faults", f"=7Qq{2 * PLACES}Q")
        self._told = directory / "alloc-trace"
        self.env = {
            "LD_PRELOAD": library("alloc_faults", program),
            "ALLOC_FAULTS": self.path,
            "ALLOC_FAULTS_TRACE": str(self._told),
        }

    def reset(self, place: int = 0, nth: int = 1, many: int = 1) -> None:
        """Of the next program the nth allocation at that place fails, and as many as that in a row."""
        self._map[:] = bytes(len(self._map))
        self._told.unlink(missing_ok=True)
        for index, value in enumerate([place, nth, many]):
            self.write(index, value)

    def write(self, index: int, value: int) -> None:
        self._map[8 * index : 8 * index + 8] = struct.pack("=Q", value)

    @property
    def failed(self) -> int:
        return self.read()[5]

    @property
    def allocations(self) -> int:
        return self.read()[6]

    @property
    def live(self) -> int:
        """What was never freed, once it has ended."""
        return self.read()[7]

    def paths(self) -> list[list[str]]:
        """For each allocation that failed, from where it was called, innermost first, as "file(+offset)"
        or "library(function+offset)"."""
        if not self._told.exists():
            return []
        text = self._told.read_text(errors="replace")
        lines = [os.path.basename(line.partition("[")[0]) for line in text.splitlines()]
        return [list(path) for full, path in itertools.groupby(lines, bool) if full]

    def places(self) -> dict[int, int]:
        """Where memory was asked for, and how often."""
        words = self.read()[8:]
        return {hash_: count for hash_, count in zip(words[::2], words[1::2]) if hash_}
