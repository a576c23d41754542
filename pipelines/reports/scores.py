"""The scores of the report, each with its formula, its rule for missing values and its source.

Counts and sums are streamed: take them batch by batch, add them up, and score the total once. No scene is ever whole
in memory, and the batches' size does not change a score. A score that is not defined (a class which never occurs, a
truth without variance) is None, which JSON can hold and NaN is not.

Sources: Congalton, R. G. (1991), A review of assessing the accuracy of classifications of remotely sensed data,
Remote Sensing of Environment 37, 35-46 (accuracy; user's and producer's accuracy; kappa). Everingham, M. et al. (2010),
The Pascal Visual Object Classes challenge, IJCV 88, 303-338 (intersection over union). Chan, T. F., Golub, G. H.,
LeVeque, R. J. (1983), Algorithms for computing the sample variance, The American Statistician 37, 242-247 (merging).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError, RunError
from models.spec import ClassDef

IGNORED = -1  # class index of a pixel without truth

Confusion = NDArray[np.int64]
Scores = dict[str, Any]


def confusion_matrix(truth: NDArray[Any], predicted: NDArray[Any], *, classes: int) -> Confusion:
    """Count the pairs of true and predicted class; the matrices of batches add up to the matrix of the whole.

    Args:
        truth: class index of each sample, (N,) integer or any one shape; -1 (no truth) is left out.
        predicted: class index of each sample, same shape; its value does not matter where truth is -1.
        classes: number of classes K.

    Returns:
        (K, K) int64: rows are truth, columns predicted.

    Raises:
        InputError: the shapes differ, or an index is outside 0..K-1 where it counts.
    """
    if truth.shape != predicted.shape:
        raise InputError(
            f"confusion matrix: truth {truth.shape} and predicted {predicted.shape} must be the same shape"
        )
    counted = truth != IGNORED
    rows, columns = truth[counted].astype(np.int64), predicted[counted].astype(np.int64)  # (M,), (M,)
    for name, indices in (("truth", rows), ("predicted", columns)):
        if indices.size and not 0 <= indices.min() <= indices.max() < classes:
            raise InputError(
                f"confusion matrix: {name} holds class indices {indices.min()}..{indices.max()}, "
                f"wanted 0..{classes - 1}; map label codes to indices first"
            )
    return np.bincount(rows * classes + columns, minlength=classes**2).reshape(classes, classes).astype(np.int64)


def _share(part: float, whole: float) -> float | None:
    """Part of a whole, or None where there is no whole."""
    return float(part) / float(whole) if whole else None


def _mean(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are defined, or None where none is."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _class_score(confusion: Confusion, index: int, definition: ClassDef) -> Scores:
    """Scores of one class; see `class_scores`."""
    hit = int(confusion[index, index])
    support, predicted = int(confusion[index].sum()), int(confusion[:, index].sum())
    return {
        "code": definition.code,
        "name": definition.name,
        "iou": _share(hit, support + predicted - hit),
        "f1": _share(2 * hit, support + predicted),
        "precision": _share(hit, predicted),
        "recall": _share(hit, support),
        "support": support,
    }


def class_scores(confusion: Confusion, classes: Sequence[ClassDef]) -> Scores:
    """Score a map of classes, overall and class by class.

    With n_ij samples of true class i predicted as j, row sums n_i., column sums n_.j and N samples in all:

    - accuracy = sum_i n_ii / N (overall accuracy; Congalton 1991).
    - iou_i = n_ii / (n_i. + n_.i - n_ii) (Everingham et al. 2010); f1_i = 2 n_ii / (n_i. + n_.i).
    - precision_i = n_ii / n_.i (user's accuracy); recall_i = n_ii / n_i. (producer's accuracy); support_i = n_i.
    - mean_iou, macro_f1 and balanced_accuracy are plain means of iou_i, f1_i and recall_i over the classes that occur
      in the truth. A class only ever predicted is not in the mean, but its false alarms lower the IoU of the classes
      they hide, and its own row reads 0.
    - kappa = (accuracy - e) / (1 - e) with e = sum_i n_i. n_.i / N^2 (Cohen 1960, in Congalton 1991).

    Missing values: samples without truth are not in the confusion matrix; a score whose denominator is 0 is None.

    Args:
        confusion: (K, K) counts, rows truth and columns predicted.
        classes: the K classes in the order of the rows.

    Returns:
        JSON types only: n, accuracy, mean_iou, balanced_accuracy, macro_f1, kappa, and per_class, a list of
        {code, name, iou, f1, precision, recall, support} in the order of `classes`.

    Raises:
        InputError: the matrix is not (K, K).
    """
    wanted = (len(classes), len(classes))
    if confusion.shape != wanted:
        raise InputError(f"confusion matrix: {confusion.shape} came, {wanted} is wanted for {len(classes)} classes")
    per_class = [_class_score(confusion, index, definition) for index, definition in enumerate(classes)]
    seen = [row for row in per_class if row["support"]]
    total = int(confusion.sum())
    return {
        "n": total,
        "accuracy": _share(int(np.trace(confusion)), total),
        "mean_iou": _mean([row["iou"] for row in seen]),
        "balanced_accuracy": _mean([row["recall"] for row in seen]),
        "macro_f1": _mean([row["f1"] for row in seen]),
        "kappa": _kappa(confusion),
        "per_class": per_class,
    }


def _kappa(confusion: Confusion) -> float | None:
    """Cohen's kappa, (accuracy - e) / (1 - e), in whole numbers as far as they go; None where e is 1 or N is 0."""
    total = int(confusion.sum())
    pairs = zip(confusion.sum(axis=1).tolist(), confusion.sum(axis=0).tolist(), strict=True)
    chance = sum(row * column for row, column in pairs)  # N^2 e; Python integers, for N^2 can pass int64
    return _share(total * int(np.trace(confusion)) - chance, total**2 - chance)


def mean_iou_of(confusion: Confusion, classes: Sequence[ClassDef], codes: Sequence[int]) -> float | None:
    """Mean IoU over the given class codes only; every class still counts as a false alarm or a miss.

    Formula: the mean of iou_i of `class_scores` over the classes in `codes` that occur in the truth; None where none
    of them does. This is how a crop map is scored with its "other" class left out of the mean.

    Args:
        confusion: (K, K) counts, rows truth and columns predicted.
        classes: the K classes in the order of the rows.
        codes: the class codes to average over.

    Raises:
        InputError: a code belongs to no class, or the matrix is not (K, K).
    """
    known = [definition.code for definition in classes]
    if unknown := sorted(set(codes) - set(known)):
        raise InputError(f"mean IoU of class codes {unknown}: the model knows {known}")
    rows = class_scores(confusion, classes)["per_class"]
    return _mean([row["iou"] for row in rows if row["code"] in codes and row["support"]])


@dataclass(frozen=True)
class ValueSums:
    """Running sums of true values t, predicted values p and errors e = p - t; add two with `+`.

    Moments are kept about the mean and merged after Chan, Golub and LeVeque (1983), so that a large offset (kelvin,
    dates) does not eat the digits of the variance.

    Attributes:
        n: pairs counted.
        truth_mean: mean of t.
        predicted_mean: mean of p.
        truth_moment: sum of (t - mean t)^2.
        predicted_moment: sum of (p - mean p)^2.
        joint_moment: sum of (t - mean t)(p - mean p).
        error_sum: sum of e.
        absolute_sum: sum of |e|.
        square_sum: sum of e^2.
    """

    n: int = 0
    truth_mean: float = 0.0
    predicted_mean: float = 0.0
    truth_moment: float = 0.0
    predicted_moment: float = 0.0
    joint_moment: float = 0.0
    error_sum: float = 0.0
    absolute_sum: float = 0.0
    square_sum: float = 0.0

    def __add__(self, other: ValueSums) -> ValueSums:
        """Sums over the pairs of both."""
        n = self.n + other.n
        if not self.n or not other.n:
            return self if self.n else other
        truth, predicted = other.truth_mean - self.truth_mean, other.predicted_mean - self.predicted_mean
        weight = self.n * other.n / n
        return ValueSums(
            n=n,
            truth_mean=self.truth_mean + truth * other.n / n,
            predicted_mean=self.predicted_mean + predicted * other.n / n,
            truth_moment=self.truth_moment + other.truth_moment + truth * truth * weight,
            predicted_moment=self.predicted_moment + other.predicted_moment + predicted * predicted * weight,
            joint_moment=self.joint_moment + other.joint_moment + truth * predicted * weight,
            error_sum=self.error_sum + other.error_sum,
            absolute_sum=self.absolute_sum + other.absolute_sum,
            square_sum=self.square_sum + other.square_sum,
        )


def value_sums(truth: NDArray[Any], predicted: NDArray[Any]) -> ValueSums:
    """Sum up one batch of values; the sums of batches add up (`+`) to the sums of the whole.

    Args:
        truth: true values, (N,) or any one shape; NaN (no truth) is left out.
        predicted: predicted values, same shape and unit; its value does not matter where truth is NaN.

    Raises:
        InputError: the shapes differ, or a true value is infinite.
        RunError: a predicted value is not finite where there is truth: a hole in the map would flatter the scores.
    """
    if truth.shape != predicted.shape:
        raise InputError(f"value scores: truth {truth.shape} and predicted {predicted.shape} must be the same shape")
    known = ~np.isnan(truth)
    t, p = truth[known].astype(np.float64), predicted[known].astype(np.float64)  # (M,), (M,)
    if infinite := int(np.isinf(t).sum()):
        raise InputError(f"value scores: {infinite} true values are infinite; write missing truth as NaN or nodata")
    if holes := int((~np.isfinite(p)).sum()):
        raise RunError(f"value scores: {holes} of {p.size} predicted values are not finite where there is truth")
    if not t.size:
        return ValueSums()
    truth_off, predicted_off, error = t - t.mean(), p - p.mean(), p - t
    return ValueSums(
        n=t.size,
        truth_mean=float(t.mean()),
        predicted_mean=float(p.mean()),
        truth_moment=float(truth_off @ truth_off),
        predicted_moment=float(predicted_off @ predicted_off),
        joint_moment=float(truth_off @ predicted_off),
        error_sum=float(error.sum()),
        absolute_sum=float(np.abs(error).sum()),
        square_sum=float(error @ error),
    )


def value_scores(sums: ValueSums) -> Scores:
    """Score a map of values.

    With truth t, prediction p and error e = p - t over n pairs (Wilks 2019, Statistical Methods in the Atmospheric
    Sciences, 4th ed., sections 3.5 and 9.3):

    - rmse = sqrt(mean e^2), mae = mean |e|, bias = mean e (positive: predicted too high), all in the unit of t.
    - r2 = 1 - sum e^2 / sum (t - mean t)^2, the skill over predicting the mean of these very samples; can be negative.
    - pearson_r = cov(t, p) / (std t std p).

    Missing values: pairs with NaN truth are not in the sums; a score that has no pairs, or no variance to divide by,
    is None.

    Returns:
        JSON types only: n, rmse, mae, bias, r2, pearson_r.
    """
    truth_root = _moment_root(sums.truth_moment, sums.truth_mean, sums.n)
    predicted_root = _moment_root(sums.predicted_moment, sums.predicted_mean, sums.n)
    mean_square, unexplained = _share(sums.square_sum, sums.n), _share(sums.square_sum, truth_root**2)
    correlation = _share(sums.joint_moment, truth_root * predicted_root)
    return {
        "n": sums.n,
        "rmse": None if mean_square is None else float(np.sqrt(mean_square)),
        "mae": _share(sums.absolute_sum, sums.n),
        "bias": _share(sums.error_sum, sums.n),
        "r2": None if unexplained is None else 1.0 - unexplained,
        "pearson_r": None if correlation is None else float(np.clip(correlation, -1.0, 1.0)),
    }


def _moment_root(moment: float, mean: float, n: int) -> float:
    """Root of a moment about the mean; 0 where it is no more than the rounding of equal values."""
    rounding = 4 * float(np.finfo(np.float64).eps) * abs(mean) * n**0.5
    root = float(np.sqrt(moment))
    return root if root > rounding else 0.0


def area_rmse(predicted: NDArray[Any], truth: NDArray[Any], areas: NDArray[Any]) -> float:
    """Root mean square error over a grid of latitudes and longitudes, cells weighted by their area.

    rmse = sqrt(sum a e^2 / sum a) with e = predicted - truth and the area a of each cell (Rasp, S. et al. (2024),
    WeatherBench 2, JAMES 16, equation 1). Missing values: cells with NaN are left out; NaN where none is left.

    Args:
        predicted: (H, W).
        truth: (H, W).
        areas: (H,) relative areas of the cells of each row.
    """
    error = predicted.astype(np.float64) - truth
    known = np.isfinite(error)
    weights = np.where(known, np.asarray(areas)[:, None], 0.0)  # (H, W)
    square = float((weights * np.where(known, error, 0.0) ** 2).sum())
    return float(np.sqrt(square / weights.sum())) if known.any() else float("nan")
