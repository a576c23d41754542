"""What a sample is stratified by: the maps' classes, another raster's codes, or polygons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling

from models.errors import InputError
from models.spec import ClassDef
from pipelines.grids import align
from pipelines.grids.areas import BLOCK, open_classes, read
from pipelines.grids.windows import Window, cells
from pipelines.outputs.categories import read_categories, sidecar
from pipelines.samples.labelling.polygon_files import check_polygons
from pipelines.samples.labelling.polygons import Polygons, is_vector, polygon_codes

Index = NDArray[np.int64]
Rule = Callable[[GeoBox, Window, Index], Index]
MOST = 1000  # strata


@dataclass(frozen=True)
class Strata:
    """Strata by name, and the rule that tells a pixel's.

    Attributes:
        names: name of each.
        rule: of a map's grid, a window and the index of each pixel's class there (rows, columns), the index of its
            stratum (rows, columns); -1 where it belongs to none.
    """

    names: tuple[str, ...]
    rule: Rule


def strata_of(said: str, column: str | None, classes: Sequence[ClassDef]) -> Strata:
    """The strata that a person asks for.

    Args:
        said: `classes`, or a raster of whole numbers, or a file of polygons.
        column: the column of the polygons' names.
        classes: the maps' classes.

    Raises:
        InputError: no such file, or what holds no strata.
    """
    if said == "classes":
        return Strata(tuple(entry.name for entry in classes), lambda geobox, window, found: found)
    path = Path(said)
    if not path.is_file():
        raise InputError(f"--strata {said}: no such file; wanted classes, a raster of codes, or polygons")
    return _by_polygons(path, column) if is_vector(path) else _by_raster(path)


def everything() -> Strata:
    """All pixels as one stratum."""
    return Strata(("all",), lambda geobox, window, found: np.zeros_like(found))


def onto(path: Path, geobox: GeoBox, window: Window, codes: Sequence[int]) -> Index:
    """Index among sorted codes of what a raster holds at the middle of each pixel (rows, columns), -1 without data."""
    source = align.dataset(str(path))
    values = align.read_onto(source, geobox, window, indexes=[1], resampling=Resampling.nearest)[0]
    return _position(values, codes)


def _by_raster(path: Path) -> Strata:
    """Strata by the codes of a raster, such as an earlier map."""
    source = open_classes(path)
    codes: set[int] = set()
    for window in cells(source.height, source.width, BLOCK):
        codes.update(np.unique(read(source, window)).tolist())
    codes.discard(source.nodata)
    held = sorted(codes)
    _few(path, held)
    names = {entry.code: entry.name for entry in read_categories(path)} if sidecar(path).is_file() else {}
    told = tuple(names.get(code) or str(code) for code in held)
    return Strata(told, lambda geobox, window, found: onto(path, geobox, window, held))


def _by_polygons(path: Path, column: str | None) -> Strata:
    """Strata by a column of polygons; where these overlap, the later in the file counts."""
    if column is None:
        raise InputError(f"{path}: polygons want the column of their names; give --strata_column")
    values = _column(path, column)
    try:
        numbers = sorted({float(value) for value in values})
        names = [f"{number:.15g}" for number in numbers]
    except ValueError:
        names = sorted({str(value) for value in values})
        numbers = [float(number) for number in range(len(names))]
    _few(path, names)
    how = Polygons(column, codes={name: number for number, name in enumerate(names)})

    def rule(geobox: GeoBox, window: Window, found: Index) -> Index:
        return _position(polygon_codes(path, geobox, window, how), numbers)

    return Strata(tuple(names), rule)


def _column(path: Path, column: str) -> list[Any]:
    """What a column of polygons holds, without those that hold nothing there.

    Raises:
        InputError: no such file, or no such column.
    """
    import pyogrio

    check_polygons(path)
    table = pyogrio.read_dataframe(path, read_geometry=False)
    if column not in table:
        raise InputError(f"{path}: no column {column}; it has {', '.join(map(str, table.columns))}")
    if table[column].isna().any():
        raise InputError(f"{path}: {int(table[column].isna().sum())} polygons have no {column}; give each one")
    return list(table[column].tolist())


def _position(values: NDArray[Any], known: Sequence[float]) -> Index:
    """Index of values (rows, columns) among sorted known ones, -1 for others."""
    found = np.searchsorted(known, np.nan_to_num(values, nan=-1)).clip(max=len(known) - 1)
    return np.where(np.asarray(known)[found] == values, found, -1)


def _few(path: Path, names: Sequence[Any]) -> None:
    """Refuse a file of no strata, or of more than a sample could serve."""
    if not 1 <= len(names) <= MOST:
        raise InputError(f"{path}: holds {len(names)} strata; wanted 1 to {MOST}")
