"""sidelight emit: a shell script's runs, each event of them told by a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import uuid

import pytest

from conftest import SANITIZER, assert_ledger, clean_environment, eventually


@pytest.fixture
def environment(tmp_path):
    environment = {k: v for k, v in clean_environment().items() if k != "TRACEPARENT"}
    return environment | {"SIDELIGHT_SOCKET": str(tmp_path / "s.sock"), "LC_ALL": "C.UTF-8"}


@pytest.fixture
def tool() -> str:
    path = os.environ.get("SIDELIGHT")
    if not path:
        pytest.skip("SIDELIGHT does not name the command-line tool")
    return path


@pytest.fixture
def emit(tool, environment):
    """emit("start", "--name", "x"), as a script would."""

    def go(*args, env=None, **options) -> subprocess.CompletedProcess:
        options = {"capture_output": True, "text": True, "timeout": 60} | options
        done = subprocess.run([tool, "emit", *args], env=environment | (env or {}), **options)
        assert not SANITIZER.search(done.stderr), done.stderr
        return done

    return go


@pytest.fixture
def script(tool, environment, tmp_path):
    """Starts a shell script, in which `emit` is the tool's."""
    running = []

    def go(text: str, env=None, shell: str = "sh") -> subprocess.Popen:
        file = tmp_path / "backup.sh"
        file.write_text(f"#!/bin/{shell}\nemit() {{ {tool} emit \"$@\"; }}\nsidelight={tool}\n{text}")
        file.chmod(0o755)
        process = subprocess.Popen(
            [str(file)], env=environment | (env or {}), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        running.append(process)
        return process

    yield go
    for process in running:
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen) -> str:
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert not SANITIZER.search(errors), errors
    return out


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_script_tells_a_whole_request(script, daemon, shell):
    running = daemon()
    finish(script("""
set -e
request=$(emit start --kind agent --name backup --session s-1 --user ada --tag nightly --input 'all of it')
tool=$(emit start --kind tool --name fetch --parent $request --input 'https://example.com' --attr host=a --attr n:=3)
emit event $tool retry --attr reason='no answer' --attr delay:=0.5
emit end $tool --output 'two files' --attr ok:=true
emit span --kind llm --name chat --model gpt-4o --provider openai --parent $request --start 5m --duration 1.5s \
    --usage prompt_tokens=12 --usage completion_tokens=5 --output fine --finish stop
echo 'done' | emit end $request --output -
""", shell=shell))
    spans = {s["kind"]: s for s in running.spans()}
    tool, llm, root = spans["tool"], spans["llm"], spans["agent"]
    assert len(spans) == 3 and {s["trace_id"] for s in spans.values()} == {root["trace_id"]}
    assert tool["parent_span_id"] == llm["parent_span_id"] == root["span_id"]
    assert all(s["status"]["code"] == "ok" and s["service"] == "backup.sh" for s in spans.values())
    assert tool["attributes"]["host"] == "a" and tool["attributes"]["n"] == 3
    assert tool["attributes"]["ok"] is True
    (event,) = tool["events"]
    assert event["name"] == "retry" and event["attributes"] == {"reason": "no answer", "delay": 0.5}
    assert llm["latency_ms"] == 1500 and llm["attributes"]["gen_ai.response.finish_reasons"] == ["stop"]
    (whole,) = running.observations()
    assert whole["user_message"] == "all of it" and whole["agent_response"] == "done\n"
    assert whole["session_id"] == "s-1" and whole["user_id"] == "ada" and whole["tags"] == ["nightly"]
    assert whole["prompt_tokens"] == 12 and whole["tool_call_count"] == 1
    assert assert_ledger(running)("sidelight_connections_lost_total") == 0


def test_an_error_is_one(emit, daemon):
    running = daemon()
    run = emit("start", "--kind", "tool", "--name", "t").stdout.strip()
    assert emit("end", run, "--error", "no such file", "--error-type", "ENOENT").returncode == 0
    (span,) = running.spans()
    assert span["status"] == {"code": "error", "message": "no such file"}
    assert span["attributes"]["error.type"] == "ENOENT"


def test_ids_are_of_the_scripts_choosing_too(emit, daemon):
    running = daemon()
    mine = str(uuid.uuid4())
    assert emit("start", "--id", mine, "--name", "a").stdout.strip() == mine
    assert emit("start", "--id", "job 42", "--name", "b", "--parent", mine).returncode == 0
    assert emit("end", "job 42").returncode == 0
    assert emit("end", mine.replace("-", "")).returncode == 0
    spans = running.spans()
    assert [s["name"] for s in spans] == ["b", "a"]
    assert {s["trace_id"] for s in spans} == {mine.replace("-", "")}


def test_traceparent_is_the_parent(emit, daemon):
    running = daemon()
    env = {"TRACEPARENT": f"00-{'ab' * 16}-{'cd' * 8}-01"}
    assert emit("span", "--name", "x", env=env).returncode == 0
    (span,) = running.spans()
    assert span["trace_id"] == "ab" * 16 and span["parent_span_id"] == "cd" * 8


# --- runs that are left open ----------------------------------------------------------------


def open_runs(running) -> float:
    return running.metrics()("sidelight_open_runs")


def test_a_run_outlives_the_process_that_told_of_it(script, daemon):
    running = daemon()
    process = script("id=$(emit start --kind tool --name slow)\necho $id\nread line\nemit end $id")
    run = uuid.UUID(process.stdout.readline().strip())
    time.sleep(2.5)  # longer than lost runs are waited for
    assert running.span(run.bytes)["status"]["code"] == "running"
    process.stdin.write("\n")
    finish(process)
    (span,) = running.spans()
    assert span["status"]["code"] == "ok" and span["latency_ms"] > 2500


# The shell of $(…) is gone at once; what counts is the script.
@pytest.mark.parametrize("start", ["id=$(emit start --name x | cat)", "f() { (emit start --name x); }; id=$(f)"])
def test_a_run_ends_with_its_script_with_evidence(script, daemon, start):
    running = daemon()
    process = script(f"{start}\necho $id\nread line || true")
    process.stdout.readline()
    time.sleep(1.5)
    assert open_runs(running) == 1
    finish(process)
    (span,) = eventually(running.spans)
    assert span["status"] == {"code": "error", "message": "the process that this belonged to ended before it"}
    assert span["attributes"]["error.type"] == "process_lost"
    assert span["attributes"]["sidelight.evidence"] == f"pid {process.pid} is gone"


def test_what_a_script_left_open_within_a_run_is_told_by_its_exit(script, daemon, tool, environment):
    running = daemon()
    done = subprocess.run(
        [tool, "run", "--quiet", "--", "sh", "-c", f"{tool} emit start --kind tool --name x; exit 5"],
        env=environment, capture_output=True, timeout=60,
    )
    assert done.returncode == 5
    spans = eventually(lambda: running.spans() if len(running.spans()) == 2 else None)
    tool_span = next(s for s in spans if s["kind"] == "tool")
    assert tool_span["attributes"]["error.type"] == "process_exited"
    assert "exit code 5" in tool_span["status"]["message"]
    (whole,) = running.observations()
    assert whole["tool_call_count"] == 1


def test_the_word_about_a_script_is_waited_for(daemon, tool, environment):
    """It comes one and a half second late, as it may from a busy parent; we look once a second."""
    running = daemon()
    script = subprocess.Popen(["sh", "-c", f"{tool} emit start --name x && exec sleep 60"], env=environment)
    eventually(lambda: running.json("/api/traces")["traces"])
    with running.agent() as parent:
        parent.send([9, {"pid": script.pid}])
        parent.flush()
        script.kill()
        script.wait()
        time.sleep(1.5)
        parent.send([9, {"pid": script.pid, "exit": 3}])
        parent.flush()
        parent.bye()
    (span,) = eventually(running.spans)
    assert span["attributes"]["error.type"] == "process_exited"


def test_a_script_in_another_pid_namespace_is_watched_too(daemon, tool, environment):
    if subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True).returncode:
        pytest.skip("no PID namespaces here")
    running = daemon()
    script = f"id=$({tool} emit start --name x); echo $id; read line || true"
    process = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", script],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )
    run = uuid.UUID(process.stdout.readline().strip())
    time.sleep(1.5)
    assert running.span(run.bytes)["status"]["code"] == "running"
    process.communicate(timeout=20)
    (span,) = eventually(running.spans)
    assert span["attributes"]["error.type"] == "process_lost"
    assert "is gone" in span["attributes"]["sidelight.evidence"]
    assert "not visible" not in span["attributes"]["sidelight.evidence"]


def test_a_named_owner_keeps_a_run_open(emit, daemon):
    running = daemon()
    emit("start", "--name", "x", "--owner", str(os.getpid()))
    time.sleep(1.5)
    assert open_runs(running) == 1


def test_a_script_goes_on_over_a_restart_of_the_collector(script, daemon):
    running = daemon()
    process = script("id=$(emit start --kind tool --name slow)\necho $id\nread line\nemit end $id")
    process.stdout.readline()
    assert running.stop() == 0
    running = daemon()
    time.sleep(1.5)
    assert open_runs(running) == 1
    process.stdin.write("\n")
    finish(process)
    (span,) = running.spans()
    assert span["status"]["code"] == "ok"


def test_without_a_proc_entry_that_fits_a_run_stays_open_for_now(emit, daemon):
    """An owner that is none of ours: no process can be watched, so it is not judged at once."""
    running = daemon()
    with subprocess.Popen(["sleep", "60"]) as other:
        assert emit("start", "--name", "x", "--owner", str(other.pid)).returncode == 0
        other.kill()
    time.sleep(1.5)
    assert open_runs(running) == 1


# --- without a collector, and misuse --------------------------------------------------------


@pytest.mark.alone
def test_without_a_collector_scripts_go_on(emit):
    began = time.monotonic()
    done = emit("start", "--name", "x")
    assert time.monotonic() - began < 1
    assert done.returncode == 1 and uuid.UUID(done.stdout.strip())
    assert done.stderr.startswith("sidelight: not stored: ") and "s.sock" in done.stderr
    quiet = emit("end", done.stdout.strip(), "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (1, "", "")


def test_why_it_is_not_stored(emit, environment):
    path = environment["SIDELIGHT_SOCKET"]

    def why(path=path):
        done = emit("start", "--name", "x", "--socket", path)
        assert done.returncode == 1
        return done.stderr

    assert why() == f"sidelight: not stored: {path}: No such file or directory\n"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.close()
    assert why() == f"sidelight: not stored: {path}: Connection refused\n"
    os.unlink(path)
    assert why("/" + "x" * 120).endswith(": File name too long\n")


def test_an_owner_that_does_not_exist_is_refused(emit):
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    for pid in (gone.pid, 2147483647):
        done = emit("start", "--name", "x", "--owner", str(pid))
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"sidelight: --owner {pid}: no such process\n"


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["nonsense"],
        ["start", "word"],
        ["start", "--output", "x"],
        ["end"],
        ["end", ""],
        ["event", "id"],
        ["event", "id", ""],
        ["end", "id", "--usage", "n=many"],
        ["end", "id", "--usage", "n=1.5"],
        ["start", "--attr", "novalue"],
        ["start", "--attr", "=x"],
        ["start", "--attr", "a=1", "--attr", "a=2"],
        ["start", "--attr", "a:=word"],
        ["start", "--start", "yesterday"],
        ["span", "--duration", "5"],
        ["span", "--duration", "-5s"],
        ["span", "--duration", "nans"],
        ["start", "--owner", "0"],
        ["start", "--owner", "x"],
        ["start", "--nonsense"],
    ],
)
def test_misuse_is_refused(emit, args):
    done = emit(*args)
    assert done.returncode == 2 and done.stdout == "" and done.stderr


def test_a_long_text_is_cut_not_lost(emit, daemon):
    running = daemon()
    run = emit("start", "--kind", "tool", "--name", "t", "--input", "-", input="x" * 1_500_000).stdout.strip()
    assert emit("end", run).returncode == 0
    (span,) = running.spans()
    assert span["attributes"]["sidelight.cut"] == {"input": 1_500_000}
