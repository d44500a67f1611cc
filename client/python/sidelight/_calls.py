"""Reports the requests of a client library, from its own request() on.

The libraries of OpenAI and Anthropic come from one generator. Whatever is called (create, parse,
stream, raw responses, another base URL, Azure, Bedrock), one method of the client sends it, with
a body that is plain by then: so that method is wrapped, and nothing of the caller's is read,
generators least of all.

A stream stays the object it was. Only the iterator in it is replaced by one that looks on, and its
response tells when it is closed. None of the two holds what it belongs to, so a stream that is
dropped goes as it would without us, and the run ends with it.
"""

from __future__ import annotations

import functools
import inspect
import json
import sys
from typing import Any, Callable, Optional

from ._api import (
    _langchain_run,
    end_run,
    error_of,
    guarded,
    new_run_id,
    parent_within,
    run_event,
    start_run,
)
from ._request import REQUEST
from ._streams import News, monotonic, size_of
from ._values import MAX_TEXT, read

MAX_PARTS = 256  # texts and tool calls of one streamed answer
MAX_RAW = 1 << 20  # bytes of a raw response that are parsed to see what it says
MAX_SHAPES = 1024  # classes of answers: parse() makes one for each of the caller's models
MAX_FRAMES = 32  # how far out a framework that reports the same call is looked for

_ATOMS = frozenset({str, int, float, bool, type(None)})


def get(value: Any, name: str) -> Any:
    """A field of a response: a model's, or of the JSON that it was made from."""
    return value.get(name) if type(value) is dict else getattr(value, name, None)


def plain(value: Any, depth: int = 6) -> Any:
    """A response's model as what it was made from, without the fields that are null."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind is list:
        return [plain(item, depth - 1) for item in value] if depth else None
    if kind is not dict:
        if not hasattr(kind, "construct"):  # no model: the cleaner's business
            return value
        more = getattr(value, "__pydantic_extra__", None)
        value = {**value.__dict__, **more} if more else value.__dict__
    if not depth:
        return None
    depth -= 1
    return {
        key: item if type(item) in _ATOMS else plain(item, depth)
        for key, item in value.items()
        if item is not None
    }


def said(value: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """These fields of a response's model, plain, as far as they say anything."""
    found = {}
    for name in names:
        item = get(value, name)
        if item is not None:
            found[name] = item if type(item) is str else plain(item)
    return found


class Pieces:
    """Texts that come bit by bit, up to 64 KiB in all."""

    __slots__ = ("parts", "news", "full", "is_cut", "_left")

    def __init__(self) -> None:
        self.parts: dict[Any, list[str]] = {}
        self.news = News()
        self.full = 0  # bytes of all that came
        self.is_cut = False
        self._left = MAX_TEXT

    def add(self, part: Any, piece: str, is_said: bool = False) -> None:
        """is_said: it is of the answer's text, or of the first one's."""
        size = size_of(piece)
        if is_said:
            self.news.add(piece, size)
        self.full += size
        if part not in self.parts and len(self.parts) >= MAX_PARTS:
            self.is_cut = self.is_cut or size > 0
            return
        if size > self._left:
            piece = piece.encode("utf-8", "replace")[: self._left].decode("utf-8", "ignore")
            self.is_cut, size = True, self._left
        self._left -= size
        self.parts.setdefault(part, []).append(piece)

    def text(self, part: Any) -> str:
        return "".join(self.parts.get(part, ()))


class Api:
    """What one of a library's endpoints takes and gives. One object is for one call."""

    name = ""
    kind = "llm"
    pieces: Pieces  # of an answer that comes in chunks
    is_whole = False  # a stream has said all of its answer

    def input(self, body: dict[str, Any]) -> Any:
        return body.get("messages")

    def user(self, body: dict[str, Any]) -> Any:
        return body.get("user")

    def answer(self, response: Any) -> dict[str, Any]:
        """A response, as fields of an end."""
        raise NotImplementedError

    def feed(self, chunk: Any) -> bool:
        """Takes a stream's next chunk. Says whether it carries something of the answer."""
        return False

    def gathered(self) -> dict[str, Any]:
        """What a stream has told so far, as fields of an end."""
        return {}

    def estimated(self, usage: Optional[dict[str, Any]], chunks: int) -> Optional[dict[str, Any]]:
        """The usage of a stream that was cut: a chunk is a token, more or less."""
        if usage or not chunks:
            return usage
        return {"output_tokens": chunks, "sidelight.estimated": True}


class Call:
    """One request, until its answer is there or nobody waits for it any more."""

    __slots__ = ("id", "api", "chunks", "ended", "begun", "inside", "streams", "_outer")

    def __init__(self, api: Api, outer: Any) -> None:
        self.id: Any = new_run_id() if outer is None else outer.id
        self.api = api
        self.chunks = 0
        self.ended = False
        self.streams = False  # the answer comes in chunks
        self.begun = False  # the first one was asked for
        self.inside = False  # the client is at work on the next one
        self._outer = outer  # a framework's report of this call, to which ours is added

    def start(self, client: Any, body: dict[str, Any], extra: Any, provider: Any) -> None:
        if self._outer is not None:
            return
        start_run(
            self.id,
            kind=self.api.kind,
            name=self.api.name,
            parent=parent_within(_langchain_run()),
            user=read(self.api.user, body),
            model=body.get("model"),
            provider=read(provider, client),
            input=read(self.api.input, body),
            attrs=read(_asked, body, extra),
        )

    @guarded
    def answered(self, result: Any) -> None:
        """The client has an answer, or the beginning of one."""
        if self.ended:
            return
        shape = _shape(result)
        if shape == "model":
            self.end(**read(self.api.answer, result, default={}))
        elif shape == "stream":
            read(self._watch, result)
            if not self.streams:
                self.end()  # a stream of a kind that we don't know
        elif result.http_response.is_closed:
            self._read_raw(result.http_response)
        else:  # its body is the caller's to read
            read(_tell, result, self, _bodies_of_raw)

    def _watch(self, stream: Any) -> None:
        if type(stream._iterator) in (_Watch, _AsyncWatch):
            return  # a raw response gives the same stream again
        kind = _AsyncWatch if hasattr(stream._iterator, "__anext__") else _Watch
        stream._iterator = kind(stream._iterator, self)
        self.streams = True
        _tell(stream.response, self, _bodies_of_response)

    def _read_raw(self, http: Any) -> None:
        content = getattr(http, "_content", None)
        told = json.loads(content) if content is not None and len(content) <= MAX_RAW else None
        self.end(**(read(self.api.answer, told, default={}) if type(told) is dict else {}))

    @guarded
    def raw_closed(self, raw: Any) -> None:
        if not self.streams and not self.ended:  # else the stream tells more
            self._read_raw(raw.http_response)

    @guarded
    def chunk(self, chunk: Any) -> None:
        api = self.api
        if api.feed(chunk):
            self.chunks += 1
            news = api.pieces.news
            if self.chunks == 1:
                run_event(self.id, "first_token", {})
                news.begin()
            elif monotonic() >= news.due:
                news.tell(self.id, self.chunks)

    @guarded
    def done(self, error: Optional[BaseException] = None) -> None:
        """The stream has ended by itself."""
        self._end_stream(error_of(error) if error is not None else None, error)

    @guarded
    def closed(self, response: Any = None) -> None:
        """Nobody will read on. Closing is part of reading, too, but then we hear how that ended."""
        if self.inside or self.ended:
            return
        if not self.begun and getattr(response, "is_stream_consumed", False):
            self.end()  # somebody read it past us: no word of how far
        elif self.api.is_whole:
            self._end_stream(None, None)
        else:
            left = {"type": "GeneratorExit", "message": "the stream was not read to its end"}
            self._end_stream(left, None)

    def _end_stream(self, error: Any, raised: Optional[BaseException]) -> None:
        if self.ended:
            return
        fields = read(self.api.gathered, default={})
        if error is not None:
            fields["usage"] = self.api.estimated(fields.get("usage"), self.chunks)
            fields["error"] = error
            _add_status(fields, raised)
        self.end(**fields)

    @guarded
    def failed(self, error: BaseException) -> None:
        """No answer came, or none that the client could parse."""
        told = getattr(error, "completion", None)
        fields = read(self.api.answer, told, default={}) if told is not None else {}
        _add_status(fields, error)
        fields["error"] = error_of(error)
        self.end(**fields)

    def end(self, **fields: Any) -> None:
        if self.ended:
            return
        self.ended = True
        if self.chunks:
            fields.setdefault("attrs", {})["sidelight.chunks"] = self.chunks
        if self._outer is None:
            end_run(self.id, **fields)
        else:
            self._outer.told = fields

    def __del__(self) -> None:
        self.closed()


_shapes: dict[type, str] = {}  # of what a client returns, by its class


def _shape(result: Any) -> str:
    kind = type(result)
    shape = _shapes.get(kind)
    if shape is None:
        is_stream = hasattr(result, "_iterator") and hasattr(result, "response")
        shape = "stream" if is_stream else "raw" if hasattr(result, "http_response") else "model"
        if len(_shapes) < MAX_SHAPES:
            _shapes[kind] = shape
    return shape


class _Watch:
    """A stream's iterator, looked at while it is read."""

    __slots__ = ("_iterator", "_call")

    def __init__(self, iterator: Any, call: Call) -> None:
        self._iterator = iterator
        self._call = call

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        call = self._call
        call.begun = call.inside = True
        try:
            chunk = self._iterator.__next__()
        except StopIteration:
            call.done()
            raise
        except BaseException as error:
            call.done(error)
            raise
        finally:
            call.inside = False
        call.chunk(chunk)
        return chunk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._iterator, name)


class _AsyncWatch:
    __slots__ = ("_iterator", "_call")

    def __init__(self, iterator: Any, call: Call) -> None:
        self._iterator = iterator
        self._call = call

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        call = self._call
        call.begun = call.inside = True
        try:
            chunk = await self._iterator.__anext__()
        except StopAsyncIteration:
            call.done()
            raise
        except BaseException as error:
            call.done(error)
            raise
        finally:
            call.inside = False
        call.chunk(chunk)
        return chunk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._iterator, name)


# Classes of objects that tell a call of what is done with them, by the classes they were of. An
# attribute of the object itself would have to hold it, and only the garbage collector, which a
# dropped stream doesn't need, would find it.
_telling: dict[type, type] = {}


def _tell(owner: Any, call: Call, bodies: Callable[[type], dict[str, Any]]) -> None:
    """Lets the owner tell the call: it gets a class that is its own but for some methods."""
    kind = type(owner)
    telling = _telling.get(kind)
    if telling is None:
        names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
        telling = _telling[kind] = type(kind.__name__, (kind,), {**bodies(kind), **names})
        _telling[telling] = telling
    owner.__dict__["_sidelight"] = call
    owner.__class__ = telling


def _bodies_of_response(kind: Any) -> dict[str, Any]:
    """For the HTTP response of a stream: it is closed, whoever does it."""

    def close(self: Any) -> Any:
        self._sidelight.closed(self)
        return kind.close(self)

    async def aclose(self: Any) -> Any:
        self._sidelight.closed(self)
        return await kind.aclose(self)

    return {"close": close, "aclose": aclose}


def _bodies_of_raw(kind: Any) -> dict[str, Any]:
    """For a raw response that is not read yet: it is parsed, maybe into a stream, and closed."""

    def parse(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            result = kind.parse(self, *args, **kwargs)
        except BaseException as error:
            self._sidelight.failed(error)
            raise
        self._sidelight.answered(result)
        return result

    async def aparse(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            result = await kind.parse(self, *args, **kwargs)
        except BaseException as error:
            self._sidelight.failed(error)
            raise
        self._sidelight.answered(result)
        return result

    def close(self: Any) -> Any:
        self._sidelight.raw_closed(self)
        return kind.close(self)

    async def aclose(self: Any) -> Any:
        self._sidelight.raw_closed(self)
        return await kind.close(self)

    bodies: dict[str, Any] = {}
    bodies["parse"] = aparse if inspect.iscoroutinefunction(kind.parse) else parse
    if hasattr(kind, "close"):
        bodies["close"] = aclose if inspect.iscoroutinefunction(kind.close) else close
    return bodies


def _asked(body: dict[str, Any], extra: Any) -> dict[str, Any]:
    attrs: dict[str, Any] = {}
    for given in (body, extra):
        if type(given) is dict:
            for name, value in given.items():
                if name in REQUEST and (type(value) in _ATOMS or type(value) is list):
                    attrs.setdefault(REQUEST[name], value)
    return attrs


def _add_status(fields: dict[str, Any], error: Optional[BaseException]) -> None:
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        fields.setdefault("attrs", {})["http.response.status_code"] = status


# A framework that reports a call itself says so here: its report, or None.
outer_reports: list[Callable[[], Any]] = []


def _is_in_langchain() -> bool:
    """Whether this call is a LangChain model's that a handler of ours reports.

    A model is given its run as `run_manager`, also where it is run in another thread. So the
    frames around us tell for sure; a context variable would outlive calls that never end.
    """
    langchain = sys.modules.get("sidelight.langchain")
    if langchain is None or not langchain._runs:
        return False
    frame: Any = sys._getframe(3)
    for _ in range(MAX_FRAMES):
        if frame is None:
            return False
        if "run_manager" in frame.f_code.co_varnames:
            manager = frame.f_locals.get("run_manager")
            if manager is not None:
                run = langchain._runs.get(manager.run_id.bytes)
                is_model = type(manager).__name__.endswith("LLMRun")
                return is_model and run is not None and not getattr(run, "ended", False)
        frame = frame.f_back
    return False


def _outer_report() -> Any:
    for ask in outer_reports:
        report = ask()
        if report is not None:
            return report
    return None


Endpoints = Callable[[str], Optional[Callable[[], Api]]]


@guarded
def _begin(
    endpoints: Endpoints, provider: Any, client: Any, args: Any, kwargs: Any
) -> Optional[Call]:
    options = args[1] if len(args) > 1 else kwargs["options"]
    body = options.json_data
    if type(body) is not dict or options.method.lower() != "post":
        return None
    make = endpoints(options.url)
    if make is None:
        return None
    api = make()
    if api.kind == "llm" and read(_is_in_langchain, default=False):
        return None
    call = Call(api, read(_outer_report) if api.kind == "llm" else None)
    call.start(client, body, getattr(options, "extra_json", None), provider)
    return call


def wrap(client_class: Any, endpoints: Endpoints, provider: Callable[[Any], str]) -> None:
    """Reports what all clients of this class, and of those it shares request() with, ask for."""
    owner = next(base for base in client_class.__mro__ if "request" in base.__dict__)
    original = owner.__dict__["request"]
    if hasattr(original, "_sidelight"):
        return

    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def arequest(self: Any, *args: Any, **kwargs: Any) -> Any:
            call = _begin(endpoints, provider, self, args, kwargs)
            if call is None:
                return await original(self, *args, **kwargs)
            try:
                result = await original(self, *args, **kwargs)
            except BaseException as error:
                call.failed(error)
                raise
            call.answered(result)
            return result

        arequest._sidelight = True  # type: ignore[attr-defined]
        owner.request = arequest
    else:

        @functools.wraps(original)
        def request(self: Any, *args: Any, **kwargs: Any) -> Any:
            call = _begin(endpoints, provider, self, args, kwargs)
            if call is None:
                return original(self, *args, **kwargs)
            try:
                result = original(self, *args, **kwargs)
            except BaseException as error:
                call.failed(error)
                raise
            call.answered(result)
            return result

        request._sidelight = True  # type: ignore[attr-defined]
        owner.request = request
