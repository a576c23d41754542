"""Which tiles cover a grid. A window is a pair of slices (rows, columns) into the scene's pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

Window = tuple[slice, slice]


def starts(size: int, tile: int, overlap: int = 0, phase: int = 0) -> list[int]:
    """First pixel of each tile along one side, so that tiles of length `tile` cover `size` pixels exactly.

    Neighbours share at least `overlap` pixels; the first and the last tile are flush with the edges, the others begin
    at `phase` and every `tile - overlap` pixels before and after it; a side shorter than a tile gets one tile that
    starts at 0 (and is to be padded).

    Args:
        size: pixels along the side, at least 1.
        tile: pixels along a tile.
        overlap: pixels that neighbours share, 0 <= overlap < tile.
        phase: see `positions.phase`.

    Raises:
        ValueError: a size is not positive, or the overlap is not below the tile.
    """
    if size < 1 or not 0 <= overlap < tile:
        raise ValueError(f"size {size}, tile {tile}, overlap {overlap}: wanted size, tile >= 1 and 0 <= overlap < tile")
    last, step = max(size - tile, 0), tile - overlap
    return sorted({0, *range(phase % step, last, step), last})


class Tiles(Sequence[Window]):
    """Windows of side `tile` (less at a scene smaller than a tile) that cover a grid, row by row, top to bottom.

    The windows are made when they are asked for: a large scene has millions.

    Attributes:
        shape: rows and columns of the grid.
        tile: side of a tile in pixels.
        overlap: pixels that neighbours share at least.
        phase: rows and columns at which tiles begin, see `starts`.
        rows: first row of each row of tiles.
        cols: first column of each tile in a row of tiles.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        tile: int,
        overlap: int = 0,
        *,
        phase: tuple[int, int] = (0, 0),
        rows: tuple[int, int] | None = None,
    ) -> None:
        """Cover a grid, or only its `rows` (first, end): the tiles are those of the whole grid that touch them.

        Raises:
            ValueError: as `starts`.
        """
        self.shape, self.tile, self.overlap, self.phase = shape, tile, overlap, phase
        first, end = (0, shape[0]) if rows is None else rows
        self.rows = [row for row in starts(shape[0], tile, overlap, phase[0]) if row < end and row + tile > first]
        self.cols = starts(shape[1], tile, overlap, phase[1])

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.rows) * len(self.cols)

    @overload
    def __getitem__(self, index: int) -> Window: ...
    @overload
    def __getitem__(self, index: slice) -> list[Window]: ...
    def __getitem__(self, index: int | slice) -> Window | list[Window]:
        """The window at a place in the order, or those of a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        row, col = divmod(index % len(self), len(self.cols))
        top, left = self.rows[row], self.cols[col]
        height, width = self.shape
        return slice(top, min(top + self.tile, height)), slice(left, min(left + self.tile, width))


def cells(height: int, width: int, tile: int) -> list[Window]:
    """Windows of side `tile`, less at the far edges, that cover a grid without sharing a pixel, row by row."""
    return [
        (slice(row, min(row + tile, height)), slice(col, min(col + tile, width)))
        for row in range(0, height, tile)
        for col in range(0, width, tile)
    ]


def enlarged(window: Window, times: int, shape: tuple[int, int]) -> Window:
    """The window on a grid that is `times` finer, cut off at the `shape` of that grid."""
    rows, cols = (slice(s.start * times, min(s.stop * times, size)) for s, size in zip(window, shape, strict=True))
    return rows, cols


def whole(shape: Sequence[int]) -> Window:
    """The window of all of a grid of these rows and columns."""
    height, width = (int(side) for side in shape)
    return slice(0, height), slice(0, width)


def thinned(shape: Sequence[int], longest: int) -> tuple[int, int]:
    """Rows and columns of a grid in at most `longest` pixels along the longer side, one at least."""
    height, width = (int(side) for side in shape)
    few = min(longest / max(height, width), 1)
    return max(round(height * few), 1), max(round(width * few), 1)
