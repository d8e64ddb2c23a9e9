"""The way of all rows through the stages: what flows where, and the picture of it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import NamedTuple

from stages.report import drawing
from stages.report.ledgers import File, Step, data_steps, final_files, makers_of, parents, shown

MOST_SOURCES = 12
COLUMN, BAR, GAP, SLOT, HEIGHT, TOP = 178, 12, 12, 36, 330, 8


@dataclass
class Node:
    """A bar of the picture."""

    name: str
    note: str
    rows: int
    column: int
    kind: str  # source, stage, file, model, rejected or merged
    y: float = 0.0
    height: float = 0.0

    @property
    def is_exit(self) -> bool:
        return self.kind in ("rejected", "merged")


class Link(NamedTuple):
    """Rows on their way from one bar to another; a stage that makes rows of rows gives more than it took."""

    source: str
    target: str
    rows: int
    kind: str


class Flow(NamedTuple):
    """All bars by their key, and what runs between them."""

    nodes: dict[str, Node]
    links: list[Link]


def build(steps: Sequence[Step]) -> Flow:
    data = data_steps(steps)
    flow = Flow({}, [])
    makers = makers_of(data)
    for step in data:
        before = [flow.nodes[str(one.place)].column for one in parents(step, makers)]
        counts = step.ledger.counts
        column = max(before, default=0) + 1
        flow.nodes[str(step.place)] = Node(step.ledger.stage, _names(step), counts.get("in", 0), column, "stage")
        if not before:
            _add_sources(flow, step)
        _add_exits(flow, step, column + 1)
    for step in data:
        for path, file in step.outputs.items():
            _add_output(flow, step, path, file, [one for one in data if path in one.inputs])
    _add_model(flow, steps, set(final_files(data)))
    return flow


def _names(step: Step) -> str:
    return ", ".join(path.name for path in step.outputs)


def _add_sources(flow: Flow, step: Step) -> None:
    found = sorted(_sources(step).items(), key=lambda item: (-item[1], item[0]))
    rest = found[MOST_SOURCES - 1 :] if len(found) > MOST_SOURCES else []
    for name, rows in found[: len(found) - len(rest)]:
        _join(flow, f"source {name}", Node(name, "", rows, 0, "source"), str(step.place))
    if rest:
        node = Node(f"{len(rest)} more sources", "", sum(rows for _, rows in rest), 0, "source")
        _join(flow, "sources", node, str(step.place))


def _sources(step: Step) -> dict[str, int]:
    """Rows by source, from the statistics of the first stage; or else the file that it read."""
    for path in step.written:
        if path.name == "dataset_stats.json" and path.is_file():
            with suppress(ValueError, KeyError, TypeError, AttributeError):  # edited by hand
                counted = json.loads(path.read_bytes())["sources"]
                return {name: int(facts["rows"]) for name, facts in counted.items() if facts["rows"]}
    names = ", ".join(path.name for path in step.inputs) or "standard input"
    return {names: step.ledger.counts.get("in", 0)}


def _join(flow: Flow, key: str, node: Node, target: str) -> None:
    flow.nodes[key] = node
    flow.links.append(Link(key, target, node.rows, node.kind))


def _add_exits(flow: Flow, step: Step, column: int) -> None:
    reasons = sorted(step.ledger.reasons.items(), key=lambda item: (-item[1], item[0]))
    told = ", ".join(f"{name} {count:,}" for name, count in reasons)
    for kind, note in (("rejected", told), ("merged", "duplicates")):
        if rows := step.ledger.counts.get(kind, 0):
            key = f"{step.place} {kind}"
            flow.nodes[key] = Node(kind, note, rows, column, kind)
            flow.links.append(Link(str(step.place), key, rows, kind))


def _add_output(flow: Flow, step: Step, path: Path, file: File, readers: list[Step]) -> None:
    rows = file.rows or 0
    for reader in readers:
        flow.links.append(Link(str(step.place), str(reader.place), rows, "stage"))
    if not readers and rows:
        flow.nodes[str(path)] = Node(shown(path), "", rows, flow.nodes[str(step.place)].column + 1, "file")
        flow.links.append(Link(str(step.place), str(path), rows, "file"))


def _add_model(flow: Flow, steps: Sequence[Step], final: set[Path]) -> None:
    """The trainings that read the final files, and the largest of the evaluations that did."""
    for stage in ("train", "evaluate_model"):
        readers = [step for step in steps if step.ledger.stage == stage and final.intersection(step.inputs)]
        if stage == "evaluate_model":
            readers = sorted(readers, key=lambda step: -step.ledger.counts["in"])[:1]
        for step in readers:
            key, counts = str(step.place), step.ledger.counts
            read = [flow.nodes[str(path)] for path in step.inputs if str(path) in flow.nodes]
            column = max((node.column for node in read), default=0) + 1
            flow.nodes[key] = Node(stage, step.place.parent.name, counts["in"], column, "model")
            for path in step.inputs:
                if str(path) in flow.nodes:
                    flow.links.append(Link(str(path), key, min(flow.nodes[str(path)].rows, counts["in"]), "model"))
            _add_exits(flow, step, column + 1)


def arrange(flow: Flow) -> float:
    """Give every bar its place; the height that all of it takes."""
    columns: defaultdict[int, list[str]] = defaultdict(list)
    for key, node in flow.nodes.items():
        columns[node.column].append(key)
    largest = max(sum(flow.nodes[key].rows for key in keys) for keys in columns.values()) or 1
    bottom = 0.0
    for column in sorted(columns):
        y = float(TOP)
        for key in sorted(columns[column], key=lambda key: _order(flow, key)):
            node = flow.nodes[key]
            node.y, node.height = y, max(2.0, HEIGHT * node.rows / largest)
            y += max(SLOT, node.height) + GAP
        bottom = max(bottom, y)
    return bottom


def _order(flow: Flow, key: str) -> tuple[bool, float, int]:
    """What goes on stands above what leaves; beside what it came from; the larger part first."""
    node = flow.nodes[key]
    before = [flow.nodes[link.source] for link in flow.links if link.target == key]
    middle = sum(one.y + one.height / 2 for one in before) / len(before) if before else 0.0
    return node.is_exit, middle, -node.rows


def draw(flow: Flow) -> str:
    bottom = arrange(flow)
    width = COLUMN * (max(node.column for node in flow.nodes.values()) + 1)
    parts = [*_ribbons(flow), *(part for node in flow.nodes.values() for part in _bar(node))]
    return drawing.svg(
        width, bottom, "Rows on their way through the stages; the table below says the same", parts, "flow"
    )


def _ribbons(flow: Flow) -> Iterator[str]:
    left, right = defaultdict[str, float](float), defaultdict[str, float](float)
    for link in sorted(flow.links, key=lambda link: (flow.nodes[link.source].y, flow.nodes[link.target].y)):
        source, target = flow.nodes[link.source], flow.nodes[link.target]
        leaves = _thickness(link.rows, source)
        arrives = _thickness(link.rows, target)
        x, end = COLUMN * source.column + BAR, COLUMN * target.column
        y, down = source.y + right[link.source], target.y + left[link.target]
        right[link.source] += leaves
        left[link.target] += arrives
        bend = (x + end) / 2
        way = (
            f"M{x:.1f} {y:.1f}C{bend:.1f} {y:.1f} {bend:.1f} {down:.1f} {end:.1f} {down:.1f}V{down + arrives:.1f}"
            f"C{bend:.1f} {down + arrives:.1f} {bend:.1f} {y + leaves:.1f} {x:.1f} {y + leaves:.1f}Z"
        )
        words = f"{source.name} → {target.name}: {link.rows:,} rows"
        yield f'<path class="ribbon {target.kind}" d="{way}"><title>{escape(words)}</title></path>'


def _thickness(rows: int, node: Node) -> float:
    return max(1.0, min(node.height, node.height * rows / max(1, node.rows)))


def _bar(node: Node) -> Iterator[str]:
    x = COLUMN * node.column
    note = f"{node.name}: {node.rows:,} rows" + (f" ({node.note})" if node.note else "")
    yield drawing.box(x, node.y, BAR, node.height, node.kind, note)
    yield drawing.text(x + BAR + 6, node.y + 12, drawing.cut(node.name, 24), "name")
    yield drawing.text(x + BAR + 6, node.y + 27, drawing.cut(_small(node), 26), "tick")


def _small(node: Node) -> str:
    return f"{node.rows:,}" + (f" · {node.note}" if node.note and node.kind != "file" else "")
