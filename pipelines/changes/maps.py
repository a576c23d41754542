"""What was found, as rasters: when, how much, how sure; and which pixels changed alone or with all of their kind."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from models.changes.history import Ground, History
from models.changes.runs import Runs
from models.spec import ClassDef
from models.types import Array
from pipelines.changes.alerts import Found
from pipelines.changes.series import Series
from pipelines.grids.windows import Window
from pipelines.outputs.geotiff import join
from pipelines.outputs.layout import Layout, Pixels, Regroup
from pipelines.outputs.parts import write_part

UNSEEN, SAME, OWN, SHARED = 0, 1, 2, 3  # codes of the map
CLASSES = (
    ClassDef(SAME, "no change", "#e8e8e0"),
    ClassDef(OWN, "changed by itself", "#c01828"),
    ClassDef(SHARED, "changed with its kind", "#e8b040"),
)
WATCH = "EARTHTUNE_WATCH"  # tag: which history it is watched against; numbers of alerts are of that
Strips = Iterator[tuple[Window, Ground, Runs]]


def codes(ground: Ground, runs: Runs, of_kinds: Runs) -> NDArray[np.uint8]:
    """Codes of pixels (N,)."""
    with_kind = np.where(of_kinds.changed[ground.kinds] > 0, SHARED, SAME)
    return np.where(runs.changed > 0, OWN, np.where(np.isfinite(ground.astray), with_kind, UNSEEN)).astype(np.uint8)


def values(history: History, ground: Ground, runs: Runs, of_kinds: Runs) -> Array:
    """Bands of pixels (B, N) as `bands` names them, NaN where nothing changed."""
    code, kinds = codes(ground, runs, of_kinds), ground.kinds
    own = code == OWN
    days = [np.where(own, getattr(runs, day), getattr(of_kinds, day)[kinds]) for day in ("changed", "before", "told")]
    size = np.where(own, runs.size, of_kinds.size[:, kinds])
    score = (runs.score / np.where(own, ground.unit, 1)).astype(np.float32)
    chance = np.where(own, 1 - history.chance(score, kinds), np.nan)
    out = np.stack((*days, *size, chance, code)).astype(np.float32)
    out[1, out[1] == 0] = np.nan  # changed before anything was seen of it
    out[:, code < OWN] = np.nan
    return out


def bands(features: Sequence[str]) -> list[tuple[str, str]]:
    """Name and unit of each band of the changes."""
    days = [(name, "days since 1970-01-01") for name in ("CHANGED", "SEEN_BEFORE", "CONFIRMED")]
    sizes = [(f"SIZE_{name}", "1") for name in features]
    return [*days, *sizes, ("PROBABILITY", "1"), ("CODE", "1")]


def _layouts(geobox: GeoBox, features: Sequence[str], watch: str) -> dict[str, Layout]:
    """Layouts of the rasters by what they are."""
    tags = {"TIFFTAG_SOFTWARE": f"earthtune {version('earthtune')}", WATCH: watch}
    named = bands(features)
    whole = Layout.of_fields(geobox, [name for name, _ in named], [unit for _, unit in named], tags=tags)
    return {
        "changes": dataclasses.replace(whole, overview_resampling="nearest"),  # no mean of two days
        "map": Layout(geobox, "uint8", 1, UNSEEN, CLASSES, ["CHANGE"], tags=tags),
        "confidence": Layout.of_fields(geobox, ["CONFIDENCE"], ["1"], tags=tags),
    }


def write_maps(
    out: Path, series: Series, history: History, of_kinds: Runs, strips: Strips, *, watch: str
) -> tuple[dict[str, Path], Found]:
    """Write the rasters, strip by strip; each replaces the one of an earlier date, whole.

    Args:
        out: their folder.
        series: what is watched, on which grid.
        history: of the place.
        of_kinds: runs of its kinds.
        strips: all of them.
        watch: which beginning it is of.

    Returns:
        The files by what they are, and what alerts are made of.
    """
    geobox, features = series.geobox, series.features
    layouts, found = _layouts(geobox, features, watch), Found.empty(geobox, features)
    files = {kind: out / ("changes.tif" if kind == "changes" else f"changes_{kind}.tif") for kind in layouts}
    with tempfile.TemporaryDirectory(dir=out, prefix=".changes.") as work, rasterio.Env():
        folders = {kind: Path(work) / kind for kind in layouts}
        regroup = {kind: Regroup(layout, what=str(files[kind])) for kind, layout in layouts.items()}
        for folder in folders.values():
            folder.mkdir()
        for (rows, _), ground, runs in strips:
            shape = rows.stop - rows.start, -1
            made = values(history, ground, runs, of_kinds).reshape(len(bands(features)), *shape)
            found.put(rows, made, ground.kinds.reshape(shape), own=OWN)
            code = codes(ground, runs, of_kinds).reshape(1, *shape)
            blocks: dict[str, Pixels] = {"changes": made, "map": code, "confidence": made[-2:-1]}
            for kind, block in blocks.items():
                for row, part in regroup[kind].add(rows.start, block):
                    write_part(folders[kind], row, part, layouts[kind], files[kind])
        for kind, layout in layouts.items():
            regroup[kind].finish()
            join(folders[kind], files[kind], layout)
    return files, found
