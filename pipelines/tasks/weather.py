"""What tasks over weather fields share: blocks of time, the ensemble's objective, scores, maps for the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from models.baselines.fields import Forecast
from models.errors import InputError
from models.networks.quantiles import forecast_of
from models.networks.weather import WeatherNetwork, inputs_told
from models.spec import Spec
from models.training.objectives import Ensemble
from models.types import Array, Predict, Progress, Source
from pipelines.recipes.recipe import check_ranges
from pipelines.recipes.weather import WeatherRecipe
from pipelines.reports.comparison import Comparison
from pipelines.reports.fields import FieldExample, field_parts, shown_of
from pipelines.reports.weather_scores import compared, rmse_of_days, weather_scores
from pipelines.samples.fields import FieldSamples, Moment
from pipelines.samples.sets import SPLITS, inputs_of
from pipelines.samples.weather import describe
from pipelines.tasks.task import Judgement, Task, Teller

EXAMPLES = 3
CELLS = 1 << 14  # that are told of at once


def check(recipe: WeatherRecipe) -> None:
    """Refuse what learns nothing, before any file is opened."""
    data = recipe.data
    shared = (data.times - 1) * data.step + min(getattr(data, "window", (0.0, 0.0))[0], 0.0)  # hours of inputs alone
    check_ranges({"data.gap": (data.gap, -max(shared, 0.0), 1e6)})
    if recipe.weights == "random" and recipe.mode == "frozen":
        raise InputError("weights random, mode frozen: an encoder of random weights learns nothing; --mode full")
    if recipe.distil is not None and (recipe.distil.unlabelled or recipe.distil.features):
        raise InputError(
            "distil.unlabelled, distil.features: a student over weather has neither; leave them at [] and 0"
        )


def divided(samples: FieldSamples, recipe: WeatherRecipe) -> FieldSamples:
    """Samples with their blocks of time, and a Spec with the statistics of the training block."""
    gap = recipe.data.gap
    samples.divide(recipe.data.split, gap)
    samples.spec, samples.augmentation = samples.measured("train"), recipe.augment
    told = [inputs_told(samples.spec.weather, recipe.backbone, recipe.model)]
    told += [f"Inputs may reach {-gap:g} h into the block before, hours that are told of never (data.gap)."] * (gap < 0)
    samples.notes = [*samples.notes, *told]
    return samples


def fitted(samples: FieldSamples, splits: Sequence[str]) -> Spec:
    """The Spec with the statistics of some splits; of all samples, those of the gaps too, with all splits."""
    return samples.measured(*splits, *([""] if set(splits) == set(SPLITS) else []))


def objective(network: WeatherNetwork, recipe: WeatherRecipe, _: FieldSamples, __: Sequence[Moment]) -> Ensemble:
    """The losses of the members."""
    return Ensemble(network, recipe.training)


def teller(predict: Predict) -> Teller:
    """Ask a model about samples, as many at once as make up some ten thousand cells."""

    def tell(samples: FieldSamples, chosen: Sequence[Moment]) -> Forecast:
        return forecast(predict, samples, chosen)

    return tell


def forecast(
    predict: Predict, samples: FieldSamples, chosen: Sequence[Moment], *, progress: Progress | None = None
) -> Forecast:
    """What a model says of samples."""
    batch = max(CELLS // samples.area.size, 1)
    starts = range(0, len(chosen), batch)
    shown = progress(starts, samples.spec.task) if progress else starts
    answers = [predict(inputs_of(samples, chosen[first : first + batch])) for first in shown]
    return forecast_of(samples.spec.field, np.concatenate(answers))


def judge(
    samples: FieldSamples,
    chosen: Sequence[Moment],
    models: Mapping[str, Teller],
    *,
    codes: Sequence[int] = (),
    batch: int = 8,
    progress: Progress | None = None,
) -> Judgement:
    """Score forecasts of samples, weighted by area, with intervals by blocks of days.

    Raises:
        InputError: class codes, which fields do not have.
    """
    if codes:
        raise InputError("--codes: for classes; a run over weather is scored without, leave it out")
    field = samples.spec.field
    truth = np.stack([samples.truth(s) for s in chosen])
    told = {name: tell(samples, chosen) for name, tell in models.items()}
    times = np.array([samples.time(s) for s in chosen])
    asked: dict[str, Any] = {"levels": field.levels, "thresholds": field.thresholds, "times": times}
    scores = {name: weather_scores(f, truth, samples.area, **asked) for name, f in told.items()}

    def parts(best: str | None) -> Mapping[str, Any]:
        shown = [name for name in (*(samples.shown or [best]), "model") if name in told]
        examples = [_example(samples, chosen[i], truth[i], {name: told[name].mean[i] for name in shown}) for i in live]
        return field_parts(field, scores["model"]["reliability"], examples)

    live = _liveliest(truth)

    def compare(ours: str, theirs: str) -> Comparison:
        return compared(theirs, told[ours], told[theirs], truth, samples.area, times=times)

    days = [samples.group(s) for s in chosen]
    by_day = {name: rmse_of_days(f, truth, samples.area, days) for name, f in told.items()}
    return Judgement(scores, shown_of(field, scores["model"]), {}, parts, compare, by_day)


def _liveliest(truth: Array) -> list[int]:
    """Indices of the times whose fields (N, H, W) vary most, in the order of time."""
    filled = np.where(np.isfinite(truth), truth, np.nanmean(truth))
    return sorted(int(i) for i in np.argsort(-filled.std(axis=(1, 2)))[:EXAMPLES])


def _example(samples: FieldSamples, moment: Moment, truth: Array, means: Mapping[str, Array]) -> FieldExample:
    """Maps of a time: what was seen, what was said, what was true."""
    maps = samples.seen(moment) | dict(means) | {"truth": truth}
    return FieldExample(str(samples.valid(moment)), maps, means["model"] - truth, *samples.grid)


def facts(samples: FieldSamples) -> Mapping[str, str]:
    """What a report tells of the data."""
    return {
        "Evaluated on": f"{samples.name}: {describe(samples.weather)}",
        "Target": samples.told(),
        "Lead times": ", ".join(f"{lead:g} h" for lead in samples.spec.field.leads),
        "Fields": ", ".join(samples.spec.weather.channels),
        "Scores": "weighted by area; events are said where they are likeliest, as many as their chances add up to; "
        "intervals by blocks of days, from five days on",
    }


UNUSED = ("gain", "offset", "smoothing", "class_weights", "layer_decay", "freeze_norm", "flips")


def weather_task(
    name: str,
    summary: str,
    *,
    recipe: type[WeatherRecipe],
    losses: tuple[str, ...],
    prepare: Callable[[Any], FieldSamples],
    reopen: Callable[[Spec, Any], FieldSamples],
    unlabelled: Callable[[Spec, Sequence[Source], Any], FieldSamples],
    baselines: Callable[[Any, Sequence[Moment], int], Mapping[str, Teller]],
    unused: Sequence[str] = (),
) -> Task:
    """A task over weather fields; `unused` are settings that it has no use for, beside those of all."""
    return Task(
        name,
        summary,
        recipe,
        ("frozen", "full"),
        (*unused, *(f"training.{key}" for key in UNUSED)),
        least=1,
        losses=losses,
        packages=("scores",),
        check=check,
        prepare=lambda found: divided(prepare(found), found),
        fitted=fitted,
        reopen=reopen,
        unlabelled=unlabelled,
        objective=objective,
        teller=teller,
        baselines=baselines,
        judge=judge,
        facts=facts,
    )
