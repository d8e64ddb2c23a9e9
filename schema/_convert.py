"""Rows of other shapes, turned into records one by one: each row decides for itself."""

from __future__ import annotations

import re
from typing import Any

from schema._record import Fault, Record, problem

# The first pair whose two keys are there decides. The order matters: `instruction/output` rows may also hold `text`.
_PAIRS = [
    ("instruction", "output"),
    ("instruction", "code"),
    ("instruction", "response"),
    ("prompt", "completion"),
    ("prompt", "code"),
    ("question", "answer"),
    ("query", "answer"),
    ("description", "code"),
]
_ANSWERS = {"answer": "qa"}
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_PLACEHOLDER = re.compile(r"\[PENDING_DESCRIPTION\]|\[GENERATION FAILED\]|\[TODO\]")


def to_record(row: Any, source: str) -> Record | Fault:
    """A valid record for any row of a known shape; what the shape does not use is kept in the metadata."""
    if (reason := problem(row)) is None:
        return row  # type: ignore[no-any-return]
    if not isinstance(row, dict) or {"description", "code", "source", "metadata"} <= row.keys():
        return Fault("invalid_record", reason)
    parts = _talk(row) or _pair(row) or _text(row)
    if parts is None:
        return Fault("unknown_shape", f"no known shape: it has {_names(row)}")
    if isinstance(parts, Fault):
        return parts
    record = _assemble(row, source, parts)
    return Fault("invalid_record", reason) if (reason := problem(record)) else record


def drop_placeholder(record: Record) -> Record:
    """Turn a text that stands for a missing description into the flag; such a text would be trained on."""
    if not _PLACEHOLDER.match(record["description"]):
        return record
    return {**record, "description": "", "metadata": {**record["metadata"], "needs_description": True}}


Parts = dict[str, Any]


def _assemble(row: dict[str, Any], source: str, parts: Parts) -> Record:
    used = parts.pop("used") | {"source", "metadata"}
    own = row.get("metadata")
    metadata: dict[str, Any] = {key: value for key, value in row.items() if key not in used}
    metadata |= own if isinstance(own, dict) else {} if own is None else {"metadata": own}
    description = parts.pop("description")
    if not description.strip():
        description, metadata["needs_description"] = "", True
    for key, value in parts.pop("metadata").items():
        metadata.setdefault(key, value)
    name = row.get("source")
    return {
        "description": description,
        "code": parts["code"],
        "source": name if isinstance(name, str) and name else source,
        "metadata": {_free_key(key, value): value for key, value in metadata.items()},
    }


def _free_key(key: str, value: Any) -> str:
    """The key, or another one where ours of that name means something else: a foreign id may be a number."""
    probe = {"description": "d", "code": "c", "source": "s", "metadata": {key: value}}
    return key if key != "error" and problem(probe) is None else f"upstream_{key}"


def _talk(row: dict[str, Any]) -> Parts | Fault | None:
    """`messages` of role and content, or ShareGPT's `conversations` of from and value."""
    for key, who, what in (("messages", "role", "content"), ("conversations", "from", "value")):
        turns = row.get(key)
        if isinstance(turns, list) and turns:
            return _turns(turns, key, who, what)
    return None


def _turns(turns: list[Any], key: str, who: str, what: str) -> Parts | Fault:
    said: dict[str, str] = {}
    for position, turn in enumerate(turns, 1):
        if not isinstance(turn, dict) or not isinstance(turn.get(what), str):
            return Fault("unknown_shape", f"{key}: turn {position} has no text under {what!r}")
        role = _ROLES.get(str(turn.get(who)))
        if role is None:
            return Fault("unknown_shape", f"{key}: turn {position} is by {turn.get(who)!r}")
        if role in said:
            return Fault("several_turns", f"{key}: more than one turn by the {role}; a record holds one question")
        said[role] = turn[what]
    if "user" not in said or "assistant" not in said:
        return Fault("unknown_shape", f"{key}: it needs a turn by the user and one by the assistant")
    metadata = {"system": said["system"]} if said.get("system") else {}
    return {"description": said["user"], "code": _unfence(said["assistant"]), "used": {key}, "metadata": metadata}


def _pair(row: dict[str, Any]) -> Parts | None:
    for asked, answered in _PAIRS:
        if isinstance(row.get(asked), str) and isinstance(row.get(answered), str):
            description, used = row[asked], {asked, answered}
            if isinstance(row.get("input"), str):  # alpaca: what the instruction is about
                description = f"{description}\n{row['input']}".strip()
                used |= set() if row["input"] else {"input"}  # kept apart, too: train.py's template alpaca asks for it
            kind = {"kind": _ANSWERS[answered]} if answered in _ANSWERS and asked == "question" else {}
            return {"description": description, "code": row[answered], "used": used, "metadata": kind}
    if isinstance(row.get("code"), str) and not isinstance(row.get("description"), str):
        return {"description": "", "code": row["code"], "used": {"code", "description"}, "metadata": {}}
    return None


def _text(row: dict[str, Any]) -> Parts | None:
    """Plain text: either the two labelled halves that text trainers use, or a chunk of a document."""
    text = row.get("text")
    if not isinstance(text, str):
        return None
    if halves := re.match(r"Instruction:\s*(.*?)\nCode:\n(.*)", text, re.DOTALL):
        return {"description": halves[1].strip(), "code": halves[2], "used": {"text"}, "metadata": {}}
    return {"description": "", "code": text, "used": {"text"}, "metadata": {"kind": "document"}}


def _unfence(text: str) -> str:
    """The program inside one code fence that wraps the whole answer; any other answer is left as it is."""
    fenced = re.fullmatch(r"\s*```(?:python|py)?[ \t]*\n(.*?)\n?```\s*", text, re.DOTALL)
    return fenced[1] + "\n" if fenced and "\n```" not in fenced[1] else text


def _names(row: dict[str, Any]) -> str:
    return ", ".join(sorted(map(str, row))[:12]) or "no keys"
