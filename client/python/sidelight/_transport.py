"""The way to the collector: one connection a process, which never holds the agent up.

A frame goes into an inbox, which any thread may do at any moment, and whoever gets the turn
writes what is there. The turn is only ever tried, never waited for: the thread that has it
looks into the inbox again after it let go. So nothing can deadlock, neither threads, nor a
finalizer or a signal handler that emits in the middle of an emit, nor a fork.

A signal handler may also raise, after any call in here. So each step is one that can be done
again, what a call to the kernel returns is kept before Python sees it, and two changes that
belong together have no call between them.

The socket doesn't block. What it refuses waits in a queue of at most `limit` bytes; then the
newest events are dropped and counted, and the collector is told how many.

Nothing is imported later than with this module: a fork in one thread while another imports
leaves the child a lock that nobody will ever open.

Where the part in C was built, a connection also has a lane: while nobody has the turn and
nothing waits, one call packs a start or an end and sends it, and no Python runs in between.
"""

from __future__ import annotations

import _socket as socket  # the whole of socket takes long to import, and gevent patches it
import errno
import fcntl
import itertools
import os
import select
import stat
import time
from collections import deque
from typing import Any, Callable, Optional, TypeVar

from . import _wire

try:
    from ._fast import Lane
except ImportError:  # not built here
    Lane = None

_MS = 1_000_000
_BACKOFF_MIN_NS = 50 * _MS
_BACKOFF_MAX_NS = 2000 * _MS
_WRITE_BUDGET = 256 * 1024  # bytes that one emit writes at most
_MAX_INBOX = 10_000
_SNDBUF = 212_992  # the kernel doubles it; more needs a privilege
_AGAIN = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.EINTR})
_FLAGS = socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0)

T = TypeVar("T")
Send = Callable[[bytes, "list[int]"], int]  # appends the bytes sent; returns 0 or an errno


class Transport:
    def __init__(self, hello: Callable[[], bytes], limit: int = 4 << 20) -> None:
        self.limit = limit
        self.sndbuf = _SNDBUF
        self.path: Optional[str] = None  # where the collector is, if somebody said so
        self.errors = 0  # frames in which the collector complained
        self._hello = hello
        self._tokens = itertools.count(1)
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._turn: dict[int, object] = {}  # 0: whose turn it is
        self._turns = self._turn.items()
        self._inbox: deque[Optional[bytes]] = deque()  # None: an event that was not even packed
        self._inboxed = 0  # bytes in the inbox, more or less
        self._queue: deque[bytes] = deque()  # whole frames, the first maybe partly written
        self._queued = 0  # bytes in the queue
        # The frame that is being written, to which connection, and what each send took of it.
        self._head: tuple[Optional[bytes], Any, list[int]] = (None, None, [])
        self._dropped = 0
        self._midway = False  # a turn was not finished
        self._full = False
        self._sock: Any = None
        self._file = (0, 0)  # which one it is
        self._send: Send = lambda data, counts: errno.ENOTCONN
        self._lane: Any = None
        self._heard: list[bytes] = []  # what came and isn't understood yet
        self._asked: dict[bytes, None] = {}  # flushes that wait for their answer
        self._flushed = 0  # the last token that came back
        self._last = b""  # the last frame that was written
        self._unflushed = False  # it isn't known to be durable
        self._unsure = False  # and its connection is lost
        self._since_ns = 0  # when this connection began
        self._backoff_ns = 0
        self._retry_ns = 0

    # What callers see. Every method may be called from any thread.

    def report(self, kind: int, run_id: _wire.RunId, fields: dict[str, Any]) -> None:
        """Sends a start (1) or an end (2) of just now; the fields are those of the protocol."""
        lane = self._lane
        if lane is not None and lane.report(kind, run_id, fields):
            return
        unix_ns, mono_ns = time.time_ns(), time.monotonic_ns()
        if self.wants():
            self.emit(_wire.run_frame(kind, run_id, unix_ns, mono_ns, fields))

    def wants(self) -> bool:
        """Says whether an event is worth packing; counts it as dropped if it isn't."""
        self._check_pid()
        if not self._full:
            return True
        self._pump()
        if not self._full:
            return True
        self._inbox.append(None)
        return False

    def emit(self, frame: bytes) -> None:
        self._check_pid()
        size = self._inboxed + len(frame)
        if len(self._inbox) < _MAX_INBOX and size <= self.limit:
            self._inboxed = size
            self._inbox.append(frame)
        else:  # whoever has the turn doesn't get to run
            self._dropped += 1
        self._pump()

    def flush(self, timeout: float) -> bool:
        """Waits until all that was emitted is durable. False: not known to be."""
        deadline = time.monotonic_ns() + int(timeout * 1e9)
        self._check_pid()
        token = next(self._tokens)
        frame = _wire.flush(token)
        try:
            while True:
                if self._alone(lambda: self._is_flushed(token, frame)):
                    sure, self._unsure = not self._unsure, False
                    return sure
                left_ns = deadline - time.monotonic_ns()
                if left_ns <= 0:
                    return False
                self._wait(left_ns)
        finally:
            self._asked.pop(frame, None)

    def close(self, timeout: float = 0.1) -> None:
        """Passes on what is queued, as far as that goes in time, and says bye."""
        deadline = time.monotonic_ns() + int(timeout * 1e9)
        self._check_pid()
        if self._sock is None and not self._queue and not self._inbox:
            return
        self._retry_ns = 0
        while True:
            self._pump()
            left_ns = deadline - time.monotonic_ns()
            if not self._queue or self._sock is None or left_ns <= 0:
                break
            self._wait(left_ns)
        self._alone(self._hang_up)

    def greet(self, path: Optional[str]) -> None:
        """Says hello again after a change of what it says or of where to say it."""
        moved = path is not None and path != self.path
        self.path = path or self.path
        if self._sock is None:
            self._retry_ns = 0
        elif moved:
            self.close()
            self._retry_ns = 0
        else:
            self.emit(self._hello())

    def after_fork(self) -> None:
        """Forgets the parent's connection and its bytes: they are the parent's to send."""
        sock, file = self._sock, self._file
        self._close_lane()
        self._reset()
        if sock is not None:
            _close(sock, file)

    def _check_pid(self) -> None:
        if self._pid != os.getpid():  # a fork that Python was not told of, like uWSGI's
            self.after_fork()

    def _pump(self) -> None:
        """Writes what can be written now, unless another thread is about to."""
        while self._alone(self._pass_on) and self._inbox:
            pass

    def _alone(self, work: Callable[[], T]) -> Optional[T]:
        """Does the work, unless somebody, maybe this thread further out, has the turn.

        Whether it is ours is asked again at the end: a signal may have raised right after we
        got it. Neither `in` nor `del` is a call. Before Python 3.10 even they can be
        interrupted, but not twice.
        """
        turn, mark = self._turn, object()
        mine = (0, mark)
        try:
            try:
                return work() if turn.setdefault(0, mark) is mark else None
            finally:
                if mine in self._turns:
                    del turn[0]
        finally:
            if mine in self._turns:
                del turn[0]

    def _wait(self, left_ns: int) -> None:
        """Waits until the socket has news for us, 20 ms at most."""
        ms = max(1, min(20, left_ns // _MS))
        sock = self._sock
        fd = -1 if sock is None else sock.fileno()
        if fd < 0:
            time.sleep(ms / 1000)
            return
        poll = select.poll()
        poll.register(fd, select.POLLIN | (select.POLLOUT if self._queue else 0))
        poll.poll(ms)

    # From here on: only with the turn.

    def _pass_on(self) -> bool:
        self._take_inbox()
        for _ in range(2):  # a connection that turns out to be lost is renewed at once
            if self._sock is None and not self._connect():
                break
            if self._write():
                break
        return True

    def _take_inbox(self) -> None:
        inbox, queue = self._inbox, self._queue
        if self._midway:  # a signal raised the last time
            self._queued = sum(map(len, queue))
        self._midway = True
        while inbox:
            frame = inbox[0]
            if frame is None or self._full or self._queued + len(frame) > self.limit:
                self._full = True
                self._dropped += 1
            elif not queue or queue[-1] is not frame:
                self._enqueue(frame)
            inbox.popleft()
        self._inboxed = 0
        self._midway = False

    def _enqueue(self, frame: bytes) -> None:
        if self._dropped:
            self._report_dropped()
        self._queued += len(frame)
        self._queue.append(frame)

    def _report_dropped(self) -> None:
        """Puts the report where the gap is."""
        count = self._dropped
        frame = _wire.dropped(count, "away" if self._sock is None else "full")
        self._queued += len(frame)
        self._dropped -= count
        self._queue.append(frame)

    def _write(self) -> bool:
        """Writes the queue. False: the connection is lost."""
        queue, sock, lane = self._queue, self._sock, self._lane
        budget = _WRITE_BUDGET
        if lane is not None:
            if lane.partial:
                self._queued = sum(map(len, queue))
                self._head = (queue[0], sock, [lane.partial])
                lane.partial = 0
            if lane.sent:
                self._unflushed = True
                lane.sent = False
        while queue and budget > 0:
            frame = queue[0]
            if self._head[0] is not frame or self._head[1] is not sock:
                self._head = (frame, sock, [])
            counts = self._head[2]
            if counts and counts[-1] < 0:
                counts.pop()
            written = sum(counts)
            if written < len(frame):
                error = self._send(frame[written:] if written else frame, counts)
                if error in _AGAIN:
                    break
                if error:
                    self._lose()
                    return False
                written = sum(counts)
                if written < len(frame):
                    break
            self._unflushed = True
            budget -= written
            self._queued -= written
            self._last = frame
            queue.popleft()
        if self._full and self._queued <= self.limit // 2:
            self._full = False
        if self._dropped and not queue:
            self._report_dropped()
            return self._write()
        return True

    def _connect(self) -> bool:
        now = time.monotonic_ns()
        if now < self._retry_ns:
            return False
        for path in self._paths():
            if self._open(path):
                self._since_ns = now
                return True
        self._back_off(now)
        return False

    def _paths(self) -> list[str]:
        path = self.path or os.environ.get("SIDELIGHT_SOCKET")
        if path:
            return [path]
        paths = ["/run/sidelight/sidelight.sock"]
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        if runtime:
            paths.append(runtime + "/sidelight/sidelight.sock")
        uid = os.getuid()
        if _is_private(f"/tmp/sidelight-{uid}", uid):
            paths.append(f"/tmp/sidelight-{uid}/sidelight.sock")
        return paths

    def _open(self, path: str) -> bool:
        sock = None
        try:
            sock = _out_of_the_way(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.sndbuf)
            sock.connect(path)
            lane, counts = None, []
            if Lane is not None:
                lane = Lane(sock.fileno(), self._turn, self._inbox, self._queue)
            send = _sender(sock) if lane is None else lane.send
            hello = self._hello()
            if send(hello, counts) or counts != [len(hello)]:
                return False
            self._heard = []
            self._file = _file_of(sock)
            self._send = send
            self._lane = lane
            self._sock = sock
            return True
        except (OSError, ValueError):
            return False
        finally:
            if sock is not None and sock is not self._sock:
                sock.close()

    def _hang_up(self) -> None:
        if self._sock is not None and not self._queue:
            self._send(_wire.bye(), [])
        self._disconnect()

    def _disconnect(self) -> None:
        """A frame that is not complete is sent again as a whole, to the next connection."""
        self._close_lane()
        sock, self._sock = self._sock, None
        if sock is not None:
            _close(sock, self._file)

    def _close_lane(self) -> None:
        """Before its descriptor may become another file's: whoever is about to use it sees that."""
        lane, self._lane = self._lane, None
        if lane is not None:
            lane.fd = -1
            if lane.partial:
                self._queued = sum(map(len, self._queue))

    def _lose(self) -> None:
        lane = self._lane
        self._unsure = self._unsure or self._unflushed or (lane is not None and lane.sent)
        self._unflushed = False
        for frame in list(self._asked):  # its answer is lost as well: ask again
            if frame not in self._queue:
                self._enqueue(frame)
        now = time.monotonic_ns()
        if now - self._since_ns > _BACKOFF_MAX_NS:
            self._backoff_ns = self._retry_ns = 0
        else:  # a collector that hangs up on us is left alone for a while
            self._back_off(now)
        self._disconnect()

    def _back_off(self, now: int) -> None:
        self._backoff_ns = min(max(2 * self._backoff_ns, _BACKOFF_MIN_NS), _BACKOFF_MAX_NS)
        self._retry_ns = now + self._backoff_ns

    def _is_flushed(self, token: int, frame: bytes) -> bool:
        if self._flushed < token and frame not in self._asked:
            self._take_inbox()
            self._enqueue(frame)
            self._asked[frame] = None
        self._pass_on()
        self._receive()
        return self._flushed >= token

    def _receive(self) -> None:
        """Reads what the collector says: that it flushed, or that it complains."""
        if self._sock is None:
            return
        try:
            self._heard.extend(map(self._sock.recv, (65536,)))
        except BlockingIOError:
            pass
        except OSError:
            self._heard.append(b"")
        data = b"".join(self._heard)
        while len(data) >= 4:
            size = 4 + int.from_bytes(data[:4], "big")
            if len(data) < size:
                break
            self._understand(data[4:size])
            data = data[size:]
        lost = bool(self._heard) and not self._heard[-1]
        self._heard = [data] if data else []
        if lost:
            self._lose()

    def _understand(self, body: bytes) -> None:
        try:
            message = _wire.unpack(body)
            if message[0] == 5:
                self._flushed = max(self._flushed, message[1])
                lane = self._lane
                sent = lane is not None and lane.sent
                if self._last == _wire.flush(message[1]) and not sent:
                    self._unflushed = False
            elif message[0] == 8:
                self.errors += 1
        except Exception:
            pass


def _out_of_the_way(sock: Any) -> Any:
    """The socket under a high number. An agent may close all descriptors, to become a daemon, say:
    what it opens then gets the lowest numbers, and must not get what we send."""
    for lowest in (960, 224):  # limits are 1024 at least, but 256 on some systems
        try:
            fd = fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, lowest)
        except OSError:
            continue
        sock.close()
        return socket.socket(sock.family, sock.type, 0, fd)
    return sock


def _file_of(sock: Any) -> tuple[int, int]:
    st = os.fstat(sock.fileno())
    return st.st_dev, st.st_ino


def _close(sock: Any, file: tuple[int, int]) -> None:
    """If the agent closed it, the number may be that of a file of its own."""
    try:
        if _file_of(sock) == file:
            sock.close()
    except OSError:
        pass
    finally:
        sock.detach()


def _is_private(directory: str, uid: int) -> bool:
    """A directory in /tmp may be anybody's; prompts go only into our own."""
    try:
        st = os.lstat(directory)
    except OSError:
        return False
    return stat.S_ISDIR(st.st_mode) and st.st_uid == uid and not st.st_mode & 0o022


def _libc_send() -> Any:
    """The C library's send, called with the GIL; None where that can't be had."""
    try:
        import ctypes

        call = ctypes.PyDLL(None, use_errno=True).send
        call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
        call.restype = ctypes.c_ssize_t
        return call, ctypes.get_errno
    except (ImportError, OSError, AttributeError):
        return None


_LIBC = _libc_send() if Lane is None else None


def _sender(sock: Any) -> Send:
    """A send that keeps the GIL and never blocks.

    socket.send() gives the GIL up, and a busy thread returns it up to 5 ms later; that is a
    thousand times what the call takes. extend() and map() call and keep the result in C, where
    no signal handler runs: what was sent is always known.
    """
    if _LIBC is None:

        def send(data: bytes, counts: list[int]) -> int:
            try:
                counts.extend(map(sock.send, (data,), (_FLAGS,)))
                return 0
            except OSError as err:
                return err.errno or errno.EIO

        return send
    (call, get_errno), fd = _LIBC, sock.fileno()

    def send_by_libc(data: bytes, counts: list[int]) -> int:
        counts.extend(map(call, (fd,), (data,), (len(data),), (_FLAGS,)))
        return 0 if counts[-1] >= 0 else get_errno()

    return send_by_libc
