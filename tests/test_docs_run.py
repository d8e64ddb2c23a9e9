"""Every command that the documentation shows is run, page by page, by somebody who has followed the README first."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import CLEAN, ROOT, read_rows, record, write_rows
from test_docs import SCRIPTS, commands

# Settings that make the trainings a matter of seconds; the commands stay as they are written.
CONFIG = "training: {max_steps: 2}\ntiny: {steps: 2}\n"
QUICKER = {
    "--max-steps 40": "--max-steps 2",
    "--max-new-tokens 200": "--max-new-tokens 8",
    "--eval-split 0.1": "--eval-split 0.3",
}
SOURCES = """
manim_package: {type: local, path: scenes.jsonl, licence: MIT}
my_scenes: {type: local, path: mine.jsonl, licence: MIT}
arxiv_papers: {type: documents, path: texts, enabled: false, reason: papers and no programs}
"""
SHOWN_ID = "08f7f28c"  # of a record of the Manim package
# What a page can not have here, and why; `make` targets are looked at in test_docs.py.
ELSEWHERE = {
    r"^make ": "runs the same scripts",
    r"--base-url http": "a server that the reader has started",
    r"^mlx_lm|^jupyter": "a program of others",
    r"--render ": "Manim, which need not be installed",
    r"--batch\b|--record\b|--replay\b|^python prepare_data_with_llm.py collect": "the account of a provider",
    r"--preset manimbench|/manimbench|--judge verdicts": "a file of others, or the verdicts of a model",
    r"\bdocs/_generate.py|\bbench/": "a tool for those who work on the project itself",
}
# What would cost money is asked without asking.
PAID = re.compile(r"--llm (openai|claude|gemini)\b")
KEYS = {"OPENAI_API_KEY": "none", "ANTHROPIC_API_KEY": "none", "GEMINI_API_KEY": "none"}
# Pages about machines that are not here: clusters, buckets, hosts and the programs on them.
ABOUT_MACHINES = ("after-training.md", "scale.md", "training-on-several-gpus.md")
PAGES = [path.name for path in sorted((ROOT / "docs").glob("*.md")) if any(True for _ in commands(path))]
PAGES = [page for page in PAGES if page not in ABOUT_MACHINES]


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory):
    """A folder like a fresh clone, with forty scenes of our own as the only source."""
    folder = tmp_path_factory.mktemp("clone")
    for name in [*SCRIPTS, "schema", "stages", "extractors", "examples"]:
        (folder / name).symlink_to(ROOT / name)
    rows = [record(number) for number in range(40)]
    for row in rows[::2]:
        row["description"], row["metadata"]["needs_description"] = "", True
    rows.append(record(99, code="this is not Python\n"))
    write_rows(folder / "scenes.jsonl", rows)
    (folder / "sources.yaml").write_text(SOURCES)
    (folder / "config.yaml").write_text(CONFIG)
    return folder


def run(folder, line):
    path = f"{os.path.dirname(sys.executable)}:{CLEAN['PATH']}"  # noqa: PTH120
    env = CLEAN | {"HOME": str(folder), "PATH": path} | (KEYS if PAID.search(line) else {})
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], cwd=folder, env=env, capture_output=True, text=True)
    # `head` may close the pipe before the other side has said all: 141, the shell's word for that.
    assert done.returncode in (0, 141), f"{line}\n{done.stderr}\n{done.stdout}"
    assert "Traceback" not in done.stderr, line


def run_page(folder, page):
    ran = 0
    for line in commands(page):
        if any(re.search(pattern, line) for pattern in ELSEWHERE) or ("jq" in line and not shutil.which("jq")):
            continue
        for slow, quick in QUICKER.items():
            line = line.replace(slow, quick)
        if SHOWN_ID in line:
            line = line.replace(SHOWN_ID, read_rows(folder / "data_filtered/train.json")[0]["metadata"]["id"][:8])
        run(folder, line + (" --dry-run" if PAID.search(line) else ""))
        ran += 1
    return ran


@pytest.fixture(scope="module")
def follower(newcomer):
    """The folder of somebody who has run every command of the README, and has files of their own."""
    assert run_page(newcomer, ROOT / "README.md") > 20
    shutil.copytree(ROOT / "examples/texts", newcomer / "texts")
    (newcomer / "texts/note.txt").write_text(
        "A note that is long enough for a chunk, and too short to be asked about. " * 2
    )
    write_rows(newcomer / "mine.jsonl", [record(number) for number in range(50, 60)])
    write_rows(newcomer / "benchmark.jsonl", [record(70)])
    splits = ("Train", "Test")
    upstream = [record(number, metadata={"kind": "code", "Split": splits[number % 2]}) for number in range(20)]
    write_rows(newcomer / "manimbench.jsonl", upstream)
    verdict = {"agrees": True, "score": 5, "reason": "They agree.", "by": "somebody"}
    judged = read_rows(newcomer / "data_enhanced/train.json")
    write_rows(
        newcomer / "data_judged/train.json", [r | {"metadata": r["metadata"] | {"judge": verdict}} for r in judged]
    )
    run(newcomer, "python prepare_data.py prepare --sources arxiv_papers --output-dir data_documents")
    ask, documents = "python prepare_data_with_llm.py", "--llm offline --input data_documents/train.json"
    run(newcomer, f"{ask} generate-personas {documents} --output data_personas")
    run(newcomer, f"{ask} generate-personas {documents} --output data/personas")
    run(newcomer, f"{ask} generate-qa {documents} --output data_qa/other.json")
    (newcomer / "data_qa/train.rejects.jsonl").write_bytes((newcomer / "data_qa/other.rejects.jsonl").read_bytes())
    (newcomer / "pirate.md").write_text(block("llm-tasks.md", "markdown", "version: pirate"))
    (newcomer / "quality.yaml").write_text(block("pipeline.md", "yaml", "checks:"))
    shutil.copytree(newcomer / "runs/first", newcomer / "runs/default")
    shutil.copytree(newcomer / "runs/first/base", newcomer / "runs/papers/base")
    shutil.copytree(newcomer / "runs/first/adapter", newcomer / "runs/papers/eli5/adapter")
    return newcomer


def block(page, language, words):
    """A file that a page shows."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    found = re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return next(part for part in found if part.startswith(words))


def test_every_command_of_the_readme_runs(follower):
    assert json.loads((follower / "runs/first/evaluation/scores.json").read_bytes())


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_runs(follower, tmp_path, page):
    shutil.copytree(follower, tmp_path / "clone", symlinks=True)
    run_page(tmp_path / "clone", ROOT / "docs" / page)


def test_little_is_left_out():
    lines = [line for page in PAGES for line in commands(ROOT / "docs" / page)]
    left = [line for line in lines if any(re.search(pattern, line) for pattern in ELSEWHERE) and line[:5] != "make "]
    assert len(left) < len(lines) / 8, left
