"""Drop near duplicates as one does with pandas and datasketch: one process, everything in memory.

python pandas_datasketch.py CORPUS.jsonl OUTPUT_DIR
"""

import re
import sys

import pandas
from datasketch import MinHash, MinHashLSH

corpus, output = sys.argv[1:]
rows = pandas.read_json(corpus, lines=True).drop_duplicates("code")
index, kept = MinHashLSH(threshold=0.7, num_perm=128), []
for number, code in zip(rows.index, rows.code, strict=True):
    words = re.findall(r"\w+|[^\w\s]", code)
    sketch = MinHash(num_perm=128)
    sketch.update_batch([" ".join(words[start : start + 5]).encode() for start in range(max(1, len(words) - 4))])
    if not index.query(sketch):
        index.insert(number, sketch)
        kept.append(number)
rows = rows.loc[kept]
test = rows.sample(frac=0.1, random_state=42)
rows.drop(test.index).to_json(f"{output}/train.json", orient="records", lines=True)
test.to_json(f"{output}/test.json", orient="records", lines=True)
