"""What is said of scenes unlike the training, and the maps of how sure a run is, read back from their files."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from models.bundle import load_familiar, read_bundle, write_bundle
from models.confidence.familiar import features_of
from models.errors import InputError
from pipelines.commands.score import score
from pipelines.outputs.picture import WARNING
from pipelines.scoring.plan import Maps
from tests.runs import BANDS, make_chip, write


def scene_of(path, order=(0, 1, 2, 3, 4, 5), plus=0):
    """A scene of nine chips, its bands in another order than it says, 80 x 80 pixels."""
    bands = np.block([[make_chip(7 * i + j)[0] for j in range(3)] for i in range(3)])[list(order), :80, :80] + plus
    return write(path, bands.astype(np.int16), names=BANDS, nodata=-9999, tags={"ACQUISITION_DATE": "2022-03-04"})


def knowing(run, **confidence):
    """A run whose bundle.json says this of its confidence."""
    bundle = read_bundle(run)
    write_bundle(run, dataclasses.replace(bundle, confidence={**bundle.confidence, **confidence}))
    return run


@pytest.fixture
def own_run(run, tmp_path):
    """A run that may be changed."""
    return shutil.copytree(run, tmp_path / "own")


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(), dataset.tags(), dataset.descriptions, dataset.nodata


def test_the_map_of_the_unfamiliar_is_the_distance_to_training_pixels(run, tmp_path):
    scene = scene_of(tmp_path / "s.tif")
    (result,) = score(run, [str(scene)], out=tmp_path / "maps", maps=Maps(unfamiliar=True))
    got = read(result["maps"]["unfamiliar"])[0][0]
    bands = read(scene)[0].astype(np.float32)
    familiar = load_familiar(run, read_bundle(run))
    direct = familiar(features_of(bands[None, :, None], BANDS)[0]).reshape(80, 80)
    # Tiles begin at multiples of four pixels here, so that those that are compared are the same in all of them.
    np.testing.assert_allclose(got[2:-2:4, 2:-2:4], direct[2:-2:4, 2:-2:4], rtol=1e-2, atol=5e-3)
    between = (got[2:70:4, 2:70:4] + got[2:70:4, 6:74:4]) / 2
    np.testing.assert_allclose(got[2:70:4, 4:72:4], between, rtol=1e-2, atol=5e-3)
    assert np.mean(got > 1) < 0.3


def test_other_maps_are_the_same_with_and_without(run, tmp_path):
    scene = scene_of(tmp_path / "s.tif")
    kinds = Maps(probabilities=True, confidence=True)
    (plain,) = score(run, [str(scene)], out=tmp_path / "plain", maps=kinds)
    watched = dataclasses.replace(kinds, unfamiliar=True)
    (beside,) = score(run, [str(scene)], out=tmp_path / "beside", maps=watched)
    for kind in plain["maps"]:
        np.testing.assert_array_equal(read(plain["maps"][kind])[0], read(beside["maps"][kind])[0])


def test_a_scene_unlike_all_training_ground_is_told_of_everywhere(own_run, tmp_path):
    run = knowing(own_run, unfamiliar={"limit": 0.3, "flagged": 0.1, "groups": 20})
    lines = []
    swapped = scene_of(tmp_path / "swapped.tif", order=(0, 1, 2, 4, 3, 5))
    (result,) = score(run, [str(swapped)], out=tmp_path / "maps", maps=Maps(unfamiliar=True), say=lines.append)
    assert any("unlike all training ground" in line and "NIR_NARROW looks like SWIR_1" in line for line in lines)
    assert any("do not rely on the map" in note for note in result["notes"])
    assert "do not rely on the map" in json.loads(Path(result["item"]).read_text())["properties"]["description"]
    with Image.open(result["picture"]) as picture:
        assert picture.getpixel((2, 2)) == WARNING
    fine = scene_of(tmp_path / "fine.tif")
    lines.clear()
    (result,) = score(run, [str(fine)], out=tmp_path / "maps", maps=Maps(unfamiliar=True), say=lines.append)
    assert not any("unlike" in line for line in [*lines, *result["notes"]])
    with Image.open(result["picture"]) as picture:
        assert picture.getpixel((2, 2)) != WARNING


def test_sets_hold_how_many_and_which(own_run, tmp_path):
    run = knowing(own_run, temperature=1.7, said="Calibrated on 20 groups.", sets={"0.9": 0.2, "0.8": 0.4})
    scene = scene_of(tmp_path / "s.tif")
    kinds = Maps(probabilities=True, confidence=True, sets=True)
    (result,) = score(run, [str(scene)], out=tmp_path / "maps", maps=kinds)
    p, (size, bits) = read(result["maps"]["probabilities"])[0], read(result["maps"]["sets"])[0]
    inside = (p >= 0.2) | (p == p.max(0))
    np.testing.assert_array_equal(size, inside.sum(0))
    for index in range(3):
        np.testing.assert_array_equal((bits >> index) & 1, inside[index])
    _, tags, names, nodata = read(result["maps"]["sets"])
    assert tags["EARTHTUNE_CONFIDENCE"] == "Calibrated on 20 groups." and "90%" in names[0] and nodata == 0
    confidence, _, names, _ = read(result["maps"]["confidence"])
    assert "calibrated" in names[0]
    np.testing.assert_allclose(confidence[0], p.max(0), rtol=1e-5)


def test_a_run_that_learned_no_sets_or_kept_no_pixels_says_why(own_run, value_run, tmp_path):
    scene = str(scene_of(tmp_path / "s.tif"))
    with pytest.raises(InputError, match="no sets of classes .*Not calibrated: 6 groups"):
        score(knowing(own_run, sets={}), [scene], out=tmp_path / "maps", maps=Maps(sets=True))
    bundle = read_bundle(own_run)
    (own_run / "familiar.safetensors").unlink()
    with pytest.raises(InputError, match=r"familiar\.safetensors: no such file"):
        score(own_run, [scene], out=tmp_path / "maps", maps=Maps(unfamiliar=True), debug=True)
    write_bundle(own_run, bundle)
    with pytest.raises(InputError, match="kept no training pixels"):
        score(own_run, [scene], out=tmp_path / "maps", maps=Maps(unfamiliar=True))
    assert not list((tmp_path / "maps").glob("*.tif"))


def test_values_can_be_unfamiliar_too(value_run, tmp_path):
    (result,) = score(value_run, [str(scene_of(tmp_path / "s.tif"))], out=tmp_path / "maps", maps=Maps(unfamiliar=True))
    assert np.isfinite(read(result["maps"]["unfamiliar"])[0]).all()
