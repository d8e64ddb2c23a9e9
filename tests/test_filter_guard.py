"""What no score outweighs: keys, licences, personal data, and rows that do not fit the model."""

from __future__ import annotations

import json

import pytest
from conftest import read_rows, record, run_script, write_rows

import filter_quality
from stages.filter_quality import safety
from stages.filter_quality.guard import Guard
from stages.filter_quality.rules import RuleBook

BOOK = RuleBook("strict")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def filter_rows(folder, rows, *options, check=0):
    write_rows(folder / "in.jsonl", rows)
    done = run_script("filter_quality.py", "--input", "in.jsonl", "--output", "out.jsonl", *options, cwd=folder)
    assert done.returncode == check, done.err
    if check:
        return done, [], []
    return done, read_rows(folder / "out.jsonl"), read_rows(folder / "out.rejects.jsonl")


def with_text(number, text):
    row = record(number)
    return {**row, "code": row["code"] + f"\n# {text}\n"}


def glued(*parts):
    """A key that stands nowhere in one piece, so that no scanner of repositories takes it for one."""
    return "".join(parts)


KEYS = {
    "an Anthropic key": glued("sk-", "ant-api03-", "aB3dE5gH7jK9mN1pQ3sT5vX7"),
    "an OpenAI key": glued("sk-", "proj-", "aB3dE5gH7jK9mN1pQ3sT5vX7zA9cE1gI3"),
    "an AWS key": glued("AKIA", "IOSFODNN7AKTSYXW"),
    "a GitHub token": glued("ghp_", "aB3dE5gH7jK9mN1pQ3sT5vX7zA9cE1gI3kM5"),
    "a Hugging Face token": glued("hf_", "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH"),
    "a Google key": glued("AIza", "SyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q"),
    "a private key": glued("-----BEGIN RSA ", "PRIVATE KEY-----"),
    "a password or key": 'password = "k9$Lq2!vX7zR4mWp"',
}


@pytest.mark.parametrize("what", KEYS)
def test_a_key_is_a_reject_that_names_it_and_does_not_repeat_it(what):
    fault = filter_quality.gate(with_text(1, KEYS[what]), BOOK, 0.0)
    assert (fault.code, what in fault.message) == ("secret", True)
    assert KEYS[what] not in fault.message
    asked = {**record(1), "description": f"Draw a red circle with {KEYS[what]} in it."}
    assert filter_quality.gate(asked, BOOK, 0.0).code == "secret"


@pytest.mark.parametrize(
    "text",
    [
        'api_key = "YOUR_API_KEY_GOES_HERE"',
        'api_key = os.environ["OPENAI_API_KEY"]',
        'password = "correct horse battery"',
        'secret = "aaaaaaaaaaaaaaaaaaaaaa"',
        "sk-" + "x",
        "the task-based-learning-with-many-hyphens-in-one-word-is-no-key",
    ],
)
def test_what_only_looks_like_a_key_is_none(text):
    assert not list(safety.check_secrets(with_text(1, text)))


def test_keys_are_kept_on_request_and_tagged_when_only_tagging(tmp_path):
    rows = [record(0), with_text(1, KEYS["an AWS key"])]
    _, kept, rejected = filter_rows(tmp_path, rows)
    assert [row["metadata"]["error"]["code"] for row in rejected] == ["secret"]
    assert len(filter_rows(tmp_path, rows, "--allow-secrets")[1]) == 2
    _, kept, rejected = filter_rows(tmp_path, rows, "--tag-only")
    assert [len(row["metadata"]["quality"]["issues"]) for row in kept] == [0, 1]
    assert rejected == []


def test_only_the_named_licences_pass(tmp_path):
    licences = ["MIT", "mit", "GPL-3.0", None]
    rows = [record(number, metadata={"licence": licence}) for number, licence in enumerate(licences)]
    _, kept, rejected = filter_rows(tmp_path, rows, "--allow-license", "MIT")
    assert [row["metadata"]["licence"] for row in kept] == ["MIT", "mit"]
    assert {row["metadata"]["error"]["code"] for row in rejected} == {"licence_not_allowed"}
    assert len(filter_rows(tmp_path, rows, "--allow-licence", "MIT", "--allow-licence", "unknown")[1]) == 3


PERSONAL = "mail jo.doe+manim@mail.sample.org or call +49 30 1234567 or (555) 123-4567"


def test_personal_data_are_kept_redacted_or_rejected(tmp_path):
    rows = [record(0), with_text(1, PERSONAL)]
    assert filter_rows(tmp_path, rows)[1][1]["code"] == rows[1]["code"]
    _, kept, _ = filter_rows(tmp_path, rows, "--personal-data", "redact")
    assert "mail [EMAIL] or call [PHONE] or [PHONE]" in kept[1]["code"]
    assert ["redacted" in row["metadata"] for row in kept] == [False, True]
    _, kept, rejected = filter_rows(tmp_path, rows, "--personal-data", "reject")
    message = rejected[0]["metadata"]["error"]["message"]
    assert (len(kept), message) == (1, "it holds 1 mail addresses and 2 telephone numbers")


@pytest.mark.parametrize(
    "text",
    [
        "x = 3 + 12 - 400 * 5000",
        "self.play(circle.animate.shift(1.5 * UP + 2.25 * LEFT))",
        "a @ b.T @ c",
        "@property",
        "axes = Axes(x_range=[-10, 10, 1], y_range=(-200, 4000, 250))",
        "mail me@example.com",
        "1920x1080 at 60 fps, version 0.19.0, 2024-01-15",
    ],
)
def test_numbers_and_programs_are_no_personal_data(text):
    assert not list(safety.check_persons(with_text(1, text)))


def test_rules_of_ones_own_can_soften_a_hard_check(tmp_path):
    (tmp_path / "rules.yaml").write_text("checks: {secret: medium}\n")
    _, kept, _ = filter_rows(tmp_path, [with_text(1, KEYS["an AWS key"])], "--quality-config", "rules.yaml")
    assert kept[0]["metadata"]["quality"]["score"] == 0.9


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A tokenizer whose tokens are easily counted: every character is one, and so is every sign of the template."""
    tokenizers = pytest.importorskip("tokenizers")
    pytest.importorskip("jinja2")
    special = ["<s>", "</s>", "<unk>", "<|user|>", "<|assistant|>", "<|system|>"]
    letters = [chr(number) for number in range(32, 127)] + ["\n"]
    words = {name: number for number, name in enumerate([*special, *letters])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    made.add_special_tokens(special)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    folder = tmp_path_factory.mktemp("tokenizer")
    made.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": TEMPLATE}))
    return folder


def text_row(question, answer, kind="qa", **metadata):
    return {"description": question, "code": answer, "source": "test", "metadata": {"kind": kind, **metadata}}


def test_tokens_are_counted_with_the_frame_of_the_chat_template(tmp_path, tokenizer):
    row = text_row("What is a torus?", "A doughnut. It has one hole.")
    done, (kept,), _ = filter_rows(tmp_path, [row], "--max-tokens", 60, "--tokenizer", tokenizer)
    # <s><|user|>...\n<|assistant|>, then the answer, </s> and the line end.
    assert kept["metadata"]["quality"]["tokens"] == {"prompt": 2 + 16 + 2, "answer": 28 + 2}
    assert "tokens" in done.err and "p99" in done.err


def test_the_count_is_that_of_transformers(tokenizer):
    from stages.filter_quality.tokens import Budget

    transformers = pytest.importorskip("transformers")
    reference = transformers.AutoTokenizer.from_pretrained(str(tokenizer))
    row = text_row("What is\n a torus?", "A doughnut, é.", system="Be brief.")
    chat = [("system", "Be brief."), ("user", row["description"]), ("assistant", row["code"])]
    messages = [{"role": role, "content": text} for role, text in chat]
    ids = reference.apply_chat_template(messages, return_dict=True)["input_ids"]
    assert Budget(100, str(tokenizer)).size(row).all == len(ids)


def test_an_answer_is_never_cut_and_a_program_is_kept_whole_or_rejected_with_both_numbers(tmp_path, tokenizer):
    long_answer = text_row("Why?", "Because. " * 20)
    program = record(0)
    _, kept, rejected = filter_rows(tmp_path, [long_answer, program], "--max-tokens", 120, "--tokenizer", tokenizer)
    assert kept == []
    assert [row["metadata"]["error"]["code"] for row in rejected] == ["too_long", "too_long"]
    assert "190 tokens, 182 of them the answer, where 120 are allowed" in rejected[0]["metadata"]["error"]["message"]
    assert rejected[1]["code"] == program["code"]


def test_a_text_that_is_asked_about_is_cut_marked_and_counted_again(tmp_path, tokenizer):
    question = "Explain this like I'm 5:\n" + "The attention head looks at all words. " * 30
    row = text_row(question, "**Analogy:** A torch in a dark room.", kind="persona")
    _, (kept,), _ = filter_rows(tmp_path, [row], "--max-tokens", 200, "--tokenizer", tokenizer)
    assert kept["code"] == row["code"]
    assert kept["description"].endswith("\n...[Truncated]") and kept["description"].startswith("Explain this")
    tokens, trimmed = kept["metadata"]["quality"]["tokens"], kept["metadata"]["trimmed"]
    assert 150 < trimmed["tokens"] == sum(tokens.values()) <= 200 < trimmed["tokens_before"]
    assert kept["metadata"]["original_description"] == question


def test_without_a_tokenizer_bytes_are_the_bound(tmp_path):
    row = {
        "description": "Explain this:\n" + "ä" * 100,
        "code": "An answer of some words that is kept whole.",
        "source": "s",
    }
    row["metadata"] = {"kind": "persona"}
    _, (kept,), _ = filter_rows(tmp_path, [row], "--max-tokens", 200, "--tokenizer", "bytes")
    frame = "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n"
    assert kept["code"] == row["code"]
    assert kept["description"].endswith("\n...[Truncated]")
    counted = len((frame + kept["description"] + kept["code"]).encode())
    assert counted == kept["metadata"]["quality"]["tokens"]["prompt"] + kept["metadata"]["quality"]["tokens"]["answer"]
    assert counted <= 200


def test_tag_only_shows_what_a_limit_would_cost_and_drops_nothing(tmp_path, tokenizer):
    rows = [text_row("Why?", "Because. " * count) for count in (1, 2, 30)]
    done, kept, _ = filter_rows(tmp_path, rows, "--max-tokens", 50, "--tokenizer", tokenizer, "--tag-only")
    assert [sum(row["metadata"]["quality"]["tokens"].values()) for row in kept] == [19, 28, 280]
    assert "too_long" in json.dumps(kept[2]["metadata"]["quality"]["issues"])
    assert done.err.splitlines()[-1].split() == ["row", "28", "280", "280", "280", "280"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-tokens", "5"], "--tokenizer says whose tokens; give both"),
        (["--tokenizer", "here"], "--max-tokens says how many are allowed; give both"),
        (["--max-tokens", "5", "--tokenizer", "."], "--tokenizer .: there is no tokenizer.json in this folder"),
        (["--max-tokens", "5", "--tokenizer", "no/such"], "--tokenizer no/such: no such folder, and the hub does not"),
    ],
)
def test_a_wrong_tokenizer_is_one_line_before_any_row(tmp_path, options, message):
    pytest.importorskip("tokenizers")
    done, _, _ = filter_rows(tmp_path, [record(0)], *options, check=2)
    assert message in done.err
    assert not (tmp_path / "out.jsonl").exists()


def test_a_tokenizer_without_a_chat_template_is_refused(tmp_path, tokenizer):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "tokenizer.json").write_bytes((tokenizer / "tokenizer.json").read_bytes())
    done, _, _ = filter_rows(tmp_path, [record(0)], "--max-tokens", 5, "--tokenizer", "bare", check=2)
    assert "it has no chat template" in done.err


def test_a_guard_costs_nothing_that_is_not_asked_for():
    row = {**record(0), "metadata": {"licence": "GPL-3.0"}}
    assert Guard().prepared(row) is row
    assert not list(Guard().findings(row))
