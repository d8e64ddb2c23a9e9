"""train.py in several processes (torchrun, gloo): what they train together is what one trains alone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import CLEAN, ROOT, read_rows, record, run_script, write_rows

from stages.train import checkpoints, settings, tiny

TRAIN = ROOT / "train.py"
# Eight rows a step, however many processes share them.
STEPS = ("--max-steps", 4, "--save-steps", 1, "--keep-checkpoints", 9, "--lora-dropout", 0, "--accumulation", 2)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Rows, a small random base, and what one process makes of them."""
    folder = tmp_path_factory.mktemp("processes")
    given = [record(number) for number in range(24)]
    write_rows(folder / "train.jsonl", given)
    small = {"vocab_size": 400, "layers": 1, "feed_forward": 256}
    config = settings.check({"tiny": small}, "test")
    speaker = tiny.build_speaker(given, config)
    tiny.new_model(speaker, config).save_pretrained(folder / "base")
    speaker.tokenizer.save_pretrained(folder / "base")
    run_script("train.py", *command("one", 4), cwd=folder, check=0)
    return folder


def command(output, batch_size):
    return ("--data", "train.jsonl", "--model", "base", "--output", output, "--batch-size", batch_size, *STEPS)


def launched(place, *words):
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    given = [*launch, *map(str, (TRAIN, *words))]
    return subprocess.Popen(
        given, env=CLEAN | {"HOME": str(place)}, cwd=place, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def by_step(path):
    """For each step the ids of its rows with their losses."""
    steps: dict[int, dict[str, float]] = {}
    for line in read_rows(path):
        steps.setdefault(line["step"], {})[line["id"]] = line["loss"]
    return steps


def assert_same_steps(found, whole):
    for step, rows in found.items():
        assert rows == pytest.approx(whole[step], rel=1e-5), f"step {step}: the same rows, each once, the same losses"


def second_process(launcher):
    """The process of rank 1 among the children of the launcher."""
    for line in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split():
        if b"\0RANK=1\0" in b"\0" + Path(f"/proc/{line}/environ").read_bytes():
            return int(line)
    raise AssertionError("there is no process of rank 1")


def test_a_lost_process_ends_the_run_with_a_message_and_one_process_goes_on_from_its_checkpoint(place):
    launcher = launched(place, *command("two", 2), "--world-size", 2)
    seal, end = place / "two" / "checkpoints" / "checkpoint-2" / checkpoints.SEAL, time.monotonic() + 120
    while not seal.exists() and time.monotonic() < end:
        time.sleep(0.005)
    os.kill(second_process(launcher), signal.SIGKILL)
    error = launcher.communicate(timeout=100)[1]
    assert launcher.returncode == 1 and "2 processes" in error
    assert "--resume goes on from the last whole checkpoint" in error, error
    assert not (place / "two" / "adapter").exists()
    whole = by_step(place / "one" / "losses.jsonl")
    assert_same_steps(by_step(seal.parent / "losses.jsonl"), whole)

    done = run_script("train.py", *command("two", 4), "--resume", cwd=place, check=0)
    assert "going on from two/checkpoints/checkpoint-" in done.err
    found = by_step(place / "two" / "losses.jsonl")
    assert list(found) == [1, 2, 3, 4]
    assert_same_steps(found, whole)
    other = run_script("train.py", *command("two", 2), "--resume", cwd=place, check=1)
    assert "belongs to a run with other rows in a step" in other.err


def test_processes_that_share_the_weights_learn_what_one_learns(place):
    """FSDP2; the libraries drop it on CPUs without a word, so it is looked for in the checkpoint."""
    from safetensors.torch import load_file

    launcher = launched(place, *command("shared", 2), "--fsdp")
    error = launcher.communicate(timeout=200)[1]
    assert launcher.returncode == 0 and "each holds a part of the weights" in error, error
    assert (place / "shared" / "checkpoints" / "checkpoint-1" / "pytorch_model_fsdp.bin").exists()
    assert_same_steps(by_step(place / "shared" / "losses.jsonl"), by_step(place / "one" / "losses.jsonl"))
    one, other = (load_file(place / name / "adapter" / "adapter_model.safetensors") for name in ("one", "shared"))
    assert one.keys() == other.keys()
    assert max((one[name] - other[name]).abs().max() for name in one) < 5e-6
    assert len(read_rows(place / "shared" / "rejects.jsonl")) == 0, "one process writes"


def test_a_launcher_that_lost_a_process_is_noticed(place):
    """accelerate launch --cpu --num_processes 2 starts one process and says nothing."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    words = [*launch, *map(str, (TRAIN, *command("lost", 2), "--world-size", 2))]
    done = subprocess.run(words, env=CLEAN | {"HOME": str(place)}, cwd=place, capture_output=True, text=True)
    assert done.returncode != 0 and not (place / "lost").exists()
    assert "--world-size 2, but the number of processes here is 1" in done.stderr


def test_one_process_can_not_share_its_weights(place):
    done = run_script("train.py", *command("alone", 2), "--fsdp", cwd=place, check=2)
    assert "this one is alone" in done.err
    env = {"LINEMILL_WORLD_SIZE": "2"}
    assert "--world-size 2, but" in run_script("train.py", *command("alone", 2), cwd=place, check=2, env=env).err
