"""Helpers that several test files use: run a script as a user would, make and read small record files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCENE = """from manim import *


class {name}(Scene):
    def construct(self):
        shape = {shape}(color={colour})
        self.play(Create(shape))
        self.play(shape.animate.shift({way}))
        self.wait()
        self.play({numbers})
"""
# Two scenes that differ in a shape and a colour are nearly the same, and one of them would be merged.
DIFFERENT = ", ".join(
    ["Text('{0} {0}').shift([{0}, -{0}, {0}])", "Dot().scale({0})", "Line([{0}, 1, {0}], [3, {0}, {0}])"] * 2
)
# No key, no home, no hub: what a test does must not depend on who runs it.
CLEAN = {
    "PATH": os.environ["PATH"],
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "COLUMNS": "120",
}


def run_script(script, *arguments, cwd, check=None, env=None, stdin=None, timeout=300):
    """Run `python SCRIPT ...`, or `python -m schema ...` for "schema"; `check` is the exit code that is expected."""
    command = [
        sys.executable,
        *(["-m", "schema"] if script == "schema" else [str(ROOT / script)]),
        *map(str, arguments),
    ]
    # The source manim_package reads an installed Manim; what a test does must not depend on whether there is one.
    hidden = {"PYTHONPATH": str(ROOT / "tests" / "without_manim")} if script == "prepare_data.py" else {}
    home = {"HOME": str(cwd), "PYTHONPATH": str(ROOT)} if script == "schema" else {"HOME": str(cwd), **hidden}
    done = subprocess.run(
        command, cwd=cwd, env=CLEAN | home | (env or {}), input=stdin, capture_output=True, timeout=timeout
    )
    done.err, done.out = done.stderr.decode(), done.stdout.decode()
    if check is not None:
        assert done.returncode == check, f"exit code {done.returncode}, not {check}\n{done.err}\n{done.out}"
        assert "Traceback" not in done.err, done.err
    return done


def record(number=0, **changes):
    """A valid record of a scene; `number` makes scenes that differ."""
    shape = ("Circle", "Square", "Triangle", "Star", "Dot")[number % 5]
    colour = ("RED", "BLUE", "GREEN", "YELLOW")[number // 5 % 4]
    way = ("LEFT", "RIGHT", "UP", "DOWN")[number // 20 % 4]
    code = SCENE.format(name=f"Scene{number}", shape=shape, colour=colour, way=way, numbers=DIFFERENT.format(number))
    description = (
        f"Create a Manim animation that draws a {colour.lower()} {shape.lower()} and moves it {way.lower()} ({number})."
    )
    return {"description": description, "code": code, "source": "test", "metadata": {"kind": "code"}, **changes}


def write_rows(path, rows):
    """One line for each row; bytes are written as they are."""
    lines = [row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def read_rows(path):
    return [json.loads(line) for line in Path(path).read_bytes().split(b"\n") if line]


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch):
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def running():
    from fake_llm import FakeLLM

    with FakeLLM() as server:
        yield server


@pytest.fixture
def server(running):
    """A server that speaks like a provider of language models, as if nobody had asked it yet."""
    running.reset()
    return running
