"""What sources hold: raster files, folders of band files of HLS, Sentinel-2 and Landsat, and STAC items."""

from __future__ import annotations

import dataclasses
import datetime
import re
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rasterio.enums import ColorInterp

from models.errors import InputError
from pipelines.grids import align
from pipelines.scenes import sensors
from pipelines.scenes.bands import AS_STORED, RASTERS, Ask, Layer, Product, apart
from pipelines.scenes.items import stac_product


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
    if scale is None and offset is not None:
        raise InputError(f"offset {offset} given without scale: reflectance = raw * scale + offset wants both")
    units = None if scale is None else (scale, offset or 0.0)
    times = len(days) // len(sources) if days else frames if frames > 1 else None
    ask = Ask(tuple(file_bands) if file_bands else None, units, times)
    products = [product for source in sources for product in _products(str(source), ask)]
    products = [assumed.of(product) for product in products] if assumed else products
    if days is None:
        return products
    if len(days) != len(products):
        raise InputError(f"{sources[0]}: {len(days)} dates for {len(products)} frames; give one date per frame")
    return [dataclasses.replace(product, date=day) for product, day in zip(products, days, strict=True)]


def _parse_date(text: str) -> datetime.date:
    """YYYY-MM-DD as a date."""
    try:
        return datetime.date.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"date {text!r}: wanted YYYY-MM-DD") from error


def _products(source: str, ask: Ask) -> list[Product]:
    """The frames of one source."""
    if urllib.parse.urlsplit(source).path.lower().endswith((".json", ".geojson")):
        return [stac_product(source, ask)]
    if "://" not in source and Path(source).is_dir():
        return _folder_products(Path(source), ask)
    return _file_products(source, ask)


def _file_products(path: str, ask: Ask) -> list[Product]:
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
        for bands, clouds in map(apart, _in_frames(path, layers, ask.frames))
    ]


def _data_bands(source: Any, ask: Ask) -> list[int]:
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
    source: Any, indexes: list[int], ask: Ask, known: sensors.FileName | None
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
                "name each band once (--bands) and give one date per frame (--dates)"
            )
        return tuple(given * (len(indexes) // len(given))), "--bands"
    if known and known.band and len(indexes) == 1:
        return (known.band,), "file name"
    return sensors.name_bands([source.descriptions[index - 1] for index in indexes], sensor), "band descriptions"


def _in_frames(path: str, bands: list[Layer], frames: int | None) -> list[list[Layer]]:
    """Cut a stack into frames: the same names in the same order, once per frame."""
    names = [layer.name for layer in bands]
    named = [name for name in names if name]
    times = max((named.count(name) for name in named), default=frames or 1)
    size = len(bands) // times
    if names != names[:size] * times:
        doubled = next(name for name in named if named.count(name) > 1)
        raise InputError(f"{path}: band {doubled} comes {named.count(doubled)} times; give the names with --bands")
    if frames and frames != times:
        raise InputError(f"{path}: {frames} dates given, its bands make {times} frames; give one --date per frame")
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


def holds_bands(folder: Path) -> bool:
    """Whether a folder itself holds one scene as band files: those of HLS, Sentinel-2 or Landsat, or called by band."""
    files = [file for file in folder.iterdir() if file.suffix.lower() in RASTERS and file.is_file()]
    named = any((known := sensors.parse_name(file.name)) and known.band for file in files)
    return named or any(_says_band(file.stem) for file in files) or (folder / "GRANULE").is_dir()


def _folder_products(folder: Path, ask: Ask) -> list[Product]:
    """The one product in a folder of band files, or the one raster in it."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in RASTERS and file.is_file())
    parsed = [(file, known) for file in files if (known := sensors.parse_name(file.name)) and known.band]
    if not parsed and len(files) == 1:
        return _file_products(str(files[0]), ask)
    if ask.file_bands:
        raise InputError(f"{folder}: --bands names the bands of a file, and this is a folder; leave it out")
    return [_named_product(folder, parsed, ask) if parsed else _plain_product(folder, files, ask)]


def _named_product(folder: Path, parsed: list[tuple[Path, sensors.FileName]], ask: Ask) -> Product:
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
    bands, clouds = apart(list(layers.values()))
    problem = _baseline_problem(str(first), known, ask)
    level1 = (folder / "MTD_MSIL1C.xml").is_file() or "_MSIL1C_" in folder.name
    notes = ("Level-1C: top-of-atmosphere reflectance, not surface reflectance",) if level1 else ()
    name = folder.name.removesuffix(".SAFE") or known.product
    return Product(name, str(folder), known.date, bands, clouds, "file names", notes, problem)


def _plain_product(folder: Path, files: list[Path], ask: Ask) -> Product:
    """A product from files called by band alone ('B02.tif', 'scene_red.tif'), sensor by the folder's name."""
    known = sensors.parse_name(folder.name)
    whole = [_says_band(file.stem) or sensors.cloud_code(file.stem) is not None for file in files]
    words = [f.stem if named else re.split(r"[_.]", f.stem)[-1] for f, named in zip(files, whole, strict=True)]
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
    bands, clouds = apart([_band_file(str(file), name, known, ask) for name, file in pairs])
    problem = _baseline_problem(str(files[0]), known, ask) if known else ""
    date = known.date if known else sensors.find_date(folder.name)
    return Product(folder.name, str(folder), date, bands, clouds, "file names", (), problem)


def _band_file(path: str, name: str | None, known: sensors.FileName | None, ask: Ask) -> Layer:
    """A band file of a product (or of no known product), with its units by argument or product guide."""
    if name in sensors.CLOUDS:
        return Layer(name, path)
    if known is None or name in AS_STORED:
        return Layer(name, path, units=ask.units)
    sensor = sensors.SENSORS[known.sensor]
    offset = _safe_offset(Path(path)) if known.sensor == "S2" else sensor.offset
    return Layer(name, path, units=ask.units, table=(sensor.scale, offset or 0.0), nodata=sensor.nodata)


def _baseline_problem(path: str, known: sensors.FileName | None, ask: Ask) -> str:
    """Why a Sentinel-2 file's offset cannot be known, or an empty text."""
    if known is None or known.sensor != "S2" or ask.units or _safe_offset(Path(path)) is not None:
        return ""
    return (
        f"{path}: Sentinel-2 of unknown processing baseline, its offset may be 0 or -0.1; keep it in its .SAFE folder "
        "with MTD_MSIL2A.xml, or give --scale 0.0001 and the --offset"
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
