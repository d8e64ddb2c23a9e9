"""The task of judging whether a request and the answer beside it agree."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import schema
from schema import Fault, Record
from stages.prepare_data_with_llm.describe import capped
from stages.prepare_data_with_llm.frames import pictures_of
from stages.prepare_data_with_llm.prompt import FOLDER, Prompt, plain, read_prompt
from stages.prepare_data_with_llm.questions import Found, Question
from stages.prepare_data_with_llm.service import Service

NAME = "judge"
PLACES = ("description", "code", "code_limit", "source")


@dataclass(frozen=True)
class Judging:
    service: Service
    prompt: Prompt
    everything: bool
    frames: Path | None = None

    def question(self, record: Record) -> Question | Fault | None:
        if "judge" in record["metadata"] and not self.everything:
            return None
        if not record["description"].strip():
            return Fault("no_description", "there is no description to judge; generate-descriptions writes one")
        pictures = pictures_of(record, self.frames)
        if isinstance(pictures, Fault):
            return pictures
        user = self.prompt.fill(
            description=record["description"],
            code=capped(record["code"], self.prompt.characters),
            code_limit=f"{self.prompt.characters:,}",
            source=record["source"],
        )
        return Question(self.service.request(NAME, self.prompt, user, pictures), self.read)

    def read(self, text: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.prompt.answer(text)
        return answer | {"reason": plain(answer["reason"], "reason")}

    def settle(self, run: schema.Run, record: Record, found: Found | None) -> None:
        if found is None:
            run.keep(record)
            return
        said = {name: found.value[name] for name in ("agrees", "score", "reason")}
        verdict = said | {"by": self.service.author}
        run.keep({**record, "metadata": record["metadata"] | {"judge": verdict}}, request=found.key)


def load(path: Path | None) -> Prompt:
    return read_prompt(
        path or FOLDER / "judge.md", fields=["reason", "score", "agrees"], places=PLACES, needs="description"
    )
