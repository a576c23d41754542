"""What each input is worth: the model's scores with all of them, without some, and with those of another place or day.

Weather comes with the season, and a model that had neither gains from both: so the weather's part is told beside the
imagery with season and place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from models.networks.assembly import AnyNetwork, predict_by
from models.networks.fusion import FusedNetwork
from models.networks.tables import TableNetwork
from models.spec import CONTEXT, IMAGERY, STATIC, WEATHER, Spec, valid_of
from models.types import Inputs
from pipelines.reports.comparison import RESAMPLES
from pipelines.reports.measures import number, rank, with_unit
from pipelines.runs.shares import ROWS
from pipelines.runs.worth.tokens import AS_IS, MOST, differences, others
from pipelines.samples.sets import Samples, inputs_of
from pipelines.tasks.task import Judgement, Task, Teller

BOTH, SEASON, ALONE, PLAIN = AS_IS, "imagery, season and place", "weather alone", "imagery alone"
MISSING: Mapping[str, tuple[str, ...]] = {
    BOTH: (),
    SEASON: (WEATHER,),
    PLAIN: (WEATHER, CONTEXT, STATIC),
    ALONE: (IMAGERY,),
}
PARTS = 3  # of the days before


def names(spec: Spec) -> tuple[str, ...]:
    """What is asked of a model with such inputs."""
    return (*MISSING, *_swaps(spec)) if spec.series else ()


def tellers(task: Task, network: AnyNetwork) -> Mapping[str, Teller]:
    """A fused model with all inputs, without some, and with parts of the series of other groups; else nothing."""
    if not isinstance(network, FusedNetwork | TableNetwork):
        return {}
    predict = predict_by(network)

    def told(change: Callable[..., Inputs], samples: Samples, chosen: Sequence[Any]) -> Any:
        return predict(change(inputs_of(samples, chosen), samples, chosen))

    changes = {name: partial(_without, missing) for name, missing in MISSING.items()}
    changes |= {name: partial(_swapped, part) for name, part in _swaps(network.spec).items()}
    return {name: partial(told, change) for name, change in changes.items()}


def _swaps(spec: Spec) -> dict[str, tuple[str, slice, slice]]:
    """Parts of the series (input, steps, channels) by their names."""
    weather, every = spec.series[WEATHER], slice(None)
    found = {
        f"{name} of another place{day}": (series, every, slice(i, i + 1))
        for series, day in ((WEATHER, " or day"), (STATIC, ""))
        if series in spec.series
        for i, name in enumerate(spec.series[series].channels)
    }
    if weather.times < PARTS:
        return found
    edges = np.linspace(0, weather.times, PARTS + 1).round().astype(int)
    days = [(weather.times - edge) * weather.step / 24 for edge in edges]
    for a, b, first, last in zip(edges, edges[1:], days, days[1:], strict=False):
        found[f"weather {first:g} to {last:g} days before, of another"] = (WEATHER, slice(a, b), every)
    return found


def _without(missing: Sequence[str], inputs: Inputs, *_: Any) -> Inputs:
    """A batch in which some inputs are not there."""
    return {**inputs, **{key: np.zeros_like(inputs[key]) for key in map(valid_of, missing) if key in inputs}}


def _swapped(part: tuple[str, slice, slice], inputs: Inputs, samples: Samples, chosen: Sequence[Any]) -> Inputs:
    """A batch in which a part of a series is that of samples of other groups."""
    other, changed, (series, *of) = [samples.item(sample) for sample in others(samples, chosen)], {}, part
    for key in (series, valid_of(series)):
        changed[key] = inputs[key].copy()
        for row, item in zip(changed[key], other, strict=True):
            row[*of] = item[key][*of]
    return {**inputs, **changed}


def worth(
    task: Task, samples: Samples, chosen: Sequence[Any], asked: Mapping[str, Teller], *, gate: float, batch: int
) -> dict[str, Any] | None:
    """Scores with all inputs and with fewer on held-out samples, see `tokens.worth`; None of a model of one input.

    Beside these "gate", how much of the correction is let in, and "helps", the share of resamples in which it does.
    """
    mine = {name: asked[name] for name in names(samples.spec) if name in asked}
    if not mine:
        return None
    most = ROWS if samples.spec.over_tables else MOST
    found, result = differences(task, samples, chosen, mine, batch=batch, most=most)
    lead, unit, gain = found.shown.said[0], found.shown.unit, found.compare(BOTH, SEASON)
    adds = with_unit(lead, number(lead, gain.gain, sign="+"), unit)
    said = (
        f"Left-out groups let in {gate:.0%} of what the weather says. It adds {adds} to imagery with season and place"
    )
    result["gate"] = gate
    if gain.interval is None:
        return {**result, "helps": None, "told": f"{said}; {gain.groups} groups are too few to say whether it helps."}
    low, high = (number(lead, end, sign="+") for end in gain.interval)
    helps = _helps(found, lead)
    words = {"ahead": "It helps", "behind": "It does harm", "level": "Whether it helps cannot be told from chance"}
    sure = f"({low} to {high} with 95 %, {gain.groups} groups)"
    return {
        **result,
        "helps": helps,
        "told": f"{said} {sure}. {words[gain.verdict]}: ahead in {helps:.0%} of resamples.",
    }


def _helps(found: Judgement, lead: str) -> float:
    """The share of resamples of the groups in which the model with the weather is ahead of that without."""
    pairs = [(found.groups[BOTH][group], found.groups[SEASON][group]) for group in found.groups[BOTH]]
    gains = np.array([rank(lead, a) - rank(lead, b) for a, b in pairs if a is not None and b is not None])
    draws = np.random.default_rng(0).integers(len(gains), size=(RESAMPLES, len(gains)))
    return float((gains[draws].mean(axis=1) > 0).mean())
