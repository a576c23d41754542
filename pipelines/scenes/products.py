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
from pipelines.records.ledger import FOLDER
from pipelines.scenes import sensors
from pipelines.scenes.bands import AS_STORED, RASTERS, Ask, Layer, Product, apart, wavelength
from pipelines.scenes.cubes import is_cube, is_misread
from pipelines.scenes.items import stac_product
from pipelines.scenes.variables import cube_products, joined_by_date, variable_products


@dataclass(frozen=True)
class Assumed:
    """What is taken for granted of files that do not tell: that they are like those of a training.

    Attributes:
        bands: names of the bands in the order of the file; empty where nothing is assumed.
        units: scale and offset to reflectance; None where nothing is assumed.
        nodata: raw values without data.
    """

    bands: tuple[str, ...] = ()
    units: tuple[float, float] | None = None
    nodata: tuple[float, ...] = ()

    @classmethod
    def like(cls, data: Mapping[str, Any]) -> Assumed:
        """What a bundle's `data` says of its training files."""
        scale, nodata = data.get("scale"), data.get("nodata")
        units = None if scale is None else (scale, data.get("offset") or 0.0)
        return cls(tuple(data.get("bands") or ()), units, () if nodata is None else (nodata,))

    def of(self, product: Product) -> Product:
        """The product with the gaps filled; a note says when names were assumed."""
        layers = [
            dataclasses.replace(layer, assumed=self.units, nodata=layer.nodata + self.nodata)
            for layer in product.layers
        ]
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
    for name, number in (("scale", scale), ("offset", offset)):
        if (number is not None and not abs(number) <= 1e6) or (number == 0 and name == "scale"):
            raise InputError(f"{name} {number:g}: wanted what turns raw values into reflectance, such as 0.0001")
    if scale is None and offset is not None:
        raise InputError(f"offset {offset} given without scale: reflectance = raw * scale + offset wants both")
    units = None if scale is None else (scale, offset or 0.0)
    times = len(days) // len(sources) if days else frames if frames > 1 else None
    ask = Ask(tuple(file_bands) if file_bands else None, units, times)
    products = [product for source in sources for product in _products(str(source), ask)]
    products = joined_by_date(products) if len(sources) > 1 else products
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
    if ask.file_bands and any("=" in name for name in ask.file_bands):
        return [_listed_product(Path(source), ask.file_bands, ask)]
    if is_cube(source):
        return cube_products(source, ask)
    if urllib.parse.urlsplit(source).path.lower().endswith((".json", ".geojson")):
        return [stac_product(source, ask)]
    if "://" not in source and Path(source).is_dir():
        item = Path(source) / f"{Path(source).name}.json"  # as `earthtune fetch` writes it
        if item.is_file():
            return [stac_product(str(item), ask)]
        return _folder_products(Path(source), ask)
    return _file_products(source, ask)


def _file_products(path: str, ask: Ask) -> list[Product]:
    """The frames of one raster file."""
    source = align.dataset(path)
    if source.count == 0:
        return variable_products(path, source.subdatasets, ask)
    if is_misread(source, path):
        return cube_products(path, ask)
    align.grid(source)
    name = Path(urllib.parse.urlsplit(path).path).name
    known = sensors.parse_name(name)
    indexes = _data_bands(source, ask)
    names, named_by = _file_names(source, indexes, ask, known)
    clear = [index for index in source.indexes if source.colorinterp[index - 1] == ColorInterp.alpha]
    alpha = _alpha_of(source, indexes)
    # Only a band file of a product has the product's units; a stack made from products may hold anything.
    product = known if known and known.band and source.count == 1 else None
    taken = bool({*clear} & {*indexes})
    layers = [
        dataclasses.replace(
            _band_file(path, band, product, ask),
            index=i,
            masked=not taken,
            alpha=alpha,
            wavelength=wavelength(source, i),
        )
        for band, i in zip(names, indexes, strict=True)
    ]
    problem = _unit_problem(path, product, ask) if product else ""
    date, stem, beside = _file_date(source, name), Path(name).stem, _beside(path)
    return [
        Product(stem, path, date, bands, clouds or beside, named_by, _alpha_notes(clear, indexes), problem)
        for bands, clouds in map(apart, _in_frames(path, layers, ask.frames))
    ]


def _data_bands(source: Any, ask: Ask) -> list[int]:
    """Indexes of bands with data. GDAL takes the fourth of four 8-bit bands for alpha; a name shows that it is not."""
    every = list(source.indexes)
    plain = [index for index in every if source.colorinterp[index - 1] != ColorInterp.alpha]
    named = [index for index in every if index in plain or _says_band(source.descriptions[index - 1])]
    given = len(ask.file_bands) * (ask.frames or 1) if ask.file_bands else None
    return every if given == len(every) else named


def _alpha_notes(clear: Sequence[int], indexes: Sequence[int]) -> tuple[str, ...]:
    """What to know of the bands that the file calls transparency; GDAL does so by itself with four bands of bytes."""
    hides = "pixels where it is 0 are left out; --bands with a name for it, too, takes it as data"
    return tuple(
        f"band {index} is marked as transparency: {'taken as data' if index in indexes else hides}" for index in clear
    )


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
            dated = f" and {times} dates" if ask.frames else ""
            raise InputError(
                f"{source.name}: has {len(indexes)} bands, {len(given)} names{dated} were given; name each band once "
                "(--bands) and give one date per frame (--dates)"
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
        for word in ("Fmask", "fmask", "SCL", "scl", "QA_PIXEL", "qa_pixel", "CLM", "clm"):
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
    every = (file for file in folder.rglob("*") if file.suffix.lower() in RASTERS and file.is_file())
    # Parts of what is being made are no bands.
    files = sorted(file for file in every if FOLDER not in file.relative_to(folder).parts)
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
    _, known = parsed[0]
    bands, clouds = apart(list(layers.values()))
    doubts = (_unit_problem(str(file), k, ask) for file, k in parsed if k.band not in sensors.CLOUDS)
    problem = next((doubt for doubt in doubts if doubt), "")
    level1 = (folder / "MTD_MSIL1C.xml").is_file() or "_MSIL1C_" in folder.name or known.sensor in sensors.LEVEL1
    notes = (sensors.TOP_OF_ATMOSPHERE,) if level1 else ()
    name = folder.name.removesuffix(".SAFE") or known.product
    return Product(name, str(folder), known.date, bands, clouds, "file names", notes, problem)


def _listed_product(folder: Path, names: Sequence[str], ask: Ask) -> Product:
    """A product from files of any name, told as NAME=FILE or NAME=FILE:BAND; files lie in the folder."""
    if not folder.is_dir():
        raise InputError(f"{folder}: --bands NAME=FILE names files in a folder; give the folder that holds them")
    layers, problem = [], ""
    twice = next((n for n in names if [m.partition("=")[0] for m in names].count(n.partition("=")[0]) > 1), None)
    if twice:
        raise InputError(f"{folder}: --bands {twice}: named twice; name each band once, all as NAME=FILE")
    for text in names:
        name, mark, pattern = text.partition("=")
        head, _, tail = pattern.rpartition(":")
        file, number = (head, tail) if head and tail.isdecimal() else (pattern, "")
        if not mark or (number and int(number) < 1):
            raise InputError(
                f"{folder}: --bands {text}: wanted NAME=FILE or NAME=FILE:BAND, bands from 1, for every band"
            )
        outside = not file or Path(file).is_absolute() or ".." in Path(file).parts
        found = [] if outside else sorted(folder.glob(file))
        if not name.strip() or len(found) != 1:
            came = "a file outside" if outside else f"{len(found)} files"
            raise InputError(f"{folder}: --bands {text}: wanted NAME=FILE, one file in the folder; came {came}")
        path, index = str(found[0]), int(number or 1)
        source, known = align.dataset(path), sensors.parse_name(found[0].name)
        known = known if known and known.band else None
        problem = problem or _unit_problem(path, known, ask)
        layer = _band_file(path, sensors.tidy(name), known, ask)
        layers.append(dataclasses.replace(layer, index=index, alpha=_alpha_of(source, [index])))
    bands, clouds = apart(layers)
    first = Path(layers[0].path)
    date = sensors.find_date(folder.name) or _file_date(align.dataset(str(first)), first.name)
    return Product(folder.name, str(folder), date, bands, clouds, "--bands", problem=problem)


def _alpha_of(source: Any, indexes: Sequence[int]) -> int | None:
    """The band of transparency that is none of some bands."""
    clear = [index for index in source.indexes if source.colorinterp[index - 1] == ColorInterp.alpha]
    return next((index for index in clear if index not in indexes), None)


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
    if known and known.sensor in sensors.LEVEL1 and any("sr_" in file.stem.lower() for file in files):
        known = dataclasses.replace(known, sensor=known.sensor.replace("L1", "C1"))
    bands, clouds = apart([_band_file(str(file), name, known, ask) for name, file in pairs])
    problem = _unit_problem(str(files[0]), known, ask) if known else ""
    date = known.date if known else sensors.find_date(folder.name)
    return Product(folder.name, str(folder), date, bands, clouds, "file names", (), problem)


def _band_file(path: str, name: str | None, known: sensors.FileName | None, ask: Ask) -> Layer:
    """A band file of a product (or of no known product), with its units by argument or product guide."""
    if name in sensors.CLOUDS:
        return Layer(name, path)
    if known is None or name in AS_STORED:
        return Layer(name, path, units=ask.units)
    sensor = sensors.SENSORS[known.sensor]
    table = (sensor.scale, sensor.offset) if sensor.scale else _own_units(Path(path), known.sensor, name)
    if known.sensor == "S2":
        table = _own_units(Path(path), known.sensor, name) or table
    return Layer(name, path, units=ask.units, table=table, nodata=(sensor.nodata,))


def _unit_problem(path: str, known: sensors.FileName | None, ask: Ask) -> str:
    """Why a file's scale or offset cannot be known, or an empty text."""
    if known is None or ask.units or known.sensor not in ("S2", *sensors.LEVEL1):
        return ""
    if _own_units(Path(path), known.sensor, known.band) is not None:
        return ""
    if known.sensor == "S2":
        return (
            f"{path}: Sentinel-2 of unknown processing baseline, its offset may be 0 or -0.1; keep it in its .SAFE "
            "folder with MTD_MSIL2A.xml, or give --scale 0.0001 and the --offset"
        )
    return (
        f"{path}: Landsat Level-1 without its MTL file, which holds scale, offset and the sun's elevation; keep it "
        "beside the bands, or give --scale and --offset to reflectance"
    )


def _own_units(path: Path, sensor: str, band: str | None) -> tuple[float, float] | None:
    """Scale and offset to reflectance by a product's own metadata; None where it tells none."""
    if sensor in sensors.LEVEL1:
        return _landsat_units(path, sensors.SENSORS[sensor].bands, band)
    for folder in [path, *path.parents][:7]:
        metadata = _text(folder / "MTD_MSIL2A.xml") or _text(folder / "MTD_MSIL1C.xml")
        quantity = re.search(r"QUANTIFICATION_VALUE[^>]*>\s*(\d+)", metadata)
        parts = float(quantity[1]) if quantity and float(quantity[1]) else 10000.0
        added = dict(re.findall(r"<(?:BOA|RADIO)_ADD_OFFSET(?:[^>]*band_id=\"(\d+)\")?[^>]*>\s*(-?\d+)", metadata))
        # Bands are numbered from 0 in the order of their names.
        number = str([*sensors.SENTINEL2.values(), band].index(band))
        baseline = re.search(r"<PROCESSING_BASELINE>\s*([\d.]+)", metadata)
        if added:
            return 1 / parts, float(added.get(number, next(iter(added.values())))) / parts
        if baseline or sensors.product_baseline(folder.name):
            told = baseline[1] if baseline else sensors.product_baseline(folder.name)
            return 1 / parts, sensors.sentinel2_offset(told) * 10000 / parts
    return None


def _landsat_units(path: Path, bands: Mapping[str, str], band: str | None) -> tuple[float, float] | None:
    """Scale and offset of a Level-1 band by the MTL beside it; of any band where None is asked for."""
    known = sensors.parse_name(path.name) or sensors.parse_name(path.parent.name)
    metadata = _text(path.parent / f"{known.product}_MTL.txt") if known else ""
    codes = [int(code[1:]) for code, name in bands.items() if name == band or band is None]
    number = codes[0] if codes else 0

    def told(key: str) -> float | None:
        found = re.search(rf"\b{key}\s*=\s*([-+.\dEe]+)", metadata)
        return float(found[1]) if found else None

    scale, offset = told(f"REFLECTANCE_MULT_BAND_{number}"), told(f"REFLECTANCE_ADD_BAND_{number}")
    elevation = told("SUN_ELEVATION")
    if scale is None or offset is None or elevation is None or not 0 < elevation <= 90:
        return None
    return sensors.level1_units(scale, offset, elevation)


def _text(file: Path) -> str:
    """Text of a product's metadata, empty where there is none. Read as text: no XML entity is expanded."""
    return file.read_text(encoding="utf-8", errors="replace")[:1_000_000] if file.is_file() else ""
