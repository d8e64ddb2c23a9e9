"""The loss of every row by its id, each time that it is trained on; which rows stand out in the end."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

import schema
from stages.train.rows import Row

FILE = "losses.jsonl"
SUSPICIOUS = 10


class RowLosses:
    """Listens to the model: what trl computes for each token anyway is added up for each row.

    A row is known by its tokens, so that neither packing, nor shuffling, nor several processes need to carry its id.
    """

    def __init__(self, rows: Iterable[Row]):
        self.ids = {_key(row.ids): str(row.record["metadata"]["id"]) for row in rows}
        self.lines: list[dict[str, Any]] = []
        self.fresh: list[dict[str, Any]] = []

    def listen(self, model: Any) -> None:
        model.register_forward_hook(self._hear, with_kwargs=True)

    def _hear(self, model: Any, _: Any, given: dict[str, Any], output: Any) -> None:
        losses = getattr(output, "log_probs", None)
        if not model.training or losses is None:
            return
        loss, counted = -losses.detach().float().cpu(), output.label_mask.cpu()
        for row, start, end in _spans(given):
            tokens = int(counted[row, start:end].sum())
            entry = {"loss": round(float(loss[row, start:end].sum()) / max(tokens, 1), 6), "tokens": tokens}
            key = _key(given["input_ids"][row, start:end].tolist())
            self.fresh.append({"id": self.ids.get(key, "unknown"), **entry})

    def end_step(self, step: int, epoch: int, *, several: bool) -> None:
        if several:
            from accelerate.utils import gather_object

            self.fresh = gather_object(self.fresh)
        self.lines += [{"epoch": epoch, "step": step, **entry} for entry in self.fresh]
        self.fresh = []

    def save(self, path: Path) -> None:
        with schema.atomic(path) as file:
            for line in self.lines:
                file.write(schema.encode(line) + b"\n")

    def restore(self, checkpoint: Path) -> None:
        """What a run that goes on has heard before."""
        self.lines = [msgspec.json.decode(line) for line in (checkpoint / FILE).read_bytes().splitlines()]


def _key(ids: Sequence[int]) -> str:
    return schema.sha256(array("q", ids).tobytes())


def _spans(given: dict[str, Any]) -> Iterator[tuple[int, int, int]]:
    """Where each row of a batch stands: one after the other when packed, else one below the other with padding."""
    if (places := given.get("position_ids")) is not None and "attention_mask" not in given:
        starts = [*(places[0] == 0).nonzero().flatten().tolist(), places.shape[1]]
        for start, end in pairwise(starts):
            yield 0, start, end
    else:
        for row, length in enumerate(given["attention_mask"].sum(dim=1).tolist()):
            yield row, 0, length


def suspicious(lines: Sequence[dict[str, Any]], rows: Iterable[Row]) -> list[str]:
    """The rows that the model has learned least, when each was seen last: often they are wrong, not hard."""
    last = {line["id"]: line["loss"] for line in lines}
    known = {str(row.record["metadata"]["id"]): row.record for row in rows}
    worst = sorted((name for name in last if name in known), key=lambda name: (-last[name], name))[:SUSPICIOUS]
    return [f"{last[name]:8.3f}  {name[:16]}  {_where(known[name])}" for name in worst]


def _where(record: schema.Record) -> str:
    origin = record["metadata"].get("origin")
    place = [str(origin[key]) for key in ("path", "url", "line", "row", "page") if origin.get(key)] if origin else []
    words = " ".join(record["description"].split())
    return f"{' '.join([record['source'], *place])}  {words[:60]!r}"
