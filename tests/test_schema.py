"""The record and its files: what goes in comes out unchanged, or is rejected with a reason."""

from __future__ import annotations

import gzip
import json
import resource

import msgspec
import pytest
import zstandard
from conftest import read_rows, record, run_script, write_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator

import schema
from schema import _lines
from schema._record import decode

SCHEMA = json.loads(schema.SCHEMA_FILE.read_bytes())
text = st.text(st.characters(codec="utf-8"), max_size=40)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)
filled = text.filter(lambda words: words.strip(" \t\r\n"))
free_keys = text.filter(lambda key: key not in SCHEMA["properties"]["metadata"]["properties"])
records = st.fixed_dictionaries(
    {
        "description": filled,
        "code": filled,
        "source": filled,
        "metadata": st.dictionaries(free_keys, values, max_size=5),
    }
)
# Near misses: the standard keys with values of every kind, keys missing, keys too many.
anything = st.dictionaries(
    st.sampled_from(["description", "code", "source", "metadata", "extra"]),
    values
    | st.dictionaries(st.sampled_from(sorted(SCHEMA["properties"]["metadata"]["properties"])), values, max_size=4)
    | filled,
    max_size=5,
)


def collect(path):
    rejected = []
    found = list(schema.read(path, lambda item, message, code="", line=None: rejected.append((line, code, message))))
    return found, rejected


@settings(max_examples=60, deadline=None)
@given(st.lists(records, max_size=5), st.sampled_from(["a.jsonl", "a.json", "a.jsonl.gz", "a.jsonl.zst"]))
def test_what_is_written_is_read_again_unchanged(tmp_path_factory, rows, name):
    path = tmp_path_factory.mktemp("round") / name
    with schema.write(path) as keep:
        for row in rows:
            keep(row)
    found, rejected = collect(path)
    assert found == rows
    assert rejected == []


@settings(max_examples=400, deadline=None)
@given(anything | records)
def test_the_fast_validator_and_jsonschema_agree(row):
    fast = schema.problem(row) is None
    assert fast == Draft7Validator(SCHEMA).is_valid(row)
    assert fast == Draft202012Validator(SCHEMA).is_valid(row)


def test_the_schema_is_a_schema_of_both_drafts():
    Draft7Validator.check_schema(SCHEMA)
    Draft202012Validator.check_schema({key: value for key, value in SCHEMA.items() if key != "$schema"})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"description": "", "code": "x", "source": "s", "metadata": {}}, "needs_description is not true"),
        ({"description": "d", "code": " \n", "source": "s", "metadata": {}}, "code is empty"),
        ({"description": "d", "code": "x", "source": "", "metadata": {}}, "source: '' should be non-empty"),
        ({"description": "d", "code": 5, "source": "s", "metadata": {}}, "code: 5 is not of type 'string'"),
        ({"description": "d", "code": "x", "source": "s"}, "'metadata' is a required property"),
        ({"description": "d", "code": "x", "source": "s", "metadata": {}, "id": 1}, "'id' was unexpected"),
        ({"description": "d", "code": "x", "source": "s", "metadata": {"kind": 3}}, "metadata.kind: 3 is not"),
        ({"description": "\ud800", "code": "x", "source": "s", "metadata": {}}, "half of a surrogate pair"),
        ([1], "this is a list"),
    ],
)
def test_a_fault_is_said_in_words(row, reason):
    assert reason in schema.problem(row)


def test_a_missing_description_is_valid_only_with_its_flag():
    assert schema.problem(record(description="", metadata={"needs_description": True})) is None
    assert schema.problem(record(description="", metadata={"needs_description": False})) is not None


HOSTILE = [
    (b'{"description":"d","code":"x","source":"s","metadata":{},"code":"y"}', "duplicate_key"),
    (b'{"description":"d","code":"x","source":"s","metadata":{"a":{"b":1,"b":2}}}', "duplicate_key"),
    (b'{"description":"d","code":"\\ud800","source":"s","metadata":{}}', "not_json"),
    (b'{"description":"d","code":"x","source":"s","metadata":{"a":NaN}}', "not_json"),
    (b'{"description":"d","code":"x","source":"s","metadata":{"a":1e999}}', "not_json"),
    (b'{"description":"d","code":"x","source":"s","metadata":{"a":' + b"9" * 5000 + b"}}", "not_json"),
    (b'{"description":"d","code":"x\xff","source":"s","metadata":{}}', "not_utf8"),
    (b'{"description":"d","code":"x\x00","source":"s","metadata":{}}', "not_json"),
    (
        b'{"description":"d","code":"x","source":"s","metadata":{"a":' + b"[" * 5000 + b"]" * 5000 + b"}}",
        "nested_too_deep",
    ),
    (b'{"description":"d","code":"x","source":"s","metadata":' + b'{"a":' * 256 + b"1" + b"}" * 257, "nested_too_deep"),
    (b'{"description":"d","code":"x","source":"s"', "not_json"),
    (b"nonsense", "not_json"),
    (b"[1, 2]", "invalid_record"),
    (b"null", "invalid_record"),
    (b'{"description":"d","code":"x","source":7,"metadata":{}}', "invalid_record"),
    (b'{"unknown":"shape"}', "unknown_shape"),
    (b'{"messages":[{"role":"user","content":"a"},{"role":"user","content":"b"}]}', "several_turns"),
]
SURVIVORS = [
    b'{"description":"d","code":"x\\u0000y","source":"s","metadata":{}}',
    b'{"description":"d","code":"line\xe2\x80\xa8separator\xc2\x85","source":"s","metadata":{}}',
    b'{"description":"d","code":"x","source":"s","metadata":{"big":123456789012345678901234567890,"f":0.1}}',
    b'{"description":"d","code":"' + b"[{" * 300 + b'","source":"s","metadata":{}}',
    b'{"description":"d","code":"x","source":"s","metadata":{"a":' + b"[" * 250 + b"]" * 250 + b"}}",
    b'{"description":"\xf0\x9f\x8e\xac","code":"x","source":"s","metadata":{"":{"":[[]]}}}\r',
    b'  {"source":"s", "metadata":{}, "code":"x", "description":"spaced"}  ',
]


@pytest.mark.parametrize(("line", "code"), HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_line_is_rejected_by_name_with_its_number(tmp_path, line, code):
    found, rejected = collect(write_rows(tmp_path / "in.jsonl", [record(), b"", line, record(1)]))
    assert len(found) == 2
    assert [(number, name) for number, name, _ in rejected] == [(3, code)]


@pytest.mark.parametrize("line", SURVIVORS, ids=range(len(SURVIVORS)))
def test_an_unusual_line_survives_unchanged(tmp_path, line):
    found, rejected = collect(write_rows(tmp_path / "in.jsonl", [line]))
    assert rejected == []
    assert found == [json.loads(line)]


def test_a_line_of_50_megabytes_is_rejected_at_a_flat_memory_cost(tmp_path):
    long = b'{"description":"d","code":"' + b"x" * 50_000_000 + b'","source":"s","metadata":{}}'
    write_rows(tmp_path / "in.jsonl", [record(), long, record(1)])
    program = (
        "import re, schema\n"
        "with schema.rejects('out.jsonl') as reject, schema.write('out.jsonl') as keep:\n"
        "    for record in schema.read('in.jsonl', reject): keep(record)\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) // 1024)\n"
    )
    (tmp_path / "copy_rows.py").write_text(program)
    done = run_script(
        tmp_path / "copy_rows.py", cwd=tmp_path, check=0, env={"PYTHONPATH": str(schema.SCHEMA_FILE.parent.parent)}
    )
    assert int(done.out) < 150, "megabytes; reading the line whole costs over 250"
    (row,) = read_rows(tmp_path / "out.rejects.jsonl")
    assert row["metadata"]["error"]["code"] == "too_long"
    assert row["metadata"]["error"]["whole_length"] == len(long)
    assert len(read_rows(tmp_path / "out.jsonl")) == 2


def array(rows):
    return json.dumps(rows, ensure_ascii=False, indent=1).encode()


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 2**20])
def test_a_json_array_is_read_at_any_size_of_chunk(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(_lines, "_CHUNK", chunk)
    rows = [record(0, code='print("a, \\" ]}{[ \\\\")\n'), record(1, metadata={"a": [1, {"b": "\\"}], "c": "]"})]
    path = tmp_path / "rows.json"
    path.write_bytes(array(rows))
    assert collect(path) == (rows, [])


@pytest.mark.parametrize("tail", [b"", b"\n", b"\r\n\r\n"])
@pytest.mark.parametrize("head", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_and_odd_line_ends_change_nothing(tmp_path, head, tail):
    path = tmp_path / "rows.json"
    path.write_bytes(head + b"\r\n".join(json.dumps(record(number)).encode() for number in range(3)) + tail)
    found, rejected = collect(path)
    assert (len(found), rejected) == (3, [])


def test_an_array_that_does_not_end_is_read_as_lines(tmp_path):
    found, rejected = collect(write_rows(tmp_path / "in.jsonl", [b"[", record(), record(1)]))
    assert len(found) == 2
    assert [code for _, code, _ in rejected] == ["not_json"]


def test_lines_after_an_array_are_read_too(tmp_path):
    found, rejected = collect(
        write_rows(tmp_path / "in.jsonl", [b"[" + json.dumps(record()).encode() + b"]", record(1)])
    )
    assert (len(found), rejected) == (2, [])


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.ZstdCompressor().compress], ids=["gzip", "zstd"])
def test_a_compressed_file_that_is_cut_off_is_an_error_and_not_a_shorter_file(tmp_path, compress):
    data = compress(b"".join(json.dumps(record(number)).encode() + b"\n" for number in range(200)))
    (tmp_path / "whole.jsonl").write_bytes(data + compress(json.dumps(record()).encode()))
    assert len(collect(tmp_path / "whole.jsonl")[0]) == 201, "known by its first bytes, members joined"
    (tmp_path / "cut.jsonl").write_bytes(data[: len(data) // 2])
    done = run_script("schema", "validate", "cut.jsonl", cwd=tmp_path, check=1)
    assert "cut.jsonl: the compressed file is damaged or cut off" in done.err


SHAPES = [
    ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, "q", "a", {}),
    (
        {
            "conversations": [
                {"from": "system", "value": "s"},
                {"from": "human", "value": "q"},
                {"from": "gpt", "value": "```python\nx = 1\n```"},
            ]
        },
        "q",
        "x = 1\n",
        {"system": "s"},
    ),
    ({"instruction": "q", "input": "about", "output": "a"}, "q\nabout", "a", {"input": "about"}),
    ({"instruction": "q", "input": "", "output": "a", "text": "t"}, "q", "a", {"text": "t"}),
    ({"prompt": "q", "completion": "a"}, "q", "a", {}),
    ({"question": "q", "answer": "a"}, "q", "a", {"kind": "qa"}),
    ({"query": "q", "answer": "a"}, "q", "a", {}),
    ({"text": "a chunk"}, "", "a chunk", {"kind": "document", "needs_description": True}),
    ({"text": "Instruction: q\nCode:\na\nb"}, "q", "a\nb", {}),
    ({"instruction": "q", "code": "a", "url": "u", "depth": 2}, "q", "a", {"url": "u", "depth": 2}),
    ({"code": "a"}, "", "a", {"needs_description": True}),
    ({"description": "q", "code": "a"}, "q", "a", {}),
    ({"prompt": "q", "completion": "a", "id": 7, "error": "e"}, "q", "a", {"upstream_id": 7, "upstream_error": "e"}),
    ({"prompt": "q", "completion": "a", "id": "7", "quality": 1}, "q", "a", {"id": "7", "upstream_quality": 1}),
]


@pytest.mark.parametrize(("row", "description", "code", "metadata"), SHAPES, ids=range(len(SHAPES)))
def test_a_row_of_a_known_shape_becomes_a_record(row, description, code, metadata):
    assert schema.to_record(row, "name") == {
        "description": description,
        "code": code,
        "source": "name",
        "metadata": metadata,
    }


def test_each_row_decides_its_shape_for_itself(tmp_path):
    found, rejected = collect(write_rows(tmp_path / "mixed.jsonl", [row for row, *_ in SHAPES]))
    assert (len(found), rejected) == (len(SHAPES), [])
    assert {row["source"] for row in found} == {"mixed"}


def test_a_placeholder_becomes_the_flag_and_never_a_text_to_train_on():
    row = schema.adopt(record(description="[PENDING_DESCRIPTION] - Source: x, Class: Y"))
    assert row["description"] == ""
    assert row["metadata"]["needs_description"] is True


def test_an_id_survives_a_new_description_and_an_id_that_is_there_is_kept():
    first = schema.adopt(record())
    assert schema.record_id(record(description="other")) == first["metadata"]["id"]
    assert schema.record_id(record(1)) != first["metadata"]["id"]
    assert schema.adopt(record(metadata={"id": "mine"}))["metadata"]["id"] == "mine"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("x = None", "x = ''", False),
        ("f(a, *b, c=1)", "f(a, *b, **{'c': 1})", False),
        ('x = f"{a!r:>{w}} b"', "x = f'{a!r:>{w}} b'", True),
        ("x = 1  # note\n\n\ny = 2\n", "x=1\ny  =  2", True),
        ('x = "#ece6e2"', 'x = "', False),
        ("if a:\n    b()\nc()", "if a:\n    b()\n    c()", False),
        ("x = 'a'", "x = 'a '", False),
        ("broken (\n\n", "broken (", True),
    ],
)
def test_a_fingerprint_ignores_formatting_alone(one, other, same):
    assert (schema.code_fingerprint(one) == schema.code_fingerprint(other)) is same


def test_a_fingerprint_is_the_same_on_every_version_of_python():
    header = 'class A(B, k=1):\n    @d\n    async def f(s, /, x: int = -1, *, y="é", **z) -> None:\n'
    code = header + '        return f"{x!r:>{y}}"\n'
    assert schema.code_fingerprint(code).startswith("30839d3b78124174")


def test_a_rejects_file_is_an_input_again(tmp_path):
    write_rows(tmp_path / "in.jsonl", [record(), *[line for line, _ in HOSTILE]])
    run_script("schema", "convert", "--input", "in.jsonl", "--output", "out.jsonl", cwd=tmp_path, check=0)
    again = run_script(
        "schema", "convert", "--input", "out.rejects.jsonl", "--output", "again.jsonl", cwd=tmp_path, check=0
    )
    assert f"{len(HOSTILE)} in, 0 kept, {len(HOSTILE)} rejected" in again.err
    first, second = (
        [
            {key: value for key, value in row["metadata"]["error"].items() if key != "line"}
            for row in read_rows(tmp_path / name)
        ]
        for name in ("out.rejects.jsonl", "again.rejects.jsonl")
    )
    assert first == second, "nothing of a row is lost or wrapped when it is tried again"


def test_a_mended_reject_comes_through(tmp_path):
    write_rows(tmp_path / "in.jsonl", [b'{"description":"d","code":"x","source":"s","metadata":{"a":NaN}}'])
    run_script("schema", "convert", "--input", "in.jsonl", "--output", "out.jsonl", cwd=tmp_path, check=0)
    mended = (tmp_path / "out.rejects.jsonl").read_bytes().replace(b"NaN", b"1")
    (tmp_path / "mended.jsonl").write_bytes(mended)
    run_script("schema", "convert", "--input", "mended.jsonl", "--output", "good.jsonl", cwd=tmp_path, check=0)
    (row,) = read_rows(tmp_path / "good.jsonl")
    assert row["metadata"]["a"] == 1
    assert "error" not in row["metadata"]


def test_a_reader_uses_flat_memory(tmp_path):
    with open(tmp_path / "big.jsonl", "wb") as file:
        line = msgspec.json.encode(record(code="x = 1\n" * 250)) + b"\n"
        for _ in range(60_000):
            file.write(line)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(1 for _ in schema.read(tmp_path / "big.jsonl", lambda *_, **__: None)) == 60_000
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024 < 30, "megabytes, for a file of 100"


def test_validate_names_every_fault_and_exits_3(tmp_path):
    write_rows(tmp_path / "in.jsonl", [record(), *[line for line, _ in HOSTILE]])
    done = run_script("schema", "validate", "in.jsonl", cwd=tmp_path, check=3)
    assert all(f"line {number}:" in done.err for number in range(2, len(HOSTILE) + 2))
    run_script("schema", "validate", write_rows(tmp_path / "good.jsonl", [record()]), cwd=tmp_path, check=0)


def test_trace_walks_from_a_row_back_to_its_source(tmp_path):
    origin = {"path": "scenes/a.py", "line": 12}
    write_rows(tmp_path / "in.jsonl", [record(metadata={"id": "abc123", "origin": origin}), record(1)])
    run_script("schema", "convert", "--input", "in.jsonl", "--output", "out.jsonl", cwd=tmp_path, check=0)
    done = run_script("schema", "trace", "abc", "out.jsonl", "in.jsonl", cwd=tmp_path, check=0)
    assert "path scenes/a.py, line 12" in done.out
    assert "(found: in.jsonl:1)" in done.out
    assert "no record" in run_script("schema", "trace", "zzz", "out.jsonl", cwd=tmp_path, check=1).err


@pytest.mark.parametrize(
    ("name", "spoil", "says"),
    [
        ("out.jsonl", lambda data: data + b"\n", "out.jsonl has changed since"),
        ("in.jsonl", lambda data: data[:-5], "in.jsonl has changed since"),
        ("out.rejects.jsonl", lambda data: b"", "out.rejects.jsonl has changed since"),
        ("out.ledger.json", lambda data: data.replace(b'"kept": 2', b'"kept": 3'), "kept + rejected + merged"),
        ("out.ledger.json", lambda data: data.replace(b'"not_json": 1', b'"not_json": 2'), "rejects by reason"),
        ("out.ledger.json", lambda data: b"{}", "not a ledger"),
    ],
)
def test_audit_finds_what_does_not_add_up(tmp_path, name, spoil, says):
    write_rows(tmp_path / "in.jsonl", [record(), record(1), b"broken"])
    run_script("schema", "convert", "--input", "in.jsonl", "--output", "out.jsonl", cwd=tmp_path, check=0)
    assert "adds up" in run_script("schema", "audit", ".", cwd=tmp_path, check=0).err
    path = tmp_path / name
    path.write_bytes(spoil(path.read_bytes()))
    assert says in run_script("schema", "audit", ".", cwd=tmp_path, check=1).err


def test_a_key_that_stands_twice_is_seen_at_any_depth_and_spacing():
    assert decode(b'{"a" : 1, "a": 2}').code == "duplicate_key"
    assert decode(b'[{"a":{"x":[{"b":1,"b":1}]}}]').code == "duplicate_key"
    assert decode(b'{"a": "\\"a\\": 1, \\"a\\": 2", "b": 1}') == {"a": '"a": 1, "a": 2', "b": 1}


def test_parquet_holds_every_record_once_in_all_and_once_by_source(tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow.parquet

    rows = [record(0, source="a/b"), record(1, source="c", metadata={"n": 2**70}), record(2, source="c")]
    write_rows(tmp_path / "in.jsonl", [*rows, b"broken"])
    done = run_script("schema", "parquet", "--input", "in.jsonl", "--output-dir", "p", cwd=tmp_path, check=0)
    assert "4 in, 3 kept, 1 rejected" in done.err
    found = pyarrow.parquet.read_table(tmp_path / "p" / "all.parquet").to_pylist()
    assert [{**row, "metadata": json.loads(row["metadata"])} for row in found] == rows
    names = sorted(path.name for path in (tmp_path / "p").glob("source-*"))
    assert names == ["source-a_b-c14cddc0.parquet", "source-c.parquet"], "another source may be called a_b"
    assert pyarrow.parquet.read_table(tmp_path / "p" / "source-c.parquet").num_rows == 2
    run_script("schema", "audit", "p", cwd=tmp_path, check=0)
