"""Print the texts of examples/texts as papers, so that there is a folder of PDF files to try `make papers` with.

    python examples/make_papers.py --output papers_sample
    python examples/make_papers.py --output mine --texts my_notes

In    Markdown files with `#` for the title and `##` for the sections
Out   one PDF file for each of them; files that are there are replaced
"""

from __future__ import annotations

import re
from pathlib import Path

import click

WIDTH, HEIGHT, MARGIN = 595, 842, 60  # A4 in points


@click.command()
@click.option("--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write.")
@click.option(
    "--texts",
    default=Path(__file__).with_name("texts"),
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with the Markdown files.  [default: examples/texts]",
)
def main(output: Path, texts: Path) -> None:
    """Print Markdown files as papers."""
    files = sorted(texts.glob("*.md"))
    if not files:
        raise click.UsageError(f"{texts}: no Markdown files (*.md)")
    output.mkdir(parents=True, exist_ok=True)
    for file in files:
        print_paper(to_html(file.read_text("utf-8")), output / f"{file.stem}.pdf")
    click.echo(f"make_papers: {len(files)} papers -> {output}", err=True)


def to_html(markdown: str) -> str:
    """Headings and paragraphs; a line of a list stays a paragraph."""
    text = markdown.replace("&", "&amp;").replace("<", "&lt;")
    parts = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip()))
    headings = {"# ": "h1", "## ": "h2"}
    return "\n".join(
        next((f"<{tag}>{part[len(mark) :]}</{tag}>" for mark, tag in headings.items() if part.startswith(mark)), "")
        or f"<p>{part}</p>"
        for part in parts
    )


def print_paper(html: str, path: Path) -> None:
    try:
        import pymupdf
    except ImportError as error:
        raise click.UsageError("make_papers needs the package pymupdf: pip install 'linemill[docs]'") from error
    story = pymupdf.Story(html=html, user_css="p {text-align: justify; font-size: 11pt} h1 {text-align: center}")
    writer = pymupdf.DocumentWriter(str(path))
    room = pymupdf.Rect(MARGIN, MARGIN, WIDTH - MARGIN, HEIGHT - MARGIN)
    has_more = 1
    while has_more:
        device = writer.begin_page(pymupdf.Rect(0, 0, WIDTH, HEIGHT))
        has_more, _ = story.place(room)
        story.draw(device)
        writer.end_page()
    writer.close()


if __name__ == "__main__":
    main()
