"""What a run would do and cost, without a call."""

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field

from schema import Record
from stages.prepare_data_with_llm.answers import Answers, open_answers
from stages.prepare_data_with_llm.money import BATCH, Price, dollars, likely_tokens
from stages.prepare_data_with_llm.outcomes import answer_of, meaning_of
from stages.prepare_data_with_llm.questions import Question, Request, Task
from stages.prepare_data_with_llm.service import Service

LEAST_WRITTEN = 0.1  # of the longest answer allowed: what is expected at least where the cache knows no better


@dataclass
class Plan:
    """What would be asked."""

    rows: int = 0
    wanted: int = 0
    cached: int = 0
    new: dict[str, tuple[Request, str]] = field(default_factory=dict)  # with the source of the row


def make(records: Iterable[Record], task: Task, answers: Answers | None) -> Plan:
    plan = Plan()
    for record in records:
        plan.rows += 1
        asked = task.question(record)
        if not isinstance(asked, Question):
            continue
        plan.wanted += 1
        if answers and is_answered(answers, asked):
            plan.cached += 1
        else:
            plan.new.setdefault(asked.request.key, (asked.request, record["source"]))
    return plan


def is_answered(answers: Answers, asked: Question) -> bool:
    found = answers.get(asked.request.key)
    if not found:
        return False
    try:
        meaning_of(answer_of(found), asked)
    except ValueError:
        return False
    return True


def rehearse(records: Iterable[Record], task: Task, service: Service, price: Price | None) -> list[str]:
    """The lines of a plan."""
    is_there = (service.cache_dir / "cache.db").exists()
    with open_answers(service.cache_dir) if is_there else nullcontext() as answers:
        plan = make(records, task, answers)
        requests = [request for request, _ in plan.new.values()]
        typical = answers.typical_output(requests[0].task, service.model) if answers and requests else None
    read = sum(map(likely_tokens, requests))
    most = sum(request.max_tokens for request in requests)
    low = min(most, round(typical * len(requests))) if typical else round(most * LEAST_WRITTEN)
    shared = plan.wanted - plan.cached - len(requests)
    known = f" (as many as so far: {typical:.0f} each)" if typical else ""
    return [
        f"{plan.rows:,} rows, {plan.wanted:,} to be asked about by {service.author}",
        f"{plan.cached:,} are answered in the cache, {len(requests):,} new requests, {shared:,} shared",
        f"about {read:,} tokens to read (4 characters a token), {low:,}{known} to {most:,} to write",
        *costs(price, read, low, most),
        "nothing was asked and nothing was written",
    ]


def costs(price: Price | None, read: int, low: int, most: int) -> list[str]:
    if price is None:
        return ["cost unknown: no price of this model is known; say --price IN,OUT"]

    def span(share: float) -> str:
        return f"{dollars(price.tokens(read, low, share))} to {dollars(price.tokens(read, most, share))}"

    return [f"cost {span(1)} by {price.source}; as a batch {span(BATCH)}"]
