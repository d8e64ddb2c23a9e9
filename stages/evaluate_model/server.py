"""Any server that speaks like OpenAI (llama.cpp, Ollama, vLLM, a hosted model); the standard library is enough."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

import schema
from stages.evaluate_model.asking import FAILED, Answer, Item, Sampling, no_description, prompt_messages

if TYPE_CHECKING:
    from urllib.error import HTTPError

KEY_NAME = "OPENAI_API_KEY"
_TRIES, _GIVE_UP, _LONGEST_WAIT, _LONGEST_ANSWER, _TOLD = 4, 8, 60.0, 1 << 24, 200
_FATAL = {401, 402, 403, 404}  # no prompt at all will be answered
_REFUSED = {400, 413, 422}  # not this one
_FINISHES = {"stop": "eos", "length": "length"}


class NoAnswer(Exception):
    """It may work the next time; `wait` is how many seconds the server asked for."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


def no_redirects() -> Any:
    """What opens addresses, except those that an answer sends us to: they would get the key, too."""
    from urllib.request import HTTPRedirectHandler, build_opener

    class Stay(HTTPRedirectHandler):
        def redirect_request(self, *_: Any) -> None:
            return None

    return build_opener(Stay)


class Server:
    """A model behind an address."""

    def __init__(
        self,
        url: str,
        model: str,
        key: str,
        sampling: Sampling,
        *,
        concurrency: int,
        system: str | None,
        timeout: float,
        more: dict[str, Any],
    ):
        self.url, self.model, self.key, self.sampling, self.more = url.rstrip("/"), model, key, sampling, more
        self.concurrency, self.system, self.timeout = concurrency, system, timeout
        self.opener = no_redirects()

    def identity(self) -> dict[str, Any]:
        return {"server": host_of(self.url), "model": self.model, "parameters": self.more}

    def prompt(self, record: schema.Record) -> list[dict[str, str]] | schema.Fault:
        return no_description(record) or prompt_messages(record, self.system)

    def ask(self, items: list[Item], known: set[int]) -> Iterator[dict[int, Answer]]:
        """Several at a time; each answer is handed on as it comes."""
        from concurrent.futures import ThreadPoolExecutor, as_completed

        fatal: list[schema.Failure] = []

        def ask_one(item: Item) -> Answer:
            if fatal:  # known here before anybody can call off what waits
                raise fatal[0]
            try:
                return self.answer(item)
            except schema.Failure as error:
                fatal.append(error)
                raise

        with ThreadPoolExecutor(self.concurrency) as pool:
            waiting = {
                pool.submit(ask_one, item): position for position, item in enumerate(items) if position not in known
            }
            try:
                silent = 0
                for done in as_completed(waiting):
                    answer = done.result()
                    yield {waiting[done]: answer}
                    silent = silent + 1 if answer.finish == FAILED else 0
                    if silent == _GIVE_UP:
                        raise schema.Failure(f"{host_of(self.url)}: {silent} prompts in a row without an answer")
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def answer(self, item: Item) -> Answer:
        """The answer to one prompt; after several tries without one, an answer that says so."""
        body = self.body(item.prompt, self.sampling.seed + item.sample)
        for attempt in range(_TRIES):
            try:
                return self.once(body)
            except NoAnswer as error:
                said = error
                if attempt < _TRIES - 1:
                    time.sleep(min(_LONGEST_WAIT, max(error.wait, 0.25 * 4**attempt)))
        schema.log(f"evaluate_model: {host_of(self.url)} did not answer {_TRIES} times: {said}")
        return Answer("", 0, FAILED)

    def body(self, messages: list[dict[str, str]], seed: int) -> dict[str, Any]:
        sampling = self.sampling
        told: dict[str, Any] = {"model": self.model, "messages": messages, "max_tokens": sampling.max_new_tokens}
        told |= {"temperature": sampling.temperature, "seed": seed}
        return told | ({"top_p": sampling.top_p} if sampling.temperature else {}) | self.more

    def once(self, body: dict[str, Any]) -> Answer:
        from http.client import HTTPException
        from urllib.error import HTTPError

        try:
            with self.open(body) as response:
                found = json.loads(response.read(_LONGEST_ANSWER))
            choice = found["choices"][0]
            text, finish = choice["message"].get("content") or "", str(choice.get("finish_reason"))
            tokens = (found.get("usage") or {}).get("completion_tokens")
            return Answer(str(text), tokens if isinstance(tokens, int) else 0, _FINISHES.get(finish, finish))
        except HTTPError as error:
            return self.refused(error)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise NoAnswer(f"an answer that makes no sense ({type(error).__name__})") from None
        except (OSError, HTTPException) as error:
            raise NoAnswer(f"{type(error).__name__}: {self.words(str(error))}") from None

    def open(self, body: dict[str, Any]) -> Any:
        from urllib.request import Request

        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        headers |= {"Authorization": f"Bearer {self.key}"} if self.key else {}
        data = json.dumps(body, ensure_ascii=True).encode()
        request = Request(f"{self.url}/chat/completions", data, headers, method="POST")
        return self.opener.open(request, timeout=self.timeout)

    def refused(self, error: HTTPError) -> Answer:
        """What a status means: for all prompts, for this one, or for now."""
        said = self.words(error.read(_LONGEST_ANSWER).decode("utf-8", "replace"))
        if error.code in _FATAL or 300 <= error.code < 400 or "insufficient_quota" in said:
            raise schema.Failure(f"{host_of(self.url)} says {error.code}: {said or error.reason}") from None
        if error.code in _REFUSED:
            schema.log(f"evaluate_model: refused ({error.code}): {said}", level=1)
            return Answer("", 0, "refused")
        after = error.headers.get("Retry-After", "")
        raise NoAnswer(f"{error.code}: {said}", float(after) if re.fullmatch(r"\d+(\.\d+)?", after) else 0.0) from None

    def words(self, text: str) -> str:
        """What an error says, in one line and without the key."""
        line = " ".join(text.split())
        return (line.replace(self.key, "[key]") if self.key else line)[:_TOLD]

    def reply(self, messages: list[dict[str, str]], say: Callable[[str], None]) -> str:
        """One answer in a conversation; `say` gets it as it grows."""
        from http.client import HTTPException
        from urllib.error import HTTPError

        pieces = []
        try:
            with self.open({**self.body(messages, self.sampling.seed), "stream": True}) as response:
                for line in response:
                    for piece in _pieces(line):
                        pieces.append(piece)
                        say(piece)
        except HTTPError as error:
            said = self.words(error.read(_LONGEST_ANSWER).decode("utf-8", "replace"))
            raise schema.Failure(f"{host_of(self.url)} says {error.code}: {said}") from None
        except (OSError, HTTPException, ValueError) as error:
            raise schema.Failure(f"{host_of(self.url)}: {self.words(str(error))}") from None
        return "".join(pieces)


def _pieces(line: bytes) -> Iterator[str]:
    """The text in one line of an event stream."""
    if not line.startswith(b"data:") or line[5:].strip() in (b"", b"[DONE]"):
        return
    for choice in json.loads(line[5:]).get("choices", []):
        if text := (choice.get("delta") or {}).get("content"):
            yield text


def checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise click.UsageError(f"--base-url {url}: it takes an address such as http://127.0.0.1:8080/v1")
    return url


def parameters(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, Any]:
    """NAME=VALUE, the value as JSON if it is any."""
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{text!r} is not of the form repeat_penalty=1.0")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def host_of(url: str) -> str:
    """The part of an address that tells two servers apart; a password in it stays out of messages."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.hostname or ''}{port}{parts.path.rstrip('/')}"


def find_key(file: Path | None) -> str:
    """From a file or the environment; a local server wants none."""
    key = file.read_text("utf-8", "replace").strip() if file else os.environ.get(KEY_NAME, "").strip()
    if key and not re.fullmatch(r"[\x21-\x7e]+", key):
        place = f"--api-key-file {file}" if file else KEY_NAME
        raise click.UsageError(f"{place}: the key holds a space, a second line or a character outside ASCII")
    return key
