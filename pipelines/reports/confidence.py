"""What a report shows of how far a model is to be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from pipelines.reports import plots
from pipelines.reports.measures import View, number
from pipelines.reports.report import plotted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 1e-3  # share of the answers that a bin of reliability holds at least; fewer say nothing
ROWS = {
    "ece": "Expected calibration error",
    "nll": "Negative log likelihood",
    "half": "Right, of the surer half",
    "auroc": "AUROC of telling right from wrong",
}


def view(found: Mapping[str, Any] | None, ground: Mapping[str, Any] | None) -> View | None:
    """Sentences, a table, and the reliability; None where nothing is known.

    Args:
        found: see `trust.confidence`.
        ground: see `trust.familiar_ground`.
    """
    told = [*(found["told"] if found else []), *_of_ground(ground or {})]
    if not found or "raw" not in found["measures"]:
        return {"told": told, "rows": []} if told else None
    ways = {"raw": found["measures"]["raw"]}
    if found["calibration"]["temperature"] != 1:
        ways["calibrated"] = found["measures"]["calibrated"]
    rows = [{"name": name, "cells": [number(key, each[key]) for each in ways.values()]} for key, name in ROWS.items()]
    shares = found["measures"]["coverage"]
    surest = ", ".join(f"{shares[share // 10 - 1]:.3f} of the surest {share} %" for share in (10, 50, 80, 100))
    alt = "How often answers are right, by how sure they are"
    picture = plotted(partial(_reliability, ways=ways), width=4.2, height=3.2, alt=alt)
    return {"told": told, "ways": [*ways], "rows": rows, "picture": picture, "coverage": f"Right are {surest}."}


def _of_ground(ground: Mapping[str, Any]) -> list[str]:
    """What is unlike the training's ground, and its weather, in words."""
    told = []
    if ground.get("limit", 0) >= 1:
        told.append(
            f"What is unfamiliar can be mapped (--unfamiliar), but {ground['groups']} groups are too few to say how "
            "much of a new place is to be expected: no scene is warned of."
        )
    elif "limit" in ground:
        told.append(
            f"Of left-out groups {ground['flagged']:.0%} of the pixels count as unlike the training's ground in the "
            f"mean, and 95 of 100 groups have less than {max(ground['limit'], 0.01):.0%}; a scene with more is warned "
            "of."
        )
    if "weather" in ground:
        told.append(
            f"The weather before {ground['weather']:.0%} of left-out groups counts as unlike the training's; where it "
            "does, that is told when a map is made."
        )
    return told


def _reliability(ax: Axes, *, ways: Mapping[str, Mapping[str, Any]], ink: str = "black") -> None:
    """How often answers are right against how sure they are, raw and calibrated."""
    plots.style(ax, ink=ink)
    ax.plot([0, 1], [0, 1], color=ink, linewidth=0.8, linestyle="--")
    for (way, found), marker in zip(ways.items(), ("o", "s"), strict=False):
        least = SHOWN * sum(bin_[2] for bin_ in found["bins"])
        shown = [bin_[:2] for bin_ in found["bins"] if bin_[2] >= least]
        ax.plot(*zip(*shown, strict=True), marker=marker, markersize=4, label=way)
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="how sure", ylabel="share right")
    ax.legend(frameon=False, labelcolor=ink)
