import numpy as np
import pytest

from models.baselines import statistics

CHANNELS = ("GREEN", "RED", "NIR_NARROW")


@pytest.fixture
def x():
    return np.random.default_rng(0).uniform(100, 4000, (2, 3, 2, 64, 50)).astype(np.float32)


def index(a, b):
    return (a - b) / (a + b + 0.02)


def test_a_neighbourhood_is_the_mean_and_the_spread_of_its_pixels(x):
    """Each number by hand, for a pixel far from the edge."""
    maps = statistics.neighbourhoods({"imagery": x}, CHANNELS)
    row, col, r = 30, 24, x[1].astype(np.float64) / 1e4
    # NDVI and NDWI of both frames come after the bands' frames.
    values = np.concatenate([r.reshape(6, 64, 50), index(r[2], r[1]), index(r[0], r[2])])
    wanted = [values[:, row, col]]
    for half in (1, 4, 10, 20):
        near = values[:, row - half : row + half + 1, col - half : col + half + 1]
        wanted += [near.mean((1, 2)), near.std((1, 2))]
    wanted += [values.mean((1, 2)), values.std((1, 2))]
    np.testing.assert_allclose(maps[1, :, row, col], np.concatenate(wanted), rtol=1e-4, atol=1e-6)


def test_a_scene_is_told_by_moments_percentiles_and_textures(x):
    found = statistics.scenes({"imagery": x}, CHANNELS)
    values = x[0].astype(np.float64).reshape(6, -1) / 1e4
    assert found.shape == (2, 10 * 13)
    np.testing.assert_allclose(found[0, :6], values.mean(1), rtol=1e-5)
    np.testing.assert_allclose(found[0, 10:16], values.std(1), rtol=1e-5)
    np.testing.assert_allclose(found[0, 40:46], np.median(values, axis=1), rtol=1e-5)


def test_a_flat_scene_has_no_spread(x):
    flat = np.full_like(x, 1234.0)
    maps = statistics.neighbourhoods({"imagery": flat}, CHANNELS)
    spreads = maps.reshape(2, 11, 10, 64, 50)[:, 2::2]
    assert np.abs(spreads).max() < 1e-6


def test_two_dark_bands_have_no_index_and_negative_reflectance_none_beyond_one(x):
    dark = np.zeros_like(x)
    dark[:, 2] = -300.0
    maps = statistics.neighbourhoods({"imagery": dark}, CHANNELS)
    assert np.abs(maps[:, 6:10]).max() < 1e-6


def test_day_of_year_joins_where_dates_are_known(x):
    day = np.array([[[2020, 91.3125], [2020, 0]]] * 2, np.float32)  # a quarter of a year, and none
    for seen in (statistics.own, statistics.neighbourhoods, statistics.summary, statistics.scenes):
        plain, dated = seen({"imagery": x}, CHANNELS), seen({"imagery": x, "time": day}, CHANNELS)
        assert dated.shape[1] == plain.shape[1] + 4
        last = dated[0, -4:].reshape(4, -1)[:, 0]
        np.testing.assert_allclose(last, [1, 0, 0, 1], atol=1e-5)
