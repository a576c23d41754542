"""Estimates from stratified samples of pixels: totals, ratios, and their variances. Nothing but arrays.

Pixels are drawn with equal probability within a stratum, but a grid in degrees has pixels of unequal area. So the mean
of a stratum is weighted by area, and its total is the stratum's known area times that mean (the separate ratio
estimator, Cochran 1977, 6.10). Where pixels are of one size this is the estimator of Olofsson et al. (2014).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Z = 1.959963984540054  # of 95 %
_ROUNDING = 1e-20  # of the square of the whole area; a variance below is none
FEW = 2  # points; with fewer a stratum has no variance of its own


@dataclass(frozen=True)
class Sample:
    """Pixels that were drawn from strata.

    Attributes:
        stratum: the stratum of each pixel (n,), 0..H-1.
        weight: its area (n,), in any unit.
        pixels: number of pixels of each stratum (H,).
        area: area of each stratum (H,), in that unit.
    """

    stratum: Ints
    weight: Floats
    pixels: Ints
    area: Floats

    @property
    def points(self) -> Ints:
        """Points of each stratum (H,)."""
        return np.bincount(self.stratum, minlength=len(self.area))

    def total(self, values: Floats) -> Floats:
        """Totals of values per unit of area (n, k) over all strata (k,); each stratum has a point."""
        return np.asarray(self.area @ self._means(values))

    def variance(self, values: Floats) -> Floats:
        """Variances (k,) of `total` of values (n, k)."""
        return self.covariance(values, values)

    def covariance(self, one: Floats, two: Floats) -> Floats:
        """Covariances (k,) of the totals of two sets of values, each (n, k), column by column.

        Linearised, with the correction for finite strata. A stratum of a single point takes the covariance of the
        whole sample, which is the larger one as a rule.
        """
        products = self._deviations(one) * self._deviations(two)
        n = self.points
        within = self._sums(products) / np.maximum(n - 1, 1)[:, None]  # (H, k)
        lonely = n < FEW
        if lonely.any() and len(self.stratum) > 1:
            merged = replace(self, stratum=self.stratum * 0, pixels=self.pixels[:1], area=self.area[:1])
            both = merged._deviations(one) * merged._deviations(two)
            within[lonely] = both.sum(axis=0) / (len(self.stratum) - 1)
        factor = self.area**2 * (1 - n / self.pixels) / n
        return np.asarray(factor @ within)

    def _sums(self, values: Floats) -> Floats:
        """Sums of values (n, k) by stratum (H, k)."""
        sums = np.zeros((len(self.area), values.shape[1]))
        np.add.at(sums, self.stratum, values)
        return sums

    def _means(self, values: Floats) -> Floats:
        """Means of values (n, k) by stratum (H, k), weighted by area."""
        weight = self.weight[:, None]
        return self._sums(weight * values) / self._sums(weight)

    def _deviations(self, values: Floats) -> Floats:
        """Deviations of values (n, k) from their stratum's mean, scaled by area beside the stratum's mean area."""
        typical = self._sums(self.weight[:, None])[:, 0] / np.maximum(self.points, 1)
        return np.asarray((self.weight / typical[self.stratum])[:, None] * (values - self._means(values)[self.stratum]))


@dataclass(frozen=True)
class Estimate:
    """Values, with standard errors; NaN where there is none."""

    value: Floats
    se: Floats

    def interval(self, most: float) -> tuple[Floats, Floats]:
        """Normal 95 % intervals, cut off at 0 and `most`; NaN where the sample shows no variance.

        An interval without width would be certain of what few points agree on.
        """
        half = Z * np.where(self.se > 0, self.se, np.nan)
        return np.clip(self.value - half, 0, most), np.clip(self.value + half, 0, most)


@dataclass(frozen=True)
class Accuracy:
    """Overall accuracy (1,), user's and producer's (C,): 1 less the errors of commission and of omission."""

    overall: Estimate
    users: Estimate
    producers: Estimate


def class_areas(sample: Sample, truth: Ints, classes: int) -> Estimate:
    """Area of each class (C,) by what the points are labelled as.

    With map classes as strata: Olofsson et al. (2014), doi:10.1016/j.rse.2014.02.015, eqs. 9 to 11. With other strata:
    Stehman (2014), doi:10.1080/01431161.2014.930207, eqs. 3, 14, 25.

    Args:
        sample: the points.
        truth: index of the class that each is labelled as (n,).
        classes: how many there are, C.
    """
    member = one_hot(truth, classes)
    return Estimate(sample.total(member), np.sqrt(sample.variance(member)))


def accuracy(sample: Sample, truth: Ints, mapped: Ints, classes: int) -> Accuracy:
    """Accuracies of a map, shares of area.

    Ratios of two totals y / x; the variance is that of the total of y - R x, by the square of x: Stehman (2014), eqs.
    27 and 28. Where strata are map classes, it is that of Olofsson et al. (2014), eqs. 5 to 7.

    Args:
        sample: the points.
        truth: index of the class that each is labelled as (n,).
        mapped: index of the class that the map gives it (n,).
        classes: how many there are, C.
    """
    shown, true = one_hot(mapped, classes), one_hot(truth, classes)
    right = shown * true
    everything = np.ones((len(truth), 1))
    overall = _ratio(sample, right.sum(axis=1, keepdims=True), everything)
    return Accuracy(overall, _ratio(sample, right, shown), _ratio(sample, right, true))


def powered_areas(sample: Sample, truth: Ints, chances: Floats, sums: Floats) -> tuple[Estimate, Floats]:
    """Area of each class (C,) by labels and by the map's probabilities: prediction-powered, with power tuning.

    Angelopoulos, Duchi, Zrnic (2023), PPI++, arXiv:2311.01453, for a mean; by strata as Fisch et al. (2024),
    arXiv:2406.04291, with one weight for all of them. The probabilities of all pixels of the maps are known, so that
    their mean has no error; with as many unlabelled pixels as a map has the published formula says the same. The
    weight is tuned for each class alone: areas need not add up to that of the map.

    Args:
        sample: the points.
        truth: index of the class that each is labelled as (n,).
        chances: probability of each class at each point (n, C).
        sums: probability times area, summed over all pixels of a stratum (H, C).

    Returns:
        The estimate, and the weight of the probabilities for each class (C,), 0..1.
    """
    member = one_hot(truth, chances.shape[1])
    spread = sample.variance(chances)
    together = sample.covariance(member, chances)
    told = spread > _ROUNDING * sample.area.sum() ** 2
    weight = np.clip(np.divide(together, spread, out=np.zeros_like(spread), where=told), 0, 1)
    residual = member - weight * chances
    value = sample.total(residual) + weight * sums.sum(axis=0)
    return Estimate(value, np.sqrt(sample.variance(residual))), weight


def post_strata(cell: Ints, pixels: Ints, area: Floats, weight: Floats, *, least: int = FEW) -> Sample:
    """A simple random sample as one of strata that are known only afterwards; those of few points become one.

    Which are joined depends on how many points there are, never on their labels. Olofsson et al. (2014), 5.1: given
    the numbers of points, estimates and variances are those of a stratified sample.

    Args:
        cell: the post-stratum of each point (n,).
        pixels: number of pixels of each (H,).
        area: area of each (H,).
        weight: area of each point (n,).
        least: points that a post-stratum needs to stand alone.
    """
    counts = np.bincount(cell, minlength=len(area))
    few = (counts < least) & (pixels > 0)
    if few.any() and counts[few].sum() < least and not few.all():
        few[np.argmax(np.where(few, -1, counts))] = True
    # Joined ones are number 0, the others follow.
    number = np.where(few, 0, np.cumsum(~few & (pixels > 0)) - (0 if few.any() else 1))
    there = pixels > 0
    size = int(number[there].max()) + 1
    many = np.bincount(number[there], pixels[there], size).astype(np.int64)
    return Sample(number[cell], weight, many, np.asarray(np.bincount(number[there], area[there], size), np.float64))


def one_hot(index: Ints, classes: int) -> Floats:
    """Membership (n, C) of indices (n,)."""
    return np.asarray(index[:, None] == np.arange(classes), np.float64)


def _ratio(sample: Sample, part: Floats, whole: Floats) -> Estimate:
    """The ratio of two totals, of values (n, k) each; NaN where the whole is nothing."""
    above, below = sample.total(part), sample.total(whole)
    nothing = np.full_like(below, np.nan)
    value = np.divide(above, below, out=nothing.copy(), where=below > 0)
    variance = sample.variance(part - np.nan_to_num(value) * whole)
    return Estimate(value, np.divide(np.sqrt(variance), below, out=nothing.copy(), where=below > 0))
