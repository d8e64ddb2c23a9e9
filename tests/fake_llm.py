"""A loopback server that speaks like OpenAI (chat completions, files, batches; Gemini through the same) and Anthropic
(messages, batches), with a log of all requests.

    with FakeLLM() as server:
        run_script(..., "--base-url", server.url("openai"), ...)
        assert len(server.log) == 1

`server.plan` decides what happens to a call: it gets the Call and returns a Reply, or None for a good answer. It
decides for each request of a batch, too: the status 0 is one that has expired, -1 one that was cancelled. A batch ends
at the second look.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Call:
    api: str
    key: str
    body: dict
    number: int  # of all calls
    attempt: int  # of calls with the same text
    batch: str | None = None
    billed: bool = False

    @property
    def prompt(self) -> str:
        return json.dumps([self.body.get("system"), self.body["messages"]], ensure_ascii=False)

    @property
    def user(self) -> str:
        return self.body["messages"][-1]["content"]


@dataclass
class Reply:
    status: int = 200
    body: bytes = b""
    headers: dict = field(default_factory=dict)
    drop: bool = False  # close the connection without a word
    delay: float = 0.0


def description_for(call: Call) -> str:
    """A text that depends on the whole prompt, so that a test can tell which request an answer belongs to."""
    return f"Create a Manim animation number {hashlib.sha256(call.prompt.encode()).hexdigest()[:10]} with a circle."


def says(call: Call, text: str, finish: str = "stop", refusal: str | None = None) -> Reply:
    """A well-formed answer with this text."""
    if call.api == "openai":
        message = {"role": "assistant", "content": text, "refusal": refusal}
        body = {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": call.body["model"] + "-2099-01-01",
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
        }
    else:
        reasons = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}
        body = {
            "id": "x",
            "type": "message",
            "role": "assistant",
            "model": call.body["model"],
            "content": [{"type": "text", "text": refusal or text}],
            "stop_reason": reasons[finish],
            "stop_sequence": None,
            "usage": {"input_tokens": 100, "output_tokens": 20},
        }
    return Reply(body=json.dumps(body).encode())


def good(call: Call) -> Reply:
    return says(call, json.dumps({"description": description_for(call)}))


def error(status: int, message: str = "no", code: str = "", **headers: str) -> Reply:
    body = {"type": "error", "error": {"type": code or "an_error", "code": code, "message": message}}
    return Reply(status, json.dumps(body).encode(), {name.replace("_", "-"): value for name, value in headers.items()})


def knows(*formats: str, status: int = 500) -> Callable[[Call], Reply | None]:
    """A plan: a server that takes these formats of an answer alone, and refuses the others as llama_cpp.server does."""

    def plan(call: Call) -> Reply | None:
        found = call.body.get("response_format") or call.body.get("output_config", {}).get("format") or {"type": "text"}
        if found["type"] in formats:
            return None
        where = "output_config" if call.api == "anthropic" else "response_format"
        return error(status, f"[{{'loc': ('body', '{where}', 'type'), 'msg': \"Input should be {formats}\"}}]")

    return plan


class FakeLLM:
    """The server, in a thread of its own."""

    def __init__(self) -> None:
        self.plan: Callable[[Call], Reply | None] = lambda call: None
        self.log: list[Call] = []
        self.in_flight = self.most_in_flight = 0
        self.attempts: Counter[str] = Counter()
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict] = {}
        self.lose_batch = False  # take the next batch, and say nothing
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self) -> FakeLLM:
        self.thread.start()
        assert self.ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.stop)
        self.thread.join(10)

    def url(self, api: str) -> str:
        paths = {"openai": "/v1", "gemini": "/v1beta/openai"}
        return f"http://127.0.0.1:{self.port}{paths.get(api, '')}"

    @property
    def billed(self) -> list[Call]:
        """The calls that have cost something, whether or not anybody heard the answer."""
        return [call for call in self.log if call.billed]

    def reset(self) -> None:
        self.plan = lambda call: None
        self.reset_log()
        self.files.clear()
        self.batches.clear()

    def reset_log(self) -> None:
        self.log.clear()
        self.attempts.clear()
        self.most_in_flight = 0

    def run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.server = self.loop.run_until_complete(asyncio.start_server(self.serve, "127.0.0.1", 0))
        self.port = self.server.sockets[0].getsockname()[1]
        self.ready.set()
        self.loop.run_forever()
        self.server.close()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    def stop(self) -> None:
        self.loop.stop()

    def die(self) -> None:
        """Take no connection any more; called from a plan."""
        self.server.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await self.one(head, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def one(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        method, path = lines[0].split()[:2]
        path = path.partition("?")[0]
        key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        if path.endswith("/chat/completions") or path == "/v1/messages":
            reply = await self.answer("anthropic" if path == "/v1/messages" else "openai", key, json.loads(body))
        else:
            reply = self.batching(method, path, headers, body, key)
        if reply.drop:
            raise ConnectionResetError
        told = {"content-type": "application/json", **reply.headers, "content-length": len(reply.body)}
        lines = [f"HTTP/1.1 {reply.status} X", *(f"{name}: {value}" for name, value in told.items())]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + reply.body)
        await writer.drain()

    def called(self, api: str, key: str, body: dict, batch: str | None = None) -> tuple[Call, Reply]:
        call = Call(api, key, body, len(self.log), 0, batch)
        call.attempt = self.attempts[call.prompt]
        self.attempts[call.prompt] += 1
        self.log.append(call)
        reply = self.plan(call) or good(call)
        call.billed = reply.status == 200
        return call, reply

    async def answer(self, api: str, key: str, body: dict) -> Reply:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            reply = self.called(api, key, body)[1]
            await asyncio.sleep(reply.delay)
        finally:
            self.in_flight -= 1
        return reply

    # --- batches

    def batching(self, method: str, path: str, headers: dict, body: bytes, key: str) -> Reply:
        parts = path.removeprefix("/v1/").split("/")
        if parts[0] == "files":
            return self.file(parts, headers, body) if method == "POST" else Reply(body=self.files[parts[1]])
        api = "anthropic" if parts[0] == "messages" else "openai"
        rest = parts[2:] if api == "anthropic" else parts[1:]
        if method == "POST":
            return self.take_batch(api, json.loads(body), key)
        if not rest:
            found = [batch["told"] for batch in reversed(self.batches.values()) if batch["api"] == api]
            return as_json({"object": "list", "data": found, "has_more": False, "first_id": None, "last_id": None})
        batch = self.batches[rest[0]]
        if rest[1:] == ["results"]:
            return Reply(body=b"".join(json.dumps(line).encode() + b"\n" for line in batch["lines"]))
        batch["looks"] += 1
        if batch["looks"] == 2:
            self.end_batch(batch)
        return as_json(batch["told"])

    def file(self, parts: list[str], headers: dict, body: bytes) -> Reply:
        boundary = headers["content-type"].split("boundary=")[1].strip('"').encode()
        data = next(part for part in body.split(b"--" + boundary) if b'name="file"' in part)
        id = f"file-{len(self.files)}"
        self.files[id] = data.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
        told = {"id": id, "object": "file", "bytes": 1, "created_at": 1, "filename": "x", "purpose": "batch"}
        return as_json(told | {"status": "processed"})

    def take_batch(self, api: str, body: dict, key: str) -> Reply:
        id = f"batch_{len(self.batches)}"
        if api == "openai":
            requests = [json.loads(line) for line in self.files[body["input_file_id"]].splitlines()]
            told = {"object": "batch", "endpoint": body["endpoint"], "input_file_id": body["input_file_id"]}
            told |= {"completion_window": "24h", "status": "in_progress", "created_at": int(time.time())}
            told |= {"metadata": body.get("metadata")}
        else:
            requests = body["requests"]
            told = {"type": "message_batch", "processing_status": "in_progress", "results_url": None}
            told |= {name: None for name in ("ended_at", "archived_at", "cancel_initiated_at")}
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            counts = dict.fromkeys(("succeeded", "errored", "canceled", "expired"), 0) | {"processing": len(requests)}
            told |= {"created_at": now, "expires_at": now, "request_counts": counts}
        assert len({request["custom_id"] for request in requests}) == len(requests)
        batch = {"api": api, "key": key, "requests": requests, "told": {"id": id, **told}, "looks": 0, "lines": []}
        self.batches[id] = batch
        if self.lose_batch:
            self.lose_batch = False
            return Reply(drop=True)
        return as_json(batch["told"])

    def end_batch(self, batch: dict) -> None:
        """Answer the requests, the last one first: the providers do not keep the order."""
        good_lines, bad_lines = [], []
        for request in reversed(batch["requests"]):
            body = request.get("body") or request["params"]
            reply = self.called(batch["api"], batch["key"], body, batch["told"]["id"])[1]
            told = json.loads(reply.body) if reply.body else {}
            if batch["api"] == "anthropic":
                kinds = {200: {"type": "succeeded", "message": told}, 0: {"type": "expired"}, -1: {"type": "canceled"}}
                result = kinds.get(reply.status, {"type": "errored", "error": told})
                batch["lines"].append({"custom_id": request["custom_id"], "result": result})
                continue
            if reply.status == -1:
                batch["told"]["status"] = "cancelled"
                continue
            line = {"custom_id": request["custom_id"], "response": {"status_code": reply.status, "body": told}}
            if reply.status == 0:
                line |= {"response": None, "error": {"code": "batch_expired", "message": "it has expired"}}
            (good_lines if reply.status == 200 else bad_lines).append(line)
        for name, lines in (("output_file_id", good_lines), ("error_file_id", bad_lines)):
            if lines:
                batch["told"][name] = f"{batch['told']['id']}-{name}"
                self.files[batch["told"][name]] = "\n".join(map(json.dumps, lines)).encode()
        if batch["told"].get("status") != "cancelled":
            batch["told"]["status"] = "expired" if bad_lines else "completed"
        batch["told"]["processing_status"] = "ended"


def as_json(body: dict) -> Reply:
    return Reply(body=json.dumps(body).encode())
