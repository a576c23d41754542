"""Kinds of ground: what is calm is told apart beside fields that vary much more."""

from __future__ import annotations

import numpy as np

from models.changes.seasons import TERMS, Season
from models.changes.shared import find_kinds


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
