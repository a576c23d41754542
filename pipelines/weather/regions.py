"""A region of a canonical dataset, contiguous across Greenwich and the antimeridian: longitudes rise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from models.errors import InputError
from pipelines.weather import lazy

_WIDE = 1.5  # longitudes further apart than this many steps have a gap between them


@dataclass(frozen=True)
class Region:
    """A box in degrees: west > east crosses the antimeridian, east - west of 360 or more is the whole circle."""

    west: float
    south: float
    east: float
    north: float

    @property
    def width(self) -> float:
        """Degrees from west to east, 0..360."""
        return 360.0 if self.east - self.west >= 360 else (self.east - self.west) % 360

    def __str__(self) -> str:
        """As in `10W..2E, 50N..58N` or `all longitudes, 90S..90N`."""
        across = f"{_degrees(self.west, 'EW')}..{_degrees(self.east, 'EW')}"
        across = across if self.width < 360 else "all longitudes"
        return f"{across}, {_degrees(self.south, 'NS')}..{_degrees(self.north, 'NS')}"


def region_of(numbers: Sequence[float] | None, *, such: str) -> Region | None:
    """Four numbers as a region, None as none; `such` is an example for the message.

    Raises:
        InputError: they are not four.
    """
    if numbers is None:
        return None
    if len(numbers) != 4:
        raise InputError(f"region {[*numbers]}: wanted west, south, east, north in degrees, such as {such}")
    return Region(*numbers)


def _degrees(value: float, sides: str) -> str:
    """A coordinate with its hemisphere."""
    value = (value + 180) % 360 - 180 if sides == "EW" and abs(value) > 180 else value
    return f"{abs(value):.6g}{'' if value == 0 else sides[int(value < 0)]}"


def window(data: xr.Dataset, region: Region, *, name: str = "dataset") -> xr.Dataset:
    """The cells of a dataset whose centres lie in a region; values are not read.

    Returns:
        a canonical dataset: longitudes rise from the region's west and continue beyond 180 where it crosses the
        antimeridian; no column comes twice.

    Raises:
        InputError: the grid is not of latitudes and longitudes, or does not cover the region to within a cell.
    """
    check_rectilinear(data, name)
    if not (-90 <= region.south <= region.north <= 90 and np.isfinite(region.west) and np.isfinite(region.east)):
        raise InputError(
            f"region {region.west:g}, {region.south:g}, {region.east:g}, {region.north:g}: wanted west, south, east, "
            "north in degrees, latitudes -90..90 in this order"
        )
    spans, lon = columns(data["lon"].values, region.west, region.width)
    lat = data["lat"].values
    rows = np.flatnonzero((lat <= region.north + 1e-9) & (lat >= region.south - 1e-9))
    if not len(rows) or not len(lon):
        raise InputError(
            f"{name}: no centre of a cell of {cell(data)} lies in {region}, it covers {extent(data)}; choose inside, "
            "and larger than a cell"
        )
    if not _covers(lat, rows, lon, data["lon"].values, region):
        raise _uncovered(data, region, name)
    return cut(data, slice(int(rows[0]), int(rows[-1]) + 1), spans, lon)


def around(data: xr.Dataset, region: Region, *, name: str = "dataset") -> xr.Dataset:
    """The cells that a region touches, as `window`, and one more at each side where there is one.

    Raises:
        InputError: as `window`.
    """
    check_rectilinear(data, name)
    lat, lon = data["lat"].values, data["lon"].values
    down, across = step(lat), step(lon)
    spans, found = columns(lon, region.west - across, region.width + 2 * across)
    rows = np.flatnonzero((lat <= region.north + down) & (lat >= region.south - down))
    half, east = 0.501 * across, region.west + region.width
    sides = len(rows) and len(found) and found[0] - half <= region.west and found[-1] + half >= east
    if not sides or lat[rows[0]] + 0.501 * down < region.north or lat[rows[-1]] - 0.501 * down > region.south:
        raise _uncovered(data, region, name)
    return cut(data, slice(int(rows[0]), int(rows[-1]) + 1), spans, found)


def _uncovered(data: xr.Dataset, region: Region, name: str) -> InputError:
    told = f"{name}: {region} is wanted, it covers {extent(data)} in cells of {cell(data)}"
    return InputError(f"{told}; choose inside")


def cut(data: xr.Dataset, rows: slice, spans: list[tuple[int, int]], lon: np.ndarray) -> xr.Dataset:
    """Rows, and spans of columns one after the other under new longitudes."""
    data = data.isel(lat=rows)
    every = {key: var for key, var in data.variables.items() if key != "lon"}
    turned = {key: lazy.runs(var, "lon", spans) if "lon" in var.dims else var for key, var in every.items()}
    fields = {key: turned[key] for key in data.data_vars}
    coords = {key: var for key, var in turned.items() if key not in fields}
    first = (lon[0] + 180) % 360 - 180
    coords["lon"] = xr.Variable(("lon",), np.round(lon - lon[0] + first, 9), data["lon"].attrs)
    return xr.Dataset(fields, coords, data.attrs)


def columns(lon: np.ndarray, west: float, width: float) -> tuple[list[tuple[int, int]], np.ndarray]:
    """The columns between two meridians, in the order from west to east; more than once where the width goes round.

    Returns:
        spans (first, last + 1) of columns, and their longitudes, rising from `west`.
    """
    spans, found = [], []
    last = west + width - (1e-9 if width == 360 else -1e-9)
    first_turn = int(np.floor((west - lon[-1]) / 360))
    for turn in range(first_turn, first_turn + 3 + int(width // 360)):
        moved = lon + 360.0 * turn
        inside = np.flatnonzero((moved >= west - 1e-9) & (moved <= last))
        if len(inside):
            spans.append((int(inside[0]), int(inside[-1]) + 1))
            found.append(moved[inside])
    return spans, np.concatenate(found) if found else np.empty(0)


def _covers(lat: np.ndarray, rows: np.ndarray, lon: np.ndarray, every: np.ndarray, region: Region) -> bool:
    """Whether the cells leave no more than one of them free at each side, and nothing in between."""
    down, across = step(lat), step(every)
    edges = [lat[rows[0]] + down >= region.north, lat[rows[-1]] - down <= region.south]
    edges += [lon[0] - across <= region.west + 1e-9, lon[-1] + across >= region.west + region.width - 1e-9]
    return all(edges) and bool((np.diff(lon) <= _WIDE * across).all())


def step(values: np.ndarray) -> float:
    """The usual distance between neighbours, 0 for a single value."""
    return float(np.median(np.abs(np.diff(values)))) if len(values) > 1 else 0.0


def geobox(data: xr.Dataset, *, name: str = "dataset") -> GeoBox:
    """The grid of a dataset of even latitudes and longitudes in EPSG:4326: edges lie half a cell beyond the centres.

    Raises:
        InputError: another kind of grid, fewer than two rows or columns, or spacing that is not even.
    """
    check_rectilinear(data, name)
    for dim in ("lat", "lon"):
        values, even = data[dim].values, step(data[dim].values)
        if len(values) < 2 or np.abs(np.abs(np.diff(values)) - even).max() > 0.01 * even:
            raise InputError(
                f"{name}: {dim} has {len(values)} values {values[0]:g}..{values[-1]:g}, two or more at even distances "
                "are wanted for a map; choose a larger region, or regrid it first (pipelines.weather.regrid)"
            )
    lat, lon = data["lat"].values, data["lon"].values
    across, down = (lon[-1] - lon[0]) / (len(lon) - 1), (lat[-1] - lat[0]) / (len(lat) - 1)
    affine = Affine(across, 0, lon[0] - across / 2, 0, down, lat[0] - down / 2)
    return GeoBox((len(lat), len(lon)), affine, "EPSG:4326")


def edges(centres: np.ndarray) -> np.ndarray:
    """Edges of cells half way between their centres: (n + 1,).

    Raises:
        InputError: there is a single cell, which has no size.
    """
    if len(centres) < 2:
        raise InputError(f"{len(centres)} cell along an axis: two or more are wanted, for one has no size")
    inner = (centres[:-1] + centres[1:]) / 2
    return np.concatenate([[2 * centres[0] - inner[0]], inner, [2 * centres[-1] - inner[-1]]])


def to_edges(lat: np.ndarray, lon: np.ndarray) -> Region:
    """The region that cells cover; two or more each way."""
    down, across = edges(lat), edges(lon)
    south, north = np.sort(down[[0, -1]].clip(-90, 90))
    return Region(float(across[0]), float(south), float(across[-1]), float(north))


def cell_areas(lat: np.ndarray) -> np.ndarray:
    """Relative areas of cells by row, from the sines of their edges, half way between centres and at most at the poles.

    Rows need not be even (Gaussian latitudes); a single one, which has no edges, gets 1.
    """
    if len(lat) < 2:
        return np.ones(len(lat))
    return np.asarray(np.abs(np.diff(np.sin(np.radians(edges(lat).clip(-90, 90))))))


def extent(data: xr.Dataset) -> Region:
    """The region from the outermost centres of cells (the whole circle where longitudes go round)."""
    lat, lon = data["lat"].values, data["lon"].values
    west, east = float(lon.min()), float(lon.max())
    around = len(lon) > 1 and lon[0] + 360 - lon[-1] <= _WIDE * step(lon)  # without a gap
    return Region(west, float(lat.min()), west + 360 if around else east, float(lat.max()))


def cell(data: xr.Dataset) -> str:
    """The size of a cell as text."""
    down, across = step(data["lat"].values), step(data["lon"].values)
    return f"{down:.4g} x {across:.4g} deg"


def check_rectilinear(data: xr.Dataset, name: str) -> None:
    """Refuse grids that are none of latitudes and longitudes.

    Raises:
        InputError: the message says what the grid is and what to do.
    """
    if "lat" in data.dims and "lon" in data.dims:
        return
    kind = "curvilinear" if "lat" in data.coords else "projected"
    raise InputError(
        f"{name}: a region of latitudes and longitudes is wanted and the grid is {kind} (rows y, columns x); regrid it "
        "onto a grid of latitudes and longitudes first (pipelines.weather.regrid.onto)"
    )
