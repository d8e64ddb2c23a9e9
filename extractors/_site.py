"""Gets pages of one web site, politely: one connection, a pause between requests, robots.txt, a cache on disk."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urljoin, urlsplit
from urllib.robotparser import RobotFileParser

import click

from extractors._fetch import Fetch
from extractors._hub_net import innermost

if TYPE_CHECKING:
    import requests

AGENT = "linemill"
_ATTEMPTS = 4
_LONGEST_PAUSE = 60.0
_TIMEOUT = (10.0, 30.0)  # to get through, and to be answered
_MOST_BYTES = 16 << 20
_MOST_REDIRECTS = 5
_BUSY = {429, 500, 502, 503, 504}


class NotThere(click.ClickException):
    """One page can not be had, the others may."""


class _Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Site:
    """The pages below `root`; nothing of another host is ever asked for."""

    def __init__(self, root: str, fetch: Fetch, delay: float) -> None:
        parts = urlsplit(root)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise click.UsageError(f"url: {root!r} is no address of a web site; for files of your own use 'path'")
        self.root = root
        self._host = parts.netloc
        self._fetch = fetch
        self._delay = delay
        self._last = 0.0
        self._session: requests.Session | None = None
        self._robots: RobotFileParser | None = None

    def page(self, url: str) -> bytes:
        """The body of one page: from the cache, unless --refresh asks whether it has changed."""
        path = self._fetch.folder / f"{hashlib.sha256(url.encode()).hexdigest()}.page"
        cached = _load(path, url)
        if cached and not self._fetch.refresh:
            if "missing" in cached.facts:
                raise NotThere(cached.facts["missing"])
            return cached.body
        if self._fetch.offline:
            raise click.ClickException(
                f"{url} is not in {self._fetch.folder} and --offline forbids the download:"
                " run once without it, or give a local copy with 'path:'"
            )
        if not self._rules().can_fetch(AGENT, url):
            raise _missing(path, url, "the robots.txt of the site forbids it")
        answer = self._get(url, _conditions(cached))
        if answer.status == 304 and cached:
            return cached.body
        if answer.status in (404, 410):
            raise _missing(path, url, f"the site answers {answer.status}")
        if answer.status != 200:
            raise click.ClickException(f"{url}: the site answers {answer.status}")
        _save(path, url, answer.body, answer.headers)
        return answer.body

    def _rules(self) -> RobotFileParser:
        if self._robots is None:
            url = urljoin(self.root, "/robots.txt")
            answer = self._get(url, {})
            rules = RobotFileParser(url)
            # As RFC 9309 has it: no file means no rule.
            rules.parse(answer.body.decode("utf-8", "replace").splitlines() if answer.status == 200 else [])
            if answer.status >= 500:
                raise click.ClickException(f"{url}: the site answers {answer.status}, so its rules are unknown")
            self._delay = max(self._delay, float(rules.crawl_delay(AGENT) or 0))
            self._robots = rules
        return self._robots

    def _get(self, url: str, headers: dict[str, str]) -> _Answer:
        """The answer after redirects within the site."""
        target = url
        for _ in range(_MOST_REDIRECTS):
            answer = self._get_patiently(target, headers)
            if answer.status not in (301, 302, 303, 307, 308):
                return answer
            target = self._redirect(url, target, answer.headers.get("location", ""))
        raise click.ClickException(f"{url}: redirects more than {_MOST_REDIRECTS} times")

    def _redirect(self, url: str, base: str, location: str) -> str:
        """Where the site sends us, if that is the site, and no less safe than before."""
        try:
            target = urljoin(base, location)
            parts = urlsplit(target)
        except ValueError as error:
            raise click.ClickException(f"{url}: redirects to {location!r}, which is no address") from error
        safe = ("https",) if base.startswith("https:") else ("http", "https")
        if parts.scheme not in safe or parts.netloc != self._host:
            raise click.ClickException(
                f"{url}: redirects to {target}, which is not {safe[-1]} on {self._host}; refused"
            )
        return target

    def _get_patiently(self, url: str, headers: dict[str, str]) -> _Answer:
        """Try again when the site is busy or the connection breaks, as late as it asks for."""
        import requests

        problem = ""
        for attempt in range(_ATTEMPTS):
            self._pause()
            wait = self._delay * 2**attempt
            try:
                answer = self._get_once(url, headers)
            except requests.RequestException as error:
                problem = f"{type(error).__name__}: {innermost(error)}"
            else:
                if answer.status not in _BUSY:
                    return answer
                problem = f"the site answers {answer.status}"
                wait = max(wait, _retry_after(answer.headers.get("retry-after", "")))
            if wait > _LONGEST_PAUSE:
                raise click.ClickException(f"{url}: {problem} and asks to wait {wait:.0f} seconds; try again later")
            if attempt + 1 < _ATTEMPTS:
                time.sleep(wait)
        raise click.ClickException(f"{url}: {problem}, {_ATTEMPTS} times")

    def _get_once(self, url: str, headers: dict[str, str]) -> _Answer:
        session = self._session or _session()
        self._session = session
        with session.get(url, headers=headers, timeout=_TIMEOUT, stream=True, allow_redirects=False) as answer:
            body = bytearray()
            for chunk in answer.iter_content(1 << 16):  # an answer that ends too early is an error here
                body += chunk
                if len(body) > _MOST_BYTES:
                    raise click.ClickException(f"{url}: larger than {_MOST_BYTES >> 20} MiB, which no page is")
            found = {name.lower(): value for name, value in answer.headers.items()}
            return _Answer(answer.status_code, found, bytes(body))

    def _pause(self) -> None:
        time.sleep(max(0.0, self._last + self._delay - time.monotonic()))
        self._last = time.monotonic()


class _Cached(NamedTuple):
    facts: dict[str, Any]
    body: bytes


def _session() -> requests.Session:
    try:
        import requests
    except ImportError as error:
        raise click.UsageError("manim_docs needs the package requests: pip install 'linemill[sources]'") from error
    session = requests.Session()
    session.headers["User-Agent"] = AGENT
    # Even where it shall not follow a redirect it looks at it, and reads the body, however long that is.
    session.get_redirect_target = lambda resp: None  # type: ignore[method-assign]
    return session


def _conditions(cached: _Cached | None) -> dict[str, str]:
    names = {"etag": "If-None-Match", "last-modified": "If-Modified-Since"}
    facts = cached.facts if cached else {}
    return {names[name]: facts[name] for name in names if facts.get(name)}


def _retry_after(value: str) -> float:
    """Seconds from a number or a date; 0 when there is neither."""
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


def _load(path: Path, url: str) -> _Cached | None:
    """The page of an earlier run, unless the file is damaged: facts in the first line, the body after it."""
    try:
        head, _, body = path.read_bytes().partition(b"\n")
        facts = json.loads(head)
        whole = facts["url"] == url and facts["sha256"] == hashlib.sha256(body).hexdigest()
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return _Cached(facts, body) if whole else None


def _missing(path: Path, url: str, why: str) -> NotThere:
    """Remembered as well, so that the next run needs no network to know it."""
    _save(path, url, b"", {"missing": f"{url}: {why}"})
    return NotThere(f"{url}: {why}")


def _save(path: Path, url: str, body: bytes, about: dict[str, str]) -> None:
    facts = {"url": url, "sha256": hashlib.sha256(body).hexdigest()}
    facts |= {name: about[name] for name in ("etag", "last-modified", "missing") if name in about}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(json.dumps(facts).encode() + b"\n" + body)
    Path(file.name).replace(path)
