"""How a map is laid out, and rows as they come to whole parts of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from models.errors import InputError, RunError
from models.spec import ClassDef

Pixels = NDArray[Any]
BLOCK = 512  # pixels; side of the tiles of a map
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
        scaling: scale and offset of each band, where a value is stored * scale + offset.
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
    scaling: Sequence[tuple[float, float]] = ()

    @classmethod
    def of_fields(
        cls, geobox: GeoBox, names: Sequence[str], units: Sequence[str] = (), *, tags: Mapping[str, str]
    ) -> Layout:
        """That of fields: a float32 band for each name, with its unit where given, NaN where there is no data."""
        return cls(geobox, "float32", len(names), float("nan"), (), names, units, tags)

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


def check_memory(what: str, layouts: Iterable[Layout], *, strip: int) -> None:
    """Refuse maps of so many columns that the rows at hand would not fit into the memory of this machine.

    Args:
        what: the scene, for the message.
        layouts: of its maps.
        strip: bytes of a strip of tiles.

    Raises:
        InputError: they would not.
    """
    parts = sum(np.dtype(one.dtype).itemsize * one.bands * one.side * one.shape[2] for one in layouts)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 1 << 40
    if strip + parts > there:
        wanted, has = (strip + parts) / 2**30, there / 2**30
        raise InputError(
            f"{what}: a strip of its tiles wants {wanted:.1f} GiB of memory, this machine has {has:.1f}; cut it into "
            "parts of fewer columns"
        )


class Regroup:
    """Rows as they come to whole parts (the last of a map may be lower)."""

    def __init__(self, layout: Layout, *, what: str, within: tuple[int, int] | None = None) -> None:
        """Expect the rows of a map, or those from `within[0]`, the first of a part, to `within[1]`; `what` names it."""
        self.layout, self.what = layout, what
        self.done, self.end = within or (0, layout.shape[1])
        self.block = np.empty((layout.bands, min(layout.side, self.end - self.done), layout.shape[2]), layout.dtype)

    def add(self, first: int, strip: Pixels) -> Iterator[tuple[int, Pixels]]:
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
