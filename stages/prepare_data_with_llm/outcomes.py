"""What is made of an answer: its meaning, the same question once more, a row of the cache, a line for people."""

import time
from collections import Counter
from dataclasses import replace
from typing import Any

from schema import Fault
from stages.prepare_data_with_llm.questions import Answer, Question, Request

RAW = 2000  # characters of an unusable answer that are kept


class Unusable(Exception):
    """A row that gets no answer: the fault says why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.fault = Fault(code, message)


def meaning_of(answer: Answer, asked: Question) -> Any:
    """What an answer says, or a ValueError in words for the model and for the rejects file."""
    if answer.finish == "refusal":
        raise ValueError("the model declined")
    if answer.finish == "length":
        raise ValueError("it was cut off at the limit of tokens")
    return asked.read(answer.text)


def answer_of(row: dict[str, Any]) -> Answer:
    """The answer that a row of the cache holds; it is paid for."""
    return Answer(row["text"], row.get("model") or "", row.get("finish") or "stop", 0, 0)


def once_more(request: Request, answer: Answer, fault: str) -> Request:
    """The same question with the fault of its answer, and with more room if that was too small."""
    room = request.max_tokens * 4 if answer.finish == "length" else request.max_tokens
    user = f"{request.user}\n\nYour last answer could not be used: {fault}. Answer with the JSON object alone."
    return replace(request, user=user, max_tokens=room)


def kept(answer: Answer, request: Request, source: str, usd: float | None, calls: int) -> dict[str, Any]:
    """What the cache keeps of an answer."""
    return {
        "text": answer.text,
        "model": answer.model,
        "finish": answer.finish,
        "usage": {"input": answer.input_tokens, "output": answer.output_tokens, "cached": answer.cached_tokens},
        "usd": usd,
        "calls": calls,
        "task": request.task,
        "provider": request.provider,
        "host": request.host,
        "asked": request.model,
        "source": source,
        "time": int(time.time()),
    }


def told(counts: Counter[str]) -> str:
    """The line about calls at the end of a run."""
    return (
        f"{counts['answered']:,} new answers in {counts['calls']:,} calls, {counts['cached']:,} from the cache, "
        f"{counts['merged']:,} shared; {counts['input_tokens']:,} tokens read, {counts['output_tokens']:,} written"
    )
