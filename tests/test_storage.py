"""Inputs and outputs in a store: the same bytes as here, and the ledger or manifest last. A server of S3 runs here."""

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
from test_shards import FILTER, SPLIT, clustered, cut, rows_with_faults, without_line
from test_stage_contract import many

LACKS = [name for name in ("s3fs", "moto", "flask") if find_spec(name) is None]
needs_store = pytest.mark.skipif(bool(LACKS), reason=f"needs {', '.join(LACKS)}: make scale-setup")


# What tells moto which of its services is meant.
SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request"}
SIGNED |= {"Content-Type": "application/octet-stream"}  # else the body is taken for a form


def ask(place, method="GET", data=None):
    data = b"" if method == "PUT" and data is None else data
    request = urllib.request.Request(place, method=method, data=data, headers=SIGNED)
    return urllib.request.urlopen(request, timeout=120).read()


@pytest.fixture(scope="module")
def store():
    """A store of its own server, and what a run must know of it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    secret = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                ask(place)
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline
                time.sleep(0.1)
        ask(f"{place}/data", "PUT")
        yield secret | {"AWS_ENDPOINT_URL": place}
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def s3(store, tmp_path):
    """A folder of the store for one test, as an object that puts, gets and lists."""

    class Bucket:
        env = store
        base = f"s3://data/{tmp_path.name}"

        def request(self, name, method="GET", data=None):
            return ask(f"{store['AWS_ENDPOINT_URL']}/data/{tmp_path.name}/{name}", method, data)

        def put(self, name, path):
            self.request(name, "PUT", path.read_bytes())

        def get(self, name):
            return self.request(name)

        def names(self):
            text = ask(f"{store['AWS_ENDPOINT_URL']}/data?list-type=2&prefix={tmp_path.name}/").decode()
            return [part.split("</Key>")[0].split("/", 1)[1] for part in text.split("<Key>")[1:]]

    return Bucket()


def go(s3, *words, cwd, check=0):
    return run_script(*words, cwd=cwd, check=check, env=s3.env)


@needs_store
def test_a_file_goes_from_store_to_store(tmp_path, s3):
    write_rows(tmp_path / "rows.jsonl", rows_with_faults())
    s3.put("rows.jsonl", tmp_path / "rows.jsonl")
    go(s3, *FILTER, "--input", "rows.jsonl", "--output", "one.jsonl", cwd=tmp_path)
    go(s3, *FILTER, "--input", f"{s3.base}/rows.jsonl", "--output", f"{s3.base}/out.jsonl", cwd=tmp_path)
    assert s3.get("out.jsonl") == (tmp_path / "one.jsonl").read_bytes()
    assert s3.get("out.rejects.jsonl") == (tmp_path / "one.rejects.jsonl").read_bytes()
    assert s3.names() == ["out.jsonl", "out.ledger.json", "out.rejects.jsonl", "rows.jsonl"]
    assert json.loads(s3.get("out.ledger.json"))["inputs"][0]["path"] == f"{s3.base}/rows.jsonl"
    go(s3, "schema", "audit", f"{s3.base}/out.ledger.json", cwd=tmp_path)
    s3.put("out.jsonl", tmp_path / "rows.jsonl")
    go(s3, "schema", "audit", f"{s3.base}/out.ledger.json", cwd=tmp_path, check=1)


@needs_store
@pytest.mark.parametrize("workers", ["1", "2"])
def test_shards_of_a_store_go_to_a_store_and_only_what_is_unfinished_again(tmp_path, s3, workers):
    cut(tmp_path / "rows", [*many(60), b"{"])
    for path in (tmp_path / "rows").iterdir():
        s3.put(f"rows/{path.name}", path)
    go(s3, *FILTER, "--input", "rows", "--output", "out", cwd=tmp_path)
    words = [*FILTER, "--input", f"{s3.base}/rows", "--output", f"{s3.base}/out", "--workers", workers]
    go(s3, *words, cwd=tmp_path)
    for number in range(4):
        assert s3.get(f"out/part-{number}.jsonl") == (tmp_path / "out" / f"part-{number}.jsonl").read_bytes()
    assert "out/manifest.json" in s3.names()
    assert "out/UNFINISHED" not in s3.names()
    go(s3, "schema", "audit", f"{s3.base}/out", cwd=tmp_path)
    s3.request("out/part-1.jsonl", "DELETE")
    write_rows(tmp_path / "new.jsonl", many(3, start=200))
    s3.put("rows/part-2.jsonl", tmp_path / "new.jsonl")
    assert "2 of 4 shards were finished before" in go(s3, *words, cwd=tmp_path).err
    go(s3, "schema", "audit", f"{s3.base}/out", cwd=tmp_path)


@needs_store
def test_a_set_without_its_manifest_is_no_input(tmp_path, s3):
    cut(tmp_path / "rows", many(8))
    (tmp_path / "UNFINISHED").write_text('{"shards": []}')
    for path in (tmp_path / "rows").iterdir():
        s3.put(f"rows/{path.name}", path)
    s3.put("rows/UNFINISHED", tmp_path / "UNFINISHED")
    words = [*FILTER, "--input", f"{s3.base}/rows", "--output", "out"]
    assert "has not ended" in go(s3, *words, cwd=tmp_path, check=1).err


@needs_store
def test_a_split_and_its_reading_in_a_store(tmp_path, s3):
    cut(tmp_path / "rows", clustered())
    go(s3, *SPLIT, "--input", "rows", "--output-dir", "d", cwd=tmp_path)
    go(s3, "schema", "reshard", "rows.jsonl", f"{s3.base}/shards", "--shards", "3", cwd=tmp_path)
    go(s3, *SPLIT, "--input", f"{s3.base}/shards", "--output-dir", f"{s3.base}/d", cwd=tmp_path)
    parts = [s3.get(f"d/train/part-0000{number}.jsonl") for number in range(3)]
    here = b"".join(path.read_bytes() for path in sorted((tmp_path / "d" / "train").iterdir()))
    assert b"".join(parts).count(b"\n") == here.count(b"\n")
    assert [json.loads(line)["metadata"]["id"] for line in b"".join(parts).splitlines()] == [
        json.loads(line)["metadata"]["id"] for line in here.splitlines()
    ]
    go(s3, "schema", "audit", f"{s3.base}/d", cwd=tmp_path)


@needs_store
def test_the_first_stage_writes_its_set_to_a_store(tmp_path, s3):
    write_rows(tmp_path / "rows.jsonl", many(30))
    (tmp_path / "sources.yaml").write_text("mine:\n  type: local\n  path: rows.jsonl\n")
    go(s3, "prepare_data.py", "prepare", "--sources", "mine", "--output-dir", "here", cwd=tmp_path)
    go(s3, "prepare_data.py", "prepare", "--sources", "mine", "--output-dir", f"{s3.base}/there", cwd=tmp_path)
    for name in ("train.json", "test.json", "rejects.jsonl", "dataset_stats.json"):
        assert s3.get(f"there/{name}") == (tmp_path / "here" / name).read_bytes()
    go(s3, "schema", "audit", f"{s3.base}/there", cwd=tmp_path)


@needs_store
def test_what_a_store_lacks_is_one_line(tmp_path, s3):
    done = go(s3, *FILTER, "--input", f"{s3.base}/gone.jsonl", "--output", "out.jsonl", cwd=tmp_path, check=2)
    assert f"{s3.base}/gone.jsonl: there is no such file" in done.err
    write_rows(tmp_path / "in.jsonl", [record()])
    done = go(s3, *FILTER, "--input", "in.jsonl", "--output", "s3://no-such-bucket/out.jsonl", cwd=tmp_path, check=1)
    assert done.err.strip().split("\n")[-1].startswith("Error: s3://no-such-bucket/out")
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
