"""The third step of the paper pipeline that came before: rows of at most 2,048 tokens, done by filter_quality.py.

    python trim_jsonl.py
    python trim_jsonl.py --tokenizer runs/papers/base

In    data/STYLE.jsonl of every style, which sdg.py writes
Out   data/STYLE_2048.jsonl: a question is cut where it is too long, an answer never; split_data.py takes it from there
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

import schema

MODEL = "mlx-community/Llama-3.2-3B-Instruct-4bit"


@click.command(context_settings=schema.CONTEXT)
@click.option("--max-tokens", default=2048, type=click.IntRange(1), help="The most tokens of a row.")
@click.option(
    "--tokenizer",
    "--model",
    default=MODEL,
    show_default=True,
    metavar="DIR|NAME",
    help="Whose tokens; bytes needs no model, as no row has more tokens than bytes.",
)
@click.option("--data", "folder", default="data", show_default=True, metavar="DIR", help="Folder with the styles.")
def main(max_tokens: int, tokenizer: str, folder: str) -> None:
    """Cut the rows of every style to the budget of the model."""
    script = str(Path(__file__).with_name("filter_quality.py"))
    if not (styles := find_styles(Path(folder), f"_{max_tokens}")):
        raise click.UsageError(f"{folder}: there is no STYLE.jsonl; sdg.py writes them")
    for style in styles:
        output = style.with_name(f"{style.stem}_{max_tokens}.jsonl")
        words = ["--input", str(style), "--output", str(output), "--max-tokens", str(max_tokens)]
        if code := subprocess.run([sys.executable, script, *words, "--tokenizer", tokenizer]).returncode:
            sys.exit(code)


def find_styles(folder: Path, suffix: str) -> list[Path]:
    """Every file of rows that is no result of this script, and no file of rejects or receipts."""
    files = (path for path in sorted(folder.glob("*.jsonl")) if "." not in path.stem and path.stem != "rejects")
    return [path for path in files if not path.stem.endswith(suffix)]


if __name__ == "__main__":
    schema.main(main)
