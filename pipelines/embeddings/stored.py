"""Tokens as `embed` stored them, read back: any window, as values, whatever type they are stored in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError

from models.errors import InputError, RunError
from models.types import Array
from pipelines.grids.align import dataset, grid, reason
from pipelines.grids.tokens import Tokens
from pipelines.grids.windows import Window

TAG = "EARTHTUNE_BACKBONE"


def is_tokens(path: Path) -> bool:
    """Whether a file is a raster of tokens that `embed` wrote."""
    return path.is_file() and path.suffix.lower() in (".tif", ".tiff") and _says(path)


def _says(path: Path) -> bool:
    tags, names = dataset(str(path)).tags(), dataset(str(path)).descriptions
    return TAG in tags and str(names[0]).startswith("frame 0 feature")


def geobox_of(path: Path) -> GeoBox:
    """The grid of tokens.

    Raises:
        InputError: it is no raster of tokens.
    """
    if not is_tokens(path):
        raise InputError(f"{path}: wanted tokens, as `earthtune embed` writes them; make them of the scene")
    return grid(dataset(str(path)))


def read_window(path: Path, window: Window | None = None) -> Array:
    """Features of the tokens of a window, or of all: (E, rows, columns), NaN where nothing was seen."""
    opened = dataset(str(path))
    where = None if window is None else tuple((side.start, side.stop) for side in window)
    try:
        values: Array = opened.read(window=where).astype(np.float32)
    except RasterioError as error:
        raise RunError(f"{path}: cannot be read ({reason(error)}); make the tokens again") from error
    if np.isnan(opened.nodata):
        return values
    scales, offsets = (np.array(of)[:, None, None] for of in (opened.scales, opened.offsets))
    found: Array = np.where(values == opened.nodata, np.nan, values * scales + offsets).astype(np.float32)
    return found


def read_stored(path: Path) -> Tokens:
    """All tokens of a file.

    Raises:
        InputError: it is no raster of tokens.
    """
    return Tokens(read_window(path), geobox_of(path))
