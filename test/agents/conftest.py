"""What the tests of real frameworks share: a scripted model, and a collector that records."""

import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "client" / "python" / "tests"))
os.environ["LANGSMITH_TRACING"] = "false"

from majors import IGNORED, is_absent  # noqa: E402
from recorder import Recorder  # noqa: E402
from scripted_apis import ScriptedApis  # noqa: E402
from scripted_openai import ScriptedOpenAI  # noqa: E402

collect_ignore = IGNORED


def pytest_collection_modifyitems(config, items):
    absent = [item for item in items if is_absent(item.name)]
    if absent:
        config.hook.pytest_deselected(items=absent)
        items[:] = [item for item in items if item not in absent]


@pytest.fixture
def model_server():
    with ScriptedOpenAI(delay=0.02, final_delay=0.01) as server:
        yield server


@pytest.fixture
def apis():
    """The scripted model behind all endpoints, with the streams that go wrong."""
    with ScriptedApis() as server:
        yield server


@pytest.fixture
def recorder(tmp_path, monkeypatch):
    """A collector that this process's Sidelight client reports to."""
    from sidelight import _api

    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    monkeypatch.setenv("SIDELIGHT_SOCKET", str(tmp_path / "s.sock"))
    _api.transport.after_fork()
    _api.transport.path = None
    with Recorder(tmp_path / "s.sock") as recorder:
        yield recorder
    _api.transport.after_fork()
