"""Probabilities that mean what they say, and sets of classes that hold the right one as often as they promise.

Both are fitted on answers about groups (places, days) that the model never saw, and a group counts as one, whatever
its size: pixels of one place are no independent draws, and pooled they promise too much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.types import Array

GROUPS = 10  # at least, for a temperature: from fewer the error grew
LEVELS = (0.9, 0.8)  # of sets
MOST_CLASSES = 32  # of sets: bits of a pixel
PLACES = 200_000  # answers that are used at most, evenly of all
FOLDS = 5  # of groups, where what is learned of some is asked about others
PARTS = 100  # groups that are left out in turn, each alone; of more of them several at once
BINS = 15  # of the expected calibration error
TEMPERATURES = np.geomspace(0.3, 3.3, 97)  # steps of 2.5 %; 1 is among them
_LEAST = 1e-6  # probability


@dataclass(frozen=True)
class Judged:
    """What a model said of places that it never saw.

    Attributes:
        p: probabilities (N, K).
        truth: index of the right class (N,).
        group: number of the group of each (N,), 0 to G - 1.
    """

    p: Array
    truth: NDArray[np.intp]
    group: NDArray[np.intp]

    @classmethod
    def of(cls, p: NDArray[Any], truth: NDArray[Any], group: NDArray[Any]) -> Judged:
        """Answers by probabilities (N, K), indices (N,) and names of groups (N,); at most `PLACES` of them, evenly."""
        some = np.linspace(0, len(p) - 1, min(len(p), PLACES)).round().astype(int)
        rows = np.clip(p[some].astype(np.float32), _LEAST, None)
        number = np.unique(group[some], return_inverse=True)[1]
        return cls(rows / rows.sum(1, keepdims=True), truth[some].astype(np.intp), number)

    @property
    def groups(self) -> int:
        """How many there are."""
        return int(self.group.max(initial=-1)) + 1

    @property
    def right(self) -> Array:
        """The probability of the right class (N,)."""
        found: Array = self.p[np.arange(len(self.p)), self.truth]
        return found

    @property
    def weight(self) -> NDArray[np.float64]:
        """The weight of each (N,), by which all groups weigh the same; they add up to 1."""
        return 1 / (np.bincount(self.group)[self.group] * max(self.groups, 1))

    def at(self, temperature: float) -> Judged:
        """The same at a temperature."""
        return Judged(tempered(self.p, temperature, axis=1), self.truth, self.group)


@dataclass(frozen=True)
class Calibration:
    """What bundle.json keeps of it.

    Attributes:
        groups: of how many groups it was learned.
        temperature: see `tempered`; 1 leaves all as it is.
        said: why it is 1, or of what it was learned.
        sets: the least probability of a class that is in the set, by the set's level: {"0.9": 0.04}.
    """

    groups: int
    temperature: float = 1.0
    said: str = ""
    sets: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def tempered(p: Array, temperature: float, *, axis: int) -> Array:
    """Probabilities to the power of 1 / T, adding up to 1 along an axis again; the order of classes stays.

    Guo et al. 2017, arXiv:1706.04599, for logits.
    """
    if temperature == 1:
        return p
    sharp = np.clip(p, _LEAST, None) ** np.float32(1 / temperature)
    scaled: Array = sharp / sharp.sum(axis=axis, keepdims=True)
    return scaled


def calibrate(found: Judged) -> Calibration:
    """Learn a temperature and sets; each is left out where it could not be relied on, and `said` tells why."""
    if found.groups < GROUPS:
        said = f"Not calibrated: {found.groups} group{'s' * (found.groups != 1)} left out, {GROUPS} are wanted."
        return Calibration(found.groups, 1.0, said, _sets(found))
    loss = _losses(found)
    best, without = _best(loss.mean(0)), _left_out(loss)
    one = int(np.argmin(np.abs(np.log(TEMPERATURES))))
    gain = np.mean(loss[:, one] - loss[np.arange(len(loss)), without])
    if not gain > 0:
        said = f"Not calibrated: over {found.groups} groups, each left out in turn, a temperature did not help."
        return Calibration(found.groups, 1.0, said, _sets(found))
    temperature = float(TEMPERATURES[best])
    said = f"Calibrated on {found.groups} groups that the model never saw: temperature {temperature:.2f}."
    return Calibration(found.groups, temperature, said, _sets(found.at(temperature)))


def _losses(found: Judged) -> NDArray[np.float64]:
    """Mean negative log likelihood of each group at each temperature, (G, T)."""
    columns = [
        np.bincount(found.group, -np.log(found.at(float(t)).right.clip(_LEAST)), found.groups) for t in TEMPERATURES
    ]
    return np.stack(columns, axis=1) / np.bincount(found.group)[:, None]


def _best(loss: NDArray[np.float64]) -> int:
    return int(np.argmin(loss))


def _left_out(loss: NDArray[np.float64]) -> NDArray[np.intp]:
    """For each group the index of the temperature that the others choose (G,)."""
    found: NDArray[np.intp] = np.argmin(loss.sum(0) - loss, axis=1)
    return found


def _sets(found: Judged) -> dict[str, float]:
    """The thresholds of those levels that the groups bear, and whose sets say something: under half the classes."""
    if found.p.shape[1] > MOST_CLASSES:
        return {}
    bars = {str(level): threshold(found.right, found.group, level) for level in LEVELS}
    return {
        level: bar
        for level, bar in bars.items()
        if bar is not None and float(found.weight @ members(found.p, bar).sum(1)) < found.p.shape[1] / 2
    }


def fold_of(group: NDArray[np.intp], seed: int) -> NDArray[np.intp]:
    """The fold of each place (N,), at most `FOLDS`: of its group, or of its own where there is but one group."""
    rng, groups = np.random.default_rng(seed), int(group.max(initial=-1)) + 1
    if groups == 1:
        return rng.integers(0, FOLDS, len(group))
    chosen: NDArray[np.intp] = (rng.permutation(groups) % min(FOLDS, max(groups, 1)))[group]
    return chosen


def threshold(right: Array, group: NDArray[np.intp], level: float) -> float | None:
    """The probability above which classes are in sets that hold the right one with probability `level` or more.

    Of a random place of a new group like these, averaged over groups. Each of G groups has the mass 1 / (G + 1), and
    as much lies at infinity (Lee, Barber, Willett 2023, arXiv:2306.06342; Dunn et al. 2022, arXiv:1809.07441).

    Args:
        right: probability of the right class (N,).
        group: number of the group of each (N,).
        level: 0 to 1.

    Returns:
        The threshold; None where the groups are too few: 9 are wanted for 0.9, 4 for 0.8.
    """
    counts = np.bincount(group)
    many = int((counts > 0).sum())
    if many < math.ceil(level / (1 - level) - 1e-9):
        return None
    order = np.argsort(-right, kind="stable")
    mass = np.cumsum(1 / (counts[group[order]] * (many + 1)))
    place = int(np.searchsorted(mass, level - 1e-9))
    return float(right[order[min(place, len(order) - 1)]])


def members(p: Array, bar: float, *, axis: int = 1) -> NDArray[np.bool_]:
    """Which classes are in the set, of the shape of p; the likeliest always is."""
    found: NDArray[np.bool_] = (p >= bar) | (p == p.max(axis=axis, keepdims=True))
    return found


def measures(found: Judged, learned: Calibration) -> dict[str, Any]:
    """How raw and calibrated answers do, each group told of by a calibration of the others.

    Args:
        found: the answers.
        learned: what `calibrate` gave for them.

    Returns:
        "groups"; "raw" and "calibrated" with "ece", "nll", "half" (share right of the surer half), "auroc" (of
        telling right from wrong by the confidence) and "bins" of reliability; "coverage", the share right of the
        surest 10, 20, ... 100 %; "sets", by level "coverage" (mean over groups), "worst" (of the worst tenth of
        groups), "pooled", "size" and "groups" (coverage of each).
    """
    if learned.temperature != 1:
        chosen = TEMPERATURES[_left_out(_losses(found))]
        p = found.p ** (1 / chosen[found.group][:, None].astype(np.float32))
        nested = Judged(p / p.sum(1, keepdims=True), found.truth, found.group)
    else:
        nested = found
    sure, right = nested.p.max(1), nested.p.argmax(1) == nested.truth
    order = np.argsort(-sure, kind="stable")
    ends = [round(len(order) * share / 10) for share in range(1, 11)]
    return {
        "groups": found.groups,
        "raw": _reliability(found),
        "calibrated": _reliability(nested),
        "coverage": [float(right[order[: max(end, 1)]].mean()) for end in ends],
        "sets": {str(level): told for level in LEVELS if (told := _set_measures(nested, level)) is not None},
    }


def _reliability(found: Judged) -> dict[str, Any]:
    """Figures of one way to say how sure the answers are."""
    sure, right = found.p.max(1), found.p.argmax(1) == found.truth
    place = np.clip((sure * BINS).astype(int), 0, BINS - 1)
    count, hits = np.bincount(place, minlength=BINS), np.bincount(place, right, BINS)
    said = np.bincount(place, sure, BINS)
    surer = sure >= np.median(sure)
    return {
        "ece": float(np.abs(hits - said).sum() / len(sure)),
        "nll": float(found.weight @ -np.log(found.right.clip(_LEAST))),
        "half": float(right[surer].mean()),
        "auroc": auroc(sure, right),
        "bins": [[float(s / n), float(h / n), int(n)] for s, h, n in zip(said, hits, count, strict=True) if n],
    }


def auroc(score: Array, positive: NDArray[np.bool_]) -> float:
    """Area under the receiver operating characteristic of scores (N,) that are to be higher where `positive` (N,)."""
    from scipy.stats import rankdata

    high = int(positive.sum())
    low = len(positive) - high
    if not high or not low:
        return math.nan
    return float((rankdata(score)[positive].sum() - high * (high + 1) / 2) / (high * low))


def _set_measures(found: Judged, level: float) -> dict[str, Any] | None:
    """Coverage and size of sets, the threshold of each group learned from the others; None where these are too few."""
    held, size, parts = np.zeros(len(found.p), bool), np.empty(len(found.p)), found.group % PARTS
    for part in np.unique(parts):
        own = parts == part
        bar = threshold(found.right[~own], found.group[~own], level)
        if bar is None:
            return None
        inside = members(found.p[own], bar)
        held[own], size[own] = inside[np.arange(own.sum()), found.truth[own]], inside.sum(1)
    return coverage(held, found.group) | {"size": float(found.weight @ size)}


def coverage(held: NDArray[np.bool_], group: NDArray[np.intp]) -> dict[str, Any]:
    """How often something holds (N,), by groups (N,): their mean, that of the worst tenth, of all as one, of each."""
    each = np.bincount(group, held) / np.bincount(group)
    return {
        "coverage": float(each.mean()),
        "worst": float(np.sort(each)[: max(len(each) // 10, 1)].mean()),
        "pooled": float(held.mean()),
        "groups": [round(float(share), 4) for share in each],
    }


def words(told: Mapping[str, Any], classes: int) -> Sequence[str]:
    """The sentences of a report."""
    lines = []
    for level, found in told["sets"].items():
        share = round(100 * float(level))
        lines.append(
            f"For a random pixel of a new place like the {told['groups']} that were left out, the {share} % set holds "
            f"the reference class with a probability of at least {share} %, averaged over places: "
            f"{found['coverage']:.2f} where each place was left out in turn, {found['worst']:.2f} in the worst "
            f"tenth of them; it has {found['size']:.1f} of {classes} classes in the mean."
        )
    if not told["sets"]:
        lines.append(f"No sets: {told['groups']} groups were left out, and a set of 80 % wants 5, one of 90 % 10.")
    return lines
