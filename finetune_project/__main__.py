"""The commands of the document fine-tuning project that came before; each one runs the script that does its work now.

    python -m finetune_project prepare-data --input handbook.pdf --enable-qa
    python -m finetune_project train --data data_enhanced/qa.jsonl --epochs 1
    python -m finetune_project evaluate
    python -m finetune_project merge-adapter --adapter runs/default/adapter --output runs/default/merged

In    the options of old, and every option of the script that is run
Out   what that script writes; its command line is shown on standard error, so that it can be typed the next time

docs/coming-from.md has the whole list.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import click

import schema

ROOT = Path(__file__).resolve().parent.parent
RUN = "runs/default"
PAIRS, HELD_OUT_PAIRS = "data_enhanced/qa.jsonl", "data_enhanced/qa_test.jsonl"


class Command(NamedTuple):
    """What does the work of an old command: a script, options under their old names, and what they say unless given."""

    words: list[str]
    about: str
    renamed: dict[str, str] = {}  # noqa: RUF012  a tuple is never changed
    defaults: dict[str, str] = {}  # noqa: RUF012


PASSED_ON = {
    "init": Command(["train.py", "config", "init"], "Write a configuration (--output, --template)."),
    "validate": Command(["train.py", "config", "validate"], "Check a configuration (--config)."),
    "train": Command(
        ["train.py", "train"],
        "Train an adapter.",
        {
            "-e": "--epochs",
            "-b": "--batch-size",
            "-m": "--model",
            "-o": "--output",
            "-i": "--data",
            "--input": "--data",
        },
    ),
    "evaluate": Command(
        ["evaluate_model.py", "loss"],
        "Loss and perplexity on held-out rows (--test-file).",
        {"--test-file": "--data", "-m": "--model"},
        {"--model": f"{RUN}/merged", "--output": f"{RUN}/evaluation"},
    ),
    "merge-adapter": Command(
        ["merge_export.py", "merge"],
        "Merge an adapter into its base model.",
        {"-o": "--output"},
        {"--adapter": f"{RUN}/adapter", "--output": f"{RUN}/merged"},
    ),
    "export": Command(
        ["merge_export.py", "export"],
        "Write the merged model as safetensors or gguf.",
        {"-m": "--model", "-o": "--output", "--hub-id": "--push"},
        {"--model": f"{RUN}/merged", "--output": f"{RUN}/export"},
    ),
}


def run(*words: str) -> None:
    """Run one of the scripts; when it ends with an error, so does this program."""
    click.echo(f"finetune_project: python {shlex.join(words)}", err=True)
    code = subprocess.run([sys.executable, str(ROOT / words[0]), *words[1:]]).returncode
    if code:
        sys.exit(code)


def translate(command: Command, given: list[str], held_out: str) -> list[str]:
    """The words of the script for the words of old."""
    words = []
    for word in given:
        if word in ("-v", "--verbose"):  # the scripts say on standard error what they do
            continue
        name, sign, value = word.partition("=")
        words.append(command.renamed.get(name, name) + sign + value)
    named = {word.partition("=")[0] for word in words}
    defaults = command.defaults | ({"--data": held_out} if "--test-file" in command.renamed else {})
    missing = [part for name, value in defaults.items() if name not in named for part in (name, value)]
    return [*command.words, *words, *missing]


@click.group(context_settings=schema.CONTEXT)
def main() -> None:
    """The commands of old; each runs the script that does its work now, and says which."""


def pass_on(name: str, command: Command) -> None:
    @main.command(name, help=command.about, add_help_option=False, context_settings={"ignore_unknown_options": True})
    @click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS OF THE SCRIPT]")
    def inner(words: tuple[str, ...]) -> None:
        held_out = HELD_OUT_PAIRS if Path(HELD_OUT_PAIRS).is_file() else "data_formatted/test.json"
        run(*translate(command, list(words), held_out))


for old_name, its_command in PASSED_ON.items():
    pass_on(old_name, its_command)

INPUT = click.option("--input", "-i", "source", metavar="FILE|DIR", help="Documents.  [default: documents, a folder]")
PROVIDER = click.option(
    "--provider", "--llm", "provider", metavar="NAME", help="Who writes.  [default: whose key is there]"
)
MODEL = click.option("--model", help="Model to ask.")
NUM_PAIRS = click.option("--num-pairs", default=3, type=click.IntRange(1, 50), help="Pairs for each chunk.")
CHUNK_SIZE = click.option("--chunk-size", default=1024, type=click.IntRange(200), help="Characters of a chunk.")


@main.command("prepare-data")
@INPUT
@click.option("--output", "-o", default="data_formatted", metavar="DIR", help="Folder to write.")
@click.option("--type", "-t", "_kind", metavar="KIND", help="Not needed: the content of a file tells what it is.")
@click.option("--enable-qa", is_flag=True, help=f"Make questions and answers, too: {PAIRS} and {HELD_OUT_PAIRS}.")
@click.option("--augment", is_flag=True, help="With --enable-qa: ask in other words, too.")
@PROVIDER
@MODEL
@NUM_PAIRS
@CHUNK_SIZE
def prepare_data(
    source: str | None,
    output: str,
    _kind: str | None,
    enable_qa: bool,
    augment: bool,
    provider: str | None,
    model: str | None,
    num_pairs: int,
    chunk_size: int,
) -> None:
    """Cut documents into chunks; with --enable-qa make questions and answers of them."""
    if augment and not enable_qa:
        raise click.UsageError("--augment words questions anew, and only --enable-qa makes questions")
    read_documents(source, output, chunk_size)
    if not enable_qa:
        return
    for side, pairs in (("train", PAIRS), ("test", HELD_OUT_PAIRS)):
        ask(f"{output}/{side}.json", pairs, num_pairs, provider, model)
    if augment:
        run("prepare_data.py", "augment", "--input", PAIRS, "--output", PAIRS.replace(".jsonl", "_augmented.jsonl"))


@main.command("generate-qa")
@INPUT
@click.option("--output", "-o", default=PAIRS, metavar="FILE", help="File to write.")
@PROVIDER
@MODEL
@NUM_PAIRS
@CHUNK_SIZE
def generate_qa(
    source: str | None, output: str, provider: str | None, model: str | None, num_pairs: int, chunk_size: int
) -> None:
    """Make questions and answers of documents."""
    folder = str(Path(output).with_suffix("")) + "_documents"
    read_documents(source, folder, chunk_size, "--test-ratio", "0")
    ask(f"{folder}/train.json", output, num_pairs, provider, model)


def read_documents(source: str | None, output: str, chunk_size: int, *options: str) -> None:
    """A file or folder becomes a source of its own, which stands beside what is made of it."""
    if source is None:
        source = "documents" if Path("documents").exists() else str(ROOT / "examples" / "texts")
        click.echo(f"finetune_project: no --input, so {source} is read", err=True)
    about = {"documents": {"type": "documents", "path": source, "chunk_size": chunk_size, "overlap": chunk_size // 8}}
    named = f"{output}/documents.yaml"
    with schema.atomic(named) as file:
        file.write(schema.canonical(about) + b"\n")  # JSON is YAML
    run("prepare_data.py", "prepare", "--sources-file", named, "--output-dir", output, *options)


def ask(source: str, output: str, num_pairs: int, provider: str | None, model: str | None) -> None:
    who = [*(["--llm", provider] if provider else []), *(["--model", model] if model else [])]
    words = ["--input", source, "--output", output, "--num-pairs", str(num_pairs)]
    run("prepare_data_with_llm.py", "generate-qa", *words, *who)


if __name__ == "__main__":
    schema.main(main)
