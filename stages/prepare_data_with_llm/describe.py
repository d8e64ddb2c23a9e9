"""The task of describing programs as the requests that they answer."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import schema
from schema import Fault, Record
from stages.prepare_data_with_llm.frames import pictures_of
from stages.prepare_data_with_llm.memo import Memo
from stages.prepare_data_with_llm.prompt import FOLDER, Prompt, fill, plain, read_prompt
from stages.prepare_data_with_llm.questions import BadAnswer, Found, Question
from stages.prepare_data_with_llm.rows import described, is_wanted, wrong_kind
from stages.prepare_data_with_llm.service import Service

NAME = "generate-descriptions"
PLACES = ("code", "code_limit", "context", "features", "source", "words")
TRANSCRIPT = 4000  # characters of what is said in a video: a minute is about 900
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
class Describing:
    service: Service
    prompt: Prompt
    everything: bool
    frames: Path | None = None

    @cached_property
    def memo(self) -> Memo:
        return Memo(self.service.cache_dir, is_written=not self.service.dry_run)

    def question(self, record: Record) -> Question | Fault | None:
        if not is_wanted(record, self.everything):
            return None
        if fault := wrong_kind(record):
            return fault
        pictures = pictures_of(record, self.frames)
        if isinstance(pictures, Fault):
            return pictures
        features = self.memo.features(record["code"])
        user = question_about(record, features, self.prompt)
        return Question(self.service.request(NAME, self.prompt, user, pictures), self.read, note=features)

    def read(self, text: str) -> str:
        description = " ".join(plain(self.prompt.answer(text)["description"], "description").split())
        count = len(description.split())
        if self.prompt.words and count > self.prompt.words:
            raise BadAnswer("too_many_words", f"the description has {count} words; {self.prompt.words} is the most")
        return description

    def settle(self, run: schema.Run, record: Record, found: Found | None) -> None:
        if found is None:
            run.keep(record)
            return
        run.keep(described(record, found.value, self.service.author, found.note), request=found.key)


def load(path: Path | None) -> Prompt:
    """The prompt of a file, or ours."""
    prompt = read_prompt(path or FOLDER / "description.md", fields=["description"], places=PLACES, needs="code")
    return replace(prompt, system=fill(prompt.system, {"words": prompt.words or 60}))


def question_about(record: Record, features: dict[str, Any] | None, prompt: Prompt) -> str:
    return prompt.fill(
        code=capped(record["code"], prompt.characters),
        code_limit=f"{prompt.characters:,}",
        context=surroundings(record["metadata"]),
        features=listed(features),
        source=record["source"],
        words=prompt.words or 60,
    )


def capped(code: str, most: int) -> str:
    if len(code) <= most:
        return code
    return f"{code[:most]}\n# ... cut here, {len(code) - most:,} characters more"


def surroundings(metadata: dict[str, Any]) -> str:
    """The text that came with a program, each piece announced."""
    origin = metadata.get("origin")
    documented = origin.get("object") if isinstance(origin, dict) else None
    pieces = [("It is an example in the documentation of", documented)]
    pieces += [(words, metadata.get(key)) for key, words in AROUND.items()]
    pieces += [("What is said in the video", spoken(metadata.get("transcript")))]
    told = [f"{words}: {text.strip()}" for words, text in pieces if isinstance(text, str) and text.strip()]
    return "\n\n".join(told) or "Nothing is known about where it is from."


def spoken(transcript: Any) -> str | None:
    """The beginning of a transcript: a text, or a list of pieces as the usual tools write them."""
    if isinstance(transcript, list):
        pieces = (piece.get("text") if isinstance(piece, dict) else piece for piece in transcript)
        transcript = " ".join(piece for piece in pieces if isinstance(piece, str))
    return " ".join(transcript.split())[:TRANSCRIPT] if isinstance(transcript, str) else None


def listed(features: dict[str, Any] | None) -> str:
    """The features as one line; a program that can not be parsed has none."""
    if features is None:
        return "unknown"
    flags = [name.removeprefix("has_") for name, value in features.items() if value is True]
    return ", ".join([*flags, *features["visual_elements"]]) or "nothing special"
