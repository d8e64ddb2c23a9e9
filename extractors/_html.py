"""Reads a documentation page as Sphinx builds it: its prose and its code blocks, in the order of the page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from bs4.element import Tag

_ARTICLE = re.compile(r"<article\b.*</article>", re.DOTALL | re.IGNORECASE)
# The copy for the interactive viewer is not escaped: a parser takes the markup in its strings for tags of the page,
# which corrupts 13 of the 458 programs of Manim's documentation. Only where it stands, and its name, are of use.
_UNESCAPED_COPY = re.compile(r"(<pre\b[^>]*\bdata-manim-binder\b[^>]*>).*?(</pre>)", re.DOTALL)
_HREF = re.compile(r"""<a\b[^>]*?\bhref=["']([^"'#?]+)""", re.IGNORECASE)

_PROSE = {"p", "li", "dt", "dd", "h1", "h2", "h3", "h4", "h5", "h6"}
_HEADINGS = {"h1": 1, "h2": 2, "h3": 3, "h4": 4, "h5": 5, "h6": 6}
_NO_TEXT = {"script", "style", "svg", "nav", "button", "video", "template"}
# Permalink signs, links to the source, titles such as "Note" or the name of the example, and line numbers.
_NO_PROSE = {"headerlink", "viewcode-link", "admonition-title", "linenos", "linenodiv"}
# Stands where the video would be, in documentation that was built without.
_PLACEHOLDER = re.compile(r"Placeholder block for \S+\.")


class Prose(NamedTuple):
    """One paragraph, list item, definition or heading."""

    text: str
    level: int = 0  # of a heading
    documented: str = ""  # the object that a signature names


class Code(NamedTuple):
    """One code block; `scene` is the name that the unescaped copy of an example carries."""

    text: str
    language: str
    scene: str | None = None


class OnlyCopy(NamedTuple):
    """An unescaped copy without a block that it is the copy of."""

    scene: str


Piece = Prose | Code | OnlyCopy


def read_page(html: str) -> list[Piece]:
    """The pieces of the page's article, or of all of it when it has none; RecursionError when nested too deeply."""
    from bs4 import BeautifulSoup

    article = _ARTICLE.search(html)  # to parse the rest, too, takes 3.6 times as long
    tree = BeautifulSoup(_UNESCAPED_COPY.sub(r"\1\2", article[0] if article else html), "html.parser")
    pieces: list[Piece] = []
    words: list[str] = []
    inside: list[Tag] = []  # the tags for prose that are open
    for event in _events(tree):
        if isinstance(event, str):
            words.append(event)
            continue
        pieces += _prose(words, inside)
        words = []
        match event:
            case Code():
                pieces.append(event)
            case OnlyCopy():
                _name_the_last_block(pieces, event)
            case None:
                inside.pop()
            case tag:
                inside.append(tag)
    return pieces


def links(html: str) -> list[str]:
    """The targets of all links, as they are written."""
    import html as entities

    return [entities.unescape(target) for target in _HREF.findall(html)]


def _name_the_last_block(pieces: list[Piece], copy: OnlyCopy) -> None:
    """The copy stands right after the block, with no prose between them."""
    last = pieces[-1] if pieces else None
    if isinstance(last, Code) and last.scene is None:
        pieces[-1] = last._replace(scene=copy.scene)
    else:
        pieces.append(copy)


def _events(tag: Tag) -> Iterator[str | Code | OnlyCopy | Tag | None]:
    """Text, blocks, and where a tag for prose begins (the tag) and ends (None)."""
    from bs4.element import NavigableString, PreformattedString, Tag

    for child in tag.children:
        if isinstance(child, NavigableString):
            if not isinstance(child, PreformattedString):  # a comment
                yield str(child)
        elif not isinstance(child, Tag) or _is_silent(child):
            continue
        elif child.name == "pre":
            yield _block(child)
        elif child.name in _PROSE:
            yield child
            yield from _events(child)
            yield None
        else:
            yield from _events(child)


def _is_silent(tag: Tag) -> bool:
    """Whether a tag has nothing to say about the code near it."""
    return tag.name in _NO_TEXT or not _NO_PROSE.isdisjoint(_classes(tag))


def _block(pre: Tag) -> Code | OnlyCopy:
    if "data-manim-binder" in pre.attrs:
        return OnlyCopy(str(pre.get("data-manim-classname", "")))
    for number in pre.select(".linenos"):
        number.extract()
    around = [*pre.parents][:2]
    language = [name for tag in around for name in _classes(tag) if name.startswith("highlight-")]
    return Code(pre.get_text().strip("\n"), language[0].removeprefix("highlight-") if language else "")


def _prose(words: list[str], inside: list[Tag]) -> list[Piece]:
    text = " ".join("".join(words).split())
    if not text or not inside or _PLACEHOLDER.fullmatch(text):
        return []
    tag = inside[-1]
    documented = str(tag.get("id", "")) if tag.name == "dt" and "sig" in _classes(tag) else ""
    return [Prose(text, _HEADINGS.get(tag.name, 0), documented)]


def _classes(tag: Tag) -> list[str]:
    return [str(name) for name in tag.get_attribute_list("class") if name]
