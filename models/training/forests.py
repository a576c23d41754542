"""The trees of networks over tables, and of those of rain: grown at once, by scikit-learn, and planted as tensors."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from models.networks.forest import DEEPEST
from models.networks.rain import RainNetwork
from models.networks.tables import TableNetwork
from models.spec import WEATHER, Classes, valid_of
from models.training.settings import TableArchitecture
from models.types import Array

COLUMNS = 0.4  # share of the columns that a split chooses from
BOOSTINGS = 4  # whose trees are averaged
RATE, LEAVES, LEAF = 0.07, 15, 100  # of boosting, as of the baseline
DEEP = 6  # splits on a way down: a walk has as many steps as the longest
NUMBERS = 30_000_000  # of all numbers of all cells that a boosting learns from: 120 MB


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
    row, trees, values, columns = network.row(rows).numpy(), list[Any](), list[Any](), list[Any]()
    for part in network.parts:
        some = known & np.all([there[name] for name in network.inputs_of(part)], axis=0)
        some = some if some.any() else known  # then the means stand for it
        places = network.columns_of(part)
        grown, said = _grown(network, row[some][:, places], y[some], weights, architecture, seed)
        trees, values, columns = trees + grown, values + said, columns + [places] * len(grown)
    network.forests.plant(trees, values, columns)
    return f"forests: {architecture.trees} trees each, learned from {int(known.sum())} samples"


def _grown(
    network: TableNetwork, x: Array, y: Any, weights: Any, architecture: TableArchitecture, seed: int
) -> tuple[list[Any], list[Any]]:
    """The trees over rows, and what each of their nodes says (n, K)."""
    from sklearn import ensemble

    answer = network.spec.answer
    how: dict[str, Any] = {"min_samples_leaf": architecture.leaf, "random_state": seed}
    how |= {"max_features": COLUMNS, "max_depth": DEEPEST}
    kind = "Classifier" if isinstance(answer, Classes) else "Regressor"
    half = architecture.trees // 2  # both kinds as one were ahead of either on all tables that were tried
    counts = {"RandomForest": architecture.trees - half, **({"ExtraTrees": half} if half else {})}
    forests = [getattr(ensemble, f"{name}{kind}")(n_estimators=count, **how) for name, count in counts.items()]
    if not isinstance(answer, Classes):
        z = (y - float(network.target_mean)) / float(network.target_std)
        trees = [tree.tree_ for forest in forests for tree in forest.fit(x, z).estimators_]
        return trees, [tree.value[:, 0] for tree in trees]
    weight = None if weights is None else weights.numpy()[y]
    trees = [tree.tree_ for forest in forests for tree in forest.fit(x, y, sample_weight=weight).estimators_]
    values, found = [], np.unique(y)
    for tree in trees:
        said = np.zeros((tree.node_count, answer.channels))
        said[:, found] = tree.value[:, 0]
        values.append(said)
    return trees, values


def plant_boosting(network: RainNetwork, items: Dataset[Any], rounds: int, *, seed: int) -> str:
    """Grow the boosted trees of a rain network, in place; each boosting hears of every item once, varied otherwise.

    Args:
        network: the network, on the CPU.
        items: samples as `samples.sets` gives them: varied, where they are asked for by (epoch, index).
        rounds: of each boosting.
        seed: seeds the trees.

    Returns:
        What they learned from, in words.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    assert network.trees is not None
    how: dict[str, Any] = {"learning_rate": RATE, "max_leaf_nodes": LEAVES, "min_samples_leaf": LEAF}
    how |= {"max_iter": rounds, "max_features": COLUMNS, "max_depth": DEEP, "early_stopping": False}
    trees, values = list[Any](), list[Any]()
    for epoch in range(BOOSTINGS):
        rows, rain = _cells(network, items, epoch)
        model = HistGradientBoostingRegressor(**how, random_state=seed + epoch).fit(rows, rain)
        grown = [_as_tree(of[0].nodes) for of in model._predictors]  # nothing public tells a boosting's trees
        first = float(model._baseline_prediction.item())
        trees += [tree for tree, _ in grown]
        values += [said * len(grown) + first for _, said in grown]  # their mean is then the boosting's sum
    columns = range(network.trees.forest.features)
    network.trees.forest.plant(trees, values, [columns] * len(trees))
    return f"boosting: {len(trees)} trees, learned from {len(rain)} cells"


def _cells(network: RainNetwork, items: Dataset[Any], epoch: int) -> tuple[Array, Array]:
    """Rows of cells (N, F) whose rain is known, and it in scales (N,), of all items as an epoch has them."""
    assert network.trees is not None
    count, rows, rain = len(cast("Any", items)), [], []
    for i in range(count):
        item = items[epoch, i]
        y = torch.as_tensor(item["y"]).flatten() / network.spec.field.scale
        known = y.isfinite().nonzero().flatten()
        known = known[:: -(-len(known) * network.trees.forest.features * count // NUMBERS) or 1]
        with torch.inference_mode():
            rows.append(network.trees.rows(torch.as_tensor(item[WEATHER])[None])[known].numpy())
        rain.append(y[known].numpy())
    return np.concatenate(rows), np.concatenate(rain)


def _as_tree(nodes: Any) -> tuple[Any, Array]:
    """A tree of a boosting as `Forests.plant` takes it, and what its nodes say (n, 1)."""
    leaf = nodes["is_leaf"].astype(bool)
    left, right = (np.where(leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right"))
    asked = {"feature": nodes["feature_idx"], "threshold": nodes["num_threshold"]}
    tree, said = (
        SimpleNamespace(node_count=len(nodes), children_left=left, children_right=right, **asked),
        nodes["value"],
    )
    return tree, said[:, None]
