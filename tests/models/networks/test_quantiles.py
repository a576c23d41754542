"""Quantiles of rain: never crossing, with the mean and exceedance of the distribution that they describe."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.metrics import mean_pinball_loss

from models.errors import InputError
from models.networks.quantiles import (
    Shape,
    exceedance,
    expectation,
    forecast_of,
    latent,
    mean_weights,
    pinball_loss,
    wet,
)
from models.spec import LEVELS, Quantiles, Values

levels = st.lists(st.floats(0.02, 0.98), min_size=2, max_size=8, unique_by=lambda p: round(p, 2)).map(sorted)


def quantile_function(q, levels):
    """As the module's docstring says it: linear from (0, 0) through the quantiles, then exponential."""
    tail = 1 - levels[-1]
    scale = (q[-1] - q[-2]) / np.log((1 - levels[-2]) / tail)

    def at(p):
        return q[-1] + scale * np.log(tail / (1 - p)) if p > levels[-1] else np.interp(p, [0, *levels], [0, *q])

    return at


@given(levels=levels, seed=st.integers(0, 99))
def test_the_mean_is_the_integral_of_the_quantile_function(levels, seed):
    q = np.cumsum(np.random.default_rng(seed).random(len(levels)))
    wanted = quad(quantile_function(q, levels), 0, 1, points=levels, limit=200)[0]
    came = expectation(torch.tensor(q)[None, :, None, None], levels)
    assert came.shape == (1, 1, 1)
    assert float(came) == pytest.approx(wanted, rel=1e-3)


@given(levels=levels, seed=st.integers(0, 99), p=st.floats(0.01, 0.995))
def test_exceedance_inverts_the_quantile_function(levels, seed, p):
    q = np.cumsum(np.random.default_rng(seed).random(len(levels)) + 0.01)
    threshold = float(quantile_function(q, levels)(p))
    came = exceedance(torch.tensor(q)[None, :, None, None], levels, threshold)
    assert float(came) == pytest.approx(1 - p, abs=1e-5)


def test_a_dry_distribution_has_no_mean_and_exceeds_nothing():
    q = torch.zeros(1, len(LEVELS), 2, 2)
    assert expectation(q, LEVELS).abs().max() == 0
    assert exceedance(q, LEVELS, 0.1).abs().max() < 1e-6


@given(seed=st.integers(0, 99), size=st.sampled_from([1e-3, 1.0, 100.0]))
def test_quantiles_never_cross_whatever_a_cell_is_told_by(seed, size):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        shape = Shape()
        torch.nn.init.normal_(shape.steps, std=3)
        y = shape(size * torch.randn(2, 3, 5, 6))
    assert y.shape == (2, len(LEVELS), 5, 6) and (y.diff(dim=1) >= 0).all()
    y = y.clamp(min=0)
    above = [exceedance(y, LEVELS, t) for t in (0.0, 0.1, 1.0, 50.0, 1e4)]
    assert all(((a >= 0) & (a <= 1)).all() for a in above)
    assert all((a >= b - 1e-6).all() for a, b in pairwise(above))


def test_a_shape_starts_as_a_normal_distribution_of_latent_rain():
    parts = torch.tensor([3.0, 0.0, 1.0])[None, :, None, None]
    y = Shape()(parts)[0, :, 0, 0].detach().numpy()
    width = np.log1p(np.exp([0.0, 1.0]))
    g = norm.ppf(LEVELS)
    z = 3 + np.where(g < 0, width[0], width[1]) * g
    np.testing.assert_allclose(y, np.where(z > 0, z + z**2, z), rtol=1e-4)


def test_every_level_is_learned_where_rain_is_rare():
    """Nine cells of ten are dry: the quantiles end where those of the data are, and no step between them is dead."""
    rain = np.random.default_rng(0).gamma(0.8, 2, 4000) * (np.random.default_rng(1).random(4000) < 0.4)
    y, shape = torch.tensor(rain, dtype=torch.float32)[:, None, None], Shape()
    parts = torch.nn.Parameter(torch.zeros(1, 3, 1, 1))
    optimiser = torch.optim.Adam([parts, *shape.parameters()], 0.05)
    for _ in range(400):
        optimiser.zero_grad()
        loss = pinball_loss(torch.nn.functional.leaky_relu(shape(parts), 0.1).expand(len(y), -1, -1, -1), y, LEVELS)
        loss.backward()
        optimiser.step()
    got = shape(parts).clamp(min=0)[0, :, 0, 0].detach().numpy()
    wanted = np.quantile(rain, LEVELS)
    np.testing.assert_allclose(got, wanted, atol=0.15, rtol=0.1)
    assert (np.diff(got)[wanted[1:] > 0.2] > 0.02).all()
    assert float(exceedance(torch.tensor(got)[None, :, None, None], LEVELS, 0.5)) == pytest.approx(
        (rain > 0.5).mean(), abs=0.03
    )


@given(z=st.floats(0, 100))
def test_latent_rain_is_rain_again(z):
    assert float(latent(wet(torch.tensor(z, dtype=torch.float64)))) == pytest.approx(z, abs=1e-9)
    assert float(wet(torch.tensor(-z))) == pytest.approx(-z)


def test_the_loss_is_scikit_learns_over_the_known_cells():
    rng = np.random.default_rng(0)
    q, y = np.sort(rng.gamma(1, 1, (2, 3, 4, 5)), axis=1), rng.gamma(1, 1, (2, 4, 5))
    y[0, 0] = np.nan
    known = np.isfinite(y)
    p = (0.1, 0.5, 0.9)
    wanted = np.mean([mean_pinball_loss(y[known], q[:, i][known], alpha=a) for i, a in enumerate(p)])
    assert float(pinball_loss(torch.tensor(q), torch.tensor(y), p)) == pytest.approx(wanted)


def test_a_quantile_of_much_data_has_the_least_loss():
    rain = np.random.default_rng(1).gamma(0.3, 2, 20_000)
    y = torch.tensor(rain)[:, None, None]
    losses = {c: float(pinball_loss(torch.full((len(rain), 1, 1, 1), c), y, (0.9,))) for c in np.linspace(0.5, 4, 71)}
    assert min(losses, key=losses.get) == pytest.approx(np.quantile(rain, 0.9), abs=0.06)


@pytest.mark.parametrize("wrong", [(0.5,), (0.5, 0.5), (0.0, 0.5), (0.5, 1.0), (0.6, 0.4)])
def test_levels_that_are_none_are_refused(wrong):
    with pytest.raises(InputError, match="rise inside 0..1"):
        mean_weights(wrong)


def test_a_forecast_holds_the_mean_the_quantiles_and_the_exceedances_of_an_answer():
    told = Quantiles("rain", "mm/h", levels=(0.1, 0.5, 0.9), thresholds=(0.1, 1.0))
    answer = np.random.default_rng(2).gamma(1, 1, (2, 3, 4, 5)).cumsum(axis=1).astype(np.float32)
    made = forecast_of(told, answer)
    assert (made.mean.shape, made.exceedance.shape) == ((2, 4, 5), (2, 2, 4, 5))
    np.testing.assert_array_equal(made.quantiles, answer)
    np.testing.assert_allclose(made.mean, np.tensordot(mean_weights(told.levels), answer, (0, 1)), rtol=1e-5)
    q = quantile_function(answer[1, :, 2, 3], told.levels)
    above = [np.mean([q(p) > t for p in np.linspace(0, 1, 4001)[:-1]]) for t in told.thresholds]
    np.testing.assert_allclose(made.exceedance[1, :, 2, 3], above, atol=1e-3)


def test_a_forecast_of_values_is_these_alone():
    answer = np.random.default_rng(3).normal(size=(2, 4, 5)).astype(np.float32)
    made = forecast_of(Values("T2M", "K", "cell"), answer)
    np.testing.assert_array_equal(made.mean, answer)
    assert (made.quantiles.shape, made.exceedance.shape) == ((2, 0, 4, 5), (2, 0, 4, 5))
