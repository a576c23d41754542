"""The forests of a network over tables: grown at once, by scikit-learn, and planted in it as tensors."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from models.networks.forest import DEEPEST
from models.networks.tables import TableNetwork
from models.spec import Classes, valid_of
from models.training.settings import TableArchitecture
from models.types import Array

COLUMNS = 0.4  # share of the columns that a split chooses from


def plant_forests(
    network: TableNetwork, items: Dataset[Any], weights: Any, architecture: TableArchitecture, *, seed: int
) -> str:
    """Grow the forests of a network on samples, in place; each on those that have all that it hears.

    Args:
        network: the network, on the CPU.
        items: samples as `samples.sets` gives them, not varied.
        weights: (K,) weight of each class, or None.
        architecture: how many trees, and how fine.
        seed: seeds the trees.

    Returns:
        What they learned from, in words.
    """
    batch = next(iter(DataLoader(items, batch_size=len(cast("Any", items)))))
    with torch.inference_mode():
        rows = {name: of(batch[name], batch[valid_of(name)]) for name, of in network.rows.items()}
    there = {name: (batch[valid_of(name)].flatten(1).sum(1) > 0).numpy() for name in rows}
    y = batch["y"].numpy()
    known = y >= 0 if isinstance(network.spec.answer, Classes) else np.isfinite(y)
    for part, forest in network.forests.items():
        some = known & np.all([there[name] for name in network.inputs_of(part)], axis=0)
        some = some if some.any() else known  # then the means stand for it
        x = network.heard(part, rows, 0).numpy()[some]
        grown = _grown(network, x, y[some], weights, architecture, seed)
        cast("Any", forest).plant(*grown)
    return f"forests: {architecture.trees} trees each, learned from {int(known.sum())} samples"


def _grown(
    network: TableNetwork, x: Array, y: Any, weights: Any, architecture: TableArchitecture, seed: int
) -> tuple[list[Any], list[Any]]:
    """The trees over rows, and what each of their nodes says (n, K)."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    answer = network.spec.answer
    how: dict[str, Any] = {"n_estimators": architecture.trees, "min_samples_leaf": architecture.leaf, "random_state": seed}
    how |= {"max_features": COLUMNS, "max_depth": DEEPEST}
    if not isinstance(answer, Classes):
        z = (y - float(network.target_mean)) / float(network.target_std)
        trees = [tree.tree_ for tree in RandomForestRegressor(**how).fit(x, z).estimators_]
        return trees, [tree.value[:, 0] for tree in trees]
    weight = None if weights is None else weights.numpy()[y]
    forest = RandomForestClassifier(**how).fit(x, y, sample_weight=weight)
    trees, values = [tree.tree_ for tree in forest.estimators_], []
    for tree in trees:
        said = np.zeros((tree.node_count, answer.channels))
        said[:, forest.classes_] = tree.value[:, 0]
        values.append(said)
    return trees, values
