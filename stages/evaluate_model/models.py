"""Load a model and let it read or write: chat rendering, losses, generation in batches."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

import schema
from stages.evaluate_model.asking import Answer, Sampling, no_description, prompt_messages

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FENCE_NOTE = "{#- programs stand in a fence of ```python -#}"  # of train.py
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


class Loaded(NamedTuple):
    """A model that is ready to be asked, and what belongs to it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    stops: frozenset[int]
    context: int


class Conversation(NamedTuple):
    """One row as the model sees it: the prompt, and behind it the answer with its end token."""

    prompt: list[int]
    whole: list[int]


class RowLoss(NamedTuple):
    """What the model made of one reference answer."""

    nll: float
    tokens: int
    correct: int


def require_training_packages() -> None:
    # Read when torch is loaded: threads that wait without spinning leave the processor to those that work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    for package in ("torch", "transformers", "peft"):
        if find_spec(package) is None:
            raise click.UsageError(f"evaluate_model needs the package {package}: pip install 'linemill[train]'")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """No progress bars and warnings: what they warn of is checked here and said in our words."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load(name: str, adapter: Path | None) -> Loaded:
    """The model, with the adapter merged in where there is one: the same logits to 2e-6, no extra work per token."""
    folder = find_model(name)
    talks = adapter if adapter and (adapter / "tokenizer_config.json").is_file() else folder
    tokenizer = _tokenizer(talks)
    model = _weights(folder)
    if len(tokenizer) > (known := model.get_input_embeddings().num_embeddings):
        raise schema.Failure(f"{talks}: its tokenizer has {len(tokenizer):,} tokens, the model {name} knows {known:,}")
    if adapter:
        model = _with_adapter(model, adapter)
    stops = stop_ids(model, tokenizer)
    return Loaded(_on_device(model), tokenizer, stops, getattr(model.config, "max_position_embeddings", None) or 2**31)


def find_model(name: str) -> Path:
    """The folder of a model: a local one, or one that the hub gives. A local folder never needs the network."""
    folder = Path(name)
    if folder.is_dir():
        if (folder / "adapter_config.json").is_file():
            raise click.UsageError(f"--model {name} is an adapter: give its base as --model, and this as --adapter")
        if not (folder / "config.json").is_file():
            raise click.UsageError(f"--model {name} is not a model folder: it has no config.json")
        return folder
    if not _HUB_NAME.fullmatch(name):
        raise click.UsageError(f"--model {name}: there is no such folder, and it is not a name on the hub either")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise schema.Failure(f"--model {name}: no such folder, and the hub can not give it: {_line(error)}") from None


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError, AttributeError) as error:
        raise schema.Failure(f"{folder}: its tokenizer can not be loaded: {_line(error)}") from None
    if tokenizer.chat_template is None:
        raise schema.Failure(f"{folder}: its tokenizer has no chat template, so nobody knows how to ask this model")
    return tokenizer


def _weights(folder: Path) -> PreTrainedModel:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        raise schema.Failure(f"{folder}: can not be loaded: {_line(error)}") from None
    if missing := sorted(report["missing_keys"]):
        # The library fills them with random numbers and goes on.
        raise schema.Failure(f"{folder}: {len(missing)} tensors are missing, the first is {missing[0]}")
    return model


def _with_adapter(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    from peft import PeftModel
    from safetensors import SafetensorError

    _check_adapter(adapter)
    try:
        adapted = PeftModel.from_pretrained(model, adapter, torch_device="cpu")
        # from_pretrained only warns of what did not fit, and a half-placed adapter is a different model.
        result = adapted.load_adapter(adapter, "default", torch_device="cpu")
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise schema.Failure(f"{adapter}: does not fit the model: {_line(error)}") from None
    if misfits := sorted([*result.missing_keys, *result.unexpected_keys]):
        raise schema.Failure(f"{adapter}: does not fit the model: {len(misfits)} tensors, the first is {misfits[0]}")
    return adapted.merge_and_unload()


def _check_adapter(adapter: Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (adapter / name).is_file():
            raise click.UsageError(f"--adapter {adapter}: not an adapter folder, it has no {name}")
    try:
        kind = json.loads((adapter / "adapter_config.json").read_bytes())["peft_type"]
    except (ValueError, KeyError, TypeError):
        raise schema.Failure(f"{adapter}/adapter_config.json is damaged") from None
    if kind != "LORA":
        raise schema.Failure(f"{adapter}: is a {kind} adapter; only LORA adapters are known here")


def _on_device(model: PreTrainedModel) -> PreTrainedModel:
    import torch

    model.eval()
    # 16 bits halve the memory of an accelerator; most CPUs only get slower by them.
    return model.to("cuda", torch.bfloat16) if torch.cuda.is_available() else model


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Everything that ends an answer: what the model and the tokenizer say, and what the chat template puts there."""
    known = model.generation_config.eos_token_id
    question = [{"role": "user", "content": "x"}]
    asked = render(tokenizer, question, ask=True)
    answered = render(tokenizer, [*question, {"role": "assistant", "content": "x"}])
    special = [token for token in answered[len(asked) :] if token in tokenizer.all_special_ids]
    ids = {*(known if isinstance(known, list) else [known]), tokenizer.eos_token_id, *special[:1]}
    return frozenset(ids - {None})


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    return lines[0] if lines else type(error).__name__


def render(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], *, ask: bool = False) -> list[int]:
    from jinja2 import TemplateError

    try:
        return list(tokenizer.apply_chat_template(messages, add_generation_prompt=ask, return_dict=True)["input_ids"])
    except TemplateError as error:
        raise schema.Failure(f"{tokenizer.name_or_path}: its chat template does not render: {_line(error)}") from None


def prompt_ids(loaded: Loaded, record: schema.Record, system: str | None = None) -> list[int] | schema.Fault:
    """The prompt as the model's own chat template renders it."""
    if fault := no_description(record):
        return fault
    ids = render(loaded.tokenizer, _question(loaded, record, system), ask=True)
    return _too_long(len(ids), loaded.context - 1) or ids


def _question(loaded: Loaded, record: schema.Record, system: str | None = None) -> list[dict[str, str]]:
    """As train.py puts it: a template that knows of an input gets it apart, one that refuses a system text, joined."""
    *before, asked = prompt_messages(record, system)
    given = record["metadata"].get("input")
    knows = "message['input']" in str(loaded.tokenizer.chat_template)
    if knows and isinstance(given, str) and given and asked["content"].endswith(f"\n{given}"):
        asked |= {"content": asked["content"].removesuffix(f"\n{given}"), "input": given}
    if before and not _takes_system(loaded.tokenizer):
        return [{**asked, "content": f"{before[0]['content']}\n\n{asked['content']}"}]
    return [*before, asked]


def _takes_system(tokenizer: PreTrainedTokenizerBase) -> bool:
    from jinja2 import TemplateError

    try:
        tokenizer.apply_chat_template([{"role": r, "content": "x"} for r in ("system", "user")], tokenize=False)
    except (TemplateError, TypeError):
        return False
    return True


def _reply(loaded: Loaded, record: schema.Record) -> str:
    """The reference as it was learned: train.py leaves a note in the template when programs stand in a fence."""
    code = record["code"]
    is_program = record["metadata"].get("kind", "code") == "code" and not code.lstrip().startswith("```")
    has_note = is_program and FENCE_NOTE in str(loaded.tokenizer.chat_template)
    return f"```python\n{code.strip()}\n```" if has_note else code


def conversation(loaded: Loaded, record: schema.Record) -> Conversation | schema.Fault:
    """Prompt and reference answer, cut where the answer begins."""
    prompt = prompt_ids(loaded, record)
    if isinstance(prompt, schema.Fault):
        return prompt
    messages = [*_question(loaded, record), {"role": "assistant", "content": _reply(loaded, record)}]
    whole = render(loaded.tokenizer, messages)
    if whole[: len(prompt)] != prompt or len(whole) == len(prompt):
        message = "the chat template renders the prompt otherwise once an answer follows it"
        return schema.Fault("prompt_not_prefix", message)
    return _too_long(len(whole), loaded.context) or Conversation(prompt, whole)


def _too_long(tokens: int, most: int) -> schema.Fault | None:
    if tokens <= most:
        return None
    return schema.Fault("too_long", f"{tokens:,} tokens, the model reads at most {most:,}")


def batches(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Positions in groups of similar length, so that little is computed on padding. Equal lengths keep their order."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[start : start + size] for start in range(0, len(order), size)]


def padded(rows: list[list[int]], filler: int, *, left: bool) -> tuple[Any, Any]:
    """Token ids as one rectangle, and the mask that says which of them are real."""
    import torch

    width = max(map(len, rows))
    ids, mask = torch.full((len(rows), width), filler), torch.zeros((len(rows), width), dtype=torch.long)
    for position, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(len(row))
        ids[position, place] = torch.tensor(row)
        mask[position, place] = 1
    return ids, mask


def filler(loaded: Loaded) -> int:
    pad = loaded.tokenizer.pad_token_id
    return pad if pad is not None else min(loaded.stops, default=0)


def losses(loaded: Loaded, rows: list[Conversation]) -> list[RowLoss]:
    """How the model rates the answers of one batch; prompt tokens do not count."""
    import torch
    from torch.nn.functional import cross_entropy

    # Padding at the right: under a causal mask no real token ever sees it.
    ids, mask = padded([row.whole for row in rows], filler(loaded), left=False)
    ids, mask = ids.to(loaded.model.device), mask.to(loaded.model.device)
    with torch.inference_mode():
        logits = loaded.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    found = []
    for position, row in enumerate(rows):
        target = ids[position, len(row.prompt) : len(row.whole)]
        guess = logits[position, len(row.prompt) - 1 : len(row.whole) - 1].float()
        nll = float(cross_entropy(guess, target, reduction="sum"))
        found.append(RowLoss(round(nll, 6), len(target), int((guess.argmax(-1) == target).sum())))
    return found


def all_losses(loaded: Loaded, rows: list[Conversation], size: int) -> list[RowLoss]:
    """How the model rates each answer, in the order of the rows, computed on groups of similar length."""
    found: dict[int, RowLoss] = {}
    for group in batches([len(row.whole) for row in rows], size):
        found.update(zip(group, losses(loaded, [rows[position] for position in group]), strict=True))
        schema.log(f"evaluate_model: {len(found):,} of {len(rows):,} rows", level=1)
    return [found[position] for position in range(len(rows))]


def generate(loaded: Loaded, prompts: list[list[int]], sampling: Sampling, seed: int) -> list[Answer]:
    """An answer to each prompt of one batch."""
    ids, mask = padded(prompts, filler(loaded), left=True)
    written = _written(loaded, ids, mask, sampling, seed)
    return [answer(loaded, row) for row in written[:, ids.shape[1] :].tolist()]


def _written(loaded: Loaded, ids: Any, mask: Any, sampling: Sampling, seed: int, streamer: Any = None) -> Any:
    import torch
    from transformers import GenerationConfig

    # The model's own settings would be mixed in (temperature, repetition penalty) and greedy would not be greedy.
    loaded.model.generation_config = GenerationConfig()
    chance = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    torch.manual_seed(seed)
    with torch.inference_mode():
        return loaded.model.generate(
            input_ids=ids.to(loaded.model.device),
            attention_mask=mask.to(loaded.model.device),
            max_new_tokens=min(sampling.max_new_tokens, loaded.context - ids.shape[1]),
            eos_token_id=sorted(loaded.stops),
            pad_token_id=filler(loaded),
            streamer=streamer,
            **(chance if sampling.temperature else {"do_sample": False}),
        )


def answer(loaded: Loaded, tokens: list[int]) -> Answer:
    end = next((position for position, token in enumerate(tokens) if token in loaded.stops), None)
    text = loaded.tokenizer.decode(tokens[:end], skip_special_tokens=True)
    return Answer(text, len(tokens[:end]), "length" if end is None else "eos")


def stream(loaded: Loaded, prompt: list[int], sampling: Sampling, say: Callable[[str], None]) -> str:
    """One answer, told piece by piece."""
    from transformers import TextStreamer

    pieces = []

    class Teller(TextStreamer):  # type: ignore[misc]  # the library does not say its type
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            pieces.append(text)
            say(text)

    ids, mask = padded([prompt], filler(loaded), left=True)
    _written(loaded, ids, mask, sampling, sampling.seed, Teller(loaded.tokenizer, True, skip_special_tokens=True))
    return "".join(pieces)
