"""PDF to Markdown, page by page; what can not be read is named."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any, NamedTuple

import click


class Unreadable(Exception):
    """Why a file gives no text: the code of the reject, and the facts."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Pdf(NamedTuple):
    """The Markdown of each page, and what the file says of itself."""

    pages: list[str]
    facts: dict[str, Any]


def read_pdf(path: Path, figures: Path | None = None) -> Pdf:
    """Every page as Markdown; pictures go to the folder `figures` as PNG, if one is given."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it advertises another package; ours is for data
            import pymupdf
            import pymupdf4llm
    except ImportError as error:
        raise click.UsageError("PDF files need the package pymupdf4llm: pip install 'linemill[docs]'") from error
    pymupdf.TOOLS.mupdf_display_errors(False)
    pymupdf.TOOLS.mupdf_display_warnings(False)
    try:
        with pymupdf.open(stream=path.read_bytes(), filetype="pdf") as document:
            _check(document)
            pages = _pages(pymupdf4llm, document, path, figures)
            return Pdf(pages, dict(document.metadata or {}))
    # Damaged files make the library fail in many ways, with plain ValueErrors and worse; all of them mean one thing.
    except (RuntimeError, ValueError, KeyError, IndexError, TypeError, AttributeError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Unreadable("broken_file", f"not a readable PDF: {reason}") from error


def _check(document: Any) -> None:
    if document.needs_pass:
        raise Unreadable("encrypted_pdf", "the PDF asks for a password")
    if not document.page_count:
        raise Unreadable("broken_file", "the PDF has no page")
    if not any(page.get_text().strip() for page in document):
        raise Unreadable("scanned_pdf", f"{document.page_count} pages without any text; it needs OCR first")


def _pages(converter: Any, document: Any, path: Path, figures: Path | None) -> list[str]:
    options: dict[str, Any] = {"write_images": False, "ignore_images": True}
    if figures:
        figures.mkdir(parents=True, exist_ok=True)
        options = {"write_images": True, "image_path": str(figures), "image_format": "png", "filename": path.stem}
    with contextlib.redirect_stdout(io.StringIO()):  # the library prints, and our standard output is for data
        chunks = converter.to_markdown(document, page_chunks=True, show_progress=False, **options)
    return [chunk["text"] for chunk in chunks]
