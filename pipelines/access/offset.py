"""The offset of Sentinel-2, by what its item says and by what its pixels can be.

From processing baseline 04.00 on 1000 is added to all values, so that reflectance = value * 0.0001 - 0.1. Some archives
take it off again, and say so; some say so wrongly (earth-search issues 66 and 71), in both directions. No ground
reflects less than nothing, so that values far below the offset tell that it is not in the pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipelines.access.offers import Offer
from pipelines.outputs import parts as rows
from pipelines.outputs.layout import Layout

_DARKEST = (
    -0.05
)  # reflectance; correction of the atmosphere goes below zero, in shadow and water, but hardly below this
_SOME = 0.02  # share of a band's pixels
_DARK = 0.1  # reflectance that some ground of nearly any scene is darker than, in some band


def offset_of(offer: Offer, layouts: Mapping[str, Layout], folder: Path) -> tuple[float | None, str]:
    """The offset of a scene's bands, and what to say of it where item and pixels do not agree.

    Args:
        offer: the scene.
        layouts: of its files by name, with the offset by its item.
        folder: holds a folder of parts for each name.

    Returns:
        The offset in all bands, None where it is as the item says; and a note, or an empty text.
    """
    bands = [name for name in offer.bands if np.dtype(layouts[name].dtype).kind == "u"]
    if offer.sensor != "S2" or not bands:
        return None, ""
    darkest = 1.0
    for name in bands:
        scale, offset = layouts[name].scaling[0]
        values, counts = _histogram(folder / name, layouts[name])
        if not counts.sum():
            continue
        below = float(counts[values * scale + offset < _DARKEST].sum() / counts.sum())
        if offset < 0 and below > _SOME:
            told = f"{below:.0%} of {name} would reflect less than {_DARKEST:g}"
            return (
                0.0,
                f"its item says that {-offset:g} is to be taken off, but {told}: it is off already, so not again",
            )
        low = values[np.searchsorted(np.cumsum(counts), 0.001 * counts.sum())]
        darkest = min(darkest, float(low * scale + offset))
    if offer.shifted and darkest >= _DARK:
        note = (
            f"its item says that the offset of 0.1 is off already, but no band has a pixel darker than {darkest:.2f}: "
        )
        return None, note + "if there is water, shadow or forest, give --scale 0.0001 --offset -0.1"
    return None, ""


def _histogram(folder: Path, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Values with data in rising order, and how many pixels have each."""
    counts = np.zeros(np.iinfo(np.dtype(layout.dtype)).max + 1 if np.dtype(layout.dtype).itemsize <= 2 else 1, np.int64)
    for _, block in rows.read_parts(folder):
        found = np.bincount(block.ravel().clip(0, len(counts) - 1), minlength=len(counts))
        counts += found
    if layout.nodata is not None and 0 <= layout.nodata < len(counts):
        counts[int(layout.nodata)] = 0
    return np.arange(len(counts)), counts
