"""Scenes that a catalogue offers: what of an item is wanted, and which of those that show the same are left out."""

from __future__ import annotations

import hashlib
import re
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.errors import InputError, shown
from pipelines.access.catalogues import Catalogue, Offered
from pipelines.access.web import Web, is_below
from pipelines.scenes import sensors
from pipelines.scenes.bands import Ask, Layer
from pipelines.scenes.items import is_shifted, item_product, sensor_of
from pipelines.scenes.scene import find_bands

_LONGEST_NAME = 80


@dataclass(frozen=True)
class LeftOut:
    """What was not fetched, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class Offer:
    """A scene as a catalogue offers it.

    Attributes:
        name: of its folder; letters, digits, - and _ alone, whatever the item is called.
        address: where its item lies.
        item: the item itself.
        date: day, YYYY-MM-DD.
        sensor: key of `sensors.SENSORS`.
        bands: wanted bands by name.
        clouds: the cloud layer; None where there is none.
    """

    name: str
    address: str
    item: Mapping[str, Any]
    date: str
    sensor: str
    bands: Mapping[str, Layer]
    clouds: Layer | None

    @property
    def layers(self) -> dict[str, Layer]:
        """All that is to be fetched, by name."""
        return {**self.bands, **({str(self.clouds.name): self.clouds} if self.clouds else {})}

    @property
    def properties(self) -> Mapping[str, Any]:
        """Those of its item."""
        found = self.item.get("properties")
        return found if isinstance(found, dict) else {}

    @property
    def shifted(self) -> bool:
        """Whether its item says that the offset of Sentinel-2 is in the pixels already."""
        return self.sensor == "S2" and is_shifted(self.properties)

    def identity(self) -> dict[str, Any]:
        """What tells this scene from any other, without signatures."""
        files = {
            name: [bare(layer.path), layer.index, layer.units or layer.table, list(layer.nodata)]
            for name, layer in self.layers.items()
        }
        return {"id": str(self.item.get("id")), "files": files, "updated": str(self.properties.get("updated", ""))}


def bare(address: str) -> str:
    """An address without name, password, query and fragment."""
    url = urllib.parse.urlsplit(address)
    return urllib.parse.urlunsplit((url.scheme, url.netloc.rpartition("@")[2], url.path, "", ""))


def name_of(identifier: str) -> str:
    """A folder's name for an item; two items that would be called alike are not."""
    plain = re.sub(r"[^A-Za-z0-9-]+", "_", identifier).strip("_-")[:_LONGEST_NAME]
    same = re.sub(r"[._]+", "_", identifier) == plain
    return plain if same and plain else f"{plain or 'item'}_{hashlib.sha256(identifier.encode()).hexdigest()[:8]}"


def offers(
    items: Iterable[tuple[str, dict[str, Any]]], product: Offered, bands: Sequence[str], out: list[LeftOut]
) -> list[Offer]:
    """What of items can be fetched, by day and name; what cannot is added to `out`."""
    found = list[Offer]()
    for address, item in items:
        name = shown(str(item.get("id")))[:_LONGEST_NAME]
        try:
            found.append(_offer(address, item, product, bands))
        except InputError as error:
            out.append(LeftOut(name, " ".join(shown(str(error)).split()).removeprefix(f"{bare(address)}: ")))
    kept: dict[Any, Offer] = {}
    for offer in sorted(found, key=_age):
        before = kept.get(_moment(offer))
        if before:
            out.append(LeftOut(before.name, f"processed again: {offer.name}"))
        kept[_moment(offer)] = offer
    names: dict[str, Offer] = {}
    for offer in sorted(kept.values(), key=lambda one: (one.date, one.name)):
        if names.setdefault(offer.name, offer) is not offer:
            out.append(LeftOut(offer.name, "another collection has an item of this name; --collection chooses one"))
    return list(names.values())


def _offer(address: str, item: Mapping[str, Any], product: Offered, bands: Sequence[str]) -> Offer:
    """What of an item is wanted."""
    found = item_product(address, item, Ask(None, None, None))
    sensor = sensor_of(item, item.get("properties") or {})
    if sensor not in product.sensors:
        known = sensors.SENSORS[sensor].name if sensor else "of a sensor that is not known"
        raise InputError(f"it is {known}, not what is asked for")
    if found.date is None:
        raise InputError("it has no date")
    if found.problem:
        raise InputError(found.problem)
    there, _ = find_bands(found, bands)
    lacking = [band for band in bands if band not in there]
    if lacking:
        raise InputError(f"has no {', '.join(lacking)}")
    chosen = {band: there[band] for band in bands}
    return Offer(name_of(str(item.get("id"))), address, item, str(found.date), sensor, chosen, found.clouds)


def _moment(offer: Offer) -> Any:
    """What is the same of scenes that were processed twice: the second and the tile, where both are told."""
    tile = offer.properties.get("s2:mgrs_tile") or offer.properties.get("grid:code")
    tile = tile or next(iter(re.findall(r"(?<![A-Z0-9])T?\d{2}[A-Z]{3}(?![A-Z])", str(offer.item.get("id")))), None)
    return (offer.sensor, str(tile).removeprefix("T"), _time(offer)) if offer.sensor == "S2" and tile else offer.name


def _time(offer: Offer) -> str:
    """The time of a scene to the second."""
    return str(offer.properties.get("datetime") or offer.properties.get("start_datetime"))[:19]


def _age(offer: Offer) -> tuple[str, ...]:
    """What grows with the age of the processing."""
    keys = ("s2:processing_baseline", "sentinel:processing_baseline", "processing:version", "updated", "created")
    return (*(str(offer.properties.get(key, "")) for key in keys), offer.name)


def address_of(web: Web, catalogue: Catalogue, offer: Offer, layer: Layer) -> Callable[[bool], str]:
    """Where a file of a scene is asked for: a function that signs it, or looks it up anew when called with True.

    Called so it gives an empty text where nothing can be made anew.
    """
    plain = _over_http(layer.path)
    host = urllib.parse.urlsplit(plain).hostname or ""
    if catalogue.signs and is_below(host, catalogue.signed):
        sign = catalogue.signs.format(collection=urllib.parse.quote(str(offer.item.get("collection")), safe=""))
        return lambda fresh: _signed(web, sign, bare(plain), fresh=fresh)
    now = [plain]

    def address(fresh: bool) -> str:
        if not fresh:
            return now[0]
        found = _looked_up(web, offer, plain)
        now[0] = found or now[0]
        return found

    return address


def _signed(web: Web, sign: str, address: str, *, fresh: bool) -> str:
    """An address with a signature, which many files share."""
    if fresh or sign not in web.signatures:
        answer = web.read_json(sign)
        token = answer.get("token") if isinstance(answer, dict) else None
        if not isinstance(token, str) or not re.fullmatch(r"[\w%&=:.+/~-]+", token):
            raise InputError(f"{sign}: gives no signature; try again later")
        web.signatures[sign] = token
    return f"{address}?{web.signatures[sign]}"


def _looked_up(web: Web, offer: Offer, address: str) -> str:
    """The address of a file as its item has it now, where that was signed; empty where it was not."""
    if not urllib.parse.urlsplit(address).query:
        return ""
    item = web.read_json(offer.address)
    items = item.get("features") if isinstance(item, dict) and item.get("type") == "FeatureCollection" else [item]
    for one in items if isinstance(items, list) else ():
        assets = one.get("assets") if isinstance(one, dict) and one.get("id") == offer.item.get("id") else None
        for asset in (assets or {}).values() if isinstance(assets, dict) else ():
            href = urllib.parse.urljoin(offer.address, str(asset.get("href") if isinstance(asset, dict) else ""))
            if bare(_over_http(href)) == bare(address):
                return _over_http(href)
    return ""


def _over_http(address: str) -> str:
    """An address of an open bucket as its store serves it to anybody."""
    url = urllib.parse.urlsplit(address)
    if url.scheme.lower() == "s3":
        return f"https://{url.netloc}.s3.amazonaws.com{url.path}"
    return f"https://storage.googleapis.com/{url.netloc}{url.path}" if url.scheme.lower() == "gs" else address
