"""MERRA-2 files as what Prithvi WxC eats: its channels at chosen times and its static fields, on one grid.

Takes the extracts that are published beside the model (`MERRA2_sfc_*`, `MERRA_pres_*`) and MERRA-2's own collections
(inst3_3d_asm_Nv, inst1_2d_asm_Nx, tavg1_2d_lnd/flx/rad_Nx, const_2d_asm/ctm_Nx). Levels are chosen by their label.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from models.backbones.wxc_inputs import MISSING, STATIC, Batch, kept_rows, make_batch, stack_channels
from models.errors import InputError
from models.types import Source
from pipelines.weather import intervals, regions, units
from pipelines.weather.dataset import named, open_parts, select_levels
from pipelines.weather.joining import instead, source_name

_HALF = np.timedelta64(30, "m")
_MONTHS = 12
SAME_PLACE = 0.01  # degrees within which two grids are the same

Time = np.datetime64

# What Prithvi WxC was trained on (Bosilovich et al. 2016, MERRA-2: File Specification, GMAO Office Note 9).
UNITS = {
    **dict.fromkeys(("EFLUX", "HFLUX", "LWGAB", "LWGEM", "LWTUP", "SWGNT", "SWTNT"), "W m-2"),
    **dict.fromkeys(("GWETROOT", "LAI", "CLOUD", "FRACI", "FRLAND", "FROCEAN"), "1"),
    **dict.fromkeys(("QV2M", "QV", "QI", "QL"), "kg kg-1"),
    **dict.fromkeys(("TQI", "TQL", "TQV"), "kg m-2"),
    **dict.fromkeys(("PS", "SLP", "PL"), "Pa"),
    **dict.fromkeys(("T2M", "TS", "T"), "K"),
    **dict.fromkeys(("U10M", "V10M", "U", "V"), "m s-1"),
    **dict.fromkeys(("Z0M", "H"), "m"),
    "OMEGA": "Pa s-1",
    "PHIS": "m2 s-2",
}


@dataclass(frozen=True)
class Merra2:
    """Fields by name and time, read where they are asked for.

    Attributes:
        channels: names of the channels in their order: surface variables, or `VARIABLE_LEVEL`.
        static: names of the static fields in their order.
        grid: dataset of the coordinates lat (falling, without the north pole where both are there) and lon (rising).
        sources: by variable, the files' fields of it: (time, [level,] lat, lon).
    """

    channels: tuple[str, ...]
    static: tuple[str, ...]
    grid: xr.Dataset
    sources: Mapping[str, tuple[xr.DataArray, ...]]

    @property
    def lat(self) -> NDArray[np.float64]:
        """(H,) degrees north, falling."""
        return np.asarray(self.grid["lat"].values)

    @property
    def lon(self) -> NDArray[np.float64]:
        """(W,) degrees east, rising."""
        return np.asarray(self.grid["lon"].values)

    def times(self) -> list[Time]:
        """The times at which every channel can be read, rising."""
        names = {split_channel(channel)[0] for channel in self.channels}
        every = [set().union(*(_instants(part) for part in self.sources[name])) for name in names]
        return sorted(set.intersection(*every)) if every else []

    def attrs(self, channel: str) -> Mapping[str, Any]:
        """The attributes of a channel's variable in its first file: long_name, and units also where it has none."""
        return dict(self.sources[split_channel(channel)[0]][0].attrs)

    def fields(self, times: Sequence[Time]) -> dict[str, NDArray[Any]]:
        """The channels at some times by name, (T, H, W) each.

        Raises:
            InputError: a time at which a variable is not there.
        """
        wanted = {channel: split_channel(channel) for channel in self.channels}
        levels: dict[str, list[float]] = {}  # rising, as they are chosen
        for name, level in wanted.values():
            levels.setdefault(name, []).extend([] if level is None else [level])
        found = {name: np.stack([_read(self.sources[name], time, name) for time in times]) for name in levels}
        places = {name: sorted(set(labels)) for name, labels in levels.items()}
        return {
            channel: found[name] if level is None else found[name][:, places[name].index(level)]
            for channel, (name, level) in wanted.items()
        }

    def stack(self, time: Time) -> NDArray[np.float32]:
        """The channels at a time, (C, H, W), finite.

        Raises:
            InputError: a time at which a variable is not there, or values that are missing (see `stack_channels`).
        """
        return np.asarray(stack_channels(self.channels, self.fields([time]))[0])

    def static_fields(self, time: Time) -> dict[str, NDArray[Any]]:
        """Static fields by name, (H, W); of those that come by month the one of `time`."""
        return {name: _constant(self.sources[name], time) for name in self.static}

    def batch(self, times: Sequence[Time], *, lead: float, climate: NDArray[Any] | None = None) -> Batch:
        """A batch of one sample, rows from north to south; see `wxc_inputs.make_batch`.

        Args:
            times: the input times, oldest first, in UTC.
            lead: hours from the last of them to the target.
            climate: (C, H, W) climatology at the target time, or None.

        Raises:
            InputError: a time at which a variable is not there, or values that are missing.
        """
        return make_batch(
            self.channels,
            self.fields(times),
            lat=self.lat,
            lon=self.lon,
            times=times,
            lead=lead,
            static=self.static_fields(times[-1]),
            static_names=self.static,
            climate=climate,
        )


def open_merra2(
    files: Sequence[Source],
    channels: Sequence[str],
    *,
    static: Sequence[str] = STATIC,
    region: regions.Region | None = None,
) -> Merra2:
    """Open MERRA-2 files, of any collections and days in any order; headers are read, values are not.

    Hourly means, which are stamped at half past, stand for the full hours as the mean of two. What several files hold
    for the same time, as some collections do, is read from the first of them.

    Args:
        files: NetCDF files, or Zarr stores behind addresses.
        channels: what is wanted, such as `WxCConfig().channels`.
        static: static fields that are wanted; none of them need a date.
        region: the part of the grid to read, as `regions.window` takes it.

    Raises:
        InputError: a file that cannot be read, a variable or level that is in none, grids that differ, a region
            that is not covered.
    """
    levels: dict[str, set[float]] = {}
    for name, level in map(split_channel, channels):
        levels.setdefault(name, set()).update(() if level is None else (level,))
    parts = [part for path in files for part in open_parts(named(path))]
    if not parts:
        raise InputError("no MERRA-2 file given: pass those of the surface and of the model levels")
    parts = [_placed(part, region) for part in parts]
    sources = {name: tuple(_having(parts, name, sorted(wanted))) for name, wanted in levels.items()}
    for name, field in [(name, field) for name, fields in sources.items() for field in fields]:
        if "time" not in field.dims:
            raise InputError(f"{source_name(field)}: {name} has no time; pass dated files")
    sources |= {name: tuple(_having(parts, name, ())) for name in static}
    first = next(iter(sources.values()))[0]
    for name, field in [(name, field) for name, fields in sources.items() for field in fields]:
        for dim in ("lat", "lon"):
            mine, theirs = field[dim].values, first[dim].values
            if len(mine) != len(theirs) or np.abs(mine - theirs).max() > SAME_PLACE:
                raise InputError(
                    f"{source_name(field)}: {dim} of {name} is {len(mine)} values {mine[0]:g}..{mine[-1]:g}, that of "
                    f"{source_name(first)} {len(theirs)} values {theirs[0]:g}..{theirs[-1]:g}; wanted one grid"
                )
    grid = xr.Dataset(coords={dim: first[dim].variable for dim in ("lat", "lon")})
    return Merra2(tuple(channels), tuple(static), grid, sources)


def split_channel(channel: str) -> tuple[str, float | None]:
    """A channel's variable and the label of its level: `U_51` is ("U", 51.0), `T2M` ("T2M", None)."""
    match = re.fullmatch(r"(.+)_(\d+(?:\.\d+)?)", channel)
    return (match[1], float(match[2])) if match else (channel, None)


def holders(files: Sequence[Source], channels: Sequence[str]) -> list[str]:
    """The variable that holds each channel: that of its name on levels, or as in forecasts one of the channel's own."""
    bases = [split_channel(name)[0] for name in channels]
    deep = [name for name, base in zip(channels, bases, strict=True) if name != base]
    for path in files if deep else ():
        held = {str(key) for part in open_parts(named(path)) for key in part.data_vars}
        own = held.intersection(deep)
        if own or held.intersection(bases):
            return [name if name in own else base for name, base in zip(channels, bases, strict=True)]
    return bases


def static_series(
    files: Sequence[Source],
    names: Sequence[str],
    times: NDArray[Any],
    *,
    lat: NDArray[Any],
    lon: NDArray[Any],
    region: regions.Region | None = None,
) -> NDArray[np.float32]:
    """Static fields at some times, (T, S, H, W), those that come by month as at each time.

    Raises:
        InputError: one is not there, has holes, or lies on another grid than that of `lat` and `lon`.
    """
    opened = open_merra2(files, (), static=names, region=region)
    for axis, mine, theirs in (("lat", lat, opened.lat), ("lon", lon, opened.lon)):
        if len(mine) != len(theirs) or np.abs(mine - theirs).max() > SAME_PLACE:
            raise InputError(
                f"static fields {', '.join(names)}: {axis} is {len(theirs)} values {theirs[0]:g}..{theirs[-1]:g}, "
                f"that of the fields {len(mine)} values {mine[0]:g}..{mine[-1]:g}; wanted one grid"
            )
    stamps = [time.astype("datetime64[ns]") for time in times]
    return np.stack([stack_channels(names, opened.static_fields(stamp)) for stamp in stamps])


def choose_channels(wanted: Iterable[str], channels: Sequence[str]) -> tuple[str, ...]:
    """Channels by name, in the model's order; a variable such as `U` stands for all its levels, `all` for every one.

    Raises:
        InputError: a name that is none of them; the message says which are close.
    """
    chosen: set[str] = set()
    for name in wanted:
        found = [channel for channel in channels if name in ("all", channel, split_channel(channel)[0])]
        if not found:
            raise InputError(f"variable {name} is wanted{instead(name, list(channels))}")
        chosen.update(found)
    return tuple(channel for channel in channels if channel in chosen)


def _placed(part: xr.Dataset, region: regions.Region | None) -> xr.Dataset:
    """The rows and columns of a file that are wanted."""
    if "lat" not in part.dims:
        raise InputError(f"{source_name(part)}: wanted MERRA-2's grid of latitudes and longitudes, its grid is another")
    rows = kept_rows(part["lat"].values)
    part = part if rows == slice(0, part.sizes["lat"]) else part.isel(lat=rows)
    return part if region is None else regions.window(part, region, name=source_name(part))


def _having(parts: Sequence[xr.Dataset], name: str, levels: Sequence[float]) -> list[xr.DataArray]:
    """The fields of a variable at these levels, or without any."""
    found, problem = [], None
    for part in parts:
        if name not in part or ("level" in part[name].dims) != bool(levels):
            continue
        try:
            chosen = select_levels(part[[name]], levels, name=f"{source_name(part)}: {name}") if levels else part
        except InputError as error:
            problem = error
            continue
        found.append(_in_units(chosen[name], name, source_name(part)).assign_attrs(earthtune_source=source_name(part)))
    if found:
        return found
    if problem:
        raise problem
    names = sorted({str(key) for part in parts for key in part.data_vars})
    kind = " on model levels" if levels else ""
    raise InputError(f"{source_name(parts[0])}: variable {name}{kind} is wanted{instead(name, names)}")


def _in_units(field: xr.DataArray, name: str, file: str) -> xr.DataArray:
    """A field in the units of MERRA-2; one without units, as some in the published extracts are, is taken to have them.

    Raises:
        InputError: its units are of another quantity.
    """
    wanted, have = UNITS.get(name, ""), str(field.attrs.get("units", ""))
    if not wanted or not have:
        return field.assign_attrs(units=wanted or have)
    return field if units.tidy(have) == units.tidy(wanted) else intervals.in_unit(field, wanted, name=file)


def _instants(field: xr.DataArray) -> set[Time]:
    """The times at which a field can be told: its own, and full hours between two half hours."""
    own = set(field["time"].values)
    return own | {time + _HALF for time in own if _is_half(time) and time + 2 * _HALF in own}


def _is_half(time: Time) -> bool:
    return bool(time - time.astype("datetime64[h]") == _HALF)


def _read(fields: Sequence[xr.DataArray], time: Time, name: str) -> NDArray[Any]:
    """A field at a time, ([level,] lat, lon)."""
    for stamps in ((time,), (time - _HALF, time + _HALF)):
        found = [_one(fields, stamp) for stamp in stamps]
        there = [field for field in found if field is not None]
        if len(there) == len(stamps) and (len(stamps) == 1 or _is_half(stamps[0])):
            mean = np.mean([field.values for field in there], axis=0, dtype=np.float32)
            return _whole(np.asarray(mean), there[0], time)
    held = sorted(stamp for field in fields for stamp in field["time"].values)
    first, last = (np.datetime_as_string(held[at], "m") for at in (0, -1))
    raise InputError(
        f"{source_name(fields[0])}: {name} at {np.datetime_as_string(time, 'm')} is wanted, these files have "
        f"{len(held)} times {first}..{last}; add the file that holds it"
    )


def _whole(values: NDArray[Any], field: xr.DataArray, time: Time) -> NDArray[Any]:
    """The values of a field."""
    holes = int((~np.isfinite(values)).sum()) if field.name not in MISSING else 0
    if holes:
        when = np.datetime_as_string(time, "m")
        raise InputError(
            f"{source_name(field)}: {holes} of {values.size} values of {field.name} at {when} are missing; "
            "fill them or choose another region"
        )
    return values


def _one(fields: Sequence[xr.DataArray], time: Time) -> xr.DataArray | None:
    for field in fields:
        at = np.flatnonzero(field["time"].values == time)
        if len(at):
            return field.isel(time=int(at[0]))
    return None


def _constant(fields: Sequence[xr.DataArray], time: Time) -> NDArray[Any]:
    """A static field: of several dates that of `time`, else that of its month, else the first."""
    dated = [field for field in fields if "time" in field.dims]
    if len(dated) < len(fields):
        return np.asarray(next(field for field in fields if "time" not in field.dims).values)
    exact = _one(dated, time)
    if exact is not None:
        return np.asarray(exact.values)
    months = [field for field in dated if field.sizes["time"] == _MONTHS]
    month = int(time.astype("datetime64[M]").astype(int)) % _MONTHS
    return np.asarray(months[0].isel(time=month).values if months else dated[0].isel(time=0).values)
