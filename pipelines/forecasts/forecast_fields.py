"""Forecast fields, and the files that hold them: a map per step, a series, what was done."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from models.files import draft_folder
from models.types import Array
from pipelines.outputs.geotiff import write_rows
from pipelines.outputs.layout import Layout
from pipelines.outputs.netcdf import grid_axes, write_netcdf
from pipelines.records.attempts import PAGE
from pipelines.records.energy import Meter
from pipelines.weather.merra2 import Merra2, split_channel
from pipelines.weather.regions import geobox

Time = np.datetime64

# Names of the CF standard name table, version 86 (cfconventions.org).
STANDARD_NAMES = {
    **dict.fromkeys(("T2M", "T"), "air_temperature"),
    **dict.fromkeys(("U10M", "U"), "eastward_wind"),
    **dict.fromkeys(("V10M", "V"), "northward_wind"),
    **dict.fromkeys(("QV2M", "QV"), "specific_humidity"),
    "TS": "surface_temperature",
    "PS": "surface_air_pressure",
    "SLP": "air_pressure_at_mean_sea_level",
    "PL": "air_pressure",
    "OMEGA": "lagrangian_tendency_of_air_pressure",
    "H": "geopotential_height",
    "TQV": "atmosphere_mass_content_of_water_vapor",
}


@dataclass(frozen=True)
class Forecast:
    """Forecast fields.

    Attributes:
        analyses: what it starts from; its grid is that of the fields.
        channels: names of the C channels.
        start: time of the last analysis used.
        times: the T valid times.
        fields: (T, C, H, W) in the units of MERRA-2.
    """

    analyses: Merra2
    channels: tuple[str, ...]
    start: Time
    times: tuple[Time, ...]
    fields: Array

    def of(self, channels: Sequence[str]) -> Forecast:
        """Some of its channels, in this order."""
        at = [self.channels.index(channel) for channel in channels]
        return replace(self, channels=tuple(channels), fields=self.fields[:, at])

    def after(self, fields: Array, times: Sequence[Time]) -> Forecast:
        """With fields (N, C, H, W) at N earlier times before its own."""
        return replace(self, times=(*times, *self.times), fields=np.concatenate((fields, self.fields)))

    def lead_hours(self, i: int) -> int:
        """Hours from the start to a valid time."""
        return int((self.times[i] - self.start) / np.timedelta64(1, "h"))


def stamp(time: Time) -> str:
    """A time to the minute, UTC."""
    return f"{np.datetime_as_string(time, 'm')}Z"


def write_forecast(
    out: Path,
    made: Forecast,
    origin: Mapping[str, str],
    rows: list[dict[str, Any]],
    meter: Meter,
    *,
    beside: Callable[[Path], Mapping[str, Any]] | None = None,
    also: Sequence[str] = (),
) -> dict[str, Any]:
    """Write all files, or none.

    Args:
        out: the folder.
        made: the fields.
        origin: what they come from.
        rows: the verification.
        meter: what has booked the forecast, and is closed here.
        beside: writes more into a folder; what it returns is told in forecast.json.
        also: patterns of the files that it may write, of which earlier ones go.

    Returns:
        What forecast.json holds.
    """
    with draft_folder(out, replaces="forecast_*h.tif", also=also) as folder:
        names = [_write_map(folder, made, i, origin) for i in range(len(made.times))]
        write_series(folder / "forecast.nc", made, origin)
        result = {
            "start": stamp(made.start),
            "steps": len(names),
            **origin,
            "files": [str(out / name) for name in names],
            "series": str(out / "forecast.nc"),
            "verification": rows,
            **(beside(folder) if beside else {}),
        }
        (folder / "forecast.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    meter.close(out / PAGE)
    return result


def _write_map(folder: Path, made: Forecast, i: int, origin: Mapping[str, str]) -> str:
    """One step as a GeoTIFF; returns its name."""
    lead = made.lead_hours(i)
    units = [str(made.analyses.attrs(channel).get("units", "")) for channel in made.channels]
    tags = {"reference_time": stamp(made.start), "valid_time": stamp(made.times[i]), "lead_time": f"{lead} h"}
    tags |= {f"EARTHTUNE_{key.upper()}": value for key, value in origin.items()}
    layout = Layout.of_fields(geobox(made.analyses.grid), made.channels, units, tags=tags)
    name = f"forecast_{lead:03d}h.tif"
    write_rows(folder / name, [(0, made.fields[i])], layout)
    return name


def write_series(path: Path, made: Forecast, origin: Mapping[str, str]) -> None:
    """All steps as one NetCDF file after the CF conventions, version 1.11."""
    data = series(made)
    data.attrs |= {"Conventions": "CF-1.11", "title": "Forecast by Prithvi WxC", **origin}
    since = str(made.start.astype("datetime64[s]")).replace("T", " ")
    hours = {"units": f"hours since {since}", "dtype": "float64"}
    write_netcdf(path, data, encoding={"time": hours, "reference_time": hours})


def series(made: Forecast) -> xr.Dataset:
    """The forecast as a dataset that runs over its channels read.

    A variable (time, lat, lon) per channel, under the channel's name, (lat, lon) per static field of the analyses, and
    lead_time beside the valid time.
    """
    leads = np.array([made.lead_hours(i) for i in range(len(made.times))], float)
    grid = made.analyses.grid
    coords = {
        "time": ("time", np.array(made.times, "datetime64[ns]"), {"standard_name": "time", "long_name": "valid time"}),
        "lead_time": ("time", leads, {"standard_name": "forecast_period", "units": "hours"}),
        "reference_time": ((), made.start, {"standard_name": "forecast_reference_time"}),
        **grid_axes(grid["lat"].values, grid["lon"].values),
    }
    fields: dict[str, Any] = {}
    for name, values in made.analyses.static_fields(made.start).items():
        fields[name] = (("lat", "lon"), values, _named(made.analyses.attrs(name), name))
    for k, channel in enumerate(made.channels):
        name, level = split_channel(channel)
        attrs = _named(made.analyses.attrs(channel), name)
        attrs |= {"standard_name": STANDARD_NAMES[name]} if name in STANDARD_NAMES else {}
        extra = {} if level is None else {"model_level": level}
        fields[channel] = (("time", "lat", "lon"), made.fields[:, k], attrs | extra)
    return xr.Dataset(fields, coords)


def _named(source: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Unit and name in words of a variable, from its attributes in the analyses."""
    return {"units": str(source.get("units", "")), "long_name": str(source.get("long_name", name))}
