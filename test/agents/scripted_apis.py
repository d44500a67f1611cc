"""The scenes of scripted_openai in the words of more endpoints, and streams that go wrong.

    POST /v1/chat/completions   as there
    POST /v1/completions, /v1/embeddings, /v1/responses
    POST /v1/messages           Anthropic's

| the last user message has | what a stream does |
|---|---|
| "cut off" | the connection is reset after four words |
| "endless" | words come until the client leaves |
| "long" | 3000 pieces of 40 characters |

"hand over", with a tool offered that transfers to another agent, asks for that tool (responses only).
"""

import itertools
import json
import socket
import struct
import time

from scripted_openai import SNAPSHOT, Handler, Refusal, ScriptedOpenAI, pieces, split, text_of, tool_calls, usage

WORDS_BEFORE_CUT = 4
LONG = "0123456789" * 4


def responses_usage(messages, answer):
    """OpenAI's counts in the words of its responses."""
    counts = usage(messages, answer)
    return {
        "input_tokens": counts["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 640, "cache_write_tokens": 0},
        "output_tokens": counts["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 32},
        "total_tokens": counts["total_tokens"],
    }


def anthropic_usage(messages, answer):
    """Anthropic's, which leave out of the input what was cached."""
    counts = usage(messages, answer)
    return {
        "input_tokens": counts["prompt_tokens"] - 640,
        "cache_read_input_tokens": 640,
        "cache_creation_input_tokens": 0,
        "output_tokens": counts["completion_tokens"],
    }


def chat_of_responses(request):
    """A request for a response as the conversation that Script.play() knows."""
    given = request["input"]
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    messages = []
    for item in given:
        if item.get("type") == "function_call_output":
            messages.append({"role": "tool", "content": item["output"]})
        elif item.get("role"):
            messages.append({"role": item["role"], "content": item["content"]})
    return messages


def chat_of_anthropic(request):
    messages = []
    for message in request["messages"]:
        content = message["content"]
        results = [b for b in content if b.get("type") == "tool_result"] if isinstance(content, list) else []
        messages += [{"role": "tool", "content": b["content"]} for b in results] or [message]
    return messages


def output_of(message):
    """A message as the items of a response."""
    items = []
    if message["content"]:
        block = {"type": "output_text", "text": message["content"], "annotations": []}
        item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed"}
        items.append({**item, "content": [block]})
    for i, call in enumerate(message.get("tool_calls", ())):
        item = {"id": f"fc_{i}", "type": "function_call", "status": "completed"}
        items.append({**item, "call_id": call["id"], **call["function"]})
    return items


def blocks_of(message):
    """A message as Anthropic's blocks."""
    blocks = [{"type": "text", "text": message["content"]}] if message["content"] else []
    for call in message.get("tool_calls", ()):
        function = call["function"]
        given = json.loads(function["arguments"])
        blocks.append({"type": "tool_use", "id": call["id"], "name": function["name"], "input": given})
    return blocks


def halves(text):
    middle = len(text) // 2
    return text[:middle], text[middle:]


class ApiHandler(Handler):
    def do_POST(self):
        path = self.path.split("?")[0]
        if path == "/v1/chat/completions":
            return super().do_POST()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = {
            "/v1/completions": self.completion,
            "/v1/embeddings": self.embedding,
            "/v1/responses": self.respond,
            "/v1/messages": self.converse,
        }.get(path)
        if answer is None:
            return self.answer(404, {"error": {"message": "no such path", "type": "invalid_request_error"}})
        try:
            request = json.loads(body)
            if "forever" in str(request.get("input") or request.get("messages")):
                self.server.script.hold(self.connection)
                self.close_connection = True
                return None
            return answer(request)
        except Refusal as refusal:
            return self.answer(refusal.status, {"type": "error", **refusal.body()}, refusal.headers)

    # Streams: `head` and `tail` are events, `deltas` are those that can go wrong in between.

    def stream(self, request, message, finish, delay):
        envelope = self.envelope(request, "chat.completion.chunk")

        def chunk(delta, reason=None):
            return None, {**envelope, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

        tail = [chunk({}, finish)]
        if (request.get("stream_options") or {}).get("include_usage"):
            tail.append((None, {**envelope, "choices": [], "usage": usage(request["messages"], message)}))
        text = split(request["messages"])[0]
        role, *deltas = [chunk(delta) for delta in pieces(message)]
        if "long" in text.split():
            deltas = [chunk({"content": LONG})] * 3000
        self.events([role], deltas, [*tail, (None, "[DONE]")], text, delay)

    def events(self, head, deltas, tail, text, delay):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for event in head:
            self.sse(*event)
        time.sleep(delay)
        if "endless" in text:
            deltas = itertools.cycle(deltas)
        for i, delta in enumerate(deltas):
            if "cut off" in text and i == WORDS_BEFORE_CUT:
                return self.reset()
            self.sse(*delta)
            if "endless" in text:
                time.sleep(0.005)
        for event in tail:
            self.sse(*event)
        return None

    def sse(self, name, value):
        head = f"event: {name}\n" if name else ""
        data = value if isinstance(value, str) else json.dumps(value)
        self.wfile.write(f"{head}data: {data}\n\n".encode())

    def reset(self):
        time.sleep(0.1)  # so that what was sent is read before the reset throws it away
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.wfile.close()
        self.connection.close()

    # Endpoints

    def completion(self, request):
        prompts = request["prompt"] if isinstance(request["prompt"], list) else [request["prompt"]]
        messages = [{"role": "user", "content": prompt} for prompt in prompts]
        message, finish, delay = self.server.script.play({**request, "messages": messages})
        envelope = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": request["model"]}

        def choice(text, reason=None, index=0):
            return {"index": index, "text": text, "finish_reason": reason, "logprobs": None}

        if request.get("stream"):
            words = [(None, {**envelope, "choices": [choice(half)]}) for half in halves(message["content"])]
            tail = [(None, {**envelope, "choices": [choice("", finish)]}), (None, "[DONE]")]
            return self.events([], words, tail, prompts[0], delay)
        choices = [choice(message["content"], finish, i) for i in range(len(prompts))]
        return self.answer(200, {**envelope, "choices": choices, "usage": usage(messages, message)})

    def embedding(self, request):
        text = request["input"]
        if "outage" in text:
            raise Refusal(500, "server_error", "The server had an error")
        data = [{"object": "embedding", "index": 0, "embedding": [0.25, 0.5]}]
        counts = {"prompt_tokens": 7, "total_tokens": 7}
        self.answer(200, {"object": "list", "model": request["model"] + SNAPSHOT, "data": data, "usage": counts})

    def respond(self, request):
        messages = chat_of_responses(request)
        message, _, delay = self.server.script.play({**request, "messages": messages})
        text, results = split(messages)
        transfers = [(t["name"], {}) for t in request.get("tools", ()) if t["name"].startswith("transfer_to_")]
        if "hand over" in text and transfers and not results:
            message = {"role": "assistant", "content": None, "tool_calls": tool_calls(text, transfers)}
        response = {
            "id": "resp_0001",
            "object": "response",
            "created_at": 1785888000,
            "model": request["model"] + SNAPSHOT,
            "instructions": request.get("instructions"),
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "metadata": {},
            "error": None,
            "incomplete_details": None,
        }
        whole = {**response, "status": "completed", "output": output_of(message)}
        whole["usage"] = responses_usage(messages, message)
        if not request.get("stream"):
            time.sleep(delay)
            return self.answer(200, whole)
        begun = {**response, "status": "in_progress", "output": [], "usage": None}
        number = itertools.count()

        def event(kind, **more):
            return kind, {"type": kind, "sequence_number": next(number), **more}

        head = [event("response.created", response=begun), event("response.in_progress", response=begun)]
        deltas = []
        for i, item in enumerate(whole["output"]):
            place = {"output_index": i, "item_id": item["id"]}
            if item["type"] == "message":
                blank = {**item, "status": "in_progress", "content": []}
                part = {"type": "output_text", "text": "", "annotations": []}
                head.append(event("response.output_item.added", output_index=i, item=blank))
                head.append(event("response.content_part.added", **place, content_index=0, part=part))
                for piece in pieces(message):
                    if piece.get("content"):
                        more = {**place, "content_index": 0, "delta": piece["content"], "logprobs": []}
                        deltas.append(event("response.output_text.delta", **more))
            else:
                blank = {**item, "status": "in_progress", "arguments": ""}
                head.append(event("response.output_item.added", output_index=i, item=blank))
                for half in halves(item["arguments"]):
                    deltas.append(event("response.function_call_arguments.delta", **place, delta=half))
        tail = [event("response.output_item.done", output_index=i, item=item) for i, item in enumerate(whole["output"])]
        tail.append(event("response.completed", response=whole))
        return self.events(head, deltas, tail, split(messages)[0], delay)

    def converse(self, request):
        messages = chat_of_anthropic(request)
        message, finish, delay = self.server.script.play({**request, "messages": messages})
        counts = anthropic_usage(messages, message)
        whole = {
            "id": "msg_0001",
            "type": "message",
            "role": "assistant",
            "model": request["model"] + SNAPSHOT,
            "content": blocks_of(message),
            "stop_reason": "tool_use" if finish == "tool_calls" else "end_turn",
            "stop_sequence": None,
            "usage": counts,
        }
        if not request.get("stream"):
            time.sleep(delay)
            return self.answer(200, whole)
        begun = {**whole, "content": [], "stop_reason": None, "usage": {**counts, "output_tokens": 1}}
        head = [("message_start", {"type": "message_start", "message": begun}), ("ping", {"type": "ping"})]
        deltas = []
        for i, block in enumerate(whole["content"]):
            blank = {**block, "text": ""} if block["type"] == "text" else {**block, "input": {}}
            head.append(("content_block_start", {"type": "content_block_start", "index": i, "content_block": blank}))
            if block["type"] == "text":
                words = [p["content"] for p in pieces(message) if p.get("content")]
                parts = [{"type": "text_delta", "text": word} for word in words]
            else:
                parts = [{"type": "input_json_delta", "partial_json": h} for h in halves(json.dumps(block["input"]))]
            for part in parts:
                deltas.append(("content_block_delta", {"type": "content_block_delta", "index": i, "delta": part}))
        stops = [("content_block_stop", {"type": "content_block_stop", "index": i}) for i in range(len(whole["content"]))]
        delta = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        ends = {"type": "message_delta", "delta": delta, "usage": {"output_tokens": counts["output_tokens"]}}
        tail = [*stops, ("message_delta", ends), ("message_stop", {"type": "message_stop"})]
        return self.events(head, deltas, tail, text_of(messages[-1]), delay)


class ScriptedApis(ScriptedOpenAI):
    """All of it; a context manager like its base. `root_url` is what Anthropic's client wants."""

    def __init__(self, delay=0.02, final_delay=0.01):
        super().__init__(0, delay, final_delay)
        self.RequestHandlerClass = ApiHandler
        self.request_queue_size = 256

    @property
    def root_url(self):
        return self.base_url[: -len("/v1")]
