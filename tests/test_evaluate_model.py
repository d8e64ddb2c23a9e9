"""Evaluation: every number can be counted again by hand, and no answer gets lost on the way to it."""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from conftest import CLEAN, ROOT, read_rows, run_script, write_rows

import schema
from stages.evaluate_model import measures

pytest.importorskip("peft", reason="the extra [train] is not installed")

import evaluate_model
from stages.evaluate_model import models

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SCENE = "class A(Scene):\n    def construct(self):\n        self.wait()\n"
# What the tiny model learns by heart: a scene, a program without one, no program at all, an answer in words, nothing.
LESSONS = [
    ("Wait.", SCENE),
    ("Add one to x, please.", "x = x + 1\n"),
    ("Break it.", "def f(:\n"),
    ("Why?", "Because it is."),
    ("Say nothing.", ""),
]


def row(number, **metadata):
    description, code = LESSONS[number]
    facts = {"id": f"row{number}", "kind": "qa" if description == "Why?" else "code", **metadata}
    source = "first" if number < 2 else "second"
    return {"description": description, "code": code or "pass", "source": source, "metadata": facts}


ROWS = [row(number) for number in range(len(LESSONS))]


def talk(description, code=None):
    turns = [{"role": "user", "content": description}]
    return turns if code is None else [*turns, {"role": "assistant", "content": code}]


def tiny_tokenizer():
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([code for _, code in LESSONS] * 3, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = TEMPLATE
    return fast


def learn_by_heart(model, tokenizer):
    import torch

    examples = [tokenizer.apply_chat_template(talk(*lesson), return_dict=True)["input_ids"] for lesson in LESSONS]
    width = max(map(len, examples))
    ids = torch.tensor([example + [0] * (width - len(example)) for example in examples])
    labels = ids.masked_fill(ids == 0, -100)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0)
    for _ in range(120):
        model(input_ids=ids, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """base/ knows the lessons by heart; adapter/ shakes it a little."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("run")
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        eos_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    learn_by_heart(model, tokenizer)
    model.save_pretrained(place / "base")
    tokenizer.save_pretrained(place / "base")
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    adapted.save_pretrained(place / "adapter")
    write_rows(place / "test.jsonl", ROWS)
    return place


@pytest.fixture(scope="module")
def evaluation(run):
    """The results of the commands as a user would call them."""
    common = ("--model", "base", "--data", "test.jsonl", "--output", "eval")
    run_script("evaluate_model.py", "loss", *common, cwd=run, check=0)
    run_script("evaluate_model.py", "generate", *common, "--max-new-tokens", 40, cwd=run, check=0)
    run_script("evaluate_model.py", "score", "--data", "eval/generated.jsonl", "--output", "eval", cwd=run, check=0)
    return run / "eval"


def call(*arguments, code=0):
    """The script in this process, which has paid for importing torch already."""
    done = CliRunner().invoke(evaluate_model.cli, list(map(str, arguments)))
    assert done.exit_code == code, f"{done.exit_code}: {done.output} {done.exception!r}"
    if code == 1:
        assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def measure(command, run, output, *options, code=0, data=None, model=None):
    """`loss` or `generate` with what the test does not care about filled in."""
    more = ("--max-new-tokens", 40) if command == "generate" and "--max-new-tokens" not in options else ()
    arguments = ("--model", model or run / "base", "--data", data or run / "test.jsonl", "--output", output)
    return call(command, *arguments, *more, *options, code=code)


def load(folder, adapter=None):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    return PeftModel.from_pretrained(model, adapter) if adapter else model, AutoTokenizer.from_pretrained(folder)


def loss_by_hand(model, tokenizer, record):
    """One row alone, one token after the other."""
    import torch

    model.requires_grad_(False)

    prompt = tokenizer.apply_chat_template(talk(record["description"]), tokenize=False, add_generation_prompt=True)
    text = tokenizer.apply_chat_template(talk(record["description"], record["code"]), tokenize=False)
    assert text.startswith(prompt)
    begin, ids = len(tokenizer(prompt)["input_ids"]), tokenizer(text)["input_ids"]
    chances = torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)
    places = range(begin, len(ids))
    nll = -sum(float(chances[place - 1, ids[place]]) for place in places)
    return nll, len(places), sum(int(chances[place - 1].argmax()) == ids[place] for place in places)


@pytest.mark.parametrize("adapted", [False, True], ids=["base", "adapter"])
def test_losses_equal_those_computed_row_by_row(run, evaluation, tmp_path, adapted):
    adapter = run / "adapter" if adapted else None
    if adapted:
        measure("loss", run, tmp_path / "eval", "--adapter", adapter)
    model, tokenizer = load(run / "base", adapter)
    rows = read_rows((tmp_path / "eval" if adapted else evaluation) / "loss.jsonl")
    assert [found["metadata"]["id"] for found in rows] == [asked["metadata"]["id"] for asked in ROWS]
    for found, asked in zip(rows, ROWS, strict=True):
        facts = found["metadata"]["evaluation"]
        nll, tokens, correct = loss_by_hand(model, tokenizer, asked)
        assert facts["nll"] == pytest.approx(nll, abs=1e-3)
        assert (facts["tokens"], facts["correct"]) == (tokens, correct)
        assert (found["code"], found["description"]) == (asked["code"], asked["description"])


def test_evaluate_is_another_name_of_loss(run, evaluation, tmp_path):
    data = write_rows(tmp_path / "test.jsonl", ROWS)
    arguments = ("--model", run / "base", "--test-file", data, "--output", tmp_path / "eval")
    done = CliRunner().invoke(evaluate_model.cli, ["evaluate", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    found, expected = (read_rows(folder / "loss.jsonl") for folder in (tmp_path / "eval", evaluation))
    assert [row["metadata"]["evaluation"] for row in found] == [row["metadata"]["evaluation"] for row in expected]


def test_the_adapter_makes_a_difference(run, evaluation, tmp_path):
    measure("loss", run, tmp_path / "eval", "--adapter", run / "adapter")
    with_adapter, without = (json.loads((place / "loss.json").read_text()) for place in (tmp_path / "eval", evaluation))
    assert with_adapter["all"]["loss"] > without["all"]["loss"] + 0.01


def test_loss_totals_are_those_of_the_rows(evaluation):
    report = json.loads((evaluation / "loss.json").read_text())
    rows = read_rows(evaluation / "loss.jsonl")
    groups = {("all", None): rows}
    for found in rows:
        groups.setdefault(("by_source", found["source"]), []).append(found)
        groups.setdefault(("by_kind", found["metadata"]["kind"]), []).append(found)
    assert len(groups) == 5
    for (part, name), members in groups.items():
        said = report[part][name] if name else report[part]
        facts = [member["metadata"]["evaluation"] for member in members]
        tokens = sum(fact["tokens"] for fact in facts)
        loss = sum(fact["nll"] for fact in facts) / tokens
        assert (said["rows"], said["tokens"]) == (len(members), tokens)
        assert said["loss"] == pytest.approx(loss, abs=1e-6)
        assert said["perplexity"] == pytest.approx(math.exp(loss), abs=1e-6)
        assert said["accuracy"] == pytest.approx(sum(fact["correct"] for fact in facts) / tokens, abs=1e-6)
    assert report["rows_file"]["sha256"] == schema.sha256((evaluation / "loss.jsonl").read_bytes())


def test_generations_are_records_in_the_order_of_their_prompts(evaluation):
    rows = read_rows(evaluation / "generated.jsonl")
    assert [found["metadata"]["id"] for found in rows] == ["row0", "row1", "row2", "row3"]
    assert [schema.problem(found) for found in rows] == [None] * 4
    assert [found["code"] for found in rows] == [code for _, code in LESSONS[:4]]
    for found, asked in zip(rows, ROWS[:4], strict=True):
        assert found["metadata"]["reference"] == asked["code"]
        assert (found["description"], found["source"]) == (asked["description"], asked["source"])
        assert found["metadata"]["kind"] == asked["metadata"]["kind"]
        assert found["metadata"]["evaluation"]["finish"] == "eos"
        assert found["metadata"]["lineage"][-1]["params"]["max_new_tokens"] == 40


def test_an_empty_answer_is_a_reject_that_can_be_asked_again(run, evaluation, tmp_path):
    (found,) = read_rows(evaluation / "generated.rejects.jsonl")
    assert found["metadata"]["error"]["code"] == "empty_generation"
    assert (found["metadata"]["id"], found["code"]) == ("row4", "pass")
    measure("generate", run, tmp_path / "eval", data=evaluation / "generated.rejects.jsonl")
    (again,) = read_rows(tmp_path / "eval" / "generated.rejects.jsonl")
    assert again["metadata"]["error"]["code"] == "empty_generation"


def test_greedy_answers_do_not_depend_on_the_batch_nor_on_the_models_own_settings(run, evaluation, tmp_path):
    import torch

    model, tokenizer = load(run / "base")
    loud = shutil.copytree(run / "base", tmp_path / "loud")
    settings = json.loads((loud / "generation_config.json").read_text())
    settings |= {"do_sample": True, "temperature": 5.0, "repetition_penalty": 3.0, "max_new_tokens": 2}
    (loud / "generation_config.json").write_text(json.dumps(settings))
    data = write_rows(tmp_path / "odd.jsonl", [{**asked, "description": asked["description"] * 3} for asked in ROWS])
    for name, folder, size in (("one", run / "base", 1), ("three", run / "base", 3), ("loud", loud, 16)):
        measure("generate", run, tmp_path / name, "--batch-size", size, model=folder, data=data)
    answers = {found["metadata"]["id"]: found for found in read_rows(tmp_path / "one" / "generated.jsonl")}
    for name in ("three", "loud"):
        assert {r["metadata"]["id"]: r["code"] for r in read_rows(tmp_path / name / "generated.jsonl")} == {
            name: found["code"] for name, found in answers.items()
        }
    ids = tokenizer.apply_chat_template(
        talk(ROWS[0]["description"] * 3), add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]
    written = []
    for _ in range(answers["row0"]["metadata"]["evaluation"]["tokens"]):
        written.append(
            int(model(torch.cat([ids, torch.tensor([written], dtype=torch.long)], 1)).logits[0, -1].argmax())
        )
    assert tokenizer.decode(written, skip_special_tokens=True) == answers["row0"]["code"]


def test_an_answer_that_was_cut_says_so(run, tmp_path):
    measure("generate", run, tmp_path / "eval", "--max-new-tokens", 3, "--limit", 1)
    (found,) = read_rows(tmp_path / "eval" / "generated.jsonl")
    assert found["metadata"]["evaluation"] == {"finish": "length", "tokens": 3}
    assert SCENE.startswith(found["code"])


def test_rows_that_can_not_be_asked_are_rejected_with_the_reason(run, tmp_path):
    rows = [
        {**row(0), "description": "", "metadata": {"id": "a", "needs_description": True}},
        {**row(0), "description": "long " * 200, "metadata": {"id": "b"}},
        b"{broken",
        row(1),
    ]
    data = write_rows(tmp_path / "test.jsonl", rows)
    for command, name in (("loss", "loss"), ("generate", "generated")):
        measure(command, run, tmp_path / "eval", data=data)
        rejects = read_rows(tmp_path / "eval" / f"{name}.rejects.jsonl")
        assert sorted(r["metadata"]["error"]["code"] for r in rejects) == ["no_description", "not_json", "too_long"]
        assert len(read_rows(tmp_path / "eval" / f"{name}.jsonl")) == 1
        assert schema.audit(tmp_path / "eval" / f"{name}.ledger.json") == []


def test_a_rows_own_system_text_stands_before_its_prompt(run, tmp_path):
    told = row(0, system="Be brief.")
    data = write_rows(tmp_path / "test.jsonl", [told, row(0)])
    measure("loss", run, tmp_path / "eval", data=data)
    measure("generate", run, tmp_path / "eval", data=data)
    with_text, without = (found["metadata"]["evaluation"] for found in read_rows(tmp_path / "eval" / "loss.jsonl"))
    assert with_text["tokens"] == without["tokens"]
    assert abs(with_text["nll"] - without["nll"]) > 1e-3
    model, tokenizer = load(run / "base")
    turns = [{"role": "system", "content": "Be brief."}, *talk(told["description"])]
    loaded = models.Loaded(model, tokenizer, frozenset(), 128)
    assert models.prompt_ids(loaded, told) == models.render(tokenizer, turns, ask=True)
    assert read_rows(tmp_path / "eval" / "generated.jsonl")[0]["metadata"]["system"] == "Be brief."


def test_an_answer_longer_than_the_model_reads_is_rejected_not_cut(run, tmp_path):
    data = write_rows(tmp_path / "test.jsonl", [row(1), {**row(0), "code": SCENE * 20}])
    measure("loss", run, tmp_path / "eval", data=data)
    (found,) = read_rows(tmp_path / "eval" / "loss.rejects.jsonl")
    assert found["metadata"]["error"]["message"].endswith("the model reads at most 128")


def test_a_template_that_changes_the_prompt_behind_our_back_is_noticed(run, tmp_path):
    model = shutil.copytree(run / "base", tmp_path / "model")
    (model / "chat_template.jinja").write_text("{{ messages | length }}" + TEMPLATE)
    message = measure("loss", run, tmp_path / "eval", model=model, code=3)
    assert "5 prompt_not_prefix" in message
    assert "there is no row that the model could be asked about" in message


def test_nothing_to_measure_is_said_with_its_own_exit_code(run, tmp_path):
    data = write_rows(tmp_path / "empty.jsonl", [])
    for command, name in (("loss", "loss"), ("generate", "generated")):
        measure(command, run, tmp_path / "eval", data=data, code=3)
        assert read_rows(tmp_path / "eval" / f"{name}.jsonl") == []


def test_rows_can_be_selected(run, tmp_path):
    measure("generate", run, tmp_path / "eval", "--where", '.source == "second"', "--limit", 2)
    assert [r["metadata"]["id"] for r in read_rows(tmp_path / "eval" / "generated.jsonl")] == ["row2", "row3"]


def test_two_runs_give_the_same_bytes(run, evaluation, tmp_path):
    arguments = ("--model", "base", "--data", "test.jsonl")
    hashed = {"PYTHONHASHSEED": "7"}
    run_script("evaluate_model.py", "loss", *arguments, "--output", "twin", cwd=run, check=0, env=hashed)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(run)
        call("generate", *arguments, "--output", "twin", "--max-new-tokens", 40)
        call("score", "--data", "twin/generated.jsonl", "--output", "twin")
    twin, first = ({path.name: path.read_bytes() for path in (run / name).iterdir()} for name in ("twin", "eval"))
    assert len(first) == 9
    assert twin == first


@pytest.mark.parametrize("name", ["loss.ledger.json", "generated.ledger.json", "scores.ledger.json"])
def test_ledgers_add_up(evaluation, name):
    assert schema.audit(evaluation / name) == []


def test_the_ledger_knows_the_weights_that_were_measured(run, evaluation):
    ledger = json.loads((evaluation / "loss.ledger.json").read_text())
    digest = schema.sha256((run / "base" / "model.safetensors").read_bytes())
    assert ledger["extra"]["weights"] == {"model": {"model.safetensors": digest}}


def test_scores_are_those_of_the_rows_and_count_empty_answers_as_failures(evaluation):
    scores = json.loads((evaluation / "scores.json").read_text())
    assert (scores["rows"], scores["empty"]) == (5, 1)
    assert (scores["syntax"]["passed"], scores["syntax"]["n"]) == (2, 4)  # of five rows one is no code
    assert (scores["scene"]["passed"], scores["scene"]["n"]) == (1, 4)
    assert (scores["finished"]["passed"], scores["finished"]["n"]) == (5, 5)
    assert scores["syntax"]["rate"] == 0.5
    assert scores["quality"] == {"n": 0, "mean": None, "low": None, "high": None, "issues": {}}


def written(number, code, finish="eos", **metadata):
    facts = {"id": f"row{number}", "kind": "code", "evaluation": {"finish": finish, "tokens": 9}, **metadata}
    return {"description": "Do it.", "code": code, "source": "s", "metadata": facts}


def silent(number):
    """What `generate` leaves in its rejects for an empty answer."""
    error = {"stage": "evaluate_model", "code": "empty_generation", "message": "the model wrote nothing (eos)"}
    return written(number, "pass", evaluation={"finish": "eos", "tokens": 0, "empty": True}, error=error)


def quality(score, *checks):
    issues = [{"check": check, "severity": "high", "message": "it is so", "line": None} for check in checks]
    return {"score": score, "issues": issues}


def test_findings_of_the_quality_gate_are_averaged_and_counted(tmp_path):
    rows = [
        written(1, SCENE, quality=quality(1.0)),
        written(2, SCENE, quality=quality(0.4, "no_manim_import", "undefined_name", "undefined_name")),
        written(3, "x = (", finish="length", quality=quality(0.0, "undefined_name")),
        written(4, "x = 1"),
    ]
    data = write_rows(tmp_path / "tagged.jsonl", rows)
    said = call("score", "--data", data, "--output", tmp_path)
    scores = json.loads((tmp_path / "scores.json").read_text())
    said_of_quality = {"n": 3, "mean": 0.466667, "low": -0.783655, "high": 1.716989}  # 0.466667 +- 4.302653 * 0.290593
    assert scores["quality"] == {**said_of_quality, "issues": {"no_manim_import": 1, "undefined_name": 2}}
    assert {name: (scores[name]["passed"], scores[name]["n"]) for name in measures.CHECKS} == {
        "syntax": (3, 4), "scene": (2, 4), "finished": (3, 4), "api": (1, 3), "render": (0, 0), "manimgl": (0, 3),
        "same_code": (0, 0),
    }  # fmt: skip
    assert "syntax      3 of 4 = 75.0% (95 % interval 30.1% to 95.4%)" in said
    assert "quality     0.467 on average of 3 prompts" in said
    assert "render" not in said


def test_rejects_of_generate_are_found_beside_the_tagged_rows_or_where_they_are_said_to_be(tmp_path):
    data = write_rows(tmp_path / "tagged.jsonl", [written(1, SCENE)])
    other = written(3, "pass", evaluation={}, error={"code": "too_long", "message": "never asked"})
    raw = {"code": "not_json", "message": "not JSON", "raw": "{broken"}
    broken = {"description": "", "code": "", "source": "s", "metadata": {"error": raw}}
    rejects = write_rows(tmp_path / "generated.rejects.jsonl", [silent(2), other, broken])
    call("score", "--data", data, "--output", tmp_path)
    beside = json.loads((tmp_path / "scores.json").read_text())
    assert (beside["rows"], beside["syntax"]["passed"], beside["syntax"]["n"]) == (2, 1, 2)
    moved = rejects.rename(tmp_path / "elsewhere.jsonl")
    call("score", "--data", data, "--output", tmp_path)
    assert json.loads((tmp_path / "scores.json").read_text())["rows"] == 1
    call("score", "--data", data, "--output", tmp_path, "--rejects", moved)
    assert json.loads((tmp_path / "scores.json").read_text()) == beside


@pytest.mark.parametrize(
    ("code", "parses", "scene"),
    [
        (SCENE, True, True),
        ("import manim\nclass A(manim.ThreeDScene):\n    def construct(self): pass", True, True),
        ("class A(Scene):\n    pass", True, False),
        ("class A:\n    def construct(self): pass", True, False),
        ("def construct(self): pass", True, False),
        ("class A(Scene:\n", False, False),
        ("```python\n" + SCENE + "```", False, False),
        ("x = '\\d'", True, False),
        ("x = '\0'", False, False),
        ("return 1", False, False),
        (SCENE.replace("wait()", "play(a, run_time=1, run_time=2)"), False, False),
        ("(" * 5000, False, False),
    ],
)
def test_a_program_is_judged_by_its_tree(code, parses, scene):
    record = written(1, code)
    assert (measures.parses(record), measures.has_scene(record)) == (parses, scene)


def test_prose_is_no_failed_program():
    record = written(1, "Because it is.", kind="qa")
    assert (measures.parses(record), measures.has_scene(record), measures.finished(record)) == (None, None, True)


def two_evaluations(tmp_path):
    before = [written(1, SCENE), written(2, "x = ("), written(3, "x = 1"), written(4, "x = 1", finish="length")]
    after = [written(2, SCENE), written(1, "x = ("), written(3, "x = 2"), written(9, SCENE)]
    a, b = tmp_path / "a", tmp_path / "b"
    write_rows(a / "generated.jsonl", before)
    write_rows(b / "generated.jsonl", after)
    for folder, losses in ((a, {1: 2.0, 2: 1.0, 3: 1.0}), (b, {1: 1.0, 2: 1.0, 3: 3.0, 9: 1.0})):
        rows = [written(number, SCENE, evaluation={"loss": loss, "nll": loss, "tokens": 1, "correct": 0})
                for number, loss in losses.items()]  # fmt: skip
        write_rows(folder / "loss.jsonl", rows)
    return a, b


def test_rows_are_compared_with_their_own_twin(tmp_path):
    a, b = two_evaluations(tmp_path)
    said = call("compare", a, b, "--output", tmp_path / "compare.json")
    found = json.loads((tmp_path / "compare.json").read_text())
    assert found["prompts"] == {
        "generated": {"both": 3, "only_a": 1, "only_b": 1},
        "rated": {"both": 3, "only_a": 0, "only_b": 1},
    }
    names = ("n", "a", "b", "difference", "better", "worse", "equal", "p")
    assert {key: tuple(row[name] for name in names) for key, row in found.items() if key != "prompts"} == {
        "syntax": (3, 0.666667, 0.666667, 0.0, 1, 1, 1, 1.0),
        "scene": (3, 0.333333, 0.333333, 0.0, 1, 1, 1, 1.0),
        "finished": (3, 1.0, 1.0, 0.0, 0, 0, 3, 1.0),
        "loss": (3, 1.333333, 1.666667, 0.333333, 1, 1, 1, 1.0),
    }
    # -1, 0 and 2: 1/3 +- 4.302653 * sqrt(7/3 / 3)
    assert (found["loss"]["low"], found["loss"]["high"]) == pytest.approx((-3.461249, 4.127916), abs=2e-6)
    assert found["finished"]["low"] == -found["finished"]["high"] < 0
    said = [line for line in said.splitlines() if not line.startswith("left out of")]
    assert [line.split()[0] for line in said] == ["A", *list(found)[1:]]


def test_files_can_be_compared_too_and_an_empty_answer_is_a_worse_one(tmp_path):
    a, b = two_evaluations(tmp_path)
    write_rows(b / "generated.rejects.jsonl", [silent(4)])
    call("compare", a / "generated.jsonl", b / "generated.jsonl", "--output", tmp_path / "compare.json")
    found = json.loads((tmp_path / "compare.json").read_text())
    assert (found["syntax"]["n"], found["syntax"]["worse"]) == (4, 2)
    assert found["finished"]["better"] == 1
    assert "loss" not in found
    call("compare", a / "loss.jsonl", b / "loss.jsonl", "--output", tmp_path / "compare.json")
    assert [*json.loads((tmp_path / "compare.json").read_text())] == ["prompts", "loss"]


def test_places_without_a_common_row_can_not_be_compared(tmp_path):
    a = write_rows(tmp_path / "a.jsonl", [written(1, SCENE)])
    b = write_rows(tmp_path / "b.jsonl", [written(2, SCENE)])
    assert "no evaluated row in common" in call("compare", a, b, code=1)


def test_a_damaged_row_is_never_left_out_of_a_score(tmp_path):
    data = write_rows(tmp_path / "generated.jsonl", [written(1, SCENE), b"{broken"])
    assert "line 2: not JSON" in call("score", "--data", data, "--output", tmp_path, code=1)
    assert not (tmp_path / "scores.json").exists()
    assert "line 2: not JSON" in call("compare", data, data, code=1)


def damaged(run, tmp_path, change):
    folder = shutil.copytree(run / "base", tmp_path / "model")
    change(folder)
    return folder


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (lambda m: (m / "chat_template.jinja").unlink(), 1, "has no chat template"),
        (lambda m: (m / "chat_template.jinja").write_text("{{ raise_exception('no') }}"), 1, "does not render: no"),
        (lambda m: (m / "tokenizer.json").write_text("{"), 1, "tokenizer can not be loaded"),
        (lambda m: (m / "model.safetensors").write_bytes(b"\x00" * 50), 1, "can not be loaded"),
        (lambda m: (m / "model.safetensors").unlink(), 1, "can not be loaded"),
        (lambda m: (m / "config.json").unlink(), 2, "is not a model folder: it has no config.json"),
        (lambda m: (m / "adapter_config.json").write_text("{}"), 2, "is an adapter: give its base as --model"),
    ],
    ids=["no template", "bad template", "tokenizer", "weights", "no weights", "no config", "adapter"],
)
def test_a_model_that_can_not_be_asked_is_one_line(run, tmp_path, change, code, message):
    assert message in measure("loss", run, tmp_path / "eval", model=damaged(run, tmp_path, change), code=code)
    assert not (tmp_path / "eval" / "loss.jsonl").exists()


def test_a_model_that_is_not_there_is_one_line(run, tmp_path):
    message = measure("loss", run, tmp_path / "eval", model=tmp_path / "none", code=2)
    assert "there is no such folder, and it is not a name on the hub either" in message
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        assert "the hub can not give it" in measure("loss", run, tmp_path / "eval", model="nobody/nothing", code=1)


def test_an_adapter_that_does_not_fit_is_one_line(run, tmp_path):
    from safetensors.torch import load_file, save_file

    adapter = shutil.copytree(run / "adapter", tmp_path / "adapter")
    weights = load_file(adapter / "adapter_model.safetensors")
    weights.popitem()
    save_file(weights, adapter / "adapter_model.safetensors")
    message = measure("loss", run, tmp_path / "eval", "--adapter", adapter, code=1)
    assert "does not fit the model: 1 tensors" in message
    (adapter / "adapter_model.safetensors").unlink()
    assert "not an adapter folder" in measure("loss", run, tmp_path / "eval", "--adapter", adapter, code=2)


def test_what_is_read_is_never_overwritten(run, evaluation):
    for name in ("generated.jsonl", "generated.rejects.jsonl"):
        before = (evaluation / name).read_bytes()
        arguments = ("--model", run / "base", "--data", evaluation / name, "--output", evaluation)
        assert "name another --output" in call("generate", *arguments, code=2)
        assert (evaluation / name).read_bytes() == before


def test_a_killed_run_leaves_the_old_results_and_goes_on_where_it_was(run, tmp_path):
    settings = ("--batch-size", 1, "--max-new-tokens", 100)
    measure("generate", run, tmp_path / "whole", *settings)
    measure("generate", run, tmp_path / "eval", "--limit", 1)
    before = {path.name: path.read_bytes() for path in (tmp_path / "eval").iterdir()}
    arguments = ["--model", run / "base", "--data", run / "test.jsonl", "--output", tmp_path / "eval", *settings]
    command = [sys.executable, ROOT / "evaluate_model.py", "generate", *map(str, arguments)]
    journal = tmp_path / "eval" / ".generated.answers"
    with subprocess.Popen(command, env=CLEAN | {"HOME": str(tmp_path)}, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not journal.exists() or journal.read_bytes().count(b"\n") < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.0005)
        process.send_signal(signal.SIGKILL)
    assert {name: (tmp_path / "eval" / name).read_bytes() for name in before} == before
    known = journal.read_bytes().count(b"\n") - 1
    journal.write_bytes(journal.read_bytes() + b'[9,"torn')
    said = measure("generate", run, tmp_path / "eval", *settings)
    assert f"going on after {known} answers of the run before" in said
    whole, gone_on = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("whole", "eval")
    )
    assert gone_on == whole


def test_the_answers_of_another_run_are_of_no_use(run, tmp_path):
    journal = tmp_path / "eval" / ".generated.answers"
    journal.parent.mkdir()
    journal.write_text('another key\n[0,"wrong",1,"eos"]\n')
    assert "going on" not in measure("generate", run, tmp_path / "eval", "--limit", 1)
    assert read_rows(tmp_path / "eval" / "generated.jsonl")[0]["code"] == SCENE
    assert not journal.exists()


def test_several_answers_are_drawn_again_alike_and_counted_by_prompt(run, tmp_path):
    chance = ("--samples", 4, "--temperature", 1.5, "--limit", 3)
    for name, seed in (("one", 7), ("two", 7), ("three", 8)):
        measure("generate", run, tmp_path / name, *chance, "--seed", seed)
    one, two, three = ((tmp_path / name / "generated.jsonl").read_bytes() for name in ("one", "two", "three"))
    assert one == two != three
    rows = read_rows(tmp_path / "one" / "generated.jsonl")
    rows += read_rows(tmp_path / "one" / "generated.rejects.jsonl")
    asked = [(found["metadata"]["id"], found["metadata"]["evaluation"]["sample"]) for found in rows]
    assert sorted(asked) == [(f"row{number}", sample) for number in range(3) for sample in range(4)]
    assert len({found["code"] for found in rows}) > 3
    for name in ("asked", "generated"):
        assert schema.audit(tmp_path / "one" / f"{name}.ledger.json") == []
    call("score", "--data", tmp_path / "one" / "generated.jsonl", "--output", tmp_path / "one")
    scores = json.loads((tmp_path / "one" / "scores.json").read_text())
    assert (scores["rows"], scores["prompts"], scores["syntax"]["prompts"]) == (12, 3, 3)
    sound = {number: 0 for number in range(3)}
    for found in rows:
        sound[int(found["metadata"]["id"][3:])] += bool(measures.parses(found))
    assert scores["pass_at"]["syntax"]["4"]["rate"] == pytest.approx(sum(map(bool, sound.values())) / 3, abs=1e-6)
    assert scores["pass_at"]["syntax"]["1"]["rate"] == scores["syntax"]["rate"]
    assert scores["syntax"]["passed"] == sum(sound.values())


def test_the_base_stands_beside_the_tuned_model_on_fixed_prompts(run, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("# what everybody is asked\nWait.\n\nBreak it.\n")
    options = ("--adapter", run / "adapter", "--with-base", "--max-new-tokens", 40)
    call("generate", "--model", run / "base", "--prompts", prompts, "--output", tmp_path / "eval", *options)
    base, tuned = (read_rows(tmp_path / place / "generated.jsonl") for place in ("eval/base", "eval"))
    assert [found["code"] for found in base] == [SCENE, "def f(:\n"]
    assert [found["description"] for found in tuned] == ["Wait.", "Break it."]
    assert all("reference" not in found["metadata"] for found in base)
    assert [found["metadata"]["origin"]["line"] for found in base] == [2, 4]
    texts = tmp_path / "texts.md"
    said = call("compare", tmp_path / "eval" / "base", tmp_path / "eval", "--texts", texts)
    assert "syntax" in said
    page = texts.read_text()
    assert page.index("## Wait.") < page.index(f"A: syntax yes, scene yes, finished yes\n\n```python\n{SCENE}```")
    assert page.count("\nA: ") == page.count("\nB: ") == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--samples", "2"], "would be the same answer 2 times"),
        (["--with-base"], "--with-base needs an --adapter"),
        (["--prompts", "test.jsonl"], "name one of --data"),
        (["--base-url", "localhost:1"], "it takes an address such as http://127.0.0.1:8080/v1"),
    ],
)
def test_options_that_contradict_each_other_are_refused(run, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(run)
    assert message in measure("generate", run, tmp_path / "eval", *options, code=2)


def test_a_prompt_that_is_too_long_is_a_failed_answer_and_an_unreadable_row_is_none(run, tmp_path):
    rows = [row(0), {**row(1), "description": "long " * 200}, b"{broken"]
    data = write_rows(tmp_path / "test.jsonl", rows)
    measure("generate", run, tmp_path / "eval", data=data)
    call("score", "--data", tmp_path / "eval" / "generated.jsonl", "--output", tmp_path / "eval")
    scores = json.loads((tmp_path / "eval" / "scores.json").read_text())
    assert (scores["rows"], scores["empty"], scores["not_asked"]) == (2, 1, 1)
    assert (scores["syntax"]["passed"], scores["syntax"]["n"], scores["finished"]["passed"]) == (1, 2, 1)


def talk_to(run, text, *options):
    arguments = ["chat", "--model", run / "base", "--max-new-tokens", 40, *options]
    done = CliRunner().invoke(evaluate_model.cli, list(map(str, arguments)), input=text)
    assert done.exit_code == 0, f"{done.output} {done.exception!r}"
    return done


def test_a_model_can_be_talked_with(run):
    assert talk_to(run, "", "--prompt", "Wait.").stdout == SCENE + "\n"
    done = talk_to(run, "Wait.\n/new\n/nonsense\nBreak it.\n/quit\nWait.\n")
    assert done.stdout == f"{SCENE}\ndef f(:\n\n"
    assert "/nonsense is no command" in done.stderr


def test_adapters_change_in_the_middle_of_a_conversation(run):
    adapter = run / "adapter"
    alone = talk_to(run, "Why?\n", "--adapter", adapter).stdout
    done = talk_to(run, f"Why?\n/new\n/adapter {adapter}\nWhy?\n/adapter gone\n/new\n/adapter none\nWhy?\n")
    assert done.stdout == f"Because it is.\n{alone}Because it is.\n"
    assert "not an adapter folder" in done.stderr
    assert "nothing has changed" in done.stderr


def test_a_missing_package_is_named_with_its_extra(run, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    arguments = ("loss", "--model", run / "base", "--data", run / "test.jsonl", "--output", "eval")
    done = run_script("evaluate_model.py", *arguments, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, check=2)
    assert "evaluate_model needs the package torch: pip install 'linemill[train]'" in done.err


@pytest.mark.parametrize("name", ["loss", "generate", "score", "leakage", "compare", "page", "chat"])
def test_help_names_every_option_with_a_sentence(name):
    page = CliRunner().invoke(evaluate_model.cli, [name, "--help"]).stdout
    for option in evaluate_model.cli.commands[name].params:
        if option.param_type_name == "option":
            assert len(option.help.split()) > 1
            assert all(flag in page for flag in option.opts)


def test_score_and_compare_need_no_training_packages(tmp_path):
    write_rows(tmp_path / "generated.jsonl", [written(1, SCENE)])
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    arguments = ("score", "--data", "generated.jsonl", "--output", ".", "-q")
    done = run_script("evaluate_model.py", *arguments, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, check=0)
    assert done.err == ""


def test_batches_hold_rows_of_similar_length():
    assert models.batches([5, 1, 5, 2, 9], 2) == [[1, 3], [0, 2], [4]]
    assert models.batches([], 4) == []
