"""Regions of a map that are worth a look: connected, capped in size, ranked by doubt times area, with their reasons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio.features
from numpy.typing import NDArray
from scipy import ndimage

from models.types import Mask

Floats = NDArray[np.floating[Any]]
Labels = NDArray[np.int32]
SHARE = 0.15  # of the pixels, the most doubtful, are looked at
SURE = 0.9  # confidence; what is surer is left alone, however sure the rest
LEAST = 4  # pixels
_CONNECTED = np.ones((3, 3), bool)  # by edges and corners: what doubts along a border stays in one piece
_EDGE = 2  # pixels; so near to pixels without data a network sees little around


@dataclass(frozen=True)
class Region:
    """A region of a map.

    Attributes:
        id: its rank, from 1.
        bounds: first row, first column, last row + 1, last column + 1.
        rings: outline in pixels, (column, row) of corners: polygons, each a list of rings, the first the outer one.
        pixels: how many.
        hectares: area on the ground; NaN where the grid has no place.
        code: the map's commonest class in it; None in maps of values.
        confidence: mean over its pixels, NaN where not known.
        unfamiliar: mean over its pixels, NaN where not known.
        weight: doubt times hectares, or pixels, that it is ranked by.
        reason: why it is worth a look.
    """

    id: int
    bounds: tuple[int, int, int, int]
    rings: list[list[list[tuple[float, float]]]]
    pixels: int
    hectares: float
    code: int | None
    confidence: float
    unfamiliar: float
    weight: float
    reason: str


@dataclass(frozen=True)
class Doubt:
    """What is known of a map's doubt, pixel by pixel, each array (rows, columns) or None where there is none.

    Attributes:
        valid: where the map has an answer.
        codes: class codes of the map; None for values.
        confidence: 0..1, NaN where not known.
        unfamiliar: distance to the training's ground, above 1 outside of it; NaN where not known.
        lower: lower end of the interval of a map of values.
        upper: its upper end.
    """

    valid: Mask
    codes: NDArray[Any] | None = None
    confidence: Floats | None = None
    unfamiliar: Floats | None = None
    lower: Floats | None = None
    upper: Floats | None = None

    def unsure(self) -> Floats:
        """One minus confidence, or the interval's width (1 at the widest twentieth), over 3 x 3; 0 if unknown."""
        if self.confidence is not None:
            return smooth(1 - self.confidence, self.valid)
        if self.lower is not None and self.upper is not None:
            width = smooth(self.upper - self.lower, self.valid)
            seen = width[self.valid]
            top = np.percentile(seen, 95) if seen.size else 1.0
            return np.asarray((width / max(float(top), 1e-12)).clip(0, 1))
        return np.zeros(self.valid.shape, np.float32)

    def strange(self) -> Floats:
        """How far outside of the training's ground: 0 inside, 0.5 just outside, 1 at twice the distance and beyond."""
        if self.unfamiliar is None:
            return np.zeros(self.valid.shape, np.float32)
        far = smooth(self.unfamiliar, self.valid)
        return np.asarray(np.where(far > 1, far.clip(0, 2) / 2, 0))


def smooth(values: Floats, valid: Mask) -> Floats:
    """Mean over 3 x 3 pixels that are valid and finite; 0 where the pixel itself is not: float32 (rows, columns)."""
    known = valid & np.isfinite(values)
    total = ndimage.uniform_filter(np.where(known, values, 0).astype(np.float32), 3, mode="constant")
    count = ndimage.uniform_filter(known.astype(np.float32), 3, mode="constant")
    return np.asarray(np.divide(total, count, out=np.zeros_like(total), where=known & (count > 0)))


def flagged(unsure: Floats, strange: Floats, valid: Mask, *, share: float = SHARE) -> Mask:
    """Pixels that are worth a look: the least sure `share` of all, none surer than `SURE`, and all that are strange."""
    seen = unsure[valid]
    if not seen.size:
        return np.zeros(valid.shape, bool)
    least = max(float(np.quantile(seen, 1 - share)), 1 - SURE)
    return np.asarray(valid & ((unsure >= least) | (strange > 0)))


def pieces(mask: Mask, *, side: int, least: int = LEAST) -> Labels:
    """Number connected pixels (by edges and corners) from 1 on: int32 (rows, columns), 0 elsewhere.

    A set that is wider or higher than `side` pixels is cut along a lattice from its own corner, and what falls apart
    is numbered apart. Sets of fewer than `least` pixels get 0.
    """
    labels, count = ndimage.label(mask, _CONNECTED)
    out, last = np.zeros(mask.shape, np.int32), 0
    for number, box in enumerate(ndimage.find_objects(labels, count), start=1):
        here, made = labels[box] == number, out[box]
        for top in range(0, here.shape[0], side):
            for left in range(0, here.shape[1], side):
                cell = (slice(top, top + side), slice(left, left + side))
                inner, found = ndimage.label(here[cell], _CONNECTED)
                sizes = np.bincount(inner.ravel(), minlength=found + 1)
                kept = np.flatnonzero(sizes[1:] >= least) + 1
                numbers = np.zeros(found + 1, np.int32)
                numbers[kept] = np.arange(last + 1, last + 1 + len(kept))
                made[cell] = np.where(inner > 0, numbers[inner], made[cell])
                last += len(kept)
    return out


def find_regions(
    doubt: Doubt,
    areas: Floats,
    reason: Callable[[Mask, tuple[slice, slice], bool], str],
    *,
    most: int,
    side: int,
) -> list[Region]:
    """The regions of a map that are worth a look, the weightiest first.

    A pixel weighs its doubt times its area; doubt is one minus confidence (or the share of the widest interval), or how
    strange the pixel is, whichever is more. Holds about 40 bytes a pixel at its peak.

    Args:
        doubt: what is known of the map.
        areas: of each pixel (rows, columns), or of each row (rows, 1).
        reason: of the pixels of a region in a window, the window, and whether it lies at the edge of what has data:
            why it is not sure.
        most: regions at most.
        side: pixels a side at most.

    Returns:
        Regions, by weight; ties by place.
    """
    unsure, strange = doubt.unsure(), doubt.strange()
    labels = pieces(flagged(unsure, strange, doubt.valid), side=side)
    boxes = ndimage.find_objects(labels)
    if not boxes:
        return []
    weights = np.bincount(labels.ravel(), (np.maximum(unsure, strange) * areas).ravel(), len(boxes) + 1)[1:]
    edge = ndimage.binary_dilation(~doubt.valid, _CONNECTED, _EDGE, border_value=0)
    best = np.lexsort((np.arange(len(boxes)), -weights))[:most]
    found = []
    for rank, index in enumerate(best, start=1):
        box = boxes[index]
        inside = labels[box] == index + 1
        if float((strange[box][inside] > 0).mean()) >= 0.5:
            why = "unlike all training ground"
        else:
            why = reason(inside, box, float(edge[box][inside].mean()) >= 0.5)
        found.append(region_of(rank, inside, box, doubt, areas, float(weights[index]), why))
    return found


def regions_at(doubt: Doubt, areas: Floats, chosen: Sequence[tuple[tuple[slice, slice], str]]) -> list[Region]:
    """Windows of a map as regions of what has an answer in them, in their order, with the reason of each."""
    weights = np.broadcast_to(areas, doubt.valid.shape)
    return [
        region_of(rank, doubt.valid[box], box, doubt, areas, float(weights[box][doubt.valid[box]].sum()), why)
        for rank, (box, why) in enumerate(chosen, start=1)
    ]


def region_of(
    rank: int, inside: Mask, box: tuple[slice, slice], doubt: Doubt, areas: Floats, weight: float, why: str
) -> Region:
    """A region from its pixels in a window."""
    (top, bottom), (left, right) = ((part.start, part.stop) for part in box)
    cut = areas[box[0], box[1] if areas.shape[1] > 1 else slice(None)]
    return Region(
        rank,
        (top, left, bottom, right),
        outline(inside, (top, left)),
        int(inside.sum()),
        float(np.broadcast_to(cut, inside.shape)[inside].sum()),
        None if doubt.codes is None else int(np.bincount(doubt.codes[box][inside]).argmax()),
        mean(doubt.confidence, box, inside),
        mean(doubt.unfamiliar, box, inside),
        weight,
        why,
    )


def mean(values: Floats | None, box: tuple[slice, slice], inside: Mask) -> float:
    """Mean of the finite values of a region's pixels; NaN where there is none."""
    if values is None:
        return float("nan")
    here = values[box][inside]
    here = here[np.isfinite(here)]
    return float(here.mean()) if here.size else float("nan")


def outline(inside: Mask, corner: tuple[int, int]) -> list[list[list[tuple[float, float]]]]:
    """Polygons around pixels (rows, columns) of a window that begins at `corner` (row, column), in (column, row).

    Pixels that touch by corners only are polygons of their own, so that each is valid.
    """
    shapes = rasterio.features.shapes(inside.astype(np.uint8), inside, connectivity=4)
    return [[[(x + corner[1], y + corner[0]) for x, y in ring] for ring in shape["coordinates"]] for shape, _ in shapes]


def class_reason(
    codes: NDArray[Any], names: Mapping[int, str], shares: Callable[[Mask, tuple[slice, slice]], Floats | None]
) -> Callable[[Mask, tuple[slice, slice], bool], str]:
    """Words for a region of a map of classes.

    Args:
        codes: of the map (rows, columns).
        names: of the classes by their code, in the order of `shares`.
        shares: mean probability of each class over the pixels of a region, None where there are none.
    """
    listed = [*names.values()]

    def words(inside: Mask, box: tuple[slice, slice], at_edge: bool) -> str:
        where = "edge of cloud or no data; " if at_edge else ""
        probable = shares(inside, box)
        if probable is not None and len(listed) > 1:
            one, other = (listed[int(i)] for i in np.argsort(-probable, kind="stable")[:2])
            return f"{where}not sure: {one} or {other}"
        counts = np.bincount(codes[box][inside])
        one = names.get(int(counts.argmax()), str(int(counts.argmax())))
        return f"{where}not sure of {one}"

    return words


def interval_reason(
    lower: Floats | None, upper: Floats | None, unit: str
) -> Callable[[Mask, tuple[slice, slice], bool], str]:
    """Words for a region of a map of values."""

    def words(inside: Mask, box: tuple[slice, slice], at_edge: bool) -> str:
        where = "edge of cloud or no data; " if at_edge else ""
        low, high = mean(lower, box, inside), mean(upper, box, inside)
        return f"{where}wide interval: {low:.4g} to {high:.4g} {unit}".rstrip()

    return words


def bounds_of(points: Sequence[tuple[float, float]]) -> list[tuple[int, int, int, int]]:
    """Pixels that points (column, row) lie in: first row, first column, last row + 1, last column + 1."""
    return [(int(y), int(x), int(y) + 1, int(x) + 1) for x, y in points]
