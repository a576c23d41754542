"""The parser of a command, whose help is told in paragraphs, under headings, with examples."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from inspect import cleandoc
from pathlib import Path
from typing import Any, NoReturn

from models.errors import InputError
from models.types import entry, is_list, only
from pipelines.cli.options import Call, Option
from pipelines.cli.table import COMMANDS
from pipelines.recipes.reading import is_switch

# Headings in the help of every command; options of no heading come first, those of a recipe's parts under their own.
HEADINGS: Mapping[str, Sequence[str]] = {
    "what is written": (
        *("out", "probabilities", "confidence", "min_area", "polygons", "area_table", "codes", "variables"),
        *("overwrite", "resume"),
    ),
    "how the scenes are read": ("bands", "dates", "scale", "offset", "mask_clouds"),
    "how it runs": (
        *("overlap", "runtime", "precision", "batch", "workers", "shard", "ray", "trust"),
        *("device", "devices", "nodes", "strategy", "country"),
    ),
}
FLAGS = {
    "--quiet": "no progress, no notes",
    "--json": "print the result as JSON",
    "--debug": "show where an error came from",
}


class Parser(argparse.ArgumentParser):
    """Mistakes are errors of ours."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
        raise InputError(f"{message} ({self.prog} --help)")


class _Help(argparse.HelpFormatter):
    """Wraps each paragraph by itself, and leaves indented lines, which are examples, as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n  " in text:
            return text
        fill = super()._fill_text
        return "\n\n".join(fill(paragraph, width, indent) for paragraph in text.split("\n\n"))


def make_parser(name: str, call: Call) -> Parser:
    """The parser of a command's options; values are the words that were typed."""
    command = COMMANDS[name]
    examples = "\n".join(f"  earthtune {line}" for line in command.examples)
    parser = Parser(
        prog=f"earthtune {name}",
        usage=f"earthtune {name} {command.usage}".rstrip().replace("%", "%%"),
        description=cleandoc(call.function.__doc__ or "").split("\n\nArgs:")[0],
        epilog=f"example{'s' * (len(command.examples) > 1)}:\n{examples}",
        formatter_class=_Help,
        add_help=False,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    headed: dict[str, list[Option]] = {title: [] for title in ("arguments", "options", *HEADINGS)}
    for option in call.options:
        headed.setdefault(heading(option, recipe=call.recipe), []).append(option)
    for title, options in headed.items():
        group = parser.add_argument_group(title)
        if title == "options" and call.recipe:
            told = "print the recipe as all options make it, and stop"
            group.add_argument("--print_config", action="store_true", help=told)
        for option in options:
            _add(group, option)
    every = parser.add_argument_group("every command")
    every.add_argument("-h", "--help", action="help", help="show this help message and exit")
    for flag, told in FLAGS.items():
        every.add_argument(flag, action="store_true", default=False, help=told)
    return parser


def heading(option: Option, *, recipe: str | None) -> str:
    """What an option stands under in the help; the bands of a recipe are the model's."""
    if option.positional:
        return "arguments"
    if option.heading or option.part == recipe:
        return option.heading or "options"
    return next((title for title, names in HEADINGS.items() if option.name in names), "options")


def _add(group: Any, option: Option) -> None:
    """Add an option; what it is worth where it is not given stands in its help."""
    last = option.part.removeprefix(f"{option.name}_") if option.part.startswith(f"{option.name}_") else option.name
    last = last.split(".")[-1].upper()
    told = option.help
    plain = option.default is None or option.default is False or option.default in ((), [], {})
    told += " (required)" if option.required and not option.positional else ""
    told += "" if option.required or plain else f" (default: {option.default})"
    told = told.replace("%", "%%")
    if option.positional:
        nargs = "+" if is_list(option.kind) else 1
        group.add_argument(option.name, metavar=option.name.upper(), nargs=nargs, help=told)
        return
    if is_switch(option.kind):
        last = "" if option.default is False else "{true,false}"
    elif is_list(option.kind) and only(entry(option.kind)) is not Path:
        last = f"{last},..."
    name = f"--{option.name}"
    group.add_argument(name, dest=option.name, metavar=last, action="append", required=option.required, help=told)
