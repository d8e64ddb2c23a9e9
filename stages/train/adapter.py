"""Train the LoRA adapter with trl, keep checkpoints that are known to be whole, save the result."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

import schema
from stages.train.rows import Row, Speaker
from stages.train.settings import Config, Lora

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PreTrainedModel, TrainerCallback
    from trl import SFTConfig, SFTTrainer

SEAL = "complete.json"  # written last into a checkpoint: the run that it belongs to, and the SHA-256 of every file
METRICS = ("step", "epoch", "loss", "eval_loss", "learning_rate", "grad_norm")
# Settings that do not shape the adapter: a run may be resumed with others.
FREE = ("logging_steps", "save_steps", "keep_checkpoints")


class Job(NamedTuple):
    """Everything that decides how an adapter comes out."""

    rows: Sequence[Row]
    held_out: Sequence[Row]
    speaker: Speaker
    base: Path
    dtype: str
    config: Config


def identity(job: Job) -> dict[str, str]:
    """What must be equal for a checkpoint to be continued, under names that people understand."""
    training = {name: value for name, value in msgspec.to_builtins(job.config.training).items() if name not in FREE}
    base = [_digest(path) for path in sorted(job.base.glob("*.safetensors"))]
    parts = {
        "rows": [[row.ids, row.prompt] for row in [*job.rows, *job.held_out]],
        "settings": [training, msgspec.to_builtins(job.config.lora), job.dtype],
        "base model": base,
    }
    return {name: schema.sha256(schema.canonical(part)) for name, part in parts.items()}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- checkpoints ------------------------------------------------------------------------------------------------------
def seal(checkpoint: Path, run: dict[str, str]) -> None:
    """Mark a checkpoint as whole. Without this mark, a kill while it was written leaves one that looks like any."""
    files = {path.name: _digest(path) for path in sorted(checkpoint.iterdir()) if path.is_file() and path.name != SEAL}
    with schema.atomic(checkpoint / SEAL) as file:
        file.write(schema.canonical({"run": run, "files": files}))


def newest(folder: Path, run: dict[str, str]) -> Path | None:
    """The newest whole checkpoint, by number: as names, checkpoint-1000 would come before checkpoint-50."""
    for path in sorted(checkpoints(folder), key=step_of, reverse=True):
        fault, other = _fault(path, run)
        if other:
            raise schema.Failure(f"--resume: {path} belongs to a run with other {other}; start again without --resume")
        if fault is None:
            return path
        schema.log(f"train: {path} is skipped: {fault}")
    return None


def checkpoints(folder: Path) -> list[Path]:
    return [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]


def step_of(path: Path) -> int:
    return int(path.name.removeprefix("checkpoint-"))


def _fault(checkpoint: Path, run: dict[str, str]) -> tuple[str | None, str]:
    """Why a checkpoint is not whole; and in what it differs from this run."""
    try:
        sealed = json.loads((checkpoint / SEAL).read_bytes())
        for name, digest in sealed["files"].items():
            if _digest(checkpoint / name) != digest:
                return f"{name} is damaged", ""
        return None, " and ".join(name for name in run if sealed["run"][name] != run[name])
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing, it was never finished", ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{SEAL} is damaged ({type(error).__name__})", ""


# --- training ---------------------------------------------------------------------------------------------------------
def train(model: PreTrainedModel, job: Job, folder: Path, *, resume: bool) -> SFTTrainer:
    """Train and give the trainer, with the adapted model and the history of the run inside."""
    from transformers import PrinterCallback
    from trl import SFTTrainer

    run = identity(job)
    start = newest(folder, run) if resume else None
    if not start:
        _start_over(folder)
    trainer = SFTTrainer(
        model=model,
        args=_arguments(job, folder),
        train_dataset=_dataset(job.rows),
        eval_dataset=_dataset(job.held_out) if job.held_out else None,
        processing_class=job.speaker.tokenizer,
        peft_config=_lora(job.config.lora),
    )
    _say_size(trainer.model, job)
    trainer.remove_callback(PrinterCallback)  # it prints dictionaries to standard output
    trainer.add_callback(_reporter(run, job, folder))
    if start:
        schema.log(f"train: going on from {start}")
    trainer.train(resume_from_checkpoint=str(start) if start else None)
    return trainer


def _start_over(folder: Path) -> None:
    if found := checkpoints(folder):
        schema.log(f"train: starting anew, {len(found)} checkpoints of an earlier run are removed")
        shutil.rmtree(folder)


def _dataset(rows: Sequence[Row]) -> Dataset:
    """Token ids and labels, ready: trl has nothing left to tokenize, to cut or to drop."""
    from datasets import Dataset

    return Dataset.from_list([{"input_ids": row.ids, "labels": row.labels} for row in rows])


def _arguments(job: Job, folder: Path) -> SFTConfig:
    from trl import SFTConfig

    told = job.config.training
    return SFTConfig(
        output_dir=str(folder),
        num_train_epochs=told.epochs,
        max_steps=told.max_steps or -1,
        learning_rate=told.lr,
        lr_scheduler_type=told.scheduler,
        warmup_steps=told.warmup,
        weight_decay=told.weight_decay,
        max_grad_norm=told.max_grad_norm,
        per_device_train_batch_size=told.batch_size,
        per_device_eval_batch_size=8,
        gradient_accumulation_steps=told.accumulation,
        gradient_checkpointing=told.checkpointing,
        bf16=job.dtype == "bfloat16",
        fp16=job.dtype == "float16",
        # Longer rows are already out; a number would only let trl cut an answer, with its end token.
        max_length=job.config.data.max_length if told.packing else None,
        packing=told.packing,
        seed=told.seed,
        logging_steps=1,  # a mean over several steps would come out otherwise after a resume between them
        save_strategy="no",  # the reporter says when, for both: see there
        eval_strategy="no",
        save_total_limit=told.keep_checkpoints,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


def _lora(told: Lora) -> LoraConfig:
    from peft import LoraConfig

    names = [name.strip() for name in told.target_modules.split(",")]
    return LoraConfig(
        r=told.r,
        lora_alpha=told.alpha,
        lora_dropout=told.dropout,
        target_modules="all-linear" if names == ["all-linear"] else names,
        task_type="CAUSAL_LM",
    )


def _say_size(model: Any, job: Job) -> None:
    total = sum(weight.numel() for weight in model.parameters())
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    tokens = sum(row.answer for row in job.rows)
    schema.log(
        f"train: {trained:,} of {total:,} weights are trained ({trained / total:.2%}) in {job.dtype} "
        f"on {model.device}, on {len(job.rows):,} rows with {tokens:,} tokens of answers"
    )


def _reporter(run: dict[str, str], job: Job, folder: Path) -> TrainerCallback:
    from transformers import TrainerCallback

    told = job.config.training

    class Reporter(TrainerCallback):  # type: ignore[misc]
        """Says how it goes, decides when to evaluate and to save, and seals each checkpoint once it is written."""

        def on_step_end(self, args: Any, state: Any, control: Any, *, train_dataloader: Any, **_: Any) -> None:
            in_epoch = math.ceil(len(train_dataloader) / args.gradient_accumulation_steps)
            ends = state.global_step % in_epoch == 0 or state.global_step >= state.max_steps
            # In one go, evaluation first. The library's own strategies save a step's checkpoint before they evaluate
            # at the end of the epoch: that takes random numbers, and a run resumed from there would miss them.
            control.should_evaluate = bool(job.held_out) and ends
            control.should_save = ends if told.save_steps is None else state.global_step % told.save_steps == 0

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
            if "loss" in logs and (state.global_step == 1 or state.global_step % told.logging_steps == 0):
                _say_loss(state, "loss", logs["loss"])
            if "eval_loss" in logs:
                _say_loss(state, "held-out loss", logs["eval_loss"])

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            seal(folder / f"checkpoint-{state.global_step}", run)

    return Reporter()


def _say_loss(state: Any, name: str, loss: float) -> None:
    schema.log(f"train: step {state.global_step:,} of {state.max_steps:,}: {name} {loss:.4f}")


# --- the result -------------------------------------------------------------------------------------------------------
def save(trainer: SFTTrainer, job: Job, base_name: str, target: Path) -> None:
    """The adapter, and the tokenizer and chat template that it was trained with."""
    model = trainer.model
    model.peft_config["default"].base_model_name_or_path = base_name
    model.save_pretrained(target, save_embedding_layers=False)
    job.speaker.tokenizer.save_pretrained(target)
    (target / "README.md").unlink(missing_ok=True)  # a form that nobody filled in
    config = target / "adapter_config.json"
    known = json.loads(config.read_bytes())
    # peft keeps the layers in a set, and writes them in another order in each process.
    if isinstance(known["target_modules"], list):
        known["target_modules"].sort()
    config.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", "utf-8")
    for path in target.glob("*.safetensors"):
        path.chmod(config.stat().st_mode)


def metrics(trainer: SFTTrainer) -> Iterator[dict[str, Any]]:
    """The history of the run, without clock times: equal runs give equal lines."""
    for entry in trainer.state.log_history:
        if "loss" in entry or "eval_loss" in entry:
            yield {name: entry[name] for name in METRICS if name in entry}
