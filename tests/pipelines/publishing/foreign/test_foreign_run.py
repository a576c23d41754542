"""Models of terratorch as runs: what they answer, what is understood of them, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml

from models.bundle import load_network, read_bundle
from models.runtime.engines import load_runtime
from tests.pipelines.publishing.foreign.conftest import LAID_OUT, MEANS, PYRAMID, STDS, arguments, config

FRAMES = [LAID_OUT[0], {"name": "ReshapeTokensToImage", "effective_time_dim": 3}]
LAYOUTS = {
    "UperNet": {},
    "UperNet of three dates": {"backbone_num_frames": 3, "necks": [*FRAMES, PYRAMID[2]]},
    "FCN": {"decoder": "FCNDecoder", "decoder_num_convs": 2, "necks": LAID_OUT, "head_dropout": 0.1},
    "FCN without necks": {"decoder": "FCNDecoder", "decoder_num_convs": 1, "necks": None, "backbone_num_frames": 3},
    "UNet": {"decoder": "UNetDecoder", "decoder_channels": [16, 8, 8, 4], "head_channel_list": [6]},
    "linear": {"decoder": "LinearDecoder", "decoder_channels": None, "decoder_upsampling_size": 16, "necks": LAID_OUT},
    "identity": {"decoder": "IdentityDecoder", "decoder_channels": None, "necks": LAID_OUT},
    "UperNet that scales": {"decoder_scale_modules": True, "necks": LAID_OUT},
    "blocks in another order": {"decoder": "FCNDecoder", "necks": [{"name": "SelectIndices", "indices": [-1, 1]}, LAID_OUT[1]]},
}


@pytest.fixture
def pulled(tmp_path, told):
    """A function that pulls what `theirs` wrote, and gives the folder and what was said."""

    def pull(*words, code=0):
        here = tmp_path / "model.ckpt", "--config", tmp_path / "config.yaml"
        return tmp_path / "run", told("pull", *here, "--out", tmp_path / "run", *words, code=code)

    return pull


def reflectance(frames=1):
    return np.random.default_rng(0).uniform(0, 0.5, (2, 6, frames, 64, 64)).astype(np.float32)


def answer(model, values):
    """Terratorch's probabilities of reflectance, which it normalises before the model."""
    shape = (1, 6, 1, 1, 1)
    x = (torch.from_numpy(values) - torch.tensor(MEANS).reshape(shape)) / torch.tensor(STDS).reshape(shape)
    with torch.no_grad():
        return model(x).output.softmax(1).numpy()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_answers_are_terratorchs(theirs, pulled, layout):
    model = theirs(**LAYOUTS[layout])
    run, _ = pulled()
    given = reflectance(LAYOUTS[layout].get("backbone_num_frames", 1))
    wanted = answer(model, given)
    assert wanted.std() > 1e-3
    with torch.no_grad():
        ours = load_network(run).predict({"imagery": torch.from_numpy(10_000 * given)}).numpy()
    np.testing.assert_allclose(ours, wanted, atol=1e-4)
    if (run / "model.onnx").exists():
        graph = load_runtime(run, runtime="openvino", precision="f32")({"imagery": 10_000 * given})
        np.testing.assert_allclose(graph, wanted, atol=1e-4)
