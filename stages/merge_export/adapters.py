"""LoRA adapters: what a folder holds, which base it belongs to, and how one or several are put onto it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import schema
from stages.merge_export import models

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
# What decides how a text becomes tokens: adapters that differ here can not be in one model.
SPEECH = ("tokenizer.json", "chat_template.jinja")


def read_config(adapter: Path) -> dict[str, Any]:
    path = adapter / CONFIG
    try:
        config = dict(json.loads(path.read_bytes()))
    except FileNotFoundError:
        raise click.UsageError(f"{adapter}: not an adapter folder, it has no {CONFIG}") from None
    except (ValueError, TypeError) as error:
        raise schema.Failure(f"{path}: damaged: {error}") from None
    if config.get("peft_type") != "LORA":
        raise schema.Failure(f"{path}: peft_type is {config.get('peft_type')!r}; only LORA adapters can be merged")
    if not (adapter / WEIGHTS).is_file() and not (adapter / PICKLED).is_file():
        raise schema.Failure(f"{adapter}: no {WEIGHTS} there; was the training interrupted?")
    return config


def find_base(given: str | None, adapter: Path, config: dict[str, Any]) -> Path:
    """The folder of the base model: as given, else where the adapter says it is."""
    if given is not None:
        if Path(given).is_dir():
            return Path(given)
        wrong = click.UsageError(f"--base-model {given}: no such folder, and no name on the hub")
        return models.from_hub(given, None, wrong)
    name = config.get("base_model_name_or_path")
    if not name:
        raise schema.Failure(f"{adapter}/{CONFIG} names no base model; say where it is with --base-model")
    # The adapter's own surroundings come first: "../base" may by chance also be there seen from the current folder, and
    # a base of the same shape would be merged without a word.
    for folder in (adapter / name, adapter.parent / name, Path(name)):
        if folder.is_dir():
            return folder
    missing = schema.Failure(f"{adapter}: its base model {name} is not there; say where it is with --base-model")
    return models.from_hub(name, config.get("revision"), missing)


def find_common_base(given: str | None, adapters: Sequence[Path]) -> Path:
    """The base of all adapters; refused when they have different ones, or were trained on different templates."""
    bases = [find_base(given, adapter, read_config(adapter)) for adapter in adapters]
    for adapter, base in zip(adapters, bases, strict=True):
        if base.resolve() != bases[0].resolve():
            raise schema.Failure(
                f"{adapter} belongs to the base {base}, {adapters[0]} to {bases[0]}; merge them --apart"
            )
    return bases[0]


def check_speech(adapters: Sequence[Path]) -> None:
    for name in SPEECH:
        for adapter in adapters:
            ours, first = adapter / name, adapters[0] / name
            if ours.is_file() != first.is_file() or (ours.is_file() and ours.read_bytes() != first.read_bytes()):
                raise schema.Failure(f"{adapter}: its {name} is not that of {adapters[0]}; merge them --apart")


def weights_file(adapter: Path) -> Path:
    return adapter / (WEIGHTS if (adapter / WEIGHTS).is_file() else PICKLED)


def as_safetensors(adapter: Path, scratch: Path) -> Path:
    """The adapter, or where its weights are pickled, a copy in `scratch` that holds them without code."""
    if (adapter / WEIGHTS).is_file():
        return adapter
    import pickle

    import torch
    from safetensors.torch import save_file

    try:
        weights = torch.load(adapter / PICKLED, map_location="cpu", weights_only=True)
        tensors = {str(name): weight.contiguous() for name, weight in weights.items()}
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, AttributeError) as error:
        reason = models.first_line(error).split(".")[0]
        raise schema.Failure(f"{adapter / PICKLED}: damaged, or it holds more than weights: {reason}") from None
    scratch.mkdir(parents=True)
    shutil.copyfile(adapter / CONFIG, scratch / CONFIG)
    save_file(tensors, scratch / WEIGHTS)
    return scratch


def attach(model: PreTrainedModel, adapters: Sequence[Path], shares: Sequence[float], scratch: Path) -> PeftModel:
    """The model with all adapters on it at once, each weighed by its share."""
    from peft import PeftModel

    names = [f"adapter_{number}" for number in range(len(adapters))]
    adapted: Any = None
    for name, adapter in zip(names, adapters, strict=True):
        folder = as_safetensors(adapter, scratch / name)
        models.tensor_shapes(folder / WEIGHTS)
        with _fitting(adapter):
            if adapted is None:
                adapted = PeftModel.from_pretrained(model, folder, adapter_name=name, torch_device="cpu")
            # from_pretrained only warns of what did not fit, and a half-placed adapter is a different model.
            result = adapted.load_adapter(folder, name, torch_device="cpu")
        _check_placed(adapter, result)
    for module in adapted.modules():
        if isinstance(scaling := getattr(module, "scaling", None), dict):  # a number in an attention of the base
            for name, share in zip(names, shares, strict=True):
                scaling[name] *= share
    adapted.base_model.set_adapter(names)
    adapted.eval()
    return adapted


@contextmanager
def _fitting(adapter: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise schema.Failure(f"{adapter}: does not fit the base model: {models.first_line(error)}") from None


def _check_placed(adapter: Path, result: Any) -> None:
    for names, fault in (
        (result.missing_keys, "lacks"),
        (result.unexpected_keys, "has, but the base has no place for,"),
    ):
        if names:
            raise schema.Failure(f"{adapter}: does not fit the base model: it {fault} {sorted(names)[0]}")
