"""The documentation tells the truth: every script, option, target and link that is named exists."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from functools import cache

import pytest
from conftest import ROOT, run_script

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS = sorted(path.name for path in ROOT.glob("*.py"))
DEFAULTS = {"train.py": "train", "split_data.py": "split"}


def commands(page):
    """Each command of the page's bash blocks, lines that end in a backslash joined."""
    for block in re.findall(r"^```bash\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").split("\n"):
            if line.strip() and not line.strip().startswith("#"):
                yield line.strip()


@cache
def help_of(*words):
    return run_script(words[0], *words[1:], "--help", cwd=ROOT, check=0).out


def named_command(line):
    """The script and sub-commands of a `python ...` command, and the options that it names."""
    words = shlex.split(line, comments=True)
    words = words[: next((place for place, word in enumerate(words) if word in ("|", ">", "2>", "&&", "||")), None)]
    words = words[3:] if words[:3] == ["python", "-m", "schema"] else words[1:]
    script = "schema" if line.startswith("python -m schema") else words.pop(0)
    path = [script]
    while (
        words
        and "\nCommands:\n" in help_of(*path)
        and re.search(rf"^  {re.escape(words[0])}\b", help_of(*path), re.MULTILINE)
    ):
        path.append(words.pop(0))
    return path, [word.split("=")[0] for word in words if word.startswith("--")]


DOCUMENTED = [(page.name, line) for page in PAGES for line in commands(page) if line.startswith("python ")]


@pytest.mark.parametrize(("page", "line"), DOCUMENTED, ids=[f"{page}: {line}" for page, line in DOCUMENTED])
def test_a_documented_command_and_its_options_exist(page, line):
    if line.split()[1].startswith(("docs/", "bench/", "examples/")):
        assert (ROOT / line.split()[1]).exists()
        return
    path, options = named_command(line)
    assert path[0] in [*SCRIPTS, "schema"], f"{page}: no script {path[0]}"
    assert [option for option in options if option not in options_of(tuple(path))] == [], f"{page}: {line}"


@cache
def options_of(path):
    """Every option of a command; where its sub-command may be left out, those of the default one, too."""
    text = help_of(*path)
    if "\nCommands:\n" in text and path[0] in DEFAULTS:
        text += help_of(*path, DEFAULTS[path[0]])
    return set(re.findall(r"(?<![\w-])--[\w-]+", text))


def test_links_lead_somewhere():
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            if not target.startswith(("http://", "https://")) and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


def test_the_list_of_commands_is_up_to_date():
    done = subprocess.run([sys.executable, "docs/_generate.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


MADE = [(page.name, line) for page in PAGES for line in commands(page) if line.startswith("make ")]


@pytest.mark.parametrize(("page", "line"), MADE, ids=[f"{page}: {line}" for page, line in MADE])
def test_a_documented_make_target_exists(page, line):
    done = subprocess.run(["make", "-n", *shlex.split(line)[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_make_help_names_every_target():
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [ROOT / "Makefile", ROOT / "pipelines.mk", ROOT / "deploy/deploy.mk"]
    phony = [re.search(r"^\.PHONY: (.*)$", path.read_text("utf-8"), re.MULTILINE)[1] for path in files]
    targets = " ".join(phony).split()
    assert [name for name in targets if name not in ("summary", "FORCE") and f"make {name} " not in told] == []


# Of the five systems that are replaced: commands, files, options.
OF_OLD = """
prepare_data_enhanced.py --datasets --no-augmentation --output-dir --deduplicate DATASETS dataset_name
description_field code_field expected_samples dataset_stats.json deduplication_report.json removed_duplicates.json
kaggle.json extract_edoh_dataset.py edoh_all_original.jsonl extract_manim_docs_snippets.py manim_docs_snippets.jsonl
format_snippets_with_openai.py manim_docs_html_pairs.all.jsonl manim_docs_html_pairs.sample.jsonl
combine_full_datasets.py train_full_dataset.json colab_training_complete.py Code2Prompt_Colab_Training.ipynb
TRAINING_RESULTS.md max_length learning_rate num_epochs batch_size gradient_accumulation_steps lora_rank lora_alpha
lora_dropout run_pipeline.py --sources generate-descriptions --llm cache-stats --min-quality youtube_url video_title
original_context code_features paperExtractor.py papers.json GEMINI_API_KEY sdg.py trim_jsonl.py split_data.py
mlx_lm.lora adapter_config.json iters lora_parameters max_seq_length report_to eli5.jsonl intuitive.jsonl
executive.jsonl fine_tune_type finetune_project init validate prepare-data --enable-qa evaluate generate-qa
merge-adapter export --num-pairs --chunk-size --provider --test-file --hub-id scripts/setup.sh scripts/runpod_start.sh
FineTuneConfig ModelConfig DataConfig TrainingConfig PromptTemplateManager DataAugmenter LangChainPipeline
target_modules use_qlora input_path output_path input_type qa_generation_enabled qa_llm_provider qa_model_name
qa_pairs_per_chunk instruction_variations num_instruction_variations use_paraphrase_templates gradient_checkpointing
output_dir create_sample_data shuffle_conversation_order pipeline_tracking_report.json data_sources.png
"""


def test_the_page_for_those_who_come_from_elsewhere_names_everything():
    text = (ROOT / "docs/coming-from.md").read_text("utf-8")
    assert [name for name in OF_OLD.split() if name not in text] == []


def test_what_does_the_work_now_exists():
    lines = (ROOT / "docs/coming-from.md").read_text("utf-8").replace("\\|", "/").split("\n")
    spans = [span for line in lines if line.startswith("|") for span in re.findall(r"`([^`]+)`", line.split("|")[-2])]
    ours = [span for span in spans if re.match(r"(?:\w+\.py|python -m schema)\b", span)]
    assert len(ours) > 40
    for span in ours:
        line = span if span.startswith("python") else f"python {span}"
        path, options = named_command(line)
        assert path[0] in [*SCRIPTS, "schema"], span
        assert [option for option in options if option not in options_of(tuple(path))] == [], span
        if "\nCommands:\n" in help_of(*path):
            rest = shlex.split(line)[1 + len(path) :]
            assert not rest or rest[0].startswith("-") or path == ["schema"], f"{span}: no such sub-command"
