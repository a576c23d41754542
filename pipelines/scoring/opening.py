"""A scene opened for a model, and what a person should know before it is scored; its map in a file, with no more."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.bundle import Bundle
from models.errors import InputError
from models.runtime.engines import Runtime
from models.spec import Pixels, Spec
from models.types import Progress
from pipelines.grids.areas import pixel_notes
from pipelines.scenes.scene import Reading, Scene, open_told
from pipelines.scoring.rows import draw, layouts, map_rows


def open_for(bundle: Bundle, source: str, reading: Reading | None = None) -> Scene:
    """Open a scene for a bundle: as told, else as the files say, else as the training files were read.

    Raises:
        InputError: the scene lacks bands, frames, dates or a place that the model wants.
    """
    pixels = bundle.spec.imagery
    files = source.split(",") if pixels.times > 1 else [source]
    scene = open_told(files, pixels.channels, reading or Reading(), times=pixels.times, like=bundle.data)
    if scene.frames != pixels.times:
        raise InputError(
            f"{source}: wanted {pixels.times} frames, came {scene.frames}; give one file per date, joined by commas"
        )
    if pixels.uses_time:
        scene.time()
    if pixels.uses_location:
        scene.location((slice(0, 1), slice(0, 1)))
    return scene


def warnings_about(scene: Scene, spec: Spec) -> list[str]:
    """What a person should know before a scene is scored: of its files, its units and the size of its pixels."""
    return [*scene.notes, *_unit_notes(scene, spec.imagery), *pixel_notes(scene.geobox, spec.imagery.pixel)]


def _unit_notes(scene: Scene, pixels: Pixels) -> list[str]:
    """A warning where the values in the middle of a scene lie far from those that the model knows."""
    middle = [max((side - pixels.tile) // 2, 0) for side in scene.shape]
    rows, columns = (slice(m, min(m + pixels.tile, side)) for m, side in zip(middle, scene.shape, strict=True))
    x, valid = scene.read((rows, columns))
    if not valid.any():
        return []
    bright = np.percentile(np.abs(x[..., valid]), 98, axis=(1, 2))  # (C,)
    ratio = float(np.median(bright / np.maximum(np.abs(pixels.mean), 1e-6)))
    if 1 / 30 < ratio < 30:
        return []
    told = f"bright pixels are {ratio:.2g} times the model's mean"
    return [f"WARNING: {told}: wrong unit? wanted {pixels.unit} (--scale)"]


def write_map(
    path: Path,
    scene: Scene,
    bundle: Bundle,
    runtime: Runtime,
    *,
    overlap: int,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write the map of one scene to a file, with nothing beside it."""
    from pipelines.outputs.geotiff import write_rows

    layout = layouts(bundle, scene, ["map"], {})["map"]
    rows = map_rows(scene, [bundle.spec], runtime, overlap=overlap, progress=progress)
    write_rows(path, ((row, draw("map", bundle.spec, y, valid)) for row, y, valid in rows), layout, overwrite=overwrite)
