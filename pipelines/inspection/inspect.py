"""What a file or folder holds, and whether a fine-tuned model can read it: the `inspect` command."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.bundle import read_bundle
from models.errors import EarthtuneError, InputError
from models.spec import REFLECTANCE, Spec

if TYPE_CHECKING:
    import numpy as np
    from odc.geo.geobox import GeoBox

    from models.bundle import Bundle
    from pipelines.inspection.survey import Survey
    from pipelines.scenes.bands import Layer, Product

_SIDE = 512
_MOST_CODES = 64
_FOLDER_SHOWN = 12


@dataclass(frozen=True)
class BandInfo:
    """One band as found; ranges come from at most 512x512 pixels, in raw values; None where no pixel has data."""

    index: int
    name: str | None
    file: str
    description: str | None
    dtype: str
    scale: float
    offset: float
    nodata: float | None
    valid: float
    unit: str
    minimum: float | None = None
    low: float | None = None
    median: float | None = None
    high: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class Need:
    """One thing that a model needs of its input, and whether it is there."""

    need: str
    ok: bool
    reason: str


@dataclass(frozen=True)
class Inspection:
    """What a path holds.

    Attributes:
        path: the file, folder or URL; the frames of a model of several dates are joined by commas.
        driver: format of the (first) file.
        height: rows of the finest band.
        width: columns of the finest band.
        crs: coordinate system, None where there is none.
        resolution: pixel size (x, y) in units of the coordinate system.
        gcps: ground control points in place of a grid.
        frames: dated frames.
        dates: day of each frame, None where nothing tells.
        named_by: what named the bands.
        bands: the bands of all frames.
        codes: value -> share of the valid pixels, for what looks like class labels; None for other rasters.
        contents: kind of file -> number, for a folder of many rasters.
        weather: what a weather file holds; None for satellite scenes.
        notes: what a person should know.
        needs: what a model needs; empty unless asked for.
    """

    path: str
    driver: str = ""
    height: int = 0
    width: int = 0
    crs: str | None = None
    resolution: tuple[float, float] | None = None
    gcps: int = 0
    frames: int = 0
    dates: tuple[str | None, ...] = ()
    named_by: str = ""
    bands: tuple[BandInfo, ...] = ()
    codes: dict[int, float] | None = None
    contents: dict[str, int] | None = None
    weather: Survey | None = None
    notes: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every need is met (true where none was asked for)."""
        return all(need.ok for need in self.needs)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        plain = {**dataclasses.asdict(self), "ok": self.ok}
        return plain if self.weather is None else plain | {"weather": self.weather.to_json()}


def inspect(
    path: str | Path,
    *,
    for_run: Path | None = None,
    bands: list[str] | None = None,
    dates: list[str] | None = None,
    scale: float | None = None,
    offset: float | None = None,
    group: str | None = None,
) -> Inspection:
    """Tell what a raster, a folder of band files, a STAC item or a weather file holds, and whether a model can read it.

    Args:
        path: raster, folder of band files, STAC item or weather file; a folder of many scenes; the frames of a model of
            several dates are joined by commas.
        for_run: a run folder: say whether its model can read this, and why not.
        bands: names of the bands in the order of the file, where the file does not say.
        dates: day of each frame (YYYY-MM-DD), where the files do not say.
        scale: reflectance = raw * scale + offset, where the files do not say.
        offset: see scale.
        group: group of a weather file (HDF5, Zarr) whose variables lie in several.

    Raises:
        InputError: the path is missing or no raster, or the run folder holds no model.
    """
    from pipelines.weather.formats import detect

    bundle = None if for_run is None else read_bundle(for_run)
    if detect.is_weather(str(path)):
        return _weather(str(path), bundle.spec if bundle else None, group)
    given = {"file_bands": bands, "dates": dates, "scale": scale, "offset": offset}
    contents = _contents(Path(path))
    if contents is None:
        return _raster(str(path), bundle, given)
    if bundle is None:
        return Inspection(str(path), contents=contents, notes=("a folder of many rasters: inspect one",))
    return Inspection(str(path), contents=contents, needs=_scene_needs(str(path), bundle, given))


def _raster(path: str, bundle: Bundle | None, given: Mapping[str, Any]) -> Inspection:
    """Look at one scene, put beside a model where there is one; `given` are arguments of `find_products`."""
    from pipelines.grids.areas import pixel_notes
    from pipelines.scenes.products import Assumed, find_products

    gcps = _control_points(Path(path))
    if gcps:
        note = f"{gcps} ground control points in place of a grid; run gdalwarp on the file first"
        needs = () if bundle is None else (Need("grid", False, note),)
        return Inspection(path, gcps=gcps, notes=(note,), needs=needs)
    if bundle is None:
        return _describe(path, find_products([path], **given))
    spec, assumed = bundle.spec, Assumed.like(bundle.data)
    sources = path.split(",") if spec.imagery.times > 1 else [path]
    try:
        products = find_products(sources, frames=max(spec.imagery.times // len(sources), 1), assumed=assumed, **given)
    except InputError:  # not so many frames in it: told below as a need that is not met
        products = find_products(sources, assumed=assumed, **given)
    found = _describe(path, products)
    wants = _needs(found, products, spec)
    if bundle.data.get("mask_clouds"):
        clear = all(product.clouds for product in products)
        words = "a cloud layer lies with it" if clear else "no Fmask, SCL or QA_PIXEL with it (--mask_clouds false)"
        wants.append(Need("clouds", clear, words))
    notes = (*found.notes, *pixel_notes(_finest(products), spec.imagery.pixel))
    return dataclasses.replace(found, notes=notes, needs=tuple(wants))


def _scene_needs(folder: str, bundle: Bundle, given: Mapping[str, Any]) -> tuple[Need, ...]:
    """Whether a model can read each of the scenes that `score` would find in a folder."""
    from pipelines.scenes.find import find_scenes

    needs = []
    for source in find_scenes([folder]):
        name = str(Path(source).relative_to(folder))
        try:
            unmet = [need for need in _raster(source, bundle, given).needs if not need.ok]
        except EarthtuneError as error:
            needs.append(Need(name, False, str(error)))
            continue
        needs.append(Need(name, not unmet, "; ".join(f"{n.need}: {n.reason}" for n in unmet) or "can be read"))
    return tuple(needs)


def format_text(found: Inspection) -> str:
    """The inspection as text for a terminal."""
    lines = [found.path]
    if found.weather is not None:
        lines += [f"  {line}" for line in found.weather.lines()]
    if found.contents is not None:
        lines += [f"  {count:6d}  {kind}" for kind, count in list(found.contents.items())[:_FOLDER_SHOWN]]
    if found.bands:
        lines += _grid_lines(found)
        lines += [_band_line(band) for band in found.bands]
    if found.codes is not None:
        lines.append("  looks like class labels: " + ", ".join(f"{c} ({s:.1%})" for c, s in found.codes.items()))
    lines += [f"  note: {note}" for note in found.notes]
    lines += [f"  {'yes' if need.ok else 'NO '}  {need.need}: {need.reason}" for need in found.needs]
    if found.needs and found.contents is not None:
        count, met = len(found.needs), sum(need.ok for need in found.needs)
        lines.append(f"  the model can read {met} of {count} scene{'s' * (count != 1)}")
    elif found.needs:
        lines.append(f"  the model {'can' if found.ok else 'cannot'} read this")
    return "\n".join(lines)


# --- describing ---------------------------------------------------------------------------------------------------


def _grid_lines(found: Inspection) -> list[str]:
    """Format, size, place, dates and where the names come from."""
    size = "unknown" if found.resolution is None else f"{found.resolution[0]:g} x {found.resolution[1]:g}"
    place = f"{found.crs}, pixel {size}" if found.crs else "no coordinate system"
    days = ", ".join(day or "no date" for day in found.dates)
    return [
        f"  {found.driver}, {found.height} rows x {found.width} columns, {place}",
        f"  {found.frames} frame{'s' * (found.frames != 1)}: {days}",
        f"  {len(found.bands)} band{'s' * (len(found.bands) != 1)}, named by {found.named_by}",
    ]


def _band_line(band: BandInfo) -> str:
    """One band on one line."""
    name = band.name or "(not named)"
    head = f"  {band.index:3d} {name:<18} {band.dtype:<8} valid {band.valid:6.1%}"
    if band.median is None:
        return f"{head}  no data in the pixels looked at"
    values = (band.minimum, band.low, band.median, band.high, band.maximum)
    marks = " ".join(f"{value:g}" for value in values if value is not None)
    packed = "" if (band.scale, band.offset) == (1.0, 0.0) else f", scale {band.scale:g} offset {band.offset:g}"
    nodata = "" if band.nodata is None else f", nodata {band.nodata:g}"
    return f"{head}  min 2% median 98% max: {marks}  ({band.unit}{packed}{nodata})"


def _weather(path: str, spec: Spec | None, group: str | None) -> Inspection:
    """A weather file, which no model of scenes reads."""
    from pipelines.inspection.survey import survey

    found = survey(Path(path), group=group)
    reason = "this is a weather file; where it holds satellite bands, pass one by its GDAL name, netcdf:FILE:VARIABLE"
    return Inspection(path, weather=found, needs=() if spec is None else (Need("scene", False, reason),))


def _contents(path: Path) -> dict[str, int] | None:
    """Kinds of raster in a folder of many scenes; None for anything else."""
    from pipelines.scenes import sensors
    from pipelines.weather.formats import detect

    if not path.is_dir():
        return None
    suffixes = (".tif", ".tiff", ".jp2", *detect.SUFFIXES)
    files = [file for file in path.rglob("*") if file.suffix.lower() in suffixes and file.is_file()]
    named = [file for file in files if (known := sensors.parse_name(file.name)) and known.band]
    plain = [file for file in files if sensors.band_name(file.stem) or sensors.band_code(file.stem)]
    rasters = [file for file in files if file.suffix.lower() not in detect.SUFFIXES]
    if named or plain or (len(rasters) == 1 and len(files) == 1):
        return None
    if not files:
        raise InputError(f"{path}: no raster or weather file in this folder; pass a file or a folder of band files")
    kinds: dict[str, int] = {}
    for file in files:
        weather = file.suffix.lower() in detect.SUFFIXES
        tail = file.stem.rpartition("_")[2] if "_" in file.stem and not weather else ""
        folder = "" if file.parent == path else f"{file.parent.relative_to(path).as_posix()}/"
        kind = f"{folder}*{'_' + tail if tail and not tail.isdigit() else ''}{file.suffix}"
        kinds[kind] = kinds.get(kind, 0) + 1
    return dict(sorted(kinds.items(), key=lambda pair: -pair[1]))


def _control_points(path: Path) -> int:
    """Ground control points of a file that has no grid."""
    from pipelines.grids import align

    if not path.is_file() or path.suffix.lower() in (".json", ".geojson"):
        return 0
    source = align.dataset(str(path))
    return len(source.gcps[0]) if source.crs is None else 0


def _describe(path: str, products: list[Product]) -> Inspection:
    """Look at every band of every frame."""
    from pipelines.scenes.bands import open_layer

    layers = [layer for product in products for layer in product.layers]
    if not layers:
        raise InputError(f"{path}: no band in it")
    finest = _finest(products)
    bands = tuple(_band(number, layer) for number, layer in enumerate(layers, 1))
    located = finest.crs is not None
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
        crs=_crs_name(finest.crs) if located else None,
        resolution=(abs(finest.affine.a), abs(finest.affine.e)) if located else None,
        frames=len(products),
        dates=tuple(product.date.isoformat() if product.date else None for product in products),
        named_by=products[0].named_by if named else "nothing",
        bands=bands,
        codes=codes,
        notes=tuple(dict.fromkeys(notes)),
    )


def _finest(products: list[Product]) -> GeoBox:
    """The grid of the band with the smallest pixels."""
    from pipelines.grids import align
    from pipelines.scenes.bands import open_layer

    grids = [align.grid(open_layer(layer)) for product in products for layer in product.layers]
    return min(grids, key=lambda geobox: abs(geobox.affine.determinant))


def _crs_name(crs: Any) -> str:
    """EPSG code, or the system's own name."""
    return f"EPSG:{crs.epsg}" if crs.epsg else str(crs.proj.name)


def _look(layer: Layer) -> np.ndarray:
    """At most 512x512 pixels of a band spread over the whole, with NaN where it has no data: float64 (n,)."""
    import numpy as np
    from rasterio.enums import Resampling
    from rasterio.errors import RasterioIOError

    from models.errors import RunError
    from pipelines.scenes.bands import open_layer

    source = open_layer(layer)
    shape = tuple(min(size, _SIDE) for size in source.shape)
    try:
        raw = source.read(layer.index, out_shape=shape, masked=True, resampling=Resampling.nearest)
    except RasterioIOError as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise RunError(f"{layer.path}: band {layer.index} cannot be read ({reason}); fetch the file again") from error
    hidden = np.ma.getmaskarray(raw)
    hidden = hidden if layer.masked else np.zeros(shape, bool)
    values: np.ndarray = np.where(hidden, np.nan, raw.data.astype(np.float64))
    values[~np.isfinite(values)] = np.nan
    if layer.nodata is not None and source.nodatavals[layer.index - 1] is None:
        values[values == layer.nodata] = np.nan
    return values.ravel()


def _band(number: int, layer: Layer) -> BandInfo:
    """Describe one band."""
    import numpy as np

    from pipelines.scenes.bands import open_layer

    source, at = open_layer(layer), layer.index - 1
    values = _look(layer)
    good = values[np.isfinite(values)]
    units = layer.units or (float(source.scales[at]), float(source.offsets[at]))
    units = (layer.table or units) if units == (1.0, 0.0) else units
    nodata = layer.nodata if source.nodatavals[at] is None else source.nodatavals[at]
    marks = [float(mark) for mark in np.percentile(good, (0, 2, 50, 98, 100))] if good.size else [None] * 5
    unit = _unit(source.dtypes[at], marks[2], marks[3], units)
    return BandInfo(
        number,
        layer.name,
        Path(layer.path).name,
        source.descriptions[at],
        source.dtypes[at],
        units[0],
        units[1],
        nodata,
        good.size / values.size,
        unit,
        *marks,
    )


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
    import numpy as np

    values = _look(layer)
    good = values[np.isfinite(values)]
    found, counts = np.unique(good, return_counts=True)
    if not good.size or len(found) > _MOST_CODES or np.any(found % 1):
        return None
    return {int(code): float(count / good.size) for code, count in zip(found, counts, strict=True)}


# --- against a model ----------------------------------------------------------------------------------------------


def _needs(found: Inspection, products: list[Product], spec: Spec) -> list[Need]:
    """Everything the model needs, met or not, with the reason."""
    needs = [_need_bands(products, spec)]
    needs.append(_need_frames(found, spec))
    needs.append(_need_size(found, spec))
    if needs[0].ok:
        needs.append(_need_unit(products[0], spec))
    if spec.imagery.uses_time:
        missing = sum(day is None for day in found.dates)
        needs.append(
            Need("dates", not missing, f"{missing} frames without date" if missing else ", ".join(_text(found)))
        )
    if spec.imagery.uses_location:
        needs.append(Need("location", found.crs is not None, found.crs or "no coordinate system"))
    return needs


def _text(found: Inspection) -> list[str]:
    """The dates as text."""
    return [day or "no date" for day in found.dates]


def _need_bands(products: list[Product], spec: Spec) -> Need:
    """Every band of the model, in every frame."""
    wanted = ", ".join(spec.imagery.channels)
    for product in products:
        names = _names(product, spec)
        absent = [band for band in spec.imagery.channels if band not in names]
        if product.problem:
            return Need("bands", False, product.problem)
        if absent:
            there = ", ".join(name for name in names if name) or "none that is named: give their names with --bands"
            return Need("bands", False, f"{', '.join(absent)} missing; it has {there}")
    inside = [name for name in _names(products[0], spec) if name in spec.imagery.channels]
    order = "in this order" if tuple(inside) == spec.imagery.channels else "in another order, which is put right"
    return Need("bands", True, f"{wanted}, {order}")


def _names(product: Product, spec: Spec) -> tuple[str | None, ...]:
    """Names of a product's bands as the model would ask for them."""
    from pipelines.scenes import sensors

    return sensors.resolve_nir([layer.name for layer in product.layers], spec.imagery.channels)


def _need_frames(found: Inspection, spec: Spec) -> Need:
    """As many dates as the model was trained with."""
    same = found.frames == spec.imagery.times
    advice = "" if same else f", {spec.imagery.times} wanted: join that many files by commas"
    return Need("frames", same, f"{found.frames}{advice}")


def _need_size(found: Inspection, spec: Spec) -> Need:
    """A scene smaller than a tile is padded, which costs accuracy at its edges but works."""
    least = min(found.height, found.width)
    text = f"{found.height} x {found.width} pixels, tile {spec.imagery.tile}"
    return Need("size", least > 0, text + (" (padded)" if least < spec.imagery.tile else ""))


def _need_unit(product: Product, spec: Spec) -> Need:
    """Whether values, as the scene would be read, lie where the model's do.

    The brightest pixels of each band (98 %) are put beside the model's mean: reflectance of 0..1 read as x10000 is ten
    thousand times too small, while clouds, snow and water change a scene by a factor of ten or so. Counts of 8 bits
    would pass for dark reflectance, so they are told by their type.
    """
    import numpy as np

    from pipelines.scenes.bands import open_layer
    from pipelines.scenes.scene import settled

    ratios = []
    for band, mean in zip(spec.imagery.channels, spec.imagery.mean, strict=True):
        layer = product.layers[_names(product, spec).index(band)]
        scale, offset = settled(layer).units or (1e-4, 0.0)
        if open_layer(layer).dtypes[layer.index - 1] == "uint8" and scale == 1e-4:
            return Need(
                "unit", False, f"{band} holds 8-bit counts; wanted {spec.imagery.unit}: give --scale and --offset"
            )
        values = (_look(layer) * scale + offset) * 1e4
        good = values[np.isfinite(values)]
        if good.size and mean > 0:
            ratios.append(float(np.percentile(good, 98)) / mean)
    if not ratios:
        return Need("unit", False, "no pixel with data to tell the unit from")
    typical = float(np.median(ratios))
    ok = 1 / 30 < typical < 30
    hint = "" if ok else f"; wanted {spec.imagery.unit}: give --scale and --offset, reflectance = raw * scale + offset"
    return Need("unit", ok, f"bright pixels are {typical:.3g} times the model's mean{hint}")
