"""The documentation tells the truth: every command of the README runs, every option that is named exists."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache

import pytest
from conftest import CLEAN, ROOT, record, run_script, write_rows

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS = sorted(path.name for path in ROOT.glob("*.py"))
# Settings that make the trainings of the README a matter of seconds; the commands stay as they are written.
CONFIG = "training: {max_steps: 2}\ntiny: {steps: 2}\n"
DEFAULTS = {"train.py": "train", "split_data.py": "split"}
SOURCES = "manim_package:\n  type: local\n  path: scenes.jsonl\n  licence: MIT\n"


def commands(page):
    """Each command of the page's bash blocks, lines that end in a backslash joined."""
    for block in re.findall(r"^```bash\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").split("\n"):
            if line.strip() and not line.strip().startswith("#"):
                yield line.strip()


@cache
def help_of(*words):
    return run_script(words[0], *words[1:], "--help", cwd=ROOT, check=0).out


def named_command(line):
    """The script and sub-commands of a `python ...` command, and the options that it names."""
    words = shlex.split(line, comments=True)
    words = words[: next((place for place, word in enumerate(words) if word in ("|", ">", "2>", "&&", "||")), None)]
    words = words[3:] if words[:3] == ["python", "-m", "schema"] else words[1:]
    script = "schema" if line.startswith("python -m schema") else words.pop(0)
    path = [script]
    while (
        words
        and "\nCommands:\n" in help_of(*path)
        and re.search(rf"^  {re.escape(words[0])}\b", help_of(*path), re.MULTILINE)
    ):
        path.append(words.pop(0))
    return path, [word.split("=")[0] for word in words if word.startswith("--")]


DOCUMENTED = [(page.name, line) for page in PAGES for line in commands(page) if line.startswith("python ")]


@pytest.mark.parametrize(("page", "line"), DOCUMENTED, ids=[f"{page}: {line}" for page, line in DOCUMENTED])
def test_a_documented_command_and_its_options_exist(page, line):
    if line.split()[1].startswith(("docs/", "bench/", "examples/")):
        assert (ROOT / line.split()[1]).exists()
        return
    path, options = named_command(line)
    assert path[0] in [*SCRIPTS, "schema"], f"{page}: no script {path[0]}"
    assert [option for option in options if option not in options_of(tuple(path))] == [], f"{page}: {line}"


@cache
def options_of(path):
    """Every option of a command; where its sub-command may be left out, those of the default one, too."""
    text = help_of(*path)
    if "\nCommands:\n" in text and path[0] in DEFAULTS:
        text += help_of(*path, DEFAULTS[path[0]])
    return set(re.findall(r"(?<![\w-])--[\w-]+", text))


def test_links_lead_somewhere():
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            if not target.startswith(("http://", "https://")) and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


def test_the_list_of_commands_is_up_to_date():
    done = subprocess.run([sys.executable, "docs/_generate.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_make_target_of_the_readme_exists():
    for line in commands(ROOT / "README.md"):
        if line.startswith("make "):
            done = subprocess.run(["make", "-n", *shlex.split(line)[1:]], cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr


def test_make_help_names_every_target():
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)[1].split()
    assert [name for name in targets if name not in ("summary", "FORCE") and f"make {name} " not in told] == []


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory):
    """A folder like a fresh clone, with forty scenes of our own as the only source."""
    folder = tmp_path_factory.mktemp("clone")
    for name in [*SCRIPTS, "schema", "stages", "extractors"]:
        (folder / name).symlink_to(ROOT / name)
    rows = [record(number) for number in range(40)]
    for row in rows[::2]:
        row["description"], row["metadata"]["needs_description"] = "", True
    rows.append(record(99, code="this is not Python\n"))
    write_rows(folder / "scenes.jsonl", rows)
    (folder / "sources.yaml").write_text(SOURCES)
    (folder / "config.yaml").write_text(CONFIG)
    return folder


def test_every_command_of_the_readme_runs(newcomer):
    path = f"{os.path.dirname(sys.executable)}:{CLEAN['PATH']}"  # noqa: PTH120
    env = CLEAN | {"HOME": str(newcomer), "PATH": path}
    ran = 0
    for line in commands(ROOT / "README.md"):
        if line.startswith("make ") or ("jq" in line and not shutil.which("jq")):
            continue
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line], cwd=newcomer, env=env, capture_output=True, text=True
        )
        # `head` may close the pipe before the other side has said all: 141, the shell's word for that.
        assert done.returncode in (0, 141), f"{line}\n{done.stderr}\n{done.stdout}"
        assert "Traceback" not in done.stderr, line
        ran += 1
    assert ran > 20
