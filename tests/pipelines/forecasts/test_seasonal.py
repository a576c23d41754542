"""Files of many years in, chances of terciles out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from PIL import Image

from models.baselines.seasons import Years, predict
from models.errors import InputError
from pipelines.cli.main import main
from pipelines.forecasts.months import Months, Season
from pipelines.forecasts.seasonal import seasonal

LAT, LON = np.arange(56.0, 40, -2), np.arange(-10.0, 14, 2)  # 8 x 12
ERA5 = Path(__file__).parents[4] / "shared" / "data" / "weather" / "era5-2mt-2019-03-uk.grib"


def world(path, *, first=1990, last=2020, signal=1.5, seed=0, freq="MS", end="10-31", dry=True, units="mm/day"):
    """Rain that October's sea tells for the winter, to `end` of the last year; one corner is dry, one without data."""
    rng = np.random.default_rng(seed)
    time = np.arange(f"{first}-01", f"{last}-{end[:2]}", dtype="datetime64[M]")
    time = np.append(time, np.datetime64(f"{last}-{end[:2]}"))
    month = time.astype(int) % 12 + 1
    winter = time.astype(int) // 12 + 1970 + (month == 12)  # DJF by the year of its last month
    mode = rng.normal(size=last - first + 3)
    sea, rain = rng.normal(size=(2, len(time), 8, 12))
    pattern = rng.normal(size=(8, 12))
    october = month == 10
    sea[october] += 3 * mode[time[october].astype(int) // 12 + 1970 - first][:, None, None] * rng.normal(size=(8, 12))
    cold = np.isin(month, (12, 1, 2))
    rain[cold] += signal * mode[winter[cold] - 1 - first][:, None, None] * pattern
    rain += 20 + 0.02 * np.arange(len(time))[:, None, None] / 12
    if dry:
        rain[:, 0, 0], rain[:, -1, -1] = 0, np.nan
    coords = {
        "time": time.astype("datetime64[ns]"),
        "lat": ("lat", LAT, {"units": "degrees_north"}),
        "lon": ("lon", LON, {"units": "degrees_east"}),
    }
    dims = ("time", "lat", "lon")
    data = xr.Dataset({"pr": (dims, rain, {"units": units}), "sst": (dims, sea, {"units": "K"})}, coords)
    if freq != "MS":
        days = np.arange(f"{first}-01-01", f"{last}-{end}", dtype="datetime64[D]").astype("datetime64[ns]")
        data = data.reindex(time=days, method="ffill")
    data.astype("float32").to_netcdf(path, engine="h5netcdf")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seasonal")
    path = world(folder / "monthly.nc")
    return path, folder / "out", seasonal([path], target="pr", season="DJF", out=folder / "out")


# ---------------------------------------------------------------- seasons and months


@pytest.mark.parametrize(
    ("name", "lead", "months", "known"),
    [
        ("DJF", 0, ["2020-12", "2021-01", "2021-02"], "November 2020"),
        ("DJF", 1, ["2020-12", "2021-01", "2021-02"], "October 2020"),
        ("jjas", 2, ["2021-06", "2021-07", "2021-08", "2021-09"], "March 2021"),
        ("ND", 1, ["2021-11", "2021-12"], "September 2021"),
        ("JFM", 0, ["2021-01", "2021-02", "2021-03"], "December 2020"),
    ],
)
def test_a_season_has_its_months_and_the_month_that_is_known(name, lead, months, known):
    season = Season.of(name, lead)
    assert [f"{m // 12}-{m % 12 + 1:02}" for m in season.months(2021)] == months
    assert season.known_month(2021) == known


@pytest.mark.parametrize(("name", "lead"), [("D", 0), ("DJ F", 0), ("DFJ", 0), ("", 0), ("DJF", -1), ("DJF", 12)])
def test_what_is_no_season_is_refused(name, lead):
    with pytest.raises(InputError, match="wanted"):
        Season.of(name, lead)


def test_means_over_months_count_days_and_want_whole_months():
    days = np.arange("2020-12-01", "2021-03-10", dtype="datetime64[D]").astype("datetime64[ns]")
    rng = np.random.default_rng(0)
    field = xr.DataArray(rng.normal(size=(len(days), 2, 2)), {"time": days}, ("time", "lat", "lon"), name="t")
    months = Months.of(field, name="t.nc")
    assert set(months.at) == set(Season.of("DJF", 0).months(2021))
    winter = field.sel(time=slice("2020-12-01", "2021-02-28")).mean("time")
    np.testing.assert_allclose(months.mean(months.at), winter.values)
    by_month = field.resample(time="MS").mean().isel(time=slice(0, 3))
    np.testing.assert_allclose(Months.of(by_month, name="m.nc").mean(months.at), winter.values)


def test_means_of_fields_with_further_dimensions():
    days = np.arange("2020-01-01", "2020-03-01", dtype="datetime64[D]").astype("datetime64[ns]")
    values = np.random.default_rng(0).normal(size=(5, len(days), 2, 3)).astype(np.float32)
    field = xr.DataArray(values, {"time": days}, ("number", "time", "lat", "lon"), name="sst")
    got = Months.of(field, name="m.nc").mean([2020 * 12])
    np.testing.assert_allclose(got, values[:, :31].mean(axis=1), atol=1e-6)


def test_months_stamped_at_their_end_are_sorted_by_the_middle_of_their_interval():
    ends = np.array(["2020-02-01", "2020-03-01", "2020-04-01"], "datetime64[ns]")
    starts = np.array(["2020-01-01", "2020-02-01", "2020-03-01"], "datetime64[ns]")
    coords = {"time": ends, "interval_start": ("time", starts), "interval_end": ("time", ends)}
    field = xr.DataArray(np.zeros((3, 1, 1)), coords, ("time", "lat", "lon"), name="tp")
    assert set(Months.of(field, name="x").at) == {2020 * 12, 2020 * 12 + 1, 2020 * 12 + 2}


# ---------------------------------------------------------------- the command


def test_a_planted_teleconnection_shows(made):
    _, _, result = made
    assert result["year"] == 2021 and not result["hindcast"] and result["known_month"] == "October 2020"
    assert result["years"] == list(range(1991, 2021))
    assert result["skill"]["ridge"]["rpss"]["low"] > 0.1 and "better than climatology" in result["headline"]
    assert result["skill"]["persistence"]["rpss"]["low"] <= 0


def test_the_map_holds_the_chances_that_xarray_and_the_model_give(made):
    path, out, _ = made
    with xr.open_dataset(path, engine="h5netcdf") as data:
        data = data.load()
    winter = data.pr.resample(time="QS-DEC").mean()
    seasons = winter[(winter.time.dt.month == 12) & (winter.time.dt.year >= 1990) & (winter.time.dt.year <= 2019)]
    weights = data.time.dt.days_in_month
    total = (data.pr * weights).resample(time="QS-DEC").sum(min_count=3) / weights.resample(time="QS-DEC").sum()
    october = data.sel(time=data.time.dt.month == 10)
    valid = np.ones((8, 12), bool)
    valid[0, 0] = valid[-1, -1] = False
    area = np.cos(np.radians(LAT))[:, None] * np.ones(12)
    target = total.sel(time=seasons.time).values[:, valid]
    before = october.pr.values[:, valid]
    there = np.isfinite(october.pr.values).all(axis=0)
    fields = np.column_stack([october.pr.values[:, there], october.sst.values.reshape(31, -1)])
    parts = [np.sqrt(area[there]), np.sqrt(area.ravel())]
    columns = np.concatenate([part / np.sqrt((part**2).sum()) for part in parts])
    known = Years(np.arange(1991, 2021), target, before[:-1], fields[:-1], area[valid], columns)
    wanted = predict(known, 2021, before[-1], fields[-1]).chances("ridge")
    with rasterio.open(out / "probabilities.tif") as map_:
        got, tags = map_.read(), map_.tags()
        assert map_.descriptions == ("below normal", "near normal", "above normal") and map_.crs.to_epsg() == 4326
        assert map_.bounds == (-11, 41, 13, 57)
    np.testing.assert_allclose(got[:, valid], wanted, atol=1e-6)
    assert np.isnan(got[:, ~valid]).all()
    assert (tags["season"], tags["known"]) == ("DJF 2021", "October 2020") and "RPSS" in tags["skill"]


def test_the_netcdf_holds_all_methods_and_the_boundaries(made):
    _, out, result = made
    with xr.open_dataset(out / "outlook.nc", engine="h5netcdf") as data:
        data = data.load()
    assert data.probability.dims == ("model", "tercile", "lat", "lon") and data.Conventions.startswith("CF-")
    assert not any("_FillValue" in data[key].encoding for key in ("lat", "lon"))  # CF 1.11, section 2.5.1
    inside = data.probability.isel(lat=3, lon=4)
    np.testing.assert_allclose(inside.sum("tercile"), 1, rtol=1e-6)
    np.testing.assert_allclose(inside.sel(model="climatology"), 1 / 3, rtol=1e-6)
    assert (data.boundaries.sel(boundary="lower") <= data.boundaries.sel(boundary="upper")).sum() == 94
    assert data.normal.attrs["units"] == "mm/day" and float(data.rpss.sel(model="ridge").mean()) > 0.1
    assert json.loads((out / "skill.json").read_text()) == result


def test_the_picture_has_the_colours_of_its_legend(made):
    _, out, _ = made
    pixels = np.asarray(Image.open(out / "most_likely.png").convert("RGB")).reshape(-1, 3)
    seen = {tuple(int(v) for v in colour) for colour in np.unique(pixels, axis=0)}
    assert {(0, 114, 178), (230, 159, 0), (127, 127, 127), (236, 236, 236), (255, 255, 255)} <= seen


def test_a_hindcast_does_not_know_its_season(tmp_path):
    path = world(tmp_path / "a.nc", last=2018)
    with xr.open_dataset(path, engine="h5netcdf") as opened:
        data = opened.load()
    changed = data.copy(deep=True)
    changed.pr.loc[{"time": slice("2009-12-01", "2010-02-28")}] *= 3.0
    changed.to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    maps, skills, said = [], [], []
    for name in ("a", "b"):
        options = {"target": "pr", "season": "DJF", "year": 2010, "out": tmp_path / name, "say": said.append}
        result = seasonal([tmp_path / f"{name}.nc"], **options)
        assert 2010 not in result["years"] and result["known_month"] == "October 2009"
        with rasterio.open(result["map"]) as map_:
            maps.append(map_.read())
        skills.append(result["skill"])
    np.testing.assert_array_equal(*maps)
    assert skills[0] == skills[1] and result["hindcast"] and "DJF 2010 is there already" in said[0]


def test_few_years_have_chances_but_no_skill(tmp_path):
    said = []
    path = world(tmp_path / "a.nc", first=2006)
    result = seasonal([path], target="pr", season="DJF", out=tmp_path / "o", say=said.append)
    assert result["skill"] == {"persistence": None, "ridge": None}
    assert said == ["skill: not told: 14 years, 20 wanted"]
    with rasterio.open(result["map"]) as map_:
        assert np.nansum(map_.read(), axis=0).max() == pytest.approx(1)
        assert map_.tags()["skill"] == said[0]
    text = (tmp_path / "o" / "skill.json").read_text()
    assert "rpss" not in text and "better" not in text


def test_a_predictor_of_one_cell_counts(tmp_path):
    """Such as an index of the sea's temperature, which lies nowhere in particular."""
    path = world(tmp_path / "a.nc")
    data = xr.load_dataset(path, engine="h5netcdf")
    winter = data.pr.isel(lat=[3], lon=[4]).shift(time=-2).rename("index")  # October knows December
    winter.fillna(20.0).to_netcdf(tmp_path / "index.nc", engine="h5netcdf")
    result = seasonal([path], target="pr", season="DJF", out=tmp_path / "o", predictors=[tmp_path / "index.nc"])
    assert result["skill"]["ridge"]["rpss"]["low"] > 0.05


def test_noise_is_said_to_be_no_better_than_climatology(tmp_path):
    path = world(tmp_path / "a.nc", signal=0.0, seed=4)
    result = seasonal([path], target="pr", season="DJF", out=tmp_path / "o")
    assert result["skill"]["ridge"]["rpss"]["low"] <= 0 and "no better than climatology" in result["headline"]


def test_daily_fields_other_predictors_and_a_region(tmp_path):
    daily = world(tmp_path / "daily.nc", first=2004, freq="D", dry=False)
    sea = world(tmp_path / "sea.nc", first=2000, seed=1)
    result = seasonal(
        [daily], target="pr", season="DJF", out=tmp_path / "o", predictors=[sea], region=[-4, 44, 6, 52], method="ridge"
    )
    with rasterio.open(result["map"]) as map_:
        assert map_.shape == (5, 6) and np.isfinite(map_.read()).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target": "rain"}, "rain is wanted.*it has pr, sst"),
        ({"target": "ssst"}, r"did you mean sst\?"),
        ({"season": "XYZ"}, "season 'XYZ'"),
        ({"lead": 13}, "lead 13"),
        ({"method": "oracle"}, "method 'oracle': wanted one of climatology, persistence, ridge"),
        ({"year": 2040}, "DJF 2040 is told from October 2039, which is not there"),
        ({"region": [1.0]}, "region"),
        ({"region": [100, 0, 120, 10]}, "lies in 100E..120E, 0..10N, it covers"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(changes, words, made, tmp_path):
    arguments = {"target": "pr", "season": "DJF"} | changes
    with pytest.raises(InputError, match=words) as error:
        seasonal([made[0]], out=tmp_path / "o", **arguments)
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "month", "words"),
    [
        ("pr", "2000-12", r"changed\.nc: pr has no data at all in DJF 2001 \(1 such\)"),
        ("pr", "2020-10", r"changed\.nc: pr has no data at all in October 2020"),
        ("sst", "2000-10", r"changed\.nc: sst has no data at all in October 2000"),  # else ridge would do without it
        ("pr", "", "pr has no cell with a value in all of 29 years that also varies about its trend"),
    ],
)
def test_months_without_data_and_seasons_on_a_line_are_told(name, month, words, made, tmp_path):
    data = xr.load_dataset(made[0], engine="h5netcdf")
    line = 280 + 0.01 * data.time.dt.year + 0 * data[name]  # but for the rounding of 32 bits
    changed = data[name].where(data.time.dt.strftime("%Y-%m") != month) if month else line.astype("float32")
    data.assign({name: changed}).to_netcdf(tmp_path / "changed.nc", engine="h5netcdf")
    with pytest.raises(InputError, match=words):
        seasonal([tmp_path / "changed.nc"], target="pr", season="JFM" if not month else "DJF", out=tmp_path / "o")


def test_too_few_years_and_too_long_steps_are_refused(tmp_path):
    short = world(tmp_path / "short.nc", first=2014)
    with pytest.raises(InputError, match="6 years have a whole DJF"):
        seasonal([short], target="pr", season="DJF", out=tmp_path / "o")
    with xr.open_dataset(short, engine="h5netcdf") as data:
        data.isel(time=slice(0, None, 12)).to_netcdf(tmp_path / "yearly.nc", engine="h5netcdf")
    with pytest.raises(InputError, match="steps of 36[56] days"):
        seasonal([tmp_path / "yearly.nc"], target="pr", season="DJF", out=tmp_path / "o")


def test_the_command_prints_the_skill_and_json(made, tmp_path, capsys):
    words = ["seasonal", str(made[0]), "--target", "pr", "--season", "DJF", "--lead", "1", "--out", str(tmp_path / "o")]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "RPSS" in out and "most_likely.png" in out and err.startswith("energy: ")
    assert main([*words, "--json", "--overwrite"]) == 0
    assert json.loads(capsys.readouterr().out)["skill"]["ridge"]["rpss"]["value"] > 0
    assert main(words) == 2 and capsys.readouterr().err.startswith("earthtune: ")


@pytest.mark.skipif(not ERA5.exists(), reason=f"the real data is not at {ERA5}")
def test_a_month_of_real_data_is_refused_for_what_it_is(tmp_path):
    with pytest.raises(InputError, match="t2m|variable|years"):
        seasonal([ERA5], target="t2m", season="MAM", lead=0, out=tmp_path / "o")


def test_months_of_running_totals_are_means_of_what_fell():
    """1 mm/h throughout as ERA5-Land has it: the mean of its totals would be 12.5 mm."""
    times = np.datetime64("2020-02-01T01", "ns") + np.arange(29 * 24) * np.timedelta64(1, "h")
    begins = (times - np.timedelta64(1, "s")).astype("datetime64[D]").astype("datetime64[ns]")
    totals = ((times - begins) / np.timedelta64(1, "h"))[:, None, None] * np.ones((1, 2, 2))
    coords = {"time": times, "interval_start": ("time", begins), "interval_end": ("time", times), "lat": [1.0, 0.0]}
    field = xr.DataArray(totals, {**coords, "lon": [0.0, 1.0]}, ("time", "lat", "lon"), name="tp")
    np.testing.assert_allclose(Months.of(field, name="tp").mean([2020 * 12 + 1]), 1.0)
