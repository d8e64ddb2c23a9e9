"""The drawings that texts and formulas are made of, without the general way of reading SVG.

Pango and LaTeX write groups, outlines, and places where outlines are used, and little else. Manim writes them out again
with a style, has svgelements build objects of them, moves every point, and builds a mobject of each outline. Here an
outline is an array that is moved at once, and mobjects of one style begin as copies of the first, which Manim makes.
Whatever a drawing has besides is left to Manim.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import manim.mobject.svg.svg_mobject as drawing
import numpy
import svgelements
from manim import RendererType, SVGMobject, Text, VGroup, VMobject, config

_USED: tuple[str, ...] = (
    "generate_mobject",
    "get_file_path",
    "modify_xml_tree",
    "generate_config_style_dict",
    "get_mobjects_from",
)
_USED += ("get_mob_from_shape_element", "path_to_mobject", "apply_style_to_mobject", "handle_transform")
_HREF = "{http://www.w3.org/1999/xlink}href"
_STYLE = {"fill", "fill-opacity", "stroke", "stroke-opacity", "stroke-width"}
_KNOWN = {"g": {"id"}, "symbol": {"id", "overflow"}, "path": {"id", "d"}, "use": {"x", "y", _HREF}, "defs": {"id"}}
_OF_OPENGL = {"long_lines", "should_subdivide_sharp_curves", "should_remove_null_curves"}
_NUMBER = re.compile(r"-?\d*\.?\d+\Z")
_PLAIN = re.compile(r"(?:[MLHVCZ][\d\s.,-]*)*\Z")
_COMMAND = re.compile("([MLHVCZ])([^MLHVCZ]*)")
_NUMBERS = re.compile(r"-?(?:\d+\.?\d*|\.\d+)")
_STEPS = {"M": 2, "L": 2, "H": 1, "V": 1, "C": 6, "Z": 0}
_NEAR = 0.0001**2  # what is nearer than the root of this is closed already
_SAMPLE = "M0 0L1 0L1 1Z"
# What every program may need; other signs are read when they come.
_LETTERS = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 .,:;!?()[]{}<>+-*/=_'\"#%&@$^~|"
_outlines: dict[str, Any] = {}
_samples: dict[Any, dict[str, Any]] = {}

Chain = tuple[tuple[tuple[str, str], ...], ...]  # the styles of an element and of those around it


class Unusual(Exception):
    """A drawing for Manim's own way."""


def make_quicker() -> None:
    """Put this in the place of Manim's way."""
    own, methods = SVGMobject.generate_mobject, {name: getattr(SVGMobject, name) for name in _USED[1:]}

    def generate_mobject(self: Any) -> Any:
        mine = type(self)
        if any(getattr(mine, name) is not each for name, each in methods.items()):
            return own(self)
        try:
            mobjects, groups = _Drawing(self).read()
        except Unusual:
            return own(self)
        self.add(*mobjects)
        self.id_to_vgroup_dict = groups
        self.flip(drawing.RIGHT)
        return self

    SVGMobject.generate_mobject = generate_mobject
    drawing.VMobjectFromSVGPath.path_obj = property(_path_of, lambda mobject, path: vars(mobject).update(path_obj=path))
    drawing.VMobjectFromSVGPath.handle_commands = _outline(drawing.VMobjectFromSVGPath.handle_commands)
    # A drawing keeps the path that its points came from; nothing changes it any more, and copies of it are dear.
    svgelements.Path.__deepcopy__ = lambda path, memo: path
    Text(_LETTERS)


def _path_of(mobject: Any) -> Any:
    """What svgelements would have made of the outline, which hardly anybody asks for."""
    if "_outline" in vars(mobject):
        text, x, y = vars(mobject).pop("_outline")
        mobject.path_obj = svgelements.Path(text) * f"translate({x}, {y})"
        mobject.path_obj.reify()
    try:
        return vars(mobject)["path_obj"]
    except KeyError:
        raise AttributeError("path_obj") from None


def _outline(own: Any) -> Callable[..., Any]:
    """The cubic curves of a path, one array for all of them instead of one for each point."""
    move, line, cubic, close = svgelements.Move, svgelements.Line, svgelements.CubicBezier, svgelements.Close

    def handle_commands(self: Any) -> Any:
        points: list[tuple[Any, ...]] = []
        last: Any = None
        start: Any = None
        is_cubic = self.n_points_per_curve == 4
        for segment in self.path_obj:
            kind = type(segment)
            if kind is move:
                last = start = (*segment.end, 0.0)
                continue
            if not is_cubic or last is None or kind not in (line, cubic, close):
                return own(self)
            if kind is cubic:
                points += [last, (*segment.control1, 0.0), (*segment.control2, 0.0), end := (*segment.end, 0.0)]
            elif kind is line or numpy.linalg.norm(numpy.subtract(last, start)) > 0.0001:
                end = (*segment.end, 0.0) if kind is line else start
                points += [last, _third(last, last, end), _third(last, end, end), end]
            else:
                continue
            last = end
        self.points = numpy.array(points, ndmin=2, dtype="float64").reshape(-1, 3)
        return self

    return handle_commands


def _third(one: Any, two: Any, three: Any) -> tuple[Any, ...]:
    return tuple((a + b + c) / 3 for a, b, c in zip(one, two, three, strict=True))


class _Drawing:
    """One file on its way to mobjects, and to the groups that they stand in."""

    def __init__(self, owner: Any) -> None:
        self.owner = owner
        self.mobjects: list[Any] = []
        self.names = ["root"]
        self.groups: dict[str, Any] = {"root": VGroup()}
        self.unnamed = 0
        self.parts: dict[str, Any] = {}

    def read(self) -> tuple[list[Any], dict[str, Any]]:
        path = self.owner.get_file_path()
        # Manim writes beside the file, and complains where it can not.
        if config.renderer != RendererType.CAIRO or not os.access(path.parent, os.W_OK):
            raise Unusual
        if not _OF_OPENGL.issuperset(self.owner.path_string_config):
            raise Unusual
        root = ElementTree.parse(path).getroot()
        self.parts = {each.attrib["id"]: each for each in root.iter() if "id" in each.attrib}
        style = {key: value for key, value in root.attrib.items() if key in (*_STYLE, "style")}
        outer: Chain = (_styles(self.owner.generate_config_style_dict(), ()), _styles(style, ()))
        for depth in (1, 2, 3):  # Manim puts the drawing into two groups
            self._enter({}, depth)
        for each in root:
            self._add(each, 4, outer, None)
        return self.mobjects, self.groups

    def _add(self, element: Any, depth: int, around: Chain, place: tuple[float, float] | None) -> None:
        tag = str(element.tag).removeprefix("{http://www.w3.org/2000/svg}")
        attributes = element.attrib
        if tag not in _KNOWN:
            raise Unusual
        chain = (*around, _styles(attributes, _KNOWN[tag]))
        if tag == "defs":
            return
        self._enter(attributes, depth)
        if tag == "path":
            self._draw(attributes.get("d"), chain, place or (0.0, 0.0))
        elif tag == "use":
            if place is not None or len(element):
                raise Unusual
            part = self.parts.get(attributes.get(_HREF, "#")[1:])
            if part is not None:
                self._add(part, depth + 1, chain, (_number(attributes, "x"), _number(attributes, "y")))
        else:
            for each in element:  # svgelements does not know a symbol: what is in it stands beside it
                self._add(each, depth + (tag == "g"), chain, place)

    def _enter(self, attributes: dict[str, str], depth: int) -> None:
        name = attributes.get("id")
        if name is None:
            name = f"numbered_group_{self.unnamed}"
            self.unnamed += 1
        self.names[depth:] = [name]
        self.groups[name] = VGroup()

    def _draw(self, text: str | None, chain: Chain, place: tuple[float, float]) -> None:
        if text is None:
            raise Unusual
        if text not in _outlines:
            _outlines[text] = _outline_of(text)
        points = _moved(_outlines[text], place)
        if not len(points):
            return
        sample = self._sample(chain)
        mobject = object.__new__(drawing.VMobjectFromSVGPath)
        inner = vars(mobject)
        inner.update(sample)
        for name, value in sample.items():
            kind = type(value)
            if kind is numpy.ndarray:
                inner[name] = value.copy()
            elif kind is list:
                inner[name] = []
        inner.update(points=points, _outline=(text, *place))
        self.mobjects.append(mobject)
        for name in self.names[:-1]:
            members = self.groups[name].submobjects
            if not members or members[-1] is not mobject:
                members.append(mobject)

    def _sample(self, chain: Chain) -> dict[str, Any]:
        """A mobject of this style as Manim makes it."""
        # Manim's set_default puts another function in the place of one of these.
        made_by = drawing.VMobjectFromSVGPath.__init__, VMobject.__init__
        key = (chain, made_by, *sorted(self.owner.path_string_config.items()))
        if key not in _samples:
            root = inner = ElementTree.Element("svg")
            for styles in chain[:-1]:
                inner = ElementTree.SubElement(inner, "g", dict(styles))
            ElementTree.SubElement(inner, "path", {**dict(chain[-1]), "d": _SAMPLE})
            svg = svgelements.SVG.parse(io.BytesIO(ElementTree.tostring(root)))
            (sample,), _ = SVGMobject.get_mobjects_from(self.owner, svg)
            if any(type(value) is list and value for value in vars(sample).values()):
                raise Unusual
            _samples[key] = {name: value for name, value in vars(sample).items() if name not in ("points", "path_obj")}
        return _samples[key]


def _styles(attributes: dict[str, str], others: Any) -> tuple[tuple[str, str], ...]:
    """What of the attributes makes a style; Unusual when there is more to them."""
    styles = []
    for name, value in attributes.items():
        if name == "style":
            rules = [rule.partition(":")[0].strip() for rule in value.split(";")]
            if not _STYLE.issuperset(filter(None, rules)):
                raise Unusual
        elif name in others:
            continue
        elif name not in _STYLE:
            raise Unusual
        styles.append((name, value))
    return tuple(styles)


def _number(attributes: dict[str, str], name: str) -> float:
    text = attributes.get(name, "0")
    if not _NUMBER.match(text) or "e" in repr(float(text)):
        raise Unusual
    return float(text)


def _outline_of(text: str) -> Any:
    """Its curves, four points each, with which of them are straight, and which only close what may be closed."""
    if not _PLAIN.match(text):
        return None
    curves, straight, closing = [], [], []
    last: Any = None
    start: Any = None
    for command, rest in _COMMAND.findall(text):
        numbers = [float(each) for each in _NUMBERS.findall(rest)]
        step = _STEPS[command]
        if (last is None and command != "M") or (len(numbers) % step or not numbers if step else numbers):
            return None
        if command == "M":
            if len(numbers) != 2:
                return None
            last = start = (*numbers,)
            continue
        for place in range(0, max(len(numbers), 1), step or 1):
            inner, end = _next(command, numbers[place : place + step], last, start)
            curves.append((last, *inner, end))
            straight.append(command != "C")
            closing.append(command == "Z")
            last = end
    raw = numpy.array(curves, dtype="float64").reshape(-1, 4, 2)
    return raw, numpy.array(straight, dtype=bool), numpy.flatnonzero(closing)


def _next(command: str, numbers: list[float], last: Any, start: Any) -> tuple[Any, Any]:
    if command == "C":
        one, two, three, four, five, six = numbers
        return ((one, two), (three, four)), (five, six)
    if command == "Z":
        end = start
    elif command == "L":
        end = (*numbers,)
    else:
        end = (numbers[0], last[1]) if command == "H" else (last[0], numbers[0])
    return (last, end), end


def _moved(outline: Any, place: tuple[float, float]) -> Any:
    if outline is None:
        raise Unusual
    raw, straight, closing = outline
    points = numpy.zeros((len(raw), 4, 3))
    flat = points[:, :, :2]
    numpy.add(raw, place, out=flat)
    first, last = flat[straight, 0], flat[straight, 3]
    flat[straight, 1] = (first + first + last) / 3
    flat[straight, 2] = (first + last + last) / 3
    if len(closing):
        gaps = flat[closing, 0] - flat[closing, 3]
        far = (gaps * gaps).sum(axis=1).tolist()
        if any(abs(each - _NEAR) < 1e-12 for each in far):
            raise Unusual
        kept = numpy.ones(len(points), dtype=bool)
        kept[closing] = [each > _NEAR for each in far]
        points = points[kept]
    return points.reshape(-1, 3)
