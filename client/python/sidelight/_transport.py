"""The way to the collector: one connection a process, which never holds the agent up.

A frame goes into an inbox, which any thread may do at any moment, and whoever gets the lock
writes what is there. The lock is only ever tried, never waited for: the thread that has it
looks into the inbox again after it let go. So nothing can deadlock, neither threads, nor a
finalizer or a signal handler that emits in the middle of an emit, nor a fork.

The socket doesn't block. What it refuses waits in a queue of at most `limit` bytes; then the
newest events are dropped and counted, and the collector is told how many.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
import threading
import time
from collections import deque
from typing import Any, Callable, Optional

from . import _wire

_MS = 1_000_000
_BACKOFF_MIN_NS = 50 * _MS
_BACKOFF_MAX_NS = 2000 * _MS
_WRITE_BUDGET = 256 * 1024  # bytes that one emit writes at most
_MAX_INBOX = 10_000
_SNDBUF = 212_992  # the kernel doubles it; more needs a privilege
_AGAIN = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.EINTR)

Send = Callable[[bytes], int]  # returns the bytes sent, or -errno


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
        self._lock = threading.Lock()
        self._inbox: deque[Optional[bytes]] = deque()  # None: an event that was not even packed
        self._queue: deque[bytes] = deque()  # whole frames, the first maybe partly written
        self._queued = 0  # bytes in the queue
        self._written = 0  # bytes of the queue's first frame that this connection has
        self._dropped = 0
        self._full = False
        self._sock: Any = None
        self._send: Send = lambda data: -errno.ENOTCONN
        self._received = b""
        self._asked: list[bytes] = []  # flushes that wait for their answer
        self._flushed = 0  # the last token that came back
        self._last = b""  # the last frame that was written
        self._unflushed = False  # it isn't known to be durable
        self._unsure = False  # and its connection is lost
        self._since_ns = 0  # when this connection began
        self._backoff_ns = 0
        self._retry_ns = 0

    # What callers see. Every method may be called from any thread.

    def wants(self) -> bool:
        """Says whether an event is worth packing; counts it as dropped if it isn't."""
        if not self._full:
            return True
        self._pump()
        if not self._full:
            return True
        self._inbox.append(None)
        return False

    def emit(self, frame: bytes) -> None:
        self._check_pid()
        if len(self._inbox) < _MAX_INBOX:
            self._inbox.append(frame)
        else:  # whoever has the lock doesn't get to run
            self._dropped += 1
        self._pump()

    def flush(self, timeout: float) -> bool:
        """Waits until all that was emitted is durable. False: not known to be."""
        deadline = time.monotonic_ns() + int(timeout * 1e9)
        self._check_pid()
        token = next(self._tokens)
        frame = _wire.flush(token)
        while True:
            if self._lock.acquire(False):
                try:
                    if self._is_flushed(token, frame):
                        sure, self._unsure = not self._unsure, False
                        return sure
                finally:
                    self._lock.release()
            left_ns = deadline - time.monotonic_ns()
            if left_ns <= 0:
                self._asked = [f for f in self._asked if f is not frame]
                return False
            self._wait(left_ns)

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
        if self._lock.acquire(False):
            try:
                if self._sock is not None and not self._queue:
                    self._send(_wire.bye())
                self._disconnect()
            finally:
                self._lock.release()

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
        sock = self._sock
        self._reset()
        if sock is not None:
            sock.close()

    def _check_pid(self) -> None:
        if self._pid != os.getpid():  # a fork that Python was not told of, like uWSGI's
            self.after_fork()

    def _pump(self) -> None:
        """Writes what can be written now, unless another thread is about to."""
        while self._lock.acquire(False):
            try:
                self._turn()
            except BaseException:  # a signal's, in the middle: a new connection is in step again
                self._disconnect()
                raise
            finally:
                self._lock.release()
            if not self._inbox:
                return

    def _wait(self, left_ns: int) -> None:
        """Waits until the socket has news for us, 20 ms at most."""
        import select

        ms = max(1, min(20, left_ns // _MS))
        sock = self._sock
        fd = -1 if sock is None else sock.fileno()
        if fd < 0:
            time.sleep(ms / 1000)
            return
        poll = select.poll()
        poll.register(fd, select.POLLIN | (select.POLLOUT if self._queue else 0))
        poll.poll(ms)

    # From here on: only with the lock.

    def _turn(self) -> None:
        self._take_inbox()
        for _ in range(2):  # a connection that turns out to be lost is renewed at once
            if self._sock is None and not self._connect():
                return
            if self._write():
                return

    def _take_inbox(self) -> None:
        inbox = self._inbox
        while inbox:
            frame = inbox.popleft()
            if frame is None or self._full or self._queued + len(frame) > self.limit:
                self._dropped += 1
                self._full = True
                continue
            self._enqueue(frame)

    def _enqueue(self, frame: bytes) -> None:
        if self._dropped:
            self._report_dropped()
        self._queue.append(frame)
        self._queued += len(frame)

    def _report_dropped(self) -> None:
        """Puts the report where the gap is."""
        frame = _wire.dropped(self._dropped, "away" if self._sock is None else "full")
        self._dropped = 0
        self._enqueue(frame)

    def _write(self) -> bool:
        """Writes the queue. False: the connection is lost."""
        queue = self._queue
        budget = _WRITE_BUDGET
        while queue and budget > 0:
            frame = queue[0]
            rest = frame[self._written :] if self._written else frame
            sent = self._send(rest)
            if sent < 0:
                if -sent in _AGAIN:
                    break
                self._lose()
                return False
            self._unflushed = True
            if sent < len(rest):
                self._written += sent
                break
            budget -= sent
            self._written = 0
            self._queued -= len(frame)
            self._last = queue.popleft()
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
        import socket

        sock = None
        try:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.sndbuf)
            sock.connect(path)
            send = _sender(sock)
            hello = self._hello()
            if send(hello) != len(hello):
                raise OSError(errno.EAGAIN, "no room for a hello")
        except (OSError, ValueError):
            if sock is not None:
                sock.close()
            return False
        self._sock, self._send = sock, send
        return True

    def _disconnect(self) -> None:
        sock, self._sock = self._sock, None
        self._written = 0  # a frame that is not complete is sent again as a whole
        self._received = b""
        if sock is not None:
            sock.close()

    def _lose(self) -> None:
        self._disconnect()
        self._unsure = self._unsure or self._unflushed
        self._unflushed = False
        for frame in self._asked:  # its answer is lost as well: ask again
            if frame not in self._queue:
                self._enqueue(frame)
        now = time.monotonic_ns()
        if now - self._since_ns > _BACKOFF_MAX_NS:
            self._backoff_ns = self._retry_ns = 0
        else:  # a collector that hangs up on us is left alone for a while
            self._back_off(now)

    def _back_off(self, now: int) -> None:
        self._backoff_ns = min(max(2 * self._backoff_ns, _BACKOFF_MIN_NS), _BACKOFF_MAX_NS)
        self._retry_ns = now + self._backoff_ns

    def _is_flushed(self, token: int, frame: bytes) -> bool:
        if self._flushed < token and not any(f is frame for f in self._asked):
            self._take_inbox()
            self._enqueue(frame)
            self._asked.append(frame)
        self._turn()
        self._receive()
        if self._flushed < token:
            return False
        self._asked = [f for f in self._asked if f is not frame]
        return True

    def _receive(self) -> None:
        """Reads what the collector says: that it flushed, or that it complains."""
        if self._sock is None:
            return
        try:
            data = self._sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose()
            return
        self._received += data
        while len(self._received) >= 4:
            size = 4 + int.from_bytes(self._received[:4], "big")
            if len(self._received) < size:
                return
            self._understand(self._received[4:size])
            self._received = self._received[size:]

    def _understand(self, body: bytes) -> None:
        try:
            message = _wire.unpack(body)
            if message[0] == 5:
                self._flushed = max(self._flushed, message[1])
                if self._last == _wire.flush(message[1]):
                    self._unflushed = False
            elif message[0] == 8:
                self.errors += 1
        except Exception:
            pass


def _is_private(directory: str, uid: int) -> bool:
    """A directory in /tmp may be anybody's; prompts go only into our own."""
    try:
        st = os.lstat(directory)
    except OSError:
        return False
    return stat.S_ISDIR(st.st_mode) and st.st_uid == uid and not st.st_mode & 0o022


def _sender(sock: Any) -> Send:
    """A send that keeps the GIL: it returns the bytes sent or -errno, and never blocks.

    socket.send() gives the GIL up, and a busy thread returns it up to 5 ms later; that is a
    thousand times what the call takes.
    """
    import socket

    flags = socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0)
    try:
        import ctypes

        call = ctypes.PyDLL(None, use_errno=True).send
        call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
        call.restype = ctypes.c_ssize_t
        get_errno, fd = ctypes.get_errno, sock.fileno()

        def send(data: bytes) -> int:
            sent: int = call(fd, data, len(data), flags)
            return sent if sent >= 0 else -get_errno()

    except (ImportError, OSError, AttributeError):

        def send(data: bytes) -> int:
            try:
                sent: int = sock.send(data, flags)
                return sent
            except OSError as err:
                return -(err.errno or errno.EIO)

    return send
