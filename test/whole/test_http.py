"""The HTTP listeners against real and hostile clients."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import stat
import subprocess
import threading
import time

import pytest

from conftest import eventually

HOST = b"Host: localhost\r\n"
DEADLINE = 10.0


@pytest.fixture
def server(daemon):
    return daemon()


def address(server) -> tuple[str, int]:
    host, port = server.http.rsplit(":", 1)
    return host, int(port)


def api_socket(server) -> str:
    return server.socket.removesuffix(".sock") + "-api.sock"


def raw(server, request: bytes, timeout: float = 15.0) -> bytes:
    """Everything the server says to these bytes until it closes."""
    answer = b""
    with socket.create_connection(address(server), timeout=timeout) as client:
        try:
            client.sendall(request)
            while piece := client.recv(65536):
                answer += piece
        except (ConnectionResetError, BrokenPipeError):
            pass
    return answer


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else 0


def error_of(answer: bytes) -> str:
    return json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]["code"]


def ask(server, method: str, path: str, **headers):
    connection = http.client.HTTPConnection(*address(server), timeout=20)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


# --- what it answers --------------------------------------------------------------------------


def test_every_answer_has_the_safe_headers(server):
    for path in ("/metrics", "/healthz", "/readyz", "/api/traces", "/nothing"):
        response, _ = ask(server, "GET", path)
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Content-Security-Policy"] == "default-src 'none'"
        assert response.headers["Connection"] == "close"


def test_metrics_are_clean_to_promtool(server):
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("no promtool")
    with server.agent() as agent:
        run = agent.start(kind="agent", name='a "b"\\c', provider="openai", model="m\n")
        tool = agent.start(kind="tool", name='get "x"\n', parent=run)
        agent.end(tool)
        agent.end(run)
        agent.flush()
    response, body = ask(server, "GET", "/metrics")
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b"tool_calls_total{" in body
    check = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True)
    assert (check.returncode, check.stderr, check.stdout) == (0, b"", b"")


def test_a_trace_goes_from_running_to_ended(server):
    with server.agent(service="shop") as agent:
        run = agent.start(kind="agent", name="plan", session="s-1")
        call = agent.start(kind="llm", name="call", parent=run, model="gpt-4o", input="hello")
        agent.flush()
        listed = eventually(lambda: server.json("/api/traces")["traces"], what="a running trace")
        assert [t["name"] for t in listed] == ["invoke_agent plan"]
        assert listed[0]["status"]["code"] == "running" and listed[0]["end_time"] is None
        assert listed[0]["session_id"] == "s-1" and listed[0]["service"] == "shop"
        shown = server.json("/api/traces/last")
        assert [s["kind"] for s in shown["spans"]] == ["agent", "llm"]
        agent.end(call, output="hi", usage={"input_tokens": 3, "output_tokens": 4})
        agent.end(run)
        agent.flush()
    trace_id = listed[0]["trace_id"]
    shown = server.json(f"/api/traces/{trace_id[:8]}")
    assert shown["trace"]["trace_id"] == trace_id
    assert shown["trace"]["status"]["code"] == "ok"
    assert shown["trace"]["total_tokens"] == 7
    assert {s["status"]["code"] for s in shown["spans"]} == {"ok"}
    assert set(listed[0]) >= set(shown["trace"])  # one form, running or not
    (observation,) = server.json("/api/observations")["observations"]
    assert {k: observation[k] for k in shown["trace"]} == shown["trace"]
    assert len(server.json("/api/spans")["spans"]) == 2


def test_pages_hold_every_observation_once(server):
    with server.agent() as agent:
        agent.runs(120)
        agent.flush()
    names, cursor = [], ""
    while True:
        page = server.json(f"/api/observations?limit=50{cursor}")
        names += [o["trace_id"] for o in page["observations"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert len(names) == len(set(names)) == 120


def test_bad_queries_are_named(server):
    for query in ("limt=5", "limit=0", "limit=x", "since=%00", "cursor=-1", "status=", "limit"):
        response, body = ask(server, "GET", f"/api/traces?{query}")
        error = json.loads(body)["error"]
        assert (response.status, error["code"]) == (400, "bad_query"), query
        assert query.split("=")[0] in error["message"]


def test_head_has_no_body(server):
    answer = raw(server, b"HEAD /metrics HTTP/1.1\r\n" + HOST + b"\r\n")
    head, body = answer.split(b"\r\n\r\n", 1)
    assert status_of(answer) == 200 and body == b""
    assert int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]) > 1000


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"])
def test_other_methods_are_refused(server, method):
    answer = raw(server, method.encode() + b" /metrics HTTP/1.1\r\n" + HOST + b"\r\n")
    assert status_of(answer) == 405 and b"\r\nAllow: GET, HEAD\r\n" in answer


def test_the_unix_socket_has_the_ingest_sockets_permissions(server):
    path = api_socket(server)
    assert stat.S_IMODE(os.stat(path).st_mode) == stat.S_IMODE(os.stat(server.socket).st_mode)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: any.name\r\n\r\n")
        assert status_of(client.recv(65536)) == 200
    server.stop()
    assert not os.path.exists(path)


# --- who may ask ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.com", "localhost.evil.com", "127.0.0.1.nip.io", "evil.com:4320", "[::2]", ""]
)
def test_a_foreign_host_is_refused(server, host):
    answer = raw(server, f"GET /api/traces HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert status_of(answer) in (400, 403)
    assert b"traces" not in answer.split(b"\r\n\r\n", 1)[1]


def test_loopback_by_any_name_is_served(server):
    for host in ("localhost", "127.0.0.1:1", "[::1]:4320", "LOCALHOST"):
        answer = raw(server, f"GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert status_of(answer) == 200, host


SECOND = b"GET /metrics HTTP/1.1\r\n" + HOST + b"\r\n"
SMUGGLED = {
    "two lengths": b"Content-Length: 0\r\nContent-Length: 5\r\n\r\nhello",
    "length and chunks": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SECOND,
    "chunks": b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SECOND,
    "a space before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SECOND,
    "a body": b"Content-Length: 5\r\n\r\nhello",
    "a negative length": b"Content-Length: -1\r\n\r\n",
    "a plus": b"Content-Length: +0\r\n\r\n",
    "a second host": b"Host: evil.com\r\n\r\n",
}


@pytest.mark.parametrize("tail", SMUGGLED.values(), ids=SMUGGLED.keys())
def test_what_two_parties_may_read_differently_is_refused(server, tail):
    answer = raw(server, b"GET /healthz HTTP/1.1\r\n" + HOST + tail)
    assert status_of(answer) == 400 and b" 200 OK" not in answer


def test_a_second_request_on_a_connection_is_not_read(server):
    answer = raw(server, b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n" + SECOND)
    assert status_of(answer) == 200 and answer.count(b"HTTP/1.1 ") == 1


MALFORMED = {
    "a long header": (b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"x" * 20000 + b"\r\n\r\n", {431}),
    "many headers": (b"GET / HTTP/1.1\r\n" + HOST + b"A: x\r\n" * 5000 + b"\r\n", {431}),
    "a long path": (b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", {414}),
    "no host": (b"GET /healthz HTTP/1.1\r\n\r\n", {400}),
    "no host in 1.0": (b"GET /healthz HTTP/1.0\r\n\r\n", {400}),
    "HTTP 9": (b"GET /healthz HTTP/9.9\r\n" + HOST + b"\r\n", {505}),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", {0, 400}),
    "a NUL in the path": (b"GET /met%00rics HTTP/1.1\r\n" + HOST + b"\r\n", {404}),
    "dots": (b"GET /api/traces/../../metrics HTTP/1.1\r\n" + HOST + b"\r\n", {400, 404}),
    "an absolute path": (b"GET http://evil.com/healthz HTTP/1.1\r\n" + HOST + b"\r\n", {404}),
    "many query keys": (b"GET /api/traces?" + b"a&" * 99 + b" HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
}


@pytest.mark.parametrize("request_, wanted", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_requests_are_refused(server, request_, wanted):
    assert status_of(raw(server, request_)) in wanted
    assert ask(server, "GET", "/healthz")[0].status == 200


# --- under load -------------------------------------------------------------------------------


class Dripping:
    """Clients that send a header line now and then, and never an end."""

    def __init__(self, server, count: int):
        self.clients = []
        self.since = time.monotonic()
        for _ in range(count):
            client = socket.create_connection(address(server), timeout=5)
            client.sendall(b"GET /healthz HTTP/1.1\r\n" + HOST)
            client.setblocking(False)
            self.clients.append(client)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._drip)
        self._thread.start()

    def _drip(self):
        while not self._stop.wait(0.25):
            for client in self.clients:
                try:
                    client.send(b"X: y\r\n")
                except OSError:
                    pass

    def open(self) -> int:
        count = 0
        for client in self.clients:
            try:
                count += client.recv(1, socket.MSG_PEEK) != b""
            except BlockingIOError:
                count += 1
            except OSError:
                pass
        return count

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._stop.set()
        self._thread.join()
        for client in self.clients:
            client.close()


@pytest.mark.alone
def test_slow_clients_lock_nobody_out(server):
    with Dripping(server, 200) as slow:
        # With 64 places and 200 of them, one that asks at once is served within a few seconds …
        started = time.monotonic()
        assert ask(server, "GET", "/healthz")[0].status == 200
        assert time.monotonic() - started < DEADLINE
        # … and after the deadline none of them is left.
        eventually(lambda: slow.open() == 0, timeout=DEADLINE + 5, what="all slow ones closed")
        started = time.monotonic()
        assert ask(server, "GET", "/healthz")[0].status == 200
        assert time.monotonic() - started < 1


@pytest.mark.alone
def test_a_slow_client_alone_has_its_deadline(server):
    with Dripping(server, 1) as slow:
        eventually(lambda: slow.open() == 0, timeout=DEADLINE + 5, what="it is closed")
        assert DEADLINE - 1 < time.monotonic() - slow.since < DEADLINE + 1.5


def test_silent_clients_are_closed(server):
    clients = [socket.create_connection(address(server), timeout=DEADLINE + 5) for _ in range(20)]
    # The library has no room for so many keys, and then no answer either.
    clients[0].sendall(b"GET /?" + b"a&" * 2000 + b" HTTP/1.1\r\n" + HOST + b"\r\n")
    for client in clients:
        assert client.recv(1) == b""
        client.close()


def test_fifty_clients_at_once_are_all_served(server):
    with server.agent() as agent:
        agent.runs(200)
        agent.flush()
    answers = []

    def client():
        for path in ("/api/traces", "/metrics", "/api/observations", "/api/spans?limit=500"):
            answers.append((path, ask(server, "GET", path)[0].status))

    threads = [threading.Thread(target=client) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 200 and {status for _, status in answers} == {200}


def test_nobody_connected_wakes_nobody(server):
    ask(server, "GET", "/healthz")

    def switches() -> dict:
        found = {}
        for task in os.listdir(f"/proc/{server.process.pid}/task"):
            with open(f"/proc/{server.process.pid}/task/{task}/status") as file:
                found[task] = file.read().split("\nvoluntary_ctxt_switches:\t")[1].split()[0]
        return found

    # Whatever the first request set off comes to rest; then a second passes without a wakeup.
    def rests() -> bool:
        before = switches()
        time.sleep(1)
        return switches() == before

    eventually(rests, timeout=15, what="a second without a wakeup")
