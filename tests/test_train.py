"""train.py: the right tokens are learnt, nothing is cut or lost in silence, and the same run gives the same weights."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from conftest import CLEAN, ROOT, read_rows, record, run_script, write_rows

import schema
from stages.train import rows as train_rows
from stages.train import settings, tiny

FAST = ["--tiny-steps", "3", "--tiny-hidden", "32", "--tiny-layers", "1", "--tiny-feed-forward", "64"]
FAST += ["--tiny-vocabulary", "400", "--epochs", "1", "--accumulation", "2", "--log-every", "1"]


def train(*arguments, cwd, check=0, output="run"):
    return run_script("train.py", "--output", output, *FAST, *arguments, cwd=cwd, check=check)


def digest(folder):
    return schema.sha256((folder / "adapter" / "adapter_model.safetensors").read_bytes())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One undisturbed run on twelve scenes, one of them without a description and one line broken."""
    folder = tmp_path_factory.mktemp("train")
    waiting = record(50, description="", metadata={"needs_description": True, "id": "waiting"})
    write_rows(folder / "rows.jsonl", [*map(record, range(12)), waiting, b"broken"])
    write_rows(folder / "valid.jsonl", [record(60), record(61)])
    done = train("--data", "rows.jsonl", "--eval-data", "valid.jsonl", "--save-every", "2", cwd=folder)
    return folder, done


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.make_tokenizer([record(number) for number in range(20)], settings.Tiny(vocabulary=400))


# --- a whole run ------------------------------------------------------------------------------------------------------


def test_a_run_leaves_adapter_base_metrics_settings_and_a_ledger_that_adds_up(trained):
    folder, done = trained
    run = folder / "run"
    assert "14 in, 12 trained on, 2 rejected" in done.err
    assert {path.name for path in run.iterdir() if path.is_dir()} == {"adapter", "base", "checkpoints"}
    assert json.loads((run / "adapter" / "adapter_config.json").read_bytes())["base_model_name_or_path"] == "../base"
    steps = read_rows(run / "metrics.jsonl")
    assert [row["step"] for row in steps if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert any("eval_loss" in row for row in steps)
    assert {row["metadata"]["error"]["code"] for row in read_rows(run / "rejects.jsonl")} == {
        "no_description",
        "not_json",
    }
    assert "parameters are trained" in done.err
    run_script("schema", "audit", "run", cwd=folder, check=0)


def test_the_saved_settings_give_the_same_settings_again(trained):
    folder, _ = trained
    told = settings.resolve(folder / "run" / "config.yaml", {})
    assert told.tiny.steps == 3
    assert told.training.accumulation == 2


def test_the_same_data_and_seed_give_the_same_adapter_and_another_seed_another(trained, tmp_path):
    folder, _ = trained
    for name in ("rows.jsonl", "valid.jsonl"):
        shutil.copy(folder / name, tmp_path)
    train("--data", "rows.jsonl", "--eval-data", "valid.jsonl", "--save-every", "2", cwd=tmp_path)
    assert digest(tmp_path / "run") == digest(folder / "run")
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == (folder / "run/metrics.jsonl").read_bytes()
    again = train("--data", "rows.jsonl", "--eval-data", "valid.jsonl", "--seed", "7", cwd=tmp_path)
    assert "used again" not in again.err, "another seed is another base"
    assert digest(tmp_path / "run") != digest(folder / "run")


def test_a_run_that_is_killed_and_resumed_gives_the_undisturbed_adapter(trained, tmp_path):
    folder, _ = trained
    shutil.copytree(folder, tmp_path / "copy")
    copy = tmp_path / "copy"
    shutil.rmtree(copy / "run" / "adapter")
    shutil.rmtree(copy / "run" / "checkpoints" / "checkpoint-6")
    # A checkpoint that a kill tore, and one whose number sorts first as text.
    torn = copy / "run" / "checkpoints" / "checkpoint-10"
    shutil.copytree(copy / "run" / "checkpoints" / "checkpoint-4", torn)
    (torn / "optimizer.pt").unlink()
    resume = ["--data", "rows.jsonl", "--eval-data", "valid.jsonl", "--save-every", "2", "--resume"]
    done = train(*resume, cwd=copy)
    assert "checkpoint-10 is not complete (optimizer.pt is missing)" in done.err
    assert "going on from run/checkpoints/checkpoint-4" in done.err
    assert "is used again" in done.err
    assert digest(copy / "run") == digest(folder / "run")


def test_a_kill_never_leaves_half_an_adapter(trained, tmp_path):
    folder, _ = trained
    shutil.copytree(folder, tmp_path / "copy")
    old = digest(tmp_path / "copy" / "run")
    # Another learning rate, so that a finished run would be seen; six steps, so that it is not finished at the first.
    command = [sys.executable, str(ROOT / "train.py"), "--output", "run", *FAST, "--data", "rows.jsonl", "--lr", "0.01"]
    env = CLEAN | {"HOME": str(tmp_path)}
    process = subprocess.Popen(command, cwd=tmp_path / "copy", env=env, stderr=subprocess.PIPE, start_new_session=True)
    for line in process.stderr:
        if b"step 1 of" in line and b"base" not in line:
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert digest(tmp_path / "copy" / "run") == old


# --- which tokens are learnt ------------------------------------------------------------------------------------------


def test_only_the_answer_and_its_end_are_learnt(tokenizer):
    row = train_rows.encode(record(3), tokenizer)
    assert row.labels[: row.start] == [-100] * row.start
    assert row.labels[row.start :] == row.tokens[row.start :]
    learnt = tokenizer.decode(row.tokens[row.start :])
    assert learnt == record(3)["code"] + "<|im_end|>\n"
    assert record(3)["description"] in tokenizer.decode(row.tokens[: row.start])
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


FAULTY_TEMPLATES = [
    ("{% for m in messages %}{{ m.content }}{% endfor %}{{ eos_token if not add_generation_prompt }}", None),
    ("{% for m in messages %}{{ m.content }}{% endfor %}", "no_end"),
    ("{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}{{ eos_token }}", "prompt_not_prefix"),
    ("{{ messages[0].content }}", "nothing_to_learn"),
]


@pytest.mark.parametrize(("template", "fault"), FAULTY_TEMPLATES, ids=[str(fault) for _, fault in FAULTY_TEMPLATES])
def test_a_template_that_would_ruin_the_training_is_named(tokenizer, template, fault):
    spoilt = tiny.make_tokenizer([record(number) for number in range(20)], settings.Tiny(vocabulary=400))
    spoilt.chat_template = template
    found = train_rows.encode(record(), spoilt)
    assert (found.code if isinstance(found, schema.Fault) else None) == fault


def test_a_start_token_that_stands_twice_is_named(tokenizer):
    doubled = tiny.make_tokenizer([record()], settings.Tiny(vocabulary=400))
    doubled.bos_token = "<|im_start|>"
    assert train_rows.encode(record(), doubled).code == "double_start"


def test_a_system_text_of_the_row_is_part_of_the_prompt(tokenizer):
    row = train_rows.encode(record(metadata={"system": "You draw."}), tokenizer)
    assert tokenizer.decode(row.tokens[: row.start]).startswith("<|im_start|>system\nYou draw.")


# --- rows that are too long -------------------------------------------------------------------------------------------


def long_prompt():
    return record(1, description="Draw a circle. " * 200)


def long_answer():
    return record(2, code=record(2)["code"] + "# more\n" * 400)


def judge(tokenizer, rows, on_long):
    return train_rows.usable(rows, tokenizer, settings.Data(max_length=400, on_long=on_long))


def test_rows_that_are_too_long_fail_with_the_choices_and_what_they_cost(tokenizer):
    with pytest.raises(schema.Failure) as failure:
        judge(tokenizer, [record(), long_prompt(), long_answer()], "fail")
    said = failure.value.message
    assert "2 of 3 rows have more than 400 tokens" in said
    assert all(choice in said for choice in ("--max-length", "--on-long reject", "--on-long trim-prompt"))


def test_rows_that_are_too_long_can_be_rejected_with_both_numbers(tokenizer):
    found = judge(tokenizer, [record(), long_prompt(), long_answer()], "reject")
    assert len(found.rows) == 1
    assert [fault.code for _, fault in found.rejected] == ["too_long", "too_long"]
    assert "max_length is 400" in found.rejected[0][1].message


def test_a_prompt_can_be_trimmed_and_an_answer_never_is(tokenizer):
    found = judge(tokenizer, [long_prompt(), long_answer()], "trim-prompt")
    (row,) = found.rows
    assert len(row.tokens) <= 400
    assert tokenizer.decode(row.tokens[row.start :]) == record(1)["code"] + "<|im_end|>\n"
    assert "...[Truncated]" in tokenizer.decode(row.tokens[: row.start])
    assert [fault.code for _, fault in found.rejected] == ["too_long"]


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("training: {epoch: 5}\n", "training: there is no setting 'epoch'; did you mean epochs?"),
        ("training: {lora_rank: 32}\n", "there is no setting 'lora_rank'"),
        ("lora: {learning_rate: 1}\n", "did you mean training.learning_rate?"),
        ("trainig: {epochs: 5}\n", "there is no setting 'trainig'; did you mean training?"),
        ("training: {epochs: many}\n", "training.epochs: Expected `float`"),
        ("training: {warmup: 2}\n", "training.warmup: Expected `float` < 1"),
        ("data: {on_long: cut}\n", "data.on_long: Invalid enum value 'cut'"),
        ("training: [1]\n", "training: Expected `object`"),
        ("training: {epochs: 1\n", "not YAML"),
        ("- 1\n", "it must hold sections"),
    ],
)
def test_a_faulty_settings_file_is_refused_by_name(tmp_path, text, says):
    (tmp_path / "c.yaml").write_text(text)
    done = run_script("train.py", "config", "validate", "--config", "c.yaml", cwd=tmp_path, check=2)
    assert says in done.err
    assert done.err.count("\n") == 1


def test_2e_4_is_a_number_and_flags_win_over_the_file(tmp_path):
    (tmp_path / "config.yaml").write_text("training:\n  learning_rate: 2e-4\n  epochs: 5\nlora:\n")
    told = settings.resolve(tmp_path / "config.yaml", {("training", "epochs"): 1.5})
    assert told.training.learning_rate == 2e-4
    assert told.training.epochs == 1.5
    shown = run_script("train.py", "config", "show", "--lr", "0.5", cwd=tmp_path, check=0).out
    assert "learning_rate: 0.5" in shown
    assert "epochs: 5.0" in shown, "config.yaml of the current folder is read without being named"


def test_a_flag_out_of_range_is_refused_under_its_own_name(tmp_path):
    write_rows(tmp_path / "in.jsonl", [record()])
    done = run_script("train.py", "--data", "in.jsonl", "--lora-r", "0", cwd=tmp_path, check=2)
    assert "--lora-r: Expected `int` >= 1" in done.err


def test_yaml_and_settings_are_the_same_thing_in_two_forms(tmp_path):
    (tmp_path / "c.yaml").write_text(settings.to_yaml(settings.Config()))
    assert settings.resolve(tmp_path / "c.yaml", {}) == settings.Config()


def test_the_config_in_the_repository_is_the_one_that_init_writes(tmp_path):
    run_script("train.py", "config", "init", cwd=tmp_path, check=0)
    assert (tmp_path / "config.yaml").read_bytes() == (ROOT / "config.yaml").read_bytes()
    assert "already there" in run_script("train.py", "config", "init", cwd=tmp_path, check=2).err


def test_every_setting_has_a_flag_and_a_help(tmp_path):
    text = run_script("train.py", "train", "--help", cwd=tmp_path, check=0).out
    for leaf in settings.leaves():
        assert leaf.flag in text
        assert leaf.help


# --- what can not be trained on ---------------------------------------------------------------------------------------


def test_no_usable_row_is_a_failure_that_says_why(tmp_path):
    row = record(description="", metadata={"needs_description": True})
    write_rows(tmp_path / "in.jsonl", [row, b"broken"])
    done = train("--data", "in.jsonl", cwd=tmp_path, check=1)
    assert "1 have no description" in done.err
    assert "1 not_json" in done.err
    assert not (tmp_path / "run" / "adapter").exists()
    write_rows(tmp_path / "in.jsonl", [])
    assert "the file is empty" in train("--data", "in.jsonl", cwd=tmp_path, check=1).err


def test_a_model_that_is_not_there_is_one_line(tmp_path):
    write_rows(tmp_path / "in.jsonl", [record()])
    done = run_script("train.py", "--data", "in.jsonl", "--model", "nobody/nothing", cwd=tmp_path, check=1)
    assert "--model nobody/nothing: can not be loaded" in done.err.strip().split("\n")[-1]


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    write_rows(tmp_path / "in.jsonl", [record()])
    with schema.lock(tmp_path / "run"):
        assert "another run is writing it" in train("--data", "in.jsonl", cwd=tmp_path, check=4).err


def test_inspect_shows_lengths_and_what_is_learnt(tmp_path):
    write_rows(
        tmp_path / "in.jsonl", [*map(record, range(5)), record(6, description="", metadata={"needs_description": True})]
    )
    done = run_script("train.py", "inspect", "--data", "in.jsonl", "--show-mask", "1", cwd=tmp_path, check=0)
    assert "5 rows can be trained on, 1 can not" in done.out
    assert "1 no_description" in done.out
    assert ">>>" + record(0)["code"] + "<|im_end|>" in done.out


def test_packed_rows_learn_what_unpacked_rows_learn(trained):
    """The first loss of a packed run is that of the same rows one by one: no row sees another."""
    from stages.train import adapter

    folder, _ = trained
    base = str(folder / "run" / "base")
    tokenizer = adapter.load_tokenizer(base)
    some = [train_rows.encode(record(number), tokenizer) for number in range(6)]
    losses = []
    for packing, size in ((False, 6), (True, 1)):
        told = settings.Config(
            lora=settings.Lora(dropout=0.0),
            data=settings.Data(max_length=2048),
            training=settings.Training(max_steps=1, packing=packing, batch_size=size, accumulation=1, log_every=1),
        )
        model = adapter.load_model(base, "float32")
        out = folder / f"packing-{packing}"
        found = adapter.train(model, tokenizer, some, [], told, out, "../base", resume=False)
        losses.append(found[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
