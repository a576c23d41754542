"""A satellite scene: a file, a folder of band files, a STAC item, or several of them as dated frames, on one grid.

Nothing is read at opening but headers. Bands are taken by name, in the order asked: from descriptions, from file names
of HLS, Sentinel-2 and Landsat, from a STAC item, or as `file_bands` says; never by position alone.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.warp import transform

from models.errors import InputError
from pipelines.grids import align
from pipelines.grids.positions import pixel_ratio
from pipelines.grids.windows import Window
from pipelines.scenes import sensors
from pipelines.scenes.bands import Layer, Product, finest_grid, open_layer
from pipelines.scenes.fill import Fill
from pipelines.scenes.layers import clouded, dtype_of, fill_of, reflectance, settled, size_of
from pipelines.scenes.products import Assumed, find_products
from pipelines.scenes.reading import Reading

_UNIT_ASSUMED = "floating point without scale is taken as reflectance x10000; --scale 1 if it is 0..1"
_NEAR = 30  # nm
_PIXELS_ONLY = "no coordinate system: pixels are counted from the corner, and maps will have no place on the ground"


@dataclass(frozen=True)
class Frame:
    """One date of a scene: the wanted bands in order, their units settled, and the cloud layer that hides pixels.

    Attributes:
        absent: reflectance x10000 of each band that stands for a date which is missing; such a frame has no layers.
    """

    name: str
    source: str
    date: datetime.date | None
    layers: tuple[Layer, ...]
    clouds: Layer | None
    notes: tuple[str, ...]
    absent: tuple[float, ...] = ()

    @property
    def every(self) -> tuple[Layer, ...]:
        """The bands and, where clouds are masked, the cloud layer."""
        return (*self.layers, self.clouds) if self.clouds else self.layers


@dataclass(frozen=True)
class Scene:
    """Dated frames of the same bands on one grid. Holds no open file, so it can be pickled and crosses forks.

    Attributes:
        name: name of the first frame's source.
        geobox: the grid; crs None where the files have none.
        bands: band names in the order of the channels.
        stack: the frames, by date where all are dated, else as given.
        notes: what a person should know about how it was opened.
        find_fill: whether fill that nothing declares is looked for.
        own: the scene on the grid of its files, where it is read on another.
    """

    name: str
    geobox: GeoBox
    bands: tuple[str, ...]
    stack: tuple[Frame, ...]
    notes: tuple[str, ...] = ()
    find_fill: bool = True
    own: Scene | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        height, width = self.geobox.shape
        return int(height), int(width)

    @property
    def window(self) -> Window:
        """The whole scene as a window."""
        height, width = self.shape
        return slice(0, height), slice(0, width)

    @property
    def frames(self) -> int:
        """Number of dates (T)."""
        return len(self.stack)

    @property
    def seen(self) -> tuple[Frame, ...]:
        """The frames that are not missing."""
        return tuple(frame for frame in self.stack if not frame.absent)

    @property
    def missing(self) -> tuple[str, ...]:
        """The periods of the frames that are missing."""
        return tuple(frame.name for frame in self.stack if frame.absent)

    @property
    def dates(self) -> tuple[datetime.date | None, ...]:
        """Day of each frame that is not missing, None where nothing tells."""
        return tuple(frame.date for frame in self.seen)

    @property
    def sources(self) -> tuple[str, ...]:
        """File, folder or URL of each frame that is not missing."""
        return tuple(frame.source for frame in self.seen)

    @property
    def files(self) -> frozenset[Path]:
        """The files on this machine that it is read from: catalogue items, rasters, and what virtual rasters read."""
        layers = [layer for frame in self.stack for layer in frame.every]
        paths = {path for layer in layers for path in (layer.path, *open_layer(layer).files)} | set(self.sources)
        return frozenset(Path(path).resolve() for path in paths if "://" not in path and Path(path).is_file())

    @functools.cached_property
    def fills(self) -> tuple[Fill | None, ...]:
        """The fill of each frame that nothing declares, on the grid of its files; looked for when first asked for."""
        if self.own:
            return self.own.fills
        looked = self.find_fill
        return tuple(fill_of(f.layers, self.geobox) if looked and f.layers else None for f in self.stack)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a person should know about how it was opened and what was found in its pixels."""
        pixels, told = math.prod((self.own or self).shape), []
        for frame, fill in zip(self.stack, self.fills, strict=True):
            if fill:
                values = " and ".join(f"{value:g}" for value in fill.values)
                where = f"{frame.name}: " if self.frames > 1 else ""
                told.append(
                    f"{where}{fill.pixels / pixels:.2%} of the pixels hold {values} in all bands, from the edge "
                    "inwards: taken as fill and left out; --find_fill false takes them as values"
                )
        return (*self.notes, *told)

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Read a window that lies inside the scene.

        On another grid than that of its files, pixels are means by area of smaller ones that are valid, and valid
        where half of their area is; between larger ones values are bilinear.

        Returns:
            x float32 (C, T, rows, columns), reflectance x10000, 0 where not valid; and valid, bool (rows, columns):
            has data in every band of every frame that is not missing, and no cloud where clouds are masked.

        Raises:
            ValueError: the window is empty or reaches beyond the scene.
            RunError: a file broke while being read; names file and window.
        """
        height, width = size_of(window, self.shape)
        if self.own:
            return self._resampled(self.own, window)
        x = np.empty((len(self.bands), self.frames, height, width), np.float32)
        valid = np.ones((height, width), bool)
        for t, (frame, fill) in enumerate(zip(self.stack, self.fills, strict=True)):
            if frame.absent:
                x[:, t] = np.reshape(frame.absent, (-1, 1, 1))
                continue
            x[:, t] = reflectance(frame.layers, self.geobox, window)
            if fill:
                valid &= ~fill.mask(window)
            if frame.clouds is not None:
                valid &= ~clouded(frame.clouds, self.geobox, window)
        valid &= np.isfinite(x).all(axis=(0, 1))
        np.copyto(x, 0, where=~valid)
        return x, valid

    def _resampled(self, own: Scene, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """See `read`."""

        def read(under: Window) -> np.ndarray:
            x, valid = own.read(under)
            np.copyto(x, np.nan, where=~valid)
            return x.reshape(-1, *valid.shape)

        finer = math.prod(pixel_ratio(own.geobox, self.geobox)) > 1
        method = Resampling.average if finer else Resampling.bilinear
        x = align.warp(read, len(self.bands) * self.frames, own.geobox, self.geobox, window, method)
        valid = np.isfinite(x).all(axis=0)
        np.copyto(x, 0, where=~valid)
        return x.reshape(len(self.bands), self.frames, *valid.shape), valid

    def time(self) -> np.ndarray:
        """Year and day of the year from 0 of each frame, as terratorch's Prithvi takes it: float32 (T, 2).

        Raises:
            InputError: a frame has no date.
        """
        rows = []
        for frame in self.stack:
            if frame.date is None:
                raise InputError(f"{frame.source}: the model wants dates and nothing tells this one; --date gives it")
            rows.append((frame.date.year, frame.date.timetuple().tm_yday - 1))
        return np.array(rows, np.float32)

    def location(self, window: Window) -> np.ndarray:
        """Latitude and longitude of a window's centre in degrees, EPSG:4326: float32 (2,).

        Raises:
            InputError: the scene has no coordinate system.
        """
        if self.geobox.crs is None:
            raise InputError(f"{self.name}: a location is wanted and the scene has no coordinate system; give it one")
        row, col = ((side.start + side.stop) / 2 for side in window)
        (latitude,), (longitude,) = self._degrees([row], [col])
        return np.array([latitude, longitude], np.float32)

    def apart(self) -> list[Scene]:
        """Its dates as scenes of their own, called by their day where there are several."""
        if self.frames == 1:
            return [self]
        named = [(frame, f"{self.name}_{frame.date or number}") for number, frame in enumerate(self.stack, 1)]
        return [dataclasses.replace(self, name=name, stack=(frame,)) for frame, name in named]

    def area(self, window: Window) -> np.ndarray:
        """West, south, east and north of a window in degrees, west above east across the antimeridian: float64 (4,)."""
        (top, bottom), (left, right) = ((side.start, side.stop) for side in window)
        latitudes, longitudes = self._degrees([top, top, bottom, bottom], [left, right, left, right])
        away = (longitudes - longitudes[0] + 180) % 360 - 180
        west, east = ((longitudes[0] + end + 180) % 360 - 180 for end in (away.min(), away.max()))
        return np.array([west, latitudes.min(), east, latitudes.max()])

    def _degrees(self, rows: ArrayLike, columns: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Latitudes and longitudes of corners of pixels."""
        a, b, c, d, e, f = tuple(self.geobox.affine)[:6]
        row, col = np.asarray(rows, float), np.asarray(columns, float)
        x, y = a * col + b * row + c, d * col + e * row + f
        longitudes, latitudes = transform(str(self.geobox.crs), "EPSG:4326", x, y)
        return np.asarray(latitudes), np.asarray(longitudes)

    def close(self) -> None:
        """Close the files that this thread holds open; reading opens them again."""
        for frame in self.stack:
            for layer in frame.every:
                align.forget(layer.path)

    def __enter__(self) -> Scene:
        """Return the scene itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files."""
        self.close()


def open_scene(
    source: str | Path | Sequence[str | Path],
    bands: Sequence[str],
    *,
    file_bands: Sequence[str] | None = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
    find_fill: bool = True,
    dates: Sequence[str] | None = None,
    frames: int = 1,
    mask_clouds: bool = False,
    assumed: Assumed | None = None,
) -> Scene:
    """Open a scene; headers are read, pixels are not.

    The grid is that of the finest wanted band of the first frame; everything else is resampled onto it.

    Args:
        source: a raster file or URL, a folder of band files (HLS S30 or L30, Sentinel-2 SAFE, Landsat Collection 2
            Level 2, or files called by band), a STAC item (.json file or URL), or a sequence of these as frames.
        bands: wanted band names, such as BLUE, NIR_NARROW, SWIR_1.
        file_bands: names of all bands of a file, in the file's order, where its descriptions do not give them. A file
            of T times as many bands holds T frames one after the other, with `frames` or `dates` giving T.
        scale: reflectance = raw * scale + offset. None takes the STAC item's, the file's own or the product guide's,
            in this order; where none of them says, values are taken as reflectance x10000.
        offset: see `scale`; 0 where only `scale` is given.
        nodata: see `Reading`.
        find_fill: see `Reading`.
        dates: day of each frame (YYYY-MM-DD) in the order given, where the files do not tell or tell it wrong.
        frames: frames that one file holds, where neither its bands' names nor `dates` tell.
        mask_clouds: cloud, cloud shadow and cirrus in Fmask, SCL, QA_PIXEL or CLM make pixels invalid.
        assumed: names and units of files that do not tell them.

    Raises:
        InputError: a file is missing or no raster, bands are not named or not there, a number of names or dates does
            not fit, frames lie on other ground, or there is no cloud layer.
    """
    wanted = wanted_bands(bands)
    sources = [source] if isinstance(source, str | Path) else list(source)
    products = find_products(
        sources, file_bands=file_bands, scale=scale, offset=offset, dates=dates, frames=frames, assumed=assumed
    )
    if all(product.date for product in products):
        products = sorted(products, key=lambda product: str(product.date))
    void = () if nodata is None else (nodata,)
    stack = tuple(_frame(product, wanted, mask_clouds, void) for product in products)
    geobox = finest_grid(stack[0].layers)
    for frame in stack:
        for path, layer in {layer.path: layer for layer in frame.every}.items():
            if not align.overlaps(open_layer(layer), geobox):
                raise InputError(f"{path}: lies on other ground than {stack[0].source}; give frames of one place")
    notes = [note for frame in stack for note in frame.notes]
    notes += [_PIXELS_ONLY] if geobox.crs is None else []
    return Scene(stack[0].name, geobox, wanted, stack, tuple(dict.fromkeys(notes)), find_fill=find_fill)


def open_told(
    sources: Sequence[str], bands: Sequence[str], reading: Reading, *, times: int, like: Mapping[str, Any] | None
) -> Scene:
    """Open a scene as a person says, else as its files say, else as the data of a training; see `open_scene`.

    Args:
        sources: its files; several, or one alone, hold the dates.
        bands: wanted band names.
        reading: what a person says.
        times: dates in all.
        like: a bundle's `data`, if there is a bundle.
    """
    return open_scene(
        sources,
        bands,
        file_bands=reading.bands,
        scale=reading.scale,
        offset=reading.offset,
        nodata=reading.nodata,
        find_fill=_or_trained(reading.find_fill, like, "find_fill", True),
        dates=reading.dates,
        frames=times // len(sources),
        mask_clouds=_or_trained(reading.mask_clouds, like, "mask_clouds", False),
        assumed=None if like is None else Assumed.like(like),
    )


def _or_trained(said: bool | None, like: Mapping[str, Any] | None, key: str, default: bool) -> bool:
    """What a person says, else what held in training."""
    return bool((like or {}).get(key, default)) if said is None else said


def wanted_bands(bands: Sequence[str]) -> tuple[str, ...]:
    """Wanted bands by canonical name.

    Raises:
        InputError: none, one twice, or a code that means another band to another sensor.
    """
    wanted = tuple(sensors.tidy(band) for band in bands)
    for asked, name in zip(bands, wanted, strict=True):
        code = sensors.band_code(asked)
        if code:
            meant = sensors.SENTINEL2.get(code, "BLUE")
            raise InputError(f"band {asked}: codes differ between sensors; ask by name, such as {meant}")
        if wanted.count(name) > 1:
            raise InputError(f"band {asked} is wanted twice; name each band once")
    if not wanted:
        raise InputError("no bands wanted: name at least one, such as BLUE")
    return wanted


def _frame(product: Product, wanted: tuple[str, ...], mask_clouds: bool, nodata: tuple[float, ...]) -> Frame:
    """Pick the wanted bands of a product and settle their units."""
    found, taken = find_bands(product, wanted)
    notes = [*product.notes, *taken]
    for band in wanted:
        if band not in found:
            raise _missing(product, band, sorted(found))
    if product.problem:
        raise InputError(product.problem)
    clouds = product.clouds if mask_clouds else None
    if mask_clouds and clouds is None:
        raise InputError(
            f"{product.source}: clouds are to be masked and no Fmask, SCL, QA_PIXEL or CLM layer lies with it; "
            "--mask_clouds false maps clouds too"
        )
    layers = [settled(found[band], nodata) for band in wanted]
    notes += [_UNIT_ASSUMED] if any(not layer.told and dtype_of(layer).startswith("float") for layer in layers) else []
    return Frame(product.name, product.source, product.date, tuple(layers), clouds, tuple(dict.fromkeys(notes)))


def find_bands(product: Product, wanted: Sequence[str]) -> tuple[dict[str, Layer], list[str]]:
    """The bands of a product by name, and what to know of those that were taken for wanted ones.

    A wanted band that nothing is called by is the one of the nearest wavelength, up to 30 nm away.
    """
    names = sensors.resolve_nir([layer.name for layer in product.layers], wanted)
    found = {name: layer for name, layer in zip(names, product.layers, strict=True) if name}
    notes = [
        f"the band called NIR is taken as {band}, the file has no other near infrared"
        for band in wanted
        if band in found and found[band].name == sensors.NIR
    ]
    for band in wanted:
        near = None if band in found else _nearest(product, band)
        if near and near[0] <= _NEAR:
            found[band] = near[1]
            where = f"band {near[1].index}, of {near[1].wavelength:g} nm"
            notes.append(f"{band} ({sensors.WAVELENGTHS[band]:g} nm) is taken from {where}")
    return found, notes


def _nearest(product: Product, band: str) -> tuple[float, Layer] | None:
    """How far, in nm, and which the layer is that has no name and is nearest in wavelength to a band."""
    if (middle := sensors.WAVELENGTHS.get(band)) is None:
        return None
    unnamed = [layer for layer in product.layers if layer.name is None]
    away = [(abs(layer.wavelength - middle), layer) for layer in unnamed if layer.wavelength]
    return min(away, key=lambda pair: pair[0], default=None)


def _missing(product: Product, band: str, names: list[str]) -> InputError:
    """The error for a wanted band that is not there."""
    near = _nearest(product, band)
    if near:
        return InputError(
            f"{product.source}: band {band} ({sensors.WAVELENGTHS[band]:g} nm) is wanted, the nearest is band "
            f"{near[1].index} of {near[1].wavelength:g} nm; only bands up to {_NEAR} nm away are taken "
            "(--bands gives names)"
        )
    if not names:
        bands = f"{len(product.layers)} band{'s' * (len(product.layers) != 1)}"
        return InputError(
            f"{product.source}: nothing names its {bands} (wanted {band}); "
            "give their names in the order of the file: --bands, or --data.bands to finetune"
        )
    close = sensors.suggest(band, names)
    return InputError(f"{product.source}: band {band} is wanted{close}, it has {', '.join(names)}")
