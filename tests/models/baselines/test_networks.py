"""Small networks as baselines: what each can hear, and that neither asks for more than it is given."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.baselines import networks


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(networks, "LEAST", 150)
    monkeypatch.setattr(networks, "EPOCHS", 12)
    monkeypatch.setattr(networks, "MOST", 400)
    monkeypatch.setattr(networks, "RATE", 1e-2)
    monkeypatch.setattr(networks, "WIDTH", 16)


def weather(count, *, seed=0):
    x = np.random.default_rng(seed).normal(5, 2, (count, 1, 2, 6, 7)).astype(np.float32)
    return x, np.roll(x[:, 0, 0] - 5, 1, axis=2).clip(0)  # the rain of the cell to the west


def error(told, x, y):
    return float(np.sqrt(np.mean((told(x)[..., 1:] - y[..., 1:]) ** 2)) / y.std())


def test_convolutions_hear_the_neighbours_on_any_grid():
    told = networks.convolutions(*weather(64), seed=0)
    x, y = weather(16, seed=1)
    assert error(told, x, y) < 0.5
    assert told(x).min() >= 0 and told(x).dtype == np.float32
    assert told(np.concatenate([x, x], axis=3)).shape == (16, 12, 7)


def test_the_whole_field_is_heard_from_afar_and_on_its_own_grid_alone():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 1, 1, 4, 5)).astype(np.float32)
    y = np.repeat(np.repeat((2 * x[:, 0, 0, :1, :1]).clip(0), 4, axis=1), 5, axis=2)  # one corner rules them all
    told = networks.whole_field(x[:350], y[:350], seed=0)
    assert np.corrcoef(told(x[350:]).ravel(), y[350:].ravel())[0, 1] > 0.9
    assert np.isnan(told(np.zeros((2, 1, 1, 5, 5), np.float32))).all()


def test_cells_that_are_not_known_are_not_learned_from_and_draws_are_left_alone():
    x, y = weather(16)
    gone, zero = y.copy(), y.copy()
    gone[:, 2:4], zero[:, 2:4] = np.nan, 0.0
    before = torch.get_rng_state()
    first, second = (networks.convolutions(x, gone, seed=3)(x) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(first, second)
    assert np.isfinite(first).all() and np.abs(first - networks.convolutions(x, zero, seed=3)(x)).max() > 0.1
