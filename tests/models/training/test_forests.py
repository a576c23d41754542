"""Boosted trees in a rain network tell what scikit-learn's boosting tells, of cells whose rain is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import sklearn.ensemble
import torch
from sklearn.ensemble import HistGradientBoostingRegressor

from models.networks.rain import RainNetwork
from models.training import forests
from models.training.objectives import Ensemble
from models.training.settings import Training, WeatherArchitecture
from tests.specs import rain_spec

SPEC = rain_spec(("TQV", "U10M"), ("kg m-2", "m s-1"), (20.0, 1.0), (8.0, 4.0), scale=0.5)
SMALL = WeatherArchitecture({"embed_dim": 16, "heads": 2, "mask_unit": (8, 8)}, channels=4, detail=4, rounds=6)


class Varied:
    """Items as `samples.sets` gives them, another draw of them in each epoch."""

    def __len__(self):
        return 5

    def __getitem__(self, key):
        rng = np.random.default_rng(key)
        x = rng.normal(0, 1, (1, 2, 9, 10)).astype(np.float32)
        rain = np.where(x[0, 0] > 0.5, 2.0, 0.0).astype(np.float32)
        rain[0] = np.nan
        return {"weather": x * np.array([8, 4], np.float32)[:, None, None] + 20, "y": rain}


@pytest.fixture
def grown(monkeypatch):
    """A network after `Ensemble.begin`, what this said, and the boostings that scikit-learn made with their rows."""
    made = []

    class Kept(HistGradientBoostingRegressor):
        def fit(self, x, y):
            made.append((self, x, y))
            return super().fit(x, y)

    monkeypatch.setattr(sklearn.ensemble, "HistGradientBoostingRegressor", Kept)
    monkeypatch.setattr(forests, "LEAF", 5)
    with torch.random.fork_rng():
        network = RainNetwork(SPEC, "prithvi_wxc_tiny", SMALL).eval()
    network.begin = lambda items: None
    said = Ensemble(network, Training()).begin(Varied(), seed=3)
    return network, said, made


def test_trees_say_what_scikit_learn_says(grown):
    network, said, made = grown

    fields = torch.randn((2, 1, 2, 7, 8), generator=torch.Generator().manual_seed(0)) * 9 + 18
    rows = network.trees.rows(fields).numpy()
    wanted = np.mean([model.predict(rows) for model, _, _ in made], axis=0).clip(min=0).reshape(2, 7, 8)
    assert np.abs(network.trees(fields).numpy() - wanted).max() < 1e-5
    assert said == "boosting: 24 trees, learned from 400 cells"


def test_each_boosting_hears_of_known_cells_once_in_scales_and_of_others_as_they_vary(grown):
    _, _, made = grown

    assert [(x.shape, sorted(set(y.tolist()))) for _, x, y in made] == [((400, 16), [0.0, 4.0])] * 4
    assert len({model.random_state for model, _, _ in made}) == 4
    assert not np.array_equal(made[0][1], made[1][1])


def test_too_many_numbers_are_thinned_evenly(monkeypatch):
    monkeypatch.setattr(forests, "NUMBERS", 3200)  # half of what 400 cells of 16 numbers are
    with torch.random.fork_rng():
        network = RainNetwork(SPEC, "prithvi_wxc_tiny", dataclasses.replace(SMALL, rounds=1)).eval()
    said = forests.plant_boosting(network, Varied(), 1, seed=0)

    assert said == "boosting: 4 trees, learned from 200 cells"
