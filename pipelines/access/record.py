"""The item of a fetched scene: what its files hold, where they are from and on what terms; no secret."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rasterio

from models.errors import shown
from pipelines.access.catalogues import Offered
from pipelines.access.offers import Offer, bare
from pipelines.grids import align
from pipelines.outputs.footprint import footprint
from pipelines.outputs.item import EXTENSIONS, projection
from pipelines.outputs.item_assets import asset
from pipelines.scenes.sensors import CLOUDS

_LONGEST = 300  # letters of what an item says
# Taken over from the item: plain words and numbers. Not earthsearch:boa_offset_applied, which is true of other files.
_TAKEN = (
    *("platform", "constellation", "mission", "gsd", "created", "updated", "license"),
    *("eo:cloud_cover", "view:sun_azimuth", "view:sun_elevation", "view:off_nadir", "s2:processing_baseline"),
    *("s2:product_uri", "s2:mgrs_tile", "grid:code", "processing:version", "landsat:scene_id", "landsat:wrs_path"),
    *("landsat:wrs_row", "landsat:correction", "sci:doi"),
)


def terms(product: Offered) -> dict[str, Any]:
    """What is said of all scenes of a product: licence, where its terms are, and attribution."""
    return {"license": product.licence, "terms": product.terms, "attribution": product.attribution}


def scene_item(offer: Offer, folder: Path, facts: Mapping[str, Any], *, note: str) -> dict[str, Any]:
    """Describe the files of a fetched scene as a STAC item that a reader gets reflectance by.

    Args:
        offer: the scene.
        folder: holds its files, NAME.tif.
        facts: see `terms`.
        note: what a person should know of it.
    """
    assets = {name: _asset(name, folder) for name in offer.layers}
    finest = min(offer.bands, key=lambda name: _pixel(folder / f"{name}.tif"))
    with rasterio.open(folder / f"{finest}.tif") as source:
        ground = align.grid(source)
    geometry, bbox = footprint(ground)
    attribution = str(facts["attribution"]).format(year=offer.date[:4])
    properties = {
        "datetime": _moment(offer),
        **_taken(offer.properties),
        "license": facts["license"],
        "attribution": attribution,
        **({"description": note[:1].upper() + note[1:] + "."} if note else {}),
        **projection(ground),
    }
    prefixes = {key.partition(":")[0] for fields in (properties, *assets.values()) for key in fields}
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [url for prefix, url in EXTENSIONS.items() if prefix in prefixes],
        "id": offer.name,
        "geometry": geometry,
        **({"bbox": bbox} if bbox else {}),
        "properties": properties,
        "links": [
            {"rel": "derived_from", "href": bare(offer.address), "title": _plain(str(offer.item.get("id")))},
            {"rel": "license", "href": facts["terms"]},
        ],
        "assets": assets,
    }


def _asset(name: str, folder: Path) -> dict[str, Any]:
    """A file as an asset."""
    return asset(name, folder / f"{name}.tif", folder) | {"roles": ["cloud" if name in CLOUDS else "reflectance"]}


def _pixel(file: Path) -> float:
    """Area of a pixel."""
    with rasterio.open(file) as source:
        return abs(float(source.transform.determinant))


def _moment(offer: Offer) -> str:
    """The time of a scene as its item has it, or its day."""
    text = str(offer.properties.get("datetime") or "")
    try:
        moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return f"{offer.date}T00:00:00Z"
    moment = moment.astimezone(datetime.UTC) if moment.tzinfo else moment
    return moment.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def _taken(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Properties of the item that hold here, too; words of strangers are cut and cleaned."""
    found: dict[str, Any] = {}
    for key in _TAKEN:
        value = properties.get(key)
        if isinstance(value, str):
            found[key] = _plain(value)
        elif isinstance(value, bool | int | float) and abs(value) < 1e15:
            found[key] = value
    instruments = properties.get("instruments")
    if isinstance(instruments, list) and instruments:
        found["instruments"] = [_plain(str(one)) for one in instruments[:10]]
    return found


def _plain(text: str) -> str:
    """Text on one line, without keys."""
    return re.sub(r"\s+", " ", shown(text))[:_LONGEST]
