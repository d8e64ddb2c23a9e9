"""On a Ray cluster the bytes are those of one machine, also when nodes are killed. The cluster runs here."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import CLEAN, ROOT, record, run_script
from test_shards import FILTER, SPLIT, clustered, cut, rows_with_faults
from test_stage_contract import many

import schema
from stages.prepare_data import identity, parting

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs ray: make scale-setup")
RAY = {"RAY_AUTH_MODE": "disabled", "RAY_raylet_start_wait_time_s": "300", "RAY_USAGE_STATS_ENABLED": "0"}
RAY |= {"PYTHONPATH": str(ROOT)}
PATIENT = 900  # seconds: a cluster starts slowly on a machine that is busy


class Cluster:
    """A head without processors for tasks, and nodes with one each, all of them processes of their own."""

    def __init__(self, folder):
        self.env = CLEAN | RAY | {"HOME": str(folder)}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.head = self.start("--head", f"--port={self.port}", "--num-cpus=0", "--include-dashboard=false")
        deadline = time.monotonic() + PATIENT
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        self.nodes = [self.start_node() for _ in range(2)]

    def start_node(self):
        """A node that has come up; on a busy machine one in some gives up before it does."""
        deadline = time.monotonic() + PATIENT
        while time.monotonic() < deadline:
            node = self.start(f"--address={self.address}", "--num-cpus=1")
            while node.poll() is None and time.monotonic() < deadline:
                if any(name_of(process) == "raylet" for process in family(node.pid)):
                    return node
                time.sleep(0.2)
        raise AssertionError("no node came up")

    def start(self, *words):
        memory = f"--object-store-memory={100 * 2**20}"
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", memory, *words]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(command, env=self.env, start_new_session=True, **quiet)

    def kill(self, node):
        """All of a node at once, as when a machine loses its power."""
        for process in family(node.pid):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        node.wait()

    def close(self):
        for node in [*self.nodes, self.head]:
            if node.poll() is None:
                self.kill(node)


def family(first):
    """A process and all that it has started, directly or not."""
    children = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((place / "stat").read_text().rsplit(")", 1)[1].split()[1])
            children.setdefault(parent, []).append(int(place.name))
        except OSError:
            continue
    found, waiting = [], [first]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


def name_of(process):
    try:
        return Path(f"/proc/{process}/comm").read_text().strip()
    except OSError:
        return ""


@pytest.fixture
def cluster(tmp_path_factory):
    running = Cluster(tmp_path_factory.mktemp("home"))
    yield running
    running.close()


def on_ray(cluster, *words, cwd, check=0):
    more = ["--engine", "ray", "--address", cluster.address]
    return run_script(*words, *more, cwd=cwd, check=check, env=RAY, timeout=PATIENT)


def begin_on_ray(cluster, *words, cwd):
    """A run that goes on while the test does something to the cluster."""
    command = [sys.executable, str(ROOT / words[0]), *words[1:], "--engine", "ray", "--address", cluster.address]
    log = open(cwd / "log", "wb")  # noqa: SIM115  the process has it
    return subprocess.Popen(command, cwd=cwd, env=CLEAN | RAY | {"HOME": str(cwd)}, stderr=log)


def wait_until(condition, running):
    deadline = time.monotonic() + PATIENT
    while not condition():
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def scenes(count):
    """Scenes, copies of them, and copies with other names and numbers, in no order."""
    chance, rows = random.Random(3), [record(number) for number in range(count)]
    for row in rows[::4]:
        code = row["code"].replace("shape", "thing") if chance.random() < 0.5 else row["code"]
        rows.append({**row, "code": code, "description": f"{row['description']} Again."})
    chance.shuffle(rows)
    return rows


PREPARE = ["prepare_data.py", "prepare", "--sources", "mine", "--output-dir"]
YAML = "mine:\n  type: local\n  path: rows\n"


@needs_ray
def test_every_stage_gives_the_bytes_of_one_machine(tmp_path, cluster):
    cut(tmp_path / "rows", rows_with_faults(), count=6)
    (tmp_path / "sources.yaml").write_text(YAML)
    offline = ["prepare_data_with_llm.py", "generate-descriptions", "--llm", "offline"]
    for name, stage in {"filter": FILTER, "describe": offline}.items():
        run_script(*stage, "--input", "rows", "--output", f"{name}-here", cwd=tmp_path, check=0)
        on_ray(cluster, *stage, "--input", "rows", "--output", f"{name}-there", cwd=tmp_path)
        assert contents(tmp_path / f"{name}-here") == contents(tmp_path / f"{name}-there")
    cut(tmp_path / "rows", clustered(), count=6)
    for stage in ([*SPLIT, "--input", "rows", "--output-dir"], PREPARE):
        run_script(*stage, f"{stage[0]}-here", cwd=tmp_path, check=0)
        on_ray(cluster, *stage, f"{stage[0]}-there", cwd=tmp_path)
        assert contents(tmp_path / f"{stage[0]}-here") == contents(tmp_path / f"{stage[0]}-there")


@needs_ray
@pytest.mark.skipif(find_spec("manim") is None, reason="Manim is not installed (make render-setup)")
def test_programs_are_run_on_the_nodes_as_they_are_here(tmp_path, cluster):
    step = "class A(Scene):\n    def construct(self):\n        self.add(Dot(radius={}))\n        self.wait()\n"
    bodies = ["0.1", "0.2", "1 / 0", "0.4"]
    cut(
        tmp_path / "rows",
        [record(n, code=f"from manim import *\n\n\n{step.format(b)}") for n, b in enumerate(bodies)],
        2,
    )
    words = ["filter_quality.py", "--min-quality", "0", "--render", "check", "--input", "rows", "--output"]
    run_script(*words, "here", cwd=tmp_path, check=0)
    on_ray(cluster, *words, "there", cwd=tmp_path)
    # What the rendering took, in seconds, stands in the manifest here, and there in the ledger of each shard.
    for name in ("part-0.jsonl", "part-1.jsonl", "rejects/part-0.jsonl", "rejects/part-1.jsonl"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
    assert b"render_" in (tmp_path / "there" / "rejects" / "part-1.jsonl").read_bytes()
    assert (tmp_path / "there" / "part-0.jsonl").read_bytes().count(b"\n") == 2
    run_script("schema", "audit", "there", cwd=tmp_path, check=0)


@needs_ray
def test_a_node_that_is_killed_in_the_middle_changes_nothing(tmp_path, cluster):
    cut(tmp_path / "rows", scenes(400), count=8)
    (tmp_path / "sources.yaml").write_text(YAML)
    run_script(*PREPARE, "here", cwd=tmp_path, check=0)
    running = begin_on_ray(cluster, *PREPARE, "there", cwd=tmp_path)
    # This line stands between the reading of the rows and the shuffle that merges them.
    wait_until(lambda: b"mine: " in (tmp_path / "log").read_bytes(), running)
    cluster.kill(cluster.nodes[0])
    assert running.wait(PATIENT) == 0, (tmp_path / "log").read_text()
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


@needs_ray
def test_after_the_head_was_killed_the_same_command_goes_on(tmp_path, cluster):
    cut(tmp_path / "rows", many(3000), count=10)
    run_script(*FILTER, "--input", "rows", "--output", "here", cwd=tmp_path, check=0)
    running = begin_on_ray(cluster, *FILTER, "--input", "rows", "--output", "there", cwd=tmp_path)
    wait_until(lambda: (tmp_path / "there" / "part-1.jsonl").exists(), running)
    cluster.close()
    assert running.wait(PATIENT) == 1
    deadline = time.monotonic() + 30
    while "Error: Ray at " not in (tmp_path / "log").read_text():  # a shell says it when the process is gone
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not (tmp_path / "there" / "manifest.json").exists()
    again = Cluster(tmp_path)
    try:
        done = on_ray(again, *FILTER, "--input", "rows", "--output", "there", cwd=tmp_path)
    finally:
        again.close()
    assert int(re.search(r"(\d+) of 10 shards were finished before", done.err)[1]) >= 1
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


@needs_ray
def test_no_cluster_at_the_address_is_one_line(tmp_path):
    cut(tmp_path / "rows", many(4))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        words = [*FILTER, "--input", "rows", "--output", "out", "--engine", "ray", "--address", address]
        done = run_script(*words, cwd=tmp_path, check=1, env=RAY)
    assert done.err.strip().split("\n")[-1].startswith(f"Error: --address {address}: no Ray cluster")
    words[-1] = "somewhere"
    assert "HOST:PORT" in run_script(*words, cwd=tmp_path, check=2).err


def test_without_the_package_the_engine_is_one_line(tmp_path):
    cut(tmp_path / "rows", many(4))
    (tmp_path / "hidden" / "ray").mkdir(parents=True)
    (tmp_path / "hidden" / "ray" / "__init__.py").write_text("raise ImportError('hidden')")
    words = [*FILTER, "--input", "rows", "--output", "out", "--engine", "ray", "--address", "local"]
    done = run_script(*words, cwd=tmp_path, check=2, env={"PYTHONPATH": str(tmp_path / "hidden")})
    assert "pip install 'linemill[scale]'" in done.err


# --- the parts of a decision, without a cluster -----------------------------------------------------------------------

POLICY = identity.Policy(True, False, 0.7, "alpha", "merge", "merge", 3, "flag")


@pytest.mark.parametrize("near", [0.7, 0.4, None])
@pytest.mark.parametrize("same", [{}, {"same_code": "keep"}, {"same_description": "keep"}])
def test_parts_decide_what_one_place_decides(near, same):
    rows = scenes(150) + clustered()[:-1]
    policy = POLICY._replace(near_threshold=near or 1.0, **same)
    marks = schema.marks(rows, near=near)
    order = list(range(len(rows) - 30))
    random.Random(1).shuffle(order)
    firm, here = range(len(rows) - 30, len(rows)), schema.Workplace(workers=2)
    merged = identity.merge_duplicates(marks, order, firm, policy)
    assert parting.merge_duplicates(marks, order, firm, policy, here) == merged
    assert len(merged) > 10
    kept = [number for number in order if number not in merged]
    for ratio in (0.5, 0.1, 0.0, 1e-9):
        assert parting.split(marks, kept, ratio, 42, here) == identity.split(marks, kept, ratio, 42)


def test_components_are_what_hangs_together():
    import numpy

    edges = [numpy.array([[5, 3], [3, 9]]), numpy.array([[8, 7], [1, 5]])]
    assert [found.tolist() for found in schema.components(10, edges)] == [[1, 3, 5, 9], [7, 8]]
    assert schema.components(3, []) == []
    chain = numpy.column_stack([numpy.arange(1, 2000), numpy.arange(1999)])
    assert [len(found) for found in schema.components(2000, [numpy.random.default_rng(0).permutation(chain)])] == [2000]


def test_what_is_dealt_is_whole_and_in_order():
    import numpy

    sets = [numpy.array(members) for members in ([4, 9, 11], [0, 7], [1, 2], [3, 20])]
    parts = [part.tolist() for part in schema.dealt(sets, 2)]
    assert sorted(number for part in parts for number in part) == sorted(n for one in sets for n in one.tolist())
    assert all(part == sorted(part) for part in parts) and len(parts) == 2
