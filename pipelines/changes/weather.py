"""Rain and temperature of the weeks before a change, beside the same weeks of other years."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError
from pipelines.changes.series import EPOCH
from pipelines.weather.dataset import open_weather
from pipelines.weather.intervals import in_unit, per_step

BEFORE = 90  # days
LEAST = 5  # other years; of fewer nothing is said
COVERED = 0.9  # of the days before, that have a value
ODD = 0.1  # of the other years, at most, that were as far out
# Names of the variables, by their unit; the first that is there.
NAMES = {
    "mm/day": ("tp", "pr", "prectotcorr", "prectot", "total_precipitation", "precipitation", "rain"),
    "degC": ("t2m", "2t", "tas", "2m_temperature", "air_temperature", "temperature"),
}
Days = dict[int, float]


@dataclass(frozen=True)
class Weather:
    """Daily weather of a place: values by days since 1970.

    Attributes:
        rain: mm a day; empty where the files have none.
        temperature: degrees Celsius; empty where the files have none.
    """

    rain: Days
    temperature: Days

    def words(self, day: datetime.date) -> str:
        """Whether the `BEFORE` days up to a day were dry, wet, cold or warm, beside those of other years."""
        parts = [
            _said(self.rain, day, ("dry", "wet"), f"mm of rain in {BEFORE} days", BEFORE),
            _said(self.temperature, day, ("cold", "warm"), "degrees Celsius", 1),
        ]
        return "; ".join(part for part in parts if part)


def read_weather(sources: Sequence[str | Path], place: tuple[float, float]) -> Weather:
    """The weather at a place, latitude and longitude, by the cell that it lies in.

    Raises:
        InputError: the files do not cover it, or hold neither rain nor temperature by the day.
    """
    data = open_weather(sources)
    names = {str(name).lower(): str(name) for name in data.data_vars}
    found: dict[str, Days] = {}
    for unit, known in NAMES.items():
        name = next((names[one] for one in known if one in names), None)
        found[unit] = _daily(data, name, unit, place, str(sources[0])) if name else {}
    if not any(found.values()):
        wanted = ", ".join(one for known in NAMES.values() for one in known)
        raise InputError(f"{sources[0]}: holds {', '.join(names.values())}; wanted rain or temperature, as {wanted}")
    return Weather(found["mm/day"], found["degC"])


def _daily(data: Any, name: str, unit: str, place: tuple[float, float], source: str) -> Days:
    """Means of the days of a variable at a place."""
    at = []
    for axis, value, turn in (("lat", place[0], np.inf), ("lon", place[1], 360.0)):
        if axis not in data.dims or data.sizes[axis] < 2:
            raise InputError(f"{source}: has no grid of latitudes and longitudes, so no cell is that of the place")
        cells = np.asarray(data[axis].values, np.float64)
        away = np.abs(cells - value)
        away = np.minimum(away, turn - away) if np.isfinite(turn) else away
        if away.min() > np.abs(np.diff(cells)).max():
            raise InputError(f"{source}: {axis} {cells.min():g} to {cells.max():g} does not cover {value:.3f}")
        at.append(int(away.argmin()))
    cell = data[name].isel(lat=[at[0]], lon=[at[1]])
    cell = in_unit(cell if unit == "degC" else _rates(cell, source), unit, name=source)
    times = np.asarray(cell.time.values).astype("datetime64[D]").astype(np.int64)
    if len(times) < 2 or np.median(np.diff(times)) > 1:
        raise InputError(f"{source}: wanted a value a day or more of {name}; months do not tell {BEFORE} days")
    return _means(times, np.asarray(cell.values, np.float64).reshape(len(times), -1)[:, 0])


def _rates(cell: Any, source: str) -> Any:
    """Rain whose amounts do not overlap."""
    return per_step(cell, name=source) if "interval_start" in cell.coords else cell


def _means(days: NDArray[np.int64], values: NDArray[np.float64]) -> Days:
    """Mean of each day that has values."""
    known = np.isfinite(values)
    each, where = np.unique(days[known], return_inverse=True)
    sums, counts = np.bincount(where, values[known]), np.bincount(where)
    return dict(zip(each.tolist(), (sums / counts).tolist(), strict=True))


def _said(days: Days, day: datetime.date, ends: tuple[str, str], unit: str, times: float) -> str:
    """What the days before were, in words; empty where too little is known."""
    years = sorted({(EPOCH + datetime.timedelta(days=known)).year for known in days})
    each = {year: _before(days, _same_day(day, year)) for year in years}
    own = each.pop(day.year, None)
    others = np.array([value for value in each.values() if value is not None])
    if own is None or len(others) < LEAST:
        return ""
    below, above = int((others < own).sum()), int((others > own).sum())
    count = len(others)
    low, high = below <= ODD * count, above <= ODD * count
    told = ends[0] if low else ends[1] if high else "usual"
    beside = f"more than in {below}" if not low else f"less than in {above}"
    return f"{told}: {own * times:.0f} {unit}, {beside} of {count} other years"


def _same_day(day: datetime.date, year: int) -> datetime.date:
    """The day in another year; the 28th of February for the 29th."""
    return day.replace(year=year, day=min(day.day, 28) if day.month == 2 else day.day)


def _before(days: Days, day: datetime.date) -> float | None:
    """Mean over the days before a day; None where too many lack."""
    last = (day - EPOCH).days
    known = [days[at] for at in range(last - BEFORE, last) if at in days]
    return float(np.mean(known)) if len(known) >= COVERED * BEFORE else None
