"""llama.cpp, where it is installed: number formats that only it can write, and what it answers."""

from __future__ import annotations

import os
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

import schema
from stages.merge_export import models

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# name -> how llama.cpp calls it
QUANTS = {
    name: f"LLAMA_FTYPE_MOSTLY_{name.upper()}"
    for name in ("q2_k", "q3_k_m", "q4_0", "q4_k_s", "q4_k_m", "q5_0", "q5_k_s", "q5_k_m", "q6_k")
}
SHAPES = ("circle", "square", "star", "line", "graph")
PROMPTS = tuple(
    f"Create an animation of a {colour} {shape}." for shape in SHAPES for colour in ("red", "blue", "green", "white")
)
NEW_TOKENS = 24


class Answers(NamedTuple):
    """Of so many prompts, how many are answered with the very same tokens by the runtime."""

    same: int
    prompts: int


def is_there() -> bool:
    return find_spec("llama_cpp") is not None


def require(quant: str) -> None:
    if not is_there():
        raise click.UsageError(f"--quant {quant} needs the package llama-cpp-python: pip install 'linemill[llama]'")


def quantise(source: Path, target: Path, quant: str) -> None:
    import llama_cpp

    _be_quiet()
    told = llama_cpp.llama_model_quantize_default_params()
    told.ftype = getattr(llama_cpp, QUANTS[quant])
    if llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), told) != 0:
        raise schema.Failure(f"{target.name}: llama.cpp could not write it as {quant}; the merged model is as it was")


def _be_quiet() -> None:
    import llama_cpp

    llama_cpp.llama_log_set(_SILENT.setdefault("callback", llama_cpp.llama_log_callback(_ignore)), None)


_SILENT: dict[str, Any] = {}  # the library calls it as long as the process lives


def _ignore(*_: Any) -> None:
    pass


def check_answers(folder: Path, path: Path, allowed: float) -> Answers:
    """Greedy answers of the file in llama.cpp beside those of the merged model.

    Where they part, both tokens must have been as good as equal for the merged model: within what the number format
    may move two logits.
    """
    import llama_cpp

    _be_quiet()
    model, tokenizer = models.load_model(folder), models.load_tokenizer(folder)
    threads = max(1, (os.cpu_count() or 2) // 2)  # its threads spin while they wait: leave room for others
    try:
        runtime = llama_cpp.Llama(str(path), n_ctx=512, n_threads=threads, n_threads_batch=threads, verbose=False)
    except (ValueError, OSError, RuntimeError) as error:
        raise schema.Failure(f"{path}: llama.cpp can not load it: {models.first_line(error)}") from None
    same = 0
    with closing(runtime):
        for prompt in PROMPTS:
            text, ids = _prompt(tokenizer, prompt)
            if runtime.tokenize(text.encode(), add_bos=False, special=True) != ids:
                raise schema.Failure(f"{path}: llama.cpp cuts {prompt!r} into other tokens than the trained tokenizer")
            same += _agree(model, runtime, ids, tokenizer.eos_token_id, allowed, path)
    return Answers(same, len(PROMPTS))


def _prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> tuple[str, list[int]]:
    if tokenizer.chat_template is None:
        return prompt, list(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    talk = [{"role": "user", "content": prompt}]
    return tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True), models.render(
        tokenizer, prompt
    )


def _agree(model: Any, runtime: Any, ids: list[int], end: int | None, allowed: float, path: Path) -> bool:
    import torch

    with torch.no_grad():
        whole = model.generate(
            torch.tensor([ids]), do_sample=False, max_new_tokens=NEW_TOKENS, eos_token_id=end, pad_token_id=end
        )
    expected = whole[0, len(ids) :].tolist()
    runtime.reset()
    for number, token in enumerate(runtime.generate(ids, temp=0.0, repeat_penalty=1.0)):
        if number >= len(expected):
            break
        if token != expected[number]:
            row = models.logits(model, [ids + expected[:number]])[0][-1]
            gap = float(row[expected[number]] - row[token])
            if gap > 2 * allowed:
                raise schema.Failure(
                    f"{path}: llama.cpp answers otherwise: its token {number + 1} is worse by {gap:.1e} for the merged "
                    f"model, {2 * allowed:.1e} is allowed"
                )
            return False
    return True
