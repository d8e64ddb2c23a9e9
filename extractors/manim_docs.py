"""The examples of Manim's documentation, from the web site or from a local copy of its pages.

    manim_docs:
      type: manim_docs
      url: https://docs.manim.community/en/v0.22.0/   # the root of the built documentation
      pages: [examples.html]         # leave out to follow the links of the site, at most max_pages of them
      path: html.tar.xz              # instead of the site: a folder of HTML, an archive of one (.tar.xz, .zip), or a
                                     # .jsonl with url, depth and content (HTML or plain text)
      snippets: true                 # also the other code blocks that are about Manim; include_non_manim: all blocks
      min_lines: 3                   # the fewest lines of code, blank ones not counted
      context_words: 200             # how many words of the prose on each side to keep
      delay: 1.0                     # seconds between requests to the site

An example is a block that Manim's directive made: the page holds a second copy of it for the interactive viewer.
Every block that is left out is a reject with the reason. Nothing of a page is ever run.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urljoin

import click

from extractors._archives import read_pages
from extractors._directives import first_words, last_words
from extractors._fetch import Fetch
from extractors._html import Code, OnlyCopy, Piece, Prose, links, read_page
from extractors._needs import Needs
from extractors._plain import read_text
from extractors._rows import BadRow
from extractors._site import NotThere, Site
from extractors._tables import format_of, read_rows

_IMPORT = re.compile(r"^\s*(?:from|import) manim\b", re.MULTILINE)
_SCENE_CLASS = re.compile(r"^class (\w+)\([^)]*Scene\w*\s*[,)]", re.MULTILINE)
_MANIM_NAME = re.compile(r"\b(?:Circle|Square|Triangle|MathTex|Text)\b")
_ANIMATION = re.compile(r"\.play\(")
_PYTHON = {"", "python", "python3", "py", "py3", "default", "pycon", "pycon3", "ipython", "ipython3"}
# They repeat all docstrings, or hold no prose.
_NO_EXAMPLES = re.compile(r"(^|/)(_modules|_sources|_static|_images)/|(^|/)(genindex|search|py-modindex)[^/]*\.html$")


class _Page(NamedTuple):
    url: str
    depth: int
    text: str


class _Choice(NamedTuple):
    """Which blocks to take, and how much of the prose."""

    snippets: bool
    include_non_manim: bool
    min_lines: int
    context_words: int


def extract(
    *,
    fetch: Fetch,
    url: str = "https://docs.manim.community/en/v0.22.0/",
    path: str | None = None,
    pages: list[str] | None = None,
    snippets: bool = False,
    include_non_manim: bool = False,
    min_lines: int = 3,
    context_words: int = 200,
    max_pages: int = 1000,
    delay: float = 1.0,
) -> Iterator[dict[str, Any] | BadRow]:
    """One row for each code block; the same code a second time is a reject that names the first place."""
    _check_packages(needs_client=not path)
    for name, value, least in (("context_words", context_words, 1), ("max_pages", max_pages, 1), ("delay", delay, 0)):
        if value < least:
            raise click.UsageError(f"manim_docs: {name}: {value}, must be at least {least}")
    root = _root(url)
    choice = _Choice(snippets, include_non_manim, min_lines, context_words)
    found = _local_pages(path, root, pages) if path else _site_pages(Site(root, fetch, delay), pages, max_pages)
    seen: dict[str, str] = {}
    for page in found:
        if isinstance(page, BadRow):
            yield page
        else:
            yield from _rows(page, choice, seen)
    if not path:
        fetch.folder.mkdir(parents=True, exist_ok=True)
        _mark(fetch, root, pages, max_pages).touch()


def needs(*, fetch: Fetch, url: str, path: str | None, pages: list[str] | None, max_pages: int) -> Needs:
    """The parser, and for the site the client."""
    at_hand = path or is_cached(fetch=fetch, url=url, path=path, pages=pages, max_pages=max_pages)
    return Needs(packages=("bs4",) if at_hand else ("bs4", "requests"))


def is_cached(*, fetch: Fetch, url: str, path: str | None, pages: list[str] | None, max_pages: int) -> bool:
    """Whether an earlier run got to the last page, or the copy is there."""
    if path:
        return Path(path).expanduser().exists()
    return not fetch.refresh and _mark(fetch, _root(url), pages, max_pages).is_file()


def _mark(fetch: Fetch, root: str, pages: list[str] | None, most: int) -> Path:
    """The file that stands in the cache once every page does: which those are, only reading all of them would tell."""
    key = json.dumps([root, pages, most])
    return fetch.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.whole"


def _root(url: str) -> str:
    return url if url.endswith("/") else f"{url}/"


def _check_packages(*, needs_client: bool) -> None:
    try:
        import bs4  # noqa: F401

        if needs_client:
            import requests  # noqa: F401
    except ImportError as error:
        raise click.UsageError(f"manim_docs needs {error.name}: pip install 'linemill[sources]'") from error


def _rows(page: _Page, choice: _Choice, seen: dict[str, str]) -> Iterator[dict[str, Any] | BadRow]:
    is_html = page.text.lstrip()[:1] == "<"
    try:
        pieces = read_page(page.text) if is_html else read_text(page.text)
    except RecursionError:
        yield BadRow("nested_too_deep", f"{page.url}: nested too deeply to be read", {"url": page.url})
        return
    # Plain text has no second copy that would tell an example from a snippet.
    taken = choice if is_html else choice._replace(snippets=True)
    number = 0
    for at, piece in enumerate(pieces):
        origin = {"url": page.url, "block": number + 1}
        if isinstance(piece, OnlyCopy):
            yield BadRow("only_unescaped_copy", f"{page.url}: {piece.scene} stands there only unescaped", origin)
        elif isinstance(piece, Code):
            number += 1
            fault = _find_fault(piece, taken) or _find_first(piece, origin, seen)
            yield BadRow(*fault, origin, piece.text) if fault else _row(pieces, at, piece, page, origin, choice)


def _find_fault(block: Code, choice: _Choice) -> tuple[str, str] | None:
    """Why a block is not taken, or None."""
    if not choice.include_non_manim:
        if block.scene is None and not choice.snippets:
            return "not_an_example", "a code block that no directive made; snippets: true takes those about Manim"
        if block.scene is None and not _is_about_manim(block):
            return "not_manim", "says nothing about Manim; include_non_manim: true takes it"
    lines = sum(1 for line in _program(block.text).split("\n") if line.strip())
    if lines < choice.min_lines:
        return "too_short", f"{lines} lines of code; min_lines is {choice.min_lines}"
    return None


def _is_about_manim(block: Code) -> bool:
    marks = (_IMPORT, _SCENE_CLASS, _MANIM_NAME)
    return block.language in _PYTHON and any(mark.search(_program(block.text)) for mark in marks)


def _find_first(block: Code, origin: dict[str, Any], seen: dict[str, str]) -> tuple[str, str] | None:
    place = f"{origin['url']}, block {origin['block']}"
    first = seen.setdefault(_sha1(block.text), place)
    return None if first is place else ("repeated_example", f"the same code stands in {first}")


def _row(
    pieces: list[Piece], at: int, block: Code, page: _Page, origin: dict[str, Any], choice: _Choice
) -> dict[str, Any]:
    code = _program(block.text)
    named = _SCENE_CLASS.search(code)
    before = [piece for piece in pieces[:at] if isinstance(piece, Prose)]
    after = [piece for piece in pieces[at + 1 :] if isinstance(piece, Prose)]
    metadata = {
        "kind": "code",
        "needs_description": True,
        "origin": origin,
        "depth": page.depth,
        "section": next((piece.text for piece in reversed(before) if piece.level), ""),
        "documented": next((piece.documented for piece in reversed(before) if piece.documented), ""),
        "scene": block.scene or (named[1] if named else ""),
        "has_animation": bool(_ANIMATION.search(code)),
        "before_context": last_words("\n".join(piece.text for piece in before), choice.context_words),
        "after_context": first_words("\n".join(piece.text for piece in after), choice.context_words),
        "block_sha1": _sha1(block.text),
    }
    if not _IMPORT.search(code) and (block.scene is not None or _is_about_manim(block)):
        code = f"from manim import *\n\n{code}"
    return {"description": "", "code": code + "\n", "metadata": metadata}


def _program(text: str) -> str:
    """The block without the prompts of a doctest and without what it prints."""
    lines = text.split("\n")
    if lines[0].lstrip().startswith(">>>"):
        prompt = re.compile(r"\s*(?:>>>|\.\.\.)(?: |$)")
        lines = [line[found.end() :] for line in lines if (found := prompt.match(line))]
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()


def _local_pages(path: str, root: str, wanted: list[str] | None) -> Iterator[_Page | BadRow]:
    """The pages of a folder, an archive or a table; for the first two the depth is the number of folders."""
    place = Path(path).expanduser()
    if not place.exists():
        raise click.ClickException(f"{path}: no such file or folder")
    if format_of(place):
        yield from _table_pages(place)
        return
    missing = set(wanted or [])
    for item in read_pages(place):
        if isinstance(item, BadRow):
            yield item
        elif not _NO_EXAMPLES.search(item[0]) and (wanted is None or item[0] in wanted):
            missing.discard(item[0])
            yield _decode(urljoin(root, quote(item[0], errors="replace")), item[0].count("/"), item[1])
    for name in sorted(missing):
        yield BadRow("page_missing", f"{path}: holds no page {name}", {"path": name})


def _table_pages(place: Path) -> Iterator[_Page | BadRow]:
    for row in read_rows(place, format_of(place) or "", place.name):
        if isinstance(row, BadRow):
            yield row
            continue
        origin, columns = row
        url, content, depth = columns.get("url"), columns.get("content"), columns.get("depth") or 0
        if isinstance(url, str) and isinstance(content, str) and isinstance(depth, int):
            yield _Page(url, depth, content)
        else:
            yield BadRow("not_a_page", "no page: it needs url and content as text, and depth as a number", origin)


def _site_pages(site: Site, wanted: list[str] | None, most: int) -> Iterator[_Page | BadRow]:
    """The named pages, or all that links lead to; the depth is the number of links from the root."""
    queue = [(urljoin(site.root, name), 0) for name in wanted or ["index.html"]]
    known = {url for url, _ in queue}
    for url, _ in queue:
        if not url.startswith(site.root):
            raise click.UsageError(f"pages: {url} is not below {site.root}")
    for number, (url, depth) in enumerate(queue):  # the list grows meanwhile
        if number >= most:
            yield BadRow("page_limit", f"{len(queue) - most} more pages are linked; max_pages is {most}", {"url": url})
            return
        try:
            page = _decode(url, depth, site.page(url))
        except NotThere as error:
            if number == 0 and wanted is None:
                raise
            yield BadRow("page_missing", error.message, {"url": url})
            continue
        yield page
        if wanted is None and isinstance(page, _Page):
            new = [link for link in _targets(page, site.root) if link not in known]
            known.update(new)
            queue += [(link, depth + 1) for link in new]


def _targets(page: _Page, root: str) -> list[str]:
    """The pages below the root that a page links to, each once."""
    found = []
    for target in links(page.text):
        try:
            url = urljoin(page.url, target)
        except ValueError:  # such as http://[
            continue
        if url.startswith(root):
            found.append(f"{url}index.html" if url.endswith("/") else url)
    return [url for url in dict.fromkeys(found) if url.endswith(".html") and not _NO_EXAMPLES.search(url)]


def _decode(url: str, depth: int, body: bytes) -> _Page | BadRow:
    try:
        return _Page(url, depth, body.decode("utf-8-sig").replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        return BadRow("not_utf8", f"{url}: {error}", {"url": url})
