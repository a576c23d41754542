"""A scene as it is seen from above, in few pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.errors import RasterioError

from pipelines.grids import align
from pipelines.scenes.bands import Layer, open_layer
from pipelines.scenes.scene import Scene

_COLOURS = ("RED", "GREEN", "BLUE")


def has_colours(scene: Scene) -> bool:
    """Whether the last date has red, green and blue, each over the ground of the scene."""
    layers, ground = _layers(scene), (scene.own or scene).geobox
    return layers is not None and all(same_ground(align.grid(open_layer(layer)), ground) for layer in layers)


def natural_colours(scene: Scene, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """The last date in red, green and blue, from the 2nd to the 90th percentile of the three: (rows, columns, 4).

    Clouds lie beyond that. Pixels without data are transparent; all are, where the file cannot be read.
    """
    out = np.zeros((*shape, 4), np.uint8)
    try:
        x = np.stack([thinned(layer, shape) for layer in _layers(scene) or ()], axis=-1)
    except RasterioError:
        return out
    known = np.isfinite(x).all(axis=-1)
    if known.any():
        low, high = np.percentile(x[known], (2, 90))
        share = (x[known] - low) / max(high - low, 1e-6)
        out[known] = np.column_stack((np.rint(share.clip(0, 1) * 255), np.full(len(share), 255))).astype(np.uint8)
    return out


def _layers(scene: Scene) -> list[Layer] | None:
    """The bands of the three colours, None where one lacks."""
    found = dict(zip(scene.bands, scene.seen[-1].layers, strict=True))
    return [found[name] for name in _COLOURS] if found.keys() >= {*_COLOURS} else None


def same_ground(theirs: GeoBox, geobox: GeoBox) -> bool:
    """Whether two grids cover the same ground, whatever their pixels."""
    ends = [np.array(grid.affine * np.array([[0, grid.width], [0, grid.height]])) for grid in (theirs, geobox)]
    pixel = abs(geobox.affine.determinant) ** 0.5
    return theirs.crs == geobox.crs and bool(np.abs(ends[0] - ends[1]).max() < pixel)


def thinned(layer: Layer, shape: tuple[int, int]) -> NDArray[Any]:
    """Reflectance x10000 of the whole band in few pixels, NaN where it has no data: float32."""
    source = open_layer(layer)
    raw = source.read(layer.index, out_shape=shape, masked=True, resampling=Resampling.average)
    values = np.ma.filled(raw.astype(np.float32), np.nan)
    values[np.isin(values, layer.nodata)] = np.nan
    scale, offset = layer.units or (1e-4, 0.0)
    return np.asarray(values * np.float32(scale * 1e4) + np.float32(offset * 1e4))
