"""Published examples, an independent library's numbers, and what holds of any sample."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.surveys.estimates import Sample, accuracy, class_areas, post_strata, powered_areas


def drawn(matrix, pixels, areas=None):
    """A sample whose strata are map classes, from a matrix of counts (map class, labelled class)."""
    mapped = np.repeat(np.arange(len(matrix)), matrix.sum(axis=1))
    truth = np.concatenate([np.repeat(np.arange(len(row)), row) for row in matrix])
    areas = np.array(pixels, float) if areas is None else areas
    return Sample(mapped, np.ones(len(mapped)), np.array(pixels), areas), truth, mapped


# Olofsson et al. (2014), Table 8: deforestation, forest gain, stable forest, stable non-forest; ten million pixels.
OLOFSSON = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
PPI = (0.49912378, 0.43469748, 0.56355008)
PIXELS = np.array([200_000, 150_000, 3_200_000, 6_450_000])


def test_example_of_olofsson_et_al():
    """Page 54: 235,086 pixels +/- 68,418 of deforestation; accuracies with half widths of their intervals."""
    sample, truth, mapped = drawn(OLOFSSON, PIXELS, PIXELS.astype(float))
    found = class_areas(sample, truth, 4)
    assert found.value[0] == pytest.approx(235_086, abs=1)
    assert 1.96 * found.se[0] == pytest.approx(68_418, rel=2e-4)  # without their correction for finite strata
    right = accuracy(sample, truth, mapped, 4)
    assert right.overall.value[0] == pytest.approx(0.95, abs=0.005)
    assert 1.96 * right.overall.se[0] == pytest.approx(0.02, abs=0.005)
    assert np.allclose(right.users.value, [0.88, 0.73, 0.93, 0.96], atol=0.005)
    assert np.allclose(1.96 * right.users.se, [0.07, 0.10, 0.04, 0.02], atol=0.005)
    assert np.allclose(right.producers.value, [0.75, 0.85, 0.93, 0.96], atol=0.005)


def test_example_of_stehman():
    """Stehman (2014), Table 2: strata A to D of 40,000, 30,000, 20,000 and 10,000 pixels that are not the classes."""
    mapped, truth = "AAAAAAABBBABBBBBBBBBBBCCCCCCBBDDDDDDDDDD", "AAAAACBABCABBBBBAABBCCCCCDDBBADDDDDDDCCB"
    mapped, truth = (np.array(["ABCD".index(one) for one in said]) for said in (mapped, truth))
    pixels = np.array([40_000, 30_000, 20_000, 10_000])
    sample = Sample(np.repeat(np.arange(4), 10), np.ones(40), pixels * 1000, pixels / 100_000)
    found, right = class_areas(sample, truth, 4), accuracy(sample, truth, mapped, 4)
    assert np.allclose((found.value[0], found.value[2]), (0.35, 0.20))
    assert np.allclose((found.se[0], found.se[2]), (0.082, 0.064), atol=5e-4)
    assert (right.overall.value[0], right.overall.se[0]) == pytest.approx((0.63, 0.085), abs=5e-4)
    assert (right.users.value[1], right.users.se[1]) == pytest.approx((0.574, 0.125), abs=5e-4)
    assert (right.producers.value[1], right.producers.se[1]) == pytest.approx((0.794, 0.116), abs=1e-3)


def olofsson(matrix, weight):
    """Standard errors of areas, user's and producer's accuracy as Olofsson et al. (2014) write them, eqs. 6, 7, 10."""
    n = matrix.sum(axis=1, keepdims=True)
    p = matrix / n
    spread = p * (1 - p) / (n - 1)
    area = np.sqrt((weight[:, None] ** 2 * spread).sum(axis=0))
    users = np.diag(p)
    total = (weight[:, None] * p).sum(axis=0)
    producers = weight * users / total
    own = (weight * (1 - producers)) ** 2 * users * (1 - users) / (n[:, 0] - 1)
    others = weight[:, None] ** 2 * spread * (1 - np.eye(len(p)))
    return area, np.sqrt(np.diag(spread)), np.sqrt(own + producers**2 * others.sum(axis=0)) / total


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_with_classes_as_strata_formulas_of_stehman_are_those_of_olofsson(seed):
    rng = np.random.default_rng(seed)
    matrix, weight = rng.integers(1, 30, (4, 4)), rng.dirichlet(np.ones(4))
    sample, truth, mapped = drawn(matrix, np.full(4, 10**12), weight)
    right = accuracy(sample, truth, mapped, 4)
    found = class_areas(sample, truth, 4).se, right.users.se, right.producers.se
    assert all(np.allclose(one, two, rtol=1e-6) for one, two in zip(found, olofsson(matrix, weight), strict=True))


def test_prediction_powered_means_are_those_of_ppi_python():
    """ppi-python 0.2.3, ppi_mean_pointestimate and ppi_mean_ci (alpha 0.05) of these numbers."""
    at, every = np.arange(200), np.arange(100_000)
    chance = 0.1 + 0.7 * ((at * 37) % 200 + 0.5) / 200
    truth = ((((at * 61) % 200 + 0.5) / 200) < chance).astype(int)
    whole = 0.15 + 0.7 * ((every * 7919) % 100_000 + 0.5) / 100_000
    sample = Sample(np.zeros(200, int), np.ones(200), np.array([10**9]), np.array([1.0]))
    both = np.stack([1 - chance, chance], axis=1)
    found, _ = powered_areas(sample, truth, both, np.array([[1 - whole.mean(), whole.mean()]]))
    low, high = found.interval(1.0)
    assert (found.value[1], low[1], high[1]) == pytest.approx(PPI, abs=3e-4)  # its 100,000 are a sample, ours are all


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_useless_probabilities_cost_nothing_and_perfect_ones_leave_no_error(seed):
    rng = np.random.default_rng(seed)
    stratum, truth = np.repeat([0, 1], [40, 25]), rng.integers(0, 3, 65)
    sample = Sample(stratum, rng.uniform(1, 2, 65), np.array([4000, 900]), np.array([60.0, 12.0]))
    plain = class_areas(sample, truth, 3)
    same, weight = powered_areas(sample, truth, np.full((65, 3), 1 / 3), np.full((2, 3), 24.0))
    assert np.allclose(same.value, plain.value) and np.allclose(same.se, plain.se) and not weight.any()
    sums = rng.uniform(1, 20, (2, 3))
    perfect, weight = powered_areas(sample, truth, np.eye(3)[truth], sums)
    assert np.allclose(weight, 1) and np.allclose(perfect.value, sums.sum(axis=0)) and np.allclose(perfect.se, 0)


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_a_census_has_the_true_areas_and_no_error(seed):
    rng = np.random.default_rng(seed)
    stratum, truth, mapped = rng.permutation(np.arange(60) % 4), rng.integers(0, 3, 60), rng.integers(0, 3, 60)
    weight = rng.uniform(0.5, 2, 60)
    sample = Sample(stratum, weight, np.bincount(stratum), np.bincount(stratum, weight))
    found, right = class_areas(sample, truth, 3), accuracy(sample, truth, mapped, 3)
    assert np.allclose(found.value, np.bincount(truth, weight, 3)) and np.allclose(found.se, 0)
    assert right.overall.value[0] == pytest.approx(weight[truth == mapped].sum() / weight.sum())
    for code in range(3):
        hit = weight[(truth == code) & (mapped == code)].sum()
        assert right.users.value[code] == pytest.approx(hit / weight[mapped == code].sum())
        assert right.producers.value[code] == pytest.approx(hit / weight[truth == code].sum())


@settings(max_examples=50)
@given(seed=st.integers(0, 10_000))
def test_post_strata_keep_all_pixels_and_none_is_without_points(seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 50, 6) + np.array([100, 0, 0, 0, 0, 0])
    cell = rng.choice(6, 12, p=pixels / pixels.sum())
    area = pixels * rng.uniform(1, 2, 6)
    made = post_strata(cell, pixels, area, np.ones(12))
    assert made.pixels.sum() == pixels.sum() and made.area.sum() == pytest.approx(area.sum())
    assert len(made.area) == 1 or made.points.min() >= 2


def test_a_single_point_takes_the_variance_of_all():
    sample = Sample(np.array([0, 0, 0, 1]), np.ones(4), np.array([10**9, 10**9]), np.array([3.0, 1.0]))
    found = class_areas(sample, np.array([0, 1, 0, 1]), 2)
    assert found.se[0] ** 2 == pytest.approx(9 * (1 / 3) / 3 + 1 * (1 / 3))


def test_no_interval_without_variance():
    sample, truth, _ = drawn(np.array([[5, 0], [4, 0]]), [1000, 1000])
    low, high = class_areas(sample, truth, 2).interval(2000)
    assert np.isnan(low).all() and np.isnan(high).all()
