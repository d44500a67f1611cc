"""Tokens, whole: every provider's words on the wire, what is not known, what is told twice."""

from __future__ import annotations

import json
import pathlib
import signal

import pytest

from conftest import assert_ledger

VECTORS = pathlib.Path(__file__).parents[2] / "proto" / "vectors" / "usage.json"
ATTRIBUTES = {
    "input": "gen_ai.usage.input_tokens",
    "output": "gen_ai.usage.output_tokens",
    "cache_read": "gen_ai.usage.cache_read.input_tokens",
    "cache_write": "gen_ai.usage.cache_creation.input_tokens",
    "cache_write_5m": "sidelight.usage.cache_creation_5m.input_tokens",
    "cache_write_1h": "sidelight.usage.cache_creation_1h.input_tokens",
    "reasoning": "gen_ai.usage.reasoning.output_tokens",
    "audio_input": "gen_ai.usage.audio.input_tokens",
    "audio_output": "gen_ai.usage.audio.output_tokens",
    "estimated": "sidelight.usage.estimated",
}
LEFT_OUT_WHEN_0 = {"cache_write_5m", "cache_write_1h", "audio_input", "audio_output"}
MEMBERS = {
    "input": "prompt_tokens",
    "output": "completion_tokens",
    "total": "total_tokens",
    "cache_read": "cached_tokens",
    "reasoning": "reasoning_tokens",
}
PRICES = {
    "currency": "USD",
    "models": [
        {"model": "m", "provider": "p", "input": 2, "output": 10, "cached_input": 0.5},
        {"model": "small-*", "input": 0.1, "output": 0.4},
    ],
}
WITHOUT = "sidelight_llm_calls_without_usage_total"


def vectors() -> list[dict]:
    found = json.loads(VECTORS.read_text())
    assert len(found) > 50
    return found


def usage_attributes(span: dict) -> dict:
    return {k: v for k, v in span["attributes"].items() if ".usage." in k}


def wanted_attributes(want: dict) -> dict:
    wanted = {
        ATTRIBUTES[count]: n
        for count, n in want.items()
        if count in ATTRIBUTES and (n or count not in LEFT_OUT_WHEN_0)
    }
    if want.get("total", 0) != want.get("input", 0) + want.get("output", 0):
        wanted["sidelight.usage.total_tokens"] = want["total"]
    return wanted


def llm(agent, parent, model: str = "m", **end) -> None:
    agent.end(agent.start(kind="llm", model=model, provider="p", parent=parent), **end)


def of_model(running, model: str) -> dict:
    """The attributes of usage of the one call of a model."""
    (span,) = [s for s in running.spans() if s["attributes"].get("gen_ai.request.model") == model]
    return usage_attributes(span)


def test_every_providers_words_arrive(daemon):
    running, wanted = daemon(), {}
    with running.agent() as agent:
        for vector in vectors():
            root = agent.start(kind="agent", name="a")
            wanted[root.hex()] = vector
            llm(agent, root, usage=vector["usage"])
            agent.end(root, usage=vector["usage"])  # says it once more
        agent.flush()
        agent.bye()
    spans = {(s["trace_id"], s["kind"]): s for s in running.spans()}
    seen = {o["trace_id"]: o for o in running.observations()}
    assert seen.keys() == wanted.keys()
    for trace_id, vector in wanted.items():
        name, want, observation = vector["name"], vector["want"], seen[trace_id]
        assert usage_attributes(spans[trace_id, "llm"]) == wanted_attributes(want), name
        assert not usage_attributes(spans[trace_id, "agent"]), name
        assert {c: observation[m] for c, m in MEMBERS.items()} == {c: want.get(c) for c in MEMBERS}, name
        assert observation["tokens_estimated"] is want.get("estimated", False), name
        assert observation["llm_calls_without_usage"] == ("total" not in want), name
    metrics = assert_ledger(running)
    told = [v["want"] for v in wanted.values() if "total" in v["want"]]
    for token_type, count in (("prompt_tokens", "input"), ("total_tokens", "total")):
        got = metrics("llm_tokens_total", token_type=token_type, provider="p", model="m")
        assert got == sum(w.get(count, 0) for w in told)
    assert metrics(WITHOUT, provider="p", model="m") == len(wanted) - len(told) > 0


def test_a_stream_without_usage_is_unknown_and_no_zero(daemon):
    running = daemon()
    with running.agent() as agent:
        silent = agent.start(kind="agent", name="silent")
        llm(agent, silent, "silent", output="Hello")
        agent.end(silent)
        mixed = agent.start(kind="agent", name="mixed")
        llm(agent, mixed, "quiet")
        llm(agent, mixed, "loud", usage={"prompt_tokens": 10, "completion_tokens": 4})
        agent.end(mixed)
        agent.flush()
        agent.bye()
    seen = {o["name"]: o for o in running.observations()}
    assert [seen["invoke_agent silent"][m] for m in MEMBERS.values()] == [None] * 5
    assert seen["invoke_agent mixed"]["total_tokens"] == 14
    calls = [(o["llm_calls"], o["llm_calls_without_usage"]) for o in seen.values()]
    assert sorted(calls) == [(1, 1), (2, 1)]
    assert not of_model(running, "silent") and not of_model(running, "quiet")
    metrics = assert_ledger(running)
    without = {m: metrics(WITHOUT, model=m) for m in ("silent", "quiet", "loud")}
    assert without == {"silent": 1, "quiet": 1, "loud": 0}
    assert {dict(labels)["model"] for n, labels in metrics if n == "llm_tokens_total"} == {"loud"}


def test_an_estimate_is_marked_wherever_it_is_seen(daemon):
    running = daemon()
    with running.agent() as agent:
        root = agent.start(kind="agent", name="a")
        usage = {"output_tokens": 37, "sidelight.estimated": True}
        llm(agent, root, usage=usage, error={"type": "asyncio.exceptions.CancelledError"})
        agent.end(root)
        agent.flush()
        agent.bye()
    (seen,) = running.observations()
    assert (seen["completion_tokens"], seen["prompt_tokens"], seen["tokens_estimated"]) == (37, None, True)
    assert of_model(running, "m") == {
        "gen_ai.usage.output_tokens": 37,
        "sidelight.usage.estimated": True,
    }
    metrics = assert_ledger(running)
    assert metrics("llm_tokens_total", token_type="completion_tokens") == 37
    assert metrics("gen_ai_client_token_usage_count") == 0  # only what a provider told
    assert metrics(WITHOUT) == 0


@pytest.mark.parametrize("killed", [False, True])
def test_two_instrumentations_of_one_call_count_once(daemon, killed):
    running = daemon()
    agent = running.agent()
    root = agent.start(kind="agent", name="a")
    outer = agent.start(kind="llm", model="outer", provider="openai", parent=root)
    inner = agent.start(kind="llm", model="inner", provider="openai", parent=outer)
    agent.end(inner, usage={"prompt_tokens": 10, "completion_tokens": 4})
    agent.flush()
    if killed:
        running.kill()
        agent.close()
        running = daemon()
        agent = running.agent()
    langchain = {"input_tokens": 10, "output_tokens": 4, "total_tokens": 14}
    agent.end(outer, usage=langchain)
    agent.end(root, usage=langchain)
    agent.flush()
    agent.bye()
    agent.close()
    (seen,) = running.observations()
    assert (seen["total_tokens"], seen["llm_calls"], seen["span_count"]) == (14, 1, 3)
    assert seen["llm_calls_without_usage"] == 0
    assert of_model(running, "inner") and not of_model(running, "outer")
    assert assert_ledger(running)("llm_tokens_total", token_type="total_tokens") == 14


# --- cost ---------------------------------------------------------------------------------------

USED = {"prompt_tokens": 1000, "completion_tokens": 200, "prompt_tokens_details": {"cached_tokens": 400}}
COST = (600 * 2 + 400 * 0.5 + 200 * 10) / 1e6


@pytest.fixture
def prices(tmp_path):
    """A configuration with prices, which lie beside it."""
    (tmp_path / "prices.yaml").write_text(json.dumps(PRICES))
    return {"prices": "prices.yaml"}


@pytest.mark.parametrize("killed", [False, True])
def test_a_request_costs_what_its_calls_do(daemon, prices, killed):
    running = daemon(prices)
    agent = running.agent()
    root = agent.start(kind="agent", name="a")
    llm(agent, root, usage=USED)
    agent.end(agent.start(kind="llm", model="alias", provider="q", parent=root), model="small-2", usage=USED)
    agent.flush()
    if killed:  # the stored spans are reckoned once more
        running.kill()
        agent.close()
        running = daemon(prices)
        agent = running.agent()
    llm(agent, root, usage=USED)
    agent.end(root)
    agent.flush()
    agent.bye()
    agent.close()
    (seen,) = running.observations()
    small = (1000 * 0.1 + 200 * 0.4) / 1e6
    assert seen["cost"] == pytest.approx(2 * COST + small, abs=1e-12)
    assert (seen["currency"], seen["calls_without_cost"]) == ("USD", 0)
    metrics = assert_ledger(running)
    assert metrics("llm_cost_total", provider="p", model="m") == pytest.approx(2 * COST)
    assert metrics("llm_cost_total", provider="q", model="alias") == pytest.approx(small)


def test_a_call_without_a_price_is_counted_and_is_no_zero(daemon, prices):
    running = daemon(prices)
    with running.agent() as agent:
        mixed = agent.start(kind="agent", name="mixed")
        llm(agent, mixed, usage=USED)
        llm(agent, mixed, "unlisted", usage=USED)
        llm(agent, mixed)
        agent.end(mixed)
        unlisted = agent.start(kind="agent", name="unlisted")
        llm(agent, unlisted, "unlisted", usage=USED)
        agent.end(unlisted)
        agent.flush()
        agent.bye()
    seen = {o["name"].split()[1]: (o["cost"], o["currency"], o["calls_without_cost"]) for o in running.observations()}
    assert seen == {"mixed": (pytest.approx(COST), "USD", 2), "unlisted": (None, None, 1)}
    metrics = assert_ledger(running)
    assert {dict(labels)["model"] for n, labels in metrics if n == "llm_cost_total"} == {"m"}


def test_without_prices_nothing_has_a_cost(daemon):
    running = daemon()
    with running.agent() as agent:
        root = agent.start(kind="agent", name="a")
        llm(agent, root, usage=USED)
        agent.end(root)
        agent.flush()
        agent.bye()
    (seen,) = running.observations()
    assert (seen["cost"], seen["currency"], seen["calls_without_cost"]) == (None, None, 1)
    assert not [n for n, _ in assert_ledger(running) if n.startswith("llm_cost")]


def test_new_prices_want_a_restart_and_say_so(daemon, prices, tmp_path):
    running = daemon(prices)
    (tmp_path / "prices.yaml").write_text(json.dumps({"models": [{"model": "m", "input": 1}]}))
    running.signal(signal.SIGHUP)
    running.wait_for_line("restart sidelightd to use it")


def test_prices_that_are_wrong_are_said_and_nothing_starts(refused, prices, tmp_path):
    (tmp_path / "prices.yaml").write_text('models: [{"model": "m", "input": "cheap"}]')
    code, said = refused(prices)
    assert code == 2 and f"{tmp_path}/prices.yaml:1:34: models[0].input: 'cheap' is not a price" in said
