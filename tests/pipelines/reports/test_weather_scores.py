"""Scores of rain against independent ones: numpy, scikit-learn, and `scores` where area does not weigh."""

from __future__ import annotations

import operator

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scores.categorical import ThresholdEventOperator
from scores.probability import crps_for_ensemble
from scores.spatial import fss_2d
from sklearn.metrics import mean_pinball_loss

from models.baselines.fields import Forecast, fit_rain_baselines
from pipelines.reports import weather_scores as weather_scores_module
from pipelines.reports.weather_scores import level_shares, weather_scores
from tests.rain_files import LEARNED

LEVELS = tuple((i + 0.5) / 20 for i in range(20))
THRESHOLDS = (0.1, 1.0, 5.0)
FLAT = np.ones((12, 14))


def rain(seed, count=8, shape=(12, 14)):
    return np.random.default_rng(seed).gamma(0.4, 2.0, (count, *shape)).astype(np.float32)


def forecast(seed=1, count=8):
    quantiles = np.sort(rain(seed, count * len(LEVELS)).reshape(count, len(LEVELS), 12, 14), axis=1)
    quantiles = quantiles * rain(seed + 100, count)[:, None]
    above = np.stack([(quantiles > t).mean(1) for t in THRESHOLDS], axis=1).astype(np.float32)
    return Forecast(quantiles.mean(1), quantiles, above)


def score(made, truth, area=FLAT, **options):
    times = options.pop("times", np.arange(len(truth)))
    return weather_scores(made, truth, area, levels=LEVELS, thresholds=THRESHOLDS, times=times, **options)


def test_scores_are_those_of_others_on_equal_areas():
    made, truth = forecast(), rain(2)
    came, error = score(made, truth), made.mean - truth
    assert came["n"] == truth.size
    assert came["rmse"] == pytest.approx(np.sqrt((error.astype(float) ** 2).mean()), rel=1e-5)
    assert came["mean_error"] == pytest.approx(error.mean(), abs=1e-5)
    assert came["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-5)
    assert came["correlation"] == pytest.approx(np.corrcoef(made.mean.ravel(), truth.ravel())[0, 1], abs=1e-5)
    losses = [mean_pinball_loss(truth.ravel(), made.quantiles[:, i].ravel(), alpha=p) for i, p in enumerate(LEVELS)]
    assert came["pinball"] == pytest.approx(np.mean(losses), rel=1e-5)
    members = xr.DataArray(made.quantiles, dims=("t", "member", "y", "x"))
    ensemble = crps_for_ensemble(members, xr.DataArray(truth, dims=("t", "y", "x")), "member", method="ecdf")
    assert came["crps"] == pytest.approx(float(ensemble), rel=1e-4)  # at these levels the two are the same


@given(seed=st.integers(0, 99))
def test_events_are_said_where_they_are_likeliest_and_as_many_as_chances_add_up_to(seed):
    rng = np.random.default_rng(seed)
    chance, weight = rng.random((3, 5, 6)).astype(np.float32) ** 3, rng.uniform(0.5, 1, (3, 5, 6))
    said = weather_scores_module.said(chance, weight)
    assert chance[said].min(initial=1) > chance[~said].max()
    told, wanted = weight[said].sum(), (weight * chance).sum()
    assert told <= wanted + 1e-9 < told + weight[~said][chance[~said].argmax()] + 2e-9


def test_a_forecast_that_is_sure_says_its_own_events():
    mean = rain(1)
    sure = Forecast.sure(mean, thresholds=THRESHOLDS).exceedance[:, 1]
    weight = np.random.default_rng(0).uniform(0.1, 1, mean.shape)
    np.testing.assert_array_equal(weather_scores_module.said(sure, weight), mean > 1)
    sure[0], weight[1] = np.nan, 0.0
    said = weather_scores_module.said(sure, weight)
    assert not said[0].any() and (said[2:] == (mean[2:] > 1)).all()
    assert not weather_scores_module.said(np.zeros((1, 2, 2), np.float32), np.ones((1, 2, 2))).any()
    assert weather_scores_module.said(np.ones((1, 2, 2), np.float32), np.ones((1, 2, 2))).all()


def test_events_and_neighbourhoods_are_those_of_scores():
    made, truth = Forecast.sure(forecast().mean, quantiles=len(LEVELS), thresholds=THRESHOLDS), rain(2)
    came = score(made, truth)
    f, o = (xr.DataArray(a, dims=("t", "y", "x")) for a in (made.mean, truth))
    for t in (1.0, 5.0):
        table = ThresholdEventOperator(default_event_threshold=t, default_op_fn=operator.gt)
        table = table.make_contingency_manager(f, o).transform()
        for key, method in (("csi", "critical_success_index"), ("ets", "equitable_threat_score")):
            assert came[f"{key}_{t:g}"] == pytest.approx(float(getattr(table, method)()), rel=1e-6)
        assert came[f"pod_{t:g}"] == pytest.approx(float(table.probability_of_detection()), rel=1e-6)
        assert came[f"far_{t:g}"] == pytest.approx(float(table.false_alarm_ratio()), rel=1e-6)
        assert came[f"frequency_bias_{t:g}"] == pytest.approx(float(table.frequency_bias()), rel=1e-6)
    for window in (3, 5, 9):
        wanted = fss_2d(f, o, event_threshold=1.0, window_size=(window, window), spatial_dims=("y", "x"))
        assert came[f"fss_1_{window}"] == pytest.approx(float(wanted), rel=1e-6)


def test_the_truth_is_a_perfect_forecast_and_known_cells_alone_count():
    truth = rain(3)
    truth[0, :5] = np.nan
    sure = Forecast.sure(np.nan_to_num(truth, nan=9.0), quantiles=len(LEVELS), thresholds=THRESHOLDS)
    came = score(sure, truth)
    assert came["n"] == np.isfinite(truth).sum()
    assert came["rmse"] == pytest.approx(0, abs=1e-6) and came["crps"] == pytest.approx(0, abs=1e-9)
    assert came["correlation"] == pytest.approx(1) and came["csi_1"] == came["ets_1"] == came["fss_1_5"] == 1


def test_a_sure_forecasts_crps_is_its_mean_absolute_error():
    truth = rain(3)
    came = score(Forecast.sure(rain(4), quantiles=len(LEVELS), thresholds=THRESHOLDS), truth)
    assert came["crps"] == pytest.approx(np.abs(rain(4) - truth).mean(), rel=1e-4)
    assert level_shares(LEVELS).sum() == pytest.approx(1)


def test_cells_weigh_by_their_area():
    made, truth = forecast(), rain(2)
    half = FLAT.copy()
    half[:, 7:] = 0
    inner = Forecast(made.mean[..., :7], made.quantiles[..., :7], made.exceedance[..., :7])
    whole, part = score(made, truth, half), score(inner, truth[..., :7], FLAT[:, :7])
    for key in ("rmse", "correlation", "crps", "csi_1", "ets_5", "frequency_bias_1"):
        assert whole[key] == pytest.approx(part[key], rel=1e-6)


def test_intervals_hold_the_score_and_come_of_the_seed():
    made, truth = forecast(count=24), rain(2, 24)
    one, same, other = (score(made, truth, seed=s) for s in (0, 0, 1))
    assert one["intervals"] == same["intervals"] != other["intervals"]
    for key in ("rmse", "correlation", "crps", "csi_1", "fss_1_5"):
        low, high = one["intervals"][key]
        assert low < one[key] < high


@pytest.mark.parametrize(
    ("hours", "said"),
    [(1, "one day"), (24, "one day"), (4 * 24, "4 days"), (5 * 24 - 23, None), (3 * 24 + 1, "4 days"), (5 * 24, None)],
)
def test_hours_of_a_day_are_one_weather(hours, said):
    """Of one storm no interval: five UTC days are wanted, however many hours they hold."""
    times = np.datetime64("2020-03-30T00", "s") + np.arange(hours) * np.timedelta64(3600, "s")
    found = score(forecast(count=hours), rain(2, hours), times=times)
    assert found.get("no_intervals") == (said and f"{said}: no interval can be given")
    assert bool(found["intervals"]) == (said is None)


def test_days_without_a_known_truth_do_not_count():
    times = np.repeat(np.datetime64("2020-03-30", "D") + np.arange(5), 2)
    truth = rain(2, 10)
    assert score(forecast(count=10), truth, times=times)["intervals"]
    truth[8:] = np.nan
    assert score(forecast(count=10), truth, times=times)["no_intervals"].startswith("4 days")


def test_intervals_are_of_days_and_not_of_hours():
    """Five days that are right or wrong as a whole: their interval does not shrink with the hours that they hold."""
    ends = []
    for hours in (1, 24):
        truth = np.repeat([1.0, 2.0, 3.0, 4.0, 10.0], hours)[:, None, None] * np.ones((1, 12, 14))
        times = np.repeat(np.datetime64("2020-03-30", "D") + np.arange(5), hours)
        made = Forecast.sure(np.zeros(truth.shape, np.float32), quantiles=len(LEVELS), thresholds=THRESHOLDS)
        ends.append(score(made, truth.astype(np.float32), times=times)["intervals"]["mae"])
    np.testing.assert_allclose(ends[0], ends[1])
    assert ends[0][1] - ends[0][0] > 3  # of values 1 to 10


def test_several_leads_of_one_time_are_resampled_together():
    made, truth = forecast(count=8), rain(2, 8)
    twice = Forecast(*(np.concatenate((a, a)) for a in (made.mean, made.quantiles, made.exceedance)))
    a = score(made, truth)
    b = score(twice, np.concatenate((truth, truth)), times=np.tile(np.arange(8), 2))
    assert a["intervals"]["rmse"] == pytest.approx(b["intervals"]["rmse"])


def test_true_probabilities_lie_on_the_diagonal():
    rng = np.random.default_rng(0)
    p = rng.random((40, 3, 12, 14)).astype(np.float32)
    truth = np.where(rng.random((40, 12, 14)) < p[:, 1], 2.0, 0.0).astype(np.float32)
    made = Forecast(truth, np.repeat(truth[:, None], len(LEVELS), 1), p)
    rows = [row for row in score(made, truth)["reliability"] if row["threshold"] == 1.0]
    assert len(rows) == 10 and sum(row["share"] for row in rows) == pytest.approx(1)
    assert max(abs(row["forecast"] - row["observed"]) for row in rows) < 0.06


def test_baselines_are_what_their_names_say():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 1, 2, 12, 14)).astype(np.float32)
    y = (2 * x[:, 0, 0] + 1).clip(0).astype(np.float32)
    fitted = fit_rain_baselines(zip(x, y, strict=True), levels=LEVELS, thresholds=THRESHOLDS)
    assert list(fitted) == ["zero", "climatology", "persistence", *LEARNED]
    persisted = rain(5, 6)
    made = {name: predict(x, persisted) for name, predict in fitted.items()}
    assert (made["zero"].mean == 0).all() and (made["zero"].exceedance == 0).all()
    np.testing.assert_array_equal(made["persistence"].mean, persisted)
    np.testing.assert_allclose(made["climatology"].mean[3], y.mean(0), rtol=1e-5)
    np.testing.assert_allclose(made["climatology"].quantiles[2, 9], np.quantile(y, LEVELS[9], axis=0), rtol=1e-4)
    assert np.corrcoef(made["ridge"].mean.ravel(), y.ravel())[0, 1] > 0.9 and made["ridge"].mean.min() >= 0
    elsewhere = fitted["climatology"](np.zeros((2, 1, 2, 5, 6), np.float32), np.zeros((2, 5, 6), np.float32))
    np.testing.assert_allclose(elsewhere.mean, np.full((2, 5, 6), y.mean()), rtol=1e-5)
    assert elsewhere.quantiles.shape == (2, len(LEVELS), 5, 6)
