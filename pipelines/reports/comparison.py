"""Which of two models is better: told only where groups that neither has seen can tell, paired and resampled by group.

A place, a scene or a day is one draw of the weather and the land; its pixels are not. So the unit is the group, both
models are asked about the same ones, and nothing is said of few groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.reports.measures import number, rank, with_unit

RESAMPLES = 2000
LEVEL = 0.95  # of the intervals
# The range of n independent values holds their median with 1 - 2 / 2^n, and less than 95 % of the time below six.
GROUPS = 6


@dataclass(frozen=True)
class Comparison:
    """How much better a model is than another by a score.

    Attributes:
        score: which.
        beside: the other model.
        gain: by how much the model is better: positive is better, whether more or less of the score is.
        interval: ends of the 95 % interval of the gain; none where there are too few groups.
        groups: how many there were.
        counted: what a group is, "group" or "day".
    """

    score: str
    beside: str
    gain: float
    interval: tuple[float, float] | None
    groups: int
    counted: str = "group"

    @property
    def verdict(self) -> str:
        """Ahead or behind where the interval leaves 0 out, else level; unclear without an interval."""
        if self.interval is None:
            return "unclear"
        low, high = self.interval
        return "ahead" if low > 0 else "behind" if high < 0 else "level"

    def told(self, unit: str = "", *, names: tuple[str, str] = ("The model", "The baseline")) -> str:
        """The verdict as a sentence, with what the two are called."""
        many = f"{self.groups} {self.counted}{'s' if self.groups != 1 else ''}"
        if self.interval is None:
            return f"{many[:1].upper() + many[1:]} {'are' if self.groups != 1 else 'is'} too few to say which is ahead."
        sign = -1 if self.verdict == "behind" else 1
        form = "+" if self.verdict == "level" else ""
        low, high = (number(self.score, end, sign=form) for end in sorted(sign * end for end in self.interval))
        by = with_unit(self.score, number(self.score, abs(self.gain)), unit)
        words = {
            "ahead": f"{names[0]} is ahead by {by}",
            "behind": f"{names[1]} is ahead by {by}",
            "level": "They are level",
        }
        return f"{words[self.verdict]} ({low} to {high} with 95 %, {many})."

    def to_json(self) -> dict[str, Any]:
        """Plain types, with the verdict."""
        return asdict(self) | {"interval": self.interval and list(self.interval), "verdict": self.verdict}


def over_groups(
    score: str, beside: str, ours: Mapping[str, float | None], theirs: Mapping[str, float | None], *, seed: int = 0
) -> Comparison:
    """Compare the means over groups of a score.

    Args:
        score: its name.
        beside: the other model's.
        ours: the model's score in each group; a group without one counts for neither.
        theirs: the other's.
        seed: seeds the resampling.
    """
    pairs = [(ours[group], theirs[group]) for group in ours]
    gains = np.array([rank(score, a) - rank(score, b) for a, b in pairs if a is not None and b is not None])
    draws = np.random.default_rng(seed).integers(max(len(gains), 1), size=(RESAMPLES, len(gains)))
    mean = float(gains.mean()) if len(gains) else 0.0
    return of_draws(score, beside, mean, gains[draws].mean(axis=1) if len(gains) else gains, len(gains), "group")


def of_draws(score: str, beside: str, gain: float, draws: NDArray[np.float64], groups: int, counted: str) -> Comparison:
    """A comparison whose interval is that of the gains of resampled groups."""
    if groups < GROUPS:
        return Comparison(score, beside, gain, None, groups, counted)
    low, high = (float(end) for end in np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return Comparison(score, beside, gain, (low, high), groups, counted)
