"""Gives a program its lines back after somebody joined them into one.

A statement ends where one operand follows another: `add(a) self.play(b)`. Which block it belongs to follows from the
program as far as it can: a method ends at the next one, a `try` at its `except`, a body at its `return`. Where a loop
or an `if` ends is a guess, from the names that are used; a caller can refuse guesses.
"""

from __future__ import annotations

import ast
import functools
import itertools
import keyword
import re
from collections.abc import Iterator

from schema import parses
from stages.prepare_data.repair_blocks import Part, indent
from stages.prepare_data.repair_tokens import Token, lex, parse

# On programs that were put into one line to try it, 9 of 10 with up to four guesses came back as they had been, and one
# of 3 with more.
MOST_GUESSES = 4
_HEADS = {"class", "def", "async", "for", "while", "if", "elif", "else", "try", "except", "finally", "with"}
# After an operand these can only begin a statement; `if`, `else`, `from` and `import` need a closer look.
_STARTS = _HEADS - {"if", "else"}
_STARTS |= {"return", "pass", "break", "continue", "del", "raise", "assert", "global", "nonlocal", "await", "yield"}
_GO_ON = {"and", "or", "in", "is", "not", "as", "lambda"}
_DEPTH = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}
_ENDS = {"pass", "break", "continue"}
_VALUES = {"True", "False", "None"}
_PROBES = {
    "elif": "if x: pass\n{} pass",
    "else": "if x: pass\n{} pass",
    "except": "try: pass\n{} pass",
    "finally": "try: pass\n{} pass",
    "try": "{} pass\nfinally: pass",
    "case": "match x:\n {} pass",
    "match": "{}\n case _: pass",
    "@": "{}\ndef f(): pass",
}
# What a sentence would not say: the end of a comment that swallowed the code behind it.
_STRONG = re.compile(
    r"(?:[A-Za-z_]\w*(?:\.\w+|\[[^\]]*\])*(?:\s*,\s*[A-Za-z_]\w*)*\s*[-+*/]?=(?!=)"
    r"|[A-Za-z_][\w.]*\w\(|(?:for|while|if|elif|with|def|class|import|from|return)\s|(?:else|try|finally)\s*:|@\w|\#)"
)

_PROSE = re.compile(r"[ ;]*([a-z]+) [a-z]+\b(?! ?=)")
# One line that is Python because a comment took all of it in, and what should not be left in a comment.
_SWALLOWED = re.compile(r"[^#\n]*#[^\n]*\bclass \w+\([^\n]*\bdef \w+\([^\n]*")
_CODE = re.compile(r"\bclass \w+\(.*:|\bdef \w+\(.*:|\bself\.\w+\(")


def one_line(text: str) -> str:
    """The program in lines, where nothing had to be guessed."""
    code, guessed = relayout(text)
    return text if guessed else code


def one_line_guess(text: str) -> str:
    """The program in lines, where a few ends of blocks or comments had to be guessed."""
    code, guesses = relayout(text)
    return code if guesses <= MOST_GUESSES else text


@functools.lru_cache(maxsize=1)
def relayout(text: str) -> tuple[str, int]:
    """The program in lines, and how much of it was guessed; the text itself where it makes no program."""
    if not (_SWALLOWED.fullmatch(text.strip()) if parses(text) else _is_flat(text)):
        return text, 0
    parts = list(_parts(text.strip()))
    if any(part.kind == "#" and _CODE.search(part.text) for part in parts):
        return text, 0
    for code, guesses in indent(parts):
        tree = parse(code)
        if tree is not None and _same_text(text, code) and not any(map(_is_prose, ast.walk(tree))):
            return code, guesses + sum(part.cut for part in parts)
    return text, 0


def _is_flat(text: str) -> bool:
    """No line is indented, and one holds the head of a block with more behind it."""
    lines = [line for line in text.strip().split("\n") if line.strip()]
    if any(line[0] in " \t" for line in lines) or len(lines) > 40:
        return False
    return any(re.search(r"\b(?:class|def|for|if|while|with|import)\b.*\S\s+\S", line) for line in lines)


def _is_prose(node: ast.AST) -> bool:
    # A name alone does nothing; two words of a sentence look like that.
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Name)


def _same_text(before: str, after: str) -> bool:
    """Nothing but blanks, line ends and semicolons may come or go; what comments hold counts as words."""
    squeezed = [re.sub(r"[\s;\\]", "", text) for text in (before, after)]
    return squeezed[0] == squeezed[1]


def _parts(text: str) -> Iterator[Part]:
    """The statements, the heads of blocks, and the comments, each with the blanks before it."""
    start, tokens = 0, list[Token]()
    while start < len(text):
        tokens = _rest(tokens, start) or list(_logical_line(text, start))
        if not tokens:
            return
        first = tokens[0]
        gap = first.start - start if "\n" not in text[start : first.start] else 0
        if first.kind == "comment":
            end = _end_of_comment(text, first)
            yield Part("#", text[first.start : end].rstrip(), gap, None, cut=end < first.end)
            start = end
            continue
        if first.text == ";":
            start = first.end
            continue
        end, kind, tree = _part_at(text, tokens)
        yield Part(kind, text[first.start : end], gap, tree)
        start = end


def _logical_line(text: str, start: int) -> Iterator[Token]:
    """The tokens up to a line end that is in no brackets."""
    depth, seen = 0, False
    for token in lex(text, start):
        if token.kind == "newline":
            if depth <= 0 and seen:
                return
            continue
        if token.kind == "comment" and depth > 0:
            continue
        depth += _DEPTH.get(token.text, 0)
        seen = True
        yield token
        if token.kind == "comment":
            return


def _rest(tokens: list[Token], start: int) -> list[Token]:
    """What is left of a logical line, if reading on from there would give the same: no token and no bracket is cut."""
    done = list(itertools.takewhile(lambda token: token.end <= start, tokens))
    rest = tokens[len(done) :]
    whole = sum(_DEPTH.get(token.text, 0) for token in done) == 0
    return rest if whole and rest and rest[0].start >= start else []


def _end_of_part(tokens: list[Token]) -> tuple[int, str]:
    """Where the part that begins with the first token ends, and its kind: a keyword, "@", or "" if it is simple."""
    first = tokens[0].text
    is_head = first in _HEADS or _is_match(tokens)
    kind = ("def" if tokens[1:2] and tokens[1].text == "def" else tokens[1].text) if first == "async" else first
    depth = lambdas = 0
    for position, token in enumerate(tokens):
        if depth == 0 and position and not is_head and _is_boundary(tokens, position):
            return tokens[position - 1].end, "@" if first == "@" else ""
        if token.kind == "comment":
            return tokens[position - 1].end, kind if is_head else ""
        depth += _DEPTH.get(token.text, 0)
        lambdas += token.text == "lambda" and depth == 0
        if is_head and depth == 0 and token.text == ":":
            if not lambdas:
                return token.end, kind
            lambdas -= 1
    return tokens[-1].end, "@" if first == "@" else ""


def _is_match(tokens: list[Token]) -> bool:
    return tokens[0].text in ("match", "case") and len(tokens) > 1 and tokens[1].kind in ("name", "string", "number")


def _is_boundary(tokens: list[Token], position: int) -> bool:
    """Does a new statement begin at this token for certain?"""
    before, token = tokens[position - 1], tokens[position]
    if token.text == ";" or token.kind == "comment" or before.text in _ENDS:
        return True
    first = tokens[0].text
    if before.text == "*" and first == "from" and tokens[position - 2].text == "import":
        return True
    if not _ends_operand(before, first):
        return before.text == "return" and token.text in _STARTS | {"if", "import"}
    if token.kind == "name":
        return _begins(tokens, position)
    if token.kind == "string":
        return before.kind != "string"
    if token.text == "@":
        return bool(tokens[position + 1 :]) and any(later.text in ("def", "class") for later in tokens[position:])
    return token.kind == "number" or token.text in ("{", "...") or (token.text == "(" and before.kind == "number")


def _ends_operand(token: Token, first: str) -> bool:
    if token.kind == "name":
        return not keyword.iskeyword(token.text) or token.text in _VALUES
    return token.kind in ("number", "string") or token.text in (")", "]", "}", "...")


def _begins(tokens: list[Token], position: int) -> bool:
    """Does the name after an operand begin a statement?"""
    word, first = tokens[position].text, tokens[0].text
    if word in _GO_ON:
        return False
    if word == "if":
        return not _is_choice(tokens, position)
    if word == "else":
        inner = [token.text for token in tokens[:position]]
        return inner.count("if") <= inner.count("else")
    if word == "import":
        return first != "from" or any(token.text == "import" for token in tokens[:position])
    if word == "from":
        following = [token.text for token in tokens[position + 1 :]]
        dotted = next((number for number, text in enumerate(following) if not re.fullmatch(r"[\w.]+", text)), 99)
        return first not in ("raise", "yield") or "import" in following[:dotted]
    return True


def _is_choice(tokens: list[Token], position: int) -> bool:
    """Is this `if` the middle of `a if b else c`?"""
    depth = lambdas = 0
    for token in tokens[position + 1 :]:
        depth += _DEPTH.get(token.text, 0)
        lambdas += token.text == "lambda" and depth == 0
        if depth == 0 and token.text == "else":
            return True
        if depth == 0 and token.text == ":":
            if not lambdas:
                return False
            lambdas -= 1
    return False


def _tree_of(piece: str, kind: str) -> ast.stmt | None:
    """The statement, or the head of a block with something in it; None if it is none, or not exactly one."""
    word = re.match(r"\w+|@", piece)
    default = "{} pass" if kind else "{}"
    tree = parse(_PROBES.get(word[0] if word else "", default).format(piece.strip()) if kind else piece)
    return tree.body[0] if tree is not None and len(tree.body) == 1 else None


def _cut_softly(text: str, tokens: list[Token], end: int) -> tuple[int, ast.stmt | None]:
    """A bracket or a string after an operand goes on with it, unless that makes no statement: `a = 1 [x, y] = f()`."""
    depth, stops = 0, list[int]()
    for position, token in enumerate(tokens):
        if token.end > end:
            break
        if depth == 0 and position and (token.text in ("(", "[", "*", "-", "+") or token.kind in ("string", "name")):
            stops.append(tokens[position - 1].end)
        depth += _DEPTH.get(token.text, 0)
    for stop in reversed(stops):
        tree = _tree_of(text[tokens[0].start : stop], "")
        if tree is not None and not _is_prose(tree):
            return stop, tree
    return end, None


def _end_of_comment(text: str, comment: Token) -> int:
    """The first place behind a blank where a statement begins that a sentence would not hold."""
    for blank in re.finditer(r"[ \t]+", comment.text):
        start = comment.start + blank.end()
        if blank.start() < 2 or not _STRONG.match(text, start):
            continue
        if text[start] == "#":
            return start
        end, _, tree = _part_at(text, list(_logical_line(text, start)))
        following = _PROSE.match(text[end:])
        if tree is not None and not (following and not keyword.iskeyword(following[1])):
            return start
    return comment.end


def _part_at(text: str, tokens: list[Token]) -> tuple[int, str, ast.stmt | None]:
    """Where the part ends that begins with the tokens, its kind, and its tree if it is a statement."""
    end, kind = _end_of_part(tokens)
    tree = _tree_of(text[tokens[0].start : end], kind)
    if tree is None and not kind:
        end, tree = _cut_softly(text, tokens, end)
    return end, kind, tree
