"""Change: a class for each pixel of what happened between two dates or more, the first class where nothing did."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from models.backbones import prithvi_eo
from models.baselines.pixels import fit_baselines
from models.errors import InputError
from models.spec import Classes
from models.types import Array, Inputs
from pipelines.recipes.recipe import SceneRecipe
from pipelines.samples.chips import Chip, Chips
from pipelines.tasks import imagery, segmentation
from pipelines.tasks.task import Teller

YEAR = 365.25  # days
DAYS = "days of the year"


def check(recipe: SceneRecipe) -> None:
    """Refuse what makes a change of the season, or lets a place be in two splits, before a file is opened."""
    imagery.check(recipe)
    data = recipe.data
    if "time" not in prithvi_eo.config(recipe.backbone, **recipe.model.overrides)["coords_encoding"]:
        raise InputError(
            f"backbone {recipe.backbone}: knows no dates, and takes seasons for changes; wanted one that ends in _tl"
        )
    if not (data.groups or data.block_km or data.train):
        raise InputError(
            "data.block_km 0: other pairs of a place tell what happened there, and may fall into another split; give "
            "data.block_km, data.groups or lists"
        )


def prepare(recipe: SceneRecipe) -> Chips:
    """Find the pairs, each with the days of both dates.

    Raises:
        InputError: see `imagery.prepare`; one date, or one whose day is not known.
    """
    samples = imagery.prepare(recipe, Classes(tuple(recipe.classes)))
    pixels, data = samples.spec.imagery, recipe.data
    if pixels.times < 2:
        raise InputError(
            f"{data.root}: one date a place; wanted two or more, as data.images [before/*.tif, after/*.tif]"
        )
    if not pixels.uses_time:
        raise InputError(
            f"{data.root}: the day of a date is not known, and a season looks like a change; files say it as "
            "ACQUISITION_DATE or in their names, and data.dates for all"
        )
    return samples


def days_of(inputs: Inputs) -> Array:
    """Where in the year the dates lie, as sine and cosine, and years from each to the next: (B, 3 T - 1)."""
    year, day = np.moveaxis(np.asarray(inputs["time"], np.float64), 2, 0)  # (B, T) each
    angle = day * (2 * np.pi / YEAR)
    apart = np.diff(year + day / YEAR, axis=1)
    return np.concatenate((np.sin(angle), np.cos(angle), apart), axis=1).astype(np.float32)


def baselines(samples: Chips, chosen: Sequence[Chip], seed: int) -> Mapping[str, Teller]:
    """The baselines of segmentation, which know the days too, and what these alone tell: that is no change seen."""
    pairs = ((samples.item(chip), samples.truth(chip)) for chip in chosen)
    answer, pixels = samples.spec.answer, samples.spec.imagery
    models = dict(fit_baselines(answer, pixels, pairs, count=len(chosen), seed=seed, beside={DAYS: days_of}))
    del models[f"boosting on imagery, {DAYS}"]  # neighbourhoods hold them already
    return {name: imagery.teller(predict) for name, predict in models.items()}


def facts(samples: Chips) -> Mapping[str, str]:
    """What a report tells of the data: pairs without a change, and how far apart in the year the dates are."""
    chips = samples.of("train", "val", "test")
    same = sum(not (samples.truth(chip) > 0).any() for chip in chips)
    days = np.concatenate([samples.reader.scene(chip).time()[None, :, 1] for chip in chips])
    apart = np.abs(days - days[:, :1]).max(axis=1)
    season = np.minimum(apart, YEAR - apart)
    told = f"{season.min():.0f} to {season.max():.0f} days of the year apart"
    return {**imagery.facts(samples), "Pairs": f"{len(chips)}, {same} of them without a change; {told}"}


TASK = dataclasses.replace(
    segmentation.TASK,
    name="change",
    unused=tuple(name for name in segmentation.TASK.unused if name != "data.unchanged"),
    summary="Fine-tune a Prithvi backbone on dated pairs of images, a class of change a pixel, and write a run folder.",
    check=check,
    prepare=prepare,
    baselines=baselines,
    facts=facts,
)
