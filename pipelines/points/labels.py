"""A few labelled points or polygons, from a table or a file of shapes, as pixels of a scene and their groups."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from models.errors import InputError, shown
from models.spec import ClassDef
from models.types import Say
from pipelines.points.tables import read_table
from pipelines.samples.splits import some

EACH = 25  # pixels of a polygon that are learned from, evenly of all
MOST = 4000  # pixels in all
LONGEST = 100  # letters of the name of a class
CLASSES = 100  # more are no classes, but another column
CLUSTERS = 12  # groups that are made of places, where none are named
_GRAIN = 32  # steps of a side of the labels' extent; what lies within one stays together
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

    def kept(self, known: NDArray[np.bool_], name: str, say: Say) -> Labels:
        """Those of which something is known.

        Raises:
            InputError: see `check`.
        """
        lost = len(np.unique(self.item)) - len(np.unique(self.item[known]))
        if lost:
            say(f"{name}: {lost} labels lie where the scene or its tokens have no data (cloud, fill): left out")
        left = self.some(known)
        left.check(name)
        return left

    def some(self, chosen: NDArray[np.bool_]) -> Labels:
        """The pixels that are chosen."""
        pixels = ("rows", "columns", "target", "item", "group")
        return dataclasses.replace(self, **{name: getattr(self, name)[chosen] for name in pixels})

    def check(self, name: str) -> None:
        """Refuse labels that no head can learn from, or be asked about.

        Raises:
            InputError: fewer than two classes, or a class of one object.
        """
        counts = self.counts()
        if sum(count > 0 for count in counts.values()) < 2:
            raise InputError(f"{name}: labels of {some(list(counts)) or 'no class'} on the scene; wanted two classes")
        few = [one for one, count in counts.items() if count < 2]
        if few:
            told = f"{some(few)}: {counts[few[0]]} label on the scene"
            raise InputError(f"{name}: {told}; give each class two at least, so that one can be asked about")

    def alone(self) -> list[str]:
        """Classes whose labels are all of one group."""
        groups = [np.unique(self.group[self.target == index]) for index in range(len(self.classes))]
        return [one.name for one, found in zip(self.classes, groups, strict=True) if len(found) == 1]

    def counts(self) -> dict[str, int]:
        """Objects of each class by its name."""
        return {one.name: len(np.unique(self.item[self.target == index])) for index, one in enumerate(self.classes)}


def read_points(
    paths: Sequence[Path], geobox: GeoBox, *, column: str | None, layer: str | None, group: str | None, say: Say
) -> Labels:
    """Read labels onto the pixels of a scene.

    What has no class, or lies outside, is told and left out; so is a pixel that is given two classes.

    Args:
        paths: files of labels, see `tables.read_table`; those of all count.
        geobox: the scene's grid.
        column: of the classes, by name or code; one that is called so where None.
        layer: of a file that has several.
        group: the column that tells which labels belong together; one called so where None and all files have one.
        say: is told what is left out.

    Raises:
        InputError: what is no such file, has no such column, or holds too few labels on the scene.
    """
    tables = [read_table(path, geobox, column=column, layer=layer, group=group, say=say) for path in paths]
    name = " and ".join(map(str, paths))
    classes, target = classes_of(name, [text for table in tables for text in table.classes])
    pixels = [pair for table in tables for pair in _pixels(table.shapes, geobox)]
    outside = sum(len(rows) == 0 for rows, _ in pixels)
    if outside == len(pixels):
        left, bottom, right, top = geobox.extent.boundingbox
        told = f"{left:.8g} to {right:.8g}, {bottom:.8g} to {top:.8g} in its system"
        raise InputError(f"{name}: none of {len(pixels)} labels lies on the scene, which is {told}")
    if outside:
        say(f"{name}: {outside} of {len(pixels)} labels lie outside of the scene: left out")
    named = all(table.groups for table in tables)
    labels = _gathered(classes, target, pixels, [text for table in tables for text in table.groups] if named else None)
    labels.check(name)
    return _agreed(labels, name, say)


def classes_of(name: str, values: Sequence[Any]) -> tuple[tuple[ClassDef, ...], NDArray[np.intp]]:
    """The classes by code, or by name in the order of the alphabet, with codes from 1; and the class of each value."""
    texts = [str(value).strip() for value in values]
    codes = [_code(text) for text in texts]
    if any(code is None for code in codes):
        keys: list[Any] = [text.casefold() for text in texts]
        if long := [text for text in texts if len(text) > LONGEST]:
            told = f"{long[0][:20]!r} and on, {len(long[0])} letters"
            raise InputError(f"{name}: {told}; wanted names of classes, of {LONGEST} at most")
        clean = [" ".join(shown(text).split()) for text in texts]
        spelled = {key: text for key, text in zip(reversed(keys), reversed(clean), strict=True)}
        listed = [(number, spelled[key]) for number, key in enumerate(sorted(spelled), 1)]
    else:
        keys = codes
        listed = [(code, f"class {code}") for code in sorted({code for code in codes if code is not None})]
    if len(listed) > CLASSES:
        raise InputError(f"{name}: the column of classes holds {len(listed)} values, wanted {CLASSES} classes at most")
    if not listed:
        raise InputError(f"{name}: no label has a class; give each point its class")
    bad = [code for code, _ in listed if not 0 <= code <= 65535]
    if bad:
        raise InputError(f"{name}: the column of classes holds {bad[0]}; wanted codes of 0 to 65535, or names")
    classes = tuple(ClassDef(code, named, _COLOURS[i % len(_COLOURS)]) for i, (code, named) in enumerate(listed))
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
                rows, columns = (np.array([at] * int(inside)) for at in (row, column))
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


def _agreed(labels: Labels, name: str, say: Say) -> Labels:
    """Each pixel once, and those without that are given two classes."""
    places = np.stack((labels.rows, labels.columns), axis=1)
    _, first, number = np.unique(places, axis=0, return_index=True, return_inverse=True)
    said = {*zip(number.ravel().tolist(), labels.target.tolist(), strict=True)}
    pairs = Counter(pixel for pixel, _ in said)
    agreed = np.zeros(len(places), bool)
    agreed[[at for n, at in enumerate(first) if pairs[n] == 1]] = True
    if torn := sum(count > 1 for count in pairs.values()):
        say(f"{name}: {torn} pixels are given two classes: left out")
    if agreed.all():
        return labels
    left = labels.some(agreed)
    left.check(name)
    return left
