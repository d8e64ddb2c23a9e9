"""The task of saying which of two texts is better, in both orders: a verdict that follows the order is none.

A pair of texts becomes two rows of kind "comparison", with the first text as description and the second one as code.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import schema
from schema import Fault, Record
from stages.prepare_data_with_llm.compare import Pair, compare, text_of
from stages.prepare_data_with_llm.describe import capped
from stages.prepare_data_with_llm.online import perform
from stages.prepare_data_with_llm.prompt import FOLDER, Prompt, plain, read_prompt
from stages.prepare_data_with_llm.questions import Found, Question
from stages.prepare_data_with_llm.service import Service

NAME = "compare"
PLACES = ("first", "second", "code", "code_limit")
ORDERS = ("ab", "ba")


def judged(
    a: str, b: str, examples: int, verdicts: Path, service: Service
) -> tuple[dict[str, Any], schema.Incomplete | None]:
    """The report on two files with what a model says of their pairs, and whether verdicts are missing.

    The pairs stay beside the verdicts: they are what the verdicts were asked for, and can be judged once more.
    """
    pairs = verdicts.with_name(f"{verdicts.stem}.pairs.jsonl")
    missing = None
    with schema.write(pairs) as keep:
        report = compare(a, b, service.cache_dir, examples, lambda pair: list(map(keep, rows_of(pair))))
    contract = schema.Contract(
        input=str(pairs),
        output=str(verdicts),
        rejects=schema.rejects_path(verdicts),
        where=None,
        limit=None,
        seed=42,
        workers=1,
        strict=False,
        max_reject_rate=None,
        engine="local",
    )
    task = Preferring(service, load())
    try:
        perform(NAME, contract, service, task, {"llm": service.author, "prompt": task.prompt.name})
    except schema.Incomplete as error:
        missing = error
    if not service.dry_run:
        facts = json.loads(schema.ledger_path(verdicts).read_bytes())["extra"]["llm"]
        usd = None if facts["usd"] is None else round(facts["usd"] + facts.get("usd_earlier", 0.0), 6)
        report["judge"] = {"by": service.author, **tally(verdicts, report["different"]), "usd": usd}
    return report, missing


@dataclass(frozen=True)
class Preferring:
    service: Service
    prompt: Prompt

    def question(self, record: Record) -> Question | Fault:
        most = self.prompt.characters
        if max(len(record["description"]), len(record["code"])) > most:
            return Fault("long_text", f"a text has more than the {most:,} characters that the prompt shows")
        user = self.prompt.fill(
            first=record["description"],
            second=record["code"],
            code=capped(record["metadata"]["about"], most) or "Nothing more is known than the texts.",
            code_limit=f"{most:,}",
        )
        return Question(self.service.request(NAME, self.prompt, user), self.read)

    def read(self, text: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.prompt.answer(text)
        return answer | {"reason": plain(answer["reason"], "reason")}

    def settle(self, run: schema.Run, record: Record, found: Found | None) -> None:
        if found is None:
            raise ValueError("every pair is asked about")
        sides = dict(zip(("first", "second"), record["metadata"]["order"], strict=True))
        better = sides.get(found.value["better"], "equal")
        verdict = {"better": better, "reason": found.value["reason"], "by": self.service.author}
        run.keep({**record, "metadata": record["metadata"] | {"preference": verdict}}, request=found.key)


def load(path: Path | None = None) -> Prompt:
    fields = ["reason", "better"]
    return read_prompt(path or FOLDER / "compare.md", fields=fields, places=PLACES, needs="first")


def rows_of(pair: Pair) -> Iterator[Record]:
    """A pair in both orders."""
    texts = {"a": "\n\n".join(map(text_of, pair.a)), "b": "\n\n".join(map(text_of, pair.b))}
    first = pair.a[0]
    about = first["code"] if first["metadata"].get("kind", "code") == "code" else ""
    for order in ORDERS:
        metadata = {
            "id": schema.sha256(schema.canonical([pair.id, pair.voice, order, texts["a"], texts["b"]])),
            "kind": "comparison",
            "pair": [pair.id, pair.voice],
            "order": order,
            "about": about,
        }
        yield {
            "description": texts[order[0]],
            "code": texts[order[1]],
            "source": first["source"],
            "metadata": metadata,
        }


def tally(path: Path, pairs: int) -> dict[str, int]:
    """What a file of verdicts says: of a pair whose two verdicts differ, the order has decided."""
    said: defaultdict[str, list[str]] = defaultdict(list)
    for record in schema.read(path, lambda item, message, code="", line=None: None):
        metadata = record["metadata"]
        said["\n".join(metadata["pair"])].append(metadata["preference"]["better"])
    names = {"a": "a_better", "b": "b_better", "equal": "equal"}
    counts = Counter(dict.fromkeys([*names.values(), "unsteady", "unanswered"], 0))
    for verdicts in said.values():
        if len(verdicts) == len(ORDERS):
            counts[names[verdicts[0]] if len(set(verdicts)) == 1 else "unsteady"] += 1
    counts["unanswered"] = pairs - counts.total()
    return dict(counts)
