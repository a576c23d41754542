"""The outline of a grid on the ground, in degrees."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

_SIDE = 16  # points on each side of a footprint


def footprint(geobox: GeoBox) -> tuple[dict[str, Any] | None, list[float] | None]:
    """Outline of a grid on the ground, as GeoJSON in degrees (EPSG:4326), and its bounding box.

    Sides that bend in degrees are followed with up to `_SIDE` points each, to a ten-thousandth of the grid. An outline
    across the antimeridian becomes two polygons, and its box starts in the east, at a greater longitude than it ends
    at (RFC 7946, 5.2).

    Returns:
        The geometry and [west, south, east, north]; (None, None) without a coordinate system, or where the grid lies
        outside of what its system can show.
    """
    import antimeridian
    import numpy as np
    import shapely

    if geobox.crs is None:
        return None, None
    a, b, c, d, e, f = tuple(geobox.affine)[:6]
    column, row = _ring(geobox)
    longitudes, latitudes = geobox.crs.transformer_to_crs("EPSG:4326")(
        a * column + b * row + c, d * column + e * row + f
    )
    points = np.column_stack((longitudes, latitudes))
    points = points[np.isfinite(points).all(axis=1)]
    if len(points) < 3:
        return None, None
    points[:, 1] = points[:, 1].clip(-90, 90)
    try:
        outline = antimeridian.fix_polygon(shapely.Polygon(points), fix_winding=False)
    except ValueError:  # a line along a pole, or what no longitude tells
        return None, None
    west, south, east, north = outline.bounds
    outline = outline.simplify(1e-4 * min(east - west, north - south))
    outline = shapely.transform(outline, lambda xy: xy.round(7))  # a centimetre
    box = list(antimeridian.bbox(outline))
    if box[0] == box[2]:  # it ends where it began: around the whole world
        box[0], box[2] = -180.0, 180.0
    return json.loads(shapely.to_geojson(outline)), box


def _ring(geobox: GeoBox) -> Any:
    """Columns and rows of points around a grid, anticlockwise on the ground: float (2, 4 * _SIDE)."""
    import numpy as np

    height, width = geobox.shape
    way = np.arange(_SIDE) / _SIDE
    zero, one = np.zeros(_SIDE), np.ones(_SIDE)
    columns = width * np.concatenate((zero, way, one, 1 - way))
    rows = height * np.concatenate((way, one, 1 - way, zero))
    ring = np.stack((columns, rows))
    return ring if geobox.affine.determinant < 0 else ring[:, ::-1]
