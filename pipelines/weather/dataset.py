"""Weather files - NetCDF, Zarr, GRIB, one or many - as one canonical xarray.Dataset, read where it is indexed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from models.errors import InputError, shown
from models.types import Source
from pipelines.recipes.days import Days
from pipelines.weather import canonical, intervals
from pipelines.weather.formats.detect import Format, format_of, is_address
from pipelines.weather.formats.grib import open_grib
from pipelines.weather.formats.netcdf import by_grid, open_netcdf
from pipelines.weather.joining import having, joined, merged, require_variables, source_name
from pipelines.weather.products import RainProduct, Stamp


def open_weather(
    source: Source | Sequence[Source],
    variables: Sequence[str] | None = None,
    *,
    levels: Sequence[float] | None = None,
    to_units: Mapping[str, str] | None = None,
    stamp: Stamp | None = None,
    hours: float | None = None,
    product: RainProduct | None = None,
    group: str | None = None,
) -> xr.Dataset:
    """Open weather files as one dataset in the canonical form (see `canonical`); headers are read, values are not.

    Files of the same variables follow each other in time; files of other variables for the same times go side by side.

    Args:
        source: a file, a Zarr store or the address of one (https://, s3://, gs://), or a sequence of these.
        variables: names wanted, in this order; None takes all.
        levels: labels of the levels wanted; they come rising. None takes all.
        to_units: wanted unit by variable; `mm/h` makes rates of amounts, see `intervals.in_unit`.
        stamp: where in its interval the time of a mean or an amount lies, whatever the files tell.
        hours: length of that interval; None takes the step of the times.
        product: what the files hold, of `products.PRODUCTS`, where they do not tell.
        group: group of an HDF5 file or Zarr store; None finds IMERG's `Grid`, or the only one there is.

    Raises:
        InputError: a file is missing, damaged or no weather file; names, levels or units are not there; files do not
            fit together; times come twice.
    """
    paths = [named(source)] if isinstance(source, str | Path) else [named(item) for item in source]
    if not paths:
        raise InputError("no weather file given: pass a file, or several")
    parts = [part for path in paths for part in open_parts(path, group=group)]
    if variables is not None:
        if not variables:
            raise InputError(f"{paths[0]}: no variable is wanted; name some, or leave variables out for all")
        parts = having(parts, variables)
    if levels is not None:
        if not any("level" in part.dims for part in parts):
            raise InputError(f"{source_name(parts[0])}: levels are wanted and it has none; leave them out")
        parts = [select_levels(p, levels, name=source_name(p)) if "level" in p.dims else p for p in parts]
    data = joined(parts)
    data = data if variables is None else data[list(variables)]
    data = intervals.with_intervals(data, stamp=stamp, hours=hours, product=product, name=source_name(data))
    for key, unit in (to_units or {}).items():
        require_variables(data, [key])
        data = data.assign({key: intervals.in_unit(data[key], unit, name=source_name(data))})
    return canonical.check(data, name=source_name(data))


def named(source: Source) -> Source:
    """A path of this machine, or an address as it is."""
    return str(source) if is_address(source) else Path(source)


def called(source: Source) -> str:
    """The last part of a path or of an address, for messages."""
    return shown(str(source)).rstrip("/").rpartition("/")[2] if is_address(source) else Path(source).name


def in_days(data: xr.Dataset, days: Days, *, name: str = "dataset") -> xr.Dataset:
    """The times of a canonical dataset that lie in some days, UTC; one without times stays as it is.

    Raises:
        InputError: there is none.
    """
    if "time" not in data.dims:
        return data
    times = data["time"].values.astype("datetime64[D]")
    at = np.flatnonzero((times >= np.datetime64(days.first)) & (times <= np.datetime64(days.last)))
    if not len(at):
        raise InputError(f"{name}: no time in {days.first} to {days.last}, it has {times.min()} to {times.max()}")
    return data.isel(time=slice(int(at[0]), int(at[-1]) + 1))


def open_parts(path: Source, *, group: str | None = None) -> list[xr.Dataset]:
    """What a file, or a Zarr store behind an address, holds, in the canonical form.

    One dataset for each set of variables that share times, levels and grid.

    Raises:
        InputError: as in `open_weather`.
    """
    kind = Format.ZARR if isinstance(path, str) else format_of(path)
    raw = open_grib(Path(path)) if kind is Format.GRIB else by_grid(open_netcdf(path, kind, group))
    return canonical_parts(raw, str(path))


def canonical_parts(raw: Sequence[xr.Dataset], path: str) -> list[xr.Dataset]:
    """Datasets of a file or store of this path or address, in the canonical form.

    Raises:
        InputError: none of them has one.
    """
    parts, problems = list[xr.Dataset](), list[str]()
    for part in raw:
        try:
            parts.append(canonical.to_canonical(part, name=path).assign_attrs(earthtune_source=called(path)))
        except InputError as error:
            problems.append(str(error))
    if not parts:
        raise InputError(problems[0])
    parts[0] = canonical.noted(parts[0], [*canonical.notes_of(parts[0]), *(f"left out: {text}" for text in problems)])
    return merged(parts)


def select_levels(data: xr.Dataset, levels: Sequence[float], *, name: str = "dataset") -> xr.Dataset:
    """The levels of these labels (hPa, or model level numbers), rising.

    Raises:
        InputError: none is wanted, or one is not there; the message lists those that are.
    """
    if not levels:
        raise InputError(f"{name}: no level is wanted; name some, or leave levels out for all")
    there = data["level"].values
    unit = data["level"].attrs.get("units", "")
    at = []
    for level in sorted(set(levels)):
        near = np.flatnonzero(np.abs(there - level) <= 1e-6 * max(abs(level), 1.0))
        if not len(near):
            listed = ", ".join(f"{label:g}" for label in there)
            raise InputError(f"{name}: level {level:g} is wanted, it has {listed} {unit}".rstrip())
        at.append(int(near[0]))
    return data.isel(level=at)


def one_forecast(data: xr.Dataset, reference: str, *, name: str = "dataset") -> xr.Dataset:
    """One of several forecasts that overlap, on a time axis of valid times; totals get the interval from its start.

    Args:
        data: canonical dataset with reference_time and lead_time.
        reference: start of the forecast, YYYY-MM-DDTHH:MM.
        name: file name, for messages.

    Raises:
        InputError: the dataset does not hold several forecasts, or none that starts then.
    """
    if "reference_time" not in data.dims or "lead_time" not in data.dims:
        raise InputError(f"{name}: a forecast is to be chosen and it does not hold several; use it as it is")
    starts = data["reference_time"].values
    at = np.flatnonzero(starts == np.datetime64(reference))
    if not len(at):
        listed = ", ".join(np.datetime_as_string(start, "m") for start in starts[:10])
        raise InputError(f"{name}: the forecast of {reference} is wanted, it has those of {listed}")
    start = starts[at[0]]
    chosen = data.isel(reference_time=int(at[0])).rename(lead_time="time")
    chosen = chosen.assign_coords(time=("time", start + data["lead_time"].values, {"standard_name": "time"}))
    sums = [key for key, var in chosen.data_vars.items() if var.attrs.get("cell_methods") == "time: sum"]
    if sums:
        begins = np.full(chosen.sizes["time"], start)
        chosen = chosen.assign_coords(interval_start=("time", begins), interval_end=("time", chosen["time"].values))
    return chosen
