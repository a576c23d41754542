"""HDF5 and NetCDF 4 files that hold their values themselves.

The format lets a file name others: for the bytes of an array, for arrays that it is put together of, for what a link
leads to. https://docs.hdfgroup.org/hdf5/v1_14/_u_g.html
"""

from __future__ import annotations

from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import InputError

if TYPE_CHECKING:  # images are inspected without it
    import h5py

HDF5_DRIVERS = ("netCDF", "HDF5", "HDF5Image", "BAG")  # by which GDAL opens such files
_MARK = b"\x89HDF\r\n\x1a\n"


def is_hdf5(path: Path) -> bool:
    """Whether a file is HDF5 by its content: its mark may follow a block of 512 bytes, 1024, 2048 and so on."""
    if not path.is_file():
        return False
    at, size = 0, path.stat().st_size
    with path.open("rb") as file:
        while at + len(_MARK) <= size:
            file.seek(at)
            if file.read(len(_MARK)) == _MARK:
                return True
            at = 2 * at or 512
    return False


def check_alone(path: Path | RawIOBase) -> None:
    """Refuse an HDF5 file that reads other files; nothing is read from these.

    Raises:
        InputError: it does; the message names which.
    """
    import h5py

    try:
        with h5py.File(path) as file:
            found = file.visititems_links(_elsewhere) or file.visititems(_read_from)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read as NetCDF-4/HDF5 ({line}); fetch the file again") from error
    if found:
        name, other = found
        raise InputError(f"{path}: {name} is read from another file, {other!r}; copy the values into one by h5repack")


def _elsewhere(name: str, link: h5py.HardLink | h5py.SoftLink | h5py.ExternalLink) -> tuple[str, str] | None:
    """A link to another file; None for others, so that the visit goes on."""
    return (name, str(link.filename)) if hasattr(link, "filename") else None


def _read_from(name: str, item: h5py.Dataset | h5py.Group) -> tuple[str, str] | None:
    """An array whose values lie in another file."""
    if not hasattr(item, "virtual_sources"):  # a group
        return None
    others = [str(file) for file, _, _ in item.external or ()]
    others += [s.file_name for s in (item.virtual_sources() if item.is_virtual else ()) if s.file_name != "."]
    return (name, others[0]) if others else None
