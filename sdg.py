"""The second step of the paper pipeline that came before: explanations in three styles, by generate-personas.

    python sdg.py
    python sdg.py --llm claude --max-usd 5

In    data_papers/formatted/train.json, which paperExtractor.py writes; the key of a provider, for one
      GEMINI_API_KEY, in the environment or in .env
Out   data/eli5.jsonl, data/intuitive.jsonl, data/executive.jsonl
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

import schema


@click.command(context_settings={**schema.CONTEXT, "ignore_unknown_options": True})
@click.option(
    "--input",
    "source",
    default="data_papers/formatted/train.json",
    type=click.Path(exists=True, dir_okay=False),
    help="Sections of papers.",
)
@click.option("--output", default="data", metavar="DIR", help="Folder to write.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS OF generate-personas]")
def main(source: str, output: str, words: tuple[str, ...]) -> None:
    """Explain every section in three styles; takes all options of prepare_data_with_llm.py generate-personas."""
    script = str(Path(__file__).with_name("prepare_data_with_llm.py"))
    told = ["generate-personas", "--input", source, "--output", output, *words]
    sys.exit(subprocess.run([sys.executable, script, *told]).returncode)


if __name__ == "__main__":
    schema.main(main)
