"""Finished rows -> Cloud Optimized GeoTIFF. The map appears whole, or not at all.

Rows are kept as parts, small files in a folder, until all of them are there; so work that was cut off goes on where it
stopped, and rows may come from several processes. Then the parts are joined to a COG, which is read back, compared and
renamed.
"""

from __future__ import annotations

import os
import tempfile
import warnings
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.errors import NotGeoreferencedWarning

from models.types import Mask
from pipelines.outputs.categories import sidecar, write_categories
from pipelines.outputs.layout import Layout, Pixels, Regroup, check_target
from pipelines.outputs.parts import compression, errors_named, parts, write_part

LEVEL = 1  # of the compression
CACHE = 64 << 20  # bytes; GDAL's default, 5 % of the machine's memory, would fill up as the map grows


def write_rows(path: Path, rows: Iterable[tuple[int, Pixels]], layout: Layout, *, overwrite: bool = False) -> int:
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
    with errors_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.")
    with folder as name, rasterio.Env():
        regroup = Regroup(layout, what=str(path))
        for first, strip in rows:
            for row, block in regroup.add(first, strip):
                write_part(Path(name), row, block, layout, path)
        regroup.finish()
        return join(Path(name), path, layout)


def join(folder: Path, path: Path, layout: Layout) -> int:
    """Join the parts in a folder, on the disk of `path`, to the map `path`; replaces a map that is there.

    Returns:
        Pixels of the first band that hold data.

    Raises:
        RunError: the disk does not take the map.
    """
    with errors_named(path), tempfile.TemporaryDirectory(dir=folder) as work, rasterio.Env(GDAL_CACHEMAX=CACHE):
        draft, cog = Path(work) / "parts.vrt", Path(work) / path.name
        _mosaic(folder, draft, layout)
        options = {"compress": compression(), "blocksize": layout.side, "overview_resampling": layout.resampling}
        # A predictor is 2 for integers, 3 for floats. Higher levels take four times as long; floats are as large.
        options |= {"predictor": "YES", "level": LEVEL, "bigtiff": "IF_SAFER", "num_threads": "ALL_CPUS"}
        rasterio.shutil.copy(draft, cog, driver="COG", **options)  # gdal.org/en/stable/drivers/raster/cog.html
        filled = _compare(cog, parts(folder), layout)
        if layout.classes:
            write_categories(sidecar(cog), layout)
        if sidecar(cog).exists():
            os.replace(sidecar(cog), sidecar(path))
        else:  # that of an older map does not outlive it
            sidecar(path).unlink(missing_ok=True)
        os.replace(cog, path)
    return filled


def _mosaic(folder: Path, draft: Path, layout: Layout) -> None:
    """Write a VRT of the parts, with all that the map says of itself (https://gdal.org/en/stable/drivers/raster/vrt.html)."""
    bands, height, width = layout.shape
    crs = None if layout.geobox.crs is None else layout.geobox.crs.to_wkt()
    kind = {"dtype": layout.dtype, "nodata": layout.nodata, "crs": crs, "transform": layout.geobox.transform}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a grid without a place is allowed
        dataset = rasterio.open(draft, "w", driver="VRT", height=height, width=width, count=bands, **kind)
    with dataset:
        if layout.descriptions:
            dataset.descriptions = tuple(layout.descriptions)
        if layout.units:
            dataset.units = tuple(layout.units)
        if any(pair != (1.0, 0.0) for pair in layout.scaling):
            dataset.scales, dataset.offsets = zip(*layout.scaling, strict=True)
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


def _compare(cog: Path, written: Mapping[int, tuple[Path, int]], layout: Layout) -> int:
    """Refuse a file that does not hold the rows given.

    Returns:
        Pixels of the first band that hold data.
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


def has_data(values: Pixels, nodata: float | None) -> Mask:
    """Where values are not nodata."""
    if nodata is None:
        return np.ones(values.shape, bool)
    return np.asarray(~np.isnan(values) if np.isnan(nodata) else values != nodata)
