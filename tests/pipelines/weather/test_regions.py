"""Windows across any seam, against numpy.roll on the globe."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InputError
from pipelines.weather.canonical import check, to_canonical
from pipelines.weather.regions import Region, around, window
from tests.weather_files import field

GLOBE = to_canonical(field(lon0=0.0, times=2))


@given(st.integers(-54, 54), st.integers(1, 36), st.integers(0, 17), st.data())
def test_any_window_is_a_rolled_globe(first, count, top, data):
    bottom = data.draw(st.integers(top, 17))
    west = -180 + 10 * first
    region = Region(west, float(GLOBE.lat[bottom]), west + 10 * (count - 1), float(GLOBE.lat[top]))
    got = check(window(GLOBE, region))
    rolled = np.roll(GLOBE.t2m.values, -first, axis=2)[:, top : bottom + 1, :count]
    np.testing.assert_array_equal(got.t2m, rolled)
    assert np.isfinite(got.t2m).all()
    np.testing.assert_array_equal(np.diff(got.lon), 10)
    np.testing.assert_allclose((got.lon - (west + 10 * np.arange(count)) + 180) % 360, 180)


def test_west_beyond_east_crosses_the_antimeridian():
    got = window(GLOBE, Region(160, -20, -160, 20))
    np.testing.assert_array_equal(got.lon, [160, 170, 180, 190, 200])
    np.testing.assert_array_equal(got.t2m[:, :, 3], window(GLOBE, Region(-170, -20, -170, 20)).t2m[:, :, 0])
    assert window(GLOBE, Region(-180, -90, 180, 90)).sizes["lon"] == 36


def test_one_cell_around():
    got = around(GLOBE, Region(-4, 1, 4, 4))
    np.testing.assert_array_equal(got.lon, [-10, 0, 10])
    np.testing.assert_array_equal(got.lat, [5, -5])


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (Region(-30, -5, 5, 5), "30W..5E, 5S..5N is wanted, it covers 0..50E, 85S..85N in cells of 10 x 10 deg"),
        (Region(100, -5, 120, 5), "no centre of a cell .* it covers 0..50E, 85S..85N; choose inside"),
        (Region(1, 1, 2, 2), "no centre of a cell of 10 x 10 deg lies in 1E..2E, 1N..2N.* larger than a cell"),
        (Region(0, 50, 10, 40), "in this order"),
        (Region(np.nan, 0, 10, 40), "region nan, 0, 10, 40: wanted west"),
        (Region(-180, -90, 180, 90), "all longitudes, 90S..90N is wanted"),
    ],
)
def test_what_is_not_covered(region, message):
    part = window(GLOBE, Region(0, -90, 50, 90))
    with pytest.raises(InputError, match=message):
        window(part, region)


def test_grids_without_latitudes():
    with pytest.raises(InputError, match=r"grid is projected.*regrid"):
        window(GLOBE.rename(lat="y", lon="x"), Region(0, 0, 10, 10))
