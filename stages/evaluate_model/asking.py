"""What a model is asked, and what it answered: prompts, samples, and a journal that lets a killed run go on."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import click

import schema
from stages.evaluate_model import measures, presets

FAILED = "error"  # the finish of an answer that never came
_FENCED = re.compile(r"^[ \t]*(```+|~~~+)[^\n`]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)


class Sampling(NamedTuple):
    """How an answer is chosen; temperature 0 takes the most likely token."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 42


class Answer(NamedTuple):
    """What the model wrote: the text, its length in tokens, and why it ended.

    "eos": by itself; "length": cut; "refused": the server does not take this prompt; "error": no answer came.
    """

    text: str
    tokens: int
    finish: str


class Item(NamedTuple):
    """A prompt as the model takes it (token ids, or messages for a server), and which of its samples this is."""

    prompt: Any
    sample: int


class Asker(Protocol):
    """A model that can be asked: weights in this process, or a server."""

    def identity(self) -> dict[str, Any]:
        """What answers: the same identity and prompt give answers of one kind."""

    def prompt(self, record: schema.Record) -> Any | schema.Fault:
        """What the model sees of a row, or why it can not be asked about it."""

    def ask(self, items: list[Item], known: set[int]) -> Iterator[dict[int, Answer]]:
        """The answers by position, some at a time, without those that are known."""

    def reply(self, messages: list[dict[str, str]], say: Callable[[str], None]) -> str:
        """One answer in a conversation; `say` gets it as it grows."""


class Journal:
    """The answers of a run that is not over; each is on the disk before the next is asked for."""

    def __init__(self, path: Path):
        self.path, self.answers, self.whole = path, dict[int, Answer](), True
        self._file: IO[bytes] | None = None

    def begin(self, key: str) -> None:
        """Take up the answers of a run that was the same; those of any other are of no use."""
        head, good = f"{key}\n".encode(), 0
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.is_file() else []
        if lines and lines[0] == head:
            good = len(head)
            for line in lines[1:]:
                if not line.endswith(b"\n"):  # torn by the kill
                    break
                position, *answer = json.loads(line)
                self.answers[position] = Answer(*answer)
                good += len(line)
        self._file = self.path.open("r+b" if good else "wb")
        self._file.truncate(good)
        self._file.seek(good)
        if not good:
            self._file.write(head)
        elif self.answers:
            schema.log(f"evaluate_model: going on after {len(self.answers):,} answers of the run before")

    def add(self, answers: dict[int, Answer]) -> None:
        """An answer that never came is not written down: the next run asks again."""
        self.answers |= answers
        if self._file:
            came = {position: answer for position, answer in answers.items() if answer.finish != FAILED}
            self.whole = self.whole and len(came) == len(answers)
            self._file.writelines(schema.encode([position, *answer]) + b"\n" for position, answer in came.items())
            self._file.flush()
            os.fsync(self._file.fileno())

    def remove(self) -> None:
        if self._file:
            self._file.close()
            self.path.unlink(missing_ok=True)


@contextmanager
def journal(folder: Path) -> Iterator[Journal]:
    """A journal that goes when all that it holds is in the output."""
    kept = Journal(folder / ".generated.answers")
    try:
        yield kept
    except schema.Incomplete:
        if kept.whole:
            kept.remove()
        raise
    kept.remove()


def why_empty(answer: Answer) -> schema.Fault:
    if answer.finish == FAILED:
        return schema.Fault("request_failed", "no answer came from the server")
    return schema.Fault("empty_generation", f"the model wrote nothing ({answer.finish})")


def answers(asker: Asker, items: list[Item], kept: Journal) -> list[Answer]:
    """The answer to each item, in the order of the items."""
    for some in asker.ask(items, set(kept.answers)):
        kept.add(some)
        schema.log(f"evaluate_model: {len(kept.answers):,} of {len(items):,} answers", level=1)
    return [kept.answers[position] for position in range(len(items))]


def prompt_messages(record: schema.Record, system: str | None = None) -> list[dict[str, str]]:
    """What the model was trained to answer: the description, and before it the row's own system text if it has one."""
    told = record["metadata"].get("system") or system
    before = [{"role": "system", "content": str(told)}] if told else []
    return [*before, {"role": "user", "content": record["description"]}]


def no_description(record: schema.Record) -> schema.Fault | None:
    if record["description"].strip():
        return None
    return schema.Fault("no_description", "it has no description, so there is nothing to ask the model")


def fixed_prompts(path: Path) -> Iterator[schema.Record]:
    """A prompt on each line; # begins a comment. They have no reference, and the rows say so."""
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if text := line.strip():
            if text.startswith("#"):
                continue
            facts = {"origin": {"path": path.name, "line": number}, "evaluation": {"reference": False}}
            yield schema.adopt({"description": text, "code": text, "source": path.stem, "metadata": facts})


def repeated(records: Iterable[schema.Record], samples: int) -> Iterator[schema.Record]:
    """Each row as often as it will be answered, numbered."""
    for record in records:
        for sample in range(samples):
            yield with_evaluation(record, {**record["metadata"].get("evaluation", {}), "sample": sample})


def write_asked(
    data: Path | None, prompts: Path | None, samples: int, output: Path, benchmark: str | None = None
) -> Path:
    """What `generate` will read in place of the file that was given: one row for each answer that is wanted."""
    source = prompts or data
    if source is None or (prompts and data):
        raise click.UsageError("name one of --data (held-out rows) and --prompts (a text file, a prompt on each line)")
    if samples == 1 and data and not benchmark:
        return data
    target, reasons = output / "asked.jsonl", dict[str, int]()
    with schema.rejects(target, stage="evaluate_model") as put, schema.write(target) as keep:

        def reject(item: Any, message: str, code: str = "invalid", line: int | None = None) -> None:
            reasons[code] = reasons.get(code, 0) + 1
            put(item, message, code=code, line=line)

        if prompts:
            rows = [*fixed_prompts(prompts)]
        elif benchmark:
            rows = [*presets.rows(benchmark, source)]
        else:
            rows = [schema.adopt(row) for row in schema.read(source, reject)]
        for row in repeated(rows, samples) if samples > 1 or prompts else rows:
            keep(row)
    if not rows:
        raise schema.Failure(f"{source}: there is nothing in it to ask a model")
    counts = {"kept": len(rows), "rejected": sum(reasons.values()), "merged": 0, "augmented": len(rows) * (samples - 1)}
    schema.write_ledger(
        schema.ledger_path(target),
        stage="evaluate_model",
        inputs=[] if prompts else [source],
        outputs=[target],
        rejects=schema.rejects_path(target),
        counts={"in": counts["kept"] + counts["rejected"], **counts},
        reasons=reasons,
        options={"samples": samples, **({"preset": benchmark} if benchmark else {})},
    )
    return target


def with_evaluation(record: schema.Record, facts: dict[str, Any]) -> schema.Record:
    return {**record, "metadata": {**record["metadata"], "evaluation": facts}}


def program_in(text: str) -> str:
    """The program of an answer that talks around it: the longest fenced block, behind any thinking aloud."""
    said = text.rpartition("</think>")[2]
    if measures.parse(said) is not None:
        return said
    return max((block[2] for block in _FENCED.finditer(said)), key=len, default=said)


def generated(record: schema.Record, answer: Answer) -> schema.Record:
    """A record of its own: the model's text in place of the reference, under the id of the row that asked for it."""
    known = record["metadata"]
    asked = known.get("evaluation", {})
    names = ("id", "kind", "system", "origin", "group", "licence", "lineage")
    kept: dict[str, Any] = {name: known[name] for name in names if name in known}
    code = program_in(answer.text) if measures.is_code(record) else answer.text.rpartition("</think>")[2]
    facts: dict[str, Any] = {"finish": answer.finish, "tokens": answer.tokens}
    facts |= {"sample": asked["sample"]} if "sample" in asked else {}
    facts |= {"answer": answer.text} if code != answer.text else {}
    reference = {} if asked.get("reference") is False else {"reference": record["code"]}
    metadata: dict[str, Any] = {**kept, **reference, "evaluation": facts}
    return {"description": record["description"], "code": code, "source": record["source"], "metadata": metadata}


def failed(record: schema.Record, facts: dict[str, Any]) -> schema.Record:
    """The row of a prompt without an answer, as it goes to the rejects: it counts as one that failed."""
    known = record["metadata"].get("evaluation", {})
    row = with_evaluation(record, {**known, "tokens": 0, **facts, "empty": True})
    if known.get("reference") is not False:
        row["metadata"]["reference"] = record["code"]
    return row
