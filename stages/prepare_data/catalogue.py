"""Reads sources.yaml, and finds every mistake in it that can be found without running anything."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_type_hints

import click
import msgspec


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the driver itself reads of one source; the rest is for the function `extract` of its type."""

    type: str | None = None  # only a source that can never be read has none
    priority: int = 0
    enabled: bool = True
    reason: str | None = None
    expected_samples: int | None = None
    licence: str | None = None


class Source(msgspec.Struct, frozen=True):
    """One source of the file."""

    name: str
    entry: Entry
    options: dict[str, Any]
    place: str

    @property
    def type(self) -> str:
        """For a chosen source; `choose` lets none pass that has no type."""
        assert self.entry.type
        return self.entry.type


def read_catalogue(path: Path) -> list[Source]:
    """The sources in the order of the file."""
    node = _compose(path)
    # YAML keeps the last of two equal keys and says nothing; half of a source would vanish.
    _refuse_repeated_keys(path, node)
    lines = {key.value: key.start_mark.line + 1 for key, _ in node.value}
    return [_source(f"{path}:{lines.get(name, 1)}: {name}", name, body) for name, body in _values(path).items()]


def choose(sources: list[Source], names: Iterable[str]) -> list[Source]:
    """The named sources in the order of the file; `all` is every enabled one."""
    known = {source.name for source in sources}
    wanted = set(names) or {"all"}
    for name in sorted(wanted - known - {"all"}):
        raise click.UsageError(f"--sources {name}: there is no such source{nearest(name, known)}")
    for source in sources:
        if source.name in wanted and not source.entry.type:
            raise click.UsageError(f"--sources {source.name}: can not be read: {source.entry.reason}")
    chosen = [source for source in sources if source.name in wanted or ("all" in wanted and source.entry.enabled)]
    if not chosen:
        raise click.UsageError("no source is enabled; name one with --sources")
    return chosen


def nearest(name: str, known: Iterable[str]) -> str:
    """The way out of a misspelt name: the names that look like it, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known)
    return f"; did you mean {' or '.join(close)}?" if close else f"; there is {', '.join(known) or 'none'}"


def bind(source: Source, extract: Callable[..., Any], fetch: Any) -> dict[str, Any]:
    """The arguments for `extract`, checked against its signature; it gets `fetch` if it asks for it."""
    signature = inspect.signature(extract)
    own = {"fetch": fetch} if "fetch" in signature.parameters else {}
    takes = [name for name in signature.parameters if name != "fetch"]
    where = f"{source.place}: {source.type}"
    for name in source.options:
        if name not in takes:
            close = difflib.get_close_matches(name, [*takes, *Entry.__struct_fields__])
            meant = f"; did you mean {' or '.join(close)}?" if close else ""
            raise click.UsageError(f"{where} has no option {name!r}; it takes {', '.join(takes)}{meant}")
    try:
        signature.bind(**source.options, **own)
    except TypeError as error:
        raise click.UsageError(f"{where}: {error}; it takes {', '.join(takes)}") from error
    hints = get_type_hints(extract)
    typed = {name: _typed(value, hints.get(name, Any), f"{where}: {name}") for name, value in source.options.items()}
    return {**typed, **own}


def every_argument(extract: Callable[..., Any], arguments: dict[str, Any], fetch: Any) -> dict[str, Any]:
    """The checked arguments together with the defaults, for the functions that stand beside `extract`."""
    bound = inspect.signature(extract).bind(**arguments)
    bound.apply_defaults()
    return {**bound.arguments, "fetch": fetch}


def ask(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call a function with those of the arguments that it names."""
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return function(**arguments)
    return function(**{name: value for name, value in arguments.items() if name in parameters})


def _typed(value: Any, hint: Any, where: str) -> Any:
    try:
        # A type that YAML has no word for, such as Path, is made from the value.
        return msgspec.convert(value, hint, dec_hook=lambda kind, given: kind(given))
    except msgspec.ValidationError as error:
        quote = "; put it in quotes" if "Expected `str" in str(error) else ""
        raise click.UsageError(f"{where}: {error}{quote}") from error


def _source(where: str, name: Any, body: Any) -> Source:
    if not isinstance(name, str) or not isinstance(body, dict):
        raise click.UsageError(f"{where}: a source is a name with options below it, such as 'type: local'")
    own = {key: value for key, value in body.items() if key in Entry.__struct_fields__}
    options = {str(key): value for key, value in body.items() if key not in Entry.__struct_fields__}
    try:
        source = Source(name, msgspec.convert(own, Entry), options, where)
    except msgspec.ValidationError as error:
        raise click.UsageError(f"{where}: {error}") from error
    entry = source.entry
    if not entry.type and (entry.enabled or not entry.reason or options):
        raise click.UsageError(
            f"{where}: it has no type; only a source that can never be read may leave it out,"
            " with 'enabled: false', a reason and no options"
        )
    return source


def _values(path: Path) -> dict[Any, Any]:
    import yaml

    values = yaml.safe_load(path.read_bytes())
    assert isinstance(values, dict)
    return values


def _compose(path: Path) -> Any:
    """The file as a tree that still knows its lines."""
    import yaml

    try:
        node = yaml.compose(path.read_bytes(), Loader=yaml.SafeLoader)
        yaml.safe_load(path.read_bytes())
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise click.UsageError(f"{path}:{line}: not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise click.UsageError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(node, yaml.MappingNode):
        raise click.UsageError(f"{path}: it must hold sources, each a name with options below it")
    return node


def _refuse_repeated_keys(path: Path, node: Any) -> None:
    import yaml

    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.value in seen:
            raise click.UsageError(f"{path}:{line}: {key.value!r} stands twice, first in line {seen[key.value]}")
        seen[key.value] = line
        _refuse_repeated_keys(path, value)
