"""Train with trl: an adapter, or every weight; save what came out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

import schema
from stages.train import checkpoints, machine
from stages.train.losses import RowLosses
from stages.train.rows import Row, Speaker
from stages.train.tree import FineTuneConfig, LoraSettings
from stages.train.watch import reporter

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PreTrainedModel
    from trl import SFTConfig, SFTTrainer

METRICS = ("step", "epoch", "loss", "eval_loss", "learning_rate", "grad_norm")
# Settings that do not shape the adapter: a run may be resumed with others.
FREE = (
    "logging_steps",
    "save_steps",
    "keep_checkpoints",
    "report_to",
    "compile",
    "kernels",
    "batch_size",
    "accumulation",
)


class Job(NamedTuple):
    """Everything that decides how an adapter comes out."""

    rows: Sequence[Row]
    held_out: Sequence[Row]
    speaker: Speaker
    base: Path
    dtype: str
    config: FineTuneConfig

    @property
    def is_full(self) -> bool:
        return self.config.training.method == "full"


def identity(job: Job, processes: int) -> dict[str, str]:
    """What must be equal for a checkpoint to be continued, under names that people understand."""
    told = job.config.training
    training = {name: value for name, value in msgspec.to_builtins(told).items() if name not in FREE}
    base = [checkpoints.digest(path) for path in sorted(job.base.glob("*.safetensors"))]
    parts = {
        "rows": [[row.ids, row.prompt] for row in [*job.rows, *job.held_out]],
        "settings": [training, msgspec.to_builtins(job.config.lora), job.dtype],
        "base model": base,
        # However many processes share them: the same rows meet in the same step.
        "rows in a step": told.batch_size * told.accumulation * processes,
    }
    return {name: schema.sha256(schema.canonical(part)) for name, part in parts.items()}


class Done(NamedTuple):
    """A training that came to its end."""

    trainer: SFTTrainer
    losses: RowLosses


# --- training ---------------------------------------------------------------------------------------------------------
def train(model: PreTrainedModel, job: Job, folder: Path, team: machine.Team, *, resume: bool) -> Done:
    """Train; the adapted model and the history of the run are inside of the trainer."""
    from transformers import PrinterCallback
    from trl import SFTTrainer

    told, run = job.config.training, identity(job, team.size)
    start = checkpoints.newest(folder, run) if resume else None
    team.wait()
    if not start and team.is_first:
        _start_over(folder)
    arguments = _arguments(job, folder, use_cpu=team.is_on_cpus())
    if told.fsdp and arguments.device:  # asking for the device makes the libraries look at the processes
        team.allow_fsdp_on_cpus()
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=_dataset(job.rows),
        eval_dataset=_dataset(job.held_out) if job.held_out else None,
        processing_class=job.speaker.tokenizer,
        peft_config=None if job.is_full else _lora(job.config.lora),
    )
    trainer.create_scheduler = partial(_create_scheduler, trainer)
    team.count(trainer.accelerator.num_processes)
    if told.fsdp and not trainer.is_fsdp_enabled:
        raise schema.Failure("--fsdp: the libraries have dropped it, every process would hold all weights")
    machine.check_device(trainer.model.device)
    _say_size(trainer.model, job)
    if team.is_first:
        machine.check_disk(folder, trained_weights(trainer.model), told.keep_checkpoints)
    losses = RowLosses(job.rows)
    losses.listen(trainer.model)
    if start:
        schema.log(f"train: going on from {start}")
        losses.restore(start)
    if told.patience:
        trainer.args.load_best_model_at_end = True  # later than its check, which knows only strategies of its own
    trainer.remove_callback(PrinterCallback)  # it prints dictionaries to standard output
    trainer.add_callback(reporter(told, run, folder, losses, team, evaluates=bool(job.held_out)))
    with machine.told_in_one_line(folder):
        trainer.train(resume_from_checkpoint=str(start) if start else None)
    return Done(trainer, losses)


def _create_scheduler(trainer: SFTTrainer, num_training_steps: int, optimizer: Any = None) -> Any:
    """The library's schedule begins and ends at a rate of nothing, and a run of one step would learn nothing.

    So it is made for one step more, and begun at its second.
    """
    from torch.optim.lr_scheduler import LambdaLR

    if trainer.lr_scheduler is None:
        optimizer = optimizer or trainer.optimizer
        rates = type(trainer).create_scheduler(trainer, num_training_steps + 1, optimizer).lr_lambdas
        trainer.lr_scheduler = LambdaLR(optimizer, [partial(_a_step_later, rate) for rate in rates])
    return trainer.lr_scheduler


def _a_step_later(rate: Callable[[int], float], step: int) -> float:
    return rate(step + 1)


def _start_over(folder: Path) -> None:
    if found := checkpoints.checkpoints(folder):
        schema.log(f"train: starting anew, {len(found)} checkpoints of an earlier run are removed")
        shutil.rmtree(folder)


def _dataset(rows: Sequence[Row]) -> Dataset:
    """Token ids and labels, ready: trl has nothing left to tokenize, to cut or to drop."""
    from datasets import Dataset

    return Dataset.from_list([{"input_ids": row.ids, "labels": row.labels} for row in rows])


def _arguments(job: Job, folder: Path, *, use_cpu: bool) -> SFTConfig:
    from trl import SFTConfig

    told = job.config.training
    return SFTConfig(
        output_dir=str(folder),
        use_cpu=use_cpu,
        fsdp=told.fsdp or None,
        ddp_find_unused_parameters=False,
        num_train_epochs=told.epochs,
        max_steps=told.max_steps or -1,
        learning_rate=told.lr,
        lr_scheduler_type=told.scheduler,
        warmup_steps=told.warmup,
        weight_decay=told.weight_decay,
        max_grad_norm=told.max_grad_norm,
        train_sampling_strategy="group_by_length" if told.group_by_length and not told.packing else "random",
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
        logging_nan_inf_filter=False,  # it would show the loss of the step before instead
        logging_steps=1,  # a mean over several steps would come out otherwise after a resume between them
        save_strategy="no",  # the reporter says when, for both: see there
        eval_strategy="no",
        save_total_limit=told.keep_checkpoints,
        report_to=told.report_to,
        run_name=folder.parent.name,
        torch_compile=told.compile,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


def _lora(told: LoraSettings) -> LoraConfig:
    from peft import LoraConfig

    names = [name.strip() for name in told.target_modules.split(",")]
    return LoraConfig(
        r=told.r,
        lora_alpha=told.alpha,
        lora_dropout=told.dropout,
        target_modules="all-linear" if names == ["all-linear"] else names,
        task_type="CAUSAL_LM",
    )


def trained_weights(model: Any) -> int:
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def _say_size(model: Any, job: Job) -> None:
    trained = trained_weights(model)
    # Two weights of 4 bits lie in one number; peft knows where.
    total = trained if job.is_full else model.get_nb_trainable_parameters()[1]
    tokens = sum(row.answer for row in job.rows)
    schema.log(
        f"train: {trained:,} of {total:,} weights are trained ({trained / total:.2%}) in {job.dtype} "
        f"on {model.device}, on {len(job.rows):,} rows with {tokens:,} tokens of answers"
    )
    machine.say_memory(model, job.rows, job.config)


# --- the result -------------------------------------------------------------------------------------------------------
def gathered(trainer: SFTTrainer) -> dict[str, Any] | None:
    """The weights that several processes share, in one place; every process has to ask for them."""
    return trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None


def save(trainer: SFTTrainer, weights: dict[str, Any] | None, job: Job, base_name: str, target: Path) -> None:
    """The adapter or the model, and the tokenizer and chat template that it was trained with."""
    model = trainer.model
    job.speaker.tokenizer.save_pretrained(target)
    if job.is_full:
        model.save_pretrained(target, state_dict=weights)
        return
    model.peft_config["default"].base_model_name_or_path = base_name
    model.save_pretrained(target, state_dict=weights, save_embedding_layers=False)
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
