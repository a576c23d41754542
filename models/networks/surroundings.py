"""What each cell of weather fields is told of its surroundings, in numbers that trees can split."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.baselines.fields import SIDES

MEANS = SIDES[:2]  # sides whose means are told, too: cloud around a cell tells more of its rain than that above it


class Surroundings(nn.Module):
    """Fields, their means and departures from means over neighbourhoods, and their slopes; see `baselines.departures`.

    Beyond the edge fields go on with the edge's values, but for the slopes, which are one-sided there.
    """

    KINDS = 1 + len(MEANS) + len(SIDES) + 2  # numbers of each field

    def forward(self, fields: Tensor) -> Tensor:
        """Fields (B, C, H, W) to rows of cells (B * H * W, F)."""
        around = [_mean(fields, side) for side in SIDES]
        slopes = [_slope(fields, dim) for dim in (2, 3)]
        parts = (fields, *around[: len(MEANS)], *(fields - mean for mean in around), *slopes)
        return torch.cat(parts, dim=1).movedim(1, -1).flatten(0, 2)


def _mean(fields: Tensor, side: int) -> Tensor:
    """Means over squares of cells."""
    half = side // 2
    return functional.avg_pool2d(functional.pad(fields, (half, half, half, half), mode="replicate"), side, stride=1)


def _slope(fields: Tensor, dim: int) -> Tensor:
    """Differences to the next cells, of both sides where there are two; 0 along a single cell."""
    size = fields.shape[dim]
    after, before = (fields.narrow(dim, at, size - 1) for at in (1, 0))
    step, edge = after - before, fields.narrow(dim, 0, 1) * 0
    ahead, behind = torch.cat((step, edge), dim), torch.cat((edge, step), dim)
    inner = torch.full((size,), 0.5, dtype=fields.dtype)
    inner[0] = inner[-1] = 1.0
    return (ahead + behind) * inner.reshape(-1, *[1] * (fields.ndim - 1 - dim))
