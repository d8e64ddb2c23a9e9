"""train.py beside a plain trl script: the same rows, base model and settings; tokens for each CPU second, start-up.

    python bench/train_speed.py --rows 128 --steps 12

In    nothing: it makes scenes of several lengths, and a small base model
Out   one line for each way, on standard output; everything else in a temporary folder
"""

from __future__ import annotations

import json
import os
import resource
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
base, data, steps, packing = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "packed"
trainer = SFTTrainer(
    model=base,
    args=SFTConfig(
        output_dir="plain", max_steps=steps, per_device_train_batch_size=int(sys.argv[5]), logging_steps=1,
        gradient_accumulation_steps=8 // int(sys.argv[5]), packing=packing, max_length=1024, report_to="none",
        bf16=False, activation_checkpointing=False, learning_rate=2e-4, save_strategy="no", disable_tqdm=True, seed=42,
    ),
    train_dataset=load_dataset("json", data_files=data, split="train"),
    peft_config=LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM"),
)
trainer.train()
trainer.save_model("plain/adapter")
print("TOKENS", trainer.state.log_history[-2]["num_tokens"])
"""


@click.command()
@click.option("--rows", default=128, show_default=True, help="Rows to train on.")
@click.option("--steps", default=12, show_default=True, help="Optimizer steps, after the first.")
@click.option("--batch-size", default=4, show_default=True, help="Rows in one forward pass, where they are not packed.")
def main(rows: int, steps: int, batch_size: int) -> None:
    """Measure CPU seconds of both, with packing and without."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_rows(folder, rows)
        tiny = ("--data", "records.jsonl", "--output", "tiny", "--max-steps", 1, "--tiny-steps", 2)
        spend(folder, ROOT / "train.py", *tiny, "--tiny-layers", 4)
        importing = spend(folder, "-c", "from trl import SFTTrainer")
        click.echo(f"import trl: {importing:.1f} CPU-s")
        for packing in ("unpacked", "packed"):
            size = 1 if packing == "packed" else batch_size
            for name, command in ways(packing, size).items():
                first = spend(folder, *command(1))
                each = (spend(folder, *command(steps + 1)) - first) / steps
                click.echo(
                    f"{packing:>9} {name:<10} {each:.2f} CPU-s a step; start-up {first / importing:.2f} x import trl"
                )


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


def ways(packing: str, size: int):
    ours = ("--data", "records.jsonl", "--model", "tiny/base", "--output", "ours", "--batch-size", size, "-q")
    ours += ("--accumulation", ACCUMULATION // size, "--max-length", LIMIT, *(["--packing"] if size == 1 else []))
    return {
        "plain trl": lambda steps: ("-c", PLAIN, "tiny/base", "plain.jsonl", steps, packing, size),
        "train.py": lambda steps: (ROOT / "train.py", *ours, "--max-steps", steps, "--save-steps", 10**6),
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
