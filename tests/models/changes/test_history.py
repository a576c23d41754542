"""Histories: what they refuse, how many false alarms they keep to, and what is shared beside what is not."""

from __future__ import annotations

import numpy as np
import pytest

from models.changes.history import History, check_years, learn
from models.changes.shared import find_shared
from models.changes.watch import Watch
from models.errors import InputError

STEP, PIXELS = 15, 1500
DAYS = np.arange(18000, 18000 + int(5 * 365.25), STEP)
BEFORE = DAYS < 18000 + 3 * 365.25


def series(seed=0):
    """Two kinds of ground, each with its season; what a date shares; noise: (T, 2, N)."""
    rng = np.random.default_rng(seed)
    angle = 2 * np.pi * DAYS / 365.25
    green = np.arange(PIXELS) % 2
    season = np.where(green, 0.5 + 0.3 * np.sin(angle)[:, None], 0.8 + 0.02 * np.sin(angle)[:, None])
    shared = rng.normal(0, 0.03, (len(DAYS), 1)) * np.where(green, 2, 1)
    y = np.stack([season + shared, 0.7 * season + shared], axis=1)
    y += rng.normal(0, 0.02, y.shape) * rng.uniform(0.7, 1.4, PIXELS)
    return y.astype(np.float32), green


@pytest.fixture(scope="module")
def place():
    rng = np.random.default_rng(0)
    y, green = series()
    cloud = rng.random((len(DAYS), PIXELS)) < 0.3
    return np.where(cloud[:, None], np.float32(np.nan), y), green


@pytest.fixture(scope="module")
def history(place) -> History:
    return learn(place[0][BEFORE], DAYS[BEFORE])


def run(history, y, rate=0.05):
    watch = Watch.begin(history, y[BEFORE], rate)
    for day, date in zip(DAYS[~BEFORE], y[~BEFORE], strict=True):
        watch.date(date, int(day))
    return watch


def test_false_alarms_are_as_many_as_stated(history, place):
    changed = run(history, place[0]).runs.told > 0
    assert 0.02 < changed.mean() / 2 < 0.1  # two years at a rate of 0.05


def test_a_step_is_found_on_its_day_and_one_of_all_is_told_of_the_kind(history, place):
    y, green = place
    y = y.copy()
    at = int(np.flatnonzero(~BEFORE)[10])
    y[at:, :, :20] -= 0.3
    watch = run(history, y, rate=0.01)
    first = DAYS[at:][np.isfinite(y[at:, 0, :20]).argmax(axis=0)]
    assert (watch.runs.changed[:20] == first).mean() > 0.8
    assert not watch.of_kinds.changed.any()
    y[at:, :, green == 1] -= 0.3
    watch = run(history, y, rate=0.01)
    kinds = np.unique(watch.ground.kinds[green == 1])
    assert (watch.of_kinds.changed[kinds] > 0).all() and (watch.runs.changed[green == 1] > 0).mean() < 0.1


def test_threshold_falls_with_the_rate_and_chance_is_its_reverse(history, place):
    ground = history.ground(place[0][BEFORE])
    low, high = history.threshold(0.05, ground), history.threshold(0.01, ground)
    assert (low < high).all()
    np.testing.assert_allclose(history.chance(high / ground.unit, ground.kinds), 0.01, atol=1e-3)


def test_pixels_with_few_dates_are_not_watched(history, place):
    y = place[0][BEFORE].copy()
    y[5:, :, 0] = np.nan
    ground = history.ground(y)
    assert np.isnan(ground.astray[0]) and np.isfinite(ground.astray[1:]).all()


def test_kinds_are_the_two_grounds(history, place):
    kinds = history.ground(place[0][BEFORE]).kinds
    assert not set(kinds[place[1] == 0]) & set(kinds[place[1] == 1])


def test_shared_is_the_median_of_the_kind_and_nothing_on_dates_of_clouds():
    rng = np.random.default_rng(3)
    away = rng.normal(0, 1, (2, 1, 100)).astype(np.float32)
    away[1, 0, 20:] = np.nan
    kinds = (np.arange(100) >= 40).astype(np.uint8)
    shared = find_shared(away, np.ones((1, 100), np.float32), kinds, 2)
    np.testing.assert_allclose(shared.centre[0, 0], [np.median(away[0, 0, :40]), np.median(away[0, 0, 40:])], rtol=1e-6)
    assert np.isnan(shared.centre[1]).all() and shared.own.tolist() == [[True, True], [False, False]]
    assert (shared.spread >= 1).all()


@pytest.mark.parametrize(
    ("days", "told"),
    [
        (np.arange(0, 500, 10), "spans 1.3 years"),
        (np.concatenate((np.arange(0, 365, 10), np.arange(700, 731, 10))), "at least 6 are wanted"),
        (np.array([], np.int64), "spans 0.0 years"),
    ],
)
def test_short_histories_are_refused_with_the_reason(days, told):
    with pytest.raises(InputError, match=told):
        check_years(days)


def test_a_handful_of_pixels_is_refused(place):
    with pytest.raises(InputError, match="60 pixels have 6 clear dates"):
        learn(place[0][BEFORE][..., :60], DAYS[BEFORE])
