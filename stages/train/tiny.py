"""The base that `--model tiny` stands for: a tokenizer and a small Llama, built from the training rows, offline."""

from __future__ import annotations

import ast
import json
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import schema
from stages.train import templates
from stages.train.models import settle_wording, wording
from stages.train.rows import IGNORED, Row, Speaker, encode
from stages.train.tree import FineTuneConfig, TinySettings

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaForCausalLM

FORMAT = 1  # raise it when the same settings shall give another base
PAD, START, END = "<|pad|>", "<|im_start|>", "<|im_end|>"
NOTE = "base.json"
# Some hundred programs are soon known by heart, and a model that only recites derails on the first prompt that it has
# not seen. Two cures, measured on the scenes of the Manim wheel (answers that parse): programs with statements left
# out, and wrong tokens in what is read (never in what is learned).
SHORTENED, NOISE = 0.9, 0.05
WARMUP, LAST_RATE = 0.05, 0.1


def build_speaker(records: Sequence[schema.Record], config: FineTuneConfig) -> Speaker:
    """A byte-level BPE tokenizer of the records' own words; its pre-tokenizer is GPT-2's, which every runtime knows."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.tiny.vocab_size,
        special_tokens=[PAD, START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator((text for record in records for text in (record["description"], record["code"])), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[START],
        chat_template=templates.CHATML if config.model.template == "auto" else templates.find(config.model.template),
        model_max_length=_context(config),
        clean_up_tokenization_spaces=False,
    )
    told = wording(config)
    settle_wording(tokenizer, told)
    return Speaker(tokenizer, frozenset({tokenizer.eos_token_id}), told)


def _context(config: FineTuneConfig) -> int:
    return max(2048, config.data.max_length)


def fingerprint(rows: Sequence[Row], config: FineTuneConfig) -> str:
    """What the base depends on: the rows, in order, and the settings that shape it."""
    texts = [[row.record["description"], row.record["code"]] for row in rows]
    tiny = {name: getattr(config.tiny, name) for name in config.tiny.__struct_fields__}
    words = [config.model.template, *(getattr(config.data, name) for name in ("system", "markdown", "train_on"))]
    return schema.sha256(schema.canonical([FORMAT, texts, words, tiny, config.training.seed, _context(config)]))


def is_current(folder: Path, key: str) -> bool:
    try:
        return bool(json.loads((folder / NOTE).read_bytes())["key"] == key)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def build(rows: Sequence[Row], speaker: Speaker, config: FineTuneConfig, folder: Path) -> None:
    """Train the base and put it into `folder`, all of it or nothing."""
    with schema.folder(folder) as staging:
        model = new_model(speaker, config)
        count = sum(weight.numel() for weight in model.parameters())
        schema.log(f"train: building the tiny base: {count:,} weights, {config.tiny.steps:,} steps")
        loss = fit(model, rows, speaker, config)
        model.save_pretrained(staging)
        speaker.tokenizer.save_pretrained(staging)
        for path in staging.glob("*.safetensors"):
            path.chmod((staging / "config.json").stat().st_mode)  # the library hides them from everybody else
        note = {"key": fingerprint(rows, config), "parameters": count, "steps": config.tiny.steps, "loss": loss}
        (staging / NOTE).write_text(json.dumps(note, indent=2) + "\n", "utf-8")


def new_model(speaker: Speaker, config: FineTuneConfig) -> LlamaForCausalLM:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(config.training.seed)
    shape = LlamaConfig(
        vocab_size=len(speaker.tokenizer),
        hidden_size=config.tiny.hidden_size,
        intermediate_size=config.tiny.feed_forward,
        num_hidden_layers=config.tiny.layers,
        num_attention_heads=config.tiny.hidden_size // 64,
        num_key_value_heads=config.tiny.hidden_size // 64,
        max_position_embeddings=_context(config),
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=speaker.tokenizer.eos_token_id,
        pad_token_id=speaker.tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(shape)


def fit(model: LlamaForCausalLM, rows: Sequence[Row], speaker: Speaker, config: FineTuneConfig) -> float:
    """A plain full training; gives the loss of the last step."""
    import torch

    tiny, chance = config.tiny, random.Random(config.training.seed)
    optimizers = _optimizers(model, tiny)
    highest = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    short = [row for row in rows if len(row.ids) <= tiny.max_length] or rows
    batches, loss = _batches(short, tiny.batch_size, chance), torch.tensor(0.0)
    model.train()
    for step in range(tiny.steps):
        batch = [shortened(row, speaker, chance) if chance.random() < SHORTENED else row for row in next(batches)]
        loss = _loss(model, *_padded(batch, speaker.tokenizer.pad_token_id))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, rate in zip(optimizers, highest, strict=True):
            optimizer.param_groups[0]["lr"] = rate * _rate(step, tiny)
            optimizer.step()
            optimizer.zero_grad()
        if (step + 1) % 50 == 0:
            schema.log(f"train: tiny base, step {step + 1:,} of {tiny.steps:,}: loss {loss.item():.3f}")
    return round(float(loss), 4)


def _optimizers(model: LlamaForCausalLM, tiny: TinySettings) -> list[Any]:
    """Muon for the matrices: it needs half of the steps of AdamW to the same loss, and so few rows need each step."""
    import torch

    named = [(weight, weight.dim() == 2 and "embed" not in name) for name, weight in model.named_parameters()]
    matrices, others = [weight for weight, muon in named if muon], [weight for weight, muon in named if not muon]
    return [
        torch.optim.Muon(matrices, lr=5 * tiny.lr, weight_decay=0.1),
        torch.optim.AdamW(others, lr=tiny.lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def _rate(step: int, tiny: TinySettings) -> float:
    """A short rise, then half a cosine down to a tenth."""
    rise = min(1.0, (step + 1) / (WARMUP * tiny.steps))
    return rise * (LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * step / tiny.steps)) / 2)


def _batches(rows: Sequence[Row], size: int, chance: random.Random) -> Iterator[list[Row]]:
    """Rows of similar length together, as padding costs as much as text; the batches in a new order each time."""
    by_length = sorted(rows, key=lambda row: len(row.ids))
    groups = [by_length[start : start + size] for start in range(0, len(by_length), size)]
    while True:
        chance.shuffle(groups)
        yield from groups


def _padded(batch: Sequence[Row], pad: int) -> tuple[Tensor, Tensor]:
    import torch

    width = max(len(row.ids) for row in batch)
    ids = torch.tensor([row.ids + [pad] * (width - len(row.ids)) for row in batch])
    labels = torch.tensor([row.labels + [IGNORED] * (width - len(row.ids)) for row in batch])
    return ids, labels


def _loss(model: LlamaForCausalLM, ids: Tensor, labels: Tensor) -> Any:
    import torch
    from torch.nn.functional import cross_entropy

    words = ids >= 3  # control tokens stay as they are
    noise = torch.randint(3, model.config.vocab_size, ids.shape)
    read = torch.where(words & (torch.rand(ids.shape) < NOISE), noise, ids)
    # Padding stands behind everything that is trained, and no token looks ahead: no mask is needed.
    hidden = model.model(input_ids=read, use_cache=False).last_hidden_state[:, :-1]
    target = labels[:, 1:]
    trained = target != IGNORED
    return cross_entropy(model.lm_head(hidden[trained]), target[trained])


def shortened(row: Row, speaker: Speaker, chance: random.Random) -> Row:
    """The row with some statements of each function left out; as it is, when that gives no program."""
    lines = row.record["code"].split("\n")
    try:
        functions = [node for node in ast.walk(ast.parse(row.record["code"])) if isinstance(node, ast.FunctionDef)]
        dropped = {number for function in functions for number in _some_lines(function, chance)}
        code = "\n".join(line for number, line in enumerate(lines, 1) if number not in dropped)
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return row
    shorter = encode(speaker, {**row.record, "code": code})
    return shorter if isinstance(shorter, Row) else row


def _some_lines(function: ast.FunctionDef, chance: random.Random) -> Iterator[int]:
    """The lines of a random part of the statements of a function, never of all."""
    kept = set(chance.sample(range(len(function.body)), chance.randint(1, len(function.body))))
    for position, statement in enumerate(function.body):
        if position not in kept:
            yield from range(statement.lineno, (statement.end_lineno or statement.lineno) + 1)
