"""Anything onto one grid: a window of a raster, read on the pixels of a GeoBox, with NaN where it has no data."""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterWindow

from models.errors import InputError, RunError
from pipelines.grids.positions import Lattice, clip, footprint, halves, moved, pixel_ratio, whole_shift
from pipelines.grids.resample import resample
from pipelines.grids.windows import Window

_OPEN_FILES = 64
_CHUNK_PIXELS = 1 << 24
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
    """Size and time of change of a local file; zeros for a URL."""
    if "://" in path or path.startswith("/vsi"):
        return 0, 0
    file = Path(path)
    if not file.exists():
        raise InputError(f"{path}: no such file; check the path")
    stat = file.stat()
    if file.is_file() and stat.st_size == 0:
        raise InputError(f"{path}: is empty (0 bytes); fetch it again")
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
            f"{path}: not a raster that can be read ({reason(error)}); check or fetch the file again"
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
    bytes_of = {kind: sizes.get(kind) or np.dtype(kind).itemsize for kind in source.dtypes}
    return [rows * columns * bytes_of[kind] * together for (rows, columns), kind in blocks]


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
        InputError: one has no coordinate system and the shapes differ.
    """
    theirs = grid(source)
    if _unlocated(source, theirs, geobox):
        return True
    return clip(footprint(theirs, geobox, pad=0), theirs.shape) is not None


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
    return _warp(request, theirs, geobox, window, method)


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
        values: np.ndarray = raw.astype(np.float32)
        if raw.dtype.kind not in "iub":
            hidden |= ~np.isfinite(values)
        np.copyto(values, np.nan, where=hidden)
        return values

    def _hidden(self, raw: np.ndarray, box: RasterWindow) -> np.ndarray:
        """Pixels without data by value, mask band or alpha; bool (bands, rows, columns)."""
        hidden = np.zeros(raw.shape, bool)
        for band, index in enumerate(self.indexes):
            declared = self.source.nodatavals[index - 1]
            for value in (*self.nodata, *([declared] if self.declared and declared is not None else [])):
                if not math.isnan(value):
                    # Pixels hold it in their type: float32 files declare -3.4028235e38 with the digits of a float64.
                    hidden[band] |= raw[band] == (raw.dtype.type(value) if raw.dtype.kind == "f" else value)
            flags = self.source.mask_flag_enums[index - 1]
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


def _warp(request: _Request, theirs: GeoBox, geobox: GeoBox, window: Window, method: Resampling) -> np.ndarray:
    """Resample the raster onto a window, in halves where the raster is so fine that its pixels would not fit."""
    rows, cols = window
    height, width = rows.stop - rows.start, cols.stop - cols.start
    ratio = max(pixel_ratio(theirs, geobox))
    under = clip(footprint(theirs, crop(geobox, window), pad=2 + math.ceil(2 * ratio)), theirs.shape)
    if under is None:
        return np.full((len(request.indexes), height, width), np.nan, np.float32)
    pixels = (under[0].stop - under[0].start) * (under[1].stop - under[1].start) * len(request.indexes)
    if pixels > _CHUNK_PIXELS and max(height, width) > 1:
        parts = halves(window)
        axis = 1 if height >= width else 2
        return np.concatenate([_warp(request, theirs, geobox, part, method) for part in parts], axis=axis)
    return resample(request.read(under), Lattice(theirs, geobox, window, under), method)


def reason(error: Exception) -> str:
    """The message of an error, and of what caused it, on one line."""
    return " ".join(str(error.__cause__ or error).split())
