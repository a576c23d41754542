"""A dataset as a NetCDF-4 file after the CF conventions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr
from numpy.typing import NDArray


def grid_axes(lat: NDArray[Any], lon: NDArray[Any]) -> dict[str, tuple[str, NDArray[Any], dict[str, str]]]:
    """The coordinates `lat` and `lon` of a grid in degrees, as CF wants them (CF 1.11, sections 4.1 and 4.2)."""
    north = {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"}
    east = {"standard_name": "longitude", "units": "degrees_east", "axis": "X"}
    return {"lat": ("lat", lat, north), "lon": ("lon", lon, east)}


def write_netcdf(path: Path, data: xr.Dataset, *, encoding: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """Write a dataset: fields compressed as float32, coordinates without fill values (CF 1.11, section 2.5.1).

    The file is made in memory, for HDF5 crashes the process where a disk is full.

    Args:
        path: the file to write, in a draft.
        data: fields of floats, with CF attributes; compressed it has to fit into memory once more.
        encoding: by variable, what xarray is to do otherwise.

    Raises:
        OSError: the disk does not take it.
    """
    chosen: dict[str, dict[str, Any]] = {
        str(key): {"zlib": True, "complevel": 4, "dtype": "float32"} for key in data.data_vars
    }
    chosen |= {str(key): {"_FillValue": None} for key, var in data.coords.items() if var.dtype.kind not in "OSU"}
    for key, said in (encoding or {}).items():
        chosen[key] = chosen.get(key, {}) | dict(said)
    # For writing, xarray knows this engine without looking for others.
    content = data.to_netcdf(engine="h5netcdf", encoding=chosen)
    path.write_bytes(content)
