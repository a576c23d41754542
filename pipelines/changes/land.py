"""Which ground is watched: all, what polygons hold, or what a mask of land or forest shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling

from models.errors import InputError
from models.types import Mask
from pipelines.grids import align
from pipelines.grids.windows import Window
from pipelines.records.ledger import fingerprint

EXACT = 1 << 24  # codes are read as float32, which holds all below


@dataclass(frozen=True)
class Land:
    """Which ground is watched.

    Attributes:
        mask: a raster of one band on any grid, as of land, of forest or of classes: nothing is watched where it is 0.
        mask_classes: codes of its classes that are watched, such as 10 for trees in ESA WorldCover; all but 0 when not
            given.
    """

    mask: Path | None = None
    mask_classes: tuple[int, ...] = ()

    def check(self, geobox: GeoBox) -> None:
        """Refuse a mask that is none, or of another place.

        Raises:
            InputError: which it is.
        """
        if self.mask is None:
            if self.mask_classes:
                raise InputError("--mask_classes: of which raster? --mask names it")
            return
        if large := [code for code in self.mask_classes if not abs(code) < EXACT]:
            raise InputError(f"--mask_classes {large[0]}: wanted codes below {EXACT:,}")
        source = align.dataset(str(self.mask))
        if source.count != 1 or not source.dtypes[0].startswith(("int", "uint")):
            told = f"wanted one band of integers, came {align.bands_of(source)}"
            raise InputError(f"--mask {self.mask}: {told}; write it as a map of 0 and 1, or of classes")
        if align.grid(source).crs is None:
            raise InputError(f"--mask {self.mask}: has no coordinate system; give it one")
        if not align.overlaps(source, geobox):
            raise InputError(f"--mask {self.mask}: shows nothing of the place; give a raster that does")

    def on(self, geobox: GeoBox, window: Window) -> Mask:
        """Pixels of a window of a grid that are watched; those whose middle lies in a pixel of the mask that is."""
        source = align.dataset(str(self.mask))
        (codes,) = align.read_onto(source, geobox, window, indexes=[1], resampling=Resampling.nearest)
        wanted = np.isin(codes, self.mask_classes) if self.mask_classes else codes != 0
        return np.asarray(wanted & np.isfinite(codes))

    def plain(self) -> list[Any]:
        """What tells it from others, as JSON takes it; empty where all is watched."""
        return [fingerprint(self.mask), sorted(self.mask_classes)] if self.mask else []
