"""What of a scene is to be read: pixels and bytes of each file, by headers and the cloud layer alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from pyproj.exceptions import ProjError
from rasterio.enums import MaskFlags

from models.errors import InputError
from pipelines.access.catalogues import Catalogue
from pipelines.access.offers import Offer, address_of, bare
from pipelines.access.place import Place
from pipelines.access.remote import Remote, block_ranges
from pipelines.access.seen import FILL, Seen, by_item, by_layer
from pipelines.access.web import Web
from pipelines.grids import align
from pipelines.grids.windows import Window
from pipelines.outputs.layout import Layout
from pipelines.scenes import sensors
from pipelines.scenes.bands import AS_STORED, Layer

_MOST_STRIP = 1 << 30  # bytes of pixels that are in memory at once


@dataclass(frozen=True)
class Part:
    """The window of a file.

    Attributes:
        remote: the file.
        window: rows and columns of the file.
        layers: bands that are wanted of it, by name.
        layouts: of the files that are written, by name.
        size: bytes of the blocks to read; of JPEG 2000, a guess.
    """

    remote: Remote
    window: Window
    layers: Mapping[str, Layer]
    layouts: Mapping[str, Layout]
    size: int


@dataclass(frozen=True)
class Plan:
    """A scene that is to be fetched.

    Attributes:
        offer: the scene.
        seen: what it shows of the place.
        parts: windows of its files.
    """

    offer: Offer
    seen: Seen
    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """Bytes to read."""
        return sum(part.size for part in self.parts)

    @property
    def unpacked(self) -> int:
        """Bytes of all pixels."""
        return sum(_bytes(layout) * layout.shape[1] for part in self.parts for layout in part.layouts.values())


def _bytes(layout: Layout) -> int:
    """Bytes of a row."""
    return layout.shape[2] * np.dtype(layout.dtype).itemsize


def plan(web: Web, catalogue: Catalogue, offer: Offer, place: Place, max_cloud: float) -> Plan:
    """What of a scene is to be read.

    Raises:
        InputError: a file is not there or no raster, the place is not on it, or clouds hide too much.
        RunError: the network fails.
    """
    remotes: dict[str, Remote] = {}
    for layer in offer.layers.values():
        if layer.path not in remotes:
            remotes[layer.path] = Remote(web, bare(layer.path), address_of(web, catalogue, offer, layer))
    seen = _look(offer, remotes, place)
    if seen.share == 0:
        raise InputError("shows nothing of the place")
    if seen.clouds > max_cloud:
        raise InputError(f"clouds hide {seen.clouds:.0f} % of what it shows; --max_cloud is {max_cloud:g}")
    coarsest = max(_pixel(remotes[layer.path]) for layer in offer.bands.values())
    parts = [_part(remotes[path], path, offer, place, coarsest) for path in remotes]
    return Plan(offer, seen, tuple(parts))


def _look(offer: Offer, remotes: Mapping[str, Remote], place: Place) -> Seen:
    """What the scene shows of the place."""
    if offer.clouds is None:
        return by_item(offer.item, place)
    with remotes[offer.clouds.path].opened() as source:
        _check_band(source, offer.clouds)
        return by_layer(source, str(offer.clouds.name), offer.clouds.index, place)


def _pixel(remote: Remote) -> float:
    """Side of a file's pixels, in units of its coordinate system."""
    with remote.opened() as source:
        return math.sqrt(abs(align.grid(source).affine.determinant))


def _part(remote: Remote, path: str, offer: Offer, place: Place, coarsest: float) -> Part:
    """The window of a file, from whole pixels of the coarsest band to whole pixels of it."""
    layers = {name: layer for name, layer in offer.layers.items() if layer.path == path}
    with remote.opened() as source:
        geobox = align.grid(source)
        window = window_of(geobox, place, coarsest, remote.name)
        for layer in layers.values():
            _check_band(source, layer)
        ground = align.crop(geobox, window)
        layouts = {name: _layout(source, ground, name, layer) for name, layer in layers.items()}
        if (strip := sum(_bytes(layout) * layout.side for layout in layouts.values())) > _MOST_STRIP:
            raise InputError(f"{remote.name}: rows of {strip / 2**30:.1f} GiB; give a smaller place")
        indexes = indexes_of(layers)
        size = sum(count for _, count in set(block_ranges(source, window, indexes, remote.name)))
        if not size and source.driver != "GTiff":
            size = int(remote.size * math.prod(ground.shape) / math.prod(geobox.shape))
    return Part(remote, window, layers, layouts, size)


def _check_band(source: Any, layer: Layer) -> None:
    """Refuse a band that is not there, or that no map is made of."""
    if layer.index > source.count:
        raise InputError(f"{bare(layer.path)}: band {layer.index} is wanted, it has {source.count}")
    kind = str(source.dtypes[layer.index - 1])
    if kind.startswith("complex") or (layer.name in sensors.CLOUDS and not kind.startswith(("int", "uint"))):
        raise InputError(f"{bare(layer.path)}: band {layer.index} holds {kind}, which is not what it should be")


def _layout(source: Any, ground: GeoBox, name: str, layer: Layer) -> Layout:
    """How a band is written: as it is stored, with what its header or its item tells of it."""
    nodata, dtype = source.nodatavals[layer.index - 1], str(source.dtypes[layer.index - 1])
    if nodata is None:
        nodata = FILL[name] if name in FILL else next(iter(layer.nodata), None)
    if nodata is None and MaskFlags.all_valid not in source.mask_flag_enums[layer.index - 1]:
        nodata = math.nan if dtype.startswith("float") else 0  # what its mask hides is filled
    if nodata is not None and not _fits(nodata, dtype):
        nodata = None
    scaling = (1.0, 0.0)
    if name not in (*sensors.CLOUDS, *AS_STORED):
        header = float(source.scales[layer.index - 1]), float(source.offsets[layer.index - 1])
        scaling = layer.units or (header if header != scaling else None) or layer.table or scaling
        if not all(map(math.isfinite, scaling)) or scaling[0] == 0:
            told = f"scale {scaling[0]:g} and offset {scaling[1]:g}"
            raise InputError(f"{bare(layer.path)}: {told} are told of band {layer.index}, which no value survives")
    return Layout(ground, dtype, nodata=nodata, descriptions=(name,), scaling=(scaling,))


def _fits(value: float, dtype: str) -> bool:
    """Whether a type has a value."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return True
    return math.isfinite(value) and value == int(value) and np.iinfo(kind).min <= value <= np.iinfo(kind).max


def window_of(geobox: GeoBox, place: Place, coarsest: float, name: str) -> Window:
    """Rows and columns of a grid that hold a place, from whole coarse pixels to whole coarse pixels.

    Raises:
        InputError: the grid has no coordinate system, or the place is not on it.
    """
    if geobox.crs is None:
        raise InputError(f"{name}: has no coordinate system")
    try:
        longitudes, latitudes = place.ring().T
        x, y = Transformer.from_crs("EPSG:4326", geobox.crs.to_wkt(), always_xy=True).transform(longitudes, latitudes)
    except ProjError as error:
        raise InputError(f"{name}: its coordinate system cannot show the place ({error})") from error
    there = np.isfinite(x) & np.isfinite(y)
    columns, rows = ~geobox.affine * np.stack((np.asarray(x)[there], np.asarray(y)[there]))
    step = max(round(coarsest / math.sqrt(abs(geobox.affine.determinant))), 1)
    sides = []
    for at, size in zip((rows, columns), geobox.shape, strict=True):
        if not len(at):
            raise InputError("the place is not on it")
        first = max(math.floor(at.min() / step + 1e-6) * step, 0)
        last = min(math.ceil(at.max() / step - 1e-6) * step, int(size))
        if first >= last:
            raise InputError("the place is not on it")
        sides.append(slice(first, last))
    return sides[0], sides[1]


def indexes_of(layers: Mapping[str, Layer]) -> Sequence[int]:
    """Bands of a file, each once."""
    return sorted({layer.index for layer in layers.values()})
