"""The task of describing programs as the requests that they answer."""

from dataclasses import dataclass

import schema
from schema import Fault, Record
from stages.prepare_data_with_llm.features import code_features
from stages.prepare_data_with_llm.prompt import SCHEMA, Prompt, parse_answer
from stages.prepare_data_with_llm.questions import Found, Question
from stages.prepare_data_with_llm.rows import described, is_wanted, wrong_kind
from stages.prepare_data_with_llm.service import Service

NAME = "generate-descriptions"


@dataclass(frozen=True)
class Describing:
    service: Service
    prompt: Prompt
    max_tokens: int
    everything: bool

    def question(self, record: Record) -> Question | Fault | None:
        if not is_wanted(record, self.everything):
            return None
        if fault := wrong_kind(record):
            return fault
        features = code_features(record["code"])
        request = self.service.request(
            task=f"{NAME}/1",
            system=self.prompt.system,
            user=self.prompt.fill(record, features),
            schema=SCHEMA,
            max_tokens=self.max_tokens,
        )
        return Question(request, parse_answer, note=features)

    def settle(self, run: schema.Run, record: Record, found: Found | None) -> None:
        if found is None:
            run.keep(record)
            return
        run.keep(described(record, found.value, self.service.author, found.note), request=found.key)
