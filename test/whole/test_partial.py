"""An answer of ten minutes beside a long prompt, told as it comes: what is kept of it, and what it costs."""

from __future__ import annotations

import json
import os
import threading

from conftest import assert_ledger, eventually

PIECE = "A hundred and twenty bytes, more or less, is what a model of these days says in a second, and so it goes on and on.. "
SECONDS = 600
PROMPT = "x" * 60_000


def tell(agent, run, seconds: range) -> None:
    """A partial output for each of these seconds, each made durable."""
    size = len(PIECE)
    for second in seconds:
        agent.event(run, "partial_output", text=PIECE, at=second * size, tokens=(second + 1) * 30)
        assert agent.flush() == []


def cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def written(pid: int) -> int:
    with open(f"/proc/{pid}/io") as file:
        return int(dict(line.split(": ") for line in file)["wchar"])


def output(span: dict) -> str:
    ((message),) = json.loads(span["attributes"]["gen_ai.output.messages"])
    return message["parts"][0]["content"]


def lost(running, run: bytes) -> dict:
    return eventually(lambda: (s := running.span(run)) and s["end_time"] and s, what="the run is closed")


def test_a_long_answer_is_bounded_and_cheap(daemon, plain_sidelightd):
    running = daemon(program=plain_sidelightd)
    pid = running.process.pid
    with running.agent() as agent:
        run = agent.start(kind="llm", input=PROMPT)
        agent.event(run, "first_token")
        agent.flush()
        before = cpu_seconds(pid), written(pid)
        tell(agent, run, range(SECONDS))
        cpu, disk = cpu_seconds(pid) - before[0], written(pid) - before[1]
    span = lost(running, run)
    said = output(span)
    assert said == (PIECE * SECONDS)[: 64 * 1024]
    assert span["attributes"]["sidelight.cut.output"] == len(PIECE) * SECONDS
    assert span["attributes"]["gen_ai.usage.output_tokens"] == SECONDS * 30
    assert [event["name"] for event in span["events"]] == ["first_token"]
    assert assert_ledger(running)("sidelight_values_cut_total") == 1
    print(f"ten minutes: {cpu * 1000:.0f} ms CPU, {disk / 1e6:.1f} MB written")
    # Each second is a commit of its own here: four pages of 4 KiB, the prompt's not among them.
    assert cpu < 2.0 and disk < SECONDS * 25_000


def test_it_goes_on_over_restarts(daemon):
    running = daemon()
    agent = running.agent()
    run = agent.start(kind="llm", input=PROMPT)
    for begin in range(0, 120, 30):
        tell(agent, run, range(begin, begin + 30))
        running.kill()
        agent.close()
        running = daemon()
        agent = running.agent()
    agent.end(run, error={"type": "ReadError"})  # which says nothing of the answer
    agent.flush()
    span = running.span(run)
    agent.close()
    assert output(span) == PIECE * 120
    assert span["attributes"]["gen_ai.usage.output_tokens"] == 120 * 30
    assert "sidelight.cut.output" not in span["attributes"]


def test_it_is_shown_while_the_run_is_open_and_an_end_leaves_nothing_of_it(daemon):
    running = daemon()
    with running.agent() as agent:
        run = agent.start(kind="llm", input="question")
        tell(agent, run, range(40))
        span = running.span(run)
        assert span["status"]["code"] == "running"
        assert span["attributes"]["sidelight.output"] == PIECE * 40
        assert span["attributes"]["sidelight.partial_output"] is True
        agent.end(run, output="the answer", usage={"output_tokens": 3})
        agent.flush()
    for _ in range(2):
        span = running.span(run)
        assert output(span) == "the answer" and span["status"]["code"] == "ok"
        assert "sidelight.partial_output" not in span["attributes"]
        assert running.metrics()("sidelight_open_runs") == 0
        running.stop()
        running = daemon()
    assert "could not be read back" not in running.log


def test_what_is_shown_has_no_hole_while_it_grows(daemon, plain_sidelightd):
    running = daemon(program=plain_sidelightd)
    whole = "".join(f"{i:06}," for i in range(9000))
    holes = []

    def look(run: bytes, done: threading.Event) -> None:
        while not done.is_set():
            said = running.span(run)["attributes"].get("sidelight.output", "")
            if not whole.startswith(said):
                holes.append(said)

    with running.agent() as agent:
        for _ in range(20):  # one in some hundred looks comes between two commits
            run, done = agent.start(kind="llm"), threading.Event()
            agent.flush()
            looking = [threading.Thread(target=look, args=(run, done)) for _ in range(2)]
            for thread in looking:
                thread.start()
            for at in range(0, len(whole), 1777):
                agent.event(run, "partial_output", text=whole[at : at + 1777], at=at)
                agent.flush()
            done.set()
            for thread in looking:
                thread.join()
            agent.end(run)
    assert not holes
