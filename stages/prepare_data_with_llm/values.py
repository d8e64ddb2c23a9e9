"""What reader.py finds in a program: things, motions, steps; and Manim's constants, to calculate with them."""

import ast
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

Vector = tuple[float, float, float]


# A program can double a list, a text or a group with every line; nothing here may grow without bound.
MOST_ELEMENTS = 2000
MOST_COPIES = 64
MOST_LETTERS = 2000


class Color(str):
    """A color in words; a type of its own so that a text argument is never taken for one."""


class ClassName(str):
    """The name of an animation class that is handed over uncalled, as in LaggedStartMap(FadeIn, dots)."""


@dataclass(eq=False)
class Act:
    """What happens to {x}, "rotate {x}" or "move {x} to {y}", and that {y}."""

    phrase: str
    target: "Thing | None" = None


@dataclass(eq=False)
class Thing:
    """Something that a viewer sees, or that steers what is seen."""

    noun: str
    short: str = ""
    label: str = ""  # the text or formula it shows
    formula: bool = False
    detail: str = ""  # "with 5 vertices"
    color: str = ""
    filled: bool = False
    place: str = ""
    relation: tuple[str, "Thing"] | None = None  # ("around", formula)
    members: list["Thing"] = field(default_factory=list)
    owner: "Thing | None" = None  # set on a part, which is not listed by itself
    count: int = 1  # 0: several, nobody knows how many
    seen: bool = True
    target: "Thing | None" = None  # what generate_target made
    acts: list["Act"] = field(default_factory=list)  # what was done to such a target

    def copy(self) -> "Thing":
        members = [member.copy() for member in self.members] if len(self.leaves()) <= MOST_COPIES else self.members
        return replace(self, members=members, place="", target=None, acts=[])

    def leaves(self) -> list["Thing"]:
        """The things of a group and of the groups in it, each once; or the thing itself."""
        found: dict[Thing, None] = {}
        known: set[Thing] = set()
        waiting = [self]
        while waiting and len(found) < MOST_ELEMENTS:
            thing = waiting.pop()
            if thing in known:
                continue
            known.add(thing)
            if thing.members:
                waiting += reversed(thing.members)
            else:
                found[thing] = None
        return list(found)


@dataclass(eq=False)
class Motion:
    """One animation: what happens to which things."""

    acts: list[Act]
    subjects: list[Thing]
    seconds: float | None = None
    inner: list["Motion"] = field(default_factory=list)
    manner: str = ""  # "one after another", of the inner ones

    def is_pause(self) -> bool:
        return [act.phrase for act in self.acts] == ["pause"]


@dataclass(eq=False)
class Step:
    """What one line of construct makes happen on the screen."""

    motions: list[Motion]
    seconds: float | None = None
    repeated: bool = False


@dataclass(eq=False)
class Scene:
    name: str
    steps: list[Step] = field(default_factory=list)
    shown: list[Thing] = field(default_factory=list)
    made: list[Thing] = field(default_factory=list)
    rules: list[Step] = field(default_factory=list)  # what holds all the time: updaters
    notes: list[str] = field(default_factory=list)  # whole sentences: the view, a voice-over
    background: str = ""
    plays: int = 0


@dataclass(eq=False)
class Function:
    """A def or lambda of the program, with the names it can see."""

    node: ast.FunctionDef | ast.Lambda
    scope: dict[str, Any]


@dataclass(eq=False)
class Bound:
    """`thing.method`, not called yet; animated when it came after `.animate`."""

    owner: Thing
    name: str
    motion: Motion | None = None


class BudgetSpent(Exception):
    """The program is too long to follow to its end; what has been seen so far is described."""


DIRECTIONS: dict[str, Vector] = {
    "UP": (0, 1, 0),
    "DOWN": (0, -1, 0),
    "LEFT": (-1, 0, 0),
    "RIGHT": (1, 0, 0),
    "IN": (0, 0, -1),
    "OUT": (0, 0, 1),
    "UL": (-1, 1, 0),
    "UR": (1, 1, 0),
    "DL": (-1, -1, 0),
    "DR": (1, -1, 0),
    "ORIGIN": (0, 0, 0),
    "X_AXIS": (1, 0, 0),
    "Y_AXIS": (0, 1, 0),
    "Z_AXIS": (0, 0, 1),
}
NUMBER_NAMES = {
    "PI": math.pi,
    "TAU": math.tau,
    "DEGREES": math.pi / 180,
    "DEG": math.pi / 180,
    "SMALL_BUFF": 0.1,
    "MED_SMALL_BUFF": 0.25,
    "MED_LARGE_BUFF": 0.5,
    "LARGE_BUFF": 1.0,
}
COLOR_NAME = re.compile(
    r"(?:(LIGHT|DARK|DARKER|LIGHTER|PURE)_)?"
    r"(BLUE|TEAL|GREEN|YELLOW|GOLD|RED|MAROON|PURPLE|WHITE|BLACK|GRAY|GREY|PINK|ORANGE|BROWN)(?:_([A-E]))?$"
)
SHADES = {"A": "light ", "B": "light ", "D": "dark ", "E": "dark ", None: "", "C": ""}
# Points of the color cube, for colors that a program gives as "#rrggbb".
PALETTE = {
    "black": (0, 0, 0),
    "dark gray": (68, 68, 68),
    "gray": (136, 136, 136),
    "light gray": (200, 200, 200),
    "white": (255, 255, 255),
    "red": (230, 50, 50),
    "light red": (240, 130, 120),
    "dark red": (140, 20, 20),
    "orange": (255, 150, 40),
    "brown": (139, 90, 43),
    "beige": (236, 230, 215),
    "yellow": (250, 240, 60),
    "green": (60, 180, 70),
    "light green": (150, 220, 150),
    "dark green": (20, 90, 30),
    "teal": (70, 190, 170),
    "blue": (60, 130, 230),
    "light blue": (150, 200, 240),
    "dark blue": (30, 50, 130),
    "purple": (150, 80, 190),
    "pink": (240, 130, 190),
}


def constant(name: str) -> Any:
    """The value of one of Manim's constants, or None."""
    if name in DIRECTIONS:
        return DIRECTIONS[name]
    return NUMBER_NAMES[name] if name in NUMBER_NAMES else color_constant(name)


def color_constant(name: str) -> Color | None:
    found = COLOR_NAME.match(name)
    if not found:
        return None
    shade = {"LIGHT": "light ", "LIGHTER": "light ", "DARK": "dark ", "DARKER": "dark "}.get(found[1], "")
    return Color((shade or SHADES[found[3]]) + found[2].lower().replace("grey", "gray"))


def color_words(value: Any) -> str:
    """A color argument in words, or nothing when it can not be told."""
    if isinstance(value, Color):
        return value
    if isinstance(value, list) and value and all(color_words(item) for item in value):
        return " and ".join(dict.fromkeys(color_words(item) for item in value[:2]))
    if not isinstance(value, str):
        return ""
    if re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        red, green, blue = (int(value[start : start + 2], 16) for start in (1, 3, 5))
        return min(
            PALETTE, key=lambda name: sum((a - b) ** 2 for a, b in zip(PALETTE[name], (red, green, blue), strict=True))
        )
    return color_constant(value.upper()) or ""


def vector(value: Any) -> Vector | None:
    """A point or direction, where the program gives its numbers."""
    if isinstance(value, tuple) and len(value) == 3:
        return value
    if isinstance(value, list) and len(value) in (2, 3) and all(isinstance(item, int | float) for item in value):
        return (float(value[0]), float(value[1]), float(value[2]) if len(value) == 3 else 0.0)
    return None


def calculate(left: Any, operator: str, right: Any) -> Any:
    """Arithmetic on numbers and vectors, nothing else: no program text is ever executed."""
    if isinstance(left, bool) or isinstance(right, bool):
        return None
    if is_number(left) and is_number(right):
        return arithmetic(left, operator, right)
    if is_number(left) and operator == "Mult" and vector(right):
        left, right = right, left
    base = vector(left)
    if base and is_number(right) and operator in ("Mult", "Div"):
        parts = [arithmetic(part, operator, right) for part in base]
        return None if None in parts else tuple(parts)
    other = vector(right)
    if base and other and operator in ("Add", "Sub"):
        sign = 1 if operator == "Add" else -1
        return tuple(a + sign * b for a, b in zip(base, other, strict=True))
    text = operator == "Add" and type(left) is type(right) is str and len(left) + len(right) <= MOST_LETTERS
    return left + right if text else None


ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mult": lambda a, b: a * b,
    "Div": lambda a, b: a / b,
    "FloorDiv": lambda a, b: a // b,
    "Mod": lambda a, b: a % b,
    "Pow": lambda a, b: a**b,
}


def arithmetic(left: float, operator: str, right: float) -> Any:
    """One operation, or None where its result is useless or would be enormous (9**9**9)."""
    if operator not in ARITHMETIC or max(abs(left), abs(right)) > 1e6 or (operator == "Pow" and abs(right) > 16):
        return None
    try:
        result = ARITHMETIC[operator](left, right)
    except (ZeroDivisionError, OverflowError):
        return None
    return result if isinstance(result, int | float) and math.isfinite(result) else None


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


def flatten(value: Any) -> list[Any]:
    """The elements of nested lists, in order; bounded, for a program can nest a list in itself."""
    found: list[Any] = []
    waiting = [value]
    for _ in range(MOST_ELEMENTS):
        if not waiting:
            break
        item = waiting.pop()
        if isinstance(item, list):
            waiting += reversed(item[:MOST_ELEMENTS])
        else:
            found.append(item)
    return found


def things_in(value: Any) -> list[Thing]:
    return [item for item in flatten(value) if isinstance(item, Thing)]
