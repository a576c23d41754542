"""Weather files as fields in memory or on disk: the variables, region and days that a recipe names."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from models.backbones.wxc_inputs import kept_rows, stack_channels
from models.errors import InputError
from models.spec import Spec
from models.types import Array, Source
from pipelines.grids.areas import OTHER_SIZE
from pipelines.recipes.days import Days, read_days
from pipelines.recipes.weather import WeatherData
from pipelines.weather import intervals
from pipelines.weather.dataset import called, in_days, open_weather
from pipelines.weather.formats.detect import is_address
from pipelines.weather.merra2 import holders, static_series
from pipelines.weather.regions import Region, cell, check_rectilinear, region_of, step, window

HELD = 1 << 30  # bytes of fields in memory; more lie on disk, and are read sample by sample
PART = 1 << 24  # values that are read from files at once


@dataclass(frozen=True)
class Weather:
    """Fields on one grid, rows from north to south.

    Attributes:
        times: (T,) datetime64[s], rising.
        lat: (H,) degrees north, falling.
        lon: (W,) degrees east, rising.
        fields: (T, C, H, W) in the units of the Spec.
        channels: their names.
        units: their units; empty where the files say none.
        name: the files, for messages.
        static: (T, S, H, W) fields that do not change, or by month only; None where none were asked for.
    """

    times: NDArray[Any]
    lat: NDArray[Any]
    lon: NDArray[Any]
    fields: Array
    channels: tuple[str, ...]
    units: tuple[str, ...]
    name: str
    static: Array | None = None

    @property
    def size(self) -> tuple[float, ...]:
        """Usual height and width of a cell in degrees; nothing where there is but one row or column."""
        sides = step(self.lat), step(self.lon)
        return sides if min(sides) > 0 else ()


def find_files(root: Path, patterns: Sequence[str]) -> list[Source]:
    """The files of some patterns, sorted, each once; addresses as they are.

    Raises:
        InputError: no such folder, or a pattern that nothing matches, that is empty or starts elsewhere.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the data with --data.root DIR")
    found: list[Source] = []
    for pattern in patterns:
        if is_address(pattern):
            found.append(pattern)
            continue
        try:
            matches = sorted(root.glob(pattern))
        except (NotImplementedError, ValueError) as error:
            raise InputError(
                f"{pattern!r}: wanted a pattern below data.root ({root}), such as '*.nc'; --data.root DIR names it"
            ) from error
        if not matches:
            raise InputError(f"{root}: no file matches {pattern!r}; look at the patterns of the recipe's data")
        found += matches
    return list(dict.fromkeys(found))


def read_weather(
    files: Sequence[Source],
    variables: Sequence[str],
    *,
    region: Region | None = None,
    cut: Callable[..., xr.Dataset] = window,
    days: Days | None = None,
    units: Sequence[str] = (),
    static: Sequence[str] = (),
    check: Callable[[Sequence[str]], None] = lambda names: None,
) -> Weather:
    """Read fields by name.

    Args:
        files: weather files; they go together in time and side by side.
        variables: names, or VARIABLE_LEVEL, which files hold as VARIABLE on levels or under this name; all of two
            dimensions when empty.
        region: the cells in it, all when None.
        cut: says which these are: `regions.window`, or `around`.
        days: the times in them, all when None.
        units: the unit wanted of each; as in the files when empty, as for those whose unit is empty.
        static: names of fields that do not change, as MERRA-2 has them.
        check: refuses names that may not be read.

    Raises:
        InputError: a variable or level is not there, or may not be read; no time axis; no grid of latitudes and
            longitudes; values that are missing; more than the disk holds.
    """
    check(variables)
    bases = holders(files, variables)
    data = open_weather(files, list(dict.fromkeys(bases)) or None)
    name = ", ".join(map(called, files[:3])) + (" ..." if len(files) > 3 else "")
    if "time" not in data.dims:
        raise InputError(f"{name}: a time axis is wanted and there is none; pass dated files")
    check_rectilinear(data, name=name)
    data = data if region is None else cut(data, region, name=name)
    data = data if days is None else in_days(data, days, name=name)
    if not variables:
        variables = [
            str(key) for key, var in data.data_vars.items() if {*var.dims} - {"number"} == {"time", "lat", "lon"}
        ]
        check(variables)
        bases = list(variables)
    wanted = dict(zip(bases, units or [""] * len(bases), strict=True))
    chosen = {base: _in_unit(data[base], unit, name) for base, unit in wanted.items()}
    levels = tuple(float(level) for level in data["level"].values) if "level" in data.dims else ()
    bare = next((key for key in variables if key in chosen and "level" in chosen[key].dims), None)
    if bare is not None:
        listed = ", ".join(f"{bare}_{level:g}" for level in levels[:8])
        raise InputError(f"{name}: variable {bare} has levels; name one of them: {listed}")
    times = data["time"].values.astype("datetime64[s]")
    rows = kept_rows(data["lat"].values)
    here = tuple(str(chosen[base].attrs.get("units", "")) for base in bases)
    lat, lon = data["lat"].values[rows], data["lon"].values
    fields = room((len(times), len(variables), len(lat), len(lon)))
    part = max(PART // fields[0].size, 1)
    for first in range(0, len(times), part):
        read = {key: _values(var, first, min(first + part, len(times))) for key, var in chosen.items()}
        flat = {key: values for key, values in read.items() if "level" not in chosen[key].dims}
        deep = {key: values for key, values in read.items() if "level" in chosen[key].dims}
        fields[first : first + part] = stack_channels(variables, flat, deep, levels=levels)[..., rows, :]
    fixed = static_series(files, static, times, lat=lat, lon=lon, region=region) if static else None
    return Weather(times, lat, lon, fields, tuple(variables), here, name, fixed)


def within(data: WeatherData) -> dict[str, Any]:
    """The region and the days that a recipe's data name, as `read_weather` takes them."""
    days = read_days(data.dates, "data.dates") if data.dates else None
    return {"region": region_of(data.region or None, such="-20,35,50,70"), "days": days}


def room(shape: tuple[int, ...]) -> Array:
    """Zeros, float32: in memory, or where they are too many in a file without a name that is gone with them.

    Raises:
        InputError: the disk has no room for them.
    """
    size, free = 4 * math.prod(shape), shutil.disk_usage(tempfile.gettempdir()).free
    if size <= HELD:
        return np.zeros(shape, np.float32)
    if size > free:
        raise InputError(
            f"{size / 1e9:.1f} GB of fields are to be read, {free / 1e9:.1f} GB are free in {tempfile.gettempdir()}; "
            "name fewer variables, data.region or data.dates, or fetch a region and its days first (earthtune fetch)"
        )
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.float32, "w+", shape=shape)


def mean_of_members(field: xr.DataArray) -> xr.DataArray:
    """The mean of an ensemble; the field itself, where there is one member."""
    return field.mean("number", keep_attrs=True) if "number" in field.dims else field


def _values(field: xr.DataArray, first: int, end: int) -> NDArray[Any]:
    """Values of some times, (T, ...), of an ensemble its mean; what has no times is the same at all."""
    if "time" in field.dims:
        return np.asarray(mean_of_members(field.isel(time=slice(first, end))).values)
    values = mean_of_members(field).values
    return np.broadcast_to(values, (end - first, *values.shape))


def _in_unit(field: xr.DataArray, unit: str, name: str) -> xr.DataArray:
    """The field in a unit, where both are known."""
    have = str(field.attrs.get("units", ""))
    return field if not unit or not have or have == unit else intervals.in_unit(field, unit, name=name)


def cell_notes(weather: Weather, spec: Spec) -> list[str]:
    """A warning where the cells of weather are of quite another size than those of the training, in degrees."""
    pairs = list(zip(weather.size, spec.weather.size, strict=False))
    if all(1 / OTHER_SIZE < came / trained < OTHER_SIZE for came, trained in pairs):
        return []
    (down, across), (high, wide) = weather.size, spec.weather.size
    return [
        f"WARNING: {weather.name}: its cells are {down:.4g} x {across:.4g} deg, those of the training {high:.4g} x "
        f"{wide:.4g} deg: the model knows no such weather; regrid the files (pipelines.weather.regrid.on_grid), or "
        "train on such cells"
    ]


def describe(weather: Weather) -> str:
    """Times and grid in words."""
    first, last = (np.datetime_as_string(weather.times[i], "m") for i in (0, -1))
    grid, shape = (
        xr.Dataset(coords={"lat": weather.lat, "lon": weather.lon}),
        f"{len(weather.lat)} x {len(weather.lon)}",
    )
    return f"{len(weather.times)} times {first} to {last}, {shape} cells of {cell(grid)}"
