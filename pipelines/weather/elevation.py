"""Elevation in metres on a grid of latitudes and longitudes, from a raster or a weather file."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling

from models.errors import InputError
from models.types import Array, Mask
from pipelines.grids import align
from pipelines.weather import intervals, regions, regrid
from pipelines.weather.dataset import open_parts
from pipelines.weather.formats.detect import is_weather

# Lower case; geopotential becomes metres by its unit.
NAMES = ("phis", "elevation", "elev", "orog", "orography", "hgt", "topo", "topography", "dem", "altitude", "z")
STANDARD_NAMES = ("surface_altitude", "surface_geopotential", "geopotential")
POINTS = 4  # along a side of a cell, where a raster is finer
EDGE = 1e-6  # pixels, for rounding
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
    found = [] if path.is_absolute() or not path.name else sorted(root.glob(wanted))
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
        covered = _inside(align.grid(source), lat, lon)
    if not covered.all():
        region = regions.extent(xr.Dataset(coords={"lat": lat, "lon": lon}))
        raise InputError(
            f"{path}: elevation of {region} is wanted and it covers {covered.mean():.0%} of the cells; name "
            f"another with --elevation, in training --data.elevation: {HELP}"
        )
    return np.nan_to_num(height).astype(np.float32)


def _inside(theirs: GeoBox, lat: NDArray[Any], lon: NDArray[Any]) -> Mask:
    """Cells whose centre lies in a raster, or half of which a finer one covers, whatever its values are: (H, W)."""
    box = regions.geobox(xr.Dataset(coords={"lat": lat, "lon": lon}), name="grid")
    if theirs.crs is None or box.crs is None:
        return np.ones(box.shape, bool)  # matched cell by cell
    side = POINTS if align.continuous(theirs, box) == Resampling.average else 1
    offsets, (rows, columns) = (np.arange(side) + 0.5) / side - 0.5, theirs.shape
    a, b, c, d, e, f = tuple(~theirs.affine)[:6]
    covered = np.zeros(box.shape)
    for down, across in itertools.product(offsets, offsets):
        x, y = np.meshgrid(lon + across * float(box.affine.a), lat + down * float(box.affine.e))
        if theirs.crs != box.crs:
            x, y = box.crs.transformer_to_crs(theirs.crs)(x, y)
        column, row = a * x + b * y + c, d * x + e * y + f
        covered += (row > -EDGE) & (row < rows + EDGE) & (column > -EDGE) & (column < columns + EDGE)
    return np.asarray(covered >= side**2 / 2)


def _from_weather(path: Path, lat: NDArray[Any], lon: NDArray[Any]) -> tuple[Array, Mask]:
    """Elevation of cells from a weather file, and which of them it covers."""
    field = _field(path)
    for dim in [dim for dim in field.dims if dim not in ("lat", "lon", "y", "x")]:
        if dim != "time" and field.sizes[dim] > 1:
            raise InputError(
                f"{path}: {field.name} has {field.sizes[dim]} values along {dim}, so it is not the elevation of the "
                f"surface; name another file: {HELP}"
            )
        field = field.isel({dim: 0})
    field = intervals.in_unit(field, "m", name=path.name) if field.attrs.get("units") else field
    finer = "lat" in field.dims and regions.step(field["lat"].values) <= regions.step(lat) * (1 + 1e-6)
    if finer:
        height = regrid.on_grid(field.expand_dims("time"), lat, lon, name=path.name)[0]
        return height, np.ones(height.shape, bool)
    geobox = regions.geobox(xr.Dataset(coords={"lat": lat, "lon": lon}), name="grid")
    height = np.asarray(regrid.onto(field, geobox, name=path.name).values)
    return height, np.isfinite(regrid.onto(xr.zeros_like(field), geobox, name=path.name).values)


def _field(path: Path) -> xr.DataArray:
    """The variable of elevation."""
    variables = [part[key] for part in open_parts(path) for key in part.data_vars]
    found = [var for name in NAMES for var in variables if str(var.name).lower() == name]
    found += [var for var in variables if var.attrs.get("standard_name") in STANDARD_NAMES]
    if not found:
        came = ", ".join(str(var.name) for var in variables)
        raise InputError(f"{path}: no elevation among {came or 'nothing'}; wanted {HELP}")
    return found[0]
