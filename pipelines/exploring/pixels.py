"""A window of any raster on the grid of the map, in as few pixels as are shown: memory does not grow with the file."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, MemoryFile
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterWindow

from models.errors import InputError, RunError
from pipelines.grids import align
from pipelines.grids.positions import pixel_ratio
from pipelines.grids.windows import Window, thinned

COARSE = 2048  # pixels; the longer side of what is kept of a raster without overviews
_WARP_MB = 64

Values = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Band:
    """A band that is looked at.

    Attributes:
        open: gives the open raster.
        index: band in it, from 1.
        name: of the band.
        nodata: values without data, beside what the raster declares.
        scale: a value is raw * scale + offset.
        offset: see `scale`.
    """

    open: Callable[[], Any]
    index: int = 1
    name: str = ""
    nodata: tuple[float, ...] = ()
    scale: float = 1.0
    offset: float = 0.0


def read(band: Band, grid: GeoBox, window: Window, shape: tuple[int, int], *, method: Resampling) -> Values:
    """Read a window of the grid in `shape` pixels: (rows, columns), NaN without data and outside of the raster.

    Another grid is met by the nearest pixel; several pixels become one by `method`. Reads overviews where there are
    some; of a large raster without any, a copy of `COARSE` pixels a side is kept for all windows that want no more.

    Raises:
        InputError: the file is gone, or nothing of the kind that can be shown.
        RunError: it cannot be read.
    """
    source, index = checked(band.open()), band.index
    steps = [(part.stop - part.start) / size for part, size in zip(window, shape, strict=True)]
    wanted = min(steps) * min(pixel_ratio(align.grid(source), grid))  # pixels of the raster to one that is shown
    try:
        if wanted > 1 and wanted >= 0.9 * max(source.shape) / COARSE and not source.overviews(index):
            _, source = _coarse(source, index, method)
            index = 1
        with _on(source, grid) as there:
            rows, columns = window
            box = RasterWindow(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
            raw = there.read(index, window=box, out_shape=shape, masked=True, resampling=method)
    except RasterioError as error:
        raise RunError(f"{source.name}: cannot be read ({align.reason(error)}); fetch the file again") from error
    values = np.ma.filled(raw.astype(np.float32), np.nan)
    values[~np.isfinite(values) | np.isin(values, band.nodata)] = np.nan
    return np.asarray(values * np.float32(band.scale) + np.float32(band.offset))


def whole(grid: GeoBox) -> Window:
    """The window of all of a grid."""
    height, width = (int(side) for side in grid.shape)
    return slice(0, height), slice(0, width)


def checked(source: Any) -> DatasetReader:
    """A raster that GDAL has open.

    Raises:
        InputError: it is a cube, which has no overviews.
    """
    if not isinstance(source, DatasetReader):
        raise InputError(f"{source.name}: a cube is not shown; write the date that you want as a GeoTIFF")
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
def _coarse(source: DatasetReader, index: int, method: Resampling) -> tuple[MemoryFile, DatasetReader]:
    """A raster in few pixels, kept."""
    grid = align.grid(source)
    shape = thinned(grid.shape, COARSE)
    raw = source.read(index, out_shape=shape, masked=True, resampling=method)
    values = np.ma.filled(raw.astype(np.float32), np.nan)
    return in_memory(values[None], grid.zoom_to(shape))


@contextmanager
def _on(source: DatasetReader, grid: GeoBox) -> Iterator[Any]:
    """A raster as one on the grid."""
    theirs, crs = align.grid(source), grid.crs
    if crs is None or theirs.crs is None or theirs == grid:
        yield source
        return
    height, width = (int(side) for side in grid.shape)
    # Where a raster declares no value for no data, what lies outside of it is told by an alpha band.
    alpha = all(value is None for value in source.nodatavals) and ColorInterp.alpha not in source.colorinterp
    place = {"crs": crs.to_wkt(), "transform": grid.affine, "height": height, "width": width}
    with WarpedVRT(source, **place, resampling=Resampling.nearest, add_alpha=alpha, warp_mem_limit=_WARP_MB) as there:
        yield there
