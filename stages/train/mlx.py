"""The same training for Apple's mlx-lm: its folder of data, its configuration, its command."""

from __future__ import annotations

import json
import math
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import msgspec

import schema
from stages.train.intake import Prepared
from stages.train.rows import Row, Speaker, answer_of, question_of
from stages.train.tree import FineTuneConfig


def refuse(config: FineTuneConfig) -> None:
    """What has no counterpart there must not be dropped without a word."""
    told = config.training
    wrong = {
        "--packing": told.packing,
        "--patience": told.patience,
        "--on-long trim-prompt": config.data.on_long == "trim-prompt",
        "--template (it takes the template of the model's own folder)": config.model.template != "auto"
        and config.model.name != "tiny",
        "--fsdp": told.fsdp,
        "--train-on text": config.data.train_on == "text",
        "--method qlora (name a model that is quantised for mlx instead)": told.method == "qlora",
    }
    if found := next((name for name, is_set in wrong.items() if is_set), None):
        raise click.UsageError(f"--backend mlx has nothing like {found}")


def write(prepared: Prepared, base: str, config: FineTuneConfig, folder: Path) -> list[str]:
    """Write the folder; give the command that trains with it."""
    batch = config.training.batch_size
    if len(prepared.held_out) < batch:
        raise click.UsageError(f"mlx-lm needs at least {batch} held-out rows: --eval-data FILE, or --eval-split 0.1")
    with schema.folder(folder) as staging:
        for name, side in (("train", prepared.train), ("valid", prepared.held_out)):
            lines = [schema.encode({"messages": _messages(row, prepared.speaker)}) + b"\n" for row in side]
            (staging / f"{name}.jsonl").write_bytes(b"".join(lines))
        known = settings(prepared.train, base, config, folder)
        (staging / "adapter_config.json").write_bytes(_pretty(known))
    return ["mlx_lm.lora", "--config", str(folder / "adapter_config.json")]


def readable(base: str, folder: Path) -> str:
    """LFM2 as transformers writes it lacks keys that mlx-lm looks for: links to it, and a configuration with them."""
    source = Path(base)
    known = json.loads((source / "config.json").read_bytes()) if source.is_dir() else {}
    if known.get("model_type") != "lfm2" or known.get("block_dim"):
        return base
    known |= {"block_dim": known["hidden_size"], "block_ff_dim": known["intermediate_size"]}
    known["full_attn_idxs"] = [n for n, kind in enumerate(known["layer_types"]) if kind == "full_attention"]
    with schema.folder(folder) as staging:
        for path in source.iterdir():
            if path.is_file() and path.name != "config.json":
                (staging / path.name).symlink_to(path.resolve())
        (staging / "config.json").write_bytes(_pretty(known))
    return str(folder)


def _messages(row: Row, speaker: Speaker) -> list[dict[str, str]]:
    asked = question_of(
        {**row.record, "metadata": {"system": row.record["metadata"].get("system")}}, speaker.wording.system
    )
    return [*asked, {"role": "assistant", "content": answer_of(row.record, speaker.wording)}]


def settings(rows: Sequence[Row], base: str, config: FineTuneConfig, folder: Path) -> dict[str, Any]:
    """Its `iters` are batches, not optimizer steps; its scale is alpha / r."""
    told, lora = config.training, config.lora
    in_epoch = len(rows) // told.batch_size or 1
    iters = told.max_steps * told.accumulation if told.max_steps else math.ceil(in_epoch * told.epochs)
    return {
        "model": base,
        "train": True,
        "data": str(folder),
        "adapter_path": str(folder.parent / "adapter"),
        "fine_tune_type": told.method,
        "num_layers": -1,
        "iters": iters,
        "batch_size": told.batch_size,
        "grad_accumulation_steps": told.accumulation,
        "learning_rate": told.lr,
        "max_seq_length": config.data.max_length,
        "mask_prompt": True,
        "grad_checkpoint": told.checkpointing,
        "seed": told.seed,
        "steps_per_report": told.logging_steps,
        "steps_per_eval": (told.eval_steps or math.ceil(in_epoch / told.accumulation)) * told.accumulation,
        "save_every": (told.save_steps or math.ceil(in_epoch / told.accumulation)) * told.accumulation,
        "lora_parameters": {"rank": lora.r, "dropout": lora.dropout, "scale": lora.alpha / lora.r},
        "report_to": "wandb" if told.report_to == "wandb" else None,
    }


def _pretty(value: dict[str, Any]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def run(command: Sequence[str], folder: Path) -> bool:
    """Run it where mlx-lm is installed, and say how to where it is not."""
    shown = shlex.join(command)
    if find_spec("mlx_lm") is None:
        schema.log(f"train: mlx-lm is not installed here; on a machine that has it (pip install mlx-lm): {shown}")
        return False
    schema.log(f"train: {shown}")
    done = subprocess.run([sys.executable, "-m", "mlx_lm", "lora", *command[1:]], stdout=sys.stderr, check=False)
    if done.returncode:
        raise schema.Failure(f"{shown}: it ended with code {done.returncode}; what it said stands above")
    schema.log(f"train: {folder.parent / 'adapter'} is an adapter of mlx; mlx_lm.fuse merges it")
    return True
