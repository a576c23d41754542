"""What each cell of weather fields is told of its surroundings, in whole numbers that trees can split."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.baselines.fields import SIDES

MEANS = SIDES[:2]  # sides whose sums are told, too: cloud around a cell tells more of its rain than that above it
STEPS = 64  # about so many to a deviation
FARTHEST = 6 * STEPS  # fields beyond say no more


class Surroundings(nn.Module):
    """Fields, their sums and departures from means over squares of cells, and their slopes.

    All are whole numbers below 2^24, whose sums are the same in any order: a runtime that rounds otherwise would send
    cells down other branches of a tree. Beyond the edge fields go on with the edge's values.
    """

    KINDS = 1 + len(MEANS) + len(SIDES) + 2  # numbers of each field
    middle: Tensor
    fine: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Count fields from their means, in steps whose width is a power of two, so that counting is exact."""
        super().__init__()
        fine = [2.0 ** round(math.log2(STEPS / one)) for one in std]
        for name, values in (("middle", mean), ("fine", fine)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, weather: Tensor) -> Tensor:
        """Fields (B, T, C, H, W) to rows of cells (B * H * W, F)."""
        counted = ((weather.float() - self.middle) * self.fine).round().clamp(-FARTHEST, FARTHEST).flatten(1, 2)
        sums = [_sum(counted, side) for side in SIDES]
        away = [counted * side**2 - near for side, near in zip(SIDES, sums, strict=True)]
        slopes = [_slope(counted, dim) for dim in (2, 3)]
        return torch.cat((counted, *sums[: len(MEANS)], *away, *slopes), dim=1).movedim(1, -1).flatten(0, 2)


def _sum(counted: Tensor, side: int) -> Tensor:
    """Sums over squares of cells."""
    height, width = counted.shape[2:]
    padded = functional.pad(counted, (side // 2,) * 4, mode="replicate")
    rows = torch.stack([padded.narrow(2, at, height) for at in range(side)]).sum(0)
    return torch.stack([rows.narrow(3, at, width) for at in range(side)]).sum(0)


def _slope(counted: Tensor, dim: int) -> Tensor:
    """Differences of the two neighbours along a dimension."""
    size, padded = counted.shape[dim], functional.pad(counted, (1, 1, 1, 1), mode="replicate")
    inner = padded.narrow(5 - dim, 1, counted.shape[5 - dim])
    return inner.narrow(dim, 2, size) - inner.narrow(dim, 0, size)
