"""A folder for a hub of data sets: the final files, and a README.md that the ledgers and these files have written."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import schema
from stages.report import drawing
from stages.report.census import LICENCE_UNKNOWN, Census
from stages.report.ledgers import Step, final_files, shown
from stages.report.rows import KEPT, MERGED, REJECTED, records

SPLITS = {"valid": "validation", "val": "validation"}
SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)
# What the hub calls them; any other licence is "other" there, and has its own name in the table.
LICENCES = {
    "mit", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0",
    "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "gpl-2.0", "gpl-3.0", "agpl-3.0", "lgpl-3.0", "mpl-2.0", "isc",
    "unlicense", "odc-by", "odbl",
}  # fmt: skip
README = "README.md"


def splits(steps: Sequence[Step]) -> dict[str, Path]:
    """The final files by the name of their split; a name that two of them have gets the folder's name before it."""
    found = [path for path in final_files(steps) if path.is_file()]
    stems = {path: _plain(path.name.split(".")[0]) for path in found}
    stems = {path: SPLITS.get(stem, stem) for path, stem in stems.items()}
    often = Counter(stems.values())
    order = ("train", "validation", "test")
    names = {stem if often[stem] == 1 else _plain(f"{path.parent.name}_{stem}"): path for path, stem in stems.items()}
    return dict(sorted(names.items(), key=lambda item: (order.index(item[0]) if item[0] in order else 3, item[0])))


def _plain(name: str) -> str:
    return re.sub(r"\W", "_", name)


def write(folder: Path, steps: Sequence[Step], census: Census, title: str) -> list[str]:
    """Write the folder as one set; gives the names of its files."""
    files = splits(steps)
    if not files:
        raise schema.Failure("there is no record file to describe; `make split` writes the last ones")
    with schema.folder(folder) as staging:
        (staging / "data").mkdir()
        counts = {name: _copy(path, staging / "data" / f"{name}.jsonl") for name, path in files.items()}
        with schema.atomic(staging / README) as file:
            file.write(text(steps, census, counts, title).encode())
    return [README, *(f"data/{name}.jsonl" for name in files)]


def _copy(source: Path, target: Path) -> int:
    """The metadata as JSON text: readers of columns can not hold values whose shape differs from row to row."""
    count = 0
    with schema.atomic(target) as file:
        for record in records(source):
            metadata = json.dumps(record["metadata"], ensure_ascii=False)
            row = {name: record[name] for name in ("description", "code", "source")}
            file.write(json.dumps({**row, "metadata": metadata}, ensure_ascii=False).encode() + b"\n")
            count += 1
    return count


def text(steps: Sequence[Step], census: Census, counts: dict[str, int], title: str) -> str:
    lines = ["---", *_front(census, counts, title), "---", "", f"# {title}", ""]
    lines += ["Everything here was taken from the ledgers of the run and from the files themselves.", ""]
    lines += ["## Rows", "", *_table(["split", "rows"], counts.items()), "", *_columns(), ""]
    lines += ["## Sources and licences", "", *_sources(census), ""]
    lines += ["## Lengths", "", *_lengths(census), ""]
    lines += ["## What was left out", "", *_left_out(census), ""]
    lines += ["## Duplicates and split", "", *_policy(steps), ""]
    lines += ["## Descriptions", "", *_descriptions(steps, census), ""]
    lines += ["## How it was made", "", *_stages(steps)]
    return "\n".join(lines) + "\n"


def _front(census: Census, counts: dict[str, int], title: str) -> Iterator[str]:
    """What a hub reads; names are JSON strings, which are YAML too."""
    total = sum(counts.values())
    yield f"pretty_name: {json.dumps(title, ensure_ascii=False)}"
    yield "license:"
    yield from (f"- {name}" for name in sorted({_hub_licence(name) for name in census.licences}))
    yield "task_categories:\n- text-generation"
    yield f"size_categories:\n- {next((name for size, name in SIZES if total < size), 'n>10M')}"
    yield "tags:\n- linemill"
    yield "configs:\n- config_name: default\n  data_files:"
    for name in counts:
        yield f"  - split: {name}\n    path: data/{name}.jsonl"


def _hub_licence(name: str) -> str:
    plain = name.lower().strip().replace(" ", "-")
    return plain if plain in LICENCES else "unknown" if name == LICENCE_UNKNOWN else "other"


def _table(head: Sequence[str], rows: Any) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield "| " + " | ".join(_cell(value) for value in row) + " |"


def _cell(value: object) -> str:
    """One line of text that can not end its cell or begin any markup."""
    if isinstance(value, int):
        return f"{value:,}"
    return re.sub(r"([\\|<>`*\[\]])", r"\\\1", " ".join(str(value).split()))


def _columns() -> list[str]:
    return [
        "Every row has `description` (what is asked for), `code` (the text that answers), `source`, and `metadata`:",
        "JSON text with the row's id, origin, licence, quality, and `lineage`, the stages that it went through.",
    ]


def _sources(census: Census) -> Iterator[str]:
    kept = census.count(KEPT)
    rows = []
    for source in census.sources():
        licences = {name: counts[source] for name, counts in census.licences.items() if counts[source]}
        count = census.fates[source][KEPT]
        rows.append([source, count, f"{count / max(1, kept):.1%}", ", ".join(sorted(licences))])
    yield from _table(["source", "rows", "share", "licence"], rows)
    if LICENCE_UNKNOWN in census.licences:
        yield f"\n{census.licences[LICENCE_UNKNOWN].total():,} rows name no licence."


def _lengths(census: Census) -> Iterator[str]:
    percents = (5, 25, 50, 75, 95, 99)
    rows = []
    for field, by_source in census.lengths.items():
        if every := sum(by_source.values(), Counter[int]()):
            rows.append([field, *(drawing.percentile(every, percent) for percent in percents)])
    yield from _table(["characters", *(f"{percent} %" for percent in percents)], rows)


def _left_out(census: Census) -> Iterator[str]:
    kept, rejected, merged = map(census.count, (KEPT, REJECTED, MERGED))
    yield f"Of {census.rows:,} rows, {kept:,} were kept, {rejected:,} rejected and {merged:,} merged as duplicates."
    if census.reasons:
        yield ""
        rows = [
            [end.removeprefix("rejected by "), reason, count] for (end, reason), count in census.reasons.most_common()
        ]
        yield from _table(["stage", "reason", "rows"], rows)


def _policy(steps: Sequence[Step]) -> Iterator[str]:
    names = ("near_threshold", "normalise", "same_code", "same_description", "test_ratio", "ratios", "seed", "stratify")
    yield "Rows with the same code or description stand in one split only, and so do rows that are near each other by"
    yield "the measure that is named here; a later row never moves an earlier one."
    yield ""
    for step in steps:
        if step.ledger.stage in ("prepare_data", "split_data"):
            told = [
                f"{name} {step.ledger.options[name]}"
                for name in names
                if step.ledger.options.get(name) not in (None, [])
            ]
            yield f"- {_cell(step.ledger.stage)}: {_cell(', '.join(told))}"


def _descriptions(steps: Sequence[Step], census: Census) -> Iterator[str]:
    described = sum(marks["described"] for marks in census.marks.values())
    yield f"{described:,} descriptions were written by a model or a program, {census.rewritten:,} of them anew."
    yield ""
    for step in steps:
        told, author = step.cost, step.ledger.options.get("llm")
        if told:
            usd = told.get("usd")
            cost = "price unknown" if usd is None else f"${usd + told.get('usd_earlier', 0):.4f}"
            yield _author(step, told.get("author"), cost)
        elif isinstance(author, str):
            yield _author(step, author, "no cost")


def _author(step: Step, author: object, cost: str) -> str:
    return f"- {_cell(step.ledger.stage)}: {_cell(author)}, {step.ledger.counts['in']:,} rows, {cost}"


def _stages(steps: Sequence[Step]) -> Iterator[str]:
    rows = []
    for step in steps:
        counts = step.ledger.counts
        written = ", ".join(f"{Path(file.path).name} {(file.sha256 or '')[:12]}" for file in step.ledger.outputs)
        names = ("in", "kept", "rejected", "merged", "augmented")
        rows.append([f"{step.ledger.stage} {step.ledger.version}", *(counts.get(name, 0) for name in names), written])
    head = ["stage", "in", "kept", "rejected", "merged", "augmented", "output, SHA-256"]
    yield from _table(head, rows)


def faults(steps: Sequence[Step]) -> Iterator[str]:
    """Why the files are not those that the ledgers tell of."""
    for path, file in final_files(steps).items():
        if not path.is_file():
            yield f"{shown(path)} is gone"
        elif file.sha256 and schema.file_facts(path, count=False)["sha256"] != file.sha256:
            yield f"{shown(path)} is not what its ledger says"
