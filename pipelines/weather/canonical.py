"""Any weather dataset in one form: names, order of dimensions, north up, longitudes that rise, times that rise.

The form, which `check` checks:

- dimensions (..., time, level, lat, lon), those which a variable has, further ones (number, ...) first;
- lat falls from north to south and lon rises, degrees; the first lon is in -180..180, and a region across the
  antimeridian continues beyond 180;
- on a projected grid y (falling) and x (rising) take their place, with a coordinate spatial_ref; on a curvilinear one y
  and x are bare and lat and lon are coordinates of both;
- time is datetime64 and rises; level rises, pressure in hPa;
- variables are numbers with NaN where there is no data, and keep their CF attributes;
- where values stand for intervals, interval_start and interval_end (start, end] go with time.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np
import xarray as xr
from pyproj import CRS

from models.errors import InputError
from pipelines.weather import axes, lazy, times, units
from pipelines.weather.axes import Roles
from pipelines.weather.formats import fill

NOTES = "earthtune_notes"
ORDER = ("time", "level", "lat", "lon")
_ORDER_PLANAR = ("time", "level", "y", "x")
_DIGITS = 9
_HEIGHT = "perspective_point_height"


def to_canonical(data: xr.Dataset, *, name: str = "dataset") -> xr.Dataset:
    """Bring a dataset, decoded by xarray or raw, into the canonical form; values are not read.

    Args:
        data: any dataset of one grid.
        name: file name, for messages.

    Raises:
        InputError: there is no grid, no variable on it, times that cannot be decoded or come twice.
    """
    empty = [str(dim) for dim, size in data.sizes.items() if not size]
    if empty:
        raise InputError(f"{name}: its dimension {empty[0]} has length 0, there is nothing in it; fetch the file again")
    data = times.with_forecasts(data, name)
    found = axes.find_roles(data, name)
    notes: list[str] = []
    fields = _fields(data, found, name, notes)
    coordinates = _grid(data, found, name) | _time(data, found, name, notes) | _level(data, found)
    names = _names(data, found)
    for key in dict.fromkeys(dim for var in fields.values() for dim in var.dims):
        if key not in names and key in data.coords and key not in coordinates:
            coordinates[str(key)] = data[key].variable
    coordinates |= {key: data[key].variable for key in ("interval_start", "interval_end") if key in data.coords}
    renamed = {key: _renamed(var, names) for key, var in fields.items()}
    clash = sorted(str(key) for key in renamed if key in coordinates)
    if clash:
        raise InputError(f"{name}: variable {clash[0]} has the name of a coordinate; rename it first (ncrename -v)")
    attrs = {key: value for key, value in data.attrs.items() if key != NOTES}
    out = xr.Dataset(renamed, {k: _renamed(v, names) for k, v in coordinates.items()}, attrs)
    out = _with_time(out) if "time" in out.coords else out
    out = _sorted_time(out, name, notes)
    out = _north_up(out)
    out = _eastward(out, name, notes) if "lon" in out.dims else out
    out = _rising(out, "level", name)
    out = _ordered(out)
    return noted(out, [*notes_of(data), *notes])


def check(data: xr.Dataset, *, name: str = "dataset") -> xr.Dataset:
    """Return the dataset if it is in canonical form.

    Raises:
        ValueError: it is not; the message says in what.
    """
    planar = "y" in data.dims
    south, east = ("y", "x") if planar else ("lat", "lon")
    for dim, sign in ((south, -1), (east, 1), ("time", 1), ("level", 1)):
        if dim in data.indexes and not (np.diff(data[dim].values.astype(np.float64)) * sign > 0).all():
            raise ValueError(f"{name}: {dim} does not {'rise' if sign > 0 else 'fall'}")
    if "lon" in data.indexes and not -180 <= float(data["lon"][0]) < 180:
        raise ValueError(f"{name}: the first longitude is {float(data['lon'][0])}, wanted -180..180")
    for key, var in data.data_vars.items():
        tail = [dim for dim in (_ORDER_PLANAR if planar else ORDER) if dim in var.dims]
        if list(var.dims[var.ndim - len(tail) :]) != tail:
            raise ValueError(f"{name}: {key} has dimensions {var.dims}, wanted {tail} last")
    return data


def notes_of(data: xr.Dataset) -> list[str]:
    """What a person should know about how a dataset was read."""
    return [text for text in str(data.attrs.get(NOTES, "")).split("\n") if text]


def noted(data: xr.Dataset, notes: Iterable[str]) -> xr.Dataset:
    """The dataset with notes, each once."""
    out, text = data.copy(), "\n".join(dict.fromkeys(notes))
    out.attrs = {key: value for key, value in data.attrs.items() if key != NOTES} | ({NOTES: text} if text else {})
    return out


def _names(data: xr.Dataset, found: Roles) -> dict[Hashable, str]:
    """Old and new names of dimensions; those of one latitude a row and one longitude a column are lat and lon."""
    planar = found.crs is not None or found.lat is None or data[found.lat].ndim > 1
    rows = ("y", "x") if planar else ("lat", "lon")
    names = {found.y: rows[0], found.x: rows[1], found.level: "level"}
    return {old: new for old, new in names.items() if old is not None}


def _fields(data: xr.Dataset, found: Roles, name: str, notes: list[str]) -> dict[Hashable, xr.Variable]:
    """The variables on the grid, masked and with the dimension of time in its place."""
    limits, taken = axes.bounds_of(data), {found.lat, found.lon, found.time}
    scalar = found.lat is not None and data[found.lat].ndim == 0
    gridded, left = {}, []
    for key, array in data.data_vars.items():
        var = array.variable
        if key in limits | taken or var.dtype.kind not in "fiub":
            continue
        if scalar:
            var = lazy.turned(var, (*var.dims, found.y, found.x))
        if found.y in var.dims and found.x in var.dims:
            gridded[key] = fill.masked(var)
        elif var.ndim and "grid_mapping_name" not in var.attrs:
            left.append(str(key))
    if not gridded:
        raise InputError(f"{name}: no variable lies on its grid of {found.y} and {found.x}; pass another file or group")
    if left:
        notes.append(f"left out, for they do not lie on the grid: {', '.join(left)}")
    if found.time is not None and data[found.time].ndim == 1:
        gridded = {key: _renamed(var, {data[found.time].dims[0]: "time"}) for key, var in gridded.items()}
    return gridded


def _renamed(var: xr.Variable, names: dict[Hashable, str]) -> xr.Variable:
    """A variable with its dimensions renamed."""
    return xr.Variable([names.get(dim, dim) for dim in var.dims], var._data, var.attrs, var.encoding)


def _ordered(data: xr.Dataset) -> xr.Dataset:
    """Dimensions in the canonical order, further ones first in the order that they had."""
    last = (*ORDER, "y", "x")
    fields = {}
    for key, array in data.data_vars.items():
        dims = [dim for dim in array.dims if dim not in last] + [dim for dim in last if dim in array.dims]
        fields[key] = lazy.turned(array.variable, dims)
    return data.assign(fields)


def _grid(data: xr.Dataset, found: Roles, name: str) -> dict[str, xr.Variable]:
    """Coordinates of rows and columns, by their canonical names."""
    if found.crs is None and found.lat is not None and found.lon is not None:
        lat, lon = data[found.lat].variable, data[found.lon].variable
        axes = {"lat": ("latitude", "degrees_north"), "lon": ("longitude", "degrees_east")}
        pairs = {}
        for key, var, dim in (("lat", lat, found.y), ("lon", lon, found.x)):
            attrs = {**_plain(var.attrs), "standard_name": axes[key][0], "units": axes[key][1]}
            if var.ndim > 2:  # the same for every time, as some models write it
                var = var.isel(dict.fromkeys(var.dims[:-2], 0))
            dims = var.dims if var.ndim else (dim,)
            pairs[key] = xr.Variable(dims, var._data if var.ndim else np.atleast_1d(var.values), attrs)
        return {key: _degrees(var, key, name) if var.ndim == 1 else var for key, var in pairs.items()}
    out: dict[str, xr.Variable] = {}
    for key, dim in (("y", found.y), ("x", found.x)):
        if dim in data.variables:
            var = data[dim].variable
            scale = _scale(data, var, found.crs, name)
            attrs = {**_plain(var.attrs), "axis": key.upper()}
            out[key] = xr.Variable((dim,), np.asarray(var.values, np.float64) * scale, attrs)
    if found.crs is not None:
        attrs = {**CRS.from_wkt(found.crs).to_cf(), "crs_wkt": found.crs, "spatial_ref": found.crs}
        out["spatial_ref"] = xr.Variable((), 0, {k: v for k, v in attrs.items() if not isinstance(v, list | tuple)})
    return out


def _plain(attrs: dict[Any, Any]) -> dict[Any, Any]:
    """Attributes that stay true when a coordinate is turned about."""
    return {key: value for key, value in attrs.items() if key not in ("bounds", "stored_direction", "actual_range")}


def _degrees(var: xr.Variable, key: str, name: str) -> xr.Variable:
    """A coordinate of degrees, float64, checked."""
    degrees = np.asarray(var.values, np.float64)
    if not np.isfinite(degrees).all() or np.abs(degrees).max(initial=0) > (90.001 if key == "lat" else 720):
        raise InputError(f"{name}: {key} holds {degrees.min():g}..{degrees.max():g}, degrees are wanted; correct them")
    if key == "lat" and len(degrees) > 1 and not (np.diff(degrees) * np.sign(degrees[1] - degrees[0]) > 0).all():
        raise InputError(f"{name}: latitudes neither rise nor fall all the way; sort them and drop what comes twice")
    return xr.Variable(var.dims, np.round(degrees, _DIGITS), var.attrs)


def _scale(data: xr.Dataset, var: xr.Variable, crs: str | None, name: str) -> float:
    """What brings a projected coordinate into the unit of its coordinate system."""
    said = str(var.attrs.get("units", ""))
    heights = [other.attrs[_HEIGHT] for other in data.variables.values() if _HEIGHT in other.attrs]
    if said.lower().startswith("rad") and heights:  # geostationary: the angle of the scan
        return float(heights[0])
    axis = None if crs is None else CRS.from_wkt(crs).axis_info[0]
    plain = units.tidy(said) in ("", "1", "degree") or (axis is not None and said.replace("_", " ") == axis.unit_name)
    if plain or axis is None:
        return 1.0
    if "length" not in units.quantities(said):
        raise InputError(f"{name}: {var.dims[0]} is in {said!r}, a length such as m or km is wanted; correct its units")
    return units.conversion(said, "m").scale / axis.unit_conversion_factor


def _north_up(data: xr.Dataset) -> xr.Dataset:
    """Rows from north to south and, on projected grids, columns from west to east. Bare y and x stay as they are."""
    flips = {}
    for dim, sign in (("lat", -1), ("y", -1), ("x", 1)):
        if dim in data.indexes and data.sizes[dim] > 1 and (float(data[dim][1]) - float(data[dim][0])) * sign < 0:
            flips[dim] = slice(None, None, -1)
    return data.isel(flips) if flips else data


def _eastward(data: xr.Dataset, name: str, notes: list[str]) -> xr.Dataset:
    """Longitudes that rise without a gap: cut at the antimeridian on a global grid, else at the widest gap."""
    order, lon, twice = eastward(data["lon"].values)
    if twice:
        ends = float(data["lon"][-1]) - float(data["lon"][0])
        if data.sizes["lon"] - len(order) > 1 or abs(abs(ends) - 360) > 1e-6:
            raise InputError(f"{name}: longitudes come twice ({data.sizes['lon'] - len(order)} such); keep one of each")
        notes.append("the last longitude is the first one again, it was left out")
    runs = np.split(order, np.flatnonzero(np.diff(order) != 1) + 1)  # of neighbours
    spans = [(int(run[0]), int(run[-1]) + 1) for run in runs if len(run)]
    attrs = data["lon"].attrs
    if spans != [(0, data.sizes["lon"])]:
        # A global grid is cut once or twice: reading spans is cheaper than reading columns one by one.
        few = len(spans) <= 3
        every = {
            key: var if "lon" not in var.dims else lazy.runs(var, "lon", spans) if few else var.isel(lon=order)
            for key, var in data.variables.items()
            if key != "lon"
        }
        fields = {key: every[key] for key in data.data_vars}
        data = xr.Dataset(fields, {key: var for key, var in every.items() if key not in fields}, data.attrs)
    return data.assign_coords(lon=("lon", lon, attrs))


def eastward(degrees: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """The order in which longitudes rise without a gap.

    Returns:
        positions; longitudes in that order, the first in -180..180; and whether one came twice and was left out.
    """
    turned = np.round(np.mod(degrees + 180.0, 360.0), _DIGITS) % 360.0  # 0 is the antimeridian
    order = np.argsort(turned, kind="stable")
    sorted_ = turned[order]
    keep = np.concatenate([[True], np.diff(sorted_) > 1e-6])
    order, sorted_ = order[keep], sorted_[keep]
    gaps = np.diff(np.append(sorted_, sorted_[0] + 360.0))
    widest = int(np.argmax(gaps))
    step = float(np.sort(gaps)[(len(gaps) - 1) // 2])  # the lower median: of two columns the narrower gap
    if gaps[widest] > 1.5 * step and widest != len(gaps) - 1:
        order, sorted_ = np.roll(order, -widest - 1), np.roll(sorted_, -widest - 1)
        sorted_ = np.where(sorted_ < sorted_[0], sorted_ + 360.0, sorted_)
    return order, np.round(sorted_ - 180.0, _DIGITS), not keep.all()


def _level(data: xr.Dataset, found: Roles) -> dict[str, xr.Variable]:
    """The coordinate of levels, pressure in hPa; none where they are told by words."""
    if found.level is None or data[found.level].dtype.kind not in "fiu":
        return {}
    var = data[found.level].variable
    attrs = {key: value for key, value in var.attrs.items() if key != "bounds"}
    labels = np.asarray(var.values, np.float64)
    if units.tidy(str(attrs.get("units", ""))) in ("Pa", "hPa"):
        scale = units.conversion(str(attrs["units"]), "hPa").scale
        labels, attrs["units"] = np.round(labels * scale, 6), "hPa"
    return {"level": xr.Variable((found.level,), labels, attrs)}


def _rising(data: xr.Dataset, dim: str, name: str) -> xr.Dataset:
    """The dataset with a coordinate that rises."""
    if dim not in data.indexes or (np.diff(data[dim].values) > 0).all():
        return data
    labels = data[dim].values
    if (np.diff(labels) < 0).all():
        return data.isel({dim: slice(None, None, -1)})
    if len(np.unique(labels)) < len(labels) or np.isnan(labels).any():
        listed = ", ".join(f"{label:g}" for label in labels)
        raise InputError(f"{name}: its {dim} is {listed}; wanted numbers, each once: correct them")
    return data.isel({dim: np.argsort(labels, kind="stable")})


def _time(data: xr.Dataset, found: Roles, name: str, notes: list[str]) -> dict[str, xr.Variable]:
    """The coordinate of times, and the limits of intervals where the file has them."""
    if found.time is None:
        if "time" in data.dims:
            raise InputError(
                f"{name}: its dimension time has no dates; give it units such as 'hours since 1900-01-01 00:00'"
            )
        forecasts = "reference_time" in data.dims and "lead_time" in data.dims
        notes.append("forecasts that overlap: choose one (one_forecast)" if forecasts else "no time axis")
        return {}
    array = data[found.time]
    dims = ("time",) if array.ndim else ()
    attrs = {"standard_name": "time", **{k: v for k, v in array.attrs.items() if k == "long_name"}}
    out = {"time": xr.Variable(dims, times.dates(array, name, notes), attrs)}
    limits = str(array.attrs.get("bounds", array.encoding.get("bounds", "")))
    limits = limits or next((key for key in ("time_bnds", "time_bounds") if key in data.variables), "")
    if limits in data.variables and data[limits].ndim == array.ndim + 1 and data[limits].shape[-1] == 2:
        pair = data[limits]
        if "since" not in str(pair.attrs.get("units", "")) and not np.issubdtype(pair.dtype, np.datetime64):
            same = {k: v for k, v in {**array.encoding, **array.attrs}.items() if k in ("units", "calendar")}
            pair = pair.assign_attrs(**same)
        edges = times.dates(pair, name, [])
        out["interval_start"], out["interval_end"] = (xr.Variable(dims, edges[..., at]) for at in (0, 1))
    return out


def _with_time(data: xr.Dataset) -> xr.Dataset:
    """Time as a dimension, also where a file holds one time only."""
    if data["time"].ndim:
        return data
    fields = {key: lazy.turned(array.variable, ("time", *array.dims)) for key, array in data.data_vars.items()}
    stamps = [key for key in ("time", "interval_start", "interval_end") if key in data.coords]
    coords = {key: data[key].variable for key in data.coords if key not in stamps}
    coords |= {key: xr.Variable(("time",), data[key].values[None], data[key].attrs) for key in stamps}
    return xr.Dataset(fields, coords, data.attrs)


def _sorted_time(data: xr.Dataset, name: str, notes: list[str]) -> xr.Dataset:
    """Times that rise."""
    if "time" not in data.indexes:
        return data
    times = data["time"].values
    order = np.argsort(times, kind="stable")
    again = np.flatnonzero(np.diff(times[order]) == np.timedelta64(0))
    if len(again):
        stamp = np.datetime_as_string(times[order][again[0]], "m")
        raise InputError(f"{name}: time {stamp} comes twice ({len(again)} such); keep one of each")
    if (np.diff(order) != 1).any():
        notes.append("times were not in order and have been sorted")
        return data.isel(time=order)
    return data
