from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import InputError
from pipelines.surveys.allocation import allocate, places, ranks


@settings(max_examples=200)
@given(
    pixels=st.lists(st.integers(1, 5000), min_size=1, max_size=12), least=st.integers(1, 30), more=st.integers(0, 500)
)
def test_points_add_up_and_each_stratum_has_its_least(pixels, least, more):
    size = np.array(pixels)
    floor = np.minimum(size, least)
    n = min(int(floor.sum()) + more, int(size.sum()))
    points = allocate(size, n, least=least)
    assert points.sum() == n and (points >= floor).all() and (points <= size).all()
    free = points > floor  # the others are in proportion: each is less than a point off, so two of them
    ratio = size[free][:, None] / size[free]
    assert (np.abs(points[free][:, None] - points[free] * ratio) < 1 + ratio + 1e-9).all()


def test_proportional():
    assert allocate(np.array([1000, 3000, 6000]), 100, least=5).tolist() == [10, 30, 60]
    assert allocate(np.array([10, 4000, 6000]), 105, least=5).tolist() == [5, 40, 60]
    assert allocate(np.array([2, 998]), 100, least=5).tolist() == [2, 98]


def test_too_few_and_too_many_points_are_refused():
    with pytest.raises(InputError, match="2 strata want 10 points"):
        allocate(np.array([50, 50]), 9, least=5)
    with pytest.raises(InputError, match="the maps have 100 pixels"):
        allocate(np.array([50, 50]), 101, least=5)


@settings(max_examples=50)
@given(seed=st.integers(0, 1000), blocks=st.integers(1, 6), strata=st.integers(1, 4))
def test_ranks_lie_where_counting_finds_them(seed, blocks, strata):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 9, (blocks, strata))
    points = np.array([rng.integers(0, total + 1) for total in counts.sum(axis=0)])
    drawn = ranks(counts.sum(axis=0), points, seed)
    assert [len(np.unique(chosen)) for chosen in drawn] == points.tolist()
    every = [[(b, k) for b in range(blocks) for k in range(counts[b, h])] for h in range(strata)]
    wanted = sorted((h, *every[h][rank]) for h in range(strata) for rank in drawn[h])
    found = [(h, b, int(k)) for b, held in enumerate(places(drawn, counts)) for h, inside in held for k in inside]
    assert sorted(found) == wanted


def test_each_pixel_is_alike_likely():
    counts = np.zeros(10)
    for seed in range(2000):
        counts[ranks(np.array([10]), np.array([3]), seed)[0]] += 1
    assert np.abs(counts / 2000 - 0.3).max() < 0.04  # four standard errors
