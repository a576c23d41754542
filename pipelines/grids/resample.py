"""Pixels in memory at other points: nearest, bilinear, mean."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from rasterio.enums import Resampling

from pipelines.grids.positions import ROUNDING, SAME_PIXEL, Lattice

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
    return _pick(values, np.floor(rows + ROUNDING).astype(np.int64), np.floor(cols + ROUNDING).astype(np.int64))


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
    """Mean of what lies under each pixel of the grid, NaN where less than half of it has data.

    By area where both grids run side by side. Else the pixels are found at as many points as the raster is finer, at
    most 16 x 16, spread evenly.
    """
    if lattice.parallel:
        return _area_mean(values, lattice.rows[:, 0], lattice.cols[0])
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


def _area_mean(values: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Mean by area between edges at rows (h + 1,) and columns (w + 1,), NaN where less than half of it has data."""
    (down, height), (across, width) = (_overlaps(*side) for side in zip((rows, cols), values.shape[1:], strict=True))
    area = np.outer(height, width)

    def sums(a: np.ndarray) -> np.ndarray:  # (bands, H, W) to (bands, h, w)
        return np.stack([(across @ (down @ band).T).T for band in a])

    known = np.isfinite(values)
    total, share = sums(np.where(known, values, 0.0)), sums(known.astype(float))
    enough = (2 * share >= area * (1 - ROUNDING)) & (share > 0)
    mean: np.ndarray = np.divide(total, share, out=np.full(share.shape, np.nan), where=enough)
    return mean.astype(np.float32)


def _overlaps(edges: np.ndarray, size: int) -> tuple[Any, np.ndarray]:
    """How much of each of `size` pixels lies between edges (n + 1,): sparse (n, size); and what lies between: (n,)."""
    from scipy.sparse import csr_array

    near = np.rint(edges)
    edges = np.where(np.abs(edges - near) < ROUNDING, near, edges)
    low, high = (side(edges[:-1], edges[1:]) for side in (np.minimum, np.maximum))
    first, last = np.floor(low.clip(0, size)).astype(np.int64), np.ceil(high.clip(0, size)).astype(np.int64)
    count = last - first
    at = np.repeat(np.arange(len(count)), count)
    pixel = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count - first, count)
    share = np.minimum(high[at], pixel + 1) - np.maximum(low[at], pixel)
    return csr_array((share, (at, pixel)), shape=(len(count), size)), high - low


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
