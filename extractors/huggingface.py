"""Data sets of the Hugging Face hub.

    my_set:
      type: huggingface
      dataset: owner/name
      revision: main                    # or a commit; a branch is looked up once and remembered in the cache
      subset: default                   # if the data set has several
      split: train                      # or train+test; all of them if left out
      data_files: [train.csv]           # names or patterns, if the data set's own list is not what you want
      description_field: [good, or_else]  # leave it and code_field out to have them detected
      code_field: output
      strip_prefix: "Write code ... Here is the request:"  # removed; "..." stands for any words
      skip_values: [nan]                # what means that there is nothing
      code_only: false                  # true: the descriptions are dropped and written later
      kind: qa                          # if the answers are not programs
      needs_key: false                  # true for a gated set: HF_TOKEN is looked for before anything is read
      path: downloads/name              # a local copy, file or folder: nothing is downloaded

All other text columns are kept in the metadata, the split as `split`, and the `error` of a row as `upstream_error`.
HF_TOKEN opens gated and private sets, HF_ENDPOINT names another hub.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import click

from extractors._columns import meaning, rows_of
from extractors._fetch import Fetch
from extractors._hub_files import DataFile, choose_files, local_files
from extractors._hub_net import Busy, patiently, refuse_strangers, save, seconds
from extractors._needs import Needs
from extractors._rows import BadRow
from extractors._tables import format_of, read_rows

_ENDPOINT = "https://huggingface.co"
_FRIENDS = ("huggingface.co", "hf.co")  # the files themselves come from cdn-lfs.hf.co, cas-bridge.xethub.hf.co, ...
_TIMEOUT = 30


class _Snapshot(NamedTuple):
    """What the hub says about one revision."""

    commit: str
    files: list[dict[str, Any]]
    configs: list[dict[str, Any]]


def extract(
    dataset: str,
    *,
    fetch: Fetch,
    split: str | None = None,
    subset: str | None = None,
    revision: str = "main",
    data_files: str | list[str] | None = None,
    description_field: str | list[str] | None = None,
    code_field: str | None = None,
    strip_prefix: str | list[str] | None = None,
    skip_values: list[str] | None = None,
    code_only: bool = False,
    kind: str | None = None,
    path: str | None = None,
    needs_key: bool = False,
) -> Iterator[dict[str, Any] | BadRow]:
    """One row for each row of each file of the splits."""
    said = meaning(description_field, code_field, strip_prefix, skip_values, code_only, kind)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", dataset) or ".." in dataset:
        raise click.UsageError(f"dataset: {dataset!r} is no name of the hub; it has the form owner/name")
    wanted = (subset, split, data_files)
    if path:
        chosen, origin = local_files(path, dataset, *wanted), {"repo": dataset}
    else:
        chosen, origin = _remote_files(dataset, revision, fetch, *wanted)
    for file, local in chosen:
        rows = read_rows(local, format_of(file.path) or "", file.path)
        yield from rows_of(rows, said, f"{dataset}: {file.path}", origin, file.split)


def needs(
    dataset: str,
    *,
    fetch: Fetch,
    path: str | None,
    revision: str,
    subset: str | None,
    split: str | None,
    data_files: str | list[str] | None,
    needs_key: bool,
) -> Needs:
    """The client and the key for a download; pyarrow for the files that are known, or in case there are some."""
    files = _at_hand(dataset, fetch, path, revision, subset, split, data_files)
    if files is None and not path:
        keys = ("HF_TOKEN",) if needs_key else ()
        return Needs(packages=("httpx2", "huggingface_hub", "pyarrow"), keys=keys)
    return Needs(packages=("pyarrow",) if any(format_of(file.path) == "parquet" for file in files or []) else ())


def is_cached(
    dataset: str,
    *,
    fetch: Fetch,
    path: str | None,
    revision: str,
    subset: str | None,
    split: str | None,
    data_files: str | list[str] | None,
) -> bool:
    """Whether all files of the splits are here."""
    return _at_hand(dataset, fetch, path, revision, subset, split, data_files) is not None


def _at_hand(dataset: str, fetch: Fetch, path: str | None, revision: str, *wanted: Any) -> list[DataFile] | None:
    """The files, if no network is needed for them."""
    try:
        if path:
            return [file for file, _ in local_files(path, dataset, *wanted)]
        return [file for file, _ in _remote_files(dataset, revision, fetch._replace(offline=True), *wanted)[0]]
    except click.ClickException:
        return None


def _remote_files(
    dataset: str, revision: str, fetch: Fetch, *wanted: Any
) -> tuple[list[tuple[DataFile, Path]], dict[str, Any]]:
    fetch = fetch._replace(folder=fetch.folder / dataset.replace("/", "--"))
    snapshot = _snapshot(dataset, revision, fetch)
    known = {file["path"]: file for file in snapshot.files}
    chosen = choose_files(list(known), snapshot.configs, dataset, *wanted)
    at_commit = fetch._replace(folder=fetch.folder / quote(snapshot.commit, safe=""))
    # Every file is there before the first row is read: half a data set should not look like a whole one.
    local = [_local_file(dataset, snapshot.commit, known[file.path], at_commit) for file in chosen]
    return list(zip(chosen, local, strict=True)), {"repo": dataset, "revision": snapshot.commit}


def _snapshot(dataset: str, revision: str, fetch: Fetch) -> _Snapshot:
    """The commit that a revision stands for and its files; the second run takes what the first one found."""
    name = f"{quote(revision, safe='')}.json"

    def get(folder: Path) -> None:
        found = patiently(dataset, lambda: _look_up(dataset, revision))
        Path(folder, name).write_text(json.dumps(found._asdict(), indent=1), "utf-8")

    place = fetch.cached(name) or fetch.download(name, get)
    try:
        return _Snapshot(**json.loads(place.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise click.ClickException(f"{place}: damaged: {error}; --refresh writes it again") from error


def _look_up(dataset: str, revision: str) -> _Snapshot:
    with _plain_errors(dataset, revision):
        from huggingface_hub import HfApi

        _guard_session()
        api = HfApi(endpoint=_endpoint(), token=_token())
        info = api.dataset_info(dataset, revision=revision, files_metadata=True, timeout=_TIMEOUT)
    configs = getattr(info.card_data, "configs", None) or []
    files = [
        {"path": file.rfilename, "size": file.size, "sha256": file.lfs.sha256 if file.lfs else None}
        for file in info.siblings or []
    ]
    commit = info.sha or ""
    if not re.fullmatch(r"[0-9a-f]{40,64}", commit):  # it names a folder of the cache, too
        raise click.ClickException(f"{dataset}: the hub does not say which commit {revision!r} is, but {commit!r}")
    return _Snapshot(commit, files, configs)


def _local_file(dataset: str, commit: str, file: dict[str, Any], fetch: Fetch) -> Path:
    # A flat name: a path that somebody else wrote should not decide where a file goes.
    name = file["path"].replace("/", "--")
    return fetch.cached(name) or fetch.download(
        name, lambda folder: patiently(dataset, lambda: _download(dataset, commit, file, Path(folder, name)))
    )


def _download(dataset: str, commit: str, file: dict[str, Any], target: Path) -> None:
    # huggingface_hub for names, tokens and errors, pyarrow for the columns. `datasets` would write every column,
    # embedded videos too, into Arrow files first, and give all rows of a column one type. hf_hub_download begins
    # again without end when a server breaks off each time, and goes around the guarded session where xet can be used.
    with _plain_errors(dataset, commit):
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

        url = hf_hub_url(dataset, file["path"], repo_type="dataset", revision=commit, endpoint=_endpoint())
        headers = {**build_hf_headers(token=_token()), "Accept-Encoding": "identity"}
        with _guard_session().stream("GET", url, headers=headers, timeout=_TIMEOUT) as response:
            hf_raise_for_status(response)
            chunks = response.iter_bytes(1 << 20)
            save(chunks, target, f"{dataset}: {file['path']}", size=file["size"], sha256=file["sha256"], md5=None)


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or _ENDPOINT).rstrip("/")


def _token() -> str | bool:
    """The token of the environment, and no other: a run should not depend on who logged in where."""
    return os.environ.get("HF_TOKEN") or False


def _guard_session() -> Any:
    """The session of huggingface_hub, which asks us before each request, those of redirects included."""
    from huggingface_hub import get_session

    session = get_session()
    if _guard not in session.event_hooks["request"]:
        session.event_hooks["request"].append(_guard)
    return session


def _guard(request: Any) -> None:
    refuse_strangers(str(request.url), _endpoint(), _FRIENDS)


@contextmanager
def _plain_errors(dataset: str, revision: str) -> Iterator[None]:
    """Say what the hub's answers mean, in one line."""
    # Else the client asks the hub, before anything else, for a list to guess from what program runs us.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import httpx2
        from huggingface_hub import errors
    except ImportError as error:
        raise click.UsageError(
            "type huggingface needs the package huggingface_hub: pip install 'linemill[sources]'"
        ) from error
    try:
        yield
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status == 429:
            raise Busy(_wait(error.response.headers)) from error
        raise click.ClickException(f"{dataset}: the hub says {status}: {_reason(error, dataset, revision)}") from error
    except errors.OfflineModeIsEnabled as error:
        raise click.ClickException(f"{dataset}: not in the cache, and HF_HUB_OFFLINE forbids the download") from error
    except httpx2.ConnectError as error:
        raise click.ClickException(f"{dataset}: no connection to {_endpoint()} ({_first_line(error)})") from error
    except httpx2.HTTPError as error:
        raise click.ClickException(f"{dataset}: the download is broken: {_first_line(error)}; run again") from error


def _reason(error: Exception, dataset: str, revision: str) -> str:
    from huggingface_hub import errors

    reasons = {
        errors.GatedRepoError: f"gated; ask for access at {_endpoint()}/datasets/{dataset} and set HF_TOKEN",
        errors.RepositoryNotFoundError: "no such data set, or a private one; check the name, or set HF_TOKEN",
        errors.RevisionNotFoundError: f"there is no revision {revision!r}",
        errors.RemoteEntryNotFoundError: f"a file of revision {revision!r} is gone",
    }
    return next((text for kind, text in reasons.items() if isinstance(error, kind)), _first_line(error))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _wait(headers: Any) -> int | None:
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    limit = parse_ratelimit_headers(headers)
    return limit.reset_in_seconds if limit and not limit.remaining else seconds(headers.get("retry-after"))
