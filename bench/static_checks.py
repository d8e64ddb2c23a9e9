"""What the static checks of `filter_quality.py` cost, beside ruff and pyflakes on the same programs.

    python bench/static_checks.py [--records 20000] [--input FILE] [--runs 1] [--workers 2] [--peer-python PYTHON]

The records are those of bench/dedupe.py, or those of a file of one's own. `filter_quality.py` reads the records, scores
and writes them; the peers only look for names that nothing binds and for faults of the syntax: ruff in a folder of
files, as it is a program for that, pyflakes in one process that is given the programs. Everything runs in turn. Printed
are the median CPU seconds, with all processes, the CPU time of a record, and the largest process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from dedupe import make_corpus

ROOT = Path(__file__).resolve().parent.parent
PYFLAKES = """
import io, json, sys, warnings
from pyflakes import api, reporter
warnings.simplefilter("ignore")
said = reporter.Reporter(io.StringIO(), io.StringIO())
for number, line in enumerate(open(sys.argv[1], "rb")):
    api.check(json.loads(line)["code"], f"{number}.py", said)
"""


def write_programs(source: Path, folder: Path) -> int:
    """A file for each program, a thousand to a folder."""
    count = 0
    with open(source, "rb") as lines:
        for count, line in enumerate(lines, 1):
            place = folder / f"{count // 1000:04}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"program_{count}.py").write_text(json.loads(line)["code"], "utf-8", "surrogatepass", "")
    return count


def has_program(line: bytes) -> bool:
    """Whether a line is a record of a program, so that all contestants get the same."""
    try:
        record = json.loads(line)
    except ValueError:
        return False
    return isinstance(record, dict) and all(isinstance(record.get(name), str) for name in ("code", "description"))


def measure(command: list[str], folder: Path) -> tuple[float, float]:
    """CPU seconds of the command and its own children, and the memory of the largest of them in MB."""
    process = os.fork()
    if process == 0:  # a process of its own, so that its children are counted apart from those of other commands
        done = subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        (folder / "used.json").write_text(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
        os._exit(done.returncode > 1)  # 1: ruff has found something
    _, status = os.waitpid(process, 0)
    if status:
        raise SystemExit(f"{' '.join(command[:3])} failed")
    seconds, memory = json.loads((folder / "used.json").read_text())
    return seconds, memory


def contestants(folder: Path, workers: int, peer_python: str) -> dict[str, list[str]]:
    ours = [sys.executable, str(ROOT / "filter_quality.py"), "-q", "--input", "in.jsonl", "--output", "out.jsonl"]
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "-q", "--select", "F,E9", "programs"]
    found = {"filter_quality.py": [*ours, "--workers", str(workers)], "ruff check --select F,E9": ruff}
    if subprocess.run([peer_python, "-c", "import pyflakes"], capture_output=True, check=False).returncode:
        print(f"pyflakes is not in {peer_python}: skipped; --peer-python names another Python")
    else:
        found["pyflakes"] = [peer_python, "-c", PYFLAKES, "in.jsonl"]
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("--records", type=int, default=20_000)
    options.add_argument("--input", type=Path)
    options.add_argument("--runs", type=int, default=1)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--peer-python", default=sys.executable)
    told = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if told.input:
            with open(told.input, "rb") as lines, open(folder / "in.jsonl", "wb") as rows:
                rows.writelines(filter(has_program, lines))
        else:
            make_corpus(folder / "in.jsonl", told.records, 7)
        count = write_programs(folder / "in.jsonl", folder / "programs")
        chosen = contestants(folder, told.workers, told.peer_python)
        figures: dict[str, list[tuple[float, float]]] = {label: [] for label in chosen}
        for _ in range(told.runs):
            for label, command in chosen.items():
                figures[label].append(measure(command, folder))
        print(f"{count:,} records")
        for label, rounds in figures.items():
            cpu, memory = (statistics.median(column) for column in zip(*rounds, strict=True))
            print(f"  {label:25} {cpu:6.1f} CPU-s, {cpu / count * 1000:.2f} CPU-ms a record, {memory:.0f} MB")


if __name__ == "__main__":
    main()
