"""What shards cost in processes of this machine, and what the same work costs on a Ray cluster of three nodes.

    python bench/shards.py [--records 20000] [--shards 20] [--stages filter prepare] [--engines local ray node-lost]

The corpus of bench/dedupe.py is cut into shards; each stage reads them by two processes, then by a cluster of a head
and two worker nodes that run here as processes of their own. Printed are the CPU seconds of all processes of a run,
the cluster's included, their peak memory (the sum of what they have for themselves), and whether the bytes are equal.

With `node-lost` the processes of one node are killed at once while a task runs on it: in the shuffle of prepare, and
when half of the shards of filter are there. With `head-lost` those of the head are, when half of the shards are read
or written; when the run has noticed, the same command runs again on a new cluster. With `--folder` the corpus and the
outputs stay, and a further call of this script compares with what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from dedupe import make_corpus

ROOT = Path(__file__).resolve().parent.parent
TICK = os.sysconf("SC_CLK_TCK")
STAGES = {
    "filter": ["filter_quality.py", "--input", "rows", "--output", "{out}"],
    "prepare": ["prepare_data.py", "prepare", "--sources", "mine", "--output-dir", "{out}"],
}
PROCESSORS = """
import sys, ray
ray.init(sys.argv[1], log_to_driver=False, logging_level=40)
print(int(ray.cluster_resources().get("CPU", 0)))
"""


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
        return self.spent(), self.peak / 1e6

    def spent(self) -> float:
        return sum(self.cpu.values())


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


class Cluster:
    """A head without processors for tasks, and two nodes with one each."""

    def __init__(self, env: dict[str, str]) -> None:
        self.env, port = env, free_port()
        self.address = f"127.0.0.1:{port}"
        self.head = self.start("--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false")
        wait_for(self.address)
        self.nodes = [self.start_node(number) for number in (1, 2)]

    def start_node(self, number: int) -> subprocess.Popen[bytes]:
        """A node that belongs to the cluster; now and then one gives up before it does."""
        while True:
            node = self.start(f"--address={self.address}", "--num-cpus=1")
            while node.poll() is None:
                if self.processors() == number:
                    return node
                time.sleep(0.2)

    def processors(self) -> int:
        """How many the cluster has for tasks; the process that asks is not counted."""
        env = {name: value for name, value in self.env.items() if name != "BENCH_MARK"}
        command = [sys.executable, "-c", PROCESSORS, self.address]
        return int(subprocess.run(command, env=env, capture_output=True, check=True).stdout)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", *words]
        store = f"--object-store-memory={600 * 2**20}"
        return subprocess.Popen([*command, store], env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        running = [*self.nodes, self.head]
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


def family(first: int) -> list[int]:
    """A process and all that it has started, directly or not."""
    children: dict[int, list[int]] = {}
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((place / "stat").read_text().rsplit(")", 1)[1].split()[1])
            children.setdefault(parent, []).append(int(place.name))
    found, waiting = list[int](), [first]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


def kill(nodes: list[subprocess.Popen[bytes]]) -> None:
    """As when machines lose their power."""
    for process in [process for node in nodes for process in family(node.pid)]:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    for node in nodes:
        node.wait()


def is_at_work(node: subprocess.Popen[bytes]) -> bool:
    """Whether a task runs there: Ray names the process after its function."""
    return any(command_of(process).startswith(b"ray::_do") for process in family(node.pid))


def command_of(process: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes()
    return b""


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
    command = [sys.executable, str(ROOT / script), *words]
    watch = Watch(env["BENCH_MARK"])
    watch.start()
    began = time.monotonic()
    if engine == "local":
        end(begin([*command, "--workers", "2"], folder, env), folder)
    else:
        on_cluster(command, folder, env, watch, (stage, engine))
    cpu, peak = watch.stop()
    return {"cpu": cpu, "peak": peak, "wall": time.monotonic() - began, "out": out}


def on_cluster(command: list[str], folder: Path, env: dict[str, str], watch: Watch, case: tuple[str, str]) -> None:
    engine, out = case[1], folder / "-".join(case)
    cluster = Cluster(env)
    try:
        running = begin([*command, "--engine", "ray", "--address", cluster.address], folder, env)
        if engine == "node-lost":
            wait_for_middle(case, out, cluster, running)
            watch.look()
            kill(cluster.nodes[:1])
        if engine == "head-lost":
            wait_for_middle(case, out, cluster, running)
            watch.look()
            lost = time.monotonic()
            kill([cluster.head])
            running.wait()
            time.sleep(1)  # until the last words are there
            told = ((folder / "log").read_text().strip().splitlines() or [""])[-1]
            facts = {"exit": running.returncode, "told": told, "noticed_after_s": round(time.monotonic() - lost, 1)}
            watch.look()
            print(json.dumps(facts | {"cpu_s_so_far": round(watch.spent(), 1)}), flush=True)
            kill(cluster.nodes)
            cluster = Cluster(env)
            running = begin([*command, "--engine", "ray", "--address", cluster.address], folder, env)
        end(running, folder)
        watch.look()
    finally:
        cluster.stop()


def wait_for_middle(case: tuple[str, str], out: Path, cluster: Cluster, running: subprocess.Popen[bytes]) -> None:
    """Until half of the shards are written, or read where a set is written at once; or until the shuffle runs."""
    log, half = out.parent / "log", sum(1 for _ in (out.parent / "rows").glob("*.jsonl")) // 2
    read, written = out.parent.glob, out.glob

    def is_there() -> bool:
        if case == ("prepare", "node-lost"):
            return b"mine: " in log.read_bytes()
        found = read(f".{out.name}.read/*/answer.json") if case[0] == "prepare" else written("*.jsonl")
        return sum(1 for _ in found) >= half

    while not is_there():
        assert running.poll() is None, log.read_text()
        time.sleep(0.05)
    while case[1] == "node-lost" and not is_at_work(cluster.nodes[0]):
        assert running.poll() is None
        time.sleep(0.02)


def begin(command: list[str], folder: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
    with open(folder / "log", "wb") as log:
        return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=log)


def end(running: subprocess.Popen[bytes], folder: Path) -> None:
    running.wait()
    log = (folder / "log").read_text()
    if running.returncode:
        raise SystemExit(log)
    for line in log.splitlines():
        if " before" in line:  # what an earlier run had finished
            print(json.dumps({"told": line.strip()}), flush=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def make_rows(folder: Path, records: int, shards: int) -> None:
    if (folder / "rows").exists():
        return
    folder.mkdir(exist_ok=True)
    make_corpus(folder / "corpus.jsonl", records, seed=7)
    command = [sys.executable, "-m", "schema", "reshard", "corpus.jsonl", "rows", "--shards", str(shards)]
    subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    (folder / "corpus.jsonl").unlink()
    (folder / "sources.yaml").write_text("mine:\n  type: local\n  path: rows\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES))
    engines = ["local", "ray", "node-lost", "head-lost"]
    parser.add_argument("--engines", nargs="+", default=engines[:2], choices=engines)
    parser.add_argument("--folder", type=Path, help="where the corpus and the outputs stay")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = (asked.folder or Path(name)).absolute()
        make_rows(folder, asked.records, asked.shards)
        for stage in asked.stages:
            for engine in asked.engines:
                told = measure(stage, engine, folder)
                line = {"stage": stage, "engine": engine, "records": asked.records, "shards": asked.shards}
                line |= {"cpu_s": round(told["cpu"], 1), "us_each": round(told["cpu"] / asked.records * 1e6)}
                line |= {"peak_mb": round(told["peak"]), "wall_s": round(told["wall"], 1)}
                others = [other for other in sorted(folder.glob(f"{stage}-*")) if other != told["out"]]
                same = all(contents(other) == contents(told["out"]) for other in others[:1])
                print(json.dumps(line | {"same_bytes": same if others else None}), flush=True)


if __name__ == "__main__":
    main()
