"""Which runs read the same tiles of a scene, and can be predicted from them together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.bundle import Bundle
from models.errors import InputError
from pipelines.recipes.recipe import READ_LIKE

HEARD_LIKE = ("weather", "static")


def passes_of(runs: Mapping[Path, Bundle], overlap: int | None) -> list[tuple[tuple[Path, ...], int]]:
    """Runs that can be predicted from the same tiles, together, with the overlap of those tiles."""
    alike: dict[Any, dict[str, list[Path]]] = {}  # by what is read of scenes, and by what stands beside them
    for path, bundle in runs.items():
        pixels, support = bundle.spec.imagery, bundle.spec.answer.support
        read = [bundle.data.get(key) for key in READ_LIKE]
        inputs = (
            pixels.channels,
            pixels.times,
            pixels.tile,
            pixels.unit,
            pixels.pixel,
            pixels.uses_time,
            pixels.uses_location,
        )
        series = [(name, s.channels, s.units, s.times, s.step) for name, s in bundle.spec.series.items()]
        ground = bundle.data.get("root") if bundle.data.get("static") else None  # its rasters are of another place
        heard = repr((series, ground, [bundle.data.get(key) for key in HEARD_LIKE])) if series else ""
        alike.setdefault((inputs, support == "tile", repr(read)), {}).setdefault(heard, []).append(path)
    groups: list[list[Path]] = []
    for kinds in alike.values():  # a run of imagery alone goes along with any other
        plain = kinds.pop("", [])
        first, *rest = kinds.values() or [[]]
        groups += [sorted([*plain, *first], key=[*runs].index), *rest]
    passes = []
    for paths in groups:
        tile = runs[paths[0]].spec.imagery.tile
        shared = usual(tile) if overlap is None else overlap
        if not 0 <= shared < tile:
            raise InputError(f"overlap {shared}: wanted 0 to {tile - 1}, below the tile of {tile} pixels")
        passes.append((tuple(paths), shared))
    return passes


def usual(tile: int) -> int:
    """Pixels that neighbouring tiles share where nobody says."""
    return tile // 4
