"""Which weather format a path holds, told by its name and its first bytes."""

from __future__ import annotations

import enum
import re
from pathlib import Path

from models.errors import InputError

_NETCDF = (".nc", ".nc3", ".nc4", ".cdf", ".netcdf", ".h5", ".hdf5", ".he5")
SUFFIXES = frozenset((*_NETCDF, ".grib", ".grib1", ".grib2", ".grb", ".grb1", ".grb2", ".gb2", ".gb", ".zarr"))
_RASTERS = frozenset((".tif", ".tiff", ".jp2", ".vrt", ".img", ".json", ".geojson", ".png", ".jpg", ".jpeg", ".xml"))
_STORE = (".zgroup", ".zmetadata", "zarr.json")
_HEAD = 4096


class Format(enum.Enum):
    """A format that weather data comes in."""

    NETCDF3 = "NetCDF-3"
    HDF5 = "NetCDF-4/HDF5"
    ZARR = "Zarr"
    GRIB = "GRIB"


def is_address(source: object) -> bool:
    """Whether a name is an address, not a path of this machine."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", str(source)) is not None


def is_weather(path: str) -> bool:
    """Whether a path looks like weather data: by suffix, as a Zarr store, or else by its first bytes."""
    if is_address(path):
        return re.search(r"\.zarr(-v\d)?/*$", path) is not None
    file = Path(path)
    if file.suffix.lower() in _RASTERS or not _exists(file):
        return False
    if file.is_dir():
        return _is_store(file)
    return file.suffix.lower() in SUFFIXES or (file.is_file() and _of(_head(file)) is not None)


def format_of(path: Path) -> Format:
    """The format of a file or store by its content.

    Raises:
        InputError: it is missing, empty, text, compressed, or of a format that is not read; the message says which.
    """
    if not _exists(path):
        raise InputError(f"{path}: no such file; check the path")
    if not path.is_file() and not path.is_dir():
        raise InputError(f"{path}: neither a file nor a folder; NetCDF, Zarr or GRIB is wanted")
    if path.is_dir():
        if not _is_store(path):
            raise InputError(f"{path}: a folder that is no Zarr store (no zarr.json, .zgroup); pass a file or a store")
        return Format.ZARR
    head = _head(path)
    found = _of(head)
    if found is None:
        raise InputError(f"{path}: {_why_not(head)}")
    return found


def _exists(path: Path) -> bool:
    """Whether there is something of this name."""
    try:
        return path.exists()
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror}); check its name and permissions") from error


def _is_store(folder: Path) -> bool:
    """Whether a folder is a Zarr store: by its metadata, or for want of it by its name."""
    return any(_exists(folder / name) for name in _STORE) or folder.suffix.lower() == ".zarr"


def _head(file: Path) -> bytes:
    """The first bytes."""
    try:
        with file.open("rb") as stream:
            return stream.read(_HEAD)
    except OSError as error:
        raise InputError(f"{file}: cannot be opened ({error.strerror}); check its permissions") from error


def _of(head: bytes) -> Format | None:
    """The format by its signature. A GRIB file may begin with the heading of a bulletin."""
    if head[:3] == b"CDF" and head[3:4] in (b"\x01", b"\x02"):
        return Format.NETCDF3
    # HDF5 allows a user block of 512 bytes, 1024, ... before its signature.
    if any(head[at : at + 8] == b"\x89HDF\r\n\x1a\n" for at in (0, 512, 1024, 2048)):
        return Format.HDF5
    at = head.find(b"GRIB")
    if at >= 0 and head[at + 7 : at + 8] in (b"\x01", b"\x02"):
        return Format.GRIB
    return None


def _why_not(head: bytes) -> str:
    """Why a file is not read, and what to do."""
    known = {
        b"\x1f\x8b": "compressed by gzip; run gunzip on it first",
        b"BZh": "compressed by bzip2; run bunzip2 on it first",
        b"PK\x03\x04": "a zip archive; unpack it first",
        b"\x0e\x03\x13\x01": "HDF4, which is not read; convert it with gdal_translate or h4toh5 first",
        b"CDF\x05": "NetCDF in the 64-bit data format (CDF-5); convert it with nccopy -k nc4 first",
        b"BUFR": "BUFR, observations and no fields; NetCDF, Zarr or GRIB is wanted",
    }
    for mark, reason in known.items():
        if head.startswith(mark):
            return reason
    if not head:
        return "an empty file; fetch it again"
    try:
        head[: max(len(head) - 3, 1)].decode()  # the last letter may be cut
        text = b"\0" not in head
    except UnicodeDecodeError as error:
        text = error.start >= len(head) - 6
    if text:
        first = " ".join(head[:60].decode("utf-8", "replace").split())
        return f"text, it begins with {first!r}; NetCDF, Zarr or GRIB is wanted: fetch the file itself"
    return "neither NetCDF, HDF5, Zarr nor GRIB by its first bytes; fetch the file again"
