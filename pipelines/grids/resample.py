"""Pixels in memory at other points: nearest, bilinear, mean."""

from __future__ import annotations

import math

import numpy as np
from rasterio.enums import Resampling

from pipelines.grids.positions import SAME_PIXEL, Lattice

_ROUNDING = 1e-6
_MOST_POINTS = 16


def resample(values: np.ndarray, lattice: Lattice, method: Resampling) -> np.ndarray:
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


def _average(values: np.ndarray, lattice: Lattice) -> np.ndarray:
    """Mean of the pixels under each pixel of the grid, NaN where less than half of them have data.

    The pixels are found at as many points as the raster is finer, at most 16 x 16, spread evenly: where a whole number
    of pixels fits, each is met once.
    """
    across, down = (min(max(math.ceil(ratio - SAME_PIXEL), 1), _MOST_POINTS) for ratio in lattice.ratio)
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
