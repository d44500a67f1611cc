"""Sidelight: tells a collector what happens inside an AI agent, and never gets in its way.

    import sidelight

    with sidelight.run("answer", kind="agent", input=question) as run:
        run.output = answer(question)

LangChain and LangGraph: pass callbacks=[sidelight.SidelightCallbackHandler()] in a run's
config, or call sidelight.install() once for all runs of the process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._api import Run, configure, event, exited, flush, run, watch
from ._version import __version__

if TYPE_CHECKING:
    from .langchain import SidelightCallbackHandler

__all__ = [
    "Run",
    "SidelightCallbackHandler",
    "__version__",
    "configure",
    "event",
    "exited",
    "flush",
    "install",
    "run",
    "watch",
]


def install() -> list[str]:
    """Reports all runs of the frameworks that are here. Returns their names."""
    try:
        from .langchain import install as install_langchain

        install_langchain()
    except Exception:
        return []
    return ["langchain"]


def __getattr__(name: str) -> Any:
    # LangChain takes a second to import: only for those who use it.
    if name == "SidelightCallbackHandler":
        from .langchain import SidelightCallbackHandler

        return SidelightCallbackHandler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
