"""What a person can read of a request afterwards: the API, the dump, and what must not be there."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid

import pytest

from conftest import assert_ledger, clean_environment, eventually

MS = 1_000_000


@pytest.fixture
def dump(tmp_path):
    """dump(*options) is what the tool prints, parsed."""
    tool = os.environ.get("SIDELIGHT")
    if not tool:
        pytest.skip("SIDELIGHT does not name the command-line tool")

    def run(*options: str) -> list[dict]:
        env = {**clean_environment(), "SIDELIGHT_SOCKET": str(tmp_path / "s.sock")}
        env["SIDELIGHT_DATA"] = str(tmp_path / "data")
        done = subprocess.run([tool, "dump", *options], env=env, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def a_request(agent, at: int, **root) -> bytes:
    """An agent that calls a model twice and two tools, of which one fails."""
    ids = [uuid.uuid4().bytes for _ in range(5)]
    messages = [{"role": "user", "content": "rain in Oslo?"}]
    agent.start(ids[0], at, kind="agent", name="helper", input={"messages": messages}, **root)
    model = {"kind": "llm", "name": "ChatX", "model": "gpt-4o", "provider": "openai", "parent": ids[0]}
    agent.start(ids[1], at + 1 * MS, **model, input=messages)
    usage = {"prompt_tokens": 1034, "completion_tokens": 118, "total_tokens": 1152}
    usage["prompt_tokens_details"] = {"cached_tokens": 768}
    usage["completion_tokens_details"] = {"reasoning_tokens": 32}
    agent.end(ids[1], at + 101 * MS, usage=usage, finish="tool_calls", model="gpt-4o-2026")
    agent.start(ids[2], at + 110 * MS, kind="tool", name="weather", parent=ids[0], input={"city": "Oslo"})
    agent.start(ids[3], at + 120 * MS, kind="tool", name="days", parent=ids[0], input="soon")
    error = {"type": "ValueError", "message": "no such date", "stack": "Traceback: days.py"}
    agent.end(ids[3], at + 130 * MS, error=error)
    agent.end(ids[2], at + 510 * MS, output="light rain")
    agent.start(ids[4], at + 520 * MS, **model, input=messages)
    anthropic = {"input_tokens": 266, "cache_read_input_tokens": 768, "output_tokens": 10}
    agent.end(ids[4], at + 600 * MS, usage=anthropic, output="Yes, light rain.")
    said = {"messages": [*messages, {"role": "assistant", "content": "Yes, light rain."}]}
    agent.end(ids[0], at + 650 * MS, output=said)
    return ids[0]


def test_an_observation_has_all_of_the_request(daemon):
    running = daemon()
    at = time.time_ns() - 10_000 * MS
    attrs = {"prompt.key": "travel", "prompt.version": "3", "policy_mode": "strict"}
    with running.agent(service="chat-api") as agent:
        root = a_request(agent, at, session="s-1", user="ada", tags=["prod"], attrs=attrs)
        agent.flush()
        agent.bye()
    (seen,) = running.observations()
    assert seen["trace_id"] == root.hex() and seen["service"] == "chat-api"
    assert (seen["session_id"], seen["user_id"], seen["tags"]) == ("s-1", "ada", ["prod"])
    assert (seen["prompt_key"], seen["prompt_version"]) == ("travel", "3")
    assert seen["policy_mode"] == "strict"
    assert seen["user_message"] == "rain in Oslo?" and seen["agent_response"] == "Yes, light rain."
    assert (seen["provider"], seen["model"]) == ("openai", "gpt-4o")
    assert seen["prompt_tokens"] == 1034 + 1034  # inclusive, however the provider counts
    assert seen["completion_tokens"] == 118 + 10
    assert seen["total_tokens"] == 2 * 1034 + 128
    assert seen["cached_tokens"] == 2 * 768 and seen["reasoning_tokens"] == 32
    assert seen["latency_ms"] == 650 and seen["status"]["code"] == "ok"
    assert (seen["llm_calls"], seen["tool_call_count"], seen["span_count"]) == (2, 2, 5)
    tools = {call["name"]: call for call in seen["tool_calls"]}
    assert tools["weather"]["input"] == '{"city":"Oslo"}'
    assert tools["weather"]["output"] == "light rain" and tools["weather"]["latency_ms"] == 400
    assert tools["weather"]["error"] is None
    assert tools["days"]["input"] == "soon" and tools["days"]["output"] is None
    assert tools["days"]["error"] == {"type": "ValueError", "message": "no such date"}
    assert tools["days"]["latency_ms"] == 10
    assert (seen["slowest"]["name"], seen["slowest"]["latency_ms"]) == ("weather", 400)
    assert_ledger(running)


def test_a_failed_model_call_fails_the_request_and_counts(daemon):
    running = daemon()
    with running.agent() as agent:
        root = agent.start(kind="agent", name="a", input="q")
        call = agent.start(kind="llm", model="m", provider="p", parent=root, input="q")
        error = {"type": "RateLimitError", "message": "429 too many"}
        agent.end(call, error=error, usage={"prompt_tokens": 5})
        agent.end(root, error=error)
        agent.flush()
        agent.bye()
    (seen,) = running.observations()
    assert seen["status"] == {"code": "error", "message": "429 too many"}
    assert "429 too many" in str(seen["error"])
    assert seen["prompt_tokens"] == 5 and seen["llm_calls"] == 1
    spans = running.spans()
    assert {s["attributes"]["error.type"] for s in spans} == {"RateLimitError"}
    metrics = assert_ledger(running)
    assert metrics("chat_requests_total", provider="p", model="m") == 1
    assert metrics("chat_request_duration_seconds_count") == 1


def test_a_chain_that_repeats_its_models_usage_counts_it_once(daemon):
    running = daemon()
    usage = {"prompt_tokens": 10, "completion_tokens": 4}
    with running.agent() as agent:
        root = agent.start(kind="chain", name="c")
        call = agent.start(kind="llm", model="m", parent=root)
        agent.end(call, usage=usage)
        agent.end(root, usage=usage)
        alone = agent.start(kind="agent", name="says its own")  # no model call below it
        agent.end(alone, usage=usage)
        agent.flush()
        agent.bye()
    assert [o["total_tokens"] for o in running.observations()] == [14, 14]
    assert assert_ledger(running)("llm_tokens_total", token_type="total_tokens") == 28


# --- pages ------------------------------------------------------------------------------------


def test_pages_time_and_status_select_and_the_dump_agrees(daemon, dump):
    running = daemon()
    now = time.time_ns()
    wanted = {}
    with running.agent() as agent:
        for n in range(120):
            ended = now - (120 - n) * 60_000 * MS  # one a minute, oldest first
            run = agent.start(None, ended - 5 * MS, kind="agent", name=f"r{n}")
            error = {"error": {"type": "E", "message": "x"}} if n % 10 == 0 else {}
            agent.end(run, ended, **error)
            wanted[run.hex()] = n
        agent.flush()
        agent.bye()
    everything = running.observations()
    assert [wanted[o["trace_id"]] for o in everything] == list(range(119, -1, -1))
    for limit in (1, 7, 50, 120, 1000):
        pages, cursor = [], None
        while True:
            more = f"&cursor={cursor}" if cursor else ""
            page = running.json(f"/api/observations?limit={limit}{more}")
            pages.append(page["observations"])
            cursor = page["next"]
            if cursor is None:
                break
        assert sum(pages, []) == everything
        assert all(len(p) == limit for p in pages[:-1])
        if limit == 1:
            assert len(pages) <= 121
    failed = running.pages("/api/observations?limit=5&status=error", "observations")
    assert [wanted[o["trace_id"]] for o in failed] == list(range(110, -1, -10))
    spans = running.spans()
    assert [wanted[s["trace_id"]] for s in spans] == list(range(120))
    assert sorted(dump(), key=lambda o: o["trace_id"]) == sorted(
        everything, key=lambda o: o["trace_id"]
    )
    assert dump("--spans") == spans
    assert running.stop() == 0
    assert len(dump()) == 120 and dump("--spans") == spans  # and without the daemon
    again = daemon()
    assert again.observations() == everything and again.spans() == spans


def test_since_means_what_ended_since(daemon, dump):
    running = daemon()
    stamps = [time.time_ns()]
    with running.agent() as agent:
        for name in ("first", "second"):
            agent.runs(3, name=name)
            agent.flush()
            time.sleep(0.01)  # no two in one moment
            stamps.append(time.time_ns())
        agent.bye()
    for ns, count in zip(stamps, (6, 3, 0)):
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // 10**9))
        since = f"{second}.{ns % 10**9:09d}Z"
        for what in ("observations", "spans", "traces"):
            assert len(running.json(f"/api/{what}?since={since}")[what]) == count, (what, since)
    at = time.time_ns()
    with running.agent() as agent:
        for minutes in (300, 45, 20, 1):
            ended = at - minutes * 60_000 * MS
            agent.end(agent.start(None, ended - MS, kind="agent", name=f"{minutes}"), ended)
        agent.flush()
        agent.bye()
    for since, count in (("2m", 7), ("30m", 8), ("1h", 9), ("1d", 10)):
        assert len(running.json(f"/api/spans?since={since}")["spans"]) == count, since
        assert len(dump("--spans", "--since", since)) == count, since


def test_pages_stay_whole_while_requests_come(daemon):
    running = daemon()
    with running.agent() as agent:
        before = agent.runs(50)
        agent.flush()
        page = running.json("/api/observations?limit=20")
        seen = page["observations"]
        while page["next"]:
            agent.runs(15)
            agent.flush()
            page = running.json(f"/api/observations?limit=20&cursor={page['next']}")
            seen += page["observations"]
        agent.bye()
    ids = [o["trace_id"] for o in seen]
    assert len(ids) == len(set(ids)) and set(ids) == {i.hex() for i in before}


# --- conventions ------------------------------------------------------------------------------


def named(spans) -> dict:
    return {s["name"]: s["attributes"] for s in spans}


def with_convention(daemon, convention: str) -> dict:
    running = daemon({"spans": {"convention": convention}})
    with running.agent() as agent:
        a_request(agent, time.time_ns() - 1000 * MS, session="s-1")
        agent.flush()
        agent.bye()
    assert len(running.observations()[0]["tool_calls"]) == 2
    assert running.observations()[0]["total_tokens"] == 2 * 1034 + 128
    assert_ledger(running)
    return named(running.spans())


def test_the_seams_have_their_plain_words(daemon):
    spans = with_convention(daemon, "seams")
    assert set(spans) == {"agent.run", "llm.call", "tool.weather", "tool.days"}
    assert spans["agent.run"]["session_id"] == "s-1" and spans["agent.run"]["latency_ms"] == 650
    tool = spans["tool.weather"]
    assert (tool["tool.name"], tool["tool.output"], tool["latency_ms"]) == ("weather", "light rain", 400)
    assert tool["tool.input"] == '{"city":"Oslo"}'
    assert spans["tool.days"]["tool.error"] == "no such date"
    call = spans["llm.call"]
    assert (call["llm.provider"], call["llm.model"]) == ("openai", "gpt-4o")
    assert call["llm.prompt_tokens"] == 1034
    assert not [k for attributes in spans.values() for k in attributes if k.startswith("gen_ai.usage")]


def test_both_have_the_words_of_both(daemon):
    spans = with_convention(daemon, "both")
    assert set(spans) == {"invoke_agent helper", "chat gpt-4o", "execute_tool weather", "execute_tool days"}
    call = spans["chat gpt-4o"]
    assert call["gen_ai.request.model"] == call["llm.model"] == "gpt-4o"
    assert call["gen_ai.usage.input_tokens"] == call["llm.prompt_tokens"] == 1034
    tool = spans["execute_tool weather"]
    assert tool["gen_ai.tool.call.result"] == tool["tool.output"] == "light rain"


def test_the_conventions_by_default(daemon):
    spans = with_convention(daemon, "genai")
    call = spans["chat gpt-4o"]
    assert call["gen_ai.operation.name"] == "chat" and call["gen_ai.provider.name"] == "openai"
    assert call["gen_ai.usage.cache_read.input_tokens"] == 768
    assert not [k for a in spans.values() for k in a if k.startswith(("llm.", "tool."))]


# --- content ----------------------------------------------------------------------------------

CANARIES = [f"canary-{n:02d}-{uuid.uuid4().hex}" for n in range(12)]


def sing(agent) -> None:
    """Every place where content goes, each with a word that must not be found."""
    c = CANARIES
    root = agent.start(kind="agent", name="a", input={"messages": [{"role": "user", "content": c[0]}]})
    call = agent.start(kind="llm", model="m", parent=root, input=[{"role": "user", "content": c[1]}])
    agent.end(call, output={"role": "assistant", "content": c[2]})
    tool = agent.start(kind="tool", name="t", parent=root, input={"q": c[3]})
    agent.end(tool, output=c[4])
    for kind, word in (("retriever", 5), ("embedding", 6), ("chain", 7)):
        run = agent.start(kind=kind, name=kind, parent=root, input=c[word])
        agent.end(run, output=[c[word]])
    agent.flush()
    early = uuid.uuid4().bytes  # its end comes first, and waits over a commit
    agent.end(early, output=c[8])
    agent.flush()
    agent.start(early, kind="tool", name="early", parent=root, input=c[9])
    opened = agent.start(kind="llm", model="m", parent=root, input=c[10])  # open over a commit
    agent.flush()
    agent.end(opened, output=c[10])
    agent.end(root, output=c[11])
    agent.flush()
    agent.bye()


def everything_there_is(running, tmp_path, dump) -> dict[str, bytes]:
    paths = ["/metrics", "/api/traces", "/api/observations", "/api/spans", "/api/traces/last"]
    found = {path: running.get(path)[1] for path in paths}
    found["dump"] = json.dumps([dump(), dump("--spans")]).encode()
    assert running.stop() == 0
    found["stdout"] = (tmp_path / "stdout").read_bytes()
    found["log"] = running.log.encode()
    for name in os.listdir(tmp_path / "data"):
        found[f"data/{name}"] = (tmp_path / "data" / name).read_bytes()
    return found


def test_with_content_none_no_text_is_anywhere(daemon, tmp_path, dump):
    config = {"capture": {"content": "none"}}
    config["exporters"] = [{"type": "console", "format": "json", "content": True}]
    with open(tmp_path / "stdout", "wb") as stdout:
        running = daemon(config, stdout=stdout)
        with running.agent() as agent:
            sing(agent)
        eventually(
            lambda: running.metrics()("sidelight_spans_delivered_total", exporter="console") == 8,
            what="all on the console",
        )
        assert_ledger(running, "console")
        assert len(running.observations()) == 1
        found = everything_there_is(running, tmp_path, dump)
    for where, data in found.items():
        for n, word in enumerate(CANARIES):
            assert word.encode() not in data, f"canary {n} in {where}"
    assert found["stdout"].count(b"\n") >= 8


def test_with_content_full_all_of_it_is_there(daemon, tmp_path, dump):
    """So that the test above could fail."""
    config = {"exporters": [{"type": "console", "format": "json", "content": True}]}
    with open(tmp_path / "stdout", "wb") as stdout:
        running = daemon(config, stdout=stdout)
        with running.agent() as agent:
            sing(agent)
        eventually(
            lambda: running.metrics()("sidelight_spans_delivered_total", exporter="console") == 8,
            what="all on the console",
        )
        found = everything_there_is(running, tmp_path, dump)
    for n, word in enumerate(CANARIES):
        assert word.encode() in found["dump"] and word.encode() in found["stdout"], n
    assert CANARIES[1].encode() in found["/api/spans"]
    assert CANARIES[1].encode() not in found["/api/traces"] + found["/metrics"] + found["log"]
