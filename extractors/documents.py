"""Documents, cut into chunks: PDF, DOCX, TXT, Markdown, HTML, JSON and JSONL.

    my_documents:
      type: documents
      path: papers/              # a file, or a folder with files of any of these formats
      splitter: recursive        # at paragraphs, lines, sentences, words; or character, or token
      chunk_size: 1024           # characters, or tokens
      separators: ["\\n\\n", " "]  # where recursive may cut, the best place first
      strip_headers_footers: true    # lines that many pages begin or end with
      clean_whitespace: true
      overlap: 128
      min_chunk: 100             # a shorter one joins the chunk before it, if the two fit; else it is rejected
      tokenizer: tokenizer.json  # for the splitter token; else words and signs are counted
      ocr: true                  # read scanned pages of PDF files with the language data of tesseract
      ocr_language: deu+eng
      pdf_reader: pymupdf        # AGPL, Markdown with tables and columns; or pypdf: BSD, plain text

The format is told by the content, then by the name. A row of a JSON file that is a chat or an instruction is kept
as a pair; a row with a `text` is a document. Encrypted, broken and empty files are rejected by name, and so is every
page that gives no text: scanned_page, blank_page.
"""

from __future__ import annotations

import bisect
import functools
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import click

from extractors._docx import read_docx
from extractors._needs import Needs, files_at
from extractors._pdf import READERS, Reading, Unreadable
from extractors._rows import BadRow
from extractors._tables import Row, read_rows
from extractors._text import SEPARATORS, Cut, Headings, clean, decode, split_text, word_offsets

Origin = dict[str, Any]
_JSON = {".json", ".jsonl", ".ndjson"}
_TEXT = {".txt", ".text", ".md", ".markdown", ".rst"}
_PAIRS = [
    {"messages"},
    {"conversations"},
    {"instruction", "output"},
    {"prompt", "completion"},
    {"question", "answer"},
    {"description", "code"},
]


class Chunking(NamedTuple):
    """What is done to a text."""

    cut: Cut
    min_chunk: int
    clean: bool
    reading: Reading
    pdf_reader: str


def extract(
    path: str,
    *,
    splitter: Literal["recursive", "character", "token"] = "recursive",
    chunk_size: int = 1024,
    overlap: int = 128,
    min_chunk: int = 100,
    separators: list[str] | None = None,
    tokenizer: str | None = None,
    strip_headers_footers: bool = True,
    clean_whitespace: bool = True,
    ocr: bool = False,
    ocr_language: str = "eng",
    pdf_reader: Literal["pymupdf", "pypdf"] = "pymupdf",
) -> Iterator[dict[str, Any] | BadRow]:
    """One row for each chunk, in the order of the file names."""
    if not 0 <= overlap < chunk_size:
        raise click.UsageError(
            f"documents: overlap {overlap} must be smaller than chunk_size {chunk_size}, and not < 0"
        )
    if tokenizer and splitter != "token":
        raise click.UsageError("documents: tokenizer is only for 'splitter: token'")
    if ocr and pdf_reader != "pymupdf":
        raise click.UsageError("documents: 'ocr: true' needs 'pdf_reader: pymupdf'")
    offsets = _token_offsets(tokenizer) if splitter == "token" else None
    signs = [] if splitter == "character" else SEPARATORS if separators is None else separators
    reading = Reading(strip=strip_headers_footers, ocr=ocr_language if ocr else None)
    cut = Cut(chunk_size, overlap, signs, offsets)
    chunking = Chunking(cut, min_chunk, clean_whitespace, reading, pdf_reader)
    root, files = _files(path)
    for file in files:
        origin = {"path": file.relative_to(root).as_posix()}
        try:
            yield from _read(file, origin, chunking)
        except Unreadable as error:
            yield BadRow(error.code, f"{origin['path']}: {error}", origin)


def _files(path: str) -> tuple[Path, list[Path]]:
    place = Path(path).expanduser()
    if place.is_file():
        return place.parent, [place]
    files = [file for file in sorted(place.rglob("*")) if file.is_file() and not file.name.startswith(".")]
    if not files:
        raise click.ClickException(f"{path}: no such file, and no folder with files")
    return place, files


def _token_offsets(tokenizer: str | None) -> Any:
    if tokenizer is None:
        return word_offsets
    if not Path(tokenizer).expanduser().is_file():
        raise click.ClickException(f"{tokenizer}: no such tokenizer.json")
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise click.UsageError("tokenizer needs the package tokenizers: pip install 'linemill[train]'") from error
    loaded = Tokenizer.from_file(str(Path(tokenizer).expanduser()))
    return lambda text: [span for span in loaded.encode(text, add_special_tokens=False).offsets if span[0] < span[1]]


def _read(file: Path, origin: Origin, chunking: Chunking) -> Iterator[dict[str, Any] | BadRow]:
    data = file.read_bytes()
    if not data.strip():
        raise Unreadable("empty_file", "the file is empty")
    kind = _format(file, data)
    if kind == "json":
        yield from _json(file, data, origin, chunking)
    elif kind == "pdf":
        pdf = READERS[chunking.pdf_reader](file, chunking.reading)
        for number, fault in pdf.lost.items():
            yield BadRow(fault.code, f"{origin['path']}: page {number}: {fault}", {**origin, "page": number})
        yield from _chunks(pdf.pages, origin, chunking, paged=True)
    else:
        readers: dict[str, Callable[[bytes], str]] = {
            "docx": functools.partial(read_docx, running=not chunking.reading.strip),
            "html": _html,
            "text": decode,
        }
        yield from _chunks([readers[kind](data)], origin, chunking, paged=False)


def _format(file: Path, data: bytes) -> str:
    """By content where that is certain, else by the name."""
    suffix = file.suffix.lower()
    if b"%PDF-" in data[:1024]:
        return "pdf"
    if data.startswith(b"\xd0\xcf\x11\xe0"):
        code = "encrypted_docx" if "EncryptedPackage".encode("utf-16-le") in data else "unknown_format"
        raise Unreadable(code, "an encrypted or an old binary Office file; save it as DOCX without a password")
    if suffix in (".pdf", ".docx") or data.startswith(b"PK\x03\x04"):
        return _packed(suffix, data)
    if suffix in (".html", ".htm", ".xhtml") or data[:200].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "html"
    if b"\0" in data[:8192] and data[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        raise Unreadable("unknown_format", f"a binary file that is none of the known formats (suffix {suffix!r})")
    if suffix in _JSON:
        return "json"
    if suffix in _TEXT or not suffix:
        return "text"
    raise Unreadable("unknown_format", f"no reader for the suffix {suffix!r}; it takes pdf docx txt md html json jsonl")


def _packed(suffix: str, data: bytes) -> str:
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if "word/document.xml" in archive.namelist():
                return "docx"
    if suffix in (".pdf", ".docx"):
        raise Unreadable("broken_file", f"named {suffix}, but its content is something else or cut off")
    raise Unreadable("unknown_format", "an archive that is no DOCX")


def _html(data: bytes) -> str:
    try:
        import bs4
    except ImportError as error:
        raise click.UsageError("HTML needs the package beautifulsoup4: pip install 'linemill[sources]'") from error
    soup = bs4.BeautifulSoup(data, "html.parser")
    for tag in soup(["script", "style", "nav", "header", "footer", "noscript", "template", "title"]):
        tag.decompose()
    for level in range(1, 7):
        for tag in soup(f"h{level}"):
            tag.replace_with(f"\n\n{'#' * level} {' '.join(tag.get_text().split())}\n\n")
    for tag in soup("li"):
        tag.insert(0, "\n- ")
    for tag in soup(["p", "div", "tr", "br", "pre", "table", "ul", "ol", "blockquote", "section"]):
        tag.insert_before("\n\n" if tag.name != "tr" else "\n")
        tag.append("\n")
    for tag in soup(["td", "th"]):
        tag.append(" | ")
    return str(soup.get_text())


def _json(file: Path, data: bytes, origin: Origin, chunking: Chunking) -> Iterator[dict[str, Any] | BadRow]:
    try:
        whole = json.loads(data) if file.suffix.lower() == ".json" else None
    except (ValueError, RecursionError):
        whole = None  # one object a line, perhaps
    try:
        rows: Iterable[Row] = [(origin, whole)] if isinstance(whole, dict) else read_rows(file, "json", origin["path"])
        for row in rows:
            if isinstance(row, BadRow):
                yield row
            else:
                yield from _json_row(row[0], row[1], chunking)
    except click.ClickException as error:
        raise Unreadable("broken_file", error.message.removeprefix(f"{file}: ")) from error


def _json_row(origin: Origin, row: dict[str, Any], chunking: Chunking) -> Iterator[dict[str, Any] | BadRow]:
    """Each row is judged by itself: files with several shapes are common."""
    if any(shape <= row.keys() for shape in _PAIRS):
        own = row.get("metadata")
        metadata = own if isinstance(own, dict) else {}
        yield {**row, "metadata": {"kind": "qa", **metadata, "origin": origin}}
    elif isinstance(text := row.get("text"), str) and text.strip():
        yield from _chunks([text], origin, chunking, paged=False)
    else:
        columns = ", ".join(row) or "nothing"
        yield BadRow("unknown_columns", f"no text and no pair; it has {columns}", origin, json.dumps(row))


def _chunks(pages: list[str], origin: Origin, chunking: Chunking, *, paged: bool) -> Iterator[dict[str, Any] | BadRow]:
    """The chunks of one document; `start` counts characters of its whole text."""
    pages = [clean(page) for page in pages] if chunking.clean else pages
    text, starts = "", []
    for page in pages:
        starts.append(len(text))
        text += page + "\n\n" if page else ""
    spans = _join_tail(text, split_text(text.rstrip(), chunking.cut), chunking)
    if not spans:
        raise Unreadable("empty_file", "nothing is left of the text")
    headings = Headings(text)
    for number, (start, end) in enumerate(spans, 1):
        place = {**origin, **({"page": bisect.bisect_right(starts, start)} if paged else {}), "start": start}
        chunk = text[start:end]
        if len(chunk) < chunking.min_chunk:
            message = f"{len(chunk)} characters in chunk {number} of {len(spans)}; min_chunk is {chunking.min_chunk}"
            yield BadRow("short_chunk", message, place, chunk)
            continue
        metadata = {"kind": "document", "needs_description": True, "origin": place}
        about = {"section": headings.at(start), "chunk": number, "chunks": len(spans)}
        yield {"description": "", "code": chunk, "metadata": {**metadata, **about}}


def _join_tail(text: str, spans: list[tuple[int, int]], chunking: Chunking) -> list[tuple[int, int]]:
    """A last chunk that is too short goes to the one before it, where that stays within a size and an overlap."""
    if len(spans) < 2 or spans[-1][1] - spans[-1][0] >= chunking.min_chunk:
        return spans
    start, end = spans[-2][0], spans[-1][1]
    cut = chunking.cut
    length = len(cut.offsets(text[start:end])) if cut.offsets else end - start
    return [*spans[:-2], (start, end)] if length <= cut.size + cut.overlap else spans


def needs(path: str, *, pdf_reader: str = "pymupdf") -> Needs:
    """What the formats take that the names of the files tell."""
    pdf = ("pymupdf", "pymupdf4llm") if pdf_reader == "pymupdf" else (pdf_reader,)
    readers = {".pdf": pdf, ".docx": ("docx",), ".html": ("bs4",), ".htm": ("bs4",)}
    formats = {file.suffix.lower() for file in files_at(path)}
    packages = {name for suffix in formats for name in readers.get(suffix, ())}
    return Needs(packages=tuple(sorted(packages)), extra="docs")


def is_cached(path: str) -> bool:
    """Whether there is a file to read."""
    return any(not file.name.startswith(".") for file in files_at(path))
