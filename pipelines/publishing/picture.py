"""A picture for the card: the leading score beside the baselines', and that of each group that was left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.reports import plots
from pipelines.reports.measures import NAMES, kind_of, named, number

_INK = "#262626"


def write_scores(path: Path, lead: str, scores: Mapping[str, Mapping[str, Any]], *, unit: str) -> None:
    """Write a PNG of bars, the model first; the same bytes for the same scores, and no text beside the pixels.

    Args:
        path: the picture.
        lead: the score.
        scores: of the model and of each baseline, by name.
        unit: of scores that have one.
    """
    known = {name: float(one[lead]) for name, one in scores.items() if isinstance(one.get(lead), int | float)}
    figure = plots.figure(6.4, 0.9 + 0.36 * max(len(known), 1))
    figure.set_facecolor("white")
    ax = figure.subplots()
    places = range(len(known))[::-1]
    bars = ax.barh([*places], [*known.values()], color=[plots.SERIES[0], *["#b9bfc7"] * len(known)][: len(known)])
    ax.bar_label(bars, [number(lead, value) for value in known.values()], padding=4, fontsize=9, color=_INK)
    ax.set_yticks([*places], [name.replace("$", r"\$") for name in known])
    ax.set_title(f"{named(lead, unit)}, held out".replace("$", r"\$"), fontsize=10, loc="left")
    ax.margins(x=0.15)
    plots.style(ax, ink=_INK)
    figure.savefig(path, format="png", metadata={"Software": None})


def lead_of(metrics: Mapping[str, Any], scores: Mapping[str, Any]) -> str | None:
    """The leading score: the one that was compared, else the first that has a name."""
    lead = (metrics.get("compared") or {}).get("score")
    named_ones = (key for key, value in scores.items() if kind_of(key) in NAMES and isinstance(value, int | float))
    return lead if lead in scores else next(named_ones, None)
