"""Every setting of a training: type, range, default and meaning, declared once, for the flags and for YAML."""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta


class ModelConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What is trained."""

    name: Annotated[
        str,
        Meta(
            min_length=1,
            description="Base model: a folder, a name on the hub, a short name of `train.py models`, "
            "or tiny, which is built offline.",
        ),
    ] = "tiny"
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Meta(description="Number format; auto is the best that a GPU has, and float32 on a CPU."),
    ] = "auto"
    attention: Annotated[
        Literal["auto", "eager", "sdpa", "flash_attention_2"],
        Meta(description="Attention kernel; auto lets the model choose."),
    ] = "auto"
    template: Annotated[
        str,
        Meta(
            min_length=1,
            description="How a row is worded: auto is the model's own chat template or that of its family; "
            "else a name of `train.py templates`, or a YAML file.",
        ),
    ] = "auto"


class DataConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What it learns from."""

    path: Annotated[str, Meta(description="Record file of any known shape.")] | None = None
    eval_path: Annotated[str, Meta(description="Held-out records: their loss is taken at each evaluation.")] | None = (
        None
    )
    eval_split: (
        Annotated[float, Meta(gt=0, lt=1, description="Share of the rows to hold out, where no file of them is given.")]
        | None
    ) = None
    train_on: Annotated[
        Literal["answer", "text"],
        Meta(description="answer: rows that answer a request, only the answer is learned; text: all of a text."),
    ] = "answer"
    system: Annotated[str, Meta(description="System message of the rows that have none of their own.")] | None = None
    markdown: (
        Annotated[
            bool,
            Meta(
                description="Put answers that are programs into a fence of ```python; without it, "
                "as the family of the model does."
            ),
        ]
        | None
    ) = None
    max_length: Annotated[int, Meta(ge=8, description="Longest row in tokens, prompt and answer together.")] = 1024
    on_long: Annotated[
        Literal["fail", "reject", "trim-prompt"],
        Meta(description="What to do with a longer row; an answer is never cut."),
    ] = "fail"


class TrainingConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How it learns."""

    method: Annotated[
        Literal["lora", "qlora", "full"],
        Meta(description="lora: an adapter; qlora: an adapter on a base of 4-bit numbers (nf4); full: every weight."),
    ] = "lora"
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
    group_by_length: Annotated[
        bool, Meta(description="Rows of similar length into one batch: less padding, where rows are not packed.")
    ] = False
    checkpointing: Annotated[
        bool, Meta(description="Compute activations twice instead of keeping them: less memory, a fifth slower.")
    ] = False
    compile: Annotated[bool, Meta(description="Compile the model first (torch.compile); pays off on a GPU.")] = False
    kernels: Annotated[bool, Meta(description="Fused kernels of the hub (package kernels); on a GPU only.")] = False
    fsdp: Annotated[
        bool, Meta(description="Several processes share the weights (FSDP2) instead of holding a copy each.")
    ] = False
    seed: Annotated[int, Meta(ge=0, lt=2**32, description="Decides everything that is left to chance.")] = 42
    eval_steps: (
        Annotated[int, Meta(ge=1, description="Steps between two evaluations; without it, one at the end of an epoch.")]
        | None
    ) = None
    patience: (
        Annotated[
            int,
            Meta(ge=1, description="Stop after so many evaluations without a better one, and keep the best adapter."),
        ]
        | None
    ) = None
    logging_steps: Annotated[
        int, Meta(ge=1, description="Steps between two lines on the screen; metrics.jsonl has every step.")
    ] = 10
    save_steps: (
        Annotated[int, Meta(ge=1, description="Steps between two checkpoints; without it, one checkpoint an epoch.")]
        | None
    ) = None
    keep_checkpoints: Annotated[int, Meta(ge=1, description="Checkpoints that are kept, the newest.")] = 2
    report_to: Annotated[
        Literal["none", "tensorboard", "wandb", "trackio"],
        Meta(description="Where the curves go besides curves.html; wandb works offline without a key."),
    ] = "none"


class LoraSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The adapter."""

    r: Annotated[int, Meta(ge=1, description="Rank: how much the adapter can learn.")] = 16
    alpha: Annotated[int, Meta(ge=1, description="Strength: what the adapter says counts alpha / r times.")] = 32
    dropout: Annotated[float, Meta(ge=0, lt=1, description="Share of the adapter's inputs that is dropped.")] = 0.05
    target_modules: Annotated[
        str,
        Meta(min_length=1, description="Layers with an adapter: all-linear, or names with commas between them."),
    ] = "all-linear"


class TinySettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
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


class FineTuneConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The whole tree."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    lora: LoraSettings = LoraSettings()
    tiny: TinySettings = TinySettings()


SHORT = {"model.name": "--model", "data.path": "--data", "data.eval_path": "--eval-data"}
# What other tools call these flags, and their letters.
ALIASES = {
    "model.name": ("-m",),
    "data.path": ("--input", "-i"),
    "training.epochs": ("-e",),
    "training.batch_size": ("-b",),
}


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
        if self.key in SHORT:
            return SHORT[self.key]
        words = f"{self.section}_{self.name}" if self.section in ("lora", "tiny") else self.name
        return "--" + words.replace("_", "-")

    @property
    def parameter(self) -> str:
        return f"{self.section}__{self.name}"


def sections() -> dict[str, type[msgspec.Struct]]:
    return get_type_hints(FineTuneConfig)


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
