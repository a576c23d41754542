"""What makes a shell complete the commands: a script with all words in it, so that a TAB starts no Python."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import shtab

from models.backbones.catalogue import VARIANTS, WXC_VARIANTS
from models.types import entry, is_list, only
from pipelines.cli.options import call_of, recipe_names
from pipelines.cli.parser import FLAGS
from pipelines.cli.table import COMMANDS
from pipelines.commands.outcome import Outcome
from pipelines.recipes.reading import RECIPES, is_switch, read_values

Shell = Literal["bash", "zsh"]
_WORDS: Mapping[tuple[str, str], list[str]] = {
    **{(name, "recipe"): recipe_names() for name, command in COMMANDS.items() if command.of_recipe},
    ("embed", "backbone"): [*VARIANTS],
    ("forecast", "backbone"): [*WXC_VARIANTS],
    ("completion", "shell"): [*get_args(Shell)],
}


def completion(shell: Shell) -> str:
    """Print a script with which the shell completes commands, options, recipes and backbones.

    Args:
        shell: bash or zsh.
    """
    root = argparse.ArgumentParser("earthtune")
    root.add_argument("--version", action="store_true")
    commands = root.add_subparsers()
    tasks = {read_values(path)["task"]: path for path in RECIPES.glob("*.yaml")}
    for name, command in COMMANDS.items():
        recipes = [*tasks.values()] if command.of_recipe else [None]
        options = {o.name: o for recipe in recipes for o in call_of(command, recipe).options}
        parser = commands.add_parser(name, help=command.help)
        for flag in (*FLAGS, *(["--print_config"] if command.of_recipe else [])):
            parser.add_argument(flag, action="store_true")
        for option in options.values():
            words = ["true", "false"] if is_switch(option.kind) else _WORDS.get((name, option.name))
            nargs = "*" if option.several or (option.positional and is_list(option.kind)) else None
            spelled = option.name if option.positional else f"--{option.name}"
            action: Any = parser.add_argument(spelled, choices=words, nargs=nargs, help=option.help.replace("%", "%%"))
            if words is None and only(entry(option.kind) if is_list(option.kind) else option.kind) is Path:
                action.complete = shtab.FILE
    return str(shtab.complete(root, shell))


def told(script: str, options: Mapping[str, Any]) -> Outcome:
    """The script as it is."""
    return Outcome({"script": script}, script)
