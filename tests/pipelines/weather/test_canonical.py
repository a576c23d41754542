"""One form for every dataset: names, order, longitudes, times, fills."""

import cftime
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import InputError
from pipelines.weather.canonical import check, eastward, noted, notes_of, to_canonical
from pipelines.weather.dataset import one_forecast
from tests.weather_files import field


def same(one, two):
    xr.testing.assert_identical(one.drop_attrs().load(), two.drop_attrs().load())


@given(st.sampled_from([-180.0, -90.0, 0.0, 40.0]), st.booleans(), st.permutations(["time", "latitude", "longitude"]))
@settings(max_examples=25)
def test_every_layout_of_a_globe_is_one(lon0, south_up, order):
    data = field(lon0=0.0)
    want = to_canonical(data)
    columns = np.roll(np.arange(36), -int(lon0 // 10))
    moved = data.isel(longitude=columns)
    moved = moved.assign_coords(longitude=("longitude", lon0 + np.arange(0, 360, 10.0), data.longitude.attrs))
    moved = moved.isel(latitude=slice(None, None, -1)) if south_up else moved
    got = check(to_canonical(moved.transpose(*order)))
    same(got, want)
    assert got.t2m.dims == ("time", "lat", "lon") and got.lat[0] == 85 and got.lon[0] == -180 and got.lon[-1] == 170
    # Each value is where the file had it.
    for lat, lon in ((85, -180), (-25, -10), (5, 120)):
        expected = data.t2m.sel(latitude=lat, longitude=lon % 360)
        np.testing.assert_array_equal(got.t2m.sel(lat=lat, lon=lon), expected)


@given(st.integers(-540, 540), st.integers(2, 30), st.floats(0.1, 5))
def test_longitudes_rise_without_a_gap(west, count, step):
    degrees = west + step * np.arange(count)
    stored = np.mod(degrees, 360)
    for columns in (stored, stored[::-1], np.sort(stored), (stored + 180) % 360 - 180):
        order, lon, twice = eastward(columns)
        np.testing.assert_allclose(np.diff(lon), step, atol=1e-6)
        assert -180 <= lon[0] < 180 and not twice
        np.testing.assert_allclose((columns[order] - lon + 180) % 360, 180, atol=1e-6)


def test_a_column_that_comes_twice_is_left_out():
    data = field()
    again = data.isel(longitude=[*range(36), 0]).assign_coords(longitude=np.arange(0, 361, 10.0))
    again.longitude.attrs.update(data.longitude.attrs)
    got = to_canonical(again)
    same(got, to_canonical(data))
    assert "first one again" in notes_of(got)[0]


def test_names_by_attributes_or_by_name():
    data = field(levels=(1000, 500))
    for names in (
        {"latitude": "nav_lat", "longitude": "nav_lon", "level": "plev", "time": "t"},
        {"latitude": "rows", "longitude": "cols", "level": "isobaricInhPa", "time": "timestamp"},
    ):
        got = to_canonical(data.rename(names))
        assert got.t2m.dims == ("time", "level", "lat", "lon")
        np.testing.assert_array_equal(got.level, [500, 1000])
        np.testing.assert_array_equal(
            got.t2m.sel(level=500, lat=5, lon=50), data.t2m.sel(level=500, latitude=5, longitude=50)
        )
    bare = data.copy()
    for key in ("latitude", "longitude", "level"):
        bare[key].attrs = {}
    assert to_canonical(bare).t2m.dims == ("time", "level", "lat", "lon")


def test_pressure_in_pascal_and_further_dimensions():
    data = field(levels=(100000, 50000))
    data.level.attrs["units"] = "Pa"
    data = data.expand_dims(number=[0, 1, 2], axis=3)
    got = to_canonical(data)
    assert got.t2m.dims == ("number", "time", "level", "lat", "lon")
    np.testing.assert_array_equal(got.level, [500, 1000])
    assert got.level.attrs["units"] == "hPa" and got.t2m.attrs["units"] == "K"


@pytest.mark.parametrize("labels", [(500, 500, 850), (np.nan, 500, 850)])
def test_levels_that_come_twice_or_are_none(labels):
    data = field(levels=(1, 2, 3))
    with pytest.raises(InputError, match=r"f\.nc: its level is \w+, 500, 850; wanted numbers, each once"):
        to_canonical(data.assign_coords(level=("level", list(map(float, labels)))), name="f.nc")


def test_levels_told_by_words_have_no_labels():
    got = to_canonical(field(levels=(1, 2, 3)).assign_coords(level=("level", ["low", "middle", "high"])))
    assert got.t2m.dims == ("time", "level", "lat", "lon") and "level" not in got.coords


def test_a_longitude_that_comes_twice_within_a_region():
    with pytest.raises(InputError, match=r"f\.nc: longitudes come twice \(1 such\)"):
        to_canonical(field().isel(longitude=[1, 1, 2]), name="f.nc")


def test_longitudes_that_come_twice_beside_the_last():
    lon = np.sort([*np.arange(0, 361, 10.0), 50.0])
    data = field().isel(longitude=[0] * len(lon)).assign_coords(longitude=("longitude", lon, field().longitude.attrs))
    with pytest.raises(InputError, match=r"f\.nc: longitudes come twice \(2 such\)"):
        to_canonical(data, name="f.nc")


def test_longitudes_of_a_second_turn():
    same(to_canonical(field(lon0=370.0)), to_canonical(field(lon0=10.0)))


def test_hand_worked_longitudes():
    order, lon, twice = eastward(np.array([90.0, -180.0000000001, 0.0, -90.0]))  # by rounding the antimeridian
    assert (order.tolist(), lon.tolist(), twice) == ([1, 3, 2, 0], [-180.0, -90.0, 0.0, 90.0], False)
    # Uneven columns around the globe: the gap of 100 degrees is less than 1.5 times the median of 80.
    around = [-180.0, -130.0, -30.0, 50.0, 130.0]
    assert eastward(np.array(around))[1].tolist() == around


@pytest.mark.parametrize("lat", [(10, 20, 15), (10, 10, 5), (5, 10, 10), (5.0, 5.5, 5.25)])
def test_latitudes_that_neither_rise_nor_fall(lat):
    data = field().isel(latitude=slice(3)).assign_coords(latitude=("latitude", list(lat), field().latitude.attrs))
    with pytest.raises(InputError, match=r"f\.nc: latitudes neither rise nor fall all the way"):
        to_canonical(data, name="f.nc")


def test_two_rows_are_north_up_too():
    got = to_canonical(field().isel(latitude=[5, 4]))
    assert got.lat.values.tolist() == [45, 35]
    np.testing.assert_array_equal(got.t2m.sel(lat=35, lon=0), field().t2m.sel(latitude=35, longitude=0))


def test_notes_come_once_and_go():
    data = noted(field(), ["a", "b", "a"])
    assert notes_of(data) == ["a", "b"] and notes_of(noted(data, [])) == [] == notes_of(field())


def test_what_does_not_lie_on_the_grid_is_told_but_for_grid_mappings():
    data = field().assign(ramp=("n", np.arange(3.0)), crs=("one", [1], {"grid_mapping_name": "latitude_longitude"}))
    got = to_canonical(data.assign(title=((), 1)))
    assert list(got.data_vars) == ["t2m"] and notes_of(got) == ["left out, for they do not lie on the grid: ramp"]


@pytest.mark.parametrize("name", ["time_bnds", "time_bounds"])
def test_limits_of_times_are_known_by_their_name(name):
    data = field(times=3)
    edges = np.stack([data.time.values - np.timedelta64(6, "h"), data.time.values], axis=-1)
    got = to_canonical(data.assign({name: (("time", "bnds"), edges)}))
    np.testing.assert_array_equal(np.stack([got.interval_start, got.interval_end], axis=-1), edges)
    one = to_canonical(data.assign({name: (("time", "bnds"), edges)}).isel(time=1))
    assert one.interval_start.values == edges[1, :1] and one.interval_end.values == edges[1, 1:]
    raw = data.assign_coords(time=("time", [0, 6, 12], {"units": "hours since 2020-01-01", "calendar": "standard"}))
    raw = to_canonical(raw.assign({name: (("time", "bnds"), [[-6, 0], [0, 6], [6, 12]])}))
    np.testing.assert_array_equal(np.stack([raw.interval_start, raw.interval_end], axis=-1), edges)
    for shape in ((3, 1), (3, 3)):
        odd = to_canonical(data.assign({name: (("time", "bnds"), np.zeros(shape))}))
        assert "interval_start" not in odd.coords


def test_angles_of_a_geostationary_scan_become_metres():
    about = {"grid_mapping_name": "geostationary", "perspective_point_height": 35786023.0, "sweep_angle_axis": "x"}
    about |= {"longitude_of_projection_origin": -75.0, "semi_major_axis": 6378137.0, "semi_minor_axis": 6356752.31414}
    axes = {key: (key, 1e-4 * np.arange(3), {"units": "rad"}) for key in ("y", "x")}
    data = xr.Dataset({"v": (("y", "x"), np.zeros((3, 3)), {"grid_mapping": "goes"}), "goes": ((), 0, about)}, axes)
    got = to_canonical(data)
    np.testing.assert_allclose(got.x, [0, 3578.6023, 7157.2046])
    np.testing.assert_allclose(got.y, [7157.2046, 3578.6023, 0])


def test_latitudes_along_rows_of_another_name():
    data = field(times=1)
    axes = {"latitude": ("y", data.latitude.values), "longitude": ("x", data.longitude.values)}
    coords = {key: (*pair, data[key].attrs) for key, pair in axes.items()}
    named = xr.Dataset({"t2m": (("time", "y", "x"), data.t2m.values)}, {"time": data.time, **coords})
    same(to_canonical(named.assign_coords(y=np.arange(18.0))), to_canonical(data))


def test_a_region_across_the_antimeridian_stays_whole():
    data = field().sel(longitude=slice(150, 210))
    got = to_canonical(data)
    np.testing.assert_array_equal(got.lon, np.arange(150, 211, 10))
    assert check(got) is got
    stored = data.assign_coords(longitude=(data.longitude + 180) % 360 - 180).sortby("longitude")
    stored.longitude.attrs.update(data.longitude.attrs)
    same(to_canonical(stored), got)


def test_one_time_without_dimension():
    data = field(times=1).isel(time=0).rename(time="day")
    data["day"].attrs = {"standard_name": "time"}
    assert to_canonical(data).t2m.dims == ("time", "lat", "lon")
    same(to_canonical(field(times=1).isel(time=0)), to_canonical(field(times=1)))
    got = to_canonical(field(times=1).isel(time=0, drop=True))
    assert "time" not in got.dims and notes_of(got) == ["no time axis"]
    point = field().isel(latitude=3, longitude=4)
    got = to_canonical(point).t2m
    assert got.dims == ("time", "lat", "lon") and (float(got.lat[0]), float(got.lon[0])) == (55, 40)


def test_times_that_are_not_in_order():
    data = field(times=4)
    mixed = to_canonical(data.isel(time=[2, 0, 3, 1]))
    same(mixed, to_canonical(data))
    assert "times were not in order and have been sorted" in notes_of(mixed)
    with pytest.raises(InputError, match=r"f\.nc: time 2020-01-01T06:00 comes twice \(1 such\)"):
        to_canonical(data.isel(time=[0, 1, 1, 2]), name="f.nc")


@pytest.mark.parametrize("names", [("time", "step"), ("forecast_reference_time", "forecast_period")])
@pytest.mark.parametrize("units", [None, "hours", "days", "s", "minutes", "D"])
def test_forecasts_of_several_starts(names, units):
    """As cfgrib writes them and as the Copernicus store has them; the start is no valid time."""
    starts = np.array(["2020-01-01", "2020-02-01"], "datetime64[ns]")
    leads = np.array([24, 48, 72], "timedelta64[h]").astype("timedelta64[ns]")
    number = {"hours": 24, "days": 1, "D": 1, "s": 86400, "minutes": 1440}.get(units, 0) * np.arange(1.0, 4)
    plane = field(times=1).t2m.isel(time=0, drop=True)
    fields = plane * xr.DataArray([[1.0, 2, 3], [4, 5, 6]], dims=names)
    data = fields.rename("t2m").to_dataset().assign_coords({names[0]: starts, names[1]: leads})
    data = data.assign_coords(valid_time=(names, starts[:, None] + leads))
    if units:
        data = data.assign_coords({names[1]: (names[1], number, {"units": units})})
    if names[0] != "time":
        for name in names:
            data[name].attrs["standard_name"] = name
    got = to_canonical(data)
    assert got.t2m.dims == ("reference_time", "lead_time", "lat", "lon") and "time" not in got.coords
    np.testing.assert_array_equal(got.reference_time, starts)
    np.testing.assert_array_equal(got.lead_time, leads)
    assert notes_of(got) == ["forecasts that overlap: choose one (one_forecast)"]
    one = one_forecast(got, "2020-02-01")
    np.testing.assert_array_equal(one.time, starts[1] + leads)
    np.testing.assert_allclose(one.t2m[1], to_canonical(plane.to_dataset(name="t2m")).t2m * 5, rtol=1e-6)
    if units:
        data[names[1]].attrs["units"] = "1"
        with pytest.raises(InputError, match=rf"f\.nc: lead times {names[1]} have units '1', hours or days are wanted"):
            to_canonical(data, name="f.nc")


def test_a_variable_with_the_name_of_a_coordinate():
    data = field(levels=(1, 2, 3)).rename(level="height")
    with pytest.raises(InputError, match=r"f\.nc: variable level has the name of a coordinate; rename it"):
        to_canonical(data.assign(level=data.t2m.isel(height=0, drop=True)), name="f.nc")


def with_times(values):
    data = field(times=len(values))
    return data.assign_coords(time=("time", values))


def test_other_calendars():
    dates = [cftime.DatetimeNoLeap(1999, 2, 28), cftime.DatetimeNoLeap(1999, 3, 1)]
    got = to_canonical(with_times(dates))
    np.testing.assert_array_equal(got.time, np.array(["1999-02-28", "1999-03-01"], "datetime64[ns]"))
    assert "calendar noleap" in notes_of(got)[0]
    with pytest.raises(InputError, match="360_day has the date 1999-02-29.*convert_calendar"):
        to_canonical(with_times([cftime.Datetime360Day(1999, 2, 29), cftime.Datetime360Day(1999, 2, 30)]))
    raw = with_times(np.array([0, 1, 31 * 24])).copy()
    raw.time.attrs.update(units="hours since 2001-02-28", calendar="365_day")
    assert str(to_canonical(raw).time.values[-1])[:10] == "2001-03-31"
    with pytest.raises(InputError, match="1678 to 2261"):
        to_canonical(with_times([cftime.DatetimeGregorian(3000, 1, 1)]))


def test_months_of_the_calendar():
    """As the IRI Data Library counts them, in the middle of months, with a calendar of its own."""
    raw = with_times(np.array([0.5, 1.5, 24.0]))
    raw.time.attrs.update(units="months since 1960-01-01", calendar="360")
    got = to_canonical(raw)
    np.testing.assert_array_equal(
        got.time, np.array(["1960-01-16T12:00", "1960-02-15T12:00", "1962-01-01"], "datetime64[ns]")
    )
    assert "months of the calendar" in notes_of(got)[0]
    raw.time.attrs.update(units="months since 0001-01-01")
    with pytest.raises(InputError, match="times from 0001-01-16T12:00:00 to .*, 1678 to 2261 is wanted"):
        to_canonical(raw)
    raw.time.attrs.update(units="months since 1960-01-31")
    with pytest.raises(InputError, match="the first of a month is wanted"):
        to_canonical(raw)


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ("fortnights since 2000-01-01", "cannot be decoded"),
        ("hours since never", "cannot be decoded"),
        ("", "no dates"),
    ],
)
def test_times_that_tell_nothing(units, message):
    data = with_times(np.arange(3))
    data.time.attrs = {"units": units} if units else {}
    with pytest.raises(InputError, match=message):
        to_canonical(data)


def test_times_as_text_and_missing_ones():
    got = to_canonical(with_times(np.array(["2020-01-01", "2020-01-02T06:00"])))
    assert str(got.time.values[1])[:16] == "2020-01-02T06:00"
    wrf = field(times=2).drop_vars("time").rename(time="Time")
    wrf = to_canonical(wrf.assign(Times=("Time", np.array([b"2020-01-01_00:00:00", b"2020-01-01_06:00:00"]))))
    assert wrf.t2m.dims == ("time", "lat", "lon") and str(wrf.time.values[1])[:16] == "2020-01-01T06:00"
    with pytest.raises(InputError, match="'tuesday' is no date"):
        to_canonical(with_times(np.array(["2020-01-01T00:00Z", "tuesday"])))
    with pytest.raises(InputError, match="times from 0850-01-01T00:00:00 to 2020-01-01T00:00:00, 1678 to 2261"):
        to_canonical(with_times(np.array(["2020-01-01", "0850-01-01"])))
    with pytest.raises(InputError, match="1 of 2 times are missing"):
        to_canonical(with_times(np.array(["2020-01-01", "NaT"], "datetime64[ns]")))


@pytest.mark.parametrize(
    ("values", "attrs", "bad"),
    [
        (np.array([1e15, 2], np.float32), {"fmissing_value": np.float32(1e15)}, 0),
        (np.array([65535, 2], np.uint16), {}, 0),
        (np.array([2, -32767], np.int16), {}, 1),
        (np.array([9.969209968386869e36, 2], np.float32), {}, 0),
        (np.array([-9999, 2], np.int32), {"nodata": -9999}, 0),
    ],
)
def test_values_without_data(values, attrs, bad):
    data = field(times=2)
    data["v"] = ("time", "latitude", "longitude"), np.broadcast_to(values[:, None, None], (2, 18, 36)).copy(), attrs
    got = to_canonical(data).v
    assert np.isnan(got.values[bad]).all() and (got.values[1 - bad] == 2).all()


def test_projected_and_curvilinear_grids():
    x, y = np.arange(500000.0, 501000, 100), np.arange(5000000.0, 5001000, 100)
    values = np.arange(100.0).reshape(10, 10)
    for attrs in ({"crs": "EPSG:32633"}, {"crs": "+init=epsg:32633"}, {"epsg": 32633}):
        got = to_canonical(xr.Dataset({"v": (("y", "x"), values, attrs)}, {"y": y, "x": x}))
        assert "32633" in got.spatial_ref.attrs["crs_wkt"] and got.y[0] == 5000900 and got.v[0, 0] == 90
    rotated = {"grid_mapping_name": "rotated_latitude_longitude", "grid_north_pole_latitude": 39.25}
    rotated["grid_north_pole_longitude"] = -162.0
    data = xr.Dataset(
        {"v": (("rlat", "rlon"), values, {"grid_mapping": "pole"}), "pole": ((), 0, rotated)},
        {"rlat": ("rlat", np.arange(10.0), {"standard_name": "grid_latitude"}), "rlon": np.arange(10.0)},
    )
    got = to_canonical(data)
    assert got.v.dims == ("y", "x") and "39.25" in got.spatial_ref.attrs["crs_wkt"]
    plane = np.meshgrid(np.linspace(50, 51, 10), np.linspace(5, 6, 10), indexing="ij")
    bare = xr.Dataset(
        {"v": (("nj", "ni"), values)}, {"TLAT": (("nj", "ni"), plane[0]), "TLON": (("nj", "ni"), plane[1])}
    )
    bare.TLAT.attrs["units"], bare.TLON.attrs["units"] = "degrees_north", "degrees_east"
    got = to_canonical(bare)
    assert got.v.dims == ("y", "x") and got.lat.dims == ("y", "x") and "spatial_ref" not in got.coords
    degrees = xr.Dataset(
        {"v": (("y", "x"), values, {"crs": "EPSG:4326"})}, {"y": np.arange(10.0), "x": np.arange(10.0)}
    )
    assert to_canonical(degrees).v.dims == ("lat", "lon")


@pytest.mark.parametrize(
    ("crs", "unit", "want"),
    [
        ("EPSG:32633", "m", 1),
        ("EPSG:32633", "metre", 1),
        ("EPSG:32633", "", 1),
        ("EPSG:32633", "km", 1000),
        ("EPSG:32633", "feet", 0.3048),
        ("+proj=utm +zone=33 +units=km", "km", 1),  # already in the unit of its coordinate system
        ("EPSG:2263", "US survey foot", 1),
        ("EPSG:32633", "1000 m", None),
        ("EPSG:32633", "cells", None),
    ],
)
def test_units_of_projected_coordinates(crs, unit, want):
    axes = {key: (key, np.arange(3.0), {"units": unit} if unit else {}) for key in ("y", "x")}
    data = xr.Dataset({"v": (("y", "x"), np.zeros((3, 3)), {"crs": crs})}, axes)
    if want is None:
        with pytest.raises(InputError, match=rf"f\.nc: y is in '{unit}', a length such as m or km is wanted"):
            to_canonical(data, name="f.nc")
    else:
        np.testing.assert_allclose(to_canonical(data).x, np.arange(3) * want, rtol=1e-6)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            xr.Dataset({"v": (("time", "station"), np.zeros((2, 3)))}),
            "no latitude and longitude.*time .2., station .3.",
        ),
        (
            xr.Dataset({"v": (("n",), np.zeros(3))}, {"lat": ("n", [1.0, 2, 3]), "lon": ("n", [1.0, 2, 3])}),
            "points or swaths",
        ),
        (field().assign_coords(latitude=np.linspace(200, 0, 18)), "lat holds 0..200"),
        (field().drop_vars("t2m"), "no variable lies on its grid"),
        (field().isel(time=slice(0, 0)), "dimension time has length 0"),
    ],
)
def test_what_is_no_grid(data, message):
    with pytest.raises(InputError, match=message):
        to_canonical(data)


@pytest.mark.parametrize("spoil", [{"lat": slice(None, None, -1)}, {"time": slice(None, None, -1)}])
def test_the_check_checks(spoil):
    data = to_canonical(field())
    with pytest.raises(ValueError, match="does not"):
        check(data.isel(spoil))
    with pytest.raises(ValueError, match="wanted"):
        check(data.transpose("lon", "lat", "time"))
    with pytest.raises(ValueError, match="first longitude"):
        check(data.assign_coords(lon=data.lon + 360))
