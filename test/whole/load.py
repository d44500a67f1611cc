"""A load that goes on through kills of the daemon, and what must be there after all of them."""

from __future__ import annotations

import random
import threading
import time
import uuid

from conftest import Agent, eventually, frame

USAGE = {"prompt_tokens": 3, "completion_tokens": 2}


def request_frames(root: bytes, llm: bytes, ended: bool = True) -> list[bytes]:
    """A request with one model call: root and call start, call ends, and the root, maybe."""
    now, mono = time.time_ns(), time.monotonic_ns()
    messages = [
        [1, root, now, mono, {"kind": "agent", "name": "load"}],
        [1, llm, now, mono, {"kind": "llm", "model": "m", "provider": "p", "parent": root}],
        [2, llm, now + 1000, mono + 1000, {"usage": USAGE, "output": "x" * 100}],
        [2, root, now + 2000, mono + 2000, {}],
    ]
    return [frame(m) for m in messages[: 4 if ended else 3]]


class Client(threading.Thread):
    """Sends requests and waits for their flush; what was not acknowledged is sent again on the next
    connection. Now and then a root stays open over several lives of the daemon."""

    def __init__(self, path: str):
        super().__init__(daemon=True)
        self.path = path
        self.stop = threading.Event()
        self.roots: set[bytes] = set()
        self.calls: set[bytes] = set()
        self.acknowledged: set[bytes] = set()  # roots and calls that have ended
        self.held: list[tuple[int, bytes]] = []  # roots that are open, and since which connection
        self.outlived = 0  # roots ended on another connection than they began on
        self.connections = 0
        self.agent: Agent | None = None  # the last connection, when all is said
        self.failure: BaseException | None = None
        self._pending: list[tuple[bytes, bytes | None]] = []  # frame, and what its end finishes

    def _put(self, frames: list[bytes], root: bytes, llm: bytes) -> None:
        ends = [None, None, llm, root]
        self._pending += zip(frames, ends)

    def _make(self) -> None:
        for _ in range(random.randint(1, 12)):
            root, llm = uuid.uuid4().bytes, uuid.uuid4().bytes
            self.roots.add(root)
            self.calls.add(llm)
            hold = random.random() < 0.1
            self._put(request_frames(root, llm, ended=not hold), root, llm)
            if hold:
                self.held.append((self.connections, root))

    def _finish(self, all_of_them: bool = False) -> None:
        for since, root in self.held[:]:
            if all_of_them or since < self.connections - 2:
                end = frame([2, root, time.time_ns(), time.monotonic_ns(), {"output": "late"}])
                self._pending.append((end, root))
                self.held.remove((since, root))
                self.outlived += since < self.connections

    def _exchange(self, agent: Agent) -> None:
        agent.send_bytes(b"".join(data for data, _ in self._pending))
        agent.flush()
        self.acknowledged |= {run for _, run in self._pending if run}
        self._pending.clear()

    def _serve(self) -> bool:
        """One connection. True: all is said and acknowledged; it is open still."""
        agent = None
        try:
            agent = Agent(self.path, service="load")
            self.connections += 1
            if self._pending:
                self._exchange(agent)
            while not self.stop.is_set():
                self._make()
                self._finish()
                self._exchange(agent)
            self._finish(all_of_them=True)
            self._exchange(agent)
        except OSError:
            if agent:
                agent.close()
            return False
        self.agent = agent
        return True

    def run(self) -> None:
        try:
            while not self._serve():
                time.sleep(0.001)
        except BaseException as error:
            self.failure = error


def finish(clients) -> None:
    """They come to an end. A collector that starts anew gives all open runs of a process to its first
    connection, so none of them says bye before all are done."""
    for client in clients:
        client.stop.set()
    for client in clients:
        client.join(60)
        assert not client.is_alive() and client.failure is None, client.failure
    for client in clients:
        client.agent.bye()


def assert_all_there(running, clients) -> None:
    """Each run that was ever begun is one span, each root one observation with its call's tokens."""
    roots = set().union(*(c.roots for c in clients))
    calls = set().union(*(c.calls for c in clients))
    assert set().union(*(c.acknowledged for c in clients)) == roots | calls
    eventually(lambda: running.metrics()("sidelight_open_runs") == 0, what="nothing is open")
    spans = running.spans()
    by_kind = {k: [s for s in spans if s["kind"] == k] for k in ("agent", "llm")}
    assert sorted(s["trace_id"] for s in by_kind["agent"]) == sorted(r.hex() for r in roots)
    assert len({s["span_id"] for s in by_kind["llm"]}) == len(by_kind["llm"]) == len(calls)
    assert len(spans) == len(roots) + len(calls)
    assert {s["status"]["code"] for s in spans} == {"ok"}
    observations = running.observations()
    assert sorted(o["trace_id"] for o in observations) == sorted(r.hex() for r in roots)
    assert {(o["prompt_tokens"], o["completion_tokens"], o["span_count"]) for o in observations} == {
        (3, 2, 2)
    }
