"""Alerts of `changes` as regions of its map, under the numbers that they keep from update to update."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.features
from odc.geo.geobox import GeoBox

from models.errors import InputError
from pipelines.grids import align
from pipelines.review import package
from pipelines.review.beside import Mapped
from pipelines.review.regions import Doubt, Floats, Region, region_of
from pipelines.samples.labelling.polygon_files import check_polygons, check_tables

LAYER = "alerts"
STANDING = ("new", "stands")
STATUS = (*STANDING, "taken back", "joined")
_WATCH = "EARTHTUNE_WATCH"
_AGAIN = "remove it, and `changes --update` writes it anew"
_WANTED = ("name", "number", "status", "reason", "weather")


@dataclass(frozen=True)
class Alert:
    """An alert.

    Attributes:
        number: of it; never given twice.
        status: new, stands, taken back or joined.
        why: its name and reason in words.
        shape: outline in the map's coordinates.
    """

    number: int
    status: str
    why: str
    shape: Any


def watch_of(mapped: Mapped) -> str:
    """Which watch a map of changes is of: what its alerts' numbers hold for.

    Raises:
        InputError: it is none.
    """
    found = align.dataset(str(mapped.path)).tags().get(_WATCH)
    if not found:
        raise InputError(f"{mapped.path}: is no map of changes, which --pick alerts wants; name changes_map.tif")
    return str(found)


def read_alerts(mapped: Mapped) -> list[Alert]:
    """All alerts beside a map of changes, those that were taken back among them.

    Raises:
        InputError: there is no such file, or it lacks what `changes` writes.
    """
    import pyogrio

    path = mapped.path.with_name(f"{mapped.scene}.gpkg")
    if not path.is_file():
        raise InputError(f"{path}: no such file; `changes` writes it beside the map, and --pick alerts wants it")
    check_polygons(path)
    check_tables(path)
    with package.reading(path):
        if LAYER not in {str(name) for name, _ in pyogrio.list_layers(path)}:
            raise InputError(f"{path}: wanted a layer {LAYER}, as `changes` writes it")
        table = pyogrio.read_dataframe(path, layer=LAYER)
        if lacking := [name for name in (*_WANTED, "geometry") if name not in table.columns]:
            raise InputError(f"{path}: layer {LAYER} lacks {', '.join(lacking)}; {_AGAIN}")
        crs = mapped.geobox.crs
        table = table.to_crs(crs.to_wkt()) if crs is not None and table.crs is not None else table
        alerts = [_alert(path, row) for _, row in table.iterrows()]
    if len({one.number for one in alerts}) < len(alerts):
        raise InputError(f"{path}: an alert is there twice; {_AGAIN}")
    return alerts


def _alert(path: Path, row: Any) -> Alert:
    """An alert of a row."""
    words = [str(row[name]) for name in ("reason", "weather") if isinstance(row[name], str) and row[name]]
    status, shape = str(row["status"]), row.geometry
    try:
        number = int(row["number"])
        if number != row["number"] or not 0 < number < 1 << 31:
            raise ValueError(f"number {row['number']}")
        if status not in STATUS:
            raise ValueError(f"status {status}")
        if shape is not None and shape.geom_type not in ("Polygon", "MultiPolygon"):
            raise ValueError(f"a {shape.geom_type}")
        if shape is not None and not shape.is_empty and not np.isfinite(shape.bounds).all():
            raise ValueError("an outline that is nowhere")
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{path}: an alert cannot be read ({error}); {_AGAIN}") from error
    return Alert(number, status, f"{row['name']} ({status}): {'; '.join(words)}", shape)


def alert_regions(alerts: Sequence[Alert], geobox: GeoBox, doubt: Doubt, areas: Floats) -> list[Region]:
    """Alerts as regions; what of an outline lies outside of the map, or was emptied by a person, is none."""
    made = (_region(one, geobox, doubt, areas) for one in alerts)
    return [region for region in made if region is not None]


def to_ask(regions: Sequence[Region], alerts: Sequence[Alert], answered: Collection[int], most: int) -> list[Region]:
    """At most `most` that stand and have no answer, new ones and large ones first; then those that have one."""
    alert = {one.number: one for one in alerts}
    order = sorted(regions, key=lambda one: (alert[one.id].status != "new", -one.hectares, one.id))
    asked = [one for one in order if alert[one.id].status in STANDING and one.id not in answered]
    return asked[:most] + [one for one in order if one.id in answered]


def _region(alert: Alert, geobox: GeoBox, doubt: Doubt, areas: Floats) -> Region | None:
    """The pixels within an alert's outline."""
    if alert.shape is None or alert.shape.is_empty:
        return None
    affine, (height, width) = geobox.affine, doubt.valid.shape
    west, south, east, north = alert.shape.bounds
    corners = [~affine * corner for corner in ((west, south), (west, north), (east, south), (east, north))]
    across, down = ([corner[axis] for corner in corners] for axis in (0, 1))
    box = _pixels(down, height), _pixels(across, width)
    shape = tuple(side.stop - side.start for side in box)
    if min(shape) <= 0:
        return None
    moved = affine * affine.translation(box[1].start, box[0].start)
    inside = rasterio.features.rasterize([alert.shape], out_shape=shape, transform=moved).astype(bool)
    inside &= doubt.valid[box]
    return region_of(alert.number, inside, box, doubt, areas, float(inside.sum()), alert.why) if inside.any() else None


def _pixels(ends: Sequence[float], size: int) -> slice:
    """Rows, or columns, that these lie in; within an axis of `size`."""
    return slice(max(math.floor(min(ends) + 1e-6), 0), min(math.ceil(max(ends) - 1e-6), size))
