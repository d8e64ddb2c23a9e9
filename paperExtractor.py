"""The first step of the paper pipeline that came before: papers of arXiv, done by prepare_data.py.

    python paperExtractor.py
    python paperExtractor.py --input my_papers

In    arXiv, seven new papers of each of seven categories; or PDF files of your own
Out   papers.json: a list of {title, full_text, pdf_path, id, authors, licence}; and data_papers/formatted/train.json,
      the sections as records, which sdg.py reads
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click

import schema

OUTPUT = "data_papers/formatted"


@click.command(context_settings=schema.CONTEXT)
@click.option("--input", "folder", metavar="DIR", help="PDF files to read in place of arXiv's.")
@click.option("--output", default="papers.json", metavar="FILE", help="List of the papers to write.")
@click.option("--cache-dir", default="data_papers/papers", metavar="DIR", help="Where PDF files and figures are kept.")
def main(folder: str | None, output: str, cache_dir: str) -> None:
    """Read papers: their whole text into one file, their sections into records."""
    words = ["prepare", "--test-ratio", "0", "--output-dir", OUTPUT, "--cache-dir", cache_dir]
    if folder:
        source = Path(cache_dir) / "source.yaml"
        with schema.atomic(source) as file:
            file.write(schema.canonical({"papers": {"type": "arxiv", "path": folder}}) + b"\n")  # JSON is YAML
        words += ["--sources-file", str(source)]
    else:
        words += ["--sources", "arxiv_papers"]
    script = str(Path(__file__).with_name("prepare_data.py"))
    if code := subprocess.run([sys.executable, script, *words]).returncode:
        sys.exit(code)
    papers = json.loads((Path(cache_dir) / "arxiv" / "papers.json").read_bytes())
    with schema.atomic(output) as file:
        file.write(json.dumps(papers, ensure_ascii=False, indent=2).encode() + b"\n")
    schema.log(f"paperExtractor: {len(papers)} papers -> {output}, their sections -> {OUTPUT}/train.json")


if __name__ == "__main__":
    schema.main(main)
