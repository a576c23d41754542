"""Fused: classes or values of scenes from imagery, and from the weather before it, where that helps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from models.baselines.pixels import fit_baselines
from models.errors import InputError
from models.networks.fusion import pooled, spans
from models.spec import CONTEXT, STATIC, WEATHER, Answer, Classes, Spec, Target, Values, valid_of
from models.training.losses import CLASS_LOSSES, VALUE_LOSSES
from models.types import Array, Inputs
from pipelines.recipes.fused import FusedData, FusedRecipe
from pipelines.samples.chips import Chip
from pipelines.samples.fused import FusedChips
from pipelines.tasks import imagery
from pipelines.tasks.task import Task, Teller


def _answer(recipe: FusedRecipe) -> Answer:
    """Values where the recipe has a target; classes of pixels where there are labels, else of tiles."""
    if recipe.target is not None:
        target = recipe.target or Target()
        return Values(target.name, target.unit)
    return Classes(tuple(recipe.classes), "pixel" if recipe.data.labels else "tile")


def check(recipe: FusedRecipe) -> None:
    """Refuse what no training takes before a file is opened."""
    imagery.check(recipe)
    if not recipe.data.weather.files:
        raise InputError("data.weather.files: wanted weather files or addresses; none was given")
    if recipe.distil is not None and recipe.distil.unlabelled:
        raise InputError(
            "--unlabelled: for runs over imagery alone; a student of this one learns from the labelled samples"
        )


def prepare(recipe: FusedRecipe) -> FusedChips:
    """Find the chips and join the weather to them.

    Raises:
        InputError: see `imagery.prepare` and `FusedChips.beside_weather`.
    """
    samples = FusedChips.beside_weather(imagery.prepare(recipe, _answer(recipe)), recipe.data)
    samples.spec = fitted(samples, ("train",))
    return samples


def fitted(samples: FusedChips, splits: Sequence[str]) -> Spec:
    """The Spec with the statistics of some splits."""
    spec = imagery.fitted(samples, splits)
    return dataclasses.replace(spec, inputs={**spec.inputs, **samples.fitted(splits)})


def reopen(spec: Spec, data: FusedData) -> FusedChips:
    """The labelled chips of a folder for a trained model, with their weather, in no split.

    Raises:
        InputError: see `imagery.reopen` and `FusedChips.beside_weather`.
    """
    plain = dataclasses.replace(spec, inputs={k: v for k, v in spec.inputs.items() if k not in spec.series})
    samples = FusedChips.beside_weather(imagery.reopen(plain, data), data)
    samples.spec = spec
    return samples


def told_of(inputs: Inputs, names: Sequence[str]) -> Array:
    """Means over `fusion.spans` of series, in one row a sample: (B, F)."""
    from torch import from_numpy

    rows = []
    for name in names:
        x, valid = (from_numpy(np.asarray(inputs[key], np.float32)) for key in (name, valid_of(name)))
        rows.append(pooled(spans(x.shape[1]), x, valid)[0].flatten(1).numpy())
    return np.concatenate(rows, axis=1)


def baselines(samples: FusedChips, chosen: Sequence[Chip], seed: int) -> Mapping[str, Teller]:
    """The baselines of the imagery, alike with season and place, and with the weather; and of these without imagery."""
    place = [name for name in (CONTEXT, STATIC) if name in samples.spec.series]
    beside = {"season": lambda i: told_of(i, place), "season, weather": lambda i: told_of(i, [*place, WEATHER])}
    pairs = ((samples.item(chip), samples.truth(chip)) for chip in chosen)
    models = fit_baselines(
        samples.spec.answer, samples.spec.imagery, pairs, count=len(chosen), seed=seed, beside=beside
    )
    return {name: imagery.teller(predict) for name, predict in models.items()}


TASK = Task(
    "fused",
    "Fine-tune a network over images and the weather before them, and write a run folder.",
    FusedRecipe,
    ("frozen", "lora"),
    ("data.corrections", "data.unchanged"),
    least=2,
    losses=tuple(dict.fromkeys((*CLASS_LOSSES, *VALUE_LOSSES))),
    packages=("terratorch",),
    check=check,
    prepare=prepare,
    fitted=fitted,
    reopen=reopen,
    unlabelled=None,
    objective=imagery.objective,
    teller=imagery.teller,
    baselines=baselines,
    judge=imagery.judge,
    facts=imagery.facts,
)
