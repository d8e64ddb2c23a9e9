"""Papers of arXiv, one row for each section.

    arxiv_papers:
      type: arxiv
      categories: [cs.LG, cs.AI]   # the newest papers of each, or
      per_category: 7
      min_section: 100             # a shorter section is rejected
      figures: true                # write them beside the papers
      api_url: https://export.arxiv.org/api/query
      ids: ["1706.03762v7"]        # these papers, or
      path: papers/                # your own PDF files, without any network
      delay: 3.0                   # seconds between two requests, as arXiv asks for

Into the cache go the PDF files, their figures as PNG, and papers.json with the whole text of each paper. A paper that
fails is rejected by name; the next run tries it again and goes on from where its download broke off. The list of
newest papers is kept, too: --refresh asks for a new one.
"""

from __future__ import annotations

import hashlib
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from extractors._download import Broken, Host
from extractors._fetch import Fetch
from extractors._needs import Needs, files_at
from extractors._pdf import Unreadable, read_pdf
from extractors._rows import BadRow
from extractors._sections import is_references, split_sections
from extractors._text import clean, strip_running_lines

CATEGORIES = ["cs.LG", "cs.AI", "cs.DS", "cs.GT", "cs.PF", "cs.SE", "cs.OH"]
_ATOM = "{http://www.w3.org/2005/Atom}"
_ID = re.compile(r"^([a-z-]+(\.[A-Z]{2})?/\d{7}|\d{4}\.\d{4,5})(v\d+)?$")


class Paper(NamedTuple):
    """What is known of a paper before it is read."""

    id: str
    title: str
    authors: list[str]
    licence: str | None
    url: str


def extract(
    *,
    fetch: Fetch,
    categories: list[str] | None = None,
    per_category: int = 7,
    ids: list[str] | None = None,
    path: str | None = None,
    delay: float = 3.0,
    min_section: int = 100,
    figures: bool = True,
    api_url: str = "https://export.arxiv.org/api/query",
) -> Iterator[dict[str, Any] | BadRow]:
    """The sections of each paper; references and short sections are rejected by name."""
    if sum(bool(given) for given in (categories, ids, path)) > 1:
        raise click.UsageError("arxiv: give one of categories, ids and path")
    host = Host(api_url, delay) if not path else None
    done: list[dict[str, Any]] = []
    for paper, file in _local(path) if path else _listed(fetch, host, api_url, categories, per_category, ids):
        origin = {"paper": paper.id, **({"url": paper.url} if paper.url else {"path": file.name})}
        try:
            if host and fetch.cached(file.relative_to(fetch.folder).as_posix()) is None:
                _download(fetch, host, paper, file)
            text, paper = _read(file, paper, fetch.folder / "figures" / file.stem if figures else None, fetch.folder)
        except (Unreadable, Broken) as error:
            code = error.code if isinstance(error, Unreadable) else "download_failed"
            yield BadRow(code, f"{paper.id}: {error}", origin)
            continue
        done.append({**paper._asdict(), "full_text": text, "pdf_path": str(file)})
        _write(fetch.folder / "papers.json", done)
        yield from _sections(paper, text, origin, min_section)


def _local(path: str) -> Iterator[tuple[Paper, Path]]:
    place = Path(path).expanduser()
    files = [place] if place.is_file() else sorted(place.rglob("*.[pP][dD][fF]"))
    if not files:
        raise click.ClickException(f"{path}: no such file, and no folder with PDF files")
    for file in files:
        yield Paper(file.stem, "", [], None, ""), file


def _listed(
    fetch: Fetch, host: Host | None, api_url: str, categories: list[str] | None, count: int, ids: list[str] | None
) -> Iterator[tuple[Paper, Path]]:
    """The papers that arXiv names, each once: many stand in several categories."""
    assert host is not None
    if wrong := [name for name in ids or [] if not _ID.match(name)]:
        raise click.UsageError(f"arxiv: {wrong[0]!r} is no arXiv id, such as 1706.03762v7")
    newest = {"sortBy": "submittedDate", "sortOrder": "descending", "start": 0, "max_results": count}
    queries: list[dict[str, Any]] = [{"search_query": f"cat:{name}", **newest} for name in categories or CATEGORIES]
    if ids:
        queries = [{"id_list": ",".join(ids), "max_results": len(ids)}]
    seen = set()
    for query in queries:
        for paper in _parse(_feed(fetch, host, api_url, query), api_url):
            if paper.id not in seen:
                seen.add(paper.id)
                yield paper, fetch.folder / "pdf" / f"{paper.id.replace('/', '_')}.pdf"


def _feed(fetch: Fetch, host: Host, api_url: str, query: dict[str, Any]) -> bytes:
    name = f"feed-{hashlib.sha256(json.dumps([api_url, query]).encode()).hexdigest()[:16]}.xml"

    def get(folder: Path) -> None:
        answer = host.text(api_url, query)
        _parse(answer, api_url)  # a page that says sorry must not stay in the cache
        (folder / name).write_bytes(answer)

    return (fetch.cached(name) or fetch.download(name, get)).read_bytes()


def _parse(feed: bytes, place: str) -> list[Paper]:
    try:
        entries = ElementTree.fromstring(feed).findall(f"{_ATOM}entry")
    except ElementTree.ParseError as error:
        raise click.ClickException(f"{place}: the answer is no Atom feed: {error}") from error
    return [_paper(entry, place) for entry in entries]


def _paper(entry: ElementTree.Element, place: str) -> Paper:
    number = (entry.findtext(f"{_ATOM}id") or "").rpartition("/abs/")[2].strip()
    if not _ID.match(number):
        about = " ".join((entry.findtext(f"{_ATOM}summary") or "an entry without an id").split())
        raise click.ClickException(f"{place}: arXiv says: {about[:200]}")
    links = [link.get("href", "") for link in entry.findall(f"{_ATOM}link") if link.get("title") == "pdf"]
    title = " ".join((entry.findtext(f"{_ATOM}title") or "").split())
    names = [" ".join((author.findtext(f"{_ATOM}name") or "").split()) for author in entry.findall(f"{_ATOM}author")]
    # The API names no licence; some feeds carry the right's address.
    licence = entry.findtext(f"{_ATOM}rights") or None
    url = links[0] if links else f"https://arxiv.org/pdf/{number}"
    return Paper(number, title, names, licence, url.replace("http://arxiv.org", "https://arxiv.org"))


def _download(fetch: Fetch, host: Host, paper: Paper, file: Path) -> None:
    if fetch.offline:
        raise Broken(f"not in {fetch.folder}, and --offline forbids the download")
    host.file(paper.url, file, b"%PDF-")


def _read(file: Path, paper: Paper, figures: Path | None, cache: Path) -> tuple[str, Paper]:
    pdf = read_pdf(file, figures)
    text = clean("\n\n".join(strip_running_lines(pdf.pages))).replace(f"{cache}/", "")
    heading = re.search(r"^#+\s+(.+)$", text, re.MULTILINE)
    title = paper.title or pdf.facts.get("title") or (heading.group(1).strip("* ") if heading else file.stem)
    authors = paper.authors or [
        name.strip() for name in re.split("[;,]", pdf.facts.get("author") or "") if name.strip()
    ]
    return text, paper._replace(title=title, authors=authors)


def _write(path: Path, papers: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".part")
    names = ("id", "title", "authors", "licence", "full_text", "pdf_path")
    rows = [{name: paper[name] for name in names} for paper in papers]
    new.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8", errors="replace")
    new.replace(path)


def _sections(paper: Paper, text: str, origin: dict[str, Any], shortest: int) -> Iterator[dict[str, Any] | BadRow]:
    about = {"id": paper.id, "title": paper.title, "authors": paper.authors}
    for section in split_sections(text):
        place = {**origin, "line": section.line}
        if not section.title:
            yield BadRow("front_matter", f"{paper.id}: what stands before the first heading", place, section.text)
        elif is_references(section.title):
            yield BadRow("references", f"{paper.id}: the list of references", place)
        elif len(section.text) < shortest:
            message = f"{paper.id}: {section.title}: {len(section.text)} characters; min_section is {shortest}"
            yield BadRow("short_section", message, place, section.text)
        else:
            metadata = {"kind": "document", "needs_description": True, "origin": place, "licence": paper.licence}
            yield {
                "description": "",
                "code": section.text,
                "metadata": {**metadata, "paper": about, "section": section.title},
            }


def needs(*, path: str | None) -> Needs:
    """The converter, and for the network the client."""
    return Needs(packages=("pymupdf", "pymupdf4llm", *(() if path else ("requests",))), extra="docs")


def is_cached(
    *,
    fetch: Fetch,
    categories: list[str] | None,
    per_category: int,
    ids: list[str] | None,
    path: str | None,
    api_url: str,
) -> bool:
    """Whether the lists of papers and all their PDF files are here."""
    if path:
        return any(file.suffix.lower() == ".pdf" for file in files_at(path))
    here = fetch._replace(offline=True)
    try:
        papers = list(_listed(here, Host(api_url, 0), api_url, categories, per_category, ids))
    except click.ClickException:
        return False
    return all(here.cached(file.relative_to(fetch.folder).as_posix()) for _, file in papers)
