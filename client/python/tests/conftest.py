import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))

from recorder import Recorder  # noqa: E402

from sidelight import _api, _transport  # noqa: E402


@pytest.fixture(params=["fast", "python"])
def way(request, monkeypatch):
    """With the part in C, and as where it could not be built."""
    if request.param == "python":
        monkeypatch.setattr(_transport, "Lane", None)
        monkeypatch.setattr(_transport, "_LIBC", _transport._libc_send())
    elif _transport.Lane is None:
        pytest.skip("sidelight._fast was not built")
    return request.param


@pytest.fixture
def fresh(tmp_path, monkeypatch, way):
    """The client as in a new process, looking for a collector that isn't there yet."""
    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "TRACEPARENT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SIDELIGHT_SOCKET", str(tmp_path / "s.sock"))
    monkeypatch.setattr(_api, "_service", None)
    monkeypatch.setattr(_api, "_resource", {})
    monkeypatch.setattr(_api, "_inherited", None)
    transport = _api.transport
    transport.after_fork()
    transport.path, transport.limit = None, 4 << 20
    yield transport
    transport.after_fork()


@pytest.fixture
def collector(fresh, tmp_path):
    with Recorder(tmp_path / "s.sock") as recorder:
        yield recorder
