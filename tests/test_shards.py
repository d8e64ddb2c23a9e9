"""A folder of shards is one long file: the same rows, the same decisions, and only what is unfinished is done again."""

from __future__ import annotations

import gzip
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zstandard
from conftest import CLEAN, ROOT, read_rows, record, run_script, write_rows
from test_schema import HOSTILE
from test_stage_contract import many

FILTER = ["filter_quality.py", "--min-quality", "0.5"]
DESCRIBE = ["prepare_data_with_llm.py", "generate-descriptions", "--llm", "offline"]
STAGES = {
    "filter_quality": FILTER,
    "generate-descriptions": DESCRIBE,
    "convert": ["schema", "convert"],
    "augment": ["prepare_data.py", "augment", "--augment-factor", "1"],
}
stages = pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)


def rows_with_faults(count=60):
    """Scenes, some without a description, one program under several descriptions, and lines that are no records."""
    rows = many(count)
    for number in (1, 31, 46):
        rows[number]["code"] = rows[1]["code"]
    rows[1]["description"] = "Show how a bill passes both chambers of a parliament."
    rows[31]["description"] = "Explain why the sky looks blue at noon."
    rows[20:20] = [line for line, _ in HOSTILE]
    return rows


def cut(folder, rows, count=4, suffix=""):
    """The rows as shards, and as one file beside the folder whose name gives the same source."""
    write_rows(folder.with_suffix(".jsonl"), rows)
    for number in range(count):
        part = rows[len(rows) * number // count : len(rows) * (number + 1) // count]
        write_rows(folder / f"part-{number}.jsonl", part)
    return folder


def joined(folder):
    return b"".join((folder / shard["name"]).read_bytes() for shard in manifest(folder)["shards"])


def manifest(folder):
    return json.loads((folder / "manifest.json").read_bytes())


def stage_run(stage, *more, cwd, source="rows", output="out", check=0):
    return run_script(*stage, "--input", source, "--output", output, *more, cwd=cwd, check=check)


def without_line(path):
    """Rejects, but for the line, which is that of the shard."""
    rows = read_rows(path) if path.is_file() else [row for one in sorted(path.iterdir()) for row in read_rows(one)]
    for row in rows:
        row["metadata"]["error"].pop("line", None)
    return rows


@stages
@pytest.mark.parametrize("workers", ["1", "3"])
def test_shards_give_the_bytes_of_one_file(tmp_path, stage, workers):
    cut(tmp_path / "rows", rows_with_faults())
    one = stage_run(stage, cwd=tmp_path, source="rows.jsonl", output="one.jsonl")
    many = stage_run(stage, "--workers", workers, cwd=tmp_path)
    assert joined(tmp_path / "out") == (tmp_path / "one.jsonl").read_bytes()
    assert without_line(tmp_path / "out" / "rejects") == without_line(tmp_path / "one.rejects.jsonl")
    # Reasons that are equally frequent may stand in another order.
    assert sorted(many.err.replace("-> out", "-> one.jsonl").split("\n")) == sorted(one.err.split("\n"))
    assert sorted(path.name for path in (tmp_path / "out").glob("*.jsonl")) == [f"part-{n}.jsonl" for n in range(4)]
    run_script("schema", "audit", "out", cwd=tmp_path, check=0)


def test_compressed_shards_keep_their_names_and_their_compression(tmp_path):
    for number, (suffix, press) in enumerate([(".gz", gzip.compress), (".zst", zstandard.compress)]):
        path = write_rows(tmp_path / "rows" / f"part-{number}.jsonl", [record(number)])
        path.with_name(path.name + suffix).write_bytes(press(path.read_bytes()))
        path.unlink()
    stage_run(FILTER, cwd=tmp_path)
    assert gzip.decompress((tmp_path / "out" / "part-0.jsonl.gz").read_bytes()).count(b"\n") == 1
    pressed = (tmp_path / "out" / "part-1.jsonl.zst").read_bytes()
    assert zstandard.ZstdDecompressor().decompressobj().decompress(pressed).count(b"\n") == 1


@pytest.mark.parametrize("more", [["--limit", "40"], ["--where", '.code | contains("BLUE")', "--limit", "5"]])
def test_a_limit_counts_over_all_shards(tmp_path, more):
    cut(tmp_path / "rows", rows_with_faults())
    stage_run(FILTER, *more, cwd=tmp_path, source="rows.jsonl", output="one.jsonl")
    stage_run(FILTER, *more, "--workers", "2", cwd=tmp_path)
    assert joined(tmp_path / "out") == (tmp_path / "one.jsonl").read_bytes()
    assert without_line(tmp_path / "out" / "rejects") == without_line(tmp_path / "one.rejects.jsonl")
    run_script("schema", "audit", "out", cwd=tmp_path, check=0)


def test_a_pattern_names_several_files(tmp_path):
    cut(tmp_path / "rows", many(40))
    stage_run(FILTER, cwd=tmp_path, source="rows/part-[12].jsonl")
    assert [shard["name"] for shard in manifest(tmp_path / "out")["shards"]] == ["part-1.jsonl", "part-2.jsonl"]


def test_a_contradiction_between_shards_is_seen(tmp_path):
    cut(tmp_path / "rows", rows_with_faults())
    run_script(*FILTER, "--tag-only", "--input", "rows", "--output", "out", cwd=tmp_path, check=2)  # --min-quality
    stage_run(["filter_quality.py", "--tag-only"], cwd=tmp_path)
    found = [row for row in read_rows_of(tmp_path / "out") if "conflicting_descriptions" in json.dumps(row)]
    assert len(found) >= 2


def read_rows_of(folder):
    return [json.loads(line) for line in joined(folder).split(b"\n") if line]


# --- going on ---------------------------------------------------------------------------------------------------------


def stamps(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.jsonl")}


def test_a_second_run_does_only_what_is_unfinished(tmp_path):
    cut(tmp_path / "rows", many(40))
    stage_run(FILTER, cwd=tmp_path)
    before, bytes_before = stamps(tmp_path / "out"), joined(tmp_path / "out")
    (tmp_path / "out" / "part-2.jsonl").unlink()
    (tmp_path / "out" / "part-3.jsonl").write_bytes(b"touched by hand\n")
    done = stage_run(FILTER, "--workers", "2", cwd=tmp_path)
    assert "2 of 4 shards were finished before" in done.err
    after = stamps(tmp_path / "out")
    assert {name for name in after if after[name] != before[name]} == {"part-2.jsonl", "part-3.jsonl"}
    assert joined(tmp_path / "out") == bytes_before


def test_a_changed_input_or_option_makes_its_shards_again(tmp_path):
    cut(tmp_path / "rows", many(40))
    stage_run(FILTER, cwd=tmp_path)
    write_rows(tmp_path / "rows" / "part-1.jsonl", many(10, start=100))
    assert "3 of 4 shards were finished before" in stage_run(FILTER, cwd=tmp_path).err
    assert "finished before" not in stage_run([*FILTER, "--mode", "lenient"], cwd=tmp_path).err


def test_a_shard_that_is_gone_takes_its_output_with_it(tmp_path):
    cut(tmp_path / "rows", many(40))
    stage_run(FILTER, cwd=tmp_path)
    (tmp_path / "out" / "notes.jsonl").write_text("{}\n")
    (tmp_path / "rows" / "part-0.jsonl").unlink()
    stage_run(FILTER, cwd=tmp_path)
    names = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert not {"part-0.jsonl", "part-0.ledger.json"} & names
    assert "notes.jsonl" in names
    assert not (tmp_path / "out" / "rejects" / "part-0.jsonl").exists()


def test_a_run_that_was_killed_is_no_input_and_goes_on(tmp_path):
    cut(tmp_path / "rows", many(1200), count=6)
    stage_run(FILTER, cwd=tmp_path, source="rows.jsonl", output="one.jsonl")
    command = [sys.executable, str(ROOT / FILTER[0]), *FILTER[1:], "--input", "rows", "--output", "out"]
    running = subprocess.Popen(command, cwd=tmp_path, env=CLEAN | {"HOME": str(tmp_path)}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "out" / "part-1.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert "has not ended" in stage_run(FILTER, cwd=tmp_path, source="out", output="next", check=1).err
    assert "shards were finished before" in stage_run(FILTER, cwd=tmp_path).err
    assert joined(tmp_path / "out") == (tmp_path / "one.jsonl").read_bytes()
    stage_run(FILTER, cwd=tmp_path, source="out", output="next")


def test_two_runs_into_one_folder_do_not_meet(tmp_path):
    cut(tmp_path / "rows", many(1200))
    command = [sys.executable, str(ROOT / FILTER[0]), "--input", "rows", "--output", "out"]
    running = subprocess.Popen(command, cwd=tmp_path, env=CLEAN | {"HOME": str(tmp_path)}, stderr=subprocess.DEVNULL)
    while not (tmp_path / "out" / "UNFINISHED").exists():
        assert running.poll() is None
        time.sleep(0.01)
    done = stage_run(FILTER, cwd=tmp_path, check=None)
    running.kill()
    running.wait()
    assert done.returncode == 4, done.err


# --- the audit --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("harm", ["part-1.jsonl", "rejects/part-1.jsonl", "part-1.ledger.json", "manifest.json"])
def test_the_audit_sees_a_changed_shard(tmp_path, harm):
    cut(tmp_path / "rows", rows_with_faults())
    stage_run(FILTER, cwd=tmp_path)
    path = tmp_path / "out" / harm
    path.write_bytes(path.read_bytes().replace(b"1", b"2") + b"\n")
    run_script("schema", "audit", "out", cwd=tmp_path, check=1)


def test_the_audit_leaves_manifests_of_others_alone(tmp_path):
    cut(tmp_path / "rows", rows_with_faults())
    stage_run(FILTER, cwd=tmp_path)
    (tmp_path / "out/model").mkdir()
    (tmp_path / "out/model/manifest.json").write_text('{"files": {"model.safetensors": {"bytes": 1}}}')
    done = run_script("schema", "audit", "out", cwd=tmp_path)
    assert b"out/manifest.json: adds up" in done.stderr
    assert b"model" not in done.stderr
    (tmp_path / "out/manifest.json").write_text('{"shards": [')
    run_script("schema", "audit", "out", cwd=tmp_path, check=1)


# --- what can not be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--strict"], "--max-reject-rate 0"),
        (["--engine", "ray"], "--address"),
        (["--address", "local"], "--engine ray"),
        (["--rejects", "-"], "name a folder"),
    ],
)
def test_what_shards_can_not_do_is_one_line(tmp_path, more, named):
    cut(tmp_path / "rows", many(8))
    done = stage_run(FILTER, *more, cwd=tmp_path, check=2)
    assert named in done.err.strip().split("\n")[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("source", "output", "named"),
    [
        ("rows", "rows/out", "outside"),
        ("rows", "rows.jsonl", "name a folder"),
        ("empty", "out", "no shards"),
        ("r*/part-1.jsonl", "out", "not for folders"),
        ("twins", "out", "rename one"),
    ],
)
def test_places_that_do_not_fit_are_one_line(tmp_path, source, output, named):
    cut(tmp_path / "rows", many(8))
    (tmp_path / "empty").mkdir()
    write_rows(tmp_path / "twins" / "a.jsonl", [record()])
    write_rows(tmp_path / "twins" / "a.jsonl.gz", [record()])
    done = stage_run(FILTER, cwd=tmp_path, source=source, output=output, check=2)
    assert named in done.err.strip().split("\n")[-1], done.err


def test_the_engine_ray_needs_shards(tmp_path):
    write_rows(tmp_path / "in.jsonl", [record()])
    done = stage_run(FILTER, "--engine", "ray", cwd=tmp_path, source="in.jsonl", output="out.jsonl", check=2)
    assert "reshard" in done.err


def test_max_reject_rate_is_that_of_all_shards(tmp_path):
    cut(tmp_path / "rows", [*many(30), b"{", b"}"])
    assert stage_run(["schema", "convert", "--max-reject-rate", "0.1"], cwd=tmp_path).returncode == 0
    stage_run(["schema", "convert", "--max-reject-rate", "0.01"], cwd=tmp_path, check=3)
    assert (tmp_path / "out" / "manifest.json").exists()


# --- reshard ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [["--shards", "7"], ["--rows", "13"], ["--shards", "3", "--compress", "zst"]])
def test_reshard_keeps_every_row_and_their_order(tmp_path, how):
    rows = rows_with_faults()
    write_rows(tmp_path / "in.jsonl", rows)
    run_script("schema", "reshard", "in.jsonl", "rows", *how, cwd=tmp_path, check=0)
    assert all(shard["name"].startswith("part-000") for shard in manifest(tmp_path / "rows")["shards"])
    run_script("schema", "reshard", "rows", "again", "--rows", "9", cwd=tmp_path, check=0)
    run_script("schema", "reshard", "again", "one", "--shards", "1", cwd=tmp_path, check=0)
    lines = [line for line in (tmp_path / "in.jsonl").read_bytes().split(b"\n") if line and not line.isspace()]
    assert joined(tmp_path / "one") == b"".join(line + b"\n" for line in lines)
    assert joined(tmp_path / "again") == joined(tmp_path / "one")
    run_script("schema", "audit", ".", cwd=tmp_path, check=0)


def test_reshard_of_few_rows_leaves_empty_shards_that_every_stage_takes(tmp_path):
    write_rows(tmp_path / "in.jsonl", [record(0), record(1)])
    run_script("schema", "reshard", "in.jsonl", "rows", "--shards", "5", cwd=tmp_path, check=0)
    stage_run(FILTER, cwd=tmp_path)
    assert len(read_rows_of(tmp_path / "out")) == 2


def test_reshard_again_removes_the_shards_of_before(tmp_path):
    write_rows(tmp_path / "in.jsonl", many(10))
    run_script("schema", "reshard", "in.jsonl", "rows", "--shards", "5", cwd=tmp_path, check=0)
    run_script("schema", "reshard", "in.jsonl", "rows", "--shards", "2", cwd=tmp_path, check=0)
    assert sorted(path.name for path in (tmp_path / "rows").glob("*.jsonl")) == ["part-00000.jsonl", "part-00001.jsonl"]


@pytest.mark.parametrize("words", [[], ["--shards", "2", "--rows", "3"]])
def test_reshard_wants_one_size(tmp_path, words):
    write_rows(tmp_path / "in.jsonl", [record()])
    assert "--shards N" in run_script("schema", "reshard", "in.jsonl", "o", *words, cwd=tmp_path, check=2).err


def test_reshard_does_not_write_into_its_input(tmp_path):
    cut(tmp_path / "rows", many(4))
    assert "is the input" in run_script("schema", "reshard", "rows", "./rows", "--rows", "2", cwd=tmp_path, check=2).err
    assert len(list(Path(tmp_path, "rows").iterdir())) == 4


# --- split ------------------------------------------------------------------------------------------------------------

SPLIT = ["split_data.py", "--ratios", "60/20/20", "--near-threshold", "0.7"]


def clustered(count=60):
    """Scenes that are near copies of each other, some equal, one that would stand on two sides."""
    rows = [record(number) for number in range(count)]
    for number in range(0, count, 7):
        rows[number]["metadata"]["group"] = f"g{number % 3}"
    rows[50]["code"] = rows[3]["code"]
    rows[50]["description"] = rows[12]["description"]
    return [*rows, b"{"]


@pytest.mark.parametrize("more", [[], ["--workers", "2", "--stratify", "source"], ["--near-threshold", "1"]])
def test_a_split_of_shards_is_the_split_of_one_file(tmp_path, more):
    cut(tmp_path / "rows", clustered())
    one = run_script(*SPLIT, *more[-2:], "--input", "rows.jsonl", "--output-dir", "one", cwd=tmp_path, check=0)
    done = run_script(*SPLIT, *more, "--input", "rows", "--output-dir", "out", cwd=tmp_path, check=0)
    assert done.err.replace("-> out", "-> one") == one.err
    for side in ("train", "valid", "test"):
        parts = sorted((tmp_path / "out" / side).iterdir())
        assert [path.name for path in parts] == [f"part-{number}.jsonl" for number in range(4)]
        assert b"".join(map(Path.read_bytes, parts)) == (tmp_path / "one" / f"{side}.jsonl").read_bytes()
    assert without_line(tmp_path / "out" / "rejects.jsonl") == without_line(tmp_path / "one" / "rejects.jsonl")
    run_script("schema", "audit", ".", cwd=tmp_path, check=0)


def test_a_side_of_a_split_is_a_folder_of_shards_for_the_next_stage(tmp_path):
    cut(tmp_path / "rows", [record(number) for number in range(40)])
    run_script(*SPLIT, "--near-threshold", "1", "--input", "rows", "--output-dir", "d", cwd=tmp_path, check=0)
    stage_run(FILTER, cwd=tmp_path, source="d/train")
    run_script(*SPLIT, "--near-threshold", "1", "--input", "rows", "--output-dir", "d", cwd=tmp_path, check=0)
    run_script(*SPLIT, "--input", "rows.jsonl", "--output-dir", "d", cwd=tmp_path, check=0)
    assert not (tmp_path / "d" / "train").exists()


def test_a_split_does_not_take_the_place_of_its_shards(tmp_path):
    cut(tmp_path / "rows", clustered())
    done = run_script(*SPLIT, "--input", "rows", "--output-dir", "rows", cwd=tmp_path, check=2)
    assert "would take its place" in done.err


# --- the first stage --------------------------------------------------------------------------------------------------

PREPARE = ["prepare_data.py", "prepare", "--sources", "mine"]


def joined_side(folder):
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def test_the_first_stage_reads_shards_in_processes_and_writes_shards(tmp_path):
    cut(tmp_path / "rows", rows_with_faults(120), count=5)
    (tmp_path / "sources.yaml").write_text("mine:\n  type: local\n  path: rows\n")
    run_script(*PREPARE, "--output-dir", "one", cwd=tmp_path, check=0)
    run_script(*PREPARE, "--output-dir", "two", "--workers", "2", cwd=tmp_path, check=0)
    for name in ("train.json", "test.json", "rejects.jsonl", "removed_duplicates.json", "dataset_stats.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    run_script(*PREPARE, "--output-dir", "two", "--shard-rows", "30", cwd=tmp_path, check=0)
    assert [path.name for path in sorted((tmp_path / "two" / "train").iterdir())][:2] == [
        "part-00000.jsonl",
        "part-00001.jsonl",
    ]
    for side in ("train", "test"):
        assert joined_side(tmp_path / "two" / side) == (tmp_path / "one" / f"{side}.json").read_bytes()
        assert not (tmp_path / "two" / f"{side}.json").exists()
    run_script("schema", "audit", ".", cwd=tmp_path, check=0)
    stage_run(FILTER, cwd=tmp_path, source="two/train")


def test_the_first_stage_reads_what_a_manifest_names_and_nothing_beside_it(tmp_path):
    cut(tmp_path / "rows", rows_with_faults())
    stage_run(FILTER, cwd=tmp_path)
    kept = len(read_rows_of(tmp_path / "out"))
    (tmp_path / "sources.yaml").write_text("mine:\n  type: local\n  path: out\n")
    done = run_script(*PREPARE, "--output-dir", "d", cwd=tmp_path, check=0)
    assert f"{kept} in" in done.err
    (tmp_path / "out" / "UNFINISHED").write_text("{}")
    assert "has not ended" in run_script(*PREPARE, "--output-dir", "d", cwd=tmp_path, check=2).err


def test_a_source_of_which_one_file_fails_is_a_source_that_fails(tmp_path):
    cut(tmp_path / "rows", many(20))
    (tmp_path / "rows" / "part-9.csv").write_text("a,b\n1,2\n")
    (tmp_path / "rows" / "part-9.csv").chmod(0)
    (tmp_path / "rows" / "part-5.parquet").write_bytes(b"no parquet")
    (tmp_path / "sources.yaml").write_text("mine:\n  type: local\n  path: rows\n")
    done = run_script(*PREPARE, "--output-dir", "d", "--workers", "2", cwd=tmp_path, check=1)
    assert "mine: " in done.err
    assert not (tmp_path / "d").exists()


# --- answers of a model -----------------------------------------------------------------------------------------------


def test_answers_for_shards_are_those_for_one_file_and_paid_once(tmp_path):
    from fake_llm import FakeLLM

    cut(tmp_path / "rows", many(40))
    with FakeLLM() as server:
        words = ["--llm", "openai", "--base-url", server.url("openai"), "--concurrency", "8"]

        def ask(source, output, *more, check=0):
            stage = ["prepare_data_with_llm.py", "generate-descriptions", *words, *more]
            env = {"OPENAI_API_KEY": "sk-test"}
            return run_script(*stage, "--input", source, "--output", output, cwd=tmp_path, check=check, env=env)

        ask("rows", "out")
        asked = len(server.log)
        ask("rows.jsonl", "one.jsonl")
        assert len(server.log) == asked  # the answers are in the cache
        assert joined(tmp_path / "out") == (tmp_path / "one.jsonl").read_bytes()
        beside = [line for shard in paid_in(tmp_path / "out").values() for line in shard]
        assert [line["id"] for line in beside] == [line["id"] for line in read_rows(tmp_path / "one.receipts.jsonl")]
        run_script("schema", "audit", "out", cwd=tmp_path, check=0)
        (tmp_path / "out" / "part-1.jsonl").unlink()
        assert "3 of 4 shards were finished before" in ask("rows", "out").err
        assert joined(tmp_path / "out") == (tmp_path / "one.jsonl").read_bytes()
        assert "40 rows" in ask("rows", "none", "--dry-run").out
        assert not (tmp_path / "none").exists()


def paid_in(folder):
    """All receipts beside the shards of a folder, shard by shard."""
    return {path.name: read_rows(path) for path in sorted(folder.glob("*.receipts.jsonl"))}


def test_what_shards_cost_that_were_finished_before_a_kill_stands_on_their_receipts(tmp_path, server):
    from test_llm_engine import needy, slowly

    server.plan = slowly(0.02)
    cut(tmp_path / "rows", [needy(number) for number in range(60)], count=6)
    script, *words = ["prepare_data_with_llm.py", "generate-descriptions", "--llm", "openai", "--price", "1000,1000"]
    words += ["--base-url", server.url("openai"), "--concurrency", "2", "--input", "rows", "--output", "out"]
    env = {"OPENAI_API_KEY": "sk-test"}
    for shard in ("part-1.jsonl", "part-3.jsonl"):
        command = [sys.executable, str(ROOT / script), *words]
        running = subprocess.Popen(command, cwd=tmp_path, env=CLEAN | env | {"HOME": str(tmp_path)})
        wait_until((tmp_path / "out" / shard).exists, running)
        running.kill()
        running.wait()
    done = run_script(script, *words, cwd=tmp_path, check=0, env=env)
    assert int(re.search(r"(\d) of 6 shards were finished before", done.err)[1]) >= 4
    receipts = paid_in(tmp_path / "out")
    assert [len(lines) for lines in receipts.values()] == [10] * 6
    lines = [line for shard in receipts.values() for line in shard]
    assert min(line["calls"] for line in lines) == 1, "each row was paid for, whichever run has paid"
    asked = sum(line["calls"] for line in lines)
    assert len(server.billed) - 4 <= asked <= len(server.billed), "all but what broke off with a run"
    told = {"calls": asked, "input_tokens": asked * 100, "output_tokens": asked * 20, "usd": asked * 0.12}
    facts = manifest(tmp_path / "out")["extra"]
    assert facts["receipts"] == pytest.approx(told | {"cached_tokens": 0, "lost": 0})
    assert facts["llm"]["calls"] < asked
    assert facts["llm"]["usd"] + facts["llm"]["usd_earlier"] == pytest.approx(told["usd"])
    run_script("report.py", "out", "--output", "report.html", cwd=tmp_path, check=0)
    assert f"${told['usd']:,.4f} in all" in (tmp_path / "report.html").read_text()
    again = run_script(script, *words, cwd=tmp_path, check=0, env=env)
    assert "6 of 6 shards were finished before" in again.err
    assert manifest(tmp_path / "out")["extra"]["receipts"] == facts["receipts"]
    words[-1] = "other"
    run_script(script, *words, cwd=tmp_path, check=0, env=env)
    assert not any(line["calls"] for shard in paid_in(tmp_path / "other").values() for line in shard), "one receipt"


def test_a_shard_that_is_made_again_and_one_that_is_gone_take_their_receipts_along(tmp_path, server):
    from test_llm_engine import needy

    cut(tmp_path / "rows", [needy(number) for number in range(24)])
    script, *words = ["prepare_data_with_llm.py", "generate-descriptions", "--llm", "openai", "--price", "1000,1000"]
    words += ["--base-url", server.url("openai"), "--input", "rows", "--output", "out"]
    env = {"OPENAI_API_KEY": "sk-test"}
    run_script(script, *words, cwd=tmp_path, check=0, env=env)
    before = paid_in(tmp_path / "out")
    assert sum(line["calls"] for shard in before.values() for line in shard) == 24
    (tmp_path / "out" / "part-1.jsonl").unlink()
    run_script(script, *words, cwd=tmp_path, check=0, env=env)
    assert paid_in(tmp_path / "out") == before
    (tmp_path / "rows" / "part-3.jsonl").unlink()
    run_script(script, *words, cwd=tmp_path, check=0, env=env)
    assert paid_in(tmp_path / "out") == {name: before[name] for name in list(before)[:3]}


def test_many_small_shards_do_not_need_many_open_files(tmp_path, server):
    from test_llm_engine import needy, slowly

    server.plan = slowly(0.01)
    cut(tmp_path / "rows", [needy(number) for number in range(120)], count=120)
    words = ["generate-descriptions", "--llm", "openai", "--base-url", server.url("openai"), "--concurrency", "64"]
    command = [sys.executable, str(ROOT / "prepare_data_with_llm.py"), *words, "--input", "rows", "--output", "out"]
    env = CLEAN | {"OPENAI_API_KEY": "sk-test", "HOME": str(tmp_path)}
    subprocess.run(["sh", "-c", 'ulimit -n 256; exec "$@"', "sh", *command], cwd=tmp_path, env=env, check=True)
    assert manifest(tmp_path / "out")["counts"]["kept"] == 120


def test_a_shard_whose_rows_got_no_answer_is_not_finished(tmp_path):
    from fake_llm import FakeLLM

    cut(tmp_path / "rows", many(24))
    with FakeLLM() as server:
        stage = ["prepare_data_with_llm.py", "generate-descriptions", "--llm", "openai", "--model", "gpt-4o-mini"]
        stage += ["--base-url", server.url("openai"), "--concurrency", "1"]
        env = {"OPENAI_API_KEY": "sk-test"}
        places = ["--input", "rows", "--output", "out"]
        run_script(*stage, *places, "--max-usd", "0.0002", cwd=tmp_path, check=3, env=env)
        assert any("llm_unpaid" in shard["reasons"] for shard in manifest(tmp_path / "out")["shards"])
        run_script(*stage, *places, cwd=tmp_path, check=0, env=env)
        run_script(*stage, "--input", "rows.jsonl", "--output", "one.jsonl", cwd=tmp_path, check=0, env=env)
        assert joined(tmp_path / "out") == (tmp_path / "one.jsonl").read_bytes()


def test_the_voices_of_shards_are_those_of_one_file(tmp_path, server):
    from test_llm_tasks import run, section, voices

    server.plan = voices
    rows = [section(number, f"{number} Method") for number in range(12)]
    rows[5] = section(5, "**References**")
    cut(tmp_path / "rows", rows)
    run("generate-personas", server, cwd=tmp_path, source="rows.jsonl", output="one", check=0)
    asked = len(server.log)
    assert asked == 11
    run("generate-personas", server, cwd=tmp_path, source="rows", output="out", check=0)
    assert len(server.log) == asked  # the answers are in the cache
    for name in ("eli5.jsonl", "intuitive.jsonl", "executive.jsonl"):
        parts = [tmp_path / "out" / f"part-{number}" / name for number in range(4)]
        assert b"".join(map(Path.read_bytes, parts)) == (tmp_path / "one" / name).read_bytes()
    rejected = [
        row for number in range(4) for row in without_line(tmp_path / "out" / f"part-{number}" / "rejects.jsonl")
    ]
    assert rejected == without_line(tmp_path / "one" / "rejects.jsonl")
    run_script("schema", "audit", "out", cwd=tmp_path, check=0)
    before = joined_voices(tmp_path / "out")
    (tmp_path / "out" / "part-1" / "eli5.jsonl").unlink()
    done = run("generate-personas", server, cwd=tmp_path, source="rows", output="out", check=0)
    assert "3 of 4 shards were finished before" in done.err
    assert joined_voices(tmp_path / "out") == before


def joined_voices(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.glob("part-*/[ei]*.jsonl")}


def test_the_report_over_shards_is_that_over_one_file(tmp_path):
    cut(tmp_path / "rows", rows_with_faults())
    stage_run([*FILTER, "--report", "one.json"], cwd=tmp_path, source="rows.jsonl", output="one.jsonl")
    stage_run([*FILTER, "--report", "many.json"], cwd=tmp_path)
    assert json.loads((tmp_path / "one.json").read_bytes()) == json.loads((tmp_path / "many.json").read_bytes())


# --- the first stage goes on -----------------------------------------------------------------------------------------


EXACT = ["--near-threshold", "1"]  # scenes that are like each other would all be compared


def wait_until(condition, running):
    deadline = time.monotonic() + 120
    while not condition():
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)


def first_stage(tmp_path, output, *words):
    return run_script(*PREPARE, *words, *EXACT, "--output-dir", output, cwd=tmp_path, check=0)


def stopped_while_reading(tmp_path, *words, rows=600):
    """A run of the first stage that was killed when some of its six files had been read."""
    padding = {"metadata": {"kind": "code", "padding": "x" * 2600}}  # the files of 100 rows are worth a process each
    cut(tmp_path / "rows", [row | padding for row in many(rows)], count=6)
    (tmp_path / "sources.yaml").write_text("mine:\n  type: local\n  path: rows\n")
    command = [sys.executable, str(ROOT / PREPARE[0]), *PREPARE[1:], *words, *EXACT, "--output-dir", "out"]
    env = CLEAN | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT / "tests" / "without_manim")}
    running = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.DEVNULL)
    wait_until(lambda: len(list(tmp_path.glob(".out.read/*/answer.json"))) >= 2, running)
    running.kill()
    running.wait()
    assert not (tmp_path / "out").exists()


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read_before(done):
    found = re.search(r"(\d) of 6 files were read before", done.err)
    return int(found[1]) if found else 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_first_stage_goes_on_where_it_was_killed(tmp_path, workers):
    stopped_while_reading(tmp_path, "--workers", workers)
    assert read_before(first_stage(tmp_path, "out", "--workers", workers)) >= 2
    assert not (tmp_path / ".out.read").exists()
    assert read_before(first_stage(tmp_path, "whole")) == 0
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_a_file_that_changed_after_a_stop_is_read_again(tmp_path):
    stopped_while_reading(tmp_path)
    for number in range(6):
        path = tmp_path / "rows" / f"part-{number}.jsonl"
        path.write_bytes(path.read_bytes().replace(b"draws", b"shows", 1) if number else path.read_bytes())
    assert read_before(first_stage(tmp_path, "out")) == 1
    first_stage(tmp_path, "whole")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_with_another_option_all_is_read_again_after_a_stop(tmp_path):
    stopped_while_reading(tmp_path)
    assert read_before(first_stage(tmp_path, "out", "--min-code-length", "20")) == 0
    assert not (tmp_path / ".out.read").exists()


def test_what_was_half_written_when_the_power_failed_is_read_again(tmp_path):
    stopped_while_reading(tmp_path)
    for path in tmp_path.glob(".out.read/*/rows.records"):
        path.write_bytes(path.read_bytes()[:-10])
    assert read_before(first_stage(tmp_path, "out")) == 0
    first_stage(tmp_path, "whole")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
