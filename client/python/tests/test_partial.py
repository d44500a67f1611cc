"""What an answer that takes long has said is told meanwhile, now and then."""

import pytest

import sidelight
from sidelight import _calls, _decorators, _streams
from sidelight.anthropic_client import _Messages
from sidelight.openai_client import _Chat, _Completions, _Responses


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

    for module in (_streams, _calls, _decorators):
        monkeypatch.setattr(module, "monotonic", lambda: Clock.now)
    return Clock


@pytest.fixture
def told(collector):
    """What was told of one run's answer: the events' attributes."""

    def told():
        assert sidelight.flush(5)
        return [m[5] for m in collector.messages if m != "EOF" and m[0] == 3 and m[4] == "partial_output"]

    return told


def test_the_first_after_100_ms_then_half_as_often_each_time_up_to_one_a_second(told, clock):
    stream = _streams.begin(b"r" * 16, None)
    times = []
    for i in range(600):  # ten of them a second
        before = len(stream._news.pieces)
        stream.add("abcd")
        if len(stream._news.pieces) <= before:
            times.append(i)
        clock.now += 0.1 + 1e-9
    assert times[:6] == [1, 3, 7, 15, 25, 35] and times[-1] >= 590
    events = told()
    assert len(events) == len(times)
    assert "".join(e["text"] for e in events) == "abcd" * (times[-1] + 1)
    assert [e["tokens"] for e in events] == [i + 1 for i in times]
    assert [e["at"] for e in events] == [0] + [4 * (i + 1) for i in times[:-1]]


def test_a_short_answer_is_not_told(told, clock):
    stream = _streams.begin(b"r" * 16, None)
    for _ in range(1000):
        stream.add("word ")
        clock.now += 0.00009
    assert told() == []


def test_tokens_without_text_and_text_beyond_ascii(told, clock):
    stream = _streams.begin(b"r" * 16, None)
    clock.now += 1
    stream.count(41)
    clock.now += 1
    stream.add("é日")
    clock.now += 1
    stream.add("x\ud800")
    clock.now += 1
    stream.add("y")
    first, *rest = told()
    assert first == {"tokens": 11}
    assert [(e["text"], e["at"]) for e in rest] == [("é日", 0), ("x?", 5), ("y", 7)]


def test_what_is_past_the_limit_is_told_but_not_kept(told, clock):
    stream = _streams.begin(b"r" * 16, None)
    for _ in range(50):
        stream.add("x" * 10_000)
        clock.now += 2
    assert sum(len(e["text"]) for e in told()) == 500_000
    assert not stream._news.pieces


def test_a_forgotten_stream_keeps_no_news(clock):
    stream = _streams.begin(b"r" * 16, None)
    stream.add("x")
    stream.forget()
    assert stream._news.pieces == []
    _streams.end(b"r" * 16)


def test_what_a_forgotten_stream_goes_on_to_say_leaves_a_hole_that_shows(told, clock):
    stream = _streams.begin(b"r" * 16, None)
    stream.add("é lost")
    stream.forget()
    clock.now += 1
    stream.add("told")
    assert [(e["text"], e["at"]) for e in told()] == [("told", 7)]


def test_what_comes_faster_than_it_is_told_is_bounded(told, clock):
    news = _streams.News()
    for _ in range(100_000):
        news.add("x" * 100, 100)
    assert sum(map(len, news.pieces)) == _streams.MAX_ANSWER + 64  # the last one is whole
    news.tell(b"r" * 16)
    news.add("y", 1)
    news.tell(b"r" * 16)
    assert [e["at"] for e in told()] == [0, 10_000_000]


def chat(text, index=0, calls=()):
    delta = {"content": text, "tool_calls": list(calls)}
    return {"id": "1", "model": "m", "choices": [{"index": index, "delta": delta}]}


def delta_of(index, kind, field, text):
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, field: text}}


CALL = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
STREAMS = {
    "chat": (_Chat, [chat("one "), chat("other", 1), chat("two"), chat("", calls=[CALL])]),
    "completions": (_Completions, [{"choices": [{"index": 0, "text": t}]} for t in ("one ", "two", "", "")]),
    "responses": (
        _Responses,
        [
            {"type": "response.output_text.delta", "output_index": 0, "delta": "one "},
            {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": "{}"},
            {"type": "response.output_text.delta", "output_index": 0, "delta": "two"},
        ],
    ),
    "messages": (
        _Messages,
        [
            delta_of(0, "thinking_delta", "thinking", "hm"),
            delta_of(1, "text_delta", "text", "one "),
            delta_of(1, "text_delta", "text", "two"),
            delta_of(2, "input_json_delta", "partial_json", "{}"),
        ],
    ),
}


@pytest.mark.parametrize("kind", STREAMS)
def test_a_wrapped_client_tells_the_text_alone(told, clock, kind):
    api, chunks = STREAMS[kind]
    call = _calls.Call(api(), None)
    clock.now += 60  # until the first chunk: that doesn't count
    for chunk in chunks:
        call.chunk(chunk)
        clock.now += 2
    call.end()
    events = told()
    assert "".join(e.get("text", "") for e in events) == "one two"
    counted = [n + 1 for n, chunk in enumerate(chunks) if kind != "completions" or n < 2]
    assert [e["tokens"] for e in events] == counted[1:]


def test_a_piece_that_is_no_text_spoils_only_itself(told, clock):
    call = _calls.Call(_Chat(), None)
    call.chunk(chat("one "))
    call.chunk(chat([{"type": "thinking"}]))  # as some servers that only resemble OpenAI's do
    clock.now += 2
    call.chunk(chat("two"))
    assert [e["text"] for e in told()] == ["one two"]


def test_a_generator_that_is_a_model(told, clock):
    @sidelight.llm
    def answer():
        for piece in ("one ", 2, "three ", "four"):
            yield piece
            clock.now += 0.06

    assert len(list(answer())) == 4
    assert told() == [{"text": "one three ", "at": 0}]


@pytest.mark.parametrize("decorate", [sidelight.tool, sidelight.llm(output=False)])
def test_a_generator_that_is_none_or_is_not_to_be_told(told, clock, decorate):
    @decorate
    def items():
        for _ in range(5):
            yield "text"
            clock.now += 5

    list(items())
    assert told() == []
