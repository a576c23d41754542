"""Pages of the reference, made while the site is built: of the table of commands, the recipes and `pipelines.api`."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import MISSING
from inspect import cleandoc
from itertools import groupby
from typing import Any

from pipelines import api
from pipelines.cli.options import Option, call_of, described, options_of
from pipelines.cli.parser import FLAGS, heading
from pipelines.cli.table import COMMANDS
from pipelines.recipes.fused import FusedRecipe
from pipelines.recipes.reading import RECIPES
from pipelines.recipes.recipe import SceneRecipe
from pipelines.recipes.tables import TableRecipe
from pipelines.recipes.weather import WeatherRecipe

KINDS = {"Scenes": SceneRecipe, "Imagery with weather": FusedRecipe, "Weather": WeatherRecipe, "Tables": TableRecipe}


def commands() -> str:
    """Every command as its help tells it, with an anchor of its name."""
    flags = "\n".join(f"- `{flag}`: {told}" for flag, told in FLAGS.items())
    return "\n\n".join(["# Commands", f"Every command takes\n\n{flags}", *map(_command, COMMANDS)])


def _command(name: str) -> str:
    """A command: usage, what it does, examples, options; keys of a recipe have a page of their own."""
    command, call = COMMANDS[name], call_of(COMMANDS[name])
    told = cleandoc(call.function.__doc__ or "").split("\n\nArgs:")[0]
    examples = "\n".join(f"earthtune {line}" for line in command.examples)
    options = [option for option in call.options if option.part != call.recipe or option.positional]
    parts = [f"## {name}", f"    earthtune {name} {command.usage}".rstrip(), _plain(told), f"```\n{examples}\n```"]
    parts += ["Each [key of the recipe](recipes.md) is an option, too."] * bool(call.recipe)
    ordered = sorted(options, key=lambda option: not option.positional)
    for title, some in groupby(ordered, lambda option: heading(option, recipe=call.recipe)):
        parts += [f"**{title}**", _listed(some)]
    return "\n\n".join(parts)


def recipes() -> str:
    """The keys of a recipe by kind, each told once, and the recipes that come with earthtune."""
    parts = ["# Recipes", "A recipe is a YAML file. Each key is an option of the commands that take one."]
    known: set[str] = set()
    for title, kind in KINDS.items():
        parts += [f"## {title}", _plain(cleandoc(kind.__doc__ or "").split("\n\nAttributes:")[0])]
        parts += ["Those of [scenes](#scenes), but for these:"] * bool(known)
        options = [o for o in options_of(kind, "recipe", required=False) if repr(o) not in known]
        known |= {repr(option) for option in options}
        for group, some in groupby(options, lambda option: option.heading):
            parts += [f"**{_plain(group.removeprefix('--'))}**"] * bool(group) + [_listed(some, mark="")]
    parts += ["## Those that come with earthtune"]
    for path in sorted(RECIPES.glob("*.yaml")):
        parts += [f"### {path.stem}", f"```yaml\n{path.read_text().rstrip()}\n```"]
    return "\n\n".join(parts)


def programs() -> str:
    """Where mkdocstrings puts what other programs may call, and under which name."""
    parts = ["# In Python", cleandoc(api.__doc__ or "")]
    where: Mapping[str, str] = {**{name: f"{home}.{name}" for name, home in api.WHERE.items()}, **api.MODULES}
    return "\n\n".join([*parts, *(f"::: {where[name]}\n    options:\n      heading: {name}" for name in api.__all__)])


def _listed(options: Iterable[Option], *, mark: str = "--") -> str:
    """Options as a list of definitions."""
    return "\n\n".join(_option(option, mark) for option in options)


def _option(option: Option, mark: str) -> str:
    """An option: its name, what it is worth where nothing is said, what it does."""
    name = option.name.upper() if option.positional else f"{mark}{option.name}"
    plain = option.default in (None, False, MISSING, (), [], {})
    told = "" if plain else f" (default: `{option.default}`)"
    told += " (required)" if option.required and not option.positional else ""
    return f"`{name}`\n:   {_plain(option.help)}{told}"


def _plain(text: str) -> str:
    """Text of a docstring that Markdown and HTML leave as it is."""
    return "`".join(part if i % 2 else html.escape(part, quote=False).replace("*", r"\*").replace("_", r"\_").replace("[", r"\[") for i, part in enumerate(text.split("`")))


PAGES = {"reference/commands.md": commands, "reference/recipes.md": recipes, "reference/api.md": programs}


def on_files(files: Any, config: Any) -> Any:
    """Add the pages (a hook of MkDocs)."""
    from mkdocs.structure.files import File

    for name, page in PAGES.items():
        files.append(File.generated(config, name, content=page()))
    return files
