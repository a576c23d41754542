"""Which product a file holds: rates worked by hand, or a line that asks. Nothing comes of the spacing of times."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from models.errors import InputError
from pipelines.samples.weather import read_weather
from pipelines.tasks.rain import RainData, RainTarget, read_rain
from pipelines.weather import products
from pipelines.weather.canonical import notes_of, to_canonical
from pipelines.weather.dataset import open_weather
from pipelines.weather.intervals import in_unit, with_intervals
from pipelines.weather.products import PRODUCTS
from tests.weather_files import DATA, needs_data, save

ECMWF = {"institution": "European Centre for Medium-Range Weather Forecasts", "GRIB_centre": "ecmf"}
HOUR = np.timedelta64(1, "h")
WET = (1.0, 3.0, 0.0, 2.0)  # mm in hours that follow each other: falls within a day


def hours(first, count, step=1):
    return np.datetime64(first, "ns") + np.arange(count) * step * HOUR


def raw(times, amounts, *, step=0.25, units="m", name="tp", var=None, **attrs):
    """A file of the Copernicus store: amounts in mm by time, the same on all cells."""
    lat, lon = np.arange(31, 31 - 8 * step, -step)[:8], np.arange(272, 272 + 10 * step, step)[:10]
    values = np.asarray(amounts, "f4")[:, None, None] * (0.001 if units == "m" else 1.0) + np.zeros((8, 10), "f4")
    about = {"units": units, "long_name": "Total precipitation", "GRIB_stepType": "accum"} | (var or {})
    axes = {
        "valid_time": ("valid_time", times, {"standard_name": "time"}),
        "latitude": ("latitude", lat, {"units": "degrees_north"}),
        "longitude": ("longitude", lon, {"units": "degrees_east"}),
    }
    return xr.Dataset({name: (("valid_time", "latitude", "longitude"), values, about)}, axes, ECMWF | attrs)


def opened(data, file="data.nc", product=None):
    canonical = to_canonical(data).assign_attrs(earthtune_source=file)
    return with_intervals(canonical, product=product and PRODUCTS[product], name=file)


def rates(data, file="data.nc", product=None):
    """mm/h on one cell, by time."""
    field = next(iter(opened(data, file, product).data_vars.values()))
    return in_unit(field, "mm/h", name=file).values[:, 0, 0]


def running(times):
    """Totals since 00 UTC of 1 mm/h; 00 UTC has those of the day before."""
    whole = (times - times.astype("datetime64[D]")) / HOUR
    return np.where(whole == 0, 24.0, whole)


# ---------------------------------------------------------------- ERA5, whatever times were kept


@pytest.mark.parametrize("step", [1, 2, 3, 5, 6, 12])
def test_era5s_sums_are_those_of_the_hour_whatever_times_were_kept(step):
    times = hours("2020-09-01", 12, step)
    data = raw(times, [2.0] * 12)
    np.testing.assert_allclose(rates(data, "era5_tp.nc"), 2.0, rtol=1e-5)
    found = opened(data, "era5_tp.nc")
    assert (found.interval_end.values == times).all() and (found.interval_start.values == times - HOUR).all()
    np.testing.assert_allclose(rates(data, product="era5"), 2.0, rtol=1e-5)


def test_uneven_times_and_one_alone_are_sums_of_an_hour_too():
    data = raw(hours("2020-09-01", 6)[[0, 1, 5]], [1.0, 4.0, 2.0])
    np.testing.assert_allclose(rates(data, "ERA5.nc"), [1, 4, 2], rtol=1e-5)
    np.testing.assert_allclose(rates(data.isel(valid_time=[1]), "ERA5.nc"), [4], rtol=1e-5)


def test_a_file_that_names_no_product_is_told_by_hourly_values_that_fall_or_asked_about():
    hourly = raw(hours("2020-09-01T01", 4), WET)
    np.testing.assert_allclose(rates(hourly), WET, rtol=1e-5)
    for times, amounts in (
        (hours("2020-09-01", 8, 6), [2.0] * 8),
        (hours("2020-09-01T01", 4), [0.0] * 4),  # dry: nothing tells whether it runs on
        (hours("2020-09-01T01", 30), running(hours("2020-09-01T01", 30))),
        (hours("2020-09-01", 5, 24), (*WET, 1.0)),
    ):
        data = raw(times, amounts)
        with pytest.raises(InputError, match=r"^data\.nc: tp is an amount and .*\(?era5.*pass stamp"):
            rates(data)
        assert "intervals are not known" in notes_of(opened(data))[-1]


def test_a_time_alone_at_00_utc_or_the_word_daily_makes_an_hour_doubtful():
    for data, file in (
        (raw(hours("2020-09-01", 1), [24.0]), "era5.nc"),
        (raw(hours("2020-09-01T12", 1), [24.0]), "ERA5_daily_tp.nc"),
    ):
        with pytest.raises(InputError, match=r"sums of an hour or of a day \(era5, era5_daily\)"):
            rates(data, file)
        np.testing.assert_allclose(rates(data, file, product="era5"), 24, rtol=1e-5)
        np.testing.assert_allclose(rates(data, file, product="era5_daily"), 1, rtol=1e-5)


def test_a_product_of_days_is_not_read_from_months():
    months = np.array(["2020-02-01", "2020-03-01"], "datetime64[ns]")
    with pytest.raises(InputError, match=r"x\.nc: times are the start of intervals of 24 h were wanted and .*months"):
        opened(imerg(months, [2.0, 1.0], "mm", name="precip"), "x.nc", product="chirps")


def test_sums_a_day_apart_are_asked_about_though_the_name_says_era5():
    data = raw(hours("2020-09-01", 5, 24), [24.0] * 5)
    with pytest.raises(InputError, match="whole days apart: sums of an hour, or of days .era5_daily"):
        rates(data, "era5.nc")
    with pytest.raises(InputError, match=r"era5\.nc: times are the end of intervals of 1 h were wanted.*stamp, hours"):
        rates(data, "era5.nc", product="era5")
    months = np.array(["2020-02-01", "2020-03-01"], "datetime64[ns]")
    with pytest.raises(InputError, match="whole days apart"):
        rates(raw(months, [1.0, 2.0]), "era5.nc")
    with pytest.raises(InputError, match="and its times are whole days apart"):  # which tells more than months do
        rates(raw(months, [1.0, 2.0]), "era5.nc", product="era5")


# ---------------------------------------------------------------- ERA5-Land


@pytest.mark.parametrize(("first", "step"), [("T01", 1), ("T00", 1), ("T03", 3), ("T06", 6), ("T00", 24)])
def test_era5_lands_totals_run_on_since_00_utc(first, step):
    times = hours(f"2020-09-02{first}", 60 // min(step, 12), step)
    data = raw(times, running(times), step=0.1)
    for file, product in (("era5land.nc", None), ("ERA5-Land_tp.nc", None), ("x.nc", "era5_land")):
        np.testing.assert_allclose(rates(data, file, product), 1.0, rtol=1e-4)
    found = opened(data, "era5_land.nc")
    assert found.interval_start.values[-1] == (times[-1] - HOUR).astype("datetime64[D]")
    named = data.assign_attrs(title="ERA5-Land hourly data from 1950 to present")
    np.testing.assert_allclose(rates(named), 1.0, rtol=1e-4)


@pytest.mark.parametrize("first", ["T01", "T00", "T05"])
def test_totals_that_run_on_are_not_read_as_sums_of_an_hour_whatever_they_are_called(first):
    times = hours(f"2020-09-01{first}", 40)
    data = raw(times, running(times))
    with pytest.raises(InputError, match=r"its values run on within each day.*era5_land"):
        rates(data, "era5.nc")
    with pytest.raises(InputError, match=r"its values run on within each day.*data\.target"):
        rates(data, product="era5")


def test_only_amounts_along_time_speak_against_a_product_of_hours():
    times = hours("2020-09-01T01", 40)
    quiet = {"institution": "", "GRIB_centre": ""}  # nothing says which are sums
    data = raw(times, [*WET] * 10, var={"GRIB_stepType": ""}, **quiet)
    warmer = raw(times, running(times), units="K", name="t2m", var={"GRIB_stepType": "", "long_name": "warmth"})
    height = warmer["t2m"][0].drop_vars("valid_time").assign_attrs(units="m", long_name="height")
    both = data.assign(t2m=warmer["t2m"], z=height)
    np.testing.assert_allclose(rates(both, product="era5"), [*WET] * 10, rtol=1e-5)


def test_a_day_of_totals_without_a_turn_is_enough():
    data = raw(hours("2020-09-01T01", 23), np.arange(23.0) + 1)
    with pytest.raises(InputError, match="run on within each day"):
        rates(data, "era5.nc")


def test_cells_without_data_do_not_matter():
    times = hours("2020-09-01T01", 30)
    land = raw(times, running(times))
    land.tp[:, :, 1:] = np.nan
    with pytest.raises(InputError, match="run on"):
        rates(land, "era5.nc")
    np.testing.assert_allclose(rates(land, "era5_land.nc"), 1.0, rtol=1e-4)
    land.tp[:] = np.nan
    assert np.isnan(rates(land, product="era5")).all()


def test_daily_amounts_of_era5_land_are_asked_about():
    data = raw(hours("2020-09-01", 3, 24), [24.0] * 3)
    with pytest.raises(InputError, match="may begin or end at their times"):
        rates(data, "era5_land_daily.nc")
    assert opened(data, "era5_land_daily.nc", "era5_daily").interval_start.values[0] == hours("2020-09-01", 1)[0]
    assert opened(data, "era5_land_daily.nc", "era5_land").interval_end.values[0] == hours("2020-09-01", 1)[0]


def test_sums_of_an_hour_read_as_running_totals_are_refused():
    with pytest.raises(InputError, match="a running total falls"):
        rates(raw(hours("2020-09-01T01", 4), WET), product="era5_land")


# ---------------------------------------------------------------- other products of ERA5


def test_the_ensembles_sums_are_those_of_three_hours():
    data = raw(hours("2020-09-01T03", 4, 3), [3.0, 6.0, 0.0, 3.0], step=0.5)
    for file in ("data_stream-enda_stepType-accum.nc", "era5_ensemble_mean.nc"):
        np.testing.assert_allclose(rates(data, file), [1, 2, 0, 1], rtol=1e-5)
    means = raw(hours("2020-09-01T03", 2, 3), [3.0, 6.0], var={"GRIB_dataType": "em"})
    np.testing.assert_allclose(rates(means, "era5.nc"), [1, 2], rtol=1e-5)
    with pytest.raises(InputError, match="ensemble"):
        rates(data, "era5.nc")  # every three hours on its grid
    for step in (0.25, 0.5):  # what a person says goes before what a file is called
        data = raw(hours("2020-09-01T03", 4, 3), [3.0, 6.0, 0.0, 3.0], step=step)
        np.testing.assert_allclose(rates(data, "era5.nc", product="era5_ensemble"), [1, 2, 0, 1], rtol=1e-5)


def test_daily_sums_begin_at_their_stamp():
    times = hours("2020-09-01", 3, 24)
    data = raw(times, [24.0, 48.0, 0.0])
    for file, product in (("total_precipitation_0_daily-sum.nc", None), ("x.nc", "era5_daily")):
        found = opened(data, file, product)
        assert (found.interval_start.values == times).all() and (found.interval_end.values == times + 24 * HOUR).all()
        np.testing.assert_allclose(rates(data, file, product), [1, 2, 0], rtol=1e-5)


def test_monthly_means_are_amounts_of_a_day():
    months = np.array(["2020-02-01", "2020-03-01"], "datetime64[ns]")
    data = raw(months, [24.0, 12.0], var={"GRIB_stepType": "avgad"})
    for made, file, product in ((data, "x.nc", None), (raw(months, [24.0, 12.0]), "x.nc", "era5_monthly")):
        found = opened(made, file, product)
        assert str(found.interval_end.values[0])[:10] == "2020-03-01" == str(found.interval_start.values[1])[:10]
        np.testing.assert_allclose(rates(made, file, product), [1, 0.5], rtol=1e-5)
        assert in_unit(found.tp, "mm/day").values[1, 0, 0] == pytest.approx(12)
    with pytest.raises(InputError, match="monthly amounts may be those of"):
        rates(raw(months, [24.0, 12.0]), "era5_monthly.nc")


def test_a_length_in_the_name_is_taken():
    data = raw(hours("2020-09-01", 4, 12), [6.0] * 4, name="total_precipitation_6hr")
    np.testing.assert_allclose(rates(data, "era5.nc"), 1.0, rtol=1e-5)


# ---------------------------------------------------------------- IMERG and MERRA-2


def imerg(times, values, unit, name="precipitation", **attrs):
    data = raw(times, values, units=unit, name=name).assign_attrs(institution="", GRIB_centre="", **attrs)
    data[name].attrs.pop("GRIB_stepType")
    return data


@pytest.mark.parametrize("unit", ["mm", "mm/day"])
def test_a_daily_imerg_is_no_half_hourly_one(unit):
    times = hours("2020-09-01", 3, 24)
    title = "GPM IMERG Final Precipitation L3 1 day 0.1 degree x 0.1 degree (GPM_3IMERGDF)"
    data = imerg(times, [24.0, 48.0, 0.0], unit)
    for file, attrs in (("a.nc", {"title": title}), ("3B-DAY.MS.MRG.3IMERG.20200901-S000000-E235959.V07B.nc4", {})):
        found = opened(data.assign_attrs(attrs), file)
        assert (found.interval_end.values == times + 24 * HOUR).all()
        np.testing.assert_allclose(rates(data.assign_attrs(attrs), file), [1, 2, 0], rtol=1e-5)
    bare = data.assign_attrs(title="IMERG")
    assert "interval_start" not in opened(bare).coords
    with pytest.raises(InputError, match="whole days apart"):
        opened(bare, product="imerg")
    assert (opened(bare, product="imerg_daily").interval_end.values == times + 24 * HOUR).all()
    if unit == "mm":
        with pytest.raises(InputError, match="nothing says which IMERG it is: imerg_daily, imerg_monthly, imerg"):
            rates(bare)


def test_an_imerg_that_says_two_things_is_asked_about():
    data = imerg(hours("2020-09-01T00", 3), [2.0, 4.0, 0.0], "mm", title="GPM IMERG half-hourly")
    with pytest.raises(InputError, match="nothing says which IMERG"):
        rates(data, "imerg_daily.nc")


def test_half_hours_and_months_of_imerg_are_told_by_their_names():
    half = imerg(hours("2020-09-01", 3), [2.0, 4.0, 0.0], "mm/hr", title="GPM IMERG half-hourly")
    assert (opened(half).interval_end.values == hours("2020-09-01T00:30", 3)).all()
    month = imerg(np.array(["2020-02-01"], "M8[ns]"), [2.0], "mm/hr", GridHeader="BinMethod=X")
    found = opened(month, "3B-MO.MS.MRG.3IMERG.20200201-S000000-E235959.02.V07B.HDF5")
    assert (found.interval_end - found.interval_start).values[0] == np.timedelta64(29, "D")


def test_merra2s_days_and_months_are_no_hours():
    month = imerg(np.array(["2020-02-01T00:30"], "M8[ns]"), [2.0], "mm/hr", ShortName="M2TMNXFLX")
    for product in (None, "merra2"):
        found = opened(month, product=product)
        assert str(found.interval_start.values[0])[:10] == "2020-02-01"
        assert (found.interval_end - found.interval_start).values[0] == np.timedelta64(29, "D")
    day = imerg(np.array(["2020-02-03T12:00"], "M8[ns]"), [2.0], "mm/hr", ShortName="M2SDNXSLV")
    assert str(opened(day).interval_end.values[0])[:13] == "2020-02-04T00"


# ---------------------------------------------------------------- how a person gives it


def test_files_are_read_by_the_product_or_the_interval_that_a_recipe_names(tmp_path):
    times = hours("2020-09-01T06", 8, 6)
    path = save(raw(times, [2.0] * 8), tmp_path / "tp.nc")
    got = open_weather(path, ["tp"], product=PRODUCTS["era5"], to_units={"tp": "mm/h"})
    np.testing.assert_allclose(got.tp.values, 2.0, rtol=1e-5)
    with pytest.raises(InputError, match=r"tp\.nc: tp is an amount and nothing says which product"):
        open_weather(path, ["tp"], to_units={"tp": "mm/h"})
    given = RainData(target=RainTarget("tp", "end", 6.0)).product()
    got = open_weather(path, ["tp"], product=given, to_units={"tp": "mm/h"})
    np.testing.assert_allclose(got.tp.values, 2 / 6, rtol=1e-5)
    days = save(raw(hours("2020-09-01", 3, 24), [24.0] * 3), tmp_path / "days.nc")
    got = open_weather(days, product=RainData(target=RainTarget("tp", "end", 1.0)).product())
    np.testing.assert_allclose(in_unit(got.tp, "mm/h").values, 24.0, rtol=1e-5)
    with pytest.raises(InputError, match=r"data\.target\.hours -1: wanted"):
        RainTarget("tp", "end", -1.0)


def test_values_are_looked_at_only_where_words_leave_it_open(monkeypatch):
    monkeypatch.setattr(products, "_runs_on", lambda field: pytest.fail("looked at values"))
    times = hours("2020-09-01T01", 30)
    opened(raw(times, running(times)), "era5_land.nc")
    opened(imerg(times, running(times), "mm/hr", title="IMERG half hourly"))
    opened(raw(times, running(times), name="t2m", units="K", var={"GRIB_stepType": "instant"}), "era5.nc")


@needs_data
@pytest.mark.parametrize("product", [None, "era5"])
def test_real_era5_is_read_hour_by_hour(product):
    folder = DATA / "rain_era5_hourly"
    path = folder / "ERA5_2020-01-01_tp.nc"
    got = open_weather(path, ["tp"], product=product and PRODUCTS[product], to_units={"tp": "mm/h"})
    stored = xr.open_dataset(path, engine="h5netcdf")
    np.testing.assert_allclose(got.tp.values, stored.tp.values * 1000, atol=1e-6)
    weather = read_weather([folder / "ERA5_2020-01-01_sp.nc"], ["sp"])
    rain = read_rain([path], PRODUCTS["era5"], weather)
    assert (rain.end == weather.times).all() and rain.values.max() == pytest.approx(stored.tp.values.max() * 1000)
