"""Files as assets of a STAC item: where, which bytes, what a header tells of pixels, what codes mean."""

from __future__ import annotations

import base64
import functools
import hashlib
import math
import os
import re
import unicodedata
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.spec import ClassDef

MODEL = "model"  # the one asset that may lie in another folder

_GEOTIFF = "image/tiff; application=geotiff"
MEDIA_TYPES = {".jp2": "image/jp2", ".png": "image/png", ".json": "application/json"}
MEDIA_TYPES |= {".tif": _GEOTIFF, ".tiff": _GEOTIFF}
_ROLES = {"thumbnail": "thumbnail", MODEL: "mlm:model"}
_TITLES = {
    "map": "Map",
    "image": "Reflectance",
    "probabilities": "Probability of each class",
    "confidence": "Confidence",
    "sets": "Sets of classes",
    "lower": "Lower end of the interval",
    "upper": "Upper end of the interval",
    "views": "How many views, and the day of the best",
    "unfamiliar": "Unlike the training's ground",
    "embeddings": "Patch tokens",
    "thumbnail": "Picture of the map",
    "class_before": "Classes before",
    "class_after": "Classes on the last days",
    "alerts_picture": "The largest alerts, before, after and from day to day",
    MODEL: "Model that drew the map",
}
_ARTIFACTS = {".onnx": "onnx", ".safetensors": "safetensors.torch.save_file", ".json": "earthtune bundle"}
_COMMON_NAMES = {
    "COASTAL_AEROSOL": "coastal",
    "BLUE": "blue",
    "GREEN": "green",
    "RED": "red",
    "NIR_BROAD": "nir",
    "NIR_NARROW": "nir08",
    "SWIR_1": "swir16",
    "SWIR_2": "swir22",
}
_WEB_MERCATOR = 3857


def asset(
    kind: str, path: Path, folder: Path, classes: Sequence[ClassDef] = (), bands: Sequence[str] = ()
) -> dict[str, Any]:
    """One file: where, of what kind, which bytes; and its pixels, or the bands that the model eats."""
    digest = _sha256(path, path.stat().st_mtime_ns, path.stat().st_size)
    # Where a path would show another machine's folders the file is named by its content (RFC 6920).
    by_content = "ni:///sha-256;" + base64.urlsafe_b64encode(digest).decode().rstrip("=")
    fields = {
        "href": relative(path, folder) or by_content,
        "title": _TITLES.get(kind, kind),
        "type": MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream"),
        "roles": [_ROLES.get(kind, "data")],
        "file:size": path.stat().st_size,
        "file:checksum": "1220" + digest.hex(),  # multihash: sha2-256, 32 bytes
    }
    if kind == MODEL:
        common = {band: {"common_name": name} for band, name in _COMMON_NAMES.items()}
        eaten = [{"name": band} | common.get(band, {}) for band in bands]
        fields["mlm:artifact_type"] = _ARTIFACTS.get(path.suffix, path.suffix or "file")
        return fields | ({"eo:bands": eaten} if eaten else {})
    if path.suffix.lower() in (".tif", ".tiff"):
        fields |= _raster(path)
        if kind == "map" and classes:
            fields["classification:classes"] = classes_of(classes, fields.get("nodata"))
    return fields


@functools.lru_cache(maxsize=8)
def _sha256(path: Path, changed: int, size: int) -> bytes:
    """Hash of a file's content; that of a model is worked out once for many maps."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def relative(path: Path, folder: Path) -> str | None:
    """Address of a file or folder from `folder`, if it is within it or within the one above; else None."""
    path, above = path.resolve(), folder.resolve().parent
    house = folder.resolve() if above == Path(above.anchor) else above  # all of a disk is no neighbourhood
    if not path.is_relative_to(house):
        return None
    steps = Path(os.path.relpath(path, folder.resolve())).as_posix() + ("/" if path.is_dir() else "")
    return ("" if steps.startswith("../") else "./") + urllib.parse.quote(steps)


def _raster(path: Path) -> dict[str, Any]:
    """What the header of a GeoTIFF says: grid, type, nodata, unit, bands."""
    from pipelines.outputs.parts import open_raster

    with open_raster(path) as dataset:
        cloud_optimized = dataset.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG"
        metres = _metres(dataset.crs, dataset.transform)
        alone = _scaling(dataset, 1) if dataset.count == 1 else {}
        return {
            "type": _GEOTIFF + ("; profile=cloud-optimized" if cloud_optimized else ""),
            "proj:shape": [dataset.height, dataset.width],
            **({"proj:transform": list(dataset.transform)[:6]} if dataset.crs else {}),
            "data_type": dataset.dtypes[0],
            **({} if dataset.nodata is None else {"nodata": _number(dataset.nodata)}),
            **({"unit": dataset.units[0]} if dataset.units[0] else {}),
            "raster:sampling": "area",
            **alone,
            **({"raster:spatial_resolution": metres} if metres else {}),
            "bands": [_band(dataset, index) for index in dataset.indexes],
        }


def _band(dataset: Any, index: int) -> dict[str, Any]:
    """Name of a band, and its statistics where the header holds them."""
    tags = dataset.tags(index)
    keys = {"minimum": "MINIMUM", "maximum": "MAXIMUM", "mean": "MEAN", "stddev": "STDDEV"}
    found = {name: tags.get(f"STATISTICS_{key}") for name, key in keys.items()}
    statistics = {name: float(text) for name, text in found.items() if text and math.isfinite(float(text))}
    name = {"name": dataset.descriptions[index - 1] or f"b{index}"}
    among = _scaling(dataset, index) if dataset.count > 1 else {}
    return name | among | ({"statistics": statistics} if statistics else {})


def _scaling(dataset: Any, index: int) -> dict[str, Any]:
    """Scale and offset of a band, where the header holds them; of one band alone they are told of the file."""
    scaling = dataset.scales[index - 1], dataset.offsets[index - 1]
    return {} if scaling == (1.0, 0.0) else {"raster:scale": scaling[0], "raster:offset": scaling[1]}


def _number(value: float) -> float | int | str:
    """A nodata value as STAC writes it."""
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return int(value) if value == int(value) else value


def _metres(crs: Any, transform: Any) -> float | None:
    """Side of a pixel in metres; None where the system does not give it, such as degrees or Web Mercator."""
    if not crs or not crs.is_projected or crs.to_epsg() == _WEB_MERCATOR:
        return None
    _, factor = crs.linear_units_factor
    return round(math.sqrt(abs(transform.determinant)) * float(factor), 6)


def classes_of(classes: Sequence[ClassDef], nodata: object = None) -> list[dict[str, Any]]:
    """Codes, names and colours; the name is a word for programs, the title what people read."""
    # The letters, digits, - and _ that the extension allows in a name; accents go.
    plain = [unicodedata.normalize("NFKD", c.name).encode("ascii", "ignore").decode() for c in classes]
    words = [re.sub(r"[^0-9A-Za-z_-]+", "-", text).strip("-") for text in plain]
    listed: list[dict[str, Any]] = [
        {
            "value": entry.code,
            "name": word if word and words.count(word) == 1 else f"{word or 'class'}-{entry.code}",
            "title": entry.name,
            "color_hint": entry.colour[1:].upper(),
        }
        for entry, word in zip(classes, words, strict=True)
    ]
    none = {"value": nodata, "name": "nodata", "title": "no data", "nodata": True}
    return listed + ([] if nodata is None else [none])
