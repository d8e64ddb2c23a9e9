"""Send a folder to a data set of the hub, private unless told otherwise; only the files that are named."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import click

import schema

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def check(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise click.UsageError(f"--push {name}: a repository is called OWNER/NAME")


def push(folder: Path, names: Sequence[str], repository: str, *, public: bool) -> str:
    """Upload the files in one commit; gives the address of it."""
    try:
        import httpx2
        from huggingface_hub import CommitOperationAdd, HfApi
        from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]
    except ImportError:
        raise click.UsageError("--push needs the package huggingface_hub: pip install 'linemill[sources]'") from None

    disable_progress_bars()
    api = HfApi(token=os.environ.get("HF_TOKEN"))
    try:
        api.create_repo(repository, repo_type="dataset", private=not public, exist_ok=True)
        operations = [CommitOperationAdd(name, folder / name) for name in names]
        done = api.create_commit(
            repository, operations, commit_message="Upload a data set with its card", repo_type="dataset"
        )
    except (OSError, ValueError, httpx2.HTTPError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise schema.Failure(f"{repository}: the hub did not take it: {first}") from None
    return str(done.commit_url)
