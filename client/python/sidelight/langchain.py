"""Reports LangChain and LangGraph runs.

What LangChain calls, from which thread and with what, decides the shape of this: one handler
serves many threads at once, ends carry nothing of their start, and a cancelled model call
may get no end at all. So a handler has no state of its own, and what is kept of a run is a
few words in a table of bounded size.
"""

from __future__ import annotations

import sys
from typing import Any, Optional, cast
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, LLMResult
from langchain_core.tracers.context import register_configure_hook
from langchain_core.version import VERSION

from . import _api, _streams
from ._api import (
    _langchain_run,
    error_of,
    guarded,
    parent_within,
    place,
    run_event,
    transport,
    unplace,
)
from ._messages import (
    ROLES,
    answer,
    any_message,
    conversation,
    found,
    is_agent,
    last_words,
    name_of,
    size_of_calls,
)
from ._request import REQUEST
from ._values import absorb, read, text

try:
    from . import _fast
except ImportError:
    _fast = None  # type: ignore[assignment]

__all__ = ["SidelightCallbackHandler", "install"]

MAX_RUNS = 16_384  # that are open
MAX_ENDED = 512

# What LangChain's metadata calls the things that the protocol has fields for.
_SESSION = ("thread_id", "session_id", "conversation_id")  # in this order
_PROMPT = (
    ("prompt_key", "prompt.key"),
    ("prompt.key", "prompt.key"),
    ("prompt_version", "prompt.version"),
    ("prompt.version", "prompt.version"),
    ("policy_mode", "policy_mode"),
)
_MODEL_SETTINGS = ("ls_temperature", "ls_max_tokens")
_PLACE = ("checkpoint_ns", "langgraph_checkpoint_ns")
_NO_ATTRS = frozenset((*_SESSION, *dict(_PROMPT), *_PLACE, "user_id"))  # nor ls_…
_SCALARS = frozenset({str, int, float, bool})

# There only the result of a tool says which call it answers.
_CALL_ID_IS_LATE = VERSION.startswith(("0.", "1.0."))

# What a run ends with that is told to stop.
_STOPPED = frozenset({"CancelledError", "GeneratorExit"})


class _Run:
    __slots__ = ("owner", "parent", "stream")

    def __init__(self, owner: int, parent: Optional[bytes]) -> None:
        self.owner = owner  # the handler that reports it
        self.parent = parent
        self.stream: Optional[_streams.Stream] = None


# Every step on these is one atomic operation: no lock, so no deadlock when a finalizer calls
# back in the middle of a callback. The ids of the newest that ended stay a while, so that a second
# handler, told of the same end, sees that it was reported.
_runs: dict[bytes, _Run] = {}
_ended: list[set[bytes]] = [set(), set()]


def _remember(run_id: bytes, owner: int, parent: Optional[bytes]) -> bool:
    """Claims a run for a handler. False: another handler reports it."""
    known = _runs.get(run_id)
    if known is not None and known.owner != owner:
        return False
    _runs[run_id] = _Run(owner, parent)
    if len(_runs) > MAX_RUNS:
        for oldest in list(_runs)[: MAX_RUNS // 16]:
            _runs.pop(oldest, None)
    return True


def _forget(run_id: bytes) -> None:
    _runs.pop(run_id, None)
    newest = _ended[1]
    newest.add(run_id)
    if len(newest) >= MAX_ENDED:
        _ended[:] = [newest, set()]


def _has_ended(run_id: bytes) -> bool:
    older, newest = _ended
    return run_id in newest or run_id in older


def _around() -> Optional[bytes]:
    """The run that a root is in all the same: with_fallbacks and whoever gives a config of his own
    to a call inside a run hide it from the callbacks."""
    run_id = _langchain_run()
    return run_id if run_id is not None and run_id in _runs else None


def _context(metadata: dict[str, Any], fields: dict[str, Any], root: bool) -> None:
    """What the metadata say, as fields of a start; the rest of them becomes attributes."""
    attrs = fields["attrs"]
    for name, value in metadata.items():
        if type(value) in _SCALARS and type(name) is str:
            if name not in _NO_ATTRS and name[:3] != "ls_":
                attrs[name] = value
    get = metadata.get
    if root:
        for name, attr in _PROMPT:
            value = get(name)
            if value is not None:
                attrs[attr] = value
    fields["session"] = get("thread_id") or get("session_id") or get("conversation_id")
    fields["user"] = get("user_id")


def _request(metadata: dict[str, Any], asked: dict[str, Any], fields: dict[str, Any]) -> None:
    """What a model is asked with, as fields of a start."""
    attrs, get = fields["attrs"], metadata.get
    for name in _MODEL_SETTINGS:
        value = get(name)
        if value is not None:
            attrs[REQUEST[name[3:]]] = value
    for name, value in asked.items():
        if name in REQUEST and value is not None:
            attrs[REQUEST[name]] = value
    fields["model"] = get("ls_model_name") or asked.get("model") or asked.get("model_name")
    fields["provider"] = get("ls_provider")


def _prompt(messages: Any) -> Any:
    if not messages:
        return None
    return list(map(any_message, messages[0]))


def _one_or_all(prompts: Any) -> Any:
    return prompts[0] if len(prompts) == 1 else prompts


def _description(serialized: Any) -> Any:
    return serialized.get("description") if serialized else None


def _half_an_answer(error: BaseException, response: Any) -> dict[str, Any]:
    """What a model call that failed left behind, as fields of an end."""
    fields = answer(response) if response is not None else {}
    if not any(msg["content"] or msg.get("tool_calls") for msg in fields.get("output", ())):
        fields.pop("output", None)  # nothing, or what was only told chunk by chunk
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        fields.setdefault("attrs", {})["http.response.status_code"] = status
    return fields


def _tool_result(output: Any) -> dict[str, Any]:
    """What a tool returned, as fields of an end."""
    content = getattr(output, "content", output)
    fields: dict[str, Any] = {"output": content}
    if getattr(output, "status", None) == "error":  # the tool caught it for the model to see
        fields["error"] = {"type": "ToolException", "message": text(content)}
    if _CALL_ID_IS_LATE and getattr(output, "tool_call_id", None):
        fields["attrs"] = {"gen_ai.tool.call.id": output.tool_call_id}
    return fields


class SidelightCallbackHandler(BaseCallbackHandler):
    """Give it to a run as callbacks=[SidelightCallbackHandler()], or see install()."""

    run_inline = True  # a thread for each callback would cost twenty times the callback
    raise_error = False

    def __new__(cls, *args: Any, **kwargs: Any) -> SidelightCallbackHandler:
        # LangGraph tells of interrupts only its own kind of handler, but importing it takes
        # half a second: a graph that is to be reported has done that already.
        if cls is SidelightCallbackHandler and _has_graphs():
            cls = _graph_handler()
        return super().__new__(cls)

    def _reports(self, run_id: bytes) -> bool:
        run = _runs.get(run_id)
        return not _has_ended(run_id) if run is None else run.owner == id(self)

    def _start(
        self,
        run_id: UUID,
        parent_run_id: Optional[UUID],
        tags: Optional[list[str]],
        metadata: Optional[dict[str, Any]],
        fields: dict[str, Any],
    ) -> None:
        """The fields are the protocol's, attrs among them."""
        key = run_id.bytes
        parent = None if parent_run_id is None else parent_run_id.bytes
        if not _remember(key, id(self), parent):
            return
        if metadata:
            read(_context, metadata, fields, parent is None)
        fields["parent"] = parent_within(_around() if parent is None else parent)
        fields["tags"] = tags
        place(key, fields)
        transport.report(1, key, fields)

    def _end(self, run_id: bytes, fields: dict[str, Any]) -> None:
        run = _runs.get(run_id)
        if run is None:
            if _has_ended(run_id):
                return
        elif run.owner != id(self):
            return
        else:
            stream = run.stream
            if stream is not None:
                _streams.end(run_id)
                if "error" in fields:
                    read(stream.complete, fields)
                fields.setdefault("attrs", {})["sidelight.chunks"] = stream.chunks
        _forget(run_id)
        unplace(run_id)
        transport.report(2, run_id, fields)

    def _fail(self, run_id: UUID, error: BaseException, fields: dict[str, Any]) -> None:
        key = run_id.bytes
        fields["error"] = error_of(error)
        if type(error).__name__ in _STOPPED:
            # LangChain doesn't say that it stopped a model in the middle of its answer.
            for inner in _streams.within(key):
                self._end(inner, {"error": fields["error"]})
        self._end(key, fields)

    def _event(self, run_id: UUID, name: str, **attrs: Any) -> None:
        key = run_id.bytes
        if self._reports(key):
            run_event(key, name, {k: v for k, v in attrs.items() if v is not None})

    def _chunk(self, run_id: UUID, piece: Any) -> Optional[_streams.Stream]:
        key = run_id.bytes
        run = _runs.get(key)
        if run is None or run.owner != id(self):
            return None
        stream = run.stream
        if stream is None:
            run.stream = stream = _streams.begin(key, run.parent)
            run_event(key, "first_token", {})
        stream.chunks += 1
        if piece and isinstance(piece, str):
            stream.add(piece)
        return stream

    # Models. What is called for every run takes its guard inside: around it, it costs as much
    # as all that is done here.

    def on_chat_model_start(
        self,
        serialized: Any = None,
        messages: Any = None,
        *_: Any,
        run_id: Any = None,
        parent_run_id: Optional[UUID] = None,
        tags: Optional[list[str]] = None,
        metadata: Optional[dict[str, Any]] = None,
        **kwargs: Any,
    ) -> None:
        try:
            prompt = read(_prompt, messages)
            self._model_start(serialized, prompt, run_id, parent_run_id, tags, metadata, kwargs)
        except BaseException as error:
            absorb(error)

    @guarded
    def on_llm_start(
        self,
        serialized: Any,
        prompts: Any,
        *,
        run_id: UUID,
        parent_run_id: Optional[UUID] = None,
        tags: Optional[list[str]] = None,
        metadata: Optional[dict[str, Any]] = None,
        **kwargs: Any,
    ) -> None:
        prompt = read(_one_or_all, prompts)
        self._model_start(serialized, prompt, run_id, parent_run_id, tags, metadata, kwargs)

    def _model_start(
        self,
        serialized: Any,
        prompt: Any,
        run_id: UUID,
        parent_run_id: Optional[UUID],
        tags: Optional[list[str]],
        metadata: Optional[dict[str, Any]],
        kwargs: dict[str, Any],
    ) -> None:
        name = read(name_of, serialized, kwargs)
        fields: dict[str, Any] = {"kind": "llm", "name": name, "input": prompt, "attrs": {}}
        read(_request, metadata or {}, kwargs.get("invocation_params") or {}, fields)
        self._start(run_id, parent_run_id, tags, metadata, fields)

    def on_llm_new_token(
        self, token: Any = None, *_: Any, run_id: Any = None, chunk: Any = None, **kwargs: Any
    ) -> None:
        try:
            stream = self._chunk(run_id, token)
            if not token and stream is not None:
                stream.count(read(size_of_calls, chunk, default=0))
        except BaseException as error:
            absorb(error)

    @guarded
    def on_stream_event(self, event: Any, *, run_id: UUID, **kwargs: Any) -> None:
        if event.get("event") == "content-block-delta":
            self._chunk(run_id, event.get("delta", {}).get("text"))

    def on_llm_end(self, response: Any = None, *_: Any, run_id: Any = None, **kwargs: Any) -> None:
        try:
            self._end(run_id.bytes, read(answer, response) or {})
        except BaseException as error:
            absorb(error)

    @guarded
    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        fields = read(_half_an_answer, error, kwargs.get("response"), default={})
        self._fail(run_id, error, fields)

    # Chains and graphs

    def on_chain_start(
        self,
        serialized: Any = None,
        inputs: Any = None,
        *_: Any,
        run_id: Any = None,
        parent_run_id: Optional[UUID] = None,
        tags: Optional[list[str]] = None,
        metadata: Optional[dict[str, Any]] = None,
        **kwargs: Any,
    ) -> None:
        try:
            name = read(name_of, serialized, kwargs)
            fields: dict[str, Any] = {"kind": "chain", "name": name, "attrs": {}}
            if parent_run_id is None:
                fields["kind"] = "agent"
                # Inside, every node gets the whole conversation once more.
                fields["input"] = read(conversation, inputs)
            elif read(is_agent, name, metadata):
                fields["kind"] = "agent"
            self._start(run_id, parent_run_id, tags, metadata, fields)
        except BaseException as error:
            absorb(error)

    def on_chain_end(
        self,
        outputs: Any = None,
        *_: Any,
        run_id: Any = None,
        parent_run_id: Optional[UUID] = None,
        **kwargs: Any,
    ) -> None:
        try:
            output = {} if parent_run_id is not None else {"output": read(last_words, outputs)}
            self._end(run_id.bytes, output)
        except BaseException as error:
            absorb(error)

    @guarded
    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._fail(run_id, error, {})

    @guarded
    def on_interrupt(self, event: Any) -> None:
        if event.run_id is not None:
            values = [getattr(interrupt, "value", None) for interrupt in event.interrupts]
            self._event(event.run_id, "interrupt", status=event.status, interrupts=values)

    @guarded
    def on_resume(self, event: Any) -> None:
        if event.run_id is not None:
            self._event(event.run_id, "resume", status=event.status)

    # Tools and retrievers

    @guarded
    def on_tool_start(
        self,
        serialized: Any,
        input_str: Any,
        *,
        run_id: UUID,
        parent_run_id: Optional[UUID] = None,
        tags: Optional[list[str]] = None,
        metadata: Optional[dict[str, Any]] = None,
        inputs: Optional[dict[str, Any]] = None,
        tool_call_id: Optional[str] = None,
        **kwargs: Any,
    ) -> None:
        attrs: dict[str, Any] = {}
        if tool_call_id:
            attrs["gen_ai.tool.call.id"] = tool_call_id
        description = read(_description, serialized)
        if description:
            attrs["gen_ai.tool.description"] = description
        fields = {
            "kind": "tool",
            "name": read(name_of, serialized, kwargs),
            "input": inputs if inputs is not None else input_str,
            "attrs": attrs,
        }
        self._start(run_id, parent_run_id, tags, metadata, fields)

    @guarded
    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id.bytes, read(_tool_result, output, default={}))

    @guarded
    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._fail(run_id, error, {})

    @guarded
    def on_retriever_start(
        self,
        serialized: Any,
        query: Any,
        *,
        run_id: UUID,
        parent_run_id: Optional[UUID] = None,
        tags: Optional[list[str]] = None,
        metadata: Optional[dict[str, Any]] = None,
        **kwargs: Any,
    ) -> None:
        name = read(name_of, serialized, kwargs)
        fields = {"kind": "retriever", "name": name, "input": query, "attrs": {}}
        self._start(run_id, parent_run_id, tags, metadata, fields)

    @guarded
    def on_retriever_end(self, documents: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id.bytes, {"output": read(found, documents)})

    @guarded
    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._fail(run_id, error, {})

    # Events

    @guarded
    def on_agent_action(self, action: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._event(run_id, "agent_action", tool=action.tool, input=action.tool_input)

    @guarded
    def on_agent_finish(self, finish: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._event(run_id, "agent_finish", output=finish.return_values)

    @guarded
    def on_text(self, text: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._event(run_id, "text", text=text)

    @guarded
    def on_retry(self, retry_state: Any, *, run_id: UUID, **kwargs: Any) -> None:
        outcome = retry_state.outcome
        error = outcome.exception() if outcome is not None and outcome.failed else None
        self._event(
            run_id,
            "retry",
            attempt=retry_state.attempt_number,
            wait=retry_state.idle_for,
            error=None if error is None else type(error).__name__,
        )

    @guarded
    def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._event(run_id, name, data=data)


@guarded
def _emit(frame: bytes) -> None:
    """For the part in C: a frame that has to wait. Asking first writes what can be written now."""
    if transport.wants():
        transport.emit(frame)


if _fast is not None:  # which does by itself what is plain
    for _type in (HumanMessage, AIMessage, AIMessageChunk, SystemMessage, ToolMessage):
        _fast.know(_type, ROLES.get(_type.model_fields["type"].default))
    _fast.attach(SidelightCallbackHandler, globals(), vars(_api))


def _has_graphs() -> bool:
    return hasattr(sys.modules.get("langgraph.callbacks"), "GraphCallbackHandler")


_graph_class: Optional[type[SidelightCallbackHandler]] = None


def _graph_handler() -> type[SidelightCallbackHandler]:
    global _graph_class
    if _graph_class is None:
        from langgraph.callbacks import GraphCallbackHandler

        bases = (SidelightCallbackHandler, GraphCallbackHandler)
        rebuild = (SidelightCallbackHandler, ())  # for pickle, which finds only that by name
        names = {"__module__": __name__, "__reduce__": lambda self: rebuild}
        _graph_class = type("SidelightCallbackHandler", bases, names)
    return _graph_class


class _Hook:
    """What LangChain asks for a handler: it wants a ContextVar, and calls only its get().

    The handler is made late, so that it is one for graphs if there are any by then.
    """

    def __init__(self) -> None:
        self._handler: Optional[SidelightCallbackHandler] = None

    def get(self) -> SidelightCallbackHandler:
        handler = self._handler
        if handler is None or (_has_graphs() and type(handler) is SidelightCallbackHandler):
            self._handler = handler = SidelightCallbackHandler()
        return handler


_hook: Optional[_Hook] = None


def install() -> None:
    """Reports every LangChain run of this process, with nothing in its config."""
    global _hook
    if _hook is None:
        _hook = _Hook()
        # A run that has a handler of this class already gets no second one.
        register_configure_hook(cast(Any, _hook), True, SidelightCallbackHandler)
