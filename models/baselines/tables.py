"""Forests on the columns of a table: the same inputs as the model has, and fewer of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.spec import CONTEXT, IMAGERY, WEATHER, Answer, Classes, valid_of
from models.types import Array, Inputs, Predict

TREES, LEAF, COLUMNS = 200, 2, 0.4  # chosen on none of the tables that judge: what such forests are usually given
HEARD: Mapping[str, Sequence[str]] = {
    "forest on imagery": (IMAGERY,),
    "forest on imagery, season and place": (IMAGERY, CONTEXT),
    "forest on weather": (WEATHER,),
    "forest on all inputs": (IMAGERY, CONTEXT, WEATHER),
}


def fit_forests(answer: Answer, inputs: Inputs, truth: NDArray[Any], *, seed: int = 0) -> Mapping[str, Predict]:
    """The mean or the shares of the classes, and forests on the inputs by name; each is fitted when first asked.

    Args:
        answer: what is asked.
        inputs: the training samples as one batch.
        truth: class indices, or values (N,).
        seed: seeds the trees.

    Returns:
        For each a function of a batch that gives probabilities (B, K), or values (B, 1).
    """
    known = truth >= 0 if isinstance(answer, Classes) else np.isfinite(truth)
    y = truth[known]
    found: dict[str, Predict] = {_simplest(answer): partial(_always, _shares(answer, y))}
    for name, heard in HEARD.items():
        there = [n for n in heard if n in inputs]
        if len(there) == len(heard) or name == "forest on all inputs":
            fit = cache(partial(_forest, answer, rows_of(inputs, there)[known], y, seed))
            found[name] = partial(_asked, there, fit)
    return found


def rows_of(inputs: Inputs, names: Sequence[str]) -> Array:
    """Every step of some inputs, NaN where there is no value: (B, F)."""
    parts = [np.where(inputs[valid_of(name)] > 0, inputs[name], np.nan) for name in names]
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


def _simplest(answer: Answer) -> str:
    return "majority" if isinstance(answer, Classes) else "mean"


def _shares(answer: Answer, y: NDArray[Any]) -> Array:
    """The mean value, or the share of each class: (K,)."""
    found = np.bincount(y, minlength=answer.channels) / len(y) if isinstance(answer, Classes) else [y.mean()]
    return np.asarray(found, np.float32)


def _always(said: Array, inputs: Inputs) -> Array:
    return np.tile(said, (len(inputs[IMAGERY]), 1))


def _asked(names: Sequence[str], fit: Callable[[], Callable[[Array], Array]], inputs: Inputs) -> Array:
    return fit()(rows_of(inputs, names))


def _forest(answer: Answer, rows: Array, y: NDArray[Any], seed: int) -> Callable[[Array], Array]:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    how: dict[str, Any] = {
        "n_estimators": TREES,
        "min_samples_leaf": LEAF,
        "max_features": COLUMNS,
        "random_state": seed,
    }
    if not isinstance(answer, Classes):
        values = RandomForestRegressor(**how).fit(rows, y)
        return lambda x: values.predict(x)[:, None].astype(np.float32)
    forest = RandomForestClassifier(**how).fit(rows, y)

    def told(x: Array) -> Array:
        out = np.zeros((len(x), answer.channels), np.float32)
        out[:, forest.classes_] = forest.predict_proba(x)
        return out

    return told
