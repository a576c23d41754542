"""The pixels that a sample is drawn from: those of several maps, none counted twice, block by block."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling

from models.errors import InputError
from models.spec import ClassDef
from pipelines.grids import align
from pipelines.grids.areas import BLOCK, open_classes, pixel_areas, read, scene_name
from pipelines.grids.windows import Window, cells
from pipelines.outputs.categories import read_categories
from pipelines.surveys.strata import Index, Strata

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pixels:
    """The pixels of a window of a map.

    Attributes:
        classes: index of each pixel's class (rows, columns), -1 without one or where an earlier map has the ground.
        stratum: index of its stratum (rows, columns), -1 where it is not sampled.
        hectares: its area (rows, columns).
    """

    classes: Index
    stratum: Index
    hectares: Floats


@dataclass(frozen=True)
class Totals:
    """Sums over all pixels.

    Attributes:
        blocks: map and window of each block with pixels, B of them.
        counts: pixels of each block and stratum (B, H).
        pixels: pixels of each stratum and class (H, C).
        hectares: their area (H, C).
        chances: hectares times the probability of each class, by stratum (H, C); None without probabilities.
        outside: pixels with a class and without a stratum.
    """

    blocks: list[tuple[int, Window]]
    counts: NDArray[np.int64]
    pixels: NDArray[np.int64]
    hectares: Floats
    chances: Floats | None
    outside: int


@dataclass(frozen=True)
class Population:
    """Maps, their classes and strata.

    Attributes:
        maps: maps of class codes; where they overlap, the pixels of the earlier one count.
        classes: their classes.
        strata: the strata.
        powered: whether the maps' probabilities are read, too.
    """

    maps: tuple[Path, ...]
    classes: tuple[ClassDef, ...]
    strata: Strata
    powered: bool

    def pixels(self, at: int, window: Window) -> Pixels:
        """The pixels of a window of a map; overlapping maps are told by the middles of their pixels."""
        source = open_classes(self.maps[at])
        found = self._classes(source, window)
        geobox = align.grid(source)
        for earlier in self.maps[:at]:
            other = open_classes(earlier)
            if align.overlaps(other, align.crop(geobox, window)):
                covered = align.read_onto(other, geobox, window, indexes=[1], resampling=Resampling.nearest)[0]
                found[np.isfinite(covered)] = -1
        stratum = np.where(found >= 0, self.strata.rule(geobox, window, found), -1)
        return Pixels(found, stratum, self._areas[at](window))

    def chances(self, at: int, window: Window) -> Iterator[Floats]:
        """Probabilities of one class after the other on a window of a map (rows, columns)."""
        source = align.dataset(str(probabilities_of(self.maps[at])))
        for band in range(1, len(self.classes) + 1):
            box = align.read_onto(source, align.grid(source), window, indexes=[band])
            yield box[0].astype(np.float64)

    def totals(self) -> Totals:
        """Go through all pixels once.

        Raises:
            InputError: a code that is no class, pixels without a place on the ground, or without probabilities.
            RunError: a map cannot be read to its end.
        """
        shape = len(self.strata.names), len(self.classes)
        blocks, counts, outside = [], [], 0
        pixels, hectares, chances = np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape)
        for at, path in enumerate(self.maps):
            source = open_classes(path)
            for window in cells(source.height, source.width, BLOCK):
                here = self.pixels(at, window)
                inside = here.stratum >= 0
                outside += int((here.classes >= 0).sum() - inside.sum())
                if not inside.any():
                    continue
                stratum, area = here.stratum[inside], here.hectares[inside]
                if not np.isfinite(area).all():
                    raise InputError(f"{path}: pixels of classes have no place on the ground; set them to nodata")
                cell = stratum * shape[1] + here.classes[inside]
                pixels += np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape)
                hectares += np.bincount(cell, area, shape[0] * shape[1]).reshape(shape)
                if self.powered:
                    chances += self._expected(at, window, inside, stratum, area)
                blocks.append((at, window))
                counts.append(np.bincount(stratum, minlength=shape[0]))
        held = np.array(counts, np.int64).reshape(-1, shape[0])
        return Totals(blocks, held, pixels, hectares, chances if self.powered else None, outside)

    def _expected(self, at: int, window: Window, inside: NDArray[np.bool_], stratum: Index, area: Floats) -> Floats:
        """Hectares times probability, by stratum and class (H, C)."""
        sums = []
        for chance in self.chances(at, window):
            values = chance[inside]
            if not np.isfinite(values).all():
                name = probabilities_of(self.maps[at])
                raise InputError(f"{name}: has no probabilities where the map has classes; score the scene again")
            sums.append(np.bincount(stratum, values * area, len(self.strata.names)))
        return np.stack(sums, axis=1)

    def _classes(self, source: Any, window: Window) -> Index:
        """Index of the class of each pixel of a window, -1 for nodata."""
        codes = read(source, window)
        known = np.array([entry.code for entry in self.classes])
        order = np.argsort(known)
        found = order[np.searchsorted(known, codes, sorter=order).clip(max=len(known) - 1)]
        missing = np.zeros(codes.shape, bool) if source.nodata is None else codes == source.nodata
        strangers = codes[(known[found] != codes) & ~missing]
        if strangers.size:
            raise InputError(f"{source.name}: holds code {strangers[0]}, classes are {', '.join(map(str, known))}")
        return np.where(missing, -1, found)

    @cached_property
    def _areas(self) -> list[Any]:
        return [pixel_areas(align.grid(open_classes(path)), name=str(path)) for path in self.maps]


def population(maps: Sequence[Path]) -> tuple[tuple[ClassDef, ...], bool]:
    """The classes that maps share, and whether all have probabilities beside them.

    Raises:
        InputError: what is no map of classes, one that is given twice, maps of different classes or runs, or
            probabilities that are not of their map.
    """
    if not maps:
        raise InputError("no maps; give maps of classes, such as out/*_map.tif")
    twice = next((path for i, path in enumerate(maps) if path.resolve() in {p.resolve() for p in maps[:i]}), None)
    if twice:
        raise InputError(f"{twice}: given twice; give each map once")
    first = maps[0]
    classes, run = read_categories(first) if open_classes(first) else (), _run(first)
    for path in maps[1:]:
        open_classes(path)
        if (theirs := read_categories(path)) != classes:
            raise InputError(f"{path}: classes are {_told(theirs)}; those of {first.name} are {_told(classes)}")
        if _run(path) != run:
            raise InputError(f"{path}: is of another run than {first.name}; a sample is of the maps of one run")
    has = [probabilities_of(path).is_file() for path in maps]
    if all(has):
        for path in maps:
            _check_probabilities(path, classes)
    return classes, all(has)


def probabilities_of(path: Path) -> Path:
    """Where `score --probabilities` writes those of a map."""
    return path.with_name(f"{scene_name(path)}_probabilities.tif")


def side(hectares: float) -> float:
    """Side of a pixel of so many hectares, in metres."""
    return math.sqrt(hectares * 1e4)


def _run(path: Path) -> str:
    """The run that made a map; empty where it does not say."""
    return str(align.dataset(str(path)).tags().get("EARTHTUNE_BUNDLE", ""))


def _told(classes: Sequence[ClassDef]) -> str:
    """Classes in words, the first few."""
    shown = [f"{entry.code} {entry.name}" for entry in classes[:6]]
    return ", ".join([*shown, *["..."] * (len(classes) > 6)])


def _check_probabilities(path: Path, classes: Sequence[ClassDef]) -> None:
    """Refuse probabilities of another grid, of other classes or of another run than their map."""
    name = probabilities_of(path)
    source, wanted = align.dataset(str(name)), [f"{entry.code} {entry.name}" for entry in classes]
    if align.grid(source) != align.grid(open_classes(path)):
        raise InputError(f"{name}: lies on another grid than {path.name}; score the scene again, or move it away")
    if [*source.descriptions] != wanted:
        came = ", ".join(str(text) for text in source.descriptions[:6])
        raise InputError(f"{name}: bands are {came}; wanted {_told(classes)} as {path.name} has; score it again")
    if _run(name) != _run(path):
        raise InputError(f"{name}: is of another run than {path.name}; score the scene again, or move it away")
