"""Proof that an exported file says what was trained: the tokens of conversations, the logits, the greedy text."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import schema
from stages.merge_export import gguf_file, models

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Messages = list[dict[str, str]]

# How far a logit may move through the number format, as a part of the largest one; the others are as in a merge.
# Measured on models of some million weights: q8_0 at most 5e-2, q6_k 5e-2, q5 0.14, q4 0.35, q3_k_m 0.22, q2_k 0.46;
# larger ones move less. A model of zeros moves them by 1, one of other numbers by more.
TOLERANCE = {
    "f32": 1e-4, "f16": 1e-2, "bf16": 5e-2, "q8_0": 0.1, "q6_k": 0.2, "q5_0": 0.4, "q5_k_s": 0.4, "q5_k_m": 0.4,
    "q4_0": 0.7, "q4_k_s": 0.6, "q4_k_m": 0.6, "q3_k_m": 0.8, "q2_k": 0.9,
}  # fmt: skip
COARSE = 0.9
# How far rounding may move a row of weights, as a part of its length. Measured with normal, Laplace's and Student's
# (t3) weights: eight tenths of these numbers at most. Whatever was mixed up on the way moves a row by 1 and more.
ROUNDING = {
    "F32": 1e-6, "F16": 1e-3, "BF16": 6e-3, "Q8_0": 0.03, "Q6_K": 0.06, "Q5_K": 0.1, "Q5_0": 0.16, "Q5_1": 0.16,
    "Q4_K": 0.2, "Q4_0": 0.28, "Q4_1": 0.28, "IQ4_NL": 0.28, "Q3_K": 0.4,
}  # fmt: skip
ROUGHEST = 0.7  # Q2_K
CODE = """from manim import *


class Example(Scene):
    def construct(self):
        label = Text("x² + 1 ≥ 0 — naïve")
        self.play(Write(label), run_time=1234.5)
\t# a tab,  two spaces, and an empty line

        self.wait(2)
"""
PROMPTS = (
    *models.PROBES,
    "Draw 3, 33, 333 and 123456789 dots; don't let them touch.",
    "  Leading spaces,\n\n\nthree line breaks\tand a tab  ",
    "Zeichne einen Kreis – größer als π, 画一个圆, нарисуй круг 🙂.",
    "$\\int_0^1 x^2\\,dx = \\frac{1}{3}$, isn't it? I'LL SAY SO.",
)


class Tokens(NamedTuple):
    conversations: int
    tokens: int


def conversations(data: Path | None, limit: int = 200) -> Iterator[Messages]:
    """The fixed ones, and the first records of a file."""
    for prompt in PROMPTS:
        yield [{"role": "user", "content": prompt}]
        yield [{"role": "user", "content": prompt}, {"role": "assistant", "content": CODE}]
    system = {"role": "system", "content": "You write programs for Manim."}
    yield [system, {"role": "user", "content": PROMPTS[0]}, {"role": "assistant", "content": CODE}]
    turns = [{"role": "user", "content": PROMPTS[0]}, {"role": "assistant", "content": CODE}]
    again = {"role": "user", "content": "Now in red."}
    yield [*turns, again]
    yield [system, *turns, again]
    if data is not None:

        def refuse(item: Any, message: str, code: str = "invalid", line: int | None = None) -> None:
            raise schema.Failure(f"{data}: {message}")

        for record in islice(schema.read(data, refuse), limit):
            yield [
                {"role": "user", "content": record["description"]},
                {"role": "assistant", "content": record["code"]},
            ]


def check_tokens(folder: Path, path: Path, data: Path | None = None) -> Tokens:
    """The same conversations through the trained tokenizer and template, and through those inside the file."""
    tokenizer = models.load_tokenizer(folder)
    reader = gguf_file.open_file(path)
    if tokenizer.chat_template is None:
        encode = gguf_file.encoder(reader, path)
        expected = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in PROMPTS]
        found = [encode(text) for text in PROMPTS]
    else:
        talks = [talk for talk in conversations(data) if _renders(tokenizer, talk)]
        exported = _Exported(path)
        expected = [_trained(tokenizer, talk) for talk in talks]
        found = [exported.ids(talk) for talk in talks]
    for number, (trained, written) in enumerate(zip(expected, found, strict=True), 1):
        if list(trained) != written:
            pairs = enumerate(zip_longest(trained, written))
            place = next(n for n, (one, other) in pairs if one != other)
            raise schema.Failure(
                f"{path}: conversation {number} of {len(expected)} gives other tokens than the trained template: "
                f"token {place + 1} is {tokenizer.decode(written[place : place + 3])!r} there, and was "
                f"{tokenizer.decode(trained[place : place + 3])!r}"
            )
    return Tokens(len(found), sum(map(len, found)))


def _asks(talk: Messages) -> bool:
    return talk[-1]["role"] == "user"


def _trained(tokenizer: PreTrainedTokenizerBase, talk: Messages) -> list[int]:
    return list(tokenizer.apply_chat_template(talk, add_generation_prompt=_asks(talk), return_dict=True)["input_ids"])


def _renders(tokenizer: PreTrainedTokenizerBase, talk: Messages) -> bool:
    """Some templates refuse a system message; all must take a question and an answer."""
    from jinja2 import TemplateError

    try:
        return bool(tokenizer.apply_chat_template(talk, tokenize=False))
    except TemplateError as error:
        if len(talk) <= 2:
            raise schema.Failure(f"the chat template does not render: {models.first_line(error)}") from None
        return False


class _Exported:
    """A GGUF file that is talked to: template, special tokens and tokenizer come from the file alone."""

    def __init__(self, path: Path) -> None:
        reader = gguf_file.open_file(path)
        self.path = path
        self.encode = gguf_file.encoder(reader, path)
        self.template = gguf_file.field(reader, "tokenizer.chat_template")
        self.begins = gguf_file.field(reader, "tokenizer.ggml.add_bos_token", False)
        tokens = gguf_file.field(reader, "tokenizer.ggml.tokens")
        self.names = {}
        for name in ("bos", "eos"):
            number = gguf_file.field(reader, f"tokenizer.ggml.{name}_token_id")
            self.names[f"{name}_token"] = "" if number is None else tokens[number]
        self.begin = gguf_file.field(reader, "tokenizer.ggml.bos_token_id")

    def ids(self, talk: Messages) -> list[int]:
        from jinja2 import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        if not self.template:
            raise schema.Failure(f"{self.path}: it has no chat template, the trained model has one")
        try:
            texts, _ = render_jinja_template(
                [talk], chat_template=self.template, add_generation_prompt=_asks(talk), **self.names
            )
        except TemplateError as error:
            raise schema.Failure(
                f"{self.path}: its chat template does not render: {models.first_line(error)}"
            ) from None
        if not self.begins:
            return self.encode(texts[0])
        # A runtime puts the begin token there itself, and drops the one that the template wrote.
        return [self.begin, *self.encode(texts[0].removeprefix(self.names["bos_token"]))]


class Weights(NamedTuple):
    """How far the exported file and the merged model are apart at most: logits, and rows of weights by their format."""

    moved: float
    allowed: float
    same_token: int
    positions: int
    rounded: dict[str, float]


def check_weights(folder: Path, path: Path, quant: str) -> Weights:
    """The logits of the merged model, and of the same model with the weights that the file holds."""
    model = models.load_model(folder)
    probes = models.probe_ids(folder, model)
    expected = models.logits(model, probes)
    rounded = _take_weights(model, folder, path)
    found = models.logits(model, probes)
    scale = max(1.0, *(float(row.abs().max()) for row in expected))
    same, positions = models.agreement(expected, found)
    moved, allowed = models.difference(expected, found), TOLERANCE.get(quant, COARSE) * scale
    if not moved <= allowed:
        raise schema.Failure(
            f"{path}: {quant} moves logits by {moved:.1e}, {allowed:.1e} is allowed; the merged model is as it was"
        )
    return Weights(moved, allowed, same, positions, rounded)


def _take_weights(model: PreTrainedModel, folder: Path, path: Path) -> dict[str, float]:
    """Put the weights of the file into the model, each compared with the one that it replaces."""
    own = model.state_dict()
    rounded: dict[str, float] = {}
    for name, kind, numbers in gguf_file.read_weights(path, folder):
        if own[name].shape != numbers.shape:
            raise schema.Failure(f"{path}: its weights do not fit {folder}: {name} is {list(numbers.shape)} there")
        off, allowed = row_error(numbers, own[name]), ROUNDING.get(kind, ROUGHEST)
        if not off <= allowed:
            raise schema.Failure(
                f"{path}: {name} is not what was trained: {kind} moves a row of it by {off:.1e} of its length, "
                f"{allowed:.1e} is allowed; the merged model is as it was"
            )
        rounded[kind] = max(off, rounded.get(kind, 0.0))
        own[name].copy_(numbers)
    return rounded


def row_error(found: Tensor, expected: Tensor) -> float:
    """The largest distance of two rows as a part of their length; a row of next to nothing is as long as the others."""
    if expected.dim() == 1:  # norms and biases; those of Gemma have lost what is small beside 1
        return float((found - expected).abs().max() / expected.abs().max().clamp_min(1.0))
    length = expected.norm(dim=-1)
    usual = length.square().mean().sqrt()
    return float(((found - expected).norm(dim=-1) / length.clamp_min(usual).clamp_min(1e-30)).max())
