"""The correction learns what the imagery cannot tell, from the weather that tells it, and changes no member."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.networks.fusion import FusedNetwork
from models.spec import CONTEXT, IMAGERY, WEATHER, Classes, Series, Spec, valid_of
from models.training import correction
from models.training.losses import weighted_sum
from models.training.settings import Architecture
from tests.runs import TINY

SMALL = Architecture(overrides=TINY, blocks=(0, 1), decoder="linear", channels=8, detail=4, statistics=0, dropout=0.0)

ALONE = [str(i) for i in range(24)]  # each sample is a group


def samples(spec: Spec, count: int, rng: np.random.Generator) -> list[dict[str, np.ndarray]]:
    """Bright pixels are of the second class where it rained, of the first where not; dark ones of the third."""
    pixels, found = spec.imagery, []
    for _ in range(count):
        bright = rng.random((32, 32)) < 0.5
        rain = rng.normal(size=(8, 1)) + (wet := 2.0 * rng.integers(2)) - 1
        image = np.where(bright, 1.0, -1.0)[None, None] * np.reshape(pixels.std, (-1, 1, 1, 1)) * np.ones((3, 1, 1, 1))
        values = {IMAGERY: (image + np.reshape(pixels.mean, (-1, 1, 1, 1))).astype(np.float32)}
        values |= {WEATHER: rain.astype(np.float32), CONTEXT: rng.normal(size=(1, 1)).astype(np.float32)}
        values |= {valid_of(name): np.ones_like(values[name]) for name in (WEATHER, CONTEXT)}
        truth = np.where(bright, int(wet > 0), 2)
        found.append(values | {valid_of(IMAGERY): np.ones(1, np.float32), "y": truth})
    return found


@pytest.fixture
def network(make_spec):
    """A tiny network over imagery, one series of rain and a useless number."""
    rain = Series(("rain",), ("",), (0.0,), (1.0,), times=8, step=24)
    useless = Series(("noise",), ("",), (0.0,), (1.0,))
    plain = make_spec()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        spec = Spec("fused", {**plain.inputs, WEATHER: rain, CONTEXT: useless}, plain.answers)
        return FusedNetwork(spec, "prithvi_eo_v2_tiny_tl", SMALL).eval()


def predicted(network: FusedNetwork, chosen: list[dict[str, np.ndarray]], **changes: float) -> torch.Tensor:
    """Class probabilities (B, K, H, W); `changes` are what a mask is set to."""
    batch = {name: torch.from_numpy(np.stack([one[name] for one in chosen])) for name in chosen[0] if name != "y"}
    batch |= {valid_of(name): torch.full_like(batch[valid_of(name)], value) for name, value in changes.items()}
    with torch.no_grad():
        return network.predict(batch)


def test_it_learns_what_both_inputs_tell_together_and_changes_no_member(network, monkeypatch):
    monkeypatch.setattr(correction, "STEPS", 120)
    spec, rng = network.spec, np.random.default_rng(0)
    assert isinstance(spec.answer, Classes)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    learned, other = samples(spec, 24, rng), samples(spec, 12, rng)
    loss = weighted_sum(spec.answer, {})
    correction.fit_correction(network, learned, loss, None, groups=ALONE, seed=0)
    once = predicted(network, other)
    truth = torch.from_numpy(np.stack([one["y"] for one in other]))

    assert (once.argmax(1) == truth).float().mean() > 0.9  # the untrained imagery tells a third, and so does rain alone
    plain = predicted(network, other, weather=0.0, context=0.0)
    assert (plain.argmax(1) == truth).float().mean() < 0.6
    changed = {name for name, weight in network.state_dict().items() if not torch.equal(weight, before[name])}
    assert changed and all(name.startswith("correction.") for name in changed)
    assert not any(weight.requires_grad for weight in network.correction.parameters())


def test_values_are_learned_in_their_unit_and_gaps_of_the_truth_are_left_out(make_spec, monkeypatch):
    monkeypatch.setattr(correction, "STEPS", 120)
    rain = Series(("rain",), ("",), (0.0,), (1.0,), times=8, step=24)
    plain = make_spec("regression")
    spec = Spec("fused", {**plain.inputs, WEATHER: rain, CONTEXT: Series(("n",), ("",), (0.0,), (1.0,))}, plain.answers)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = FusedNetwork(spec, "prithvi_eo_v2_tiny_tl", SMALL).eval()
    network.target_mean.fill_(100.0)
    network.target_std.fill_(20.0)
    rng = np.random.default_rng(1)
    made = samples(spec, 36, rng)
    for one in made:
        one["y"] = (100 + 20 * one[WEATHER].mean() * np.ones((32, 32))).astype(np.float32)
        one["y"][:16] = np.nan
    correction.fit_correction(network, made[:24], weighted_sum(spec.answer, {}), None, groups=ALONE, seed=0)
    alone = predicted(network, made[24:], imagery=0.0)[:, 0, 0, 0]
    both = predicted(network, made[24:])[:, 0].mean((1, 2))
    truth = torch.tensor([float(np.nanmean(one["y"])) for one in made[24:]])

    for told in (alone, both):
        assert (told - truth).abs().mean() < 0.35 * (truth - truth.mean()).abs().mean()


def test_many_useless_variables_do_not_drown_the_one_that_tells(make_spec):
    """Of 16 variables one tells; without a way to leave the others out 24 samples are learned by heart."""
    names = tuple(f"v{i}" for i in range(16))
    rain = Series(names, ("",) * 16, (0.0,) * 16, (1.0,) * 16, times=8, step=24)
    plain = make_spec()
    spec = Spec("fused", {**plain.inputs, WEATHER: rain, CONTEXT: Series(("n",), ("",), (0.0,), (1.0,))}, plain.answers)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = FusedNetwork(spec, "prithvi_eo_v2_tiny_tl", SMALL).eval()
    rng = np.random.default_rng(2)
    made = samples(spec, 48, rng)
    for one in made:
        others = rng.normal(size=(8, 15)) * 0.3 + 2 * rng.normal(size=15)
        one[WEATHER] = np.concatenate((one[WEATHER], others), axis=1).astype(np.float32)
        one[valid_of(WEATHER)] = np.ones((8, 16), np.float32)
    said = correction.fit_correction(network, made[:24], weighted_sum(spec.answer, {}), None, groups=ALONE, seed=0)
    truth = torch.from_numpy(np.stack([one["y"] for one in made[24:]]))
    assert (predicted(network, made[24:]).argmax(1) == truth).float().mean() > 0.9
    weight = network.correction.encoders[WEATHER].embed.weight.norm(dim=0).reshape(-1, 2, 16)[:, 0]  # (N, 16) of means
    assert "few means" in said and weight[:, 0].mean() > 3 * weight[:, 1:].mean()
