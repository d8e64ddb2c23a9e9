"""Split a record file into train, valid and test without a leak, or prove that files share nothing.

    python split_data.py --input data_filtered/train.json --output-dir data_split --ratios 85/15
    python split_data.py --input data_filtered/train.json --output-dir data_chat --format messages
    python split_data.py --input data_filtered/train.json --output-dir data_clean --benchmark benchmark.jsonl
    python split_data.py audit data_filtered/train.json data_filtered/test.json
    python split_data.py

In    any record file; "-" is standard input. Without any option: every data/STYLE_2048.jsonl
Out   split: train.jsonl, valid.jsonl (and test.jsonl for three ratios), rejects.jsonl and ledger.json, which change
      together or not at all; of shards, folders of shards instead: train, valid (and test). With --format also
      configuration files for other trainers. Without any option: the same in data/STYLE_2048, as messages
      audit: standard output gets a line for each pair of records in two files; exit code 3 if there is one

A record stands on the side of the records before it that say the same: equal code, equal description, nearly the
same code, or one group. Without such, its content and the seed decide. What is appended moves no old record.
The file is read twice; no record is held, only its fingerprints.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click

import schema
from schema import Record
from stages.split_data import leaks
from stages.split_data.formats import FORMATS
from stages.split_data.readings import STAGE, Job, place, readable_twice, write_sides
from stages.split_data.sides import SIDES
from stages.split_data.trainers import DEFAULT_MODEL, Folder, configs

# Where the paper pipeline has the rows of each style after they were cut to 2,048 tokens.
STYLES = "data/*_2048.jsonl"


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


def parse_keys(context: click.Context, parameter: click.Parameter, text: str | None) -> list[str]:
    return [key for key in map(str.strip, (text or "").split(",")) if key]


def refuse_pipes(context: click.Context, parameter: click.Parameter, paths: tuple[str, ...]) -> tuple[str, ...]:
    for path in paths:
        if not Path(path).is_file():
            raise click.BadParameter(f"{path}: is no ordinary file, and it has to be read twice")
    return paths


def must_exist(context: click.Context, parameter: click.Parameter, path: str | None) -> str | None:
    if path not in (None, "-") and not schema.exists(path):
        raise click.BadParameter(f"{path}: there is no such file")
    return path


def parse_near(context: click.Context, parameter: click.Parameter, share: float) -> float | None:
    return None if share == 1 else share


NEAR = click.option(
    "--near-threshold",
    "near",
    default=0.7,
    type=click.FloatRange(0.3, 1),
    metavar="S",
    callback=parse_near,
    help="Share of equal runs of tokens from which code counts as the same; 1 is for equal code alone.",
)
NORMALISE = click.option(
    "--normalise",
    default="alpha",
    type=click.Choice(["alpha", "raw"]),
    help="Compare code without the names that it gives itself, or as written.",
)
BENCHMARK = click.option(
    "--benchmark",
    "benchmarks",
    multiple=True,
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    callback=refuse_pipes,
    help="Records that nobody may train on; can be given several times.",
)


@click.group(cls=schema.group("split"), context_settings=schema.CONTEXT, invoke_without_command=True)
@click.pass_context
def main(context: click.Context) -> None:
    """Split a record file, or audit files for leaks. Without a command: split."""
    if context.invoked_subcommand is None:
        if not style_files():
            raise click.exceptions.NoArgsIsHelpError(context)
        with split.make_context("split", [], parent=context) as inner:
            split.invoke(inner)


@main.command()
@click.option(
    "--input",
    "source",
    metavar="FILE|DIR",
    callback=must_exist,
    help=f'Record file of any known shape, or a folder of shards; "-" is standard input.  [default: every {STYLES}]',
)
@click.option(
    "--output-dir", type=click.Path(file_okay=False), help="Folder to write.  [default: the name of such a file]"
)
@click.option(
    "--ratios", default="85/15", callback=parse_ratios, help="Shares of train and valid, or of train, valid and test."
)
@click.option("--seed", default=42, help="Decides the sides.")
@click.option("--format", "row_format", type=click.Choice(list(FORMATS)), help="Shape of the rows.  [default: records]")
@click.option(
    "--stratify",
    metavar="KEYS",
    callback=parse_keys,
    help="Keys such as source,kind: every combination of values is divided by the ratios.",
)
@click.option("--honour-split", metavar="KEY", help="Metadata key, such as Split, that says train, valid or test.")
@BENCHMARK
@NEAR
@NORMALISE
@click.option(
    "--trainer-configs/--no-trainer-configs",
    default=True,
    help="With --format: settings for the trainers that read it.",
)
@click.option("--model", default=DEFAULT_MODEL, help="Base model that these settings name.")
@schema.workplace_options
@schema.verbosity("Say why each row is rejected.")
def split(
    workplace: schema.Workplace,
    source: str | None,
    output_dir: str | None,
    row_format: str | None,
    benchmarks: tuple[str, ...],
    trainer_configs: bool,
    model: str,
    **asked: Any,
) -> None:
    """Write train.jsonl, valid.jsonl and perhaps test.jsonl."""
    places = places_of(source, output_dir)
    job = Job(
        row_format=row_format or ("records" if source else "messages"),
        benchmarks=list(benchmarks),
        **asked,
    )
    for one, folder in places:
        refuse_own_input([one, *benchmarks], [Path(folder, f"{name}.jsonl") for name in SIDES])
        schema.check(workplace, shards=None if schema.is_set(one) else schema.RESHARD)
        split_file(one, folder, job, model if trainer_configs else None, workplace)


def style_files() -> list[Path]:
    return sorted(Path().glob(STYLES))


def places_of(source: str | None, output_dir: str | None) -> list[tuple[str, str]]:
    """Each input with its folder: the one that was named, or all files of the paper pipeline."""
    if source and output_dir:
        return [(source, output_dir)]
    if source or output_dir:
        raise click.UsageError(
            f"{'--input' if source else '--output-dir'} needs {'--output-dir' if source else '--input'}"
        )
    if not (found := style_files()):
        raise click.UsageError(f"missing option --input; without it, {STYLES} is split, and there is no such file")
    return [(str(path), str(path.with_suffix(""))) for path in found]


def refuse_own_input(sources: list[str], outputs: list[Path]) -> None:
    for source in sources:
        for output in outputs:
            taken = [output, output.parent] if schema.is_set(source) else [output]
            if source != "-" and any(
                place.exists() and Path(source).exists() and place.samefile(source) for place in taken
            ):
                raise click.UsageError(f"{source}: the split would take its place; choose another --output-dir")


def split_file(source: str, output_dir: str, job: Job, model: str | None, workplace: schema.Workplace) -> None:
    """One split, from the first reading to the line that says what happened."""
    reasons: Counter[str] = Counter()
    with schema.folder(output_dir) as staging, readable_twice(source) as input_:
        benchmarks = leaks.Files(job.benchmarks, read_whole)
        placement = place(input_, benchmarks, job, workplace)
        with schema.rejects(output_dir, staging / "rejects.jsonl", stage=STAGE) as put:
            sizes = write_sides(staging, input_, benchmarks, placement, job, counting(put, reasons))
        # Those trainers read files, not folders of shards.
        wanted = model and job.row_format != "records" and not input_.is_set()
        fitting = configs(Folder(job.row_format, sizes, model)) if model and wanted else {}
        for name, data in fitting.items():
            (staging / name).write_bytes(data)
        rejected, kept = reasons.total(), sum(sizes.values())
        schema.write_ledger(
            staging / "ledger.json",
            stage=STAGE,
            inputs=[*(schema.files(source) if input_.path == source else []), *job.benchmarks],
            outputs=[staging / piece.output(name) for name in job.names for piece in input_.pieces()],
            counts={"in": kept + rejected, "kept": kept, "rejected": rejected, "merged": 0, "augmented": 0},
            reasons=dict(reasons),
            options=job.options(),
            rejects=staging / "rejects.jsonl",
            files=[staging / name for name in fitting],
            extra={"sides": sizes},
            beside=output_dir,
        )
    report(sizes, reasons, job, output_dir)


def counting(put: schema.Reject, reasons: Counter[str]) -> schema.Reject:
    def reject(item: Any, message: str, code: str = "invalid", line: int | None = None) -> None:
        reasons[code] += 1
        schema.log(f"  rejected: {code}: {message}", level=1)
        put(item, message, code=code, line=line)

    return reject


def read_whole(path: str) -> Iterator[Record]:
    """The records of a file that is only compared with; a row that can not be read could be the one that leaks."""

    def refuse(item: Any, message: str, code: str = "invalid", line: int | None = None) -> None:
        raise schema.Failure(f"{path}: line {line}: {message}; nothing can be said of this row")

    return (schema.adopt(record) for record in schema.read(path, refuse))


def report(sizes: dict[str, int], reasons: Counter[str], job: Job, output_dir: str) -> None:
    kept, rejected = sum(sizes.values()), reasons.total()
    told = ", ".join(f"{count:,} {name}" for name, count in sizes.items())
    schema.log(f"{STAGE}: {kept + rejected:,} in, {kept:,} kept ({told}), {rejected:,} rejected -> {output_dir}")
    for reason, count in reasons.most_common():
        schema.log(f"  {count:,} {reason}")
    too_few = "there are too few records that differ in code and description"
    why = f"by {job.honour_split}, nothing falls on it" if job.honour_split else too_few
    for (name, count), ratio in zip(sizes.items(), job.ratios, strict=True):
        if ratio and not count:
            schema.log(f"  {name} is empty: {why}")


@main.command()
@click.argument(
    "files",
    metavar="A B...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False),
    callback=refuse_pipes,
)
@BENCHMARK
@NEAR
@NORMALISE
@schema.verbosity()
def audit(
    files: tuple[str, ...],
    benchmarks: tuple[str, ...],
    near: float | None,
    normalise: str,
) -> None:
    """Prove that no record of a file says the same as one of another file, or of a benchmark."""
    if len(files) + len(benchmarks) < 2:
        raise click.UsageError(f"{files[0]} is compared with nothing; name another file, or --benchmark FILE")
    unread: Counter[str] = Counter()
    read = partial(read_what_can_be, unread=unread)
    compared = leaks.Files([*benchmarks, *files], read)
    found = list(leaks.crossings(compared, len(benchmarks), near, normalise))
    told = dict(unread)  # before the files are read again for the names
    names = compared.name({number for one in found for number in (one.later, one.link.earlier)})
    for crossing in found:
        click.echo(schema.encode(leaks.as_pair(crossing, compared, names)))
    complaints = [f"{path}: {count:,} rows can not be read" for path, count in told.items()]
    if found:
        complaints.insert(0, leaks.summary(found, compared))
    if complaints:
        raise schema.Incomplete("; ".join(complaints))
    schema.log(
        f"{STAGE}: none of {sum(compared.sizes()):,} records in {len(compared.paths)} files stands in two of them"
    )


def read_what_can_be(path: str, unread: Counter[str]) -> Iterator[Record]:
    def reject(item: Any, message: str, code: str = "invalid", line: int | None = None) -> None:
        unread[path] += 1

    return (schema.adopt(record) for record in schema.read(path, reject))


if __name__ == "__main__":
    schema.main(main)
