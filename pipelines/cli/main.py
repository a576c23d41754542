"""The commands, from the functions' signatures and docstrings."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib import import_module
from inspect import cleandoc
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import UNEXPECTED, EarthtuneError, InputError, RunError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

RECIPES = Path(__file__).parents[1] / "recipes"

HELP = """usage: earthtune COMMAND [ARGUMENTS]      (earthtune COMMAND --help tells them)

Fine-tune Prithvi geospatial foundation models and turn scenes into maps.

commands:
  finetune RECIPE            train on labelled scenes; writes a run folder
  evaluate RUN               scores and report.html, on the test split or others
  score RUN SCENE ...        a GeoTIFF map of each new scene
  embed BACKBONE SCENE       patch tokens of a scene as a raster
  forecast BACKBONE FILE ... Prithvi WxC rolled forward from MERRA-2 files
  seasonal FILE ...          chances of a season's terciles, and their skill
  inspect PATH               what is in a file, and whether a run can eat it
  backbones                  names, sizes, licences, and what is in the cache
  demo                       sample data to a map and a picture, in some minutes
  completion bash            a script with which the shell completes all this

every command takes --quiet (no progress, no notes) and --json (the result for
a program to read).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code: 0 done, 1 failed on the way, 2 the input has to change."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    # Threads that spin while they wait make training ten times slower as soon as anything else wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not args or args[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0 if args else 2
    if args[0] == "--version":
        from importlib.metadata import version

        print(f"earthtune {version('earthtune')}")
        return 0
    try:
        return _run(args[0], args[1:])
    except EarthtuneError as error:
        print(f"earthtune: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        resumes = {"score": "; the same command goes on from here", "finetune": "; --resume goes on from here"}
        print(f"earthtune: stopped{resumes.get(args[0], '')}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - whoever read the output has gone; say nothing more
        return 1
    except UNEXPECTED as error:
        if os.environ.get("EARTHTUNE_DEBUG"):
            raise
        line = _one_line(str(error)) or "no message"
        print(
            f"earthtune: unexpected {type(error).__name__}: {line}; EARTHTUNE_DEBUG=1 shows where; please report it",
            file=sys.stderr,
        )
        return 1
    except OSError as error:
        print(f"earthtune: {error}; make space or give another folder, then run the same command", file=sys.stderr)
        return 1


def _run(command: str, args: list[str]) -> int:
    if command not in COMMANDS:
        raise InputError(f"{command!r} is no command; wanted one of {', '.join(COMMANDS)}")
    from jsonargparse import ArgumentError

    from pipelines.cli.options import switches
    from pipelines.recipes.recipe import load_recipe

    args = _recipe_first(args) if command == "finetune" else args
    parser, run = parser_of(command, args)
    try:
        options = parser.parse_args(switches(args))
    except ArgumentError as error:
        if command == "finetune" and args[:1] == ["--config"]:
            load_recipe(Path(args[1]))  # names the file, where the recipe itself is wrong
        raise InputError(_one_line(str(error)) + f" (earthtune {command} --help)") from error
    _quieten(options.quiet)
    result, text, code = run(parser, options)
    if result or text:
        print(json.dumps(result, indent=1) if options.json else text)
    return code


def parser_of(command: str, args: Sequence[str]) -> tuple[ArgumentParser, Run]:
    """The command's parser, and what carries it out; fine-tuning by a recipe over weather has options of its own."""
    from models.bundle import WEATHER
    from pipelines.cli.options import make_parser
    from pipelines.recipes.recipe import task_of

    recipe = next((Path(path) for flag, path in pairwise(args) if flag == "--config"), None)
    task = task_of(recipe) if command == "finetune" and recipe is not None else None
    add, run = (partial(_add_weather, task), partial(_weather, task)) if task in WEATHER else COMMANDS[command]
    parser = make_parser(command)
    add(parser)
    return parser, run


def _one_line(text: str) -> str:
    """A parser's message without its line breaks."""
    return " ".join(text.split())


def _quieten(quiet: bool) -> None:
    """Libraries speak up only when something is wrong; progress and results are ours."""
    import logging
    import warnings

    for name in (
        "lightning.pytorch",
        "lightning.fabric",
        "lightning",
        "torch.onnx",
        "rasterio",
        "httpx2",
        "terratorch",
    ):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    os.environ.setdefault("TQDM_DISABLE", "1" if quiet or not sys.stderr.isatty() else "0")


def _speech(options: Namespace) -> Callable[[str], None]:
    return (lambda line: None) if options.quiet else lambda line: print(line, file=sys.stderr)


def _progress(options: Namespace) -> Callable[[Iterable[Any], str], Iterable[Any]] | None:
    """A progress bar on the error stream, none when that is not a terminal."""
    if options.quiet or not sys.stderr.isatty():
        return None
    from rich.console import Console
    from rich.progress import track

    return lambda items, what: track(items, what, console=Console(stderr=True))


def _voice(options: Namespace) -> dict[str, Any]:
    return {"say": _speech(options), "progress": _progress(options)}


def _plain(options: Namespace, *without: str) -> dict[str, Any]:
    """Arguments of a function from parsed options."""
    left = {"quiet", "json", "config", *without}
    return {key: value for key, value in options.as_dict().items() if key not in left}


def _told(function: Callable[..., Any]) -> str:
    """What a function does, from its docstring: a line, and paragraphs where there are any."""
    return cleandoc(function.__doc__ or "").split("\n\nArgs:")[0]


def _add_function(parser: ArgumentParser, target: str, *skip: str) -> None:
    """Options from a function's signature and docstring; what has no default comes by position."""
    module, _, name = target.partition(":")
    function = getattr(import_module(module), name)
    parser.description = _told(function)
    parser.add_function_arguments(function, skip={"progress", "say", *skip}, as_positional=True)


def _recipe_first(args: list[str]) -> list[str]:
    """`finetune RECIPE ...`: the recipe is a file, or the name of one that comes with earthtune."""
    names = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
    if not args:
        raise InputError(f"finetune wants a recipe first: a YAML file, or one that comes with earthtune ({names})")
    if args[0].startswith("-"):
        return args
    shipped = RECIPES / f"{args[0]}.yaml"
    path = shipped if shipped.is_file() and not Path(args[0]).is_file() else Path(args[0])
    if not path.is_file():
        raise InputError(f"{args[0]}: no such recipe file, nor one that comes with earthtune ({names})")
    return ["--config", str(path), *args[1:]]


def _add_finetune(parser: ArgumentParser) -> None:
    from pipelines.recipes.recipe import Recipe

    _add_recipe(parser, Recipe, "Fine-tune a Prithvi backbone on labelled images and write a run folder.")


def _add_recipe(parser: ArgumentParser, kind: type, summary: str) -> None:
    """A recipe, its keys as options, and how the run is carried out."""
    names = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
    parser.description = f"{summary}\n\nEach key of a recipe is an option, too."
    told = f"a YAML file, or the name of a recipe that comes with earthtune: {names}"
    parser.add_argument("--config", action="config", metavar="RECIPE", help=told)
    parser.add_class_arguments(kind, as_group=False, fail_untyped=False)
    _add_launch(parser)


def _add_launch(parser: ArgumentParser) -> None:
    """Options of how a run is carried out."""
    parser.add_argument("--out", type=Path | None, default=None, help="the run folder (default: runs/RECIPE)")
    parser.add_argument("--devices", type=str, default="1", help="how many devices, or auto for all")
    parser.add_argument("--strategy", type=str, default="auto", help="strategy, as Lightning takes it: auto, ddp, fsdp")
    parser.add_argument("--resume", type=bool, default=False, help="go on with a run that was cut off")
    parser.add_argument("--overwrite", type=bool, default=False, help="replace a run folder that exists")


def _add_weather(task: str, parser: ArgumentParser) -> None:
    from pipelines.recipes.weather import RECIPES_BY_TASK

    what = {"rain": "rain from weather fields", "downscale": "a coarse weather field onto finer cells"}[task]
    _add_recipe(parser, RECIPES_BY_TASK[task], f"Train {what} and write a run folder.")


def _finetune(parser: ArgumentParser, options: Namespace) -> tuple[Any, str, int]:
    from pipelines.commands.finetune import finetune
    from pipelines.recipes.recipe import Recipe

    return _trained(parser, options, Recipe, finetune)


def _weather(task: str, parser: ArgumentParser, options: Namespace) -> tuple[Any, str, int]:
    from pipelines.recipes.weather import RECIPES_BY_TASK
    from pipelines.runs.weather import finetune_weather

    return _trained(parser, options, RECIPES_BY_TASK[task], finetune_weather)


def _trained(
    parser: ArgumentParser, options: Namespace, kind: Any, train: Callable[..., dict[str, Any]]
) -> tuple[Any, str, int]:
    """Train by a recipe of some kind."""
    from pipelines.runs.folder import Launch

    names = [Path(str(path)).stem for path in options.config or []]
    name = names[0] if names else "run"
    launch_keys = ("devices", "strategy", "resume", "overwrite")
    built = parser.instantiate(options)
    recipe = kind(**{f: built[f] for f in kind.__dataclass_fields__})
    launch = Launch(**{key: options[key] for key in launch_keys}, **_voice(options))
    out = options.out or Path("runs") / name
    result = train(recipe, out, launch=launch, name=name)
    if not result:
        return result, "", 0  # another process of a distributed run tells
    lines = [result.get("headline", ""), f"run: {out}", f"report: {out / 'report.html'}"]
    return result, "\n".join(line for line in lines if line), 0


def _add_evaluate(parser: ArgumentParser) -> None:
    _add_function(parser, "pipelines.commands.evaluate:evaluate", "data_root")
    parser.add_argument("--data.root", type=Path | None, default=None, help="another folder of labelled images")


def _evaluate(_: ArgumentParser, options: Namespace) -> tuple[Any, str, int]:
    from pipelines.commands.evaluate import evaluate

    root = options.data.root
    result = evaluate(**_plain(options, "data"), data_root=root, progress=_progress(options))
    out = options.out or options.run
    return result, f"{result['headline']}\nreport: {out / 'report.html'}", 0


def _add_score(parser: ArgumentParser) -> None:
    from pipelines.commands.score import score

    parser.description = _told(score)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("scenes", nargs="+", type=str, help="rasters, folders of band files or STAC items")
    parser.add_function_arguments(score, skip={"run", "scenes", "progress", "say"})


def _score(_: ArgumentParser, options: Namespace) -> tuple[Any, str, int]:
    from pipelines.commands.score import score

    results = score(**_plain(options), **_voice(options))
    if len(results) == 1 and results[0]["status"] == "failed" and not options.json:
        kind = InputError if results[0]["exit_code"] == InputError.exit_code else RunError
        raise kind(results[0]["error"])
    lines = [_outcome(result) for result in results]
    counts = {status: sum(r["status"] == status for r in results) for status in ("done", "kept", "partial", "failed")}
    if len(results) > 1:
        lines.append(", ".join(f"{count} {status}" for status, count in counts.items() if count))
    return results, "\n".join(lines), max((r.get("exit_code", 0) for r in results), default=0)


def _outcome(result: Mapping[str, Any]) -> str:
    """What became of a scene, on one line."""
    if result["status"] == "failed":
        return f"failed   {result['error']}"
    if result["status"] == "partial":
        return f"partial  {result['scene']}: its other rows are for other shards"
    seconds = f", {result['seconds']:.1f} s" if "seconds" in result else ""
    return f"{result['status']:<8} {result['map']}  ({result['valid']:.1%} of the pixels mapped{seconds})"


def _add_embed(parser: ArgumentParser) -> None:
    _add_function(parser, "pipelines.embeddings.embed:embed")


def _embed(_: ArgumentParser, options: Namespace) -> tuple[Any, str, int]:
    from pipelines.embeddings.embed import embed

    result = embed(**_plain(options), **_voice(options))
    rows, columns = result["tokens"]
    return result, f"{result['file']}: {rows} x {columns} tokens of {result['features']} features", 0


def _add_forecast(parser: ArgumentParser) -> None:
    from pipelines.forecasts.forecast import forecast

    parser.description = _told(forecast)
    parser.add_argument("backbone", type=str, help="prithvi_wxc_2300m_rollout, or another Prithvi WxC")
    parser.add_argument("analyses", nargs="+", type=Path, help="MERRA-2 files")
    parser.add_function_arguments(forecast, skip={"backbone", "analyses", "verify", "progress", "say"})
    parser.add_argument(
        "--verify", nargs="+", type=Path, help="MERRA-2 files of later times to score the forecast with"
    )


def _forecast(_: ArgumentParser, options: Namespace) -> tuple[Any, str, int]:
    from pipelines.forecasts.forecast import forecast
    from pipelines.forecasts.verification import table

    result = forecast(**_plain(options), **_voice(options))
    lines = [f"{len(result['files'])} steps from {result['start']}: {result['series']}", table(result["verification"])]
    return result, "\n".join(line for line in lines if line), 0


def _add_seasonal(parser: ArgumentParser) -> None:
    from pipelines.forecasts.seasonal import seasonal

    parser.description = _told(seasonal)
    parser.add_argument("files", nargs="+", type=Path, help="weather files of many years, monthly or finer")
    parser.add_function_arguments(seasonal, skip={"files", "predictors", "progress", "say"})
    parser.add_argument("--predictors", nargs="+", type=Path, help="files of other fields to predict from")


def _seasonal(_: ArgumentParser, options: Namespace) -> tuple[Any, str, int]:
    from pipelines.forecasts.seasonal import seasonal
    from pipelines.forecasts.seasonal_skill import table

    result = seasonal(**_plain(options), **_voice(options))
    lines = [result["headline"], table(result), f"map: {result['map']}", f"picture: {result['picture']}"]
    return result, "\n".join(line for line in lines if line), 0


def _add_inspect(parser: ArgumentParser) -> None:
    from pipelines.inspection.inspect import inspect

    parser.description = _told(inspect)
    parser.add_argument("path", type=str, help="raster, folder of band files or of scenes, STAC item or weather file")
    parser.add_function_arguments(inspect, skip={"path", "for_run"})
    parser.add_argument("--for", type=Path | None, default=None, metavar="RUN", help="a run whose model is to read it")


def _inspect(_: ArgumentParser, options: Namespace) -> tuple[Any, str, int]:
    from pipelines.inspection.inspect import format_text, inspect

    result = inspect(**_plain(options, "for"), for_run=options["for"])
    return result.to_json(), format_text(result), 0 if result.ok else 2


def _add_backbones(parser: ArgumentParser) -> None:
    parser.description = (
        "List the backbones: name, parameters, where the weights are published, and what is in the cache."
    )


def _backbones(_: ArgumentParser, __: Namespace) -> tuple[Any, str, int]:
    from models.backbones.catalogue import VARIANTS, WXC_VARIANTS
    from models.backbones.hub import cached

    rows = []
    for name, variant in {**VARIANTS, **WXC_VARIANTS}.items():
        path = cached(variant.repo, variant.file) if variant.repo and variant.file else None
        rows.append(
            {
                "name": name,
                "million_parameters": variant.parameters,
                "repository": variant.repo,
                "licence": variant.licence,
                "cached": str(path) if path else None,
            }
        )
    lines = [f"{'name':<26}{'parameters':>11}  {'licence':<20}{'in cache':<9} weights"]
    lines += [
        f"{r['name']:<26}{r['million_parameters']:>9.1f} M  {r['licence'] or '-':<20}"
        f"{'yes' if r['cached'] else 'no':<9} {r['repository'] or 'none published (--weights random)'}"
        for r in rows
    ]
    return rows, "\n".join(lines), 0


def _add_demo(parser: ArgumentParser) -> None:
    _add_function(parser, "pipelines.commands.demo:demo")


def _demo(_: ArgumentParser, options: Namespace) -> tuple[Any, str, int]:
    from pipelines.commands.demo import demo

    result = demo(**_plain(options), **_voice(options))
    text = f"{result['headline']}\nmap: {result['map']}\npicture: {result['picture']}\nreport: {result['report']}"
    return result, text, 0


def _add_completion(parser: ArgumentParser) -> None:
    parser.description = "Print a script with which bash completes commands, options, recipes and backbones."
    parser.add_argument("shell", choices=("bash",), help="bash")


def _completion(_: ArgumentParser, __: Namespace) -> tuple[Any, str, int]:
    from models.backbones.catalogue import VARIANTS, WXC_VARIANTS
    from models.bundle import WEATHER
    from pipelines.cli.completion import script
    from pipelines.cli.options import option_names
    from pipelines.recipes.recipe import task_of

    recipes = sorted(path.stem for path in RECIPES.glob("*.yaml"))
    names = {"finetune": recipes, "embed": [*VARIANTS], "forecast": [*WXC_VARIANTS], "completion": ["bash"]}
    by_task = {task_of(path): path for path in RECIPES.glob("*.yaml")}
    words = {command: [*option_names(parser_of(command, [])[0]), *names.get(command, ())] for command in COMMANDS}
    for task in WEATHER:
        own = option_names(parser_of("finetune", ["--config", str(by_task[task])])[0])
        words["finetune"] = sorted({*words["finetune"], *own})
    text = script(words)
    return {"script": text}, text, 0


Run = Callable[["ArgumentParser", "Namespace"], tuple[Any, str, int]]
COMMANDS: Mapping[str, tuple[Callable[[ArgumentParser], None], Run]] = {
    "finetune": (_add_finetune, _finetune),
    "evaluate": (_add_evaluate, _evaluate),
    "score": (_add_score, _score),
    "embed": (_add_embed, _embed),
    "forecast": (_add_forecast, _forecast),
    "seasonal": (_add_seasonal, _seasonal),
    "inspect": (_add_inspect, _inspect),
    "backbones": (_add_backbones, _backbones),
    "demo": (_add_demo, _demo),
    "completion": (_add_completion, _completion),
}


if __name__ == "__main__":
    sys.exit(main())
