"""The page of a search: its trials in a table and as pictures, what other seeds told, what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import stdev
from typing import Any

from models.files import draft
from pipelines.records.footprint import said
from pipelines.reports import cost
from pipelines.reports.measures import ABSENT, View, named, number, rank, with_unit
from pipelines.reports.report import INKS, plotted, render
from pipelines.searching.pictures import importance_bars, parallel
from pipelines.searching.seeds import CAME, Seeds
from pipelines.searching.space import Range, Space, short
from pipelines.searching.trial import COMPLETE, FAILED, Told

TEMPLATE = "search.html.j2"


def write_report(
    path: Path,
    *,
    name: str,
    headline: str,
    known: Mapping[int, Told],
    best: int | None,
    space: Space,
    worth: Mapping[str, float],
    seeded: Seeds | None,
    folds: int,
    notes: Sequence[str],
) -> None:
    """Write the page.

    Args:
        path: the file to write.
        name: of the recipe.
        headline: the best trial, in a sentence.
        known: the trials by number.
        best: the number of the best.
        space: what was tried.
        worth: the share of each setting in what makes trials differ.
        seeded: what other seeds told.
        folds: how many there are.
        notes: what limits the numbers, a sentence each.
    """
    scored = {number: told for number, told in known.items() if told.mean is not None}
    view = {
        "inks": INKS,
        "title": f"Search: {name}",
        "headline": headline,
        "tiles": _tiles(known, best),
        "names": list(space),
        "rows": [_row(n, told, space, best, folds) for n, told in sorted(known.items(), key=_place)],
        "parallel": _parallel(scored, space, best),
        "importance": _importance(worth),
        "seeds": _seeds(seeded),
        "cost": cost.view(path.parent),
        "facts": {key: _told(dimension) for key, dimension in space.items()},
        "notes": notes,
    }
    with draft(path) as file:
        file.write_text(render(view, TEMPLATE), encoding="utf-8")


def _place(pair: tuple[int, Told]) -> tuple[bool, float, int]:
    """Complete ones first, the best on top."""
    n, told = pair
    return told.state != COMPLETE, -rank(told.score, told.mean), n


def _tiles(known: Mapping[int, Told], best: int | None) -> list[View]:
    """The large numbers at the top of the page."""
    states = [told.state for told in known.values()]
    ended = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    tiles = [{"name": "Trials", "value": len(known), "beside": ended}]
    if best is None:
        return tiles
    told = known[best]
    low, high = (number(told.score, end) for end in (min(told.groups.values()), max(told.groups.values())))
    score = with_unit(told.score, number(told.score, told.mean), told.unit)
    return [{"name": named(told.score), "value": score, "beside": f"groups: {low} to {high}"}, *tiles]


def _row(n: int, told: Told, space: Space, best: int | None, folds: int) -> View:
    """A trial in the table."""
    spread = stdev(told.groups.values()) if len(told.groups) > 1 else None
    return {
        "number": n + 1,
        "best": n == best,
        "failed": told.state == FAILED,
        "state": f"failed: {told.error}" if told.state == FAILED else told.state,
        "mean": number(told.score, told.mean) if told.score else ABSENT,
        "spread": number(told.score, spread) if told.score else ABSENT,
        "folds": f"{len(told.folds)} of {folds}",
        "time": cost.seconds(told.seconds),
        "wh": said(told.wh, "Wh") if told.wh else ABSENT,
        "params": [short(told.params[name]) if name in told.params else ABSENT for name in space],
    }


def _parallel(scored: Mapping[int, Told], space: Space, best: int | None) -> View | None:
    """What was tried and what came of it; nothing of one trial."""
    if len(scored) < 2:
        return None
    plot = partial(parallel, known=scored, space=space, best=best)
    told = "Each trial as a line over its settings and its score; pruned ones dotted"
    return plotted(plot, width=max(1.35 * (len(space) + 1), 5.0), height=4.2, alt=told)


def _importance(worth: Mapping[str, float]) -> View | None:
    """What mattered."""
    if not worth:
        return None
    told = "; ".join(f"{name} {100 * share:.0f} %" for name, share in worth.items())
    return plotted(partial(importance_bars, worth=worth), width=5.6, height=0.5 + 0.32 * len(worth), alt=told)


def _seeds(seeded: Seeds | None) -> View | None:
    """The best and the recipe as it came, seed by seed."""
    if seeded is None:
        return None
    rows = [
        {"seed": seed, "scores": [number(one.score, one.mean) for one in pair]} for seed, pair in seeded.pairs.items()
    ]
    first = next(iter(seeded.pairs.values()))[0]
    return {
        "told": seeded.told,
        "score": named(first.score, first.unit),
        "columns": [f"trial {seeded.best + 1}", CAME],
        "rows": rows,
    }


def _told(dimension: Any) -> str:
    """A range or choices in words."""
    if isinstance(dimension, Range):
        return f"{short(dimension.low)} to {short(dimension.high)}{', by factors' if dimension.log else ''}"
    return ", ".join(map(short, dimension))
