"""Where every row of a run ended: in a final file, among the rejects of a stage, or merged into another row."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import msgspec

import schema
from stages.report.ledgers import DUPLICATES, Step, final_files, shown

KEPT, REJECTED, MERGED = "kept", "rejected", "merged"


class End(NamedTuple):
    """A file that rows end in."""

    path: Path
    fate: str  # kept, rejected or merged
    label: str  # for people: "data_split/train.jsonl", "rejected by filter_quality"
    step: int  # the position of the stage that wrote it


def as_dict(value: object) -> dict[str, Any]:
    """Metadata may hold anything under any name; what is not of the shape of ours counts as not there."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


@dataclass
class Row:
    """What the report tells of one row."""

    end: End
    record: schema.Record

    @property
    def metadata(self) -> dict[str, Any]:
        return self.record["metadata"]

    @property
    def id(self) -> str:
        return str(self.metadata.get("id", ""))

    @property
    def reason(self) -> str:
        return str(as_dict(self.metadata.get("error")).get("code", ""))

    @property
    def score(self) -> float | None:
        score = as_dict(self.metadata.get("quality")).get("score")
        return float(score) if isinstance(score, int | float) and 0 <= score <= 1 else None


def ends(steps: Sequence[Step]) -> list[End]:
    """The files that rows end in, in the order of the stages: kept ones first."""
    final = final_files(steps)
    found = []
    for position, step in enumerate(steps):
        name = step.ledger.stage
        found += [End(path, KEPT, shown(path), position) for path in step.outputs if path in final]
        if step.rejects:
            found.append(End(step.rejects, REJECTED, f"rejected by {name}", position))
        duplicates = [path for path in step.written if path.name == DUPLICATES]
        found += [End(path, MERGED, "merged as duplicate", position) for path in duplicates]
    order = (KEPT, MERGED, REJECTED)
    return [end for end in sorted(found, key=lambda end: order.index(end.fate)) if end.path.is_file()]


def rows(found: Sequence[End]) -> Iterator[Row]:
    for end in found:
        for record in records(end.path):
            yield Row(end, record)


def records(path: Path) -> Iterator[schema.Record]:
    """The rows of a file that a stage wrote; unlike schema.read, a rejected row comes with its error."""
    decode = msgspec.json.Decoder().decode
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield _record(decode(line), path)
            except msgspec.DecodeError as error:
                raise schema.Failure(f"{path}: line {number} is not JSON: {error}; run the stage again") from None


def _record(value: Any, path: Path) -> schema.Record:
    if isinstance(value, dict) and isinstance(value.get("metadata"), dict) and value.keys() >= {"code", "source"}:
        return cast(schema.Record, value)
    found = schema.to_record(value, path.stem)  # a file that was split into the shape of a trainer
    if isinstance(found, schema.Fault):
        raise schema.Failure(f"{path}: holds a row that is no record: {found.message}")
    return schema.adopt(found)


def opened(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if path.suffix == ".zst":
        import zstandard

        reader = zstandard.ZstdDecompressor().stream_reader(path.open("rb"), read_across_frames=True, closefd=True)
        return cast(IO[bytes], io.BufferedReader(cast(io.RawIOBase, reader)))
    return open(path, "rb")
