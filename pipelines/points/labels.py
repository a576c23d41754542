"""A few labelled points or polygons, from a table or a file of shapes, as pixels of a scene and their groups."""

from __future__ import annotations

import csv
import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from models.errors import InputError
from models.spec import ClassDef
from models.types import Say
from pipelines.samples.polygons import read_shapes
from pipelines.samples.splits import some

EACH = 25  # pixels of a polygon that are learned from, evenly of all
MOST = 4000  # pixels in all
CLASSES = 100  # more are no classes, but another column
CLUSTERS = 12  # groups that are made of places, where none are named
_GRAIN = 32  # steps of a side of the labels' extent; what lies within one stays together
_CLASS = ("class", "label", "code", "landcover", "land_cover", "name")
_GROUP = ("group", "place", "site")
_PLACES = (("lon", "lat"), ("longitude", "latitude"), ("x", "y"))
_COLOURS = ("#1b9e77", "#d95f02", "#7570b3", "#e7298a", "#66a61e", "#e6ab02", "#a6761d", "#1f78b4")


@dataclass(frozen=True)
class Labels:
    """Pixels with a class; those of one point or polygon are an object.

    Attributes:
        classes: code, name and colour of each class.
        rows: of each pixel (N,).
        columns: of each pixel (N,).
        target: index of its class (N,).
        item: number of its object (N,).
        group: number of its group (N,).
        named: whether groups were named in the file.
    """

    classes: tuple[ClassDef, ...]
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    target: NDArray[np.intp]
    item: NDArray[np.intp]
    group: NDArray[np.intp]
    named: bool

    @property
    def weight(self) -> NDArray[np.float64]:
        """Of each pixel, by which all objects weigh the same (N,)."""
        return np.asarray(1 / np.bincount(self.item)[self.item])

    def kept(self, known: NDArray[np.bool_], path: Path, say: Say) -> Labels:
        """Those of which something is known.

        Raises:
            InputError: see `check`.
        """
        lost = len(np.unique(self.item)) - len(np.unique(self.item[known]))
        if lost:
            say(f"{path}: {lost} labels lie where the scene or its tokens have no data (cloud, fill): left out")
        left = self.some(known)
        left.check(path)
        return left

    def some(self, chosen: NDArray[np.bool_]) -> Labels:
        """The pixels that are chosen."""
        pixels = ("rows", "columns", "target", "item", "group")
        return dataclasses.replace(self, **{name: getattr(self, name)[chosen] for name in pixels})

    def check(self, path: Path) -> None:
        """Refuse labels that no head can learn from, or be asked about.

        Raises:
            InputError: fewer than two classes, or a class of one object.
        """
        counts = self.counts()
        if sum(count > 0 for count in counts.values()) < 2:
            raise InputError(f"{path}: labels of {some(list(counts)) or 'no class'} on the scene; wanted two classes")
        few = [name for name, count in counts.items() if count < 2]
        if few:
            told = f"{some(few)}: {counts[few[0]]} label on the scene"
            raise InputError(f"{path}: {told}; give each class two at least, so that one can be asked about")

    def counts(self) -> dict[str, int]:
        """Objects of each class by its name."""
        return {one.name: len(np.unique(self.item[self.target == index])) for index, one in enumerate(self.classes)}


def read_points(
    path: Path, geobox: GeoBox, *, column: str | None, layer: str | None, group: str | None, say: Say
) -> Labels:
    """Read labels onto the pixels of a scene.

    A CSV has lon and lat in degrees, or x and y in the scene's coordinate system, and a column of classes; files of
    shapes hold points or polygons. What has no class, or lies outside, is told and left out; so is a pixel that is
    given two classes.

    Args:
        path: CSV, GeoJSON, GeoPackage, shapefile or FlatGeobuf.
        geobox: the scene's grid.
        column: of the classes, by name or code; one that is called so where None.
        layer: of a file that has several.
        group: the column that tells which labels belong together; one called so where None and there is one.
        say: is told what is left out.

    Raises:
        InputError: what is no such file, has no such column, or holds too few labels on the scene.
    """
    table = _read_csv(path, geobox) if path.suffix.lower() == ".csv" else read_shapes(path, geobox, layer=layer)
    names = [str(name) for name in table.columns if name != "geometry"]
    classed = _column(path, names, column, _CLASS, "class")
    grouped = _column(path, names, group, _GROUP, "group") if group or set(_GROUP) & {*names} else None
    table, empty = table[[*map(_has_text, table[classed])]], len(table)
    if empty := empty - len(table):
        say(f"{path}: {empty} labels have no {classed}: left out")
    classes, target = _classes(path, classed, [*table[classed]])
    pixels = [*_pixels(table.geometry, geobox)]
    outside = sum(len(rows) == 0 for rows, _ in pixels)
    if outside == len(pixels):
        left, bottom, right, top = geobox.extent.boundingbox
        told = f"{left:.6g} to {right:.6g}, {bottom:.6g} to {top:.6g} in its system"
        raise InputError(f"{path}: none of {len(pixels)} labels lies on the scene, which is {told}")
    if outside:
        say(f"{path}: {outside} of {len(pixels)} labels lie outside of the scene: left out")
    groups = None if grouped is None else [str(value).strip() for value in table[grouped]]
    labels = _gathered(classes, target, pixels, groups)
    labels.check(path)
    return _agreed(labels, path, say)


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
    reader = csv.DictReader(text.splitlines(), delimiter=max(",;\t", key=first.count))
    rows: list[dict[str, Any]] = [{str(k).strip(): v for k, v in row.items() if k is not None} for row in reader]
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


def _column(path: Path, names: Sequence[str], asked: str | None, usual: Sequence[str], what: str) -> str:
    """The column that was asked for, or the one that is called as such columns are."""
    found = asked if asked in names else next((name for word in usual for name in names if name.lower() == word), None)
    if found is None or (asked and asked not in names):
        told = f"no column {asked}" if asked else f"which column holds the {what}?"
        raise InputError(
            f"{path}: {told}; it has {', '.join(names) or 'none'} (--{'column' if what == 'class' else what})"
        )
    return found


def _classes(path: Path, column: str, values: Sequence[Any]) -> tuple[tuple[ClassDef, ...], NDArray[np.intp]]:
    """The classes by code, or by name in the order of the alphabet, with codes from 1; and the class of each value."""
    texts = [str(value).strip() for value in values]
    codes = [_code(text) for text in texts]
    if any(code is None for code in codes):
        keys: list[Any] = [text.casefold() for text in texts]
        spelled = {key: text for key, text in zip(reversed(keys), reversed(texts), strict=True)}
        listed = [(number, spelled[key]) for number, key in enumerate(sorted(spelled), 1)]
    else:
        keys = codes
        listed = [(code, f"class {code}") for code in sorted({code for code in codes if code is not None})]
    if len(listed) > CLASSES:
        raise InputError(f"{path}: column {column} holds {len(listed)} values, wanted {CLASSES} classes at most")
    if not listed:
        raise InputError(f"{path}: no label has a {column}; give each point its class")
    bad = [code for code, _ in listed if not 0 <= code <= 65535]
    if bad:
        raise InputError(f"{path}: column {column} holds {bad[0]}; wanted codes of 0 to 65535, or names")
    classes = tuple(ClassDef(code, name, _COLOURS[i % len(_COLOURS)]) for i, (code, name) in enumerate(listed))
    return classes, np.unique(np.array(keys), return_inverse=True)[1].astype(np.intp)


def _code(text: str) -> int | None:
    """A whole number; None of other text."""
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() else None


def _pixels(shapes: Any, geobox: GeoBox) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Rows and columns of the pixels of each shape that lie on the grid: centres inside, or the one under it."""
    from rasterio.features import rasterize

    height, width = (int(side) for side in geobox.shape)
    for shape in shapes:
        corners = np.array(shape.bounds).reshape(2, 2)
        ends = np.array([~geobox.affine * (x, y) for x in corners[:, 0] for y in corners[:, 1]])  # column, row
        first = np.clip(np.floor(ends.min(axis=0)), 0, (width, height)).astype(int)
        last = np.clip(np.floor(ends.max(axis=0)) + 1, 0, (width, height)).astype(int)
        rows = columns = np.zeros(0, np.intp)
        if (last > first).all():
            there = geobox.affine * type(geobox.affine).translation(*first)
            burnt = rasterize([shape], out_shape=tuple(last - first)[::-1], transform=there, all_touched=False)
            rows, columns = np.nonzero(burnt)
            if not len(rows):  # smaller than a pixel
                middle = shape.representative_point()
                column, row = np.floor(~geobox.affine * (middle.x, middle.y)).astype(int) - first
                inside = 0 <= row < burnt.shape[0] and 0 <= column < burnt.shape[1]
                rows, columns = (np.array([row] * inside), np.array([column] * inside))
            chosen = np.linspace(0, len(rows) - 1, min(len(rows), EACH)).round().astype(int)
            rows, columns = rows[chosen] + first[1], columns[chosen] + first[0]
        yield rows.astype(np.intp), columns.astype(np.intp)


def _gathered(
    classes: tuple[ClassDef, ...],
    target: NDArray[np.intp],
    pixels: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]],
    groups: Sequence[str] | None,
) -> Labels:
    """All pixels, or `MOST` of them, with their objects and groups."""
    counts = [len(rows) for rows, _ in pixels]
    item = np.repeat(np.arange(len(pixels)), counts)
    rows, columns = (np.concatenate([pair[axis] for pair in pixels]) for axis in (0, 1))
    chosen = np.linspace(0, len(item) - 1, min(len(item), MOST)).round().astype(int)
    item, rows, columns = item[chosen], rows[chosen], columns[chosen]
    if groups is None:
        middles = np.array([[rows[item == i].mean(), columns[item == i].mean()] for i in np.unique(item)])
        of_item = dict(zip(np.unique(item), clusters(middles), strict=True))
        group = np.array([of_item[i] for i in item])
    else:
        group = np.unique(np.array(groups)[item], return_inverse=True)[1]
    return Labels(classes, rows, columns, target[item], item, group.astype(np.intp), groups is not None)


def clusters(places: NDArray[np.float64]) -> NDArray[np.intp]:
    """Groups of places that lie near each other, at most `CLUSTERS`, by Ward's method: (N,).

    Places are first gathered into cells, a 32nd of their extent wide, so that many cost no more than few.
    """
    from scipy.cluster.hierarchy import fcluster, ward

    extent = max(float(np.ptp(places, axis=0).max()), 1.0)
    cell = np.floor((places - places.min(axis=0)) / extent * _GRAIN)
    held, of_place = np.unique(cell, axis=0, return_inverse=True)
    if len(held) < 3:
        return np.asarray(of_place.ravel(), np.intp)
    found = fcluster(ward(held), CLUSTERS, "maxclust") - 1
    return np.asarray(found[of_place.ravel()], np.intp)


def _agreed(labels: Labels, path: Path, say: Say) -> Labels:
    """Each pixel once, and those without that are given two classes."""
    places = np.stack((labels.rows, labels.columns), axis=1)
    _, first, number = np.unique(places, axis=0, return_index=True, return_inverse=True)
    said = {*zip(number.ravel().tolist(), labels.target.tolist(), strict=True)}
    pairs = Counter(pixel for pixel, _ in said)
    agreed = np.zeros(len(places), bool)
    agreed[[at for n, at in enumerate(first) if pairs[n] == 1]] = True
    if torn := sum(count > 1 for count in pairs.values()):
        say(f"{path}: {torn} pixels are given two classes: left out")
    if agreed.all():
        return labels
    left = labels.some(agreed)
    left.check(path)
    return left
