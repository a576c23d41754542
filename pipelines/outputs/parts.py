"""Rows of a map as parts: small files in a folder, each whole or not there."""

from __future__ import annotations

import functools
import re
import shutil
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError  # rasterio.shutil.copy raises these; rasterio.errors does not name them
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from models.errors import RunError
from models.files import replacing
from pipelines.outputs.layout import Layout, Pixels


def write_part(folder: Path, row: int, block: Pixels, layout: Layout, path: Path) -> None:
    """Keep a block of whole rows that starts at `row`, of the map `path`; a reader finds it whole, or not at all.

    Raises:
        RunError: the disk does not take it.
    """
    bands, rows, width = block.shape
    profile = {
        **{"driver": "GTiff", "height": rows, "width": width, "count": bands, "dtype": layout.dtype},
        **{"tiled": True, "blockxsize": layout.side, "blockysize": layout.side, "interleave": "pixel"},
        **{"compress": compression(), "zstd_level": 1, "zlevel": 1, "bigtiff": "IF_SAFER"},
        "photometric": "MINISBLACK",  # else GDAL takes three bands for a photo and the fourth for its transparency
    }
    checksum = zlib.crc32(np.ascontiguousarray(block).data)
    part = folder / f"{row:09d}-{checksum:08x}.part.tif"
    with errors_named(path), replacing(part) as draft, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # the joined map has a place
        with rasterio.open(draft, "w", **profile) as dataset:
            dataset.write(block)
        with open_raster(draft) as dataset:  # GDAL may lose blocks on a full disk and close silently
            if zlib.crc32(dataset.read()) != checksum:
                raise OSError(f"rows {row} to {row + rows - 1} were read back changed")


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
            with rasterio.Env(), open_raster(path) as dataset:
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
    there, side = parts(folder), layout.side
    return runs((row, min(row + side, within[1])) for row in range(*within, side) if row not in there)


def runs(bands: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Bands of rows (first, end), in their order, with those joined that follow each other."""
    found = list[tuple[int, int]]()
    for first, end in bands:
        if found and found[-1][1] == first:
            found[-1] = found[-1][0], end
        else:
            found.append((first, end))
    return found


def read_parts(folder: Path) -> Iterator[tuple[int, Pixels]]:
    """The rows of a map whose parts are all there: first row, and rows (bands, n, width)."""
    for row, (path, _) in sorted(parts(folder).items()):
        with open_raster(path) as dataset:
            yield row, dataset.read()


def open_raster(path: Path) -> Any:
    """Open a raster of ours, which need not lie anywhere on the ground."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(path)


@contextmanager
def errors_named(path: Path) -> Iterator[None]:
    """Turn errors of the disk and of GDAL into one line about the map."""
    try:
        yield
    except (OSError, RasterioError, CPLE_BaseError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        advice = f"see that {path.parent} can be written and has space, and run again"
        raise RunError(f"{path}: the map could not be written ({reason}); {advice}") from error


@functools.cache
def compression() -> str:
    """ZSTD where this GDAL was built with it, else DEFLATE."""
    probe = {"driver": "GTiff", "width": 1, "height": 1, "count": 1, "dtype": "uint8", "compress": "ZSTD"}
    try:
        with rasterio.MemoryFile() as memory, memory.open(**probe, transform=rasterio.Affine.scale(2)):
            return "ZSTD"
    except RasterioError:
        return "DEFLATE"
