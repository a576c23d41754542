"""What a cell is told of its surroundings is what scipy and numpy say of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.baselines.fields import SIDES, departures
from models.networks.surroundings import MEANS, Surroundings


@pytest.mark.parametrize("grid", [(9, 11), (2, 3), (4, 17)])
def test_fields_means_departures_and_slopes(grid):
    x = np.random.default_rng(0).normal(size=(2, 3, *grid)).astype(np.float32)

    rows = Surroundings()(torch.from_numpy(x)).numpy()
    parts = np.split(rows.reshape(2, *grid, -1), Surroundings.KINDS, axis=-1)
    plain = np.split(departures(x[:, None]).transpose(0, 2, 3, 1), 1 + len(SIDES) + 2, axis=-1)
    wanted = [plain[0], *(plain[0] - near for near in plain[1 : 1 + len(MEANS)]), *plain[1:]]
    for part, told in zip(parts, wanted, strict=True):
        assert np.abs(part - told).max() < 1e-5


def test_a_single_row_has_no_slope_across_it():
    x = torch.arange(5.0).reshape(1, 1, 1, 5)

    rows = Surroundings()(x)
    assert rows.shape == (5, Surroundings.KINDS)
    assert torch.equal(rows[:, -2], torch.zeros(5)) and torch.equal(rows[:, -1], torch.ones(5))
