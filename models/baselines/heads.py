"""A head on a few labelled places: logistic regression and trees, told of groups that were left out.

Few labels bear no training of a network. The answer is the mean of two that err in other ways: a multinomial logistic
regression, whose penalty groups that are left out choose, and extremely randomised trees (Geurts et al. 2006,
doi:10.1007/s10994-006-6226-1). Every class weighs the same, however many labels it has.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.types import Array

FOLDS = 5  # of groups
STRENGTHS = (0.01, 0.1, 1.0)  # inverse penalties of the logistic regression
TREES = 60
FAR = 3.0  # standard deviations; no feature counts as farther, or one cloud would bend the regression
_LEAST = 1e-3  # probability: an answer that is sure and wrong costs no more
Told = Callable[[Array], Array]  # rows (N, F) to probabilities (N, K)


@dataclass(frozen=True)
class Labelled:
    """Labelled places.

    Attributes:
        features: of each (N, F).
        target: index of its class (N,).
        weight: how much it counts (N,).
        group: number of its group (N,): what lies near each other, or was said to belong together.
        classes: K.
    """

    features: Array
    target: NDArray[np.intp]
    weight: NDArray[np.float64]
    group: NDArray[np.intp]
    classes: int

    def some(self, chosen: NDArray[np.bool_]) -> Labelled:
        """Those that are chosen."""
        names = ("features", "target", "weight", "group")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})

    def of(self, columns: slice | Sequence[int]) -> Labelled:
        """The same with some of the features."""
        return replace(self, features=self.features[:, columns])

    @property
    def balanced(self) -> NDArray[np.float64]:
        """Weights by which all classes that are there count the same, 1 in the mean (N,)."""
        share = np.bincount(self.target, self.weight, self.classes)
        each = self.weight / share[self.target]
        return np.asarray(each / each.mean())


@dataclass(frozen=True)
class LeftOut:
    """What heads say of places whose groups they never saw.

    Attributes:
        p: probabilities (N, K), each by a head that learned, and whose penalty was chosen, without its group's fold.
        strength: what all folds together choose, for a head that learns from all.
    """

    p: Array
    strength: float


def fit(labelled: Labelled, strength: float, *, seed: int = 0) -> Told:
    """A head that learned from all labelled places."""
    return _fit(labelled, (strength,), seed)[0]


def left_out(labelled: Labelled, *, seed: int = 0) -> LeftOut | None:
    """Ask heads about the groups that they never saw; None where there is but one group.

    Of each fold of groups the penalty is chosen by the other folds alone: by heads that saw neither it nor them.
    """
    fold = folds(labelled.group, labelled.weight)
    count = int(fold.max()) + 1
    if count < 2:
        return None
    alone = [_asked(labelled, fold, (i,), seed) for i in range(count)]  # (S, N, K) each, 0 where not asked
    both = {pair: _asked(labelled, fold, pair, seed) for pair in itertools.combinations(range(count), 2) if count > 2}
    p = np.zeros((len(fold), labelled.classes), np.float32)
    for i in range(count):
        loss = np.zeros(len(STRENGTHS))
        for pair, answers in both.items():
            if i in pair:
                loss += _losses(labelled, answers, fold == sum(pair) - i)
        p[fold == i] = alone[i][_best(loss), fold == i]
    whole = sum(_losses(labelled, answers, fold == i) for i, answers in enumerate(alone))
    return LeftOut(p, STRENGTHS[_best(np.asarray(whole))])


def folds(group: NDArray[np.intp], weight: NDArray[np.float64]) -> NDArray[np.intp]:
    """The fold of each place (N,), at most `FOLDS`: groups go whole, the heaviest first, to the lightest fold."""
    heavy = np.bincount(group, weight)
    load, of_group = np.zeros(min(FOLDS, len(np.unique(group)))), np.zeros(len(heavy), np.intp)
    for one in np.argsort(-heavy, kind="stable"):
        if heavy[one] > 0:
            of_group[one] = load.argmin()
            load[of_group[one]] += heavy[one]
    return of_group[group]


def _best(loss: NDArray[np.float64]) -> int:
    """The strongest penalty among those that lose least; the middle one where nothing is known."""
    return int(np.argmin(loss)) if loss.any() else len(STRENGTHS) // 2


def _losses(labelled: Labelled, answers: Array, asked: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Log loss at each strength of those that were asked, classes weighing the same among them (S,)."""
    right = answers[:, asked, labelled.target[asked]]
    loss: NDArray[np.float64] = (-np.log(right.clip(_LEAST)) * labelled.some(asked).balanced).sum(axis=1)
    return loss


def _asked(labelled: Labelled, fold: NDArray[np.intp], without: Sequence[int], seed: int) -> Array:
    """What heads without some folds say of these at each strength: (S, N, K), 0 elsewhere."""
    hidden = np.isin(fold, without)
    out = np.zeros((len(STRENGTHS), len(fold), labelled.classes), np.float32)
    if not hidden.all():
        for answers, head in zip(out, _fit(labelled.some(~hidden), STRENGTHS, seed), strict=True):
            answers[hidden] = head(labelled.features[hidden])
    return out


def _fit(labelled: Labelled, strengths: Sequence[float], seed: int) -> list[Told]:
    """Heads at several strengths, which share their trees."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.linear_model import LogisticRegression

    mean, spread = labelled.features.mean(0), labelled.features.std(0) + 1e-6

    def scaled(rows: Array) -> Array:
        near: Array = ((rows - mean) / spread).clip(-FAR, FAR)
        return near

    rows, target, weight = scaled(labelled.features), labelled.target, labelled.balanced
    leaf = 3 if len(rows) >= 100 * labelled.classes else 1
    # One thread: several would add up what trees say in any order, and maps would differ in their last bits.
    trees = ExtraTreesClassifier(TREES, min_samples_leaf=leaf, random_state=seed).fit(rows, target, weight)
    models = [[trees] for _ in strengths]
    if len(np.unique(target)) > 1:
        for pair, strength in zip(models, strengths, strict=True):
            pair.append(LogisticRegression(C=strength, max_iter=1000).fit(rows, target, weight))
    return [_mean(pair, scaled, labelled.classes) for pair in models]


def _mean(models: Sequence[Any], scaled: Told, classes: int) -> Told:
    """The mean of what models say; a class that none has seen stays at 0."""

    def told(rows: Array) -> Array:
        out, near = np.zeros((len(rows), classes), np.float32), scaled(rows)
        for model in models:
            out[:, model.classes_] += model.predict_proba(near) / len(models)
        return out

    return told
