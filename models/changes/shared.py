"""What pixels of a kind share on a date: weather, sun, sensor; taken off, so that a drought is no clearing.

Kinds are clusters of seasons. What a date's pixels of a kind share is the median of their departures. How far they are
spread beyond the usual tells a hazy date, snow or a drought from a usual one: by the outer of them, since pixels at the
edge of a kind depart with their neighbours, too, which its middle does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2, vq
from scipy.special import ndtri

from models.changes.seasons import Season
from models.types import Array, Mask

KINDS = 6
STARTS = 5  # of the clustering
STEADY = 2.0  # times that how well a season is kept to counts: fields vary most, and else all that is none was one kind
OUTER = 0.9  # share of a kind's pixels that a date's spread holds, as of a normal distribution
BEYOND = 1.5  # times the widest spread of the history; what is wider on a date is a change of many, such as a fire
ENOUGH = 30  # pixels of a kind that a date wants to be told by; hardly a clear pixel is a date of clouds


@dataclass(frozen=True)
class Kinds:
    """Kinds of ground by their seasons.

    Attributes:
        centres: (K, P * F + F) of seasons in `unit`.
        unit: (P * F + F,) spread of each number over the pixels.
    """

    centres: Array
    unit: Array

    def of(self, season: Season) -> NDArray[np.uint8]:
        """The kind of each pixel (N,)."""
        numbers = _numbers(season) / self.unit
        near = [np.square(numbers - centre).sum(axis=1) for centre in self.centres]
        return np.asarray(np.argmin(near, axis=0), np.uint8)


@dataclass(frozen=True)
class Shared:
    """What pixels of a kind share on T dates.

    Attributes:
        centre: (T, F, K) median departure, in the features' units; NaN on dates when hardly a pixel was clear.
        spread: (T, F, K) of the others around it, in scales, at least 1; see `find_shared`.
        own: (T, K) where it is the kind's, and not that of all kinds for want of clear pixels.
    """

    centre: Array
    spread: Array
    own: Mask

    @property
    def widest(self) -> Array:
        """How wide a spread may be on dates that are not of these (F, K)."""
        return np.asarray(BEYOND * self.spread.max(axis=0))

    @property
    def weights(self) -> Array:
        """What dates count for in a fit (T,)."""
        return np.asarray(1 / np.square(self.spread).mean(axis=(1, 2)), np.float32)


def find_kinds(season: Season, *, seed: int = 0) -> Kinds:
    """Kinds among pixels: at most `KINDS`, fewer where pixels are few or alike."""
    numbers = _numbers(season)
    unit = numbers.std(axis=0) + np.float32(1e-6)
    unit[-season.scale.shape[0] :] /= STEADY
    count = min(KINDS, max(len(numbers) // (4 * ENOUGH), 1))
    rows, rng = numbers / unit, np.random.default_rng(seed)
    tried = [kmeans2(rows, count, minit="++", rng=rng, missing="warn")[0] for _ in range(STARTS)]
    best = min(tried, key=lambda centres: float(np.square(vq(rows, centres)[1]).sum()))
    return Kinds(np.asarray(best, np.float32), unit)


def _numbers(season: Season) -> Array:
    """Seasons as rows (N, P * F + F): their terms, and how well they are kept to, as a field looks like a wood."""
    return np.concatenate((season.terms.reshape(-1, season.terms.shape[-1]), np.log(season.scale))).T


def find_shared(
    away: Array, scale: Array, kinds: NDArray[np.uint8], count: int, *, widest: Array | None = None
) -> Shared:
    """What the pixels of each of `count` kinds share; what all share, where a kind shows too few on a date.

    The spread is that of the outer pixels of a kind, up to the widest. Beyond that it is that of its half.

    Args:
        away: (T, F, N) departures from the season, NaN where not clear.
        scale: (F, N).
        kinds: (N,)
        count: K
        widest: (F, K) of the history; without end when not given.
    """
    limit = np.full((away.shape[1], count), np.inf) if widest is None else widest
    centre, spread = (np.repeat(part[..., None], count, axis=2) for part in _middle(away, scale, limit.max(axis=1)))
    own = np.zeros((len(away), count), bool)
    for kind in range(count):
        here = kinds == kind
        middle, around = _middle(away[..., here], scale[:, here], limit[:, kind])
        own[:, kind] = told = np.isfinite(middle[:, 0])
        centre[told, :, kind], spread[told, :, kind] = middle[told], around[told]
    return Shared(centre, spread, own)


def _middle(away: Array, scale: Array, widest: Array) -> tuple[Array, Array]:
    """Median over pixels of departures, NaN where too few are clear, and the spread around it in scales: (T, F)."""
    centre, spread = np.full(away.shape[:2], np.nan, np.float32), np.ones(away.shape[:2], np.float32)
    normal = ndtri((1 + np.array([0.5, OUTER])) / 2)[:, None]
    for t, date in enumerate(away):
        clear = np.isfinite(date[0])
        if clear.sum() >= ENOUGH:
            centre[t] = np.median(date[:, clear], axis=1)
            off = np.abs(date[:, clear] - centre[t][:, None]) / scale[:, clear]
            half, outer = np.quantile(off, (0.5, OUTER), axis=1) / normal  # (2, F)
            spread[t] = np.maximum(np.clip(outer, half, np.maximum(half, widest)), 1)
    return centre, spread


def apart(away: Array, scale: Array, kinds: NDArray[np.uint8], shared: Shared) -> Array:
    """Departures less what is shared, in scales of the pixel and the date: (T, F, N)."""
    return np.asarray((away - shared.centre[..., kinds]) / (scale * shared.spread[..., kinds]))
