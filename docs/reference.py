"""Pages of the reference, made while the site is built: of the table of commands, the recipes and `pipelines.api`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import MISSING
from inspect import cleandoc
from itertools import groupby
from typing import Any

from pipelines import api
from pipelines.cli.options import Option, call_of, options_of
from pipelines.cli.parser import FLAGS, HEADINGS, heading
from pipelines.cli.table import COMMANDS
from pipelines.recipes.reading import RECIPES
from pipelines.tasks.task import task_named

# Headings, and a task whose recipes are of that kind.
KINDS = {
    "Scenes": "segmentation",
    "Imagery with weather": "fused",
    "Rain": "rain",
    "Downscaling": "downscale",
    "Tables": "table",
}


def commands() -> str:
    """Every command as its help tells it, under its name."""
    flags = "\n".join(f"- `{flag}`: {told}" for flag, told in FLAGS.items())
    return "\n\n".join(["# Commands", f"Every command takes\n\n{flags}", *map(command_section, COMMANDS)])


def command_section(name: str) -> str:
    """A command: how it is called, what it does, examples, options; keys of recipes have a page of their own."""
    command, call = COMMANDS[name], call_of(COMMANDS[name])
    told = cleandoc(call.function.__doc__ or "").split("\n\nArgs:")[0]
    examples = "\n".join(f"earthtune {line}" for line in command.examples)
    options = [option for option in call.options if option.positional or option.part != call.recipe]
    parts = [f"## {name}", f"```\n{f'earthtune {name} {command.usage}'.rstrip()}\n```", plain(told)]
    parts += [f"For example\n\n```\n{examples}\n```"]
    parts += ["Keys: [recipes](recipes.md)."] * bool(call.recipe)
    headed: dict[str, list[Option]] = {title: [] for title in ("arguments", "options", *HEADINGS)}
    for option in options:
        headed.setdefault(heading(option, recipe=call.recipe), []).append(option)
    for title, some in headed.items():
        parts += [f"**{plain(title)}**", listed(some, mark="--")] * bool(some)
    return "\n\n".join(parts)


def recipes() -> str:
    """The keys of each kind of recipe, told once, and the recipes that come with earthtune."""
    parts = ["# Recipes", "A recipe is a YAML file. Each key is an option of the commands that take a recipe."]
    known: set[tuple[str, str, str]] = set()
    for title, task in KINDS.items():
        kind = task_named(task).recipe
        told = plain(cleandoc(kind.__doc__ or "").split("\n\nAttributes:")[0])
        parts += [f"## {title}", told + " Keys as [above](#scenes), and these:" * bool(known)]
        options = [option for option in options_of(kind, "recipe", required=False) if _told(option) not in known]
        known |= set(map(_told, options))
        for group, some in groupby(options, lambda option: option.heading):
            parts += [f"**{plain(group.removeprefix('--'))}**"] * bool(group) + [listed(some)]
    parts += ["## Those that come with earthtune"]
    for path in sorted(RECIPES.glob("*.yaml")):
        parts += [f"### {path.stem}", f"```yaml\n{path.read_text().rstrip()}\n```"]
    return "\n\n".join(parts)


def _told(option: Option) -> tuple[str, str, str]:
    return option.name, repr(option.default), option.help


def programs() -> str:
    """Where mkdocstrings puts what other programs may call, each under the name that it has there."""
    where = {name: f"{home}.{name}" for name, home in api.WHERE.items()} | api.MODULES
    entries = (f"::: {where[name]}\n    options:\n      heading: {name}" for name in api.__all__)
    return "\n\n".join(["# In Python", plain(cleandoc(api.__doc__ or "")), *entries])


def listed(options: Iterable[Option], *, mark: str = "") -> str:
    """Options as a list of definitions: a name, what it does, what it is worth where nothing is said."""
    return "\n\n".join(_definition(option, mark) for option in options)


def _definition(option: Option, mark: str) -> str:
    name = option.name.upper() if option.positional else f"{mark}{option.name}"
    told = plain(option.help)
    if option.required and not option.positional:
        told += " (required)"
    elif option.default is not MISSING and option.default not in (None, False, (), [], {}):
        told += f" (default: `{option.default}`)"
    return f"`{name}`\n:   {told}"


def plain(text: str) -> str:
    """Text of a docstring as Markdown that shows the same; what stands between backticks is code there, too."""
    parts = text.split("`")
    parts[::2] = (re.sub(r"([*_\[\]<>])", r"\\\1", part) for part in parts[::2])
    return "`".join(parts)


PAGES = {"reference/commands.md": commands, "reference/recipes.md": recipes, "reference/api.md": programs}


def on_files(files: Any, config: Any) -> Any:
    """Add the pages to those that MkDocs found in the folder."""
    from mkdocs.structure.files import File

    for name, page in PAGES.items():
        files.append(File.generated(config, name, content=page()))
    return files
