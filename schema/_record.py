"""One record: its shape, its bytes, and why a line is not one."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import msgspec

SCHEMA_FILE = Path(__file__).with_name("record.schema.json")

# A bound of our own: that of the decoder depends on the version of Python and on who calls it.
_DEEPEST = 256

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode


class Record(TypedDict):
    """The four keys of every line that passes between stages."""

    description: str
    code: str
    source: str
    metadata: dict[str, Any]


class Fault(NamedTuple):
    """Why one record is rejected: a counter's name, and a sentence with the facts."""

    code: str
    message: str


def encode(value: object) -> bytes:
    """The bytes of one line, without its newline."""
    return _encode(value)


def canonical(value: object) -> bytes:
    """Bytes that depend on the value alone: sorted keys, no spaces, UTF-8."""
    return _encode_sorted(value)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def problem(record: object) -> str | None:
    """Why `record` is not a valid record, or None if it is one."""
    try:
        return None if _validator()(record) else _explain(record)
    except UnicodeEncodeError:
        return "a string holds half of a surrogate pair, which UTF-8 has no bytes for"
    except (TypeError, ValueError, OverflowError) as error:  # made by an extractor: JSON has no word for it
        return f"not JSON: {error}"


def decode(line: bytes) -> Any | Fault:
    """The value of one line of JSON, or why it has none that could be written again unchanged."""
    if line.count(b"{") + line.count(b"[") > _DEEPEST and (depth := _depth(line)) > _DEEPEST:
        return Fault("nested_too_deep", f"{depth:,} brackets within each other; at most {_DEEPEST} can be read")
    try:
        value = _decode(line)
        plain = _encode(value)
        # No key stands twice in what was encoded just now, so nor in what differs from it in blanks alone.
        if plain == line or plain == msgspec.json.format(line, indent=-1):
            return value
        if twice := _repeated_key(line):
            return Fault("duplicate_key", f"the key {twice!r} stands twice in one object")
    except UnicodeDecodeError as error:
        return Fault("not_utf8", f"not UTF-8: {error.reason} at byte {error.start} of a string")
    except ValueError as error:
        return Fault("not_json", f"not JSON: {error}")
    return value


def _depth(line: bytes) -> int:
    """How many brackets are open at once; those in strings are text."""
    depth = deepest = 0
    for bracket in re.findall(rb"[\[\]{}]", re.sub(rb'"(?:[^"\\]|\\.)*"', b"", line)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


class _RepeatedKey(Exception):
    pass


def _repeated_key(line: bytes) -> str | None:
    # msgspec keeps the last of two equal keys and says nothing, which would lose the first one silently.
    def check(pairs: list[tuple[str, object]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RepeatedKey(key)
            seen.add(key)

    try:
        json.loads(line, object_pairs_hook=check)
    except _RepeatedKey as error:
        return str(error)
    return None


@cache
def _validator() -> Callable[[object], bool]:
    import jsonschema_rs  # 90 times faster than jsonschema, which is left to find the words for a fault

    validator: Callable[[object], bool] = jsonschema_rs.Draft7Validator(_decode(SCHEMA_FILE.read_bytes())).is_valid
    return validator


def _explain(record: object) -> str:
    """The fault in words: jsonschema is slow and exact, and only asked about records that are already out."""
    if not isinstance(record, dict):
        return f"a record is a JSON object, this is {_kind_of(record)}"
    if reason := _explain_description(record):
        return reason
    from jsonschema import Draft7Validator
    from jsonschema.exceptions import best_match

    error = best_match(Draft7Validator(_decode(SCHEMA_FILE.read_bytes())).iter_errors(record))
    if error is None:
        raise AssertionError(f"the two validators disagree about {record!r}")
    place = error.json_path.removeprefix("$").removeprefix(".")
    if error.validator == "pattern":
        return f"{place} is empty"
    return f"{place}: {error.message[:200]}" if place else error.message[:200]


def _explain_description(record: dict[str, Any]) -> str | None:
    description, metadata = record.get("description"), record.get("metadata")
    if description == "" and isinstance(metadata, dict) and record.get("code"):
        return "description is empty and metadata.needs_description is not true"
    return None


def _kind_of(value: object) -> str:
    names = {"NoneType": "null", "bool": "true or false", "int": "a number", "float": "a number", "str": "a string"}
    return names.get(type(value).__name__, "a list" if isinstance(value, list) else f"a {type(value).__name__}")
