"""What people read: two evaluations beside each other, as numbers and as texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import schema
from stages.evaluate_model import measures

Measure = tuple[Callable[[schema.Record], float | None], bool]

WRITTEN: dict[str, Measure] = {
    **{name: (check.ask, check.low_is_good) for name, check in measures.CHECKS.items()},
    "quality": (measures.quality, False),
    **{name: (measure, False) for name, measure in measures.LIKENESS.items()},
}


def side_by_side(
    written: tuple[list[schema.Record], list[schema.Record]], rated: tuple[list[schema.Record], list[schema.Record]]
) -> dict[str, Any]:
    """Every measure that both know, over the prompts that both have; and how many prompts only one has."""
    a, b = (measures.by_prompt(measures.judged(rows)) for rows in written)
    before, after = map(measures.by_prompt, rated)
    found = {name: measures.paired(a, b, measure, low_is_good=low) for name, (measure, low) in WRITTEN.items()}
    found["loss"] = measures.paired(before, after, measures.mean_loss, low_is_good=True)
    known = {name: pairs for name, pairs in found.items() if pairs["n"]}
    if not known:
        return {}
    return {"prompts": {"generated": _shared(a, b), "rated": _shared(before, after)}, **known}


def _shared(a: measures.Rows, b: measures.Rows) -> dict[str, int]:
    both = len(a.keys() & b.keys())
    return {"both": both, "only_a": len(a) - both, "only_b": len(b) - both}


def comparison(found: dict[str, Any]) -> Iterator[str]:
    """The lines of the table."""
    yield (
        f"{'':11} {'A':>9} {'B':>9} {'B - A':>9} {'95 % interval':>20} "
        f"{'prompts':>8} {'better':>7} {'worse':>7} {'p':>6}"
    )
    for name, row in found.items():
        if name == "prompts":
            continue
        interval = "" if row["low"] is None else f"{row['low']:+.4f} to {row['high']:+.4f}"
        yield (
            f"{name:11} {row['a']:9.4f} {row['b']:9.4f} {row['difference']:+9.4f} {interval:>20} "
            f"{row['n']:8,} {row['better']:7,} {row['worse']:7,} {row['p']:6.3f}"
        )
    for kind, counts in found["prompts"].items():
        if counts["only_a"] or counts["only_b"]:
            yield f"left out of {kind}: {counts['only_a']:,} prompts that only A has, {counts['only_b']:,} only B"


def texts(a: list[schema.Record], b: list[schema.Record]) -> Iterator[str]:
    """The answers of both to each prompt, as Markdown."""
    first, second = measures.by_prompt(a), measures.by_prompt(b)
    for name in dict.fromkeys([*first, *second]):
        rows = first.get(name) or second[name]
        yield f"## {' '.join(rows[0]['description'].split())}\n"
        for title, answers in (("A", first.get(name, [])), ("B", second.get(name, []))):
            for row in answers:
                yield f"{title}{_verdict(row)}\n\n{_fenced(row)}\n"
            if not answers:
                yield f"{title} was not asked.\n"


def _verdict(row: schema.Record) -> str:
    """What the checks say, in a line."""
    if measures.is_empty_answer(row):
        return ": no answer"
    return ": " + ", ".join(f"{name} {'yes' if said else 'no'}" for name, said in verdicts(row).items())


def verdicts(row: schema.Record) -> dict[str, bool]:
    """What every check says that has something to say."""
    said = {name: check.ask(row) for name, check in measures.CHECKS.items()}
    return {name: verdict for name, verdict in said.items() if verdict is not None}


def _fenced(row: schema.Record) -> str:
    """A fence that is longer than any in the text."""
    text = "" if measures.is_empty_answer(row) else row["code"].rstrip()
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{'python' if measures.is_code(row) else ''}\n{text}\n{fence}"


def percent(rate: dict[str, Any]) -> str:
    if not rate["n"]:
        return "nothing to count"
    return (
        f"{rate['passed']:,} of {rate['n']:,} = {rate['rate']:.1%} "
        f"(95 % interval {rate['low']:.1%} to {rate['high']:.1%})"
    )


def mean(found: dict[str, Any]) -> str:
    interval = "" if found["low"] is None else f" (95 % interval {found['low']:.3f} to {found['high']:.3f})"
    return f"{found['mean']:.3f} on average of {found['n']:,} prompts{interval}"


def scores(found: dict[str, Any]) -> Iterator[str]:
    """The numbers of `score`, one measure on each line; those that nothing is known of are left out."""
    for name in measures.CHECKS:
        if found[name]["n"]:
            yield f"{name:<11} {percent(found[name])}"
    for error, count in sorted(found["render_errors"].items(), key=lambda item: -item[1]):
        yield f"  {count:,} {error}"
    for name, tries in found["pass_at"].items():
        for k, rate in tries.items():
            yield (
                f"{name:<11} pass@{k} {rate['rate']:.1%} of {rate['prompts']:,} prompts "
                f"(95 % interval {rate['low']:.1%} to {rate['high']:.1%})"
            )
    for name, value in (("quality", found["quality"]), *found["likeness"].items()):
        if value["n"]:
            yield f"{name:<11} {mean(value)}"


def loss_line(totals: dict[str, Any]) -> str:
    perplexity = "beyond any number" if totals["perplexity"] is None else f"{totals['perplexity']:,.3f}"
    return (
        f"loss {totals['loss']:.4f}, perplexity {perplexity}, token accuracy {totals['accuracy']:.1%} "
        f"over {totals['tokens']:,} tokens of {totals['rows']:,} answers"
    )
