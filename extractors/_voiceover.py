"""Turns a scene with a spoken text into a silent one: what happens stays, and lasts as long as the words did."""

from __future__ import annotations

import ast
import io
import re
import tokenize

from extractors._modules import parse
from extractors._rewrites import Edit, apply, places

WORDS_PER_SECOND = 150 / 60


def rewrite_voiceover(text: str) -> str:
    """The silent program; the text as it is where that would not be a program any more."""
    if "oiceover" not in text:
        return text
    new = text
    try:
        while (node := _innermost(parse(new))) is not None:
            new = _without(new, node)
        new = _silent(new)
        parse(new)
    except (SyntaxError, ValueError, tokenize.TokenError):
        return text
    return new


def speaks(tree: ast.AST) -> bool:
    """Does a program still need the package that speaks?"""
    for node in ast.walk(tree):
        match node:
            case (
                ast.Name(id="VoiceoverScene")
                | ast.Attribute(attr="VoiceoverScene" | "voiceover" | "set_speech_service")
            ):
                return True
            case ast.ImportFrom(module=str() as module) if module.startswith("manim_voiceover"):
                return True
    return False


def _innermost(tree: ast.Module) -> ast.With | None:
    found = [node for node in ast.walk(tree) if isinstance(node, ast.With) and _call(node) is not None]
    return max(found, key=lambda node: node.lineno, default=None)


def _call(node: ast.With) -> ast.Call | None:
    match node.items:
        case [ast.withitem(context_expr=ast.Call(func=ast.Attribute(attr="voiceover")) as call)]:
            return call
    return None


def _without(text: str, node: ast.With) -> str:
    """The body of the `with` in the place of the `with`."""
    call = _call(node)
    assert call is not None
    text, node = _timed(text, node, call)
    lines = text.split("\n")
    first, last = node.lineno - 1, node.end_lineno or node.lineno
    header = _header_end(lines, first)
    indent = lines[first][: len(lines[first]) - len(lines[first].lstrip())]
    body = node.body[0]
    if body.lineno - 1 <= header:
        start = len(lines[header].encode()[: body.col_offset].decode())
        return "\n".join([*lines[:first], indent + lines[header][start:], *lines[header + 1 :]])
    inside = _inside_strings(text)
    moved = []
    for number in range(header + 1, last):
        line = lines[number]
        lead = line[: len(line) - len(line.lstrip())]
        fits = number not in inside and len(lead) >= body.col_offset
        moved.append(indent + line[body.col_offset :] if fits else line)
    return "\n".join([*lines[:first], *moved, *lines[last:]])


def _header_end(lines: list[str], first: int) -> int:
    """The line that ends the header: the first logical line end after its start."""
    rest = iter(line + "\n" for line in lines[first:])
    for token in tokenize.generate_tokens(lambda: next(rest, "")):
        if token.type == tokenize.NEWLINE or (
            token.type == tokenize.OP and token.string == ":" and _closes(token.line)
        ):
            return first + token.end[0] - 1
    return first


def _closes(line: str) -> bool:
    return re.search(r":\s*(#.*)?$", line) is not None and "lambda" not in line


def _inside_strings(text: str) -> set[int]:
    """The lines that begin inside a string: their blanks are part of it."""
    inside: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.STRING:
            inside.update(range(token.start[0], token.end[0]))
    return inside


def _timed(text: str, node: ast.With, call: ast.Call) -> tuple[str, ast.With]:
    """The times that the speech gave, as numbers; a bookmark is waited for as long as the words before it last."""
    spoken = _spoken(call)
    tracker = node.items[0].optional_vars
    name = tracker.id if isinstance(tracker, ast.Name) else ""
    waits = _bookmarks(spoken)
    span = places(text)
    edits: list[Edit] = []
    for part in ast.walk(node):
        match part:
            case ast.Attribute(value=ast.Name(id=owner), attr="duration") if owner == name:
                edits.append((*span(part), _seconds(spoken)))
            case ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr="get_remaining_duration")) if owner == name:
                edits.append((*span(part), "1"))
            case ast.Call(
                func=ast.Attribute(attr="wait_until_bookmark", value=scene),
                args=[ast.Constant(value=str() as mark), *_],
            ):
                edits.append((*span(part), f"{ast.unparse(scene)}.wait({waits.get(mark, '1')})"))
    if not edits:
        return text, node
    new = apply(text, edits)
    again = [found for found in ast.walk(parse(new)) if isinstance(found, ast.With) and found.lineno == node.lineno]
    return new, again[0]


def _spoken(call: ast.Call) -> str:
    given = [*call.args[:1], *(word.value for word in call.keywords if word.arg == "text")]
    parts = [part.value for node in given for part in ast.walk(node) if isinstance(part, ast.Constant)]
    return " ".join(str(part) for part in parts)


def _seconds(text: str) -> str:
    words = len(re.sub(r"<[^>]*>", " ", text).split())
    return f"{max(words / WORDS_PER_SECOND, 1):.1f}".removesuffix(".0")


def _bookmarks(spoken: str) -> dict[str, str]:
    parts = re.split(r"<bookmark\s+mark\s*=\s*['\"]([^'\"]*)['\"]\s*/?>", spoken)
    return {mark: _seconds(before) for before, mark in zip(parts[::2], parts[1::2], strict=False)}


def _silent(text: str) -> str:
    """No speech service, and plain scenes as bases."""
    span = places(text)
    edits: list[Edit] = []
    for node in ast.walk(parse(text)):
        match node:
            case ast.Expr(value=ast.Call(func=ast.Attribute(attr="set_speech_service"))):
                edits.append((*span(node), "pass"))
            case ast.ImportFrom(module=str() as module) if module.startswith("manim_voiceover"):
                edits.append((*span(node), "pass"))
            case ast.ClassDef(bases=bases) if any("VoiceoverScene" in ast.unparse(base) for base in bases):
                edits += _plain_bases(node, span)
    return apply(text, edits)


def _plain_bases(node: ast.ClassDef, span: object) -> list[Edit]:
    assert callable(span)
    names = [ast.unparse(base) for base in node.bases]
    kept = [name for name in names if "VoiceoverScene" not in name]
    kept = kept if any(name.endswith("Scene") for name in kept) else [*kept, "Scene"]
    start, end = span(node.bases[0])[0], span(node.bases[-1])[1]
    return [(start, end, ", ".join(kept))]
