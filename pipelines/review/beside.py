"""A map and the files that lie beside it: which there are, whether they belong together, what its classes are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from odc.geo.geobox import GeoBox

from models.errors import InputError
from models.runtime.hashes import sha256_now
from models.spec import ClassDef
from pipelines.grids import align
from pipelines.grids.areas import scene_name
from pipelines.outputs.categories import read_categories

KINDS = ("probabilities", "confidence", "unfamiliar", "lower", "upper")
_MADE_BY = "EARTHTUNE_BUNDLE"
_AGAIN = "score the scene again with --confidence --probabilities"


@dataclass(frozen=True)
class Mapped:
    """A map and what lies beside it.

    Attributes:
        path: the map.
        geobox: its grid.
        classes: of a map of classes; empty for values.
        unit: of a map of values.
        files: rasters on the same grid by their kind, of `KINDS`.
        hashes: sha256 of the map ("map") and of these files.
    """

    path: Path
    geobox: GeoBox
    classes: tuple[ClassDef, ...]
    unit: str = ""
    files: Mapping[str, Path] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)

    @property
    def scene(self) -> str:
        """The scene that it is of."""
        return scene_name(self.path)

    def target(self, suffix: str, out: Path | None) -> Path:
        """A file of its review: `<scene>_review<suffix>` beside the map, or beside `out` under that name."""
        stem = out.with_suffix("") if out else self.path.with_name(f"{self.scene}_review")
        return stem.with_name(stem.name + suffix)  # names of scenes have dots


def open_map(path: Path) -> Mapped:
    """Open a map and what lies beside it.

    Args:
        path: `<scene>_map.tif`, as `earthtune score` writes it.

    Raises:
        InputError: no map, one of another make, nothing that tells doubt beside it, or files of another grid or run.
    """
    if not path.name.endswith("_map.tif"):
        raise InputError(f"{path}: wanted a map, SCENE_map.tif, as `earthtune score` writes it; name that")
    source = align.dataset(str(path))
    values = source.count == 1 and source.dtypes[0].startswith("float")
    if source.count != 1 or not (values or source.dtypes[0] in ("uint8", "uint16")):
        raise InputError(f"{path}: wanted a map of one band of classes or floats, came {align.bands_of(source)}")
    geobox = align.grid(source)
    classes = () if values else read_categories(path)
    beside = {kind: path.with_name(f"{scene_name(path)}_{kind}.tif") for kind in KINDS}
    files = {kind: file for kind, file in beside.items() if file.is_file()}
    for file in files.values():
        _check(file, path, source, geobox)
    ends = {"lower", "upper"} <= files.keys()
    if "unfamiliar" not in files and not (ends if values else {"confidence", "probabilities"} & files.keys()):
        wanted = "lower.tif and _upper.tif" if values else "probabilities.tif or _confidence.tif"
        told = f"nothing beside it tells where it is not sure; wanted {scene_name(path)}_{wanted}"
        raise InputError(f"{path}: {told}; {'score it with --interval' if values else _AGAIN}")
    hashes = {"map": sha256_now(path)} | {kind: sha256_now(file) for kind, file in files.items()}
    return Mapped(path, geobox, classes, str(source.units[0] or ""), files, hashes)


def _check(file: Path, path: Path, source: Any, geobox: GeoBox) -> None:
    """Refuse a file that does not belong to the map."""
    other = align.dataset(str(file))
    if align.grid(other) != geobox:
        sides = (
            f"{other.height} x {other.width} pixels, {path.name} has {source.height} x {source.width}, or another place"
        )
        raise InputError(f"{file}: {sides}; {_AGAIN}")
    ours, theirs = source.tags().get(_MADE_BY), other.tags().get(_MADE_BY)
    if ours != theirs:
        told = f"made by run {str(theirs)[:12]}, the map {path.name} by run {str(ours)[:12]}"
        raise InputError(f"{file}: {told}; {_AGAIN}")


def scene_of(mapped: Mapped) -> str | None:
    """The scene that a map was drawn from, by its item and tags; None where it does not lie near."""
    item = mapped.path.with_name(f"{mapped.scene}.json")
    names = [name for name in align.dataset(str(mapped.path)).tags().get("EARTHTUNE_INPUT", "").split(",") if name]
    linked: list[str] = []
    if item.is_file():
        try:
            links = json.loads(item.read_text(encoding="utf-8")).get("links", [])
            linked = [str(link["href"]) for link in links if link.get("rel") == "derived_from"]
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise InputError(
                f"{item}: not a STAC item that can be read ({error}); remove it, or score again"
            ) from error
    local = [unquote(address) for address in linked if "://" not in address]
    folder = mapped.path.parent
    near = [folder / name for name in (*local, *names)] + [folder.parent / name for name in names]
    return next((str(path) for path in near if path.exists()), None)
