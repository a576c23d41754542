"""The scores, reliability and maps of a rain run as one report.html that needs nothing beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.rain_spec import RainSpec
from pipelines import plots
from pipelines.report import INKS, View, chart, curve_charts, render, write_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {
    "rmse": "RMSE (mm/h)",
    "correlation": "Correlation",
    "mean_error": "Mean error (mm/h)",
    "crps": "CRPS (mm/h)",
    "pinball": "Pinball loss (mm/h)",
    "pod": "POD",
    "far": "FAR",
    "csi": "CSI",
    "ets": "ETS",
    "frequency_bias": "Frequency bias",
    "fss": "FSS",
}
LEAST = ("rmse", "mean_error", "crps", "pinball", "far")  # of these less is better
_ABSENT = "–"
DRY = 0.05  # mm/h; maps are blank below, on a light page and on a dark one


@dataclass(frozen=True)
class RainExample:
    """One valid time to look at.

    Attributes:
        name: of the time.
        maps: (H, W) rain in mm/h by title: what is true, what the model and a baseline say.
        lat: (H,) degrees north.
        lon: (W,) degrees east.
    """

    name: str
    maps: Mapping[str, NDArray[np.float32]]
    lat: NDArray[Any]
    lon: NDArray[Any]


def write_rain_report(
    path: Path,
    *,
    title: str,
    spec: RainSpec,
    facts: Mapping[str, str],
    scores: Mapping[str, Any],
    baselines: Mapping[str, Mapping[str, Any]],
    curves: Sequence[Mapping[str, float | None]],
    examples: Sequence[RainExample],
    notes: Sequence[str] = (),
) -> None:
    """Write the report of a rain run; afterwards `path` holds the whole page or what it held before.

    Args:
        path: the file to write.
        title: of the page.
        spec: the model's Spec.
        facts: what was trained on what.
        scores: what `rain_scores` gave for the model.
        baselines: the same by the name of each baseline.
        curves: the training log.
        examples: valid times to show.
        notes: what limits these numbers, a sentence each.

    Raises:
        RunError: the file cannot be written.
    """
    best = best_baseline(baselines)
    keys = [key for key in scores if key.partition("_")[0] in NAMES or key in NAMES]
    view: View = {
        "title": title,
        "spec": spec,
        "inks": INKS,
        "facts": facts,
        "headline": headline(scores, baselines),
        "tiles": [_tile(key, scores, baselines, best) for key in ("rmse", "crps")],
        "table": _table(keys, scores, baselines),
        "bars": _bars(spec, scores, baselines),
        "best": best,
        "per_class": [],
        "curves": curve_charts(curves),
        "confusion": None,
        "examples": [],
        "scale": None,
        "agreement": None,
        "charts": [_reliability(scores), _maps(examples)],
        "notes": notes,
    }
    write_page(path, render(view))


def best_baseline(baselines: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Name of the baseline with the smallest RMSE, or None."""
    known = [name for name, scores in baselines.items() if scores.get("rmse") is not None]
    return min(known, key=lambda name: float(baselines[name]["rmse"])) if known else None


def headline(scores: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]) -> str:
    """One sentence: the model's error, correlation and CRPS, the best baseline's error, and which of them wins."""
    ours = scores["rmse"]
    said = f"RMSE {ours:.3f} mm/h, correlation {_number(scores['correlation'])}, CRPS {scores['crps']:.3f} mm/h"
    best = best_baseline(baselines)
    if best is None:
        return f"{said}; no baseline was scored."
    theirs = baselines[best]["rmse"]
    verdict = "The model is ahead." if ours < theirs else "The baseline is ahead."
    return f"{said}; the best baseline by RMSE, {best}: {theirs:.3f}. {verdict}"


def _number(value: float | None) -> str:
    return _ABSENT if value is None or not math.isfinite(value) else f"{value:.3f}".replace("-", "−")


def _named(key: str) -> str:
    """A score's name with its threshold and window: csi_0.1, fss_1_5."""
    kind = next((name for name in NAMES if key == name or key.startswith(f"{name}_")), key)
    rest = key.removeprefix(kind).strip("_").split("_")
    threshold = f" > {rest[0]} mm/h" if rest[0] else ""
    return NAMES.get(kind, kind) + threshold + (f", {rest[1]} x {rest[1]} cells" if len(rest) > 1 else "")


def _tile(key: str, scores: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]], best: str | None) -> View:
    beside = f"{best}: {_number(baselines[best].get(key))}" if best else ""
    return {"name": NAMES[key], "value": _number(scores.get(key)), "beside": beside}


def _table(keys: Sequence[str], scores: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]) -> View:
    """Every score of the model with its interval, and of each baseline; the best of a row is marked."""
    rows = []
    for key in keys:
        values = [scores.get(key), *(column.get(key) for column in baselines.values())]
        ranks = [_rank(key, value) for value in values]
        texts = [_number(value) for value in values]
        ends = scores["intervals"].get(key)
        texts[0] += f" ({_number(ends[0])} to {_number(ends[1])})" if ends else ""
        cells = [{"text": t, "best": r == max(ranks) > -math.inf} for t, r in zip(texts, ranks, strict=True)]
        rows.append({"name": _named(key), "cells": cells})
    return {"columns": ["model (90 % interval)", *baselines], "rows": rows, "n": None}


def _rank(key: str, value: float | None) -> float:
    """The score as a number of which more is better."""
    if value is None:
        return -math.inf
    if key.startswith("frequency_bias"):
        return -abs(math.log(value)) if value > 0 else -math.inf
    return -abs(value) if key.startswith(LEAST) else value


def _bars(spec: RainSpec, scores: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]) -> View:
    columns = {"model": scores, **baselines}
    keys = {key: NAMES[key] for key in ("rmse", "crps")}
    keys |= {f"csi_{t:g}": f"CSI > {t:g} mm/h" for t in spec.thresholds}

    def draw(figure: Figure, ink: str) -> None:
        plots.scores_bars(figure.add_subplot(), columns, keys=keys, ink=ink)

    return chart(draw, width=4.6, height=0.7 + 0.22 * len(columns) * len(keys), alt="Scores of model and baselines")


def _reliability(scores: Mapping[str, Any]) -> View:
    """Observed share over forecast probability, a line for each threshold."""
    rows = scores["reliability"]

    def draw(figure: Figure, ink: str) -> None:
        ax = figure.add_subplot()
        plots.style(ax, ink=ink)
        ax.plot([0, 1], [0, 1], "--", color=ink, linewidth=0.8)
        for threshold in dict.fromkeys(row["threshold"] for row in rows):
            mine = [row for row in rows if row["threshold"] == threshold]
            ax.plot([r["forecast"] for r in mine], [r["observed"] for r in mine], "o-", label=f"> {threshold:g} mm/h")
        ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="forecast probability", ylabel="observed share")
        ax.legend(frameon=False, labelcolor=ink)

    picture = chart(draw, width=4.2, height=4.0, alt="Reliability: observed share over forecast probability")
    return {"title": "Reliability", "text": "On the dashed line probabilities are true.", "pictures": [picture]}


def _maps(examples: Sequence[RainExample]) -> View:
    """Truth, model and baseline side by side for each time, all on one scale."""
    shown = [values for example in examples for values in example.maps.values()]
    top = max(float(np.nanquantile(np.concatenate([v.ravel() for v in shown]), 0.995)), 0.1) if shown else 1.0
    pictures = [_panels(example, top) for example in examples]
    text = f"Rain, mm/h: nothing is drawn below {DRY:g}, and the scale ends at {top:.2g}."
    return {"title": "Maps", "text": text, "pictures": pictures}


def _panels(example: RainExample, top: float) -> View:
    half = [abs(float(axis[1] - axis[0])) / 2 if len(axis) > 1 else 0.5 for axis in (example.lat, example.lon)]
    west, east = float(example.lon[0]) - half[1], float(example.lon[-1]) + half[1]
    south, north = float(example.lat[-1]) - half[0], float(example.lat[0]) + half[0]

    def draw(figure: Figure, ink: str) -> None:
        # Light rain is close to the page's colour, heavy rain far from it, on a light page and on a dark one.
        colours = "YlGnBu" if ink == INKS["light"] else "YlGnBu_r"
        axes = figure.subplots(1, len(example.maps), squeeze=False)[0]
        for ax, (title, values) in zip(axes, example.maps.items(), strict=True):
            plots.style(ax, ink=ink)
            wet, ends = np.ma.masked_less(values, DRY), (west, east, south, north)
            image = ax.imshow(wet, vmin=0, vmax=top, cmap=colours, extent=ends)
            ax.set_title(title, color=ink, fontsize=9)
        bar = figure.colorbar(image, ax=list(axes), shrink=0.7)
        bar.ax.tick_params(colors=ink)
        figure.suptitle(example.name, color=ink, fontsize=10)

    height = min(max(3.0 * (north - south) / (east - west), 1.0), 5.0) + 0.8
    return chart(draw, width=3.2 * len(example.maps), height=height, alt=f"Rain at {example.name}")
