"""A scene, its map, and what lies beside the map, made by hand."""

from __future__ import annotations

import numpy as np
import rasterio
from rasterio.transform import from_origin

from models.spec import ClassDef
from pipelines.outputs.categories import sidecar, write_categories
from pipelines.outputs.layout import Layout
from pipelines.review.package import Reviewed, write_package
from pipelines.review.regions import Region, outline

CLASSES = (
    ClassDef(10, "tree cover", "#006400"),
    ClassDef(30, "grassland", "#ffff4c"),
    ClassDef(40, "cropland", "#f096ff"),
)
SIZE = 96
PLACE = {"crs": "EPSG:32633", "transform": from_origin(450000, 5550000, 10, 10)}


def write(path, values, *, nodata=None, names=(), tags=None):
    values = values if values.ndim == 3 else values[None]
    profile = {"driver": "GTiff", "count": len(values), "height": values.shape[1], "width": values.shape[2]}
    with rasterio.open(path, "w", dtype=values.dtype, nodata=nodata, **profile, **PLACE) as file:
        file.write(values)
        file.update_tags(**(tags or {}))
        if names:
            file.descriptions = tuple(names)
    return path


def confidence_of(*, size=SIZE, low=()):
    """0.97 but for (row, column, height, width, value) in `low`."""
    values = np.full((size, size), 0.97, np.float32)
    for top, left, height, width, value in low:
        values[top : top + height, left : left + width] = value
    return values


LOW = ((10, 10, 8, 8, 0.4), (40, 50, 6, 6, 0.6), (70, 20, 5, 12, 0.5))


def make_map(folder, *, low=LOW, size=SIZE, probabilities=True):
    """scene.tif, scene_map.tif, scene_confidence.tif, scene_probabilities.tif; returns the map."""
    codes = np.where(np.arange(size)[None] < size // 2, 10, 40) + np.zeros((size, 1), int)
    codes = codes.astype(np.uint8)
    codes[:4, :4] = 0
    tags = {"EARTHTUNE_BUNDLE": "abc", "EARTHTUNE_INPUT": "scene.tif"}
    path = write(folder / "scene_map.tif", codes, nodata=0, tags=tags)
    layout = Layout(None, "uint8", 1, 0, CLASSES)
    write_categories(sidecar(path), layout)
    confidence = confidence_of(size=size, low=low)
    write(folder / "scene_confidence.tif", confidence, nodata=np.nan, tags=tags)
    if probabilities:  # grassland is second everywhere
        chances = np.stack([np.where(codes == entry.code, confidence, 0) for entry in CLASSES]).astype(np.float32)
        chances[1] = 1 - confidence
        write(folder / "scene_probabilities.tif", chances, nodata=np.nan, tags=tags)
    rng = np.random.default_rng(0)
    bands = (np.stack([codes * 20, codes * 25, codes * 15, codes * 60]) + rng.integers(0, 200, (4, size, size))).astype(
        np.int16
    )
    write(folder / "scene.tif", bands, nodata=-9999, names=("BLUE", "GREEN", "RED", "NIR_NARROW"))
    return path


def write_review(path, geobox, answers, classes=CLASSES, *, codes=None, header=None):
    """A GeoPackage by the project's own forms; `answers` are (bool (rows, columns), Answer), a region each.

    `codes` (rows, columns) are the map's, by which ground that is agreed to is labelled.
    """
    regions = []
    for number, (inside, _) in enumerate(answers, start=1):
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        box = (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
        corner = box[:2]
        rings = outline(inside[box[0] : box[2], box[1] : box[3]], corner)
        regions.append(Region(number, box, rings, int(inside.sum()), 1.0, classes[0].code, 0.5, 0.5, 1.0, "doubt"))
    reviewed = Reviewed("scene", geobox, classes, regions, header or {"format": 1}, codes)
    write_package(path, reviewed, {number: answer for number, (_, answer) in enumerate(answers, start=1)})
    return path
