"""What the sources say of themselves before the first byte: what they need, what is at hand, and what is enabled."""

from __future__ import annotations

import functools
import http.server
import inspect
import json
import os
import signal
import subprocess
import sys
import threading
import time

import click
import pytest
import yaml
from conftest import CLEAN, ROOT, read_rows, record, run_script, write_rows
from fake_hubs import HuggingFace, Kaggle
from test_extractors import EXAMPLE, make_wheel
from test_extractors_github import make_repository, scene
from test_extractors_hubs import FILES, kaggle_environment
from test_extractors_notebook import notebook
from test_prepare_data import package

import extractors
from extractors import Fetch, load, offer
from extractors._hub_net import innermost

SHIPPED = yaml.safe_load((ROOT / "sources.yaml").read_text("utf-8"))
# An address that answers at once, and never with anything: no network, as a program sees it.
NOWHERE = {
    "HF_HUB_OFFLINE": "0",
    "PIP_CONFIG_FILE": "/dev/null",
    **{name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")},
}


def prepare(folder, *arguments, check, env=None):
    return run_script("prepare_data.py", "prepare", *arguments, cwd=folder, check=check, env=env)


def listed(folder, env=None):
    done = run_script("prepare_data.py", "list-sources", "--json", cwd=folder, check=0, env=env)
    return {fact["name"]: fact for fact in map(json.loads, done.out.splitlines())}


def state(kind, function, tmp_path, **options):
    """What `needs` or `is_cached` of a type says, asked as the driver asks it."""
    extract = load(kind)
    fetch = Fetch(tmp_path / "cache", refresh=options.pop("refresh", False))
    bound = inspect.signature(extract).bind_partial(**options)
    bound.apply_defaults()
    ask = offer(extract, function)
    arguments = {**bound.arguments, "fetch": fetch}
    return ask(**{name: arguments[name] for name in inspect.signature(ask).parameters if name in arguments})


# --- what is needed -------------------------------------------------------------------------------------------------

# Loaded before every script: these packages are not there.
NOT_INSTALLED = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in GONE:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Nothing())
"""
GONE = ["bs4", "docx", "httpx2", "huggingface_hub", "kagglehub", "pip", "pyarrow", "pymupdf", "pymupdf4llm", "requests"]
ONE_OF_EACH = """
package: {type: manim_package}
rows: {type: local, path: rows.parquet}
hub: {type: huggingface, dataset: own/set, needs_key: true}
kaggle: {type: kaggle, dataset: own/set, needs_key: true}
code: {type: github, repo: own/code}
lessons: {type: notebook, repo: own/lessons}
site: {type: manim_docs}
texts: {type: documents, path: texts}
papers: {type: arxiv}
"""


def bare_machine(folder):
    """An environment without the packages, the keys and the programs."""
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(f"GONE = {GONE}\n{NOT_INSTALLED}")
    return {"PYTHONPATH": f"{folder / 'site'}:{ROOT / 'tests' / 'without_manim'}", "PATH": str(folder)}


def test_one_message_names_everything_that_any_type_lacks(tmp_path):
    (tmp_path / "sources.yaml").write_text(ONE_OF_EACH)
    assert sorted(fact["type"] for fact in listed(tmp_path).values()) == extractors.types()
    (tmp_path / "rows.parquet").touch()
    for name in ("a.pdf", "b.docx", "c.html"):
        (tmp_path / "texts").mkdir(exist_ok=True)
        (tmp_path / "texts" / name).touch()
    done = prepare(tmp_path, check=2, env=bare_machine(tmp_path))
    assert done.err.count("\n") == 1
    told = done.err.partition("needed: ")[2].strip().split("; ")
    sources, docs = "(pip install 'linemill[sources]')", "(pip install 'linemill[docs]')"
    key = "(in the environment or in .env)"
    assert told == [
        "the package pip for package",
        f"the package pyarrow {sources} for rows, hub, kaggle",
        f"the package httpx2 {sources} for hub",
        f"the package huggingface_hub {sources} for hub",
        f"the key HF_TOKEN {key} for hub",
        f"the package kagglehub {sources} for kaggle",
        f"the package requests {sources} for kaggle, site",
        f"the key KAGGLE_USERNAME {key} for kaggle",
        f"the key KAGGLE_KEY {key} for kaggle",
        "the program git (on the PATH) for code, lessons",
        f"the package bs4 {sources} for site",
        f"the package bs4 {docs} for texts",
        f"the package docx {docs} for texts",
        f"the package pymupdf {docs} for texts, papers",
        f"the package pymupdf4llm {docs} for texts, papers",
        f"the package requests {docs} for papers",
        "--keep-going does without",
    ]
    assert not (tmp_path / "data_formatted").exists() and not (tmp_path / ".cache").exists()


def test_a_local_copy_needs_no_program_no_key_and_no_client(tmp_path):
    lines = ["package: {type: manim_package, path: x}", "hub: {type: huggingface, dataset: a/b, path: rows.csv}"]
    lines += ["kaggle: {type: kaggle, dataset: a/b, path: rows.csv, needs_key: true}"]
    lines += ["code: {type: github, path: x}", "lessons: {type: notebook, path: x}"]
    (tmp_path / "sources.yaml").write_text("\n".join([*lines, "rows: {type: local, path: rows.csv}"]))
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    assert {
        name: fact["lacks"] for name, fact in listed(tmp_path, bare_machine(tmp_path)).items() if fact["lacks"]
    } == {}


@pytest.mark.parametrize("where", ["~/.kaggle/kaggle.json", "~/.kaggle/access_token", ".env", "nowhere"])
def test_a_key_of_kaggle_is_found_where_its_client_finds_it(tmp_path, where):
    (tmp_path / "sources.yaml").write_text("kaggle: {type: kaggle, dataset: own/set, needs_key: true}\n")
    (tmp_path / ".kaggle").mkdir()
    if where != "nowhere":
        path = tmp_path / where.removeprefix("~/")
        path.write_text("KAGGLE_USERNAME=me\nKAGGLE_KEY=secret\n" if where == ".env" else "{}")
    lacks = listed(tmp_path)["kaggle"]["lacks"]
    assert [thing.split()[2] for thing in lacks] == (["KAGGLE_USERNAME", "KAGGLE_KEY"] if where == "nowhere" else [])


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("local", "path: '**x.csv'", "path: **x.csv: Invalid pattern"),
        ("github", "revision: main", "name the place with one of 'repo', 'url' and 'path'"),
        ("notebook", "repo: nobody", "repo 'nobody' is no OWNER/NAME"),
        ("github", "url: --upload-pack=x", "--upload-pack=x : a url or a revision does not begin"),
    ],
)
def test_a_place_that_can_be_none_is_named_with_its_line_before_anything_is_read(tmp_path, kind, options, message):
    write_rows(tmp_path / "a.jsonl", [record(1), record(2)])
    (tmp_path / "sources.yaml").write_text(f"a: {{type: local, path: a.jsonl}}\nb:\n  type: {kind}\n  {options}\n")
    for more in ([], ["--keep-going"]):
        done = prepare(tmp_path, *more, check=2)
        assert f"sources.yaml:2: b: {message}" in done.err, done.err
        assert done.err.count("\n") == 1
    assert message in listed(tmp_path)["b"]["fault"]


@pytest.mark.parametrize("function", ["needs", "is_cached"])
def test_a_fault_in_what_a_type_says_of_itself_is_named_with_the_type(tmp_path, function):
    text = f"def {function}(**others):\n    return {{}}['x']\n\ndef extract(*, path: str = 'p'):\n    yield {{}}\n"
    env = {"PYTHONPATH": str(package(tmp_path / "site", "faulty", text))}
    (tmp_path / "sources.yaml").write_text("a: {type: faulty}\n")
    message = f"sources.yaml:1: a: the function {function} of the type faulty fails: KeyError: 'x'"
    assert listed(tmp_path, env)["a"]["fault"] == message
    if function == "needs":
        assert prepare(tmp_path, check=2, env=env).err == f"Error: {message}\n"


# --- what is at hand ------------------------------------------------------------------------------------------------


def test_the_list_tells_files_that_are_there_from_files_that_are_not(tmp_path):
    kinds = {"rows": "local", "texts": "documents", "papers": "arxiv", "code": "github", "lessons": "notebook"}
    kinds |= {"hub": "huggingface, dataset: a/b", "kaggle": "kaggle, dataset: a/b"}
    kinds |= {"site": "manim_docs", "package": "manim_package"}
    lines = [f"{name}: {{type: {kind}, path: {name}.d}}" for name, kind in kinds.items()]
    (tmp_path / "sources.yaml").write_text("\n".join(lines))
    assert {fact["cached"] for fact in listed(tmp_path).values()} == {"missing"}
    for name in kinds:
        (tmp_path / f"{name}.d").mkdir()
    # A folder without any file of the right kind is nothing to read either.
    empty = {name for name, fact in listed(tmp_path).items() if fact["cached"] == "missing"}
    assert empty == {"rows", "texts", "papers", "hub"}
    for name in ("rows.d/a.jsonl.gz", "texts.d/a.txt", "papers.d/a.pdf", "hub.d/train.csv"):
        (tmp_path / name).touch()
    assert {fact["cached"] for fact in listed(tmp_path).values()} == {"local"}
    text = run_script("prepare_data.py", "list-sources", cwd=tmp_path, check=0).out
    assert text.count(" local files ") == len(kinds)


def test_the_list_knows_what_an_earlier_run_has_fetched(tmp_path):
    """Hubs, repositories, a wheel and a site on this machine; not the network, but everything else."""
    make_repository(tmp_path / "code", {"a.py": scene("A"), "b.ipynb": notebook()})
    make_wheel(tmp_path / "index" / "manim-0.22.0-py3-none-any.whl", {"manim/shape.py": EXAMPLE})
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "index.html").write_text("<html><body><p>Nothing here.</p></body></html>")
    shop = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "index"), "PIP_CONFIG_FILE": "/dev/null"}
    with (
        HuggingFace(FILES).serve() as hub,
        Kaggle({"train.csv": FILES["train.csv"]}).serve() as other,
        web(tmp_path / "web") as address,
    ):
        lines = ["package: {type: manim_package}", "hub: {type: huggingface, dataset: own/set}"]
        lines += ["kaggle: {type: kaggle, dataset: own/set, file: train.csv}"]
        lines += [f"{kind}: {{type: {kind}, url: '{(tmp_path / 'code').as_uri()}'}}" for kind in ("github", "notebook")]
        lines += [f"site: {{type: manim_docs, url: '{address}', delay: 0.01}}"]
        (tmp_path / "sources.yaml").write_text("\n".join(lines))
        assert {name: fact["cached"] for name, fact in listed(tmp_path).items() if fact["cached"] != "no"} == {}
        env = shop | kaggle_environment(other) | {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
        prepare(tmp_path, check=0, env=env)
    assert {name: fact["cached"] for name, fact in listed(tmp_path).items() if fact["cached"] != "yes"} == {}
    # What is here needs no installer, no client, no program.
    lacks = {name: fact["lacks"] for name, fact in listed(tmp_path, bare_machine(tmp_path)).items() if fact["lacks"]}
    assert list(lacks) == ["site"] and "bs4" in lacks["site"][0]
    prepare(tmp_path, "--offline", check=0)
    (cached,) = (tmp_path / ".cache" / "manim_datasets" / "huggingface").glob("*/*/train.csv")
    cached.unlink()
    assert listed(tmp_path)["hub"]["cached"] == "no"


class web:
    """A folder over HTTP."""

    def __init__(self, folder):
        quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=str(folder)))

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}/"

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def test_papers_are_at_hand_when_their_list_and_all_files_are(tmp_path):
    from test_extractors_arxiv import Arxiv  # it needs an extra, which the other tests here do without

    arxiv = Arxiv()
    options = {"api_url": f"{arxiv.url}/api/query", "categories": ["cs.LG"], "oai_url": None}
    fetch = Fetch(tmp_path / "cache")
    try:
        assert state("arxiv", "is_cached", tmp_path, **options) is False
        list(load("arxiv")(fetch=fetch, delay=0, figures=False, **options))
        asked = len(arxiv.asked)
        assert state("arxiv", "is_cached", tmp_path, **options) is True
        assert state("arxiv", "is_cached", tmp_path, **options, refresh=True) is False
        next((tmp_path / "cache").glob("pdf/*.pdf")).unlink()
        assert state("arxiv", "is_cached", tmp_path, **options) is False
        assert len(arxiv.asked) == asked
    finally:
        arxiv.server.shutdown()
        arxiv.server.server_close()


def test_a_site_that_was_read_in_part_is_not_at_hand(tmp_path):
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "index.html").write_text("<html><body><a href='next.html'>x</a></body></html>")
    (tmp_path / "web" / "next.html").write_text("<html><body><pre>class A(Scene):\n  x\n  y\n</pre></body></html>")
    with web(tmp_path / "web") as address:
        options = {"url": address, "delay": 0.01}
        reading = load("manim_docs")(fetch=Fetch(tmp_path / "cache"), **options)
        next(reading)
        reading.close()
        assert state("manim_docs", "is_cached", tmp_path, **options) is False
        list(load("manim_docs")(fetch=Fetch(tmp_path / "cache"), **options))
    assert state("manim_docs", "is_cached", tmp_path, **options) is True
    assert state("manim_docs", "is_cached", tmp_path, **options, max_pages=5) is False


# --- sources.yaml as it comes -----------------------------------------------------------------------------------------

OFF = {"thanks_dataset_code", "manimbench_cleaned", "szymon_ozog", "likey_data_structures", "arxiv_papers", "documents"}
ROADMAP = {"manim_physics", "kilacoda"}


def test_all_covers_every_public_source_and_the_others_say_why_not():
    off = {name for name, entry in SHIPPED.items() if entry.get("type") and not entry.get("enabled", True)}
    assert off == OFF | ROADMAP
    on = {name for name, entry in SHIPPED.items() if entry.get("enabled", True)}
    wanted = "edoh bespoke_manim thanks_dataset manim_codegen manimbench manim_docs manim_package dan4life_aoc2024"
    wanted += " reducible benjamin_hackl kutuzova xiaoxiae_videos generative_manim manim_ml manim_chemistry"
    assert set(wanted.split()) <= on
    assert all(entry.get("reason") for entry in SHIPPED.values() if not entry.get("enabled", True))


def test_of_equal_records_the_one_of_the_more_careful_source_stays():
    names = ["manim_docs", "manimbench", "bespoke_manim", "thanks_dataset", "manim_codegen"]
    priorities = [SHIPPED[name]["priority"] for name in names]
    assert priorities == sorted(set(priorities), reverse=True)
    assert SHIPPED["manim_package"]["priority"] == SHIPPED["manim_docs"]["priority"]


def test_every_source_says_its_options_in_the_same_order():
    first, last = ["type", "enabled", "reason"], ["priority", "expected_samples", "licence"]
    for name, entry in SHIPPED.items():
        own = [key for key in entry if key not in first + last]
        assert list(entry) == [key for key in [*first, *own, *last] if key in entry], name


def with_mine(folder):
    """The sources as they come, and two rows of our own."""
    write_rows(folder / "mine.jsonl", [record(1), record(2)])
    text = (ROOT / "sources.yaml").read_text("utf-8") + "\nmine:\n  type: local\n  path: mine.jsonl\n"
    (folder / "sources.yaml").write_text(text.replace("  url: https://docs", "  delay: 0.1\n  url: https://docs"))


def test_without_key_and_network_all_sources_end_with_one_clear_message(tmp_path):
    began = time.monotonic()
    done = prepare(tmp_path, "--sources", "all", check=1, env=NOWHERE)
    assert done.err == (
        "Error: manim_package: pip download manim==0.22.0: no connection to the package index;"
        " or give the wheel with 'path: FILE'; --keep-going does without it\n"
    )
    assert time.monotonic() - began < 60
    assert not (tmp_path / "data_formatted").exists()


def test_without_network_keep_going_names_every_missing_source_in_summary_and_ledger(tmp_path):
    with_mine(tmp_path)
    began = time.monotonic()
    done = prepare(tmp_path, "--sources", "all", "--keep-going", "--workers", "4", check=3, env=NOWHERE)
    assert time.monotonic() - began < 90
    gone = [name for name, entry in SHIPPED.items() if entry.get("enabled", True)]
    assert len(gone) > 12
    assert done.err.splitlines()[-1].startswith(f"Error: missing: {', '.join(gone)} (the first: manim_package: ")
    assert all(f"  {name}: MISSING: " in done.err for name in gone)
    ledger = json.loads((tmp_path / "data_formatted" / "ledger.json").read_bytes())
    assert list(ledger["extra"]["missing"]) == gone
    assert "no connection to https://huggingface.co" in ledger["extra"]["missing"]["edoh"]
    assert "no connection to Kaggle" in ledger["extra"]["missing"]["manimbench"]
    assert len(read_rows(tmp_path / "data_formatted" / "train.json")) == 1


def test_a_hub_that_says_nothing_is_told_by_what_happened_and_not_by_who_noticed():
    inner = OSError("nobody there")
    outer = ValueError("could not", inner)
    outer.reason = ConnectionError(inner)
    assert innermost(outer) == "nobody there"
    assert innermost(ValueError()) == "ValueError"


# --- a run that is stopped -------------------------------------------------------------------------------------------

SLOW_GIT = """#!/bin/sh
for last; do :; done
case "$*" in *init*) mkdir "$last"; exit;; esac
sleep 300 &
echo "$$ $!" >> "$MARK"
wait
"""


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_ends_the_programs_that_it_started_with_their_children(tmp_path, workers, how):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").write_text(SLOW_GIT)
    (tmp_path / "bin" / "git").chmod(0o755)
    (tmp_path / "sources.yaml").write_text("a: {type: github, repo: a/a}\nb: {type: notebook, repo: a/b}\n")
    env = CLEAN | {"HOME": str(tmp_path), "MARK": str(tmp_path / "mark"), "PATH": f"{tmp_path}/bin:{CLEAN['PATH']}"}
    command = [sys.executable, str(ROOT / "prepare_data.py"), "prepare", "--workers", str(workers)]
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE)
    until = time.monotonic() + 20
    while len(started(tmp_path)) < 2 * workers and time.monotonic() < until:
        time.sleep(0.02)
    assert len(started(tmp_path)) == 2 * workers
    process.send_signal(how)
    error = process.communicate(timeout=30)[1].decode()
    assert (process.returncode, error.strip().count("\n")) == (130, 0), error
    until = time.monotonic() + 10  # the system takes its time to end what was killed
    while any(map(is_running, started(tmp_path))) and time.monotonic() < until:
        time.sleep(0.02)
    assert [number for number in started(tmp_path) if is_running(number)] == []
    assert [path for path in (tmp_path / ".cache").rglob("*") if not path.is_dir()] == []


def started(folder):
    return [int(number) for number in (folder / "mark").read_text().split()] if (folder / "mark").exists() else []


def is_running(number):
    """Not what is dead already, and only waits for somebody to notice."""
    try:
        os.kill(number, 0)
        with open(f"/proc/{number}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_a_server_that_never_answers_is_given_up(tmp_path, monkeypatch):
    (tmp_path / "git").write_text(SLOW_GIT)
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    monkeypatch.setattr("extractors._repository._LONGEST_SILENCE", 0.5)
    with pytest.raises(click.ClickException, match=r"github\.com/a/a: no answer within 0\.5 seconds; or give a folder"):
        list(load("github")(fetch=Fetch(tmp_path / "cache"), repo="a/a"))
    until = time.monotonic() + 20  # a child that was ended is not gone at once on a busy machine
    while any(map(is_running, started(tmp_path))) and time.monotonic() < until:
        time.sleep(0.02)
    assert [number for number in started(tmp_path) if is_running(number)] == []
