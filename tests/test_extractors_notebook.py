"""What the type notebook makes of notebooks that the tests write."""

from __future__ import annotations

import ast
import json

import pytest
from conftest import read_rows, run_script

from extractors import BadRow, Fetch, load
from extractors._repository import LARGEST_FILE
from extractors.notebook import without_magics

CELLS = [
    ("code", "import numpy as np\nimport random\nfrom manim import *\n!pip install manim\n"),
    ("markdown", "# Dots\n"),
    ("markdown", "A dot moves."),
    ("code", "def dot():\n    return Dot(np.zeros(3))\n\ndef unused():\n    pass\n"),
    ("code", "%%manim -v WARNING -ql Dots\nclass Dots(Scene):\n    def construct(self):\n        self.add(dot())\n"),
    ("code", "%manim Dots"),
    ("code", "class Dots(Scene):\n    def construct(self):\n        self.wait()\n"),
    ("code", "%%bash\nclass NoScene(Scene):"),
    ("code", "class Broken(Scene):\n    def construct(self)\n"),
    ("code", "class Later(Dots):\n    pass\n"),
]


def notebook(cells=CELLS):
    made = [{"cell_type": kind, "source": text.splitlines(keepends=True)} for kind, text in cells]
    return json.dumps({"nbformat": 4, "cells": made})


def rows(tmp_path, text=None, **options):
    path = tmp_path / "lesson.ipynb"
    path.write_text(notebook() if text is None else text, encoding="utf-8")
    return list(load("notebook")(fetch=Fetch(tmp_path / "cache", offline=True), path=str(path), **options))


def test_each_scene_cell_is_a_record_with_what_it_needs_of_the_cells_before(tmp_path):
    found = rows(tmp_path)
    first, second, broken, later = found
    assert first["code"].startswith("from manim import *\nimport numpy as np\n\n\ndef dot")
    assert "unused" not in first["code"] and "random" not in first["code"] and "%" not in first["code"]
    assert "self.wait()" in second["code"] and "dot" not in second["code"]
    assert (broken.code, broken.origin["cell"]) == ("cell_not_python", 8)
    # The second class of the name has replaced the first when the last cell is run.
    assert later["code"].count("class Dots") == 1 and "self.wait()" in later["code"]
    for row in (first, second, later):
        ast.parse(row["code"])
    assert first["metadata"]["origin"] == {"path": "lesson.ipynb", "cell": 4}
    assert first["metadata"]["original_context"] == "# Dots\n\n\nA dot moves."


def test_markdown_becomes_the_description_on_wish(tmp_path):
    assert rows(tmp_path)[0]["metadata"]["needs_description"] is True
    described = rows(tmp_path, describe=True)[0]
    assert described["description"] == "A dot moves."
    assert described["metadata"]["needs_description"] is False


def test_a_description_is_given_once_and_a_heading_is_none(tmp_path):
    found = rows(tmp_path, describe=True)
    assert [row["description"] for row in found if isinstance(row, dict)] == ["A dot moves.", "", ""]
    cells = [("markdown", "# Outro"), CELLS[3], CELLS[4]]
    assert rows(tmp_path, notebook(cells), describe=True)[0]["metadata"]["needs_description"] is True


def test_a_helper_below_the_scene_is_found_when_nothing_else_has_its_name(tmp_path):
    scene = "class A(Scene):\n    def construct(self):\n        self.add(dot(SIZE), G, used)\n"
    cells = [
        ("code", "from manim import *\nused = 1\n"),
        ("code", scene),
        ("code", "import networkx as nx\nG = nx.Graph()\nG.add_edge(1, 2)\nused = 2\nother = 3\nused.change()\n"),
        ("code", "@cache\ndef dot(size):\n    return Dot(radius=size)\nSIZE = 1\nclass A(Scene):\n    pass\n"),
        ("code", "SIZE = 2\ndef dot(size):\n    return None\n"),
    ]
    program = rows(tmp_path, notebook(cells))[0]["code"]
    assert program == (
        "from manim import *\nimport networkx as nx\n\n\nused = 1\n\nG = nx.Graph()\n\nG.add_edge(1, 2)\n\n"
        f"@cache\ndef dot(size):\n    return Dot(radius=size)\n\nSIZE = 1\n\n{scene}"
    )


def test_a_notebook_that_is_too_large_and_a_link_are_rejects_and_no_silence(tmp_path):
    (tmp_path / "lessons").mkdir()
    (tmp_path / "lessons" / "huge.ipynb").write_bytes(b" " * (LARGEST_FILE + 1))
    (tmp_path / "lessons" / "link.ipynb").symlink_to("huge.ipynb")
    (tmp_path / "lessons" / "small.ipynb").write_text(notebook())
    fetch = Fetch(tmp_path / "cache", offline=True)
    found = list(load("notebook")(fetch=fetch, path=str(tmp_path / "lessons"), exclude=["small*"]))
    assert [(row.code, row.origin["path"]) for row in found] == [("too_large", "huge.ipynb"), ("link", "link.ipynb")]


def test_prepare_writes_the_scenes_of_notebooks_with_their_descriptions(tmp_path):
    (tmp_path / "lessons" / "deep").mkdir(parents=True)
    (tmp_path / "lessons" / "deep" / "a.ipynb").write_text(notebook())
    (tmp_path / "lessons" / "b.ipynb").write_text("{")
    (tmp_path / "lessons" / "LICENSE").write_text("Permission is hereby granted, free of charge, to any person")
    (tmp_path / "sources.yaml").write_text("mine:\n  type: notebook\n  path: lessons\n  describe: true\n")
    done = run_script("prepare_data.py", "prepare", "--test-ratio", "0", cwd=tmp_path, check=0)
    assert "mine: 5 rows, 3 records, rejected: 1 cell_not_python, 1 not_a_notebook" in done.err
    records = read_rows(tmp_path / "data_formatted" / "train.json")
    assert sorted(record["description"] for record in records) == ["", "", "A dot moves."]
    assert {record["metadata"]["licence"] for record in records} == {"MIT"}
    assert {record["metadata"]["origin"]["path"] for record in records} == {"deep/a.ipynb"}


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"cells": 3}', '{"cells": [{"source": ""}]}'])
def test_a_file_that_is_no_notebook_is_named(tmp_path, text):
    found = rows(tmp_path, text)
    assert [(type(row), row.code) for row in found] == [(BadRow, "not_a_notebook")]


@pytest.mark.parametrize(
    ("cell", "program"),
    [
        ("%%manim -ql A\nx = 1", "\nx = 1"),
        ("x = 7 \\\n% 3", "x = 7 \\\n% 3"),
        ("!ls\nx = 1\n%matplotlib inline", "\nx = 1\n"),
        ("%%html\n<b>", ""),
    ],
)
def test_magics_are_no_part_of_the_program(cell, program):
    assert without_magics(cell) == program


def test_manimgl_and_pictures_are_handled_as_in_scripts(tmp_path):
    cells = [
        ("code", "from manimlib import *\nclass A(Scene):\n    def construct(self):\n        self.wait()\n"),
    ]
    assert rows(tmp_path, notebook(cells))[0].code == "manimgl"
    cells = [
        ("code", "from manim import *\nclass A(Scene):\n    def construct(self):\n        ImageMobject('a.png')\n")
    ]
    assert "ImageMobject" not in rows(tmp_path, notebook(cells))[0]["code"]
    assert rows(tmp_path, notebook(cells), assets="reject")[0].code == "needs_asset"
