"""Stage 2: questions and answers, voices, verdicts; several rows in a call; recorded runs; prompt files."""

from __future__ import annotations

import base64
import json
import re

import pytest
from conftest import ROOT, read_rows, record, run_script, write_rows
from fake_llm import description_for, error, good, says

SCRIPT = "prepare_data_with_llm.py"
KEY = {"OPENAI_API_KEY": "sk-this-is-a-secret", "ANTHROPIC_API_KEY": "sk-this-is-a-secret"}
PROMPTS = ROOT / "stages/prepare_data_with_llm/prompts"
PROSE = (
    "A queue is a collection from which the oldest element leaves first. Every new element joins at the end. "
    "Gradient descent is the method of walking downhill in small steps. The steps shrink near the valley floor. "
)


def document(number, text=PROSE, **metadata):
    about = {"kind": "document", "needs_description": True, "origin": {"path": "book.pdf", "page": number}}
    code = f"Chapter {number} tells a story of its own. {text}"
    return {"description": "", "code": code, "source": "books", "metadata": about | metadata}


def section(number, title, text=PROSE, paper="1234.5678"):
    return document(number, text, section=title, paper={"id": paper, "title": "On Queues"})


def needy(number, **metadata):
    return record(number, description="", metadata={"needs_description": True, **metadata})


def run(command, server, *options, cwd, source="in.jsonl", output="out/rows.jsonl", llm="openai", **others):
    url = server.url("openai" if llm == "openai" else "anthropic")
    arguments = ("--input", source, "--output", output, "--llm", llm, "--base-url", url, *options)
    return run_script(SCRIPT, command, *arguments, cwd=cwd, env=KEY, **others)


def marker(call):
    """What is asked about: the number of the chapter."""
    return int(re.search(r"Chapter (\d+) tells", call.user)[1])


def pairs(call, *found):
    kinds = ("factual", "conceptual", "application")
    made = found or [(f"What is {kind} in chapter {marker(call)}?", f"It is {kind}.") for kind in kinds]
    rows = [{"type": kinds[n % 3], "question": question, "answer": answer} for n, (question, answer) in enumerate(made)]
    return says(call, json.dumps({"pairs": rows}))


def voices(call, **changes):
    number = marker(call)
    answer = {
        "eli5": {"analogy": f"A slide {number}.", "explanation": "You go down."},
        "intuitive": {"mechanism": f"Steps {number}.", "explanation": "Each step goes down."},
        "executive": {"verdict": f"Buy {number}.", "summary": "It costs little."},
    }
    return says(call, json.dumps(answer | changes))


def reasons(path):
    return {row["metadata"]["error"]["code"]: row["metadata"]["error"]["message"] for row in read_rows(path)}


def counts(path):
    return json.loads(path.read_bytes())["counts"]


# --- questions and answers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("llm", ["openai", "claude"])
def test_a_document_gives_several_questions_that_know_where_they_are_from(tmp_path, server, llm):
    server.plan = pairs
    rows = [
        document(1, section="Queues", licence="MIT", chunk=4),
        document(2),
        document(3, "Too short."),
        record(4),
        b"broken",
        {"text": f"Chapter 5 tells more. {PROSE}"},
    ]
    write_rows(tmp_path / "in.jsonl", rows)
    run("generate-qa", server, "--num-pairs", "3", cwd=tmp_path, llm=llm, check=0)
    made = read_rows(tmp_path / "out/rows.jsonl")
    assert [row["description"] for row in made[:3]] == [
        "What is factual in chapter 1?",
        "What is conceptual in chapter 1?",
        "What is application in chapter 1?",
    ]
    assert made[0]["code"] == "It is factual."
    metadata = made[0]["metadata"]
    kept = {"kind": "qa", "section": "Queues", "licence": "MIT", "chunk": 4, "origin": rows[0]["metadata"]["origin"]}
    assert {name: metadata[name] for name in kept} == kept
    assert metadata["question_type"] == "factual"
    assert "needs_description" not in metadata
    assert metadata["generated_by"] == ("openai/gpt-4o-mini" if llm == "openai" else "anthropic/claude-haiku-5-5")
    assert len(metadata["lineage"][-1]["request"]) == 64
    assert len({row["metadata"]["id"] for row in made}) == 9
    assert len({row["metadata"]["parent"] for row in made}) == 3
    groups = [row["metadata"]["group"] for row in made]
    assert groups[0] == groups[2] == "books: book.pdf: Queues"
    assert groups[3] == groups[5] != groups[6]
    assert set(reasons(tmp_path / "out/rows.rejects.jsonl")) == {"short_chunk", "not_a_document", "not_json"}
    expected = {"in": 6, "kept": 3, "rejected": 3, "merged": 0, "augmented": 0, "made": 9}
    assert counts(tmp_path / "out/rows.ledger.json") == expected
    run_script("schema", "audit", tmp_path / "out", cwd=tmp_path, check=0)
    if llm == "openai":
        body = server.log[0].body
        assert (body["max_completion_tokens"] if "max_completion_tokens" in body else body["max_tokens"]) == 1024
        assert body["temperature"] == 0.3


def test_an_audit_notices_a_made_row_that_is_gone(tmp_path, server):
    server.plan = pairs
    write_rows(tmp_path / "in.jsonl", [document(1)])
    run("generate-qa", server, cwd=tmp_path, check=0)
    ledger = tmp_path / "out/rows.ledger.json"
    told = json.loads(ledger.read_bytes())
    told["counts"]["made"] = 4
    ledger.write_text(json.dumps(told))
    assert "the outputs hold 3 rows, not 4" in run_script("schema", "audit", tmp_path / "out", cwd=tmp_path).err


def test_pairs_that_can_not_be_used_are_dropped_and_an_answer_without_any_is_asked_for_once_more(tmp_path, server):
    def plan(call):
        if marker(call) == 1:  # one half pair, one twice, one too many
            half = {"type": "factual", "question": "What is left?", "answer": "  "}
            rows = [{"type": "factual", "question": f"Question {n}?", "answer": "Yes."} for n in (1, 1, 2, 3)]
            return says(call, json.dumps({"pairs": [half, {"question": "No answer?"}, *rows]}))
        return pairs(call) if marker(call) == 2 and call.attempt else says(call, '{"pairs": []}')

    server.plan = lambda call: pairs(call) if "could not be used" in call.user and marker(call) == 2 else plan(call)
    write_rows(tmp_path / "in.jsonl", [document(number) for number in (1, 2, 3)])
    done = run("generate-qa", server, "--num-pairs", "2", cwd=tmp_path, check=0)
    made = read_rows(tmp_path / "out/rows.jsonl")
    assert [row["description"] for row in made[:2]] == ["Question 1?", "Question 2?"]
    assert len(made) == 4
    assert "no pair" in reasons(tmp_path / "out/rows.rejects.jsonl")["llm_bad_answer"]
    assert "3 in, 2 kept, 1 rejected, 4 rows made" in done.err
    asked = len(server.log)
    assert asked == 1 + 2 + 2
    run("generate-qa", server, "--num-pairs", "2", "--limit", "2", cwd=tmp_path, check=0)
    assert len(server.log) == asked, "answers to other commands are in the same cache, and are not paid for again"


def test_without_a_model_only_definitions_and_headings_are_asked_about(tmp_path):
    dull = "Nothing here tells what anything means, and so on for many lines without end. " * 4
    rows = [document(1, PROSE * 2), document(2, PROSE, section="2.1 How Queues Work"), document(3, dull)]
    write_rows(tmp_path / "in.jsonl", rows)
    done = run_script(SCRIPT, "generate-qa", "--input", "in.jsonl", "--output", "qa.jsonl", cwd=tmp_path, check=0)
    assert "there is no key, so nobody is asked" in done.err
    made = read_rows(tmp_path / "qa.jsonl")
    first = [(row["description"], row["code"]) for row in made if row["metadata"]["origin"]["page"] == 1]
    assert first == [
        ("What is a queue?", "A queue is a collection from which the oldest element leaves first."),
        ("What is gradient descent?", "Gradient descent is the method of walking downhill in small steps."),
    ]
    assert 'What does the document say about "How Queues Work"?' in [row["description"] for row in made]
    assert all(row["code"] in rows[row["metadata"]["origin"]["page"] - 1]["code"] for row in made), "word for word"
    assert {row["metadata"]["generated_by"] for row in made} == {"offline-qa/1"}
    assert list(reasons(tmp_path / "qa.rejects.jsonl")) == ["nothing_to_ask"]


# --- voices -----------------------------------------------------------------------------------------------------------


def test_each_section_is_explained_in_three_voices_by_one_call(tmp_path, server):
    server.plan = voices
    rows = [
        section(1, "1 Introduction"),
        section(2, "2 Method"),
        section(3, "**References**"),
        {**section(4, "3 End"), "code": "Chapter 4 tells nothing."},
        record(5),
    ]
    write_rows(tmp_path / "in.jsonl", rows)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mine.txt").write_text("stays")
    run("generate-personas", server, cwd=tmp_path, output="data", check=0)
    assert len(server.log) == 2
    styles = {name: read_rows(tmp_path / f"data/{name}.jsonl") for name in ("eli5", "intuitive", "executive")}
    text = rows[0]["code"].strip()
    assert {name: (made[0]["description"], made[0]["code"]) for name, made in styles.items()} == {
        "eli5": (f"Explain this like I'm 5:\n{text}", "**Analogy:** A slide 1.\n\n**Explanation:** You go down."),
        "intuitive": (
            f"Explain the intuition behind this:\n{text}",
            "**Mechanism:** Steps 1.\n\n**Explanation:** Each step goes down.",
        ),
        "executive": (
            f"Give me an executive summary:\n{text}",
            "**Verdict:** Buy 1.\n\n**Summary:** It costs little.",
        ),
    }
    groups = {tuple(row["metadata"]["group"] for row in made) for made in styles.values()}
    assert groups == {("books: 1234.5678: 1 Introduction", "books: 1234.5678: 2 Method")}, "the same in all styles"
    assert {row["metadata"]["kind"] for made in styles.values() for row in made} == {"persona"}
    assert {row["metadata"]["persona"] for row in styles["eli5"]} == {"eli5"}
    found = reasons(tmp_path / "data/rejects.jsonl")
    assert set(found) == {"references_section", "short_section", "not_a_document"}
    ledger = json.loads((tmp_path / "data/ledger.json").read_bytes())
    assert {facts["path"]: facts["rows"] for facts in ledger["outputs"]} == {
        "eli5.jsonl": 2,
        "intuitive.jsonl": 2,
        "executive.jsonl": 2,
    }
    assert ledger["counts"] == {"in": 5, "kept": 2, "rejected": 3, "merged": 0, "augmented": 0, "made": 6}
    run_script("schema", "audit", tmp_path / "data", cwd=tmp_path, check=0)
    assert (tmp_path / "data/mine.txt").read_text() == "stays"

    one = {"eli5": {"analogy": "A ball.", "explanation": "It rolls."}}
    server.plan = lambda call: says(call, json.dumps(one))
    run("generate-personas", server, "--persona", "eli5", cwd=tmp_path, output="data", check=0)
    assert not (tmp_path / "data/executive.jsonl").exists(), "a voice of an earlier set does not stay beside a new one"
    assert len(read_rows(tmp_path / "data/eli5.jsonl")) == 2


def test_a_run_that_fails_leaves_the_old_set_of_voices(tmp_path, server):
    server.plan = voices
    write_rows(tmp_path / "in.jsonl", [section(1, "A")])
    run("generate-personas", server, cwd=tmp_path, output="data", check=0)
    before = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    write_rows(tmp_path / "in.jsonl", [section(1, "A"), section(2, "B")])
    server.plan = lambda call: error(401, "who are you", "invalid_api_key")
    run("generate-personas", server, cwd=tmp_path, output="data", check=1)
    server.plan = lambda call: says(call, "{}")
    run("generate-personas", server, "--strict", cwd=tmp_path, output="data", check=1)
    assert {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []
    server.plan = voices
    run("generate-personas", server, cwd=tmp_path, output="data", check=0)
    assert {len(read_rows(tmp_path / f"data/{name}.jsonl")) for name in ("eli5", "intuitive", "executive")} == {2}


def test_forbidden_words_are_asked_away_once_and_then_reject_the_section(tmp_path, server):
    bad = {"analogy": "A neural net.", "explanation": "It is Optimizing its leverage."}

    def plan(call):
        if marker(call) == 1 and "could not be used" in call.user:
            return voices(call)
        return voices(call, eli5=bad)

    server.plan = plan
    write_rows(tmp_path / "in.jsonl", [section(1, "A"), section(2, "B")])
    run("generate-personas", server, cwd=tmp_path, output="data", check=0)
    assert [call.user.count("forbidden words: leverage, neural, optimizing") for call in server.log].count(1) == 2
    assert "optimize, optimise, leverage" in server.log[0].prompt, "the model knows them from the start"
    assert len(read_rows(tmp_path / "data/executive.jsonl")) == 1
    assert list(reasons(tmp_path / "data/rejects.jsonl")) == ["forbidden_words"]


PIRATE = """version: pirate/1
question: "Tell it like a pirate: {{section}}"
answer: "Arr! {{tale}} ({{moral}})"
schema: {type: object, properties: {tale: {type: string}, moral: {type: string}}}

## voice

A pirate.
"""


def test_a_new_voice_is_one_file(tmp_path, server):
    (tmp_path / "pirate.md").write_text(PIRATE)
    server.plan = lambda call: says(call, '{"pirate": {"tale": "The sea.", "moral": "Swim."}}')
    write_rows(tmp_path / "in.jsonl", [section(1, "A")])
    run("generate-personas", server, "--persona", "pirate.md", cwd=tmp_path, output="data", check=0)
    (made,) = read_rows(tmp_path / "data/pirate.jsonl")
    assert made["code"] == "Arr! The sea. (Swim.)"
    assert made["description"].startswith("Tell it like a pirate: Chapter 1")
    sent = server.log[0].body["response_format"]["json_schema"]["schema"]
    assert sent["required"] == ["pirate"]
    assert sent["properties"]["pirate"]["required"] == ["tale", "moral"]
    assert 'The voice "pirate":\n\nA pirate.' in server.log[0].body["messages"][0]["content"]


WRONG_VOICES = [
    ("gone.md", None, "no such file"),
    ("my voice.md", PIRATE, "small letters"),
    ("eli5", "twice", "named twice"),
    ("v.md", PIRATE.replace("{{tale}}", "{{tail}}"), "{{tale}}, {{moral}}"),
    ("v.md", PIRATE.replace("{{section}}", "{{code}}"), "{{section}}"),
    ("v.md", PIRATE.replace("moral: {type: string}", "moral: {type: array}"), "'moral' is no"),
    ("v.md", PIRATE.replace("## voice", "## words"), "'## voice'"),
    ("v.md", PIRATE.replace("version: pirate/1", "version: pirate/1\nforbiden: [x]"), "'forbiden'"),
    ("v.md", PIRATE.replace("properties: {tale: {type: string}, moral: {type: string}}", "x: 1"), "no properties"),
]


@pytest.mark.parametrize(("name", "text", "named"), WRONG_VOICES, ids=[named for *_, named in WRONG_VOICES])
def test_a_wrong_voice_is_one_line(tmp_path, server, name, text, named):
    write_rows(tmp_path / "in.jsonl", [section(1, "A")])
    options = ["--persona", name, *(["--persona", name] if text == "twice" else [])]
    if text and text != "twice":
        (tmp_path / name).write_text(text)
    done = run("generate-personas", server, *options, cwd=tmp_path, output="data", check=2)
    assert named in done.err.strip().split("\n")[-1]
    assert not server.log
    assert not (tmp_path / "data").exists()


def test_nobody_judges_without_a_model(tmp_path):
    write_rows(tmp_path / "in.jsonl", [section(1, "A")])
    done = run_script(SCRIPT, "judge", "--input", "in.jsonl", "--output", "data", cwd=tmp_path, check=2)
    assert "judge needs a language model" in done.err.strip().split("\n")[-1]
    assert not (tmp_path / "data").exists()


def test_without_a_model_each_voice_quotes_other_sentences_of_the_section_word_for_word(tmp_path):
    text = (
        "A queue is a collection from which the oldest element leaves first. It is the simplest of all waiting rooms. "
        "We optimize nothing here and only count the steps. Each element waits for those that came before it. "
        "The wait grows with the length of the line."
    )
    rows = [
        {**section(1, "1 Queues"), "code": text},
        {
            **section(2, "2 Proof"),
            "code": "One sentence that may be quoted stands here alone.\n\n" + "| a | table |\n" * 8,
        },
    ]
    write_rows(tmp_path / "in.jsonl", rows)
    told = ["--input", "in.jsonl", "--output", "data", "--llm", "offline"]
    done = run_script(SCRIPT, "generate-personas", *told, "--dry-run", cwd=tmp_path, check=0)
    assert "2 rows, 3 rows of voices out of 1 by offline-quotes/1" in done.out
    assert not (tmp_path / "data").exists()
    run_script(SCRIPT, "generate-personas", *told, cwd=tmp_path, check=0)
    made = {name: read_rows(tmp_path / f"data/{name}.jsonl") for name in ("eli5", "intuitive", "executive")}
    assert {len(rows) for rows in made.values()} == {1}
    answers = {name: row["code"] for name, (row,) in made.items()}
    assert len(set(answers.values())) == 3
    assert "optimize" not in answers["eli5"]
    for answer in answers.values():
        quoted = [part.partition("** ")[2] for part in answer.split("\n\n")]
        assert all(sentence.strip(".") in text for part in quoted for sentence in part.split(". "))
    assert {row["metadata"]["generated_by"] for (row,) in made.values()} == {"offline-quotes/1"}
    assert list(reasons(tmp_path / "data/rejects.jsonl")) == ["nothing_to_quote"]
    run_script("schema", "audit", tmp_path / "data", cwd=tmp_path, check=0)


def test_voices_need_a_folder(tmp_path, server):
    write_rows(tmp_path / "in.jsonl", [section(1, "A")])
    (tmp_path / "file").write_text("old")
    for output in ("-", "file"):
        assert "name a folder" in run("generate-personas", server, cwd=tmp_path, output=output, check=2).err
    assert (tmp_path / "file").read_text() == "old"


# --- verdicts ---------------------------------------------------------------------------------------------------------


def test_a_verdict_goes_into_the_metadata_and_every_row_is_kept(tmp_path, server):
    def plan(call):
        agrees = "circle" in call.user.split("The answer")[0]
        return says(call, json.dumps({"reason": "It shows it.", "score": 5 if agrees else 2, "agrees": agrees}))

    server.plan = plan
    rows = [record(0), record(1), needy(2), record(3, metadata={"judge": {"score": 1}})]
    write_rows(tmp_path / "in.jsonl", rows)
    run("judge", server, cwd=tmp_path, check=0)
    kept = read_rows(tmp_path / "out/rows.jsonl")
    assert [row["metadata"]["judge"] for row in kept] == [
        {"agrees": True, "score": 5, "reason": "It shows it.", "by": "openai/gpt-4o-mini"},
        {"agrees": False, "score": 2, "reason": "It shows it.", "by": "openai/gpt-4o-mini"},
        {"score": 1},
    ]
    assert [(row["description"], row["code"]) for row in kept] == [
        (row["description"], row["code"]) for row in (rows[0], rows[1], rows[3])
    ]
    assert list(reasons(tmp_path / "out/rows.rejects.jsonl")) == ["no_description"]
    run("judge", server, "--all", "--where", '.source == "test"', "--limit", "4", cwd=tmp_path, check=0)
    assert len(server.log) == 3, "two from the cache, and the one that had a verdict"


# --- pictures ---------------------------------------------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("llm", ["openai", "claude"])
def test_the_model_is_shown_the_frames_of_a_scene_and_no_other_file(tmp_path, server, llm):
    for number in range(9):
        (tmp_path / f"frames/{number}.png").parent.mkdir(exist_ok=True)
        (tmp_path / f"frames/{number}.png").write_bytes(PNG + bytes([number]))
    (tmp_path / "frames/notes.txt").write_text("secret")
    (tmp_path / "outside.png").write_bytes(PNG)
    named = [
        [f"{number}.png" for number in range(9)],
        None,
        ["../outside.png"],
        ["notes.txt"],
        ["gone.png"],
        [7],
        "0.png",
    ]
    rows = [needy(number, **({"render": {"frames": frames}} if frames else {})) for number, frames in enumerate(named)]
    rows.append(needy(9, render={"frame": "1.png"}))  # as filter_quality.py --frames writes it
    server.plan = lambda call: says(call, '{"description": "Draw it."}')
    write_rows(tmp_path / "in.jsonl", rows)
    run("generate-descriptions", server, "--with-frames", "frames", cwd=tmp_path, llm=llm, check=0)
    assert len(read_rows(tmp_path / "out/rows.jsonl")) == 4
    faults = [row["metadata"]["error"]["code"] for row in read_rows(tmp_path / "out/rows.rejects.jsonl")]
    assert faults == ["bad_frame"] * 4
    shown = {}
    for content in (call.body["messages"][-1]["content"] for call in server.log):
        *parts, text = content if isinstance(content, list) else [{"text": content}]
        data = [
            part["image_url"]["url"].partition("base64,")[2] if llm == "openai" else part["source"]["data"]
            for part in parts
        ]
        shown[re.search(r"class (Scene\d)", text["text"])[1]] = [base64.b64decode(each)[-1] for each in data]
    assert shown == {"Scene0": [0, 2, 5, 8], "Scene1": [], "Scene6": [0], "Scene9": [1]}


# --- prompts and limits -----------------------------------------------------------------------------------------------


def test_a_description_that_is_too_long_is_asked_for_once_more(tmp_path, server):
    long = json.dumps({"description": "word " * 61})

    def plan(call):
        again = "has 61 words; 60 is the most" in call.user
        return good(call) if again and "Scene1(" in call.user else says(call, long)

    server.plan = plan
    write_rows(tmp_path / "in.jsonl", [needy(1), needy(2)])
    run("generate-descriptions", server, cwd=tmp_path, check=0)
    assert len(server.log) == 4
    assert len(read_rows(tmp_path / "out/rows.jsonl")) == 1
    assert "61 words" in reasons(tmp_path / "out/rows.rejects.jsonl")["too_many_words"]


TRANSCRIPTS = [
    ("Today we draw.", "Today we draw."),
    ([{"text": "Today", "start": 0.0}, {"text": "we draw."}], "Today we draw."),
    (["Today", "we draw."], "Today we draw."),
    (17, None),
]


@pytest.mark.parametrize(("transcript", "told"), TRANSCRIPTS)
def test_what_is_said_in_the_video_is_part_of_the_question(transcript, told):
    from stages.prepare_data_with_llm.describe import surroundings

    expected = f"What is said in the video: {told}" if told else "Nothing is known about where it is from."
    assert surroundings({"transcript": transcript}) == expected


def test_our_prompts_state_what_is_wanted():
    intents = {
        "description.md": ["natural", "viewer sees", "specific", "no code", "conversational", "timing", "camera"],
        "qa.md": ["factual", "conceptual", "application", "from the passage alone"],
        "personas/eli5.md": ["kindergarten teacher", "physical", "{{forbidden}}"],
        "personas/intuitive.md": ["first principles", "mechanism", "equation", "what it does"],
        "personas/executive.md": ["venture capital", "bottom line first", "costs", "hardware", "good for"],
    }
    for name, words in intents.items():
        text = " ".join((PROMPTS / name).read_text().split())
        assert [word for word in words if word not in text] == [], name


WRONG_PROMPTS = [
    ("generate-qa", "qa.md", "{{text}}", "{{txet}}", "unknown place {{txet}}"),
    ("generate-qa", "qa.md", "{{text}}", "", "no place {{text}}"),
    ("generate-qa", "qa.md", "pairs:", "couples:", "properties pairs"),
    ("judge", "judge.md", "max_tokens: 300", "max_tokens: many", "max_tokens is 'many'"),
    ("judge", "judge.md", "max_tokens", "most_tokens", "unknown setting 'most_tokens'"),
    ("generate-descriptions", "description.md", "version: description/2", "version: [", "--prompt mine.md"),
]


@pytest.mark.parametrize(("command", "name", "old", "new", "named"), WRONG_PROMPTS, ids=[w[-1] for w in WRONG_PROMPTS])
def test_a_wrong_prompt_file_is_one_line(tmp_path, server, command, name, old, new, named):
    write_rows(tmp_path / "in.jsonl", [document(1)])
    (tmp_path / "mine.md").write_text((PROMPTS / name).read_text().replace(old, new))
    done = run(command, server, "--prompt", "mine.md", cwd=tmp_path, check=2)
    assert named in done.err.strip().split("\n")[-1]
    assert not server.log


# --- several rows in a call -------------------------------------------------------------------------------------------


def rows_in(call):
    """The rows of a call: the number of the scene by the id of the row; "" where there is one row and no id."""
    ids = re.findall(r'<task id="(\w+)">', call.user)
    scenes = [int(number) for number in re.findall(r"class Scene(\d+)\(", call.user)]
    return dict(zip(ids or [""], scenes, strict=True))


def is_alone(call):
    return "" in rows_in(call)


def bundle(call, leave_out=(), twice=False):
    rows = rows_in(call)
    if is_alone(call):
        return says(call, json.dumps({"description": f"Draw scene {rows['']}."}))
    told = [
        {"id": name, "answer": {"description": f"Draw scene {scene}."}}
        for name, scene in sorted(rows.items(), reverse=True)
        if scene not in leave_out
    ]
    return says(call, json.dumps({"answers": told + told[:1] if twice else told}))


@pytest.mark.parametrize("llm", ["openai", "claude"])
def test_several_rows_share_a_call_and_each_gets_its_own_answer(tmp_path, server, llm):
    server.plan = bundle
    write_rows(tmp_path / "in.jsonl", [needy(number) for number in range(21)])
    options = ("--batch-size", "5", "--concurrency", "3")
    run("generate-descriptions", server, *options, cwd=tmp_path, llm=llm, check=0)
    kept = read_rows(tmp_path / "out/rows.jsonl")
    assert [row["description"] for row in kept] == [f"Draw scene {number}." for number in range(21)]
    assert [row["code"] for row in kept] == [needy(number)["code"] for number in range(21)]
    assert sorted(len(rows_in(call)) for call in server.log) == [1, 5, 5, 5, 5], "the first row goes alone"
    assert server.most_in_flight <= 3
    rows = [needy(number) for number in range(21)]
    rows[7]["code"] = needy(30)["code"]
    write_rows(tmp_path / "in.jsonl", rows)
    run("generate-descriptions", server, *options, cwd=tmp_path, llm=llm, check=0)
    assert rows_in(server.log[-1]) == {"": 30}, "one changed row is one row asked, whichever rows it travelled with"
    assert len(server.log) == 6


FAULTY_BUNDLES = {
    "a row is left out": (lambda call: bundle(call, leave_out={3}), 2),
    "an id stands twice": (lambda call: bundle(call, twice=True), 2),
    "it is no JSON": (lambda call: says(call, "I can not"), 6),
    "it is cut off": (lambda call: says(call, '{"answers": [', "length"), 6),
    "it is refused": (lambda call: says(call, "", "content_filter", "no"), 6),
    "it is too long": (lambda call: error(400, "too long"), 6),
}


@pytest.mark.parametrize("name", FAULTY_BUNDLES)
def test_rows_without_a_part_in_the_answer_are_asked_alone(tmp_path, server, name):
    plan, asked_alone = FAULTY_BUNDLES[name]
    server.plan = lambda call: bundle(call) if is_alone(call) else plan(call)
    write_rows(tmp_path / "in.jsonl", [needy(number) for number in range(6)])
    run("generate-descriptions", server, "--batch-size", "5", "--retries", "0", cwd=tmp_path, check=0)
    kept = read_rows(tmp_path / "out/rows.jsonl")
    assert [row["description"] for row in kept] == [f"Draw scene {number}." for number in range(6)]
    assert sum(map(is_alone, server.log)) == asked_alone, "the first row goes alone in any case"


# --- recorded runs ----------------------------------------------------------------------------------------------------


def test_a_recorded_run_can_be_run_again_offline_with_the_same_bytes(tmp_path, server):
    server.plan = lambda call: good(call) if "class Scene" in call.user else pairs(call)
    rows = [needy(1), needy(2), record(3), needy(1, copied=True)]
    write_rows(tmp_path / "in.jsonl", rows)
    run("generate-descriptions", server, "--record", "tape.jsonl", cwd=tmp_path, check=0)
    tape = (tmp_path / "tape.jsonl").read_bytes()
    assert len(tape.splitlines()) == 2, "each answer once"
    assert b"sk-this-is-a-secret" not in tape
    run("generate-descriptions", server, "--record", "tape.jsonl", cwd=tmp_path, check=0)
    assert (tmp_path / "tape.jsonl").read_bytes() == tape, "from the cache or from the provider"
    asked = len(server.log)

    def replay(command, *options, **others):
        arguments = ("--llm", "replay", "--replay", "tape.jsonl", "--cache-dir", "empty", *options)
        return run_script(SCRIPT, command, "--input", "in.jsonl", "--output", "again/rows.jsonl", *arguments, **others)

    replay("generate-descriptions", cwd=tmp_path, check=0)
    assert (tmp_path / "again/rows.jsonl").read_bytes() == (tmp_path / "out/rows.jsonl").read_bytes()
    assert len(server.log) == asked
    assert not (tmp_path / "empty").exists()

    write_rows(tmp_path / "in.jsonl", [*rows, needy(9)])
    done = replay("generate-descriptions", cwd=tmp_path, check=3)
    assert "1 rows have no answer in the recorded file" in done.err
    assert "tape.jsonl holds no answer" in reasons(tmp_path / "again/rows.rejects.jsonl")["not_recorded"]
    assert len(read_rows(tmp_path / "again/rows.jsonl")) == 4
    replay("generate-descriptions", "--model", "gpt-4.1", cwd=tmp_path, check=3)
    assert len(read_rows(tmp_path / "again/rows.jsonl")) == 1


WRONG_TAPES = [
    (["--llm", "replay"], b"", "need each other"),
    (["--llm", "openai", "--replay", "tape.jsonl"], b"", "need each other"),
    (["--llm", "replay", "--replay", "gone.jsonl"], b"", "no such file"),
    (["--llm", "replay", "--replay", "tape.jsonl"], b"", "no recorded request"),
    (["--llm", "replay", "--replay", "tape.jsonl"], b"[]\n", "line 1 is no recorded request"),
    (["--llm", "replay", "--replay", "tape.jsonl", "--dry-run"], b"", "asks nobody"),
]


@pytest.mark.parametrize(("options", "tape", "named"), WRONG_TAPES, ids=range(len(WRONG_TAPES)))
def test_a_wrong_recording_is_one_line(tmp_path, options, tape, named):
    write_rows(tmp_path / "in.jsonl", [needy(1)])
    (tmp_path / "tape.jsonl").write_bytes(tape)
    arguments = ("--input", "in.jsonl", "--output", "o.jsonl", *options)
    done = run_script(SCRIPT, "generate-descriptions", *arguments, cwd=tmp_path, env=KEY, check=2)
    assert named in done.err.strip().split("\n")[-1]


def test_a_recording_that_was_edited_is_noticed(tmp_path, server):
    write_rows(tmp_path / "in.jsonl", [needy(1)])
    run("generate-descriptions", server, "--record", "tape.jsonl", cwd=tmp_path, check=0)
    edited = (tmp_path / "tape.jsonl").read_text().replace("class Scene1", "class Scene2")
    (tmp_path / "tape.jsonl").write_text(edited)
    arguments = ("--input", "in.jsonl", "--output", "o.jsonl", "--llm", "replay", "--replay", "tape.jsonl")
    done = run_script(SCRIPT, "generate-descriptions", *arguments, cwd=tmp_path, check=2)
    assert "line 1: its request does not fit its key" in done.err


# --- retry ------------------------------------------------------------------------------------------------------------


def test_a_rejects_file_is_tried_again_by_the_command_that_wrote_it(tmp_path, server):
    server.plan = lambda call: says(call, "{}") if marker(call) == 2 else pairs(call)
    write_rows(tmp_path / "in.jsonl", [document(1), document(2), document(3), record(4)])
    run("generate-qa", server, cwd=tmp_path, check=0)
    asked = len(server.log)
    server.plan = pairs
    run(
        "retry", server, "--num-pairs", "3", cwd=tmp_path, source="out/rows.rejects.jsonl", output="more.jsonl", check=0
    )
    assert {row["metadata"]["origin"]["page"] for row in read_rows(tmp_path / "more.jsonl")} == {2}
    assert len(server.log) == asked + 1
    assert list(reasons(tmp_path / "more.rejects.jsonl")) == ["not_a_document"], "what was no document is none now"


def test_retry_describes_what_was_asked_for_by_all(tmp_path, server):
    server.plan = lambda call: says(call, "{}")
    write_rows(tmp_path / "in.jsonl", [record(1)])
    run("generate-descriptions", server, "--all", cwd=tmp_path, check=0)
    server.plan = good
    run("retry", server, cwd=tmp_path, source="out/rows.rejects.jsonl", output="more.jsonl", check=0)
    (row,) = read_rows(tmp_path / "more.jsonl")
    assert row["description"] == description_for(server.log[-1])
    assert row["metadata"]["original_description"] == record(1)["description"]


WRONG_REJECTS = [
    ([record(1)], "line 1 is no line of a rejects file"),
    ([], "holds no rows"),
    ([record(1, metadata={"error": {"stage": "filter_quality", "code": "x", "message": "y"}})], "'filter_quality'"),
]


@pytest.mark.parametrize(("rows", "named"), WRONG_REJECTS, ids=[named for _, named in WRONG_REJECTS])
def test_what_is_no_rejects_file_of_this_stage_is_one_line(tmp_path, server, rows, named):
    write_rows(tmp_path / "in.jsonl", rows)
    assert named in run("retry", server, cwd=tmp_path, check=2).err.strip().split("\n")[-1]


# --- side by side, and beforehand -------------------------------------------------------------------------------------


def test_two_outputs_are_laid_side_by_side(tmp_path, server):
    write_rows(tmp_path / "in.jsonl", [needy(number) for number in range(4)])
    run("generate-descriptions", server, cwd=tmp_path, output="a.jsonl", check=0)
    (tmp_path / "mine.md").write_text((PROMPTS / "description.md").read_text().replace("conversational", "plain"))
    server.plan = lambda call: good(call) if "Scene3(" not in call.user else says(call, "{}")
    run("generate-descriptions", server, "--prompt", "mine.md", cwd=tmp_path, output="b.jsonl", check=0)
    done = run_script(
        SCRIPT, "compare", "a.jsonl", "b.jsonl", "--json", "c.json", "--examples", "2", cwd=tmp_path, check=0
    )
    report = json.loads((tmp_path / "c.json").read_bytes())
    found = {name: report[name] for name in ("in_both", "only_in_a", "only_in_b", "same", "different")}
    assert found == {"in_both": 3, "only_in_a": 1, "only_in_b": 0, "same": 0, "different": 3}
    assert report["a"]["authors"] == {"openai/gpt-4o-mini": 4}
    assert (report["a"]["input_tokens"], report["a"]["output_tokens"]) == (400, 80)
    assert report["a"]["usd"] == pytest.approx(4 * report["b"]["usd"] / 3, rel=1e-3)
    assert len(report["examples"]) == 2
    assert 0 < report["similarity"] < 1
    texts = {row["description"] for name in ("a.jsonl", "b.jsonl") for row in read_rows(tmp_path / name)}
    assert all(text in texts for pair in report["examples"] for side in "ab" for text in pair[side])
    assert "| file | a.jsonl | b.jsonl |" in done.out
    assert "3 in both, 1 only in A, 0 only in B; 0 the same, 3 different" in done.out
    same = run_script(SCRIPT, "compare", "a.jsonl", "a.jsonl", "--cache-dir", "gone", cwd=tmp_path, check=0).out
    assert "4 the same, 0 different; mean similarity 1.0" in same
    assert "| cost in $ | unknown | unknown |" in same


def test_of_two_judged_outputs_it_is_told_which_one_is_better(tmp_path):
    for name, scores in (("a", [5, 3, 2, 4]), ("b", [4, 3, 5, None])):
        judged = [{"judge": {"score": score}} if score else {} for score in scores]
        write_rows(tmp_path / f"{name}.jsonl", [record(number, metadata=told) for number, told in enumerate(judged)])
    done = run_script(SCRIPT, "compare", "a.jsonl", "b.jsonl", cwd=tmp_path, check=0)
    assert "Judged: A better 1, B better 1, equal 1." in done.out
    assert "| score of the judge | 3.5 | 4.0 |" in done.out


def test_made_rows_are_compared_by_the_document_that_they_are_from(tmp_path, server):
    write_rows(tmp_path / "in.jsonl", [document(1), document(2)])
    server.plan = pairs
    run("generate-qa", server, cwd=tmp_path, output="a.jsonl", check=0)
    run("generate-qa", server, "--num-pairs", "2", cwd=tmp_path, output="b.jsonl", check=0)
    run_script(SCRIPT, "compare", "a.jsonl", "b.jsonl", "--json", "c.json", "--output", "c.md", cwd=tmp_path, check=0)
    report = json.loads((tmp_path / "c.json").read_bytes())
    assert (report["in_both"], report["different"], report["a"]["rows"], report["b"]["rows"]) == (2, 2, 6, 4)
    assert [(len(pair["a"]), len(pair["b"])) for pair in report["examples"]] == [(3, 2), (3, 2)]
    assert "> What is application in chapter 1?" in (tmp_path / "c.md").read_text()


@pytest.mark.parametrize("command", ["generate-qa", "generate-personas"])
def test_what_a_task_would_ask_can_be_planned(tmp_path, server, command):
    write_rows(tmp_path / "in.jsonl", [section(1, "A"), section(2, "B"), record(3), document(4, "Short.")])
    options = ("--input", "in.jsonl", "--llm", "openai", "--base-url", server.url("openai"))
    done = run_script(SCRIPT, "plan", command, *options, cwd=tmp_path, env=KEY, check=0)
    assert "4 rows, 2 to be asked about by openai/gpt-4o-mini" in done.out
    assert "0 are answered in the cache, 2 new requests" in done.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]
    assert not server.log


def test_one_cache_serves_all_tasks(tmp_path, server):
    server.plan = lambda call: good(call) if "class Scene" in call.user else pairs(call)
    write_rows(tmp_path / "in.jsonl", [needy(1)])
    run("generate-descriptions", server, cwd=tmp_path, check=0)
    write_rows(tmp_path / "in.jsonl", [document(1)])
    run("generate-qa", server, cwd=tmp_path, check=0)
    (row, *_) = read_rows(tmp_path / "out/rows.jsonl")
    explain = ("cache-explain", row["metadata"]["id"][:10], "--input", "out/rows.jsonl")
    assert "generate-qa/1" in run_script(SCRIPT, *explain, cwd=tmp_path, check=0).out
    assert len(run_script(SCRIPT, "cache-export", cwd=tmp_path, check=0).out.splitlines()) == 2
    pruned = run_script(SCRIPT, "cache-prune", "--task", "generate-qa", cwd=tmp_path, check=0).err
    assert "1 answers removed, 1 left" in pruned
    run("generate-qa", server, cwd=tmp_path, check=0)
    assert len(server.log) == 3
