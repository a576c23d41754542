"""Weather from dated NetCDF 4 files of a folder behind https: a file at a time, read by range."""

from __future__ import annotations

import datetime
import io
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urljoin, urlsplit

import xarray as xr

from models.errors import InputError, shown
from pipelines.access.archives.pieces import Piece, bytes_of, ends
from pipelines.access.place import Place
from pipelines.access.remote import Remote
from pipelines.access.web import Web
from pipelines.recipes.days import Days
from pipelines.weather.dataset import canonical_parts, in_days
from pipelines.weather.formats.detect import Format
from pipelines.weather.formats.netcdf import by_grid, open_netcdf
from pipelines.weather.joining import having, joined
from pipelines.weather.regions import Region, around

_CHUNK = 1 << 18  # bytes that are asked for at once: an HDF5 header is many small pieces
_MOST_OF_A_FILE = 256 << 20
_LINK = re.compile(r"""href\s*=\s*["']([^"'<>]+)""", re.IGNORECASE)
_DATE = re.compile(r"(?<!\d)(\d{4})(\d\d)(\d\d)?(?!\d)")
_SUFFIXES = (".nc", ".nc4", ".h5", ".hdf5")


class _Stream(io.RawIOBase):
    """What HDF5 reads a remote file by; what the network fails at is raised through it."""

    def __init__(self, remote: Remote) -> None:
        self._remote, self._at = remote, 0

    def __str__(self) -> str:
        return self._remote.name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at}.get(whence)
        self._at = max((self._remote.size if base is None else base) + offset, 0)
        return self._at

    def readinto(self, buffer: Any) -> int:
        content = self._remote.read(self._at, len(buffer))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


def pieces_of_files(
    web: Web, product: str, address: str, variables: Sequence[str], place: Place, days: Days
) -> list[Piece]:
    """A piece for each month that has files; how large they are is told by the first file's header.

    Args:
        web: what is asked.
        product: what the pieces' names begin with.
        address: of the folder, with %Y and %m for year and month where it changes with them.
        variables: names of the fields.
        place: its region is read.
        days: files whose names tell another day, or month, are left alone.

    Raises:
        InputError: no such folder, no file of these days in it, or one without the fields.
    """
    files = _files(web, address, days)
    if not files:
        raise InputError(
            f"{shown(address)}: lists no NetCDF file whose name tells a day in {days.first} to {days.last}"
        )
    months: dict[datetime.date, list[str]] = {}
    for name, one in files.items():
        months.setdefault(one.first.replace(day=1), []).append(name)
    sample = next(iter(files))
    with _opened(web, sample) as parts:
        if not variables:
            names = sorted({str(key) for part in parts for key in part.data_vars})
            raise InputError(f"--variables: name fields of {', '.join(names[:60])}")
        size = sum(map(bytes_of, _near(parts, variables, place, sample)))
    found = []
    for month, names in sorted(months.items()):
        first, last = ends(month, days)
        read = partial(_read, web, names, variables, place, Days(first, last))
        name, there = f"{product}_{first:%Y%m%d}-{last:%Y%m%d}", set().union(*(_every(files[one]) for one in names))
        key = {"files": [shown(file) for file in names]}
        found.append(Piece(name, str(first), size * len(names), read, key, _missing(first, last, there)))
    return found


def _missing(first: datetime.date, last: datetime.date, there: Collection[datetime.date]) -> list[str]:
    """What is to be said of days without a file."""
    every = _every(Days(first, last))
    gone = [day for day in every if day not in there]
    named = f"{', '.join(map(str, gone[:5]))}{' ...' if len(gone) > 5 else ''}"
    return [f"no file of {named} ({len(gone)} of {len(every)} days)"] if gone else []


def _every(days: Days) -> list[datetime.date]:
    """Each of some days."""
    return [days.first + datetime.timedelta(days=day) for day in range((days.last - days.first).days + 1)]


def _files(web: Web, address: str, days: Days) -> dict[str, Days]:
    """The files that a folder, or that of each month, lists, with those of the days that their names tell."""
    found: dict[str, Days] = {}
    for folder in dict.fromkeys(_dated(address, month) for month in _months(days)):
        for link in _LINK.findall(web.plain(folder)):
            file = urljoin(folder, link)
            path = PurePosixPath(urlsplit(file).path)
            mine = _days_of(path.name, days)
            if mine and file.startswith(folder) and path.suffix.lower() in _SUFFIXES:
                found[file] = mine
    return dict(sorted(found.items(), key=lambda one: (one[1].first, one[0])))


def _days_of(name: str, days: Days) -> Days | None:
    """Which of some days a file's name tells: a day, or a month; None where it is none of them."""
    found = _DATE.search(name)
    if found is None:
        return None
    year, month, day = (int(part) if part else 0 for part in found.groups())
    try:
        first = datetime.date(year, month, day or 1)
    except ValueError:
        return None
    last = first if day else ends(first, Days(first, datetime.date.max))[1]
    mine = Days(max(first, days.first), min(last, days.last))
    return mine if mine.first <= mine.last else None


def _months(days: Days) -> Iterator[datetime.date]:
    """The first day of each month that has some of the days."""
    month = days.first.replace(day=1)
    while month <= days.last:
        yield month
        month = (month + datetime.timedelta(days=31)).replace(day=1)


def _dated(address: str, month: datetime.date) -> str:
    """An address of a month."""
    return address.replace("%Y", f"{month:%Y}").replace("%m", f"{month:%m}")


@contextmanager
def _opened(web: Web, address: str) -> Iterator[list[xr.Dataset]]:
    """The canonical datasets of a file, which is closed afterwards."""
    name = shown(address)
    stream = _Stream(Remote(web, name, lambda _: address, chunk=_CHUNK, most=_MOST_OF_A_FILE))
    raw = open_netcdf(stream, Format.HDF5, None)
    try:
        yield canonical_parts(by_grid(raw), name)
    finally:
        raw.close()


def _near(parts: list[xr.Dataset], variables: Sequence[str], place: Place, address: str) -> list[xr.Dataset]:
    """The wanted fields around the place."""
    return [around(part, Region(*place.bounds), name=shown(address)) for part in having(parts, variables)]


def _read(web: Web, addresses: Sequence[str], variables: Sequence[str], place: Place, days: Days) -> xr.Dataset:
    """The values of the place and the days in some files, one after the other in time."""
    found = list[xr.Dataset]()
    for address in addresses:
        with _opened(web, address) as parts:
            near = _near(parts, variables, place, address)
            found += [in_days(part, days, name=shown(address)).load() for part in near]
    return joined(found)
