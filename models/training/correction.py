"""The correction of a fused network: trained after its members, which it does not change, on pixels of all samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import Dataset

from models.networks.detail import enlarge
from models.networks.fusion import FusedNetwork
from models.spec import CONTEXT, STATIC, WEATHER, Classes, valid_of

NUMBERS = 40_000_000  # of all that is kept of pixels: 160 MB
PIXELS = 64  # of a sample at most
BATCH, STEPS, RATE, DECAY, AVERAGED = 16, 400, 3e-3, 0.05, 0.1
# Weights of a group lasso over the means of the series (Yuan and Lin 2006), of which one is chosen: without, many
# variables, such as tokens, drown the few means that matter.
SPARSE = (0.0, 0.003)
HELD, LEAST = 3, 6  # a part of the groups says which, where there are as many
WITHHELD = 0.15  # share of samples that are trained without each of the series, and a stretch of the weather

Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class _Drawn:
    """Pixels of samples.

    Attributes:
        bands: (S, P, F), normalised.
        tokens: (S, P, D).
        said: what the members say, (S, P, M, K).
        truth: (S, P); -1 or NaN where there is none.
        counts: how many times each counts, (S, P).
        series: each series and which of its values are there, (S, T, C).
    """

    bands: Tensor
    tokens: Tensor
    said: Tensor
    truth: Tensor
    counts: Tensor
    series: dict[str, Tensor]


def fit_correction(
    network: FusedNetwork,
    items: Dataset[Any],
    loss: Loss,
    weights: Tensor | None,
    *,
    groups: Sequence[str],
    seed: int,
) -> str:
    """Train the correction of a network, in place; now and then without one of the series, or a stretch of the weather.

    How few means of the series it hears is chosen by a third of the groups, left out; then it learns from all.

    Args:
        network: the network, on the CPU, whose members are trained.
        items: samples as `samples.sets` gives them, not varied.
        loss: see `statistics.fit_statistics`.
        weights: (K,) weight of each class, or None.
        groups: of the samples; those of another round of them follow in the same order.
        seed: seeds the draw of pixels and the training.

    Returns:
        How many samples it learned from, in words.
    """
    rng = np.random.default_rng(seed)
    drawn, correction = _drawn(network, items, rng), network.correction
    every, begun = np.arange(len(drawn.truth)), deepcopy(correction.state_dict())
    of = np.resize(np.unique(groups, return_inverse=True)[1], len(every))
    held, sparse = np.isin(of, rng.permutation(of.max() + 1)[: (of.max() + 1) // HELD]), SPARSE[0]
    if of.max() + 1 >= LEAST:
        told = {}
        for one in SPARSE:
            correction.load_state_dict(begun)
            _fit(network, drawn, every[~held], loss, weights, one, seed)
            with torch.no_grad():
                series = {name: values[held] for name, values in drawn.series.items()}
                told[one] = float(_loss(network, drawn, torch.from_numpy(every[held]), series, loss, weights))
        sparse = min(told, key=told.__getitem__)
        correction.load_state_dict(begun)
    _fit(network, drawn, every, loss, weights, sparse, seed)
    few = ", few means of its series" if sparse else ""
    return f"the weather's correction: learned from {len(every)} samples{few}"


def _fit(
    network: FusedNetwork,
    drawn: _Drawn,
    rows: NDArray[np.intp],
    loss: Loss,
    weights: Tensor | None,
    sparse: float,
    seed: int,
) -> None:
    """Train the correction on some samples; it ends as the running average of its weights."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    correction = network.correction.train().requires_grad_(True)
    optimiser = torch.optim.AdamW(correction.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS, pct_start=0.1)
    # torch leaves the function untyped
    average = AveragedModel(correction, multi_avg_fn=get_ema_multi_avg_fn(1 - 1 / (AVERAGED * STEPS)))  # type: ignore[no-untyped-call]
    order = np.concatenate([rng.permutation(rows) for _ in range(-(-STEPS * BATCH // len(rows)))])
    for first in range(0, STEPS * BATCH, BATCH):
        chosen = torch.from_numpy(order[first : first + BATCH])
        series = _withheld({name: held[chosen] for name, held in drawn.series.items()}, rng)
        optimiser.zero_grad()
        step = _loss(network, drawn, chosen, series, loss, weights) + sparse * correction.heard()
        step.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        optimiser.step()
        schedule.step()
        average.update_parameters(correction)
    optimiser.zero_grad()
    correction.load_state_dict(deepcopy(average.module.state_dict()))
    correction.eval().requires_grad_(False)


def _loss(
    network: FusedNetwork,
    drawn: _Drawn,
    chosen: Tensor,
    series: dict[str, Tensor],
    loss: Loss,
    weights: Tensor | None,
) -> Tensor:
    """The loss of some samples: of each member with the correction, and of the series alone."""
    correction = network.correction
    said = drawn.said[chosen]  # (B, P, M, K)
    near = correction.tokens(drawn.tokens[chosen].transpose(1, 2)[..., None])[..., 0]
    known = correction.known(drawn.bands[chosen].transpose(1, 2), near, said[:, :, 0].transpose(1, 2))
    added, alone = correction(known.transpose(1, 2), series)  # (B, K, P), (B, K)
    added = torch.where(correction.beside(series)[:, None, None], added, 0.0).transpose(1, 2)
    both = said + added[:, :, None]
    members = [both[:, :, m] for m in range(both.shape[2])]
    answers = torch.stack([*members, alone[:, None].expand_as(added)])  # (M + 1, B, P, K)
    truth, counts = (part[chosen].expand(answers.shape[:3]).flatten() for part in (drawn.truth, drawn.counts))
    rows = answers.flatten(0, 2)
    return loss(rows, truth, weights, counts) if isinstance(network.spec.answer, Classes) else loss(rows[:, 0], truth)


def _withheld(series: dict[str, Tensor], rng: np.random.Generator) -> dict[str, Tensor]:
    """The series of a batch, some samples without one of them or without a stretch of the weather."""
    weather, whole = valid_of(WEATHER), [valid_of(name) for name in (CONTEXT, WEATHER, STATIC) if name in series]
    series = series | {name: series[name].clone() for name in whole}
    steps = series[weather].shape[1]
    for row, (drawn, begin, length) in enumerate(rng.random((len(series[weather]), 3))):
        which = int(drawn / WITHHELD)
        if which < len(whole):
            series[whole[which]][row] = 0
        elif which == len(whole):
            first = int(begin * steps)
            series[weather][row, first : first + 1 + int(length * steps)] = 0
    return series


def _drawn(network: FusedNetwork, items: Dataset[Any], rng: np.random.Generator) -> _Drawn:
    """Pixels of all samples, as many of each, or each tile as one; values in standard deviations."""
    count = len(cast("Any", items))
    each = network.backbone.dim * network.spec.imagery.times + len(network.spec.imagery.channels)
    most = int(np.clip(NUMBERS // (each * count), 1, PIXELS))
    rows: list[tuple[Tensor, ...]] = []
    series: list[dict[str, Tensor]] = []
    names = [key for name in network.spec.series for key in (name, valid_of(name))]
    network.eval()
    for i in range(count):
        item = {key: torch.as_tensor(value) for key, value in items[i].items()}
        rows.append(_pixels(network, item, most, rng))
        series.append({name: item[name] for name in names})
    bands, tokens, said, truth, counts = (torch.stack(part) for part in zip(*rows, strict=True))
    if truth.dtype.is_floating_point:
        truth = (truth - network.target_mean) / network.target_std
    return _Drawn(bands, tokens, said, truth, counts, {n: torch.stack([one[n] for one in series]) for n in names})


def _pixels(
    network: FusedNetwork, item: dict[str, Tensor], most: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Bands, tokens, what the members say, the truth and its counts of some labelled pixels of a sample."""
    batch = {name: value[None] for name, value in item.items()}
    with torch.inference_mode():
        maps = [*batch["features"].unbind(1)] if "features" in batch else network.features(batch)
        said = network.members(batch, features=maps)[:, 0]  # (M, K, H, W), or (M, K) for tiles
        bands = network.normalised(batch)[0]  # (F, H, W)
        tokens = enlarge(maps[-1], bands[None])[0] if item["y"].ndim else maps[-1].mean((2, 3))[0]
        bands = bands if item["y"].ndim else bands.mean((1, 2))
    truth = item["y"].reshape(-1)
    some = rng.permutation(np.flatnonzero(truth >= 0 if truth.dtype == torch.int64 else torch.isfinite(truth)))
    chosen = torch.from_numpy(np.resize(some if len(some) else np.arange(len(truth)), most if item["y"].ndim else 1))
    counts = item["counts"].reshape(-1) if "counts" in item else torch.ones(len(truth))
    if not len(some):
        counts = torch.zeros(len(truth))
    said = said.flatten(0, 1).reshape(-1, len(truth)).T[chosen].reshape(len(chosen), *said.shape[:2])  # (P, M, K)
    bands, tokens = (part.reshape(len(part), -1).T[chosen].clone() for part in (bands, tokens))
    return bands, tokens, said.clone(), truth[chosen], counts[chosen]
