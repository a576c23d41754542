"""Fetch scenes of a place: search, look, plan, and bring what is not there yet."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import EarthtuneError, InputError, explained
from pipelines.access.bring import Room, bring, is_sound
from pipelines.access.catalogues import Catalogue, catalogue_of, product_of
from pipelines.access.offers import LeftOut, Offer, offers
from pipelines.access.place import Place, read_place
from pipelines.access.plan import Plan, plan
from pipelines.access.record import terms
from pipelines.access.request import Request
from pipelines.access.search import find_items
from pipelines.access.seen import by_layer
from pipelines.access.web import RefusedError, Web
from pipelines.outputs.parts import open_raster
from pipelines.recipes.days import read_days
from pipelines.records.ledger import Entry, digest
from pipelines.scenes.scene import wanted_bands

_PACKED = 100  # what pixels may be packed to; those that tell less are bombs
Progress = Callable[[Iterable[Any], str], Iterable[Any]]


def fetch_scenes(asked: Request, *, progress: Progress | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Fetch scenes; see `commands.fetch`."""
    place, days, product = read_place(asked.place), read_days(asked.dates), product_of(asked.product)
    bands = wanted_bands(asked.bands)
    catalogue = catalogue_of(asked.product, asked.catalogue)
    if not 0 <= asked.max_cloud <= 100 or not asked.max_gb > 0:
        raise InputError("--max_cloud wants percent, 0 to 100, and --max_gb more than 0")
    if asked.out.exists() and not asked.out.is_dir():
        raise InputError(f"{asked.out}: wanted a folder, it is a file; give another --out")
    web = Web(catalogue.url)
    collections = asked.collection or catalogue.collections.get(asked.product, ())
    say(f"asking {catalogue.url} for {asked.product}, {days.first} to {days.last}")
    out = list[LeftOut]()
    items = find_items(web, catalogue.url, place, days, out, collections=collections)
    offered = offers(items, product, bands, out)
    entries = {offer.name: _entry(asked, place, offer, terms(product)) for offer in offered}
    kept = {offer.name: done for offer in offered if (done := _kept(entries[offer.name], say)) is not None}
    plans, failed = _plans(web, catalogue, [o for o in offered if o.name not in kept], place, asked, out, progress)
    told = [
        _told(o.name, o.date, "kept", item=str(asked.out / str(kept[o.name]["item"])), notes=kept[o.name]["notes"])
        for o in offered
        if o.name in kept
    ]
    clear = [_clear_of(asked.out / offer.name, offer, place) for offer in offered if offer.name in kept]
    clear += [one.seen.cells for one in plans]
    size = sum(max(one.size, one.unpacked // _PACKED) for one in plans)
    if asked.dry_run:
        told += [_told(p.offer.name, p.offer.date, "planned", plan=p) for p in plans]
    else:
        _check_room(asked, size)
        told += _bring_all(web, plans, entries, terms(product), asked, progress, say)
    scenes = sorted([*told, *failed], key=lambda one: (one["date"], one["scene"]))
    return {
        "place": list(place.bounds),
        "scenes": scenes,
        "left_out": [{"scene": one.name, "why": one.why} for one in sorted(out, key=lambda one: (one.why, one.name))],
        "seen_clear": place.share(np.any(clear, axis=0)) if clear else 0.0,
        "megabytes": size / 1e6,
        "received": web.received / 1e6,
        "dry_run": asked.dry_run,
    }


def _entry(asked: Request, place: Place, offer: Offer, facts: Mapping[str, Any]) -> Entry:
    """The ledger's page of a scene; its key is all that decides what its files hold."""
    key = {**offer.identity(), "place": place.outline.wkt, "terms": dict(facts)}
    return Entry(asked.out, offer.name, digest(key))


def _kept(entry: Entry, say: Callable[[str], None]) -> dict[str, Any] | None:
    """What the ledger knows of a scene that is there as it was written."""
    done = entry.done()
    if done is None:
        return None
    if is_sound(entry, done):
        shutil.rmtree(entry.parts, ignore_errors=True)  # of an attempt that was killed at its very end
        return done
    say(f"{entry.out / entry.stem}: not as it was written; fetched again")
    return None


def _clear_of(folder: Path, offer: Offer, place: Place) -> np.ndarray:
    """Cells of the place that a scene on this disk shows clear."""
    if offer.clouds is None:
        return place.weights > 0
    with open_raster(folder / f"{offer.clouds.name}.tif") as source:
        return by_layer(source, str(offer.clouds.name), 1, place).cells


def _plans(
    web: Web,
    catalogue: Catalogue,
    wanted: Sequence[Offer],
    place: Place,
    asked: Request,
    out: list[LeftOut],
    progress: Progress | None,
) -> tuple[list[Plan], list[dict[str, Any]]]:
    """What is to be read of scenes; what cannot be had is left out, what the network failed at is told as failed."""

    def one(offer: Offer) -> Plan | EarthtuneError:
        try:
            return plan(web, catalogue, offer, place, asked.max_cloud)
        except RefusedError:
            raise  # of the next scene as well
        except EarthtuneError as error:
            return error

    plans, failed = list[Plan](), list[dict[str, Any]]()
    with web.workers() as pool:
        came = pool.map(one, wanted)
        for offer, found in zip(wanted, progress(came, "looking") if progress else came, strict=False):
            if isinstance(found, Plan):
                plans.append(found)
            elif isinstance(found, InputError):
                out.append(LeftOut(offer.name, explained(found)[0]))
            else:
                failed.append(_failed(offer, found))
    return plans, failed


def _check_room(asked: Request, size: int) -> None:
    """Refuse what the disk, or the person, would not take."""
    if size > asked.max_gb * 1e9:
        raise InputError(
            f"{size / 1e9:.1f} GB are to be fetched, --max_gb is {asked.max_gb:g}; raise it, or ask for fewer days, "
            "fewer bands or a smaller place"
        )
    there = next(path for path in (asked.out.absolute(), *asked.out.absolute().parents) if path.exists())
    if size > (free := shutil.disk_usage(there).free):
        raise InputError(f"{asked.out}: {size / 1e9:.1f} GB are to be fetched, {free / 1e9:.1f} GB are free there")


def _bring_all(
    web: Web,
    plans: Sequence[Plan],
    entries: Mapping[str, Entry],
    facts: Mapping[str, Any],
    asked: Request,
    progress: Progress | None,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Bring scenes, one after the other; one that fails does not stop the others."""
    room, told = Room(int(asked.max_gb * 1e9)), list[dict[str, Any]]()
    for one in progress(plans, "fetching") if progress else plans:
        entry = entries[one.offer.name]
        try:
            result = _bring(web, entry, one, facts, room, overwrite=asked.overwrite)
        except RefusedError:
            raise
        except EarthtuneError as error:
            told.append(_failed(one.offer, error))
            continue
        if result is None:
            told.append(_told(one.offer.name, one.offer.date, "partial", plan=one))
            continue
        for note in result["notes"]:
            say(f"{one.offer.name}: {note}")
        item = str(asked.out / str(result["item"]))
        told.append(_told(one.offer.name, one.offer.date, "done", plan=one, item=item, notes=result["notes"]))
    return told


def _bring(
    web: Web, entry: Entry, one: Plan, facts: Mapping[str, Any], room: Room, *, overwrite: bool
) -> dict[str, Any] | None:
    """Bring a scene that nobody else is at; None where somebody is."""
    with entry.claim(wait=False) as mine:
        if not mine:
            return None
        if (done := entry.done()) is not None and is_sound(entry, done):
            return done  # by somebody else meanwhile
        home = entry.out / entry.stem
        begun = entry.parts.is_dir() and any(entry.parts.iterdir())
        if home.exists() and not overwrite and not begun and not entry.knows():
            raise InputError(f"{home}: exists already, of another request or maker; give another --out, or --overwrite")
        return bring(web, entry, one, facts, room)


def _failed(offer: Offer, error: EarthtuneError) -> dict[str, Any]:
    """What became of a scene that failed."""
    line, code = explained(error)
    return _told(offer.name, offer.date, "failed") | {"error": line, "exit_code": code}


def _told(
    name: str, date: str, status: str, *, plan: Plan | None = None, item: str = "", notes: Sequence[str] = ()
) -> dict[str, Any]:
    """What became of a scene."""
    told: dict[str, Any] = {"scene": name, "date": date, "status": status}
    if plan:
        told |= {"seen": plan.seen.share, "clear": plan.seen.clear, "megabytes": plan.size / 1e6}
    return told | ({"item": item, "notes": list(notes)} if item else {})
