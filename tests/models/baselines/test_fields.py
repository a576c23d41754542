import numpy as np
import pytest
from scipy.stats import gamma, norm

from models.baselines import fields
from tests import small

LEVELS, THRESHOLDS = (0.1, 0.5, 0.9), (0.1, 1.0)


@pytest.fixture(autouse=True)
def whole(monkeypatch):
    """Boosting of its own size."""
    for name, value in small.WHOLE[fields].items():
        monkeypatch.setattr(fields, name, value)


def weather(count, *, seed=0):
    """Two fields; it rains where the first is above what surrounds it, and nowhere for its own value."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (count, 1, 2, 24, 30)).astype(np.float32)
    x[:, 0, 0] += 20 * rng.normal(size=(count, 1, 1))  # the day's own level says nothing
    near = np.pad(x[:, 0, 0], ((0, 0), (3, 3), (3, 3)), mode="edge")
    mean = np.mean([near[:, i : i + 24, j : j + 30] for i in range(7) for j in range(7)], axis=0)
    return x, np.maximum(x[:, 0, 0] - mean, 0).astype(np.float32)


def test_departures_are_fields_less_their_surroundings_and_slopes():
    x, _ = weather(2)
    maps = fields.departures(x)
    values = x.reshape(2, 2, 24, 30).astype(np.float64)
    row, column = 12, 15
    wanted = [values[1, :, row, column]]
    for half in (1, 3, 7):
        box = values[1, :, row - half : row + half + 1, column - half : column + half + 1]
        wanted.append(values[1, :, row, column] - box.mean((1, 2)))
    wanted.append((values[1, :, row + 1, column] - values[1, :, row - 1, column]) / 2)
    wanted.append((values[1, :, row, column + 1] - values[1, :, row, column - 1]) / 2)
    np.testing.assert_allclose(maps[1, :, row, column], np.concatenate(wanted), rtol=1e-4, atol=1e-5)
    assert fields.departures(x[..., :1]).shape == (2, 10, 24, 1)  # one column has no slope across


def test_boosting_finds_rain_in_what_departs_from_its_surroundings():
    fitted = fields.fit_rain_baselines(zip(*weather(6), strict=True), levels=LEVELS, thresholds=THRESHOLDS)
    x, truth = weather(3, seed=5)
    persisted = np.zeros_like(truth)
    asked = ("ridge", "boosting")
    error = {n: float(np.sqrt(((f(x, persisted).mean - truth) ** 2).mean())) for n, f in fitted.items() if n in asked}
    assert error["boosting"] < 0.3 * error["ridge"]
    assert fitted["boosting"](x, persisted).mean.min() >= 0


def test_cells_without_rain_data_are_not_learned_from():
    """What lies there may be anything: only the fields beside it count, and not those far from any known cell."""
    x, y = weather(4)
    y[1:, :, :10] = np.nan
    wild = x.copy()
    wild[1:, :, :, :, :2] = 1e4  # nearer than eight cells to none that is known
    told = [
        fields.fit_rain_baselines(zip(given, y, strict=True), levels=LEVELS, thresholds=THRESHOLDS)["boosting"]
        for given in (x, wild)
    ]
    persisted = np.zeros_like(y)
    np.testing.assert_array_equal(told[0](x, persisted).mean, told[1](x, persisted).mean)
    assert np.isfinite(told[0](x, persisted).mean).all()


@pytest.mark.parametrize("most", [20_000, 1_000_000_000])
def test_as_many_rows_as_fit_are_drawn_from_all_samples(monkeypatch, most):
    from sklearn.ensemble import HistGradientBoostingRegressor as Model

    seen, real = [], Model.fit
    monkeypatch.setattr(Model, "fit", lambda self, rows, y: (seen.append(rows.shape), real(self, rows, y))[1])
    monkeypatch.setattr(fields, "NUMBERS", most)
    x, y = weather(4)
    fields.fit_rain_baselines(zip(x, y, strict=True), levels=LEVELS, thresholds=THRESHOLDS)
    assert seen == [(4 * 24 * 30, 12)] if most > 1e6 else seen[0][0] * 12 <= most


def test_ridge_on_the_root_tells_the_distribution_that_residuals_have():
    """Oracle: rain whose root is linear with normal noise; its mean is (z^2 + s^2) where it is far from dry."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(20, 1, 2, 12, 14)).astype(np.float32)
    root = 5 + 0.5 * x[:, 0, 0] + 0.8 * rng.normal(size=(20, 12, 14))
    y = (root**2).astype(np.float32)
    told = fields.fit_rain_baselines(zip(x, y, strict=True), levels=LEVELS, thresholds=(25.0, 100.0))[
        "ridge on the root"
    ]
    made, z = told(x[:2], y[:2]), 5 + 0.5 * x[:2, 0, 0]
    np.testing.assert_allclose(made.mean, z**2 + 0.64, rtol=0.03)
    np.testing.assert_allclose(made.quantiles[:, 2], (z + 0.8 * norm.ppf(0.9)) ** 2, rtol=0.03)
    np.testing.assert_allclose(made.exceedance[:, 0], norm.sf(5, z, 0.8), atol=0.05)
    assert made.exceedance[:, 1].max() == 0


def test_gamma_regression_finds_the_chance_and_the_amount_that_made_the_rain():
    """Against the distribution that the rain was drawn from."""
    rng = np.random.default_rng(2)

    def day(count):
        x = rng.normal(0, 1, (count, 1, 2, 24, 30)).astype(np.float32)
        return x, 1 / (1 + np.exp(-x[:, 0, 0])), np.exp(0.5 + 0.6 * x[:, 0, 1])

    x, chance, mean = day(12)
    y = np.where(rng.random(chance.shape) < chance, rng.gamma(2, mean / 2), 0).astype(np.float32)
    fitted = fields.fit_rain_baselines(zip(x, y, strict=True), levels=LEVELS, thresholds=THRESHOLDS)["gamma"]
    x, chance, mean = day(2)
    told = fitted(x, np.zeros(chance.shape, np.float32))
    assert np.abs(told.mean / (chance * mean) - 1).mean() < 0.1
    np.testing.assert_allclose(told.exceedance[:, 1], chance * gamma.sf(1, 2, scale=mean / 2), atol=0.04)
    wanted = gamma.ppf((0.9 - (1 - chance)).clip(0) / chance, 2, scale=mean / 2)
    assert np.abs(told.quantiles[:, 2] - wanted).mean() < 0.1 * wanted.mean()
    assert (told.quantiles[:, 0][chance < 0.85] == 0).all()


def test_gamma_regression_of_many_fields_alike_ends_and_promises_no_more_rain_than_fell():
    rng = np.random.default_rng(0)
    few = rng.normal(size=(3, 5, 12, 14))
    x = np.einsum("ntij,tc->ncij", few, rng.normal(size=(5, 160)))[:, None]
    x = (x + 1e-3 * rng.normal(size=x.shape)).astype(np.float32)
    y = np.exp(few[:, 0] * 2).clip(1) - 1
    told = fields.fit_rain_baselines(zip(x, y, strict=True), levels=LEVELS, thresholds=THRESHOLDS)["gamma"](100 * x, y)
    assert np.isfinite(told.quantiles).all() and np.isfinite(told.exceedance).all()
    assert told.mean.max() <= y.max() * (1 + 1e-6)


def test_gamma_regression_of_what_never_rains_is_the_climatology():
    x, y = weather(2)
    fitted = fields.fit_rain_baselines(zip(x, 0 * y, strict=True), levels=LEVELS, thresholds=THRESHOLDS)["gamma"]
    assert (fitted(x, y).mean == 0).all() and (fitted(x, y).quantiles == 0).all()
