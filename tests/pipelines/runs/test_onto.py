"""A run over the backbone of another: it stays as it is there, is told of, and serves both in one pass."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import rasterio
import torch

from models.bundle import load_network, read_bundle
from models.errors import InputError
from models.networks.network import Network
from models.spec import Target
from models.training.settings import Architecture
from pipelines.commands.score import score
from pipelines.recipes.onto import settled, told
from pipelines.runs.finetune import finetune
from pipelines.runs.folder import Launch
from pipelines.runs.training import build
from pipelines.scoring.jobs import Engine
from tests.runs import TINY, tiny_recipe


def values_recipe(chips, run, **changes):
    """Class codes as values, of a network that would be another, over the backbone of a run."""
    plain = tiny_recipe(chips)
    model = Architecture(decoder="linear", channels=8, detail=0)
    answer = {"task": "regression", "classes": [], "target": Target("code", "m"), "model": model}
    training = dataclasses.replace(plain.training, epochs=2)
    return dataclasses.replace(plain, **answer, training=training, seed=5, onto=run, **changes)


@pytest.fixture
def second(run, chips, tmp_path, torch_only):
    recipe = values_recipe(chips, run, backbone="prithvi_eo_v2_300_tl")
    finetune(recipe, tmp_path / "second")
    return tmp_path / "second"


def test_the_backbone_stays_and_one_pass_serves_both(run, second, chips, tmp_path, monkeypatch):
    first, (mine, theirs) = read_bundle(run), (load_network(folder).backbone.state_dict() for folder in (second, run))
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)
    bundle = read_bundle(second)
    assert (bundle.backbone, bundle.mode, bundle.whole) == (first.backbone, "frozen", True)
    assert (bundle.base.source, bundle.base.file, bundle.base.sha256) == ("run", "run", first.sha256)
    assert bundle.spec.imagery == first.spec.imagery
    assert any("learned from the samples of run" in note for note in bundle.training["notes"])

    scene, seen, features = str(chips / "c01_hls.tif"), [], Network.features
    monkeypatch.setattr(Network, "features", lambda self, inputs: seen.append(1) or features(self, inputs))
    engine = Engine("torch")
    alone = [score(folder, [scene], out=tmp_path / folder.name, engine=engine)[0] for folder in (run, second)]
    apart = len(seen)
    both = score(run, [scene], out=tmp_path / "both", bundle=[second], engine=engine)
    assert len(seen) - apart == apart / 2
    for made, before in zip(both, alone, strict=True):
        with rasterio.open(made["map"]) as file, rasterio.open(before["map"]) as kept:
            np.testing.assert_array_equal(file.read(), kept.read())


def test_another_backbone_is_not_taken_for_the_same(run, second, chips, tmp_path, monkeypatch):
    """One weight apart, or other heads of attention, which no weight tells: each runs its own."""
    from models.runtime import engines

    networks, bundles = ([load(folder) for folder in (run, second)] for load in (load_network, read_bundle))
    assert engines._served(networks, bundles) == [0, 0]
    heads = dataclasses.replace(bundles[1].architecture, overrides=dict(TINY) | {"num_heads": 4})
    assert engines._served(networks, [bundles[0], dataclasses.replace(bundles[1], architecture=heads)]) == [0, 1]
    with torch.no_grad():
        next(networks[1].backbone.parameters()).view(-1)[0] += 1e-3
    assert engines._served(networks, bundles) == [0, 1]


def test_a_run_that_has_changed_is_not_gone_on_with(run, chips, rain_run, tmp_path):
    recipe = settled(values_recipe(chips, run))
    assert settled(recipe) == recipe and recipe.model.overrides == read_bundle(run).architecture.overrides
    with pytest.raises(InputError, match="another run than this one began with"):
        settled(dataclasses.replace(recipe, onto_bundle="0" * 64))
    with pytest.raises(InputError, match="wanted one over scenes"):
        settled(values_recipe(chips, rain_run))
    with pytest.raises(InputError, match="is the run that this one would stand on"):
        finetune(recipe, run, launch=Launch(overwrite=True))
    assert read_bundle(run).spec.task == "segmentation"
    with pytest.raises(InputError, match="no such run folder"):
        settled(values_recipe(chips, tmp_path / "gone"))


def test_what_reads_scenes_otherwise_is_told(run, chips):
    recipe = values_recipe(chips, run)
    assert not any("twice" in note for note in told(recipe))
    masked = dataclasses.replace(recipe.data, mask_clouds=True)
    assert "(data.mask_clouds): score reads them twice" in told(dataclasses.replace(recipe, data=masked))[-1]


def test_what_learned_is_told_of_through_a_run_that_did_not(run, second, chips):
    """The second stands on a run that was trained whole, and a third on the second."""
    recipe = values_recipe(chips, second)
    assert any("it learned from the samples of run:" in note for note in told(recipe))
    assert build(settled(recipe), read_bundle(second).spec)[1] == read_bundle(second).base


def test_dates_that_its_backbone_does_not_read_are_refused(run, chips, tmp_path):
    for file in chips.glob("*_hls.tif"):
        for name in (file.name, file.name.replace("hls", "later"), file.name.replace("hls", "lc")):
            shutil.copy(chips / name.replace("later", "hls"), tmp_path / name)
    recipe = values_recipe(tmp_path, run)
    two = dataclasses.replace(recipe.data, images=["*_hls.tif", "*_later.tif"])
    with pytest.raises(InputError, match="reads 1 dates; the images here have 2"):
        finetune(dataclasses.replace(recipe, data=two), tmp_path / "out")
    assert not (tmp_path / "out").exists()
