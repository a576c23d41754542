"""Trials as pictures: parallel coordinates of what they tried, and what of it mattered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.reports.measures import named, number, rank
from pipelines.reports.plots import SERIES, VALUE_COLOURS, style
from pipelines.searching.space import Dimension, Range, Space, short
from pipelines.searching.trial import COMPLETE, Told

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LETTERS = 14  # of a choice beside its axis


def parallel(ax: Axes, known: Mapping[int, Told], space: Space, best: int | None, *, ink: str = "black") -> Axes:
    """Draw each trial as a line over the settings, whose last axis is the score; the brighter, the better.

    Args:
        ax: the axes to draw on.
        known: the trials that have a score.
        space: the settings, an axis each.
        best: the trial that is drawn thick.
        ink: colour of the text.
    """
    import matplotlib

    style(ax, ink=ink)
    told = [one for one in known.values() if one.mean is not None]
    ranks = [rank(one.score, one.mean) for one in told]
    heights = _spread(ranks)
    colours = matplotlib.colormaps[VALUE_COLOURS]
    for one, height in sorted(zip(told, heights, strict=True), key=lambda pair: pair[1]):
        places = [_place(dimension, one.params.get(name)) for name, dimension in space.items()]
        thick = 3.2 if best is not None and one is known[best] else 1.3
        dashes = "-" if one.state == COMPLETE else ":"
        ax.plot(range(len(places) + 1), [*places, height], dashes, color=colours(0.15 + 0.85 * height), lw=thick)
    ends = [told[ranks.index(end)] for end in (min(ranks), max(ranks))] if told else []
    for at, dimension in enumerate(space.values()):
        _axis(ax, at, dimension, ink)
    for height, one in zip((0.0, 1.0), ends, strict=False):
        _mark(ax, len(space), height, number(one.score, one.mean), ink)
    ax.axvline(len(space), color=ink, lw=0.8, alpha=0.4)
    score = named(told[0].score) if told else "score"
    ax.set_xticks(range(len(space) + 1), [*(name.replace(".", ".\n") for name in space), score])
    ax.set(yticks=[], ylim=(-0.1, 1.1), xlim=(-0.2, len(space) + 0.5))
    ax.spines[:].set_visible(False)
    return ax


def _spread(ranks: Sequence[float]) -> list[float]:
    """Numbers from the lowest, 0, to the highest, 1."""
    low, width = min(ranks, default=0.0), max(ranks, default=1.0) - min(ranks, default=0.0)
    return [(value - low) / width if width else 1.0 for value in ranks]


def _place(dimension: Dimension, value: Any) -> float:
    """How far up its axis a value is, from 0 to 1; not a number where the trial has none."""
    if value is None and (isinstance(dimension, Range) or None not in dimension):
        return math.nan
    if not isinstance(dimension, Range):
        return dimension.index(value) / (len(dimension) - 1) if value in dimension else math.nan
    low, high, at = (math.log(x) if dimension.log else x for x in (dimension.low, dimension.high, value))
    return (at - low) / (high - low)


def _axis(ax: Axes, at: int, dimension: Dimension, ink: str) -> None:
    """Draw an axis with its ends, or with its choices."""
    ax.axvline(at, color=ink, lw=0.8, alpha=0.4)
    values = (dimension.low, dimension.high) if isinstance(dimension, Range) else dimension
    for value in values:
        _mark(ax, at, _place(dimension, value), short(value), ink)


def _mark(ax: Axes, at: int, height: float, text: str, ink: str) -> None:
    """Write a text beside an axis, above the lines that meet there."""
    text = (text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…").replace("$", r"\$")
    ax.text(at + 0.04, height + 0.015, text, color=ink, fontsize=8, va="bottom")


def importance_bars(ax: Axes, worth: Mapping[str, float], *, ink: str = "black") -> Axes:
    """Draw the share of each setting in what makes the trials differ as a bar, the largest on top."""
    style(ax, ink=ink)
    names = sorted(worth, key=lambda name: worth[name])
    bars = ax.barh(names, [worth[name] for name in names], 0.7, color=SERIES[0])
    ax.bar_label(bars, [f"{100 * worth[name]:.0f} %" for name in names], padding=4, color=ink, fontsize=9)
    ax.set_xticks([])
    ax.margins(x=0.15)
    ax.spines["bottom"].set_visible(False)
    return ax
