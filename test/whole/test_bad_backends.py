"""Backends that fail in every way there is: the books stay right, nothing is lost, and neither the
agents nor another exporter notice.

The rows are in bad_cases.py. Those of a group are exporters of one daemon, beside a healthy one; a
second daemon with a healthy exporter alone is what theirs is measured against, at the same time.
A round goes: runs are sent while the backends are bad; they turn good; more runs are sent. What
came of a group is kept, and each row's test looks at its own part.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

import bad_cases as cases
import oracle
from backends import grpc_ways as g
from backends import http_ways as h
from backends.certs import Certificates
from backends.dns import NameServer
from backends.server import Backend
from conftest import Daemon, Metrics, clean_environment, eventually, exporter_ledger, frame

pytestmark = pytest.mark.alone

ROUNDS, RUNS, EVERY = 8, 20, 0.3  # while they are bad
RECOVERY = 6.0  # seconds until all is delivered after a backend turned good: 5 s between tries, and one
STALL_MS = 20.0
HERE = Path(__file__).parent

ALL = [(group, case) for group, rows in cases.GROUPS.items() for case in rows]


@dataclasses.dataclass
class Outcome:
    """What came of a group."""

    sent_bad: list[str] = dataclasses.field(default_factory=list)  # span ids
    sent_good: list[str] = dataclasses.field(default_factory=list)
    bad: Metrics | None = None  # at the end of the bad time
    end: Metrics | None = None
    log: list[str] = dataclasses.field(default_factory=list)
    backends: dict[str, Backend] = dataclasses.field(default_factory=dict)
    requests: dict[str, int] = dataclasses.field(default_factory=dict)  # while bad
    bad_seconds: float = 0
    recovered: dict[str, float | None] = dataclasses.field(default_factory=dict)
    target: Backend | None = None
    stalls: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    delays: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    arrived: dict[str, int] = dataclasses.field(default_factory=dict)
    peak_mib: dict[str, float] = dataclasses.field(default_factory=dict)  # of memory


# --- one group --------------------------------------------------------------------------------


def span_id_of(run_id: bytes) -> str:
    return oracle.span_id(run_id).hex()


class Beside:
    """A process of one of the modules in backends: `ask` ends it and gives what it saw."""

    def __init__(self, module: str, *arguments: str):
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"backends.{module}", *arguments],
            cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.greeting = self._process.stdout.readline()

    def ask(self):
        out, _ = self._process.communicate(timeout=30)
        return json.loads(out)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def start(program: str, directory: Path, exporters: list[dict], prefix=(), size="64MiB") -> Daemon:
    directory.mkdir()
    file = directory / "sidelight.yaml"
    config = {"exporters": exporters, "store": {"size": size}}
    file.write_text(json.dumps(config))
    places = ["--socket", f"{directory}/s", "--data", f"{directory}/data", "--http", "127.0.0.1:0"]
    command = [*prefix, program, "--config", str(file), *places]
    return Daemon(command, clean_environment(), subprocess.DEVNULL)


def healthy(port: int) -> dict:
    return {"name": "healthy", "type": "otlp", "endpoint": f"http://127.0.0.1:{port}"}


def delays_of(sent: list[tuple[float, int]], seen: list) -> list[float]:
    """For each batch, the seconds from its sending to the arrival of its last span."""
    found, total, count, requests = [], 0, 0, iter(seen)
    arrived = 0.0
    for at, spans in sent:
        total += spans
        while count < total:
            arrived, more = next(requests)
            count += more
        found.append(arrived - at)
    return found


def has_settled(metrics: Metrics, case: cases.Case) -> bool:
    return exporter_ledger(metrics, case.name)["pending"] == 0


def stays_bad(case: cases.Case) -> bool:
    """Whether its spans wait until it turns good."""
    return case.then in (cases.WAITS, cases.PARKED, cases.ANY, cases.FLAPS)


class Group:
    def __init__(self, rows: list[cases.Case], program: str, directory: Path):
        self.rows, self.program, self.directory = rows, program, directory
        self.outcome = Outcome()
        self.daemons: list[Daemon] = []
        self.open = contextlib.ExitStack()

    def run(self) -> Outcome:
        with self.open:
            self._start()
            self._bad_times()
            self._good_times()
            self._look()
        for daemon in self.daemons:
            shutil.rmtree(Path(daemon.data), ignore_errors=True)
        return self.outcome

    def _start(self) -> None:
        certs = Certificates(self.directory)
        self.outcome.target = self.open.enter_context(Backend())
        env = cases.Env(certs, self.outcome.target)
        exporters, prefix = [], []
        for case in self.rows:
            backend = self.outcome.backends[case.name] = case.backend(env)
            self.open.callback(backend.close)
            exporters.append(case.exporter(env, backend))
        if any(case.group == "names" for case in self.rows):
            prefix = self._name_server()
        self.beside = Beside("beside", "2")
        self.open.callback(self.beside.close)
        ports = json.loads(self.beside.greeting)
        for name, more, how in (("alone", [], []), ("among", exporters, prefix)):
            port = ports[len(self.daemons)]
            daemon = start(self.program, self.directory / name, [healthy(port), *more], how)
            self.daemons.append(daemon)
            self.open.callback(daemon.kill)
        self.agents = [self.open.enter_context(d.agent()) for d in self.daemons]
        self.probe = Beside("probe", *(f"{d.socket}:{d.process.pid}" for d in self.daemons))
        self.open.callback(self.probe.close)

    def _name_server(self) -> list[str]:
        self.names = NameServer()
        self.open.callback(self.names.close)
        resolv = self.directory / "resolv.conf"
        resolv.write_text(f"nameserver {self.names.address}\n")
        script = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
        return ["unshare", "-m", "sh", "-c", script, str(resolv)]

    def _bad_times(self) -> None:
        self.sent: list[list[tuple[float, int]]] = [[], []]
        bad_since = time.monotonic()
        for _ in range(ROUNDS):
            began = time.monotonic()
            for agent, sent in zip(self.agents, self.sent):
                sent.append((time.monotonic(), RUNS))
                ids = agent.runs(RUNS)
                agent.flush()
                if agent is self.agents[1]:
                    self.outcome.sent_bad += map(span_id_of, ids)
            time.sleep(max(0, began + EVERY - time.monotonic()))  # the load's pace
        among = self.daemons[1]
        waiting = [case for case in self.rows if not stays_bad(case)]
        with contextlib.suppress(AssertionError):  # told by the row's own test
            eventually(lambda: all(has_settled(among.metrics(), case) for case in waiting), 8)
        stalls = self.probe.ask()
        self.outcome.stalls = dict(zip(("alone", "among"), stalls))
        self.outcome.bad = among.metrics()
        self.outcome.bad_seconds = time.monotonic() - bad_since

    def _good_times(self) -> None:
        among = self.daemons[1]
        for case in self.rows:
            backend = self.outcome.backends[case.name]
            self.outcome.requests[case.name] = max(backend.connections, backend.heads)
            backend.turn_good()
        if any(case.group == "names" for case in self.rows):
            self.names.is_good = True
        began = time.monotonic()
        self.outcome.sent_good += map(span_id_of, self.agents[1].runs(RUNS))
        self.agents[1].flush()
        left = [case for case in self.rows if case.then != cases.PARKED]
        self.outcome.recovered = dict.fromkeys((case.name for case in self.rows))
        while left and time.monotonic() < began + 2 * RECOVERY:
            metrics = among.metrics()
            for case in [case for case in left if has_settled(metrics, case)]:
                self.outcome.recovered[case.name] = time.monotonic() - began
                left.remove(case)
            time.sleep(0.05)

    def _look(self) -> None:
        stored = len(self.outcome.sent_bad + self.outcome.sent_good)
        among = self.daemons[1]
        with contextlib.suppress(AssertionError):  # pending is counted once a second
            eventually(lambda: all(sum(exporter_ledger(among.metrics(), c.name).values()) == stored
                                   for c in self.rows), 3)  # fmt: skip
        self.outcome.end = among.metrics()
        for name, daemon in zip(("alone", "among"), self.daemons):
            status = Path(f"/proc/{daemon.process.pid}/status").read_text()
            self.outcome.peak_mib[name] = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024
        codes = [daemon.stop() for daemon in self.daemons]
        assert codes == [0, 0]
        seen = self.beside.ask()
        for name, sent, one in zip(("alone", "among"), self.sent, seen):
            self.outcome.delays[name] = delays_of(sent, one)
            self.outcome.arrived[name] = sum(count for _, count in one)
        self.outcome.log = among.lines
        assert "Sanitizer" not in among.log and "runtime error:" not in among.log, among.log


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """outcome(group): runs a group the first time it is asked for."""
    known: dict[str, Outcome | Exception] = {}

    def outcome(name: str) -> Outcome:
        program = os.environ.get("SIDELIGHTD")
        if not program:
            pytest.skip("SIDELIGHTD does not name a daemon")
        if name.startswith("names") and os.geteuid() != 0:
            pytest.skip("a resolv.conf of one's own needs root")
        if name not in known:
            try:
                directory = tmp_path_factory.mktemp(name)
                known[name] = Group(cases.GROUPS[name], program, directory).run()
            except Exception as error:
                known[name] = error
        if isinstance(known[name], Exception):
            raise known[name]
        return known[name]

    return outcome


# --- what must hold ---------------------------------------------------------------------------


def assert_books(case: cases.Case, outcome: Outcome) -> None:
    """delivered + rejected + evicted + pending = sent, and what is said to be delivered was."""
    sent = outcome.sent_bad + outcome.sent_good
    ledger = exporter_ledger(outcome.end, case.name)
    assert sum(ledger.values()) == len(sent), ledger
    assert ledger["evicted"] == 0
    taken = outcome.backends[case.name].taken_ids()
    assert set(taken) <= set(sent)
    if not case.ambiguous:
        assert len(taken) == len(set(taken)), "sent again what was taken"


def rejected(outcome: Outcome, case: cases.Case, reason: str) -> float:
    return outcome.end("sidelight_spans_rejected_total", exporter=case.name, reason=reason)


def assert_end(case: cases.Case, outcome: Outcome) -> None:
    """What came of the spans is what the row says."""
    bad, good = len(outcome.sent_bad), len(outcome.sent_good)
    ledger = exporter_ledger(outcome.end, case.name)
    backend = outcome.backends[case.name]
    if case.then == cases.PARKED:
        assert ledger["pending"] == bad + good
    elif case.then == cases.ANY:
        assert ledger["pending"] == 0
        assert ledger["delivered"] >= good
    elif case.partly:
        bad_requests = [r for r in backend.requests if r.time < backend.good_since]
        some = sum(case.partly(len(request.items)) for request in bad_requests)
        assert rejected(outcome, case, "partial_success") == ledger["rejected"] == some
    elif case.then == "some http_400":
        assert 0 < rejected(outcome, case, "http_400") == ledger["rejected"] < bad
        assert ledger["pending"] == 0
    elif case.then in (cases.WAITS, cases.DELIVERS, cases.HALVES, cases.FLAPS):
        assert ledger["delivered"] == bad + good, ledger
        assert set(backend.taken_ids()) == set(outcome.sent_bad + outcome.sent_good)
    else:
        found = {dict(labels)["reason"]: count for (name, labels), count in outcome.end.items()
                 if "_rejected_" in name and ("exporter", case.name) in labels and count}  # fmt: skip
        assert found == {case.then: bad}
        assert ledger["delivered"] == good


def most_requests(case: cases.Case, seconds: float) -> float:
    """While bad: after a failure the delay grows, and comes to a few seconds."""
    if case.requests:
        return case.requests
    if case.least_gap:
        return seconds / case.least_gap + 1
    return 20 + seconds if stays_bad(case) else 2 * ROUNDS


def assert_quiet(case: cases.Case, outcome: Outcome) -> None:
    backend = outcome.backends[case.name]
    assert outcome.requests[case.name] <= most_requests(case, outcome.bad_seconds), "a hot loop"
    times = [r.time for r in backend.requests if r.time < backend.good_since]
    gaps = [b - a for a, b in zip(times, times[1:])]
    assert all(gap >= case.least_gap for gap in gaps), gaps


def log_of(case: cases.Case, outcome: Outcome) -> list[str]:
    return [line for line in outcome.log if f"exporter {case.name}:" in line]


def assert_told(case: cases.Case, outcome: Outcome) -> None:
    lines = log_of(case, outcome)
    assert len(lines) <= 6, "a flood"
    if case.log:
        assert any(re.search(case.log, line) for line in lines), lines


@pytest.mark.parametrize(("group", "case"), ALL, ids=[case.name for _, case in ALL])
def test_bad_backend(outcomes, group, case):
    outcome = outcomes(group)
    print(*log_of(case, outcome), sep="\n")
    print(exporter_ledger(outcome.end, case.name), "requests:", outcome.requests[case.name],
          "recovered:", outcome.recovered[case.name])  # fmt: skip
    assert_books(case, outcome)
    assert_end(case, outcome)
    if case.then != cases.PARKED:
        assert outcome.recovered[case.name] is not None, "did not recover"
        assert outcome.recovered[case.name] <= RECOVERY
    assert_quiet(case, outcome)
    assert_told(case, outcome)


@pytest.mark.parametrize("group", cases.GROUPS)
def test_a_redirect_is_never_followed(outcomes, group):
    assert outcomes(group).target.connections == 0


def test_the_probe_sees_a_loop_that_stalls(plain_sidelightd, tmp_path):
    """And is not fooled by a busy machine: what the loop waits for a CPU is taken off."""
    daemon = start(plain_sidelightd, tmp_path / "stalled", [])
    try:
        probe = Beside("probe", f"{daemon.socket}:{daemon.process.pid}")
        for _ in range(3):
            daemon.signal(signal.SIGSTOP)
            time.sleep(0.05)  # the stall
            daemon.signal(signal.SIGCONT)
            time.sleep(0.05)
        (times,) = probe.ask()
        probe.close()
    finally:
        daemon.signal(signal.SIGCONT)
        daemon.kill()
    assert sum(one > STALL_MS for one in times) == 3


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


@pytest.mark.parametrize("group", cases.GROUPS)
def test_the_ingest_loop_never_stalls(outcomes, group, record_property):
    stalls = outcomes(group).stalls
    for name, times in stalls.items():
        p50, p99 = statistics.median(times), percentile(times, 0.99)
        said = f"{len(times)} probes, p50 {p50:.2f} ms, p99 {p99:.2f} ms, max {max(times):.2f} ms"
        record_property(f"loop, {name}", said)
        print(name, said)
    assert percentile(stalls["among"], 0.99) <= STALL_MS
    # A noisy machine stalls both.
    assert max(stalls["among"]) <= max(STALL_MS, 1.5 * max(stalls["alone"]))


@pytest.mark.parametrize("group", cases.GROUPS)
def test_a_healthy_exporter_beside_them_notices_nothing(outcomes, group, record_property):
    outcome = outcomes(group)
    sent = len(outcome.sent_bad + outcome.sent_good)
    assert outcome.arrived["among"] == sent
    assert exporter_ledger(outcome.end, "healthy")["delivered"] == sent
    alone, among = (statistics.median(outcome.delays[name]) for name in ("alone", "among"))
    said = f"delivered {1e3 * among:.1f} ms after it was sent, {1e3 * alone:.1f} ms without bad ones"
    record_property("healthy", said)
    print(said)
    # Later by no more than a twentieth of the time in which they send: at the same rate, that is.
    assert among - alone <= 0.05 * EVERY


def test_endless_answers_cost_little_memory(plain_sidelightd, tmp_path, record_property):
    """An answer is kept up to 4 MiB, whatever is poured."""
    rows = [case for _, case in ALL if case.flood or case.name == "gzip_bomb"]
    peak = Group(rows, plain_sidelightd, tmp_path).run().peak_mib
    said = f"{peak['among']:.0f} MiB with {len(rows)} floods, {peak['alone']:.0f} MiB without"
    record_property("memory", said)
    print(said)
    assert peak["among"] - peak["alone"] <= 4 * len(rows)


def frames_of(runs: int) -> bytes:
    now, messages = time.time_ns(), []
    for _ in range(runs):
        run_id = os.urandom(16)
        messages.append([1, run_id, now, 0, {"kind": "agent", "name": "run"}])
        messages.append([2, run_id, now + 1000, 0, {}])
    return b"".join(map(frame, messages))


DEAD = ("refused", "syn_black_hole", "never_reads", "never_answers", "status_503")


def test_a_flood_is_delivered_as_fast_beside_dead_ones(plain_sidelightd, tmp_path, record_property):
    """Rounds of many spans, in turn to a daemon with a healthy exporter alone and to one with dead
    ones besides: how long until the last span has arrived."""
    rounds, runs = 5, 40000
    env = cases.Env(Certificates(tmp_path), Backend())
    rows = [case for _, case in ALL if case.name in DEAD]
    with contextlib.ExitStack() as stack:
        backends = [stack.enter_context(case.backend(env)) for case in rows]
        stack.enter_context(env.target)
        beside = Beside("beside", "2")
        stack.callback(beside.close)
        ports = json.loads(beside.greeting)
        dead = [case.exporter(env, backend) for case, backend in zip(rows, backends)]
        daemons = [start(plain_sidelightd, tmp_path / name, [healthy(port), *more], size="256MiB")
                   for name, port, more in (("alone", ports[0], []), ("among", ports[1], dead))]  # fmt: skip
        for daemon in daemons:
            stack.callback(daemon.kill)
        agents = [stack.enter_context(daemon.agent()) for daemon in daemons]
        sent: list[list[tuple[float, int]]] = [[], []]
        for number in range(rounds):
            for daemon, agent, so_far in zip(daemons, agents, sent):
                burst = frames_of(runs)
                so_far.append((time.monotonic(), runs))
                agent.send_bytes(burst)
                agent.flush()
                total = runs * (number + 1)
                eventually(lambda: exporter_ledger(daemon.metrics(), "healthy")["delivered"] == total)
        assert [daemon.stop() for daemon in daemons] == [0, 0]
        alone, among = (statistics.median(delays_of(*pair)) for pair in zip(sent, beside.ask()))
    said = f"{runs} spans delivered in {1e3 * among:.0f} ms, in {1e3 * alone:.0f} ms without dead ones"
    record_property("healthy", said)
    print(said)
    assert among <= 1.05 * alone + 0.02


@pytest.mark.parametrize(
    ("protocol", "way", "reason"),
    [
        ("http/protobuf", h.only_traces, "http_404"),
        ("http/json", h.only_traces, "http_404"),
        ("grpc", g.only_traces, "grpc_unimplemented"),
    ],
)
def test_a_backend_of_traces_alone_gets_them_all(daemon, protocol, way, reason):
    """One signal's refusals are its own: counted, told once, and nothing to the others."""
    case = cases.Case("only_traces", way, protocol=protocol)
    with Backend() as target, case.backend(cases.Env(None, target)) as backend:
        signals = {"signals": ["traces", "metrics", "logs"], "metrics_interval": "1s"}
        d = daemon({"exporters": [{**case.exporter(None, backend), **signals}]})
        with d.agent() as agent:
            for _ in range(5):
                agent.runs(RUNS)
                agent.flush()
        label = {"exporter": case.name, "reason": reason}
        eventually(lambda: d.metrics()("sidelight_metric_points_rejected_total", **label) > 0)
        eventually(lambda: d.metrics()("sidelight_log_records_rejected_total", **label) == 5 * RUNS)
        assert exporter_ledger(d.metrics(), case.name)["delivered"] == 5 * RUNS
        assert len(set(backend.taken_ids())) == len(backend.taken_ids()) == 5 * RUNS
        for signal in ("metrics", "logs"):
            told = [line for line in d.lines if f"exporter {case.name} ({signal}):" in line]
            assert len(told) == 1 and f"takes no {signal}" in told[0], told
