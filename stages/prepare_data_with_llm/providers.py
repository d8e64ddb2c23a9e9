"""One call to a provider through its official package, and what its failures mean."""

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import click

from stages.prepare_data_with_llm.questions import Answer, Request
from stages.prepare_data_with_llm.service import Service

DEFAULT_MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-haiku-5-5", "gemini": "gemini-2.5-flash"}
DEFAULT_URLS = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "gemini": "https://generativelanguage.googleapis.com/v1beta/openai/",
}
SHAPELESS = (400, 415, 422, 500, 501)  # what servers say that know no JSON schema; llama_cpp.server says 500
NEVER_LEFT = "Cannot connect to host"  # of aiohttp
TOLD = 300  # characters of a provider's words that are passed on
Headers = Mapping[str, str]
T = TypeVar("T")


class Shape(NamedTuple):
    """How a provider wants to be asked, and how it answers."""

    path: str
    body: Callable[[Request], dict[str, Any]]
    read: Callable[[dict[str, Any], Request], Answer]


class Transient(Exception):
    """It may work the next time; `wait` is how many seconds the provider asked for."""

    def __init__(
        self, message: str, wait: float | None = None, *, limited: bool = False, lost: bool = False, headers: Any = None
    ) -> None:
        super().__init__(message)
        self.wait, self.limited = wait, limited
        self.lost = lost  # there may have been an answer, and it may have to be paid for
        self.headers: Headers = headers or {}


class Refused(Exception):
    """This request will never be answered."""


class Unstructured(Refused):
    """The server does not know the means by which the shape of the answer was asked for."""


class Fatal(Exception):
    """No request will be answered: a wrong key, no money, no such model."""


@dataclass
class Provider:
    """An open connection to a provider."""

    name: str
    client: Any
    http: Any  # what the client sends by
    shape: Shape
    seconds: float
    secret: str
    pattern: Any = None  # the first request that got an answer

    async def call(self, request: Request) -> tuple[Answer, Headers]:
        """The answer, with the headers that came along."""
        return await self.guarded(self.ask(request))

    async def ask(self, request: Request) -> tuple[Answer, Headers]:
        import msgspec

        # As bytes, both ways: what the package makes of objects costs as much as all the rest of a call.
        reply = await self.post(msgspec.json.encode(self.shape.body(request)))
        return self.shape.read(msgspec.json.decode(reply.content), request), reply.headers

    async def post(self, content: bytes) -> Any:
        """Send by the package; once it has shown how, by its connections alone: to work out the same address and the
        same headers for each request costs it more than to send them."""
        import httpx2

        if self.pattern is None:
            reply = await self.client.post(self.shape.path, cast_to=httpx2.Response, content=content)
            self.pattern = reply.request
            del self.pattern.headers["content-length"]
            return reply
        first = self.pattern
        reply = await self.http.send(
            httpx2.Request("POST", first.url, headers=first.headers, content=content, extensions=first.extensions)
        )
        if reply.status_code >= 400:
            told = f"Error code: {reply.status_code} - {self.masked(reply.text)}"
            raise meaning(reply.status_code, told, reply.text, reply.headers)
        return reply

    async def guarded(self, work: Awaitable[T]) -> T:
        """What the work gives, or one of the three failures above; a key never stands in their words."""
        import aiohttp
        import httpx2

        try:
            # The package's own limit is for each read; a server that sends a byte now and then would pass it.
            async with asyncio.timeout(self.seconds):
                return await work
        except TimeoutError:
            raise Transient(f"no answer within {self.seconds:g} seconds", lost=True) from None
        except (ValueError, AttributeError, TypeError, IndexError, KeyError) as error:
            raise Transient(f"an answer that makes no sense ({type(error).__name__})", lost=True) from None
        except (OSError, aiohttp.ClientError, httpx2.HTTPError) as error:
            words = f"{type(error).__name__}: {self.words(error)}"
            raise Transient(words, lost=NEVER_LEFT not in words) from None
        except Exception as error:
            if type(error).__module__.split(".")[0] not in ("openai", "anthropic"):
                raise
            status, words = getattr(error, "status_code", None), self.words(error)
            if status is None or status < 400:
                raise Transient(words, lost=NEVER_LEFT not in words) from None
            body = json.dumps(getattr(error, "body", None), default=str)
            raise meaning(status, words, body, getattr(getattr(error, "response", None), "headers", {})) from None

    def words(self, error: Exception) -> str:
        """What an error says, in one line and without the key."""
        cause = error.__cause__ if getattr(error, "status_code", None) is None else None
        return self.masked(f"{error} {cause or ''}")

    def masked(self, text: str) -> str:
        return " ".join(text.split()).replace(self.secret, "[key]")[:TOLD]


def meaning(status: int, words: str, body: str, headers: Headers) -> Exception:
    """Which of the failures above an answer with this status is."""
    if status in (401, 402, 403, 404) or is_about_money(status, body):
        return Fatal(words)
    if status in SHAPELESS and any(name in body for name in ("response_format", "json_schema", "output_config")):
        return Unstructured(words)
    if status in (408, 409, 429) or status >= 500:
        return Transient(words, retry_after(headers), limited=status == 429, headers=headers)
    return Refused(words)


def is_about_money(status: int, body: str) -> bool:
    """An empty account: OpenAI says 429 like for a rate limit, Anthropic 400 like for a bad request."""
    signs = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "credit balance is too low")
    return status in (400, 429) and any(sign in body for sign in signs)


def retry_after(headers: Headers) -> float | None:
    """The seconds that a provider asks us to wait: a number or a date."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            return max(0.0, float(text) * unit)
        except ValueError:
            pass
        try:
            then = parsedate_to_datetime(text)
        except ValueError:
            continue
        import datetime

        return max(0.0, (then - datetime.datetime.now(then.tzinfo)).total_seconds())
    return None


@cache
def host_of(url: str) -> str:
    """What tells two servers apart, or "" if it is no address; a password stays out of keys and messages."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.hostname}{port}{parts.path.rstrip('/')}"


def sent_parameters(provider: str, host: str, model: str, temperature: float) -> dict[str, Any]:
    """What is sent besides the texts. Newer models of OpenAI and Anthropic refuse a temperature."""
    if provider == "anthropic":
        return {}
    official = host == host_of(DEFAULT_URLS["openai"])
    sent: dict[str, Any] = {"limit_name": "max_completion_tokens" if official else "max_tokens"}
    if not official or model.startswith(("gpt-4o", "gpt-4.1", "gpt-3.5")):
        sent["temperature"] = temperature
    if provider == "gemini" and model.startswith("gemini-2.5-flash"):
        sent["reasoning_effort"] = "none"  # what it thinks would count against max_tokens, and be paid for
    return sent


def connect(service: Service) -> Provider:
    """Open a client of the official package; it never retries by itself, the engine does."""
    settings: dict[str, Any] = {
        "api_key": service.key,
        "base_url": service.url,
        "max_retries": 0,
        "timeout": service.timeout,
    }
    gc.disable()  # the packages are a hundred thousand objects, and none of them is garbage
    try:
        import aiohttp  # noqa: F401  # both packages fall back to a slower transport without a word

        if service.provider == "anthropic":
            import anthropic

            http: Any = anthropic.DefaultAioHttpClient()
            client: Any = anthropic.AsyncAnthropic(http_client=http, **settings)
        else:
            import openai

            http = openai.DefaultAioHttpClient()
            client = openai.AsyncOpenAI(http_client=http, **settings)
    except ImportError as error:
        raise click.UsageError(
            f"--llm {service.provider} needs the package {error.name}: pip install 'linemill[llm]'"
        ) from None
    finally:
        gc.enable()
    gc.freeze()  # or every full collection would look through them
    return Provider(service.provider, client, http, SHAPES[service.provider], service.timeout, service.key)


def openai_body(request: Request) -> dict[str, Any]:
    parameters = dict(request.parameters)
    structured = parameters.pop("structured", "native")
    pictures = [{"type": "image_url", "image_url": {"url": address}} for address in request.images]
    text = {"type": "text", "text": request.user}
    body = {
        "model": request.model,
        "messages": [
            {"role": "system", "content": request.system},
            {"role": "user", "content": [*pictures, text] if pictures else request.user},
        ],
        "response_format": response_format(structured, request),
        parameters.pop("limit_name"): request.max_tokens,
        **parameters,
    }
    if structured == "text":
        del body["response_format"]
    return body


def response_format(structured: str, request: Request) -> dict[str, Any]:
    if structured == "native":
        schema = {"name": "answer", "strict": True, "schema": request.schema}
        return {"type": "json_schema", "json_schema": schema}
    # llama_cpp.server and others keep to a schema here that they do not know by its other name.
    official = request.host == host_of(DEFAULT_URLS["openai"])
    return {"type": "json_object"} if official else {"type": "json_object", "schema": request.schema}


def read_openai(body: dict[str, Any], request: Request) -> Answer:
    choice = body["choices"][0]
    message = choice["message"]
    refusal = message.get("refusal")
    refused = refusal or choice.get("finish_reason") == "content_filter"
    usage = body.get("usage") or {}
    return Answer(
        text=refusal or message.get("content") or "",
        model=body.get("model") or request.model,
        finish="refusal" if refused else "length" if choice.get("finish_reason") == "length" else "stop",
        input_tokens=usage.get("prompt_tokens") or 0,
        output_tokens=usage.get("completion_tokens") or 0,
        cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
    )


def anthropic_body(request: Request) -> dict[str, Any]:
    parameters = dict(request.parameters)
    native = parameters.pop("structured", "native") == "native"
    text = {"type": "text", "text": request.user}
    pictures = [anthropic_image(address) for address in request.images]
    return {
        "model": request.model,
        # The same for all rows: after the first call it is read from the provider's cache, at a tenth of the price.
        "system": [{"type": "text", "text": request.system, "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": [*pictures, text] if pictures else request.user}],
        "max_tokens": request.max_tokens,
        **({"output_config": {"format": {"type": "json_schema", "schema": request.schema}}} if native else {}),
        **parameters,
    }


def anthropic_image(address: str) -> dict[str, Any]:
    kind, _, data = address.removeprefix("data:").partition(";base64,")
    return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}


def read_anthropic(body: dict[str, Any], request: Request) -> Answer:
    reason = body["stop_reason"]
    usage = body.get("usage") or {}
    cached, stored = usage.get("cache_read_input_tokens") or 0, usage.get("cache_creation_input_tokens") or 0
    # A prompt that does not fit is like an answer that does not: it will not help to ask again.
    finish = {"refusal": "refusal", "max_tokens": "length", "model_context_window_exceeded": "refusal"}
    return Answer(
        text="".join(block["text"] for block in body["content"] if block["type"] == "text"),
        model=body.get("model") or request.model,
        finish=finish.get(reason, "stop"),
        input_tokens=(usage.get("input_tokens") or 0) + cached + stored,
        output_tokens=usage.get("output_tokens") or 0,
        cached_tokens=cached,
        stored_tokens=stored,
    )


OPENAI = Shape("/chat/completions", openai_body, read_openai)
SHAPES = {"openai": OPENAI, "gemini": OPENAI, "anthropic": Shape("/v1/messages", anthropic_body, read_anthropic)}
