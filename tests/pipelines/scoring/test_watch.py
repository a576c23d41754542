"""What is said of scenes unlike the training, and the maps of how sure a run is, read back from their files."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from PIL import Image

from models.bundle import load_familiar, read_bundle, write_bundle
from models.confidence.familiar import features_of
from models.confidence.intervals import interval_of
from models.errors import InputError
from pipelines.commands.review import review
from pipelines.commands.score import score
from pipelines.inspection.inspect import inspect
from pipelines.outputs.picture import WARNING
from pipelines.review.review import Page
from pipelines.scoring.plan import Maps
from tests.runs import BANDS, make_chip, write


def scene_of(path, order=(0, 1, 2, 3, 4, 5), plus=0):
    """A scene of nine chips, its bands in another order than it says, 80 x 80 pixels."""
    bands = np.block([[make_chip(7 * i + j)[0] for j in range(3)] for i in range(3)])[list(order), :80, :80] + plus
    tags, corner = {"ACQUISITION_DATE": "2022-03-04"}, (30 * 16000, 30 * 160000)  # tiles begin at multiples of four
    return write(path, bands.astype(np.int16), names=BANDS, nodata=-9999, tags=tags, corner=corner)


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
    # Tiles begin at multiples of four pixels, so those that are compared are the same in all of them.
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


def test_values_come_with_the_ends_of_an_interval(value_run, tmp_path):
    (result,) = score(value_run, [str(scene_of(tmp_path / "s.tif"))], out=tmp_path / "maps", maps=Maps(interval=True))
    told = read(result["map"])[0]
    level, interval = interval_of(read_bundle(value_run).confidence)
    assert read_bundle(value_run).confidence["positive"] is False  # some water reflects less than nothing
    for kind, wanted in zip(("lower", "upper"), interval(told, positive=False), strict=True):
        got, tags, names, nodata = read(result["maps"][kind])
        np.testing.assert_allclose(got[0], wanted, rtol=1e-5)
        assert names == (f"{kind} end of the 80% interval of biomass",) and np.isnan(nodata) and level == 0.8
        assert "Intervals learned on" in tags["EARTHTUNE_CONFIDENCE"]
    answers = review(Path(result["map"]), page=Page(no_page=True))
    assert answers["regions"] > 0


def test_an_interval_of_what_is_never_negative_begins_at_zero(value_run, tmp_path):
    wide = {"0.8": {"knots": [0.0], "below": [-500.0], "above": [-200.0], "floor": 1.0}}
    scene, ends = [str(scene_of(tmp_path / "s.tif"))], {}
    for positive in (True, False):
        run = knowing(shutil.copytree(value_run, tmp_path / f"run{positive}"), intervals=wide, positive=positive)
        (result,) = score(run, scene, out=tmp_path / str(positive), maps=Maps(interval=True))
        ends[positive] = np.stack([read(result["maps"][kind])[0] for kind in ("lower", "upper")])
    assert ends[False].min() < 0 and (ends[True] == ends[False].clip(0)).all()


def test_intervals_are_refused_where_there_are_none(value_run, run, tmp_path):
    scene, maps = [str(scene_of(tmp_path / "s.tif"))], Maps(interval=True)
    with pytest.raises(InputError, match="--interval: for a run of values, and this one tells classes; --sets"):
        score(run, scene, out=tmp_path / "maps", maps=maps)
    own = shutil.copytree(value_run, tmp_path / "own")
    said = "No intervals: 2 groups left out, one of 80 % wants 4, one of 90 % 9."
    with pytest.raises(InputError, match="--interval: it has none .No intervals: 2 groups"):
        score(knowing(own, intervals={}, said=said), scene, out=tmp_path / "maps", maps=maps)


@pytest.fixture
def warned(rain_run, tmp_path):
    """A run of rain that has intervals, and warns of weather of which a fifth is outside."""
    intervals = {"0.9": {"low": 0, "high": 12, "floor": 0.01, "stretch": 0.5}}
    ground = {"limit": 0.2, "flagged": 0.1, "groups": 20}
    return knowing(shutil.copytree(rain_run, tmp_path / "own"), intervals=intervals, unfamiliar=ground)


def test_rain_comes_with_its_interval_and_what_is_unfamiliar(warned, rain_day, tmp_path):
    lines = []
    source = [str(next(rain_day.glob("*inst1*")))]
    results = score(warned, source, out=tmp_path / "maps", say=lines.append)
    assert not any("unlike" in line for line in lines)
    with xr.open_dataset(next((tmp_path / "maps").glob("*.nc")), engine="h5netcdf") as series:
        low, high = series["rain_quantile"].values[:, 0], series["rain_quantile"].values[:, 12]
        by = 0.5 * np.maximum(high - low, 0.01)
        np.testing.assert_allclose(series["rain_lower"], (low - by).clip(0), atol=1e-6)
        np.testing.assert_allclose(series["rain_upper"], high + by, rtol=1e-5)
        assert series["rain_upper"].attrs["units"] == "mm h-1" and "90% interval" in series["rain_upper"].long_name
        bands, _, names, _ = read(results[5]["map"])
        for place, name in enumerate(("rain_lower", "rain_upper", "rain_unfamiliar"), -3):
            np.testing.assert_array_equal(bands[place], series[name].values[5])
    assert names[-3].startswith("lower end") and names[-1].startswith("distance from training weather")


def test_weather_in_another_unit_is_told_of_before_the_work(warned, rain_day, tmp_path):
    source = next(rain_day.glob("*inst1*"))
    with xr.open_dataset(source, engine="h5netcdf") as day:
        other = day.load().assign(T2M=day["T2M"] - 273.15)
    other["T2M"].attrs.pop("units", None)
    other.to_netcdf(tmp_path / source.name, engine="h5netcdf")
    lines = []
    score(warned, [str(tmp_path / source.name)], out=tmp_path / "maps", say=lines.append)
    (line,) = [line for line in lines if "unlike all training weather" in line]
    assert "95 of 100 days" in line and "T2M is" in line and "is its unit the same?" in line
    assert line.split(": ", 1)[1] in inspect(tmp_path / source.name, for_run=warned).notes


def test_inspect_tells_what_swapped_bands_look_like(own_run, tmp_path):
    run = knowing(own_run, unfamiliar={"limit": 0.3, "flagged": 0.1, "groups": 20})
    found = inspect(scene_of(tmp_path / "swapped.tif", order=(0, 1, 2, 4, 3, 5)), for_run=run)
    assert found.ok and any("NIR_NARROW looks like SWIR_1" in note for note in found.notes)
    assert not inspect(scene_of(tmp_path / "fine.tif"), for_run=run).notes
