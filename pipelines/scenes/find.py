"""Which scenes are meant by files, patterns and folders."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from models.errors import InputError
from pipelines.records.ledger import FOLDER, KINDS
from pipelines.scenes.bands import RASTERS
from pipelines.scenes.cubes import is_cube
from pipelines.scenes.products import holds_bands
from pipelines.scenes.sensors import cloud_code

_ARRAYS = (".nc", ".nc4")  # scenes in a folder that holds no other


def find_scenes(sources: Sequence[str]) -> list[str]:
    """The scenes that are meant: patterns spelled out, and folders of many scenes taken apart; each once, in order.

    Raises:
        InputError: a pattern that nothing matches.
    """
    found: list[str] = []
    for source in sources:
        if "://" not in source and glob.has_magic(source) and not Path(source).exists():
            matches = [match for match in sorted(glob.glob(source, recursive=True)) if not _is_map(Path(match))]
            if not matches:
                raise InputError(f"{source}: no file matches this pattern; check the path")
        else:
            matches = [source]
        for match in matches:
            found += _inside(Path(match)) if "://" not in match and Path(match).is_dir() else [match]
    return list(dict.fromkeys(found))


def of_arrays(source: str) -> bool:
    """Whether a scene is a NetCDF file or a Zarr store, which may hold many dates, and bands that others lack."""
    return is_cube(source) or source.lower().endswith(_ARRAYS)


def _holds_any(folder: Path) -> bool:
    """Whether there is a raster anywhere in a folder."""
    return any(path.suffix.lower() in (*RASTERS, *_ARRAYS) for path in folder.rglob("*"))


def _is_map(file: Path) -> bool:
    """Whether a file is a map of ours, which may lie among the scenes."""
    return file.stem.endswith(tuple(f"_{kind}" for kind in KINDS)) and (file.parent / FOLDER).is_dir()


def _inside(folder: Path) -> list[str]:
    """The scenes in a folder: itself, if it holds band files or a single raster; else its rasters and its folders."""
    if folder.suffix == ".SAFE" or is_cube(str(folder)) or holds_bands(folder):
        return [str(folder)]
    files = [f for f in sorted(folder.iterdir()) if not f.name.startswith(".")]
    kinds = [(f, f.suffix.lower()) for f in files if f.is_file()]
    rasters = [f for f, kind in kinds if kind in RASTERS] or [f for f, kind in kinds if kind in _ARRAYS]
    rasters = [f for f in rasters if not _is_map(f)]
    clouds = [f for f in rasters if cloud_code(f.stem.replace(".", "_").rpartition("_")[2])]
    folders = [f for f in files if f.is_dir() and (is_cube(str(f)) or _holds_any(f))]
    scenes = [str(f) for f in rasters if f not in clouds]
    scenes += [scene for inner in folders for scene in _inside(inner)]
    return scenes or [str(folder)]  # which will be refused with the reason
