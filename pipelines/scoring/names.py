"""What is wrong with scenes by their names alone, told before any is opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.errors import InputError
from pipelines.scenes.bands import RASTERS


def files_of(source: str) -> list[str]:
    """The local files and folders of a scene."""
    return [part for part in source.split(",") if "://" not in part] if not Path(source).exists() else [source]


def by_name(sources: Sequence[str], kind: str = "map") -> dict[str, InputError]:
    """What is wrong with scenes by their names alone, where a file SCENE_kind.tif is written of each."""
    refused: dict[str, InputError] = {}
    stems: dict[str, str] = {}
    for source in sources:
        missing = next((part for part in files_of(source) if not part.startswith("/vsi") and not _there(part)), None)
        stem = Path((files_of(source) or [source])[0]).stem
        if missing:
            refused[source] = InputError(f"{missing}: no such file; check the path")
        elif Path(source).suffix.lower() in RASTERS and stems.setdefault(stem, source) != source:
            same = f"would be written as {stem}_{kind}.tif, as {stems[stem]} is"
            refused[source] = InputError(f"{source}: {same}; take two folders")
    return refused


def _there(part: str) -> bool:
    """Whether a local file is there; GDAL's own names of what is inside a file are left to GDAL."""
    return Path(part).exists() or ":" in part
