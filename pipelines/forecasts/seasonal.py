"""Chances of a season's terciles from fields of many years, and the skill that the same method had in years past."""

from __future__ import annotations

import calendar
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr
    from numpy.typing import NDArray

    from models.baselines.seasons import Hindcasts, Outlook, Years

    Array = NDArray[np.float64]

LETTERS = "JFMAMJJASOND"
WHOLE = 0.9  # share of a month's days that have to be there
WORTH = 0.01  # RPSS that the interval has to lie above for a method to be called better than climatology
CLEAR = 0.4  # chance from which the picture names a tercile: a third is what nothing known gives
RAINY = ("rain rate", "rain amount")

# Okabe, Ito (2008), Color universal design: blue and orange are told apart by every kind of colour vision.
BLUE, ORANGE, GREY, PALE = "#0072b2", "#e69f00", "#7f7f7f", "#ececec"


def seasonal(
    files: list[Path],
    *,
    target: str,
    season: str,
    out: Path,
    lead: int = 1,
    year: int | None = None,
    method: str = "ridge",
    predictors: list[Path] | None = None,
    region: list[float] | None = None,
    overwrite: bool = False,
    progress: Callable[[Iterable[Any], str], Iterable[Any]] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Tell the chances of a season being below, near or above normal, and how such outlooks fared in years past.

    Learns from monthly or finer fields of many years: climatology, damped persistence of the target, and ridge
    regression on the principal components of all fields in the month that is known. Everything is fitted without the
    year that is predicted; normal is the linear trend. Under twenty years skill is not told. No Prithvi model takes
    part: none of them is a seasonal model.

    Writes into a folder: probabilities.tif (three bands), outlook.nc, skill.json and most_likely.png.

    Args:
        files: weather files (NetCDF, Zarr, GRIB) of the target and other fields, years in any order.
        target: the variable to predict.
        season: first letters of its months, two or more, such as DJF; DJF 2021 ends in February 2021.
        out: the folder to write.
        lead: months between the month that is known and the season; with 1, DJF is told from October.
        year: the season to predict; default the newest whose month is known. Where that season is there already it is
            left out of all that is fitted.
        method: whose chances are mapped: ridge, persistence or climatology.
        predictors: files of other fields to predict from, on any grid; default all fields of `files`.
        region: west,south,east,north in degrees of the target, such as -20,35,50,70; default the whole grid.
        overwrite: replace an earlier outlook in the folder.
        progress: wraps the years to show progress.
        say: takes a line for the person who waits.

    Returns:
        What skill.json holds: headline, target, season, year, years, skill by method (None when not told), files.

    Raises:
        InputError: names, a season or a region that are not there, too few years, a folder that is not empty.
        RunError: the disk does not take the files.
    """
    from models.baselines.seasons import ENOUGH, METHODS, cross_validate, predict, skill
    from models.files import check_folder

    check_folder(out, overwrite=overwrite)
    if method not in METHODS:
        raise InputError(f"method {method!r}: wanted one of {', '.join(METHODS)}")
    when = Season.of(season, lead)
    case = _gather(files, target, when, year, predictors, region)
    known, i = case.split()
    if case.hindcast:
        say(f"{when.name} {case.year} is there already: a hindcast, without that season in anything that is fitted")
    outlook = predict(known, case.year, case.data.persisted[i], case.data.predictors[i])
    shown = {"shown": progress} if progress else {}
    hindcasts = cross_validate(known, **shown) if len(known.years) >= ENOUGH else None
    told = {name: hindcasts and skill(hindcasts, name) for name in METHODS if name != "climatology"}
    if hindcasts is None:
        say(_not_told(len(known.years)))
    result = {
        "headline": _headline(case, known, told, method),
        "target": target,
        "unit": case.unit,
        "season": when.name,
        "year": case.year,
        "hindcast": case.hindcast,
        "known_month": when.known_month(case.year),
        "lead_months": lead,
        "method": method,
        "years": [int(each) for each in known.years],
        "skill": told,
        "interval": "90 % of a bootstrap over years",
        "map": str(out / "probabilities.tif"),
        "series": str(out / "outlook.nc"),
        "picture": str(out / "most_likely.png"),
    }
    _write(out, case, outlook, hindcasts, result)
    return result


def table(result: Mapping[str, Any]) -> str:
    """The skill as lines of text."""
    if not all(result["skill"].values()):
        return _not_told(len(result["years"]))
    lines = [f"{'skill over climatology':<24}{'RPSS':>8}  {'90 % interval':<18}{'CRPSS':>8}  90 % interval"]
    for name, scores in result["skill"].items():
        parts = [f"{s['value']:>8.3f}  {_interval(s):<18}" for s in (scores["rpss"], scores["crpss"])]
        lines.append(f"{name:<24}{''.join(parts)}".rstrip())
    return "\n".join(lines)


def _interval(score: Mapping[str, float]) -> str:
    return f"{score['low']:.3f}..{score['high']:.3f}"


def _not_told(years: int) -> str:
    from models.baselines.seasons import ENOUGH

    return f"skill: not told: {years} years, {ENOUGH} wanted"


def _headline(case: Case, known: Years, told: Mapping[str, Any], method: str) -> str:
    """The result in one line, and whether to trust it."""
    what = f"{case.season.name} {case.year}, {case.target}, from {case.season.known_month(case.year)} by {method}"
    learnt = f"{what}, learnt from {len(known.years)} years"
    if method == "climatology":
        return f"{learnt}: a third for each tercile, by definition"
    if told[method] is None:
        return f"{learnt}: nothing says how far to trust it"
    rpss = told[method]["rpss"]
    verdict = "better than climatology" if rpss["low"] > WORTH else "no better than climatology as these years tell"
    return f"{learnt}: RPSS {rpss['value']:.3f} ({_interval(rpss)}), {verdict}"


# --- months -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Season:
    """Months that follow each other, and the month that is known before them.

    Attributes:
        name: first letters of the months.
        last: the last of them, 1..12; its year is that of the season.
        lead: months between the one that is known and the first.
    """

    name: str
    last: int
    lead: int

    @classmethod
    def of(cls, name: str, lead: int) -> Season:
        """A season by its letters.

        Raises:
            InputError: no such season, or a lead below 0 or above 11.
        """
        letters = name.upper()
        at = (LETTERS * 2).find(letters)
        if not 2 <= len(letters) <= 12 or at < 0:
            raise InputError(f"season {name!r}: wanted first letters of 2 to 12 months in a row, such as DJF or JJAS")
        if not 0 <= lead <= 11:
            raise InputError(f"lead {lead}: wanted 0 to 11 months")
        return cls(letters, (at + len(letters) - 1) % 12 + 1, lead)

    def months(self, year: int) -> list[int]:
        """The months of a year's season, counted from the year 0."""
        end = year * 12 + self.last
        return list(range(end - len(self.name), end))

    def known(self, year: int) -> int:
        """The month that is known, counted from the year 0."""
        return self.months(year)[0] - 1 - self.lead

    def known_month(self, year: int) -> str:
        """That month as text, such as October 2020."""
        return _month_name(self.known(year))


@dataclass(frozen=True)
class Months:
    """A field's times by month.

    Attributes:
        field: (time, ..., lat, lon), read month by month.
        at: by month, counted from the year 0, the places of its times; only months that are whole.
    """

    field: xr.DataArray
    at: Mapping[int, NDArray[np.intp]]

    @classmethod
    def of(cls, field: xr.DataArray, *, name: str) -> Months:
        """Sort the times of a field into months.

        Raises:
            InputError: no time axis, fewer than two times, or steps longer than a month.
        """
        import numpy as np

        if "time" not in field.dims or field.sizes["time"] < 2:
            raise InputError(f"{name}: {field.name} wants many times, monthly or finer; pass dated files of many years")
        times = field["time"].values
        if "interval_start" in field.coords:
            start, end = field["interval_start"].values, field["interval_end"].values
            times = start + (end - start) / 2
        days = float(np.median(np.diff(field["time"].values)) / np.timedelta64(1, "D"))
        if days > 32:
            raise InputError(f"{name}: {field.name} has steps of {days:.0f} days, months or finer are wanted")
        months = times.astype("datetime64[M]").astype(int) + 1970 * 12
        found, counts = np.unique(months, return_counts=True)
        whole = [
            int(month)
            for month, count in zip(found, counts, strict=True)
            if count >= WHOLE * np.floor(_days(int(month)) / days)
        ]
        return cls(field, {month: np.flatnonzero(months == month) for month in whole})

    def mean(self, months: Iterable[int]) -> Array:
        """The mean over whole months, each counting its days: (..., lat, lon), NaN where a value is missing."""
        import numpy as np

        chosen = list(months)
        axis = self.field.dims.index("time")
        fields = [self.field.isel(time=self.at[month]).values.mean(axis=axis, dtype=np.float64) for month in chosen]
        return np.asarray(np.average(fields, axis=0, weights=[_days(month) for month in chosen]))


def _month_name(month: int) -> str:
    """A month that is counted from the year 0 as text."""
    return f"{calendar.month_name[month % 12 + 1]} {month // 12}"


def _days(month: int) -> int:
    """Days of a month that is counted from the year 0."""
    return calendar.monthrange(month // 12, month % 12 + 1)[1]


# --- what is known ------------------------------------------------------------------------------------------------


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
    valid: NDArray[np.bool_]
    data: Years

    @property
    def hindcast(self) -> bool:
        """Whether the season to predict is there already."""
        import numpy as np

        return bool(np.isfinite(self.data.target[self.data.years == self.year]).any())

    def split(self) -> tuple[Years, int]:
        """The years to learn from, which are all others, and the place of the year to predict."""
        import numpy as np

        at = self.data.years == self.year
        return self.data.only(~at), int(np.flatnonzero(at)[0])

    def spread(self, values: Array) -> NDArray[np.float32]:
        """Values of cells (..., P) as maps (..., H, W), NaN where there is no outlook."""
        import numpy as np

        maps = np.full((*values.shape[:-1], *self.valid.shape), np.nan, np.float32)
        maps[..., self.valid] = values
        return maps


def _gather(
    files: list[Path],
    target: str,
    when: Season,
    year: int | None,
    predictors: list[Path] | None,
    region: list[float] | None,
) -> Case:
    """Read what is known of every year."""
    import numpy as np

    from pipelines.weather.dataset import open_weather
    from pipelines.weather.regions import cell_areas

    data = open_weather(files)
    name, source = Path(files[0]).name, Path((predictors or files)[0]).name
    mine = _target(data, target, region, name)
    others = open_weather(predictors) if predictors else data
    wanted = Months.of(mine[target], name=name)
    fields = [Months.of(field, name=str(key)) for key, field in others.data_vars.items() if "time" in field.dims]
    if not fields:
        raise InputError(f"{source}: no field with times to predict from; pass dated files")
    years, seen, chosen = _years(wanted, fields, when, year, name)
    past = np.array([each in seen and each != chosen for each in years])
    seasons = np.stack([wanted.mean(when.months(each)) if each in seen else np.nan * _blank(mine) for each in years])
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
    known = _as_years(years, seasons[:, valid], before[:, valid], columns, areas, weights)
    unit = str(mine[target].attrs.get("units", ""))
    return Case(target, unit, when, chosen, mine[["lat", "lon"]], valid, known)


def _target(data: xr.Dataset, target: str, region: list[float] | None, name: str) -> xr.Dataset:
    """The variable to predict, in its region.

    Raises:
        InputError: it is not there, has further dimensions, or lies on no even grid; a region that is none.
    """
    from pipelines.weather import regions
    from pipelines.weather.dataset import instead

    if target not in data:
        raise InputError(f"{name}: variable {target} is wanted{instead(target, [str(key) for key in data.data_vars])}")
    mine = data[[target]]
    if region is not None:
        if len(region) != 4:
            raise InputError(f"region {region}: wanted west, south, east, north in degrees, such as -20,35,50,70")
        mine = regions.window(mine, regions.Region(*region), name=name)
    regions.geobox(mine, name=name)
    if set(mine[target].dims) - {"time", "lat", "lon"}:
        raise InputError(
            f"{name}: {target} has dimensions {', '.join(map(str, mine[target].dims))}; wanted time, lat, lon: average "
            "over the others first, or choose from them"
        )
    return mine


def _check_data(fields: Array, what: list[str], field: str, name: str) -> None:
    """Refuse years of which a field has no data at all, where it has some of others.

    Raises:
        InputError: the message says which.
    """
    import numpy as np

    empty = [words for words, values in zip(what, fields, strict=True) if not np.isfinite(values).any()]
    if empty and len(empty) < len(what):
        raise InputError(
            f"{name}: {field} has no data at all in {empty[0]} ({len(empty)} such); give files that have it, or leave "
            "that month's out"
        )


def _varies(seasons: Array, years: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where seasons (n, H, W) have terciles: not dry in two of three years, nor on a line but for rounding."""
    import numpy as np

    low, high = np.quantile(seasons, [1 / 3, 2 / 3], axis=0)
    time = (years - years.mean())[:, None, None]
    anomalies = seasons - seasons.mean(axis=0)
    anomalies = anomalies - time * (time * anomalies).sum(axis=0) / (time**2).sum()
    rounding = 1e-6 * np.abs(seasons).max(axis=0)  # of numbers of 32 bits, several times over
    varies: NDArray[np.bool_] = (low < high) & (anomalies.std(axis=0) > rounding)
    return varies


def _as_years(years: list[int], *arrays: Array) -> Years:
    import numpy as np

    from models.baselines.seasons import Years

    return Years(np.array(years), *arrays)


def _blank(data: xr.Dataset) -> Array:
    import numpy as np

    return np.ones((data.sizes["lat"], data.sizes["lon"]))


def _years(
    wanted: Months, fields: list[Months], when: Season, year: int | None, name: str
) -> tuple[list[int], set[int], int]:
    """Years whose month is known, those of them whose season is there, and the one to predict.

    Raises:
        InputError: too few years, or the month of the year asked for is not there.
    """
    from models.baselines.seasons import LEAST

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


def _columns(fields: list[Months], months: list[int], name: str) -> tuple[Array, Array]:
    """Predictors (n, F) and their weights (F,), roots of the areas; cells without a value in some year are left out.

    Raises:
        InputError: a field has no data at all in some of the months.
    """
    import numpy as np

    from pipelines.weather.regions import cell_areas

    values, weights = [], []
    for each in fields:
        stacked = np.stack([each.mean([month]) for month in months])  # (n, ..., lat, lon)
        root = np.sqrt(cell_areas(each.field["lat"].values))[:, None] if "lat" in each.field.dims else np.ones((1, 1))
        _check_data(stacked, [_month_name(month) for month in months], str(each.field.name), name)
        flat = stacked.reshape(len(months), -1)
        there = np.isfinite(flat).all(axis=0)
        even = np.broadcast_to(root, stacked.shape[1:]).ravel()[there]
        values.append(flat[:, there])
        weights.append(even / max(np.sqrt((even**2).sum()), 1e-300))  # each variable weighs the same
    return np.concatenate(values, axis=1), np.concatenate(weights)


# --- files --------------------------------------------------------------------------------------------------------


def _write(out: Path, case: Case, outlook: Outlook, hindcasts: Hindcasts | None, result: Mapping[str, Any]) -> None:
    """Write all files, or none."""
    from models.baselines.seasons import TERCILES
    from models.files import draft_folder
    from pipelines.outputs.geotiff import Layout, write_rows
    from pipelines.outputs.netcdf import write_netcdf
    from pipelines.weather.regions import geobox

    chances = case.spread(outlook.chances(result["method"]))  # (3, H, W)
    layout = Layout(
        geobox(case.grid),
        dtype="float32",
        bands=3,
        nodata=float("nan"),
        descriptions=TERCILES,
        units=["1"] * 3,
        tags={
            "variable": case.target,
            "season": f"{result['season']} {case.year}",
            "known": result["known_month"],
            "method": result["method"],
            "skill": table(result),
        },
    )
    with draft_folder(out, replaces="probabilities.tif") as folder:
        write_rows(folder / "probabilities.tif", [(0, chances)], layout)
        write_netcdf(folder / "outlook.nc", as_dataset(case, outlook, hindcasts, result))
        _picture(folder / "most_likely.png", case, chances, result)
        (folder / "skill.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def as_dataset(case: Case, outlook: Outlook, hindcasts: Hindcasts | None, result: Mapping[str, Any]) -> xr.Dataset:
    """The outlook by every method, the boundaries between terciles, and the RPSS of each cell where skill is told."""
    import numpy as np
    import xarray as xr

    from models.baselines.seasons import METHODS, TERCILES

    grid = ("lat", "lon")
    chances = np.stack([case.spread(outlook.chances(method)) for method in METHODS])
    bounds = case.spread(outlook.trend + outlook.terciles)
    coords = {
        "model": list(METHODS),  # not "method", which is an argument of xarray's sel
        "tercile": list(TERCILES),
        "boundary": ["lower", "upper"],
        "lat": ("lat", case.grid["lat"].values, {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"}),
        "lon": ("lon", case.grid["lon"].values, {"standard_name": "longitude", "units": "degrees_east", "axis": "X"}),
    }
    unit = {"units": case.unit}
    fields: dict[str, Any] = {
        "probability": (("model", "tercile", *grid), chances, {"units": "1", "long_name": "chance of a tercile"}),
        "boundaries": (("boundary", *grid), bounds, {**unit, "long_name": f"{case.target} between terciles"}),
        "normal": (grid, case.spread(outlook.trend), {**unit, "long_name": f"{case.target} on its linear trend"}),
    }
    if hindcasts:
        cells = np.stack([case.spread(hindcasts.by_cell(method)) for method in METHODS])
        fields["rpss"] = (("model", *grid), cells, {"units": "1", "long_name": "RPSS over climatology, past years"})
    title = f"Outlook for {case.target}, {result['season']} {case.year}, from {result['known_month']}"
    return xr.Dataset(fields, coords, {"Conventions": "CF-1.11", "title": title, "comment": result["headline"]})


def _picture(path: Path, case: Case, chances: NDArray[np.float32], result: Mapping[str, Any]) -> None:
    """A map of the most likely tercile, where its chance is 40 % or more, with a legend."""
    import numpy as np

    from models.baselines.seasons import TERCILES
    from models.spec import ClassDef
    from pipelines.reports import plots
    from pipelines.weather.regions import geobox

    low, high = (ORANGE, BLUE) if _is_rain(case.unit) else (BLUE, ORANGE)
    names = zip((*TERCILES, f"none reaches {CLEAR:.0%}"), (low, GREY, high, PALE), strict=True)
    classes = [ClassDef(code, name, colour) for code, (name, colour) in enumerate(names)]
    filled = np.where(case.valid, chances, 0)
    likely = np.where(filled.max(axis=0) >= CLEAR, filled.argmax(axis=0), 3)
    image = plots.class_image(np.where(case.valid, likely, -1), classes)
    box = geobox(case.grid).boundingbox
    wide = min(max((box.right - box.left) / (box.top - box.bottom), 0.5), 2.5)
    figure = plots.figure(max(4.2 * wide, 5.0), 5.0)
    ax, below = figure.subplots(2, 1, height_ratios=(9, 1))
    plots.style(ax, ink="black")
    ax.imshow(image, interpolation="nearest", extent=(box.left, box.right, box.bottom, box.top))
    ax.set_xlabel("longitude (°E)")
    ax.set_ylabel("latitude (°N)")
    skill = table(result).split(": ", 1)[1] if not all(result["skill"].values()) else _verdict(result)
    ax.set_title(f"{case.target}, {result['season']} {case.year}: most likely tercile\n{skill}", fontsize=10)
    plots.legend(below, classes)
    figure.savefig(path, facecolor="white", metadata={"Software": None})


def _verdict(result: Mapping[str, Any]) -> str:
    if result["method"] == "climatology":
        return "climatology"
    rpss = result["skill"][result["method"]]["rpss"]
    return f"{result['method']}, RPSS of {len(result['years'])} years {rpss['value']:.3f} ({_interval(rpss)})"


def _is_rain(unit: str) -> bool:
    """Whether more of it is wetter, which is drawn in blue."""
    from pipelines.weather.units import quantities

    return any(quantity in RAINY for quantity in quantities(unit))
