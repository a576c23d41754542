"""What makes bash complete the commands: a script with all words in it, so that a TAB starts no Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from models.backbones.catalogue import VARIANTS, WXC_VARIANTS
from models.bundle import WEATHER
from pipelines.cli.options import call_of, recipe_names
from pipelines.cli.parser import FLAGS
from pipelines.cli.table import COMMANDS
from pipelines.commands.outcome import Outcome
from pipelines.recipes.reading import RECIPES, read_values

_SCRIPT = """\
# Completion of earthtune in bash: source this file.
_earthtune() {{
  local known current="${{COMP_WORDS[COMP_CWORD]}}"
  if [ "$COMP_CWORD" -eq 1 ]; then
    known="{commands} --help --version"
  else
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
  fi
  COMPREPLY=($(compgen -W "$known" -- "$current"))
}}
complete -o default -F _earthtune earthtune
"""


def completion(shell: Literal["bash"]) -> str:
    """Print a script with which bash completes commands, options, recipes and backbones.

    Args:
        shell: bash.
    """
    names: dict[str, list[str]] = {"finetune": recipe_names(), "completion": [shell]}
    names |= {"embed": [*VARIANTS], "forecast": [*WXC_VARIANTS]}
    kinds = {read_values(RECIPES / f"{recipe}.yaml")["task"]: RECIPES / f"{recipe}.yaml" for recipe in recipe_names()}
    cases = []
    for name, command in COMMANDS.items():
        recipes = [None, *(kinds[task] for task in WEATHER)] if name == "finetune" else [None]
        options = {f"--{o.name}" for path in recipes for o in call_of(command, path).options if not o.positional}
        flags = [*FLAGS, "--help", *(["--print_config"] if name == "finetune" else [])]
        cases.append(f'      {name}) known="{" ".join([*sorted({*options, *flags}), *names.get(name, ())])}" ;;')
    return _SCRIPT.format(commands=" ".join(COMMANDS), cases="\n".join(cases))


def told(script: str, options: Mapping[str, Any]) -> Outcome:
    """The script as it is."""
    return Outcome({"script": script}, script)
