"""A distribution of rain given by quantiles: what keeps them in order, the pinball loss, mean and exceedance.

Between levels the quantile function is linear, below the lowest it falls to zero at level 0, and above the highest it
goes on as that of an exponential distribution through the last two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.baselines.fields import Forecast
from models.spec import LEVELS, Quantiles, Values, check_levels
from models.training.processes import mean_of_all
from models.types import Array


class Shape(nn.Module):
    """Quantiles that never cross: a location and two widths of each cell on a shape that all cells share.

    A cell's latent quantiles are m + w g: g rises through the levels and is 0 at the middle one, with one width below
    it and another above. No level can die, for what moves it is asked in every cell. Rain is as `wet` says.
    """

    PARTS = 3  # what a cell is told by

    def __init__(self, levels: Sequence[float] = LEVELS) -> None:
        """Build for Q levels; the shape starts as that of a normal distribution.

        Raises:
            InputError: see `spec.check_levels`.
        """
        super().__init__()
        check_levels(tuple(levels))
        normal = torch.special.ndtri(torch.tensor(levels))
        self.steps = nn.Parameter(normal.diff().expm1().log())  # softplus of them rises as the normal one does
        self.middle = min(range(len(levels)), key=lambda i: abs(levels[i] - 0.5))

    def forward(self, parts: Tensor) -> Tensor:
        """Parts (B, 3, H, W) to quantiles (B, Q, H, W), rising along Q, float32; below 0 where it is surely dry."""
        place, below, above = parts.float().unbind(1)  # (B, H, W) each
        rise = functional.pad(functional.softplus(self.steps), (1, 0)).cumsum(0)
        shape = (rise - rise[self.middle])[:, None, None]  # (Q, 1, 1)
        width = functional.softplus(torch.stack((below, above), dim=1))  # (B, 2, H, W)
        return wet(place[:, None] + width[:, :1] * shape.clamp(max=0) + width[:, 1:] * shape.clamp(min=0))


def wet(latent: Tensor) -> Tensor:
    """Rain of a latent number, z + z^2 above zero: about the square where it is heavy; what is below stays."""
    return latent + latent.clamp(min=0).square()


def latent(rain: Tensor) -> Tensor:
    """The number z >= 0 of rain: `wet` inverted."""
    return ((1 + 4 * rain).sqrt() - 1) / 2


def pinball_loss(quantiles: Tensor, truth: Tensor, levels: Sequence[float]) -> Tensor:
    """Mean over levels and known values of max(p (y - q), (p - 1) (y - q)): Koenker and Bassett 1978.

    Args:
        quantiles: (B, Q, H, W).
        truth: (B, H, W); NaN is not known and does not count.
        levels: Q levels.
    """
    p = quantiles.new_tensor(levels)[:, None, None]
    error = truth[:, None] - quantiles  # (B, Q, H, W)
    loss = torch.maximum(p * error, (p - 1) * error)
    return mean_of_all(loss[torch.isfinite(loss)])


def expectation(quantiles: Tensor, levels: Sequence[float], *, dim: int = 1) -> Tensor:
    """The mean of the distribution: the integral of its quantile function over 0..1; `dim` is taken away."""
    weights = quantiles.new_tensor(mean_weights(levels))
    mean: Tensor = torch.tensordot(quantiles.movedim(dim, -1), weights, dims=1)
    return mean


def mean_weights(levels: Sequence[float]) -> list[float]:
    """The weight of each quantile in the mean (all but that of the last two sum up a trapezoid rule).

    The tail above the last level has the mean q + s, where s = (q - q') / ln((1 - p') / (1 - p)) is the scale of the
    exponential distribution through the last two quantiles.
    """
    check_levels(tuple(levels))
    edges = (0.0, *levels)
    weights = [(edges[i + 2] - edges[i]) / 2 for i in range(len(levels) - 1)]
    weights.append((levels[-1] - levels[-2]) / 2)
    tail = 1 - levels[-1]
    scale = tail / math.log((1 - levels[-2]) / tail)
    weights[-1] += tail + scale
    weights[-2] -= scale
    return weights


def exceedance(quantiles: Tensor, levels: Sequence[float], threshold: float, *, dim: int = 1) -> Tensor:
    """The probability of more than a threshold, 0..1; `dim` is taken away.

    Args:
        quantiles: rising along `dim`.
        levels: their levels.
        threshold: in the unit of the quantiles, 0 or more.
        dim: the dimension of the levels.
    """
    q = quantiles.movedim(dim, 0)
    edges = torch.cat((torch.zeros_like(q[:1]), q))
    at = (0.0, *levels)
    below = torch.zeros_like(q[0])
    for low, high, p, step in zip(edges[:-1], edges[1:], at[:-1], torch.tensor(at).diff().tolist(), strict=True):
        share = ((threshold - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
        below = torch.where(threshold >= low, p + share * step, below)
    tail = 1 - levels[-1]
    scale = ((q[-1] - q[-2]) / math.log((1 - levels[-2]) / tail)).clamp(min=1e-12)
    beyond = tail * torch.exp(-(threshold - q[-1]).clamp(min=0) / scale)
    return torch.where(threshold > q[-1], beyond, 1 - below)


def forecast_of(field: Values | Quantiles, answer: Array) -> Forecast:
    """What a model says of a field: quantiles (N, Q, H, W) with mean and exceedances, or values (N, H, W) alone."""
    if not isinstance(field, Quantiles):
        return Forecast.sure(answer)
    quantiles = torch.from_numpy(answer)
    above = torch.stack([exceedance(quantiles, field.levels, t) for t in field.thresholds], dim=1)
    return Forecast(expectation(quantiles, field.levels).numpy(), answer, above.numpy())
