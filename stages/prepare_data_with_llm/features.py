"""What a program uses, read from its syntax tree: `x^2` in a formula is no xor, and NumberLine(...) is no line."""

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

THREE_D = frozenset(
    {
        "Arrow3D",
        "Cone",
        "ConvexHull3D",
        "Cube",
        "Cylinder",
        "Dodecahedron",
        "Dot3D",
        "Icosahedron",
        "Line3D",
        "Octahedron",
        "Polyhedron",
        "Prism",
        "Sphere",
        "Surface",
        "Tetrahedron",
        "ThreeDAxes",
        "ThreeDVMobject",
        "Torus",
    }
)
# In the order in which they are reported.
ELEMENTS = {
    "circles": frozenset({"Circle", "LabeledCircle"}),
    "squares": frozenset({"Square"}),
    "rectangles": frozenset({"Rectangle"}),
    "lines": frozenset({"Line", "DashedLine", "TangentLine", "LabeledLine"}),
    "arrows": frozenset(
        {"Arrow", "DoubleArrow", "CurvedArrow", "CurvedDoubleArrow", "LabeledArrow", "Vector", "Arrow3D"}
    ),
    "text": frozenset({"Text", "MarkupText", "Paragraph", "Title", "BulletedList", "TextMobject"}),
    "equations": frozenset({"MathTex", "Tex", "SingleStringMathTex", "TexMobject"}),
    "groups": frozenset({"VGroup", "Group", "VDict", "HGroup"}),
    "3d_objects": THREE_D,
    "triangles": frozenset({"Triangle"}),
    "polygons": frozenset({"Polygon", "RegularPolygon", "Polygram", "RegularPolygram", "Star"}),
    "dots": frozenset({"Dot", "SmallDot", "LabeledDot", "AnnotationDot", "Dot3D"}),
}
TEX = ELEMENTS["equations"] | {"BulletedList", "Title", "TextMobject", "TexTemplate", "MathTable"}
TEX_METHODS = frozenset({"get_tex", "get_axis_labels", "get_graph_label", "set_color_by_tex"})
GRAPHS = frozenset(
    {
        "Axes",
        "NumberPlane",
        "ComplexPlane",
        "PolarPlane",
        "ThreeDAxes",
        "FunctionGraph",
        "ParametricFunction",
        "ImplicitFunction",
        "BarChart",
        "Graph",
        "DiGraph",
        "NumberLine",
        "GraphScene",
    }
)
GRAPH_METHODS = frozenset(
    {"plot", "get_graph", "plot_line_graph", "plot_parametric_curve", "plot_implicit_curve", "plot_polar_graph"}
)
BINARY = {ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^", ast.LShift: "<<", ast.RShift: ">>"}
BINARY_CALLS = frozenset({"bin", "bitwise_and", "bitwise_or", "bitwise_xor", "left_shift", "right_shift", "bit_count"})
TELLING = frozenset({ast.Call, ast.BinOp, ast.AugAssign, ast.ClassDef, ast.Import, ast.ImportFrom})
LEAVES = frozenset({ast.Name, ast.Constant, ast.alias})
SILENT = frozenset({"annotation", "returns", "ctx", "op", "ops", "id", "attr", "name", "type_comment"})
XOR_CALLS = frozenset({"xor", "bitwise_xor", "logical_xor"})


def code_features(code: str) -> dict[str, Any] | None:
    """The standard metadata key `code_features`; None for what is no program."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    found = Used()
    for node in meaningful(tree):
        found.note(node)
    calls, methods = found.calls, found.methods
    three_d = calls & THREE_D or found.bases & {"ThreeDScene", "SpecialThreeDScene"}
    voice = "VoiceoverScene" in found.bases or "voiceover" in methods or "manim_voiceover" in found.packages
    return {
        "has_3d": bool(three_d) or "set_camera_orientation" in methods,
        "has_latex": bool(calls & TEX or methods & TEX_METHODS),
        "has_graphs": bool(calls & GRAPHS or methods & GRAPH_METHODS or "GraphScene" in found.bases),
        "has_voiceover": voice,
        "has_binary_ops": bool(found.operators or (calls | methods) & BINARY_CALLS),
        "has_xor": "^" in found.operators or bool((calls | methods) & XOR_CALLS),
        "has_animations": "play" in methods or "add_updater" in methods,
        "visual_elements": [name for name, classes in ELEMENTS.items() if calls & classes],
    }


@dataclass
class Used:
    """The names that a program uses, by what it uses them for."""

    calls: set[str] = field(default_factory=set)  # functions and classes
    methods: set[str] = field(default_factory=set)
    operators: set[str] = field(default_factory=set)
    bases: set[str] = field(default_factory=set)
    packages: set[str] = field(default_factory=set)

    def note(self, node: ast.AST) -> None:
        if isinstance(node, ast.Call):
            name = last_name(node.func)
            is_method = isinstance(node.func, ast.Attribute) and not name[:1].isupper()
            (self.methods if is_method else self.calls).add(name)
        elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in BINARY:
            self.operators.add(BINARY[type(node.op)])
        elif isinstance(node, ast.ClassDef):
            self.bases.update(map(last_name, node.bases))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            self.packages.update(packages_of(node))


def meaningful(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that can tell something; `int | None` in an annotation is no bit operation."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        kind: Any = type(node)
        if kind in TELLING:
            yield node
        for name in inside(kind):
            value = getattr(node, name, None)
            if isinstance(value, list):
                waiting += [child for child in value if isinstance(child, ast.AST)]
            elif isinstance(value, ast.AST):
                waiting.append(value)


@cache
def inside(kind: Any) -> tuple[str, ...]:
    """The fields of a node that may hold something of meaning."""
    return () if kind in LEAVES else tuple(name for name in kind._fields if name not in SILENT)


def last_name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def packages_of(node: ast.Import | ast.ImportFrom) -> list[str]:
    """The packages that a line imports, without their parts."""
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
    return [name.split(".")[0] for name in names if name]


def imported(tree: ast.Module) -> set[str]:
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return {name for node in nodes for name in packages_of(node)}
