"""Series before places and times: numbers worked by hand, xarray's interpolation, and nothing of the future."""

import numpy as np
import pyproj
import pytest
import rasterio.warp
import xarray as xr

from models.errors import InputError
from pipelines.recipes.fused import Before
from pipelines.weather import lazy
from pipelines.weather.series import open_series
from tests.weather_files import field, save

DAY = np.timedelta64(1, "D")
NOON = np.datetime64("2020-01-05T12:00")


def hold(values, *, first="2020-01-01", hours=24, lat=(5.0, -5.0), lon=(0.0, 10.0), name="t2m", units="K", **attrs):
    """A file's dataset of values (times, lat, lon), or (times,) that are the same everywhere."""
    values = np.asarray(values, np.float32)
    values = np.broadcast_to(
        values.reshape(len(values), *(values.shape[1:] or (1, 1))), (len(values), len(lat), len(lon))
    )
    time = np.datetime64(first, "ns") + np.arange(len(values)) * np.timedelta64(hours * 3600, "s")
    axes = {"lat": ("lat", np.array(lat), {"units": "degrees_north"}), "time": time}
    axes["lon"] = ("lon", np.array(lon), {"units": "degrees_east"})
    return xr.Dataset({name: (("time", "lat", "lon"), values.copy(), {"units": units, **attrs})}, axes)


def bounded(data, starts, ends):
    """A dataset with bounds of its times."""
    data = data.assign_coords(time=data["time"].assign_attrs(bounds="time_bnds"))
    data["time"].encoding["units"] = "hours since 2019-01-01"
    return data.assign(time_bnds=(("time", "nv"), np.stack([starts, ends], axis=-1)))


def series(tmp_path, *datasets, **settings):
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    folder.mkdir()
    names = [str(save(data, folder / f"{at}.nc")) for at, data in enumerate(datasets)]
    return open_series(Before(files=tuple(names), **settings), root=tmp_path)


CELLS = np.array([[[1.0, 2.0], [3.0, 4.0]]])  # one time


@pytest.mark.parametrize(
    ("join", "place", "want"),
    [
        ("cell", (4, 1), 1),
        ("cell", (-4, 6), 4),
        ("cell", (9.9, 361), 1),  # both conventions of longitudes
        ("cell", (4, -359), 1),
        ("bilinear", (5, 0), 1),
        ("bilinear", (5, 2.5), 1.25),
        ("bilinear", (0, 5), 2.5),
        ("bilinear", (9.9, -4.9), 1),  # beyond the outermost centres the nearest
        ("bilinear", (-10, 15), 4),
    ],
)
def test_what_a_place_sees(tmp_path, join, place, want):
    opened = series(tmp_path, hold(CELLS, cell_methods="time: point"), days_before=1, join=join)
    values, valid = opened.at([place[0]], [place[1]], [np.datetime64("2020-01-01")])
    assert valid.all() and values.dtype == np.float32
    assert values.ravel() == pytest.approx([want])


@pytest.mark.parametrize(
    ("box", "want"),
    [
        ((0, 0, 5, 5), 1),  # inside of one cell
        ((0, 0, 10, 5), 1.5),
        ((2.5, -5, 7.5, 5), 2.5),
        ((360, 0, 370, 5), 1.5),
        ((-16, 0, 5, 5), None),  # more than half of it lies outside
        ((-10, 0, 5, 5), 1),  # two thirds inside
        ((3, -90, 3.1, 90), None),
    ],
)
def test_what_an_area_sees(tmp_path, box, want):
    opened = series(tmp_path, hold(CELLS, cell_methods="time: point"), days_before=1, join="area")
    values, valid = opened.at([0], [0], [np.datetime64("2020-01-01")], bounds=[box])
    assert valid.all() == (want is not None)
    assert values.ravel() == pytest.approx([want or 0])


def test_an_areas_rows_weigh_by_the_sphere(tmp_path):
    opened = series(
        tmp_path, hold(CELLS, lat=(75, 45), lon=(0, 30), cell_methods="time: point"), days_before=1, join="area"
    )
    values, _ = opened.at([60], [0], [np.datetime64("2020-01-01")], bounds=[(0, 30, 10, 90)])
    upper, lower = 1 - np.sin(np.pi / 3), np.sin(np.pi / 3) - 0.5
    assert values.ravel() == pytest.approx([(upper + 3 * lower) / (upper + lower)])


@pytest.mark.parametrize("lon0", [0, -180, 60])
def test_the_antimeridian_is_no_edge_and_poles_reach_to_their_cells_ends(tmp_path, lon0):
    lon = lon0 + np.arange(0, 360, 10.0)
    east = (lon + 180) % 360 - 180  # values are longitudes in -180..180
    values = np.broadcast_to(np.abs(east), (1, 2, 36))
    data = hold(values, lat=(85.0, 75.0), lon=lon, cell_methods="time: point")
    places = [80, 90, 80, 80], [179, -177.5, 182.5, 0.0]
    times = [np.datetime64("2020-01-01")] * 4
    values, valid = series(tmp_path, data, days_before=1).at(*places, times)
    # Centres are at 170 and 180, and at -170.
    assert valid.all() and values.ravel() == pytest.approx([179, 177.5, 177.5, 0])
    boxes = [(175, 75, -175, 80), (165, 75, -165, 80), (0, 70, 360, 90), (-5, 75, 5, 80)]
    values, valid = series(tmp_path, data, days_before=1, join="area").at(
        *places, [np.datetime64("2020-01-01")] * 4, bounds=boxes
    )
    # Of the second a third each lies in the cells of 170, 180 and -170.
    assert valid.all() and values.ravel() == pytest.approx([180, 520 / 3, 90, 0])


def test_many_places_are_as_xarray_interpolates_and_averages_them(tmp_path):
    data = field(step=2.5, times=240, lon0=-178.75).isel(longitude=slice(10, 120))  # 6-hourly, a region
    rng = np.random.default_rng(1)
    lat, lon = rng.uniform(-88, 88, 40), rng.uniform(-150, 115, 40)
    times = np.datetime64("2020-02-01") + rng.integers(0, 24 * 25, 40) * np.timedelta64(1, "h")
    opened = series(tmp_path, data, days_before=6, step=12)
    values, valid = opened.at(lat, lon, times)
    assert valid.all() and opened.channels == ("t2m",) and opened.units == ("K",) and opened.steps == 12
    points = data.t2m.interp(latitude=xr.DataArray(lat, dims="n"), longitude=xr.DataArray(lon, dims="n"))
    for at, time in enumerate(times):
        past = points[:, at].sel(time=slice(time - 6 * DAY + np.timedelta64(1, "s"), time)).values
        np.testing.assert_allclose(values[at, :, 0], past.reshape(12, 2).mean(axis=1), rtol=1e-5)


def poisoned(data, ends, time):
    """The same file with a future that nothing sound comes out of."""
    late = np.flatnonzero(np.asarray(ends) > time)
    data = data.copy(deep=True)
    data["t2m"][late[::2]], data["t2m"][late[1::2]] = 1e30, np.nan
    return data


@pytest.mark.parametrize("kind", ["instants", "means of hours", "bounds of days", "days without a word", "months"])
@pytest.mark.parametrize("time", [NOON, np.datetime64("2020-01-05"), np.datetime64("2020-01-05T00:30")])
def test_nothing_of_the_future_is_seen(tmp_path, kind, time):
    hours = {"instants": 1, "means of hours": 1}.get(kind, 24)
    data = hold(280 + np.arange(10 * 24 / hours), first="2019-12-30", hours=hours)
    stamps = data.time.values
    ends = stamps + np.timedelta64(0 if kind == "instants" else hours, "h")
    if kind == "means of hours":
        data.t2m.attrs["cell_methods"] = "time: mean"  # and no word where in its hour a time lies
    if kind == "bounds of days":
        data = bounded(data, stamps, ends)
    if kind == "months":
        data = data.assign_coords(time=np.arange("2019-06", "2020-04", dtype="datetime64[M]").astype("datetime64[ns]"))
        ends = data.time.values.astype("datetime64[M]") + 1
    settings = {"days_before": 124, "step": 744} if kind == "months" else {"days_before": 4}
    clean, valid = series(tmp_path, data, **settings).at([0, 0], [0, 0], [time, time - 31 * DAY])
    spoiled, seen = series(tmp_path, poisoned(data, ends, time), **settings).at([0, 0], [0, 0], [time, time - 31 * DAY])
    np.testing.assert_array_equal(spoiled, clean)
    np.testing.assert_array_equal(seen, valid)
    assert valid[0].all()


def test_windows_end_at_the_sample_and_hold_what_ends_in_them(tmp_path):
    hourly = hold(np.arange(97.0), first="2020-01-01", hours=1)  # value n at hour n
    values, _ = series(tmp_path, hourly, days_before=2, step=6).at([0], [0], [NOON - DAY])
    # (t - 6 h, t] of hour 84 is 79..84.
    np.testing.assert_allclose(values[0, :, 0], 81.5 - 6 * np.arange(7, -1, -1))


def test_the_mean_of_a_day_belongs_to_that_day(tmp_path):
    daily = hold([10, 20, 30, 40, 50])  # stamped at their starts, from 1 January on
    opened = series(tmp_path, bounded(daily, daily.time.values, daily.time.values + DAY), days_before=3)
    values, valid = opened.at([0] * 3, [0] * 3, [np.datetime64("2020-01-04"), NOON, np.datetime64("2020-01-02T01:00")])
    assert values[0, :, 0].tolist() == [10, 20, 30]
    assert values[1, :, 0].tolist() == [20, 30, 40]  # the day that is not over is not known
    assert values[2, :, 0].tolist() == [0, 0, 10] and valid[2, :, 0].tolist() == [False, False, True]
    assert opened.notes == []
    untold = series(tmp_path, daily, days_before=3)
    np.testing.assert_array_equal(untold.at([0], [0], [NOON])[0], values[1:2])
    assert untold.notes == ["0.nc: where nothing tells what a time stands for, its values count 24 h later"]
    instants = series(tmp_path, hold([10, 20, 30, 40, 50], cell_methods="time: point"), days_before=3)
    assert instants.at([0], [0], [NOON])[0][0, :, 0].tolist() == [30, 40, 50]


def test_totals_since_midnight_become_rates_of_their_hours(tmp_path):
    amounts = 1e-3 * np.array([1, 2, 3, 4] * 12)  # metres in each hour
    totals = np.concatenate([amounts[:24].cumsum(), amounts[24:].cumsum()])
    data = hold(totals, first="2020-01-01T01:00", hours=1, name="tp", units="m", long_name="Total precipitation")
    data.attrs = {"institution": "ECMWF", "title": "ERA5-Land"}
    opened = series(tmp_path, data, days_before=1, step=2)
    values, valid = opened.at([0], [0], [np.datetime64("2020-01-03")])
    assert opened.units == ("mm/h",) and valid.all()
    np.testing.assert_allclose(values[0, :, 0], [1.5, 3.5] * 6, rtol=1e-4)


def test_an_amount_of_no_known_interval_is_asked_about(tmp_path):
    data = hold([0.024, 0.048, 0.0], name="tp", units="m", long_name="Total precipitation")
    data.attrs = {"institution": "ECMWF"}
    with pytest.raises(InputError, match=r"tp is an amount and .* say data\.weather\.stamp"):
        series(tmp_path, data, days_before=2)
    told = series(tmp_path, data, days_before=2, stamp="start", hours=24)
    assert told.at([0], [0], [np.datetime64("2020-01-03")])[0][0, :, 0] == pytest.approx([1, 2])


def test_gaps_are_not_valid_and_zero(tmp_path):
    values = np.full((5, 2, 2), 7.0)
    values[1, 0, 0], values[2, 0], values[3] = np.nan, np.nan, np.inf
    data = hold(values, cell_methods="time: point").isel(time=[0, 1, 2, 3])
    opened = series(tmp_path, data, days_before=6)
    found, valid = opened.at([4.9, 4.9, 50], [0.1, 9.9, 0.1], [NOON] * 3)
    # One of four cells is no loss of a mean; most of it is.
    assert valid[..., 0].tolist() == [
        [False, True, False, False, False, False],
        [False, True, True, *[False] * 3],
        [False] * 6,
    ]
    np.testing.assert_array_equal(found, np.where(valid, 7, 0))
    assert opened.notes == ["1 of 3 samples lie outside of 0.nc (0..10E, 5S..5N), they have no weather of it"]
    opened.at([50], [0], [NOON - 100 * DAY])
    assert len(opened.notes) == 2


def test_values_weigh_as_long_as_they_stand_for(tmp_path):
    data = hold([1, 4, 100])
    starts = np.datetime64("2020-01-01", "ns") + np.array([0, 18, 24]) * np.timedelta64(1, "h")
    ends = np.append(starts[1:], starts[-1:] + DAY)
    opened = series(tmp_path, bounded(data.assign_coords(time=starts), starts, ends), days_before=1)
    assert opened.at([0], [0], [np.datetime64("2020-01-02")])[0].item() == pytest.approx((18 * 1 + 6 * 4) / 24)


def test_instants_beside_means_count_at_their_times(tmp_path):
    data = hold([10, 20, 30])
    data["gust"] = data.t2m.assign_attrs(cell_methods="time: point")
    opened = series(tmp_path, bounded(data, data.time.values, data.time.values + DAY), days_before=1)
    values, _ = opened.at([0], [0], [np.datetime64("2020-01-02")])
    assert opened.channels == ("t2m", "gust") and values.ravel().tolist() == [10, 20]


def test_bounds_without_a_length_are_those_of_instants(tmp_path):
    data = hold([10, 20, 30])
    opened = series(tmp_path, bounded(data, data.time.values, data.time.values), days_before=1)
    assert opened.at([0], [0], [np.datetime64("2020-01-02")])[0].item() == 20


def test_energy_becomes_watts_and_members_their_mean(tmp_path):
    data = hold([7.2e6, 3.6e6], hours=1, name="ssrd", units="J m-2", cell_methods="time: sum")
    data = bounded(data, data.time.values, data.time.values + np.timedelta64(1, "h"))
    data["ssrd"] = xr.concat([data.ssrd, 3 * data.ssrd], "number", combine_attrs="override").assign_attrs(
        data.ssrd.attrs
    )
    opened = series(tmp_path, data, days_before=0.25, step=6)
    values, _ = opened.at([0], [0], [np.datetime64("2020-01-01T02:00")])
    assert opened.units == ("W m-2",) and values.item() == pytest.approx(3000)


def test_samples_come_in_any_order_and_share_places(tmp_path):
    data = field(step=10, times=200)
    rng = np.random.default_rng(3)
    lat, lon = rng.choice([12.0, 47.0, -60.0], 30), rng.choice([-170.0, 3.0, 190.0], 30)
    times = np.datetime64("2020-01-05") + rng.integers(0, 900, 30) * np.timedelta64(1, "h")
    opened = series(tmp_path, data, days_before=3, step=6)
    together = opened.at(lat, lon, times)
    for at in range(30):
        alone = opened.at(lat[at : at + 1], lon[at : at + 1], times[at : at + 1])
        np.testing.assert_allclose(together[0][at], alone[0][0], rtol=1e-6)
        np.testing.assert_array_equal(together[1][at], alone[1][0])
    assert [part.shape for part in opened.at([], [], [])] == [(0, 12, 1)] * 2


def test_a_time_is_read_once_and_only_around_the_places(tmp_path, monkeypatch):
    read, plain = [], lazy.values

    def counted(source, selection):
        found = plain(source, selection)
        read.append(found.shape)
        return found

    opened = series(tmp_path, field(step=5, times=400), days_before=5)
    monkeypatch.setattr(lazy, "values", counted)
    monkeypatch.setattr("pipelines.weather.series.PART", 300)
    times = np.datetime64("2020-02-01") + np.arange(50) % 5 * DAY
    opened.at(np.linspace(41, 43, 50), np.linspace(178, 182, 50), times)
    inner = [shape for shape in read if shape[1:] == (2, 1) or shape[1:] == (1, 1)]
    assert max(np.prod(shape) for shape in read) <= 300
    assert 0 < sum(np.prod(shape) for shape in read) <= 6 * 36 * 2 * 2 * 2, inner


def test_variables_of_other_times_and_grids_go_together(tmp_path):
    fine = hold(np.arange(120.0), hours=1, cell_methods="time: point")
    coarse = hold([24, 48, 72, 96, 120], lat=(10, -10), lon=(0, 20), name="rain", units="mm", cell_methods="time: sum")
    coarse = bounded(coarse, coarse.time.values, coarse.time.values + DAY)
    opened = series(tmp_path, fine, coarse, days_before=2, variables=("rain", "t2m"))
    values, valid = opened.at([0], [0], [np.datetime64("2020-01-04")])
    assert opened.channels == ("rain", "t2m") and opened.units == ("mm/h", "K") and valid.all()
    np.testing.assert_allclose(values[0], [[2, 36.5], [3, 60.5]])


def test_files_follow_each_other_and_are_found_in_folders_and_by_patterns(tmp_path):
    whole = hold(np.arange(6.0), cell_methods="time: point")
    (tmp_path / "store").mkdir()
    save(whole.isel(time=slice(0, 3)), tmp_path / "store" / "a.nc")
    save(whole.isel(time=slice(3, 6)), tmp_path / "store" / "b.zarr")
    (tmp_path / "store" / "read.me").write_text("nothing")
    for files in (("store",), ("store/*",), ("store/a.nc", "store/b.zarr"), ("*/a.nc", str(tmp_path / "store/b.zarr"))):
        opened = open_series(Before(files=files, days_before=6), root=tmp_path)
        assert opened.at([0], [0], [np.datetime64("2020-01-06")])[0].ravel().tolist() == [0, 1, 2, 3, 4, 5]


def test_what_has_no_times_or_levels_is_left_out_unless_it_is_asked_for(tmp_path):
    data = hold([1, 2, 3], cell_methods="time: point")
    data["high"] = data.t2m.expand_dims(level=[500.0, 850.0]).assign_attrs(units="K")
    data["land"] = data.t2m[0].drop_vars("time")
    data["one"] = data.t2m.expand_dims(member=[1])
    opened = series(tmp_path, data, days_before=2)
    assert opened.channels == ("t2m",) and sum("was left out" in note for note in opened.notes) == 3
    for name in ("high", "land"):
        with pytest.raises(InputError, match=f"variable {name} has"):
            series(tmp_path, data, days_before=2, variables=(name,))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"days_before": 90, "step": 744}, "whole number of steps; say 93 days"),
        ({"days_before": 0.5}, "wanted 1 to 4096 steps"),
        ({"step": 0}, "wanted 1 to"),
        ({"step": -24}, "wanted 1 to"),
        ({"step": float("nan")}, "wanted 1 to"),
        ({"days_before": 1e9}, "wanted 1 to"),
        ({"days_before": float("inf"), "step": float("inf")}, "wanted 1 to"),
        ({"hours": 24}, "data.weather.stamp with it"),
        ({"hours": 0, "stamp": "start"}, "a length above 0"),
    ],
)
def test_settings_that_make_no_series_are_refused(settings, told):
    with pytest.raises(InputError, match=told):
        Before(**settings)
    assert Before().steps == 90 and Before(days_before=1, step=0.1).steps == 240


def test_values_longer_than_a_step_are_refused_with_the_step_that_fits(tmp_path):
    months = np.arange("2019-01", "2020-01", dtype="datetime64[M]").astype("datetime64[ns]")
    data = hold(np.arange(12.0)).assign_coords(time=months)
    with pytest.raises(
        InputError, match=r"0\.nc: a value of t2m stands for 744 h.* say data\.weather\.step 744 or more"
    ):
        series(tmp_path, data)
    # A month of 31 days may go into steps of 30; a value of its own is that of the month that ends in it.
    opened = series(tmp_path, data, days_before=60, step=720)
    assert opened.at([0], [0], [np.datetime64("2019-05-01")])[0].ravel().tolist() == [2, 3]
    coarser = series(tmp_path, data, days_before=90, step=24 * 90)
    assert coarser.at([0], [0], [np.datetime64("2019-04-01")])[0].item() == pytest.approx((31 * 0 + 28 + 31 * 2) / 90)


def test_what_cannot_be_opened_is_refused(tmp_path):
    for files, told in (
        ((), "none is named"),
        (("no.nc",), "no weather file is there"),
        (("https://host/store.zarr",), "fetch the weather first"),
        (("empty",), "no weather file is there"),
    ):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=told):
            open_series(Before(files=files), root=tmp_path)
    data = hold([1, 2, 3])
    with pytest.raises(InputError, match="t2m is in 0.nc too"):
        series(tmp_path, data, data.assign(other=data.t2m))
    with pytest.raises(InputError, match="variable rain is wanted"):
        series(tmp_path, data, variables=("rain",))
    with pytest.raises(InputError, match="do not end in the order"):
        series(tmp_path, bounded(data, data.time.values + DAY, data.time.values))


@pytest.mark.parametrize(
    ("places", "settings", "told"),
    [
        (([95], [0], [NOON]), {}, "latitudes"),
        (([0], [float("nan")], [NOON]), {}, "latitudes"),
        (([0], [0, 1], [NOON]), {}, "1 latitudes and 2 longitudes"),
        (([0], [0], [np.datetime64("NaT")]), {}, "1 places have 0 times"),
        (([0], [0], ["someday"]), {}, "write YYYY"),
        (([0], [0], [20200101]), {}, "int64 are no dates"),
        (([0], [0], [NOON]), {"join": "area"}, "1 samples have 0 areas"),
        (([0], [0], [NOON]), {"join": "area", "bounds": [(0, 5, 1, -5)]}, "wanted west, south"),
        (([0], [0], [NOON]), {"join": "area", "bounds": [(1, -5, 1, 5)]}, "no width"),
    ],
)
def test_places_that_are_none_are_refused(tmp_path, places, settings, told):
    opened = series(tmp_path, hold([1, 2, 3]), days_before=2, join=settings.get("join", "cell"))
    with pytest.raises(InputError, match=told):
        opened.at(*places, bounds=settings.get("bounds"))


def test_a_cell_of_a_system_that_leads_nowhere_is_refused_in_a_line(tmp_path):
    data = hold(np.arange(10.0).reshape(10, 1, 1), lat=(50.0,), lon=(3.0,)).rename(lat="y", lon="x")
    for axis in "xy":
        data[axis].attrs = {"standard_name": f"projection_{axis}_coordinate", "units": "m"}
    data["t2m"].attrs["grid_mapping"] = "crs"
    data["crs"] = ((), 0, {"crs_wkt": 'LOCAL_CS["here",UNIT["metre",1]]'})
    with pytest.raises(InputError, match="nothing leads from the coordinate system of its only cell"):
        series(tmp_path, data, days_before=2)


@pytest.mark.parametrize("join", ["cell", "bilinear", "area"])
@pytest.mark.parametrize("planar", [True, False])
def test_a_file_of_one_cell_serves_what_lies_near_its_middle(tmp_path, join, planar):
    """In metres of UTM 31 or in degrees: 3 degrees east, where the zone has its middle, and 50 north."""
    data = hold(np.arange(10.0).reshape(10, 1, 1), lat=(50.0,), lon=(3.0,))
    if planar:
        (east,), (north,) = rasterio.warp.transform("EPSG:4326", "EPSG:32631", [3.0], [50.0])
        data = data.rename(lat="y", lon="x").assign_coords(x=[east], y=[north])
        for axis in "xy":
            data[axis].attrs = {"standard_name": f"projection_{axis}_coordinate", "units": "m"}
        data["t2m"].attrs["grid_mapping"] = "crs"
        data["crs"] = ((), 0, pyproj.CRS("EPSG:32631").to_cf())
    opened = series(tmp_path, data, days_before=2, join=join)
    boxes = np.array([[3.1, 50.1, 3.11, 50.11], [3.4, 50.0, 3.41, 50.01]]) if join == "area" else None
    values, valid = opened.at([50.1, 50.0], [3.1, 3.4], ["2020-01-05", "2020-01-05"], bounds=boxes)
    whole = series(tmp_path, hold(np.arange(10.0).reshape(10, 1, 1) + np.zeros((10, 2, 2))), days_before=2)
    np.testing.assert_allclose(values[0], whole.at([0.0], [5.0], ["2020-01-05"])[0][0])
    assert valid[0].all() and not valid[1].any()
    assert any("holds one cell, which counts within 0.25 degrees" in note for note in opened.notes)
