"""What test/whole has for running the real daemon, under a name that is no other conftest's."""

import importlib.util
import pathlib
import sys

WHOLE = pathlib.Path(__file__).parents[1] / "whole"
sys.path.append(str(WHOLE))

_spec = importlib.util.spec_from_file_location("whole_conftest", WHOLE / "conftest.py")
_whole = sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_whole)

from otlp_sink import OtlpSink  # noqa: E402

Daemon, SANITIZER = _whole.Daemon, _whole.SANITIZER
assert_ledger, clean_environment, eventually = _whole.assert_ledger, _whole.clean_environment, _whole.eventually
sidelightd, arguments, daemon = _whole.sidelightd, _whole.arguments, _whole.daemon  # fixtures

__all__ = [
    "Daemon",
    "OtlpSink",
    "SANITIZER",
    "arguments",
    "assert_ledger",
    "clean_environment",
    "daemon",
    "eventually",
    "sidelightd",
]
