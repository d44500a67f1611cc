"""sidelight run: a command as one trace, on our terminal, with a collector of its own or ours."""

from __future__ import annotations

import json
import os
import pathlib
import pty
import select
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from conftest import SANITIZER, clean_environment, eventually


@pytest.fixture
def runtime():
    """A path that leaves room for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="run-") as directory:
        yield directory


@pytest.fixture
def place(tmp_path, runtime):
    """The environment of somebody on whose machine no collector runs."""
    (tmp_path / "none.yaml").write_text('{"exporters": []}')
    environment = {k: v for k, v in clean_environment().items() if k != "TRACEPARENT"}
    return environment | {
        "LC_ALL": "C.UTF-8",
        "COLUMNS": "100",
        "XDG_RUNTIME_DIR": runtime,
        "SIDELIGHT_CONFIG": str(tmp_path / "none.yaml"),
        "SIDELIGHT_DATA": str(tmp_path / "data"),
        "SIDELIGHT_SOCKET": str(tmp_path / "s.sock"),
    }


@pytest.fixture
def tool() -> str:
    path = os.environ.get("SIDELIGHT")
    if not path:
        pytest.skip("SIDELIGHT does not name the command-line tool")
    return path


@pytest.fixture
def run(tool, place):
    """run("--name", "x", "--", "true") to its end."""

    def go(*args, env=None, **options) -> subprocess.CompletedProcess:
        options = {"capture_output": True, "text": True, "timeout": 60} | options
        done = subprocess.run([tool, "run", *args], env=place | (env or {}), **options)
        assert not SANITIZER.search(str(done.stderr)), done.stderr
        return done

    return go


@pytest.fixture
def start(tool, place):
    """start(…) a command that goes on; its stdout is a pipe. All are ended with the test."""
    running = []

    def go(*args, env=None, **options) -> subprocess.Popen:
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        running.append(subprocess.Popen([tool, "run", *args], env=place | (env or {}), **options))
        return running[-1]

    yield go
    for process in running:
        process.kill()
        process.wait()


def python(code: str) -> list[str]:
    return ["--", sys.executable, "-c", code]


def left_over(place) -> list[str]:
    return os.listdir(place["XDG_RUNTIME_DIR"])


def traces(tool, place) -> list:
    shown = subprocess.run(
        [tool, "traces", "--json", "--data", place["SIDELIGHT_DATA"]], env=place, capture_output=True, timeout=20
    )
    assert shown.returncode == 0, shown.stderr
    return json.loads(shown.stdout)["traces"]


def processes_of(place) -> list[int]:
    """Those whose command line has this test's directory."""
    found = []
    for directory in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            line = (directory / "cmdline").read_bytes()
        except OSError:
            continue
        if place["XDG_RUNTIME_DIR"].encode() in line:
            found.append(int(directory.name))
    return found


# --- exactly as without us ------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_the_exit_code_is_the_commands(run, place, code):
    assert run("--", "sh", "-c", f"exit {code}").returncode == code
    assert left_over(place) == [] and processes_of(place) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGINT])
def test_a_signal_that_ends_the_command_ends_us(run, place, number):
    done = run("--", "sh", "-c", f"kill -{int(number)} $$")
    assert done.returncode == -number
    assert left_over(place) == [] and processes_of(place) == []
    assert f"killed by signal {int(number)} ({number.name})" in done.stderr


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_what_cannot_be_executed_is_said(run, tmp_path, place, quiet):
    plain = tmp_path / "plain"
    plain.write_text("x")
    absent = run(*quiet, "--", "no-such-command")
    assert absent.returncode == 127
    assert absent.stderr == "sidelight: no-such-command: No such file or directory\n"
    denied = run(*quiet, "--", str(plain))
    assert denied.returncode == 126 and "Permission denied" in denied.stderr
    assert left_over(place) == []


def test_usage_is_refused_before_anything_runs(run, place):
    assert run().returncode == 2
    assert run("--nonsense", "--", "true").returncode == 2
    assert "usage: sidelight run" in run("--help").stdout
    assert not os.path.exists(place["SIDELIGHT_DATA"])


def test_stdin_and_stdout_pass_untouched(run):
    data = bytes(range(256)) * 1000
    done = run("--", "cat", input=data, text=False)
    assert done.stdout == data and done.returncode == 0


def test_options_behind_the_command_are_the_commands(run):
    assert run("echo", "--name", "x", "--help").stdout == "--name x --help\n"


def test_quiet_prints_nothing(run):
    done = run("--quiet", "--", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_signals_are_as_the_command_would_find_them_without_us(run):
    shown = ["sh", "-c", "grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status"]
    plain = subprocess.run(shown, capture_output=True, text=True, restore_signals=False)
    assert run("--quiet", "--", *shown, restore_signals=False).stdout == plain.stdout


def test_no_file_of_ours_is_left_open_to_the_command(run):
    count = ["sh", "-c", "ls /proc/self/fd | wc -l"]
    plain = subprocess.run(count, capture_output=True, text=True)
    assert run("--quiet", "--", *count).stdout == plain.stdout


# --- signals --------------------------------------------------------------------------------

TRAPS = """
import os, signal, sys
seen = []
def on_signal(number, frame):
    seen.append(number)
    if number == signal.SIGTERM:
        print(*seen, flush=True)
        os._exit(7)
    print("got", number, flush=True)
for number in (1, 2, 3, 10, 12, 15, 28):
    signal.signal(number, on_signal)
print("ready", os.getpid(), flush=True)
while True:
    signal.pause()
"""


def test_signals_are_sent_on_once_each(start):
    process = start(*python(TRAPS))
    assert process.stdout.readline().startswith("ready")
    for number in (1, 2, 3, 10, 12, 28):
        process.send_signal(number)
        assert process.stdout.readline() == f"got {number}\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "1 2 3 10 12 28 15\n"
    assert process.wait(20) == 7


def test_a_command_that_ignores_a_signal_goes_on(start):
    process = start("--", "sh", "-c", "trap '' TERM; echo ready; read line; echo $line")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    assert process.poll() is None
    out, _ = process.communicate("on\n", timeout=20)
    assert out == "on\n" and process.returncode == 0


class Terminal:
    """A terminal with a program in its foreground."""

    def __init__(self, command: list[str], env: dict):
        self.text = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvpe(command[0], command, env)

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def wait_for(self, text: str, timeout: float = 20) -> None:
        deadline = time.monotonic() + timeout
        while text not in self.text:
            assert time.monotonic() < deadline, self.text
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self.fd, 65536).decode(errors="replace")
                except OSError:  # EIO: nobody has it open
                    break
        assert text in self.text, self.text

    def wait(self) -> int:
        """The status, once all that is printed was read."""
        while True:
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                break
            self.text += data.decode(errors="replace")
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        os.close(self.fd)
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


INTERRUPTED = """
import signal, sys, time
count = 0
def on_interrupt(number, frame):
    global count
    count += 1
signal.signal(signal.SIGINT, on_interrupt)
print("tty", sys.stdin.isatty(), "ready", flush=True)
until = time.monotonic() + 10
while count == 0 and time.monotonic() < until:
    time.sleep(0.01)
time.sleep(0.3)
print("interrupts", count, flush=True)
sys.exit(130)
"""


def test_ctrl_c_reaches_the_command_once_and_leaves_us_to_report(tool, place):
    with Terminal([tool, "run", *python(INTERRUPTED)], place) as terminal:
        terminal.wait_for("tty True ready")
        assert os.tcgetpgrp(terminal.fd) == terminal.pid  # the foreground is as it was
        terminal.type("\x03")
        terminal.wait_for("interrupts 1")
        assert terminal.wait() == 130
        assert "exit code 130" in terminal.text
    assert left_over(place) == [] and processes_of(place) == []


def test_ctrl_z_stops_one_job_that_fg_continues(tool, place):
    shell = ["bash", "--norc", "--noprofile", "-i"]
    with Terminal(shell, place | {"PS1": "$ ", "TERM": "dumb"}) as terminal:
        terminal.wait_for("$ ")
        terminal.type(f"{tool} run --quiet -- sh -c 'echo be''gun; read line; echo got $line'\n")
        terminal.wait_for("begun")
        terminal.type("\x1a")
        terminal.wait_for("Stopped")
        terminal.type("jobs; echo be''tween\n")
        terminal.wait_for("between")
        terminal.type("fg\n")
        time.sleep(0.2)
        terminal.type("hello\n")
        terminal.wait_for("got hello")
        terminal.type("exit\n")
        assert terminal.wait() == 0


# --- what is seen of it ---------------------------------------------------------------------

AGENT = """
import os, sidelight
with sidelight.run("answer", kind="agent", traceparent=os.environ["TRACEPARENT"]) as agent:
    with sidelight.run("chat", kind="llm", model="gpt-4o", provider="openai") as call:
        call.usage = {"prompt_tokens": 12, "completion_tokens": 5}
    with sidelight.run("weather", kind="tool"):
        pass
with sidelight.run("again", kind="llm", model="gpt-4o", provider="openai",
                   traceparent=os.environ["TRACEPARENT"]) as call:
    call.usage = {"prompt_tokens": 3, "completion_tokens": 2}
"""


def test_the_waterfall_and_the_bill_are_printed_at_the_end(run, place, tool):
    done = run("--name", "travel", *python(AGENT))
    assert done.returncode == 0 and done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0].startswith("travel   ok   ") and "tokens 15→7" in lines[0]
    labels = [line[:20] for line in lines[4:-2]]
    assert [label.split("  ")[0] for label in labels] == [
        "agent travel",
        "├─ agent answer",
        "│",
        "│",
        "└─ llm gpt-4o",
    ]
    assert lines[-1].startswith("2 LLM calls   1 tool call   tokens 15→7   ")
    (trace,) = traces(tool, place)  # which are kept
    assert trace["name"] == "invoke_agent travel" and trace["llm_calls"] == 2 and trace["tool_call_count"] == 1


def test_the_bill_has_the_cost_where_it_is_known(run, tmp_path):
    models = [{"model": "gpt-4o", "input": 1000, "output": 2000}]
    (tmp_path / "prices.yaml").write_text(json.dumps({"currency": "USD", "models": models}))
    (tmp_path / "none.yaml").write_text('{"exporters": [], "prices": "prices.yaml"}')
    lines = run("--name", "travel", *python(AGENT)).stderr.splitlines()
    assert "tokens 15→7   $0.0290   " in lines[0]
    assert lines[-1].startswith("2 LLM calls   1 tool call   tokens 15→7   $0.0290   ")
    unlisted = AGENT.replace('"again", kind="llm", model="gpt-4o"', '"again", kind="llm", model="o"')
    lines = run(*python(unlisted)).stderr.splitlines()
    assert lines[-1].startswith("2 LLM calls   1 tool call   tokens 15→7   $0.0220+   ")


def test_all_that_a_command_reports_is_one_request(run, daemon, tmp_path):
    running = daemon()
    done = run("--quiet", "--name", "travel", *python(AGENT))
    assert done.returncode == 0 and done.stderr == ""
    (whole,) = eventually(running.observations)
    assert whole["name"] == "invoke_agent travel" and whole["span_count"] == 5 and whole["total_tokens"] == 22
    assert whole["attributes"]["process.exit.code"] == 0
    metrics = running.metrics()
    assert metrics("chat_requests_total") == 1
    assert metrics("chat_requests_total", provider="openai", model="gpt-4o") == 1
    assert metrics("llm_tokens_total", token_type="total_tokens") == 22
    assert metrics("tool_calls_total") == 1
    assert metrics("sidelight_connections_lost_total") == 0
    assert not os.path.exists(tmp_path / "data" / "log")  # and no collector of its own


TWICE = """
import os, sidelight
with sidelight.run("chat", kind="llm", model="gpt-4o", traceparent=os.environ["TRACEPARENT"]) as call:
    with sidelight.run("create", kind="llm", model="gpt-4o") as same:
        same.usage = {"prompt_tokens": 12, "completion_tokens": 5}
    call.usage = {"input_tokens": 12, "output_tokens": 5}
"""


def test_a_call_that_two_instrumentations_report_is_billed_once(run):
    done = run(*python(TWICE))
    assert done.stderr.splitlines()[-1].startswith("1 LLM call   0 tool calls   tokens 12→5   ")


def test_each_request_of_a_server_is_its_own(run, daemon):
    running = daemon()
    code = "import sidelight\nfor n in range(3):\n    with sidelight.run('r', kind='agent'): pass\n"
    done = run("--each", *python(f"import os; assert 'TRACEPARENT' not in os.environ\n{code}"))
    assert done.returncode == 0 and done.stderr == ""
    eventually(lambda: len(running.observations()) == 3)
    assert len({o["trace_id"] for o in running.observations()}) == 3


def test_a_trace_goes_on_within_a_run(run, daemon):
    running = daemon()
    above = f"00-{'ab' * 16}-{'cd' * 8}-01"
    done = run("--quiet", "--", "sh", "-c", "echo $TRACEPARENT", env={"TRACEPARENT": above})
    version, trace, span, flags = done.stdout.strip().split("-")
    assert (version, trace, flags) == ("00", "ab" * 16, "01") and span != "cd" * 8
    (root,) = running.spans()
    assert root["parent_span_id"] == "cd" * 8 and root["span_id"] == span


KILLED = """
import os, signal, sidelight
with sidelight.run("chat", kind="llm", model="gpt-4o", traceparent=os.environ["TRACEPARENT"]):
    sidelight.flush(10)
    os.kill(os.getpid(), {number})
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_how_the_command_died_is_known_of_what_it_had_open(run, daemon, number):
    running = daemon()
    done = run(*python(KILLED.format(number=int(number))))
    assert done.returncode == -number
    spans = {s["kind"]: s for s in running.spans()}
    message = spans["llm"]["status"]["message"]
    assert f"killed by signal {int(number)} ({number.name})" in message
    assert spans["llm"]["attributes"]["error.type"] == "process_killed"
    assert "its parent says: signal" in spans["llm"]["attributes"]["sidelight.evidence"]
    assert spans["agent"]["attributes"]["error.type"] == "process_killed"
    assert spans["agent"]["attributes"]["process.exit.signal"] == number
    assert "process_killed" in done.stderr  # in the waterfall too


def test_an_exit_code_is_the_evidence_of_what_was_left_open(run, daemon):
    running = daemon()
    leaves = KILLED.replace("os.kill(os.getpid(), {number})", "os._exit(3)")
    assert run("--quiet", *python(leaves)).returncode == 3
    span = eventually(lambda: [s for s in running.spans() if s["kind"] == "llm"])[0]
    assert span["attributes"]["error.type"] == "process_exited"
    assert "exit code 3" in span["status"]["message"]


def test_a_run_goes_on_over_a_restart_of_the_collector(start, daemon):
    running = daemon()
    process = start("--name", "slow", "--", "sh", "-c", "echo ready; read line; exit 6")
    assert process.stdout.readline() == "ready\n"
    assert running.stop() == 0
    running = daemon()
    _, shown = process.communicate("\n", timeout=60)
    assert process.returncode == 6
    (span,) = running.spans()
    assert span["attributes"]["process.exit.code"] == 6 and span["status"]["message"] == "exit code 6"
    assert "agent slow" in shown


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
@pytest.mark.alone
def test_a_collector_that_falls_silent_is_waited_for_once(start, daemon, number):
    running = daemon()
    process = start("--", "sh", "-c", "echo ready; read line; exit 6")
    assert process.stdout.readline() == "ready\n"
    running.signal(number)
    began = time.monotonic()
    try:
        _, shown = process.communicate("\n", timeout=60)
    finally:
        if number == signal.SIGSTOP:
            running.signal(signal.SIGCONT)
    assert time.monotonic() - began < 3.5  # it is given 2 s
    assert process.returncode == 6 and "the collector does not answer" in shown


@pytest.mark.alone
def test_a_collector_that_is_silent_from_the_start_hardly_holds_the_command_up(start, daemon):
    running = daemon()
    running.signal(signal.SIGSTOP)
    began = time.monotonic()
    process = start("--quiet", "--", "echo", "ready")
    try:
        assert process.stdout.readline() == "ready\n"
        took = time.monotonic() - began
        process.communicate(timeout=60)
    finally:
        running.signal(signal.SIGCONT)
    assert process.returncode == 0 and took < 1.5  # 0.3 s, and what a busy machine takes


# --- its collector --------------------------------------------------------------------------


def test_where_the_usual_place_is_taken_nothing_is_kept(run, daemon, place, tmp_path):
    daemon(socket=tmp_path / "other.sock")  # with this test's data
    done = run("--", "true")
    assert done.returncode == 0 and "this is not kept" in done.stderr
    assert "agent true" in done.stderr
    assert left_over(place) == [] and processes_of(place) == []


def test_a_command_runs_even_where_no_collector_can(run, place, tmp_path):
    (tmp_path / "none.yaml").write_text("nonsense: 1\n")
    done = run("--", "sh", "-c", "echo ran; exit 4")
    assert (done.returncode, done.stdout) == (4, "ran\n")
    assert "no collector could be started, the command runs untraced" in done.stderr
    assert "nonsense" in done.stderr
    assert left_over(place) == []


def test_a_collector_ends_with_us_however_we_end(start, place):
    process = start("--", "cat")
    (collector,) = eventually(
        lambda: [p for p in processes_of(place) if p != process.pid], what="its collector"
    )
    eventually(lambda: os.path.exists(place["SIDELIGHT_DATA"]))
    process.kill()
    process.wait()
    eventually(lambda: collector not in processes_of(place), what="its collector has ended")
    process.stdin.close()  # cat's end


# --- Python without a change ----------------------------------------------------------------

SAYS_WHAT_IS_LOADED = """
import os, subprocess, sys
print("sidelight" in sys.modules, flush=True)
if len(sys.argv) == 1:
    subprocess.run([sys.executable, __file__, "again"])
"""


def test_auto_installs_in_python_processes(run, tmp_path, place):
    program = tmp_path / "program.py"
    program.write_text(SAYS_WHAT_IS_LOADED)
    plain = run("--quiet", "--", sys.executable, str(program))
    assert plain.stdout.split() == ["False", "False"]
    auto = run("--quiet", "--auto", "--", sys.executable, str(program))
    assert auto.stdout.split() == ["True", "True"], auto.stderr
    assert left_over(place) == []


def test_auto_reports_a_langchain_run_of_unchanged_code(run, daemon):
    pytest.importorskip("langchain_core")
    running = daemon()
    code = "from langchain_core.runnables import RunnableLambda\nRunnableLambda(str).invoke(1)\n"
    assert run("--quiet", "--auto", *python(code)).returncode == 0
    eventually(lambda: "invoke_agent str" in {s["name"] for s in running.spans()})


def test_auto_keeps_the_environments_own_sitecustomize(run, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("import os\nos.environ['OWN'] = __file__\n")
    code = "import os, sitecustomize, sys; print(os.environ['OWN'], sitecustomize.__file__)"
    done = run("--quiet", "--auto", *python(code), env={"PYTHONPATH": str(own)})
    assert done.stdout.split() == [str(own / "sitecustomize.py")] * 2


def test_auto_within_auto_keeps_it_too(run, tmp_path, tool):
    (tmp_path / "sitecustomize.py").write_text("print('own')\n")
    inner = ["--", tool, "run", "--quiet", "--auto"]
    code = "import sys; print('sidelight' in sys.modules)"
    done = run("--quiet", "--auto", *inner, *python(code), env={"PYTHONPATH": str(tmp_path)})
    assert (done.stdout.split(), done.stderr) == (["own", "True"], "")


def test_auto_is_harmless_where_there_is_no_sidelight(run):
    done = run("--quiet", "--auto", "--", "/usr/bin/python3", "-c", "print('fine')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")
    isolated = run("--quiet", "--auto", "--", sys.executable, "-I", "-c", "print('fine')")
    assert (isolated.stdout, isolated.stderr) == ("fine\n", "")
