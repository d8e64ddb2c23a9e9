"""Which files of a data set are meant: by its own list, by patterns, or by what their names say."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import click

from extractors._tables import FORMATS, format_of

# About the data, not the data.
_NO_DATA = {"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json"}
_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


class DataFile(NamedTuple):
    """One file of a data set, and the split that it belongs to, if that can be told."""

    path: str
    split: str | None


def choose_files(
    paths: list[str],
    configs: list[dict[str, Any]],
    dataset: str,
    subset: str | None,
    split: str | None,
    patterns: str | list[str] | None,
) -> list[DataFile]:
    """The files of the subset and the splits that are asked for; a name that fits nothing is a mistake."""
    tables = sorted(path for path in paths if format_of(path) and Path(path).name not in _NO_DATA)
    files = _candidates(tables, configs, dataset, subset, [patterns] if isinstance(patterns, str) else patterns)
    if not files:
        raise click.ClickException(f"{dataset}: no file of the formats {', '.join(FORMATS)}; it has {_some(paths)}")
    if split is None:
        return files
    # As the hub has it: where no name tells a split, all is train.
    known = {file.split or "train" for file in files}
    if missing := [name for name in split.split("+") if name not in known]:
        raise click.UsageError(f"{dataset}: no split {missing[0]!r}; it has {', '.join(sorted(known))}")
    return [file for file in files if (file.split or "train") in split.split("+")]


def local_files(path: str, dataset: str, *wanted: Any) -> list[tuple[DataFile, Path]]:
    """The same for a copy on this machine; the one file that is named needs no pattern."""
    place = Path(path).expanduser()
    if not place.exists():
        raise click.ClickException(f"{path}: no such file or folder")
    if place.is_file():
        if not format_of(place):
            raise click.UsageError(f"{path}: the name does not tell the format; it must end in {', '.join(FORMATS)}")
        return [(DataFile(place.name, None), place)]
    found = [str(file.relative_to(place)) for file in place.rglob("*") if file.is_file()]
    return [(file, place / file.path) for file in choose_files(found, [], dataset, *wanted)]


def _candidates(
    tables: list[str],
    configs: list[dict[str, Any]],
    dataset: str,
    subset: str | None,
    patterns: list[str] | None,
) -> list[DataFile]:
    if patterns is not None:
        for pattern in patterns:
            if not _fitting(tables, pattern):
                raise click.UsageError(f"{dataset}: data_files: nothing fits {pattern!r}; it has {_some(tables)}")
        return [DataFile(path, _split_of(path)) for path in tables if any(_fits(path, each) for each in patterns)]
    listed = [config for config in configs if config.get("data_files")]
    if listed:
        return _of_config(tables, _choose_config(listed, dataset, subset))
    if subset is not None:
        folders = sorted({path.split("/")[0] for path in tables if "/" in path})
        tables = [path for path in tables if path.startswith(f"{subset}/")]
        if not tables:
            raise click.UsageError(f"{dataset}: no subset {subset!r}; it has {_some(folders)}")
    return [DataFile(path, _split_of(path)) for path in tables]


def _choose_config(configs: list[dict[str, Any]], dataset: str, subset: str | None) -> dict[str, Any]:
    names = {str(config.get("config_name", "default")): config for config in configs}
    if subset is None and len(configs) > 1:
        subset = next((name for name, config in names.items() if name == "default" or config.get("default")), None)
        if subset is None:
            raise click.UsageError(f"{dataset}: it has the subsets {', '.join(names)}; name one with 'subset:'")
    if subset is not None and subset not in names:
        raise click.UsageError(f"{dataset}: no subset {subset!r}; it has {', '.join(names)}")
    return names[subset] if subset is not None else configs[0]


def _of_config(tables: list[str], config: dict[str, Any]) -> list[DataFile]:
    """The files of one subset, as the card of the data set lists them."""
    listed = config["data_files"]
    base = f"{config['data_dir'].strip('/')}/" if config.get("data_dir") else ""
    found: dict[str, DataFile] = {}
    for entry in listed if isinstance(listed, list) else [listed]:
        own = entry if isinstance(entry, dict) else {"path": entry}
        for pattern in [own["path"]] if isinstance(own["path"], str) else own["path"]:
            for path in _fitting(tables, base + pattern):
                found.setdefault(path, DataFile(path, own.get("split") or _split_of(path)))
    return list(found.values())


def _fitting(tables: list[str], pattern: str) -> list[str]:
    return [path for path in tables if _fits(path, pattern)]


def _fits(path: str, pattern: str) -> bool:
    return fnmatchcase(path, pattern) or fnmatchcase(path, pattern.replace("**/", "")) or Path(path).name == pattern


def _split_of(path: str) -> str | None:
    """The split that a name tells, such as data/train-00000-of-00001.parquet; the end of the path counts most."""
    for word in reversed(re.split(r"[^a-z0-9]+", path.lower())):
        for split, names in _SPLITS.items():
            if word in names:
                return split
    return None


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:8]) or "none"
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown
