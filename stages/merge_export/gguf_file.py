"""Write a model folder as one GGUF file, and read it back: its settings, its tokenizer, its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import schema
from stages.merge_export import families, vocabulary

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFReader
    from torch import Tensor

# name -> file type; those that need no runtime
PLAIN = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
BITS = {"f32": 32, "f16": 16, "bf16": 16, "q8_0": 8.5}
_ALWAYS_32 = ("_norm.weight", "shortconv.conv.weight")


def storage(name: str, shape: list[int], quant: str) -> GGMLQuantizationType:
    """The number format of one tensor: what is small, or what runtimes want exact, stays in 32 bits."""
    import gguf

    if len(shape) <= 1 or not name.endswith(".weight") or name.endswith(_ALWAYS_32):
        return gguf.GGMLQuantizationType.F32
    if quant == "q8_0" and shape[-1] % 32:
        return gguf.GGMLQuantizationType.F16
    return gguf.GGMLQuantizationType[quant.upper()]


def write(folder: Path, target: Path, quant: str, name: str) -> None:
    """The model in `folder` as the file `target`; tensor by tensor, so memory does not grow with the model."""
    import gguf
    import torch

    family = families.find_family(folder)
    words = vocabulary.read_vocabulary(folder, family.vocabulary)
    writer = gguf.GGUFWriter(target, family.architecture)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_file_type(gguf.LlamaFileType[PLAIN[quant]])
    families.write_shape(writer, family, families.weight_shapes(folder))
    vocabulary.write_vocabulary(writer, words, folder)
    plain = torch.zeros(0).numpy().dtype
    for tensor_name, weight in families.converted(family, folder):
        kind = storage(tensor_name, list(weight.shape), quant)
        # The shape is that of the numbers, whatever they are packed into: so no bytes are announced as the type.
        size = _byte_count(weight.numel(), kind)
        writer.add_tensor_info(tensor_name, weight.shape, plain, size, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor_name, weight in families.converted(family, folder):
        kind = storage(tensor_name, list(weight.shape), quant)
        writer.write_tensor_data(gguf.quants.quantize(weight.float().numpy(), kind))
    writer.close()


def _byte_count(numbers: int, kind: GGMLQuantizationType) -> int:
    import gguf

    block, size = gguf.GGML_QUANT_SIZES[kind]
    return numbers // int(block) * int(size)


def open_file(path: Path) -> GGUFReader:
    import gguf

    try:
        return gguf.GGUFReader(path)
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise schema.Failure(f"{path}: damaged, or not a GGUF file: {error}") from None


def field(reader: GGUFReader, name: str, default: Any = None) -> Any:
    found = reader.get_field(name)
    return default if found is None else found.contents()


def read_weights(path: Path, folder: Path) -> Iterator[tuple[str, str, Tensor]]:
    """The weights of a GGUF file under the names of the model in `folder`, each with the number format it is in."""
    import gguf
    import torch

    family = families.find_family(folder)
    tensors = {tensor.name: tensor for tensor in open_file(path).tensors}
    for name in families.weight_shapes(folder):
        if name == "lm_head.weight" and family.config.get("tie_word_embeddings"):
            continue
        tensor = tensors.get(families.rename(family, name))
        if tensor is None:
            raise schema.Failure(f"{path}: it lacks the tensor {families.rename(family, name)}")
        numbers = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy())
        yield name, tensor.tensor_type.name, families.restored(family, name, numbers)


# --- its tokenizer, rebuilt from nothing but the file -----------------------------------------------------------------
Encode = Callable[[str], list[int]]


def encoder(reader: GGUFReader, path: Path) -> Encode:
    """Text to token ids, as llama.cpp computes them; control tokens in the text are taken as such."""
    if field(reader, "tokenizer.ggml.model") == "llama":
        return _piece_encoder(reader)
    return _merge_encoder(reader, path)


def _merge_encoder(reader: GGUFReader, path: Path) -> Encode:
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

    pre = field(reader, "tokenizer.ggml.pre")
    if pre not in vocabulary.PRE_TOKENIZERS:
        raise schema.Failure(f"{path}: its pre-tokenizer {pre!r} is not one that can be checked here")
    patterns, whole = vocabulary.PRE_TOKENIZERS[pre]
    tokens, kinds = field(reader, "tokenizer.ggml.tokens"), field(reader, "tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ", 1)) for merge in field(reader, "tokenizer.ggml.merges", [])]
    tokenizer = Tokenizer(models.BPE({text: number for number, text in enumerate(tokens)}, merges, ignore_merges=whole))
    cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in _marks(tokens, kinds)])
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)


def _marks(tokens: list[str], kinds: list[int]) -> list[str]:
    """The tokens that are never cut, the longest first."""
    whole = (vocabulary.CONTROL, vocabulary.USER_DEFINED)
    return sorted((text for text, kind in zip(tokens, kinds, strict=True) if kind in whole), key=len, reverse=True)


def _piece_encoder(reader: GGUFReader) -> Encode:
    import re

    tokens, kinds = field(reader, "tokenizer.ggml.tokens"), field(reader, "tokenizer.ggml.token_type")
    ids = {text: number for number, text in enumerate(tokens)}
    scores, prefix = field(reader, "tokenizer.ggml.scores"), field(reader, "tokenizer.ggml.add_space_prefix", True)
    marks = _marks(tokens, kinds)
    cut = re.compile(f"({'|'.join(map(re.escape, marks))})") if marks else None

    def encode(text: str) -> list[int]:
        found: list[int] = []
        for number, part in enumerate(cut.split(text) if cut else [text]):
            if number % 2:
                found.append(ids[part])
            elif part:
                part = (" " if prefix else "") + part
                found += _join(list(part.replace(" ", vocabulary.SPACE)), ids, scores)
        return found

    return encode


def _join(pieces: list[str], ids: dict[str, int], scores: list[float]) -> list[int]:
    """Join neighbours, the pair with the best score first and of equal ones the leftmost, until none is a piece."""
    import heapq

    after, before = [*range(1, len(pieces)), -1], [*range(-1, len(pieces) - 1)]
    queue: list[tuple[float, int, str]] = []

    def offer(left: int) -> None:
        if left >= 0 and (right := after[left]) >= 0 and (number := ids.get(pieces[left] + pieces[right])) is not None:
            heapq.heappush(queue, (-scores[number], left, pieces[left] + pieces[right]))

    for left in range(len(pieces)):
        offer(left)
    while queue:
        _, left, joined = heapq.heappop(queue)
        right = after[left]
        if not pieces[left] or right < 0 or pieces[left] + pieces[right] != joined:
            continue  # one of the two has been joined to another neighbour since
        pieces[left], pieces[right], after[left] = joined, "", after[right]
        if after[right] >= 0:
            before[after[right]] = left
        offer(before[left])
        offer(left)
    return [number for piece in pieces if piece for number in _ids_of(piece, ids)]


def _ids_of(piece: str, ids: dict[str, int]) -> list[int]:
    """The piece, or where the vocabulary lacks it, its bytes."""
    return [ids[piece]] if piece in ids else [ids[f"<0x{value:02X}>"] for value in piece.encode()]
