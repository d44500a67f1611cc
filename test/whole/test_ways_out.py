"""How an exporter gets to its backend: the server's name, TLS's least version, proxies and certificates
that the environment names, a Unix socket; each with a backend that would notice."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading

import pytest

from backends.certs import Certificates
from backends.grpc import GrpcBackend
from backends.server import Backend
from conftest import assert_ledger, eventually

OTLP = "OTEL_EXPORTER_OTLP_"


@pytest.fixture
def certs(tmp_path):
    return Certificates(tmp_path)


def backend_of(protocol: str, **options) -> Backend:
    backend = GrpcBackend(**options) if protocol == "grpc" else Backend(protocol=protocol, **options)
    backend.turn_good()
    return backend


def otlp(backend: Backend, **options) -> dict:
    return {"name": "a", "type": "otlp", "endpoint": backend.endpoint, "protocol": backend.protocol, **options}


def send(running, count: int = 10) -> None:
    with running.agent() as agent:
        agent.runs(count)
        agent.flush()
        agent.bye()


def assert_delivered(running, backend: Backend, exporter: str = "a", count: int = 10) -> None:
    eventually(lambda: len(backend.taken_ids()) >= count, what=f"they arrive\n{running.log}")
    eventually(lambda: running.metrics()("sidelight_export_pending_spans") == 0, what="settled")
    assert len(set(backend.taken_ids())) == count
    assert_ledger(running, exporter)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_certificate_for_another_name_is_taken_where_the_name_is_given(daemon, certs, protocol):
    names = []
    context = certs.server("wrong_host", h2=protocol == "grpc")
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    with backend_of(protocol, tls=context) as backend:
        tls = {"ca_file": str(certs.ca_file), "server_name": "elsewhere.example"}
        running = daemon({"exporters": [otlp(backend, tls=tls)]})
        send(running)
        assert_delivered(running, backend)
        hosts = {r.headers.get(":authority", r.headers.get("host")) for r in backend.taken()}
        assert hosts == {f"elsewhere.example:{backend.port}"}
    assert set(names) == {"elsewhere.example"}


def test_less_than_the_least_version_is_refused(daemon, certs):
    context = certs.server()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with backend_of("http/protobuf", tls=context) as backend:
        files = {"ca_file": str(certs.ca_file)}
        running = daemon({"exporters": [otlp(backend, tls={**files, "min_version": "1.3"}),
                                        {**otlp(backend, tls={**files, "min_version": "1.2"}), "name": "b"}]})  # fmt: skip
        send(running)
        eventually(lambda: len(backend.taken_ids()) == 10, what="b's arrive")
        running.wait_for_line("exporter a: .*tls.min_version")
        eventually(lambda: running.metrics()("sidelight_export_failures_total", exporter="a") > 0)
        assert running.metrics()("sidelight_spans_delivered_total", exporter="a") == 0
        assert running.metrics()("sidelight_spans_delivered_total", exporter="b") == 10


class Proxy:
    """Lets through what it is asked for, by CONNECT or as a whole URL, and keeps the first lines."""

    def __init__(self):
        self.heads: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += client.recv(65536)
        self.heads.append(data.partition(b"\r\n\r\n")[0].decode())
        method, target, _ = data.split(b" ", 2)
        tunnel = method == b"CONNECT"
        address = target if tunnel else target.split(b"/")[2]
        host, port = address.decode().rsplit(":", 1)
        with client, socket.create_connection((host, int(port))) as server:
            if tunnel:
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            else:  # an origin gets the path alone
                server.sendall(data.replace(target, b"/" + target.split(b"/", 3)[3], 1))
            threading.Thread(target=self._copy, args=(server, client), daemon=True).start()
            self._copy(client, server)

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._listener.close()


@pytest.mark.parametrize(
    ("protocol", "tls", "method"),
    [("http/protobuf", False, "POST"), ("http/protobuf", True, "CONNECT"),
     ("grpc", False, "CONNECT"), ("grpc", True, "CONNECT")],
)  # fmt: skip
def test_a_proxy_is_taken_from_the_environment(daemon, certs, protocol, tls, method):
    context = certs.server(h2=protocol == "grpc") if tls else None
    options = {"tls": {"ca_file": str(certs.ca_file)}} if tls else {}
    with Proxy() as proxy, backend_of(protocol, tls=context) as backend:
        where = f"http://me:pr0xysecret@127.0.0.1:{proxy.port}"
        env = {"http_proxy": where, "https_proxy": where}
        running = daemon({"exporters": [otlp(backend, **options)]}, env=env)
        send(running)
        assert_delivered(running, backend)
        assert all(head.startswith(method) for head in proxy.heads) and proxy.heads
        assert "Proxy-Authorization: Basic" in proxy.heads[0]
        assert "pr0xysecret" not in running.log


def test_what_needs_no_proxy_does_without(daemon):
    with Proxy() as proxy, backend_of("http/protobuf") as backend:
        env = {"http_proxy": f"http://127.0.0.1:{proxy.port}", "no_proxy": "127.0.0.1"}
        running = daemon({"exporters": [otlp(backend)]}, env=env)
        send(running)
        assert_delivered(running, backend)
        assert proxy.heads == []


def test_the_variables_alone_make_mutual_tls(daemon, certs):
    chain, key = certs.files("client")
    with backend_of("grpc", tls=certs.server(h2=True, mutual=True)) as backend:
        env = {
            OTLP + "ENDPOINT": backend.endpoint,
            OTLP + "PROTOCOL": "grpc",
            OTLP + "COMPRESSION": "gzip",
            OTLP + "CERTIFICATE": str(certs.ca_file),
            OTLP + "CLIENT_CERTIFICATE": str(chain),
            OTLP + "CLIENT_KEY": str(key),
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        }
        running = daemon({"exporters": None}, env=env)
        send(running)
        assert_delivered(running, backend, "otlp")
        eventually(lambda: len(backend.taken("metrics")) >= 2, what="reports, a second apart")
        eventually(lambda: sum(len(r.items) for r in backend.taken("logs")) == 10, what="the logs")


def test_a_socket_that_goes_and_comes_back_is_found_again(daemon, tmp_path):
    path = tmp_path / "backend.sock"
    with Backend(path=path) as backend:
        backend.turn_good()
        running = daemon({"exporters": [otlp(backend)]})
        send(running)
        assert_delivered(running, backend)
    path.unlink()
    send(running)
    running.wait_for_line("can't connect to the socket: No such file or directory")
    with Backend(path=path) as backend:
        backend.turn_good()
        assert_delivered(running, backend)
