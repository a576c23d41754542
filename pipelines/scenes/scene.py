"""A satellite scene: a file, a folder of band files, a STAC item, or several of them as dated frames, on one grid.

Nothing is read at opening but headers. Bands are taken by name, in the order asked: from descriptions, from file names
of HLS, Sentinel-2 and Landsat, from a STAC item, or as `file_bands` says; never by position alone.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.warp import transform

from models.errors import InputError
from pipelines.grids import align
from pipelines.grids.windows import Window
from pipelines.scenes import sensors
from pipelines.scenes.bands import AS_STORED, Layer, Product, finest_grid, open_layer
from pipelines.scenes.products import Assumed, find_products

_UNIT_ASSUMED = "floating point without scale is taken as reflectance x10000; --scale 1 if it is 0..1"
_PIXELS_ONLY = "no coordinate system: pixels are counted from the corner, and maps will have no place on the ground"


@dataclass(frozen=True)
class Reading:
    """What a person says about the files, where they do not say it themselves; see `open_scene`.

    Attributes:
        bands: names of the bands in the order of the files, where the files do not say.
        dates: day of each frame (YYYY-MM-DD), where the files do not say.
        scale: reflectance = raw * scale + offset, where the files do not say.
        offset: see scale.
        mask_clouds: leave clouded pixels out, by Fmask, SCL or QA_PIXEL; as in training when not given.
    """

    bands: Sequence[str] | None = None
    dates: Sequence[str] | None = None
    scale: float | None = None
    offset: float | None = None
    mask_clouds: bool | None = None


@dataclass(frozen=True)
class Frame:
    """One date of a scene: the wanted bands in order, their units settled, and the cloud layer that hides pixels."""

    name: str
    source: str
    date: datetime.date | None
    layers: tuple[Layer, ...]
    clouds: Layer | None
    notes: tuple[str, ...]

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
        notes: what a person should know about how it was read.
    """

    name: str
    geobox: GeoBox
    bands: tuple[str, ...]
    stack: tuple[Frame, ...]
    notes: tuple[str, ...] = ()

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
    def dates(self) -> tuple[datetime.date | None, ...]:
        """Day of each frame, None where nothing tells."""
        return tuple(frame.date for frame in self.stack)

    @property
    def sources(self) -> tuple[str, ...]:
        """File, folder or URL of each frame."""
        return tuple(frame.source for frame in self.stack)

    @property
    def files(self) -> frozenset[Path]:
        """The files on this machine that it is read from: catalogue items, rasters, and what virtual rasters read."""
        layers = [layer for frame in self.stack for layer in frame.every]
        paths = {path for layer in layers for path in (layer.path, *open_layer(layer).files)} | set(self.sources)
        return frozenset(Path(path).resolve() for path in paths if "://" not in path and Path(path).is_file())

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Read a window that lies inside the scene.

        Returns:
            x float32 (C, T, rows, columns), reflectance x10000, 0 where not valid; and valid, bool (rows, columns):
            has data in every band of every frame, and no cloud where clouds are masked.

        Raises:
            ValueError: the window is empty or reaches beyond the scene.
            RunError: a file broke while being read; names file and window.
        """
        height, width = _size(window, self.shape)
        x = np.empty((len(self.bands), self.frames, height, width), np.float32)
        valid = np.ones((height, width), bool)
        for t, frame in enumerate(self.stack):
            x[:, t] = _read_layers(frame.layers, self.geobox, window)
            if frame.clouds is not None:
                valid &= ~_clouded(frame.clouds, self.geobox, window)
        valid &= np.isfinite(x).all(axis=(0, 1))
        np.copyto(x, 0, where=~valid)
        return x, valid

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
        a, b, c, d, e, f = tuple(self.geobox.affine)[:6]
        row, col = ((side.start + side.stop) / 2 for side in window)
        x, y = a * col + b * row + c, d * col + e * row + f
        (longitude,), (latitude,) = transform(str(self.geobox.crs), "EPSG:4326", [x], [y])
        return np.array([latitude, longitude], np.float32)

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
        dates: day of each frame (YYYY-MM-DD) in the order given, where the files do not tell or tell it wrong.
        frames: frames that one file holds, where neither its bands' names nor `dates` tell.
        mask_clouds: cloud, cloud shadow and cirrus in Fmask, SCL or QA_PIXEL make pixels invalid.
        assumed: names and units of files that do not tell them.

    Raises:
        InputError: a file is missing or no raster, bands are not named or not there, a number of names or dates does
            not fit, frames lie on other ground, or there is no cloud layer.
    """
    wanted = _wanted(bands)
    sources = [source] if isinstance(source, str | Path) else list(source)
    products = find_products(
        sources, file_bands=file_bands, scale=scale, offset=offset, dates=dates, frames=frames, assumed=assumed
    )
    if all(product.date for product in products):
        products = sorted(products, key=lambda product: product.date or datetime.date.min)
    stack = tuple(_frame(product, wanted, mask_clouds) for product in products)
    geobox = finest_grid(stack[0].layers)
    for frame in stack:
        for path, layer in {layer.path: layer for layer in frame.every}.items():
            if not align.overlaps(open_layer(layer), geobox):
                raise InputError(f"{path}: lies on other ground than {stack[0].source}; give frames of one place")
    notes = [note for frame in stack for note in frame.notes]
    notes += [_PIXELS_ONLY] if geobox.crs is None else []
    return Scene(stack[0].name, geobox, wanted, stack, tuple(dict.fromkeys(notes)))


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
    masked = bool(like and like.get("mask_clouds")) if reading.mask_clouds is None else reading.mask_clouds
    return open_scene(
        sources,
        bands,
        file_bands=reading.bands,
        scale=reading.scale,
        offset=reading.offset,
        dates=reading.dates,
        frames=max(times // len(sources), 1),
        mask_clouds=masked,
        assumed=None if like is None else Assumed.like(like),
    )


def _wanted(bands: Sequence[str]) -> tuple[str, ...]:
    """Wanted bands by canonical name."""
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


def _frame(product: Product, wanted: tuple[str, ...], mask_clouds: bool) -> Frame:
    """Pick the wanted bands of a product and settle their units."""
    names = sensors.resolve_nir([layer.name for layer in product.layers], wanted)
    found = {name: layer for name, layer in zip(names, product.layers, strict=True) if name}
    notes = [*product.notes]
    for band in wanted:
        if band not in found:
            raise _missing(product, band, sorted(found))
        if found[band].name == sensors.NIR:
            notes.append(f"the band called NIR is taken as {band}, the file has no other near infrared")
    if product.problem:
        raise InputError(product.problem)
    clouds = product.clouds if mask_clouds else None
    if mask_clouds and clouds is None:
        raise InputError(
            f"{product.source}: clouds are to be masked and no Fmask, SCL or QA_PIXEL layer lies with it; "
            "--mask_clouds false maps clouds too"
        )
    layers = [settled(found[band]) for band in wanted]
    notes += [_UNIT_ASSUMED] if any(_unit_assumed(found[band]) for band in wanted) else []
    return Frame(product.name, product.source, product.date, tuple(layers), clouds, tuple(dict.fromkeys(notes)))


def _missing(product: Product, band: str, names: list[str]) -> InputError:
    """The error for a wanted band that is not there."""
    if not names:
        bands = f"{len(product.layers)} band{'s' * (len(product.layers) != 1)}"
        return InputError(
            f"{product.source}: nothing names its {bands} (wanted {band}); "
            "give their names in the order of the file: --bands, or --data.bands to finetune"
        )
    close = sensors.suggest(band, names)
    return InputError(f"{product.source}: band {band} is wanted{close}, it has {', '.join(names)}")


def settled(layer: Layer) -> Layer:
    """Fix the units and the nodata value of a band by what its file's header says.

    Returns:
        the layer with `units` set, and with `nodata` None where the file declares its own.

    Raises:
        InputError: the file cannot be opened or does not hold the band.
    """
    source = open_layer(layer)
    if layer.index > source.count:
        raise InputError(f"{layer.path}: band {layer.index} is wanted, it has {source.count}")
    units = layer.units or _file_units(source, layer) or layer.table or layer.assumed or (1e-4, 0.0)
    nodata = layer.nodata if source.nodatavals[layer.index - 1] is None else None
    return dataclasses.replace(layer, units=units, nodata=nodata)


def _unit_assumed(layer: Layer) -> bool:
    """Whether a band holds floating point and nothing tells its unit."""
    source = open_layer(layer)
    told = layer.units or layer.table or layer.assumed or _file_units(source, layer)
    return told is None and source.dtypes[layer.index - 1].startswith("float")


def _file_units(source: Any, layer: Layer) -> tuple[float, float] | None:
    """Scale and offset in the file's header; None where it has none, or for bands that are no reflectance."""
    if layer.name in AS_STORED:
        return (1e-4, 0.0)
    units = float(source.scales[layer.index - 1]), float(source.offsets[layer.index - 1])
    return None if units == (1.0, 0.0) else units


def _size(window: Window, shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of a window inside a scene."""
    for side, size in zip(window, shape, strict=True):
        if not 0 <= side.start < side.stop <= size:
            raise ValueError(f"window {window} is empty or reaches beyond a scene of {shape[0]}x{shape[1]}")
    return window[0].stop - window[0].start, window[1].stop - window[1].start


def _read_layers(layers: tuple[Layer, ...], geobox: GeoBox, window: Window) -> np.ndarray:
    """Reflectance x10000 of one frame, NaN where invalid: float32 (C, rows, columns). One read per file."""
    height, width = _size(window, geobox.shape)
    out = np.empty((len(layers), height, width), np.float32)
    groups: dict[tuple[str, float | None, bool], list[int]] = {}
    for channel, layer in enumerate(layers):
        groups.setdefault((layer.path, layer.nodata, layer.masked), []).append(channel)
    for (_, nodata, masked), channels in groups.items():
        indexes = [layers[channel].index for channel in channels]
        source = open_layer(layers[channels[0]])
        raw = align.read_onto(source, geobox, window, indexes=indexes, nodata=nodata, masked=masked)
        for values, channel in zip(raw, channels, strict=True):
            scale, offset = layers[channel].units or (1e-4, 0.0)
            out[channel] = values * np.float32(scale * 1e4) + np.float32(offset * 1e4)
    return out


def _clouded(layer: Layer, geobox: GeoBox, window: Window) -> np.ndarray:
    """Where a cloud layer hides the ground or says nothing: bool (rows, columns)."""
    code = sensors.CLOUDS[layer.name or ""]
    source = open_layer(layer)
    (values,) = align.read_onto(
        source, geobox, window, indexes=[layer.index], resampling=Resampling.nearest, nodata=layer.nodata
    )
    unknown = np.isnan(values)
    flags = np.where(unknown, 0, values).astype(np.int32)
    return np.asarray(unknown | ((flags & code.bits) != 0) | np.isin(flags, code.classes))
