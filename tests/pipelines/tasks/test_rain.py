"""Weather and rain by the hour: what may go in, what belongs together, and blocks that do not touch."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from models.errors import InputError
from models.spec import WEATHER
from models.training.settings import Augmentation
from pipelines.samples import weather as module
from pipelines.samples.sets import ItemSet
from pipelines.samples.weather import cell_notes, find_files, read_weather
from pipelines.tasks.rain import (
    LEAKS,
    Rain,
    RainData,
    RainSamples,
    RainTarget,
    baselines,
    check_inputs,
    load,
    read_rain,
)
from pipelines.weather.products import PRODUCTS
from tests.rain_files import LEARNED, VARIABLES, dataset, fields, make_day
from tests.specs import rain_spec

SHARED = Path(__file__).parents[4] / "shared" / "data"
NORTH, EAST = {"units": "degrees_north"}, {"units": "degrees_east"}
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real data is not at {SHARED}")


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    return make_day(tmp_path_factory.mktemp("day"))


def data_of(root, **changes):
    fields = {"inputs": ["*inst1*.nc4"], "target_files": ["*tavg1*.nc4"], "variables": list(VARIABLES), "gap": 1.0}
    return RainData(root, **fields | changes)


def samples_of(root, *, leads=(0.0,), times=1, step=0.0, window=(0.0, 1.0), **options):
    weather, rain = load(data_of(root))
    count = len(VARIABLES)
    cells = {"times": times, "step": step}
    zero, one = (0.0,) * count, (1.0,) * count
    spec = rain_spec(VARIABLES, weather.units, zero, one, cells=cells, leads=leads, window=window)
    return RainSamples(spec, weather, rain, **options)


def test_rain_is_that_of_the_hour_after_the_fields(day):
    samples, wanted = samples_of(day), fields()
    assert len(samples.samples) == 24
    for at in (0, 7, 23):
        sample = samples.samples[at]
        np.testing.assert_allclose(samples.truth(sample), wanted["rain"][at], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(samples.item(sample)[WEATHER][0, 0], wanted["TQV"][at], rtol=1e-6)
    assert (np.diff(samples.weather.lat) < 0).all()


def test_a_full_hours_mean_is_that_of_the_two_around_it(day):
    samples, wanted = samples_of(day, window=(-1.0, 1.0)), fields()["rain"]
    assert [s.at for s in samples.samples] == list(range(1, 24))
    np.testing.assert_allclose(samples.truth(samples.samples[4]), (wanted[4] + wanted[5]) / 2, rtol=1e-4, atol=1e-5)


def test_leads_and_earlier_times_look_where_they_say(day):
    samples, wanted = samples_of(day, leads=(0.0, 6.0), times=2, step=3.0), fields()
    late = [s for s in samples.samples if s.lead == 6.0]
    assert [s.at for s in late] == list(range(3, 18))
    item = samples.item(late[0])
    np.testing.assert_allclose(item[WEATHER][:, 2], wanted["U10M"][[0, 3]], rtol=1e-5)
    assert (item["input_time"], item["lead_time"]) == (3.0, 6.0)
    np.testing.assert_allclose(samples.truth(late[0]), wanted["rain"][9], rtol=1e-4, atol=1e-5)


def test_persistence_knows_nothing_after_the_input_time(day):
    samples, wanted = samples_of(day, leads=(0.0, 6.0)), fields()["rain"]
    now, ahead = (next(s for s in samples.samples if s.at == 10 and s.lead == lead) for lead in (0.0, 6.0))
    np.testing.assert_allclose(samples.persisted(now), wanted[7], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(samples.persisted(ahead), wanted[9], rtol=1e-4, atol=1e-5)
    assert np.isnan(samples.persisted(samples.samples[1])).all()
    np.testing.assert_allclose(samples.persisted(now, 1.0), wanted[9], rtol=1e-4, atol=1e-5)


def test_rain_persists_for_one_hour_and_for_three_where_these_differ(day):
    for leads, wanted in (((0.0,), ["persistence 1 h", "persistence 3 h"]), ((6.0,), ["persistence 3 h"])):
        samples = samples_of(day, leads=leads)
        told = baselines(samples, samples.samples[4:], 0)
        assert list(told) == ["zero", "climatology", *wanted, *LEARNED]
    samples = samples_of(day)
    made = baselines(samples, samples.samples[4:], 0)["persistence 1 h"](samples, samples.samples[10:11])
    np.testing.assert_allclose(made.mean[0], fields()["rain"][9], rtol=1e-4, atol=1e-5)


def test_spans_that_are_not_covered_are_not_known():
    hour = np.timedelta64(3600, "s")
    start = np.datetime64("2020-01-01T00:00:00") + np.arange(3) * hour
    rain = Rain(np.array([1.0, 2.0, np.nan], np.float32)[:, None, None], start, start + hour)
    half = np.timedelta64(1800, "s")
    first = start[[0, 0, 0, 1]] + np.array([0, 1, 0, 0]) * half
    last = first + np.array([2, 1, 3, 2]) * hour
    np.testing.assert_allclose(rain.over(first, last).ravel(), [1.5, 1.5, np.nan, np.nan])


def test_blocks_are_in_order_and_a_gap_lies_between_them(day):
    samples = samples_of(day, leads=(0.0, 3.0))
    samples.divide({"val": 0.2, "train": 0.5, "test": 0.3}, gap=2.0)
    ends = {}
    for name in ("val", "train", "test"):
        mine = samples.of(name)
        ends[name] = min(samples.time(s) for s in mine), max(samples.valid(s) for s in mine)
    hour = np.timedelta64(3600, "s")
    assert ends["val"][1] + hour + 2 * hour <= ends["train"][0]
    assert ends["train"][1] + hour + 2 * hour <= ends["test"][0]
    assert len(samples.of("val", "train", "test", "")) == len(samples.samples)


def test_a_day_too_short_for_its_blocks_is_refused(day):
    samples = samples_of(day)
    with pytest.raises(InputError, match="24 times are too few for blocks.*24 h between"):
        samples.divide({"train": 0.6, "val": 0.15, "test": 0.25}, gap=24.0)
    with pytest.raises(InputError, match="data.split"):
        samples.divide({"train": 0.6, "test": 0.4}, gap=0.0)


@pytest.mark.parametrize(
    ("size", "told"),
    [((0.5, 0.625), False), ((0.4, 0.5), False), ((0.25, 0.3125), True), ((0.5, 1.0), True), ((1.0, 0.625), True)],
)
def test_the_models_cells_are_compared_in_height_and_width(day, size, told):
    weather, spec = load(data_of(day))[0], samples_of(day).spec
    assert weather.size == pytest.approx((0.5, 0.625))
    assert bool(cell_notes(weather, spec.revised(size=size))) == told
    assert cell_notes(weather, spec) == []  # a run that does not know its cells


def test_means_are_those_of_the_training_block(day):
    samples, wanted = samples_of(day), fields()
    samples.divide({"train": 0.5, "val": 0.25, "test": 0.25}, gap=1.0)
    measured = samples.measured("train")
    spec, scale = measured.weather, measured.field.scale
    used = [s.at for s in samples.of("train")]
    assert spec.mean[0] == pytest.approx(wanted["TQV"][used].mean(), rel=1e-5)
    assert spec.std[3] == pytest.approx(wanted["V10M"][used].std(), rel=1e-4)
    assert scale == pytest.approx(wanted["rain"][used].std(), rel=1e-4)


def test_an_epochs_samples_are_a_function_of_seed_epoch_and_index(day):
    samples = samples_of(day)
    samples.augmentation = Augmentation(offset=0.3)
    items = ItemSet(samples, samples.samples[:5], seed=1, repeat=2)
    assert len(items) == 10
    np.testing.assert_array_equal(items[(2, 3)][WEATHER], items[(2, 3)][WEATHER])
    assert not np.array_equal(items[(2, 3)][WEATHER], items[(2, 8)][WEATHER])  # the same hour, once more
    np.testing.assert_array_equal(items[3][WEATHER], items[8][WEATHER])


@pytest.mark.parametrize(
    "name", ["PRECTOT", "prectot", "PRECCON", "PREVTOT", "FRCAN", "tp", "precipitation", "rainfall"]
)
def test_rain_and_its_parts_are_refused_by_name(name):
    with pytest.raises(InputError, match=f"variable {name}: "):
        check_inputs(["T2M", name], "PRECTOT")


def test_fields_that_sound_alike_are_no_leaks():
    check_inputs(["FRLAND", "FRACI", "PS", "TPV", "PRESSURE", "SFC"], "PRECTOT")
    assert all(pattern == pattern.lower() for pattern in LEAKS)


def test_what_is_not_there_is_said(day, tmp_path):
    files = find_files(day, ["*inst1*"])
    with pytest.raises(InputError, match="variable T3M is wanted.*did you mean T2M"):
        read_weather(files, ["T3M"])
    with pytest.raises(InputError, match="no file matches 'x"):
        find_files(day, ["x*"])
    for pattern in ("/data/*.nc", ""):
        with pytest.raises(
            InputError, match=f"'{re.escape(pattern)}': wanted a pattern below data.root .*--data.root DIR"
        ):
            find_files(day, [pattern])
    with pytest.raises(InputError, match="no such folder"):
        find_files(tmp_path / "none", ["*"])
    with pytest.raises(InputError, match="wanted one of merra2"):
        data_of(day, target="merra3").product()
    still = xr.open_dataset(files[0], engine=xr.backends.H5netcdfBackendEntrypoint).isel(time=0, drop=True)
    still.to_netcdf(tmp_path / "still.nc", engine="h5netcdf")
    with pytest.raises(InputError, match="a time axis is wanted"):
        read_weather([tmp_path / "still.nc"], ["T2M"])


def test_holes_are_refused(tmp_path):
    found = fields(3)
    found["T2M"][1, 2, 3] = np.nan
    times = np.datetime64("2020-01-01T00") + np.arange(3) * np.timedelta64(1, "h")
    dataset({"T2M": found["T2M"]}, times, shape=(9, 11)).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(InputError, match="T2M: 1 of 297 values are missing"):
        read_weather([tmp_path / "a.nc"], ["T2M"])


def test_fields_come_in_the_models_units(day):
    files = find_files(day, ["*inst1*"])
    celsius = read_weather(files, ["T2M"], units=["degC"])
    np.testing.assert_allclose(celsius.fields[:, 0], fields()["T2M"] - 273.15, atol=1e-3)


def test_all_fields_are_taken_where_none_is_named(day):
    assert read_weather(find_files(day, ["*inst1*"]), []).channels == VARIABLES


def test_a_finer_product_is_averaged_by_area(day, tmp_path):
    weather, coarse = load(data_of(day))
    lat = np.repeat(weather.lat, 2) + np.tile([0.125, -0.125], len(weather.lat))
    lon = np.repeat(weather.lon, 2) + np.tile([-0.15625, 0.15625], len(weather.lon))
    fine = np.repeat(np.repeat(coarse.values, 2, axis=1), 2, axis=2)
    times = weather.times.astype("datetime64[ns]")
    found = xr.Dataset(
        {"precipitation": (("time", "lat", "lon"), fine, {"units": "mm/hr"})},
        {
            "time": times,
            "lat": ("lat", lat, {"units": "degrees_north"}),
            "lon": ("lon", lon, {"units": "degrees_east"}),
        },
    )
    found.to_netcdf(tmp_path / "imerg.nc", engine="h5netcdf")
    product = dataclasses.replace(PRODUCTS["imerg"], hours=1.0)
    rain = read_rain([tmp_path / "imerg.nc"], product, weather)
    np.testing.assert_allclose(rain.values, coarse.values, rtol=1e-3, atol=1e-4)
    assert (rain.start == weather.times).all()  # IMERG's times are the start of its intervals


def test_amounts_become_rates_by_their_product(day, tmp_path):
    weather, coarse = load(data_of(day))
    amounts = xr.Dataset(
        {"tp": (("time", "lat", "lon"), coarse.values / 1000, {"units": "m"})},
        {
            "time": (weather.times + np.timedelta64(1, "h")).astype("datetime64[ns]"),
            "lat": weather.lat,
            "lon": weather.lon,
        },
    )
    amounts["lat"].attrs["units"], amounts["lon"].attrs["units"] = "degrees_north", "degrees_east"
    amounts.to_netcdf(tmp_path / "era5.nc", engine="h5netcdf")
    rain = read_rain([tmp_path / "era5.nc"], PRODUCTS["era5"], weather)
    np.testing.assert_allclose(rain.values, coarse.values, rtol=1e-4, atol=1e-5)
    assert (rain.start == weather.times).all()


@needs_data
def test_merra2s_hours_and_prithvis_agree():
    """The extracted files of Prithvi WxC hold at full hours the mean of the two hourly means around."""
    hourly = RainData(SHARED / "merra2_hourly", inputs=["*inst1*"], variables=["T2M"], target_files=["*flx*"])
    weather, rain = load(hourly)
    files = find_files(SHARED / "merra2_wxc", ["MERRA2_sfc*", "MERRA_pres*"])
    three = read_weather(files, ["T2M", "U_72", "QV_34"])
    assert three.fields.shape == (8, 3, 31, 49)
    theirs = read_rain(files[:1], PRODUCTS["merra2_wxc"], three)
    hour = np.timedelta64(3600, "s")
    ours = rain.over(three.times[1:] - hour, three.times[1:] + hour)
    same = theirs.over(three.times[1:] - hour, three.times[1:] + hour)
    np.testing.assert_allclose(ours, same, atol=0.02)
    np.testing.assert_allclose(weather.fields[::3, 0], three.fields[:, 0], atol=1e-3)


def days(count=40, *, members=0, start="2001-01-01"):
    """Daily means of one field, and sums of rain in metres whose name and attributes no product has."""
    rng = np.random.default_rng(0)
    times = np.datetime64(start, "ns") + np.arange(count) * np.timedelta64(1, "D")
    lat, lon = 45 - 2.5 * np.arange(4), -10 + 2.5 * np.arange(5)
    dims = ("time", *(["number"] if members else []), "lat", "lon")
    shape = (count, *([members] if members else []), 4, 5)
    rain = rng.gamma(0.5, 4, shape)
    maps = {"T2M": (dims, rng.normal(285, 5, shape), {"units": "K"}), "TP": (dims, rain / 1000, {"units": "m"})}
    axes = {"time": times, "lat": ("lat", lat, NORTH), "lon": ("lon", lon, EAST)}
    axes |= {"number": np.arange(members)} if members else {}
    return xr.Dataset(maps, axes), rain


def daily(root, **changes):
    asked = {"inputs": ["*.nc"], "variables": ["T2M"], "target": RainTarget("TP", "start", 24.0, "m"), "unit": "mm/day"}
    return RainData(root, **asked | {"window": (0.0, 24.0)} | changes)


def test_daily_rain_of_any_product_in_its_own_words(tmp_path):
    data, wanted = days()
    data.to_netcdf(tmp_path / "ncep.nc", engine="h5netcdf")
    weather, rain = load(daily(tmp_path))
    assert rain.unit == "mm/day" and len(weather.times) == 40
    first = weather.times[:2]
    told = rain.over(first, first + np.timedelta64(24, "h"))
    np.testing.assert_allclose(told, wanted[:2], rtol=1e-5)
    half = rain.over(first[:1] + np.timedelta64(12, "h"), first[:1] + np.timedelta64(36, "h"))
    np.testing.assert_allclose(half[0], wanted[:2].mean(axis=0), rtol=1e-5)  # of days that meet at midnight
    with pytest.raises(InputError, match="variable TP: is the target"):
        load(daily(tmp_path, variables=["T2M", "TP"]))
    with pytest.raises(InputError, match=r"data\.target 'ncep': wanted one of .*\{variable: NAME"):
        load(daily(tmp_path, target="ncep"))


def test_an_ensemble_is_read_as_its_mean(tmp_path):
    data, wanted = days(members=3)
    data.to_netcdf(tmp_path / "members.nc", engine="h5netcdf")
    weather, rain = load(daily(tmp_path))
    np.testing.assert_allclose(weather.fields[:, 0], data.T2M.mean("number").values, rtol=1e-6)
    np.testing.assert_allclose(rain.values, wanted.mean(axis=1), rtol=1e-5)


@pytest.mark.parametrize("held", [0, 1 << 30])
def test_fields_are_the_same_wherever_they_are_held_and_however_they_are_read(day, monkeypatch, held):
    monkeypatch.setattr(module, "HELD", held)
    monkeypatch.setattr(module, "PART", 5 * 4 * 9 * 11)  # five hours at once
    samples, wanted = samples_of(day), fields()
    assert isinstance(samples.weather.fields, np.memmap) is (held == 0)
    for i, name in enumerate(VARIABLES):
        np.testing.assert_allclose(samples.weather.fields[:, i], wanted[name], rtol=1e-6)
    spec = samples.measured("")
    np.testing.assert_allclose(spec.weather.mean, [wanted[n].mean() for n in VARIABLES], rtol=1e-5)
    np.testing.assert_allclose(spec.weather.std, [wanted[n].std() for n in VARIABLES], rtol=1e-4)
