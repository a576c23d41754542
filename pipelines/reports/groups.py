"""What a report shows of each group: where a model is good, where it fails, and whether a baseline fails there, too."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.reports import plots
from pipelines.reports.measures import Shown, View, named, number, rank, with_unit
from pipelines.reports.report import plotted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LISTED = 5  # groups with the worst scores

Groups = Mapping[str, Mapping[str, float | None]]  # the leading score of each model by group, {group: {model: score}}


def view(found: Groups, shown: Shown, best: str | None, *, counted: str) -> View | None:
    """A sentence, the worst groups, and each group as a dot; None where fewer than two are known.

    Args:
        found: scores by group, of "model" and of the best baseline.
        shown: which score leads, and its unit.
        best: the best baseline, if there is any.
        counted: what a group is: group, day.
    """
    lead = shown.said[0]
    known = {group: scores for group, scores in found.items() if scores["model"] is not None}
    if len(known) < 2:
        return None
    order = sorted(known, key=lambda group: rank(lead, known[group]["model"]))
    tenth = known[order[max(len(order) // 10, 1) - 1]]["model"]
    worst = "tenth " if len(order) >= 10 else ""
    worse = " or worse" if len(order) >= 10 else ""
    middle = float(np.median([scores["model"] for scores in known.values()]))
    told = (
        f"Of {len(known)} {counted}s the middle one has {with_unit(lead, number(lead, middle), shown.unit)}, the worst "
        f"{worst}{with_unit(lead, number(lead, tenth), shown.unit)}{worse}."
    )
    pairs = [(s[best], s["model"]) for s in known.values() if best and s.get(best) is not None]
    picture = None
    if pairs:
        ahead = sum(rank(lead, ours) > rank(lead, theirs) for theirs, ours in pairs)
        told += f" The model is better than the {best} in {ahead} of {len(pairs)}."
        name = named(lead, shown.unit)
        alt = f"{name} of the model against that of the {best}, a dot for each {counted}"
        draw = partial(_dots, pairs=np.array(pairs, float), name=name, best=str(best))
        picture = plotted(draw, width=4.2, height=3.2, alt=alt)
    columns = ["model", *([best] if best else [])]
    rows = [
        {"name": group, "cells": [number(lead, known[group].get(column)) for column in columns]}
        for group in order[:LISTED]
    ]
    return {"told": told, "counted": counted, "columns": columns, "rows": rows, "picture": picture}


def _dots(ax: Axes, *, pairs: Any, name: str, best: str, ink: str = "black") -> None:
    """The model's score against the baseline's, and where both are the same."""
    plots.style(ax, ink=ink)
    ends = [float(pairs.min()), float(pairs.max())]
    ax.plot(ends, ends, color=ink, linewidth=0.8, linestyle="--")
    ax.plot(*pairs.T, "o", markersize=4, alpha=0.6)
    ax.set(xlabel=f"{name}, {best}", ylabel=f"{name}, model")
