"""What the bands of satellite files hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rasterio.enums import Resampling
from rasterio.errors import RasterioIOError

from models.errors import InputError, RunError
from models.spec import REFLECTANCE
from pipelines.inspection.findings import BandInfo, Inspection
from pipelines.scenes.bands import Layer, Product, finest_grid, open_layer

_SIDE = 512
_MOST_CODES = 64


def describe_scene(path: str, products: list[Product]) -> Inspection:
    """Look at every band of every frame."""
    layers = [layer for product in products for layer in product.layers]
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
        resolution=(abs(finest.affine.a), abs(finest.affine.e)) if located else None,
        frames=len(products),
        dates=tuple(product.date.isoformat() if product.date else None for product in products),
        named_by=products[0].named_by if named else "nothing",
        bands=bands,
        codes=codes,
        notes=tuple(dict.fromkeys(notes)),
    )


def look(layer: Layer) -> np.ndarray:
    """At most 512x512 pixels of a band spread over the whole, with NaN where it has no data: float64 (n,)."""
    source = open_layer(layer)
    shape = tuple(min(size, _SIDE) for size in source.shape)
    try:
        raw = source.read(layer.index, out_shape=shape, masked=True, resampling=Resampling.nearest)
    except RasterioIOError as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise RunError(f"{layer.path}: band {layer.index} cannot be read ({reason}); fetch the file again") from error
    hidden = np.ma.getmaskarray(raw) if layer.masked else np.zeros(shape, bool)
    values: np.ndarray = np.where(hidden, np.nan, raw.data.astype(np.float64))
    values[~np.isfinite(values)] = np.nan
    if source.nodatavals[layer.index - 1] is None:
        values[np.isin(values, layer.nodata)] = np.nan
    return values.ravel()


def _band(number: int, layer: Layer) -> BandInfo:
    """Describe one band."""
    source, at = open_layer(layer), layer.index - 1
    values = look(layer)
    good = values[np.isfinite(values)]
    units = layer.units or (float(source.scales[at]), float(source.offsets[at]))
    units = (layer.table or units) if units == (1.0, 0.0) else units
    nodata = next(iter(layer.nodata), None) if source.nodatavals[at] is None else source.nodatavals[at]
    marks = [float(mark) for mark in np.percentile(good, (0, 2, 50, 98, 100))] if good.size else [None] * 5
    unit = _unit(source.dtypes[at], marks[2], marks[3], units)
    named = layer.name, Path(layer.path).name, source.descriptions[at], source.dtypes[at]
    return BandInfo(number, *named, *units, nodata, good.size / values.size, unit, *marks)


def _unit(dtype: str, median: float | None, high: float | None, units: tuple[float, float]) -> str:
    """Guess what the numbers are; a guess for a person to read, nothing is decided by it.

    Reflectance seldom exceeds 1.5 (snow, glint), and land at x10000 has medians of hundreds to thousands.
    """
    if median is None or high is None:
        return "unknown"
    if units != (1.0, 0.0):
        return "packed reflectance"
    if median < 0 and high < 30:
        return "decibel or other signed quantity"
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
