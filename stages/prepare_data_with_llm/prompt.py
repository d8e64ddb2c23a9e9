"""The prompt file: settings, a system part, and a user part with places for what is known about a record.

version: description/2          the settings are YAML: what an answer must look like, and its limits
max_tokens: 400
schema: {...}

## system
...
## user
...{{code}}...
"""

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, NamedTuple

import click

import schema

FOLDER = Path(__file__).with_name("prompts")
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
SHAPE = re.compile(r"(?P<settings>.*?)\n## system\n(?P<system>.*?)\n## user\n(?P<user>.*)", re.DOTALL)
FENCE = re.compile(r"\s*```(?:json)?[ \t]*\n(.*)\n[ \t]*```\s*", re.DOTALL)
PLACE = re.compile(r"\{\{(.*?)\}\}")
LIMITS = ("max_tokens", "temperature", "words", "characters")


@dataclass(frozen=True)
class Prompt:
    """A prompt file, read."""

    version: str
    system: str
    user: str
    schema: dict[str, Any]  # of the answer
    max_tokens: int = 400
    temperature: float = 0.1
    words: int | None = None  # the most that an answer may have
    characters: int = 8000  # the most that is shown of a record

    @cached_property
    def name(self) -> str:
        """Version and fingerprint: a prompt that was edited without a new version is another prompt all the same."""
        return f"{self.version}@{schema.sha256(schema.canonical([self.system, self.user, self.schema]))[:12]}"

    @cached_property
    def validator(self) -> Any:
        from jsonschema import Draft202012Validator

        return Draft202012Validator(self.schema)

    @cached_property
    def is_valid(self) -> Any:
        import jsonschema_rs

        return jsonschema_rs.validator_for(self.schema).is_valid

    def fill(self, **values: object) -> str:
        """The user part for one record; what stands in the record is never taken for a place."""
        return fill(self.user, values)

    def answer(self, text: str) -> Any:
        """The value of an answer. Raises ValueError with what is wrong, in words that the model can use."""
        return self.checked(parse(text))

    def checked(self, value: Any) -> Any:
        # One package is fast, the words of the other one are better.
        if not self.is_valid(value):
            problem = next(self.validator.iter_errors(value), None)
            raise ValueError(f"it does not follow the schema: {problem.message[:200] if problem else value!r:.200}")
        return value


def parse(text: str) -> Any:
    """The value of a text, also of one in a fence: where no schema holds a model, it likes to put one around."""
    fence = FENCE.fullmatch(text)
    try:
        return json.loads(fence[1] if fence else text)
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def fill(text: str, values: dict[str, Any]) -> str:
    return PLACE.sub(lambda place: str(values[place[1]]), text)


def read_prompt(path: Path, *, fields: Collection[str], places: Collection[str], needs: str = "") -> Prompt:
    """A prompt file whose answers hold the fields, and which has no places but these, `needs` among them."""
    settings, (system, user) = read_parts(path)
    wrong = set(PLACE.findall(system + user)) - set(places)
    if wrong:
        raise click.UsageError(f"--prompt {path}: unknown place {{{{{min(wrong)}}}}}; there are {', '.join(places)}")
    if needs and f"{{{{{needs}}}}}" not in user:
        raise click.UsageError(f"--prompt {path}: the user part has no place {{{{{needs}}}}}")
    check_settings(path, settings, LIMITS)
    shape = settings.pop("schema", None)
    if not isinstance(shape, dict) or not set(fields) <= set(shape.get("properties", ())):
        raise click.UsageError(f"--prompt {path}: its schema must have the properties {', '.join(fields)}")
    return Prompt(system=system, user=user, schema=shape, **settings)


def read_parts(path: Path, shape: re.Pattern[str] = SHAPE) -> tuple[dict[str, Any], list[str]]:
    """The settings and the parts of a file; what is wrong with it is said in one line."""
    import yaml

    try:
        found = shape.fullmatch(path.read_text("utf-8").replace("\r\n", "\n"))
    except FileNotFoundError:
        raise click.UsageError(f"--prompt {path}: there is no such file") from None
    except UnicodeDecodeError as error:
        raise click.UsageError(f"--prompt {path}: not UTF-8 at byte {error.start}") from None
    try:
        settings = yaml.safe_load(found["settings"]) if found else None
    except yaml.YAMLError as error:
        raise click.UsageError(f"--prompt {path}: {' '.join(str(error).split())}") from None
    if not found or not isinstance(settings, dict) or not isinstance(settings.get("version"), str):
        names = " and ".join(f"'## {name}'" for name in list(shape.groupindex)[1:])
        raise click.UsageError(f"--prompt {path}: it needs a first line 'version: NAME/1', and below it {names}")
    return settings, [part.strip() for part in found.groups()[1:]]


class Wording(NamedTuple):
    """What the command line says about a prompt."""

    prompt: Path | None
    max_tokens: int | None
    temperature: float | None

    def limit(self, prompt: Prompt) -> Prompt:
        """The prompt with the limits that the command line names."""
        limits = {"max_tokens": self.max_tokens, "temperature": self.temperature}
        return replace(prompt, **{name: value for name, value in limits.items() if value is not None})  # type: ignore[arg-type]


def prompt_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a task that has a prompt file; the command gets them as one parameter, `wording`."""

    @wraps(command)
    def with_wording(prompt: Path | None, max_tokens: int | None, temperature: float | None, **others: Any) -> Any:
        return command(wording=Wording(prompt, max_tokens, temperature), **others)

    return schema.stacked(OPTIONS)(with_wording)


OPTIONS = [
    click.option(
        "--prompt", type=click.Path(path_type=Path), metavar="FILE", help="Prompt file to use instead of ours."
    ),
    click.option(
        "--max-tokens",
        type=click.IntRange(16),
        metavar="N",
        help="Longest answer, in tokens.  [default: what the prompt file says]",
    ),
    click.option(
        "--temperature",
        type=click.FloatRange(0, 2),
        metavar="T",
        help="How freely to write, for models that take this.  [default: what the prompt file says]",
    ),
]


def check_settings(path: Path, settings: dict[str, Any], known: Collection[str]) -> None:
    if unknown := settings.keys() - {"version", "schema", *known}:
        names = ", ".join(["version", "schema", *known])
        raise click.UsageError(f"--prompt {path}: unknown setting {min(unknown)!r}; there are {names}")
    for name in LIMITS:
        value = settings.get(name, 1)
        if type(value) not in (int, float) or value < 0 or (name != "temperature" and type(value) is not int):
            raise click.UsageError(f"--prompt {path}: {name} is {value!r}, not a number")


def plain(text: str, name: str) -> str:
    """A text of an answer that can stand in a record. Raises ValueError with what is wrong with it."""
    text = text.strip()
    if not text:
        raise ValueError(f"the {name} is empty")
    if UNPRINTABLE.search(text):
        raise ValueError(f"the {name} holds a control character or half of a pair of surrogates")
    return text
