"""What is unlike training pixels: by the distance to the nearest of them, and what would make it alike."""

import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.spatial import cKDTree

from models.backbones.catalogue import BANDS
from models.bundle import Bundle, load_familiar, read_bundle, write_bundle, write_familiar
from models.confidence import familiar
from models.confidence.familiar import Familiar, features_of, features_of_series, fit, flagged, looks_like, told_apart
from models.errors import InputError
from models.spec import Series
from models.training.settings import Architecture

# Reflectance x10000 of vegetation, soil, water and town, band by band.
SURFACES = np.array(
    [
        [300, 500, 400, 3000, 1800, 900],
        [900, 1300, 1800, 2400, 3000, 2500],
        [500, 400, 250, 150, 80, 50],
        [1200, 1300, 1400, 1900, 2000, 1800],
    ],
)


def pixels(count, seed=0, groups=12):
    """Mixtures of surfaces (C, 1, N, 1), a little brighter or darker by group, and the groups (N,)."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(4, 0.5), count)
    group = np.arange(count) % groups
    light = np.exp(rng.normal(0, 0.08, groups))[group]
    x = (shares @ SURFACES) * light[:, None] + rng.normal(0, 20, (count, 6))
    return x.T.reshape(6, 1, count, 1).astype(np.float32), group


def rows(x):
    return features_of(x[None], BANDS)[0]


@pytest.fixture(scope="module")
def known():
    x, group = pixels(6000)
    return fit(rows(x), group)


def test_distance_is_that_of_the_nearest_kept_pixel(known):
    x, _ = pixels(300, seed=1)
    turned = (rows(x) - known.mean) @ known.turn
    by_tree, _ = cKDTree(known.kept).query(turned)
    np.testing.assert_allclose(known(rows(x)) * known.scale, by_tree, atol=2e-2)


def test_others_of_the_same_kind_are_mostly_inside_and_foreign_ones_outside(known):
    x, _ = pixels(2000, seed=2)
    assert np.mean(known(rows(x)) > 1) < 0.12
    cloud = np.full_like(x, 6500) + np.random.default_rng(0).normal(0, 300, x.shape).astype(np.float32)
    for foreign in (cloud, x + 5000, x[::-1], x * 10, np.full_like(x, 500)):
        assert np.mean(known(rows(foreign)) > 1) > 0.8


def test_every_group_is_kept_and_nothing_depends_on_order_but_the_draw():
    x, group = pixels(3000, groups=50)
    group[:2000] = 0  # a place that holds most of the pixels
    found = familiar._kept(rows(x), group, 0)
    assert len(found.kept) == familiar.KEPT
    turned = (rows(x) - found.mean) @ found.turn
    of = group[cKDTree(turned).query(found.kept)[1]]
    assert set(of) == set(group) and np.mean(of == 0) < 0.6


def test_flagged_counts_each_left_out_group():
    x, group = pixels(4000)
    shares = flagged(rows(x), group)
    assert shares.shape == (12,) and shares.min() >= 0 and shares.mean() < 0.15
    odd = x.copy()
    odd[:, :, group == 5] += 4000
    assert flagged(rows(odd), group)[5] > 0.9


def test_kept_as_arrays_and_back(known):
    again = Familiar.of_arrays(known.arrays(), len(known.mean))
    x, _ = pixels(50, seed=3)
    np.testing.assert_array_equal(again(rows(x)), known(rows(x)))
    assert sum(a.nbytes for a in known.arrays().values()) < 200_000


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda x: x[[0, 1, 2, 4, 3, 5]], "NIR_NARROW looks like SWIR_1"),
        (lambda x: x[::-1], "reversed"),
        (lambda x: x / 10_000, "10,000 times too small"),
        (lambda x: x * 10, "10 times too large"),
        (lambda x: x + 1000, "1000 too high"),
    ],
)
def test_what_looks_wrong_is_named(known, change, told):
    x, _ = pixels(1000, seed=4)
    assert told in looks_like(known, np.ascontiguousarray(change(x)), BANDS)


def test_nothing_is_named_where_nothing_helps(known):
    noise = np.random.default_rng(0).uniform(4000, 9000, (6, 1, 500, 1)).astype(np.float32)
    assert looks_like(known, noise, BANDS) == ""


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mean", lambda a: a[:-1]),
        ("mean", lambda a: a + np.inf),
        ("mean", lambda a: a.astype(np.float64)),
        ("turn", lambda a: a[:, :2].copy()),
        ("kept", lambda a: a * np.nan),
        ("kept", lambda a: a[:0]),
        ("kept", lambda a: a[0].copy()),
        ("kept", lambda a: np.repeat(a, 200, 0)),
        ("scale", lambda a: a * 0),
        ("scale", lambda a: -a),
        ("scale", lambda a: a[None]),
        ("scale", lambda a: a[:0]),
        ("scale", lambda a: a[0]),
    ],
)
def test_pixels_that_are_none_are_refused_as_they_are_read(make_spec, tmp_path, name, change):
    spec = make_spec()
    channels = spec.imagery.channels
    known = fit(features_of(np.random.default_rng(0).random((1, 3, 1, 20, 20)), channels)[0], np.arange(400) % 8)
    bundle = Bundle(spec, "prithvi_eo_v2_300_tl", Architecture())
    write_familiar(tmp_path, known)
    write_bundle(tmp_path, bundle)
    assert load_familiar(tmp_path, read_bundle(tmp_path)).scale == pytest.approx(known.scale)
    save_file(known.arrays() | {name: np.asarray(change(known.arrays()[name]))}, tmp_path / "familiar.safetensors")
    write_bundle(tmp_path, bundle)
    with pytest.raises(InputError, match=r"familiar.safetensors: damaged \(.*wanted .*copy the whole run folder again"):
        load_familiar(tmp_path, read_bundle(tmp_path))


def test_pixels_of_two_dates_are_read_again(make_spec, tmp_path):
    spec = make_spec(frames=2)
    x = np.random.default_rng(0).random((1, 3, 2, 20, 20))
    known = fit(features_of(x, spec.imagery.channels)[0], np.arange(400) % 8)
    write_familiar(tmp_path, known)
    write_bundle(tmp_path, Bundle(spec, "prithvi_eo_v2_300_tl", Architecture()))
    again = load_familiar(tmp_path, read_bundle(tmp_path))
    np.testing.assert_array_equal(again.kept, known.kept)


def test_weather_is_told_by_means_of_what_is_there_over_ever_longer_windows():
    series = Series(("pr",), ("mm/d",), (10.0,), (2.0,), 6, 24.0)
    x = np.array([[20.0, 10, 12, 14, 16, 18]], np.float32)[..., None]
    whole, gaps = np.ones_like(x), np.ones_like(x)
    gaps[0, [0, 5]] = 0
    np.testing.assert_allclose(features_of_series(x, whole, series), [[4, 3.5, 2.5, 2.5]])  # of 1, 2, 4 and 6 steps
    np.testing.assert_allclose(features_of_series(x, gaps, series), [[0, 3, 2, 1.5]])
    np.testing.assert_array_equal(features_of_series(x * np.nan, 0 * x, series), [[0, 0, 0, 0]])


def test_what_is_far_is_told_apart_and_what_is_the_same_is_not():
    x, group = pixels(600)
    x[1] = x[0]  # so that nothing is changed by swapping these two
    found = told_apart(x, group, BANDS)
    assert found["the values seem 10,000 times too small"] > 0.99 < found["the bands seem to come in reversed order"]
    assert found[f"{BANDS[0]} looks like {BANDS[1]}, and {BANDS[1]} like {BANDS[0]}"] == 0.5
    assert all(0 <= share <= 1 for share in found.values()) and len(found) == 15 + 9
    other = told_apart(x, group, BANDS, seed=1)
    assert other != found and told_apart(x, group, BANDS) == found


def test_each_group_is_told_of_by_the_others():
    """A group that is like no other lies as far as what is changed; whoever had kept its pixels would not see that."""
    x, group = pixels(1200)
    odd = x.copy()
    odd[:, :, group == 5] += 4000
    kind = "the bands seem to come in reversed order"
    assert told_apart(x, group, BANDS)[kind] > 0.99 and told_apart(odd, group, BANDS)[kind] < 0.9
