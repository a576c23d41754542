"""Rain from weather fields: which fields tell the answer, rain products by the hour, samples of both."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.backbones.wxc_files import WxCConfig
from models.baselines.fields import Forecast, Predict, fit_rain_baselines
from models.errors import InputError
from models.networks.rain import RainNetwork
from models.spec import LEVELS, WEATHER, Cells, Quantiles, Spec
from models.types import Array, Source
from pipelines.recipes.weather import WeatherData, WeatherRecipe
from pipelines.samples.climatology import Climatology
from pipelines.samples.fields import FieldSamples, Moment
from pipelines.samples.sets import evenly
from pipelines.samples.weather import Weather, find_files, mean_of_members, read_weather, within
from pipelines.tasks.task import Teller
from pipelines.tasks.weather import weather_task
from pipelines.weather import intervals, regrid
from pipelines.weather.dataset import called, open_weather
from pipelines.weather.products import PRODUCTS, RainProduct, Stamp


@dataclass(frozen=True)
class RainTarget:
    """Rain of any product in words of its own, which hold whatever its files say of their times.

    Attributes:
        variable: its name.
        stamp: where in its interval a time of it lies: start, middle or end.
        hours: length of that interval.
        unit: its unit, where the files say none.
    """

    variable: str
    stamp: Stamp
    hours: float
    unit: str = ""

    def __post_init__(self) -> None:
        """Refuse an interval without length."""
        if not self.hours > 0:
            raise InputError(f"data.target.hours {self.hours:g}: wanted the hours of an interval, above 0")


@dataclass(frozen=True)
class RainData(WeatherData):
    """Weather fields, the rain that belongs to them, and their split; without variables all of two dimensions.

    Attributes:
        target: the rain: merra2, merra2_corrected, merra2_wxc, imerg (of half an hour), imerg_daily, imerg_monthly,
            era5 (of an hour), era5_land (running since 00 UTC), era5_ensemble (of 3 h), era5_daily, era5_monthly or
            chirps (daily); any other as {variable: TP, unit: m, stamp: start, hours: 24}.
        target_files: patterns of its files; those of the fields when empty.
        unit: of the rates that are told: mm/h or mm/day.
        leads: hours to look ahead from the last one, 0 to 24.
        window: hours (from, to] around input time plus lead whose mean rate is predicted.
        persistence: hours back from which a baseline takes its rain, at least, beside that of one hour.
        static: names of fields that do not change, which the files hold too: FRACI, FRLAND, FROCEAN, PHIS.
        climatology: of the fields at the valid time: none; weights, where the weights come from (none with random
            ones); hub; or a folder that holds climatology/climate_surface_doy090_hour12.nc and so on.
    """

    target: str | RainTarget = "merra2"
    target_files: list[str] = field(default_factory=list)
    unit: Literal["mm/h", "mm/day"] = "mm/h"
    leads: list[float] = field(default_factory=lambda: [0.0])
    window: tuple[float, float] = (0.0, 1.0)
    persistence: float = 3.0
    static: list[str] = field(default_factory=list)
    climatology: str = "none"

    def product(self) -> RainProduct:
        """The product that is named or told.

        Raises:
            InputError: no such product.
        """
        told = self.target
        if isinstance(told, RainTarget):
            return RainProduct(told.variable, told.unit, told.stamp, told.hours, given=True)
        if told not in PRODUCTS:
            raise InputError(
                f"data.target {told!r}: wanted one of {', '.join(PRODUCTS)}, or "
                "{variable: NAME, unit: UNIT, stamp: start, middle or end, hours: H}"
            )
        return PRODUCTS[told]


@dataclass(frozen=True)
class RainRecipe(WeatherRecipe):
    """Rain from weather fields.

    Attributes:
        levels: levels of the quantiles.
        thresholds: three rates in `data.unit`, for probabilities and scores.
    """

    data: RainData
    levels: tuple[float, ...] = LEVELS
    thresholds: tuple[float, ...] = (0.1, 1.0, 5.0)


HOUR = np.timedelta64(3600, "s")
LEARNED = 100_000_000  # numbers of fields that baselines learn from: 400 MB
AT_ONCE = 10_000_000  # the same, that they are asked about at once
LATEST = 1.0  # hours back of the rain that is known last
# Names of rain, and of parts and kinds of it, in the products that come with weather fields (lower case).
LEAKS = (
    *("prec*", "prevtot", "pgentot", "frcan", "frccn", "frcls"),  # MERRA-2
    *("tp", "cp", "lsp", "sf", "csf", "lsf", "mtpr", "mcpr", "mlspr", "mtsfr", "crr", "lsrr", "avg_tprate"),  # ERA5
    *("precip*", "*precipitation*", "rain*", "prate", "cprat", "apcp", "acpcp", "ncpcp", "pr", "ppt"),  # others
    *("prsn", "snd", "snw", "swe", "evspsblpot"),  # of snow, and evaporation that follows from rain; CMIP
)


def check_inputs(variables: Sequence[str], target: str = "") -> None:
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


@dataclass(frozen=True)
class Rain:
    """Rain rates on the grid of some weather: values (N, H, W) in `unit` over (start, end] (N,) datetime64[s]."""

    values: Array
    start: NDArray[Any]
    end: NDArray[Any]
    unit: str = "mm/h"

    def over(self, first: NDArray[Any], last: NDArray[Any]) -> Array:
        """Mean rates over spans (first, last], (M, H, W); NaN where a span is not covered.

        Args:
            first: (M,) datetime64[s].
            last: (M,) datetime64[s], later.
        """
        near = (self.end > first.min()) & (self.start < last.max())
        low = np.maximum(first[:, None], self.start[near])
        high = np.minimum(last[:, None], self.end[near])
        values = self.values[near]
        shared = ((high - low) / HOUR).clip(min=0)  # (M, N) hours
        span = (last - first) / HOUR
        out = np.tensordot(shared / span[:, None], np.nan_to_num(values), axes=1)
        known = np.tensordot(shared, np.isfinite(values).astype(np.float64), axes=1)
        out[known < span[:, None, None] - 1e-6] = np.nan
        return out.astype(np.float32)


def read_rain(
    files: Sequence[Source], product: RainProduct, weather: Weather, *, unit: str = "mm/h", reach: float = math.inf
) -> Rain:
    """Read a rain product onto the grid of some weather; a finer one is averaged by area, and an ensemble to its mean.

    Args:
        files: its files.
        product: what it is.
        weather: fields, for their grid and times.
        unit: that of the rates.
        reach: hours before the first and after the last of these times from which rain is read.

    Raises:
        InputError: the variable is not there, its unit is no rate or amount of rain, or its grid is coarser.
    """
    wanted, name = product.variable, called(files[0])
    data = open_weather(files, [wanted], product=product)
    if "time" not in data.dims:
        raise InputError(f"{name}: {wanted} has no time axis; pass dated files")
    field = data[wanted]
    field = field if field.attrs.get("units") else field.assign_attrs(units=product.unit)
    if "level" in field.dims:
        raise InputError(f"{name}: {wanted} has dimensions {field.dims}, wanted time, lat, lon")
    field = intervals.in_unit(field, unit, name=name)
    start, end = (field[key].values.astype("datetime64[s]") for key in ("interval_start", "interval_end"))
    if math.isfinite(reach):
        more = np.timedelta64(math.ceil(reach * 3600), "s")
        near = np.flatnonzero((end >= weather.times[0] - more) & (start <= weather.times[-1] + more))
        if not len(near):
            raise InputError(f"{name}: no {wanted} at the times of {weather.name}; pass files of the same days")
        field, start, end = field.isel(time=near), start[near], end[near]
    values = regrid.on_grid(mean_of_members(field), weather.lat, weather.lon, name=name)
    return Rain(values, start, end, unit)


class RainSamples(FieldSamples):
    """Weather and rain by sample.

    Attributes:
        rain: the rain, where it is known.
        persistence: hours back that persistence looks at least.
    """

    def __init__(
        self,
        spec: Spec,
        weather: Weather,
        rain: Rain | None,
        *,
        persistence: float = 3.0,
        climatology: str = "none",
    ) -> None:
        """Find the samples, see `FieldSamples`; the climatology is that of "hub", a folder, or "none"."""
        self.rain, self.persistence = rain, persistence
        normal = None if climatology == "none" else Climatology.at(climatology, weather.lat, weather.lon, WxCConfig())
        super().__init__(spec, weather, known=rain is not None, climatology=normal)

    def truth(self, sample: Moment, *, back: float = 0.0) -> Array:
        """Rain of the window around the valid time, some hours back: (H, W), NaN where not known."""
        assert self.rain is not None
        hours = [edge - back for edge in self.spec.field.window]
        edges = [self.valid(sample) + np.timedelta64(round(hour * 3600), "s") for hour in hours]
        return np.asarray(self.rain.over(np.array(edges[:1]), np.array(edges[1:]))[0])

    def back(self, sample: Moment, hours: float) -> float:
        """How many hours back rain is taken that persists: as many as asked for, or until it was known."""
        return max(hours, sample.lead + self.spec.field.window[1])

    def persisted(self, sample: Moment, hours: float | None = None) -> Array:
        """The rain that was known at the input time, at least so many hours before the valid time."""
        return self.truth(sample, back=self.back(sample, self.persistence if hours is None else hours))

    def measured(self, *splits: str) -> Spec:
        """The Spec with means and deviations of the fields and rain of some splits.

        Raises:
            InputError: no rain at all.
        """
        scale = float(np.nanstd(np.stack([self.truth(s) for s in self.of(*splits)])))
        if not scale > 0:
            raise InputError(f"{self.weather.name}: no rain in the training block; pass more files")
        return super().measured(*splits).revised(answer={"scale": scale})

    def told(self) -> str:
        """What is told, in words."""
        first, last = self.spec.field.window
        return f"{self.spec.field.name}, {self.spec.field.unit} over {first:g} to {last:g} h around each valid time"


def baselines(samples: RainSamples, chosen: Sequence[Moment], seed: int) -> Mapping[str, Teller]:
    """Zero, climatology, persistence of one hour and of more, regressions, small networks, trained on some samples."""
    field, each = samples.spec.field, samples.item(chosen[0])[WEATHER].size
    chosen = [chosen[i] for i in evenly(len(chosen), max(LEARNED // each, 1))]
    pairs = ((samples.item(s)[WEATHER], samples.truth(s)) for s in chosen)
    fitted = dict(fit_rain_baselines(pairs, levels=field.levels, thresholds=field.thresholds, seed=seed))
    persistence = fitted.pop("persistence")
    spans = {tuple(samples.back(s, hours) for s in chosen): hours for hours in (LATEST, samples.persistence)}
    known = [h for h in spans.values() if any(np.isfinite(samples.persisted(s, h)).any() for s in chosen)]

    def asked(predict: Predict, hours: float, samples: RainSamples, chosen: Sequence[Moment]) -> Forecast:
        most = max(AT_ONCE // each, 1)
        parts = [chosen[i : i + most] for i in range(0, len(chosen), most)]
        fields = ((part, np.stack([samples.item(s)[WEATHER] for s in part])) for part in parts)
        told = [predict(x, np.stack([samples.persisted(s, hours) for s in part])) for part, x in fields]
        return Forecast.joined(told)

    lasting = {f"persistence {hours:g} h": partial(asked, persistence, hours) for hours in sorted(known)}
    others = {name: partial(asked, predict, LATEST) for name, predict in fitted.items()}
    plain = {name: others.pop(name) for name in ("zero", "climatology")}
    return plain | lasting | others


def load(data: RainData, channels: Sequence[str] = (), units: Sequence[str] = ()) -> tuple[Weather, Rain]:
    """Weather and rain as a recipe's data names them; with channels and units, those of a Spec instead.

    Raises:
        InputError: see `read_weather` and `read_rain`.
    """
    product = data.product()
    files = find_files(data.root, data.inputs)
    check = partial(check_inputs, target=product.variable)
    how: dict[str, Any] = {"units": units, "static": data.static, "check": check, **within(data)}
    weather = read_weather(files, channels or data.variables, **how)
    rain_files = find_files(data.root, data.target_files) if data.target_files else files
    return weather, read_rain(rain_files, product, weather, unit=data.unit, reach=_reach(data))


def _reach(data: RainData) -> float:
    """Hours before and after the fields' times of which the rain counts; all where all times of the fields are read."""
    if not data.dates:
        return math.inf
    ahead = max(data.leads) + max(map(abs, data.window))
    return ahead + max(abs(data.window[0]), data.persistence, ahead)


def prepare(recipe: RainRecipe) -> RainSamples:
    """Read what a recipe names, with a Spec that fits but for its statistics.

    Raises:
        InputError: see `load`.
    """
    data = recipe.data
    weather, rain = load(data)
    count = len(weather.channels)
    known = weather.channels, weather.units, (0.0,) * count, (1.0,) * count
    where = _climatology(data.climatology, recipe.weights)
    fixed, count = tuple(data.static), len(data.static)
    cells = Cells(
        *known,
        data.times,
        data.step,
        recipe.position,
        size=weather.size,
        static=fixed,
        static_mean=(0.0,) * count,
        static_std=(1.0,) * count,
        climatology=where != "none",
    )
    name = data.product().variable
    told = f"{name} ({data.target})" if isinstance(data.target, str) else name, data.unit
    rate = Quantiles(*told, recipe.levels, recipe.thresholds, leads=tuple(data.leads), window=data.window)
    spec = Spec("rain", {WEATHER: cells}, {"rain": rate})
    samples = RainSamples(spec, weather, rain, persistence=data.persistence, climatology=where)
    samples.found = {"climatology": where}
    return samples


def _climatology(asked: str, weights: str) -> str:
    """Where the climatology is: "hub", a folder, or "none"."""
    if asked != "weights":
        return asked
    return {"hub": "hub", "random": "none"}.get(weights, str(Path(weights).parent))


def reopen(spec: Spec, data: RainData) -> RainSamples:
    """Weather and rain of a folder for a trained model.

    Raises:
        InputError: see `load`.
    """
    found = load(data, spec.weather.channels, spec.weather.units)
    return RainSamples(spec, *found, persistence=data.persistence, climatology=_taken(spec, data))


def inputs(spec: Spec, files: Sequence[Source], data: RainData) -> RainSamples:
    """Weather files alone, to be scored.

    Raises:
        InputError: see `read_weather`.
    """
    given = spec.weather
    weather = read_weather(files, given.channels, units=given.units, static=given.static, check=check_inputs)
    return RainSamples(spec, weather, None, climatology=_taken(spec, data))


def _taken(spec: Spec, data: RainData) -> str:
    """Where the climatology is for a trained model; "none" for one without."""
    return data.climatology if spec.weather.climatology else "none"


TASK = weather_task(
    "rain",
    "Train rain from weather fields and write a run folder.",
    recipe=RainRecipe,
    losses=RainNetwork.losses,
    prepare=prepare,
    reopen=reopen,
    unlabelled=inputs,
    baselines=baselines,
)
