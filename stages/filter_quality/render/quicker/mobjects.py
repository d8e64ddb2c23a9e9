"""Mobjects: their beginnings, their copies, their turns, and where they end."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable
from enum import EnumMeta
from functools import wraps
from typing import Any

import manim.mobject.geometry.arc as arc
import manim.mobject.mobject as mobjects
import manim.utils.polylabel as polylabel
import manim.utils.space_ops as space
import numpy
from manim import ManimColor, Mobject, VMobject

_SAME = {int, float, bool, str, bytes, complex, type(None), type, types.FunctionType, types.BuiltinFunctionType}


def make_quicker() -> None:
    """Put all of this in the place of what it does the work of; once, in the server."""
    Mobject.__deepcopy__ = _copy_of_mobject
    VMobject.__init__ = _beginnings(VMobject)
    VMobject.get_points_defining_boundary = _boundary(VMobject)
    Mobject.get_family = _family(Mobject)
    Mobject.get_critical_point = _critical_point
    Mobject.reduce_across_dimension = _extremes(Mobject.reduce_across_dimension)
    Mobject.apply_function = _applied
    polylabel.Polygon.inside = _inside(polylabel.Polygon)
    arc.TipableVMobject.has_tip = lambda line: "tip" in line.__dict__ and line.tip in line
    arc.TipableVMobject.has_start_tip = lambda line: "start_tip" in line.__dict__ and line.start_tip in line
    space.Rotation = _rotations(space.Rotation)
    space.rotation_matrix = mobjects.rotation_matrix = _matrices(space.rotation_matrix)


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


def _family(kind: Any) -> Callable[..., Any]:
    """A mobject with all in it, without a generator in a generator for each level."""
    own, steps = kind.get_family, kind._iter_family

    def get_family(self: Any, recurse: bool = True) -> Any:
        family, seen, waiting = [], set(), [self]
        while waiting:
            one = waiting.pop()
            if one in seen or type(one)._iter_family is not steps:
                return own(self, recurse)
            family.append(one)
            seen.add(one)
            if inner := one.submobjects:
                waiting.extend(reversed(inner))
        return family

    return get_family


def _boundary(kind: Any) -> Callable[..., Any]:
    """The ends of all curves, by whole arrays."""
    own, anchors = kind.get_points_defining_boundary, kind.get_anchors

    def get_points_defining_boundary(self: Any) -> Any:
        pieces = []
        for each in self.get_family():
            points, step = each.points, each.n_points_per_cubic_curve
            if type(each).get_anchors is not anchors or points.shape[1:] != (3,):
                return own(self)
            if len(points) == 1:
                pieces.append(points)
            elif len(points) % step or step < 2:
                return own(self)  # which knows how to complain
            elif len(points):
                pieces.append(points.reshape(-1, step, 3)[:, :: step - 1].reshape(-1, 3))
        return numpy.concatenate(pieces) if pieces else own(self)

    return get_points_defining_boundary


def _critical_point(self: Any, direction: Any) -> Any:
    result = numpy.zeros(self.dim)
    points = self.get_points_defining_boundary()
    if len(points) == 0:
        return result
    least, most = numpy.minimum.reduce(points).tolist(), numpy.maximum.reduce(points).tolist()
    for dim in range(self.dim):
        key = direction[dim]
        result[dim] = least[dim] if key < 0 else (least[dim] + most[dim]) / 2 if key == 0 else most[dim]
    return result


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


def _matrices(own: Callable[..., Any]) -> Callable[..., Any]:
    """The same turn for all parts of a mobject, and for the sheen of each."""
    last: list[Any] = [None, None]

    def rotation_matrix(angle: Any, axis: Any, homogeneous: bool = False) -> Any:
        if homogeneous or not _are_floats(axis) or type(angle) not in (float, int, numpy.float64):
            return own(angle, axis, homogeneous)
        turn = float(angle), axis.tobytes()
        if last[0] != turn:
            last[:] = turn, own(angle, axis)
        return last[1].copy(order="K")

    return rotation_matrix


def _extremes(own: Callable[..., Any]) -> Callable[..., Any]:
    """The least and the most of a coordinate, by Python's own numbers: its min and max ask for them one by one."""

    def reduce_across_dimension(self: Any, reduce_func: Any, dim: int) -> Any:
        points = self.points
        if self.submobjects or not _are_floats(points) or not len(points) or reduce_func not in (min, max):
            return own(self, reduce_func, dim)
        return numpy.float64(reduce_func(points[:, dim].tolist()))

    return reduce_across_dimension


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
