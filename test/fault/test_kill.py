"""kill -9 at random moments under load: what was acknowledged is stored once and delivered, the log has
no gap, and the daemon is ready again at once.

SIDELIGHT_KILLS says how often (200; test/fault/long kill 10000). They come in rounds of 50, each on a
store of its own, after which everything is looked at. Needs SIDELIGHTD_PLAIN: how soon it is ready is
measured. Sanitizers get their kills in test/whole/test_recovery.py.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import time

import pytest

from conftest import Daemon, OtlpSink, assert_ledger, eventually, exporter_ledger
from load import Client, assert_all_there, finish

KILLS = int(os.environ.get("SIDELIGHT_KILLS", 200))
ROUND = 50
CLIENTS = 3
PAGE = 1000
READY_MS = 200


def assert_no_gap(running: Daemon, count: int) -> None:
    """The log begins with 1, and each span has the number after the one before it."""
    cursor = 1
    for first in range(1, count, PAGE):
        limit = min(PAGE, count - first)  # so that there is a next one to be told of
        page = running.json(f"/api/spans?limit={limit}&cursor={cursor}")
        cursor = int(page["next"])
        assert cursor == first + limit
    page = running.json(f"/api/spans?limit=2&cursor={cursor}")
    assert len(page["spans"]) == 1 and page["next"] is None


def settled(sink: OtlpSink) -> list:
    """The sink's spans when it has read all that the dead had sent: its last connection, too."""
    quiet = 0
    while quiet < 5:
        quiet = 0 if sink.is_connected() else quiet + 1
        time.sleep(0.02)
    return sink.spans()


def assert_all_delivered(running: Daemon, sink: OtlpSink, seen: int, stored: int) -> int:
    """The sink has each stored span, and the daemon counts what it brought there in this life, seen
    being what the sink had before. How many it has twice."""
    eventually(
        lambda: exporter_ledger(running.metrics(), "sink")["pending"] == 0, 30, "the backlog's end"
    )
    ids = {span["span_id"] for span in running.spans()}
    delivered = [span.span_id.hex() for span in sink.spans()]
    assert len(ids) == stored and set(delivered) == ids
    metrics = running.metrics()
    ledger = exporter_ledger(metrics, "sink")
    assert ledger["delivered"] == len(delivered) - seen
    assert ledger["rejected"] == ledger["evicted"] == 0
    # What waited for it when it began, the log tells: all of it, less what was stored since.
    waiting = ledger["delivered"] - metrics("sidelight_spans_stored_total")
    assert 0 <= waiting <= stored
    assert_ledger(running, "sink", waiting=waiting)
    return len(delivered) - len(ids)


def kill_again_and_again(start, sink: OtlpSink, path: str, kills: int, ready_ms: list) -> dict:
    """One round, on a new store: what it came to."""
    clients = [Client(path) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    for _ in range(kills):
        began = time.monotonic()
        running = start()
        ready_ms.append((time.monotonic() - began) * 1000)
        time.sleep(random.uniform(0, 0.06))  # the random moment
        running.kill()
    seen = len(settled(sink))
    running = start()
    finish(clients)
    assert_all_there(running, clients)
    stored = sum(len(c.acknowledged) for c in clients)
    assert_no_gap(running, stored)
    twice = assert_all_delivered(running, sink, seen, stored)
    assert running.stop() == 0
    return {"runs": stored, "open over a kill": sum(c.outlived for c in clients), "sent twice": twice}


@pytest.mark.timeout(600 + KILLS)
def test_kills_under_load_lose_nothing_and_double_nothing(
    daemon, plain_sidelightd, arguments, tmp_path
):
    seed = random.randrange(1 << 32)
    random.seed(seed)
    ready_ms, sums, done = [], {}, 0
    while done < KILLS:
        with OtlpSink() as sink:
            exporters = [{"name": "sink", "type": "otlp", "endpoint": sink.endpoint}]
            result = kill_again_and_again(
                lambda: daemon({"exporters": exporters}, program=plain_sidelightd),
                sink, str(tmp_path / "s.sock"), min(ROUND, KILLS - done), ready_ms,
            )
        shutil.rmtree(tmp_path / "data")
        done += ROUND
        sums = {key: sums.get(key, 0) + value for key, value in result.items()}
        ready_ms.sort()
        p99 = ready_ms[int(len(ready_ms) * 0.99)]
        told = ", ".join(f"{value} {key}" for key, value in sums.items())
        print(f"{len(ready_ms)} kills, seed {seed}: {told}; ready again p50"
              f" {statistics.median(ready_ms):.0f} p99 {p99:.0f} ms", flush=True)
    assert sums["runs"] > 10 * KILLS and sums["open over a kill"] > 0
    assert p99 <= READY_MS
