"""The notebook runs from top to bottom on the embedded default, and holds nothing but calls of the scripts."""

from __future__ import annotations

import json
import os
import re
import sys

import pytest
from conftest import CLEAN, ROOT, record, write_rows
from test_docs import named_command, options_of

NOTEBOOK = ROOT / "notebooks" / "finetune.ipynb"
CELLS = json.loads(NOTEBOOK.read_bytes())["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]
QUICK = {
    "TRAIN_OPTIONS": "--max-steps 2 --lr 0.01 --tiny-steps 2 --on-long reject --max-length 2048",
    "EVAL_LIMIT": "2",
    "PREPARE_OPTIONS": "--test-ratio 0.2",
}


def test_no_output_is_stored():
    assert [cell for cell in CELLS if cell.get("outputs") or cell.get("execution_count")] == []


def test_no_cell_defines_anything():
    assert [cell for cell in CODE if re.search(r"^\s*(def|class|lambda)\b", cell, re.MULTILINE)] == []


def test_every_cell_of_the_shell_stops_at_the_first_error():
    shells = [cell for cell in CODE if cell.startswith("%%bash")]
    assert len(shells) >= 8
    assert [cell for cell in shells if not cell.startswith("%%bash\nset -e\n")] == []


def test_every_command_and_option_exists():
    lines = [line.strip() for cell in CODE for line in cell.split("\n") if re.match(r"\s*python \w+\.py", line)]
    assert len(lines) > 10
    for line in lines:
        path, options = named_command(line)
        assert [option for option in options if option not in options_of(tuple(path))] == [], line


def test_it_runs_from_top_to_bottom(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    for name in [*(path.name for path in ROOT.glob("*.py")), "schema", "stages", "extractors"]:
        (tmp_path / name).symlink_to(ROOT / name)
    write_rows(tmp_path / "scenes.jsonl", [record(number) for number in range(40)])
    (tmp_path / "sources.yaml").write_text("manim_package:\n  type: local\n  path: scenes.jsonl\n")
    (tmp_path / "notebooks").mkdir()
    for name, value in (CLEAN | QUICK | {"HOME": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{os.path.dirname(sys.executable)}:{CLEAN['PATH']}")  # noqa: PTH120
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path / "notebooks")}}
    )
    client.execute()
    assert (tmp_path / "runs/notebook/evaluation/scores.json").is_file()
    assert (tmp_path / "adapter.tar.gz").is_file()
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "Traceback" not in said
