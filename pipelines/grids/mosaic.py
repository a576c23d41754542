"""Overlapping predictions in, finished rows out. Holds one strip of tiles, never the scene."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from models.errors import RunError
from models.types import Array, Mask
from pipelines.grids.windows import Tiles, Window, starts

Prediction = tuple[Window, "Array | None", Mask]
Rows = tuple[int, Array, Mask]


def weights(size: int, tile: int, overlap: int = 0, phase: int = 0) -> list[tuple[int, Array]]:
    """First pixel and blending weights of each tile along one side; at each pixel the weights sum to one.

    The raised cosine (Hann window) sin^2(pi (i + 1/2) / tile) at pixel i of a tile, divided by the sum over the tiles
    that cover the pixel. Where one tile alone covers a pixel its weight is one. The outer product of the weights of
    rows and columns sums to one as well.

    Args:
        size: pixels along the side, at least 1.
        tile: pixels along a tile; a side shorter than a tile has one tile of `size` pixels.
        overlap: pixels that neighbours share at least, 0 <= overlap < tile.
        phase: see `windows.starts`.

    Raises:
        ValueError: as `windows.starts`.
    """
    firsts = starts(size, tile, overlap, phase)
    length = min(tile, size)
    hann = np.sin(np.pi * (np.arange(length) + 0.5) / length) ** 2  # float64 until the division is done
    total = np.zeros(size)
    for first in firsts:
        total[first : first + length] += hann
    return [(first, (hann / total[first : first + length]).astype(np.float32)) for first in firsts]


def blend(
    predictions: Iterable[Prediction], tiles: Tiles, *, channels: int, rows: tuple[int, int] | None = None
) -> Iterator[Rows]:
    """Blend predictions of overlapping tiles; yield rows as soon as no later tile can touch them.

    Rows come top to bottom, each exactly once. A tile without a prediction adds nothing; as it holds no valid pixel,
    every valid pixel still has all of its weights, and the others are to be masked. A row comes out the same whether
    it is blended alone or with others: its tiles are added in the same order.

    Args:
        predictions: each window of `tiles`, in that order, with its prediction (channels, rows, columns of the
            window), or None where it holds no valid pixel, and its valid mask (rows, columns).
        tiles: the windows: those of the whole grid, or all that touch `rows`.
        channels: K, channels of a prediction.
        rows: first row and end of the rows wanted; all of them when None.

    Yields:
        First row, the finished rows (K, n, width), n <= tile, and their valid mask (n, width). The arrays are the
        caller's to keep or change.

    Raises:
        RunError: a window is missing, or comes out of order, or its prediction has another shape.
    """
    height, width = tiles.shape
    first, end = rows or (0, height)
    how = tiles.tile, tiles.overlap
    down, across = dict(weights(height, *how, tiles.phase[0])), weights(width, *how, tiles.phase[1])
    feed = iter(predictions)
    side = min(tiles.tile, height)
    strip, mask = np.zeros((channels, side, width), np.float32), np.zeros((side, width), bool)
    for row, below in zip(tiles.rows, [*tiles.rows[1:], height], strict=True):
        for col, weight in across:
            window = slice(row, row + side), slice(col, col + len(weight))
            y, valid = _prediction(next(feed, None), window, channels)
            if y is not None:
                strip[:, :, window[1]] += y * np.outer(down[row], weight)  # (K, h, w)
            mask[:, window[1]] = valid
        done = min(below - row, side)  # rows above the next tile's first row are finished
        begin, stop = max(first - row, 0), min(done, end - row)
        if begin < stop:
            yield row + begin, strip[:, begin:stop].copy(), mask[begin:stop].copy()
        for array in (strip.swapaxes(0, 1), mask):  # rows first
            array[: side - done] = array[done:]
            array[side - done :] = 0
    if next(feed, None) is not None:
        raise RunError(f"blending: a prediction came after the last of {len(tiles)} windows; give each once")


def _prediction(item: Prediction | None, window: Window, channels: int) -> tuple[Array | None, Mask]:
    """Return the prediction for `window` and its valid mask; refuse any other item."""
    wanted = f"blending: wanted the prediction of {_name(window)}"
    if item is None:
        raise RunError(f"{wanted}, the predictions ended; predict every window")
    came, y, valid = item
    if came != window:
        raise RunError(f"{wanted}, {_name(came)} came; keep the order of tiles")
    shape = (channels, *(side.stop - side.start for side in window))
    if valid.shape != shape[1:] or (y is not None and y.shape != shape):
        raise RunError(
            f"blending: wanted {shape} for {_name(window)}, {valid.shape if y is None else y.shape} came; "
            "crop the prediction to its window"
        )
    return y, valid


def _name(window: Window) -> str:
    """Rows and columns of a window in words."""
    rows, cols = window
    return f"rows {rows.start}:{rows.stop}, columns {cols.start}:{cols.stop}"


def fill_invalid(x: Array, valid: Mask) -> Array:
    """Give invalid pixels the mean of the tile's valid pixels, per band and frame; valid pixels keep their values.

    Fill before padding, so that the padding mirrors filled pixels.

    Args:
        x: (C, T, h, w), may hold anything (NaN too) where invalid.
        valid: (h, w), True where x may be trusted.

    Returns:
        (C, T, h, w) in the dtype of x; x itself when every pixel is valid.

    Raises:
        ValueError: no pixel is valid; such a tile is not to be predicted.
    """
    if valid.all():
        return x
    if not valid.any():
        raise ValueError("a tile without a valid pixel has no mean to fill it with; skip the tile")
    mean = x[..., valid].mean(axis=-1, dtype=np.float64).astype(x.dtype)  # (C, T)
    return np.where(valid, x, mean[..., None, None])


def pad_tile(x: Array, valid: Mask, tile: int) -> tuple[Array, Mask]:
    """Pad a tile at its bottom and right to `tile` x `tile` by reflecting it; the padding is invalid.

    The reflection repeats the edge pixel (symmetric), so that any size from 1 x 1 can be padded.

    Args:
        x: (C, T, h, w), 1 <= h, w <= tile.
        valid: (h, w).
        tile: side wanted, in pixels.

    Returns:
        x (C, T, tile, tile) and valid (tile, tile); the arguments themselves when nothing is missing.

    Raises:
        ValueError: the tile is larger than wanted, or empty.
    """
    height, width = valid.shape
    if height == width == tile:
        return x, valid
    if not (1 <= height <= tile and 1 <= width <= tile):
        raise ValueError(f"a tile of {height} x {width} cannot be padded to {tile} x {tile}")
    missing = ((0, tile - height), (0, tile - width))
    return np.pad(x, ((0, 0), (0, 0), *missing), mode="symmetric"), np.pad(valid, missing)


def first_largest(block: Array) -> NDArray[np.uint16]:
    """The first channel with the largest value at each pixel, (K, n, w) to (n, w).

    What argmax says of finite values, whole rows at a time and so in a sixth of its time.
    """
    largest, lower = block.max(axis=0), np.ones(block.shape[1:], bool)
    found = np.zeros(block.shape[1:], np.uint16)
    for channel in block[:-1]:
        lower &= channel != largest
        found += lower
    return found
