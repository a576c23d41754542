"""Seasons beside numpy's least squares, with clouds that nothing masks, and with few dates."""

from __future__ import annotations

import numpy as np
import pytest

from models.changes import seasons
from models.changes.seasons import fit, waves

DAYS = np.arange(0, 4 * 365, 8)
TERMS = np.array([0.6, 0.2, -0.1, 0.03, 0.02])


@pytest.fixture
def noise():
    return np.random.default_rng(0).normal(0, 0.02, (len(DAYS), 1, 200)).astype(np.float32)


def curve(days=DAYS):
    angle = 2 * np.pi * days / 365.25
    parts = (np.ones(len(days)), np.cos(angle), np.sin(angle), np.cos(2 * angle), np.sin(2 * angle))
    return (TERMS @ np.stack(parts)).astype(np.float32)[:, None, None]


def test_season_is_that_of_least_squares_where_nothing_is_odd(noise):
    y = curve() + noise
    expected = np.linalg.lstsq(waves(DAYS), y[:, 0], rcond=None)[0]
    found = fit(y, DAYS)
    np.testing.assert_allclose(found.terms[:, 0], expected, atol=0.01)
    assert found.scale.mean() == pytest.approx(0.02, rel=0.15)


def test_clouds_that_nothing_masks_do_not_bend_it(noise):
    y = curve() + noise
    cloudy = np.random.default_rng(1).random(y.shape) < 0.15
    found = fit(np.where(cloudy, y - 0.6, y), DAYS)
    assert np.abs(found.terms[0, 0] - TERMS[0]).max() < 0.02  # the mean of all is off by 0.09
    assert np.median(found.scale) < 0.03


def test_dates_that_are_not_clear_count_for_nothing(noise):
    y = curve() + noise
    gone = np.random.default_rng(2).random((len(DAYS), 200)) < 0.5
    part = np.where(gone[:, None], np.float32(np.nan), y)
    for pixel in (0, 7):
        own = ~gone[:, pixel]
        alone = fit(y[own][..., pixel : pixel + 1], DAYS[own])
        np.testing.assert_allclose(fit(part, DAYS).terms[..., pixel], alone.terms[..., 0], atol=1e-4)


def test_expected_is_the_curve_on_any_day(noise):
    later = np.arange(2000, 2400, 30)
    np.testing.assert_allclose(
        fit(curve() + 0 * noise, DAYS).expected(later)[:, 0, 0], curve(later)[:, 0, 0], atol=0.01
    )


def test_few_dates_take_the_scale_of_their_kind():
    y = np.zeros((8, 1, 1), np.float32)
    usual = np.full((1, 1), 0.05, np.float32)
    found = fit(y, np.arange(8) * 30, usual=usual)
    assert found.scale[0, 0] == pytest.approx(0.05 * np.sqrt(20 / 28), rel=0.01)


def test_weights_of_dates_count():
    y = np.where(np.arange(len(DAYS)) % 2, 1.0, 0.0).astype(np.float32)[:, None, None]
    heavy = np.where(np.arange(len(DAYS)) % 2, 1.0, 1e-3).astype(np.float32)
    assert fit(y, DAYS, weights=heavy).terms[0, 0, 0] > 0.9


def test_parts_are_as_the_whole(noise, monkeypatch):
    y = curve() + noise
    whole = fit(y, DAYS)
    monkeypatch.setattr(seasons, "_AT_ONCE", 7 * len(DAYS))
    np.testing.assert_allclose(fit(y, DAYS).terms, whole.terms, atol=1e-5)
