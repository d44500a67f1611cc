"""A name server on a loopback address of its own, for a daemon with a resolv.conf of its own.

Names tell it what to do while it is bad: hang.* never gets an answer, missing.* does not exist,
broken.* is a failure, garbage.* is answered with garbage. When it is good they are all 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading

_SERVFAIL, _NXDOMAIN = 2, 3


class NameServer:
    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.address = "127." + ".".join(str(random.randrange(1, 255)) for _ in range(3))
        self.socket.bind((self.address, 53))
        self.asked: list[str] = []
        self.is_good = False
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                query, sender = self.socket.recvfrom(4096)
                if answer := self._answer(query):
                    self.socket.sendto(answer, sender)

    @staticmethod
    def _name(query: bytes) -> tuple[str, int]:
        labels, at = [], 12
        while length := query[at]:
            labels.append(query[at + 1 : at + 1 + length].decode())
            at += 1 + length
        return ".".join(labels), at + 5

    def _answer(self, query: bytes) -> bytes | None:
        name, end = self._name(query)
        self.asked.append(name)
        way = name.split(".")[0]
        if not self.is_good:
            if way == "hang":
                return None
            if way == "garbage":
                return query[:2] + b"\x81\x80" + b"\xff" * 40
            code = _NXDOMAIN if way == "missing" else _SERVFAIL
            return query[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, 0, 0, 0) + query[12:end]
        is_a = query[end - 4 : end - 2] == b"\0\1"
        record = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4\x7f\0\0\1" if is_a else b""
        head = query[:2] + struct.pack(">HHHHH", 0x8180, 1, int(is_a), 0, 0)
        return head + query[12:end] + record

    def close(self) -> None:
        self.socket.close()
