"""Cheap answers on the same split: majority, pixel forest, mean, ridge. Called like a model; the floor in reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.spec import Spec

Array = NDArray[np.float32]
Predict = Callable[[Array, Array | None, Array | None], Array]
Sample = tuple[Array, NDArray[Any]]

PIXELS = 60_000  # training pixels of a forest or a ridge, over all samples
TREES = 100


def baseline_names(spec: Spec) -> tuple[str, ...]:
    """Names of the baselines of a task, the simplest first."""
    return {
        "segmentation": ("majority", "pixel forest"),
        "regression": ("mean", "ridge"),
        "classification": ("majority", "forest on band statistics"),
    }[spec.task]


def fit_baselines(spec: Spec, samples: Iterable[Sample], *, count: int, seed: int = 0) -> Mapping[str, Predict]:
    """Fit the baselines of a task on the training samples.

    Each is called as a runtime is, with x (B, C, T, H, W), time and location, and returns what a model returns:
    probabilities (B, K, H, W), values (B, 1, H, W), or (B, K) for scene classes.

    Args:
        spec: the task.
        samples: x (C, T, H, W) and y (H, W) class indices (below 0 not labelled) or values (NaN not labelled), or a
            class index for scene classes.
        count: how many samples come, so that pixels are drawn evenly from all.
        seed: seeds the draw and the trees.
    """
    rng = np.random.default_rng(seed)
    features, targets = zip(*(_rows(spec, x, y, -(-PIXELS // count), rng) for x, y in samples), strict=True)
    f, t = np.concatenate(features), np.concatenate(targets)  # (N, F), (N,)
    simple, learned = baseline_names(spec)
    if spec.task == "regression":
        return {simple: _constant(spec, np.array([t.mean()]).astype(np.float32)), learned: _ridge(spec, f, t)}
    share = (np.bincount(t, minlength=spec.outputs) / len(t)).astype(np.float32)
    return {simple: _constant(spec, share), learned: _forest(spec, f, t, seed)}


def _rows(spec: Spec, x: Array, y: NDArray[Any], most: int, rng: np.random.Generator) -> tuple[Array, NDArray[Any]]:
    """Features (N, F) and targets (N,) of a sample: its statistics, or at most `most` of its labelled pixels."""
    if spec.task == "classification":
        return _statistics(x[None]), np.atleast_1d(y)
    labelled = np.flatnonzero(np.isfinite(y) if spec.task == "regression" else y >= 0)
    chosen = rng.permutation(labelled)[:most]
    return x.reshape(-1, y.size).T[chosen], y.ravel()[chosen]


def _statistics(x: Array) -> Array:
    """Mean and standard deviation of each band and frame: (B, C, T, H, W) to (B, 2*C*T)."""
    return np.concatenate((x.mean((3, 4)), x.std((3, 4))), axis=1).reshape(len(x), -1)


def _constant(spec: Spec, answer: Array) -> Predict:
    def predict(x: Array, _time: Array | None = None, _location: Array | None = None) -> Array:
        if spec.task == "classification":
            return np.broadcast_to(answer, (len(x), len(answer)))
        return np.broadcast_to(answer[:, None, None], (len(x), len(answer), *x.shape[-2:]))

    return predict


def _ridge(spec: Spec, features: Array, targets: NDArray[Any]) -> Predict:
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 3, 7))).fit(features, targets)
    return lambda x, *_: _per_pixel(x, lambda rows: model.predict(rows)[:, None])


def _forest(spec: Spec, features: Array, targets: NDArray[Any], seed: int) -> Predict:
    from sklearn.ensemble import RandomForestClassifier

    leaf = 1 if spec.task == "classification" else 3
    forest = RandomForestClassifier(TREES, min_samples_leaf=leaf, n_jobs=-1, random_state=seed).fit(features, targets)

    def probabilities(rows: Array) -> Array:
        out = np.zeros((len(rows), spec.outputs), np.float32)
        out[:, forest.classes_] = forest.predict_proba(rows)  # classes that no sample had stay at zero
        return out

    if spec.task == "classification":
        return lambda x, *_: probabilities(_statistics(x))
    return lambda x, *_: _per_pixel(x, probabilities)


def _per_pixel(x: Array, answer: Callable[[Array], Array]) -> Array:
    """Apply a function of rows (N, C*T) -> (N, K) to every pixel: (B, C, T, H, W) to (B, K, H, W)."""
    b, c, t, h, w = x.shape
    rows = x.reshape(b, c * t, h * w).transpose(0, 2, 1).reshape(-1, c * t)
    return np.ascontiguousarray(answer(rows).astype(np.float32).reshape(b, h, w, -1).transpose(0, 3, 1, 2))
