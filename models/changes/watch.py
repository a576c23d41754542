"""A sample of a place that is watched date by date, to tell what a date's pixels share from what a pixel does alone.

What already stands as changed no longer tells what is shared. A kind whose middle departs in a run of dates has changed
as a whole: a drought, a sensor, or a die-back of all of it. That is told, but alarms no pixel by itself.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from models.changes.history import Ground, History
from models.changes.runs import Runs, highest, step
from models.changes.shared import Shared, apart, find_shared
from models.types import Array

LASTING = 9  # dates that confirm a change of a kind: some pixel of it is clear on most, and early springs pass
FARTHER = 1.5  # times the farthest that the middle of a kind went in its history: a dry summer is no news


@dataclass
class Watch:
    """The sample, as far as it was watched.

    Attributes:
        history: of the place.
        ground: the sample's N pixels.
        runs: theirs.
        of_kinds: the same of the K kinds' middles.
        rate: of unchanged pixels that are falsely alarmed in a year.
    """

    history: History
    ground: Ground
    runs: Runs
    of_kinds: Runs
    rate: float

    @classmethod
    def begin(cls, history: History, y: Array, rate: float) -> Watch:
        """Watch a sample (T, F, N), of the history's dates, from here on."""
        ground = history.ground(y)
        kinds, features = history.usual.shape
        return cls(
            history, ground, Runs.begin(features, y.shape[2]), Runs.begin(features, kinds, confirm=LASTING), rate
        )

    @functools.cached_property
    def threshold(self) -> Array:
        """Of the sample's pixels (N,)."""
        return self.history.threshold(self.rate, self.ground)

    @functools.cached_property
    def of_kind(self) -> Array:
        """Threshold of the middle of each kind (K,)."""
        return np.asarray(
            FARTHER * np.maximum(highest(self._in_usual(self.history.shared), confirm=LASTING), 1), np.float32
        )

    def _in_usual(self, shared: Shared) -> Array:
        """Middles of kinds in their usual scales (T, F, K), NaN where they are not told by themselves."""
        told = np.where(shared.own[:, None], shared.centre, np.float32(np.nan))
        return np.asarray(told / self.history.usual.T, np.float32)

    def date(self, y: Array, day: int) -> Shared:
        """Take in the sample (F, N) on a day; returns what its kinds share then (T is 1)."""
        season, kinds = self.ground.season, self.ground.kinds
        free = (self.runs.changed == 0) & np.isfinite(self.ground.astray)  # others have no season to depart from
        away = (y - season.expected(np.array([day]))[0])[None]
        count, widest = len(self.history.usual), self.history.shared.widest
        shared = find_shared(away[..., free], season.scale[:, free], kinds[free], count, widest=widest)
        take(self.runs, self.ground, y, day, shared, self.threshold)
        step(self.of_kinds, self._in_usual(shared)[0], day, threshold=self.of_kind, scale=self.history.usual.T)
        return shared


def take(runs: Runs, ground: Ground, y: Array, day: int, shared: Shared, threshold: Array) -> None:
    """Take a date's values (F, N) of pixels into their runs, what is shared (T is 1) taken off."""
    away = (y - ground.season.expected(np.array([day]))[0])[None]
    z = apart(away, ground.season.scale, ground.kinds, shared)[0]
    spread = shared.spread[0][:, ground.kinds]  # of the date that confirms, for those of a change: sizes are in units
    step(runs, z, day, threshold=threshold, scale=ground.season.scale * spread)
