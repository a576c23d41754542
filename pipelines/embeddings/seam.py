"""How much tokens jump where tiles meet: 1 is no more than elsewhere."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from models.types import Array
from pipelines.grids.windows import Tiles, starts


def seam_ratio(rows: Iterable[tuple[int, Array]], tiles: Tiles) -> float | None:
    """The mean step between tokens on the two sides of a tile's edge, over the mean of all other steps.

    A step is the length of the difference between the features of two tokens side by side, or one above the other.
    Edges are where any tile begins or ends within the scene, whether it is blended there or not. Means, for of many
    edges that are blended a few that are not would vanish in a median.

    Args:
        rows: of tokens, top to bottom: the first row, and features (E, n, width), NaN where nothing was seen.
        tiles: in tokens.

    Returns:
        The ratio; None where no tile ends within the scene, or where all other tokens are alike.
    """
    down, across = (_edges(size, tiles) for size in tiles.shape)
    total, count = np.zeros(2), np.zeros(2)  # elsewhere, and at edges
    above: Array | None = None
    for first, block in rows:
        for row, tokens in enumerate(block.swapaxes(0, 1), first):  # (E, width)
            steps, edge = [np.linalg.norm(np.diff(tokens, axis=1), axis=0)], [across]
            if above is not None:
                steps.append(np.linalg.norm(tokens - above, axis=0))
                edge.append(np.full(len(steps[-1]), down[row - 1]))
            found, where = np.concatenate(steps), np.concatenate(edge)
            known = np.isfinite(found)
            total += np.bincount(where[known], found[known], 2)
            count += np.bincount(where[known], minlength=2)
            above = tokens
    if not (count.all() and total[0]):
        return None
    return round(float(total[1] / count[1] / (total[0] / count[0])), 3)


def _edges(size: int, tiles: Tiles) -> NDArray[np.bool_]:
    """Whether a tile begins or ends between each token along a side and the next, (size - 1,)."""
    firsts = starts(size, tiles.tile, tiles.overlap)
    edges = {edge for first in firsts for edge in (first, first + tiles.tile)}
    return np.isin(np.arange(1, size), [*edges])
