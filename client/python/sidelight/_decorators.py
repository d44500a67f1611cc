"""Functions as runs, and functions that keep their place in the tree on another thread.

A coroutine's run lasts until it returns, a generator's until it is exhausted, closed or dropped.
Inside of it the run is the current one; its consumer, between two items, has its own.
"""

from __future__ import annotations

import functools
import sys
from contextvars import ContextVar
from types import AsyncGeneratorType, CoroutineType, GeneratorType, MethodType
from typing import Any, Callable, Optional, TypeVar, Union, overload

from ._api import Run, _current, begin, finish, guarded, leave, run_event
from ._streams import News, monotonic, size_of
from ._values import Cleaner, absorb

F = TypeVar("F", bound=Callable[..., Any])

MAX_TEXT = 64 * 1024  # characters of a stream's text that are kept
MAX_ITEMS = 100  # other things that it gave, of each
MAX_ITEM_TEXT = 1024  # bytes a string and
MAX_ITEM_NODES = 100  # elements

_CO_VARARGS, _CO_GENERATOR, _CO_COROUTINE = 0x04, 0x20, 0x80
_CO_ITERABLE_COROUTINE, _CO_ASYNC_GENERATOR = 0x100, 0x200

_Variables = tuple[tuple[ContextVar[Any], Any], ...]
_Open = Callable[[tuple[Any, ...], dict[str, Any]], "_Scope"]


class _Scope:
    """What a function sees in some context variables while it runs. A new one is entered."""

    __slots__ = ("_inside", "_tokens")

    def __init__(self, inside: _Variables) -> None:
        self._inside = inside
        self.enter()

    def enter(self) -> _Scope:
        self._tokens = [variable.set(value) for variable, value in self._inside]
        return self

    def leave(self) -> None:
        self._inside = tuple([(variable, variable.get()) for variable, _ in self._inside])
        for token in self._tokens:
            leave(token)

    def took(self, item: Any) -> None:
        """A generator gave one more item."""

    def ended(self, error: Optional[BaseException], result: Any = None) -> None:
        """The function returned, or raised. Of a generator this comes after the last leave()."""
        self.leave()


class _RunScope(_Scope):
    """A call that is a run. Of what a generator gives, this is what each item costs."""

    __slots__ = ("_spec", "_run", "_current")
    __slots__ += ("_chunks", "_room", "_left", "_texts", "_items", "_news")

    def __init__(self, spec: _Spec, run: Run) -> None:
        begin(run)
        self._spec, self._run = spec, run
        self._current: Optional[Run] = run
        self._chunks = 0

    def enter(self) -> _Scope:
        run = self._run
        if run._token is not None:
            run._token = _current.set(self._current)
        return self

    def leave(self) -> None:
        token, self._current = self._run._token, _current.get()
        if token is not None:
            try:
                _current.reset(token)
            except ValueError:
                pass  # a generator that was begun in another context

    def took(self, item: Any) -> None:
        try:
            self._chunks = chunks = self._chunks + 1
            if chunks == 1:
                self._first()
            if type(item) is str:
                news = self._news
                if news is not None:
                    news.add(item, size_of(item))
                    if monotonic() >= news.due:
                        news.tell(self._run.id)
                if self._room > 0:
                    self._texts.append(item[: self._room])
                    self._room -= len(item)
            elif self._left > 0:  # as it is now: the agent may change it or let it go
                self._left -= 1
                self._items.append(Cleaner(MAX_ITEM_TEXT, MAX_ITEM_NODES).fields({"": item})[""])
        except BaseException as error:
            absorb(error)

    def _first(self) -> None:
        self._texts: list[str] = []
        self._items: list[Any] = []
        self._room, self._left = (MAX_TEXT, MAX_ITEMS) if self._spec.output else (0, 0)
        self._news: Optional[News] = None
        if self._spec.kind == "llm":
            run_event(self._run.id, "first_token", {})
            self._news = News() if self._spec.output else None

    @guarded
    def ended(self, error: Optional[BaseException], result: Any = None) -> None:
        if self._chunks:
            self._run.set(**{"sidelight.chunks": self._chunks})
            if result is None:
                result = self._kept()
        output = self._run.output
        if output is None and self._spec.output:
            output = result
        finish(self._run, error, output)

    def _kept(self) -> Any:
        text = "".join(self._texts)
        return [*([text] if text else []), *self._items] if self._items else text


class _Spec:
    """What a decorator was told, and what it saw of its function."""

    __slots__ = ("kind", "output", "_input", "_fields", "_names", "_rest", "_self")

    def __init__(self, function: Any, kind: str, name: Any, input: bool, output: bool, fields: Any):
        self.kind, self.output, self._input = kind, output is not False, input is not False
        if name is None:
            name = getattr(_innermost(function), "__name__", None) or type(function).__name__
        self._fields = {"kind": kind, "name": name, "parent": None, "traceparent": None, **fields}
        self._names, self._rest, self._self = _parameters(function)

    def open(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Scope:
        fields = self._fields.copy()
        if self._input:
            fields["input"] = self._given(args, kwargs)
        return _RunScope(self, Run(fields))

    def _given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Optional[dict[str, Any]]:
        """The arguments that were given, by their names."""
        names = self._names
        given = dict(zip(names, args))
        if len(args) > len(names):
            given[self._rest] = args[len(names) :]
        if kwargs:
            given.update(kwargs)
        if self._self is not None:
            given.pop(self._self, None)
        return given or None


def _innermost(function: Any) -> Any:
    """The function that somebody wrote, below partial(), methods and other decorators."""
    for _ in range(32):
        inner = getattr(function, "func", None) if isinstance(function, functools.partial) else None
        inner = inner or getattr(function, "__func__", None) or getattr(function, "__wrapped__", None)
        if inner is None:
            break
        function = inner
    return function


def _parameters(function: Any) -> tuple[tuple[str, ...], str, Optional[str]]:
    """The names of positional parameters, of the one for the rest, and of the object's own."""
    code = getattr(_innermost(function), "__code__", None)
    if code is None or isinstance(function, functools.partial):
        return (), "args", None
    count, names = code.co_argcount, code.co_varnames
    rest = names[count + code.co_kwonlyargcount] if code.co_flags & _CO_VARARGS else "args"
    if isinstance(function, MethodType):
        return names[1:count], rest, None
    own = names[0] if count and names[0] in ("self", "cls") else None
    return names[:count], rest, own


def _flags(function: Any) -> int:
    """Says what a call makes: the flags of the function's code."""
    while isinstance(function, functools.partial):
        function = function.func
    flags = getattr(getattr(function, "__code__", None), "co_flags", 0)
    return flags if type(flags) is int else 0


def _scoped(function: Any, open: _Open) -> Any:
    """The function, of the same kind, each call in a scope of its own."""
    flags = _flags(function)
    if flags & _CO_COROUTINE:
        return _coroutine(function, open)
    if flags & _CO_ASYNC_GENERATOR:
        return _async_generator(function, open)
    if flags & _CO_GENERATOR and not flags & _CO_ITERABLE_COROUTINE:
        return _generator(function, open)
    return _plain(function, open)


def _plain(function: Any, open: _Open) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        scope = open(args, kwargs)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            scope.ended(error)
            raise
        drive = _drive(result)
        if drive is not None:  # what was called has only just begun
            scope.leave()
            return drive(lambda: result, lambda args, kwargs: scope.enter())()
        scope.ended(None, result)
        return result

    return call


def _drive(result: Any) -> Any:
    kind = type(result)
    if kind is CoroutineType:
        return _coroutine
    if kind is AsyncGeneratorType:
        return _async_generator
    if kind is GeneratorType and not result.gi_code.co_flags & _CO_ITERABLE_COROUTINE:
        return _generator
    return None


def _coroutine(function: Any, open: _Open) -> Any:
    async def call(*args: Any, **kwargs: Any) -> Any:
        scope = open(args, kwargs)
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            scope.ended(error)
            raise
        scope.ended(None, result)
        return result

    return call


def _generator(function: Any, open: _Open) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        scope = open(args, kwargs)
        scope.leave()
        enter, leave, took = scope.enter, scope.leave, scope.took
        try:
            inner = function(*args, **kwargs)
            resume, value = inner.send, None
            while True:
                enter()
                try:
                    item = resume(value)
                finally:
                    leave()
                took(item)
                try:
                    value = yield item
                    resume = inner.send
                except GeneratorExit:
                    enter()
                    try:
                        inner.close()
                    finally:
                        leave()
                    raise
                except BaseException as error:
                    resume, value = inner.throw, error
                item = None  # it is the consumer's
        except StopIteration as stop:
            scope.ended(None, stop.value)
            return stop.value
        except BaseException as error:
            scope.ended(error)
            raise

    return call


def _async_generator(function: Any, open: _Open) -> Any:
    async def call(*args: Any, **kwargs: Any) -> Any:
        scope = open(args, kwargs)
        scope.leave()
        enter, leave, took = scope.enter, scope.leave, scope.took
        try:
            inner = function(*args, **kwargs)
            resume, value = inner.asend, None
            while True:
                enter()
                try:
                    item = await resume(value)
                finally:
                    leave()
                took(item)
                try:
                    value = yield item
                    resume = inner.asend
                except GeneratorExit:
                    enter()
                    try:
                        await inner.aclose()
                    finally:
                        leave()
                    raise
                except BaseException as error:
                    resume, value = inner.athrow, error
                item = None  # it is the consumer's
        except StopAsyncIteration:
            scope.ended(None)
        except BaseException as error:
            scope.ended(error)
            raise

    return call


def _decorated(function: Any, kind: str, options: tuple[Any, ...]) -> Any:
    """The function as a run; anything else, also a class, stays what it is."""
    try:
        if isinstance(function, (staticmethod, classmethod)):
            return type(function)(_decorated(function.__func__, kind, options))
        if isinstance(function, functools.partialmethod):
            inner = _decorated(function.func, kind, options)
            return type(function)(inner, *function.args, **function.keywords)
        if not callable(function) or isinstance(function, type):
            return function
        return functools.wraps(function)(_scoped(function, _Spec(function, kind, *options).open))
    except BaseException as error:
        absorb(error)
        return function


class _Decorator:
    """`@agent`, `@agent("name")` or `@agent(name=…, …)`."""

    __slots__ = ("_kind",)

    def __init__(self, kind: str) -> None:
        self._kind = kind

    @overload
    def __call__(self, function: F, /) -> F: ...

    @overload
    def __call__(
        self,
        name: str,
        /,
        *,
        input: bool = True,
        output: bool = True,
        model: Optional[str] = None,
        provider: Optional[str] = None,
        tags: Optional[list[str]] = None,
        **attrs: Any,
    ) -> Callable[[F], F]: ...

    @overload
    def __call__(
        self,
        /,
        *,
        name: Optional[str] = None,
        input: bool = True,
        output: bool = True,
        model: Optional[str] = None,
        provider: Optional[str] = None,
        tags: Optional[list[str]] = None,
        **attrs: Any,
    ) -> Callable[[F], F]: ...

    def __call__(
        self,
        function: Any = None,
        /,
        *,
        name: Any = None,
        input: bool = True,
        output: bool = True,
        model: Optional[str] = None,
        provider: Optional[str] = None,
        tags: Optional[list[str]] = None,
        **attrs: Any,
    ) -> Any:
        fields = {"model": model, "provider": provider, "tags": tags, "attrs": attrs}
        if function is None or type(function) is str:
            options = (function if name is None else name, input, output, fields)
            return lambda function: _decorated(function, self._kind, options)
        return _decorated(function, self._kind, (name, input, output, fields))


def wrap(function: F) -> F:
    """The function, to be called on another thread: its runs belong to the run around wrap()."""
    try:
        inside: _Variables = ((_current, _current.get()),)
        config = sys.modules.get("langchain_core.runnables.config")
        if config is not None:
            around = config.var_child_runnable_config
            inside += ((around, around.get()),)
        if not callable(function):
            return function
        scoped: Any = functools.wraps(function)(_scoped(function, lambda args, kwargs: _Scope(inside)))
        return scoped  # type: ignore[no-any-return]
    except BaseException as error:
        absorb(error)
        return function


agent = _Decorator("agent")
chain = _Decorator("chain")
llm = _Decorator("llm")
retriever = _Decorator("retriever")
tool = _Decorator("tool")
