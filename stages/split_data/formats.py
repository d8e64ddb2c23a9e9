"""The shapes that trainers read, made from records one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from schema import Fault, Record

# What the published ShareGPT sets of this domain say to the model before the request.
SYSTEM = "You are a Manim code generator. Write a complete Manim Community Edition program for the request."

Row = dict[str, Any]


def as_messages(record: Record) -> Row:
    system = record["metadata"].get("system")
    first = [{"role": "system", "content": system}] if isinstance(system, str) and system else []
    user = {"role": "user", "content": record["description"]}
    return {"messages": [*first, user, {"role": "assistant", "content": record["code"]}]}


def as_conversations(record: Record) -> Row:
    """ShareGPT, as the published sets have it: a system turn, and the program in a fence."""
    metadata, code = record["metadata"], record["code"]
    is_code = metadata.get("kind", "code") == "code"
    system = metadata.get("system") or (SYSTEM if is_code else None)
    turns = [
        ("system", system),
        ("human", record["description"]),
        ("gpt", f"```python\n{code.rstrip()}\n```" if is_code else code),
    ]
    return {
        "conversations": [{"from": who, "value": text} for who, text in turns if text],
        "source": record["source"],
    }


def as_alpaca(record: Record) -> Row:
    return {"instruction": record["description"], "input": "", "output": record["code"]}


def as_prompt_completion(record: Record) -> Row:
    return {"prompt": record["description"], "completion": record["code"]}


def as_text(record: Record) -> Row:
    if not record["description"]:
        return {"text": record["code"]}
    return {"text": f"Instruction: {record['description']}\nCode:\n{record['code']}"}


FORMATS: dict[str, Callable[[Record], Row] | None] = {
    "records": None,
    "messages": as_messages,
    "conversations": as_conversations,
    "alpaca": as_alpaca,
    "prompt-completion": as_prompt_completion,
    "text": as_text,
}


def find_fault(record: Record, row_format: str) -> Fault | None:
    """Why a record can not be a row of this format, or None."""
    is_document = row_format == "text" and record["metadata"].get("kind") == "document"
    if row_format != "records" and not record["description"] and not is_document:
        return Fault("no_description", f"the format {row_format} asks for something, and the record has no description")
    return None
