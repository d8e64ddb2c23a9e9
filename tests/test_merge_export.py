"""Merging: what is written equals base + adapter, can be checked later, and is refused whenever it would not."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from conftest import CLEAN, ROOT, run_script

pytest.importorskip("peft", reason="the extra [train] is not installed")

import merge_export
import schema
from stages.merge_export import adapters, folders, models

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WEIGHTS = "adapter_model.safetensors"


def tiny_tokenizer():
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["def construct(self): self.play(Create(Circle()))"], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = TEMPLATE
    return fast


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a training run: base/ and adapter/, as train.py leaves them, with random weights."""
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
        max_position_embeddings=512,
        eos_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        bos_token_id=None,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(place / "base")
    tokenizer.save_pretrained(place / "base")
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    adapted.save_pretrained(place / "adapter")
    tokenizer.save_pretrained(place / "adapter")
    change_config(place / "adapter", base_model_name_or_path="../base")
    return place


@pytest.fixture
def adapter(run, tmp_path):
    """A copy that a test may damage; the base stays where it is."""
    copy = tmp_path / "own" / "adapter"
    shutil.copytree(run / "adapter", copy)
    change_config(copy, base_model_name_or_path=str(run / "base"))
    return copy


@pytest.fixture(scope="module")
def merged(run):
    """The merged model, made by the script as a user would make it."""
    target = run / "merged"
    done = run_script("merge_export.py", "merge", "--adapter", run / "adapter", "--output", target, cwd=run, check=0)
    assert "same next token at" in done.err
    assert len(done.err.splitlines()) == 1
    return target


@pytest.fixture
def copy(merged, tmp_path):
    return shutil.copytree(merged, tmp_path / "copy")


def change_config(folder, name="adapter_config.json", **changes):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_weights(adapter, change):
    from safetensors.torch import load_file, save_file

    weights = load_file(adapter / WEIGHTS)
    save_file(change(weights), adapter / WEIGHTS)


def call(*arguments, code):
    """The script in this process, which has paid for importing torch already."""
    done = CliRunner().invoke(merge_export.cli, list(map(str, arguments)))
    assert done.exit_code == code, f"{done.exit_code}: {done.output} {done.exception!r}"
    return done.stderr


def call_help(name):
    return CliRunner().invoke(merge_export.cli, [name, "--help"]).stdout


def merge(adapter, target, *options, code=0):
    return call("merge", "--adapter", adapter, "--output", target, *options, code=code)


def refused(adapter, target, *options, code=1):
    """The one line that says why; nothing was written."""
    message = merge(adapter, target, *options, code=code)
    assert not target.exists()
    assert [path.name for path in target.parent.glob(f".{target.name}.*")] == []
    if code == 1:
        assert len(message.splitlines()) == 1, message
    return message


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_merged_model_gives_the_logits_of_base_plus_adapter(run, merged):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    ids = torch.arange(3, 40).unsqueeze(0)
    base = AutoModelForCausalLM.from_pretrained(run / "base")
    plain = base(ids).logits
    together = PeftModel.from_pretrained(base, run / "adapter")(ids).logits
    alone = AutoModelForCausalLM.from_pretrained(merged)(ids).logits
    assert (plain - together).abs().max() > 0.01
    assert (alone - together).abs().max() < 1e-5
    proof = json.loads((merged / "manifest.json").read_text())["proof"]
    assert 0 < proof["saved"] < 1e-5 < proof["effect"]
    assert proof["same_token"] == proof["positions"] > 50


def test_the_manifest_lists_every_file_and_the_ledger_adds_up(merged):
    manifest = json.loads((merged / "manifest.json").read_text())
    assert {*manifest["files"], "manifest.json", "ledger.json"} == set(contents(merged))
    for name, facts in manifest["files"].items():
        data = (merged / name).read_bytes()
        assert facts == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert schema.audit(merged / "ledger.json") == []
    ledger = json.loads((merged / "ledger.json").read_text())
    assert "../base/model.safetensors" in [facts["path"] for facts in ledger["inputs"]]


def test_tokenizer_and_chat_template_are_copied_byte_for_byte(run, merged):
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (merged / name).read_bytes() == (run / "adapter" / name).read_bytes()


def test_the_trained_end_token_stops_the_merged_model(run, merged):
    known = json.loads((run / "base" / "generation_config.json").read_text())["eos_token_id"]
    stops = json.loads((merged / "generation_config.json").read_text())["eos_token_id"]
    assert stops == [known, tiny_tokenizer().eos_token_id]


def test_two_merges_give_the_same_bytes(run, merged):
    merge(run / "adapter", run / "again")
    assert contents(run / "again") == contents(merged)


def test_everybody_may_read_what_the_owner_may(merged):
    assert len({path.stat().st_mode for path in merged.iterdir()}) == 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_saved_as_asked_and_proven_against_its_own_limit(adapter, tmp_path, dtype):
    from safetensors.torch import load_file

    merge(adapter, tmp_path / "half", "--dtype", dtype)
    assert {str(weight.dtype) for weight in load_file(tmp_path / "half" / "model.safetensors").values()} == {
        f"torch.{dtype}"
    }
    proof = json.loads((tmp_path / "half" / "manifest.json").read_text())["proof"]
    assert proof["merged"] < 1e-5 < proof["saved"] < proof["allowed_saved"]


def test_without_a_dtype_the_base_decides(run, adapter, tmp_path):
    from transformers import AutoModelForCausalLM

    half = shutil.copytree(run / "base", tmp_path / "half_base")
    AutoModelForCausalLM.from_pretrained(half, dtype="bfloat16").save_pretrained(half)
    merge(adapter, tmp_path / "merged", "--base-model", half)
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == "bfloat16"


def test_rounding_that_drowns_the_adapter_is_said(adapter, tmp_path):
    change_weights(adapter, lambda weights: {n: w * 1e-3 if "lora_B" in n else w for n, w in weights.items()})
    assert "keep --dtype float32" in merge(adapter, tmp_path / "merged", "--dtype", "bfloat16")
    assert "keep --dtype float32" not in merge(adapter, tmp_path / "merged", "--dtype", "float32")


def test_an_adapter_that_changes_nothing_is_refused(adapter, tmp_path):
    change_weights(adapter, lambda weights: {n: w * 0 if "lora_B" in n else w for n, w in weights.items()})
    assert "changes nothing" in refused(adapter, tmp_path / "merged")


@pytest.mark.parametrize("factor", [float("nan"), 1e30], ids=["no number", "out of range"])
def test_the_proof_fails_for_a_tampered_adapter(adapter, tmp_path, factor):
    change_weights(adapter, lambda weights: {n: w * factor if "lora_B" in n else w for n, w in weights.items()})
    message = refused(adapter, tmp_path / "merged")
    assert "merged and base + adapter differ by inf" in message
    assert message.endswith("nothing was written\n")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"effect": 0.0}, "changes nothing"),
        ({"merged": 2e-4}, "merged and base + adapter differ by 2.0e-04 on the fixed prompts, 1.0e-04 is allowed"),
        ({"saved": 0.2}, "rounding to bfloat16 moves logits by 2.0e-01, 5.0e-02 is allowed"),
        ({"merged": float("nan")}, "merged and base + adapter differ"),
        ({"saved": float("nan")}, "rounding"),
    ],
)
def test_a_proof_is_refused_beyond_each_of_its_limits(changes, message):
    sound = models.Proof(0.5, 1e-6, 8e-3, allowed_merged=1e-4, allowed_saved=5e-2, same_token=9, positions=9)
    found = models.objection(sound._replace(**changes), "bfloat16")
    assert found is None if message is None else message in found


def test_the_proof_fails_when_half_precision_can_not_hold_the_weights(adapter, tmp_path):
    change_weights(adapter, lambda weights: {n: w * 1e7 if "v_proj.lora_B" in n else w for n, w in weights.items()})
    assert "merge with --dtype float32" in refused(adapter, tmp_path / "merged", "--dtype", "float16")


def load_weights(folder, name="model.safetensors"):
    from safetensors.torch import load_file

    return load_file(folder / name)


def second_adapter(adapter, tmp_path):
    """Another adapter of the same base, in a run of its own."""
    copy = shutil.copytree(adapter, tmp_path / "other" / "adapter")
    change_weights(copy, lambda weights: {name: weight.flip(0).contiguous() for name, weight in weights.items()})
    return copy


def test_several_adapters_are_added_up_each_with_its_share(run, adapter, tmp_path):
    other = second_adapter(adapter, tmp_path)
    for name, options in (("one", ("--adapter", adapter)), ("two", ("--adapter", other))):
        call("merge", *options, "--output", tmp_path / name, code=0)
    both = ("--adapter", adapter, "--adapter", other, "--weight", "0.5", "--weight", "2")
    assert "2 adapters" in call("merge", *both, "--output", tmp_path / "both", code=0)
    base, one, two, sums = (load_weights(f) for f in (run / "base", *(tmp_path / n for n in ("one", "two", "both"))))
    for name, weight in base.items():
        expected = weight + 0.5 * (one[name] - weight) + 2 * (two[name] - weight)
        assert (sums[name] - expected).abs().max() < 1e-6
    assert any((sums[name] - one[name]).abs().max() > 1e-3 for name in base)


def test_adapters_that_are_kept_apart_give_a_model_each(run, adapter, tmp_path):
    other = second_adapter(adapter, tmp_path)
    call("merge", "--adapter", adapter, "--adapter", other, "--apart", "--output", tmp_path / "out", code=0)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["other", "own"]
    merge(adapter, tmp_path / "alone")
    name = "model.safetensors"
    assert (tmp_path / "out" / "own" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    twice = ("--adapter", adapter, "--adapter", adapter, "--apart")
    assert "two adapters are called own" in call("merge", *twice, "--output", tmp_path / "x", code=2)


def test_adapters_that_do_not_belong_together_are_refused(run, adapter, tmp_path):
    other = second_adapter(adapter, tmp_path)
    (other / "chat_template.jinja").write_text(TEMPLATE + " ")
    both = ("--adapter", adapter, "--adapter", other, "--output", tmp_path / "out")
    assert "its chat_template.jinja is not that of" in call("merge", *both, code=1)
    change_config(other, base_model_name_or_path=str(shutil.copytree(run / "base", tmp_path / "base")))
    assert "merge them --apart" in call("merge", *both, code=1)
    assert "but 1 times --weight" in call("merge", *both, "--weight", "1", code=2)
    assert not (tmp_path / "out").exists()


def pickled(adapter, change=lambda weights: weights):
    import torch

    torch.save(change(load_weights(adapter, WEIGHTS)), adapter / "adapter_model.bin")
    (adapter / WEIGHTS).unlink()
    return adapter


def test_a_pickled_adapter_gives_the_same_model(merged, adapter, tmp_path):
    merge(pickled(adapter), tmp_path / "merged")
    name = "model.safetensors"
    assert (tmp_path / "merged" / name).read_bytes() == (merged / name).read_bytes()
    ledger = json.loads((tmp_path / "merged" / "ledger.json").read_text())
    assert any(facts["path"].endswith("adapter_model.bin") for facts in ledger["inputs"])


def test_a_pickle_that_would_run_code_is_refused(adapter, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("exploded").touch, ())

    message = refused(pickled(adapter, lambda weights: {**weights, "bomb": Bomb()}), tmp_path / "merged")
    assert "it holds more than weights" in message
    assert not (tmp_path / "exploded").exists()


def test_a_pickle_that_was_cut_off_is_refused(adapter, tmp_path):
    file = pickled(adapter) / "adapter_model.bin"
    file.write_bytes(file.read_bytes()[:-100])
    assert "adapter_model.bin: damaged" in refused(adapter, tmp_path / "merged")


def test_an_adapter_that_lacks_a_tensor_is_refused(adapter, tmp_path):
    def drop(weights):
        return {name: weight for name, weight in weights.items() if "layers.1.mlp.up_proj.lora_B" not in name}

    change_weights(adapter, drop)
    message = refused(adapter, tmp_path / "merged")
    assert "lacks" in message
    assert "layers.1.mlp.up_proj.lora_B" in message


def test_an_adapter_of_another_model_is_refused(adapter, tmp_path):
    change_weights(adapter, lambda weights: {name.replace("layers.1.", "layers.7."): w for name, w in weights.items()})
    assert "does not fit the base model" in refused(adapter, tmp_path / "merged")


def test_an_adapter_of_another_width_is_refused(adapter, tmp_path):
    change_weights(adapter, lambda weights: {name: w.repeat(2, 2) for name, w in weights.items()})
    assert "does not fit the base model" in refused(adapter, tmp_path / "merged")


@pytest.mark.parametrize("part", ["adapter", "base"])
def test_weights_that_were_cut_off_are_named(run, adapter, tmp_path, part):
    base = shutil.copytree(run / "base", tmp_path / "base")
    file = adapter / WEIGHTS if part == "adapter" else base / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    message = refused(adapter, tmp_path / "merged", "--base-model", base)
    assert f"{file}: damaged or cut off" in message


def test_a_base_that_lacks_a_tensor_is_not_filled_with_random_numbers(run, adapter, tmp_path):
    from safetensors.torch import load_file, save_file

    base = shutil.copytree(run / "base", tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    assert "1 tensors are missing" in refused(adapter, tmp_path / "merged", "--base-model", base)


def test_a_folder_that_is_no_adapter_is_refused(run, tmp_path):
    message = refused(run / "base", tmp_path / "merged", code=2)
    assert "not an adapter folder, it has no adapter_config.json" in message
    assert "does not exist" in refused(tmp_path / "nowhere", tmp_path / "merged", code=2)


def test_an_interrupted_training_is_named(adapter, tmp_path):
    (adapter / WEIGHTS).unlink()
    assert "was the training interrupted?" in refused(adapter, tmp_path / "merged")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "PROMPT_TUNING"}, "only LORA adapters"),
        ({"base_model_name_or_path": None}, "names no base model"),
        ({"base_model_name_or_path": "/gone/base"}, "say where it is with --base-model"),
    ],
)
def test_an_adapter_that_can_not_be_merged_says_why(adapter, tmp_path, changes, message):
    change_config(adapter, **changes)
    assert message in refused(adapter, tmp_path / "merged")


def test_the_base_is_found_beside_the_adapter_or_from_the_current_folder(run, tmp_path, monkeypatch):
    (tmp_path / "base").mkdir()  # what "../base" means in the current folder, and not for the adapter
    (tmp_path / "here" / "elsewhere").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    for name, folder in (("../base", run / "base"), ("base", run / "base"), (str(run / "base"), run / "base"),
                         ("elsewhere", tmp_path / "here" / "elsewhere")):  # fmt: skip
        found = adapters.find_base(None, run / "adapter", {"base_model_name_or_path": name})
        assert found.resolve() == folder.resolve()


def test_a_base_that_was_named_wrongly_is_a_usage_error(adapter, tmp_path):
    assert "--base-model" in refused(adapter, tmp_path / "merged", "--base-model", tmp_path / "none", code=2)


def test_a_hub_that_can_not_be_reached_is_one_line(adapter, tmp_path):
    change_config(adapter, base_model_name_or_path="nobody/nothing")
    done = run_script("merge_export.py", "merge", "--adapter", adapter, "--output", "merged", cwd=tmp_path, check=1)
    assert "model nobody/nothing: no such folder, and the hub can not give it" in done.err
    assert len(done.err.splitlines()) == 1


def test_a_quantised_base_is_refused(run, adapter, tmp_path):
    base = shutil.copytree(run / "base", tmp_path / "base")
    change_config(base, "config.json", quantization_config={"quant_method": "bitsandbytes"})
    message = refused(adapter, tmp_path / "merged", "--base-model", base, "--dtype", "float32")
    assert "quantised" in message


def test_a_tokenizer_that_the_model_does_not_know_is_refused(adapter, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(adapter)
    tokenizer.add_tokens([f"<new {number}>" for number in range(9)])
    tokenizer.save_pretrained(adapter)
    assert "the model knows" in refused(adapter, tmp_path / "merged")


def test_a_chat_template_that_does_not_render_is_refused(adapter, tmp_path):
    (adapter / "chat_template.jinja").write_text("{{ raise_exception('no such role') }}")
    assert "does not render: no such role" in refused(adapter, tmp_path / "merged")


def test_the_disk_is_checked_before_any_work(run, adapter, tmp_path):
    base = shutil.copytree(run / "base", tmp_path / "base")
    header = json.dumps({"w": {"dtype": "F32", "shape": [10**15], "data_offsets": [0, 8]}}).encode()
    (base / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    assert "are free" in refused(adapter, tmp_path / "merged", "--base-model", base)


def test_a_disk_that_fills_up_leaves_nothing(adapter, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # less than the weights need
    try:
        assert "can not be written" in refused(adapter, tmp_path / "merged")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_while_weights_are_pickled_leaves_nothing(merged, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        said = call("export", "--model", merged, "--format", "pytorch", "--output", tmp_path / "bin", code=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "pytorch_model.bin can not be written, is the disk full?" in said
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_folders_that_are_read_are_never_written(run, adapter):
    for folder in (adapter, run / "base"):
        before = contents(folder)
        assert "choose another one" in merge(adapter, folder, code=2)
        assert contents(folder) == before


def test_a_second_run_on_the_same_output_fails_at_once(adapter, tmp_path):
    with schema.lock(tmp_path / "merged"):
        assert "another run" in merge(adapter, tmp_path / "merged", code=4)


def test_old_shards_do_not_survive_a_new_merge_and_foreign_files_do(adapter, tmp_path):
    target = tmp_path / "merged"
    merge(adapter, target, "--max-shard-size", "100KB")
    assert len(list(target.glob("model-*-of-*.safetensors"))) > 1
    call("verify", target, code=0)
    (target / "notes.txt").write_text("mine")
    merge(adapter, target)
    assert [path.name for path in target.glob("*.safetensors*")] == ["model.safetensors"]
    assert (target / "notes.txt").read_text() == "mine"
    call("verify", target, code=0)


def test_a_size_that_is_none_is_refused(adapter, tmp_path):
    assert "is not a size" in refused(adapter, tmp_path / "merged", "--max-shard-size", "many", code=2)


def when(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("moment", ["", "model.safetensors", "manifest.json"], ids=["start", "weights", "end"])
def test_a_killed_merge_leaves_the_old_model_whole(run, merged, tmp_path, moment):
    target = tmp_path / "merged"
    merge(run / "adapter", target, "--dtype", "float16")
    before = contents(target)
    command = [sys.executable, ROOT / "merge_export.py", "merge", "--adapter", run / "adapter", "--output", target]
    with subprocess.Popen(
        command, cwd=tmp_path, env=CLEAN | {"HOME": str(tmp_path)}, stderr=subprocess.DEVNULL
    ) as process:
        when(lambda: any((part / moment).exists() for part in tmp_path.glob(".merged.*.part")), process)
        process.send_signal(signal.SIGKILL)
    assert contents(target) == before
    merge(run / "adapter", target)
    assert {name: data for name, data in contents(target).items() if name != "ledger.json"} == {
        name: data for name, data in contents(merged).items() if name != "ledger.json"
    }
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


def test_verify_says_one_line_for_each_sound_model(merged, copy):
    said = call("verify", merged, copy, code=0).splitlines()
    assert len(said) == 2
    assert all("6 files as they were written, it loads, its chat template renders" in line for line in said)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "model.safetensors has"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x7f"), "model.safetensors has changed"),
        (lambda path: path.unlink(), "model.safetensors is missing"),
        (lambda path: path.with_name("model-00001-of-00002.safetensors").touch(), "is not in the manifest"),
        (lambda path: path.with_name("manifest.json").unlink(), "no manifest.json there"),
        (lambda path: path.with_name("manifest.json").write_text("{"), "manifest.json: damaged"),
        (lambda path: path.with_name("manifest.json").write_text('{"files": {}}'), "it lists no files"),
        (lambda path: path.with_name("manifest.json").write_text('{"files": {"../x": 1}}'), "outside of its folder"),
    ],
    ids=["cut", "changed", "missing", "stray", "no manifest", "torn manifest", "empty manifest", "strange manifest"],
)
def test_verify_and_export_name_what_is_wrong_with_a_model(copy, tmp_path, damage, message):
    damage(copy / "model.safetensors")
    said = call("verify", copy, code=1)
    assert message in said
    assert len(said.splitlines()) == 1
    assert message in call("export", "--model", copy, "--output", tmp_path / "out", code=1)
    assert not (tmp_path / "out").exists()


def test_verify_loads_what_it_checks(copy):
    """A file that is as the manifest says may still be no model."""
    (copy / "chat_template.jinja").write_text("{{ nothing.at.all }}")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"]["chat_template.jinja"] = folders.digest(copy / "chat_template.jinja")
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert "its chat template does not render" in call("verify", copy, code=1)


def test_an_export_is_an_equal_copy(merged, tmp_path):
    call("export", "--model", merged, "--output", tmp_path / "out", "--format", "safetensors", code=0)
    copied, original = contents(tmp_path / "out"), contents(merged)
    assert copied.pop("ledger.json") != original.pop("ledger.json")
    assert copied == original
    assert schema.audit(tmp_path / "out" / "ledger.json") == []


@pytest.mark.parametrize("shard", ["5GB", "300KB"])
def test_pickled_weights_are_the_same_numbers_and_load_without_running_code(adapter, tmp_path, shard):
    import torch
    from transformers import AutoModelForCausalLM

    merged, target = tmp_path / "merged", tmp_path / "bin"
    merge(adapter, merged, "--dtype", "float32", "--max-shard-size", shard)
    said = call("export", "--model", merged, "--format", "pytorch", "--output", target, code=0)
    assert "safetensors is preferred: a .bin file is a pickle, load it with weights_only=True" in said
    names = sorted(path.name for path in target.glob("*.bin"))
    files = sorted(path.name for path in merged.glob("*.safetensors"))
    assert len(names) == len(files)
    assert (names == ["pytorch_model.bin"]) == (shard == "5GB")
    assert not [*target.glob("*.safetensors*")]
    expected = {key: value for name in files for key, value in load_weights(merged, name).items()}
    found = {key: value for name in names for key, value in torch.load(target / name, weights_only=True).items()}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in found)
    ids = torch.arange(3, 40).unsqueeze(0)
    one, two = (AutoModelForCausalLM.from_pretrained(folder).eval()(ids).logits for folder in (merged, target))
    assert torch.equal(one, two)
    assert "it loads, its chat template renders" in call("verify", target, code=0)
    again = tmp_path / "again"
    call("export", "--model", merged, "--format", "pytorch", "--output", again, code=0)
    assert [(again / name).read_bytes() for name in names] == [(target / name).read_bytes() for name in names]


def test_a_pickle_that_would_run_code_does_not_pass_verify(merged, tmp_path):
    import torch

    target = tmp_path / "bin"
    call("export", "--model", merged, "--format", "pytorch", "--output", target, code=0)

    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("exploded").touch, ())

    torch.save({"bomb": Bomb()}, target / "pytorch_model.bin")
    assert "pytorch_model.bin has" in call("verify", target, code=1)
    folders.write_manifest(target, {"kind": "pytorch"})
    assert len(call("verify", target, code=1).splitlines()) == 1
    assert not (tmp_path / "exploded").exists()


def test_a_format_that_nobody_needs_says_why_and_what_to_take(merged, tmp_path):
    message = call("export", "--model", merged, "--format", "onnx", "--output", tmp_path / "onnx", code=2)
    assert "Take --format gguf, or run optimum-cli on the merged model" in " ".join(message.split())
    assert not (tmp_path / "onnx").exists()


def test_names_of_older_scripts_still_work(adapter, tmp_path):
    call("merge-adapter", "--adapter", adapter, "--output", tmp_path / "merged", "--dtype", "float32", code=0)
    assert (tmp_path / "merged" / "manifest.json").is_file()
    assert "--hub-id" in call_help("export")


def test_unknown_formats_and_overlaps_are_refused(merged, tmp_path):
    message = call("export", "--model", merged, "--output", tmp_path / "out", "--format", "tflite", code=2)
    assert "'tflite' is not one of" in message
    assert "choose another one" in call("export", "--model", merged, "--output", merged, code=2)


def test_a_missing_package_is_named_with_its_extra(run, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['peft'] = None\n")
    arguments = ("merge", "--adapter", run / "adapter", "--output", "merged")
    done = run_script("merge_export.py", *arguments, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, check=2)
    assert "merge_export needs the package peft: pip install 'linemill[train]'" in done.err


@pytest.mark.parametrize("name", ["merge", "verify", "export"])
def test_help_names_every_option_with_a_sentence(name):
    page = CliRunner().invoke(merge_export.cli, [name, "--help"]).stdout
    for option in merge_export.cli.commands[name].params:
        if option.param_type_name == "option":
            assert len(option.help.split()) > 2
            assert all(flag in page for flag in option.opts)


def test_quiet_is_quiet(merged, tmp_path):
    arguments = ("export", "--model", merged, "--output", "out", "-q")
    assert run_script("merge_export.py", *arguments, cwd=tmp_path, check=0).err == ""


def test_the_difference_of_logits_is_infinite_when_one_is_no_number():
    import torch

    row, broken = torch.zeros(2, 3), torch.full((2, 3), float("nan"))
    assert models.difference([row, row], [row + 0.5, row]) == 0.5
    assert models.difference([row, row], [row, broken]) == float("inf")
    assert models.difference([row, row], [broken, row]) == float("inf")
    assert models.agreement([torch.eye(3)], [torch.eye(3).flip(0)]) == (1, 3)
