"""Train a LoRA adapter with trl's SFTTrainer, on rows that are tokens already: nothing is left to its defaults."""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import schema
from stages.train.rows import Row
from stages.train.settings import Config

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# What a checkpoint must hold to be gone on from; trl writes trainer_state.json last.
_PARTS = ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")
_LOGGED = ("loss", "eval_loss", "grad_norm", "learning_rate", "epoch")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """No progress bars and warnings: what they warn of is checked here and said in our words."""
    import datasets
    from transformers.utils import logging

    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    tokenizer = _from(name, AutoTokenizer)
    if tokenizer.chat_template is None:
        raise schema.Failure(
            f"--model {name}: its tokenizer has no chat template; take the instruct model of the family"
        )
    if tokenizer.eos_token_id is None:
        raise schema.Failure(f"--model {name}: its tokenizer names no end token, so no answer could ever stop")
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.pad_token = _spare_token(tokenizer, name)
    return tokenizer


def _spare_token(tokenizer: PreTrainedTokenizerBase, name: str) -> str:
    """A token to pad with. Not the end token: where padding is masked, the end would be masked with it."""
    known = tokenizer.get_vocab()
    for token in ("<|finetune_right_pad_id|>", "<pad>", "<|pad|>", "[PAD]", "<unk>", "<|endoftext|>"):
        if token in known and known[token] != tokenizer.eos_token_id:
            return token
    raise schema.Failure(f"--model {name}: its tokenizer has no token to pad with but the end token")


def load_model(name: str, dtype: str) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM

    if dtype == "auto":
        dtype = "bfloat16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "float32"
    model = _from(name, AutoModelForCausalLM, dtype=getattr(torch, dtype))
    # With a cache, packed rows see each other without a word (and nothing is generated here anyway).
    model.config.use_cache = False
    device = "one GPU" if torch.cuda.is_available() else "the CPU"
    schema.log(f"train: {name} in {dtype} on {device}")
    return model


def _from(name: str, auto: Any, **told: Any) -> Any:
    try:
        return auto.from_pretrained(name, local_files_only=Path(name).is_dir(), **told)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = next((line.strip() for line in str(error).split("\n") if line.strip()), type(error).__name__)
        raise schema.Failure(f"--model {name}: can not be loaded; a folder works without a network: {reason}") from None


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[Row],
    eval_rows: list[Row],
    config: Config,
    output: Path,
    base: str,
    *,
    resume: bool,
) -> list[dict[str, Any]]:
    """Train, put the adapter into output/adapter, and return the logged steps."""
    checkpoints = output / "checkpoints"
    newest = newest_checkpoint(checkpoints) if resume else None
    if not resume and checkpoints.exists():
        shutil.rmtree(checkpoints)  # of another run: to go on from them would mix two trainings
    trainer = make_trainer(model, tokenizer, rows, eval_rows, config, checkpoints)
    schema.log(f"train: {parameters(trainer.model)}")
    trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    evaluated = [entry["step"] for entry in trainer.state.log_history if "eval_loss" in entry]
    if eval_rows and trainer.state.global_step not in evaluated:
        trainer.evaluate()
    with schema.folder(output / "adapter") as staging:
        trainer.model.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        set_base(staging / "adapter_config.json", base)
        (staging / "README.md").unlink(missing_ok=True)  # peft's empty model card
    return metrics(trainer.state.log_history)


def make_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[Row],
    eval_rows: list[Row],
    config: Config,
    checkpoints: Path,
) -> Any:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback
    from trl import SFTTrainer

    def dataset(some: list[Row]) -> Any:
        return Dataset.from_list([{"input_ids": row.tokens, "labels": row.labels} for row in some])

    lora = config.lora
    targets = lora.targets if lora.targets == "all-linear" else [name.strip() for name in lora.targets.split(",")]
    peft = LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, task_type="CAUSAL_LM"
    )
    try:
        trainer = SFTTrainer(
            model=model,
            args=arguments(config, checkpoints, str(model.dtype), has_eval=bool(eval_rows)),
            train_dataset=dataset(rows),
            eval_dataset=dataset(eval_rows) if eval_rows else None,
            processing_class=tokenizer,
            peft_config=peft,
            callbacks=[_reporter()],
        )
    except ValueError as error:
        if "arget modules" not in str(error):  # peft's word for a layer that is not there
            raise
        raise schema.Failure(f"--lora-targets {lora.targets}: {str(error).splitlines()[0]}") from error
    trainer.remove_callback(PrinterCallback)  # it writes to standard output; the reporter speaks instead
    return trainer


def arguments(config: Config, checkpoints: Path, dtype: str, *, has_eval: bool) -> Any:
    import torch
    from trl import SFTConfig

    training = config.training
    return SFTConfig(
        output_dir=str(checkpoints),
        use_cpu=not torch.cuda.is_available(),
        bf16=dtype == "torch.bfloat16",  # trl's own default is on, which a CPU refuses
        fp16=dtype == "torch.float16",
        num_train_epochs=training.epochs,
        max_steps=training.max_steps or -1,
        per_device_train_batch_size=training.batch_size,
        per_device_eval_batch_size=training.batch_size,
        gradient_accumulation_steps=training.accumulation,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.schedule,
        warmup_steps=training.warmup,  # below 1 it is a share
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        seed=training.seed,
        packing=training.packing,
        # Rows that are longer are already out. A number here would only let trl cut one, with its end.
        max_length=config.data.max_length if training.packing else None,
        activation_checkpointing=training.checkpointing,
        train_sampling_strategy="random",
        logging_steps=training.log_every,
        logging_first_step=True,
        save_steps=training.save_every,
        save_total_limit=2,
        eval_strategy="epoch" if has_eval else "no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


def _reporter() -> Any:
    """One line on standard error for each logged step."""
    from transformers import TrainerCallback

    class Reporter(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            facts = [f"{name} {float(logs[name]):.4f}" for name in ("loss", "eval_loss") if name in (logs or {})]
            if facts:
                schema.log(f"  step {state.global_step:,} of {state.max_steps:,}: {', '.join(facts)}")

    return Reporter()


def metrics(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The logged steps without anything that depends on the clock."""
    kept = ({"step": entry["step"], **{name: entry[name] for name in _LOGGED if name in entry}} for entry in history)
    return [entry for entry in kept if "loss" in entry or "eval_loss" in entry]


def parameters(model: Any) -> str:
    total = sum(weight.numel() for weight in model.parameters())
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    return f"{trained:,} of {total:,} parameters are trained ({trained / total:.2%})"


def set_base(path: Path, base: str) -> None:
    """Where the base stands, seen from the adapter's folder: a run that is moved as a whole still fits together."""
    config = json.loads(path.read_bytes())
    config["base_model_name_or_path"] = base
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


def base_name(model: str, adapter: Path) -> str:
    return os.path.relpath(model, adapter) if Path(model).is_dir() else model


def newest_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint that was written completely. By number: as text, checkpoint-1000 precedes checkpoint-50."""
    found = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    for path in sorted(found, key=lambda path: int(path.name.split("-")[1]), reverse=True):
        if fault := _torn(path):
            schema.log(f"train: {path} is not complete ({fault}); the one before it is tried")
            continue
        schema.log(f"train: going on from {path}")
        return path
    schema.log("train: there is no complete checkpoint; starting from the beginning")
    return None


def _torn(checkpoint: Path) -> str | None:
    from safetensors import SafetensorError, safe_open

    for name in _PARTS:
        if not (checkpoint / name).is_file() or not (checkpoint / name).stat().st_size:
            return f"{name} is missing"
    try:
        json.loads((checkpoint / "trainer_state.json").read_bytes())
        with safe_open(checkpoint / "adapter_model.safetensors", framework="numpy"):
            return None
    except (ValueError, SafetensorError) as error:
        return str(error)
