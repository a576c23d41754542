"""Models of terratorch as runs: what they answer, what is understood of them, and what is refused."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import rasterio
import torch
from sklearn.metrics import jaccard_score

from models.bundle import load_network, read_bundle, write_bundle
from models.errors import RunError
from models.runtime import agreement
from models.runtime.engines import load_runtime
from tests.pipelines.publishing.foreign.conftest import (
    BANDS,
    LAID_OUT,
    MEANS,
    PYRAMID,
    STDS,
    arguments,
    as_yaml,
    config,
)
from tests.runs import write

FRAMES = [LAID_OUT[0], {"name": "ReshapeTokensToImage", "effective_time_dim": 3}]
LAYOUTS = {
    "UperNet": {},
    "UperNet of three dates": {"backbone_num_frames": 3, "necks": [*FRAMES, PYRAMID[2]]},
    "UperNet that scales": {"decoder_scale_modules": True, "necks": LAID_OUT},
    "FCN of three dates, without necks": {"decoder": "FCNDecoder", "necks": None, "backbone_num_frames": 3},
    "FCN of blocks in another order": {
        "decoder": "FCNDecoder",
        "decoder_num_convs": 2,
        "head_dropout": 0.1,
        "necks": [{"name": "SelectIndices", "indices": [-1, 1]}, LAID_OUT[1]],
    },
    "UNet": {"decoder": "UNetDecoder", "decoder_channels": [16, 8, 8, 4], "head_channel_list": [6]},
    "identity": {"decoder": "IdentityDecoder", "decoder_channels": None, "necks": LAID_OUT},
    "linear": {
        "decoder": "LinearDecoder",
        "decoder_channels": None,
        "decoder_upsampling_size": 16,
        "decoder_num_classes": 5,
        "necks": LAID_OUT,
    },
}


@pytest.fixture
def pulled(tmp_path, told, monkeypatch):
    """A function that pulls what `theirs` wrote, without a graph, and gives the folder and what was said."""

    def pull(*words, code=0, graph=False):
        if not graph:
            monkeypatch.setattr(agreement, "write_graph", lambda out, bundle, _: write_bundle(out, bundle))
        here = tmp_path / "model.ckpt", "--yaml", tmp_path / "config.yaml"
        line = told("pull", *here, "--out", tmp_path / "run", *words, code=code)
        assert (tmp_path / "run").exists() == (code == 0)
        return tmp_path / "run", line

    return pull


def reflectance(frames=1):
    return np.random.default_rng(0).uniform(0, 0.5, (2, 6, frames, 64, 64)).astype(np.float32)


def answer(model, values):
    """Terratorch's probabilities of reflectance, which it normalises before the model."""
    shape = (1, 6, 1, 1, 1)
    x = (torch.from_numpy(values) - torch.tensor(MEANS).reshape(shape)) / torch.tensor(STDS).reshape(shape)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model(x).output.softmax(1).numpy()


@pytest.mark.filterwarnings("ignore:.*scale_modules is deprecated")
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


def test_the_graph_answers_alike_and_maps(theirs, pulled, tmp_path, told):
    model = theirs(data={"img_grep": "*_merged.tif", "label_grep": "*.mask.tif"})
    run, _ = pulled(graph=True)
    assert json.loads((run / "pulled.json").read_text())["notes"] == []
    given = reflectance()
    graph = load_runtime(run, runtime="openvino", precision="f32")({"imagery": 10_000 * given})
    np.testing.assert_allclose(graph, answer(model, given), atol=1e-4)
    labels = np.random.default_rng(1).integers(-1, 2, (1, 64, 64)).astype(np.int16)
    scene = write(tmp_path / "data" / "new_merged.tif", given[0, :, 0], names=BANDS, nodata=-9999)
    write(tmp_path / "data" / "new.mask.tif", labels)
    told("inspect", scene, "--for", run)
    told("score", run, scene, "--out", tmp_path / "maps")
    codes = answer(model, given[:1])[0].argmax(0)
    with rasterio.open(tmp_path / "maps" / "new_merged_map.tif") as made:
        assert (made.read(1) == codes).mean() > 0.999
    line = told("evaluate", run, "--data.root", tmp_path / "data")
    known = labels[0] >= 0
    wanted = jaccard_score(labels[0][known], codes[known], average="macro", zero_division=0.0)
    assert f"Mean IoU {wanted:.3f}" in line and "No baselines" in line


def test_what_is_understood_left_aside_and_missing_is_told(theirs, pulled):
    theirs(more={"criterion.weight": torch.ones(2), "model.aux_heads.aux.0.x": torch.ones(1)})
    run, line = pulled()
    bundle, report = read_bundle(run), json.loads((run / "pulled.json").read_text())
    for told in (
        "backbone: prithvi_eo_v2_300_tl, blocks 0, 1, 2, 3",
        "decoder: UperNetDecoder, LearnedInterpolateToPyramidal",
        "classes: 0 not burned, 1 burn scar",
        "reflectance of 1 as 1, as means of 0.03 to 0.23 tell",
        "left out: criterion.weight (no part of the network)",
        "left out: model.aux_heads.aux.0.x (an auxiliary head)",
        "missing: scores, baselines and calibration",
    ):
        assert told in line
    assert {"seed_everything", "trainer", "optimizer", "model.loss", "data.batch_size"} <= set(report["ignored"])
    assert bundle.whole and not bundle.scores and not bundle.confidence and bundle.base.file == "model.ckpt"
    assert bundle.spec.imagery.mean == pytest.approx([300, 600, 600, 2300, 2000, 1200])
    assert bundle.spec.imagery.std == pytest.approx([200, 300, 400, 800, 900, 700])
    assert bundle.data["scale"] == 1.0 and bundle.data["bands"] == BANDS


@pytest.mark.parametrize("prefix", ["", "model.", "module.model.", "model.module."])
def test_prefixes_of_state_dicts(theirs, pulled, prefix):
    model = theirs(prefix=prefix, wrap=False)
    run, line = pulled()
    assert "left out" not in line
    head = model.state_dict()["head.head.2.weight"]
    assert torch.equal(load_network(run).state_dict()["head.head.head.2.weight"], head)


BROKEN = {
    "a tensor lacks": (lambda s: s.pop("model.decoder.fpn_bottleneck.conv.weight"), "1 tensors lack"),
    "one is too many": (lambda s: s.update({"model.decoder.x": torch.ones(1)}), "1 are too many: head.decoder.x"),
    "another size": (lambda s: s.update({"model.head.head.2.bias": torch.ones(3)}), "the checkpoint has (3,)"),
    "NaN": (lambda s: s["model.head.head.2.bias"].fill_(float("nan")), "holds NaN"),
    "fewer blocks": (lambda s: [s.pop(k) for k in [*s] if ".blocks.3." in k], "the checkpoint has depth 3"),
    "another grid": (lambda s: s.update({"model.encoder.pos_embed": torch.ones(1, 5, 32)}), "tokens 5"),
    "no encoder": (lambda s: [s.pop(k) for k in [*s] if "encoder" in k], "no Prithvi encoder"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_checkpoints_that_do_not_fit_are_refused(theirs, pulled, tmp_path, case):
    change, message = BROKEN[case]
    theirs()
    content = torch.load(tmp_path / "model.ckpt", weights_only=True)
    change(content["state_dict"])
    torch.save(content, tmp_path / "model.ckpt")
    assert message in pulled(code=2)[1]


PARTS = {
    "another decoder": ({"decoder": "SatMAEHead"}, "decoder SatMAEHead: not one that is known"),
    "a wide decoder": ({"decoder_channels": 10**9}, "channels 1000000000, wanted 0 to 8192"),
    "no channels": ({"decoder_channels": [8]}, "UperNetDecoder.channels: wanted a whole number"),
    "an argument of none": ({"decoder_magic": 1}, "magic is not known"),
    "a pyramid of three": ({"necks": [{"name": "SelectIndices", "indices": [1, 2, 3]}, *PYRAMID[1:]]}, "wanted 4 maps"),
    "other channels": ({"decoder_channels": 16}, "the config wants (16"),
    "more classes": ({"num_classes": 3}, "class_names: 2 names"),
    "a deeper backbone": ({"backbone_depth": 5}, "the config wants depth 5"),
    "a wider head": ({"head_channel_list": [10**9]}, "widths [1000000000]"),
}


@pytest.mark.parametrize("case", PARTS)
def test_configs_that_are_not_the_checkpoints_are_refused(theirs, pulled, tmp_path, case):
    changes, message = PARTS[case]
    theirs()
    values = config(arguments(**changes))
    (tmp_path / "config.yaml").write_text(as_yaml(values))
    line = pulled(code=2)[1]
    assert message in line and len(line.splitlines()) == 1


def test_days_and_places_come_along_where_the_data_had_them(theirs, pulled, tmp_path):
    from terratorch.datamodules.fire_scars import MEANS, STDS

    model = theirs()
    values = config(arguments())
    values["data"] = {"class_path": "FireScarsNonGeoDataModule", "init_args": {"use_metadata": True}}
    (tmp_path / "config.yaml").write_text(as_yaml(values))
    run, line = pulled()
    assert "with day and place" in line
    given = torch.from_numpy(reflectance())
    time, location = torch.tensor([[[2020.0, 123.0]]] * 2), torch.tensor([[10.5, -75.1]] * 2)
    mean, std = (torch.tensor([*table.values()]).reshape(1, 6, 1, 1, 1) for table in (MEANS, STDS))
    with torch.no_grad():
        x = ((given - mean) / std).float()
        wanted = model(x, temporal_coords=time, location_coords=location).output.softmax(1)
        ours = load_network(run).predict({"imagery": 10_000 * given, "time": time, "location": location})
        without = model(x).output.softmax(1)
    torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=0)
    assert (without - wanted).abs().max() > 1e-4


def test_a_graph_that_cannot_be_made_is_told_of(theirs, pulled, tmp_path, monkeypatch):
    def differs(out, bundle, _):
        (out / "model.onnx").write_bytes(b"graph")
        raise RunError("differs from the trained model")

    theirs()
    monkeypatch.setattr(agreement, "write_graph", differs)
    run, line = pulled(graph=True)
    assert "No model.onnx: differs from the trained model; the run is scored with torch." in line
    assert not (run / "model.onnx").exists() and read_bundle(run).graph == ""


def test_a_folder_that_holds_other_things_is_not_replaced(theirs, pulled):
    theirs()
    run, _ = pulled()
    again = pulled("--overwrite")[1]
    assert "missing: scores" in again
    (run / "own.txt").write_text("mine")
    with pytest.raises(AssertionError):
        pulled("--overwrite")
    assert (run / "own.txt").read_text() == "mine"


class Code:
    def __reduce__(self):
        return print, ("executed",)


def test_a_pickle_that_holds_more_than_weights_is_refused_by_what_it_holds(theirs, pulled, tmp_path):
    theirs()
    torch.save({"state_dict": {}, "hyper_parameters": Code()}, tmp_path / "model.ckpt")
    line = pulled(code=2)[1]
    assert "executed" not in line and "print" in line and "safetensors" in line and len(line.splitlines()) == 1


def test_a_checkpoint_wants_its_config(theirs, tmp_path, told):
    theirs()
    out = "--out", tmp_path / "run"
    assert "--yaml names the YAML" in told("pull", tmp_path / "model.ckpt", *out, code=2)
    none = tmp_path / "none.ckpt", "--yaml", tmp_path / "config.yaml"
    assert "no such checkpoint" in told("pull", *none, *out, code=2)


def test_a_repository_of_others_becomes_a_run(hub, theirs, tmp_path, told, monkeypatch):
    monkeypatch.setattr(agreement, "write_graph", lambda out, bundle, _: write_bundle(out, bundle))
    theirs()
    held = {name: (tmp_path / name).read_bytes() for name in ("model.ckpt", "config.yaml")}
    files = {"Prithvi_EO_V2_300M_BurnScars.pt": held["model.ckpt"], "burn_scars_config.yaml": held["config.yaml"]}
    commit = hub.publish("org/burns", files | {"README.md": b"# Burns", "inference.py": b"raise SystemExit"})
    line = told("pull", "org/burns", "--out", tmp_path / "run")
    assert f"from org/burns@{commit}" in line and read_bundle(tmp_path / "run").base.revision == commit
    assert not [path for _, path in hub.requests if path.endswith((".py", "README.md"))]
    hub.publish("org/burns", files | {"other.yaml": b"a: 1"})
    assert "which of burn_scars_config.yaml, other.yaml" in told("pull", "org/burns", "--out", tmp_path / "b", code=2)
