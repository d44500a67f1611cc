"""sidelight, the command-line tool, against the daemon and against its files alone."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import time
import uuid

import pytest

from conftest import eventually

MS = 1_000_000


@pytest.fixture
def cli(tmp_path):
    """Runs the tool as a user of this test's daemon would; returns the finished process."""
    path = os.environ.get("SIDELIGHT")
    if not path:
        pytest.skip("SIDELIGHT does not name the command-line tool")

    def run(*args, env=None, **options) -> subprocess.CompletedProcess:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("SIDELIGHT_")}
        clean |= {"LC_ALL": "C.UTF-8", "COLUMNS": "100", "TZ": "UTC0"}
        clean |= {
            "SIDELIGHT_SOCKET": str(tmp_path / "s.sock"),
            "SIDELIGHT_DATA": str(tmp_path / "data"),
        }
        if "stdout" not in options:
            options["stdout"] = subprocess.PIPE
        return subprocess.run(
            [path, *args], env=clean | (env or {}), stderr=subprocess.PIPE, timeout=60, **options
        )

    return run


def lines(done: subprocess.CompletedProcess) -> list[str]:
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().splitlines()


def request(agent, at: int, name: str = "weather-agent", **root) -> bytes:
    """A request of 2 s: a model call, a slow tool and one that fails. Returns the root's id."""
    ids = [uuid.uuid4().bytes for _ in range(4)]
    agent.start(ids[0], at, kind="agent", name=name, session="s-17", **root)
    agent.start(ids[1], at, kind="llm", name="ChatOpenAI", model="gpt-4o", parent=ids[0], input="hi")
    agent.end(ids[1], at + 300 * MS, usage={"prompt_tokens": 212, "completion_tokens": 41})
    for run, tool, begin in zip(ids[2:], ("weather", "days_until"), (300, 301)):
        arguments = {"q": "Oslo"}
        agent.start(run, at + begin * MS, kind="tool", name=tool, parent=ids[0], input=arguments)
    error = {"type": "ValueError", "message": "no such date"}
    agent.end(ids[3], at + 310 * MS, error=error)
    agent.end(ids[2], at + 1900 * MS, output="sunny")
    agent.end(ids[0], at + 2000 * MS)
    return ids[0]


def is_listed(cli, count: int):
    def check():
        done = cli("traces", "--json", "--limit", "1000")
        return done.returncode == 0 and len(json.loads(done.stdout)["traces"]) == count

    return check


@pytest.fixture
def one_request(cli, daemon):
    """A daemon with one finished request."""
    running = daemon()
    with running.agent(service="chat-api") as agent:
        running.trace_id = request(agent, time.time_ns() - 10_000 * MS).hex()
        agent.flush()
        agent.bye()
    eventually(is_listed(cli, 1), what="the request is listed")
    return running


# --- what is seen ---------------------------------------------------------------------------


def test_the_slow_tool_of_a_trace_is_obvious(cli, one_request):
    shown = lines(cli("trace", "last"))
    tree = [line for line in shown if re.match(r"agent |[├└│ ]", line)]

    assert shown[0].startswith("weather-agent   ok   2.00 s   tokens 212→41")
    assert one_request.trace_id in shown[1]
    assert "service chat-api   session s-17" in shown[2]
    assert [line.split("  ")[0].strip() for line in tree] == [
        "agent weather-agent",
        "├─ llm gpt-4o",
        "├─ tool weather",
        "└─ tool days_until",
        "",
    ]
    slow = next(line for line in tree if "tool weather" in line)
    assert "1.60 s" in slow and slow.endswith("◀ slowest")
    assert sum("slowest" in line for line in tree) == 1
    assert tree[1].endswith("212→41")
    assert tree[3].endswith("error")
    assert tree[4].strip() == "ValueError: no such date"
    # To scale: 1.6 s of 2 s, from 0.3 s on.
    whole = tree[0].count("█")
    assert abs(slow.count("█") - 0.8 * whole) <= 1.5
    begin = re.search("[█▐▕]", slow).start() - tree[0].index("█")
    assert abs(begin - 0.15 * whole) <= 1


def test_traces_are_listed_newest_first(cli, daemon):
    with daemon().agent() as agent:
        now = time.time_ns()
        for age, name in ((30, "oldest"), (20, "middle"), (10, "newest")):
            request(agent, now - age * 1000 * MS, name)
            agent.flush()
        agent.bye()
    eventually(is_listed(cli, 3), what="three requests")
    heading, *rows = lines(cli("traces", env={"COLUMNS": "120"}))

    assert heading.split() == "TIME TRACE NAME MODEL STATUS TOOK TOKENS SLOWEST".split()
    assert [row.split()[2] for row in rows] == ["newest", "middle", "oldest"]
    assert rows[0].split()[3:] == "gpt-4o ok 2.00 s 212→41 weather 1.60 s".split()
    assert len(lines(cli("traces", "--limit", "2"))) == 3
    assert lines(cli("trace", rows[2].split()[1]))[0].startswith("oldest")


def test_what_runs_is_shown_with_its_age(cli, daemon):
    with daemon().agent() as agent:
        root = agent.start(kind="agent", name="weather-agent", at=time.time_ns() - 12_000 * MS)
        agent.start(kind="llm", name="ChatOpenAI", model="gpt-4o", parent=root)
        agent.flush()
        eventually(is_listed(cli, 1), what="the request is listed")
        shown = lines(cli("trace", "last"))
        row = lines(cli("traces"))[1]

        assert re.match(r"weather-agent   running   1\d\.\d s", shown[0])
        assert re.search(r"agent weather-agent +▒+  running 1\d\.\d s$", "\n".join(shown), re.M)
        assert re.search(r"└─ llm gpt-4o +[▒ ]+  running ", "\n".join(shown))
        assert "running" in row
        assert cli("traces", "--status", "ok").returncode == 3


def test_statuses_and_times_select(cli, daemon):
    with daemon().agent() as agent:
        request(agent, time.time_ns() - 7200_000 * MS, "old")
        failed = agent.start(kind="agent", name="failed")
        agent.end(failed, error={"type": "E", "message": "m"})
        agent.flush()
        agent.bye()
    eventually(is_listed(cli, 2), what="two requests")
    assert [r.split()[2] for r in lines(cli("traces", "--status", "error"))[1:]] == ["failed"]
    assert [r.split()[2] for r in lines(cli("traces", "--status", "ok"))[1:]] == ["old"]
    assert cli("traces", "--status", "cancelled").returncode == 3


def test_content_is_shown_when_asked_for(cli, one_request):
    assert "sunny" not in cli("trace", "last").stdout.decode()
    shown = cli("trace", "last", "--content").stdout.decode()
    assert "user: hi" in shown
    assert 'arguments: {"q":"Oslo"}' in shown
    assert "result: sunny" in shown


def test_text_from_an_agent_can_not_steer_the_terminal(cli, daemon):
    with daemon().agent() as agent:
        run = agent.start(kind="tool", name="a\x1b]0;owned\x07\x1b[2Jb\u202e", input="\x1b[31m\x9b")
        agent.end(run, error={"type": "\x1b[1m", "message": "line\r\x1b[K"})
        agent.flush()
        agent.bye()
    eventually(is_listed(cli, 1), what="the request is listed")
    for args in (["traces"], ["trace", "last"], ["trace", "last", "--content"]):
        shown = cli(*args).stdout.decode()
        assert "owned" in shown and "b" in shown
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown)
    assert b"\x1b" not in cli("trace", "last", "--json").stdout


def in_a_terminal(cli, *args, **env) -> str:
    parent, child = pty.openpty()
    try:
        done = cli(*args, env={"TERM": "xterm", **env}, stdout=child)
        assert done.returncode == 0, done.stderr
        os.set_blocking(parent, False)
        return os.read(parent, 65536).decode()
    finally:
        os.close(parent)
        os.close(child)


def test_colour_is_for_terminals_that_want_it(cli, one_request):
    assert "\x1b[" in in_a_terminal(cli, "trace", "last")
    assert "\x1b[" not in in_a_terminal(cli, "trace", "last", NO_COLOR="1")
    assert "\x1b[" in in_a_terminal(cli, "trace", "last", NO_COLOR="")
    assert "\x1b[" not in in_a_terminal(cli, "trace", "last", TERM="dumb")
    assert b"\x1b[" not in cli("trace", "last").stdout


def test_without_a_utf8_locale_it_is_ascii(cli, one_request):
    shown = cli("trace", "last", env={"LC_ALL": "C"}).stdout
    assert shown.isascii() and b"`- tool days_until" in shown


# --- JSON, with the daemon and without ------------------------------------------------------


def test_json_is_what_the_api_gives(cli, one_request):
    assert json.loads(cli("trace", "last", "--json").stdout) == one_request.json("/api/traces/last")
    assert json.loads(cli("traces", "--json").stdout) == one_request.json("/api/traces")
    observation = one_request.json("/api/observations")["observations"]
    assert [json.loads(line) for line in lines(cli("dump"))] == observation
    spans = one_request.json("/api/spans")["spans"]
    assert [json.loads(line) for line in lines(cli("dump", "--spans"))] == spans


def test_without_the_daemon_the_answers_are_the_same(cli, one_request):
    asked = (["traces"], ["traces", "--json"], ["trace", "last"], ["dump"], ["dump", "--spans"])
    before = [cli(*args).stdout for args in asked]
    assert one_request.stop() == 0
    after = [cli(*args) for args in asked]

    assert [done.stdout for done in after] == before
    assert all(done.returncode == 0 for done in after)
    assert b"no collector is running" in after[0].stderr
    assert after[1].stderr == b""


def test_what_a_killed_daemon_left_can_be_read(cli, daemon):
    running = daemon()
    with running.agent() as agent:
        agent.start(kind="agent", name="weather-agent")
        agent.flush()
        eventually(is_listed(cli, 1), what="the request is listed")
        running.kill()
    assert "running" in lines(cli("trace", "last"))[0]


def test_by_url_it_is_tcp(cli, one_request):
    url = f"http://{one_request.http}"
    wanted = cli("trace", "last").stdout
    nowhere = {"SIDELIGHT_SOCKET": "/nonexistent/s.sock", "SIDELIGHT_DATA": "/nonexistent"}
    assert cli("trace", "last", "--url", url + "/", env=nowhere).stdout == wanted
    assert cli("trace", "last", env=nowhere | {"SIDELIGHT_URL": url}).stdout == wanted
    proxy = {"http_proxy": "http://127.0.0.1:1", "SIDELIGHT_URL": url}
    assert cli("trace", "last", env=nowhere | proxy).stdout == wanted


def test_dump_goes_through_all_pages_oldest_first(cli, daemon):
    count = 950
    with daemon().agent() as agent:
        ids = agent.runs(count)
        agent.flush()
        agent.bye()
    wanted = [run.hex() for run in ids]
    eventually(is_listed(cli, count), what="all are listed")

    def dumped(*args):
        return [json.loads(line)["trace_id"] for line in lines(cli("dump", *args))]

    assert dumped() == wanted
    assert dumped("--limit", "450") == wanted[-450:]
    assert dumped("--spans") == wanted
    assert dumped("--spans", "--limit", "450") == wanted[:450]
    assert dumped("--since", "1h") == wanted
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
    assert cli("dump", "--since", soon).returncode == 3


# --- when it can't --------------------------------------------------------------------------


def test_exit_codes_and_words(cli, daemon):
    daemon()
    for code, words, args in (
        (2, b"which command?", []),
        (2, b"did you mean traces?", ["trcaes"]),
        (2, b"unrecognized option", ["traces", "--frobnicate"]),
        (2, b"trace takes no --spans", ["trace", "last", "--spans"]),
        (2, b"is no trace id", ["trace", "xyz"]),
        (2, b"--since soon", ["dump", "--since", "soon"]),
        (2, b"--limit 0", ["traces", "--limit", "0"]),
        (3, b"no traces yet", ["traces"]),
        (3, b"no traces yet", ["trace", "last"]),
        (3, b"there is no trace abcdef", ["trace", "abcdef"]),
        (3, b"", ["dump"]),
        (1, b"no answer", ["traces", "--url", "http://127.0.0.1:1"]),
        (0, b"", ["--help"]),
        (0, b"", ["trace", "--help"]),
        (0, b"", ["--version"]),
    ):
        done = cli(*args)
        assert (done.returncode, words in done.stderr) == (code, True), (args, done)


def test_with_neither_daemon_nor_data_it_says_what_to_do(cli, tmp_path):
    done = cli("traces")
    assert done.returncode == 1
    assert b"start sidelightd" in done.stderr and str(tmp_path).encode() in done.stderr
    assert not (tmp_path / "data").exists()


def test_an_ambiguous_id_asks_for_more(cli, daemon):
    with daemon().agent() as agent:
        for last in (1, 2):
            run = agent.start(b"\x4b\xf9\x2f\x35" + bytes(11) + bytes([last]), kind="agent", name="a")
            agent.end(run)
        agent.flush()
        agent.bye()
    eventually(is_listed(cli, 2), what="two requests")
    done = cli("trace", "4bf92f35")
    assert done.returncode == 1 and b"give more digits" in done.stderr
    shown = [row.split()[1] for row in lines(cli("traces"))[1:]]
    assert all(cli("trace", one).returncode == 0 for one in shown)
    dashed = str(uuid.UUID(hex=json.loads(cli("traces", "--json").stdout)["traces"][0]["trace_id"]))
    assert cli("trace", dashed).returncode == 0


def test_a_collector_that_does_not_answer_is_given_up(cli, one_request):
    one_request.signal(signal.SIGSTOP)
    try:
        begin = time.monotonic()
        done = cli("traces")
        assert 4 < time.monotonic() - begin < 20
        assert done.returncode == 1 and b"no answer" in done.stderr
    finally:
        one_request.signal(signal.SIGCONT)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"])
def test_what_is_no_collector_is_said_to_be_none(cli, answer):
    with socket.create_server(("127.0.0.1", 0)) as server:
        process = subprocess.Popen(
            [os.environ["SIDELIGHT"], "traces", "--url", f"http://127.0.0.1:{server.getsockname()[1]}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        server.settimeout(10)
        peer, _ = server.accept()
        with peer:
            peer.settimeout(10)
            peer.recv(65536)
            peer.sendall(answer)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 1 and out == b"" and err.startswith(b"sidelight: ")


def test_a_full_disk_is_a_failure(cli, one_request):
    for args in (["traces"], ["trace", "last"], ["dump"], ["--help"]):
        with open("/dev/full", "wb") as full:
            done = cli(*args, stdout=full)
        assert done.returncode == 1 and b"No space left" in done.stderr


def test_a_reader_that_has_seen_enough_is_no_failure(cli, one_request):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = cli("dump", "--spans", stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_socket_that_was_misspelt_is_not_another_collectors_files(cli, one_request, tmp_path):
    one_request.stop()
    typo = str(tmp_path / "typo.sock")
    for args in (("traces", "--socket", typo), ("dump", "--socket", typo), ("trace", "last", "--socket", typo)):
        done = cli(*args)
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"no collector answers at" in done.stderr
    assert lines(cli("traces", "--socket", typo, "--data", one_request.data))


def test_a_dump_of_nothing_says_so(cli, one_request):
    for args in (("dump",), ("dump", "--spans")):
        done = cli(*args, "--since", "2099-01-01T00:00:00Z")
        assert (done.returncode, done.stdout) == (3, b"") and b"nothing has ended since" in done.stderr


def test_a_closed_stderr_is_not_a_file_of_ours(cli, one_request):
    done = cli("traces", preexec_fn=lambda: (os.close(0), os.close(2)))
    assert done.returncode == 0 and b"weather-agent" in done.stdout


# --- what runs ------------------------------------------------------------------------------


def test_ps_says_that_more_requests_run_than_it_shows(cli, daemon):
    running = daemon()
    with running.agent() as agent:
        for n in range(1001):
            agent.start(kind="agent", name=f"a{n}")
        agent.flush()
        shown = cli("ps")
        assert len(lines(shown)) == 1 + 1000
        assert shown.stderr == b"sidelight: only the newest 1000 requests are looked at\n"


def test_ps_lists_what_runs_oldest_first(cli, daemon):
    running = daemon()
    now = time.time_ns()
    ended = cli("ps")
    assert ended.returncode == 3 and ended.stderr == b"sidelight: nothing runs\n"
    with running.agent(service="chat-api") as agent:
        root = agent.start(at=now - 90_000 * MS, kind="agent", name="weather-agent")
        agent.start(at=now - 5_000 * MS, kind="llm", name="ChatOpenAI", model="gpt-4o", parent=root)
        done = agent.start(at=now - 4_000 * MS, kind="tool", name="weather", parent=root)
        agent.start(at=now - 300_000 * MS, kind="agent", name="old\x1b[2J")
        agent.end(done)
        agent.flush()
        shown = lines(cli("ps"))
        assert shown[0].split() == ["AGE", "KIND", "NAME", "MODEL", "TRACE", "SERVICE"]
        # An age is one word and a unit, or two.
        assert [line.split()[2:4] for line in shown[1:]] == [
            ["agent", "old�[2J"],
            ["agent", "weather-agent"],
            ["llm", "gpt-4o"],
        ]
        assert shown[3].rstrip().endswith(f"{root.hex()[:16]}  chat-api")
        spans = json.loads(cli("ps", "--json").stdout)["spans"]
        assert {s["kind"] for s in spans} == {"agent", "llm"} and len(spans) == 3
        assert all(s["status"]["code"] == "running" for s in spans)
