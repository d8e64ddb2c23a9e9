"""Asking a model about every row of a file, under the promises that every stage keeps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import click

import schema
from stages.evaluate_model import asking, measures, models
from stages.evaluate_model.asking import Asker, Item

Found = TypeVar("Found")


def contract(data: Path, output: Path, where: str | None, limit: int | None, seed: int = 0) -> schema.Contract:
    """The same promises as any stage from file to file: rejects, a ledger, atomic outputs."""
    rejects = schema.rejects_path(output)
    if any(place.exists() and data.samefile(place) for place in (output, Path(rejects))):
        raise click.UsageError(f"--data {data} is a file that this command writes; name another --output")
    return schema.Contract(
        input=str(data),
        output=str(output),
        rejects=rejects,
        where=where,
        limit=limit,
        seed=seed,
        workers=1,
        strict=False,
        max_reject_rate=None,
        engine="local",
    )


def admitted(
    run: schema.Run, prepare: Callable[[schema.Record], Found | schema.Fault]
) -> tuple[list[schema.Record], list[Found]]:
    """The rows that the model can take, and what it will see of them; every other row is rejected with its reason."""
    records, items = [], []
    for record in run.records():
        item = prepare(record)
        if not isinstance(item, schema.Fault):
            records.append(record)
            items.append(item)
        elif item.code == "too_long":  # it was asked, and can not answer
            run.reject(asking.failed(record, {"finish": item.code}), item)
        else:
            run.reject(record, item)
    if not records:
        run.pending("there is no row that the model could be asked about")
    return records, items


def write_answers(
    folder: Path, setting: schema.Contract, params: dict[str, Any], open_asker: Callable[[], Asker]
) -> None:
    """Ask about every row of the input, and write what came."""
    with (
        asking.journal(folder) as journal,
        schema.run("evaluate_model", setting, params=params) as run,
        nullcontext() if "server" in params else models.quiet_libraries(),
    ):
        asker = open_asker()
        records, prompts = admitted(run, asker.prompt)
        run.extra |= asker.identity()
        read = schema.file_facts(setting.input, count=False)["sha256"]
        key = [run.extra, params, read, setting.where, setting.limit]
        journal.begin(schema.sha256(schema.canonical(key)))
        items = [Item(prompt, measures.sample_of(row)) for prompt, row in zip(prompts, records, strict=True)]
        for record, answer in zip(records, asking.answers(asker, items, journal), strict=True):
            row = asking.generated(record, answer)
            if row["code"].strip():
                run.keep(row)
            else:
                run.reject(asking.failed(record, row["metadata"]["evaluation"]), asking.why_empty(answer))
        if not journal.whole:
            run.pending("some prompts got no answer; the same command asks only for those")
