"""The machine that trains: the processes that take part, room on the disk, memory."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import schema
from stages.train.rows import Row
from stages.train.tree import FineTuneConfig

if TYPE_CHECKING:
    from collections.abc import Sequence


ATTEMPTS, PAUSE = 3, 2.0  # seconds between two looks at a device that does not answer


WAY = "torchrun --nproc_per_node N train.py ... starts N processes on one machine"


class Team:
    """The processes of one training (torchrun, accelerate launch); mostly it is this one alone."""

    def __init__(self) -> None:
        self.rank, self.size = _number("RANK", 0), _number("WORLD_SIZE", 1)
        self.is_first = self.rank == 0

    def check(self, promised: int | None) -> None:
        """Launchers that lose their processes say nothing; each of those left would train on everything alone."""
        if promised and promised != self.size:
            raise click.UsageError(f"--world-size {promised}, but the number of processes here is {self.size}; {WAY}")
        if not 0 <= self.rank < self.size:
            raise click.UsageError(f"RANK={self.rank} does not fit WORLD_SIZE={self.size} in the environment; {WAY}")
        if self.size > 1 and not os.environ.get("MASTER_ADDR"):
            raise click.UsageError(f"WORLD_SIZE={self.size} in the environment, but no MASTER_ADDR; {WAY}")

    def join(self, *, fsdp: bool) -> None:
        """Meet the others, and count them."""
        if fsdp and self.size == 1:
            raise click.UsageError(f"--fsdp shares the weights between processes, but this one is alone; {WAY}")
        if self.size == 1:
            return
        from accelerate import PartialState

        state = PartialState(cpu=self.is_on_cpus())
        self.count(state.num_processes)
        what = "each holds a part of the weights" if fsdp else "the gradients are averaged over them"
        schema.log(f"train: {self.size} processes, {what} ({state.backend})")

    def allow_fsdp_on_cpus(self) -> None:
        """accelerate drops FSDP on CPUs without a word; it does it well, where it takes them for something else."""
        from accelerate import DistributedType, PartialState

        if self.is_on_cpus():
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_XPU

    def is_on_cpus(self) -> bool:
        """Several processes on CPUs; unless they are told so, the libraries start each of them alone."""
        import torch

        return self.size > 1 and not torch.accelerator.is_available()

    def count(self, found: int) -> None:
        if found != self.size:
            raise schema.Failure(f"WORLD_SIZE={self.size} in the environment, but the training has {found} processes")

    def wait(self) -> None:
        if self.size > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """What the first process makes, the others find."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()


def _number(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        raise click.UsageError(f"{name}={text} in the environment is no number of processes")
    return int(text)


def tell_of_termination() -> None:
    """A launcher ends the processes that are left with SIGTERM; so do schedulers when the time is over."""

    def stop(*_: Any) -> None:
        raise schema.Failure("stopped from outside (SIGTERM), --resume goes on from the last whole checkpoint")

    signal.signal(signal.SIGTERM, stop)


def check_device(device: Any) -> None:
    """A product of two matrices, there and in plain numbers: a device that is ill is better known before the model."""
    import torch

    left, right = torch.arange(64.0).reshape(8, 8), torch.eye(8).flip(0)
    for attempt in range(ATTEMPTS):
        try:
            found = (left.to(device) @ right.to(device)).cpu()
            break
        except RuntimeError as error:  # often another process is just leaving it
            if attempt == ATTEMPTS - 1:
                raise schema.Failure(f"{device} does not answer: {str(error).splitlines()[0][:160]}") from None
            time.sleep(PAUSE)
    if not torch.equal(found, left.flip(1)):
        raise schema.Failure(f"{device} computes wrong numbers; start the machine again, or take another")


def free_caches() -> None:
    """An evaluation leaves blocks of other sizes than a training step needs; where memory is short that is missed."""
    import torch

    if torch.accelerator.is_available():
        torch.accelerator.memory.empty_cache()


def check_disk(folder: Path, trained: int, keep: int) -> None:
    """Room for the checkpoints, and leave to write: better said now than after the first epoch."""
    folder.mkdir(parents=True, exist_ok=True)
    needed = trained * 12 * (keep + 2)  # weights and two moments of AdamW, 4 bytes each; one more while it is written
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise schema.Failure(
            f"{folder}: {_size(free)} are free, the checkpoints need {_size(needed)}; "
            "make room, or keep fewer with --keep-checkpoints"
        )
    probe = folder / "write-test"
    with schema.atomic(probe) as file:
        file.write(b"x" * 2**20)
    probe.unlink()


def say_memory(model: Any, rows: Sequence[Row], config: FineTuneConfig) -> None:
    """A rough count: weights, gradients with the moments of AdamW, and what the backward pass needs."""
    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    told, shape = config.training, model.config
    longest = config.data.max_length if told.packing else max(len(row.ids) for row in rows)
    tokens = longest * told.batch_size
    # About 34 numbers for each token, layer and unit of width (attention and feed-forward); with checkpointing, one.
    kept = (1 if told.checkpointing else 34) * tokens * shape.hidden_size * shape.num_hidden_layers * 2
    need = weights + 12 * trained + kept
    free = free_memory(model.device)
    schema.log(
        f"train: about {_size(need)} of memory: {_size(weights)} weights, {_size(12 * trained)} optimizer, "
        f"{_size(kept)} for {tokens:,} tokens at once; {_size(free)} are free"
    )
    if need > free:
        schema.log(
            "train: that may not fit; --checkpointing, --method qlora, or a smaller --batch-size or --max-length"
        )


def free_memory(device: Any) -> int:
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"


# What gloo and NCCL say when the one they talk to is gone.
PEERS = ("Connection closed by peer", "Connection reset by peer", "NCCL", "gloo", "Broken pipe", "Timed out waiting")


@contextmanager
def told_in_one_line(folder: Path) -> Iterator[None]:
    """The two ways in which a machine ends a training, said by libraries in pages of text."""
    from safetensors import SafetensorError
    from torch import OutOfMemoryError

    try:
        yield
    except OutOfMemoryError:
        raise schema.Failure(_memory()) from None
    except (RuntimeError, SafetensorError) as error:
        text = str(error)
        if "allocate memory" in text or "out of memory" in text:
            raise schema.Failure(_memory()) from None
        if any(word in text for word in PEERS) and int(os.environ.get("WORLD_SIZE") or 1) > 1:
            message = "another process of this training has ended; --resume goes on from the last whole checkpoint"
            raise schema.Failure(message) from None
        if not any(word in text for word in ("PytorchStreamWriter", "inline_container", "os error", "File too large")):
            raise
        reason = "no space is left" if shutil.disk_usage(folder).free < 2**20 else text.split("\n")[0][:120]
        message = f"{folder}: a checkpoint can not be written ({reason}); --resume goes on from the last whole one"
        raise schema.Failure(message) from None


def _memory() -> str:
    return "out of memory; --checkpointing, --method qlora, or a smaller --batch-size or --max-length need less"
