"""Finished rows -> Cloud Optimized GeoTIFF. The map appears whole, or not at all.

Rows are kept as parts, small files in a folder, until all of them are there; so work that was cut off goes on where it
stopped, and rows may come from several processes. Then the parts are joined to a COG, which is read back, compared and
renamed.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
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


@dataclass(frozen=True)
class Layout:
    """How a map is laid out.

    Attributes:
        geobox: grid of the map.
        dtype: numpy's name of the type of the values.
        bands: number of bands.
        nodata: value of the pixels that have none.
        classes: classes of a map of codes: one band of uint8 or uint16.
        descriptions: name of each band.
        units: unit of each band.
        tags: metadata of the file.
        overview_resampling: a method of GDAL; by default "mode" with classes, "average" for floats, else "nearest".
    """

    geobox: GeoBox
    dtype: str
    bands: int = 1
    nodata: float | None = None
    classes: Sequence[ClassDef] = ()
    descriptions: Sequence[str] = ()
    units: Sequence[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    overview_resampling: str | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, rows, columns."""
        height, width = self.geobox.shape
        return self.bands, int(height), int(width)

    @property
    def side(self) -> int:
        """Side of the file's tiles, and rows of a part: small where many bands would make them huge."""
        return BLOCK if self.bands <= 16 else 128

    @property
    def resampling(self) -> str:
        """Method for overviews: one that invents no class, and no integer."""
        if self.overview_resampling or self.classes:
            return self.overview_resampling or "mode"
        return "average" if np.issubdtype(np.dtype(self.dtype), np.floating) else "nearest"

    @property
    def colours(self) -> dict[int, Colour]:
        """Colour of each class's code, and of nodata; empty without classes."""
        if not self.classes:
            return {}
        colours = {} if self.nodata is None else {int(self.nodata): TRANSPARENT}
        return colours | {entry.code: (*entry.rgb, 255) for entry in self.classes}


def write_rows(path: Path, rows: Iterable[tuple[int, Array]], layout: Layout, *, overwrite: bool = False) -> int:
    """Write rows, as they come, to a Cloud Optimized GeoTIFF with overviews.

    After an error nothing is left behind, and a map that was there before is still there. Names of classes, and colours
    of a uint16 map, are in `<path>.aux.xml`, where GDAL and QGIS look for them. Holds 512 rows.

    Args:
        path: the file to write; its folder is made when missing.
        rows: first row, and rows (bands, n, width) of the layout's type; top to bottom, each row once.
        layout: grid, type and what the file says of itself.
        overwrite: replace a map that is there.

    Returns:
        Pixels of the first band that hold data.

    Raises:
        InputError: the file is there and is not to be replaced, or the classes do not fit the map.
        RunError: the rows are not those of the grid, or the disk does not take the map.
    """
    check_target(path, layout, overwrite=overwrite)
    with _errors_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.")
    with folder as name, rasterio.Env():
        regroup = Regroup(layout, what=str(path))
        for first, strip in rows:
            for row, block in regroup.add(first, strip):
                write_part(Path(name), row, block, layout, path)
        regroup.finish()
        return join(Path(name), path, layout)


def check_target(path: Path, layout: Layout, *, overwrite: bool) -> None:
    """Refuse to replace a folder, or a file without leave; refuse classes that the file could not show truly.

    Raises:
        InputError: what is wrong, and what to do.
    """
    if path.is_dir():
        raise InputError(f"{path}: wanted the name of a file, it is a folder; add a file name such as map.tif")
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists already; give another name, or --overwrite to replace it")
    if not layout.classes:
        return
    dtype, resampling = layout.dtype, layout.resampling
    if dtype not in ("uint8", "uint16") or layout.bands != 1:
        raise InputError(
            f"{path}: a map of classes wants one band of uint8 or uint16, {layout.bands} of {dtype} asked for"
        )
    if resampling not in ("mode", "nearest"):
        raise InputError(f"{path}: overviews by {resampling!r} would invent classes; use 'mode' or 'nearest'")
    for entry in layout.classes:
        if entry.code > np.iinfo(dtype).max:
            raise InputError(f"{path}: class code {entry.code} ({entry.name}) does not fit {dtype}; use uint16")
        if entry.code == layout.nodata:
            raise InputError(f"{path}: {entry.code} is nodata and the class {entry.name}; choose another nodata value")


class Regroup:
    """Rows as they come to whole parts (the last of a map may be lower)."""

    def __init__(self, layout: Layout, *, what: str, within: tuple[int, int] | None = None) -> None:
        """Expect the rows of a map, or those from `within[0]`, the first of a part, to `within[1]`; `what` names it."""
        self.layout, self.what = layout, what
        self.done, self.end = within or (0, layout.shape[1])
        self.block = np.empty((layout.bands, min(layout.side, self.end - self.done), layout.shape[2]), layout.dtype)

    def add(self, first: int, strip: Array) -> Iterator[tuple[int, Array]]:
        """Take rows (bands, n, width) from `first`; give the parts that are full, each overwritten by the next.

        Raises:
            RunError: the rows are not the next of the layout.
        """
        bands, _, width = self.block.shape
        if first != self.done or strip.dtype != self.block.dtype or strip.shape[:1] + strip.shape[2:] != (bands, width):
            wanted = f"row {self.done} as {self.layout.dtype} of {bands} bands, {width} wide"
            raise RunError(
                f"{self.what}: wanted {wanted}; row {first} came as {strip.dtype} {strip.shape}; nothing is written"
            )
        if self.done + strip.shape[1] > self.end:
            raise RunError(
                f"{self.what}: wanted {self.end} rows, {self.done + strip.shape[1]} came; nothing is written"
            )
        while strip.shape[1]:
            at = self.done % self.layout.side
            part, strip = np.split(strip, [self.layout.side - at], axis=1)
            end = at + part.shape[1]
            self.block[:, at:end] = part
            self.done += part.shape[1]
            if end == self.layout.side or self.done == self.end:
                yield self.done - end, self.block[:, :end]

    def finish(self) -> None:
        """Refuse rows that are not there.

        Raises:
            RunError: rows are missing.
        """
        if self.done != self.end:
            raise RunError(f"{self.what}: wanted {self.end} rows, only {self.done} came; nothing is written")


# --- parts --------------------------------------------------------------------------------------------------------


def write_part(folder: Path, row: int, block: Array, layout: Layout, path: Path) -> None:
    """Keep a block of whole rows that starts at `row`, of the map `path`; a reader finds it whole, or not at all.

    Raises:
        RunError: the disk does not take it.
    """
    bands, rows, width = block.shape
    profile = {
        "driver": "GTiff",
        "height": rows,
        "width": width,
        "count": bands,
        "dtype": layout.dtype,
        "tiled": True,
        "blockxsize": layout.side,
        "blockysize": layout.side,
        "interleave": "pixel",
        "photometric": "MINISBLACK",  # else GDAL takes three bands for a photo and the fourth for its transparency
        "compress": _compression(),
        "zstd_level": 1,
        "zlevel": 1,
        "bigtiff": "IF_SAFER",
    }
    checksum = zlib.crc32(np.ascontiguousarray(block).data)
    with _errors_named(path), tempfile.TemporaryDirectory(dir=folder, prefix=".part.") as work:
        draft = Path(work) / "part.tif"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # the joined map has a place
            with rasterio.open(draft, "w", **profile) as dataset:
                dataset.write(block)
            with rasterio.open(draft) as dataset:  # GDAL may lose blocks on a full disk and close silently
                if zlib.crc32(dataset.read()) != checksum:
                    raise OSError(f"rows {row} to {row + rows - 1} were read back changed")
        os.replace(draft, folder / f"{row:09d}-{checksum:08x}.part.tif")


def parts(folder: Path) -> dict[int, tuple[Path, int]]:
    """The parts in a folder by their first row: the file, and the checksum (CRC-32) of its values."""
    found = {}
    for path in folder.glob("*.part.tif"):
        match = re.fullmatch(r"(\d{9})-([0-9a-f]{8})\.part\.tif", path.name)
        if match:
            found[int(match[1])] = path, int(match[2], 16)
    return found


def drop_damaged(folder: Path, layout: Layout) -> None:
    """Delete parts that do not hold what they were written with, as after a crash of the machine, or are no part."""
    for row, (path, checksum) in parts(folder).items():
        try:
            with warnings.catch_warnings(), rasterio.Env():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                with rasterio.open(path) as dataset:
                    block = dataset.read()
            rows = min(layout.side, layout.shape[1] - row)
            shape, fits = (layout.bands, rows, layout.shape[2]), row % layout.side == 0
            sound = fits and block.shape == shape and zlib.crc32(block) == checksum
        except (OSError, RasterioError, CPLE_BaseError, SystemError):
            sound = False
        if not sound and path.is_dir():
            shutil.rmtree(path)
        elif not sound:
            path.unlink(missing_ok=True)


def missing(folder: Path, layout: Layout, within: tuple[int, int]) -> list[tuple[int, int]]:
    """Runs of rows (first, end) within some rows whose parts are not there yet."""
    there, gaps = parts(folder), list[tuple[int, int]]()
    for row in range(*within, layout.side):
        if row in there:
            continue
        end = min(row + layout.side, within[1])
        if gaps and gaps[-1][1] == row:
            gaps[-1] = gaps[-1][0], end
        else:
            gaps.append((row, end))
    return gaps


def read_parts(folder: Path) -> Iterator[tuple[int, Array]]:
    """The rows of a map whose parts are all there: first row, and rows (bands, n, width)."""
    for row, (path, _) in sorted(parts(folder).items()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as dataset:
                yield row, dataset.read()


def join(folder: Path, path: Path, layout: Layout) -> int:
    """Join the parts in a folder, on the disk of `path`, to the map `path`; replaces a map that is there.

    Returns:
        Pixels of the first band that hold data.

    Raises:
        RunError: the disk does not take the map.
    """
    with _errors_named(path), tempfile.TemporaryDirectory(dir=folder) as work, rasterio.Env(GDAL_CACHEMAX=CACHE):
        draft, cog = Path(work) / "parts.vrt", Path(work) / path.name
        _mosaic(folder, draft, layout)
        rasterio.shutil.copy(draft, cog, driver="COG", **_cog_options(layout))
        filled = _compare(cog, parts(folder), layout)
        if layout.classes:
            _write_categories(_sidecar(cog), layout)
        _publish(cog, path)
    return filled


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """Turn errors of the disk and of GDAL into one line about the map."""
    try:
        yield
    except (OSError, RasterioError, CPLE_BaseError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        advice = f"see that {path.parent} can be written and has space, and run again"
        raise RunError(f"{path}: the map could not be written ({reason}); {advice}") from error


def _mosaic(folder: Path, draft: Path, layout: Layout) -> None:
    """Write a VRT of the parts, with all that the map says of itself (https://gdal.org/en/stable/drivers/raster/vrt.html)."""
    bands, height, width = layout.shape
    geobox = layout.geobox
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a grid without a place is allowed
        dataset = rasterio.open(
            draft,
            "w",
            driver="VRT",
            height=height,
            width=width,
            count=bands,
            dtype=layout.dtype,
            nodata=layout.nodata,
            crs=None if geobox.crs is None else geobox.crs.to_wkt(),
            transform=geobox.transform,
        )
    with dataset:
        if layout.descriptions:
            dataset.descriptions = tuple(layout.descriptions)
        if layout.units:
            dataset.units = tuple(layout.units)
        if layout.classes and layout.dtype == "uint8":
            dataset.write_colormap(1, layout.colours)
        dataset.update_tags(**layout.tags)
        there = sorted(parts(folder).items())
        for band in dataset.indexes:
            sources = {f"source_{row}": _source(part, draft, band, row, layout) for row, (part, _) in there}
            dataset.update_tags(band, ns="new_vrt_sources", **sources)


def _source(part: Path, draft: Path, band: int, row: int, layout: Layout) -> str:
    """A band of a part as a source of a VRT."""
    _, height, width = layout.shape
    rows = min(layout.side, height - row)
    source = ElementTree.Element("SimpleSource")
    ElementTree.SubElement(source, "SourceFilename", relativeToVRT="1").text = os.path.relpath(part, draft.parent)
    ElementTree.SubElement(source, "SourceBand").text = str(band)
    for name, top in (("SrcRect", 0), ("DstRect", row)):
        ElementTree.SubElement(source, name, xOff="0", yOff=str(top), xSize=str(width), ySize=str(rows))
    return ElementTree.tostring(source, encoding="unicode")


def _cog_options(layout: Layout) -> dict[str, Any]:
    """Creation options of GDAL's COG driver (https://gdal.org/en/stable/drivers/raster/cog.html)."""
    return {
        "compress": _compression(),
        "predictor": "YES",  # 2 for integers, 3 for floats
        "blocksize": layout.side,
        "overview_resampling": layout.resampling,
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


def _compare(cog: Path, written: Mapping[int, tuple[Path, int]], layout: Layout) -> int:
    """Refuse a file that does not hold the rows given.

    Returns:
        Pixels of the first band that hold data.

    Raises:
        OSError: rows differ.
    """
    filled = 0
    with rasterio.open(cog) as dataset:
        for row in range(0, layout.shape[1], layout.side):
            count = min(layout.side, dataset.height - row)
            block = dataset.read(window=((row, row + count), (0, dataset.width)))
            if row not in written or zlib.crc32(block) != written[row][1]:
                raise OSError(f"rows {row} to {row + count - 1} were read back changed")
            filled += int(np.count_nonzero(has_data(block[0], layout.nodata)))
    return filled


def has_data(values: Array, nodata: float | None) -> NDArray[np.bool_]:
    """Where values are not nodata."""
    if nodata is None:
        return np.ones(values.shape, bool)
    answer: NDArray[np.bool_] = ~np.isnan(values) if np.isnan(nodata) else values != nodata
    return answer


def _sidecar(path: Path) -> Path:
    """Where GDAL keeps what a GeoTIFF cannot hold."""
    return path.with_name(f"{path.name}.aux.xml")


def _write_categories(sidecar: Path, layout: Layout) -> None:
    """Add names of classes and a raster attribute table to a GDAL sidecar, and the colours of uint16.

    Entry i of names and colours is about code i. Colours of uint16 are kept here since the GeoTIFF table has 65536
    entries, 393 kB in the file and in each overview.
    """
    root = ElementTree.parse(sidecar).getroot() if sidecar.exists() else ElementTree.Element("PAMDataset")
    band = root.find("PAMRasterBand[@band='1']")
    band = ElementTree.SubElement(root, "PAMRasterBand", band="1") if band is None else band
    codes, colours = range(max(entry.code for entry in layout.classes) + 1), layout.colours
    if layout.dtype == "uint16":
        ElementTree.SubElement(band, "ColorInterp").text = "Palette"
        table = ElementTree.SubElement(band, "ColorTable")
        for code in codes:
            rgba = zip(("c1", "c2", "c3", "c4"), map(str, colours.get(code, TRANSPARENT)), strict=True)
            ElementTree.SubElement(table, "Entry", dict(rgba))
    names = {entry.code: entry.name for entry in layout.classes}
    categories = ElementTree.SubElement(band, "CategoryNames")
    for code in codes:
        ElementTree.SubElement(categories, "Category").text = names.get(code, "")
    _attribute_table(band, layout.classes)
    ElementTree.ElementTree(root).write(sidecar, encoding="utf-8")


def _attribute_table(band: ElementTree.Element, classes: Sequence[ClassDef]) -> None:
    """Add GDAL's raster attribute table: code, name and colour of each class, by their usages (GDALRATFieldUsage)."""
    table = ElementTree.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    fields = (("Value", 0, 5), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8))
    for index, (name, kind, usage) in enumerate(fields):
        column = ElementTree.SubElement(table, "FieldDefn", index=str(index))
        for tag, value in (("Name", name), ("Type", kind), ("Usage", usage)):
            ElementTree.SubElement(column, tag).text = str(value)
    for index, entry in enumerate(classes):
        line = ElementTree.SubElement(table, "Row", index=str(index))
        for value in (entry.code, entry.name, *entry.rgb):
            ElementTree.SubElement(line, "F").text = str(value)


def _publish(cog: Path, path: Path) -> None:
    """Give the finished file and its sidecar their names; the sidecar of an older map does not outlive it."""
    if _sidecar(cog).exists():
        os.replace(_sidecar(cog), _sidecar(path))
    else:
        _sidecar(path).unlink(missing_ok=True)
    os.replace(cog, path)
