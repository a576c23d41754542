"""A season's terciles from years past: climatology, damped persistence, ridge on principal components; and the skill.

Whatever predicts a year - trend, terciles, components, penalty, errors - is fitted without that year's target, in
cross-validation also without its neighbours'. The trend is as smooth as tells years best that are left out: a warming
that sets in is no skill, and a straight line would make it one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError

Array = NDArray[np.float64]

METHODS = ("climatology", "persistence", "ridge")
NEIGHBOURS = " from neighbours"  # after a method's name: told from what was known of the years beside
TERCILES = ("below normal", "near normal", "above normal")
ENOUGH = 20  # years under which skill is not told: its interval would say more of luck than of the method
LEAST = 9  # years under which there are no terciles to speak of, three years each
APART = 2  # years on either side that are left out with a year, for its neighbours tell a slow change
PERIODS = (10.0, 14.0, 20.0, 28.0, 40.0, 57.0, np.inf)  # years; a trend keeps half of a wave as long, inf is a line
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
    year: departures from a trend that is fitted without the year and its neighbours, and for regressions the residual
    over one minus its leverage. For climatology the expectation is the trend.

    Args:
        known: the years to fit to; the year itself is not to be among them.
        year: the year to predict.
        persisted: (P,) the target's variable in the month that is known of it.
        predictors: (F,) the predictors of it.

    Raises:
        InputError: fewer than nine years, or the year is among them.
    """
    return _outlooks(known, year, persisted[None], predictors[None])[0]


def _outlooks(known: Years, year: int, persisted: Array, predictors: Array) -> list[Outlook]:
    """The outlooks for a year from each of what may be known of it: persisted (k, P), predictors (k, F)."""
    if len(known.years) < LEAST:
        raise InputError(f"outlook: {len(known.years)} years are known, {LEAST} or more are wanted; add years")
    if year in known.years:
        raise InputError(f"outlook: {year} is to be predicted and is among the years to learn from; leave it out")
    trends = _trends(tuple(known.years.tolist()), year)
    target, trend = _detrended(known.target, trends, known.areas)
    before, expected = _detrended(known.persisted, trends, known.areas)
    fields, usual = _detrended(known.predictors, trends, known.weights**2)
    spread = fields.std(axis=0)
    scale = np.where(spread > 1e-12 * (np.abs(usual) + spread), known.weights / np.where(spread > 0, spread, 1.0), 0.0)
    terciles = np.quantile(target, [1 / 3, 2 / 3], axis=0)
    lasting = _persistence(target, before, persisted - expected)
    ridge = _ridge(target, fields * scale, (predictors - usual) * scale, known.areas)
    told = ({"climatology": target, "persistence": p, "ridge": r} for p, r in zip(lasting, ridge, strict=True))
    return [Outlook(trend, terciles, members) for members in told]


@lru_cache(maxsize=128)
def _trends(years: tuple[int, ...], year: int) -> tuple[Array, Array]:
    """Natural cubic smoothing splines through years, of each of PERIODS, as weights of the values of the years.

    The penalty on the squared second derivative is (period / 2 pi)^4, which halves a wave of that period (Green and
    Silverman 1994, Nonparametric Regression and Generalized Linear Models, chapter 2, for spline and matrices).

    Returns:
        (K, n, n), what makes departures of the values, each from the spline without the year and those around it (by
        the block of the smoother, as leaving one out does by the leverage); (K, n), what makes the year's value.
    """
    knots = np.array(sorted((*years, year)), np.float64)
    at, mine = np.searchsorted(knots, years), int(np.searchsorted(knots, year))
    gaps, inner = np.diff(knots), np.arange(len(knots) - 2)
    second = np.zeros((len(knots), len(inner)))  # second differences
    second[inner, inner], second[inner + 2, inner] = 1 / gaps[:-1], 1 / gaps[1:]
    second[inner + 1, inner] = -1 / gaps[:-1] - 1 / gaps[1:]
    inside = np.diag((gaps[:-1] + gaps[1:]) / 3) + np.diag(gaps[1:-1] / 6, 1) + np.diag(gaps[1:-1] / 6, -1)
    rough = second @ np.linalg.solve(inside, second.T)
    known = np.zeros(len(knots))
    known[at] = 1.0
    line = np.stack([np.ones(len(knots)), knots - knots.mean()], axis=1)
    near = np.abs(np.subtract.outer(years, years)) <= APART
    departures, values = [], []
    for period in PERIODS:
        if np.isinf(period):
            smooth = line @ np.linalg.pinv(line[at])
        else:
            smooth = np.linalg.inv(np.diag(known) + (period / (2 * np.pi)) ** 4 * rough)[:, at]
        left = np.eye(len(years)) - smooth[at]
        rows = []
        for own, block in enumerate(near):
            places = np.flatnonzero(block)
            rows.append(np.linalg.solve(left[np.ix_(places, places)], left[places])[places == own][0])
        departures.append(np.stack(rows))
        values.append(smooth[mine])
    return np.stack(departures), np.stack(values)


def _detrended(values: Array, trends: tuple[Array, Array], weights: Array) -> tuple[Array, Array]:
    """Departures of values (n, P) from the trend that tells years left out best, and its value for the year (P,)."""
    departures = trends[0] @ values  # (K, n, P)
    squares = (departures**2).sum(axis=1)  # (K, P)
    rounding = len(values) * (1e-12 * np.abs(values).max(axis=0)) ** 2  # fields that never change have no say
    loss = squares / np.where(squares[-1] > rounding, squares[-1], np.inf) @ weights
    best = int(np.argmin(loss))
    return departures[best], trends[1][best] @ values


def _persistence(target: Array, before: Array, now: Array) -> Array:
    """Members by the anomalies (k, P) that are there already, damped by the regression on them; never reversed."""
    square = (before**2).sum(axis=0)  # (P,)
    safe = np.where(square > 0, square, 1.0)
    slope = np.clip((before * target).sum(axis=0) / safe, 0, None)
    # Without a slope nothing is fitted, and nothing has a leverage.
    own = np.where(slope > 0, before**2 / safe, 0.0)  # (n, P)
    errors = (target - slope * before) / np.clip(1 - own, 0.1, None)
    return np.asarray((slope * now)[:, None] + errors)  # (k, n, P)


def _ridge(target: Array, fields: Array, now: Array, areas: Array, components: int = 5) -> Array:
    """Members by ridge regression of the target on the leading principal components of the fields, (k, n, P).

    The penalty, one for all cells, is that of the least errors of the known years when each is left out.
    """
    scores, sizes, patterns = np.linalg.svd(fields, full_matrices=False)  # (n, c), (c,), (c, F)
    count = min(components, int((sizes > 1e-9 * max(sizes[0], 1e-300)).sum()))
    scores, sizes, patterns = scores[:, :count], sizes[:count], patterns[:count]
    variance = np.maximum(target.var(axis=0), 1e-300)
    loads, best, least = scores.T @ target, None, np.inf  # (c, P)
    for penalty in PENALTIES * (sizes**2).mean() if count else [0.0]:
        shrink = sizes**2 / (sizes**2 + penalty)
        own = (scores**2 * shrink).sum(axis=1)
        errors = (target - (scores * shrink) @ loads) / np.clip(1 - own, 0.1, None)[:, None]
        loss = float(((errors**2).sum(axis=0) / variance * areas).sum())
        if loss < least:
            best, least = (shrink, errors), loss
    assert best is not None
    shrink, errors = best
    place = now @ patterns.T / np.where(sizes > 0, sizes, 1.0)  # as scores of the known years
    return np.asarray(((place * shrink) @ loads)[:, None] + errors)


@dataclass(frozen=True)
class Hindcasts:
    """Scores of years that were each predicted from the others, summed in two ways; less is better.

    A method is scored twice: with what was known of the year, and, called after it with NEIGHBOURS, with what was known
    of the years beside it in its place, on their mean, which tells slow changes and steps and nothing of the year.

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
        """RPSS in each cell against the better of climatology and what neighbouring years tell, (P,)."""
        return np.asarray(1 - self.cells[method] / _references(self.cells, method).min(axis=0))


def _references(scores: dict[str, Array], method: str) -> Array:
    """What a method is measured against: climatology, and the method with neighbouring years' predictors, (2, ...)."""
    return np.stack([scores["climatology"], scores.get(method + NEIGHBOURS, scores["climatology"])])


def cross_validate(
    data: Years, *, shown: Callable[[Iterable[int], str], Iterable[int]] = lambda items, what: items
) -> Hindcasts:
    """Predict each year from all others but its neighbours, and score that.

    Args:
        data: fourteen years or more.
        shown: wraps the years to show progress.

    Raises:
        InputError: too few years.
    """
    count, size = data.target.shape
    names = [*METHODS, *(name + NEIGHBOURS for name in METHODS[1:])]
    rps, crps, cells = ({name: np.zeros(n) for name in names} for n in (count, count, size))
    for i in shown(range(count), "years"):
        others = np.abs(data.years - data.years[i]) > APART
        beside = [j for j in (i - 1, i + 1) if 0 <= j < count]
        now, fields = (np.stack([a[i], a[beside].mean(axis=0)]) for a in (data.persisted, data.predictors))
        own, near = _outlooks(data.only(others), int(data.years[i]), now, fields)
        anomaly = data.target[i] - own.trend
        for name in names:
            made, method = (near if name.endswith(NEIGHBOURS) else own), name.removesuffix(NEIGHBOURS)
            ranked = ranked_probability(made.chances(method), anomaly, made.terciles)
            cells[name] += ranked
            rps[name][i] = ranked @ data.areas
            crps[name][i] = ensemble_crps(made.members[method], anomaly) @ data.areas
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
    """RPSS and CRPSS of a method over all cells, each with an interval; None under twenty years.

    skill = 1 - sum score / sum score of the reference, sums over years and cells by area (Wilks 2019, section 9.7). The
    reference is climatology about the trend or, where that is better, the method with the predictors of neighbouring
    years: what slow changes and steps tell is no skill. The interval is that of a bootstrap over circular blocks of
    the years that are left out together (Politis and Romano 1992), since years in a row are not independent.

    Args:
        hindcasts: what `cross_validate` returns.
        method: one of METHODS but climatology.
        draws: resamples of the years.
        share: how much of the resamples the interval holds.

    Returns:
        {"rpss": {"value", "low", "high", "ahead": the years in which it scored better}, "crpss": the same}.
    """
    if len(hindcasts.years) < ENOUGH:
        return None
    count, length = len(hindcasts.years), 2 * APART + 1
    starts = np.random.default_rng(0).integers(count, size=(draws, -(-count // length)))
    drawn = ((starts[:, :, None] + np.arange(length)) % count).reshape(draws, -1)[:, :count]
    told = {}
    for name, scores in (("rpss", hindcasts.rps), ("crpss", hindcasts.crps)):
        ours, theirs = scores[method], _references(scores, method)  # (n,), (2, n)
        ratios = 1 - ours[drawn].sum(axis=-1) / theirs[:, drawn].sum(axis=-1).min(axis=0)
        low, high = np.quantile(ratios, [(1 - share) / 2, (1 + share) / 2])
        value = 1 - ours.sum() / theirs.sum(axis=1).min()
        ahead = int((ours < theirs[theirs.sum(axis=1).argmin()]).sum())
        told[name] = {"value": float(value), "low": float(low), "high": float(high), "ahead": ahead}
    return told


def is_skill(score: Mapping[str, Any], years: int, *, worth: float = 0.01) -> bool:
    """Whether a score of `skill` says that a method is better than its reference.

    Its interval lies above what is worth a word, and it was ahead in more of the years than a coin would be in nineteen
    of twenty records (sign test, Wilks 2019, section 5.4): a few years beside a step of the record are no skill.

    Args:
        score: the RPSS or CRPSS of a method.
        years: how many years it is of.
        worth: what the interval has to lie above.
    """
    from scipy.stats import binom

    return bool(score["low"] > worth and binom.sf(score["ahead"] - 1, years, 0.5) < 0.05)
