"""One function for each shape in which a model leaves: a copy, pickled weights, a folder for MLX, GGUF files."""

from __future__ import annotations

import json
import re
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

import schema
from stages.merge_export import adapter_file, adapters, exporting, folders, gguf_file, merging, models

COPIES = ("safetensors", "pytorch", "mlx")
NO_ONNX = (
    "--format onnx is not written here: its exporter, optimum-onnx, does not know this version of transformers. "
    "Take --format gguf, or run optimum-cli on the merged model in an environment of its own"
)


def require_gguf() -> None:
    if find_spec("gguf") is None:
        raise click.UsageError("merge_export needs the package gguf: pip install 'linemill[export]'")


def write_ledger(staging: Path, output: Path, action: str, inputs: list[Path], options: dict[str, Any]) -> None:
    """No records pass here, so the counts are zero; what counts are the digests of all that was read and written."""
    schema.write_ledger(
        staging / folders.LEDGER,
        stage="merge_export",
        inputs=inputs,
        outputs=[],
        files=[staging / name for name in [*folders.model_files(staging), folders.MANIFEST]],
        counts={"in": 0, "kept": 0, "rejected": 0, "merged": 0},
        reasons={},
        options={"action": action, **options},
        beside=output,
    )


# --- the same weights -------------------------------------------------------------------------------------------------
def copy_model(model: Path, output: Path, kind: str) -> str:
    if kind == "pytorch":
        models.require_training_packages()
    manifest = folders.check_folder(model)
    folders.check_space(output, sum(facts["bytes"] for facts in manifest["files"].values()))
    names = list(manifest["files"])
    with schema.folder(output) as staging:
        if kind == "safetensors":
            folders.copy_files(model, staging, [*names, folders.MANIFEST])
        else:
            {"mlx": exporting.copy_for_mlx, "pytorch": pickle_weights}[kind](model, staging, names)
            folders.write_manifest(staging, {"kind": kind, "dtype": manifest.get("dtype")})
        folders.check_folder(staging)
        write_ledger(staging, output, "export", [model / name for name in [*names, folders.MANIFEST]], {"format": kind})
    if kind == "pytorch":
        schema.log("merge_export: safetensors is preferred: a .bin file is a pickle, load it with weights_only=True")
    but = {"mlx": " but for config.json", "pytorch": " but for the pickled weights, which hold the same numbers"}
    return f"{len(names)} files, equal to those of {model}{but.get(kind, '')}"


def pickle_weights(model: Path, staging: Path, names: list[str]) -> None:
    """Each file of weights as torch.save writes it, read back and compared; one is in memory at a time."""
    import torch
    from safetensors.torch import load_file

    renamed = {name: bin_name(name) for name in names if ".safetensors" in name}
    folders.copy_files(model, staging, [name for name in names if name not in renamed])
    for name, target in renamed.items():
        if name.endswith(".json"):
            index = json.loads((model / name).read_bytes())
            index["weight_map"] = {key: renamed[file] for key, file in index["weight_map"].items()}
            (staging / target).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", "utf-8")
            continue
        weights = load_file(model / name)
        try:
            torch.save(weights, staging / target)
        except RuntimeError as error:  # how this library reports a full disk
            raise schema.Failure(
                f"{target} can not be written, is the disk full? ({models.first_line(error)})"
            ) from None
        found = torch.load(staging / target, weights_only=True, mmap=True)
        if not _same_weights(weights, found):
            raise schema.Failure(f"{target} does not hold what {model / name} holds")


def _same_weights(one: dict[str, Any], other: dict[str, Any]) -> bool:
    import torch

    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


def bin_name(name: str) -> str:
    """model-00001-of-00002.safetensors is called pytorch_model-00001-of-00002.bin by those who look for it."""
    return re.sub(r"^model(.*)\.safetensors", r"pytorch_model\1.bin", name)


# --- GGUF -------------------------------------------------------------------------------------------------------------
def export_gguf(order: exporting.Order, output: Path) -> str:
    models.require_training_packages()
    require_gguf()
    manifest = folders.check_folder(order.model)
    with models.quiet_libraries():
        folders.check_space(output, exporting.check(order))
        with schema.folder(output) as staging:
            found = exporting.write_files(order, staging)
            exporting.write_companions(order, staging, found)
            folders.write_manifest(staging, {"kind": "gguf", "proof": found})
            inputs = [order.model / name for name in [*manifest["files"], folders.MANIFEST]]
            write_ledger(staging, output, "export", inputs, {"format": "gguf", "quants": list(order.quants)})
    return "\n".join(f"{name}: {exporting.describe(facts)}" for name, facts in found.items())


def export_adapter(adapter: Path, output: Path, name: str, base_model: str | None) -> str:
    models.require_training_packages()
    require_gguf()
    base = adapters.find_base(base_model, adapter, adapters.read_config(adapter))
    folders.check_space(output, 2 * adapters.weights_file(adapter).stat().st_size)
    with models.quiet_libraries(), schema.folder(output) as staging:
        target = staging / f"{name}-adapter.gguf"
        with tempfile.TemporaryDirectory(prefix="linemill-") as scratch:
            adapter_file.write(adapter, base, target, Path(scratch) / "adapter")
        folders.write_manifest(staging, {"kind": "adapter-gguf", "base": base.name})
        inputs = [*merging.adapter_files(adapter), base / "config.json"]
        write_ledger(staging, output, "export", inputs, {"format": "adapter-gguf"})
        count = len(gguf_file.open_file(target).tensors)
    return f"{name}-adapter.gguf: {count} tensors, for llama.cpp beside a GGUF file of {base}"
