"""Where the pixels of one grid lie in another, exactly."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

from pipelines.grids.windows import Window

_GRID_NODES = 17
SAME_PIXEL = 0.01
ROUNDING = 1e-6  # pixels


def whole_shift(theirs: GeoBox, geobox: GeoBox) -> tuple[int, int] | None:
    """Rows and columns between the origins of two grids with the same pixels; None where the pixels differ."""
    if theirs.crs != geobox.crs:
        return None
    height, width = geobox.shape
    down, right = np.array([0.0, height, 0.0]), np.array([0.0, 0.0, width])
    rows, cols = _project(theirs, geobox, down, right)
    shift = round(float(rows[0])), round(float(cols[0]))
    drift = max(np.abs(rows - down - shift[0]).max(), np.abs(cols - right - shift[1]).max())
    return shift if drift < SAME_PIXEL else None


def phase(geobox: GeoBox) -> tuple[int, int]:
    """Row and column of a grid at which its coordinate system begins, as a pixel counted from the grid's first.

    Tiles that are counted from there are the same in all scenes that share pixels: ground has one map, whatever scene
    it is cut from. (0, 0) of a grid that is turned.
    """
    a, b, c, d, e, f = tuple(geobox.affine)[:6]
    return (0, 0) if b or d else (-math.floor(f / e + 0.5), -math.floor(c / a + 0.5))


def halves(window: Window) -> tuple[Window, Window]:
    """Cut a window in two across its longer side."""
    rows, cols = window
    if rows.stop - rows.start >= cols.stop - cols.start:
        middle = (rows.start + rows.stop) // 2
        return (slice(rows.start, middle), cols), (slice(middle, rows.stop), cols)
    middle = (cols.start + cols.stop) // 2
    return (rows, slice(cols.start, middle)), (rows, slice(middle, cols.stop))


class Lattice:
    """Where the pixels of a window lie in the pixels that were read of a raster, transformed exactly at their corners.

    GDAL's warper interpolates the transform along each row of a window (to 1/8 pixel), so that neighbouring windows
    disagree; positions found from the grid's own pixel numbers are the same for every window.
    """

    def __init__(self, theirs: GeoBox, geobox: GeoBox, window: Window, under: Window) -> None:
        """Find the corners of the pixels of `window` of a grid in the pixels `under` it of a raster."""
        rows, cols = np.mgrid[window[0].start : window[0].stop + 1, window[1].start : window[1].stop + 1]
        down, across = _project(theirs, geobox, rows.ravel().astype(float), cols.ravel().astype(float))
        off = -1e9  # far outside of any raster
        self.rows = np.where(np.isfinite(down), down - under[0].start, off).reshape(rows.shape)
        self.cols = np.where(np.isfinite(across), across - under[1].start, off).reshape(rows.shape)
        self.ratio = pixel_ratio(theirs, geobox)
        self.parallel = parallel(theirs, geobox)

    def at(self, down: float, across: float) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the points that lie `down` and `across` of the way through each pixel (0..1)."""
        return _between(self.rows, down, across), _between(self.cols, down, across)


def _between(corners: np.ndarray, down: float, across: float) -> np.ndarray:
    """Interpolate from the four corners of each pixel: (h + 1, w + 1) to (h, w)."""
    top = corners[:-1, :-1] * (1 - across) + corners[:-1, 1:] * across
    bottom = corners[1:, :-1] * (1 - across) + corners[1:, 1:] * across
    return np.asarray(top * (1 - down) + bottom * down)


def parallel(theirs: GeoBox, geobox: GeoBox) -> bool:
    """Whether rows and columns of two grids run side by side, whatever the size of their pixels."""
    _, b, _, d, _, _ = tuple(~theirs.affine * geobox.affine)[:6]
    height, width = geobox.shape
    return bool(theirs.crs == geobox.crs and abs(b) * height < ROUNDING and abs(d) * width < ROUNDING)


@functools.lru_cache(maxsize=256)
def pixel_ratio(theirs: GeoBox, geobox: GeoBox) -> tuple[float, float]:
    """Pixels of the raster per pixel of the grid, across and down, at its centre (1 where that is off the map)."""
    row, col = geobox.shape[0] / 2, geobox.shape[1] / 2
    rows, cols = _project(theirs, geobox, np.array([row, row, row + 1]), np.array([col, col + 1, col]))
    across, down = abs(cols[1] - cols[0]) + abs(cols[2] - cols[0]), abs(rows[1] - rows[0]) + abs(rows[2] - rows[0])
    return (float(across), float(down)) if math.isfinite(across + down) and across * down > 0 else (1.0, 1.0)


def footprint(theirs: GeoBox, geobox: GeoBox, *, pad: int) -> Window | None:
    """Rows and columns of the raster that lie under a grid, unclipped; None where no pixel can be transformed."""
    sides = (np.linspace(0, size, _GRID_NODES) for size in geobox.shape)
    rows, cols = np.meshgrid(*sides, indexing="ij")
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


def clip(window: Window | None, shape: Sequence[int]) -> Window | None:
    """The part of a window that lies inside a raster of a shape; None where nothing does."""
    if window is None:
        return None
    rows, cols = (slice(max(s.start, 0), min(s.stop, size)) for s, size in zip(window, shape, strict=True))
    return (rows, cols) if rows.start < rows.stop and cols.start < cols.stop else None


def moved(window: Window, shift: tuple[int, int]) -> Window:
    """The window shifted by rows and columns."""
    rows, cols = (slice(s.start + by, s.stop + by) for s, by in zip(window, shift, strict=True))
    return rows, cols


def coarser(geobox: GeoBox, cells: int) -> GeoBox:
    """The grid whose pixels are `cells` x `cells` pixels of another, from the same corner, covering all of it."""
    height, width = (-(-int(side) // cells) for side in geobox.shape)
    return GeoBox((height, width), geobox.affine * Affine.scale(cells), geobox.crs)


def resized(geobox: GeoBox, down: float, across: float) -> GeoBox:
    """The grid whose pixels are `down` x `across` pixels of another, from the same corner, covering all of it."""
    height, width = (max(math.ceil(n / by - ROUNDING), 1) for n, by in zip(geobox.shape, (down, across), strict=True))
    return GeoBox((height, width), geobox.affine * Affine.scale(across, down), geobox.crs)
