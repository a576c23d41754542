"""Times as files have them - numbers since a date, in any calendar, months, words - as datetime64."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import xarray as xr

from models.errors import InputError
from pipelines.weather.units import tidy

_FORECASTS = {"reference_time": "forecast_reference_time", "lead_time": "forecast_period"}  # names of CF


def dates(array: xr.DataArray, name: str, notes: list[str]) -> np.ndarray:
    """Times as datetime64, rounded to seconds; dates of another calendar keep year, month and day.

    Raises:
        InputError: they cannot be decoded, a date does not exist in the standard calendar, or lies beyond what
            datetime64[ns] holds.
    """
    raw = array.variable
    if re.match(r"\s*months? since ", str(raw.attrs.get("units", ""))):
        raw = _by_months(raw, name)
        notes.append("times in months are months of the calendar, with parts of a month by its days")
    if " since " in str(raw.attrs.get("units", "")):
        try:
            raw = xr.decode_cf(xr.Dataset({"t": raw}), decode_timedelta=False)["t"].variable
        except (ValueError, OverflowError, KeyError) as error:
            said = f"{raw.attrs.get('units')!r}, calendar {raw.attrs.get('calendar', 'standard')!r}"
            raise InputError(f"{name}: times of {said} cannot be decoded; correct units and calendar") from error
    values = np.asarray(raw.values)
    if values.dtype.kind in "OSU" and values.size and not hasattr(values.ravel()[0], "calendar"):
        values = np.array([_date(item, name) for item in values.ravel()], "datetime64[s]").reshape(values.shape)
    if values.dtype.kind == "O":
        values = _standard(values, name, notes)
    if np.isnat(values).any():
        raise InputError(f"{name}: {int(np.isnat(values).sum())} of {values.size} times are missing; fill or drop them")
    found: np.ndarray = (values + np.timedelta64(500, "ms")).astype("datetime64[s]")
    if found.size and (found.min() < np.datetime64("1678-01-01") or found.max() > np.datetime64("2262-01-01")):
        raise InputError(f"{name}: times from {found.min()} to {found.max()}, 1678 to 2261 is wanted; shift them")
    return found.astype("datetime64[ns]")


def _by_months(raw: xr.Variable, name: str) -> xr.Variable:
    """Times in months since a date as dates: xarray refuses them, for a month has no length but in a calendar."""
    since = str(raw.attrs["units"]).split(" since ", 1)[1].strip()
    match = re.match(r"(\d{1,4})-0?(\d{1,2})(?:-0?1(?:[ T]0?0(?::0?0)*)?)?(?:\.0*)?$", since)
    if match is None:
        raise InputError(f"{name}: times in months since {since!r}: the first of a month is wanted; give dates instead")
    counts = np.asarray(raw.values, np.float64) + 12 * (int(match[1]) - 1970) + int(match[2]) - 1
    whole = np.floor(counts + 1e-6)
    first = whole.astype(np.int64).astype("datetime64[M]")
    start, end = (month.astype("datetime64[s]") for month in (first, first + 1))
    return xr.Variable(raw.dims, start + ((counts - whole).clip(0) * (end - start).astype(np.int64)).astype("m8[s]"))


def _date(item: Any, name: str) -> np.datetime64:
    """A date in words."""
    text = item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)
    try:
        return np.datetime64(text.replace("_", "T").removesuffix("Z"), "s")
    except ValueError as error:
        raise InputError(f"{name}: time {text!r} is no date; write YYYY-MM-DDTHH:MM") from error


def _standard(values: np.ndarray, name: str, notes: list[str]) -> np.ndarray:
    """Dates of cftime as datetime64 of the same year, month and day."""
    calendar = values.ravel()[0].calendar
    out = []
    for date in values.ravel():
        try:
            out.append(np.datetime64(date.isoformat()[:19], "s"))
        except ValueError as error:
            day = f"{date.year:04d}-{date.month:02d}-{date.day:02d}"
            raise InputError(
                f"{name}: calendar {calendar} has the date {day}, which datetime64 of the standard calendar lacks; "
                "correct units, or convert it first (xarray: convert_calendar('standard', align_on='year'))"
            ) from error
    if calendar not in ("standard", "gregorian", "proleptic_gregorian"):
        notes.append(f"dates of calendar {calendar} are taken as those of the standard calendar")
    return np.array(out).reshape(values.shape)


def with_forecasts(data: xr.Dataset, name: str) -> xr.Dataset:
    """Forecasts of several starts along reference_time and lead_time, as GRIB's are; other datasets as they are.

    Raises:
        InputError: the starts are no dates, or the lead times no numbers of hours or the like.
    """
    wanted = {text: key for key, text in _FORECASTS.items()}
    said = {dim: str(data[dim].attrs.get("standard_name", "")) for dim in data.dims if dim in data.variables}
    # What cfgrib writes: time and step, and the valid time along both.
    valid = next((var.dims for key, var in data.variables.items() if key == "valid_time" and var.ndim == 2), ())
    plain = {"time": "forecast_reference_time", "step": "forecast_period"}
    found = {wanted[text]: dim for dim, text in said.items() if text in wanted}
    found = {wanted[text]: dim for dim, text in plain.items() if dim in valid} | found
    if len(found) < 2 or set(found) == set(found.values()) or min(data.sizes[dim] for dim in found.values()) < 2:
        return data
    start, lead = data[found["reference_time"]], data[found["lead_time"]]
    axes = {"reference_time": dates(start, name, []), "lead_time": _leads(lead, name)}
    names = {dim: key for key, dim in found.items()}
    bare = data.drop_vars([*names, "valid_time"], errors="ignore").rename_dims(names)
    return bare.assign_coords({key: (key, values, {"standard_name": _FORECASTS[key]}) for key, values in axes.items()})


def _leads(array: xr.DataArray, name: str) -> np.ndarray:
    """Lead times as timedelta64."""
    if array.dtype.kind == "m":
        return array.values.astype("timedelta64[ns]")
    seconds = {"s": 1, "min": 60, "h": 3600, "d": 86400}
    unit = tidy(str(array.attrs.get("units", "")).lower())
    if unit not in seconds or array.dtype.kind not in "fiu":
        said = array.attrs.get("units", "none")
        raise InputError(f"{name}: lead times {array.name} have units {said!r}, hours or days are wanted; correct them")
    return np.round(array.values * float(seconds[unit])).astype("timedelta64[s]").astype("timedelta64[ns]")
