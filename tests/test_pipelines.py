"""The pipelines of papers, documents and Manim's documentation: one target each, run for real on small inputs."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from conftest import CLEAN, ROOT, read_rows

SHARED = [
    "Makefile",
    "pipelines.mk",
    "requirements.lock",
    "sources.yaml",
    "config.yaml",
    "schema",
    "stages",
    "extractors",
    "deploy",
]
QUICK = "TRAIN_OPTIONS=--max-steps 1 --tiny-steps 2 --max-length 2048 --on-long reject"
VOICES = ("eli5", "intuitive", "executive")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A folder like a fresh clone after `make setup`."""
    folder = tmp_path_factory.mktemp("clone")
    for name in [*SHARED, *(path.name for path in ROOT.glob("*.py"))]:
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "examples", folder / "examples")
    python = folder / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (folder / "venv" / ".ready").touch()
    return folder


def make(clone, *words, check=0):
    done = subprocess.run(
        ["make", "VENV=venv", "RENDER=static", "WORKERS=1", *words],
        cwd=clone,
        env=CLEAN | {"HOME": str(clone)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == check, f"{words}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_papers_become_an_adapter_for_each_voice_with_a_section_on_the_same_side_in_all(clone):
    make(clone, "papers", QUICK)
    data = clone / "data_papers"
    assert len(list((data / "sample").glob("*.pdf"))) == 4
    for side in ("train", "valid"):
        groups = {
            tuple(sorted(row["metadata"]["group"] for row in read_rows(data / "split" / voice / f"{side}.jsonl")))
            for voice in VOICES
        }
        assert len(groups) == 1
        assert groups != {()}
    for voice in VOICES:
        rows = read_rows(data / "trimmed" / f"{voice}_2048.jsonl")
        assert rows
        assert all(sum(row["metadata"]["quality"]["tokens"].values()) <= 2048 for row in rows)
        assert (clone / "runs/papers" / voice / "adapter/adapter_model.safetensors").is_file()
    make(clone, "audit")
    assert "nothing to do" in make(clone, "papers", QUICK).stdout

    again = make(clone, "data_papers/trimmed/eli5_2048.jsonl", "MAX_TOKENS=500").stdout
    assert "filter_quality.py" in again
    assert "generate-personas" not in again, "what stands before a changed option is left alone"
    (row, *_) = read_rows(data / "trimmed/eli5_2048.jsonl")
    assert "...[Truncated]" in row["description"]


def test_a_folder_of_ones_own_is_read_again_when_something_in_it_changes(clone):
    target, mine = "data_papers/formatted/ledger.json", clone / "my papers"
    mine.mkdir()
    sample = clone / "data_papers/sample"
    if not sample.exists():
        make(clone, "data_papers/sample")
    shutil.copy(sample / "queues.pdf", mine / "queues.pdf")
    make(clone, target, "INPUT=my papers")
    assert {row["metadata"]["paper"]["id"] for row in read_rows(clone / "data_papers/formatted/train.json")} == {
        "queues"
    }
    assert "prepare_data.py" not in make(clone, target, "INPUT=my papers").stdout
    shutil.copy(sample / "caches.pdf", mine / "caches.pdf")
    make(clone, target, "INPUT=my papers")
    assert len({row["metadata"]["paper"]["id"] for row in read_rows(clone / "data_papers/formatted/train.json")}) == 2


def test_documents_become_questions_and_answers_and_an_adapter(clone):
    make(clone, "documents", QUICK, "RATIOS=70/30")
    rows = [row for side in ("train", "valid") for row in read_rows(clone / f"data_documents/split/{side}.jsonl")]
    assert {row["metadata"]["kind"] for row in rows} == {"qa"}
    assert "What is a queue?" in [row["description"] for row in rows]
    assert (clone / "runs/documents/adapter/adapter_model.safetensors").is_file()
    assert "nothing to do" in make(clone, "documents", QUICK, "RATIOS=70/30").stdout


def test_two_sources_of_manim_become_one_short_instruction_each_and_an_adapter(clone):
    make(clone, "manim-docs", QUICK)
    sides = {side: read_rows(clone / f"data_manim_docs/split/{side}.jsonl") for side in ("train", "valid")}
    rows = sides["train"] + sides["valid"]
    assert {row["source"] for row in rows} == {"sample_edoh", "sample_docs"}
    assert len(rows) == 18
    assert all(1 <= len(row["description"].split()) <= 60 for row in rows)
    assert sides["valid"]
    assert (clone / "runs/manim_docs/adapter/adapter_model.safetensors").is_file()


def test_an_input_that_is_not_there_is_one_line(clone):
    done = make(clone, "documents", "INPUT=no/such/folder", check=2)
    assert "make: no/such/folder can not be read; INPUT names a file or a folder" in done.stderr


def test_a_stage_that_lacks_its_key_ends_the_run_with_an_error(clone):
    shutil.rmtree(clone / "data_documents", ignore_errors=True)
    done = make(clone, "documents", "LLM=openai", check=2)
    assert "OPENAI_API_KEY" in done.stderr
    assert not (clone / "data_documents/qa/train.json").exists()


def test_named_sources_are_taken_instead_of_the_samples(clone):
    planned = make(clone, "-n", "manim-docs", "SOURCES=edoh manim_docs").stdout
    assert "prepare --sources edoh manim_docs --max-description-words 60" in planned
    planned = make(clone, "-n", "papers", "SOURCES=arxiv_papers", "MODEL=some/model").stdout
    assert "prepare --sources arxiv_papers " in planned
    assert "--tokenizer some/model" in planned
