"""Downscaling: fine weather fields and elevation -> samples of coarse fields and the fine one that belongs to them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from models.baselines.fields import Forecast, fit_finer
from models.errors import InputError
from models.networks.downscale import DownscaleNetwork, area_means, bicubic, repeated, unresolved
from models.spec import WEATHER, Cells, Spec, Values
from models.types import Array, Source
from pipelines.recipes.days import Days
from pipelines.recipes.weather import WeatherData, WeatherRecipe
from pipelines.samples.fields import FieldSamples, Moment
from pipelines.samples.sets import Item
from pipelines.samples.weather import Weather, find_files, read_weather, within
from pipelines.tasks.task import Teller
from pipelines.tasks.weather import weather_task
from pipelines.weather import regions, regrid
from pipelines.weather.elevation import find_elevation, read_elevation


@dataclass(frozen=True)
class DownscaleData(WeatherData):
    """Fine weather fields, elevation, and their split. Without variables the target alone is taken.

    Attributes:
        target: the field to downscale.
        factor: fine cells along a side of a coarse one, 2 to 16.
        coarse: patterns of files of the coarse fields; where empty they are the area means of the fine ones.
        elevation: a raster in metres, or a weather file with elevation or surface geopotential (PHIS); a path, or a
            pattern under root, or none.
    """

    target: str = "T2M"
    factor: int = 3
    coarse: list[str] = field(default_factory=list)
    elevation: str = "none"


@dataclass(frozen=True)
class DownscaleRecipe(WeatherRecipe):
    """A coarse field on finer cells.

    Attributes:
        conserve: keep the area mean of each coarse cell, but where values below zero are cut off; coarse fields of
            files of their own are not kept.
    """

    data: DownscaleData
    conserve: bool = True


SAME = 0.02  # share by which cells may differ in size from those of the training


class FineSamples(FieldSamples):
    """Coarse fields and the fine one by sample.

    Attributes:
        fine: the fine field at the times of the coarse ones, (T, H, W); None where it is not known.
        height: elevation of the fine cells in m, (H, W), for models with it.
    """

    shown = ("bicubic",)

    def __init__(self, spec: Spec, weather: Weather, fine: Array | None, height: Path | None) -> None:
        """Find the samples, see `FieldSamples`, and read the elevation."""
        self.fine = fine
        self._grid = _divided(weather.lat, spec.field.factor), _divided(weather.lon, spec.field.factor)
        super().__init__(spec, weather, known=fine is not None)
        self.height = read_elevation(height, *self._grid) if height else None
        self.found = {"elevation": str(height or "none")}

    @property
    def grid(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Latitudes and longitudes of the fine cells."""
        return self._grid

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        """What the maps of an item hold."""
        held = {"coarse": (self.spec.field.name,), "area": ("area",)}
        return {**super().names, **held, **({} if self.height is None else {"fine": ("elevation",)})}

    def item(self, sample: Moment) -> Item:
        """As `FieldSamples.item`, and coarse (1, h, w), area (H, 1) and fine (1, H, W), float32."""
        item = super().item(sample) | {"coarse": self.coarse([sample])[0], "area": self.area[:, :1].astype(np.float32)}
        return item if self.height is None else item | {"fine": self.height[None]}

    def coarse(self, chosen: Sequence[Moment]) -> Array:
        """The target as the coarse fields have it, (N, 1, h, w)."""
        at = self.spec.weather.channels.index(self.spec.field.name)
        return self.weather.fields[[s.at for s in chosen], at, None]

    def smooth(self, chosen: Sequence[Moment]) -> Array:
        """What bicubic makes of it, (N, H, W)."""
        return np.asarray(bicubic(torch.from_numpy(self.coarse(chosen)), self.spec.field.factor)[:, 0].numpy())

    def kept(self, chosen: Sequence[Moment]) -> Array:
        """What bicubic makes of it, corrected to the coarse means as the model's answers are, (N, H, W)."""
        fine, coarse = (torch.from_numpy(a) for a in (self.smooth(chosen)[:, None], self.coarse(chosen)))
        area, factor = torch.from_numpy(self.area[None, :, :1].astype(np.float32)), self.spec.field.factor
        return np.asarray((fine + repeated(coarse - area_means(fine, area, factor), factor))[:, 0].numpy())

    def truth(self, sample: Moment) -> Array:
        """The fine field (H, W) in its unit, NaN where not known."""
        assert self.fine is not None
        return np.asarray(self.fine[sample.at])

    def measured(self, *splits: str) -> Spec:
        """The Spec with the statistics of the fields, of what bicubic leaves out, and of the elevation.

        Raises:
            InputError: bicubic leaves nothing out.
        """
        chosen = self.of(*splits)
        truth = np.stack([self.truth(s) for s in chosen])
        scale = float(np.nanstd(truth - self.smooth(chosen)))
        if not scale > 0:
            told = f"{self.weather.name}: {self.spec.field.name}"
            raise InputError(f"{told} has no detail that bicubic leaves out to learn")
        elevation: tuple[float, ...] = ()
        if self.height is not None:
            spread = (float(h.std()) for h in self.heights)
            elevation = float(self.height.mean()), *(max(s, 1.0) for s in spread)
        known = {"scale": scale, "positive": bool(np.nanmin(truth) >= 0)}
        return super().measured(*splits).revised(answer=known, elevation=elevation)

    @property
    def heights(self) -> list[Array]:
        """The elevation, and what bicubic leaves out of it: (H, W) each; none for models without."""
        if self.height is None:
            return []
        height, area = (torch.from_numpy(a.astype(np.float32))[None] for a in (self.height, self.area[:, :1]))
        return [self.height, np.asarray(unresolved(height[None], area, self.spec.field.factor)[0, 0])]

    def last(self, chosen: Sequence[Moment]) -> Array:
        """All coarse fields at the last input time, (N, C, h, w)."""
        return self.weather.fields[[s.at for s in chosen]]

    def seen(self, sample: Moment) -> dict[str, Array]:
        """The coarse field on the fine cells."""
        coarse = torch.from_numpy(self.coarse([sample]))
        return {"coarse": np.asarray(repeated(coarse, self.spec.field.factor)[0, 0])}

    def told(self) -> str:
        """What is told, in words."""
        told, given, (down, across) = self.spec.field, self.spec.weather, self.spec.weather.size
        kept = ", its area mean over each of those kept" if told.conserve else ""
        kept += " but where values below 0 are cut off" if told.conserve and told.positive else ""
        kept += f"; elevation of {Path(self.found['elevation']).name}" if given.elevation else "; no elevation"
        fine = f"{down / told.factor:.4g} x {across / told.factor:.4g}"
        return f"{told.name} ({told.unit or 'no unit'}) on cells of {fine} deg from {down:.4g} x {across:.4g} deg{kept}"


def baselines(samples: FineSamples, chosen: Sequence[Moment], _: int) -> Mapping[str, Teller]:
    """Bicubic, plain and with the coarse means, and ridge on neighbourhoods and elevation trained on some samples."""
    truth, factor = np.stack([samples.truth(s) for s in chosen]), samples.spec.field.factor
    ridge = fit_finer(samples.last(chosen), samples.smooth(chosen), samples.heights, truth, factor=factor)

    def ridged(samples: FineSamples, chosen: Sequence[Moment]) -> Forecast:
        return _told(samples, ridge(samples.last(chosen), samples.smooth(chosen), samples.heights))

    def plain(samples: FineSamples, chosen: Sequence[Moment]) -> Forecast:
        return _told(samples, samples.smooth(chosen))

    def kept(samples: FineSamples, chosen: Sequence[Moment]) -> Forecast:
        return _told(samples, samples.kept(chosen))

    means = {"bicubic with the means": kept} if samples.spec.field.conserve else {}
    return {"bicubic": plain, **means, "ridge": ridged}


def _told(samples: FineSamples, values: Array) -> Forecast:
    """Values as a forecast, none below 0 where the target never is."""
    return Forecast.sure(values.clip(min=0) if samples.spec.field.positive else values)


def _divided(centres: NDArray[Any], factor: int) -> NDArray[np.float64]:
    """Centres of the cells that divide others by a factor along an axis."""
    step = (centres[-1] - centres[0]) / (len(centres) - 1)
    places = (np.arange(len(centres) * factor) + 0.5) / factor - 0.5
    return np.asarray(np.round(centres[0] + places * step, 9))


def prepare(recipe: DownscaleRecipe) -> FineSamples:
    """Read what a recipe names, with a Spec that fits but for its statistics.

    Raises:
        InputError: see `load`, `find_elevation` and `read_elevation`.
    """
    data = recipe.data
    channels = tuple(dict.fromkeys([*data.variables, data.target]))
    weather, fine, notes = load(data, channels)
    count = len(channels)
    known = channels, weather.units, (0.0,) * count, (1.0,) * count
    cells = Cells(*known, data.times, data.step, recipe.position, size=_cell(weather))
    unit, kept = weather.units[channels.index(data.target)], recipe.conserve and not data.coarse
    fine_field = Values(data.target, unit, "cell", factor=data.factor, conserve=kept)
    spec = Spec("downscale", {WEATHER: cells}, {data.target: fine_field})
    samples = FineSamples(spec, weather, fine, find_elevation(data.root, data.elevation))
    samples.notes = [*notes, *([] if samples.heights else ["No elevation was given (data.elevation)."])]
    return samples


def reopen(spec: Spec, data: DownscaleData) -> FineSamples:
    """The pairs of a folder for a trained model.

    Raises:
        InputError: as for `prepare`; or cells of another size than those of the training.
    """
    weather, fine, _ = load(data, spec.weather.channels, spec.weather.units)
    return FineSamples(spec, _checked(spec, weather), fine, _height(spec, data))


def inputs(spec: Spec, files: Sequence[Source], data: DownscaleData) -> FineSamples:
    """Coarse files alone, to be scored.

    Raises:
        InputError: see `read_weather` and `reopen`.
    """
    weather = _checked(spec, read_weather(files, spec.weather.channels, units=spec.weather.units))
    return FineSamples(spec, weather, None, _height(spec, data))


def _height(spec: Spec, data: DownscaleData) -> Path | None:
    """The file of elevation, for models with it."""
    return find_elevation(data.root, data.elevation) if spec.weather.elevation else None


def _checked(spec: Spec, weather: Weather) -> Weather:
    """Refuse coarse cells that are not evenly spaced, or of another size than those of the training."""
    came = _cell(weather)
    if any(abs(a - b) > SAME * b for a, b in zip(came, spec.weather.size, strict=True)):
        down, across = spec.weather.size
        raise InputError(
            f"{weather.name}: cells of {came[0]:.4g} x {came[1]:.4g} deg; this run was trained on coarse cells of "
            f"{down:.4g} x {across:.4g} deg: regrid the file to those first (pipelines.weather.regrid.area_mean)"
        )
    return weather


def _cell(weather: Weather) -> tuple[float, float]:
    """Height and width of a cell in degrees."""
    box = regions.geobox(xr.Dataset(coords={"lat": weather.lat, "lon": weather.lon}), name=weather.name)
    return abs(float(box.affine.e)), abs(float(box.affine.a))


def load(data: DownscaleData, channels: Sequence[str], units: Sequence[str] = ()) -> tuple[Weather, Array, list[str]]:
    """Coarse fields, the fine target (T, H, W) at their times, and what a person should know of them.

    Raises:
        InputError: a field is not there (names like it are told), a grid is not even, or too small for the factor.
    """
    if not 2 <= data.factor <= 16:
        raise InputError(f"data.factor {data.factor}: wanted 2 to 16")
    files = find_files(data.root, data.inputs)
    if data.coarse:
        coarse = read_weather(find_files(data.root, data.coarse), channels, units=units, **within(data))
        unit = coarse.units[list(channels).index(data.target)]
        first, last = (coarse.times[at].astype("datetime64[D]").astype(date) for at in (0, -1))
        near: dict[str, Any] = {"cut": regions.around, "days": Days(first, last)}
        if data.region:
            near["region"] = regions.to_edges(coarse.lat, coarse.lon)
        return _together(coarse, read_weather(files, [data.target], units=[unit], **near), data.factor)
    fine = read_weather(files, channels, units=units, **within(data))
    _cell(fine)
    rows, columns = (len(axis) // data.factor for axis in (fine.lat, fine.lon))
    if min(rows, columns) < 2:
        raise InputError(
            f"{fine.name}: {len(fine.lat)} x {len(fine.lon)} cells make {rows} x {columns} coarse ones at factor "
            f"{data.factor}, two or more each way are wanted; a smaller data.factor, or a larger region"
        )
    lat, lon = fine.lat[: rows * data.factor], fine.lon[: columns * data.factor]
    left = len(fine.lat) - len(lat), len(fine.lon) - len(lon)
    notes = [f"Factor {data.factor} leaves {left[0]} rows in the south and {left[1]} columns in the east out."]
    fields = fine.fields[..., : len(lat), : len(lon)]
    grids = lat.reshape(-1, data.factor).mean(axis=1), lon.reshape(-1, data.factor).mean(axis=1)
    means = regrid.area_mean(_array(fields, lat, lon), *grids, name=fine.name)
    coarse = dataclasses.replace(fine, lat=grids[0], lon=grids[1], fields=np.asarray(means.values))
    return coarse, np.ascontiguousarray(fields[:, list(channels).index(data.target)]), notes if any(left) else []


def _together(coarse: Weather, fine: Weather, factor: int) -> tuple[Weather, Array, list[str]]:
    """Coarse fields and the fine one at the times of both, on the cells that divide the coarse ones."""
    _cell(coarse)
    times, at, places = np.intersect1d(coarse.times, fine.times, return_indices=True)
    if not len(times):
        raise InputError(f"{coarse.name}: no time that {fine.name} has, too; pass files of the same times")
    field = _array(fine.fields[places, 0], fine.lat, fine.lon)
    lat, lon = _divided(coarse.lat, factor), _divided(coarse.lon, factor)
    values = regrid.on_grid(field, lat, lon, name=fine.name)
    return dataclasses.replace(coarse, times=times, fields=coarse.fields[at]), values, []


def _array(values: Array, lat: NDArray[Any], lon: NDArray[Any]) -> xr.DataArray:
    """Fields (..., H, W) as a canonical array."""
    leading = [f"d{i}" for i in range(values.ndim - 2)]
    return xr.DataArray(values, {"lat": lat, "lon": lon}, [*leading, "lat", "lon"], name="field")


TASK = weather_task(
    "downscale",
    "Train a coarse weather field onto finer cells and write a run folder.",
    recipe=DownscaleRecipe,
    losses=DownscaleNetwork.losses,
    unused=("model.rounds", "model.share"),  # trees tell of rain
    prepare=prepare,
    reopen=reopen,
    unlabelled=inputs,
    baselines=baselines,
)
