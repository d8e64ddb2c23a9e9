"""Ready configuration files for the trainers that read a format; each is run from inside the folder it stands in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import schema

DEFAULT_MODEL = "Qwen/Qwen2.5-Coder-1.5B-Instruct"
_MAX_LENGTH = 2048

Settings = dict[str, Any]


class Folder(NamedTuple):
    """What a configuration must know of the folder: the shape of its rows, and how many stand on each side."""

    row_format: str
    sizes: dict[str, int]
    model: str


def configs(folder: Folder) -> dict[str, bytes]:
    """File name and content of every configuration that fits."""
    found = {}
    for name, (command, build) in _TRAINERS.items():
        if settings := build(folder):
            found[name] = _as_yaml(command, settings)
    if _LLAMAFACTORY.get(folder.row_format):
        found["dataset_info.json"] = _dataset_info(folder)
    return found


def _as_yaml(command: str, settings: Settings) -> bytes:
    import yaml

    head = f"# In this folder: {command}\n"
    return (head + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)).encode()


def _trl(folder: Folder) -> Settings | None:
    # Not conversations: TRL renames the keys from and value, but leaves human and gpt, which no template knows.
    if folder.row_format not in ("messages", "prompt-completion", "text"):
        return None
    evaluated = {"dataset_test_split": "validation", "eval_strategy": "epoch"} if folder.sizes["valid"] else {}
    return {
        "model_name_or_path": folder.model,
        "dataset_train_split": "train",
        **evaluated,
        # The loss on the answers alone; TRL knows the templates for which it can do so, and refuses the others.
        **({"assistant_only_loss": True} if folder.row_format == "messages" else {}),
        "max_length": _MAX_LENGTH,
        "use_peft": True,
        "lora_r": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.05,
        "lora_target_modules": "all-linear",
        "learning_rate": 0.0002,
        "lr_scheduler_type": "cosine",
        "num_train_epochs": 3,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 8,
        "output_dir": "trl_output",
    }


# What dataset_info.json says of a file, without its name.
_LLAMAFACTORY: dict[str, Settings] = {
    "messages": {
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
        },
    },
    "conversations": {
        "formatting": "sharegpt",
        "columns": {"messages": "conversations"},
        "tags": {
            "role_tag": "from",
            "content_tag": "value",
            "user_tag": "human",
            "assistant_tag": "gpt",
            "system_tag": "system",
        },
    },
    "alpaca": {
        "formatting": "alpaca",
        "columns": {"prompt": "instruction", "query": "input", "response": "output"},
    },
    "prompt-completion": {
        "formatting": "alpaca",
        "columns": {"prompt": "prompt", "response": "completion"},
    },
    "text": {"formatting": "alpaca", "columns": {"prompt": "text"}},
}


def _dataset_info(folder: Folder) -> bytes:
    shape = _LLAMAFACTORY[folder.row_format]
    return schema.encode({f"linemill_{side}": {"file_name": f"{side}.jsonl", **shape} for side in folder.sizes}) + b"\n"


def _llamafactory(folder: Folder) -> Settings | None:
    if folder.row_format not in _LLAMAFACTORY:
        return None
    evaluated = {"eval_dataset": "linemill_valid", "eval_strategy": "epoch"} if folder.sizes["valid"] else {}
    return {
        "model_name_or_path": folder.model,
        # Without `template` the model's own chat template is taken.
        "stage": "pt" if folder.row_format == "text" else "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_rank": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.05,
        "lora_target": "all",
        "dataset_dir": ".",
        "dataset": "linemill_train",
        **evaluated,
        "cutoff_len": _MAX_LENGTH,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 8,
        "learning_rate": 0.0002,
        "num_train_epochs": 3.0,
        "lr_scheduler_type": "cosine",
        "output_dir": "llamafactory_output",
    }


_AXOLOTL: dict[str, Settings] = {
    "messages": {"type": "chat_template", "field_messages": "messages"},
    "conversations": {
        "type": "chat_template",
        "field_messages": "conversations",
        "message_property_mappings": {"role": "from", "content": "value"},
    },
    "alpaca": {"type": "alpaca"},
    "prompt-completion": {
        "type": {
            "field_instruction": "prompt",
            "field_output": "completion",
            "format": "{instruction}",
            "no_input_format": "{instruction}",
        }
    },
    "text": {"type": "completion", "field": "text"},
}


def _axolotl(folder: Folder) -> Settings | None:
    shape = _AXOLOTL.get(folder.row_format)
    if shape is None:
        return None

    def data(side: str) -> list[Settings]:
        return [{"path": f"{side}.jsonl", "ds_type": "json", "split": "train", **shape}]

    return {
        "base_model": folder.model,
        "datasets": data("train"),
        **({"test_datasets": data("valid"), "evals_per_epoch": 1} if folder.sizes["valid"] else {}),
        "adapter": "lora",
        "lora_r": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.05,
        "lora_target_linear": True,
        "sequence_len": _MAX_LENGTH,
        "micro_batch_size": 1,
        "gradient_accumulation_steps": 8,
        "num_epochs": 3,
        "optimizer": "adamw_torch",
        "lr_scheduler": "cosine",
        "learning_rate": 0.0002,
        "bf16": "auto",
        "output_dir": "./axolotl_output",
    }


_UNSLOTH = {"messages": "chatml", "conversations": "sharegpt", "alpaca": "alpaca"}


def _unsloth(folder: Folder) -> Settings | None:
    if folder.row_format not in _UNSLOTH:
        return None
    return {
        "model": folder.model,
        "data": {"local_dataset": ["train.jsonl"], "format_type": _UNSLOTH[folder.row_format]},
        "training": {
            "training_type": "lora",
            "max_seq_length": _MAX_LENGTH,
            "num_epochs": 3,
            "learning_rate": 0.0002,
            "batch_size": 1,
            "gradient_accumulation_steps": 8,
            "train_on_completions": True,
            "output_dir": "unsloth_output",
        },
        "lora": {"lora_r": 16, "lora_alpha": 32},
    }


def _mlx(folder: Folder) -> Settings | None:
    if folder.row_format not in ("messages", "prompt-completion", "text"):
        return None
    sizes = [size for size in (folder.sizes["train"], folder.sizes["valid"]) if size]
    batch = min([2, *sizes])  # mlx-lm refuses a side that does not fill one batch
    return {
        "model": folder.model,
        "train": True,
        "data": ".",
        "adapter_path": "mlx_output",
        "fine_tune_type": "lora",
        "num_layers": -1,  # all; mlx-lm refuses a number beyond those that the model has
        "lora_parameters": {"rank": 8, "dropout": 0.0, "scale": 20.0},
        "batch_size": batch,
        "iters": max(1, -(-3 * folder.sizes["train"] // batch)),
        "learning_rate": 0.00001,
        "max_seq_length": _MAX_LENGTH,
        **({} if folder.row_format == "text" else {"mask_prompt": True}),
    }


_TRAINERS: dict[str, tuple[str, Callable[[Folder], Settings | None]]] = {
    # Not dataset_name: . in the file: datasets names a data set after its folder, and "." is no name.
    "trl.yaml": ('trl sft --config trl.yaml --dataset_name "$PWD"', _trl),
    "llamafactory.yaml": ("llamafactory-cli train llamafactory.yaml", _llamafactory),
    "axolotl.yaml": ("axolotl train axolotl.yaml", _axolotl),
    "unsloth.yaml": ("unsloth train --config unsloth.yaml", _unsloth),
    "mlx_lora.yaml": ("mlx_lm.lora --config mlx_lora.yaml", _mlx),
}
