"""One short life of a daemon under a tracer that spoils one system call of it, and what must hold.

Life(...) is a daemon with three exporters (one to a backend that is there, one to a backend that is
not, one to stdout) on a copy of a store that is as full as it may be, so that what is sent makes it
evict. play() sends runs, and knows which of them were acknowledged. verify() starts a daemon without a
tracer on what was left.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import errno
import http.client
import json
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time
import uuid

from conftest import (
    Agent,
    Daemon,
    assert_ledger,
    clean_environment,
    eventually,
    exporter_ledger,
    parse_metrics,
)

KINDS = {"-": "", "f": ".file", "s": ".socket", "p": ".pipe", "o": ".other"}  # as inject says it
UNISTD = pathlib.Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
BATCHES, RUNS = 4, 6  # of requests of 50 KB: 8 % of the store
INPUT = "x" * 50_000
OLD_INPUT = "o" * 30_000
ANSWER_S = 6.0  # a flush that takes longer hangs
EXIT_S = 12.0  # so does a daemon after its SIGTERM; the exporters have 5 s


def calls() -> dict[str, str]:
    """What inject calls the system calls, by name: "read.socket" is "0.s"."""
    pairs = re.findall(r"^#define __NR_(\w+) (\d+)$", UNISTD.read_text(), re.M)
    return {name + kind: f"{number}.{k}" for name, number in pairs for k, kind in KINDS.items()}


@dataclasses.dataclass(frozen=True)
class Fault:
    """What is spoiled: the nth of a call, over all threads. As in inject.c."""

    kind: str  # kill, error, short
    call: str  # fdatasync, read.socket
    nth: int
    error: str = ""

    def __str__(self):
        return ":".join(map(str, filter(None, dataclasses.astuple(self))))

    @classmethod
    def parse(cls, text: str) -> Fault:
        kind, call, nth, *error = text.split(":")
        return cls(kind, call, int(nth), *error)


class Life(Daemon):
    """A daemon under the tracer. It may never get ready."""

    def __init__(self, command: list, env: dict):
        self.is_ready = self.hung = False
        with contextlib.suppress(AssertionError):
            super().__init__(command, env, subprocess.DEVNULL)
            self.is_ready = True

    def kill(self) -> None:
        self.hung |= self.process.poll() is None
        super().kill()

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None


class Speaker:
    """Agents that flush after each exchange. One that is cut off does not try again: a next one goes
    on with what comes next."""

    def __init__(self, path: str):
        self.path = path
        self.agent: Agent | None = None
        self.acknowledged: set[str] = set()  # trace ids of requests that ended
        self.spans_of: dict[str, int] = {}  # of each of them
        self.cuts = 0  # connections that failed
        self.is_silent = False  # one was not answered in time
        self.frames = 0

    def exchange(self, messages: list, ends=(), spans: int = 1) -> bool:
        try:
            if self.agent is None:
                self.agent = Agent(self.path, service="spoiled")
                self.agent.socket.settimeout(ANSWER_S)
                self.frames += 1
            self.agent.send(*messages)
            self.agent.flush()
        except OSError as error:
            self.is_silent |= isinstance(error, TimeoutError)
            self.cut()
            return False
        self.frames += len(messages) + 1
        self.acknowledged |= {run.hex() for run in ends}
        self.spans_of |= {run.hex(): spans for run in ends}
        return True

    def cut(self) -> None:
        self.cuts += 1
        if self.agent:
            self.agent.close()
        self.agent = None


def request(root: bytes) -> list:
    """A root with a model call; both end."""
    call, now, mono = uuid.uuid4().bytes, time.time_ns(), time.monotonic_ns()
    return [
        [1, root, now, mono, {"kind": "agent", "name": "r", "input": INPUT}],
        [1, call, now, mono, {"kind": "llm", "model": "m", "parent": root}],
        [2, call, now + 1000, mono + 1000, {"usage": {"prompt_tokens": 3}, "output": "y"}],
        [2, root, now + 2000, mono + 2000, {}],
    ]


class Stage:
    """Where lives are played: a template of a full store, a backend, and a directory for each."""

    def __init__(self, program: str, inject: str, directory: pathlib.Path, sink):
        self.program, self.inject, self.sink = program, inject, sink
        self.directory = directory
        self.socket, self.data = directory / "s.sock", directory / "data"
        self.report = directory / "report"
        self.numbers = calls()
        self.names = {number: name for name, number in self.numbers.items()}
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            self.dead_port = nobody.getsockname()[1]
        self.log = ""  # the last life's
        self._fill()

    def _command(self) -> list[str]:
        file = self.directory / "sidelight.yaml"
        exporters = [
            {"name": "sink", "type": "otlp", "endpoint": self.sink.endpoint, "content": True},
            {"name": "dead", "type": "otlp", "endpoint": f"http://127.0.0.1:{self.dead_port}"},
            {"name": "console", "type": "console", "format": "json"},
        ]
        file.write_text(json.dumps({"exporters": exporters, "store": {"size": "16MiB"}}))
        places = ["--socket", str(self.socket), "--data", str(self.data), "--http", "127.0.0.1:0"]
        return [self.program, "--config", str(file), *places]

    def _fill(self) -> None:
        """A store at its high-water mark, all of it delivered but to the dead backend."""
        running = Daemon(self._command(), clean_environment(), subprocess.DEVNULL)
        with running.agent() as agent:
            while running.metrics()("sidelight_blocks_evicted_total") == 0:
                agent.runs(20, input=OLD_INPUT)
                agent.flush()
            agent.bye()
        self.stored = int(running.metrics()("sidelight_spans_stored_total"))
        eventually(
            lambda: all(running.metrics()("sidelight_export_pending_spans", exporter=e) == 0
                        for e in ("sink", "console")),
            what="the old spans are delivered",
        )
        assert_ledger(running, "dead")
        assert running.stop() == 0
        # What an exporter had in its hands and retention took, it gives up with the stop.
        running = Daemon(self._command(), clean_environment(), subprocess.DEVNULL)
        self.pending = int(exporter_ledger(running.metrics(), "dead")["pending"])
        assert running.stop() == 0
        self.template = self.directory / "template"
        self.data.rename(self.template)

    def _reset(self) -> None:
        for path in (self.data, self.report):
            shutil.rmtree(path, ignore_errors=True)
        self.report.unlink(missing_ok=True)
        shutil.copytree(self.template, self.data)
        del self.sink.requests[:]

    def life(self, fault: Fault | None) -> Life:
        self._reset()
        plan = []
        if fault:
            parts = [fault.kind, self.numbers[fault.call], fault.nth]
            parts += [getattr(errno, fault.error)] if fault.error else []
            plan = [":".join(map(str, parts))]
        command = [self.inject, str(self.report), *plan, *self._command()]
        return Life(command, clean_environment())

    # --- a life ---

    def play(self, life: Life) -> Speaker:
        """A run that stays open, requests that make the store evict, a look at the metrics, the end
        of the open run; then SIGTERM."""
        speaker = Speaker(str(self.socket))
        if not life.is_ready:
            return speaker
        held, now = uuid.uuid4().bytes, time.time_ns()
        is_held = speaker.exchange([[1, held, now, 1, {"kind": "agent", "name": "held"}]])
        for _ in range(BATCHES):
            roots = [uuid.uuid4().bytes for _ in range(RUNS)]
            speaker.exchange([m for root in roots for m in request(root)], roots, spans=2)
        if is_held:
            speaker.exchange([[2, held, now + 1000, 1001, {"output": "at last"}]], [held])
        self._await(life, lambda: speaker.acknowledged <= self.delivered())
        self.check_ledger(life, speaker)
        if speaker.agent:
            with contextlib.suppress(OSError):
                speaker.agent.bye()
        if life.is_alive:
            life.process.terminate()
        return speaker

    def _await(self, life: Life, condition, timeout: float = 2.0) -> None:
        deadline = time.monotonic() + timeout
        while life.is_alive and not condition() and time.monotonic() < deadline:
            time.sleep(0.005)

    def delivered(self) -> set[str]:
        return {span.trace_id.hex() for span in self.sink.spans()}

    def check_ledger(self, life: Life, speaker: Speaker) -> None:
        """While it lives. Its answer may be what fails; a second one is there then."""
        for _ in range(2):
            if not life.is_alive:
                return
            with contextlib.suppress(OSError, http.client.HTTPException):
                assert_ledger(life, "sink", "console")
                metrics = assert_ledger(life, "dead", waiting=self.pending)
                if speaker.cuts == 0:
                    assert metrics("sidelight_frames_received_total") == speaker.frames
                return
            self._await(life, lambda: False, 0.3)  # it may just be ending
        assert not life.is_alive, "no metrics, twice"

    def finish(self, life: Life, fault: Fault | None) -> None:
        """It ends as it should: killed, or by itself and with a word where something is wrong."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            life.wait(EXIT_S)
        life.kill()
        code = life.process.returncode
        assert not life.hung, "hangs"
        if fault and fault.kind == "kill":
            assert code in (-signal.SIGKILL, 0), f"exit {code}"
            return
        assert code in (0, 1, 2), f"exit {code}"
        assert code == 0 or life.lines, f"exit {code} without a word"
        assert life.is_ready or code != 0, f"never ready, exit {code}"

    def hit(self) -> str | None:
        """The thread whose call was spoiled."""
        match = re.search(r"^hit (.*)$", self.report.read_text(), re.M)
        return match and match[1]

    def counts(self) -> dict[str, int]:
        """How often each call was made."""
        lines = re.findall(r"^(\d+\..) (\d+)$", self.report.read_text(), re.M)
        return {self.names[number]: int(count) for number, count in lines}

    def verify(self, speaker: Speaker) -> None:
        """A daemon that starts on what was left has all that was acknowledged, once, and delivers
        it."""
        running = Daemon(self._command(), clean_environment(), subprocess.DEVNULL)
        try:
            assert "corrupt" not in running.log, "set aside as corrupt"
            spans = running.pages(f"/api/spans?limit=1000&cursor={self.stored + 1}", "spans")
            self._assert_no_gap(running, len(spans))
            ids = {span["span_id"] for span in spans}
            assert len(ids) == len(spans), "a span is stored twice"
            by_trace = collections.Counter(span["trace_id"] for span in spans)
            lost = {run for run in speaker.acknowledged if by_trace[run] < speaker.spans_of[run]}
            assert not lost, f"acknowledged, but lost: {lost}"
            observed = {o["trace_id"] for o in running.json("/api/observations?limit=60")["observations"]}
            assert speaker.acknowledged <= observed, "a request without its observation"
            eventually(lambda: ids <= {s.span_id.hex() for s in self.sink.spans()}, what="delivery")
            eventually(lambda: exporter_ledger(running.metrics(), "sink")["pending"] == 0, what="rest")
            assert running.stop() == 0
        finally:
            running.kill()

    def _assert_no_gap(self, running: Daemon, count: int) -> None:
        """The numbers of what is new follow those of the template, and each other."""
        if count < 2:
            return
        first = self.stored + 1
        page = running.json(f"/api/spans?limit={count - 1}&cursor={first}")
        assert page["next"] == str(first + count - 1) or page["next"] == first + count - 1, page["next"]

    def run(self, fault: Fault | None) -> str | None:
        """One life and what comes after it; whose call was spoiled, None if it never came to it."""
        life = self.life(fault)
        try:
            speaker = self.play(life)
            self.finish(life, fault)
        finally:
            life.kill()
            self.log = life.log
        assert not speaker.is_silent or not life.is_ready, "a flush was not answered"
        self.verify(speaker)
        return self.hit()
