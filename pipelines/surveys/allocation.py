"""How many points each stratum gets, and which of its pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError

Ints = NDArray[np.int64]


def allocate(pixels: Ints, n: int, *, least: int) -> Ints:
    """Points of each stratum (H,): in proportion to its pixels, with at least so many; a smaller stratum gives all.

    Proportional with a few points at least: 20 points for each of eleven classes took so many of 200 from the large
    ones that 95 % intervals held the truth in 84 % of samples, 5 in 91 %.

    Args:
        pixels: number of pixels of each stratum (H,), at least 1.
        n: points in all.
        least: points of each stratum.

    Raises:
        InputError: fewer points than the strata want, or more than there are pixels.
    """
    floor = np.minimum(least, pixels)
    if n > pixels.sum():
        raise InputError(f"--n {n}: the maps have {pixels.sum()} pixels; ask for fewer points")
    if n < floor.sum():
        raise InputError(f"--n {n}: {len(pixels)} strata want {floor.sum()} points; ask for more, or lower --least")
    fixed = np.zeros(len(pixels), bool)
    while True:  # a stratum whose share is below its floor gets the floor, the others share what is left
        left = n - floor[fixed].sum()
        share = np.where(fixed, floor, left * (pixels / max(pixels[~fixed].sum(), 1)))
        low = ~fixed & (share < floor)
        if not low.any():
            break
        fixed |= low
    points = np.floor(share + 1e-9).astype(np.int64)
    missing = n - points.sum()
    order = np.argsort(-(share - points), kind="stable")
    points[order[:missing]] += 1
    return np.asarray(points)


def ranks(pixels: Ints, points: Ints, seed: int) -> list[Ints]:
    """Which pixels of each stratum are drawn, by their rank in it, in order; without replacement, each alike likely.

    Args:
        pixels: number of pixels of each stratum (H,).
        points: how many are drawn of each (H,).
        seed: decides which, together with the stratum's number.
    """
    drawn = []
    for stratum, (size, count) in enumerate(zip(pixels, points, strict=True)):
        chosen = np.random.default_rng((seed, stratum)).choice(int(size), int(count), replace=False, shuffle=False)
        drawn.append(np.sort(chosen))
    return drawn


def places(drawn: Sequence[Ints], counts: Ints) -> list[list[tuple[int, Ints]]]:
    """Where ranks lie: for each block its strata with drawn pixels, and their ranks within the block.

    Args:
        drawn: sorted ranks of each stratum, H of them.
        counts: pixels of each block and stratum (B, H).
    """
    ends = np.cumsum(counts, axis=0)  # (B, H)
    found: list[list[tuple[int, Ints]]] = [[] for _ in counts]
    for stratum, chosen in enumerate(drawn):
        block = np.searchsorted(ends[:, stratum], chosen, side="right")
        for at in np.unique(block):
            first = ends[at, stratum] - counts[at, stratum]
            found[at].append((stratum, chosen[block == at] - first))
    return found
