"""A tokenizer as llama.cpp reads it: tokens, kinds, merges or scores, the id of its pre-tokenizer, and what stops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import schema
from stages.merge_export import models

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import PreTrainedTokenizerBase

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPACE = "▁"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_LLAMA3 = _SHORT + r"\p{N}{1,3}|" + _REST
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# How llama.cpp cuts a text before it merges, and whether a word of the vocabulary is taken whole, without merging.
PRE_TOKENIZERS: dict[str, tuple[tuple[str, ...], bool]] = {
    "gpt-2": ((_GPT2,), False),
    "smollm": ((r"\p{N}", _GPT2), False),
    "llama-bpe": ((_LLAMA3,), True),
    "smaug-bpe": ((_LLAMA3,), False),
    "qwen2": ((_SHORT + r"\p{N}|" + _REST,), False),
    "tekken": ((_TEKKEN,), True),
}


class Vocabulary(NamedTuple):
    model: str  # "gpt2": byte-level merges; "llama": pieces with scores
    pre: str
    tokens: list[str]
    kinds: list[int]
    merges: list[str]
    scores: list[float]
    space_prefix: bool


def read_vocabulary(folder: Path, size: int) -> Vocabulary:
    """The vocabulary of the tokenizer in `folder`, filled up to the rows of the embedding."""
    path = folder / "tokenizer.json"
    try:
        data = json.loads(path.read_bytes())
        kind, pieces = data["model"]["type"], data["model"]["vocab"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise schema.Failure(f"{path}: not a tokenizer that can be exported: {error}") from None
    if kind != "BPE":
        raise schema.Failure(
            f"{path}: its model is {kind}; only BPE can be exported here, name another with --converter"
        )
    tokens = [f"[PAD{number}]" for number in range(size)]
    kinds = [UNUSED] * size
    added = {entry["id"]: entry for entry in data.get("added_tokens", [])}
    if (highest := max([*pieces.values(), *added])) >= size:
        raise schema.Failure(f"{path}: it has a token {highest:,}, the model knows {size:,}")
    for piece, number in pieces.items():
        tokens[number], kinds[number] = piece, NORMAL
    byte_level = not data["model"].get("byte_fallback")
    if not byte_level:
        _mark_pieces(data["model"], kinds)
    for number, entry in added.items():
        tokens[number] = entry["content"]
        if kinds[number] != UNKNOWN:
            kinds[number] = CONTROL if entry["special"] or _looks_special(entry["content"]) else USER_DEFINED
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in data["model"]["merges"]]
    if byte_level:
        pre = find_pre_tokenizer(data, path)
        return Vocabulary("gpt2", pre, tokens, kinds, [" ".join(merge) for merge in merges], [], False)
    scores = _scores(kinds, pieces, merges)
    return Vocabulary("llama", "default", tokens, kinds, [], scores, _prefixes_space(data, path))


def _looks_special(text: str) -> bool:
    """Control tokens that some families do not mark as such: a runtime would print them."""
    return text in ("<pad>", "<mask>") or (text.startswith(("<|", "<unused")) and text.endswith(">"))


def _mark_pieces(model: dict[str, Any], kinds: list[int]) -> None:
    for value in range(256):
        if (number := model["vocab"].get(f"<0x{value:02X}>")) is not None:
            kinds[number] = BYTE
    if model.get("unk_token") is not None:
        kinds[model["vocab"][model["unk_token"]]] = UNKNOWN


def _scores(kinds: list[int], pieces: dict[str, int], merges: list[list[str]]) -> list[float]:
    """llama.cpp merges the piece with the best score first; the order of the merges says the same."""
    scores = [-1000.0 - len(merges) if kind != NORMAL else 0.0 for kind in kinds]
    order: dict[str, int] = {}
    for left, right in merges:
        order.setdefault(left + right, len(order))
    for piece, number in pieces.items():
        if kinds[number] == NORMAL:
            scores[number] = float(-order.get(piece, len(order)))
    return scores


def _steps(part: dict[str, Any] | None, inner: str) -> list[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, whether it is one or a sequence."""
    if part is None:
        return []
    return list(part[inner]) if part["type"] == "Sequence" else [part]


def _prefixes_space(data: dict[str, Any], path: Path) -> bool:
    """Whether a space is put before the text; refused when the text is changed in another way."""
    prefix = False
    for step in [*_steps(data.get("normalizer"), "normalizers"), *_steps(data.get("pre_tokenizer"), "pretokenizers")]:
        match step["type"]:
            case "Prepend":
                prefix = step["prepend"] == SPACE
            case "Metaspace":
                prefix = step.get("prepend_scheme", "always") != "never"
            case "Replace" if step["content"] == SPACE:
                pass
            case "Split" if step["pattern"] == {"String": " "}:
                pass  # there are none left after the replacement
            case other:
                raise schema.Failure(f"{path}: llama.cpp does not know its step {other}; name a --converter")
    return prefix


def find_pre_tokenizer(data: dict[str, Any], path: Path) -> str:
    """The id under which llama.cpp knows the way in which a byte-level tokenizer cuts a text."""
    patterns: list[str] = []
    for step in _steps(data.get("pre_tokenizer"), "pretokenizers"):
        if step.get("add_prefix_space"):
            raise schema.Failure(
                f"{path}: it puts a space before the text, which llama.cpp does not; name a --converter"
            )
        match step["type"]:
            case "ByteLevel":
                patterns += [_GPT2] if step.get("use_regex", True) else []
            case "Digits" if step["individual_digits"]:
                patterns.append(r"\p{N}")
            case "Split" if step["behavior"] == "Isolated":
                patterns.append(step["pattern"].get("Regex", ""))
            case other:
                patterns.append(other)
    normal = [step["type"] for step in _steps(data.get("normalizer"), "normalizers")]
    if set(normal) - {"NFC"}:
        raise schema.Failure(f"{path}: llama.cpp does not know its normalizer {normal[0]}; name a --converter")
    whole = bool(data["model"].get("ignore_merges"))
    for name, known in PRE_TOKENIZERS.items():
        if known == (tuple(patterns), whole):
            return name
    raise schema.Failure(f"{path}: llama.cpp has no name for the way it cuts a text ({patterns}); name a --converter")


def write_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary, folder: Path) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.space_prefix)
    tokenizer = models.load_tokenizer(folder)
    for name, add in (
        ("bos", writer.add_bos_token_id),
        ("eos", writer.add_eos_token_id),
        ("unk", writer.add_unk_token_id),
        ("pad", writer.add_pad_token_id),
    ):
        if (number := getattr(tokenizer, f"{name}_token_id")) is not None:
            add(number)
    # A file has room for two more that end an answer, beside those that llama.cpp knows by their names.
    others = [number for number in stop_tokens(folder) if number != tokenizer.eos_token_id]
    for add, number in zip((writer.add_eot_token_id, writer.add_eom_token_id), others, strict=False):
        add(number)
    writer.add_add_bos_token(starts_with_bos(tokenizer))
    writer.add_add_eos_token(False)
    if tokenizer.chat_template is not None:
        writer.add_chat_template(tokenizer.chat_template)


def stop_tokens(folder: Path) -> list[int]:
    """All that end an answer: the trained one first, then those of the generation config."""
    trained = models.load_tokenizer(folder).eos_token_id
    path = folder / "generation_config.json"
    known = json.loads(path.read_bytes()).get("eos_token_id") if path.is_file() else None
    known = known if isinstance(known, list) else [] if known is None else [known]
    return list(dict.fromkeys(([] if trained is None else [trained]) + known))


def starts_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether what was trained starts with the begin token: a runtime that adds one is right only then."""
    if tokenizer.bos_token_id is None:
        return False
    ids = models.render(tokenizer, "a") if tokenizer.chat_template is not None else tokenizer("a")["input_ids"]
    return bool(ids[:1] == [tokenizer.bos_token_id])
