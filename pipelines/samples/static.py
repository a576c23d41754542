"""What does not change at a place: mean and deviation of rasters over a sample, and the slope of its ground."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from odc.geo.geobox import GeoBox

from models.errors import InputError
from models.spec import Series
from models.types import Array, Mask
from pipelines.grids import align
from pipelines.grids.areas import pixel_side
from pipelines.grids.windows import Window, thinned, whole

ELEVATION = "elevation"  # the raster whose slope is told, too
CELLS = 64  # along the longer side of a sample at most, on which a raster is read
LOWEST, HIGHEST = -500.0, 9000.0  # metres: the shore of the Dead Sea lies at -430, Everest's top at 8849
METRES = ("", "m", "metre", "metres", "meter", "meters")


@dataclass(frozen=True)
class Static:
    """Rasters of one band each, by name.

    Attributes:
        files: where they are; None for one of which nothing is known.
        channels: what is told of them, in this order.
        units: of each channel; empty where the raster says none.
    """

    files: Mapping[str, Path | None]
    channels: tuple[str, ...]
    units: tuple[str, ...]

    @property
    def series(self) -> Series:
        """The input of a Spec, not yet fitted."""
        count = len(self.channels)
        return Series(self.channels, self.units, (0.0,) * count, (1.0,) * count)

    def at(self, places: Iterable[tuple[GeoBox, Window]]) -> tuple[Array, Mask]:
        """What is known of some windows of grids: values (N, 1, C), 0 where there are none, and bool where there are.

        Raises:
            InputError: nothing leads from a raster's coordinate system to that of a grid.
            RunError: a raster cannot be read.
        """
        rows = [self._told(geobox, window) for geobox, window in places]
        values = np.array(rows, np.float32).reshape(len(rows), 1, len(self.channels))
        return np.nan_to_num(values), np.isfinite(values)

    def unseen(self, there: Mask) -> list[str]:
        """The rasters that show nothing of where they are asked about; `there` is what `at` gives."""
        return [name for name in self.files if not there[..., self.channels.index(name)].any()]

    def _told(self, geobox: GeoBox, window: Window) -> list[float]:
        """The channels of a window of a grid, NaN where nothing is known."""
        told: list[float] = []
        cells = thinned([side.stop - side.start for side in window], CELLS)
        ground = align.crop(geobox, window).zoom_to(cells)
        for name, path in self.files.items():
            source = align.dataset(str(path)) if path else None
            if source is None or not align.overlaps(source, ground):
                told += [np.nan] * len(_channels(name))
                continue
            (raw,) = align.read_onto(source, ground, whole(cells), indexes=[1])
            values = raw.astype(np.float64) * source.scales[0] + source.offsets[0]
            if name == ELEVATION:
                values[(values < LOWEST) | (values > HIGHEST)] = np.nan  # fill that nothing declares
            seen = values[np.isfinite(values)]
            told += [seen.mean(), seen.std()] if seen.size else [np.nan, np.nan]
            if name == ELEVATION:
                told.append(slope(values, pixel_side(ground) or np.nan))
        return told


def slope(elevation: Array, side: float) -> float:
    """Mean slope of the ground in degrees; NaN where nothing is known.

    Args:
        elevation: (H, W) in metres, NaN where there is none.
        side: of a pixel in metres.
    """
    if min(elevation.shape) < 2:
        return float("nan")
    down, right = np.gradient(elevation, side)
    steep = np.degrees(np.arctan(np.hypot(down, right)))
    known = steep[np.isfinite(steep)]
    return float(known.mean()) if known.size else float("nan")


def open_static(files: Mapping[str, Path | None]) -> Static:
    """Rasters by name.

    Raises:
        InputError: one is no raster of one band with a place on the ground, or an elevation that is not in metres.
    """
    units: list[str] = []
    for name, path in files.items():
        unit = _unit(name, path) if path else ""
        units += ["m", "m", "degree"] if name == ELEVATION else [unit, unit]
    return Static(files, tuple(channel for name in files for channel in _channels(name)), tuple(units))


def _unit(name: str, path: Path) -> str:
    """The unit of a raster, which is looked at."""
    where = f"static {name}: {path}"
    if not path.is_file():
        raise InputError(f"{where}: no such file on this machine; give a raster that is")
    source = align.dataset(str(path))
    if source.count != 1 or source.dtypes[0].startswith("complex"):
        raise InputError(f"{where}: wanted one band of plain numbers, came {align.bands_of(source)}")
    if align.grid(source).crs is None:
        raise InputError(f"{where}: has no coordinate system; give it one")
    unit = source.units[0] or ""
    if name == ELEVATION and unit not in METRES:
        raise InputError(f"{where}: in {unit}; wanted metres: write it so, or give it another name")
    return unit


def _channels(name: str) -> list[str]:
    """What is told of a raster."""
    return [name, f"{name}, deviation", *(["slope"] if name == ELEVATION else [])]
