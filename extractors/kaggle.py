"""Data sets of Kaggle.

    my_set:
      type: kaggle
      dataset: owner/name
      version: 3                        # the newest one is looked up once and remembered in the cache
      file: rows.parquet                # one file of it; all tables if left out
      description_field: [good, or_else]  # leave it and code_field out to have them detected
      code_field: Code
      strip_prefix, skip_values, code_only, kind    # as in the type huggingface
      needs_key: false                  # true for a set with terms to accept: the key is looked for before all else
      path: downloads/archive.zip       # a local copy, file, zip or folder: nothing is downloaded

All other text columns are kept in the metadata. The key stands in ~/.kaggle/kaggle.json or in KAGGLE_USERNAME and
KAGGLE_KEY; many public sets need none.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click

from extractors._columns import meaning, rows_of
from extractors._fetch import Fetch
from extractors._hub_files import DataFile, choose_files, local_files
from extractors._hub_net import Busy, innermost, patiently, refuse_strangers, save, seconds
from extractors._needs import Needs, files_at
from extractors._rows import BadRow
from extractors._tables import FORMATS, format_of, read_rows

_FRIENDS = ("kaggle.com", "storage.googleapis.com", "kaggleusercontent.com")
_TIMEOUT = (10, 60)

# Text packs to a tenth; a member that unfolds two hundred times over is made to fill a disk.
_LARGEST = 2 << 30
_SUSPICIOUS = 32 << 20
_LARGEST_RATIO = 200


def extract(
    dataset: str,
    *,
    fetch: Fetch,
    file: str | None = None,
    version: int | None = None,
    description_field: str | list[str] | None = None,
    code_field: str | None = None,
    strip_prefix: str | list[str] | None = None,
    skip_values: list[str] | None = None,
    code_only: bool = False,
    kind: str | None = None,
    path: str | None = None,
    needs_key: bool = False,
) -> Iterator[dict[str, Any] | BadRow]:
    """One row for each row of each table."""
    said = meaning(description_field, code_field, strip_prefix, skip_values, code_only, kind)
    if not re.fullmatch(r"[\w-]+/[\w.-]+", dataset) or ".." in dataset:
        raise click.UsageError(f"dataset: {dataset!r} is no name of Kaggle; it has the form owner/name")
    origin: dict[str, Any] = {"repo": f"kaggle:{dataset}"}
    if path:
        place, name = Path(path).expanduser(), Path(path).name
    else:
        place, name, number = _download(dataset, file, version, fetch)
        origin["revision"] = str(number)
    with ExitStack() as stack:
        for table, local in _tables(place, name, dataset, file, stack):
            rows = read_rows(local, format_of(table.path) or "", table.path)
            yield from rows_of(rows, said, f"{dataset}: {table.path}", origin, None)


def needs(
    dataset: str, *, fetch: Fetch, file: str | None, version: int | None, path: str | None, needs_key: bool
) -> Needs:
    """The client and the key for a download, and pyarrow unless it is known that no table is Parquet."""
    found = _at_hand(dataset, fetch, file, version, path)
    tables = [file] if file else [] if found is None else _names(found)
    packages = ("pyarrow",) if not tables or any(format_of(name) in ("parquet", None) for name in tables) else ()
    if path or found:
        return Needs(packages=packages)
    keys = ("KAGGLE_USERNAME", "KAGGLE_KEY") if needs_key and not _has_key() else ()
    return Needs(packages=("kagglehub", "requests", *packages), keys=keys)


def is_cached(dataset: str, *, fetch: Fetch, file: str | None, version: int | None, path: str | None) -> bool:
    """Whether the file or the archive is here."""
    return _at_hand(dataset, fetch, file, version, path) is not None


def _at_hand(dataset: str, fetch: Fetch, file: str | None, version: int | None, path: str | None) -> Path | None:
    """The folder, the archive or the table, if no network is needed for it."""
    if path:
        return Path(path).expanduser() if Path(path).expanduser().exists() else None
    try:
        return _download(dataset, file, version, fetch._replace(offline=True))[0]
    except click.ClickException:
        return None


def _names(place: Path) -> list[str]:
    """The tables in a folder or in an archive, or the name of the one file."""
    if place.is_dir():
        return [path.name for path in files_at(str(place)) if format_of(path)]
    try:
        with zipfile.ZipFile(place) as members:
            return [name for name in members.namelist() if format_of(name)]
    except zipfile.BadZipFile:
        return [place.name]


def _has_key() -> bool:
    folder = Path(os.environ.get("KAGGLE_CONFIG_DIR") or "~/.kaggle").expanduser()
    in_file = any((folder / name).is_file() for name in ("kaggle.json", "access_token"))
    return in_file or bool(os.environ.get("KAGGLE_API_TOKEN"))


def _tables(place: Path, name: str, dataset: str, file: str | None, stack: ExitStack) -> list[tuple[DataFile, Path]]:
    """The tables in a folder, in an archive, or the one file; an archive is unpacked for as long as it is read."""
    if place.is_dir() or not place.is_file():
        return local_files(str(place), dataset, None, None, file)
    if not _is_zip(place):
        if not format_of(name):
            raise click.ClickException(f"{dataset}: {name}: neither a zip archive nor one of {', '.join(FORMATS)}")
        return [(DataFile(name, None), place)]
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    unpacked = _unpack(place, folder, f"{dataset}: {name}")
    chosen = choose_files(list(unpacked), [], dataset, None, None, file)
    return [(table, unpacked[table.path]) for table in chosen]


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _unpack(archive: Path, folder: Path, who: str) -> dict[str, Path]:
    """The tables of an archive, under names of our own; one bad member condemns all of it."""
    unpacked = {}
    try:
        with zipfile.ZipFile(archive) as members:
            _refuse_bad_members(members.infolist(), who)
            for number, member in enumerate(members.infolist()):
                if format_of(member.filename):
                    target = folder / str(number)
                    with members.open(member) as packed, target.open("wb") as file:
                        shutil.copyfileobj(packed, file, 1 << 20)
                    unpacked[member.filename] = target
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise click.ClickException(f"{who}: a broken zip archive: {error}; --refresh downloads it again") from error
    return unpacked


def _refuse_bad_members(members: list[zipfile.ZipInfo], who: str) -> None:
    for member in members:
        if fault := _fault(member):
            raise click.ClickException(f"{who}: refused: the member {member.filename!r} {fault}")
    if (total := sum(member.file_size for member in members)) > _LARGEST:
        raise click.ClickException(f"{who}: refused: it unpacks to {total:,} bytes")


def _fault(member: zipfile.ZipInfo) -> str | None:
    # The original name: zipfile itself cuts the other one at a NUL byte.
    name = member.orig_filename.replace("\\", "/")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or "\0" in name:
        return "has an absolute name"
    if ".." in name.split("/"):
        return "leads out of the archive"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "is a link"
    if member.flag_bits & 1:
        return "is encrypted"
    if member.file_size > max(_SUSPICIOUS, _LARGEST_RATIO * member.compress_size):
        return f"unpacks from {member.compress_size:,} to {member.file_size:,} bytes"
    return None


def _download(dataset: str, file: str | None, version: int | None, fetch: Fetch) -> tuple[Path, str, int]:
    """The file or the whole archive, what it is called, and which version it is."""
    fetch = fetch._replace(folder=fetch.folder / dataset.replace("/", "--"))
    if version is None:
        version = _newest(dataset, fetch)
    name = file or "archive.zip"
    cached = f"version-{version}--{name.replace('/', '--')}"
    number = version

    def get(folder: Path) -> None:
        patiently(dataset, lambda: _save(dataset, file, number, folder / cached))

    return fetch.cached(cached) or fetch.download(cached, get), name, version


def _newest(dataset: str, fetch: Fetch) -> int:
    """The newest version; the second run takes the one that the first run found."""
    name = "version.json"

    def get(folder: Path) -> None:
        found = patiently(dataset, lambda: _look_up(dataset))
        Path(folder, name).write_text(json.dumps({"version": found}), "utf-8")

    place = fetch.cached(name) or fetch.download(name, get)
    try:
        return int(json.loads(place.read_text("utf-8"))["version"])
    except (ValueError, TypeError, KeyError) as error:
        raise click.ClickException(f"{place}: damaged: {error}; --refresh writes it again") from error


def _look_up(dataset: str) -> int:
    from kagglehub.http_resolver import ApiGetDatasetRequest

    request = ApiGetDatasetRequest()
    request.owner_slug, request.dataset_slug = dataset.split("/")
    with _client(dataset) as client:
        return int(client.get_dataset(request).current_version_number)


def _save(dataset: str, file: str | None, version: int, target: Path) -> None:
    from kagglehub.http_resolver import ApiDownloadDatasetRequest
    from kagglehub.integrity import get_md5_checksum_from_response

    request = ApiDownloadDatasetRequest()
    request.owner_slug, request.dataset_slug = dataset.split("/")
    request.dataset_version_number = version
    if file:
        request.file_name = file
    with _client(dataset) as client, client.download_dataset(request) as answer:
        length = answer.headers.get("Content-Length")
        save(
            answer.iter_content(1 << 20),
            target,
            f"{dataset}: {file or 'the archive'}",
            size=int(length) if length and "Content-Encoding" not in answer.headers else None,
            sha256=None,
            md5=get_md5_checksum_from_response(answer),
        )


@contextmanager
def _client(dataset: str) -> Iterator[Any]:
    """The client of kagglehub, which brings endpoint and key; what comes back is unpacked and checked by us.

    kagglehub's own dataset_download unpacks whatever it gets, draws progress bars into logs, and follows any redirect.
    """
    try:
        import requests
        from kagglehub.clients import build_kaggle_client
    except ImportError as error:
        raise click.UsageError("type kaggle needs the package kagglehub: pip install 'linemill[sources]'") from error
    try:
        with build_kaggle_client() as client:
            _guard(client.http_client())
            yield client.datasets.dataset_api_client
    except requests.RequestException as error:
        raise _plain(error, dataset) from error
    except ValueError as error:  # the key file
        raise click.ClickException(f"{dataset}: {error}") from error


def _guard(http: Any) -> None:
    """Refuse redirects to strangers, and never wait without end: the client itself knows neither."""
    from requests.adapters import HTTPAdapter

    class Guard(HTTPAdapter):
        def send(self, request: Any, *args: Any, **options: Any) -> Any:
            refuse_strangers(request.url, http._endpoint, _FRIENDS)
            return super().send(request, *args, **{**options, "timeout": options.get("timeout") or _TIMEOUT})

    http._session.mount("https://", Guard())
    http._session.mount("http://", Guard())


def _plain(error: Any, dataset: str) -> Exception:
    """What Kaggle's answer means, in one line."""
    status = error.response.status_code if error.response is not None else None
    if status == 429:
        return Busy(seconds(error.response.headers.get("Retry-After")))
    import requests

    if isinstance(error, requests.ConnectionError):
        return click.ClickException(f"{dataset}: no connection to Kaggle ({innermost(error)})")
    if status is None:
        return click.ClickException(f"{dataset}: the download is broken: {type(error).__name__}: {error}; run again")
    key = "the key in ~/.kaggle/kaggle.json or KAGGLE_USERNAME and KAGGLE_KEY is missing, wrong, or not let in"
    reasons = {401: key, 403: key, 404: "no such data set, version or file; check the names"}
    return click.ClickException(f"{dataset}: Kaggle says {status}: {reasons.get(status, error)}")
