"""The one table of commands; parser, help, completion and what a test checks of the README follow from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        help: what it does, in a line.
        usage: how it is called, after its name.
        function: "module:function" that is called; its signature and docstring are the options. It is imported when
            the command is run, and `told` of the same module makes the `Outcome` of what it returns.
        examples: what somebody types.
        resumes: how to go on after ctrl-C.
        spelled: options that are not spelled as the parameter is.
        several: options that take all words that follow.
    """

    help: str
    usage: str
    function: str
    examples: tuple[str, ...]
    resumes: str = ""
    spelled: Mapping[str, str] = field(default_factory=dict)
    several: tuple[str, ...] = ()

    @property
    def of_recipe(self) -> bool:
        """Whether it takes a recipe, each of whose keys is an option."""
        return self.usage.startswith("RECIPE")

    @property
    def takes(self) -> str:
        """What comes by position: RUN SCENE ..."""
        return re.sub(r"\[\w+ \.\.\.\]", "...", re.split(r" ?\[?--", self.usage)[0])


COMMANDS: Mapping[str, Command] = {
    "finetune": Command(
        "train on labelled scenes; writes a run folder",
        "RECIPE [--data.root DIR] [--out RUN] [--resume] ...",
        "pipelines.commands.finetune:train",
        (
            "finetune landuse --data.root chips --out runs/landuse",
            "finetune landuse --training.epochs 20 --print_config",
        ),
        resumes="--resume goes on from here",
    ),
    "plan": Command(
        "tell what a training will take: memory, time, energy",
        "RECIPE [--data.root DIR] [--devices N] ...",
        "pipelines.commands.plan:plan",
        ("plan landuse --data.root chips", "plan landuse --backbone prithvi_eo_v2_600_tl --mode full --devices 4"),
    ),
    "pretrain": Command(
        "go on with pretraining on scenes without labels",
        "SCENE [SCENE ...] --out DIR [--resume] ...",
        "pipelines.commands.pretrain:pretrain",
        (
            "pretrain 'scenes/*.tif' --out pretrained",
            "pretrain 'chips/*_hls.tif' --weights random --epochs 30 --out own",
        ),
        resumes="--resume goes on from here",
    ),
    "distil": Command(
        "make a small student of a run",
        "RUN --out STUDENT [--size tiny] [--resume] ...",
        "pipelines.commands.distil:distil",
        (
            "distil runs/landuse --out runs/small",
            "distil runs/landuse --size tiny --unlabelled 'b/*.tif' --out tiny",
        ),
        resumes="--resume goes on from here",
        several=("unlabelled",),
    ),
    "evaluate": Command(
        "scores and report.html, on the test split or others",
        "RUN [--data.root DIR] [--out DIR] ...",
        "pipelines.commands.evaluate:evaluate",
        ("evaluate runs/landuse --data.root other_chips --out elsewhere",),
        spelled={"data_root": "data.root"},
    ),
    "score": Command(
        "a GeoTIFF map of each new scene",
        "RUN SCENE [SCENE ...] --out DIR ...",
        "pipelines.commands.score:score",
        (
            "score runs/landuse new.tif --out maps",
            "score runs/landuse 'scenes/*.tif' --out maps --probabilities",
            "score hf://org/landuse@main new.tif --out maps",
        ),
        resumes="the same command goes on from here",
    ),
    "search": Command(
        "try a recipe with other settings: which are better?",
        "RECIPE --out DIR [--trials N] [--seeds K] ...",
        "pipelines.commands.search:search",
        (
            "search landuse --data.root chips --trials 30 --out tried",
            "search landuse --data.root b --space s.yaml --seeds 5 --out tried",
        ),
        resumes="the same command goes on from here",
    ),
    "composite": Command(
        "one clear picture a month of scenes of a place",
        "SCENE [SCENE ...] --out DIR [--by month] ...",
        "pipelines.commands.composite:composite",
        (
            "composite scenes --out months --aoi county.geojson",
            "composite 'hls/*' --by season --for runs/crops --out seasons",
        ),
        resumes="the same command goes on from here",
        spelled={"for_run": "for"},
    ),
    "changes": Command(
        "what changed in a place, since when, and what did so alone",
        "SCENE [SCENE ...] --out DIR --since DAY [--update] ...",
        "pipelines.commands.changes:changes",
        (
            "changes 'hls/*' --since 2024-01-01 --out watched",
            "changes 'hls/*' --update --out watched",
        ),
        resumes="the same command goes on from here",
    ),
    "mosaic": Command(
        "join maps of overlapping ground into one",
        "MAP [MAP ...] --out FILE [--aoi FILE] ...",
        "pipelines.commands.mosaic:mosaic",
        (
            "mosaic maps --out county_map.tif --aoi county.geojson",
            "mosaic maps --out july_map.tif --date 2024-07-15 --crs EPSG:3035",
        ),
        resumes="the same command goes on from here",
    ),
    "sample": Command(
        "draw points of maps, to be labelled",
        "MAP [MAP ...] --out FILE [--n 500] ...",
        "pipelines.commands.sample:sample",
        (
            "sample maps/new_map.tif --n 500 --out points.gpkg",
            "sample map.tif --strata areas.gpkg --strata_column id --out p.gpkg",
        ),
    ),
    "areas": Command(
        "hectares with intervals, from labelled points",
        "SAMPLE [--out FILE] ...",
        "pipelines.commands.areas:areas",
        ("areas points.gpkg", "areas points.gpkg --out areas.csv --figure areas.png"),
    ),
    "review": Command(
        "look at a map's doubtful regions, or label points",
        "MAP [--scene FILE] [--no_page] ...",
        "pipelines.commands.review:review",
        ("review maps/new_map.tif", "review maps/new_map.tif --no_page", "review points.gpkg --scene new.tif"),
        resumes="all answers are kept; the same command goes on from here",
    ),
    "edge": Command(
        "a page that maps in a browser, with no network",
        "RUN --out DIR [--scene FILE] ...",
        "pipelines.commands.edge:edge",
        ("edge runs/landuse --out site --scene new.tif",),
    ),
    "int8": Command(
        "a run's model in bytes: a third of the size, faster",
        "RUN [--data.root DIR]",
        "pipelines.commands.int8:int8",
        ("int8 runs/landuse",),
        spelled={"data_root": "data.root"},
    ),
    "publish": Command(
        "a run on the Hugging Face Hub, with card and licence",
        "RUN ORG/NAME [--adapter_only] [--dry_run] ...",
        "pipelines.commands.publish:publish",
        (
            "publish runs/landuse org/landuse --dry_run",
            "publish runs/lora org/landuse-lora --adapter_only --private",
        ),
    ),
    "pull": Command(
        "a published run, or a model of terratorch, as a run folder",
        "ORG/NAME[@REVISION]|CHECKPOINT --out RUN [--yaml FILE]",
        "pipelines.commands.pull:pull",
        (
            "pull org/landuse@v2 --out runs/theirs",
            "pull burns.ckpt --yaml burns.yaml --out runs/burns",
        ),
        resumes="the same command goes on from here",
    ),
    "embed": Command(
        "patch tokens of scenes as rasters",
        "BACKBONE SCENE [SCENE ...] --out DIR|FILE ...",
        "pipelines.commands.embed:embed",
        (
            "embed prithvi_eo_v2_300_tl scene.tif --out tokens.tif",
            "embed prithvi_eo_v2_300_tl 'scenes/*.tif' --out tokens --dtype int8",
        ),
        resumes="the same command goes on from here",
    ),
    "points": Command(
        "a map from a few labelled points or polygons",
        "SCENE LABELS [LABELS ...] --out FILE ...",
        "pipelines.commands.points:points",
        (
            "points scene.tif labels.csv --out map.tif",
            "points scene.tif labels.csv map_next.geojson --out better.tif",
        ),
    ),
    "forecast": Command(
        "Prithvi WxC rolled forward from MERRA-2 files",
        "BACKBONE FILE [FILE ...] --out DIR [--steps N] ...",
        "pipelines.commands.forecast:forecast",
        ("forecast prithvi_wxc_2300m_rollout merra2/*.nc4 --out fc --steps 8",),
        several=("verify",),
    ),
    "encode": Command(
        "Prithvi WxC's tokens of MERRA-2 files as a weather file",
        "BACKBONE FILE [FILE ...] --out FILE [--every HOURS] ...",
        "pipelines.commands.encode:encode",
        (
            "encode prithvi_wxc_2300m merra2/*.nc4 --out tokens.nc --every 12",
            "encode prithvi_wxc_2300m new/*.nc4 --out new.nc --like tokens.nc",
        ),
    ),
    "seasonal": Command(
        "chances of a season's terciles, and their skill",
        "FILE [FILE ...] --target NAME --season DJF --out DIR",
        "pipelines.commands.seasonal:seasonal",
        ("seasonal era5_monthly.nc --target pr --season DJF --out winter",),
        several=("predictors",),
    ),
    "fetch": Command(
        "scenes or weather of a place and a period",
        "--place PLACE --dates FROM/TO --product NAME --out DIR",
        "pipelines.commands.fetch:fetch",
        (
            "fetch --place 45.9,7.7,5 --dates 2024-06 --product s2 --out new",
            "fetch --place a.gpkg --dates 2024 --product hls --out new --dry_run",
        ),
        resumes="the same command goes on from here",
    ),
    "label": Command(
        "energy, CO2e and water of runs and maps",
        "PATH [PATH ...] [--country CODE] [--picture FILE]",
        "pipelines.commands.label:label",
        ("label runs/landuse maps", "label runs/large runs/small --country FRA --picture worth.png"),
    ),
    "inspect": Command(
        "what is in a file, and whether a run can eat it",
        "PATH [--for RUN] ...",
        "pipelines.commands.inspect:inspect",
        ("inspect scene.tif", "inspect new.tif --for runs/landuse"),
        spelled={"for_run": "for"},
    ),
    "backbones": Command(
        "names, sizes, licences, and what is in the cache", "", "pipelines.commands.backbones:backbones", ("backbones",)
    ),
    "demo": Command(
        "sample data to a map and a picture, in some minutes",
        "[--out DIR] ...",
        "pipelines.commands.demo:demo",
        ("demo --out demo",),
    ),
    "completion": Command(
        "a script with which the shell completes all this",
        "SHELL",
        "pipelines.cli.completion:completion",
        ("completion bash > earthtune.bash",),
    ),
}
