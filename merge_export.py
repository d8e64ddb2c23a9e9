"""Merge LoRA adapters into their base model, export the result, and prove that it is still what was trained.

    python merge_export.py merge --adapter runs/tiny/adapter --output runs/tiny/merged
    python merge_export.py export --model runs/tiny/merged --format gguf --quant q8_0 --output runs/tiny/gguf
    python merge_export.py verify runs/tiny/merged runs/tiny/gguf --against runs/tiny/merged
    python merge_export.py push runs/tiny/gguf --to me/tiny --dry-run

In    an adapter folder as train.py or peft saves it; its base model: a folder, or a name on the hub
Out   one folder that loads without peft: weights, tokenizer, chat template, manifest.json with the SHA-256 of
      every file and the proof, ledger.json; or one of GGUF files with a Modelfile and a model card. Each appears as
      a whole or not at all.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

import schema
from stages.merge_export import adapters, exporting, folders, formats, gguf_file, merging, models, proof, publish

FORMATS = ("safetensors", "pytorch", "gguf", "adapter-gguf", "mlx", "onnx")
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
TARGET = click.Path(file_okay=False, path_type=Path)
NAME = re.compile(r"\w[\w.-]*")


def refuse_overlap(output: Path, *sources: Path) -> None:
    for source in sources:
        if output.resolve() == source.resolve():
            raise click.UsageError(f"--output {output} is the folder that is read; choose another one")


def check_size(context: click.Context, option: click.Parameter, value: str) -> str:
    if not re.fullmatch(r"[1-9]\d*[KMGT]B", value):
        raise click.BadParameter(f"{value!r} is not a size like 500MB or 5GB")
    return value


def check_name(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value is not None and not NAME.fullmatch(value):
        raise click.BadParameter(f"{value!r} would not do as part of a file name")
    return value


def check_quants(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Also Q4_K_M, as other tools spell it; each once."""
    names = tuple(dict.fromkeys(value.lower() for value in values))
    for name in names:
        if name not in exporting.QUANTS:
            raise click.BadParameter(f"{name!r} is none of {', '.join(exporting.QUANTS)}")
    return names


public = click.option("--public", is_flag=True, help="Let everybody see a repository that is created.")


class Commands(click.Group):
    """`merge-adapter` is another name of `merge`, known from older scripts."""

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        return super().get_command(context, {"merge-adapter": "merge"}.get(name, name))


@click.group(cls=Commands, context_settings=schema.CONTEXT)
def cli() -> None:
    """Merge LoRA adapters into their base model, export the result, prove and check it."""
    schema.take_dotenv("HF_")


# --- merge ------------------------------------------------------------------------------------------------------------
def weigh(parts: tuple[Path, ...], shares: tuple[float, ...]) -> tuple[float, ...]:
    if shares and len(shares) != len(parts):
        raise click.UsageError(f"{len(parts)} times --adapter, but {len(shares)} times --weight; say one for each")
    return shares or (1.0,) * len(parts)


def merge_into(
    output: Path,
    base_name: str | None,
    parts: tuple[Path, ...],
    shares: tuple[float, ...],
    dtype: str | None,
    shard: str,
) -> None:
    base = adapters.find_common_base(base_name, parts)
    adapters.check_speech(parts)
    stored = models.own_dtype(base)
    dtype = dtype or stored
    refuse_overlap(output, base, *parts)
    folders.check_space(output, models.weight_count(base) * models.BYTES_OF[dtype])
    with models.quiet_libraries(), schema.folder(output) as staging:
        found = merging.merge_and_prove(base, parts, shares, staging, dtype, shard)
        if reason := models.objection(found, dtype):
            raise schema.Failure(f"{' + '.join(map(str, parts))}: {reason}; nothing was written")
        folders.write_manifest(staging, {"dtype": dtype, "proof": merging.proof_facts(found)})
        inputs = [*sorted(base.glob("*.safetensors")), base / "config.json"]
        inputs += [file for part in parts for file in merging.adapter_files(part)]
        options = {"dtype": dtype, "max_shard_size": shard, "weights": list(shares)}
        formats.write_ledger(staging, output, "merge", inputs, options)
    schema.log(merging.summary(base, len(parts), output, dtype, found))


@cli.command()
@click.option(
    "--adapter", "parts", required=True, multiple=True, metavar="DIR", type=FOLDER,
    help="Adapter folder of a training run; several times: all are added up.",
)  # fmt: skip
@click.option(
    "--weight", "shares", multiple=True, type=float, help="Share of each adapter, in their order.  [default: 1]"
)
@click.option("--apart", is_flag=True, help="One merged model for each adapter, in OUTPUT/NAME-OF-ITS-RUN.")
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
@schema.verbosity()
def merge(
    parts: tuple[Path, ...],
    shares: tuple[float, ...],
    apart: bool,
    base_model: str | None,
    output: Path,
    dtype: str | None,
    max_shard_size: str,
) -> None:
    """Merge ADAPTER into its base model, and prove that both give the same logits."""
    models.require_training_packages()
    weights = weigh(parts, shares)
    for part in parts:
        adapters.read_config(part)
    if not apart:
        merge_into(output, base_model, parts, weights, dtype, max_shard_size)
        return
    names = [part.resolve().parent.name if part.name == "adapter" else part.resolve().name for part in parts]
    if len(set(names)) < len(names):
        raise click.UsageError(f"--apart: two adapters are called {max(names, key=names.count)}; merge one by itself")
    for name, part, weight in zip(names, parts, weights, strict=True):
        merge_into(output / name, base_model, (part,), (weight,), dtype, max_shard_size)


# --- verify -----------------------------------------------------------------------------------------------------------
@cli.command()
@click.argument("paths", nargs=-1, required=True, metavar="MODEL...", type=FOLDER)
@click.option("--against", metavar="DIR", type=FOLDER, help="The merged model that GGUF files are compared with.")
@schema.verbosity()
def verify(paths: tuple[Path, ...], against: Path | None) -> None:
    """Check that every MODEL is what was written: all digests, that it loads, that its chat template renders."""
    models.require_training_packages()
    for folder in paths:
        manifest = folders.check_folder(folder)
        with models.quiet_libraries():
            kind = manifest.get("kind", "safetensors")
            gguf = kind.endswith("gguf")
            found = try_files(folder, manifest, against) if gguf else try_model(folder, pickled=kind == "pytorch")
        schema.log(f"merge_export: {folder}: {len(manifest['files'])} files as they were written, {found}")


def try_model(folder: Path, *, pickled: bool) -> str:
    speaks = models.try_out(folder, pickled=pickled)
    return "it loads, " + ("its chat template renders" if speaks else "it has no chat template")


def try_files(folder: Path, manifest: dict[str, Any], against: Path | None) -> str:
    formats.require_gguf()
    said = []
    for name in sorted(name for name in manifest["files"] if name.endswith(".gguf")):
        count = len(gguf_file.open_file(folder / name).tensors)
        text = f"{name} holds {count} tensors"
        if against is not None and manifest["kind"] == "gguf":
            tokens = proof.check_tokens(against, folder / name)
            weights = proof.check_weights(against, folder / name, manifest["proof"][name]["quant"])
            text += f", gives {tokens.tokens:,} tokens as {against} and moves logits by {weights.moved:.1e}"
        said.append(text)
    return "; ".join(said)


# --- export -----------------------------------------------------------------------------------------------------------
@cli.command()
@click.option(
    "--model", required=True, metavar="DIR", type=FOLDER, help="What `merge` wrote; or, for adapter-gguf, an adapter."
)
@click.option(
    "--format",
    "kind",
    default="safetensors",
    show_default=True,
    type=click.Choice(FORMATS),
    help="File format to write.",
)
@click.option(
    "--quant", "quants", multiple=True, default=["q8_0"], show_default=True, callback=check_quants,
    help="Number format of a GGUF file; several times: several files.",
)  # fmt: skip
@click.option("--output", required=True, metavar="DIR", type=TARGET, help="Folder for the result.")
@click.option("--name", callback=check_name, help="How the files begin.  [default: the name of the run]")
@click.option("--converter", metavar="FILE", type=FILE, help="Converter of llama.cpp, for families unknown here.")
@click.option("--base-model", metavar="DIR|NAME", help="Base of an adapter, where it is not the one that it names.")
@click.option(
    "--data", metavar="FILE", type=FILE, help="Records whose conversations are compared as well (200 of them)."
)
@click.option("--scores", metavar="FILE", type=FILE, help="scores.json of evaluate_model.py, for the model card.")
@click.option("--push", "--hub-id", metavar="OWNER/NAME", help="Send the result to this repository of the hub.")
@public
@schema.verbosity()
def export(
    model: Path,
    kind: str,
    quants: tuple[str, ...],
    output: Path,
    name: str | None,
    push: str | None,
    public: bool,
    base_model: str | None,
    **more: Path | None,
) -> None:
    """Write MODEL in another format or to another place, and check it before and after."""
    refuse_overlap(output, model)
    if push is not None:
        publish.check(push)
    name = name or exporting.default_name(model)
    match kind:
        case "gguf":
            said = formats.export_gguf(exporting.Order(model, name, quants, **more), output)
        case "adapter-gguf":
            said = formats.export_adapter(model, output, name, base_model)
        case "onnx":
            raise click.UsageError(formats.NO_ONNX)
        case _:
            said = formats.copy_model(model, output, kind)
    for line in said.split("\n"):
        schema.log(f"merge_export: {output}: {line}")
    if push is not None:
        send(output, push, public)


# --- push -------------------------------------------------------------------------------------------------------------
def send(folder: Path, repository: str, public: bool) -> None:
    names = [*folders.read_manifest(folder)["files"], folders.MANIFEST]
    address = publish.push(folder, names, repository, public=public)
    schema.log(f"merge_export: {folder}: {len(names)} files -> {address}")


@cli.command()
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option(
    "--to", "repository", required=True, metavar="OWNER/NAME", help="Repository of the hub; created if missing."
)
@public
@click.option("--dry-run", is_flag=True, help="Only say which files would be sent, and how large they are.")
@schema.verbosity()
def push(folder: Path, repository: str, public: bool, dry_run: bool) -> None:
    """Send a DIR that `merge` or `export` wrote to the hub: private, unless told otherwise."""
    publish.check(repository)
    manifest = folders.check_folder(folder)
    if not dry_run:
        send(folder, repository, public)
        return
    for name, facts in manifest["files"].items():
        click.echo(f"{facts['bytes']:>15,}  {facts['sha256'][:12]}  {name}")
    who = "public" if public else "private"
    schema.log(f"merge_export: {len(manifest['files'])} files would go to {repository} ({who}); nothing was sent")


if __name__ == "__main__":
    schema.main(cli)
