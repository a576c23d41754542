"""Weather before a change, beside years counted by hand."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
import xarray as xr

from models.errors import InputError
from pipelines.changes.weather import read_weather

YEARS = range(2012, 2024)
DAY = datetime.date(2023, 8, 1)


def store(path, *, dry=2023, unit="mm/day", step=1, name="pr"):
    """Rain of 2 mm a day, year by year 0.01 more, and 0.1 in a dry year; 10 degrees, and 10 + the year's last digit."""
    times = np.arange(f"{YEARS[0]}-01-01", f"{YEARS[-1] + 1}-01-01", dtype="datetime64[D]")[::step]
    year = times.astype("datetime64[Y]").astype(int) + 1970
    rain = np.where(year == dry, 0.1, 2 + 0.01 * (year - 2012))
    cells = np.array([1.0, 5.0, 9.0])[None, :, None] * np.ones((1, 1, 4))  # other rows have other rain
    shape = ("time", "lat", "lon")
    fields = {
        name: (shape, rain[:, None, None] * cells, {"units": unit}),
        "tas": (shape, (273.15 + 10 + year % 10)[:, None, None] * np.ones((1, 3, 4)), {"units": "K"}),
    }
    axes = {"time": times.astype("datetime64[ns]"), "lat": [44.0, 45, 46], "lon": [8.0, 9, 10, 11]}
    axes["lat"], axes["lon"] = (
        ("lat", axes["lat"], {"units": "degrees_north"}),
        ("lon", axes["lon"], {"units": "degrees_east"}),
    )
    xr.Dataset(fields, axes).to_netcdf(path)
    return path


def test_a_dry_summer_is_told_by_its_cell_and_its_years(tmp_path):
    weather = read_weather([store(tmp_path / "w.nc")], (44.1, 9.2))
    words = weather.words(DAY)
    assert "dry: 9 mm of rain in 90 days, less than in 11 of 11 other years" in words
    assert "usual: 13 degrees Celsius, more than in 4 of 11 other years" in words  # 2012 and 2020 to 2022


def test_a_wet_one_and_a_warm_one(tmp_path):
    weather = read_weather([store(tmp_path / "w.nc", dry=None)], (44.0, 9.0))
    assert weather.words(DAY).startswith("wet: 190 mm of rain in 90 days, more than in 11 of 11")
    assert "warm: 19 degrees Celsius, more than in 11 of 11" in weather.words(datetime.date(2019, 8, 1))


def test_nothing_is_said_of_what_the_files_do_not_hold(tmp_path):
    weather = read_weather([store(tmp_path / "w.nc")], (44.1, 9.2))
    assert weather.words(datetime.date(2012, 2, 1)) == ""  # the days before lie before the file
    assert weather.words(datetime.date(2025, 2, 1)) == ""
    assert weather.words(datetime.date(2020, 2, 29))


@pytest.mark.parametrize(
    ("place", "how", "told"),
    [
        ((60.0, 9.0), {}, "does not cover 60.000"),
        ((44.0, 30.0), {}, "does not cover 30.000"),
        ((44.0, 9.0), {"step": 30}, "wanted a value a day"),
    ],
)
def test_refusals(place, how, told, tmp_path):
    with pytest.raises(InputError, match=told):
        read_weather([store(tmp_path / "w.nc", **how)], place)


def test_files_without_rain_and_temperature_are_refused(tmp_path):
    path = store(tmp_path / "w.nc", name="wind")
    with xr.open_dataset(path) as data:
        data.drop_vars("tas").to_netcdf(tmp_path / "other.nc")
    with pytest.raises(InputError, match="wanted rain or temperature"):
        read_weather([tmp_path / "other.nc"], (44.0, 9.0))
