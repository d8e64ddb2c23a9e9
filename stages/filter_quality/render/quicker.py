"""The parts of Manim that cost most of a scene, done for less: each one gives what Manim's own gives, to the bit.

Over the scenes of Manim's documentation, copies of mobjects were a fifth of all time, drawings of letters another
fifth, and arrays of colours a tenth. What Manim does otherwise than in the release that this was compared with is not
touched, nor is a mobject whose class has a method of its own in the place of one that is used here.
LINEMILL_PLAIN_MANIM=1 in the environment leaves all of Manim as it is.
"""

from __future__ import annotations

import copy
import math
import types
from collections.abc import Callable
from enum import EnumMeta
from functools import wraps
from importlib.metadata import version
from typing import Any

import manim
import manim.mobject.geometry.arc as arc
import manim.mobject.svg.svg_mobject as drawing
import manim.utils.polylabel as polylabel
import manim.utils.space_ops as space
import numpy
import svgelements
from manim import BLACK, ManimColor, Mobject

COMPARED_WITH = "0.22.0"
_SAME = {int, float, bool, str, bytes, complex, type(None), type, types.FunctionType, types.BuiltinFunctionType}
# Letters whose paths every program may need; those of other signs are parsed when they come.
_LETTERS = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 .,:;!?()[]{}<>+-*/=_'\"#%&@$^~|"


def make_quicker() -> None:
    """Put all of this in the place of what it does the work of; once, in the server."""
    if version("manim") != COMPARED_WITH:
        return
    Mobject.__deepcopy__ = _copy_of_mobject
    # A drawing keeps the path that its points came from; nothing changes it any more, and copies of it are dear.
    svgelements.Path.__deepcopy__ = lambda path, memo: path
    svgelements.Path.parse = _paths(svgelements.Path, svgelements.Point)
    svgelements.Point.__imul__ = _moved(svgelements.Point.__imul__, svgelements.Matrix)
    drawing.VMobjectFromSVGPath.handle_commands = _outline(drawing.VMobjectFromSVGPath.handle_commands)
    polylabel.Polygon.inside = _inside(polylabel.Polygon)
    kind = manim.VMobject
    kind.__init__ = _beginnings(kind)
    kind.generate_rgbas_array = _colours(kind.generate_rgbas_array)
    kind.get_points_defining_boundary = _boundary(kind)
    kind.get_nth_curve_length_pieces = _length_pieces(kind)
    kind.consider_points_equals = _alike(kind.consider_points_equals)
    Mobject.get_critical_point = _critical_point
    Mobject.apply_function = _applied
    arc.TipableVMobject.has_tip = lambda line: "tip" in line.__dict__ and line.tip in line
    arc.TipableVMobject.has_start_tip = lambda line: "start_tip" in line.__dict__ and line.start_tip in line
    space.Rotation = _rotations(space.Rotation)
    manim.Text(_LETTERS)


def _copy_of_mobject(self: Any, memo: dict[int, Any]) -> Any:
    """Mobject.__deepcopy__ without the general way for the kinds that mobjects are made of."""
    result = self.__class__.__new__(self.__class__)
    memo[id(self)] = result
    for name, value in self.__dict__.items():
        setattr(result, name, value if type(value) in _SAME else _copy_of(value, memo))
    result.original_id = str(id(self))
    return result


def _copy_of(value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _SAME or type(kind) is EnumMeta:
        return value
    if (known := memo.get(id(value))) is not None:
        return known
    if kind in _WAYS:
        return _WAYS[kind](value, memo)
    return value.__deepcopy__(memo) if isinstance(value, Mobject) else copy.deepcopy(value, memo)


def _copy_of_array(value: Any, memo: dict[int, Any]) -> Any:
    memo[id(value)] = copy.deepcopy(value, memo) if value.dtype.hasobject else value.copy(order="K")
    return memo[id(value)]


def _copy_of_colour(value: Any, memo: dict[int, Any]) -> Any:
    result = memo[id(value)] = ManimColor.__new__(ManimColor)
    result.__dict__.update((name, _copy_of(inner, memo)) for name, inner in value.__dict__.items())
    return result


def _copy_of_list(value: Any, memo: dict[int, Any]) -> Any:
    result = memo[id(value)] = []
    result.extend(each if type(each) in _SAME else _copy_of(each, memo) for each in value)
    return result


def _copy_of_dict(value: Any, memo: dict[int, Any]) -> Any:
    result = memo[id(value)] = {}
    result.update((_copy_of(key, memo), _copy_of(inner, memo)) for key, inner in value.items())
    return result


_WAYS = {
    numpy.ndarray: _copy_of_array,
    ManimColor: _copy_of_colour,
    list: _copy_of_list,
    dict: _copy_of_dict,
}


def _beginnings(kind: Any) -> Callable[..., Any]:
    """VMobject() without arguments: every group and every letter begins as a copy of the same."""
    own = kind.__init__
    asked: tuple[str, ...] = (
        "reset_points",
        "init_colors",
        "set_color",
        "set_fill",
        "set_stroke",
        "set_background_stroke",
        "set_sheen",
    )
    asked += ("update_rgbas_array", "generate_rgbas_array", "color", "fill_color", "stroke_color", "__setattr__")
    plain: dict[type, bool] = {}
    first = kind().__dict__
    arrays = [name for name, value in first.items() if isinstance(value, numpy.ndarray)]
    lists = [name for name, value in first.items() if isinstance(value, list)]

    @wraps(own)
    def __init__(self: Any, *arguments: Any, **options: Any) -> None:
        mine = type(self)
        if mine not in plain:
            plain[mine] = all(getattr(mine, name) is getattr(kind, name) for name in asked)
        if arguments or options or not plain[mine] or self.__dict__.keys() & first.keys():
            own(self, *arguments, **options)
            return
        self.__dict__.update(first)
        self.name = mine.__name__
        for name in arrays:
            self.__dict__[name] = first[name].copy()
        for name in lists:
            self.__dict__[name] = []
        self.generate_points()

    return __init__


def _paths(kind: Any, point: Any) -> Callable[..., Any]:
    """Path.parse, once for each text: the same letter comes again and again."""
    own, known = kind.parse, dict[str, list[Any]]()

    def copied(segments: list[Any]) -> list[Any]:
        copies = []
        for segment in segments:
            new = object.__new__(type(segment))
            for name, value in segment.__dict__.items():
                if type(value) is point:
                    twin = object.__new__(point)
                    twin.__dict__.update(value.__dict__)
                    value = twin
                new.__dict__[name] = value
            copies.append(new)
        return copies

    def parse(self: Any, pathdef: str) -> None:
        if self._segments:
            own(self, pathdef)
        elif pathdef in known:
            self._segments = copied(known[pathdef])
        else:
            own(self, pathdef)
            known[pathdef] = copied(self._segments)

    return parse


def _moved(own: Any, matrix: Any) -> Callable[..., Any]:
    """A point of a drawing times a matrix, without a new point for the result."""

    def __imul__(self: Any, other: Any) -> Any:
        if type(other) is not matrix:
            return own(self, other)
        x, y = self.x, self.y
        self.x = x * other.a + y * other.c + 1 * other.e
        self.y = x * other.b + y * other.d + 1 * other.f
        return self

    return __imul__


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


def _inside(kind: Any) -> Callable[..., Any]:
    """Whether a point is in a polygon, with the numbers of Python; those of numpy take three times as long."""
    own, asked = kind.inside, ("_is_point_on_segment", "_ray_crosses_segment")
    first = [getattr(kind, name) for name in asked]

    def inside(self: Any, point: Any) -> Any:
        arrays = point, self.start, self.stop
        if [getattr(type(self), name) for name in asked] != first or not all(map(_are_floats, arrays)):
            return own(self, point)
        x, y = point.tolist()
        within = False
        for (x0, y0), (x1, y1) in zip(self.start.tolist(), self.stop.tolist(), strict=True):
            is_near = min(x0, x1) <= x <= max(x0, x1) and min(y0, y1) <= y <= max(y0, y1)
            if is_near and abs((x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)) <= 1e-8:
                return True
            if (y0 > y) != (y1 > y) and x < (x1 - x0) / (y1 - y0) * (y - y0) + x0:
                within = not within
        return within

    return inside


def _are_floats(array: Any) -> bool:
    return type(array) is numpy.ndarray and array.dtype == float


def _alike(own: Any) -> Callable[..., Any]:
    """numpy.allclose of two points."""

    def consider_points_equals(self: Any, p0: Any, p1: Any) -> Any:
        limit = self.tolerance_for_point_equality
        if not (_are_floats(p0) and _are_floats(p1) and p0.shape == p1.shape == (3,) and type(limit) is float):
            return own(self, p0, p1)
        return all(
            a == b or (abs(a - b) <= limit + 1e-5 * abs(b) and math.isfinite(b))
            for a, b in zip(p0.tolist(), p1.tolist(), strict=True)
        )

    return consider_points_equals


def _colours(own: Any) -> Callable[..., Any]:
    """One colour and one opacity, without sheen, which is nearly every call."""

    def generate_rgbas_array(self: Any, color: Any, opacity: Any) -> Any:
        if self.get_sheen_factor() != 0 or not (opacity is None or type(opacity) in (int, float)):
            return own(self, color, opacity)
        if color is None:
            color = BLACK
        elif type(color) is str:
            color = ManimColor(color)
        elif type(color) is not ManimColor:
            return own(self, color, opacity)
        rgbas = numpy.empty((1, 4))
        rgbas[0] = color._internal_value
        rgbas[0, 3] = 0.0 if opacity is None else opacity
        return rgbas

    return generate_rgbas_array


def _boundary(kind: Any) -> Callable[..., Any]:
    """The ends of all curves, by whole arrays."""
    own, anchors = kind.get_points_defining_boundary, kind.get_anchors

    def get_points_defining_boundary(self: Any) -> Any:
        pieces = []
        for each in self.get_family():
            if type(each).get_anchors is not anchors:
                return own(self)
            piece = points = each.points
            if len(points) != 1:
                starts, ends = each.get_start_anchors(), each.get_end_anchors()
                if len(starts) != len(ends):
                    return own(self)  # which knows how to complain
                piece = numpy.empty((2 * len(starts), points.shape[1]), points.dtype)
                piece[0::2], piece[1::2] = starts, ends
            if len(piece):
                pieces.append(piece)
        return numpy.concatenate(pieces) if pieces else own(self)

    return get_points_defining_boundary


def _critical_point(self: Any, direction: Any) -> Any:
    result = numpy.zeros(self.dim)
    points = self.get_points_defining_boundary()
    if len(points) == 0:
        return result
    least, most = points.min(axis=0), points.max(axis=0)
    for dim in range(self.dim):
        key = direction[dim]
        result[dim] = least[dim] if key < 0 else (least[dim] + most[dim]) / 2 if key == 0 else most[dim]
    return result


def _length_pieces(kind: Any) -> Callable[..., Any]:
    """All points of a curve at once."""
    own, curve = kind.get_nth_curve_length_pieces, kind.get_nth_curve_function
    places = numpy.linspace(0, 1, 10).reshape(10, 1)

    def get_nth_curve_length_pieces(self: Any, n: int, sample_points: int | None = None) -> Any:
        if sample_points not in (None, 10) or type(self).get_nth_curve_function is not curve:
            return own(self, n, sample_points)
        points = self.get_nth_curve_function(n)(places)
        return numpy.linalg.norm(points[1:] - points[:-1], axis=1)

    return get_nth_curve_length_pieces


def _rotations(own: Any) -> Any:
    """The compiled half of scipy's rotations for one vector; the other half costs twice as much again."""
    try:
        from scipy.spatial.transform._rotation_cy import as_matrix, from_rotvec
    except ImportError:  # another release of scipy
        return own

    def turn(rotvec: Any, degrees: bool = False) -> Any:
        if getattr(rotvec, "shape", None) != (3,) or rotvec.dtype != float:
            return own.from_rotvec(rotvec, degrees)
        matrix = as_matrix(from_rotvec(rotvec[None], degrees))[0]
        return types.SimpleNamespace(as_matrix=lambda: matrix)

    return types.SimpleNamespace(from_rotvec=turn)


def _applied(self: Any, function: Any, *, about_point: Any = None, about_edge: Any = None) -> Any:
    """A function of a point, for each point, without numpy's way for axes of any kind."""
    if about_point is None and about_edge is None:
        about_point = numpy.zeros(3)

    def of_all(points: Any) -> Any:
        found = [numpy.asanyarray(function(point)) for point in points]
        if any(each.shape != (3,) or each.dtype != float for each in found):
            given = iter(found)
            return numpy.apply_along_axis(lambda _: next(given), 1, points)
        return numpy.array(found)

    self.apply_points_function_about_point(of_all, about_point, about_edge)
    return self
