"""The promises that every script keeps, written once and tried on each of them."""

from __future__ import annotations

import gzip
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import CLEAN, ROOT, read_rows, record, run_script, write_rows
from test_schema import HOSTILE, SURVIVORS

SCRIPTS = [*sorted(path.name for path in ROOT.glob("*.py")), "schema"]
# The commands of systems that came before, which did their work without a word.
OF_OLD = ("prepare_data_enhanced.py", "paperExtractor.py", "sdg.py", "trim_jsonl.py")
HEAVY = (
    "torch",
    "transformers",
    "datasets",
    "openai",
    "anthropic",
    "bs4",
    "trl",
    "peft",
    "numpy",
    "jsonschema",
    "yaml",
)
# Stages from one file to one file: the command, without its places.
FILE_STAGES = {
    "filter_quality": ["filter_quality.py"],
    "generate-descriptions": ["prepare_data_with_llm.py", "generate-descriptions", "--llm", "offline"],
    "convert": ["schema", "convert"],
    "augment": ["prepare_data.py", "augment", "--augment-factor", "1"],
}
# The scenes of these tests are near copies of each other: as such they would all stand on one side.
SPLIT = ["split_data.py", "--ratios", "80/20", "--near-threshold", "1"]
file_stages = pytest.mark.parametrize("stage", FILE_STAGES.values(), ids=FILE_STAGES)


def run_stage(stage, *more, cwd, source="in.jsonl", output="out.jsonl", **others):
    return run_script(*stage, "--input", source, "--output", output, *more, cwd=cwd, **others)


def many(count, start=0):
    """Scenes of which a third still needs a description."""
    rows = [record(number) for number in range(start, start + count)]
    for row in rows[::3]:
        row["description"] = ""
        row["metadata"]["needs_description"] = True
    return rows


def contents(folder):
    return {
        path.name: path.read_bytes()
        for path in sorted(Path(folder).iterdir())
        if path.is_file() and not path.name.endswith(".lock")
    }


# --- help and usage ---------------------------------------------------------------------------------------------------


def commands_of(script, cwd):
    """The script's own help and that of each of its sub-commands, however deep."""
    found, waiting = [], [[]]
    while waiting:
        words = waiting.pop()
        text = run_script(script, *words, "--help", cwd=cwd, check=0).out
        found.append((words, text))
        if "\nCommands:\n" in text:
            names = [
                line.split()[0]
                for line in text.split("\nCommands:\n")[1].split("\n")
                if line[:3].strip() and line.startswith("  ")
            ]
            waiting += [[*words, name] for name in names]
    return found


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_command_has_a_help_that_says_what_each_option_means(tmp_path, script):
    for words, text in commands_of(script, tmp_path):
        assert len(text.split("\n")) > 4, f"{script} {words}: {text}"
        assert "Usage:" in text


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_instant_and_loads_nothing_heavy(tmp_path, script):
    target = (
        "runpy.run_module('schema', run_name='__main__')"
        if script == "schema"
        else f"runpy.run_path({str(ROOT / script)!r}, run_name='__main__')"
    )
    program = (
        "import runpy, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r}); sys.argv = [{script!r}, '--help']\n"
        f"try: {target}\n"
        "except SystemExit: pass\n"
        f"print('LOADED', sorted(set({HEAVY!r}) & set(sys.modules)))\n"
    )
    costs = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=CLEAN | {"HOME": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        costs.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert "LOADED []" in done.stdout, done.stdout + done.stderr
    assert min(costs) <= 0.15, f"CPU seconds: {costs}"


@pytest.mark.parametrize("script", [script for script in SCRIPTS if script not in ("filter_quality.py", *OF_OLD)])
def test_a_script_without_any_word_shows_its_help(tmp_path, script):
    assert run_script(script, cwd=tmp_path, check=2).err.startswith("Usage: ")


WRONG = [
    (["filter_quality.py", "--input", "in.jsonl"], "--output"),
    (["filter_quality.py", "--input", "gone.jsonl", "--output", "o"], "gone.jsonl"),
    (["filter_quality.py", "--input", "in.jsonl", "--output", "o", "--min-quality", "7"], "7"),
    (["filter_quality.py", "--input", "in.jsonl", "--output", "in.jsonl"], "is the input"),
    (["filter_quality.py", "--input", "in.jsonl", "--output", "o", "--where", ".a ="], ".a ="),
    (["filter_quality.py", "--input", ".", "--output", "o"], "is a folder"),
    (["filter_quality.py", "--input", "in.jsonl", "--output", "o", "--wrokers", "2"], "--wrokers"),
    (
        ["prepare_data_with_llm.py", "generate-descriptions", "--input", "in.jsonl", "--output", "o", "--llm", "gpt"],
        "gpt",
    ),
    (
        [
            "prepare_data_with_llm.py",
            "generate-descriptions",
            "--input",
            "in.jsonl",
            "--output",
            "o",
            "--llm",
            "claude",
        ],
        "ANTHROPIC_API_KEY",
    ),
    (["prepare_data.py", "prepare", "--sources", "no_such_source"], "no_such_source"),
    (["split_data.py", "--input", "in.jsonl", "--output-dir", "d", "--ratios", "80/30"], "80/30"),
    (["train.py", "--data", "gone.jsonl"], "gone.jsonl"),
    (["train.py", "--data", "in.jsonl", "--config", "gone.yaml"], "gone.yaml"),
    (["merge_export.py", "merge", "--adapter", "gone", "--output", "m"], "gone"),
    (["evaluate_model.py", "loss", "--model", "gone", "--data", "gone.jsonl", "--output", "d"], "gone"),
    (["schema", "validate", "gone.jsonl"], "gone.jsonl"),
]


@pytest.mark.parametrize(
    ("command", "named"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_wrong_usage_exits_2_and_names_the_fault(tmp_path, command, named):
    write_rows(tmp_path / "in.jsonl", [record()])
    done = run_script(*command, cwd=tmp_path, check=2)
    assert named in done.err.strip().split("\n")[-1]
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == ["in.jsonl"]


# --- no row is lost ---------------------------------------------------------------------------------------------------


def hostile_file(path):
    rows = [
        record(0),
        *[line for line, _ in HOSTILE],
        b"",
        *SURVIVORS,
        record(1),
        b"\xef\xbb\xbf{}",
        record(2, metadata={"needs_description": True}),
    ]
    write_rows(path, rows)
    return sum(1 for row in rows if row != b"")


@file_stages
def test_no_line_of_a_hostile_file_is_lost(tmp_path, stage):
    rows = hostile_file(tmp_path / "in.jsonl")
    run_stage(stage, cwd=tmp_path, check=0)
    kept, rejected = read_rows(tmp_path / "out.jsonl"), read_rows(tmp_path / "out.rejects.jsonl")
    ledger = json.loads((tmp_path / "out.ledger.json").read_bytes())
    assert len(kept) + len(rejected) == rows == ledger["counts"]["in"]
    assert all(row["metadata"]["error"]["message"] and row["metadata"]["error"]["line"] for row in rejected)
    assert {code for _, code in HOSTILE} <= set(ledger["reasons"])
    run_script("schema", "audit", ".", cwd=tmp_path, check=0)


def test_no_line_of_a_hostile_file_is_lost_in_a_split(tmp_path):
    rows = hostile_file(tmp_path / "in.jsonl")
    run_script(*SPLIT, "--input", "in.jsonl", "--output-dir", "d", cwd=tmp_path, check=0)
    found = {name: len(read_rows(tmp_path / "d" / name)) for name in ("train.jsonl", "valid.jsonl", "rejects.jsonl")}
    assert sum(found.values()) == rows, found
    run_script("schema", "audit", "d", cwd=tmp_path, check=0)


@file_stages
def test_an_empty_file_gives_an_empty_file(tmp_path, stage):
    write_rows(tmp_path / "in.jsonl", [])
    done = run_stage(stage, cwd=tmp_path, check=0)
    assert "0 in, 0 kept, 0 rejected" in done.err
    assert (tmp_path / "out.jsonl").read_bytes() == b""


@file_stages
def test_foreign_metadata_and_the_order_of_rows_survive(tmp_path, stage):
    rows = [
        record(number, metadata={"mine": {"ä": [number, None, 1e-7, 2**70]}, "kind": "code"}) for number in range(30)
    ]
    write_rows(tmp_path / "in.jsonl", rows)
    run_stage(stage, "--workers", "2", cwd=tmp_path, check=0)
    kept = read_rows(tmp_path / "out.jsonl")
    assert [row["metadata"]["mine"] for row in kept] == [row["metadata"]["mine"] for row in rows]
    assert [row["code"] for row in kept] == [row["code"] for row in rows]
    assert "ä".encode() in (tmp_path / "out.jsonl").read_bytes(), "text is written as it is, not as escapes"


@file_stages
def test_strict_fails_at_a_reject_and_keeps_the_old_output(tmp_path, stage):
    write_rows(tmp_path / "in.jsonl", [record(), b"broken"])
    (tmp_path / "out.jsonl").write_text("old")
    assert "not_json" in run_stage(stage, "--strict", cwd=tmp_path, check=1).err
    assert (tmp_path / "out.jsonl").read_text() == "old"


@file_stages
def test_too_many_rejects_exit_3_with_everything_written(tmp_path, stage):
    write_rows(tmp_path / "in.jsonl", [record(), b"broken"])
    assert "50.0%" in run_stage(stage, "--max-reject-rate", "0.4", cwd=tmp_path, check=3).err
    assert len(read_rows(tmp_path / "out.jsonl")) == 1
    run_stage(stage, "--max-reject-rate", "0.5", cwd=tmp_path, check=0)


@file_stages
def test_where_and_limit_take_some_rows_and_say_so(tmp_path, stage):
    write_rows(tmp_path / "in.jsonl", [record(number, source="ab"[number % 2]) for number in range(20)])
    done = run_stage(stage, "--where", '.source == "b"', "--limit", "4", "--workers", "2", cwd=tmp_path, check=0)
    assert [row["source"] for row in read_rows(tmp_path / "out.jsonl")] == ["b"] * 4
    assert "4 in (4 not selected), 4 kept" in done.err


@file_stages
def test_standard_input_and_output_can_be_piped(tmp_path, stage):
    data = gzip.compress(json.dumps(record()).encode())
    done = run_stage(stage, source="-", output="-", cwd=tmp_path, stdin=data, check=0)
    assert json.loads(done.out)["code"] == record()["code"]
    assert "1 in, 1 kept" in done.err
    assert contents(tmp_path) == {}


# --- the same bytes ---------------------------------------------------------------------------------------------------


@file_stages
def test_two_runs_give_equal_bytes_at_any_number_of_workers_and_hash_seed(tmp_path, stage):
    write_rows(tmp_path / "in.jsonl", [*many(150), b"broken", *many(60, start=30)])
    found = []
    for name, workers, seed in (("a", 1, "0"), ("b", 1, "1"), ("c", 2, "2"), ("d", 3, "3")):
        run_stage(
            stage, "--workers", workers, output=f"{name}/out.jsonl", cwd=tmp_path, env={"PYTHONHASHSEED": seed}, check=0
        )
        found.append(contents(tmp_path / name))
    assert found[0]["out.jsonl"]
    assert all(other == found[0] for other in found[1:])


def test_two_splits_give_equal_bytes_at_any_hash_seed(tmp_path):
    write_rows(tmp_path / "in.jsonl", [*many(80), b"broken"])
    for name, seed in (("a", "0"), ("b", "1")):
        run_script(
            *SPLIT, "--input", "in.jsonl", "--output-dir", name, cwd=tmp_path, env={"PYTHONHASHSEED": seed}, check=0
        )
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


# --- whatever happens, the old output is whole ------------------------------------------------------------------------


def start(stage, *arguments, cwd, **others):
    """The stage as a running process, at the head of a group of its own."""
    script = ["-m", "schema"] if stage[0] == "schema" else [str(ROOT / stage[0])]
    env = CLEAN | {"HOME": str(cwd), "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | others
    command = [sys.executable, *script, *stage[1:], *arguments]
    return subprocess.Popen(command, cwd=cwd, env=env, start_new_session=True, **pipes)


def kill_at_random_moments(stage, arguments, cwd, moments, check):
    """kill -9 the whole run again and again; `check` looks at what is left each time."""
    began = time.monotonic()
    start(stage, *arguments, cwd=cwd).communicate()
    duration = time.monotonic() - began
    random.seed(7)
    killed = 0
    for moment in range(moments):
        process = start(stage, *arguments, cwd=cwd)
        # Most of the moments near the end, where files are renamed.
        time.sleep(duration * (random.uniform(0.0, 1.0) if moment % 2 else random.uniform(0.75, 1.05)))
        if process.poll() is None:
            killed += 1
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        check()
    assert killed >= moments // 4, "the kills came too late to show anything"


@file_stages
def test_a_kill_leaves_the_old_file_whole_and_a_new_run_gives_the_same_bytes(tmp_path, stage):
    write_rows(tmp_path / "old.jsonl", many(3, start=900))
    write_rows(tmp_path / "new.jsonl", many(600))
    run_stage(stage, source="new.jsonl", output="undisturbed/out.jsonl", cwd=tmp_path, check=0)
    whole = {(tmp_path / "undisturbed/out.jsonl").read_bytes()}
    (tmp_path / "out").mkdir()
    run_stage(stage, source="old.jsonl", output="out/out.jsonl", cwd=tmp_path, check=0)
    whole.add((tmp_path / "out/out.jsonl").read_bytes())
    arguments = ["--input", "new.jsonl", "--output", "out/out.jsonl", "--workers", "2"]

    def check():
        assert (tmp_path / "out/out.jsonl").read_bytes() in whole

    kill_at_random_moments(stage, arguments, tmp_path, 12, check)
    run_stage(stage, source="new.jsonl", output="out/out.jsonl", cwd=tmp_path, check=0)
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed"), "no temporary file is left either"


def test_a_kill_never_leaves_the_train_side_of_one_split_beside_the_other_side_of_another(tmp_path):
    write_rows(tmp_path / "in.jsonl", many(400))
    sides = {}
    for seed in ("1", "2"):
        run_script(*SPLIT, "--input", "in.jsonl", "--output-dir", f"whole{seed}", "--seed", seed, cwd=tmp_path, check=0)
        sides[contents(tmp_path / f"whole{seed}")["train.jsonl"]] = contents(tmp_path / f"whole{seed}")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mine.txt").write_text("not theirs")
    run_script(*SPLIT, "--input", "in.jsonl", "--output-dir", "d", "--seed", "1", cwd=tmp_path, check=0)

    def check():
        found = contents(tmp_path / "d")
        assert found.pop("mine.txt") == b"not theirs"
        assert found == sides[found["train.jsonl"]], "one run's train beside another's test"

    kill_at_random_moments(SPLIT, ["--input", "in.jsonl", "--output-dir", "d", "--seed", "2"], tmp_path, 14, check)
    run_script(*SPLIT, "--input", "in.jsonl", "--output-dir", "d", "--seed", "2", cwd=tmp_path, check=0)
    check()
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]


@file_stages
def test_a_full_disk_is_one_line_and_the_old_output_stays(tmp_path, stage):
    write_rows(tmp_path / "in.jsonl", many(300))
    (tmp_path / "out.jsonl").write_text("old")
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # noqa: E731
    process = start(stage, "--input", "in.jsonl", "--output", "out.jsonl", cwd=tmp_path, preexec_fn=limit, text=True)
    error = process.communicate()[1]
    assert process.returncode == 1, error
    assert "Traceback" not in error
    assert "File too large" in error
    assert contents(tmp_path)["out.jsonl"] == b"old"
    assert sorted(contents(tmp_path)) == ["in.jsonl", "out.jsonl"]


def in_own_mounts(script, cwd):
    """Run a shell script where it may mount: as root, in a mount namespace of its own."""
    command = ["unshare", "--mount", "sh", "-c", script]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, env=CLEAN | {"HOME": str(cwd), "PYTHONPATH": str(ROOT)}
    )


def can_mount():
    if os.geteuid() != 0 or not shutil.which("unshare"):
        return False
    return (
        subprocess.run(["unshare", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /mnt"], capture_output=True).returncode
        == 0
    )


@pytest.mark.skipif(not can_mount(), reason="needs the right to mount a small file system")
@pytest.mark.parametrize(("how", "says"), [("size=60k", "No space left on device"), ("ro", "Read-only file system")])
@file_stages
def test_a_real_full_or_read_only_file_system_is_one_line(tmp_path, stage, how, says):
    write_rows(tmp_path / "in.jsonl", many(300))
    (tmp_path / "disk").mkdir()
    script = "-m schema" if stage[0] == "schema" else str(ROOT / stage[0])
    command = f"{sys.executable} {script} {' '.join(stage[1:])} --input in.jsonl --output disk/out.jsonl"
    done = in_own_mounts(f"mount -t tmpfs -o {how} tmpfs disk && {command}; code=$?; ls -A disk; exit $code", tmp_path)
    assert done.returncode == 1, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.strip() == "", "nothing half-written is left"


@file_stages
def test_a_closed_pipe_is_no_traceback(tmp_path, stage):
    write_rows(tmp_path / "in.jsonl", many(600))
    process = start(stage, "--input", "in.jsonl", "--output", "-", cwd=tmp_path)
    process.stdout.read(10)
    process.stdout.close()
    error = process.stderr.read().decode()
    assert process.wait() in (0, 1)
    assert "Traceback" not in error
    assert "Exception ignored" not in error


@file_stages
def test_a_second_run_on_the_same_output_fails_at_once(tmp_path, stage):
    write_rows(tmp_path / "in.jsonl", [record()])
    program = (
        "import schema, pathlib, sys\n"
        "with schema.lock(pathlib.Path('out.jsonl')):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    env = CLEAN | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    holder = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, env=env, **pipes)
    assert holder.stdout.readline() == b"held\n"
    assert "another run is writing it" in run_stage(stage, cwd=tmp_path, check=4).err
    holder.communicate(b"")
    run_stage(stage, cwd=tmp_path, check=0)


@file_stages
def test_an_interrupt_exits_130_and_leaves_nothing(tmp_path, stage):
    write_rows(tmp_path / "in.jsonl", many(300))
    arguments = ["--input", "-", "--output", "out/out.jsonl", "--workers", "2"]
    process = start(stage, *arguments, cwd=tmp_path, stdin=subprocess.PIPE)
    process.stdin.write((tmp_path / "in.jsonl").read_bytes())
    process.stdin.flush()  # and not closed: the run can not end by itself before it is interrupted
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("out/.*.part")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    error = process.communicate()[1].decode()
    assert process.returncode == 130, error
    assert "Traceback" not in error
    assert contents(tmp_path / "out") == {}


# --- on its own -------------------------------------------------------------------------------------------------------

ALONE = {
    **{
        name: (stage, ["--input", "in.jsonl", "--output", "out.jsonl"])
        for name, stage in FILE_STAGES.items()
        if stage[0] != "schema"
    },
    "split_data": (SPLIT, ["--input", "in.jsonl", "--output-dir", "d"]),
    "train": (["train.py", "inspect"], ["--help"]),
    "merge_export": (["merge_export.py"], ["--help"]),
    "evaluate_model": (["evaluate_model.py"], ["--help"]),
    "prepare_data": (["prepare_data.py", "list-sources"], ["--help"]),
    "report": (["report.py", "status"], []),
}


@pytest.mark.parametrize(("stage", "arguments"), ALONE.values(), ids=ALONE)
def test_a_stage_runs_alone_in_an_empty_folder(tmp_path, stage, arguments):
    name = stage[0].removesuffix(".py")
    for part in (stage[0], "schema", *(["extractors"] if name == "prepare_data" else [])):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, tmp_path / part)
    if (ROOT / "stages" / name).is_dir():
        shutil.copytree(ROOT / "stages" / name, tmp_path / "stages" / name)
    write_rows(tmp_path / "in.jsonl", many(40))
    done = subprocess.run(
        [sys.executable, stage[0], *stage[1:], *arguments],
        cwd=tmp_path,
        env=CLEAN | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
