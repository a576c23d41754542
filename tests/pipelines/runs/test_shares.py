"""How much each member counts: what is least on average over groups, not over pixels."""

import numpy as np
import pytest

from models.bundle import load_network
from models.networks.assembly import predict_by
from models.spec import Target
from pipelines.recipes.recipe import Data
from pipelines.runs.shares import SHARES, best_share, losses_of, members, shares_of
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


def test_a_gate_opens_only_as_far_as_groups_tell_it_from_chance():
    """By hand: three groups gain 0.3, 0.2 and 0.1 of what a gate lets in, or one gains what two others lose."""
    gain = [{name: [1 - share * SHARES] for name, share in zip("abc", (0.3, 0.2, 0.1), strict=True)}]
    # At share s they are worse than at 1 by 0.2 (1 - s) on average, by 0.1 (1 - s) / sqrt(3) one standard error.
    assert best_share(gain, sparing=True) == 1.0 and best_share(gain) == 1.0
    chance = [{name: [1 - share * SHARES] for name, share in zip("abc", (0.9, -0.3, -0.3), strict=True)}]
    assert best_share(chance) == 1.0 and best_share(chance, sparing=True) == 0.0
    assert best_share([{"a": [row(0.8)]}], sparing=True) == 0.0  # a group alone tells nothing


def test_the_loss_of_values_is_that_of_the_mean_by_weights(value_run):
    """Against the run's own network with its members weighed so."""
    network = load_network(value_run).eval()
    data = Data(value_run.parent / "value_chips", images="*_hls.tif", labels="*_agb.tif", label_nodata=[-1])
    samples = prepare(
        tiny_recipe(data.root, task="regression", data=data, classes=[], target=Target("biomass", "Mg/ha"))
    )
    chosen = samples.samples[:2]
    found = losses_of(network, samples, chosen, members, most=200)

    for share in (0.0, 0.3, 1.0):
        network.share = share
        for sample, told in zip(chosen, predict_by(network)(inputs_of(samples, chosen)), strict=True):
            off = (told[0] - samples.truth(sample))[np.isfinite(samples.truth(sample))]
            losses = found[samples.group(sample)][0]
            assert losses[round(share * 10)] == pytest.approx((off**2).mean(), rel=1e-3)
