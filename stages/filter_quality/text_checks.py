"""Checks of the words: of descriptions, and of answers and texts that are no programs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from stages.filter_quality.findings import Finding

# "Build a TODO list" is a request, "TODO: describe" is none: the word must stand alone, in brackets, or begin a note.
_PLACEHOLDER = re.compile(
    r"""\s*(?: (?:todo|tbd|fixme|placeholder) \s* (?: [:\-.\]] .* )?
             | n/?a | none | null | nan | undefined | description | untitled | test
             | .* \[ \s* (?:todo|tbd|fixme|insert|add|your|pending|placeholder|generation\ failed) \b [^\]]* \] .*
             | .* \b (?:your|insert|add) \s (?:a\s|the\s)? description \s (?:goes\s)? here .*
             | lorem\ ipsum .* )\s*""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_FILLER = {
    *(
        "a",
        "an",
        "the",
        "this",
        "that",
        "some",
        "my",
        "your",
        "me",
        "of",
        "with",
        "in",
        "using",
        "for",
        "to",
        "it",
        "and",
    ),
    *("create", "make", "write", "generate", "show", "display", "draw", "build", "implement", "produce", "please"),
    *("simple", "basic", "nice", "cool", "short", "new", "example", "sample", "demo", "test"),
    *("manim", "python", "code", "program", "script", "animation", "animations", "animate", "scene", "scenes", "video"),
}
_LONGEST_PLACEHOLDER = 1000  # characters that are looked at; the search is quadratic in the worst case
_WORD = re.compile(r"\w+")
_ENDS = (".", "!", "?", ":", ")", "]", "}", '"', "'", "`", "”", "’", "»", "…", "。", "！", "？", "$", "」")


def check_description(description: str, needs_description: bool) -> Iterator[Finding]:
    """Whether there is a description at all. Asked of every kind but documents, which have none."""
    text = description.strip()
    if not text and needs_description:
        advice = "write one with prepare_data_with_llm.py generate-descriptions"
        yield Finding("needs_description", f"it still waits for its description: {advice}")
    elif not text:
        yield Finding("empty_description", "the description is empty")
    elif _is_placeholder(text):
        yield Finding("placeholder_description", f"the description stands for one: {text[:60]!r}")


def check_request(description: str, least_words: int) -> Iterator[Finding]:
    """Whether a description asks for a certain program, in a sentence. Questions follow other customs."""
    text = description.strip().rstrip("*_")
    if not text:
        return
    words = _WORD.findall(text.lower())
    if len(words) < least_words:
        size = "1 word" if len(words) == 1 else f"{len(words)} words"
        yield Finding("generic_description", f"the description has {size}, fewer than {least_words}")
    elif _FILLER.issuperset(words):
        yield Finding("generic_description", f"the description names nothing to be seen: {text[:60]!r}")
    if text[0].islower():
        yield Finding("no_capital_letter", "the description begins with a small letter")
    if not text.endswith(_ENDS):
        yield Finding("no_end_punctuation", "the description ends without a full stop")


def check_text(text: str, least_characters: int) -> Iterator[Finding]:
    """An answer, an explanation or a chunk of a document."""
    text = text.strip()
    if not text:
        yield Finding("empty_text", "the text is empty")
    elif _is_placeholder(text):
        yield Finding("placeholder_text", f"the text stands for one: {text[:60]!r}")
    elif len(text) < least_characters:
        yield Finding("short_text", f"the text has {len(text)} characters, fewer than {least_characters}")


def _is_placeholder(text: str) -> bool:
    return _PLACEHOLDER.fullmatch(text[:_LONGEST_PLACEHOLDER]) is not None
