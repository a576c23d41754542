"""The member of statistics: what it learns, from which pixels, and that the rest leaves it alone."""

import numpy as np
import pytest
import torch

from models.training import statistics
from models.training.objectives import Labelled
from models.training.settings import Training
from tests import small

KEEPS = {"detail": 4, "statistics": 12}


@pytest.fixture(autouse=True)
def whole(monkeypatch):
    """As many passes as outside the tests."""
    for name, value in small.WHOLE[statistics].items():
        monkeypatch.setattr(statistics, name, value)


def textures(count=6, *, side=32, seed=0, values=False):
    """Samples whose left and right halves differ in their texture alone; the other way round in every other one."""
    rng, made = np.random.default_rng(seed), []
    for i in range(count):
        rough = np.zeros((side, side), np.int64)
        rough[:, side // 2 :] = 1
        rough = rough ^ (i % 2)
        x = 1500 + rng.normal(0, 1, (3, 1, side, side)) * np.where(rough, 500, 60)
        y = np.where(rng.random((side, side)) < 0.2, -1, rough)
        y = np.where(y < 0, np.nan, 10.0 + 5 * y) if values else y
        made.append(
            {
                "imagery": torch.tensor(x, dtype=torch.float32),
                "y": torch.tensor(y).to(torch.float32 if values else torch.int64),
            }
        )
    return made


def begun(network, items, **training):
    objective = Labelled(network, Training(**training))
    return objective.begin(items, seed=3)


def said(network, items):
    """What the member of statistics says alone: (N, K, H, W)."""
    with torch.inference_mode():
        x = torch.stack([item["imagery"] for item in items])
        return network.eval()({"imagery": x})[1]


def test_it_learns_what_neighbourhoods_tell_of_each_pixel(make_network):
    network = make_network(architecture=KEEPS)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    told = begun(network, textures())
    assert (
        told == f"statistics of neighbourhoods: learned from {sum(int((i['y'] >= 0).sum()) for i in textures())} pixels"
    )
    new = textures(2, seed=9)
    truth = torch.stack([item["y"] for item in new])
    right = (said(network, new).argmax(1) == truth)[truth >= 0].float().mean()
    assert right > 0.93
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[1] for name in changed} == {"statistics"}


def test_values_are_learned_in_their_deviations(make_network):
    network = make_network("regression", architecture=KEEPS)
    network.target_mean.fill_(12.5)
    network.target_std.fill_(2.5)
    begun(network, textures(values=True), loss={"mse": 1.0})
    new = textures(2, seed=9, values=True)
    truth = torch.stack([item["y"] for item in new])
    error = said(network, new)[:, 0] * 2.5 + 12.5 - truth
    assert error[truth.isfinite()].square().mean().sqrt() < 1.2  # 2.5 for the mean


def test_the_same_seed_gives_the_same_member(make_network):
    states = []
    for _ in range(2):
        network = make_network(architecture=KEEPS)
        begun(network, textures(3))
        states.append(network.head.statistics.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_pixels_are_drawn_evenly_and_no_more_than_memory_allows(make_network, monkeypatch):
    network = make_network(architecture=KEEPS)
    channels = network.head.features.channels
    monkeypatch.setattr(statistics, "NUMBERS", 40 * 3 * channels)
    items = textures(3)
    items[1]["y"][:] = -1  # nothing is labelled in one of them
    x, y, counts = statistics._drawn(network, items, np.random.default_rng(0))
    assert x.shape == (80, channels) and (y >= 0).all() and counts is None


def test_pixels_that_count_more_decide_between_labels_that_contradict(make_network):
    """Each texture is labelled by both of two classes; one of them counts nine times."""
    items = textures(2)
    wrong = [item | {"y": torch.where(item["y"] < 0, -1, (item["y"] + 1) % 3)} for item in items]
    for heavy, light in ((items, wrong), (wrong, items)):
        network = make_network(architecture=KEEPS)
        many = [{**item, "counts": torch.full(item["y"].shape, 9.0)} for item in heavy]
        begun(network, many + [{**item, "counts": torch.ones(item["y"].shape)} for item in light])
        truth = torch.stack([item["y"] for item in heavy])
        assert (said(network, heavy).argmax(1) == truth)[truth >= 0].float().mean() > 0.9


def test_a_training_of_the_rest_leaves_it_alone(make_network):
    network = make_network(architecture=KEEPS)
    items = textures(2)
    begun(network, items)
    kept = {name: value.clone() for name, value in network.head.statistics.state_dict().items()}
    network.train()
    objective = Labelled(network, Training())
    batch = {key: torch.stack([item[key] for item in items]) for key in ("imagery", "y")}
    objective.loss(batch).backward()
    assert all(p.grad is None and not p.requires_grad for p in network.head.statistics.parameters())
    assert all(torch.equal(value, kept[name]) for name, value in network.head.statistics.state_dict().items())


def test_a_network_without_the_member_begins_at_once(make_network):
    assert begun(make_network(architecture={"statistics": 0}), []) == ""


@pytest.mark.parametrize("classes", [(0, 1, 2), (0, 2), (1,)])
def test_scene_classes_have_a_logistic_regression_of_the_statistics(make_network, classes):
    """As scikit-learn solves it, on the same numbers; classes that no sample has are never told."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    network = make_network("classification")
    rng, side, bands = np.random.default_rng(0), network.spec.imagery.tile, len(network.spec.imagery.channels)
    y = np.resize(classes, 12)
    x = 1500 + 300 * y[:, None, None, None, None] + rng.normal(0, 400, (12, bands, 1, side, side))
    items = [{"imagery": torch.tensor(one, dtype=torch.float32), "y": np.array(k)} for one, k in zip(x, y, strict=True)]
    assert begun(network, items) == "statistics of whole tiles: learned from 12 samples"
    told = said(network, items).softmax(1)
    outside = [k for k in range(told.shape[1]) if k not in classes]
    assert (told[:, outside] < 1e-6).all()
    with torch.inference_mode():
        rows = network.head.statistics.plain(
            network.normalised({"imagery": torch.stack([i["imagery"] for i in items])})
        )
    if len(classes) > 1:
        oracle = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(rows.numpy(), y)
        np.testing.assert_allclose(told[:, list(classes)], oracle.predict_proba(rows.numpy()), atol=2e-3)
