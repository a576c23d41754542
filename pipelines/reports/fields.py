"""What a report shows of weather: maps of some times beside the truth, and whether probabilities are true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.spec import Quantiles, Values
from pipelines.reports import plots
from pipelines.reports.map_plots import RAIN_COLOURS, weather_map
from pipelines.reports.measures import Shown, View
from pipelines.reports.report import INKS, chart, plotted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRY = {"mm/h": 0.05, "mm/day": 0.5}  # maps of rain are blank below, on a light page and on a dark one


def shown_of(field: Values | Quantiles, scores: Mapping[str, Any]) -> Shown:
    """Which scores are shown of a field."""
    leading = [key for key in ("rmse", "crps", "correlation") if key in scores][:2]
    bars = ["rmse", "crps" if field.levels else "mae", *(f"csi_{t:g}" for t in field.thresholds)]
    said = ("rmse", "correlation", "crps" if "crps" in scores else "mean_error")
    return Shown(said, tuple(leading), (), tuple(bars), field.unit)


@dataclass(frozen=True)
class FieldExample:
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


def field_parts(
    field: Values | Quantiles, reliability: Sequence[Mapping[str, float]], examples: Sequence[FieldExample]
) -> View:
    """What a report shows of a run over weather: reliability by threshold where there are any, and the maps."""
    return {
        "counted": "cells",
        "charts": [*([_reliability(reliability, field.unit)] if reliability else []), _maps(examples, field)],
    }


def _reliability(rows: Sequence[Mapping[str, float]], unit: str) -> View:
    """Observed share over forecast probability, a line for each threshold."""
    plot = partial(plots.reliability_plot, rows=rows, unit=unit)
    picture = plotted(plot, width=4.2, height=4.0, alt="Reliability: observed share over forecast probability")
    return {"title": "Reliability", "text": "On the dashed line probabilities are true.", "pictures": [picture]}


def _maps(examples: Sequence[FieldExample], field: Values | Quantiles) -> View:
    """Truth, model and baseline side by side for each time, all on one scale, and the model's error on another."""
    low, high = value_ends([values for example in examples for values in example.maps.values()], field)
    most = value_ends([np.abs(example.error) for example in examples], field)[1]
    pictures = [_panels(example, (low, high), most, field) for example in examples]
    named = f"{field.name} ({field.unit})" if field.unit else field.name
    text = f"{named}; scales end at {low:.4g} and {high:.4g}, of the error at ±{most:.2g}."
    text += f" No rain is drawn below {DRY[field.unit]:g}." if isinstance(field, Quantiles) else ""
    return {"title": "Maps", "text": text, "pictures": pictures}


def value_ends(maps: Sequence[NDArray[Any]], field: Values | Quantiles) -> tuple[float, float]:
    """Ends of a colour scale that maps share: from 0 for rain, without the outermost half per cent."""
    rain = isinstance(field, Quantiles)
    values = np.concatenate([v[np.isfinite(v)] for v in maps] or [np.zeros(1)])
    low, high = (0.0, 0.0) if not values.size else np.quantile(values, [0.005, 0.995])
    low = 0.0 if rain else float(low)
    return low, float(high) if high > low else low + (0.1 if rain else 1e-6)


def _panels(example: FieldExample, ends: tuple[float, float], most: float, field: Values | Quantiles) -> View:
    lat, lon, rain = example.lat, example.lon, isinstance(field, Quantiles)
    fields = {t: np.where(v < DRY[field.unit], np.nan, v) if rain else v for t, v in example.maps.items()}

    def draw(figure: Figure, ink: str) -> None:
        # Light rain is close to the page's colour, heavy rain far from it, on a light page and on a dark one.
        shades = RAIN_COLOURS if ink == INKS["light"] else f"{RAIN_COLOURS}_r"
        kinds = {title: (values, ends, shades if rain else plots.VALUE_COLOURS) for title, values in fields.items()}
        kinds["model − truth"] = (example.error, (-most, most), "RdBu_r")
        axes = figure.subplots(1, len(kinds), squeeze=False)[0]
        for ax, (title, (values, limits, colours)) in zip(axes, kinds.items(), strict=True):
            place = partial(weather_map, ax, values, lat=lat, lon=lon)
            place(label=field.unit, title=title, limits=limits, colours=colours, ink=ink)
        figure.suptitle(example.name, color=ink, fontsize=10)

    tall = np.ptp(lat) / max(np.ptp(lon), 1e-6) / max(np.cos(np.radians(lat.mean())), 0.1)
    height = min(max(2.3 * float(tall), 1.0), 5.0) + 0.9
    return chart(draw, width=3.2 * (len(fields) + 1), height=height, alt=f"{field.name} at {example.name}")
