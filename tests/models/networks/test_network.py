import pytest
import torch

from models.errors import InputError
from models.networks.decoders import DECODERS
from models.networks.network import Network
from models.runtime.export import example_inputs
from models.spec import IMAGERY
from models.training.settings import Architecture
from tests.runs import TINY

FOUR = {"overrides": {"embed_dim": 32, "depth": 4, "num_heads": 2}}


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("task", ["segmentation", "regression"])
@pytest.mark.parametrize("frames", [1, 3])
def test_dense_tasks_answer_each_pixel(make_network, task, decoder, frames):
    network = make_network(task, frames=frames, architecture=FOUR | {"decoder": decoder})
    x = example_inputs(network.spec, batch=2)[IMAGERY]
    wide = torch.cat((x, x.flip(-1)), dim=-1)  # (2, C, T, 32, 64)
    with torch.inference_mode():
        for given in (x, wide):
            y = network.predict({IMAGERY: given})
            assert y.shape == (2, network.spec.answer.channels, *given.shape[-2:])
            assert y.std() > 0
    if task == "segmentation":
        torch.testing.assert_close(y.sum(1), torch.ones(2, 32, 64))
        assert (y >= 0).all()


@pytest.mark.parametrize("frames", [1, 3])
def test_scene_classes_are_probabilities(make_network, frames):
    network = make_network("classification", frames=frames)
    x = example_inputs(network.spec, batch=4)[IMAGERY]
    with torch.inference_mode():
        y = network.predict({IMAGERY: x})
    assert y.shape == (4, 3)
    torch.testing.assert_close(y.sum(1), torch.ones(4))
    assert len(torch.unique(y, dim=0)) == 4


@pytest.mark.parametrize("task", ["segmentation", "regression", "classification"])
def test_every_band_and_frame_counts(make_network, task):
    network = make_network(task, frames=2)
    x = example_inputs(network.spec, batch=1)[IMAGERY]
    with torch.inference_mode():
        before = network.predict({IMAGERY: x})
        for band in range(3):
            for frame in range(2):
                other = x.clone()
                other[:, band, frame] += 300 * torch.randn(32, 32)
                assert not torch.allclose(network.predict({IMAGERY: other}), before, atol=1e-6), (band, frame)


def test_inputs_are_normalised_by_the_spec(make_network):
    """The same scene in another unit, with statistics in that unit, gives the same map."""
    plain = {"architecture": {"detail": 0, "statistics": 0}}
    raw = make_network(mean=(1000.0, 1500.0, 2500.0), std=(400.0, 500.0, 900.0), **plain)
    unit = make_network(mean=(0.1, 0.15, 0.25), std=(0.04, 0.05, 0.09), unit="reflectance", **plain)
    x = example_inputs(raw.spec, batch=2)[IMAGERY]
    with torch.inference_mode():
        y, wanted = unit.predict({IMAGERY: x / 10000}), raw.predict({IMAGERY: x})
        torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-5)
        seen = []
        raw.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        means = torch.tensor(raw.spec.imagery.mean).reshape(1, 3, 1, 1, 1)
        raw({IMAGERY: means.expand(1, 3, 1, 32, 32)})
    torch.testing.assert_close(seen[0], torch.zeros(1, 3, 1, 32, 32))


def test_values_come_back_in_the_targets_unit(make_network):
    network = make_network("regression")
    x = example_inputs(network.spec, batch=1)[IMAGERY]
    with torch.inference_mode():
        plain = network.predict({IMAGERY: x})
        network.target_mean.fill_(100.0)
        network.target_std.fill_(20.0)
        torch.testing.assert_close(network.predict({IMAGERY: x}), plain * 20 + 100)
        torch.testing.assert_close(network({IMAGERY: x}).mean(0), plain)


def test_members_answers_are_averaged_as_probabilities_not_as_logits(make_network):
    network = make_network()
    x = example_inputs(network.spec, batch=2)[IMAGERY]
    with torch.inference_mode():
        logits = network({IMAGERY: x})
        assert len(logits) == 2
        torch.testing.assert_close(network.predict({IMAGERY: x}), (logits[0].softmax(1) + logits[1].softmax(1)) / 2)


def test_the_share_of_the_statistics_weighs_their_answers(make_spec):
    torch.manual_seed(0)
    model = {"overrides": TINY, "decoder": "linear", "channels": 8, "detail": 8, "statistics": 16}
    network = Network(make_spec(), "prithvi_eo_v2_tiny_tl", Architecture(**model, share=0.8)).eval()
    x = example_inputs(network.spec, batch=2)[IMAGERY]
    with torch.inference_mode():
        tokens, statistics = network({IMAGERY: x}).softmax(2)
        torch.testing.assert_close(network.predict({IMAGERY: x}), 0.2 * tokens + 0.8 * statistics)
    with pytest.raises(InputError, match=r"model\.share 1\.5: wanted 0 to 1"):
        Architecture(share=1.5)


def test_known_features_save_the_backbone_and_change_nothing(make_network):
    network = make_network(uses_time=True, uses_location=True)
    inputs = example_inputs(network.spec, batch=2)
    with torch.inference_mode():
        features = network.features(inputs)
        wanted = network(inputs)
        network.backbone.forward = None  # not to be called
        assert torch.equal(network({IMAGERY: inputs[IMAGERY]}, features=features), wanted)


def test_statistics_do_not_travel_with_the_weights_but_the_targets_do(make_network):
    state = make_network("regression").state_dict()
    assert not {"mean", "std"} & set(state)
    assert {"target_mean", "target_std"} <= set(state)


def test_a_spec_with_another_patch_than_the_backbone_is_refused(make_network):
    with pytest.raises(InputError, match="patch"):
        make_network(patch=8)
