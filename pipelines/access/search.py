"""Items of a catalogue that may show a place in some days: from a STAC API, or from a static catalogue."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urljoin

from models.errors import InputError, explained
from pipelines.access.offers import LeftOut, bare
from pipelines.access.place import Place
from pipelines.access.web import RefusedError, Web
from pipelines.recipes.days import Days
from pipelines.scenes.sensors import find_date

MOST_ITEMS = 5000
_MOST_DOCUMENTS = 20_000  # of a static catalogue
_PAGE = 100


def find_items(
    web: Web, root: str, place: Place, days: Days, out: list[LeftOut], *, collections: Sequence[str] = ()
) -> list[tuple[str, dict[str, Any]]]:
    """Items that may show a place, each once, with the address that each is from.

    Args:
        web: the network.
        root: address of a STAC API, or of a catalogue, collection, item or list of items.
        place: ground.
        days: first and last.
        out: takes documents of a static catalogue that cannot be had, and items whose place is no place.
        collections: names of collections to look in; all when empty.

    Raises:
        InputError: it is no catalogue, refuses what is asked, or has too many.
        RunError: it does not answer.
    """
    document = web.read_json(root)
    if not isinstance(document, dict):
        raise InputError(f"{root}: not a STAC catalogue; give the address of an API, a catalogue or an item")
    searches = [link for link in _links(document, "search") if link.get("href")]
    if searches:
        post = any(link.get("method") == "POST" for link in searches)
        address = _joined(root, searches[0]["href"])
        items = _of_api(web, address, "POST" if post else "GET", place, days, collections)
    else:
        items = _of_static(web, root, document, place, days, out)
    found: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}
    for address, item in items:
        collection = str(item.get("collection") or "")
        if (why := _nowhere(item, days)) and LeftOut(str(item.get("id")), why) not in out:
            out.append(LeftOut(str(item.get("id")), why))
        elif _may_show(item, place, days) and (not collections or collection in collections):
            found.setdefault((collection, str(item.get("id"))), (address, item))
        if len(found) > MOST_ITEMS:
            raise InputError(f"{root}: more than {MOST_ITEMS} items; give fewer days, or a smaller place")
    return list(found.values())


def _of_api(
    web: Web, search: str, method: str, place: Place, days: Days, collections: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Items page by page; a page that brings nothing new is the last."""
    from pystac_client.item_search import ItemSearch
    from pystac_client.stac_api_io import StacApiIO

    class Asking(StacApiIO):
        """Pages come by way of `web`, and no file is one."""

        def request(
            self,
            href: str,
            method: str | None = None,
            headers: dict[str, str] | None = None,
            parameters: dict[str, Any] | None = None,
        ) -> str:
            return json.dumps(web.read_json(_joined(search, href), method=method or "GET", parameters=parameters))

        def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:
            link = source if isinstance(source, str) else source.to_dict()
            return self.request(link, *args, **kwargs) if isinstance(link, str) else super().read_text(source, **kwargs)

    query = ItemSearch(
        search,
        method=method,
        stac_io=Asking(),
        limit=_PAGE,
        bbox=place.bounds,
        datetime=str(days),
        collections=list(collections) or None,
    )
    seen: set[str] = set()
    try:
        for page in query.pages_as_dicts():
            if not isinstance(page["features"], list):
                raise TypeError("its features are no list")
            items = [item for item in page["features"] if isinstance(item, dict)]
            new = {f"{item.get('collection')}/{item.get('id')}" for item in items} - seen
            if not new:
                return
            seen |= new
            for item in items:
                yield _self_of(item, search), item
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{search}: not the answer of a STAC API ({error}); check the address") from error


def _self_of(item: Mapping[str, Any], search: str) -> str:
    """Where an item lies, by its own word."""
    own = next((_joined(search, link.get("href")) for link in _links(item, "self")), search)
    return own if own.startswith(("http://", "https://")) else search


def _of_static(
    web: Web, root: str, document: dict[str, Any], place: Place, days: Days, out: list[LeftOut]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Items of a catalogue of files, level by level; collections that lie elsewhere are not looked into."""

    def read(address: str) -> Any:
        try:
            return web.read_json(address)
        except RefusedError:
            raise
        except InputError as error:
            out.append(LeftOut(bare(address), explained(error)[0]))

    if document.get("type") not in ("Feature", "FeatureCollection") and not isinstance(document.get("links"), list):
        raise InputError(f"{root}: not a STAC catalogue; give the address of an API, a catalogue or an item")
    level, known = [(root, document)], {root}
    with web.workers() as pool:
        while level:
            deeper: list[str] = []
            for address, found in level:
                kind = found.get("type")
                if kind == "Feature":
                    yield address, found
                elif kind == "FeatureCollection":
                    items = found.get("features")
                    yield from ((_self_of(i, address), i) for i in items or () if isinstance(i, dict))
                elif _reaches(found, place, days):
                    links = (*_links(found, "child"), *_links(found, "item"), *_links(found, "items"))
                    deeper += [_joined(address, link.get("href")) for link in links]
            new = [address for address in dict.fromkeys(deeper) if address and address not in known]
            known |= set(new)
            if len(known) > _MOST_DOCUMENTS:
                raise InputError(f"{root}: more than {_MOST_DOCUMENTS} documents; give one of its collections")
            came = list(pool.map(read, new))
            level = [(address, one) for address, one in zip(new, came, strict=True) if isinstance(one, dict)]


def _joined(address: str, href: object) -> str:
    """Where a link of a document leads; an empty text where it is no address."""
    try:
        return urljoin(address, str(href))
    except ValueError:
        return ""


def _links(document: Mapping[str, Any], rel: str) -> list[Mapping[str, Any]]:
    """Links of a kind."""
    links = document.get("links")
    every = links if isinstance(links, list) else []
    return [link for link in every if isinstance(link, dict) and link.get("rel") == rel]


def _reaches(collection: Mapping[str, Any], place: Place, days: Days) -> bool:
    """Whether the extent of a collection, where it tells one that can be read, reaches the place and the days."""
    try:
        extent = collection["extent"]
        boxes, spans = extent["spatial"]["bbox"], extent["temporal"]["interval"]
        near = any(_touches(box, place) for box in boxes)
        return near and any(_overlaps(span, days) for span in spans)
    except (KeyError, TypeError, ValueError, IndexError):
        return True


def _touches(box: Sequence[float], place: Place) -> bool:
    """Whether a box [west, south, east, north], or one with heights, touches the place."""
    west, south, east, north = place.bounds
    low, high = (float(box[0]), float(box[1])), (float(box[len(box) // 2]), float(box[len(box) // 2 + 1]))
    across = low[0] > high[0]  # the antimeridian
    beside = low[0] <= east or high[0] >= west if across else low[0] <= east and high[0] >= west
    return beside and low[1] <= north and high[1] >= south


def _overlaps(span: Sequence[Any], days: Days) -> bool:
    """Whether a span of time stamps, open where there is none, has some of the days."""
    first, last = (find_date(str(one)) if one else None for one in (span[0], span[1]))
    return (first or datetime.date.min) <= days.last and (last or datetime.date.max) >= days.first


def _nowhere(item: Mapping[str, Any], days: Days) -> str:
    """Why nothing can be told of the place of an item of some days; empty where it can, or where it says nothing."""
    properties, box = item.get("properties"), item.get("bbox")
    date = day_of(properties) if isinstance(properties, dict) else None
    try:
        lost = isinstance(box, list) and not all(math.isfinite(float(side)) for side in box)
    except (TypeError, ValueError, OverflowError):
        return ""
    return f"its bbox {box} is no place" if lost and (date is None or days.first <= date <= days.last) else ""


def _may_show(item: Mapping[str, Any], place: Place, days: Days) -> bool:
    """Whether an item shows the place in the days, by its own word; where it says nothing it may."""
    properties, box = item.get("properties"), item.get("bbox")
    date = day_of(properties) if isinstance(properties, dict) else None
    try:
        near = not isinstance(box, list) or _touches(box, place)
    except (TypeError, ValueError, IndexError):
        near = True
    return near and (date is None or days.first <= date <= days.last)


def day_of(properties: Mapping[str, Any]) -> datetime.date | None:
    """Day of an item."""
    return find_date(str(properties.get("datetime") or properties.get("start_datetime") or ""))
