"""How much tokens jump where tiles meet: 1 is no more than elsewhere."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from models.types import Array
from pipelines.grids.windows import Tiles, starts

MOST = 4_000_000  # steps of each kind that the median is taken of, evenly of all


def seam_ratio(rows: Iterable[tuple[int, Array]], tiles: Tiles) -> float | None:
    """The median step between tokens on the two sides of a tile's edge, over the median of all other steps.

    A step is the length of the difference between the features of two tokens side by side, or one above the other.
    Edges are where any tile begins or ends within the scene, whether it is blended there or not.

    Args:
        rows: of tokens, top to bottom: the first row, and features (E, n, width), NaN where nothing was seen.
        tiles: in tokens.

    Returns:
        The ratio; None where no tile ends within the scene, or where all other tokens are alike.
    """
    down, across = (_edges(size, tiles) for size in tiles.shape)
    height, width = tiles.shape
    thin = max(height * width // MOST, 1)
    steps: tuple[list[NDArray[np.float32]], ...] = [], []  # elsewhere, and at an edge
    above: Array | None = None
    for first, block in rows:
        for row, tokens in enumerate(block.swapaxes(0, 1), first):  # (E, width)
            sideways = np.linalg.norm(np.diff(tokens, axis=1), axis=0)
            for side in (False, True):
                steps[side].append(sideways[across == side][::thin])
            if above is not None:
                steps[int(down[row - 1])].append(np.linalg.norm(tokens - above, axis=0)[::thin])
            above = tokens
    others, ours = (_median(np.concatenate(of)) if of else None for of in steps)
    return None if ours is None or not others else round(ours / others, 3)


def _edges(size: int, tiles: Tiles) -> NDArray[np.bool_]:
    """Whether a tile begins or ends between each token along a side and the next, (size - 1,)."""
    firsts = starts(size, tiles.tile, tiles.overlap)
    edges = {edge for first in firsts for edge in (first, first + tiles.tile)}
    return np.isin(np.arange(1, size), [*edges])


def _median(steps: NDArray[np.float32]) -> float | None:
    known = steps[np.isfinite(steps)]
    return float(np.median(known)) if len(known) else None
