"""Whatever an agent passes to anything here, nothing comes back but telemetry that is less."""

import asyncio
import inspect
import random
import warnings

import pytest

import sidelight


class Hostile:
    """Raises at whatever is asked of it."""

    def _raise(self, *args, **kwargs):
        raise RuntimeError("hostile")

    __repr__ = __str__ = __bool__ = __len__ = __iter__ = __eq__ = __getitem__ = __fspath__ = _raise
    __getattr__ = __float__ = __int__ = __index__ = __contains__ = __format__ = __bytes__ = _raise
    __class__ = property(_raise)
    __hash__ = object.__hash__


class Exits(Hostile):
    def _raise(self, *args, **kwargs):
        raise SystemExit(3)

    __repr__ = __str__ = __bool__ = __len__ = __iter__ = __getattr__ = _raise


def cycle():
    loop = {"name": "loop"}
    loop["list"] = [loop, loop]
    return loop


def deep():
    value = []
    for _ in range(5000):
        value = [value]
    return value


ODD = {
    "none": lambda: None,
    "object": object,
    "hostile": Hostile,
    "exits": Exits,
    "class": lambda: Hostile,
    "cycle": cycle,
    "deep": deep,
    "huge": lambda: "x" * 5_000_000,
    "surrogate": lambda: "a\ud800\udfff",
    "nul": lambda: "\0",
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "negative": lambda: -1,
    "big int": lambda: 1 << 100_000,
    "bytes": lambda: b"\xff" * 10,
    "tags": lambda: [f"tag{i}" for i in range(100_000)],
    "odd tags": lambda: [Hostile(), None, 5, "\ud800"],
    "map": lambda: {i: {Hostile(): i} for i in range(1000)},
    "set": lambda: {1, "a", None},
    "lambda": lambda: lambda: None,
    "generator": lambda: (x for x in range(3)),
    "exception": lambda: KeyError(Hostile()),
    "run": lambda: sidelight.span("never entered"),
    "empty": lambda: "",
}
FIELDS = [
    name
    for name, parameter in inspect.signature(sidelight.span).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
]


@pytest.fixture(params=list(ODD))
def odd(request, collector):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield ODD[request.param]()


def use(run):
    """Everything that a run can do."""
    with run as entered:
        entered.event("e")
        with sidelight.span("below") as below:
            assert isinstance(below.trace_id, str)
            assert sidelight.traceparent()
        assert isinstance(entered.trace_id, str)


def recovers(collector):
    """Says whether the collector still gets what is said after all that."""
    assert sidelight.flush(30)
    with sidelight.span("well"):
        pass
    assert sidelight.flush(10)
    assert [m[4].get("name") for m in collector.messages if m != "EOF" and m[0] == 1][-1] == "well"


def test_every_field_of_a_start(odd, collector):
    for field in FIELDS:
        use(sidelight.span("x", **{field: odd}))
    use(sidelight.span(odd))
    use(sidelight.span(odd, **dict.fromkeys(FIELDS, odd), other=odd))
    recovers(collector)


def test_every_field_of_an_end(odd, collector):
    for field in ("output", "usage", "model", "finish", "error", "other", "sidelight.chunks"):
        with sidelight.span("x") as run:
            run.set(**{field: odd})
    for field in ("output", "usage", "model", "finish", "error", "id"):
        with sidelight.span("x") as run:
            setattr(run, field, odd)
    recovers(collector)


def test_every_function(odd, collector, monkeypatch):
    sidelight.event(odd)
    sidelight.event("e", name=odd, attrs=odd)
    sidelight.watch(odd)
    sidelight.exited(odd, odd)
    sidelight.exited(1, odd)
    assert sidelight.flush(odd if type(odd) is not float else -odd) in (True, False)
    assert sidelight.trace(odd, 0.2) is None
    assert sidelight.trace("0" * 32, odd) is None
    assert isinstance(sidelight.install(odd if odd is not None else 5), list)
    sidelight.wrap(odd)
    sidelight.current().set(odd=odd)
    sidelight.current().event(odd, odd=odd)
    assert isinstance(sidelight.environ(), dict)
    recovers(collector)


def test_configure(odd, collector):
    sidelight.configure(service=odd)
    sidelight.configure(resource=odd)
    sidelight.configure(resource={"odd": odd})
    use(sidelight.span("x"))
    sidelight.configure(buffer=None if type(odd) is int else odd)
    sidelight.configure(service="good", resource={}, buffer=1 << 20)
    recovers(collector)
    if type(odd) is not str:
        sidelight.configure(socket=odd)
        sidelight.environ()
        use(sidelight.span("x"))
        assert sidelight.trace("0" * 32, 0.1) is None


def test_decorators(odd, collector):
    @sidelight.llm(name=odd, model=odd, provider=odd, tags=odd, other=odd, input=odd, output=odd)
    def call(*args, **kwargs):
        return [odd]

    @sidelight.tool
    def stream(*args, **kwargs):
        yield odd
        yield "text"
        return odd

    @sidelight.agent
    async def later(**kwargs):
        return odd

    @sidelight.retriever
    async def later_stream(*args):
        yield odd

    async def every():
        assert await later(x=odd) is odd
        assert [item async for item in later_stream(odd)][0] is odd

    assert call(odd, x=odd)[0] is odd
    assert next(stream(odd)) is odd
    assert len(list(stream(x=odd))) == 2
    asyncio.run(every())
    sidelight.tool(odd)
    recovers(collector)


def test_what_is_raised_is_raised(collector):
    class Odd(Exception):
        def __str__(self):
            raise SystemExit(9)

        __repr__ = __str__
        __class__ = property(__str__)

    @sidelight.tool
    def fails(error):
        raise error

    for error in (Odd(Hostile()), SystemExit(Hostile()), KeyboardInterrupt(), BaseException(), StopIteration(5)):
        for run in (lambda: fails(error), lambda: raising(error)):
            try:
                run()
                raise AssertionError("nothing was raised")
            except BaseException as raised:
                assert raised is error
    recovers(collector)


def raising(error):
    with sidelight.span("x"):
        raise error


def test_random_calls_in_any_order(collector):
    rng = random.Random(4)
    runs = [sidelight.span("first")]
    others = [field for field in FIELDS if field != "parent"]

    def value():
        return ODD[rng.choice([name for name in ODD if name not in ("huge", "tags", "deep")])]()

    steps = [
        lambda: runs.append(sidelight.span(value(), parent=rng.choice(runs), **{rng.choice(others): value()})),
        lambda: rng.choice(runs).__enter__(),
        lambda: rng.choice(runs).__exit__(None, None, None),
        lambda: rng.choice(runs).__exit__(KeyError, KeyError(value()), None),
        lambda: rng.choice(runs).set(output=value(), other=value()),
        lambda: rng.choice(runs).event(value(), x=value()),
        lambda: rng.choice(runs).trace_id,
        lambda: sidelight.event(value()),
        lambda: sidelight.current().set(usage=value()),
        lambda: sidelight.traceparent(),
        lambda: sidelight.wrap(sidelight.tool(lambda x: x))(value()),
    ]
    for _ in range(5000):
        rng.choice(steps)()
    for run in runs:
        run.__exit__(None, None, None)
    assert sidelight.traceparent() is None
    recovers(collector)
