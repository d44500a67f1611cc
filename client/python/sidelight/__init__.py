"""Sidelight: tells a collector what happens inside an AI agent, and never gets in its way.

    import sidelight

    sidelight.install()  # LangChain and LangGraph: every run of this process

    @sidelight.tool  # and your own functions
    def weather(city): ...

    with sidelight.span("answer", kind="agent", input=question) as run:
        run.output = answer(question)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterable, Optional, Union

from ._api import (
    Run,
    configure,
    current,
    environ,
    event,
    exited,
    flush,
    run,
    span,
    traceparent,
    watch,
)
from ._decorators import agent, chain, llm, retriever, tool, wrap
from ._version import __version__

if TYPE_CHECKING:
    from .langchain import SidelightCallbackHandler

__all__ = [
    "Run",
    "SidelightCallbackHandler",
    "__version__",
    "agent",
    "chain",
    "configure",
    "current",
    "environ",
    "event",
    "exited",
    "flush",
    "handler",
    "install",
    "llm",
    "retriever",
    "run",
    "span",
    "tool",
    "trace",
    "traceparent",
    "watch",
    "wrap",
]


def install(only: Union[Iterable[str], str, None] = None) -> list[str]:
    """Reports all runs of the frameworks that are here, or of those named in `only`.

    Nothing is imported: a framework is attached to when the process imports it. Returns the names
    of those that are here; a name that isn't known is passed over.
    """
    from ._install import install

    return install(only)


def handler() -> SidelightCallbackHandler:
    """A callback handler for one LangChain run: config={"callbacks": [sidelight.handler()]}."""
    from ._install import handler

    made: SidelightCallbackHandler = handler()
    return made


def trace(trace_id: Any, timeout: float = 2.0) -> Optional[dict[str, Any]]:
    """The trace as the collector has it, `{"trace": {…}, "spans": […]}`, with all that this process
    has reported; None if that isn't to be had in time. It blocks the thread."""
    from ._query import trace

    return trace(trace_id, timeout)


def __getattr__(name: str) -> Any:
    # LangChain takes a second to import: only for those who use it.
    if name == "SidelightCallbackHandler":
        from .langchain import SidelightCallbackHandler

        return SidelightCallbackHandler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
