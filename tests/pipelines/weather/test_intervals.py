"""Intervals (start, end], running totals and rates, with numbers worked by hand."""

import numpy as np
import pytest
import xarray as xr

from models.errors import InputError
from pipelines.weather import intervals
from pipelines.weather.canonical import notes_of, to_canonical
from pipelines.weather.intervals import in_unit, per_step, with_intervals
from pipelines.weather.products import PRODUCTS
from tests.weather_files import field

HOUR = np.timedelta64(1, "h")


def rain(amounts, *, units="m", hours=1, first="2020-01-01T01:00", **attrs):
    """Amounts, the same everywhere, at even times."""
    data = field(times=len(amounts), step=30.0, name="tp", units=units)
    data["tp"][:] = np.asarray(amounts, np.float32)[:, None, None]
    times = np.datetime64(first, "ns") + np.arange(len(amounts)) * hours * HOUR
    return to_canonical(data.assign_coords(time=("time", times)).assign_attrs(attrs))


def spans(data):
    return [
        (str(start)[11:16], str(end)[11:16])
        for start, end in zip(data.interval_start.values, data.interval_end.values, strict=True)
    ]


@pytest.mark.parametrize(
    ("stamp", "want"), [("end", ("00:00", "01:00")), ("start", ("01:00", "02:00")), ("middle", ("00:30", "01:30"))]
)
def test_where_a_time_lies_in_its_interval(stamp, want):
    assert spans(with_intervals(rain([1, 2]), stamp=stamp))[0] == want
    assert with_intervals(rain([1, 2])).coords.keys() == rain([1, 2]).coords.keys()  # nothing tells, nothing said


def test_what_is_known_of_files():
    merra = with_intervals(rain([1, 2], first="2020-01-01T00:30", ShortName="M2T1NXFLX"))
    assert spans(merra) == [("00:00", "01:00"), ("01:00", "02:00")] and "M2T1NXFLX" in notes_of(merra)[0]
    assert merra.tp.attrs["cell_methods"] == "time: mean"
    assert "interval_start" not in with_intervals(rain([1, 2], ShortName="M2I1NXASM")).coords
    era = with_intervals(rain([1, 2], institution="ECMWF", title="ERA5"))
    assert spans(era) == [("00:00", "01:00"), ("01:00", "02:00")] and era.tp.attrs["cell_methods"] == "time: sum"
    imerg = with_intervals(rain([1, 2], units="mm/hr", first="2020-01-01T00:00", GridHeader="BinMethod=X"))
    assert spans(imerg) == [("00:00", "00:30"), ("01:00", "01:30")]


def test_what_a_caller_says_goes_before_what_a_file_has():
    merra = rain([1, 2], first="2020-01-01T00:30", hours=6, ShortName="M2T1NXFLX")
    assert spans(with_intervals(merra, stamp="start")) == [("00:30", "01:30"), ("06:30", "07:30")]  # its own length
    assert spans(with_intervals(merra, hours=3)) == [("23:00", "02:00"), ("05:00", "08:00")]  # its own stamp
    assert spans(with_intervals(merra, stamp="end", hours=2)) == [("22:30", "00:30"), ("04:30", "06:30")]
    has = with_intervals(merra, stamp="start")
    assert with_intervals(has) is has
    assert spans(with_intervals(has, stamp="end"))[0] == ("23:30", "00:30")
    assert spans(with_intervals(has, hours=3))[0] == ("23:00", "02:00")


@pytest.mark.parametrize("short", ["", "M2TUNXFLX", "M2TMNXFLX"])  # nothing, no interval, one of the calendar
def test_a_stamp_without_a_length_takes_the_step(short):
    data = rain([1, 2, 3], hours=3, ShortName=short)
    assert spans(with_intervals(data, stamp="end")) == [("22:00", "01:00"), ("01:00", "04:00"), ("04:00", "07:00")]
    for late in (1, 3600):  # seconds
        uneven = data.assign_coords(time=data.time.values + np.array([0, 0, late]) * np.timedelta64(1, "s"))
        with pytest.raises(InputError, match="cannot be told from 3 times; pass hours"):
            with_intervals(uneven, stamp="end")


def test_only_sums_become_those_of_a_day():
    months = field(times=2).assign_coords(time=np.array(["2020-02-01", "2020-03-01"], "datetime64[ns]"))
    about = {"tp": ("m", "avgad"), "sd": ("m", "instant"), "t2m": ("K", "instant")}
    plane = months["t2m"].rename(None)
    fields = {key: plane.assign_attrs(units=unit, GRIB_stepType=step) for key, (unit, step) in about.items()}
    data = to_canonical(xr.Dataset(fields).assign_attrs(institution="ECMWF", title="ERA5 monthly means"))
    got = with_intervals(data)
    said = {key: (var.attrs["units"], var.attrs["cell_methods"]) for key, var in got.data_vars.items()}
    assert said == {"tp": ("m d-1", "time: mean"), "sd": ("m", "time: point"), "t2m": ("K", "time: point")}
    assert got.interval_end.values[0] == np.datetime64("2020-03-01")
    mean = with_intervals(to_canonical(xr.Dataset({"t2m": plane})), product=PRODUCTS["era5_monthly"])
    assert (mean.t2m.attrs["units"], mean.t2m.attrs["cell_methods"]) == ("K", "time: mean")


def test_one_time_on_the_first_of_a_month_may_be_a_day():
    day = with_intervals(rain([5], units="mm", first="2020-02-01"), product=PRODUCTS["chirps"])
    assert day.interval_end.values[0] == np.datetime64("2020-02-02")


@pytest.mark.parametrize(
    ("name", "long_name", "units", "sums"),
    [
        ("tp", "", "m", True),
        ("rain", "Large-scale precipitation", "m", True),
        ("ssrd", "Surface solar radiation downwards", "J m**-2", True),
        ("swh", "Significant height of combined wind waves and swell", "m", False),
        ("sd", "Snow depth", "m of water equivalent", False),
        ("tcwv", "Total column vertically-integrated water vapour", "kg m**-2", False),
    ],
)
def test_what_ecmwf_sums_up(name, long_name, units, sums):
    data = rain([1, 2], history="grib_to_netcdf: /opt/ecmwf/mars-client", title="ERA5", units=units).rename(tp=name)
    data[name].attrs["long_name"] = long_name
    assert ("interval_start" in with_intervals(data).coords) == sums


def test_bounds_in_the_file_are_taken():
    data = field(times=2, step=30.0)
    data.time.attrs["bounds"] = "time_bnds"
    edges = np.stack([data.time.values - 6 * HOUR, data.time.values], axis=-1)
    got = to_canonical(data.assign(time_bnds=(("time", "bnds"), edges)))
    np.testing.assert_array_equal(got.interval_start, edges[:, 0])
    np.testing.assert_array_equal(got.interval_end, edges[:, 1])
    assert list(got.data_vars) == ["t2m"]
    # Numbers without units of their own count like the times.
    raw = data.assign_coords(time=("time", [6, 12], {"units": "hours since 2020-01-01", "bounds": "time_bnds"}))
    got = to_canonical(raw.assign(time_bnds=(("time", "bnds"), [[0, 6], [6, 12]])))
    assert spans(got) == [("00:00", "06:00"), ("06:00", "12:00")]


def test_amounts_become_rates_by_their_intervals():
    data = with_intervals(rain([0.001, 0.004], hours=3, first="2020-01-01T03:00"), stamp="end")
    got = in_unit(data.tp, "mm/h")
    np.testing.assert_allclose(got.values[:, 0, 0], [1 / 3, 4 / 3], rtol=1e-6)
    assert got.attrs["units"] == "mm/h" and got.attrs["cell_methods"] == "time: mean"
    np.testing.assert_allclose(in_unit(data.tp, "mm")[:, 0, 0], [1, 4], rtol=1e-6)
    day = with_intervals(rain([86400.0 * 5], units="J m-2", first="2020-01-02"), stamp="end", hours=24)
    assert in_unit(day.tp, "W m-2").values[0, 0, 0] == pytest.approx(5)
    with pytest.raises(InputError, match="tp is an amount and nothing tells its intervals; pass stamp"):
        in_unit(rain([1, 2]).tp, "mm/h")
    with pytest.raises(InputError, match="tp is an amount and nothing tells its intervals; pass stamp"):
        in_unit(data.tp.isel(time=0), "mm/h")


def totals(values, starts, ends):
    """Totals since starts (hours), at ends (hours)."""
    data = rain(values, units="mm", first="2020-01-01")
    day = np.datetime64("2020-01-01", "ns")
    begins, stops = (day + np.array(hours) * HOUR for hours in (starts, ends))
    data = data.assign_coords(time=("time", stops))
    return data.assign_coords(interval_start=("time", begins), interval_end=("time", stops)).tp


def test_running_totals_are_undone_and_not_across_a_new_start():
    field_ = totals([1, 3, 6, 2, 2.5], [0, 0, 0, 12, 12], [1, 2, 3, 13, 14])
    got = per_step(field_)
    np.testing.assert_allclose(got.values[:, 0, 0], [1, 2, 3, 2, 0.5])
    assert spans(got) == [
        ("00:00", "01:00"),
        ("01:00", "02:00"),
        ("02:00", "03:00"),
        ("12:00", "13:00"),
        ("13:00", "14:00"),
    ]
    # Uneven steps: 3 mm in one hour, then 6 mm in three.
    rates = in_unit(totals([3, 9], [0, 0], [1, 4]), "mm/h")
    np.testing.assert_allclose(rates.values[:, 0, 0], [3, 2])
    # A step read alone is the same.
    np.testing.assert_allclose(got.isel(time=2).values, 3)


def test_rounding_is_clipped_and_a_fall_is_refused():
    got = per_step(totals([10, 9.9999, 12], [0, 0, 0], [1, 2, 3]))
    np.testing.assert_allclose(got.values[:, 0, 0], [10, 0, 2.0001], rtol=1e-5)
    falling = per_step(totals([10, 4], [0, 0], [1, 2]), name="f.nc")
    with pytest.raises(InputError, match=r"f\.nc: tp: a running total falls by 6"):
        falling.load()
    plain = totals([1, 2], [0, 1], [1, 2])
    assert per_step(plain) is plain
    with pytest.raises(InputError, match="nothing tells its intervals"):
        per_step(rain([1, 2]).tp)


def test_units_that_are_missing_or_wrong():
    data = rain([1, 2]).tp
    del data.attrs["units"]
    with pytest.raises(InputError, match=r"f\.nc: tp has no units, K is wanted"):
        in_unit(data, "K", name="f.nc")
    data.attrs["units"] = "K"
    with pytest.raises(InputError, match=r"f\.nc: tp: unit 'K' is temperature"):
        in_unit(data, "mm/h", name="f.nc")
    for amount in (rain([1, 2]), with_intervals(rain([1, 2]), stamp="end")):
        with pytest.raises(InputError, match=r"^f\.nc: tp: unit 'm' is .*'K' cannot be made of it"):
            in_unit(amount.tp, "K", name="f.nc")
    with pytest.raises(InputError, match="wanted start, middle or end"):
        with_intervals(rain([1, 2]), stamp="centre")
    with pytest.raises(InputError, match="pass hours"):
        with_intervals(rain([1]), stamp="end")


def test_conversion_is_lazy():
    data = with_intervals(rain([1, 2]), stamp="end")
    got = in_unit(data.tp, "mm/h")
    assert not got.variable._in_memory and isinstance(got, xr.DataArray)
    assert intervals.Stamp.__args__ == ("start", "middle", "end")


def test_a_rate_per_month_counts_the_days_of_its_month():
    data = field(times=2).assign_coords(time=np.array(["2020-02-01", "2020-03-01"], "datetime64[ns]"))
    rain = data["t2m"].copy(data=np.full(data["t2m"].shape, 58.0)).assign_attrs(units="mm/month")
    np.testing.assert_allclose(in_unit(rain, "mm/day").values[:, 0, 0], [58 / 29, 58 / 31])
    ends = rain.assign_coords(time=np.array(["2020-03-01", "2020-04-01"], "datetime64[ns]"))
    ends = ends.assign_coords(interval_start=("time", rain["time"].values), interval_end=("time", ends["time"].values))
    np.testing.assert_allclose(in_unit(ends, "mm/day").values[:, 0, 0], [58 / 29, 58 / 31])
    mean = in_unit(rain.isel(time=0, drop=True), "mm/day")  # of no month: one of 365.2425 / 12 days
    np.testing.assert_allclose(mean.values[0, 0], 58 / 30.436875, rtol=1e-6)
    back = in_unit(in_unit(rain, "mm/h"), "mm/month")
    np.testing.assert_allclose(back.values, 58.0, rtol=1e-6)
