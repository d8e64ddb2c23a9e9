"""The settings as flags and as YAML: read, checked, shown; the settings themselves are declared in tree.py."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
import msgspec
from msgspec import Meta

import schema
from stages.train import starts
from stages.train.tree import ALIASES, FineTuneConfig, Leaf, leaves, sections

__all__ = ["FineTuneConfig", "check", "doubts", "flags", "from_yaml", "leaves", "resolve", "to_yaml"]
Command = TypeVar("Command", bound=Callable[..., Any])
DEFAULT_FILE = "config.yaml"
# What other trainers call these settings; only used to say how they are called here.
ELSEWHERE = {
    "learning_rate": "training.lr",
    "gradient_accumulation_steps": "training.accumulation",
    "per_device_train_batch_size": "training.batch_size",
    "lr_scheduler_type": "training.scheduler",
    "gradient_checkpointing": "training.checkpointing",
    "max_seq_length": "data.max_length",
    "early_stopping_patience": "training.patience",
    "use_qlora": "training.method",
    "load_in_4bit": "training.method",
    "model_name": "model.name",
    "train_data": "data.path",
    "eval_data": "data.eval_path",
    "rank": "lora.r",
    "lora_rank": "lora.r",
}


# --- flags ------------------------------------------------------------------------------------------------------------
def flags(*wanted: str) -> Callable[[Command], Command]:
    """One option for each setting; an option that is not given is None, so that the YAML file can speak."""

    def add(command: Command) -> Command:
        for leaf in reversed(list(leaves(*wanted))):
            name = f"{leaf.flag}/--no-{leaf.flag[2:]}" if leaf.kind is bool else leaf.flag
            shown = "" if leaf.default is None else f"  [default: {_shown(leaf.default)}]"
            text = f"{leaf.meta.description}{shown}"
            names = (name, *ALIASES.get(leaf.key, ()))
            command = click.option(*names, leaf.parameter, type=_click_type(leaf), default=None, help=text)(command)
        return command

    return add


def _shown(default: Any) -> str:
    return {True: "on", False: "off"}[default] if isinstance(default, bool) else str(default)


def _click_type(leaf: Leaf) -> Any:
    if get_origin(leaf.kind) is Literal:
        return click.Choice(get_args(leaf.kind))
    if leaf.kind is int:
        return click.IntRange(**_limits(leaf.meta))
    if leaf.key in ("data.path", "data.eval_path"):
        return click.Path(exists=True)
    if leaf.kind is float:
        return click.FloatRange(**_limits(leaf.meta))
    return bool if leaf.kind is bool else str


def _limits(meta: Meta) -> dict[str, Any]:
    low, high = (meta.ge if meta.gt is None else meta.gt), (meta.le if meta.lt is None else meta.lt)
    return {"min": low, "max": high, "min_open": meta.gt is not None, "max_open": meta.lt is not None}


# --- YAML -------------------------------------------------------------------------------------------------------------
def resolve(path: str | None, given: dict[str, Any]) -> FineTuneConfig:
    """The settings: a flag wins over the environment, that over the file, the file over the default."""
    place = path or (DEFAULT_FILE if Path(DEFAULT_FILE).is_file() else None)
    tree = read_file(place) if place else {}
    if place:
        check(tree, place)
    for variable, leaf, text in starts.from_environment():
        schema.log(f"train: {leaf} = {text}, as {variable} in the environment says")
        tree = _with(tree, leaf, text)
        check(tree, f"{variable} in the environment")
    for parameter, value in given.items():
        if value is not None:
            tree = _with(tree, parameter.replace("__", "."), value)
    return check(tree, "the command line")


def _with(tree: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    section, name = key.split(".")
    return {**tree, section: {**(tree.get(section) or {}), name: value}}


def read_file(path: str) -> dict[str, Any]:
    """A YAML file of ours; or the adapter_config.json of an mlx training, in our words."""
    import yaml

    try:
        text = Path(path).read_bytes()
        tree = json.loads(text) if path.endswith(".json") else yaml.safe_load(text)
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        raise click.UsageError(f"{path}: not YAML{line}: {getattr(error, 'problem', None) or error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise click.UsageError(f"{path}: holds a {type(tree).__name__}, not sections like `training:`")
    return starts.from_mlx(tree, path) if starts.is_of_mlx(tree) else tree


def check(tree: dict[str, Any], place: str) -> FineTuneConfig:
    """The typed settings, or one line that names the key and the nearest one that exists."""
    known = sections()
    for section, values in tree.items():
        if section not in known:
            raise click.UsageError(f"{place}: no section {section!r}; {_nearest(str(section))}")
        if not isinstance(values, dict | None):
            raise click.UsageError(f"{place}: {section} holds settings, not {values!r}")
        for name in values or {}:
            if name not in known[section].__struct_fields__:
                raise click.UsageError(f"{place}: no setting {section}.{name}; {_nearest(str(name), section)}")
    filled = {section: values for section, values in tree.items() if values}
    try:
        return msgspec.convert(filled, FineTuneConfig, strict=False)  # not strict: YAML reads 2e-4 as text
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        fault = what.replace("`", "")
        raise click.UsageError(f"{place}: {where.rstrip('`')}: {fault[:1].lower()}{fault[1:]}") from None


def _nearest(name: str, section: str = "") -> str:
    """What was meant, looked for in the same section first."""
    everything = sorted(leaves(), key=lambda leaf: leaf.section == section)  # the later one wins in the table
    words = {word: leaf.key for leaf in everything for word in (leaf.key, f"{leaf.section}_{leaf.name}", leaf.name)}
    words |= ELSEWHERE | ({} if section else {name: name for name in sections()})
    parts = [part for part in name.lower().split("_") if part in words and name.lower() not in words]
    close = parts[-1:] or difflib.get_close_matches(name.lower(), words, n=1)
    if close:
        return f"did you mean {words[close[0]]}?"
    choices = [leaf.name for leaf in leaves(section)] if section else list(sections())
    return f"{section or 'the file'} takes {', '.join(choices)}"


def doubts(config: FineTuneConfig) -> Iterator[str]:
    """What is allowed, but hardly meant."""
    told, lora = config.training, config.lora
    if told.method == "full" and told.lr > 1e-4:
        yield f"training.lr {told.lr:g} is a rate for adapters; full trainings forget at it, 2e-5 is usual"
    if told.method != "full" and told.lr < 1e-5:
        yield f"training.lr {told.lr:g} is a rate for full trainings; an adapter hardly learns at it, 2e-4 is usual"
    if told.method != "full" and lora.alpha < lora.r:
        yield f"lora.alpha {lora.alpha} is below lora.r {lora.r}: the adapter counts less than it says"
    if told.packing and told.group_by_length:
        yield "training.group_by_length does nothing for packed rows"
    if told.save_steps and told.max_steps and told.save_steps > told.max_steps:
        yield f"training.save_steps {told.save_steps} is never reached in {told.max_steps} steps"


def refuse_contradictions(config: FineTuneConfig) -> None:
    """Settings that are right one by one, and can not be meant together."""
    data, told = config.data, config.training
    held_out = data.eval_path or data.eval_split
    if data.eval_path and data.eval_split:
        raise click.UsageError("data.eval_path and data.eval_split exclude each other: a file, or a share of the rows")
    if told.patience and not held_out:
        raise click.UsageError("training.patience needs held-out rows: --eval-data FILE, or --eval-split 0.1")
    if data.train_on == "text" and data.on_long == "trim-prompt":
        raise click.UsageError("data.on_long trim-prompt: plain text has no prompt to trim; use reject")


def from_yaml(path: str) -> FineTuneConfig:
    """The settings of a file alone: no environment, no flags."""
    return check(read_file(path), path)


def to_yaml(config: FineTuneConfig, head: str = "") -> str:
    """A commented file that reads back to the same settings."""
    import yaml

    first = "# Settings of train.py. A flag wins over the environment, that over this file, this file over the default."
    lines = [first, *(f"# {line}" for line in head.splitlines())]
    section = ""
    for leaf in leaves():
        if leaf.section != section:
            section = leaf.section
            lines += ["", f"# {sections()[section].__doc__}", f"{section}:"]
        choices = f" One of {', '.join(get_args(leaf.kind))}." if get_origin(leaf.kind) is Literal else ""
        value = getattr(getattr(config, section), leaf.name)
        text = yaml.safe_dump({leaf.name: value}, allow_unicode=True, width=10**6).strip()
        lines += [f"  # {leaf.meta.description}{choices}", "  " + text]
    return "\n".join(lines) + "\n"
