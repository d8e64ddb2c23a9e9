"""Variants of a description: grammatical or not made, the same for the same seed, and never beside the train side."""

from __future__ import annotations

import json
import re

import pytest
from conftest import read_rows, record, run_script, write_rows
from hypothesis import given
from hypothesis import strategies as st

from stages.prepare_data.augment import Plan, augment, fresh, mark_of, phrase, read_factors, tidy
from stages.prepare_data.grammar import read_request, third_person

PLAN = Plan({"human": 2.5, "llm": 3.0}, 4)
# Written down apart from the generator: what may follow "an animation that".
THIRD = {"displays", "sets", "writes", "plots", "animates", "draws", "shows", "flashes", "simulates", "highlights"}
DESCRIPTIONS = [
    "Display two circles.",
    "Display 3D axes and a circle. Set the camera to an angle. Then rotate it.",
    "Display a polar grid, then plot an orange curve.",
    "Draw a circle and move it to the left.",
    "Draw a circle, shift it up, and rotate the square.",
    "Draw a circle and wiggle-wobble the square.",
    'Write the text "Draw it and move it" on the screen.',
    "Set the background color to white. Display a red square.",
    "Set theory in two minutes",
    "Plot of a sine curve",
    "Plot a sine curve on the axes.",
    "Display of a matrix",
    "Animate the creation of a table; highlight the first row.",
    "Highlight and rotate a cube.",
    "First, transform a circle into a square.",
    "The scene displays a grid.",
    "A dot moves along a line.",
    "What does the derivative look like?",
    "Create a Manim animation that draws a red circle and moves it up.",
    "Create a Manim animation that draws a red circle.",
    "Create an animation with two dots.",
    "Write Manim code to show a cube.",
    "Using Manim, show a cube.",
    "Simulate a pendulum\nand draw its path.",
    "Display three rows:\n\n- one of dots\n- one of stars",
    "Flash the dot (e.g. yellow) and color it blue.",
    "x",
    "(display)",
    "Show",
]


def made(description, number=0, **metadata):
    metadata = {"id": f"id {number}", "kind": "code", "needs_description": False, **metadata}
    return record(number, description=description, metadata=metadata)


def words_of(description, kind="code"):
    return [words for _, words in phrase(tidy(description), kind)]


@pytest.mark.parametrize("description", DESCRIPTIONS)
def test_the_verb_after_that_is_always_in_the_third_person(description):
    for words in words_of(description):
        for verb in re.findall(r"^(?:Create a Manim animation|Generate a Manim scene) that (\S+)", words):
            assert verb in THIRD
        assert not re.search(r"(?:Manim code to|Using Manim,) \w+s\b", words), words


@pytest.mark.parametrize(
    ("description", "says"),
    [
        ("Display two circles.", True),
        ("Display 3D axes and a circle. Set the camera to an angle. Then rotate it.", True),
        ('Write the text "Draw it and move it" on the screen.', True),
        ("Plot a sine curve on the axes.", True),
        ("Flash a dot and a line.", True),
        ("Display a polar grid, then plot an orange curve.", False),
        ("Draw a circle and move it to the left.", False),
        ("Draw a circle, shift it up, and rotate the square.", False),
        ("Draw a circle and wobble the square.", False),
        ("Draw a circle; slowly rotate it.", False),
        ("Simulate a pendulum\nand draw its path.", False),
        ("Highlight and rotate a cube.", False),
        ("Plot of a sine curve", False),
        ("Set theory in two minutes", False),
        ("Create an animation with two dots.", False),
        ("The scene displays a grid.", False),
    ],
)
def test_a_request_is_put_after_that_only_when_it_has_one_verb_and_surely_is_one(description, says):
    assert any(words.startswith("Create a Manim animation that ") for words in words_of(description)) == says


def test_a_request_of_two_verbs_keeps_both_as_they_are_after_to():
    words = words_of("Draw a circle and move it to the left.")
    assert "Write Manim code to draw a circle and move it to the left." in words
    assert "Using Manim, draw a circle and move it to the left." in words


def test_a_description_is_asked_for_in_all_forms_that_fit():
    assert set(words_of("Display two circles.")) == {
        "Show two circles.",
        "Create a Manim animation that displays two circles.",
        "Generate a Manim scene that displays two circles.",
        "Write Manim code to display two circles.",
        "Using Manim, display two circles.",
        "Implement a Manim animation for: Display two circles.",
        "Write a Manim scene for this description: Display two circles.",
        "Here is what the animation should look like. Write the Manim program.\n\nDisplay two circles.",
        "Display two circles. Write the Manim code for it.",
    }


def test_words_that_are_there_already_are_not_said_twice():
    assert words_of("Create a Manim animation that draws a red circle and moves it up.") == [
        "Create a Manim animation that draws a red circle and moves it up.",
        "Generate a Manim scene that draws a red circle and moves it up.",
        "Create a Manim animation that draws a red circle and moves it up. Write the Manim code for it.",
    ]
    assert "Write Manim code to draw a red circle." in words_of("Create a Manim animation that draws a red circle.")
    assert "Generate a Manim scene that shows a cube." in words_of("Using Manim, show a cube.")


@pytest.mark.parametrize(
    ("verb", "third"),
    [("display", "displays"), ("flash", "flashes"), ("apply", "applies"), ("fix", "fixes"), ("play", "plays")],
)
def test_verbs_are_conjugated(verb, third):
    assert third_person(verb) == third


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("Explain the chain rule.", "Provide an explanation of the chain rule."),
        ("Display two dots.", "Show two dots."),
        ("Show the viewer how to draw a line.", None),
        ("Explain why it moves.", None),
        ("Display a dot and move it.", None),
    ],
)
def test_a_verb_is_exchanged_only_where_a_thing_follows(text, other):
    assert dict(phrase(text, "code")).get("other_verb") == other


def test_questions_about_documents_have_eight_forms_and_keep_their_case():
    words = words_of("What does NASA say about Mars?", "qa")
    assert "Based on the document, what does NASA say about Mars?" in words
    assert len(words) == 8
    assert "For what reason is the sky blue?" in words_of("Why is the sky blue?", "qa")
    assert "In what way does it work?" in words_of("How does it work?", "qa")
    assert words_of("Which numbers does the document name?", "qa") == []
    assert all(": Mars and NASA" in words for words in words_of("Mars and NASA", "qa"))


def test_a_persona_is_asked_for_by_its_own_words_alone():
    assert words_of("Explain this like I'm 5:\nGravity.", "persona") == []


def test_spaces_that_mean_nothing_are_dropped_and_indentation_stays():
    assert tidy("  Draw   a dot. \r\n\n\n\n  - at\tthe  top \n") == "Draw a dot.\n\n  - at the top"


@pytest.mark.parametrize(
    "changes", [{"needs_description": True}, {"augmented_from": "another"}, {"kind": "persona"}, {"description": " "}]
)
def test_nothing_is_made_of_a_row_without_words_of_its_own(changes):
    description = changes.pop("description", "Display a dot.")
    assert augment(made(description, **changes), PLAN, 1) == []


def test_a_variant_is_marked_and_keeps_all_else():
    original = made("Display a dot.", group="g", licence="MIT", lineage=[{"stage": "x", "params": {}}])
    variants = augment(original, Plan({"human": 5.0}, 9), 1)
    assert len({variant["metadata"]["id"] for variant in [original, *variants]}) == 5
    for variant in variants:
        metadata = variant["metadata"]
        assert (variant["code"], variant["source"]) == (original["code"], original["source"])
        assert (metadata["augmented_from"], metadata["group"], metadata["licence"]) == ("id 0", "g", "MIT")
        assert metadata["lineage"][0] == original["metadata"]["lineage"][0]
        assert metadata["lineage"][1]["params"].keys() == {"augmentation"}
    assert original["metadata"].keys() == {"id", "kind", "needs_description", "group", "licence", "lineage"}
    assert augment(made("Display a dot."), PLAN, 1)[0]["metadata"]["group"] == "id 0"


TEXTS = st.one_of(st.sampled_from(DESCRIPTIONS), st.text(max_size=60))


@given(TEXTS, st.sampled_from(["code", "qa", "document"]), st.integers(0, 99), st.integers(0, 5), st.booleans())
def test_any_text_gives_the_same_capped_distinct_new_variants(text, kind, seed, most, cases):
    original = made(text, seed, kind=kind)
    plan = Plan({"human": 4.5, "llm": 3.0}, most, cases)
    variants = augment(original, plan, seed)
    assert variants == augment(original, plan, seed)
    assert len(variants) <= min(most, 4)
    texts = [variant["description"] for variant in variants]
    assert len({*texts, text}) == len(texts) + 1
    assert all(words.strip() == words for words in texts)
    if request := read_request(text):
        assert request.rest in text


def test_the_factor_is_met_on_average_and_the_seed_decides():
    rows = [made("Display a dot.", number) for number in range(400)]
    by_llm = [made("Display a dot.", number, description_generated_by="x") for number in range(400)]
    counts = [len(augment(row, PLAN, 1)) for row in rows]
    assert set(counts) == {1, 2}
    assert 2.4 < 1 + sum(counts) / len(rows) < 2.6
    assert {len(augment(row, PLAN, 1)) for row in by_llm} == {2}
    assert [len(augment(row, PLAN, 2)) for row in rows] != counts
    assert augment(rows[0], Plan({"human": 1.0}, 4), 1) == []


def test_nothing_that_is_said_elsewhere_is_said_again():
    plan = Plan({"human": 10.0}, 9)
    everything = augment(made("Display a dot."), plan, 1)
    taken = {mark_of(everything[0])}
    assert fresh(made("Display a dot."), taken, plan, 1) == everything[1:]
    assert fresh(made("Display a dot.", 1), taken, plan, 1) == []


@pytest.mark.parametrize(
    ("given", "factors"),
    [
        ("2", {"human": 2, "llm": 2}),
        ("human=1.5, llm=3", {"human": 1.5, "llm": 3}),
        ("llm=3", {"human": 1, "llm": 3}),
    ],
)
def test_factors_are_one_number_or_one_for_each_author(given, factors):
    assert read_factors(given) == factors


# --- as a part of prepare ---------------------------------------------------------------------------------------------


def prepare(folder, *arguments, check=0):
    return run_script("prepare_data.py", "prepare", *arguments, cwd=folder, check=check)


@pytest.fixture
def sources(tmp_path):
    """Thirty described rows and four that wait for a description."""
    rows = [{"instruction": record(n)["description"], "output": record(n)["code"]} for n in range(30)]
    rows += [{"instruction": "[PENDING_DESCRIPTION]", "output": record(n)["code"]} for n in range(30, 34)]
    write_rows(tmp_path / "a.jsonl", rows)
    (tmp_path / "sources.yaml").write_text("a:\n  type: local\n  path: a.jsonl\n")
    return tmp_path


def sides(folder):
    return [read_rows(folder / "data_formatted" / name) for name in ("train.json", "test.json")]


def test_only_described_rows_of_the_train_side_have_variants_and_the_ledger_adds_up(sources):
    prepare(sources, "--test-ratio", "0.3")
    plain = sides(sources)
    done = prepare(sources, "--test-ratio", "0.3", "--augmentation")
    train, test = sides(sources)
    variants = [row for row in train if "augmented_from" in row["metadata"]]
    assert test == plain[1]
    assert [row for row in train if row not in variants] == plain[0]
    described = {row["metadata"]["id"]: row for row in plain[0] if not row["metadata"]["needs_description"]}
    assert {row["metadata"]["augmented_from"] for row in variants} == described.keys()
    assert all(row["code"] == described[row["metadata"]["augmented_from"]]["code"] for row in variants)
    texts = [row["description"].casefold() for row in [*train, *test] if row["description"]]
    assert len(texts) == len(set(texts))
    assert len({row["metadata"]["id"] for row in train + test}) == len(train + test)
    assert f"0 merged, {len(variants)} augmented -> data_formatted" in done.err.splitlines()[-1]
    ledger = json.loads((sources / "data_formatted" / "ledger.json").read_bytes())
    assert (ledger["counts"]["kept"], ledger["counts"]["augmented"]) == (34, len(variants))
    run_script("schema", "audit", "data_formatted/ledger.json", cwd=sources, check=0)
    run_script("schema", "validate", "data_formatted/train.json", cwd=sources, check=0)
    stats = json.loads((sources / "data_formatted" / "dataset_stats.json").read_bytes())["augmentation"]
    assert (stats["train_before"], stats["train_after"]) == (len(plain[0]), len(train))
    assert stats["described"] == stats["by_author"]["human"]["described"] == len(described)
    assert stats["factor"] == round((len(described) + len(variants)) / len(described), 2)
    assert sum(stats["by_form"].values()) == len(variants)


def test_the_options_say_how_many_and_a_second_run_gives_the_same_bytes(sources):
    prepare(sources, "--augmentation", "--augment-factor", "human=4", "--max-augmented", "1")
    first = (sources / "data_formatted" / "train.json").read_bytes()
    origins = [row["metadata"].get("augmented_from") for row in sides(sources)[0]]
    assert all(origins.count(origin) == 1 for origin in origins if origin)
    prepare(sources, "--augmentation", "--augment-factor", "human=4", "--max-augmented", "1")
    assert (sources / "data_formatted" / "train.json").read_bytes() == first
    prepare(sources, "--no-augmentation")
    assert not any("augmented_from" in row["metadata"] for row in sides(sources)[0])
    prepare(sources, "--augmentation", "--augment-cases")
    firsts = [row["description"][0] for row in sides(sources)[0] if "augmented_from" in row["metadata"]]
    assert any(map(str.islower, firsts)) and any(map(str.isupper, firsts))


def test_variants_of_an_earlier_run_are_not_varied_again(sources):
    prepare(sources, "--augmentation")
    ids = {row["metadata"]["id"] for row in sides(sources)[0] if "augmented_from" in row["metadata"]}
    (sources / "sources.yaml").write_text("b:\n  type: local\n  path: data_formatted/train.json\n")
    prepare(sources, "--augmentation", "--no-deduplicate", "--output-dir", "again")
    again = read_rows(sources / "again" / "train.json")
    assert not ids & {row["metadata"].get("augmented_from") for row in again}


@pytest.mark.parametrize("given", ["x", "human=", "human=0.5", "nobody=2", "human=nan", "11"])
def test_a_factor_that_is_none_is_named(sources, given):
    assert "--augment-factor" in prepare(sources, "--augment-factor", given, check=2).err


def test_a_file_is_augmented_by_itself_and_a_later_split_keeps_variants_together(tmp_path):
    pending = {**record(40), "description": "", "metadata": {"needs_description": True}}
    rows = [*(record(number) for number in range(30)), pending]
    write_rows(tmp_path / "train.jsonl", [*rows, b"no record"])
    run = ("prepare_data.py", "augment", "--input", "train.jsonl", "--output", "more.jsonl", "--augment-factor")
    done = run_script(*run, "2.5", cwd=tmp_path, check=0)
    more = read_rows(tmp_path / "more.jsonl")
    variants = [row for row in more if "augmented_from" in row["metadata"]]
    kept = [row for row in more if "augmented_from" not in row["metadata"]]
    assert [row["code"] for row in kept] == [row["code"] for row in rows]
    assert 30 < len(variants) < 60
    assert f"32 in, 31 kept, 1 rejected, {len(variants)} augmented -> more.jsonl" in done.err
    run_script("schema", "audit", "more.ledger.json", cwd=tmp_path, check=0)
    run_script("schema", "validate", "more.jsonl", cwd=tmp_path, check=0)
    run_script("split_data.py", "--input", "more.jsonl", "--output-dir", "split", cwd=tmp_path, check=0)
    sides = {name: read_rows(tmp_path / "split" / f"{name}.jsonl") for name in ("train", "valid")}
    groups = [
        {row["metadata"].get("augmented_from") or row["metadata"]["id"] for row in side} for side in sides.values()
    ]
    assert not groups[0] & groups[1]
    assert run_script(*run, "1", cwd=tmp_path, check=0).err.count("augmented") == 0
