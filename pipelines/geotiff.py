"""Finished rows -> Cloud Optimized GeoTIFF. The map appears whole, or not at all."""

from __future__ import annotations

import functools
import os
import tempfile
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio._err import CPLE_BaseError  # rasterio.shutil.copy raises these; rasterio.errors does not name them
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from models.errors import InputError, RunError
from models.spec import ClassDef

Array = NDArray[Any]
BLOCK = 512  # pixels; side of the tiles of a map
CACHE = 64 << 20  # bytes; GDAL's default, 5 % of the machine's memory, would fill up as the map grows
Colour = tuple[int, int, int, int]  # red, green, blue, opacity; 0..255
TRANSPARENT: Colour = (0, 0, 0, 0)


def write_rows(
    path: Path,
    rows: Iterable[tuple[int, Array]],
    *,
    geobox: GeoBox,
    dtype: str,
    bands: int = 1,
    nodata: float | None = None,
    classes: Sequence[ClassDef] = (),
    descriptions: Sequence[str] = (),
    units: Sequence[str] = (),
    tags: Mapping[str, str] | None = None,
    overview_resampling: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write rows, as they come, to a Cloud Optimized GeoTIFF with overviews.

    The rows go to a draft in a hidden folder beside `path`; the draft is copied to a COG, which is read back, compared
    with the rows and renamed: a reader never sees half a map. After an error nothing is left behind, and a map that was
    there before is still there. Names of classes, and colours of a uint16 map, are in `<path>.aux.xml`, where GDAL and
    QGIS look for them. Holds 512 rows.

    Args:
        path: the file to write; its folder is made when missing.
        rows: first row, and rows (bands, n, width) of `dtype`; top to bottom, each row once.
        geobox: grid of the map.
        dtype: numpy's name of the type of the values.
        bands: number of bands.
        nodata: value of the pixels that have none.
        classes: classes of a map of codes: one band of uint8 or uint16.
        descriptions: name of each band.
        units: unit of each band.
        tags: metadata of the file.
        overview_resampling: a method of GDAL; by default "mode" with classes, "average" for floats, else "nearest".
        overwrite: replace a map that is there.

    Returns:
        `path`.

    Raises:
        InputError: the file is there and is not to be replaced, or the classes do not fit the map.
        RunError: the rows are not those of the grid, or the disk does not take the map.
    """
    _check_target(path, overwrite=overwrite)
    resampling = overview_resampling or _resampling(dtype, classes)
    if classes:
        _check_classes(path, classes, dtype=dtype, bands=bands, nodata=nodata, resampling=resampling)
    with rasterio.Env(), _hidden_folder(path) as folder:
        draft, cog = folder / f"{path.name}.draft", folder / path.name
        with _draft(path, draft, _profile(geobox, dtype=dtype, bands=bands, nodata=nodata)) as dataset:
            colours = _colours(classes, nodata) if dtype == "uint8" else {}
            _describe(dataset, descriptions=descriptions, units=units, tags=tags or {}, colours=colours)
            written = [_write(path, dataset, *block) for block in _blocks(path, rows, (bands, *geobox.shape), dtype)]
        with rasterio.Env(GDAL_CACHEMAX=CACHE), _errors_named(path):
            rasterio.shutil.copy(draft, cog, driver="COG", **_cog_options(resampling, bands=bands))
            _compare(cog, written)
            if classes:
                _write_categories(_sidecar(cog), classes, _colours(classes, nodata) if dtype == "uint16" else {})
            _publish(cog, path)
    return path


class _Written(NamedTuple):
    """Rows that were given to GDAL: the first row, how many, and the checksum (CRC-32) of their values."""

    row: int
    rows: int
    checksum: int


def _check_target(path: Path, *, overwrite: bool) -> None:
    """Refuse to replace a folder, or a file without leave."""
    if path.is_dir():
        raise InputError(f"{path}: wanted the name of a file, it is a folder; add a file name such as map.tif")
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists already; give another name, or --overwrite to replace it")


def _resampling(dtype: str, classes: Sequence[ClassDef]) -> str:
    """Method for overviews: one that invents no class, and no integer."""
    if classes:
        return "mode"
    return "average" if np.issubdtype(np.dtype(dtype), np.floating) else "nearest"


def _check_classes(
    path: Path, classes: Sequence[ClassDef], *, dtype: str, bands: int, nodata: float | None, resampling: str
) -> None:
    """Refuse classes that the file could not show truly."""
    if dtype not in ("uint8", "uint16") or bands != 1:
        raise InputError(f"{path}: a map of classes wants one band of uint8 or uint16, {bands} of {dtype} asked for")
    if resampling not in ("mode", "nearest"):
        raise InputError(f"{path}: overviews by {resampling!r} would invent classes; use 'mode' or 'nearest'")
    for entry in classes:
        if entry.code > np.iinfo(dtype).max:
            raise InputError(f"{path}: class code {entry.code} ({entry.name}) does not fit {dtype}; use uint16")
        if entry.code == nodata:
            raise InputError(f"{path}: {entry.code} is nodata and the class {entry.name}; choose another nodata value")


def _blocks(
    path: Path, rows: Iterable[tuple[int, Array]], shape: tuple[int, int, int], dtype: str
) -> Iterator[tuple[int, Array]]:
    """Regroup rows to whole rows of tiles (the last may be lower); each block is overwritten by the next."""
    bands, height, width = shape
    side = _side(bands)
    block = np.empty((bands, min(side, height), width), dtype)
    done = 0
    for first, strip in rows:
        if first != done or strip.dtype != block.dtype or strip.shape[:1] + strip.shape[2:] != (bands, width):
            wanted = f"row {done} as {dtype} of {bands} bands, {width} wide"
            raise RunError(
                f"{path}: wanted {wanted}; row {first} came as {strip.dtype} {strip.shape}; nothing is written"
            )
        if done + strip.shape[1] > height:
            raise RunError(f"{path}: wanted {height} rows, {done + strip.shape[1]} came; nothing is written")
        while strip.shape[1]:
            at = done % side
            part, strip = np.split(strip, [side - at], axis=1)
            end = at + part.shape[1]
            block[:, at:end] = part
            done += part.shape[1]
            if end == side or done == height:
                yield done - end, block[:, :end]
    if done != height:
        raise RunError(f"{path}: wanted {height} rows, only {done} came; nothing is written")


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """Turn errors of the disk and of GDAL into one line about the map."""
    try:
        yield
    except (OSError, RasterioError, CPLE_BaseError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        advice = f"see that {path.parent} can be written and has space, and run again"
        raise RunError(f"{path}: the map could not be written ({reason}); {advice}") from error


@contextmanager
def _hidden_folder(path: Path) -> Iterator[Path]:
    """Make a folder on the disk of `path` for files in the making; it and they are gone afterwards."""
    with _errors_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.")
    with folder as name:
        yield Path(name)


@contextmanager
def _draft(path: Path, draft: Path, profile: Mapping[str, Any]) -> Iterator[Any]:
    """Open the draft for writing; only what GDAL does to it is blamed on the disk, not what makes the rows."""
    with _errors_named(path), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a grid without a place is allowed
        dataset = rasterio.open(draft, "w", **profile)
    try:
        yield dataset
    finally:
        with _errors_named(path):
            dataset.close()


def _profile(geobox: GeoBox, *, dtype: str, bands: int, nodata: float | None) -> dict[str, Any]:
    """How the draft is laid out: the COG's tiles, lightly compressed."""
    return {
        "driver": "GTiff",
        "height": geobox.height,
        "width": geobox.width,
        "count": bands,
        "dtype": dtype,
        "nodata": nodata,
        "crs": None if geobox.crs is None else geobox.crs.to_wkt(),
        "transform": geobox.transform,
        "tiled": True,
        "blockxsize": _side(bands),
        "blockysize": _side(bands),
        "interleave": "pixel",
        "photometric": "MINISBLACK",  # else GDAL takes three bands for a photo and the fourth for its transparency
        "compress": _compression(),
        "zstd_level": 1,
        "zlevel": 1,
        "bigtiff": "IF_SAFER",
    }


def _side(bands: int) -> int:
    """Side of the file's tiles: small where many bands, such as token features, would make them huge."""
    return BLOCK if bands <= 16 else 128


def _cog_options(resampling: str, *, bands: int) -> dict[str, Any]:
    """Creation options of GDAL's COG driver (https://gdal.org/en/stable/drivers/raster/cog.html)."""
    return {
        "compress": _compression(),
        "predictor": "YES",  # 2 for integers, 3 for floats
        "blocksize": _side(bands),
        "overview_resampling": resampling,
        "bigtiff": "IF_SAFER",
        "num_threads": "ALL_CPUS",
    }


@functools.cache
def _compression() -> str:
    """ZSTD where this GDAL was built with it, else DEFLATE."""
    probe = {"driver": "GTiff", "width": 1, "height": 1, "count": 1, "dtype": "uint8", "compress": "ZSTD"}
    try:
        with rasterio.MemoryFile() as memory, memory.open(**probe, transform=rasterio.Affine.scale(2)):
            return "ZSTD"
    except RasterioError:
        return "DEFLATE"


def _describe(
    dataset: Any,
    *,
    descriptions: Sequence[str],
    units: Sequence[str],
    tags: Mapping[str, str],
    colours: Mapping[int, Colour],
) -> None:
    """Name the bands, tag the file and give it its colours, if any; before the first pixel, which fixes the layout."""
    if descriptions:
        dataset.descriptions = tuple(descriptions)
    if units:
        dataset.units = tuple(units)
    if colours:
        dataset.write_colormap(1, colours)
    dataset.update_tags(**tags)


def _colours(classes: Sequence[ClassDef], nodata: float | None) -> dict[int, Colour]:
    """Colour of each class's code, and of nodata; empty without classes."""
    if not classes:
        return {}
    colours = {} if nodata is None else {int(nodata): TRANSPARENT}
    return colours | {entry.code: (*entry.rgb, 255) for entry in classes}


def _write(path: Path, dataset: Any, row: int, block: Array) -> _Written:
    """Write a block of whole rows that starts at `row`."""
    count = block.shape[1]
    with _errors_named(path):
        dataset.write(block, window=((row, row + count), (0, dataset.width)))
    return _Written(row, count, zlib.crc32(np.ascontiguousarray(block).data))


def _compare(cog: Path, written: Sequence[_Written]) -> None:
    """Refuse a file that does not hold the rows given: GDAL may lose blocks on a full disk and close silently.

    Raises:
        OSError: rows differ.
    """
    with rasterio.open(cog) as dataset:
        for row, count, checksum in written:
            block = dataset.read(window=((row, row + count), (0, dataset.width)))
            if zlib.crc32(block) != checksum:
                raise OSError(f"rows {row} to {row + count - 1} were read back changed")


def _sidecar(path: Path) -> Path:
    """Where GDAL keeps what a GeoTIFF cannot hold."""
    return path.with_name(f"{path.name}.aux.xml")


def _write_categories(sidecar: Path, classes: Sequence[ClassDef], colours: Mapping[int, Colour]) -> None:
    """Add names of classes, and colours if any, to a GDAL sidecar; entry i is about code i.

    Colours of uint16 are kept here since the GeoTIFF table has 65536 entries, 393 kB in the file and in each overview.
    """
    root = ElementTree.parse(sidecar).getroot() if sidecar.exists() else ElementTree.Element("PAMDataset")
    band = root.find("PAMRasterBand[@band='1']")
    band = ElementTree.SubElement(root, "PAMRasterBand", band="1") if band is None else band
    codes = range(max(entry.code for entry in classes) + 1)
    if colours:
        ElementTree.SubElement(band, "ColorInterp").text = "Palette"
        table = ElementTree.SubElement(band, "ColorTable")
        for code in codes:
            rgba = zip(("c1", "c2", "c3", "c4"), map(str, colours.get(code, TRANSPARENT)), strict=True)
            ElementTree.SubElement(table, "Entry", dict(rgba))
    names = {entry.code: entry.name for entry in classes}
    categories = ElementTree.SubElement(band, "CategoryNames")
    for code in codes:
        ElementTree.SubElement(categories, "Category").text = names.get(code, "")
    ElementTree.ElementTree(root).write(sidecar, encoding="utf-8")


def _publish(cog: Path, path: Path) -> None:
    """Give the finished file and its sidecar their names; the sidecar of an older map does not outlive it."""
    if _sidecar(cog).exists():
        os.replace(_sidecar(cog), _sidecar(path))
    else:
        _sidecar(path).unlink(missing_ok=True)
    os.replace(cog, path)
