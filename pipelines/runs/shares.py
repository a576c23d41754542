"""How much parts of a network over scenes count: learned from groups that its folds, or its training, never saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.networks.assembly import AnyNetwork
from models.networks.fusion import FusedNetwork
from models.networks.network import Network
from models.networks.tables import TableNetwork
from models.spec import Classes
from models.types import Array
from pipelines.samples.sets import Samples, evenly, inputs_of

SHARES = np.linspace(0, 1, 11)
SAMPLES, PLACES = 200, 2000  # that are asked about: of all folds, and of each sample
ROWS = 20_000  # of tables, of each fold
_BATCH = 4
_LEAST = 1e-6  # probability

Shared = Network | TableNetwork
Losses = dict[str, list[Array]]  # of each group its samples', (S,) by share
Ends = Callable[[Any, Tensor], "tuple[Tensor, Tensor] | None"]


def members(network: Shared, output: Tensor) -> tuple[Tensor, Tensor] | None:
    """The answers (B, K, ...) of the members that hear tokens, and statistics; None of a network without the latter."""
    if isinstance(network, TableNetwork):
        return network.by_kind(output)
    first = output[: len(output) // 2] if isinstance(network, FusedNetwork) else output
    return (Network.finish(network, first[:1]), Network.finish(network, first[1:])) if len(first) == 2 else None


def gates(network: Shared, output: Tensor) -> tuple[Tensor, Tensor] | None:
    """The answers with what the weather adds left out, and taken whole; None of a network that hears of none."""
    return network.ends(output) if isinstance(network, FusedNetwork | TableNetwork) else None


# What is learned, in this order: its two ends; whether less is taken where that cannot be told from chance; in words.
LEARNED: Mapping[str, tuple[Ends, bool, str]] = {
    "share": (members, False, "weight of the member of statistics, or of the forests"),
    "gate": (gates, True, "how much of what the weather adds counts"),
}


def losses_of(network: AnyNetwork, samples: Samples, chosen: Sequence[Any], ends: Ends, *, most: int) -> Losses:
    """The mean loss at each of `SHARES` of some left-out samples, by group; none where there is nothing to share.

    Args:
        network: in evaluation mode; it never saw the samples.
        samples: where they come from.
        chosen: those that were left out.
        ends: the answers at share 0 and 1.
        most: of how many samples.
    """
    found: Losses = {}
    if not isinstance(network, Network | TableNetwork):
        return found
    table = isinstance(network, TableNetwork)  # rows, which cost little, and say little each
    some = [chosen[i] for i in evenly(len(chosen), ROWS if table else most)]
    batch = PLACES if table else _BATCH
    classes = isinstance(network.spec.answer, Classes)
    for first in range(0, len(some), batch):
        part = some[first : first + batch]
        with torch.no_grad():
            output = network({name: torch.from_numpy(a) for name, a in inputs_of(samples, part).items()}).float()
            pair = ends(network, output)
        if pair is None:
            return {}
        said = torch.stack(pair).numpy()
        for place, sample in enumerate(part):
            truth = np.atleast_1d(samples.truth(sample)).ravel()
            known = np.flatnonzero(truth >= 0 if classes else np.isfinite(truth))
            known = known[evenly(len(known), PLACES)] if len(known) else known
            rows = said[:, place].reshape(2, said.shape[2], -1)[:, :, known]  # (2, K, n)
            if len(known):
                found.setdefault(samples.group(sample), []).append(_loss(rows, truth[known], classes=classes))
    return found


def _loss(rows: Array, truth: Array, *, classes: bool) -> Array:
    """Of two answers (2, K, n) beside the truth (n,), the mean loss at each share (S,)."""
    right = rows[:, truth.astype(int), np.arange(len(truth))] if classes else rows[:, 0]
    mixed = right[0] + SHARES[:, None] * (right[1] - right[0])  # (S, n)
    loss = -np.log(mixed.clip(_LEAST)) if classes else np.square(mixed - truth)
    return np.asarray(loss.mean(1))


def best_share(losses: Sequence[Losses], *, sparing: bool = False) -> float | None:
    """The share whose mean over groups is least; None where no group is known.

    A `sparing` choice is the least share that is worse by one standard error of the difference at most (after Breiman
    et al. 1984, Classification and Regression Trees, 3.4.3), so that 0 stays where more is not told from chance.
    """
    groups: dict[str, list[Array]] = {}
    for found in losses:
        for group, rows in found.items():
            groups.setdefault(group, []).extend(rows)
    if not groups:
        return None
    each = np.stack([np.mean(rows, axis=0) for rows in groups.values()])  # (G, S)
    best = int(each.mean(0).argmin())
    if sparing:
        worse = each - each[:, best : best + 1]
        error = worse.std(0, ddof=1) / np.sqrt(len(each)) if len(each) > 1 else np.full(len(SHARES), np.inf)
        best = int(np.flatnonzero(worse.mean(0) <= error)[0])
    return round(float(SHARES[best]), 2)


def shares_of(by_fold: Mapping[int, Losses], *, sparing: bool = False) -> tuple[float | None, dict[int, float | None]]:
    """The share that all left-out groups say, and for the network of each fold that which the other folds' say."""
    rest = {fold: [found for other, found in by_fold.items() if other != fold] for fold in by_fold}
    each = {fold: best_share(found, sparing=sparing) for fold, found in rest.items()}
    return best_share([*by_fold.values()], sparing=sparing), each


def set_weights(network: AnyNetwork, weights: Mapping[str, float]) -> None:
    """Let parts of a network count so much."""
    for name, weight in weights.items():
        setattr(network, name, weight)


def learn_gate(network: AnyNetwork, samples: Samples) -> dict[str, float]:
    """The gate of a network that was trained without folds, by its validation samples; nothing of one without.

    The share, too, of one over tables, whose epoch they did not pick.
    """
    found: dict[str, float] = {}
    for name in ("share", "gate") if isinstance(network, TableNetwork) else ("gate",):
        ends, sparing, _ = LEARNED[name]
        weight = best_share([losses_of(network, samples, samples.of("val"), ends, most=SAMPLES)], sparing=sparing)
        found |= {} if weight is None else {name: weight}
        set_weights(network, found)
    return found
