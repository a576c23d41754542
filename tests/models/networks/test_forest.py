"""Trees as tensors tell what scikit-learn's do, to the bit of what a float32 holds, and damaged ones are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.ensemble import ExtraTreesClassifier, RandomForestRegressor

from models.errors import InputError
from models.networks.forest import Forests, make_room


@pytest.fixture
def grown():
    """A planted forest, scikit-learn's, and rows that lie on thresholds, too."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 5)).astype(np.float32).round(1)  # thresholds between tenths: ties to be told apart
    y = x[:, 0] * x[:, 1] + rng.normal(size=120) / 10
    theirs = RandomForestRegressor(12, min_samples_leaf=2, random_state=0).fit(x, y)
    trees = [tree.tree_ for tree in theirs.estimators_]
    ours = Forests(5, 1)
    ours.plant(trees, [tree.value[:, 0] for tree in trees], [range(5)] * 12)
    edges = np.concatenate([tree.threshold[tree.feature >= 0] for tree in trees])
    rows = np.concatenate((x, rng.choice(edges, (400, 5)))).astype(np.float32)
    return ours, theirs, rows


def test_it_tells_what_scikit_learn_tells(grown):
    ours, theirs, rows = grown

    said = ours(torch.from_numpy(rows))[:, 0, 0].numpy()
    assert np.abs(said - theirs.predict(rows)).max() < 1e-6
    assert ours.depth == max(tree.get_depth() for tree in theirs.estimators_)


def test_thresholds_between_two_float32_fall_on_the_right_side():
    x = np.array([[1.0], [np.nextafter(np.float32(1), np.float32(2))]], np.float32)
    theirs = ExtraTreesClassifier(9, random_state=0).fit(x, [0, 1])
    trees = [tree.tree_ for tree in theirs.estimators_]
    ours = Forests(1, 2)
    ours.plant(trees, [tree.value[:, 0] for tree in trees], [range(1)] * 9)

    assert np.array_equal(ours(torch.from_numpy(x))[:, 0].numpy(), theirs.predict_proba(x))


def test_trees_go_through_a_file(grown):
    ours, _, rows = grown
    state = {f"at.{name}": tensor for name, tensor in ours.state_dict().items()}
    other = torch.nn.ModuleDict({"at": Forests(5, 1)})

    make_room(other, state)
    assert {key: tensor.shape for key, tensor in other.state_dict().items()} == {k: t.shape for k, t in state.items()}
    other.load_state_dict(state)
    assert torch.equal(other["at"](torch.from_numpy(rows)), ours(torch.from_numpy(rows)))


@pytest.mark.parametrize(
    ("name", "value"),
    [("left", -1), ("right", 10**6), ("feature", 5), ("root", 10**6), ("left", None), ("value", None)],
)
def test_trees_that_a_walk_would_leave_or_not_end_in_are_refused(grown, name, value):
    state = {key: tensor.clone() for key, tensor in grown[0].state_dict().items()}
    if name == "value":
        state[name] = state[name][:-1]
    elif name == "root":
        state[name][0, 0] = value
    else:
        inner = int((state["left"] != torch.arange(len(state["left"]))).nonzero()[-1])
        state[name][inner] = state["root"][0, -1] if value is None else value  # back to where its walk began

    with pytest.raises(InputError, match="no trees over 5 numbers"):
        Forests(5, 1).load_state_dict(state)


def test_forests_ask_about_their_own_columns():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 4)).astype(np.float32)
    kinds = {(0, 2): 4, (3, 1): 4}
    fits = [RandomForestRegressor(n, random_state=0).fit(x[:, at], x[:, at].sum(1)) for at, n in kinds.items()]
    trees = [tree.tree_ for fit in fits for tree in fit.estimators_]
    ours = Forests(4, 1, parts=2)
    ours.plant(trees, [tree.value[:, 0] for tree in trees], [at for at, n in kinds.items() for _ in range(n)])

    said = ours(torch.from_numpy(x))[..., 0].numpy()
    assert np.abs(said - np.stack([fit.predict(x[:, at]) for fit, at in zip(fits, kinds, strict=True)], 1)).max() < 1e-6
