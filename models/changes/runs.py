"""Runs of clear dates that depart alike: what turns a departure into a change, and a change back.

A date alone is a cloud's edge as often as a clearing. What all of the last dates agree on is, feature by feature, the
departure nearest to none, and nothing where they differ in sign; its length over the features is the score.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.types import Array, Mask

CONFIRM = 3  # clear dates
USUAL = 0.75  # of the threshold; dates below it are usual: lower, and noise would keep what is over
_FAR = np.float32(100)  # scales; none counts as farther


@dataclass
class Runs:
    """What the dates so far say of N pixels; changed by `step`.

    Attributes:
        last: (k, F, N) departures of the last clear dates in scales, the latest last; NaN before there are so many.
        days: (k + 1, N) their days since 1970 and that of the date before; 0 before there are so many.
        changed: (N,) first day of the change that stands, 0 where none does.
        before: (N,) last clear day before it.
        told: (N,) the day that confirmed it.
        score: (N,) the highest score since.
        size: (F, N) mean departure over the confirming dates, in the features' units.
        usual: (N,) clear dates in a row that were as usual since the change.
        ended: (N,) the day since when a change is taken back, 0 where none was.
        seen: (N,) clear dates.
    """

    last: Array
    days: NDArray[np.int32]
    changed: NDArray[np.int32]
    before: NDArray[np.int32]
    told: NDArray[np.int32]
    score: Array
    size: Array
    usual: NDArray[np.uint8]
    ended: NDArray[np.int32]
    seen: NDArray[np.uint16]

    @classmethod
    def begin(cls, features: int, pixels: int, *, confirm: int = CONFIRM) -> Runs:
        """Pixels of which no date is known."""
        days = [np.zeros(pixels, np.int32) for _ in range(4)]
        return cls(
            last=np.full((confirm, features, pixels), np.nan, np.float32),
            days=np.zeros((confirm + 1, pixels), np.int32),
            changed=days[0],
            before=days[1],
            told=days[2],
            score=np.zeros(pixels, np.float32),
            size=np.zeros((features, pixels), np.float32),
            usual=np.zeros(pixels, np.uint8),
            ended=days[3],
            seen=np.zeros(pixels, np.uint16),
        )

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Its arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def note(self, z: Array, day: int) -> Mask:
        """Take in a date: departures (F, N) in scales, NaN where not clear. Returns where it is clear (N,)."""
        clear = np.asarray(np.isfinite(z).all(axis=0))
        _shift(self.last, np.clip(z, -_FAR, _FAR), clear)
        _shift(self.days, np.int32(day), clear)
        self.seen += clear
        return clear

    def agreed(self) -> Array:
        """What the last dates agree on (F, N); 0 where they are too few."""
        low, high = self.last.min(axis=0), self.last.max(axis=0)
        return np.where(low > 0, low, np.where(high < 0, high, np.float32(0)))


def _shift(held: NDArray[Any], latest: ArrayLike, where: Mask) -> None:
    """Move what is held of the last dates (k, ..., N) on by one, where there is a later."""
    for old, new in zip(held, [*held[1:], latest], strict=True):
        np.copyto(old, new, where=where)


def length(z: Array) -> Array:
    """Root of the sum of squares over features: (F, N) to (N,)."""
    return np.asarray(np.sqrt(np.square(z).sum(axis=0)))


def step(runs: Runs, z: Array, day: int, *, threshold: Array, scale: Array) -> None:
    """Take in the next date.

    Args:
        runs: changed in place.
        z: (F, N) departures in scales, NaN where not clear.
        day: since 1970, not before the last.
        threshold: (N,) of a score.
        scale: (F, N) in the features' units.
    """
    clear = runs.note(z, day)
    score = np.where(clear, length(runs.agreed()), np.float32(0))
    new = (score >= threshold) & (runs.changed == 0)
    runs.changed[new], runs.before[new], runs.told[new] = runs.days[1, new], runs.days[0, new], day
    runs.size[:, new] = runs.last[..., new].mean(axis=0) * scale[:, new]
    runs.score[new] = 0
    stands = runs.changed > 0
    np.maximum(runs.score, score, out=runs.score, where=stands)
    usual = clear & stands & (length(np.nan_to_num(z)) < USUAL * threshold)
    runs.usual[usual] += 1
    runs.usual[clear & ~usual] = 0
    over = stands & (runs.usual >= len(runs.last))
    runs.ended[over], runs.changed[over], runs.usual[over] = runs.days[1, over], 0, 0


def highest(z: Array, *, confirm: int = CONFIRM) -> Array:
    """The highest score over dates (T, F, N), whether or not a change stands: (N,)."""
    runs = Runs.begin(z.shape[1], z.shape[2], confirm=confirm)
    best = np.zeros(z.shape[2], np.float32)
    for date in z:
        clear = runs.note(date, 0)
        np.maximum(best, np.where(clear, length(runs.agreed()), np.float32(0)), out=best)
    return best
