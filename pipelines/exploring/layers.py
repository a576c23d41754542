"""Rasters as layers of a map: what kind each is, its picture in a window, its legend, its value under the pointer."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling

from models.errors import InputError, shown
from models.spec import ClassDef
from pipelines.embeddings.stored import is_tokens, read_components
from pipelines.exploring.pixels import COARSE, Band, checked, in_memory, read
from pipelines.grids import align
from pipelines.grids.positions import pixel_ratio
from pipelines.grids.windows import Window, thinned, whole
from pipelines.outputs.categories import read_categories
from pipelines.outputs.picture import ramp
from pipelines.reports.plots import class_image, value_limits
from pipelines.review.pictures import Image, graded, openings, stretched
from pipelines.scenes import bands

FINEST = 32  # pixels of the map along a side of one of the first layer's
_FEW = 512  # pixels along a side, from which ends of colours are told
_SIDE = 1 << 24  # pixels of the map
_MOST_CLASSES = 256


@dataclass(frozen=True, eq=False)
class Layer:
    """A raster that is shown.

    Attributes:
        name: of the file.
        kind: how it is coloured.
        bands: three of colours and tokens, else one.
        path: the file of a map of classes, where it is on this machine.
        classes: of a map of classes.
        note: words for the legend: a unit, the bands that are shown.
    """

    name: str
    kind: Literal["colours", "tokens", "classes", "values"]
    bands: tuple[Band, ...]
    path: Path | None = None
    classes: tuple[ClassDef, ...] = ()
    note: str = ""

    @property
    def grid(self) -> GeoBox:
        """The grid of its first band."""
        return align.grid(checked(self.bands[0].open()))


def open_layer(source: str | Path) -> Layer:
    """What a raster is, by its content: tokens, classes, values, or a scene in its colours.

    Raises:
        InputError: no such file, no raster, or a scene without bands that can be shown.
    """
    where, path = str(source), Path(source)
    name = Path(shown(where)).stem  # of an address without its keys
    if path.is_dir() or path.suffix.lower() == ".json":
        return _scene(where, name)
    opened = align.dataset(where)
    if is_tokens(path):
        return _tokens(path)
    if opened.count < 3:
        return _single(where, opened, name)
    if getattr(opened, "driver", "") == "netCDF":
        raise InputError(f"{where}: a cube is not shown; write the date that you want as a GeoTIFF")
    try:
        return _scene(where, name)
    except InputError:  # no names of bands that are colours
        first = tuple(Band(functools.partial(align.dataset, where), n, (1, 2, 3)) for n in (1, 2, 3))
        told = [opened.descriptions[n] or f"band {n + 1}" for n in range(3)]
        return Layer(name, "colours", first, note=", ".join(told))


def grid_of(layers: Sequence[Layer]) -> GeoBox:
    """The ground of the first layer, in pixels as fine as the finest of all, by whole numbers up to `FINEST`.

    Raises:
        InputError: none, the first has no coordinate system, or another lies elsewhere.
    """
    if not layers:
        raise InputError("a map wants a raster and none was given; name one, such as the scene")
    first = layers[0].grid
    if first.crs is None:
        raise InputError(f"{layers[0].name}: has no coordinate system, so that no place has degrees; give it one")
    fine = 1.0
    for layer in layers:
        if not align.overlaps(layer.bands[0].open(), first):
            raise InputError(
                f"{layer.name}: lies on other ground than {layers[0].name}; show them on maps of their own"
            )
        fine = max(fine, min(pixel_ratio(layer.grid, first)))
    times = min(round(fine), FINEST, max(_SIDE // max(first.shape), 1))
    return first if times == 1 else first.zoom_out(1 / times)


def draw(layer: Layer, grid: GeoBox, window: Window, shape: tuple[int, int]) -> Image:
    """A window of the grid in `shape` pixels, (rows, columns, 4); transparent without data.

    Raises:
        InputError: the file is gone, or another now.
        RunError: it cannot be read.
    """
    values = _read(layer, grid, window, shape)
    if layer.kind == "classes":
        return class_image(_index(values[0], layer.classes), layer.classes)
    low, high = _ends(layer, grid)
    if layer.kind == "values":
        return graded(values[0], float(low[0]), float(high[0]))
    return stretched(values, low[:, None, None], high[:, None, None])


def value_at(layer: Layer, grid: GeoBox, row: int, column: int) -> str:
    """What the layer says of a pixel of the grid, in words."""
    if layer.kind == "tokens":
        return ""
    found = _read(layer, grid, (slice(row, row + 1), slice(column, column + 1)), (1, 1))[:, 0, 0]
    if not np.isfinite(found).all():
        return "no data"
    if layer.kind == "classes":
        return next((entry.name for entry in layer.classes if entry.code == found[0]), f"{found[0]:g}")
    if layer.kind == "values":
        return f"{_said(found[0])} {layer.note}".strip()
    return ", ".join(map(_said, found))


def _said(value: float) -> str:
    """A value in words: whole numbers whole, such as days and codes."""
    return f"{value:.8g}" if float(value).is_integer() else f"{value:.4g}"


def legend(layer: Layer, grid: GeoBox) -> dict[str, Any]:
    """What the page shows of the layer's colours, as plain JSON types."""
    if layer.kind == "classes":
        return {"classes": [{"name": entry.name, "colour": entry.colour} for entry in layer.classes]}
    if layer.kind != "values":
        return {"note": layer.note}
    low, high = (_said(end[0]) for end in _ends(layer, grid))
    colours = ["#{:02x}{:02x}{:02x}".format(*map(int, colour)) for colour in ramp(np.linspace(0, 1, 9))]
    return {"note": layer.note, "ramp": colours, "low": low, "high": high}


def _scene(source: str, name: str) -> Layer:
    """The last date in natural colours, or in others where it lacks them."""
    said, scene = next(iter(openings(source).items()))
    three, layers = [], scene.seen[-1].layers
    for layer in layers:
        among, units = tuple(one.index for one in layers if one.path == layer.path), layer.units or (1e-4, 0.0)
        opened = functools.partial(bands.open_layer, layer)
        three.append(Band(opened, layer.index, among, layer.nodata, *units))
        checked(three[-1].open())
    return Layer(name, "colours", tuple(three), note=f"{said}: {', '.join(scene.bands)}")


def _single(where: str, opened: Any, name: str) -> Layer:
    """A map of classes or values."""
    band, path = Band(functools.partial(align.dataset, where)), Path(where)
    classes = () if opened.dtypes[0].startswith("float") else _classes(path, opened)
    if classes:
        return Layer(name, "classes", (band,), path if path.is_file() else None, classes)
    return Layer(name, "values", (band,), note=str(opened.units[0] or ""))


def _classes(path: Path, opened: Any) -> tuple[ClassDef, ...]:
    """Those that lie beside a map, or colours of its own table that occur; none where it has neither."""
    try:
        return read_categories(path)
    except InputError:  # nothing beside it, or a table of another make
        pass
    try:
        colours = opened.colormap(1)
    except ValueError:
        return ()
    codes = opened.read(1, out_shape=thinned(opened.shape, COARSE), masked=True).compressed()
    found = [int(code) for code in np.unique(codes) if int(code) in colours][:_MOST_CLASSES]
    return tuple(ClassDef(code, f"class {code}", "#{:02x}{:02x}{:02x}".format(*colours[code])) for code in found)


def _tokens(path: Path) -> Layer:
    """Tokens by their three leading components."""

    def opened(number: int) -> Band:
        return Band(lambda: _components(align.dataset(str(path)), path)[1], number, (1, 2, 3))

    shares = _components(align.dataset(str(path)), path)[2]
    told = ", ".join(f"{share:.0%}" for share in shares)
    return Layer(path.stem, "tokens", tuple(map(opened, (1, 2, 3))), note=f"3 principal components: {told}")


@functools.lru_cache(maxsize=4)
def _components(source: Any, path: Path) -> tuple[Any, Any, list[float]]:
    """Components as an open raster, with the memory that it lies in, and their shares; `source` tells files apart."""
    found, shares = read_components(path, COARSE)
    return *in_memory(found.values, found.geobox), shares


@functools.lru_cache(maxsize=64)
def _ends(layer: Layer, grid: GeoBox) -> tuple[NDArray[Any], NDArray[Any]]:
    """Values at the ends of the colours, low < high: of each band; the same for all of a scene."""
    values = _read(layer, grid, whole(grid.shape), thinned(grid.shape, _FEW))
    if layer.kind == "colours":
        known = values[:, np.isfinite(values).all(axis=0)]
        low, high = np.percentile(known, (2, 95)) if known.size else (0.0, 1.0)  # clouds lie beyond
        return np.full(3, low), np.full(3, max(high, low + 1e-9))
    low, high = np.array([value_limits([band]) for band in values]).T
    return low, high


def _read(layer: Layer, grid: GeoBox, window: Window, shape: tuple[int, int]) -> NDArray[np.float32]:
    """All bands, (bands, rows, columns), NaN without data."""
    method = Resampling.nearest if layer.kind == "classes" else Resampling.average
    return np.stack([read(band, grid, window, shape, method=method) for band in layer.bands])


def _index(codes: NDArray[Any], classes: Sequence[ClassDef]) -> NDArray[np.intp]:
    """The class of each code, -1 of others."""
    index = np.full(codes.shape, -1)
    for number, entry in enumerate(classes):
        index[codes == entry.code] = number
    return index
