"""What a place was like before: kinds of ground, what they share, and how far years go that nothing is known of.

Learned from a sample of pixels. The threshold of an alarm is the score that a stated share of unchanged pixels reaches
in a year that was left out of the fit; so it knows errors of the fit, haze, crops that rotate, and what masks miss.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.changes.runs import CONFIRM, highest
from models.changes.seasons import YEAR, Season, fit
from models.changes.shared import Kinds, Shared, apart, find_kinds, find_shared
from models.errors import InputError
from models.types import Array, Mask

LEAST_YEARS = 2
ROUNDS = 2  # of fitting and taking off what is shared
LEAST_PIXELS = 120
LEAST_DATES = 6  # clear ones of a pixel; fewer tell no season
TAIL = np.array([0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999])  # of left-out pixels and years
ENOUGH = 500  # pixels and years of a kind for a threshold of its own


@dataclass(frozen=True)
class Ground:
    """What is known of N pixels before anything is watched.

    Attributes:
        season: theirs.
        kinds: of ground (N,).
        astray: how far each went from its season in its own history, as a score; NaN of too few dates (N,).
    """

    season: Season
    kinds: NDArray[np.uint8]
    astray: Array

    @property
    def unit(self) -> Array:
        """In which scores of its pixels are compared with those of others (N,): a field that rotates goes far."""
        return 1 + self.astray


@dataclass(frozen=True)
class History:
    """What is known of a place before anything is watched.

    Attributes:
        kinds: of ground.
        days: (T,) of the history's dates, since 1970, rising.
        shared: by them.
        usual: (K, F) middle of the scales of each kind.
        tails: (K, len(TAIL)) scores, in units of their pixels, below which these shares of left-out years stay.
    """

    kinds: Kinds
    days: NDArray[np.int64]
    shared: Shared
    usual: Array
    tails: Array

    def ground(self, y: Array) -> Ground:
        """What is known of pixels by their (T, F, N) on the history's dates, what is shared taken off."""
        kinds = self.kinds.of(fit(y, self.days))
        return _ground(y, self.days, self.shared, kinds, self.usual)

    def threshold(self, rate: float, ground: Ground) -> Array:
        """The score that `rate` of unchanged pixels like each reaches in a year; NaN where none is watched (N,)."""
        each = np.array([np.interp(1 - rate, TAIL, tail) for tail in self.tails], np.float32)
        return np.asarray(each[ground.kinds] * ground.unit)

    def chance(self, score: Array, kinds: NDArray[np.uint8]) -> Array:
        """The share of unchanged pixels that reaches a score, in units of the pixel, in a year (N,).

        No less than the table tells.
        """
        out = np.ones(score.shape, np.float32)
        for kind, tail in enumerate(self.tails):
            here = kinds == kind
            out[here] = 1 - np.interp(score[here], tail, TAIL, left=0)
        return out


def _ground(y: Array, days: NDArray[np.int64], shared: Shared, kinds: NDArray[np.uint8], usual: Array) -> Ground:
    """See `History.ground`."""
    season = fit(_less(y, shared, kinds), days, weights=shared.weights, usual=usual[kinds].T)
    astray = highest(apart(y - season.expected(days), season.scale, kinds, shared))
    return Ground(season, kinds, np.where(_enough(y), astray, np.float32(np.nan)))


def _enough(y: Array) -> Mask:
    """Pixels of (T, F, N) with dates enough for a season."""
    return np.asarray(np.isfinite(y[:, 0]).sum(axis=0) >= LEAST_DATES)


def check_years(days: NDArray[np.int64]) -> None:
    """Refuse a history that is too short.

    Raises:
        InputError: under two years, or a year of it without the dates to confirm anything.
    """
    span = (days[-1] - days[0]) / YEAR if len(days) else 0.0
    if span < LEAST_YEARS - 0.25:
        raise InputError(
            f"the history spans {span:.1f} years ({len(days)} dates), and under {LEAST_YEARS} nobody can tell a change "
            "from a season; add scenes of earlier years, or give a later --since"
        )
    for start, count in zip(*_years(days), strict=True):
        if count < 2 * CONFIRM:
            day = np.datetime64(int(start), "D")
            raise InputError(f"the year of history from {day} has {count} dates, at least {2 * CONFIRM} are wanted")


def _years(days: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First days of the history's years, counted back from its end, and the dates in each; a rest joins the first."""
    count = max(round((days[-1] - days[0]) / YEAR), 1)
    starts = days[-1] + 1 - (np.arange(count, 0, -1) * YEAR).astype(np.int64)
    starts[0] = min(starts[0], days[0])
    ends = np.append(starts[1:], days[-1] + 1)
    return starts, np.array([((days >= a) & (days < b)).sum() for a, b in zip(starts, ends, strict=True)])


def learn(y: Array, days: NDArray[np.int64], *, seed: int = 0) -> History:
    """The history of a sample of pixels.

    Args:
        y: (T, F, N), NaN where not clear.
        days: (T,) since 1970, rising.
        seed: of the kinds.

    Raises:
        InputError: the history is too short, or hardly a pixel was seen often enough.
    """
    check_years(days)
    y = y[..., _enough(y)]
    if y.shape[2] < LEAST_PIXELS:
        raise InputError(
            f"{y.shape[2]} pixels have {LEAST_DATES} clear dates in the history, at least {LEAST_PIXELS} are wanted to "
            "tell what they share; add scenes of earlier years, a wider area, or a mask that leaves more of it"
        )
    kinds = find_kinds(fit(y, days), seed=seed)
    shared, usual, _ = _settled(y, days, kinds)
    scores, of_kind = (np.concatenate(part) for part in zip(*_left_out(y, days, kinds), strict=True))
    tails = np.tile(np.quantile(scores, TAIL), (len(usual), 1))
    for kind in range(len(tails)):
        mine = scores[of_kind == kind]
        if mine.size >= ENOUGH:
            tails[kind] = np.quantile(mine, TAIL)
    return History(kinds, days, shared, usual, tails.astype(np.float32))


def _settled(y: Array, days: NDArray[np.int64], kinds: Kinds) -> tuple[Shared, Array, Ground]:
    """What kinds share, their usual scales (K, F), and what is known of the sample."""
    season, count = fit(y, days), len(kinds.centres)
    of_kind = kinds.of(season)
    for _ in range(ROUNDS):
        shared = find_shared(y - season.expected(days), season.scale, of_kind, count)
        usual = _usual(season.scale, of_kind, count)
        ground = _ground(y, days, shared, of_kind, usual)
        season = ground.season
    return shared, _usual(season.scale, of_kind, count), ground


def _usual(scale: Array, kinds: NDArray[np.uint8], count: int) -> Array:
    """The middle of the scales of each kind (K, F); of all where a kind has no pixel."""
    each = [scale[:, kinds == kind] for kind in range(count)]
    return np.stack([np.median(part if part.size else scale, axis=1) for part in each])


def _less(y: Array, shared: Shared, kinds: NDArray[np.uint8]) -> Array:
    """Values less what is shared."""
    return y - shared.centre[..., kinds]


def _left_out(y: Array, days: NDArray[np.int64], kinds: Kinds) -> Iterator[tuple[Array, NDArray[np.uint8]]]:
    """The highest score of each pixel in a year, in its unit by the other years, and its kind by them; year by year.

    By all years it may be of another kind: a field that had one crop in all the others is of those that get a second.
    """
    starts, _ = _years(days)
    for start, end in zip(starts, np.append(starts[1:], days[-1] + 1), strict=True):
        out = (days >= start) & (days < end)
        known, _, ground = _settled(y[~out], days[~out], kinds)
        away = y[out] - ground.season.expected(days[out])
        shared = find_shared(away, ground.season.scale, ground.kinds, len(kinds.centres), widest=known.widest)
        score, seen = highest(apart(away, ground.season.scale, ground.kinds, shared)) / ground.unit, _enough(y[~out])
        yield score[seen], ground.kinds[seen]
