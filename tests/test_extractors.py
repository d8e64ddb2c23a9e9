"""What the extractors find in packages and tables that the tests build themselves."""

from __future__ import annotations

import ast
import gzip
import hashlib
import json
import os
import re
import sys
import zipfile
from datetime import date
from pathlib import Path

import click
import pytest
import zstandard
from conftest import write_rows

from extractors import BadRow, Fetch, load, types
from extractors._directives import find_blocks, first_words, last_words

EXAMPLE = '''"""Module words.

.. manim:: InModule

    class InModule(Scene):
        def construct(self):
            self.add(Dot())
"""

class Shape:
    """A shape.

    Examples
    --------

    First comes a circle.

    .. manim :: InClass
        :save_last_frame:
        :quality: low
        :ref_classes: Circle
            Square

        class InClass(Scene):
            def construct(self):
                self.add(Circle())

    Then comes a square.

    .. manim:: SecondInClass

        import math

        class SecondInClass(Scene):
            def construct(self):

                self.add(Square())
    The end.
    """

    size: int = 3
    """How large.

    .. manim:: UnderAttribute

        class UnderAttribute(Scene): pass
    """

    async def grow(self):
        """
        .. manim:: InMethod

            >>> from manim import Scene
            >>> class InMethod(Scene):
            ...     def construct(self):
            ...         self.wait()
            >>> InMethod
            <class 'InMethod'>
        """
        if self:
            def inner():
                """.. manim:: FirstLine

                class Ignored: pass
                """
'''


def blocks(source=EXAMPLE):
    return {block.scene: block for block in find_blocks(source, "manim.shape")}


def make_wheel(path, files, version="0.22.0", licence="License-Expression: MIT"):
    """A wheel that pip takes: the files, and what it says about itself."""
    info = f"manim-{version}.dist-info"
    about = f"Metadata-Version: 2.4\nName: manim\nVersion: {version}\n{licence}\n"
    files = {**files, f"{info}/METADATA": about, f"{info}/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n"}
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(zipfile.ZipInfo(name), text)
    return path


def from_package(tmp_path, **options):
    fetch = Fetch(tmp_path / "cache", offline=True)
    return list(load("manim_package")(fetch=fetch, **options))


def from_table(path, **options):
    return list(load("local")(str(path), **options))


def test_types_are_found_by_file_name_and_helpers_are_none():
    assert {"local", "manim_package"} <= set(types())
    assert not [name for name in types() if name.startswith("_")]


@pytest.mark.parametrize(
    ("scene", "documented"),
    [
        ("InModule", "manim.shape"),
        ("InClass", "manim.shape.Shape"),
        ("SecondInClass", "manim.shape.Shape"),
        ("UnderAttribute", "manim.shape.Shape.size"),
        ("InMethod", "manim.shape.Shape.grow"),
        ("FirstLine", "manim.shape.Shape.grow.inner"),
    ],
)
def test_a_block_is_found_wherever_a_docstring_stands_and_knows_its_object_and_line(scene, documented):
    found = blocks()[scene]
    assert found.documented == documented
    line = EXAMPLE.split("\n")[found.line - 1]
    assert re.search(rf"\.\. manim ?:: {scene}$", line)


def test_the_program_loses_its_indentation_and_nothing_else():
    assert blocks()["SecondInClass"].code == (
        "import math\n\nclass SecondInClass(Scene):\n    def construct(self):\n\n        self.add(Square())"
    )


def test_options_are_read_as_flags_values_and_values_on_several_lines():
    assert blocks()["InClass"].options == {"save_last_frame": True, "quality": "low", "ref_classes": "Circle Square"}
    assert blocks()["InModule"].options == {}


def test_a_doctest_block_loses_its_prompts_and_its_output():
    code = blocks()["InMethod"].code
    assert code.startswith("from manim import Scene\nclass InMethod(Scene):\n    def construct(self):\n")
    assert "<class" not in code


def test_the_words_around_a_block_hold_no_program_and_no_underline():
    block = blocks()["SecondInClass"]
    assert block.before == "A shape.\n\nExamples\n\nFirst comes a circle.\n\nThen comes a square."
    assert block.after == "The end."


def test_the_words_nearest_to_the_program_are_taken():
    words = " ".join(f"w{number}" for number in range(500))
    assert last_words(words).split() == [f"w{number}" for number in range(300, 500)]
    assert first_words(words).split() == [f"w{number}" for number in range(200)]
    assert last_words("") == first_words(" \n ") == ""


def test_a_package_gives_one_row_for_each_block_with_origin_and_licence(tmp_path):
    wheel = make_wheel(tmp_path / "manim.whl", {"manim/shape.py": EXAMPLE, "other/shape.py": EXAMPLE})
    rows = from_package(tmp_path, path=str(wheel))
    assert [row["metadata"]["scene"] for row in rows if isinstance(row, dict)] == [
        "InModule",
        "InClass",
        "SecondInClass",
        "UnderAttribute",
        "InMethod",
    ]
    assert rows[1]["metadata"]["origin"] == {
        "package": "manim",
        "version": "0.22.0",
        "path": "manim/shape.py",
        "line": 18,
        "object": "manim.shape.Shape",
    }
    assert rows[1]["metadata"]["licence"] == "MIT"
    assert rows[1]["metadata"]["needs_description"] is True
    assert rows[1]["metadata"]["directive"]["quality"] == "low"


def test_a_block_without_a_program_is_named_and_not_dropped(tmp_path):
    wheel = make_wheel(tmp_path / "manim.whl", {"manim/shape.py": EXAMPLE})
    empty = [row for row in from_package(tmp_path, path=str(wheel)) if isinstance(row, BadRow)]
    assert [row.code for row in empty] == ["empty_block"]
    assert "FirstLine" in empty[0].message
    assert empty[0].origin["path"] == "manim/shape.py"


def test_the_import_that_the_directive_makes_is_written_down_once(tmp_path):
    twice = '"""\n.. manim:: A\n\n    from manim import *\n    class A(Scene): pass\n"""'
    wheel = make_wheel(tmp_path / "manim.whl", {"manim/a.py": twice, "manim/shape.py": EXAMPLE})
    rows = [row for row in from_package(tmp_path, path=str(wheel)) if isinstance(row, dict)]
    assert all(row["code"].count("from manim import *") == 1 for row in rows)
    assert all(ast.parse(row["code"]) for row in rows)


def test_wheel_unpacked_folder_and_installed_package_give_the_same_rows(tmp_path, monkeypatch):
    wheel = make_wheel(tmp_path / "manim.whl", {"manim/shape.py": EXAMPLE, "manim/__init__.py": ""})
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path / "site")
    rows = from_package(tmp_path, path=str(wheel))
    assert len(rows) == 6
    assert from_package(tmp_path, path=str(tmp_path / "site")) == rows
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    assert from_package(tmp_path) == rows


def test_an_installed_package_of_another_version_is_not_taken(tmp_path, monkeypatch):
    wheel = make_wheel(tmp_path / "manim.whl", {"manim/shape.py": EXAMPLE}, version="0.19.0")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path / "site")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    with pytest.raises(click.ClickException, match="--offline forbids the download"):
        from_package(tmp_path)


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("License-Expression: MIT", "MIT"),
        ("License: BSD-3-Clause", "BSD-3-Clause"),
        ("Classifier: License :: OSI Approved :: MIT License", "MIT"),
        ("Summary: no licence", None),
    ],
)
def test_the_licence_is_read_from_the_metadata_of_the_package(tmp_path, licence, expected):
    wheel = make_wheel(tmp_path / "manim.whl", {"manim/shape.py": EXAMPLE}, licence=licence)
    assert from_package(tmp_path, path=str(wheel))[0]["metadata"]["licence"] == expected


def test_a_file_that_is_not_python_is_named_and_the_others_are_read(tmp_path):
    wheel = make_wheel(tmp_path / "manim.whl", {"manim/a.py": "def (", "manim/b.py": "\0", "manim/c.py": EXAMPLE})
    rows = from_package(tmp_path, path=str(wheel))
    assert [(row.code, row.origin["path"]) for row in rows[:2]] == [
        ("file_not_python", "manim/a.py"),
        ("file_not_python", "manim/b.py"),
    ]
    assert len(rows) == 8


def test_a_wheel_that_is_not_the_expected_one_stops_the_source(tmp_path):
    wheel = make_wheel(tmp_path / "manim.whl", {"manim/shape.py": EXAMPLE}, version="0.19.0")
    broken = tmp_path / "broken.whl"
    broken.write_bytes(b"PK not a zip file")
    for path, options, message in [
        (wheel, {}, "holds manim 0.19.0, sources.yaml expects 0.22.0"),
        (wheel, {"version": "0.19.0", "sha256": "0" * 64}, f"has SHA-256 {digest(wheel)}, sources.yaml expects 000"),
        (broken, {}, "holds no installed or packed manim"),
        (tmp_path / "none.whl", {}, "no such file or folder"),
    ]:
        with pytest.raises(click.ClickException) as caught:
            from_package(tmp_path, path=str(path), **options)
        assert message in caught.value.message
        assert "\n" not in caught.value.message


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def put(text):
    return lambda folder: Path(folder, "file").write_text(text)


def test_a_download_is_kept_and_only_made_again_when_damaged_or_asked_for(tmp_path):
    fetch = Fetch(tmp_path / "cache")
    pin = hashlib.sha256(b"good").hexdigest()
    assert fetch.cached("file", pin) is None
    path = fetch.download("file", put("good"), pin)
    assert fetch.cached("file", pin) == path
    assert fetch._replace(refresh=True).cached("file", pin) is None
    path.write_text("damaged")
    assert fetch.cached("file", pin) is None


def test_a_wrong_download_never_reaches_the_cache(tmp_path):
    fetch = Fetch(tmp_path / "cache")
    fetch.download("file", put("old"))
    with pytest.raises(click.ClickException, match="the download has SHA-256"):
        fetch.download("file", put("wrong"), "0" * 64)
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == ["file"]
    assert fetch.cached("file").read_text() == "old"


def test_every_block_of_manim_0_22_0_becomes_a_row_or_a_named_reject():
    name = os.environ.get("LINEMILL_MANIM_WHEEL")
    if not name or not Path(name).is_file():
        pytest.skip("LINEMILL_MANIM_WHEEL names no wheel of manim 0.22.0")
    found = list(load("manim_package")(fetch=Fetch(Path("unused"), offline=True), path=name))
    directive = re.compile(r"\s*\.\. manim ?::(?: |$)")
    with zipfile.ZipFile(name) as wheel:
        expected = {
            (entry, number)
            for entry in wheel.namelist()
            if entry.endswith(".py")
            for number, line in enumerate(wheel.read(entry).decode().split("\n"), 1)
            if directive.match(line)
        }
    origins = [row.origin if isinstance(row, BadRow) else row["metadata"]["origin"] for row in found]
    assert {(origin["path"], origin["line"]) for origin in origins} == expected
    assert len(found) == len(expected) == 415  # 396 spelled "manim::", 19 spelled "manim ::"
    assert [row.code for row in found if isinstance(row, BadRow)] == ["empty_block"]
    assert all(ast.parse(row["code"]) for row in found if isinstance(row, dict))


ROWS = [
    {"question": "Draw a circle, please", "python_code": "Circle()\n", "level": "easy"},
    {"question": 'Say "ä"\nand 𝛑', "python_code": 'Text("a\\nb")\n', "level": ""},
]


def write_table(path, rows=ROWS):
    """The same rows in the format that the name asks for."""
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        import pyarrow

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        import csv

        with path.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".json":
        path.write_text("\ufeff" + json.dumps(rows, indent=1), encoding="utf-8")
    else:
        write_rows(path, rows)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_the_same_rows_are_read_from_every_format(tmp_path, suffix):
    found = from_table(write_table(tmp_path / f"rows{suffix}"))
    assert [(row["description"], row["code"], row["metadata"]["level"]) for row in found] == [
        ("Draw a circle, please", "Circle()\n", "easy"),
        ('Say "ä"\nand 𝛑', 'Text("a\\nb")\n', ""),
    ]
    place = "line" if suffix == ".jsonl" else "row"
    assert [row["metadata"]["origin"] for row in found] == [
        {"path": f"rows{suffix}", place: 1},
        {"path": f"rows{suffix}", place: 2},
    ]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_packed_files_give_the_rows_of_the_plain_ones(tmp_path, name, pack):
    (tmp_path / "plain").mkdir()
    plain = write_table(tmp_path / "plain" / name)
    suffix = ".gz" if pack is gzip.compress else ".zst"
    packed = tmp_path / f"{name}{suffix}"
    packed.write_bytes(pack(plain.read_bytes()))
    expected = from_table(plain)
    assert len(expected) == 2
    for row in expected:
        row["metadata"]["origin"]["path"] += suffix
    assert from_table(packed) == from_table(tmp_path / f"*{suffix}") == expected
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(click.ClickException, match=rf"{name}{suffix}: broken, it can not be unpacked"):
        from_table(packed)


def test_json_lines_under_the_name_json_and_the_reverse_are_read(tmp_path):
    lines = write_rows(tmp_path / "lines.json", ROWS)
    array = write_table(tmp_path / "array.json").rename(tmp_path / "array.jsonl")
    assert len(from_table(lines)) == len(from_table(array)) == 2


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["Description", "Code"], ("Description", "Code")),
        (["user_prompt", "model_output", "score"], ("user_prompt", "model_output")),
        (["question", "python_code", "title"], ("question", "python_code")),
        (["instructions", "response"], ("instructions", "response")),
    ],
)
def test_the_columns_of_description_and_code_are_detected(tmp_path, columns, expected):
    row = {name: f"text of {name}" for name in columns}
    found = from_table(write_rows(tmp_path / "rows.jsonl", [row]))[0]
    assert (found["description"], found["code"]) == (row[expected[0]], row[expected[1]])
    assert set(columns) - set(expected) == found["metadata"].keys() - {"origin"}


@pytest.mark.parametrize(
    "columns",
    [
        ["Generated Description", "Reviewed Description", "Code"],
        ["title", "body"],
        ["desc", "code_a", "code_b"],
        ["prompt"],
        ["prompt_code"],
    ],
)
def test_columns_that_are_not_clear_are_shown_and_refused(tmp_path, columns):
    path = write_rows(tmp_path / "rows.jsonl", [dict.fromkeys(columns, "x")])
    with pytest.raises(click.UsageError) as caught:
        from_table(path)
    assert ", ".join(columns) in caught.value.message
    assert "description_field" in caught.value.message


def test_given_columns_win_over_detection_and_must_exist(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [{"a": "ask", "b": "Dot()", "code": "no"}])
    found = from_table(path, description_field="a", code_field="b")[0]
    assert (found["description"], found["code"], found["metadata"]["code"]) == ("ask", "Dot()", "no")
    with pytest.raises(click.UsageError, match="no column 'c'; it has the columns a, b, code"):
        from_table(path, code_field="c")
    with pytest.raises(click.UsageError, match="name both, or none"):
        from_table(path, description_field="a")


def test_code_alone_needs_a_description(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [{"a": "ask", "b": "Dot()"}])
    found = from_table(path, code_field="b")[0]
    assert (found["description"], found["metadata"]["needs_description"]) == ("", True)


def test_one_row_with_odd_columns_is_a_reject_and_the_others_are_read(tmp_path):
    rows = [{"odd": 1}, ROWS[0], {"messages": []}, {"description": "d", "source": "s", "metadata": {}}]
    found = from_table(write_rows(tmp_path / "rows.jsonl", rows))
    assert [row.code if isinstance(row, BadRow) else row["metadata"]["origin"]["line"] for row in found] == [
        "unknown_columns",
        2,
        3,
        "unknown_columns",
    ]
    assert found[0].raw == '{"odd": 1}'


def test_columns_that_mean_something_else_in_a_record_get_another_name(tmp_path):
    row = {"prompt_text": "p", "code": "c", "id": 7, "source": "web", "quality": "good", "error": "E", "licence": "X"}
    metadata = from_table(write_rows(tmp_path / "rows.jsonl", [row]))[0]["metadata"]
    assert metadata == {
        "upstream_id": 7,
        "upstream_source": "web",
        "upstream_quality": "good",
        "upstream_error": "E",
        "licence": "X",
        "origin": {"path": "rows.jsonl", "line": 1},
    }


def test_broken_rows_are_named_with_their_place_and_the_others_are_read(tmp_path):
    lines = [ROWS[0], b"{not json", b"[1, 2]", b'"\xff"', b"", b"[" * 100_000, ROWS[1]]
    found = from_table(write_rows(tmp_path / "rows.jsonl", lines))
    bad = {row.origin["line"]: row.code for row in found if isinstance(row, BadRow)}
    assert bad == {2: "not_json", 3: "not_an_object", 4: "not_json", 6: "nested_too_deep"}
    assert [row["metadata"]["origin"]["line"] for row in found if isinstance(row, dict)] == [1, 7]
    assert next(row for row in found if isinstance(row, BadRow)).raw == "{not json"


def test_broken_csv_rows_are_named_and_long_fields_are_read(tmp_path):
    path = tmp_path / "rows.csv"
    long = "x" * 200_000
    path.write_text(f'question,python_code\na,b\nonly one\n"a"b,c\n\nd,{long}\ne,"never closed\n', encoding="utf-8")
    found = from_table(path)
    assert [row.code if isinstance(row, BadRow) else row["description"] for row in found] == [
        "a",
        "wrong_columns",
        "bad_csv",
        "d",
        "bad_csv",
    ]
    assert found[3]["code"] == long


def test_parquet_values_become_json_and_embedded_films_are_not_read(tmp_path):
    pytest.importorskip("pyarrow")
    film = {"bytes": b"\0" * 1000, "path": "a.mp4"}
    row = {"question": "q", "python_code": "c", "film": film, "day": date(2026, 1, 2), "x": float("nan"), "tags": ["a"]}
    metadata = from_table(write_table(tmp_path / "rows.parquet", [row]))[0]["metadata"]
    assert metadata == {"day": "2026-01-02", "x": None, "tags": ["a"], "origin": {"path": "rows.parquet", "row": 1}}


def test_parquet_without_its_package_is_one_line_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(click.UsageError, match=re.escape("pip install 'linemill[sources]'")):
        from_table(tmp_path / "rows.parquet")


@pytest.mark.parametrize("name", ["rows.parquet", "rows.json", "rows.csv"])
def test_a_file_that_is_broken_as_a_whole_stops_the_source_in_one_line(tmp_path, name):
    pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(b"[{\xff\xfe")
    with pytest.raises(click.ClickException) as caught:
        from_table(tmp_path / name)
    assert name in caught.value.message
    assert "\n" not in caught.value.message


def test_folders_and_patterns_are_read_in_the_order_of_their_names(tmp_path):
    for name in ("b/rows.jsonl", "a/rows.jsonl", "a/notes.md", "a/more.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if name.endswith(("jsonl", "csv")):
            write_table(tmp_path / name)
    names = [row["metadata"]["origin"]["path"] for row in from_table(tmp_path)]
    assert names == ["a/more.csv"] * 2 + ["a/rows.jsonl"] * 2 + ["b/rows.jsonl"] * 2
    names = [row["metadata"]["origin"]["path"] for row in from_table(tmp_path / "*" / "*.jsonl")]
    assert names == ["a/rows.jsonl"] * 2 + ["b/rows.jsonl"] * 2


def test_no_file_and_an_unknown_format_are_told_apart(tmp_path, monkeypatch):
    with pytest.raises(click.ClickException, match="no file of this name"):
        from_table(tmp_path / "none.jsonl")
    path = write_rows(tmp_path / "rows.dat", ROWS)
    with pytest.raises(click.UsageError, match="set 'format'"):
        from_table(path)
    assert len(from_table(path, format="jsonl")) == 2
    monkeypatch.chdir(tmp_path)
    assert len(from_table("*.dat", format="jsonl")) == 2
