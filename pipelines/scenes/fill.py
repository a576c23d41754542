"""Fill that no header declares: one and the same listed value in all bands, from the edge of the scene inwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.types import Array, Mask
from pipelines.grids.windows import Window

_LISTED = (0.0, -9999.0)  # beside the extremes of the type
_ROWS = 128  # read at once


@dataclass(frozen=True)
class Fill:
    """Where a frame is fill, as runs of pixels along its rows.

    Attributes:
        rows: row of each run, ascending (N,).
        starts: first column of each run (N,).
        ends: column after its last (N,).
        values: the values found, as stored in the files.
        margin: pixels beside it that may be mixed with it, where bands of other grids were resampled.
    """

    rows: NDArray[Any]
    starts: NDArray[Any]
    ends: NDArray[Any]
    values: tuple[float, ...]
    margin: int = 0

    @property
    def pixels(self) -> int:
        """Pixels that are fill."""
        return int((self.ends - self.starts).sum(dtype=np.int64))

    def mask(self, window: Window) -> Mask:
        """Which pixels of a window are fill or within the margin beside it: bool (rows, columns)."""
        from scipy import ndimage

        (top, bottom), (left, right) = ((side.start - self.margin, side.stop + self.margin) for side in window)
        first, last = np.searchsorted(self.rows, (top, bottom))
        rows, (starts, ends) = (
            self.rows[first:last] - top,
            (np.clip(side[first:last] - left, 0, right - left) for side in (self.starts, self.ends)),
        )
        steps = np.zeros((bottom - top, right - left + 1), np.int32)
        np.add.at(steps, (rows, starts), 1)
        np.add.at(steps, (rows, ends), -1)
        inside: Mask = steps.cumsum(axis=1)[:, :-1] > 0
        if not self.margin:
            return inside
        m = self.margin
        return np.asarray(ndimage.maximum_filter(inside, 2 * m + 1)[m:-m, m:-m])


def listed_values(dtypes: Sequence[str], declared: Sequence[float]) -> tuple[float, ...]:
    """What may be fill in bands of these types: 0, -9999 and the extremes, but for what is declared as nodata anyway.

    Zero in a single band may as well be a value.
    """
    common: set[float] | None = None
    for name in dtypes:
        dtype = np.dtype(name)
        info: Any = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
        least, most = float(info.min), float(info.max)
        found = {value for value in (*_LISTED, least, most) if least <= value <= most}
        common = found if common is None else common & found
    return tuple(sorted((common or set()) - {float(v) for v in declared} - ({0.0} if len(dtypes) == 1 else set())))


def find_fill(
    read: Callable[[Window], Array], shape: tuple[int, int], values: Sequence[float], *, margin: int = 0
) -> Fill | None:
    """Find what is fill: 4-connected pixels of a listed value in all bands that touch the edge; None where none do.

    Pixels that are known to have no data lead inwards from the edge, as fill does. A shadow inside a scene is none,
    whatever its value. Only the four edges are read where they are all values.

    Args:
        read: gives the raw values of a window, (C, rows, columns), NaN where the file says that there are none.
        shape: rows and columns of the scene.
        values: what may be fill.
        margin: see `Fill`.
    """
    height, width = shape
    wanted = np.array(values, np.float32)

    def looked(rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[np.uint8]:
        """0 where there are values, the number of the fill, or one beyond the last where there is no data."""
        raw = read((slice(*rows), slice(*columns)))
        same: Mask = (raw == raw[:1]).all(axis=0)
        kinds = np.zeros(same.shape, np.uint8)
        for number, value in enumerate(wanted, 1):
            kinds[same & (raw[0] == value)] = number
        kinds[np.isnan(raw).any(axis=0)] = len(wanted) + 1
        return kinds

    rows, columns = [(0, 1), (height - 1, height)], [(0, 1), (width - 1, width)]
    edges = [*((side, (0, width)) for side in rows), *(((0, height), side) for side in columns)]
    if not any(looked(*edge).any() for edge in edges):
        return None
    parts = []
    for top in range(0, height, _ROWS):
        kinds = np.pad(looked((top, min(top + _ROWS, height)), (0, width)), ((0, 0), (1, 1)))
        change = np.diff(kinds.astype(np.int16), axis=1) != 0
        (at, starts), (_, ends) = np.nonzero(change & (kinds[:, 1:] > 0)), np.nonzero(change & (kinds[:, :-1] > 0))
        parts.append([*(side.astype(np.int32) for side in (at + top, starts, ends)), kinds[at, starts + 1]])
    at, starts, ends, kind = (np.concatenate(side) for side in zip(*parts, strict=True))
    kept = (kind <= len(wanted)) & _from_edge(at, starts, ends, shape)
    found = tuple(float(wanted[number - 1]) for number in np.unique(kind[kept]))
    return Fill(at[kept], starts[kept], ends[kept], found, margin) if found else None


def _from_edge(rows: NDArray[Any], starts: NDArray[Any], ends: NDArray[Any], shape: tuple[int, int]) -> Mask:
    """Which runs are connected to the edge through runs beside, above and below: bool (N,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    height, width = shape
    place = rows.astype(np.int64) * (width + 1)
    # The runs of the next row that begin before this one ends, and end after it begins.
    first = np.searchsorted(place + ends, place + width + 1 + starts, side="right")
    last = np.searchsorted(place + starts, place + width + 1 + ends, side="left")
    count = np.maximum(last - first, 0)
    upper = np.repeat(np.arange(len(rows)), count)
    lower = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
    beside = np.flatnonzero((rows[1:] == rows[:-1]) & (starts[1:] == ends[:-1]))
    upper, lower = np.concatenate((upper, beside)), np.concatenate((lower, beside + 1))
    links = coo_array((np.ones(len(upper), bool), (upper, lower)), shape=(len(rows),) * 2)
    _, label = connected_components(links, directed=False)
    edge = (rows == 0) | (rows == height - 1) | (starts == 0) | (ends == width)
    return np.isin(label, label[edge])
