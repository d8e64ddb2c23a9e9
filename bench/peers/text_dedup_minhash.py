"""Drop near duplicates with the command line of text-dedup, in two processes.

    python text_dedup_minhash.py CORPUS.jsonl OUTPUT_DIR

The threshold is 0.7, the rest is its own default: 250 permutations, runs of five words. It has no split: the rows that
it saved are split and written by datasets, which it is built on.
"""

import subprocess
import sys

from datasets import disable_progress_bars, load_from_disk


def main(corpus: str, output: str) -> None:
    options = {"path": "json", "data_files": corpus, "split": "train", "cache_dir": f"{output}/cache", "column": "code"}
    options |= {"output": f"{output}/kept", "threshold": "0.7", "num_proc": "2", "use_auth_token": "false"}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    subprocess.run([sys.executable, "-m", "text_dedup.minhash", *words], check=True)
    disable_progress_bars()
    sides = load_from_disk(f"{output}/kept").train_test_split(test_size=0.1, seed=42)
    for side, part in sides.items():
        part.to_json(f"{output}/{side}.json")


if __name__ == "__main__":
    main(*sys.argv[1:])
