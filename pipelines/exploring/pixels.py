"""A window of any raster on the grid of the map, in as few pixels as are shown: memory does not grow with the file."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.errors import NodataShadowWarning, RasterioError
from rasterio.io import DatasetReader, MemoryFile
from rasterio.warp import reproject
from rasterio.windows import Window as RasterWindow

from models.errors import InputError, RunError
from pipelines.grids import align
from pipelines.grids.positions import clip, footprint, pixel_ratio
from pipelines.grids.windows import Window, thinned

CACHE = 128 << 20  # bytes of decoded blocks that GDAL keeps
COARSE = 2048  # pixels; the longer side of what is kept of a raster without overviews
STRIP = 32  # rows of it that are made at a time
MOST = 4096  # pixels along a side that are read for a picture

Values = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Band:
    """A band that is looked at.

    Attributes:
        open: gives the open raster.
        index: band in it, from 1.
        among: all bands of the raster that are looked at.
        nodata: values without data, beside what the raster declares.
        scale: a value is raw * scale + offset.
        offset: see `scale`.
    """

    open: Callable[[], Any]
    index: int = 1
    among: tuple[int, ...] = (1,)
    nodata: tuple[float, ...] = ()
    scale: float = 1.0
    offset: float = 0.0


def read(band: Band, grid: GeoBox, window: Window, shape: tuple[int, int], *, method: Resampling) -> Values:
    """Read a window of the grid in `shape` pixels: (rows, columns), NaN without data and outside of the raster.

    Several pixels become one by `method`; onto another grid the nearest is taken then. Reads overviews where there are
    some; of a large raster without any, a copy of `COARSE` pixels a side is kept for all windows that want no more.

    Raises:
        InputError: the file is gone, or nothing of the kind that can be shown.
        RunError: it cannot be read.
    """
    source = checked(band.open())
    theirs, view = align.grid(source), align.crop(grid, window).zoom_to(shape)
    if theirs == grid or grid.crs is None or theirs.crs is None:
        return _pixels(band, source, window, shape, method)
    under = clip(footprint(theirs, view, pad=2), theirs.shape)
    if under is None:
        return np.full(shape, np.nan, np.float32)
    across, down = pixel_ratio(theirs, view)
    rows, columns = (
        (part.stop - part.start) / max(ratio, 1) for part, ratio in zip(under, (down, across), strict=True)
    )
    few = min(math.ceil(rows), MOST), min(math.ceil(columns), MOST)
    values, out = _pixels(band, source, under, few, method), np.full(shape, np.nan, np.float32)
    place = align.crop(theirs, under).zoom_to(few)
    systems = {"src_crs": theirs.crs.to_wkt(), "dst_crs": grid.crs.to_wkt(), "dst_nodata": np.nan}
    reproject(values, out, src_transform=place.affine, dst_transform=view.affine, src_nodata=np.nan, **systems)
    return out


def _pixels(band: Band, source: DatasetReader, window: Window, shape: tuple[int, int], method: Resampling) -> Values:
    """A window of the raster's own pixels in fewer, or copied where more are wanted."""
    rows, columns = ((part.stop - part.start) for part in window)
    index, wanted = band.index, min(rows / shape[0], columns / shape[1])
    box = np.array([window[1].start, window[0].start, columns, rows], float)
    try:
        if 1 < max(source.shape) / COARSE <= wanted / 0.9 and not source.overviews(index):
            _, few = _coarse(source, band.among, method)
            box *= np.tile((few.width / source.width, few.height / source.height), 2)
            source, index = few, band.among.index(index) + 1
        values = _values(source, index, RasterWindow(*box), shape, method)
    except RasterioError as error:
        raise RunError(f"{source.name}: cannot be read ({align.reason(error)}); fetch the file again") from error
    values[~np.isfinite(values) | np.isin(values, band.nodata)] = np.nan
    return np.asarray(values * np.float32(band.scale) + np.float32(band.offset))


def checked(source: Any) -> DatasetReader:
    """A raster that GDAL has open.

    Raises:
        InputError: it is a cube, which has no overviews, or of complex numbers.
    """
    if not isinstance(source, DatasetReader):
        raise InputError(f"{source.name}: a cube is not shown; write the date that you want as a GeoTIFF")
    if source.dtypes[0].startswith("complex"):
        raise InputError(f"{source.name}: complex numbers are not shown; write what you want of them as a GeoTIFF")
    return source


def in_memory(values: Values, grid: GeoBox) -> tuple[MemoryFile, DatasetReader]:
    """Values (bands, rows, columns), NaN without data, as an open raster; and its memory, which has to be kept."""
    height, width = (int(side) for side in grid.shape)
    form = {"driver": "GTiff", "dtype": "float32", "count": len(values), "height": height, "width": width}
    place = {"crs": grid.crs.to_wkt() if grid.crs else None, "transform": grid.affine, "nodata": np.nan}
    memory = MemoryFile()
    with memory.open(**form, **place, tiled=True) as draft:
        draft.write(values)
    return memory, memory.open()


@functools.lru_cache(maxsize=8)
def _coarse(source: DatasetReader, indexes: tuple[int, ...], method: Resampling) -> tuple[MemoryFile, DatasetReader]:
    """Bands of a raster in few pixels, kept; each block of the file is decoded once, whatever bands it holds."""
    grid = align.grid(source)
    height, width = thinned(grid.shape, COARSE)
    values, step = np.empty((len(indexes), height, width), np.float32), source.height / height
    for first in range(0, height, STRIP):
        last = min(first + STRIP, height)
        box = RasterWindow(0, first * step, source.width, (last - first) * step)
        for band, index in enumerate(indexes):
            values[band, first:last] = _values(source, index, box, (last - first, width), method)
    return in_memory(values, grid.zoom_to((height, width)))


def _values(source: DatasetReader, index: int, box: RasterWindow, shape: tuple[int, int], method: Resampling) -> Values:
    """A window of a band in `shape` pixels, NaN where the raster says that it has no data."""
    with rasterio.Env(GDAL_CACHEMAX=CACHE), warnings.catch_warnings():
        warnings.simplefilter("ignore", NodataShadowWarning)  # a value for no data goes before an alpha band
        raw = source.read(index, window=box, out_shape=shape, masked=True, resampling=method)
    with np.errstate(over="ignore"):  # what no float32 holds is infinite, and no data
        return np.asarray(np.ma.filled(raw.astype(np.float32), np.nan))
