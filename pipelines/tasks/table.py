"""Table: classes or values of samples from rows of a CSV file, and from the weather where that helps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np

from models.baselines.tables import fit_forests
from models.errors import InputError
from models.networks.tables import TableNetwork
from models.spec import CONTEXT, IMAGERY, WEATHER, Answer, Classes, Series, Spec, Target, Values
from models.training.losses import CLASS_LOSSES, VALUE_LOSSES
from models.training.objectives import Tabled
from models.types import Array, Progress
from pipelines.recipes.recipe import check_ranges
from pipelines.recipes.tables import TableData, TableRecipe
from pipelines.reports import plots
from pipelines.reports.report import plotted
from pipelines.reports.tiles import tile_parts
from pipelines.samples.sets import inputs_of
from pipelines.tables.rows import Row, Rows, read_rows
from pipelines.tasks import imagery
from pipelines.tasks.task import Judgement, Task, Teller

UNUSED = ("backbone_lr", "layer_decay", "flips", "gain", "offset", "recompute")  # there are no pixels, and no backbone
BATCH = 1024  # rows that are asked about at once


def check(recipe: TableRecipe) -> None:
    """Refuse what no training takes before a file is opened."""
    if recipe.backbone != "none" or recipe.weights != "random":
        raise InputError("backbone, weights: a network over tables has none; leave them out")
    if not recipe.data.answer:
        raise InputError("data.answer: wanted the column of the value or class; none was given")
    if bool(recipe.classes) == (recipe.target is not None):
        raise InputError("classes, target: wanted classes, or the name and unit of a target, and not both")
    check_ranges({"data.step": (recipe.data.step, 1e-3, 1e5)})


def _answer(recipe: TableRecipe) -> Answer:
    """Values where the recipe has a target, else classes; of samples."""
    if recipe.classes:
        return Classes(tuple(recipe.classes), "sample")
    target = recipe.target or Target()
    return Values(target.name, target.unit, "sample")


def prepare(recipe: TableRecipe) -> Rows:
    """Read the table, and settle the Spec that fits it.

    Raises:
        InputError: see `rows.read_rows`; a split with too few samples.
    """
    answer = _answer(recipe)
    unread = {IMAGERY: Series(("unread",), ("",), (0.0,), (1.0,))}
    folds = bool(recipe.folds)
    samples = read_rows(
        recipe.data, Spec(recipe.task, unread, {answer.name: answer}), seed=recipe.seed, split=not folds
    )
    if folds:
        return samples
    for split, least in (("train", 8), ("val", 1)):
        if len(samples.of(split)) < least:
            raise InputError(f"{samples.name}: fewer than {least} rows in the {split} split; look at data.fractions")
    samples.spec = samples.fitted(("train",))
    return samples


def fitted(samples: Rows, splits: Sequence[str]) -> Spec:
    """The Spec with the statistics of some splits."""
    return samples.fitted(splits)


def reopen(spec: Spec, data: TableData) -> Rows:
    """The rows of a table for a trained model, in no split.

    Raises:
        InputError: see `rows.read_rows`; other channels or steps than the model's.
    """
    samples = read_rows(data, spec, split=False)
    check_inputs(samples.spec, spec, samples.name)
    samples.spec = spec
    return samples


def check_inputs(came: Spec, wanted: Spec, name: str) -> None:
    """Refuse a table of other channels or steps than a model eats."""
    for key, given in wanted.series.items():
        found = came.series.get(key)
        if found is None or (found.channels, found.times) != (given.channels, given.times):
            told = f"{', '.join(found.channels)} ({found.times} steps)" if found else "none"
            raise InputError(f"{name}: {key}: wanted {', '.join(given.channels)} ({given.times} steps), came {told}")


def objective(network: TableNetwork, recipe: TableRecipe, samples: Rows, chosen: Sequence[Any]) -> Tabled:
    """Losses over rows, weighted by class where that is wanted; values in their deviations.

    Raises:
        InputError: nothing is told in a split, or one class only.
    """
    balance, (mean, std) = imagery.label_statistics(cast("Any", samples), chosen, recipe.training.class_weights)
    network.target_mean.fill_(mean)
    network.target_std.fill_(std)
    return Tabled(network, recipe.training, recipe.model, class_weights=balance)


def baselines(samples: Rows, chosen: Sequence[Row], seed: int) -> Mapping[str, Teller]:
    """Forests on the same inputs by name, trained on some samples."""
    truth = np.stack([samples.truth(row) for row in chosen])
    models = fit_forests(samples.spec.answer, inputs_of(samples, chosen), truth, seed=seed)
    return {name: imagery.teller(predict) for name, predict in models.items()}


def judge(
    samples: Rows,
    chosen: Sequence[Any],
    models: Mapping[str, Teller],
    *,
    codes: Sequence[int] = (),
    batch: int = 8,
    progress: Progress | None = None,
) -> Judgement:
    """Score models on rows, and keep what the model says of each for a picture."""
    said: list[Array] = []

    def kept(samples: Rows, some: Sequence[Row]) -> Array:
        said.append(models["model"](samples, some))
        return said[-1]

    answer, batch = samples.spec.answer, max(batch, BATCH)
    asked = {**models, "model": kept}
    found = imagery.judge(cast("Any", samples), chosen, asked, codes=codes, batch=batch, progress=progress)

    def parts(best: str | None) -> Mapping[str, Any]:
        confusion = np.array(found.more["confusion"]) if "confusion" in found.more else None
        beside = (best, found.scores[best]) if best else None
        shown = tile_parts(answer, found.scores["model"], beside, confusion, ())
        return shown if confusion is not None else {**shown, "agreement": _agreement(samples, chosen, said)}

    return dataclasses.replace(found, parts=parts)


def _agreement(samples: Rows, chosen: Sequence[Row], said: Sequence[Array]) -> Any:
    """True against predicted values of all rows."""
    truth = np.array([float(samples.truth(row)) for row in chosen])
    answer = samples.spec.answer
    label = f"{answer.name} ({answer.unit})" if answer.unit else answer.name
    plot = partial(plots.agreement, truth=truth, predicted=np.concatenate(said)[:, 0], label=label)
    return plotted(plot, width=4.2, height=4.0, alt="True against predicted values of the samples")


def facts(samples: Rows) -> Mapping[str, str]:
    """What a report tells of the data."""
    told = {"Evaluated on": samples.data.table}
    for name in (IMAGERY, WEATHER, CONTEXT):
        if name in samples.spec.inputs:
            given = samples.spec.series[name]
            steps = f" ({given.times} steps)" if given.times > 1 else ""
            told[name.capitalize()] = ", ".join(given.channels) + steps
    return told


TASK = Task(
    "table",
    "Fit forests and small layers to rows of a table, with the weather where it helps, and write a run folder.",
    TableRecipe,
    ("frozen",),
    ("revision", *(f"training.{key}" for key in UNUSED)),
    least=2,
    losses=tuple(dict.fromkeys((*CLASS_LOSSES, *VALUE_LOSSES))),
    packages=("scikit-learn",),
    check=check,
    prepare=prepare,
    fitted=fitted,
    reopen=reopen,
    unlabelled=None,
    objective=objective,
    teller=imagery.teller,
    baselines=baselines,
    judge=judge,
    facts=facts,
)
