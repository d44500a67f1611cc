"""Whatever an agent passes becomes plain and bounded, and never an exception."""

import collections
import dataclasses
import datetime
import decimal
import enum
import pathlib
import random
import threading
import time
import types
import uuid

import msgpack
import pytest

from sidelight import _wire

RUN = b"r" * 16


def sent(value, **more):
    """What arrives as the input when `value` is sent as the input."""
    frame = _wire.start(RUN, 1, 2, input=value, **more)
    assert len(frame) <= _wire.MAX_FRAME
    return msgpack.unpackb(frame[4:])[4]


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Point:
    x: int
    label: object


class Model:
    def __init__(self):
        self.city = "Oslo"

    def model_dump(self):
        raise RuntimeError("has no bounds")


class Exits:
    def __str__(self):
        raise SystemExit(3)

    content = type = property(__str__)


class Prints:
    def __repr__(self):
        raise AssertionError("may be endless")


class Text(str):
    def __str__(self):
        raise ValueError("no")


class Hostile:
    def __repr__(self):
        raise RuntimeError("no repr")

    def __getattr__(self, name):
        raise RuntimeError("no attribute")


@pytest.mark.parametrize(
    "given, arrives",
    [
        ("text", "text"),
        (b"\x00\xff", b"\x00\xff"),
        ([1, 2.5, True, None], [1, 2.5, True, None]),
        ((1, (2,)), [1, [2]]),
        ({1: "a", None: "b"}, {"1": "a", "None": "b"}),
        (2**63, 2**63),
        (2**64, str(2**64)),
        (-(2**63) - 1, str(-(2**63) - 1)),
        ([1 << 100_000], ["<int of 100001 bits>"]),
        ("a\ud800b", "a?b"),
        ({"k\udfff": 1}, {"k?": 1}),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Text("plain"), "plain"),
        (collections.OrderedDict(a=1), {"a": 1}),
        (frozenset([7]), [7]),
        (bytearray(b"x"), b"x"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (decimal.Decimal("1.50"), "1.50"),
        (pathlib.PurePosixPath("/tmp/x"), "/tmp/x"),
        (Point(1, Colour.RED), {"x": 1, "label": "red"}),
        (Model(), {"city": "Oslo"}),
        ([Model()], [{"city": "Oslo"}]),
    ],
)
def test_a_value_arrives_as(given, arrives):
    assert sent(given)["input"] == arrives


def test_a_message_is_read_from_its_fields():
    message = types.SimpleNamespace(type="human", content="hi", name=None)
    assert sent([message])["input"] == [{"role": "user", "content": "hi"}]


def test_nan_passes():
    assert sent(float("nan"))["input"] != sent(float("nan"))["input"]


@pytest.mark.parametrize(
    "value", [Hostile(), object(), lambda: 1, iter([1]), threading.Lock(), Hostile], ids=type
)
def test_any_object_is_named(value):
    assert sent([value])["input"][0].startswith("<")


def test_an_object_is_named_and_not_printed():
    assert sent(Prints())["input"] == f"<{__name__}.Prints>"


def test_a_value_that_exits_does_not():
    assert sent([Exits()], name=Exits())["name"] == "<Exits>"


def test_what_a_signal_handler_raises_is_passed_on():
    import signal

    class Late(Exception):
        pass

    class Slow:
        def __str__(self):
            signal.raise_signal(signal.SIGUSR1)
            return "never"

    def handler(*_):
        raise Late

    old = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(Late):
            _wire.start(RUN, 1, 2, name=Slow())
    finally:
        signal.signal(signal.SIGUSR1, old)


def test_a_frame_of_wide_keys_fits():
    attrs = {"\U0001f600" * 300 + str(i): "x" for i in range(1000)}
    wide = {"\U0001f600" * 50 + str(i): "\U0001f600" * 70_000 for i in range(1000)}
    for some in (attrs, wide):
        assert len(_wire.event(RUN, 1, 2, "e", some)) <= _wire.MAX_FRAME
        fields = sent(some, attrs=some)
        assert fields["attrs"]


def test_a_cycle_ends():
    loop = {"name": "loop"}
    loop["self"] = [loop, loop, loop]
    assert sent(loop)["input"]["name"] == "loop"


def test_depth_is_bounded():
    deep = "bottom"
    for _ in range(8):
        deep = [deep]
    assert sent(deep)["input"] == deep
    assert "bottom" not in str(sent([deep])["input"])
    for _ in range(100_000):
        deep = [deep]
    assert str(sent(deep)["input"]).endswith("'<list of 1>'" + "]" * 8)


@pytest.mark.parametrize("unit, width", [("x", 1), ("ü", 2), ("日", 3), ("😀", 4)])
def test_a_long_text_is_cut_at_a_character(unit, width):
    text = "-" + unit * 70_000
    fields = sent(text)
    assert text.startswith(fields["input"])
    assert 65536 - 4 < len(fields["input"].encode()) <= 65536
    assert fields["attrs"]["sidelight.cut"] == {"input": 1 + 70_000 * width}


def test_a_text_of_just_the_limit_is_whole():
    fields = sent({"a": "x" * 65536, "b": "ü" * 32768})
    assert fields["input"] == {"a": "x" * 65536, "b": "ü" * 32768}
    assert "attrs" not in fields


def test_a_cut_attribute_is_named():
    fields = sent("short", attrs={"page": "x" * 100_000, "other": 1})
    assert fields["attrs"]["sidelight.cut"] == {"page": 100_000}
    assert len(fields["attrs"]["page"]) == 65536
    assert fields["attrs"]["other"] == 1


def test_a_cut_event_is_named():
    attrs = msgpack.unpackb(_wire.event(RUN, 1, 2, "log", {"text": "x" * 100_000})[4:])[5]
    assert attrs["sidelight.cut"] == {"text": 100_000}


@pytest.mark.parametrize(
    "value",
    [
        ["x" * 60_000] * 100,
        list(range(10**6)),
        [[["y" * 100] * 100] * 100] * 100,
        {f"key-{i}" * 40: "z" * 1000 for i in range(20_000)},
        "x" * 50_000_000,
        [{"text": "ü" * 5000}] * 5000,
    ],
    ids=["texts", "numbers", "nested", "keys", "text", "maps"],
)
def test_a_frame_is_bounded_and_quick(value):
    begin = time.thread_time()
    assert sent(value, attrs={"big": value})["input"]
    assert time.thread_time() - begin < 1


def random_value(rng, depth=0):
    kinds = 22 if depth < 5 else 15
    kind = rng.randrange(kinds)
    if kind >= 15:
        size = rng.choice([0, 1, 2, 5, 15, 16, 17])
        inner = [random_value(rng, depth + 1) for _ in range(size)]
        if kind >= 19:
            return {rng.choice([i, str(i), f"\udc00{i}", None, 1.5, b"k"]): v for i, v in enumerate(inner)}
        return rng.choice([list, tuple, collections.deque])(inner)
    length = rng.choice([0, 1, 31, 32, 255, 256, 70_000])
    return [
        None,
        True,
        rng.getrandbits(rng.choice([1, 8, 63, 64, 65, 2000])),
        -rng.getrandbits(64),
        rng.uniform(-1e300, 1e300),
        float("inf"),
        "x" * length,
        "ü" * length,
        "\ud83d" * length,
        bytes(length),
        Colour.RED,
        Point(1, {2}),
        Hostile(),
        object(),
        Model(),
    ][kind]


def test_random_values_make_frames_that_decode():
    rng = random.Random(1)
    for _ in range(300):
        value = random_value(rng)
        fields = sent(value, name=value, session=value, attrs={"a": value})
        assert isinstance(fields.get("name", ""), str)
        frame = _wire.end(RUN, 1, 2, output=value, usage=value, finish=value, model=value)
        fields = msgpack.unpackb(frame[4:])[4]
        assert isinstance(fields.get("usage") or {}, dict)


def test_a_container_that_others_change_meanwhile():
    shared = {str(i): i for i in range(500)}
    stop = threading.Event()

    def change():
        i = 0
        while not stop.is_set():
            shared.pop(str(i % 500), None)
            shared[str((i * 7) % 700)] = i
            i += 1

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(300):
            assert isinstance(sent(shared)["input"], dict)
    finally:
        stop.set()
        thread.join()
