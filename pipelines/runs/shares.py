"""How much each member of a network over scenes counts: learned from groups that its folds never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from models.networks.assembly import AnyNetwork
from models.networks.network import Network
from models.spec import Classes
from models.types import Array
from pipelines.samples.sets import Samples, evenly, inputs_of

SHARES = np.linspace(0, 1, 11)  # of the member of statistics
SAMPLES, PLACES = 200, 2000  # that are asked about: of all folds, and of each sample
_BATCH = 4
_LEAST = 1e-6  # probability

Losses = dict[str, list[Array]]  # of each group its samples', (S,) by share


def losses_of(network: AnyNetwork, samples: Samples, chosen: Sequence[Any], *, folds: int) -> Losses:
    """The mean loss at each of `SHARES` of some left-out samples, by group; none for a network of one member.

    Args:
        network: of a fold, in evaluation mode.
        samples: where they come from.
        chosen: those that the fold left out.
        folds: how many there are.
    """
    found: Losses = {}
    if not isinstance(network, Network):
        return found
    some = [chosen[i] for i in evenly(len(chosen), -(-SAMPLES // folds))]
    for first in range(0, len(some), _BATCH):
        part = some[first : first + _BATCH]
        with torch.no_grad():
            out = network({name: torch.from_numpy(a) for name, a in inputs_of(samples, part).items()}).float()
        if len(out) != 2:
            return {}
        classes = isinstance(network.spec.answer, Classes)
        said = (out.softmax(2) if classes else out * network.target_std + network.target_mean).numpy()
        for place, sample in enumerate(part):
            truth = np.atleast_1d(samples.truth(sample)).ravel()
            known = np.flatnonzero(truth >= 0 if classes else np.isfinite(truth))
            known = known[evenly(len(known), PLACES)] if len(known) else known
            rows = said[:, place].reshape(2, said.shape[2], -1)[:, :, known]  # (2, K, n)
            if len(known):
                found.setdefault(samples.group(sample), []).append(_loss(rows, truth[known], classes=classes))
    return found


def _loss(rows: Array, truth: Array, *, classes: bool) -> Array:
    """Of two members' answers (2, K, n) beside the truth (n,), the mean loss at each share (S,)."""
    right = rows[:, truth.astype(int), np.arange(len(truth))] if classes else rows[:, 0]
    mixed = right[0] + SHARES[:, None] * (right[1] - right[0])  # (S, n)
    loss = -np.log(mixed.clip(_LEAST)) if classes else np.square(mixed - truth)
    return np.asarray(loss.mean(1))


def best_share(losses: Sequence[Losses]) -> float | None:
    """The share whose mean over groups is least; None where no group is known."""
    groups: dict[str, list[Array]] = {}
    for found in losses:
        for group, rows in found.items():
            groups.setdefault(group, []).extend(rows)
    if not groups:
        return None
    mean = np.mean([np.mean(rows, axis=0) for rows in groups.values()], axis=0)
    return round(float(SHARES[int(mean.argmin())]), 2)


def shares_of(by_fold: Mapping[int, Losses]) -> tuple[float | None, dict[int, float | None]]:
    """The share that all left-out groups say, and for the network of each fold that which the other folds' say."""
    each = {fold: best_share([found for other, found in by_fold.items() if other != fold]) for fold in by_fold}
    return best_share([*by_fold.values()]), each
