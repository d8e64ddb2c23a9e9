"""Send a folder to a repository of the hub, private unless told otherwise; only what its manifest lists."""

from __future__ import annotations

import os
from pathlib import Path

import click

import schema
from stages.merge_export import models


def check(name: str) -> None:
    if not models.HUB_NAME.fullmatch(name) or "/" not in name:
        raise click.UsageError(f"--push {name}: a repository is called OWNER/NAME")


def push(folder: Path, names: list[str], repository: str, *, public: bool) -> str:
    """Upload the files in one commit; gives the address of it."""
    import httpx2
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    disable_progress_bars()
    api = HfApi(token=os.environ.get("HF_TOKEN"))
    try:
        api.create_repo(repository, private=not public, exist_ok=True)
        operations = [CommitOperationAdd(name, folder / name) for name in names]
        done = api.create_commit(repository, operations, commit_message="Upload a model with its manifest")
    except (OSError, ValueError, httpx2.HTTPError) as error:
        raise schema.Failure(f"{repository}: the hub did not take it: {models.first_line(error)}") from None
    return str(done.commit_url)
