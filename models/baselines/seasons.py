"""A season's terciles from years past: climatology, damped persistence, ridge on principal components; and the skill.

Whatever predicts a year - trend, terciles, components, penalty, residuals - is fitted by `predict`, which is never
given that year's target; cross-validation leaves one year out after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError

Array = NDArray[np.float64]

METHODS = ("climatology", "persistence", "ridge")
TERCILES = ("below normal", "near normal", "above normal")
ENOUGH = 20  # years under which skill is not told: its interval would say more of luck than of the method
LEAST = 9  # years under which there are no terciles to speak of, three years each
PENALTIES = 10.0 ** np.arange(-2, 4.5, 0.5)  # times the mean variance of the components


@dataclass(frozen=True)
class Years:
    """What is known of n years.

    Attributes:
        years: (n,) the years, rising.
        target: (n, P) the season's mean in each of P cells, finite.
        persisted: (n, P) the target's variable in the month that is known.
        predictors: (n, F) fields in that month, finite.
        areas: (P,) weights of the cells.
        weights: (F,) weights of the predictors.
    """

    years: NDArray[np.int64]
    target: Array
    persisted: Array
    predictors: Array
    areas: Array
    weights: Array

    def only(self, keep: NDArray[np.bool_]) -> Years:
        """Some of the years."""
        rows = (self.years[keep], self.target[keep], self.persisted[keep], self.predictors[keep])
        return Years(*rows, self.areas, self.weights)


@dataclass(frozen=True)
class Outlook:
    """What is expected of a season, as ensembles of anomalies from the trend.

    Attributes:
        trend: (P,) the trend's value for the year.
        terciles: (2, P) boundaries of the terciles, anomalies from the trend.
        members: by method, (m, P) anomalies that the season may have.
    """

    trend: Array
    terciles: Array
    members: dict[str, Array]

    def chances(self, method: str) -> Array:
        """Chances of the three terciles, (3, P); a third each for climatology, by definition.

        Of m members k in a tercile make (k + 1/3) / (m + 1), so that no chance is 0.
        """
        members = self.members[method]
        if method == "climatology":
            return np.full((3, members.shape[1]), 1 / 3)
        upto = [(members <= bound).sum(axis=0) for bound in self.terciles]
        counts = np.stack([upto[0], upto[1] - upto[0], len(members) - upto[1]])  # (3, P)
        return np.asarray((counts + 1 / 3) / (len(members) + 1))


def predict(known: Years, year: int, persisted: Array, predictors: Array) -> Outlook:
    """The outlook for a year from others.

    Members are the method's expectation plus the errors that it makes in each known year when it does without that
    year (the residual over one minus its leverage); for climatology the expectation is the trend.

    Args:
        known: the years to fit to; the year itself is not to be among them.
        year: the year to predict.
        persisted: (P,) the target's variable in the month that is known of it.
        predictors: (F,) the predictors of it.

    Raises:
        InputError: fewer than nine years, or the year is among them.
    """
    if len(known.years) < LEAST:
        raise InputError(f"outlook: {len(known.years)} years are known, {LEAST} or more are wanted; add years")
    if year in known.years:
        raise InputError(f"outlook: {year} is to be predicted and is among the years to learn from; leave it out")
    target, trend, leverage = _detrended(known.target, known.years, year)
    before, expected, _ = _detrended(known.persisted, known.years, year)
    fields, usual, _ = _detrended(known.predictors, known.years, year)
    spread = fields.std(axis=0)
    scale = np.where(spread > 1e-12 * (np.abs(usual) + spread), known.weights / np.where(spread > 0, spread, 1.0), 0.0)
    past = target / (1 - leverage)[:, None]
    terciles = np.quantile(past, [1 / 3, 2 / 3], axis=0)
    errors = _persistence(target, before, persisted - expected, leverage)
    ridge = _ridge(target, fields * scale, (predictors - usual) * scale, leverage, known.areas)
    return Outlook(trend, terciles, {"climatology": past, "persistence": errors, "ridge": ridge})


def _detrended(values: Array, years: NDArray[np.int64], year: int) -> tuple[Array, Array, Array]:
    """Departures from a straight line through the years (n, P), its value for another year (P,), leverages (n,)."""
    middle = years.mean()
    time = years - middle
    square = float((time**2).sum())
    mean, slope = values.mean(axis=0), time @ values / square  # (P,), (P,)
    leverage = 1 / len(years) + time**2 / square
    return values - mean - time[:, None] * slope, mean + (year - middle) * slope, leverage


def _persistence(target: Array, before: Array, now: Array, leverage: Array) -> Array:
    """Members by the anomaly that is there already, damped by the regression on it in each cell; never reversed."""
    square = (before**2).sum(axis=0)  # (P,)
    safe = np.where(square > 0, square, 1.0)
    slope = np.clip((before * target).sum(axis=0) / safe, 0, None)
    # Without a slope nothing is fitted, and nothing adds to the leverage.
    own = np.where(slope > 0, before**2 / safe, 0.0)  # (n, P)
    errors = (target - slope * before) / np.clip(1 - leverage[:, None] - own, 0.1, None)
    return np.asarray(slope * now + errors)


def _ridge(target: Array, fields: Array, now: Array, leverage: Array, areas: Array, components: int = 5) -> Array:
    """Members by ridge regression on the leading principal components of the fields.

    The penalty, one for all cells, is that of the least errors of the known years when each is left out.
    """
    scores, sizes, patterns = np.linalg.svd(fields, full_matrices=False)  # (n, k), (k,), (k, F)
    count = min(components, int((sizes > 1e-9 * max(sizes[0], 1e-300)).sum()))
    scores, sizes, patterns = scores[:, :count], sizes[:count], patterns[:count]
    variance = np.maximum(target.var(axis=0), 1e-300)
    loads, best, least = scores.T @ target, None, np.inf  # (k, P)
    for penalty in PENALTIES * (sizes**2).mean() if count else [0.0]:
        shrink = sizes**2 / (sizes**2 + penalty)
        own = leverage + (scores**2 * shrink).sum(axis=1)
        errors = (target - (scores * shrink) @ loads) / np.clip(1 - own, 0.1, None)[:, None]
        loss = float(((errors**2).sum(axis=0) / variance * areas).sum())
        if loss < least:
            best, least = (shrink, errors), loss
    assert best is not None
    shrink, errors = best
    place = now @ patterns.T / np.where(sizes > 0, sizes, 1.0)  # (k,) the year's scores, as those of the known years
    return np.asarray((place * shrink) @ loads + errors)


@dataclass(frozen=True)
class Hindcasts:
    """Scores of years that were each predicted from the others, summed in two ways.

    Attributes:
        years: (n,).
        rps: by method, (n,) ranked probability scores of the terciles, sums over the cells by area.
        crps: by method, (n,) continuous ranked probability scores, the same.
        cells: by method, (P,) ranked probability scores, sums over the years.
    """

    years: NDArray[np.int64]
    rps: dict[str, Array]
    crps: dict[str, Array]
    cells: dict[str, Array]

    def by_cell(self, method: str) -> Array:
        """RPSS against climatology in each cell, (P,)."""
        return np.asarray(1 - self.cells[method] / self.cells["climatology"])


def cross_validate(
    data: Years, *, shown: Callable[[Iterable[int], str], Iterable[int]] = lambda items, what: items
) -> Hindcasts:
    """Predict each year from all others, and score that.

    Args:
        data: ten years or more.
        shown: wraps the years to show progress.

    Raises:
        InputError: too few years.
    """
    count, size = data.target.shape
    rps, crps, cells = ({name: np.zeros(n) for name in METHODS} for n in (count, count, size))
    for i in shown(range(count), "years"):
        others = np.arange(count) != i
        outlook = predict(data.only(others), int(data.years[i]), data.persisted[i], data.predictors[i])
        anomaly = data.target[i] - outlook.trend
        for name in METHODS:
            ranked = ranked_probability(outlook.chances(name), anomaly, outlook.terciles)
            cells[name] += ranked
            rps[name][i] = ranked @ data.areas
            crps[name][i] = ensemble_crps(outlook.members[name], anomaly) @ data.areas
    return Hindcasts(data.years, rps, crps, cells)


def ranked_probability(chances: Array, observed: Array, terciles: Array) -> Array:
    """Ranked probability score of terciles (Epstein 1969, J. Appl. Meteor. 8, 985-987).

    rps = sum over the two boundaries of (chance to stay at or below it - 1 if it did, else 0)^2. Missing values are not
    allowed.

    Args:
        chances: (3, P).
        observed: (P,).
        terciles: (2, P) boundaries in the unit of the observed.

    Returns:
        (P,) from 0, which is best, to 2.
    """
    happened = observed <= terciles  # (2, P)
    return np.asarray(((np.cumsum(chances, axis=0)[:2] - happened) ** 2).sum(axis=0))


def ensemble_crps(members: Array, observed: Array) -> Array:
    """Continuous ranked probability score of an ensemble's step function (Hersbach 2000, Wea. Forecasting 15, 559-570).

    crps = mean |x - y| - mean |x - x'| / 2 over members x, x' and the observed y. Missing values are not allowed.

    Args:
        members: (m, P).
        observed: (P,).

    Returns:
        (P,) in the unit of the observed.
    """
    count = len(members)
    ranks = 2 * np.arange(1, count + 1) - count - 1
    pairs = ranks @ np.sort(members, axis=0) / count**2  # half the mean distance of two members
    return np.asarray(np.abs(members - observed).mean(axis=0) - pairs)


def skill(hindcasts: Hindcasts, method: str, *, draws: int = 2000, share: float = 0.9) -> dict[str, Any] | None:
    """RPSS and CRPSS of a method against climatology over all cells, each with an interval; None under twenty years.

    skill = 1 - sum score / sum score of climatology, sums over years and cells by area (Wilks 2019, section 9.7). The
    interval is that of a bootstrap over years, which takes them as independent.

    Args:
        hindcasts: what `cross_validate` returns.
        method: one of METHODS but climatology.
        draws: resamples of the years.
        share: how much of the resamples the interval holds.

    Returns:
        {"rpss": {"value", "low", "high"}, "crpss": the same}.
    """
    if len(hindcasts.years) < ENOUGH:
        return None
    from scipy.stats import bootstrap

    def ratio(ours: Array, theirs: Array, axis: int = -1) -> Array:
        return np.asarray(1 - ours.sum(axis=axis) / theirs.sum(axis=axis))

    told = {}
    for name, scores in (("rpss", hindcasts.rps), ("crpss", hindcasts.crps)):
        sums = (scores[method], scores["climatology"])  # (n,) each
        how = {"n_resamples": draws, "confidence_level": share, "method": "percentile", "rng": 0}
        found = bootstrap(sums, ratio, paired=True, **how).confidence_interval
        told[name] = {"value": float(ratio(*sums)), "low": float(found.low), "high": float(found.high)}
    return told
