"""Chips with the weather before their day, and what is known of their place and day."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.errors import InputError
from models.spec import CONTEXT, IMAGERY, STATIC, WEATHER, Series, valid_of
from models.types import Array, Mask
from pipelines.recipes.fused import FusedData
from pipelines.samples.chips import Chip, Chips
from pipelines.samples.static import Static, open_static
from pipelines.weather.series import WeatherSeries, open_series

KNOWN = ("day of year, sine", "day of year, cosine", "place, x", "place, y", "place, z")
YEAR = 365.25  # days


def context(day: datetime.date, latitude: float, longitude: float) -> Array:
    """The day of year as a point of a circle, the place as one of a sphere, as `KNOWN`: (1, 5)."""
    angle = 2 * np.pi * (day.timetuple().tm_yday - 1) / YEAR
    north, east = np.radians((latitude, longitude))
    place = np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)
    return np.array([[np.sin(angle), np.cos(angle), *place]], np.float32)


def inputs_at(
    series: WeatherSeries, days: Sequence[datetime.date], places: Array, static: tuple[Array, Mask] | None = None
) -> dict[str, Array]:
    """The weather before the days, the context of samples and what does not change, as a batch of the model's inputs.

    Args:
        series: the weather.
        days: of the images (B,); nothing of the day itself is seen.
        places: latitude, longitude, west, south, east, north of each in degrees (B, 6).
        static: what `Static.at` gives of them.
    """
    times = np.array(days, "datetime64[D]")
    values, valid = series.at(places[:, 0], places[:, 1], times, bounds=places[:, 2:])
    known = np.stack([context(day, *place) for day, place in zip(days, places[:, :2], strict=True)])
    some = valid.any(axis=(1, 2), keepdims=True)  # else the answer is the imagery's
    given = {WEATHER: (values, valid), CONTEXT: (known, np.broadcast_to(some, known.shape))}
    if static:
        given[STATIC] = static[0], static[1] & some
    batch = {valid_of(IMAGERY): np.ones((len(days), 1), np.float32)}
    for name, (of, there) in given.items():
        batch |= {name: of, valid_of(name): there.astype(np.float32)}
    return batch


def withheld(series: Mapping[str, Series], count: int) -> dict[str, Array]:
    """A batch of the model's inputs beside imagery, of which none is there."""
    shapes = {name: (count, given.times, len(given.channels)) for name, given in series.items()}
    empty = {key: np.zeros(shape, np.float32) for name, shape in shapes.items() for key in (name, valid_of(name))}
    return {**empty, valid_of(IMAGERY): np.ones((count, 1), np.float32)}


def series_of(weather: WeatherSeries, step: float, static: Static | None = None) -> dict[str, Series]:
    """The inputs of a Spec beside the imagery, not yet fitted."""

    def unfitted(names: tuple[str, ...], units: tuple[str, ...], times: int = 1, step: float = 0.0) -> Series:
        return Series(names, units, (0.0,) * len(names), (1.0,) * len(names), times, step)

    weather_series = unfitted(weather.channels, weather.units, weather.steps, step)
    known = {WEATHER: weather_series, CONTEXT: unfitted(KNOWN, ("1",) * len(KNOWN))}
    return known | ({STATIC: static.series} if static else {})


class FusedChips(Chips):
    """Chips with series beside them, see `sets.Samples`."""

    @classmethod
    def beside_weather(cls, chips: Chips, data: FusedData) -> FusedChips:
        """Chips as they are, with the weather and the rasters that are opened here.

        Raises:
            InputError: the weather cannot be read or reaches none of the chips; a chip has no date or no place; a
                raster is none, or shows the ground of none of the chips.
        """
        weather = open_series(data.weather, root=data.root)
        files = {name: data.root / file for name, file in data.static.items()}
        static = open_static(files) if files else None
        inputs = {**chips.spec.inputs, **series_of(weather, data.weather.step, static)}
        spec = dataclasses.replace(chips.spec, inputs=inputs)
        made = cls(spec, data, chips.samples, chips.training, notes=chips.notes, normed=chips.normed)
        made.reader = chips.reader
        made.beside = made._joined(weather, static)
        made.notes += weather.notes
        return made

    data: FusedData
    beside: dict[Any, dict[str, Array]]

    def _joined(self, weather: WeatherSeries, static: Static | None) -> dict[Any, dict[str, Array]]:
        """What stands beside each chip, by its key: joined once, since many chips share their weather."""
        days, places = [], []
        for chip in self.samples:
            scene = self.reader.scene(chip)
            if scene.dates[-1] is None:
                raise InputError(f"{chip.images[0]}: wanted a date, to know what weather came before; give data.dates")
            days.append(scene.dates[-1])
            places.append(np.concatenate((scene.location(chip.window), scene.area(chip.window))))
        ground = static.at((self.reader.scene(chip).geobox, chip.window) for chip in self.samples) if static else None
        if static and ground and (unseen := static.unseen(ground[1])):
            raise InputError(f"data.static: {unseen[0]}: shows nothing of the chips' ground; give a raster that does")
        batch = inputs_at(weather, days, np.stack(places), ground)
        if not batch[valid_of(WEATHER)].any():
            raise InputError(
                f"data.weather: nothing of it lies at the chips' places in the {self.data.weather.days_before:g} days "
                "before; look at both with `earthtune inspect`"
            )
        return {chip.key: {name: a[i] for name, a in batch.items()} for i, chip in enumerate(self.samples)}

    def item(self, sample: Chip) -> dict[str, Any]:
        """As of `Chips`, and `weather` (T, C), `context` (1, C) and `static` (1, C) with what of them is there."""
        return super().item(sample) | self.beside[sample.key]

    def fitted(self, splits: Sequence[str]) -> dict[str, Series]:
        """The series with mean and deviation over what some splits hold."""
        items = [self.beside[chip.key] for chip in self.of(*splits)]
        return {
            name: fitted_series(series, *(np.stack([item[key] for item in items]) for key in (name, valid_of(name))))
            for name, series in self.spec.series.items()
        }


def fitted_series(series: Series, values: Array, there: Array) -> Series:
    """A series with mean and deviation over values (N, T, C) and 1 where there are any."""
    given, valid = values.astype(np.float64), there > 0
    count = np.maximum(valid.sum((0, 1)), 1)
    mean = (given * valid).sum((0, 1)) / count
    std = np.sqrt((np.square(given - mean) * valid).sum((0, 1)) / count)
    std = np.where(std > 1e-9 * np.abs(mean) + 1e-12, std, 1.0)
    return dataclasses.replace(series, mean=tuple(map(float, mean)), std=tuple(map(float, std)))
