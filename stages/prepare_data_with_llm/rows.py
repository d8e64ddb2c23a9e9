"""What becomes of one row: whether it is described, and how it looks afterwards."""

from typing import Any

from schema import Fault, Record


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
