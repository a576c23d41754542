"""A sample on disk: points for who labels them, and beside them, out of sight, how they were drawn.

A GeoPackage holds the layer `points` (point, label, note), its style and form for QGIS, the table `sample_key` (what is
known of each point) and the table `sample_design` (what is known of the whole, as JSON).
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models import files
from models.errors import InputError
from models.spec import ClassDef
from models.types import convert
from pipelines.outputs.forms import points_form
from pipelines.outputs.geopackage import write_layer, write_styles
from pipelines.records.ledger import digest
from pipelines.samples.labelling.polygon_files import check_polygons, check_tables
from pipelines.surveys.population import side

LAYER, KEY, DESIGN = "points", "sample_key", "sample_design"
_KNOWN = (
    "point",
    "map",
    "row",
    "column",
    "longitude",
    "latitude",
    "stratum",
    "inclusion_probability",
    "hectares",
    "code",
)
_NOT_OURS = "is no probability sample"
_BACK = "take the copy before that"
_ADVICE = "areas are estimated from what earthtune sample wrote, labelled"


@dataclass(frozen=True)
class Point:
    """A pixel that was drawn.

    Attributes:
        point: its number, from 1.
        map: name of the map that it is of.
        row: its row in the map.
        column: its column.
        longitude: of its middle, in degrees.
        latitude: of its middle, in degrees.
        stratum: number of its stratum.
        inclusion_probability: chance that it was drawn.
        hectares: its area.
        code: the class that the map gives it.
        chances: the map's probability of each class; empty where there are none.
    """

    point: int
    map: str
    row: int
    column: int
    longitude: float
    latitude: float
    stratum: int
    inclusion_probability: float
    hectares: float
    code: int
    chances: tuple[float, ...] = ()


@dataclass(frozen=True)
class Design:
    """How points were drawn, and what is known of all pixels.

    Attributes:
        kind: random, classes, or the file of the strata.
        seed: of the drawing.
        crs: coordinate system of the points.
        classes: the maps' classes, C of them.
        maps: path and SHA-256 of each map.
        names: name of each stratum, H of them.
        points: points of each stratum.
        pixels: pixels by stratum and class (H, C).
        hectares: their area (H, C).
        chances: hectares times probability of each class (H, C); empty without probabilities.
        key: digest of the points.
    """

    kind: str
    seed: int
    crs: str
    classes: tuple[ClassDef, ...]
    maps: tuple[tuple[str, str], ...]
    names: tuple[str, ...]
    points: tuple[int, ...]
    pixels: tuple[tuple[int, ...], ...]
    hectares: tuple[tuple[float, ...], ...]
    chances: tuple[tuple[float, ...], ...]
    key: str = ""

    def told(self) -> list[dict[str, Any]]:
        """What is known of each stratum with pixels."""
        rows = zip(self.names, self.points, map(sum, self.pixels), map(sum, self.hectares), strict=True)
        keys = ("stratum", "points", "pixels", "hectares")
        return [dict(zip(keys, row, strict=True)) for row in rows if row[2]]


@dataclass(frozen=True)
class Labelled:
    """A sample with its labels.

    Attributes:
        design: how it was drawn.
        points: the points, in order of their numbers.
        labels: code of the class that each is labelled as, None where it has none.
    """

    design: Design
    points: tuple[Point, ...]
    labels: tuple[int | None, ...]


def write_sheet(path: Path, design: Design, points: Sequence[Point], *, overwrite: bool) -> None:
    """Write a sample: a GeoPackage, and a CSV of its name with all that is known of each point.

    Args:
        path: the GeoPackage; both appear whole, or not at all.
        design: how the points were drawn.
        points: the points.
        overwrite: replace files that are there.

    Raises:
        InputError: the file cannot have this name.
        RunError: the disk does not take the files.
    """
    files.check_target(path, ".gpkg", overwrite=overwrite)
    key = _table(design, points)
    known = dataclasses.replace(design, key=_digest(points))
    with files.draft(path) as draft:
        write_layer(path, draft, _places(design, points), LAYER, geometry_type="Point")
        write_layer(path, draft, key, KEY)
        write_layer(path, draft, _frame([{"content": json.dumps(dataclasses.asdict(known))}]), DESIGN)
        write_styles(path, draft, {LAYER: points_form(design.classes, "label", ("point", "note"))}, "labels")
        key.assign(stratum=[design.names[point.stratum] for point in points]).to_csv(
            draft.with_suffix(".csv"), index=False, lineterminator="\n", quoting=csv.QUOTE_MINIMAL
        )


def read_sheet(path: Path) -> Labelled:
    """Read a labelled sample; what QGIS adds to the layer of points is left aside.

    Raises:
        InputError: what is no probability sample; points that are not of the sample, or were moved; labels that are no
            class; or what was changed in the tables that are not for labelling.
    """
    if path.suffix.lower() != ".gpkg" or not path.is_file():
        raise InputError(f"{path}: wanted the GeoPackage (.gpkg) of a sample, came another file or none; {_ADVICE}")
    check_polygons(path)
    check_tables(path)
    layers = _layers(path)
    lacking = [name for name in (KEY, DESIGN) if name not in layers]
    if lacking:
        raise InputError(
            f"{path}: {_NOT_OURS}: nothing tells the chance that a point was drawn with (no table {lacking[0]}); "
            f"points of a review, or of somebody's choice, lean to some ground; {_ADVICE}"
        )
    if LAYER not in layers:
        raise InputError(f"{path}: has no layer {LAYER}, it has {', '.join(layers)}; keep the name, or draw again")
    design = _read_design(path)
    points = _read_key(path, design)
    return Labelled(design, points, _read_labels(path, design, points))


def _layers(path: Path) -> list[str]:
    """Names of what a GeoPackage holds."""
    import pyogrio
    from pyogrio.errors import DataSourceError

    try:
        return [str(name) for name, _ in pyogrio.list_layers(path)]
    except DataSourceError as error:
        raise InputError(f"{path}: cannot be read as a GeoPackage ({error}); save or fetch it again") from error


def _read_design(path: Path) -> Design:
    """What the design's table holds."""
    import pyogrio

    table = pyogrio.read_dataframe(path, layer=DESIGN)
    try:
        content = json.loads(table["content"].iloc[0])
    except (KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: the table {DESIGN} was changed and cannot be read; {_BACK}") from error
    made: Design = convert(content, Design, f"{path}, {DESIGN}")
    by_stratum = (made.pixels, made.hectares, made.chances or made.hectares)
    sides = {len(made.names), len(made.points), *map(len, by_stratum)}
    numbers = [number for one in by_stratum for row in one for number in row]
    if (
        len(sides) != 1
        or {len(row) for one in by_stratum for row in one} != {len(made.classes)}
        or not all(0 <= number < math.inf for number in numbers)
    ):
        raise InputError(f"{path}: the table {DESIGN} was changed: its numbers make no sense; {_BACK}")
    return made


def _read_key(path: Path, design: Design) -> tuple[Point, ...]:
    """The points as they were drawn."""
    import pyogrio

    table = pyogrio.read_dataframe(path, layer=KEY)
    chances = [f"p_{entry.code}" for entry in design.classes] if design.chances else []
    missing = [name for name in (*_KNOWN, *chances) if name not in table]
    if missing:
        raise InputError(f"{path}: {_NOT_OURS} any more: the table {KEY} lacks {missing[0]}; {_BACK}")
    try:
        known = [convert(row, Point, KEY) for row in _plain(table, chances)]
    except (InputError, ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{path}: the table {KEY} was changed ({error}); {_BACK}") from error
    points = tuple(sorted(known, key=lambda point: point.point))
    if _digest(points) != design.key:
        raise InputError(f"{path}: the table {KEY} was changed, which only sample writes; {_BACK}")
    return points


def _plain(table: Any, chances: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the key as plain values."""
    whole = {"point", "row", "column", "stratum", "code"}
    columns = {name: table[name].tolist() for name in (*_KNOWN, *chances)}
    return [
        {name: int(columns[name][i]) if name in whole else columns[name][i] for name in _KNOWN}
        | {"chances": [float(columns[name][i]) for name in chances]}
        for i in range(len(table))
    ]


def _read_labels(path: Path, design: Design, points: Sequence[Point]) -> tuple[int | None, ...]:
    """The label of each point, by the layer that a person worked on."""
    import pyogrio

    table = pyogrio.read_dataframe(path, layer=LAYER)
    for name in ("point", "label", "geometry"):
        if name not in table:
            raise InputError(f"{path}: the layer {LAYER} has no column {name} any more; it has {_some(table.columns)}")
    numbers = table["point"].tolist()
    known = {point.point for point in points}
    strange = [number for number in numbers if number not in known]
    if strange:
        raise InputError(
            f"{path}: {len(strange)} points are not of the sample (such as point {strange[0]}): nobody knows the "
            "chance that they were drawn with; take them out"
        )
    twice = [number for number, times in Counter(numbers).items() if times > 1]
    if twice:
        raise InputError(f"{path}: point {twice[0]:g} comes twice; keep one of them")
    _check_places(path, table, {point.point: point for point in points})
    labels = {
        int(number): _code(path, number, said, design) for number, said in zip(numbers, table["label"], strict=True)
    }
    return tuple(labels.get(point.point) for point in points)


def _check_places(path: Path, table: Any, points: Mapping[int, Point]) -> None:
    """Refuse points that lie elsewhere than they were drawn."""
    from pyproj import Geod

    places = table.geometry
    if places.crs is None or (places.geom_type != "Point").any():
        raise InputError(f"{path}: points of the layer {LAYER} have no place any more; {_BACK}")
    degrees = places.to_crs("EPSG:4326")
    drawn = [points[int(number)] for number in table["point"]]
    if not drawn:
        return
    there = [point.longitude for point in drawn], [point.latitude for point in drawn]
    moved = np.abs(Geod(ellps="WGS84").inv(degrees.x.to_list(), degrees.y.to_list(), *there)[2])
    far = np.flatnonzero(~(moved <= [side(point.hectares) / 4 for point in drawn]))
    if far.size:
        point = drawn[int(far[0])]
        raise InputError(
            f"{path}: {far.size} points were moved, point {point.point} by {moved[far[0]]:.0f} m: a label is of the "
            f"pixel that was drawn; put them back, this one to {point.longitude:.6f}, {point.latitude:.6f}"
        )


def _code(path: Path, number: Any, said: Any, design: Design) -> int | None:
    """The class code that a label means; None for none."""
    if said is None or said == "" or (isinstance(said, float) and math.isnan(said)) or said != said:
        return None
    names = {str(entry.code): entry.code for entry in design.classes} | {e.name: e.code for e in design.classes}
    text = f"{said:.15g}" if isinstance(said, float) else str(said).strip()
    if text not in names:
        wanted = ", ".join(f"{entry.code} {entry.name}" for entry in design.classes)
        raise InputError(f"{path}: point {int(number)} is labelled {text}, which is no class; wanted one of {wanted}")
    return names[text]


def _some(names: Any) -> str:
    return ", ".join(str(name) for name in [*names][:8])


def _digest(points: Sequence[Point]) -> str:
    """Digest of the points, whatever their order."""
    return digest({"points": [list(dataclasses.astuple(point)) for point in sorted(points, key=lambda p: p.point)]})


def _frame(rows: Sequence[Mapping[str, Any]]) -> Any:
    import pandas

    return pandas.DataFrame(list(rows))


def _table(design: Design, points: Sequence[Point]) -> Any:
    """The key as a table."""
    rows = [{name: getattr(point, name) for name in _KNOWN} for point in points]
    for row, point in zip(rows, points, strict=True):
        row |= {f"p_{entry.code}": chance for entry, chance in zip(design.classes, point.chances, strict=False)}
    return _frame(rows)


def _places(design: Design, points: Sequence[Point]) -> Any:
    """The layer that is labelled: numbers and places, no stratum and no class."""
    import geopandas
    import pandas

    places = geopandas.points_from_xy([p.longitude for p in points], [p.latitude for p in points], crs="EPSG:4326")
    table = geopandas.GeoDataFrame({"point": [point.point for point in points]}, geometry=places).to_crs(design.crs)
    return table.assign(
        label=pandas.array([None] * len(points), "Int32"), note=pandas.array([None] * len(points), "str")
    )
