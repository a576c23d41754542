"""Weather as it is brought: the fields of a region in the days of a month, a file each."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr

from pipelines.recipes.days import Days


@dataclass(frozen=True)
class Piece:
    """Fields of one grid in the days of one month.

    Attributes:
        name: of its file, without .nc.
        date: its first day, YYYY-MM-DD; that of the request for fields without times.
        size: bytes of its values as float32, as far as that is known before they are read.
        read: the values of the region and the days.
        key: what decides them, beside the request.
        notes: what a person should know of it, a sentence each.
    """

    name: str
    date: str
    size: int
    read: Callable[[], xr.Dataset]
    key: Mapping[str, Any]
    notes: Sequence[str] = ()


def ends(month: datetime.date, days: Days) -> tuple[datetime.date, datetime.date]:
    """The first and the last of the days that lie in the month of a day."""
    first = month.replace(day=1)
    last = (first + datetime.timedelta(days=31)).replace(day=1) - datetime.timedelta(days=1)
    return max(first, days.first), min(last, days.last)


def bytes_of(data: xr.Dataset) -> int:
    """Bytes of the fields as float32."""
    return sum(4 * int(var.size) for var in data.data_vars.values())
