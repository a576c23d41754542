"""Labels as files have them: a place, a class and a group each, from a CSV or a file of shapes."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from models.errors import InputError
from models.types import Say
from pipelines.samples.labelling.polygons import read_shapes

_CLASS = ("class", "label", "code")
_GROUP = ("group", "place", "site")
_PLACES = (("lon", "lat"), ("longitude", "latitude"), ("x", "y"))


@dataclass(frozen=True)
class Table:
    """Labels of a file.

    Attributes:
        shapes: points and polygons in the scene's coordinate system, a GeoSeries.
        classes: of each, as text.
        groups: of each, as text; empty where the file names none.
    """

    shapes: Any
    classes: Sequence[str]
    groups: Sequence[str]


def read_table(
    path: Path, geobox: GeoBox, *, column: str | None, layer: str | None, group: str | None, say: Say
) -> Table:
    """The labels of a file that have a class.

    A CSV has lon and lat in degrees, or x and y in the scene's coordinate system, and a column of classes; GeoJSON,
    GeoPackage, shapefile and FlatGeobuf hold points or polygons.

    Args:
        path: the file.
        geobox: the scene's grid.
        column: of the classes; the one that is called as such columns are where None.
        layer: of a file that has several.
        group: column of the groups; one that is called so where None and there is one.
        say: is told how many have no class.

    Raises:
        InputError: no such file or column, or a place that is none.
    """
    table = _read_csv(path, geobox) if path.suffix.lower() == ".csv" else read_shapes(path, geobox, layer=layer)
    names = [str(name) for name in table.columns if name != "geometry"]
    classed = _column(path, names, column, _CLASS, "--column")
    grouped = _column(path, names, group, _GROUP, "--group") if group or {*_GROUP} & {n.lower() for n in names} else ""
    said = np.array([_has_text(value) for value in table[classed]], bool)
    if not said.all():
        say(f"{path}: {int((~said).sum())} labels have no {classed}: left out")
    table = table[said]
    texts = [[str(value).strip() for value in table[name]] if name else [] for name in (classed, grouped)]
    return Table(table.geometry, *texts)


def _has_text(value: Any) -> bool:
    """Whether a cell of a table holds something."""
    return not (value is None or value != value or not str(value).strip())


def _read_csv(path: Path, geobox: GeoBox) -> Any:
    """A CSV as a GeoDataFrame in the scene's coordinate system; a row without numbers for its place is refused."""
    import geopandas

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            text = file.read()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: holds text that is not UTF-8; write it again as UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror}); check the path") from error
    first = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
    try:
        rows: list[dict[str, Any]] = [{str(k).strip(): v for k, v in row.items() if k is not None} for row in reader]
    except csv.Error as error:
        raise InputError(f"{path}: no table ({error}); write it again as CSV") from error
    columns = [str(name).strip().lower() for name in reader.fieldnames or ()]
    if twice := next((name for name in columns if columns.count(name) > 1), None):
        raise InputError(f"{path}: has two columns {twice}; name one otherwise")
    heads = {str(name).strip().lower(): str(name).strip() for name in reader.fieldnames or ()}
    pair = next((pair for pair in _PLACES if {*pair} <= {*heads}), None)
    if pair is None or not rows:
        wanted = "wanted columns lon and lat (degrees), or x and y (in the scene's system), and rows"
        raise InputError(f"{path}: {wanted}; it has {', '.join(heads) or 'none'} and {len(rows)} rows")
    places = np.array(
        [[_number(path, line, row.get(heads[axis])) for axis in pair] for line, row in enumerate(rows, 2)]
    )
    frame = geopandas.GeoDataFrame(rows, geometry=geopandas.points_from_xy(*places.T))
    if pair == ("x", "y"):
        return frame.set_crs(str(geobox.crs))
    if (abs(places) > (360, 90)).any():
        raise InputError(f"{path}: {pair[0]} and {pair[1]} are to be degrees; call them x and y if they are not")
    return frame.set_crs("EPSG:4326").to_crs(str(geobox.crs))


def _number(path: Path, line: int, text: str | None) -> float:
    """A coordinate."""
    try:
        value = float(str(text))
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise InputError(f"{path}: line {line}: {text!r} is no coordinate; correct it, or take the line out")
    return value


def _column(path: Path, names: Sequence[str], asked: str | None, usual: Sequence[str], option: str) -> str:
    """The column that was asked for, or the one that is called as such columns are."""
    found = asked or next((name for word in usual for name in names if name.lower() == word), None)
    if found not in names:
        wanted = f"no column {asked}" if asked else f"wanted a column called {' or '.join(usual)}"
        raise InputError(f"{path}: {wanted}; it has {', '.join(names) or 'none'} ({option} names one)")
    return str(found)
