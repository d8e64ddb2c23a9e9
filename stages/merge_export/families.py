"""What llama.cpp calls the parts of the Llama, Mistral, Qwen, LFM2 and Gemma families, and how it lays them out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import schema
from stages.merge_export import models

if TYPE_CHECKING:
    from gguf import GGUFWriter, TensorNameMap
    from torch import Tensor

# model_type of transformers -> architecture of llama.cpp, and the only activation that it computes there
ARCHITECTURES = {
    "llama": ("llama", ("silu",)),
    "mistral": ("llama", ("silu",)),
    "qwen2": ("qwen2", ("silu",)),
    "qwen3": ("qwen3", ("silu",)),
    "lfm2": ("lfm2", ("silu",)),
    "gemma": ("gemma", ("gelu", "gelu_pytorch_tanh")),
    "gemma2": ("gemma2", ("gelu_pytorch_tanh",)),
    "gemma3_text": ("gemma3", ("gelu_pytorch_tanh",)),
}
# One layer in so many sees everything, the others a window; llama.cpp has these numbers in its code.
FULL_EVERY = {"gemma2": 2, "gemma3": 6}


class Family(NamedTuple):
    architecture: str
    config: dict[str, Any]
    names: TensorNameMap
    vocabulary: int  # rows of the embedding


def find_family(folder: Path) -> Family:
    """The family of a model folder; refused where llama.cpp would compute something else than transformers does."""
    import gguf
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True).to_dict()
    except (OSError, ValueError, KeyError) as error:
        raise schema.Failure(f"{folder}/config.json: not a configuration that transformers knows: {error}") from None
    kind = config["model_type"]
    if kind not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise schema.Failure(f"{folder}: no GGUF writer for {kind} here (for {known} only); name one with --converter")
    architecture, activations = ARCHITECTURES[kind]
    config["hidden_act"] = config.get("hidden_activation") or config.get("hidden_act") or activations[0]
    if fault := _strange(architecture, activations, config):
        raise schema.Failure(f"{folder}: llama.cpp would compute {kind} otherwise: {fault}")
    number = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(number, config["num_hidden_layers"])
    return Family(architecture, config, names, config["vocab_size"])


def _strange(architecture: str, activations: tuple[str, ...], config: dict[str, Any]) -> str | None:
    """What of a configuration llama.cpp has no word for."""
    if config["hidden_act"] not in activations:
        return f"its activation is {config['hidden_act']}, not {activations[0]}"
    if (kind := _rope(config).get("rope_type", "default")) not in ("default", "linear", "llama3", "yarn"):
        return f"its positions are scaled by {kind!r}"
    if kind == "llama3" and architecture != "llama":
        return "its positions are scaled like those of Llama 3"
    window = {"sliding_attention", "chunked_attention"} & set(config.get("layer_types") or ())
    if window and architecture not in FULL_EVERY and config["model_type"] != "mistral":
        return "some of its layers see a window only"
    every, scalar = FULL_EVERY.get(architecture), config.get("query_pre_attn_scalar")
    if every and not all(
        (name == "full_attention") == ((n + 1) % every == 0) for n, name in enumerate(config["layer_types"])
    ):
        return f"not every {every}th of its layers is the one that sees everything"
    if scalar is not None and scalar != head_width(config):
        return f"its attention is scaled by {scalar}, not by the width of a head"
    return None


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of the positions; some families have them for each kind of layer."""
    settings = config.get("rope_parameters") or {}
    return dict(settings.get("full_attention", settings))


def head_width(config: dict[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def write_shape(writer: GGUFWriter, family: Family, shapes: dict[str, list[int]]) -> None:
    """The hyper-parameters. The width of the feed-forward part is read off its weights: some configurations only say
    from which other number it is computed."""
    config, rope = family.config, _rope(family.config)
    width = next(
        shape[0] for name, shape in shapes.items() if name.endswith(("mlp.up_proj.weight", "feed_forward.w3.weight"))
    )
    context = config["max_position_embeddings"]
    if config["model_type"] == "mistral" and config.get("sliding_window"):
        context = min(
            context, config["sliding_window"]
        )  # beyond it the two would differ: llama.cpp has no window there
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(context)
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(width)
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(_key_heads(config))
    writer.add_key_length(head_width(config))
    writer.add_value_length(head_width(config))
    writer.add_layer_norm_rms_eps(config["norm_eps"] if family.architecture == "lfm2" else config["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_vocab_size(family.vocabulary)
    _write_rope_scaling(writer, rope)
    _write_own(writer, family)


def _key_heads(config: dict[str, Any]) -> int | list[int]:
    heads = int(config.get("num_key_value_heads") or config["num_attention_heads"])
    if config["model_type"] != "lfm2":
        return heads
    return [heads if kind == "full_attention" else 0 for kind in config["layer_types"]]  # 0 stands for a convolution


def _write_rope_scaling(writer: GGUFWriter, rope: dict[str, Any]) -> None:
    import gguf

    kind = rope.get("rope_type", "default")
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(rope["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        for name, add in (
            ("attention_factor", writer.add_rope_scaling_yarn_attn_factor),
            ("beta_fast", writer.add_rope_scaling_yarn_beta_fast),
            ("beta_slow", writer.add_rope_scaling_yarn_beta_slow),
        ):
            if rope.get(name) is not None:
                add(rope[name])


def _write_own(writer: GGUFWriter, family: Family) -> None:
    """What only one family has."""
    config = family.config
    match family.architecture:
        case "llama":
            writer.add_rope_dimension_count(head_width(config))
        case "lfm2":
            writer.add_shortconv_l_cache(config["conv_L_cache"])
        case "gemma2":
            writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
            writer.add_final_logit_softcapping(config["final_logit_softcapping"])
            writer.add_sliding_window(config["sliding_window"])
        case "gemma3":
            writer.add_sliding_window(config["sliding_window"])
            writer.add_rope_freq_base_swa(config["rope_parameters"]["sliding_attention"]["rope_theta"])
            if config.get("final_logit_softcapping"):
                writer.add_final_logit_softcapping(config["final_logit_softcapping"])


def converted(family: Family, folder: Path) -> Iterator[tuple[str, Tensor]]:
    """The weights of a model folder under the names and in the layout of llama.cpp."""
    from safetensors import safe_open

    if (factors := _llama3_factors(family.config)) is not None:
        yield "rope_freqs.weight", factors
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a dictionary
                if name == "lm_head.weight" and family.config.get("tie_word_embeddings"):
                    continue
                yield rename(family, name), laid_out(family, name, file.get_tensor(name))


def rename(family: Family, name: str) -> str:
    found = family.names.get_name(name, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise schema.Failure(f"{family.architecture}: no place in a GGUF file for the tensor {name}")
    return str(found)


def laid_out(family: Family, name: str, weight: Tensor) -> Tensor:
    if family.architecture == "llama":
        return _turned(family.config, name, weight, back=False)
    if family.architecture == "lfm2" and ".conv.conv." in name:
        return weight.squeeze(1)
    if family.architecture.startswith("gemma") and name.endswith("norm.weight"):
        return weight.float() + 1  # transformers adds the one when it computes
    return weight


def restored(family: Family, name: str, weight: Tensor) -> Tensor:
    """The inverse of `laid_out`."""
    if family.architecture == "llama":
        return _turned(family.config, name, weight, back=True)
    if family.architecture == "lfm2" and ".conv.conv." in name:
        return weight.unsqueeze(1)
    if family.architecture.startswith("gemma") and name.endswith("norm.weight"):
        return weight - 1
    return weight


def _turned(config: dict[str, Any], name: str, weight: Tensor, *, back: bool) -> Tensor:
    """llama.cpp rotates neighbouring numbers, transformers the two halves of a head: reorder the rows of q and k."""
    part = name.split(".")[-2]
    if part not in ("q_proj", "k_proj"):
        return weight
    heads = config["num_attention_heads"] if part == "q_proj" else _key_heads(config)
    half = weight.shape[0] // heads // 2
    pairs = weight.reshape(heads, *((half, 2) if back else (2, half)), *weight.shape[1:])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def _llama3_factors(config: dict[str, Any]) -> Tensor | None:
    """By how much Llama 3 slows down each rotation; llama.cpp reads these as a tensor."""
    import torch

    rope = _rope(config)
    if rope.get("rope_type") != "llama3":
        return None
    width, old = head_width(config), rope["original_max_position_embeddings"]
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    lengths = 2 * math.pi / (1.0 / rope["rope_theta"] ** (torch.arange(0, width, 2, dtype=torch.float32) / width))
    smooth = ((old / lengths - low) / (high - low)).clamp(0, 1)
    return 1 / ((1 - smooth) / factor + smooth)


def weight_shapes(folder: Path) -> dict[str, list[int]]:
    return {
        name: shape
        for path in sorted(folder.glob("*.safetensors"))
        for name, shape in models.tensor_shapes(path).items()
    }
