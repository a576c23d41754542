"""What is known of every year before an outlook of a season, and the season where it is past."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from models.baselines.seasons import LEAST, Years
from models.errors import InputError
from models.types import Array, Mask, Source
from pipelines.forecasts.months import Floats, Months, Season, month_name
from pipelines.weather import regions
from pipelines.weather.dataset import called, open_weather
from pipelines.weather.joining import instead
from pipelines.weather.regions import cell_areas


@dataclass(frozen=True)
class Case:
    """An outlook to make.

    Attributes:
        target: name of the variable.
        unit: its unit.
        season: which months.
        year: the season to predict.
        grid: dataset of the coordinates lat and lon of the target.
        valid: (H, W) cells with an outlook.
        data: all years, that of the outlook among them; its target is NaN where it is not there yet.
    """

    target: str
    unit: str
    season: Season
    year: int
    grid: xr.Dataset
    valid: Mask
    data: Years

    @property
    def hindcast(self) -> bool:
        """Whether the season to predict is there already."""
        return bool(np.isfinite(self.data.target[self.data.years == self.year]).any())

    def split(self) -> tuple[Years, int]:
        """The years to learn from, which are all others, and the place of the year to predict."""
        at = self.data.years == self.year
        return self.data.only(~at), int(np.flatnonzero(at)[0])

    def spread(self, values: Floats) -> Array:
        """Values of cells (..., P) as maps (..., H, W), NaN where there is no outlook."""
        maps = np.full((*values.shape[:-1], *self.valid.shape), np.nan, np.float32)
        maps[..., self.valid] = values
        return maps


def gather(
    files: list[Source],
    target: str,
    when: Season,
    year: int | None,
    predictors: list[Source] | None,
    region: list[float] | None,
) -> Case:
    """Read what is known of every year."""
    data = open_weather(files)
    name, source = called(files[0]), called((predictors or files)[0])
    mine = _target(data, target, region, name)
    others = open_weather(predictors) if predictors else data
    wanted = Months.of(mine[target], name=name)
    fields = [Months.of(field, name=str(key)) for key, field in others.data_vars.items() if "time" in field.dims]
    if not fields:
        raise InputError(f"{source}: no field with times to predict from; pass dated files")
    years, seen, chosen = _years(wanted, fields, when, year, name)
    past = np.array([each in seen and each != chosen for each in years])
    blank = np.full((mine.sizes["lat"], mine.sizes["lon"]), np.nan)
    seasons = np.stack([wanted.mean(when.months(each)) if each in seen else blank for each in years])
    before = np.stack([wanted.mean([when.known(each)]) for each in years])
    _check_data(seasons[past], [f"{when.name} {each}" for each in np.array(years)[past]], target, name)
    _check_data(before, [when.known_month(each) for each in years], target, name)
    columns, weights = _columns(fields, [when.known(each) for each in years], source)
    valid = np.isfinite(seasons[past]).all(axis=0) & np.isfinite(before).all(axis=0)
    valid &= _varies(np.where(valid, seasons[past], 0.0), np.array(years)[past])
    if not valid.any():
        raise InputError(
            f"{name}: {target} has no cell with a value in all of {past.sum()} years that also varies about its trend; "
            "choose another region or target"
        )
    areas = np.broadcast_to(cell_areas(mine["lat"].values)[:, None], valid.shape)[valid]
    known = Years(np.array(years), seasons[:, valid], before[:, valid], columns, areas, weights)
    unit = str(mine[target].attrs.get("units", ""))
    return Case(target, unit, when, chosen, mine[["lat", "lon"]], valid, known)


def _target(data: xr.Dataset, target: str, region: list[float] | None, name: str) -> xr.Dataset:
    """The variable to predict, in its region."""
    if target not in data:
        raise InputError(f"{name}: variable {target} is wanted{instead(target, [str(key) for key in data.data_vars])}")
    mine = data[[target]]
    box = regions.region_of(region, such="-20,35,50,70")
    mine = regions.window(mine, box, name=name) if box else mine
    regions.geobox(mine, name=name)
    if set(mine[target].dims) - {"time", "lat", "lon"}:
        raise InputError(
            f"{name}: {target} has dimensions {', '.join(map(str, mine[target].dims))}; wanted time, lat, lon: average "
            "over the others first, or choose from them"
        )
    return mine


def _check_data(fields: Floats, what: list[str], field: str, name: str) -> None:
    """Refuse years of which a field has no data at all, where it has some of others."""
    empty = [words for words, values in zip(what, fields, strict=True) if not np.isfinite(values).any()]
    if empty and len(empty) < len(what):
        raise InputError(
            f"{name}: {field} has no data at all in {empty[0]} ({len(empty)} such); give files that have it, or leave "
            "that month's out"
        )


def _varies(seasons: Floats, years: NDArray[np.int64]) -> Mask:
    """Where seasons (n, H, W) have terciles: not dry in two of three years, nor on a line but for rounding."""
    low, high = np.quantile(seasons, [1 / 3, 2 / 3], axis=0)
    time = (years - years.mean())[:, None, None]
    anomalies = seasons - seasons.mean(axis=0)
    anomalies = anomalies - time * (time * anomalies).sum(axis=0) / (time**2).sum()
    rounding = 1e-6 * np.abs(seasons).max(axis=0)  # of numbers of 32 bits, several times over
    return np.asarray((low < high) & (anomalies.std(axis=0) > rounding))


def _years(
    wanted: Months, fields: list[Months], when: Season, year: int | None, name: str
) -> tuple[list[int], set[int], int]:
    """Years whose month is known, those of them whose season is there, and the one to predict."""

    def known(each: int) -> bool:
        return all(when.known(each) in months.at for months in (wanted, *fields))

    spans = [month // 12 for month in wanted.at]
    candidates = range(min(spans, default=0), max(spans, default=0) + 3)
    usable = [each for each in candidates if known(each)]
    seen = {each for each in usable if all(month in wanted.at for month in when.months(each))}
    chosen = year if year is not None else max(usable, default=0)
    if usable and chosen not in usable:
        raise InputError(
            f"{name}: {when.name} {chosen} is told from {when.known_month(chosen)}, which is not there whole in every "
            f"field; years to choose from are {usable[0]}..{usable[-1]}"
        )
    count = len(seen - {chosen})
    if count < LEAST:
        raise InputError(
            f"{name}: {count} years have a whole {when.name} and the month to tell it from, {LEAST} or more are wanted "
            f"(skill is told from 20 on); add years"
        )
    return [each for each in usable if each in seen or each == chosen], seen, chosen


def _columns(fields: list[Months], months: list[int], name: str) -> tuple[Floats, Floats]:
    """Predictors (n, F) and their weights (F,), roots of the areas; cells without a value in some year are left out.

    Raises:
        InputError: a field has no data at all in some of the months.
    """
    values, weights = [], []
    for each in fields:
        stacked = np.stack([each.mean([month]) for month in months])  # (n, ..., lat, lon)
        root = np.sqrt(cell_areas(each.field["lat"].values))[:, None] if "lat" in each.field.dims else np.ones((1, 1))
        _check_data(stacked, [month_name(month) for month in months], str(each.field.name), name)
        flat = stacked.reshape(len(months), -1)
        there = np.isfinite(flat).all(axis=0)
        even = np.broadcast_to(root, stacked.shape[1:]).ravel()[there]
        values.append(flat[:, there])
        weights.append(even / max(np.sqrt((even**2).sum()), 1e-300))  # each variable weighs the same
    return np.concatenate(values, axis=1), np.concatenate(weights)
