"""The season of each pixel, fitted to the dates of its history.

A mean and harmonics of the year, by least squares that are weighted again and again, so that a cloud which nothing
masks does not bend them. No trend: two years tell none, and one that is drawn out alarms of itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.types import Array

YEAR = 365.25  # days
HARMONICS = 2
TERMS = 1 + 2 * HARMONICS  # P
PENALTY = (1e-6, 1.0, 1.0, 3.0, 3.0)  # of each term, in dates: few dates hold a mean, but no wave between them
ROUNDS = 5  # of weighting; the sixth moves no coefficient by a hundredth of the scale
OUTLIER = 1.8  # scales; departures as large count a quarter (Geman-McClure)
SPREAD = 1.73  # of a normal distribution, over its mean departure so weighted
NEIGHBOURS = 20.0  # dates that the scale of the kind counts for beside a pixel's own
LEAST = 1e-4  # of a scale, for what is constant
_AT_ONCE = 1 << 25  # values of (T, F, N); more are fitted part by part


@dataclass(frozen=True)
class Season:
    """What N pixels are like at a time of year.

    Attributes:
        terms: of the mean and the harmonics (P, F, N).
        scale: of a date's departure, about one standard deviation (F, N).
    """

    terms: Array
    scale: Array

    def expected(self, days: NDArray[np.int64]) -> Array:
        """What is expected on days since 1970: (T, F, N)."""
        return np.tensordot(waves(days), self.terms, (1, 0))

    def only(self, keep: NDArray[np.bool_] | slice) -> Season:
        """Some of the pixels."""
        return Season(self.terms[..., keep], self.scale[..., keep])


def waves(days: NDArray[np.int64]) -> Array:
    """One, cosines and sines of the time of year, on days since 1970: float32 (T, P)."""
    angle = 2 * np.pi / YEAR * np.asarray(days, np.float64)[:, None] * np.arange(1, HARMONICS + 1)
    both = np.stack((np.cos(angle), np.sin(angle)), axis=2).reshape(len(angle), -1)
    return np.concatenate((np.ones((len(angle), 1)), both), axis=1).astype(np.float32)


def fit(y: Array, days: NDArray[np.int64], *, weights: Array | None = None, usual: Array | None = None) -> Season:
    """The season of each pixel.

    Args:
        y: (T, F, N), NaN where a date is not clear; a date is clear in all features or in none.
        days: of each date, since 1970.
        weights: of each date, around 1; all alike when not given.
        usual: (F, N) the scale of pixels of the kind, which a pixel of few dates takes after.
    """
    step = max(_AT_ONCE // max(y[..., 0].size, 1), 1)
    parts = [slice(start, start + step) for start in range(0, y.shape[2], step)]
    made = [_fit(y[..., part], waves(days), weights, None if usual is None else usual[:, part]) for part in parts]
    return Season(*(np.concatenate([getattr(one, name) for one in made], axis=-1) for name in ("terms", "scale")))


def _fit(y: Array, x: Array, weights: Array | None, usual: Array | None) -> Season:
    """See `fit`; x are the `waves` (T, P)."""
    dates, _, pixels = y.shape
    clear = np.isfinite(y[:, 0])  # (T, N)
    known = np.where(clear[:, None], y, np.float32(0))
    even = clear.astype(np.float32) * (1 if weights is None else weights[:, None].astype(np.float32))
    pairs = (x[:, :, None] * x[:, None]).reshape(dates, -1)  # (T, P * P)
    weight, count = even, clear.sum(axis=0)
    for _ in range(ROUNDS):
        normal = (weight.T @ pairs).reshape(pixels, TERMS, TERMS) + np.diag(np.array(PENALTY, np.float32))
        right = np.tensordot(weight[:, None] * known, x, (0, 0)).transpose(1, 2, 0)  # (N, P, F)
        terms = np.linalg.solve(normal, right).transpose(1, 2, 0).astype(np.float32)  # (P, F, N)
        away = np.abs(known - np.tensordot(x, terms, (1, 0)))
        total = np.maximum(weight.sum(axis=0), 1e-6)
        scale = SPREAD * np.einsum("tn,tfn->fn", weight, away) / total
        if usual is not None:
            scale = np.sqrt((count * scale**2 + NEIGHBOURS * usual**2) / (count + NEIGHBOURS))
        scale = np.maximum(scale, LEAST).astype(np.float32)
        weight = even / (1 + np.square(away / scale).mean(axis=1) / OUTLIER**2) ** 2
    return Season(terms, scale)
