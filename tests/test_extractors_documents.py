"""Documents of every format, made with the libraries that people make them with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from conftest import ROOT, read_rows, run_script

from extractors import BadRow, load
from extractors._text import SEPARATORS, Cut, clean, decode, split_text, strip_running_lines, word_offsets

pymupdf = pytest.importorskip("pymupdf")
docx = pytest.importorskip("docx")
pytest.importorskip("pypdf")
from docx.opc.packuri import PackURI  # noqa: E402
from docx.opc.part import Part  # noqa: E402
from docx.oxml import parse_xml  # noqa: E402

WORDS = "The pendulum swings from side to side and loses a little of its energy on every turn. "


def make_pdf(path, pages=3, **save):
    """Two columns, a table, a header and a footer on each page."""
    document = pymupdf.open()
    for number in range(1, pages + 1):
        page = document.new_page()
        page.insert_text((72, 40), "Journal of Pendulums, volume 7", fontsize=8)
        page.insert_text((290, 815), f"Page {number} of {pages}", fontsize=8)
        page.insert_text((72, 80), f"Chapter {number} of motion", fontsize=20)
        page.insert_textbox((72, 100, 285, 420), f"LEFT{number}. " + WORDS * 4, fontsize=10)
        page.insert_textbox((310, 100, 523, 420), f"RIGHT{number}. " + WORDS * 4, fontsize=10)
        for row in range(4):
            page.draw_line((72, 500 + 20 * row), (372, 500 + 20 * row))
            page.draw_line((72 + 100 * row, 500), (72 + 100 * row, 560))
        for row in range(3):
            for column in range(3):
                page.insert_text((77 + 100 * column, 514 + 20 * row), f"cell{row}{column}", fontsize=9)
    document.save(path, **save)
    return path


def make_scan(path):
    picture = pymupdf.Pixmap(pymupdf.csRGB, pymupdf.IRect(0, 0, 40, 40), False)
    picture.clear_with(90)
    document = pymupdf.open()
    document.new_page().insert_image((72, 72, 300, 300), pixmap=picture)
    document.save(path)


def make_mixed_pdf(path):
    """Text, a scan with the running header of the others, text, an empty page, text."""
    document = pymupdf.open(make_pdf(path, pages=3))
    picture = pymupdf.Pixmap(pymupdf.csRGB, pymupdf.IRect(0, 0, 40, 40), False)
    picture.clear_with(90)
    scan = document.new_page(1)
    scan.insert_text((72, 40), "Journal of Pendulums, volume 7", fontsize=8)
    scan.insert_image((72, 72, 300, 300), pixmap=picture)
    document.new_page(3)
    path.write_bytes(document.tobytes())


def make_docx(path):
    document = docx.Document()
    document.add_heading("On lists", 1)
    document.add_paragraph(WORDS * 2)
    document.add_paragraph("a pivot", style="List Bullet")
    document.add_paragraph("hang it up", style="List Number")
    table = document.add_table(1, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = "length", "one metre"
    document.save(path)


@pytest.fixture
def mixed(tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    make_pdf(folder / "a_columns.pdf")
    make_pdf(folder / "b_secret.pdf", encryption=pymupdf.PDF_ENCRYPT_AES_256, user_pw="x", owner_pw="y")
    make_scan(folder / "c_scan.pdf")
    make_docx(folder / "d_list.docx")
    (folder / "e_latin.txt").write_bytes(("Das Pendel schwingt über die Maße. " * 5).encode("latin-1"))
    (folder / "f_notes.md").write_text("# Energy\n\n" + WORDS * 3, encoding="utf-8")
    (folder / "g_page.html").write_text(
        f"<html><head><title>t</title><script>bad()</script></head><body><h2>Motion</h2><p>{WORDS * 2}</p>"
        "<ul><li>first</li><li>second</li></ul></body></html>"
    )
    (folder / "h_rows.json").write_text(
        json.dumps([{"question": "Why?", "answer": "Because."}, {"text": WORDS * 2}, {"odd": 1}])
    )
    (folder / "i_empty.txt").write_bytes(b"")
    return folder


def read(path, **options):
    return list(load("documents")(str(path), **options))


def by_file(rows):
    found = {}
    for row in rows:
        origin = row.origin if isinstance(row, BadRow) else row["metadata"]["origin"]
        found.setdefault(origin["path"], []).append(row)
    return found


def text_of(rows):
    return "\n".join(row["code"] for row in rows if isinstance(row, dict))


def test_a_mixed_folder_of_nine_formats_ends_in_records_or_named_rejects(mixed):
    found = by_file(read(mixed))
    assert len(found) == 9
    bad = {name: [row.code for row in rows if isinstance(row, BadRow)] for name, rows in found.items()}
    assert {name: codes for name, codes in bad.items() if codes} == {
        "b_secret.pdf": ["encrypted_pdf"],
        "c_scan.pdf": ["scanned_pdf"],
        "h_rows.json": ["unknown_columns"],
        "i_empty.txt": ["empty_file"],
    }
    assert "über die Maße" in text_of(found["e_latin.txt"])
    assert found["f_notes.md"][0]["metadata"]["section"] == "Energy"
    assert found["h_rows.json"][0]["metadata"]["kind"] == "qa"
    word = text_of(found["d_list.docx"])
    assert all(
        part in word for part in ("# On lists", "- a pivot", "1. hang it up", "| length | one metre |\n| --- | --- |")
    )
    page = text_of(found["g_page.html"])
    assert "## Motion" in page and "- first" in page and "bad()" not in page


def test_columns_of_a_pdf_are_read_one_after_the_other_with_tables_and_without_running_lines(mixed):
    rows = by_file(read(mixed, chunk_size=600, overlap=0))["a_columns.pdf"]
    text = text_of(rows)
    places = [text.index(f"{side}{number}") for number in (1, 2, 3) for side in ("LEFT", "RIGHT")]
    assert places == sorted(places)
    between = text[places[0] : places[1]]
    assert between.count("pendulum") == 4
    assert "|cell10|cell11|cell12|" in text
    assert "Journal of Pendulums" not in text and "Page 2 of 3" not in text
    assert [row["metadata"]["origin"]["page"] for row in rows if "RIGHT3" in row["code"]] == [3]
    assert "# Chapter 2 of motion" in text
    kept = text_of(by_file(read(mixed, strip_headers_footers=False))["a_columns.pdf"])
    assert "Journal of Pendulums" in kept


def test_through_the_driver_every_row_is_kept_or_rejected(mixed, tmp_path):
    (tmp_path / "sources.yaml").write_text("docs:\n  type: documents\n  path: mixed\n")
    done = run_script("prepare_data.py", "prepare", cwd=tmp_path, check=0)
    rows = [row for side in ("train", "test") for row in read_rows(tmp_path / "data_formatted" / f"{side}.json")]
    assert {row["metadata"]["kind"] for row in rows} == {"document", "qa"}
    assert all(row["metadata"]["needs_description"] for row in rows if row["metadata"]["kind"] == "document")
    assert done.out == ""
    assert "1 encrypted_pdf" in done.err and "1 scanned_pdf" in done.err


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("cut.pdf", b"not a pdf at all", "broken_file"),
        ("torn.pdf", b"%PDF-1.7\n1 0 obj\n<<", "broken_file"),
        ("x.docx", b"PK\x03\x04rubbish", "broken_file"),
        ("x.zip", b"PK\x03\x04rubbish", "unknown_format"),
        ("x.bin", b"\x00\x01\x02\x03", "unknown_format"),
        ("x.doc", b"\xd0\xcf\x11\xe0" + b"\0" * 600, "unknown_format"),
        ("secret.docx", b"\xd0\xcf\x11\xe0" + "EncryptedPackage".encode("utf-16-le"), "encrypted_docx"),
        ("x.json", b"[1, 2", "broken_file"),
        ("x.jsonl", b"{bad\n", "not_json"),
        ("blank.md", b" \n\n", "empty_file"),
        ("short.txt", b"Too short.", "short_chunk"),
    ],
)
def test_a_file_that_gives_nothing_says_why(tmp_path, name, data, code):
    (tmp_path / name).write_bytes(data)
    rows = read(tmp_path)
    assert [(row.code, row.origin["path"]) for row in rows] == [(code, name)]
    assert "\n" not in rows[0].message


def test_the_content_decides_when_the_name_is_wrong(tmp_path):
    make_pdf(tmp_path / "really_a_pdf.txt", pages=1)
    assert "LEFT1" in text_of(read(tmp_path))


@pytest.mark.parametrize("separators", [SEPARATORS, [], ["\n"]])
@pytest.mark.parametrize("overlap", [0, 30, 99])
def test_chunks_hold_the_whole_text_and_are_never_too_long(separators, overlap):
    text = "".join(f"{number} {WORDS}" + "\n\n" * (number % 4 == 0) for number in range(40)) + "x" * 350
    spans = split_text(text, Cut(100, overlap, separators))
    assert all(0 < end - start <= 100 for start, end in spans)
    covered = set()
    for start, end in spans:
        covered.update(range(start, end))
    assert not [text[at] for at in range(len(text)) if at not in covered and not text[at].isspace()]
    assert [start for start, _ in spans] == sorted({start for start, _ in spans})


def test_a_chunk_of_tokens_has_that_many_and_overlaps_by_that_many():
    text = " ".join(f"w{number}" for number in range(25))
    chunks = [text[start:end].split() for start, end in split_text(text, Cut(10, 3, [], word_offsets))]
    assert [len(chunk) for chunk in chunks] == [10, 10, 10, 4]
    assert chunks[0][-3:] == chunks[1][:3]


def test_place_and_number_of_a_chunk_are_those_of_the_text(tmp_path):
    text = "\n\n".join(f"{number}. {WORDS.strip()}" for number in range(30))
    (tmp_path / "a.txt").write_text(text)
    rows = read(tmp_path, chunk_size=300, overlap=50)
    for number, row in enumerate(rows, 1):
        start = row["metadata"]["origin"]["start"]
        assert text[start : start + len(row["code"])] == row["code"]
        assert (row["metadata"]["chunk"], row["metadata"]["chunks"]) == (number, len(rows))


def test_wrong_options_are_named(tmp_path):
    (tmp_path / "a.txt").write_text(WORDS)
    for options, message in [
        ({"overlap": 1024}, "must be smaller"),
        ({"tokenizer": "t.json"}, "only for 'splitter: token'"),
    ]:
        with pytest.raises(click.UsageError, match=message):
            read(tmp_path, **options)
    with pytest.raises(click.ClickException, match="no such file"):
        read(tmp_path / "none")


def test_each_page_of_a_pdf_ends_in_chunks_or_in_a_reject_that_names_it(tmp_path):
    make_mixed_pdf(tmp_path / "a.pdf")
    for reader in ("pymupdf", "pypdf"):
        rows = read(tmp_path, pdf_reader=reader, chunk_size=400, overlap=0)
        bad = [(row.code, row.origin["page"]) for row in rows if isinstance(row, BadRow)]
        assert bad[:2] == [("scanned_page", 2), ("blank_page", 4)]
        assert "a.pdf: page 2: pictures and no text" in rows[0].message
        pages = {row["metadata"]["origin"]["page"] for row in rows if isinstance(row, dict)}
        assert pages == {1, 3, 5}
        assert all(f"{side}{number}" in text_of(rows) for side in ("LEFT", "RIGHT") for number in (1, 2, 3))


def test_pypdf_names_the_same_faults(mixed):
    found = by_file(read(mixed, pdf_reader="pypdf"))
    assert [found[name][0].code for name in ("b_secret.pdf", "c_scan.pdf")] == ["encrypted_pdf", "scanned_pdf"]
    (mixed / "torn.pdf").write_bytes(b"%PDF-1.7\n1 0 obj\n<<")
    assert [row.code for row in read(mixed / "torn.pdf", pdf_reader="pypdf")] == ["broken_file"]


def test_ocr_without_its_language_data_ends_in_one_line(mixed, tmp_path, monkeypatch):
    monkeypatch.setenv("TESSDATA_PREFIX", str(tmp_path))
    with pytest.raises(click.UsageError, match=r"finds no eng\.traineddata in .*: install tesseract-ocr"):
        read(mixed / "c_scan.pdf", ocr=True)
    monkeypatch.delenv("TESSDATA_PREFIX")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(click.UsageError, match="needs the language data of tesseract: install tesseract-ocr"):
        read(mixed / "c_scan.pdf", ocr=True)
    with pytest.raises(click.UsageError, match="needs 'pdf_reader: pymupdf'"):
        read(mixed / "c_scan.pdf", ocr=True, pdf_reader="pypdf")


def test_ocr_reads_a_scanned_page_between_others(tmp_path):
    try:
        found = (Path(pymupdf.get_tessdata()) / "eng.traineddata").is_file()
    except RuntimeError:
        found = False
    if not found:
        pytest.skip("no language data of tesseract on this machine")
    source = pymupdf.open(make_pdf(tmp_path / "text.pdf", pages=3))
    picture = source[1].get_pixmap(dpi=200)
    source.delete_page(1)
    source.new_page(1).insert_image(source[0].rect, pixmap=picture)
    (tmp_path / "scan").mkdir()
    source.save(tmp_path / "scan" / "a.pdf")
    assert [row.code for row in read(tmp_path / "scan") if isinstance(row, BadRow)] == ["scanned_page"]
    rows = read(tmp_path / "scan", ocr=True)
    assert "LEFT2" in text_of(rows) and not [row for row in rows if isinstance(row, BadRow)]


def test_no_pdf_reader_is_imported_unless_a_pdf_is_read(tmp_path):
    (tmp_path / "a.txt").write_text(WORDS * 3)
    make_pdf(tmp_path / "a.pdf", pages=1)
    program = (
        "import sys; from extractors import load;"
        "print(len(list(load('documents')(sys.argv[1], pdf_reader=sys.argv[2]))), 'pymupdf' in sys.modules)"
    )
    for name, reader, expected in [("a.txt", "pymupdf", "1 False"), ("a.pdf", "pypdf", "1 False")]:
        command = [sys.executable, "-c", program, str(tmp_path / name), reader]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        assert done.stdout.strip() == expected


def test_notes_text_boxes_and_insertions_of_a_docx_are_read_and_its_headers_only_on_request(tmp_path):
    document = docx.Document()
    document.sections[0].header.paragraphs[0].text = "A RUNNING HEADER"
    document.sections[0].footer.paragraphs[0].text = "A RUNNING FOOTER"
    body = document.add_paragraph("A claim")
    space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    line = "<w:p><w:r><w:t>{}</w:t></w:r></w:p>"
    for xml in (
        '<w:r {0}><w:footnoteReference w:id="2"/></w:r>',
        "<w:ins {0}><w:r><w:t> was added</w:t></w:r></w:ins>",
        "<w:r {0}><w:pict><w:txbxContent>" + line.format("In a box") + "</w:txbxContent></w:pict></w:r>",
    ):
        body._p.append(parse_xml(xml.format(space)))
    body._p.addnext(parse_xml(f"<w:sdt {space}><w:sdtContent>{line.format('In a form')}</w:sdtContent></w:sdt>"))
    document.add_paragraph(WORDS * 2)
    notes = f"<w:footnotes {space}><w:footnote w:id='0' w:type='separator'>{line.format('-')}</w:footnote>"
    notes += f"<w:footnote w:id='2'>{line.format('Says the note.')}</w:footnote></w:footnotes>"
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/footnotes"
    part = Part(PackURI("/word/footnotes.xml"), "application/xml", notes.encode(), document.part.package)
    document.part.relate_to(part, kind)
    document.save(tmp_path / "a.docx")
    text = text_of(read(tmp_path))
    assert text.startswith("A claim[^2] was added\n\nIn a box\n\nIn a form\n\nThe pendulum")
    assert text.endswith("[^2]: Says the note.") and "RUNNING" not in text
    whole = text_of(read(tmp_path, strip_headers_footers=False))
    assert whole.startswith("A RUNNING HEADER") and whole.endswith("A RUNNING FOOTER")


@pytest.mark.parametrize(("overlap", "codes"), [(40, []), (0, ["short_chunk"])])
def test_a_short_tail_joins_the_chunk_before_it_where_both_fit(tmp_path, overlap, codes):
    text = "\n\n".join(["a" * 98, "b" * 98, "c" * 30])
    (tmp_path / "a.txt").write_text(text)
    rows = read(tmp_path, chunk_size=100, overlap=overlap, min_chunk=60, separators=["\n\n"])
    assert [row.code for row in rows if isinstance(row, BadRow)] == codes
    chunks = [row.raw if isinstance(row, BadRow) else row["code"] for row in rows]
    assert all(len(chunk) <= 100 + overlap for chunk in chunks)
    assert set("abc") <= set("".join(chunks)) and "c" * 30 in chunks[-1]


def test_a_line_of_a_table_of_contents_is_no_heading(tmp_path):
    (tmp_path / "a.md").write_text(f"# Real\n\n## 1 Energy . . . . . . . 7\n\n## Motion ........ **12**\n\n{WORDS * 8}")
    rows = read(tmp_path, chunk_size=300, overlap=0)
    assert {row["metadata"]["section"] for row in rows} == {"Real"}


def test_cleaning_and_decoding():
    assert clean("a  b \r\n\r\n\r\n\r\nc\x07\xad\n") == "a b\n\nc"
    assert [decode("ä€".encode(name)) for name in ("utf-8-sig", "utf-16", "cp1252")] == ["ä€"] * 3
    two = ["Head\nx", "Head\ny"]
    assert strip_running_lines(two) == two
    assert strip_running_lines(["Head\nx\n1", "Head\ny\n2", "Head\nz\n3"]) == ["x", "y", "z"]
