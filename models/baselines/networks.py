"""Small networks over weather fields as baselines: convolutions that know no place, and one over the whole field."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from models.types import Array

BATCH, EPOCHS, LEAST, MOST = 64, 25, 200, 2500  # samples of a step; passes; steps at least and at most
RATE, DECAY = 1e-3, 1e-4
WIDTH, DROPOUT = 48, 0.15  # of the convolutions
HIDDEN, DROPPED = 256, 0.4  # of the network over the whole field
MEMBERS = 4  # of these, averaged
WIDEST = 20_000  # numbers of a field that they hear: more weights than any record of days teaches


def convolutions(x: Array, y: Array, seed: int) -> Callable[[Array], Array]:
    """Four layers of 3 x 3 convolutions from fields to their target, which sees four cells around each.

    Args:
        x: fields (N, T, C, H, W), finite.
        y: what they tell (N, H, W), 0 or more; NaN where not known.
        seed: seeds weights, dropout and order.

    Returns:
        A function of fields to what they tell, on any grid.
    """
    channels = x.shape[1] * x.shape[2]

    def build() -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten(1, 2)]
        for inputs in (channels, WIDTH, WIDTH):
            layers += [
                nn.Conv2d(inputs, WIDTH, 3, padding=1, padding_mode="replicate"),
                nn.GELU(),
                nn.Dropout2d(DROPOUT),
            ]
        return nn.Sequential(*layers, nn.Conv2d(WIDTH, 1, 3, padding=1, padding_mode="replicate"), nn.Flatten(1, 2))

    return _fitted(build, x, y, (seed,))


def whole_field(x: Array, y: Array, seed: int) -> Callable[[Array], Array]:
    """Four plain networks of two hidden layers, averaged, which hear all cells at once and tell of each.

    Arguments as of `convolutions`. What is returned tells of the one grid that it knows, and NaN of any other.
    """
    size, grid = math.prod(x.shape[1:]), y.shape[1:]

    def build() -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs in (size, HIDDEN):
            layers += [nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Dropout(DROPPED)]
        return nn.Sequential(*layers, nn.Linear(HIDDEN, math.prod(grid)), nn.Unflatten(1, grid))

    told = _fitted(build, x, y, [seed * MEMBERS + i for i in range(MEMBERS)])
    return lambda x: told(x) if x.shape[-2:] == grid else np.full((len(x), *x.shape[-2:]), np.nan, np.float32)


def _fitted(
    build: Callable[[], nn.Module], x: Array, y: Array, seeds: tuple[int, ...] | list[int]
) -> Callable[[Array], Array]:
    """Networks trained by squared error, each from its own seed; what they tell is averaged and never below 0."""
    mean = torch.tensor(x.mean((0, 3, 4), dtype=np.float64), dtype=torch.float32)[..., None, None]
    std = torch.tensor(x.std((0, 3, 4), dtype=np.float64), dtype=torch.float32)[..., None, None]
    std = torch.where(std > 0, std, 1.0)
    scale = max(float(np.nanstd(y)), 1e-9)

    def inputs(x: Array) -> Tensor:
        return torch.from_numpy(x).sub(mean).div(std).clamp(-6, 6)

    with torch.random.fork_rng():
        networks = [_trained(build, inputs(x), torch.from_numpy(y) / scale, seed) for seed in seeds]

    def predict(x: Array) -> Array:
        with torch.inference_mode():
            told = [
                torch.cat([network(inputs(part)) for part in np.array_split(x, -(-len(x) // BATCH))])
                for network in networks
            ]
        return np.asarray((torch.stack(told).mean(0) * scale).clamp(min=0).numpy(), np.float32)

    return predict


def _trained(build: Callable[[], nn.Module], x: Tensor, y: Tensor, seed: int) -> nn.Module:
    """A network after all its steps, in eval mode."""
    torch.manual_seed(seed)
    network, known = build().train(), y.isfinite()
    batch = min(BATCH, len(x))
    steps = int(np.clip(EPOCHS * len(x) // batch, LEAST, MOST))
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.1)
    order = torch.cat([torch.randperm(len(x)) for _ in range(-(-steps * batch // len(x)))])
    for first in range(0, steps * batch, batch):
        chosen = order[first : first + batch]
        optimiser.zero_grad()
        loss = (network(x[chosen]) - y[chosen])[known[chosen]].square().mean()
        if known[chosen].any():
            loss.backward()
            optimiser.step()
        schedule.step()
    return network.eval()
