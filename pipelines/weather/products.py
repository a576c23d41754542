"""Products as their files have them: variable, unit, the interval a time stands for; and which one a file holds.

An interval is never guessed from the spacing of times: whoever keeps 00, 06, 12 and 18 UTC of ERA5 still has sums of an
hour. Spacing only makes doubtful what a name alone would tell.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipelines.weather import units

Stamp = Literal["start", "middle", "end"]
# Lengths that are no number of hours: from 00 UTC on, and the calendar day or month that a time lies in.
RUNNING: Literal["since 00 UTC"] = "since 00 UTC"
DAY: Literal["day"] = "day"
MONTH: Literal["month"] = "month"
Length = float | Literal["since 00 UTC", "day", "month"]
# ECMWF's short names of water that is summed up (codes.ecmwf.int/grib/param-db).
_WATER_SUMS = frozenset(["tp", "cp", "lsp", "sf", "csf", "lsf", "e", "es", "pev", "ro", "sro", "ssro", "smlt"])
# Packed totals of 16 bits and more are exact to 2^-16 of their range; a fall by more than this is none of rounding.
SLACK = 1e-4
_RUN, _CELLS = 49, 16  # times in a row, and cells along a side, whose values are looked at
_RISES = 3  # steps of a day in which sums of an hour hardly all rise, in none of many cells fall
_COARSE = 0.4  # degrees between ERA5's cells (0.25) and those of its ensemble (0.5)


@dataclass(frozen=True)
class Interval:
    """What a time stands for.

    Attributes:
        stamp: where in its interval a time lies.
        hours: length of the interval.
        per_day: amounts are means over the interval of those of a day, though their unit does not say so.
    """

    stamp: Stamp
    hours: Length
    per_day: bool = False

    def limits(self, times: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Starts and ends of the intervals of times (N,) datetime64."""
        if self.hours == RUNNING:  # 00 UTC ends the day before
            return (times - np.timedelta64(1, "s")).astype("datetime64[D]").astype(times.dtype), times
        if isinstance(self.hours, str):
            whole = times.astype("datetime64[M]" if self.hours == MONTH else "datetime64[D]")
            return whole.astype(times.dtype), (whole + 1).astype(times.dtype)
        span = np.timedelta64(round(self.hours * 3600), "s")
        starts = times - {"start": span * 0, "middle": span // 2, "end": span}[self.stamp]
        return starts, starts + span

    def __str__(self) -> str:
        """The interval in words."""
        if self.hours == RUNNING:
            return "times are the end of intervals from 00 UTC on"
        if isinstance(self.hours, str):
            return f"times stand for their {self.hours}" + (", amounts are those of a day" if self.per_day else "")
        return f"times are the {self.stamp} of intervals of {self.hours:g} h"


@dataclass(frozen=True)
class RainProduct:
    """A rain product, as its files have it.

    Attributes:
        variable: its name.
        unit: its unit, where a file does not say.
        stamp: where in its interval a time lies, where a file does not say.
        hours: length of the interval, the same.
        per_day: see `Interval`.
        given: stamp and hours hold whatever a file says.
    """

    variable: str
    unit: str
    stamp: Stamp
    hours: Length
    per_day: bool = False
    given: bool = False

    @property
    def interval(self) -> Interval:
        """What a time stands for."""
        return Interval(self.stamp, self.hours, self.per_day)


# ERA5 and ERA5-Land: ECMWF Confluence, "Conversion table for accumulated variables" (CKB page 197702790); ERA5's daily
# sums: "ERA5 family post-processed daily statistics documentation". IMERG: file names 3B-HHR, 3B-DAY, 3B-MO.
PRODUCTS: Mapping[str, RainProduct] = {
    "merra2": RainProduct("PRECTOT", "kg m-2 s-1", "middle", 1.0),
    "merra2_corrected": RainProduct("PRECTOTCORR", "kg m-2 s-1", "middle", 1.0),
    # The files of Prithvi WxC hold means of the two hours around each full hour.
    "merra2_wxc": RainProduct("PRECTOT", "kg m-2 s-1", "middle", 2.0),
    "imerg": RainProduct("precipitation", "mm/h", "start", 0.5),
    "imerg_daily": RainProduct("precipitation", "mm/day", "start", 24.0),
    "imerg_monthly": RainProduct("precipitation", "mm/h", "start", MONTH),
    "era5": RainProduct("tp", "m", "end", 1.0),
    "era5_land": RainProduct("tp", "m", "end", RUNNING),
    "era5_ensemble": RainProduct("tp", "m", "end", 3.0),
    "era5_daily": RainProduct("tp", "m", "start", 24.0),
    "era5_monthly": RainProduct("tp", "m/day", "start", MONTH, per_day=True),
    "chirps": RainProduct("precip", "mm", "start", 24.0),
}


@dataclass(frozen=True)
class Known:
    """What is known of a file.

    Attributes:
        interval: what a time stands for; None where it is not known.
        reason: what tells it, or why nothing does.
        sums: the variables that are sums over it, the others being instants; None where all are means over it.
        sure: a product that is named does not change it.
    """

    interval: Interval | None
    reason: str
    sums: list[Hashable] | None = None
    sure: bool = True


def known(data: xr.Dataset) -> Known | None:
    """What the words and values of a file tell of its intervals; None where nothing needs any.

    Values are looked at only where words leave open whether amounts run on since 00 UTC.
    """
    found = _merra2(data) or _imerg(data)
    if found:
        return found
    sums = [key for key, var in data.data_vars.items() if "time" in var.dims and _ecmwf_sum(var, data)]
    return _ecmwf(data, sums) if sums else None


def _merra2(data: xr.Dataset) -> Known | None:
    """MERRA-2's means: of hours, days and months (Bosilovich et al. 2016, GMAO Office Note 9, section 3)."""
    short = str(data.attrs.get("ShortName", ""))
    file = f"{data.attrs.get('Filename', '')} {data.attrs.get('earthtune_source', '')}"
    if merra := re.match(r"M2([TSI])(\d)", short):
        return None if merra[1] == "I" else Known(Interval("middle", float(merra[2])), f"MERRA-2 {short}")
    if whole := re.match(r"M2[TSI]([DM])", short) or re.search(r"\b(?:tavg|inst|stat)([DM])_", file):
        return Known(Interval("start", DAY if whole[1] == "D" else MONTH), f"MERRA-2 {short}".strip())
    if re.match(r"M2[TSI]U", short) or re.search(r"\b(?:tavg|inst)U_", file):
        return Known(None, "MERRA-2's monthly means by hour of the day stand for no span of time")
    hours = re.search(r"\btavg(\d)_", file)
    seconds = (data["time"].values - data["time"].values.astype("datetime64[D]")) / np.timedelta64(1, "s")
    # The middle of intervals from midnight on: extracts of these files hold other times.
    if hours and (np.mod(seconds, float(hours[1]) * 3600) == float(hours[1]) * 1800).all():
        return Known(Interval("middle", float(hours[1])), "MERRA-2 tavg")
    return None


def _imerg(data: xr.Dataset) -> Known | None:
    """IMERG's means of half an hour, and its sums of days and means of months, which bear the same name."""
    file, title = (str(data.attrs.get(key, "")) for key in ("earthtune_source", "title"))
    text = f"{file} {title} {data.attrs.get('ShortName', '')}".lower()
    if "GridHeader" not in data.attrs and "imerg" not in text:
        return None
    kinds = {
        "imerg_daily": r"3b-day|imergd|1 ?day|daily",
        "imerg_monthly": r"3b-mo|imergm|1 ?month|monthly",
        "imerg": r"3b-hhr|imerghh|half.?hour|30.?min",
    }
    told = [name for name, pattern in kinds.items() if re.search(pattern, text)]
    if len(told) == 1:
        return Known(PRODUCTS[told[0]].interval, told[0].replace("_", " ").replace("imerg", "IMERG"))
    if "GridHeader" in data.attrs and not told and not _days_apart(data):
        return Known(PRODUCTS["imerg"].interval, "IMERG")
    return Known(None, f"nothing says which IMERG it is: {', '.join(kinds)}")


def _ecmwf_sum(var: xr.DataArray, data: xr.Dataset) -> bool:
    """Whether a variable is an accumulation as ECMWF's NetCDF files have it."""
    step, unit = str(var.attrs.get("GRIB_stepType", "")), str(var.attrs.get("units", ""))
    if step:
        return step == "accum" or (step.startswith("avg") and units.is_amount(unit))
    ecmwf = any("ecmwf" in str(data.attrs.get(key, "")).lower() for key in ("institution", "history", "GRIB_centre"))
    if not ecmwf or "cell_methods" in var.attrs:
        return False
    # Metres are of waves and snow depth, too, and kg m-2 of vapour in a column.
    words = " ".join(str(var.attrs.get(key, "")) for key in ("long_name", "standard_name")).lower()
    water = str(var.name) in _WATER_SUMS or re.search(r"precip|rainfall|snowfall|snow ?melt|evaporation|runoff", words)
    return units.is_amount(unit) and (bool(water) or "energy" in units.quantities(unit))


def _ecmwf(data: xr.Dataset, sums: list[Hashable]) -> Known:
    """What is known of ECMWF's sums: those of ERA5 by name, others not."""
    said = [str(value) for key, value in data.attrs.items() if key != "earthtune_notes" and isinstance(value, str)]
    names = " ".join(text for text in said if text != data.attrs.get("history", "")).lower()
    every = " ".join(said).lower()
    steps = {str(data[key].attrs.get("GRIB_stepType", "")) for key in sums}
    kinds = {str(data[key].attrs.get("GRIB_dataType", "")) for key in sums}
    named = "era5" in names or "era-5" in names or "era_5" in names
    ending = {match[1] for key in sums if (match := re.search(r"_(\d+)_?h(?:rs?|ours?)?$", str(key)))}
    if len(ending) == 1:  # such as total_precipitation_6hr of WeatherBench 2
        return Known(Interval("end", float(ending.pop())), "its name", sums)
    if any(step.startswith("avg") for step in steps) or re.search(r"month|stream-mo|\bmoda\b", names):
        firsts = data["time"].values == data["time"].values.astype("datetime64[M]")
        if firsts.all() and (steps & {"avgad", "avgas", "avgfc"} or re.search(r"monthly[-_ ](mean|aver)|moda", names)):
            return Known(PRODUCTS["era5_monthly"].interval, "ECMWF monthly means", sums)
        return Known(None, "monthly amounts may be those of a month, a day or an hour (era5_monthly: of a day)")
    if re.search(r"daily[-_ ]?sum|daily_reduce.*sum", every):
        return Known(PRODUCTS["era5_daily"].interval, "ERA5 daily sums", sums)
    daily = re.search(r"dail|[-_ ]day|24 ?h", names)
    if re.search(r"era[-_]?5[-_ .]?(land|l\b|l_)", names):
        if daily:
            return Known(
                None, "daily amounts of ERA5-Land may begin or end at their times (era5_daily, era5_land)", sums
            )
        return Known(PRODUCTS["era5_land"].interval, "ERA5-Land", sums)
    ensemble = bool(kinds & {"em", "es"}) or any("number" in data[key].dims for key in sums)
    if re.search(r"stream-enda|\benda\b", names) or (named and (ensemble or re.search(r"ensemble|[-_]ens\b", names))):
        return Known(PRODUCTS["era5_ensemble"].interval, "ERA5 ensemble", sums)
    doubt = doubts(data, sums, coarse=True)
    alone = data.sizes["time"] == 1 and (data["time"].values == data["time"].values.astype("datetime64[D]")).all()
    if alone or daily:
        doubt = doubt or "it may hold sums of an hour or of a day (era5, era5_daily)"
    if ensemble:
        return Known(None, "of an ensemble of ECMWF nothing says which (era5_ensemble: 3 h)")
    if doubt or not named:
        # Sums of every hour that fall within a day can only be sums of an hour.
        hourly = not doubt and (np.diff(data["time"].values) == np.timedelta64(1, "h")).all()
        if hourly and any(_runs_on(data[key]) is False for key in sums):
            return Known(PRODUCTS["era5"].interval, "ECMWF accumulations", sums, sure=False)
        return Known(None, doubt or "nothing says which product of ECMWF it is (era5, era5_land ...)", sums)
    return Known(PRODUCTS["era5"].interval, "ERA5", sums, sure=False)


def doubts(data: xr.Dataset, sums: list[Hashable], *, coarse: bool = False) -> str:
    """Why sums may not be those of an hour or a few, as a name has it; empty where nothing speaks against it.

    Args:
        data: canonical dataset.
        sums: its variables that are amounts.
        coarse: take three-hourly sums on cells of ERA5's ensemble for doubtful, too.
    """
    if _days_apart(data):
        return "its times are whole days apart: sums of an hour, or of days (era5_daily, era5_land, era5_monthly)"
    times = data["time"].values
    threes = len(times) > 1 and (np.mod(times.astype("datetime64[h]").astype(int), 3) == 0).all()
    wide = "lat" in data.indexes and data.sizes["lat"] > 1 and abs(np.diff(data["lat"].values[:2])[0]) > _COARSE
    if coarse and threes and wide and (np.diff(times) == np.timedelta64(3, "h")).any():
        return "sums every 3 h on these cells are those of an hour (era5), or of 3 h as the ensemble's (era5_ensemble)"
    if any(_runs_on(data[key]) for key in sums):
        return "its values run on within each day, as totals since 00 UTC do (era5_land)"
    return ""


def _days_apart(data: xr.Dataset) -> bool:
    """Whether there are several times, all at the same time of day."""
    times = data["time"].values
    return len(times) > 1 and len(np.unique(times - times.astype("datetime64[D]"))) == 1


def _runs_on(field: xr.DataArray) -> bool | None:
    """Whether amounts run on since 00 UTC, by some of their values; None where these do not tell.

    They do where they never fall within a day, rise in some of its steps and fall where the next begins.
    """
    count, at = field.sizes["time"], field.dims.index("time")
    every = {dim: slice(None, None, -(-size // _CELLS)) for dim, size in zip(field.dims, field.shape, strict=True)}
    steps: list[tuple[bool, bool, bool]] = []  # of two times: within a day, fell, rose
    for start in sorted({0, max((count - _RUN) // 2, 0), max(count - _RUN, 0)}):
        part = field.isel({**every, "time": slice(start, start + _RUN)})
        values = np.moveaxis(np.asarray(part.values, np.float64), at, 0).reshape(part.sizes["time"], -1)
        slack = SLACK * np.nan_to_num(np.abs(values)).max(initial=0.0)
        if (values < -slack).any():
            return None  # of both signs, as evaporation: its totals fall, too
        days = (part["time"].values - np.timedelta64(1, "s")).astype("datetime64[D]")  # 00 UTC ends a day
        step = np.diff(values, axis=0)
        fell, rose = (step < -slack).any(axis=1), (step > slack).any(axis=1)
        steps += zip((days[1:] == days[:-1]).tolist(), fell.tolist(), rose.tolist(), strict=True)
    if any(inside and fell for inside, fell, _ in steps):
        return False
    turns = [fell for inside, fell, _ in steps if not inside]
    return True if sum(inside and rose for inside, _, rose in steps) >= _RISES and (any(turns) or not turns) else None
