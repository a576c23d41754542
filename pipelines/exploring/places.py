"""Pixels of a grid and degrees: where a click lies on the ground, and how long the ground under it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

Pairs = Sequence[Sequence[float]]
DIGITS = 7  # of degrees: a centimetre


@dataclass(frozen=True)
class Places:
    """Places of a grid, which has a coordinate system.

    Attributes:
        grid: it.
    """

    grid: GeoBox

    def degrees(self, pixels: Pairs) -> list[tuple[float, float]]:
        """Degrees east and north of (column, row)."""
        lon, lat = self._moved(self.coordinates(pixels), ours=True)
        return [(round((x + 180) % 360 - 180, DIGITS), round(y, DIGITS)) for x, y in zip(lon, lat, strict=True)]

    def pixels(self, degrees: Pairs) -> list[tuple[float, float]]:
        """(column, row) of degrees east and north; far outside where a place has none on the grid's map."""
        xs, ys = self._moved(degrees, ours=False)
        crs: Any = self.grid.crs
        if crs.geographic:  # the turn that the grid is in
            middle = (self.grid.affine * (self.grid.shape[1] / 2, 0))[0]
            xs = [middle + (x - middle + 180) % 360 - 180 for x in xs]
        places = [~self.grid.affine * place for place in zip(xs, ys, strict=True)]
        return [(float(c), float(r)) if np.isfinite((c, r)).all() else (-1e9, -1e9) for c, r in places]

    def coordinates(self, pixels: Pairs) -> list[tuple[float, float]]:
        """Of (column, row) in the grid's system."""
        return [self.grid.affine * (column, row) for column, row in pixels]

    def from_coordinates(self, places: Pairs) -> list[tuple[float, float]]:
        """(column, row) of coordinates in the grid's system."""
        return [~self.grid.affine * (x, y) for x, y in places]

    def metres(self, column: float, row: float) -> float:
        """Width of a pixel on the ground."""
        from pyproj import Geod

        (west, south), (east, north) = self.degrees([(column - 0.5, row), (column + 0.5, row)])
        return float(Geod(ellps="WGS84").inv(west, south, east, north)[2])

    def _moved(self, places: Pairs, *, ours: bool) -> Any:
        """From the grid's system to degrees, or back."""
        from rasterio.warp import transform

        crs: Any = self.grid.crs
        systems = (crs.to_wkt(), "EPSG:4326") if ours else ("EPSG:4326", crs.to_wkt())
        return transform(*systems, *([float(place[axis]) for place in places] for axis in (0, 1)))
