"""What becomes of one row: whether it is asked about, and how it looks afterwards."""

from collections.abc import Callable, Sequence
from typing import Any

import schema
from schema import Fault, Record

Maker = Callable[[Record], list[Record] | Fault]


def make_each(run: schema.Run, make: Maker, parts: Sequence[str] = ()) -> None:
    """Make rows of all rows of a run, or of one shard of it."""
    for record in run.records():
        made = make(record)
        if isinstance(made, Fault):
            run.reject(record, made)
        else:
            run.make(record, made, parts=parts)


def is_wanted(record: Record, everything: bool) -> bool:
    """Whether a row is to be described; a row without the flag has a description that is worth keeping."""
    return everything or record["metadata"].get("needs_description") is True


def wrong_kind(record: Record) -> Fault | None:
    kind = record["metadata"].get("kind", "code")
    return None if kind == "code" else Fault("not_a_program", f"only programs are described, this row is a {kind!r}")


def described(record: Record, description: str, author: str, features: dict[str, Any] | None) -> Record:
    """The record with its new description; the one it had is kept, and of several the first."""
    metadata = record["metadata"] | {"needs_description": False, "description_generated_by": author}
    if record["description"].strip() and record["description"] != description:
        metadata.setdefault("original_description", record["description"])
    if features is not None:
        metadata["code_features"] = features
    return {**record, "description": description, "metadata": metadata}


def describe_offline(record: Record, everything: bool) -> Record | Fault:
    """A row as it leaves the offline describer."""
    from stages.prepare_data_with_llm import offline
    from stages.prepare_data_with_llm.features import code_features

    if not is_wanted(record, everything):
        return record
    if fault := wrong_kind(record):
        return fault
    try:
        description = offline.describe(record["code"], record["metadata"])
    except SyntaxError as error:
        return Fault("not_python", f"the program can not be parsed: line {error.lineno}: {error.msg}")
    except (ValueError, RecursionError, MemoryError) as error:
        return Fault("not_python", f"the program can not be parsed: {error or type(error).__name__}")
    return described(record, description, offline.NAME, code_features(record["code"]))


def unfit_text(record: Record, everything: bool, most: int) -> Fault | None:
    """Why nothing can be made of a text: it is none, or it is longer than what is shown of it."""
    kind = record["metadata"].get("kind", "code")
    if kind != "document" and not everything:
        return Fault("not_a_document", f"only documents are read, this row is of kind {kind!r}; --all takes every kind")
    if len(record["code"]) > most:
        message = f"{len(record['code']):,} characters, and the prompt shows at most {most:,}; cut the text into parts"
        return Fault("long_text", message)
    return None


def made_of(record: Record, *, description: str, code: str, kind: str, author: str, **about: Any) -> Record:
    """A row that was made of a text: it knows its text, keeps its place, and stays with what was made beside it."""
    dropped = ("id", "needs_description", "original_description", "description_generated_by")
    metadata = {key: value for key, value in record["metadata"].items() if key not in dropped}
    parent = record["metadata"]["id"]
    own = {
        "id": schema.sha256(schema.canonical([parent, kind, description, code])),
        "kind": kind,
        "parent": parent,
        "group": group_of(record),
        "generated_by": author,
    }
    return {"description": description, "code": code, "source": record["source"], "metadata": metadata | own | about}


def group_of(record: Record) -> str:
    """What must stay on one side of a split: the section that a text is from, or the text where there is none."""
    metadata = record["metadata"]
    if isinstance(metadata.get("group"), str):
        return str(metadata["group"])
    paper, origin = (value if isinstance(value := metadata.get(key), dict) else {} for key in ("paper", "origin"))
    places = (paper.get("id"), paper.get("title"), origin.get("path"), origin.get("url"))
    document = next((place for place in places if isinstance(place, str) and place), None)
    section = metadata.get("section")
    if document and isinstance(section, str) and section:
        return f"{record['source']}: {document}: {section}"
    return f"{record['source']}: {metadata['id']}"


def about_text(record: Record) -> str:
    """Where a text is from, in words for a prompt."""
    metadata = record["metadata"]
    paper = metadata.get("paper")
    title = paper.get("title") if isinstance(paper, dict) else metadata.get("title")
    told = [("Title of the whole", title), ("Title of this part", metadata.get("section"))]
    lines = [f"{words}: {text.strip()}" for words, text in told if isinstance(text, str) and text.strip()]
    return "\n".join(lines) or "Nothing is known about where it is from."
