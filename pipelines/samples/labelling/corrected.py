"""What reviewers said of the ground, on the grids of samples: which of it lies where, and what may be learned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.features
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from pipelines.grids.align import crop
from pipelines.grids.windows import cells

Key = tuple[tuple[Path, ...], str]  # files and name of a chip
_EDGE = 0.4  # pixels; what reaches less far into a grid holds no centre of a pixel


@dataclass(frozen=True)
class Piece:
    """Ground that a person gave a class.

    Attributes:
        file: number of the review that says so.
        region: what of it was answered; pieces of one region are learned together or not at all.
        label: index of the class.
        shape: a polygon, or several.
        crs: its coordinate system, as WKT.
    """

    file: int
    region: str
    label: int
    shape: Any
    crs: str

    @property
    def ground(self) -> tuple[int, str]:
        """What is learned together."""
        return self.file, self.region


class Corrected:
    """Pieces on the grids of chips. Where they overlap, the later counts.

    Attributes:
        pieces: all there are.
        on: numbers of the pieces that lie on a chip, with their shapes in the chip's coordinate system.
        held: ground that lies on chips which are held out, and is not learned.
        weight: times that a pixel of it counts in the loss.
    """

    def __init__(
        self, pieces: Sequence[Piece], grids: Mapping[Key, GeoBox], only: Mapping[Key, int], *, weight: float = 1.0
    ) -> None:
        """Find what lies where; a grid without coordinate system has nothing on it.

        Args:
            pieces: all there are.
            grids: of the chips.
            only: number of the one review that tells of a chip; of others all do.
            weight: see the class.
        """
        self.pieces, self.grids, self.weight = list(pieces), dict(grids), weight
        self.on: dict[Key, list[tuple[int, Any]]] = {}
        for key, lies in lying(self.pieces, self.grids).items():
            review = only.get(key)
            if kept := [on for on in lies if review is None or self.pieces[on[0]].file == review]:
                self.on[key] = kept
        self.held: frozenset[tuple[int, str]] = frozenset()
        self._labels = np.array([piece.label for piece in self.pieces])

    def hold(self, chips: Iterable[Key]) -> None:
        """Learn nothing of the ground that lies on these chips, wherever else it lies."""
        self.held = frozenset(self.pieces[n].ground for chip in chips for n, _ in self.on.get(chip, ()))

    def learned(self, chip: Key) -> tuple[int, ...]:
        """Numbers of the pieces of a chip that may be learned."""
        return tuple(n for n, _ in self.on.get(chip, ()) if self.pieces[n].ground not in self.held)

    def every(self, chip: Key) -> tuple[int, ...]:
        """Numbers of all pieces of a chip."""
        return tuple(n for n, _ in self.on.get(chip, ()))

    def burnt(self, chip: Key, some: Iterable[int]) -> NDArray[np.int32]:
        """Numbers of some pieces on a chip, (rows, columns), at the centres of pixels; -1 where there is none."""
        wanted, grid = set(some), self.grids[chip]
        shapes = [(shape, n) for n, shape in self.on.get(chip, ()) if n in wanted]
        out = np.full(tuple(map(int, grid.shape)), -1, np.int32)
        if shapes:
            rasterio.features.rasterize(shapes, out=out, transform=grid.affine)
        return out

    def labels(self, numbers: NDArray[np.int32], under: NDArray[Any]) -> NDArray[Any]:
        """Class indices by the numbers of pieces; those under them where there is none."""
        return np.where(numbers >= 0, self._labels[numbers], under)


def lying(pieces: Sequence[Piece], grids: Mapping[Any, GeoBox]) -> dict[Any, list[tuple[int, Any]]]:
    """Numbers of the pieces that lie on each grid, in their order, with their shapes in its coordinate system."""
    import geopandas
    import shapely

    systems: dict[str, list[Any]] = {}
    for key, grid in grids.items():
        if grid.crs is not None:
            systems.setdefault(str(grid.crs), []).append(key)
    found: dict[Any, list[tuple[int, Any]]] = {}
    for crs, keys in systems.items():
        moved = np.empty(len(pieces), object)
        for theirs in {piece.crs for piece in pieces}:
            some = [i for i, piece in enumerate(pieces) if piece.crs == theirs]
            moved[some] = geopandas.GeoSeries([pieces[i].shape for i in some], crs=theirs).to_crs(crs).to_numpy()
        there = np.array([bool(np.isfinite(shape.bounds).all()) for shape in moved])  # elsewhere on the Earth it is not
        tree = shapely.STRtree([shape if on else None for shape, on in zip(moved, there, strict=True)])
        for key in keys:
            side = max(abs(v) for v in (grids[key].resolution.x, grids[key].resolution.y))
            near = sorted(tree.query(grids[key].extent.geom.buffer(-_EDGE * side), predicate="intersects"))
            if near:
                found[key] = [(int(n), moved[n]) for n in near]
    return found


def windows_on(pieces: Sequence[Piece], geobox: GeoBox, tile: int) -> list[tuple[slice, slice]]:
    """The tiles of a grid, side by side, that any piece lies on."""
    every = cells(int(geobox.height), int(geobox.width), tile)
    on = lying(pieces, {i: crop(geobox, window) for i, window in enumerate(every)})
    return [window for i, window in enumerate(every) if i in on]
