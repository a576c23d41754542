"""Cheap answers for rain, from the training block alone: zero, climatology, persistence, ridge."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
NAMES = ("zero", "climatology", "persistence", "ridge")


@dataclass(frozen=True)
class Forecast:
    """A forecast of rain in mm/h.

    Attributes:
        mean: (N, H, W).
        quantiles: (N, Q, H, W).
        exceedance: (N, K, H, W), probability of more than each of K thresholds.
    """

    mean: Array
    quantiles: Array
    exceedance: Array

    @classmethod
    def sure(cls, mean: Array, *, quantiles: int, thresholds: Sequence[float]) -> Forecast:
        """A single number as a forecast: every quantile is it; NaN where there is none."""
        shape = (len(mean), quantiles, *mean.shape[1:])
        above = np.stack([np.where(np.isfinite(mean), mean > t, np.nan) for t in thresholds], axis=1)
        return cls(mean, np.broadcast_to(mean[:, None], shape), above.astype(np.float32))


# x (N, T, C, H, W) and the rain that persists (N, H, W), to a forecast.
Predict = Callable[[Array, Array], Forecast]


def fit_rain_baselines(
    samples: Iterable[tuple[Array, Array]], *, levels: Sequence[float], thresholds: Sequence[float]
) -> Mapping[str, Predict]:
    """Fit the baselines on training samples.

    Args:
        samples: x (T, C, H, W) and rain (H, W) in mm/h, NaN where not known.
        levels: levels of the quantiles.
        thresholds: rates whose exceedance is told.
    """
    fields, rain = zip(*samples, strict=True)
    x, y = np.stack(fields), np.stack(rain)
    kinds: Mapping[str, Callable[[Array, Array], Array]] = {
        "zero": lambda x, persisted: np.zeros(persisted.shape, np.float32),
        "persistence": lambda x, persisted: persisted,
        "ridge": _ridge(x, y),
    }

    def sure(answer: Callable[[Array, Array], Array]) -> Predict:
        return lambda x, persisted: Forecast.sure(answer(x, persisted), quantiles=len(levels), thresholds=thresholds)

    found = {name: sure(answer) for name, answer in kinds.items()} | {
        "climatology": _climatology(y, levels, thresholds)
    }
    return {name: found[name] for name in NAMES}


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
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def rows(x: Array) -> Array:
        n, t, c, h, w = x.shape
        return x.reshape(n, t * c, h * w).transpose(0, 2, 1).reshape(-1, t * c)

    known = np.isfinite(y).ravel()
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 5, 8))).fit(
        rows(x)[known].astype(np.float64), y.ravel()[known]
    )

    def predict(x: Array, persisted: Array) -> Array:
        answer = model.predict(rows(x).astype(np.float64)).reshape(len(x), *x.shape[-2:])
        return np.asarray(answer.clip(min=0), np.float32)

    return predict
