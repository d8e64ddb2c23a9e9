"""What a program uses, read from its syntax tree: `x^2` in a formula is no xor, and NumberLine(...) is no line."""

import ast
import warnings
from collections.abc import Iterator
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
    "rectangles": frozenset({"Rectangle", "RoundedRectangle"}),
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
XOR_CALLS = frozenset({"xor", "bitwise_xor", "logical_xor"})


def code_features(code: str) -> dict[str, Any] | None:
    """The standard metadata key `code_features`; None for what is no program."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    calls, methods, operators = used(tree)
    bases = {
        name for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for name in map(last_name, node.bases) if name
    }
    modules = set(imported(tree))
    return {
        "has_3d": bool(
            calls & THREE_D or bases & {"ThreeDScene", "SpecialThreeDScene"} or "set_camera_orientation" in methods
        ),
        "has_latex": bool(calls & TEX or methods & TEX_METHODS),
        "has_graphs": bool(calls & GRAPHS or methods & GRAPH_METHODS or "GraphScene" in bases),
        "has_voiceover": "VoiceoverScene" in bases or "voiceover" in methods or "manim_voiceover" in modules,
        "has_binary_ops": bool(operators or (calls | methods) & BINARY_CALLS),
        "has_xor": "^" in operators or bool((calls | methods) & XOR_CALLS),
        "has_animations": "play" in methods or "add_updater" in methods,
        "visual_elements": [name for name, classes in ELEMENTS.items() if calls & classes],
    }


def used(tree: ast.Module) -> tuple[set[str], set[str], set[str]]:
    """The names that are called plainly or as classes of a module, those called as methods, and the bit operators."""
    calls: set[str] = set()
    methods: set[str] = set()
    operators: set[str] = set()
    for node in expressions(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            calls.add(node.func.id)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            (calls if node.func.attr[:1].isupper() else methods).add(node.func.attr)
        elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in BINARY:
            operators.add(BINARY[type(node.op)])
    return calls, methods, operators


def expressions(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those of annotations: `int | None` is no bit operation."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns"):
                continue
            children = value if isinstance(value, list) else [value]
            waiting += [child for child in children if isinstance(child, ast.AST)]


def last_name(node: ast.expr) -> str | None:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None


def imported(tree: ast.Module) -> Iterator[str]:
    """The packages that are imported, without their parts."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]
