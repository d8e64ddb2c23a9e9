"""What the parts of the offline describer know of the reader that calls them."""

import ast
from typing import Any, Protocol

from stages.prepare_data_with_llm.values import Function, Scene, Thing


class Reading(Protocol):
    """A scene that is being followed."""

    scene: Scene
    animations: set[str]  # the classes of the program that are animations
    methods: dict[str, ast.FunctionDef]  # of the scene
    globals: dict[str, Any]
    fields: dict[str, Any]  # of self
    scope: dict[str, Any]
    repeat: int  # how often the line that is being read runs; 0: unknown
    everything: Thing
    camera: Thing

    def value(self, node: ast.AST | None) -> Any:
        """What an expression stands for; None when that can not be told."""

    def enter(self, function: Function, arguments: list[Any], options: dict[str, Any]) -> Any:
        """Read a function of the program with these arguments, for what it does and gives back."""
