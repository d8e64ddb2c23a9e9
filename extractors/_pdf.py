"""PDF to Markdown, page by page; what can not be read is named."""

from __future__ import annotations

import contextlib
import io
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click

from extractors._text import strip_running_lines

_PICTURE = re.compile(r"!\[[^\]\n]*\]\([^)\n]*\)")

# Damaged files make the libraries fail in many ways, with plain ValueErrors and worse; all of them mean one thing.
_DAMAGE = (RuntimeError, ValueError, KeyError, IndexError, TypeError, AttributeError, ZeroDivisionError)


class Unreadable(Exception):
    """Why a file gives no text: the code of the reject, and the facts."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Pdf(NamedTuple):
    """The Markdown of each page, why a page gave none, and what the file says of itself."""

    pages: list[str]
    lost: dict[int, Unreadable]  # by the number of the page, from 1
    facts: dict[str, Any]


class Reading(NamedTuple):
    """How the pages are read."""

    figures: Path | None = None  # pictures go to this folder as PNG
    strip: bool = True  # without the lines that stand on most pages
    ocr: str | None = None  # the languages of the program tesseract: "eng", "deu+eng"


def read_pdf(path: Path, reading: Reading) -> Pdf:
    """Every page as Markdown."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it advertises another package; ours is for data
            import pymupdf
            import pymupdf4llm
    except ImportError as error:
        raise click.UsageError("PDF files need the package pymupdf4llm: pip install 'linemill[docs]'") from error
    pymupdf.TOOLS.mupdf_display_errors(False)
    pymupdf.TOOLS.mupdf_display_warnings(False)
    tessdata = _tessdata(pymupdf, reading.ocr) if reading.ocr else None

    def recognise(page: Any) -> str:
        scan = page.get_textpage_ocr(language=reading.ocr, dpi=300, full=True, tessdata=tessdata)
        return str(page.get_text(textpage=scan, sort=True))

    try:
        with pymupdf.open(stream=path.read_bytes(), filetype="pdf") as document:
            if document.needs_pass:
                raise Unreadable("encrypted_pdf", "the PDF asks for a password")
            if not document.page_count:
                raise Unreadable("broken_file", "the PDF has no page")
            pages = _markdown(pymupdf4llm, document, path, reading.figures)
            pictures = [bool(page.get_images() or page.get_drawings()) for page in document]
            texts = strip_running_lines(pages) if reading.strip else pages
            if reading.ocr:
                texts = [
                    text if _has_text(text) or not drawn else f"{text}\n\n{recognise(page)}".strip()
                    for text, drawn, page in zip(texts, pictures, document, strict=True)
                ]
            return Pdf(texts, _lost(texts, pictures, reading.ocr), dict(document.metadata or {}))
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Unreadable("broken_file", f"not a readable PDF: {reason}") from error


def read_plain_pdf(path: Path, reading: Reading) -> Pdf:
    """The text of every page by a package under a permissive licence: no headings, tables, figures or recognition."""
    try:
        import pypdf
        import pypdf.errors
    except ImportError as error:
        raise click.UsageError("'pdf_reader: pypdf' needs the package pypdf: pip install 'linemill[docs]'") from error
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # what it mends in a damaged file
    try:
        document = pypdf.PdfReader(path)
        if document.is_encrypted and not document.decrypt(""):
            raise Unreadable("encrypted_pdf", "the PDF asks for a password")
        pages = [page.extract_text() for page in document.pages]
        pictures = [bool(page.images.keys()) for page in document.pages]
        texts = strip_running_lines(pages) if reading.strip else pages
        return Pdf(texts, _lost(texts, pictures, None), {})
    except pypdf.errors.DependencyError as error:
        raise Unreadable("encrypted_pdf", f"pypdf can not open it: {error}; 'pdf_reader: pymupdf' can") from error
    except (pypdf.errors.PyPdfError, *_DAMAGE) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Unreadable("broken_file", f"not a readable PDF: {reason}") from error


READERS: dict[str, Callable[[Path, Reading], Pdf]] = {"pymupdf": read_pdf, "pypdf": read_plain_pdf}


def _tessdata(pymupdf: Any, languages: str) -> str:
    """The folder with the data of the languages; pymupdf has the program built in."""
    way = "install tesseract-ocr with its languages, or let TESSDATA_PREFIX name the folder with them"
    try:
        folder = str(pymupdf.get_tessdata() or "")
    except RuntimeError as error:
        raise click.UsageError(f"'ocr: true' needs the language data of tesseract: {way}") from error
    for language in languages.split("+"):
        if not Path(folder, f"{language}.traineddata").is_file():
            raise click.UsageError(f"'ocr: true' finds no {language}.traineddata in {folder}: {way}")
    return folder


def _markdown(converter: Any, document: Any, path: Path, figures: Path | None) -> list[str]:
    options: dict[str, Any] = {"write_images": False, "ignore_images": True}
    if figures:
        figures.mkdir(parents=True, exist_ok=True)
        options = {"write_images": True, "image_path": str(figures), "image_format": "png", "filename": path.stem}
    with contextlib.redirect_stdout(io.StringIO()):  # the library prints, and our standard output is for data
        chunks = converter.to_markdown(document, page_chunks=True, show_progress=False, **options)
    # The converter passes over text that it takes for invisible, such as the layer under a scan.
    return [
        chunk["text"] if _has_text(chunk["text"]) else f"{chunk['text']}\n\n{page.get_text(sort=True)}".strip()
        for chunk, page in zip(chunks, document, strict=True)
    ]


def _lost(texts: list[str], pictures: list[bool], ocr: str | None) -> dict[int, Unreadable]:
    """Every page without text, with the reason; a file of nothing else is a fault of its own."""
    empty = [number for number, text in enumerate(texts, 1) if not _has_text(text)]
    if len(empty) == len(texts):
        if not any(pictures):
            raise Unreadable("empty_file", f"{len(texts)} pages, all of them blank")
        raise Unreadable("scanned_pdf", f"{len(texts)} pages without any text; {_advice(ocr)}")
    return {
        number: Unreadable("scanned_page", f"pictures and no text; {_advice(ocr)}")
        if pictures[number - 1]
        else Unreadable("blank_page", "nothing stands on it but lines that most pages have")
        for number in empty
    }


def _advice(ocr: str | None) -> str:
    return "OCR found none, either" if ocr else "it needs OCR"


def _has_text(markdown: str) -> bool:
    return bool(_PICTURE.sub("", markdown).strip("-\n\t "))
