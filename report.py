"""Look at a run: one page of pictures and records, the state of every file, and a card for the data.

    python report.py --run runs/default --output runs/default/report.html
    python report.py status
    python report.py tracking --json
    python report.py card --output data_card --push OWNER/NAME --dry-run

In    the ledgers of a run, and the files that they name: by default those of `make all`, or any folders that are named
Out   report: one HTML file that opens without a network; status and tracking: a table, or JSON, on standard output;
      card: a folder with README.md, and the record files for a hub

A script of its own, as it only reads what the stages wrote: it imports `schema` and no stage, so it also shows runs
that were made elsewhere. What is missing is said on the page, and nothing fails for it.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

import schema
from stages.report import card, census, ledgers, page, publish, status, tracking
from stages.report.rows import ends, rows

FOLDER = click.Path(exists=True, path_type=Path)


# Where a run is, for every command.
of_a_run = schema.stacked(
    [
        click.argument("places", nargs=-1, metavar="[PLACES]...", type=FOLDER),
        click.option(
            "--run",
            default="runs/default",
            metavar="DIR",
            type=click.Path(path_type=Path),
            help="Its folder of training and evaluation.",
        ),
    ]
)


@click.group(cls=schema.group("report"), context_settings=schema.CONTEXT)
def cli() -> None:
    """Look at a run: a page, a table of its files, a card for its data."""
    schema.take_dotenv("HF_")


@cli.command()
@of_a_run
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Page to write.  [default: report.html in the folder of --run]",
)
@click.option("--title", default="Report of a run", help="What the page is called.")
@click.option(
    "--frames",
    multiple=True,
    metavar="DIR",
    type=FOLDER,
    help="Pictures that filter_quality.py --frames kept, besides the frames/ folders beside the files.",
)
@click.option(
    "--text-budget",
    default=60,
    type=click.IntRange(1, 500),
    metavar="MB",
    help="Room for texts of records; longer ones are cut to fit.",
)
@schema.verbosity()
def report(
    places: tuple[Path, ...], run: Path, output: Path | None, title: str, frames: tuple[Path, ...], text_budget: int
) -> None:
    """Write one HTML page about the run; it opens from disk and loads nothing."""
    target = output or run / "report.html"
    steps = ledgers.find(ledgers.places_of(places, run))
    if not steps:
        raise schema.Failure(
            f"no ledger in {', '.join(map(str, ledgers.places_of(places, run)))}; `make data` writes the first one"
        )
    warnings = [f"{state.file}: {state.state}, {state.why}" for state in status.states(steps) if state.is_wrong]
    content = page.build(steps, page.Wishes(title, target, frames, text_budget * 1_000_000), warnings)
    with schema.atomic(target) as file:
        file.write(content.encode())
    schema.log(f"report: {len(steps)} ledgers, {len(content) / 1e6:.1f} MB -> {target}")


@cli.command("status")
@of_a_run
@click.option("--json", "as_json", is_flag=True, help="JSON in place of the table.")
def show_status(places: tuple[Path, ...], run: Path, as_json: bool) -> None:
    """Say of every file whether it is there, whole and up to date, and what to run next.

    up to date: as its ledger says, and so are the files that it was made from. stale: one of these has changed since.
    behind: the stage before it is not up to date. changed: the file is not the one that its ledger tells of.
    """
    found = status.states(ledgers.find(ledgers.places_of(places, run)))
    found += [] if places else status.expected(run, found)
    if as_json:
        rows = [state._asdict() for state in found]
        click.echo(json.dumps({"files": rows, "next": status.advice(found, run)}, indent=2))
        return
    for line in [*status.table(found), status.advice(found, run)]:
        click.echo(line)


@cli.command("tracking")
@of_a_run
@click.option("--json", "as_json", is_flag=True, help="JSON in place of the table.")
def show_tracking(places: tuple[Path, ...], run: Path, as_json: bool) -> None:
    """Count the rows of each source after every step: init, quality, dedup, fixes, render, train, test."""
    steps = ledgers.data_steps(ledgers.find(ledgers.places_of(places, run)))
    counted = census.take(rows(ends(steps)), steps)
    if as_json:
        click.echo(json.dumps(tracking.as_json(counted), indent=2, ensure_ascii=False))
        return
    for line in tracking.lines(counted):
        click.echo(line)


@cli.command("card")
@of_a_run
@click.option(
    "--output",
    required=True,
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write: README.md, and the final files in data/.",
)
@click.option("--title", default="A Linemill data set", help="What the data set is called.")
@click.option(
    "--push",
    "repository",
    metavar="OWNER/NAME",
    help="Send the folder to this data set of the hub; created if missing.",
)
@click.option(
    "--public", is_flag=True, help="Let everybody see the repository if it is created now.  [default: private]"
)
@click.option(
    "--dry-run", is_flag=True, help="With --push: only say which files would be sent, and how large they are."
)
@schema.verbosity()
def write_card(
    places: tuple[Path, ...], run: Path, output: Path, title: str, repository: str | None, public: bool, dry_run: bool
) -> None:
    """Write the final files and a card about them as a hub of data sets wants it, from the ledgers alone."""
    if repository:
        publish.check(repository)
    steps = ledgers.data_steps(ledgers.find(ledgers.places_of(places, run)))
    if faults := "; ".join(card.faults(steps)):
        raise schema.Failure(f"{faults}: `report.py status` says what to run again")
    names = card.write(output, steps, census.take(rows(ends(steps)), steps), title)
    schema.log(f"card: {len(names)} files -> {output}")
    if repository and dry_run:
        for name in names:
            click.echo(f"{(output / name).stat().st_size:>15,}  {name}")
        who = "public" if public else "private"
        schema.log(f"card: {len(names)} files would go to {repository} ({who}); nothing was sent")
    elif repository:
        schema.log(f"card: {len(names)} files -> {publish.push(output, names, repository, public=public)}")


if __name__ == "__main__":
    schema.main(cli)
