"""Chances of a season's terciles from fields of many years, and the skill that the same method had in years past."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.baselines.seasons import ENOUGH, METHODS, cross_validate, predict, skill
from models.errors import InputError
from models.files import check_folder
from models.types import Progress, Say, Source
from pipelines.forecasts.months import Season
from pipelines.forecasts.seasonal_files import write_outlook
from pipelines.forecasts.seasonal_skill import headline, not_told
from pipelines.forecasts.seasonal_years import gather
from pipelines.records.attempts import PAGE
from pipelines.records.energy import READ, TILES, Account


def seasonal(
    files: list[Source],
    *,
    target: str,
    season: str,
    out: Path,
    lead: int = 1,
    year: int | None = None,
    method: str = "ridge",
    predictors: list[Source] | None = None,
    region: list[float] | None = None,
    account: Account = Account(),
    overwrite: bool = False,
    progress: Progress | None = None,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Tell the chances of a season being below, near or above normal, and how such outlooks fared in years past.

    Learns from monthly or finer fields of many years: climatology, damped persistence of the target, and ridge
    regression on the principal components of all fields in the month that is known. Normal is a smooth trend. In the
    skill everything is fitted without the year that is predicted and two on either side, and what neighbouring years
    tell as well is none. Under twenty years skill is not told. No Prithvi model takes part: none is a seasonal model.

    Writes into a folder: probabilities.tif (three bands), outlook.nc, skill.json and most_likely.png.

    Args:
        files: weather files (NetCDF, Zarr, GRIB) or addresses of Zarr stores: the target and other fields, years in any
            order.
        target: the variable to predict.
        season: first letters of its months, two or more, such as DJF; DJF 2021 ends in February 2021.
        out: the folder to write.
        lead: months between the month that is known and the season; with 1, DJF is told from October.
        year: the season to predict; default the newest whose month is known. Where that season is there already it is
            left out of all that is fitted.
        method: whose chances are mapped: ridge, persistence or climatology.
        predictors: files of other fields to predict from, on any grid; default all fields of `files`.
        region: west,south,east,north in degrees of the target, such as -20,35,50,70; default the whole grid.
        account: on whose account the energy goes, see energy.json in the folder.
        overwrite: replace an earlier outlook in the folder.
        progress: wraps the years to show progress.
        say: takes a line for the person who waits.

    Returns:
        What skill.json holds: headline, target, season, year, years, skill by method (None when not told), files.

    Raises:
        InputError: names, a season or a region that are not there, too few years, a folder that is not empty.
        RunError: the disk does not take the files.
    """
    meter = account.begun("seasonal", say)
    check_folder(out, overwrite=overwrite)
    if method not in METHODS:
        raise InputError(f"method {method!r}: wanted one of {', '.join(METHODS)}")
    when = Season.of(season, lead)
    case = gather(files, target, when, year, predictors, region)
    known, i = case.split()
    meter.lap(READ)
    if case.hindcast:
        say(f"{when.name} {case.year} is there already: a hindcast, without that season in anything that is fitted")
    outlook = predict(known, case.year, case.data.persisted[i], case.data.predictors[i])
    shown = {"shown": progress} if progress else {}
    hindcasts = cross_validate(known, **shown) if len(known.years) >= ENOUGH else None
    told = {name: hindcasts and skill(hindcasts, name) for name in METHODS if name != "climatology"}
    if hindcasts is None:
        say(not_told(len(known.years)))
    result = {
        "headline": headline(case, known, told, method),
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
        "interval": "90 % of a bootstrap over blocks of five years",
        "map": str(out / "probabilities.tif"),
        "series": str(out / "outlook.nc"),
        "picture": str(out / "most_likely.png"),
    }
    meter.lap(TILES)
    write_outlook(out, case, outlook, hindcasts, result)
    meter.close(out / PAGE)
    return result
