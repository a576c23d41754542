"""Maps of scenes whose pixels are of another size than the training's, on either grid, whoever does the work."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from scipy.ndimage import map_coordinates

from models.bundle import read_bundle
from pipelines.commands.score import score
from pipelines.recipes.recipe import Data
from pipelines.samples.chips import Chips
from pipelines.scenes.reading import Reading
from pipelines.scoring import plan as scoring
from pipelines.scoring.plan import Maps, Share
from pipelines.tasks.task import data_for, prepare, task_named
from tests.runs import BANDS, make_chip, make_chips, tiny_recipe, write

RESAMPLED = Reading(resample="train")
TAGS = {"ACQUISITION_DATE": "2022-03-04"}


def make_scene(path, *, size=30.0, height=90, width=71, times=1):
    """Chips side by side with a hole, each pixel as `times` x `times`."""
    bands = np.block([[make_chip(7 * i + j)[0] for j in range(3)] for i in range(-(-height // 32))])
    bands = bands[:, :height, :width].copy()
    bands[:, 20:33, :15] = -9999
    bands = bands.repeat(times, axis=1).repeat(times, axis=2)
    return str(write(path, bands, names=BANDS, tags=TAGS, nodata=-9999, size=size))


def read(path):
    with rasterio.open(path) as made:
        return made.read(), made.transform, made.shape, made.tags()


def scored(run, scene, out, **options):
    (result,) = score(run, [scene], out=out, **{"reading": RESAMPLED} | options)
    assert result["status"] == "done", result
    return result


def test_a_map_of_smaller_pixels_is_that_of_their_means(run, tmp_path):
    """Where each pixel of 30 m is nine of 10 m."""
    coarse = scored(run, make_scene(tmp_path / "a" / "s.tif"), tmp_path / "coarse", maps=Maps(confidence=True))
    fine = make_scene(tmp_path / "b" / "s.tif", size=10.0, times=3)
    said: list[str] = []
    files = {"polygons": tmp_path / "fine" / "p.gpkg", "area_table": tmp_path / "fine" / "a.csv"}
    result = scored(run, fine, tmp_path / "fine", maps=Maps(**files), say=said.append)
    for kind in ("map", "confidence"):
        (wanted, *place, _), (made, *there, tags) = (read(maps["maps"][kind]) for maps in (coarse, result))
        np.testing.assert_array_equal(made, wanted)
        assert there == place and tags["EARTHTUNE_RESAMPLED"] == "10 m to 30 m"
    assert result["valid"] == coarse["valid"]
    assert any("its pixels are 10 m, those of the training 30 m: resampled to 30 m" in line for line in said)
    item, plain = (json.loads((tmp_path / out / "s.json").read_text()) for out in ("fine", "coarse"))
    assert item["geometry"] == plain["geometry"] and "resampled" not in plain["properties"]["processing:lineage"]
    assert item["properties"]["processing:lineage"].endswith("resampled from 10 m to 30 m")
    pixels = sum(int(line.split(",")[3]) for line in files["area_table"].read_text().splitlines()[1:])
    assert pixels == (read(result["map"])[0] > 0).sum()
    taken = scored(run, fine, tmp_path / "never", reading=Reading())
    assert read(taken["map"])[2] == (270, 213) and "EARTHTUNE_RESAMPLED" not in read(taken["map"])[3]


@pytest.mark.parametrize(("size", "times"), [(10.0, 3), (90.0, 1)])
def test_probabilities_go_back_to_the_scene_s_own_grid(run, tmp_path, size, times):
    """Against bilinear interpolation by scipy where pixels get smaller, and block means where they get larger."""
    scene = make_scene(tmp_path / "s.tif", size=size, times=times, height=60)
    on = {
        grid: scored(run, scene, tmp_path / grid, maps=Maps(probabilities=True, map_grid=grid))
        for grid in ("train", "scene")
    }
    (given, *place, _), (made, *there, _) = (read(on[grid]["maps"]["probabilities"]) for grid in ("train", "scene"))
    with rasterio.open(scene) as file:
        assert there == [file.transform, file.shape] and place[0].a == 30
        seen = file.read(1) != -9999
    np.testing.assert_array_equal(np.isfinite(made[0]), seen)
    rows, cols = np.indices(seen.shape)
    if size < 30:
        apart = np.ones(seen.shape, bool)
        apart[50:109, :55] = False  # pixels beside the hole have fewer around them
        at = [(rows + 0.5) / 3 - 0.5, (cols + 0.5) / 3 - 0.5]
        wanted = [map_coordinates(np.nan_to_num(band), at, order=1, mode="nearest") for band in given]
    else:
        apart = seen
        wanted = given.reshape(3, 60, 3, 71, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(made[:, apart], np.array(wanted)[:, apart], atol=1e-5)
    codes, item = read(on["scene"]["map"])[0][0], json.loads((tmp_path / "scene" / "s.json").read_text())
    np.testing.assert_array_equal(codes[seen], np.array([10, 30, 80])[made[:, seen].argmax(axis=0)])
    assert (codes[~seen] == 0).all() and on["scene"]["valid"] == pytest.approx(seen.mean(), abs=1e-6)
    assert item["properties"]["processing:lineage"].endswith("m to 30 m")


@pytest.mark.parametrize("grid", ["train", "scene"])
def test_bands_of_rows_come_to_the_same_bytes(run, tmp_path, monkeypatch, grid):
    maps, scene = Maps(confidence=True, map_grid=grid), make_scene(tmp_path / "s.tif", size=13.0, height=2600, width=40)
    scored(run, scene, tmp_path / "whole", maps=maps)
    monkeypatch.setattr(scoring, "BAND", 512)
    statuses = []
    for part in (3, 1, 2):
        (result,) = score(
            run, [scene], out=tmp_path / "parts", maps=maps, reading=RESAMPLED, share=Share(shard=f"{part}/3")
        )
        statuses.append(result["status"])
    assert statuses == ["partial", "partial", "done"]
    whole, parts = ({p.name: p.read_bytes() for p in (tmp_path / out).glob("s*")} for out in ("whole", "parts"))
    assert whole == parts and len(whole) == 5


def test_a_class_a_tile_is_not_for_the_scene_s_own_grid(scene_run, tmp_path):
    scene = make_scene(tmp_path / "s.tif", size=10.0, times=3)
    (result,) = score(scene_run, [scene], out=tmp_path, maps=Maps(map_grid="scene"), reading=RESAMPLED)
    assert "--map_grid scene: for a class or a value a pixel" in result["error"] and result["exit_code"] == 2
    assert read(scored(scene_run, scene, tmp_path)["map"])[2] == (3, 3)


@pytest.mark.parametrize(("crs", "said", "kept"), [(None, 30.0, 30.0), (None, None, None), ("EPSG:32632", 10.0, 30.0)])
def test_a_recipe_says_the_size_where_files_do_not(chips, tmp_path, crs, said, kept):
    root = chips
    if crs is None:
        root = tmp_path
        for i in range(6):
            bands, codes = make_chip(i)
            write(root / f"c{i}_hls.tif", bands, names=BANDS, crs=None)
            write(root / f"c{i}_lc.tif", codes, crs=None)
    data = Data(root, images="*_hls.tif", labels="*_lc.tif", fractions=(0.5, 0.25, 0.25), pixel=said)
    samples = prepare(tiny_recipe(root, data=data))
    assert isinstance(samples, Chips) and samples.spec.imagery.pixel == kept


def test_labelled_chips_of_another_size_are_told(run, tmp_path):
    bundle = read_bundle(run)
    reopen = task_named("segmentation").reopen
    assert reopen(bundle.spec, data_for(bundle)).notes == []
    make_chips(tmp_path, 2, size=10.0)
    (note,) = reopen(bundle.spec, data_for(bundle, root=tmp_path)).notes
    assert note.startswith("WARNING: its pixels are 10 m, those of the training 30 m") and "not resampled" in note
