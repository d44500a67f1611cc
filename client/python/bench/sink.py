"""Where the measured clients send to: sink.py SOCKET

An OTLP/HTTP backend that takes everything, at the port it prints, and a Sidelight collector at
SOCKET that reads as the daemon does, with a rest of 5 ms after each read. GET /count tells how
many spans came to the first, and how many ends to the second.
"""

import json
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

counts = {"spans": 0, "ends": 0}


def spans_in(body, encoding):
    if encoding == "gzip":
        import gzip

        body = gzip.decompress(body)
    try:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        request = ExportTraceServiceRequest.FromString(body)
    except Exception:  # not installed, or not of traces
        return 0
    return sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)


class Backend(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):
        pass

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(json.dumps(counts).encode())

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.endswith("/v1/traces"):
            counts["spans"] += spans_in(body, self.headers.get("Content-Encoding"))
        self.answer(b"")


class Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """A client that was killed."""


def read(connection):
    rest = bytearray()
    while data := connection.recv(1 << 20):
        rest += data
        at = 0
        while len(rest) - at >= 4:
            size = 4 + int.from_bytes(rest[at : at + 4], "big")
            if len(rest) - at < size:
                break
            if rest[at + 5] == 2:  # an array of five, the first a 2
                counts["ends"] += 1
            if rest[at + 5] == 4:
                answer = bytearray(rest[at : at + size])
                answer[5] = 5
                connection.sendall(answer)
            at += size
        del rest[:at]
        time.sleep(0.005)
    connection.close()


def collect(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    while True:
        threading.Thread(target=read, args=(listener.accept()[0],), daemon=True).start()


if __name__ == "__main__":
    threading.Thread(target=collect, args=(sys.argv[1],), daemon=True).start()
    server = Server(("127.0.0.1", 0), Backend)
    print(server.server_address[1], flush=True)
    server.serve_forever()
