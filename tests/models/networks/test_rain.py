"""The rain network and its bundle: same weights, same rain; what a sample's variations leave alone."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.linear_model import Ridge

from models.backbones.wxc_inputs import make_batch
from models.bundle import Bundle, load_network, read_bundle, write_bundle, write_weights
from models.errors import InputError
from models.networks.assembly import load_backbone
from models.networks.quantiles import expectation
from models.networks.rain import RainNetwork
from models.networks.weather import encoder_config
from models.training.settings import Augmentation, WeatherArchitecture
from models.training.variation import EASTWARD, NORTHWARD, signs, varied
from tests.specs import rain_spec

NAMES = ("TQV", "U10M", "V10M")
SPEC = rain_spec(NAMES, ("kg m-2", "m s-1", "m s-1"), (20.0, 1.0, -2.0), (8.0, 4.0, 5.0), scale=0.5)
SMALL = WeatherArchitecture({"embed_dim": 16, "heads": 2, "mask_unit": (8, 8)}, channels=4, detail=8, members=2)
HELD = {"weather": NAMES, "y": ("PRECTOT",)}
TINY = "prithvi_wxc_tiny"


def network(spec=SPEC, *, seed=0, **options):
    """A network that has something to say: what it tells starts small."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = RainNetwork(spec, TINY, SMALL, **options).eval()
        for member in made.members:
            torch.nn.init.normal_(member.head.weight, std=0.3)
        return made


def batch(height=11, width=13, *, seed=0, lead=0.0, times=1):
    rng = np.random.default_rng(seed)
    stamps = [np.datetime64("2020-03-30T00") + np.timedelta64(i, "h") for i in range(times)]
    shape = (times, height, width)
    fields = {n: rng.normal(m, s, shape) for n, m, s in zip(NAMES, SPEC.weather.mean, SPEC.weather.std, strict=True)}
    lat, lon = 45 - 0.5 * np.arange(height), -100 + 0.625 * np.arange(width)
    made = make_batch(NAMES, fields, lat=lat, lon=lon, times=stamps, lead=lead, static={}, static_names=())
    return {"weather": made.pop("x"), **made}


def test_rain_has_the_regions_shape_whatever_mask_units_are():
    net = network()
    for height, width in ((11, 13), (16, 16), (2, 3), (1, 1)):
        y = net(batch(height, width))
        assert y.shape == (2, 1, len(SPEC.field.levels), height, width)
        assert (y.diff(dim=2) >= 0).all() and (net.predict(batch(height, width)) >= 0).all()


def test_members_differ_and_the_prediction_is_their_mean():
    net, b = network(), batch()
    members = net(b)
    assert (members[0] - members[1]).abs().max() > 1e-4
    torch.testing.assert_close(net.predict(b), members.clamp(min=0).mean(0))
    torch.testing.assert_close(net.predict(b), net.predict(b), rtol=0, atol=0)


def test_a_network_with_nothing_to_add_says_the_ridge_regression_of_latent_rain():
    """Oracle: scikit-learn's Ridge on rows of cells, with the same penalty."""
    rng = np.random.default_rng(5)
    items = [{"weather": batch(seed=i)["weather"][0].numpy()} for i in range(6)]
    mean, std = np.array(SPEC.weather.mean)[:, None, None], np.array(SPEC.weather.std)[:, None, None]
    for item in items:
        z = 1 + (0.8 * (item["weather"][0] - mean) / std)[0] + 0.1 * rng.normal(size=(11, 13))
        item["y"] = (SPEC.field.scale * (z + z**2) * (z > 0)).astype(np.float32)
        item["y"][0, 0] = np.nan
    with torch.random.fork_rng():
        net = RainNetwork(SPEC, TINY, SMALL).eval()
    for member in net.members:
        torch.nn.init.zeros_(member.head.weight)
    net.begin(iter(items))
    x = np.concatenate([((i["weather"][0] - mean) / std).reshape(3, -1).T for i in items])
    rain = np.concatenate([i["y"].ravel() for i in items]) / SPEC.field.scale
    known = np.isfinite(rain)
    ridge = Ridge(alpha=1e-3 * known.sum()).fit(x[known], (np.sqrt(1 + 4 * rain[known]) - 1) / 2)
    z = ridge.predict(((items[0]["weather"][0] - mean) / std).reshape(3, -1).T)
    middle = SPEC.field.levels.index(0.5)
    told = net({**batch(seed=0), "weather": torch.tensor(items[0]["weather"])[None]})[0, 0, middle].flatten()
    wanted = SPEC.field.scale * np.where(z > 0, z + z**2, z)
    np.testing.assert_allclose(told.detach().numpy(), wanted, rtol=1e-3, atol=1e-4)


def test_a_cell_that_is_thought_dry_is_told_of_its_rain():
    net = network()
    answer = torch.full((1, len(SPEC.field.levels), 11, 13), -1.0, requires_grad=True)
    net.loss(answer, torch.ones(1, 11, 13), {"pinball": 1.0}).backward()
    assert (answer.grad < 0).all()
    assert (net.expected(answer) == 0).all()


def test_a_field_far_outside_of_the_training_says_no_more_than_the_limit():
    net, far, limit = network(), batch(), batch()
    far["weather"][:, :, 0], limit["weather"][:, :, 0] = 20 + 8 * 1e4, 20 + 8 * 6.0
    torch.testing.assert_close(net(far), net(limit))


def test_position_and_hour_tell_nothing_where_they_are_not_to():
    here, there = batch(), batch()
    there["static"][:, 1] += 1.0
    there["static"][:, 2:6] = 0.3
    blind, sighted = network(SPEC.revised(position=False)), network()
    torch.testing.assert_close(blind(here), blind(there), rtol=1e-4, atol=1e-5)
    assert (sighted(here) - sighted(there)).abs().max() > 1e-5


def test_the_lead_time_matters():
    net = network()
    assert (net(batch(lead=0.0)) - net(batch(lead=24.0))).abs().max() > 1e-5


def test_a_bundle_gives_the_same_rain_back(tmp_path):
    net, b = network(), batch()
    bundle = Bundle(SPEC, TINY, SMALL, data={"root": "."}, training={"seed": 1}, scores={"rmse": 0.5})
    write_weights(tmp_path, net, whole=True)
    write_bundle(tmp_path, bundle)
    read = read_bundle(tmp_path)
    assert (read.spec, read.scores) == (SPEC, {"rmse": 0.5})
    assert read.architecture == dataclasses.replace(SMALL, overrides={**SMALL.overrides, "mask_unit": [8, 8]})
    torch.testing.assert_close(load_network(tmp_path).predict(b), net.predict(b), rtol=0, atol=0)


def with_trees(share):
    """A network whose trees say 0.3, or 2 scales where the first field lies above its mean."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = RainNetwork(SPEC, TINY, dataclasses.replace(SMALL, rounds=1, share=share)).eval()
    one = {"node_count": 3, "children_left": np.array([1, -1, -1]), "children_right": np.array([2, -1, -1])}
    tree = SimpleNamespace(**one, feature=np.array([0, 0, 0]), threshold=np.zeros(3))
    columns = range(net.trees.forest.features)
    net.trees.forest.plant([tree], [np.array([[0.0], [0.3], [2.0]])], [columns])
    return net


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_the_mean_comes_by_their_share_towards_the_trees(share):
    net, b = with_trees(share), batch()
    alone, told = with_trees(0.0).predict(b), net.predict(b)

    trees = SPEC.field.scale * torch.where(net.normalised(b["weather"])[:, 0, 0] > 0, 2.0, 0.3)
    mean = expectation(alone, SPEC.field.levels)
    torch.testing.assert_close(expectation(told, SPEC.field.levels), mean + share * (trees - mean))
    assert (told.diff(dim=1) > 0).all() and (told > 0).all()


def test_trees_are_heard_where_a_member_is_sure_that_it_is_dry_and_not_by_what_is_trained():
    net, b = with_trees(0.5), batch()
    for member in net.members:
        torch.nn.init.zeros_(member.head.weight)
        member.head.bias.data = torch.tensor([-50.0, 0.0, 0.0])
    told = net.predict(b)

    assert (expectation(told, SPEC.field.levels) > 0.4 * SPEC.field.scale * 0.3).all()
    assert (net(b) < 0).all()


def test_trees_go_through_a_bundle(tmp_path):
    net, b = with_trees(0.5), batch()
    write_weights(tmp_path, net, whole=True)
    write_bundle(tmp_path, Bundle(SPEC, TINY, dataclasses.replace(SMALL, rounds=1), training={"seed": 1}))

    assert torch.equal(load_network(tmp_path).predict(b), net.predict(b))


def test_a_frozen_encoder_comes_from_its_file_and_no_other(tmp_path):
    net, b = network(pretrained=True), batch()
    files = {}
    for seed in (3, 4):
        files[seed] = tmp_path / f"{seed}.safetensors"
        # The file's own channels are the pretrained ones; ours are new to it, apart from U10M and V10M.
        full = pretrained_state(seed)
        save_file(full, files[seed])
    base, report = load_backbone(net, TINY, str(files[3]))
    assert base.source == "file" and report is not None and "loaded" in report.bands["U10M"]
    run = tmp_path / "run"
    run.mkdir()
    bundle = Bundle(SPEC, TINY, SMALL, base, "frozen", whole=False)
    write_weights(run, net, whole=False)
    write_bundle(run, bundle)
    torch.testing.assert_close(load_network(run, weights=files[3]).predict(b), net.predict(b), rtol=0, atol=0)
    with pytest.raises(InputError, match="not the base of this bundle"):
        load_network(run, weights=files[4])
    with pytest.raises(InputError, match="--weights"):
        load_network(run)


def pretrained_state(seed):
    """Weights of a whole encoder over the 160 channels, in the tiny architecture of these tests."""
    from models.backbones.prithvi_wxc import WxCEncoder

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = WxCEncoder(encoder_config(TINY, SMALL), climatology=True)
    return {key: value.contiguous().clone() for key, value in encoder.net.state_dict().items()}


def test_what_cannot_be_built_is_refused():
    for change, said in (
        ({"overrides": {"depth": 3}}, "depth is no field"),
        ({"members": 0}, "model.members 0"),
        ({"dropout": 1.0}, "model.dropout 1"),
        ({"rounds": -1}, "model.rounds -1: wanted 0 to 1000"),
        ({"share": 1.5}, "model.share 1.5: wanted 0 to 1"),
    ):
        with pytest.raises(InputError, match=said):
            RainNetwork(SPEC, TINY, WeatherArchitecture(**change))
    with pytest.raises(InputError, match="wanted one of prithvi_wxc_tiny"):
        RainNetwork(SPEC, "prithvi_wxc_9", SMALL)
    with pytest.raises(InputError, match="no weights were published"):
        load_backbone(network(), TINY, "hub")


def test_wind_is_known_by_its_names():
    names = ("U10M", "V10M", "V_72", "U_34", "OMEGA_51", "T2M", "u10", "VLML", "TAUX", "TROPPV", "SLP", "UV")
    east = [n for n, s in zip(names, signs(names, EASTWARD).ravel(), strict=True) if s < 0]
    north = [n for n, s in zip(names, signs(names, NORTHWARD).ravel(), strict=True) if s < 0]
    assert east == ["U10M", "U_34", "u10", "TAUX"]
    assert north == ["V10M", "V_72", "VLML"]


def item(seed=0):
    b = batch(seed=seed)
    rain = np.random.default_rng(seed).random(b["weather"].shape[-2:]).astype(np.float32)
    return {key: value[0].numpy() for key, value in b.items()} | {"y": rain}


def divergence(x):
    """Of the wind over evenly spaced cells, rows from north to south: what turning and mirroring must leave alone."""
    u, v = x[0, 1], x[0, 2]
    return np.gradient(u, axis=1) - np.gradient(v, axis=0)


def test_turning_and_mirroring_keep_what_the_wind_does_to_the_rain():
    start, kept = item(), 0
    for seed in range(16):
        new = varied(start, HELD, SPEC.weather.std, Augmentation(turns=True), np.random.default_rng(seed))
        kept += np.array_equal(new["weather"], start["weather"])
        order = np.argsort(start["y"], axis=None), np.argsort(new["y"], axis=None)
        old, now = (divergence(i["weather"]).ravel()[o] for i, o in zip((start, new), order, strict=True))
        np.testing.assert_allclose(old, now, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(
            *(i["weather"][0, 0].ravel()[o] for i, o in zip((start, new), order, strict=True))
        )
        assert (np.diff(new["static"][0, :, 0]) < 0).all()  # rows still run from north to south
    assert 0 < kept < 16


def test_offsets_and_gains_touch_fields_only_and_are_a_function_of_the_draw():
    start, how = item(), Augmentation(offset=0.3, gain=0.1, shift=20)
    a, b, c = (varied(start, HELD, SPEC.weather.std, how, np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(a["weather"], b["weather"])
    assert not np.array_equal(a["weather"], c["weather"])
    np.testing.assert_array_equal(a["y"], start["y"])
    np.testing.assert_array_equal(a["static"][2:], start["static"][2:])
    moved = np.degrees(a["static"][:2] - start["static"][:2])
    assert np.ptp(moved, axis=(1, 2)).max() < 1e-4 and np.abs(moved).max() <= 20
    with pytest.raises(InputError, match="augment.gain -1"):
        Augmentation(gain=-1.0)


def test_one_day_of_rain_can_be_learned():
    """The network fits rain that is a function of moisture and convergence nearby."""
    b = batch(16, 16)
    z = (b["weather"][:, 0, 0] - 20) / 8
    rain = torch.nn.functional.avg_pool2d(z.clamp(min=0), 3, 1, 1)
    spec = SPEC.revised(answer={"scale": float(rain.std())})
    net = network(spec).train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(180):
            optimiser.zero_grad()
            loss = sum(net.loss(q, rain, {"pinball": 1.0}) for q in net(b))
            loss.backward()
            optimiser.step()
    mean = expectation(net.eval().predict(b), spec.field.levels)
    assert (mean - rain).pow(2).mean() < 0.3 * rain.var()
