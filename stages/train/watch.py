"""Says how a training goes, and decides when to evaluate, to save and to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import schema
from stages.train import checkpoints, machine
from stages.train.losses import FILE, RowLosses
from stages.train.machine import Team
from stages.train.tree import TrainingConfig

if TYPE_CHECKING:
    from transformers import TrainerCallback


class Watch:
    """What trl calls at every step."""

    def __init__(
        self, told: TrainingConfig, run: dict[str, str], folder: Path, losses: RowLosses, team: Team, evaluates: bool
    ):
        self.told, self.run, self.folder, self.losses, self.team = told, run, folder, losses, team
        self.evaluates = evaluates
        self.say_time = _stopwatch()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # The folder may have been moved since; its name within the run is what counts.
        if state.best_global_step:
            state.best_model_checkpoint = str(self.folder / f"checkpoint-{state.best_global_step}")

    def on_step_end(self, args: Any, state: Any, control: Any, *, train_dataloader: Any, **_: Any) -> None:
        step = state.global_step
        in_epoch = math.ceil(len(train_dataloader) / args.gradient_accumulation_steps)
        self.losses.end_step(step, (step - 1) // in_epoch + 1, several=self.team.size > 1)
        self.say_time(state)
        ends = step % in_epoch == 0 or step >= state.max_steps
        # In one go, evaluation first. The library's own strategies save a step's checkpoint before they evaluate
        # at the end of the epoch: that takes random numbers, and a run resumed from there would miss them.
        is_due = step >= state.max_steps or step % self.told.eval_steps == 0 if self.told.eval_steps else ends
        control.should_evaluate = self.evaluates and is_due
        # The first step is saved, too: what can not be written is better known now than in an hour.
        control.should_save = step == 1 or (ends if self.told.save_steps is None else step % self.told.save_steps == 0)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        if "loss" in logs:
            _refuse_what_is_no_number(state.global_step, logs, self.losses)
            is_due = state.global_step == 1 or state.global_step % self.told.logging_steps == 0
            _say_loss(state, "loss", logs["loss"], level=0 if is_due else 1)
        if "eval_loss" in logs:
            _say_loss(state, "held-out loss", logs["eval_loss"])

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        machine.free_caches()
        if self.told.patience is None:
            return
        loss, step = metrics["eval_loss"], state.global_step
        if state.best_metric is None or loss < state.best_metric:
            state.best_metric, state.best_global_step = loss, step
            state.best_model_checkpoint = str(self.folder / f"checkpoint-{step}")
            control.should_save = True
            return
        since = {entry["step"] for entry in state.log_history if "eval_loss" in entry} | {step}
        worse = sum(number > state.best_global_step for number in since)
        if worse >= self.told.patience:
            best = f"{state.best_metric:.4f} at step {state.best_global_step:,}"
            schema.log(f"train: {worse} evaluations without a better one than {best}: stopped, that one is kept")
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.team.wait()  # every process has a file of its own in it
        if self.team.is_first:
            checkpoint = self.folder / f"checkpoint-{state.global_step}"
            self.losses.save(checkpoint / FILE)
            checkpoints.seal(checkpoint, self.run)
        self.team.wait()


def reporter(
    told: TrainingConfig, run: dict[str, str], folder: Path, losses: RowLosses, team: Team, *, evaluates: bool
) -> TrainerCallback:
    from transformers import TrainerCallback

    # Made here, as trl wants its own class above it, and importing that takes seconds.
    return type("Reporter", (Watch, TrainerCallback), {})(told, run, folder, losses, team, evaluates)


def _say_loss(state: Any, name: str, loss: float, level: int = 0) -> None:
    schema.log(f"train: step {state.global_step:,} of {state.max_steps:,}: {name} {loss:.4f}", level=level)


def _refuse_what_is_no_number(step: int, logs: dict[str, Any], losses: RowLosses) -> None:
    """From here on every weight would be no number either."""
    wrong = [name for name in ("loss", "grad_norm") if not math.isfinite(logs.get(name, 0.0))]
    if not wrong:
        return
    rows = [line for line in losses.lines if line["step"] == step]
    named = [line["id"][:16] for line in rows if not math.isfinite(line["loss"])] or [line["id"][:16] for line in rows]
    raise schema.Failure(
        f"step {step:,}: the {wrong[0]} is {logs[wrong[0]]}; a smaller --lr or --dtype float32 may help; "
        f"rows of this step: {', '.join(named[:8])}"
    )


def _stopwatch() -> Callable[[Any], None]:
    """Tells once, after three steps, how long the others will take; the first is always slower."""
    begins: list[float] = []

    def say(state: Any) -> None:
        begins.append(time.monotonic())
        if len(begins) == 3 and state.max_steps > state.global_step:
            each = (begins[2] - begins[0]) / 2
            left = each * (state.max_steps - state.global_step)
            schema.log(f"train: {each:.2g} s a step: about {_minutes(left)} to go")

    return say


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
