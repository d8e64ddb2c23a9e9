"""All settings of a training: one tree of types, ranges, defaults and help, from which YAML and flags both come."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import click
import msgspec
from msgspec import Meta


def says(text: str, **limits: Any) -> Any:
    """The help of a setting, and the numbers that it may be."""
    return Meta(description=text, **limits)


class Model(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    model: Annotated[str, says("Base model: tiny (built on the spot), a folder, or a name on the hub.")] = "tiny"
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        says("Number format of the frozen weights; auto is bfloat16 on a GPU that has it, else float32."),
    ] = "auto"


class Lora(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    r: Annotated[int, says("Rank: how much an adapter matrix can hold.", ge=1)] = 16
    alpha: Annotated[int, says("Strength: the adapter counts alpha/r times.", ge=1)] = 32
    dropout: Annotated[float, says("Share of the adapter's inputs that is dropped.", ge=0, lt=1)] = 0.05
    targets: Annotated[str, says("all-linear, or names of layers with commas between them.", min_length=1)] = (
        "all-linear"
    )


class Data(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    max_length: Annotated[int, says("Most tokens of one row, prompt and answer together.", ge=16)] = 1024
    on_long: Annotated[
        Literal["fail", "reject", "trim-prompt"],
        says("What happens to a longer row. An answer is never cut."),
    ] = "fail"


class Training(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    epochs: Annotated[float, says("Passes over the data.", gt=0)] = 3.0
    max_steps: Annotated[
        Annotated[int, Meta(ge=1)] | None, says("Stop after this many steps, whatever the epochs say.")
    ] = None
    batch_size: Annotated[int, says("Rows that are computed together.", ge=1)] = 1
    accumulation: Annotated[int, says("Batches that make one step.", ge=1)] = 8
    learning_rate: Annotated[float, says("Size of a step at its highest.", gt=0)] = 2e-4
    schedule: Annotated[
        Literal["cosine", "linear", "constant_with_warmup"], says("How the learning rate falls after the warm-up.")
    ] = "cosine"
    warmup: Annotated[float, says("Share of the steps in which the learning rate rises.", ge=0, lt=1)] = 0.03
    weight_decay: Annotated[float, says("Pull of the weights towards zero.", ge=0)] = 0.01
    max_grad_norm: Annotated[float, says("Longer gradients are shortened to this.", gt=0)] = 1.0
    seed: Annotated[int, says("Decides the first weights and the order of the rows.", ge=0)] = 42
    packing: Annotated[bool, says("Put several rows into one sequence; nothing of one is seen by another.")] = False
    checkpointing: Annotated[bool, says("Compute activations twice instead of keeping them: slower, less memory.")] = (
        False
    )
    log_every: Annotated[int, says("Steps between two lines of metrics.jsonl.", ge=1)] = 10
    save_every: Annotated[int, says("Steps between two checkpoints, from which --resume goes on.", ge=1)] = 100


class Tiny(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    vocabulary: Annotated[int, says("Tokens of the tokenizer that is trained for it.", ge=300)] = 2048
    hidden: Annotated[int, says("Width; a multiple of 256 can be exported in every GGUF format.", ge=16)] = 256
    layers: Annotated[int, says("Depth.", ge=1)] = 2
    heads: Annotated[int, says("Attention heads; they share the width evenly.", ge=1)] = 4
    feed_forward: Annotated[int, says("Width inside a layer.", ge=16)] = 1024
    steps: Annotated[int, says("Steps of its full training, before the adapter's.", ge=0)] = 400
    batch: Annotated[int, says("Rows of one of these steps.", ge=1)] = 8
    rate: Annotated[float, says("Learning rate of its full training.", gt=0)] = 2e-3


class Config(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Everything that a training can be told, but where its files are."""

    model: Model = msgspec.field(default_factory=Model)
    lora: Lora = msgspec.field(default_factory=Lora)
    data: Data = msgspec.field(default_factory=Data)
    training: Training = msgspec.field(default_factory=Training)
    tiny: Tiny = msgspec.field(default_factory=Tiny)


class Leaf(NamedTuple):
    """One setting: where it stands in the tree, its type, its help and its default."""

    section: str
    name: str
    type: Any
    help: str
    default: Any

    @property
    def flag(self) -> str:
        """The option's name; only the sections that are about one thing of many put theirs in front."""
        prefix = f"{self.section}-" if self.section in ("lora", "tiny") else ""
        return f"--{prefix}{self.name}".replace("_", "-")


_SHORT = {"learning_rate": "--lr"}


def leaves() -> Iterator[Leaf]:
    """Every setting, in the order of the tree."""
    for section in msgspec.structs.fields(Config):
        for field in msgspec.structs.fields(section.type):
            of, meta = field.type.__origin__, field.type.__metadata__[0]
            yield Leaf(section.name, field.name, of, meta.description, field.default)


def flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """One option for each setting; the command gets what was given as `given`, {(section, name): value}."""
    import functools

    names = {f"{leaf.section}__{leaf.name}": (leaf.section, leaf.name) for leaf in leaves()}

    @functools.wraps(command)
    def with_flags(**told: Any) -> Any:
        values = {key: told.pop(name) for name, key in names.items()}
        return command(given={key: value for key, value in values.items() if value is not None}, **told)

    for leaf in reversed(list(leaves())):
        _option(leaf)(with_flags)
    return with_flags


def _option(leaf: Leaf) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    # No default for click: only what was really given may win over the YAML file.
    default = "" if leaf.default is None else f"  [default: {leaf.default}]"
    said: dict[str, Any] = {"default": None, "show_default": False, "help": leaf.help + default}
    name = f"{leaf.section}__{leaf.name}"
    if leaf.type is bool:
        return click.option(f"{leaf.flag}/--no-{leaf.flag[2:]}", name, **said)
    if hasattr(leaf.type, "__args__") and leaf.type.__args__ and isinstance(leaf.type.__args__[0], str):
        return click.option(leaf.flag, name, type=click.Choice(list(leaf.type.__args__)), **said)
    kind = leaf.type if leaf.type in (int, float, str) else int  # what is left: a number that may be absent
    return click.option(leaf.flag, *filter(None, [_SHORT.get(leaf.name)]), name, type=kind, **said)


def resolve(path: Path | None, given: dict[tuple[str, str], Any]) -> Config:
    """Flags over the YAML file over the defaults."""
    tree = read_yaml(path) if path else {}
    for (section, name), value in given.items():
        tree.setdefault(section, {})[name] = value
    places = {f"$.{section}.{name}": leaf_flag(section, name) for section, name in given}
    try:
        # Not strict: YAML 1.1 takes 2e-4 for a string.
        return msgspec.convert(tree, Config, strict=False)
    except msgspec.ValidationError as error:
        raise click.UsageError(_explain(str(error), path, places)) from error


def leaf_flag(section: str, name: str) -> str:
    return next(leaf.flag for leaf in leaves() if (leaf.section, leaf.name) == (section, name))


def read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        tree = yaml.safe_load(path.read_bytes()) or {}
    except yaml.YAMLError as error:
        raise click.UsageError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror}") from error
    if not isinstance(tree, dict):
        raise click.UsageError(f"{path}: it must hold sections such as 'training:', with settings below them")
    # A section whose settings are all commented out is empty, not null.
    return {key: {} if value is None else value for key, value in tree.items()}


def _explain(message: str, path: Path | None, places: dict[str, str]) -> str:
    """msgspec's sentence, with the setting's name in front and the nearest name behind."""
    what, _, where = message.rpartition(" - at `")
    what, where = what or message, where.rstrip("`")
    key = where.removeprefix("$").removeprefix(".")
    place = places.get(where) or ": ".join(filter(None, [str(path or ""), key]))
    if "unknown field" in what:
        name = what.split("`")[1]
        known = [field.name for field in msgspec.structs.fields(_section(key))]
        near = difflib.get_close_matches(name, known, n=1)
        there = [f"{leaf.section}.{leaf.name}" for leaf in leaves() if leaf.name == name]
        hint = there[0] if there else near[0] if near else f"one of {', '.join(known)}"
        return f"{place}: there is no setting {name!r}; did you mean {hint}?"
    return f"{place}: {what}"


def _section(key: str) -> Any:
    return next((field.type for field in msgspec.structs.fields(Config) if field.name == key), Config)


def to_yaml(config: Config, *, comments: bool = True) -> str:
    """The settings as YAML, each with its help above it; reading it gives the same settings again."""
    import yaml

    lines = ["# What train.py reads: every setting with its default. Flags win over this file.", ""] if comments else []
    section = ""
    for leaf in leaves():
        if leaf.section != section:
            section = leaf.section
            lines += [f"{section}:"]
        value = getattr(getattr(config, leaf.section), leaf.name)
        text = yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()
        lines += [f"  # {leaf.help}"] if comments else []
        lines += [f"  {leaf.name}: {text}"]
    return "\n".join(lines) + "\n"
