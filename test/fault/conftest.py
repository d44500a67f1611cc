"""The fixtures of test/whole, for daemons that things go wrong around."""

from __future__ import annotations

import importlib.util
import pathlib
import sys

WHOLE = pathlib.Path(__file__).resolve().parent.parent / "whole"

# By its path, since this file is called conftest, too; what else lies there is found by its name.
sys.path.insert(0, str(WHOLE))
_spec = importlib.util.spec_from_file_location("whole", WHOLE / "conftest.py")
whole = importlib.util.module_from_spec(_spec)
sys.modules["whole"] = whole
_spec.loader.exec_module(whole)
globals().update({name: value for name, value in vars(whole).items() if name[0] != "_"})
