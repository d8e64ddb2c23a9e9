"""Drop near duplicates as one does with datasets and datasketch: two processes sketch, one asks the index.

python datasets_datasketch.py CORPUS.jsonl OUTPUT_DIR
"""

import re
import sys
from typing import Any

import numpy
from datasets import Dataset, disable_progress_bars
from datasketch import MinHash, MinHashLSH


def sketched(row: dict[str, Any]) -> dict[str, Any]:
    words = re.findall(r"\w+|[^\w\s]", row["code"])
    sketch = MinHash(num_perm=128)
    sketch.update_batch([" ".join(words[start : start + 5]).encode() for start in range(max(1, len(words) - 4))])
    return {"sketch": sketch.hashvalues}


def main(corpus: str, output: str) -> None:
    disable_progress_bars()
    rows = Dataset.from_json(corpus).map(sketched, num_proc=2)
    index = MinHashLSH(threshold=0.7, num_perm=128)

    def is_new(hashes: list[int], number: int) -> bool:
        sketch = MinHash(num_perm=128, hashvalues=numpy.array(hashes), scheme="affine32")
        if index.query(sketch):
            return False
        index.insert(number, sketch)
        return True

    kept = rows.filter(is_new, with_indices=True, input_columns="sketch")
    sides = kept.remove_columns("sketch").train_test_split(test_size=0.1, seed=42)
    for side, part in sides.items():
        part.to_json(f"{output}/{side}.json")


if __name__ == "__main__":
    main(*sys.argv[1:])
