"""What a review says of the ground, read from its GeoPackage to be learned from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import InputError
from models.runtime.hashes import sha256_now
from models.spec import Classes
from pipelines.grids import align
from pipelines.review import package
from pipelines.samples.labelling.corrected import Piece
from pipelines.samples.labelling.polygon_files import check_polygons, check_tables
from pipelines.samples.splits import some

MOST, BYTES = 100_000, 256 << 20  # polygons of a layer, and bytes of a file, at most
CROSSED = 1000  # corners, in all, of polygons that cross themselves: what is mended takes the square of it
_LONGEST = 255  # bytes of a file's name
_INPUT = "EARTHTUNE_INPUT"
Row = tuple[str, int, Any]  # what was answered, class code, polygons


@dataclass(frozen=True)
class Returned:
    """What a review says.

    Attributes:
        path: the GeoPackage.
        sha256: its hash.
        pieces: ground with a class; regions first, then what was drawn, which counts where they overlap.
        scene: files of the scene that the map was made of, where they lie near it.
        map: name of the map; empty where the file does not tell.
        notes: what a person should know.
    """

    path: Path
    sha256: str
    pieces: tuple[Piece, ...]
    scene: tuple[Path, ...]
    map: str
    notes: tuple[str, ...]


def listed(given: Path | Sequence[Path]) -> list[Path]:
    """One file or several, as a list."""
    return [given] if isinstance(given, Path) else list(given)


def read_corrections(path: Path, classes: Classes, number: int) -> Returned:
    """Read what a review says: regions with another class, those where the map was agreed to, and drawn polygons.

    The ground that was agreed to has the map's classes, as `earthtune review` wrote them into the layer `corrections`.
    Regions that a person was unsure of say nothing, nor do those without an answer.

    Args:
        path: the GeoPackage of a review, as `earthtune review` or QGIS left it.
        classes: those that are learned.
        number: of the file, for its pieces.

    Raises:
        InputError: it is none, too large, without place, of a map that has changed, lacks a column, holds a class that
            is not known, or no answer.
    """
    with package.reading(path):
        _check(path)
        about = package.about_of(path).get("header")
        header: Mapping[str, Any] = about if isinstance(about, Mapping) else {}
        scene = _scene(path, header)
        (regions, notes), (drawn, more) = (_read(path, layer) for layer in ("regions", "drawn"))
        crs = _system(path, {"regions": regions, "drawn": drawn})
        notes += more
        rows = [*_regions(path, regions, classes, notes), *_drawn(path, drawn, classes, notes)]
    codes = list(classes.codes)
    pieces = tuple(Piece(number, region, codes.index(code), shape, crs) for region, code, shape in rows)
    if not pieces:
        raise InputError(f"{path}: holds no answer that tells a class; there is nothing to learn from: answer some")
    named = str(header["map"]) if _plain(header.get("map")) else ""
    return Returned(path, sha256_now(path), pieces, scene, named, tuple(notes))


def _check(path: Path) -> None:
    """Refuse what is no GeoPackage, open elsewhere, or larger than any review."""
    import pyogrio

    if path.suffix.lower() != ".gpkg":
        raise InputError(f"{path}: wanted a GeoPackage (.gpkg) as `earthtune review` writes it; give that")
    check_polygons(path)
    package.check_closed(path)
    check_tables(path)
    if path.stat().st_size > BYTES:
        raise InputError(f"{path}: larger than {BYTES >> 20} MB, which no review is; give the file of a review")
    for layer, _ in pyogrio.list_layers(path):
        if pyogrio.read_info(path, layer=layer, force_feature_count=True)["features"] > MOST:
            raise InputError(f"{path}: layer {layer} has over {MOST:,} rows, as no review has; take some out")


def _plain(name: Any) -> bool:
    """Whether a text is the name of a file, which leads to no other folder."""
    if not isinstance(name, str) or name in ("", ".", "..") or "\0" in name:
        return False
    return Path(name).name == name and len(name.encode("utf-8", "replace")) <= _LONGEST


def _scene(path: Path, header: Mapping[str, Any]) -> tuple[Path, ...]:
    """The files that the reviewed map was made of, in the map's folder or the one above; empty where they are not.

    Raises:
        InputError: the map that lies there is another than was reviewed.
    """
    name, hashes = header.get("map"), header.get("hashes")
    if not _plain(name) or not (made := path.parent / str(name)).is_file():
        return ()
    if not isinstance(hashes, Mapping) or hashes.get("map") != sha256_now(made):
        raise InputError(
            f"{path}: a review of before {name} changed; review the map as it is now, or restore the one of then"
        )
    names = align.dataset(str(made)).tags().get(_INPUT, "").split(",")
    folders = (made.absolute().parent, made.absolute().parent.parent)
    near = [tuple(folder / one for one in names) for folder in folders if all(map(_plain, names))]
    return next((files for files in near if all(file.exists() for file in files)), ())


def _regions(path: Path, table: Any, classes: Classes, notes: list[str]) -> Iterator[Row]:
    """Regions with another class, and those that were agreed to by the map's classes."""
    import pandas

    numbers = pandas.to_numeric(table["id"], errors="coerce")
    table["id"] = numbers.where(np.isfinite(numbers.astype(float)))
    agreed: set[int] = set()
    for key, row in package.rows_of(path, table, {int(v) for v in table["id"].dropna()}).items():
        word, label = package.word_of(path, key, row, frozenset(classes.codes))
        if word in ("class", "value") and label is not None:
            shapes = _polygons(row.geometry)
            if not shapes:
                notes.append(f"{path}: region {key} has an answer and no area: it is left aside")
            for shape in shapes:
                yield str(key), int(label), shape
        agreed |= {key} if word == "agree" else set()
    if not agreed:
        return
    regions, (table, more) = table, _read(path, "corrections")
    _system(path, {"regions": regions, "corrections": table})
    notes += more
    table = table[table["source"] == "agree"]
    for index, row in table.iterrows():
        if row["region"] in agreed:
            for shape in _polygons(row.geometry):
                yield str(int(row["region"])), _code(path, f"layer corrections, row {index + 1}", row, classes), shape
    if late := agreed - set(table["region"]):
        notes.append(
            f"{path}: {len(late)} regions were agreed to since `earthtune review` wrote this file, and are left aside: "
            "run it again on the map (--no_page), which takes them up"
        )


def _drawn(path: Path, table: Any, classes: Classes, notes: list[str]) -> Iterator[Row]:
    """What was drawn by hand."""
    flat = [str(index + 1) for index, shape in table.geometry.items() if not _polygons(shape)]
    if flat:
        notes.append(f"{path}: layer drawn: rows without an area are left aside: {some(flat)}")
    for index, row in table.iterrows():
        for shape in _polygons(row.geometry):
            yield f"drawn {index}", _code(path, f"layer drawn, row {index + 1}", row, classes), shape


def _code(path: Path, where: str, row: Any, classes: Classes) -> int:
    """The class of a row.

    Raises:
        InputError: there is none, or one that is not known.
    """
    code = next((code for code in classes.codes if row["label"] == code), None)
    if code is None:
        known = ", ".join(f"{entry.code} {entry.name}" for entry in classes.classes)
        told = "has no label" if row["label"] != row["label"] else f"label {row['label']}: no such class"
        raise InputError(f"{path}: {where}: {told}; wanted one of {known}; mend it")
    return int(code)


def _polygons(shape: Any) -> list[Any]:
    """What of a shape has an area."""
    import shapely

    if shape is None or not shape.area > 0:
        return []
    if shape.geom_type in ("Polygon", "MultiPolygon"):
        return [shape]
    return [found for part in shapely.get_parts(shape) for found in _polygons(part)]


def _read(path: Path, layer: str) -> tuple[Any, list[str]]:
    """A layer, its polygons mended where they cross themselves; and a line on columns that are new.

    Raises:
        InputError: see `package.read_layer`; corners that are no numbers, or more crossings than can be mended.
    """
    import shapely

    table, notes = package.read_layer(path, layer)
    shapes = table.geometry.to_numpy()
    if not np.isfinite(shapely.get_coordinates(shapes)).all():
        raise InputError(f"{path}: layer {layer}: a polygon has coordinates that are no numbers; mend it in QGIS")
    crossing = ~shapely.is_missing(shapes) & ~shapely.is_valid(shapes)
    if shapely.get_num_coordinates(shapes[crossing]).sum() > CROSSED:
        raise InputError(
            f"{path}: layer {layer}, row {int(crossing.argmax()) + 1}: polygons with over {CROSSED:,} corners in all "
            "cross themselves; mend them in QGIS (Fix geometries)"
        )
    shapes[crossing] = shapely.make_valid(shapes[crossing], method="structure", keep_collapsed=False)
    return table.set_geometry(shapes, crs=table.crs), notes


def _system(path: Path, tables: Mapping[str, Any]) -> str:
    """The coordinate system of the layers, as WKT."""
    found = {layer: getattr(table, "crs", None) for layer, table in tables.items()}
    lacking = [layer for layer, crs in found.items() if crs is None]
    if lacking:
        raise InputError(
            f"{path}: layer {lacking[0]} has no coordinate system, so that its polygons have no place; give the scene "
            "one and review its map again, or set that of the layer in QGIS"
        )
    crs: Any = found["regions"]
    if any(other != crs for other in found.values()):
        named = " and ".join(found)
        raise InputError(f"{path}: layers {named} are in different coordinate systems; bring them into one")
    return str(crs.to_wkt())
