"""Heads on a few labels, and what they say of groups that they never saw."""

from __future__ import annotations

import numpy as np
import pytest

from models.baselines import heads
from models.baselines.heads import Labelled, fit, folds, left_out
from models.baselines.statistics import surroundings, with_indices

BANDS = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
    monkeypatch.setattr(heads, "TREES", 8)


def labelled(seed=0, *, count=60, groups=6, classes=3, shift=2.0):
    rng = np.random.default_rng(seed)
    target = rng.integers(classes, size=count)
    features = rng.normal(size=(count, 4)) + shift * np.eye(4)[target]
    return Labelled(features.astype(np.float32), target, rng.uniform(0.5, 2, count), np.arange(count) % groups, classes)


def test_a_group_is_told_of_by_heads_that_know_nothing_of_it():
    """Nothing of what a fold's labels are changes what is said of the fold: not the head, and not its penalty."""
    one = labelled()
    told, fold = left_out(one), folds(one.group, one.weight)
    assert told and fold.max() == heads.FOLDS - 1
    for number in range(heads.FOLDS):
        mine = fold == number
        changed = one.target.copy()
        changed[mine] = (changed[mine] + 1) % 3
        other = left_out(Labelled(one.features, changed, one.weight, one.group, 3))
        np.testing.assert_array_equal(told.p[mine], other.p[mine])
        assert not np.array_equal(told.p[~mine], other.p[~mine])
    np.testing.assert_allclose(told.p.sum(1), 1, rtol=1e-5)
    assert (told.p.argmax(1) == one.target).mean() > 0.7


def test_groups_go_whole_to_folds_of_about_one_weight():
    group = np.repeat(np.arange(12), 5)
    fold = folds(group, np.ones(60))
    assert all(len(set(fold[group == g])) == 1 for g in range(12))
    assert sorted(np.bincount(fold)) == [10, 10, 10, 15, 15]
    assert (
        left_out(Labelled(np.zeros((4, 2), np.float32), np.array([0, 1, 0, 1]), np.ones(4), np.zeros(4, int), 2))
        is None
    )


def test_strong_penalties_are_chosen_where_features_say_nothing():
    assert left_out(labelled(shift=0.0, count=120)).strength == min(heads.STRENGTHS)
    assert left_out(labelled(shift=6.0, count=120)).strength == max(heads.STRENGTHS)


def test_rare_classes_weigh_as_much_as_others_and_one_cloud_changes_little():
    rng = np.random.default_rng(1)
    features = np.concatenate((rng.normal(-1, 1, (90, 2)), rng.normal(1, 1, (10, 2)))).astype(np.float32)
    target = np.repeat([0, 1], (90, 10))
    one = Labelled(features, target, np.ones(100), np.arange(100), 2)
    assert 0.35 < fit(one, 1.0)(np.zeros((1, 2), np.float32))[0, 1] < 0.65
    assert one.balanced[target == 0].sum() == pytest.approx(one.balanced[target == 1].sum())
    head = fit(one, 1.0)
    far = head(np.array([[1e6, 1e6], [20, 20]], np.float32))
    np.testing.assert_array_equal(far[0], far[1])


def test_a_class_that_a_fold_lacks_is_told_by_nobody():
    one = labelled()
    target = np.where(one.group == 0, 2, one.target % 2)
    told = left_out(Labelled(one.features, target, one.weight, one.group, 3))
    assert (told.p[one.group == 0, 2] == 0).all()


def test_surroundings_are_those_of_valid_pixels_whatever_is_read():
    rng = np.random.default_rng(0)
    x, valid = rng.uniform(100, 5000, (6, 2, 12, 14)).astype(np.float32), rng.random((12, 14)) > 0.3
    x[:, :, ~valid] = np.nan
    found = surroundings(x, valid, BANDS, (3, 5))
    values = with_indices(np.where(valid, x, 0)[None], BANDS)[0]
    count = len(values)
    assert found.shape == (5 * count, 12, 14)
    for row, column in ((0, 0), (5, 7), (11, 13), (2, 11)):
        for n, side in enumerate((3, 5)):
            r, c = (slice(max(at - side // 2, 0), at + side // 2 + 1) for at in (row, column))
            near = values[:, r, c][:, valid[r, c]]
            mean, spread = (found[(1 + 2 * n + k) * count :][:count, row, column] for k in (0, 1))
            np.testing.assert_allclose(mean, near.mean(1), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(spread, near.std(1), rtol=1e-3, atol=1e-4)
    window = surroundings(x[..., 2:, :10], valid[2:, :10], BANDS, (3, 5))
    np.testing.assert_allclose(window[:, 2:, :8], found[:, 4:, :8], rtol=1e-4, atol=1e-5)
