"""A session of an agent with every kind of value, and what OTLP must say of it.

The expectation is written from docs/protocol.md and the semantic conventions, with the official
protobuf package: nothing here knows how the collector does it.
"""

from __future__ import annotations

import json
import math

from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from backends import decode

SECOND = 1_000_000_000
SAMPLED, HAS_IS_REMOTE, IS_REMOTE = 0x1, 0x100, 0x200
# Texts that hold JSON: what a value is stays the same, how it is written may differ.
JSON_TEXT = {
    "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.tool.call.arguments",
    "gen_ai.retrieval.documents", "sidelight.input", "sidelight.output",
}  # fmt: skip

EVERYTHING = {
    "text": "plain",
    "empty": "",
    "unicode": "Grüße, 世界 👋 é \u202e\u0000\u001f\"\\/\u2028",
    "yes": True,
    "no": False,
    "nil": None,
    "zero": 0,
    "minus": -1,
    "int8": -128,
    "int32": -(1 << 31),
    "int53": (1 << 53) + 1,
    "int64_most": (1 << 63) - 1,
    "int64_least": -(1 << 63),
    "uint64_most": (1 << 64) - 1,
    "float": 0.1,
    "float_tiny": 5e-324,
    "float_huge": 1.7976931348623157e308,
    "minus_zero": -0.0,
    "inf": math.inf,
    "minus_inf": -math.inf,
    "nan": math.nan,
    "bytes": bytes(range(256)),
    "no_bytes": b"",
    "one_byte": b"\x00",
    "array": [1, "two", 3.0, True, None, b"six", [], {}],
    "empty_array": [],
    "map": {"a": 1, "b": {"c": [2, {"d": "deep"}]}, "": "no key", "ü": "key"},
    "empty_map": {},
    "deep": [[[[[[[[["nine"]]]]]]]]],
    "long": "0123456789" * 5000,
    "many": list(range(300)),
    "key with spaces/and=signs\n": "kept",
    "k" * 200: "a long key",
}


def any_value(value) -> AnyValue:
    """A msgpack value as OTLP's."""
    out = AnyValue()
    if value is None:
        return out
    if isinstance(value, bool):
        out.bool_value = value
    elif isinstance(value, int):
        if value < 1 << 63:
            out.int_value = value
        else:
            out.double_value = float(value)
    elif isinstance(value, float):
        out.double_value = value
    elif isinstance(value, str):
        out.string_value = value
    elif isinstance(value, bytes):
        out.bytes_value = value
    elif isinstance(value, list):
        out.array_value.SetInParent()
        out.array_value.values.extend(any_value(one) for one in value)
    else:
        out.kvlist_value.SetInParent()
        for key, one in value.items():
            pair = out.kvlist_value.values.add(key=key)
            pair.value.CopyFrom(any_value(one))
    return out


def hash64(seed: int, data: bytes) -> int:
    mask = (1 << 64) - 1
    h = 14695981039346656037 ^ seed
    for byte in data:
        h = ((h ^ byte) * 1099511628211) & mask
    h ^= h >> 33
    h = h * 0xFF51AFD7ED558CCD & mask
    h ^= h >> 33
    h = h * 0xC4CEB9FE1A85EC53 & mask
    h ^= h >> 33
    return h or 1


def span_id(run_id: bytes) -> bytes:
    return hash64(0, run_id).to_bytes(8, "big")


def run_id_of(text: str) -> bytes:
    """Of a run id that is text, and no UUID."""
    data = text.encode()
    return hash64(1, data).to_bytes(8, "big") + hash64(2, data).to_bytes(8, "big")


OPERATIONS = {"agent": "invoke_agent", "llm": "chat", "tool": "execute_tool",
              "retriever": "retrieval", "embedding": "embeddings"}  # fmt: skip


class Session:
    """Sends a session to agents, and remembers what must come of it."""

    def __init__(self, base_ns: int):
        self.base = base_ns
        self.spans: dict[bytes, Span] = {}  # without content
        self.content: dict[bytes, dict[str, AnyValue]] = {}  # and with it
        self._number = 0
        self.roots: list[bytes] = []

    def _new_id(self) -> bytes:
        self._number += 1
        return bytes([self._number]) + self.base.to_bytes(15, "big")

    def run(self, agent, kind: str, name: str | None = None, *, parent=None, start=None, end=None,
            at: float = 0, lasts: float = 1, points=(), run_id=None, traceparent=None,
            expect=None, content=None, status=None, events=None) -> bytes:
        """One run, its start fields and end fields as the wire has them, and what `expect` adds to
        the attributes that are the same for all."""
        start, end = dict(start or {}), dict(end or {})
        sent_id = run_id or self._new_id()
        run_id = run_id_of(sent_id) if isinstance(sent_id, str) else sent_id
        begin_ns = self.base + int(at * SECOND)
        end_ns = begin_ns + int(lasts * SECOND)
        fields = {"kind": kind, **({"name": name} if name is not None else {}), **start}
        if parent:
            fields["parent"] = parent
        if traceparent:
            fields["traceparent"] = traceparent
        agent.send([1, sent_id, begin_ns, 0, fields])
        for seconds, event, attrs in points:
            agent.send([3, sent_id, begin_ns + int(seconds * SECOND), 0, event, attrs])
        agent.send([2, sent_id, end_ns, 0, end])
        self._expect(run_id, kind, name, parent, traceparent, begin_ns, end_ns, start, end, points,
                     expect or {}, content or {}, status, events or [])  # fmt: skip
        return run_id

    def _expect(self, run_id, kind, name, parent, traceparent, begin_ns, end_ns, start, end, points,
                more, content, status, events) -> None:
        span = Span(span_id=span_id(run_id), start_time_unix_nano=begin_ns, end_time_unix_nano=end_ns)
        span.flags = SAMPLED | HAS_IS_REMOTE
        if parent:
            above = self.spans[span_id(parent)]
            span.trace_id, span.parent_span_id = above.trace_id, above.span_id
        elif traceparent:
            _, trace, remote, _ = traceparent.split("-")
            span.trace_id, span.parent_span_id = bytes.fromhex(trace), bytes.fromhex(remote)
            span.flags |= IS_REMOTE
        else:
            span.trace_id = run_id
        if not parent:
            self.roots.append(run_id)
        operation = OPERATIONS.get(kind)
        about = start.get("model") if kind in ("llm", "embedding") else name
        if kind in ("llm", "embedding", "agent", "tool"):
            span.name = f"{operation} {about}" if about else operation
        else:
            known = kind if kind in (*OPERATIONS, "chain", "other") else "other"
            span.name = name or known
        span.kind = Span.SPAN_KIND_CLIENT if kind in ("llm", "embedding") else Span.SPAN_KIND_INTERNAL
        attributes = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": start.get("provider"),
            "gen_ai.request.model": start.get("model"),
            "gen_ai.conversation.id": start.get("session"),
            "gen_ai.tool.name": name if kind == "tool" else None,
            "gen_ai.agent.name": name if kind == "agent" else None,
            "user.id": start.get("user"),
            "gen_ai.response.model": end.get("model"),
        }
        attributes = {k: v for k, v in attributes.items() if v}
        for key, value in [*start.get("attrs", {}).items(), *end.get("attrs", {}).items(), *more.items()]:
            attributes.setdefault(key, value)
        for key, value in attributes.items():
            span.attributes.add(key=key).value.CopyFrom(any_value(value))
        for seconds, event, attrs in [*points, *events]:
            one = span.events.add(name=event, time_unix_nano=begin_ns + int(seconds * SECOND))
            for key, value in attrs.items():
                one.attributes.add(key=key).value.CopyFrom(any_value(value))
        if status is not None:
            span.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message=status))
        self.spans[span.span_id] = span
        self.content[span.span_id] = {k: any_value(v) for k, v in content.items()}

    def expected(self, content: bool) -> dict[bytes, Span]:
        spans = {}
        for key, span in self.spans.items():
            spans[key] = Span.FromString(span.SerializeToString())
            for name, value in self.content[key].items() if content else ():
                spans[key].attributes.add(key=name).value.CopyFrom(value)
        return spans


def _text(text: str) -> list:
    return [{"type": "text", "content": text}]


def play(session: Session, agent) -> None:
    """All kinds of runs, all kinds of values."""
    s, question = session, "What is the weather in Prestatyn? 🌦"
    root = s.run(
        agent, "agent", "helper", lasts=9,
        start={"session": "conversation-1", "user": "ann", "tags": ["a", "b", "ü"], "attrs": EVERYTHING,
               "input": [{"role": "user", "content": question}]},
        end={"output": [{"role": "assistant", "content": "Rain."}],
             "attrs": {"late": "yes", "text": "ignored: the start has it"}},
        expect={"sidelight.tags": ["a", "b", "ü"]},
        content={"gen_ai.input.messages": json.dumps([{"role": "user", "parts": _text(question)}]),
                 "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": _text("Rain.")}])},
    )  # fmt: skip
    chain = s.run(agent, "chain", "steps", parent=root, at=1, lasts=7,
                  start={"input": {"question": question, "n": [1, 2.5, None]}}, end={"output": "done"},
                  content={"sidelight.input": json.dumps({"question": question, "n": [1, 2.5, None]}),
                           "sidelight.output": "done"})  # fmt: skip
    call = {"id": "call_1", "name": "weather", "args": {"city": "Prestatyn"}}
    s.run(
        agent, "llm", "ChatOpenAI", parent=chain, at=1.5, lasts=2,
        points=[(0.25, "first_token", {}), (0.5, "retry", EVERYTHING), (0.75, "log", {"n": 1})],
        start={"provider": "openai", "model": "gpt-4o", "attrs": {"gen_ai.request.temperature": 0.2},
               "input": [{"type": "system", "content": "Be brief."}, {"type": "human", "content": question}]},
        end={"model": "gpt-4o-2024-11-20", "finish": ["tool_calls"],
             "output": {"role": "assistant", "content": "", "tool_calls": [call]},
             "usage": {"prompt_tokens": 812, "completion_tokens": 64, "total_tokens": 876,
                       "prompt_tokens_details": {"cached_tokens": 100},
                       "completion_tokens_details": {"reasoning_tokens": 16}}},
        expect={"gen_ai.response.finish_reasons": ["tool_calls"], "gen_ai.usage.input_tokens": 812,
                "gen_ai.usage.output_tokens": 64, "gen_ai.usage.cache_read.input_tokens": 100,
                "gen_ai.usage.reasoning.output_tokens": 16, "gen_ai.response.time_to_first_chunk": 0.25},
        content={"gen_ai.input.messages": json.dumps([{"role": "system", "parts": _text("Be brief.")},
                                                      {"role": "user", "parts": _text(question)}]),
                 "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": [
                     {"type": "tool_call", "id": "call_1", "name": "weather", "arguments": {"city": "Prestatyn"}}]}])},
    )  # fmt: skip
    s.run(agent, "llm", None, parent=chain, at=4, lasts=0.5,
          start={"provider": "anthropic", "model": "claude", "input": "Hi"},
          end={"finish": "end_turn", "output": "Hello", "usage": {"input_tokens": 5, "output_tokens": 2}},
          expect={"gen_ai.response.finish_reasons": ["end_turn"], "gen_ai.usage.input_tokens": 5,
                  "gen_ai.usage.output_tokens": 2},
          content={"gen_ai.input.messages": json.dumps([{"role": "user", "parts": _text("Hi")}]),
                   "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": _text("Hello")}])})  # fmt: skip
    s.run(agent, "tool", "weather", parent=chain, at=5, lasts=0.000000001,
          start={"input": {"city": "Prestatyn", "days": 3}}, end={"output": "rain\nall day"},
          content={"gen_ai.tool.call.arguments": json.dumps({"city": "Prestatyn", "days": 3}),
                   "gen_ai.tool.call.result": "rain\nall day"})  # fmt: skip
    error = {"type": "ValueError", "message": "no such city: Ærø", "stack": "Traceback…\n  line 1"}
    s.run(agent, "tool", "search", parent=chain, at=5.5, lasts=0.25, end={"error": error},
          expect={"error.type": "ValueError"}, status=error["message"],
          events=[(0.25, "exception", {"exception.type": "ValueError", "exception.message": error["message"],
                                       "exception.stacktrace": error["stack"]})])  # fmt: skip
    s.run(agent, "tool", "bare", parent=chain, at=5.6, lasts=0.1, end={"error": {}},
          expect={"error.type": "_OTHER"}, status="")  # fmt: skip
    s.run(agent, "chain", "stopped", parent=chain, at=5.7, lasts=0.1,
          end={"error": {"type": "asyncio.exceptions.CancelledError", "message": "away"}},
          expect={"sidelight.status": "cancelled",
                  "sidelight.cancelled_by": "asyncio.exceptions.CancelledError"})  # fmt: skip
    documents = [{"page_content": "Prestatyn is in Wales.", "metadata": {"score": 0.9}}]
    s.run(agent, "retriever", "docs", parent=chain, at=6, lasts=0.5, start={"input": "Prestatyn"},
          end={"output": documents},
          content={"gen_ai.retrieval.query.text": "Prestatyn", "gen_ai.retrieval.documents": json.dumps(documents)})  # fmt: skip
    s.run(agent, "embedding", "embed", parent=chain, at=6.5, lasts=0.5,
          start={"provider": "openai", "model": "text-embedding-3-small", "input": ["a", "b"]},
          end={"usage": {"prompt_tokens": 7, "total_tokens": 7}},
          expect={"gen_ai.usage.input_tokens": 7},
          content={"sidelight.input": json.dumps(["a", "b"])})  # fmt: skip
    s.run(agent, "guardrail", "check", parent=chain, at=7, lasts=0,
          expect={"sidelight.kind": "guardrail"})  # fmt: skip
    s.run(agent, "other", None, parent=root, at=7.5, lasts=0.1)
    s.run(agent, "tool", None, parent=root, at=7.6, lasts=0.1)
    s.run(agent, "agent", "remote", at=20, lasts=1, traceparent=f"00-{'ab' * 16}-{'cd' * 8}-01")
    s.run(agent, "agent", "名前 🙂", run_id=f"a run id that is text, {s.base}", at=30, lasts=1)


# --- what differs -----------------------------------------------------------------------------


def plain(value: AnyValue, key: str = ""):
    """A value that can be compared and shown: NaN equals itself, JSON text is what it says."""
    kind = value.WhichOneof("value")
    if kind == "double_value":
        return kind, repr(value.double_value)
    if kind == "array_value":
        return kind, [plain(one) for one in value.array_value.values]
    if kind == "kvlist_value":
        return kind, [(pair.key, plain(pair.value)) for pair in value.kvlist_value.values]
    if kind == "string_value" and key in JSON_TEXT:
        try:
            return kind, json.loads(value.string_value)
        except ValueError:
            return kind, value.string_value
    return kind, getattr(value, kind) if kind else None


def attributes_of(pairs) -> dict:
    found = {pair.key: plain(pair.value, pair.key) for pair in pairs}
    assert len(found) == len(pairs), "an attribute twice"
    return found


def fields_of(span: Span) -> dict:
    """Every field of a span, by its path."""
    fields = {
        name: getattr(span, name)
        for name in (
            "trace_id", "span_id", "parent_span_id", "trace_state", "name", "kind", "flags",
            "start_time_unix_nano", "end_time_unix_nano", "dropped_attributes_count",
            "dropped_events_count", "dropped_links_count",
        )
    }  # fmt: skip
    fields["status"] = (span.status.code, span.status.message)
    fields["links"] = list(span.links)
    for key, value in attributes_of(span.attributes).items():
        fields[f"attributes.{key}"] = value
    fields["events"] = [e.name for e in span.events]
    for number, event in enumerate(span.events):
        fields[f"events.{number}.time"] = event.time_unix_nano
        fields[f"events.{number}.dropped"] = event.dropped_attributes_count
        for key, value in attributes_of(event.attributes).items():
            fields[f"events.{number}.attributes.{key}"] = value
    return fields


def differences(expected: dict[bytes, Span], found: list[Span]) -> list[str]:
    """One line for each field that is not as it should be."""
    lines = []
    by_id = {span.span_id: span for span in found}
    if len(by_id) != len(found):
        lines.append("a span twice")
    for key in expected.keys() | by_id.keys():
        if key not in by_id or key not in expected:
            one = expected.get(key) or by_id[key]
            lines.append(f"{one.name}: {'missing' if key in expected else 'unexpected'}")
            continue
        want, have = fields_of(expected[key]), fields_of(by_id[key])
        for field in want.keys() | have.keys():
            if want.get(field) != have.get(field):
                lines.append(f"{expected[key].name}: {field}: {want.get(field)!r} became {have.get(field)!r}")
    return sorted(line[:400] for line in lines)


def resource_differences(expected: dict, groups) -> list[str]:
    """Of resource_spans, resource_logs or resource_metrics."""
    lines = []
    for group in groups:
        found = attributes_of(group.resource.attributes)
        want = {key: plain(any_value(value)) for key, value in expected.items()}
        for key in want.keys() | found.keys():
            if want.get(key) != found.get(key):
                lines.append(f"resource: {key}: {want.get(key)!r} became {found.get(key)!r}")
    return lines


def spans_in(requests) -> list[Span]:
    return [span for request in requests for span in decode.items("traces", request.message)]
