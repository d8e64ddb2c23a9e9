"""Find and load what is trained: a local folder or a name on the hub, its tokenizer, its number format."""

from __future__ import annotations

import gc
import json
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import schema
from stages.train import packing, templates
from stages.train.rows import Speaker, Wording
from stages.train.tree import FineTuneConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEFAULTS = FineTuneConfig()
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
# Short names, as people write them, for the families that this was made for.
SHORTCUTS = {
    "lfm2.5-1.2b": "LiquidAI/LFM2.5-1.2B-Instruct",
    "lfm2-1.2b": "LiquidAI/LFM2-1.2B",
    "llama-3.2-1b": "meta-llama/Llama-3.2-1B-Instruct",
    "llama-3.2-3b": "meta-llama/Llama-3.2-3B-Instruct",
    "llama-3.1-8b": "meta-llama/Llama-3.1-8B-Instruct",
    "qwen-0.5b": "Qwen/Qwen2.5-0.5B-Instruct",
    "qwen-1.5b": "Qwen/Qwen2.5-1.5B-Instruct",
    "qwen-3b": "Qwen/Qwen2.5-3B-Instruct",
    "qwen-7b": "Qwen/Qwen2.5-7B-Instruct",
    "qwen-coder-1.5b": "Qwen/Qwen2.5-Coder-1.5B-Instruct",
    "qwen-coder-7b": "Qwen/Qwen2.5-Coder-7B-Instruct",
    "mistral-7b": "mistralai/Mistral-7B-Instruct-v0.3",
    "codellama-7b": "codellama/CodeLlama-7b-Instruct-hf",
    "deepseek-coder-1.3b": "deepseek-ai/deepseek-coder-1.3b-instruct",
    "deepseek-coder-6.7b": "deepseek-ai/deepseek-coder-6.7b-instruct",
    "codegemma-2b": "google/codegemma-2b",
    "codegemma-7b": "google/codegemma-7b-it",
    "stablecode-3b": "stabilityai/stable-code-instruct-3b",
}


# What some settings need besides; where it comes from.
OPTIONAL = {
    "qlora": ("bitsandbytes", "pip install 'linemill[qlora]'"),
    "tensorboard": ("tensorboard", "pip install 'linemill[tensorboard]'"),
    "wandb": ("wandb", "pip install wandb"),
    "trackio": ("trackio", "pip install trackio"),
    "kernels": ("kernels", "pip install kernels"),
    "flash_attention_2": ("flash_attn", "pip install flash-attn"),
}


def require_packages(config: FineTuneConfig) -> None:
    for package in PACKAGES:
        if find_spec(package) is None:
            raise click.UsageError(f"train needs the package {package}: pip install 'linemill[train]'")
    told = config.training
    for wanted in (told.method, told.report_to, "kernels" if told.kernels else "", config.model.attention):
        package, way = OPTIONAL.get(wanted, ("", ""))
        if package and find_spec(package) is None:
            raise click.UsageError(f"{wanted} needs the package {package}: {way}")


def settle_environment(name: str) -> None:
    """Before the libraries are imported, as they look only then: no telemetry, and no network for local models."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that spin while they wait take the processor from those that work: 115 s instead of 17 under load.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    if name == "tiny" or Path(name).is_dir():
        os.environ["HF_HUB_OFFLINE"] = "1"


def load_libraries() -> None:
    """All that a training imports, at once; looking for garbage on the way costs a sixth of it, and there is none."""
    was_on = gc.isenabled()
    gc.disable()
    import datasets  # noqa: F401
    import peft  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401
    from trl import SFTTrainer  # noqa: F401

    gc.freeze()  # a million objects that stay until the end need not be looked through again and again
    if was_on:
        gc.enable()


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """No progress bars and warnings: what they warn of is checked here and said in our words."""
    import datasets
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    datasets.disable_progress_bars()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def hub_name(name: str) -> str:
    """The whole name of a model that is called by its short one; a folder of that name comes first."""
    return name if Path(name).is_dir() else SHORTCUTS.get(name.lower(), name)


def find_model(name: str) -> Path:
    """The folder of a model: a local one, or one that the hub gives. A local folder never needs the network."""
    folder = Path(name)
    name = hub_name(name)
    if folder.is_dir():
        if (folder / "adapter_config.json").is_file():
            raise click.UsageError(f"--model {name} is an adapter; merge it first, or name its base")
        if not (folder / "config.json").is_file():
            raise click.UsageError(f"--model {name} is not a model folder: it has no config.json")
        return folder
    if not _HUB_NAME.fullmatch(name):
        raise schema.Failure(f"--model {name}: there is no such folder, and it is not a name on the hub either")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (OSError, ValueError, HfHubHTTPError, HFValidationError) as error:
        hint = "a local folder works without the hub, and so does --model tiny"
        raise schema.Failure(f"--model {name}: the hub can not give it ({first_line(error)}); {hint}") from None


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def load_speaker(folder: Path, config: FineTuneConfig = DEFAULTS) -> Speaker:
    """The tokenizer of a folder, with the template and the wording that the settings ask for."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError, AttributeError) as error:
        raise schema.Failure(f"{folder}: its tokenizer can not be loaded: {first_line(error)}") from None
    if tokenizer.eos_token_id is None:
        raise schema.Failure(f"{folder}: its tokenizer has no end token, so no model could learn to stop")
    told = wording(config, by_habit=_answers_in_fences(tokenizer, folder, config))
    _settle_template(tokenizer, folder, config.model.template)
    settle_wording(tokenizer, told)
    _settle_pad_token(tokenizer, folder)
    return Speaker(tokenizer, frozenset({tokenizer.eos_token_id, *_configured_stops(folder)}), told)


def wording(config: FineTuneConfig, *, by_habit: bool = False) -> Wording:
    """How rows are put; whether programs stand in a fence is the habit of the model, unless the settings say it."""
    told = config.data.markdown
    return Wording(config.data.system, by_habit if told is None else told, config.data.train_on == "text")


def _answers_in_fences(tokenizer: PreTrainedTokenizerBase, folder: Path, config: FineTuneConfig) -> bool:
    habit = tokenizer.chat_template is not None and templates.answers_in_fences(folder)
    if habit and config.data.markdown is None and config.data.train_on == "answer":
        schema.log(f"train: programs stand in a fence of ```python, as {folder} answers; --no-markdown leaves it out")
    return habit


def settle_wording(tokenizer: PreTrainedTokenizerBase, told: Wording) -> None:
    """What every later prompt needs goes into the template, as that is all that travels with the model."""
    if isinstance(tokenizer.chat_template, str):
        tokenizer.chat_template = templates.with_wording(tokenizer.chat_template, told.system, told.markdown)


def _settle_template(tokenizer: PreTrainedTokenizerBase, folder: Path, wanted: str) -> None:
    if wanted != "auto":
        tokenizer.chat_template = templates.find(wanted)
    elif tokenizer.chat_template is None:
        name, tokenizer.chat_template = templates.of_family(folder, tokenizer.get_vocab())
        schema.log(f"train: {folder} has no chat template; the one called {name} is used and saved with the adapter")
    if isinstance(tokenizer.chat_template, str):
        tokenizer.chat_template, was_dated = templates.without_today(tokenizer.chat_template)
        if was_dated:
            schema.log(f"train: the chat template writes today's date; here it is always {templates.TODAY:%d %b %Y}")


def _settle_pad_token(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Padding that is also the end token would teach some trainers never to stop; take one that is not."""
    if tokenizer.pad_token_id not in (None, tokenizer.eos_token_id):
        return
    special = {str(token): number for number, token in sorted(tokenizer.added_tokens_decoder.items())}
    choices = [token for token in special if "pad" in token.lower()] + [tokenizer.unk_token]
    chosen = next((token for token in choices if token and token != tokenizer.eos_token), None)
    if chosen is None:
        raise schema.Failure(f"{folder}: its padding token is its end token, and it has no other that could pad")
    tokenizer.pad_token = chosen


def _configured_stops(folder: Path) -> set[int]:
    """The end tokens that generation will stop at: some models end a turn with another one than their tokenizer's."""
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            known = json.loads((folder / name).read_bytes()).get("eos_token_id")
            found |= set(known if isinstance(known, list) else [known])
    return found - {None}


def choose_dtype(wanted: str) -> str:
    """The number format that this machine computes well in."""
    import torch

    if wanted != "auto":
        return wanted
    if not torch.cuda.is_available():
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


def load_model(folder: Path, dtype: str, config: FineTuneConfig) -> PreTrainedModel:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    told: dict[str, Any] = {"dtype": getattr(torch, dtype), "local_files_only": True, "use_safetensors": True}
    if config.model.attention != "auto":
        told["attn_implementation"] = config.model.attention
    elif config.training.packing and not torch.accelerator.is_available():
        told["attn_implementation"] = packing.attend_row_by_row()
    if config.training.kernels:
        told["use_kernels"] = True
    if config.training.method == "qlora":
        told["quantization_config"] = _four_bits(dtype)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **told)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        raise schema.Failure(f"{folder}: can not be loaded: {first_line(error)}") from None
    if missing := sorted(report["missing_keys"]):
        # The library fills them with random numbers and goes on.
        raise schema.Failure(f"{folder}: {len(missing)} tensors are missing, the first is {missing[0]}")
    model.config.use_cache = False  # with a cache, packed rows see each other without a word
    if config.training.packing:
        packing.teach_short_convolutions(model)
    return model


def _four_bits(dtype: str) -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )
