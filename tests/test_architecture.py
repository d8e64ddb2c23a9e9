"""Who may import whom: stages meet in files, so no stage imports another."""

from __future__ import annotations

import ast
import sys

import pytest
from conftest import ROOT

OURS = {"schema", "stages", "extractors"}
SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py"))
FILES = sorted(
    path
    for folder in (".", "schema", "stages", "extractors", "finetune_project")
    for path in (ROOT / folder).rglob("*.py")
    if not any(part.startswith(".") or part in ("tests", "bench", "docs") for part in path.relative_to(ROOT).parts)
)
HEAVY = {
    "torch",
    "transformers",
    "datasets",
    "openai",
    "anthropic",
    "bs4",
    "trl",
    "peft",
    "numpy",
    "pyarrow",
    "diskcache",
    "rich",
    "jq",
    "yaml",
    "jsonschema",
    "pymupdf",
    "pymupdf4llm",
    "pypdf",
    "docx",
    "manim",
    "scipy",
    "PIL",
}


def imports(path, *, top_only=False):
    """Every module that a file imports, also inside functions; relative imports spelled out."""
    tree = ast.parse(path.read_text("utf-8"))
    package = list(path.relative_to(ROOT).parent.parts)
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            # `from stages import train` imports stages.train
            yield from (f"{module}.{name.name}" for name in node.names) if module in OURS else [module]


def allowed(path):
    """The prefixes of our own modules that a file may import."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    if len(parts) == 1:
        return ["schema", f"stages.{parts[0]}", *(["extractors"] if parts[0] == "prepare_data" else [])]
    if parts[0] == "stages":
        return ["schema", f"stages.{parts[1]}"]
    return ["extractors._"] if parts[0] == "extractors" else ["schema"]


def breaks_the_rules(path, module):
    root = module.split(".")[0]
    if root in SCRIPTS:
        return True
    if root not in OURS:
        return False
    prefixes = allowed(path)
    return not any(
        module == prefix or module.startswith(prefix + "." if not prefix.endswith("_") else prefix)
        for prefix in prefixes
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_what_the_design_allows(path):
    assert [module for module in imports(path) if breaks_the_rules(path, module)] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_imports_a_heavy_package_before_it_is_needed(path):
    if path.parent == ROOT / "stages" / "filter_quality" / "render" / "quicker":
        pytest.skip("no module imports it: the server of the render gate runs it, which is there for Manim alone")
    assert {module.split(".")[0] for module in imports(path, top_only=True)} & HEAVY == set()


def test_the_rules_bite():
    assert breaks_the_rules(ROOT / "train.py", "filter_quality")
    assert breaks_the_rules(ROOT / "train.py", "stages.filter_quality.rules")
    assert breaks_the_rules(ROOT / "train.py", "extractors")
    assert breaks_the_rules(ROOT / "schema" / "_record.py", "stages.train")
    assert breaks_the_rules(ROOT / "extractors" / "local.py", "schema")
    assert breaks_the_rules(ROOT / "extractors" / "local.py", "extractors.manim_package")
    assert not breaks_the_rules(ROOT / "extractors" / "local.py", "extractors._rows")
    assert not breaks_the_rules(ROOT / "prepare_data.py", "extractors")


def test_every_module_says_what_it_is_for():
    silent = [
        str(path.relative_to(ROOT))
        for path in FILES
        if path.name != "__init__.py" and not ast.get_docstring(ast.parse(path.read_text("utf-8")))
    ]
    assert silent == []


def functions():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1


def test_functions_and_files_stay_readable():
    assert [(name, length) for name, length in functions() if length > 60] == []
    long = {}
    for path in FILES:
        lines = path.read_text("utf-8").split("\n")
        code = sum(1 for line in lines if line.strip() and not line.strip().startswith("#"))
        if code > 300:
            long[str(path.relative_to(ROOT))] = code
    assert long == {}


def test_only_the_standard_library_and_declared_packages_are_imported():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    assert len(project["dependencies"]) <= 9
    names = {name.split(">")[0].split("[")[0].strip().lower().replace("-", "_") for name in declared}
    renamed = {"yaml": "pyyaml", "bs4": "beautifulsoup4", "docx": "python_docx", "PIL": "pillow"}
    renamed |= {"llama_cpp": "llama_cpp_python"}
    used = {module.split(".")[0] for path in FILES for module in imports(path)}
    foreign = {name for name in used if name not in sys.stdlib_module_names and name not in OURS}
    assert {renamed.get(name, name) for name in foreign} - names == set()
