"""Anything onto one grid: a window of a raster, read on the pixels of a GeoBox, with NaN where it has no data."""

from __future__ import annotations

import functools
import math
import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterWindow

from models.errors import InputError, RunError
from pipelines.grids.windows import Window

_OPEN_FILES = 64
_CHUNK_PIXELS = 1 << 24
_GRID_NODES = 17
_SAME_PIXEL = 0.01
_ROUNDING = 1e-6
_MOST_POINTS = 16
_MOST_IN_A_BLOCK = 1 << 29  # bytes


class _Handles(threading.local):
    """Open datasets of this thread, the last used at the end; a dataset must not cross threads or forks."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.open: OrderedDict[tuple[Any, ...], Any] = OrderedDict()


_handles = _Handles()


def dataset(path: str, *, drivers: tuple[str, ...] | None = None) -> Any:
    """Open a raster, or return the one this thread has open: at most 64 stay open, and a rewritten file is reopened.

    Args:
        path: a file, or any URL that rasterio opens.
        drivers: the formats that may be opened, by GDAL's names; any when None.

    Raises:
        InputError: the file is missing, or it is no raster that GDAL can read.
    """
    if _handles.pid != os.getpid():
        _handles.pid, _handles.open = os.getpid(), OrderedDict()
    key = (path, drivers, *_signature(path))
    if key not in _handles.open:
        _handles.open[key] = _open(path, drivers)
        if len(_handles.open) > _OPEN_FILES:
            _handles.open.popitem(last=False)
    _handles.open.move_to_end(key)
    return _handles.open[key]


def forget(path: str) -> None:
    """Close this thread's handles of a file, if it has any."""
    for key in [key for key in _handles.open if key[0] == path]:
        _handles.open.pop(key).close()


def _signature(path: str) -> tuple[int, int]:
    """Size and time of change of a local file; zeros for a URL.

    Raises:
        InputError: a local file is missing or is a folder.
    """
    if "://" in path or path.startswith("/vsi"):
        return 0, 0
    file = Path(path)
    if not file.exists():
        raise InputError(f"{path}: no such file; check the path")
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


def _open(path: str, drivers: tuple[str, ...] | None) -> Any:
    """Open a raster for reading, with GDAL's complaints turned into ours."""
    # A remote folder may hold thousands of files: do not list it to look for sidecars.
    options = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"} if "://" in path else {}
    try:
        with warnings.catch_warnings(), rasterio.Env(**options):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            # rasterio.open takes one driver only
            source = DatasetReader(path, driver=list(drivers)) if drivers else rasterio.open(path)
    except RasterioIOError as error:
        raise InputError(
            f"{path}: not a raster that can be read ({_line(error)}); check or fetch the file again"
        ) from error
    size = max(_block_bytes(source), default=0)
    if size > _MOST_IN_A_BLOCK:
        source.close()
        raise InputError(
            f"{path}: its pixels come in blocks of {size / 2**30:.1f} GiB, each of which is decoded whole; at most "
            f"{_MOST_IN_A_BLOCK / 2**30:.1f} GiB is read: rewrite it with `gdal_translate -co TILED=YES`"
        )
    return source


def _block_bytes(source: Any) -> list[int]:
    """What has to be decoded to read one pixel of each band; of all bands where a block holds them together."""
    together = source.count if source.interleaving and source.interleaving.name == "pixel" else 1
    blocks = zip(source.block_shapes, source.dtypes, strict=True)
    sizes = {"complex_int16": 4}  # the only type that numpy lacks
    return [
        rows * columns * (sizes.get(kind) or np.dtype(kind).itemsize) * together for (rows, columns), kind in blocks
    ]


def grid(source: Any) -> GeoBox:
    """The grid of an open raster; without coordinate system it has crs None.

    A transform that counts pixels (unit steps from the corner, rows downwards as in a picture) locates nothing, so
    its coordinate system is left out.

    Raises:
        InputError: the raster is tied to the ground by control points only, or its transform has no area.
    """
    points, _ = source.gcps
    if points and source.crs is None:
        raise InputError(
            f"{source.name}: located by {len(points)} ground control points only, a grid is wanted; "
            "run gdalwarp on the file first"
        )
    if source.transform.determinant == 0:
        raise InputError(f"{source.name}: its geotransform has no area; write the file again with a pixel size")
    pixels = counts_pixels(source.transform)
    return GeoBox(
        (source.height, source.width), source.transform, None if source.crs is None or pixels else source.crs.to_wkt()
    )


def crop(geobox: GeoBox, window: Window) -> GeoBox:
    """The grid of a window of a grid (odc-geo's own indexing warns with affine 3)."""
    rows, cols = window
    a, b, c, d, e, f = tuple(geobox.affine)[:6]
    corner = c + a * cols.start + b * rows.start, f + d * cols.start + e * rows.start
    affine = Affine(a, b, corner[0], d, e, corner[1])
    return GeoBox((rows.stop - rows.start, cols.stop - cols.start), affine, geobox.crs)


def counts_pixels(affine: Affine) -> bool:
    """Whether a transform counts pixels from the corner of a picture, and so says nothing about the ground."""
    return affine.almost_equals(Affine.identity()) or affine.almost_equals(Affine.translation(-0.5, -0.5))


def overlaps(source: Any, geobox: GeoBox) -> bool:
    """Whether a raster and a grid share ground (always true of rasters without coordinate system of the grid's shape).

    Raises:
        InputError: one has no coordinate system and the shapes differ.
    """
    theirs = grid(source)
    if _unlocated(source, theirs, geobox):
        return True
    return _clip(_footprint(theirs, geobox, pad=0), theirs.shape) is not None


def read_onto(
    source: Any,
    geobox: GeoBox,
    window: Window,
    *,
    indexes: Sequence[int],
    resampling: Resampling | None = None,
    nodata: float | None = None,
    masked: bool = True,
) -> np.ndarray:
    """Read bands of a raster on the pixels of a window of a grid.

    Where the raster has the same pixels (equal, or shifted by whole pixels) they are copied; else they are resampled
    with an exact transform, so that a window reads the same, bit for bit, as the crop of a larger read. Memory is
    bounded by the window and, where the raster is finer, by chunks of 16 million of its pixels.

    Args:
        source: an open rasterio dataset.
        geobox: the grid.
        window: rows and columns of the grid.
        indexes: bands, from 1.
        resampling: None picks bilinear, or average where the raster is at least 1.5 times finer; nearest for codes.
        nodata: raw value that means no data; None takes the one that each band declares, NaN takes none.
        masked: False leaves mask bands and alpha alone.

    Returns:
        float32 (bands, rows, columns), NaN where masked, not finite or outside the raster.

    Raises:
        InputError: one of the two has no coordinate system and the shapes differ.
        RunError: the pixels cannot be read; names file and window.
    """
    theirs = grid(source)
    request = _Request(source, tuple(indexes), nodata, masked)
    shift = (0, 0) if _unlocated(source, theirs, geobox) else _shift(theirs, geobox)
    if shift is not None:
        return request.read(_moved(window, shift))
    # Not `resampling or ...`: nearest is 0.
    method = continuous(theirs, geobox) if resampling is None else resampling
    return _warp(request, theirs, geobox, window, method)


def continuous(theirs: GeoBox, geobox: GeoBox) -> Resampling:
    """Resampling for reflectance and other quantities: average from a finer grid (1.5 times or more), else bilinear."""
    across, down = _ratio(theirs, geobox)
    return Resampling.average if min(across, down) >= 1.5 else Resampling.bilinear


class _Request:
    """Bands of a raster to be read, and what counts as no data."""

    def __init__(self, source: Any, indexes: tuple[int, ...], nodata: float | None, masked: bool) -> None:
        self.source, self.indexes, self.nodata, self.masked = source, indexes, nodata, masked

    def read(self, window: Window) -> np.ndarray:
        """Read a window that may reach beyond the raster: float32 (bands, rows, cols), NaN outside and where masked."""
        rows, cols = window
        inside = _clip(window, self.source.shape)
        if inside == window:
            return self._pixels(window)
        out = np.full((len(self.indexes), rows.stop - rows.start, cols.stop - cols.start), np.nan, np.float32)
        if inside is not None:
            r, c = inside
            place = np.s_[:, r.start - rows.start : r.stop - rows.start, c.start - cols.start : c.stop - cols.start]
            out[place] = self._pixels(inside)
        return out

    def _pixels(self, window: Window) -> np.ndarray:
        """Read a window that lies inside the raster."""
        rows, cols = window
        box = RasterWindow(cols.start, rows.start, cols.stop - cols.start, rows.stop - rows.start)
        try:
            raw = self.source.read(list(self.indexes), window=box)
            hidden = self._hidden(raw, box)
        except RasterioIOError as error:
            raise RunError(
                f"{self.source.name}: rows {rows.start}-{rows.stop}, columns {cols.start}-{cols.stop} cannot be read "
                f"({_line(error)}); the file may be cut short: fetch it again"
            ) from error
        values: np.ndarray = raw.astype(np.float32)
        if raw.dtype.kind not in "iub":
            hidden |= ~np.isfinite(values)
        np.copyto(values, np.nan, where=hidden)
        return values

    def _hidden(self, raw: np.ndarray, box: RasterWindow) -> np.ndarray:
        """Pixels without data by value, mask band or alpha; bool (bands, rows, columns)."""
        hidden = np.zeros(raw.shape, bool)
        for band, index in enumerate(self.indexes):
            nodata = self.source.nodatavals[index - 1] if self.nodata is None else self.nodata
            if nodata is not None and not math.isnan(nodata):
                hidden[band] = raw[band] == _as_dtype(nodata, raw.dtype)
            flags = self.source.mask_flag_enums[index - 1]
            if self.masked and MaskFlags.all_valid not in flags and MaskFlags.nodata not in flags:
                hidden[band] |= np.equal(self.source.read_masks(index, window=box), 0)
        return hidden


def _as_dtype(value: float, dtype: np.dtype[Any]) -> Any:
    """A nodata value as pixels hold it; float32 files declare -3.4028235e38 with the digits of a float64."""
    return dtype.type(value) if np.issubdtype(dtype, np.floating) else value


def _unlocated(source: Any, theirs: GeoBox, geobox: GeoBox) -> bool:
    """Whether raster and grid can only be matched pixel by pixel, for want of a coordinate system in one of them."""
    if theirs.crs is not None and geobox.crs is not None:
        return False
    (height, width), (wanted_height, wanted_width) = theirs.shape, geobox.shape
    if (height, width) != (wanted_height, wanted_width):
        raise InputError(
            f"{source.name}: {height}x{width} pixels meet a grid of {wanted_height}x{wanted_width} and one of them has "
            "no coordinate system; give both one, or make the sizes equal"
        )
    return True


def _shift(theirs: GeoBox, geobox: GeoBox) -> tuple[int, int] | None:
    """Rows and columns between the origins of two grids with the same pixels; None where the pixels differ."""
    if theirs.crs != geobox.crs:
        return None
    height, width = geobox.shape
    down, right = np.array([0.0, height, 0.0]), np.array([0.0, 0.0, width])
    rows, cols = _project(theirs, geobox, down, right)
    shift = round(float(rows[0])), round(float(cols[0]))
    drift = max(np.abs(rows - down - shift[0]).max(), np.abs(cols - right - shift[1]).max())
    return shift if drift < _SAME_PIXEL else None


def _warp(request: _Request, theirs: GeoBox, geobox: GeoBox, window: Window, method: Resampling) -> np.ndarray:
    """Resample the raster onto a window, in halves where the raster is so fine that its pixels would not fit."""
    rows, cols = window
    height, width = rows.stop - rows.start, cols.stop - cols.start
    ratio = max(_ratio(theirs, geobox))
    under = _clip(_footprint(theirs, crop(geobox, window), pad=2 + math.ceil(2 * ratio)), theirs.shape)
    if under is None:
        return np.full((len(request.indexes), height, width), np.nan, np.float32)
    pixels = (under[0].stop - under[0].start) * (under[1].stop - under[1].start) * len(request.indexes)
    if pixels > _CHUNK_PIXELS and max(height, width) > 1:
        parts = _halves(window)
        axis = 1 if height >= width else 2
        return np.concatenate([_warp(request, theirs, geobox, part, method) for part in parts], axis=axis)
    return _resample(request.read(under), _Lattice(theirs, geobox, window, under), method)


def _halves(window: Window) -> tuple[Window, Window]:
    """Cut a window in two across its longer side."""
    rows, cols = window
    if rows.stop - rows.start >= cols.stop - cols.start:
        middle = (rows.start + rows.stop) // 2
        return (slice(rows.start, middle), cols), (slice(middle, rows.stop), cols)
    middle = (cols.start + cols.stop) // 2
    return (rows, slice(cols.start, middle)), (rows, slice(middle, cols.stop))


class _Lattice:
    """Where the pixels of a window lie in the pixels that were read of a raster, transformed exactly at their corners.

    GDAL's warper interpolates the transform along each row of a window (to 1/8 pixel), so that neighbouring windows
    disagree; positions found from the grid's own pixel numbers are the same for every window.
    """

    def __init__(self, theirs: GeoBox, geobox: GeoBox, window: Window, under: Window) -> None:
        rows, cols = np.mgrid[window[0].start : window[0].stop + 1, window[1].start : window[1].stop + 1]
        down, across = _project(theirs, geobox, rows.ravel().astype(float), cols.ravel().astype(float))
        off = -1e9  # far outside of any raster
        self.rows = np.where(np.isfinite(down), down - under[0].start, off).reshape(rows.shape)
        self.cols = np.where(np.isfinite(across), across - under[1].start, off).reshape(rows.shape)
        self.ratio = _ratio(theirs, geobox)

    def at(self, down: float, across: float) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the points that lie `down` and `across` of the way through each pixel (0..1)."""
        return _between(self.rows, down, across), _between(self.cols, down, across)


def _between(corners: np.ndarray, down: float, across: float) -> np.ndarray:
    """Interpolate from the four corners of each pixel: (h + 1, w + 1) to (h, w)."""
    top = corners[:-1, :-1] * (1 - across) + corners[:-1, 1:] * across
    bottom = corners[1:, :-1] * (1 - across) + corners[1:, 1:] * across
    inside: np.ndarray = top * (1 - down) + bottom * down
    return inside


def _resample(values: np.ndarray, lattice: _Lattice, method: Resampling) -> np.ndarray:
    """Resample pixels in memory, float32 (bands, H, W) with NaN where invalid, to (bands, h, w).

    Raises:
        ValueError: the method is none of nearest, bilinear and average.
    """
    if method == Resampling.nearest:
        return _nearest(values, *lattice.at(0.5, 0.5))
    if method == Resampling.bilinear:
        return _bilinear(values, *lattice.at(0.5, 0.5))
    if method == Resampling.average:
        return _average(values, lattice)
    raise ValueError(f"resampling {method}: wanted nearest, bilinear or average")


def _nearest(values: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """The pixel that holds each point; on an edge (but for rounding) the one below and to the right."""
    return _pick(values, np.floor(rows + _ROUNDING).astype(np.int64), np.floor(cols + _ROUNDING).astype(np.int64))


def _pick(values: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Pixels by row and column, NaN outside."""
    _, height, width = values.shape
    inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
    picked: np.ndarray = values[:, rows.clip(0, height - 1), cols.clip(0, width - 1)]
    picked[:, ~inside] = np.nan
    return picked


def _bilinear(values: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Mean of the four pixels around each point by distance, of those with data; NaN where the nearest has none."""
    first_row, first_col = np.floor(rows - 0.5).astype(np.int64), np.floor(cols - 0.5).astype(np.int64)
    down, across = rows - 0.5 - first_row, cols - 0.5 - first_col
    total, weight = np.zeros((len(values), *rows.shape)), np.zeros((len(values), *rows.shape))
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        near = _pick(values, first_row + i, first_col + j)
        share = np.where(np.isnan(near), 0.0, (down if i else 1 - down) * (across if j else 1 - across))
        total += np.where(np.isnan(near), 0.0, near) * share
        weight += share
    known = np.isfinite(_nearest(values, rows, cols)) & (weight > 0)
    mean: np.ndarray = np.divide(total, weight, out=np.full(total.shape, np.nan), where=known)
    return mean.astype(np.float32)


def _average(values: np.ndarray, lattice: _Lattice) -> np.ndarray:
    """Mean of the pixels under each pixel of the grid, NaN where less than half of them have data.

    The pixels are found at as many points as the raster is finer, at most 16 x 16, spread evenly: where a whole number
    of pixels fits, each is met once.
    """
    across, down = (min(max(math.ceil(ratio - _SAME_PIXEL), 1), _MOST_POINTS) for ratio in lattice.ratio)
    shape = (len(values), lattice.rows.shape[0] - 1, lattice.rows.shape[1] - 1)
    total, count = np.zeros(shape), np.zeros(shape, np.int64)
    for point in range(down * across):
        near = _nearest(values, *lattice.at((point // across + 0.5) / down, (point % across + 0.5) / across))
        known = np.isfinite(near)
        total += np.where(known, near, 0.0)
        count += known
    enough = 2 * count >= down * across
    mean: np.ndarray = np.divide(total, count, out=np.full(shape, np.nan), where=enough)
    return mean.astype(np.float32)


@functools.lru_cache(maxsize=256)
def _ratio(theirs: GeoBox, geobox: GeoBox) -> tuple[float, float]:
    """Pixels of the raster per pixel of the grid, across and down, at its centre (1 where that is off the map)."""
    row, col = geobox.shape[0] / 2, geobox.shape[1] / 2
    rows, cols = _project(theirs, geobox, np.array([row, row, row + 1]), np.array([col, col + 1, col]))
    across, down = abs(cols[1] - cols[0]) + abs(cols[2] - cols[0]), abs(rows[1] - rows[0]) + abs(rows[2] - rows[0])
    return (float(across), float(down)) if math.isfinite(across + down) and across * down > 0 else (1.0, 1.0)


def _footprint(theirs: GeoBox, geobox: GeoBox, *, pad: int) -> Window | None:
    """Rows and columns of the raster that lie under a grid, unclipped; None where no pixel can be transformed."""
    rows, cols = np.meshgrid(
        np.linspace(0, geobox.shape[0], _GRID_NODES), np.linspace(0, geobox.shape[1], _GRID_NODES), indexing="ij"
    )
    rows, cols = _project(theirs, geobox, rows.ravel(), cols.ravel())
    good = np.isfinite(rows) & np.isfinite(cols)
    return (_span(rows[good], pad), _span(cols[good], pad)) if good.any() else None


def _span(positions: np.ndarray, pad: int) -> slice:
    """The pixels from the least to the greatest position, and a margin for what curves between them."""
    first, last = float(positions.min()), float(positions.max())
    # A shared edge is no overlap: positions that are whole numbers but for rounding stay on their side.
    margin = pad + (math.ceil(0.01 * (last - first)) if pad else 0)
    return slice(math.floor(first + 1e-6) - margin, math.ceil(last - 1e-6) + margin)


def _project(theirs: GeoBox, geobox: GeoBox, rows: np.ndarray, cols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns in the raster of positions in the grid; infinite where there is no transformation."""
    a, b, c, d, e, f = tuple(geobox.affine)[:6]
    xs, ys = a * cols + b * rows + c, d * cols + e * rows + f
    if theirs.crs is not None and geobox.crs is not None and theirs.crs != geobox.crs:
        xs, ys = geobox.crs.transformer_to_crs(theirs.crs)(xs, ys)
    a, b, c, d, e, f = tuple(~theirs.affine)[:6]
    return d * xs + e * ys + f, a * xs + b * ys + c


def _clip(window: Window | None, shape: Sequence[int]) -> Window | None:
    """The part of a window that lies inside a raster of a shape; None where nothing does."""
    if window is None:
        return None
    rows, cols = (slice(max(s.start, 0), min(s.stop, size)) for s, size in zip(window, shape, strict=True))
    return (rows, cols) if rows.start < rows.stop and cols.start < cols.stop else None


def _moved(window: Window, shift: tuple[int, int]) -> Window:
    """The window shifted by rows and columns."""
    rows, cols = (slice(s.start + by, s.stop + by) for s, by in zip(window, shift, strict=True))
    return rows, cols


def _line(error: RasterioError) -> str:
    """The message of an error, and of what caused it, on one line."""
    return " ".join(str(error.__cause__ or error).split())


def coarser(geobox: GeoBox, cells: int) -> GeoBox:
    """The grid whose pixels are `cells` x `cells` pixels of another, from the same corner, covering all of it."""
    height, width = (-(-int(side) // cells) for side in geobox.shape)
    return GeoBox((height, width), geobox.affine * Affine.scale(cells), geobox.crs)


def sample(values: np.ndarray, rows: np.ndarray, cols: np.ndarray, method: Resampling) -> np.ndarray:
    """Values of pixels in memory at any points, by the rules of `read_onto`.

    Args:
        values: float32 (bands, H, W), NaN where invalid.
        rows: rows of the points, counted from the upper edge (the centre of the first row is 0.5), any shape.
        cols: columns of the points, likewise.
        method: nearest or bilinear.

    Returns:
        float32 (bands, ...), NaN outside and where the nearest pixel is invalid.

    Raises:
        ValueError: the method is neither.
    """
    if method == Resampling.nearest:
        return _nearest(values, rows, cols)
    if method == Resampling.bilinear:
        return _bilinear(values, rows, cols)
    raise ValueError(f"resampling {method}: wanted nearest or bilinear")
