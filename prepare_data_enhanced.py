"""The script of one file that came before stage 1: its options, done by prepare_data.py.

    python prepare_data_enhanced.py
    python prepare_data_enhanced.py --datasets bespoke_manim thanks_dataset
    python prepare_data_enhanced.py --no-augmentation --output-dir custom_data
    python prepare_data_enhanced.py --deduplicate --output-dir data_formatted_deduplicated

In    sources.yaml
Out   what prepare_data.py writes; `split_data.py --format conversations` makes the rows of old of it
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

import schema

DATASETS = ("bespoke_manim", "thanks_dataset", "manim_codegen", "manimbench")
FOLDERS = {True: "data_formatted_deduplicated", False: "data_formatted_with_sources"}


@click.command(context_settings=schema.CONTEXT)
@click.option("--datasets", multiple=True, metavar="NAME...", help=f"Sources to read.  [default: {' '.join(DATASETS)}]")
@click.argument("more_datasets", nargs=-1, metavar="")
@click.option("--augmentation/--no-augmentation", default=True, help="Ask for the programs in other words, too.")
@click.option("--deduplicate/--no-deduplicate", default=False, help="Keep one record of those that say the same.")
@click.option(
    "--output-dir",
    metavar="DIR",
    help=f"Folder to write.  [default: {FOLDERS[False]}; with --deduplicate {FOLDERS[True]}]",
)
@click.option("--sources-file", metavar="FILE", help="The file that names the sources.  [default: sources.yaml]")
def main(
    datasets: tuple[str, ...],
    more_datasets: tuple[str, ...],
    augmentation: bool,
    deduplicate: bool,
    output_dir: str | None,
    sources_file: str | None,
) -> None:
    """Run prepare_data.py with the defaults of old: augmented, and with duplicates unless --deduplicate is said."""
    words = ["prepare", "--sources", *([*datasets, *more_datasets] or DATASETS)]
    words += ["--augmentation" if augmentation else "--no-augmentation"]
    words += ["--deduplicate" if deduplicate else "--no-deduplicate"]
    words += ["--output-dir", output_dir or FOLDERS[deduplicate]]
    words += ["--sources-file", sources_file] if sources_file else []
    script = str(Path(__file__).with_name("prepare_data.py"))
    sys.exit(subprocess.run([sys.executable, script, *words]).returncode)


if __name__ == "__main__":
    schema.main(main)
