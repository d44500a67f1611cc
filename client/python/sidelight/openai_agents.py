"""Reports the runs of the OpenAI Agents SDK, as one more processor of its traces.

The SDK's own exporter stays as it is. Its callbacks come in the context that the agent runs in,
so what its tools do (a `sidelight.run()`, a plain call of a model, another framework) finds the
tool's run around it. Tokens are taken from the calls of models alone: turns and tasks repeat them.

An exception that passes through a span is seen in sys.exc_info(): the SDK keeps only a text of it,
and of a cancellation nothing at all.
"""

from __future__ import annotations

import sys
from hashlib import blake2b
from typing import Any, Callable, NamedTuple, Optional

from ._api import Run, end_run, error_of, guarded, start_run
from ._calls import outer_reports, plain
from ._request import REQUEST
from ._values import read, text
from .openai_client import _Responses, _turn

__all__ = ["install"]

MAX_SPANS = 16_384
_SCALARS = frozenset({str, int, float, bool})

Fields = dict[str, Any]


class _Kind(NamedTuple):
    kind: str
    name: Callable[[Any], Any]
    start: Callable[[Any], Fields]
    end: Callable[[Any], Fields]


def _nothing(data: Any) -> Fields:
    return {}


def _named(data: Any) -> Any:
    return data.name


def _agent(data: Any) -> Fields:
    told = {"tools": data.tools, "handoffs": data.handoffs, "output_type": data.output_type}
    return {"attrs": {f"openai.agents.{name}": value for name, value in told.items() if value}}


def _response(data: Any) -> Fields:
    response = data.response
    fields = {} if response is None else _Responses().answer(response)
    system = getattr(response, "instructions", None)
    given: Any = data.input
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if given and type(system) is str:
        given = [{"role": "system", "content": system}, *given]
    fields["input"] = given or None  # it is known only now
    fields["usage"] = _usage(data.usage)
    return fields


def _asked(data: Any) -> Fields:
    config = data.model_config or {}
    attrs = {REQUEST[n]: config[n] for n in REQUEST if type(config.get(n)) in _SCALARS}
    return {"model": data.model, "input": data.input, "attrs": attrs}


def _generation(data: Any) -> Fields:
    output = [plain(item) for item in data.output or ()]
    fields: Fields = {"input": data.input, "usage": _usage(data.usage)}
    if output and "output" in output[0]:  # a stream's is put into the form of a response
        output = _turn(output[0]["output"]) or []
    fields["output"] = output or None
    return fields


def _usage(usage: Any) -> Optional[Fields]:
    """What the provider said; the SDK words its silence as zeros."""
    return usage if usage and usage.get("total_tokens") else None


def _called(data: Any) -> Fields:
    return {"input": data.input, "output": data.output}


def _guardrail(data: Any) -> Fields:
    return {"attrs": {"openai.agents.guardrail.triggered": data.triggered}}


def _handoff(data: Any) -> Fields:
    ends = {"from": data.from_agent, "to": data.to_agent}
    return {"attrs": {f"openai.agents.handoff.{k}": v for k, v in ends.items() if v}}


def _speech(data: Any) -> Fields:
    return {"output": data.output if isinstance(data.output, str) else None}


# What the SDK's spans are here. One of a type that is not listed is of the kind `other`.
KINDS = {
    "task": _Kind("chain", _named, _nothing, _nothing),
    "agent": _Kind("agent", _named, _agent, _agent),
    "turn": _Kind("chain", lambda data: f"turn {data.turn}", _nothing, _nothing),
    "response": _Kind("llm", lambda data: "response", _nothing, _response),
    "generation": _Kind("llm", lambda data: "generation", _asked, _generation),
    "function": _Kind("tool", _named, _nothing, _called),
    "handoff": _Kind("other", lambda data: "handoff", _handoff, _handoff),
    "guardrail": _Kind("other", _named, _nothing, _guardrail),
    "custom": _Kind("other", _named, lambda data: {"input": data.data or None}, _nothing),
    "mcp_tools": _Kind(
        "other", lambda data: "mcp_tools", _nothing, lambda data: {"output": data.result}
    ),
    "transcription": _Kind("other", lambda data: "transcription", _nothing, _speech),
    "speech": _Kind("other", lambda data: "speech", _nothing, _nothing),
}
_OTHER = _Kind("other", lambda data: data.type, _nothing, _nothing)


class _Open:
    """A trace or span that has not ended."""

    __slots__ = ("id", "kind", "run", "handled", "told", "input", "output")

    def __init__(self, identity: bytes, kind: str, run: Optional[Run]) -> None:
        self.id = identity
        self.kind = kind
        self.run = run  # it is around what happens in it; a call of a model is not
        self.handled = id(sys.exc_info()[1])  # an exception that has nothing to do with it
        self.told: Fields = {}  # what the client's own instrumentation knows of the call
        self.input: Any = None  # of a trace: what a model was asked first
        self.output: Any = None  # and what it said last


# Every step on it is one atomic operation, so it needs no lock.
_open: dict[str, _Open] = {}


def _identity(name: str) -> bytes:
    """The SDK's ids as ours: a trace's is 16 bytes and stays what it is there."""
    word, _, digits = name.partition("_")
    try:
        raw = bytes.fromhex(digits)
    except ValueError:
        raw = b""
    if word == "trace" and len(raw) == 16 and any(raw):
        return raw
    return blake2b(name.encode("utf-8", "replace"), digest_size=16).digest()


def _begin(name: str, kind: str, fields: Fields) -> None:
    identity = _identity(name)
    if kind == "llm":
        _open[name] = _Open(identity, kind, None)
        start_run(identity, kind=kind, **fields)
    else:
        blank: Fields = dict.fromkeys(("name", "parent", "traceparent", "session", "user"))
        blank.update(dict.fromkeys(("model", "provider", "input", "tags", "attrs")))
        run = Run({**blank, **fields, "kind": kind})
        run.id = identity
        _open[name] = _Open(identity, kind, run)
        run.__enter__()
    while len(_open) > MAX_SPANS:
        _open.pop(next(iter(_open)), None)


def _finish(name: str, fields: Fields) -> None:
    known = _open.pop(name, None)
    if known is None:
        end_run(_identity(name), **fields)
    else:
        end_run(known.id, **fields)
        if known.run is not None:
            _leave(known.run)


def _leave(run: Run) -> None:
    """What comes from now on in this context is not in it."""
    token, run._token = run._token, None
    if token is not None:
        try:
            token.var.reset(token)
        except (RuntimeError, ValueError):
            pass  # a generator closed in another context than it was begun in


def _raised(known: Optional[_Open]) -> Optional[BaseException]:
    """The exception that passes through a span right now."""
    error = sys.exc_info()[1]
    return None if error is None or known is None or id(error) == known.handled else error


def _error(span: Any, known: Optional[_Open]) -> Optional[Fields]:
    error = _raised(known)
    if error is not None:
        return error_of(error)
    told = span.error
    if not told:
        return None
    data = told.get("data") or {}
    more = data.get("error") or ""
    message = told.get("message")
    return {"type": "Error", "message": f"{message}: {more}" if more else message}


def _joined(own: Fields, told: Fields) -> Fields:
    """The SDK's account of a call, and what only the client knows: its stream, and how it failed."""
    attrs = {**told.get("attrs", {}), **own.get("attrs", {})}
    fields = {**told, **{name: value for name, value in own.items() if value is not None}}
    if "error" in told:
        fields["error"] = told["error"]
    return {**fields, "attrs": attrs}


class _Processor:
    """What the SDK calls; it asks for no base class of its own."""

    @guarded
    def on_trace_start(self, trace: Any) -> None:
        metadata = trace.metadata if isinstance(trace.metadata, dict) else {}
        attrs = {k: v for k, v in metadata.items() if type(k) is str and type(v) in _SCALARS}
        user = attrs.pop("user_id", None)
        fields = {"name": trace.name, "session": trace.group_id, "user": user, "attrs": attrs}
        _begin(trace.trace_id, "chain", fields)

    @guarded
    def on_trace_end(self, trace: Any) -> None:
        known = _open.get(trace.trace_id)
        fields: Fields = {}
        error = _raised(known)
        if error is not None:
            fields["error"] = error_of(error)
        if known is not None:
            fields["input"] = known.input
            fields["output"] = known.output if error is None else None
        _finish(trace.trace_id, fields)

    @guarded
    def on_span_start(self, span: Any) -> None:
        data = span.span_data
        kind = KINDS.get(data.type, _OTHER)
        fields = read(kind.start, data, default={})
        fields["name"] = read(kind.name, data, default=data.type)
        fields["parent"] = _identity(span.parent_id or span.trace_id)
        fields.setdefault("attrs", {})
        _begin(span.span_id, kind.kind, fields)

    @guarded
    def on_span_end(self, span: Any) -> None:
        known = _open.get(span.span_id)
        kind = KINDS.get(span.span_data.type, _OTHER)
        fields = read(kind.end, span.span_data, default={})
        error = _error(span, known)
        if error is not None:
            fields["error"] = error
        if known is not None and kind.kind == "llm":
            fields = _joined(fields, known.told)
            trace = _open.get(span.trace_id)
            if trace is not None:
                trace.input = trace.input or span.span_data.input
                trace.output = fields.get("output") or trace.output
        _finish(span.span_id, fields)

    def shutdown(self) -> None:
        pass

    def force_flush(self) -> None:
        pass


def _call_around() -> Optional[_Open]:
    """The call of a model that the SDK is in, for the client that it makes it with."""
    if not _open or _current_span is None:
        return None
    span = _current_span()
    known = None if span is None else _open.get(span.span_id)
    return known if known is not None and known.kind == "llm" else None


_current_span: Optional[Callable[[], Any]] = None  # the SDK's, once we are installed


def install() -> None:
    """Reports every run of the Agents SDK in this process."""
    global _current_span
    if _current_span is None:
        from agents.tracing import add_trace_processor, get_current_span

        processor: Any = _Processor()
        add_trace_processor(processor)
        outer_reports.append(_call_around)
        _current_span = get_current_span
