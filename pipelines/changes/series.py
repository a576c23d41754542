"""A series of scenes of a place, by days: indices and reflectances of any window, NaN where a day is not clear."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from odc.geo.geobox import GeoBox

from models.errors import InputError
from models.networks.indices import INDICES
from models.types import Array, Mask
from pipelines.changes.land import Land
from pipelines.grids.windows import Window
from pipelines.mosaics.composite import clear
from pipelines.mosaics.ground import Area
from pipelines.mosaics.strips import Reach
from pipelines.scenes.scene import Scene

EPOCH = datetime.date(1970, 1, 1)
MASKS = 32  # of windows that are held
DARK = 0.02  # reflectance; added below the line of an index, which of two dark bands is noise


@dataclass(frozen=True)
class Day:
    """The scenes of a day: several where sensors or tiles meet.

    Attributes:
        date: the day.
        scenes: its scenes; where they overlap the first is taken that is clear.
    """

    date: datetime.date
    scenes: tuple[Scene, ...]

    @property
    def number(self) -> int:
        """Days since 1970."""
        return (self.date - EPOCH).days


@dataclass(frozen=True)
class Series:
    """Days of a place on one grid.

    Attributes:
        days: rising.
        geobox: the grid.
        area: what is asked for; all of the grid where None.
        features: names of indices and bands.
        buffer: pixels around clouds that are left out, too.
        land: what is watched of it.
        reaches: where the scenes of each day lie, as it was found.
        masks: what is watched of windows, as it was found.
    """

    days: tuple[Day, ...]
    geobox: GeoBox
    area: Area | None
    features: tuple[str, ...]
    buffer: int
    land: Land = Land()
    reaches: dict[int, Reach] = field(default_factory=dict, repr=False, compare=False)
    masks: dict[tuple[int, ...], Mask] = field(default_factory=dict, repr=False, compare=False)

    def read(self, day: Day, window: Window) -> Array:
        """Features of a day in a window: float32 (F, rows, columns), NaN where not clear."""
        rows, columns = (side.stop - side.start for side in window)
        out = np.full((len(self.features), rows, columns), np.nan, np.float32)
        asked = self._asked(window)
        for number in self._reach(day).into(window):
            free = asked & np.isnan(out[0])
            if free.any():
                scene = day.scenes[number]
                found = features(clear(scene, self.geobox, window, self.buffer), scene.bands, self.features)
                np.copyto(out, found, where=free)
        return out

    def _asked(self, window: Window) -> Mask:
        """Pixels of a window that are watched; found once for all days."""
        (top, bottom), (left, right) = ((side.start, side.stop) for side in window)
        at = top, bottom, left, right
        if at not in self.masks:
            mask = self.area.on(window) if self.area else np.ones((bottom - top, right - left), bool)
            if self.land.mask:
                mask &= self.land.on(self.geobox, window)
            if len(self.masks) >= MASKS:
                self.masks.clear()
            self.masks[at] = mask
        return self.masks[at]

    def close(self, day: Day) -> None:
        """Close the files of a day: each that is open holds a block."""
        for scene in day.scenes:
            scene.close()

    def _reach(self, day: Day) -> Reach:
        """Where the scenes of a day lie on the grid."""
        if day.number not in self.reaches:
            self.reaches[day.number] = Reach([scene.geobox for scene in day.scenes], self.geobox)
        return self.reaches[day.number]


def by_day(scenes: Sequence[Scene]) -> tuple[Day, ...]:
    """Scenes by their days, in the order of time."""
    days: dict[datetime.date, list[Scene]] = {}
    for scene in scenes:
        date = scene.dates[0]
        assert date is not None  # others are not opened
        days.setdefault(date, []).append(scene)
    return tuple(Day(date, tuple(days[date])) for date in sorted(days))


def bands_of(names: Sequence[str]) -> tuple[str, ...]:
    """The bands that features are made of.

    Raises:
        InputError: no features, or one twice.
    """
    if not names or len(set(names)) < len(names):
        raise InputError(f"--watch {' '.join(names)}: wanted indices ({', '.join(INDICES)}) or bands, each once")
    pairs = [INDICES.get(name.upper(), (name,)) for name in names]
    return tuple(dict.fromkeys(band for pair in pairs for band in pair))


def features(x: Array, bands: Sequence[str], names: Sequence[str]) -> Array:
    """Indices and reflectances (F, h, w) of bands (C, h, w) in ten-thousandths; NaN in all where in one."""
    made = []
    for name in names:
        pair = [np.maximum(x[bands.index(band)], 0) / 1e4 for band in INDICES.get(name, ())]
        made.append((pair[0] - pair[1]) / (pair[0] + pair[1] + DARK) if pair else x[bands.index(name)] / 1e4)
    out = np.stack(made).astype(np.float32)
    return np.where(np.isfinite(out).all(axis=0), out, np.float32(np.nan))
