"""Cheap answers from the training block alone: zero, climatology, persistence, regressions; ridge onto finer cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.baselines.networks import WIDEST, convolutions, whole_field
from models.types import Array

ROWS = 500_000  # more would only cost memory: there are some tens of coefficients
NUMBERS = 30_000_000  # of all features of all rows that boosting learns from: a quarter of a gigabyte
SIDES = (3, 7, 15)  # cells along the neighbourhoods that fields depart from
AT_ONCE = 10_000_000  # the same, that boosting is asked about at once
DRY = 0.1  # of the lowest threshold: less is no rain, for `_gamma`
SMEARED = 99  # residuals that stand for all
ROUNDS, RATE, LEAVES, LEAF = 100, 0.07, 15, 100


@dataclass(frozen=True)
class Forecast:
    """What a model says of a field, in its unit: a distribution, or a number alone.

    Attributes:
        mean: (N, H, W).
        quantiles: (N, Q, H, W), Q of 0 for a number alone.
        exceedance: (N, K, H, W), probability of more than each of K thresholds.
    """

    mean: Array
    quantiles: Array
    exceedance: Array

    @classmethod
    def joined(cls, parts: Sequence[Forecast]) -> Forecast:
        """Forecasts one after the other."""
        return cls(*(np.concatenate([getattr(p, key) for p in parts]) for key in ("mean", "quantiles", "exceedance")))

    @classmethod
    def sure(cls, mean: Array, *, quantiles: int = 0, thresholds: Sequence[float] = ()) -> Forecast:
        """A single number as a forecast: every quantile is it; NaN where there is none."""
        shape = (len(mean), quantiles, *mean.shape[1:])
        limits = np.reshape(np.asarray(thresholds, np.float32), (1, -1, 1, 1))
        above = np.where(np.isfinite(mean[:, None]), mean[:, None] > limits, np.nan)
        return cls(mean, np.broadcast_to(mean[:, None], shape), above.astype(np.float32))


# x (N, T, C, H, W) and the rain that persists (N, H, W), to a forecast.
Predict = Callable[[Array, Array], Forecast]


def fit_rain_baselines(
    samples: Iterable[tuple[Array, Array]], *, levels: Sequence[float], thresholds: Sequence[float], seed: int = 0
) -> Mapping[str, Predict]:
    """Fit the baselines on training samples.

    Args:
        samples: x (T, C, H, W) and rain (H, W), NaN where not known.
        levels: levels of the quantiles.
        thresholds: rates whose exceedance is told.
        seed: seeds the trees.
    """
    fields, rain = zip(*samples, strict=True)
    x, y = np.stack(fields), np.stack(rain)

    def sure(answer: Callable[[Array, Array], Array]) -> Predict:
        return lambda x, persisted: Forecast.sure(answer(x, persisted), quantiles=len(levels), thresholds=thresholds)

    whole = {"whole field": sure(_without_persistence(partial(whole_field, x, y, seed)))}
    return {
        "zero": sure(lambda x, persisted: np.zeros(persisted.shape, np.float32)),
        "climatology": _climatology(y, levels, thresholds),
        "persistence": sure(lambda x, persisted: persisted),
        "ridge": sure(_ridge(x, y)),
        "ridge on the root": _ridge_on_the_root(x, y, levels, thresholds),
        "gamma": _gamma(x, y, levels, thresholds),
        "boosting": sure(_boosting(x, y, seed)),
        "convolutions": sure(_without_persistence(partial(convolutions, x, y, seed))),
        **(whole if x[0].size <= WIDEST else {}),
    }


def _without_persistence(fit: Callable[[], Callable[[Array], Array]]) -> Callable[[Array, Array], Array]:
    """What hears of fields alone, fitted when it is first asked."""
    fitted = cache(fit)
    return lambda x, persisted: fitted()(x)


def _climatology(y: Array, levels: Sequence[float], thresholds: Sequence[float]) -> Predict:
    """Mean, quantiles and frequencies of each cell over the training times; of all cells, on another grid."""

    def summary(values: NDArray[np.float32], axis: tuple[int, ...]) -> Forecast:
        mean = np.nanmean(values, axis=axis)
        above = np.stack([np.nanmean(values > t, axis=axis) for t in thresholds])
        return Forecast(*(a.astype(np.float32) for a in (mean, np.nanquantile(values, levels, axis=axis), above)))

    cells, whole = summary(y, (0,)), summary(y, (0, 1, 2))

    def predict(x: Array, persisted: Array) -> Forecast:
        count, grid = len(x), x.shape[-2:]
        if grid == y.shape[1:]:
            return Forecast(*(np.repeat(a[None], count, 0) for a in (cells.mean, cells.quantiles, cells.exceedance)))
        spread = [np.reshape(a, (1, *np.shape(a), 1, 1)) for a in (whole.mean, whole.quantiles, whole.exceedance)]
        return Forecast(*(np.broadcast_to(a, (count, *a.shape[1:-2], *grid)) for a in spread))

    return predict


def _ridge(x: Array, y: Array) -> Callable[[Array, Array], Array]:
    """Ridge regression of each cell's rain on its own fields, negative answers set to zero."""
    known = np.isfinite(y).ravel()
    model = _fitted(_rows(x)[known], y.ravel()[known])

    def predict(x: Array, persisted: Array) -> Array:
        return _told(model, x).clip(min=0).astype(np.float32)

    return predict


def _ridge_on_the_root(x: Array, y: Array, levels: Sequence[float], thresholds: Sequence[float]) -> Predict:
    """Ridge regression of the root of rain with the residuals' distribution, squared (smearing: Duan 1983)."""
    known = np.isfinite(y).ravel()
    rows, root = _rows(x)[known], np.sqrt(y.ravel()[known])
    model = _fitted(rows, root)
    left = root - model.predict(rows.astype(np.float64))
    spread = np.quantile(left, (np.arange(SMEARED) + 0.5) / SMEARED)[:, None, None]
    ends = np.quantile(left, levels)[:, None, None]

    def predict(x: Array, persisted: Array) -> Forecast:
        root = _told(model, x)[:, None]  # (N, 1, H, W)
        rain = np.stack([np.square((one + spread).clip(min=0)) for one in root])  # (N, SMEARED, H, W)
        above = np.stack([(rain > t).mean(axis=1) for t in thresholds], axis=1)
        quantiles = np.square((root + ends).clip(min=0))
        return Forecast(*(a.astype(np.float32) for a in (rain.mean(axis=1), quantiles, above)))

    return predict


def _gamma(x: Array, y: Array, levels: Sequence[float], thresholds: Sequence[float]) -> Predict:
    """Whether it rains by logistic regression, and how much by gamma regression where it does (Stern and Coe 1984)."""
    from scipy.stats import gamma
    from sklearn.linear_model import GammaRegressor, LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known = np.isfinite(y).ravel()
    cells = _rows(x)[known]
    every = -(-len(cells) // min(ROWS, NUMBERS // cells.shape[1]))
    rows, rain = cells[::every].astype(np.float64), y.ravel()[known][::every].astype(np.float64)
    wet = rain > DRY * min(thresholds)
    if not 0 < wet.sum() < len(wet) or rain[wet].std() == 0:  # nothing to learn of one of both
        return _climatology(y, levels, thresholds)
    # Newton's steps are few and end at the optimum where fields are hundreds and alike: lbfgs stops on its way there.
    newton = {"solver": "newton-cholesky", "max_iter": 100}
    often = make_pipeline(StandardScaler(), LogisticRegression(**newton)).fit(rows, wet)
    much = make_pipeline(StandardScaler(), GammaRegressor(alpha=1e-3, **newton)).fit(rows[wet], rain[wet])

    def amounts(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Between the least and the most that fell: an exponential of fields unlike the training's may be anything."""
        logs = much[:-1].transform(rows) @ much[-1].coef_ + much[-1].intercept_
        return np.asarray(np.exp(logs.clip(*np.log((rain[wet].min(), rain[wet].max())))))

    spread = float(np.square(rain[wet] / amounts(rows[wet]) - 1).mean())  # Pearson's dispersion

    def predict(x: Array, persisted: Array) -> Forecast:
        rows, shape = _rows(x).astype(np.float64), (len(x), *x.shape[-2:])
        chance, mean = often.predict_proba(rows)[:, 1].reshape(shape), amounts(rows).reshape(shape)
        amount = gamma(1 / spread, scale=mean * spread)
        dry = (1 - chance).clip(1e-9, 1 - 1e-9)
        quantiles = np.stack([amount.ppf((level - dry).clip(0) / (1 - dry)) for level in levels], axis=1)
        above = np.stack([chance * amount.sf(t) for t in thresholds], axis=1)
        return Forecast(*(a.astype(np.float32) for a in (chance * mean, quantiles, above)))

    return predict


def _rows(x: Array) -> Array:
    """A row of fields for each cell: (N, T, C, H, W) to (N * H * W, T * C)."""
    n, t, c, h, w = x.shape
    return x.reshape(n, t * c, h * w).transpose(0, 2, 1).reshape(-1, t * c)


def _told(model: Any, x: Array) -> NDArray[np.float64]:
    """What a regression on rows of cells tells of fields, (N, H, W)."""
    return np.asarray(model.predict(_rows(x).astype(np.float64)).reshape(len(x), *x.shape[-2:]))


def departures(x: Array) -> Array:
    """Each cell's fields, their departures from the means of neighbourhoods, and their gradients: (N, F, H, W).

    Args:
        x: (N, T, C, H, W).
    """
    from scipy.ndimage import uniform_filter

    values = x.reshape(len(x), -1, *x.shape[-2:]).astype(np.float64)
    near = [values - uniform_filter(values, (1, 1, side, side), mode="nearest") for side in SIDES]
    slopes = [np.gradient(values, axis=axis) for axis in (2, 3) if values.shape[axis] > 1]
    return np.concatenate((values, *near, *slopes), axis=1).astype(np.float32)


def _boosting(x: Array, y: Array, seed: int) -> Callable[[Array, Array], Array]:
    """Gradient boosting of each cell's rain on `departures`, negative answers set to zero."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    known = np.flatnonzero(np.isfinite(y))
    wide = departures(x[:1]).shape[1]
    every = -(-len(known) * wide // NUMBERS)
    chosen, size = known[::every], y[0].size
    cells = [chosen[chosen // size == i] % size for i in range(len(x))]  # of each sample
    rows = np.concatenate([departures(x[i : i + 1]).reshape(wide, size)[:, c].T for i, c in enumerate(cells)])
    settings = {"max_iter": ROUNDS, "learning_rate": RATE, "max_leaf_nodes": LEAVES, "min_samples_leaf": LEAF}
    model = HistGradientBoostingRegressor(**settings, early_stopping=False, random_state=seed)
    model.fit(rows, y.ravel()[chosen])

    def predict(x: Array, persisted: Array) -> Array:
        parts = np.array_split(x, -(-len(x) // max(AT_ONCE // (wide * x[0, 0, 0].size), 1)))
        maps = (np.moveaxis(departures(part), 1, -1) for part in parts)  # (n, H, W, F)
        told = [model.predict(m.reshape(-1, wide)).reshape(m.shape[:-1]) for m in maps]
        return np.concatenate(told).clip(min=0).astype(np.float32)

    return predict


def _fitted(rows: Array, y: Array) -> Any:
    """Ridge regression of y (N,) on standardised rows (N, F), its penalty by leaving rows out."""
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    every = -(-len(y) // ROWS)
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 5, 8)))
    return model.fit(rows[::every].astype(np.float64), y[::every])


def fit_finer(
    x: Array, base: Array, heights: Sequence[Array], y: Array, *, factor: int
) -> Callable[[Array, Array, Sequence[Array]], Array]:
    """Ridge of what bicubic leaves out, for each place in a coarse cell, on fields of 3 x 3 coarse cells and heights.

    Args:
        x: coarse fields (N, C, h, w).
        base: what bicubic says (N, H, W).
        heights: elevation, and what bicubic leaves out of it: (H, W) each; none for a model without.
        y: the fine field (N, H, W), NaN where not known.
        factor: fine cells along a side of a coarse one.

    Returns:
        A function of x, base and heights that gives the fine field (N, H, W).
    """
    places = [(i, j) for i in range(factor) for j in range(factor)]
    models = {}
    for i, j in places:
        left = (y - base)[:, i::factor, j::factor].ravel()
        known = np.isfinite(left)
        models[i, j] = _fitted(_around(x, heights, i, j, factor)[known], left[known])

    def predict(x: Array, base: Array, heights: Sequence[Array]) -> Array:
        out = base.copy()
        for (i, j), model in models.items():
            part = out[:, i::factor, j::factor]
            part += model.predict(_around(x, heights, i, j, factor).astype(np.float64)).reshape(part.shape)
        return out

    return predict


def _around(x: Array, heights: Sequence[Array], i: int, j: int, factor: int) -> Array:
    """A row for each coarse cell: all fields there and in its eight neighbours, heights at one place of it."""
    n, _, h, w = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    near = [padded[:, :, a : a + h, b : b + w] for a in range(3) for b in range(3)]
    own = [np.broadcast_to(height[i::factor, j::factor], (n, 1, h, w)) for height in heights]
    rows = np.concatenate([*near, *own], axis=1)  # (N, F, h, w)
    return np.moveaxis(rows, 1, -1).reshape(n * h * w, -1)
