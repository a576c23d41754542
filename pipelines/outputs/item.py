"""A STAC item beside each map: where and when it is true, what its values mean, and what made it from what.

STAC 1.1.0 (https://github.com/radiantearth/stac-spec) with the extensions in `EXTENSIONS`. An item is a function of the
model, the scene and the files: it holds no time of writing and no path of the machine that wrote it.
"""

from __future__ import annotations

import base64
import datetime
import functools
import hashlib
import json
import math
import os
import re
import unicodedata
import urllib.parse
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.bundle import Bundle, replacing
from models.errors import InputError
from models.spec import ClassDef, Spec

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

    from pipelines.scenes.scene import Scene

# The versions that pystac 1.15 reads, except for raster and processing, which it does not know in STAC 1.1.
EXTENSIONS: Mapping[str, str] = {
    "proj": "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "raster": "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "classification": "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
    "processing": "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
    "file": "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "mlm": "https://stac-extensions.github.io/mlm/v1.4.0/schema.json",
    "eo": "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
}
MODEL = "model"  # the one asset that may lie in another folder
UNKNOWN = (datetime.date(1970, 1, 1), datetime.date(2099, 12, 31))  # an item must have a time; this one excludes none

_GEOTIFF = "image/tiff; application=geotiff"
_TYPES = {".tif": _GEOTIFF, ".tiff": _GEOTIFF, ".jp2": "image/jp2", ".png": "image/png", ".json": "application/json"}
_ROLES = {"thumbnail": "thumbnail", MODEL: "mlm:model"}
_TITLES = {
    "map": "Map",
    "probabilities": "Probability of each class",
    "confidence": "Confidence",
    "thumbnail": "Picture of the map",
    MODEL: "Model that drew the map",
}
_ARTIFACTS = {".onnx": "onnx", ".safetensors": "safetensors.torch.save_file", ".json": "earthtune bundle"}
_TASKS = {"segmentation": "semantic-segmentation", "classification": "scene-classification", "regression": "regression"}
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
_SIDE = 16  # points on each side of a footprint


def stac_item(bundle: Bundle, scene: Scene, assets: Mapping[str, Path], *, name: str) -> dict[str, Any]:
    """Describe a map and the files that belong to it as a STAC item.

    The time is the day of a scene of one date, with its first and last second, and the span of its dates where there
    are several. Where no date is known it is `UNKNOWN`, since an item cannot do without, and the description says so.

    A source of the scene is linked as `derived_from` where its address tells nothing of the machine: a URL, without
    the query, which may hold a key, or a path that starts in the item's folder or in the one above. The names of all
    sources are in `processing:lineage`.

    Args:
        bundle: the model that drew the map.
        scene: what it was drawn from.
        assets: finished files by kind: "map", "probabilities", "confidence", "thumbnail", all in the folder that the
            item will be in; and "model", a file of the run such as model.onnx or bundle.json, wherever it is. Only with
            "model" the model is described by the MLM extension, which wants an asset of it.
        name: id of the item.

    Returns:
        The item as plain JSON types, with relative addresses.

    Raises:
        InputError: no file is given, one is missing, or they lie in several folders.
    """
    folder = _folder(assets)
    described = {kind: _asset(kind, path, folder, bundle.spec) for kind, path in assets.items()}
    geometry, bbox = footprint(scene.geobox)
    model = _model_fields(bundle) if MODEL in assets else {}
    properties = {
        "title": f"{_quantity(bundle.spec)} of {scene.name}",
        "description": _description(bundle, scene),
        **_when(scene.dates),
        **_projection(scene.geobox),
        **_processing(bundle, scene),
        **model,
    }
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": _extensions(properties, described),
        "id": name,
        "geometry": geometry,
        **({"bbox": bbox} if bbox else {}),
        "properties": properties,
        "links": _links(scene, folder),
        "assets": described,
    }


def write_stac_item(path: Path, item: Mapping[str, Any]) -> None:
    """Write an item as JSON; a reader sees the old file or the new one, never half of one."""
    with replacing(path) as draft:
        draft.write_text(json.dumps(item, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def footprint(geobox: GeoBox) -> tuple[dict[str, Any] | None, list[float] | None]:
    """Outline of a grid on the ground, as GeoJSON in degrees (EPSG:4326), and its bounding box.

    Sides that bend in degrees are followed with up to `_SIDE` points each, to a ten-thousandth of the grid. An outline
    across the antimeridian becomes two polygons, and its box starts in the east, at a greater longitude than it ends
    at (RFC 7946, 5.2).

    Returns:
        The geometry and [west, south, east, north]; (None, None) without a coordinate system, or where the grid lies
        outside of what its system can show.
    """
    import antimeridian
    import numpy as np
    import shapely

    if geobox.crs is None:
        return None, None
    a, b, c, d, e, f = tuple(geobox.affine)[:6]
    column, row = _ring(geobox)
    longitudes, latitudes = geobox.crs.transformer_to_crs("EPSG:4326")(
        a * column + b * row + c, d * column + e * row + f
    )
    points = np.column_stack((longitudes, latitudes))
    points = points[np.isfinite(points).all(axis=1)]
    if len(points) < 3:
        return None, None
    points[:, 1] = points[:, 1].clip(-90, 90)
    outline = antimeridian.fix_polygon(shapely.Polygon(points), fix_winding=False)
    west, south, east, north = outline.bounds
    outline = outline.simplify(1e-4 * min(east - west, north - south))
    outline = shapely.transform(outline, lambda xy: xy.round(7))  # a centimetre
    box = list(antimeridian.bbox(outline))
    if box[0] == box[2]:  # it ends where it began: around the whole world
        box[0], box[2] = -180.0, 180.0
    return json.loads(shapely.to_geojson(outline)), box


def _ring(geobox: GeoBox) -> Any:
    """Columns and rows of points around a grid, anticlockwise on the ground: float (2, 4 * _SIDE)."""
    import numpy as np

    height, width = geobox.shape
    way = np.arange(_SIDE) / _SIDE
    zero, one = np.zeros(_SIDE), np.ones(_SIDE)
    columns = width * np.concatenate((zero, way, one, 1 - way))
    rows = height * np.concatenate((way, one, 1 - way, zero))
    ring = np.stack((columns, rows))
    return ring if geobox.affine.determinant < 0 else ring[:, ::-1]


# --- what the item says -------------------------------------------------------------------------------------------


def _folder(assets: Mapping[str, Path]) -> Path:
    """The folder of the files, which all exist."""
    folders = {path.parent.resolve() for kind, path in assets.items() if kind != MODEL}
    if len(folders) != 1:
        raise InputError(f"STAC item: wanted files of one folder, came {sorted(map(str, assets.values()))}")
    for path in assets.values():
        if not path.is_file():
            raise InputError(f"{path}: no such file; a STAC item describes finished files")
    return folders.pop()


def _quantity(spec: Spec) -> str:
    """What a map shows, in words."""
    return f"{spec.answer.name} map" if not spec.answer.classes else "class map"


def _description(bundle: Bundle, scene: Scene) -> str:
    """What made the map, and what is not known of it."""
    text = f"Drawn by a fine-tuned Prithvi model ({bundle.backbone}), {bundle.spec.task}."
    undated = sum(date is None for date in scene.dates)
    if undated == scene.frames:
        return text + " Date of acquisition unknown: the time of this item is a placeholder."
    return text + (f" Date of acquisition unknown for {undated} of {scene.frames} frames." if undated else "")


def _when(dates: Sequence[datetime.date | None]) -> dict[str, str | None]:
    """Time of an item: whole days, for a day is all that is known."""
    known = sorted(date for date in dates if date)
    first, last = (known[0], known[-1]) if known else UNKNOWN
    return {
        "datetime": f"{first}T00:00:00Z" if first == last else None,
        "start_datetime": f"{first}T00:00:00Z",
        "end_datetime": f"{last}T23:59:59Z",
    }


def _projection(geobox: GeoBox) -> dict[str, Any]:
    """The coordinate system, by code where an authority lists it, else in full."""
    if geobox.crs is None:
        return {"proj:code": None}
    authority = geobox.crs.proj.to_authority(min_confidence=70)
    return {"proj:code": ":".join(authority)} if authority else {"proj:code": None, "proj:wkt2": geobox.crs.to_wkt()}


def _processing(bundle: Bundle, scene: Scene) -> dict[str, Any]:
    """How the map came about. L4: "model output or results from analyses of lower level data"."""
    from importlib.metadata import version

    recipe = Path(str(bundle.training.get("recipe") or "")).name
    parts = [
        f"{bundle.backbone} from {bundle.base}, fine-tuned ({bundle.mode})",
        *([f"by recipe {recipe} (sha256 {bundle.training.get('sha256', 'unknown')})"] if recipe else []),
        f"applied to {', '.join(dict.fromkeys(_source_name(source) for source in scene.sources))}",
    ]
    return {
        "processing:level": "L4",
        "processing:lineage": ", ".join(parts),
        "processing:software": {"earthtune": version("earthtune")},
    }


def _source_name(source: str) -> str:
    """Name of a file or of what a URL points to."""
    return Path(urllib.parse.urlsplit(source).path if "://" in source else source).name


def _extensions(properties: Mapping[str, Any], assets: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Schemas of the prefixes in use."""
    used = {key.partition(":")[0] for fields in (properties, *assets.values()) for key in fields}
    return [url for prefix, url in EXTENSIONS.items() if prefix in used]


# --- assets -------------------------------------------------------------------------------------------------------


def _asset(kind: str, path: Path, folder: Path, spec: Spec) -> dict[str, Any]:
    """One file: where, of what kind, which bytes; and its pixels or its model."""
    digest = _sha256(path, path.stat().st_mtime_ns, path.stat().st_size)
    fields = {
        "href": _relative(path, folder) or _by_content(digest),
        "title": _TITLES.get(kind, kind),
        "type": _TYPES.get(path.suffix.lower(), "application/octet-stream"),
        "roles": [_ROLES.get(kind, "data")],
        "file:size": path.stat().st_size,
        "file:checksum": "1220" + digest.hex(),  # multihash: sha2-256, 32 bytes
    }
    if kind == MODEL:
        bands = [{"name": band} | _common_name(band) for band in spec.imagery.channels]
        return fields | {"mlm:artifact_type": _ARTIFACTS.get(path.suffix, path.suffix or "file"), "eo:bands": bands}
    if path.suffix.lower() in (".tif", ".tiff"):
        fields |= _raster(path)
        if kind == "map" and spec.answer.classes:
            fields["classification:classes"] = _classes(spec.answer.classes, fields.get("nodata"))
    return fields


@functools.lru_cache(maxsize=8)
def _sha256(path: Path, changed: int, size: int) -> bytes:
    """Hash of a file's content; that of a model is worked out once for many maps."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _by_content(digest: bytes) -> str:
    """An address that names a file by its content (RFC 6920), where a path would show another machine's folders."""
    return "ni:///sha-256;" + base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _relative(path: Path, folder: Path) -> str | None:
    """Address of a file or folder from `folder`, if it is within it or within the one above; else None."""
    path, above = path.resolve(), folder.resolve().parent
    house = folder.resolve() if above == Path(above.anchor) else above  # all of a disk is no neighbourhood
    if not path.is_relative_to(house):
        return None
    steps = Path(os.path.relpath(path, folder.resolve())).as_posix() + ("/" if path.is_dir() else "")
    return ("" if steps.startswith("../") else "./") + urllib.parse.quote(steps)


def _raster(path: Path) -> dict[str, Any]:
    """What the header of a GeoTIFF says: grid, type, nodata, unit, bands."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        dataset = rasterio.open(path)
    with dataset:
        cloud_optimized = dataset.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG"
        metres = _metres(dataset.crs, dataset.transform)
        return {
            "type": _GEOTIFF + ("; profile=cloud-optimized" if cloud_optimized else ""),
            "proj:shape": [dataset.height, dataset.width],
            **({"proj:transform": list(dataset.transform)[:6]} if dataset.crs else {}),
            "data_type": dataset.dtypes[0],
            **({} if dataset.nodata is None else {"nodata": _number(dataset.nodata)}),
            **({"unit": dataset.units[0]} if dataset.units[0] else {}),
            "raster:sampling": "area",
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
    return name | ({"statistics": statistics} if statistics else {})


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


def _classes(classes: Sequence[ClassDef], nodata: object = None) -> list[dict[str, Any]]:
    """Codes, names and colours; the name is a word for programs, the title what people read."""
    words = [_word(entry.name) for entry in classes]
    listed: list[dict[str, Any]] = [
        {
            "value": entry.code,
            "name": word if word and words.count(word) == 1 else f"{word or 'class'}-{entry.code}",
            "title": entry.name,
            "color_hint": entry.colour[1:].upper(),
        }
        for entry, word in zip(classes, words, strict=True)
    ]
    return listed + (
        [] if nodata is None else [{"value": nodata, "name": "nodata", "title": "no data", "nodata": True}]
    )


def _word(text: str) -> str:
    """A text in the letters, digits, - and _ that the extension allows in a name; accents go."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^0-9A-Za-z_-]+", "-", plain).strip("-")


def _common_name(band: str) -> dict[str, str]:
    """The band's name in the EO extension, if it has one."""
    return {"common_name": _COMMON_NAMES[band]} if band in _COMMON_NAMES else {}


# --- the model ----------------------------------------------------------------------------------------------------


def _model_fields(bundle: Bundle) -> dict[str, Any]:
    """The model by the MLM extension (https://github.com/stac-extensions/mlm)."""
    pretrained = bundle.base.source != "random"
    head = "linear head" if bundle.spec.answer.support == "tile" else f"{getattr(bundle.architecture, 'decoder', '')}"
    settings = {"mode": bundle.mode, "recipe_sha256": bundle.training.get("sha256")}
    return {
        "mlm:name": f"{bundle.backbone} {bundle.spec.task}",
        "mlm:architecture": f"Prithvi EO vision transformer ({bundle.backbone}), {head}",
        "mlm:tasks": [_TASKS[bundle.spec.task]],
        "mlm:framework": "PyTorch",
        "mlm:pretrained": pretrained,
        "mlm:pretrained_source": str(bundle.base) if pretrained else None,
        "mlm:input": _inputs(bundle.spec),
        "mlm:output": [_output(bundle.spec)],
        "mlm:hyperparameters": {key: value for key, value in settings.items() if value is not None},
    }


def _inputs(spec: Spec) -> list[dict[str, Any]]:
    """The image; and dates and place, where the model takes them."""
    image = {
        "name": "image",
        "description": f"{spec.imagery.unit}, frames by date",
        "bands": list(spec.imagery.channels),
        "input": {
            "shape": [-1, len(spec.imagery.channels), spec.imagery.times, spec.imagery.tile, spec.imagery.tile],
            "dim_order": ["batch", "bands", "time", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": [
            {"type": "z-score", "mean": mean, "stddev": std}
            for mean, std in zip(spec.imagery.mean, spec.imagery.std, strict=True)
        ],
        "resize_type": "pad",
    }
    time = _vector("time", "year and day of the year from 0, of each frame", [-1, spec.imagery.times, 2], "time")
    place = _vector("location", "latitude and longitude of the tile's centre, degrees", [-1, 2])
    return [image, *([time] if spec.imagery.uses_time else []), *([place] if spec.imagery.uses_location else [])]


def _vector(name: str, description: str, shape: list[int], *dimensions: str) -> dict[str, Any]:
    """An input without bands."""
    structure = {"shape": shape, "dim_order": ["batch", *dimensions, "coordinate"], "data_type": "float32"}
    return {"name": name, "description": description, "bands": [], "input": structure}


def _output(spec: Spec) -> dict[str, Any]:
    """What the model answers for a tile."""
    axis = "class" if spec.answer.classes else "channel"
    pixels = [] if spec.answer.support == "tile" else ["height", "width"]
    unit = f" in {spec.answer.unit}" if spec.answer.unit else ""
    return {
        "name": spec.answer.name,
        "description": f"{spec.answer.name}{unit}" if not spec.answer.classes else "probability of each class",
        "tasks": [_TASKS[spec.task]],
        "result": {
            "shape": [-1, spec.answer.channels, *[spec.imagery.tile for _ in pixels]],
            "dim_order": ["batch", axis, *pixels],
            "data_type": "float32",
        },
        "classification:classes": _classes(spec.answer.classes),
    }


# --- links --------------------------------------------------------------------------------------------------------


def _links(scene: Scene, folder: Path) -> list[dict[str, str]]:
    """Each source of the scene that can be named, once."""
    addresses = [_address(source, folder) for source in scene.sources]
    return [_link(address) for address in dict.fromkeys(addresses) if address]


def _link(address: str) -> dict[str, str]:
    """A link to a source."""
    suffix = Path(urllib.parse.urlsplit(address).path).suffix.lower()
    kind = "application/geo+json" if suffix in (".json", ".geojson") else _TYPES.get(suffix)
    name = urllib.parse.unquote(address.rstrip("/").rpartition("/")[2])
    return {"rel": "derived_from", "href": address, **({"type": kind} if kind else {}), "title": name}


def _address(source: str, folder: Path) -> str | None:
    """Public address of a source; None where there is none to tell."""
    url = urllib.parse.urlsplit(source)
    if url.scheme.lower() in ("http", "https", "s3", "gs"):
        host = url.netloc.rpartition("@")[2]  # without name and password
        return urllib.parse.urlunsplit((url.scheme, host, url.path, "", ""))
    return _relative(Path(source), folder) if os.path.exists(source) else None
