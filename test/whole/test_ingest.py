"""The agents' socket: what comes out of what goes in, and who may not disturb whom."""

from __future__ import annotations

import ctypes
import grp
import os
import resource
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
import uuid

import pytest

from conftest import Agent, assert_ledger, eventually, frame

MS = 1_000_000
GIB = 1 << 30
HALF_FRAME_S = 10


def prefix(length: int) -> bytes:
    return struct.pack(">I", length)


def cpu_ticks(pid: int) -> int:
    """Hundredths of a second of CPU that a process has used."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def refused_by_reason(daemon) -> dict:
    found = daemon.metrics().items()
    name = "sidelight_frames_refused_total"
    return {dict(labels)["reason"]: v for (n, labels), v in found if n == name and v}


# --- pairing ----------------------------------------------------------------------------------


def test_start_and_end_may_come_over_two_connections_in_either_order(daemon):
    running = daemon()
    at = time.time_ns() - 5000 * MS
    first, second = uuid.uuid4().bytes, uuid.uuid4().bytes
    with running.agent() as one, running.agent() as other:
        one.start(first, at, kind="agent", name="in order")
        one.flush()
        other.end(first, at + 400 * MS)
        other.end(second, at + 400 * MS, output="done")
        other.flush()
        one.start(second, at, kind="agent", name="end first")
        one.flush()
        for run in (first, second):
            span = running.span(run)
            assert span["latency_ms"] == 400 and span["status"]["code"] == "ok"
        one.bye()
        other.bye()
    metrics = assert_ledger(running)
    assert len(running.spans()) == 2 == metrics("sidelight_spans_stored_total")
    assert metrics("sidelight_runs_started_total") == 2
    assert metrics("sidelight_open_runs") == 0


def test_a_parent_may_live_on_another_connection_and_come_later(daemon):
    running = daemon()
    root, child = uuid.uuid4().bytes, uuid.uuid4().bytes
    with running.agent() as one, running.agent() as other:
        other.start(child, kind="llm", name="ChatX", model="m", parent=root)
        other.flush()
        one.start(root, kind="agent", name="root")
        one.flush()
        other.end(child)
        other.flush()
        one.end(root)
        one.flush()
        trace = running.json(f"/api/traces/{root.hex()}")
        one.bye()
        other.bye()
    assert [s["kind"] for s in trace["spans"]] == ["agent", "llm"]
    assert trace["spans"][1]["parent_span_id"] == trace["spans"][0]["span_id"]
    assert_ledger(running)


def test_duplicates_make_no_second_span_and_are_refused(daemon):
    running = daemon()
    with running.agent() as agent:
        run = agent.start(kind="agent", name="once")
        agent.start(run, kind="agent", name="twice")
        agent.end(run)
        agent.end(run)
        agent.start(run, kind="agent", name="thrice")
        complaints = agent.flush()
        agent.bye()
    assert [c["code"] for c in complaints] == ["duplicate_start", "duplicate_end"]
    assert [s["attributes"]["gen_ai.agent.name"] for s in running.spans()] == ["once"]
    assert refused_by_reason(running) == {"duplicate_start": 2, "duplicate_end": 1}
    metrics = assert_ledger(running)
    assert metrics("chat_requests_total") == 1
    assert metrics("sidelight_spans_stored_total") == 1


def test_an_end_whose_start_never_came_is_a_marked_span(daemon):
    running = daemon()
    run = uuid.uuid4().bytes
    with running.agent() as agent:
        agent.end(run, usage={"prompt_tokens": 7, "completion_tokens": 3}, model="m")
        agent.flush()
        assert running.spans() == []
        agent.bye()
    eventually(lambda: running.spans(), what="the span of an end alone")
    (span,) = running.spans()
    assert span["latency_ms"] == 0 and span["attributes"]["sidelight.unmatched_end"] is True
    metrics = assert_ledger(running)
    assert metrics("sidelight_ends_unmatched_total") == 1
    assert metrics("llm_tokens_total", token_type="prompt_tokens") == 7


@pytest.mark.parametrize("how", ["bye", "lost"])
def test_an_end_alone_whose_children_wait_for_it_is_no_trouble(daemon, how):
    """As when a client had to drop its root's start: the one end sets all of them free."""
    running = daemon()
    root = uuid.uuid4().bytes
    agent = running.agent()
    children = [agent.start(kind="tool", name=f"t{n}", parent=root) for n in range(5)]
    for child in children:
        agent.end(child)
    agent.end(root)
    agent.flush()
    assert running.spans() == []
    agent.bye() if how == "bye" else agent.close()
    eventually(lambda: len(running.spans()) == 6, what="all of them")
    assert len({s["span_id"] for s in running.spans()}) == 6
    assert {s["trace_id"] for s in running.spans()} == {root.hex()}
    metrics = assert_ledger(running)
    assert metrics("sidelight_ends_unmatched_total") == 1
    assert metrics("sidelight_open_runs") == 0


def test_what_is_flushed_survives_a_kill(daemon):
    running = daemon()
    with running.agent() as agent:
        ids = agent.runs(100)
        open_run = agent.start(kind="agent", name="open")
        agent.flush()
        running.kill()
    again = daemon()
    assert {s["trace_id"] for s in again.spans()} == {i.hex() for i in ids}
    assert again.span(open_run)["status"]["code"] == "running"


@pytest.mark.alone
def test_a_flush_is_answered_after_a_commit_and_not_before(daemon, tmp_path):
    running = daemon()
    with running.agent() as agent:
        before = running.metrics()("sidelight_commits_total")
        run = agent.start(kind="agent", name="a")
        agent.flush()
        assert running.metrics()("sidelight_commits_total") > before
        assert os.path.getsize(tmp_path / "data" / "data.mdb") > 0
        # With nothing to commit, it is answered all the same.
        began = time.monotonic()
        agent.flush()
        assert time.monotonic() - began < 2
        agent.end(run)
        agent.flush()
        agent.bye()
    assert_ledger(running)


# --- faults -----------------------------------------------------------------------------------


BAD = {
    "malformed": prefix(1) + b"\xc1",
    "wrong_type": frame({"a": 1}),
    "unknown_type": frame([10, {}]),
    "bad_run_id": frame([1, bytes(16), 1, 1, {}]),
    "bad_time": frame([1, b"x" * 16, -1, 1, {}]),
    "bad_utf8": prefix(6) + b"\x92\x00\x81\xa1\xff\x01",
    "too_long": prefix(5 << 20) + bytes(5 << 20),
    "trailing_bytes": prefix(4) + b"\x92\x04\x01\x00",  # a flush, which is not answered
}


def test_after_each_kind_of_bad_frame_the_connection_goes_on(daemon):
    running = daemon()
    with running.agent() as agent:
        for n, (reason, bad) in enumerate(BAD.items(), 1):
            agent.send_bytes(bad)
            agent.runs(1)
            (complaint,) = agent.flush()
            assert complaint["code"] == reason and complaint["message"]
            assert len(running.spans()) == n
            assert refused_by_reason(running)[reason] == 1
            agent.send_bytes(bad)
            assert agent.flush() == [], "an error of a kind is sent once"
            assert refused_by_reason(running)[reason] == 2
        agent.bye()
    with running.agent() as another:  # it is told on its own account
        another.send_bytes(BAD["malformed"])
        assert [c["code"] for c in another.flush()] == ["malformed"]
        another.bye()
    metrics = assert_ledger(running)
    assert metrics("sidelight_frames_refused_total") == 2 * len(BAD) + 1


def test_an_error_says_which_frame(daemon):
    running = daemon()
    with running.agent() as agent:  # its hello is the first frame
        agent.runs(2)
        agent.send_bytes(BAD["wrong_type"])
        (complaint,) = agent.flush()
        assert complaint["frame"] == 6
        agent.bye()


def test_a_prefix_over_one_gib_ends_the_connection_and_no_other(daemon):
    running = daemon()
    with running.agent() as good, running.agent() as bad:
        bad.runs(1)
        bad.send_bytes(prefix(GIB + 1) + b"x")
        assert bad.receive()[1]["code"] == "too_long"
        assert bad.is_closed()
        good.runs(1)
        assert good.flush() == []
        good.bye()
    assert len(running.spans()) == 2
    assert refused_by_reason(running) == {"too_long": 1}
    assert_ledger(running)


def test_an_oversized_frame_is_skipped_in_whatever_pieces_it_comes(daemon):
    running = daemon({"ingest": {"max_frame": "64KiB"}})
    with running.agent() as agent:
        agent.send_bytes(prefix(300_000))
        for size in (1, 2, 100_000, 99_999, 99_998):
            agent.send_bytes(bytes(size))
        agent.runs(1)
        agent.send_bytes(prefix(65_537) + bytes(65_537) + prefix(0))
        agent.runs(1, input="x" * 60_000)
        assert [c["code"] for c in agent.flush()] == ["too_long", "malformed"]
        agent.bye()
    assert len(running.spans()) == 2
    assert refused_by_reason(running) == {"too_long": 2, "malformed": 1}
    assert_ledger(running)


def test_a_connection_that_ends_in_a_frame_counts_it_as_truncated(daemon):
    running = daemon()
    agent = running.agent()
    agent.runs(1)
    agent.send_bytes(prefix(100) + bytes(50))
    agent.close()
    eventually(lambda: refused_by_reason(running) == {"truncated": 1}, what="counted")
    assert_ledger(running)


def test_half_frames_have_a_deadline_and_leave_nothing_behind(daemon):
    """All kinds of them at once, since it takes 10 s."""
    running = daemon({"ingest": {"max_frame": "16MiB"}})
    run = uuid.uuid4().bytes
    whole = frame([1, run, time.time_ns(), 1, {"kind": "agent", "input": "x" * 15_000_000}])
    halves = [whole[:-1]] * 4 + [b"\0\0", prefix(GIB) + b"skipped"]
    idle, again = running.agent(), running.agent()
    agents = [running.agent() for _ in halves]
    began = time.monotonic()
    for agent, half in zip(agents, halves):
        agent.send_bytes(half)
    for agent in agents:
        assert agent.is_closed(HALF_FRAME_S + 10)
    assert HALF_FRAME_S - 1 < time.monotonic() - began < HALF_FRAME_S + 5
    # What is skipped was refused when it began, and only once.
    assert refused_by_reason(running) == {"timeout": len(agents) - 1, "too_long": 1}
    assert_ledger(running)
    # The halves' room, 60 of 64 MiB, is free again: two frames in two pieces are taken. And a
    # connection that only waits has no deadline.
    for agent in (idle, again):
        agent.send_bytes(whole[:-1])
    eventually(
        lambda: running.metrics()("sidelight_received_bytes_total") > 6 * 15_000_000,
        what="the halves are read",
    )
    for agent in (idle, again):
        agent.send_bytes(whole[-1:])
    complaints = idle.flush() + again.flush()
    assert [c["code"] for c in complaints] == ["duplicate_start"]
    assert_ledger(running)


# --- clients that hold others up --------------------------------------------------------------


def test_one_connection_too_many_is_told_so_and_counted(daemon):
    running = daemon({"ingest": {"max_connections": 3}})
    agents = [running.agent() for _ in range(3)]
    for agent in agents:
        agent.flush()
    late = Agent(running.socket, hello=False)
    kind, error = late.receive()
    assert kind == 8 and error["code"] == "too_many_connections" and error["frame"] == 0
    assert late.is_closed()
    assert running.metrics()("sidelight_connections_refused_total") == 1
    agents.pop().bye()
    eventually(lambda: running.metrics()("sidelight_connections_open") == 2, what="a free place")
    with running.agent() as agent:
        agent.runs(1)
        agent.flush()
        agent.bye()
    assert len(running.spans()) == 1
    assert_ledger(running)


def test_agents_leave_files_for_the_others(daemon, sidelightd, tmp_path, sink):
    program = tmp_path / "sidelightd"
    program.write_text(f'#!/bin/sh\nulimit -n 100\nexec {sidelightd} "$@"\n')
    program.chmod(0o755)
    running = daemon(
        {"exporters": [{"type": "otlp", "endpoint": sink.endpoint}]}, program=str(program)
    )
    running.wait_for_line("room for 36 connections")
    agents = [running.agent(hello=False) for _ in range(100)]
    agents[0].runs(10)
    agents[0].flush()
    assert len(sink.wait_for_spans(10)) == 10
    assert running.get("/readyz")[0] == 200
    eventually(
        lambda: running.metrics()("sidelight_connections_refused_total") == 64, what="the rest"
    )
    for agent in agents:
        agent.close()


@pytest.mark.alone
def test_without_file_descriptors_it_serves_those_it_has_and_does_not_spin(daemon):
    running = daemon()
    pid = running.process.pid
    with running.agent() as agent:
        agent.flush()
        limit = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        open_now = max(int(n) for n in os.listdir(f"/proc/{pid}/fd")) + 1
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_now, limit[1]))
        waiting = [running.agent(hello=False) for _ in range(20)]
        before = cpu_ticks(pid)
        agent.runs(10)
        agent.flush()
        time.sleep(1)
        assert cpu_ticks(pid) - before < 30, "it spins"
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)
        for one in waiting:
            one.close()
        with running.agent() as after:
            after.runs(10)
            after.flush()
            after.bye()
        agent.bye()
    assert len(running.spans()) == 20
    assert_ledger(running)


def test_a_client_that_is_stopped_in_mid_frame_delays_nobody(daemon):
    running = daemon()
    code = (
        "import socket,sys,time\n"
        "s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "s.sendall(b'\\0\\0\\1\\0half'); print('sent', flush=True); time.sleep(60)"
    )
    stopped = subprocess.Popen(
        [sys.executable, "-c", code, running.socket], stdout=subprocess.PIPE, text=True
    )
    try:
        assert stopped.stdout.readline() == "sent\n"
        stopped.send_signal(signal.SIGSTOP)
        with running.agent() as agent:
            slowest = 0.0
            for _ in range(50):
                agent.runs(1)
                began = time.monotonic()
                agent.flush()
                slowest = max(slowest, time.monotonic() - began)
            assert slowest < 2
            agent.bye()
    finally:
        stopped.kill()
        stopped.wait()
    assert len(running.spans()) == 50
    eventually(lambda: refused_by_reason(running) == {"truncated": 1}, what="the half is counted")
    assert_ledger(running)


@pytest.mark.alone
def test_small_frames_written_one_by_one_are_not_slowed_down(daemon):
    """A socket holds 278 of them: a daemon that rests after each read must see that it was full."""
    running = daemon()
    count = 40_000
    with running.agent() as agent:
        run = agent.start(kind="agent", name="a")
        agent.flush()
        point = frame([3, run, 1, 1, "n", {}])
        began = time.monotonic()
        for _ in range(count):
            agent.send_bytes(point)
        agent.flush()
        took = time.monotonic() - began
        agent.end(run)
        agent.flush()
        agent.bye()
    metrics = assert_ledger(running)
    assert metrics("sidelight_events_dropped_total") == count - 128
    assert took < 3, took  # it was 18 s, with a rest of 32 ms each time


def test_a_client_that_never_reads_its_answers_goes_on_being_served(daemon):
    running = daemon()
    with running.agent() as deaf, running.agent() as good:
        for token in range(200):  # far more answers than a socket holds
            deaf.send(*([4, token * 1000 + i] for i in range(500)))
        deaf.runs(10)
        good.runs(1)
        good.flush()
        eventually(lambda: len(running.spans()) == 11, what="what the deaf one sent")
        good.bye()
    assert_ledger(running)


# --- the socket itself ------------------------------------------------------------------------


class Inotify:
    """Names that appear in a directory, and the mode each had when we could first look."""

    CREATE, MOVED_TO = 0x100, 0x80

    def __init__(self, directory):
        libc = ctypes.CDLL(None, use_errno=True)
        self.directory = directory
        self.fd = libc.inotify_init1(0o2000000)
        assert libc.inotify_add_watch(self.fd, os.fsencode(directory), self.CREATE | self.MOVED_TO) > 0

    def events(self) -> list[tuple[str, int]]:
        data, found = os.read(self.fd, 65536), []
        while data:
            _, mask, _, length = struct.unpack_from("iIII", data)
            found.append((data[16 : 16 + length].rstrip(b"\0").decode(), mask))
            data = data[16 + length :]
        return found


def watch_modes(directory, names, stop) -> dict:
    """Every mode that one of these names was ever seen with, looking as often as we can."""
    seen: dict[str, set] = {}
    while not stop.is_set():
        for entry in os.scandir(directory):
            if entry.name.startswith(names):
                try:
                    st = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISSOCK(st.st_mode):
                    seen.setdefault(entry.name, set()).add(stat.S_IMODE(st.st_mode))
    return seen


@pytest.mark.parametrize("mode", ["0600", "0660"])
def test_the_sockets_never_have_a_wider_mode(daemon, tmp_path, mode):
    os.umask(0o000)  # the worst a user may have
    stop, seen = threading.Event(), {}
    thread = threading.Thread(target=lambda: seen.update(watch_modes(tmp_path, ("s",), stop)))
    thread.start()
    try:
        running = daemon({"ingest": {"mode": mode}})
    finally:
        stop.set()
        thread.join()
        os.umask(0o022)
    wanted = int(mode, 8)
    for path in (running.socket, running.socket.replace("s.sock", "s-api.sock")):
        assert stat.S_IMODE(os.stat(path).st_mode) == wanted
    for modes in seen.values():
        assert all(m & ~wanted == 0 for m in modes), seen


def test_the_socket_appears_by_a_rename_when_it_can_serve(daemon, tmp_path):
    watch = Inotify(tmp_path)
    running = daemon()
    events = [(name, mask) for name, mask in watch.events() if name == "s.sock"]
    assert events == [("s.sock", Inotify.MOVED_TO)]
    os.close(watch.fd)
    with running.agent() as agent:
        agent.flush()
        agent.bye()


def test_mode_and_group_come_from_the_configuration(daemon):
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to any group")
    group = next(g for g in grp.getgrall() if g.gr_gid not in (0, os.getegid()))
    running = daemon({"ingest": {"mode": "0660", "group": group.gr_name}})
    for path in (running.socket, running.socket.replace("s.sock", "s-api.sock")):
        st = os.stat(path)
        assert (stat.S_IMODE(st.st_mode), st.st_gid) == (0o660, group.gr_gid)


def test_a_group_that_does_not_exist_is_named(refused):
    code, log = refused({"ingest": {"group": "no-such-group"}})
    assert code == 1 and "group" in log


def test_a_stale_socket_is_replaced(daemon):
    first = daemon()
    first.kill()
    assert os.path.exists(first.socket)
    second = daemon()
    with second.agent() as agent:
        agent.runs(1)
        agent.flush()
        agent.bye()
    assert second.stop() == 0
    assert not os.path.exists(second.socket)
    assert not os.path.exists(second.socket.replace("s.sock", "s-api.sock"))


def test_a_second_daemon_is_refused_and_the_first_undisturbed(daemon, refused, tmp_path):
    first = daemon()
    with first.agent() as agent:
        run = agent.start(kind="agent", name="goes on")
        agent.flush()
        code, log = refused()  # the same data
        assert code == 1 and "another sidelightd" in log and "ready" not in log
        code, log = refused(data=tmp_path / "other")  # only the same socket
        assert code == 1 and "another sidelightd" in log and "ready" not in log
        code, log = refused(socket=tmp_path / "o.sock")  # only the same data
        assert code == 1 and "another sidelightd" in log and "ready" not in log
        agent.end(run)
        agent.flush()
        agent.bye()
    with first.agent() as agent:
        agent.flush()
        agent.bye()
    assert first.span(run)["status"]["code"] == "ok"
    assert sorted(n for n in os.listdir(tmp_path) if ".soc" in n) == ["s-api.sock", "s.sock"]
    assert_ledger(first)


def test_a_file_that_is_no_socket_is_left_alone(refused, tmp_path):
    (tmp_path / "s.sock").write_text("precious")
    code, log = refused()
    assert code == 1 and "no socket" in log
    assert (tmp_path / "s.sock").read_text() == "precious"
    (tmp_path / "s.sock").unlink()
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "s.sock").symlink_to("precious")
    code, log = refused()
    assert code == 1
    assert (tmp_path / "s.sock").is_symlink() and (tmp_path / "precious").read_text() == "precious"


def test_a_socket_path_that_would_be_cut_is_refused(refused, tmp_path):
    long = tmp_path / ("x" * (108 - len(str(tmp_path)) - 6) + ".sock")
    assert len(str(long)) == 108
    code, log = refused(socket=long)
    assert code == 2 and "103" in log
    assert [n for n in os.listdir(tmp_path) if n.startswith("x")] == []


def test_the_longest_socket_path_works(daemon, tmp_path):
    path = tmp_path / ("x" * (103 - len(str(tmp_path)) - 6) + ".sock")
    assert len(str(path)) == 103
    running = daemon(socket=path)
    with Agent(str(path)) as agent:
        agent.runs(1)
        agent.flush()
        agent.bye()
    assert len(running.spans()) == 1


def test_connects_that_wait_are_served_up_to_a_full_backlog(daemon):
    running = daemon()
    running.signal(signal.SIGSTOP)
    agents = []
    try:
        for _ in range(200):
            agents.append(running.agent())
            agents[-1].runs(1)
    finally:
        running.signal(signal.SIGCONT)
    for agent in agents:
        agent.flush()
        agent.bye()
    assert len(running.spans()) == 200
    assert_ledger(running)


def test_unread_bytes_of_a_client_that_left_are_taken(daemon):
    running = daemon()
    running.signal(signal.SIGSTOP)
    with running.agent() as agent:
        ids = agent.runs(50)
        agent.bye()
    running.signal(signal.SIGCONT)
    eventually(lambda: len(running.spans()) == 50, what="the spans of a client that left")
    assert {s["trace_id"] for s in running.spans()} == {i.hex() for i in ids}
    assert_ledger(running)


def test_a_datagram_or_a_shutdown_write_side_is_no_trouble(daemon):
    running = daemon()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wrong:
        with pytest.raises(OSError):
            wrong.connect(running.socket)
    with running.agent() as agent:
        agent.runs(1)
        token = frame([4, 77])
        agent.send_bytes(token)
        agent.socket.shutdown(socket.SHUT_WR)
        try:
            agent.receive()
        except ConnectionError:
            pass  # it need not be answered; what was sent is taken
    eventually(lambda: len(running.spans()) == 1, what="the span")
    assert_ledger(running)
