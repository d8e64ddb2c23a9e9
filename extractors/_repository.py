"""The files of a repository: fetched once by the git program, or read from a folder or a table of files.

A fetched revision is kept as one tar file, and is read without being unpacked: no link can lead out of it, and
nothing of it is run.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from extractors._fetch import Fetch
from extractors._needs import Needs
from extractors._programs import run_program
from extractors._rows import BadRow

# A text beyond this is data, and no program that somebody wrote.
LARGEST_FILE = 4_000_000
_LONGEST_SILENCE = 20
_KEPT = (".py", ".ipynb", ".txt", ".csv", ".json", ".md", ".tex", ".yaml", ".yml", ".in", ".dat")
_LICENCES = [
    ("CC-BY-NC-SA-4.0", r"Attribution-NonCommercial-ShareAlike 4\.0"),
    ("CC-BY-SA-4.0", r"Attribution-ShareAlike 4\.0"),
    ("CC-BY-4.0", r"Attribution 4\.0"),
    ("CC0-1.0", r"CC0 1\.0"),
    ("Apache-2.0", r"Apache License\s+Version 2\.0"),
    ("MPL-2.0", r"Mozilla Public License Version 2\.0"),
    ("AGPL-3.0", r"GNU AFFERO GENERAL PUBLIC LICENSE\s+Version 3"),
    ("LGPL-3.0", r"GNU LESSER GENERAL PUBLIC LICENSE\s+Version 3"),
    ("GPL-3.0", r"GNU GENERAL PUBLIC LICENSE\s+Version 3"),
    ("GPL-2.0", r"GNU GENERAL PUBLIC LICENSE\s+Version 2"),
    ("BSD-3-Clause", r"Neither the name of"),
    ("MIT", r"Permission is hereby granted, free of charge"),
    ("Unlicense", r"free and unencumbered software"),
]


class Repository(NamedTuple):
    """The files of one revision by their path, those that are not read with the reason, and what every origin says."""

    files: dict[str, bytes]
    left_out: dict[str, str]
    origin: dict[str, Any]
    licence: str | None


def left_out(repository: Repository, include: list[str], exclude: list[str]) -> Iterator[BadRow]:
    """A reject for each wanted file that is not read."""
    said = {"link": "is a link; none is followed", "too_large": f"has more than {LARGEST_FILE:,} bytes"}
    for name in chosen(repository.left_out, include, exclude):
        code = repository.left_out[name]
        yield BadRow(code, f"{name} {said[code]}", {**repository.origin, "path": name})


def open_repositories(
    fetch: Fetch, repo: str | list[str] | None, url: str | None, path: str | None, revision: str | None
) -> Iterator[Repository]:
    """Every repository that the options of a source name."""
    addresses = _addresses(repo, url, path, revision)
    if path is not None:
        yield from _local(Path(path).expanduser(), revision)
    for address, origin in addresses:
        yield _fetched(fetch, address, origin, revision)


# The hooks of every type that reads repositories.
def needs(
    *, fetch: Fetch, repo: str | list[str] | None, url: str | None, path: str | None, revision: str | None
) -> Needs:
    """The program git, unless the repositories are here already."""
    at_hand = is_cached(fetch=fetch, repo=repo, url=url, path=path, revision=revision)
    return Needs() if at_hand or path is not None else Needs(tools=("git",))


def is_cached(
    *, fetch: Fetch, repo: str | list[str] | None, url: str | None, path: str | None, revision: str | None
) -> bool:
    """Whether `open_repositories` needs no network; a mistake in the options is said here already."""
    addresses = _addresses(repo, url, path, revision)
    if path is not None:
        return Path(path).expanduser().exists()
    return all(fetch.cached(_archive_name(address, revision)) for address, _ in addresses)


def _addresses(
    repo: str | list[str] | None, url: str | None, path: str | None, revision: str | None
) -> list[tuple[str, dict[str, Any]]]:
    """What git is asked for, each with what the origins say of it."""
    if sum(place is not None for place in (repo, url, path)) != 1:
        raise click.UsageError("name the place with one of 'repo', 'url' and 'path'")
    if any((part or "").startswith("-") for part in (url, revision)):
        raise click.UsageError(f"{url or repo} {revision or ''}: a url or a revision does not begin with '-'")
    if url is not None:
        return [(url, {"url": url})]
    names = [repo] if isinstance(repo, str) else repo or []
    for name in names:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            raise click.UsageError(f"repo {name!r} is no OWNER/NAME; give other places with 'url'")
    return [(f"https://github.com/{name}", {"repo": name}) for name in names]


def _archive_name(url: str, revision: str | None) -> str:
    key = hashlib.sha256(f"{url}\n{revision or ''}".encode()).hexdigest()[:12]
    return f"{re.sub(r'[^A-Za-z0-9.-]+', '_', url.split('://')[-1])[-60:]}-{key}.tar"


def chosen(paths: Iterable[str], include: list[str], exclude: list[str]) -> list[str]:
    """The paths that match a pattern of `include` and none of `exclude`; * also matches /."""
    return sorted(path for path in paths if _matches(path, include) and not _matches(path, exclude))


def _matches(path: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _fetched(fetch: Fetch, url: str, origin: dict[str, Any], revision: str | None) -> Repository:
    name = _archive_name(url, revision)
    archive = fetch.cached(name) or fetch.download(name, lambda folder: _clone(url, revision, folder, name))
    files, skipped = {}, {}
    try:
        with tarfile.open(archive) as tar:
            commit = tar.pax_headers.get("comment", revision)
            for member in tar:
                if member.issym() or member.islnk():
                    skipped[member.name] = "link"
                elif member.isfile() and _wanted(member.name) and member.size > LARGEST_FILE:
                    skipped[member.name] = "too_large"
                elif member.isfile() and _wanted(member.name):
                    content = tar.extractfile(member)
                    files[member.name] = content.read() if content else b""
    except tarfile.TarError as error:
        raise click.ClickException(f"{archive}: damaged: {error}; fetch it again with --refresh") from error
    return Repository(files, skipped, {**origin, "revision": commit}, _licence(files))


def _clone(url: str, revision: str | None, folder: Path, name: str) -> None:
    folder = folder.resolve()
    work = folder / "clone"
    _git(folder, "init", "--quiet", str(work), url=url)
    # A question first: git itself waits for minutes for a server that is not there, and that for each try.
    _git(work, "ls-remote", "--quiet", "--", url, "HEAD", url=url, timeout=_LONGEST_SILENCE)
    wanted = revision or "HEAD"
    try:
        _git(work, "fetch", "--quiet", "--depth", "1", "--no-tags", "--", url, wanted, url=url)
        commit = "FETCH_HEAD"
    except click.ClickException:
        # A plain web server can give neither one revision nor a part of the history.
        _git(work, "fetch", "--quiet", "--", url, "+refs/heads/*:refs/r/*", "+refs/tags/*:refs/t/*", "+HEAD", url=url)
        commit = next((place for place in _places(revision) if _exists(work, place)), "")
        if not commit:
            raise click.ClickException(f"{url}: has no revision {wanted}") from None
    _git(work, "archive", "--format=tar", f"--output={folder / name}", f"{commit}^{{commit}}", url=url)


def _places(revision: str | None) -> list[str]:
    return [f"refs/r/{revision}", f"refs/t/{revision}", revision] if revision else ["FETCH_HEAD"]


def _exists(work: Path, place: str) -> bool:
    command = ["git", "rev-parse", "--quiet", "--verify", "--end-of-options", f"{place}^{{commit}}"]
    return not run_program(command, cwd=work).returncode


def _git(folder: Path, *arguments: str, url: str, timeout: float | None = None) -> None:
    # Neither a question for a password, nor a program that a url or a repository names.
    quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1", "GIT_ALLOW_PROTOCOL": "file:http:https:ssh:git"}
    command = ["git", "-c", "core.hooksPath=/dev/null", "-c", "credential.helper=", *arguments]
    own = {name: value for name, value in os.environ.items() if name not in ("GIT_DIR", "GIT_WORK_TREE")}
    try:
        done = run_program(command, cwd=folder, env=own | quiet, timeout=timeout)
    except FileNotFoundError as error:
        raise click.ClickException(f"{url}: the program git is not installed; or give a folder with 'path:'") from error
    except subprocess.TimeoutExpired as error:
        raise click.ClickException(
            f"{url}: no answer within {timeout} seconds; or give a folder with 'path:'"
        ) from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["git said nothing"]
        reason = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[0])
        raise click.ClickException(f"git can not fetch {url}: {reason}; or give a folder with 'path:'")


def _local(place: Path, revision: str | None) -> Iterator[Repository]:
    pinned = {"revision": revision} if revision else {}
    if place.suffix in (".jsonl", ".ndjson") and place.is_file():
        yield from _table(place)
    elif place.is_dir():
        files, skipped = _walk(place)
        yield Repository(files, skipped, pinned, _licence(files))
    elif place.is_file():
        yield Repository({place.name: place.read_bytes()}, {}, pinned, None)
    else:
        raise click.ClickException(f"{place}: no such file or folder")


def _walk(root: Path) -> tuple[dict[str, bytes], dict[str, str]]:
    files: dict[str, bytes] = {}
    skipped: dict[str, str] = {}
    for folder, names, leaves in os.walk(root, followlinks=False):
        names[:] = sorted(name for name in names if not name.startswith("."))
        for path in (Path(folder, leaf) for leaf in sorted([*leaves, *names])):
            name = path.relative_to(root).as_posix()
            if path.is_symlink():
                skipped[name] = "link"
            elif path.is_file() and _wanted(name) and path.stat().st_size > LARGEST_FILE:
                skipped[name] = "too_large"
            elif path.is_file() and _wanted(name):
                files[name] = path.read_bytes()
    return files, skipped


def _table(path: Path) -> Iterator[Repository]:
    """Rows of {path, code} or {path, content}, with repo, rev and licence where they are known."""
    found: dict[tuple[Any, ...], dict[str, bytes]] = {}
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                name, code = row["path"], row.get("code", row.get("content"))
                facts = (row.get("repo"), row.get("rev", row.get("revision")), row.get("licence"))
                found.setdefault(facts, {})[name] = code.encode("utf-8", "surrogatepass")
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise click.ClickException(f"{path}:{number}: not a row with 'path' and 'code'") from error
    for (repo, revision, licence), files in found.items():
        origin = {key: value for key, value in (("repo", repo), ("revision", revision)) if value}
        yield Repository(files, {}, origin, licence or _licence(files))


def _wanted(name: str) -> bool:
    return name.lower().endswith(_KEPT) or _is_licence(name)


def _is_licence(name: str) -> bool:
    return re.fullmatch(r"(licen[cs]e|copying|unlicense)([.-]\w+)*", name, re.IGNORECASE) is not None


def _licence(files: dict[str, bytes]) -> str | None:
    """The licence that the file LICENSE in the top folder holds."""
    for name in sorted(filter(_is_licence, files)):
        text = " ".join(files[name].decode("utf-8", "replace").split())
        for licence, pattern in _LICENCES:
            if re.search(pattern, text, re.IGNORECASE):
                return licence
    return None
