"""What goes into a training: files, held-out rows, token ids, and a reason for every row that stays outside."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec

import schema
from stages.train import lengths, models, rows, tiny
from stages.train.tree import DataConfig, FineTuneConfig

NAMED = 8  # ids on the screen for each reason; the rejects file has them all
PROBED = 50  # rows that are encoded again with the tokenizer as it is saved


class Source(NamedTuple):
    """One adapter to be: where its rows are, and where it goes."""

    data: str
    eval_data: str | None
    output: Path


class Intake:
    """Takes what is not trained on, and counts it by reason."""

    def __init__(self, put: schema.Reject):
        self.put = put
        self.reasons: Counter[str] = Counter()
        self.ids: dict[str, list[str]] = {}
        self.example = ""

    def __call__(self, item: Any, message: str, code: str = "invalid", line: int | None = None) -> None:
        self.reasons[code] += 1
        self.example = self.example or message
        self.ids.setdefault(code, []).append(_name(item, line))
        self.put(item, message, code=code, line=line)

    def say(self) -> None:
        for code, count in self.reasons.most_common():
            more = ", ..." if count > NAMED else ""
            schema.log(f"  {count:,} {code}: {', '.join(self.ids[code][:NAMED])}{more}")


def _name(item: Any, line: int | None) -> str:
    """The id of a record, or of what should have been one; else its line."""
    if not isinstance(item, dict):
        try:
            item = msgspec.json.decode(item.text["raw"])
        except (AttributeError, KeyError, TypeError, msgspec.DecodeError):
            item = None
    metadata = item.get("metadata") if isinstance(item, dict) else None
    if isinstance(metadata, dict) and "id" in metadata:
        return str(metadata["id"])[:16]
    return f"line {line}" if line else "a row without an id"


class Taken(NamedTuple):
    """The records of one source."""

    train: list[schema.Record]
    held_out: list[schema.Record]


class Prepared(NamedTuple):
    """What both sides of the data came to."""

    train: list[rows.Row]
    held_out: list[rows.Row]
    speaker: rows.Speaker


def sources(config: FineTuneConfig, adapters: str | None, output: Path) -> list[Source]:
    """One source; or one for each name of --adapters, each with a file or a folder of its name."""
    data = config.data
    if data.path is None:
        raise click.UsageError("there is nothing to train on: --data FILE, or data.path in the configuration")
    if adapters is None:
        if Path(data.path).is_dir():
            raise click.UsageError(f"--data {data.path} is a folder; --adapters a,b,c names the files in it")
        return [Source(data.path, data.eval_path, output)]
    names = [name.strip() for name in adapters.split(",")]
    if wrong := [
        name for name in names if not name or "/" in name or name in (".", "..", "base") or names.count(name) > 1
    ]:
        raise click.UsageError(f"--adapters {adapters}: {wrong[0]!r} is no name, or stands there twice")
    return [_source_of(name, data, output) for name in names]


def _source_of(name: str, data: DataConfig, output: Path) -> Source:
    folder = Path(str(data.path))
    if folder.is_file():
        raise click.UsageError(f"--adapters needs a folder as --data, with {name}.jsonl or {name}/train.jsonl in it")
    choices = [folder / f"{name}.jsonl", folder / f"{name}.json", folder / name / "train.jsonl"]
    found = next((path for path in choices if path.is_file()), None)
    if found is None:
        raise click.UsageError(f"--adapters {name}: there is none of {', '.join(map(str, choices))}")
    beside = found.with_name("valid.jsonl" if found.stem == "train" else f"{name}.valid.jsonl")
    held_out = str(beside) if beside.is_file() else None
    return Source(str(found), None if data.eval_split else held_out, output / name)


def take(source: Source, config: FineTuneConfig, intake: Intake) -> Taken:
    """Read the records of both sides; a row that is held out is never trained on."""
    whole_text = config.data.train_on == "text"
    records = list(rows.usable(source.data, intake, whole_text=whole_text))
    if not records:
        raise schema.Failure(no_rows(source.data, intake))
    if config.data.eval_split:
        return _divided(records, config, intake)
    trained = {record["metadata"]["id"] for record in records}
    held_out = []
    for record in rows.usable(source.eval_data, intake, whole_text=whole_text) if source.eval_data else ():
        if record["metadata"]["id"] in trained:
            intake(record, "it is held out, and stands among the trained rows, too", code="trained_on")
        else:
            held_out.append(record)
    return Taken(records, held_out)


def _divided(records: list[schema.Record], config: FineTuneConfig, intake: Intake) -> Taken:
    """By a hash of what belongs together, so that the same program, or a near copy, is never on both sides."""
    marks = schema.marks(records)
    share, seed = config.data.eval_split or 0, config.training.seed
    sides = Taken([], [])
    places = schema.sides(marks, lambda number: int(schema.share(marks.key(number), seed) < share))
    for record, place in zip(records, places, strict=True):
        if isinstance(place, int):
            sides[place].append(record)
        else:
            intake(record, "says the same as a trained row and as one that is held out", code="bridges_sides")
    if not (sides.train and sides.held_out):
        raise schema.Failure(f"--eval-split {config.data.eval_split}: one side of {len(records):,} rows is empty")
    schema.log(f"train: {len(sides.held_out):,} of {len(records):,} rows are held out")
    return sides


def find_speaker(taken: Sequence[Taken], config: FineTuneConfig) -> rows.Speaker:
    if config.model.name == "tiny":
        return tiny.build_speaker([record for part in taken for record in part.train], config)
    return models.load_speaker(models.find_model(config.model.name), config)


def encode(source: Source, taken: Taken, speaker: rows.Speaker, config: FineTuneConfig, intake: Intake) -> Prepared:
    """Tokenize and check every row, before anything expensive happens."""
    train = _fitting(_encoded(taken.train, speaker, intake), speaker, config.data, intake, source.data)
    if not train:
        raise schema.Failure(no_rows(source.data, intake))
    held_out = _encoded(taken.held_out, speaker, intake)
    return Prepared(train, _fitting(held_out, speaker, config.data, intake, source.eval_data or source.data), speaker)


def no_rows(data: str, intake: Intake) -> str:
    reasons = ", ".join(f"{count:,} {code}" for code, count in intake.reasons.most_common(3))
    why = f"{reasons}; the first: {intake.example}" if reasons else "it is empty"
    return f"{data}: no row can be trained on ({why})"


def _encoded(records: Sequence[schema.Record], speaker: rows.Speaker, reject: schema.Reject) -> list[rows.Row]:
    found = []
    for record in records:
        row = rows.encode(speaker, record)
        if isinstance(row, schema.Fault):
            reject(record, row.message, code=row.code)
        else:
            found.append(row)
    return found


def _fitting(
    found: list[rows.Row], speaker: rows.Speaker, told: DataConfig, reject: schema.Reject, name: str
) -> list[rows.Row]:
    """The rows that are short enough, after what --on-long says was done with the others."""
    limit = told.max_length
    long = [row for row in found if len(row.ids) > limit]
    if not long:
        return found
    if told.on_long == "fail":
        schema.log(lengths.table(found))
        schema.log(f"  too long: {', '.join(_name(row.record, None) for row in long[:NAMED])}")
        raise schema.Failure(f"{name}: {lengths.long_rows_cost(speaker, found, limit)}")
    fits = []
    for row in found:
        shorter: rows.Row | schema.Fault = row
        if len(row.ids) > limit:
            fault = schema.Fault("too_long", f"{len(row.ids):,} tokens, at most {limit:,} are trained on")
            shorter = rows.trim(speaker, row, limit) if told.on_long == "trim-prompt" else fault
        if isinstance(shorter, schema.Fault):
            reject(row.record, shorter.message, code=shorter.code)
        else:
            fits.append(shorter)
    return fits


def refuse_drift(prepared: Prepared) -> None:
    """The tokenizer that is saved has to word the rows as this one did, or the model is asked in words it never saw."""
    from transformers import AutoTokenizer

    speaker = prepared.speaker
    with tempfile.TemporaryDirectory() as folder:
        speaker.tokenizer.save_pretrained(folder)
        saved = speaker._replace(tokenizer=AutoTokenizer.from_pretrained(folder, local_files_only=True))
    for row in prepared.train[:PROBED]:
        again = rows.encode(saved, row.record)
        # A prompt that was trimmed differs from that of its record; its answer does not.
        if isinstance(again, schema.Fault) or again.ids[again.prompt :] != row.ids[row.prompt :]:
            name = row.record["metadata"]["id"]
            raise schema.Failure(f"template drift: the tokenizer, saved and loaded again, words row {name} otherwise")
