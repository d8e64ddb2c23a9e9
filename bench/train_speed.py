"""train.py beside a plain trl script: the same rows, base model and settings; CPU seconds of a pass, and of the start.

    python bench/train_speed.py --rows 128 --rounds 3

In    nothing: it makes scenes of several lengths, and a small base model
Out   one line for each way, on standard output; everything else in a temporary folder

Both see all rows once more in each pass, so that equal seconds are equal tokens a second, however rows are packed. The
rounds take turns: what else the machine does meets both ways.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
ACCUMULATION, LIMIT = 8, 1024
PLAIN = """
import sys
from datasets import load_dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer
base, data, passes, size = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
trainer = SFTTrainer(
    model=base,
    args=SFTConfig(
        output_dir="plain", num_train_epochs=passes, per_device_train_batch_size=size,
        gradient_accumulation_steps=8 // size, packing=size == 1, max_length=1024, report_to="none", logging_steps=1,
        bf16=False, activation_checkpointing=False, learning_rate=2e-4, save_strategy="no", disable_tqdm=True, seed=42,
    ),
    train_dataset=load_dataset("json", data_files=data, split="train"),
    peft_config=LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM"),
)
trainer.train()
trainer.save_model("plain/adapter")
"""


@click.command()
@click.option("--rows", default=128, show_default=True, help="Rows to train on.")
@click.option("--passes", default=2, show_default=True, help="Passes over them that are measured.")
@click.option("--rounds", default=3, show_default=True, help="Times that everything is measured; the median counts.")
@click.option("--batch-size", default=4, show_default=True, help="Rows in one forward pass, where they are not packed.")
def main(rows: int, passes: int, rounds: int, batch_size: int) -> None:
    """Measure CPU seconds of both, with packing and without."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_rows(folder, rows)
        tiny = ("--data", "records.jsonl", "--output", "tiny", "--max-steps", 1, "--tiny-steps", 2)
        spend(folder, ROOT / "train.py", *tiny, "--tiny-layers", 4)
        found: dict[str, list[float]] = {}
        for _ in range(rounds):
            for name, seconds in one_round(folder, passes, batch_size):
                found.setdefault(name, []).append(seconds)
    importing = found.pop("import trl")
    click.echo(f"import trl: {statistics.median(importing):.2f} CPU-s")
    for name, seconds in found.items():
        tell(name, seconds, found[name.replace("train.py", "plain trl")], importing)


def one_round(folder: Path, passes: int, batch_size: int):
    """Name and CPU seconds: the import, and for each way a pass, and everything before its first step."""
    yield "import trl", spend(folder, "-c", "from trl import SFTTrainer")
    for packing, size in (("unpacked", batch_size), ("packed", 1)):
        for name, command in ways(size).items():
            once = spend(folder, *command(1))
            each = (spend(folder, *command(1 + passes)) - once) / passes
            yield f"{packing} {name}, a pass", each
            yield f"{packing} {name}, start-up", once - each


def tell(name: str, seconds: list[float], plain: list[float], importing: list[float]) -> None:
    """The median; and that of the ratios of each round, which what else the machine does hardly moves."""
    beside = importing if name.endswith("start-up") else plain
    ratio = statistics.median(one / other for one, other in zip(seconds, beside, strict=True))
    peer = "import trl" if beside is importing else "plain trl"
    every = ", ".join(f"{one:.2f}" for one in seconds)
    click.echo(f"{name:<30} {statistics.median(seconds):6.2f} CPU-s, {ratio:.2f} x {peer}  ({every})")


def write_rows(folder: Path, count: int) -> None:
    """Scenes with more and less in them, as records and as trl wants them."""
    with open(folder / "records.jsonl", "w") as records, open(folder / "plain.jsonl", "w") as plain:
        for number in range(count):
            lines = "".join(
                f"        self.play(Create(Dot(RIGHT * {number + k})))\n" for k in range(1 + number * 7 % 23)
            )
            code = f"from manim import *\n\n\nclass Scene{number}(Scene):\n    def construct(self):\n{lines}"
            asked = f"Draw {1 + number * 7 % 23} dots, the first of them at {number}."
            record = {"description": asked, "code": code, "source": "bench", "metadata": {"kind": "code"}}
            records.write(json.dumps(record) + "\n")
            turns = {
                "prompt": [{"role": "user", "content": asked}],
                "completion": [{"role": "assistant", "content": code}],
            }
            plain.write(json.dumps(turns) + "\n")


def ways(size: int):
    ours = ("--data", "records.jsonl", "--model", "tiny/base", "--output", "ours", "--batch-size", size, "-q")
    ours += ("--accumulation", ACCUMULATION // size, "--max-length", LIMIT, *(["--packing"] if size == 1 else []))
    return {
        "plain trl": lambda passes: ("-c", PLAIN, "tiny/base", "plain.jsonl", passes, size),
        "train.py": lambda passes: (ROOT / "train.py", *ours, "--epochs", passes, "--save-steps", 10**6),
    }


def spend(folder: Path, *command) -> float:
    """CPU seconds of a Python process."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [sys.executable, *map(str, command)]
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException(done.stderr[-2000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
