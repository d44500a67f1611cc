"""Frames that mean harm: each is refused by its name, and nobody else notices."""

from __future__ import annotations

import json
import pathlib
import re
import struct
import threading
import time
import uuid

import msgpack
import pytest

from conftest import Agent, assert_ledger, frame

VECTORS = pathlib.Path(__file__).parents[2] / "proto" / "vectors"
MIB = 1 << 20
RUN = bytes(range(1, 17))


def body(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def cut_anywhere() -> dict[str, bytes]:
    """A good start, its body ended at each byte: the prefix says so, and the rest never comes."""
    fields = {"kind": "llm", "name": "é", "input": [{"role": "user", "content": "x" * 40}]}
    fields |= {"attrs": {"a": 1.5, "b": [None, True, b"\0"]}, "tags": ["t"]}
    whole = msgpack.packb([1, RUN, 1 << 40, 1 << 33, fields], use_bin_type=True)
    return {f"cut-at-{n}": body(whole[:n]) for n in range(1, len(whole))}


def claims() -> dict[str, bytes]:
    """Each container and text that msgpack has, claiming 2^32-1 elements, at each place."""
    big = b"\xff\xff\xff\xff"
    head = msgpack.packb([1, RUN, 1, 1, {}], use_bin_type=True)[:-1]
    kinds = {"array": b"\xdd", "map": b"\xdf", "str": b"\xdb", "bin": b"\xc6", "ext": b"\xc9"}
    found = {}
    for name, byte in kinds.items():
        found[f"claims-{name}-alone"] = body(byte + big)
        found[f"claims-{name}-for-map"] = body(head + byte + big)
        found[f"claims-{name}-for-run"] = body(b"\x95\x01" + byte + big)
        for key in (b"input", b"attrs", b"tags", b"name", b"unknown"):
            field = b"\x81" + msgpack.packb(key.decode()) + byte + big
            found[f"claims-{name}-for-{key.decode()}"] = body(head + field)
    return found


def bombs() -> dict[str, bytes]:
    """Few bytes that mean much, or much that means little."""
    nested = b"\x91" * (2 * MIB)
    head = msgpack.packb([1, RUN, 1, 1, {}], use_bin_type=True)[:-1] + b"\x81\xa5input"
    return {
        "nested-arrays": body(nested),
        "nested-in-input": body(head + nested),
        "nested-maps": body(head + b"\x81\x01" * MIB),
        "array-of-nils": body(head + b"\xdd" + struct.pack(">I", 3 * MIB) + b"\xc0" * (3 * MIB - 1)),
        "attrs-of-65536": body(head[:-6] + msgpack.packb({"attrs": {str(n): n for n in range(65536)}})[1:]),
        "top-of-65536": body(head[:-7] + msgpack.packb({str(n): n for n in range(65536)})),
        "zeros": body(bytes(4 * MIB)),
        "ones": body(b"\xff" * (4 * MIB)),
    }


def vectors() -> tuple[dict, dict]:
    """Frames of the protocol's own vectors, and those after which the connection ends."""
    staying, closing = {}, {}
    for one in json.loads((VECTORS / "bad.json").read_text()):
        data = bytes.fromhex(one["frame"])
        if one.get("prefix") and not one.get("closes"):
            length = int.from_bytes(data[:4], "big")
            if length > 8 * MIB:
                continue  # a gigabyte is announced: test_ingest has it
            data += bytes(length)
        (closing if one.get("closes") else staying)[one["name"]] = (one["reason"], data)
    return staying, closing


STAYING, CLOSING = vectors()
OURS = {**cut_anywhere(), **claims(), **bombs()}
ALL = {**{name: data for name, (_, data) in STAYING.items()}, **OURS}


def rss_anon(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        return int(re.search(r"RssAnon:\s+(\d+) kB", file.read())[1]) * 1024


class GoodClient:
    """Requests beside all that: each must come out right, and soon."""

    def __init__(self, running):
        self.running = running
        self.ids: list[bytes] = []
        self.slowest = 0.0
        self.failure: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        try:
            with self.running.agent(service="good") as agent:
                while not self._stop.wait(0.02):
                    began = time.monotonic()
                    self.ids += agent.runs(1)
                    assert agent.flush() == []
                    self.slowest = max(self.slowest, time.monotonic() - began)
                agent.bye()
        except BaseException as error:
            self.failure = error

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._stop.set()
        self._thread.join()
        if self.failure:
            raise self.failure


def assert_served(running, good: GoodClient, within: float):
    assert good.ids and good.slowest < within, good.slowest
    spans = [s for s in running.spans() if s["service"] == "good"]
    assert sorted(s["trace_id"] for s in spans) == sorted(i.hex() for i in good.ids)
    assert {s["status"]["code"] for s in spans} == {"ok"}


def test_there_are_enough_of_them():
    assert len(set(ALL.values())) >= 300


def test_each_alone_is_refused_by_its_name(daemon):
    running = daemon()
    refused = 0
    for name, (reason, data) in STAYING.items():
        with running.agent(hello=False) as agent:
            agent.send_bytes(data)
            complaints = agent.flush()
            assert [c["code"] for c in complaints] == [reason], name
            agent.bye()
        refused += 1
    for name, (reason, data) in CLOSING.items():
        with running.agent(hello=False) as agent:
            agent.send_bytes(data)
            assert agent.receive()[1]["code"] == reason, name
            assert agent.is_closed(), name
        refused += 1
    for name, data in OURS.items():
        with running.agent(hello=False) as agent:
            agent.send_bytes(data)
            assert len(agent.flush()) == 1, name
            agent.bye()
        refused += 1
    metrics = assert_ledger(running)
    assert metrics("sidelight_frames_refused_total") == refused
    assert running.spans() == [] and metrics("sidelight_open_runs") == 0


def send_all(running, times: int, pieces: int | None = None):
    """All of them in one stream, in writes of that many bytes."""
    stream = b"".join(ALL.values())
    with Agent(running.socket, hello=False) as agent:
        agent.socket.settimeout(60)
        for _ in range(times):
            step = pieces or len(stream)
            for at in range(0, len(stream), step):
                agent.send_bytes(stream[at : at + step])
        agent.flush()
        agent.bye()


def attack(running, connections: int, times: int):
    sizes = (None, 65536, 4099, 1 << 20)
    threads = [
        threading.Thread(target=send_all, args=(running, times, sizes[n % len(sizes)]))
        for n in range(connections)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_all_of_them_from_eight_sides_leave_others_served(daemon):
    running = daemon()
    with GoodClient(running) as good:
        attack(running, connections=8, times=1)
    metrics = assert_ledger(running)
    assert metrics("sidelight_frames_refused_total") == 8 * len(ALL)
    assert_served(running, good, within=5)  # a sanitizer build on a busy machine


@pytest.mark.alone
def test_memory_and_latency_are_unmoved_by_them(daemon, plain_sidelightd):
    running = daemon(program=plain_sidelightd)
    attack(running, connections=8, times=1)  # what a first large frame makes it take
    with running.agent() as agent:
        agent.runs(100)
        agent.flush()
        agent.bye()
    before = rss_anon(running.process.pid)
    with GoodClient(running) as good:
        attack(running, connections=8, times=2)
    metrics = assert_ledger(running)
    after = rss_anon(running.process.pid)
    assert metrics("sidelight_frames_refused_total") == 3 * 8 * len(ALL)
    assert_served(running, good, within=1)
    print(f"RssAnon {before >> 10} -> {after >> 10} KiB, slowest flush {good.slowest * 1e3:.0f} ms")
    assert after - before < MIB, (before, after)


def test_mutated_good_frames_never_end_the_daemon(daemon):
    """Each byte of each good vector is spoiled in turn; what is left is taken or refused."""
    running = daemon()
    good = [bytes.fromhex(v["frame"]) for v in json.loads((VECTORS / "good.json").read_text())]
    short = [data for data in good if len(data) < 2000 and len(data) > 5]
    sent = 0
    with Agent(running.socket, hello=False) as agent:
        for data in short:
            spoiled = []
            for at in range(4, len(data)):
                for flip in (0x01, 0x80, 0xFF):
                    copy = bytearray(data)
                    copy[at] ^= flip
                    spoiled.append(bytes(copy))
            try:
                for one in spoiled:
                    agent.send_bytes(one)
                    sent += 1
            except OSError:
                agent.close()  # a hello of another version: it is hung up on
                agent = Agent(running.socket, hello=False)
        agent.close()
    with running.agent() as after:
        run = after.start(uuid.uuid4().bytes, kind="agent", name="after")
        after.end(run)
        after.flush()
        after.bye()
    assert sent > 1000
    assert running.span(run)["status"]["code"] == "ok"
    assert_ledger(running)


def test_a_flood_of_starts_stays_within_its_bound(daemon):
    """Runs that never end: the oldest are given up, and all are counted."""
    running = daemon()
    count, room = 120_000, 100_000
    now = time.time_ns()
    start = frame([1, bytes(16), now, 1, {"kind": "tool", "name": "x"}])
    at = start.index(bytes(16))
    with running.agent() as agent:
        agent.socket.settimeout(60)
        for begin in range(0, count, 2000):
            agent.send_bytes(
                b"".join(
                    start[:at] + struct.pack(">QQ", 1, n + 1) + start[at + 16 :]
                    for n in range(begin, begin + 2000)
                )
            )
        agent.flush()
        metrics = assert_ledger(running)
        assert metrics("sidelight_open_runs") == room
        assert metrics("sidelight_runs_given_up_total") == count - room
        agent.bye()


@pytest.mark.parametrize("limit", ["1KiB"])
def test_a_smaller_limit_is_kept(daemon, limit):
    running = daemon({"ingest": {"max_frame": limit}})
    with running.agent() as agent:
        agent.runs(1, input="x" * 500)
        agent.runs(1, input="x" * 2000)
        complaints = agent.flush()
        agent.bye()
    # Of the second, the start is refused and its end waits for it in vain.
    assert [c["code"] for c in complaints] == ["too_long"]
    assert_ledger(running)
