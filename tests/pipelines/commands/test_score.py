"""Maps of new scenes, read back by other programs."""

from __future__ import annotations

import re
import shutil
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rio_cogeo.cogeo import cog_validate

from models.errors import InputError
from pipelines.commands.score import score
from pipelines.scenes.find import find_scenes
from pipelines.scenes.reading import Reading
from pipelines.scoring.jobs import Engine
from pipelines.scoring.plan import Maps, Share
from tests.runs import BANDS, make_chip, write


def make_scene(path, *, height=90, width=71, hole=None, **profile):
    """A scene of several chips side by side, not a multiple of the tile."""
    blocks = [[make_chip(7 * i + j)[0] for j in range(3)] for i in range(3)]
    bands = np.block(blocks)[:, :height, :width].copy()
    if hole:
        bands[:, hole[0], hole[1]] = -9999
    options = {"names": BANDS, "tags": {"ACQUISITION_DATE": "2022-03-04"}, "nodata": -9999}
    return write(path, bands, **options | profile)


def test_map_has_the_scenes_grid_codes_colours_and_nodata(run, tmp_path):
    hole = (slice(0, 40), slice(0, 33))  # holds a whole tile and parts of others
    scene = make_scene(tmp_path / "new.tif", hole=hole)
    (result,) = score(run, [str(scene)], out=tmp_path / "maps")
    with rasterio.open(result["map"]) as made, rasterio.open(scene) as given:
        assert (made.crs, made.transform, made.shape) == (given.crs, given.transform, given.shape)
        codes = made.read(1)
        assert made.nodata == 0 and made.dtypes == ("uint8",)
        assert made.colormap(1)[80][:3] == (0, 0x64, 0xC8)
        assert made.tags()["ACQUISITION_DATE"] == "2022-03-04"
        assert made.tags()["EARTHTUNE_BASE"] == "random weights"
    assert set(np.unique(codes)) <= {0, 10, 30, 80}
    invalid = np.zeros(codes.shape, bool)
    invalid[hole] = True
    assert ((codes == 0) == invalid).all()
    assert result["valid"] == pytest.approx(1 - invalid.mean(), abs=1e-5)
    assert cog_validate(result["map"], strict=True)[0]


def test_map_is_right_where_the_training_was_easy(run, tmp_path):
    scene = make_scene(tmp_path / "new.tif")
    truth = np.block([[make_chip(7 * i + j)[1][0] for j in range(3)] for i in range(3)])[:90, :71]
    (result,) = score(run, [str(scene)], out=tmp_path / "maps")
    with rasterio.open(result["map"]) as made:
        assert (made.read(1) == truth).mean() > 0.9


@pytest.mark.parametrize("shape", [(1, 1), (5, 70), (32, 32), (33, 31)])
def test_every_size_is_mapped(run, tmp_path, shape):
    scene = make_scene(tmp_path / "new.tif", height=shape[0], width=shape[1])
    (result,) = score(run, [str(scene)], out=tmp_path / "maps")
    with rasterio.open(result["map"]) as made:
        assert made.shape == shape and (made.read(1) > 0).all()


def test_scene_without_a_valid_pixel_gives_an_empty_map(run, tmp_path):
    scene = make_scene(tmp_path / "new.tif", hole=(slice(None), slice(None)))
    (result,) = score(run, [str(scene)], out=tmp_path / "maps")
    assert result["valid"] == 0


def test_torch_and_openvino_draw_the_same_map(run, tmp_path):
    scene = make_scene(tmp_path / "new.tif")
    maps = []
    for name in ("openvino", "torch"):
        (result,) = score(run, [str(scene)], out=tmp_path / name, engine=Engine(runtime=name))
        with rasterio.open(result["map"]) as made:
            maps.append(made.read(1))
    assert (maps[0] == maps[1]).mean() > 0.99


def test_values_come_with_unit_and_nan(value_run, tmp_path):
    scene = make_scene(tmp_path / "new.tif", hole=(slice(0, 9), slice(0, 9)))
    (result,) = score(value_run, [str(scene)], out=tmp_path / "maps")
    with rasterio.open(result["map"]) as made:
        values = made.read(1)
        assert made.dtypes == ("float32",) and np.isnan(made.nodata)
        assert made.descriptions == ("biomass",) and made.units == ("Mg/ha",)
    assert np.isnan(values[:9, :9]).all() and np.isfinite(values).sum() == 90 * 71 - 81


def test_scene_classes_come_as_one_pixel_per_tile(scene_run, tmp_path):
    scene = make_scene(tmp_path / "new.tif", hole=(slice(64, 90), slice(64, 71)))
    (result,) = score(scene_run, [str(scene)], out=tmp_path / "maps")
    with rasterio.open(result["map"]) as made, rasterio.open(scene) as given:
        assert made.shape == (3, 3) and made.res == (960.0, 960.0)
        assert made.bounds.left == given.bounds.left and made.bounds.top == given.bounds.top
        assert made.read(1)[2, 2] == made.nodata and set(np.unique(made.read(1))) <= {0, 1, 2}


def test_what_cannot_be_scored_is_refused_before_any_map(run, tmp_path):
    good = make_scene(tmp_path / "good.tif")
    undated = make_scene(tmp_path / "undated.tif", tags={})
    nowhere = make_scene(tmp_path / "nowhere.tif", crs=None)
    few = write(tmp_path / "few.tif", make_chip(0)[0][:3], names=BANDS[:3])
    text = tmp_path / "text.tif"
    text.write_text("not a raster")
    for bad, message in (
        (undated, "date"),
        (nowhere, "coordinate system"),
        (few, "NIR_NARROW"),
        (text, "text.tif"),
        (tmp_path / "gone.tif", "gone.tif"),
    ):
        (result,) = score(run, [str(bad)], out=tmp_path / "maps")
        assert (result["status"], result["exit_code"]) == ("failed", 2)
        assert message in result["error"] and "\n" not in result["error"]
        assert not (tmp_path / "maps").exists()
    with pytest.raises(InputError, match="overlap"):
        score(run, [str(good)], out=tmp_path / "maps", overlap=32)
    with pytest.raises(InputError, match="is a file"):
        score(run, [str(good)], out=text)
    for shard in ("0/2", "3/2", "x", "1/0", "/"):
        with pytest.raises(InputError, match="wanted i/n"):
            score(run, [str(good)], out=tmp_path / "maps", share=Share(shard=shard))


def test_a_scene_that_fails_does_not_stop_the_others(run, tmp_path):
    good, other = make_scene(tmp_path / "good.tif"), make_scene(tmp_path / "b" / "other.tif", height=40)
    twin = make_scene(tmp_path / "b" / "good.tif")
    text = tmp_path / "b" / "text.tif"
    text.write_text("not a raster")
    results = score(run, [str(good), str(tmp_path / "b" / "*.tif")], out=tmp_path / "maps")
    assert [(r["scene"], r["status"]) for r in results] == [
        (str(good), "done"),
        (str(twin), "failed"),
        (str(other), "done"),
        (str(text), "failed"),
    ]
    assert "would be written as good_map.tif" in results[1]["error"]
    again = score(run, [str(good), str(other)], out=tmp_path / "maps")
    assert [r["status"] for r in again] == ["kept", "kept"]
    assert again[0]["valid"] == results[0]["valid"]


def test_scenes_are_found_by_patterns_and_in_folders(tmp_path):
    a, b = make_scene(tmp_path / "many" / "a.tif"), make_scene(tmp_path / "many" / "b.tif")
    make_scene(tmp_path / "many" / "a_fmask.tif")
    band = write(tmp_path / "many" / "inner" / "HLS.S30.T32TQM.2021166T101031.v2.0.B02.tif", make_chip(0)[0][:1])
    assert find_scenes([str(tmp_path / "many" / "?.tif")]) == [str(a), str(b)]
    assert find_scenes([str(a), str(tmp_path / "many")]) == [str(a), str(b), str(band.parent)]
    assert find_scenes(["https://x.org/a*.tif", "gone.tif"]) == ["https://x.org/a*.tif", "gone.tif"]
    for kind in ("map", "sets", "unfamiliar", "views", "lower"):  # ours, where there is a ledger
        shutil.copy(a, a.with_name(f"a_{kind}.tif"))
    assert len(find_scenes([str(tmp_path / "many")])) == 8
    (tmp_path / "many" / ".earthtune").mkdir()
    assert find_scenes([str(tmp_path / "many")]) == [str(a), str(b), str(band.parent)]
    (tmp_path / "empty").mkdir()
    assert find_scenes([str(tmp_path / "empty")]) == [str(tmp_path / "empty")]
    with pytest.raises(InputError, match="no file matches"):
        find_scenes([str(tmp_path / "*.jp2")])


def test_dates_can_be_told(run, tmp_path):
    undated = make_scene(tmp_path / "undated.tif", tags={})
    (result,) = score(run, [str(undated)], out=tmp_path / "maps", reading=Reading(dates=["2020-01-31"]))
    with rasterio.open(result["map"]) as made:
        assert made.tags()["ACQUISITION_DATE"] == "2020-01-31"


def only(results):
    (result,) = results
    return result


def test_maps_are_not_overwritten_unasked(run, tmp_path):
    scene = make_scene(tmp_path / "new.tif")
    maps = tmp_path / "maps"
    write(maps / "new_map.tif", np.ones((1, 3, 3), np.uint8))
    assert "--overwrite" in only(score(run, [str(scene)], out=maps))["error"]
    assert only(score(run, [str(scene)], out=maps, overwrite=True))["status"] == "done"
    assert only(score(run, [str(scene)], out=maps))["status"] == "kept"
    assert "--overwrite" in only(score(run, [str(scene)], out=maps, overlap=3))["error"]  # another map, the same name
    for path in maps.glob("new*"):
        path.unlink()
    assert only(score(run, [str(scene)], out=maps, overlap=3))["status"] == "done"


def test_another_input_of_the_same_name_is_not_taken_for_done(run, tmp_path):
    scene = make_scene(tmp_path / "new.tif")
    first = only(score(run, [str(scene)], out=tmp_path / "maps"))
    make_scene(scene, hole=(slice(0, 5), slice(0, 5)))
    assert only(score(run, [str(scene)], out=tmp_path / "maps"))["status"] == "failed"
    again = only(score(run, [str(scene)], out=tmp_path / "maps", overwrite=True))
    assert again["status"] == "done" and again["valid"] < first["valid"]


def test_read_error_in_the_middle_names_the_window_and_leaves_no_map(run, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.scoring.plan.strange", lambda *_: [])  # reads a sample before the first tile
    layout = {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}
    scene = make_scene(tmp_path / "new.tif", height=90, width=90, **layout)
    whole = bytearray(scene.read_bytes())
    whole[len(whole) // 2 : len(whole) // 2 + 3000] = b"\xff" * 3000
    scene.write_bytes(whole)
    unseen = Reading(find_fill=False, as_is=True)  # no pixel is read before the first tile
    result = only(score(run, [str(scene)], out=tmp_path / "maps", reading=unseen))
    assert result["status"] == "failed" and result["exit_code"] == 1
    assert "new.tif: rows " in result["error"] and "columns" in result["error"]
    assert [p.name for p in (tmp_path / "maps").iterdir()] == [".earthtune"]
    make_scene(scene, height=90, width=90, **layout)
    assert only(score(run, [str(scene)], out=tmp_path / "maps"))["status"] == "done"


def test_an_input_is_never_replaced_by_its_map(run, tmp_path):
    scene, other = make_scene(tmp_path / "x.tif"), make_scene(tmp_path / "x_map.tif")
    before = other.read_bytes()
    results = score(run, [str(scene), str(other)], out=tmp_path, overwrite=True)
    assert "would replace" in results[0]["error"]
    assert results[1]["status"] == "done" and other.read_bytes() == before


def test_probabilities_and_confidence(run, tmp_path):
    scene = make_scene(tmp_path / "new.tif", hole=(slice(0, 9), slice(0, 9)))
    result = only(score(run, [str(scene)], out=tmp_path / "maps", maps=Maps(probabilities=True, confidence=True)))
    arrays = {}
    for kind, path in result["maps"].items():
        assert cog_validate(path, strict=True)[0]
        with rasterio.open(path) as made:
            arrays[kind] = made.read()
            names = made.descriptions
            assert np.isnan(made.nodata) or kind == "map"
        if kind == "probabilities":
            assert names == ("10 tree", "30 grass", "80 water")
    shares, valid = arrays["probabilities"], arrays["map"][0] != 0
    assert np.isnan(shares[:, ~valid]).all() and (~valid).sum() == 81
    np.testing.assert_allclose(shares[:, valid].sum(0), 1, atol=1e-3)
    np.testing.assert_array_equal(arrays["confidence"][0][valid], shares[:, valid].max(0))
    codes = np.array([10, 30, 80])[shares[:, valid].argmax(0)]
    np.testing.assert_array_equal(arrays["map"][0][valid], codes)


def test_values_have_no_probabilities(value_run, tmp_path):
    scene = make_scene(tmp_path / "new.tif")
    result = only(score(value_run, [str(scene)], out=tmp_path / "maps", maps=Maps(confidence=True)))
    assert "not classes" in result["error"]


def test_runs_that_share_a_pass_give_the_maps_they_give_alone(run, value_run, scene_run, tmp_path):
    scene = make_scene(tmp_path / "new.tif", hole=(slice(0, 9), slice(0, 9)))
    runs = [run, value_run, scene_run]
    together = score(run, [str(scene)], bundle=runs[1:], out=tmp_path / "all", engine=Engine(precision="f32"))
    assert [r["run"] for r in together] == [str(r) for r in runs]
    for one, result in zip(runs, together, strict=True):
        alone = only(score(one, [str(scene)], out=tmp_path / one.name, engine=Engine(precision="f32")))
        assert result["map"].endswith(f"new_{one.name}_map.tif")
        with rasterio.open(alone["map"]) as first, rasterio.open(result["map"]) as second:
            np.testing.assert_allclose(first.read(), second.read(), rtol=1e-4)


def test_a_wrong_unit_is_refused_an_unlikely_one_told_and_a_person_may_insist(run, tmp_path):
    scene = make_scene(tmp_path / "x.tif")
    with rasterio.open(scene) as file:
        bands = file.read().astype(np.float32)
    tags = {"names": BANDS, "tags": {"ACQUISITION_DATE": "2022-03-04"}}
    unit = str(write(tmp_path / "unit.tif", bands / 1e4, **tags))
    percent = str(write(tmp_path / "percent.tif", bands / 100, **tags))
    said: list[str] = []
    results = score(run, [str(scene), unit, percent], out=tmp_path / "maps", say=said.append)
    assert [result["status"] for result in results] == ["done", "failed", "done"]
    assert re.search(r"unit\.tif: .*reflectance of 0 to 1 \(--scale 1 --offset 0\).*--as_is", results[1]["error"])
    (told,) = [line for line in said if "WARNING" in line]
    assert told.startswith("percent: ") and "(--scale 0.01 --offset 0)" in told
    told_right = only(score(run, [unit], out=tmp_path / "right", reading=Reading(scale=1.0)))
    with rasterio.open(results[0]["map"]) as plain, rasterio.open(told_right["map"]) as right:
        assert np.mean(plain.read() == right.read()) > 0.999  # x / 1e4 * 1e4 is not always x
    assert only(score(run, [unit], out=tmp_path / "as_is", reading=Reading(as_is=True)))["status"] == "done"


def test_small_patches_go_and_the_rest_adds_up(run, tmp_path):
    import geopandas
    import pandas

    scene = make_scene(tmp_path / "new.tif", hole=(slice(0, 9), slice(0, 9)))
    files = {"polygons": tmp_path / "patches.gpkg", "area_table": tmp_path / "areas.csv"}
    result = only(score(run, [str(scene)], out=tmp_path / "maps", maps=Maps(min_area=2.0, **files)))
    with rasterio.open(result["map"]) as made:
        codes = made.read(1)
    table, patches = pandas.read_csv(files["area_table"]), geopandas.read_file(files["polygons"], layer="polygons")
    assert dict(zip(table.code, table.pixels, strict=True)) == {c: (codes == c).sum() for c in (10, 30, 80)}
    assert patches.hectares.sum() == pytest.approx(table.hectares.sum(), rel=1e-6)
    assert patches.hectares.min() >= 22 * 0.09 - 1e-2  # 2 ha are 22.2 pixels of 30 m
    assert ((patches.confidence > 1 / 3) & (patches.confidence <= 1)).all()
    assert (codes == 0).sum() == 81
    again = only(score(run, [str(scene)], out=tmp_path / "maps", maps=Maps(min_area=2.0, **files)))
    assert again["status"] == "kept"
    files["area_table"].write_text("the work of a person")
    with pytest.raises(InputError, match=r"areas\.csv: exists"):
        score(run, [str(scene)], out=tmp_path / "maps", maps=Maps(min_area=2.0, **files))
    with pytest.raises(InputError, match="a shard sees some scenes only"):
        score(
            run,
            [str(scene)],
            out=tmp_path / "other",
            maps=Maps(area_table=tmp_path / "new.csv"),
            share=Share(shard="1/2"),
        )
    with pytest.raises(InputError, match=r"areas\.txt"):
        score(run, [str(scene)], out=tmp_path / "other", maps=Maps(area_table=tmp_path / "areas.txt"))


def test_beside_a_map_lie_an_item_and_a_picture(run, tmp_path):
    import json

    import pystac
    from PIL import Image

    scene = make_scene(tmp_path / "new.tif")
    result = only(score(run, [str(scene)], out=tmp_path / "maps"))
    item = pystac.Item.from_dict(json.loads((tmp_path / "maps" / "new.json").read_text()))
    assert item.datetime is not None and item.datetime.date().isoformat() == "2022-03-04"
    assert {"map", "thumbnail"} <= set(item.assets)
    assert item.properties["mlm:tasks"] == ["semantic-segmentation"]
    with Image.open(result["picture"]) as picture:
        assert picture.format == "PNG" and min(picture.size) > 71


def test_maps_say_what_made_them(run, tmp_path):
    from models.bundle import bundle_id

    scene = make_scene(tmp_path / "new.tif")
    result = only(score(run, [str(scene)], out=tmp_path / "maps"))
    with rasterio.open(result["map"]) as made:
        tags = made.tags()
    assert tags["EARTHTUNE_BUNDLE"] == bundle_id(run) and len(tags["EARTHTUNE_RECIPE_SHA256"]) == 64
    assert tags["EARTHTUNE_INPUT"] == "new.tif" and tags["EARTHTUNE_BACKBONE"] == "prithvi_eo_v2_tiny_tl"
    assert tags["TIFFTAG_SOFTWARE"].startswith("earthtune ")


def test_areas_want_classes_and_a_place_before_any_work(scene_run, value_run, tmp_path):
    nowhere = make_scene(tmp_path / "nowhere.tif", crs=None)
    result = only(score(scene_run, [str(nowhere)], out=tmp_path / "maps", maps=Maps(min_area=1.0)))
    assert "no coordinate system" in result["error"]
    with pytest.raises(InputError, match="class maps"):
        score(value_run, [str(nowhere)], out=tmp_path / "maps", maps=Maps(min_area=1.0))
    assert not (tmp_path / "maps").exists()


def test_a_run_trained_anew_in_its_folder_is_loaded_anew(run, scene_run, tmp_path):
    import shutil

    scene = make_scene(tmp_path / "new.tif")
    folder = tmp_path / "a-run"
    maps = []
    for source in (run, scene_run):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        maps.append(only(score(folder, [str(scene)], out=tmp_path / source.name)))
    assert [m["status"] for m in maps] == ["done", "done"]


def test_files_of_a_person_are_not_replaced(run, tmp_path):
    scene = make_scene(tmp_path / "new.tif")
    for name in ("new.json", "new.png"):
        (tmp_path / name).write_text("mine")
        assert f"{name}: exists already" in only(score(run, [str(scene)], out=tmp_path))["error"]
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()


def test_overwrite_makes_a_map_anew(run, tmp_path):
    scene = make_scene(tmp_path / "new.tif")
    first = only(score(run, [str(scene)], out=tmp_path / "maps"))
    path = tmp_path / "maps" / "new_map.tif"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + b"x" * 9)
    assert only(score(run, [str(scene)], out=tmp_path / "maps"))["status"] == "kept"
    again = only(score(run, [str(scene)], out=tmp_path / "maps", overwrite=True))
    assert again["status"] == "done" and path.read_bytes() == whole and again["valid"] == first["valid"]


def test_other_options_in_the_same_folder_are_told_from_files_of_a_person(run, tmp_path):
    scene = make_scene(tmp_path / "new.tif")
    score(run, [str(scene)], out=tmp_path / "maps")
    error = only(score(run, [str(scene)], out=tmp_path / "maps", maps=Maps(probabilities=True)))["error"]
    assert "new_map.tif: exists already, made with other options" in error and "--overwrite makes all maps" in error
    assert only(score(run, [str(scene)], out=tmp_path / "maps"))["status"] == "kept"


@pytest.mark.parametrize(
    ("size", "how", "told"), [(30.0, "train", ""), (10.0, "never", "WARNING: "), (10.0, "train", "")]
)
def test_pixels_of_another_size_than_in_training_are_told(run, tmp_path, size, how, told):
    said = []
    scene = make_scene(tmp_path / "new.tif", size=size)
    score(run, [str(scene)], out=tmp_path / "maps", reading=Reading(resample=how), say=said.append)
    lines = [line for line in said if f"new: {told}its pixels are 10 m, those of the training 30 m" in line]
    assert len(lines) == (size == 10)
    assert all(("resampled to 30 m" in line) == (how == "train") for line in lines)
    assert all(("--resample train brings the scene onto 30 m" in line) == (how == "never") for line in lines)


def test_what_a_vrt_reads_is_part_of_the_input(run, tmp_path, monkeypatch):
    scene = make_scene(tmp_path / "new.tif")
    rasterio.shutil.copy(scene, tmp_path / "view.vrt", driver="VRT")
    vrt = str(tmp_path / "view.vrt")
    assert only(score(run, [vrt], out=tmp_path / "maps"))["status"] == "done"
    assert only(score(run, [vrt], out=tmp_path / "maps"))["status"] == "kept"
    monkeypatch.chdir(tmp_path)  # the ledger does not keep where the maps were
    assert only(score(run, [vrt], out=Path("maps")))["map"] == "maps/view_map.tif"
    make_scene(scene, hole=(slice(0, 5), slice(0, 5)))
    assert "exists already" in only(score(run, [vrt], out=tmp_path / "maps"))["error"]


def test_virtual_rasters_ask_for_trust_and_every_worker_has_it(run, tmp_path):
    scenes = []
    for name in ("one", "two"):
        scene = make_scene(tmp_path / f"{name}.tif")
        rasterio.shutil.copy(scene, tmp_path / f"{name}.vrt", driver="VRT")
        text = (tmp_path / f"{name}.vrt").read_text().replace("SimpleSource", "KernelFilteredSource")
        kernel = "<Kernel><Size>3</Size><Coefs>0 0 0 0 1 0 0 0 0</Coefs></Kernel></KernelFilteredSource>"
        (tmp_path / f"{name}.vrt").write_text(text.replace("</KernelFilteredSource>", kernel))
        scenes.append(str(tmp_path / f"{name}.vrt"))
    for result in score(run, scenes, out=tmp_path / "maps"):
        assert (
            "asks for KernelFilteredSource, which only --trust allows" in result["error"] and result["exit_code"] == 2
        )
    done = score(run, scenes, out=tmp_path / "maps", trust=True, share=Share(workers=2))
    assert [result["status"] for result in done] == ["done", "done"]


SECRET = ("https://me:word@127.0.0.1:9/x.tif?sig=word", "/vsicurl/http://word@127.0.0.1:9/y.tif?a=word")


@pytest.mark.parametrize("source", SECRET)
def test_results_hold_no_passwords_and_no_keys(run, tmp_path, source, capsys):
    from pipelines.cli.main import main

    assert main(["score", str(run), source, "--out", str(tmp_path / "maps"), "--json"]) == 2
    out, err = capsys.readouterr()
    assert "127.0.0.1:9/" in out and "word" not in out + err


def test_maps_hold_no_keys_and_no_escapes(run, tmp_path):
    """A scene behind an address with a key, under a name that moves the cursor."""
    make_scene(tmp_path / "far" / "esc\x1b[31m.tif")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "far"))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = f"http://127.0.0.1:{server.server_port}/esc%1B[31m.tif?sig=word"
        result = only(score(run, [source], out=tmp_path / "maps"))
        server.shutdown()
    assert result["status"] == "done", result
    local = only(score(run, [str(tmp_path / "far" / "esc\x1b[31m.tif")], out=tmp_path / "local"))
    for path in [p for folder in ("maps", "local") for p in (tmp_path / folder).rglob("*") if p.is_file()]:
        content = path.read_bytes()
        assert b"word" not in content, path
        assert path.suffix == ".png" or b"\x1b[31m" not in content, path
    with rasterio.open(local["map"]) as made:
        assert made.tags()["EARTHTUNE_INPUT"] == r"esc\x1b[31m.tif"


EUROPA = """PROJCS["Europa",GEOGCS["GCS_Europa",DATUM["D_Europa",SPHEROID["Europa",1560800,0]],PRIMEM["Reference",0],
UNIT["degree",0.0174532925199433]],PROJECTION["Equirectangular"],PARAMETER["standard_parallel_1",0],
PARAMETER["central_meridian",180],PARAMETER["false_easting",0],PARAMETER["false_northing",0],UNIT["metre",1]]"""
PLACES = [
    ("EPSG:4326", (10.0, 400.0), "latitudes from"),
    (EUROPA, (0, 0), "Cannot find"),
    ("EPSG:32633", (1e9, 1e9), ""),
]


@pytest.mark.parametrize(("crs", "corner", "told"), PLACES)
def test_no_place_on_the_earth_is_a_mistake_of_the_input(run, tmp_path, crs, corner, told):
    scene = make_scene(tmp_path / "new.tif", crs=crs, corner=corner, size=0.001 if crs == "EPSG:4326" else 30.0)
    result = only(score(run, [str(scene)], out=tmp_path / "maps", maps=Maps(area_table=tmp_path / "a.csv")))
    assert result["exit_code"] == 2 and told in result["error"] and len(result["error"]) < 600
    assert "report it" not in result["error"] and not list((tmp_path / "maps").glob("*.tif"))


def test_columns_that_no_memory_holds_are_refused_at_once(run, tmp_path, monkeypatch):
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1 << 18}[name])  # 1 GiB
    make_scene(tmp_path / "new.tif")
    rasterio.shutil.copy(tmp_path / "new.tif", tmp_path / "wide.vrt", driver="VRT")
    text = (tmp_path / "wide.vrt").read_text()
    for columns in (2**24, 2**31 - 1):
        (tmp_path / "wide.vrt").write_text(re.sub(r'rasterXSize="\d+"', f'rasterXSize="{columns}"', text, count=1))
        begun = time.monotonic()
        result = only(score(run, [str(tmp_path / "wide.vrt")], out=tmp_path / "maps"))
        assert result["exit_code"] == 2 and ("of memory" in result["error"] or "columns, at most" in result["error"])
        assert time.monotonic() - begun < 30


@pytest.mark.parametrize("there", [False, True])
def test_a_scene_that_fails_at_the_end_leaves_nothing_new_and_takes_nothing_away(run, tmp_path, monkeypatch, there):
    scene, out = str(make_scene(tmp_path / "new.tif")), tmp_path / "maps"
    if there:
        score(run, [scene], out=out)
    before = {path.name: path.read_bytes() for path in out.glob("*") if path.is_file()}

    def fail(*_):
        raise ValueError("a fault of ours")

    monkeypatch.setattr("pipelines.scoring.jobs.join" if there else "pipelines.outputs.item.write_stac_item", fail)
    result = only(score(run, [scene], out=out, maps=Maps(confidence=True), overwrite=there))
    assert result["status"] == "failed" and "a fault of ours" in result["error"]
    assert {path.name: path.read_bytes() for path in out.glob("*") if path.is_file()} == before
    assert not [*out.glob(".earthtune/*/begun")]
    monkeypatch.undo()
    again = only(score(run, [scene], out=out, maps=Maps(confidence=True), overwrite=there))
    assert again["status"] == "done" and (out / "new_confidence.tif").is_file()
