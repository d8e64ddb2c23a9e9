"""The rendered frames of a program as pictures in a question.

`metadata.render.frame`, which filter_quality.py --frames writes, or a list `frames` names files of one folder.
"""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from schema import Fault, Record

MOST = 4  # pictures in a question: each costs as much as a page of text
LARGEST = 4_000_000  # bytes; both providers refuse what is much larger
KINDS = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}

option = click.option(
    "--with-frames",
    "frames",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Show the model the frames that metadata.render names in this folder.",
)


def pictures_of(record: Record, folder: Path | None) -> tuple[str, ...] | Fault:
    """The frames as data: addresses, spread over the whole scene; none where there are none."""
    render = record["metadata"].get("render")
    names = render.get("frames") or render.get("frame") if isinstance(render, dict) else None
    if folder is None or not names:
        return ()
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return Fault("bad_frame", f"metadata.render names no list of files: {names!r:.200}")
    try:
        return tuple(address(name, folder) for name in spread(names))
    except (OSError, ValueError) as error:
        return Fault("bad_frame", f"a frame can not be shown: {error}")


def spread(names: Sequence[str]) -> list[str]:
    """The last frame, which shows what a scene comes to, and others at equal distances before it."""
    if len(names) <= MOST:
        return list(names)
    return [names[(len(names) - 1) * place // (MOST - 1)] for place in range(MOST)]


def address(name: str, folder: Path) -> str:
    path = (folder / name).resolve()
    # A record may name any file of this machine; what is sent away is a picture out of the folder that the user named.
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"{name} lies outside of {folder}")
    data = path.read_bytes()
    kind: Any = next((kind for sign, kind in KINDS.items() if data.startswith(sign)), None)
    if kind is None or len(data) > LARGEST:
        raise ValueError(f"{name} is no PNG or JPEG of at most {LARGEST:,} bytes")
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
