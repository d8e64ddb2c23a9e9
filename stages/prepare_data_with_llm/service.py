"""Who is asked and on what terms: the options that all asking commands share, and how a request is made of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import wraps
from pathlib import Path
from typing import Any

import click

import schema
from stages.prepare_data_with_llm import keys
from stages.prepare_data_with_llm import structure as structures
from stages.prepare_data_with_llm.prompt import Prompt
from stages.prepare_data_with_llm.questions import Request
from stages.prepare_data_with_llm.structure import MEANS, Structure

CACHE = ".cache/llm"
URL_NAMES = {"openai": "OPENAI_BASE_URL", "anthropic": "ANTHROPIC_BASE_URL", "gemini": "GEMINI_BASE_URL"}


@dataclass(frozen=True)
class Service:
    """Who is asked and on what terms."""

    provider: str  # "offline", "openai", "anthropic" or "gemini"
    model: str
    url: str
    host: str
    key: str = field(repr=False)
    concurrency: int
    rpm: int | None
    tpm: int | None
    retries: int
    timeout: float
    cache_dir: Path
    max_usd: float | None
    price: tuple[float, float] | None
    batch: bool
    wait: bool
    dry_run: bool
    batch_size: int
    record: Path | None
    replay: Path | None
    structure: Structure
    live: bool = True  # whether what is not in the cache is asked for now

    @property
    def author(self) -> str:
        return f"{self.provider}/{self.model}"

    def request(self, task: str, prompt: Prompt, user: str, images: tuple[str, ...] = ()) -> Request:
        """What this service is asked for a task by a prompt, of which `user` is the filled part."""
        from stages.prepare_data_with_llm.providers import sent_parameters

        parameters = sent_parameters(self.provider, self.host, self.model, prompt.temperature)
        task = f"{task}/1 {prompt.version}"
        if self.batch_size > 1:  # an answer that was written beside others is another answer
            task = f"{task} in calls of {self.batch_size}"
        return self.structure.of(
            Request(
                task=task,
                provider=self.provider,
                host=self.host,
                model=self.model,
                system=prompt.system,
                user=user,
                schema=prompt.schema,
                max_tokens=prompt.max_tokens,
                parameters=parameters,
                images=images,
            )
        )


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options about asking; the command gets them as one parameter, `service`."""

    @wraps(command)
    def with_service(**others: Any) -> Any:
        told = {name: others.pop(name) for name in NAMES}
        return command(service=choose(**told), **others)

    return schema.stacked(OPTIONS)(with_service)


def deferred_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a command that may ask nobody: it gets a function that chooses the service, and the cache folder."""

    @wraps(command)
    def with_choice(**others: Any) -> Any:
        told = {name: others.pop(name) for name in NAMES}
        return command(service=lambda: choose(**told), cache_dir=told["cache_dir"], **others)

    return schema.stacked(OPTIONS)(with_choice)


def cache_option(command: Any) -> Any:
    return click.option(
        "--cache-dir", default=CACHE, type=click.Path(path_type=Path), help="Folder that keeps every answer."
    )(command)


def choose(
    llm: str | None,
    model: str | None,
    base_url: str | None,
    api_key_file: Path | None,
    structured: str | None,
    **terms: Any,
) -> Service:
    """The service that the options and the keys name, with what the user left open filled in."""
    from stages.prepare_data_with_llm.providers import DEFAULT_MODELS, DEFAULT_URLS, host_of

    if (llm == "replay") != bool(terms["replay"]):
        raise click.UsageError("--llm replay and --replay FILE need each other")
    if terms["batch_size"] > 1 and terms["batch"]:
        raise click.UsageError("--batch-size and --batch exclude each other: a batch service takes rows one by one")
    if terms["replay"]:
        return replayed(model, **terms)
    if api_key_file and not api_key_file.is_file():
        raise click.UsageError(f"--api-key-file {api_key_file}: there is no such file")
    provider, key = keys.choose(llm, api_key_file)
    if llm is None:
        schema.log(f"--llm {provider}: " + ("its key is here" if key else "there is no key, so nobody is asked"))
    if provider == "offline":
        return Service(provider, "", "", "", key, structure=Structure(MEANS[0]), **terms)
    url = base_url or os.environ.get(URL_NAMES[provider]) or DEFAULT_URLS[provider]
    host = host_of(url)
    if not host:
        raise click.UsageError(f"--base-url {url}: it begins with http:// or https:// and names a host")
    if terms["batch"] and provider not in ("openai", "anthropic"):
        raise click.UsageError(f"--batch: {provider} has no batch service that we know; leave it out")
    model = model or DEFAULT_MODELS[provider]
    structure = structures.choose(structured, f"{model} at {host}", terms["cache_dir"])
    return Service(provider, model, url, host, key, structure=structure, **terms)


def replayed(model: str | None, **terms: Any) -> Service:
    """The service that a recorded run has asked, so that its requests are the same."""
    from stages.prepare_data_with_llm.replay import first_request

    if not terms["replay"].is_file():
        raise click.UsageError(f"--replay {terms['replay']}: there is no such file")
    if terms["dry_run"] or terms["batch"]:
        raise click.UsageError("--dry-run and --batch have no meaning here: a replay asks nobody and costs nothing")
    first = first_request(terms["replay"])
    structure = Structure(first.parameters.get("structured", MEANS[0]))
    return Service(first.provider, model or first.model, "", first.host, "", structure=structure, **terms)


class Prices(click.ParamType[tuple[float, float]]):
    """Two amounts of dollars."""

    name = "in,out"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, float]:
        try:
            read, written = (float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r}: two numbers are expected, as in 0.15,0.60", param, ctx)
        if not (0 <= read < 1e6 and 0 <= written < 1e6):
            self.fail(f"{value!r}: a price is not negative, and below a million", param, ctx)
        return read, written


OPTIONS = [
    click.option(
        "--llm",
        type=click.Choice(["offline", "openai", "claude", "anthropic", "gemini", "replay"]),
        help="Who writes.  [default: whose key is there; offline without a key]",
    ),
    click.option("--model", help="Model to ask.  [default: gpt-4o-mini, claude-haiku-5-5, gemini-2.5-flash]"),
    click.option("--base-url", metavar="URL", help="Another server that speaks the provider's protocol."),
    click.option(
        "--structured",
        type=click.Choice(MEANS),
        help="How the server is told the shape of the answer: by a JSON schema, by its JSON mode, by words alone.  "
        "[default: native, and what follows if the server refuses it]",
    ),
    click.option("--concurrency", default=16, type=click.IntRange(1, 4096), help="Calls under way at the same time."),
    click.option("--rpm", type=click.IntRange(1), metavar="N", help="Most calls in a minute.  [default: no limit]"),
    click.option(
        "--tpm",
        type=click.IntRange(1),
        metavar="N",
        help="Most tokens in a minute, counting the longest answers allowed.  [default: no limit]",
    ),
    click.option("--retries", default=5, type=click.IntRange(0, 100), help="Further attempts after a passing failure."),
    click.option("--timeout", default=120.0, type=click.FloatRange(0.1), metavar="S", help="Seconds for one call."),
    click.option(
        "--api-key-file", type=click.Path(path_type=Path), metavar="FILE", help="File with nothing but the key."
    ),
    click.option(
        "--max-usd",
        type=click.FloatRange(0, min_open=True),
        metavar="X",
        help="Most dollars that this run may cost; a call that might cost more than is left is not made.",
    ),
    click.option(
        "--price",
        type=Prices(),
        metavar="IN,OUT",
        help="Dollars for a million tokens read and written.  [default: the price table]",
    ),
    click.option(
        "--batch-size",
        default=1,
        type=click.IntRange(1, 100),
        metavar="K",
        help="Rows in one call; a row that its answer leaves out is asked alone.",
    ),
    click.option(
        "--record", type=click.Path(path_type=Path), metavar="FILE", help="Write every request with its answer there."
    ),
    click.option(
        "--replay",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="With --llm replay: take all answers from this recorded file.",
    ),
    click.option("--batch", is_flag=True, help="Ask by the provider's batch service: half the price, up to a day."),
    click.option(
        "--wait/--no-wait", default=True, help="Wait for batches; without it `collect` fetches what they bring."
    ),
    click.option("--dry-run", is_flag=True, help="Say what would be asked, ask nothing, write nothing."),
    cache_option,
]
NAMES = [
    "llm",
    "model",
    "base_url",
    "api_key_file",
    "structured",
    *(
        f.name
        for f in fields(Service)
        if f.name not in ("provider", "model", "url", "host", "key", "structure", "live")
    ),
]
