"""What span of time a value stands for: intervals (start, end] made explicit, running totals undone, amounts as rates.

A mean or an amount without its interval is off by half a step or a factor: ERA5 stamps the end of its accumulations,
MERRA-2 the middle of its means (hh:30), IMERG the start.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Literal

import numpy as np
import xarray as xr

from models.errors import InputError
from pipelines.weather import canonical, lazy, units

Stamp = Literal["start", "middle", "end"]
# ECMWF's short names of water that is summed up (codes.ecmwf.int/grib/param-db).
_WATER_SUMS = frozenset(["tp", "cp", "lsp", "sf", "csf", "lsf", "e", "es", "pev", "ro", "sro", "ssro", "smlt"])
# Packed totals of 16 bits and more are exact to 2^-16 of their range; a fall by more than this is none of rounding.
_SLACK = 1e-4


def with_intervals(
    data: xr.Dataset, *, stamp: Stamp | None = None, hours: float | None = None, name: str = "dataset"
) -> xr.Dataset:
    """The dataset with interval_start and interval_end along time, where its values stand for intervals.

    They come from the caller, from the file (bounds of time, GRIB headers) or, for MERRA-2 means, ECMWF accumulations
    and IMERG, from what their documents say. They hold for variables whose cell_methods is not `time: point`.

    Args:
        data: canonical dataset.
        stamp: where in its interval a time lies, overriding what is known of the file.
        hours: length of the interval; None takes the step of the times.
        name: file name, for messages.

    Raises:
        InputError: a length is needed and the times have no even step, or a stamp is none of the three.
    """
    if "time" not in data.dims or ("interval_start" in data.coords and stamp is None and hours is None):
        return data
    told = _known(data)
    if stamp is None and told is None:
        return data
    if stamp is not None and stamp not in ("start", "middle", "end"):
        raise InputError(f"stamp {stamp!r}: wanted start, middle or end")
    where, length, which, reason = told or ("end", None, None, "")
    where, length = stamp or where, hours or length or _step_hours(data, name)
    span = np.timedelta64(round(length * 3600), "s")
    before = {"start": span * 0, "middle": span // 2, "end": span}[where]
    starts = data["time"].values - before
    data = data.assign_coords(interval_start=("time", starts), interval_end=("time", starts + span))
    if stamp is None:
        data = _with_methods(data, which)
        notes = [*canonical.notes_of(data), f"{reason}: times are the {where} of intervals of {length:g} h"]
        data = canonical.noted(data, notes)
    return data


def _step_hours(data: xr.Dataset, name: str) -> float:
    """The even step of the times in hours."""
    steps = np.diff(data["time"].values) / np.timedelta64(1, "s")
    if not len(steps) or np.ptp(steps) > 0:
        raise InputError(f"{name}: the length of intervals cannot be told from {data.sizes['time']} times; pass hours")
    return float(steps[0]) / 3600


def _known(data: xr.Dataset) -> tuple[Stamp, float | None, list[Hashable] | None, str] | None:
    """Stamp, length, variables and reason, for files whose documents tell."""
    short = str(data.attrs.get("ShortName", ""))
    merra = re.match(r"M2([TSI])(\d)", short)
    file = re.search(r"\btavg(\d)_", f"{data.attrs.get('Filename', '')} {data.attrs.get('earthtune_source', '')}")
    if merra and merra[1] != "I":
        return "middle", float(merra[2]), None, f"MERRA-2 {short}"
    seconds = (data["time"].values - data["time"].values.astype("datetime64[D]")) / np.timedelta64(1, "s")
    hours = float(file[1]) if file and not merra else 0.0
    if hours and (np.mod(seconds, hours * 3600) == hours * 1800).all():  # the middle of intervals from midnight on
        return "middle", hours, None, "MERRA-2 tavg"
    if "GridHeader" in data.attrs or "IMERG" in str(data.attrs.get("title", "")):
        return "start", 0.5, None, "IMERG"
    sums = [key for key, var in data.data_vars.items() if _ecmwf_sum(var, data)]
    if sums:
        step = np.diff(data["time"].values)
        if len(step) and (step == step[0]).all():
            return "end", None, sums, "ECMWF accumulations"
    return None


def _ecmwf_sum(var: xr.DataArray, data: xr.Dataset) -> bool:
    """Whether a variable is an accumulation as ECMWF's NetCDF files have it."""
    if var.attrs.get("GRIB_stepType") == "accum":
        return True
    ecmwf = any("ecmwf" in str(data.attrs.get(key, "")).lower() for key in ("institution", "history", "GRIB_centre"))
    if not ecmwf or "GRIB_stepType" in var.attrs or "cell_methods" in var.attrs:
        return False
    unit = str(var.attrs.get("units", ""))
    # Metres are of waves and snow depth, too, and kg m-2 of vapour in a column.
    words = " ".join(str(var.attrs.get(key, "")) for key in ("long_name", "standard_name")).lower()
    water = str(var.name) in _WATER_SUMS or re.search(r"precip|rainfall|snowfall|snow ?melt|evaporation|runoff", words)
    return units.is_amount(unit) and (bool(water) or "energy" in units.quantities(unit))


def _with_methods(data: xr.Dataset, which: list[Hashable] | None) -> xr.Dataset:
    """The dataset with cell_methods: sums where listed and points elsewhere, or means throughout."""
    out = data.copy()
    for key, var in out.data_vars.items():
        if "time" in var.dims:
            method = "mean" if which is None else "sum" if key in which else "point"
            var.attrs.setdefault("cell_methods", f"time: {method}")
    return out


def per_step(field: xr.DataArray, *, name: str = "dataset") -> xr.DataArray:
    """Amounts of each step out of running totals: each total minus the one before that began at the same time.

    Totals that begin anew are not touched by those before. What packing made slightly negative becomes 0. Values are
    read when they are indexed, with the step before.

    Args:
        field: amounts with interval_start and interval_end along time.
        name: file name, for messages.

    Returns:
        amounts with intervals that do not overlap.

    Raises:
        InputError: the field has no intervals. Reading raises it where a total falls without beginning anew.
    """
    starts, ends = _intervals(field, name)
    before = np.full(len(ends), -1)
    for at, (start, end) in enumerate(zip(starts, ends, strict=True)):
        earlier = np.flatnonzero((starts == start) & (ends < end))
        if len(earlier):
            before[at] = earlier[np.argmax(ends[earlier])]
    if (before < 0).all():
        return field
    where = f"{name}: {field.name}"
    amounts = lazy.differences(field.variable, "time", before, slack=_SLACK, where=where)
    begins = np.where(before >= 0, ends[before], starts)
    return xr.DataArray(amounts, field.coords, name=field.name).assign_coords(interval_start=("time", begins))


def _intervals(field: xr.DataArray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends along time."""
    if "interval_start" not in field.coords or "time" not in field.dims:
        raise InputError(
            f"{name}: {field.name} is an amount and nothing tells its intervals; pass stamp (start, middle, end), hours"
        )
    return field["interval_start"].values, field["interval_end"].values


def in_unit(field: xr.DataArray, unit: str, *, name: str = "dataset") -> xr.DataArray:
    """The field in another unit, converted where it is indexed; amounts become rates by their intervals.

    Running totals, whose intervals overlap, become amounts per step first. A rate per month counts the days of its own
    month where the field has times.

    Args:
        field: canonical field with an attribute units.
        unit: wanted unit, such as K, hPa or mm/h.
        name: file name, for messages.

    Raises:
        InputError: a unit is missing or not known, they are of different quantities, or intervals are needed.
    """
    have = str(field.attrs.get("units", ""))
    if not have:
        raise InputError(f"{name}: {field.name} has no units, {unit} is wanted; set its attribute units")
    scale: float | np.ndarray
    try:
        change = units.conversion(have, unit)
        scale, offset = _by_month(field, change.scale, have, unit), change.offset
    except InputError as error:
        if not units.is_amount(have) or units.is_amount(unit) or not _convertible(have, unit):
            raise InputError(f"{name}: {field.name}: {error}") from error
        field = per_step(field, name=name)
        starts, ends = _intervals(field, name)
        lengths = (ends - starts) / np.timedelta64(1, "h")
        factors = np.array([units.conversion(have, unit, hours=length).scale for length in lengths])
        scale, offset = _along_time(field, factors), 0.0
    converted = lazy.scaled(field.variable, scale, offset)
    out = xr.DataArray(converted, field.coords, name=field.name, attrs=dict(field.attrs))
    out.attrs["units"] = unit
    if units.is_amount(have) and not units.is_amount(unit):
        out.attrs["cell_methods"] = "time: mean"
    return out


def _along_time(field: xr.DataArray, factors: np.ndarray) -> np.ndarray:
    """Factors by time, in the shape that multiplies the field."""
    return factors.reshape([-1 if dim == "time" else 1 for dim in field.dims])


def _by_month(field: xr.DataArray, scale: float, have: str, unit: str) -> float | np.ndarray:
    """The scale of a conversion with months of their own lengths in place of the mean month."""
    power = units.months(have) - units.months(unit)
    if not power or "time" not in field.dims:
        return scale
    times = field["time"].values
    if "interval_start" in field.coords:
        times = field["interval_start"].values + (field["interval_end"].values - field["interval_start"].values) / 2
    month = times.astype("datetime64[M]")
    days = ((month + 1).astype("datetime64[D]") - month.astype("datetime64[D]")).astype(float)
    return _along_time(field, scale * (days / units.MONTH_DAYS) ** power)


def _convertible(have: str, unit: str) -> bool:
    """Whether an amount can become a rate in a unit, given intervals."""
    try:
        units.conversion(have, unit, hours=1.0)
    except InputError:
        return False
    return True
