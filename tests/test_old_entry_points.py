"""The command lines of the systems that came before run as they were written there."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from conftest import CLEAN, ROOT, read_rows, record, run_script, write_rows


def old_project(*words, cwd, check=0):
    done = subprocess.run(
        [sys.executable, "-m", "finetune_project", *map(str, words)],
        cwd=cwd,
        env=CLEAN | {"HOME": str(cwd), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == check, f"exit code {done.returncode}\n{done.stderr}\n{done.stdout}"
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """A folder whose sources.yaml has the four data sets of old, as local copies."""
    folder = tmp_path_factory.mktemp("datasets")
    names = ("bespoke_manim", "thanks_dataset", "manim_codegen", "manimbench")
    for start, name in enumerate(names):
        write_rows(folder / f"{name}.jsonl", [record(start * 5 + number, source="x") for number in range(6)])
    entries = (f"{name}:\n  type: local\n  path: {name}.jsonl\n" for name in names)
    (folder / "sources.yaml").write_text("".join(entries))
    return folder


@pytest.mark.parametrize(
    ("words", "folder", "sources", "augmented", "merged"),
    [
        ([], "data_formatted_with_sources", 4, True, False),
        (["--datasets", "bespoke_manim", "thanks_dataset"], "data_formatted_with_sources", 2, True, False),
        (["--no-augmentation"], "data_formatted_with_sources", 4, False, False),
        (["--output-dir", "custom_data"], "custom_data", 4, True, False),
        (
            ["--deduplicate", "--output-dir", "data_formatted_deduplicated"],
            "data_formatted_deduplicated",
            4,
            True,
            True,
        ),
        (["--deduplicate"], "data_formatted_deduplicated", 4, True, True),
    ],
)
def test_the_script_of_one_file(datasets, words, folder, sources, augmented, merged):
    run_script("prepare_data_enhanced.py", *words, cwd=datasets, check=0)
    ledger = json.loads((datasets / folder / "ledger.json").read_bytes())
    assert len({row["source"] for row in read_rows(datasets / folder / "train.json")}) == sources
    assert (ledger["counts"]["augmented"] > 0) == augmented
    assert (ledger["counts"]["merged"] > 0) == merged
    assert (datasets / folder / "dataset_stats.json").is_file()


def test_papers_go_the_whole_way_by_the_four_commands_of_old(tmp_path):
    pytest.importorskip("pymupdf4llm")
    made = [sys.executable, ROOT / "examples/make_papers.py", "--output", "mine"]
    subprocess.run(made, cwd=tmp_path, check=True, capture_output=True)
    run_script("paperExtractor.py", "--input", "mine", cwd=tmp_path, check=0)
    papers = json.loads((tmp_path / "papers.json").read_bytes())
    assert [paper["id"] for paper in papers] == ["caches", "descent", "hashing", "queues"]
    assert all({"title", "full_text", "pdf_path"} <= paper.keys() for paper in papers)
    assert papers[0]["title"] == "The Art of Forgetting: How Caches Work"

    run_script("sdg.py", cwd=tmp_path, check=0)
    styles = ("eli5", "intuitive", "executive")
    assert [len(read_rows(tmp_path / f"data/{style}.jsonl")) for style in styles] == [28, 28, 28]

    for _ in range(2):  # what it has made is no style of its own
        run_script("trim_jsonl.py", "--tokenizer", "bytes", "--max-tokens", 2048, cwd=tmp_path, check=0)
    assert sorted(path.name for path in (tmp_path / "data").glob("*_2048.jsonl")) == sorted(
        f"{style}_2048.jsonl" for style in styles
    )

    run_script("split_data.py", cwd=tmp_path, check=0)
    for style in styles:
        rows = read_rows(tmp_path / f"data/{style}_2048/train.jsonl")
        assert [turn["role"] for turn in rows[0]["messages"]] == ["user", "assistant"]
        assert len(rows) + len(read_rows(tmp_path / f"data/{style}_2048/valid.jsonl")) == 28


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("sdg.py", "data_papers/formatted/train.json' does not exist"),
        ("trim_jsonl.py", "data: there is no STYLE.jsonl; sdg.py writes them"),
    ],
)
def test_a_step_whose_input_is_missing_says_so(tmp_path, script, message):
    assert message in run_script(script, cwd=tmp_path, check=2).err


def test_the_commands_of_the_document_project(tmp_path):
    (tmp_path / "documents").mkdir()
    for name in ("queues", "caches", "hashing", "descent"):
        (tmp_path / f"documents/{name}.md").write_bytes((ROOT / f"examples/texts/{name}.md").read_bytes())
    old_project("prepare-data", cwd=tmp_path)
    rows = read_rows(tmp_path / "data_formatted/train.json")
    assert {row["metadata"]["kind"] for row in rows} == {"document"}

    done = old_project("prepare-data", "--enable-qa", "--augment", "--provider", "offline", cwd=tmp_path)
    assert "finetune_project: python prepare_data_with_llm.py generate-qa --input data_formatted/train" in done.stderr
    pairs = read_rows(tmp_path / "data_enhanced/qa.jsonl")
    assert {row["metadata"]["kind"] for row in pairs} == {"qa"}
    assert len(read_rows(tmp_path / "data_enhanced/qa_augmented.jsonl")) > len(pairs)

    old_project("generate-qa", "-i", "documents/queues.md", "-o", "queues.jsonl", "--num-pairs", 1, cwd=tmp_path)
    made = read_rows(tmp_path / "queues.jsonl")
    assert len(made) == len({row["metadata"]["parent"] for row in made})

    old_project("init", "--output", "mine.yaml", "--template", "qa_generation", cwd=tmp_path)
    old_project("validate", "--config", "mine.yaml", cwd=tmp_path)
    quick = [
        "--eval-split",
        0.3,
        "--max-steps",
        1,
        "--tiny-steps",
        2,
        "-o",
        "runs/default",
        "-b",
        2,
        "-m",
        "tiny",
        "-v",
    ]
    old_project("train", "--config", "mine.yaml", *quick, cwd=tmp_path)
    old_project("merge-adapter", cwd=tmp_path)
    old_project("evaluate", cwd=tmp_path)
    loss = json.loads((tmp_path / "runs/default/evaluation/loss.json").read_bytes())
    assert loss
    old_project("export", "--format", "safetensors", cwd=tmp_path)
    assert list((tmp_path / "runs/default/export").glob("*.safetensors"))


def test_an_option_of_old_that_makes_no_sense_is_refused(tmp_path):
    assert "--enable-qa" in old_project("prepare-data", "--augment", cwd=tmp_path, check=2).stderr
    done = old_project("export", "--format", "flax", cwd=tmp_path, check=2)
    assert "'flax' is not one of" in done.stderr
