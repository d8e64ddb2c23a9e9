"""A small real model, built offline on the rows that are there: something for an adapter to adapt."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import schema
from schema import Record
from stages.train.rows import Row, encode
from stages.train.settings import Config, Tiny

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

RECIPE = "recipe.json"
PAD, START, END = "<|pad|>", "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# The usual recipe for small models trained from nothing.
_BETAS, _DECAY, _WARMUP, _LOWEST = (0.9, 0.95), 0.1, 0.05, 0.1


def build(folder: Path, records: list[Record], config: Config) -> Path:
    """The tiny base model in `folder`: built, unless it stands there already, made of the same rows and settings."""
    key = recipe(records, config)
    if (folder / RECIPE).is_file() and (folder / RECIPE).read_text("utf-8") == key:
        schema.log(f"train: the tiny base model in {folder} was built from these rows; it is used again")
        return folder
    with schema.folder(folder) as staging:
        tokenizer = make_tokenizer(records, config.tiny)
        rows = [row for record in records if isinstance(row := encode(record, tokenizer), Row)]
        rows = [row for row in rows if len(row.tokens) <= config.data.max_length]
        model = make_model(tokenizer, config)
        learn(model, rows, config)
        tokenizer.save_pretrained(staging)
        model.save_pretrained(staging)
        (staging / RECIPE).write_text(key, "utf-8")
    return folder


def recipe(records: list[Record], config: Config) -> str:
    """Everything that the weights depend on."""
    rows = schema.sha256(schema.canonical([[record["description"], record["code"]] for record in records]))
    settings = {name: getattr(config.tiny, name) for name in config.tiny.__struct_fields__}
    facts = {"rows": rows, "max_length": config.data.max_length, "seed": config.training.seed, **settings}
    return schema.canonical(facts | {"version": schema.VERSION}).decode() + "\n"


def make_tokenizer(records: list[Record], tiny: Tiny) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=tiny.vocabulary,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # every byte is a token: no text is unknown
        show_progress=False,
    )
    texts = (text for record in records for text in (record["description"], record["code"]))
    core.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=END, pad_token=PAD, extra_special_tokens=[START], model_max_length=2048
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_model(tokenizer: PreTrainedTokenizerFast, config: Config) -> PreTrainedModel:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tiny = config.tiny
    if tiny.hidden % tiny.heads:
        raise schema.Failure(f"tiny.hidden {tiny.hidden} can not be shared evenly by tiny.heads {tiny.heads}")
    torch.manual_seed(config.training.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=tiny.hidden,
            intermediate_size=tiny.feed_forward,
            num_hidden_layers=tiny.layers,
            num_attention_heads=tiny.heads,
            max_position_embeddings=max(2048, config.data.max_length),
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )


def learn(model: PreTrainedModel, rows: list[Row], config: Config) -> None:
    """Train all weights on prompts and answers: a model from nothing has a language to learn, not only answers."""
    import torch

    steps, batches = config.tiny.steps, endless_batches(rows, config.tiny.batch, config.training.seed)
    matrices = [weight for weight in model.parameters() if weight.dim() > 1]
    others = [weight for weight in model.parameters() if weight.dim() <= 1]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": _DECAY},
        {"params": others, "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=config.tiny.rate, betas=_BETAS)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: share_of_rate(step, steps))
    count = sum(weight.numel() for weight in model.parameters())
    schema.log(f"train: tiny base model: {count:,} parameters, {len(rows):,} rows, {steps:,} steps")
    model.train()
    recent: list[float] = []  # one batch says little: short rows and long ones differ by much
    for step in range(1, steps + 1):
        loss = model(**collate(next(batches), model.config.pad_token_id), use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        recent.append(float(loss))
        if step % max(1, steps // 4) == 0:
            schema.log(f"  base step {step:,} of {steps:,}: loss {sum(recent) / len(recent):.3f}")
            recent.clear()
    model.eval()


def share_of_rate(step: int, steps: int) -> float:
    """Rise, then half a cosine."""
    rise = min(1.0, (step + 1) / max(1.0, _WARMUP * steps))
    return rise * (_LOWEST + (1 - _LOWEST) * (1 + math.cos(math.pi * min(1.0, step / max(1, steps)))) / 2)


def endless_batches(rows: list[Row], size: int, seed: int) -> Iterator[list[Row]]:
    """Rows of similar length together, so that little is computed on padding; groups in a new order each time."""
    order = random.Random(seed)
    while True:
        shuffled = order.sample(rows, len(rows))
        shuffled.sort(key=lambda row: len(row.tokens))  # stable: equal lengths keep the new order
        groups = [shuffled[start : start + size] for start in range(0, len(rows), size)]
        order.shuffle(groups)
        yield from groups


def collate(rows: list[Row], pad: int) -> dict[str, Any]:
    import torch

    width = max(len(row.tokens) for row in rows)
    ids = torch.full((len(rows), width), pad)
    labels = torch.full((len(rows), width), -100)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for position, row in enumerate(rows):
        tokens = torch.tensor(row.tokens)
        ids[position, : len(tokens)] = labels[position, : len(tokens)] = tokens
        mask[position, : len(tokens)] = 1
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}
