"""Weather from a Zarr store behind an address."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr

from models.errors import InputError, shown
from pipelines.access.archives.pieces import Piece, bytes_of, ends
from pipelines.access.place import Place
from pipelines.recipes.days import Days
from pipelines.weather.dataset import open_parts
from pipelines.weather.formats.detect import Format
from pipelines.weather.formats.netcdf import open_netcdf
from pipelines.weather.joining import having
from pipelines.weather.regions import Region, around


def pieces_of_store(
    product: str, address: str, variables: Sequence[str], place: Place, days: Days
) -> tuple[list[Piece], int]:
    """The region and the days of each grid, month by month; and at most how many bytes of chunks that touches.

    Raises:
        InputError: no such store, fields or region.
    """
    parts = open_parts(address)
    if not variables:
        names = sorted({str(key) for part in parts for key in part.data_vars})
        raise InputError(f"--variables: name fields of {', '.join(names[:60])}{' ...' if len(names) > 60 else ''}")
    cut = list(_cut(product, having(parts, variables), place, days, address))
    pieces = [Piece(name, date, bytes_of(data), data.load, _key(data)) for name, date, data in cut]
    return pieces, _most_bytes(address, variables, [data for _, _, data in cut])


def _cut(
    product: str, parts: list[xr.Dataset], place: Place, days: Days, address: str
) -> Iterator[tuple[str, str, xr.Dataset]]:
    """Name, first day and fields of each piece; values are not read."""
    for number, part in enumerate(parts):
        end = f"_{number}" if len(parts) > 1 else ""
        near = around(part, Region(*place.bounds), name=shown(address))
        if "time" not in part.dims:
            yield f"{product}{end}", str(days.first), near
            continue
        times = near["time"].values.astype("datetime64[D]")
        inside = (times >= np.datetime64(days.first)) & (times <= np.datetime64(days.last))
        for month in np.unique(times[inside].astype("datetime64[M]")):
            at = np.flatnonzero(inside & (times.astype("datetime64[M]") == month))
            first, last = ends(month.astype("datetime64[D]").astype(datetime.date), days)
            yield f"{product}_{first:%Y%m%d}-{last:%Y%m%d}{end}", str(first), near.isel(time=at)


def _key(data: xr.Dataset) -> dict[str, Any]:
    """Times and shapes of fields."""
    times = [str(data["time"].values[at]) for at in (0, -1)] if "time" in data.dims else []
    return {"times": times, "shapes": {str(name): list(var.shape) for name, var in data.data_vars.items()}}


def _most_bytes(address: str, variables: Iterable[str], cut: Sequence[xr.Dataset]) -> int:
    """Bytes of the chunks that are touched, unpacked, if each begins and ends in the middle of one."""
    raw, total = open_netcdf(address, Format.ZARR, None), 0
    for key in variables:
        chunks = raw[key].encoding.get("chunks") if key in raw else None
        for data in cut:
            if chunks and key in data and data[key].ndim == len(chunks):
                shapes = zip(data[key].shape, raw[key].shape, chunks, strict=True)
                count = math.prod(min((n + c - 2) // c + 1, -(-whole // c)) for n, whole, c in shapes)
                total += count * math.prod(chunks) * raw[key].dtype.itemsize
    return total
