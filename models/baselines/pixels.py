"""Cheap answers on the same split: majority, pixel forest, mean, ridge. Called like a model; the floor in reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.spec import IMAGERY, Answer, Classes
from models.types import Array, Inputs, Predict

Sample = tuple[Array, NDArray[Any]]

PIXELS = 60_000  # training pixels of a forest or a ridge, over all samples
TREES = 100


def fit_baselines(answer: Answer, samples: Iterable[Sample], *, count: int, seed: int = 0) -> Mapping[str, Predict]:
    """Fit the baselines of an answer on the training samples, the simplest first.

    Each is called as a runtime is, with `imagery` (B, C, T, H, W), and returns what a model returns: probabilities
    (B, K, H, W), values (B, 1, H, W), or (B, K) for classes of tiles.

    Args:
        answer: what is asked.
        samples: x (C, T, H, W) and y (H, W) class indices (below 0 not labelled) or values (NaN not labelled), or a
            class index for scene classes.
        count: how many samples come, so that pixels are drawn evenly from all.
        seed: seeds the draw and the trees.
    """
    rng = np.random.default_rng(seed)
    features, targets = zip(*(_rows(answer, x, y, -(-PIXELS // count), rng) for x, y in samples), strict=True)
    f, t = np.concatenate(features), np.concatenate(targets)  # (N, F), (N,)
    if not isinstance(answer, Classes):
        return {"mean": _everywhere(np.array([t.mean()]).astype(np.float32)), "ridge": _ridge(f, t)}
    share = (np.bincount(t, minlength=answer.channels) / len(t)).astype(np.float32)
    if answer.support == "tile":
        forest = _forest(answer, f, t, seed, leaf=1)
        ours = {"majority": lambda inputs: np.broadcast_to(share, (len(inputs[IMAGERY]), len(share)))}
        return {**ours, "forest on band statistics": lambda inputs: forest(_statistics(inputs[IMAGERY]))}
    pixels = _forest(answer, f, t, seed, leaf=3)
    return {"majority": _everywhere(share), "pixel forest": lambda inputs: _per_pixel(inputs[IMAGERY], pixels)}


def _rows(answer: Answer, x: Array, y: NDArray[Any], most: int, rng: np.random.Generator) -> tuple[Array, NDArray[Any]]:
    """Features (N, F) and targets (N,) of a sample: its statistics, or at most `most` of its labelled pixels."""
    if answer.support == "tile":
        return _statistics(x[None]), np.atleast_1d(y)
    labelled = np.flatnonzero(y >= 0 if isinstance(answer, Classes) else np.isfinite(y))
    chosen = rng.permutation(labelled)[:most]
    return x.reshape(-1, y.size).T[chosen], y.ravel()[chosen]


def _statistics(x: Array) -> Array:
    """Mean and standard deviation of each band and frame: (B, C, T, H, W) to (B, 2*C*T)."""
    return np.concatenate((x.mean((3, 4)), x.std((3, 4))), axis=1).reshape(len(x), -1)


def _everywhere(answer: Array) -> Predict:
    """The same answer (K,) for every pixel."""

    def predict(inputs: Inputs) -> Array:
        x = inputs[IMAGERY]
        return np.broadcast_to(answer[:, None, None], (len(x), len(answer), *x.shape[-2:]))

    return predict


def _ridge(features: Array, targets: NDArray[Any]) -> Predict:
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 3, 7))).fit(features, targets)
    return lambda inputs: _per_pixel(inputs[IMAGERY], lambda rows: model.predict(rows)[:, None])


def _forest(
    answer: Classes, features: Array, targets: NDArray[Any], seed: int, *, leaf: int
) -> Callable[[Array], Array]:
    """Probabilities (N, K) of rows (N, F) by a random forest."""
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(TREES, min_samples_leaf=leaf, n_jobs=-1, random_state=seed).fit(features, targets)

    def probabilities(rows: Array) -> Array:
        out = np.zeros((len(rows), answer.channels), np.float32)
        out[:, forest.classes_] = forest.predict_proba(rows)  # classes that no sample had stay at zero
        return out

    return probabilities


def _per_pixel(x: Array, answer: Callable[[Array], Array]) -> Array:
    """Apply a function of rows (N, C*T) -> (N, K) to every pixel: (B, C, T, H, W) to (B, K, H, W)."""
    b, c, t, h, w = x.shape
    rows = x.reshape(b, c * t, h * w).transpose(0, 2, 1).reshape(-1, c * t)
    return np.ascontiguousarray(answer(rows).astype(np.float32).reshape(b, h, w, -1).transpose(0, 3, 1, 2))
