"""Runs and events as an agent's own code reports them, and where they belong.

No function here raises, blocks or prints: telemetry that fails is lost, and nothing else.
"""

from __future__ import annotations

import atexit
import contextvars
import functools
import os
import sys
import threading
import time
import traceback
from types import TracebackType
from typing import Any, Callable, Optional, TypeVar, Union

from . import _wire
from ._ids import run_bytes, span_id, trace_of
from ._transport import Transport
from ._values import absorb, read, text
from ._version import __version__
from ._wire import RunId

if "OTEL_RESOURCE_ATTRIBUTES" in os.environ:
    import urllib.parse  # noqa: F401  # now: see _transport.py on later imports

F = TypeVar("F", bound=Callable[..., Any])

MAX_MESSAGE = 16 * 1024  # characters of an error's message
MAX_STACK = 16 * 1024  # and of its stack, of which the end is kept
MAX_ABOVE = 4096

_service: Optional[str] = None
_resource: dict[str, Any] = {}

# The traceparent that this process was started with, and its trace id; read by the first root run.
_inherited: Optional[tuple[Optional[str], Optional[str]]] = None

# What is above each open run that a framework reports: another such run, a trace, or nothing.
_above: dict[RunId, Optional[RunId]] = {}


def guarded(function: F) -> F:
    """The function, but what it raises is lost, unless a signal handler raised it."""

    @functools.wraps(function)
    def guard(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            absorb(error)
            return None

    return guard  # type: ignore[return-value]


def _environment_resource() -> dict[str, Any]:
    """OTEL_RESOURCE_ATTRIBUTES, which OpenTelemetry writes as k=v,k=v with percent signs."""
    pairs = os.environ.get("OTEL_RESOURCE_ATTRIBUTES")
    if not pairs:
        return {}
    from urllib.parse import unquote

    split = (pair.partition("=") for pair in pairs.split(","))
    return {key.strip(): unquote(value.strip()) for key, eq, value in split if eq and key.strip()}


def _hello() -> bytes:
    resource = {**_environment_resource(), **_resource}
    named = resource.pop("service.name", None)
    service = _service or os.environ.get("OTEL_SERVICE_NAME") or named
    return _wire.hello(service, resource, f"python/{__version__}", os.getpid())


transport = Transport(_hello)
atexit.register(guarded(transport.close))
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=guarded(transport.after_fork))


@guarded
def configure(
    *,
    service: Optional[str] = None,
    resource: Optional[dict[str, Any]] = None,
    socket: Optional[str] = None,
    buffer: Optional[int] = None,
) -> None:
    """Says who this process is, where the collector is, and how many bytes may wait for it."""
    global _service, _resource
    if service is not None:
        _service = service
    if resource is not None:
        _resource = dict(resource)
    if isinstance(buffer, int):
        transport.limit = buffer
    transport.greet(None if socket is None else os.fsdecode(socket))


def flush(timeout: float = 1.0) -> bool:
    """Waits until the collector has everything on disk, `timeout` seconds at most.

    Nothing needs this to be sent; it is for a caller who wants to know. It blocks the thread.
    """
    try:
        return bool(transport.flush(timeout))
    except BaseException as error:
        absorb(error)
        return False


def new_run_id() -> bytes:
    return os.urandom(16)


@guarded
def start_run(run_id: RunId, **fields: Any) -> None:
    """Reports a start. The fields are those of the protocol: kind, name, parent, input, …"""
    place(run_id, fields)
    transport.report(1, run_id, fields)


@guarded
def end_run(run_id: RunId, **fields: Any) -> None:
    """Reports an end: output, usage, model, finish, error, attrs."""
    unplace(run_id)
    transport.report(2, run_id, fields)


def place(run_id: RunId, fields: dict[str, Any]) -> None:
    """Remembers where a framework's run is, until unplace(). A root is put where this process is."""
    above = fields.get("parent")
    if above is not None:
        if above not in _above:
            current = _open_run()
            if current is not None and current.id == above:
                above = _Trace(current.trace_id)
    else:
        given = fields.get("traceparent")
        if given is None:
            fields["traceparent"], trace = inherited()
        else:
            trace = trace_of(given)
        above = trace and _Trace(trace)
    _above[run_id] = above
    if len(_above) > MAX_ABOVE:  # the oldest never ended
        for oldest in list(_above)[: MAX_ABOVE // 16]:
            _above.pop(oldest, None)


def unplace(run_id: RunId) -> None:
    _above.pop(run_id, None)


def inherited() -> tuple[Optional[str], Optional[str]]:
    """$TRACEPARENT as it was when first asked for, and its trace id."""
    global _inherited
    if _inherited is None:
        given = os.environ.get("TRACEPARENT")
        trace = trace_of(given)
        _inherited = (given, trace) if trace else (None, None)
    return _inherited


@guarded
def watch(pid: int) -> None:
    """For a parent: it will say how this child of its own ends. When the child's connection breaks,
    the collector waits two seconds for that word before it judges the child's open runs."""
    if transport.wants():
        transport.emit(_wire.child(pid))


@guarded
def exited(pid: int, returncode: int) -> None:
    """How the child ended, as subprocess says it: its exit code, or minus the signal's number."""
    if transport.wants():
        ending = "signal" if returncode < 0 else "exit"
        transport.emit(_wire.child(pid, **{ending: abs(returncode)}))


@guarded
def run_event(run_id: RunId, name: str, attrs: dict[str, Any]) -> None:
    """Reports that something happened during a run."""
    unix_ns, mono_ns = time.time_ns(), time.monotonic_ns()
    if transport.wants():
        transport.emit(_wire.event(run_id, unix_ns, mono_ns, name, attrs))


def error_of(error: BaseException) -> dict[str, str]:
    """An exception as the protocol words it."""
    out = {"type": type(error).__name__, "message": text(error)[:MAX_MESSAGE]}
    try:
        lines = traceback.format_exception(type(error), error, error.__traceback__, limit=-50)
        out["stack"] = "".join(lines)[-MAX_STACK:]
    except BaseException as failed:
        absorb(failed)
    return out


class Run:
    """One run, open as long as its `with` block. `output`, `usage`, `model`, `finish` and
    `error` may be set until it ends."""

    __slots__ = (
        "id",
        "output",
        "usage",
        "model",
        "finish",
        "error",
        "outer",
        "_around",
        "_above",
        "_start",
        "_attrs",
        "_token",
    )

    def __init__(self, fields: dict[str, Any]) -> None:
        self.id = new_run_id()
        self.output: Any = None
        self.usage: Optional[dict[str, Any]] = None
        self.model: Optional[str] = None
        self.finish: Union[str, list[str], None] = None
        self.error: Union[BaseException, dict[str, str], str, None] = None
        self.outer: Optional[bytes] = None  # the LangChain run that this one is in
        self._around: Optional[Run] = None
        self._above: Union[Run, RunId, _Trace, None] = None  # what it is a part of
        self._start: Optional[dict[str, Any]] = fields
        self._attrs: dict[str, Any] = {}
        self._token: Optional[contextvars.Token[Optional[Run]]] = None

    @property
    def trace_id(self) -> str:
        """The id of the trace that this run is in, known once it is entered: 32 hex digits."""
        trace: str = read(_trace_id, self, default="")
        return trace

    @property
    def span_id(self) -> str:
        """The id of this run's span: 16 hex digits."""
        span: str = read(span_id, self.id, default="")
        return span

    def set(self, /, **fields: Any) -> Run:
        """Sets output, usage, model, finish or error; every other name is an attribute."""
        for name, value in fields.items():
            if name in ("output", "usage", "model", "finish", "error"):
                setattr(self, name, value)
            else:
                self._attrs[name] = value
        return self

    def event(self, name: str, /, **attrs: Any) -> None:
        """Adds something that happened just now."""
        run_event(self.id, name, attrs)

    def __enter__(self) -> Run:
        begin(self)
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        finish(self, error, self.output)

    async def __aenter__(self) -> Run:
        begin(self)
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        finish(self, error, self.output)


class _Trace(str):
    """A trace that others began."""

    __slots__ = ()


@guarded
def begin(run: Run) -> None:
    """Opens a run, once, in this context."""
    fields, run._start = run._start, None  # the input isn't held until the end
    if fields is None:
        return
    run.outer = _langchain_run()
    run._around = around = _open_run()
    above = fields["parent"]
    if above is not None and type(above) is not Run:
        above = read(_wire.run_id_of, above)
    if above is None:
        trace = trace_of(fields["traceparent"])
        if trace is not None:
            above = _Trace(trace)
        elif around is not None and around.outer == run.outer:
            above = around
        else:
            above = run.outer
    run._above = above
    run._token = _current.set(run)
    if above is None:
        fields["traceparent"] = inherited()[0] or fields["traceparent"]
    else:
        fields["parent"] = None if type(above) is _Trace else above.id if type(above) is Run else above
    transport.report(1, run.id, fields)


@guarded
def finish(run: Run, error: Optional[BaseException], output: Any) -> None:
    """Closes a run that is open, and gives the context back to the one around it."""
    token, run._token = run._token, None
    if token is None:
        return
    leave(token)
    failed: Any = run.error
    if failed is None and error is not None and not read(_is_clean_exit, error, default=False):
        failed = error
    fields = {
        "output": output,
        "usage": run.usage,
        "model": run.model,
        "finish": run.finish,
        "error": None if failed is None else read(_error_fields, failed),
        "attrs": run._attrs,
    }
    transport.report(2, run.id, fields)


def leave(token: contextvars.Token[Any]) -> None:
    """Gives a context variable its old value, once."""
    try:
        token.var.reset(token)
    except (RuntimeError, ValueError):
        pass  # a generator closed in another context than it was begun in: see _open_run


def _trace_id(run: Union[Run, RunId]) -> str:
    """The trace of a run, or of one that a framework reported."""
    for _ in range(MAX_ABOVE):
        run_id, above = (run.id, run._above) if isinstance(run, Run) else (run, _above.get(run))
        if type(above) is _Trace:
            return str(above)
        if not isinstance(above, Run):
            above = _wire.run_id_of(above)
        if above is None:
            return inherited()[1] or run_bytes(run_id).hex()
        if not isinstance(above, Run) and above not in _above:
            return run_bytes(above).hex()  # the collector takes the same for what it can't find
        run = above
    return ""


_current: contextvars.ContextVar[Optional[Run]] = contextvars.ContextVar("sidelight", default=None)


def _open_run() -> Optional[Run]:
    """The current run: one that ended where its context could not be reset is passed over."""
    current = _current.get()
    while current is not None and current._token is None:
        current = current._around
    return current


def span(
    name: str,
    /,
    *,
    kind: str = "other",
    input: Any = None,
    model: Optional[str] = None,
    provider: Optional[str] = None,
    session: Optional[str] = None,
    user: Optional[str] = None,
    tags: Optional[list[str]] = None,
    parent: Union[Run, RunId, None] = None,
    traceparent: Optional[str] = None,
    **attrs: Any,
) -> Run:
    """A run to be entered with `with` or `async with`. It is a child of `parent`, or of the
    caller that `traceparent` names, else of the run around it.

    `kind` is one of agent, chain, llm, tool, retriever, embedding, other.
    """
    return Run(
        {
            "kind": kind,
            "name": name,
            "parent": parent,
            "traceparent": traceparent,
            "session": session,
            "user": user,
            "model": model,
            "provider": provider,
            "input": input,
            "tags": tags,
            "attrs": attrs,
        }
    )


run = span


def current() -> Run:
    """The current run of this module's making; without one, a run that nobody hears of."""
    return _open_run() or Run({})


def traceparent() -> Optional[str]:
    """What tells another process that it works for the current run: W3C trace context. Without
    a run, what this process was told."""
    told: Optional[str] = read(_traceparent)
    return told


def _traceparent() -> Optional[str]:
    langchain = _langchain_run()
    run = _open_run()
    if run is not None and run.outer == langchain:
        return f"00-{_trace_id(run)}-{span_id(run.id)}-01"
    if langchain is not None:
        return f"00-{_trace_id(langchain)}-{span_id(langchain)}-01"
    return inherited()[0]


def environ() -> dict[str, str]:
    """This process's environment for one that it starts: with TRACEPARENT, and with the socket
    that configure() named."""
    env = dict(os.environ)
    above = traceparent()
    if above is not None:
        env["TRACEPARENT"] = above
    if type(transport.path) is str:
        env["SIDELIGHT_SOCKET"] = transport.path
    return env


def event(name: str, /, **attrs: Any) -> None:
    """Adds something that happened just now to the current run; nothing without one."""
    run_id = parent_within(_langchain_run())
    if run_id is not None:
        run_event(run_id, name, attrs)


def parent_within(langchain: Optional[bytes]) -> Optional[bytes]:
    """The innermost of the current `span()` and the LangChain run that is around here.

    A `span()` knows the LangChain run it began in. If that is still the one around us, the
    `span()` is the inner one; if not, LangChain has gone deeper since.
    """
    current = _open_run()
    if current is not None and current.outer == langchain:
        return current.id
    return langchain


def _langchain_run() -> Optional[bytes]:
    """The LangChain run that this code is in, if LangChain is loaded at all."""
    config = sys.modules.get("langchain_core.runnables.config")
    if config is None:
        return None
    try:
        around = config.var_child_runnable_config.get()
        run_id: bytes = around["callbacks"].parent_run_id.bytes
        return run_id
    except Exception as error:
        absorb(error)
        return None


def _error_fields(error: Any) -> Optional[dict[str, str]]:
    """What a caller set as an error: an exception, a text or the fields themselves."""
    if error is None:
        return None
    if isinstance(error, BaseException):
        return error_of(error)
    if isinstance(error, dict):
        return {key: text(error[key]) for key in ("type", "message", "stack") if key in error}
    return {"type": "Error", "message": text(error)}


def _is_clean_exit(error: BaseException) -> bool:
    return isinstance(error, SystemExit) and error.code in (None, 0)
