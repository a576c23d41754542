"""The ground of a mosaic: its grid, and the area that is asked for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.features
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from pyproj.exceptions import ProjError

from models.errors import InputError
from models.types import Mask
from pipelines.grids import align
from pipelines.grids.areas import pixel_side
from pipelines.grids.positions import footprint, pixel_ratio
from pipelines.grids.windows import Window
from pipelines.samples.labelling.polygon_files import read_outlines

DEGREE = 111_320.0  # metres; a degree of latitude, and of longitude at the equator
EMPTY = 100_000_000, 0.01  # pixels, and the share that maps cover, above and below which a grid is mostly empty work
_BEND = 65  # points along a side of an area whose straight lines bend in another system


@dataclass(frozen=True)
class Ground:
    """Where a mosaic lies.

    Attributes:
        grid: a raster whose grid it takes, pixel by pixel.
        crs: coordinate system, such as EPSG:32632; that of most when not given.
        pixel: side of a pixel in metres; that of the finest when not given.
        aoi: polygons (GeoJSON, GeoPackage, shapefile, FlatGeobuf); outside of them is no data.
    """

    grid: Path | None = None
    crs: str | None = None
    pixel: float | None = None
    aoi: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            InputError: a grid and a part of another, or a pixel of no size.
        """
        if self.grid and (self.crs or self.pixel):
            raise InputError("--grid says coordinate system and pixel, too: leave --crs and --pixel out, or --grid")
        if self.pixel is not None and not 0 < self.pixel < math.inf:
            raise InputError(f"--pixel {self.pixel:g}: wanted metres, above 0")

    def check(self) -> None:
        """Refuse a grid, a coordinate system or polygons that are none, before the work that wants it.

        Raises:
            InputError: which it is.
        """
        if self.crs:
            _system(self.crs)
        if self.grid:
            self.whole()
        if self.aoi:
            read_outlines(self.aoi, "--aoi")

    def whole(self) -> GeoBox:
        """The grid that was named."""
        geobox = align.grid(align.dataset(str(self.grid)))
        if geobox.crs is None:
            raise InputError(f"--grid {self.grid}: has no place on the ground; give it a coordinate system")
        return geobox


class Area:
    """Polygons on a grid."""

    def __init__(self, path: Path, geobox: GeoBox) -> None:
        """Read the polygons of a file, and bring them onto the grid's coordinate system.

        Raises:
            InputError: no such file, none of polygons, or without coordinate system.
        """
        import shapely

        if geobox.crs is None:
            raise InputError(f"--aoi {path}: the grid has no coordinate system, so nothing tells what lies inside")
        polygons = read_outlines(path, "--aoi")
        longest = np.ptp(polygons.total_bounds.reshape(2, 2), axis=0).max() / _BEND
        there = polygons.segmentize(longest).to_crs(geobox.crs.proj)
        parts = shapely.get_parts(shapely.union_all(there.make_valid().to_numpy()))
        self.shape: Any = shapely.union_all(parts[shapely.area(parts) > 0])  # lines would become pixels, too
        self.geobox = geobox
        if self.shape.is_empty or not np.isfinite(self.shape.bounds).all():
            raise InputError(f"--aoi {path}: has no place in {geobox.crs}; give --crs another coordinate system")
        shapely.prepare(self.shape)

    def bounds(self) -> Window:
        """Rows and columns of the grid that hold it, unclipped."""
        west, south, east, north = self.shape.bounds
        a, b, c, d, e, f = tuple(~self.geobox.affine)[:6]
        xs, ys = np.array([west, west, east, east]), np.array([south, north, south, north])
        columns, rows = a * xs + b * ys + c, d * xs + e * ys + f
        down, across = (slice(math.floor(at.min()), math.ceil(at.max())) for at in (rows, columns))
        return down, across

    def on(self, window: Window) -> Mask:
        """Pixels of a window of the grid whose centres lie inside: (rows, columns)."""
        import shapely

        box = align.crop(self.geobox, window)
        shape = tuple(int(side) for side in box.shape)
        around = box.extent.geom
        if not self.shape.intersects(around):
            return np.zeros(shape, bool)
        part = shapely.intersection(self.shape, shapely.buffer(around, abs(box.resolution.x)))
        if part.is_empty:
            return np.zeros(shape, bool)
        return np.asarray(rasterio.features.geometry_mask([part], shape, box.affine, invert=True))


def ground_of(boxes: Sequence[GeoBox], wanted: Ground) -> tuple[GeoBox, Area | None]:
    """The grid of a mosaic of maps on several grids, and the area on it; see `Ground`.

    Where nothing is said the pixels are those of the finest of the maps in the coordinate system of most; the grid
    covers what any map covers, or of that what lies around the area.

    Raises:
        InputError: an area or a grid without place, or none that the maps share; a huge grid that is almost empty.
    """
    if wanted.grid:
        geobox = wanted.whole()
        return geobox, Area(wanted.aoi, geobox) if wanted.aoi else None
    like = _pixels(boxes, wanted)
    windows = [window for box in boxes if (window := footprint(like, box, pad=0))]
    if not windows:
        raise InputError(f"--crs {like.crs}: none of the maps has a place in it; give another coordinate system")
    whole: Any = [slice(min(w[side].start for w in windows), max(w[side].stop for w in windows)) for side in (0, 1)]
    if wanted.aoi:
        around = Area(wanted.aoi, like).bounds()
        whole = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(whole, around, strict=True)]
        if any(side.start >= side.stop for side in whole):
            raise InputError(f"--aoi {wanted.aoi}: none of the maps covers any of it")
    else:
        _check_filled(whole, windows)
    geobox = align.crop(like, (whole[0], whole[1]))
    return geobox, Area(wanted.aoi, geobox) if wanted.aoi else None


def _check_filled(whole: Sequence[slice], windows: Sequence[Window]) -> None:
    """Refuse a huge grid between maps that lie far apart, which would be hours of nothing."""
    height, width = (side.stop - side.start for side in whole)
    covered = sum(math.prod(side.stop - side.start for side in window) for window in windows)
    least, share = EMPTY
    if height * width > least and covered < share * height * width:
        size = f"{height:,} x {width:,} pixels, of which they cover {covered / height / width:.2%}"
        raise InputError(
            f"what covers all would have {size}: they lie far apart, or on both sides of the antimeridian; name the "
            "ground by --aoi, --grid or --crs"
        )


def _pixels(boxes: Sequence[GeoBox], wanted: Ground) -> GeoBox:
    """A grid of the pixels that are wanted, wherever it begins."""
    crs = _system(wanted.crs) if wanted.crs else Counter(box.crs for box in boxes if box.crs).most_common(1)[0][0]
    there = [box for box in boxes if box.crs == crs]
    if there and wanted.pixel is None:
        return min(there, key=lambda box: abs(box.affine.determinant))
    if wanted.pixel is None:  # that of the finest map, as it comes out where that lies
        finest = min(boxes, key=lambda box: pixel_side(box) or math.inf)
        step = float(f"{math.sqrt(math.prod(pixel_ratio(GeoBox((1, 1), Affine.scale(1, -1), crs), finest))):.3g}")
    else:
        step = wanted.pixel / (DEGREE if crs.geographic else float(crs.proj.axis_info[0].unit_conversion_factor))
    return GeoBox((1, 1), Affine.scale(step, -step), crs)


def _system(said: str) -> CRS:
    """A coordinate system by its name."""
    try:
        crs = CRS(said)
    except ProjError as error:
        raise InputError(f"--crs {said}: no coordinate system; wanted such as EPSG:32632") from error
    if not (crs.projected or crs.geographic):
        raise InputError(f"--crs {said}: has no place on the ground; wanted such as EPSG:32632")
    return crs
