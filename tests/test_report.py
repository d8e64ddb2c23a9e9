"""The page about a run, the state of its files, and the card: they say what the ledgers say, and what is missing."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from conftest import read_rows, record, run_script, write_rows
from fake_hubs import ModelHub

import schema
from stages.report import browser, drawing, flow, ledgers, markup

EVIL = "</script><script>alert(1)</script><!--@blocks@--><img src=x onerror=alert(1)>\"'&amp;"
SOURCES = "".join(
    f"{name}:\n  type: local\n  path: {name}.jsonl\n  priority: {priority}\n{licence}"
    for name, priority, licence in (("first", 2, "  licence: MIT\n"), ("second", 1, ""))
)


def rows_of_sources():
    """Scenes, some of them twice, one broken, and texts that would like to be markup."""
    first = [record(number) for number in range(24)]
    first[0]["description"] += EVIL
    first[1]["code"] += f"\n# {EVIL}\n"
    first[2]["metadata"]["origin"] = {"path": EVIL}
    first.append(record(90, code="this is no Python (\n"))
    second = [record(number) for number in range(20, 30)]
    second += [{**record(3), "description": "The third scene, once more, in words of its own."}]
    return first, second


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of all data stages, as `make` starts them."""
    place = tmp_path_factory.mktemp("run")
    for name, rows in zip(("first", "second"), rows_of_sources(), strict=True):
        write_rows(place / f"{name}.jsonl", rows)
    (place / "sources.yaml").write_text(SOURCES)
    run_script("prepare_data.py", "prepare", "--near-threshold", "1", "--test-ratio", "0.3", cwd=place, check=0)
    for side in ("train", "test"):
        names = {step: f"data_{step}/{side}.json" for step in ("formatted", "enhanced", "filtered")}
        describe = ("generate-descriptions", "--llm", "offline", "--all")
        between = ("--input", names["formatted"], "--output", names["enhanced"])
        run_script("prepare_data_with_llm.py", *describe, *between, cwd=place, check=0)
        run_script("filter_quality.py", "--input", names["enhanced"], "--output", names["filtered"], cwd=place, check=0)
    split = ("--input", "data_filtered/train.json", "--output-dir", "data_split", "--ratios", "70/30")
    run_script("split_data.py", *split, "--near-threshold", "1", cwd=place, check=0)
    return place


@pytest.fixture
def run(made, tmp_path):
    """A copy of the run, to change."""
    return shutil.copytree(made, tmp_path / "copy")


def trained(place):
    """What a training and an evaluation leave."""
    folder = place / "runs" / "default"
    (folder / "evaluation" / "frames").mkdir(parents=True)
    curve = [{"step": step, "loss": 4 / step, "learning_rate": 0.1} for step in range(1, 9)] + [
        {"step": 8, "eval_loss": 1}
    ]
    write_rows(folder / "metrics.jsonl", curve)
    common = {"reasons": {}, "options": {"model": {"name": "tiny"}}}
    count = len(read_rows(place / "data_split" / "train.jsonl"))
    schema.write_ledger(
        folder / "ledger.json", stage="train", inputs=[place / "data_split" / "train.jsonl"], outputs=[], **common,
        counts={"in": count, "kept": count, "rejected": 0, "merged": 0}, files=[folder / "metrics.jsonl"],
        extra={"trained_rows": count},
    )  # fmt: skip
    answer = record(1, description=EVIL, code=EVIL)
    answer["metadata"] |= {"id": "a" * 64, "reference": "x = 1", "render": {"ok": True, "frame": "a.png"}}
    evaluation = folder / "evaluation"
    write_rows(evaluation / "tagged.jsonl", [answer])
    (evaluation / "frames" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    rate = {"passed": 1, "n": 2, "rate": 0.5, "low": 0.1, "high": 0.9}
    (evaluation / "scores.json").write_text(json.dumps({"syntax": rate, "rows": 2}))
    schema.write_ledger(
        evaluation / "scores.ledger.json", stage="evaluate_model", inputs=[evaluation / "tagged.jsonl"], outputs=[],
        files=[evaluation / "scores.json"], counts={"in": 2, "kept": 2, "rejected": 0, "merged": 0}, **common,
    )  # fmt: skip
    return folder


def report(place, *more, check=0):
    done = run_script("report.py", "report", "--output", "page.html", *more, cwd=place, check=check)
    return (place / "page.html").read_text("utf-8") if check == 0 else done.err


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.data = [], [], {}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words.append(data)
        if self.tags and self.tags[-1][0] == "script":
            self.data.setdefault(self.tags[-1][1].get("id") or self.tags[-1][1].get("class"), []).append(data)

    def rows(self):
        """The embedded rows, with the names in place of their numbers."""
        tables = json.loads("".join(self.data["tables"]))
        packed = [
            json.loads(gzip.decompress(base64.b64decode(block)))
            for block in self.data.get("block", [])
            if block.strip()
        ]
        return tables, [row for block in packed for row in block]


def everywhere(place):
    """Every row of the files that rows end in."""
    names = ["data_formatted/removed_duplicates.json", "data_formatted/rejects.jsonl", "data_filtered/test.json"]
    names += ["data_filtered/train.rejects.jsonl", "data_filtered/test.rejects.jsonl"]
    names += ["data_split/train.jsonl", "data_split/valid.jsonl", "data_split/rejects.jsonl"]
    return [row for name in names for row in read_rows(place / name)]


# --- the page ---------------------------------------------------------------------------------------------------------
def test_every_row_of_the_run_is_in_the_page_and_no_row_twice(run):
    tables, rows = Page(report(run)).rows()
    written = everywhere(run)
    total = json.loads((run / "data_formatted" / "ledger.json").read_text())["counts"]["in"]
    assert len(rows) == len(written) == total == 36
    assert Counter(row[0] for row in rows) == Counter(row["metadata"].get("id", "")[:16] for row in written)
    assert {row[7] for row in rows} == {row["description"] for row in written}
    assert {row[8] for row in rows} == {row["code"] for row in written}
    assert tables["limit"] is None
    ended = Counter(tables["fates"][row[4]] for row in rows)
    counts = [json.loads(path.read_text())["counts"] for path in sorted(run.glob("data_*/*ledger.json"))]
    assert ended["rejected"] == sum(one["rejected"] for one in counts) > 0
    assert ended["merged"] == sum(one["merged"] for one in counts) == 5


def test_a_row_carries_its_history(run):
    tables, rows = Page(report(run)).rows()
    row = next(row for row in rows if tables["ends"][row[4]] == "data_split/train.jsonl")
    steps = [tables["steps"][place].split(" ")[0] for place, *_ in row[11]["lineage"]]
    assert steps == ["prepare_data", "generate-descriptions", "filter_quality", "split_data"]
    assert row[11]["before"].startswith("Create a Manim animation that draws")
    assert row[11]["author"] == "offline/1"


def test_what_a_record_holds_stays_text(run):
    trained(run)
    page = Page(report(run))
    kinds = [attributes.get("id") or attributes.get("class") for tag, attributes in page.tags if tag == "script"]
    assert kinds == ["tables", "worker", "block", None]
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert "style" not in attributes
        assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
        assert attributes.get("href", "#").startswith("#") or attributes["href"] == "runs/default/evaluation/index.html"
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object", "base", "embed"}
    assert any(EVIL in words for words in page.words)
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy


ODD = [5, "text", [1, [2]], {"a": {"b": 1}}, None, True, {"score": "high", "issues": 3, "ok": "yes", "code": [1]}, [{}]]
OURS = ["quality", "render", "lineage", "origin", "fixes_applied", "duplicate_of", "licence", "original_description"]


def test_metadata_of_any_shape_is_no_reason_to_fail(tmp_path):
    """Others may use our names for what they like."""
    rows = [
        record(number, metadata={"kind": "code", **dict.fromkeys(OURS[:-1], odd)}) for number, odd in enumerate(ODD)
    ]
    for row in rows:
        row["metadata"]["id"] = "x"
    write_rows(tmp_path / "out" / "x.json", rows)
    write_rows(tmp_path / "out" / "removed_duplicates.json", [{**row, "metadata": {"error": 1}} for row in rows])
    schema.write_ledger(
        tmp_path / "out" / "x.ledger.json", stage="other", inputs=[], outputs=[tmp_path / "out" / "x.json"], reasons={},
        counts={"in": 8, "kept": 8, "rejected": 0, "merged": 0}, options={}, extra={"llm": 5},
        files=[tmp_path / "out" / "removed_duplicates.json"],
    )  # fmt: skip
    assert len(Page(report(tmp_path, "out")).rows()[1]) == 16
    run_script("report.py", "card", "out", "--output", "card", cwd=tmp_path, check=0)
    run_script("report.py", "status", "out", cwd=tmp_path, check=0)


def test_two_pages_of_one_run_are_the_same_bytes(run):
    trained(run)
    assert report(run) == report(run)


def test_a_stage_that_has_not_run_is_said(run):
    text = report(run)
    for words in ("<code>make train</code> makes one", "<code>make evaluate</code> does it", "No pictures"):
        assert words in text
    for name in ("data_filtered", "data_split", "data_enhanced"):
        shutil.rmtree(run / name)
    text = report(run)
    assert "No row has a score yet: <code>make filter</code> gives them." in text
    assert "No description that a source brought was written anew." in text
    shutil.rmtree(run / "data_formatted")
    done = run_script("report.py", "report", cwd=run, check=1)
    assert done.err.startswith("Error: no ledger in data_formatted")
    assert len(done.err.splitlines()) == 1


def test_the_training_and_the_evaluation_are_drawn(run):
    trained(run)
    text = report(run)
    assert "Loss by step; at the end trained 0.5, held out 1" in text
    assert "1 of 2" in text
    assert "The last picture of 1 programs" in text
    assert text.count("<img ") == 1


def test_a_file_that_was_changed_is_named_on_the_page(run):
    assert 'class="warning"' not in report(run)
    rows = read_rows(run / "data_split" / "valid.jsonl")
    write_rows(run / "data_split" / "valid.jsonl", rows[1:])
    assert "data_split/train.jsonl: changed, data_split/valid.jsonl is not what its ledger says" in report(run)


def test_a_damaged_file_is_one_line(run):
    with (run / "data_split" / "valid.jsonl").open("ab") as file:
        file.write(b"{nonsense\n")
    assert re.search(r"^Error: .*valid.jsonl: line \d+ is not JSON: .*run the stage again$", report(run, check=1))


@pytest.mark.parametrize("name", ["x.json", "x.jsonl.gz", "x.jsonl.zst"])
def test_a_single_file_of_a_single_stage_has_a_page_too(tmp_path, name):
    write_rows(tmp_path / "in.jsonl", [record(number) for number in range(12)])
    run_script("filter_quality.py", "--input", "in.jsonl", "--output", f"out/{name}", cwd=tmp_path, check=0)
    _, rows = Page(report(tmp_path, "out")).rows()
    assert len(rows) == 12


def test_a_file_in_the_shape_of_a_trainer_is_shown_as_rows(run):
    split = ("--input", "data_filtered/train.json", "--output-dir", "chats", "--format", "messages")
    run_script("split_data.py", *split, cwd=run, check=0)
    tables, rows = Page(report(run, "chats")).rows()
    assert len(rows) == len(read_rows(run / "data_filtered" / "train.json"))
    assert tables["sources"] == ["train", "valid"]


def test_rows_that_were_made_of_rows_are_counted_as_rows(tmp_path):
    text = "# Vectors\n\nA vector is a thing with a length and a direction. A matrix is a table of numbers.\n\n"
    document = {"description": "", "source": "book", "metadata": {"kind": "document", "needs_description": True}}
    rows = [{**document, "code": f"{text}Part {number} of it.\n\n" * 4} for number in range(9)]
    write_rows(tmp_path / "in.jsonl", rows)
    generate = ("generate-qa", "--llm", "offline", "--input", "in.jsonl", "--output", "out/qa.json")
    run_script("prepare_data_with_llm.py", *generate, cwd=tmp_path, check=0)
    made = json.loads((tmp_path / "out" / "qa.ledger.json").read_text())["counts"]["made"]
    assert made > 9
    assert len(Page(report(tmp_path, "out")).rows()[1]) == made


def test_the_cost_is_that_of_the_ledger_and_each_row_has_its_receipt(run):
    path = run / "data_enhanced" / "train.ledger.json"
    ledger = json.loads(path.read_text())
    ledger["extra"]["llm"] = {"author": "openai/x", "calls": 3, "usd": 0.25, "usd_earlier": 0.5, "price": "a table"}
    path.write_text(json.dumps(ledger))
    names = [row["metadata"]["id"] for row in read_rows(run / "data_split" / "train.jsonl")]
    receipt = {"id": names[0], "calls": 1, "usd": 0.125, "input_tokens": 7, "output_tokens": 5}
    write_rows(run / "data_enhanced" / "train.receipts.jsonl", [receipt, {"id": names[1], "calls": 0, "usd": 0.0}])
    text = report(run)
    assert "$0.7500 in all" in text
    _, rows = Page(text).rows()
    assert [row[11]["cost"]["usd"] for row in rows if "cost" in row[11]] == [0.125]


# --- its parts --------------------------------------------------------------------------------------------------------
def test_no_row_is_lost_in_the_picture_of_the_flow(run, monkeypatch):
    monkeypatch.chdir(run)
    drawn = flow.build(ledgers.find(ledgers.places_of((), Path("runs/default"))))
    left = Counter()
    for link in drawn.links:
        left[link.source] += link.rows
    for key, node in drawn.nodes.items():
        if node.kind in ("source", "stage"):
            assert left[key] == node.rows, node
    assert sum(node.rows for node in drawn.nodes.values() if node.kind == "source") == 36
    assert sum(node.rows for node in drawn.nodes.values() if node.kind in ("file", "rejected", "merged")) == 36


def test_bars_of_the_flow_do_not_lie_over_each_other(run, monkeypatch):
    monkeypatch.chdir(run)
    drawn = flow.build(ledgers.find(ledgers.places_of((), Path("runs/default"))))
    flow.arrange(drawn)
    for column in {node.column for node in drawn.nodes.values()}:
        nodes = sorted((node for node in drawn.nodes.values() if node.column == column), key=lambda node: node.y)
        for upper, lower in itertools.pairwise(nodes):
            assert upper.y + upper.height < lower.y


@pytest.mark.parametrize(
    ("lengths", "budget", "limit"),
    [
        ({10: 5}, 50, None),
        ({10: 5}, 49, 40),  # never less than the shortest limit, whatever the budget
        ({1000: 10, 50: 10}, 10_500, None),
        ({1000: 10, 50: 10}, 10_499, 800),
        ({1000: 10, 50: 10}, 3_500, 300),
        ({}, 1, None),
    ],
)
def test_texts_are_cut_only_as_far_as_they_must(lengths, budget, limit):
    assert browser.limit_of(Counter(lengths), 1.0, budget) == limit


def test_a_large_run_is_cut_and_says_so(tmp_path):
    rows = [record(number, code=f"x = {number}\n" + "# more of the program\n" * 400) for number in range(150)]
    write_rows(tmp_path / "in.jsonl", rows)
    run_script("schema", "convert", "--input", "in.jsonl", "--output", "out/x.json", cwd=tmp_path, check=0)
    text = report(tmp_path, "out", "--text-budget", "1")
    tables, packed = Page(text).rows()
    assert tables["limit"] == 4000
    assert {len(row[8]) for row in packed} == {4000}
    assert packed[7][10] == len(rows[7]["code"])
    assert "All 150 rows are in this file, the first 4,000 characters of each text" in text


@pytest.mark.parametrize(
    ("top", "marks"), [(7, [0, 2, 4, 6, 8]), (100, [0, 25, 50, 75, 100]), (1, [0, 0.25, 0.5, 0.75, 1])]
)
def test_marks_of_an_axis_are_round_and_reach_the_top(top, marks):
    assert drawing.ticks(top) == pytest.approx(marks)


def test_only_the_lines_that_differ_are_marked():
    text = markup.compared(("a", "b"), "same\n<old>", "same\n<new>\nmore")
    assert re.findall(r"<mark>(.*?)</mark>", text) == ["&lt;old&gt;", "&lt;new&gt;", "more"]


# --- status -----------------------------------------------------------------------------------------------------------
def states(place, *more):
    found = json.loads(run_script("report.py", "status", "--json", *more, cwd=place, check=0).out)
    return {row["file"]: row["state"] for row in found["files"]}, found["next"]


def test_a_run_without_a_model_asks_for_the_training(run):
    found, advice = states(run)
    assert Counter(found.values()) == {"up to date": 8, "missing": 3}
    assert advice.startswith("next: make train (runs/default/ledger.json is missing)")
    table = run_script("report.py", "status", cwd=run, check=0).out
    assert re.search(r"^split_data +data_split/train.jsonl +\d+ +\d+ +0 +0 +\d+ s +up to date$", table, re.MULTILINE)


def test_a_changed_file_makes_what_follows_stale_and_behind(run):
    rows = read_rows(run / "data_enhanced" / "train.json")
    write_rows(run / "data_enhanced" / "train.json", rows[1:])
    found, advice = states(run)
    assert found["data_enhanced/train.json"] == "changed"
    assert found["data_enhanced/test.json"] == "up to date"
    assert found["data_filtered/train.json"] == "stale"
    assert found["data_split/train.jsonl"] == "behind"
    assert advice.startswith("next: make llm (data_enhanced/train.json is changed)")


def test_a_new_source_makes_the_first_stage_stale(run):
    (run / "sources.yaml").write_text(SOURCES + "# more\n")
    found, advice = states(run)
    assert found["data_formatted/train.json"] == found["data_formatted/test.json"] == "stale"
    assert found["data_split/valid.jsonl"] == "behind"
    assert advice.startswith("next: make data ")


def test_a_file_that_is_gone_and_one_that_is_being_written_are_told_apart(run):
    (run / "data_split" / "valid.jsonl").unlink()
    with schema.lock(run / "data_filtered" / "test.json"), schema.lock(run / "runs" / "default" / "evaluation"):
        found, _ = states(run)
    assert found["data_split/train.jsonl"] == found["data_split/valid.jsonl"] == "missing"
    assert found["data_filtered/test.json"] == "being written"
    assert found["runs/default/evaluation/scores.json"] == "being written"


def test_an_evaluation_of_other_weights_is_stale(run):
    folder = trained(run)
    weights = folder / "merged" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"one")
    path = folder / "evaluation" / "scores.ledger.json"
    ledger = json.loads(path.read_text())
    ledger["options"]["model"] = "runs/default/merged"
    ledger["extra"]["weights"] = {"model": {"model.safetensors": schema.sha256(b"one")}}
    path.write_text(json.dumps(ledger))
    assert states(run)[0]["runs/default/evaluation/scores.ledger.json"] == "up to date"
    weights.write_bytes(b"two")
    assert states(run)[0]["runs/default/evaluation/scores.ledger.json"] == "stale"


def test_an_empty_folder_asks_for_everything(tmp_path):
    found, advice = states(tmp_path)
    assert set(found.values()) == {"missing"}
    assert advice.startswith("next: make data ")


def test_the_way_of_each_source_adds_up(run):
    found = json.loads(run_script("report.py", "tracking", "--json", cwd=run, check=0).out)
    stats = json.loads((run / "data_formatted" / "dataset_stats.json").read_text())["sources"]
    for name, told in stats.items():
        assert found[name]["init"] == told["rows"]
        assert found[name]["quality"] == told["passed"]
        assert found[name]["dedup"] == told["kept"]
        assert found[name]["render"] == "–"
    for name in ("train", "valid"):
        assert found["all"][name] == len(read_rows(run / "data_split" / f"{name}.jsonl"))
    sides = found["all"]["train"] + found["all"]["valid"] + found["all"]["test"]
    assert found["all"]["init"] == sides + found["all"]["rejected"] + found["all"]["merged"] == 36


# --- the card ---------------------------------------------------------------------------------------------------------
def card(place, *more, check=0, env=None):
    return run_script("report.py", "card", "--output", "card", *more, cwd=place, check=check, env=env)


def test_the_card_says_what_the_ledgers_say(run):
    card(run, "--title", 'Scenes: "mine"')
    text = (run / "card" / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    files = {entry["split"]: entry["path"] for entry in front["configs"][0]["data_files"]}
    assert list(files) == ["train", "validation", "test"]
    assert (front["license"], front["size_categories"]) == (["mit", "unknown"], ["n<1K"])
    assert front["pretty_name"] == 'Scenes: "mine"'
    originals = ("data_split/train.jsonl", "data_split/valid.jsonl", "data_filtered/test.json")
    for (split, name), original in zip(files.items(), originals, strict=True):
        rows, wanted = read_rows(run / "card" / name), read_rows(run / original)
        assert [{**row, "metadata": json.loads(row["metadata"])} for row in rows] == wanted
        assert f"| {split} | {len(wanted)} |" in text
    for path in run.glob("data_*/*ledger.json"):
        for reason in json.loads(path.read_text())["reasons"]:
            assert f"| {reason} |" in text
    assert "5 merged as duplicates" in text
    assert "near_threshold 1" in text
    assert str(run) not in text


def test_a_reader_of_data_sets_takes_the_folder(run):
    datasets = pytest.importorskip("datasets")
    card(run)
    found = datasets.load_dataset(str(run / "card"), cache_dir=str(run / "cache"))
    assert {name: len(rows) for name, rows in found.items()} == {
        name: len(read_rows(run / "card" / "data" / f"{name}.jsonl")) for name in ("train", "validation", "test")
    }


def test_a_card_is_not_made_of_files_that_have_changed(run):
    write_rows(run / "data_split" / "valid.jsonl", read_rows(run / "data_split" / "valid.jsonl")[1:])
    assert "data_split/valid.jsonl is not what its ledger says" in card(run, check=1).err
    assert not (run / "card").exists()


def test_a_dry_run_sends_nothing_and_names_the_files(run):
    done = card(run, "--push", "own/set", "--dry-run")
    names = ["README.md", "data/train.jsonl", "data/validation.jsonl", "data/test.jsonl"]
    assert [line.split()[-1] for line in done.out.splitlines()] == names
    assert "4 files would go to own/set (private); nothing was sent" in done.err
    assert "is called OWNER/NAME" in card(run, "--push", "../x", check=2).err


def pushed(hub, place, *more, check):
    env = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    (place / ".env").write_text("HF_TOKEN=hf_key\nHF_ENDPOINT=http://nowhere.invalid\n")
    return card(place, "--push", "own/set", *more, check=check, env=env)


def test_a_data_set_is_sent_to_a_private_repository(run):
    with ModelHub().serve() as hub:
        assert "4 files -> http" in pushed(hub, run, check=0).err
    (repository,) = hub.created
    assert (repository["type"], repository["visibility"]) == ("dataset", "private")
    assert hub.keys == {"Bearer hf_key"}
    assert hub.files == {
        str(path.relative_to(run / "card")): path.read_bytes() for path in (run / "card").rglob("*.*") if path.is_file()
    }


def test_a_hub_that_refuses_is_one_line_more(run):
    with ModelHub(faults=[("/api/repos/create", 403)]).serve() as hub:
        done = pushed(hub, run, "--public", check=1)
    assert "own/set: the hub did not take it" in done.err.splitlines()[-1]
    assert hub.files == {}
