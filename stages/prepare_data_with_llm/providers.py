"""One call to a provider through its official package, and what its failures mean."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import click

from stages.prepare_data_with_llm.questions import Answer, Request
from stages.prepare_data_with_llm.service import Service

DEFAULT_MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-haiku-5-5"}
DEFAULT_URLS = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
TOLD = 300  # characters of a provider's words that are passed on


class Transient(Exception):
    """It may work the next time; `wait` is how many seconds the provider asked for."""

    def __init__(self, message: str, wait: float | None = None, limited: bool = False) -> None:
        super().__init__(message)
        self.wait, self.limited = wait, limited


class Refused(Exception):
    """This request will never be answered."""


class Fatal(Exception):
    """No request will be answered: a wrong key, no money, no such model."""


@dataclass
class Provider:
    """An open connection to a provider."""

    client: Any
    send: Callable[[Any, Request], Awaitable[Answer]]
    seconds: float
    secret: str

    async def call(self, request: Request) -> Answer:
        """The answer, or one of the three failures above; a key never stands in their words."""
        import aiohttp

        try:
            # The package's own limit is for each read; a server that sends a byte now and then would pass it.
            async with asyncio.timeout(self.seconds):
                return await self.send(self.client, request)
        except TimeoutError:
            raise Transient(f"no answer within {self.seconds:g} seconds") from None
        except (ValueError, AttributeError, TypeError, IndexError, KeyError) as error:
            raise Transient(f"an answer that makes no sense ({type(error).__name__})") from None
        except (OSError, aiohttp.ClientError) as error:
            raise Transient(f"{type(error).__name__}: {self.words(error)}") from None
        except Exception as error:
            if type(error).__module__.split(".")[0] not in ("openai", "anthropic"):
                raise
            raise meaning(error, self.words(error)) from None

    def words(self, error: Exception) -> str:
        """What an error says, in one line and without the key."""
        cause = error.__cause__ if getattr(error, "status_code", None) is None else None
        text = " ".join(f"{error} {cause or ''}".split())
        return text.replace(self.secret, "[key]")[:TOLD]


def meaning(error: Exception, words: str) -> Exception:
    """Which of the three failures an error of a provider's package is."""
    status = getattr(error, "status_code", None)
    if status is None or status < 400:
        return Transient(words)
    if status in (401, 402, 403, 404) or is_about_money(status, error):
        return Fatal(words)
    if status in (408, 409, 429) or status >= 500:
        return Transient(words, retry_after(error), limited=status == 429)
    return Refused(words)


def is_about_money(status: int, error: Exception) -> bool:
    """An empty account: OpenAI says 429 like for a rate limit, Anthropic 400 like for a bad request."""
    text = json.dumps(getattr(error, "body", None), default=str)
    signs = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "credit balance is too low")
    return status in (400, 429) and any(sign in text for sign in signs)


def retry_after(error: Exception) -> float | None:
    """The seconds that a provider asks us to wait: a number or a date."""
    headers = getattr(getattr(error, "response", None), "headers", {})
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


def host_of(url: str) -> str:
    """What tells two servers apart, or "" if it is no address; a password stays out of keys and messages."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.hostname}{port}{parts.path.rstrip('/')}"


def sent_parameters(provider: str, host: str, model: str, temperature: float) -> dict[str, Any]:
    """What is sent besides the texts. Newer models of both providers refuse a temperature."""
    if provider == "anthropic":
        return {}
    official = host == host_of(DEFAULT_URLS["openai"])
    limit = {"limit_name": "max_completion_tokens" if official else "max_tokens"}
    takes_it = not official or model.startswith(("gpt-4o", "gpt-4.1", "gpt-3.5"))
    return limit | ({"temperature": temperature} if takes_it else {})


def connect(service: Service) -> Provider:
    """Open a client of the official package; it never retries by itself, the engine does."""
    settings: dict[str, Any] = {
        "api_key": service.key,
        "base_url": service.url,
        "max_retries": 0,
        "timeout": service.timeout,
    }
    try:
        import aiohttp  # noqa: F401  # both packages fall back to a slower transport without a word

        if service.provider == "openai":
            import openai

            client: Any = openai.AsyncOpenAI(http_client=openai.DefaultAioHttpClient(), **settings)
            return Provider(client, ask_openai, service.timeout, service.key)
        import anthropic

        client = anthropic.AsyncAnthropic(http_client=anthropic.DefaultAioHttpClient(), **settings)
    except ImportError as error:
        raise click.UsageError(
            f"--llm {service.provider} needs the package {error.name}: pip install 'linemill[llm]'"
        ) from None
    return Provider(client, ask_anthropic, service.timeout, service.key)


async def ask_openai(client: Any, request: Request) -> Answer:
    parameters = dict(request.parameters)
    answer = await client.chat.completions.create(
        model=request.model,
        messages=[{"role": "system", "content": request.system}, {"role": "user", "content": request.user}],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": request.schema},
        },
        **{parameters.pop("limit_name"): request.max_tokens},
        **parameters,
    )
    choice = answer.choices[0]
    refusal = getattr(choice.message, "refusal", None)
    refused = refusal or choice.finish_reason == "content_filter"
    finish = "refusal" if refused else "length" if choice.finish_reason == "length" else "stop"
    usage = answer.usage
    return Answer(
        text=refusal or choice.message.content or "",
        model=answer.model or request.model,
        finish=finish,
        input_tokens=usage.prompt_tokens if usage else 0,
        output_tokens=usage.completion_tokens if usage else 0,
    )


async def ask_anthropic(client: Any, request: Request) -> Answer:
    answer = await client.messages.create(
        model=request.model,
        system=request.system,
        messages=[{"role": "user", "content": request.user}],
        max_tokens=request.max_tokens,
        output_config={"format": {"type": "json_schema", "schema": request.schema}},
        **request.parameters,
    )
    if answer.stop_reason == "model_context_window_exceeded":
        raise Refused("the program is too long for the model")
    finish = {"refusal": "refusal", "max_tokens": "length"}.get(answer.stop_reason, "stop")
    return Answer(
        text="".join(block.text for block in answer.content if block.type == "text"),
        model=answer.model or request.model,
        finish=finish,
        input_tokens=answer.usage.input_tokens,
        output_tokens=answer.usage.output_tokens,
    )
