"""Anything onto one grid: a window of a raster, read on the pixels of a GeoBox, with NaN where it has no data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj.exceptions import ProjError
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import RasterioIOError
from rasterio.windows import Window as RasterWindow

from models.errors import InputError, RunError
from pipelines.grids.positions import Lattice, clip, footprint, halves, moved, pixel_ratio, whole_shift
from pipelines.grids.rasters import bands_of as bands_of
from pipelines.grids.rasters import dataset as dataset
from pipelines.grids.rasters import forget as forget
from pipelines.grids.rasters import reason as reason
from pipelines.grids.resample import resample
from pipelines.grids.windows import Window

_CHUNK_PIXELS = 1 << 24


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
    if not (math.isfinite(source.transform.determinant) and source.transform.determinant):
        raise InputError(f"{source.name}: its geotransform has no area; write the file again with a pixel size")
    counting = (Affine.identity(), Affine.translation(-0.5, -0.5))  # of the corner, or of the middle of the first pixel
    counts = any(source.transform.almost_equals(affine) for affine in counting)
    crs = None if source.crs is None or counts else source.crs.to_wkt()
    return GeoBox((source.height, source.width), source.transform, crs)


def crop(geobox: GeoBox, window: Window) -> GeoBox:
    """The grid of a window of a grid (odc-geo's own indexing warns with affine 3)."""
    rows, cols = window
    a, b, c, d, e, f = tuple(geobox.affine)[:6]
    corner = c + a * cols.start + b * rows.start, f + d * cols.start + e * rows.start
    affine = Affine(a, b, corner[0], d, e, corner[1])
    return GeoBox((rows.stop - rows.start, cols.stop - cols.start), affine, geobox.crs)


def overlaps(source: Any, geobox: GeoBox) -> bool:
    """Whether a raster and a grid share ground (always true of rasters without coordinate system of the grid's shape).

    Raises:
        InputError: one has no coordinate system and the shapes differ, or nothing leads from one's to the other's.
    """
    theirs = grid(source)
    if _unlocated(source, theirs, geobox):
        return True
    try:
        return clip(footprint(theirs, geobox, pad=0), theirs.shape) is not None
    except ProjError as error:
        raise InputError(
            f"{source.name}: nothing leads from its coordinate system to that of the scene; correct it, such as by "
            "gdal_edit.py -a_srs"
        ) from error


def read_onto(
    source: Any,
    geobox: GeoBox,
    window: Window,
    *,
    indexes: Sequence[int],
    resampling: Resampling | None = None,
    nodata: Sequence[float] = (),
    declared: bool = True,
    masked: bool = True,
    alpha: int | None = None,
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
        nodata: raw values that mean no data, besides the one that each band declares.
        declared: False leaves that one alone.
        masked: False leaves mask bands alone.
        alpha: band of transparency: all bands are without data where it is 0.

    Returns:
        float32 (bands, rows, columns), NaN where masked, not finite or outside the raster.

    Raises:
        InputError: one of the two has no coordinate system and the shapes differ.
        RunError: the pixels cannot be read; names file and window.
    """
    theirs = grid(source)
    request = _Request(source, tuple(indexes), tuple(nodata), declared, masked, alpha)
    shift = (0, 0) if _unlocated(source, theirs, geobox) else whole_shift(theirs, geobox)
    if shift is not None:
        return request.read(moved(window, shift))
    # Not `resampling or ...`: nearest is 0.
    method = continuous(theirs, geobox) if resampling is None else resampling
    return warp(request.read, len(request.indexes), theirs, geobox, window, method)


def continuous(theirs: GeoBox, geobox: GeoBox) -> Resampling:
    """Resampling for reflectance and other quantities: average from a finer grid (1.5 times or more), else bilinear."""
    across, down = pixel_ratio(theirs, geobox)
    return Resampling.average if min(across, down) >= 1.5 else Resampling.bilinear


@dataclass(frozen=True)
class _Request:
    """Bands of a raster to be read, and what counts as no data."""

    source: Any
    indexes: tuple[int, ...]
    nodata: tuple[float, ...]
    declared: bool
    masked: bool
    alpha: int | None

    def read(self, window: Window) -> np.ndarray:
        """Read a window that may reach beyond the raster: float32 (bands, rows, cols), NaN outside and where masked."""
        rows, cols = window
        inside = clip(window, self.source.shape)
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
                f"({reason(error)}); the file may be cut short: fetch it again"
            ) from error
        with np.errstate(over="ignore"):  # what no float32 holds is infinite, and hidden
            values: np.ndarray = raw.astype(np.float32)
        if raw.dtype.kind not in "iub":
            hidden |= ~np.isfinite(values)
        np.copyto(values, np.nan, where=hidden)
        return values

    def _hidden(self, raw: np.ndarray, box: RasterWindow) -> np.ndarray:
        """Pixels without data by value, mask band or alpha; bool (bands, rows, columns)."""
        hidden = np.zeros(raw.shape, bool)
        told, masks = self.source.nodatavals, self.source.mask_flag_enums  # of all bands, made anew at each look
        for band, index in enumerate(self.indexes):
            declared, flags = told[index - 1], masks[index - 1]
            for value in (*self.nodata, *([declared] if self.declared and declared is not None else [])):
                if not math.isnan(value):
                    # Pixels hold it in their type: float32 files declare -3.4028235e38 with the digits of a float64.
                    hidden[band] |= raw[band] == (raw.dtype.type(value) if raw.dtype.kind == "f" else value)
            # The tag NODATA_VALUES, a value for each band, is a mask by nodata that no band declares.
            by_value = MaskFlags.nodata in flags and declared is not None
            if self.masked and MaskFlags.all_valid not in flags and not by_value:
                hidden[band] |= np.equal(self.source.read_masks(index, window=box), 0)
        if self.alpha is not None:
            hidden |= np.equal(self.source.read(self.alpha, window=box), 0)
        return hidden


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


def warp(
    read: Callable[[Window], np.ndarray], bands: int, theirs: GeoBox, geobox: GeoBox, window: Window, method: Resampling
) -> np.ndarray:
    """Resample pixels onto a window of a grid, in halves where they are so fine that they would not fit into memory.

    Args:
        read: gives the pixels of a window that lies inside `theirs`: float32 (bands, rows, columns), NaN where invalid.
        bands: how many there are.
        theirs: the grid of the pixels.
        geobox: the grid that is wanted.
        window: rows and columns of it.
        method: nearest, bilinear or average.

    Returns:
        float32 (bands, rows, columns), NaN where invalid and outside of `theirs`.
    """
    rows, cols = window
    height, width = rows.stop - rows.start, cols.stop - cols.start
    ratio = max(pixel_ratio(theirs, geobox))
    under = clip(footprint(theirs, crop(geobox, window), pad=2 + math.ceil(2 * ratio)), theirs.shape)
    if under is None:
        return np.full((bands, height, width), np.nan, np.float32)
    pixels = (under[0].stop - under[0].start) * (under[1].stop - under[1].start) * bands
    if pixels > _CHUNK_PIXELS and max(height, width) > 1:
        parts = halves(window)
        axis = 1 if height >= width else 2
        return np.concatenate([warp(read, bands, theirs, geobox, part, method) for part in parts], axis=axis)
    return resample(read(under), Lattice(theirs, geobox, window, under), method)
