"""Where settings may start from: a template, the environment, the adapter_config.json of an mlx training."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import click

import schema

# For `config init --template`: what it is for, and in which settings it differs from the defaults.
Tree = dict[str, dict[str, Any]]
TEMPLATES: dict[str, tuple[str, Tree]] = {
    "default": ("", {}),
    "json_sft": (
        "Pairs of a request and its answer, as the stages before this one leave them.",
        {"data": {"path": "data_split/train.jsonl", "eval_path": "data_split/valid.jsonl", "on_long": "reject"}},
    ),
    "pdf_causal": (
        "Texts of documents (prepare_data.py with a source of type documents): all of a text is learned, and packed.",
        {
            "data": {"path": "data_formatted/train.json", "eval_split": 0.1, "train_on": "text", "max_length": 2048},
            "training": {"epochs": 1.0, "packing": True},
        },
    ),
    "qa_generation": (
        "Questions and answers about documents (prepare_data_with_llm.py generate-qa).",
        {
            "data": {"path": "data_enhanced/qa.jsonl", "eval_split": 0.1, "on_long": "reject"},
            "training": {"patience": 2},
        },
    ),
    "existing_jsonl": (
        "A file from elsewhere: messages, conversations, alpaca, prompt/completion and others are known.",
        {"data": {"path": "my_data.jsonl", "eval_split": 0.1, "on_long": "reject"}},
    ),
}

ENVIRONMENT = {
    "MODEL_NAME": "model.name",
    "DATA_PATH": "data.path",
    "MAX_SEQ_LENGTH": "data.max_length",
    "NUM_EPOCHS": "training.epochs",
    "MAX_STEPS": "training.max_steps",
    "BATCH_SIZE": "training.batch_size",
    "LEARNING_RATE": "training.lr",
}
# What INPUT_TYPE may say, and what it means for data.train_on; the shape of the rows is seen from the rows.
INPUT_TYPES = dict.fromkeys(("json", "jsonl", "sft", "json_sft", "qa", "qa_generation", "existing_jsonl"), "answer")
INPUT_TYPES |= dict.fromkeys(("text", "pdf", "pdf_causal", "causal"), "text")
VOLUME = "RUNPOD_VOLUME_PATH"
# Read by libraries, from the environment alone; OUTPUT_DIR is read with the command line.
OF_LIBRARIES = ("HF_", "WANDB_", "OUTPUT_DIR", "INPUT_TYPE", VOLUME)


def load_dotenv() -> None:
    """What .env in the current folder says of the variables that count here, where the environment does not."""
    schema.take_dotenv(*ENVIRONMENT, *OF_LIBRARIES)
    if volume := os.environ.get(VOLUME, "").strip():
        # The disk of a rented machine is gone with it, its volume is not: neither the model nor the run is lost.
        os.environ.setdefault("HF_HOME", f"{volume}/huggingface")


def default_output() -> str:
    volume = os.environ.get(VOLUME, "").strip()
    return f"{volume}/runs/default" if volume else "runs/default"


def from_environment() -> Iterator[tuple[str, str, str]]:
    """Variable, setting and value; an empty variable says nothing."""
    for name, key in ENVIRONMENT.items():
        if text := os.environ.get(name, "").strip():
            yield name, key, text
    if kind := os.environ.get("INPUT_TYPE", "").strip():
        if kind.lower() not in INPUT_TYPES:
            raise click.UsageError(f"INPUT_TYPE={kind} in the environment; it may be {', '.join(INPUT_TYPES)}")
        yield "INPUT_TYPE", "data.train_on", INPUT_TYPES[kind.lower()]


# --- mlx --------------------------------------------------------------------------------------------------------------
MLX = {
    "model": "model.name",
    "max_seq_length": "data.max_length",
    "fine_tune_type": "training.method",
    "iters": "training.max_steps",
    "batch_size": "training.batch_size",
    "grad_accumulation_steps": "training.accumulation",
    "learning_rate": "training.lr",
    "grad_checkpoint": "training.checkpointing",
    "seed": "training.seed",
    "steps_per_report": "training.logging_steps",
    "steps_per_eval": "training.eval_steps",
    "save_every": "training.save_steps",
    "report_to": "training.report_to",
    "rank": "lora.r",
    "dropout": "lora.dropout",
}


def is_of_mlx(tree: dict[str, Any]) -> bool:
    """mlx-lm has no sections, and these two words."""
    return "iters" in tree or "fine_tune_type" in tree


def from_mlx(tree: dict[str, Any], place: str) -> Tree:
    """The same training in our words. `iters` counts batches there, optimizer steps here."""
    flat = {**tree, **(tree.get("lora_parameters") or {})}
    found: Tree = {"training": {"accumulation": 1, "scheduler": "constant_with_warmup", "warmup": 0.0}}
    for name, key in MLX.items():
        if flat.get(name) is not None:
            section, leaf = key.split(".")
            found.setdefault(section, {})[leaf] = flat[name]
    told = found["training"]
    try:
        for name in {"max_steps", "eval_steps", "save_steps"} & told.keys():
            told[name] = max(1, int(told[name]) // int(told["accumulation"]))
        found.setdefault("lora", {})["alpha"] = round(float(flat.get("scale", 20.0)) * int(flat.get("rank", 8)))
        found["lora"].setdefault("r", 8)
    except (TypeError, ValueError) as error:
        raise click.UsageError(f"{place}: iters, scale and rank are numbers: {error}") from None
    if flat.get("num_layers", -1) != -1:
        schema.log(f"train: {place}: num_layers {flat['num_layers']} is not kept, every layer is trained here")
    unread = sorted(
        set(flat)
        - set(MLX)
        - {"scale", "lora_parameters", "train", "test", "data", "adapter_path", "num_layers", "mask_prompt"}
    )
    if unread:
        schema.log(f"train: {place}: mlx settings that have no counterpart here: {', '.join(unread)}")
    return found
