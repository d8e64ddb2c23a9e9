"""How fast records are copied with validation on both sides, beside peers that validate nothing.

    python bench/copy_records.py [--records 200000] [--runs 3] [--big]

Every contestant copies the same file of records of about 1.5 kB, in a process of its own, in turn (A B C A B C ...).
Printed are the median CPU seconds per run, the records per CPU-second, the ratio to plain json of the same round,
and the peak memory. --big adds one validated copy of a file of 1 GB, for its memory alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = """
import schema
with schema.rejects("copy.jsonl") as reject, schema.write("copy.jsonl") as keep:
    for record in schema.read("in.jsonl", reject):
        keep(record)
"""
JSON = """
import json
with open("in.jsonl", encoding="utf-8") as rows, open("copy.jsonl", "w", encoding="utf-8") as copy:
    for row in rows:
        copy.write(json.dumps(json.loads(row), ensure_ascii=False) + "\\n")
"""
MEMORY = (
    '\nimport re, sys\nprint(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1], file=sys.stderr)\n'
)


def make_rows(path: Path, count: int) -> None:
    """Records that differ in every line and are about 1.5 kB long, as real scenes are."""
    body = "        self.play(Create(Circle(color=BLUE).shift({0} * RIGHT)), run_time=1.5)\n        self.wait({1})\n"
    with open(path, "w", encoding="utf-8") as file:
        for number in range(count):
            code = f"from manim import *\n\n\nclass Scene{number}(Scene):\n    def construct(self):\n"
            code += "".join(body.format(number % 7 + step, step) for step in range(11))
            origin = {"package": "manim", "version": "0.22.0", "path": "manim/mobject/geometry/arc.py", "line": number}
            metadata = {
                "id": f"{number:064x}",
                "kind": "code",
                "needs_description": False,
                "origin": origin,
                "licence": "MIT",
            }
            row = {"description": f"Draw {number} blue circles", "code": code, "source": "bench", "metadata": metadata}
            file.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")


def measure(command: list[str], folder: Path, output: Path | None) -> tuple[float, int | None]:
    """CPU seconds of one run, and its peak memory in MB where the command tells it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(output or os.devnull, "wb") as sink:
        done = subprocess.run(
            command,
            cwd=folder,
            stdout=sink,
            stderr=subprocess.PIPE,
            check=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = re.search(rb"(\d+)\s*$", done.stderr)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, int(told[1]) // 1024 if told else None


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--records", type=int, default=200_000)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--big", action="store_true")
    told = options.parse_args()
    contestants = {
        "schema.read/write": [sys.executable, "-c", SCHEMA + MEMORY],
        "plain json": [sys.executable, "-c", JSON + MEMORY],
    }
    if jq := shutil.which("jq"):
        contestants["jq -c ."] = [jq, "-c", ".", "in.jsonl"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_rows(folder / "in.jsonl", told.records)
        size = (folder / "in.jsonl").stat().st_size
        print(f"{told.records:,} records, {size / told.records:.0f} bytes each, {told.runs} rounds")
        found: dict[str, list[tuple[float, int | None]]] = {label: [] for label in contestants}
        for _ in range(told.runs):
            for label, command in contestants.items():
                found[label].append(measure(command, folder, folder / "jq.out" if label.startswith("jq") else None))
        report(found, told.records)
        if told.big:
            make_rows(folder / "in.jsonl", int(told.records * 2**30 / size))
            cpu, memory = measure(contestants["schema.read/write"], folder, None)
            print(f"validated copy of 1 GB: {cpu:.1f} CPU-s, {memory} MB")


def report(found: dict[str, list[tuple[float, int | None]]], records: int) -> None:
    plain = [cpu for cpu, _ in found["plain json"]]
    print(f"{'':20} {'CPU-s':>8} {'records/CPU-s':>15} {'to plain json':>14} {'peak MB':>8}")
    for label, runs in found.items():
        cpu = statistics.median(cpu for cpu, _ in runs)
        ratio = statistics.median(base / cpu for base, (cpu, _) in zip(plain, runs, strict=True))
        memory = max((memory for _, memory in runs if memory), default=None)
        print(f"{label:20} {cpu:8.2f} {records / cpu:15,.0f} {ratio:13.2f}x {memory or '-':>8}")


if __name__ == "__main__":
    main()
