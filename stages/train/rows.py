"""From records to token ids: what is prompt, what is trained, and why a row can not be trained on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import schema

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # what torch's losses call "no label"
_THOUGHT = re.compile(r"\A\s*(<think>)?\s*</think>\s*")


class Wording(NamedTuple):
    """How rows are put, besides the chat template."""

    system: str | None = None
    markdown: bool = False
    whole_text: bool = False


class Speaker(NamedTuple):
    """A tokenizer with a chat template, and every token that ends an answer."""

    tokenizer: PreTrainedTokenizerBase
    stops: frozenset[int]
    wording: Wording = Wording()


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


def usable(path: str, reject: schema.Reject, *, whole_text: bool = False) -> Iterator[schema.Record]:
    """The records that have both a description to ask with and an answer to learn, each of them once."""
    seen: dict[str, str] = {}
    for found in schema.read(path, reject):
        own_id = found["metadata"].get("id")
        record = schema.adopt(found)
        content = schema.sha256(schema.canonical([record["description"], record["code"]]))
        name = str(own_id or content)
        if not record["code"].strip():
            reject(record, "its answer is empty, so there is nothing to learn", code="nothing_trained")
        elif not (whole_text or record["description"].strip()):
            message = "it has no description to ask with; run prepare_data_with_llm.py generate-descriptions"
            reject(record, message, code="needs_description")
        elif name in seen:
            same = "all of it" if seen[name] == content else "not its text; one of the two would hide the other"
            reject(record, f"an earlier row has the same id and {same}", code="duplicate_id")
        else:
            seen[name] = content
            yield record


def render(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], *, ask: bool) -> str:
    """A conversation as text; a template that knows no system message gets it in front of the request."""
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(messages, add_generation_prompt=ask, tokenize=False))
    except (TemplateError, TypeError) as error:
        if messages[0]["role"] == "system":
            asked = {**messages[1], "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
            _say_once("train: the chat template has no place for a system message; it stands before the request")
            return render(tokenizer, [asked, *messages[2:]], ask=ask)
        raise schema.Failure(f"{tokenizer.name_or_path}: its chat template does not render: {error}") from None


@cache
def _say_once(message: str) -> None:
    schema.log(message)


def question_of(record: schema.Record, otherwise: str | None = None) -> list[dict[str, str]]:
    """The request, after the system text of the row; what stands there otherwise is a part of the template already."""
    asked, metadata = {"role": "user", "content": record["description"]}, record["metadata"]
    given = metadata.get("input")
    if isinstance(given, str) and given and record["description"].endswith(f"\n{given}"):
        # An alpaca row: templates that know of it put the input apart, under a heading of its own.
        asked |= {"content": record["description"].removesuffix(f"\n{given}"), "input": given}
    system = metadata.get("system") or otherwise
    return [{"role": "system", "content": system}, asked] if isinstance(system, str) and system else [asked]


def answer_of(record: schema.Record, wording: Wording) -> str:
    is_program = record["metadata"].get("kind", "code") == "code" and not record["code"].lstrip().startswith("```")
    return f"```python\n{record['code'].strip()}\n```" if wording.markdown and is_program else record["code"]


def encode(speaker: Speaker, record: schema.Record) -> Row | schema.Fault:
    """The token ids of a record, checked for everything that would quietly ruin a training."""
    tokenizer = speaker.tokenizer
    if fault := _control_tokens(speaker, record):
        return fault
    if speaker.wording.whole_text:
        return _whole_text(tokenizer, record)
    question, reply = question_of(record), answer_of(record, speaker.wording)
    if "input" in question[-1] and "message['input']" not in str(tokenizer.chat_template):
        question[-1] = {"role": "user", "content": record["description"]}
    asked = render(tokenizer, question, ask=True)
    told = render(tokenizer, [*question, {"role": "assistant", "content": reply}], ask=False)
    ids = _prompt_and_whole(tokenizer, asked, told)
    if isinstance(ids, schema.Fault):
        return ids
    prompt, whole = ids
    row = _checked(speaker, record, len(prompt), whole)
    return row if isinstance(row, schema.Fault) else _more_than_the_answer(told[len(asked) :], reply) or row


def _prompt_and_whole(
    tokenizer: PreTrainedTokenizerBase, asked: str, told: str
) -> tuple[list[int], list[int]] | schema.Fault:
    prompt, whole = (list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (asked, told))
    if whole[: len(prompt)] == prompt:
        return prompt, whole
    if told.startswith(asked):
        # One token stands across the seam. At work the prompt ends at it, so it has to end there here, too.
        parted = prompt + list(tokenizer(told[len(asked) :], add_special_tokens=False)["input_ids"])
        if tokenizer.decode(parted) == tokenizer.decode(whole):
            return prompt, parted
    message = "the chat template renders the prompt otherwise before an answer; --template names another"
    return schema.Fault("prompt_not_prefix", message)


def _more_than_the_answer(trained: str, reply: str) -> schema.Fault | None:
    """What a template puts before the answer would be learned, though at work it is given, or never wanted."""
    # A template of a thinking model says that there was no thought; that is how it answers without one, too.
    if reply.strip() not in trained:
        return schema.Fault("answer_changed", "the chat template leaves out or rewrites a part of the answer")
    start = _THOUGHT.sub("", trained, count=1).partition(reply.strip())[0]
    if not start.strip():
        return None
    return schema.Fault("prompt_trained", f"{start.strip()[:40]!r} of the prompt would be trained, before the answer")


def _checked(speaker: Speaker, record: schema.Record, prompt: int, whole: list[int]) -> Row | schema.Fault:
    answer = whole[prompt:]
    ends = [position for position, token in enumerate(answer) if token in speaker.stops]
    if not ends:
        return schema.Fault("no_end_token", "no end token stands in the answer, the model would never learn to stop")
    if ends[0] == 0:
        return schema.Fault("nothing_trained", "no token of the answer is left to learn")
    # The first end token is where every generation stops: what a template puts behind it can not be learned.
    ids = whole[: prompt + ends[0] + 1]
    bos = speaker.tokenizer.bos_token_id
    if bos is not None and bos not in speaker.stops and (count := ids.count(bos)) > 1:
        return schema.Fault("double_bos", f"the begin token stands {count} times in it")
    return Row(record, prompt, ids)


def _whole_text(tokenizer: PreTrainedTokenizerBase, record: schema.Record) -> Row:
    """Begin token where the model has one, text, end token; the begin token is given, never learned."""
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    words = tokenizer(record["code"], add_special_tokens=False)["input_ids"]
    return Row(record, len(start), [*start, *words, tokenizer.eos_token_id])


def _control_tokens(speaker: Speaker, record: schema.Record) -> schema.Fault | None:
    """Text that spells a control token would become one: an answer that ends in its middle, for example."""
    stops = speaker.tokenizer.convert_ids_to_tokens(sorted(speaker.stops))
    for field in ("description", "code"):
        for token in {*speaker.tokenizer.all_special_tokens, *stops} - {None}:
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


def marked(speaker: Speaker, row: Row) -> Iterator[tuple[str, bool]]:
    """Each token as text, and whether it is trained."""
    for position, token in enumerate(row.ids):
        yield speaker.tokenizer.decode([token]), position >= row.prompt
