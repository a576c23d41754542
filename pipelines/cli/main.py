"""earthtune, the command: what is typed, what is printed, and one place where errors end."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from models.errors import InputError, explained, shown
from models.runtime import silence as silence  # before any library that it keeps quiet
from pipelines.cli.table import COMMANDS

HELP = """usage: earthtune COMMAND [ARGUMENTS]      (earthtune COMMAND --help tells them)

Fine-tune Prithvi geospatial foundation models and turn scenes into maps.

commands:
{commands}

every command takes --quiet (no progress, no notes), --json (the result for
a program to read) and --debug (where an error came from).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code: 0 done, 1 failed on the way, 2 the input has to change."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    # Threads that spin while they wait make training ten times slower as soon as anything else wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not args or args[0] in ("-h", "--help", "help"):
        called = {name: f"{name} {command.takes}" for name, command in COMMANDS.items()}
        lines = (f"  {called[name]:<27}{command.help}" for name, command in COMMANDS.items())
        print(HELP.format(commands="\n".join(lines)), end="")
        return 0 if args else 2
    if args[0] == "--version":
        from importlib.metadata import version

        print(f"earthtune {version('earthtune')}")
        return 0
    try:
        return _run(args[0], args[1:])
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - whoever read the output has gone; say nothing more
        return 1
    except (Exception, KeyboardInterrupt) as error:  # the one place where errors of any kind end
        if "--debug" in args:
            traceback.print_exc()
        line, code = explained(error)
        if isinstance(error, KeyboardInterrupt):
            line, code = f"stopped; {COMMANDS[args[0]].resumes}".removesuffix("; "), 130
        print(f"earthtune: {line}", file=sys.stderr)
        return code


def _run(name: str, words: list[str]) -> int:
    """Import a command's function, call it with what was said, and print what it ends in."""
    if name not in COMMANDS:
        raise InputError(f"{name!r} is no command; wanted one of {', '.join(COMMANDS)}")
    from pipelines.cli.options import call_of, recipe_path, respelled, with_folders
    from pipelines.cli.parser import FLAGS, make_parser
    from pipelines.records.energy import Meter
    from pipelines.records.label import line

    recipe = recipe_path(words) if COMMANDS[name].of_recipe else None
    call = call_of(COMMANDS[name], recipe)
    flags = (*FLAGS, "--help", *(["--print_config"] if call.recipe else []))
    typed = vars(make_parser(name, call).parse_args(respelled(words, call.options, flags)))
    _quieten(typed["quiet"])
    voice = {
        "progress": _progress(typed["quiet"]),
        "say": (lambda line: None) if typed["quiet"] else lambda line: print(shown(line), file=sys.stderr),
        "debug": typed["debug"],
        "meter": Meter(whole=True),
    }
    typed = with_folders(typed, call.options, voice["say"])
    said = {option.name: option.value(typed[option.name]) for option in call.options if option.name in typed}
    if call.recipe and recipe:
        said[call.recipe], voice["name"] = recipe, recipe.stem
    arguments = call.arguments(said, voice)
    if "print_config" in typed:
        from pipelines.recipes.reading import dump

        print(dump(arguments[str(call.recipe)]), end="")
        return 0
    outcome = call.told(call.function(**arguments), said | {"json": typed["json"]})
    spent = voice["meter"].label
    if outcome.result or outcome.text:
        result = outcome.result | {"energy": spent} if spent and isinstance(outcome.result, dict) else outcome.result
        print(json.dumps(_shown(result), indent=1) if typed["json"] else shown(outcome.text))
    if spent:
        voice["say"](line(spent))
    return int(outcome.code)


def _shown(result: Any) -> Any:
    """Plain data with each text in it fit to be shown."""
    if isinstance(result, dict):
        return {_shown(key): _shown(value) for key, value in result.items()}
    if isinstance(result, list | tuple):
        return [_shown(value) for value in result]
    return shown(result) if isinstance(result, str) else result


def _quieten(quiet: bool) -> None:
    """Libraries speak up only when something is wrong; progress and results are ours."""
    import logging
    import warnings

    lightning = ("lightning", "lightning.pytorch", "lightning.fabric")
    for name in (*lightning, "torch.onnx", "rasterio", "httpx2", "terratorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    os.environ.setdefault("TQDM_DISABLE", "1" if quiet or not sys.stderr.isatty() else "0")


def _progress(quiet: bool) -> Callable[[Iterable[Any], str], Iterable[Any]] | None:
    """A progress bar on the error stream, none when that is not a terminal."""
    if quiet or not sys.stderr.isatty():
        return None
    from rich.console import Console
    from rich.progress import track

    return lambda items, what: track(items, what, console=Console(stderr=True))
