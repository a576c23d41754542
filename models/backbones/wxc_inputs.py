"""What Prithvi WxC eats: its channels in their order, static terms, the climatology's index, and the batch they make.

Fields come by name as arrays, rows from north to south or from south to north; nothing here opens a file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.errors import InputError

# Names and order of MERRA-2 variables and model levels (72 is the lowest layer): arXiv:2409.13598, table 1.
SURFACE = (
    *("EFLUX", "GWETROOT", "HFLUX", "LAI", "LWGAB", "LWGEM", "LWTUP", "PS", "QV2M", "SLP"),
    *("SWGNT", "SWTNT", "T2M", "TQI", "TQL", "TQV", "TS", "U10M", "V10M", "Z0M"),
)
VERTICAL = ("CLOUD", "H", "OMEGA", "PL", "QI", "QL", "QV", "T", "U", "V")
LEVELS = (34, 39, 41, 43, 44, 45, 48, 51, 53, 56, 63, 68, 71, 72)
STATIC = ("FRACI", "FRLAND", "FROCEAN", "PHIS")
TIME_TERMS = ("cos_doy", "sin_doy", "cos_hod", "sin_hod")  # the published code writes the cosine first
MISSING = {"GWETROOT": 1.0, "LAI": 0.0}  # what stands in for NaN, that is over water

Fields = Mapping[str, NDArray[Any]]
Batch = dict[str, Tensor]


def channel_names(
    surface: Sequence[str] = SURFACE, vertical: Sequence[str] = VERTICAL, levels: Sequence[float] = LEVELS
) -> tuple[str, ...]:
    """Names of the channels in their order: surface variables, then each vertical variable at each level (`U_51`)."""
    return (*surface, *(f"{name}_{level:g}" for name in vertical for level in levels))


def stack_channels(
    channels: Sequence[str], surface: Fields, vertical: Fields | None = None, *, levels: Sequence[float] = ()
) -> NDArray[np.float32]:
    """Stack fields into channels, levels chosen by their label; NaN is 1 in GWETROOT and 0 in LAI.

    Args:
        channels: names, of surface variables or `VARIABLE_LEVEL`.
        surface: (..., H, W) by name, in the units of MERRA-2 (or of the scalers, for other channels).
        vertical: (..., L, H, W) by name.
        levels: labels of the L levels, in the order of the arrays: MERRA-2 extracts store 72 first.

    Returns:
        (..., C, H, W), finite.

    Raises:
        InputError: a variable or level that is not there, fields of different shapes, or values that are missing.
    """
    fields = [_field(name, surface, vertical or {}, levels) for name in channels]
    shapes = {name: field.shape for name, field in zip(channels, fields, strict=True)}
    odd = next((name for name in channels if shapes[name] != shapes[channels[0]]), None)
    if odd:
        raise InputError(f"{odd}: its shape is {shapes[odd]}, that of {channels[0]} is {shapes[channels[0]]}")
    return np.stack([_filled(name, field) for name, field in zip(channels, fields, strict=True)], axis=-3)


def _field(channel: str, surface: Fields, vertical: Fields, levels: Sequence[float]) -> NDArray[Any]:
    if channel in surface:
        return np.asarray(surface[channel])
    name, _, label = channel.rpartition("_")
    if name not in vertical:
        raise InputError(f"{channel}: no such field; came {', '.join([*surface, *vertical]) or 'none'}")
    field = np.asarray(vertical[name])
    if field.ndim < 3 or field.shape[-3] != len(levels):
        raise InputError(f"{name}: wanted (..., {len(levels)} levels, rows, columns), its shape is {field.shape}")
    here = [i for i, level in enumerate(levels) if f"{level:g}" == label]
    if len(here) != 1:
        raise InputError(f"{channel}: wanted level {label} once; came {', '.join(f'{level:g}' for level in levels)}")
    return np.asarray(field[..., here[0], :, :])


def _filled(name: str, field: NDArray[Any]) -> NDArray[np.float32]:
    field = field.astype(np.float32)
    if name in MISSING:
        field = np.where(np.isnan(field), np.float32(MISSING[name]), field)
    holes = int((~np.isfinite(field)).sum())
    if holes:
        raise InputError(f"{name}: {holes} of {field.size} values are missing; fill them or choose another region")
    return field


def time_terms(time: datetime | np.datetime64) -> tuple[float, float, float, float]:
    """Cosine and sine of the day of the year (1 to 366, over 366), then of the hour of the day (over 24), in UTC."""
    stamp = _utc(time)
    day, hour = 2 * math.pi * stamp.timetuple().tm_yday / 366, 2 * math.pi * stamp.hour / 24
    return math.cos(day), math.sin(day), math.cos(hour), math.sin(hour)


def climatology_index(time: datetime | np.datetime64) -> tuple[int, int]:
    """Day of the year (1 to 365: 31 December of a leap year is 365 too) and hour of a climatology's file."""
    stamp = _utc(time)
    return min(stamp.timetuple().tm_yday, 365), stamp.hour


def _utc(time: datetime | np.datetime64) -> datetime:
    if isinstance(time, np.datetime64):
        seconds = int(time.astype("datetime64[s]").astype(np.int64))
        return datetime(1970, 1, 1) + timedelta(seconds=seconds)
    return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time


def static_channels(
    time: datetime | np.datetime64,
    lat: NDArray[Any],
    lon: NDArray[Any],
    fields: Fields,
    *,
    names: Sequence[str] = STATIC,
) -> NDArray[np.float32]:
    """Latitude and longitude in radians, the four `time_terms` of the last input time, then the static fields.

    Args:
        time: the last input time.
        lat: (H,) degrees north.
        lon: (W,) degrees east, growing; a region across the antimeridian may jump back by 360.
        fields: (H, W) by name: ice, land and ocean fraction (0..1), PHIS the surface geopotential (m2 s-2).
        names: the static fields in their order.

    Returns:
        (6 + len(names), H, W).

    Raises:
        InputError: a field is not there, has another shape, or has holes.
    """
    grid = (len(lat), len(lon))
    turned = np.unwrap(np.asarray(lon, float), period=360)
    turned = turned - 360 * math.floor((turned[0] + 180) / 360)  # starts in -180..180, as in pretraining
    rows = np.broadcast_to(np.radians(np.asarray(lat, float))[:, None], grid)
    columns = np.broadcast_to(np.radians(turned), grid)
    terms = [np.full(grid, term) for term in time_terms(time)]
    if names:
        stacked = stack_channels(names, fields)
        if stacked.shape[-2:] != grid:
            raise InputError(f"{names[0]}: its shape is {stacked.shape[-2:]}, that of the grid is {grid}")
        terms.extend(stacked)
    return np.stack([rows, columns, *terms]).astype(np.float32)


def kept_rows(lat: NDArray[Any]) -> slice:
    """The rows that Prithvi WxC takes: all, but not the north pole where both poles are there (361 rows -> 360)."""
    lat = np.asarray(lat, float)
    if max(lat[0], lat[-1]) < 90 - 1e-3 or min(lat[0], lat[-1]) > -90 + 1e-3:
        return slice(0, len(lat))
    return slice(1, len(lat)) if lat[0] > lat[-1] else slice(0, len(lat) - 1)


def make_batch(
    channels: Sequence[str],
    surface: Fields,
    vertical: Fields | None = None,
    *,
    levels: Sequence[float] = (),
    lat: NDArray[Any],
    lon: NDArray[Any],
    times: Sequence[datetime | np.datetime64],
    lead: float,
    static: Fields,
    static_names: Sequence[str] = STATIC,
    climate: NDArray[Any] | None = None,
) -> Batch:
    """Build a batch of one sample from fields given by name.

    Rows stay in the caller's order; the model turns and pads them and gives its results back in that order. Of a whole
    globe the north pole's row is left out (see `kept_rows`): results then have a row less than the fields.

    Args:
        channels: names of the channels, such as `channel_names()`.
        surface: (T, H, W) by name.
        vertical: (T, L, H, W) by name.
        levels: labels of the L levels.
        lat: (H,) degrees north, in either direction.
        lon: (W,) degrees east, growing.
        times: the T input times, oldest first, in UTC.
        lead: hours from the last input time to the target, 0 or more.
        static: (H, W) by name.
        static_names: which static fields, in their order.
        climate: (C, H, W) climatology of the channels at the target time, or None for models without.

    Returns:
        x (1, T, C, H, W), static (1, 6+S, H, W), climate (1, C, H, W) if given, input_time (1,) and lead_time (1,) in
        hours, all float32. Batches are joined by concatenation, key by key.

    Raises:
        InputError: fields, coordinates or times that do not fit together; values that are missing; a negative lead.
    """
    _check_axes(lat, lon)
    hours = [(_utc(b) - _utc(a)).total_seconds() / 3600 for a, b in pairwise(times)]
    if lead < 0 or not times or any(step <= 0 for step in hours):
        raise InputError(f"times {[str(t) for t in times]}, lead {lead} h: wanted times that grow and a lead from 0 up")
    x = stack_channels(channels, surface, vertical, levels=levels)
    wanted = (len(times), len(channels), len(lat), len(lon))
    if x.shape != wanted:
        shape = wanted[:1] + wanted[2:]
        raise InputError(f"{channels[0]}: wanted (times, rows, columns) {shape}, came {x[..., 0, :, :].shape}")
    rows = kept_rows(lat)
    arrays = {"x": x, "static": static_channels(times[-1], lat, lon, static, names=static_names)}
    if climate is not None:
        if np.shape(climate) != wanted[1:]:
            raise InputError(f"climate: wanted (channels, rows, columns) {wanted[1:]}, came {np.shape(climate)}")
        arrays["climate"] = np.stack([_filled(name, field) for name, field in zip(channels, climate, strict=True)])
    batch = {key: torch.from_numpy(np.ascontiguousarray(a[..., rows, :]))[None] for key, a in arrays.items()}
    batch["input_time"] = torch.tensor([hours[-1] if hours else 0.0])
    batch["lead_time"] = torch.tensor([float(lead)])
    return batch


def _check_axes(lat: NDArray[Any], lon: NDArray[Any]) -> None:
    steps = np.diff(np.asarray(lat, float))
    if np.ndim(lat) != 1 or not len(lat) or not (np.all(steps > 0) or np.all(steps < 0)) or np.abs(lat).max() > 90:
        raise InputError("lat: wanted one axis of degrees north from -90 to 90 that grows or falls all along")
    if np.ndim(lon) != 1 or not len(lon) or not np.all(np.diff(np.unwrap(np.asarray(lon, float), period=360)) > 0):
        raise InputError("lon: wanted one axis of degrees east that grows all along")


def advance(batch: Batch, forecast: Tensor, *, time: datetime | np.datetime64, climate: Tensor | None = None) -> Batch:
    """The batch of the next step of a rollout; `batch` itself is left as it is.

    Args:
        batch: what the forecast was made from, one time for all its samples.
        forecast: (B, C, H, W) that the model returned.
        time: the forecast's valid time, from which the next step starts, in UTC.
        climate: (B, C, H, W) climatology at the next target time, for models with climatology.

    Raises:
        InputError: the lead is not the distance between the inputs, so that the forecast cannot be the next input.
    """
    if not torch.equal(batch["lead_time"], batch["input_time"]):
        raise InputError(
            f"rollout: wanted a lead equal to the distance of the inputs, came {batch['lead_time'].tolist()} h and "
            f"{batch['input_time'].tolist()} h"
        )
    static = batch["static"].clone()
    static[:, 2:6] = static.new_tensor(time_terms(time)).reshape(1, 4, 1, 1)
    following = batch | {"x": torch.cat((batch["x"][:, 1:], forecast[:, None]), dim=1), "static": static}
    return following | ({} if climate is None else {"climate": climate})
