"""Months of a season, and the times of a field by month."""

from __future__ import annotations

import calendar
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from models.errors import InputError
from pipelines.weather import intervals

Floats = NDArray[np.float64]

LETTERS = "JFMAMJJASOND"
WHOLE = 0.9  # share of a month's days that have to be there


@dataclass(frozen=True)
class Season:
    """Months that follow each other, and the month that is known before them.

    Attributes:
        name: first letters of the months.
        last: the last of them, 1..12; its year is that of the season.
        lead: months between the one that is known and the first.
    """

    name: str
    last: int
    lead: int

    @classmethod
    def of(cls, name: str, lead: int) -> Season:
        """A season by its letters.

        Raises:
            InputError: no such season, or a lead below 0 or above 11.
        """
        letters = name.upper()
        at = (LETTERS * 2).find(letters)
        if not 2 <= len(letters) <= 12 or at < 0:
            raise InputError(f"season {name!r}: wanted first letters of 2 to 12 months in a row, such as DJF or JJAS")
        if not 0 <= lead <= 11:
            raise InputError(f"lead {lead}: wanted 0 to 11 months")
        return cls(letters, (at + len(letters) - 1) % 12 + 1, lead)

    def months(self, year: int) -> list[int]:
        """The months of a year's season, counted from the year 0."""
        end = year * 12 + self.last
        return list(range(end - len(self.name), end))

    def known(self, year: int) -> int:
        """The month that is known, counted from the year 0."""
        return self.months(year)[0] - 1 - self.lead

    def known_month(self, year: int) -> str:
        """That month as text, such as October 2020."""
        return month_name(self.known(year))


@dataclass(frozen=True)
class Months:
    """A field's times by month.

    Attributes:
        field: (time, ..., lat, lon), read month by month.
        at: by month, counted from the year 0, the places of its times; only months that are whole.
    """

    field: xr.DataArray
    at: Mapping[int, NDArray[np.intp]]

    @classmethod
    def of(cls, field: xr.DataArray, *, name: str) -> Months:
        """Sort the times of a field into months.

        Raises:
            InputError: no time axis, fewer than two times, or steps longer than a month.
        """
        if "time" not in field.dims or field.sizes["time"] < 2:
            raise InputError(f"{name}: {field.name} wants many times, monthly or finer; pass dated files of many years")
        times = field["time"].values
        if "interval_start" in field.coords:
            field = intervals.per_step(field, name=name)  # means of running totals would be of no span at all
            start, end = field["interval_start"].values, field["interval_end"].values
            times = start + (end - start) / 2
        days = float(np.median(np.diff(field["time"].values)) / np.timedelta64(1, "D"))
        if days > 32:
            raise InputError(f"{name}: {field.name} has steps of {days:.0f} days, months or finer are wanted")
        months = times.astype("datetime64[M]").astype(int) + 1970 * 12
        found, counts = np.unique(months, return_counts=True)
        least = [WHOLE * np.floor(_days(int(month)) / days) for month in found]
        return cls(field, {int(month): np.flatnonzero(months == month) for month in found[counts >= least]})

    def mean(self, months: Iterable[int]) -> Floats:
        """The mean over whole months, each counting its days: (..., lat, lon), NaN where a value is missing."""
        chosen = list(months)
        axis = self.field.dims.index("time")
        fields = [self.field.isel(time=self.at[month]).values.mean(axis=axis, dtype=np.float64) for month in chosen]
        return np.asarray(np.average(fields, axis=0, weights=[_days(month) for month in chosen]))


def month_name(month: int) -> str:
    """A month that is counted from the year 0 as text."""
    return f"{calendar.month_name[month % 12 + 1]} {month // 12}"


def _days(month: int) -> int:
    """Days of a month that is counted from the year 0."""
    return calendar.monthrange(month // 12, month % 12 + 1)[1]
