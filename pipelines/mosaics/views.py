"""A map as one view of the ground among others: what it says of each pixel, when it was seen, and how well."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox
from scipy.ndimage import distance_transform_edt

from models.errors import InputError
from models.spec import ClassDef
from models.types import Array
from pipelines.grids import align
from pipelines.grids.align import read_onto
from pipelines.grids.areas import ground_system, scene_name
from pipelines.grids.windows import Window
from pipelines.outputs.categories import read_categories

MADE_BY = "EARTHTUNE_BUNDLE"  # the tag
HALF_LIFE = 30.0  # days from the wanted date after which a view weighs half


@dataclass(frozen=True)
class View:
    """A finished map.

    Attributes:
        map: the map as `score` wrote it.
        answers: its probabilities, a band a class; the map itself where it holds values.
        geobox: its grid.
        classes: the classes; none where it holds values.
        about: name and unit of what it tells.
        kind: type of the pixels of the map, and their value without data.
        date: the last day it was seen; None where that is not known.
        made_by: the run, by its hash.
    """

    map: Path
    answers: Path
    geobox: GeoBox
    classes: tuple[ClassDef, ...]
    about: tuple[str, str]
    kind: tuple[str, float | None]
    date: datetime.date | None
    made_by: str

    @property
    def channels(self) -> int:
        """Bands of the answers."""
        return max(len(self.classes), 1)


def open_view(path: Path) -> View:
    """Look at a map.

    Raises:
        InputError: no map that `score` writes, one without place on the ground, or without its probabilities.
    """
    with _opened(path) as source:
        kind, count, geobox, tags = (source.dtypes[0], source.nodata), source.count, align.grid(source), source.tags()
        about = str(source.descriptions[0] or ""), str(source.units[0] or "")
    values = kind[0].startswith("float")
    if count != 1 or not (values or kind[0] in ("uint8", "uint16")):
        came = f"{count} of {kind[0]}"
        raise InputError(f"{path}: wanted a map of one band, of classes or of floats, as score writes it; came {came}")
    ground_system(geobox, str(path))
    classes, made_by = () if values else read_categories(path), tags.get(MADE_BY, "")
    answers = path if values else _probabilities(path, classes, geobox, made_by)
    return View(path, answers, geobox, classes, about, kind, _day(tags.get("ACQUISITION_DATE", "")), made_by)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A raster that is not kept open: each holds a block of all its bands, and there may be a thousand."""
    try:
        yield align.dataset(str(path))
    finally:
        align.forget(str(path))


def _day(said: str) -> datetime.date | None:
    """The last of the dates of a map's tag; None where it says none."""
    try:
        return max((datetime.date.fromisoformat(day) for day in said.split(",") if day), default=None)
    except ValueError:
        return None


def _probabilities(path: Path, classes: Sequence[ClassDef], geobox: GeoBox, made_by: str) -> Path:
    """The file of probabilities beside a map of classes."""
    beside = path.with_name(f"{scene_name(path)}_probabilities.tif")
    if not beside.is_file():
        again = "score the scene with --probabilities, or all of them with `score ... --mosaic FILE`"
        raise InputError(f"{path}: no {beside.name} beside it, which is what is averaged; {again}")
    wanted = [f"{entry.code} {entry.name}" for entry in classes]
    with _opened(beside) as source:
        if [*source.descriptions] != wanted or align.grid(source) != geobox:
            raise InputError(f"{beside}: its bands or its grid are not those of {path.name}; score the scene again")
        if source.tags().get(MADE_BY, "") != made_by:
            raise InputError(f"{beside}: made by another run than {path.name}; score the scene again")
    return beside


def check_alike(views: Sequence[View]) -> list[str]:
    """Refuse maps that say different things.

    Returns:
        What a person should know.

    Raises:
        InputError: classes or quantities differ.
    """
    first = views[0]
    for view in views[1:]:
        if (view.classes, view.about, view.kind[0]) != (first.classes, first.about, first.kind[0]):
            what = "classes" if first.classes or view.classes else "quantity or unit"
            raise InputError(f"{view.map}: other {what} than {first.map.name}; a mosaic is of maps that say the same")
    runs = len({view.made_by for view in views})
    return [f"the maps were made by {runs} different runs"] if runs > 1 else []


def seen(view: View, geobox: GeoBox, window: Window, *, feather: int) -> tuple[Array, Array]:
    """What a view says of a window of a grid, and how well it was seen.

    A pixel weighs less the nearer it is to what the view has not seen, a cloud or its own edge, where the model knew
    less of the surroundings: sin^2(pi/2 min(d / `feather`, 1)) at distance d in pixels, at least 1. So a view that
    begins leaves no seam.

    Args:
        view: the view.
        geobox: the grid.
        window: rows and columns of it.
        feather: pixels; farther away all pixels weigh the same.

    Returns:
        Answers (K, rows, columns), NaN where nothing was seen; weights (rows, columns), 0 there, at most 1.
    """
    rows, columns = window
    around = (slice(rows.start - feather, rows.stop + feather), slice(columns.start - feather, columns.stop + feather))
    with _opened(view.answers) as source:
        y = read_onto(source, geobox, around, indexes=range(1, view.channels + 1))  # (K, h + 2 feather, w + 2 feather)
    known = np.isfinite(y).all(axis=0)
    inner = np.s_[feather : feather + rows.stop - rows.start, feather : feather + columns.stop - columns.start]
    if known.all():
        return y[:, *inner], np.ones(known[inner].shape, np.float32)
    near = np.minimum(distance_transform_edt(known)[inner] / feather, 1)
    return y[:, *inner], (np.sin(np.pi / 2 * near) ** 2).astype(np.float32)


def nearness(view: View, date: datetime.date | None) -> float:
    """What a view weighs for its date: half for each `HALF_LIFE` days from the wanted one; 1 where none is wanted."""
    if date is None or view.date is None:
        return 1.0
    return float(max(0.5 ** (abs((view.date - date).days) / HALF_LIFE), 1e-6))
