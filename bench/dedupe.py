"""What stage 1 costs and finds on records with known duplicates, beside the usual recipes of others in bench/peers.

    python bench/dedupe.py [--records 20000] [--runs 1] [--workers 2] [--peers NAME ...] [--peer-python PYTHON ...]

The corpus is made here from a seed, so the truth is known: copies that are exact, renamed or edited, and hard
negatives, which share half of their lines with another program and are no copies. All contestants read the file, drop
duplicates, split and write, each in a process of its own, in turn; stage 1 also validates, repairs and reports. A peer
runs in the first of the Pythons that has it, and is left out when none does; `--peers` without a name leaves all out.

Printed are the medians of CPU time, with all processes, of time, and of the peak memory, the share of copies found, and
how many removals are right.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
OURS = "prepare_data.py"
COSTS = ("cpu", "seconds", "peak")
PEERS = {  # what the recipe needs; what it runs with is told, too
    "pandas_datasketch": ["pandas", "datasketch"],
    "datasets_datasketch": ["datasets", "datasketch"],
    "datatrove_minhash": ["datatrove", "spacy", "orjson", "tokenizers", "xxhash"],
    "datatrove_spaces": ["datatrove", "orjson", "tokenizers", "xxhash"],
    "text_dedup_minhash": ["text-dedup", "datasets"],
    "data_juicer_minhash": ["py-data-juicer", "datasets", "scipy", "aiohttp"],
}
VERSIONS = "import sys; from importlib.metadata import version; print(*(f'{n} {version(n)}' for n in sys.argv[1:]))"
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
    written = [place for side in ("train", "test") for place in folder.glob(f"{side}*.json")]
    kept = {json.loads(line)["metadata"]["id"] for place in written for line in place.read_bytes().splitlines()}
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


def contestants(corpus: Path, workers: int, names: list[str], pythons: list[str]) -> dict[str, list[str]]:
    """The command of each, which lacks the folder that it writes."""
    (corpus.parent / "sources.yaml").write_text(f"bench:\n  type: local\n  path: {corpus}\n")
    prepare = [sys.executable, str(HERE.parent / "prepare_data.py"), "prepare", "-q", "--workers", str(workers)]
    found = {OURS: [*prepare, "--sources-file", str(corpus.parent / "sources.yaml"), "--output-dir"]}
    for name in names:
        for python in pythons:
            asked = [python, "-c", VERSIONS, *PEERS[name]]
            versions = subprocess.run(asked, capture_output=True, text=True, check=False)
            if versions.returncode == 0:
                print(f"{name}: {versions.stdout.strip()}")
                found[name] = [python, str(HERE / "peers" / f"{name}.py"), str(corpus)]
                break
        else:
            print(f"{name}: not all of {', '.join(PEERS[name])} are in {' or '.join(pythons)}: skipped (--peer-python)")
    return found


def measure(command: list[str], output: Path) -> dict[str, float]:
    """What bench/cost.py says of a run that writes into a new folder, and finds nothing that an earlier one kept."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    figures, log = output.with_suffix(".cost"), output.with_suffix(".log")
    with open(log, "wb") as said:
        measured = [sys.executable, str(HERE / "cost.py"), str(figures), *command, str(output)]
        surroundings = os.environ | {"HF_HOME": str(output / "cache"), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(measured, cwd=output, env=surroundings, stdout=said, stderr=said, check=False)
    if done.returncode:
        raise SystemExit(f"{log.read_text(errors='replace')}\n{command[1]} failed")
    return json.loads(figures.read_text())


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("--records", type=int, default=20_000)
    options.add_argument("--runs", type=int, default=1)
    options.add_argument("--seed", type=int, default=7)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    options.add_argument("--peer-python", nargs="+", default=[sys.executable])
    told = options.parse_args()
    for python in told.peer_python:
        if not shutil.which(python):
            options.error(f"--peer-python {python}: no such program")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth = make_corpus(folder / "corpus.jsonl", told.records, told.seed)
        kinds = Counter(kind for kind, _ in truth.values())
        print(f"{len(truth):,} records: {', '.join(f'{count:,} {kind}' for kind, count in kinds.items())}")
        chosen = contestants(folder / "corpus.jsonl", told.workers, told.peers, told.peer_python)
        rounds = [{name: measure(command, folder / name) for name, command in chosen.items()} for _ in range(told.runs)]
        middle = {
            name: {what: statistics.median(one[name][what] for one in rounds) for what in COSTS} for name in chosen
        }
        shares = {name: score(folder / name, truth) for name in chosen}
    print("|", *COSTS, "CPU us a record", "to ours", *shares[OURS], "", sep=" | ")
    for name, cost in middle.items():
        each, ratio = cost["cpu"] / len(truth) * 1e6, cost["cpu"] / middle[OURS]["cpu"]
        figures = [f"{value:.1f}" for value in cost.values()] + [f"{each:.0f}", f"{ratio:.1f}x"]
        print(f"| {name}", *figures, *(f"{share:.3f}" for share in shares[name].values()), "", sep=" | ")


if __name__ == "__main__":
    main()
