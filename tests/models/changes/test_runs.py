"""Runs of dates, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from models.changes.runs import Runs, highest, step

NAN = np.nan


def watched(*dates, threshold=3.0, scale=0.1, first=100):
    """Runs of one pixel with one feature after dates, ten days apart."""
    runs = Runs.begin(1, 1)
    for at, z in enumerate(dates):
        z = np.array([[z]], np.float32)
        step(runs, z, first + 10 * at, threshold=np.array([threshold]), scale=np.array([[scale]], np.float32))
    return runs


def test_three_clear_dates_that_agree_make_a_change():
    runs = watched(0.1, -4, -5, -6)
    assert (runs.changed[0], runs.before[0], runs.told[0]) == (110, 100, 130)
    assert runs.size[0, 0] == pytest.approx(-0.5)  # the mean of the three, times the scale
    assert runs.score[0] == pytest.approx(4)


@pytest.mark.parametrize("dates", [(0, -4, -5), (-4, -5, 1, -6), (-4, 5, -6), (-4, -2.9, -5), (-9, NAN, -9)])
def test_fewer_or_other_dates_make_none(dates):
    assert watched(*dates).changed[0] == 0


def test_a_cloud_between_only_delays():
    runs = watched(0.1, -4, NAN, -5, NAN, -6)
    assert (runs.changed[0], runs.before[0], runs.told[0]) == (110, 100, 150)
    assert runs.seen[0] == 4


def test_score_is_the_length_over_features():
    z = np.array([[[3.0], [4.0]]] * 3, np.float32)
    assert highest(z)[0] == pytest.approx(5)
    assert highest(z * [[[1], [-1]]])[0] == pytest.approx(5)  # either way


def test_highest_is_of_any_three_dates_in_a_row():
    z = np.array([5, 1, -6, -7, -8, 0, 9], np.float32).reshape(-1, 1, 1)
    assert highest(z)[0] == pytest.approx(6)


def test_values_that_are_usual_again_take_it_back():
    back = watched(0.1, -4, -5, -6, 0.2, 2.2, -0.3)
    assert back.changed[0] == 0 and back.ended[0] == 140
    assert watched(0.1, -4, -5, -6, 0.2, 2.2, -2.3).changed[0] == 110  # above three quarters of the threshold
    assert watched(0.1, -4, -5, -6, 0.2, -4, 0.2, 0.1).changed[0] == 110  # not in a row


def test_a_second_change_follows_one_that_was_taken_back():
    runs = watched(0.1, -4, -5, -6, 0.2, 0.4, -0.3, 8, 8, 8)
    assert (runs.changed[0], runs.before[0]) == (170, 160)
    assert runs.size[0, 0] == pytest.approx(0.8)


def test_pixels_without_threshold_are_never_alarmed():
    assert watched(-9, -9, -9, -9, threshold=NAN).changed[0] == 0
