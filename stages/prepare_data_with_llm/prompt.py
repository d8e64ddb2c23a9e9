"""The prompt file: a version, a system part and a user part with places for what is known about a program."""

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import click

import schema
from schema import Record

DEFAULT = Path(__file__).with_name("prompts") / "description.md"
CODE_LIMIT = 8000  # characters; 99 of 100 scenes are shorter, and the rest shows what it is about in its beginning
PLACES = ("code", "code_limit", "context", "features", "source")
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
SHAPE = re.compile(r"version: *(?P<version>\S+)\s+## system\n(?P<system>.*?)\n## user\n(?P<user>.*)", re.DOTALL)
# What an extractor may have found around a program, with the words that announce it.
AROUND = {
    "video_title": "Title of the video it is from",
    "title": "Title",
    "scene": "Name of the scene",
    "original_context": "Text around it",
    "before_context": "Text before it",
    "after_context": "Text after it",
}


@dataclass(frozen=True)
class Prompt:
    """A prompt file, read."""

    version: str
    system: str
    user: str

    @property
    def name(self) -> str:
        """Version and fingerprint: a prompt that was edited without a new version is another prompt all the same."""
        return f"{self.version}@{schema.sha256(schema.canonical([self.system, self.user]))[:12]}"

    def fill(self, record: Record, features: dict[str, Any] | None) -> str:
        """The user part for one record; what stands in the record is never taken for a place."""
        values = {
            "code": capped(record["code"]),
            "code_limit": f"{CODE_LIMIT:,}",
            "context": surroundings(record["metadata"]),
            "features": listed(features),
            "source": record["source"],
        }
        return re.sub(r"\{\{(\w+)\}\}", lambda place: values[place[1]], self.user)


def load(path: Path) -> Prompt:
    """A prompt file; what is wrong with it is said in one line."""
    try:
        text = path.read_text("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"--prompt {path}: not UTF-8 at byte {error.start}") from None
    found = SHAPE.fullmatch(text)
    if not found:
        raise click.UsageError(
            f"--prompt {path}: it needs a first line 'version: NAME/1', then the parts '## system' and '## user'"
        )
    wrong = set(re.findall(r"\{\{(.*?)\}\}", found["user"])) - set(PLACES)
    if wrong:
        raise click.UsageError(f"--prompt {path}: unknown place {{{{{min(wrong)}}}}}; there are {', '.join(PLACES)}")
    if "{{code}}" not in found["user"]:
        raise click.UsageError(f"--prompt {path}: the user part has no place {{{{code}}}} for the program")
    return Prompt(found["version"], found["system"].strip(), found["user"].strip())


def capped(code: str) -> str:
    if len(code) <= CODE_LIMIT:
        return code
    return f"{code[:CODE_LIMIT]}\n# ... cut here, {len(code) - CODE_LIMIT:,} characters more"


def surroundings(metadata: dict[str, Any]) -> str:
    """The text that came with a program, each piece announced."""
    origin = metadata.get("origin")
    documented = origin.get("object") if isinstance(origin, dict) else None
    pieces = [("It is an example in the documentation of", documented)]
    pieces += [(words, metadata.get(key)) for key, words in AROUND.items()]
    told = [f"{words}: {text.strip()}" for words, text in pieces if isinstance(text, str) and text.strip()]
    return "\n\n".join(told) or "Nothing is known about where it is from."


def listed(features: dict[str, Any] | None) -> str:
    """The features as one line; a program that can not be parsed has none."""
    if features is None:
        return "unknown"
    flags = [name.removeprefix("has_") for name, value in features.items() if value is True]
    return ", ".join([*flags, *features["visual_elements"]]) or "nothing special"


@cache
def validator() -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(SCHEMA)


def parse_answer(text: str) -> str:
    """The description in an answer. Raises ValueError with what is wrong, in words that the model can use."""
    try:
        answer = json.loads(text)
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if problem := next(validator().iter_errors(answer), None):
        raise ValueError(f"it does not follow the schema: {problem.message[:200]}")
    description = " ".join(answer["description"].split())
    if not description:
        raise ValueError("the description is empty")
    if UNPRINTABLE.search(description):
        raise ValueError("the description holds a control character or half of a pair of surrogates")
    return description


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"description": {"type": "string"}},
    "required": ["description"],
    "additionalProperties": False,
}
