"""Polite downloads of one host: pauses, bounded retries, no redirect to anywhere else, resumed where they broke off."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import click

from extractors._fetch import digest

_ARXIV = {"arxiv.org", "export.arxiv.org", "oaipmh.arxiv.org"}
_TRIES = 4
_LONGEST_WAIT = 60.0
_LONGEST = 200 * 2**20  # no paper is larger


class Broken(click.ClickException):
    """A download that failed; the others may go on."""


class Host:
    """One server; it remembers when it was last asked."""

    def __init__(self, url: str, delay: float) -> None:
        try:
            import requests
        except ImportError as error:
            raise click.UsageError("arxiv needs the package requests: pip install 'linemill[docs]'") from error
        host = urlsplit(url)
        if host.scheme not in ("http", "https"):
            raise click.UsageError(f"arxiv: api_url {url!r} is no http address")
        self.session = requests.Session()
        self.session.headers["User-Agent"] = "linemill"
        self.failed = requests.RequestException
        self.delay, self.next = delay, 0.0
        self.schemes = {"https", host.scheme}
        self.hosts = {host.netloc} | (_ARXIV if host.netloc.endswith("arxiv.org") else set())

    def text(self, url: str, parameters: dict[str, Any]) -> bytes:
        try:
            with self._get(url, {}, parameters) as answer:
                return bytes(answer.content)
        except self.failed as error:
            raise Broken(f"{url}: {_short(error)}") from error

    def file(self, url: str, path: Path) -> None:
        """A PDF file appears under its name only when it is whole; a part of it is kept for the next run."""
        part, note = path.with_name(path.name + ".part"), path.with_name(path.name + ".note")
        path.parent.mkdir(parents=True, exist_ok=True)
        mark = _mark_of(part, note)
        note.unlink(missing_ok=True)
        have = part.stat().st_size if mark else 0
        # If-Range: should the file have changed since, the server sends all of the new one.
        wanted = {"Range": f"bytes={have}-", "If-Range": mark} if mark else {}
        try:
            with self._get(url, {"Accept-Encoding": "identity", **wanted}, {}) as answer:
                self._receive(url, answer, part, note, have)
        except self.failed as error:
            raise Broken(f"{url}: broke off, the next run tries it again: {_short(error)}") from error
        if not is_whole(part):
            part.unlink()
            raise Broken(f"{url}: the answer is no PDF, or is cut off (%PDF- at its start, %%EOF at its end)")
        part.replace(path)

    def _receive(self, url: str, answer: Any, part: Path, note: Path, have: int) -> None:
        goes_on = answer.status_code == 206
        if goes_on and not str(answer.headers.get("Content-Range", "")).startswith(f"bytes {have}-"):
            part.unlink(missing_ok=True)
            raise Broken(f"{url}: the server sent another part than the one asked for; the next run begins anew")
        try:
            with part.open("ab" if goes_on else "wb") as file:
                for block in answer.iter_content(1024):  # of the block in which a transfer breaks off nothing is kept
                    file.write(block)
                    if file.tell() > _LONGEST:
                        raise Broken(f"{url}: more than {_LONGEST >> 20} MB")
        except self.failed:
            mark = str(answer.headers.get("ETag", ""))
            if mark.startswith('"'):  # a weak mark (W/) does not promise the same bytes
                note.write_text(json.dumps([mark, digest(part)]), encoding="utf-8")
            raise

    def _get(self, url: str, headers: dict[str, str], parameters: dict[str, Any]) -> Any:
        for _ in range(_TRIES):
            self._check(url)
            time.sleep(max(0.0, self.next - time.monotonic()))
            answer = self.session.get(
                url, headers=headers, params=parameters, stream=True, timeout=60, allow_redirects=False
            )
            self.next = time.monotonic() + self.delay
            if answer.status_code in (200, 206):
                return answer
            answer.close()
            if answer.is_redirect:
                url, parameters = urljoin(url, answer.headers["Location"]), {}
            elif answer.status_code == 416:
                headers = {}  # the part is longer than the file: begin anew
            elif answer.status_code in (429, 503):
                self.next += _wait(url, answer)
            else:
                raise Broken(f"{url}: the server answers {answer.status_code}")
        raise Broken(f"{url}: no answer after {_TRIES} tries, the last was {answer.status_code}")

    def _check(self, url: str) -> None:
        place = urlsplit(url)
        if place.scheme not in self.schemes or place.netloc not in self.hosts:
            raise Broken(f"{url}: refused, it leads away from {' and '.join(sorted(self.hosts))}")


def is_whole(path: Path) -> bool:
    """Whether a file begins and ends as a PDF does."""
    data = path.read_bytes()
    return b"%PDF-" in data[:1024] and b"%%EOF" in data[-2048:]


def _mark_of(part: Path, note: Path) -> str:
    """The server's mark of the file that a part belongs to; empty unless the part is as it was left."""
    try:
        mark, sha256 = json.loads(note.read_bytes())
        return str(mark) if digest(part) == sha256 else ""
    except (OSError, ValueError, TypeError):
        return ""


def _wait(url: str, answer: Any) -> float:
    told = str(answer.headers.get("Retry-After", "5"))
    seconds = float(told) if told.isdigit() else 5.0
    if seconds > _LONGEST_WAIT:
        raise Broken(f"{url}: {answer.status_code}, the server wants a pause of {told} seconds; try again later")
    return seconds


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
