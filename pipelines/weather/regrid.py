"""Weather onto another grid: interpolated onto pixels of a scene, averaged by area into coarser cells; or at places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling

from models.errors import InputError
from pipelines.grids import resample
from pipelines.weather import lazy, regions

Join = Literal["cell", "bilinear", "area"]
Part = tuple[NDArray[np.int64], NDArray[np.float64]]  # cells along an axis, and their weights

_MARGIN = 2
_OFF = -1e9  # a position far outside of any grid
_MOST_BYTES = 2 << 30
_AT_ONCE = 1 << 28  # bytes of a field that are read in one go
_MOST_CELLS = 1 << 26  # of all places together


def onto(
    field: xr.DataArray, geobox: GeoBox, *, resampling: Resampling = Resampling.bilinear, name: str = "dataset"
) -> xr.DataArray:
    """Interpolate a canonical field onto the pixels of a grid.

    Only what lies under the grid is read. Grids of latitudes and longitudes are joined across Greenwich and the
    antimeridian; curvilinear ones are interpolated linearly between the centres of cells.

    Args:
        field: (..., lat, lon), or (..., y, x) with spatial_ref, or (..., y, x) with lat and lon of both.
        geobox: the grid; any coordinate system.
        resampling: bilinear or nearest (for codes); curvilinear grids are always interpolated linearly.
        name: file name, for messages.

    Returns:
        float32 (..., y, x) with spatial_ref, NaN where the field has no data or does not reach.

    Raises:
        InputError: the grid has no coordinate system, nothing ties the field to the ground, the two share no ground, or
            the result would not fit into 2 GB.
    """
    if geobox.crs is None:
        raise InputError(f"{name}: the grid to regrid onto has no coordinate system; give it one")
    count = int(np.prod(field.shape[:-2], dtype=np.int64))
    if count * geobox.shape[0] * geobox.shape[1] * 4 > _MOST_BYTES:
        raise InputError(
            f"{name}: {count} fields on {geobox.shape[0]} x {geobox.shape[1]} pixels do not fit into 2 GB; select "
            "times or levels first, or a coarser grid"
        )
    if "lon" in field.dims or "spatial_ref" in field.coords:
        under = _under_sphere if "lon" in field.dims else _under_plane
        values = _sampled(*under(field, geobox, name), resampling)
    elif "lat" in field.coords:
        values = _from_curvilinear(field, geobox, name)
    else:
        raise InputError(
            f"{name}: {field.name} has rows y and columns x and no coordinate system; add a grid_mapping with crs_wkt"
        )
    return _labelled(values, field, geobox)


def _labelled(values: np.ndarray, field: xr.DataArray, geobox: GeoBox) -> xr.DataArray:
    """Values (..., rows, columns) with the coordinates of a grid and of what they came from."""
    a, b, c, d, e, f = tuple(geobox.affine)[:6]
    dims = (*field.dims[:-2], "y", "x")
    kept = {key: var.variable for key, var in field.coords.items() if not set(var.dims) & set(field.dims[-2:])}
    coords: dict[Any, Any] = {key: var for key, var in kept.items() if key not in ("lat", "lon", "spatial_ref")}
    if b == d == 0:
        coords["x"] = ("x", c + a * (np.arange(geobox.shape[1]) + 0.5), {"axis": "X"})
        coords["y"] = ("y", f + e * (np.arange(geobox.shape[0]) + 0.5), {"axis": "Y"})
    crs: Any = geobox.crs
    wkt = crs.to_wkt()
    transform = " ".join(str(number) for number in (c, a, b, f, d, e))
    coords["spatial_ref"] = ((), 0, {"crs_wkt": wkt, "spatial_ref": wkt, "GeoTransform": transform})
    return xr.DataArray(values, coords, dims, name=field.name, attrs=dict(field.attrs))


def _sampled(part: xr.DataArray, rows: np.ndarray, cols: np.ndarray, resampling: Resampling) -> np.ndarray:
    """Values at points, read one field of rows and columns after the other: (..., height, width)."""
    leading = part.shape[:-2]
    out = np.empty((*leading, *rows.shape), np.float32)
    for at in np.ndindex(*leading):
        values = np.asarray(part.variable[at].values, np.float32)
        out[at] = resample.sample(values[None], rows, cols, resampling)[0]
    return out


def _centres(geobox: GeoBox, crs: Any) -> tuple[np.ndarray, np.ndarray]:
    """Where the centres of pixels lie in another coordinate system, x and y; infinite where nowhere: (H, W)."""
    rows, cols = (np.arange(int(size)) + 0.5 for size in geobox.shape)
    down, across = np.meshgrid(rows, cols, indexing="ij")
    a, b, c, d, e, f = tuple(geobox.affine)[:6]
    own: Any = geobox.crs
    xs, ys = own.transformer_to_crs(crs)(a * across + b * down + c, d * across + e * down + f)
    return np.asarray(xs), np.asarray(ys)


def _places(centres: np.ndarray, wanted: np.ndarray, name: str) -> np.ndarray:
    """Positions in cells (the centre of the first is 0.5) of coordinates; far outside where they are off the cells.

    Between centres positions are linear, so steps need not be even (Gaussian latitudes).
    """
    if len(centres) < 2:
        raise InputError(f"{name}: one row or column of cells has no size; take its value, there is nothing to regrid")
    first, last = centres[0] - (centres[1] - centres[0]) / 2, centres[-1] + (centres[-1] - centres[-2]) / 2
    nodes = np.concatenate([[first], centres, [last]])
    numbers = np.concatenate([[0.0], np.arange(len(centres)) + 0.5, [float(len(centres))]])
    if nodes[0] > nodes[-1]:
        nodes, numbers = nodes[::-1], numbers[::-1]
    places: np.ndarray = np.interp(wanted, nodes, numbers, left=_OFF, right=_OFF)
    return np.where(np.isfinite(wanted), places, _OFF)


def _under_sphere(field: xr.DataArray, geobox: GeoBox, name: str) -> tuple[xr.DataArray, np.ndarray, np.ndarray]:
    """The cells under a grid and around it, joined across any seam, and where in them the centres of pixels lie."""
    xs, lat = _centres(geobox, "EPSG:4326")
    good = np.isfinite(xs) & np.isfinite(lat)
    if not good.any():
        raise InputError(f"{name}: the grid has no place in latitudes and longitudes; check its transform")
    middle = float(np.rad2deg(np.angle(np.exp(1j * np.deg2rad(xs[good])).mean())))
    lon = middle + (xs - middle + 180) % 360 - 180  # no jump within the grid
    data = field.to_dataset(name="field")
    south, north = float(lat[good].min()), float(lat[good].max())
    west, east = float(lon[good].min()), float(lon[good].max())
    down, across = (_MARGIN * regions.step(data[dim].values) for dim in ("lat", "lon"))
    spans, found = regions.columns(data["lon"].values, west - across, east - west + 2 * across)
    rows = np.flatnonzero((data["lat"].values <= north + down) & (data["lat"].values >= south - down))
    if not len(found) or not len(rows):
        box = regions.Region(west, south, east, north)
        raise InputError(f"{name}: covers {regions.extent(data)} and the grid lies at {box}; pass data of that place")
    part = regions.cut(data, slice(int(rows[0]), int(rows[-1]) + 1), spans, found)["field"]
    return part, _places(part["lat"].values, lat, name), _places(found, lon, name)


def _under_plane(field: xr.DataArray, geobox: GeoBox, name: str) -> tuple[xr.DataArray, np.ndarray, np.ndarray]:
    """The cells of a projected grid under another and around it, and where in them the centres of pixels lie."""
    xs, ys = _centres(geobox, str(field["spatial_ref"].attrs["crs_wkt"]))
    keep, places = {}, []
    for dim, wanted in (("y", ys), ("x", xs)):
        at = _places(field[dim].values, wanted, name)
        inside = at[at > _OFF]
        if not inside.size:
            raise InputError(f"{name}: {field.name} and the grid share no ground; pass data of that place")
        first = max(int(inside.min()) - _MARGIN, 0)
        keep[dim] = slice(first, int(inside.max()) + _MARGIN)
        places.append(np.where(at > _OFF, at - first, _OFF))
    return field.isel(keep), places[0], places[1]


def _from_curvilinear(field: xr.DataArray, geobox: GeoBox, name: str) -> np.ndarray:
    """Interpolate linearly between the centres of the cells of a curvilinear grid, in the coordinates of the target.

    Pixels further from any centre than the cells are apart are outside of it.
    """
    from scipy.interpolate import LinearNDInterpolator
    from scipy.spatial import QhullError, cKDTree

    lat, lon = np.asarray(field["lat"].values, np.float64).ravel(), np.asarray(field["lon"].values, np.float64).ravel()
    shape = tuple(int(size) for size in geobox.shape)
    height, width = shape
    cols, rows = _pixels_of(geobox, lon, lat)
    spacing = _spacing(cols.reshape(field.shape[-2:]), rows.reshape(field.shape[-2:]))
    near = np.isfinite(cols + rows) & (cols > -2 * spacing) & (cols < width + 2 * spacing)
    near &= (rows > -2 * spacing) & (rows < height + 2 * spacing)
    if near.sum() < 4:
        raise InputError(f"{name}: the curvilinear grid of {field.name} and the grid share no ground; pass other data")
    points = np.stack([rows[near], cols[near]], axis=-1)  # in pixels
    stack = np.asarray(field.values, np.float64).reshape(-1, lat.size)[:, near]
    centres = np.argwhere(np.ones(shape, bool)) + 0.5
    try:
        read = LinearNDInterpolator(points, stack.T)
    except QhullError as error:
        raise InputError(
            f"{name}: the cells of {field.name} under the grid lie on one line; choose a grid in a coordinate system "
            "of that place (near a pole latitudes and longitudes are none)"
        ) from error
    out = read(centres).T.astype(np.float32)  # (fields, pixels)
    distance, _ = cKDTree(points).query(centres)
    out[:, distance > spacing] = np.nan
    return np.asarray(out.reshape(*field.shape[:-2], *shape))


def _pixels_of(geobox: GeoBox, lon: np.ndarray, lat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows in a grid of longitudes and latitudes."""
    crs: Any = geobox.crs
    x, y = (np.asarray(v) for v in CRS("EPSG:4326").transformer_to_crs(crs)(lon, lat))
    if crs.geographic:  # the turn nearest to the middle of the grid
        middle = geobox.affine.c + geobox.affine.a * geobox.shape[1] / 2
        x = middle + (x - middle + 180) % 360 - 180
    a, b, c, d, e, f = tuple(~geobox.affine)[:6]
    return a * x + b * y + c, d * x + e * y + f


def _spacing(cols: np.ndarray, rows: np.ndarray) -> float:
    """The usual diagonal of a cell, in pixels."""
    diagonal = np.hypot(np.diff(cols, axis=1)[:-1], np.diff(rows, axis=1)[:-1])
    down = np.hypot(np.diff(cols, axis=0)[:, :-1], np.diff(rows, axis=0)[:, :-1])
    size = np.hypot(diagonal, down)
    return max(float(np.nanmedian(size[np.isfinite(size)])), 1.0) if np.isfinite(size).any() else 1.0


def area_mean(
    field: xr.DataArray, lat: Sequence[float] | np.ndarray, lon: Sequence[float] | np.ndarray, *, name: str = "dataset"
) -> xr.DataArray:
    """Average a field into coarser cells of latitude and longitude by the area that they share (conservative).

    The mean over any area of whole cells stays the same, which interpolation does not keep; for rain. Overlaps are
    exact on the sphere: differences of sin(latitude) times differences of longitude (Jones 1999, first order,
    doi:10.1175/1520-0493(1999)127<2204:FASOCR>2.0.CO;2).

    Args:
        field: canonical (..., lat, lon).
        lat: centres of the cells, evenly spaced, in any order; cells end at the poles.
        lon: centres of the cells, evenly spaced, rising; they may cross any meridian.
        name: file name, for messages.

    Returns:
        float32 (..., lat, lon) with lat falling and lon as given; the mean of what has data, NaN where more than half
        of a cell has none.

    Raises:
        InputError: the grid is none of latitudes and longitudes, does not cover the cells, or is coarser than they are.
    """
    down, across = np.sort(np.asarray(lat, np.float64))[::-1], np.asarray(lon, np.float64)
    north, west = regions.edges(down).clip(-90, 90), regions.edges(across)
    fine = regions.step(field["lat"].values) if "lat" in field.dims else 0.0
    size = regions.step(down)
    if not 0 < fine <= size * (1 + 1e-6):
        raise InputError(f"{name}: cells of {fine:g} deg are no finer than the {size:g} deg wanted; use regrid.onto")
    box = regions.Region(west[0], north[-1], west[0] + min(west[-1] - west[0], 360.0), north[0])
    part = regions.around(field.to_dataset(name="field"), box, name=name)["field"]
    part = part.load() if part.nbytes <= _AT_ONCE else part  # a chunk of many times is read once then
    theirs = part["lon"].values
    turn = 360.0 * np.round((theirs.mean() - across.mean()) / 360.0)
    rows = _shared(np.sin(np.deg2rad(regions.edges(part["lat"].values).clip(-90, 90))), np.sin(np.deg2rad(north)))
    cols = _shared(regions.edges(theirs), west + turn)
    out = np.empty((*part.shape[:-2], len(down), len(across)), np.float32)
    for at in np.ndindex(*part.shape[:-2]):
        out[at] = _weighted(np.asarray(part.variable[at].values, np.float64), rows, cols)
    axes = {"lat": down, "lon": across}
    kept = {key: var.variable for key, var in field.coords.items() if not set(var.dims) & set(axes)}
    coords: dict[Any, Any] = {key: (key, values, dict(field[key].attrs)) for key, values in axes.items()}
    coords = kept | coords
    return xr.DataArray(out, coords, field.dims, name=field.name, attrs=dict(field.attrs))


def on_grid(field: xr.DataArray, wanted_lat: np.ndarray, wanted_lon: np.ndarray, *, name: str) -> np.ndarray:
    """The values of a canonical field (N, lat, lon) on other cells: (N, H, W), averaged by area where they differ.

    Raises:
        InputError: see `area_mean`.
    """
    lat, lon = field["lat"].values, field["lon"].values
    rows = [int(np.abs(lat - value).argmin()) for value in wanted_lat]
    columns = [int(np.abs(lon - value).argmin()) for value in wanted_lon]
    near = np.allclose(lat[rows], wanted_lat, atol=1e-3) and np.allclose(lon[columns], wanted_lon, atol=1e-3)
    if near:
        return np.asarray(field.isel(lat=rows, lon=columns).values, np.float32)
    return np.asarray(area_mean(field, wanted_lat, wanted_lon, name=name).values, np.float32)


def _shared(theirs: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """How much of each of our cells each of theirs makes up, by edges that rise or fall: (ours, theirs)."""
    low, high = np.minimum(ours[:-1], ours[1:]), np.maximum(ours[:-1], ours[1:])
    from_, to = np.minimum(theirs[:-1], theirs[1:]), np.maximum(theirs[:-1], theirs[1:])
    overlap = np.minimum(high[:, None], to) - np.maximum(low[:, None], from_)
    return np.asarray(overlap.clip(min=0) / (high - low)[:, None])


def _weighted(values: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Means (h, w) of values (H, W) by the shares of rows (h, H) and columns (w, W)."""
    known = np.isfinite(values)
    total = rows @ np.where(known, values, 0.0) @ cols.T
    weight = rows @ known.astype(np.float64) @ cols.T
    enough = weight >= 0.5 - 1e-9
    return np.asarray(np.divide(total, weight, out=np.full(total.shape, np.nan), where=enough))


@dataclass(frozen=True)
class Shares:
    """How much of each cell of a grid is seen at places.

    Attributes:
        weights: (U, cells), cells of `rows` and `spans` row by row; they sum to one for what lies on the grid.
        inside: whether a place lies on the grid (U,).
        rows: rows that any place sees, and those in between.
        spans: spans (first, last + 1) of columns, one after the other from west to east.
    """

    weights: Any
    inside: NDArray[np.bool_]
    rows: slice
    spans: tuple[tuple[int, int], ...]

    @property
    def cells(self) -> int:
        """Cells that are read for each time."""
        return int(self.weights.shape[1])

    def means(self, values: xr.Variable, times: slice) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """The mean of what has data at each place and time, and where that is half of what is seen or more: (U, S).

        Args:
            values: (time, lat, lon), with members first where it is of an ensemble: their mean is taken.
            times: those that are read.
        """
        part = lazy.runs(values.isel(time=times, lat=self.rows), "lon", self.spans)
        part = part.mean("number") if "number" in part.dims else part
        cells = np.asarray(part.transpose("time", "lat", "lon").values, np.float64).reshape(-1, self.cells).T
        known = np.abs(cells) <= np.finfo(np.float32).max  # neither NaN nor infinite
        total = self.weights @ np.where(known, cells, 0.0)
        weight = self.weights @ known.astype(np.float64)
        enough = weight >= 0.5 - 1e-9
        return np.divide(total, weight, out=np.zeros_like(total), where=enough), enough


def shares(
    lat: NDArray[np.float64], lon: NDArray[np.float64], places: NDArray[np.float64], *, join: Join, name: str
) -> Shares:
    """How much of each cell is seen at places.

    Args:
        lat: centres of the rows of a canonical grid.
        lon: centres of its columns.
        places: latitude and longitude (U, 2), of either convention; for areas west, south, east, north (U, 4).
        join: the cell that a place lies in; linear between centres and the nearest beyond the outermost; or the overlap
            with an area.
        name: file name, for messages.

    Raises:
        InputError: the grid has a single row or column, or areas are of too many cells.
    """
    from scipy.sparse import csr_array

    found = _overlaps(lat, lon, places, name) if join == "area" else _between(lat, lon, places, join, name)
    inside = np.array([len(down[0]) > 0 and len(across[0]) > 0 for down, across in found], bool)
    found = [pair for pair, there in zip(found, inside, strict=True) if there]
    if sum(len(down[0]) * len(across[0]) for down, across in found) > _MOST_CELLS:
        raise InputError(
            f"{name}: areas of samples have more than {_MOST_CELLS} cells of weather; take smaller samples"
        )
    if not found:
        return Shares(csr_array((len(places), 0)), inside, slice(0, 0), ((0, 0),))
    used = np.unique(np.concatenate([down[0] for down, _ in found]))
    rows = slice(int(used[0]), int(used[-1]) + 1)
    spans = _arc(np.unique(np.concatenate([across[0] for _, across in found])), len(lon))
    column = np.zeros(len(lon), np.int64)
    every = np.concatenate([np.arange(*span) for span in spans])
    column[every] = np.arange(len(every))
    cells = [((down[0] - rows.start)[:, None] * len(every) + column[across[0]]).ravel() for down, across in found]
    weights = np.concatenate([np.outer(down[1], across[1]).ravel() for down, across in found])
    owners = np.repeat(np.flatnonzero(inside), [len(of) for of in cells])
    shape = (len(places), (rows.stop - rows.start) * len(every))
    return Shares(csr_array((weights, (owners, np.concatenate(cells))), shape), inside, rows, spans)


def _arc(used: NDArray[np.int64], count: int) -> tuple[tuple[int, int], ...]:
    """The columns used and those in between, without the widest gap that there is on the way round."""
    gaps = np.diff(used)
    at = int(np.argmax(gaps)) if len(gaps) else 0
    if len(gaps) and gaps[at] > used[0] + count - used[-1]:
        return (int(used[at + 1]), count), (0, int(used[at]) + 1)
    return ((int(used[0]), int(used[-1]) + 1),)


def _round(lon: NDArray[np.float64]) -> bool:
    """Whether columns go round the globe."""
    return regions.extent(xr.Dataset(coords={"lat": [0.0], "lon": lon})).width == 360


def _between(
    lat: NDArray[np.float64], lon: NDArray[np.float64], places: NDArray[np.float64], join: Join, name: str
) -> list[tuple[Part, Part]]:
    """Rows and columns of places, each with weights; none for places off the grid."""
    nodes = np.concatenate([[lon[-1] - 360], lon, [lon[0] + 360]]) if _round(lon) else lon
    west = lon[0] - (lon[1] - lon[0]) / 2 if len(lon) > 1 else lon[0]
    turned = west + np.mod(places[:, 1] - west + 1e-9, 360) - 1e-9  # rounding turns none at the edge round
    down, across = _places(lat, places[:, 0], name), _places(nodes, turned, name)
    shift = int(len(nodes) > len(lon))
    parts = []
    for row, col in zip(down, across, strict=True):
        cells, weights = _along(col, len(nodes), join)
        parts.append((_along(row, len(lat), join), ((cells - shift) % len(lon), weights)))
    return parts


def _along(place: float, count: int, join: Join) -> Part:
    """The cells along an axis that are seen at a place in cells, and their weights."""
    if place == _OFF:
        return np.empty(0, np.int64), np.empty(0)
    if join == "cell":
        return np.array([min(int(place), count - 1)]), np.ones(1)
    first = min(max(place - 0.5, 0.0), count - 1.0)
    low = min(int(first), count - 2)
    return np.array([low, low + 1]), np.array([low + 1 - first, first - low])


def _overlaps(
    lat: NDArray[np.float64], lon: NDArray[np.float64], boxes: NDArray[np.float64], name: str
) -> list[tuple[Part, Part]]:
    """Rows and columns that areas overlap, each with the share of the area; none for areas off the grid."""
    if min(len(lat), len(lon)) < 2:
        raise InputError(f"{name}: one row or column of cells has no size, areas have no mean of it; pass more of them")
    rows, cols = np.sin(np.deg2rad(regions.edges(lat).clip(-90, 90))), regions.edges(lon)
    parts = []
    for box in boxes:
        region = regions.Region(*box)
        west = cols[0] + (region.west - cols[0]) % 360
        ends = np.array([west, west + region.width])
        down = _shared(rows, np.sin(np.deg2rad([region.south, region.north])))[0]
        across = _shared(cols, ends)[0] + _shared(cols + 360, ends)[0]
        parts.append(tuple((np.flatnonzero(of), of[of > 0]) for of in (down, across)))
    return [(down, across) for down, across in parts]
