#!/usr/bin/env python3
"""Writes good.json and bad.json, the protocol's vectors: python3 make.py.

With a directory as argument it writes their bodies there instead, to seed a fuzzer.

It packs by hand, so that it can also write what no packer would. The format of the two files
is described in README.md.
"""

import json
import os
import struct
import sys
import uuid

HERE = os.path.dirname(os.path.abspath(__file__))

UNIX = 1700000000123456789
MONO = 86400000000123
RUN = uuid.UUID("0192f5a1-7c3e-7b6d-9a41-5f0e8d2c4b10").bytes
PARENT = uuid.UUID("0192f5a1-7c3e-7b6d-9a41-000000000001").bytes
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
HELLO, START, END, POINT, FLUSH, FLUSHED, DROPPED, BYE, ERROR, CHILD = range(10)
NAMES = ["hello", "start", "end", "event", "flush", "flushed", "dropped", "bye", "error", "child"]


# ---- packing ----


class Raw(bytes):
    """Bytes that stand in a message as they are."""


class Text(bytes):
    """The bytes of a text, which need not be UTF-8."""


class Pairs(list):
    """A map as a list of pairs: for keys that are no strings, or that come twice."""


class Ext(tuple):
    """(type, data)"""


def head(n, fix, fix_max, sizes):
    if fix is not None and n <= fix_max:
        return bytes([fix | n])
    for first, form, top in sizes:
        if n <= top:
            return bytes([first]) + struct.pack(form, n)
    raise ValueError(n)


def sizes(*firsts):
    forms = {1: (">B", 0xFF), 2: (">H", 0xFFFF), 4: (">I", 0xFFFFFFFF)}
    return [(first, *forms[width]) for first, width in firsts]


def pack_int(n):
    if -32 <= n < 128:
        return struct.pack("b", n) if n < 0 else bytes([n])
    unsigned = [(0xCC, ">B", 8), (0xCD, ">H", 16), (0xCE, ">I", 32), (0xCF, ">Q", 64)]
    signed = [(0xD0, ">b", 8), (0xD1, ">h", 16), (0xD2, ">i", 32), (0xD3, ">q", 64)]
    for first, form, bits in unsigned if n >= 0 else signed:
        if n < 1 << bits if n >= 0 else n >= -(1 << (bits - 1)):
            return bytes([first]) + struct.pack(form, n)
    raise ValueError(n)


def pack_map(pairs):
    out = head(len(pairs), 0x80, 15, sizes((0xDE, 2), (0xDF, 4)))
    return out + b"".join(pack(k) + pack(v) for k, v in pairs)


def pack_ext(code, data):
    fixed = {1: 0xD4, 2: 0xD5, 4: 0xD6, 8: 0xD7, 16: 0xD8}
    if len(data) in fixed:
        return bytes([fixed[len(data)], code]) + data
    return head(len(data), None, 0, sizes((0xC7, 1), (0xC8, 2), (0xC9, 4))) + bytes([code]) + data


def pack(v):
    if isinstance(v, Raw):
        return bytes(v)
    if isinstance(v, Text):
        return head(len(v), 0xA0, 31, sizes((0xD9, 1), (0xDA, 2), (0xDB, 4))) + bytes(v)
    if isinstance(v, Pairs):
        return pack_map(v)
    if isinstance(v, Ext):
        return pack_ext(*v)
    if v is None:
        return b"\xc0"
    if isinstance(v, bool):
        return b"\xc3" if v else b"\xc2"
    if isinstance(v, int):
        return pack_int(v)
    if isinstance(v, float):
        return b"\xcb" + struct.pack(">d", v)
    if isinstance(v, str):
        return pack(Text(v.encode()))
    if isinstance(v, bytes):
        return head(len(v), None, 0, sizes((0xC4, 1), (0xC5, 2), (0xC6, 4))) + v
    if isinstance(v, list):
        return head(len(v), 0x90, 15, sizes((0xDC, 2), (0xDD, 4))) + b"".join(map(pack, v))
    return pack_map(list(v.items()))


def frame(body):
    return struct.pack(">I", len(body)) + body


# ---- showing a message as JSON ----


def show(v):
    if isinstance(v, Pairs):
        return {"$map": [[show(k), show(w)] for k, w in v]}
    if isinstance(v, Text):
        return {"$text": v.hex()}
    if isinstance(v, Ext):
        return {"$ext": [v[0], v[1].hex()]}
    if isinstance(v, bytes):
        return {"$bin": v.hex()}
    if isinstance(v, bool) or v is None or isinstance(v, str):
        return v
    if isinstance(v, int):
        return v if abs(v) < 1 << 53 else {"$int": str(v)}
    if isinstance(v, float):
        return {"$float": repr(v)}
    if isinstance(v, list):
        return [show(w) for w in v]
    return {k: show(w) for k, w in v.items()}


def hash64(seed, data):
    mask = (1 << 64) - 1
    h = 14695981039346656037 ^ seed
    for b in data:
        h = (h ^ b) * 1099511628211 & mask
    h ^= h >> 33
    h = h * 0xFF51AFD7ED558CCD & mask
    h ^= h >> 33
    h = h * 0xC4CEB9FE1A85EC53 & mask
    h ^= h >> 33
    return h or 1


def is_uuid(text):
    parts = text.split("-")
    digits = "0123456789abcdefABCDEF"
    return [len(p) for p in parts] == [8, 4, 4, 4, 12] and all(c in digits for p in parts for c in p)


def run_bytes(run):
    if isinstance(run, bytes):
        return run
    if is_uuid(run):
        return uuid.UUID(run).bytes
    return struct.pack(">QQ", hash64(1, run.encode()), hash64(2, run.encode()))


GOOD = []
BAD = []


def good(name, about, message, body=None):
    """message: the array's elements; body: its bytes, when they aren't the shortest."""
    kind = message[0]
    shown = {"type": NAMES[kind]}
    ids = {}
    if kind in (START, END, POINT):
        shown.update(run_id=show(message[1]), unix_ns=show(message[2]), mono_ns=show(message[3]))
        run = run_bytes(message[1])
        ids = {"run": run.hex(), "span": "%016x" % hash64(0, run)}
    if kind == POINT:
        shown["name"] = message[4]
    if kind in (FLUSH, FLUSHED):
        shown["token"] = show(message[1])
    else:
        shown["fields"] = show(message[-1])
    if kind == START and message[-1].get("parent") is not None:
        ids["parent"] = run_bytes(message[-1]["parent"]).hex()
    vector = {
        "name": name,
        "about": about,
        "from": "collector" if kind in (FLUSHED, ERROR) else "client",
        "shortest": body is None,
        "frame": frame(pack(message) if body is None else body).hex(),
        "message": shown,
    }
    if ids:
        vector["ids"] = ids
    GOOD.append(vector)


def bad(name, reason, body, **more):
    """body: the array's elements, or bytes."""
    data = body if isinstance(body, bytes) else pack(body)
    BAD.append({"name": name, "reason": reason, **more, "frame": frame(data).hex()})


def bad_prefix(name, reason, data, **more):
    BAD.append({"name": name, "reason": reason, "prefix": True, **more, "frame": data.hex()})


# ---- good ----


def good_hello():
    good("hello-empty", "a hello needs nothing", [HELLO, {}])
    good("hello", "what a client says first", [HELLO, {
        "v": 1, "service": "chat-api",
        "resource": {"deployment.environment.name": "prod", "service.version": "1.4.2", "shard": 3},
        "sdk": "python/0.1.0", "pid": 4711}])
    good("hello-owner", "the runs end with a process above this one",
         [HELLO, {"v": 1, "service": "backup.sh", "sdk": "c/0.1.0", "owner": 4700, "pid": 4711}])
    good("hello-service", "the least that the C client says",
         [HELLO, {"v": 1, "service": "chat-api", "sdk": "c/0.1.0", "pid": 4711}])


def good_start():
    good("start-empty", "no field is required", [START, RUN, UNIX, MONO, {}])
    good("start-full", "every field", [START, RUN, UNIX, MONO, {
        "kind": "llm", "name": "ChatOpenAI", "parent": PARENT, "traceparent": TRACEPARENT,
        "session": "conv-8841", "user": "u-17", "model": "gpt-4o-mini", "provider": "openai",
        "input": [{"role": "system", "content": "You are helpful."},
                  {"role": "user", "content": "Wie wird das Wetter in Köln? ☀️"}],
        "tags": ["prod", "eu"],
        "attrs": {"gen_ai.request.temperature": 0.7, "app.route": "/chat", "app.retries": 2}}])
    good("start-text", "the input is text", [START, RUN, UNIX, MONO, {
        "kind": "tool", "name": "search", "parent": PARENT, "input": "weather Köln"}])
    good("run-id-uuid", "a UUID as text is its 16 bytes",
         [START, "0192f5a1-7c3e-7b6d-9a41-5f0e8d2c4b10", UNIX, MONO, {"kind": "agent"}])
    good("run-id-uuid-upper", "in upper case too",
         [START, "0192F5A1-7C3E-7B6D-9A41-5F0E8D2C4B10", UNIX, MONO, {}])
    good("run-id-text", "any other text is hashed", [START, "run-42", UNIX, MONO, {}])
    good("run-id-text-utf8", "as the bytes of its UTF-8", [START, "Lauf-ü-日本", UNIX, MONO, {}])
    good("run-id-text-one", "one byte is enough", [START, "x", UNIX, MONO, {}])
    good("run-id-text-longest", "1024 bytes are the most", [START, "r" * 1024, UNIX, MONO, {}])
    good("run-id-no-uuid", "a UUID without its dashes is text like any other",
         [START, "0192f5a17c3e7b6d9a415f0e8d2c4b10", UNIX, MONO, {}])
    good("run-id-almost-uuid", "a dash in the wrong place: text",
         [START, "0192f5a17-c3e-7b6d-9a41-5f0e8d2c4b10", UNIX, MONO, {}])
    good("parent-text", "a parent as text", [START, RUN, UNIX, MONO, {"parent": "run-42"}])
    good("parent-and-traceparent", "both: the parent wins",
         [START, RUN, UNIX, MONO, {"parent": PARENT, "traceparent": TRACEPARENT}])
    good("start-gather", "other roots of its trace are part of its request",
         [START, RUN, UNIX, MONO, {"kind": "agent", "name": "agent.py", "gather": True}])
    good("traceparent-malformed", "is ignored and counted, not refused",
         [START, RUN, UNIX, MONO, {"traceparent": "00-zz-yy-01"}])
    good("kind-unknown", "the word is kept", [START, RUN, UNIX, MONO, {"kind": "reranker"}])
    for kind in ("agent", "chain", "llm", "tool", "retriever", "embedding", "other"):
        good("kind-" + kind, "a known kind", [START, RUN, UNIX, MONO, {"kind": kind}])
    good("start-nil-fields", "nil is absent", [START, RUN, UNIX, MONO, {
        "kind": None, "name": "x", "parent": None, "input": None, "tags": None, "attrs": None}])
    good("start-empty-texts", "an empty text is not absent",
         [START, RUN, UNIX, MONO, {"name": "", "session": "", "input": "", "tags": [], "attrs": {}}])
    good("start-unknown-fields", "are ignored and counted", [START, RUN, UNIX, MONO, {
        "name": "x", "colour": "blue", "nested": {"deep": [1, 2]}, "": 0}])
    good("start-other-order", "fields come in any order", [START, RUN, UNIX, MONO, {
        "input": "hi", "name": "a", "attrs": {"b": 1}, "kind": "chain"}])
    good("times-least", "zero is a time", [START, RUN, 0, 0, {}])
    good("times-most", "2^63-1 is one too", [START, RUN, (1 << 63) - 1, (1 << 63) - 1, {}])


def good_end():
    good("end-empty", "no field is required", [END, RUN, UNIX + 1500000000, MONO + 1500000000, {}])
    good("end-full", "every field", [END, RUN, UNIX + 1500000000, MONO + 1500000000, {
        "output": {"messages": [{"role": "assistant", "content": "Sonnig, 21 °C.",
                                 "tool_calls": [{"id": "c1", "name": "weather",
                                                 "args": {"city": "Köln"}}]}]},
        "usage": {"prompt_tokens": 123, "completion_tokens": 45,
                  "prompt_tokens_details": {"cached_tokens": 100}, "total_tokens": 168},
        "model": "gpt-4o-mini-2024-07-18", "finish": "stop",
        "attrs": {"gen_ai.response.id": "chatcmpl-1"}}])
    good("end-usage-estimated", "tokens that the client estimated, for a stream that broke off",
         [END, RUN, UNIX, MONO, {"usage": {"output_tokens": 37, "sidelight.estimated": True}}])
    good("end-input", "what went in, known only now", [END, RUN, UNIX, MONO, {
        "input": [{"role": "user", "content": "Wetter in Wien?"}], "output": "sonnig"}])
    good("end-error", "a failure", [END, "run-42", UNIX, MONO, {
        "error": {"type": "openai.RateLimitError", "message": "429: too many requests",
                  "stack": "Traceback (most recent call last):\n  File \"a.py\", line 3"}}])
    good("end-cancelled", "is an error of a certain type",
         [END, RUN, UNIX, MONO, {"error": {"type": "asyncio.exceptions.CancelledError"}}])
    good("end-error-empty", "an error's presence is enough", [END, RUN, UNIX, MONO, {"error": {}}])
    good("end-finish-list", "one reason for each choice",
         [END, RUN, UNIX, MONO, {"finish": ["stop", "length"]}])


def good_values():
    values = {
        "nil": None, "true": True, "false": False,
        "int-fix": 127, "int-fix-negative": -32, "int-8": 200, "int-8-negative": -33,
        "int-16": 60000, "int-16-negative": -30000, "int-32": 4000000000,
        "int-32-negative": -2000000000, "int-64": 1 << 62, "int-64-negative": -(1 << 63),
        "uint-64": (1 << 64) - 1, "float": 0.1, "float-whole": 3.0, "float-negative": -1e300,
        "float-inf": float("inf"), "float-nan": float("nan"),
        "str-empty": "", "str-fix": "a" * 31, "str-8": "b" * 32, "str-16": "c" * 256,
        "str-utf8": "é 日本 😀", "bin": b"\x00\xff\x80", "bin-empty": b"", "bin-16": b"\x01" * 300,
        "array-empty": [], "array": [1, "two", None, [3.5]], "array-16": list(range(16)),
        "map-empty": {}, "map": {"a": {"b": {"c": True}}},
        "map-16": {"k%d" % i: i for i in range(16)}, "map-keys": Pairs([(1, "one"), (None, 2)]),
        "ext": Ext((5, b"\x01\x02\x03")), "ext-fix": Ext((-1 & 0xFF, b"\x00\x00\x00\x01")),
    }
    for name, value in values.items():
        good("value-" + name, "as an input, and as an attribute",
             [START, RUN, UNIX, MONO, {"input": value, "attrs": {"v": value}}])
    good("value-str-32", "a text past 64 KiB", [END, RUN, UNIX, MONO, {"output": "x" * 65536}])
    good("value-bad-utf8", "bytes that are no UTF-8 are allowed in a value, and replaced",
         [START, RUN, UNIX, MONO, {"input": Text(b"\xff\xfe"), "attrs": {"v": Text(b"\xc3")}}])
    deep = 0
    for _ in range(13):
        deep = [deep]
    good("value-deepest", "16 containers in all",
         [START, RUN, UNIX, MONO, {"input": [deep], "attrs": {"v": deep}}])
    good("attrs-many", "as many as a map of attributes may have",
         [START, RUN, UNIX, MONO, {"attrs": {"key.%04d" % i: i for i in range(1024)}}])
    good("keys-64", "as many as a message may have",
         [START, RUN, UNIX, MONO, {"k%02d" % i: 0 for i in range(64)}])


def good_others():
    good("event", "something during a run",
         [POINT, RUN, UNIX + 5, MONO + 5, "first_token", {}])
    good("event-attrs", "with attributes",
         [POINT, "run-42", UNIX, MONO, "retry", {"attempt": 2, "delay": 0.5, "why": "429"}])
    good("event-name-longest", "1024 bytes are kept", [POINT, RUN, UNIX, MONO, "n" * 1024, {}])
    partial = "partial_output"
    good("partial", "what an answer has said since the last one",
         [POINT, RUN, UNIX, MONO, partial, {"text": "The weather in Par", "at": 0, "tokens": 5}])
    good("partial-utf8", "text beyond ASCII",
         [POINT, RUN, UNIX, MONO, partial, {"text": "is: é 日本 😀", "at": 18, "tokens": 12}])
    good("partial-tokens", "a tool's arguments are no text, but tokens",
         [POINT, RUN, UNIX, MONO, partial, {"tokens": (1 << 63) - 1}])
    good("partial-text", "tokens are not told", [POINT, RUN, UNIX, MONO, partial, {"text": ""}])
    good("partial-nil", "nil is absent",
         [POINT, RUN, UNIX, MONO, partial, {"text": None, "at": None, "tokens": None}])
    good("partial-later", "a later version may say more",
         [POINT, RUN, UNIX, MONO, partial, {"more": [1, {"a": 2}], "text": "x", "tokens": 0}])
    good("flush-zero", "a token", [FLUSH, 0])
    good("flush", "any integer that is not negative", [FLUSH, 77])
    good("flush-most", "2^63-1 is the most", [FLUSH, (1 << 63) - 1])
    good("flushed", "the answer", [FLUSHED, 77])
    good("dropped", "the client's own loss", [DROPPED, {"count": 12, "reason": "full"}])
    good("dropped-empty", "nothing said is nothing lost", [DROPPED, {}])
    good("bye", "leaving on purpose", [BYE, {}])
    good("bye-later", "a later version may say more", [BYE, {"why": "exit"}])
    good("child-watched", "a parent that will tell how it ends", [CHILD, {"pid": 4711}])
    good("child-exit", "it ended by itself", [CHILD, {"pid": 4711, "exit": 1}])
    good("child-exit-zero", "and well", [CHILD, {"pid": 1, "exit": 0}])
    good("child-exit-most", "255 is the most", [CHILD, {"pid": (1 << 31) - 1, "exit": 255}])
    good("child-signal", "it was ended", [CHILD, {"pid": 4711, "signal": 9}])
    good("child-signal-most", "127 is the most", [CHILD, {"pid": 4711, "signal": 127}])
    good("child-nil", "nil is absent", [CHILD, {"pid": 4711, "exit": None, "signal": None}])
    good("child-later", "a later version may say more",
         [CHILD, {"pid": 4711, "signal": 11, "core": True}])
    good("error", "from the collector",
         [ERROR, {"code": "bad_utf8", "message": "a text is not UTF-8", "frame": 3}])
    good("error-connections", "before any frame", [ERROR, {
        "code": "too_many_connections", "message": "1024 connections are open", "frame": 0}])


def good_longer_forms():
    run = b"\xc4\x10" + RUN
    times = b"\xcf" + struct.pack(">Q", 5) + b"\xcf" + struct.pack(">Q", 6)
    good("long-array", "array 32, map 32, str 32: longer than needed, and right all the same",
         [START, RUN, 5, 6, {"name": "x"}],
         b"\xdd\0\0\0\x05\xcc\x01\xc6\0\0\0\x10" + RUN + times +
         b"\xdf\0\0\0\x01\xdb\0\0\0\x04name\xda\0\x01x")
    good("long-ints", "signed forms of positive integers", [START, RUN, 5, 6, {}],
         b"\x95\xd0\x01" + run + b"\xd3" + struct.pack(">q", 5) + b"\xd1\0\x06\x80")
    good("float-32", "reads as the double it stands for", [START, RUN, 5, 6, {"input": 0.5}],
         b"\x95\x01" + run + b"\x05\x06\x81\xa5input\xca" + struct.pack(">f", 0.5))


# ---- bad ----


def start(fields, run=RUN, unix=UNIX, mono=MONO):
    return [START, run, unix, mono, fields]


def end(fields):
    return [END, RUN, UNIX, MONO, fields]


def bad_prefixes():
    bad_prefix("prefix-zero", "malformed", struct.pack(">I", 0))
    bad_prefix("prefix-over-max-frame", "too_long", struct.pack(">I", 4194305))
    bad_prefix("prefix-one-gib", "too_long", struct.pack(">I", 1 << 30))
    bad_prefix("prefix-over-one-gib", "too_long", struct.pack(">I", (1 << 30) + 1), closes=True)
    bad_prefix("prefix-all-ones", "too_long", b"\xff\xff\xff\xff", closes=True)
    bad_prefix("prefix-http", "too_long", b"GET ", closes=True)


def bad_heads():
    for name, first in (("nil", b"\xc0"), ("int", b"\x01"), ("str", b"\xa1x"), ("map", b"\x80"),
                        ("bin", b"\xc4\0"), ("float", b"\xca\0\0\0\0"), ("ext", b"\xd4\0\0")):
        bad("body-" + name, "wrong_type", first)
    bad("body-reserved", "malformed", b"\xc1")
    bad("body-json", "wrong_type", b'{"v":1}')
    bad("array-empty", "wrong_type", [])
    for name, kind in (("ten", 10), ("flushed", FLUSHED), ("error", ERROR), ("huge", (1 << 64) - 1),
                       ("negative", -1), ("text", "start"), ("nil", None), ("float", 1.0),
                       ("array", [1])):
        bad("type-" + name, "unknown_type", [kind, {}])
    for name, message in (
            ("hello", [HELLO]), ("hello-long", [HELLO, {}, 1]), ("start", [START, RUN, 1, 1]),
            ("start-long", [START, RUN, 1, 1, {}, 0]), ("end", [END, RUN]),
            ("event", [POINT, RUN, 1, 1, "x"]), ("event-long", [POINT, RUN, 1, 1, "x", {}, {}]),
            ("flush", [FLUSH]), ("flush-long", [FLUSH, 1, 2]), ("dropped", [DROPPED]),
            ("bye", [BYE]), ("bye-long", [BYE, {}, {}]), ("child", [CHILD]),
            ("child-long", [CHILD, {"pid": 1}, {}])):
        bad("length-" + name, "wrong_type", message)


def bad_claims():
    four = b"\xff\xff\xff\xff"
    where = pack(start({}))[:-1]
    bad("claims-array", "malformed", b"\xdd" + four)
    bad("claims-array-in", "malformed", where + b"\x81\xa5input\xdd" + four)
    bad("claims-array-half", "malformed", where + b"\x81\xa5input\xdd\x80\0\0\0")
    bad("claims-map", "malformed", where + b"\xdf" + four)
    bad("claims-map-in", "malformed", where + b"\x81\xa5input\xdf" + four)
    bad("claims-map-half", "malformed", where + b"\x81\xa5input\xdf\x80\0\0\0")
    bad("claims-map-odd", "malformed", where + b"\x81\xa5input\x82\x01\x01\x01")
    bad("claims-str", "malformed", where + b"\x81\xa5input\xdb" + four + b"x")
    bad("claims-bin", "malformed", where + b"\x81\xa5input\xc6" + four + b"x")
    bad("claims-ext", "malformed", where + b"\x81\xa5input\xc9" + four + b"\x01x")
    bad("claims-ext-one-short", "malformed", where + b"\x81\xa5input\xc7\x02\x01x")
    bad("claims-fixext", "malformed", where + b"\x81\xa5input\xd8\x01x")
    bad("claims-key", "malformed", where + b"\x81\xdb" + four)
    bad("claims-attrs", "malformed", where + b"\x81\xa5attrs\xdf" + four)
    bad("claims-tags", "malformed", where + b"\x81\xa4tags\xdd" + four)
    bad("claims-usage", "malformed", pack(end({}))[:-1] + b"\x81\xa5usage\xdf" + four)
    bad("claims-run-id", "malformed", b"\x95\x01\xc6" + four)
    bad("claims-arrays-nested", "malformed", where + b"\x81\xa5input" + b"\xdd\x00\x00\x00\x09" * 9)
    bad("reserved-value", "malformed", where + b"\x81\xa5input\xc1")
    bad("reserved-key", "malformed", where + b"\x81\xc1\x01")
    bad("reserved-nested", "malformed", where + b"\x81\xa5attrs\x81\xa1v\x91\xc1")
    bad("cut-int", "malformed", b"\x92\x04\xcf\0\0\0")
    bad("cut-float", "malformed", where + b"\x81\xa5input\xcb\0\0\0")
    bad("cut-after-key", "malformed", where + b"\x81\xa5input")


def bad_trailing():
    bad("trailing-nil", "trailing_bytes", pack([FLUSH, 1]) + b"\xc0")
    bad("trailing-zero", "trailing_bytes", pack(start({})) + b"\0")
    bad("trailing-message", "trailing_bytes", pack([BYE, {}]) + pack([BYE, {}]))
    bad("trailing-reserved", "trailing_bytes", pack([HELLO, {}]) + b"\xc1")


def nested(n, inner=0):
    for _ in range(n):
        inner = [inner]
    return inner


def bad_limits():
    bad("deep-input", "too_deep", start({"input": nested(15)}))
    bad("deep-input-empty", "too_deep", start({"input": nested(14, [])}))
    bad("deep-input-map", "too_deep", start({"input": nested(14, {})}))
    bad("deep-attr", "too_deep", start({"attrs": {"v": nested(14)}}))
    bad("deep-usage", "too_deep", end({"usage": {"v": nested(14)}}))
    bad("deep-usage-key", "too_deep", end({"usage": Pairs([(nested(14), 1)])}))
    bad("deep-unknown", "too_deep", start({"colour": nested(15)}))
    bad("deep-event", "too_deep", [POINT, RUN, 1, 1, "x", {"v": nested(15)}])
    bad("deep-resource", "too_deep", [HELLO, {"resource": {"v": nested(14)}}])
    bad("deep-thousands", "too_deep", pack(start({}))[:-1] + b"\x81\xa5input" + b"\x91" * 5000 + b"\0")
    many = {"k%d" % i: 0 for i in range(65)}
    bad("keys-start", "too_many_keys", start(many))
    bad("keys-end", "too_many_keys", end(many))
    bad("keys-hello", "too_many_keys", [HELLO, many])
    bad("keys-event", "too_many_keys", [POINT, RUN, 1, 1, "x", many])
    bad("keys-bye", "too_many_keys", [BYE, many])
    bad("keys-child", "too_many_keys", [CHILD, many])
    bad("keys-error", "too_many_keys", end({"error": many}))
    bad("keys-attrs", "too_many_keys", start({"attrs": {"k%d" % i: 0 for i in range(1025)}}))


def bad_types():
    wrong = {
        "hello": (lambda f: [HELLO, f],
                  {"v": "1", "service": 5, "resource": [1], "sdk": {}, "pid": "4711"}),
        "start": (start, {
            "kind": 1, "name": ["x"], "parent": 7, "traceparent": b"00", "session": 12, "user": 1.5,
            "model": True, "provider": {}, "tags": "prod", "attrs": []}),
        "end": (end, {"usage": 12, "model": 1, "finish": 0, "error": "failed", "attrs": "x"}),
        "dropped": (lambda f: [DROPPED, f], {"count": "3", "reason": 4}),
        "child": (lambda f: [CHILD, {"pid": 4711, **f}],
                  {"pid": "4711", "exit": "1", "signal": 9.0}),
    }
    for name, (message, fields) in wrong.items():
        for key, value in fields.items():
            bad(f"wrong-{name}-{key}", "wrong_type", message({key: value}))
    bad("wrong-hello-version-float", "wrong_type", [HELLO, {"v": 1.0}])
    bad("wrong-hello-pid-past", "wrong_type", [HELLO, {"pid": 1 << 63}])
    bad("wrong-hello-owner", "wrong_type", [HELLO, {"owner": -1}])
    bad("wrong-start-gather", "wrong_type", [START, RUN, 1, 1, {"gather": 1}])
    bad("wrong-tags-element", "wrong_type", start({"tags": ["a", 1]}))
    bad("wrong-tags-nested", "wrong_type", start({"tags": [["a"]]}))
    bad("wrong-finish-element", "wrong_type", end({"finish": ["stop", None]}))
    for key in ("type", "message", "stack"):
        bad("wrong-error-" + key, "wrong_type", end({"error": {key: 1}}))
    bad("wrong-dropped-negative", "wrong_type", [DROPPED, {"count": -1}])
    bad("wrong-dropped-past", "wrong_type", [DROPPED, {"count": 1 << 63}])
    for name, fields in (
            ("no-pid", {}), ("pid-nil", {"pid": None}), ("pid-zero", {"pid": 0}),
            ("pid-negative", {"pid": -5}), ("pid-past", {"pid": 1 << 31}),
            ("exit-past", {"pid": 1, "exit": 256}), ("exit-negative", {"pid": 1, "exit": -9}),
            ("signal-zero", {"pid": 1, "signal": 0}), ("signal-past", {"pid": 1, "signal": 128}),
            ("both", {"pid": 1, "exit": 1, "signal": 9})):
        bad("wrong-child-" + name, "wrong_type", [CHILD, fields])
    bad("wrong-map-nil", "wrong_type", start(None))
    bad("wrong-map-array", "wrong_type", start([]))
    bad("wrong-bye-nil", "wrong_type", [BYE, None])
    bad("wrong-key-int", "wrong_type", start(Pairs([(1, 2)])))
    bad("wrong-key-bin", "wrong_type", start(Pairs([(b"name", "x")])))
    bad("wrong-attr-key", "wrong_type", start({"attrs": Pairs([(1, 2)])}))
    bad("wrong-resource-key", "wrong_type", [HELLO, {"resource": Pairs([(None, 2)])}])
    bad("wrong-error-key", "wrong_type", end({"error": Pairs([(True, "x")])}))
    bad("wrong-event-key", "wrong_type", [POINT, RUN, 1, 1, "x", Pairs([(b"k", 2)])])
    bad("wrong-event-map", "wrong_type", [POINT, RUN, 1, 1, "x", None])
    bad("wrong-event-name", "wrong_type", [POINT, RUN, 1, 1, 5, {}])
    bad("wrong-event-name-empty", "wrong_type", [POINT, RUN, 1, 1, "", {}])
    partial = [POINT, RUN, 1, 1, "partial_output"]
    bad("wrong-partial-text", "wrong_type", [*partial, {"text": ["x"], "tokens": 1}])
    bad("wrong-partial-text-bin", "wrong_type", [*partial, {"text": b"x"}])
    bad("wrong-partial-tokens", "wrong_type", [*partial, {"text": "x", "tokens": "1"}])
    bad("wrong-partial-tokens-negative", "wrong_type", [*partial, {"tokens": -1}])
    bad("wrong-partial-at", "wrong_type", [*partial, {"text": "x", "at": 1.0}])
    bad("wrong-partial-tokens-past", "wrong_type", [*partial, {"tokens": 1 << 63}])
    for name, token in (("text", "7"), ("negative", -1), ("past", 1 << 63), ("float", 7.0),
                        ("nil", None)):
        bad("wrong-token-" + name, "wrong_type", [FLUSH, token])
    bad("wrong-unix-float", "wrong_type", start({}, unix=1.7e9))
    bad("wrong-unix-nil", "wrong_type", start({}, unix=None))
    bad("wrong-mono-text", "wrong_type", start({}, mono="0"))


def bad_ids_and_times():
    ids = {
        "empty-text": "", "text-too-long": "r" * 1025, "zero": b"\0" * 16, "bin-empty": b"",
        "bin-short": b"\1" * 15, "bin-long": b"\1" * 17,
        "zero-uuid": "00000000-0000-0000-0000-000000000000",
    }
    for name, run in ids.items():
        bad("run-id-" + name, "bad_run_id", start({}, run=run))
        bad("parent-" + name, "bad_run_id", start({"parent": run}))
    for name, run in (("int", 5), ("nil", None), ("array", list(RUN)), ("ext", Ext((1, RUN)))):
        bad("run-id-" + name, "wrong_type", start({}, run=run))
    for name, time in (("negative", -1), ("past", 1 << 63), ("most-negative", -(1 << 63))):
        bad("unix-" + name, "bad_time", start({}, unix=time))
        bad("mono-" + name, "bad_time", start({}, mono=time))
    bad("end-time-negative", "bad_time", [END, RUN, -5, 1, {}])
    bad("event-time-negative", "bad_time", [POINT, RUN, 5, -1, "x", {}])
    for name, version in (("zero", 0), ("two", 2), ("negative", -1), ("huge", (1 << 64) - 1)):
        bad("version-" + name, "bad_version", [HELLO, {"v": version}], closes=True)


def bad_text():
    forms = {
        "lone": b"\xff", "continuation": b"a\x80", "overlong": b"\xc0\x80",
        "surrogate": b"\xed\xa0\x80", "past": b"\xf4\x90\x80\x80", "cut": b"abc\xe2\x82",
        "late": b"0123456789abcdef\xc3",
    }
    for name, form in forms.items():
        bad("utf8-name-" + name, "bad_utf8", start({"name": Text(form)}))
    for key in ("kind", "traceparent", "session", "user", "model", "provider", "parent"):
        bad("utf8-" + key, "bad_utf8", start({key: Text(b"\xff")}))
    bad("utf8-tags", "bad_utf8", start({"tags": ["ok", Text(b"\xff")]}))
    bad("utf8-finish", "bad_utf8", end({"finish": Text(b"\xff")}))
    bad("utf8-finish-list", "bad_utf8", end({"finish": [Text(b"\xff")]}))
    for key in ("type", "message", "stack"):
        bad("utf8-error-" + key, "bad_utf8", end({"error": {key: Text(b"x\xfe")}}))
    bad("utf8-service", "bad_utf8", [HELLO, {"service": Text(b"\xff")}])
    bad("utf8-sdk", "bad_utf8", [HELLO, {"sdk": Text(b"\xff")}])
    bad("utf8-reason", "bad_utf8", [DROPPED, {"reason": Text(b"\xff")}])
    bad("utf8-run-id", "bad_utf8", start({}, run=Text(b"run-\xff")))
    bad("utf8-event-name", "bad_utf8", [POINT, RUN, 1, 1, Text(b"\xff"), {}])
    bad_key = Pairs([(Text(b"k\xff"), 1)])
    bad("utf8-key", "bad_utf8", start(bad_key))
    bad("utf8-key-attrs", "bad_utf8", start({"attrs": bad_key}))
    bad("utf8-key-resource", "bad_utf8", [HELLO, {"resource": bad_key}])
    bad("utf8-key-error", "bad_utf8", end({"error": bad_key}))
    bad("utf8-partial-text", "bad_utf8",
        [POINT, RUN, 1, 1, "partial_output", {"text": Text(b"x\xc3")}])
    bad("utf8-key-event", "bad_utf8", [POINT, RUN, 1, 1, "x", bad_key])


def bad_duplicates():
    twice = Pairs([("k", 1), ("j", 2), ("k", 3)])
    bad("twice-known", "duplicate_key", start(Pairs([("name", "a"), ("name", "b")])))
    bad("twice-known-nil", "duplicate_key", start(Pairs([("name", None), ("name", "b")])))
    bad("twice-known-apart", "duplicate_key",
        start(Pairs([("kind", "llm"), ("name", "b"), ("model", "m"), ("kind", "llm")])))
    bad("twice-unknown", "duplicate_key", start(twice))
    bad("twice-long-form", "duplicate_key",
        start(Pairs([("name", "a"), (Raw(b"\xd9\x04name"), "b")])))
    bad("twice-end", "duplicate_key", end(Pairs([("output", 1), ("output", 1)])))
    bad("twice-hello", "duplicate_key", [HELLO, Pairs([("v", 1), ("v", 1)])])
    bad("twice-dropped", "duplicate_key", [DROPPED, Pairs([("count", 1), ("count", 1)])])
    bad("twice-child", "duplicate_key", [CHILD, Pairs([("pid", 1), ("pid", 1)])])
    bad("twice-bye", "duplicate_key", [BYE, twice])
    bad("twice-attrs", "duplicate_key", start({"attrs": twice}))
    bad("twice-attrs-empty", "duplicate_key", start({"attrs": Pairs([("", 1), ("", 2)])}))
    bad("twice-end-attrs", "duplicate_key", end({"attrs": twice}))
    bad("twice-attrs-many", "duplicate_key", start(
        {"attrs": Pairs([("key.%04d" % i, i) for i in range(1023)] + [("key.0000", 0)])}))
    bad("twice-resource", "duplicate_key", [HELLO, {"resource": twice}])
    bad("twice-error", "duplicate_key", end({"error": Pairs([("type", "a"), ("type", "b")])}))
    bad("twice-error-unknown", "duplicate_key", end({"error": twice}))
    bad("twice-partial", "duplicate_key",
        [POINT, RUN, 1, 1, "partial_output", Pairs([("text", "a"), ("text", "b")])])
    bad("twice-event", "duplicate_key", [POINT, RUN, 1, 1, "x", twice])


def bad_several():
    """Several faults: the one that stands first in the bytes is told."""
    bad("first-type-then-cut", "unknown_type", b"\x92\x0a\xc1", several=True)
    bad("first-length-then-id", "wrong_type", [START, b"", -1, {}], several=True)
    bad("first-id-then-time", "bad_run_id", [START, b"", -1, -1, {}], several=True)
    bad("first-time-then-map", "bad_time", [START, RUN, -1, 1, []], several=True)
    bad("first-claim-then-keys", "malformed",
        pack(start({}))[:-1] + b"\xde\x00\x41", several=True)
    bad("first-keys-then-twice", "too_many_keys",
        start(Pairs([("k", 0)] * 65)), several=True)
    bad("first-key-then-value", "duplicate_key",
        start(Pairs([("name", "x"), ("name", 5)])), several=True)
    bad("first-field-then-trailing", "wrong_type", pack(start({"name": 5})) + b"\0", several=True)
    bad("first-field-then-cut", "bad_utf8",
        pack(start({}))[:-1] + b"\x82\xa4name\xa1\xff\xa5in", several=True)
    bad("first-partial-then-key", "wrong_type",
        [POINT, RUN, 1, 1, "partial_output", Pairs([("text", 5), (Text(b"\xff"), 1)])], several=True)
    bad("first-version-then-service", "bad_version", [HELLO, {"v": 2, "service": 5}],
        several=True, closes=True)


def write(name, vectors):
    names = [v["name"] for v in vectors]
    assert len(set(names)) == len(names), [n for n in names if names.count(n) > 1]
    with open(os.path.join(HERE, name), "w", encoding="utf-8") as f:
        lines = (json.dumps(v, ensure_ascii=False) for v in vectors)
        f.write("[\n" + ",\n".join(lines) + "\n]\n")


def write_bodies(directory):
    for vector in GOOD + BAD:
        with open(os.path.join(directory, vector["name"]), "wb") as f:
            f.write(bytes.fromhex(vector["frame"])[4:])


def main():
    for section in (good_hello, good_start, good_end, good_values, good_others, good_longer_forms,
                    bad_prefixes, bad_heads, bad_claims, bad_trailing, bad_limits, bad_types,
                    bad_ids_and_times, bad_text, bad_duplicates, bad_several):
        section()
    if len(sys.argv) > 1:
        write_bodies(sys.argv[1])
    else:
        write("good.json", GOOD)
        write("bad.json", BAD)


if __name__ == "__main__":
    main()
