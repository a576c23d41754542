"""How options are spelled, and how a command tells them in its help."""

from __future__ import annotations

import dataclasses
import json
from argparse import SUPPRESS
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from models.errors import InputError
from pipelines.tasks.downscale import DownscaleData
from pipelines.tasks.rain import RainData

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

# After `earthtune`: how a command is called, and what somebody types.
USAGE: dict[str, tuple[str, tuple[str, ...]]] = {
    "finetune": (
        "finetune RECIPE [--data.root DIR] [--out RUN] [--resume] ...",
        (
            "finetune landuse --data.root chips --out runs/landuse",
            "finetune landuse --training.epochs 20 --print_config",
        ),
    ),
    "evaluate": (
        "evaluate RUN [--data.root DIR] [--out DIR] ...",
        ("evaluate runs/landuse --data.root other_chips --out elsewhere",),
    ),
    "score": (
        "score RUN SCENE [SCENE ...] --out DIR ...",
        (
            "score runs/landuse new.tif --out maps",
            "score runs/landuse 'scenes/*.tif' --out maps --probabilities",
        ),
    ),
    "embed": (
        "embed BACKBONE SCENE --out FILE ...",
        ("embed prithvi_eo_v2_300_tl scene.tif --out tokens.tif",),
    ),
    "forecast": (
        "forecast BACKBONE FILE [FILE ...] --out DIR [--steps N] ...",
        ("forecast prithvi_wxc_2300m_rollout merra2/*.nc4 --out fc --steps 8",),
    ),
    "seasonal": (
        "seasonal FILE [FILE ...] --target NAME --season DJF --out DIR",
        ("seasonal era5_monthly.nc --target pr --season DJF --out winter",),
    ),
    "inspect": (
        "inspect PATH [--for RUN] ...",
        ("inspect scene.tif", "inspect new.tif --for runs/landuse"),
    ),
    "backbones": ("backbones", ("backbones",)),
    "demo": ("demo [--out DIR] ...", ("demo --out demo",)),
    "completion": (
        "completion SHELL",
        ("completion bash > earthtune.bash",),
    ),
}

# Headings in the help of every command; options of no heading come first, those of a recipe's parts under their own.
HEADINGS = {
    "what is written": (
        *("out", "probabilities", "confidence", "min_area", "polygons", "area_table", "codes", "variables"),
        *("overwrite", "resume"),
    ),
    "how the scenes are read": ("bands", "dates", "scale", "offset", "mask_clouds"),
    "how it runs": (
        *("overlap", "runtime", "precision", "batch", "workers", "shard", "ray"),
        *("device", "devices", "strategy"),
    ),
}
EVERY = "every command"

SWITCHES = tuple(
    f"--{name}"
    for name in (
        *("overwrite", "resume", "mask_clouds", "data.mask_clouds", "training.flips", "refit", "augment.turns"),
        *("probabilities", "confidence", "conserve"),
    )
)


def lists(kind: type, *, of: str = "") -> list[str]:
    """Names of the keys of a recipe's part that are lists, of a type where one is told."""
    return [field.name for field in dataclasses.fields(kind) if str(field.type).startswith(f"list[{of}")]


# Options that hold lists: they may be given again, or with commas; and the list that each makes up.
REPEATED = {"--bundle": "bundle", "--date": "dates"}
REPEATED |= {f"--{name}": name for name in ("bands", "dates", "data.bands", "data.dates", "variables", "region")}
REPEATED |= {f"--data.{name}": f"data.{name}" for kind in (RainData, DownscaleData) for name in lists(kind)}
NUMBERS = {"region"} | {f"data.{name}" for name in lists(RainData, of="float")}


def switches(args: list[str]) -> list[str]:
    """Let an option that is on or off stand alone, --overwrite for --overwrite true; --date DAY and --bundle RUN."""
    args = [word for arg in args for word in _spelled(arg)]
    following = [*args[1:], ""][: len(args)]
    alone = [arg in SWITCHES and after not in ("true", "false") for arg, after in zip(args, following, strict=True)]
    args = [f"{arg}=true" if lonely else arg for arg, lonely in zip(args, alone, strict=True)]
    plain: list[str] = []
    many: dict[str, list[str]] = {}
    rest = list(args)
    while rest:
        arg = rest.pop(0)
        if arg in REPEATED:  # a list reads better as an option that is given again
            if not rest:
                raise InputError(f"{arg}: wanted a value after it, nothing came")
            values = many.setdefault(REPEATED[arg], [])
            values.extend(_listed(rest.pop(0), commas=arg != "--bundle"))
            while arg == "--region" and rest and _is_number(rest[0]):  # -100 30 -70 45
                values.append(rest.pop(0))
        else:
            plain.append(arg)
    return plain + [f"--{name}={_as_json(name, values)}" for name, values in many.items()]


def _as_json(name: str, values: list[str]) -> str:
    """A list as jsonargparse reads it; a region is of numbers, and so are lead times."""
    return json.dumps([float(value) if name in NUMBERS and _is_number(value) else value for value in values])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _listed(value: str, *, commas: bool) -> list[str]:
    """The entries of a list: [BLUE, RED], or BLUE,RED."""
    bare = value.strip().removeprefix("[").removesuffix("]") if value.strip().endswith("]") else value
    return [entry.strip().strip("'\"") for entry in bare.split(",")] if commas or bare != value else [value]


def _spelled(arg: str) -> list[str]:
    """An argument with _ for the - in an option's name, and a value after = apart where options may be given again."""
    name, mark, value = arg.partition("=")
    if not name.startswith("--"):
        return [arg]
    name = f"--{name[2:].replace('-', '_')}"
    return [name, value] if mark and name in REPEATED else [f"{name}{mark}{value}"]


def make_parser(command: str) -> ArgumentParser:
    """A parser of what every command takes, whose help is told in paragraphs, under headings, with examples."""
    import jsonargparse

    class Parser(jsonargparse.ArgumentParser):
        def format_help(self, formatter: Any = None) -> str:
            # jsonargparse heads options by the function they came from; a reader looks for what they are about.
            self._action_groups = [_group(self, title, actions) for title, actions in sections(self).items()]
            text: str = super().format_help()
            return text

    # Names of a function's parameters are the names of the options, with - for _ understood as well.
    parser = Parser(prog=f"earthtune {command}", exit_on_error=False, allow_abbrev=False, formatter_class=_formatter())
    usage, examples = USAGE[command]
    parser.usage = f"earthtune {usage}"
    parser.epilog = "\n".join([f"example{'s' * (len(examples) > 1)}:", *(f"  earthtune {line}" for line in examples)])
    parser.add_argument("--quiet", action="store_true", help="no progress, no notes")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _group(parser: ArgumentParser, title: str, actions: Iterable[Any]) -> Any:
    group = type(parser._positionals)(parser, title)
    group._group_actions.extend(actions)
    return group


def sections(parser: ArgumentParser) -> dict[str, list[Any]]:
    """The parser's actions by the heading they stand under, in the order of reading."""
    own = {action.dest: str(group.title) for group in parser._action_groups for action in group._group_actions}
    found: dict[str, list[Any]] = {title: [] for title in ("arguments", "options", *HEADINGS)}
    every: list[Any] = []
    recipe = any(action.dest == "config" for action in parser._actions)  # its bands are the model's
    for action in parser._actions:
        if action.help == SUPPRESS or _machinery(action):
            continue
        heading = next((title for title, names in HEADINGS.items() if action.dest in names), "options")
        heading = "options" if recipe and action.dest == "bands" else heading
        heading = "arguments" if not action.option_strings or action.dest == "config" else heading
        heading = f"--{action.dest.split('.')[0]}: {own[action.dest]}" if recipe and "." in action.dest else heading
        (every if action.dest in ("help", "quiet", "json") else found.setdefault(heading, [])).append(action)
    return {title: actions for title, actions in {**found, EVERY: every}.items() if actions}


def _machinery(action: Any) -> bool:
    """Whether it is an option of jsonargparse that no person asks for, such as a file for a part of a recipe."""
    return type(action).__name__ == "_ActionConfigLoad" or "".join(action.option_strings).endswith(".help")


def option_names(parser: ArgumentParser) -> list[str]:
    """Every option as it is typed."""
    shown = [action for actions in sections(parser).values() for action in actions if action.dest != "config"]
    return sorted({name for action in shown for name in action.option_strings if name[:2] == "--" and name[-1] != "+"})


def _formatter() -> type:
    """The formatter's class, made where jsonargparse is wanted."""
    from jsonargparse import DefaultHelpFormatter

    class Help(DefaultHelpFormatter):
        """Says what an option does; its Python type, and that nothing is its default, are noise to a reader."""

        def _get_type_str(self, action: Any) -> None:
            return None

        def _get_help_string(self, action: Any) -> str:
            if action.dest == "print_config":
                return "print the recipe as all options make it, and stop"
            text: str = super()._get_help_string(action)
            if action.default is None or action.default is False or action.default in ([], (), {}):
                text = text.replace(" (default: %(default)s)", "")
            if not action.option_strings or action.dest == "task":  # the usage says so; a recipe holds its task
                text = text.replace(" (required)", "")
            return text.replace(". (", " (").removesuffix(".")

        def _format_action_invocation(self, action: Any) -> str:
            if not action.option_strings or action.dest == "config":
                return str(action.metavar or action.dest).upper()
            name = action.option_strings[0]
            on_or_off = name in SWITCHES and action.default is False
            if on_or_off or action.nargs == 0 or action.dest in ("help", "print_config"):
                return ", ".join(action.option_strings)
            value = self._format_args(action, self._get_default_metavar_for_optional(action))
            return f"{name} {value.replace(',null}', '}')}"

        def _fill_text(self, text: str, width: int, indent: str) -> str:
            """Wrap each paragraph by itself, and leave indented lines, which are examples, as they are."""
            if "\n  " in text:
                return text
            fill = super()._fill_text
            return "\n\n".join(fill(paragraph, width, indent) for paragraph in text.split("\n\n"))

    return Help
