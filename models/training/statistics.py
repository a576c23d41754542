"""Members that hear statistics alone: of neighbourhoods, on pixels of all samples shuffled together; of whole tiles.

At places left out this is worth several points beside the same layers in batches of whole samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import Dataset

from models.networks.decoders import SceneHead
from models.networks.detail import BandFeatures, StatisticsVote
from models.networks.network import Network
from models.spec import IMAGERY, Classes

NUMBERS = 40_000_000  # of all features of all pixels: 160 MB
BATCH, EPOCHS, LEAST, MOST = 2048, 12, 60, 1500  # pixels of a step; passes; steps at least and at most
PENALTY = 1.0  # inverse strength of the logistic regression's
UNTOLD = -30.0  # logit of a class that was never seen
RATE, DECAY, AVERAGED = 3e-3, 0.05, 0.1  # the share of the last steps whose weights are averaged

Loss = Callable[..., Tensor]


def fit_statistics(
    network: Network,
    vote: StatisticsVote,
    items: Dataset[Any],
    loss: Loss,
    weights: Tensor | None,
    *,
    epochs: int,
    seed: int,
) -> str:
    """Train the member of statistics of a network, in place.

    Args:
        network: the network, on the CPU.
        vote: its member.
        items: samples as `samples.sets` gives them, not varied.
        loss: of outputs (N, K), or (N,) for values, truth (N,), weights, and how many times each pixel counts (N,).
        weights: (K,) weight of each class, or None.
        epochs: passes over the pixels, of which there are no more than `EPOCHS`.
        seed: seeds the draw of pixels and the training.

    Returns:
        How many pixels it learned from, in words.
    """
    torch.manual_seed(seed)
    x, y, counts = _drawn(network, items, np.random.default_rng(seed))
    classes = isinstance(network.spec.answer, Classes)
    steps = int(np.clip(min(epochs, EPOCHS) * len(x) // BATCH, LEAST, MOST))
    vote.train().requires_grad_(True)
    optimiser = torch.optim.AdamW(vote.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.1)
    # torch leaves the function untyped
    average = AveragedModel(vote, multi_avg_fn=get_ema_multi_avg_fn(1 - 1 / (AVERAGED * steps)), use_buffers=True)  # type: ignore[no-untyped-call]
    order = torch.cat([torch.randperm(len(x)) for _ in range(-(-steps * BATCH // len(x)))])
    for first in range(0, steps * BATCH, BATCH):
        chosen = order[first : first + BATCH]
        optimiser.zero_grad()
        output = vote(x[chosen, :, None, None])[..., 0, 0]  # (N, K)
        count = None if counts is None else counts[chosen]
        step = loss(output, y[chosen], weights, count) if classes else loss(output[:, 0], y[chosen])
        step.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        optimiser.step()
        schedule.step()
        average.update_parameters(vote)
    optimiser.zero_grad()
    vote.load_state_dict(average.module.state_dict())
    vote.requires_grad_(False)
    return f"statistics of neighbourhoods: learned from {len(x)} pixels"


def fit_logistic(network: Network, head: SceneHead, items: Dataset[Any]) -> str:
    """Solve the logistic regression of a head of scene classes, in place; statistics are standardised by the items.

    Classes that no item has are never told by it.

    Args:
        network: the network, on the CPU.
        head: its head.
        items: samples as `samples.sets` gives them, not varied.

    Returns:
        How many samples it learned from, in words.
    """
    from sklearn.linear_model import LogisticRegression

    rows, classes = [], []
    for i in range(len(cast("Any", items))):  # one in memory at a time
        item = items[i]
        with torch.inference_mode():
            rows.append(head.statistics.plain(network.normalised({IMAGERY: torch.as_tensor(item[IMAGERY])[None]})))
        classes.append(int(item["y"]))
    plain, truth = torch.cat(rows), np.array(classes)
    head.statistics.standardise(plain)
    x = ((plain - head.statistics.centre) / head.statistics.scale).double().numpy()
    found = np.unique(truth)
    weight, bias = np.zeros((head.logistic.out_features, x.shape[1])), np.full(head.logistic.out_features, UNTOLD)
    if len(found) > 1:
        model = LogisticRegression(C=PENALTY, max_iter=2000).fit(x, truth)
        two = len(found) == 2  # then the second alone has weights
        weight[found] = np.vstack((0 * model.coef_, model.coef_)) if two else model.coef_
        bias[found] = np.concatenate(([0.0], model.intercept_)) if two else model.intercept_
    else:
        bias[found] = 0.0
    with torch.no_grad():
        head.logistic.weight.copy_(torch.from_numpy(weight))
        head.logistic.bias.copy_(torch.from_numpy(bias))
    return f"statistics of whole tiles: learned from {len(x)} samples"


def _drawn(network: Network, items: Dataset[Any], rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
    """Features (N, F) and truth (N,) of labelled pixels, evenly from all samples; values in standard deviations.

    And how many times each counts (N,), None where all count once.
    """
    features = cast("BandFeatures", network.head.features)
    count = len(cast("Any", items))
    most = max(NUMBERS // features.channels // count, 1)
    was, rows, truth, counts = features.training, [], [], []
    features.eval()
    for i in range(count):
        item = items[i]
        y = torch.as_tensor(item["y"]).flatten()
        labelled = np.flatnonzero(torch.isfinite(y) & (y >= 0) if y.dtype == torch.int64 else torch.isfinite(y))
        chosen = torch.from_numpy(np.sort(rng.permutation(labelled)[:most]))
        with torch.inference_mode():
            bands = network.normalised({IMAGERY: torch.as_tensor(item[IMAGERY])[None]})
            rows.append(features(bands)[0].flatten(1).T[chosen].clone())  # (n, F)
        truth.append(y[chosen])
        counts += [torch.as_tensor(item["counts"]).flatten()[chosen]] if "counts" in item else []
    features.train(was)
    y = torch.cat(truth)
    if y.dtype != torch.int64:
        y = (y - network.target_mean) / network.target_std
    return torch.cat(rows), y, torch.cat(counts) if counts else None
