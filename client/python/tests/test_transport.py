"""The way to the collector: it never holds the agent up, and loses nothing silently."""

import gc
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time

import msgpack
import pytest
from recorder import Recorder, only_runs

import sidelight
from sidelight import _api, _transport, _wire
from sidelight._transport import Transport


def emit(transport, number, size=0):
    frame = _wire.event(b"r" * 16, 1, 1, f"e{number}", {"x": "x" * size} if size else {})
    if transport.wants():
        transport.emit(frame)


def names(messages):
    return [m[4] for m in messages if m != "EOF" and m[0] == 3]


def dropped(messages):
    return sum(m[1]["count"] for m in messages if m != "EOF" and m[0] == 6)


@pytest.fixture
def transport(tmp_path, way):
    transport = Transport(lambda: _wire.hello("test", None, None, None))
    transport.path = str(tmp_path / "s.sock")
    yield transport
    transport.after_fork()


@pytest.fixture
def recorder(tmp_path):
    with Recorder(tmp_path / "s.sock") as recorder:
        yield recorder


def retry_now(transport):
    transport._retry_ns = 0


def test_what_waits_for_the_collector_arrives_in_order(transport, tmp_path):
    for i in range(100):
        emit(transport, i)
    with Recorder(tmp_path / "s.sock") as recorder:
        retry_now(transport)
        emit(transport, 100)
        messages = recorder.wait(lambda all: len(all) == 102)
    assert messages[0][0] == 0
    assert names(messages) == [f"e{i}" for i in range(101)]


def test_the_newest_are_dropped_and_the_count_stands_at_the_gap(transport, tmp_path):
    transport.limit = 10_000
    for i in range(500):
        emit(transport, i)
    with Recorder(tmp_path / "s.sock") as recorder:
        retry_now(transport)
        emit(transport, 500)
        emit(transport, 501)
        messages = recorder.wait(lambda all: "e501" in names(all))
    kept = names(messages)
    gap = kept.index("e500")
    assert kept[:gap] == [f"e{i}" for i in range(gap)]
    assert dropped(messages) == 500 - gap > 0
    assert [m[0] for m in messages].index(6) == 1 + gap


def test_no_more_memory_than_the_limit(transport):
    transport.limit = 50_000
    for i in range(2000):
        emit(transport, i, 100)
    assert sum(map(len, transport._queue)) <= 50_000
    assert len(transport._inbox) <= 1


def test_an_event_larger_than_the_buffer_is_dropped_alone(transport, recorder):
    transport.limit = 1000
    emit(transport, 1, 5000)
    emit(transport, 2)
    messages = recorder.wait(lambda all: "e2" in names(all))
    assert names(messages) == ["e2"]
    assert dropped(messages) == 1


def test_trying_to_connect_gets_rarer(transport, monkeypatch):
    tries = []
    monkeypatch.setattr(transport, "_open", lambda path: tries.append(path) and False)
    now = [time.monotonic_ns()]
    monkeypatch.setattr("sidelight._transport.time.monotonic_ns", lambda: now[0])
    for _ in range(10_000):
        emit(transport, 0)
        now[0] += 1_000_000
    assert len(tries) == 1 + 5 + 4  # at 0, 50, 150, 350, 750, 1550 ms, then each 2 s


def slow_reader(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    return listener


def read_frames(connection, until):
    data = b""
    while True:
        frames, rest = [], data
        while len(rest) >= 4 and len(rest) >= 4 + int.from_bytes(rest[:4], "big"):
            size = 4 + int.from_bytes(rest[:4], "big")
            frames.append(msgpack.unpackb(rest[4:size]))
            rest = rest[size:]
        if until(frames):
            return frames, rest
        more = connection.recv(1000)
        assert more, frames
        data += more


def test_partial_writes_go_on_where_they_stopped(transport):
    transport.sndbuf = 1  # the kernel's least
    with slow_reader(transport.path) as listener:
        sizes = [1, 3000, 20_000, 50, 60_000, 7]
        for i, size in enumerate(sizes):
            emit(transport, i, size)
        connection = listener.accept()[0]
        connection.settimeout(5)
        assert sum(transport._head[2]) > 0

        def drained(frames):
            transport._pump()
            return len(names(frames)) == len(sizes)

        frames, rest = read_frames(connection, drained)
        assert [len(m[5]["x"]) for m in frames[1:]] == sizes
        assert rest == b""


def test_a_frame_that_was_cut_is_sent_again_as_a_whole(transport):
    transport.sndbuf = 1
    with slow_reader(transport.path) as listener:
        for i in range(3):
            emit(transport, i, 50_000)
        first = listener.accept()[0]
        assert sum(transport._head[2]) > 0
        first.close()
        emit(transport, 3)
        retry_now(transport)
        emit(transport, 4)
        second = listener.accept()[0]
        second.settimeout(5)

        def drained(frames):
            transport._pump()
            return "e4" in names(frames)

        frames, _ = read_frames(second, drained)
        assert frames[0][0] == 0
        assert names(frames) == ["e0", "e1", "e2", "e3", "e4"]


def test_a_collector_that_comes_back_is_greeted_again(transport, tmp_path):
    with Recorder(tmp_path / "s.sock") as recorder:
        emit(transport, 1)
        recorder.wait(lambda all: names(all) == ["e1"])
    emit(transport, 2)
    emit(transport, 3)
    with Recorder(tmp_path / "s.sock") as recorder:
        retry_now(transport)
        emit(transport, 4)
        messages = recorder.wait(lambda all: "e4" in names(all))
    assert messages[0][0] == 0
    assert names(messages) == ["e2", "e3", "e4"]


def test_a_collector_that_hangs_up_at_once_is_not_pestered(transport):
    with slow_reader(transport.path) as listener:
        listener.setblocking(False)
        accepted = 0
        for i in range(1000):
            emit(transport, i)
            try:
                listener.accept()[0].close()
                accepted += 1
            except BlockingIOError:
                pass
        assert accepted <= 3


def test_flush_says_whether_all_is_durable(transport, recorder):
    emit(transport, 1)
    assert transport.flush(5) is True
    assert recorder.messages[-1][0] == 4
    assert transport.flush(5) is True


def test_flush_gives_up_in_time(transport, tmp_path):
    begin = time.monotonic()
    assert transport.flush(0.05) is False
    with Recorder(tmp_path / "s.sock", answers=False):
        assert transport.flush(0.05) is False
    assert time.monotonic() - begin < 2


def test_flush_waits_for_a_collector_that_comes(transport, tmp_path):
    emit(transport, 1)
    done = []
    thread = threading.Thread(target=lambda: done.append(transport.flush(10)))
    thread.start()
    with Recorder(tmp_path / "s.sock") as recorder:
        thread.join()
        assert done == [True]
        assert names(recorder.messages) == ["e1"]


def test_flush_does_not_vouch_for_a_lost_connection(transport, tmp_path):
    with Recorder(tmp_path / "s.sock") as recorder:
        emit(transport, 1)
        recorder.wait(lambda all: names(all) == ["e1"])
    with Recorder(tmp_path / "s.sock"):
        assert transport.flush(5) is False
        assert transport.flush(5) is True


def test_complaints_are_counted(transport):
    with slow_reader(transport.path) as listener:
        emit(transport, 1)
        connection = listener.accept()[0]
        for body in ([8, {"code": "malformed"}], "nonsense", [5, "x"]):
            frame = msgpack.packb(body)
            connection.sendall(len(frame).to_bytes(4, "big") + frame)
        assert transport.flush(0.05) is False
        assert transport.errors == 1


def test_threads_lose_and_mix_nothing(transport, recorder):
    def work(thread):
        for i in range(500):
            emit(transport, f"{thread}-{i}", 200)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert transport.flush(10)
    got = names(recorder.messages)
    assert len(got) + dropped(recorder.messages) == 4000
    for n in range(8):
        mine = [int(name.split("-")[1]) for name in got if name.startswith(f"e{n}-")]
        assert mine == sorted(mine)


def test_an_event_in_the_middle_of_an_event(transport, recorder):
    """A finalizer or a signal handler may emit while this very thread is emitting."""

    class Emits:
        def __del__(self):
            emit(transport, "inner")

    def send(data, counts, real=None):
        nonlocal armed
        if armed:
            armed = False
            loop = [Emits()]
            loop.append(loop)
            del loop
            gc.collect()
        return real(data, counts)

    emit(transport, 0)
    armed, real = True, transport._send
    transport._send = lambda data, counts: send(data, counts, real)
    emit(transport, 1)
    messages = recorder.wait(lambda all: len(names(all)) == 3)
    assert names(messages) == ["e0", "e1", "einner"]


def test_signal_handlers_may_emit(transport, recorder):
    ticket = itertools.count(1)  # += would count handlers that run in one another only once
    count = 0

    def on_alarm(*_):
        nonlocal count
        number = next(ticket)
        emit(transport, f"signal{number}")
        count = max(count, number)

    old = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        total = 0
        while count < 50:
            emit(transport, total)
            total += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert transport.flush(10)
    assert len(names(recorder.messages)) + dropped(recorder.messages) == total + next(ticket) - 1


def test_a_child_has_its_own_connection_and_nothing_of_its_parent(fresh, tmp_path):
    with sidelight.run("waits in the parent"):
        pass
    assert fresh._queue
    with Recorder(tmp_path / "s.sock") as recorder:
        pid = os.fork()
        if pid == 0:
            with sidelight.run("child"):
                pass
            _api.transport.close()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        recorder.wait(lambda all: "EOF" in all)
        retry_now(fresh)
        with sidelight.run("parent"):
            pass
        recorder.wait(lambda all: len(only_runs(all)) == 6)
        child, parent = recorder.connections
    assert [m[4]["name"] for m in child[:-1] if m[0] == 1] == ["child"]
    assert child[0][1]["pid"] == pid
    assert [m[4]["name"] for m in parent if m[0] == 1] == ["waits in the parent", "parent"]
    assert parent[0][1]["pid"] == os.getpid()


def test_a_child_does_not_keep_its_parent_s_connection_open(collector, fresh):
    with sidelight.run("parent"):
        pass
    collector.wait_for_count(2)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(read, 1)
        os._exit(0)
    fresh.close()
    collector.wait(lambda all: "EOF" in all)
    os.write(write, b"x")
    os.waitpid(pid, 0)
    os.close(read)
    os.close(write)


def test_forks_while_threads_emit(collector, fresh):
    stop = threading.Event()

    def work():
        while not stop.is_set():
            with sidelight.run("busy"):
                pass

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                signal.alarm(10)
                with sidelight.run("child"):
                    pass
                os._exit(0 if _api.flush(5) else 1)
            assert os.waitpid(pid, 0)[1] == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()

    def children(messages):
        return sum(m[0] == 1 and m[4]["name"] == "child" for m in only_runs(messages))

    assert collector.wait(lambda all: children(all) == 20)


STOPPED_READER = """
import socket, sys, os, signal
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
connection, _ = listener.accept()
os.kill(os.getpid(), signal.SIGSTOP)
rest = b""
while True:
    data = connection.recv(1 << 20)
    if not data: break
    rest += data
sys.stdout.buffer.write(rest)
"""


def frames_of(data):
    messages = []
    while data:
        size = 4 + int.from_bytes(data[:4], "big")
        messages.append(msgpack.unpackb(data[4:size]))
        data = data[size:]
    return messages


def descriptor(transport):
    return transport._sock.fileno()


def test_what_closes_descriptors_gets_none_of_our_bytes(transport, recorder):
    """What is opened after that gets the lowest numbers."""
    emit(transport, 1)
    os.close(descriptor(transport))
    theirs = [end for _ in range(8) for end in socket.socketpair()]
    for i in range(2, 5):
        emit(transport, i)
    assert transport.flush(5) in (True, False)  # the first one may have been lost
    assert names(recorder.messages)[-3:] == ["e2", "e3", "e4"]
    for end in theirs:
        end.setblocking(False)
        with pytest.raises(BlockingIOError):
            end.recv(1)
    for end in theirs:
        end.close()


@pytest.mark.parametrize("ending", ["emit", "close", "after_fork"])
def test_a_file_with_our_number_stays_open(transport, recorder, tmp_path, ending):
    emit(transport, 1)
    fd = descriptor(transport)
    with open(tmp_path / "theirs", "wb") as file:
        os.dup2(file.fileno(), fd)
    if ending == "emit":
        emit(transport, 2)
        assert transport.flush(5) in (True, False)
        assert names(recorder.messages)[-1] == "e2"
    else:
        getattr(transport, ending)()
    gc.collect()
    assert os.fstat(fd).st_size == 0
    os.close(fd)


def test_a_stopped_collector_never_blocks_and_hears_what_it_missed(transport):
    transport.limit = 200_000
    reader = subprocess.Popen([sys.executable, "-c", STOPPED_READER, transport.path], stdout=subprocess.PIPE)
    while not os.path.exists(transport.path):
        time.sleep(0.005)
    durations, cpu = [], time.thread_time()
    while transport._sock is None:  # it listens a moment after its path is there
        retry_now(transport)
        emit(transport, "first")
        time.sleep(0.005)
    for i in range(3000):
        begin = time.perf_counter()
        emit(transport, i, 1000)
        durations.append(time.perf_counter() - begin)
    assert transport._full
    durations.sort()
    assert durations[-30] < 0.002  # one that blocks would be stopped for ever
    assert durations[-1] < 0.5  # what else runs on this machine may take the CPU for a while
    assert time.thread_time() - cpu < 1
    os.kill(reader.pid, signal.SIGCONT)
    transport.close(5)
    messages = frames_of(reader.communicate()[0])
    got = [name for name in names(messages) if name != "efirst"]
    assert 200 < len(got) < 3000
    assert len(got) + dropped(messages) == 3000
    assert messages[-1] == [7, {}]


def exit_time(tmp_path, events):
    code = f"""
import sidelight, time
with sidelight.run("x"): pass
for i in range({events}):
    sidelight._api.run_event(b"r" * 16, "e", {{"x": "x" * 1000}})
begin = time.monotonic()
sidelight._api.transport.close()
print(time.monotonic() - begin)
"""
    env = {**os.environ, "SIDELIGHT_SOCKET": str(tmp_path / "s.sock")}
    done = subprocess.run([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, check=True)
    return float(done.stdout)


def test_an_exit_without_a_collector_takes_no_time(tmp_path):
    assert exit_time(tmp_path, 1000) < 0.05


def test_an_exit_with_a_stuck_collector_takes_100_ms(tmp_path):
    with slow_reader(str(tmp_path / "s.sock")):
        assert exit_time(tmp_path, 3000) < 0.25


def test_the_hello_of_a_fork_that_python_was_not_told_of(transport, recorder):
    emit(transport, 1)
    recorder.wait(lambda all: names(all) == ["e1"])
    transport._pid -= 1
    emit(transport, 2)
    recorder.wait(lambda all: names(all) == ["e1", "e2"])
    assert len(recorder.connections) == 2


def test_the_bytes_of_a_parent_are_not_written_by_a_fork_that_python_was_not_told_of(transport):
    transport.limit, transport.sndbuf = 20_000, 1
    with slow_reader(transport.path) as listener:
        for i in range(50):
            emit(transport, i, 3000)
        assert transport._full
        parents = listener.accept()[0]
        parents.recv(1 << 20)
        parents.setblocking(False)
        transport._pid -= 1
        assert transport.wants()
        assert parents.recv(1 << 20) == b""


def test_the_socket_is_looked_for_in_order(transport, monkeypatch, tmp_path):
    transport.path = None
    monkeypatch.setenv("SIDELIGHT_SOCKET", "/a")
    assert transport._paths() == ["/a"]
    monkeypatch.delenv("SIDELIGHT_SOCKET")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/x")
    monkeypatch.setattr("sidelight._transport._is_private", lambda directory, uid: True)
    assert transport._paths() == [
        "/run/sidelight/sidelight.sock",
        "/x/sidelight/sidelight.sock",
        f"/tmp/sidelight-{os.getuid()}/sidelight.sock",
    ]


def test_a_directory_of_somebody_else_is_not_trusted(tmp_path):
    from sidelight._transport import _is_private

    private, open_ = tmp_path / "private", tmp_path / "open"
    private.mkdir(mode=0o700)
    open_.mkdir()
    open_.chmod(0o777)
    (tmp_path / "link").symlink_to(private)
    uid = os.getuid()
    assert _is_private(str(private), uid)
    assert not _is_private(str(private), uid + 1)
    assert not _is_private(str(open_), uid)
    assert not _is_private(str(tmp_path / "link"), uid)
    assert not _is_private(str(tmp_path / "none"), uid)


def test_a_path_that_no_socket_can_have(transport):
    transport.path = "/tmp/" + "x" * 200
    emit(transport, 1)
    transport.path = "/tmp/\0"
    retry_now(transport)
    emit(transport, 2)
    assert len(transport._queue) == 2


def test_an_interrupt_in_the_middle_loses_nothing(transport, recorder):
    emit(transport, 1)

    real = transport._send

    def interrupted(data, counts):
        raise KeyboardInterrupt

    def sent_and_interrupted(data, counts):
        real(data, counts)
        raise KeyboardInterrupt

    for number, send in ((2, interrupted), (3, sent_and_interrupted)):
        transport._send = send
        with pytest.raises(KeyboardInterrupt):
            emit(transport, number)
    transport._send = real
    emit(transport, 4)
    recorder.wait(lambda all: names(all) == ["e1", "e2", "e3", "e4"])
    assert len(recorder.connections) == 1


def test_handlers_that_raise_anywhere_leave_the_way_open(transport, recorder):
    """Every event that emit() took arrives, once, in order, on one connection."""

    class Alarm(BaseException):
        pass

    def on_alarm(*_):
        raise Alarm

    emit(transport, 0)
    rng, number, raised = random.Random(1), 0, 0
    old = signal.signal(signal.SIGALRM, on_alarm)
    try:
        while raised < 3000:
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(2e-5, 2e-4))
                while True:
                    number += 1
                    emit(transport, number)
            except Alarm:
                raised += 1
    finally:
        signal.signal(signal.SIGALRM, old)
    emit(transport, "last")
    assert transport.flush(10)
    got = names(recorder.messages)
    assert got[-1] == "elast"
    numbers = [int(name[1:]) for name in got[:-1]]
    assert numbers == sorted(set(numbers))
    lost = 1 + number - len(numbers) - dropped(recorder.messages)
    assert -raised <= lost <= raised  # an alarm may come before emit() takes its event
    assert len(recorder.connections) == 1


def test_a_flush_that_is_interrupted_leaves_the_way_open(transport, recorder):
    class Alarm(BaseException):
        pass

    def on_alarm(*_):
        raise Alarm

    rng = random.Random(1)
    old = signal.signal(signal.SIGALRM, on_alarm)
    try:
        for number in range(500):
            emit(transport, number)
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(2e-5, 3e-4))
                while True:
                    transport.flush(1)
            except Alarm:
                pass
    finally:
        signal.signal(signal.SIGALRM, old)
    assert transport.flush(5)
    assert names(recorder.messages) == [f"e{n}" for n in range(500)]
    if sys.version_info >= (3, 10):  # before, a `finally` can be interrupted at its first step
        assert not transport._asked


def test_memory_is_bounded_while_the_writer_does_not_run(transport, recorder):
    transport._turn[0] = "another thread's"
    for i in range(12_000):
        emit(transport, i)
    assert len(transport._inbox) == 10_000
    transport._turn.clear()
    assert transport.flush(10)
    transport._turn[0] = "another thread's"
    for i in range(100):
        emit(transport, i, 60_000)
    assert sum(map(len, transport._inbox)) <= transport.limit
    transport._turn.clear()
    assert transport.flush(10)
    assert len(names(recorder.messages)) + dropped(recorder.messages) == 12_100


def test_sending_without_ctypes(transport, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ctypes", None)
    assert _transport._libc_send() is None
    monkeypatch.setattr(_transport, "Lane", None)
    monkeypatch.setattr(_transport, "_LIBC", None)
    with Recorder(tmp_path / "s.sock") as recorder:
        emit(transport, 1)
        recorder.wait(lambda all: names(all) == ["e1"])
    emit(transport, 2)
    assert transport._sock is None
