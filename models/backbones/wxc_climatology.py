"""The climatology of Prithvi WxC's channels by hour and day of the year, from the Hub or a folder."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from models.backbones.catalogue import WXC_REPO
from models.backbones.hub import locate, reachable
from models.backbones.wxc_files import WxCConfig, read_hdf5
from models.backbones.wxc_inputs import climatology_index, stack_channels
from models.errors import InputError

CLOSE = 1e-3  # degrees within which two coordinates are the same


def climatology_names(time: datetime | np.datetime64) -> tuple[str, str]:
    """The surface and the vertical file of the climatology at a time, as they are called in the repository.

    Raises:
        InputError: not a multiple of three hours; the climatology has no others.
    """
    day, hour = climatology_index(time)
    if hour % 3:
        when = np.datetime64(time).astype("datetime64[m]")
        raise InputError(f"climatology at {when}: there is one every three hours from 00 UTC on")
    kinds = ("surface", "vertical")
    return tuple(f"climatology/climate_{kind}_doy{day:03}_hour{hour:02}.nc" for kind in kinds)  # type: ignore[return-value]


def locate_climatology(time: datetime | np.datetime64) -> tuple[Path, Path]:
    """Find the climatology of a target time: in the local cache, else on the Hub.

    Raises:
        InputError: no climatology at that hour, or a file that cannot be had.
    """
    surface, vertical = climatology_names(time)
    online = reachable()
    return locate(WXC_REPO, surface, online=online).path, locate(WXC_REPO, vertical, online=online).path


def read_climatology(
    surface: Path, vertical: Path, *, lat: NDArray[Any], lon: NDArray[Any], config: WxCConfig | None = None
) -> NDArray[np.float32]:
    """Read the climatology at grid points, in their order.

    Args:
        surface: climate_surface_doyDDD_hourHH.nc.
        vertical: climate_vertical_doyDDD_hourHH.nc.
        lat: (H,) degrees north, in either direction; each is a row of the files.
        lon: (W,) degrees east; each is a column of the files, whole turns aside.
        config: names the channels; the published one when None.

    Returns:
        (C, H, W) in the units of MERRA-2, channels in their order.

    Raises:
        InputError: a file that cannot be read, lacks values, or a coordinate that is not in it.
    """
    config = config or WxCConfig()
    flat = read_hdf5(surface, lambda file: _region(file, surface, config.surface, lat, lon))
    deep = read_hdf5(vertical, lambda file: _region(file, vertical, config.vertical, lat, lon))
    levels = read_hdf5(vertical, lambda file: file["lev"][()])
    try:
        return stack_channels(config.channels, flat, deep, levels=[float(level) for level in levels])
    except InputError as error:
        raise InputError(f"{surface}, {vertical.name}: {error}") from error


def _region(
    file: h5py.File, path: Path, names: Sequence[str], lat: NDArray[Any], lon: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    rows = _places(file["lat"][()], np.asarray(lat, float), f"{path}: latitude")
    columns = _places(file["lon"][()] % 360, np.asarray(lon, float) % 360, f"{path}: longitude")
    strip = slice(rows.min(), rows.max() + 1)
    return {name: file[name][..., strip, :][..., rows - rows.min(), :][..., columns] for name in names}


def _places(axis: NDArray[Any], wanted: NDArray[Any], what: str) -> NDArray[np.intp]:
    distance = np.abs(axis[None, :] - wanted[:, None])
    absent = wanted[distance.min(axis=1) > CLOSE]
    if absent.size:
        raise InputError(f"{what} {absent[0]:g} is not among its {axis.size} from {axis[0]:g} to {axis[-1]:g}")
    return np.asarray(distance.argmin(axis=1))
