"""Merge adapters into their base, save the result with the trained tokenizer, and prove that it is equal."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import schema
from stages.merge_export import adapters, models

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Copied byte for byte: what a tokenizer library writes again may differ from what the model was trained with.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)


def tokenizer_folder(adapter: Path, base: Path) -> Path:
    """The tokenizer and chat template of the training where the adapter carries them, else those of the base."""
    return adapter if (adapter / "tokenizer_config.json").is_file() else base


def copy_tokenizer(origin: Path, target: Path) -> None:
    for name in TOKENIZER_FILES:
        if (origin / name).is_file():
            shutil.copyfile(origin / name, target / name)


def copy_generation_config(base: Path, target: Path) -> None:
    """The base's settings, and the trained end token among those that stop: else the merged model never stops."""
    path = target / "generation_config.json"
    if (base / path.name).is_file():
        shutil.copyfile(base / path.name, path)
    config = json.loads(path.read_bytes())
    known = config.get("eos_token_id")
    stops = known if isinstance(known, list) else [] if known is None else [known]
    trained = models.load_tokenizer(target).eos_token_id
    if trained is not None and trained not in stops:
        config["eos_token_id"] = [*stops, trained]
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


def save_model(merged: PreTrainedModel, base: Path, adapter: Path, target: Path, dtype: str, shard: str) -> None:
    """All files of the model except the manifest."""
    import torch
    from safetensors import SafetensorError
    from transformers import GenerationConfig

    # A hub model may carry a generation config that today's library refuses to write; it is copied as bytes below.
    merged.generation_config = GenerationConfig.from_model_config(merged.config)
    try:
        merged.to(getattr(torch, dtype)).save_pretrained(target, max_shard_size=shard)
    except SafetensorError as error:  # how this library reports a full disk
        raise schema.Failure(f"the merged weights can not be written: {error}; nothing was changed") from None
    for path in target.glob("*.safetensors"):
        path.chmod((target / "config.json").stat().st_mode)  # the library makes them unreadable for everybody else
    copy_tokenizer(tokenizer_folder(adapter, base), target)
    copy_generation_config(base, target)


def merge_and_prove(
    base: Path, parts: Sequence[Path], shares: Sequence[float], target: Path, dtype: str, shard: str
) -> models.Proof:
    """Save the merged model into `target`, and compare what can be read back from there with base + adapters."""
    with tempfile.TemporaryDirectory(prefix="linemill-") as scratch:
        adapted_model = adapters.attach(models.load_model(base), parts, shares, Path(scratch))
    probes = models.probe_ids(tokenizer_folder(parts[0], base), adapted_model)
    adapted = models.logits(adapted_model, probes)
    with adapted_model.disable_adapter():
        plain = models.logits(adapted_model, probes)
    merged_model = adapted_model.merge_and_unload()
    merged = models.logits(merged_model, probes)
    save_model(merged_model, base, parts[0], target, dtype, shard)
    del adapted_model, merged_model  # two copies of a large model need not fit into memory at once
    saved = models.logits(models.load_model(target), probes)
    return models.prove(plain, adapted, merged, saved, dtype)


def adapter_files(adapter: Path) -> list[Path]:
    names = (adapters.CONFIG, adapters.weights_file(adapter).name, *TOKENIZER_FILES)
    return [adapter / name for name in names if (adapter / name).is_file()]


def proof_facts(proof: models.Proof) -> dict[str, Any]:
    """Two digits of each difference: the rest depends on the machine, and equal runs shall give equal bytes."""
    return {name: float(f"{x:.1e}") if isinstance(x, float) else x for name, x in proof._asdict().items()}


def summary(base: Path, count: int, output: Path, dtype: str, proof: models.Proof) -> str:
    what = "adapter" if count == 1 else f"{count} adapters"
    line = (
        f"merge_export: {base} + {what} -> {output}: {dtype}; logits moved by {proof.effect:.1e} through the adapter, "
        f"{proof.merged:.1e} by merging, {proof.saved:.1e} on the disk ({proof.allowed_saved:.1e} allowed); "
        f"same next token at {proof.same_token} of {proof.positions} positions"
    )
    if proof.saved > proof.effect:
        line += f". Rounding to {dtype} moves more than the adapter does: keep --dtype float32"
    return line
