"""What the bands of satellite files hold."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
from affine import Affine
from rasterio.enums import Resampling

from models.errors import InputError
from models.spec import REFLECTANCE
from pipelines.grids import align
from pipelines.inspection.findings import BandInfo, Inspection
from pipelines.scenes import sensors
from pipelines.scenes.bands import Layer, Product, finest_grid, open_layer

_SIDE = 64
_MOST_CODES = 64


def describe_scene(path: str, products: list[Product]) -> Inspection:
    """Look at every band of every frame."""
    layers = [layer for product in products for layer in product.layers]
    layers = layers or [product.clouds for product in products if product.clouds]
    if not layers:
        raise InputError(f"{path}: no band in it")
    finest = finest_grid(layers)
    bands = tuple(_band(number, layer) for number, layer in enumerate(layers, 1))
    crs = finest.crs
    located = crs is not None
    notes = [text for product in products for text in (*product.notes, product.problem) if text]
    codes = _codes(layers[0]) if len(layers) == 1 else None
    named = any(band.name for band in bands)
    notes += [] if named or codes else ["nothing names the bands: give their names with --bands"]
    notes += [] if located else ["no coordinate system: pixels are counted from the corner"]
    return Inspection(
        path,
        driver=open_layer(layers[0]).driver,
        height=int(finest.shape[0]),
        width=int(finest.shape[1]),
        crs=None if crs is None else f"EPSG:{crs.epsg}" if crs.epsg else str(crs.proj.name),
        resolution=_pixel(finest.affine) if located else None,
        frames=len(products),
        dates=tuple(product.date.isoformat() if product.date else None for product in products),
        named_by=products[0].named_by if named else "nothing",
        bands=bands,
        codes=codes,
        notes=tuple(dict.fromkeys(notes)),
    )


def look(layer: Layer) -> np.ndarray:
    """Pixels of a band in up to 64 windows spread from corner to corner, NaN where it has no data: float64 (n,).

    As they are stored: overviews hold means, and say nothing of pixels that are damaged.
    """
    source = open_layer(layer)
    geobox = align.grid(source)
    sides = [[slice(first, min(first + _SIDE, size)) for first in _starts(size)] for size in source.shape]
    nodata = layer.nodata if source.nodatavals[layer.index - 1] is None else ()
    how = Resampling.nearest  # codes are no quantity
    parts = [
        align.read_onto(
            source,
            geobox,
            (rows, columns),
            indexes=[layer.index],
            resampling=how,
            nodata=nodata,
            masked=layer.masked,
            alpha=layer.alpha,
        ).ravel()
        for rows, columns in itertools.product(*sides)
    ]
    return np.concatenate(parts).astype(np.float64)


def _starts(size: int) -> list[int]:
    """First pixels of up to eight windows along a side, without overlap."""
    return [*range(0, size, _SIDE)] if size <= 8 * _SIDE else np.linspace(0, size - _SIDE, 8, dtype=int).tolist()


def _band(number: int, layer: Layer) -> BandInfo:
    """Describe one band."""
    source, at = open_layer(layer), layer.index - 1
    values = look(layer)
    good = values[np.isfinite(values)]
    units = layer.units or (float(source.scales[at]), float(source.offsets[at]))
    units = (layer.table or units) if units == (1.0, 0.0) else units
    nodata = next(iter(layer.nodata), None) if source.nodatavals[at] is None else source.nodatavals[at]
    marks = [float(mark) for mark in np.percentile(good, (0, 2, 50, 98, 100))] if good.size else [None] * 5
    unit = _unit(layer.name, source.dtypes[at], marks[2], marks[3], units)
    named = layer.name, Path(layer.path).name, source.descriptions[at], source.dtypes[at]
    return BandInfo(number, *named, *units, nodata, good.size / values.size, unit, *marks)


def _pixel(affine: Affine) -> tuple[float, float]:
    """Sides of a pixel, which may be turned."""
    return math.hypot(affine.a, affine.d), math.hypot(affine.b, affine.e)


def _unit(name: str | None, dtype: str, median: float | None, high: float | None, units: tuple[float, float]) -> str:
    """Guess what the numbers are; a guess for a person to read, nothing is decided by it.

    Reflectance seldom exceeds 1.5 (snow, glint), and land at x10000 has medians of hundreds to thousands.
    """
    if name in sensors.CLOUDS:
        return "codes of clouds"
    if median is None or high is None or name is None:
        return "unknown"
    if units != (1.0, 0.0):
        return "packed reflectance"
    if name in ("VV", "VH"):
        return "decibel" if median < 0 else "unknown"
    if high <= 2.0:
        return "0..1, looks like reflectance"
    if dtype == "uint8":
        return "0..255, looks like 8-bit counts"
    return REFLECTANCE + ", by the look of it" if high <= 20000 else "unknown"


def _codes(layer: Layer) -> dict[int, float] | None:
    """Share of each value of what looks like class labels: few whole numbers; None otherwise."""
    values = look(layer)
    good = values[np.isfinite(values)]
    found, counts = np.unique(good, return_counts=True)
    if not good.size or len(found) > _MOST_CODES or np.any(found % 1):
        return None
    return {int(code): float(count / good.size) for code, count in zip(found, counts, strict=True)}
