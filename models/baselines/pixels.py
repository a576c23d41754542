"""Cheap answers on the same split, the simplest first: majority, forest, regressions, boosting on neighbourhoods.

Called like a model; the floor in reports. None of them costs more than a minute or two.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.baselines.statistics import neighbourhoods, own, scenes, summary
from models.spec import IMAGERY, Answer, Classes, Pixels
from models.types import Array, Inputs, Predict

Sample = tuple[Inputs, NDArray[Any]]
Features = Callable[[Inputs, Sequence[str]], Array]
Told = Callable[[Array], Array]  # rows (N, F) to what is told of them (N, K)

PIXELS = 40_000  # training pixels, over all samples
TREES = 100
# Of boosting. Many small leaves learn places by heart: of 12 groups of places left out 150 rounds of 31 leaves told
# 0.64 of 11 classes of land right, these 0.71. Few rows bear few rounds.
ROUNDS, LEAST_ROUNDS, ROWS_A_ROUND, RATE, LEAVES, LEAF, PULL = 60, 20, 200, 0.07, 15, 200, 10.0
PENALTY = 1.0  # inverse strength of the logistic regression's
KEPT = 3  # models fitted last, of one set of samples

_kept: OrderedDict[Hashable, Told] = OrderedDict()


def fit_baselines(
    answer: Answer,
    pixels: Pixels,
    samples: Iterable[Sample],
    *,
    count: int,
    seed: int = 0,
    beside: Mapping[str, Callable[[Inputs], Array]] | None = None,
) -> Mapping[str, Predict]:
    """Fit the baselines of an answer on the training samples, the simplest first.

    Each is fitted when first asked; the models fitted last are kept, so that whoever asks again about the same samples
    need not wait again. It is called as a runtime is, with `imagery` (B, C, T, H, W), and returns what a
    model returns: probabilities (B, K, H, W), values (B, 1, H, W), or (B, K) for classes of tiles.

    Args:
        answer: what is asked.
        pixels: what the model eats.
        samples: inputs of one sample without the batch, `imagery` (C, T, H, W) and, where dates are known, `time`; and
            y (H, W) class indices (below 0 not labelled) or values (NaN not labelled), or a class index for scene
            classes.
        count: how many samples come, so that pixels are drawn evenly from all.
        seed: seeds the draw and the trees.
        beside: what else is known of a sample, (B, F) by its name: boosting learns from each beside the
            neighbourhoods, and from each alone.
    """
    fits: dict[str, tuple[Features, Callable[[Array, NDArray[Any]], Told]]]
    boosting = partial(_boosting, answer, seed)
    if not isinstance(answer, Classes):
        fits = {
            "mean": (own, _average),
            "ridge": (own, _ridge),
            "boosting on neighbourhoods": (neighbourhoods, boosting),
        }
    elif answer.support == "tile":
        fits = {
            "majority": (summary, partial(_shares, answer)),
            "forest on band statistics": (summary, partial(_forest, answer, seed)),
            "logistic regression on statistics": (scenes, partial(_logistic, answer)),
            "boosting on statistics": (scenes, boosting),
        }
    else:
        fits = {
            "majority": (own, partial(_shares, answer)),
            "pixel forest": (own, partial(_forest, answer, seed)),
            "boosting on neighbourhoods": (neighbourhoods, boosting),
        }
    near = scenes if answer.support == "tile" else neighbourhoods
    for name, more in (beside or {}).items():
        fits[f"boosting on imagery, {name}"] = (partial(_joined, near, more), boosting)
        fits[f"boosting on {name}"] = (partial(_joined, _none_of_tiles if near is scenes else _none, more), boosting)
    every = list(dict.fromkeys(features for features, _ in fits.values()))
    most, rng = -(-PIXELS // count), np.random.default_rng(seed)
    drawn = [_drawn(answer, pixels, inputs, y, every, most, rng) for inputs, y in samples]
    targets = np.concatenate([y for _, y in drawn])  # (N,)
    known = {features: np.concatenate([found[i] for found, _ in drawn]) for i, features in enumerate(every)}
    if isinstance(answer, Classes) and len(np.unique(targets)) < 2:  # nothing to tell apart
        fits = {name: (features, partial(_shares, answer)) for name, (features, _) in fits.items()}
    return {
        name: partial(
            _asked, pixels, features, cache(partial(_once, (name, answer, seed), fit, known[features], targets))
        )
        for name, (features, fit) in fits.items()
    }


def _joined(features: Features, beside: Callable[[Inputs], Array], inputs: Inputs, channels: Sequence[str]) -> Array:
    """Features of the imagery with what else is known of each sample: (B, F), or (B, F, H, W)."""
    found, more = features(inputs, channels), beside(inputs)
    more = more.reshape(*more.shape, *[1] * (found.ndim - 2))
    return np.concatenate((found, np.broadcast_to(more, (*more.shape[:2], *found.shape[2:]))), 1, dtype=np.float32)


def _none(inputs: Inputs, _: Sequence[str]) -> Array:
    """Nothing of any pixel, (B, 0, H, W)."""
    return np.zeros((len(inputs[IMAGERY]), 0, *inputs[IMAGERY].shape[3:]), np.float32)


def _none_of_tiles(inputs: Inputs, _: Sequence[str]) -> Array:
    """Nothing of any tile, (B, 0)."""
    return np.zeros((len(inputs[IMAGERY]), 0), np.float32)


def _once(about: Hashable, fit: Callable[[Array, NDArray[Any]], Told], features: Array, targets: NDArray[Any]) -> Told:
    """A model fitted to rows, or the one that was fitted to the same rows before."""
    held = hashlib.sha256()
    for part in (features, targets):
        held.update(f"{part.dtype} {part.shape}".encode())
        held.update(part.tobytes())
    key = (about, held.digest())
    told = _kept.pop(key, None) or fit(features, targets)
    _kept[key] = told
    while len(_kept) > KEPT:
        _kept.popitem(last=False)
    return told


def _drawn(
    answer: Answer,
    pixels: Pixels,
    inputs: Inputs,
    y: NDArray[Any],
    seen: Sequence[Features],
    most: int,
    rng: np.random.Generator,
) -> tuple[list[Array], NDArray[Any]]:
    """Features (N, F) and targets (N,) of a sample: of the whole, or of at most `most` of its labelled pixels."""
    batch = {name: given[None] for name, given in inputs.items()}
    found = [features(batch, pixels.channels) for features in seen]  # (1, F) or (1, F, H, W)
    if answer.support == "tile":
        return found, np.atleast_1d(y)
    chosen = rng.permutation(np.flatnonzero(y >= 0 if isinstance(answer, Classes) else np.isfinite(y)))[:most]
    return [maps[0].reshape(maps.shape[1], -1).T[chosen] for maps in found], y.ravel()[chosen]


def _asked(pixels: Pixels, features: Features, fitted: Callable[[], Told], inputs: Inputs) -> Array:
    """What a model says of a batch: (B, K), or (B, K, H, W) where it is asked about each pixel."""
    found = features(inputs, pixels.channels)
    if found.ndim == 2:
        return fitted()(found)
    b, _, h, w = found.shape
    answers = fitted()(np.moveaxis(found, 1, -1).reshape(b * h * w, -1)).astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(answers.reshape(b, h, w, -1), -1, 1))


def _average(_: Array, targets: NDArray[Any]) -> Told:
    mean = np.array([[targets.mean()]], np.float32)
    return lambda rows: np.broadcast_to(mean, (len(rows), 1))


def _shares(answer: Classes, _: Array, targets: NDArray[Any]) -> Told:
    share = (np.bincount(targets, minlength=answer.channels) / len(targets)).astype(np.float32)
    return lambda rows: np.broadcast_to(share, (len(rows), len(share)))


def _ridge(features: Array, targets: NDArray[Any]) -> Told:
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 3, 7))).fit(features, targets)
    return lambda rows: model.predict(rows)[:, None]


def _forest(answer: Classes, seed: int, features: Array, targets: NDArray[Any]) -> Told:
    from sklearn.ensemble import RandomForestClassifier

    leaf = 1 if answer.support == "tile" else 3
    forest = RandomForestClassifier(TREES, min_samples_leaf=leaf, n_jobs=-1, random_state=seed)
    return _probabilities(answer, forest.fit(features, targets))


def _logistic(answer: Classes, features: Array, targets: NDArray[Any]) -> Told:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=PENALTY, max_iter=2000))
    return _probabilities(answer, model.fit(features, targets))


def _boosting(answer: Answer, seed: int, features: Array, targets: NDArray[Any]) -> Told:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    settings = {
        "max_iter": int(np.clip(len(features) // ROWS_A_ROUND, LEAST_ROUNDS, ROUNDS)),
        "learning_rate": RATE,
        "max_leaf_nodes": LEAVES,
        "min_samples_leaf": 3 if answer.support == "tile" else int(np.clip(len(features) // LEAF, 20, LEAF)),
        "l2_regularization": 1.0 if answer.support == "tile" else PULL,
        "early_stopping": False,
        "random_state": seed,
    }
    if not isinstance(answer, Classes):
        values = HistGradientBoostingRegressor(**settings).fit(features, targets)
        return lambda rows: values.predict(rows)[:, None]
    return _probabilities(answer, HistGradientBoostingClassifier(**settings).fit(features, targets))


def _probabilities(answer: Classes, model: Any) -> Told:
    """Probabilities (N, K) by a fitted classifier; classes that no sample had stay at zero."""

    def told(rows: Array) -> Array:
        out = np.zeros((len(rows), answer.channels), np.float32)
        out[:, model.classes_] = model.predict_proba(rows)
        return out

    return told
