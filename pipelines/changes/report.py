"""The page of a watched place: its map, its largest alerts, all that stand in a table, and what changed as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.files import draft
from pipelines.changes.alerts import NEW, STANDS, Alert
from pipelines.changes.state import Page
from pipelines.reports.measures import View
from pipelines.reports.report import INKS, image_file, render

TEMPLATE = "changes.html.j2"
LISTED = 200  # alerts in the table


def write_report(
    path: Path, page: Page, alerts: Sequence[Alert], kinds: Sequence[Mapping[str, Any]], pictures: Mapping[str, Path]
) -> None:
    """Write the page.

    Args:
        path: the file to write.
        page: what is watched, and how far.
        alerts: all so far.
        kinds: of ground, that changed as a whole, see `work.kinds_changed`.
        pictures: PNG files: picture, of the map; alerts_picture, where there is one.

    Raises:
        RunError: the disk does not take it.
    """
    standing = sorted((one for one in alerts if one.status in (NEW, STANDS)), key=lambda one: -one.hectares)
    hectares = sum(one.hectares for one in standing)
    watched = sorted(day for day in page.dates if day >= page.since)
    last = watched[-1] if watched else page.history[-1]
    classes = any(one.class_before or one.class_after for one in standing)
    view = {
        "inks": INKS,
        "title": f"Changes since {page.since}",
        "headline": f"{len(standing)} alerts stand on {last}, {hectares:.4g} ha in all.",
        "tiles": _tiles(alerts, standing, hectares, (len(page.history), len(watched))),
        "map": image_file(pictures["picture"])["light"],
        "pictures": _pictured(pictures, [one.name for one in standing]),
        "kinds": [kind_words(kind) for kind in kinds],
        "told": f"The {LISTED} largest of {len(standing)}; changes.gpkg holds all." if len(standing) > LISTED else "",
        "columns": ["Alert", "Changed", "Confirmed", "Hectares", "Probability", *(["Class"] * classes), "Why"],
        "alerts": [_row(one, classes=classes) for one in standing[:LISTED]],
        "cost": None,
        "facts": {
            "History": f"{page.history[0]} to {page.history[-1]}, {len(page.history)} dates",
            "Watched": f"{page.since} to {last}, {len(watched)} dates",
            "Indices and bands": ", ".join(page.features),
            "False alarms": f"{page.rate:g} of the unchanged pixels in a year, as far as the history tells",
            "Least alert": f"{page.least:g} ha",
        },
        "notes": [
            "A change is confirmed by three clear dates that agree: what is newer than that is not told yet.",
            "The rate of false alarms is that of years of the history that were left out; a drought that none of them "
            "had alarms more.",
        ],
    }
    with draft(path) as file:
        file.write_text(render(view, TEMPLATE), encoding="utf-8")


def _tiles(alerts: Sequence[Alert], standing: Sequence[Alert], hectares: float, dates: tuple[int, int]) -> list[View]:
    """The large numbers at the top of the page."""
    new, back = (sum(one.status == status for one in alerts) for status in (NEW, "taken back"))
    return [
        {"name": "Alerts", "value": len(standing), "beside": f"{new} new, {back} taken back"},
        {"name": "Hectares", "value": f"{hectares:.4g}", "beside": "that stand"},
        {"name": "Dates", "value": dates[1], "beside": f"beside {dates[0]} of history"},
    ]


def _pictured(pictures: Mapping[str, Path], names: Sequence[str]) -> View | None:
    """The picture of the largest alerts; nothing where none stands."""
    file = pictures.get("alerts_picture")
    return image_file(file, alt=f"The ground before and after: {', '.join(names[:6])}") if file else None


def kind_words(kind: Mapping[str, Any]) -> str:
    """A kind of ground that changed as a whole, in words."""
    sizes = " and ".join(f"{name} by {size:+.2f}" for name, size in kind["sizes"].items())
    return f"kind {kind['kind']}, {kind['share']:.0%} of the ground, since {kind['since']}: {sizes}"


def _row(alert: Alert, *, classes: bool) -> list[str]:
    """An alert in the table."""
    days = f"{alert.changed} to {alert.last}" if alert.last != alert.changed else alert.changed
    told = [alert.name, days, alert.confirmed, f"{alert.hectares:.3g}", f"{alert.probability:.3f}"]
    told += [f"{alert.class_before or '?'} to {alert.class_after or '?'}"] if classes else []
    return [*told, "; ".join(words for words in (alert.reason, alert.weather) if words)]
