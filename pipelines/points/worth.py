"""What heads are worth on groups that they never saw: tokens with statistics beside the statistics alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.baselines.heads import Labelled, LeftOut, left_out
from models.confidence.calibration import Calibration, Judged, calibrate
from pipelines.reports.comparison import GROUPS, LEVEL, RESAMPLES, Comparison, of_draws

SCORE = "balanced_accuracy"


@dataclass(frozen=True)
class Worth:
    """What one head is worth.

    Attributes:
        score: balanced accuracy over all left-out groups together; None where no group could be left out.
        draws: the same of groups drawn anew.
        left_out: what it said.
    """

    score: float | None
    draws: NDArray[np.float64]
    left_out: LeftOut | None

    @property
    def strength(self) -> float:
        """What left-out groups choose; a middle one without them."""
        return self.left_out.strength if self.left_out else 0.1

    def to_json(self, groups: int) -> dict[str, Any]:
        """The score and its interval; none of few groups."""
        if self.score is None or groups < GROUPS:
            return {SCORE: self.score, "interval": None}
        ends = np.quantile(self.draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return {SCORE: self.score, "interval": [round(float(end), 4) for end in ends]}


def worth(labelled: Labelled, *, seed: int = 0) -> Worth:
    """Leave groups out; every label weighs as much as it does in learning, and each class the same."""
    found = left_out(labelled, seed=seed)
    if found is None:
        return Worth(None, np.zeros(0), None)
    number = np.unique(labelled.group, return_inverse=True)[1]
    groups = int(number.max()) + 1
    cell = number * labelled.classes + labelled.target
    size = groups * labelled.classes
    right = labelled.weight * (found.p.argmax(axis=1) == labelled.target)
    sums = [np.bincount(cell, w, size).reshape(groups, -1) for w in (right, labelled.weight)]  # (G, K)
    chosen = np.random.default_rng(seed).integers(groups, size=(RESAMPLES, groups))
    times = np.apply_along_axis(np.bincount, 1, chosen, minlength=groups)  # (R, G)
    draws = _balanced(*(times @ of for of in sums))
    return Worth(round(float(_balanced(*(of.sum(axis=0, keepdims=True) for of in sums))[0]), 4), draws, found)


def _balanced(right: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """The mean over the classes that are there of the share that is right: (R, K) to (R,)."""
    there = whole > 0
    share = np.divide(right, whole, out=np.zeros_like(right, dtype=float), where=there)
    return np.asarray(share.sum(axis=1) / there.sum(axis=1))


def compared(ours: Worth, theirs: Worth, groups: int) -> Comparison:
    """Whether tokens with statistics are ahead of statistics alone, by the same draws of groups."""
    gain = (ours.score or 0.0) - (theirs.score or 0.0)
    return of_draws(SCORE, "statistics alone", gain, ours.draws - theirs.draws, groups, "group")


def calibration(found: Worth, labelled: Labelled) -> Calibration:
    """How sure the head may say that it is, by what it said of groups left out."""
    if found.left_out is None:
        return Calibration(0, 1.0, "Not calibrated: there is one group.")
    return calibrate(Judged.of(found.left_out.p, labelled.target, labelled.group))


def summary(worths: Mapping[str, Worth], classes: int, groups: int) -> dict[str, Any]:
    """The scores of each head, and of naming one class everywhere."""
    table = {name: one.to_json(groups) for name, one in worths.items()}
    return table | {"majority": {SCORE: round(1 / classes, 4), "interval": None}}
