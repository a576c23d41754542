"""Specs of each task from the few fields in which tests differ."""

from __future__ import annotations

from models.spec import IMAGERY, WEATHER, Cells, Classes, Pixels, Quantiles, Spec, Target, Values


def scene_spec(task, bands, mean, std, *, classes=(), target=None, frames=1, **pixels) -> Spec:
    """A Spec over imagery; `pixels` are further fields of the input."""
    given = Pixels(tuple(bands), tuple(mean), tuple(std), frames, **pixels)
    if task == "regression":
        target = target or Target()
        return Spec(task, {IMAGERY: given}, {target.name: Values(target.name, target.unit)})
    answer = Classes(tuple(classes), "tile" if task == "classification" else "pixel")
    return Spec(task, {IMAGERY: given}, {"class": answer})


def rain_spec(channels, units, mean, std, *, cells=None, **rate) -> Spec:
    """A Spec of rain; `cells` are further fields of the input, `rate` of the answer."""
    given = Cells(tuple(channels), tuple(units), tuple(mean), tuple(std), **cells or {})
    told = {"name": "PRECTOT", "unit": "mm/h", "thresholds": (0.1, 1.0, 5.0)} | rate
    return Spec("rain", {WEATHER: given}, {"rain": Quantiles(**told)})


def fine_spec(channels, units, mean, std, *, target, cells=None, **field) -> Spec:
    """A Spec of downscaling; `cells` are further fields of the input, `field` of the answer."""
    given = Cells(tuple(channels), tuple(units), tuple(mean), tuple(std), **cells or {})
    told = {"support": "cell", "factor": 2, "conserve": True} | field
    return Spec("downscale", {WEATHER: given}, {target: Values(target, **told)})
