"""Asks for the same program in other words: variants of a description, for the train side alone.

A variant is a record of its own: the same code, another description, the id of its original in
metadata.augmented_from, and the group of its original, so that no later split can part them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import click

import schema
from schema import Record
from stages.prepare_data.grammar import Request, read_request

STAGE = "prepare_data"
AUTHORS = ("human", "llm")


class Plan(NamedTuple):
    """How many rows one described row becomes on average, by who wrote the description, and at most."""

    factors: dict[str, float]
    most: int
    cases: bool = False


# {base}: "display a circle"; {third}: "displays a circle"; {text}: any text at all.
_CODE_FORMS = {
    "animation_that": "Create a Manim animation that {third}",
    "scene_that": "Generate a Manim scene that {third}",
    "code_to": "Write Manim code to {base}",
    "using_manim": "Using Manim, {base}",
    "animation_for": "Implement a Manim animation for: {text}",
    "scene_for": "Write a Manim scene for this description: {text}",
    "program_for": "Here is what the animation should look like. Write the Manim program.\n\n{text}",
    "then_code": "{sentence}Write the Manim code for it.",
}
# {clause}: a question or a request with a small first letter.
_DOCUMENT_FORMS = {
    "based_on": "Based on the document, {clause}",
    "according_to": "According to the document, {clause}",
    "using_document": "Using the document, {clause}",
    "going_by": "Going by the document, {clause}",
    "referring_to": "Referring to the document, {clause}",
    "from_content": "From the content of the document, {clause}",
    "document_answers": "Answer from the document: {text}",
    "document_in_mind": "With the document in mind, answer this: {text}",
}
# The verb, and what stands in its place before a thing ("the circle", "two dots").
_OTHER_VERBS = {
    "animate": "Create an animation of",
    "compare": "Give a comparison of",
    "create": "Make",
    "define": "Give a definition of",
    "demonstrate": "Give a demonstration of",
    "describe": "Give a description of",
    "display": "Show",
    "explain": "Provide an explanation of",
    "illustrate": "Give an illustration of",
    "show": "Display",
    "summarize": "Provide a summary of",
    "visualize": "Create a visualization of",
}
_AUXILIARY = r"(?=\s+(?:do|does|did|can|could|is|are|was|were|would|should|has|have)\b)"
_OTHER_QUESTIONS = (
    (re.compile(rf"Why{_AUXILIARY}"), "For what reason"),
    (re.compile(rf"How{_AUXILIARY}"), "In what way"),
)
_QUESTION = re.compile(
    r"(?:what|how|why|who|whom|whose|where|when|which|is|are|was|were|do|does|did|can|could|would|should|will|has|have)\b",
    re.IGNORECASE,
)
_NAMES_THE_DOCUMENT = re.compile(r"\b(?:document|text|passage|paper|article)\b", re.IGNORECASE)


def read_factors(given: str) -> dict[str, float]:
    """From "2" or "human=1.5,llm=3", a factor for each author; one who is not named is left alone."""
    try:
        named = {} if "=" not in given else dict(part.split("=") for part in given.replace(" ", "").split(","))
        factors = {name: float(value) for name, value in named.items()} or dict.fromkeys(AUTHORS, float(given))
    except ValueError:
        raise click.BadParameter(f"{given!r} is no number such as 2.5, and no list such as human=1.5,llm=3") from None
    for name, factor in factors.items():
        if name not in AUTHORS:
            raise click.BadParameter(f"there is no author {name!r}; there is {' and '.join(AUTHORS)}")
        if not 1 <= factor <= 10:
            raise click.BadParameter(f"{name}={factor:g}; a factor is between 1 and 10")
    return dict.fromkeys(AUTHORS, 1.0) | factors


_SWITCH = click.option(
    "--augmentation/--no-augmentation",
    default=False,
    help="Ask for the programs of the train side in other words, too.",
)
_OPTIONS = (
    click.option(
        "--augment-factor",
        default="human=2.5,llm=3",
        metavar="F",
        callback=lambda context, parameter, given: read_factors(given),
        help="Rows that a described row becomes on average, one number or by who wrote the description.",
    ),
    click.option(
        "--max-augmented", default=4, type=click.IntRange(0), metavar="N", help="Most variants of one record."
    ),
    click.option("--augment-cases", is_flag=True, help="Begin half of the variants with a small letter."),
)


how_much = schema.stacked(_OPTIONS)  # how many variants there are to be
options = schema.stacked([_SWITCH, how_much])


def plan_of(
    augmentation: bool, augment_factor: dict[str, float], max_augmented: int, augment_cases: bool, **_: Any
) -> Plan | None:
    """What the options ask for."""
    return Plan(augment_factor, max_augmented, augment_cases) if augmentation else None


def augment(record: Record, plan: Plan, seed: int) -> list[Record]:
    """The variants of one record, which follow from it and the seed alone; none while its description is missing."""
    metadata, text = record["metadata"], tidy(record["description"])
    if not text or metadata.get("needs_description") or "augmented_from" in metadata:
        return []
    phrases = [(form, words) for form, words in phrase(text, metadata.get("kind", "code")) if words != text]
    chosen = _rank(phrases, metadata["id"], seed)[: how_many(record, plan, seed)]
    if plan.cases:
        chosen = [(form, _in_small(words, f"{form} {metadata['id']}", seed)) for form, words in chosen]
    return [_variant(record, form, words) for form, words in chosen]


def _in_small(words: str, key: str, seed: int) -> str:
    """Half of the texts with a small first letter."""
    return _lower(words) if schema.share(f"case {key}", seed) < 0.5 else words


def how_many(record: Record, plan: Plan, seed: int) -> int:
    """The whole part of the factor for every record, and one more for as many of them as the rest of it says."""
    whole, rest = divmod(plan.factors[author_of(record)] - 1, 1)
    return min(plan.most, int(whole) + (schema.share(f"augment {record['metadata']['id']}", seed) < rest))


def author_of(record: Record) -> str:
    return "llm" if record["metadata"].get("description_generated_by") else "human"


def _rank(phrases: list[tuple[str, str]], identifier: str, seed: int) -> list[tuple[str, str]]:
    return sorted(phrases, key=lambda phrased: schema.share(f"{phrased[0]} {identifier}", seed))


def _variant(record: Record, form: str, words: str) -> Record:
    metadata = record["metadata"]
    new = {
        "id": schema.sha256(schema.canonical([metadata["id"], words])),
        "augmented_from": metadata["id"],
        "group": metadata.get("group", metadata["id"]),
    }
    variant: Record = {**record, "description": words, "metadata": {**metadata, **new}}
    parent = schema.content_hash(record)
    return schema.add_lineage(variant, stage=STAGE, params={"augmentation": form}, parent=parent)


def tidy(text: str) -> str:
    """The text without spaces that mean nothing: at line ends, in rows, and more than one blank line."""
    lines = (re.sub(r"(?<=\S)[ \t]+", " ", line).rstrip() for line in text.strip().split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def phrase(text: str, kind: str) -> Iterator[tuple[str, str]]:
    """Every way to say it, each with the name of its form. A persona is asked for by exact words, and has none."""
    if kind == "persona":
        return
    request = read_request(text)
    if other := _with_another_verb(request):
        yield "other_verb", other
    if kind == "code":
        yield from _fill(_CODE_FORMS, _parts(text, request))
        return
    for pattern, words in _OTHER_QUESTIONS:
        if pattern.match(text):
            yield "other_question", pattern.sub(words, text, count=1)
    if not _NAMES_THE_DOCUMENT.search(text[:80]):
        clause = _lower(text) if request or _QUESTION.match(text) else None
        yield from _fill(_DOCUMENT_FORMS, {"text": text, "clause": clause})


def _fill(forms: dict[str, str], parts: dict[str, str | None]) -> Iterator[tuple[str, str]]:
    for name, form in forms.items():
        part = re.search(r"\{(\w+)\}", form)
        if part and (value := parts[part[1]]):
            yield name, form.replace(part[0], value)


def _parts(text: str, request: Request | None) -> dict[str, str | None]:
    base, third = (request.base, request.third) if request else (None, None)
    # "Implement a Manim animation for: Create a Manim animation that ..." would say it twice.
    bare = base[0].upper() + base[1:] if base else None if third else text
    return {"text": bare, "base": base, "third": third, "sentence": _as_sentence(text)}


def _as_sentence(text: str) -> str:
    """The text with what must stand before another sentence."""
    if "\n" in text:
        return text + "\n\n"
    return text + (" " if re.search(r"[.!?][)\"”'*]*$", text) else ". ")


def _with_another_verb(request: Request | None) -> str | None:
    if not request or request.form != "base" or not request.simple or not request.has_object:
        return None
    # "Show the viewer how ..." and "Animate the square to turn" say more than the thing.
    if re.search(r"\b(?:how|why|what|that|to|so|it)\b", request.first_sentence):
        return None
    other = _OTHER_VERBS.get(request.verb)
    return f"{other}{request.rest}" if other else None


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]


def fresh(record: Record, taken: set[int], plan: Plan, seed: int) -> list[Record]:
    """The variants that say what no record and no earlier variant says; `taken` holds the marks of those."""
    variants = [variant for variant in augment(record, plan, seed) if mark_of(variant) not in taken]
    taken.update(map(mark_of, variants))
    return variants


def mark_of(record: Record) -> int:
    """A small stand-in for what a description says: a million of them take little memory."""
    return int(schema.description_fingerprint(record["description"])[:16], 16)
