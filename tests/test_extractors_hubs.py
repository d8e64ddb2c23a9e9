"""Data sets of the hubs, read with the real client libraries from hubs on loopback, and from local copies."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import stat
import subprocess
import sys
import zipfile

import click
import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from conftest import ROOT, read_rows, record, run_script
from fake_hubs import COMMIT, HuggingFace, Kaggle

from extractors import BadRow, Fetch, load

CODE = [record(number)["code"].replace("Scene" + str(number), f"Hub{number}") for number in range(6)]


def as_csv(rows):
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_parquet(rows):
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


def pairs(*numbers):
    return [{"instruction": f"Draw circle number {number}.", "output": CODE[number]} for number in numbers]


FILES = {
    "train.csv": as_csv(pairs(0, 1)),
    "test.csv": as_csv(pairs(2)),
    "README.md": b"# Set",
    "dataset_infos.json": b"{}",
}


@pytest.fixture
def hugging_face(tmp_path, monkeypatch):
    """`read(**options)` reads own/set from a hub that was started with `start(files, ...)`."""
    return _reader("huggingface", HuggingFace, tmp_path, monkeypatch, lambda hub: {"HF_ENDPOINT": hub.url})


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    # kagglehub knows a fixed list of endpoints; the proxy gives this one a port of our own.
    return _reader("kaggle", Kaggle, tmp_path, monkeypatch, kaggle_environment)


def kaggle_environment(hub):
    proxy = {"HTTP_PROXY": hub.url, "http_proxy": hub.url, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    return {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", **proxy}


def _reader(kind, hub_class, tmp_path, monkeypatch, environment):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)

    def read(files=None, *, offline=False, refresh=False, hub=None, dataset="own/set", **options):
        said = {name: options.pop(name) for name in ("faults", "token", "configs") if name in options}
        fetch = Fetch(tmp_path / "cache", offline, refresh)
        hub = hub or hub_class(files or {}, **said)
        with hub.serve():
            for name, value in environment(hub).items():
                monkeypatch.setenv(name, value)
            read.hub = hub
            return list(load(kind)(dataset, fetch=fetch, **options))

    read.cache = tmp_path / "cache"
    return read


def from_copy(path, kind="huggingface", **options):
    fetch = Fetch(path.parent / "cache", offline=True)
    return list(load(kind)("own/set", fetch=fetch, path=str(path), **options))


def copy_of(tmp_path, rows):
    path = tmp_path / "rows.parquet"
    path.write_bytes(as_parquet(rows))
    return path


# --- Hugging Face ----------------------------------------------------------------------------------------------------


def test_all_splits_are_read_and_every_row_says_where_it_comes_from(hugging_face):
    rows = hugging_face(FILES, description_field="instruction", code_field="output")
    assert [(row["description"], row["metadata"]["split"]) for row in rows] == [
        ("Draw circle number 2.", "test"),
        ("Draw circle number 0.", "train"),
        ("Draw circle number 1.", "train"),
    ]
    assert rows[0]["code"] == CODE[2]
    assert rows[0]["metadata"]["origin"] == {"repo": "own/set", "revision": COMMIT, "path": "test.csv", "row": 1}


def test_the_second_run_needs_no_network_and_refresh_asks_again(hugging_face):
    first = hugging_face(FILES)
    assert hugging_face({}, offline=True) == first
    assert hugging_face.hub.asked == []
    assert hugging_face({}) == first, "what is in the cache is not asked for again"
    assert hugging_face.hub.asked == []
    assert len(hugging_face(FILES, refresh=True)) == 3
    assert len(hugging_face.hub.asked) == 3


def test_offline_without_a_cache_is_one_line_with_the_way_out(hugging_face):
    with pytest.raises(click.ClickException, match=r"main\.json is not in .*own--set and --offline.*path:"):
        hugging_face(FILES, offline=True)
    assert hugging_face.hub.asked == []


@pytest.mark.parametrize(("split", "count"), [("train", 2), ("test", 1), ("train+test", 3)])
def test_a_split_is_found_by_the_names_of_the_files(hugging_face, split, count):
    assert len(hugging_face(FILES, split=split)) == count


def test_the_card_of_a_set_decides_which_files_a_subset_and_its_splits_have(hugging_face):
    files = {"a/part-1.csv": FILES["train.csv"], "a/part-2.csv": FILES["test.csv"], "b/part-1.csv": FILES["train.csv"]}
    configs = [
        {
            "config_name": "small",
            "data_files": [{"split": "fit", "path": "a/part-1*"}, {"split": "held", "path": ["a/part-2.csv"]}],
        },
        {"config_name": "large", "data_files": "b/*.csv"},
    ]
    rows = hugging_face(files, configs=configs, subset="small")
    assert [row["metadata"]["split"] for row in rows] == ["fit", "fit", "held"]
    assert len(hugging_face(files, subset="small", split="held")) == 1
    assert len(hugging_face(files, subset="large")) == 2
    with pytest.raises(click.UsageError, match="subsets small, large; name one"):
        hugging_face(files)
    with pytest.raises(click.UsageError, match="no subset 'tiny'; it has small, large"):
        hugging_face(files, subset="tiny")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "validation"}, "no split 'validation'; it has test, train"),
        ({"data_files": "*.parquet"}, r"nothing fits '\*.parquet'; it has test.csv, train.csv"),
        ({"subset": "small"}, "no subset 'small'"),
        ({"code_field": "code"}, "no column 'code'; it has the columns instruction, output"),
        ({"code_only": True}, "need code_field"),
    ],
)
def test_a_wrong_option_names_what_there_is(hugging_face, options, message):
    with pytest.raises(click.UsageError, match=message):
        hugging_face(FILES, **options)


@pytest.mark.parametrize("name", ["../set", "own/../set", "own/set/more", "https://host/set", "own/.."])
def test_a_name_that_is_no_name_never_becomes_a_folder_or_a_request(hugging_face, name):
    with pytest.raises(click.UsageError, match="is no name of the hub"):
        hugging_face(FILES, dataset=name)
    assert hugging_face.hub.asked == []
    assert not hugging_face.cache.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"token": "secret"},
            r"own/set: the hub says 401: gated; ask for access at http.*/datasets/own/set and set HF_TOKEN",
        ),
        ({"dataset": "own/other"}, "own/other: the hub says 404: no such data set, or a private one"),
        ({"revision": "v9"}, "own/set: the hub says 404: there is no revision 'v9'"),
        ({"faults": [("resolve", (404, {"X-Error-Code": "EntryNotFound"}))]}, "404: a file of revision .* is gone"),
        ({"faults": [("revision", 503)]}, "own/set: the hub says 503"),
        ({"faults": [("revision", ("wait", 3600))]}, "429: too many requests; try again in 3600 seconds"),
        ({"faults": [("train.csv", "truncated")]}, "own/set: the download is broken: .*; run again"),
        ({"faults": [("train.csv", "short")]}, r"train.csv: the download is broken: [\d,]+ of [\d,]+ bytes came"),
        ({"faults": [("train.csv", "long")]}, r"train.csv: the download is broken: more than [\d,]+ bytes came"),
        ({"faults": [("revision", ("go", "http://127.0.0.2:9/x"))]}, r"redirects to http://127.0.0.2:9: refused"),
        ({"faults": [("train.csv", ("go", "https://example.com/x"))]}, r"redirects to https://example.com: refused"),
        ({"faults": [("train.csv", ("go", "file:///etc/hostname"))]}, r"(redirects to file://|broken).*"),
    ],
)
def test_what_the_hub_refuses_is_one_line_and_leaves_nothing_broken(hugging_face, options, message):
    with pytest.raises(click.ClickException, match=message) as caught:
        hugging_face(FILES, **options)
    assert "\n" not in caught.value.message
    assert not list(hugging_face.cache.rglob("train.csv"))
    assert len(hugging_face(FILES)) == 3, "the next run begins again"


def test_a_short_wait_is_waited(hugging_face):
    assert len(hugging_face(FILES, faults=[("revision", ("wait", 0)), ("test.csv", ("wait", 0))])) == 3
    assert len(hugging_face.hub.asked) == 5


def test_bytes_with_another_checksum_are_not_taken(hugging_face):
    with pytest.raises(click.ClickException, match=r"rows.parquet: the download is broken: its checksum"):
        hugging_face({"rows.parquet": as_parquet(pairs(0))}, faults=[("rows.parquet", "other bytes")])
    assert not list(hugging_face.cache.rglob("rows.parquet"))


def test_the_token_of_the_environment_opens_a_gated_set(hugging_face, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert len(hugging_face(FILES, token="secret")) == 3
    assert "secret" not in "".join(path.read_text() for path in hugging_face.cache.rglob("*") if path.is_file())


def test_a_commit_that_is_none_never_becomes_a_folder(hugging_face):
    hub = HuggingFace(FILES)
    hub.commit = "../../elsewhere"
    with pytest.raises(click.ClickException, match=r"does not say which commit 'main' is, but '\.\./\.\./elsewhere'"):
        hugging_face(hub=hub)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_every_format_gives_the_same_rows(hugging_face, suffix):
    rows = pairs(0, 3)
    lines = "\n".join(map(json.dumps, rows)).encode()
    body = {".jsonl": lines, ".json": json.dumps(rows).encode(), ".csv": as_csv(rows), ".parquet": as_parquet(rows)}[
        suffix
    ]
    found = hugging_face(
        {f"data/train-00000-of-00001{suffix}": body}, description_field="instruction", code_field="output"
    )
    assert [(row["description"], row["code"]) for row in found] == [tuple(row.values()) for row in rows]


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst", ".csv.gz"])
def test_packed_tables_of_a_set_are_read_and_their_split_is_known(hugging_face, suffix):
    rows = as_csv(pairs(0, 1)) if "csv" in suffix else b"".join(json.dumps(row).encode() + b"\n" for row in pairs(0, 1))
    body = gzip.compress(rows) if suffix.endswith("gz") else zstandard.compress(rows)
    files = {f"data/train-0{suffix}": body, f"data/test-0{suffix}": body, "video.mp4.gz": b"x"}
    found = hugging_face(files, split="train")
    assert [(row.get("output") or row.get("code"), row["metadata"]["split"]) for row in found] == [
        (CODE[0], "train"),
        (CODE[1], "train"),
    ]
    assert found[0]["metadata"]["origin"]["path"] == f"data/train-0{suffix}"


def test_a_packed_table_in_an_archive_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("deep/rows.tsv.gz", gzip.compress(b"instruction\toutput\nDraw.\tx = 1\n"))
        archive.writestr("deep/rows.jsonl", json.dumps(pairs(1)[0]))
    rows = from_copy(tmp_path / "set.zip", kind="kaggle")
    assert [row["metadata"]["origin"]["path"] for row in rows] == ["deep/rows.jsonl", "deep/rows.tsv.gz"]


def test_a_record_of_ours_that_was_published_keeps_what_it_says_of_itself(tmp_path):
    row = {"description": "d", "code": "c", "source": "s", "metadata": {"id": "1", "origin": {"repo": "first"}}}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    assert from_copy(tmp_path / "rows.jsonl") == [row]


def test_a_video_in_a_parquet_file_is_never_read(tmp_path):
    video = random.Random(0).randbytes(5000)
    row = {"video": {"bytes": video, "path": "a.mp4"}, "question": "Draw it.", "python_code": CODE[0], "title": "T"}
    path = copy_of(tmp_path, [row])
    damaged = bytearray(path.read_bytes())
    start = damaged.index(video)
    damaged[4:start] = b"\xff" * (start - 4)  # the head of this column's page
    path.write_bytes(damaged)
    with pytest.raises(OSError, match="Deserializing page header failed"):
        pyarrow.parquet.read_table(path)
    (found,) = from_copy(path)
    assert found["metadata"] == {"title": "T", "origin": {"repo": "own/set", "path": "rows.parquet", "row": 1}}


# --- what the columns mean -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Write good Python code for it. Here is the request: Draw a dot.", "Draw a dot."),
        ("Write good\n Python code, please.\nHere is the request:\\n\\nDraw a dot.", "Draw a dot."),
        ("\\n Write good Python code Here is the request: Draw a dot.", "Draw a dot."),
        ("\\nDraw a dot.", "Draw a dot."),
        ("Draw a dot. Write good Python code. Here is the request: x", None),
        ("Write good Python code. Draw a dot.", None),
        (f"Write good Python code {'x' * 600} Here is the request: Draw a dot.", None),
    ],
)
def test_the_wrapper_of_a_request_is_removed_where_it_stands_at_the_start(tmp_path, text, left):
    path = copy_of(tmp_path, [{"input": text, "output": CODE[0]}])
    options = {"description_field": "input", "code_field": "output"}
    (row,) = from_copy(path, **options, strip_prefix="Write good Python code ... Here is the request:")
    assert row["description"] == (text if left is None else left)


def test_a_literal_line_break_before_a_program_is_removed_and_others_stay(tmp_path):
    code = 'print("a\\nb")\n'
    (row,) = from_copy(copy_of(tmp_path, [{"prompt": "Say it.", "my_code": f"\\n\\n{code}"}]))
    assert row["code"] == code


def test_code_only_drops_the_descriptions_and_asks_for_new_ones(tmp_path):
    path = copy_of(tmp_path, [{"input": "Something else.", "output": CODE[0], "topic": "t"}])
    (row,) = from_copy(path, description_field="input", code_field="output", code_only=True)
    assert row["description"] == ""
    assert row["metadata"]["needs_description"] is True
    assert row["metadata"]["topic"] == "t"
    assert "Something else." not in json.dumps(row)


def test_nothing_in_a_column_is_nothing(tmp_path):
    rows = [
        {"good": "nan", "worse": "Draw 0.", "code": CODE[0], "error": None},
        {"good": None, "worse": " ", "code": CODE[1], "error": ""},
        {"good": "Draw 2.", "worse": "Other.", "code": "NaN", "error": None},
        {"good": "Draw 3.", "worse": "Other.", "code": CODE[3], "error": "Traceback ..."},
    ]
    found = from_copy(copy_of(tmp_path, rows), description_field=["good", "worse"], code_field="code")
    assert [row["description"] for row in found if not isinstance(row, BadRow)] == ["Draw 0.", "", "Draw 3."]
    assert found[1]["metadata"]["needs_description"] is True
    assert isinstance(found[2], BadRow)
    assert (found[2].code, found[2].origin["row"]) == ("no_code", 3)
    assert "upstream_error" not in found[0]["metadata"]
    assert found[3]["metadata"]["upstream_error"] == "Traceback ..."
    assert found[3]["metadata"]["worse"] == "Other."


def test_columns_that_can_not_be_told_apart_are_listed(tmp_path):
    path = copy_of(tmp_path, [{"prompt": "a", "question": "b", "my_code": CODE[0]}])
    with pytest.raises(
        click.UsageError, match=r"can not tell which column.*It has the columns prompt, question, my_code"
    ):
        from_copy(path, split="train")


def test_a_folder_is_read_as_the_hub_would_be(tmp_path):
    for name, body in FILES.items():
        (tmp_path / "copy" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "copy" / name).write_bytes(body)
    rows = from_copy(tmp_path / "copy", split="test")
    assert [row["metadata"]["origin"] for row in rows] == [{"repo": "own/set", "path": "test.csv", "row": 1}]


# --- Kaggle ----------------------------------------------------------------------------------------------------------

BENCH = [
    {
        "Generated Description": None,
        "Reviewed Description": "Draw 0.",
        "Code": CODE[0],
        "Type": "Basic",
        "Split": "train",
    },
    {
        "Generated Description": "Draw 1.",
        "Reviewed Description": "nan",
        "Code": CODE[1],
        "Type": "Basic",
        "Split": "test",
    },
]
BENCH_FIELDS = {"description_field": ["Reviewed Description", "Generated Description"], "code_field": "Code"}


def zipped(members):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, body in members:
            archive.writestr(member, body)
    return data.getvalue()


def test_one_file_of_a_kaggle_set_keeps_all_its_columns_and_its_version(kaggle):
    rows = kaggle({"bench.parquet": as_parquet(BENCH)}, file="bench.parquet", **BENCH_FIELDS)
    assert [row["description"] for row in rows] == ["Draw 0.", "Draw 1."]
    assert rows[0]["metadata"] == {
        "Generated Description": None,
        "Type": "Basic",
        "Split": "train",
        "origin": {"repo": "kaggle:own/set", "revision": "3", "path": "bench.parquet", "row": 1},
    }


@pytest.mark.parametrize("archive", [True, False])
def test_a_zipped_table_is_unpacked_whether_asked_for_or_not(kaggle, archive):
    body = zipped([("bench.csv", as_csv(pairs(0, 1))), ("notes.txt", b"x")])
    options = {} if archive else {"file": "bench.csv"}
    rows = kaggle({options.get("file", ""): body}, **options)
    assert [row["metadata"]["origin"]["path"] for row in rows] == ["bench.csv"] * 2


def test_the_second_run_of_a_kaggle_set_needs_no_network(kaggle):
    files = {"": zipped([("bench.csv", as_csv(pairs(0)))])}
    first = kaggle(files)
    assert kaggle({}, offline=True) == first
    assert kaggle.hub.asked == []
    kaggle(files, refresh=True)
    assert len(kaggle.hub.asked) == 3
    with pytest.raises(click.ClickException, match=r"version-3--more.csv is not in .* --offline forbids"):
        kaggle(files, offline=True, file="more.csv")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token": "secret"}, r"own/set: Kaggle says 401: the key in ~/.kaggle/kaggle.json or KAGGLE_USERNAME"),
        ({"dataset": "own/other"}, "own/other: Kaggle says 404: no such data set, version or file"),
        ({"file": "other.csv"}, "own/set: Kaggle says 404"),
        ({"faults": [("GetDataset", ("wait", 3600))]}, "429: too many requests; try again in 3600 seconds"),
        ({"faults": [("DownloadDataset", "truncated")]}, "own/set: the download is broken: "),
        ({"faults": [("DownloadDataset", "damaged")]}, "the download is broken: its checksum is not"),
        ({"faults": [("DownloadDataset", ("go", "http://127.0.0.2:9/x"))]}, "redirects to http://127.0.0.2:9: refused"),
        (
            {"faults": [("DownloadDataset", ("go", "https://example.com/x"))]},
            "redirects to https://example.com: refused",
        ),
        (
            {"faults": [("DownloadDataset", ("go", "file:///etc/hostname"))]},
            "download is broken: .*file:///etc/hostname",
        ),
    ],
)
def test_what_kaggle_refuses_is_one_line_and_leaves_nothing_broken(kaggle, options, message):
    files = {"": zipped([("bench.csv", as_csv(pairs(0, 1)))])}
    with pytest.raises(click.ClickException, match=message) as caught:
        kaggle(files, **options)
    assert "\n" not in caught.value.message
    assert not [place for place in kaggle.hub.asked if "localhost" not in place], "a stranger was asked"
    assert len(kaggle(files)) == 2, "the next run begins again"


def test_a_short_wait_for_kaggle_is_waited(kaggle):
    files = {"": zipped([("bench.csv", as_csv(pairs(0)))])}
    assert len(kaggle(files, faults=[("GetDataset", ("wait", 0)), ("DownloadDataset", ("wait", 0))])) == 1


def test_the_key_of_kaggle_comes_from_its_file_or_the_environment(kaggle, monkeypatch, tmp_path):
    files = {"": zipped([("bench.csv", as_csv(pairs(0)))])}
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / ".kaggle"))
    (tmp_path / ".kaggle").mkdir()
    (tmp_path / ".kaggle" / "kaggle.json").write_text(json.dumps({"username": "me", "key": "secret"}))
    assert len(kaggle(files, token="secret")) == 1
    (tmp_path / ".kaggle" / "kaggle.json").write_text("{")
    with pytest.raises(click.ClickException, match="Invalid Kaggle credentials file"):
        kaggle(files, refresh=True)
    monkeypatch.setenv("KAGGLE_USERNAME", "me")
    monkeypatch.setenv("KAGGLE_KEY", "secret")
    assert len(kaggle(files, refresh=True, token="secret")) == 1


def link(name):
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


@pytest.mark.parametrize(
    ("member", "body", "message"),
    [
        ("../rows.csv", b"a,b\n", r"'\.\./rows.csv' leads out of the archive"),
        ("a/../../rows.csv", b"a,b\n", "leads out of the archive"),
        ("..\\rows.csv", b"a,b\n", "leads out of the archive"),
        ("/rows.csv", b"a,b\n", "'/rows.csv' has an absolute name"),
        ("C:\\rows.csv", b"a,b\n", "has an absolute name"),
        (link("rows.csv"), b"/etc/hostname", "'rows.csv' is a link"),
        ("rows.csv", bytes(40 << 20), "'rows.csv' unpacks from .* to 41,943,040 bytes"),
    ],
)
def test_one_bad_member_condemns_an_archive(tmp_path, member, body, message):
    path = tmp_path / "in" / "set.zip"
    path.parent.mkdir()
    path.write_bytes(zipped([("good.csv", as_csv(pairs(0))), (member, body)]))
    with pytest.raises(click.ClickException, match=f"own/set: set.zip: refused: the member .*{message}"):
        from_copy(path, "kaggle")
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["set.zip"]


@pytest.mark.parametrize("cut", [30, -40])
def test_a_broken_archive_is_one_line(tmp_path, cut):
    path = tmp_path / "set.zip"
    path.write_bytes(zipped([("good.csv", as_csv(pairs(0, 1, 2)))])[:cut])
    with pytest.raises(click.ClickException, match=r"own/set: set\.zip: a broken zip archive"):
        from_copy(path, "kaggle")


# --- as a user runs it -----------------------------------------------------------------------------------------------

SOURCES = """
from_hub:
  type: huggingface
  dataset: own/set
  description_field: instruction
  code_field: output
from_kaggle:
  type: kaggle
  dataset: own/set
  file: bench.parquet
  description_field: [Reviewed Description, Generated Description]
  code_field: Code
"""


def test_both_hubs_are_prepared_once_with_and_once_without_a_network(tmp_path):
    (tmp_path / "sources.yaml").write_text(SOURCES)
    # Somebody logged in on this machine: a run does not depend on it.
    (tmp_path / ".cache" / "huggingface").mkdir(parents=True)
    (tmp_path / ".cache" / "huggingface" / "token").write_text("secret")
    bench = [{**row, "Code": CODE[4 + number]} for number, row in enumerate(BENCH)]
    prepare = ("prepare_data.py", "prepare", "--cache-dir", "cache", "--output-dir")
    with HuggingFace(FILES).serve() as hub, Kaggle({"bench.parquet": as_parquet(bench)}).serve() as other:
        environment = kaggle_environment(other) | {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
        first = run_script(*prepare, "one", cwd=tmp_path, env=environment, check=0)
        assert (len(hub.asked), hub.keys) == (3, {None})
    assert "prepare_data: 5 in, 5 kept" in first.err
    assert first.out == ""
    assert len(first.err.splitlines()) <= 7, first.err
    run_script(*prepare, "two", "--offline", cwd=tmp_path, check=0)
    for name in ("train.json", "test.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    records = read_rows(tmp_path / "two" / "train.json") + read_rows(tmp_path / "two" / "test.json")
    assert {record["source"] for record in records} == {"from_hub", "from_kaggle"}


def test_a_hub_that_can_not_be_reached_is_one_line(tmp_path):
    (tmp_path / "sources.yaml").write_text(SOURCES)
    done = run_script(
        "prepare_data.py", "prepare", "--sources", "from_hub", "--cache-dir", "cache", cwd=tmp_path, check=1,
        env={"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"},
    )  # fmt: skip
    assert "from_hub: own/set: no connection to http://127.0.0.1:9 (" in done.err
    done = run_script(
        "prepare_data.py", "prepare", "--sources", "from_hub", "--cache-dir", "cache", cwd=tmp_path, check=1
    )
    assert "from_hub: own/set: not in the cache, and HF_HUB_OFFLINE forbids the download" in done.err


def test_naming_the_types_loads_no_client_library():
    code = "import sys, extractors; [extractors.load(name) for name in ('huggingface', 'kaggle')];"
    code += "print([name for name in ('huggingface_hub', 'kagglehub', 'pyarrow', 'requests') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
