#!/usr/bin/env python3
"""An OpenAI-compatible server whose answers are scripted, for the demo and the tests.

What it answers follows from the conversation alone: the last user message picks the scene, and the
tool results after it tell how far the scene has got. So the same questions always give the same
answers, tokens and (nearly) the same times. Only the standard library is used, and it listens on
loopback only.

    POST /v1/chat/completions   plain or streamed, with tools
    GET  /hanging               how many requests are held in the scene that never answers
    GET  /requests              how many chat requests have come so far

    scripted_openai.py [--port N] [--port-file FILE] [--delay SECONDS] [--final-delay SECONDS]

prints the base URL when it is ready. In a test: `with ScriptedOpenAI() as server: server.base_url`.

| the last user message has | what happens |
|---|---|
| "weather in CITY" and "days until DATE" | two tool calls at once, then an answer from their results |
| only one of these | that tool call, then an answer |
| "rush hour" | every first try of a request is answered 429 with Retry-After, the next one well |
| "outage" | 500, always |
| "too long" | 400 context_length_exceeded, always |
| "forever" | the request is held until its client leaves |
| anything else | a short text |
"""

import argparse
import collections
import hashlib
import json
import os
import re
import select
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SNAPSHOT = "-2026-08-07"  # what OpenAI adds to a model's name in its answers
CREATED = 1785888000

WEATHER = re.compile(r"weather in ([A-Z][\w-]*)")
DAYS = re.compile(r"days until (\d{4}-\d\d-\d\d)")
STORY = (
    "The keeper lit the lamp at dusk, as every evening. Far out a ship had lost its way in the "
    "fog; its captain saw one small light, turned the wheel, and was home by morning."
)


class Refusal(Exception):
    """A scene that answers with an HTTP error instead of a completion."""

    def __init__(self, status, code, message, headers=()):
        super().__init__(message)
        self.status, self.code, self.headers = status, code, dict(headers)

    def body(self):
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {"message": str(self), "type": kind, "param": None, "code": self.code}
        return {"error": error}


def text_of(message):
    """A message's content as text; it may be a string or a list of blocks."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(block.get("text", "") for block in content)


def split(messages):
    """The last user message's text, and the tool messages after it."""
    users = [i for i, m in enumerate(messages) if m.get("role") == "user"]
    if not users:
        return "", []
    after = messages[users[-1] + 1 :]
    return text_of(messages[users[-1]]), [m for m in after if m.get("role") == "tool"]


def wanted_tools(text):
    calls = []
    if city := WEATHER.search(text):
        calls.append(("weather", {"city": city[1]}))
    if date := DAYS.search(text):
        calls.append(("days_until", {"date": date[1]}))
    return calls


def tool_calls(text, calls):
    seed = hashlib.sha256(text.encode()).hexdigest()
    return [
        {
            "id": f"call_{seed[:16]}{i}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for i, (name, arguments) in enumerate(calls)
    ]


def usage(messages, answer):
    """Counts as OpenAI gives them: inclusive, about four characters a token."""
    prompt = 700 + sum(len(json.dumps(m)) for m in messages) // 4
    reasoning = 32
    completion = reasoning + max(1, len(json.dumps(answer)) // 4)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 640, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": 0},
    }


class Script:
    """The scenes, and the little that must be remembered between requests."""

    def __init__(self, delay=0.15, final_delay=0.1):
        self.delay, self.final_delay = delay, final_delay
        self.requests = 0
        self.hanging = 0
        self._tries = collections.Counter()
        self._lock = threading.Lock()

    def play(self, request):
        """The assistant's message for a request, its finish reason, and how long it takes."""
        messages = request["messages"]
        text, results = split(messages)
        conversation = json.dumps([request["model"], request.get("user"), messages])
        with self._lock:
            self.requests += 1
            self._tries[conversation] += 1
            first_try = self._tries[conversation] % 2 == 1
        if "rush hour" in text and first_try:
            headers = {"Retry-After": "1", "Retry-After-Ms": "400"}
            raise Refusal(429, "rate_limit_exceeded", "Rate limit reached, try again", headers)
        if "outage" in text:
            headers = {"Retry-After-Ms": "100"}
            raise Refusal(500, "server_error", "The server had an error", headers)
        if "too long" in text:
            raise Refusal(400, "context_length_exceeded", "This model's maximum context length is 128000 tokens")
        if calls := wanted_tools(text):
            if not results:
                message = {"content": None, "tool_calls": tool_calls(text, calls)}
                return {"role": "assistant", **message}, "tool_calls", self.delay
            answer = " ".join(text_of(m) for m in results)
            return {"role": "assistant", "content": answer}, "stop", self.final_delay
        answer = STORY if "story" in text else "Hello! Ask me about the weather or a date."
        return {"role": "assistant", "content": answer}, "stop", self.delay

    def hangs(self, request):
        return "forever" in split(request["messages"])[0]

    def hold(self, connection):
        """Keeps a request until its client goes away."""
        with self._lock:
            self.hanging += 1
        try:
            while not select.select([connection], [], [], 60)[0]:
                pass
        finally:
            with self._lock:
                self.hanging -= 1


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format, *args):
        pass

    def do_GET(self):
        script = self.server.script
        counts = {"/hanging": script.hanging, "/requests": script.requests}
        if self.path in counts:
            self.answer(200, {"count": counts[self.path]})
        else:
            self.answer(404, {"error": {"message": "no such path", "type": "invalid_request_error"}})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/v1/chat/completions":
            return self.answer(404, {"error": {"message": "no such path", "type": "invalid_request_error"}})
        try:
            request = json.loads(body)
            if self.server.script.hangs(request):
                self.server.script.hold(self.connection)
                self.close_connection = True
                return None
            message, finish, delay = self.server.script.play(request)
        except Refusal as refusal:
            return self.answer(refusal.status, refusal.body(), refusal.headers)
        except (ValueError, KeyError, TypeError) as error:
            return self.answer(400, {"error": {"message": repr(error), "type": "invalid_request_error"}})
        if request.get("stream"):
            return self.stream(request, message, finish, delay)
        time.sleep(delay)
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        envelope = self.envelope(request, "chat.completion")
        return self.answer(200, {**envelope, "choices": [choice], "usage": usage(request["messages"], message)})

    def envelope(self, request, kind):
        seed = hashlib.sha256(json.dumps(request["messages"]).encode()).hexdigest()
        return {
            "id": f"chatcmpl-{seed[:24]}",
            "object": kind,
            "created": CREATED,
            "model": request["model"] + SNAPSHOT,
            "system_fingerprint": "fp_scripted",
        }

    def answer(self, status, value, headers=()):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("x-request-id", f"req_{self.server.script.requests:08d}")
        for name, text in dict(headers).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    def stream(self, request, message, finish, delay):
        """The same answer as server-sent events: half the delay before the first one, the rest spread."""
        envelope = self.envelope(request, "chat.completion.chunk")
        deltas = list(pieces(message))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        time.sleep(delay / 2)
        for delta in deltas:
            self.event({**envelope, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
            time.sleep(delay / 2 / len(deltas))
        self.event({**envelope, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        if (request.get("stream_options") or {}).get("include_usage"):
            self.event({**envelope, "choices": [], "usage": usage(request["messages"], message)})
        self.wfile.write(b"data: [DONE]\n\n")

    def event(self, value):
        self.wfile.write(b"data: " + json.dumps(value).encode() + b"\n\n")


def pieces(message):
    """A message cut into deltas: the role, then words of text or halves of tool arguments."""
    yield {"role": "assistant", "content": "" if message.get("content") else None}
    for word in re.findall(r"\S+\s*", message.get("content") or ""):
        yield {"content": word}
    for i, call in enumerate(message.get("tool_calls", ())):
        function = call["function"]
        head = {"name": function["name"], "arguments": ""}
        yield {"tool_calls": [{"index": i, "id": call["id"], "type": "function", "function": head}]}
        middle = len(function["arguments"]) // 2
        for part in (function["arguments"][:middle], function["arguments"][middle:]):
            yield {"tool_calls": [{"index": i, "function": {"arguments": part}}]}


class ScriptedOpenAI(ThreadingHTTPServer):
    """The server; as a context manager it serves from a thread of its own."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port=0, delay=0.15, final_delay=0.1):
        super().__init__(("127.0.0.1", port), Handler)
        self.script = Script(delay, final_delay)

    @property
    def base_url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request, client_address):
        """A client that leaves in mid-answer is part of the script."""

    def __enter__(self):
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self.shutdown()
        self._thread.join()
        self.server_close()


def main():
    parser = argparse.ArgumentParser(description="A scripted OpenAI-compatible server on loopback.")
    parser.add_argument("--port", type=int, default=0, help="0 (the default) takes a free one")
    parser.add_argument("--port-file", help="write the port here when ready")
    parser.add_argument("--delay", type=float, default=0.15, help="seconds an answer takes")
    parser.add_argument("--final-delay", type=float, default=0.1, help="seconds an answer from tool results takes")
    options = parser.parse_args()
    server = ScriptedOpenAI(options.port, options.delay, options.final_delay)
    if options.port_file:
        with open(options.port_file + ".new", "w") as file:
            file.write(f"{server.server_address[1]}\n")
        os.replace(options.port_file + ".new", options.port_file)
    print(server.base_url, flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
