"""The client's frames are those of the protocol's vectors, byte for byte."""

import json
import pathlib
import uuid

import msgpack
import pytest

from sidelight import _wire

VECTORS = pathlib.Path(__file__).parents[3] / "proto" / "vectors" / "good.json"
BUILT = {"hello", "start", "end", "event", "flush", "dropped", "bye", "child"}
TYPES = ["hello", "start", "end", "event", "flush", "flushed", "dropped", "bye", "error", "child"]
# Frames that a client may send, but this one has no way to say.
UNSAID = {
    "hello-empty",  # we always say which version we speak
    "hello-owner",
    "start-gather",
    "start-nil-fields",
    "start-empty-texts",
    "start-other-order",
    "start-unknown-fields",
    "keys-64",
    "end-nil-fields",
    "dropped-empty",
    "bye-later",
    "child-nil",
    "child-later",
    "value-nil",
    "value-str-32",  # cut at 64 KiB
    "value-map-keys",  # keys become text
    "value-deepest",  # we stop at 8 containers
    "attrs-many",  # and at 1000 attributes
}


def value(shown):
    if isinstance(shown, list):
        return [value(v) for v in shown]
    if not isinstance(shown, dict):
        return shown
    if len(shown) == 1:
        ((key, inner),) = shown.items()
        if key == "$int":
            return int(inner)
        if key == "$float":
            return float(inner)
        if key == "$bin":
            return bytes.fromhex(inner)
        if key == "$map":
            return {value(k): value(v) for k, v in inner}
    return {key: value(inner) for key, inner in shown.items()}


def vectors():
    if not VECTORS.exists():
        return []
    all_ = json.loads(VECTORS.read_text())
    # A str of Python has no bytes that are not UTF-8, and its msgpack no ext types of its own.
    return [
        v
        for v in all_
        if v["from"] == "client"
        and v["shortest"]
        and not any(key in json.dumps(v["message"]) for key in ('"$text"', '"$ext"'))
    ]


def as_array(message):
    order = ("run_id", "unix_ns", "mono_ns", "name", "token", "fields")
    return [TYPES.index(message["type"]), *(value(message[key]) for key in order if key in message)]


@pytest.mark.parametrize("vector", vectors(), ids=lambda v: v["name"])
def test_packs_as_the_vectors(vector):
    assert _wire.pack(as_array(vector["message"])).hex() == vector["frame"]


def build(message):
    fields = value(message.get("fields", {}))
    if message["type"] == "flush":
        return _wire.flush(value(message["token"]))
    if message["type"] == "bye":
        return _wire.bye()
    if message["type"] == "dropped":
        return _wire.dropped(fields["count"], fields.get("reason"))
    if message["type"] == "hello":
        keys = ("service", "resource", "sdk", "pid")
        return _wire.hello(*(fields.get(key) for key in keys))
    if message["type"] == "child":
        return _wire.child(*(fields.get(key) for key in ("pid", "exit", "signal")))
    when = [value(message[key]) for key in ("run_id", "unix_ns", "mono_ns")]
    if message["type"] == "event":
        return _wire.event(*when, message["name"], fields)
    make = _wire.start if message["type"] == "start" else _wire.end
    backwards = dict(reversed(list(fields.items())))  # the order is the builder's own
    return make(*when, **backwards)


@pytest.mark.parametrize(
    "vector", [v for v in vectors() if v["name"] not in UNSAID], ids=lambda v: v["name"]
)
def test_builds_the_vectors(vector):
    assert build(vector["message"]).hex() == vector["frame"]


def test_there_are_vectors_to_test_against():
    if not VECTORS.parent.exists():
        pytest.skip("the package is tested outside of its repository")
    types = {v["message"]["type"] for v in vectors()}
    assert types == BUILT


@pytest.mark.parametrize("usage", [5, "many", [1], object()])
def test_a_usage_that_is_no_map_does_not_spoil_the_end(usage):
    fields = msgpack.unpackb(_wire.end(b"r" * 16, 1, 2, usage=usage, output="x")[4:])[4]
    assert fields["output"] == "x"
    assert not fields.get("usage")


def test_tags_are_a_list_of_texts():
    def tags(given):
        return msgpack.unpackb(_wire.start(b"r" * 16, 1, 2, tags=given)[4:])[4]["tags"]

    assert tags("one") == ["one"]
    assert tags(("a", 2)) == ["a", "2"]
    assert tags(7) == ["7"]


def test_no_more_attributes_than_the_collector_takes():
    many = {f"k{i}": i for i in range(5000)}
    for frame in (
        _wire.start(b"r" * 16, 1, 2, attrs=many),
        _wire.end(b"r" * 16, 1, 2, attrs=many),
        _wire.event(b"r" * 16, 1, 2, "e", many),
    ):
        fields = msgpack.unpackb(frame[4:])[-1]
        assert len(fields.get("attrs", fields)) == 1001


def test_a_parent_is_16_bytes_or_a_text():
    def parent(given):
        return msgpack.unpackb(_wire.start(b"r" * 16, 1, 2, parent=given)[4:])[4].get("parent")

    assert parent(uuid.UUID(int=7)) == bytes(15) + b"\x07"
    assert parent("run-1") == "run-1"
    assert parent("run-\ud800") == "run-?"
    for nonsense in (b"short", bytes(16), "", "x" * 1025, 5, object()):
        assert parent(nonsense) is None


def test_an_event_s_name_is_cut_at_a_character():
    name = msgpack.unpackb(_wire.event(b"r" * 16, 1, 2, "ü" * 1000, {})[4:])[4]
    assert name == "ü" * 512
    assert msgpack.unpackb(_wire.event(b"r" * 16, 1, 2, "", {})[4:])[4] == "event"
