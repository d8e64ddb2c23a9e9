"""Public benchmarks as they were published: which rows are asked in which words, and which numbers are quoted.

ManimBench   417 rows with a column Split; the 100 of "test" are asked in their reviewed words. Quoted are the share
             that renders, syntax errors, CodeBLEU with its parts, the distance of the trees.
ManiBench    12 problems without a reference. Quoted are the share that runs on Manim CE, and the version conflicts:
             answers that call what only ManimGL has; each problem says how many it allows.

Both took one greedy answer to each prompt (ManiBench three, at temperature 0: the same answer three times here).
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

import schema
from stages.evaluate_model import codebleu, measures, rates

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
Row = dict[str, Any]


class Preset(NamedTuple):
    """What a benchmark asks for."""

    file: str  # as it is called in a repository of the hub
    max_new_tokens: int


PRESETS = {
    "manimbench": Preset("manim_sft_dataset_test.parquet", 4096),
    "manibench": Preset("ManiBench_Pilot_Dataset.json", 8192),
}


# --- what is asked ----------------------------------------------------------------------------------------------------
def find(name: str, place: str | None) -> Path:
    """The benchmark's file: a local one, or the one of its name in a repository of the hub."""
    if place is None:
        raise click.UsageError(f"--preset {name} needs --data: the file of the benchmark, or OWNER/NAME on the hub")
    if Path(place).is_file():
        return Path(place)
    if not _HUB_NAME.fullmatch(place):
        raise click.UsageError(f"--data {place}: no such file, and no OWNER/NAME of a data set on the hub")
    from importlib.util import find_spec

    if find_spec("huggingface_hub") is None:
        raise click.UsageError("--data OWNER/NAME needs the package huggingface_hub: pip install 'linemill[sources]'")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    disable_progress_bars()
    wanted = PRESETS[name].file
    try:
        found = Path(snapshot_download(place, repo_type="dataset", allow_patterns=[f"**{wanted}"]))
    except (OSError, HfHubHTTPError) as error:
        reason = str(error).strip().split("\n")[0]
        raise schema.Failure(f"--data {place}: no such file, and the hub can not give it: {reason}") from None
    files = sorted(found.rglob(wanted))
    if not files:
        raise schema.Failure(f"--data {place}: there is no {wanted} in it; download the file and name it")
    return files[0]


def rows(name: str, path: Path) -> Iterator[schema.Record]:
    return _manimbench(path) if name == "manimbench" else _manibench(path)


def _manimbench(path: Path) -> Iterator[schema.Record]:
    table = _table(path)
    if not table or not {"Reviewed Description", "Code"} <= table[0].keys():
        raise schema.Failure(f"{path}: not ManimBench: it has no columns Reviewed Description and Code")
    if "Split" not in table[0] and "test" not in path.stem:
        raise schema.Failure(f"{path}: it has no column Split, so nobody knows which rows are held out")
    for number, row in enumerate(table):
        if row.get("Split", "test") != "test":
            continue
        told = [row["Reviewed Description"], row.get("Generated Description")]
        words = next((str(text).strip() for text in told if text and str(text).strip() not in ("", "nan")), "")
        origin = {"benchmark": "manimbench", "row": number, "level": row.get("Type")}
        yield _record("manimbench", words, row["Code"], origin, {})


def _manibench(path: Path) -> Iterator[schema.Record]:
    try:
        problems = json.loads(path.read_bytes())["problems"]
        for problem in problems:
            allowed = problem["success_criteria"]["version_conflict_error_rate_max"]
            origin = {"benchmark": "manibench", "problem": problem["id"], "conflicts_allowed": allowed}
            words = problem["full_prompt"]
            yield _record("manibench", words, words, origin, {"evaluation": {"reference": False}})
    except (ValueError, KeyError, TypeError) as error:
        raise schema.Failure(f"{path}: not ManiBench: {type(error).__name__}: {error}") from None


def _record(source: str, words: str, code: str, origin: Row, more: Row) -> schema.Record:
    metadata = {"kind": "code", "origin": origin, **more}
    return schema.adopt({"description": words, "code": code, "source": source, "metadata": metadata})


def _table(path: Path) -> list[Row]:
    """Rows of CSV, Parquet or JSON."""
    try:
        if path.suffix == ".parquet":
            return _parquet(path)
        text = path.read_text("utf-8-sig")
        return list(csv.DictReader(io.StringIO(text))) if path.suffix == ".csv" else list(json.loads(text))
    except (ValueError, csv.Error) as error:
        raise schema.Failure(f"{path}: it can not be read: {error}") from None


def _parquet(path: Path) -> list[Row]:
    from importlib.util import find_spec

    if find_spec("pyarrow") is None:
        raise click.UsageError(f"{path} needs the package pyarrow: pip install 'linemill[sources]'")
    from pyarrow import parquet

    return list(parquet.read_table(path).to_pylist())


# --- what is quoted ---------------------------------------------------------------------------------------------------
def summary(records: list[schema.Record]) -> dict[str, Any] | None:
    """The numbers of the benchmark that all rows come from, under the names under which they are published."""
    names = {_origin(row).get("benchmark") for row in records}
    if len(names) != 1 or (name := names.pop()) not in PRESETS:
        return None
    judged = measures.judged(records)
    found = _quoted_manimbench(judged) if name == "manimbench" else _quoted_manibench(judged)
    return {"name": name, "prompts": len(measures.by_prompt(judged)), **found}


def _origin(row: schema.Record) -> Row:
    origin = row["metadata"].get("origin")
    return origin if isinstance(origin, dict) else {}


def _rate(rows: list[schema.Record], ask: measures.Ask) -> dict[str, Any]:
    return rates.rate_of(measures.verdicts(rows, measures.Check(ask)))


def _breaks_off(row: schema.Record) -> bool | None:
    sound = measures.parses(row)
    return None if sound is None else not sound


def _quoted_manimbench(rows: list[schema.Record]) -> dict[str, Any]:
    found: dict[str, Any] = {"render": _rate(rows, measures.renders), "syntax_error": _rate(rows, _breaks_off)}
    known = [(row, row["metadata"]["reference"]) for row in rows if isinstance(row["metadata"].get("reference"), str)]
    pairs = [("" if measures.is_empty_answer(row) else row["code"], reference) for row, reference in known]
    trees = [(measures.parse(code) if code else None, measures.parse(reference)) for code, reference in pairs]
    scored = [codebleu.parts(code, wanted, both) for (code, wanted), both in zip(pairs, trees, strict=True)]
    found["codebleu"] = rates.mean_of([parts.score for parts in scored])
    for place, name in enumerate(codebleu.Parts._fields):
        found[name] = rates.mean_of([parts[place] for parts in scored])
    distances = [codebleu.tree_distance(*both) for both in trees]
    return {**found, "ast_distance": rates.mean_of([distance for distance in distances if distance is not None])}


def _runs_on_ce(row: schema.Record) -> bool | None:
    ran = measures.renders(row)
    return None if ran is None else ran and not measures.is_manimgl(row)


def _quoted_manibench(rows: list[schema.Record]) -> dict[str, Any]:
    problems = measures.parted(rows, lambda row: str(_origin(row).get("problem")))
    return {
        "executability": _rate(rows, _runs_on_ce),
        "version_conflicts": _rate(rows, measures.is_manimgl),
        "problems": {name: _problem(answers) for name, answers in problems.items()},
    }


def _problem(answers: list[schema.Record]) -> dict[str, Any]:
    share, allowed = _rate(answers, measures.is_manimgl)["rate"], _origin(answers[0])["conflicts_allowed"]
    return {"version_conflicts": share, "allowed": allowed, "kept": None if share is None else share <= allowed}


def lines(found: dict[str, Any]) -> Iterator[str]:
    yield f"{found['name']}, as it is quoted:"
    for name, value in found.items():
        if not isinstance(value, dict) or not value.get("n"):
            continue
        if "rate" in value:
            yield f"  {name}: {value['passed']:,} of {value['n']:,} = {value['rate']:.1%}"
        else:
            yield f"  {name}: {value['mean']:.4f} over {value['n']:,} answers"
    broken = [name for name, facts in found.get("problems", {}).items() if facts["kept"] is False]
    if broken:
        yield f"  more version conflicts than allowed: {', '.join(broken)}"
