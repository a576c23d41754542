"""Weather files -> samples of fields and rain: what may go in, which hours belong together, which block they are in."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from models.errors import InputError
from models.rain_spec import RainSpec
from models.wxc_inputs import kept_rows, stack_channels, static_channels
from pipelines import intervals, regrid
from pipelines.rain_recipe import Product, RainData
from pipelines.regions import cell, check_rectilinear
from pipelines.weather import open_weather

Array = NDArray[np.float32]
Item = dict[str, Any]
HOUR = np.timedelta64(3600, "s")
SPLITS = ("train", "val", "test")
# Names of rain, and of parts and kinds of it, in the products that come with weather fields (lower case).
LEAKS = (
    *("prec*", "prevtot", "pgentot", "frcan", "frccn", "frcls"),  # MERRA-2
    *("tp", "cp", "lsp", "sf", "csf", "lsf", "mtpr", "mcpr", "mlspr", "mtsfr", "crr", "lsrr", "avg_tprate"),  # ERA5
    *("precip*", "*precipitation*", "rain*", "prate", "cprat", "apcp", "acpcp", "ncpcp", "pr", "ppt"),  # others
)


@dataclass(frozen=True)
class Weather:
    """Fields on one grid, rows from north to south.

    Attributes:
        times: (T,) datetime64[s], rising.
        lat: (H,) degrees north, falling.
        lon: (W,) degrees east, rising.
        fields: (T, C, H, W) in the units of the Spec.
        channels: their names.
        units: their units; empty where the files say none.
        name: the files, for messages.
    """

    times: NDArray[Any]
    lat: NDArray[Any]
    lon: NDArray[Any]
    fields: Array
    channels: tuple[str, ...]
    units: tuple[str, ...]
    name: str

    @property
    def area(self) -> NDArray[np.float64]:
        """Weight of each cell by its area, (H, W): the cosine of its latitude."""
        return np.broadcast_to(np.cos(np.radians(self.lat))[:, None], (len(self.lat), len(self.lon)))


@dataclass(frozen=True)
class Sample:
    """One input and what is to be told of it.

    Attributes:
        at: index of the last input time.
        lead: hours to look ahead.
        split: "train", "val", "test", or "" for the gap.
    """

    at: int
    lead: float
    split: str = ""


def find_files(root: Path, patterns: Sequence[str]) -> list[Path]:
    """The files of some patterns, sorted, each once.

    Raises:
        InputError: no such folder, or a pattern that nothing matches.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the data with --data.root DIR")
    found: list[Path] = []
    for pattern in patterns:
        matches = sorted(root.glob(pattern))
        if not matches:
            raise InputError(f"{root}: no file matches {pattern!r}; look at data.inputs and data.target_files")
        found += matches
    return list(dict.fromkeys(found))


def check_inputs(variables: Sequence[str], target: str) -> None:
    """Refuse fields that hold the answer.

    Raises:
        InputError: one is the target, or rain or a part of it by its name.
    """
    for name in variables:
        lower = name.lower()
        if lower == target.lower():
            raise InputError(f"variable {name}: is the target; leave it out of data.variables")
        if any(fnmatch.fnmatchcase(lower, pattern) for pattern in LEAKS):
            raise InputError(f"variable {name}: rain, or a part or kind of it, tells the answer; leave it out")


def read_weather(
    files: Sequence[Path], variables: Sequence[str], *, target: str = "", units: Sequence[str] = ()
) -> Weather:
    """Read fields by name.

    Args:
        files: weather files; they go together in time and side by side.
        variables: names, or VARIABLE_LEVEL; all of two dimensions when empty.
        target: name of the target, which may not be among them.
        units: the unit wanted of each; as in the files when empty, as for those whose unit is empty.

    Raises:
        InputError: a variable or level is not there, or leaks; no time axis; no grid of latitudes and longitudes;
            values that are missing.
    """
    check_inputs(variables, target)
    data = open_weather(files, list(dict.fromkeys(_base(name) for name in variables)) or None)
    name = ", ".join(path.name for path in files[:3]) + (" ..." if len(files) > 3 else "")
    if "time" not in data.dims:
        raise InputError(f"{name}: a time axis is wanted and there is none; pass dated files")
    check_rectilinear(data, name=name)
    if not variables:
        variables = [str(key) for key, var in data.data_vars.items() if set(var.dims) == {"time", "lat", "lon"}]
        check_inputs(variables, target)
    chosen = {base: _in_unit(data[base], unit, name) for base, unit in _wanted_units(variables, units).items()}
    levels = tuple(float(level) for level in data["level"].values) if "level" in data.dims else ()
    flat = {key: _spread(var, data) for key, var in chosen.items() if "level" not in var.dims}
    deep = {key: var.values for key, var in chosen.items() if "level" in var.dims}
    fields = stack_channels(variables, flat, deep, levels=levels)  # (T, C, H, W)
    rows = kept_rows(data["lat"].values)
    here = tuple(str(chosen[_base(key)].attrs.get("units", "")) for key in variables)
    times = data["time"].values.astype("datetime64[s]")
    lat, lon = data["lat"].values[rows], data["lon"].values
    return Weather(times, lat, lon, fields[..., rows, :], tuple(variables), here, name)


def _base(name: str) -> str:
    """The variable of a channel: that of U_51 is U."""
    match = re.fullmatch(r"(.+)_\d+(\.\d+)?", name)
    return match[1] if match else name


def _wanted_units(variables: Sequence[str], units: Sequence[str]) -> dict[str, str]:
    return {_base(name): unit for name, unit in zip(variables, units or [""] * len(variables), strict=True)}


def _in_unit(field: xr.DataArray, unit: str, name: str) -> xr.DataArray:
    """The field in a unit, where both are known."""
    have = str(field.attrs.get("units", ""))
    return field if not unit or not have or have == unit else intervals.in_unit(field, unit, name=name)


def _spread(field: xr.DataArray, data: xr.Dataset) -> NDArray[Any]:
    """The values at every time, also of a field that has none."""
    if "time" in field.dims:
        return np.asarray(field.values)
    return np.broadcast_to(field.values, (data.sizes["time"], *field.shape))


# --- rain ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rain:
    """Rain rates on the grid of some weather: values (N, H, W) in mm/h over (start, end] (N,) datetime64[s]."""

    values: Array
    start: NDArray[Any]
    end: NDArray[Any]

    def over(self, first: NDArray[Any], last: NDArray[Any]) -> Array:
        """Mean rates over spans (first, last], (M, H, W); NaN where a span is not covered.

        Args:
            first: (M,) datetime64[s].
            last: (M,) datetime64[s], later.
        """
        low = np.maximum(first[:, None], self.start)
        high = np.minimum(last[:, None], self.end)
        shared = ((high - low) / HOUR).clip(min=0)  # (M, N) hours
        span = (last - first) / HOUR
        out = np.tensordot(shared / span[:, None], np.nan_to_num(self.values), axes=1)
        known = np.tensordot(shared, np.isfinite(self.values).astype(np.float64), axes=1)
        out[known < span[:, None, None] - 1e-6] = np.nan
        return out.astype(np.float32)


def read_rain(files: Sequence[Path], product: Product, weather: Weather, *, variable: str | None = None) -> Rain:
    """Read a rain product onto the grid of some weather; a finer one is averaged by area.

    Raises:
        InputError: the variable is not there, its unit is no rate or amount of rain, or its grid is coarser.
    """
    wanted = variable or product.variable
    stamp: Literal["start", "middle", "end"] = product.stamp
    data = open_weather(files, [wanted])
    if "time" not in data.dims:
        raise InputError(f"{files[0].name}: {wanted} has no time axis; pass dated files")
    if "interval_start" not in data.coords:
        data = open_weather(files, [wanted], stamp=stamp, hours=product.hours)
    field = data[wanted]
    field = field if field.attrs.get("units") else field.assign_attrs(units=product.unit)
    if "level" in field.dims or "number" in field.dims:
        raise InputError(f"{files[0].name}: {wanted} has dimensions {field.dims}, wanted time, lat, lon")
    field = intervals.in_unit(field, "mm/h", name=files[0].name)
    values = _on_grid(field, weather, files[0].name)
    start, end = (field[key].values.astype("datetime64[s]") for key in ("interval_start", "interval_end"))
    return Rain(values, start, end)


def _on_grid(field: xr.DataArray, weather: Weather, name: str) -> Array:
    """The values of a field on the cells of some weather."""
    lat, lon = field["lat"].values, field["lon"].values
    rows = [int(np.abs(lat - value).argmin()) for value in weather.lat]
    columns = [int(np.abs(lon - value).argmin()) for value in weather.lon]
    near = np.allclose(lat[rows], weather.lat, atol=1e-3) and np.allclose(lon[columns], weather.lon, atol=1e-3)
    if near:
        return np.asarray(field.values[:, rows][:, :, columns], np.float32)
    return np.asarray(regrid.area_mean(field, weather.lat, weather.lon, name=name).values, np.float32)


# --- samples ------------------------------------------------------------------------------------------------------


class Samples:
    """Weather and rain by sample.

    Attributes:
        weather: the fields.
        spec: which of them a model eats.
        rain: the rain, where it is known.
        samples: what there is, with a split each.
        persistence: hours back that persistence looks at least.
    """

    def __init__(self, spec: RainSpec, weather: Weather, rain: Rain | None, *, persistence: float = 3.0) -> None:
        """Find every sample whose input times, and with rain whose target, are there.

        Raises:
            InputError: there is none.
        """
        self.spec, self.weather, self.rain, self.persistence = spec, weather, rain, persistence
        self.samples = [Sample(at, lead) for lead in spec.leads for at in range(len(weather.times)) if self._past(at)]
        if rain is not None:
            self.samples = [s for s in self.samples if np.isfinite(self.truth(s)).any()]
        if not self.samples:
            span = f"{weather.times[0]} to {weather.times[-1]}"
            what = "with rain after it" if rain is not None else "with the times before it"
            raise InputError(
                f"{weather.name}: no time of {span} {what} ({spec.times} times of {spec.step:g} h wanted, leads "
                f"{list(spec.leads)} h); pass more files"
            )

    def _past(self, at: int) -> list[int] | None:
        """Indices of the input times that end at one, oldest first; None where one is not there."""
        step = np.timedelta64(round(self.spec.step * 3600), "s")
        wanted = [self.weather.times[at] - back * step for back in range(self.spec.times - 1, -1, -1)]
        places = np.searchsorted(self.weather.times, wanted)
        return [int(i) for i in places] if (self.weather.times[places] == np.array(wanted)).all() else None

    def time(self, sample: Sample) -> np.datetime64:
        """The last input time."""
        time: np.datetime64 = self.weather.times[sample.at]
        return time

    def valid(self, sample: Sample) -> np.datetime64:
        """The input time plus the lead."""
        return self.time(sample) + np.timedelta64(round(sample.lead * 3600), "s")

    def item(self, sample: Sample) -> Item:
        """X (T, C, H, W), static (6, H, W), input_time, lead_time, all float32."""
        spec, weather = self.spec, self.weather
        return {
            "x": weather.fields[self._past(sample.at)],
            "static": static_channels(self.time(sample), weather.lat, weather.lon, {}, names=()),
            "input_time": np.float32(spec.step),
            "lead_time": np.float32(sample.lead),
        }

    def truth(self, sample: Sample, *, back: float = 0.0) -> Array:
        """Rain of the window around the valid time, some hours back: (H, W) in mm/h, NaN where not known."""
        assert self.rain is not None
        edges = [self.valid(sample) + np.timedelta64(round((edge - back) * 3600), "s") for edge in self.spec.window]
        rain: Array = self.rain.over(np.array(edges[:1]), np.array(edges[1:]))[0]
        return rain

    def persisted(self, sample: Sample) -> Array:
        """The rain that was known at the input time, at least `persistence` hours before the valid time."""
        return self.truth(sample, back=max(self.persistence, sample.lead + self.spec.window[1]))

    def of(self, *splits: str) -> list[Sample]:
        """The samples of some splits."""
        return [s for s in self.samples if s.split in splits]

    def divide(self, shares: Mapping[str, float], gap: float) -> None:
        """Put every sample into a block of time; those closer than the gap to the next block belong to none.

        A sample reaches from its first input time to the end of its window.

        Raises:
            InputError: shares that are not those of train, val and test, or a block without a sample.
        """
        if set(shares) != set(SPLITS) or min(shares.values()) <= 0:
            raise InputError(f"data.split {dict(shares)}: wanted a share above 0 of each of {', '.join(SPLITS)}")
        times = np.unique([self.time(s) for s in self.samples])
        ends = np.cumsum(list(shares.values())) / sum(shares.values())
        edges = [0, *np.round(ends * len(times)).astype(int)]
        blocks = {name: times[a:b] for name, a, b in zip(shares, edges[:-1], edges[1:], strict=True)}
        width = np.timedelta64(round(gap * 3600), "s")
        divided: list[Sample] = []
        for sample in self.samples:
            name = next(n for n, block in blocks.items() if self.time(sample) in block)
            last = blocks[name][-1] == times[-1]
            clear = last or self._end(sample) + width <= blocks[name][-1] + (times[1:] - times[:-1]).min()
            divided.append(Sample(sample.at, sample.lead, name if clear else ""))
        self.samples = divided
        empty = [name for name in SPLITS if not self.of(name)]
        if empty:
            raise InputError(
                f"{self.weather.name}: {len(times)} times are too few for blocks of train, val and test with "
                f"{gap:g} h between them ({', '.join(empty)} is empty); pass more files, or change data.split, data.gap"
            )

    def _end(self, sample: Sample) -> np.datetime64:
        """When the samples that follow may begin: the end of the window, and the span of their inputs."""
        reach = self.spec.window[1] + (self.spec.times - 1) * self.spec.step
        return self.valid(sample) + np.timedelta64(round(reach * 3600), "s")


def batch_of(items: Sequence[Item]) -> dict[str, torch.Tensor]:
    """Items as one batch."""
    return {key: torch.from_numpy(np.stack([item[key] for item in items])) for key in items[0]}


def measured(samples: Samples, *splits: str) -> RainSpec:
    """The Spec with means and deviations of the fields and rain of some splits.

    A field that is the same everywhere, such as the cloud of a level that never has any, gets its size for a deviation.

    Raises:
        InputError: no rain at all.
    """
    train = samples.of(*splits)
    fields = samples.weather.fields[sorted({s.at for s in train})].astype(np.float64)  # (N, C, H, W)
    mean, std = fields.mean(axis=(0, 2, 3)), fields.std(axis=(0, 2, 3))
    std = np.where(std <= 1e-7 * np.abs(mean), np.maximum(np.abs(mean), 1.0), std)
    rain = np.stack([samples.truth(s) for s in train])
    scale = float(np.nanstd(rain))
    if not scale > 0:
        raise InputError(f"{samples.weather.name}: no rain in the training block; pass more files")
    return dataclasses.replace(samples.spec, mean=tuple(mean.tolist()), std=tuple(std.tolist()), scale=scale)


def load(data: RainData) -> tuple[Weather, Rain]:
    """Weather and rain as a recipe's data names them.

    Raises:
        InputError: see `read_weather` and `read_rain`.
    """
    product = data.product()
    files = find_files(data.root, data.inputs)
    weather = read_weather(files, data.variables, target=data.target_variable or product.variable)
    rain_files = find_files(data.root, data.target_files) if data.target_files else files
    return weather, read_rain(rain_files, product, weather, variable=data.target_variable)


def describe(weather: Weather) -> str:
    """Times and grid in words."""
    first, last = (np.datetime_as_string(weather.times[i], "m") for i in (0, -1))
    grid = xr.Dataset(coords={"lat": weather.lat, "lon": weather.lon})
    return (
        f"{len(weather.times)} times {first} to {last}, {len(weather.lat)} x {len(weather.lon)} cells of {cell(grid)}"
    )
