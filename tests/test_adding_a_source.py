"""docs/adding-a-source.md as a newcomer follows it: a data set in six lines of YAML, a type in one small file."""

from __future__ import annotations

import csv
import inspect
import json
import re
import shutil
import subprocess
import sys
import textwrap

import pytest
import yaml
from conftest import CLEAN, ROOT, read_rows, record, run_script

import extractors

PAGE = (ROOT / "docs" / "adding-a-source.md").read_text("utf-8")
BLOCKS = {
    language: re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    for language in ("yaml", "bash", "python", "toml", "text")
}
TYPE, HOOKS = BLOCKS["python"]
SCRIPTS_SOURCE = "mine:\n  type: scripts\n  folder: scenes\n"


def checkout(folder):
    """A copy of the repository that a newcomer may change."""
    for name in ("extractors", "schema", "stages"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "prepare_data.py", folder)
    (folder / "scenes").mkdir()
    for number in range(3):
        (folder / "scenes" / f"{number}.py").write_text(record(number)["code"])
    (folder / "scenes" / "odd.py").write_bytes(b"\xff")
    return folder


def run(folder, *arguments, check):
    command = [sys.executable, str(folder / "prepare_data.py"), *arguments]
    done = subprocess.run(command, cwd=folder, env=CLEAN | {"HOME": str(folder)}, capture_output=True, text=True)
    assert done.returncode == check, done.stderr
    return done


def test_six_lines_of_yaml_add_a_data_set(tmp_path):
    (block,) = BLOCKS["yaml"]
    assert len(block.splitlines()) == 6
    (tmp_path / "sources.yaml").write_text(block)
    with (tmp_path / "my_scenes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "python_code", "level"])
        for number in range(4):
            code = record(number)["code"]
            writer.writerow([f"Draw scene {number}.", code, "easy"])
    script, *arguments = BLOCKS["bash"][0].split()[1:]
    assert "4 in, " in run_script(script, *arguments, cwd=tmp_path, check=0).err
    found = [row for name in ("train", "test") for row in read_rows(tmp_path / "data_mine" / f"{name}.json")]
    assert {row["source"] for row in found} == {"my_scenes"}
    assert {(row["metadata"]["licence"], row["metadata"]["level"]) for row in found} == {("CC-BY-4.0", "easy")}
    (tmp_path / "sources.yaml").write_text(block.replace("code_field", "code_feild"))
    told = run_script(script, *arguments, cwd=tmp_path, check=2).err
    assert told.replace("yaml:1", "yaml:2") == BLOCKS["text"][0]


def test_a_type_is_one_file_of_thirty_lines_and_nothing_else_knows_of_it(tmp_path):
    assert len(TYPE.strip().splitlines()) <= 30
    folder = checkout(tmp_path)
    (folder / "extractors" / "scripts.py").write_text(TYPE)
    (folder / "sources.yaml").write_text(SCRIPTS_SOURCE)
    done = run(folder, "prepare", check=0)
    assert "mine: 4 rows, 3 records, rejected: 1 not_utf8" in done.stderr
    rows = [row for name in ("train", "test") for row in read_rows(folder / "data_formatted" / f"{name}.json")]
    assert sorted(row["metadata"]["origin"]["path"] for row in rows) == ["0.py", "1.py", "2.py"]
    assert {row["metadata"]["needs_description"] for row in rows} == {True}
    listed = json.loads(run(folder, "list-sources", "--json", check=0).stdout)
    assert (listed["type"], listed["cached"], listed["fault"]) == ("scripts", "unknown", None)
    (folder / "sources.yaml").write_text(SCRIPTS_SOURCE + "  patern: x\n")
    assert "scripts has no option 'patern'; it takes folder, pattern; did you mean pattern?" in (
        run(folder, "prepare", check=2).stderr
    )
    (folder / "sources.yaml").write_text(SCRIPTS_SOURCE.replace("scenes", "gone"))
    assert run(folder, "prepare", check=1).stderr == "Error: mine: gone: no such folder; --keep-going does without it\n"
    assert list(yaml.safe_load(textwrap.dedent(TYPE.split('"""')[1].partition("\n\n")[2]))) == ["my_scripts"]


def test_the_two_functions_beside_it_work_as_they_are_shown(tmp_path):
    folder = checkout(tmp_path)
    extract = "def extract(*, fetch, path: str | None = None):\n    yield {'description': 'x', 'code': 'x = 1'}\n"
    (folder / "extractors" / "shown.py").write_text(f"{HOOKS}\n\n{extract}")
    (folder / "sources.yaml").write_text("one: {type: shown}\ntwo: {type: shown, path: scenes}\n")
    one, two = map(json.loads, run(folder, "list-sources", "--json", check=0).stdout.splitlines())
    assert (one["cached"], two["cached"]) == ("no", "local")
    assert one["lacks"] == ["the key KAGGLE_API_TOKEN (in the environment or in .env)"]
    cache = folder / ".cache" / "manim_datasets" / "shown"
    cache.mkdir(parents=True)
    (cache / "rows.parquet").touch()
    assert json.loads(run(folder, "list-sources", "--json", check=0).stdout.splitlines()[0])["cached"] == "yes"


def test_a_package_of_somebody_else_is_built_installed_and_used(tmp_path):
    pytest.importorskip("setuptools")
    (tmp_path / "work" / "their_package").mkdir(parents=True)
    (tmp_path / "work" / "their_package" / "__init__.py").touch()
    (tmp_path / "work" / "their_package" / "scripts.py").write_text(TYPE)
    (tmp_path / "work" / "pyproject.toml").write_text(BLOCKS["toml"][0])
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    pip += ["--disable-pip-version-check", "--target", str(tmp_path / "site"), str(tmp_path / "work")]
    subprocess.run(pip, env=CLEAN | {"HOME": str(tmp_path)}, check=True, capture_output=True)
    (tmp_path / "scenes").mkdir()
    for number in range(2):
        (tmp_path / "scenes" / f"{number}.py").write_text(record(number)["code"])
    (tmp_path / "sources.yaml").write_text(SCRIPTS_SOURCE)
    env = {"PYTHONPATH": str(tmp_path / "site")}
    assert "2 in, 2 kept" in run_script("prepare_data.py", "prepare", cwd=tmp_path, check=0, env=env).err
    assert "no type 'scripts'" in run_script("prepare_data.py", "prepare", cwd=tmp_path, check=2).err


def test_a_type_may_fill_one_dict_again_and_again(tmp_path):
    folder = checkout(tmp_path)
    (folder / "extractors" / "same.py").write_text(
        "def extract(*, fetch, count: int = 3):\n"
        "    row = {'description': '', 'code': '', 'metadata': {}}\n"
        "    for number in range(count):\n"
        "        row['description'], row['metadata']['number'] = f'Draw scene {number}.', number\n"
        "        row['code'] = f'from manim import *\\n\\n\\nclass S{number}(Scene):\\n    def construct(self):\\n'\n"
        "        row['code'] += f'        self.add(Text(\"{number * 7}\"))\\n'\n"
        "        yield row\n"
    )
    (folder / "sources.yaml").write_text("mine: {type: same, licence: MIT}\n")
    run(folder, "prepare", "--near-threshold", "1", "--test-ratio", "0", "--output-dir", "out", check=0)
    rows = read_rows(folder / "out" / "train.json")
    assert [(row["description"], row["metadata"]["number"]) for row in rows] == [
        (f"Draw scene {number}.", number) for number in range(3)
    ]


@pytest.mark.parametrize("kind", extractors.types())
def test_every_option_of_a_type_is_explained_where_the_type_is(kind):
    extract = extractors.load(kind)
    about = sys.modules[extract.__module__].__doc__
    options = [name for name in inspect.signature(extract).parameters if name != "fetch"]
    assert [name for name in options if not re.search(rf"\b{name}\b", about)] == []
    page = (ROOT / "docs" / "source-types.md").read_text("utf-8").partition(f"\n## {kind}\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == options
    (row,) = re.findall(rf"^\| \[`{kind}`\].*\| (.*) \|$", PAGE, re.MULTILINE)
    assert row.replace("`", "").split() == options


@pytest.mark.parametrize("kind", extractors.types())
def test_the_example_of_a_type_is_yaml_with_options_that_it_has(kind):
    extract = extractors.load(kind)
    example = re.search(r"\n\n((?:    .*\n)+)", sys.modules[extract.__module__].__doc__)[1]
    lines = [line for line in example.splitlines() if not re.match(r"\s+\w+, \w+", line)]
    ((_, entry),) = yaml.safe_load(textwrap.dedent("\n".join(lines))).items()
    assert entry.pop("type") == kind
    assert entry.keys() <= inspect.signature(extract).parameters.keys()
