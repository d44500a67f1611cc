"""Healthy OTLP/HTTP backends in a process of their own, for what is delivered beside bad ones.

    python -m backends.beside COUNT

Prints a JSON list of ports, and at the end of stdin, for each port, a list of [seconds on the
monotonic clock, spans] of every request.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time

from backends import decode


async def serve(seen: list, reader, writer) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = int(head.split("content-length:")[1].split("\r\n")[0])
            body = await reader.readexactly(length)
            now = time.monotonic()
            seen.append([now, len(decode.items("traces", decode.from_protobuf("traces", body)))])
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
    writer.close()


async def main() -> None:
    seen: list[list] = [[] for _ in range(int(sys.argv[1]))]
    servers = [
        await asyncio.start_server(
            lambda r, w, one=one: serve(one, r, w), "127.0.0.1", 0
        )
        for one in seen
    ]
    print(json.dumps([s.sockets[0].getsockname()[1] for s in servers]), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
