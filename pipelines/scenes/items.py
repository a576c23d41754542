"""A STAC item as a product: bands by name, units, date. Nothing in an item chooses what is opened, or where."""

from __future__ import annotations

import http.client
import json
import os
import re
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.errors import InputError
from pipelines.scenes import sensors
from pipelines.scenes.bands import RASTERS, Ask, Layer, Product, apart

_PICTURES = ("visual", "thumbnail", "preview", "rendered_preview", "overview", "tilejson", "tci", "browse")
_STAC_BYTES = 16 << 20


def stac_product(source: str, ask: Ask) -> Product:
    """A product from a STAC item, a file or an address."""
    return item_product(source, _read_json(source), ask)


def item_product(source: str, item: Any, ask: Ask) -> Product:
    """A product from a STAC item that lies at `source`.

    Raises:
        InputError: what no STAC item would hold, which is the item's fault, not ours.
    """
    try:
        return _item_product(source, item, ask)
    except (AttributeError, TypeError, ValueError, KeyError, IndexError) as error:
        raise InputError(f"{source}: not a valid STAC item ({error}); check it with a STAC validator") from error


def _item_product(source: str, item: Any, ask: Ask) -> Product:
    """See `item_product`."""
    if not isinstance(item, dict) or item.get("type") != "Feature" or not isinstance(item.get("assets"), dict):
        raise InputError(f"{source}: not a STAC item (a GeoJSON Feature with assets); pass an item, not a collection")
    properties: dict[str, Any] = item.get("properties") or {}
    sensor = sensor_of(item, properties)
    found: dict[str, Layer] = {}
    for key, asset in sorted(item["assets"].items(), key=_asset_rank):
        if _is_picture(key, asset):
            continue
        for layer in _asset_layers(source, key, asset, sensor, properties, ask):
            if layer.name:
                found.setdefault(layer.name, layer)
    bands, clouds = apart(list(found.values()))
    date = sensors.find_date(str(properties.get("datetime") or properties.get("start_datetime") or ""))
    notes, problem = _stac_notes(sensor, properties), ""
    if sensor == "S2" and not all(layer.units for layer in bands) and _stac_offset(sensor, properties) is None:
        without = "Sentinel-2 item without s2:processing_baseline"
        problem = f"{source}: {without}; give --scale 0.0001 and --offset 0 or -0.1"
    if sensor in sensors.LEVEL1:
        notes += (sensors.TOP_OF_ATMOSPHERE,)
        if not all(layer.units or layer.table for layer in bands):
            about = "Landsat Level-1 item that tells neither scale nor, for Landsat 8 and 9, view:sun_elevation"
            problem = f"{source}: {about}; give --scale and --offset to reflectance, from its MTL file"
    # The name becomes a file's name: an item's id is not to choose the folder.
    name = re.sub(r"[^\w.-]+", "_", str(item.get("id") or "")).lstrip(".") or Path(source).stem
    return Product(name, source, date, bands, clouds, "STAC item", notes, problem)


def _read_json(source: str) -> Any:
    """Parse a JSON file or URL of at most 16 MiB."""
    try:
        if source.startswith(("http://", "https://")):
            with urllib.request.urlopen(source, timeout=30) as reply:
                text = reply.read(_STAC_BYTES)
        elif "://" in source:
            raise InputError(f"{source}: a STAC item is read from a file or from http(s)")
        else:
            with Path(source).open("rb") as file:
                text = file.read(_STAC_BYTES)
        return json.loads(text)
    except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
        raise InputError(f"{source}: not a JSON file that can be read ({error}); check the path") from error


def sensor_of(item: Mapping[str, Any], properties: Mapping[str, Any]) -> str | None:
    """Key of SENSORS for an item, by the file names of its assets, then by platform, instrument and collection."""
    for asset in item["assets"].values():
        known = sensors.parse_name(str(asset.get("href", "")).split("?")[0].rpartition("/")[2])
        if known:
            return known.sensor
    words = f"{item.get('collection')} {item.get('id')} {properties.get('platform')} {properties.get('instruments')}"
    patterns = {"S30": r"hls.*s30", "L30": r"hls.*l30", "S2": r"sentinel-?2", "OLI": r"\boli\b", "TM": r"\be?tm\b"}
    return next((key for key, pattern in patterns.items() if re.search(pattern, words.lower())), None)


def _asset_rank(pair: tuple[str, Mapping[str, Any]]) -> tuple[bool, float, int]:
    """Order of preference among assets of a band: GeoTIFF before JPEG 2000, then the finest, then the plain key."""
    key, asset = pair
    metres = re.search(r"_(\d{2})m$", key)
    return (
        ".jp2" in str(asset.get("href", "")).lower(),
        float(asset.get("gsd") or (metres[1] if metres else 0)),
        len(key),
    )


def _is_picture(key: str, asset: Mapping[str, Any]) -> bool:
    """Whether an asset is a rendering or no raster at all."""
    roles = set(asset.get("roles") or ())
    kind, href = str(asset.get("type") or ""), str(asset.get("href", "")).lower().split("?")[0]
    raster = kind.startswith("image/tiff") or kind.startswith("image/jp2") or href.endswith(RASTERS)
    return not raster or key.lower().split("_")[0] in _PICTURES or bool(roles & {"visual", "thumbnail", "overview"})


def _asset_layers(
    source: str, key: str, asset: Mapping[str, Any], sensor: str | None, properties: Mapping[str, Any], ask: Ask
) -> list[Layer]:
    """The bands of one asset."""
    bands = asset.get("bands") or asset.get("eo:bands") or [{}]
    rasters = asset.get("raster:bands") or [{}] * len(bands)
    path = _href(source, str(asset.get("href", "")))
    guide = sensors.SENSORS[sensor] if sensor else None
    layers = []
    for index, band in enumerate(bands, 1):
        about = {**asset, **(rasters[index - 1] if index <= len(rasters) else {}), **band}
        name = _asset_band(key if len(bands) == 1 else "", path, band, sensor)
        units = ask.units or _stac_units(about, sensor, properties)
        table = _stac_table(sensor, properties)
        nodata = about.get("nodata", guide.nodata if guide else None)
        void = (float(nodata),) if isinstance(nodata, int | float) else ()
        if name in sensors.CLOUDS:
            units, table, void = None, None, ()
        layers.append(Layer(name, path, index, units, table, nodata=void, trusted=False))
    return layers


def _asset_band(key: str, path: str, band: Mapping[str, Any], sensor: str | None) -> str | None:
    """Name of an asset's band: by file name, by code in the sensor's table, by common name, by the asset's key."""
    known = sensors.parse_name(path.split("?")[0].rpartition("/")[2])
    if key and known and known.band:
        return known.band
    plain = re.sub(r"_\d{2}m$", "", key)
    common = str(band.get("eo:common_name") or band.get("common_name") or "")
    names = sensors.name_bands([plain, str(band.get("name") or ""), common], sensor)
    named = next((name for name in names if name), None)
    # STAC's common name 'nir' is the broad one: the narrow one is called nir08.
    return "NIR_BROAD" if named == sensors.NIR else named


def _stac_units(
    about: Mapping[str, Any], sensor: str | None, properties: Mapping[str, Any]
) -> tuple[float, float] | None:
    """Scale and offset that an item declares. Earth Search keeps declaring -0.1 on files it has already shifted."""
    scale = about.get("raster:scale", about.get("scale"))
    offset = about.get("raster:offset", about.get("offset", 0.0))
    if not isinstance(scale, int | float) or not isinstance(offset, int | float) or (scale, offset) == (1, 0):
        return None  # general tools write 1 and 0 where nothing is known
    return float(scale), 0.0 if sensor == "S2" and is_shifted(properties) else float(offset)


def _stac_table(sensor: str | None, properties: Mapping[str, Any]) -> tuple[float, float] | None:
    """Scale and offset by the product guide; those of Level-1 by the sun's elevation, where the item tells it."""
    if sensor is None:
        return None
    scale, elevation = sensors.SENSORS[sensor].scale, properties.get("view:sun_elevation")
    if scale is not None:
        return scale, _stac_offset(sensor, properties) or 0.0
    known = sensor == "OLI_L1" and isinstance(elevation, int | float) and 0 < elevation <= 90
    return sensors.level1_units(0.00002, -0.1, float(elevation or 0)) if known else None


def is_shifted(properties: Mapping[str, Any]) -> bool:
    """Whether the offset of baseline 04.00 is already in the pixels."""
    return True in (properties.get("earthsearch:boa_offset_applied"), properties.get("sentinel:boa_offset_applied"))


def _stac_offset(sensor: str | None, properties: Mapping[str, Any]) -> float | None:
    """Offset by the product guide; None for Sentinel-2 of unknown processing baseline."""
    if sensor != "S2":
        return sensors.SENSORS[sensor].offset if sensor else None
    keys = ("s2:processing_baseline", "sentinel:processing_baseline", "processing:version")
    baseline = next((str(properties[key]) for key in keys if properties.get(key)), None)
    if baseline is None:
        baseline = sensors.product_baseline(str(properties.get("s2:product_uri", "")))
    return 0.0 if is_shifted(properties) else None if baseline is None else sensors.sentinel2_offset(baseline)


def _stac_notes(sensor: str | None, properties: Mapping[str, Any]) -> tuple[str, ...]:
    """What to know about an item: Earth Search's flag is wrong in places (earth-search issues 66 and 71)."""
    doubtful = sensor == "S2" and properties.get("earthsearch:boa_offset_applied") is False
    text = "boa_offset_applied is false, so the offset is applied; some items say so wrongly: if many reflectances "
    return (f"{text}are below 0, give --scale 0.0001 --offset 0",) if doubtful else ()


def _href(source: str, href: str) -> str:
    """An asset's address, resolved against its item: a file of this machine, or one behind http(s), s3 or gs."""
    here = "://" not in source
    href = urllib.parse.unquote(href) if here and "://" not in href else href  # before it is judged
    if here and not re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:", href):
        address = str(Path(source).parent / href)
        # GDAL's own file systems begin with /vsi, however many slashes and dots stood before that.
        known = not re.match(r"/+vsi", os.path.normpath(address)) and not href.startswith("<")
    else:
        address = urllib.parse.urljoin(source, href) if not here else href
        known = re.match(r"(https?|s3|gs)://[^/]", address, re.IGNORECASE) is not None
    if not href or not known:
        raise InputError(f"{source}: asset address {href[:80]!r} is not opened; wanted http(s), s3, gs or a file path")
    return address
