"""Reads what a Manim program shows, by following its construct method through the syntax tree.

Nothing of the program is executed: names are followed, constants are calculated, calls are put into words, and whatever
can not be told is left out. A loop is read a few times and a function once per call, within a budget of steps.
"""

import ast
from collections.abc import Callable
from typing import Any

from stages.prepare_data_with_llm import calls
from stages.prepare_data_with_llm.things import part_of
from stages.prepare_data_with_llm.values import (
    MOST_ELEMENTS,
    BudgetSpent,
    ClassName,
    Function,
    Scene,
    Thing,
    calculate,
    constant,
    is_number,
    things_in,
)
from stages.prepare_data_with_llm.words import ANIMATIONS

BUDGET = 20_000  # syntax nodes; the longest real scenes take about 6,000
MAX_DEPTH = 12
UNROLLED_LOOP = 6
UNROLLED_LIST = 12
Statement = ast.stmt


class Reader:
    """Follows one scene."""

    def __init__(self, scene: Scene, animations: set[str]) -> None:
        self.scene = scene
        self.animations = animations  # the classes of the program that are animations
        self.methods: dict[str, ast.FunctionDef] = {}  # of the scene
        self.globals: dict[str, Any] = {}
        self.fields: dict[str, Any] = {}  # of self
        self.scope: dict[str, Any] = self.globals
        self.returned: Any = None
        self.budget = BUDGET
        self.depth = 0
        self.repeat = 1  # how often the line that is being read runs; 0: unknown
        self.everything = Thing("everything", "everything", seen=False)
        self.camera = Thing("camera", "camera", seen=False)

    # statements

    def run(self, body: list[Statement]) -> bool:
        """Read some lines; True once a return was met."""
        for statement in body:
            self.spend()
            if isinstance(statement, ast.Return):
                self.returned = self.value(statement.value)
                return True
            method = getattr(self, f"run_{type(statement).__name__}", None)
            if method and method(statement):
                return True
        return False

    def spend(self) -> None:
        self.budget -= 1
        if self.budget < 0:
            raise BudgetSpent

    def run_Expr(self, node: ast.Expr) -> None:
        self.value(node.value)

    def run_Assign(self, node: ast.Assign) -> None:
        value = self.value(node.value)
        for target in node.targets:
            self.bind(target, value)

    def run_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value:
            self.bind(node.target, self.value(node.value))

    def run_AugAssign(self, node: ast.AugAssign) -> None:
        self.bind(node.target, self.operate(self.value(node.target), node.op, self.value(node.value)))

    def run_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.scope[node.name] = Function(node, self.scope)

    def run_If(self, node: ast.If) -> bool:
        test = self.value(node.test)
        if test is False:
            return self.run(node.orelse)
        return self.run(node.body) or (test is not True and self.run(node.orelse))

    def run_For(self, node: ast.For) -> bool:
        items = self.value(node.iter)
        if isinstance(items, list) and len(items) <= UNROLLED_LOOP:
            for item in items:
                self.bind(node.target, item)
                if self.run(node.body):
                    return True
            return False
        self.bind(node.target, items[0] if isinstance(items, list) else one_of(items))
        return self.repeated(node.body, len(items) if isinstance(items, list) else 0)

    def run_While(self, node: ast.While) -> bool:
        return self.repeated(node.body, 0)

    def repeated(self, body: list[Statement], times: int) -> bool:
        before, self.repeat = self.repeat, self.repeat * times
        done = self.run(body)
        self.repeat = before
        return done

    def run_With(self, node: ast.With) -> bool:
        for item in node.items:
            value = self.value(item.context_expr)
            if item.optional_vars:
                self.bind(item.optional_vars, value)
        return self.run(node.body)

    def run_Try(self, node: ast.Try) -> bool:
        return self.run(node.body) or self.run(node.finalbody)

    def bind(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self.scope[target.id] = value
        elif isinstance(target, ast.Tuple | ast.List):
            items = value if isinstance(value, list) and len(value) == len(target.elts) else [None] * len(target.elts)
            for element, item in zip(target.elts, items, strict=True):
                self.bind(element, item)
        elif isinstance(target, ast.Attribute):
            if isinstance(target.value, ast.Name) and target.value.id == "self":
                self.fields[target.attr] = value
            else:
                calls.set_attribute(self, ast.unparse(target.value), target.attr, value)

    # expressions

    def value(self, node: ast.AST | None) -> Any:
        """What an expression stands for; None when that can not be told."""
        if node is None:
            return None
        self.spend()
        method: Callable[[Any], Any] | None = getattr(self, f"value_{type(node).__name__}", None)
        return method(node) if method else None

    def value_Constant(self, node: ast.Constant) -> Any:
        return node.value

    def value_Name(self, node: ast.Name) -> Any:
        if node.id in self.scope:
            return self.scope[node.id]
        return ClassName(node.id) if node.id in ANIMATIONS else constant(node.id)

    def value_Lambda(self, node: ast.Lambda) -> Function:
        return Function(node, self.scope)

    def value_List(self, node: ast.List | ast.Tuple | ast.Set) -> list[Any]:
        items: list[Any] = []
        for element in node.elts:
            if isinstance(element, ast.Starred):
                inner = self.value(element.value)
                items += inner if isinstance(inner, list) else calls.spread(self, inner)
            else:
                items.append(self.value(element))
        return items[:MOST_ELEMENTS]

    value_Tuple = value_Set = value_List

    def value_Dict(self, node: ast.Dict) -> list[Any]:
        return [self.value(value) for value in node.values]

    def value_JoinedStr(self, node: ast.JoinedStr) -> str:
        return "".join(calls.text_of(self.value(part)) for part in node.values)

    def value_FormattedValue(self, node: ast.FormattedValue) -> Any:
        return self.value(node.value)

    def value_UnaryOp(self, node: ast.UnaryOp) -> Any:
        value = self.value(node.operand)
        return calculate(-1, "Mult", value) if isinstance(node.op, ast.USub) else (value if is_number(value) else None)

    def value_BinOp(self, node: ast.BinOp) -> Any:
        return self.operate(self.value(node.left), node.op, self.value(node.right))

    def operate(self, left: Any, operator: ast.operator, right: Any) -> Any:
        if isinstance(left, list) and isinstance(right, list) and isinstance(operator, ast.Add) and things_in(left):
            return (left + right)[:MOST_ELEMENTS]
        return calculate(left, type(operator).__name__, right)

    def value_IfExp(self, node: ast.IfExp) -> Any:
        value = self.value(node.body)
        return self.value(node.orelse) if value is None else value

    def value_Starred(self, node: ast.Starred) -> Any:
        return self.value(node.value)

    def value_Subscript(self, node: ast.Subscript) -> Any:
        owner, index = self.value(node.value), self.value(node.slice)
        if isinstance(owner, Thing):
            return part_of(owner, index)
        if not isinstance(owner, list):
            return None
        if isinstance(node.slice, ast.Slice):
            return owner
        return owner[index] if isinstance(index, int) and -len(owner) <= index < len(owner) else one_of(owner)

    def value_ListComp(self, node: ast.ListComp | ast.GeneratorExp | ast.SetComp) -> list[Any]:
        loop = node.generators[0]
        items = self.value(loop.iter)
        if len(node.generators) == 1 and isinstance(items, list) and len(items) <= UNROLLED_LIST:
            return [self.bound(loop.target, item, node.elt) for item in items]
        sizes = [
            len(value) if isinstance(value, list) else 0
            for value in [items, *(self.value(g.iter) for g in node.generators[1:])]
        ]
        before = self.repeat
        for size in sizes:
            self.repeat *= size
        for generator in node.generators[1:]:
            self.bind(generator.target, one_of(self.value(generator.iter)))
        made = self.bound(loop.target, one_of(items), node.elt)
        self.repeat = before
        return [made]

    value_GeneratorExp = value_SetComp = value_ListComp

    def bound(self, target: ast.expr, item: Any, element: ast.expr) -> Any:
        self.bind(target, item)
        return self.value(element)

    def value_Attribute(self, node: ast.Attribute) -> Any:
        if isinstance(node.value, ast.Name) and node.value.id == "self":
            return calls.field_of_self(self, node.attr)
        return calls.attribute(self, self.value(node.value), node)

    def value_Call(self, node: ast.Call) -> Any:
        return calls.call(self, node)

    def value_NamedExpr(self, node: ast.NamedExpr) -> Any:
        value = self.value(node.value)
        self.bind(node.target, value)
        return value

    # functions of the program

    def enter(self, function: Function, arguments: list[Any], options: dict[str, Any]) -> Any:
        """Read a function of the program with these arguments, for what it does and gives back."""
        if self.depth >= MAX_DEPTH:
            return None
        node = function.node
        names = [argument.arg for argument in [*node.args.posonlyargs, *node.args.args] if argument.arg != "self"]
        outer, self.scope = self.scope, {**function.scope, **dict(zip(names, arguments, strict=False)), **options}
        self.depth += 1
        for name, default in zip(reversed(names), reversed(node.args.defaults), strict=False):
            if name not in dict(zip(names, arguments, strict=False)) and name not in options:
                self.scope[name] = self.value(default)
        if isinstance(node, ast.Lambda):
            result = self.value(node.body)
        else:
            self.returned = None
            self.run(node.body)
            result, self.returned = self.returned, None
        self.depth -= 1
        self.scope = outer
        return result


def one_of(items: Any) -> Any:
    """An element to stand for all of them."""
    if isinstance(items, list):
        return items[0] if items else None
    return part_of(items, None) if isinstance(items, Thing) else None
