"""Which tiles cover a grid. A window is a pair of slices (rows, columns) into the scene's pixels."""

from __future__ import annotations

Window = tuple[slice, slice]


def starts(size: int, tile: int, overlap: int = 0) -> list[int]:
    """First pixel of each tile along one side, so that tiles of length `tile` cover `size` pixels exactly.

    Neighbours share at least `overlap` pixels; the last tile is flush with the far edge; a side shorter than a tile
    gets one tile that starts at 0 (and is to be padded).

    Args:
        size: pixels along the side, at least 1.
        tile: pixels along a tile.
        overlap: pixels that neighbours share, 0 <= overlap < tile.

    Raises:
        ValueError: a size is not positive, or the overlap is not below the tile.
    """
    if size < 1 or tile < 1 or not 0 <= overlap < tile:
        raise ValueError(f"size {size}, tile {tile}, overlap {overlap}: wanted size, tile >= 1 and 0 <= overlap < tile")
    last = max(size - tile, 0)
    return [*range(0, last, tile - overlap), last]


def cells(height: int, width: int, tile: int) -> list[Window]:
    """Windows of side `tile`, less at the far edges, that cover a grid without sharing a pixel, row by row."""
    return [
        (slice(row, min(row + tile, height)), slice(col, min(col + tile, width)))
        for row in range(0, height, tile)
        for col in range(0, width, tile)
    ]


def tiles(height: int, width: int, tile: int, overlap: int = 0) -> list[Window]:
    """Windows of side `tile` (less at a scene smaller than a tile) that cover a grid, row by row, top to bottom."""
    return [
        (slice(row, min(row + tile, height)), slice(col, min(col + tile, width)))
        for row in starts(height, tile, overlap)
        for col in starts(width, tile, overlap)
    ]
