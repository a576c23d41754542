"""A STAC item beside each map: where and when it is true, what its values mean, and what made it from what.

STAC 1.1.0 (https://github.com/radiantearth/stac-spec) with the extensions in `EXTENSIONS`. An item is a function of the
model, the scene and the files: it holds no time of writing and no path of the machine that wrote it.
"""

from __future__ import annotations

import datetime
import json
import os
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.bundle import Bundle
from models.errors import InputError
from models.files import replacing
from models.spec import IMAGERY, Cells, ClassDef, Input, Pixels, Series, Spec, valid_of
from pipelines.outputs.footprint import footprint
from pipelines.outputs.item_assets import MEDIA_TYPES, MODEL, asset, classes_of, relative

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
    # A proposal: https://github.com/geo-embeddings/embeddings-stac-specification
    "emb": "https://stac-extensions.github.io/embeddings/v0.0.1/schema.json",
}
_TASKS = {  # by what is told of what
    ("classes", "pixel"): "semantic-segmentation",
    ("classes", "tile"): "scene-classification",
}  # else a quantity
MOST_NAMED = 20  # sources that the lineage of a mosaic names
UNKNOWN = (datetime.date(1970, 1, 1), datetime.date(2099, 12, 31))  # an item must have a time; this one excludes none


def stac_item(
    bundle: Bundle,
    scene: Scene,
    assets: Mapping[str, Path],
    *,
    name: str,
    geobox: GeoBox | None = None,
    remark: str = "",
) -> dict[str, Any]:
    """Describe a map and the files that belong to it as a STAC item.

    The time is the day of a scene of one date, with its first and last second, and the span of its dates where there
    are several. Where no date is known it is `UNKNOWN`, since an item cannot do without, and the description says so.

    A source of the scene is linked as `derived_from` where its address tells nothing of the machine: a URL, without
    the query, which may hold a key, or a path that starts in the item's folder or in the one above. The names of all
    sources are in `processing:lineage`.

    Args:
        bundle: the model that drew the map.
        scene: what it was drawn from.
        assets: finished files by kind: "map" and other kinds of `rows.layouts`, and "thumbnail", all in the folder that
            the item will be in; and "model", a file of the run such as model.onnx or bundle.json, wherever it is. Only
            with "model" the model is described by the MLM extension, which wants an asset of it.
        name: id of the item.
        geobox: ground of the map, where it is not that of the scene as it is read.
        remark: what a person should know of this map.

    Returns:
        The item as plain JSON types, with relative addresses.

    Raises:
        InputError: no file is given, one is missing, or they lie in several folders.
    """
    folder = _folder(assets)
    classes, bands = bundle.spec.answer.classes, bundle.spec.imagery.channels
    described = {kind: asset(kind, path, folder, classes, bands) for kind, path in assets.items()}
    properties = {
        "title": f"{bundle.spec.answer.name} map of {scene.name}",
        "description": _description(bundle, scene, remark),
        **_processing(bundle, scene),
        **(model_fields(bundle) if MODEL in assets else {}),
    }
    return item_of(scene, described, properties, name=name, folder=folder, geobox=geobox or scene.geobox)


def item_of(
    scene: Scene,
    assets: Mapping[str, Mapping[str, Any]],
    properties: Mapping[str, Any],
    *,
    name: str,
    folder: Path,
    geobox: GeoBox,
    rel: str = "derived_from",
) -> dict[str, Any]:
    """An item of what was made from a scene: its place and time, and links to the scene's public sources.

    Args:
        scene: what it was made from.
        assets: described files.
        properties: what is told beside time and place.
        name: id of the item.
        folder: where the item will be.
        geobox: its ground.
        rel: what the sources are to it.
    """
    sources = dict.fromkeys(address(source, folder) for source in scene.sources)
    return _item(name, geobox, {**properties, **when(scene.dates)}, sources, assets, rel)


def mosaic_item(
    name: str,
    geobox: GeoBox,
    assets: Mapping[str, Path],
    maps: Sequence[Path],
    dates: Sequence[datetime.date | None],
    classes: Sequence[ClassDef],
) -> dict[str, Any]:
    """Describe a mosaic of maps as a STAC item; the items of the maps are linked where they lie near.

    Args:
        name: id of the item.
        geobox: ground of the mosaic.
        assets: as of `stac_item`.
        maps: what it was made of.
        dates: when each was seen.
        classes: the classes of a map of classes.

    Returns:
        The item as plain JSON types, with relative addresses.

    Raises:
        InputError: see `stac_item`.
    """
    folder = _folder(assets)
    described = {kind: asset(kind, path, folder, classes) for kind, path in assets.items()}
    text = f"The mean of {len(maps)} maps, weighted by how well each saw the ground."
    undated = sum(date is None for date in dates)
    text += f" Date of acquisition unknown for {undated} of them." if undated else ""
    properties = {
        "title": f"Mosaic of {len(maps)} maps",
        "description": text,
        **when(dates),
        "processing:level": "L4",
        "processing:lineage": f"mean of {', '.join(path.name for path in maps[:MOST_NAMED])}"
        + (f" and {len(maps) - MOST_NAMED} more" if len(maps) > MOST_NAMED else ""),
        "processing:software": {"earthtune": version("earthtune")},
    }
    items = [path.with_name(path.name.removesuffix("_map.tif") + ".json") for path in maps]
    sources = dict.fromkeys(relative(path, folder) for path in items if path.is_file())
    return _item(name, geobox, properties, sources, described)


def composite_item(
    name: str, geobox: GeoBox, file: Path, sources: Sequence[str], dates: Sequence[datetime.date], about: str
) -> dict[str, Any]:
    """Describe a picture that was made of scenes as a STAC item.

    Args:
        name: id of the item.
        geobox: ground of the picture.
        file: the picture.
        sources: files, folders or addresses of the scenes; linked where their address tells nothing of the machine.
        dates: when each was seen.
        about: how it was made, in words.
    """
    properties = {
        "title": f"{name}: {about}",
        **when(dates),
        "processing:level": "L3",
        "processing:lineage": about,
        "processing:software": {"earthtune": version("earthtune")},
    }
    addresses = dict.fromkeys(address(source, file.parent) for source in sources)
    return _item(name, geobox, properties, addresses, {"image": asset("image", file, file.parent)})


def changes_item(
    geobox: GeoBox, assets: Mapping[str, Path], days: Sequence[str], about: str, classes: Sequence[ClassDef]
) -> dict[str, Any]:
    """Describe what changed in a place as a STAC item.

    Args:
        geobox: ground of the maps.
        assets: the files by what they are.
        days: when the place was seen.
        about: what was watched, in words.
        classes: of the map.
    """
    folder = _folder(assets)
    properties = {
        "title": about,
        **when([datetime.date.fromisoformat(day) for day in days]),
        "processing:level": "L4",
        "processing:lineage": f"{about}, against the same season of earlier years",
        "processing:software": {"earthtune": version("earthtune")},
    }
    described = {kind: asset(kind, path, folder, classes) for kind, path in assets.items()}
    return _item("changes", geobox, properties, [], described)


def _item(
    name: str,
    geobox: GeoBox,
    properties: Mapping[str, Any],
    sources: Iterable[str | None],
    assets: Mapping[str, Mapping[str, Any]],
    rel: str = "derived_from",
) -> dict[str, Any]:
    """An item of these properties, of sources as far as their addresses can be told, and of these assets."""
    geometry, bbox = footprint(geobox)
    place = {"geometry": geometry, **({"bbox": bbox} if bbox else {})}
    links = [_link(address, rel) for address in sources if address]
    return assembled(name, place, {**properties, **projection(geobox)}, links, assets)


def assembled(
    name: str, place: Mapping[str, Any], told: Mapping[str, Any], links: Sequence[Any], assets: Mapping[str, Any]
) -> dict[str, Any]:
    """An item, with the extensions that its fields belong to."""
    prefixes = {key.partition(":")[0] for fields in (told, *assets.values()) for key in fields}
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [url for prefix, url in EXTENSIONS.items() if prefix in prefixes],
        "id": name,
        **place,
        "properties": dict(told),
        "links": [*links],
        "assets": dict(assets),
    }


def write_stac_item(path: Path, item: Mapping[str, Any]) -> None:
    """Write an item as JSON; a reader sees the old file or the new one, never half of one."""
    with replacing(path) as draft:
        draft.write_text(json.dumps(item, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _folder(assets: Mapping[str, Path]) -> Path:
    """The folder of the files, which all exist."""
    folders = {path.parent.resolve() for kind, path in assets.items() if kind != MODEL}
    if len(folders) != 1:
        raise InputError(f"STAC item: wanted files of one folder, came {sorted(map(str, assets.values()))}")
    for path in assets.values():
        if not path.is_file():
            raise InputError(f"{path}: no such file; a STAC item describes finished files")
    return folders.pop()


def _description(bundle: Bundle, scene: Scene, remark: str) -> str:
    """What made the map, and what is not known of it."""
    text = f"Drawn by a fine-tuned Prithvi model ({bundle.backbone}), {bundle.spec.task}."
    text += f" Of this scene: {remark}." if remark else ""
    return text + undated(scene)


def undated(scene: Scene) -> str:
    """What an item says of dates that are missing or not known; empty where all are."""
    gaps = f" {len(scene.missing)} of {scene.frames} frames missing: {', '.join(scene.missing)}." * bool(scene.missing)
    unknown = sum(date is None for date in scene.dates)
    if unknown == len(scene.dates):
        return f"{gaps} Date of acquisition unknown: the time of this item is a placeholder."
    return gaps + f" Date of acquisition unknown for {unknown} of {scene.frames} frames." * bool(unknown)


def when(dates: Sequence[datetime.date | None]) -> dict[str, str | None]:
    """Time of an item: whole days, for a day is all that is known."""
    known = sorted(date for date in dates if date)
    first, last = (known[0], known[-1]) if known else UNKNOWN
    return {
        "datetime": f"{first}T00:00:00Z" if first == last else None,
        "start_datetime": f"{first}T00:00:00Z",
        "end_datetime": f"{last}T23:59:59Z",
    }


def projection(geobox: GeoBox) -> dict[str, Any]:
    """The coordinate system, by code where an authority lists it, else in full."""
    if geobox.crs is None:
        return {"proj:code": None}
    authority = geobox.crs.proj.to_authority(min_confidence=70)
    return {"proj:code": ":".join(authority)} if authority else {"proj:code": None, "proj:wkt2": geobox.crs.to_wkt()}


def _processing(bundle: Bundle, scene: Scene) -> dict[str, Any]:
    """How the map came about. L4: "model output or results from analyses of lower level data"."""
    from pipelines.scenes.pixel_size import resampling_of

    recipe = Path(str(bundle.training.get("recipe") or "")).name
    parts = [
        f"{bundle.backbone} from {bundle.base}, fine-tuned ({bundle.mode})",
        *([f"by recipe {recipe} (sha256 {bundle.training.get('sha256', 'unknown')})"] if recipe else []),
        f"applied to {named(scene)}",
        *([f"resampled from {sizes}"] if (sizes := resampling_of(scene)) else []),
    ]
    return {
        "processing:level": "L4",
        "processing:lineage": ", ".join(parts),
        "processing:software": {"earthtune": version("earthtune")},
    }


def named(scene: Scene) -> str:
    """The names of a scene's sources, without their folders."""
    sources = [Path(urllib.parse.urlsplit(s).path if "://" in s else s).name for s in scene.sources]
    return ", ".join(dict.fromkeys(sources))


def _link(address: str, rel: str) -> dict[str, str]:
    """A link to a source."""
    suffix = Path(urllib.parse.urlsplit(address).path).suffix.lower()
    kind = "application/geo+json" if suffix in (".json", ".geojson") else MEDIA_TYPES.get(suffix)
    name = urllib.parse.unquote(address.rstrip("/").rpartition("/")[2])
    return {"rel": rel, "href": address, **({"type": kind} if kind else {}), "title": name}


def address(source: str, folder: Path) -> str | None:
    """Public address of a source; None where there is none to tell."""
    url = urllib.parse.urlsplit(source)
    if url.scheme.lower() in ("http", "https", "s3", "gs"):
        host = url.netloc.rpartition("@")[2]  # without name and password
        return urllib.parse.urlunsplit((url.scheme, host, url.path, "", ""))
    return relative(Path(source), folder) if os.path.exists(source) else None


def model_fields(bundle: Bundle) -> dict[str, Any]:
    """The model by the MLM extension (https://github.com/stac-extensions/mlm)."""
    pretrained = bundle.base.source != "random"
    settings = {"mode": bundle.mode, "recipe_sha256": bundle.training.get("sha256")}
    return {
        "mlm:name": f"{bundle.backbone} {bundle.spec.task}",
        "mlm:architecture": _architecture(bundle),
        "mlm:tasks": [_task(bundle.spec)],
        "mlm:framework": "PyTorch",
        "mlm:pretrained": pretrained,
        "mlm:pretrained_source": str(bundle.base) if pretrained else None,
        "mlm:input": _inputs(bundle.spec),
        "mlm:output": [_output(bundle.spec)],
        "mlm:hyperparameters": {key: value for key, value in settings.items() if value is not None},
    }


def _task(spec: Spec) -> str:
    """What the model does, in the extension's words."""
    answer = spec.answer
    return _TASKS.get((answer.kind, answer.support), "classification" if answer.classes else "regression")


def _architecture(bundle: Bundle) -> str:
    """Backbone and head."""
    if bundle.spec.over_tables:
        return "forests, and layers over rows of a table"
    head = "linear head" if bundle.spec.answer.support == "tile" else getattr(bundle.architecture, "decoder", "head")
    kind = "Prithvi WxC" if bundle.spec.over_weather else "Prithvi EO vision transformer"
    return f"{kind} ({bundle.backbone}), {head}"


def _inputs(spec: Spec) -> list[dict[str, Any]]:
    """All that the model takes: images, fields, series, and which of their values are there."""
    rasters = [part for name, given in spec.inputs.items() for part in _raster(name, given)]
    beside = [part for name, series in spec.series.items() for part in _series(name, series)]
    seen = _vector(valid_of(IMAGERY), "1, or 0 where the image is missing", [-1, 1], "coordinate")
    return [*rasters, *beside, *([seen] if beside and rasters else [])]


def _raster(name: str, given: Input) -> list[dict[str, Any]]:
    """An image with its dates and place, or fields; none of what is no raster."""
    if isinstance(given, Pixels):
        return _image(given)
    if not isinstance(given, Cells):
        return []
    shape, axes = [-1, given.times, len(given.channels), -1, -1], ("time", "variable", "height", "width")
    return [_vector(name, _with_units(given), shape, *axes) | {"value_scaling": _scaling(given)}]


def _with_units(given: Cells | Series) -> str:
    """Channels with their units."""
    units = zip(given.channels, given.units, strict=True)
    return ", ".join(f"{channel} in {unit}" if unit not in ("", "1") else channel for channel, unit in units)


def _scaling(given: Input) -> list[dict[str, Any]]:
    """Mean and deviation of each channel."""
    return [{"type": "z-score", "mean": m, "stddev": s} for m, s in zip(given.mean, given.std, strict=True)]


def _image(pixels: Pixels) -> list[dict[str, Any]]:
    """The image; dates and place, where the model takes them."""
    image = {
        "name": IMAGERY,
        "description": f"{pixels.unit}, frames by date",
        "bands": list(pixels.channels),
        "input": {
            "shape": [-1, len(pixels.channels), pixels.times, pixels.tile, pixels.tile],
            "dim_order": ["batch", "bands", "time", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": _scaling(pixels),
        "resize_type": "pad",
    }
    days = "year and day of the year from 0, of each frame"
    time = _vector("time", days, [-1, pixels.times, 2], "time", "coordinate")
    place = _vector("location", "latitude and longitude of the tile's centre, degrees", [-1, 2], "coordinate")
    return [image, *([time] if pixels.uses_time else []), *([place] if pixels.uses_location else [])]


def _series(name: str, series: Series) -> list[dict[str, Any]]:
    """A series, and which of its values are there."""
    steps = f", {series.times} steps of {series.step:g} h, the last before the image" if series.times > 1 else ""
    shape = [-1, series.times, len(series.channels)]
    values = _vector(name, _with_units(series) + steps, shape, "time", "coordinate") | {
        "value_scaling": _scaling(series)
    }
    return [values, _vector(valid_of(name), f"1, or 0 where a value of {name} is missing", shape, "time", "coordinate")]


def _vector(name: str, description: str, shape: list[int], *dimensions: str) -> dict[str, Any]:
    """An input without bands."""
    structure = {"shape": shape, "dim_order": ["batch", *dimensions], "data_type": "float32"}
    return {"name": name, "description": description, "bands": [], "input": structure}


def _output(spec: Spec) -> dict[str, Any]:
    """What the model answers for a tile."""
    axis = "class" if spec.answer.classes else "channel"
    pixels = ["height", "width"] if spec.answer.support in ("pixel", "cell") else []
    side = spec.imagery.tile if spec.answer.support == "pixel" else -1
    unit = f" in {spec.answer.unit}" if spec.answer.unit else ""
    return {
        "name": spec.answer.name,
        "description": f"{spec.answer.name}{unit}" if not spec.answer.classes else "probability of each class",
        "tasks": [_task(spec)],
        "result": {
            "shape": [-1, spec.answer.channels, *[side for _ in pixels]],
            "dim_order": ["batch", axis, *pixels],
            "data_type": "float32",
        },
        "classification:classes": classes_of(spec.answer.classes),
    }
