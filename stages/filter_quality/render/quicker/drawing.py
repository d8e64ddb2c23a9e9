"""Manim's drawing of a frame, done for less: the same calls of cairo with the same numbers.

A solid of 3D has thousands of faces; for each of them Manim asks for the same light twice, transforms the same points
twice, and hands over its numbers one by one. What has no opacity is not drawn, which leaves every pixel as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy
from manim import Camera, MovingCamera, ThreeDCamera, VMobject
from manim.camera.camera import cairo
from manim.utils.space_ops import get_unit_normal, normalize

_UP = numpy.array((0.0, 1.0, 0.0))
_CAMERAS = Camera, MovingCamera, ThreeDCamera  # a stranger's may see what has no opacity


def make_quicker() -> None:
    """Put all of this in the place of what it does the work of."""
    VMobject.get_subpath_split_indices_from_points = _splits(VMobject.get_subpath_split_indices_from_points)
    Camera.transform_points_pre_display = _finite(Camera.transform_points_pre_display)
    Camera.set_cairo_context_path = _path
    Camera.set_cairo_context_color = _colour(Camera.set_cairo_context_color)
    Camera.apply_fill = _fill(Camera)
    Camera.apply_stroke = _stroke(Camera)
    ThreeDCamera.project_points = _project
    ThreeDCamera.modified_rgbas = _shaded(ThreeDCamera.modified_rgbas, VMobject.get_anchors)


def _splits(own: Callable[..., Any]) -> Callable[..., Any]:
    """Where the parts of a path begin and end; nearly always there is one part, or all numbers are finite."""

    def get_subpath_split_indices_from_points(self: Any, points: Any, n_dims: int = 3) -> Any:
        step, count = self.n_points_per_cubic_curve, len(points)
        if not _are_floats(points) or count < 2 * step:
            return own(self, points, n_dims)
        places = range(step, count, step)
        ends, starts = points[step - 1 : places[-1] : step, :n_dims], points[step::step, :n_dims]
        if (ends == starts).all():
            return numpy.array([[0, count]])
        if not (numpy.isfinite(ends).all() and numpy.isfinite(starts).all()):
            return own(self, points, n_dims)
        near = numpy.abs(ends - starts) <= self.tolerance_for_point_equality + 1e-5 * numpy.abs(starts)
        cuts = [0, *(place for place, same in zip(places, near.tolist(), strict=True) if not all(same)), count]
        return numpy.array([*pairwise(cuts)])

    return get_subpath_split_indices_from_points


def _finite(own: Callable[..., Any]) -> Callable[..., Any]:
    def transform_points_pre_display(self: Any, mobject: Any, points: Any) -> Any:
        if _are_floats(points) and numpy.isfinite(points).all():
            return points
        return own(self, mobject, points)

    return transform_points_pre_display


def _path(self: Any, ctx: Any, vmobject: Any) -> Any:
    """The outline of a mobject, with Python's numbers: cairo takes them in half the time of numpy's."""
    points = self.transform_points_pre_display(vmobject, vmobject.points)
    if len(points) == 0:
        return self
    step = vmobject.n_points_per_cubic_curve
    ctx.new_path()
    splits = vmobject.get_subpath_split_indices_from_points(points, n_dims=2)
    numbers = points[:, :2].tolist()
    for start, end in splits.tolist():
        if end - start < step:
            continue
        ctx.new_sub_path()
        ctx.move_to(*numbers[start])
        for place in range(start, end - step + 1, step):
            ctx.curve_to(*numbers[place + 1], *numbers[place + 2], *numbers[place + 3])
        if vmobject.consider_points_equals_2d(numbers[start], numbers[end - 1]):
            ctx.close_path()
    return self


def _colour(own: Callable[..., Any]) -> Callable[..., Any]:
    def set_cairo_context_color(self: Any, ctx: Any, rgbas: Any, vmobject: Any) -> Any:
        if not _are_floats(rgbas) or rgbas.shape not in ((1, 4), (2, 4)):
            return own(self, ctx, rgbas, vmobject)
        if len(rgbas) == 1:
            red, green, blue, alpha = rgbas[0].tolist()
            ctx.set_source_rgba(blue, green, red, alpha)
            return self
        ends = vmobject.get_gradient_start_and_end_points()
        ends = self.transform_points_pre_display(vmobject, numpy.asarray(ends))
        pattern = cairo.LinearGradient(*(float(each) for end in ends for each in end[:2]))
        for place, (red, green, blue, alpha) in enumerate(rgbas.tolist()):
            pattern.add_color_stop_rgba(place, blue, green, red, alpha)
        ctx.set_source(pattern)
        return self

    return set_cairo_context_color


def _fill(kind: Any) -> Callable[..., Any]:
    own = kind.apply_fill

    def apply_fill(self: Any, ctx: Any, vmobject: Any) -> Any:
        if type(self) in _CAMERAS and _is_clear(vmobject.get_fill_rgbas()):
            return self
        return own(self, ctx, vmobject)

    return apply_fill


def _stroke(kind: Any) -> Callable[..., Any]:
    own = kind.apply_stroke

    def apply_stroke(self: Any, ctx: Any, vmobject: Any, background: bool = False) -> Any:
        if type(self) in _CAMERAS and _is_clear(vmobject.get_stroke_rgbas(background)):
            return self
        return own(self, ctx, vmobject, background)

    return apply_stroke


def _is_clear(rgbas: Any) -> bool:
    return _are_floats(rgbas) and rgbas.shape == (1, 4) and rgbas[0, 3] == 0


def _project(self: Any, points: Any) -> Any:
    """The points as they are seen; the factor for both coordinates is the same."""
    distance, zoom = self.get_focal_distance(), self.get_zoom()
    points = numpy.dot(points - self.frame_center, self.get_rotation_matrix().T)
    depths = points[:, 2]
    if self.exponential_projection:
        factor = numpy.exp(depths / distance)
        behind = depths < 0
        factor[behind] = distance / (distance - depths[behind])
    else:
        factor = distance / (distance - depths)
        factor[(distance - depths) < 0] = 10**6
    factor = factor * zoom
    points[:, 0] *= factor
    points[:, 1] *= factor
    return points


def _shaded(own: Callable[..., Any], anchors: Any) -> Callable[..., Any]:
    """The light on two corners of a face, once for its inside and its edge."""
    last: list[Any] = [None, None, None, None, None]

    def modified_rgbas(self: Any, vmobject: Any, rgbas: Any) -> Any:
        points, step = vmobject.points, vmobject.n_points_per_cubic_curve
        if not (self.should_apply_shading and vmobject.shade_in_3d and len(points)):
            return rgbas
        if not (_are_floats(points) and _are_floats(rgbas) and type(vmobject).get_anchors is anchors):
            return own(self, vmobject, rgbas)
        if len(points) % step and len(points) > 1:
            return own(self, vmobject, rgbas)  # which knows how to complain
        lamp = self.light_source.points[0]
        corners = points.tobytes(), lamp.tobytes(), step
        if last[:3] != [*corners]:
            end = ((len(points) - 1) // 6) * 3
            last[:] = *corners, _light(points, step, 0, lamp), _light(points, step, end, lamp)
        shaded = rgbas.repeat(2, axis=0) if len(rgbas) < 2 else numpy.array(rgbas[:2])
        shaded[0, :3] += last[3]
        shaded[1, :3] += last[4]
        return shaded

    return modified_rgbas


def _light(points: Any, step: int, place: int, lamp: Any) -> Any:
    """What the light adds to the colour of a corner."""
    to_lamp = normalize(lamp - points[place])
    light = 0.5 * numpy.dot(_normal(points, step, place), to_lamp) ** 3
    return light * 0.5 if light < 0 else light


def _normal(points: Any, step: int, place: int) -> Any:
    count = len(points)
    if count <= step:
        return _UP
    before = place - 3 if place > 2 else count - 4
    after = place + 3 if place < count - 3 else 3
    here = points[place]
    one, two = points[after] - here, points[before] - here
    most = max(map(abs, one.tolist())), max(map(abs, two.tolist()))
    if 0.0 not in most and math.isfinite(sum(most)):
        (a, b, c), (x, y, z) = (one / most[0]).tolist(), (two / most[1]).tolist()
        across = numpy.array((b * z - c * y, c * x - a * z, a * y - b * x))
        length = numpy.sqrt(numpy.dot(across, across))
        if length > 1e-6:
            return across / length
    normal = get_unit_normal(one, two)
    return _UP if numpy.linalg.norm(normal) == 0 else normal


def _are_floats(array: Any) -> bool:
    return type(array) is numpy.ndarray and array.dtype == float
