"""What a training makes small: imagery by its labels, weather by an ensemble."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score, root_mean_squared_error

from models.networks.rain import RainNetwork
from models.training.module import FineTuning, rate
from models.training.objectives import Ensemble, Labelled
from models.training.settings import Training, WeatherArchitecture
from tests.specs import rain_spec

RAIN = rain_spec(("TQV", "T2M"), ("kg m-2", "K"), (20.0, 280.0), (8.0, 9.0), scale=0.5, levels=(0.1, 0.5, 0.9))
SMALL = WeatherArchitecture({"embed_dim": 16, "heads": 2, "mask_unit": (8, 8)}, channels=4, detail=8, members=2)


def rain_network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return RainNetwork(RAIN, "prithvi_wxc_tiny", SMALL).eval()


def known_answers(network, answers, y):
    """A network that gives some answers, and a batch of what is true."""
    network.forward = lambda batch: answers
    return {"y": y}


def test_each_member_learns_by_its_own_loss_at_the_rate_it_would_have_alone():
    network, generator = rain_network(), torch.Generator().manual_seed(0)
    answers = torch.rand((2, 3, 3, 4, 5), generator=generator).cumsum(dim=2)
    y = torch.rand((3, 4, 5), generator=generator)
    y[0, 0] = np.nan
    objective = Ensemble(network, Training())
    batch = known_answers(network, answers, y)
    alone = [network.loss(answer, y, {"pinball": 1.0}) for answer in answers]
    torch.testing.assert_close(objective.loss(batch), torch.stack(alone).mean())
    module = FineTuning(network, objective, Training(), mode="full", seed=0)
    module.log = lambda *_, **__: None
    torch.testing.assert_close(module.training_step(batch, 0), torch.stack(alone).sum())


def test_an_ensemble_is_validated_by_its_mean():
    network, generator = rain_network(), torch.Generator().manual_seed(1)
    answers = torch.rand((2, 3, 3, 4, 5), generator=generator).cumsum(dim=2)
    y = torch.rand((3, 4, 5), generator=generator)
    y[1, 2] = np.nan
    objective = Ensemble(network, Training(loss={"pinball": 0.5, "mse": 2.0}))
    loss = objective.validate(known_answers(network, answers, y))
    mean, known = answers.mean(dim=0), y.isfinite()
    torch.testing.assert_close(loss, network.loss(mean, y, {"pinball": 0.5, "mse": 2.0}))
    wanted = root_mean_squared_error(y[known].numpy(), network.expected(mean)[known].numpy())
    assert objective.scores.compute()["rmse"].item() == pytest.approx(wanted, rel=1e-5)
    assert objective.monitor == ("val_loss", "min")


def test_a_prithvi_wxc_learns_at_one_rate():
    network, training = rain_network(), Training(lr=1e-2, backbone_lr=0.5, layer_decay=0.1)
    rates = {name: rate(name, network, training) for name, _ in network.named_parameters()}
    assert {value for name, value in rates.items() if name.startswith("backbone.")} == {0.5 * 1e-2}
    assert {value for name, value in rates.items() if not name.startswith("backbone.")} == {1e-2}


def test_labels_are_validated_over_labelled_pixels(make_network):
    network, generator = make_network(), torch.Generator().manual_seed(2)
    objective = Labelled(network, Training())
    output = torch.randn((2, 2, 3, 8, 8), generator=generator)
    y = torch.randint(-1, 3, (2, 8, 8), generator=generator)
    network.members = lambda batch, *, features: output
    objective.validate({"y": y})
    known, scores = y >= 0, objective.scores.compute()
    said = output.softmax(2).mean(0).argmax(1)[known]
    assert scores["accuracy"].item() == pytest.approx((said == y[known]).float().mean().item())
    assert scores["mean_iou"].item() == pytest.approx(jaccard_score(y[known], said, average="macro"), rel=1e-5)


def test_values_are_validated_in_their_unit(make_network):
    network = make_network("regression")
    network.target_mean.fill_(40.0)
    network.target_std.fill_(8.0)
    objective = Labelled(network, Training(loss={"mae": 1.0}))
    output = torch.tensor([[[[[0.0, 1.0, 5.0]]]]])  # 40, 48 and 80
    network.members = lambda batch, *, features: output
    loss = objective.validate({"y": torch.tensor([[[44.0, 48.0, np.nan]]])})
    assert loss.item() == pytest.approx(0.25)  # in deviations
    assert objective.scores.compute()["rmse"].item() == pytest.approx(np.sqrt(8.0))
