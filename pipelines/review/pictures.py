"""What the page shows under the regions: the scene in two colourings, the map, how sure it is; whole, or a part."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.errors import RasterioError

from models.errors import InputError, RunError
from models.spec import ClassDef
from pipelines.grids import align
from pipelines.grids.windows import Window
from pipelines.outputs import seen
from pipelines.outputs.picture import ramp
from pipelines.review.beside import Mapped
from pipelines.scenes.bands import open_layer
from pipelines.scenes.layers import reflectance
from pipelines.scenes.scene import Scene, open_scene

LONGEST = 2048  # pixels; of a picture of the whole
Image = NDArray[np.uint8]  # (h, w, 4): red, green, blue, opacity
TRUE, FALSE = "true colour", "false colour"
_BANDS = {TRUE: ("RED", "GREEN", "BLUE"), FALSE: ("NIR_NARROW", "RED", "GREEN")}
_ENDS = {"confidence": (0.0, 1.0), "unfamiliar": (0.0, 2.0)}


@dataclass
class Pictures:
    """Pictures of one grid.

    Attributes:
        geobox: the grid.
        draw: by name, a function of a grid (the whole or a part of it, maybe in fewer pixels) that draws it.
    """

    geobox: GeoBox
    draw: Mapping[str, Callable[[GeoBox], Image]] = field(default_factory=dict)

    @property
    def scale(self) -> float:
        """Pixels of the whole picture to one of the grid, at most 1."""
        return min(LONGEST / max(self.geobox.shape), 1.0)

    @functools.lru_cache(maxsize=8)  # noqa: B019 - lives as long as the page
    def whole(self, name: str) -> bytes:
        """The whole as PNG, at most `LONGEST` pixels a side."""
        height, width = (max(round(side * self.scale), 1) for side in self.geobox.shape)
        grid = self.geobox if self.scale == 1 else self.geobox.zoom_to((height, width))
        return png(self.draw[name](grid))

    def part(self, name: str, window: Window) -> bytes:
        """A window of the grid as PNG, in its own pixels."""
        return png(self.draw[name](align.crop(self.geobox, window)))

    __hash__ = object.__hash__


def png(image: Image) -> bytes:
    """An image as PNG, packed fast rather than small."""
    from PIL import Image as Pillow

    out = io.BytesIO()
    Pillow.fromarray(image).save(out, format="PNG", compress_level=1)
    return out.getvalue()


def scene_grid(source: str) -> GeoBox:
    """The grid of a scene that can be shown.

    Raises:
        InputError: it cannot be opened, or has no bands that can be shown.
    """
    return next(iter(openings(source).values())).geobox


def scene_pictures(source: str, geobox: GeoBox) -> dict[str, Callable[[GeoBox], Image]]:
    """Colourings of a scene whose bands are there; of its last date.

    Raises:
        InputError: the scene cannot be opened, lies on other ground, or has no bands that can be shown.
    """
    scenes = openings(source)
    for scene in scenes.values():
        for layer in scene.stack[-1].layers:
            if not align.overlaps(open_layer(layer), geobox):
                raise InputError(f"{source}: lies on other ground than what is reviewed; give its own scene")
    return {name: _colouring(scene, geobox) for name, scene in scenes.items()}


def openings(source: str) -> dict[str, Scene]:
    """A scene as it is opened for each colouring that it has the bands for."""
    found, problems = {}, []
    for name, bands in _BANDS.items():
        try:
            found[name] = open_scene(source.split(",")[-1], bands)
        except InputError as error:
            problems.append(error)
    if not found:
        raise problems[0]
    return found


def _colouring(scene: Scene, geobox: GeoBox) -> Callable[[GeoBox], Image]:
    """Draws three bands, from the 2nd to the 95th percentile of the whole, for all parts; clouds lie beyond."""

    def read(grid: GeoBox) -> NDArray[np.float32]:
        rows, columns = (int(side) for side in grid.shape)
        layers = scene.stack[-1].layers
        try:
            if all(seen.same_ground(align.grid(open_layer(layer)), grid) for layer in layers):  # overviews, if any
                return np.stack([seen.thinned(layer, (rows, columns)) for layer in layers])
            return reflectance(layers, grid, (slice(0, rows), slice(0, columns)))
        except RasterioError as error:
            raise RunError(f"{scene.name}: cannot be read ({align.reason(error)}); fetch it again") from error

    @functools.cache
    def ends() -> tuple[float, float]:
        few = min(512 / max(geobox.shape), 1)
        height, width = (max(round(side * few), 1) for side in geobox.shape)
        x = read(geobox.zoom_to((height, width)))
        known = x[:, np.isfinite(x).all(axis=0)]
        low, high = np.percentile(known, (2, 95)) if known.size else (0.0, 1.0)
        return float(low), max(float(high), float(low) + 1e-6)

    return lambda grid: stretched(read(grid), *ends())


def stretched(x: NDArray[np.float32], low: Any, high: Any) -> Image:
    """Three bands (3, h, w) as colours, between two ends of all or of each; transparent where one is NaN."""
    known = np.isfinite(x).all(axis=0)
    share = ((np.where(known, x, low) - low) / (high - low)).clip(0, 1) ** 0.85  # lighter: fields and forests are dark
    return np.dstack((*(np.rint(band * 255).astype(np.uint8) for band in share), known * np.uint8(255)))


def map_pictures(mapped: Mapped) -> dict[str, Callable[[GeoBox], Image]]:
    """The map, and what lies beside it that is one band."""
    found: dict[str, Callable[[GeoBox], Image]] = {}
    if mapped.classes:
        found["map"] = lambda grid: _classes(mapped.path, mapped.classes, grid)
    else:
        found["map"] = functools.partial(_values, mapped.path, _spread(mapped.path))
    for kind in ("confidence", "unfamiliar"):
        if kind in mapped.files:
            found[kind] = functools.partial(_values, mapped.files[kind], _ENDS[kind])
    return found


def _read(path: Any, grid: GeoBox, method: Resampling) -> NDArray[np.float32]:
    """The first band on a grid, NaN without data: float32 (rows, columns)."""
    source = align.dataset(str(path))
    theirs = align.grid(source)
    if seen.same_ground(theirs, grid):  # overviews are read where there are some
        raw = source.read(1, out_shape=tuple(grid.shape), masked=True, resampling=method)
        return np.asarray(np.ma.filled(raw.astype(np.float32), np.nan))
    window = tuple(slice(0, int(side)) for side in grid.shape)
    return np.asarray(align.read_onto(source, grid, (window[0], window[1]), indexes=[1], resampling=method)[0])


def _classes(path: Any, classes: Sequence[ClassDef], grid: GeoBox) -> Image:
    """Colours of classes, transparent elsewhere."""
    codes = _read(path, grid, Resampling.nearest)
    image = np.zeros((*codes.shape, 4), np.uint8)
    for entry in classes:
        image[codes == entry.code] = (*entry.rgb, 255)
    return image


def _spread(path: Any) -> tuple[float, float]:
    """The 2nd and the 98th percentile of a map of values, from few of its pixels."""
    source = align.dataset(str(path))
    few = min(512 / max(source.shape), 1)
    shape = tuple(max(round(side * few), 1) for side in source.shape)
    known = np.ma.filled(source.read(1, out_shape=shape, masked=True).astype(np.float32), np.nan)
    known = known[np.isfinite(known)]
    low, high = (float(end) for end in np.percentile(known, (2, 98))) if known.size else (0.0, 1.0)
    return low, max(high, low + 1e-6)


def _values(path: Any, ends: tuple[float, float], grid: GeoBox) -> Image:
    return graded(_read(path, grid, Resampling.average), *ends)


def graded(values: NDArray[np.float32], low: float, high: float) -> Image:
    """Dark blue at the low end to yellow at the high one, transparent without data."""
    known = np.isfinite(values)
    share = ((np.where(known, values, low) - low) / (high - low)).clip(0, 1)
    return np.dstack((ramp(share), known * np.uint8(255)))
