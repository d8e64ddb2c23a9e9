"""What shards cost in processes of this machine, and what the same work costs on a Ray cluster of three nodes.

    python bench/shards.py [--records 20000] [--shards 20] [--stages filter prepare] [--engines local ray]

The corpus of bench/dedupe.py is cut into shards; each stage reads them by two processes, then by a cluster of a head
and two worker nodes that run here as processes of their own. Printed are the CPU seconds of all processes of a run,
the cluster's included, their peak memory (the sum of what they have for themselves), and whether the bytes are equal.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from dedupe import make_corpus

ROOT = Path(__file__).resolve().parent.parent
TICK = os.sysconf("SC_CLK_TCK")
STAGES = {
    "filter": ["filter_quality.py", "--input", "rows", "--output", "{out}"],
    "prepare": ["prepare_data.py", "prepare", "--sources", "mine", "--output-dir", "{out}"],
}


class Watch(threading.Thread):
    """Adds up what all processes cost that have this mark in their environment."""

    def __init__(self, mark: str) -> None:
        super().__init__(daemon=True)
        self.mark = f"BENCH_MARK={mark}".encode()
        self.cpu: dict[str, float] = {}
        self.known: dict[str, bool] = {}
        self.peak = 0
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.25):
            self.look()

    def look(self) -> None:
        total = 0
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if not self.is_ours(place):
                    continue
                fields = (place / "stat").read_text().rsplit(")", 1)[1].split()
                self.cpu[place.name] = (int(fields[11]) + int(fields[12])) / TICK
                total += own_memory(place)
            except (OSError, IndexError):
                continue  # it has just ended
        self.peak = max(self.peak, total)

    def is_ours(self, place: Path) -> bool:
        if not self.known.get(place.name):
            self.known[place.name] = self.mark in (place / "environ").read_bytes()
        return self.known[place.name]

    def stop(self) -> tuple[float, float]:
        """CPU seconds, and MB."""
        self.look()
        self.over.set()
        self.join()
        return sum(self.cpu.values()), self.peak / 1e6


def own_memory(place: Path) -> int:
    """What a process has for itself; what it shares, such as the object store, is counted by its part."""
    for line in (place / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def cluster(env: dict[str, str]):
    """A head without processors for tasks, and two nodes with one each; yields the address."""
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    store = ["--object-store-memory", str(600 * 2**20)]
    head = [*command, "--head", f"--port={address.split(':')[1]}", "--num-cpus=0", "--include-dashboard=false", *store]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = [subprocess.Popen(head, env=env, **quiet)]
    try:
        wait_for(address)
        running += [
            subprocess.Popen([*command, f"--address={address}", "--num-cpus=1", *store], env=env, **quiet)
            for _ in range(2)
        ]
        yield address
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


def wait_for(address: str) -> None:
    host, port = address.split(":")
    deadline = time.monotonic() + 180
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def measure(stage: str, engine: str, folder: Path) -> dict[str, object]:
    env = os.environ | {
        "BENCH_MARK": f"{stage}-{engine}-{os.getpid()}",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    env |= {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled", "RAY_raylet_start_wait_time_s": "300"}
    out = folder / f"{stage}-{engine}"
    script, *words = [word.format(out=out) for word in STAGES[stage]]
    watch = Watch(env["BENCH_MARK"])
    watch.start()
    began = time.monotonic()
    if engine == "local":
        work([script, *words, "--workers", "2"], folder, env)
    else:
        with cluster(env) as address:
            work([script, *words, "--engine", "ray", "--address", address], folder, env)
            watch.look()
    cpu, peak = watch.stop()
    return {"cpu": cpu, "peak": peak, "wall": time.monotonic() - began, "out": out}


def work(words: list[str], folder: Path, env: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, str(ROOT / words[0]), *words[1:]], cwd=folder, env=env, capture_output=True)
    if done.returncode:
        raise SystemExit(done.stderr.decode())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--engines", nargs="+", default=["local", "ray"], choices=["local", "ray"])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_corpus(folder / "corpus.jsonl", asked.records, seed=7)
        command = [sys.executable, "-m", "schema", "reshard", "corpus.jsonl", "rows", "--shards", str(asked.shards)]
        subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
        (folder / "corpus.jsonl").unlink()
        (folder / "sources.yaml").write_text("mine:\n  type: local\n  path: rows\n")
        for stage in asked.stages:
            first = None
            for engine in asked.engines:
                told = measure(stage, engine, folder)
                first = first or contents(told["out"])
                line = {"stage": stage, "engine": engine, "records": asked.records, "shards": asked.shards}
                line |= {"cpu_s": round(told["cpu"], 1), "us_each": round(told["cpu"] / asked.records * 1e6)}
                line |= {"peak_mb": round(told["peak"]), "wall_s": round(told["wall"], 1)}
                print(json.dumps(line | {"same_bytes": contents(told["out"]) == first}), flush=True)


if __name__ == "__main__":
    main()
