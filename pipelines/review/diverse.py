"""What to label next by being unlike each other: k-centre over bands and indices, and every fourth by chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from models.backbones.catalogue import BANDS
from models.baselines.statistics import with_indices
from models.errors import InputError
from models.types import Mask
from pipelines.grids.windows import Window, cells
from pipelines.scenes.layers import reflectance
from pipelines.scenes.scene import open_scene

RANDOM = 4  # every so many-th is drawn at random
KNOWN = 0.5  # share of a cell's pixels that have an answer, at least
Chosen = tuple[Window, str]


def k_centre(features: NDArray[Any], most: int, *, seed: int = 0) -> list[tuple[int, str]]:
    """Choose rows of features (N, F), each the farthest from all before; every fourth, and the first, by chance.

    Returns:
        The chosen rows in their order, each with "diverse" or "random".
    """
    rng, chosen = np.random.default_rng(seed), list[tuple[int, str]]()
    scaled = (features - features.mean(0)) / (features.std(0) + 1e-6)
    far = np.full(len(scaled), np.inf)
    for turn in range(min(most, len(scaled))):
        by_chance = turn % RANDOM == 0
        pick = int(rng.choice(np.flatnonzero(far >= 0)) if by_chance else far.argmax())
        far = np.minimum(far, np.linalg.norm(scaled - scaled[pick], axis=1))
        far[pick] = -1  # and stays so
        chosen.append((pick, "random" if by_chance else "diverse"))
    return chosen


def diverse_cells(source: str, geobox: GeoBox, valid: Mask, *, most: int, side: int) -> list[Chosen]:
    """Cells of a map, of `side` pixels, that are unlike each other by the scene's last date, or drawn by chance.

    Args:
        source: the scene; its six bands of Prithvi are looked at, or those of its colourings.
        geobox: the grid of the map.
        valid: where it has an answer (rows, columns).
        most: cells at most.
        side: of a cell.

    Raises:
        InputError: the scene cannot be opened.
    """
    layers, channels = _bands(source)
    windows, rows = [], []
    for window in cells(valid.shape[0], valid.shape[1], side):
        known = valid[window]
        if known.mean() < KNOWN:
            continue
        x = reflectance(layers, geobox, window)  # (C, h, w)
        held = with_indices(x[None, :, None], channels)[0][:, known & np.isfinite(x).all(axis=0)]  # (F, n)
        if held.size:
            windows.append(window)
            rows.append(held.mean(axis=1))
    return [(windows[i], why) for i, why in k_centre(np.array(rows), most)] if rows else []


def _bands(source: str) -> tuple[Any, Sequence[str]]:
    """Layers of a scene's last date, of all bands or of the few that a picture has."""
    problems = []
    for bands in (BANDS, ("NIR_NARROW", "RED", "GREEN"), ("RED", "GREEN", "BLUE")):
        try:
            return open_scene(source.split(",")[-1], bands).stack[-1].layers, bands
        except InputError as error:
            problems.append(error)
    raise problems[-1]
