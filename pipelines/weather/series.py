"""Series of weather before many places and times, from any weather files; what lies after a time is never seen.

A value counts where it is complete: an instant at its time, a mean or an amount at the end of its interval. So the mean
of a day that is stamped at its start is not known before the next day, and days need not begin when a window does.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from rasterio._err import CPLE_BaseError  # `transform` raises these; rasterio.errors does not name them
from rasterio.warp import transform

from models.errors import InputError
from models.types import Array, Mask
from pipelines.recipes.fused import Before
from pipelines.weather import canonical, intervals, joining, products, regrid, units
from pipelines.weather.dataset import open_parts
from pipelines.weather.formats.detect import is_weather
from pipelines.weather.regions import check_rectilinear, extent
from pipelines.weather.regrid import Join

Integers = NDArray[np.int64]

PART = 1 << 22  # values that are read from files at once
_HOUR, _DAY = 3600, 86400  # seconds
_REACH = 0.25  # degrees around the middle of the only cell of a file, whose size nothing tells
_UNEVEN = 31 / 28  # months may be as much longer than the step that is to hold them


@dataclass(frozen=True)
class _Field:
    """A variable of the files.

    Attributes:
        name: its name.
        unit: its unit; empty where the files say none.
        source: the file, for messages.
        values: (time, lat, lon), with members first where it is of an ensemble.
        ends: when each value is complete, seconds since 1970, rising: (S,).
        lengths: seconds that each value stands for, alike for instants: (S,).
        grid: coordinates lat and lon.
    """

    name: str
    unit: str
    source: str
    values: xr.Variable
    ends: Integers
    lengths: NDArray[np.float64]
    grid: xr.Dataset


class WeatherSeries:
    """The weather before places and times, read where it is asked for.

    Attributes:
        channels: names of the variables.
        units: their units, empty where the files say none; amounts have become rates, mm/h or W m-2.
        steps: values of a series.
        notes: what a person should know, a sentence each.
    """

    def __init__(self, before: Before, fields: Sequence[_Field], notes: Sequence[str]) -> None:
        """Keep what was opened."""
        self._before, self._fields, self.notes = before, tuple(fields), list(notes)
        self.channels = tuple(field.name for field in fields)
        self.units = tuple(field.unit for field in fields)
        self.steps = before.steps

    def at(
        self, latitudes: ArrayLike, longitudes: ArrayLike, times: ArrayLike, *, bounds: ArrayLike | None = None
    ) -> tuple[Array, Mask]:
        """The means over the steps before each sample, the oldest first.

        Value k of T is the mean of what is complete in (t - (T - k) step, t - (T - k - 1) step]. Values of a place
        count as long as they stand for. A mean over cells is that of the cells with data, where these are half of it or
        more.

        Args:
            latitudes: degrees north (N,).
            longitudes: degrees east, of either convention (N,).
            times: datetime64 in UTC (N,).
            bounds: west, south, east, north of each sample in degrees (N, 4), for means over areas; west above east
                crosses the antimeridian.

        Returns:
            values (N, T, C) and where there are any (N, T, C); 0 where there are none.

        Raises:
            InputError: there are not as many of each, numbers are no places, times or areas, or a file is damaged.
        """
        places = _places(latitudes, longitudes, bounds if self._before.join == "area" else None, self._before.join)
        unique, which = np.unique(places, axis=0, return_inverse=True)
        order = np.argsort(which.ravel(), kind="stable")  # samples of a place are neighbours
        which, when = which.ravel()[order], _seconds(times, len(places))[order]
        step = self._before.step * _HOUR
        edges = when[:, None] - np.round(step * np.arange(self.steps, -1, -1)).astype(np.int64)  # (N, T + 1)
        values = np.zeros((len(when), self.steps, len(self._fields)), np.float32)
        valid = np.zeros(values.shape, bool)
        grids: dict[tuple[bytes, bytes], regrid.Shares] = {}
        for channel, field in enumerate(self._fields):
            key = field.grid["lat"].values.tobytes(), field.grid["lon"].values.tobytes()
            if key not in grids:
                lat, lon = (field.grid[dim].values for dim in ("lat", "lon"))
                grids[key] = regrid.shares(lat, lon, unique, join=self._before.join, name=field.source)
                self._tell(field, int((~grids[key].inside)[which].sum()), len(which))
            values[order, :, channel], valid[order, :, channel] = _means(field, grids[key], which, edges)
        return values, valid

    def _tell(self, field: _Field, outside: int, count: int) -> None:
        """Note how many samples a file does not reach."""
        if outside:
            note = f"{outside} of {count} samples lie outside of {field.source} ({extent(field.grid)}), they have no "
            note += "weather of it"
            self.notes += [note] if note not in self.notes else []


def open_series(before: Before, *, root: Path = Path()) -> WeatherSeries:
    """Open the weather that is to go before samples; headers are read, values are not.

    Args:
        before: files, variables, and what is made of them.
        root: folder that relative files and patterns start from.

    Raises:
        InputError: a file is missing or no weather file, a variable is not there or has levels, files do not fit
            together, the grid is none of latitudes and longitudes, values stand for longer than a step, or nothing
            tells what span an amount fell in.
    """
    parts = [part for path in _files(before.files, root) for part in open_parts(path)]
    parts = joining.having(parts, before.variables) if before.variables else parts
    groups: dict[frozenset[Any], list[xr.Dataset]] = {}
    for part in parts:
        groups.setdefault(frozenset(part.data_vars), []).append(part)
    fields: dict[str, _Field] = {}
    notes: list[str] = []
    for members in groups.values():
        data = _of_point(_with_intervals(joining.joined(members), before), notes)
        notes += canonical.notes_of(data)
        for key in data.data_vars:
            found = _field(data, str(key), before, notes)
            if found and found.name in fields:
                twice = f"{found.name} is in {fields[found.name].source} too"
                raise InputError(f"{found.source}: {twice}; name the variables that you want (data.weather.variables)")
            fields |= {found.name: found} if found else {}
    if not fields:
        raise InputError(f"{joining.source_name(parts[0])}: no variable has times and no levels; pass dated files")
    wanted = before.variables or tuple(fields)
    return WeatherSeries(before, [fields[name] for name in dict.fromkeys(wanted)], list(dict.fromkeys(notes)))


def _files(wanted: Sequence[str], root: Path) -> list[Path]:
    """The weather files of paths, folders and patterns, each once."""
    if not wanted:
        raise InputError("data.weather.files: none is named; wanted files, folders of them, or patterns such as '*.nc'")
    found: list[Path] = []
    for text in wanted:
        if "://" in text:
            raise InputError(f"data.weather.files {text}: a path of this machine is wanted; fetch the weather first")
        path = root / text
        if path.is_dir() and not is_weather(str(path)):
            matches = sorted(file for file in path.iterdir() if is_weather(str(file)))
        elif path.exists():
            matches = [path]
        else:
            near = sorted(glob.glob(text, root_dir=root, recursive=True))
            matches = [root / match for match in near if is_weather(str(root / match))]
        if not matches:
            raise InputError(f"{path}: no weather file is there (NetCDF, Zarr or GRIB); look at data.weather.files")
        found += matches
    return list(dict.fromkeys(found))


def _with_intervals(data: xr.Dataset, before: Before) -> xr.Dataset:
    """The dataset with what is known of its intervals, as the recipe says where the files do not tell."""
    name = joining.source_name(data)
    told = intervals.with_intervals(data, name=name)
    asked = "time" in data.dims and (_daily(_since(data["time"].values)) or _asking(told))
    if before.stamp is None or "interval_start" in told.coords or not asked:
        return told
    return intervals.with_intervals(data, stamp=before.stamp, hours=before.hours, name=name)


def _of_point(data: xr.Dataset, notes: list[str]) -> xr.Dataset:
    """A file of one cell as four alike around its middle, with a note; any other as it is."""
    down, across = ("lat", "lon") if "lat" in data.dims else ("y", "x")
    if data.sizes.get(down) != 1 or data.sizes.get(across) != 1 or (down == "y" and "spatial_ref" not in data.coords):
        return data
    north, east = float(data[down].values[0]), float(data[across].values[0])
    if down == "y" and not np.isfinite((north, east)).all():
        raise InputError(f"{joining.source_name(data)}: its only cell has no place ({down} {north}, {across} {east})")
    if down == "y":
        try:
            (east,), (north,) = transform(str(data["spatial_ref"].attrs["crs_wkt"]), "EPSG:4326", [east], [north])
        except CPLE_BaseError as error:  # a local system, say
            raise InputError(
                f"{joining.source_name(data)}: nothing leads from the coordinate system of its only cell to latitudes "
                "and longitudes; correct it, or name its coordinates lat and lon"
            ) from error
    notes.append(f"{joining.source_name(data)}: holds one cell, which counts within {_REACH:g} degrees of its middle")
    four = data.isel({down: [0, 0], across: [0, 0]}).rename({} if down == "lat" else {down: "lat", across: "lon"})
    return four.assign_coords(lat=north + _REACH * np.array([0.5, -0.5]), lon=east + _REACH * np.array([-0.5, 0.5]))


def _asking(data: xr.Dataset) -> bool:
    """Whether there is an amount of no known interval."""
    return any(intervals.ASKS in var.attrs for var in data.data_vars.values())


def _field(data: xr.Dataset, key: str, before: Before, notes: list[str]) -> _Field | None:
    """A variable as it can be used; None, with a note, where it cannot and was not asked for.

    Raises:
        InputError: see `open_series`.
    """
    name, field = joining.source_name(data), data[key]
    field = field.isel(level=0) if field.sizes.get("level") == 1 else field
    check_rectilinear(data, name)
    odd = [str(dim) for dim in field.dims if dim not in ("number", "time", "lat", "lon")]
    if odd or "time" not in field.dims:
        why = f"has the dimension {odd[0]}" if odd else "has no times"
        if before.variables:
            raise InputError(f"{name}: variable {key} {why}; name variables of time, latitude and longitude")
        notes.append(f"{name}: {key} was left out, it {why}")
        return None
    if key in _sums(data):
        field = _rate(field, name)
    ends, lengths, told = _complete(field)
    notes += [f"{name}: {told}"] if told else []
    longest = float(lengths.max()) / _HOUR
    if (lengths <= 0).any() or (np.diff(ends) < 0).any():
        raise InputError(f"{name}: the intervals of {key} do not end in the order of its times; correct their bounds")
    if longest > before.step * _UNEVEN:
        raise InputError(
            f"{name}: a value of {key} stands for {longest:g} h, a series in steps of {before.step:g} h is wanted; say "
            f"data.weather.step {longest:g} or more"
        )
    unit = str(field.attrs.get("units", ""))
    grid = xr.Dataset(coords={dim: data[dim] for dim in ("lat", "lon")})
    return _Field(key, unit, name, field.variable, ends, lengths, grid)


def _sums(data: xr.Dataset) -> set[str]:
    """The variables that are amounts of an interval."""
    known = products.known(data) if "time" in data.dims else None
    listed = {str(key) for key in (known.sums or ())} if known else set()
    summed = {str(key) for key, var in data.data_vars.items() if "time: sum" in str(var.attrs.get("cell_methods", ""))}
    amounts = {str(key) for key, var in data.data_vars.items() if units.is_amount(str(var.attrs.get("units", "")))}
    return (listed | summed) & amounts


def _rate(field: xr.DataArray, name: str) -> xr.DataArray:
    """An amount as a rate."""
    if "interval_start" not in field.coords:
        why = field.attrs.get(intervals.ASKS, "nothing tells its intervals")
        raise InputError(
            f"{name}: {field.name} is an amount and {why}; say data.weather.stamp (start, middle or end) and hours"
        )
    energy = "energy" in units.quantities(str(field.attrs["units"]))
    return intervals.in_unit(field, "W m-2" if energy else "mm/h", name=name)


def _complete(field: xr.DataArray) -> tuple[Integers, NDArray[np.float64], str]:
    """When each value is complete, the seconds that it stands for, and what was taken for granted.

    Where nothing tells whether a time of day that is the same every day is an instant or begins a mean, values are not
    seen before the latter would be complete.
    """
    times, methods = field["time"].values, str(field.attrs.get("cell_methods", ""))
    stamps = _since(times)
    instant = re.search(r"time: point", methods) is not None
    if "interval_end" in field.coords and not instant:
        starts, ends = (_since(field[key].values) for key in ("interval_start", "interval_end"))
        spans = (ends - starts).astype(np.float64)
        return ends, spans if spans.any() else np.ones(len(ends)), ""
    if instant or not (_daily(stamps) or re.search(r"time: [a-z]", methods)):
        return stamps, np.ones(len(stamps)), ""
    step = int(np.median(np.diff(stamps))) if len(stamps) > 1 else _DAY
    months = times.astype("datetime64[M]")
    monthly = len(times) > 1 and step <= 31 * _DAY and bool((times == months).all())
    ends = _since(months + 1) if monthly else stamps + step
    later = "a month" if monthly else f"{step / _HOUR:g} h"
    told = f"where nothing tells what a time stands for, its values count {later} later"
    return ends, (ends - stamps).astype(np.float64), told


def _daily(stamps: Integers) -> bool:
    """Whether all times are at the same time of the day."""
    return len(np.unique(stamps % _DAY)) == 1


def _since(times: NDArray[Any]) -> Integers:
    """Datetimes as seconds since 1970."""
    return times.astype("datetime64[s]").astype(np.int64)


def _seconds(times: ArrayLike, count: int) -> Integers:
    """Times of samples as seconds since 1970; parts of a second are cut off, so that they look no further."""
    given = np.asarray(times).reshape(-1)
    if given.size and given.dtype.kind not in "MOSU":
        raise InputError(f"times of samples: {given.dtype.name} are no dates; write YYYY-MM-DDTHH:MM")
    try:
        when = given.astype("datetime64[s]")
    except (ValueError, TypeError) as error:
        raise InputError(f"times of samples: {error}; write YYYY-MM-DDTHH:MM") from error
    if len(when) != count or np.isnat(when).any():
        raise InputError(f"{count} places have {int((~np.isnat(when)).sum())} times; wanted one for each")
    return _since(when)


def _places(latitudes: ArrayLike, longitudes: ArrayLike, bounds: ArrayLike | None, join: Join) -> NDArray[np.float64]:
    """What tells places from each other: latitude and longitude (N, 2), or bounds (N, 4)."""
    lat, lon = (np.asarray(of, np.float64).reshape(-1) for of in (latitudes, longitudes))
    if len(lat) != len(lon) or not np.isfinite([*lat, *lon]).all() or (np.abs(lat) > 90).any():
        raise InputError(
            f"{len(lat)} latitudes and {len(lon)} longitudes: wanted one of each for a sample, in degrees, "
            "latitudes -90..90"
        )
    if join != "area":
        return np.stack([lat, lon], axis=-1)
    boxes = np.zeros((0, 4)) if bounds is None else np.asarray(bounds, np.float64).reshape(-1, 4)
    if len(boxes) != len(lat):
        raise InputError(f"data.weather.join area: {len(lat)} samples have {len(boxes)} areas; wanted one for each")
    west, south, east, north = boxes.T
    if not (np.isfinite(boxes).all() and (south < north).all() and (np.abs(boxes[:, 1::2]) <= 90).all()):
        raise InputError(
            "areas of samples: wanted west, south, east, north in degrees, latitudes -90..90 in this order"
        )
    if (west == east).any():
        raise InputError("areas of samples: one has no width; take data.weather.join cell or bilinear for points")
    return boxes


def _means(
    field: _Field, where: regrid.Shares, which: Integers, edges: Integers
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Means between edges in time (N, T + 1) at the places of samples, and where there are any: (N, T)."""
    at = np.searchsorted(field.ends, edges, side="right")  # (N, T + 1)
    at[~where.inside[which]] = 0
    total, weight = np.zeros((2, len(at), at.shape[1] - 1))
    for block in _blocks(at, len(field.ends), max(PART // max(where.cells, len(where.inside), 1), 1)):
        values, known = where.means(field.values, block)  # (U, S)
        lengths = field.lengths[block]
        here = at.clip(block.start, block.stop) - block.start
        total += _between(values * lengths, which, here)
        weight += _between(known * lengths, which, here)
    valid = weight > 0
    return np.divide(total, weight, out=np.zeros_like(total), where=valid), valid


def _blocks(at: Integers, count: int, most: int) -> Iterator[slice]:
    """Runs of the times that any sample needs, each once and at most so many at once."""
    begun, done = (np.bincount(at[:, end], minlength=count + 1).cumsum() for end in (0, -1))
    needed = np.flatnonzero((begun - done)[:count] > 0)
    for run in np.split(needed, np.flatnonzero(np.diff(needed) != 1) + 1):
        for first in range(0, len(run), most):
            yield slice(int(run[first]), int(run[min(first + most, len(run)) - 1]) + 1)


def _between(series: NDArray[np.float64], which: Integers, here: Integers) -> NDArray[np.float64]:
    """Sums of the series of places (U, S) between positions (N, T + 1) of samples that are in the order of places."""
    padded = np.pad(series, ((0, 0), (0, 1)))  # a sum may begin behind the last
    starts = which[:, None] * padded.shape[1] + here
    sums = np.add.reduceat(padded.ravel(), starts.ravel()).reshape(here.shape)[:, :-1]
    return np.where(np.diff(here) > 0, sums, 0.0)
