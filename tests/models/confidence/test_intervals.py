"""Intervals hold what they promise in groups that nobody saw, and follow where the model is less sure."""

import math

import numpy as np
import pytest

from models.confidence.calibration import LEVELS
from models.confidence.intervals import Intervals, Told, interval_of, learn

QUANTILES = (0.05, 0.1, 0.5, 0.9, 0.95)


def places(rng, *, groups, each=300, off=1.0):
    """Values (N, 1) whose errors grow with them, and places that are off as a whole."""
    group = np.repeat(np.arange(groups), each)
    value = rng.gamma(2, 2, groups * each)
    truth = value + off * rng.normal(0, 1, groups)[group] + rng.normal(0, 1, len(value)) * (0.2 + 0.5 * value)
    return value[:, None], truth, group


def days(rng, *, groups, each=300):
    """Quantiles (N, 5) of rates of which half are dry, and days that are wetter than told."""
    group = np.repeat(np.arange(groups), each)
    scale = rng.gamma(1, 1, len(group))
    answers = scale[:, None] * -np.log(1 - np.clip(2 * np.array(QUANTILES) - 1, 0, 1))
    truth = rng.exponential(1, len(group)) * scale * np.exp(rng.normal(0, 0.5, groups))[group]
    return answers, np.where(rng.random(len(group)) < 0.5, 0, truth), group


@pytest.mark.parametrize(("world", "levels"), [(places, ()), (days, QUANTILES)], ids=["values", "quantiles"])
def test_new_groups_are_covered_as_promised_and_as_measured(world, levels):
    rng = np.random.default_rng(3)
    positive = world is days
    held = {str(level): [] for level in LEVELS}
    for _ in range(8):
        kept, measured = learn(Told.of(*world(rng, groups=25), positive=positive), levels)
        answers, truth, _ = world(rng, groups=60)
        for level in held:
            low, high = kept.intervals[level](answers.T, positive=positive)
            assert (low <= high).all()
            found = measured["intervals"][level]
            held[level].append((((low <= truth) & (truth <= high)).mean(), found["coverage"]))
    for level, pairs in held.items():
        new, told = np.mean(pairs, axis=0)
        assert float(level) - 0.02 <= new <= float(level) + 0.08
        assert told == pytest.approx(new, abs=0.04)


def test_an_interval_is_wider_where_errors_are_larger_and_the_report_says_so():
    kept, measured = learn(Told.of(*places(np.random.default_rng(0), groups=30, off=0.1)), ())
    low, high = kept.intervals["0.9"](np.array([[0.5, 10.0]], np.float32), positive=False)
    assert high[1] - low[1] > 3 * (high[0] - low[0])
    found = measured["intervals"]["0.9"]
    assert found["wide"] > 1.5 * found["narrow"]
    assert found["worst"] <= min(found["coverage"], found["pooled"]) and len(found["groups"]) == 30


def test_with_one_place_a_group_the_stretch_is_the_textbook_order_statistic():
    rng = np.random.default_rng(1)
    truth = rng.normal(0, 2, 49)
    answers = np.tile(np.array([-1.0, 1.0]), (49, 1))
    kept, _ = learn(Told.of(answers, truth, np.arange(49)), (0.05, 0.95))
    departures = np.sort(np.maximum(-1 - truth, truth - 1) / 2)
    wanted = departures[math.ceil(50 * 0.9) - 1]
    assert kept.intervals["0.9"].stretch == pytest.approx(wanted, abs=2e-5)
    low, high = kept.intervals["0.9"](np.array([[-1.0], [1.0]]), positive=False)
    assert ((low <= truth) & (truth <= high)).sum() >= 45
    assert kept.intervals["0.9"](np.array([[-1.0], [1.0]]), positive=True)[0] == 0


@pytest.mark.parametrize(("groups", "levels"), [(3, []), (4, ["0.8"]), (8, ["0.8"]), (9, ["0.9", "0.8"])])
def test_few_groups_bear_no_interval_and_that_is_said(groups, levels):
    kept, measured = learn(Told.of(*places(np.random.default_rng(2), groups=groups)), ())
    assert [*kept.intervals] == levels
    if not levels:
        assert "3 groups left out, one of 80 % wants 4" in kept.said and not measured["intervals"]


def test_what_is_kept_is_what_maps_are_drawn_by():
    kept, _ = learn(Told.of(*places(np.random.default_rng(5), groups=12)), ())
    level, interval = interval_of(kept.to_json())
    x = np.linspace(-1, 30, 7, dtype=np.float32)[None]
    for ours, theirs in zip(interval(x, positive=False), kept.intervals["0.9"](x, positive=False), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert level == 0.9 and interval_of(Intervals(2).to_json()) is None and interval_of({}) is None


def test_many_days_take_no_more_than_a_moment_and_none_is_lost():
    kept, measured = learn(Told.of(*days(np.random.default_rng(4), groups=700, each=20)), QUANTILES)
    assert len(measured["intervals"]["0.9"]["groups"]) == 700 and kept.groups == 700
    assert measured["intervals"]["0.9"]["coverage"] >= 0.9


def test_answers_that_are_no_numbers_teach_nothing():
    answers, truth, group = places(np.random.default_rng(1), groups=20, each=50)
    broken = np.concatenate((answers, np.full((500, 1), np.nan), np.full((500, 1), np.inf)))
    more = np.concatenate((group, np.arange(1000) % 30))
    ours, told = learn(Told.of(broken, np.concatenate((truth, np.zeros(1000))), more), ())
    theirs, alike = learn(Told.of(answers, truth, group), ())
    assert ours == theirs and told == alike
    kept, told = learn(Told.of(broken[1000:], np.zeros(1000), more[1000:]), ())
    assert kept.intervals == {} and told["groups"] == 0 and kept.said.startswith("No intervals: 0 groups")


def test_of_what_is_never_negative_no_end_is():
    answers, truth, group = places(np.random.default_rng(2), groups=25)
    kept, _ = learn(Told.of(answers, truth.clip(0), group, positive=True), ())
    low, high = kept.intervals["0.9"](answers.T - 3, positive=kept.positive)
    assert kept.positive and low.min() == 0 and high.min() >= 0 and "Nothing measured is below 0" in kept.said
    assert not learn(Told.of(answers, truth, group), ())[0].positive
