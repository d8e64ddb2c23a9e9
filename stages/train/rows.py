"""From records to token ids: what is prompt, what is trained, and why a row can not be trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import schema

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # what torch's losses call "no label"
PERCENTILES = (50, 90, 95, 99, 100)


class Speaker(NamedTuple):
    """A tokenizer with a chat template, and every token that ends an answer."""

    tokenizer: PreTrainedTokenizerBase
    stops: frozenset[int]


class Row(NamedTuple):
    """One record as the model sees it; everything behind the prompt is trained, the end token included."""

    record: schema.Record
    prompt: int
    ids: list[int]

    @property
    def labels(self) -> list[int]:
        return [IGNORED] * self.prompt + self.ids[self.prompt :]

    @property
    def answer(self) -> int:
        return len(self.ids) - self.prompt


def usable(path: str, reject: schema.Reject) -> Iterator[schema.Record]:
    """The records that have both a description to ask with and an answer to learn."""
    for found in schema.read(path, reject):
        record = schema.adopt(found)
        if not record["description"].strip():
            message = "it has no description to ask with; run prepare_data_with_llm.py generate-descriptions"
            reject(record, message, code="needs_description")
        elif not record["code"].strip():
            reject(record, "its answer is empty, so there is nothing to learn", code="nothing_trained")
        else:
            yield record


def render(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], *, ask: bool) -> list[int]:
    from jinja2 import TemplateError

    try:
        return list(tokenizer.apply_chat_template(messages, add_generation_prompt=ask, return_dict=True)["input_ids"])
    except TemplateError as error:
        raise schema.Failure(f"{tokenizer.name_or_path}: its chat template does not render: {error}") from None


def encode(speaker: Speaker, record: schema.Record) -> Row | schema.Fault:
    """The token ids of a record, checked for everything that would quietly ruin a training."""
    tokenizer = speaker.tokenizer
    if fault := _control_tokens(tokenizer, record):
        return fault
    question = [{"role": "user", "content": record["description"]}]
    if isinstance(system := record["metadata"].get("system"), str) and system:
        question.insert(0, {"role": "system", "content": system})
    prompt = render(tokenizer, question, ask=True)
    whole = render(tokenizer, [*question, {"role": "assistant", "content": record["code"]}], ask=False)
    if whole[: len(prompt)] != prompt:
        return schema.Fault("prompt_not_prefix", "the chat template renders the prompt otherwise before an answer")
    answer = whole[len(prompt) :]
    ends = [position for position, token in enumerate(answer) if token in speaker.stops]
    if not ends:
        return schema.Fault("no_end_token", "no end token stands in the answer, the model would never learn to stop")
    if ends[0] == 0:
        return schema.Fault("nothing_trained", "no token of the answer is left to learn")
    # The first end token is where every generation stops: what a template puts behind it can not be learned.
    ids = prompt + answer[: ends[0] + 1]
    bos = tokenizer.bos_token_id
    if bos is not None and bos not in speaker.stops and (count := ids.count(bos)) > 1:
        return schema.Fault("double_bos", f"the begin token stands {count} times in it")
    return Row(record, len(prompt), ids)


def _control_tokens(tokenizer: PreTrainedTokenizerBase, record: schema.Record) -> schema.Fault | None:
    """Text that spells a control token would become one: an answer that ends in its middle, for example."""
    for field in ("description", "code"):
        for token in tokenizer.all_special_tokens:
            if token in record[field]:
                return schema.Fault("control_token", f"its {field} holds the text {token!r}, a control token here")
    return None


def trim(speaker: Speaker, row: Row, limit: int) -> Row | schema.Fault:
    """The row with the end of its description cut off until it fits; the answer stays whole."""
    words = speaker.tokenizer(row.record["description"], add_special_tokens=False)["input_ids"]
    left, over = len(words), len(row.ids) - limit
    while over > 0:
        left -= over
        if left < 1:
            message = f"{row.answer:,} tokens of answer leave no room for the prompt in {limit:,}"
            return schema.Fault("too_long", message)
        # Text that was cut inside of a character gets no replacement sign at its end.
        text = speaker.tokenizer.decode(words[:left]).rstrip("\N{REPLACEMENT CHARACTER}")
        shorter = encode(speaker, {**row.record, "description": text})
        if isinstance(shorter, schema.Fault):
            return shorter
        row, over = shorter._replace(record=row.record), len(shorter.ids) - limit
    return row


def table(rows: Sequence[Row]) -> str:
    """How long the rows are, in tokens."""
    columns = {
        "prompt": [row.prompt for row in rows],
        "answer": [row.answer for row in rows],
        "row": [len(row.ids) for row in rows],
    }
    head = "tokens  " + "".join(f"{'max' if share == 100 else f'p{share}':>8}" for share in PERCENTILES)
    lines = [
        f"{name:<8}" + "".join(f"{_percentile(sizes, share):>8,}" for share in PERCENTILES)
        for name, sizes in columns.items()
    ]
    return "\n".join([head, *lines])


def _percentile(sizes: Sequence[int], share: int) -> int:
    """The smallest size that so many percent of the rows do not exceed."""
    return sorted(sizes)[max(0, -(-len(sizes) * share // 100) - 1)]


def long_rows_cost(speaker: Speaker, rows: Sequence[Row], limit: int) -> str:
    """One sentence: what each choice for the rows that are too long would cost."""
    long = [row for row in rows if len(row.ids) > limit]
    trimmed = [trim(speaker, row, limit) for row in long]
    kept = [(old, new) for old, new in zip(long, trimmed, strict=True) if isinstance(new, Row)]
    cut = sum(len(old.ids) - len(new.ids) for old, new in kept)
    return (
        f"{len(long):,} of {len(rows):,} rows are longer than {limit:,} tokens; --on-long reject leaves them out "
        f"({sum(row.answer for row in long):,} tokens of answers), --on-long trim-prompt cuts {cut:,} tokens from the "
        f"prompts of {len(kept):,} and leaves out {len(long) - len(kept):,}, "
        f"--max-length {max(len(row.ids) for row in long)} keeps all"
    )


def marked(speaker: Speaker, row: Row) -> Iterator[tuple[str, bool]]:
    """Each token as text, and whether it is trained."""
    for position, token in enumerate(row.ids):
        yield speaker.tokenizer.decode([token]), position >= row.prompt
