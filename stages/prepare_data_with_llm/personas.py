"""The task of explaining sections in several voices; a voice is one file: its words, the fields of its answer, its row.

One structured call answers for all voices, so that the section is sent once.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import click

import schema
from schema import Fault, Record
from stages.prepare_data_with_llm.prompt import (
    FOLDER,
    PLACE,
    Prompt,
    check_settings,
    fill,
    plain,
    read_parts,
    read_prompt,
)
from stages.prepare_data_with_llm.qa import sentences_of
from stages.prepare_data_with_llm.questions import BadAnswer, Found, Question
from stages.prepare_data_with_llm.rows import about_text, made_of, unfit_text
from stages.prepare_data_with_llm.service import Service

NAME = "generate-personas"
VOICES = ("eli5", "intuitive", "executive")
SHORTEST = 100  # characters of a section
PLACES = ("text", "context", "personas", "source")
SHAPE = re.compile(r"(?P<settings>.*?)\n## voice\n(?P<voice>.*)", re.DOTALL)
REFERENCES = re.compile(r"(?i)[\W\d_]*(?:[ivx]+[.)]\s*)?(references?|bibliography|works cited|literature cited)\W*")


@dataclass(frozen=True)
class Persona:
    """One voice."""

    name: str
    version: str
    voice: str
    schema: dict[str, Any]
    question: str
    answer: str
    forbidden: tuple[str, ...] = ()

    @property
    def part(self) -> str:
        return f"{self.name}.jsonl"

    @cached_property
    def pattern(self) -> re.Pattern[str] | None:
        """Every form of the forbidden words: optimize, optimizes, optimization."""
        stems = "|".join(re.escape(word.rstrip("e")) for word in self.forbidden)
        return re.compile(rf"(?i)\b(?:{stems})\w*") if stems else None

    def check(self, fields: dict[str, Any]) -> dict[str, str]:
        said = {name: plain(text, f"{name} of {self.name}") for name, text in fields.items()}
        found = {
            word.lower() for text in said.values() for word in (self.pattern.findall(text) if self.pattern else ())
        }
        if found:
            words = ", ".join(sorted(found))
            told = f"{self.name} uses forbidden words: {words}; say it without them and without their forms"
            raise BadAnswer("forbidden_words", told)
        return said


@dataclass(frozen=True)
class Explaining:
    service: Service
    prompt: Prompt
    personas: tuple[Persona, ...]
    everything: bool

    def question(self, record: Record) -> Question | Fault:
        if fault := unfit(record, self.everything, self.prompt.characters):
            return fault
        text = record["code"].strip()
        user = self.prompt.fill(text=text, context=about_text(record), personas="", source=record["source"])
        return Question(self.service.request(NAME, self.prompt, user), self.read)

    def read(self, text: str) -> dict[str, dict[str, str]]:
        answer = self.prompt.answer(text)
        return {persona.name: persona.check(answer[persona.name]) for persona in self.personas}

    def settle(self, run: schema.Run, record: Record, found: Found | None) -> None:
        if found is None:
            raise ValueError("every section is asked about")
        author = self.service.author
        rows = [row_of(record, persona, found.value[persona.name], author) for persona in self.personas]
        run.make(record, rows, request=found.key, parts=[persona.part for persona in self.personas])


def row_of(record: Record, persona: Persona, said: dict[str, str], author: str) -> Record:
    return made_of(
        record,
        description=fill(persona.question, {"section": record["code"].strip()}),
        code=fill(persona.answer, said),
        kind="persona",
        author=author,
        persona=persona.name,
    )


def unfit(record: Record, everything: bool, most: int) -> Fault | None:
    if fault := unfit_text(record, everything, most):
        return fault
    text = record["code"].strip()
    section = record["metadata"].get("section")
    title = section if isinstance(section, str) and section.strip() else text.split("\n", 1)[0]
    if REFERENCES.fullmatch(title):
        return Fault("references_section", f"a list of references: {title.strip()!r}")
    if len(text) < SHORTEST:
        return Fault("short_section", f"{len(text)} characters; less than {SHORTEST} explain nothing")
    return None


def load(path: Path | None, names: Sequence[str]) -> tuple[Prompt, tuple[Persona, ...]]:
    """The common prompt with the voices in it; a name is one of ours or a file."""
    personas = tuple(map(load_persona, names or VOICES))
    if twice := {persona.name for persona in personas if sum(p.name == persona.name for p in personas) > 1}:
        raise click.UsageError(f"--persona: {min(twice)} is named twice")
    prompt = read_prompt(path or FOLDER / "personas.md", fields=[], places=PLACES, needs="text")
    voices = "\n\n".join(f'The voice "{persona.name}":\n\n{persona.voice}' for persona in personas)
    shape = {
        "type": "object",
        "properties": {persona.name: persona.schema for persona in personas},
        "required": [persona.name for persona in personas],
        "additionalProperties": False,
    }
    system = fill(prompt.system, {"personas": voices})
    return replace(prompt, system=system, schema=shape, max_tokens=prompt.max_tokens * len(personas)), personas


def load_persona(name: str) -> Persona:
    """A voice by the name of ours, or from a file; what is wrong with it is said in one line."""
    path = FOLDER / "personas" / f"{name}.md" if name in VOICES else Path(name)
    if not path.is_file():
        raise click.UsageError(f"--persona {name}: it is none of {', '.join(VOICES)}, and there is no such file")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", path.stem):
        raise click.UsageError(f"--persona {name}: its name is that of its output; small letters, digits and _ alone")
    settings, (voice,) = read_parts(path, SHAPE)
    check_settings(path, settings, ["question", "answer", "forbidden"])
    shape, forbidden = settings.get("schema"), settings.get("forbidden", [])
    fields = list(shape.get("properties") or ()) if isinstance(shape, dict) else []
    check_templates(path, settings, fields)
    if not isinstance(forbidden, list) or not all(isinstance(word, str) and word for word in forbidden):
        raise click.UsageError(f"--persona {name}: 'forbidden' is a list of words")
    voice = voice.replace("{{forbidden}}", ", ".join(forbidden))
    whole = {**settings["schema"], "required": fields, "additionalProperties": False}
    return Persona(
        path.stem, settings["version"], voice, whole, settings["question"], settings["answer"], tuple(forbidden)
    )


def check_templates(path: Path, settings: dict[str, Any], fields: list[str]) -> None:
    if not fields:
        raise click.UsageError(f"--persona {path}: its schema has no properties, the fields of an answer")
    for field, shape in settings["schema"]["properties"].items():
        if not isinstance(shape, dict) or shape.get("type") != "string":
            raise click.UsageError(f"--persona {path}: the field {field!r} is no {{type: string}}")
    for key, places in (("question", ["section"]), ("answer", fields)):
        text = settings.get(key)
        if not isinstance(text, str) or not text.strip() or not set(PLACE.findall(text)) <= set(places):
            told = ", ".join(f"{{{{{place}}}}}" for place in places)
            raise click.UsageError(f"--persona {path}: {key!r} is a text with no places but {told}")


# --- without a model -------------------------------------------------------------------------------------------------

OFFLINE = "offline-quotes/1"
QUOTED = 2  # sentences in the last field of an answer


def quote_offline(record: Record, personas: Sequence[Persona], everything: bool) -> list[Record] | Fault:
    """The row of each voice, its fields filled with sentences of the section: no rule writes an explanation."""
    if fault := unfit(record, everything, 10**9):
        return fault
    sentences = list(sentences_of(record["code"]))
    rows = []
    for number, persona in enumerate(personas):
        fields = list(persona.schema["properties"])
        fit = [sentence for sentence in sentences if not (persona.pattern and persona.pattern.search(sentence))]
        if len(fit) < len(fields):
            told = f"{persona.name} has {len(fields)} fields, and {len(fit)} sentences of the section may be quoted"
            return Fault("nothing_to_quote", told)
        # Each voice begins with another sentence, so that the adapters do not all learn the same text.
        fit = fit[number % len(fit) :] + fit[: number % len(fit)]
        last = " ".join(fit[len(fields) - 1 :][:QUOTED])
        said = dict(zip(fields, [*fit[: len(fields) - 1], last], strict=True))
        rows.append(row_of(record, persona, said, OFFLINE))
    return rows
