"""The largest alerts in small multiples: the ground before and after, and what was watched from day to day."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.files import replacing
from models.types import Mask
from pipelines.changes.alerts import NEW, STANDS, Alert, Alerts
from pipelines.changes.series import EPOCH, Series
from pipelines.grids.windows import Window
from pipelines.reports import plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 6  # alerts
SIDE, LONGEST = 48, 256  # pixels of a window at least, and at most
CLEAR = 0.9  # of an alert's pixels on a day that is shown
HALF = 0.5  # of them on a day that counts
MUCH = 0.9  # of what an earlier day shows of the window, for a later one to be shown in its place
INK, TICKS = "black", 4

Kept = Mapping[str, NDArray[Any]]


def gather(series: Series, alerts: Alerts, kept: Kept) -> dict[str, NDArray[Any]]:
    """What is shown of the largest alerts that stand, by NAME/PART, read from the days that are open.

    Args:
        series: its first feature is shown.
        alerts: as they are now.
        kept: what an earlier call gave, which knows the days that are not read again.

    Returns:
        Of each alert "window" (4,), "here" its pixels in it, "before" and "after" (rows, columns) with their days
        "seen" (2,), and the mean over its pixels by "days" (T,), "values" (T,).
    """
    standing = sorted((one for one in alerts.held if one.status in (NEW, STANDS)), key=lambda one: -one.hectares)
    made = {one.name: _begun(one, alerts.numbers, kept) for one in standing[:SHOWN]}
    for day in series.days:
        for one in standing[:SHOWN]:
            _seen(made[one.name], series, day, one)
        series.close(day)
    return {f"{name}/{part}": np.asarray(array) for name, parts in made.items() for part, array in parts.items()}


def _begun(alert: Alert, numbers: NDArray[np.int32], kept: Kept) -> dict[str, Any]:
    """What is known of an alert before the days are read."""
    prefix = f"{alert.name}/"
    known: dict[str, Any] = {key.removeprefix(prefix): a for key, a in kept.items() if key.startswith(prefix)}
    if not known:
        rows, columns = np.nonzero(numbers == alert.number)
        sides = [_side(found, size) for found, size in zip((rows, columns), numbers.shape, strict=True)]
        empty = np.full([stop - start for start, stop in sides], np.nan, np.float32)
        known = {"window": np.ravel(sides), "before": empty, "after": empty, "seen": np.zeros(2, np.int64)}
        known |= {"days": np.zeros(0, np.int64), "values": np.zeros(0, np.float32)}
    return {**known, "here": numbers[_window(known["window"])] == alert.number}


def _side(found: NDArray[np.int64], size: int) -> tuple[int, int]:
    """First and last row or column of a window about some of them, within a grid."""
    least, most = int(found.min()), int(found.max()) + 1
    wide = min(max(SIDE, 2 * (most - least)), LONGEST, size)
    start = min(max((least + most - wide) // 2, 0), size - wide)
    return start, start + wide


def _window(sides: NDArray[np.int64]) -> Window:
    top, bottom, left, right = map(int, sides)
    return slice(top, bottom), slice(left, right)


def _seen(made: dict[str, Any], series: Series, day: Any, alert: Alert) -> None:
    """Take in a day."""
    if day.number in made["days"]:
        return
    x = series.read(day, _window(made["window"]))[0]
    inside = x[made["here"]]
    share = float(np.isfinite(inside).mean()) if inside.size else 0.0
    if share >= HALF:
        made["days"] = np.append(made["days"], day.number)
        made["values"] = np.append(made["values"], np.float32(np.nanmean(inside)))
    place = "before" if day.date.isoformat() < alert.changed else "after" if day.date.isoformat() > alert.last else None
    if place is None or share < CLEAR or np.isfinite(x).sum() < MUCH * np.isfinite(made[place]).sum():
        return
    at = int(place == "after")
    if day.number > made["seen"][at]:
        seen = made["seen"].copy()
        seen[at] = day.number
        made |= {place: x, "seen": seen}


def write_pictures(path: Path, alerts: Sequence[Alert], shown: Kept, feature: str) -> bool:
    """Draw what `gather` gave, a row an alert; False where there is nothing, and then no file either."""
    known = {key.partition("/")[0] for key in shown}
    rows = sorted((one for one in alerts if one.name in known), key=lambda one: -one.hectares)
    if not rows:
        path.unlink(missing_ok=True)
        return False
    figure = plots.figure(9, 2.3 * len(rows))
    axes = figure.subplots(len(rows), 3, squeeze=False, width_ratios=(1, 1, 2))
    for row, alert in zip(axes, rows, strict=True):
        parts = {key.partition("/")[2]: a for key, a in shown.items() if key.startswith(f"{alert.name}/")}
        both = np.concatenate([parts[name][np.isfinite(parts[name])] for name in ("before", "after")])
        low, high = np.percentile(both, (2, 98)) if both.size else (0.0, 1.0)
        for ax, name, day in zip(row, ("before", "after"), parts["seen"], strict=False):
            title = f"{name}, {EPOCH + datetime.timedelta(days=int(day))}" if day else f"{name}: not read again"
            _ground(ax, parts[name], parts["here"], (low, high), title)
        _course(row[2], parts, alert, feature)
    with replacing(path) as draft:
        figure.savefig(draft, format="png", facecolor="white", metadata={"Software": None})
    return True


def _ground(ax: Axes, x: NDArray[Any], here: Mask, ends: tuple[float, float], title: str) -> None:
    """The ground on a day, with the outline of the alert."""
    ax.imshow(x, cmap=plots.VALUE_COLOURS, vmin=ends[0], vmax=ends[1], interpolation="nearest")
    if here.any() and not here.all():
        ax.contour(here, levels=[0.5], colors="red", linewidths=1)
    ax.set_axis_off()
    ax.set_title(title, fontsize=9)


def _course(ax: Axes, parts: Kept, alert: Alert, feature: str) -> None:
    """The mean over the alert's pixels from day to day, and when they changed."""
    plots.style(ax, ink=INK)
    order = np.argsort(parts["days"])
    days = parts["days"][order].astype("datetime64[D]")
    ax.plot(days, parts["values"][order], ".-", color=plots.SERIES[0], linewidth=0.8, markersize=4)
    ax.axvline(np.datetime64(alert.changed), color="red", linewidth=1)  # type: ignore[arg-type] # axes take dates
    edges = np.append(parts["days"], np.datetime64(alert.changed, "D").astype(np.int64))
    ticks = np.linspace(int(edges.min()), int(edges.max()), TICKS).round().astype("datetime64[D]")
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    moved = f"{feature} {alert.sizes[feature]:+.2f} since {alert.changed}"
    ax.set_title(f"{alert.name}: {alert.hectares:.3g} ha, {moved}", fontsize=9, loc="left")
