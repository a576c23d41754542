"""Spellings of units, and conversions against numbers worked by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InputError
from pipelines.weather.units import Conversion, conversion, is_amount, tidy


@pytest.mark.parametrize(
    ("spellings", "want"),
    [
        (("kg m-2 s-1", "kg m**-2 s**-1", "kg/m^2/s", "kg/m2/s", "kg m^-2 s^-1", "kg.m-2.s-1"), "kg m-2 s-1"),
        (("mm/h", "mm/hr", "mm hr-1", "mm h-1", "mm hour-1", "mm per hour"), "mm h-1"),
        (("mm/day", "mm d-1", "mm day**-1"), "mm d-1"),
        (("degC", "Celsius", "degrees C", "°C", "deg_C", "C"), "degC"),
        (("K", "kelvin", "Kelvin", "k"), "K"),
        (("millibars", "mb", "hPa", "mbar", "hectopascal"), "hPa"),
        (("m**2 s**-2", "m2 s-2", "m+2 s-2", "m2/s2"), "m2 s-2"),
        (("1", "kg kg**-1", "kg/kg", "(0 - 1)", "dimensionless"), "1"),
        (("", "  "), ""),
        (("m of water equivalent", "m", "metres"), "m"),
        (("mm/3hr", "mm (3 hours)-1", "mm 3h-1", "mm per 3h"), "mm 3h-1"),
        (("mm/month", "mm month**-1", "mm mon-1"), "mm month-1"),
    ],
)
def test_one_spelling(spellings, want):
    assert {tidy(text) for text in spellings} == {want}


@pytest.mark.parametrize(
    ("value", "unit", "wanted", "expected"),
    [
        (1 / 3600, "kg m-2 s-1", "mm/h", 1.0),  # 1 mm of water on a square metre is a kilogram
        (1 / 86400, "kg m-2 s-1", "mm/day", 1.0),
        (24.0, "mm/day", "mm/h", 1.0),
        (0.0025, "m", "mm", 2.5),
        (0.0, "degC", "K", 273.15),
        (300.0, "K", "degC", 26.85),
        (212.0, "degF", "degC", 100.0),
        (1013.25, "hPa", "Pa", 101325.0),
        (1.0, "mbar", "Pa", 100.0),
        (36.0, "km/h", "m s-1", 10.0),
        (98066.5, "m2 s-2", "m", 10000.0),
        (50.0, "%", "1", 0.5),
        (1.0, "inch", "mm", 25.4),
        (86400.0, "J m-2 d-1", "W m-2", 1.0),
        (9.0, "mm/3hr", "mm/h", 3.0),
        (12.0, "mm (6 hours)-1", "mm/day", 48.0),
        (1.225, "kg m-3", "g/m3", 1225.0),
        (552.0, "dam", "m", 5520.0),
        (552.0, "dam", "m2 s-2", 54132.708),
        (30.436875, "mm/month", "mm/day", 1.0),  # a mean month of the Gregorian calendar
        (10.0, "kW h m-2", "MJ m-2", 36.0),
        (5.0, "furlong", "furlong", 5.0),  # the same unit needs no table
    ],
)
def test_conversions(value, unit, wanted, expected):
    change = conversion(unit, wanted)
    assert value * change.scale + change.offset == pytest.approx(expected)


def test_amounts_need_their_interval():
    change = conversion("m", "mm/h", hours=3)
    assert 0.006 * change.scale == pytest.approx(2.0)
    assert conversion("J m-2", "W m-2", hours=1).scale == pytest.approx(1 / 3600)
    assert 2.0 * conversion("mm/h", "mm", hours=6).scale == pytest.approx(12.0)
    assert is_amount("kg m**-2") and is_amount("J m**-2") and not is_amount("mm/h")
    with pytest.raises(InputError, match="how long the intervals are"):
        conversion("m", "mm/h")


@pytest.mark.parametrize(
    ("unit", "wanted", "message"),
    [
        ("kelvins", "degC", "not known"),
        ("K", "Pa", "is temperature"),
        ("mm/hh", "mm/h", "you mean mm h-1"),
        ("", "K", "unit '' is not known; correct"),
        ("km/h", "kg m-2 s-1", "is speed, "),
        ("mm/h", "kg m-3", "is rain rate, "),
    ],
)
def test_what_cannot_be_converted(unit, wanted, message):
    with pytest.raises(InputError, match=message):
        conversion(unit, wanted)


@given(
    st.sampled_from([("K", "degF"), ("Pa", "hPa"), ("kg m-2 s-1", "mm/day"), ("m", "inch"), ("m2 s-2", "gpm")]),
    st.floats(-1e6, 1e6),
)
def test_there_and_back(pair, value):
    there, back = conversion(*pair), conversion(*pair[::-1])
    assert (value * there.scale + there.offset) * back.scale + back.offset == pytest.approx(value, rel=1e-9, abs=1e-6)
    assert conversion(pair[0], pair[0]) == Conversion(1.0)
