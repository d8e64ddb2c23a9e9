"""DOCX to Markdown: headings, lists, tables, notes, and what Word keeps out of the plain flow of paragraphs."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import Any

import click

from extractors._pdf import Unreadable

_NOTES = ("footnotes", "endnotes")
# Word wraps accepted and pending insertions, forms and tables of contents; python-docx reads nothing inside of them.
_WRAPPERS = ("w:ins", "w:moveTo", "w:smartTag", "w:sdtContent", "w:sdt")


def read_docx(data: bytes, *, running: bool) -> str:
    """The whole text; footnotes and endnotes stand at its end. `running`: with the headers and footers of the pages."""
    try:
        import docx
    except ImportError as error:
        raise click.UsageError("DOCX files need the package python-docx: pip install 'linemill[docs]'") from error
    try:
        document = docx.Document(io.BytesIO(data))
        _unwrap(document.element.body)
        notes = list(_notes(document))
        heads, feet = _running(document) if running else ([], [])
        return "\n\n".join(filter(None, [*heads, *_blocks(document), *notes, *feet]))
    # lxml's syntax errors are SyntaxErrors
    except (KeyError, ValueError, SyntaxError, AttributeError, zipfile.BadZipFile) as error:
        raise Unreadable("broken_file", f"not a readable DOCX: {' '.join(str(error).split())}") from error


def _unwrap(body: Any) -> None:
    """Bring all text to where the library looks for it: text boxes go after the paragraph that they are tied to."""
    from docx.oxml.ns import nsmap, qn

    for copy in list(
        body.iter(f"{{{nsmap.get('mc', 'http://schemas.openxmlformats.org/markup-compatibility/2006')}}}Fallback")
    ):
        copy.getparent().remove(copy)
    for name in _WRAPPERS:
        for element in list(body.iter(qn(name))):
            for child in list(element):
                element.addprevious(child)
            element.getparent().remove(element)
    for box in reversed(list(body.iter(qn("w:txbxContent")))):
        around = next(box.iterancestors(qn("w:p")))
        for block in reversed(list(box)):
            around.addnext(block)


def _notes(document: Any) -> Iterator[str]:
    """The notes as Markdown has them, [^1] in the text and [^1]: at its end; the text gets its marks here."""
    from docx.oxml import OxmlElement, parse_xml
    from docx.oxml.ns import qn

    for kind in _NOTES:
        prefix = "" if kind == "footnotes" else "e"
        for mark in list(document.element.body.iter(qn(f"w:{kind[:-1]}Reference"))):
            text = OxmlElement("w:t")
            text.text = f"[^{prefix}{mark.get(qn('w:id'))}]"
            mark.addnext(text)
        for relation in document.part.rels.values():
            if relation.reltype.endswith(f"/{kind}"):
                for note in parse_xml(relation.target_part.blob).iter(qn(f"w:{kind[:-1]}")):
                    words = " ".join("".join(part.text or "" for part in note.iter(qn("w:t"))).split())
                    # Word keeps the lines that separate notes from the text as notes with a type.
                    if words and not note.get(qn("w:type")):
                        yield f"[^{prefix}{note.get(qn('w:id'))}]: {words}"


def _running(document: Any) -> tuple[list[str], list[str]]:
    """The headers and the footers of all sections, each once: a section without its own repeats the one before."""
    found: tuple[dict[str, None], dict[str, None]] = ({}, {})
    for section in document.sections:
        heads = (section.header, section.first_page_header, section.even_page_header)
        feet = (section.footer, section.first_page_footer, section.even_page_footer)
        for texts, parts in zip(found, (heads, feet), strict=True):
            texts.update({"\n\n".join(filter(None, _blocks(part))): None for part in parts})
    return list(found[0]), list(found[1])


def _blocks(container: Any) -> list[str]:
    import docx.table

    return [
        _table(block) if isinstance(block, docx.table.Table) else _line(block)
        for block in container.iter_inner_content()
    ]


def _line(paragraph: Any) -> str:
    text, style = str(paragraph.text).strip(), str(paragraph.style.name if paragraph.style else "")
    if not text:
        return ""
    if style == "Title":
        return f"# {text}"
    if style.startswith("Heading "):
        return f"{'#' * int(style[-1]) if style[-1].isdigit() else '#'} {text}"
    if style.startswith("List Number"):
        return f"1. {text}"
    return f"- {text}" if style.startswith("List") else text


def _table(table: Any) -> str:
    """A cell that spans several columns is written once."""
    lines = []
    for row in table.rows:
        cells = {id(cell._tc): " ".join(cell.text.replace("|", r"\|").split()) for cell in row.cells}
        lines.append(f"| {' | '.join(cells.values())} |")
        if len(lines) == 1:
            lines.append(f"|{' --- |' * len(cells)}")
    return "\n".join(lines)
