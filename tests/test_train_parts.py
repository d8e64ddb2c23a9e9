"""train.py, the parts that need no training: where settings start from, templates, packing, curves, processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import click
import jinja2
import pytest
import yaml
from conftest import CLEAN, ROOT, record, run_script, write_rows

import schema
from stages.train import curves, intake, lengths, machine, models, rows, settings, starts, templates, tiny
from stages.train.losses import suspicious
from stages.train.rows import Row
from stages.train.tree import FineTuneConfig


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch):
    for name in (
        *starts.ENVIRONMENT,
        "OUTPUT_DIR",
        "INPUT_TYPE",
        "LINEMILL_WORLD_SIZE",
        "RANK",
        "WORLD_SIZE",
        "MASTER_ADDR",
    ):
        monkeypatch.delenv(name, raising=False)


# --- where settings start from ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", starts.TEMPLATES)
def test_every_template_is_a_valid_file_that_reads_back_to_itself(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    about, tree = starts.TEMPLATES[name]
    config = settings.check(tree, name)
    settings.refuse_contradictions(config)
    (tmp_path / "c.yaml").write_text(settings.to_yaml(config, about))
    assert settings.resolve("c.yaml", {}) == config
    assert (config == FineTuneConfig()) == (name == "default")


def test_config_init_knows_its_templates_and_refuses_others(tmp_path):
    shown = run_script("train.py", "config", "init", "--template", "pdf_causal", "--output", "-", cwd=tmp_path, check=0)
    assert "train_on: text" in shown.out and "# Texts of documents" in shown.out
    done = run_script("train.py", "config", "init", "--template", "pdf", cwd=tmp_path, check=2)
    assert "pdf_causal" in done.err and list(tmp_path.iterdir()) == []


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("training: {lr: 1e-5, batch_size: 3}\ndata: {max_length: 99}\n")
    monkeypatch.setenv("LEARNING_RATE", "3e-4")
    monkeypatch.setenv("NUM_EPOCHS", "7")
    monkeypatch.setenv("BATCH_SIZE", "")
    config = settings.resolve(None, {"training__epochs": 2.0})
    told = config.training
    assert (told.lr, told.epochs, told.batch_size, config.data.max_length) == (3e-4, 2.0, 3, 99)


def test_a_wrong_variable_of_the_environment_is_named(tmp_path):
    done = run_script("train.py", "config", "show", cwd=tmp_path, check=2, env={"MAX_STEPS": "many"})
    assert "MAX_STEPS in the environment" in done.err and "training.max_steps" in done.err


def test_a_dotenv_file_speaks_where_the_environment_does_not(tmp_path):
    (tmp_path / ".env").write_text("export LEARNING_RATE='5e-5'  # mine\nMAX_STEPS=4\nSOMETHING=else\n")
    done = run_script("train.py", "config", "show", cwd=tmp_path, check=0, env={"MAX_STEPS": "9"})
    assert "max_steps: 9" in done.out and "lr: 5.0e-05" in done.out
    assert "as LEARNING_RATE in the environment says" in done.err


def test_every_variable_of_the_environment_sets_what_it_is_said_to_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"MODEL_NAME": "m", "DATA_PATH": "d.jsonl", "MAX_SEQ_LENGTH": "77", "NUM_EPOCHS": "5", "MAX_STEPS": "6"}
    given |= {"BATCH_SIZE": "7", "LEARNING_RATE": "3e-5", "INPUT_TYPE": "pdf"}
    for name, text in given.items():
        monkeypatch.setenv(name, text)
    config = settings.resolve(None, {})
    assert (config.model.name, config.data.path, config.data.max_length, config.data.train_on) == (
        *("m", "d.jsonl", 77, "text"),
    )
    told = config.training
    assert (told.epochs, told.max_steps, told.batch_size, told.lr) == (5, 6, 7, 3e-5)
    assert set(starts.ENVIRONMENT) == set(given) - {"INPUT_TYPE"}
    monkeypatch.setenv("INPUT_TYPE", "jpeg")
    with pytest.raises(click.UsageError, match="INPUT_TYPE=jpeg"):
        settings.resolve(None, {})


def test_a_rented_machine_keeps_runs_and_models_on_its_volume(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert starts.default_output() == "runs/default"
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.setenv("RUNPOD_VOLUME_PATH", "/volume")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    (tmp_path / ".env").write_text("WANDB_PROJECT=other\nWANDB_MODE=offline\n")
    monkeypatch.setenv("WANDB_MODE", "x")  # so that it is put back
    monkeypatch.delenv("WANDB_MODE")
    starts.load_dotenv()
    assert (starts.default_output(), os.environ["HF_HOME"]) == ("/volume/runs/default", "/volume/huggingface")
    assert (os.environ["WANDB_PROJECT"], os.environ["WANDB_MODE"]) == ("mine", "offline")


def test_the_letters_of_other_tools_are_known(tmp_path):
    write_rows(tmp_path / "in.jsonl", [record(1)])
    given = ("-i", "in.jsonl", "-m", "some", "-e", 2, "-b", 3, "--lr", 1e-5)
    config = settings.check(
        yaml.safe_load(run_script("train.py", "config", "show", *given, cwd=tmp_path, check=0).out), "shown"
    )
    told = config.training
    assert (config.data.path, config.model.name, told.epochs, told.batch_size, told.lr) == (
        *("in.jsonl", "some", 2, 3, 1e-5),
    )
    shown = run_script("train.py", "config", "show", "--input", "in.jsonl", "--epochs", 1, cwd=tmp_path, check=0).out
    assert "path: in.jsonl" in shown
    text = run_script("train.py", "train", "--help", cwd=tmp_path, check=0).out
    assert all(f"{pair}" in text for pair in ("-o, --output", "-v, --verbose", "-q, --quiet"))


@pytest.mark.parametrize("flag", ["-e", "-b", "--lr", "--max-steps", "--max-length", "--lora-r"])
def test_a_nought_is_refused_and_never_taken_for_nothing(tmp_path, flag):
    done = run_script("train.py", "config", "show", flag, 0, cwd=tmp_path, check=2)
    assert "0" in done.err and "not in the range" in done.err


def test_the_settings_are_classes_that_python_can_use(tmp_path):
    program = (
        "from train import DataConfig, FineTuneConfig, ModelConfig, TrainingConfig\n"
        "from stages.train import settings\n"
        "told = FineTuneConfig(ModelConfig(name='m'), DataConfig(path='d'), TrainingConfig(lr=2e-5))\n"
        "open('c.yaml', 'w').write(settings.to_yaml(told))\n"
        "assert settings.from_yaml('c.yaml') == told\n"
    )
    env = CLEAN | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=env, check=True)


def test_an_adapter_config_of_mlx_is_read_in_our_words(tmp_path):
    known = {"fine_tune_type": "lora", "batch_size": 2, "iters": 500, "learning_rate": 1e-5, "max_seq_length": 2048}
    known |= {"report_to": "wandb", "lora_parameters": {"rank": 8, "dropout": 0.0, "scale": 20.0}, "lr_schedule": {}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(known))
    config = settings.resolve(str(tmp_path / "adapter_config.json"), {})
    told, lora = config.training, config.lora
    assert (told.method, told.batch_size, told.accumulation, told.max_steps, told.lr) == ("lora", 2, 1, 500, 1e-5)
    assert (lora.r, lora.dropout, lora.alpha, config.data.max_length, told.report_to) == (8, 0.0, 160, 2048, "wandb")


def test_iters_of_mlx_count_batches_and_steps_here_count_updates(tmp_path):
    tree = starts.from_mlx({"iters": 100, "grad_accumulation_steps": 4, "steps_per_eval": 20}, "x")
    assert (tree["training"]["max_steps"], tree["training"]["eval_steps"]) == (25, 5)


CONTRADICTIONS = [
    ({"data": {"eval_path": "a", "eval_split": 0.1}}, "exclude each other"),
    ({"training": {"patience": 2}}, "patience needs held-out rows"),
    ({"data": {"train_on": "text", "on_long": "trim-prompt"}}, "no prompt to trim"),
]


@pytest.mark.parametrize(("tree", "said"), CONTRADICTIONS, ids=[said for _, said in CONTRADICTIONS])
def test_settings_that_can_not_be_meant_together_are_refused(tree, said):
    with pytest.raises(click.UsageError, match=said):
        settings.refuse_contradictions(settings.check(tree, "x"))


def test_what_is_hardly_meant_is_a_warning_and_no_error(tmp_path):
    (tmp_path / "config.yaml").write_text("training: {method: full, lr: 2e-4}\n")
    done = run_script("train.py", "config", "validate", cwd=tmp_path, check=0)
    assert "warning: training.lr 0.0002 is a rate for adapters" in done.err
    assert list(settings.doubts(FineTuneConfig())) == []


# --- templates --------------------------------------------------------------------------------------------------------


def rendered(template, messages, *, ask=False):
    told = {"messages": messages, "add_generation_prompt": ask, "bos_token": "<s>", "eos_token": "</s>"}
    return jinja2.Environment().from_string(template).render(told)


USER, ANSWER = {"role": "user", "content": "Draw {{ a }} circle."}, {"role": "assistant", "content": "x = 1"}
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize("system", [[], [SYSTEM]], ids=["without", "with a system message"])
@pytest.mark.parametrize("name", templates.NAMED)
def test_behind_the_prompt_every_template_has_the_answer_and_its_end_and_no_more(name, system):
    asked = rendered(templates.NAMED[name], [*system, USER], ask=True)
    told = rendered(templates.NAMED[name], [*system, USER, ANSWER])
    assert told.startswith(asked)
    assert told[len(asked) :].strip() in ("x = 1</s>", "x = 1<|im_end|>")
    assert USER["content"] in asked and asked.count("Be brief.") == len(system)


def test_alpaca_puts_an_input_under_a_heading_of_its_own():
    without = rendered(templates.NAMED["alpaca"], [USER])
    given = rendered(templates.NAMED["alpaca"], [{**USER, "input": "in red"}])
    assert without == "<s>### Instruction:\nDraw {{ a }} circle.\n\n### Response:\n"
    assert given == "<s>### Instruction:\nDraw {{ a }} circle.\n\n### Input:\nin red\n\n### Response:\n"


def test_a_template_of_ones_own_is_a_yaml_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text('template: "{system} {% Q é: {instruction}\\n\\"A\\": {output}"\ninput_variables: [instruction]\n')
    template = templates.find(str(path))
    assert rendered(template, [SYSTEM, USER, ANSWER]) == '<s>Be brief. {% Q é: Draw {{ a }} circle.\n"A": x = 1</s>'
    assert rendered(template, [USER]) == '<s> {% Q é: Draw {{ a }} circle.\n"A": '


WRONG = [
    ("template: 3", "it needs `template:`"),
    ("template: 'Q: {output}'", "needs {instruction} once"),
    ("template: '{instruction} {output} {system}'", "stands behind the answer"),
    ("template: '{instruction} {colour}'", "no placeholder {colour}"),
    ("{template: '{instruction}', inputs: []}", "no key 'inputs'"),
    ("{template: '{instruction}', input_variables: [topic]}", "input_variables names 'topic'"),
    ("template: [", "not YAML"),
]


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_wrong_template_is_one_line(tmp_path, text, said):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(click.UsageError) as error:
        templates.find(str(tmp_path / "mine.yaml"))
    assert said in error.value.message and "mine.yaml" in error.value.message


def test_the_family_of_a_model_decides_where_it_has_no_template(tmp_path):
    chat = {"<|im_start|>": 1, "<|im_end|>": 2}
    for kind, vocabulary, expected in (("qwen2", chat, "chatml"), ("qwen2", {}, "plain"), ("mistral", {}, "llama")):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
        assert templates.of_family(tmp_path, vocabulary)[0] == expected


ANSWERS = [
    ("qwen2", True, None, True),
    ("qwen2", False, None, False),
    ("qwen2", True, False, False),
    ("llama", True, None, False),
    ("llama", False, True, True),
]


@pytest.mark.parametrize(("kind", "is_chat", "told", "fenced"), ANSWERS)
def test_programs_stand_in_a_fence_as_the_family_answers_unless_told_otherwise(tmp_path, kind, is_chat, told, fenced):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    config = settings.check({"data": {"markdown": told}}, "x")
    habit = is_chat and templates.answers_in_fences(tmp_path)
    assert models.wording(config, by_habit=habit).markdown is fenced
    note = templates.FENCE_NOTE in templates.with_wording(templates.CHATML, None, fenced)
    assert note is fenced


STRICT = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DRIFTS = [
    ("alpaca", {}, {"metadata": {"input": "in red"}, "description": "Draw a circle.\nin red"}),
    ("chatml", {"system": "Be {brief} 'now'."}, {}),
    ("strict", {"system": "Be brief."}, {}),
    ("strict", {}, {"metadata": {"system": "Be kind."}}),
    ("chatml", {"system": "Be brief."}, {"metadata": {"system": "Be kind."}}),
    ("alpaca", {"system": "Be brief.", "markdown": True}, {"metadata": {"kind": "code"}}),
    ("gemma", {"system": "Be brief."}, {}),
    ("chatml", {"markdown": True}, {"code": "Gravity.", "metadata": {"kind": "qa"}}),
]


@pytest.mark.parametrize(("name", "data", "changes"), DRIFTS)
def test_a_model_is_evaluated_on_the_very_tokens_that_it_was_trained_on(tmp_path, monkeypatch, name, data, changes):
    """evaluate_model.py sees only what is saved with the model; it has no settings of the training."""
    from transformers import AutoTokenizer

    from stages.evaluate_model import models as evaluated

    monkeypatch.setitem(templates.NAMED, "strict", STRICT)
    monkeypatch.setitem(templates.NAMED, "alpaca", templates.NAMED["alpaca"])
    config = settings.check({"model": {"template": name}, "data": data, "tiny": {"vocab_size": 400}}, "x")
    row = record(3, **changes)
    speaker = tiny.build_speaker([record(number) for number in range(8)], config)
    trained = rows.encode(speaker, row)
    speaker.tokenizer.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    loaded = evaluated.Loaded(None, tokenizer, frozenset({tokenizer.eos_token_id}), 4096)
    seen = evaluated.conversation(loaded, row)
    assert seen.prompt == trained.ids[: trained.prompt], tokenizer.decode(seen.prompt)
    assert seen.whole[: len(trained.ids)] == trained.ids
    assert evaluated.prompt_ids(loaded, row) == seen.prompt


# --- rows, files, curves ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "limit", "bins"), [([5, 5, 5, 5], 10, 2), ([6, 5, 4, 3, 2], 10, 2), ([7, 7, 7], 10, 3), ([10], 10, 1)]
)
def test_best_fit_fills_as_few_sequences_as_it_can(sizes, limit, bins):
    assert lengths.best_fit(sizes, limit) == bins


def test_the_curves_need_nothing_from_elsewhere_and_show_every_line():
    lines = [{"step": n, "loss": 3 / n, "learning_rate": 1e-4, "grad_norm": float("nan")} for n in range(1, 2001)]
    page = curves.page("<run>", [*lines, {"step": 2000, "eval_loss": 1.5}])
    assert page.count("<svg") == 2 and page.count("<polyline") == 3, "a curve without a number is left out"
    assert "&lt;run&gt;" in page and "http:" not in page and "https:" not in page and "<script" not in page
    assert len(page) < 120_000 and page == curves.page("<run>", [*lines, {"step": 2000, "eval_loss": 1.5}])
    assert "<svg" not in curves.page("empty", [])


def test_the_rows_that_were_learned_least_come_first_by_their_last_loss():
    known = [Row({**record(n), "metadata": {"id": f"row{n}", "origin": {"path": "a.py"}}}, 1, [n]) for n in range(12)]
    lines = [{"id": f"row{n}", "loss": float(n)} for n in range(12)] + [{"id": "row11", "loss": 0.5}]
    found = suspicious(lines, known)
    assert [re.search(r"row\d+", line)[0] for line in found] == [f"row{n}" for n in range(10, 0, -1)]
    assert "test a.py" in found[0]


SOURCES = [
    ({}, None, "there is nothing to train on"),
    ({"path": "many"}, None, "--adapters a,b,c names the files in it"),
    ({"path": "many"}, "a,none", "there is none of"),
    ({"path": "many"}, "a,a", "stands there twice"),
    ({"path": "many"}, "../a", "is no name"),
    ({"path": "one.jsonl"}, "a", "needs a folder as --data"),
]


@pytest.mark.parametrize(("data", "names", "said"), SOURCES, ids=[said for *_, said in SOURCES])
def test_a_source_that_is_not_there_is_one_line(tmp_path, monkeypatch, data, names, said):
    monkeypatch.chdir(tmp_path)
    for name in ("one.jsonl", "many/a.jsonl"):
        write_rows(tmp_path / name, [record(1)])
    with pytest.raises(click.UsageError) as error:
        intake.sources(settings.check({"data": data}, "x"), names, tmp_path / "out")
    assert said in error.value.message


def test_each_adapter_has_its_own_file_or_folder(tmp_path):
    for name in ("a.jsonl", "a.valid.jsonl", "b/train.jsonl", "b/valid.jsonl", "c.json"):
        write_rows(tmp_path / name, [record(1)])
    found = intake.sources(settings.check({"data": {"path": str(tmp_path)}}, "x"), "a,b,c", tmp_path / "out")
    assert [source.data.removeprefix(f"{tmp_path}/") for source in found] == ["a.jsonl", "b/train.jsonl", "c.json"]
    held_out = [source.eval_data and source.eval_data.removeprefix(f"{tmp_path}/") for source in found]
    assert held_out == ["a.valid.jsonl", "b/valid.jsonl", None]
    assert [source.output.name for source in found] == ["a", "b", "c"]


def test_a_row_that_stands_there_twice_is_trained_on_once(tmp_path):
    given = [record(1, metadata={"id": "one"}), record(2, metadata={"id": "one"}), record(3), record(3), record(4)]
    same_answer = [record(5, description=f"Say it {n}.", code="Yes.") for n in range(2)]
    rejected = []
    source = intake.Source(str(write_rows(tmp_path / "in.jsonl", [*given, *same_answer])), None, tmp_path)
    taker = intake.Intake(lambda item, message, code, line=None: rejected.append((code, message)))
    taken = intake.take(source, FineTuneConfig(), taker)
    assert len(taken.train) == 5, "equal answers to other questions are no duplicates"
    assert [code for code, _ in rejected] == ["duplicate_id"] * 2
    assert "not its text" in rejected[0][1] and "all of it" in rejected[1][1]


def test_rows_of_one_program_are_held_out_together_and_appending_moves_none(tmp_path):
    pairs = [record(n, description=f"Draw number {n} in way {way}.") for n in range(40) for way in range(2)]
    config = settings.check({"data": {"eval_split": 0.25}}, "x")
    sides = []
    for count in (60, 80):
        source = intake.Source(str(write_rows(tmp_path / "in.jsonl", pairs[:count])), None, tmp_path)
        taken = intake.take(source, config, intake.Intake(lambda *_, **__: None))
        sides.append({row["description"] for row in taken.held_out})
        assert not {row["code"] for row in taken.train} & {row["code"] for row in taken.held_out}
    assert 0 < len(sides[0]) < 60 and sides[0] <= sides[1]


def test_a_device_that_computes_wrong_numbers_is_named(monkeypatch):
    import torch

    machine.check_device(torch.device("cpu"))
    monkeypatch.setattr(machine, "PAUSE", 0.0)
    with pytest.raises(schema.Failure, match="meta does not answer"):
        machine.check_device(torch.device("meta"))
    monkeypatch.setattr(torch, "equal", lambda *_: False)
    with pytest.raises(schema.Failure, match="cpu computes wrong numbers"):
        machine.check_device(torch.device("cpu"))


# --- processes --------------------------------------------------------------------------------------------------------

TEAMS = [
    ({}, None, None),
    ({}, 1, None),
    ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "localhost"}, 2, None),
    ({}, 2, "--world-size 2, but the number of processes here is 1"),
    ({"WORLD_SIZE": "4", "RANK": "1", "MASTER_ADDR": "localhost"}, 2, "--world-size 2, but"),
    ({"WORLD_SIZE": "2"}, None, "no MASTER_ADDR"),
    ({"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "localhost"}, None, "RANK=2 does not fit"),
    ({"WORLD_SIZE": "two"}, None, "is no number"),
]


@pytest.mark.parametrize(("env", "promised", "said"), TEAMS, ids=[str(said or env) for env, _, said in TEAMS])
def test_the_processes_have_to_be_as_many_as_was_promised(monkeypatch, env, promised, said):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    if said is None:
        machine.Team().check(promised)
        return
    with pytest.raises(click.UsageError, match=re.escape(said)):
        machine.Team().check(promised)
