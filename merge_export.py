"""Merge a LoRA adapter into its base model, prove that nothing changed on the way, and check or copy the result.

    python merge_export.py merge --adapter runs/tiny/adapter --output runs/tiny/merged
    python merge_export.py verify runs/tiny/merged
    python merge_export.py export --model runs/tiny/merged --format safetensors --output /media/stick/model

In    an adapter folder as train.py or peft saves it; its base model: a folder, or a name on the hub
Out   one folder that loads without peft: weights, tokenizer, chat template, manifest.json with the SHA-256 of
      every file and the proof, ledger.json. It appears as a whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import schema
from stages.merge_export import models

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MANIFEST = "manifest.json"
LEDGER = "ledger.json"
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
# Room for the tokenizer, the manifest and the file system's own book-keeping.
SPARE_BYTES = 32 * 2**20
FORMATS = ("safetensors",)

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
TARGET = click.Path(file_okay=False, path_type=Path)


def check_space(output: Path, needed: int) -> None:
    """Refuse before any work, not after an hour, when the disk can not take the result."""
    folder = next(parent for parent in [output.absolute(), *output.absolute().parents] if parent.exists())
    free = shutil.disk_usage(folder).free
    if needed + SPARE_BYTES > free:
        raise schema.Failure(f"{output}: the merged model needs {_size(needed + SPARE_BYTES)}, {_size(free)} are free")


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"


def digest(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def model_files(folder: Path) -> list[str]:
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name not in (MANIFEST, LEDGER))


def read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        if not isinstance(manifest["files"], dict) or not manifest["files"]:
            raise ValueError("it lists no files")
        # A manifest may come from anywhere, and `export` writes files under the names it finds here.
        if strange := [name for name in manifest["files"] if Path(name).is_absolute() or ".." in Path(name).parts]:
            raise ValueError(f"it names the file {strange[0]}, which is outside of its folder")
    except FileNotFoundError:
        raise schema.Failure(f"{folder}: no {MANIFEST} there, so this is not a model that `merge` wrote") from None
    except (ValueError, KeyError, TypeError) as error:
        raise schema.Failure(f"{path}: damaged: {error}") from None
    return dict(manifest)


def changed_files(folder: Path, manifest: dict[str, Any]) -> Iterator[str]:
    """One sentence for each file that is not as the manifest says."""
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            yield f"{name} is missing"
        elif path.stat().st_size != expected["bytes"]:
            yield f"{name} has {path.stat().st_size:,} bytes, the manifest says {expected['bytes']:,}"
        elif digest(path) != expected:
            yield f"{name} has changed: its SHA-256 is not the one in the manifest"
    for path in sorted(folder.glob("*.safetensors*")):
        if path.name not in manifest["files"]:
            yield f"{path.name} is not in the manifest, and may be loaded in place of what is"


def check_folder(folder: Path) -> dict[str, Any]:
    """The manifest of a folder whose every file is as it was written."""
    manifest = read_manifest(folder)
    if faults := list(changed_files(folder, manifest)):
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise schema.Failure(f"{folder}: {faults[0]}{more}; merge again or copy it again")
    return manifest


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


def merge_and_prove(base: Path, adapter: Path, target: Path, dtype: str, shard: str) -> models.Proof:
    """Save the merged model into `target`, and compare what can be read back from there with base + adapter."""
    adapted_model = models.attach(models.load_model(base), adapter)
    probes = models.probe_ids(tokenizer_folder(adapter, base), adapted_model)
    adapted = models.logits(adapted_model, probes)
    with adapted_model.disable_adapter():
        plain = models.logits(adapted_model, probes)
    merged_model = adapted_model.merge_and_unload()
    merged = models.logits(merged_model, probes)
    save_model(merged_model, base, adapter, target, dtype, shard)
    del adapted_model, merged_model  # two copies of a large model need not fit into memory at once
    saved = models.logits(models.load_model(target), probes)
    return models.prove(plain, adapted, merged, saved, dtype)


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    files = {name: digest(folder / name) for name in model_files(folder)}
    manifest = {**facts, "version": schema.VERSION, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", "utf-8")


def write_ledger(staging: Path, output: Path, action: str, inputs: list[Path], options: dict[str, Any]) -> None:
    """No records pass here, so the counts are zero; what counts are the digests of all that was read and written."""
    schema.write_ledger(
        staging / LEDGER,
        stage="merge_export",
        inputs=inputs,
        outputs=[],
        files=[staging / name for name in [*model_files(staging), MANIFEST]],
        counts={"in": 0, "kept": 0, "rejected": 0, "merged": 0},
        reasons={},
        options={"action": action, **options},
        beside=output,
    )


def adapter_files(adapter: Path) -> list[Path]:
    names = ("adapter_config.json", "adapter_model.safetensors", *TOKENIZER_FILES)
    return [adapter / name for name in names if (adapter / name).is_file()]


def proof_facts(proof: models.Proof) -> dict[str, Any]:
    """Two digits of each difference: the rest depends on the machine, and equal runs shall give equal bytes."""
    return {name: float(f"{x:.1e}") if isinstance(x, float) else x for name, x in proof._asdict().items()}


def summary(base: Path, output: Path, dtype: str, proof: models.Proof) -> str:
    line = (
        f"merge_export: {base} + adapter -> {output}: {dtype}; logits moved by {proof.effect:.1e} through the adapter, "
        f"{proof.merged:.1e} by merging, {proof.saved:.1e} on the disk ({proof.allowed_saved:.1e} allowed); "
        f"same next token at {proof.same_token} of {proof.positions} positions"
    )
    if proof.saved > proof.effect:
        line += f". Rounding to {dtype} moves more than the adapter does: keep --dtype float32"
    return line


def refuse_overlap(output: Path, *sources: Path) -> None:
    for source in sources:
        if output.resolve() == source.resolve():
            raise click.UsageError(f"--output {output} is the folder that is read; choose another one")


def check_size(context: click.Context, option: click.Parameter, value: str) -> str:
    if not re.fullmatch(r"[1-9]\d*[KMGT]B", value):
        raise click.BadParameter(f"{value!r} is not a size like 500MB or 5GB")
    return value


def check_format(context: click.Context, option: click.Parameter, value: str) -> str:
    if value not in FORMATS:
        raise click.BadParameter(f"{value!r}: this version exports {' and '.join(FORMATS)} only")
    return value


def be_quiet(context: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        schema.set_verbosity(-1)


quiet = click.option(
    "-q", "--quiet", is_flag=True, expose_value=False, callback=be_quiet, help="Say nothing but errors."
)


@click.group(context_settings=schema.CONTEXT)
def cli() -> None:
    """Merge a LoRA adapter into its base model, prove the result, check it, copy it."""


@cli.command()
@click.option("--adapter", required=True, metavar="DIR", type=FOLDER, help="Adapter folder of a training run.")
@click.option("--base-model", metavar="DIR|NAME", help="Its base model.  [default: the one that the adapter names]")
@click.option("--output", required=True, metavar="DIR", type=TARGET, help="Folder for the merged model.")
@click.option(
    "--dtype",
    type=click.Choice(list(models.BYTES_OF)),
    help="Number format of the saved weights; merging itself is in 32 bits.  [default: the base's own]",
)
@click.option(
    "--max-shard-size",
    default="5GB",
    metavar="SIZE",
    callback=check_size,
    help="Split the weights into files of at most this size, as 500MB or 5GB.",
)
@quiet
def merge(adapter: Path, base_model: str | None, output: Path, dtype: str | None, max_shard_size: str) -> None:
    """Merge ADAPTER into its base model, and prove that both give the same logits."""
    models.require_training_packages()
    config = models.read_adapter_config(adapter)
    base = models.find_base(base_model, adapter, config)
    stored = models.own_dtype(base)
    dtype = dtype or stored
    refuse_overlap(output, base, adapter)
    check_space(output, models.weight_count(base) * models.BYTES_OF[dtype])
    with models.quiet_libraries(), schema.folder(output) as staging:
        proof = merge_and_prove(base, adapter, staging, dtype, max_shard_size)
        if reason := models.objection(proof, dtype):
            raise schema.Failure(f"{adapter}: {reason}; nothing was written")
        write_manifest(staging, {"dtype": dtype, "proof": proof_facts(proof)})
        inputs = [*sorted(base.glob("*.safetensors")), base / "config.json", *adapter_files(adapter)]
        write_ledger(staging, output, "merge", inputs, {"dtype": dtype, "max_shard_size": max_shard_size})
    schema.log(summary(base, output, dtype, proof))


@cli.command()
@click.argument("folders", nargs=-1, required=True, metavar="MODEL...", type=FOLDER)
@quiet
def verify(folders: tuple[Path, ...]) -> None:
    """Check that every MODEL is what `merge` wrote: all digests, that it loads, that its chat template renders."""
    models.require_training_packages()
    for folder in folders:
        manifest = check_folder(folder)
        with models.quiet_libraries():
            talks = "its chat template renders" if models.try_out(folder) else "it has no chat template"
        schema.log(f"merge_export: {folder}: {len(manifest['files'])} files as they were written, it loads, {talks}")


@cli.command()
@click.option("--model", required=True, metavar="DIR", type=FOLDER, help="A folder that `merge` wrote.")
@click.option("--format", "kind", default="safetensors", callback=check_format, help="File format of the copy.")
@click.option("--output", required=True, metavar="DIR", type=TARGET, help="Folder for the copy.")
@quiet
def export(model: Path, kind: str, output: Path) -> None:
    """Copy MODEL to another place, and check every byte before and after."""
    refuse_overlap(output, model)
    manifest = check_folder(model)
    check_space(output, sum(facts["bytes"] for facts in manifest["files"].values()))
    with schema.folder(output) as staging:
        names = [*manifest["files"], MANIFEST]
        for name in names:
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(model / name, staging / name)
        check_folder(staging)
        write_ledger(staging, output, "export", [model / name for name in names], {"format": kind})
    schema.log(f"merge_export: {output}: {len(names)} files, equal to those of {model}")


if __name__ == "__main__":
    schema.main(cli)
