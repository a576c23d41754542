"""Tokens as `embed` stored them, read back: any window, as values, whatever type they are stored in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError

from models.errors import InputError, RunError
from models.types import Array
from pipelines.grids.align import dataset, grid, reason
from pipelines.grids.tokens import Tokens, loadings
from pipelines.grids.windows import Window, thinned

TAG = "EARTHTUNE_BACKBONE"
SAMPLE = 64  # tokens along a side


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
    return _read(path, window=None if window is None else tuple((side.start, side.stop) for side in window))


def read_components(path: Path, longest: int, *, count: int = 3) -> tuple[Tokens, list[float]]:
    """Principal components of all tokens of a file, read one feature at a time.

    Their loadings are those of at most `SAMPLE` x `SAMPLE` tokens, evenly of all; see `tokens.components`.

    Args:
        path: the file.
        longest: tokens along a side at most; of more the nearest are taken.
        count: of the components.

    Returns:
        Components as tokens (count, h, w), their mean taken off; and each one's share of the variance.

    Raises:
        InputError: it is no raster of tokens, or of fewer features or known tokens than components.
    """
    geobox = geobox_of(path)
    few, shape = (thinned(geobox.shape, most) for most in (SAMPLE, longest))
    sample = Tokens(_read(path, out_shape=(dataset(str(path)).count, *few)), geobox.zoom_to(few))
    axes, shares = loadings(sample, count)
    middle = sample.values[:, sample.known].mean(axis=1)
    values = np.zeros((count, *shape), np.float32)
    for feature in range(len(middle)):
        (one,) = _read(path, indexes=[feature + 1], out_shape=(1, *shape))
        values += axes[:, feature, None, None].astype(np.float32) * (one - middle[feature])
    return Tokens(values, geobox.zoom_to(shape)), shares


def _read(path: Path, **options: Any) -> Array:
    """Features, as values; with options of rasterio's `read`, whose `indexes` are all where it has none."""
    opened = dataset(str(path))
    try:
        values: Array = opened.read(**options).astype(np.float32)
    except RasterioError as error:
        raise RunError(f"{path}: cannot be read ({reason(error)}); make the tokens again") from error
    if np.isnan(opened.nodata):
        return values
    bands = [index - 1 for index in options.get("indexes", opened.indexes)]
    scales, offsets = (np.array(of)[bands, None, None] for of in (opened.scales, opened.offsets))
    found: Array = np.where(values == opened.nodata, np.nan, values * scales + offsets).astype(np.float32)
    return found


def read_stored(path: Path) -> Tokens:
    """All tokens of a file.

    Raises:
        InputError: it is no raster of tokens.
    """
    return Tokens(read_window(path), geobox_of(path))
