"""Find, load and probe models: a folder or a name on the hub, in 32 bits on the CPU, never with pickled weights."""

from __future__ import annotations

import json
import math
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

import schema

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BYTES_OF = {"float32": 4, "float16": 2, "bfloat16": 2}
# How far a logit may move, as a part of the largest one. Measured: 32 bits at most 2e-6, bfloat16 8e-3.
TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
PROBES = (
    "Create an animation that draws a circle and turns it into a square.",
    "Explain in one paragraph why the sum of the first n odd numbers is a square.",
    "from manim import *\n\nclass Example(Scene):\n    def construct(self):\n",
)
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


class Proof(NamedTuple):
    """How far logits on the fixed prompts are apart at most."""

    effect: float  # base against base + adapter
    merged: float  # base + adapter against the merged weights, both in 32 bits
    saved: float  # base + adapter against the weights as they were read back from the disk
    allowed_merged: float
    allowed_saved: float
    same_token: int  # positions where base + adapter and the saved model choose the same next token ...
    positions: int  # ... of so many


def require_training_packages() -> None:
    # Read when torch is loaded: threads that wait without spinning leave the processor to those that work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    for package in ("torch", "transformers", "peft"):
        if find_spec(package) is None:
            raise click.UsageError(f"merge_export needs the package {package}: pip install 'linemill[train]'")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """No progress bars and warnings: what they warn of is checked here and said in our words."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def from_hub(name: str, revision: str | None, missing: click.ClickException) -> Path:
    """The folder of a model of the hub, downloaded unless the cache has it. Only files that can not run code."""
    if not HUB_NAME.fullmatch(name):
        raise missing
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        reason = str(error).strip().split("\n")[0]
        raise schema.Failure(f"model {name}: no such folder, and the hub can not give it: {reason}") from None


def weight_count(folder: Path) -> int:
    """How many weights a model folder holds; a file that was cut off is named."""
    files = sorted(folder.glob("*.safetensors"))
    if not (folder / "config.json").is_file() or not files:
        raise schema.Failure(f"{folder}: not a model folder: it needs config.json and *.safetensors")
    return sum(math.prod(shape) for path in files for shape in tensor_shapes(path).values())


def tensor_shapes(path: Path) -> dict[str, list[int]]:
    """The tensors of a safetensors file, from its header alone, after a look whether the file is whole."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, size)))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        end = 8 + length + max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        shapes = {name: entry["shape"] for name, entry in tensors.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise schema.Failure(f"{path}: damaged: its header can not be read") from None
    if size != end:
        raise schema.Failure(f"{path}: damaged or cut off: {size:,} bytes, its header says {end:,}")
    return shapes


def own_dtype(base: Path) -> str:
    """The number format that the base is stored in; 32 bits where it does not say, as nothing is lost then."""
    config = read_config(base)
    if "quantization_config" in config:
        raise schema.Failure(f"{base}: its weights are quantised; name the 16- or 32-bit original with --base-model")
    stored = config.get("dtype", config.get("torch_dtype"))
    return stored if stored in BYTES_OF else "float32"


def read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise schema.Failure(f"{path}: not a model configuration: {error}") from None


def load_model(folder: Path, *, pickled: bool = False) -> PreTrainedModel:
    """`pickled` lets transformers read .bin files, of which it takes nothing but tensors."""
    from pickle import UnpicklingError

    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    told = {"dtype": torch.float32, "local_files_only": True, "output_loading_info": True}
    if not pickled:
        weight_count(folder)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=not pickled, **told)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError, UnpicklingError) as error:
        raise schema.Failure(f"{folder}: can not be loaded: {first_line(error)}") from None
    if missing := sorted(report["missing_keys"]):
        # The library fills them with random numbers and goes on.
        raise schema.Failure(f"{folder}: {len(missing)} tensors are missing, the first is {missing[0]}")
    model.eval()
    return model


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError, AttributeError) as error:
        raise schema.Failure(f"{folder}: its tokenizer can not be loaded: {first_line(error)}") from None


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    return lines[0] if lines else type(error).__name__


def probe_ids(folder: Path, model: Any) -> list[list[int]]:
    """The fixed prompts in the tokens of the tokenizer in `folder`, through its chat template where it has one."""
    from jinja2 import TemplateError

    tokenizer = load_tokenizer(folder)
    known = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > known:
        raise schema.Failure(f"{folder}: its tokenizer has {len(tokenizer):,} tokens, the model knows {known:,}")
    if tokenizer.chat_template is None:
        return [list(tokenizer(text)["input_ids"]) for text in PROBES]
    try:
        return [render(tokenizer, text) for text in PROBES]
    except TemplateError as error:
        raise schema.Failure(f"{folder}: its chat template does not render: {first_line(error)}") from None


def render(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    messages = [{"role": "user", "content": prompt}]
    return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"])


def logits(model: Any, probes: list[list[int]]) -> list[Tensor]:
    import torch

    with torch.no_grad():
        return [model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float() for ids in probes]


def difference(first: list[Tensor], second: list[Tensor]) -> float:
    """The largest distance between two logits; infinite as soon as one of them is no number."""
    distances = [float((a - b).abs().max()) for a, b in zip(first, second, strict=True)]
    return max(distances) if all(map(math.isfinite, distances)) else math.inf


def agreement(first: list[Tensor], second: list[Tensor]) -> tuple[int, int]:
    """At how many positions both choose the same next token, and of how many."""
    same = [a.argmax(-1) == b.argmax(-1) for a, b in zip(first, second, strict=True)]
    return sum(int(row.sum()) for row in same), sum(row.numel() for row in same)


def prove(plain: list[Tensor], adapted: list[Tensor], merged: list[Tensor], saved: list[Tensor], dtype: str) -> Proof:
    scale = max(1.0, *(float(row.abs().max()) for row in adapted))
    same, positions = agreement(adapted, saved)
    return Proof(
        effect=difference(plain, adapted),
        merged=difference(adapted, merged),
        saved=difference(adapted, saved),
        allowed_merged=TOLERANCE["float32"] * scale,
        allowed_saved=TOLERANCE[dtype] * scale,
        same_token=same,
        positions=positions,
    )


def objection(proof: Proof, dtype: str) -> str | None:
    """Why a merged model must not be used, or None."""
    if proof.effect == 0:
        return "the adapter changes nothing (are its B matrices all zero?), so there is nothing to merge"
    if not proof.merged <= proof.allowed_merged:
        return (
            f"merged and base + adapter differ by {proof.merged:.1e} on the fixed prompts, "
            f"{proof.allowed_merged:.1e} is allowed; the adapter's weights are damaged or out of range"
        )
    if not proof.saved <= proof.allowed_saved:
        return (
            f"rounding to {dtype} moves logits by {proof.saved:.1e}, {proof.allowed_saved:.1e} is allowed; "
            "merge with --dtype float32"
        )
    return None


def try_out(folder: Path, *, pickled: bool = False) -> bool:
    """Load a model with its tokenizer and let it read the fixed prompts; whether it has a chat template."""
    model = load_model(folder, pickled=pickled)
    if not all(bool(row.isfinite().all()) for row in logits(model, probe_ids(folder, model))):
        raise schema.Failure(f"{folder}: its weights give logits that are no numbers")
    return load_tokenizer(folder).chat_template is not None
