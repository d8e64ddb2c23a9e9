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
      oai_url: null                # do not ask for the licences (one more request for each paper)

Into the cache go the PDF files, their figures as PNG, their Markdown, and papers.json with the whole text of each
paper. A paper that fails is rejected by name; the next run tries it again, and goes on from where its download broke
off if the server's mark (ETag) says that the file is still the same. The list of newest papers is kept, too: --refresh
asks for a new one. The licence is what arXiv's OAI interface says of the paper; where it says nothing, there is none.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import click

from extractors._download import Broken, Host, is_whole
from extractors._fetch import Fetch, digest
from extractors._needs import Needs, files_at
from extractors._pdf import Pdf, Reading, Unreadable, read_pdf
from extractors._rows import BadRow
from extractors._sections import is_references, split_sections
from extractors._text import clean

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
    oai_url: str | None = "https://oaipmh.arxiv.org/oai",
) -> Iterator[dict[str, Any] | BadRow]:
    """The sections of each paper; references and short sections are rejected by name."""
    if sum(bool(given) for given in (categories, ids, path)) > 1:
        raise click.UsageError("arxiv: give one of categories, ids and path")
    host = Host(api_url, delay) if not path else None
    done: list[dict[str, Any]] = []
    for paper, file in _local(path) if path else _listed(fetch, host, api_url, categories, per_category, ids):
        origin = {"paper": paper.id, **({"url": paper.url} if paper.url else {"path": file.name})}
        try:
            if host:
                _download(fetch, host, paper, file)
                paper = paper._replace(licence=paper.licence or _licence(fetch, host, oai_url, paper.id))
            pdf = _convert(fetch, file, figures)
            text, paper = _read(file, paper, pdf)
        except (Unreadable, Broken) as error:
            code = error.code if isinstance(error, Unreadable) else "download_failed"
            yield BadRow(code, f"{paper.id}: {error}", origin)
            continue
        about = {name: value for name, value in paper._asdict().items() if name != "url"}
        done.append({**about, "full_text": text, "pdf_path": str(file)})
        _write(fetch.folder / "papers.json", done)
        for number, fault in pdf.lost.items():
            yield BadRow(fault.code, f"{paper.id}: page {number}: {fault}", {**origin, "page": number})
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
    cached = fetch.cached(file.relative_to(fetch.folder).as_posix())
    if cached and is_whole(cached):
        return
    if fetch.offline:
        raise Broken(f"not in {fetch.folder}, and --offline forbids the download")
    host.file(paper.url, file)


def _licence(fetch: Fetch, host: Host, oai_url: str | None, paper: str) -> str | None:
    """What the OAI interface says; the list of papers has no licences. A paper without one is kept without one."""
    if not oai_url:
        return None
    name = f"licence-{paper.replace('/', '_')}.xml"
    identifier = re.sub(r"v\d+$|\.[A-Z]{2}(?=/)", "", paper)
    query = {"verb": "GetRecord", "metadataPrefix": "arXiv", "identifier": f"oai:arXiv.org:{identifier}"}

    def get(folder: Path) -> None:
        answer = host.text(oai_url, query)
        ElementTree.fromstring(answer)  # a page that says sorry must not stay in the cache
        (folder / name).write_bytes(answer)

    try:
        answer = (fetch.cached(name) or fetch.download(name, get)).read_bytes()
        found = ElementTree.fromstring(answer).findtext(".//{*}license")
    except (click.ClickException, ElementTree.ParseError):  # offline, or the interface is down
        return None
    return _short_licence(found.strip()) if found else None


def _short_licence(address: str) -> str:
    """The usual short name of a Creative Commons licence; the others keep their address."""
    match = re.search(r"creativecommons\.org/licenses/([a-z-]+)/(\d\.\d)", address)
    if "creativecommons.org/publicdomain/zero/" in address:
        return "CC0-1.0"
    return f"CC-{match[1].upper()}-{match[2]}" if match else address


def _convert(fetch: Fetch, file: Path, figures: bool) -> Pdf:
    """The Markdown of a paper; a second run takes it from the cache as long as file and library are the same."""
    folder = fetch.folder / "figures" / file.stem if figures else None
    made_by = [f"{name} {version(name)}" for name in ("pymupdf", "pymupdf4llm") if _is_installed(name)]
    key = hashlib.sha256(json.dumps([digest(file), file.stem, figures, made_by]).encode()).hexdigest()
    name = f"markdown/{key}.json"
    if cached := fetch.cached(name):
        kept = json.loads(cached.read_bytes())
        if all((fetch.folder / picture).is_file() for picture in kept["figures"]):
            lost = {int(number): Unreadable(*fault) for number, fault in kept["lost"].items()}
            return Pdf(kept["pages"], lost, kept["facts"])
    pdf = read_pdf(file, Reading(figures=folder))
    pages = [page.replace(f"{fetch.folder}/", "") for page in pdf.pages]
    pictures = sorted(path.relative_to(fetch.folder).as_posix() for path in folder.glob("*.png")) if folder else []
    lost_pages = {number: [fault.code, str(fault)] for number, fault in pdf.lost.items()}
    _write(fetch.folder / name, {"pages": pages, "lost": lost_pages, "facts": pdf.facts, "figures": pictures})
    return pdf._replace(pages=pages)


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _read(file: Path, paper: Paper, pdf: Pdf) -> tuple[str, Paper]:
    text = clean("\n\n".join(pdf.pages))
    heading = re.search(r"^#+\s+(.+)$", text, re.MULTILINE)
    title = paper.title or pdf.facts.get("title") or (_plain(heading.group(1)) if heading else file.stem)
    authors = paper.authors or [
        name.strip() for name in re.split("[;,]", pdf.facts.get("author") or "") if name.strip()
    ]
    return text, paper._replace(title=title, authors=authors)


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".part")
    new.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8", errors="replace")
    new.replace(path)


def _plain(heading: str) -> str:
    """A heading without the marks of bold type, which end and begin anew at each line of a long one."""
    return " ".join(heading.replace("**", " ").split())


def _sections(paper: Paper, text: str, origin: dict[str, Any], shortest: int) -> Iterator[dict[str, Any] | BadRow]:
    about = {"id": paper.id, "title": paper.title, "authors": paper.authors}
    for section in split_sections(text):
        place = {**origin, "line": section.line}
        if not section.title:
            yield BadRow("front_matter", f"{paper.id}: what stands before the first heading", place, section.text)
        elif is_references(section.title):
            yield BadRow("references", f"{paper.id}: the list of references", place, section.text)
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
