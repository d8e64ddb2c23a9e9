"""Drop near duplicates with the four stages of datatrove's MinHash, in two processes: 14 buckets of 8 hashes.

    python datatrove_minhash.py CORPUS.jsonl OUTPUT_DIR

That is its own default, which takes two documents for alike from about 0.72; it is what FineWeb was made with. The
corpus is cut in two, as a task reads files and not parts of them.
"""

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datatrove.data import DocumentsPipeline
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers.jsonl import JsonlWriter
from datatrove.utils.typeshelper import Languages
from datatrove.utils.word_tokenizers import WordTokenizer

CONFIG = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)


def document(_: Any, row: dict[str, Any], path: str, number: int) -> dict[str, Any]:
    return {"text": row["code"], "id": f"{path}/{number}", "metadata": {"row": row}}


def row_of(_: Any, document: Any) -> dict[str, Any]:
    return document.metadata["row"]


def split(data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
    chance = random.Random(42 + rank)
    for document in data:
        document.metadata["side"] = "test" if chance.random() < 0.1 else "train"
        yield document


def main(corpus: str, output: str, words: str | WordTokenizer = Languages.english) -> None:
    work = Path(output, "work")
    for folder in ("parts", "signatures", "buckets", "remove"):
        (work / folder).mkdir(parents=True)
    subprocess.run(["split", "-n", "l/2", "--additional-suffix=.jsonl", corpus, work / "parts/part-"], check=True)
    reader = JsonlReader(str(work / "parts"), adapter=document)
    writer = JsonlWriter(output, "${side}-${rank}.json", compression=None, adapter=row_of)
    signatures, buckets, remove = (str(work / folder) for folder in ("signatures", "buckets", "remove"))
    stages: list[tuple[int, list[Any]]] = [
        (2, [reader, MinhashDedupSignature(signatures, config=CONFIG, language=words)]),
        (14, [MinhashDedupBuckets(signatures, buckets, config=CONFIG)]),
        (1, [MinhashDedupCluster(buckets, remove, config=CONFIG)]),
        (2, [reader, MinhashDedupFilter(remove), split, writer]),
    ]
    for number, (tasks, pipeline) in enumerate(stages):
        LocalPipelineExecutor(
            pipeline, tasks=tasks, workers=min(tasks, 2), start_method="fork", logging_dir=str(work / f"log{number}")
        ).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
