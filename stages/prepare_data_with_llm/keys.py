"""Which provider is asked, and its key: from the environment, from .env in the current folder, or from a file."""

import os
import re
from pathlib import Path

import click

import schema

KEY_NAMES = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY", "gemini": "GEMINI_API_KEY"}
ALIASES = {"claude": "anthropic"}


def choose(asked: str | None, key_file: Path | None) -> tuple[str, str]:
    """The provider and its key; ("offline", "") where nobody is to be asked."""
    if asked == "offline":
        return "offline", ""
    if key_file and asked is None:
        raise click.UsageError("--api-key-file needs --llm: a key does not tell whose it is")
    settings = {**schema.dotenv(Path(".env")), **{name: value for name, value in os.environ.items() if value}}
    keys = {provider: settings[name] for provider, name in KEY_NAMES.items() if settings.get(name, "").strip()}
    if asked is None:
        if len(keys) > 1:
            names = " and ".join(KEY_NAMES[provider] for provider in keys)
            raise click.UsageError(f"there are keys for several providers ({names}); say which with --llm")
        return next(iter(keys.items()), ("offline", ""))
    provider = ALIASES.get(asked, asked)
    key = read_key(key_file) if key_file else keys.get(provider)
    if not key:
        raise click.UsageError(
            f"--llm {asked} needs {KEY_NAMES[provider]} in the environment or in .env, or --api-key-file; "
            "a local server that wants no key takes any word"
        )
    return provider, checked(key.strip(), KEY_NAMES[provider])


def read_key(path: Path) -> str:
    lines = [line.strip() for line in path.read_text("utf-8", "replace").splitlines() if line.strip()]
    if len(lines) != 1:
        raise click.UsageError(f"--api-key-file {path}: it holds {len(lines)} lines, not one key")
    return checked(lines[0], f"--api-key-file {path}")


def checked(key: str, place: str) -> str:
    """A key that can be sent; one with a stray character would only fail in the middle of the HTTP library."""
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise click.UsageError(f"{place}: the key holds a space or a character outside ASCII")
    return key
