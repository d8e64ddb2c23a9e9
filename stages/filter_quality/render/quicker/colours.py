"""The colours of mobjects: nearly always one for the inside and one for the edge, which Manim sets six times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
from manim import BLACK, ManimColor, VMobject


def make_quicker() -> None:
    """Put all of this in the place of what it does the work of."""
    is_plain = _plain_colours(VMobject)
    VMobject.generate_rgbas_array = _colours(VMobject.generate_rgbas_array)
    VMobject.init_colors = _first_colours(VMobject, is_plain)
    VMobject.set_color = _coloured(VMobject, is_plain)
    VMobject.color = property(VMobject.get_color, VMobject.set_color)
    is_plain(VMobject())


def _plain_colours(kind: Any) -> Callable[[Any], bool]:
    """Whether all that has to do with the colours of a mobject is Manim's own, and it has no others in it."""
    asked: tuple[str, ...] = (
        "set_color",
        "set_fill",
        "set_stroke",
        "set_background_stroke",
        "set_sheen",
        "set_sheen_direction",
    )
    asked += ("update_rgbas_array", "generate_rgbas_array", "get_sheen_factor", "color", "fill_color", "stroke_color")
    asked += ("get_fill_colors", "get_stroke_colors", "get_fill_rgbas", "get_stroke_rgbas", "__setattr__")
    first, plain = dict[str, Any](), dict[type, bool]()

    def is_plain(self: Any) -> bool:
        mine = type(self)
        if not first:  # by now all is in its place; this mobject is the server's own
            first.update((name, getattr(kind, name)) for name in asked)
        if mine not in plain:
            plain[mine] = all(getattr(mine, name) is each for name, each in first.items())
        return plain[mine] and not self.submobjects

    return is_plain


def _first_colours(kind: Any, is_plain: Callable[[Any], bool]) -> Callable[..., Any]:
    """The colours of a new mobject: what it has by now, and its opacities."""
    own = kind.init_colors

    def init_colors(self: Any, propagate_colors: bool = True) -> Any:
        mine = self.__dict__
        inside, edge = mine.get("fill_rgbas"), mine.get("stroke_rgbas")
        back, sheen = mine.get("background_stroke_color"), mine.get("sheen_factor", 0)
        numbers = [mine.get(f"{name}_opacity") for name in ("fill", "stroke", "background_stroke")]
        is_new = type(back) is ManimColor and "background_stroke_rgbas" not in mine and sheen == 0
        if not (is_new and is_plain(self) and _is_one_colour(inside) and _is_one_colour(edge)):
            return own(self, propagate_colors)
        if any(type(each) not in (int, float) for each in numbers):
            return own(self, propagate_colors)
        inside[0, 3], edge[0, 3] = numbers[:2]
        behind = mine["background_stroke_rgbas"] = numpy.empty((1, 4))
        behind[0] = back._internal_value
        behind[0, 3] = numbers[2]
        mine["background_stroke_color"] = ManimColor(back)
        mine["sheen_factor"] = sheen
        if self.sheen_direction is not None:
            mine["sheen_direction"] = numpy.array(self.sheen_direction)
        return self

    return init_colors


def _coloured(kind: Any, is_plain: Callable[[Any], bool]) -> Callable[..., Any]:
    """One colour for the inside and the edge of a mobject."""
    own = kind.set_color

    def set_color(self: Any, color: Any, family: bool = True) -> Any:
        mine = self.__dict__
        if type(color) is not ManimColor or not is_plain(self) or mine.get("sheen_factor", 0) != 0:
            return own(self, color, family)
        value = color._internal_value
        for name in ("fill_rgbas", "stroke_rgbas"):
            rgbas = mine.get(name)
            if rgbas is None:
                rgbas = mine[name] = numpy.zeros((1, 4))
            elif not _are_floats(rgbas):
                return own(self, color, family)
            rgbas[:, :3] = value[:3]
        return self

    return set_color


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


def _is_one_colour(rgbas: Any) -> bool:
    return _are_floats(rgbas) and rgbas.shape == (1, 4)


def _are_floats(array: Any) -> bool:
    return type(array) is numpy.ndarray and array.dtype == float
