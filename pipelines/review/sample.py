"""Points of a sample, to be labelled blind: read from a GeoPackage, and their labels written back into it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models import files
from models.errors import InputError, RunError
from models.spec import ClassDef
from pipelines.outputs.forms import choices_of
from pipelines.review.answers import Answer
from pipelines.review.package import check_closed
from pipelines.samples.labelling.polygon_files import check_polygons

LAYERS, NUMBERS, LABEL = ("sample", "points"), ("id", "point"), "label"
_COLOURS = ("#1b9e77", "#d95f02", "#7570b3", "#e7298a", "#66a61e", "#e6ab02", "#a6761d", "#1f78b4")


@dataclass(frozen=True)
class Sample:
    """Points that wait for labels.

    Attributes:
        path: the GeoPackage.
        layer: its layer of points.
        number: its column of whole numbers that tell points apart.
        points: (x, y) by that number, in the order of the file.
        crs: their coordinate system as WKT, None where there is none.
        held: labels that are there already, as text.
        offered: classes that its form offers; empty where it has none.
        textual: whether labels are kept as text.
    """

    path: Path
    layer: str
    number: str
    points: Mapping[int, tuple[float, float]]
    crs: str | None
    held: Mapping[int, str]
    offered: tuple[ClassDef, ...]
    textual: bool


def read_sample(path: Path) -> Sample:
    """Read a sample: a GeoPackage with a layer of points `sample` (or `points`), columns `id` (or `point`) and `label`.

    Raises:
        InputError: it is none, or its points cannot be told apart.
    """
    import pandas
    import pyogrio

    check_polygons(path)
    check_closed(path)
    there = [str(name) for name, _ in pyogrio.list_layers(path)]
    layer = next((name for name in LAYERS if name in there), None)
    if layer is None:
        raise InputError(
            f"{path}: wanted a layer of points called sample, it has {', '.join(there) or 'none'}; rename it"
        )
    table = pyogrio.read_dataframe(path, layer=layer)
    number = next((name for name in NUMBERS if name in table.columns), None)
    if number is None or LABEL not in table.columns:
        has = ", ".join(name for name in table.columns if name != "geometry")
        raise InputError(f"{path}: layer {layer} wants the columns id and label, it has {has}; add what lacks")
    if not len(table) or table.geometry is None or set(table.geometry.geom_type) != {"Point"}:
        raise InputError(f"{path}: layer {layer} holds no points, or not only points; give the file of a sample")
    numbers = pandas.to_numeric(table[number], errors="coerce")
    if numbers.isna().any() or numbers.duplicated().any() or (numbers % 1 != 0).any():
        raise InputError(f"{path}: column {number} wants whole numbers, each once; number the points anew")
    keys = [int(value) for value in numbers]
    points = {key: (float(p.x), float(p.y)) for key, p in zip(keys, table.geometry, strict=True)}
    texts = {key: _text(value) for key, value in zip(keys, table[LABEL], strict=True)}
    textual = not pandas.api.types.is_numeric_dtype(table[LABEL])
    crs = None if table.crs is None else table.crs.to_wkt()
    return Sample(
        path, layer, number, points, crs, {k: t for k, t in texts.items() if t}, _offered(path, layer, there), textual
    )


def _text(value: Any) -> str:
    """A label as text: 40 for 40.0, nothing for what lacks."""
    if value is None or value != value:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value).strip()


def _offered(path: Path, layer: str, there: list[str]) -> tuple[ClassDef, ...]:
    """Classes that the form of a layer offers for its labels: whole numbers by their names."""
    import pyogrio

    if "layer_styles" not in there:
        return ()
    styles = pyogrio.read_dataframe(path, layer="layer_styles")
    if not {"f_table_name", "styleQML"} <= set(styles.columns):
        return ()
    for qml in styles.loc[styles["f_table_name"] == layer, "styleQML"]:
        found = choices_of(str(qml), LABEL)
        codes = [(name, value) for name, value in found.items() if value.isdecimal() and int(value) <= 65535]
        if codes:
            return tuple(ClassDef(int(v), n, _COLOURS[i % len(_COLOURS)]) for i, (n, v) in enumerate(codes))
    return ()


def held_answers(sample: Sample, classes: tuple[ClassDef, ...]) -> dict[int, Answer]:
    """Labels that a sample holds already, as codes or names of classes.

    Raises:
        InputError: a label is no class.
    """
    known = {str(entry.code): entry.code for entry in classes} | {entry.name: entry.code for entry in classes}
    for key, text in sample.held.items():
        if text not in known:
            names = ", ".join(entry.name for entry in classes)
            raise InputError(f"{sample.path}: point {key} is labelled {text!r}, wanted one of {names}; mend it")
    return {key: Answer("class", known[text]) for key, text in sample.held.items()}


def write_labels(sample: Sample, said: Mapping[int, Answer], classes: tuple[ClassDef, ...]) -> int:
    """Write labels into a sample, which appears whole with them or stays as it is; all else in it is left alone.

    Returns:
        The number of points that have a label.

    Raises:
        InputError: another program has the file open.
        RunError: the disk does not take it.
    """
    check_closed(sample.path)
    names = {entry.code: entry.name for entry in classes}
    textual_names = sample.textual and not sample.offered  # a form stores its values, which are codes
    rows = []
    for key, answer in said.items():
        label = None if answer.word != "class" or answer.label is None else int(answer.label)
        value = label if label is None or not sample.textual else names[label] if textual_names else str(label)
        rows.append((value, key))
    with files.draft(sample.path) as draft:
        shutil.copyfile(sample.path, draft)
        _update(draft, sample, rows)
    return sum(value is not None for value, _ in rows)


def _update(draft: Path, sample: Sample, rows: list[tuple[Any, int]]) -> None:
    """Set labels by number. GeoPackages have triggers on places that name functions which SQLite lacks."""
    connection = sqlite3.connect(draft)
    try:
        for name in ("ST_IsEmpty", "ST_MinX", "ST_MaxX", "ST_MinY", "ST_MaxY"):
            connection.create_function(name, 1, lambda place: 0)  # none is called: no place is changed
        with connection:
            statement = f'UPDATE "{sample.layer}" SET "{LABEL}" = ? WHERE "{sample.number}" = ?'
            connection.executemany(statement, rows)
    except sqlite3.Error as error:
        raise RunError(f"{sample.path}: labels could not be written ({error}); all are kept beside it") from error
    finally:
        connection.close()
