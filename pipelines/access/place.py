"""The place and the days that are asked for."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from odc.geo.geobox import GeoBox
from rasterio.features import geometry_mask
from rasterio.transform import from_bounds

from models.errors import InputError
from models.types import Mask
from pipelines.samples.labelling.polygon_files import read_outlines

_SIDE = 200  # cells each way of the grid on which a place is looked at
_FORMS = "W,S,E,N or lat,lon,km in degrees, or a file of polygons"


@dataclass(frozen=True)
class Place:
    """Ground in degrees (EPSG:4326) that does not cross the antimeridian.

    Attributes:
        outline: its polygons.
    """

    outline: Any

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north."""
        west, south, east, north = (float(side) for side in self.outline.bounds)
        return west, south, east, north

    @cached_property
    def grid(self) -> GeoBox:
        """A grid of small cells over it, in degrees."""
        return GeoBox((_SIDE, _SIDE), from_bounds(*self.bounds, _SIDE, _SIDE), "EPSG:4326")

    @cached_property
    def weights(self) -> np.ndarray:
        """Share of the place that each cell of the grid stands for; float (rows, columns), together 1."""
        inside = geometry_mask([self.outline], (_SIDE, _SIDE), self.grid.transform, invert=True)
        inside = inside if inside.any() else np.ones_like(inside)  # thinner than any cell
        _, south, _, north = self.bounds
        latitudes = north - (np.arange(_SIDE) + 0.5) * (north - south) / _SIDE
        area = inside * np.cos(np.radians(latitudes))[:, None]
        return np.asarray(area / area.sum())

    def share(self, cells: Mask) -> float:
        """Share of the place that lies in cells of the grid."""
        return float((self.weights * cells).sum())

    def ring(self) -> np.ndarray:
        """Longitudes and latitudes of points along its outline, close to each other: float (N, 2)."""
        west, south, east, north = self.bounds
        return np.asarray(
            shapely.get_coordinates(shapely.segmentize(self.outline, max(east - west, north - south) / 32))
        )


def read_place(text: str) -> Place:
    """A place by its box, by its middle, or by a file of polygons.

    Args:
        text: "west,south,east,north" or "latitude,longitude,km" (a square that reaches km each way) in degrees, or a
            file such as GeoJSON or GeoPackage.

    Raises:
        InputError: numbers that are no place, a file that holds none, or a place across the antimeridian.
    """
    if re.fullmatch(r"[-+\d.eE,; ]+", text) and not Path(text).exists():
        try:
            numbers = [float(word) for word in re.split(r"[,; ]+", text.strip())]
        except ValueError as error:
            raise InputError(f"--place {text}: wanted {_FORMS}") from error
        return _checked(text, _of_numbers(text, numbers))
    return _checked(text, _of_file(Path(text)))


def _of_numbers(text: str, numbers: list[float]) -> Any:
    """A box by its sides, or around a point."""
    if len(numbers) == 4:
        west, south, east, north = numbers
        if west > east and max(map(abs, (west, east))) <= 180 and max(map(abs, (south, north))) <= 90:
            told = f"west {west:g} is greater than east {east:g}"
            raise InputError(f"--place {text}: {told}; a place across the antimeridian has to be given as two")
        if not (west < east and south < north):
            raise InputError(f"--place {text}: wanted west < east and south < north: W,S,E,N")
        return shapely.box(west, south, east, north)
    if len(numbers) != 3:
        raise InputError(f"--place {text}: {len(numbers)} numbers came; wanted {_FORMS}")
    latitude, longitude, km = numbers
    if abs(latitude) > 90 or abs(longitude) > 180:
        swapped = "; are latitude and longitude swapped?" if abs(longitude) <= 90 and abs(latitude) <= 180 else ""
        raise InputError(f"--place {text}: latitude {latitude:g}, longitude {longitude:g} is nowhere{swapped}")
    if not 0.01 <= km <= 2000:
        raise InputError(f"--place {text}: {km:g} km; wanted 0.01 to 2000, latitude and longitude before")
    from pyproj import Geod

    def along(azimuth: float) -> tuple[float, float]:
        there = Geod(ellps="WGS84").fwd(longitude, latitude, azimuth, km * 1000)
        return float(there[0]), float(there[1])

    west, east = along(270)[0], along(90)[0]
    south, north = along(180)[1], along(0)[1]
    if not (west < longitude < east and south < latitude < north):
        raise InputError(f"--place {text}: reaches over a pole or the antimeridian; give two boxes W,S,E,N")
    return shapely.box(west, south, east, north)


def _of_file(file: Path) -> Any:
    """The polygons of a vector file, in degrees."""
    outline = read_outlines(file, "--place").to_crs("EPSG:4326").make_valid().union_all()
    polygons = [part for part in getattr(outline, "geoms", [outline]) if part.area > 0]
    return shapely.union_all(polygons)


def _checked(text: str, outline: Any) -> Place:
    """A place whose numbers are degrees."""
    west, south, east, north = outline.bounds
    if not all(map(math.isfinite, outline.bounds)) or west < -180 or east > 180 or south < -90 or north > 90:
        box = ",".join(f"{side:g}" for side in outline.bounds)
        raise InputError(f"--place {text}: {box} lies beyond -180,-90,180,90; wanted degrees, W,S,E,N")
    if east - west > 180:
        raise InputError(f"--place {text}: spans {east - west:.0f} degrees; across the antimeridian give two places")
    return Place(outline)
