"""A satellite scene: a file, a folder of band files, a STAC item, or several of them as dated frames, on one grid.

Nothing is read at opening but headers. Bands are taken by name, in the order asked: from descriptions, from file names
of HLS, Sentinel-2 and Landsat, from a STAC item, or as `file_bands` says; never by position alone.
"""

from __future__ import annotations

import dataclasses
import datetime
import http.client
import json
import re
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp, Resampling
from rasterio.warp import transform

from models.errors import InputError
from pipelines import align, sensors
from pipelines.windows import Window

RASTERS = (".tif", ".tiff", ".jp2", ".vrt", ".img")
_AS_STORED = ("THERMAL_INFRARED_1", "THERMAL_INFRARED_2", "VV", "VH")
_PICTURES = ("visual", "thumbnail", "preview", "rendered_preview", "overview", "tilejson", "tci", "browse")
_STAC_DRIVERS = ("GTiff", "COG", "JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID", "PNG", "JPEG")
_STAC_BYTES = 16 << 20
_UNIT_ASSUMED = "floating point without scale is taken as reflectance x10000; pass scale=1 if it is 0..1"
_PIXELS_ONLY = "no coordinate system: pixels are counted from the corner, and maps will have no place on the ground"


@dataclass(frozen=True)
class Layer:
    """One band in one file.

    Attributes:
        name: band name, cloud layer ("FMASK", "SCL", "QA_PIXEL") or None where nothing names it.
        path: the file or URL.
        index: band in the file, from 1.
        units: (scale, offset), reflectance = raw * scale + offset, by argument or catalogue; None until settled.
        table: the same by the sensor's product guide, used where neither `units` nor the file says.
        assumed: the same as in training, used where nothing else says.
        nodata: raw value without data, used where the file declares none.
        masked: whether the file's mask band or alpha applies.
        trusted: False for files that a STAC item points to: drivers that read further files are refused.
    """

    name: str | None
    path: str
    index: int = 1
    units: tuple[float, float] | None = None
    table: tuple[float, float] | None = None
    assumed: tuple[float, float] | None = None
    nodata: float | None = None
    masked: bool = True
    trusted: bool = True


@dataclass(frozen=True)
class Product:
    """What one dated source holds: its bands as found, nothing chosen yet.

    Attributes:
        name: name for messages and for maps made from it.
        source: the file, folder or URL.
        date: day of acquisition, None where nothing tells.
        layers: its bands, in the order found.
        clouds: its cloud layer, None where there is none.
        named_by: what named the bands.
        notes: what a person should know.
        problem: why its reflectance cannot be worked out, or an empty text.
    """

    name: str
    source: str
    date: datetime.date | None
    layers: tuple[Layer, ...]
    clouds: Layer | None = None
    named_by: str = "band descriptions"
    notes: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Frame:
    """One date of a scene: the wanted bands in order, their units settled, and the cloud layer that hides pixels."""

    name: str
    source: str
    date: datetime.date | None
    layers: tuple[Layer, ...]
    clouds: Layer | None
    notes: tuple[str, ...]


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
        """The files on this machine that it is read from."""
        layers = [layer for f in self.stack for layer in (*f.layers, *([f.clouds] if f.clouds else []))]
        return frozenset(Path(layer.path).resolve() for layer in layers if "://" not in layer.path)

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
        x[:, :, ~valid] = 0
        return x, valid

    def time(self) -> np.ndarray:
        """Year and day of the year from 0 of each frame, as terratorch's Prithvi takes it: float32 (T, 2).

        Raises:
            InputError: a frame has no date.
        """
        rows = []
        for frame in self.stack:
            if frame.date is None:
                raise InputError(f"{frame.source}: the model wants dates and nothing tells this one; pass dates")
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
            for layer in (*frame.layers, *([frame.clouds] if frame.clouds else [])):
                align.forget(layer.path)

    def __enter__(self) -> Scene:
        """Return the scene itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""
        self.close()


@dataclass(frozen=True)
class Assumed:
    """What is taken for granted of files that do not tell: that they are like those of a training.

    Attributes:
        bands: names of the bands in the order of the file; empty where nothing is assumed.
        units: scale and offset to reflectance; None where nothing is assumed.
    """

    bands: tuple[str, ...] = ()
    units: tuple[float, float] | None = None

    @classmethod
    def like(cls, data: Mapping[str, Any]) -> Assumed:
        """What a bundle's `data` says of its training files."""
        scale = data.get("scale")
        return cls(tuple(data.get("bands") or ()), None if scale is None else (scale, data.get("offset") or 0.0))

    def of(self, product: Product) -> Product:
        """The product with the gaps filled; a note says when names were assumed."""
        layers = [dataclasses.replace(layer, assumed=self.units) for layer in product.layers]
        notes = product.notes
        if len(layers) == len(self.bands) and not any(layer.name for layer in layers):
            layers = [dataclasses.replace(layer, name=name) for layer, name in zip(layers, self.bands, strict=True)]
            notes += (f"nothing names its bands: taken as in training, {', '.join(self.bands)}",)
        return dataclasses.replace(product, layers=tuple(layers), notes=notes)


@dataclass(frozen=True)
class _Ask:
    """What the caller says about the files, for they may not say it themselves."""

    file_bands: tuple[str, ...] | None
    units: tuple[float, float] | None
    frames: int | None


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
    geobox = _finest(stack[0])
    _same_ground(stack, geobox)
    notes = [note for frame in stack for note in frame.notes]
    notes += [_PIXELS_ONLY] if geobox.crs is None else []
    return Scene(stack[0].name, geobox, wanted, stack, tuple(dict.fromkeys(notes)))


def find_products(
    sources: Sequence[str | Path],
    *,
    file_bands: Sequence[str] | None = None,
    scale: float | None = None,
    offset: float | None = None,
    dates: Sequence[str] | None = None,
    frames: int = 1,
    assumed: Assumed | None = None,
) -> list[Product]:
    """Find what sources hold, one Product per frame, in the order given; arguments as in `open_scene`.

    Raises:
        InputError: as in `open_scene`, except for what wanted bands would raise.
    """
    if not sources:
        raise InputError("no scene given: pass a file, a folder or a STAC item")
    days = None if dates is None else [_parse_date(text) for text in dates]
    if days is not None and (not days or len(days) % len(sources)):
        raise InputError(f"{len(days)} dates for {len(sources)} sources: give one date per frame")
    units = _given_units(scale, offset)
    ask = _Ask(
        tuple(file_bands) if file_bands else None,
        units,
        len(days) // len(sources) if days else frames if frames > 1 else None,
    )
    products = [product for source in sources for product in _products(str(source), ask)]
    products = [assumed.of(product) for product in products] if assumed else products
    if days is None:
        return products
    if len(days) != len(products):
        raise InputError(f"{sources[0]}: {len(days)} dates for {len(products)} frames; give one date per frame")
    return [dataclasses.replace(product, date=day) for product, day in zip(products, days, strict=True)]


def _given_units(scale: float | None, offset: float | None) -> tuple[float, float] | None:
    """Scale and offset of the caller; None where none is given."""
    if scale is None and offset is not None:
        raise InputError(f"offset {offset} given without scale: reflectance = raw * scale + offset wants both")
    return None if scale is None else (scale, offset or 0.0)


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


def _parse_date(text: str) -> datetime.date:
    """YYYY-MM-DD as a date."""
    try:
        return datetime.date.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"date {text!r}: wanted YYYY-MM-DD") from error


def _products(source: str, ask: _Ask) -> list[Product]:
    """The frames of one source."""
    if urllib.parse.urlsplit(source).path.lower().endswith((".json", ".geojson")):
        return [_checked_item(source, ask)]
    if "://" not in source and Path(source).is_dir():
        return _folder_products(Path(source), ask)
    return _file_products(source, ask)


# --- wanted bands out of products ---------------------------------------------------------------------------------


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
        return InputError(
            f"{product.source}: nothing names its {len(product.layers)} bands (wanted {band}); "
            "give their names in the order of the file: --bands, or data.bands in a recipe"
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
    if layer.name in _AS_STORED:
        return (1e-4, 0.0)
    units = float(source.scales[layer.index - 1]), float(source.offsets[layer.index - 1])
    return None if units == (1.0, 0.0) else units


def open_layer(layer: Layer) -> Any:
    """Open the file of a layer; what a catalogue points to must hold its pixels itself.

    Raises:
        InputError: the file is missing, no raster, or of a format that reads further files.
    """
    if layer.trusted:
        return align.dataset(layer.path)
    try:
        return align.dataset(layer.path, drivers=_STAC_DRIVERS)  # others are not even asked what it is
    except InputError as error:
        raise InputError(f"{error}; a STAC asset has to be a GeoTIFF or JPEG 2000") from error


def _finest(frame: Frame) -> GeoBox:
    """The grid of the band with the smallest pixels; the first of equals."""
    grids = [align.grid(open_layer(layer)) for layer in frame.layers]
    return min(grids, key=lambda geobox: abs(geobox.affine.determinant))


def _same_ground(stack: tuple[Frame, ...], geobox: GeoBox) -> None:
    """Check that every file shares ground with the grid, and that cloud layers are there."""
    for frame in stack:
        layers = [*frame.layers, *([frame.clouds] if frame.clouds else [])]
        for path, layer in {layer.path: layer for layer in layers}.items():
            if not align.overlaps(open_layer(layer), geobox):
                raise InputError(f"{path}: lies on other ground than {stack[0].source}; give frames of one place")


# --- reading ------------------------------------------------------------------------------------------------------


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
    clouded: np.ndarray = unknown | ((flags & code.bits) != 0) | np.isin(flags, code.classes)
    return clouded


# --- one raster file ----------------------------------------------------------------------------------------------


def _file_products(path: str, ask: _Ask) -> list[Product]:
    """The frames of one raster file."""
    source = align.dataset(path)
    align.grid(source)
    if source.count == 0:
        raise InputError(
            f"{path}: holds {len(source.subdatasets)} rasters and no bands; pass one of them by its GDAL name"
        )
    name = Path(urllib.parse.urlsplit(path).path).name
    known = sensors.parse_name(name)
    indexes = _data_bands(source, ask)
    names, named_by = _file_names(source, indexes, ask, known)
    alpha = [index for index in indexes if source.colorinterp[index - 1] == ColorInterp.alpha]
    # Only a band file of a product has the product's units; a stack made from products may hold anything.
    product = known if known and known.band and source.count == 1 else None
    layers = [
        dataclasses.replace(_band_file(path, band, product, ask), index=index, masked=not alpha)
        for band, index in zip(names, indexes, strict=True)
    ]
    problem = _baseline_problem(path, product, ask) if product else ""
    date, stem, beside = _file_date(source, name), Path(name).stem, _beside(path)
    return [
        Product(stem, path, date, bands, clouds or beside, named_by, problem=problem)
        for bands, clouds in map(_apart, _in_frames(path, layers, ask.frames))
    ]


def _apart(layers: Sequence[Layer]) -> tuple[tuple[Layer, ...], Layer | None]:
    """Bands, and the cloud layer if there is one."""
    clouds = next((layer for layer in layers if layer.name in sensors.CLOUDS), None)
    return tuple(layer for layer in layers if layer.name not in sensors.CLOUDS), clouds


def _data_bands(source: Any, ask: _Ask) -> list[int]:
    """Indexes of bands with data. GDAL takes the fourth of four 8-bit bands for alpha; a name shows that it is not."""
    every = list(source.indexes)
    plain = [index for index in every if source.colorinterp[index - 1] != ColorInterp.alpha]
    named = [index for index in every if index in plain or _says_band(source.descriptions[index - 1])]
    given = len(ask.file_bands) * (ask.frames or 1) if ask.file_bands else None
    return every if given == len(every) else named


def _says_band(text: str | None) -> bool:
    """Whether a description names a band, by name or by code."""
    return bool(text and (sensors.band_name(text) or sensors.band_code(text)))


def _file_names(
    source: Any, indexes: list[int], ask: _Ask, known: sensors.FileName | None
) -> tuple[tuple[str | None, ...], str]:
    """Name the bands of a file, and say what named them."""
    sensor = known.sensor if known else None
    if ask.file_bands:
        names = sensors.name_bands(ask.file_bands, sensor)
        given = [name or sensors.tidy(text) for name, text in zip(names, ask.file_bands, strict=True)]
        times = ask.frames or 1
        if len(given) not in (len(indexes), len(indexes) / times):
            raise InputError(
                f"{source.name}: has {len(indexes)} bands, {len(given)} names and {times} dates were given; "
                "name each band once (file_bands) and give one date per frame"
            )
        return tuple(given * (len(indexes) // len(given))), "file_bands"
    if known and known.band and len(indexes) == 1:
        return (known.band,), "file name"
    return sensors.name_bands([source.descriptions[index - 1] for index in indexes], sensor), "band descriptions"


def _in_frames(path: str, bands: list[Layer], frames: int | None) -> list[list[Layer]]:
    """Cut a stack into frames: the same names in the same order, once per frame.

    Raises:
        InputError: names come twice in another pattern, or the number of frames is not that of the dates.
    """
    names = [layer.name for layer in bands]
    named = [name for name in names if name]
    times = max((named.count(name) for name in named), default=frames or 1)
    size = len(bands) // times
    if names != names[:size] * times:
        doubled = next(name for name in named if named.count(name) > 1)
        raise InputError(f"{path}: band {doubled} comes {named.count(doubled)} times; pass the names as file_bands")
    if frames and frames != times:
        raise InputError(f"{path}: {frames} dates given, its bands make {times} frames; pass one date per frame")
    return [bands[start : start + size] for start in range(0, len(bands), size)] if size else [bands]


def _beside(path: str) -> Layer | None:
    """The cloud layer that lies beside a local file: `X_fmask.tif` or `X.Fmask.tif` for `X.tif` and `X_<any>.tif`."""
    file = Path(path)
    if "://" in path or not file.parent.is_dir():
        return None
    stem = file.stem
    for base in (stem, re.sub(r"[_.][^_.]+$", "", stem)):
        for word in ("Fmask", "fmask", "SCL", "scl", "QA_PIXEL", "qa_pixel"):
            for mark in ("_", "."):
                found = file.with_name(f"{base}{mark}{word}{file.suffix}")
                if found.exists() and found != file:
                    return Layer(sensors.cloud_code(word), str(found))
    return None


def _file_date(source: Any, name: str) -> datetime.date | None:
    """Day of acquisition of a file: from its tags, then from its name.

    The TIFF's own time stamp does not count: it is the time of writing unless a writer meant otherwise.
    """
    tags = {key.upper(): text for key, text in source.tags().items()}
    known = sensors.parse_name(name)
    texts = [tags.get("SENSING_TIME"), tags.get("ACQUISITION_DATE"), tags.get("DATETIME")]
    days = [*(sensors.find_date(text or "") for text in texts), known.date if known else None, sensors.find_date(name)]
    return next((day for day in days if day), None)


# --- a folder of band files ---------------------------------------------------------------------------------------


def holds_bands(folder: Path) -> bool:
    """Whether a folder itself holds one scene as band files: those of HLS, Sentinel-2 or Landsat, or called by band."""
    files = [file for file in folder.iterdir() if file.suffix.lower() in RASTERS and file.is_file()]
    named = any((known := sensors.parse_name(file.name)) and known.band for file in files)
    return named or any(_says_band(file.stem) for file in files) or (folder / "GRANULE").is_dir()


def _folder_products(folder: Path, ask: _Ask) -> list[Product]:
    """The one product in a folder of band files, or the one raster in it."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in RASTERS and file.is_file())
    parsed = [(file, known) for file in files if (known := sensors.parse_name(file.name)) and known.band]
    if not parsed and len(files) == 1:
        return _file_products(str(files[0]), ask)
    if ask.file_bands:
        raise InputError(f"{folder}: file_bands names the bands of a file, this is a folder; leave file_bands out")
    if parsed:
        return [_named_product(folder, parsed, ask)]
    return [_plain_product(folder, files, ask)]


def _named_product(folder: Path, parsed: list[tuple[Path, sensors.FileName]], ask: _Ask) -> Product:
    """A product of HLS, Sentinel-2 or Landsat from the names of its band files; the finest file of each band."""
    products = sorted({known.product for _, known in parsed})
    if len(products) > 1:
        raise InputError(
            f"{folder}: holds {len(products)} scenes ({', '.join(products[:3])}); pass one folder per scene, or a list"
        )
    layers: dict[str, Layer] = {}
    for file, known in sorted(parsed, key=lambda pair: (pair[1].metres or 0, pair[0])):
        layers.setdefault(known.band or "", _band_file(str(file), known.band, known, ask))
    first, known = parsed[0]
    bands, clouds = _apart(list(layers.values()))
    problem = _baseline_problem(str(first), known, ask)
    notes = _safe_notes(folder)
    name = folder.name.removesuffix(".SAFE") or known.product
    return Product(name, str(folder), known.date, bands, clouds, "file names", notes, problem)


def _plain_product(folder: Path, files: list[Path], ask: _Ask) -> Product:
    """A product from files called by band alone ('B02.tif', 'scene_red.tif'), sensor by the folder's name."""
    known = sensors.parse_name(folder.name)
    words = [file.stem if _says_layer(file.stem) else re.split(r"[_.]", file.stem)[-1] for file in files]
    names = sensors.name_bands(words, known.sensor if known else None)
    pairs = [(name, file) for name, file in zip(names, files, strict=True) if name]
    doubled = sorted({name for name, _ in pairs if sum(name == other for other, _ in pairs) > 1})
    if doubled:
        raise InputError(f"{folder}: holds band {doubled[0]} more than once; pass one folder per scene, or a list")
    if not pairs:
        raise InputError(
            f"{folder}: {len(files)} rasters, none named as a band of HLS, Sentinel-2 or Landsat; pass a file, "
            "a list of files, or a folder of one scene's bands"
        )
    layers = [_band_file(str(file), name, known, ask) for name, file in pairs]
    bands, clouds = _apart(layers)
    problem = _baseline_problem(str(files[0]), known, ask) if known else ""
    date = known.date if known else sensors.find_date(folder.name)
    return Product(folder.name, str(folder), date, bands, clouds, "file names", (), problem)


def _says_layer(text: str) -> bool:
    """Whether a text names a band or a cloud layer."""
    return _says_band(text) or sensors.cloud_code(text) is not None


def _band_file(path: str, name: str | None, known: sensors.FileName | None, ask: _Ask) -> Layer:
    """A band file of a product (or of no known product), with its units by argument or product guide."""
    if name in sensors.CLOUDS:
        return Layer(name, path)
    if known is None or name in _AS_STORED:
        return Layer(name, path, units=ask.units)
    sensor = sensors.SENSORS[known.sensor]
    offset = _safe_offset(Path(path)) if known.sensor == "S2" else sensor.offset
    return Layer(name, path, units=ask.units, table=(sensor.scale, offset or 0.0), nodata=sensor.nodata)


def _baseline_problem(path: str, known: sensors.FileName | None, ask: _Ask) -> str:
    """Why a Sentinel-2 file's offset cannot be known, or an empty text."""
    if known is None or known.sensor != "S2" or ask.units or _safe_offset(Path(path)) is not None:
        return ""
    return (
        f"{path}: Sentinel-2 of unknown processing baseline, its offset may be 0 or -0.1; keep it in its .SAFE folder "
        "with MTD_MSIL2A.xml, or pass scale=0.0001 and the offset"
    )


def _safe_offset(path: Path) -> float | None:
    """Offset to reflectance of a Sentinel-2 file, from its product's metadata or folder name; None where unknown."""
    for folder in [path, *path.parents][:7]:
        metadata = _metadata(folder)
        added = re.search(r"<(?:BOA|RADIO)_ADD_OFFSET[^>]*>\s*(-?\d+)", metadata)
        baseline = re.search(r"<PROCESSING_BASELINE>\s*([\d.]+)", metadata)
        if added:
            return int(added[1]) / 10000
        if baseline or sensors.product_baseline(folder.name):
            return sensors.sentinel2_offset(baseline[1] if baseline else sensors.product_baseline(folder.name))
    return None


def _metadata(folder: Path) -> str:
    """Text of the product metadata in a SAFE folder, or an empty text. Read as text: no XML entity is expanded."""
    for name in ("MTD_MSIL2A.xml", "MTD_MSIL1C.xml"):
        file = folder / name
        if file.is_file():
            return file.read_text(encoding="utf-8", errors="replace")[:1_000_000]
    return ""


def _safe_notes(folder: Path) -> tuple[str, ...]:
    """What to know about a Sentinel-2 product: Level-1C is not the surface."""
    level1 = (folder / "MTD_MSIL1C.xml").is_file() or "_MSIL1C_" in folder.name
    return ("Level-1C: top-of-atmosphere reflectance, not surface reflectance",) if level1 else ()


# --- a STAC item --------------------------------------------------------------------------------------------------


def _checked_item(source: str, ask: _Ask) -> Product:
    """A product from a STAC item; what no STAC item would hold is the item's fault, not ours."""
    try:
        return _stac_product(source, ask)
    except (AttributeError, TypeError, ValueError, KeyError, IndexError) as error:
        raise InputError(f"{source}: not a valid STAC item ({error}); check it with a STAC validator") from error


def _stac_product(source: str, ask: _Ask) -> Product:
    """A product from a STAC item."""
    item = _read_json(source)
    if not isinstance(item, dict) or item.get("type") != "Feature" or not isinstance(item.get("assets"), dict):
        raise InputError(f"{source}: not a STAC item (a GeoJSON Feature with assets); pass an item, not a collection")
    properties: dict[str, Any] = item.get("properties") or {}
    sensor = _stac_sensor(item, properties)
    found: dict[str, Layer] = {}
    for key, asset in sorted(item["assets"].items(), key=_asset_rank):
        if _is_picture(key, asset):
            continue
        for layer in _asset_layers(source, key, asset, sensor, properties, ask):
            if layer.name:
                found.setdefault(layer.name, layer)
    bands, clouds = _apart(list(found.values()))
    date = sensors.find_date(str(properties.get("datetime") or properties.get("start_datetime") or ""))
    problem = _stac_problem(source, sensor, properties, bands)
    notes = _stac_notes(sensor, properties)
    # The name becomes a file's name: an item's id is not to choose the folder.
    name = re.sub(r"[^\w.-]+", "_", str(item.get("id") or "")).lstrip(".") or Path(source).stem
    return Product(name, source, date, bands, clouds, "STAC item", notes, problem)


def _read_json(source: str) -> Any:
    """Parse a JSON file or URL of at most 16 MiB."""
    try:
        if source.startswith(("http://", "https://")):
            with urllib.request.urlopen(source, timeout=30) as reply:
                text = reply.read(_STAC_BYTES)
        elif "://" in source:
            raise InputError(f"{source}: a STAC item is read from a file or from http(s)")
        else:
            with Path(source).open("rb") as file:
                text = file.read(_STAC_BYTES)
        return json.loads(text)
    except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
        raise InputError(f"{source}: not a JSON file that can be read ({error}); check the path") from error


def _stac_sensor(item: Mapping[str, Any], properties: Mapping[str, Any]) -> str | None:
    """Key of SENSORS for an item, by the file names of its assets, then by platform, instrument and collection."""
    for asset in item["assets"].values():
        known = sensors.parse_name(str(asset.get("href", "")).split("?")[0].rpartition("/")[2])
        if known:
            return known.sensor
    words = f"{item.get('collection')} {item.get('id')} {properties.get('platform')} {properties.get('instruments')}"
    patterns = {"S30": r"hls.*s30", "L30": r"hls.*l30", "S2": r"sentinel-?2", "OLI": r"\boli\b", "TM": r"\be?tm\b"}
    return next((key for key, pattern in patterns.items() if re.search(pattern, words.lower())), None)


def _asset_rank(pair: tuple[str, Mapping[str, Any]]) -> tuple[bool, float, int]:
    """Order of preference among assets of a band: GeoTIFF before JPEG 2000, then the finest, then the plain key."""
    key, asset = pair
    metres = re.search(r"_(\d{2})m$", key)
    return (
        ".jp2" in str(asset.get("href", "")).lower(),
        float(asset.get("gsd") or (metres[1] if metres else 0)),
        len(key),
    )


def _is_picture(key: str, asset: Mapping[str, Any]) -> bool:
    """Whether an asset is a rendering or no raster at all."""
    roles = set(asset.get("roles") or ())
    kind, href = str(asset.get("type") or ""), str(asset.get("href", "")).lower().split("?")[0]
    raster = kind.startswith("image/tiff") or kind.startswith("image/jp2") or href.endswith(RASTERS)
    return not raster or key.lower().split("_")[0] in _PICTURES or bool(roles & {"visual", "thumbnail", "overview"})


def _asset_layers(
    source: str,
    key: str,
    asset: Mapping[str, Any],
    sensor: str | None,
    properties: Mapping[str, Any],
    ask: _Ask,
) -> list[Layer]:
    """The bands of one asset."""
    bands = asset.get("bands") or asset.get("eo:bands") or [{}]
    rasters = asset.get("raster:bands") or [{}] * len(bands)
    path = _href(source, str(asset.get("href", "")))
    guide = sensors.SENSORS[sensor] if sensor else None
    layers = []
    for index, band in enumerate(bands, 1):
        about = {**asset, **(rasters[index - 1] if index <= len(rasters) else {}), **band}
        name = _asset_band(key if len(bands) == 1 else "", path, band, sensor)
        units = ask.units or _stac_units(about, sensor, properties)
        table = (guide.scale, _stac_offset(sensor, properties) or 0.0) if guide else None
        nodata = about.get("nodata", guide.nodata if guide else None)
        nodata = float(nodata) if isinstance(nodata, int | float) else None
        if name in sensors.CLOUDS:
            units, table, nodata = None, None, None
        layers.append(Layer(name, path, index, units, table, nodata=nodata, trusted=False))
    return layers


def _asset_band(key: str, path: str, band: Mapping[str, Any], sensor: str | None) -> str | None:
    """Name of an asset's band: by file name, by code in the sensor's table, by common name, by the asset's key."""
    known = sensors.parse_name(path.split("?")[0].rpartition("/")[2])
    if key and known and known.band:
        return known.band
    plain = re.sub(r"_\d{2}m$", "", key)
    common = str(band.get("eo:common_name") or band.get("common_name") or "")
    names = sensors.name_bands([plain, str(band.get("name") or ""), common], sensor)
    named = next((name for name in names if name), None)
    # STAC's common name 'nir' is the broad one: the narrow one is called nir08.
    return "NIR_BROAD" if named == sensors.NIR else named


def _stac_units(
    about: Mapping[str, Any], sensor: str | None, properties: Mapping[str, Any]
) -> tuple[float, float] | None:
    """Scale and offset that an item declares. Earth Search keeps declaring -0.1 on files it has already shifted."""
    scale = about.get("raster:scale", about.get("scale"))
    offset = about.get("raster:offset", about.get("offset", 0.0))
    if not isinstance(scale, int | float) or not isinstance(offset, int | float):
        return None
    return float(scale), 0.0 if sensor == "S2" and _shifted(properties) else float(offset)


def _shifted(properties: Mapping[str, Any]) -> bool:
    """Whether the offset of baseline 04.00 is already in the pixels."""
    return True in (properties.get("earthsearch:boa_offset_applied"), properties.get("sentinel:boa_offset_applied"))


def _stac_offset(sensor: str | None, properties: Mapping[str, Any]) -> float | None:
    """Offset by the product guide; None for Sentinel-2 of unknown processing baseline."""
    if sensor != "S2":
        return sensors.SENSORS[sensor].offset if sensor else None
    keys = ("s2:processing_baseline", "sentinel:processing_baseline", "processing:version")
    baseline = next((str(properties[key]) for key in keys if properties.get(key)), None)
    if baseline is None:
        baseline = sensors.product_baseline(str(properties.get("s2:product_uri", "")))
    return 0.0 if _shifted(properties) else None if baseline is None else sensors.sentinel2_offset(baseline)


def _stac_problem(source: str, sensor: str | None, properties: Mapping[str, Any], bands: tuple[Layer, ...]) -> str:
    """Why a Sentinel-2 item's offset cannot be known, or an empty text."""
    if sensor != "S2" or all(layer.units for layer in bands) or _stac_offset(sensor, properties) is not None:
        return ""
    return f"{source}: Sentinel-2 item without s2:processing_baseline; pass scale=0.0001 and offset=0 or -0.1"


def _stac_notes(sensor: str | None, properties: Mapping[str, Any]) -> tuple[str, ...]:
    """What to know about an item: Earth Search's flag is wrong in places (earth-search issues 66 and 71)."""
    doubtful = sensor == "S2" and properties.get("earthsearch:boa_offset_applied") is False
    text = (
        "boa_offset_applied is false, so the offset is applied; some items say so wrongly: "
        "if many reflectances are below 0, "
    )
    return (text + "pass scale=0.0001 and offset=0",) if doubtful else ()


def _href(source: str, href: str) -> str:
    """An asset's address, resolved against its item.

    Raises:
        InputError: the address is neither http(s), s3, gs nor a file path.
    """
    href = href if "://" in source or "://" in href else urllib.parse.unquote(href)  # before it is judged
    scheme = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*):", href)
    allowed = scheme is None or scheme[1].lower() in ("http", "https", "s3", "gs")
    if not href or href.startswith(("/vsi", "<")) or not allowed:
        raise InputError(f"{source}: asset address {href[:80]!r} is not opened; wanted http(s), s3, gs or a file path")
    if scheme:
        return href
    if "://" in source:
        return urllib.parse.urljoin(source, href)
    return str(Path(source).parent / href)
