"""The task of making questions and answers of documents; without a model, of their headings and definitions."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import schema
from schema import Fault, Record
from stages.prepare_data_with_llm.prompt import FOLDER, Prompt, fill, parse, plain, read_prompt
from stages.prepare_data_with_llm.questions import Found, Question
from stages.prepare_data_with_llm.rows import about_text, made_of, unfit_text
from stages.prepare_data_with_llm.service import Service

NAME = "generate-qa"
OFFLINE = "offline-qa/1"
SHORTEST = 200  # characters; what is shorter holds no three questions
PLACES = ("text", "context", "num_pairs", "source")

Pair = dict[str, str]  # type, question, answer


@dataclass(frozen=True)
class Examining:
    service: Service
    prompt: Prompt
    num_pairs: int
    everything: bool

    def question(self, record: Record) -> Question | Fault:
        if fault := unfit(record, self.everything, self.prompt.characters):
            return fault
        user = self.prompt.fill(
            text=record["code"], context=about_text(record), num_pairs=self.num_pairs, source=record["source"]
        )
        return Question(self.service.request(NAME, self.prompt, user), self.read)

    def read(self, text: str) -> list[Pair]:
        """The pairs of an answer that can be used; not one is a fault of the answer."""
        value = parse(text)
        if isinstance(value, dict) and isinstance(value.get("pairs"), list):
            value = value | {"pairs": [pair for pair in value["pairs"] if is_pair(pair)]}
        pairs = self.prompt.checked(value)["pairs"]
        if not pairs:
            raise ValueError("it holds no pair of a question and an answer")
        read = [pair | {name: plain(pair[name], name) for name in ("question", "answer")} for pair in pairs]
        return list({pair["question"].casefold(): pair for pair in reversed(read)}.values())[::-1][: self.num_pairs]

    def settle(self, run: schema.Run, record: Record, found: Found | None) -> None:
        if found is None:
            raise ValueError("every document is asked about")
        run.make(record, rows_of(record, found.value, self.service.author), request=found.key)


def load(path: Path | None, num_pairs: int) -> Prompt:
    prompt = read_prompt(path or FOLDER / "qa.md", fields=["pairs"], places=PLACES, needs="text")
    return replace(prompt, system=fill(prompt.system, {"num_pairs": num_pairs}))


def is_pair(pair: Any) -> bool:
    names = ("question", "answer")
    return isinstance(pair, dict) and all(isinstance(pair.get(name), str) and pair[name].strip() for name in names)


def unfit(record: Record, everything: bool, most: int) -> Fault | None:
    length = len(record["code"].strip())
    if fault := unfit_text(record, everything, most):
        return fault
    if length < SHORTEST:
        return Fault("short_chunk", f"{length} characters; less than {SHORTEST} carry no questions")
    return None


def rows_of(record: Record, pairs: list[Pair], author: str) -> list[Record]:
    return [
        made_of(
            record,
            description=pair["question"],
            code=pair["answer"],
            kind="qa",
            author=author,
            question_type=pair.get("type", "factual"),
        )
        for pair in pairs
    ]


# --- without a model -------------------------------------------------------------------------------------------------

DEFINITION = re.compile(
    r"(?P<article>(?:An? |The )?)(?P<term>[A-Z]?[\w-]+(?: [\w-]+){0,4}?) "
    r"(?P<verb>is|are|refers? to|denotes?|describes?|means) "
    r"(?:an?|the|any|every|one|all|how|what|when|that)\b.*[.]"
)
# A pronoun, or a part of a longer thought: "this is the reason" defines nothing.
NO_TERM = re.compile(
    r"(?i)\b(everything|nothing|all|rest|it|its|this|that|these|those|they|there|here|which|what|who|he|she|we|you|i|one|if|when|while|since|"
    r"because|but|and|or|as|such|other|another|following|example|result|results|reason|goal|aim|idea|question|problem)\b"
)


def make_offline(record: Record, num_pairs: int, everything: bool) -> list[Record] | Fault:
    """Questions whose answers stand word for word in the text: what a thing is, and what a section says."""
    if fault := unfit(record, everything, 10**9):
        return fault
    sentences = list(sentences_of(record["code"]))
    pairs = {pair["question"]: pair for pair in definitions(sentences)}
    # The section is the one in which the text begins; what follows its next heading belongs to another.
    opening = list(sentences_of(re.split(r"\n#+ ", record["code"].strip())[0]))
    if section := pair_of_section(record["metadata"].get("section"), opening):
        pairs.setdefault(section["question"], section)
    if not pairs:
        return Fault("nothing_to_ask", "no definition and no heading, and without a model nothing else is asked about")
    return rows_of(record, list(pairs.values())[:num_pairs], OFFLINE)


def sentences_of(text: str) -> Iterator[str]:
    """Whole sentences of plain prose; lists, tables, code and formulas are left out."""
    for paragraph in re.split(r"\n\s*\n", text):
        words = " ".join(re.sub(r"^#+ .*$", "", paragraph, flags=re.MULTILINE).split())
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z\"'])", words):
            if 6 <= len(sentence.split()) <= 60 and re.fullmatch(r"[A-Z\"'][^|{}<>\\=`#]*[.!?]", sentence):
                yield sentence


def definitions(sentences: list[str]) -> Iterator[Pair]:
    for sentence in sentences:
        found = DEFINITION.fullmatch(sentence)
        if found and not NO_TERM.search(found["term"]):
            term = found["term"]
            term = term if term[1:] != term[1:].lower() else term[:1].lower() + term[1:]
            ask = f"What {'are' if found['verb'] == 'are' else 'is'} {found['article'].lower()}{term}?"
            yield {"type": "factual", "question": ask, "answer": sentence}


def pair_of_section(section: Any, sentences: list[str]) -> Pair | None:
    """What is said under a heading is what its first sentences say."""
    if not isinstance(section, str) or not sentences:
        return None
    title = re.sub(r"^[\d.\s]+|[*#`]", "", section).strip()
    if len(title.split()) < 2:  # "Introduction" asks about nothing
        return None
    return {
        "type": "factual",
        "question": f'What does the document say about "{title}"?',
        "answer": " ".join(sentences[:2]),
    }
