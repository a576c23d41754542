"""What was hidden, by what was seen around it, against sums by hand."""

import numpy as np
import pytest
import torch

from models.baselines.neighbours import from_neighbours

PATCH = (1, 2, 2)


def test_hidden_patches_are_means_by_the_inverse_square_of_the_distance():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(1, 2, 2, 6, 4)).astype(np.float32))
    seen = torch.zeros(1, 2, 6, 4, dtype=torch.bool)
    for row, column in ((0, 0), (2, 1)):  # patches of the first frame, of three rows and two columns
        seen[0, 0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = True
    seen[0, 0, 0, 0] = False  # a pixel without data in a patch that was seen
    told = from_neighbours(torch.where(seen[:, None], x, 1e6), seen, PATCH).numpy()
    for band in range(2):
        first, last = x[0, band, 0, :2, :2].numpy(), x[0, band, 0, 4:, 2:].numpy()
        means = (first.sum() - first[0, 0]) / 3, last.mean()
        # From the patch (1, 0) they are 1 and sqrt(2) patches away.
        assert told[0, band, 0, 2:4, :2] == pytest.approx((means[0] + means[1] / 2) / 1.5, rel=1e-4, abs=1e-4)
        # From the patch (0, 1) 1 and 2.
        assert told[0, band, 0, :2, 2:] == pytest.approx((means[0] + means[1] / 4) / 1.25, rel=1e-4, abs=1e-4)
        assert told[0, band, 0, :2, :2] == pytest.approx(means[0], rel=1e-4, abs=1e-4)
    assert np.isnan(told[0, :, 1]).all()  # nothing was seen of the second frame
