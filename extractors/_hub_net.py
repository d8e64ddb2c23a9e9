"""What downloads from any hub have in common: patience, whole files, and no strangers."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import click

# A hub that asks for less is waited for; a person should decide about more.
LONGEST_WAIT = 60
_ATTEMPTS = 4

Result = TypeVar("Result")


class Busy(Exception):
    """The hub said 429, and how many seconds to wait."""

    def __init__(self, seconds: int | None) -> None:
        super().__init__(seconds)
        self.seconds = seconds


def patiently(who: str, ask: Callable[[], Result]) -> Result:
    """The answer to `ask`, which may raise `Busy`: as long a wait as the hub says, and not forever."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return ask()
        except Busy as busy:
            wait = 2**attempt if busy.seconds is None else busy.seconds
            if attempt == _ATTEMPTS or wait > LONGEST_WAIT:
                raise click.ClickException(
                    f"{who}: the hub says 429: too many requests; try again in {wait} seconds"
                ) from busy
            time.sleep(wait)
    raise AssertionError("every attempt returns or raises")


def seconds(header: str | None) -> int | None:
    """What a Retry-After header says, if it says a number."""
    return int(header) if header and header.strip().isdigit() else None


def innermost(error: BaseException) -> str:
    """What really happened, without the layers of clients around it."""
    while True:
        places = (getattr(error, "reason", None), getattr(error, "original_error", None), *error.args[:1])
        inner = next((place for place in places if isinstance(place, BaseException)), None)
        if inner is None:
            break
        error = inner
    return str(error).rpartition(": ")[2] or type(error).__name__


def save(
    chunks: Iterable[bytes], path: Path, who: str, *, size: int | None, sha256: str | None, md5: str | None
) -> None:
    """Write a body; it must be as long as announced and, where the hub says a checksum, the right one."""
    written, sha, md = 0, hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("wb") as file:
        for chunk in chunks:
            written += len(chunk)
            if size is not None and written > size:
                break
            file.write(chunk)
            sha.update(chunk)
            md.update(chunk)
    if size is not None and written != size:
        more = "more than" if written > size else f"{written:,} of"
        raise click.ClickException(f"{who}: the download is broken: {more} {size:,} bytes came; run again")
    if (sha256 and sha.hexdigest() != sha256) or (md5 and base64.b64encode(md.digest()).decode() != md5):
        raise click.ClickException(f"{who}: the download is broken: its checksum is not the one that the hub says")


def refuse_strangers(url: str, endpoint: str, friends: tuple[str, ...]) -> None:
    """Stop before a request that a redirect sends to a file, off TLS, or to a host that is no part of the hub."""
    there, home = urlsplit(url), urlsplit(endpoint)
    if (there.scheme, there.netloc) == (home.scheme, home.netloc):
        return
    host = there.hostname or ""
    if there.scheme == "https" and any(host == friend or host.endswith(f".{friend}") for friend in friends):
        return
    raise click.ClickException(
        f"{home.netloc} redirects to {there.scheme}://{there.netloc}: refused, it is no part of the hub"
    )
