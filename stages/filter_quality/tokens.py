"""How many tokens a record has for the model that it is for: its tokenizer and its own chat template, nothing else.

No transformers: the `tokenizers` package reads tokenizer.json, and the template is rendered as transformers does it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import click

import schema

MARKER = "\n...[Truncated]"
# No byte-level tokenizer makes more tokens than there are bytes: a bound for a model that is not chosen, or not built.
BYTES = "bytes"
_FILES = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"]


class Size(NamedTuple):
    """Tokens of what is asked, with the frame of the template, and of the answer with its end."""

    prompt: int
    answer: int

    @property
    def all(self) -> int:
        return self.prompt + self.answer


class Budget(NamedTuple):
    """The most tokens that a record may have, and whose tokens they are."""

    most: int
    tokenizer: str

    def size(self, record: schema.Record) -> Size:
        """Document chunks are read as they are; everything else is asked for and answered."""
        encode, render = _load(self.tokenizer)
        if not record["description"].strip():
            return Size(0, encode(record["code"]))
        question = [{"role": "user", "content": record["description"]}]
        if isinstance(system := record["metadata"].get("system"), str) and system:
            question.insert(0, {"role": "system", "content": system})
        whole = encode(render([*question, {"role": "assistant", "content": record["code"]}], ask=False))
        prompt = min(whole, encode(render(question, ask=True)))
        return Size(prompt, whole - prompt)

    def fitted(self, record: schema.Record) -> schema.Record:
        """The record with the end of its question cut off until it fits, where a question holds a text to work on.

        An answer is never cut, nor the request for a program: half of a request asks for something else.
        """
        size = self.size(record)
        if record["metadata"].get("kind", "code") == "code" or not record["description"].strip():
            return record
        shorter, left = record, size
        text = record["description"]
        while left.all > self.most and text:
            # Text has at least one character a token, and what is cut must be worth at least what is too much.
            text = text[
                : min(len(text) - 1, int(len(text) * (1 - (left.all - self.most) / max(1, left.prompt))))
            ].rstrip()
            shorter = {**record, "description": text + MARKER}
            left = self.size(shorter)
        if left.all > self.most or shorter is record:
            return record
        cut = {
            "trimmed": {"tokens_before": size.all, "tokens": left.all},
            "original_description": record["description"],
        }
        return {**shorter, "metadata": {**cut, **shorter["metadata"], "trimmed": cut["trimmed"]}}

    def check(self) -> None:
        """Everything that can be wrong with the tokenizer, before the first row."""
        _load(self.tokenizer)


@cache
def _load(name: str) -> tuple[Callable[[str], int], Callable[..., str]]:
    if name == BYTES:
        return _count_bytes, _plain_turns
    try:
        from jinja2 import TemplateError
        from tokenizers import Tokenizer
    except ImportError as error:
        raise click.UsageError(f"--max-tokens needs the package {error.name}: pip install 'linemill[tokens]'") from None
    folder = _folder(name)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    render = _renderer(name, folder)

    def encode(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    try:
        encode(render([{"role": "user", "content": "a"}], ask=True))
    except TemplateError as error:
        raise click.UsageError(f"--tokenizer {name}: its chat template does not render: {error}") from None
    return encode, render


def _count_bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _plain_turns(messages: list[dict[str, str]], *, ask: bool) -> str:
    turns = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in messages)
    return turns + ("<|im_start|>assistant\n" if ask else "")


def _folder(name: str) -> Path:
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "tokenizer.json").is_file():
            raise click.UsageError(f"--tokenizer {name}: there is no tokenizer.json in this folder")
        return folder
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError:
        raise click.UsageError(
            f"--tokenizer {name}: no such folder; to fetch one: pip install 'linemill[tokens]'"
        ) from None
    try:
        folder = Path(snapshot_download(name, allow_patterns=_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise click.UsageError(f"--tokenizer {name}: no such folder, and the hub does not give it: {reason}") from None
    if not (folder / "tokenizer.json").is_file():
        raise click.UsageError(f"--tokenizer {name}: the hub has no tokenizer.json for it")
    return folder


def _renderer(name: str, folder: Path) -> Callable[..., str]:
    """The chat template as a function, in the environment that transformers gives templates."""
    from jinja2.exceptions import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    config = _json(folder / "tokenizer_config.json")
    file = folder / "chat_template.jinja"
    text = file.read_text("utf-8") if file.is_file() else config.get("chat_template")
    if isinstance(text, list):  # several templates by name
        text = {each["name"]: each["template"] for each in text}.get("default")
    if not isinstance(text, str):
        raise click.UsageError(f"--tokenizer {name}: it has no chat template, so its rows can not be counted")

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.globals["raise_exception"] = refuse
    # A date in the prompt is as long on every day, and a count must not change overnight.
    environment.globals["strftime_now"] = lambda form: "26 Jul 2024"
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    template = environment.from_string(text)
    special = _json(folder / "special_tokens_map.json") | config
    tokens = {key: _text(special.get(key)) for key in ("bos_token", "eos_token", "unk_token", "pad_token")}

    def render(messages: list[dict[str, str]], *, ask: bool) -> str:
        return template.render(messages=messages, add_generation_prompt=ask, **tokens)

    return render


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}


def _text(token: Any) -> str:
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")


def table(sizes: list[Size]) -> str:
    """How long the rows are; the last column is the longest."""
    shares = (50, 90, 95, 99, 100)
    head = "tokens  " + "".join(f"{'max' if share == 100 else f'p{share}':>9}" for share in shares)
    columns = {
        "prompt": sorted(size.prompt for size in sizes),
        "answer": sorted(size.answer for size in sizes),
        "row": sorted(size.all for size in sizes),
    }
    lines = [
        f"{name:<8}" + "".join(f"{values[max(0, -(-len(values) * share // 100) - 1)]:>9,}" for share in shares)
        for name, values in columns.items()
    ]
    return "\n".join([head, *lines])
