"""The climatology of Prithvi WxC's channels by time, on the grid of some fields: from the Hub, a folder, or a mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.backbones.wxc_climatology import climatology_names, locate_climatology, read_climatology
from models.backbones.wxc_files import WxCConfig
from models.errors import InputError
from models.types import Array

Time = np.datetime64


@dataclass(frozen=True)
class Climatology:
    """The channels' climatology by time, on one grid.

    Attributes:
        told: where it comes from, for the outputs.
        lat: (H,) degrees north.
        lon: (W,) degrees east.
        config: names the channels.
        folder: holds climatology/; None for the Hub.
        mean: (C, H, W) that stands in for it at all times, or None.
    """

    told: str
    lat: NDArray[np.float64]
    lon: NDArray[np.float64]
    config: WxCConfig
    folder: Path | None = None
    mean: Array | None = None

    @classmethod
    def at(cls, where: str, lat: NDArray[np.float64], lon: NDArray[np.float64], config: WxCConfig) -> Climatology:
        """The climatology of "hub", a folder that holds climatology/, or the folder of a weight file."""
        path = Path(where)
        folder = None if where == "hub" else path.parent if path.is_file() else path
        return cls(where, lat, lon, config, folder)

    def read(self, time: Time, channels: Sequence[str] = ()) -> Array:
        """Channels at a time, (C, H, W) in the units of MERRA-2; all of them where none are named.

        Raises:
            InputError: a file that cannot be read, does not cover the grid, or lacks values.
        """
        every = self.config.channels
        if self.mean is None:
            surface, vertical = self.files(time)
            values = read_climatology(surface, vertical, lat=self.lat, lon=self.lon, config=self.config)
        else:
            values = self.mean
        same = not channels or tuple(channels) == every
        return values if same else np.ascontiguousarray(values[[every.index(name) for name in channels]])

    def files(self, time: Time) -> tuple[Path, Path]:
        """The surface and the vertical file of a time.

        Raises:
            InputError: not a multiple of three hours, or a file that the Hub does not give.
        """
        if self.folder is None:
            return locate_climatology(time)
        surface, vertical = climatology_names(time)
        return self.folder / surface, self.folder / vertical

    def check(self, times: Iterable[Time], channels: Sequence[str] = ()) -> None:
        """See that the files of these times are there and of these channels, before any work.

        Raises:
            InputError: one is not.
        """
        unknown = [name for name in channels if name not in self.config.channels]
        if unknown:
            raise InputError(
                f"climatology {self.told}: there is none of {unknown[0]}, which Prithvi WxC does not have; leave the "
                "climatology out (none), or the field"
            )
        absent = [file for time in times if self.mean is None for file in self.files(time) if not file.is_file()]
        if absent:
            raise InputError(
                f"{absent[0]}: no such file, and {len(absent) - 1} more; the climatology at the targets is wanted"
            )
