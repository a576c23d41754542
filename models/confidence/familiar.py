"""What is unlike all training ground: how far a pixel's bands are from those that were trained on.

A model is surer of raw counts, thick cloud or swapped bands than of what it knows, so its own confidence does not
tell. The distance to kept training pixels in bands and indices does: the area of applicability of Meyer and Pebesma
2021, doi:10.1111/2041-210X.13650. Never mixed with confidence: it says nothing of errors on familiar ground.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.baselines.statistics import with_indices
from models.confidence.calibration import auroc, fold_of
from models.spec import WEATHER, Series, Spec
from models.types import Array

KEPT = 2000  # training pixels
PULL = 0.1  # of the features' covariance towards none, where they are made independent
QUANTILE = 0.95  # of left-out groups, at which a pixel counts as outside
LIKE = 0.3  # share of pixels outside, below which a scene is taken for what it would be
FAR = 1e3  # standard deviations; no feature counts as farther
_ROWS = 256  # pixels that are compared at once


@dataclass(frozen=True)
class Familiar:
    """Training pixels, and how far others are from them.

    Attributes:
        mean: of each feature (F,).
        turn: takes features less their mean to independent ones (F, F).
        kept: training pixels in these (N, F).
        scale: the distance at which a pixel counts as outside.
    """

    mean: Array
    turn: Array
    kept: Array
    scale: float = 1.0

    def __call__(self, features: Array) -> Array:
        """How unfamiliar features (N, F) are, (N,): above 1 is outside of what was trained on."""
        out = np.empty(len(features), np.float32)
        # |t - k|^2 - |t|^2 as one product of (t, 1) and (-2 k, |k|^2), a block at a time that stays in the cache.
        kept = np.vstack((-2 * self.kept.T, (self.kept**2).sum(1))).astype(np.float32)
        for first in range(0, len(features), _ROWS):
            turned = np.clip((features[first : first + _ROWS] - self.mean) @ self.turn, -FAR, FAR).astype(np.float32)
            near = (np.hstack((turned, np.ones((len(turned), 1), np.float32))) @ kept).min(1) + (turned**2).sum(1)
            out[first : first + _ROWS] = np.sqrt(near.clip(0)) / self.scale
        return out

    def arrays(self) -> dict[str, Array]:
        """What a file keeps of it."""
        return {
            "mean": self.mean,
            "turn": self.turn,
            "kept": self.kept,
            "scale": np.array([self.scale], np.float32),
        }

    @classmethod
    def of_arrays(cls, found: Mapping[str, Array], wide: int) -> Familiar:
        """What `arrays` gave, of `wide` features.

        Raises:
            ValueError: arrays of another shape or type, or what is no number.
        """
        shapes = {"mean": (wide,), "turn": (wide, wide), "kept": (len(found["kept"]), wide), "scale": (1,)}
        for name, shape in shapes.items():
            one = found[name]
            if one.shape != shape or one.dtype != np.float32 or not np.isfinite(one).all():
                raise ValueError(f"{name}: wanted {shape} finite numbers in float32, came {one.shape} in {one.dtype}")
        if not (0 < len(found["kept"]) <= KEPT and found["scale"][0] > 0):
            raise ValueError(f"wanted 1 to {KEPT} pixels, and a scale above 0")
        return cls(found["mean"], found["turn"], found["kept"], float(found["scale"][0]))


def count(channels: Sequence[str], times: int = 1) -> int:
    """How many features a pixel of these bands has, at so many dates."""
    return int(features_of(np.ones((1, len(channels), times, 1, 1), np.float32), channels).shape[2])


def wide_of(spec: Spec, *, weather: bool = False) -> int:
    """How many features a pixel or cell has for a model, or the weather before its day."""
    if weather:
        series = spec.series[WEATHER]
        nothing = np.zeros((1, series.times, len(series.channels)), np.float32)
        return int(features_of_series(nothing, nothing, series).shape[1])
    return len(spec.weather.channels) if spec.over_weather else count(spec.imagery.channels, spec.imagery.times)


def features_of(x: Array, channels: Sequence[str]) -> Array:
    """Bands and indices of each pixel, by frame: (B, C, T, H, W) in reflectance x10000 to (B, H * W, F) float32."""
    found = with_indices(x, channels).astype(np.float32)
    return found.reshape(*found.shape[:2], -1).transpose(0, 2, 1)


def features_of_fields(x: Array) -> Array:
    """The fields of each cell at the last of the times: (T, C, H, W) to (H * W, C) float32."""
    return np.ascontiguousarray(x[-1].reshape(len(x[-1]), -1).T, np.float32)


def features_of_series(x: Array, valid: Array, series: Series) -> Array:
    """A series before its day: its means over the last 1, 2, 4 ... steps and all, (B, T, C) to (B, F) float32.

    In deviations from the training's mean, of what is there (valid: 1); 0 where nothing is.
    """
    z = np.where(valid > 0, (x - np.array(series.mean)) / np.array(series.std), 0)
    steps = [2**n for n in range(series.times.bit_length()) if 2**n < series.times] + [series.times]
    means = [z[:, -n:].sum(1) / np.maximum((valid[:, -n:] > 0).sum(1), 1) for n in steps]
    return np.concatenate(means, axis=1).astype(np.float32)


def fit(features: Array, group: NDArray[np.intp], *, seed: int = 0) -> Familiar:
    """Learn from features (N, F) of training pixels of groups (N,).

    The scale is the distance that 95 % of left-out groups' pixels stay below, each group weighing the same; with one
    group alone it is that of its own left-out pixels.
    """
    folds = fold_of(group, seed)
    far = np.empty(len(features), np.float32)
    for fold in range(int(folds.max()) + 1):
        out = folds == fold
        far[out] = _kept(features[~out], group[~out], seed)(features[out])
    found = _kept(features, group, seed)
    return Familiar(found.mean, found.turn, found.kept, max(_quantile(far, group), 1e-6))


def flagged(features: Array, group: NDArray[np.intp], *, seed: int = 0) -> NDArray[np.float64]:
    """Share of each group's pixels (G,) outside by what the groups of the other folds, and their folds, say."""
    folds = fold_of(group, seed)
    shares = np.zeros(int(group.max()) + 1)
    for fold in range(int(folds.max()) + 1):
        out = folds == fold
        outside = fit(features[~out], np.unique(group[~out], return_inverse=True)[1], seed=seed)(features[out]) > 1
        count = np.bincount(group[out], minlength=len(shares))
        shares += np.where(count, np.bincount(group[out], outside, len(shares)) / np.maximum(count, 1), 0)
    return shares


def _kept(features: Array, group: NDArray[np.intp], seed: int) -> Familiar:
    """Statistics of all pixels, and some of each group."""
    mean, spread = features.mean(0), features.std(0) + 1e-6
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(((features - mean) / spread).T)))
    turn = (vectors / np.sqrt(values.clip(0) + PULL) / spread[:, None]).astype(np.float32)
    order = np.random.default_rng(seed).permutation(len(features))
    turns = np.empty(len(order), int)  # of a pixel within its group, by chance
    counts: dict[int, int] = {}
    for place in order:
        number = int(group[place])
        turns[place] = counts[number] = counts.get(number, -1) + 1
    some = order[np.argsort(turns[order], kind="stable")][:KEPT]  # the first of each group, then the second, ...
    return Familiar(mean, turn, ((features[some] - mean) @ turn).astype(np.float32))


def _quantile(far: Array, group: NDArray[np.intp]) -> float:
    """The distance that `QUANTILE` of the pixels stay below, each group weighing the same."""
    order = np.argsort(far)
    mass = np.cumsum((1 / np.bincount(group))[group[order]])
    return float(far[order[np.searchsorted(mass, QUANTILE * mass[-1])]])


def looks_like(familiar: Familiar, x: Array, channels: Sequence[str]) -> str:
    """What would make unfamiliar pixels familiar: two bands swapped, another scale or offset; empty where nothing does.

    Args:
        familiar: the training's pixels.
        x: some pixels of a scene (C, T, N, 1) in reflectance x10000.
        channels: the names of the bands.

    Returns:
        Words such as "NIR_NARROW looks like SWIR_1, and SWIR_1 like NIR_NARROW".
    """

    def outside(changed: Array) -> float:
        return float(np.mean(familiar(features_of(changed[None], channels)[0]) > 1))

    tried = changed(x, channels)
    now, (least, told) = outside(x), min((outside(changed), told) for told, changed in tried.items())
    return told if least < min(now / 2, LIKE) else ""


def changed(x: Array, channels: Sequence[str]) -> dict[str, Array]:
    """What pixels x (C, T, N, 1) would be if bands, scale or offset were read otherwise, by what would then be said."""
    found = {"the bands seem to come in reversed order": x[::-1]}
    for i, j in itertools.combinations(range(len(channels)), 2):
        order = [*range(len(channels))]
        order[i], order[j] = j, i
        found[f"{channels[i]} looks like {channels[j]}, and {channels[j]} like {channels[i]}"] = x[order]
    for factor in (10, 100, 10_000):
        found |= {
            f"the values seem {factor:,} times too {way}": x * by
            for way, by in (("small", factor), ("large", 1 / factor))
        }
    found["the values seem 1000 too high (the offset of Sentinel-2 since 2022)"] = x - 1000
    found["1000 too much seems to have been taken off the values"] = x + 1000
    return found


def told_apart(x: Array, group: NDArray[np.intp], channels: Sequence[str], *, seed: int = 0) -> dict[str, float]:
    """How well the distance tells pixels from what `changed` makes of them, each told of by the groups of other folds.

    Args:
        x: training pixels (C, T, N, 1) in reflectance x10000.
        group: number of the group of each (N,).
        channels: the names of the bands.
        seed: of the folds, and of what is kept.

    Returns:
        The AUROC of each change, by its name; 1 where all that is changed lies farther off.
    """
    kinds, folds = {"": x, **changed(x, channels)}, fold_of(group, seed)
    far = {kind: np.empty(x.shape[2], np.float32) for kind in kinds}
    for fold in range(int(folds.max()) + 1):
        out = folds == fold
        others = np.unique(group[~out], return_inverse=True)[1]
        known = fit(features_of(x[None][:, :, :, ~out], channels)[0], others, seed=seed)
        for kind, values in kinds.items():
            far[kind][out] = known(features_of(values[None][:, :, :, out], channels)[0])
    own = far.pop("")
    foreign = np.repeat((False, True), len(own))
    return {kind: auroc(np.concatenate((own, other)), foreign) for kind, other in far.items()}
