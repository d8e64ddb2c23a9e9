"""Where TensorBoard, wandb and trackio put the curves of a run: into its folder, without a key, one run for each."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from pathlib import Path

import schema


@contextmanager
def settled(where: str, output: Path) -> Iterator[None]:
    """They look into the environment alone; what it says already stays, and of what is said here nothing is left.

    They greet on standard output, too, which is for programs.
    """
    mine = {name: text for name, text in _settings(where, output).items() if name not in os.environ}
    if "WANDB_MODE" in mine:
        schema.log(f"train: no WANDB_API_KEY: wandb writes to {output}/wandb, `wandb sync` sends it later")
    os.environ.update(mine)
    try:
        with redirect_stdout(sys.stderr):
            yield
            _finish(where)
    finally:
        for name in mine:
            del os.environ[name]


def _settings(where: str, output: Path) -> dict[str, str]:
    if where == "tensorboard":
        return {"TENSORBOARD_LOGGING_DIR": str(output / "tensorboard")}
    if where == "wandb":
        offline = {} if os.environ.get("WANDB_API_KEY") else {"WANDB_MODE": "offline"}
        return {"WANDB_DIR": str(output), "WANDB_SILENT": "true", **offline}
    return {"TRACKIO_DIR": str(output / "trackio")} if where == "trackio" else {}


def _finish(where: str) -> None:
    """Else the next adapter of the same command would go on in the run of this one."""
    if where == "wandb":
        import_module("wandb").finish()
