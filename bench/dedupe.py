"""What stage 1 costs and finds on records with known duplicates, beside the usual recipe of datasketch and pandas.

    python bench/dedupe.py [--records 20000] [--runs 1] [--peer-python PYTHON]

The corpus is made here from a seed, so the truth is known: copies that are exact, renamed or edited, and hard
negatives, which share half of their lines with another program and are no copies. Both contestants read the file,
drop duplicates, split and write, each in a process of its own, in turn; stage 1 also validates, repairs and reports.
Printed are the median CPU seconds, the peak memory, the share of copies found, and how many removals are right.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PEER = """
import re, pandas
from datasketch import MinHash, MinHashLSH
rows = pandas.read_json("corpus.jsonl", lines=True).drop_duplicates("code")
index, kept = MinHashLSH(threshold=0.7, num_perm=128), []
for number, code in zip(rows.index, rows.code):
    words = re.findall(r"\\w+|[^\\w\\s]", code)
    sketch = MinHash(num_perm=128)
    sketch.update_batch([" ".join(words[start : start + 5]).encode() for start in range(max(1, len(words) - 4))])
    if not index.query(sketch):
        index.insert(number, sketch)
        kept.append(number)
rows = rows.loc[kept]
test = rows.sample(frac=0.1, random_state=42)
rows.drop(test.index).to_json("train.json", orient="records", lines=True)
test.to_json("test.json", orient="records", lines=True)
"""
WORDS = {
    "shape": "Annulus Arc Arrow Circle Cube Dot Ellipse Line Polygon Rectangle Sector Sphere Square Star Triangle",
    "colour": "BLUE GOLD GREEN MAROON ORANGE PINK PURPLE RED TEAL WHITE YELLOW",
    "move": "Create FadeIn FadeOut GrowFromCenter Indicate Rotate ShowPassingFlash Uncreate Wiggle Write",
    "method": "flip move_to next_to rotate scale set_fill set_opacity set_stroke shift stretch to_corner to_edge",
    "side": "UP DOWN LEFT RIGHT",
    "name": "angle area axis base curve field graph grid limit matrix mean node path point prime root sum tree wave",
}
COPIES = {"exact": 0.08, "renamed": 0.06, "edited": 0.06, "hard negative": 0.04}


def make_program(chance: random.Random) -> list[str]:
    """The lines of a scene of ten to twenty steps; numbers and words make each step unlike all others."""
    lines, names = [], list[str]()
    for _ in range(chance.randint(10, 20)):
        word = {kind: chance.choice(words.split()) for kind, words in WORDS.items()}
        number = f"{chance.uniform(0.1, 9):.2f}"
        if not names or chance.random() < 0.4:
            names.append(f"{word['name']}_{chance.randint(1, 99)}")
            lines.append(f"{names[-1]} = {word['shape']}(color={word['colour']}, stroke_width={number})")
        elif chance.random() < 0.5:
            lines.append(f"{chance.choice(names)}.{word['method']}({number} * {word['side']})")
        else:
            lines.append(f"self.play({word['move']}({chance.choice(names)}), run_time={number})")
    return lines


def renamed(lines: list[str]) -> list[str]:
    """The same program with other names for all that it names itself."""
    own = [line.split(" = ")[0] for line in lines if re.match(r"\w+ = ", line)]
    new = {name: f"thing{number}" for number, name in enumerate(own)}
    return [re.sub(r"\w+", lambda match: new.get(match[0], match[0]), line) for line in lines]


def edited(lines: list[str], chance: random.Random) -> list[str]:
    """One number changed, one step added, a comment put in."""
    place = chance.randrange(len(lines))
    changed = [*lines[:place], re.sub(r"\d+\.\d+", "0.55", lines[place]), *lines[place + 1 :]]
    return ["# A new beginning", *changed, f"self.wait({chance.randint(2, 9)})"]


def make_corpus(path: Path, count: int, seed: int) -> dict[str, tuple[str, str]]:
    """Write the records, and give for each id what kind it is, and the id of the record that it was made from."""
    chance, rows, truth = random.Random(seed), list[dict[str, Any]](), dict[str, tuple[str, str]]()

    def add(lines: list[str], kind: str, base: str) -> None:
        name = f"r{len(rows)}"
        code = "\n".join(["from manim import *", "", "", f"class Scene{chance.randint(1, 99)}(Scene):"])
        code = "\n".join([code, "    def construct(self):", *(" " * 8 + line for line in lines), ""])
        rows.append({"description": f"Scene {name}.", "code": code, "source": "bench", "metadata": {"id": name}})
        truth[name] = kind, base or name

    while len(rows) < count:
        lines = make_program(chance)
        add(lines, "base", "")
        base, half = f"r{len(rows) - 1}", len(lines) // 2
        kind = chance.choices([*COPIES, "none"], [*COPIES.values(), 1 - sum(COPIES.values())])[0]
        if kind == "exact":
            add(lines, kind, base)
            rows[-1]["code"] = rows[-2]["code"]
        elif kind != "none":
            other = {"renamed": renamed(lines), "edited": edited(lines, chance)}
            add(other.get(kind, [*lines[:half], *make_program(chance)[:half]]), kind, base)
    chance.shuffle(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return truth


def score(folder: Path, truth: dict[str, tuple[str, str]]) -> dict[str, float]:
    """Of the copies of each kind, how many do not stand beside what they were made from; of the removals, how many
    removed a copy and left the other.
    """
    kept = set()
    for side in ("train.json", "test.json"):
        kept |= {json.loads(line)["metadata"]["id"] for line in (folder / side).read_bytes().splitlines()}
    made, found = Counter[str](), Counter[str]()
    for name, (kind, base) in truth.items():
        made[kind] += 1
        found[kind] += not (name in kept and base in kept)
    copies = ("exact", "renamed", "edited")
    right = sum((name in kept) != (base in kept) for name, (kind, base) in truth.items() if kind in copies)
    return {
        "recall": sum(found[kind] for kind in copies) / sum(made[kind] for kind in copies),
        **{kind: found[kind] / made[kind] for kind in copies},
        "hard negatives kept": 1 - found["hard negative"] / made["hard negative"],
        "precision": right / max(1, len(truth) - len(kept)),
    }


def measure(command: list[str], folder: Path) -> tuple[float, float]:
    """CPU seconds and peak memory in MB."""
    process = subprocess.Popen(command, cwd=folder)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[1]} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def contestants(folder: Path, peer_python: str) -> dict[str, tuple[list[str], Path]]:
    """Each with its command and the folder that it writes."""
    (folder / "sources.yaml").write_text("bench:\n  type: local\n  path: corpus.jsonl\n")
    prepare = [sys.executable, str(ROOT / "prepare_data.py"), "prepare", "-q", "--output-dir", "out"]
    found = {"prepare_data.py": (prepare, folder / "out")}
    has_peer = subprocess.run([peer_python, "-c", "import datasketch, pandas"], capture_output=True, check=False)
    if has_peer.returncode:
        print(f"datasketch and pandas are not both in {peer_python}: skipped; --peer-python names another Python")
    else:
        found["datasketch + pandas"] = [peer_python, "-c", PEER], folder
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("--records", type=int, default=20_000)
    options.add_argument("--runs", type=int, default=1)
    options.add_argument("--seed", type=int, default=7)
    options.add_argument("--peer-python", default=sys.executable)
    told = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth = make_corpus(folder / "corpus.jsonl", told.records, told.seed)
        kinds = Counter(kind for kind, _ in truth.values())
        print(f"{len(truth):,} records: {', '.join(f'{count:,} {kind}' for kind, count in kinds.items())}")
        chosen = contestants(folder, told.peer_python)
        figures: dict[str, list[tuple[float, float]]] = {label: [] for label in chosen}
        for _ in range(told.runs):
            for label, (command, _) in chosen.items():
                figures[label].append(measure(command, folder))
        for label, (_, output) in chosen.items():
            cpu, memory = (statistics.median(column) for column in zip(*figures[label], strict=True))
            shares = ", ".join(f"{what} {share:.3f}" for what, share in score(output, truth).items())
            print(f"  {label:20} {cpu:.1f} CPU-s, {cpu / len(truth) * 1e6:.0f} us a record, {memory:.0f} MB; {shares}")


if __name__ == "__main__":
    main()
