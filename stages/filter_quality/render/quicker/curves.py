"""Manim's ways along curves, all curves of a path at once, and Python's numbers where one comes alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import manim.mobject.geometry.tips as tips
import manim.utils.bezier as bezier
import numpy
from manim import ManimColor, VMobject

_COLOURS = "fill_color", "stroke_color"


def make_quicker() -> None:
    """Put all of this in the place of what it does the work of."""
    VMobject.get_nth_curve_length_pieces = _length_pieces(VMobject)
    VMobject.consider_points_equals = _alike(VMobject.consider_points_equals)
    VMobject.point_from_proportion = _on_the_way(VMobject)
    bezier.get_smooth_open_cubic_bezier_handle_points = _handles(bezier.get_smooth_open_cubic_bezier_handle_points)
    tips.ArrowTriangleFilledTip.__init__ = _tip(tips.ArrowTriangleFilledTip)


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


def _on_the_way(kind: Any) -> Callable[..., Any]:
    """The point at a part of the length, with the lengths of all curves at once."""
    asked: tuple[str, ...] = (
        "get_nth_curve_function",
        "get_nth_curve_length_pieces",
        "get_nth_curve_function_with_length",
    )
    asked += ("get_curve_functions_with_lengths", "get_num_curves", "get_nth_curve_points")
    own, first = kind.point_from_proportion, [getattr(kind, name) for name in asked]
    there = numpy.linspace(0, 1, 10).reshape(10, 1)
    back = 1 - there
    # In the order of Manim's own formula: another one would round otherwise.
    shares = back * back * back, 3 * there * (back * back), 3 * (there * there) * back, there * there * there

    def point_from_proportion(self: Any, alpha: Any) -> Any:
        points = self.points
        if not _are_floats(points) or len(points) < 4 or self.n_points_per_cubic_curve != 4:
            return own(self, alpha)
        if not 0 <= alpha < 1 or [getattr(type(self), name) for name in asked] != first:
            return own(self, alpha)
        corners = points[: len(points) // 4 * 4].reshape(-1, 4, 1, 3)
        parts = [share * corners[:, place] for place, share in enumerate(shares)]
        steps = numpy.diff(parts[0] + parts[1] + parts[2] + parts[3], axis=1)
        lengths = numpy.linalg.norm(steps, axis=2).sum(axis=1).tolist()
        wanted, gone = alpha * sum(lengths), 0
        for number, length in enumerate(lengths):
            if gone + length >= wanted:
                return self.get_nth_curve_function(number)((wanted - gone) / length if length else 0)
            gone += length
        return own(self, alpha)  # which knows how to complain

    return point_from_proportion


def _handles(own: Callable[..., Any]) -> Callable[..., Any]:
    """The handles that make a line through all these points smooth."""
    known = [float(bezier.CP_OPEN_MEMO[0])]

    def get_smooth_open_cubic_bezier_handle_points(anchors: Any) -> Any:
        if not _are_floats(anchors) or anchors.ndim != 2 or anchors.shape[1] != 3 or len(anchors) < 3:
            return own(anchors)
        last = len(anchors) - 1
        while len(known) < last:
            known.append(1 / (4 - known[-1]))
        rows = [(0.5 * anchors[0] + anchors[1]).tolist()]
        x, y, z = rows[0]
        middle = (4 * anchors[1 : last - 1] + 2 * anchors[2:last]).tolist()
        for share, (a, b, c) in zip(known[1:], middle, strict=False):
            x, y, z = share * (a - x), share * (b - y), share * (c - z)
            rows.append((x, y, z))
        end = 1 / (7 - 2 * known[last - 2])
        rows.append((end * (8 * anchors[last - 1] + anchors[last] - 2 * numpy.array(rows[-1]))).tolist())
        x, y, z = rows[-1]
        for place in range(last - 2, -1, -1):
            share, (a, b, c) = known[place], rows[place]
            x, y, z = rows[place] = a - share * x, b - share * y, c - share * z
        first = numpy.array(rows)
        second = numpy.empty((last, 3))
        second[:-1] = 2 * anchors[1:last] - first[1:]
        second[-1] = 0.5 * (anchors[last] + first[-1])
        return first, second

    return get_smooth_open_cubic_bezier_handle_points


def _tip(kind: Any) -> Callable[..., Any]:
    """The tip of an arrow as every other one of its size and colour has it."""
    own, known, usual = kind.__init__, dict[Any, Any](), {"length", "width", *_COLOURS}

    def __init__(self: Any, *arguments: Any, **options: Any) -> None:
        is_usual = type(self) is kind and not arguments and options.keys() == usual
        if not is_usual or any(type(options[name]) is not ManimColor for name in _COLOURS):
            own(self, *arguments, **options)
            return
        # Manim's set_default puts another function in the place of one of these.
        made_by = [each.__dict__.get("__init__") for each in kind.__mro__[1:]]
        key = options["length"], options["width"], *(options[each]._internal_value.tobytes() for each in _COLOURS)
        if key in known and known[key][0] == made_by:
            vars(self).update(_fresh(known[key][1]))
            return
        own(self, **options)
        known[key] = made_by, _fresh(vars(self))

    return __init__


def _fresh(values: dict[str, Any]) -> dict[str, Any]:
    """The same values, and what can be changed in place a copy; new mobjects hold nothing deeper."""
    return {
        name: value.copy() if type(value) in (numpy.ndarray, list, dict) else value for name, value in values.items()
    }


def _are_floats(array: Any) -> bool:
    return type(array) is numpy.ndarray and array.dtype == float
