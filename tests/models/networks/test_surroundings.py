"""What a cell is told of its surroundings is what scipy says of them, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d, uniform_filter

from models.baselines.fields import SIDES
from models.networks.surroundings import FARTHEST, MEANS, STEPS, Surroundings


@pytest.mark.parametrize("grid", [(9, 11), (1, 3), (4, 17)])
def test_fields_sums_departures_and_slopes(grid):
    x = np.random.default_rng(0).normal(3, 0.5, (2, 1, 3, *grid)).astype(np.float32)

    parts = Surroundings([3.0] * 3, [0.5] * 3)(torch.from_numpy(x)).reshape(2, *grid, -1)
    parts = parts.movedim(-1, 1).double().numpy().reshape(2, Surroundings.KINDS, 3, *grid)
    counted = np.round((x[:, 0].astype(np.float64) - 3) * 128)  # steps to a deviation of 0.5: 64
    sums = [uniform_filter(counted, (1, 1, side, side), mode="nearest") * side**2 for side in SIDES]
    away = [side**2 * counted - near for side, near in zip(SIDES, sums, strict=True)]
    slopes = [correlate1d(counted, [-1, 0, 1], axis, mode="nearest") for axis in (2, 3)]
    for kind, wanted in enumerate((counted, *sums[: len(MEANS)], *away, *slopes)):
        assert np.array_equal(parts[:, kind], np.round(wanted))


def test_rows_are_the_same_in_whatever_order_they_are_summed_up():
    rows = Surroundings([0.0], [1.0])(torch.randn((1, 2, 1, 20, 20), generator=torch.Generator().manual_seed(0)) * 9)

    assert torch.equal(rows, rows.round()) and rows.abs().max() < 2**24
    assert rows[:, :2].abs().max() == FARTHEST == 6 * STEPS
