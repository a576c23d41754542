"""Rows of tables: without weather the answer is that of imagery and season to the bit, without imagery of the rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from models.networks.tables import TableNetwork
from models.runtime.export import example_inputs, export_onnx
from models.spec import CONTEXT, IMAGERY, WEATHER, ClassDef, Classes, Series, Spec, Values, valid_of
from models.training.forests import plant_forests
from models.training.settings import TableArchitecture

BANDS = Series(("RED", "NIR_NARROW"), ("", ""), (500.0, 3000.0), (200.0, 800.0), times=3, step=730)
RAIN = Series(("rain",), ("mm",), (2.0,), (1.0,), times=3, step=730)
SEASON = Series(("sine", "cosine"), ("1", "1"), (0.0, 0.0), (0.7, 0.7))
SMALL = TableArchitecture(trees=12, members=2, width=4)
PAIR = (ClassDef(1, "a", "#000000"), ClassDef(2, "b", "#ffffff"))
KINDS = {"values": Values("y", "", "sample"), "classes": Classes(PAIR, "sample")}


class Items(Dataset):
    """Samples of a batch."""

    def __init__(self, batch):
        self.batch = batch

    def __len__(self):
        return len(self.batch["y"])

    def __getitem__(self, i):
        return {key: tensor[i] for key, tensor in self.batch.items()}


def batch_of(spec, count, seed=0):
    """Samples whose truth is of imagery and weather."""
    inputs = example_inputs(spec, batch=count)
    hidden = (inputs[IMAGERY][:, 0, 1] - 3000) / 800 + inputs[WEATHER][:, -1, 0] - 2
    return inputs | {"y": (hidden > 0).long() if isinstance(spec.answer, Classes) else hidden}


@pytest.fixture(params=KINDS)
def planted(request):
    """A small network with forests, whose correction adds something."""
    spec = Spec("table", {IMAGERY: BANDS, WEATHER: RAIN, CONTEXT: SEASON}, {"y": KINDS[request.param]})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = TableNetwork(spec, SMALL).eval()
        torch.nn.init.normal_(network.correction.out)
    plant_forests(network, Items(batch_of(spec, 64)), None, SMALL, seed=0)
    return network


def without(inputs, *names):
    """A batch in which some inputs are missing, and hold what must not be looked at."""
    gone = {valid_of(name): torch.zeros_like(inputs[valid_of(name)]) for name in names}
    return {**inputs, **{name: torch.full_like(inputs[name], torch.nan) for name in names}, **gone}


def test_without_weather_the_answer_is_that_of_imagery_and_season_to_the_bit(planted):
    inputs = example_inputs(planted.spec, batch=5)
    both, plain = planted.predict(inputs), planted.predict(without(inputs, WEATHER))

    assert (both - plain).abs().max() > 0.01
    planted.gate = 0.0
    assert torch.equal(planted.predict(inputs), plain)
    planted.gate = 0.5
    assert torch.allclose(planted.predict(inputs), (plain + both) / 2, atol=1e-6)


@pytest.mark.parametrize("missing", [(IMAGERY,), (CONTEXT,), (CONTEXT, WEATHER), (IMAGERY, CONTEXT)])
def test_what_is_missing_is_not_looked_at_and_rows_do_not_hear_of_each_other(planted, missing):
    inputs = example_inputs(planted.spec, batch=4)
    gone = without(inputs, *missing)
    mixed = {key: torch.cat((inputs[key][:2], gone[key][2:])) for key in inputs}

    said = planted.predict(mixed)
    assert torch.isfinite(said).all()
    assert torch.equal(said[:2], planted.predict(inputs)[:2]) and torch.equal(said[2:], planted.predict(gone)[2:])
    assert not torch.allclose(said[2:], planted.predict(inputs)[2:])


def test_without_imagery_the_gate_has_no_say(planted):
    inputs = without(example_inputs(planted.spec, batch=4), IMAGERY)
    answer = planted.predict(inputs)
    planted.gate = 0.0

    assert torch.allclose(planted.predict(inputs), answer)


def test_the_share_is_between_layers_and_forests(planted):
    output = planted(example_inputs(planted.spec, batch=4))
    layers, trees = planted.by_kind(output)
    planted.gate, planted.share = 0.0, 0.25

    assert torch.allclose(planted.finish(output), 0.75 * layers + 0.25 * trees, atol=1e-6)


def test_the_forests_learn_what_weather_adds(planted):
    """Half of the truth is in each: with both, more of it is told than by imagery."""
    batch = batch_of(planted.spec, 64)
    planted.share = 1.0
    imagery, both = (said.detach() for said in planted.ends(planted(batch)))
    if isinstance(planted.spec.answer, Classes):
        wrong = [float((said.argmax(1) != batch["y"]).float().mean()) for said in (imagery, both)]
    else:
        wrong = [float((said[:, 0] - batch["y"]).square().mean()) for said in (imagery, both)]
    assert wrong[1] < 0.7 * wrong[0]


def test_an_index_of_known_bands_is_heard():
    spec = Spec("table", {IMAGERY: BANDS, WEATHER: RAIN}, {"y": KINDS["values"]})
    rows = TableNetwork(spec, SMALL).rows[IMAGERY]
    x = torch.tensor([[[500.0, 1500.0]] * 3])

    steps, _ = rows(x, torch.ones_like(x))
    assert steps[0, :3].tolist() == [500, 1500, 0.5]  # NDVI (Rouse et al. 1974)
    missing, _ = rows(x, torch.tensor([[[1.0, 0.0]] * 3]))
    assert missing[0, :3].tolist() == [500, 3000, 0]  # the mean of the band, and no index of it


@pytest.mark.parametrize("planted", ["values"], indirect=True)
def test_the_exported_network_answers_alike(planted, tmp_path):
    import openvino

    export_onnx(planted, tmp_path / "model.onnx")
    model = openvino.Core().compile_model(tmp_path / "model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    inputs = without(example_inputs(planted.spec, batch=3), WEATHER)
    inputs = {key: torch.nan_to_num(tensor) for key, tensor in inputs.items()}
    said = model({key: tensor.numpy() for key, tensor in inputs.items()})[0]

    assert np.abs(said - planted.predict(inputs).detach().numpy()).max() < 1e-4
