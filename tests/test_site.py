"""The documentation as a site: it builds without a warning, every link leads somewhere, nothing is loaded."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
from conftest import CLEAN, ROOT

pytest.importorskip("material")


class Page(HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loaded = set(), [], []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        told = dict(attributes)
        if "id" in told:
            self.ids.add(told["id"])
        if tag == "a" and told.get("href"):
            self.links.append(told["href"])
        elif tag in ("script", "img", "link", "iframe", "source"):
            self.loaded += [value for name in ("src", "href") if (value := told.get(name))]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(
        words, cwd=ROOT, env=CLEAN | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return {path: Page(path) for path in sorted(folder.rglob("*.html")) if path.name != "404.html"}


def test_every_page_is_there_and_in_the_list(site):
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert {path.stem for path in site} == pages
    assert set(re.findall(r"([\w-]+)\.md$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)) == pages


def test_every_link_leads_to_a_page_and_to_a_heading_that_are_there(site):
    seen, broken = 0, []
    for path, page in site.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            seen += 1
            if target.is_dir():
                target /= "index.html"
            if target not in site or (parts.fragment and unquote(parts.fragment) not in site[target].ids):
                broken.append(f"{path.name}: {link}")
    assert broken == []
    assert seen > 300


def test_nothing_is_loaded_from_another_place(site):
    assert {link for page in site.values() for link in page.loaded if urlsplit(link).netloc} == set()
