"""Where a run belongs: its trace, and what other processes are told of it."""

import asyncio
import os
import pathlib
import subprocess
import sys
import uuid

import pytest

import sidelight
from sidelight import _api, _ids

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GIVEN = f"00-{TRACE}-{PARENT}-01"


def starts(messages):
    return {m[4]["name"]: m for m in messages if m[0] == 1}


def test_ids_are_those_of_the_collector():
    assert _ids.hash64(1, b"run-42") == 0xF9788825494CB65A
    assert _ids.hash64(2, b"run-42") == 0xC84CCF82293F7A4D
    assert _ids.hash64(0, b"") == 0xEFD01F60BA992926
    assert _ids.run_bytes("run-42").hex() == "f9788825494cb65ac84ccf82293f7a4d"
    assert _ids.run_bytes("0192F5A1-7c3e-7b6d-9a41-5f0e8d2c4b10").hex() == "0192f5a17c3e7b6d9a415f0e8d2c4b10"
    for almost in ("0192f5a1-7c3e-7b6d-9a41-5f0e8d2c4b1", "0192f5a1-7c3e-7b6d-9a41-5f0e8d2c4b 1", "\ud800"):
        assert len(_ids.run_bytes(almost)) == 16


@pytest.mark.parametrize(
    "text, trace",
    [
        (GIVEN, TRACE),
        (f"01-{TRACE}-{PARENT}-00-later", TRACE),
        (f"00-{TRACE}-{PARENT}-01-more", None),
        (f"ff-{TRACE}-{PARENT}-01", None),
        (f"00-{TRACE.upper()}-{PARENT}-01", None),
        (f"00-{'0' * 32}-{PARENT}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE}-{PARENT}", None),
        (f"00-{TRACE}-{PARENT}-1", None),
        ("", None),
        (None, None),
        (b"00", None),
        (5, None),
    ],
)
def test_a_traceparent_is_read_as_the_collector_reads_it(text, trace):
    assert _ids.trace_of(text) == trace


def test_a_run_knows_its_trace(collector):
    with sidelight.span("root") as root:
        with sidelight.span("child") as child, sidelight.span("grandchild") as grandchild:
            pass
        with sidelight.span("elsewhere", traceparent=GIVEN) as elsewhere:
            with sidelight.span("below") as below:
                pass
        with sidelight.span("malformed", traceparent="00-nonsense") as malformed:
            pass
    with sidelight.span("given", parent=root) as given, sidelight.span("unknown", parent=b"\x07" * 16) as unknown:
        pass
    with sidelight.span("named", parent="run-1") as named:
        pass
    own = root.id.hex()
    assert {r.trace_id for r in (root, child, grandchild, given, malformed)} == {own}
    assert elsewhere.trace_id == below.trace_id == TRACE
    assert unknown.trace_id == "07" * 16
    assert named.trace_id == _ids.run_bytes("run-1").hex()
    by_name = starts(collector.wait_for_count(18))
    assert "parent" not in by_name["elsewhere"][4]
    assert by_name["elsewhere"][4]["traceparent"] == GIVEN
    assert by_name["malformed"][4]["parent"] == root.id
    assert by_name["given"][4]["parent"] == root.id


def test_a_traceparent_names_the_current_run(fresh):
    assert sidelight.traceparent() is None
    with sidelight.span("root") as root:
        assert sidelight.traceparent() == f"00-{root.trace_id}-{_ids.span_id(root.id)}-01"
        with sidelight.span("child") as child:
            assert sidelight.traceparent() == f"00-{root.trace_id}-{_ids.span_id(child.id)}-01"
    assert sidelight.traceparent() is None
    assert "TRACEPARENT" not in sidelight.environ()


def test_a_process_belongs_to_the_run_that_started_it(collector, monkeypatch, tmp_path):
    code = """
import sidelight
with sidelight.span("theirs", input=sidelight.traceparent()):
    with sidelight.span("below"): pass
print(sidelight.environ()["TRACEPARENT"])
"""
    with sidelight.span("root") as root:
        told = sidelight.traceparent()
        out = subprocess.run([sys.executable, "-c", code], env=sidelight.environ(), check=True, capture_output=True)
    assert out.stdout.decode().strip() == told
    by_name = starts(collector.wait_for_count(6))
    assert by_name["theirs"][4]["traceparent"] == told == by_name["theirs"][4]["input"]
    assert "traceparent" not in by_name["below"][4]
    assert by_name["below"][4]["parent"] == by_name["theirs"][1]
    assert root.trace_id in told


def test_nothing_is_imported_once_it_works(collector):
    """A child that is forked while another thread imports never gets the lock of that."""
    code = """
import sys, sidelight
def work():
    try:
        with sidelight.span("failing"):
            raise ValueError("no")
    except ValueError: pass
before = set(sys.modules)
work()
assert sidelight.flush(5)
print(sorted(set(sys.modules) - before))
"""
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert out.stdout == b"[]\n"
    (end,) = [m[4] for m in collector.wait_for_count(2) if m[0] == 2]
    assert end["error"]["stack"].endswith("ValueError: no\n")


def test_what_the_process_was_told_is_read_once(fresh, monkeypatch):
    monkeypatch.setenv("TRACEPARENT", GIVEN)
    with sidelight.span("root") as root:
        assert root.trace_id == TRACE
    monkeypatch.setenv("TRACEPARENT", "00-" + "1" * 32 + GIVEN[35:])
    assert sidelight.traceparent() == GIVEN


def test_what_the_process_was_told_holds_for_a_framework_s_runs_too(collector, monkeypatch):
    monkeypatch.setenv("TRACEPARENT", GIVEN)
    root, child = uuid.uuid4().bytes, uuid.uuid4().bytes
    _api.start_run(root, name="root")
    _api.start_run(child, name="child", parent=root)
    assert _api._trace_id(child) == TRACE
    _api.end_run(child)
    _api.end_run(root)
    by_name = starts(collector.wait_for_count(4))
    assert by_name["root"][4]["traceparent"] == GIVEN
    assert "traceparent" not in by_name["child"][4]


def test_what_the_process_was_told_wrongly_is_ignored(collector, monkeypatch):
    monkeypatch.setenv("TRACEPARENT", "nonsense")
    with sidelight.span("root") as root:
        assert root.trace_id == root.id.hex()
    assert sidelight.traceparent() is None
    assert "traceparent" not in collector.wait_for_count(2)[0][4]


@pytest.mark.parametrize("form", [str, pathlib.Path, os.fsencode])
def test_the_environment_names_the_socket_that_was_configured(fresh, tmp_path, form):
    assert sidelight.environ()["SIDELIGHT_SOCKET"] == os.environ["SIDELIGHT_SOCKET"]
    sidelight.configure(socket=form(str(tmp_path / "other.sock")))
    assert sidelight.environ()["SIDELIGHT_SOCKET"] == str(tmp_path / "other.sock")
    assert os.environ["SIDELIGHT_SOCKET"] == str(tmp_path / "s.sock")


def test_runs_that_a_framework_reports(fresh):
    root, child = uuid.uuid4().bytes, uuid.uuid4().bytes
    with sidelight.span("around") as around:
        _api.start_run(root, parent=around.id)
        _api.start_run(child, parent=root)
        assert _api._trace_id(child) == around.trace_id
        _api.end_run(child)
        _api.end_run(root)
    _api.start_run(root, traceparent=GIVEN)
    _api.start_run(child, parent=root)
    assert _api._trace_id(child) == TRACE
    _api.end_run(root)
    _api.end_run(child)
    assert not _api._above


def test_runs_of_a_framework_that_never_end_are_forgotten(fresh):
    for number in range(1, 10_000):
        _api.start_run(number.to_bytes(16, "big"))
    assert _api.MAX_ABOVE * 15 // 16 <= len(_api._above) <= _api.MAX_ABOVE
    assert (9_999).to_bytes(16, "big") in _api._above
    _api._above.clear()


def test_async_with(collector):
    async def main():
        async with sidelight.span("outer") as outer:
            async with sidelight.span("inner"):
                await asyncio.sleep(0)
            assert sidelight.current() is outer
        with pytest.raises(KeyError):
            async with sidelight.span("fails"):
                raise KeyError

    asyncio.run(main())
    messages = collector.wait_for_count(6)
    by_name = starts(messages)
    assert by_name["inner"][4]["parent"] == by_name["outer"][1]
    ends = {m[1]: m[4] for m in messages if m[0] == 2}
    assert ends[by_name["fails"][1]]["error"]["type"] == "KeyError"


def test_the_older_name_is_the_same():
    assert sidelight.run is sidelight.span
