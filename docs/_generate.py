"""Write what the documentation says about commands and settings, from the commands and settings themselves.

    python docs/_generate.py            write it
    python docs/_generate.py --check    only say whether it is up to date; exit code 1 when it is not

In    every script of the top folder, `python -m schema`, the settings of train.py, and the types of extractors/
Out   docs/commands.md, docs/source-types.md, the list of settings in docs/config.md, and the table of types in
      docs/adding-a-source.md; the same scripts give the same bytes
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ROOT / "docs" / "commands.md"
SETTINGS = ROOT / "docs" / "config.md"
TYPES = ROOT / "docs" / "source-types.md"
ADDING = ROOT / "docs" / "adding-a-source.md"
WIDTH = 100
INTRODUCTION = """# Commands

Every script and every option, written by `python docs/_generate.py` (`make docs`) from `--help`; do not edit by hand.
What the stages do with each other stands in [pipeline.md](pipeline.md).

Exit codes, the same everywhere: 0 done; 1 failed, the old output is untouched; 2 wrong usage or configuration;
3 done, but incomplete; 4 another run holds this output; 130 interrupted.
"""
TYPES_INTRODUCTION = """# Types of sources

What an entry of `sources.yaml` may say, type by type, written by `python docs/_generate.py` (`make docs`) from the
modules in `extractors/`; do not edit by hand. How to add a source, and what every source may say whatever its type:
[adding-a-source.md](adding-a-source.md).
"""


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit with code 1 when a page is out of date.")
def main(check: bool) -> None:
    """Write the pages and parts of pages that are made of the program itself."""
    pages = {COMMANDS: commands_page, SETTINGS: settings_page, TYPES: types_page, ADDING: adding_page}
    for path, text in ((path, page()) for path, page in pages.items()):
        is_new = not path.exists() or path.read_text("utf-8") != text
        if is_new and check:
            raise click.ClickException(f"docs/{path.name} is out of date; write it again with `make docs`")
        if is_new:
            path.write_text(text, "utf-8")
            click.echo(f"docs/{path.name} written", err=True)


def commands_page() -> str:
    """The list of commands, then the help of each."""
    helps = dict(entry for title, module in programs() for entry in command_helps(title, root_command(module)))
    index = "\n".join(f"- [`{title}`](#{_anchor(title)})" for title in helps)
    parts = (f"## `{title}`\n\n```text\n{text}\n```\n" for title, text in helps.items())
    return "\n".join([INTRODUCTION, index + "\n", *parts])


def settings_page() -> str:
    """The page as it is, with every setting of a training and its default between the two marks."""
    settings = load("stages.train.settings")
    before, begin, rest = SETTINGS.read_text("utf-8").partition("```yaml\n")
    _, end, after = rest.partition("```\n<!-- end -->")
    return before + begin + str(settings.to_yaml(settings.FineTuneConfig())) + end + after


def types_page() -> str:
    """Every type of source: what its module says of it, and every option with its default."""
    return "\n".join([TYPES_INTRODUCTION, *(_type_section(name) for name in source_types())])


def adding_page() -> str:
    """The page as it is, with one line for each type between the two marks."""
    before, begin, rest = ADDING.read_text("utf-8").partition("<!-- types -->\n")
    _, end, after = rest.partition("<!-- end -->")
    return before + begin + _types_table() + end + after


def source_types() -> list[str]:
    """The types of this repository; those of other packages are none of ours."""
    return sorted(path.stem for path in (ROOT / "extractors").glob("*.py") if not path.stem.startswith("_"))


def _types_table() -> str:
    lines = ["| type | reads | options |", "|---|---|---|"]
    for name in source_types():
        about = str(load(f"extractors.{name}").__doc__).partition("\n")[0].rstrip(".")
        options = " ".join(f"`{option.name}`" for option in _options(name))
        lines.append(f"| [`{name}`](source-types.md#{name}) | {about} | {options} |")
    return "\n".join(lines) + "\n"


def _type_section(name: str) -> str:
    """The docstring, its example as YAML, and the table of options."""
    text = str(load(f"extractors.{name}").__doc__).strip()
    parts = [f"```yaml\n{textwrap.dedent(part)}\n```" if part[:4] == "    " else part for part in text.split("\n\n")]
    rows = ["| option | value | default |", "|---|---|---|"]
    for option in _options(name):
        value = str(option.annotation).removesuffix(" | None").replace("|", "\\|")
        given = "" if option.default in (None, option.empty) else f"`{json.dumps(option.default)}`"
        rows.append(f"| `{option.name}` | `{value}` | {'required' if option.default is option.empty else given} |")
    return "\n\n".join([f"## {name}", *parts, "\n".join(rows)]) + "\n"


def _options(name: str) -> list[inspect.Parameter]:
    signature = inspect.signature(load(f"extractors.{name}").extract)
    return [option for option in signature.parameters.values() if option.name != "fetch"]


def programs() -> list[tuple[str, str]]:
    """What is typed, and the module that holds the command."""
    scripts = sorted(path.stem for path in ROOT.glob("*.py"))
    return [*((f"python {name}.py", name) for name in scripts), ("python -m schema", "schema.__main__")]


def root_command(name: str) -> click.Command:
    """The one command of a module that is no sub-command of another."""
    found = {id(value): value for value in vars(load(name)).values() if isinstance(value, click.Command)}
    for group in [value for value in found.values() if isinstance(value, click.Group)]:
        for command in group.commands.values():
            found.pop(id(command), None)
    if len(found) != 1:
        raise click.ClickException(f"{name}: one command was expected at its top, there are {len(found)}")
    return next(iter(found.values()))


def load(name: str) -> Any:
    """A module of the top folder, wherever this script is started."""
    sys.path[:0] = [] if str(ROOT) in sys.path else [str(ROOT)]
    return importlib.import_module(name)


def command_helps(title: str, command: click.Command, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    """The help of a command and of all that are below it, as the user would see it on a wide terminal."""
    settings = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    name = title.split()[-1] if parent else title
    context = click.Context(command, parent=parent, info_name=name, **settings)
    yield title, command.get_help(context).rstrip()
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            if not command.commands[child].hidden:
                yield from command_helps(f"{title} {child}", command.commands[child], context)


def _anchor(title: str) -> str:
    return "".join(sign for sign in title.lower().replace(" ", "-") if sign.isalnum() or sign in "-_")


if __name__ == "__main__":
    main()
