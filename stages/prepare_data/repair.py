"""Repairs the programs of stage 1 in named steps, each of which can be switched off and none of which can break one.

The driver parses after every step. A step that turns a program into none, or that changes more of its tree than it
says it does, is undone. Of a program that is none to the end nothing is kept but the original.
"""

from __future__ import annotations

import ast
import copy
import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import click

import schema
from schema import Record
from stages.prepare_data import repair_text, repair_tree
from stages.prepare_data.repair_manimgl import manimgl
from stages.prepare_data.repair_one_line import one_line, one_line_guess
from stages.prepare_data.repair_tex import tex
from stages.prepare_data.repair_tokens import meaning, parse


class Step(NamedTuple):
    """One repair: `keeps` says what it must leave alone of a program that parses."""

    name: str
    apply: Callable[[str], str]
    keeps: str = ""  # "tree": all of its meaning; "shape": all but what stands in strings
    default: bool = True


def all_steps(silence: Callable[[str], str]) -> list[Step]:
    """The steps in their order; `silence` takes the voice out of a program, as the extractors do."""
    return [*_BEFORE, Step("voiceover", functools.partial(repair_tree.voiceover, silence=silence)), *_AFTER]


_BEFORE = [
    Step("line_ends", repair_text.line_ends, "tree"),
    Step("fences", repair_text.fences, "tree"),
    Step("artefacts", repair_text.artefacts, "tree"),
    Step("literal_newlines", repair_text.literal_newlines, "tree"),
    Step("magics", repair_text.magics, "tree"),
    Step("one_line", one_line),
    # Wrong for 9 of 106 programs that needed it: a wrong block teaches more than a missing row.
    Step("one_line_guess", one_line_guess, default=False),
    Step("tex", tex, "shape"),
]
_AFTER = [
    Step("manimgl", manimgl),
    Step("scene", repair_tree.scene),
    Step("imports", repair_tree.imports),
    Step("animation_group", repair_tree.animation_group, default=False),
    Step("static_wait", repair_tree.static_wait, default=False),
]


def options(steps: list[Step]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--fix` and `--no-fix` for a command."""
    names = click.Choice(["all", *(step.name for step in steps)])
    off = ", ".join(step.name for step in steps if not step.default)

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        no_fix = click.option("--no-fix", multiple=True, type=names, metavar="NAME", help="Leave a repair out, or all.")
        return click.option(
            "--fix", multiple=True, type=names, metavar="NAME", help=f"Do a repair that is left out otherwise: {off}."
        )(no_fix(command))

    return decorate


def choose(steps: list[Step], fix: tuple[str, ...], no_fix: tuple[str, ...]) -> list[Step]:
    """The steps to do; a name goes before `all`, and `all` before the defaults."""
    for name in sorted(set(fix) & set(no_fix)):
        raise click.UsageError(f"--fix {name} and --no-fix {name} contradict each other; leave one out")

    def is_chosen(step: Step) -> bool:
        if step.name in fix or step.name in no_fix:
            return step.name in fix
        return "all" in fix or ("all" not in no_fix and step.default)

    return [step for step in steps if is_chosen(step)]


def repair(record: Record, steps: Iterable[Step]) -> Record:
    """The record with its program repaired; the original and the names of the steps are kept in the metadata."""
    metadata = record["metadata"]
    if metadata.get("kind") != "code":
        return record
    code, names = mend(record["code"], steps)
    if not names:
        return record
    fixes = [
        *metadata.get("fixes_applied", []),
        *(name for name in names if name not in metadata.get("fixes_applied", [])),
    ]
    original = metadata.get("original_code", record["code"])
    told: dict[str, Any] = {"original_code": original, "auto_fixed": True, "fixes_applied": fixes}
    return {**record, "code": code, "metadata": {**metadata, **told}}


def mend(code: str, steps: Iterable[Step]) -> tuple[str, list[str]]:
    """The repaired program and the names of the steps that changed it; the code itself if it is no program even so."""
    names, new = list[str](), code
    for step in steps:
        try:
            after = step.apply(new)
            if after == new or _harms(new, after, step.keeps):
                continue
        except RecursionError:  # some hundred terms in a row make a tree that is too deep to be looked through
            continue
        new = after
        names.append(step.name)
    return (new, names) if schema.parses(new) and new.strip() else (code, [])


def _harms(before: str, after: str, keeps: str) -> bool:
    if schema.as_read(before) == schema.as_read(after) or not schema.parses(before):
        return False
    if not schema.parses(after):
        return True
    if not keeps:
        return False
    said = meaning if keeps == "tree" else _shape
    return said(before) != said(after)


def _shape(text: str) -> str:
    """The same as `meaning`, with all texts equal."""
    tree = parse(text)
    assert tree
    return ast.dump(_Blank().visit(copy.deepcopy(tree)))  # parsed trees are shared


class _Blank(ast.NodeTransformer):
    """Makes all texts equal."""

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        return ast.Constant("") if isinstance(node.value, str) else node
