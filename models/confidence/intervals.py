"""Intervals of values and quantiles that hold what is measured as often as they promise.

Conformalised quantiles (Romano, Patterson, Candes 2019, arXiv:1905.03222), each group one draw, as `calibration` does
it for sets. A model of quantiles brings its own; of a model that tells one value, the quantiles are those of what was
measured where about as much was told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.confidence.calibration import LEVELS, PARTS, coverage, fold_of, threshold
from models.types import Array

PLACES = 100_000  # answers that are used at most, evenly of all
KNOTS = 10  # values between which the quantiles of what was measured are linear
NARROW = 0.02  # of the mean width: what no interval is thinner than, where it is stretched
LEAST = -0.4  # stretch; ends would meet at -0.5


@dataclass(frozen=True)
class Told:
    """What a model said of places that it never saw.

    Attributes:
        answers: values (N, 1), or quantiles (N, L).
        truth: what was measured (N,).
        group: number of the group of each (N,), 0 to G - 1.
        positive: whether it is never negative.
    """

    answers: Array
    truth: Array
    group: NDArray[np.intp]
    positive: bool = False

    @classmethod
    def of(cls, answers: NDArray[Any], truth: NDArray[Any], group: NDArray[Any], *, positive: bool = False) -> Told:
        """Answers (N, K), truth (N,) and names of groups (N,); at most `PLACES` of them that are numbers, evenly."""
        told = np.isfinite(answers).all(axis=1)
        answers, truth, group = answers[told], truth[told], group[told]
        some = np.linspace(0, len(answers) - 1, min(len(answers), PLACES)).round().astype(int)
        number = np.unique(group[some], return_inverse=True)[1]
        return cls(answers[some].astype(np.float32), truth[some].astype(np.float32), number, positive)

    def where(self, chosen: NDArray[np.bool_]) -> Told:
        """Those of some places (N,), the groups' numbers as they were."""
        return Told(self.answers[chosen], self.truth[chosen], self.group[chosen], self.positive)


@dataclass(frozen=True)
class Interval:
    """How an interval of one level follows from an answer.

    Attributes:
        low, high: of quantiles, which of them are its ends before it is stretched.
        knots: of values, where (K,) the lower (K,) and the upper (K,) departure of what was measured is known.
        below: see `knots`.
        above: see `knots`.
        floor: width that is stretched at least.
        stretch: share of the width by which both ends move outwards.
    """

    low: int = 0
    high: int = 0
    knots: tuple[float, ...] = ()
    below: tuple[float, ...] = ()
    above: tuple[float, ...] = ()
    floor: float = 0.0
    stretch: float = 0.0

    def __call__(self, answers: Array, *, positive: bool) -> tuple[Array, Array]:
        """Lower and upper end (...) of answers (K, ...): values K = 1, quantiles K of them; `positive`: from 0 on."""
        low, high = np.asarray(answers[self.low]), np.asarray(answers[self.high])
        if len(self.knots):
            value = low
            low, high = (np.asarray(value + np.interp(value, self.knots, ends)) for ends in (self.below, self.above))
        by = self.stretch * np.maximum(high - low, self.floor)
        lower, upper = np.minimum(low - by, high + by), np.maximum(low - by, high + by)
        if positive:
            lower, upper = np.where(low <= 0, 0, lower).clip(0), upper.clip(0)
        return lower.astype(np.float32), upper.astype(np.float32)

    def departure(self, told: Told) -> Array:
        """By what share of the width the ends would have to move out to meet what was measured (N,); < 0 inside.

        Of what is never negative nothing lies below an interval from 0 on, and 0 itself always lies in it.
        """
        low, high = self(told.answers.T, positive=told.positive)
        width = np.maximum(high - low, self.floor)
        from_none = (low <= 0) & told.positive
        below = np.where(from_none, -np.inf, low - told.truth)
        above = np.where(from_none & (told.truth <= 0), -np.inf, told.truth - high)
        found: Array = np.maximum(below, above) / width
        return found


@dataclass(frozen=True)
class Intervals:
    """What bundle.json keeps of it.

    Attributes:
        groups: of how many groups it was learned.
        said: of what it was learned, or why it was not.
        intervals: by level: {"0.9": Interval}.
        positive: whether no end is below 0.
    """

    groups: int
    said: str = ""
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    positive: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def interval_of(kept: Mapping[str, Any]) -> tuple[float, Interval] | None:
    """The level and the interval that maps show, of what bundle.json keeps; None where there is none."""
    found: Mapping[str, Any] = kept.get("intervals", {})
    level = next(iter(found), None)
    return None if level is None else (float(level), Interval(**found[level]))


def learn(told: Told, levels: Sequence[float]) -> tuple[Intervals, dict[str, Any]]:
    """Learn intervals, and measure them with each group told of by what the others say.

    Args:
        told: answers about groups that the model never saw.
        levels: of the quantiles that it tells; none for values.

    Returns:
        The intervals, those levels left out that the groups do not bear; and "groups", and by level what
        `calibration.coverage` gives, "width", mean over groups, and "narrow" and "wide", the mean error of the middle
        where the interval is narrower, and wider, than half of them.
    """
    groups = int(told.group.max(initial=-1)) + 1
    kept: dict[str, Interval] = {}
    measured: dict[str, Any] = {}
    folds = fold_of(told.group, 0)
    for level in LEVELS:
        bases = [_base(told.where(folds != fold), levels, level) for fold in range(int(folds.max(initial=-1)) + 1)]
        off = np.empty(len(told.truth), np.float32)
        for fold, base in enumerate(bases):
            off[folds == fold] = base.departure(told.where(folds == fold))
        bar = threshold(-off, told.group, level)
        if bar is None:
            continue
        kept[str(level)] = _stretched(_base(told, levels, level), -bar)
        found = _measures(told, bases, folds, off, level)
        measured |= {str(level): found} if found else {}
    if kept:
        said = f"Intervals learned on {groups} groups that the model never saw."
        said += " Nothing measured is below 0, and no end is." if told.positive else ""
    else:
        said = f"No intervals: {groups} group{'s' * (groups != 1)} left out, one of 80 % wants 4, one of 90 % 9."
    return Intervals(groups, said, kept, told.positive), {"groups": groups, "intervals": measured}


def _stretched(base: Interval, by: float) -> Interval:
    """An interval whose ends move out; rounded upwards, for many may lie just within (dry cells: at 0)."""
    return Interval(**asdict(base) | {"stretch": math.ceil(max(by, LEAST) * 1e5) / 1e5})


def _base(told: Told, levels: Sequence[float], level: float) -> Interval:
    """An interval before it is stretched, learned where values are told, each group weighing the same."""
    edges = (1 - level) / 2, (1 + level) / 2
    if len(levels):
        low, high = (int(np.argmin(np.abs(np.array(levels) - edge))) for edge in edges)
        width = float((told.answers[:, high] - told.answers[:, low]).mean())
        return Interval(low, high, floor=max(NARROW * width, 1e-6))
    value, weight = told.answers[:, 0], (1 / np.bincount(told.group).clip(1))[told.group]
    order = np.argsort(value, kind="stable")
    mass = np.cumsum(weight[order])
    part = np.minimum((KNOTS * (mass - weight[order] / 2) / mass[-1]).astype(int), KNOTS - 1)
    knots: list[float] = []
    below: list[float] = []
    above: list[float] = []
    for number in np.unique(part):
        rows = order[part == number]
        ends = _quantiles(told.truth[rows] - value[rows], weight[rows], edges)
        middle = float(np.average(value[rows], weights=weight[rows]))
        if not knots or middle > knots[-1]:
            knots, below, above = [*knots, middle], [*below, ends[0]], [*above, ends[1]]
    width = float(np.mean(above) - np.mean(below))
    plain = [tuple(float(f"{end:.6g}") for end in ends) for ends in (knots, below, above)]
    return Interval(knots=plain[0], below=plain[1], above=plain[2], floor=max(NARROW * width, 1e-6))


def _quantiles(values: Array, weight: NDArray[np.float64], levels: Sequence[float]) -> list[float]:
    """Weighted quantiles of values (N,)."""
    order = np.argsort(values, kind="stable")
    mass = np.cumsum(weight[order])
    places = np.searchsorted(mass, np.array(levels) * mass[-1] - 1e-9)
    return [float(values[order[min(place, len(order) - 1)]]) for place in places]


def _measures(
    told: Told, bases: Sequence[Interval], folds: NDArray[np.intp], off: Array, level: float
) -> dict[str, Any] | None:
    """How the intervals do, see `learn`; None where the groups without one are too few."""
    inside, width, error = np.zeros(len(off), bool), np.empty(len(off)), np.empty(len(off))
    parts = told.group % PARTS
    for part in np.unique(parts):
        own = parts == part
        bar = threshold(-off[~own], told.group[~own], level)
        if bar is None:
            return None
        for fold in np.unique(folds[own]):
            here = own & (folds == fold)
            low, high = _stretched(bases[fold], -bar)(told.answers[here].T, positive=told.positive)
            truth = told.truth[here]
            inside[here], width[here] = (low <= truth) & (truth <= high), high - low
            error[here] = np.abs((low + high) / 2 - truth)
    wide = width > np.median(width)
    return coverage(inside, told.group) | {
        "width": float((np.bincount(told.group, width) / np.bincount(told.group)).mean()),
        "narrow": float(error[~wide].mean()),
        "wide": float(error[wide].mean()) if wide.any() else float(error.mean()),
    }


def words(measured: Mapping[str, Any], *, unit: str, over: str, place: str) -> list[str]:
    """The sentences of a report.

    Args:
        measured: what `learn` gave.
        unit: of the values.
        over: what a group is: place, day.
        place: what a value is of: pixel, cell.
    """
    return [
        f"For a random {place} of a new {over} like the {measured['groups']} that were left out, the "
        f"{round(100 * float(level))} % interval holds what is measured with a probability of at least "
        f"{round(100 * float(level))} %, averaged over {over}s: {found['coverage']:.2f} where each {over} was left out "
        f"in turn, {found['worst']:.2f} in the worst tenth of them; it is {found['width']:.3g}{' ' * bool(unit)}{unit} "
        f"wide in the mean. Where it is narrow its middle is off by {found['narrow']:.3g}, where it is wide by "
        f"{found['wide']:.3g}."
        for level, found in measured["intervals"].items()
    ]
