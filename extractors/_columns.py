"""Rows of other people's tables as descriptions and programs: which columns are meant, and what does not belong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import click

from extractors._rows import BadRow
from extractors._tables import CODE_NAMES, DESCRIPTION_NAMES, KNOWN_SHAPES, OWN_NAMES, Row

Fields = tuple[list[str], str]

_RECORD = {"description", "code", "source", "metadata"}


class Meaning(NamedTuple):
    """What sources.yaml says about the columns of one data set."""

    description: list[str]
    code: str | None
    wrappers: list[re.Pattern[str]]
    nothing: frozenset[str]
    code_only: bool
    kind: str | None


def meaning(
    description_field: str | list[str] | None,
    code_field: str | None,
    strip_prefix: str | list[str] | None,
    skip_values: list[str] | None,
    code_only: bool,
    kind: str | None,
) -> Meaning:
    """The options that say it, checked together."""
    if code_field is None and (description_field or strip_prefix or code_only):
        raise click.UsageError(
            "description_field, strip_prefix and code_only need code_field; name both, or none of them"
        )
    nothing = frozenset(value.strip().lower() for value in skip_values or ["nan"]) | {""}
    wrappers = [_wrapper(text) for text in _listed(strip_prefix)]
    return Meaning(_listed(description_field), code_field, wrappers, nothing, code_only, kind)


def _listed(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _wrapper(text: str) -> re.Pattern[str]:
    """The words at the start that wrap a request; "..." in them stands for any words, within reason."""
    parts = [r"\s+".join(re.escape(word) for word in part.split()) for part in re.split(r"\.\.\.|…", text)]
    return re.compile(r"\s*" + r"[\s\S]{0,500}?".join(parts))


def rows_of(rows: Iterator[Row], said: Meaning, place: str, origin: dict[str, Any], split: str | None) -> Iterator[Any]:
    """One odd row is a reject; a file of which no row is understood is a mistake in sources.yaml."""
    understood, unclear = False, ""
    for row in rows:
        if isinstance(row, BadRow):
            yield row._replace(origin=origin | row.origin)
            continue
        here, columns = origin | row[0], row[1]
        fields = _choose_fields(columns, said)
        if isinstance(fields, str):
            unclear = unclear or fields
            yield BadRow("unknown_columns", fields, here, _raw(columns))
            continue
        understood = True
        metadata = {"origin": here, **_kind(said)}
        if split and "split" not in columns:
            metadata["split"] = split
        if columns.keys() == _RECORD and isinstance(columns["metadata"], dict):
            # Ours, from an earlier run: what it says of itself stands.
            yield {**columns, "metadata": {**metadata, **columns["metadata"], **_kind(said)}}
        else:
            yield _row(columns, fields, said, metadata) if fields else _known_shape(columns, metadata)
    if unclear and not understood:
        raise click.UsageError(f"{place}: {unclear}")


def _kind(said: Meaning) -> dict[str, Any]:
    return {"kind": said.kind} if said.kind else {}


def _raw(columns: dict[str, Any]) -> str:
    return json.dumps(columns, ensure_ascii=False)


def _choose_fields(columns: dict[str, Any], said: Meaning) -> Fields | str | None:
    """The columns of description and code, or why they are unclear; None for a shape that speaks for itself."""
    seen = "the columns " + ", ".join(columns)
    if said.code:
        descriptions = [name for name in said.description if name in columns]
        missing = [said.code] if said.code not in columns else said.description[:1] if not descriptions else []
        return f"no column {missing[0]!r}; it has {seen}" if missing else (descriptions, said.code)
    if any(shape <= columns.keys() for shape in KNOWN_SHAPES):
        return None
    descriptions, codes = _matching(columns, DESCRIPTION_NAMES), _matching(columns, CODE_NAMES)
    if not codes and not descriptions and "text" in columns:
        return None
    if len(descriptions) != 1 or len(codes) != 1 or descriptions == codes:
        return (
            "can not tell which column is the description and which the code;"
            f" set description_field and code_field. It has {seen}"
        )
    return descriptions, codes[0]


def _matching(columns: dict[str, Any], parts: tuple[str, ...]) -> list[str]:
    return [name for name in columns if any(part in name.lower() for part in parts)]


def _known_shape(columns: dict[str, Any], metadata: dict[str, Any]) -> dict[str, Any]:
    kept = _renamed(columns)
    own = kept.get("metadata")
    upstream = own if isinstance(own, dict) else {} if own is None else {"upstream_metadata": own}
    return {**kept, "metadata": {**upstream, **metadata}}


def _row(columns: dict[str, Any], fields: Fields, said: Meaning, metadata: dict[str, Any]) -> dict[str, Any] | BadRow:
    descriptions, code_field = fields
    if _is_nothing(columns[code_field], said):
        return BadRow("no_code", f"nothing stands in column {code_field!r}", metadata["origin"], _raw(columns))
    kept = dict(columns)
    code = _without_break(kept.pop(code_field))
    if said.code_only:
        # Descriptions that belong to other programs would only mislead whoever describes these.
        kept = {name: value for name, value in kept.items() if name not in descriptions}
        chosen = None
    else:
        chosen = next((name for name in descriptions if not _is_nothing(columns[name], said)), None)
    text = _unwrapped(kept.pop(chosen), said) if chosen else ""
    metadata = {**_kept_columns(kept, said), **metadata}
    if not str(text).strip():
        return {"description": "", "code": code, "metadata": {**metadata, "needs_description": True}}
    return {"description": text, "code": code, "metadata": metadata}


def _kept_columns(columns: dict[str, Any], said: Meaning) -> dict[str, Any]:
    """All other columns; the error of a row only where there is one, so that it marks the row."""
    return _renamed({name: value for name, value in columns.items() if name != "error" or not _is_nothing(value, said)})


def _renamed(columns: dict[str, Any]) -> dict[str, Any]:
    return {f"upstream_{name}" if name in OWN_NAMES else name: value for name, value in columns.items()}


def _is_nothing(value: Any, said: Meaning) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() in said.nothing)


def _unwrapped(text: Any, said: Meaning) -> Any:
    if not isinstance(text, str):
        return text
    text = _without_break(text)
    for wrapper in said.wrappers:
        if found := wrapper.match(text):
            text = _without_break(text[found.end() :].lstrip())
    return text


def _without_break(text: Any) -> Any:
    r"""Without a literal \n at the very start: no program and no sentence begins with one, many a scraped row does."""
    while isinstance(text, str) and (rest := text.lstrip()).startswith("\\n"):
        text = rest.removeprefix("\\n").lstrip("\r\n")
    return text
