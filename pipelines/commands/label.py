"""earthtune label: what runs and maps have cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.errors import InputError
from models.files import check_target
from pipelines.commands.outcome import Outcome
from pipelines.records.attempts import read_records
from pipelines.records.footprint import WORLD, Span, country_of, said
from pipelines.records.label import Record, summed


def label(
    paths: list[Path],
    *,
    country: str | None = None,
    picture: Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Add up what was recorded of runs, maps, forecasts and embeddings: energy, CO2e, water, time, memory.

    Of one place by phase, of several side by side. What was not measured is a range: nothing is asked of the network,
    and nothing is computed anew. Work that was killed counts as far as it came.

    Args:
        paths: run folders, folders of maps or forecasts, files of embeddings.
        country: whose power it was, see the others; as was recorded when not given.
        picture: PNG to write, the score of several runs against their energy.
        overwrite: replace a picture that exists.

    Returns:
        "total" of all, and "places", the same of each with its path and, of a run, its score.

    Raises:
        InputError: nothing was recorded, or it is damaged; no such country.
    """
    if picture:
        check_target(picture, ".png", overwrite=overwrite)
    grid = country_of(country) if country else None
    every: dict[str, Record] = {}
    places = []
    for path in dict.fromkeys(paths):
        records = read_records(path)
        every |= {record["id"]: record for record in records}
        places.append({"path": str(path), **summed(records, grid), "score": _score(path)})
    if picture:
        _draw(picture, places, overwrite=overwrite)
    return {"total": summed(list(every.values()), grid), "places": places}


def _score(run: Path) -> dict[str, Any] | None:
    """The leading score of a run, as metrics.json tells it; None of other places."""
    try:
        held = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        name = held["compared"]["score"]
        return {"name": name, "value": float(held["model"][name]), "samples": held["samples"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _draw(picture: Path, places: Sequence[Mapping[str, Any]], *, overwrite: bool) -> None:
    """The picture of those that have a score, which has to be the same."""
    from pipelines.reports.cost import write_comparison

    scored = [place for place in places if place["score"]]
    names = sorted({place["score"]["name"] for place in scored})
    if len(scored) < 2 or len(names) > 1:
        came = f"{len(scored)} with {', '.join(names) or 'none'}"
        raise InputError(f"{picture}: wanted two runs or more with one score, came {came}; name others")
    points = [(Path(place["path"]).name, place["wh"], place["score"]["value"]) for place in scored]
    write_comparison(picture, points, names[0], overwrite=overwrite)


def told(result: Mapping[str, Any], options: Mapping[str, Any]) -> Outcome:
    """A table of phases, or of places, and what all of it stands for."""
    from pipelines.reports.cost import columns, rows, why

    total, places = result["total"], result["places"]
    table = _by_phase(total) if len(places) == 1 else _by_place(places)
    lines = [*columns(table), "", *columns(rows(total)), "", f"{total['kind']}: {why(total)}"]
    if total["countries"] == [WORLD]:
        lines.append("Country unknown: CO2e is a range over the world; --country or EARTHTUNE_COUNTRY names it.")
    lines += [f"picture: {options['picture']}"] if options.get("picture") else []
    return Outcome(dict(result), "\n".join(lines))


def _by_phase(total: Mapping[str, Any]) -> list[Sequence[str]]:
    """A row for each phase."""
    from pipelines.reports.cost import seconds

    table: list[Sequence[str]] = [("phase", "energy", "processors", "time", "memory")]
    for name, phase in total["phases"].items():
        cells = said(phase["wh"], "Wh"), seconds(phase["cpu_s"]), seconds(phase["wall_s"])
        table.append((name, *cells, f"{phase['peak_bytes'] / 1e9:.2g} GB"))
    return table


def _by_place(places: Sequence[Mapping[str, Any]]) -> list[Sequence[str]]:
    """A row for each place."""
    table: list[Sequence[str]] = [("place", "energy", "how", "per 1,000 km2", "per 1,000 samples", "score")]
    for place in places:
        score = place["score"]
        each = (_each(place[f"wh_per_1000_{what}"]) for what in ("km2", "samples"))
        value = f"{score['name']} {score['value']:.3g}" if score else "-"
        table.append((place["path"], said(place["wh"], "Wh"), place["kind"], *each, value))
    return table


def _each(span: Span | None) -> str:
    """A span, or that nothing was counted."""
    return said(span, "Wh") if span else "-"
