"""The scores, reliability and maps of a run over weather as one report.html that needs nothing beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.weather_spec import WeatherSpec
from pipelines.reports import plots
from pipelines.reports.map_plots import RAIN_COLOURS, weather_map
from pipelines.reports.report import INKS, PARTS, View, chart, curve_charts, render, write_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {
    "rmse": "RMSE",
    "mae": "Mean absolute error",
    "correlation": "Correlation",
    "mean_error": "Mean error",
    "crps": "CRPS",
    "pinball": "Pinball loss",
    "pod": "POD",
    "far": "FAR",
    "csi": "CSI",
    "ets": "ETS",
    "frequency_bias": "Frequency bias",
    "fss": "FSS",
}
LEAST = ("rmse", "mae", "mean_error", "crps", "pinball", "far")  # of these less is better
WITH_UNIT = ("rmse", "mae", "mean_error", "crps", "pinball")
_ABSENT = "–"
DRY = 0.05  # mm/h; maps of rain are blank below, on a light page and on a dark one


@dataclass(frozen=True)
class WeatherExample:
    """One valid time to look at.

    Attributes:
        name: of the time.
        maps: (H, W) by title: what is true, what the model and a baseline say.
        error: (H, W), the model's.
        lat: (H,) degrees north.
        lon: (W,) degrees east.
    """

    name: str
    maps: Mapping[str, NDArray[np.float32]]
    error: NDArray[np.float32]
    lat: NDArray[Any]
    lon: NDArray[Any]


def write_weather_report(
    path: Path,
    *,
    title: str,
    spec: WeatherSpec,
    facts: Mapping[str, str],
    scores: Mapping[str, Any],
    baselines: Mapping[str, Mapping[str, Any]],
    curves: Sequence[Mapping[str, float | None]],
    examples: Sequence[WeatherExample],
    notes: Sequence[str] = (),
) -> None:
    """Write the report of a run over weather; afterwards `path` holds the whole page or what it held before.

    Args:
        path: the file to write.
        title: of the page.
        spec: the model's Spec.
        facts: what was trained on what.
        scores: what `weather_scores` gave for the model.
        baselines: the same by the name of each baseline.
        curves: the training log.
        examples: valid times to show.
        notes: what limits these numbers, a sentence each.

    Raises:
        RunError: the file cannot be written.
    """
    best = best_baseline(baselines)
    keys = [key for key in scores if key.partition("_")[0] in NAMES or key in NAMES]
    leading = [key for key in ("rmse", "crps", "correlation") if key in scores][:2]
    view = PARTS | {
        "title": title,
        "spec": spec,
        "facts": facts,
        "headline": headline(spec.unit, scores, baselines),
        "tiles": [_tile(key, spec.unit, scores, baselines, best) for key in leading],
        "table": _table(keys, spec.unit, scores, baselines),
        "bars": _bars(spec, scores, baselines),
        "best": best,
        "curves": curve_charts(curves),
        "charts": [*([_reliability(scores, spec.unit)] if scores["reliability"] else []), _maps(examples, spec)],
        "notes": notes,
    }
    write_page(path, render(view))


def best_baseline(baselines: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Name of the baseline with the smallest RMSE, or None."""
    known = [name for name, scores in baselines.items() if scores.get("rmse") is not None]
    return min(known, key=lambda name: float(baselines[name]["rmse"])) if known else None


def headline(unit: str, scores: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]) -> str:
    """One sentence: the model's error and correlation, the best baseline's error, and which of them wins."""
    ours, last = scores["rmse"], "crps" if "crps" in scores else "mean_error"
    said = f"RMSE {_number(ours, unit)}, correlation {_number(scores['correlation'])}, {_said(last, unit, scores)}"
    best = best_baseline(baselines)
    if best is None:
        return f"{said}; no baseline was scored."
    theirs = baselines[best]["rmse"]
    verdict = "The model is ahead." if ours < theirs else "The baseline is ahead."
    return f"{said}; the best baseline by RMSE, {best}: {_number(theirs)}. {verdict}"


def _said(key: str, unit: str, scores: Mapping[str, Any]) -> str:
    name = NAMES[key] if key == "crps" else NAMES[key].lower()
    return f"{name} {_number(scores[key], unit)}"


def _number(value: float | None, unit: str = "") -> str:
    """Three decimals, or three digits of a small number, with its unit; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return _ABSENT
    form = ".3g" if 0 < abs(value) < 0.0995 else ".3f"
    return f"{value:{form}} {unit}".rstrip().replace("-", "−")


def _named(key: str, unit: str) -> str:
    """A score's name with its unit, or its threshold and window: csi_0.1, fss_1_5."""
    kind = next((name for name in NAMES if key == name or key.startswith(f"{name}_")), key)
    rest = key.removeprefix(kind).strip("_").split("_")
    threshold = f" > {rest[0]} {unit}" if rest[0] else f" ({unit})" if unit and key in WITH_UNIT else ""
    return NAMES.get(kind, kind) + threshold + (f", {rest[1]} x {rest[1]} cells" if len(rest) > 1 else "")


def _tile(
    key: str, unit: str, scores: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]], best: str | None
) -> View:
    beside = f"{best}: {_number(baselines[best].get(key))}" if best else ""
    return {"name": _named(key, unit), "value": _number(scores.get(key)), "beside": beside}


def _table(
    keys: Sequence[str], unit: str, scores: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]
) -> View:
    """Every score of the model with its interval, and of each baseline; the best of a row is marked."""
    rows = []
    for key in keys:
        values = [scores.get(key), *(column.get(key) for column in baselines.values())]
        ranks = [_rank(key, value) for value in values]
        texts = [_number(value) for value in values]
        ends = scores["intervals"].get(key)
        texts[0] += f" ({_number(ends[0])} to {_number(ends[1])})" if ends else ""
        cells = [{"text": t, "best": r == max(ranks) > -math.inf} for t, r in zip(texts, ranks, strict=True)]
        rows.append({"name": _named(key, unit), "cells": cells})
    return {"columns": ["model (90 % interval)", *baselines], "rows": rows, "n": None}


def _rank(key: str, value: float | None) -> float:
    """The score as a number of which more is better."""
    if value is None:
        return -math.inf
    if key.startswith("frequency_bias"):
        return -abs(math.log(value)) if value > 0 else -math.inf
    return -abs(value) if key.startswith(LEAST) else value


def _bars(spec: WeatherSpec, scores: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]) -> View:
    columns = {"model": scores, **baselines}
    shown = ["rmse", "crps" if spec.levels else "mae", *(f"csi_{t:g}" for t in spec.thresholds)]
    keys = {key: _named(key, spec.unit) for key in shown}

    def draw(figure: Figure, ink: str) -> None:
        plots.scores_bars(figure.add_subplot(), columns, keys=keys, ink=ink)

    return chart(draw, width=4.6, height=0.7 + 0.22 * len(columns) * len(keys), alt="Scores of model and baselines")


def _reliability(scores: Mapping[str, Any], unit: str) -> View:
    """Observed share over forecast probability, a line for each threshold."""
    rows = scores["reliability"]

    def draw(figure: Figure, ink: str) -> None:
        plots.reliability_plot(figure.add_subplot(), rows, unit=unit, ink=ink)

    picture = chart(draw, width=4.2, height=4.0, alt="Reliability: observed share over forecast probability")
    return {"title": "Reliability", "text": "On the dashed line probabilities are true.", "pictures": [picture]}


def _maps(examples: Sequence[WeatherExample], spec: WeatherSpec) -> View:
    """Truth, model and baseline side by side for each time, all on one scale, and the model's error on another."""
    low, high = value_ends([values for example in examples for values in example.maps.values()], spec)
    most = value_ends([np.abs(example.error) for example in examples], spec)[1]
    pictures = [_panels(example, (low, high), most, spec) for example in examples]
    named = f"{spec.target} ({spec.unit})" if spec.unit else spec.target
    text = f"{named}; scales end at {low:.4g} and {high:.4g}, of the error at ±{most:.2g}."
    text += f" No rain is drawn below {DRY:g}." if spec.task == "rain" else ""
    return {"title": "Maps", "text": text, "pictures": pictures}


def value_ends(maps: Sequence[NDArray[Any]], spec: WeatherSpec) -> tuple[float, float]:
    """Ends of a colour scale that maps share: from 0 for rain, without the outermost half per cent."""
    values = np.concatenate([v[np.isfinite(v)] for v in maps] or [np.zeros(1)])
    low, high = (0.0, 0.0) if not values.size else np.quantile(values, [0.005, 0.995])
    low = 0.0 if spec.task == "rain" else float(low)
    return low, float(high) if high > low else low + (0.1 if spec.task == "rain" else 1e-6)


def _panels(example: WeatherExample, ends: tuple[float, float], most: float, spec: WeatherSpec) -> View:
    lat, lon, rain = example.lat, example.lon, spec.task == "rain"
    fields = {t: np.where(v < DRY, np.nan, v) if rain else v for t, v in example.maps.items()}

    def draw(figure: Figure, ink: str) -> None:
        # Light rain is close to the page's colour, heavy rain far from it, on a light page and on a dark one.
        shades = RAIN_COLOURS if ink == INKS["light"] else f"{RAIN_COLOURS}_r"
        kinds = {title: (values, ends, shades if rain else plots.VALUE_COLOURS) for title, values in fields.items()}
        kinds["model − truth"] = (example.error, (-most, most), "RdBu_r")
        axes = figure.subplots(1, len(kinds), squeeze=False)[0]
        for ax, (title, (values, limits, colours)) in zip(axes, kinds.items(), strict=True):
            place = partial(weather_map, ax, values, lat=lat, lon=lon)
            place(label=spec.unit, title=title, limits=limits, colours=colours, ink=ink)
        figure.suptitle(example.name, color=ink, fontsize=10)

    tall = np.ptp(lat) / max(np.ptp(lon), 1e-6) / max(np.cos(np.radians(lat.mean())), 0.1)
    height = min(max(2.3 * float(tall), 1.0), 5.0) + 0.9
    return chart(draw, width=3.2 * (len(fields) + 1), height=height, alt=f"{spec.target} at {example.name}")
