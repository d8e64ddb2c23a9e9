"""train.py: settings, what is trained and what is not, the same result twice, resume, and the tiny base."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from conftest import CLEAN, ROOT, read_rows, record, run_script, write_rows

import schema
from stages.train import checkpoints, lengths, mlx, packing, rows, settings, templates, tiny, trackers

TRAIN = ROOT / "train.py"
QUICK = ("--tiny-steps", 3, "--tiny-vocab-size", 400, "--tiny-layers", 1, "--tiny-feed-forward", 256)
# 24 rows are one step: what the first step reports is the loss of the untouched base on all of them.
WHOLE = ("--batch-size", 8, "--accumulation", 3, "--lr", 1e-3, "--save-steps", 1, "--keep-checkpoints", 9)
LONG = "Draw it slowly, and then say in many words what it is that was drawn and why. " * 30
# Importing torch, transformers and trl costs more than each of these trainings: one process does it, and each run is
# a fork of that process. One run of the tests is a process of its own, as a user would start it.
SERVER = """
import json, os, resource, runpy, sys
sys.path.insert(0, {root!r})
import datasets, peft, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer
print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    if pid := os.fork():
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
        continue
    os.chdir(job["cwd"])
    os.environ.update(job["env"])
    if job["largest"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["largest"], job["largest"]))
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(job[name], os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
    sys.argv = [{train!r}, *job["arguments"]]
    try:
        runpy.run_path({train!r}, run_name="__main__")
    except SystemExit as end:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(end.code or 0)
    except BaseException as error:
        print("Traceback", repr(error), file=sys.stderr, flush=True)
        os._exit(99)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run train.py in a fork of a process that has imported everything; `watch` may kill it."""
    home = tmp_path_factory.mktemp("home")
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER.format(root=str(ROOT), train=str(TRAIN))],
        env=CLEAN | {"HOME": str(home), "PYTHONHASHSEED": "1", "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout.readline() == "ready\n"

    def start(*arguments, cwd, check=0, watch=None, env=None, largest=0):
        job = {"arguments": [str(word) for word in arguments], "cwd": str(cwd), "env": env or {}, "largest": largest}
        job |= {name: str(home / name) for name in ("out", "err")}
        server.stdin.write(json.dumps(job) + "\n")
        server.stdin.flush()
        pid = int(server.stdout.readline())
        if watch:
            watch(pid)
        code = int(server.stdout.readline())
        out, err = ((home / name).read_text() for name in ("out", "err"))
        assert code == check, f"exit code {code}, not {check}\n{err}\n{out}"
        assert "Traceback" not in err, err
        return SimpleNamespace(out=out, err=err)

    yield start
    server.stdin.close()
    server.wait(timeout=30)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """24 rows to learn, one without a description, one line that is no JSON; and 4 rows held out."""
    folder = tmp_path_factory.mktemp("data")
    undescribed = record(90, description="", metadata={"kind": "code", "needs_description": True})
    write_rows(folder / "train.jsonl", [*(record(number) for number in range(24)), undescribed, b"{broken"])
    write_rows(folder / "valid.jsonl", [record(number) for number in range(30, 34)])
    return folder


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """One whole training, started as a user would."""
    folder = tmp_path_factory.mktemp("trained")
    done = run_script(
        "train.py",
        *("--data", data / "train.jsonl", "--eval-data", data / "valid.jsonl", "--output", "runs/a"),
        *(*QUICK, *WHOLE, "--max-steps", 5),
        cwd=folder,
        check=0,
        env={"PYTHONHASHSEED": "0"},
    )
    return SimpleNamespace(folder=folder, output=folder / "runs" / "a", err=done.err, out=done.out)


@pytest.fixture(scope="module")
def speaker():
    """The tokenizer of the tiny model for scenes 0 to 23."""
    config = settings.check({"tiny": {"vocab_size": 400}}, "test")
    return tiny.build_speaker([record(number) for number in range(24)], config)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- settings ---------------------------------------------------------------------------------------------------------


def test_every_setting_has_a_flag_with_its_default_in_the_help(tmp_path):
    text = " ".join(run_script("train.py", "train", "--help", cwd=tmp_path, check=0).out.split())
    for leaf in settings.leaves():
        assert re.search(rf"{leaf.flag}\b", text), leaf.flag
        assert leaf.meta.description.split(";")[0].split(".")[0] in text, leaf.flag
        if leaf.default is not None and leaf.kind is not bool:
            assert f"[default: {leaf.default}]" in text, leaf.flag


def test_the_documented_defaults_hold():
    told, lora = settings.FineTuneConfig().training, settings.FineTuneConfig().lora
    assert (lora.r, lora.alpha, lora.dropout, lora.target_modules) == (16, 32, 0.05, "all-linear")
    assert (told.lr, told.epochs, told.batch_size, told.accumulation) == (2e-4, 3, 1, 8)
    assert (told.scheduler, told.warmup, told.weight_decay, told.max_grad_norm) == ("cosine", 0.03, 0.01, 1.0)
    assert (told.seed, settings.FineTuneConfig().data.max_length, settings.FineTuneConfig().data.on_long) == (
        42,
        1024,
        "fail",
    )


def test_a_flag_wins_over_the_file_and_the_file_over_the_default(tmp_path):
    (tmp_path / "mine.yaml").write_text("training: {lr: 2e-5, epochs: 7}\nlora:\n")
    shown = run_script("train.py", "config", "show", "--config", "mine.yaml", "--epochs", 2, cwd=tmp_path, check=0).out
    (tmp_path / "shown.yaml").write_text(shown)
    config = settings.resolve(str(tmp_path / "shown.yaml"), {})
    assert (config.training.lr, config.training.epochs, config.training.seed) == (2e-5, 2.0, 42)


def test_config_yaml_in_the_current_folder_is_read_without_being_named(tmp_path):
    (tmp_path / "config.yaml").write_text("lora: {r: 5}\n")
    assert "r: 5" in run_script("train.py", "config", "show", cwd=tmp_path, check=0).out


def test_an_exponent_is_a_number_though_yaml_reads_text():
    assert settings.check({"training": {"lr": "2e-4"}}, "x").training.lr == 2e-4


WRONG = [
    ("training: {lrr: 1}", "did you mean training.lr?"),
    ("training: {num_epochs: 1}", "did you mean training.epochs?"),
    ("training: {learning_rate: 1}", "did you mean training.lr?"),
    ("lora_rank: 8", "did you mean lora.r?"),
    ("trainning: {}", "did you mean training?"),
    ("training: {lr: 0}", "training.lr: expected float > 0.0"),
    ("training: {lr: fast}", "training.lr: expected float"),
    ("training: {max_steps: 0}", "training.max_steps: expected int >= 1"),
    ("data: {on_long: cut}", "data.on_long: invalid enum value 'cut'"),
    ("tiny: {hidden_size: 300}", "a multiple of 256"),
    ("training: 3", "training holds settings, not 3"),
    ("- a", "holds a list"),
    ("training: {lr: [", "not YAML at line 1"),
]


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[text for text, _ in WRONG])
def test_a_wrong_setting_is_named_with_the_nearest_right_one(tmp_path, text, said):
    place = tmp_path / "config.yaml"
    place.write_text(text)
    with pytest.raises(click.UsageError) as error:
        settings.resolve(str(place), {})
    assert str(place) in error.value.message and said in error.value.message


def test_wrong_settings_end_with_code_2_before_anything_is_written(tmp_path, data):
    (tmp_path / "config.yaml").write_text("training: {lrr: 1}\n")
    done = run_script("train.py", "config", "validate", cwd=tmp_path, check=2)
    assert "did you mean training.lr?" in done.err
    run_script("train.py", "--data", data / "train.jsonl", cwd=tmp_path, check=2)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_config_init_writes_what_the_project_carries_and_replaces_nothing(tmp_path):
    run_script("train.py", "config", "init", "--output", "c.yaml", "--template", "default", cwd=tmp_path, check=0)
    assert (tmp_path / "c.yaml").read_bytes() == (ROOT / "config.yaml").read_bytes()
    assert settings.resolve(str(tmp_path / "c.yaml"), {}) == settings.FineTuneConfig()
    run_script("train.py", "config", "validate", "--config", "c.yaml", cwd=tmp_path, check=0)
    (tmp_path / "c.yaml").write_text("# mine\n")
    assert "--force" in run_script("train.py", "config", "init", "--output", "c.yaml", cwd=tmp_path, check=2).err
    assert (tmp_path / "c.yaml").read_text() == "# mine\n"


# --- what is trained --------------------------------------------------------------------------------------------------


def test_the_answer_and_its_end_are_trained_and_nothing_else(speaker):
    row = rows.encode(speaker, record(3))
    decode = speaker.tokenizer.decode
    question = f"<|im_start|>user\n{record(3)['description']}<|im_end|>\n<|im_start|>assistant\n"
    assert decode(row.ids[: row.prompt]) == question
    assert decode([label for label in row.labels if label != rows.IGNORED]) == record(3)["code"] + "<|im_end|>"
    assert row.labels[: row.prompt] == [rows.IGNORED] * row.prompt and len(row.labels) == len(row.ids)
    assert speaker.tokenizer.pad_token_id != speaker.tokenizer.eos_token_id


TEMPLATES = {
    "no_end_token": "{% for m in messages %}{{ m['content'] }}{% endfor %}",
    "prompt_not_prefix": "{{ messages | length }}{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}",
    "nothing_trained": "{% for m in messages %}{{ m['content'] if m['role'] == 'user' }}<|im_end|>{% endfor %}",
    "prompt_trained": "{% for m in messages %}{% if m['role'] == 'assistant' %}Reply: {% endif %}{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}<|im_end|>{% endif %}{% endfor %}",
    "answer_changed": "{% for m in messages %}{{ m['content'][:40] }}"
    "{% if m['role'] == 'assistant' %}<|im_end|>{% endif %}{% endfor %}",
    "double_bos": "<|im_start|><|im_start|>{% for m in messages %}{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}<|im_end|>{% endif %}{% endfor %}",
}


@pytest.mark.parametrize(("code", "template"), TEMPLATES.items(), ids=TEMPLATES)
def test_a_template_that_would_ruin_the_training_is_named(speaker, code, template):
    tokenizer = copy.deepcopy(speaker.tokenizer)
    tokenizer.chat_template, tokenizer.bos_token = template, "<|im_start|>"
    fault = rows.encode(speaker._replace(tokenizer=tokenizer), record(3))
    assert isinstance(fault, schema.Fault) and fault.code == code


ENDS = {"llama3_2": "<|eot_id|>", "gemma": "<end_of_turn>", "gemma3": "<end_of_turn>", "phi3": "<|end|>"}
REAL = (*ENDS, "llama3", "qwen2_5", "qwen3", "qwen3_5_think", "lfm2_v2", "lfm2_2_5_v2")


@pytest.mark.parametrize("system", [{}, {"system": "Be brief."}], ids=["without", "with a system message"])
@pytest.mark.parametrize("family", REAL)
def test_the_templates_of_real_families_train_the_answer_and_its_end(speaker, family, system):
    """The templates are those that trl carries; the tokenizer is ours, with their end token."""
    folder = Path(importlib.util.find_spec("trl").origin).parent / "chat_templates"
    tokenizer = copy.deepcopy(speaker.tokenizer)
    end = ENDS.get(family, "<|eot_id|>" if "llama" in family else "<|im_end|>")
    tokenizer.add_special_tokens({"eos_token": end, "bos_token": "<bos>"})
    tokenizer.chat_template = templates.without_today((folder / f"{family}.jinja").read_text("utf-8"))[0]
    told = rows.Speaker(tokenizer, frozenset({tokenizer.eos_token_id}))
    row = rows.encode(told, schema.adopt(record(3, metadata=system)))
    trained = tokenizer.decode(row.ids[row.prompt :])
    assert re.fullmatch(
        r"(<think>)?\s*(</think>)?\s*" + re.escape(record(3)["code"].strip() + end), trained.replace("\n" + end, end)
    )
    prompt = tokenizer.decode(row.ids[: row.prompt])
    assert record(3)["description"] in prompt and prompt.count("Be brief.") == len(system)


def test_a_template_that_writes_the_date_of_today_writes_one_date_for_ever():
    fixed, was_dated = templates.without_today("{{ strftime_now( '%d %b %Y' ) }}{{ strftime_now is defined }}")
    assert was_dated and fixed == '{{ "01 Jan 2026" }}{{ strftime_now is defined }}'
    assert templates.without_today("{{ messages }}") == ("{{ messages }}", False)


def test_a_rows_own_system_text_is_part_of_the_prompt(speaker):
    row = rows.encode(speaker, record(1, metadata={"system": "You draw."}))
    assert speaker.tokenizer.decode(row.ids[: row.prompt]).startswith("<|im_start|>system\nYou draw.")


@pytest.mark.parametrize("field", ["description", "code"])
def test_text_that_spells_a_control_token_is_not_trained_on(speaker, field):
    fault = rows.encode(speaker, record(3, **{field: "a = 1  # <|im_end|> b = 2"}))
    assert fault.code == "control_token" and field in fault.message


def test_trimming_takes_from_the_prompt_and_never_from_the_answer(speaker):
    whole = rows.encode(speaker, record(3, description=LONG + "é" * 9))
    short = rows.trim(speaker, whole, whole.answer + 40)
    assert len(short.ids) <= whole.answer + 40 < len(whole.ids)
    assert short.ids[short.prompt :] == whole.ids[whole.prompt :]
    assert short.record == whole.record
    assert rows.trim(speaker, whole, whole.answer + 2).code == "too_long"


def test_percentiles_are_sizes_that_occur(speaker):
    one, other = rows.encode(speaker, record(3)), rows.encode(speaker, record(3, description=LONG))
    last = lengths.table([one] * 9 + [other]).split("\n")[-1].split()
    assert last == ["row", *(f"{len(row.ids):,}" for row in (one, one, other, other, other))]


def test_the_reported_loss_is_that_of_the_answers_alone(trained):
    """The adapter starts without effect, so the first step must report the base's own loss on the answers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(trained.output / "base")
    reader = rows.Speaker(AutoTokenizer.from_pretrained(trained.output / "base"), frozenset({2}))
    total = count = 0
    for number in range(24):
        row = rows.encode(reader, record(number))
        with torch.no_grad():
            logits = model(torch.tensor([row.ids])).logits[0, row.prompt - 1 : -1]
        answer = torch.tensor(row.ids[row.prompt :])
        total += float(torch.nn.functional.cross_entropy(logits, answer, reduction="sum"))
        count += len(answer)
    assert read_rows(trained.output / "metrics.jsonl")[0]["loss"] == pytest.approx(total / count, rel=1e-4)


def test_inspect_shows_lengths_and_marks_what_is_trained(run, data, tmp_path):
    done = run("inspect", "--data", data / "train.jsonl", "--show-mask", 2, *QUICK[2:4], cwd=tmp_path)
    assert re.search(r"tokens +p50 +p90 +p95 +p99 +max", done.out)
    assert "24 rows, 0 of them longer than 1,024 tokens" in done.out
    assert "1 rows can not be trained on: needs_description" in done.out
    assert re.search(r"packed: 24 rows fill \d sequences of 1,024 tokens to [\d.]+%", done.out)
    shown = done.out.split("\nrow 2:")[0].split("\nrow 1:")[1]
    assert "[" not in shown.split("assistant\\n")[0].split("\n", 1)[1]
    assert shown.rstrip().endswith("[<|im_end|>]") and done.out.count("[<|im_end|>]") == 2
    assert list(tmp_path.iterdir()) == []


# --- a training -------------------------------------------------------------------------------------------------------


def test_a_training_leaves_everything_that_the_next_stage_needs(trained):
    adapter_files = {path.name for path in (trained.output / "adapter").iterdir()}
    assert {
        "adapter_model.safetensors",
        "adapter_config.json",
        "tokenizer.json",
        "chat_template.jinja",
    } <= adapter_files
    config = json.loads((trained.output / "adapter" / "adapter_config.json").read_bytes())
    assert config["base_model_name_or_path"] == "../base", "a run that is moved as a whole still fits together"
    assert settings.resolve(str(trained.output / "config.yaml"), {}).training.lr == 1e-3
    lines = read_rows(trained.output / "metrics.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5]
    assert [line["step"] for line in lines if "eval_loss" in line] == [1, 2, 3, 4, 5]
    assert not any("runtime" in name or "second" in name for line in lines for name in line)
    assert re.search(r"[\d,]+ of [\d,]+ weights are trained \([\d.]+%\) in float32 on cpu", trained.err)
    assert trained.out == ""


def test_rows_that_are_not_trained_on_are_kept_with_their_reason(trained):
    errors = [row["metadata"]["error"] for row in read_rows(trained.output / "rejects.jsonl")]
    assert sorted(error["code"] for error in errors) == ["needs_description", "not_json"]
    ledger = json.loads((trained.output / "ledger.json").read_bytes())
    assert ledger["counts"] == {"in": 30, "kept": 28, "rejected": 2, "merged": 0}
    assert "train: 30 in, 28 kept (24 trained, 4 held out), 2 rejected -> runs/a/adapter" in trained.err
    assert schema.audit(trained.output / "ledger.json") == []


def test_the_same_run_gives_the_same_bytes(run, trained, data, tmp_path):
    sides = ("--data", data / "train.jsonl", "--eval-data", data / "valid.jsonl")
    run(*sides, "--output", "runs/a", *QUICK, *WHOLE, "--max-steps", 5, cwd=tmp_path)
    for name in ("adapter/adapter_model.safetensors", "adapter/adapter_config.json", "adapter/tokenizer.json"):
        assert digest(tmp_path / "runs" / "a" / name) == digest(trained.output / name), name
    for name in ("base/model.safetensors", "metrics.jsonl", "config.yaml", "rejects.jsonl"):
        assert digest(tmp_path / "runs" / "a" / name) == digest(trained.output / name), name


def kill_at(seal, sent=signal.SIGKILL):
    """Kill the run without mercy as soon as a checkpoint is whole."""

    def watch(pid):
        end = time.monotonic() + 120
        while not seal.exists() and time.monotonic() < end:
            time.sleep(0.005)
        os.kill(pid, sent)

    return watch


def test_a_killed_run_leaves_no_half_adapter_and_resumes_to_the_same_bytes(run, data, tmp_path):
    """Three steps an epoch, killed in the middle of one: order of rows, dropout and optimizer must all go on."""
    sides = ("--data", data / "train.jsonl", "--eval-data", data / "valid.jsonl")
    command = (*sides, *QUICK, *WHOLE, "--accumulation", 1, "--max-steps", 7)
    run(*command, "--output", "runs/whole", cwd=tmp_path)
    output = tmp_path / "runs" / "a"
    for step, how in ((2, []), (4, ["--resume"]), (5, ["--resume"])):
        seal = output / "checkpoints" / f"checkpoint-{step}" / checkpoints.SEAL
        run(*command, *how, "--output", "runs/a", cwd=tmp_path, check=-9, watch=kill_at(seal))
    assert not (output / "adapter").exists() and not (output / "ledger.json").exists()

    newest = max((output / "checkpoints").glob("checkpoint-*"), key=checkpoints.step_of)
    torn = newest.with_name("checkpoint-1000")
    shutil.copytree(newest, torn)
    (torn / "optimizer.pt").write_bytes(b"half of")
    done = run(*command, "--output", "runs/a", "--resume", cwd=tmp_path)
    assert "checkpoint-1000 is skipped: " in done.err and "going on from runs/a/checkpoints/checkpoint-" in done.err
    assert "base is used again" in done.err
    # losses.jsonl holds the ids of the rows of every step
    for name in ("adapter/adapter_model.safetensors", "metrics.jsonl", "losses.jsonl"):
        assert digest(output / name) == digest(tmp_path / "runs" / "whole" / name), name

    other = run(*command, "--output", "runs/a", "--resume", "--lr", 5e-4, cwd=tmp_path, check=1)
    assert "belongs to a run with other settings" in other.err


def test_checkpoints_are_ordered_by_number(tmp_path):
    for step in (50, 1000, 200):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "weights").write_bytes(b"w")
        checkpoints.seal(folder, {"rows": "1"})
    assert checkpoints.newest(tmp_path, {"rows": "1"}).name == "checkpoint-1000"
    (tmp_path / "checkpoint-1000" / checkpoints.SEAL).unlink()
    (tmp_path / "checkpoint-200" / "weights").unlink()
    assert checkpoints.newest(tmp_path, {"rows": "1"}).name == "checkpoint-50"
    assert checkpoints.newest(tmp_path / "none", {"rows": "1"}) is None
    with pytest.raises(schema.Failure, match="other rows"):
        checkpoints.newest(tmp_path, {"rows": "2"})


def test_a_local_model_folder_is_trained_without_the_network(run, trained, data, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(trained.output / "base", model)
    run("--data", data / "train.jsonl", "--model", "model", "--output", "out", "--max-steps", 1, cwd=tmp_path)
    config = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_bytes())
    assert config["base_model_name_or_path"] == "../../model" and not (tmp_path / "out" / "base").exists()


def test_packed_rows_learn_what_unpacked_rows_learn(run, trained, data, tmp_path):
    """The first loss of a packed run is that of the same rows one by one: no row sees another."""
    shutil.copytree(trained.output / "base", tmp_path / "model")
    sides = ("--data", data / "valid.jsonl", "--model", "model", "--max-steps", 1, "--accumulation", 1)
    run(*sides, "--output", "one", "--batch-size", 4, cwd=tmp_path)
    run(*sides, "--output", "packed", "--packing", cwd=tmp_path)
    plain, packed = (read_rows(tmp_path / name / "metrics.jsonl")[0]["loss"] for name in ("one", "packed"))
    assert packed == pytest.approx(plain, rel=1e-5)
    one, other = (
        sorted((line["id"], line["tokens"]) for line in read_rows(tmp_path / name / "losses.jsonl"))
        for name in ("one", "packed")
    )
    assert one == other and len(one) == 4


def test_each_row_has_its_loss_by_id_in_every_epoch(trained):
    lines = read_rows(trained.output / "losses.jsonl")
    assert {line["step"] for line in lines} == {1, 2, 3, 4, 5}
    first = [line for line in lines if line["epoch"] == 1]
    assert len(first) == 24 == len({line["id"] for line in first})
    mean = sum(line["loss"] * line["tokens"] for line in first) / sum(line["tokens"] for line in first)
    assert mean == pytest.approx(read_rows(trained.output / "metrics.jsonl")[0]["loss"], rel=1e-5)
    worst = max((line for line in lines if line["epoch"] == 5), key=lambda line: line["loss"])
    assert trained.err.split("learned least")[1].split("\n")[1].split()[:2] == [
        f"{worst['loss']:.3f}",
        worst["id"][:16],
    ]


def test_eight_times_one_row_is_one_time_eight_rows(run, trained, data, tmp_path):
    """24 rows of several lengths in steps of 16: the second step is a part of a window."""
    from safetensors.torch import load_file

    same = ("--data", data / "train.jsonl", "--model", trained.output / "base", "--epochs", 1, "--lora-dropout", 0)
    found = []
    for name, batch, accumulation in (("one", 16, 1), ("other", 1, 16), ("third", 4, 4)):
        run(*same, "--output", name, "--batch-size", batch, "--accumulation", accumulation, cwd=tmp_path)
        found.append(load_file(tmp_path / name / "adapter" / "adapter_model.safetensors"))
        assert [len(steps) for steps in by_step(tmp_path / name)] == [16, 8]
    for name in found[0]:
        for other in found[1:]:
            assert (found[0][name] - other[name]).abs().max() < 2e-6, name


def by_step(output):
    lines = read_rows(output / "losses.jsonl")
    return [[line["id"] for line in lines if line["step"] == step] for step in sorted({line["step"] for line in lines})]


def test_a_training_stops_when_it_gets_no_better_and_keeps_the_best(run, trained, data, tmp_path):
    from safetensors.torch import load_file

    done = run(
        *("--data", data / "train.jsonl", "--model", trained.output / "base", "--output", "a", "--eval-split", 0.25),
        *(
            "--lr",
            1,
            "--lora-alpha",
            2048,
            "--warmup",
            0,
            "--scheduler",
            "constant_with_warmup",
            "--eval-steps",
            1,
            "--patience",
            1,
        ),
        *("--accumulation", 2, "--max-steps", 9, "--keep-checkpoints", 9),
        cwd=tmp_path,
    )
    losses = {
        line["step"]: line["eval_loss"] for line in read_rows(tmp_path / "a" / "metrics.jsonl") if "eval_loss" in line
    }
    best = min(losses, key=losses.get)
    assert max(losses) == best + 1 < 9 and f"at step {best}: stopped" in done.err
    names = ("a/adapter", f"a/checkpoints/checkpoint-{best}")
    kept, checkpoint = (load_file(tmp_path / name / "adapter_model.safetensors") for name in names)
    assert all((kept[name] == checkpoint[name]).all() for name in kept)


def test_every_weight_is_trained_on_request(run, trained, data, tmp_path):
    command = ("--data", data / "train.jsonl", "--model", trained.output / "base", "--method", "full", "--lr", 1e-3)
    done = run(*command, "--output", "a", "--max-steps", 2, cwd=tmp_path)
    assert "(100.00%)" in done.err and "warning: training.lr" in done.err
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= {
        path.name for path in (tmp_path / "a/model").iterdir()
    }
    assert digest(tmp_path / "a/model/model.safetensors") != digest(trained.output / "base/model.safetensors")
    run("--data", data / "train.jsonl", "--model", "a/model", "--output", "b", "--max-steps", 1, cwd=tmp_path)
    assert schema.audit(tmp_path / "a" / "ledger.json") == []


def test_one_command_trains_one_adapter_for_each_persona_on_one_base(run, tmp_path):
    for position, name in enumerate(("eli5", "intuitive")):
        rows_of = [record(number + 6 * position) for number in range(6)]
        write_rows(tmp_path / "personas" / f"{name}.jsonl", rows_of)
    run(
        "--data",
        "personas",
        "--adapters",
        "eli5,intuitive",
        "--output",
        "p",
        *QUICK,
        "--max-steps",
        1,
        "--warmup",
        0,
        cwd=tmp_path,
    )
    weights = {digest(tmp_path / "p" / name / "adapter/adapter_model.safetensors") for name in ("eli5", "intuitive")}
    assert len(weights) == 2
    for name in ("eli5", "intuitive"):
        known = json.loads((tmp_path / "p" / name / "adapter" / "adapter_config.json").read_bytes())
        assert known["base_model_name_or_path"] == "../../base"
        assert schema.audit(tmp_path / "p" / name / "ledger.json") == []


def test_plain_text_is_learned_whole_and_needs_no_request(run, trained, tmp_path):
    texts = [{"text": f"Gravity is what pulls you down, and number {n} says so."} for n in range(4)]
    write_rows(tmp_path / "in.jsonl", texts)
    told = ("--data", "in.jsonl", "--model", trained.output / "base", "--train-on", "text")
    run(*told, "--packing", "--output", "a", "--max-steps", 1, "--accumulation", 1, cwd=tmp_path)
    lines = read_rows(tmp_path / "a" / "losses.jsonl")
    assert len(lines) == 4
    shown = run("inspect", *told, "--show-mask", 1, cwd=tmp_path).out
    assert "0 tokens of prompt" in shown and shown.rstrip().endswith("[<|im_end|>]")


FAMILIES = ("Llama", "Qwen2", "Qwen3", "Mistral", "Gemma", "Lfm2")


@pytest.fixture(scope="module")
def families(trained, tmp_path_factory):
    """A small random model of each family, with the tokenizer of the tiny one."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("families")
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained.output / "base")
    shape = {"vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "eos_token_id": 2, "pad_token_id": 0}
    for family in FAMILIES:
        own = {"Lfm2": {"layer_types": ["conv", "full_attention"]}, "Llama": {}, "Qwen2": {}}.get(
            family, {"head_dim": 16}
        )
        config = getattr(transformers, f"{family}Config")(**shape, **own, bos_token_id=None)
        torch.manual_seed(0)
        getattr(transformers, f"{family}ForCausalLM")(config).save_pretrained(folder / family)
        tokenizer.save_pretrained(folder / family)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_saves_reloads_and_packs_without_a_leak(run, families, data, tmp_path, family):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    sides = ("--data", data / "valid.jsonl", "--model", families / family, "--accumulation", 1, "--lora-dropout", 0)
    run(*sides, "--output", "one", "--batch-size", 4, "--max-steps", 2, "--warmup", 0, "--lr", 0.01, cwd=tmp_path)
    run(*sides, "--output", "packed", "--packing", "--max-steps", 2, "--warmup", 0, "--lr", 0.01, cwd=tmp_path)
    plain, packed = (read_rows(tmp_path / name / "losses.jsonl") for name in ("one", "packed"))
    for step in (1, 2):
        one, other = ({line["id"]: line["loss"] for line in lines if line["step"] == step} for lines in (plain, packed))
        assert other == pytest.approx(one, rel=1e-5), "each row by itself"
    base = AutoModelForCausalLM.from_pretrained(families / family).eval()
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        before = base(ids).logits
        after = PeftModel.from_pretrained(base, tmp_path / "one" / "adapter")(ids).logits
    assert (before - after).abs().max() > 1e-4, "the adapter that was saved has an effect"


def test_a_short_convolution_ends_where_a_row_ends():
    import torch

    torch.manual_seed(0)
    one, other, weight, bias = torch.randn(1, 8, 5), torch.randn(1, 8, 7), torch.randn(8, 3), torch.randn(8)
    apart = torch.cat([packing.short_convolution(row, weight, bias) for row in (one, other)], dim=-1)
    places = torch.tensor([[0] * 5 + [1] * 7])
    together = packing.short_convolution(torch.cat([one, other], dim=-1), weight, bias, places)
    assert torch.allclose(apart, together, atol=1e-6)
    leaking = packing.short_convolution(torch.cat([one, other], dim=-1), weight, bias)
    assert (apart - leaking).abs().max() > 0.1
    library = torch.nn.functional.conv1d(one, weight[:, None], bias, padding=2, groups=8)[..., :5]
    assert torch.allclose(apart[..., :5], library, atol=1e-6)


def test_the_backend_mlx_leaves_its_folder_and_its_command(run, trained, data, tmp_path):
    sides = ("--data", data / "train.jsonl", "--eval-data", data / "valid.jsonl", "--model", trained.output / "base")
    told = ("--backend", "mlx", "--output", "a", "--max-steps", 3)
    done = run(*sides, *told, cwd=tmp_path)
    if importlib.util.find_spec("mlx_lm") is None:
        assert done.err.rstrip().endswith("mlx_lm.lora --config a/mlx/adapter_config.json")
    known = json.loads((tmp_path / "a" / "mlx" / "adapter_config.json").read_bytes())
    assert (known["iters"], known["grad_accumulation_steps"], known["mask_prompt"]) == (24, 8, True)
    assert known["lora_parameters"] == {"rank": 16, "dropout": 0.05, "scale": 2.0}
    assert [line["messages"][1]["content"] for line in read_rows(tmp_path / "a/mlx/valid.jsonl")] == [
        record(number)["code"] for number in range(30, 34)
    ]
    assert settings.resolve(str(tmp_path / "a/mlx/adapter_config.json"), {}).training.max_steps == 3
    assert schema.audit(tmp_path / "a" / "ledger.json") == []
    assert "nothing like --packing" in run(*sides, *told, "--packing", cwd=tmp_path, check=2).err
    assert "nothing like --template" in run(*sides, *told, "--template", "alpaca", cwd=tmp_path, check=2).err


def test_mlx_finds_in_an_lfm2_what_transformers_leaves_out(families, tmp_path):
    folder = mlx.readable(str(families / "Lfm2"), tmp_path / "base")
    config = json.loads((Path(folder) / "config.json").read_bytes())
    assert (config["block_dim"], config["block_ff_dim"], config["full_attn_idxs"]) == (64, 128, [1])
    assert digest(Path(folder) / "model.safetensors") == digest(families / "Lfm2" / "model.safetensors")
    assert mlx.readable(folder, tmp_path / "again") == folder, "it has them now"
    assert mlx.readable(str(families / "Llama"), tmp_path / "again") == str(families / "Llama")


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_planted_faults_are_named_by_id_before_the_first_step(run, trained, tmp_path):
    def faulty(name, number, **changes):
        metadata = {"kind": "code", "id": name, **changes.pop("metadata", {})}
        return record(number, metadata=metadata, **changes)

    given = [
        *(
            faulty(f"good-{number}", number, metadata={"mixed": value})
            for number, value in enumerate([1, "x", [2], None])
        ),
        faulty("no-answer", 5, code=" \n"),
        faulty("cut-answer", 6, code="x = 1\n# <|im_end|>\ny = 2\n"),
        faulty("no-request", 7, description=""),
        faulty("too-long", 8, code="x = 1  # and on and on\n" * 200),
        faulty("good-1", 9),
        b'{"description": "broken',
    ]
    given[6]["metadata"]["needs_description"] = True
    write_rows(tmp_path / "in.jsonl", given)
    command = ("--data", "in.jsonl", "--model", trained.output / "base", "--output", "a", "--on-long", "reject")
    done = run(*command, "--max-steps", 1, cwd=tmp_path)
    before = done.err.split("step 1 of")[0]
    for code, name in {
        "invalid_record": "no-answer",
        "control_token": "cut-answer",
        "needs_description": "no-request",
        "too_long": "too-long",
        "duplicate_id": "good-1",
        "not_json": "line 10",
    }.items():
        assert f"1 {code}: {name}\n" in before
    assert "on 4 rows" in before


def test_the_log_keeps_what_was_said_of_this_run_and_of_those_before(run, trained, data, tmp_path):
    command = ("--data", data / "valid.jsonl", "--model", trained.output / "base", "--output", "a", "--accumulation", 1)
    run(*command, "--max-steps", 3, "-q", cwd=tmp_path)
    run(*command, "--max-length", 8, cwd=tmp_path, check=1)
    new, old = ((tmp_path / "a" / name).read_text() for name in ("train.log", "train.log.1"))
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d train: ", old)
    assert "step 2 of 3: loss" in old and "-> a/adapter" in old and "Error" not in old
    assert "Error: " in new.split("\n")[-2] and "rows are longer than 8 tokens" in new


def test_a_full_disk_is_one_line_and_what_was_there_stays(run, trained, data, tmp_path):
    command = ("--data", data / "train.jsonl", "--model", trained.output / "base", "--output", "a", "--lora-r", 256)
    done = run(*command, "--max-steps", 3, cwd=tmp_path, check=1, largest=2_000_000)
    last = done.err.strip().split("\n")[-1]
    assert last.startswith("Error: ") and ("can not be written" in last or "File too large" in last)
    assert not (tmp_path / "a" / "adapter").exists()
    run(*command, "--max-steps", 3, "--resume", cwd=tmp_path)


def test_a_loss_that_is_no_number_stops_the_training_and_names_its_rows(run, trained, data, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(trained.output / "base", tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    done = run("--data", data / "valid.jsonl", "--model", "model", "--output", "a", cwd=tmp_path, check=1)
    assert (
        "step 1: the loss is nan" in done.err
        and len(re.findall(r"[0-9a-f]{16}", done.err.split("of this step")[1])) == 4
    )


def test_ctrl_c_ends_with_130_and_the_run_goes_on_from_its_checkpoint(run, trained, data, tmp_path):
    command = (
        "--data",
        data / "train.jsonl",
        "--model",
        trained.output / "base",
        "--output",
        "a",
        *WHOLE,
        "--max-steps",
        30,
    )
    seal = tmp_path / "a" / "checkpoints" / "checkpoint-1" / checkpoints.SEAL
    done = run(*command, cwd=tmp_path, check=130, watch=kill_at(seal, signal.SIGINT))
    assert "interrupted" in done.err and not (tmp_path / "a" / "adapter").exists()


def tensorboard_of(output):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(output / "tensorboard"))
    found.Reload()
    return [point.value for point in found.Scalars("train/loss")]


def wandb_of(output):
    """Offline runs are of a format of its own; the names in it are plain."""
    [path] = (output / "wandb").glob("offline-run-*/run-*.wandb")
    data = path.read_bytes()
    return [step for step in (1, 2, 3) if b"train/loss" in data and b"train/learning_rate" in data]


def test_each_adapter_has_a_run_of_its_own_and_what_the_environment_says_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "mine")
    with trackers.settled("tensorboard", tmp_path):
        assert os.environ["TENSORBOARD_LOGGING_DIR"] == "mine"
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR")
    for name in ("a", "b"):
        with trackers.settled("tensorboard", tmp_path / name):
            assert os.environ["TENSORBOARD_LOGGING_DIR"] == str(tmp_path / name / "tensorboard")
    assert "TENSORBOARD_LOGGING_DIR" not in os.environ


def trackio_of(output):
    import sqlite3

    [path] = (output / "trackio").glob("*.db")
    with sqlite3.connect(path) as store:
        lines = [json.loads(text) for (text,) in store.execute("SELECT metrics FROM metrics ORDER BY step")]
    return [line["train/loss"] for line in lines if "train/loss" in line]


@pytest.mark.parametrize(
    "read", [tensorboard_of, wandb_of, trackio_of], ids=["tensorboard", "wandb offline", "trackio"]
)
def test_a_tracker_gets_the_curves_without_a_key_and_without_the_network(run, trained, data, tmp_path, read):
    tracker = read.__name__.removesuffix("_of")
    if importlib.util.find_spec(tracker) is None:
        pytest.skip(f"{tracker} is not installed")
    command = ("--data", data / "train.jsonl", "--model", trained.output / "base", "--max-steps", 3)
    done = run(*command, "--report-to", tracker, "--output", "a", cwd=tmp_path, env={"HOME": str(tmp_path)})
    assert done.out == "" and len(read(tmp_path / "a")) == 3
    assert schema.audit(tmp_path / "a" / "ledger.json") == []


def test_a_training_of_one_step_learns_something(run, trained, data, tmp_path):
    """The library's schedules begin with a rate of nothing."""
    command = ("--data", data / "train.jsonl", "--model", trained.output / "base", "--max-steps", 1)
    run(*command, "--output", "a", cwd=tmp_path)
    assert read_rows(tmp_path / "a" / "metrics.jsonl")[0]["learning_rate"] == 2e-4
    from safetensors.torch import load_file

    weights = load_file(tmp_path / "a" / "adapter" / "adapter_model.safetensors")
    assert max(weight.abs().max() for name, weight in weights.items() if "lora_B" in name) > 1e-5


@pytest.mark.parametrize("option", [("--qlora",), ("--report-to", "trackio")], ids=["qlora", "trackio"])
def test_a_missing_extra_is_one_line(run, data, tmp_path, option):
    package = {"--qlora": "bitsandbytes"}.get(option[0], option[-1])
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    done = run("--data", data / "train.jsonl", *option, cwd=tmp_path, check=2)
    assert re.fullmatch(rf"Error: \w+ needs the package {package}: pip install .*\n", done.err)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_qlora_trains_four_bits_on_a_cpu(run, trained, data, tmp_path):
    command = ("--data", data / "train.jsonl", "--model", trained.output / "base", "--qlora", "--max-steps", 2)
    done = run(*command, "--output", "a", cwd=tmp_path)
    total = json.loads((trained.output / "base" / "base.json").read_bytes())["parameters"]
    assert re.search(r"of ([\d,]+) weights", done.err)[1].replace(",", "") >= str(total)
    run(*command, "--output", "b", cwd=tmp_path)
    name = "adapter/adapter_model.safetensors"
    assert digest(tmp_path / "a" / name) == digest(tmp_path / "b" / name)


@pytest.fixture
def long_row(data, tmp_path):
    """One row of which the prompt, and one of which the answer is too long."""
    rows_in = [record(number) for number in range(6)]
    rows_in += [record(7, description=LONG), record(8, code="x = 1  # and on and on\n" * 200)]
    return write_rows(tmp_path / "long.jsonl", rows_in)


def test_long_rows_fail_unless_told_otherwise_and_each_choice_has_its_price(run, long_row, tmp_path):
    done = run("--data", long_row, *QUICK, "--max-length", 400, "--output", "out", cwd=tmp_path, check=1)
    assert re.search(r"tokens +p50 +p90 +p95 +p99 +max", done.err)
    last = done.err.strip().split("\n")[-1]
    assert "2 of 8 rows are longer than 400 tokens; --on-long reject leaves them out" in last
    assert "trim-prompt cuts" in last and "from the prompts of 1 and leaves out 1" in last and "--max-length" in last
    assert not (tmp_path / "out" / "adapter").exists()


@pytest.mark.parametrize(("choice", "rejected", "kept"), [("reject", 2, 6), ("trim-prompt", 1, 7)])
def test_long_rows_are_rejected_or_trimmed(run, long_row, tmp_path, choice, rejected, kept):
    command = ("--data", long_row, *QUICK, "--max-length", 400, "--on-long", choice, "--max-steps", 1)
    run(*command, "--output", "out", cwd=tmp_path)
    errors = [row["metadata"]["error"]["code"] for row in read_rows(tmp_path / "out" / "rejects.jsonl")]
    assert errors == ["too_long"] * rejected
    assert json.loads((tmp_path / "out" / "ledger.json").read_bytes())["extra"]["trained_rows"] == kept


@pytest.mark.parametrize(
    ("content", "said"),
    [([], "it is empty"), ([record(1, description="", metadata={"needs_description": True})], "needs_description")],
    ids=["empty", "undescribed"],
)
def test_no_usable_row_is_a_failure_that_says_why(run, tmp_path, content, said):
    write_rows(tmp_path / "in.jsonl", content)
    done = run("--data", "in.jsonl", cwd=tmp_path, check=1)
    assert "no row can be trained on" in done.err and said in done.err
    assert not (tmp_path / "runs" / "default" / "adapter").exists()


def test_missing_data_is_wrong_usage(tmp_path):
    assert "gone.jsonl" in run_script("train.py", "--data", "gone.jsonl", cwd=tmp_path, check=2).err


@pytest.mark.parametrize(
    ("model", "code", "said"),
    [
        ("./gone", 1, "there is no such folder"),
        ("some/model", 1, "a local folder works without the hub"),
        ("empty", 2, "it has no config.json"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(run, data, tmp_path, model, code, said):
    (tmp_path / "empty").mkdir()
    done = run("--data", data / "train.jsonl", "--model", model, cwd=tmp_path, check=code)
    assert said in done.err and done.err.count("\n") == 1


def test_a_missing_package_is_one_line_that_says_how_to_get_it(data, tmp_path):
    program = f"""
import importlib.abc, runpy, sys
class Gone(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "trl":
            raise ModuleNotFoundError(name)
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "trl" else real(name, package)
sys.path.insert(0, {str(ROOT)!r})
sys.argv = ["train.py", "--data", {str(data / "train.jsonl")!r}]
runpy.run_path({str(TRAIN)!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", program], env=CLEAN, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "Error: train needs the package trl: pip install 'linemill[train]'\n"


def test_two_runs_on_one_output_do_not_mix(run, data, tmp_path):
    with schema.lock(tmp_path / "out"):
        run("--data", data / "train.jsonl", "--output", "out", *QUICK, cwd=tmp_path, check=4)


# --- the tiny base ----------------------------------------------------------------------------------------------------


def test_a_shortened_program_is_a_program_and_keeps_its_question(speaker):
    import ast
    import random

    row, chance = rows.encode(speaker, record(3)), random.Random(1)
    found = {tuple(tiny.shortened(row, speaker, chance).ids) for _ in range(30)}
    assert len(found) > 3
    for ids in found:
        assert list(ids[: row.prompt]) == row.ids[: row.prompt]
        tree = ast.parse(speaker.tokenizer.decode(list(ids[row.prompt : -1])))
        assert "construct" in ast.unparse(tree)


def test_an_answer_that_is_no_program_is_left_alone(speaker):
    import random

    row = rows.encode(speaker, record(3, code="Gravity is what pulls you down."))
    assert tiny.shortened(row, speaker, random.Random(1)) is row


def test_the_base_depends_on_rows_and_settings_and_on_nothing_else(speaker):
    one, other = rows.encode(speaker, record(3)), rows.encode(speaker, record(4))
    plain = settings.FineTuneConfig()
    key = tiny.fingerprint([one], plain)
    assert tiny.fingerprint([one], settings.check({"training": {"lr": 1e-5}, "lora": {"r": 2}}, "x")) == key
    assert tiny.fingerprint([other], plain) != key
    assert tiny.fingerprint([one], settings.check({"tiny": {"steps": 9}}, "x")) != key
    assert tiny.fingerprint([one], settings.check({"training": {"seed": 9}}, "x")) != key
