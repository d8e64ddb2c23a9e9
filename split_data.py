"""Split a record file into train, valid and test without a leak, or prove that two files share nothing.

    python split_data.py --input data_filtered/train.json --output-dir data_split --ratios 85/15
    python split_data.py audit data_filtered/train.json data_filtered/test.json

In    any record file; "-" is standard input
Out   split: train.jsonl, valid.jsonl (and test.jsonl for three ratios), rejects.jsonl and ledger.json, which change
      together or not at all
      audit: standard output gets a line for each record that stands on both sides; exit code 3 if there is one

Records with the same code or the same description stay on one side. The side follows from the content and the
seed alone, so a file that grows moves none of its old records. All records are held in memory.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

import schema
from schema import Fault, Record

STAGE = "split_data"
SIDES = ("train", "valid", "test")

# What the published ShareGPT sets of this domain say to the model before the request.
SYSTEM = "You are a Manim code generator. Write a complete Manim Community Edition program for the request."

Row = dict[str, Any]


def parse_ratios(context: click.Context, parameter: click.Parameter, text: str) -> list[float]:
    """85/15, or 80/10/10, as numbers."""
    try:
        ratios = [float(part) for part in text.split("/")]
    except ValueError:
        raise click.BadParameter(f"{text!r} is not of the form 85/15 or 80/10/10") from None
    if len(ratios) not in (2, 3) or not all(0 <= ratio <= 100 for ratio in ratios):
        raise click.BadParameter(f"{text!r}: it takes two or three shares between 0 and 100")
    if abs(sum(ratios) - 100) > 1e-9:
        raise click.BadParameter(f"{text!r} adds up to {sum(ratios):g}, not to 100")
    return ratios


def assign(records: list[Record], ratios: list[float], seed: int, stratify: list[str]) -> list[int]:
    """The side of each record: 0 for train, and so on."""
    keys = schema.clusters(records)
    strata: dict[str, tuple[str, ...]] = {}
    for key, record in zip(keys, records, strict=True):
        mark = tuple(stratum_value(record, name) or "" for name in stratify)
        strata[key] = min(mark, strata.get(key, mark))  # not the first one: the order of the rows must not matter
    # Not the bare key: a train side that prepare_data.py split off with the same seed has lost all low shares.
    shares = {key: schema.share(f"{STAGE} {key}", seed) for key in strata}
    sides = {key: side_of(share, ratios) for key, share in shares.items()}
    members: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for key in sorted(strata):
        members[strata[key]].append(key)
    # A stratum that is too small for all sides is left to chance; the whole set comes last and mends what it can.
    for group in [*members.values(), sorted(strata)]:
        fill_empty_sides(group, sides, shares, ratios)
    return [sides[key] for key in keys]


def side_of(share: float, ratios: list[float]) -> int:
    """The side whose stretch of [0, 1) holds the share."""
    end = 0.0
    for side, ratio in enumerate(ratios):
        end += ratio / 100
        if share < end:
            return side
    return max(side for side, ratio in enumerate(ratios) if ratio)


def fill_empty_sides(group: list[str], sides: dict[str, int], shares: dict[str, float], ratios: list[float]) -> None:
    """Give every side that should have some a cluster of its own, as long as there are enough of them."""
    wanted = [side for side, ratio in enumerate(ratios) if ratio]
    if len(group) < len(wanted):
        return
    for side in wanted:
        sizes = Counter(sides[key] for key in group)
        if sizes[side]:
            continue
        middle = (sum(ratios[:side]) + ratios[side] / 2) / 100
        crowded = max(wanted, key=lambda other: sizes[other])
        candidates = [key for key in group if sides[key] == crowded]
        sides[min(candidates, key=lambda key: (abs(shares[key] - middle), key))] = side


def stratum_value(record: Record, name: str) -> str | None:
    value = record["source"] if name == "source" else record["metadata"].get(name)
    return None if value is None else str(value)


def as_messages(record: Record) -> Row:
    system = record["metadata"].get("system")
    first = [{"role": "system", "content": system}] if isinstance(system, str) else []
    user = {"role": "user", "content": record["description"]}
    return {"messages": [*first, user, {"role": "assistant", "content": record["code"]}]}


def as_conversations(record: Record) -> Row:
    """ShareGPT, as the published sets have it: a system turn, and the program in a fence."""
    metadata, code = record["metadata"], record["code"]
    is_code = metadata.get("kind", "code") == "code"
    system = metadata.get("system") or (SYSTEM if is_code else None)
    turns = [
        ("system", system),
        ("human", record["description"]),
        ("gpt", f"```python\n{code.rstrip()}\n```" if is_code else code),
    ]
    return {
        "conversations": [{"from": who, "value": text} for who, text in turns if text],
        "source": record["source"],
    }


def as_alpaca(record: Record) -> Row:
    return {"instruction": record["description"], "input": "", "output": record["code"]}


def as_prompt_completion(record: Record) -> Row:
    return {"prompt": record["description"], "completion": record["code"]}


def as_text(record: Record) -> Row:
    if not record["description"]:
        return {"text": record["code"]}
    return {"text": f"Instruction: {record['description']}\nCode:\n{record['code']}"}


FORMATS: dict[str, Callable[[Record], Row] | None] = {
    "records": None,
    "messages": as_messages,
    "conversations": as_conversations,
    "alpaca": as_alpaca,
    "prompt-completion": as_prompt_completion,
    "text": as_text,
}


def find_fault(record: Record, row_format: str) -> Fault | None:
    """Why a record can not be a row of this format, or None."""
    is_document = row_format == "text" and record["metadata"].get("kind") == "document"
    if row_format != "records" and not record["description"] and not is_document:
        return Fault("no_description", f"the format {row_format} asks for something, and the record has no description")
    return None


@click.group(cls=schema.group("split"), context_settings=schema.CONTEXT)
def main() -> None:
    """Split a record file, or audit two files for leaks. Without a command: split."""


@main.command()
@click.option(
    "--input",
    "source",
    required=True,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    help='Record file of any known shape; "-" is standard input.',
)
@click.option("--output-dir", required=True, type=click.Path(file_okay=False), help="Folder to write.")
@click.option(
    "--ratios", default="85/15", callback=parse_ratios, help="Shares of train and valid, or of train, valid and test."
)
@click.option("--seed", default=42, help="Decides the sides.")
@click.option("--format", "row_format", default="records", type=click.Choice(list(FORMATS)), help="Shape of the rows.")
@click.option(
    "--stratify",
    metavar="KEYS",
    help="Keys such as source,kind: every combination that is big enough stands on all sides.",
)
@click.option("-v", "--verbose", is_flag=True, help="Say why each row is rejected.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
def split(
    source: str,
    output_dir: str,
    ratios: list[float],
    seed: int,
    row_format: str,
    stratify: str | None,
    verbose: bool,
    quiet: bool,
) -> None:
    """Write train.jsonl, valid.jsonl and perhaps test.jsonl."""
    schema.set_verbosity(1 if verbose else -1 if quiet else 0)
    strata = [name.strip() for name in stratify.split(",")] if stratify else []
    names = SIDES[: len(ratios)]
    refuse_own_input(source, [Path(output_dir, f"{name}.jsonl") for name in SIDES])
    options = {"ratios": ratios, "seed": seed, "format": row_format, "stratify": strata}
    reasons: Counter[str] = Counter()
    with schema.folder(output_dir) as staging:
        with schema.rejects(output_dir, staging / "rejects.jsonl", stage=STAGE) as put:
            records = accepted(source, row_format, counting(put, reasons))
        check_strata(records, strata)
        sides = assign(records, ratios, seed, strata)
        for number, name in enumerate(names):
            params = {**options, "side": name}
            rows = (record for record, side in zip(records, sides, strict=True) if side == number)
            write_side(staging / f"{name}.jsonl", rows, row_format, params)
        sizes = {name: sides.count(number) for number, name in enumerate(names)}
        rejected = reasons.total()
        schema.write_ledger(
            staging / "ledger.json",
            stage=STAGE,
            inputs=[] if source == "-" else [source],
            outputs=[staging / f"{name}.jsonl" for name in names],
            counts={
                "in": len(records) + rejected,
                "kept": len(records),
                "rejected": rejected,
                "merged": 0,
                "augmented": 0,
            },
            reasons=dict(reasons),
            options=options,
            rejects=staging / "rejects.jsonl",
            extra={"sides": sizes},
            beside=output_dir,
        )
    report(sizes, rejected, ratios, output_dir)


def refuse_own_input(source: str, outputs: list[Path]) -> None:
    for output in outputs:
        if source != "-" and output.exists() and output.samefile(source):
            raise click.UsageError(f"--input {source}: the split would take its place; choose another --output-dir")


def counting(put: schema.Reject, reasons: Counter[str]) -> schema.Reject:
    def reject(item: Any, message: str, code: str = "invalid", line: int | None = None) -> None:
        reasons[code] += 1
        schema.log(f"  rejected: {code}: {message}", level=1)
        put(item, message, code=code, line=line)

    return reject


def accepted(source: str, row_format: str, reject: schema.Reject) -> list[Record]:
    """All records of the file that the format can hold."""
    records = []
    for found in schema.progress(schema.read(source, reject), STAGE):
        record = schema.adopt(found)
        if fault := find_fault(record, row_format):
            reject(record, fault.message, code=fault.code)
        else:
            records.append(record)
    if not records:
        raise schema.Failure(f"{source}: there is no record to split")
    return records


def check_strata(records: list[Record], strata: list[str]) -> None:
    for name in strata:
        if all(stratum_value(record, name) is None for record in records):
            raise click.UsageError(f"--stratify {name}: no record has this key in its metadata")


def write_side(path: Path, records: Iterable[Record], row_format: str, params: dict[str, Any]) -> None:
    convert = FORMATS[row_format]
    if convert is None:
        with schema.write(path) as keep:
            for record in records:
                parent = schema.content_hash(record)
                keep(schema.add_lineage(record, stage=STAGE, params=params, parent=parent))
        return
    with schema.atomic(path) as file:
        for record in records:
            file.write(schema.encode(convert(record)) + b"\n")


def report(sizes: dict[str, int], rejected: int, ratios: list[float], output_dir: str) -> None:
    kept = sum(sizes.values())
    told = ", ".join(f"{count:,} {name}" for name, count in sizes.items())
    schema.log(f"{STAGE}: {kept + rejected:,} in, {kept:,} kept ({told}), {rejected:,} rejected -> {output_dir}")
    for (name, count), ratio in zip(sizes.items(), ratios, strict=True):
        if ratio and not count:
            schema.log(f"  {name} is empty: there are too few records that differ in code and description")


@main.command()
@click.argument("one", metavar="A", type=click.Path(exists=True, dir_okay=False))
@click.argument("other", metavar="B", type=click.Path(exists=True, dir_okay=False))
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
def audit(one: str, other: str, quiet: bool) -> None:
    """Prove that no code and no description of B stands in A, too."""
    schema.set_verbosity(-1 if quiet else 0)
    unread: Counter[str] = Counter()
    seen: dict[tuple[str, str], str] = {}
    for record in records_of(one, unread):
        for mark in fingerprints(record):
            seen.setdefault(mark, record["metadata"]["id"])
    leaked = total = 0
    by_field: Counter[str] = Counter()
    for record in records_of(other, unread):
        total += 1
        found = [mark for mark in fingerprints(record) if mark in seen]
        leaked += bool(found)
        for mark in found:
            by_field[mark[0]] += 1
            pair = {"field": mark[0], "a": seen[mark], "b": record["metadata"]["id"], "b_source": record["source"]}
            click.echo(schema.encode(pair))
    if unread:
        raise schema.Incomplete(", ".join(f"{path}: {count:,} rows can not be read" for path, count in unread.items()))
    if leaked:
        fields = ", ".join(f"{count:,} by {field}" for field, count in sorted(by_field.items()))
        raise schema.Incomplete(f"{leaked:,} of {total:,} records of {other} also stand in {one} ({fields})")
    schema.log(f"{STAGE}: none of the {total:,} records of {other} stands in {one}, by code or by description")


def records_of(path: str, unread: Counter[str]) -> Iterable[Record]:
    def reject(item: Any, message: str, code: str = "invalid", line: int | None = None) -> None:
        unread[path] += 1

    return (schema.adopt(record) for record in schema.read(path, reject))


def fingerprints(record: Record) -> list[tuple[str, str]]:
    """What no record of the other side may have, too."""
    marks = [("code", schema.code_fingerprint(record["code"]))]
    if record["description"].strip():
        marks.append(("description", schema.description_fingerprint(record["description"])))
    return marks


if __name__ == "__main__":
    schema.main(main)
