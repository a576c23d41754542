"""Areas with their intervals as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models import files
from models.spec import ClassDef
from pipelines.reports import plots


def draw_areas(path: Path, rows: Sequence[Mapping[str, Any]], classes: Sequence[ClassDef]) -> None:
    """Draw hectares of classes as bars, with 95 % intervals, and ticks where the map itself puts them.

    Args:
        path: the PNG to write; it appears whole, or not at all.
        rows: a row a class, as `areas` gives them.
        classes: the classes, in that order.

    Raises:
        RunError: the disk does not take the file.
    """
    figure = plots.figure(7.0, 1.0 + 0.4 * len(rows))
    figure.set_facecolor("white")
    ax = figure.add_subplot()
    values = {entry.name: row["hectares"] for entry, row in zip(classes, rows, strict=True)}
    plots.class_bars(ax, values, classes, texts=[""] * len(rows))
    for place, row in enumerate(rows):
        low, high = row["low"], row["high"]
        end = row["hectares"] if high is None else high
        if high is not None:
            half = [[max(row["hectares"] - low, 0)], [max(high - row["hectares"], 0)]]
            ax.errorbar(row["hectares"], place, xerr=half, color="black", capsize=4, lw=1.2)
        ax.plot([row["mapped_hectares"]] * 2, [place - 0.42, place + 0.42], color="black", lw=1.2, ls=":")
        told = f"{row['hectares']:,.0f} ha" + (" (no interval)" if high is None else "")
        ax.annotate(
            told, (max(end, row["mapped_hectares"]), place), (6, 0), textcoords="offset points", va="center", fontsize=9
        )
    ax.set_xlabel("hectares with 95 % intervals; dotted: counted in the map")
    with files.draft(path) as draft:
        figure.savefig(draft, format="png")
