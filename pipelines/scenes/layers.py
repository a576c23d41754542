"""Bands of a frame as they are read: their units and what of their files holds no data, their pixels on a grid."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling

from models.errors import InputError
from models.types import Array, Mask
from pipelines.grids import align
from pipelines.grids.positions import pixel_ratio, whole_shift
from pipelines.grids.windows import Window
from pipelines.scenes import sensors
from pipelines.scenes.bands import AS_STORED, Layer, open_layer
from pipelines.scenes.fill import Fill, find_fill, listed_values


def settled(layer: Layer, nodata: tuple[float, ...] = ()) -> Layer:
    """Fix the units and the nodata values of a band by what its file's header says.

    Args:
        layer: the band.
        nodata: values that a person says mean no data.

    Returns:
        the layer with `units` and `told` set, and with `nodata` as it is to be applied besides the file's own.

    Raises:
        InputError: the file cannot be opened, does not hold the band, or holds complex numbers.
    """
    source = open_layer(layer)
    if layer.index > source.count:
        raise InputError(f"{layer.path}: band {layer.index} is wanted, it has {source.count}")
    if source.dtypes[layer.index - 1].startswith("complex"):
        raise InputError(
            f"{layer.path}: band {layer.index} holds complex numbers, one value a pixel is wanted; write their "
            "amplitude to a file first"
        )
    header = source.scales[layer.index - 1], source.offsets[layer.index - 1]
    if layer.units is None and (not all(map(math.isfinite, header)) or header[0] == 0):
        raise InputError(
            f"{layer.path}: band {layer.index} declares scale {header[0]:g} and offset {header[1]:g}, which no value "
            "survives; correct its header, or give --scale and --offset"
        )
    units = layer.units or _file_units(source, layer) or layer.table or layer.assumed
    guide = layer.nodata if source.nodatavals[layer.index - 1] is None else ()
    void = (*guide, *nodata)
    return dataclasses.replace(layer, units=units or (1e-4, 0.0), told=units is not None, nodata=void)


def dtype_of(layer: Layer) -> str:
    """Type of a band's values as stored."""
    return str(open_layer(layer).dtypes[layer.index - 1])


def _file_units(source: Any, layer: Layer) -> tuple[float, float] | None:
    """Scale and offset in the file's header; None where it has none, or for bands that are no reflectance."""
    if layer.name in AS_STORED:
        return (1e-4, 0.0)
    units = float(source.scales[layer.index - 1]), float(source.offsets[layer.index - 1])
    return None if units == (1.0, 0.0) else units


def size_of(window: Window, shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of a window inside a scene."""
    for side, size in zip(window, shape, strict=True):
        if not 0 <= side.start < side.stop <= size:
            raise ValueError(f"window {window} is empty or reaches beyond a scene of {shape[0]}x{shape[1]}")
    return window[0].stop - window[0].start, window[1].stop - window[1].start


def reflectance(layers: tuple[Layer, ...], geobox: GeoBox, window: Window) -> Array:
    """Reflectance x10000 of one frame, NaN where invalid: float32 (C, rows, columns)."""
    out = stored(layers, geobox, window)
    for values, layer in zip(out, layers, strict=True):
        scale, offset = layer.units or (1e-4, 0.0)
        values *= np.float32(scale * 1e4)
        values += np.float32(offset * 1e4)
    return out


def stored(layers: tuple[Layer, ...], geobox: GeoBox, window: Window, resampling: Resampling | None = None) -> Array:
    """Values of one frame as stored, NaN where invalid: float32 (C, rows, columns). One read per file."""
    height, width = size_of(window, geobox.shape)
    out = np.empty((len(layers), height, width), np.float32)
    groups: dict[tuple[Any, ...], list[int]] = {}
    for channel, layer in enumerate(layers):
        groups.setdefault((layer.path, layer.nodata, layer.masked, layer.alpha), []).append(channel)
    for (_, nodata, masked, alpha), channels in groups.items():
        indexes = [layers[channel].index for channel in channels]
        told = {"nodata": nodata, "masked": masked, "alpha": alpha, "resampling": resampling}
        out[channels] = align.read_onto(open_layer(layers[channels[0]]), geobox, window, indexes=indexes, **told)
    return out


def fill_of(layers: tuple[Layer, ...], geobox: GeoBox) -> Fill | None:
    """The fill of one frame that nothing declares."""
    sources = [(open_layer(layer), layer) for layer in layers]
    declared = [source.nodatavals[layer.index - 1] for source, layer in sources]
    known = [value for value in declared if value is not None] + [v for layer in layers for v in layer.nodata]
    grids = [align.grid(source) for source, _ in sources]
    placed = [grid for grid in grids if grid.crs is not None and geobox.crs is not None]
    others = [grid for grid in placed if whole_shift(grid, geobox) is None]
    # Where bands of other grids are resampled, pixels beside fill are mixed with it.
    margin = max((math.ceil(1 / min(pixel_ratio(grid, geobox))) + 1 for grid in others), default=0)

    def read(window: Window) -> Array:
        return stored(layers, geobox, window, Resampling.nearest)

    height, width = (int(side) for side in geobox.shape)
    return find_fill(read, (height, width), listed_values([*map(dtype_of, layers)], known), margin=margin)


def clouded(layer: Layer, geobox: GeoBox, window: Window) -> Mask:
    """Where a cloud layer hides the ground or says nothing: bool (rows, columns)."""
    code = sensors.CLOUDS[layer.name or ""]
    source = open_layer(layer)
    (values,) = align.read_onto(
        source, geobox, window, indexes=[layer.index], resampling=Resampling.nearest, nodata=layer.nodata
    )
    unknown = np.isnan(values)
    flags = np.where(unknown, 0, values).astype(np.int32)
    return np.asarray(unknown | hides(flags, code))


def hides(flags: NDArray[Any], code: sensors.CloudCode) -> Mask:
    """Where values of a cloud layer hide the ground."""
    return np.asarray(((flags & code.bits) != 0) | np.isin(flags, code.classes))
