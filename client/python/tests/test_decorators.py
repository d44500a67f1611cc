"""Decorated functions are runs, and stay what they were."""

import asyncio
import contextvars
import functools
import gc
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from recorder import only_runs

import sidelight


class Seen:
    """What the collector has been told, once it has been told `count` things."""

    def __init__(self, collector, count):
        messages = collector.wait_for_count(count)
        assert len(messages) == count
        self.starts = {m[4]["name"]: m for m in messages if m[0] == 1}
        self.ends = {m[1]: m[4] for m in messages if m[0] == 2}
        self.events = [(m[1], m[4]) for m in messages if m[0] == 3]

    def start(self, name):
        return self.starts[name][4]

    def end(self, name):
        return self.ends[self.starts[name][1]]

    def parent(self, name):
        above = self.start(name).get("parent")
        return next((n for n, m in self.starts.items() if m[1] == above), above)


def leaf(name="leaf"):
    with sidelight.span(name):
        pass


# Each kind of function, adding two numbers in a run called "add".


def plain(**options):
    @sidelight.tool(name="add", **options)
    def add(a, b=2, *more, scale=1, **rest):
        """Adds."""
        leaf()
        return (a + b) * scale

    return add, lambda *args, **kwargs: add(*args, **kwargs)


def coroutine(**options):
    @sidelight.tool(name="add", **options)
    async def add(a, b=2, *more, scale=1, **rest):
        """Adds."""
        await asyncio.sleep(0)
        leaf()
        return (a + b) * scale

    return add, lambda *args, **kwargs: asyncio.run(add(*args, **kwargs))


def generator(**options):
    @sidelight.tool(name="add", **options)
    def add(a, b=2, *more, scale=1, **rest):
        """Adds."""
        leaf()
        yield (a + b) * scale

    return add, lambda *args, **kwargs: next(iter(list(add(*args, **kwargs))))


def async_generator(**options):
    @sidelight.tool(name="add", **options)
    async def add(a, b=2, *more, scale=1, **rest):
        """Adds."""
        await asyncio.sleep(0)
        leaf()
        yield (a + b) * scale

    async def first(*args, **kwargs):
        return [item async for item in add(*args, **kwargs)][0]

    return add, lambda *args, **kwargs: asyncio.run(first(*args, **kwargs))


KINDS = [plain, coroutine, generator, async_generator]


@pytest.mark.parametrize("make", KINDS)
def test_a_call_is_a_run_with_its_arguments_by_name(collector, make):
    _, call = make(model="m", provider="p", tags=["t"], team="blue")
    assert call(1, 2, 3, scale=2, deep=True) == 6
    seen = Seen(collector, 4)
    assert seen.start("add") == {
        "kind": "tool",
        "name": "add",
        "model": "m",
        "provider": "p",
        "input": {"a": 1, "b": 2, "more": [3], "scale": 2, "deep": True},
        "tags": ["t"],
        "attrs": {"team": "blue"},
    }
    assert seen.end("add")["output"] in (6, [6])
    assert seen.parent("leaf") == "add"
    assert seen.parent("add") is None


@pytest.mark.parametrize("make", KINDS)
def test_arguments_and_result_can_be_left_out(collector, make):
    _, call = make(input=False, output=False)
    assert call(1) == 3
    seen = Seen(collector, 4)
    assert "input" not in seen.start("add")
    assert "output" not in seen.end("add")


@pytest.mark.parametrize("make", KINDS)
def test_a_function_stays_what_it_was(make):
    add, _ = make()
    plain_one = add.__wrapped__
    assert (add.__name__, add.__doc__) == ("add", "Adds.")
    assert inspect.signature(add) == inspect.signature(plain_one)
    for is_kind in (
        inspect.iscoroutinefunction,
        asyncio.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
    ):
        assert is_kind(add) == is_kind(plain_one)


@pytest.mark.parametrize("make", KINDS)
def test_what_a_function_raises_is_recorded_and_goes_on(collector, make):
    _, call = make()
    with pytest.raises(TypeError):
        call("x", [])
    assert Seen(collector, 4).end("add")["error"]["type"] == "TypeError"


@pytest.mark.parametrize("make", KINDS)
def test_wrong_arguments_are_still_wrong(collector, make):
    _, call = make()
    with pytest.raises(TypeError, match="required"):
        call()
    assert Seen(collector, 2).end("add")["error"]["type"] == "TypeError"


@pytest.mark.parametrize("kind", ["agent", "chain", "llm", "retriever", "tool"])
def test_kinds_and_names(collector, kind):
    decorator = getattr(sidelight, kind)

    @decorator
    def bare():
        pass

    @decorator()
    def called():
        pass

    @decorator("by position")
    def positional():
        pass

    for function in (bare, called, positional):
        function()
    seen = Seen(collector, 6)
    assert {name: seen.start(name)["kind"] for name in seen.starts} == {
        "bare": kind,
        "called": kind,
        "by position": kind,
    }
    assert "input" not in seen.start("bare")


def test_partial_methods(collector):
    def add(self, x, y=0):
        """Adds."""
        return self, x, y

    async def later(self, x):
        return x

    class Agent:
        plain = functools.partialmethod(add, 1)
        told = sidelight.tool(functools.partialmethod(add, 1))
        named = sidelight.llm("named", team="blue")(functools.partialmethod(add, y=3))
        shared = sidelight.tool(functools.partialmethod(classmethod(lambda cls, x: (cls, x)), 4))
        waits = sidelight.tool(functools.partialmethod(later, 5))
        twice = sidelight.tool(functools.partialmethod(functools.partialmethod(add, 1), 6))
        of_an_object = sidelight.tool(functools.partialmethod(functools.partial(add), 7))

    agent = Agent()
    assert agent.told(2) == agent.plain(2) == (agent, 1, 2)
    assert agent.named(2) == (agent, 2, 3)
    assert agent.shared() == Agent.shared() == (Agent, 4)
    assert asyncio.run(agent.waits()) == 5
    assert agent.twice() == (agent, 1, 6)
    assert agent.of_an_object() == (agent, 7, 0)
    messages = collector.wait_for_count(14)
    starts = [m[4] for m in messages if m[0] == 1]
    assert [s["name"] for s in starts[:2]] == ["add", "named"]
    assert (starts[0]["kind"], starts[0]["input"]) == ("tool", {"x": 1, "y": 2})
    assert (starts[1]["kind"], starts[1]["attrs"], starts[1]["input"]) == ("llm", {"team": "blue"}, {"x": 2, "y": 3})
    assert len(starts) == 7


def test_methods_in_either_order(collector):
    class Agent:
        @sidelight.tool
        def method(self, x):
            return x

        @sidelight.tool
        @classmethod
        def class_outside(cls, x):
            return cls, x

        @classmethod
        @sidelight.tool
        def class_inside(cls, x):
            return cls, x

        @sidelight.tool
        @staticmethod
        def static_outside(x):
            return x

        @staticmethod
        @sidelight.tool
        def static_inside(x):
            return x

        @sidelight.tool
        async def later(self, x):
            return x

    agent = Agent()
    assert agent.method(1) == agent.static_outside(1) == agent.static_inside(1) == 1
    assert agent.class_outside(1) == agent.class_inside(1) == Agent.class_outside(1) == (Agent, 1)
    assert asyncio.run(agent.later(1)) == 1
    bound = sidelight.tool(name="bound")(agent.method.__func__.__wrapped__.__get__(agent))
    assert bound(1) == 1
    seen = [m[4] for m in collector.wait_for_count(16) if m[0] == 1]
    assert len(seen) == 8
    assert {tuple(start["input"].items()) for start in seen} == {(("x", 1),)}


def test_callables_that_are_no_functions(collector):
    class Calls:
        def __call__(self, x):
            return x

        def __getattr__(self, name):
            raise RuntimeError(name)

    class CallsLater:
        async def __call__(self, x):
            leaf()
            return x

    async def later(x, y):
        leaf()
        return x + y

    assert sidelight.tool(len)([1, 2]) == 2
    assert sidelight.tool(functools.partial(int, base=2))("11") == 3
    assert asyncio.run(sidelight.tool(functools.partial(later, 1))(2)) == 3
    assert asyncio.run(sidelight.tool(CallsLater())(4)) == 4
    assert asyncio.run(sidelight.tool(lambda: later(1, 1))()) == 2
    assert sidelight.tool(Calls())(5) == 5
    messages = collector.wait_for_count(16)
    names = [m[4]["name"] for m in messages if m[0] == 1]
    assert names == ["len", "int", "later", "leaf", "CallsLater", "leaf", "<lambda>", "leaf"]
    parents = {m[4]["name"]: m[4].get("parent") for m in messages if m[0] == 1}
    assert parents["leaf"]


def test_a_coroutine_that_is_made_by_a_function_leaves_the_context_as_it_was(collector):
    async def later():
        leaf()

    async def caller():
        with sidelight.span("around") as around:
            await sidelight.tool(name="made")(lambda: later())()
            assert sidelight._api._current.get() is around
            list(stream(1, 2))
            assert sidelight._api._current.get() is around

    asyncio.run(caller())
    seen = Seen(collector, 6 + 7)
    assert [seen.parent(name) for name in ("made", "leaf", "stream")] == ["around", "made", "around"]


def test_another_decorator_inside(collector):
    def doubled(function):
        @functools.wraps(function)
        def double(*args, **kwargs):
            return 2 * function(*args, **kwargs)

        return double

    @sidelight.tool
    @doubled
    def add(a, b):
        return a + b

    assert add(1, b=2) == 6
    assert Seen(collector, 2).start("add")["input"] == {"a": 1, "b": 2}


@pytest.mark.parametrize("thing", [5, object(), type("C", (), {}), property(len)], ids=repr)
def test_what_is_no_function_stays_as_it_is(thing):
    assert sidelight.tool(thing) is sidelight.tool("name")(thing) is thing
    assert callable(thing) or sidelight.wrap(thing) is thing
    assert sidelight.tool(name=thing, tags=thing, model=thing, odd=thing)(len)([]) == 0


def test_a_run_can_be_told_more_from_inside(collector):
    @sidelight.llm
    def ask(prompt):
        sidelight.current().set(output="better", usage={"input_tokens": 1}, seed=7)
        return "worse"

    assert ask("?") == "worse"
    assert sidelight.current().set(lost=1) is not sidelight.current()
    end = Seen(collector, 2).end("ask")
    assert (end["output"], end["usage"], end["attrs"]) == ("better", {"input_tokens": 1}, {"seed": 7})


# Streams


@sidelight.llm
def stream(*items):
    for item in items:
        leaf(f"step{item}")
        yield item
    return "returned" if not items else None


def test_a_stream_tells_its_first_token_and_its_text(collector):
    assert "".join(stream("a", "b", "c")) == "abc"
    seen = Seen(collector, 9)
    assert seen.events == [(seen.starts["stream"][1], "first_token")]
    assert seen.end("stream") == {"output": "abc", "attrs": {"sidelight.chunks": 3}}
    assert {seen.parent(f"step{item}") for item in "abc"} == {"stream"}


def test_only_an_llm_has_a_first_token(collector):
    @sidelight.tool
    def rows():
        yield {"n": 1}
        yield "text"

    assert list(rows()) == [{"n": 1}, "text"]
    seen = Seen(collector, 2)
    assert not seen.events
    assert seen.end("rows") == {"output": ["text", {"n": 1}], "attrs": {"sidelight.chunks": 2}}


def test_the_run_is_current_inside_of_a_generator_only(collector):
    first, second = stream(1, 2), stream(3)
    with sidelight.span("consumer"):
        next(first)
        leaf("between")
        next(second)
        leaf("between too")
        list(first)
    list(second)
    leaf("after")
    seen = Seen(collector, 2 * 9 + 2)
    assert seen.parent("between") == seen.parent("between too") == "consumer"
    assert [seen.parent(name) for name in ("consumer", "after")] == [None, None]
    assert sum(m[4].get("parent") == seen.starts["consumer"][1] for m in collector.messages if m[0] == 1) == 4


def test_a_span_across_a_yield_stays_inside_the_generator(collector):
    @sidelight.chain
    def steps():
        with sidelight.span("phase"):
            yield 1
            leaf("inside")
            yield 2
        leaf("later")

    generator = steps()
    next(generator)
    leaf("outside")
    list(generator)
    seen = Seen(collector, 10)
    assert [seen.parent(n) for n in ("phase", "inside", "later", "outside")] == ["steps", "phase", "steps", None]


def test_send_throw_return_and_close(collector):
    @sidelight.tool
    def talk():
        heard = []
        while True:
            try:
                heard.append((yield len(heard)))
            except KeyError:
                return heard

    talking = talk()
    assert next(talking) == 0
    assert talking.send("a") == 1
    with pytest.raises(StopIteration) as stop:
        talking.throw(KeyError())
    assert stop.value.value == ["a"]
    assert Seen(collector, 2).end("talk")["output"] == ["a"]


@pytest.mark.parametrize("how", ["close", "drop", "raise"])
def test_a_stream_that_is_not_finished_keeps_what_it_gave(collector, how):
    generator = stream("a", "b", "c")
    next(generator), next(generator)
    if how == "close":
        generator.close()
    elif how == "drop":
        del generator
        gc.collect()
    else:
        with pytest.raises(OSError):
            generator.throw(OSError("cut"))
    end = Seen(collector, 7).end("stream")
    assert end["output"] == "ab"
    assert end["attrs"] == {"sidelight.chunks": 2}
    assert end["error"]["type"] == ("OSError" if how == "raise" else "GeneratorExit")


@pytest.mark.parametrize("how", ["aclose", "cancel", "raise"])
def test_an_async_stream_that_is_not_finished_keeps_what_it_gave(collector, how):
    cleaned = []

    @sidelight.llm
    async def tokens():
        try:
            for item in "abc":
                yield item
                await asyncio.sleep(60 if how == "cancel" and item == "b" else 0)
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    async def consume():
        generator = tokens()
        assert [await generator.__anext__(), await generator.__anext__()] == ["a", "b"]
        leaf("outside")
        if how == "aclose":
            await generator.aclose()
        elif how == "raise":
            await generator.athrow(OSError("cut"))
        else:
            await asyncio.wait_for(generator.__anext__(), 0.02)

    if how == "aclose":
        asyncio.run(consume())
    else:
        with pytest.raises((OSError, asyncio.TimeoutError)):
            asyncio.run(consume())
    seen = Seen(collector, 5)
    assert cleaned == [True]
    assert seen.parent("outside") is None
    end = seen.end("tokens")
    assert (end["output"], end["attrs"]) == ("ab", {"sidelight.chunks": 2})
    assert end["error"]["type"] == {"aclose": "GeneratorExit", "cancel": "CancelledError", "raise": "OSError"}[how]


def test_async_streams_of_tasks_do_not_mix(collector):
    @sidelight.llm
    async def tokens(name):
        for index in range(3):
            await asyncio.sleep(0.001)
            leaf(f"{name}.{index}")
            yield index

    @sidelight.agent
    async def agent(name):
        sidelight.current().set(output=name)
        async for index in tokens(name):
            leaf(f"{name}.consumed.{index}")

    async def every():
        await asyncio.gather(*(agent(f"a{i}") for i in range(10)))

    asyncio.run(every())
    messages = collector.wait_for_count(10 * (2 + 3 + 12))
    runs = {m[1]: m[4] for m in messages if m[0] == 1}
    names = {m[1]: m[4]["output"] for m in messages if m[0] == 2 and isinstance(m[4].get("output"), str)}
    for run in runs.values():
        if run["name"] == "agent":
            assert "parent" not in run
        elif run["name"] == "tokens":
            assert names[run["parent"]] == run["input"]["name"]
        else:
            above = runs[run["parent"]]
            name = run["name"].partition(".")[0]
            assert above["name"] == ("agent" if "consumed" in run["name"] else "tokens")
            assert name == (names[run["parent"]] if above["name"] == "agent" else above["input"]["name"])


def test_a_long_stream_keeps_a_bounded_part(collector):
    @sidelight.llm
    def much():
        for i in range(3000):
            yield "x" * 100
        for i in range(3000):
            yield {"n": [i] * 1000, "text": "y" * 100_000}

    assert sum(1 for _ in much()) == 6000
    end = Seen(collector, 3).end("much")
    assert end["attrs"]["sidelight.chunks"] == 6000
    assert len(end["output"]) == 101
    assert end["output"][0] == "x" * 65536
    assert len(end["output"][1]["text"]) == 1024


def test_a_stream_keeps_no_hold_on_what_it_gave():
    class Big:
        alive = 0

        def __init__(self):
            Big.alive += 1

        def __del__(self):
            Big.alive -= 1

    @sidelight.tool
    def bigs():
        for _ in range(10):
            yield Big()

    for _ in bigs():
        assert Big.alive <= 2


def test_a_result_is_not_held_by_what_outlives_the_run():
    class Big:
        pass

    import weakref

    @sidelight.tool
    def make():
        contexts.append(contextvars.copy_context())
        big = Big()
        made.append(weakref.ref(big))
        return big

    contexts, made = [], []
    make()
    gc.collect()
    assert made[0]() is None


# Threads


def test_wrap_takes_the_place_in_the_tree_to_a_thread(collector):
    def work(index):
        leaf(f"work{index}")
        return index

    with ThreadPoolExecutor(4) as pool:
        with sidelight.span("root"):
            assert list(pool.map(sidelight.wrap(work), range(20))) == list(range(20))
            list(pool.map(work, range(20, 22)))
        list(pool.map(work, range(22, 24)))
    seen = Seen(collector, 2 * 25)
    assert {seen.parent(f"work{i}") for i in range(20)} == {"root"}
    assert {seen.parent(f"work{i}") for i in range(20, 24)} == {None}


def test_wrap_leaves_the_thread_as_it_was(collector):
    with sidelight.span("root"):
        wrapped = sidelight.wrap(lambda: leaf("wrapped"))

        def thread():
            with sidelight.span("own"):
                wrapped()
                leaf("own leaf")

        running = threading.Thread(target=thread)
        running.start()
        running.join()
    seen = Seen(collector, 8)
    assert [seen.parent(n) for n in ("wrapped", "own", "own leaf")] == ["root", None, "own"]


@pytest.mark.parametrize("make", ["coroutine", "generator", "async generator", "lambda"])
def test_wrap_of_every_kind_of_function(collector, make):
    async def later():
        await asyncio.sleep(0)
        leaf()
        return 1

    def items():
        yield 1
        leaf()

    async def async_items():
        yield 1
        leaf()

    async def collect(generator):
        return [item async for item in generator]

    with sidelight.span("root"):
        function = {
            "coroutine": later,
            "generator": items,
            "async generator": async_items,
            "lambda": lambda: later(),
        }[make]
        wrapped = sidelight.wrap(function)
    assert inspect.iscoroutinefunction(wrapped) == inspect.iscoroutinefunction(function)
    found = []

    def thread():
        made = wrapped()
        if make == "generator":
            found.extend(made)
        else:
            found.append(asyncio.run(collect(made) if make == "async generator" else made))

    with sidelight.span("open") as open_run:
        wrapped = sidelight.wrap(function)
        running = threading.Thread(target=thread)
        running.start()
        running.join()
    assert found in ([1], [[1]])
    messages = only_runs(collector.wait_for_count(6))
    assert [m[4]["parent"] for m in messages if m[0] == 1 and m[4]["name"] == "leaf"] == [open_run.id]
