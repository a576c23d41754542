"""Scores of fields with the `scores` package, weighted by area, with intervals by resampled blocks of days.

Every score is a function of sums over cells that are kept by day, so that resampling days costs no second pass. Cells
where truth or forecast is not known (NaN) count in none of the sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scores.categorical import BasicContingencyManager
from scores.continuous import quantile_score

from models.baselines.fields import Forecast
from pipelines.reports.comparison import Comparison, of_draws

Numbers = NDArray[np.float64]
WINDOWS = (3, 5, 9)  # cells; sides of the neighbourhoods of the fractions skill score
RESAMPLES = 500
LEVEL = 0.9  # of the intervals
# Hours of one day are one weather. The range of n independent values holds their median with 1 - 2 / 2^n: of four days
# with 87.5 %, of five with 93.8 %, so that fewer than five cannot bear an interval of 90 %.
DAYS = 5
BINS = 10
_COUNTS = ("tp_count", "fp_count", "fn_count", "tn_count")
_EVENTS = {
    "pod": "probability_of_detection",
    "far": "false_alarm_ratio",
    "csi": "critical_success_index",
    "ets": "equitable_threat_score",
    "frequency_bias": "frequency_bias",
}


def weather_scores(
    forecast: Forecast,
    truth: NDArray[np.float32],
    area: Numbers,
    *,
    levels: Sequence[float],
    thresholds: Sequence[float],
    times: NDArray[Any],
    seed: int = 0,
) -> dict[str, Any]:
    """Score a forecast.

    Args:
        forecast: N forecasts of (H, W) cells.
        truth: (N, H, W), NaN where not known.
        area: (H, W) weights.
        levels: levels of the quantiles, if there are any.
        thresholds: values whose exceedance is scored, see `said`.
        times: (N,) input times; those of one UTC day are resampled together.
        seed: seeds the resampling.

    Returns:
        By name: n (cells scored), rmse, mae, mean_error, correlation, with levels crps and pinball, for each threshold
        pod_T, far_T, csi_T, ets_T, frequency_bias_T, and for each window of W cells fss_T_W; None where it
        is not defined. "intervals" holds the ends of a 90 % interval of each, or nothing, and then "no_intervals" says
        why: fewer than five days with data. "reliability" is the diagram.
    """
    sums = _sums(forecast, truth, area, levels, thresholds)
    days, inverse = np.unique(np.asarray(times).astype("datetime64[D]"), return_inverse=True)
    by_day = {key: _grouped(values, inverse, len(days)) for key, values in sums.items()}
    whole = _scores({key: values.sum(axis=0) for key, values in by_day.items()}, levels, thresholds)
    result: dict[str, Any] = {"n": int(sums["cells"].sum()), **{key: _plain(value) for key, value in whole.items()}}
    count = int((by_day["weight"] > 0).sum())
    result["intervals"] = _intervals(by_day, levels, thresholds, seed) if count >= DAYS else {}
    if count < DAYS:
        result["no_intervals"] = f"{'one day' if count == 1 else f'{count} days'}: no interval can be given"
    result["reliability"] = reliability(forecast, truth, area, thresholds)
    return result


def _plain(value: Any) -> float | None:
    number = float(value)
    return number if np.isfinite(number) else None


def _grouped(values: Numbers, inverse: NDArray[Any], count: int) -> Numbers:
    """Sums by day: (N, ...) to (count, ...)."""
    out = np.zeros((count, *values.shape[1:]))
    np.add.at(out, inverse, values)
    return out


def _intervals(
    by_day: Mapping[str, Numbers], levels: Sequence[float], thresholds: Sequence[float], seed: int
) -> dict[str, list[float | None]]:
    """Ends of the intervals, of days drawn anew."""
    often = _often(len(by_day["weight"]), seed)
    again = _scores({key: np.tensordot(often, values, axes=1) for key, values in by_day.items()}, levels, thresholds)
    ends: dict[str, list[float | None]] = {}
    for key, values in again.items():
        known = values[np.isfinite(values)]
        if len(known):
            ends[key] = [_plain(end) for end in np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])]
    return ends


def _often(count: int, seed: int) -> Numbers:
    """How often each day is drawn, (RESAMPLES, count): circular blocks as long as the cube root of their number.

    Politis and Romano 1992, with the order of length of Hall, Horowitz and Jing 1995, doi:10.1093/biomet/82.3.561.
    """
    length = round(count ** (1 / 3))
    starts = np.random.default_rng(seed).integers(count, size=(RESAMPLES, -(-count // length)))
    days: NDArray[np.int64] = (starts[:, :, None] + np.arange(length)) % count
    drawn = days.reshape(RESAMPLES, -1)[:, :count]
    return np.stack([np.bincount(row, minlength=count) for row in drawn]).astype(np.float64)


def compared(
    beside: str,
    ours: Forecast,
    theirs: Forecast,
    truth: NDArray[np.float32],
    area: Numbers,
    *,
    times: NDArray[Any],
    seed: int = 0,
) -> Comparison:
    """The gain in RMSE over another forecast, where both and the truth are known, with its interval by blocks of days.

    Arguments as of `weather_scores`; `beside` is what the other is called.
    """
    errors = [f.mean.astype(np.float64) - truth for f in (ours, theirs)]
    known = np.isfinite(errors[0]) & np.isfinite(errors[1])
    weight = np.where(known, area, 0.0)
    sums = [weight.sum((1, 2)), *((weight * np.where(known, e, 0.0) ** 2).sum((1, 2)) for e in errors)]
    days, inverse = np.unique(np.asarray(times).astype("datetime64[D]"), return_inverse=True)
    by_day = np.stack([_grouped(values, inverse, len(days)) for values in sums])  # (3, days)
    by_day = by_day[:, by_day[0] > 0]
    count = by_day.shape[1]
    if not count:
        return Comparison("rmse", beside, 0.0, None, 0, "day")

    def gain(of: Numbers) -> Numbers:
        return np.asarray(np.sqrt(of[2] / of[0]) - np.sqrt(of[1] / of[0]))

    draws = gain(by_day @ _often(count, seed).T)
    return of_draws("rmse", beside, float(gain(by_day.sum(axis=-1))), draws, count, "day")


def rmse_of_days(
    forecast: Forecast, truth: NDArray[np.float32], area: Numbers, days: Sequence[str]
) -> dict[str, float | None]:
    """The RMSE of each day, weighted by area; None where nothing of it is known."""
    error = forecast.mean.astype(np.float64) - truth
    weight = np.where(np.isfinite(error), area, 0.0)
    names, inverse = np.unique(np.array(days), return_inverse=True)
    sums = (weight * np.nan_to_num(error) ** 2).sum((1, 2)), weight.sum((1, 2))
    squares, weights = (_grouped(values, inverse, len(names)) for values in sums)
    return {
        str(name): float(np.sqrt(square / whole)) if whole else None
        for name, square, whole in zip(names, squares, weights, strict=True)
    }


def _sums(
    forecast: Forecast, truth: NDArray[np.float32], area: Numbers, levels: Sequence[float], thresholds: Sequence[float]
) -> dict[str, Numbers]:
    """What the scores are made of, by forecast: (N,), (N, Q), (N, K, 4) and (N, K, windows, 2)."""
    f, o = forecast.mean.astype(np.float64), truth.astype(np.float64)
    known = np.isfinite(f) & np.isfinite(o)
    w = np.where(known, area, 0.0)
    f, o = np.where(known, f, 0.0), np.where(known, o, 0.0)

    middle = float(o[known].mean()) if known.any() else 0.0  # squares of 100000 Pa would swamp their differences
    a, b = np.where(known, f - middle, 0.0), np.where(known, o - middle, 0.0)

    def total(values: NDArray[Any]) -> Numbers:
        return np.asarray((w * values).sum(axis=(1, 2)))

    pinball = [_pinball(forecast.quantiles[:, i], o, known, level) for i, level in enumerate(levels)]
    events = [(said(forecast.exceedance[:, i], w), o > t) for i, t in enumerate(thresholds)]
    tables = [[total(x & y), total(x & ~y), total(~x & y), total(~x & ~y)] for x, y in events]
    fractions = [[_fss_sums(x & known, y & known, area, window) for window in WINDOWS] for x, y in events]
    return {
        "cells": known.sum(axis=(1, 2)).astype(np.float64),
        "weight": w.sum(axis=(1, 2)),
        "f": total(a),
        "o": total(b),
        "ff": total(a * a),
        "oo": total(b * b),
        "fo": total(a * b),
        "error": total(np.abs(f - o)),
        **({"pinball": np.stack([total(values) for values in pinball], axis=1)} if levels else {}),
        **({"tables": np.moveaxis(np.array(tables), -1, 0)} if thresholds else {}),
        **({"fractions": np.moveaxis(np.array(fractions), -1, 0)} if thresholds else {}),
    }


def said(chance: NDArray[np.float32], weight: Numbers) -> NDArray[np.bool_]:
    """Where a forecast says that an event comes: where its chance is highest, over as much weight as chances add up to.

    So a calibrated forecast says events as often as they come. The mean of a distribution lies above light thresholds
    too often, and hardly ever above heavy ones. Of a forecast that is sure, these are its own events.

    Args:
        chance: (N, H, W), 0..1; NaN counts as none.
        weight: of each cell, the same shape.
    """
    chance = np.nan_to_num(chance).astype(np.float64)
    order = np.argsort(-chance, axis=None, kind="stable")
    reached, wanted = weight.ravel()[order].cumsum(), float((weight * chance).sum())
    first = np.searchsorted(reached, wanted * (1 + 1e-9), side="right")  # that is one too many
    cut = chance.ravel()[order[first]] if first < len(order) else 0.0
    return np.asarray(chance > cut)


def _pinball(quantile: NDArray[np.float32], truth: Numbers, known: NDArray[np.bool_], level: float) -> Numbers:
    dims = ("sample", "lat", "lon")
    given = xr.DataArray(np.where(known, quantile, 0.0), dims=dims)
    loss = quantile_score(given, xr.DataArray(truth, dims=dims), level, preserve_dims="all")
    return np.asarray(loss.values, np.float64)


def _fss_sums(forecast: NDArray[np.bool_], truth: NDArray[np.bool_], area: Numbers, window: int) -> Numbers:
    """Sums over neighbourhoods that lie within the grid: squared differences and squares of fractions, (2, N)."""
    height, width = area.shape
    if window > min(height, width):
        return np.full((2, len(forecast)), np.nan)
    half = window // 2
    a, b = _fractions(forecast, window), _fractions(truth, window)
    w = area[half : half + a.shape[1], half : half + a.shape[2]]
    return np.stack([(w * (a - b) ** 2).sum(axis=(1, 2)), (w * (a**2 + b**2)).sum(axis=(1, 2))])


def _fractions(events: NDArray[np.bool_], window: int) -> Numbers:
    """The share of events in each window of window x window cells: (N, H, W) to (N, H-window+1, W-window+1)."""
    whole = np.pad(events.astype(np.float64).cumsum(axis=1).cumsum(axis=2), ((0, 0), (1, 0), (1, 0)))
    n = window
    return np.asarray((whole[:, n:, n:] - whole[:, :-n, n:] - whole[:, n:, :-n] + whole[:, :-n, :-n]) / n**2)


def _scores(sums: Mapping[str, Numbers], levels: Sequence[float], thresholds: Sequence[float]) -> dict[str, Numbers]:
    """Scores of sums; any leading dimension stays. Not defined is NaN."""
    weight = sums["weight"]
    with np.errstate(divide="ignore", invalid="ignore"):
        f, o, ff, oo, fo = (sums[key] / weight for key in ("f", "o", "ff", "oo", "fo"))
        spread = (ff - f**2).clip(min=0) * (oo - o**2).clip(min=0)
        found = {
            "rmse": np.sqrt((ff - 2 * fo + oo).clip(min=0)),
            "mae": sums["error"] / weight,
            "mean_error": f - o,
            "correlation": np.where(spread > 1e-12 * ff * oo, (fo - f * o) / np.sqrt(spread), np.nan),
        }
        if "pinball" in sums:
            pinball = sums["pinball"] / weight[..., None]
            # Twice the pinball loss integrated over 0..1: Laio and Tamea 2007, doi:10.5194/hess-11-1267-2007.
            found |= {"crps": 2 * pinball @ level_shares(levels), "pinball": pinball.mean(axis=-1)}
        for i, threshold in enumerate(thresholds):
            found |= {f"{key}_{threshold:g}": v for key, v in _event_scores(sums["tables"][..., i, :]).items()}
        for i, threshold in enumerate(thresholds):
            for j, window in enumerate(WINDOWS):
                # Roberts and Lean 2008, doi:10.1175/2007MWR2123.1.
                pair = sums["fractions"][..., i, j, :]
                found[f"fss_{threshold:g}_{window}"] = 1 - pair[..., 0] / pair[..., 1]
    return found


def level_shares(levels: Sequence[float]) -> Numbers:
    """The part of 0..1 that each level stands for, between the middles to its neighbours."""
    p = np.asarray(levels, np.float64)
    return np.diff(np.concatenate(([0.0], (p[1:] + p[:-1]) / 2, [1.0])))


def _event_scores(table: Numbers) -> dict[str, Numbers]:
    """Scores of hits, false alarms, misses and correct negatives (..., 4), by area."""
    counts = {name: xr.DataArray(table[..., i]) for i, name in enumerate(_COUNTS)}
    manager = BasicContingencyManager(counts | {"total_count": xr.DataArray(table.sum(axis=-1))})
    return {key: np.asarray(getattr(manager, method)().values) for key, method in _EVENTS.items()}


def reliability(
    forecast: Forecast, truth: NDArray[np.float32], area: Numbers, thresholds: Sequence[float]
) -> list[dict[str, Any]]:
    """The reliability diagram: mean probability, observed share and weight of each threshold and bin."""
    rows = []
    for i, threshold in enumerate(thresholds):
        p = forecast.exceedance[:, i].astype(np.float64)
        known = np.isfinite(p) & np.isfinite(truth)
        place = np.minimum((p[known] * BINS).astype(int), BINS - 1)
        w = np.broadcast_to(area, truth.shape)[known]
        weight, said, seen = (
            np.bincount(place, w * v, BINS) for v in (np.ones(len(w)), p[known], truth[known] > threshold)
        )
        rows += [
            {
                "threshold": threshold,
                "forecast": float(said[b] / weight[b]),
                "observed": float(seen[b] / weight[b]),
                "share": float(weight[b] / weight.sum()),
            }
            for b in np.flatnonzero(weight)
        ]
    return rows
