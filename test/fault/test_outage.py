"""A backend is away for three days, which pass in seconds: the daemon's time runs faster, and the
machine's does not.

While it is away the daemon asks for it now and then and its memory stays as it is. When it is back
it gets what the store still has, the oldest first, in full batches, one after another.

OUTAGE_SPEED=3600 lets three days take 72 s instead of 24: the same tries, with more time for each.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import pathlib
import threading
import time

import pytest

from otlp_sink import OtlpSink
from preload import Warp
from whole import assert_ledger, eventually, exporter_ledger

SPEED = int(os.environ.get("OUTAGE_SPEED", "10800"))
OUTAGE_S = 72 * 3600
PAUSE_S = 540 / SPEED  # of the load: as much comes in three days, however long they take
RETRY_MEAN_S = 2.5  # at random between next to nothing and 5 s
BATCH_BYTES = 512 << 10  # a batch that is not the last is at least so large


class Load(threading.Thread):
    """An agent that goes on all the time."""

    def __init__(self, running, size: int):
        super().__init__(daemon=True)
        self.agent, self.size = running.agent(), size
        self.stop = threading.Event()
        self.sent: list[str] = []
        self.failure: BaseException | None = None

    def run(self):
        try:
            while not self.stop.wait(PAUSE_S):
                for _ in range(10):  # one by one, so that their order is told by the log
                    self.sent += [i.hex() for i in self.agent.runs(1, input="x" * self.size)]
                self.agent.flush()
        except BaseException as error:
            self.failure = error


def anonymous_kib(pid: int) -> int:
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0])


@pytest.mark.parametrize(
    "size, store",
    [(200, {"size": "64MiB"}), (20_000, {"size": "16MiB"}), (200, {"size": "64MiB", "retention": "1d"})],
    ids=["all of it is kept", "more than the store holds", "longer than the retention"],
)
def test_three_days_without_a_backend(daemon, plain_sidelightd, tmp_path, size, store):
    with OtlpSink(listening=False) as sink:
        exporter = {"name": "backend", "type": "otlp", "endpoint": sink.endpoint, "content": True}
        config = {"store": store, "exporters": [{**exporter, "timeout": "10m"}]}
        warp = Warp(tmp_path, plain_sidelightd, SPEED)
        running = daemon(config, program=plain_sidelightd, env=warp.env)
        pid = running.process.pid
        load = Load(running, size)
        began = time.monotonic()
        load.start()
        rss = []
        while time.monotonic() < began + OUTAGE_S / SPEED:
            time.sleep(0.25)
            rss.append(anonymous_kib(pid))
            with contextlib.suppress(http.client.HTTPException, OSError):  # its deadline is warped, too
                assert running.get("/readyz") == (200, b"ok\n")
        load.stop.set()
        load.join(30)
        load.agent.bye()
        assert load.failure is None, load.failure
        warp.slow_down()
        days = (time.monotonic() - began) * SPEED / 86400
        metrics = assert_ledger(running, "backend")
        tries = metrics("sidelight_export_failures_total", exporter="backend")
        before = exporter_ledger(metrics, "backend")
        assert before["delivered"] == before["rejected"] == 0
        assert before["pending"] + before["evicted"] == len(load.sent)

        sink.come_up()
        back = time.monotonic()
        sink.wait_for_requests(1)
        seen = time.monotonic() - back
        spans = sink.wait_for_spans(int(before["pending"]), timeout=60)
        eventually(lambda: exporter_ledger(running.metrics(), "backend")["pending"] == 0, what="all is out")
        after = exporter_ledger(assert_ledger(running, "backend"), "backend")
        requests = sink.requests[:]
        stored_bytes = sum(r.size for r in requests)
        print(f"{days:.2f} days, {tries:.0f} tries, one in {days * 86400 / tries:.1f} s; anonymous KiB"
              f" {rss[len(rss) // 4]} to {max(rss)}; seen after {seen:.1f} s; {len(spans)} spans,"
              f" {stored_bytes >> 10} KiB in {len(requests)} requests; evicted {after['evicted']:.0f}")

        # Nobody asks more often than agreed, and nobody gives up.
        assert 100 < tries < 1.1 * days * 86400 / RETRY_MEAN_S
        assert seen < 6
        # The oldest first, each once, and nothing is missing but what was evicted: the oldest that
        # were not in the exporter's hands already.
        ids, evicted = [s.trace_id.hex() for s in spans], int(after["evicted"])
        in_hand = next((n for n, (a, b) in enumerate(zip(ids, load.sent)) if a != b), len(ids))
        assert ids == load.sent[:in_hand] + load.sent[in_hand + evicted :]
        assert after["delivered"] == len(spans)
        assert (after["evicted"] > 0) == (store["size"] == "16MiB" or "retention" in store)
        # Full batches, not a herd of them.
        assert len(requests) <= stored_bytes / BATCH_BYTES + 2
        # What waits, waits on the disk.
        assert max(rss) - rss[len(rss) // 4] < 2048
        assert running.stop() == 0
