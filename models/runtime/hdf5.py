"""HDF5 and NetCDF 4 files that hold their values themselves.

The format lets a file name others: for the bytes of an array, for arrays that it is put together of, for what a link
leads to. https://docs.hdfgroup.org/hdf5/v1_14/_u_g.html
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py

from models.errors import InputError

HDF5_DRIVERS = ("netCDF", "HDF5", "HDF5Image", "BAG")  # by which GDAL opens such files


def is_hdf5(path: Path) -> bool:
    """Whether a file is HDF5 by its content."""
    return path.is_file() and bool(h5py.is_hdf5(path))


def check_alone(path: Path) -> None:
    """Refuse an HDF5 file that reads other files; nothing is read from these.

    Raises:
        InputError: it does; the message names which.
    """
    try:
        with h5py.File(path) as file:
            found = file.visititems_links(_elsewhere) or file.visititems(_read_from)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read as NetCDF-4/HDF5 ({line}); fetch the file again") from error
    if found:
        name, other = found
        raise InputError(f"{path}: {name} is read from another file, {other!r}; copy the values into one by h5repack")


def _elsewhere(name: str, link: Any) -> tuple[str, str] | None:
    """A link to another file; None for others, so that the visit goes on."""
    return (name, str(link.filename)) if isinstance(link, h5py.ExternalLink) else None


def _read_from(name: str, item: Any) -> tuple[str, str] | None:
    """An array whose values lie in another file."""
    if not isinstance(item, h5py.Dataset):
        return None
    others = [str(file) for file, _, _ in item.external or ()]
    others += [s.file_name for s in (item.virtual_sources() if item.is_virtual else ()) if s.file_name != "."]
    return (name, others[0]) if others else None
