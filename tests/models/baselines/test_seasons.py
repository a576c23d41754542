"""Outlooks against formulas by hand, scikit-learn and scores; no year leaks into its own forecast."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import make_smoothing_spline
from sklearn.decomposition import TruncatedSVD
from sklearn.linear_model import LinearRegression, Ridge

from models.baselines import seasons as outlook
from models.baselines.seasons import (
    METHODS,
    NEIGHBOURS,
    Years,
    cross_validate,
    ensemble_crps,
    is_skill,
    predict,
    ranked_probability,
    skill,
)
from models.errors import InputError
from tests.season_records import SHAPES, claims, record


def years(n=30, *, signal=0.0, persistence=0.0, trend=0.1, seed=0, cells=40, fields=60):
    """Years whose target follows a mode of the predictors, or what was there before, by as much as is asked for."""
    rng = np.random.default_rng(seed)
    mode, before = rng.normal(size=n), rng.normal(size=(n, cells))
    predictors = rng.normal(size=(n, fields)) + mode[:, None] * rng.normal(size=fields)
    noise = rng.normal(size=(n, 6)) @ rng.normal(size=(6, cells)) * 0.4 + 0.4 * rng.normal(size=(n, cells))
    target = noise + signal * mode[:, None] * rng.normal(size=cells) + persistence * before
    target = 10 + target + trend * np.arange(n)[:, None]
    return Years(1980 + np.arange(n), target, before, predictors, np.ones(cells), np.ones(fields))


def left_out(data, i):
    """The outlook of a year from all others."""
    others = np.arange(len(data.years)) != i
    return predict(data.only(others), int(data.years[i]), data.persisted[i], data.predictors[i])


def equal(one, two):
    return (
        np.array_equal(one.trend, two.trend)
        and np.array_equal(one.terciles, two.terciles)
        and all(np.array_equal(one.members[m], two.members[m]) for m in METHODS)
    )


# ---------------------------------------------------------------- no leakage


@pytest.mark.parametrize("i", [0, 7, 24])
def test_a_years_own_target_does_not_change_its_forecast(i):
    data = years(25, signal=1.0)
    changed = data.target.copy()
    changed[i] += 1000 * np.random.default_rng(9).normal(size=changed.shape[1])
    other = dataclasses.replace(data, target=changed)
    assert equal(left_out(data, i), left_out(other, i))
    assert not equal(left_out(data, (i + 1) % 25), left_out(other, (i + 1) % 25))  # another year's forecast does change


def test_cross_validation_knows_neither_the_year_nor_its_neighbours(monkeypatch):
    data, seen, own = years(24), [], outlook._outlooks

    def spy(known, year, persisted, predictors):
        assert known.years.tolist() == [other for other in data.years if abs(other - year) > 2]
        i = year - 1980
        beside = data.predictors[[j for j in (i - 1, i + 1) if 0 <= j < 24]].mean(axis=0)
        np.testing.assert_array_equal(predictors, [data.predictors[i], beside])
        seen.append(year)
        return own(known, year, persisted, predictors)

    monkeypatch.setattr(outlook, "_outlooks", spy)
    cross_validate(data)
    assert seen == data.years.tolist()


def test_a_year_that_is_to_be_predicted_is_not_learnt_from():
    data = years(25)
    with pytest.raises(InputError, match="1983 is to be predicted and is among"):
        predict(data, 1983, data.persisted[3], data.predictors[3])
    with pytest.raises(InputError, match="8 years are known, 9 or more"):
        predict(data.only(data.years < 1988), 2000, data.persisted[0], data.predictors[0])


# ---------------------------------------------------------------- skill


@pytest.mark.parametrize("seed", range(4))
def test_noise_has_no_skill(seed):
    hindcasts = cross_validate(years(30, seed=seed + 20))
    for method in ("persistence", "ridge"):
        for score in skill(hindcasts, method).values():
            assert score["low"] <= 0 and score["low"] <= score["value"] <= score["high"] < 0.1
            assert not is_skill(score, 30)


@pytest.mark.parametrize("seed", range(3))
def test_a_planted_teleconnection_is_found_by_ridge_only(seed):
    hindcasts = cross_validate(years(30, signal=1.5, seed=seed))
    found = skill(hindcasts, "ridge")
    assert found["rpss"]["low"] > 0.05 and found["crpss"]["low"] > 0.05 and is_skill(found["rpss"], 30)
    assert skill(hindcasts, "persistence")["rpss"]["low"] <= 0
    assert np.median(hindcasts.by_cell("ridge")) > 0.05


def test_what_persists_is_found_by_persistence():
    hindcasts = cross_validate(years(30, persistence=1.5))
    assert skill(hindcasts, "persistence")["rpss"]["low"] > 0.1


def test_a_trend_alone_is_no_skill():
    data = years(30, trend=2.0, seed=5)
    rising = dataclasses.replace(data, predictors=data.predictors + 3.0 * np.arange(30)[:, None])
    assert skill(cross_validate(rising), "ridge")["rpss"]["low"] <= 0


@pytest.mark.parametrize("kind", SHAPES)
def test_slow_changes_and_steps_that_all_share_are_no_skill(kind):
    said = [claims(record(kind, seed)) for seed in range(5)]
    assert sum(any(each.values()) for each in said) <= 1


def test_planted_skill_is_found_in_spite_of_a_kink():
    assert sum(claims(record("kink", seed, signal=1.0))["ridge"] for seed in range(4)) >= 3


def test_skill_worked_by_hand():
    """Thirty years: of climatology 0.5 each, of the neighbours 0.4, of the method 0.3 but twice, when it is 0.9."""
    ours = np.full(30, 0.3)
    ours[[3, 20]] = 0.9
    scores = {"climatology": np.full(30, 0.5), "ridge": ours, f"ridge{NEIGHBOURS}": np.full(30, 0.4)}
    cells = {name: values[:5] for name, values in scores.items()}
    found = outlook.Hindcasts(np.arange(30), scores, scores, cells)
    told = skill(found, "ridge")["rpss"]
    assert told["value"] == pytest.approx(1 - 10.2 / 12) and told["ahead"] == 28
    assert told["low"] < told["value"] < told["high"] <= 0.25 + 1e-9
    np.testing.assert_allclose(found.by_cell("ridge"), [0.25, 0.25, 0.25, -1.25, 0.25])
    # Of thirty years a coin is ahead in 20 or more with 4.9 %, in 19 or more with 10 %.
    assert is_skill({"low": 0.02, "ahead": 20}, 30) and not is_skill({"low": 0.02, "ahead": 19}, 30)
    assert not is_skill({"low": 0.01, "ahead": 30}, 30)


def test_years_in_a_row_are_drawn_together():
    """Scores that are good in one half of the years: drawn one by one the interval would be 0.15 to 0.35 or so."""
    ours = np.where(np.arange(60) < 30, 0.25, 0.5)
    scores = {"climatology": np.full(60, 0.5), "ridge": ours}
    told = skill(outlook.Hindcasts(np.arange(60), scores, scores, {}), "ridge")["rpss"]
    assert told["value"] == pytest.approx(0.25) and told["low"] < 0.15 and told["high"] > 0.35


def test_under_twenty_years_skill_is_not_told():
    assert skill(cross_validate(years(19)), "ridge") is None
    assert skill(cross_validate(years(20)), "ridge") is not None


# ---------------------------------------------------------------- parts


@pytest.fixture
def period(monkeypatch):
    """Trends of one period alone."""

    def chosen(value):
        monkeypatch.setattr(outlook, "PERIODS", (value,))
        outlook._trends.cache_clear()

    yield chosen
    outlook._trends.cache_clear()


def test_the_trend_is_a_smoothing_spline_and_members_are_departures_of_years_left_out(period):
    data = years(20)
    data = data.only(data.years != 1990)
    period(20.0)

    def spline(keep):
        return make_smoothing_spline(data.years[keep].astype(float), data.target[keep], lam=(20 / (2 * np.pi)) ** 4)

    whole = spline(data.years > 0)
    inside, beyond = (predict(data, year, data.persisted[0], data.predictors[0]) for year in (1990, 2003))
    np.testing.assert_allclose(inside.trend, whole(1990.0), rtol=1e-6)
    np.testing.assert_allclose(beyond.trend, whole(1999.0) + 4 * whole.derivative()(1999.0), rtol=1e-6)
    for i, year in ((5, 1985), (11, 1992)):
        wanted = data.target[i] - spline(np.abs(data.years - year) > 2)(float(year))
        np.testing.assert_allclose(inside.members["climatology"][i], wanted, atol=1e-6)
    np.testing.assert_allclose(beyond.terciles, np.quantile(beyond.members["climatology"], [1 / 3, 2 / 3], axis=0))


def test_the_longest_trend_is_the_line_of_least_squares(period):
    data = years(20)
    period(np.inf)
    made = predict(data, 2003, data.persisted[0], data.predictors[0])
    line = LinearRegression().fit(data.years[:, None], data.target)
    np.testing.assert_allclose(made.trend, line.predict([[2003]])[0])
    np.testing.assert_allclose(made.members["climatology"], departures(data.target, data.years), atol=1e-9)


def test_a_trend_is_as_smooth_as_tells_the_years_left_out_best():
    """With next to no noise a kink is followed, where a straight line would say 6.9, and a line stays one."""
    t = np.arange(40)
    rng = np.random.default_rng(0)
    for shape, wanted in ((0.5 * t, 0.5 * 25), (1.0 * np.clip(t - 20, 0, None), 5.0)):
        data = years(40)
        target = shape[:, None] + 0.01 * rng.normal(size=data.target.shape)
        kept = dataclasses.replace(data, target=target).only(t != 25)
        assert predict(kept, 2005, data.persisted[0], data.predictors[0]).trend == pytest.approx(wanted, abs=0.2)


def departures(values, at):
    """From straight lines, each without the year and two on either side."""
    rows = []
    for i, year in enumerate(at):
        keep = np.abs(at - year) > 2
        rows.append(values[i] - LinearRegression().fit(at[keep, None], values[keep]).predict([[year]])[0])
    return np.array(rows)


def test_ridge_is_that_of_scikit_learn_on_its_principal_components(monkeypatch, period):
    data = years(24, signal=1.0)
    period(np.inf)
    monkeypatch.setattr(outlook, "PENALTIES", np.array([0.5]))
    now = data.predictors[3]
    made = predict(data, 2010, data.persisted[3], now)
    x, y = departures(data.predictors, data.years), departures(data.target, data.years)
    usual = LinearRegression().fit(data.years[:, None], data.predictors).predict([[2010]])[0]
    scale = x.std(axis=0)
    parts = TruncatedSVD(5, algorithm="arpack", random_state=0).fit(x / scale)
    scores = parts.transform(x / scale)
    fit = Ridge(alpha=0.5 * (parts.singular_values_**2).mean(), fit_intercept=False).fit(scores, y)
    wanted = fit.predict(parts.transform(((now - usual) / scale)[None]))[0]
    hat = scores @ np.linalg.solve(scores.T @ scores + fit.alpha * np.eye(5), scores.T)
    errors = (y - fit.predict(scores)) / (1 - np.diag(hat))[:, None]
    np.testing.assert_allclose(made.members["ridge"], wanted + errors, atol=1e-9)


def test_persistence_is_damped_by_the_regression_and_never_reversed(period):
    period(np.inf)
    data = years(30, persistence=0.8, cells=3)
    turned = dataclasses.replace(data, target=np.column_stack([data.target[:, :2], -data.target[:, 2]]))
    made = predict(turned, 2012, np.ones(3), data.predictors[0])
    x, y = departures(data.persisted, data.years), departures(turned.target, data.years)
    usual = LinearRegression().fit(data.years[:, None], data.persisted).predict([[2012]])[0]
    slope = (x * y).sum(axis=0) / (x * x).sum(axis=0)
    assert slope[2] < 0 < slope[0]
    centre = made.members["persistence"] - made.members["climatology"]
    np.testing.assert_allclose(centre[:, 2], 0, atol=1e-12)
    wanted = slope[0] * (1 - usual[0]) + (y - slope * x)[:, 0] / (1 - (x**2 / (x**2).sum(axis=0))[:, 0])
    np.testing.assert_allclose(made.members["persistence"][:, 0], wanted)


def test_fields_that_never_change_are_left_out():
    data = years(25, signal=1.0)
    padded = np.column_stack([data.predictors, np.full((25, 4), 273.15)])
    wider = dataclasses.replace(data, predictors=padded, weights=np.ones(64))
    one, two = (predict(d, 2010, d.persisted[0], d.predictors[0]).members["ridge"] for d in (data, wider))
    np.testing.assert_allclose(one, two, atol=1e-9)


@given(st.integers(0, 1000))
def test_chances_are_whole_and_never_nothing(seed):
    rng = np.random.default_rng(seed)
    made = outlook.Outlook(np.zeros(3), np.array([[-0.4] * 3, [0.4] * 3]), {"ridge": rng.normal(size=(9, 3)) * 3})
    chances = made.chances("ridge")
    np.testing.assert_allclose(chances.sum(axis=0), 1)
    assert (chances > 0).all()
    below = sum(made.members["ridge"][:, 0] <= -0.4)
    assert chances[0, 0] == pytest.approx((below + 1 / 3) / 10)


def test_ranked_probability_worked_by_hand():
    chances = np.array([[0.5, 0.2], [0.3, 0.3], [0.2, 0.5]])
    bounds = np.array([[0.0, 0.0], [1.0, 1.0]])
    # above: (0.5 - 0)^2 + (0.8 - 0)^2; below: (0.2 - 1)^2 + (0.5 - 1)^2
    np.testing.assert_allclose(ranked_probability(chances, np.array([2.0, -1.0]), bounds), [0.89, 0.89])
    sure = np.array([[0.0], [1.0], [0.0]])
    assert ranked_probability(sure, np.array([0.5]), bounds[:, :1]) == 0


def test_the_crps_of_an_ensemble_is_that_of_scores():
    from scores import probability

    rng = np.random.default_rng(2)
    members, observed = rng.normal(size=(13, 7)), rng.normal(size=7)
    wanted = probability.crps_for_ensemble(
        xr.DataArray(members, dims=("member", "cell")),
        xr.DataArray(observed, dims="cell"),
        ensemble_member_dim="member",
        method="ecdf",
        preserve_dims="all",
    )
    np.testing.assert_allclose(ensemble_crps(members, observed), wanted.values)
