"""Finds the scenes of a program and reads each of them."""

import ast

from stages.prepare_data_with_llm.features import imported
from stages.prepare_data_with_llm.reader import Reader
from stages.prepare_data_with_llm.values import BudgetSpent, Function, Scene, Thing
from stages.prepare_data_with_llm.words import ANIMATIONS

Classes = dict[str, ast.ClassDef]


def read_scenes(tree: ast.Module) -> list[Scene]:
    """The scenes of a program in its order; code outside any class, where there is no scene."""
    classes = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    animations = {
        name for name in classes if any(base in ANIMATIONS or base == "Animation" for base in ancestors(name, classes))
    }
    scenes = [
        read_scene(name, tree, classes, animations) for name in classes if "construct" in methods_of(name, classes)
    ]
    if scenes:
        return scenes
    packages = imported(tree)
    if packages and not any("manim" in package for package in packages):
        return []
    loose = Scene("")
    follow(Reader(loose, animations), tree.body)
    return [loose] if loose.shown or loose.made else []


def read_scene(name: str, tree: ast.Module, classes: Classes, animations: set[str]) -> Scene:
    scene = Scene(name)
    if "LinearTransformationScene" in ancestors(name, classes):
        scene.shown.append(Thing("coordinate grid", "grid"))
    reader = Reader(scene, animations)
    reader.methods = methods_of(name, classes)
    follow(reader, [node for node in tree.body if not isinstance(node, ast.ClassDef | ast.If)])
    scene.steps.clear()
    for owner in reversed([name, *ancestors(name, classes)]):
        follow(reader, classes[owner].body if owner in classes else [])
    reader.fields |= {key: value for key, value in reader.scope.items() if not isinstance(value, Function)}
    reader.globals = dict(reader.scope)
    follow(reader, reader.methods["construct"].body)
    return scene


def follow(reader: Reader, body: list[ast.stmt]) -> None:
    try:
        reader.run(body)
    except (BudgetSpent, RecursionError):
        reader.repeat, reader.depth = 1, 0


def ancestors(name: str, classes: Classes, depth: int = 0) -> list[str]:
    """The names of all base classes, nearest first; those outside the program by name only."""
    if name not in classes or depth > 20:
        return []
    bases = [
        base.id if isinstance(base, ast.Name) else base.attr
        for base in classes[name].bases
        if isinstance(base, ast.Name | ast.Attribute)
    ]
    return bases + [further for base in bases for further in ancestors(base, classes, depth + 1)]


def methods_of(name: str, classes: Classes) -> dict[str, ast.FunctionDef]:
    """The methods of a class with those that it inherits inside the program."""
    found: dict[str, ast.FunctionDef] = {}
    for owner in [name, *ancestors(name, classes)]:
        body = classes[owner].body if owner in classes else []
        for node in body:
            if isinstance(node, ast.FunctionDef):
                found.setdefault(node.name, node)
    return found
