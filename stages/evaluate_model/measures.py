"""What is counted: checks of one generated row, rates with their intervals, and two sets of rows side by side."""

from __future__ import annotations

import ast
import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple

import schema
from stages.evaluate_model import codebleu, rates, similarity

Rows = dict[str, list[schema.Record]]  # the answers to each prompt, by the id of its row

# What filter_quality.py says of a call that the installed Manim does not have.
API_FINDINGS = frozenset({"undefined_name", "unknown_method", "wrong_argument"})
MANIMGL_FINDINGS = frozenset({"manimgl_code"})
OTHER_ENGINE = "other_engine"  # the class of such an error once the program is run


def kind_of(record: schema.Record) -> str:
    return str(record["metadata"].get("kind", "code"))


def is_code(record: schema.Record) -> bool:
    return kind_of(record) == "code"


def is_empty_answer(record: schema.Record) -> bool:
    """Whether a row of a rejects file stands for an answer that was asked for and never came, or came back empty."""
    return bool(record["metadata"].get("evaluation", {}).get("empty", False))


def sample_of(record: schema.Record) -> int:
    """Which of the answers to one prompt this is."""
    return int(record["metadata"].get("evaluation", {}).get("sample", 0))


def parse(code: str) -> ast.Module | None:
    """The tree of a program that Python would begin to run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a model's odd escapes and comparisons are not our reader's concern
            tree = ast.parse(code)
            # Some errors have a tree: a return outside a function, an argument given twice. Nothing is run.
            compile(tree, "answer", "exec", dont_inherit=True)
            return tree
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


@cache
def _parses_and_has_scene(code: str) -> tuple[bool, bool]:
    """Asked for again by source and by kind; two flags are a small thing to remember, a tree is not."""
    tree = parse(code)
    if tree is None:
        return False, False
    return True, any(_is_scene(node) for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


def _is_scene(node: ast.ClassDef) -> bool:
    names = [base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "") for base in node.bases]
    methods = [item.name for item in node.body if isinstance(item, ast.FunctionDef)]
    return "construct" in methods and any(name.endswith("Scene") for name in names)


def parses(record: schema.Record) -> bool | None:
    """Whether the answer is a program; None for kinds that are no code."""
    if not is_code(record):
        return None
    return not is_empty_answer(record) and _parses_and_has_scene(record["code"])[0]


def has_scene(record: schema.Record) -> bool | None:
    """Whether the answer is a program with a scene class that has a construct method."""
    if not is_code(record):
        return None
    return not is_empty_answer(record) and _parses_and_has_scene(record["code"])[1]


def finished(record: schema.Record) -> bool | None:
    """Whether the model ended by itself; None for rows that no model wrote."""
    finish = record["metadata"].get("evaluation", {}).get("finish")
    return None if finish is None else finish == "eos"


def calls_what_is_there(record: schema.Record) -> bool | None:
    """Whether a tagged answer is a program that names nothing that Manim lacks; None for rows without a tag."""
    if not is_code(record) or "quality" not in record["metadata"]:
        return None
    return bool(parses(record)) and not issue_names(record) & API_FINDINGS


def renders(record: schema.Record) -> bool | None:
    """Whether the answer made a picture; None where nobody tried (see `judged`)."""
    verdict = record["metadata"].get("render")
    return bool(verdict["ok"]) if is_code(record) and verdict else None


def is_manimgl(record: schema.Record) -> bool | None:
    """Whether a tagged answer is written for ManimGL, as its text or its run shows (the conflicts of ManiBench)."""
    if not is_code(record) or "quality" not in record["metadata"]:
        return None
    return bool(issue_names(record) & MANIMGL_FINDINGS) or render_class(record) == OTHER_ENGINE


def is_reference(record: schema.Record) -> bool | None:
    """Whether the answer is the row's own, to the letter; None without such."""
    reference = record["metadata"].get("reference")
    if not is_code(record) or not isinstance(reference, str):
        return None
    return not is_empty_answer(record) and record["code"].strip() == reference.strip()


def render_class(record: schema.Record) -> str | None:
    """The class of the error that kept an answer from making a picture."""
    error = (record["metadata"].get("render") or {}).get("error")
    return str(error["class"]) if error else None


def judged(rows: list[schema.Record]) -> list[schema.Record]:
    """The rows, with a verdict on each answer that a gate never saw although it saw the others: they all failed.

    An empty answer never gets to the gate, and one that does not parse or has no scene is not run.
    """
    tagged = any("quality" in row["metadata"] for row in rows)
    run = any("render" in row["metadata"] for row in rows)
    return [_with_verdicts(row, tagged=tagged, run=run) for row in rows]


def _with_verdicts(row: schema.Record, *, tagged: bool, run: bool) -> schema.Record:
    metadata = row["metadata"]
    if tagged and "quality" not in metadata and is_empty_answer(row):
        nothing = {"check": "empty_answer", "severity": "critical", "message": "the model wrote nothing"}
        metadata = {**metadata, "quality": {"score": 0.0, "issues": [nothing]}}
    if run and is_code(row) and "render" not in metadata:
        metadata = {**metadata, "render": {"ok": False, "error": {"class": _why_not_run(row)}}}
    return {**row, "metadata": metadata}


def _why_not_run(row: schema.Record) -> str:
    if is_empty_answer(row):
        return "empty_answer"
    return "not_rendered" if has_scene(row) else "no_scene" if parses(row) else "does_not_parse"


Ask = Callable[[schema.Record], bool | None]


class Check(NamedTuple):
    """Yes or no about an answer, or None where the question makes no sense."""

    ask: Ask
    low_is_good: bool = False


CHECKS = {
    "syntax": Check(parses),
    "scene": Check(has_scene),
    "finished": Check(finished),
    "api": Check(calls_what_is_there),
    "render": Check(renders),
    "manimgl": Check(is_manimgl, low_is_good=True),
    "same_code": Check(is_reference),
}
SAMPLED = ("syntax", "scene", "render")  # what one may try several times for
TRIES = (1, 2, 5, 10, 20, 50, 100)


def quality(record: schema.Record) -> float | None:
    score = record["metadata"].get("quality", {}).get("score")
    return float(score) if isinstance(score, int | float) else None


def mean_loss(record: schema.Record) -> float | None:
    """Lower is better."""
    loss = record["metadata"].get("evaluation", {}).get("loss")
    return float(loss) if isinstance(loss, int | float) else None


def _beside_reference(
    measure: Callable[[str, str], float | None], *, code: bool
) -> Callable[[schema.Record], float | None]:
    """A likeness of answer and reference, for rows of one sort; an empty answer is like nothing."""

    def measured(record: schema.Record) -> float | None:
        reference = record["metadata"].get("reference")
        if not isinstance(reference, str) or is_code(record) is not code:
            return None
        return measure("" if is_empty_answer(record) else record["code"], reference)

    return measured


LIKENESS = {
    "tree_match": _beside_reference(lambda one, two: similarity.tree_match(parse(one), parse(two)), code=True),
    "codebleu": _beside_reference(lambda one, two: codebleu.parts(one, two, (parse(one), parse(two))).score, code=True),
    "token_bleu": _beside_reference(similarity.token_bleu, code=True),
    "rouge_l": _beside_reference(similarity.rouge_l, code=False),
    "chrf": _beside_reference(similarity.chrf, code=False),
}


def scores(records: list[schema.Record]) -> dict[str, Any]:
    """All numbers of one set of generated rows; every one can be counted again from the file."""
    rows = judged(records)
    found: dict[str, Any] = {
        "rows": len(rows),
        "prompts": len(by_prompt(rows)),
        "empty": sum(map(is_empty_answer, rows)),
        **checked(rows),
        "pass_at": passes(rows),
        "render_errors": _counted(filter(None, map(render_class, rows))),
        "fenced": sum("answer" in row["metadata"].get("evaluation", {}) for row in rows),
    }
    issues = _counted(issue for row in rows for issue in issue_names(row))
    found["quality"] = {**rates.mean_of(values(rows, quality)), "issues": issues}
    found["likeness"] = {name: rates.mean_of(values(rows, measure)) for name, measure in LIKENESS.items()}
    for part, key in (("by_source", lambda row: row["source"]), ("by_kind", kind_of)):
        found[part] = {name: checked(members) for name, members in parted(rows, key).items()}
    return found


def checked(rows: list[schema.Record]) -> dict[str, Any]:
    return {name: rates.rate_of(verdicts(rows, check)) for name, check in CHECKS.items()}


def verdicts(rows: Iterable[schema.Record], check: Check) -> list[list[bool]]:
    """The verdicts on the answers to each prompt."""
    found = [[v for v in map(check.ask, answers) if v is not None] for answers in by_prompt(rows).values()]
    return [group for group in found if group]


def values(rows: Iterable[schema.Record], measure: Callable[[schema.Record], float | None]) -> list[float]:
    """One number for each prompt: the mean over its answers."""
    found = (_mean(answers, measure) for answers in by_prompt(rows).values())
    return [value for value in found if value is not None]


def passes(rows: list[schema.Record]) -> dict[str, dict[str, Any]]:
    """pass@k for every k of TRIES that all prompts have answers for, and for as many as they have."""
    found: dict[str, dict[str, Any]] = {}
    for name in SAMPLED:
        groups = verdicts(rows, CHECKS[name])
        most = min(map(len, groups), default=0)
        for k in sorted({k for k in TRIES if k < most} | {most}) if most > 1 else ():
            found.setdefault(name, {})[str(k)] = rates.pass_at(groups, k)
    return found


def issue_names(record: schema.Record) -> set[str]:
    """The names of what filter_quality.py found in a row, each once."""
    issues = record["metadata"].get("quality", {}).get("issues", [])
    return {issue["check"] for issue in issues}


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def parted(rows: Iterable[schema.Record], key: Callable[[schema.Record], str]) -> dict[str, list[schema.Record]]:
    found = defaultdict(list)
    for row in rows:
        found[key(row)].append(row)
    return {name: found[name] for name in sorted(found)}


def by_prompt(records: Iterable[schema.Record]) -> Rows:
    """The answers under the id of the row that was asked."""
    rows: Rows = {}
    for record in records:
        rows.setdefault(record["metadata"]["id"], []).append(record)
    return rows


def totals(rows: Iterable[schema.Record]) -> dict[str, Any]:
    """Loss, perplexity and accuracy over tokens, not over rows: a long answer weighs as much as it is long."""
    facts = [row["metadata"]["evaluation"] for row in rows]
    tokens = sum(fact["tokens"] for fact in facts)
    if tokens == 0:
        return {"rows": 0, "tokens": 0, "loss": None, "perplexity": None, "accuracy": None}
    loss = sum(fact["nll"] for fact in facts) / tokens
    return {
        "rows": len(facts),
        "tokens": tokens,
        "loss": round(loss, 6),
        "perplexity": round(math.exp(loss), 6) if loss < 700 else None,  # beyond that a float has no word for it
        "accuracy": round(sum(fact["correct"] for fact in facts) / tokens, 6),
    }


def grouped(rows: list[schema.Record]) -> dict[str, Any]:
    """Totals of all rows, and of each source and kind."""
    return {
        "all": totals(rows),
        "by_source": {name: totals(members) for name, members in parted(rows, lambda row: row["source"]).items()},
        "by_kind": {name: totals(members) for name, members in parted(rows, kind_of).items()},
    }


def paired(
    first: Rows, second: Rows, measure: Callable[[schema.Record], float | None], *, low_is_good: bool = False
) -> dict[str, Any]:
    """How one measure changes from the first set to the second, prompt by prompt.

    The interval is that of the difference b - a; p is the sign test over the prompts that changed.
    """
    both = [(_mean(first[name], measure), _mean(second[name], measure)) for name in first if name in second]
    pairs = [(a, b) for a, b in both if a is not None and b is not None]
    if not pairs:
        return {"n": 0}
    sign = -1 if low_is_good else 1
    better, worse = sum(sign * b > sign * a for a, b in pairs), sum(sign * b < sign * a for a, b in pairs)
    a, b = (math.fsum(side) / len(pairs) for side in zip(*pairs, strict=True))
    interval = rates.paired_difference(pairs)
    return {
        "n": len(pairs),
        "a": round(a, 6),
        "b": round(b, 6),
        "difference": round(b - a, 6),
        "low": round(interval[0], 6) if interval else None,
        "high": round(interval[1], 6) if interval else None,
        "better": better,
        "worse": worse,
        "equal": len(pairs) - better - worse,
        "p": round(rates.sign_test(better, worse), 6),
    }


def _mean(answers: list[schema.Record], measure: Callable[[schema.Record], float | None]) -> float | None:
    found = [float(value) for value in map(measure, answers) if value is not None]
    return math.fsum(found) / len(found) if found else None
