"""Elevation in metres on a grid of latitudes and longitudes, from a raster or a weather file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from models.errors import InputError
from pipelines import align, intervals, regions, regrid
from pipelines.formats import is_weather
from pipelines.weather import open_parts

Array = NDArray[np.float32]
# Lower case; geopotential becomes metres by its unit.
NAMES = ("phis", "elevation", "elev", "orog", "orography", "hgt", "topo", "topography", "dem", "altitude", "z")
STANDARD_NAMES = ("surface_altitude", "surface_geopotential", "geopotential")
HELP = "a raster in metres, or a weather file with elevation or surface geopotential (PHIS)"


def find_elevation(root: Path, wanted: str) -> Path | None:
    """The file that is named, by its path or as the only match of a pattern under a folder; None for "none".

    Raises:
        InputError: there is no such file, or several.
    """
    if wanted == "none":
        return None
    path = Path(wanted)
    if path.is_file():
        return path.resolve()
    found = [] if path.is_absolute() else sorted(root.glob(wanted))
    if len(found) != 1:
        came = f"{len(found)} files match" if found else "no such file, and none matches"
        raise InputError(
            f"{root}: elevation {wanted!r}: {came}; --data.elevation FILE (in scoring --elevation FILE) names {HELP}, "
            "and none does without"
        )
    return found[0].resolve()


def read_elevation(path: Path, lat: NDArray[Any], lon: NDArray[Any]) -> Array:
    """Elevation of cells (H, W) in metres, the mean of what is finer; without data inside of the file it is 0, as sea.

    Args:
        path: a raster in metres, or a weather file.
        lat: (H,) degrees north, evenly spaced, falling.
        lon: (W,) degrees east, evenly spaced, rising.

    Raises:
        InputError: neither kind of file, no elevation in it, or it does not cover the cells.
    """
    geobox = regions.geobox(xr.Dataset(coords={"lat": lat, "lon": lon}), name="grid")
    if is_weather(str(path)):
        height, covered = _from_weather(path, lat, lon)
    else:
        source, window = align.dataset(str(path)), (slice(0, len(lat)), slice(0, len(lon)))
        height = align.read_onto(source, geobox, window, indexes=[1])[0]
        covered = np.isfinite(
            align.read_onto(source, geobox, window, indexes=[1], nodata=float("nan"), masked=False)[0]
        )
    if not covered.all():
        region = regions.extent(xr.Dataset(coords={"lat": lat, "lon": lon}))
        raise InputError(
            f"{path}: elevation of {region} is wanted and it covers {covered.mean():.0%} of the cells; name "
            f"another with --elevation, in training --data.elevation: {HELP}"
        )
    return np.nan_to_num(height).astype(np.float32)


def _from_weather(path: Path, lat: NDArray[Any], lon: NDArray[Any]) -> tuple[Array, NDArray[np.bool_]]:
    """Elevation of cells from a weather file, and which of them it covers."""
    field = _field(path)
    for dim in set(field.dims) - {"lat", "lon", "y", "x"}:
        field = field.isel({dim: 0})
    field = intervals.in_unit(field, "m", name=path.name) if field.attrs.get("units") else field
    finer = "lat" in field.dims and regions.step(field["lat"].values) <= regions.step(lat) * (1 + 1e-6)
    if finer:
        height = regrid.on_grid(field.expand_dims("time"), lat, lon, name=path.name)[0]
        return height, np.ones(height.shape, bool)
    geobox = regions.geobox(xr.Dataset(coords={"lat": lat, "lon": lon}), name="grid")
    height = np.asarray(regrid.onto(field, geobox, name=path.name).values)
    return height, np.isfinite(height)


def _field(path: Path) -> xr.DataArray:
    """The variable of elevation.

    Raises:
        InputError: there is none.
    """
    variables = [part[key] for part in open_parts(path) for key in part.data_vars]
    named = {name: var for name in reversed(NAMES) for var in variables if str(var.name).lower() == name}
    found = [*reversed(named.values()), *(v for v in variables if v.attrs.get("standard_name") in STANDARD_NAMES)]
    if not found:
        came = ", ".join(str(var.name) for var in variables)
        raise InputError(f"{path}: no elevation among {came or 'nothing'}; wanted {HELP}")
    return found[0]
