import pytest
import torch

from models.errors import InputError
from models.networks.decoders import DECODERS
from models.runtime.export import example_inputs

FOUR = {"overrides": {"embed_dim": 32, "depth": 4, "num_heads": 2}}


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("task", ["segmentation", "regression"])
@pytest.mark.parametrize("frames", [1, 3])
def test_dense_tasks_answer_each_pixel(make_network, task, decoder, frames):
    network = make_network(task, frames=frames, architecture=FOUR | {"decoder": decoder})
    x, *_ = example_inputs(network.spec, batch=2)
    wide = torch.cat((x, x.flip(-1)), dim=-1)  # (2, C, T, 32, 64)
    with torch.inference_mode():
        for given in (x, wide):
            y = network.predict(given)
            assert y.shape == (2, network.spec.outputs, *given.shape[-2:])
            assert y.std() > 0
    if task == "segmentation":
        torch.testing.assert_close(y.sum(1), torch.ones(2, 32, 64))
        assert (y >= 0).all()


@pytest.mark.parametrize("frames", [1, 3])
def test_scene_classes_are_probabilities(make_network, frames):
    network = make_network("classification", frames=frames)
    x, *_ = example_inputs(network.spec, batch=4)
    with torch.inference_mode():
        y = network.predict(x)
    assert y.shape == (4, 3)
    torch.testing.assert_close(y.sum(1), torch.ones(4))
    assert len(torch.unique(y, dim=0)) == 4


@pytest.mark.parametrize("task", ["segmentation", "regression", "classification"])
def test_every_band_and_frame_counts(make_network, task):
    network = make_network(task, frames=2)
    x, *_ = example_inputs(network.spec, batch=1)
    with torch.inference_mode():
        before = network.predict(x)
        for band in range(3):
            for frame in range(2):
                other = x.clone()
                other[:, band, frame] += 300 * torch.randn(32, 32)
                assert not torch.allclose(network.predict(other), before, atol=1e-6), (band, frame)


def test_inputs_are_normalised_by_the_spec(make_network):
    """The same scene in another unit, with statistics in that unit, gives the same map."""
    plain = {"architecture": {"detail": 0}}
    raw = make_network(mean=(1000.0, 1500.0, 2500.0), std=(400.0, 500.0, 900.0), **plain)
    unit = make_network(mean=(0.1, 0.15, 0.25), std=(0.04, 0.05, 0.09), unit="reflectance", **plain)
    x, *_ = example_inputs(raw.spec, batch=2)
    with torch.inference_mode():
        torch.testing.assert_close(unit.predict(x / 10000), raw.predict(x), rtol=1e-4, atol=1e-5)
        seen = []
        raw.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        raw(torch.tensor(raw.spec.mean).reshape(1, 3, 1, 1, 1).expand(1, 3, 1, 32, 32))
    torch.testing.assert_close(seen[0], torch.zeros(1, 3, 1, 32, 32))


def test_values_come_back_in_the_targets_unit(make_network):
    network = make_network("regression")
    x, *_ = example_inputs(network.spec, batch=1)
    with torch.inference_mode():
        plain = network.predict(x)
        network.target_mean.fill_(100.0)
        network.target_std.fill_(20.0)
        torch.testing.assert_close(network.predict(x), plain * 20 + 100)
        torch.testing.assert_close(network(x), plain)


def test_known_features_save_the_backbone_and_change_nothing(make_network):
    network = make_network(uses_time=True, uses_location=True)
    x, time, location = example_inputs(network.spec, batch=2)
    with torch.inference_mode():
        features = network.features(x, time, location)
        wanted = network(x, time, location)
        network.backbone.forward = None  # not to be called
        assert torch.equal(network(x, features=features), wanted)


def test_statistics_do_not_travel_with_the_weights_but_the_targets_do(make_network):
    state = make_network("regression").state_dict()
    assert not {"mean", "std"} & set(state)
    assert {"target_mean", "target_std"} <= set(state)


def test_a_spec_with_another_patch_than_the_backbone_is_refused(make_network):
    with pytest.raises(InputError, match="patch"):
        make_network(patch=8)
