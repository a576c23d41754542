"""A scene, its map, and what lies beside the map, made by hand."""

from __future__ import annotations

import numpy as np
import rasterio
from rasterio.transform import from_origin

from models.spec import ClassDef
from pipelines.outputs.categories import sidecar, write_categories
from pipelines.outputs.layout import Layout

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
