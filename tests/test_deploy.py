"""The roads to other machines: scripts for a rented GPU up to the point where one is needed, container recipes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import uuid

import pytest
from conftest import CLEAN, ROOT

SHELL = [ROOT / "deploy/runpod.sh", ROOT / "scripts/setup.sh", ROOT / "scripts/runpod_start.sh", ROOT / ".ci/run"]
CARDS = {
    "large": "echo 'NVIDIA A40, 46068, 1024'",
    "full": "echo 'NVIDIA A40, 46068, 45000'",
    "two": "echo 'NVIDIA A40, 46068, 45000'; echo 'NVIDIA A40, 46068, 10'",
    "none": "echo 'No devices were found'; exit 6",
}
needs_tmux = pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not installed")


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck_finds_nothing():
    done = subprocess.run(["shellcheck", *SHELL], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_shell_script_stops_at_the_first_error():
    assert [path.name for path in SHELL if "\nset -euo pipefail\n" not in path.read_text("utf-8")] == []


@pytest.fixture
def machine(tmp_path):
    """A checkout, a volume, an environment that is ready, and the means to choose a GPU."""
    checkout, volume, programs = tmp_path / "checkout", tmp_path / "my volume", tmp_path / "bin"
    for folder in (checkout / "deploy", checkout / "scripts", volume, programs):
        folder.mkdir(parents=True)
    for name in ("deploy/runpod.sh", "deploy/deploy.mk", "scripts/setup.sh", "scripts/runpod_start.sh"):
        shutil.copy(ROOT / name, checkout / name)
    for name in ("Makefile", "pipelines.mk", "requirements.lock"):
        shutil.copy(ROOT / name, checkout / name)
    python = tmp_path / "venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    ready = tmp_path / "venv/.ready"
    ready.touch()
    os.utime(ready, (time.time() + 3600,) * 2)
    session = f"linemill-test-{uuid.uuid4().hex[:8]}"
    tmux = tmp_path / "tmux"
    tmux.mkdir(mode=0o700)
    env = CLEAN | {
        "HOME": str(tmp_path),
        "PATH": f"{programs}:{CLEAN['PATH']}",
        "RUNPOD_VOLUME_PATH": str(volume),
        "VENV": str(tmp_path / "venv"),
        "DISK_GB": "0",
        "SESSION": session,
        "TMUX_TMPDIR": str(tmux),
        "SECRET_KEY": "it's a secret",
    }

    def run(*words, card=None, check=0, **more):
        (programs / "nvidia-smi").unlink(missing_ok=True)
        if card:
            (programs / "nvidia-smi").write_text(f"#!/bin/sh\n{CARDS[card]}\n")
            (programs / "nvidia-smi").chmod(0o755)
        done = subprocess.run(
            ["bash", *words], cwd=checkout, env=env | more, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == check, f"exit code {done.returncode}\n{done.stderr}\n{done.stdout}"
        return done

    run.checkout, run.home = checkout, volume / "linemill"
    yield run
    subprocess.run(["tmux", "kill-server"], env=env, capture_output=True)


def rules(machine, text):
    """A Makefile of the checkout with targets of our own; what they are to do is no matter of the script."""
    (machine.checkout / "Makefile").write_text(f"setup:\n\t@echo set up\n{text}")


def test_without_a_word_it_tells_what_it_can_do(machine):
    assert "deploy/runpod.sh setup" in machine("deploy/runpod.sh", check=2).stderr


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (None, "no GPU: there is no nvidia-smi here; GPU_GB=0 does without one"),
        ("none", "nvidia-smi finds no GPU: No devices were found"),
        ("full", "8 GB have to be free on a GPU (GPU_GB=8)"),
    ],
)
def test_a_gpu_that_will_not_do_stops_the_setup_before_anything_is_installed(machine, card, message):
    if card is None and shutil.which("nvidia-smi"):
        pytest.skip("this machine has a GPU")
    assert message in machine("scripts/setup.sh", card=card, check=1).stderr
    assert not machine.home.exists()


@needs_tmux
@pytest.mark.parametrize("card", ["large", "two"])
def test_setup_moves_the_checkout_to_the_volume_and_makes_the_environment(machine, card):
    rules(machine, "")
    (machine.checkout / ".env").write_text("HF_TOKEN=x\n")
    done = machine("scripts/setup.sh", card=card)
    assert "GB are free" in done.stderr
    assert "set up" in done.stdout
    assert (machine.home / "deploy/runpod.sh").is_file()
    assert (machine.home / ".env").stat().st_mode & 0o077 == 0


def test_a_volume_that_is_missing_or_full_is_named(machine):
    done = machine("deploy/runpod.sh", "setup", card="large", check=1, RUNPOD_VOLUME_PATH="/no/volume")
    assert "/no/volume: there is no volume; RUNPOD_VOLUME_PATH names it" in done.stderr
    done = machine("deploy/runpod.sh", "setup", card="large", check=1, DISK_GB="99999999")
    assert "99999999 are needed" in done.stderr


def test_training_before_the_setup_says_so(machine):
    assert "run: deploy/runpod.sh setup" in machine("scripts/runpod_start.sh", check=1).stderr


@needs_tmux
def test_all_runs_make_in_tmux_with_the_environment_and_a_log_and_ends_with_its_verdict(machine):
    rules(machine, 'all:\n\t@echo "$$SECRET_KEY, $(MODEL), $$HF_HOME, resume=$$RESUME" > result\n\t@echo hello\n')
    done = machine("deploy/runpod.sh", "all", "all", "MODEL=some model", card="large")
    assert "hello" in done.stdout
    said = (machine.home / "result").read_text().strip()
    assert said == f"it's a secret, some model, {machine.home.parent}/huggingface, resume="
    assert (machine.home / ".runpod/log").read_text().strip() == "hello"
    assert not (machine.home / ".runpod/run.sh").exists(), "it holds keys"


@needs_tmux
def test_a_run_that_fails_or_is_killed_goes_on_when_it_is_started_again(machine):
    rules(machine, "all:\n\t@echo resume=$$RESUME\n\t@test -e repaired\n")
    done = machine("deploy/runpod.sh", "all", card="large", check=1)
    assert "make ended with exit code 2" in done.stderr
    (machine.home / "repaired").touch()
    done = machine("deploy/runpod.sh", "all", card="large")
    assert "goes on from its newest checkpoint" in done.stderr
    assert "resume=1" in done.stdout
    assert "resume=1" not in machine("deploy/runpod.sh", "all", card="large").stdout, "a finished run is not resumed"


@needs_tmux
def test_a_second_run_is_refused_while_one_is_running(machine):
    rules(machine, "documents:\n\t@sleep 60\n")
    machine("scripts/setup.sh", card="large")
    assert "make documents  runs in tmux" in machine("scripts/runpod_start.sh", card="large").stderr
    assert "is running" in machine("deploy/runpod.sh", "train", card="large", check=1).stderr


# --- containers -------------------------------------------------------------------------------------------------------
DOCKERFILES = [ROOT / "deploy/Dockerfile", ROOT / "deploy/Dockerfile.cuda"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_is_built_from_the_lock_file_and_runs_as_an_ordinary_user(path):
    text = path.read_text("utf-8")
    assert "requirements.lock ./" in text
    assert re.search(r"^RUN make setup ", text, re.MULTILINE), "the environment is made by the one recipe"
    assert text.rindex("USER $UID:$GID") < text.rindex("RUN make setup")
    assert "ARG UID=1000" in text


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
@pytest.mark.skipif(not shutil.which("hadolint"), reason="hadolint is not installed")
def test_hadolint_finds_nothing(path):
    done = subprocess.run(["hadolint", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_everything_that_an_image_takes_from_the_checkout_is_there_and_no_more():
    for path in DOCKERFILES:
        for line in re.findall(r"^COPY \S+ (.*)$", path.read_text("utf-8"), re.MULTILINE):
            assert all((ROOT / name).exists() for name in line.split()[:-1]), line
    ignored = (ROOT / ".dockerignore").read_text("utf-8").split("\n")
    assert {".env", ".git", ".venv*", "runs", "data_*", ".cache"} <= set(ignored)


def test_the_container_is_run_with_the_results_outside_and_no_key_on_the_command_line(tmp_path):
    env = CLEAN | {"OPENAI_API_KEY": "sk-secret"}
    words = ["docker-run", "ARGS=papers LLM=openai", "INPUT=my papers", "GPUS=all"]
    done = subprocess.run(["make", "-n", *words], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert "--env OPENAI_API_KEY " in done.stdout
    assert "sk-secret" not in done.stdout
    assert f"--volume '{ROOT}/runs:/linemill/runs'" in done.stdout
    assert "--gpus all" in done.stdout
    assert ":/linemill/input:ro' linemill papers LLM=openai INPUT=input" in done.stdout


def test_every_pinned_package_takes_the_oldest_python_that_we_promise():
    """Debian 12, on which the images stand, has 3.11.2."""
    from importlib.metadata import PackageNotFoundError, metadata

    from packaging.specifiers import SpecifierSet

    refused, seen = [], 0
    for line in (ROOT / "requirements.lock").read_text("utf-8").split("\n"):
        name, _, pinned = line.partition("==")
        try:
            found = metadata(name) if pinned else None
        except PackageNotFoundError:
            found = None
        if found is None or found["Version"].partition("+")[0] != pinned:
            continue  # another version is installed here; it says nothing of the pinned one
        seen += 1
        if not SpecifierSet(found["Requires-Python"] or "").contains("3.11.2"):
            refused.append(f"{line}: Python {found['Requires-Python']}")
    assert refused == []
    assert seen > 50
