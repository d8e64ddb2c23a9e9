"""Inputs and outputs in a store: the same bytes as here, and the ledger or manifest last. The servers run here."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec

import pytest
from conftest import read_rows, record, run_script, write_rows
from fake_stores import Dataset, GoogleStorage
from test_shards import FILTER, SPLIT, clustered, cut, rows_with_faults, without_line
from test_stage_contract import many

import schema

NEEDS = {"s3": ["s3fs", "moto", "flask"], "gs": ["gcsfs"], "hf": ["huggingface_hub"]}


def lacking(scheme):
    return [name for name in NEEDS[scheme] if find_spec(name) is None]


# What tells moto which of its services is meant.
SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request"}
SIGNED |= {"Content-Type": "application/octet-stream"}  # else the body is taken for a form


def ask(place, method="GET", data=None):
    data = b"" if method == "PUT" and data is None else data
    request = urllib.request.Request(place, method=method, data=data, headers=SIGNED)
    return urllib.request.urlopen(request, timeout=120).read()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Moto:
    """A store of S3, which runs as a process of its own."""

    base = "s3://data"

    def __init__(self):
        port = free_port()
        self.place = f"http://127.0.0.1:{port}"
        self.env = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        self.env |= {"AWS_ENDPOINT_URL": self.place}
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        self.server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self):
        deadline = time.monotonic() + 60
        while True:
            try:
                ask(self.place)
                break
            except OSError:
                assert self.server.poll() is None and time.monotonic() < deadline
                time.sleep(0.1)
        ask(f"{self.place}/data", "PUT")
        return self

    def __exit__(self, *_):
        self.server.kill()
        self.server.wait()

    def put(self, name, data):
        ask(f"{self.place}/data/{name}", "PUT", data)

    def get(self, name):
        return ask(f"{self.place}/data/{name}")

    def remove(self, name):
        ask(f"{self.place}/data/{name}", "DELETE")

    def names(self):
        text = ask(f"{self.place}/data?list-type=2").decode()
        return [part.split("</Key>")[0] for part in text.split("<Key>")[1:]]


class Fake:
    """A store of this process, which tells also in what order it was written."""

    def __init__(self, base, store, env):
        self.base, self.store, self.named = base, store, env

    def __enter__(self):
        self.serving = self.store.serve()
        self.serving.__enter__()
        self.env = {name: value or self.store.url for name, value in self.named.items()}
        return self

    def __exit__(self, *error):
        self.serving.__exit__(*error)

    def put(self, name, data):
        self.store.files[name] = data

    def get(self, name):
        return self.store.files[name]

    def remove(self, name):
        del self.store.files[name]

    def names(self):
        return sorted(self.store.files)


STORES = {
    "s3": Moto,
    "gs": lambda: Fake("gs://data", GoogleStorage(), {"STORAGE_EMULATOR_HOST": None}),
    "hf": lambda: Fake(
        "hf://datasets/own/data",
        Dataset(),
        {"HF_ENDPOINT": None, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_key"},
    ),
}


@pytest.fixture(scope="module", params=STORES)
def running(request):
    if lacks := lacking(request.param):
        pytest.skip(f"needs {', '.join(lacks)}: make scale-setup")
    with STORES[request.param]() as store:
        yield store


@pytest.fixture
def store(running, tmp_path):
    """A folder of a store for one test."""

    class Folder:
        env = running.env
        base = f"{running.base}/{tmp_path.name}"

        def put(self, name, path):
            running.put(f"{tmp_path.name}/{name}", path.read_bytes())

        def get(self, name):
            return running.get(f"{tmp_path.name}/{name}")

        def remove(self, name):
            running.remove(f"{tmp_path.name}/{name}")

        def names(self):
            return inside(running.names())

        def written(self):
            return inside(running.store.written) if isinstance(running, Fake) else None

    def inside(names):
        return [name.replace(f"{tmp_path.name}/", "") for name in names if f"{tmp_path.name}/" in name]

    return Folder()


def go(store, *words, cwd, check=0):
    return run_script(*words, cwd=cwd, check=check, env=store.env)


def test_a_file_goes_from_store_to_store(tmp_path, store):
    write_rows(tmp_path / "rows.jsonl", rows_with_faults())
    store.put("rows.jsonl", tmp_path / "rows.jsonl")
    go(store, *FILTER, "--input", "rows.jsonl", "--output", "one.jsonl", cwd=tmp_path)
    go(store, *FILTER, "--input", f"{store.base}/rows.jsonl", "--output", f"{store.base}/out.jsonl", cwd=tmp_path)
    assert store.get("out.jsonl") == (tmp_path / "one.jsonl").read_bytes()
    assert store.get("out.rejects.jsonl") == (tmp_path / "one.rejects.jsonl").read_bytes()
    assert store.names() == ["out.jsonl", "out.ledger.json", "out.rejects.jsonl", "rows.jsonl"]
    assert json.loads(store.get("out.ledger.json"))["inputs"][0]["path"] == f"{store.base}/rows.jsonl"
    go(store, "schema", "audit", f"{store.base}/out.ledger.json", cwd=tmp_path)
    store.put("out.jsonl", tmp_path / "rows.jsonl")
    go(store, "schema", "audit", f"{store.base}/out.ledger.json", cwd=tmp_path, check=1)


def test_what_others_write_meanwhile_is_seen(tmp_path, store, monkeypatch):
    for name, value in store.env.items():
        monkeypatch.setenv(name, value)
    if store.base.startswith("hf"):  # its client has read its environment when it was imported
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "ENDPOINT", store.env["HF_ENDPOINT"])
    place = write_rows(tmp_path / "rows.jsonl", [record()])
    store.put("rows.jsonl", place)
    before = schema.stamp(f"{store.base}/rows.jsonl")
    assert schema.stamp(f"{store.base}/rows.jsonl") == before
    place.write_bytes(place.read_bytes().replace(b"draws", b"shows"))
    store.put("rows.jsonl", place)
    assert schema.stamp(f"{store.base}/rows.jsonl") != before


def test_a_file_that_is_sent_in_parts_is_whole_in_the_store(tmp_path, store):
    rows = many(50)
    for number, row in enumerate(rows):
        row["code"] += "".join(f"# {number} {line}\n" for line in range(12000))
    write_rows(tmp_path / "rows.jsonl", rows)
    assert (tmp_path / "rows.jsonl").stat().st_size > 5 * 2**20
    go(store, "schema", "convert", "--input", "rows.jsonl", "--output", "one.jsonl", cwd=tmp_path)
    go(store, "schema", "convert", "--input", "rows.jsonl", "--output", f"{store.base}/out.jsonl", cwd=tmp_path)
    assert store.get("out.jsonl") == (tmp_path / "one.jsonl").read_bytes()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_shards_of_a_store_go_to_a_store_and_only_what_is_unfinished_again(tmp_path, store, workers):
    cut(tmp_path / "rows", [*many(60), b"{"])
    for path in (tmp_path / "rows").iterdir():
        store.put(f"rows/{path.name}", path)
    go(store, *FILTER, "--input", "rows", "--output", "out", cwd=tmp_path)
    words = [*FILTER, "--input", f"{store.base}/rows", "--output", f"{store.base}/out", "--workers", workers]
    go(store, *words, cwd=tmp_path)
    for number in range(4):
        assert store.get(f"out/part-{number}.jsonl") == (tmp_path / "out" / f"part-{number}.jsonl").read_bytes()
    assert "out/manifest.json" in store.names()
    assert "out/UNFINISHED" not in store.names()
    go(store, "schema", "audit", f"{store.base}/out", cwd=tmp_path)
    store.remove("out/part-1.jsonl")
    changed = tmp_path / "rows" / "part-2.jsonl"
    changed.write_bytes(changed.read_bytes().replace(b"draws", b"shows", 1))  # of the same size as before
    store.put("rows/part-2.jsonl", changed)
    assert "2 of 4 shards were finished before" in go(store, *words, cwd=tmp_path).err
    if written := store.written():  # both runs: first the sign that the set is open, the manifest last
        assert written[0] == "out/UNFINISHED"
        assert written[-2:] == ["out/manifest.json", "-out/UNFINISHED"]
        assert written.count("out/manifest.json") == 2
        assert "-out/manifest.json" in written
    go(store, "schema", "audit", f"{store.base}/out", cwd=tmp_path)


def test_a_set_without_its_manifest_is_no_input(tmp_path, store):
    cut(tmp_path / "rows", many(8))
    (tmp_path / "UNFINISHED").write_text('{"shards": []}')
    for path in (tmp_path / "rows").iterdir():
        store.put(f"rows/{path.name}", path)
    store.put("rows/UNFINISHED", tmp_path / "UNFINISHED")
    words = [*FILTER, "--input", f"{store.base}/rows", "--output", "out"]
    assert "has not ended" in go(store, *words, cwd=tmp_path, check=1).err


def test_a_split_and_its_reading_in_a_store(tmp_path, store):
    cut(tmp_path / "rows", clustered())
    go(store, *SPLIT, "--input", "rows", "--output-dir", "d", cwd=tmp_path)
    go(store, "schema", "reshard", "rows.jsonl", f"{store.base}/shards", "--shards", "3", cwd=tmp_path)
    go(store, *SPLIT, "--input", f"{store.base}/shards", "--output-dir", f"{store.base}/d", cwd=tmp_path)
    parts = [store.get(f"d/train/part-0000{number}.jsonl") for number in range(3)]
    here = b"".join(path.read_bytes() for path in sorted((tmp_path / "d" / "train").iterdir()))
    assert b"".join(parts).count(b"\n") == here.count(b"\n")
    assert [json.loads(line)["metadata"]["id"] for line in b"".join(parts).splitlines()] == [
        json.loads(line)["metadata"]["id"] for line in here.splitlines()
    ]
    go(store, "schema", "audit", f"{store.base}/d", cwd=tmp_path)


def test_the_first_stage_writes_its_set_to_a_store(tmp_path, store):
    write_rows(tmp_path / "rows.jsonl", many(30))
    (tmp_path / "sources.yaml").write_text("mine:\n  type: local\n  path: rows.jsonl\n")
    go(store, "prepare_data.py", "prepare", "--sources", "mine", "--output-dir", "here", cwd=tmp_path)
    go(store, "prepare_data.py", "prepare", "--sources", "mine", "--output-dir", f"{store.base}/there", cwd=tmp_path)
    for name in ("train.json", "test.json", "rejects.jsonl", "dataset_stats.json"):
        assert store.get(f"there/{name}") == (tmp_path / "here" / name).read_bytes()
    go(store, "schema", "audit", f"{store.base}/there", cwd=tmp_path)


def test_what_a_store_lacks_is_one_line(tmp_path, store):
    done = go(store, *FILTER, "--input", f"{store.base}/gone.jsonl", "--output", "out.jsonl", cwd=tmp_path, check=2)
    assert f"{store.base}/gone.jsonl: there is no such file" in done.err
    write_rows(tmp_path / "in.jsonl", [record()])
    gone = f"{store.base.split('data')[0]}no-such/place/out.jsonl"
    done = go(store, *FILTER, "--input", "in.jsonl", "--output", gone, cwd=tmp_path, check=1)
    assert done.err.strip().split("\n")[-1].startswith(f"Error: {gone[:-6]}")
    assert read_rows(tmp_path / "in.jsonl")


def test_a_store_whose_package_is_missing_is_one_line(tmp_path):
    hidden = tmp_path / "hidden"
    (hidden / "fsspec").mkdir(parents=True)
    (hidden / "fsspec" / "__init__.py").write_text("raise ImportError('hidden')")
    env = {"PYTHONPATH": os.pathsep.join([str(hidden)])}
    words = [*FILTER, "--input", "gs://bucket/in.jsonl", "--output", "out.jsonl"]
    done = run_script(*words, cwd=tmp_path, check=2, env=env)
    assert "gcsfs: pip install 'linemill[storage]'" in done.err
    assert not (tmp_path / "out.jsonl").exists()


def test_rejects_without_their_line_are_compared_as_they_are(tmp_path):
    """The helper of these tests: a difference in anything but the line is seen."""
    write_rows(tmp_path / "a.jsonl", [record(metadata={"error": {"code": "x", "line": 1}})])
    write_rows(tmp_path / "b.jsonl", [record(metadata={"error": {"code": "y", "line": 1}})])
    assert without_line(tmp_path / "a.jsonl") != without_line(tmp_path / "b.jsonl")
