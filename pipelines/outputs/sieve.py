"""Small patches of a class map take the code of their neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import rasterio.features
from numpy.typing import NDArray

from models.types import Mask

Codes = NDArray[Any]
_STRIP = 1 << 20  # pixels


def sieve(codes: Codes, *, valid: Mask, least_pixels: int) -> Codes:
    """Give patches of fewer than `least_pixels` pixels the code of their largest neighbour.

    A patch is a 4-connected set of valid pixels of one code. A small patch whose largest neighbour is small as well
    follows that one's neighbour, and so on; patches that lead only to each other, as in noise, all take the commonest
    code among them first. Afterwards every patch has `least_pixels`, or no valid pixel borders on it. Pixels that
    are not valid are neither merged nor merged into, and keep their value.

    Needs the whole scene: at its peak about 12 bytes a pixel of uint8 besides `codes` and `valid`.

    Args:
        codes: class codes (rows, columns), uint8 or uint16.
        valid: which pixels have a code (rows, columns).
        least_pixels: the smallest patch that stays.

    Returns:
        Codes (rows, columns) in the type of `codes`.
    """
    if least_pixels <= 1:
        return codes.copy()
    out = _merge(codes, valid, least_pixels)
    small = _small(out, valid, least_pixels)
    if small.any():
        _settle(out, small)
        out = _merge(out, valid, least_pixels)
    return out


def patches(codes: Codes, valid: Mask) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Number the patches: 4-connected sets of valid pixels of one code.

    Returns:
        The number of each pixel's patch (rows, columns), from 1, and 0 where not valid; the code of each patch, after
        one entry for 0.
    """
    from scipy import ndimage

    labels = np.zeros(codes.shape, np.int32)
    found = np.empty(codes.shape, np.int32)
    counts = {}
    first = 0
    for code in _present(codes, valid):
        mask = (codes == code) & valid
        counts[code] = ndimage.label(mask, output=found)
        np.add(found, first, out=labels, where=mask)
        first += counts[code]
    return labels, np.repeat([0, *counts], [1, *counts.values()])


def _merge(codes: Codes, valid: Mask, least_pixels: int) -> Codes:
    """Merge small patches into their largest neighbours, where those lead to a patch that is not small."""
    # GDAL refuses a size above the number of pixels, which asks for no more than that number.
    size = min(least_pixels, codes.size)
    return np.asarray(rasterio.features.sieve(codes, size, mask=valid, connectivity=4))


def _small(codes: Codes, valid: Mask, least_pixels: int) -> Mask:
    """Pixels of patches that are small (rows, columns)."""
    labels, kinds = patches(codes, valid)
    sizes = np.zeros(len(kinds), np.int64)
    for strip in np.array_split(labels, labels.size // _STRIP + 1):  # bincount makes 8 bytes of each pixel's 4
        sizes += np.bincount(strip.ravel(), minlength=len(kinds))
    small: Mask = sizes < least_pixels
    small[0] = False
    return small[labels]


def _settle(codes: Codes, small: Mask) -> None:
    """Give each 4-connected cluster of small pixels its commonest code, the lowest of several, in place."""
    from scipy import ndimage

    clusters, count = ndimage.label(small)
    present = _present(codes, small)
    votes = [np.bincount(clusters[small & (codes == code)], minlength=count + 1) for code in present]
    winners = np.array(present, codes.dtype)[np.argmax(votes, axis=0)]
    codes[small] = winners[clusters[small]]


def _present(codes: Codes, where: Mask) -> list[int]:
    """Codes that occur, ascending; by strips, so that no copy of the scene is made."""
    strips = (np.array_split(side, codes.size // _STRIP + 1) for side in (codes, where))
    return sorted({int(code) for strip, used in zip(*strips, strict=True) for code in np.unique(strip[used])})
