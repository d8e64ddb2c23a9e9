"""Every setting of a training: type, range, default and meaning, declared once, for the flags and for YAML."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import click
import msgspec
from msgspec import Meta

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
    "model_name": "model.name",
    "rank": "lora.r",
    "lora_rank": "lora.r",
}


class Model(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What is trained."""

    name: Annotated[
        str,
        Meta(min_length=1, description="Base model: a folder, a name on the hub, or tiny, which is built offline."),
    ] = "tiny"
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Meta(description="Number format; auto is the best that a GPU has, and float32 on a CPU."),
    ] = "auto"


class Data(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What it learns from."""

    max_length: Annotated[int, Meta(ge=8, description="Longest row in tokens, prompt and answer together.")] = 1024
    on_long: Annotated[
        Literal["fail", "reject", "trim-prompt"],
        Meta(description="What to do with a longer row; an answer is never cut."),
    ] = "fail"


class Training(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How it learns."""

    epochs: Annotated[float, Meta(gt=0, le=100_000, description="Times that every row is seen.")] = 3.0
    max_steps: Annotated[int, Meta(ge=1, description="Stop after this many optimizer steps instead.")] | None = None
    lr: Annotated[float, Meta(gt=0, le=1, description="Highest learning rate.")] = 2e-4
    batch_size: Annotated[int, Meta(ge=1, description="Rows in one forward pass.")] = 1
    accumulation: Annotated[int, Meta(ge=1, description="Forward passes in one optimizer step.")] = 8
    scheduler: Annotated[
        Literal["cosine", "linear", "constant_with_warmup"],
        Meta(description="How the learning rate falls after the warm-up."),
    ] = "cosine"
    warmup: Annotated[float, Meta(ge=0, lt=1, description="Share of the steps in which the rate rises.")] = 0.03
    weight_decay: Annotated[float, Meta(ge=0, le=1, description="AdamW's pull of the weights towards zero.")] = 0.01
    max_grad_norm: Annotated[float, Meta(gt=0, description="Longer gradients are shortened to this length.")] = 1.0
    packing: Annotated[bool, Meta(description="Put several rows into one sequence; no row sees another.")] = False
    checkpointing: Annotated[
        bool, Meta(description="Compute activations twice instead of keeping them: less memory, a fifth slower.")
    ] = False
    seed: Annotated[int, Meta(ge=0, lt=2**32, description="Decides everything that is left to chance.")] = 42
    logging_steps: Annotated[
        int, Meta(ge=1, description="Steps between two lines on the screen; metrics.jsonl has every step.")
    ] = 10
    save_steps: (
        Annotated[int, Meta(ge=1, description="Steps between two checkpoints; without it, one checkpoint an epoch.")]
        | None
    ) = None
    keep_checkpoints: Annotated[int, Meta(ge=1, description="Checkpoints that are kept, the newest.")] = 2


class Lora(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The adapter."""

    r: Annotated[int, Meta(ge=1, description="Rank: how much the adapter can learn.")] = 16
    alpha: Annotated[int, Meta(ge=1, description="Strength: what the adapter says counts alpha / r times.")] = 32
    dropout: Annotated[float, Meta(ge=0, lt=1, description="Share of the adapter's inputs that is dropped.")] = 0.05
    target_modules: Annotated[
        str,
        Meta(min_length=1, description="Layers with an adapter: all-linear, or names with commas between them."),
    ] = "all-linear"


class Tiny(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The base that the model name tiny stands for: a real Llama, trained in full on the same rows."""

    steps: Annotated[int, Meta(ge=1, description="Optimizer steps of its full training.")] = 300
    batch_size: Annotated[int, Meta(ge=1, description="Rows in one of these steps.")] = 8
    lr: Annotated[
        float,
        Meta(gt=0, le=1, description="Highest learning rate of these steps; the matrices (Muon) get five times it."),
    ] = 4e-3
    max_length: Annotated[
        int, Meta(ge=8, description="Longest row in tokens that it is trained on; the adapter sees all rows.")
    ] = 320
    vocab_size: Annotated[int, Meta(ge=300, le=65536, description="Tokens of its byte-level BPE tokenizer.")] = 2048
    hidden_size: Annotated[
        int, Meta(ge=256, multiple_of=256, description="Width; a multiple of 256, as quantised exports need it.")
    ] = 256
    feed_forward: Annotated[
        int, Meta(ge=256, multiple_of=256, description="Width of the feed-forward part; a multiple of 256.")
    ] = 1024
    layers: Annotated[int, Meta(ge=1, le=64, description="Depth.")] = 2


class Config(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The whole tree."""

    model: Model = Model()
    data: Data = Data()
    training: Training = Training()
    lora: Lora = Lora()
    tiny: Tiny = Tiny()


class Leaf(NamedTuple):
    """One setting, as flags and YAML need it."""

    section: str
    name: str
    kind: Any  # the bare type: int, float, bool, str, or a Literal
    meta: Meta
    default: Any

    @property
    def key(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def flag(self) -> str:
        """`--lr`, but `--lora-r` and `--tiny-lr`; `model.name` is `--model`."""
        if self.key == "model.name":
            return "--model"
        words = f"{self.section}_{self.name}" if self.section in ("lora", "tiny") else self.name
        return "--" + words.replace("_", "-")

    @property
    def parameter(self) -> str:
        return f"{self.section}__{self.name}"


def sections() -> dict[str, type[msgspec.Struct]]:
    return get_type_hints(Config)


def leaves(*wanted: str) -> Iterator[Leaf]:
    """Every setting, or those of the sections that are named, in the order of their declaration."""
    for section, struct in sections().items():
        if wanted and section not in wanted:
            continue
        hints = get_type_hints(struct, include_extras=True)
        for field in msgspec.structs.fields(struct):
            hint = hints[field.name]
            # `Annotated[int, ...] | None`: None only ever means "not set"
            kind, meta = get_args(get_args(hint)[0] if get_origin(hint) in (Union, UnionType) else hint)
            yield Leaf(section, field.name, kind, meta, field.default)


# --- flags ------------------------------------------------------------------------------------------------------------
def flags(*wanted: str) -> Callable[[Command], Command]:
    """One option for each setting; an option that is not given is None, so that the YAML file can speak."""

    def add(command: Command) -> Command:
        for leaf in reversed(list(leaves(*wanted))):
            name = f"{leaf.flag}/--no-{leaf.flag[2:]}" if leaf.kind is bool else leaf.flag
            shown = "" if leaf.default is None else f"  [default: {_shown(leaf.default)}]"
            text = f"{leaf.meta.description}{shown}"
            command = click.option(name, leaf.parameter, type=_click_type(leaf), default=None, help=text)(command)
        return command

    return add


def _shown(default: Any) -> str:
    return {True: "on", False: "off"}[default] if isinstance(default, bool) else str(default)


def _click_type(leaf: Leaf) -> Any:
    if get_origin(leaf.kind) is Literal:
        return click.Choice(get_args(leaf.kind))
    if leaf.kind is int:
        return click.IntRange(**_limits(leaf.meta))
    if leaf.kind is float:
        return click.FloatRange(**_limits(leaf.meta))
    return bool if leaf.kind is bool else str


def _limits(meta: Meta) -> dict[str, Any]:
    low, high = (meta.ge if meta.gt is None else meta.gt), (meta.le if meta.lt is None else meta.lt)
    return {"min": low, "max": high, "min_open": meta.gt is not None, "max_open": meta.lt is not None}


# --- YAML -------------------------------------------------------------------------------------------------------------
def resolve(path: str | None, given: dict[str, Any]) -> Config:
    """The settings: a flag wins over the file, the file over the default."""
    place = path or (DEFAULT_FILE if Path(DEFAULT_FILE).is_file() else None)
    tree = read_yaml(place) if place else {}
    if place:
        check(tree, place)
    for parameter, value in given.items():
        if value is not None:
            section, name = parameter.split("__")
            tree[section] = {**(tree.get(section) or {}), name: value}
    return check(tree, "the command line")


def read_yaml(path: str) -> dict[str, Any]:
    import yaml

    try:
        tree = yaml.safe_load(Path(path).read_bytes())
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
    return tree


def check(tree: dict[str, Any], place: str) -> Config:
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
        return msgspec.convert(filled, Config, strict=False)  # not strict: YAML reads 2e-4 as text
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


def to_yaml(config: Config) -> str:
    """A commented file that reads back to the same settings."""
    import yaml

    lines = ["# Settings of train.py. A flag on the command line wins over this file, this file over the default."]
    section = ""
    for leaf in leaves():
        if leaf.section != section:
            section = leaf.section
            lines += ["", f"# {sections()[section].__doc__}", f"{section}:"]
        choices = f" One of {', '.join(get_args(leaf.kind))}." if get_origin(leaf.kind) is Literal else ""
        value = getattr(getattr(config, section), leaf.name)
        lines += [f"  # {leaf.meta.description}{choices}", "  " + yaml.safe_dump({leaf.name: value}).strip()]
    return "\n".join(lines) + "\n"
