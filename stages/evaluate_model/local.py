"""Weights in this process as something that can be asked: rows in batches, or a conversation word by word."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import schema
from stages.evaluate_model import models
from stages.evaluate_model.asking import Answer, Item, Sampling


class Local:
    """A model folder or a name on the hub, perhaps with an adapter."""

    def __init__(self, model: str, adapter: Path | None, sampling: Sampling, batch_size: int, system: str | None):
        self.loaded = models.load(model, adapter)
        self.names, self.sampling, self.batch_size, self.system = (model, adapter), sampling, batch_size, system

    def identity(self) -> dict[str, Any]:
        return {"weights": weight_digests(*self.names)}

    def prompt(self, record: schema.Record) -> list[int] | schema.Fault:
        return models.prompt_ids(self.loaded, record, self.system)

    def ask(self, items: list[Item], known: set[int]) -> Iterator[dict[int, Answer]]:
        """Batches hold what they would hold if nothing were known: the company of a prompt moves its last bits."""
        for number, group in enumerate(models.batches([len(item.prompt) for item in items], self.batch_size)):
            if known.issuperset(group):
                continue
            # A seed for each batch, so that a run that goes on draws what an undisturbed one would have drawn.
            seed = int(schema.sha256(schema.canonical([self.sampling.seed, number]))[:15], 16)
            prompts = [items[position].prompt for position in group]
            yield dict(zip(group, models.generate(self.loaded, prompts, self.sampling, seed), strict=True))

    def reply(self, messages: list[dict[str, str]], say: Callable[[str], None]) -> str:
        """One answer in a conversation; `say` gets it as it grows."""
        ids = models.render(self.loaded.tokenizer, messages, ask=True)
        if len(ids) >= self.loaded.context:
            raise schema.Failure(f"the conversation has {len(ids):,} tokens, the model reads {self.loaded.context:,}")
        return models.stream(self.loaded, ids, self.sampling, say)


def weight_digests(model: str, adapter: Path | None) -> dict[str, Any]:
    """What was measured, by its bytes: a folder's name says little about what is in it tomorrow."""
    folders: dict[str, Path | None] = {"model": models.find_model(model), "adapter": adapter}
    return {
        role: {path.name: schema.file_facts(path)["sha256"] for path in sorted(folder.glob("*.safetensors"))}
        for role, folder in folders.items()
        if folder
    }
