"""Series beside imagery: what the imagery says stays as it is, to the bit, where they are missing or not let in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.networks.fusion import FusedNetwork, pooled, spans
from models.networks.network import Network
from models.runtime.export import example_inputs
from models.spec import CONTEXT, IMAGERY, WEATHER, Series, Spec, valid_of
from models.training.settings import Architecture
from tests.runs import TINY

RAIN = Series(("rain", "t2m"), ("mm/h", "K"), (0.1, 285.0), (0.2, 8.0), times=12, step=24)
SMALL = Architecture(overrides=TINY, blocks=(0, 1), decoder="linear", channels=8, detail=4, statistics=8, dropout=0.0)
PLACE = Series(("sine", "x"), ("1", "1"), (0.0, 0.5), (0.7, 0.2))


@pytest.fixture
def fused(make_spec):
    """A function that builds a tiny network whose correction adds something."""

    def make(task: str = "segmentation") -> FusedNetwork:
        plain = make_spec(task)
        spec = Spec("fused", {**plain.inputs, WEATHER: RAIN, CONTEXT: PLACE}, plain.answers)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = FusedNetwork(spec, "prithvi_eo_v2_tiny_tl", SMALL).eval()
            torch.nn.init.normal_(network.correction.add.weight)
        return network

    return make


def without(inputs: dict[str, torch.Tensor], *names: str) -> dict[str, torch.Tensor]:
    """A batch in which some inputs are missing, and hold what must not be looked at."""
    return inputs | {valid_of(name): torch.zeros_like(inputs[valid_of(name)]) for name in names}


@pytest.mark.parametrize("task", ["segmentation", "regression", "classification"])
def test_without_series_the_answer_is_that_of_the_imagery_to_the_bit(task, fused):
    network = fused(task)
    inputs = example_inputs(network.spec, batch=3)
    imagery = Network.finish(network, Network.forward(network, inputs))
    plain = network.predict(without(inputs, WEATHER, CONTEXT))

    assert torch.equal(plain, imagery)
    both = network.predict(inputs)
    assert (both - imagery).abs().max() > 0.01  # and with them it is another
    network.gate = 0.0
    assert torch.equal(network.predict(inputs), imagery)
    network.gate = 0.5
    assert torch.allclose(network.predict(inputs), (imagery + both) / 2, atol=1e-6)


def test_samples_of_a_batch_do_not_hear_of_each_other(fused):
    """One without weather, one without imagery, one with both: each as when it is asked alone."""
    network = fused()
    inputs = example_inputs(network.spec, batch=3)
    inputs[valid_of(WEATHER)][0], inputs[valid_of(CONTEXT)][0], inputs[valid_of(IMAGERY)][1] = 0, 0, 0
    together = network.predict(inputs)
    for i in range(3):
        alone = network.predict({name: given[i : i + 1] for name, given in inputs.items()})
        assert torch.allclose(together[i : i + 1], alone, atol=1e-5)


def test_where_the_imagery_is_missing_the_series_answer_and_no_pixel_is_looked_at(fused):
    network = fused()
    inputs = example_inputs(network.spec, batch=2)
    answer = network.predict(without(inputs, IMAGERY))
    other = network.predict(without(inputs | {IMAGERY: inputs[IMAGERY].flip(0)}, IMAGERY))

    assert torch.equal(answer, other)
    assert torch.allclose(answer.sum(1), torch.ones_like(answer[:, 0]), atol=1e-5)
    assert torch.equal(answer, answer[:, :, :1, :1].expand_as(answer))  # the weather knows no pixels
    assert (answer[0] - answer[1]).abs().max() > 1e-4  # but days


def test_what_is_not_valid_is_not_looked_at(fused):
    network = fused()
    inputs = example_inputs(network.spec, batch=2)
    inputs[valid_of(WEATHER)][:, 3:7] = 0
    poisoned = inputs[WEATHER].clone()
    poisoned[:, 3:7] = float("nan")

    assert torch.equal(network.predict(inputs), network.predict(inputs | {WEATHER: poisoned}))


@pytest.mark.parametrize("task", ["segmentation", "regression", "classification"])
def test_all_but_the_correction_is_built_and_trained_as_a_network_over_imagery_alone(task, fused, make_spec):
    """The same weights from the same seed, and the same outputs while it is trained."""
    network = fused(task)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = Network(make_spec(task), "prithvi_eo_v2_tiny_tl", SMALL)
    inputs = example_inputs(network.spec, batch=2)
    ours = {name: weight for name, weight in network.state_dict().items() if not name.startswith("correction.")}

    assert ours.keys() == plain.state_dict().keys()
    assert all(torch.equal(weight, ours[name]) for name, weight in plain.state_dict().items())
    with torch.random.fork_rng():
        torch.manual_seed(1)
        came = network.train().members(inputs)
        torch.manual_seed(1)
        assert torch.equal(came, plain.train()(inputs))


def test_windows_of_a_series_by_hand():
    z = torch.arange(8.0).reshape(1, 8, 1)
    valid = torch.ones(1, 8, 1)
    valid[0, 7] = 0
    means, share = pooled(spans(8), z, valid)

    np.testing.assert_allclose(means[0, :4, 0], [0, 6, 5, 3])  # of the last 1, 2, 4 and 8 steps, without the last
    np.testing.assert_allclose(share[0, :4, 0], [0, 0.5, 0.75, 0.875])
    np.testing.assert_allclose(means[0, 4:, 0], [0, 1, 2, 3, 4, 5, 6, 0])  # eighths of the whole
    assert spans(1).tolist() == [[1.0]]
    assert spans(90).sum(1)[:8].tolist() == [1, 2, 4, 8, 16, 32, 64, 90] and spans(90)[8:].sum() == 90
