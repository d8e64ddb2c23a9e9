"""Drop near duplicates with data-juicer's document_minhash_deduplicator, in two processes.

    python data_juicer_minhash.py CORPUS.jsonl OUTPUT_DIR

The threshold is 0.7, the rest is its own default, 256 permutations and runs of five, but for what they are runs of:
what punctuation parts, as what spaces part, its default, finds fewer copies in code. It has no split: the lines that it
wrote are dealt out here. On its first run it installs torch by itself, which takes gigabytes.
"""

import random
import sys
from contextlib import ExitStack
from pathlib import Path

from data_juicer.config import init_configs
from data_juicer.core import DefaultExecutor

RECIPE = """
project_name: bench
dataset_path: {corpus}
export_path: {work}/kept.jsonl
text_keys: code
np: 2
open_tracer: false
process:
  - document_minhash_deduplicator:
      tokenization: punctuation
      window_size: 5
      jaccard_threshold: 0.7
"""


def main(corpus: str, output: str) -> None:
    work = Path(output, "work")
    work.mkdir()
    (work / "recipe.yaml").write_text(RECIPE.format(corpus=corpus, work=work))
    DefaultExecutor(init_configs(["--config", str(work / "recipe.yaml")])).run()
    chance = random.Random(42)
    with ExitStack() as stack:
        rows = stack.enter_context(open(work / "kept.jsonl", "rb"))
        train, test = (stack.enter_context(open(Path(output, side), "wb")) for side in ("train.json", "test.json"))
        for row in rows:
            (test if chance.random() < 0.1 else train).write(row)


if __name__ == "__main__":
    main(*sys.argv[1:])
