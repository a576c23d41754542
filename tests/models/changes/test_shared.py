"""Kinds of ground: what is calm is told apart beside fields that vary much more; how far a date spreads its pixels."""

from __future__ import annotations

import numpy as np

from models.changes.seasons import TERMS, Season
from models.changes.shared import BEYOND, find_kinds, find_shared


def test_woods_and_grass_are_two_kinds_beside_fields_of_all_seasons():
    """Fields spread the seasons: by these alone their own differences make all kinds, and wood and grass are one."""
    rng = np.random.default_rng(0)
    what = np.repeat([0, 1, 2], (900, 300, 1200))  # wood, grass, fields
    terms = rng.normal(0, 0.01, (TERMS, 1, what.size))
    terms[1, 0] -= np.array([0.05, 0.15, 0.0])[what]
    fields = what == 2
    terms[..., fields] += rng.normal(0, 0.15, (TERMS, 1, fields.sum()))
    scale = np.array([0.015, 0.04, 0.15])[what][None] * rng.uniform(0.9, 1.1, what.size)
    season = Season(terms.astype(np.float32), scale.astype(np.float32))
    kinds = find_kinds(season).of(season)
    wood, grass, field = (set(kinds[what == of].tolist()) for of in range(3))
    assert not wood & field
    assert not wood & grass


def test_a_spread_is_told_by_the_outer_pixels_and_no_wider_than_in_the_history():
    """A fifth of a kind departs at its edges: the middle does not tell it, and far beyond the history it is a fire."""
    rng = np.random.default_rng(0)
    away = rng.normal(0, 1, (3, 1, 4000)).astype(np.float32)
    away[1, 0, :800] -= 4
    away[2, 0, :800] -= 40
    kinds, scale = np.zeros(4000, np.uint8), np.ones((1, 4000), np.float32)
    usual, mixed, fire = find_shared(away, scale, kinds, 1).spread[:, 0, 0]
    assert usual < 1.1 and 2 < mixed < 3 and fire > 20
    history = find_shared(away[:2], scale, kinds, 1)
    np.testing.assert_allclose(history.widest, [[BEYOND * mixed]], rtol=1e-6)
    held = find_shared(away, scale, kinds, 1, widest=history.widest).spread[:, 0, 0]
    np.testing.assert_allclose(held, [usual, mixed, BEYOND * mixed], rtol=1e-6)


def test_a_date_that_spreads_all_pixels_is_no_change_however_wide():
    """Haze: half of the pixels is farther off than ever, and the limit of the history does not hold."""
    away = np.random.default_rng(0).normal(0, 9, (1, 1, 4000)).astype(np.float32)
    found = find_shared(away, np.ones((1, 4000), np.float32), np.zeros(4000, np.uint8), 1, widest=np.full((1, 1), 2.0))
    np.testing.assert_allclose(found.spread, 9, rtol=0.05)
