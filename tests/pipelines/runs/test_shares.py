"""How much each member counts: what is least on average over groups, not over pixels."""

import numpy as np
import pytest

from models.bundle import load_network
from models.networks.assembly import predict_by
from models.spec import Target
from pipelines.recipes.recipe import Data
from pipelines.runs.shares import SHARES, best_share, losses_of, shares_of
from pipelines.samples.sets import inputs_of
from pipelines.tasks.task import prepare
from tests.runs import tiny_recipe


def row(best):
    return (SHARES - best) ** 2


def test_groups_count_alike_however_many_samples_they_have():
    many, few = {"a": [row(0.0)] * 50}, {"b": [row(1.0)]}
    assert best_share([many, few]) == 0.5
    assert best_share([many]) == 0.0 and best_share([{}]) is None


def test_a_fold_does_not_hear_of_its_own_groups():
    whole, each = shares_of({0: {"a": [row(0.0)]}, 1: {"b": [row(0.4)]}, 2: {"c": [row(0.8)]}})
    assert (whole, each) == (0.4, {0: 0.6, 1: 0.4, 2: 0.2})


def test_the_loss_of_values_is_that_of_the_mean_by_weights(value_run):
    """Against the run's own network with its members weighed so."""
    network = load_network(value_run).eval()
    data = Data(value_run.parent / "value_chips", images="*_hls.tif", labels="*_agb.tif", label_nodata=[-1])
    samples = prepare(
        tiny_recipe(data.root, task="regression", data=data, classes=[], target=Target("biomass", "Mg/ha"))
    )
    chosen = samples.samples[:2]
    found = losses_of(network, samples, chosen, folds=1)

    for share in (0.0, 0.3, 1.0):
        network.share = share
        for sample, told in zip(chosen, predict_by(network)(inputs_of(samples, chosen)), strict=True):
            off = (told[0] - samples.truth(sample))[np.isfinite(samples.truth(sample))]
            losses = found[samples.group(sample)][0]
            assert losses[round(share * 10)] == pytest.approx((off**2).mean(), rel=1e-3)
