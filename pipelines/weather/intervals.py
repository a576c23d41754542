"""What span of time a value stands for: intervals (start, end] made explicit, running totals undone, amounts as rates.

A mean or an amount without its interval is off by half a step or a factor: ERA5 stamps the end of its accumulations,
MERRA-2 the middle of its means (hh:30), IMERG the start, and ERA5-Land's amounts run on since 00 UTC.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import get_args

import numpy as np
import xarray as xr

from models.errors import InputError
from pipelines.weather import canonical, lazy, units
from pipelines.weather.products import SLACK, Interval, Known, RainProduct, Stamp, doubts, known

ASKS = "earthtune_interval"  # attribute of an amount: why its intervals are not known


def with_intervals(
    data: xr.Dataset,
    *,
    stamp: Stamp | None = None,
    hours: float | None = None,
    product: RainProduct | None = None,
    name: str = "dataset",
) -> xr.Dataset:
    """The dataset with interval_start and interval_end along time, where its values stand for intervals.

    They come from the caller, from the file (bounds of time, GRIB headers), from what the documents of its product say
    where the file names it (`products.known`), or else from the product that the caller names. They hold for variables
    whose cell_methods is not `time: point`. Where they are not known, making a rate of an amount tells why.

    Args:
        data: canonical dataset.
        stamp: where in its interval a time lies, overriding what is known of the file.
        hours: length of the interval; None takes the step of the times.
        product: what the file holds, where it does not say itself.
        name: file name, for messages.

    Raises:
        InputError: a length is needed and the times have no even step, a stamp is none of the three, or times or
            values speak against the product.
    """
    if product is not None and product.given:
        stamp, hours = product.stamp, float(product.hours)
    if "time" not in data.dims or ("interval_start" in data.coords and stamp is None and hours is None):
        return data
    if stamp is not None and stamp not in get_args(Stamp):
        raise InputError(f"stamp {stamp!r}: wanted start, middle or end")
    told = known(data) if stamp is None or hours is None else None
    if stamp is not None:
        where = Interval(stamp, hours or (_length(told) if told else None) or _step_hours(data, name))
        return _spread(data, where)
    if product is not None and (told is None or not told.sure or told.interval is None):
        told = _by_product(data, product, told, name)
    if told is None:
        return data
    if told.interval is None:
        return _asking(data, told)
    interval = replace(told.interval, hours=hours) if hours else told.interval
    data = _with_methods(_spread(data, interval), told.sums, interval)
    return canonical.noted(data, [*canonical.notes_of(data), f"{told.reason}: {interval}"])


def _length(told: Known) -> float | None:
    """The length that is known, in hours."""
    return float(told.interval.hours) if told.interval and not isinstance(told.interval.hours, str) else None


def _by_product(data: xr.Dataset, product: RainProduct, told: Known | None, name: str) -> Known:
    """The intervals of a product that the caller names.

    Raises:
        InputError: times or values speak against it.
    """
    sums = told.sums if told else None
    amounts = sums or [key for key, var in data.data_vars.items() if units.is_amount(str(var.attrs.get("units", "")))]
    amounts = [key for key in amounts if "time" in data[key].dims]
    doubt = doubts(data, amounts) if not isinstance(product.hours, str) and product.hours < 24 else ""
    if not doubt and not isinstance(product.hours, str) and _monthly(data):
        doubt = "its times are months apart"
    if doubt:
        raise InputError(
            f"{name}: {product.interval} were wanted and {doubt}; name another product (data.target), or what holds "
            "(data.target {variable, unit, stamp, hours}; in Python stamp, hours)"
        )
    return Known(product.interval, "by the product that was named", sums)


def _monthly(data: xr.Dataset) -> bool:
    """Whether there are several times, each at the start of another month."""
    times = data["time"].values
    return len(times) > 1 and bool((times == times.astype("datetime64[M]")).all())


def _spread(data: xr.Dataset, interval: Interval) -> xr.Dataset:
    """The dataset with the intervals of its times."""
    starts, ends = interval.limits(data["time"].values)
    return data.assign_coords(interval_start=("time", starts), interval_end=("time", ends))


def _asking(data: xr.Dataset, told: Known) -> xr.Dataset:
    """The dataset whose amounts say why nothing is known of their intervals."""
    every = told.sums if told.sums is not None else list(data.data_vars)
    asks = {key: data[key].assign_attrs({ASKS: told.reason}) for key in every}
    return canonical.noted(data.assign(asks), [*canonical.notes_of(data), f"intervals are not known: {told.reason}"])


def _step_hours(data: xr.Dataset, name: str) -> float:
    """The even step of the times in hours."""
    steps = np.diff(data["time"].values) / np.timedelta64(1, "s")
    if not len(steps) or np.ptp(steps) > 0:
        raise InputError(f"{name}: the length of intervals cannot be told from {data.sizes['time']} times; pass hours")
    return float(steps[0]) / 3600


def _with_methods(data: xr.Dataset, which: list[Hashable] | None, interval: Interval) -> xr.Dataset:
    """The dataset with cell_methods: sums where listed and points elsewhere, or means throughout.

    Amounts that are means of those of a day get the unit that says so.
    """
    out = data.copy()
    for key, var in out.data_vars.items():
        unit, amount = str(var.attrs.get("units", "")), which is None or key in which
        if "time" in var.dims and amount and interval.per_day and units.is_amount(unit):
            var.attrs |= {"units": f"{unit} d-1", "cell_methods": "time: mean"}
        elif "time" in var.dims:
            method = "mean" if which is None else "sum" if amount else "point"
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
    amounts = lazy.differences(field.variable, "time", before, slack=SLACK, where=where)
    begins = np.where(before >= 0, ends[before], starts)
    return xr.DataArray(amounts, field.coords, name=field.name).assign_coords(interval_start=("time", begins))


def _intervals(field: xr.DataArray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends along time."""
    if "interval_start" not in field.coords or "time" not in field.dims:
        why = field.attrs.get(ASKS, "nothing tells its intervals")
        raise InputError(
            f"{name}: {field.name} is an amount and {why}; pass stamp (start, middle, end), hours, or the product, "
            "which recipes call data.target"
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
