"""Tells whether a text begins with a request ("Display a circle ..."), and puts its verb into another form.

Only what is certain is taken: a text that is not understood is still a good description, it just can not be rebuilt.
"""

from __future__ import annotations

import re
from typing import NamedTuple


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Verbs that are hardly ever anything else at the start of a sentence.
_PLAIN = _words(
    """
    add align animate apply arrange assemble attach begin blink bounce build calculate combine compare compute connect
    construct convert create decrease define demonstrate depict derive describe develop display divide draw duplicate
    emphasize emphasise enlarge erase expand explain explore extend follow generate give grow hide illustrate implement
    increase indicate insert introduce join keep make merge morph move multiply paint perform produce prove put
    raise reduce reflect remove repeat replace resize restore reveal rotate select show shrink simulate solve summarize
    summarise surround swap teach translate travel uncreate visualize visualise write
    """
)
# Verbs that are also nouns or adjectives: "Plot of a sine curve", "Set theory", "a red circle and label".
_AMBIGUOUS = _words(
    """
    center centre change clear close color colour copy count cut design end extract fade fill flash flip form graph
    group highlight label light link list lower map mark model name open orbit outline overlay pan pause place play
    plot point position present pulse render return reverse run scale scroll separate set shade shift sketch slide sort
    spin split square stack start stop stretch stroke sweep switch tile trace track transform transition turn twist
    update use wait walk wiggle wipe zoom
    """
)
_DETERMINERS = _words(
    """
    a an the this that these those its his her their our my your it them each every all both some any another several
    multiple many various one two three four five six seven eight nine ten
    """
)
# After these a verb is a noun after all ("Display of a circle"), or another verb stands beside it.
_NOT_AN_OBJECT = _words("of is are was were be has have had which who and or then but can will should")
_FUNCTION_WORDS = _words(
    """
    with without where while when whose which who as at by for from in into inside on onto over under above below
    between through to toward towards of off out up down along across around before after until during near so than
    that if because not only also even just like via per plus minus all both each half twice here there
    """
)
_MAKERS = _words("build create design develop generate implement make produce render write animate")


def third_person(verb: str) -> str:
    """What the verb becomes after "an animation that": display, displays; flash, flashes; apply, applies."""
    if re.search(r"(?:s|x|z|ch|sh|o)$", verb):
        return verb + "es"
    return verb[:-1] + "ies" if re.search(r"[^aeiou]y$", verb) else verb + "s"


_VERBS = _PLAIN | _AMBIGUOUS
_BASE_OF = {third_person(verb): verb for verb in sorted(_VERBS)}
_WORD = r"[A-Za-z][A-Za-z'-]*"
# What is quoted or set as a formula is not language.
_QUOTED = re.compile(r'"[^"\n]*"|“[^”]*”|‘[^’]*’|`[^`]*`|\$[^$]*\$|\\\(.*?\\\)|\\\[.*?\\\]', re.DOTALL)
_SENTENCE_END = re.compile(r"(?<!e\.g)(?<!i\.e)(?<!\bvs)(?<!etc)[.!?:](?=\s|$)|\n\s*\n|\n\s*(?:[-*•]|\d+[.)])\s")
_OBJECT = re.compile(rf"(?:{'|'.join(sorted(_DETERMINERS))})\b|[0-9\"“`$\\]", re.IGNORECASE)
_COORDINATE = re.compile(
    rf"(?:[,;]|\b(?:and|or|but)\b)\s+(?:(?:and|or|but|also|next|finally|[a-z]+ly)\s+)*({_WORD})(\s+{_WORD})?"
)
_THEN = re.compile(r"\b(?:then|afterwards?|let's|please)\b", re.IGNORECASE)
_ARTWORK = re.compile(
    r"\b(?:manim|animations?|scenes?|videos?|visuali[sz]ations?|programs?|scripts?|code|class)\b", re.I
)
# How a request for a Manim program begins before it comes to the point.
_BEFORE_THIRD = re.compile(
    r"(?:create|generate|make|write|build|produce|implement|design|develop)\s+an?\s+(?:manim\s+)?"
    r"(?:animation|scene|video)\s+(?:that|which)\s+",
    re.IGNORECASE,
)
_BEFORE_BASE = re.compile(
    r"(?:write|create|generate)\s+(?:some\s+)?manim\s+code\s+to\s+|(?:using|with)\s+manim,\s+|use\s+manim\s+to\s+", re.I
)


class Request(NamedTuple):
    """A text that asks for something: its first verb, and all that follows.

    `simple` says that no other verb of the first sentence stands in the same form, so that this one can change alone.
    """

    verb: str
    rest: str
    form: str
    simple: bool

    @property
    def base(self) -> str | None:
        """As after "to": "display a circle and move it"."""
        return f"{self.verb}{self.rest}" if self.form == "base" or self.simple else None

    @property
    def third(self) -> str | None:
        """As after "that": "displays a circle and moves it"."""
        return f"{third_person(self.verb)}{self.rest}" if self.form == "third" or self.simple else None

    @property
    def has_object(self) -> bool:
        """Whether a thing follows that is marked as one: "the circle", "two dots"."""
        return bool(_OBJECT.match(self.rest.lstrip()))

    @property
    def first_sentence(self) -> str:
        return _first_sentence(self.rest)


def read_request(text: str) -> Request | None:
    """The request that a text begins with, without what leads up to it; None unless it is certain."""
    if frame := _BEFORE_THIRD.match(text):
        return _read(text[frame.end() :], "third")
    frame = _BEFORE_BASE.match(text)
    return _read(text[frame.end() :] if frame else text, "base")


def _read(text: str, form: str) -> Request | None:
    word = re.match(_WORD, text)
    if not word:
        return None
    rest = text[word.end() :]
    verb: str | None = word.group().lower()
    if form == "third":
        verb = _BASE_OF.get(word.group())
    if verb not in _VERBS or not rest.startswith(" "):
        return None
    first = _first_sentence(rest)
    following = re.match(_WORD, rest.lstrip())
    if following and following.group().lower() in _NOT_AN_OBJECT:
        return None
    # "Create an animation with a dot" asks for the animation itself: "that creates an animation" would be another one.
    if verb in _MAKERS and _ARTWORK.search(first[:60]):
        return None
    request = Request(verb, rest, form, simple=not _has_second_verb(first))
    return request if request.has_object or verb not in _AMBIGUOUS else None


def _first_sentence(text: str) -> str:
    """The text up to the end of its first sentence, with x in place of all that is quoted."""
    plain = _QUOTED.sub(lambda quoted: "x" * len(quoted.group()), text)
    end = _SENTENCE_END.search(plain)
    return plain[: end.start()] if end else plain


def _has_second_verb(sentence: str) -> bool:
    """Whether another verb may hang on the first one; when in doubt it does."""
    if _THEN.search(sentence):
        return True
    for found in _COORDINATE.finditer(sentence):
        word, following = found[1].lower(), (found[2] or "").strip().lower()
        if word in _VERBS or word in _BASE_OF:
            return True
        # A word that is no known verb, and is followed by its object all the same.
        if following in _DETERMINERS and word not in _FUNCTION_WORDS and not re.search(r"(?:ing|ed)$", word):
            return True
    return False
