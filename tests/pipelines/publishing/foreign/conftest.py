"""Models of terratorch as others publish them: a checkpoint and the YAML of its training."""

from __future__ import annotations

import json

import pytest
import yaml

BANDS = ["BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2"]
MEANS = [0.03, 0.06, 0.06, 0.23, 0.2, 0.12]
STDS = [0.02, 0.03, 0.04, 0.08, 0.09, 0.07]
TINY = {"backbone_embed_dim": 32, "backbone_depth": 4, "backbone_num_heads": 2, "backbone_img_size": 64}
LAID_OUT = [{"name": "SelectIndices", "indices": [0, 1, 2, 3]}, {"name": "ReshapeTokensToImage"}]
PYRAMID = [*LAID_OUT, {"name": "LearnedInterpolateToPyramidal"}]


def arguments(**changes):
    """Arguments of terratorch's factory for a tiny model with the published names."""
    made = {"backbone": "prithvi_eo_v2_300_tl", "backbone_pretrained": False, "backbone_bands": BANDS, **TINY}
    made |= {"decoder": "UperNetDecoder", "decoder_channels": 8, "necks": PYRAMID, "num_classes": 2}
    return {key: value for key, value in (made | changes).items() if value is not None}


def config(args, **data):
    """The YAML that terratorch was started with, as plain data."""
    read = {"dataset_bands": BANDS, "means": MEANS, "stds": STDS, "num_classes": 2, "batch_size": 4, **data}
    given = {"model_factory": "EncoderDecoderFactory", "model_args": args, "loss": "ce"}
    return {
        "seed_everything": 0,
        "trainer": {"max_epochs": 3, "callbacks": [{"class_path": "RichProgressBar"}]},
        "data": {
            "class_path": "GenericNonGeoSegmentationDataModule",
            "init_args": {key: value for key, value in read.items() if value is not None},
        },
        "model": {
            "class_path": "terratorch.tasks.SemanticSegmentationTask",
            "init_args": {**given, "class_names": ["not burned", "burn scar"]},
        },
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-4}},
    }


def as_yaml(values):
    """YAML without anchors: what is there twice is written twice."""
    return yaml.safe_dump(json.loads(json.dumps(values)))


def build(args, seed=0):
    """Terratorch's own model, with batch norms that have seen something."""
    import torch
    from terratorch.models import EncoderDecoderFactory

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = EncoderDecoderFactory().build_model("segmentation", **{k: v for k, v in args.items()})
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(torch.rand(buffer.shape) + 0.5)
    return model.eval()


@pytest.fixture
def theirs(tmp_path):
    """A function of arguments that writes model.ckpt and config.yaml of Lightning; terratorch's model."""
    import torch

    def make(*, prefix="model.", more=None, wrap=True, data=None, **changes):
        args = arguments(**changes)
        model = build(args)
        state = {prefix + key: value for key, value in model.state_dict().items()} | (more or {})
        hyper = {"hyper_parameters": {"lr": 1e-4}, "epoch": 3, "optimizer_states": [{}]}
        torch.save({"state_dict": state, **hyper} if wrap else state, tmp_path / "model.ckpt")
        (tmp_path / "config.yaml").write_text(as_yaml(config(args, **data or {})))
        return model

    return make
