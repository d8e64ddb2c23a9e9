"""The sections about rows: where they came from, what they are like, and what was decided about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import schema
from stages.report import drawing, flow, tracking
from stages.report.census import LICENCE_UNKNOWN, TOKEN_ROWS, Census, about_how_many_tokens
from stages.report.drawing import Series
from stages.report.ledgers import Step, shown
from stages.report.markup import Section, beside, details, figure, table
from stages.report.rows import KEPT, REJECTED

MOST_SOURCES = 24


def colour_of(place: int) -> str:
    return f"c{place % drawing.COLOURS + 1}"


def way(steps: Sequence[Step], census: Census) -> Section:
    """Every stage, what went in, what came out, and why the rest did not."""
    title = "The way of the rows"
    if not steps:
        return Section("flow", title, "There is no ledger yet: `make data` writes the first one.", [])
    rows = [[step.ledger.stage, shown(step.place), *_counts(step), _reasons(step.ledger.reasons)] for step in steps]
    head = ["stage", "ledger", "in", "kept", "rejected", "merged", "augmented", "reasons"]
    picture = flow.draw(flow.build(steps))
    tracked = tracking.rows(census)
    return Section("flow", title, "Each band is rows on their way from a source to a file; what leaves is named.", [
        f'<div class="wide scroll" tabindex="0" role="region" aria-label="Flow of the rows">{picture}</div>',
        details("The same as a table", table("All ledgers", head, rows)),
        table("Each source, from its first row to its side of the split", tracking.HEAD, tracked),
    ])  # fmt: skip


def _counts(step: Step) -> list[int]:
    return [step.ledger.counts.get(name, 0) for name in ("in", "kept", "rejected", "merged", "augmented")]


def _reasons(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(reasons.items(), key=lambda item: -item[1]))


def mix(census: Census) -> Section:
    title = "Sources and licences"
    if not census.rows:
        return Section("sources", title, "There are no rows yet: `make data` brings them.", [])
    kept = [(name, float(census.fates[name][KEPT])) for name in census.sources()]
    shown_sources = [(name, rows, colour_of(place)) for place, (name, rows) in enumerate(kept[:MOST_SOURCES])]
    licences = sorted(census.licences.items(), key=lambda item: (-item[1].total(), item[0]))
    named = [
        (name, float(counts.total()), "bad" if name == LICENCE_UNKNOWN else "c1")
        for name, counts in licences[:MOST_SOURCES]
    ]
    words = "The rows that were kept, by where they come from and by what they may be used for."
    if LICENCE_UNKNOWN in census.licences:
        words += f" {census.licences[LICENCE_UNKNOWN].total():,} of them name no licence."
    by_licence = [[name, counts.total(), ", ".join(sorted(counts))] for name, counts in licences]
    return Section("sources", title, words, [
        beside(
            figure(drawing.bars("Kept rows by source", shown_sources), "Kept rows by source"),
            figure(drawing.bars("Kept rows by licence", named), "Kept rows by licence"),
        ),
        details("Which source has which licence", table("Licences", ["licence", "rows", "sources"], by_licence)),
    ])  # fmt: skip


def lengths(census: Census, sample: Sequence[schema.Record]) -> Section:
    """Characters of all kept rows; tokens, which take longer to count, of a sample."""
    title = "Lengths"
    if not census.count(KEPT):
        return Section("lengths", title, "There are no kept rows to measure.", [])
    tokens = _tokens(sample)
    of = "of all rows" if len(sample) < TOKEN_ROWS else f"of {len(sample):,} rows, evenly spread"
    pictures, spreads = [], []
    for field, by_source in census.lengths.items():
        if not by_source:
            continue
        every = sum(by_source.values(), Counter[int]())
        pictures.append(figure(_columns(field, "characters", every), f"{field}: characters of {every.total():,} rows"))
        pictures.append(figure(_columns(field, "tokens", tokens[field]), f"{field}: about so many tokens, {of}"))
        named = [(name, by_source[name], colour_of(n)) for n, name in enumerate(census.sources()) if by_source[name]]
        words = "the middle half as a box, 5 % to 95 % as a line, the median as a stroke"
        picture = drawing.spans(f"Characters of the {field} by source", named[:MOST_SOURCES])
        spreads.append(figure(picture, f"{field}: characters by source; {words}"))
    percents = (5, 25, 50, 75, 95, 99)
    rows = [[name, *(drawing.percentile(found, percent) for percent in percents)] for name, found in tokens.items()]
    head = ["about tokens", *(f"{percent} %" for percent in percents)]
    told = table(f"Percentiles of the length in tokens, {of}", head, rows)
    parts = [beside(*pictures), beside(*spreads) if len(census.fates) > 1 else "", told]
    return Section("lengths", title, "How long the kept texts are. The longest 1 % is left out of the pictures.", parts)


def _tokens(sample: Sequence[schema.Record]) -> dict[str, Counter[int]]:
    texts: dict[str, Callable[[schema.Record], str]] = {
        "description": lambda row: row["description"],
        "code": lambda row: row["code"],
    }
    return {
        name: Counter(about_how_many_tokens(text(row)) for row in sample if text(row)) for name, text in texts.items()
    }


def _columns(field: str, unit: str, lengths: Counter[int]) -> str:
    """About 25 columns of round width, up to the 99th percentile."""
    top = drawing.percentile(lengths, 99)
    marks = drawing.ticks(top, 24)
    step = max(1, int(marks[1]))
    values = [0] * (top // step + 1)
    for length, count in lengths.items():
        if length // step < len(values):
            values[length // step] += count
    labels = [f"{step * place:,}" for place in range(len(values))]
    return drawing.histogram(f"{field}: {unit}", labels, [Series("rows", "c1", values)], every=5, unit=unit)


def quality(steps: Sequence[Step], census: Census) -> Section:
    title = "Quality"
    if not sum(map(Counter.total, census.scores.values())):
        return Section("quality", title, "No row has a score yet: `make filter` gives them.", [])
    labels = [f"{place / 20:.2f}".removesuffix("0") for place in range(21)]
    series = [
        Series(name, colour, [census.scores[name][place] for place in range(21)])
        for name, colour in ((KEPT, "c1"), (REJECTED, "bad"))
    ]
    picture = drawing.histogram("Rows by score", labels, series, every=2, unit="score")
    reached = [
        step.ledger.options["min_quality"]
        for step in steps
        if isinstance(step.ledger.options.get("min_quality"), int | float)
    ]
    asked = f" At least {max(reached):g} was asked for." if reached else ""
    issues = [[check, severity, count] for (check, severity), count in census.issues.most_common(12)]
    reasons = [(f"{reason}", float(count), "bad") for (_, reason), count in census.reasons.most_common(14)]
    return Section("quality", title, f"Scores of kept and rejected rows, and what was found in them.{asked}", [
        beside(
            figure(picture, "Rows by score: kept ones below, rejected ones above"),
            figure(drawing.bars("Rejected rows by reason", reasons), "Rejected rows by reason, all stages"),
        ),
        table("The most frequent findings", ["check", "severity", "rows"], issues) if issues else "",
    ])  # fmt: skip


def cost(steps: Sequence[Step]) -> Section:
    """What the ledgers of the LLM stages and their receipts say."""
    title = "Cost of the LLM"
    asked = [(step, step.cost) for step in steps if step.cost]
    if not asked:
        offline = any(str(step.ledger.options.get("llm", "")).startswith("offline") for step in steps)
        said = (
            "Nothing: the descriptions were written offline, from the programs themselves."
            if offline
            else "No LLM was asked."
        )
        return Section("cost", title, said, [])
    rows = []
    for step, told in asked:
        usd = "unknown price" if told.get("usd") is None else f"${told['usd'] + told.get('usd_earlier', 0):,.4f}"
        counted = {name: value for name, value in told.items() if isinstance(value, int) and value}
        words = ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in counted.items())
        rows.append([step.ledger.stage, _first(step), told.get("author", ""), usd, words, told.get("price") or ""])
    known = [told["usd"] + told.get("usd_earlier", 0) for _, told in asked if told.get("usd") is not None]
    head = ["stage", "file", "model", "cost", "counted", "price from"]
    return Section(
        "cost",
        title,
        f"${sum(known):,.4f} in all, by the ledgers; a receipt for each row lies beside its file.",
        [table("Cost by file", head, rows)],
    )


def _first(step: Step) -> str:
    return shown(next(iter(step.outputs), Path("-")))
