"""A collector for tests: it keeps the frames of each connection, and answers flushes."""

import os
import select
import socket
import threading

import msgpack


class Recorder:
    """Listens on `path`. `connections` holds a list of messages for each connection."""

    def __init__(self, path, answers=True, sndbuf=None):
        self.path = str(path)
        self.answers = answers
        self.connections = []
        self.left_over = []  # bytes of a frame that was not complete at the end
        self.raw = []  # the frames' bytes, of all connections
        self._changed = threading.Condition()
        self._paused = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(64)
        self._wake_r, self._wake_w = os.pipe()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        os.write(self._wake_w, b"x")
        self._thread.join()
        self._listener.close()
        for fd in (self._wake_r, self._wake_w):
            os.close(fd)
        if os.path.exists(self.path):
            os.unlink(self.path)

    @property
    def messages(self):
        with self._changed:
            return [m for connection in self.connections for m in connection]

    def wait(self, enough, timeout=5):
        """Waits until enough(messages) holds, and returns them."""
        with self._changed:
            ok = self._changed.wait_for(lambda: enough([m for c in self.connections for m in c]), timeout)
        assert ok, self.messages
        return self.messages

    def wait_for_count(self, count, timeout=5):
        """Waits for that many starts, ends and events, and returns them."""
        return only_runs(self.wait(lambda all: len(only_runs(all)) >= count, timeout))

    def _serve(self):
        state = {}  # connection: (its messages, its bytes)
        while True:
            ready, _, _ = select.select([self._wake_r, self._listener, *state], [], [])
            if self._wake_r in ready:
                break
            for sock in ready:
                if sock is self._listener:
                    connection, _ = sock.accept()
                    with self._changed:
                        self.connections.append([])
                        state[connection] = (self.connections[-1], bytearray())
                    continue
                try:
                    data = sock.recv(1 << 20)
                except OSError:
                    data = b""
                messages, rest = state[sock]
                if not data:
                    self.left_over.append(bytes(rest))
                    del state[sock]
                    sock.close()
                    with self._changed:
                        messages.append("EOF")
                        self._changed.notify_all()
                    continue
                rest += data
                self._understand(sock, messages, rest)
        for sock in state:
            sock.close()

    def _understand(self, sock, messages, rest):
        while len(rest) >= 4:
            size = 4 + int.from_bytes(rest[:4], "big")
            if len(rest) < size:
                return
            frame = bytes(rest[:size])
            del rest[:size]
            message = msgpack.unpackb(frame[4:], strict_map_key=False)
            with self._changed:
                self.raw.append(frame)
                messages.append(message)
                self._changed.notify_all()
            if message[0] == 4 and self.answers:
                body = msgpack.packb([5, message[1]])
                sock.sendall(len(body).to_bytes(4, "big") + body)


def only_runs(messages):
    return [m for m in messages if m != "EOF" and m[0] in (1, 2, 3)]
