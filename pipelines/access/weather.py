"""Weather of a place and a period from a Zarr store behind an address: a NetCDF file for each month."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from models.errors import EarthtuneError, InputError, explained, shown
from models.files import draft
from models.runtime.hashes import sha256_now
from pipelines.access.bring import is_sound
from pipelines.access.catalogues import ARCHIVES, Archive
from pipelines.access.place import Place, read_place
from pipelines.access.request import Request
from pipelines.outputs.netcdf import write_netcdf
from pipelines.recipes.days import Days, read_days
from pipelines.records.ledger import Entry, digest
from pipelines.weather.dataset import open_parts
from pipelines.weather.formats.detect import Format, is_address
from pipelines.weather.formats.netcdf import open_netcdf
from pipelines.weather.joining import having
from pipelines.weather.regions import Region, around

Progress = Callable[[Iterable[Any], str], Iterable[Any]]


@dataclass(frozen=True)
class Piece:
    """Fields of one grid in the days of one month.

    Attributes:
        name: of its file, without .nc.
        date: its first day, YYYY-MM-DD; that of the request for fields without times.
        data: the region and the times; values are not read.
    """

    name: str
    date: str
    data: xr.Dataset

    @property
    def size(self) -> int:
        """Bytes of the values as float32."""
        return sum(4 * int(var.size) for var in self.data.data_vars.values())


def fetch_weather(asked: Request, *, progress: Progress | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Fetch weather; see `commands.fetch`."""
    place, days, archive = read_place(asked.place), read_days(asked.dates), ARCHIVES[asked.product]
    address = asked.catalogue or archive.url
    if not is_address(address):
        raise InputError(
            f"--product {asked.product}: no open store of it is known here; --catalogue ADDRESS names a Zarr store "
            "(https://, s3://, gs://)"
        )
    if asked.out.exists() and not asked.out.is_dir():
        raise InputError(f"{asked.out}: wanted a folder, it is a file; give another --out")
    say(f"opening {shown(address)}")
    parts = open_parts(address)
    if not asked.variables:
        names = sorted({str(key) for part in parts for key in part.data_vars})
        raise InputError(f"--variables: name fields of {', '.join(names[:60])}{' ...' if len(names) > 60 else ''}")
    pieces = list(_pieces(asked.product, having(parts, asked.variables), place, days, address))
    if not pieces:
        raise InputError(f"{shown(address)}: has no time in {days.first} to {days.last}; give other --dates")
    size = sum(piece.size for piece in pieces)
    if size > asked.max_gb * 1e9:
        told = f"{size / 1e9:.1f} GB of fields are asked for"
        raise InputError(f"{told}, --max_gb is {asked.max_gb:g}; ask for fewer days, fewer fields or a smaller place")
    most = _most_bytes(address, asked.variables, pieces)
    say(f"chunks of up to {most / 1e6:.1f} MB (unpacked) are read for {size / 1e6:.1f} MB of fields")
    became = list[dict[str, Any]]()
    for piece in progress(pieces, "fetching") if progress else pieces:
        entry = _entry(asked, piece, place, address)
        became.append(_bring(entry, piece, archive, address, asked, say))
    return {
        "place": list(place.bounds),
        "scenes": became,
        "left_out": [],
        "megabytes": size / 1e6,
        "read_at_most": most / 1e6,
        "dry_run": asked.dry_run,
    }


def _pieces(product: str, parts: list[xr.Dataset], place: Place, days: Days, address: str) -> Iterator[Piece]:
    """The region and the days of each grid, month by month."""
    for number, part in enumerate(parts):
        end = f"_{number}" if len(parts) > 1 else ""
        near = around(part, Region(*place.bounds), name=shown(address))
        if "time" not in part.dims:
            yield Piece(f"{product}{end}", str(days.first), near)
            continue
        times = near["time"].values.astype("datetime64[D]")
        inside = (times >= np.datetime64(days.first)) & (times <= np.datetime64(days.last))
        for month in np.unique(times[inside].astype("datetime64[M]")):
            at = np.flatnonzero(inside & (times.astype("datetime64[M]") == month))
            first, last = _ends(month, days)
            yield Piece(f"{product}_{first:%Y%m%d}-{last:%Y%m%d}{end}", str(first), near.isel(time=at))


def _ends(month: np.datetime64, days: Days) -> tuple[datetime.date, datetime.date]:
    """The first and the last of the days that lie in a month."""
    first = month.astype("datetime64[D]").astype(datetime.date)
    last = ((month + 1).astype("datetime64[D]") - 1).astype(datetime.date)
    return max(first, days.first), min(last, days.last)


def _most_bytes(address: str, variables: Iterable[str], pieces: list[Piece]) -> int:
    """Bytes of the chunks that are touched, unpacked, if each begins and ends in the middle of one."""
    raw, total = open_netcdf(address, Format.ZARR, None), 0
    for key in variables:
        chunks = raw[key].encoding.get("chunks") if key in raw else None
        for piece in pieces:
            if chunks and key in piece.data and piece.data[key].ndim == len(chunks):
                shapes = zip(piece.data[key].shape, raw[key].shape, chunks, strict=True)
                count = math.prod(min((n + c - 2) // c + 1, -(-whole // c)) for n, whole, c in shapes)
                total += count * math.prod(chunks) * raw[key].dtype.itemsize
    return total


def _entry(asked: Request, piece: Piece, place: Place, address: str) -> Entry:
    """The ledger's page of a file; its key is all that decides what it holds."""
    times = [str(piece.data["time"].values[at]) for at in (0, -1)] if "time" in piece.data.dims else []
    key: dict[str, Any] = {"address": shown(address), "variables": list(asked.variables), "times": times}
    shapes = {str(name): list(var.shape) for name, var in piece.data.data_vars.items()}
    return Entry(asked.out, piece.name, digest(key | {"shapes": shapes, "place": place.bounds}))


def _bring(
    entry: Entry, piece: Piece, archive: Archive, address: str, asked: Request, say: Callable[[str], None]
) -> dict[str, Any]:
    """Fetch a file that is not there, and tell what became of it."""
    file = entry.out / f"{piece.name}.nc"
    told: dict[str, Any] = {"scene": piece.name, "date": piece.date, "item": str(file), "notes": []}
    done = entry.done()
    if done is not None and is_sound(entry, done):
        return told | {"status": "kept"}
    told["megabytes"] = piece.size / 1e6
    if asked.dry_run:
        return told | {"status": "planned", "item": ""}
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
    data = piece.data.load().drop_encoding()
    own: Mapping[Any, Any] = {key: value for key, value in data.attrs.items() if not str(key).startswith("earthtune_")}
    attribution = archive.attribution.format(year=piece.date[:4])
    terms = {"license": archive.licence, "attribution": attribution, "derived_from": shown(address)}
    return xr.Dataset(data.data_vars, data.coords, {**own, **terms})
