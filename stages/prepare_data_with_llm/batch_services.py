"""The batch services of the two providers that have one: how a batch is sent, found again, watched and read."""

import json
from datetime import UTC, datetime
from typing import Any, NamedTuple

from stages.prepare_data_with_llm.providers import Provider

CLOCKS = 120.0  # seconds that the provider's clock may differ from ours
Bodies = dict[str, dict[str, Any]]  # by the id of the request


class Line(NamedTuple):
    """What became of one request of a batch: the body of its answer, or what was wrong."""

    id: str
    body: dict[str, Any] | None
    problem: str = ""
    is_final: bool = False  # it would be refused again


class OpenAIBatches:
    """Files of requests and answers; a batch carries our name, so that it can be found again."""

    def __init__(self, provider: Provider) -> None:
        self.provider, self.client = provider, provider.client

    async def send(self, name: str, bodies: Bodies) -> str:
        lines = [
            {"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": body}
            for id, body in bodies.items()
        ]
        data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode(errors="replace")
        file = await self.client.files.create(file=(f"{name}.jsonl", data), purpose="batch")
        sent = await self.client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"linemill": name},
        )
        return str(sent.id)

    async def find(self, name: str, created: float, count: int, taken: set[str]) -> str | None:
        async for batch in self.client.batches.list(limit=100):
            if (batch.metadata or {}).get("linemill") == name:
                return str(batch.id)
            if batch.created_at < created - CLOCKS:
                break
        return None

    async def state(self, id: str) -> tuple[bool, str]:
        """Whether a batch has ended, and how it stands."""
        batch = await self.client.batches.retrieve(id)
        counts = batch.request_counts
        done = f", {counts.completed:,} of {counts.total:,}" if counts else ""
        problems = [error.message for error in (batch.errors.data or [] if batch.errors else [])]
        ended = batch.status in ("completed", "failed", "expired", "cancelled")
        return ended, f"{batch.status}{done}{': ' + str(problems[0]) if problems else ''}"

    async def lines(self, id: str) -> list[Line]:
        """Answers and errors, in the order in which the provider gives them."""
        batch = await self.client.batches.retrieve(id)
        files = filter(None, (batch.output_file_id, batch.error_file_id))
        return [
            read_openai_line(line)
            for file in files
            for line in await json_lines(self.provider, f"/files/{file}/content")
        ]


class AnthropicBatches:
    """Requests in one call; a batch has no name, so that one is found again by its time and size."""

    def __init__(self, provider: Provider) -> None:
        self.provider, self.client = provider, provider.client

    async def send(self, name: str, bodies: Bodies) -> str:
        requests = [{"custom_id": id, "params": body} for id, body in bodies.items()]
        return str((await self.client.messages.batches.create(requests=requests)).id)

    async def find(self, name: str, created: float, count: int, taken: set[str]) -> str | None:
        async for batch in self.client.messages.batches.list(limit=100):
            if batch.created_at < datetime.fromtimestamp(created - CLOCKS, UTC):
                break
            counts = batch.request_counts
            total = counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired
            if total == count and batch.id not in taken:
                return str(batch.id)
        return None

    async def state(self, id: str) -> tuple[bool, str]:
        batch = await self.client.messages.batches.retrieve(id)
        return batch.processing_status == "ended", str(batch.processing_status)

    async def lines(self, id: str) -> list[Line]:
        path = f"/v1/messages/batches/{id}/results"
        return [read_anthropic_line(line) for line in await json_lines(self.provider, path)]


Batches = OpenAIBatches | AnthropicBatches
SERVICES: dict[str, type[OpenAIBatches] | type[AnthropicBatches]] = {
    "openai": OpenAIBatches,
    "anthropic": AnthropicBatches,
}


def read_openai_line(line: dict[str, Any]) -> Line:
    response = line.get("response") or {}
    status, body = response.get("status_code"), response.get("body") or {}
    if status == 200:
        return Line(line["custom_id"], body)
    error = line.get("error") or body.get("error") or {}
    words = str(error.get("message") or error.get("code") or f"status {status}")
    return Line(line["custom_id"], None, words, is_final=status in (400, 413, 422))


def read_anthropic_line(line: dict[str, Any]) -> Line:
    result = line["result"]
    if result["type"] == "succeeded":
        return Line(line["custom_id"], result["message"])
    error = (result.get("error") or {}).get("error") or {}
    words = str(error.get("message") or result["type"])
    return Line(line["custom_id"], None, words, is_final=error.get("type") == "invalid_request_error")


async def json_lines(provider: Provider, path: str) -> list[dict[str, Any]]:
    import httpx2

    reply = await provider.client.get(path, cast_to=httpx2.Response)
    return [json.loads(line) for line in reply.content.split(b"\n") if line.strip()]
