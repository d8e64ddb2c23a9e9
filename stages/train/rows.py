"""Records as tokens: which of them are trained, and every reason why a row must not be trained on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import schema
from schema import Fault, Record
from stages.train.settings import Data

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARKER = "\n...[Truncated]"
_SHORTEST_PROMPT = 16  # fewer tokens of a request than this ask for nothing


class Row(NamedTuple):
    """One row as the model sees it: what stands before `start` is read, the rest is learnt."""

    id: str
    tokens: list[int]
    start: int

    @property
    def labels(self) -> list[int]:
        return [-100] * self.start + self.tokens[self.start :]


class Usable(NamedTuple):
    """The rows to train on, and every other row with the reason."""

    rows: list[Row]
    rejected: list[tuple[Record, Fault]]


def usable(records: Iterable[Record], tokenizer: PreTrainedTokenizerBase, data: Data) -> Usable:
    """Judge every record; raises when rows are too long and nobody said what to do with them."""
    found = Usable([], [])
    too_long: list[Record] = []
    for record in records:
        row = encode(record, tokenizer)
        if isinstance(row, Row) and len(row.tokens) > data.max_length:
            too_long.append(record)
            row = fit(record, row, tokenizer, data)
        if isinstance(row, Fault):
            found.rejected.append((record, row))
        else:
            found.rows.append(row)
    if too_long and data.on_long == "fail":
        raise schema.Failure(explain_long(found, too_long, data))
    return found


def encode(record: Record, tokenizer: PreTrainedTokenizerBase, description: str | None = None) -> Row | Fault:
    """The row in tokens, by the model's own chat template, after every check of what would ruin a training."""
    asked = record["description"] if description is None else description
    if not asked.strip():
        return Fault("no_description", "it has no description yet; run prepare_data_with_llm.py first")
    messages = [{"role": "user", "content": asked}]
    if system := record["metadata"].get("system"):
        messages.insert(0, {"role": "system", "content": str(system)})
    prompt = _render(tokenizer, messages, ask=True)
    whole = _render(tokenizer, [*messages, {"role": "assistant", "content": record["code"]}])
    return _fault_of(prompt, whole, tokenizer) or Row(schema.adopt(record)["metadata"]["id"], whole, len(prompt))


def _render(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], *, ask: bool = False) -> list[int]:
    return list(tokenizer.apply_chat_template(messages, add_generation_prompt=ask, return_dict=True)["input_ids"])


def _fault_of(prompt: list[int], whole: list[int], tokenizer: PreTrainedTokenizerBase) -> Fault | None:
    trained = whole[len(prompt) :]
    if whole[: len(prompt)] != prompt:
        return Fault("prompt_not_prefix", "the chat template renders the prompt otherwise once an answer follows it")
    if not trained:
        return Fault("nothing_to_learn", "the chat template renders no token of the answer")
    if tokenizer.eos_token_id not in trained:
        return Fault("no_end", f"the answer does not end with {tokenizer.eos_token!r}; the model would never stop")
    if tokenizer.bos_token_id is not None and tokenizer.bos_token_id != tokenizer.eos_token_id:
        starts = whole.count(tokenizer.bos_token_id)
        if starts > 1:
            return Fault("double_start", f"{tokenizer.bos_token!r} stands {starts} times in the row")
    return None


def fit(record: Record, row: Row, tokenizer: PreTrainedTokenizerBase, data: Data) -> Row | Fault:
    """A row that is too long, as the settings say: rejected, or with a shorter prompt. The answer stays whole."""
    told = f"{len(row.tokens):,} tokens, of which the answer has {len(row.tokens) - row.start:,}"
    fault = Fault("too_long", f"{told}; max_length is {data.max_length:,}")
    if data.on_long != "trim-prompt":
        return fault
    ids = tokenizer(record["description"], add_special_tokens=False)["input_ids"]
    keep = len(ids) - (len(row.tokens) - data.max_length)
    # The marker costs tokens too, and a cut can tokenise otherwise than the whole: count again until it fits.
    while keep >= _SHORTEST_PROMPT:
        shorter = encode(record, tokenizer, tokenizer.decode(ids[:keep]) + MARKER)
        if isinstance(shorter, Fault) or len(shorter.tokens) <= data.max_length:
            return shorter
        keep -= len(shorter.tokens) - data.max_length
    return fault


def percentiles(lengths: Sequence[int]) -> str:
    """The lengths below which half, most and all of the rows are."""
    ordered = sorted(lengths)
    at = {"50 %": 0.5, "90 %": 0.9, "95 %": 0.95, "99 %": 0.99, "longest": 1.0}
    return ", ".join(
        f"{name} {ordered[min(len(ordered) - 1, int(len(ordered) * share))]:,}" for name, share in at.items()
    )


def explain_long(found: Usable, too_long: list[Record], data: Data) -> str:
    lengths = [len(row.tokens) for row in found.rows]
    long = [fault.message for _, fault in found.rejected if fault.code == "too_long"]
    longest = max(int(message.split(" ")[0].replace(",", "")) for message in long)
    ids = ", ".join(schema.adopt(record)["metadata"]["id"][:12] for record in too_long[:3])
    within = f" (the others: {percentiles(lengths)})" if lengths else ""
    many = f"{len(too_long):,} of {len(too_long) + len(lengths):,} rows have more than {data.max_length:,} tokens"
    return (
        f"{many}, the longest {longest:,}{within}: {ids}{', ...' if len(too_long) > 3 else ''}. "
        f"Choose: --max-length {longest} keeps them all and costs memory; --on-long reject does without them; "
        "--on-long trim-prompt cuts the request, never the answer"
    )


def masked_text(row: Row, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What is read and what is learnt of a row, as text."""
    return {
        "id": row.id,
        "tokens": len(row.tokens),
        "read": tokenizer.decode(row.tokens[: row.start]),
        "learnt": tokenizer.decode(row.tokens[row.start :]),
    }
