"""Adapters in peft's layout, by peft itself."""

from __future__ import annotations

import json
import shutil

import pytest
import rasterio
import torch
from safetensors.torch import load_file

from models.backbones.hub import WeightFile, read_state_dict
from models.backbones.lora import add_lora
from models.backbones.prithvi_eo import BANDS, PrithviEO, load_pretrained
from models.bundle import Base, Bundle, load_network, write_bundle, write_weights
from models.training.settings import Architecture, Lora
from pipelines.cli.main import main
from tests.runs import make_chip, write

TINY = {"embed_dim": 32, "depth": 2, "num_heads": 2}
NAME, REPO, FILE = "prithvi_eo_v2_300_tl", "ibm-nasa-geospatial/Prithvi-EO-2.0-300M-TL", "Prithvi_EO_V2_300M_TL.pt"


@pytest.fixture
def base(tmp_path):
    """A weight file as the backbone's authors publish it, in little."""
    torch.manual_seed(11)
    state = PrithviEO(NAME, bands=BANDS, overrides=TINY, tile=32).vit.state_dict()
    torch.save({f"encoder.{key}": value for key, value in state.items()}, tmp_path / FILE)
    return tmp_path / FILE


@pytest.fixture
def tuned(make_network, base, tmp_path, hub):
    """A run whose adapters lie over published weights."""
    commit = hub.publish(REPO, {FILE: base.read_bytes()})
    network = make_network(bands=BANDS, mean=(1.0,) * 6, std=(2.0,) * 6, classes=make_network().spec.answer.classes)
    load_pretrained(network.backbone, read_state_dict(base), source=FILE)
    add_lora(network.backbone, rank=4, alpha=6.0)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith((".up", ".down")):
                parameter.add_(0.1 * torch.randn_like(parameter))
    run = tmp_path / "run"
    run.mkdir()
    write_weights(run, network, whole=False)
    known = Base("hub", REPO, commit, FILE, WeightFile(base).sha256(), BANDS)
    architecture = Architecture(overrides=TINY, decoder="fcn", channels=8, detail=4)
    told = {"mode": "lora", "whole": False, "lora": Lora(4, 6.0), "scores": {"mean_iou": 0.5, "n": 9}}
    write_bundle(run, Bundle(network.spec, NAME, architecture, known, **told))
    return run


def test_peft_puts_the_adapters_onto_the_base(tuned, base, tmp_path):
    peft = pytest.importorskip("peft")
    out = tmp_path / "out"
    assert main(["publish", str(tuned), "org/lora", "--adapter_only", "--dry_run", "--out", str(out)]) == 0
    ours = load_network(tuned).backbone
    vit = PrithviEO(NAME, bands=BANDS, overrides=TINY, tile=32).vit
    vit.load_state_dict({key.removeprefix("encoder."): value for key, value in read_state_dict(base).items()})
    theirs = PrithviEO(NAME, bands=BANDS, overrides=TINY, tile=32)
    tokens = torch.randn(2, 6, 1, 32, 32)
    before = vit.blocks[0].attn.qkv(torch.ones(1, 32))
    adapted = peft.PeftModel.from_pretrained(vit, str(out))
    assert not torch.allclose(adapted.base_model.model.blocks[0].attn.qkv(torch.ones(1, 32)), before)
    theirs.vit = adapted.merge_and_unload()
    for mine, other in zip(ours(tokens), theirs.eval()(tokens), strict=True):
        torch.testing.assert_close(other, mine, rtol=1e-4, atol=1e-5)


def test_what_peft_reads_holds_the_adapters_alone(tuned, base, tmp_path):
    out = tmp_path / "out"
    assert main(["publish", str(tuned), "org/lora", "--adapter_only", "--dry_run", "--out", str(out)]) == 0
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"], config["lora_alpha"]) == (REPO, 4, 6.0)
    kept, own = load_file(out / "adapter_model.safetensors"), load_file(tuned / "model.safetensors")
    assert len(kept) == 2 * 2 * 2  # two factors, two layers, two blocks
    down = "backbone.vit.blocks.1.attn.proj.down"
    assert torch.equal(kept["base_model.model.blocks.1.attn.proj.lora_A.weight"], own[down])
    assert torch.equal(kept["base_model.model.blocks.1.attn.proj.lora_B.weight"], own[down.replace("down", "up")])
    for name, merged in load_network(tuned).backbone.vit.named_parameters():  # W + alpha / r B A, as peft has it
        layer = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{layer}.lora_A.weight" in kept:
            added = 6.0 / 4 * kept[f"{layer}.lora_B.weight"] @ kept[f"{layer}.lora_A.weight"]
            torch.testing.assert_close(merged, read_state_dict(base)[f"encoder.{name}"] + added)


def test_a_published_run_of_adapters_fetches_its_base_and_maps(tuned, tmp_path, hub, told):
    told("publish", tuned, "org/lora", "--adapter_only")
    assert {"adapter_model.safetensors", "model.safetensors"} <= set(hub.files("org/lora"))
    scene = write(tmp_path / "new.tif", make_chip(3, side=48)[0], names=BANDS, nodata=-9999)
    told("score", tuned, scene, "--runtime", "torch", "--out", tmp_path / "ours")
    told("score", "hf://org/lora", scene, "--out", tmp_path / "theirs")
    ours, theirs = (tmp_path / name / "new_map.tif" for name in ("ours", "theirs"))
    with rasterio.open(ours) as a, rasterio.open(theirs) as b:
        assert (a.read() == b.read()).all() and a.read().any()


@pytest.mark.parametrize("mode", ["frozen", "full", "lora"])
def test_a_run_without_adapters_of_its_own_is_published_whole_or_not(run, tmp_path, capsys, mode):
    run = shutil.copytree(run, tmp_path / "copy")
    held = json.loads((run / "bundle.json").read_text())
    (run / "bundle.json").write_text(json.dumps(held | {"mode": mode, "scores": {"mean_iou": 0.5}}))
    words = [
        "publish",
        str(run),
        "org/lora",
        "--adapter_only",
        "--dry_run",
        "--licence",
        "mit",
        "--out",
        str(tmp_path / "o"),
    ]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert ("merged into random weights" if mode == "lora" else f"came {mode}; publish it whole") in told
    assert not (tmp_path / "o").exists()
