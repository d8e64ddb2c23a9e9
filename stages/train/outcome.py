"""What a training leaves beside its adapter: settings, metrics, losses, curves, and the ledger over all of it."""

from __future__ import annotations

from pathlib import Path

import msgspec

import schema
from stages.train import adapter, curves, losses, settings
from stages.train.intake import Intake, Prepared, Source
from stages.train.tree import FineTuneConfig

LEDGER, METRICS, REJECTS, CURVES = "ledger.json", "metrics.jsonl", "rejects.jsonl", "curves.html"


def write_records(done: adapter.Done, config: FineTuneConfig, output: Path) -> None:
    lines = list(adapter.metrics(done.trainer))
    with schema.atomic(output / "config.yaml") as file:
        file.write(settings.to_yaml(config).encode())
    with schema.atomic(output / METRICS) as file:
        for entry in lines:
            file.write(schema.encode(entry) + b"\n")
    with schema.atomic(output / CURVES) as file:
        file.write(curves.page(output.name, lines).encode())
    done.losses.save(output / losses.FILE)


def write_ledger(source: Source, prepared: Prepared, taken: Intake, config: FineTuneConfig, result: Path) -> None:
    output = source.output
    kept, rejected = len(prepared.train) + len(prepared.held_out), taken.reasons.total()
    known = [output / name for name in ("config.yaml", METRICS, losses.FILE, CURVES) if result.name != "mlx"]
    schema.write_ledger(
        output / LEDGER,
        stage="train",
        inputs=[source.data, source.eval_data] if source.eval_data else [source.data],
        outputs=[],
        rejects=output / REJECTS,
        files=[*sorted(result.iterdir()), *known],
        counts={"in": kept + rejected, "kept": kept, "rejected": rejected, "merged": 0},
        reasons=dict(taken.reasons),
        options=msgspec.to_builtins(config),
        extra={
            "trained_rows": len(prepared.train),
            "held_out_rows": len(prepared.held_out),
            "trained_tokens": sum(row.answer for row in prepared.train),
        },
    )
    schema.log(
        f"train: {kept + rejected:,} in, {kept:,} kept ({len(prepared.train):,} trained, "
        f"{len(prepared.held_out):,} held out), {rejected:,} rejected -> {result}"
    )
