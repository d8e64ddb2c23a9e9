"""A loopback server that speaks like OpenAI (chat completions) and Anthropic (messages), with a log of all requests.

    with FakeLLM() as server:
        run_script(..., "--base-url", server.url("openai"), ...)
        assert len(server.log) == 1

`server.plan` decides what happens to a call: it gets the Call and returns a Reply, or None for a good answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
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


class FakeLLM:
    """The server, in a thread of its own."""

    def __init__(self) -> None:
        self.plan: Callable[[Call], Reply | None] = lambda call: None
        self.log: list[Call] = []
        self.in_flight = self.most_in_flight = 0
        self.attempts: Counter[str] = Counter()
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
        return f"http://127.0.0.1:{self.port}{'/v1' if api == 'openai' else ''}"

    def reset(self) -> None:
        self.plan = lambda call: None
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
        body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))))
        api = "openai" if lines[0].split()[1] == "/v1/chat/completions" else "anthropic"
        assert api == "openai" or lines[0].split()[1] == "/v1/messages", lines[0]
        key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        call = Call(api, key, body, len(self.log), 0)
        call.attempt = self.attempts[call.prompt]
        self.attempts[call.prompt] += 1
        self.log.append(call)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            reply = self.plan(call) or good(call)
            await asyncio.sleep(reply.delay)
        finally:
            self.in_flight -= 1
        if reply.drop:
            raise ConnectionResetError
        told = {"content-type": "application/json", **reply.headers, "content-length": len(reply.body)}
        lines = [f"HTTP/1.1 {reply.status} X", *(f"{name}: {value}" for name, value in told.items())]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + reply.body)
        await writer.drain()
