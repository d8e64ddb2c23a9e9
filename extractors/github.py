"""The scenes of a repository: one record for each Scene class, with all that it needs of the repository.

    my_scenes:
      type: github
      repo: owner/name            # or a list; or url: any git url; or path: a folder, or a .jsonl of {path, code}
      revision: 0123abc           # a commit, a tag or a branch; write it down, so that the source stays what it is
      include: ["videos/*.py"]    # patterns; * also matches /, and all .py files if left out
      exclude: ["*/tests/*"]
      assets: replace             # pictures become shapes that their names suggest; or reject, or keep
      voiceover: rewrite          # spoken scenes become silent ones; or reject
      whole_files: true           # one record for each file with a scene, as it is
      keep_imports: [manim_ml]    # packages that are not taken apart, though they stand in the repository
      youtube: {IntroScene: "https://youtu.be/..."}      # by scene or by the start of the path
      path_pattern: 'Day_(?P<day>[0-9]+)'                # its groups go into the metadata,
      title: "Advent of Code, day {day}"                 # and into the title

Nothing of the repository is run, and no link in it is followed. Files written for ManimGL are rejected as `manimgl`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from extractors._fetch import Fetch
from extractors._repository import chosen, is_cached, left_out, needs, open_repositories
from extractors._rows import BadRow
from extractors._scenes import Wishes, rows_of

__all__ = ["extract", "is_cached", "needs"]


def extract(
    *,
    fetch: Fetch,
    repo: str | list[str] | None = None,
    url: str | None = None,
    path: str | None = None,
    revision: str | None = None,
    include: list[str] | None = None,
    exclude: list[str] | None = None,
    assets: Literal["keep", "replace", "reject"] = "replace",
    voiceover: Literal["rewrite", "reject"] = "rewrite",
    whole_files: bool = False,
    keep_imports: list[str] | None = None,
    youtube: dict[str, str] | None = None,
    path_pattern: str | None = None,
    title: str | None = None,
) -> Iterator[dict[str, Any] | BadRow]:
    """One row for each scene, or for each file with a scene, in the order of the paths."""
    kept = {"manim", *(keep_imports or [])}
    wishes = Wishes(assets, voiceover, whole_files, kept, youtube or {}, path_pattern, title)
    for repository in open_repositories(fetch, repo, url, path, revision):
        patterns = include or ["*.py"]
        yield from left_out(repository, patterns, exclude or [])
        wanted = [name for name in chosen(repository.files, patterns, exclude or []) if name.endswith(".py")]
        yield from rows_of(repository, wanted, wishes)
