"""Which coordinate of a dataset is latitude, longitude, time or level, and what ties its grid to the ground."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from pyproj import CRS  # here, so that it comes before the ecCodes that xarray may import, see grib
from pyproj.exceptions import CRSError

from models.errors import InputError
from pipelines.weather import units

# Each test sees the attributes' text in lower case, or the name.
_LATITUDE = ("lat", "latitude", "nav_lat", "xlat", "xlat_m", "lats", "latitudes", "tlat", "geolat", "yc")
_LONGITUDE = ("lon", "longitude", "nav_lon", "xlong", "xlong_m", "lons", "longitudes", "long", "tlong", "geolon", "xc")
_TIME = ("time", "valid_time", "timestamp", "t", "date", "day", "datetime", "times", "xtime", "initial_time")
_LEVEL = (
    *("level", "lev", "plev", "levels", "pressure", "pressure_level", "isobaricinhpa", "isobaricinpa", "hybrid"),
    *("model_level", "isobaric", "pfull", "bottom_top", "heightaboveground", "depth", "deptht", "altitude", "height"),
)
_LEVEL_NAMES = ("air_pressure", "model_level_number", "model_layers", "height", "depth", "altitude")
_Y = ("y", "northing", "rlat", "projection_y_coordinate", "ydim", "south_north", "j", "nj", "lines", "row")
_X = ("x", "easting", "rlon", "projection_x_coordinate", "xdim", "west_east", "i", "ni", "pixels", "col")


@dataclass(frozen=True)
class Roles:
    """Names of the coordinates and dimensions of a dataset; None where it has none.

    Attributes:
        lat: variable of latitudes, 1-D on a rectilinear grid, 2-D on a curvilinear one.
        lon: variable of longitudes.
        y: dimension of rows.
        x: dimension of columns.
        time: variable of (valid) times, of one or no dimension.
        level: dimension of levels.
        crs: coordinate system of y and x as WKT, where these and not latitudes and longitudes are the grid.
    """

    lat: Hashable | None
    lon: Hashable | None
    y: Hashable
    x: Hashable
    time: Hashable | None
    level: Hashable | None
    crs: str | None = None


def find_roles(data: xr.Dataset, name: str) -> Roles:
    """Tell the coordinates of a dataset by CF attributes, and where these say nothing by name.

    Raises:
        InputError: there are no rows and columns, or what there is are points.
    """
    limits = bounds_of(data)
    found = {key: data[key] for key in data.variables if key not in limits}
    lat, lon = _geographic(found, _LATITUDE, "latitude", "north"), _geographic(found, _LONGITUDE, "longitude", "east")
    time = _time(found)
    y, x = _planar(data, _Y, "y"), _planar(data, _X, "x")
    crs = _crs(data, y, x) if y is not None and x is not None else None
    system = None if crs is None else CRS.from_wkt(crs)
    if system is not None and system.is_geographic and not system.is_derived:  # plain latitudes and longitudes
        lat, lon, crs = (y, x, None) if lat is None or lon is None else (lat, lon, None)
    if lat is not None and lon is not None and crs is None:
        y, x = _dimensions(found[lat], found[lon], name)
    if y is None or x is None:
        there = ", ".join(f"{dim} ({size})" for dim, size in data.sizes.items()) or "none"
        raise InputError(
            f"{name}: no latitude and longitude (nor y and x) among its dimensions: {there}; name them by CF "
            "attributes (standard_name, units degrees_north and degrees_east)"
        )
    lat, lon = (lat, lon) if crs is None else (None, None)
    return Roles(lat, lon, y, x, time, _level(found, {y, x, time}), crs)


def _dimensions(lat: xr.DataArray, lon: xr.DataArray, name: str) -> tuple[Hashable, Hashable]:
    """The dimensions of rows and columns under latitudes and longitudes."""
    if lat.ndim == 0 and lon.ndim == 0:
        return "lat", "lon"
    if lat.ndim == 1 and lon.ndim == 1 and lat.dims != lon.dims:
        return lat.dims[0], lon.dims[0]
    if lat.ndim >= 2 and lat.dims == lon.dims:
        return lat.dims[-2], lat.dims[-1]
    raise InputError(
        f"{name}: latitude {lat.dims} and longitude {lon.dims} make points or swaths and no grid of rows and columns; "
        "grid them first"
    )


def bounds_of(data: xr.Dataset) -> set[Hashable]:
    """Variables that hold the limits of cells."""
    named = {text for var in data.variables.values() for key in ("bounds", "climatology") if (text := _said(var, key))}
    tails = ("_bnds", "_bounds", "_bnd")
    return {key for key in data.variables if key in named or (str(key).endswith(tails) and data[key].ndim > 1)}


def _said(var: Any, key: str) -> str:
    """An attribute (or what it was decoded from) as text."""
    return str(var.attrs.get(key, var.encoding.get(key, "")))


def _geographic(found: dict[Hashable, xr.DataArray], names: tuple[str, ...], full: str, side: str) -> Hashable | None:
    """The variable of latitudes or longitudes, of dimensions' own coordinates first."""
    hits = [
        key
        for key, var in found.items()
        if np.issubdtype(var.dtype, np.number)
        and (
            _said(var, "standard_name").lower() == full
            or re.fullmatch(rf"degrees?_?{side}|degrees?_?{side[0]}", _said(var, "units").lower())
        )
    ]
    hits = hits or [key for want in names for key in found if str(key).lower() == want and _degrees(found[key])]
    hits.sort(key=lambda key: (found[key].ndim != 1, key not in found[key].dims))
    return hits[0] if hits else None


def _degrees(var: xr.DataArray) -> bool:
    """Whether a variable may be of degrees, for its units do not say otherwise."""
    return np.issubdtype(var.dtype, np.number) and _said(var, "units").lower() in ("", "degree", "degrees", "deg")


def _time(found: dict[Hashable, xr.DataArray]) -> Hashable | None:
    """The variable of valid times."""
    hits = [key for key, var in found.items() if var.ndim <= 1 and _is_time(key, var)]
    # The start of a forecast is no valid time, unless it is all that there is and is called time.
    started = {key for key in hits if _said(found[key], "standard_name") == "forecast_reference_time"}
    hits = [key for key in hits if key not in started or (key == "time" and started == set(hits))]

    def order(key: Hashable) -> tuple[bool, bool, bool, int]:
        var, text = found[key], str(key).lower()
        rank = _TIME.index(text) if text in _TIME else len(_TIME)
        return _said(var, "standard_name") != "time", not var.ndim, key not in var.dims, rank

    return min(hits, key=order, default=None)


def _is_time(key: Hashable, var: xr.DataArray) -> bool:
    """Whether a variable holds dates: decoded, with units since a date, or text called like a time."""
    if np.issubdtype(var.dtype, np.datetime64) or " since " in _said(var, "units"):
        return var.ndim == 0 or key in var.dims or _said(var, "standard_name") == "time" or str(key) == "valid_time"
    if var.dtype.kind in "OSU":
        # Text of dates may have a dimension of another name (WRF: Times along Time).
        return str(key).lower() in _TIME and (var.ndim == 0 or var.dims == (key,) or str(key).lower() == "times")
    return False


def _level(found: dict[Hashable, xr.DataArray], taken: Iterable[Hashable | None]) -> Hashable | None:
    """The dimension of levels: by attributes, then by name (also where it has no coordinate)."""
    used = set(taken)
    used |= {dim for key in used if key in found for dim in found[key].dims}
    own = {key: var for key, var in found.items() if var.dims == (key,) and key not in used}
    for key, var in own.items():
        named = _said(var, "standard_name") in _LEVEL_NAMES or units.tidy(_said(var, "units")) in ("Pa", "hPa")
        if _said(var, "axis") == "Z" or _said(var, "positive") or named:
            return key
    return next((key for key in own if str(key).lower() in _LEVEL), None)


def _planar(data: xr.Dataset, names: tuple[str, ...], axis: str) -> Hashable | None:
    """The dimension of rows or columns of a grid that is none of latitudes and longitudes."""
    for key in data.dims:
        var = data[key] if key in data.variables else None
        if var is not None and _said(var, "standard_name") in (f"projection_{axis}_coordinate", f"grid_{_GRID[axis]}"):
            return key
        if var is not None and _said(var, "axis") == axis.upper() and "degrees_" not in _said(var, "units"):
            return key
    return next((key for want in names for key in data.dims if str(key).lower() == want), None)


_GRID = {"y": "latitude", "x": "longitude"}


def _crs(data: xr.Dataset, y: Hashable, x: Hashable) -> str | None:
    """Coordinate system of rows and columns as WKT, from a grid mapping or from attributes; None where nothing says."""
    if y not in data.variables or x not in data.variables:
        return None
    for said in _crs_texts(data):
        try:
            crs = CRS.from_cf(said) if isinstance(said, dict) else CRS.from_user_input(said)
            return str(crs.to_wkt())
        except (CRSError, KeyError, ValueError, TypeError):
            continue
    return None


def _crs_texts(data: xr.Dataset) -> list[Any]:
    """Everything that may say a coordinate system, the most reliable first."""
    said: list[Any] = []
    mappings = [_said(var, "grid_mapping").split(":")[0].split(" ")[0] for var in data.variables.values()]
    for key in dict.fromkeys([*mappings, "spatial_ref", "crs", "projection"]):
        attrs = data[key].attrs if key in data.variables else {}
        said += [text for kind in ("crs_wkt", "spatial_ref") if (text := attrs.get(kind))]
        said += [dict(attrs)] if "grid_mapping_name" in attrs else []
    for attrs in [*(var.attrs for var in data.data_vars.values()), data.attrs]:
        said += [re.sub(r"^\+?init=", "", str(attrs["crs"]), flags=re.I)] if "crs" in attrs else []
        said += [f"EPSG:{attrs['epsg']}"] if "epsg" in attrs else []
    return said
