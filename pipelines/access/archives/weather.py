"""Weather of a place and a period from an archive: a NetCDF file for each month."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import xarray as xr

from models.errors import EarthtuneError, InputError, explained, shown
from models.files import draft
from models.runtime.hashes import sha256_now
from pipelines.access.archives.files import pieces_of_files
from pipelines.access.archives.pieces import Piece
from pipelines.access.archives.stores import pieces_of_store
from pipelines.access.bring import is_sound
from pipelines.access.catalogues import ARCHIVES, Archive
from pipelines.access.place import Place, read_place
from pipelines.access.request import Request
from pipelines.access.web import Web
from pipelines.outputs.netcdf import write_netcdf
from pipelines.recipes.days import read_days
from pipelines.records.ledger import Entry, digest
from pipelines.weather.formats.detect import is_address, is_weather

Progress = Callable[[Iterable[Any], str], Iterable[Any]]


def fetch_weather(asked: Request, *, progress: Progress | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Fetch weather; see `commands.fetch`."""
    place, days, archive = read_place(asked.place), read_days(asked.dates), ARCHIVES[asked.product]
    address = _address(asked, archive)
    if asked.out.exists() and not asked.out.is_dir():
        raise InputError(f"{asked.out}: wanted a folder, it is a file; give another --out")
    say(f"opening {shown(address)}")
    folder = address.startswith(("http://", "https://")) and address.endswith("/") and not is_weather(address)
    web, amount = Web(address), dict[str, float]()
    if folder:
        pieces = pieces_of_files(web, asked.product, address, asked.variables, place, days)
    else:
        pieces, most = pieces_of_store(asked.product, address, asked.variables, place, days)
        amount["read_at_most"] = most / 1e6
    if not pieces:
        raise InputError(f"{shown(address)}: has no time in {days.first} to {days.last}; give other --dates")
    size = sum(piece.size for piece in pieces)
    if size > asked.max_gb * 1e9:
        told = f"{size / 1e9:.1f} GB of fields are asked for"
        raise InputError(f"{told}, --max_gb is {asked.max_gb:g}; ask for fewer days, fewer fields or a smaller place")
    if not folder:
        say(f"chunks of up to {amount['read_at_most']:.1f} MB (unpacked) are read for {size / 1e6:.1f} MB of fields")
    became = list[dict[str, Any]]()
    for piece in progress(pieces, "fetching") if progress else pieces:
        entry = _entry(asked, piece, place, address)
        became.append(_bring(entry, piece, archive, address, asked, say))
    return {
        "place": list(place.bounds),
        "scenes": became,
        "left_out": [],
        "megabytes": size / 1e6,
        "dry_run": asked.dry_run,
        **(amount or {"received": web.received / 1e6}),
    }


def _address(asked: Request, archive: Archive) -> str:
    """Where the weather is.

    Raises:
        InputError: nothing is known here, and none is given; or it is none of an archive.
    """
    address = asked.catalogue or archive.url
    if "{collection}" in address:
        plain = len(asked.collection) == 1 and re.fullmatch(r"[\w.-]+", asked.collection[0])
        address = address.replace("{collection}", asked.collection[0]) if plain else ""
    if not address:
        raise InputError(f"--product {asked.product}: {archive.advice}")
    if not is_address(address):
        raise InputError(
            f"--catalogue {address}: wanted the address of a Zarr store (https://, s3://, gs://) or of a folder of "
            "NetCDF files (https://.../)"
        )
    return address


def _entry(asked: Request, piece: Piece, place: Place, address: str) -> Entry:
    """The ledger's page of a file; its key is all that decides what it holds."""
    key: dict[str, Any] = {"address": shown(address), "variables": list(asked.variables), "place": place.bounds}
    return Entry(asked.out, piece.name, digest(key | dict(piece.key)))


def _bring(
    entry: Entry, piece: Piece, archive: Archive, address: str, asked: Request, say: Callable[[str], None]
) -> dict[str, Any]:
    """Fetch a file that is not there, and tell what became of it."""
    file = entry.out / f"{piece.name}.nc"
    told: dict[str, Any] = {"scene": piece.name, "date": piece.date, "item": str(file), "notes": list(piece.notes)}
    done = entry.done()
    if done is not None and is_sound(entry, done):
        return told | {"status": "kept"}
    told["megabytes"] = piece.size / 1e6
    if asked.dry_run:
        return told | {"status": "planned", "item": ""}
    for note in piece.notes:
        say(f"{piece.name}: {note}")
    if done is not None:
        say(f"{file}: not as it was written; fetched again")
    try:
        with entry.claim(wait=False) as mine:
            if not mine:
                return told | {"status": "partial"}
            if file.exists() and not asked.overwrite and not entry.knows():
                raise InputError(f"{file}: exists already, of another request; give another --out, or --overwrite")
            with draft(file) as work:
                write_netcdf(work, _plain(piece, archive, address))
            entry.finish({"sha256": {file.name: sha256_now(file)}}, [file])
    except EarthtuneError as error:
        line, code = explained(error)
        return told | {"status": "failed", "error": line, "exit_code": code}
    return told | {"status": "done"}


def _plain(piece: Piece, archive: Archive, address: str) -> xr.Dataset:
    """The fields with what their archive tells of them, where they are from, and on what terms."""
    data = piece.read().drop_encoding()
    own: Mapping[Any, Any] = {key: value for key, value in data.attrs.items() if not str(key).startswith("earthtune_")}
    attribution = archive.attribution.format(year=piece.date[:4])
    terms = {"license": archive.licence, "attribution": attribution, "derived_from": shown(address)}
    return xr.Dataset(data.data_vars, data.coords, {**own, **terms})
