"""Exporting: the file that a runtime gets says what was trained, or there is none."""

from __future__ import annotations

import hashlib
import json
import random
import re
import resource
import shutil
import sys

import pytest
from click.testing import CliRunner
from conftest import record, run_script, write_rows
from fake_hubs import ModelHub
from tiny_models import BOS_TEMPLATE, LLAMA3, QWEN2, TEMPLATE, TYPES, byte_tokenizer, piece_tokenizer, save_model

pytest.importorskip("peft", reason="the extra [train] is not installed")
pytest.importorskip("gguf", reason="the extra [export] is not installed")

import merge_export
import schema
from stages.merge_export import (
    card,
    exporting,
    families,
    folders,
    gguf_file,
    models,
    ollama,
    proof,
    runtime,
    vocabulary,
)

# What a loader that is not ours assumes where the file does not say it
PLAIN = {
    "llama": {"rope_parameters": {"rope_type": "default", "rope_theta": 20000.0}},
    "qwen3": {"head_dim": 128},
    "gemma2": {"head_dim": 256, "query_pre_attn_scalar": 256},
    "gemma3": {"head_dim": 256, "query_pre_attn_scalar": 256},
}


def sealed(folder):
    """A model folder with a manifest, as `merge` leaves it."""
    folders.write_manifest(folder, {"dtype": "float32", "proof": {"effect": 0.5}})
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def model(place):
    """A function: the folder of a model of a family, made once."""
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = sealed(save_model(place / kind / "merged", kind))
        return made[kind]

    return get


@pytest.fixture(scope="module")
def exported(model, place):
    """A llama in two number formats, with all that comes beside them."""
    target = place / "exported"
    export(model("llama"), target, "--quant", "f16", "--quant", "Q8_0", code=0)
    return target


def call(*arguments, code):
    done = CliRunner().invoke(merge_export.cli, list(map(str, arguments)))
    assert done.exit_code == code, f"{done.exit_code}: {done.output} {done.exception!r}"
    return done.stderr


def export(folder, target, *options, code, kind="gguf"):
    return call("export", "--model", folder, "--format", kind, "--output", target, *options, code=code)


def refused(folder, target, *options, code=1, kind="gguf"):
    """The one line that says why; nothing was written, and the model is as it was."""
    before = contents(folder)
    message = export(folder, target, *options, code=code, kind=kind)
    assert not target.exists()
    assert [path.name for path in target.parent.glob(f".{target.name}.*")] == []
    assert contents(folder) == before
    if code == 1:
        assert len(message.splitlines()) == 1, message
    return message


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def change(folder, name, **changes):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def fields(path):
    reader = gguf_file.open_file(path)
    return {name: gguf_file.field(reader, name) for name in reader.fields}


# --- weights ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", sorted(set(TYPES) - {"gemma"}))  # transformers reads no first Gemma from such a file
def test_a_loader_that_is_not_ours_reads_the_same_model(place, kind):
    import torch
    from transformers import AutoModelForCausalLM

    folder = save_model(place / f"plain-{kind}", kind, **PLAIN.get(kind, {}))
    gguf_file.write(folder, folder / "x.gguf", "f32", "x")
    ids = torch.arange(3, 90).unsqueeze(0)
    with models.quiet_libraries():
        ours = AutoModelForCausalLM.from_pretrained(folder).eval()(ids).logits
        theirs = AutoModelForCausalLM.from_pretrained(folder, gguf_file="x.gguf").eval()(ids).logits
    assert ours.abs().max() > 0.5
    assert (ours - theirs).abs().max() < 1e-5


@pytest.mark.parametrize("kind", TYPES)
def test_every_family_is_exported_and_proved_in_every_format(model, tmp_path, kind):
    quants = [option for quant in gguf_file.PLAIN for option in ("--quant", quant)]
    export(model(kind), tmp_path / "out", *quants, code=0)
    found = json.loads((tmp_path / "out" / "manifest.json").read_text())["proof"]
    moved = [found[f"{kind}-{quant}.gguf"]["logits_moved"] for quant in gguf_file.PLAIN]
    assert moved[0] == 0 < moved[1] < moved[2] < moved[3]
    assert all(facts["logits_moved"] <= facts["logits_allowed"] for facts in found.values())
    assert all(facts["conversations"] >= 15 for facts in found.values())
    sizes = [(tmp_path / "out" / f"{kind}-{quant}.gguf").stat().st_size for quant in ("f32", "f16", "q8_0")]
    assert sizes[0] > 1.8 * sizes[1] > 1.8 * 1.6 * sizes[2]


def test_a_tensor_in_a_wrong_place_does_not_pass_the_proof(model, tmp_path, monkeypatch):
    """The rows of q and k in the order of transformers: most converters' first mistake."""
    folder = model("llama")
    monkeypatch.setattr(families, "laid_out", lambda family, name, weight: weight)
    assert "k_proj.weight is not what was trained" in refused(folder, tmp_path / "out", "--quant", "f32")


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K", "Q2_K"])
def test_every_number_format_has_a_bound_that_garbage_does_not_pass(kind):
    assert set(proof.TOLERANCE) == set(exporting.QUANTS)
    assert max(proof.TOLERANCE.values()) < 1
    import torch

    torch.manual_seed(0)
    weights = torch.randn(64, 256)
    allowed = proof.ROUNDING.get(kind, proof.ROUGHEST)
    assert proof.row_error(weights, weights) == 0
    assert proof.row_error(weights + weights.std() * torch.randn(64, 256) * allowed / 2, weights) < allowed
    for garbage in (weights * 0, weights.roll(1, 0), weights.roll(1, 1), -weights, weights * 0 + torch.nan):
        assert not proof.row_error(garbage, weights) <= allowed
    one_row = weights.clone()
    one_row[7] = weights[8]
    assert proof.row_error(one_row, weights) > allowed
    almost_zero = weights.clone()
    almost_zero[3] *= 1e-9  # a row that no token uses
    assert proof.row_error(almost_zero + 1e-6, almost_zero) < allowed


def test_a_file_with_one_row_in_a_wrong_place_is_refused(model, tmp_path, monkeypatch):
    laid_out = families.laid_out

    def shifted(family, name, weight):
        weight = laid_out(family, name, weight)
        return weight.roll(1, 0) if name == "model.layers.1.mlp.up_proj.weight" else weight

    monkeypatch.setattr(families, "laid_out", shifted)
    message = refused(model("qwen2"), tmp_path / "out", "--quant", "q8_0")
    assert "model.layers.1.mlp.up_proj.weight is not what was trained: Q8_0 moves a row of it by 1" in message


def test_the_width_is_read_off_the_weights(model, tmp_path):
    folder = model("lfm2")
    gguf_file.write(folder, tmp_path / "x.gguf", "f32", "x")
    shape = families.weight_shapes(folder)["model.layers.0.feed_forward.w3.weight"]
    configured = json.loads((folder / "config.json").read_text())["intermediate_size"]
    found = fields(tmp_path / "x.gguf")
    assert found["lfm2.feed_forward_length"] == shape[0] != configured
    assert found["lfm2.attention.head_count_kv"] == [0, 2]


def test_a_head_may_have_a_width_of_its_own(model, tmp_path):
    gguf_file.write(model("qwen3"), tmp_path / "x.gguf", "f32", "x")
    found = fields(tmp_path / "x.gguf")
    assert found["qwen3.attention.key_length"] == found["qwen3.attention.value_length"] == 32 != 256 // 4


@pytest.mark.parametrize(
    ("architecture", "changes", "message"),
    [
        ("llama", {}, None),
        ("llama", {"hidden_act": "gelu"}, "its activation is gelu, not silu"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic"}}, "scaled by 'dynamic'"),
        ("qwen2", {"rope_parameters": {"rope_type": "llama3"}}, "like those of Llama 3"),
        ("qwen2", {"layer_types": ["full_attention", "sliding_attention"]}, "see a window only"),
        ("gemma2", {"layer_types": ["full_attention", "sliding_attention"]}, "not every 2th"),
        ("gemma2", {"layer_types": ["sliding_attention", "full_attention"]}, None),
        ("gemma", {"query_pre_attn_scalar": 100}, "scaled by 100"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(architecture, changes, message):
    config = {"model_type": architecture, "hidden_act": "silu", "head_dim": 64, "rope_parameters": {}, **changes}
    found = families._strange(architecture, ("silu",), config)
    assert found is None if message is None else message in found


def test_a_family_without_a_writer_is_refused_before_any_work(model, tmp_path):
    folder = shutil.copytree(model("llama"), tmp_path / "other")
    change(folder, "config.json", model_type="gpt2", architectures=["GPT2LMHeadModel"])
    message = refused(sealed(folder), tmp_path / "out")
    assert "no GGUF writer for gpt2 here" in message
    assert "--converter" in message


def test_shards_make_no_difference(model, exported, tmp_path):
    folder = tmp_path / "llama" / "merged"
    shutil.copytree(model("llama"), folder)
    models.load_model(folder).save_pretrained(folder, max_shard_size="1MB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    assert len(list(folder.glob("*.safetensors"))) > 2
    gguf_file.write(folder, tmp_path / "x.gguf", "f16", "llama")
    names = sorted(gguf_file.open_file(tmp_path / "x.gguf").tensors, key=lambda tensor: tensor.name)
    others = sorted(gguf_file.open_file(exported / "llama-f16.gguf").tensors, key=lambda tensor: tensor.name)
    assert [(t.name, t.data.tobytes()) for t in names] == [(t.name, t.data.tobytes()) for t in others]


def test_two_exports_give_the_same_bytes(model, exported, tmp_path):
    export(model("llama"), tmp_path / "again", "--quant", "f16", "--quant", "q8_0", code=0)
    ours, theirs = contents(tmp_path / "again"), contents(exported)
    assert ours.pop("ledger.json") != theirs.pop("ledger.json")  # it names where the model is, seen from there
    assert ours == theirs
    assert schema.audit(exported / "ledger.json") == []


# --- tokens -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("tokenizer", "name"),
    [
        (byte_tokenizer, "gpt-2"),
        (lambda: byte_tokenizer(LLAMA3, whole=True), "llama-bpe"),
        (lambda: byte_tokenizer(LLAMA3), "smaug-bpe"),
        (lambda: byte_tokenizer(QWEN2), "qwen2"),
        (lambda: byte_tokenizer(r"\p{N}"), None),
    ],
)
def test_the_pre_tokenizer_is_found_from_the_tokenizer_itself(tmp_path, tokenizer, name):
    data = json.loads(tokenizer().backend_tokenizer.to_str())
    if name is None:
        with pytest.raises(schema.Failure, match="no name for the way it cuts a text"):
            vocabulary.find_pre_tokenizer(data, tmp_path)
    else:
        assert vocabulary.find_pre_tokenizer(data, tmp_path) == name


def test_other_kinds_of_tokenizers_are_refused(model, tmp_path):
    folder = shutil.copytree(model("llama"), tmp_path / "other")
    data = json.loads((folder / "tokenizer.json").read_text())
    for part, value, message in (
        ("model", {**data["model"], "type": "Unigram"}, "its model is Unigram"),
        ("normalizer", {"type": "Lowercase"}, "does not know its normalizer Lowercase"),
        ("pre_tokenizer", {"type": "ByteLevel", "add_prefix_space": True}, "puts a space before the text"),
    ):
        (folder / "tokenizer.json").write_text(json.dumps({**data, part: value}))
        assert message in refused(sealed(folder), tmp_path / "out")


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_the_tokenizer_in_the_file_cuts_any_text_as_the_trained_one(model, tmp_path, kind):
    gguf_file.write(model(kind), tmp_path / "x.gguf", "f16", "x")
    encode = gguf_file.encoder(gguf_file.open_file(tmp_path / "x.gguf"), tmp_path)
    tokenizer = models.load_tokenizer(model(kind))
    pieces = [
        " ",
        "  ",
        "\n",
        "\t",
        "self",
        "construct(",
        "12345",
        "é",
        "数",
        "🙂",
        "'ll",
        "<eos>",
        "<|im_end|>",
        "_",
        "A",
    ]
    chance = random.Random(1)
    for _ in range(300):
        text = "".join(chance.choices(pieces, k=chance.randint(1, 12)))
        assert encode(text) == tokenizer(text, add_special_tokens=False)["input_ids"], text


def test_what_stops_and_what_begins_is_in_the_file(model, tmp_path):
    gguf_file.write(model("llama"), tmp_path / "x.gguf", "f16", "x")
    found, tokenizer = fields(tmp_path / "x.gguf"), models.load_tokenizer(model("llama"))
    assert found["tokenizer.ggml.eos_token_id"] == tokenizer.eos_token_id
    assert found["tokenizer.ggml.eot_token_id"] == tokenizer.pad_token_id  # the base's own end token
    assert found["tokenizer.ggml.add_bos_token"] is False
    assert found["tokenizer.chat_template"] == TEMPLATE
    assert found["tokenizer.ggml.token_type"][tokenizer.eos_token_id] == vocabulary.CONTROL
    assert found["tokenizer.ggml.tokens"][-1] == f"[PAD{len(tokenizer) + 4}]"
    gguf_file.write(model("gemma"), tmp_path / "y.gguf", "f16", "x")
    assert fields(tmp_path / "y.gguf")["tokenizer.ggml.add_bos_token"] is True


def test_a_wrong_template_is_refused(model, tmp_path):
    """What was trained, beside a file that was written from a folder with another template."""
    other = shutil.copytree(model("llama"), tmp_path / "other")
    (other / "chat_template.jinja").write_text(TEMPLATE.replace("\n{{ m['content'] }}", " {{ m['content'] }}"))
    gguf_file.write(other, tmp_path / "x.gguf", "f16", "x")
    with pytest.raises(schema.Failure, match="conversation 1 of 17 gives other tokens than the trained template"):
        proof.check_tokens(model("llama"), tmp_path / "x.gguf")
    (other / "chat_template.jinja").unlink()
    gguf_file.write(other, tmp_path / "y.gguf", "f16", "x")
    with pytest.raises(schema.Failure, match="it has no chat template, the trained model has one"):
        proof.check_tokens(model("llama"), tmp_path / "y.gguf")


def test_records_can_be_compared_as_well(model, tmp_path):
    data = write_rows(tmp_path / "rows.jsonl", [record(n) for n in range(5)])
    export(model("llama"), tmp_path / "out", "--quant", "f16", "--data", data, code=0)
    assert (
        json.loads((tmp_path / "out" / "manifest.json").read_text())["proof"]["llama-f16.gguf"]["conversations"] == 22
    )


# --- verify -----------------------------------------------------------------------------------------------------------
def test_verify_compares_files_with_the_model(model, exported, tmp_path):
    said = call("verify", exported, "--against", model("llama"), code=0)
    assert len(said.splitlines()) == 1
    assert "4 files as they were written" in said
    assert said.count("moves logits by") == 2
    other = shutil.copytree(model("llama"), tmp_path / "other")
    (other / "chat_template.jinja").write_text(TEMPLATE + " ")
    assert "other tokens than the trained template" in call("verify", exported, "--against", other, code=1)
    copy = shutil.copytree(exported, tmp_path / "copy")
    (copy / "llama-f16.gguf").write_bytes((copy / "llama-f16.gguf").read_bytes()[:-100])
    assert "llama-f16.gguf has" in call("verify", copy, code=1)


def test_a_file_that_was_cut_off_is_named(exported, tmp_path):
    (tmp_path / "x.gguf").write_bytes((exported / "llama-f16.gguf").read_bytes()[:-100_000])
    with pytest.raises(schema.Failure, match="damaged, or not a GGUF file"):
        gguf_file.open_file(tmp_path / "x.gguf")


# --- what can go wrong ------------------------------------------------------------------------------------------------
@pytest.mark.skipif(runtime.is_there(), reason="the runtime is installed")
def test_a_format_that_needs_the_runtime_says_so(model, tmp_path):
    message = refused(model("llama"), tmp_path / "out", "--quant", "q4_k_m", code=2)
    assert "--quant q4_k_m needs the package llama-cpp-python: pip install 'linemill[llama]'" in message


def test_a_format_that_does_not_exist_is_named(model, tmp_path):
    assert "'q7' is none of f32, f16" in refused(model("llama"), tmp_path / "out", "--quant", "q7", code=2)
    assert "would not do" in refused(model("llama"), tmp_path / "out", "--name", "../x", code=2)


def test_a_truncated_shard_is_refused(model, tmp_path):
    folder = shutil.copytree(model("llama"), tmp_path / "other")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "model.safetensors has" in refused(folder, tmp_path / "out")
    assert "damaged or cut off" in refused(sealed(folder), tmp_path / "out")


def test_the_disk_is_checked_before_any_work(model, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6))
    assert "1.0 MiB are free" in refused(model("llama"), tmp_path / "out")


def test_a_disk_that_fills_up_leaves_nothing(model, tmp_path, monkeypatch, capsys):
    command = ["merge_export.py", "export", "--model", model("llama"), "--format", "gguf", "--output", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", list(map(str, command)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # less than the weights need
    try:
        with pytest.raises(SystemExit) as stopped:
            schema.main(merge_export.cli)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert stopped.value.code == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


CONVERTER = """import argparse, shutil, sys
parser = argparse.ArgumentParser()
for name in ("model", "--outfile", "--outtype"):
    parser.add_argument(name)
told = parser.parse_args()
assert told.outtype == "f16", "no such type"
shutil.copyfile({file!r}, told.outfile)
"""


def test_a_converter_of_your_own_is_proved_too(model, exported, tmp_path):
    script = tmp_path / "convert.py"
    script.write_text(CONVERTER.format(file=str(exported / "llama-f16.gguf")))
    export(model("llama"), tmp_path / "out", "--quant", "f16", "--converter", script, code=0)
    assert (tmp_path / "out" / "llama-f16.gguf").read_bytes() == (exported / "llama-f16.gguf").read_bytes()
    assert "no such type; the merged model is" in refused(
        model("llama"), tmp_path / "none", "--quant", "f32", "--converter", script
    )
    assert "other tokens than the trained template" in refused(
        model("mistral"), tmp_path / "none", "--quant", "f16", "--converter", script
    )
    script.write_text("raise SystemExit('it needs a package')")
    message = refused(model("llama"), tmp_path / "none", "--converter", script, code=2)
    assert "it does not run: it needs a package" in message


# --- what stands beside the files -------------------------------------------------------------------------------------
def test_the_modelfile_holds_the_trained_turns_and_stops(exported):
    text = (exported / "Modelfile").read_text()
    assert text.startswith("FROM ./llama-f16.gguf\n")
    assert '{{ else if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n' in text
    assert '{{ end }}{{ end }}<|im_start|>assistant\n"""' in text
    assert text.endswith('PARAMETER stop "<|im_end|>"\nPARAMETER stop "<|endoftext|>"\n')


DEFAULT = "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}" + TEMPLATE


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (TEMPLATE, {"default": "", "system": ("<|im_start|>system\n", "<|im_end|>\n")}),
        (DEFAULT, {"default": "<|im_start|>system\nBe kind.<|im_end|>\n"}),
        ("{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}" + TEMPLATE, {"system": None}),
        ("{{ strftime_now('%d') }}" + TEMPLATE, None),
        ("{{ messages | length }}" + TEMPLATE, None),
        ("{{ messages[0]['content'] | upper }}", None),
    ],
    ids=["turns", "default system", "no system", "the day", "a number", "shouting"],
)
def test_the_turns_of_a_template_are_found_or_it_is_said_that_there_are_none(template, expected):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    turns = ollama.derive(tokenizer, list(proof.conversations(None))[: 14 if expected == {"system": None} else None])
    if expected is None:
        assert turns is None
    else:
        assert expected.items() <= turns._asdict().items()
        assert turns.user == ("<|im_start|>user\n", "<|im_end|>\n")
        assert turns.prompt == "<|im_start|>assistant\n"


FOLDED = (
    "{{ bos_token }}{% set told = messages[0]['content'] + '\n\n' if messages[0]['role'] == 'system' else '' %}"
    "{% for m in messages if m['role'] != 'system' %}<start_of_turn>{{ m['role'] }}\n{{ told if loop.first }}"
    "{{ m['content'] }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>assistant\n{% endif %}"
)
DEFAULT_BEFORE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n{{ '{{' }} \"\"\" <|im_end|>\n{% endif %}" + TEMPLATE
)


def go(template, talk):
    """What Go makes of the template of a Modelfile: the few steps that ours are made of, and no others."""
    told = any(message["role"] == "system" for message in talk)

    def run(steps, talk, place=None):
        text = ""
        while steps:
            step = steps.pop(0)
            if not step.startswith("{{ "):
                text += step
                continue
            match step[3:-3]:
                case "end":
                    raise AssertionError("an end too many")
                case ".Content":
                    text += talk[place]["content"]
                case word if word.startswith('"'):
                    text += json.loads(word)
                case word if word.startswith("range"):
                    inside = block(steps)[0]
                    text += "".join(run(list(inside), talk, number) for number in range(len(talk)))
                case word:
                    branches = block(steps)
                    conditions = [word.removeprefix("if "), *branches[1::2]]
                    chosen = (
                        inside for said, inside in zip(conditions, branches[::2], strict=True) if true(said, place)
                    )
                    text += run(list(next(chosen, [])), talk, place)
        return text

    def true(said, place):
        match said.split('"'):
            case ["eq .Role ", role, ""]:
                return talk[place]["role"] == role
            case ["not .System"]:
                return not told
            case ["not (and $.System (eq $place 1))"]:
                return not (told and place == 1)
        raise AssertionError(said)

    def block(steps):
        """Up to the matching end: the first branch, and then each condition with its branch."""
        found, depth = [[]], 0
        while steps:
            step = steps.pop(0)
            word = step[3:-3] if step.startswith("{{ ") else ""
            if not depth and word == "end":
                return found
            if not depth and word.startswith("else if "):
                found += [word.removeprefix("else if "), []]
                continue
            depth += word.startswith(("if ", "range ")) - (word == "end")
            found[-1].append(step)
        raise AssertionError("an end is missing")

    steps = [part for part in re.split(r"(\{\{ .*? \}\})", template) if part]
    return run(steps, talk)


@pytest.mark.parametrize(
    ("template", "tokenizer"),
    [(TEMPLATE, byte_tokenizer), (DEFAULT_BEFORE, byte_tokenizer), (BOS_TEMPLATE, piece_tokenizer),
     (FOLDED, piece_tokenizer)],
    ids=["turns", "default system", "begin token", "system in the first turn"],
)  # fmt: skip
def test_ollama_would_say_what_the_chat_template_says(template, tokenizer):
    speaker = tokenizer()
    speaker.chat_template = template
    turns = ollama.derive(speaker, list(proof.conversations(None)))
    text = ollama.modelfile(turns, "x.gguf", ["<end>"])
    written = text.partition('TEMPLATE """')[2].partition('"""\nPARAMETER')[0]
    system, question = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Draw {{ x }}."}
    answer, again = {"role": "assistant", "content": proof.CODE.strip()}, {"role": "user", "content": "In red."}
    for talk in ([question], [question, answer, again], [system, question], [system, question, answer, again]):
        expected = speaker.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        assert go(written, talk) == expected.removeprefix(speaker.bos_token or "")


def test_what_stops_is_quoted_as_ollama_reads_it():
    turns = ollama.derive(byte_tokenizer(), [])
    text = ollama.modelfile(turns, "x.gguf", ["<end>", 'a"b', "a\nb", r"a\n"])
    assert text.endswith('\nPARAMETER stop "<end>"\nPARAMETER stop """a"b"""\nPARAMETER stop """a\nb"""\n'
                         'PARAMETER stop "a\\n"\n')  # fmt: skip


def test_the_begin_token_is_left_to_the_runtime():
    turns = ollama.derive(piece_tokenizer(), proof.conversations(None))
    assert turns.begin == "<bos>"
    assert "<bos>" not in ollama.modelfile(turns, "x.gguf", ["<end_of_turn>"])


def test_braces_and_quotes_survive_in_a_modelfile():
    assert ollama._literal('a {{ b """ c') == 'a {{ "{{" }} b {{ "\\"\\"\\"" }} c'


def test_a_template_without_turns_gives_no_modelfile(model, tmp_path):
    folder = shutil.copytree(model("llama"), tmp_path / "other")
    (folder / "chat_template.jinja").write_text("{{ messages | length }}" + TEMPLATE)
    assert "no Modelfile" in export(sealed(folder), tmp_path / "out", "--quant", "f16", code=0)
    assert not (tmp_path / "out" / "Modelfile").exists()


def run_of(folder, rows):
    """A run as train.py leaves it, with a merged model whose ledger names its adapter."""
    data = write_rows(folder / "data" / "train.jsonl", rows)
    adapter = folder / "run" / "adapter" / "adapter_config.json"
    adapter.parent.mkdir(parents=True)
    adapter.write_text("{}")
    common = {"outputs": [], "reasons": {}}
    counts = {"in": len(rows), "kept": len(rows), "rejected": 0, "merged": 0}
    schema.write_ledger(
        folder / "run" / "ledger.json", stage="train", inputs=[data], files=[adapter], counts=counts,
        options={"model": {"name": "someone/base"}, "lora": {"r": 16}}, extra={"trained_rows": 1234}, **common,
    )  # fmt: skip
    (folder / "run" / "merged").mkdir()
    schema.write_ledger(
        folder / "run" / "merged" / "ledger.json", stage="merge_export", inputs=[adapter], options={},
        counts=dict.fromkeys(counts, 0), **common,
    )  # fmt: skip
    return data


def test_the_card_says_what_the_ledgers_say_and_no_more(tmp_path):
    rows = [record(n, metadata={"kind": "code", **({"licence": "MIT"} if n % 3 else {})}) for n in range(9)]
    data = run_of(tmp_path, rows)
    rates = {
        "rows": 32, "not_asked": 3, "quality": {"mean": 0.5, "issues": {}}, "by_source": {"s": {}},
        "syntax": {"passed": 16, "n": 32, "rate": 0.5, "low": 0.33631, "high": 0.66369}, "api": {"n": 0, "rate": None},
        "render": {"rate": 0.123456},
    }  # fmt: skip
    (tmp_path / "scores.json").write_text(json.dumps(rates))
    arguments = (tmp_path / "run" / "merged", "x", {"x.gguf": "what it is"}, {"x.gguf": "quant f16"})
    text = card.write(*arguments, tmp_path / "scores.json")
    for line in (
        "base_model: someone/base", "- MIT: 6", "- not recorded: 3", "- trained rows: 1,234", "- lora: r 16",
        "- syntax: 50.0% (16 of 32), 95 % interval 33.6% to 66.4%", "- render: 12.3%",
        f"SHA-256 {schema.file_facts(data)['sha256']}", "- `x.gguf`: what it is",
    ):  # fmt: skip
        assert line in text
    assert str(tmp_path) not in text
    scores = text.partition("## Scores")[2].partition("##")[0]
    assert [line.split(":")[0] for line in scores.splitlines() if line] == ["- syntax", "- render"]
    data.write_bytes(data.read_bytes() + b"\n")  # not what was trained on any more
    text = card.write(*arguments, None)
    assert "MIT" not in text
    assert "Not measured." in text


# --- adapters, MLX, the hub -------------------------------------------------------------------------------------------
def adapter_of(base, folder, **settings):
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    adapted = get_peft_model(
        models.load_model(base), LoraConfig(r=4, lora_alpha=6, target_modules="all-linear", **settings)
    )
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    adapted.save_pretrained(folder)
    return change(folder, "adapter_config.json", base_model_name_or_path=str(base))


@pytest.mark.parametrize("rslora", [False, True])
def test_an_adapter_file_on_its_base_gives_the_merged_weights(model, tmp_path, rslora):
    """The sum that llama.cpp computes, weight by weight."""
    import gguf

    adapter = adapter_of(model("llama"), tmp_path / "run" / "adapter", use_rslora=rslora)
    export(adapter, tmp_path / "out", kind="adapter-gguf", code=0)
    call("merge", "--adapter", adapter, "--output", tmp_path / "merged", code=0)
    for folder, name in ((model("llama"), "base"), (tmp_path / "merged", "merged")):
        gguf_file.write(folder, tmp_path / f"{name}.gguf", "f32", "x")
    found = {t.name: t.data for t in gguf_file.open_file(tmp_path / "out" / "run-adapter.gguf").tensors}
    base, merged = (
        {t.name: t.data for t in gguf_file.open_file(tmp_path / f"{name}.gguf").tensors} for name in ("base", "merged")
    )
    alpha = fields(tmp_path / "out" / "run-adapter.gguf")[gguf.Keys.Adapter.LORA_ALPHA]
    changed = {name for name in base if (base[name] != merged[name]).any()}
    assert changed == {name.removesuffix(".lora_a") for name in found if name.endswith(".lora_a")} != set()
    for name in changed:
        a, b = found[f"{name}.lora_a"], found[f"{name}.lora_b"]
        assert abs(base[name] + alpha / a.shape[0] * (b @ a) - merged[name]).max() < 1e-5


def test_an_adapter_that_llama_cpp_has_no_words_for_is_refused(model, tmp_path):
    adapter = adapter_of(model("llama"), tmp_path / "adapter")
    change(adapter, "adapter_config.json", use_dora=True)
    assert "use_dora has no place in a GGUF adapter" in refused(adapter, tmp_path / "out", kind="adapter-gguf")


def test_an_mlx_folder_has_the_keys_that_mlx_reads(model, tmp_path):
    export(model("lfm2"), tmp_path / "out", kind="mlx", code=0)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["block_dim"], config["full_attn_idxs"]) == (256, [1])
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (model("lfm2") / "model.safetensors").read_bytes()
    call("verify", tmp_path / "out", code=0)


def test_a_dry_run_lists_what_would_be_sent(exported):
    done = CliRunner().invoke(merge_export.cli, ["push", str(exported), "--to", "own/model", "--dry-run"])
    assert done.exit_code == 0
    assert [line.split()[-1] for line in done.stdout.splitlines()] == [
        "Modelfile", "README.md", "llama-f16.gguf", "llama-q8_0.gguf",
    ]  # fmt: skip
    assert "4 files would go to own/model (private); nothing was sent" in done.stderr


def push(hub, folder, *options, code):
    env = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    (folder.parent / ".env").write_text("HF_TOKEN=hf_key\nHF_ENDPOINT=http://nowhere.invalid\n")
    return run_script(
        "merge_export.py", "push", folder, "--to", "own/model", *options, cwd=folder.parent, env=env, check=code
    )


def test_a_folder_is_sent_to_a_private_repository(exported, tmp_path):
    (exported / "notes.txt").write_text("mine")
    with ModelHub().serve() as hub:
        assert "5 files -> " in push(hub, exported, code=0).err
    (exported / "notes.txt").unlink()
    assert [repository["visibility"] for repository in hub.created] == ["private"]
    assert hub.keys == {"Bearer hf_key"}
    assert hub.files == {name: data for name, data in contents(exported).items() if name != "ledger.json"}
    large = {hashlib.sha256(data).hexdigest() for name, data in hub.files.items() if name.endswith(".gguf")}
    assert set(hub.stored) == large  # these went as LFS objects, the others in the commit itself


def test_an_export_is_sent_at_once(model, tmp_path):
    env = {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_key"}
    common = ("merge_export.py", "export", "--model", model("llama"), "--output", tmp_path / "out")
    with ModelHub().serve() as hub:
        done = run_script(*common, "--hub-id", "own/model", cwd=tmp_path, env=env | {"HF_ENDPOINT": hub.url}, check=0)
    assert " files -> " in done.err
    assert [repository["visibility"] for repository in hub.created] == ["private"]
    assert hub.files["model.safetensors"] == (tmp_path / "out" / "model.safetensors").read_bytes()


def test_a_hub_that_refuses_is_one_line(exported):
    with ModelHub(faults=[("/api/repos/create", 403)]).serve() as hub:
        done = push(hub, exported, "--public", code=1)
    assert "own/model: the hub did not take it" in done.err
    assert len(done.err.splitlines()) == 1
    assert hub.files == {}


def test_what_has_changed_is_not_sent(exported, tmp_path):
    copy = shutil.copytree(exported, tmp_path / "copy")
    (copy / "Modelfile").write_text("FROM x")
    assert "Modelfile has" in call("push", copy, "--to", "own/model", "--dry-run", code=1)
    assert "is called OWNER/NAME" in call("push", exported, "--to", "../x", "--dry-run", code=2)


# --- with llama.cpp ---------------------------------------------------------------------------------------------------
@pytest.mark.skipif(not runtime.is_there(), reason="llama-cpp-python is not installed: its answers are not compared")
@pytest.mark.parametrize("kind", ["llama", "qwen3", "lfm2"])
def test_llama_cpp_answers_as_the_merged_model(model, tmp_path, kind):
    export(model(kind), tmp_path / "out", "--quant", "f16", "--quant", "q4_k_m", code=0)
    found = json.loads((tmp_path / "out" / "manifest.json").read_text())["proof"]
    assert found[f"{kind}-f16.gguf"]["same_answers"] == found[f"{kind}-f16.gguf"]["prompts"] == 20
    assert found[f"{kind}-q4_k_m.gguf"]["logits_moved"] > found[f"{kind}-f16.gguf"]["logits_moved"]
    assert not (tmp_path / "out" / "whole.gguf").exists()


def test_the_name_of_the_run_is_the_name_of_the_files(tmp_path):
    assert exporting.default_name(tmp_path / "first" / "merged") == "first"
    assert exporting.default_name(tmp_path / "second") == "second"
