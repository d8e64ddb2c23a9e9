"""Export a merged model as GGUF files with what a runtime needs beside them, each file proved before it counts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import click

import schema
from stages.merge_export import card, families, folders, gguf_file, models, ollama, proof, runtime, vocabulary

QUANTS = (*gguf_file.PLAIN, *runtime.QUANTS)
# Bits for each weight of what only the runtime writes: more than any of them needs.
MOST_BITS = 8


class Order(NamedTuple):
    """What shall be exported, and how."""

    model: Path
    name: str
    quants: tuple[str, ...]
    converter: Path | None = None
    data: Path | None = None
    scores: Path | None = None


def file_name(order: Order, quant: str) -> str:
    return f"{order.name}-{quant}.gguf"


def check(order: Order) -> int:
    """Refuse before any work what can not be done; gives how many bytes it will take."""
    for quant in order.quants:
        if quant in runtime.QUANTS:
            runtime.require(quant)
    if order.converter is None:
        family = families.find_family(order.model)
        vocabulary.read_vocabulary(order.model, family.vocabulary)
        for name in families.weight_shapes(order.model):
            families.rename(family, name)
    else:
        check_converter(order.converter)
    stored = intermediate(order.model)
    bits = [gguf_file.BITS.get(quant, MOST_BITS) for quant in order.quants]
    if set(order.quants) & set(runtime.QUANTS):
        bits.append(gguf_file.BITS[stored])
    return int(models.weight_count(order.model) * sum(bits) / 8)


def check_converter(path: Path) -> None:
    done = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True, check=False)
    if done.returncode != 0 or "--outfile" not in done.stdout:
        reason = done.stderr.strip().split("\n")[-1] or "its --help does not name --outfile"
        raise click.UsageError(f"--converter {path}: it does not run: {reason}")


def intermediate(model: Path) -> str:
    """The format that loses nothing of what is stored, and that the runtime quantises from."""
    return {"float16": "f16", "bfloat16": "bf16"}.get(models.own_dtype(model), "f32")


def write_files(order: Order, staging: Path) -> dict[str, Any]:
    """All files into `staging`; gives the proof of each."""
    found = {}
    for quant in order.quants:
        path = staging / file_name(order, quant)
        if quant in gguf_file.PLAIN:
            _write_plain(order, path, quant)
        else:
            source = staging / "whole.gguf"
            if not source.is_file():
                _write_plain(order, source, intermediate(order.model))
            runtime.quantise(source, path, quant)
        found[path.name] = prove(order, path, quant)
    (staging / "whole.gguf").unlink(missing_ok=True)
    return found


def _write_plain(order: Order, path: Path, quant: str) -> None:
    if order.converter is None:
        gguf_file.write(order.model, path, quant, order.name)
        return
    command = [sys.executable, order.converter, order.model, "--outfile", path, "--outtype", quant]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode != 0 or not path.is_file():
        reason = (done.stderr.strip() or "it wrote nothing").split("\n")[-1]
        raise schema.Failure(f"{order.converter}: it failed on {order.model}: {reason}; the merged model is as it was")


def prove(order: Order, path: Path, quant: str) -> dict[str, Any]:
    """What of a file was compared with the merged model; a converter's file only as far as it can be read here."""
    facts: dict[str, Any] = {"quant": quant}
    tokens = proof.check_tokens(order.model, path, order.data)
    facts |= {"conversations": tokens.conversations, "tokens": tokens.tokens}
    allowed = proof.COARSE
    if models.read_config(order.model).get("model_type") in families.ARCHITECTURES:
        weights = proof.check_weights(order.model, path, quant)
        allowed = weights.allowed
        facts |= {
            "logits_moved": float(f"{weights.moved:.1e}"),
            "logits_allowed": float(f"{allowed:.1e}"),
            "same_token": weights.same_token,
            "positions": weights.positions,
            "rows_moved": ", ".join(f"{kind} {off:.1e}" for kind, off in sorted(weights.rounded.items())),
        }
    if runtime.is_there():
        answers = runtime.check_answers(order.model, path, allowed)
        facts |= {"same_answers": answers.same, "prompts": answers.prompts}
    return facts


def write_companions(order: Order, staging: Path, found: dict[str, Any]) -> None:
    """The Modelfile and the model card."""
    tokenizer = models.load_tokenizer(order.model)
    first = file_name(order, order.quants[0])
    talks = list(proof.conversations(order.data))
    turns = None if tokenizer.chat_template is None else ollama.derive(tokenizer, talks)
    if turns is None:
        schema.log("merge_export: no Modelfile: the chat template is more than turns one after the other")
    else:
        stops = [tokenizer.decode([number]) for number in vocabulary.stop_tokens(order.model)]
        (staging / "Modelfile").write_text(ollama.modelfile(turns, first, stops), "utf-8")
    files = {name: describe(facts) for name, facts in found.items()}
    if turns is not None:
        files["Modelfile"] = f"for Ollama: `ollama create {order.name} -f Modelfile`"
    found = {"merge": folders.read_manifest(order.model).get("proof", {}), **found}
    shown = {name: ", ".join(f"{key} {value}" for key, value in facts.items()) for name, facts in found.items()}
    (staging / "README.md").write_text(card.write(order.model, order.name, files, shown, order.scores), "utf-8")


def describe(facts: dict[str, Any]) -> str:
    text = f"GGUF, {facts['quant']}; {facts['conversations']} conversations give the trained tokens"
    if "logits_moved" in facts:
        text += f"; logits moved by {facts['logits_moved']:.1e} ({facts['logits_allowed']:.1e} allowed)"
    if "prompts" in facts:
        text += f"; {facts['same_answers']} of {facts['prompts']} greedy answers the same in llama.cpp"
    return text


def default_name(model: Path) -> str:
    """The name of the run: runs/first/merged is called first."""
    here = model.resolve()
    return here.parent.name if here.name in ("merged", "adapter") else here.name


# --- other shapes -----------------------------------------------------------------------------------------------------
def copy_for_mlx(model: Path, staging: Path, names: list[str]) -> None:
    """The same weights, and a configuration with the keys that mlx-lm looks for."""
    folders.copy_files(model, staging, names)
    path = staging / "config.json"
    config = json.loads(path.read_bytes())
    rope = config.get("rope_parameters") or {}
    rope = rope.get("full_attention", rope)
    wanted = {"rope_theta": rope["rope_theta"]} if "rope_theta" in rope else {}
    if rope.get("rope_type", "default") != "default":
        wanted["rope_scaling"] = {key: value for key, value in rope.items() if key != "rope_theta"}
    if config["model_type"] == "lfm2":
        wanted |= {"block_dim": config["hidden_size"], "block_ff_dim": config["intermediate_size"]}
        wanted["full_attn_idxs"] = [n for n, kind in enumerate(config["layer_types"]) if kind == "full_attention"]
    config |= {key: value for key, value in wanted.items() if config.get(key) is None}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
