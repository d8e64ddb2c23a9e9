"""A LoRA adapter as a GGUF file of its own, which llama.cpp puts onto its base when it loads it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import schema
from stages.merge_export import adapters, families

if TYPE_CHECKING:
    from torch import Tensor

_PREFIX = "base_model.model."


def tensors(adapter: Path, family: families.Family, scratch: Path) -> Iterator[tuple[str, Tensor]]:
    """Each pair under the name of the weight that it belongs to; the rows of q and k in llama.cpp's order."""
    from safetensors import safe_open

    with safe_open(adapters.as_safetensors(adapter, scratch) / adapters.WEIGHTS, framework="pt") as file:
        for name in sorted(file.keys()):
            weight, _, part = name.removeprefix(_PREFIX).rpartition(".lora_")
            if part not in ("A.weight", "B.weight"):
                raise schema.Failure(f"{adapter}: its tensor {name} has no place in a GGUF adapter; merge it instead")
            weight, numbers = f"{weight}.weight", file.get_tensor(name).float()
            if part == "B.weight":
                numbers = families.laid_out(family, weight, numbers)
            yield f"{families.rename(family, weight)}.lora_{part[0].lower()}", numbers.contiguous()


def strength(adapter: Path, config: dict[str, Any]) -> float:
    """llama.cpp divides alpha by the rank; what else peft may do with them is said in the same two numbers."""
    for key in ("alpha_pattern", "rank_pattern", "use_dora"):
        if config.get(key):
            raise schema.Failure(f"{adapter}: {key} has no place in a GGUF adapter; merge it instead")
    alpha, rank = float(config["lora_alpha"]), int(config["r"])
    return float(alpha * rank**0.5) if config.get("use_rslora") else alpha


def write(adapter: Path, base: Path, target: Path, scratch: Path) -> None:
    import gguf

    family = families.find_family(base)
    writer = gguf.GGUFWriter(target, family.architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, strength(adapter, adapters.read_config(adapter)))
    for name, weight in tensors(adapter, family, scratch):
        writer.add_tensor(name, weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
