"""A review as a GeoPackage: regions and drawn polygons with forms for QGIS, and read back as QGIS leaves it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from models import files
from models.errors import InputError
from models.spec import ClassDef
from pipelines.grids import align
from pipelines.outputs.forms import classes_form, regions_form
from pipelines.outputs.geopackage import write_layer, write_styles
from pipelines.review.answers import MOST_POLYGONS, Answer, answer_of
from pipelines.review.regions import Region
from pipelines.samples.labelling.polygon_files import check_polygons, check_tables

_SAID = 200  # characters of an error of GDAL
MOST_HOLES = 1000  # of a polygon
ELSEWHERE = 0  # id of what was drawn outside of all regions
_ADVICE = "make space; all answers are kept beside it"
_WANTED = {
    "regions": ("id", "answer", "label"),
    "drawn": ("region", "label"),
    "corrections": ("region", "label", "source"),
}
_TOLD = {
    "regions": ("scene", "reason", "code", "class", "hectares", "confidence", "unfamiliar"),
    "corrections": ("class",),
}


@dataclass(frozen=True)
class Reviewed:
    """What a GeoPackage is about.

    Attributes:
        scene: name of the scene.
        geobox: grid of the map.
        classes: of the map; empty for values.
        regions: by rank.
        header: first line of the answers, which tells the map by its hash.
        codes: of the map (rows, columns); None for values.
        known: ids that may have an answer beside those of the regions.
    """

    scene: str
    geobox: GeoBox
    classes: Sequence[ClassDef]
    regions: Sequence[Region]
    header: Mapping[str, Any]
    codes: Any = None
    known: frozenset[int] = frozenset()


def write_package(path: Path, reviewed: Reviewed, said: Mapping[int, Answer], *, known: bool = True) -> int:
    """Write a review: it appears whole, or not at all.

    Layers: `regions`, each with its reason, its answer and its label; `drawn`, what was drawn by hand; `corrections`,
    what is settled, as polygons with their class: drawn ones, and what they leave of regions that have another class
    or, where the map was agreed to, its own; and `review`, a table that says of what it is. Styles and forms of QGIS
    lie within.

    Args:
        path: the GeoPackage.
        reviewed: what it is about.
        said: answers by the id of their region.
        known: whether the review holds the answers already; else `edited` takes them for new.

    Returns:
        The number of corrections.

    Raises:
        InputError: another program has the file open.
        RunError: the disk does not take it.
    """
    import pandas

    check_closed(path)
    shapes = {region.id: _shape(region, reviewed.geobox) for region in reviewed.regions}
    corrections = list(_corrections(reviewed, shapes, said))
    crs = None if reviewed.geobox.crs is None else reviewed.geobox.crs.to_wkt()
    with files.draft(path) as file:
        layers = {
            "regions": _regions(reviewed, shapes, said),
            "drawn": _drawn(reviewed, said),
            "corrections": _table(corrections, ("region", "label", "class", "source"), reviewed.classes),
        }
        for name, (columns, outlines) in layers.items():
            kind = "Polygon" if name == "drawn" else "MultiPolygon"
            write_layer(path, file, _frame(columns, outlines, crs), name, advice=_ADVICE, geometry_type=kind)
        written = {str(number): answer.plain() for number, answer in said.items() if known and not answer.empty}
        about = {"header": json.dumps(reviewed.header, ensure_ascii=False), "answers": json.dumps(written)}
        write_layer(path, file, pandas.DataFrame(about.items(), columns=["key", "value"]), "review", advice=_ADVICE)
        forms = {"regions": regions_form(reviewed.classes)}
        forms |= dict.fromkeys(("drawn", "corrections"), classes_form(reviewed.classes, "label"))
        write_styles(path, file, forms, "review", advice=_ADVICE)
    return len(corrections)


def check_closed(path: Path) -> None:
    """Refuse a GeoPackage that another program has open, or left without closing it.

    Raises:
        InputError: it is so; its changes may lie beside it still.
    """
    for suffix in ("-wal", "-journal"):
        beside = path.with_name(path.name + suffix)
        if beside.exists() and beside.stat().st_size:
            raise InputError(
                f"{path}: is open in another program ({beside.name} lies beside it); save and close it there"
            )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Tell in one line what GDAL, or the shapes in it, say of a GeoPackage that cannot be read.

    Raises:
        InputError: that.
    """
    from pyogrio.errors import DataLayerError, DataSourceError
    from shapely.errors import ShapelyError

    try:
        with warnings.catch_warnings():  # of coordinates that are no numbers, and what GDAL thinks of the file
            warnings.simplefilter("ignore", RuntimeWarning)
            yield
    except (DataSourceError, DataLayerError, ShapelyError, UnicodeDecodeError) as error:
        why = align.reason(error)[:_SAID]
        raise InputError(f"{path}: cannot be read ({why}); give the GeoPackage of a review") from error


def _shape(region: Region, geobox: GeoBox) -> Any:
    """A region's outline in the map's coordinates."""
    import shapely

    move = geobox.affine
    placed = [[[move * point for point in ring] for ring in polygon] for polygon in region.rings]
    return shapely.MultiPolygon([shapely.Polygon(rings[0], rings[1:]) for rings in placed])


def _regions(reviewed: Reviewed, shapes: Mapping[int, Any], said: Mapping[int, Answer]) -> tuple[Any, Any]:
    names = {entry.code: entry.name for entry in reviewed.classes}
    regions = reviewed.regions
    answers = [said.get(region.id, Answer()) for region in regions]
    columns = {
        "id": np.array([region.id for region in regions], np.int32),
        "scene": [reviewed.scene] * len(regions),
        "reason": [region.reason for region in regions],
        "code": _numbers([region.code for region in regions], whole=True),
        "class": [names.get(-1 if region.code is None else region.code) for region in regions],
        "hectares": [region.hectares for region in regions],
        "confidence": [region.confidence for region in regions],
        "unfamiliar": [region.unfamiliar for region in regions],
        "answer": [answer.word for answer in answers],
        "label": _numbers([answer.label for answer in answers], whole=bool(reviewed.classes)),
    }
    return columns, [shapes[region.id] for region in regions]


def _drawn(reviewed: Reviewed, said: Mapping[int, Answer]) -> tuple[Any, Any]:
    import shapely

    rows = [(number, *polygon) for number, answer in sorted(said.items()) for polygon in answer.polygons]
    columns = {
        "region": np.array([row[0] for row in rows], np.int32),
        "label": _numbers([row[1] for row in rows], whole=bool(reviewed.classes)),
    }
    return columns, [shapely.Polygon(row[2]) for row in rows]


def _corrections(
    reviewed: Reviewed, shapes: Mapping[int, Any], said: Mapping[int, Answer]
) -> Iterable[tuple[int, float, str, Any]]:
    """What is settled: region, label, where from, polygons; drawn ones first, none over another."""
    import shapely

    by_id = {region.id: region for region in reviewed.regions}
    taken = shapely.MultiPolygon()
    for number, answer in sorted(said.items()):
        for label, ring in reversed(answer.polygons):  # the last drawn counts where two overlap
            shape = shapely.make_valid(shapely.Polygon(ring), method="structure", keep_collapsed=False)
            left, taken = shape.difference(taken), taken.union(shape)
            yield from _piece(number, label, "drawn", left)
    for number, answer in sorted(said.items()):
        if number not in shapes or answer.word not in ("agree", "class", "value"):
            continue
        if answer.word != "agree":
            yield from _piece(number, float(answer.label or 0), answer.word, shapes[number].difference(taken))
        elif reviewed.codes is not None:
            for code, shape in _by_class(by_id[number], reviewed):
                yield from _piece(number, code, "agree", shape.difference(taken))


def _piece(number: int, label: float, source: str, shape: Any) -> Iterable[tuple[int, float, str, Any]]:
    """A row, where anything is left of a shape; lines and points that a difference leaves are dropped."""
    import shapely

    parts = [
        part for part in shapely.get_parts(shape) if part.geom_type in ("Polygon", "MultiPolygon") and part.area > 0
    ]
    flat = [polygon for part in parts for polygon in shapely.get_parts(part)]
    if flat:
        yield number, label, source, shapely.MultiPolygon(flat)


def _by_class(region: Region, reviewed: Reviewed) -> Iterable[tuple[int, Any]]:
    """A region's ground by the classes that the map has there."""
    import rasterio.features
    import shapely

    top, left, bottom, right = region.bounds
    window = reviewed.codes[top:bottom, left:right]
    outline = [{"type": "Polygon", "coordinates": polygon} for polygon in region.rings]
    move = reviewed.geobox.affine * reviewed.geobox.affine.translation(left, top)
    shift = reviewed.geobox.affine.translation(left, top)
    inside = rasterio.features.rasterize(outline, out_shape=window.shape, transform=shift).astype(bool)
    for code in np.unique(window[inside]):
        here = inside & (window == code)
        found = rasterio.features.shapes(here.astype(np.uint8), here, connectivity=4, transform=move)
        yield int(code), shapely.unary_union([shapely.geometry.shape(shape) for shape, _ in found])


def _table(
    rows: Sequence[tuple[int, float, str, Any]], names: Sequence[str], classes: Sequence[ClassDef]
) -> tuple[Any, Any]:
    told = {entry.code: entry.name for entry in classes}
    numbers, labels = [row[0] for row in rows], [row[1] for row in rows]
    held = (np.array(numbers, np.int32), _numbers(labels, whole=bool(classes)), [told.get(int(v), "") for v in labels])
    return dict(zip(names, (*held, [row[2] for row in rows]), strict=True)), [row[3] for row in rows]


def _numbers(values: Sequence[float | None], *, whole: bool) -> Any:
    """A column of numbers that may lack."""
    import pandas

    return pandas.array([*values], dtype="Int32" if whole else "Float64")


def _frame(columns: Any, outlines: Any, crs: str | None) -> Any:
    """A table of columns with the outlines of its rows."""
    import geopandas
    import pandas

    return geopandas.GeoDataFrame(pandas.DataFrame(columns), geometry=list(outlines), crs=crs)


def edited(path: Path, reviewed: Reviewed) -> tuple[dict[int, Answer], list[str]]:
    """Answers of a GeoPackage that differ from what was written to it: what a person changed in QGIS.

    Returns:
        The answers by id, and what a person should know.

    Raises:
        InputError: it is no review of this map, a column lacks, or an answer makes no sense.
    """
    check_closed(path)
    check_polygons(path)
    check_tables(path)
    with reading(path):
        about, (regions, notes), (drawn, more) = about_of(path), read_layer(path, "regions"), read_layer(path, "drawn")
    for key, value in reviewed.header.items():
        if "header" in about and about["header"].get(key) != value:
            raise InputError(f"{path}: a review of another {key} than this map's; give the one that was made of it")
    codes = frozenset(entry.code for entry in reviewed.classes)
    ids = {region.id for region in reviewed.regions} | reviewed.known
    try:
        before = {int(number): answer_of(plain, codes) for number, plain in about.get("answers", {}).items()}
    except ValueError as error:
        raise InputError(f"{path}: its table `review` was changed ({error}); remove that table") from error
    polygons = _polygons(path, drawn, reviewed, codes)
    changed: dict[int, Answer] = {}
    held = rows_of(path, regions, ids)
    for number in sorted({*held, *polygons, *before}):
        old = before.get(number, Answer())
        words = word_of(path, number, held[number], codes) if number in held else (old.word, old.label)
        new = Answer(*words, tuple(polygons.get(number, ())))
        if (new.word, new.label) != (old.word, old.label) or _key(new) != _key(old):
            changed[number] = new
    return changed, notes + more


def _key(answer: Answer) -> set[tuple[Any, ...]]:
    """Polygons whatever corner they begin at."""
    return {(label, frozenset((round(x, 6), round(y, 6)) for x, y in ring)) for label, ring in answer.polygons}


def about_of(path: Path) -> dict[str, Any]:
    """What the file says of itself; empty where that was taken out."""
    import pyogrio

    if "review" not in {str(name) for name, _ in pyogrio.list_layers(path)}:
        return {}
    table = pyogrio.read_dataframe(path, layer="review")
    try:
        return {str(key): dict(json.loads(value)) for key, value in zip(table["key"], table["value"], strict=True)}
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path}: its table `review` was changed ({error}); remove that table, or take a copy"
        ) from error


def read_layer(path: Path, layer: str) -> tuple[Any, list[str]]:
    """A layer, which has the columns that are wanted; and a line on those that are new."""
    import pyogrio

    there = [str(name) for name, _ in pyogrio.list_layers(path)]
    if layer not in there:
        raise InputError(
            f"{path}: wanted a layer {layer}, it has {', '.join(there) or 'none'}; take a copy that has it"
        )
    table = pyogrio.read_dataframe(path, layer=layer)
    lacking = [name for name in _WANTED[layer] if name not in table.columns]
    if lacking:
        has = ", ".join(name for name in table.columns if name != "geometry")
        raise InputError(f"{path}: layer {layer} wants a column {lacking[0]}, it has {has}; add it, or take a copy")
    if "geometry" not in table.columns:
        raise InputError(f"{path}: layer {layer} has no polygons; take a copy that has them")
    known = (*_WANTED[layer], *_TOLD.get(layer, ()), "geometry")
    new = [str(name) for name in table.columns if name not in known]
    return table, [f"{path}: layer {layer}: {', '.join(new)} left aside"] if new else []


def rows_of(path: Path, table: Any, ids: set[int]) -> dict[int, Any]:
    """Rows of regions by their id."""
    found: dict[int, Any] = {}
    for _, row in table.iterrows():
        number = row["id"]
        if number not in ids:
            raise InputError(f"{path}: region {number} is none of this review; draw new ground in the layer drawn")
        if int(number) in found:
            raise InputError(f"{path}: region {int(number)} is there twice; remove one")
        found[int(number)] = row
    return found


def word_of(path: Path, number: int, row: Any, codes: frozenset[int]) -> tuple[str, float | None]:
    """Answer and label of a row; a label alone is one, too."""
    import pandas

    word = "" if pandas.isna(row["answer"]) else str(row["answer"]).strip()
    label = None if pandas.isna(row["label"]) or word in ("agree", "unsure") else row["label"]
    word = word or ("" if label is None else "class" if codes else "value")
    try:
        number_of = None if label is None else float(label)
    except (TypeError, ValueError) as error:
        wanted = f"one of {', '.join(map(str, sorted(codes)))}" if codes else "a value"
        raise InputError(f"{path}: region {number}: label {label}: wanted {wanted}; mend it in QGIS") from error
    try:
        answer = answer_of({"answer": word, "label": number_of}, codes)
    except ValueError as error:
        raise InputError(f"{path}: region {number}: {error}; mend it in QGIS") from error
    return answer.word, answer.label


def _polygons(path: Path, table: Any, reviewed: Reviewed, codes: frozenset[int]) -> dict[int, list[Any]]:
    """What was drawn, by region: the one that is told, else the one that it lies over most, else elsewhere."""
    import pandas
    import shapely

    if reviewed.geobox.crs is not None and table.crs is not None:
        table = table.to_crs(reviewed.geobox.crs.to_wkt())
    shapes = {region.id: _shape(region, reviewed.geobox) for region in reviewed.regions}
    found: dict[int, list[Any]] = {}
    for index, row in table.iterrows():
        for part in _plain(path, int(index), row.geometry):
            number = row["region"]
            if pandas.isna(number) or number not in shapes:
                over = {key: part.intersection(shape).area for key, shape in shapes.items() if part.intersects(shape)}
                number = max(over, key=lambda key: over[key]) if over else ELSEWHERE
            ring = [list(point) for point in shapely.get_coordinates(part.exterior)[:-1].tolist()]
            try:
                label = None if pandas.isna(row["label"]) else float(row["label"])
                said = {"answer": "", "polygons": [{"label": label, "ring": ring}]}
                found.setdefault(int(number), []).extend(answer_of(said, codes).polygons)
            except (ValueError, TypeError) as error:
                raise InputError(f"{path}: layer drawn, row {int(index) + 1}: {error}; mend it in QGIS") from error
    for number, polygons in found.items():
        if len(polygons) > MOST_POLYGONS:
            where = f"in region {number}" if number else "outside of all regions"
            raise InputError(f"{path}: {len(polygons)} polygons {where}: wanted at most {MOST_POLYGONS:,}; join some")
    return found


def _plain(path: Path, index: int, shape: Any) -> list[Any]:
    """Polygons without holes: those with some are cut through them.

    Raises:
        InputError: the shape is no polygon, or crosses itself.
    """
    import shapely

    wrong = InputError(f"{path}: layer drawn, row {index + 1}: is no simple polygon: mend it in QGIS")
    parts = [] if shape is None else [*shapely.get_parts(shape)]
    if any(part.geom_type != "Polygon" or not part.is_valid or len(part.interiors) > MOST_HOLES for part in parts):
        raise wrong
    plain = []
    while parts:
        part = parts.pop()
        if not part.interiors:
            plain.append(part)
            continue
        (left, bottom, right, top), middle = part.bounds, part.interiors[0].centroid.x
        boxes = (left, bottom, middle, top), (middle, bottom, right, top)
        halves = [piece for box in boxes for piece in shapely.get_parts(part.intersection(shapely.box(*box)))]
        halves = [piece for piece in halves if piece.geom_type == "Polygon"]
        if sum(len(piece.interiors) for piece in halves) >= len(part.interiors):  # a hole as thin as a number
            raise wrong
        parts += halves
    return plain
