"""What the documentation extractor finds: on a loopback site and in copies, all of pages that stand here."""

from __future__ import annotations

import contextlib
import html
import io
import json
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import click
import pytest
from conftest import read_rows, run_script, write_rows

from extractors import BadRow, Fetch, load
from extractors._html import Code, Prose, read_page
from extractors._plain import read_text

PAGE = """<!doctype html><html><body><nav><p>Circle Square navigation</p><a href="/en/index.html#top">home</a></nav>
<article role="main"><section>
<h1>{title}<a class="headerlink" href="#x" title="Link to this heading">¶</a></h1>
{body}
</section></article><footer><p>footer words</p></footer></body></html>
"""


def escaped(code):
    """As Pygments writes it: escaped, in spans, behind an empty one."""
    first, rest = (html.escape(part, quote=False) for part in (code[:5], code[5:]))
    return f'<div class="highlight"><pre><span></span><span class="k">{first}</span>{rest}\n</pre></div>'


def scene(name, extra=""):
    return f"class {name}(Scene):\n    def construct(self):\n        self.add(Text('<b>{name}</b>'))\n" + (
        f"        {extra}" if extra else "        self.wait()"
    )


def example(code, name):
    """A block and its second copy, as the directive writes them."""
    return (
        f'<div class="admonition admonition-manim-example"><p class="admonition-title">Example: {name}</p>'
        f'<div class="highlight-python notranslate">{escaped(code)}</div>\n'
        f'<pre data-manim-binder data-manim-classname="{name}">\n{code}\n</pre></div>'
    )


def block(code, language="python"):
    return f'<div class="highlight-{language} notranslate">{escaped(code)}</div>'


def page(body, title="Shapes"):
    return PAGE.format(title=title, body=body)


CIRCLES = page(
    "<p>First come the circles.</p>"
    + example(scene("Round", "self.play(Create(Circle()))"), "Round")
    + "<p>Then the boxes.</p><h2>Boxes<a class='headerlink' href='#b'>¶</a></h2>"
    + '<dl><dt class="sig sig-object py" id="manim.Box">class Box<a class="headerlink" href="#">¶</a></dt>'
    + "<dd>A box.</dd></dl>"
    + example(scene("Boxed"), "Boxed")
    + "<p>The end.</p>"
    + block("manim -pql circle.py Circle\nls\nls -l", "bash")
    + block("from manim import *\nx = Square()\ny = x.copy()", "default")
    + '<a href="deep/more.html#there">more</a><a href="gone.html">gone</a><a href="_modules/manim.html">source</a>'
    + '<a href="http://other.example/x.html">elsewhere</a>'
)
MORE = page(example(scene("Round", "self.play(Create(Circle()))"), "Round") + "<p>Again.</p>", "More")
SITE = {"/en/index.html": CIRCLES, "/en/deep/more.html": MORE}


def extract(tmp_path, offline=True, refresh=False, **options):
    fetch = Fetch(tmp_path / "cache", offline, refresh)
    rows = list(load("manim_docs")(fetch=fetch, **options))
    return [row for row in rows if isinstance(row, dict)], [row for row in rows if isinstance(row, BadRow)]


def from_page(tmp_path, text, **options):
    path = tmp_path / "pages" / "one.html"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, "utf-8")
    return extract(tmp_path, path=str(path.parent), **options)


def scenes(rows):
    return [row["metadata"]["scene"] for row in rows]


def codes(bad):
    return [row.code for row in bad]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.asked.append((self.path, dict(self.headers)))
        queue = server.faults.get(self.path)
        status, headers, body = queue.pop(0) if queue else self.usual()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = "Content-Length" in headers

    def handle(self):
        with contextlib.suppress(ConnectionError):  # an endless body is not read to its end
            super().handle()

    def usual(self):
        if self.path not in self.server.pages:
            return 404, {}, b"no such page"
        if self.headers.get("If-None-Match") == '"1"':
            return 304, {}, b""
        return 200, {"ETag": '"1"'}, self.server.pages[self.path].encode()

    def log_message(self, *_):
        pass


@pytest.fixture
def site():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.pages, server.faults, server.asked = dict(SITE), {}, []
    server.url = f"http://127.0.0.1:{server.server_port}/en/"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def visit(tmp_path, site, **options):
    return extract(tmp_path, **{"offline": False, "url": site.url, "delay": 0.01, **options})


def paths(site):
    return [path for path, _ in site.asked]


def test_an_example_is_taken_once_from_the_escaped_block_and_gets_its_import(tmp_path):
    rows, bad = from_page(tmp_path, page(example(scene("Marked"), "Marked")))
    assert [row["code"] for row in rows] == [f"from manim import *\n\n{scene('Marked')}\n"]
    assert bad == []


def test_an_example_that_imports_manim_gets_no_second_import(tmp_path):
    code = "from manim import Scene, Text\n" + scene("Own")
    rows, _ = from_page(tmp_path, page(example(code, "Own")))
    assert rows[0]["code"] == code + "\n"


def test_the_markup_of_an_unescaped_copy_does_not_swallow_what_follows_it(tmp_path):
    torn = "class Torn(Scene):\n    def construct(self):\n        self.add(Text('<script><div><h1>'))"
    rows, bad = from_page(tmp_path, page(example(torn, "Torn") + "<p>After it.</p>" + example(scene("Next"), "Next")))
    assert scenes(rows) == ["Torn", "Next"]
    assert rows[0]["code"].endswith(torn + "\n")
    assert rows[0]["metadata"]["after_context"] == "After it."
    assert bad == []


def test_what_a_build_without_videos_says_is_no_context(tmp_path):
    rows, _ = from_page(
        tmp_path,
        page("<p>Look:</p><p>Placeholder block for <code>Shown</code>.</p>" + example(scene("Shown"), "Shown")),
    )
    assert rows[0]["metadata"]["before_context"] == "Shapes\nLook:"


def test_a_copy_without_its_block_is_a_reject(tmp_path):
    _, bad = from_page(tmp_path, page('<p>Words.</p><pre data-manim-binder data-manim-classname="Lone">x</pre>'))
    assert codes(bad) == ["only_unescaped_copy"]
    assert "Lone" in bad[0].message


def test_a_row_knows_its_section_object_place_and_whether_something_moves(tmp_path):
    rows, _ = from_page(tmp_path, CIRCLES, url="https://docs.example/v1")
    first, second = (row["metadata"] for row in rows)
    assert (first["section"], first["documented"], first["has_animation"]) == ("Shapes", "", True)
    assert (second["section"], second["documented"], second["has_animation"]) == ("Boxes", "manim.Box", False)
    assert second["origin"] == {"url": "https://docs.example/v1/one.html", "block": 2}
    assert first["before_context"] == "Shapes\nFirst come the circles."
    assert first["after_context"].startswith("Then the boxes.\nBoxes\nclass Box\nA box.\nThe end.")
    assert "¶" not in json.dumps(rows, ensure_ascii=False)
    assert "navigation" not in json.dumps(rows)
    assert "footer" not in json.dumps(rows)


def test_the_context_is_the_words_nearest_to_the_code(tmp_path):
    before, after = (" ".join(f"{side}{number}" for number in range(50)) for side in "ba")
    rows, _ = from_page(
        tmp_path, page(f"<p>{before}</p>{example(scene('Mid'), 'Mid')}<ul><li>{after}</li></ul>"), context_words=3
    )
    assert rows[0]["metadata"]["before_context"] == "b47 b48 b49"
    assert rows[0]["metadata"]["after_context"] == "a0 a1 a2"


def test_every_block_that_is_not_taken_is_a_reject_with_its_text(tmp_path):
    rows, bad = from_page(tmp_path, CIRCLES)
    assert scenes(rows) == ["Round", "Boxed"]
    assert codes(bad) == ["not_an_example", "not_an_example"]
    assert bad[0].raw.startswith("manim -pql")


@pytest.mark.parametrize(
    ("options", "taken", "left"),
    [
        ({"snippets": True}, 3, ["not_manim"]),
        ({"include_non_manim": True}, 4, []),
        ({"snippets": True, "min_lines": 4}, 2, ["not_manim", "too_short"]),
        ({"include_non_manim": True, "min_lines": 4}, 2, ["too_short", "too_short"]),
    ],
)
def test_the_options_say_which_blocks_are_taken(tmp_path, options, taken, left):
    rows, bad = from_page(tmp_path, CIRCLES, **options)
    assert (len(rows), codes(bad)) == (taken, left)


def test_a_block_that_is_not_about_manim_gets_no_import_of_it(tmp_path):
    rows, _ = from_page(tmp_path, page(block("a = 1\nb = 2\nc = 3")), include_non_manim=True)
    assert rows[0]["code"] == "a = 1\nb = 2\nc = 3\n"


def test_prompts_and_output_of_a_doctest_are_no_code(tmp_path):
    doctest = ">>> from manim import Circle\n>>> for side in 'ab':\n...     Circle()\n...\nCircle\n>>> x = 1  "
    rows, _ = from_page(tmp_path, page(block(doctest, "pycon")), snippets=True)
    assert rows[0]["code"] == "from manim import Circle\nfor side in 'ab':\n    Circle()\n\nx = 1\n"


def test_line_numbers_and_bare_blocks_are_understood():
    found = read_page('<pre><code>a = 1</code></pre><pre><span class="linenos">1</span>b = 2</pre>')
    assert [piece.text for piece in found] == ["a = 1", "b = 2"]


def test_the_same_example_on_another_page_is_a_reject_that_names_the_first(tmp_path):
    for name, text in (("a.html", CIRCLES), ("b.html", MORE), ("_modules/c.html", MORE), ("genindex.html", MORE)):
        (tmp_path / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / name).write_text(text, "utf-8")
    rows, bad = extract(tmp_path, path=str(tmp_path / "site"), url="https://docs.example/")
    assert scenes(rows) == ["Round", "Boxed"]
    repeated = [row for row in bad if row.code == "repeated_example"]
    assert [row.message for row in repeated] == ["the same code stands in https://docs.example/a.html, block 1"]


def test_a_page_that_is_not_utf8_or_nested_too_deeply_is_a_reject_and_the_next_is_read(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "a.html").write_bytes(b"<p>\xff</p>")
    (folder / "b.html").write_text("<div>" * 3000 + "x")
    (folder / "c.html").write_text(MORE, "utf-8")
    rows, bad = extract(tmp_path, path=str(folder))
    assert (scenes(rows), codes(bad)) == (["Round"], ["not_utf8", "nested_too_deep"])


def make_tar(path, files, kind="xz"):
    with tarfile.open(path, f"w:{kind}") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
        link = tarfile.TarInfo("html/link.html")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
    return path


def make_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


@pytest.mark.parametrize(("name", "make"), [("docs.tar.xz", make_tar), ("docs.zip", make_zip)])
def test_an_archive_is_read_as_the_folder_in_it_and_hostile_members_are_refused(tmp_path, name, make):
    archive = make(tmp_path / name, {"html/deep/more.html": MORE, "html/index.html": CIRCLES, "../evil.html": CIRCLES})
    rows, bad = extract(tmp_path, path=str(archive), url="https://docs.example/")
    # index.html comes after deep/more.html: the names decide, not the order in the archive
    assert [row["metadata"]["origin"]["url"] for row in rows] == [
        "https://docs.example/deep/more.html",
        "https://docs.example/index.html",
    ]
    assert [row["metadata"]["depth"] for row in rows] == [1, 0]
    assert "unsafe_name" in codes(bad)
    assert not (tmp_path.parent / "evil.html").exists()


def test_a_page_that_unpacks_to_an_absurd_size_is_refused(tmp_path):
    archive = make_zip(tmp_path / "bomb.zip", {"html/a.html": MORE, "html/b.html": " " * (17 << 20)})
    rows, bad = extract(tmp_path, path=str(archive))
    assert (scenes(rows), codes(bad)) == (["Round"], ["page_too_large"])


@pytest.mark.parametrize("name", ["docs.tar.xz", "docs.zip", "notes.bin"])
def test_a_broken_archive_stops_the_source_in_one_sentence(tmp_path, name):
    path = make_tar(tmp_path / name, {"html/index.html": CIRCLES * 50})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(click.ClickException, match=name):
        extract(tmp_path, path=str(path))


def test_a_table_of_pages_may_hold_html_and_plain_text(tmp_path):
    prose = "Drawing\n=======\n\nA dot appears.\n\n"
    text = prose + "class Dotted(Scene):\n    def construct(self):\n\n        self.add(Dot())\nThat was it.\n"
    table = [
        {"url": "https://docs.example/a.html", "depth": 2, "content": MORE},
        {"url": "https://docs.example/b.txt", "depth": 1, "content": text},
        {"url": 7, "content": "x"},
        b"{broken",
    ]
    path = write_rows(tmp_path / "docs_html.jsonl", table)
    rows, bad = extract(tmp_path, path=str(path))
    assert [(row["metadata"]["scene"], row["metadata"]["depth"]) for row in rows] == [("Round", 2), ("Dotted", 1)]
    told = rows[1]["metadata"]
    assert (told["section"], told["before_context"], told["after_context"]) == (
        "Drawing",
        "Drawing\nA dot appears.",
        "That was it.",
    )
    assert rows[1]["code"].endswith("class Dotted(Scene):\n    def construct(self):\n\n        self.add(Dot())\n")
    assert codes(bad) == ["not_a_page", "not_json"]


def test_plain_text_gives_doctests_and_programs_with_the_prose_between():
    text = "# Title\nTry this:\n\n    >>> Circle()\n    Circle\n\nOr:\n\n"
    text += "from manim import *\n\nx = Dot()\nx.scale(2)\n\nPlain words."
    assert read_text(text) == [
        Prose("Title", 1),
        Prose("Try this:"),
        Code(">>> Circle()\nCircle", "python"),
        Prose("Or:"),
        Code("from manim import *\n\nx = Dot()\nx.scale(2)", "python"),
        Prose("Plain words."),
    ]


def test_the_site_is_followed_by_its_links_and_what_is_missing_is_named(tmp_path, site):
    rows, bad = visit(tmp_path, site)
    assert scenes(rows) == ["Round", "Boxed"]
    assert paths(site) == ["/robots.txt", "/en/index.html", "/en/deep/more.html", "/en/gone.html"]
    assert sorted(codes(bad)) == ["not_an_example", "not_an_example", "page_missing", "repeated_example"]


def test_named_pages_are_read_and_no_others(tmp_path, site):
    rows, _ = visit(tmp_path, site, pages=["deep/more.html"])
    assert scenes(rows) == ["Round"]
    assert paths(site) == ["/robots.txt", "/en/deep/more.html"]
    with pytest.raises(click.UsageError, match="not below"):
        visit(tmp_path, site, pages=["http://other.example/x.html"])


def test_more_pages_than_allowed_are_told_and_not_read(tmp_path, site):
    _, bad = visit(tmp_path, site, max_pages=1)
    assert [row.message for row in bad if row.code == "page_limit"] == ["2 more pages are linked; max_pages is 1"]


def test_a_second_run_asks_for_nothing_even_offline_and_a_refresh_only_whether_it_changed(tmp_path, site):
    pages = ["index.html", "deep/more.html"]
    first = visit(tmp_path, site, pages=pages)
    site.asked.clear()
    assert visit(tmp_path, site, pages=pages, offline=True) == first
    assert visit(tmp_path, site, pages=pages) == first
    assert site.asked == []
    site.pages["/en/deep/more.html"] = page(example(scene("New"), "New"))
    site.faults["/en/deep/more.html"] = [(200, {}, site.pages["/en/deep/more.html"].encode())]
    rows, _ = visit(tmp_path, site, pages=pages, refresh=True)
    assert scenes(rows) == ["Round", "Boxed", "New"]
    assert [headers.get("If-None-Match") for _, headers in site.asked] == [None, '"1"', '"1"']


def test_offline_without_a_copy_says_what_to_do(tmp_path, site):
    with pytest.raises(click.ClickException, match="--offline forbids"):
        visit(tmp_path, site, offline=True)
    assert site.asked == []


def test_a_damaged_file_in_the_cache_is_fetched_again(tmp_path, site):
    first = visit(tmp_path, site, pages=["index.html"])
    (file,) = (tmp_path / "cache").glob("*.page")
    file.write_bytes(file.read_bytes()[:-1])
    assert visit(tmp_path, site, pages=["index.html"]) == first


def test_robots_txt_is_respected(tmp_path, site):
    site.pages["/robots.txt"] = "User-agent: *\nDisallow: /en/deep/\n"
    _, bad = visit(tmp_path, site)
    assert "/en/deep/more.html" not in paths(site)
    assert any("robots.txt" in row.message for row in bad)


def test_robots_txt_that_fails_stops_the_source(tmp_path, site):
    site.faults["/robots.txt"] = [(500, {}, b"")] * 4
    with pytest.raises(click.ClickException, match=r"robots\.txt"):
        visit(tmp_path, site)


def test_requests_keep_their_distance(tmp_path, site, monkeypatch):
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)
    visit(tmp_path, site, delay=5.0)
    assert [round(wait) for wait in waits[1:]] == [5, 5, 5]


def test_a_busy_site_is_asked_again_when_it_says_so_and_not_for_ever(tmp_path, site, monkeypatch):
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)
    site.faults["/en/index.html"] = [(429, {"Retry-After": "7"}, b""), (503, {}, b"")]
    rows, _ = visit(tmp_path, site, pages=["index.html"])
    assert (len(rows), 7.0 in waits) == (2, True)
    site.faults["/en/index.html"] = [(503, {}, b"")] * 9
    with pytest.raises(click.ClickException, match="503, 4 times"):
        visit(tmp_path, site, pages=["index.html"], refresh=True)
    site.faults["/en/index.html"] = [(429, {"Retry-After": "9000"}, b"")]
    with pytest.raises(click.ClickException, match="asks to wait 9000 seconds"):
        visit(tmp_path, site, pages=["index.html"], refresh=True)


@pytest.mark.parametrize(
    "target", ["file:///etc/hostname", "http://localhost:9/en/index.html", "//other.example/", "http://["]
)
def test_a_redirect_that_leaves_the_site_is_refused(tmp_path, site, target):
    site.faults["/en/index.html"] = [(302, {"Location": target}, b"")]
    with pytest.raises(click.ClickException, match="redirects to"):
        visit(tmp_path, site)
    assert list((tmp_path / "cache").glob("*")) == []


def test_a_redirect_within_the_site_is_followed_but_not_in_a_circle(tmp_path, site):
    site.faults["/en/index.html"] = [(302, {"Location": "deep/more.html"}, b"")]
    rows, _ = visit(tmp_path, site, pages=["index.html"])
    assert scenes(rows) == ["Round"]
    site.faults["/en/index.html"] = [(302, {"Location": "index.html"}, b"")] * 9
    with pytest.raises(click.ClickException, match="redirects more than"):
        visit(tmp_path, site, pages=["index.html"], refresh=True)


def test_a_body_that_is_cut_off_or_endless_is_never_cached(tmp_path, site):
    site.faults["/en/index.html"] = [(200, {"Content-Length": "99999"}, b"<article>")] * 4
    with pytest.raises(click.ClickException, match="4 times"):
        visit(tmp_path, site)
    for status, headers in ((200, {}), (302, {"Location": "deep/more.html"})):
        site.faults["/en/index.html"] = [(status, headers, b" " * (17 << 20))]
        with pytest.raises(click.ClickException, match="larger than 16 MiB"):
            visit(tmp_path, site)
    assert list((tmp_path / "cache").glob("*")) == []


@pytest.mark.parametrize(("status", "message"), [(401, "answers 401"), (404, "answers 404")])
def test_a_site_without_its_first_page_stops_the_source(tmp_path, site, status, message):
    site.faults["/en/index.html"] = [(status, {}, b"")]
    with pytest.raises(click.ClickException, match=message):
        visit(tmp_path, site)


def test_an_address_that_is_none_is_a_usage_error(tmp_path):
    with pytest.raises(click.UsageError, match="no address"):
        extract(tmp_path, url="file:///etc/", offline=False)


@pytest.mark.parametrize("wrong", [{"context_words": 0}, {"max_pages": 0}, {"delay": -1.0}])
def test_a_number_without_sense_is_a_usage_error(tmp_path, wrong):
    with pytest.raises(click.UsageError, match="at least"):
        extract(tmp_path, **wrong)


def test_prepare_reads_the_site_and_counts_what_it_leaves_out(tmp_path, site):
    (tmp_path / "sources.yaml").write_text(
        f"docs:\n  type: manim_docs\n  url: {site.url}\n  delay: 0.01\n  licence: MIT\n"
    )
    arguments = ["prepare", "--sources", "docs", "--cache-dir", "cache", "--test-ratio", "0"]
    run_script("prepare_data.py", *arguments, cwd=tmp_path, check=0)
    rejects = read_rows(tmp_path / "data_formatted" / "rejects.jsonl")
    assert len(read_rows(tmp_path / "data_formatted" / "train.json")) == 2
    assert len(rejects) == 4
    before = (tmp_path / "data_formatted" / "train.json").read_bytes()
    site.asked.clear()
    run_script("prepare_data.py", *arguments, "--offline", cwd=tmp_path, check=0)
    assert (tmp_path / "data_formatted" / "train.json").read_bytes() == before
    assert site.asked == []
