"""Forests that live in a network: their trees are tensors, walked by gathers, and no library of trees is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.errors import InputError

Floats = NDArray[np.float64]

DEEPEST = 64  # splits on a way down; deeper trees are not grown


class Forests(nn.Module):
    """The mean of what the trees of each of several forests say of rows; 0 before trees are planted.

    The nodes of all trees lie one after the other, and all are walked together, so that an exported graph is no longer
    than one walk. A leaf is its own child: `depth` steps end in one whatever the tree.
    """

    root: Tensor  # (P, T) node
    feature: Tensor  # (N,) column that is asked about
    threshold: Tensor  # (N,) at most: to the left
    left: Tensor  # (N,) node
    right: Tensor  # (N,) node
    value: Tensor  # (N, K)
    NODES: ClassVar = ("feature", "left", "right")

    def __init__(self, features: int, outputs: int, *, parts: int = 1) -> None:
        """Make room for trees over rows of so many numbers that say so many, in so many forests."""
        super().__init__()
        self.features, self.depth = features, 0
        self.register_buffer("root", torch.zeros((parts, 1), dtype=torch.int32))
        for name in self.NODES:
            self.register_buffer(name, torch.zeros(1, dtype=torch.int32))
        self.register_buffer("threshold", torch.zeros(1))
        self.register_buffer("value", torch.zeros(1, outputs))

    def forward(self, rows: Tensor) -> Tensor:
        """Rows (B, F) to the means of the trees' values (B, P, K)."""
        parts, trees = self.root.shape
        at = self.root.long().flatten().expand(rows.shape[0], -1)  # (B, P * T)
        for _ in range(self.depth):
            asked = rows.gather(1, self.feature[at].long())
            at = torch.where(asked <= self.threshold[at], self.left[at], self.right[at]).long()
        said: Tensor = self.value[at].reshape(rows.shape[0], parts, trees, -1).mean(2)
        return said

    def plant(self, trees: Sequence[Any], values: Sequence[Floats], columns: Sequence[Any]) -> None:
        """Take the trees of scikit-learn, those of a forest after those of another, as many of each.

        Args:
            trees: their `tree_`.
            values: what the nodes of each say, (n, K).
            columns: for each tree, where in a row the numbers lie that it was grown on.
        """
        first = np.cumsum([0, *(tree.node_count for tree in trees)])
        found: dict[str, list[Any]] = {name: [] for name in (*self.NODES, "threshold")}
        for tree, begin, places in zip(trees, first, columns, strict=False):
            own, leaf = np.arange(tree.node_count), tree.children_left < 0
            found["feature"].append(np.asarray(places)[np.where(leaf, 0, tree.feature)])
            found["left"].append(begin + np.where(leaf, own, tree.children_left))
            found["right"].append(begin + np.where(leaf, own, tree.children_right))
            found["threshold"].append(np.where(leaf, 0, _below(tree.threshold)))
        state = {name: torch.from_numpy(np.concatenate(parts)) for name, parts in found.items()}
        state["root"] = torch.from_numpy(first[:-1].reshape(len(self.root), -1))
        state["value"] = torch.from_numpy(np.concatenate(values))
        self.load_state_dict({name: tensor.to(getattr(self, name).dtype) for name, tensor in state.items()})

    def make_room(self, state: Mapping[str, Tensor], prefix: str) -> None:
        """Get the sizes of the trees of a file.

        Raises:
            InputError: they are no trees over such rows: a walk would leave them, or not end.
        """
        given = {name: state.get(f"{prefix}{name}") for name in ("root", *self.NODES, "threshold", "value")}
        known = {name: tensor for name, tensor in given.items() if tensor is not None}
        if len(known) < len(given):
            return  # told by whoever loads it
        self.depth = self._depth(known, prefix)
        for name, tensor in known.items():
            setattr(self, name, torch.zeros(tensor.shape, dtype=getattr(self, name).dtype))

    def _depth(self, state: Mapping[str, Tensor], prefix: str) -> int:
        """Steps of the longest way down; all nodes of a step are looked at together."""
        root, feature, left, right = (state[name].long() for name in ("root", *self.NODES))
        nodes = torch.arange(len(feature))
        alike = feature.shape == left.shape == right.shape == state["threshold"].shape
        fit = root.ndim == 2 and len(root) == len(self.root) and root.numel() > 0
        sound = alike and fit and state["value"].shape == (len(nodes), self.value.shape[1])
        inside = sound and all(
            bool(((at >= 0) & (at < most)).all())
            for at, most in ((feature, self.features), *((at, len(nodes)) for at in (root, left, right)))
        )
        if inside:
            at = root.flatten()
            for depth in range(DEEPEST + 1):
                at = at[(left[at] != at) | (right[at] != at)]
                if not len(at):
                    return depth
                at = torch.unique(torch.cat((left[at], right[at])))
        raise InputError(
            f"{prefix.rstrip('.')}: no trees over {self.features} numbers; copy the whole run folder again"
        )

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        self.make_room(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def make_room(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Let the forests of a network get the sizes of those that are to be loaded.

    Raises:
        InputError: see `Forests.make_room`.
    """
    for name, module in network.named_modules():
        if isinstance(module, Forests):
            module.make_room(state, f"{name}.")


def _below(threshold: Floats) -> NDArray[Any]:
    """The largest float32 that is no more: a float32 is at most one exactly where it is at most the other."""
    near = threshold.astype(np.float32)
    return np.where(near > threshold, np.nextafter(near, np.float32(-np.inf)), near)
