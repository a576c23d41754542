"""Temperatures and sets against made answers whose truth is drawn by known probabilities."""

import numpy as np
import pytest
from scipy.special import softmax

from models.confidence.calibration import Judged, auroc, calibrate, measures, members, tempered, threshold, words

GROUPS, EACH, CLASSES = 24, 400, 5


def judged(*, sharp=1.0, groups=GROUPS, shift=0.0, seed=0):
    """Answers of groups of quite different sizes; truth follows their probabilities, but they say them `sharp`er."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(EACH // 8, 2 * EACH, groups)
    group = np.repeat(np.arange(groups), sizes)
    logits = rng.normal(0, 2, (len(group), CLASSES))
    true = softmax(logits + shift * rng.normal(size=(groups, CLASSES))[group], axis=1)
    truth = (rng.random(len(group))[:, None] > true.cumsum(1)).sum(1).clip(0, CLASSES - 1)
    return Judged.of(softmax(sharp * logits, axis=1), truth, np.array([f"p{g:02d}" for g in group]))


@pytest.mark.parametrize("sharp", [0.6, 1.7])
def test_temperature_undoes_what_sharpened_the_answers(sharp):
    found = calibrate(judged(sharp=sharp))
    assert found.temperature == pytest.approx(sharp, rel=0.06)  # p^(sharp/T) is the truth at T = sharp
    assert f"{GROUPS} groups" in found.said


def test_order_of_classes_stays_and_probabilities_add_up():
    p = judged().p
    q = tempered(p, 1.8, axis=1)
    np.testing.assert_array_equal(np.argsort(q, axis=1), np.argsort(p, axis=1))
    np.testing.assert_allclose(q.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(q[:, 0] / q[:, 1], (p[:, 0] / p[:, 1]) ** (1 / 1.8), rtol=1e-3)
    assert tempered(p, 1, axis=1) is p


def test_few_groups_are_not_calibrated_on_however_many_pixels_they_have():
    found = calibrate(judged(sharp=1.7, groups=9))
    assert (
        found.temperature == 1 and "9 groups" in found.said and list(found.sets) == ["0.8"]
    )  # at 0.9 half the classes
    assert not calibrate(judged(groups=3)).sets


def test_no_temperature_where_leaving_groups_out_shows_no_gain():
    """Two halves of groups that want opposite temperatures: what is fitted on some harms others as much."""
    sharp, flat = judged(sharp=1.3, groups=6), judged(sharp=1 / 1.3, groups=6, seed=1)
    both = Judged(
        np.concatenate((sharp.p, flat.p)),
        np.concatenate((sharp.truth, flat.truth)),
        np.concatenate((sharp.group, flat.group + 6)),
    )
    loss = {t: -np.log(both.at(t).right) @ both.weight for t in (1, calibrate(both).temperature)}
    assert loss[calibrate(both).temperature] <= loss[1]


def test_threshold_is_the_quantile_of_a_mixture_by_group_with_a_share_at_infinity():
    """By hand: 9 groups of one pixel each and a tenth share beyond; 0.9 wants them all, 0.8 lets one go."""
    right = np.linspace(0.1, 0.9, 9, dtype=np.float32)
    group = np.arange(9)
    assert threshold(right, group, 0.9) == pytest.approx(0.1)
    assert threshold(right, group, 0.8) == pytest.approx(0.2)
    assert threshold(right[:8], group[:8], 0.9) is None and threshold(right[:3], group[:3], 0.8) is None
    assert threshold(right[:4], group[:4], 0.8) == pytest.approx(0.1)


def test_a_large_group_weighs_as_a_small_one():
    right = np.concatenate((np.full(1000, 0.9), np.linspace(0.1, 0.5, 10))).astype(np.float32)
    group = np.concatenate((np.zeros(1000, int), np.arange(1, 11)))
    assert threshold(right, group, 0.8) < 0.25  # pooled by pixels it would be 0.9


def test_sets_hold_the_right_class_as_often_as_they_promise_though_groups_differ():
    """Learned on some groups, asked about as many others, several times: the promise is an average over draws."""
    held = []
    for seed in range(12):
        learned, asked = (judged(shift=1.0, seed=seed + 100 * i) for i in range(2))
        inside = members(asked.p, threshold(learned.right, learned.group, 0.9))
        hit = inside[np.arange(len(inside)), asked.truth]
        held.append(asked.weight @ hit)
    assert 0.88 <= np.mean(held) <= 0.96


def test_the_likeliest_class_is_in_every_set():
    p = np.array([[0.4, 0.3, 0.3], [0.9, 0.05, 0.05]])
    np.testing.assert_array_equal(members(p, 0.95), [[1, 0, 0], [1, 0, 0]])
    np.testing.assert_array_equal(members(p.T, 0.3, axis=0), [[1, 1], [1, 0], [1, 0]])


def test_measures_tell_of_each_group_by_the_others():
    found = judged(sharp=1.7)
    told = measures(found, calibrate(found))
    assert told["raw"]["ece"] > 3 * told["calibrated"]["ece"] and told["calibrated"]["ece"] < 0.02
    sure, right = found.p.max(1), found.p.argmax(1) == found.truth
    assert told["coverage"][-1] == pytest.approx(right.mean())
    assert told["coverage"][0] > told["coverage"][-1] and told["raw"]["half"] > right.mean()
    by_hand = np.mean(sure[right][:, None] > sure[~right][None, ::7])
    assert told["raw"]["auroc"] == pytest.approx(by_hand, abs=0.01)
    sets = told["sets"]["0.9"]
    assert len(sets["groups"]) == GROUPS and sets["worst"] <= min(sets["groups"][:3]) + 0.2
    assert 0.88 < sets["coverage"] < 0.96
    assert "24 that were left out" in words(told, CLASSES)[0]
    few = judged(groups=3)
    assert "No sets" in words(measures(few, calibrate(few)), CLASSES)[0]


def test_auroc_of_ties_is_a_half_and_of_one_kind_nothing():
    assert auroc(np.ones(4), np.array([True, False, True, False])) == 0.5
    assert np.isnan(auroc(np.ones(2), np.array([True, True])))
