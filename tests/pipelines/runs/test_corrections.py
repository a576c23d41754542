"""Answers of reviews in a training: where they are learned, where never, and what is told of it."""

from __future__ import annotations

import dataclasses
import json
import sys

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from odc.geo.geobox import GeoBox
from rasterio.transform import from_origin

from models.bundle import read_bundle
from models.errors import InputError
from models.spec import IMAGERY
from models.training import statistics
from pipelines.commands import finetune as command
from pipelines.review.answers import Answer
from pipelines.runs import corrections as module
from pipelines.runs.check import check
from pipelines.runs.corrections import take_up
from pipelines.runs.finetune import finetune
from pipelines.runs.folder import Launch
from pipelines.samples.chips import SAID
from pipelines.samples.sets import read_split
from pipelines.tasks.task import prepare, task_named
from tests.pipelines.review.scenes_to_review import write_review
from tests.runs import BANDS, CLASSES, make_chip, make_chips, tiny_recipe, write

TREE, GRASS, WATER = (entry.code for entry in CLASSES)


def grid_of(chip, *, crs="EPSG:32632", side=32):
    """The grid of a chip of `make_chips`, by its number."""
    return GeoBox((side, side), from_origin(500000 + 5000 * chip, 5000000, 30, 30), crs)


def square(top, left, size=8, *, side=32):
    inside = np.zeros((side, side), bool)
    inside[top : top + size, left : left + size] = True
    return inside


def recipe_of(root, *files, **changes):
    recipe = tiny_recipe(root)
    data = dataclasses.replace(recipe.data, corrections=list(files), **changes)
    return dataclasses.replace(recipe, data=data)


def shortly(recipe, epochs):
    """A recipe of few epochs, by the member of statistics alone."""
    training = dataclasses.replace(recipe.training, epochs=epochs, keep="last")
    return dataclasses.replace(recipe, training=training, model=dataclasses.replace(recipe.model, share=1.0))


def taken(recipe, **changes):
    samples = prepare(recipe)
    return samples, take_up(dataclasses.replace(recipe, **changes), samples)


def numbers(samples, *splits):
    """Numbers of the chips of some splits."""
    return [int(chip.name[1:3]) for chip in samples.of(*splits) if chip.label]


def truth(samples, chip, **changes):
    """Class codes of a chip by its number, 0 where not labelled."""
    (found,) = [c for c in samples.own if c.name.startswith(f"c{chip:02d}")]
    y = samples.truth(dataclasses.replace(found, **changes))
    return np.where(y < 0, 0, np.array([TREE, GRASS, WATER])[y])


@pytest.fixture
def split(chips):
    """Numbers of chips that are learned from, and that are tested."""
    samples = prepare(tiny_recipe(chips))
    return numbers(samples, "train"), numbers(samples, "test")


def test_answers_take_the_place_of_labels_by_their_place_on_the_ground(chips, split, tmp_path):
    """The review is in another zone and on other pixels; which centres lie in its polygons is asked of shapely."""
    one = split[0][0]
    geobox = GeoBox((60, 60), from_origin(27000 + 5000 * one, 5020000, 41, 41), "EPSG:32633")
    there = geopandas.GeoSeries([shapely.box(*grid_of(one).boundingbox)], crs=32632).to_crs(32633).total_bounds
    geobox = GeoBox((30, 30), from_origin(there[0] - 50, there[3] + 50, 41, 41), "EPSG:32633")
    ring = tuple(geobox.affine * corner for corner in ((14, 12), (24, 14), (16, 22)))
    say = [
        (square(2, 3, 9, side=30), Answer("class", WATER)),
        (square(12, 12, 8, side=30), Answer("class", GRASS, ((TREE, ring),))),
        (square(2, 16, 9, side=30), Answer("unsure")),
        (square(20, 2, 5, side=30), Answer()),
    ]
    file = write_review(tmp_path / "a_review.gpkg", geobox, say, CLASSES)
    samples, (told,) = taken(recipe_of(chips, file))
    x, y = np.meshgrid(np.arange(32) + 0.5, np.arange(32) + 0.5)
    points = shapely.points(*(grid_of(one).affine * (x.ravel(), y.ravel())))
    centres = geopandas.GeoSeries(points, crs=32632).to_crs(32633)
    wanted = make_chip(one)[1][0].ravel()
    for inside, code in ((say[0][0], WATER), (say[1][0], GRASS)):
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        corners = [geobox.affine * xy for xy in ((columns[0], rows[0]), (columns[-1] + 1, rows[-1] + 1))]
        wanted = np.where(centres.within(shapely.box(*np.sort(np.array(corners), axis=0).ravel())), code, wanted)
    drawn = centres.within(shapely.Polygon(ring)).to_numpy()
    wanted = np.where(drawn, TREE, wanted).reshape(32, 32)
    found = truth(samples, one)
    assert drawn.sum() > 20 and (found == wanted).mean() > 0.995  # centres on edges fall to either side
    assert (truth(samples, one, split="val") == make_chip(one)[1][0]).all()  # held out, nobody has said a thing
    said = truth(samples, one, split=SAID)
    assert ((said > 0) == (found != 0) & ((said == found) & (said > 0))).all() and 0 < (said > 0).sum() < 400
    assert told["regions"] == 3 and told["held"] == told["elsewhere"] == told["chips"] == 0 and told["images"] == 1
    assert sum(told["pixels"].values()) == (said > 0).sum() and told["pixels"]["tree"] == (said == TREE).sum()


def test_what_was_agreed_to_has_the_classes_of_the_map_and_the_later_file_counts(chips, split, tmp_path):
    one = split[0][0]
    codes = np.where(np.arange(32) < 12, TREE, WATER)[None] + np.zeros((32, 1), int)
    say = [(square(4, 8), Answer("agree"))]
    first = write_review(tmp_path / "a.gpkg", grid_of(one), say, CLASSES, codes=codes.astype(np.uint8))
    second = write_review(tmp_path / "b.gpkg", grid_of(one), [(square(10, 8, 4), Answer("class", GRASS))], CLASSES)
    wanted = np.where(square(4, 8), codes, make_chip(one)[1][0])
    wanted[10:14, 8:12] = GRASS
    samples, told = taken(recipe_of(chips, first, second))
    assert (truth(samples, one) == wanted).all()
    assert [t["pixels"] for t in told] == [{"water": 32, "tree": 24}, {"grass": 16}]


def test_nothing_is_learned_of_held_out_ground(chips, split, tmp_path):
    train, test = split
    say = [(square(4, 4), Answer("class", WATER))]
    held = write_review(tmp_path / "held.gpkg", grid_of(test[0]), say, CLASSES)
    learned = write_review(tmp_path / "learned.gpkg", grid_of(train[0]), say, CLASSES)
    samples, told = taken(recipe_of(chips, held, learned))
    assert (truth(samples, test[0]) == make_chip(test[0])[1][0]).all()
    assert [(t["regions"], t["held"]) for t in told] == [(0, 1), (1, 0)]
    assert any("1 on held-out ground" in note for note in samples.notes)
    with pytest.raises(InputError, match=r"nothing to learn from: all 1 answered regions lie on ground that is held"):
        taken(recipe_of(chips, held))


def test_a_region_on_the_edge_of_held_out_ground_is_not_learned_on_the_other_side(tmp_path):
    """Twelve images side by side, each a group of its own, and a review over all of them."""
    for i in range(12):
        bands, codes = make_chip(i)
        write(tmp_path / f"c{i:02d}_hls.tif", bands, corner=(500000 + 960 * i, 5000000), names=BANDS)
        write(tmp_path / f"c{i:02d}_lc.tif", codes, corner=(500000 + 960 * i, 5000000))
    samples = prepare(tiny_recipe(tmp_path))
    test = set(numbers(samples, "val", "test"))
    geobox = GeoBox((32, 12 * 32), from_origin(500000, 5000000, 30, 30), "EPSG:32632")
    say = []
    for i in range(11):  # over each border between two images
        inside = np.zeros((32, 12 * 32), bool)
        inside[10:20, 32 * i + 28 : 32 * i + 36] = True
        say.append((inside, Answer("class", WATER)))
    file = write_review(tmp_path / "all.gpkg", geobox, say, CLASSES)
    samples, (told,) = taken(recipe_of(tmp_path, file))
    both = [i for i in range(11) if not {i, i + 1} & test]
    assert (told["regions"], told["held"]) == (len(both), 11 - len(both)) and 0 < len(both) < 11
    for i in numbers(samples, "train"):
        wanted = make_chip(i)[1][0].copy()
        wanted[10:20, :4] = WATER if i - 1 in both else wanted[10:20, :4]
        wanted[10:20, 28:] = WATER if i in both else wanted[10:20, 28:]
        assert (truth(samples, i) == wanted).all()


@pytest.fixture
def new_scene(tmp_path):
    """A scene that is no training image, with its map and a review beside it: four answered regions."""
    bands = np.concatenate([make_chip(i)[0] for i in (3, 4, 5)], axis=2)
    tags = {"ACQUISITION_DATE": "2021-06-15"}
    write(tmp_path / "new.tif", bands, corner=(800000, 5100000), names=BANDS, tags=tags, nodata=-9999)
    codes = np.full((1, 32, 96), TREE, np.uint8)
    write(tmp_path / "new_map.tif", codes, corner=(800000, 5100000), tags={"EARTHTUNE_INPUT": "new.tif"})
    geobox = GeoBox((32, 96), from_origin(800000, 5100000, 30, 30), "EPSG:32632")
    inside = np.zeros((4, 32, 96), bool)
    inside[0, 4:10, 4:10] = inside[1, 20:30, 50:60] = inside[2, 20:30, 62:66] = inside[3, :3, 80:84] = True
    said = [Answer("class", GRASS), Answer("agree"), Answer("class", WATER), Answer("unsure")]
    with rasterio.open(tmp_path / "new_map.tif") as source:
        assert source.count == 1
    from models.runtime.hashes import sha256_now

    header = {"format": 1, "map": "new_map.tif", "hashes": {"map": sha256_now(tmp_path / "new_map.tif")}}
    say = list(zip(inside, said, strict=True))
    return write_review(tmp_path / "new_review.gpkg", geobox, say, CLASSES, codes=codes[0], header=header)


@pytest.mark.parametrize("folds", [0, 3])
def test_a_reviewed_scene_is_learned_around_its_answers_and_never_tested(chips, new_scene, folds):
    samples, (told,) = taken(recipe_of(chips, new_scene))
    if folds:
        samples.fold(folds, 1, seed=0)
    added = [chip for chip in samples.samples if chip.label is None]
    assert [chip.name for chip in added] == ["new_review1_0_0", "new_review1_0_32", "new_review1_0_64"]
    assert {chip.split for chip in added} == {"train"} and {chip.group for chip in added} == {"review of new"}
    wanted = np.full((32, 96), -1)
    wanted[4:10, 4:10], wanted[20:30, 50:60], wanted[20:30, 62:66] = 1, 0, 2
    assert (np.concatenate([samples.truth(chip) for chip in added], axis=1) == wanted).all()
    bands = np.concatenate([samples.item(chip)[IMAGERY][:, 0] for chip in added], axis=2)
    assert (bands[:, :, :32] == make_chip(3)[0]).all()
    assert (told["regions"], told["images"], told["chips"], told["map"]) == (3, 0, 3, "new_map.tif")
    assert told["pixels"] == {"tree": 100, "water": 40, "grass": 36}


def test_a_scene_elsewhere_is_named_and_one_that_is_a_training_image_is_not_cut(chips, split, new_scene, tmp_path):
    moved = (tmp_path / "away").mkdir() or (tmp_path / "new.tif").rename(tmp_path / "away" / "new.tif")
    with pytest.raises(InputError, match=r"new_review.gpkg: none of its 3 answered regions lies on an image .*_scenes"):
        taken(recipe_of(chips, new_scene))
    samples, (told,) = taken(recipe_of(chips, new_scene, corrections_scenes=[moved]))
    assert told["chips"] == 3
    other = write(
        tmp_path / "other.tif", make_chip(0)[0], corner=(0, 0), names=BANDS, tags={"ACQUISITION_DATE": "2021-06-15"}
    )
    with pytest.raises(InputError, match=r"other.tif: no answered region of .*new_review.gpkg lies on it"):
        taken(recipe_of(chips, new_scene, corrections_scenes=[other]))
    with pytest.raises(InputError, match="2 scenes for 1 files"):
        taken(recipe_of(chips, new_scene, corrections_scenes=[moved, moved]))
    file = write_review(tmp_path / "x.gpkg", grid_of(split[0][0]), [(square(4, 4), Answer("class", WATER))], CLASSES)
    own = chips / f"c{split[0][0]:02d}_hls.tif"
    samples, (told,) = taken(recipe_of(chips, file, corrections_scenes=own))
    assert (told["chips"], told["images"]) == (0, 1) and samples.added == []


def test_a_reviewed_scene_over_held_out_ground_teaches_nothing_of_it(chips, split, tmp_path):
    """A scene of another day on the ground of a training chip and of a tested one; folds move what is held out."""
    train, test = split
    files = []
    for i in (train[0], test[0]):
        scene = write(
            tmp_path / f"day{i}.tif",
            make_chip(i)[0],
            corner=(500000 + 5000 * i, 5000000),
            names=BANDS,
            tags={"ACQUISITION_DATE": "2021-07-15"},
            nodata=-9999,
        )
        say = [(square(4, 4), Answer("class", WATER))]
        files.append((write_review(tmp_path / f"day{i}.gpkg", grid_of(i), say, CLASSES), scene))
    reviews, scenes = zip(*files, strict=True)
    samples, told = taken(recipe_of(chips, *reviews, corrections_scenes=list(scenes)))
    assert [(t["images"], t["chips"], t["held"]) for t in told] == [(1, 1, 0), (0, 0, 1)]
    assert [chip.name for chip in samples.samples if chip.label is None] == [f"day{train[0]}_review1_0_0"]
    for fold in range(3):
        samples.fold(3, fold, seed=0)
        left = set(numbers(samples, "test"))
        there = {int(chip.images[0].stem[3:]) for chip in samples.samples if chip.label is None}
        assert there == {train[0], test[0]} - left
        for i in (train[0], test[0]):
            (chip,) = [chip for chip in samples.own if chip.name.startswith(f"c{i:02d}")]
            found = (samples.truth(chip)[4:12, 4:12] == 2).all()
            assert found == (i not in left or (make_chip(i)[1][0, 4:12, 4:12] == WATER).all())
    samples.fold(3, None, seed=0)
    assert len(samples.samples) == 14


def test_a_scene_hears_of_its_own_review_alone(chips, split, tmp_path):
    """Two days of one place, each reviewed: what was said of one day need not hold on the other."""
    one, tags = split[0][0], {"ACQUISITION_DATE": "2021-07-15"}
    say = {"a": (square(4, 4), Answer("class", WATER)), "b": (square(16, 16), Answer("class", GRASS))}
    place = {"corner": (500000 + 5000 * one, 5000000), "names": BANDS, "tags": tags}
    days = [write(tmp_path / f"{day}.tif", make_chip(i)[0], **place) for i, day in enumerate(say)]
    files = [write_review(tmp_path / f"{day}.gpkg", grid_of(one), [said], CLASSES) for day, said in say.items()]
    samples, _ = taken(recipe_of(chips, *files, corrections_scenes=days))
    first, second = samples.added
    assert (samples.truth(first) == np.where(square(4, 4), 2, -1)).all()
    assert (samples.truth(second) == np.where(square(16, 16), 1, -1)).all()
    assert (truth(samples, one)[square(4, 4)] == WATER).all() and (truth(samples, one)[square(16, 16)] == GRASS).all()


def test_blocks_that_are_held_out_hold_the_added_chips_in_them(chips, new_scene):
    """With blocks, a reviewed scene belongs to the block that it lies in."""
    recipe = recipe_of(chips, new_scene, block_km=5.0)
    samples, _ = taken(recipe)
    groups = {chip.group for chip in samples.added}
    assert groups and all(group.startswith("block_") for group in groups)
    samples.samples = [
        dataclasses.replace(c, group=min(groups), split="test") if i == 0 else c for i, c in enumerate(samples.own)
    ]
    samples._settle()
    assert {c.group for c in samples.samples if c.label is None} == groups - {min(groups)}


def test_a_file_that_is_no_review_is_told_before_anything_is_trained(chips, tmp_path, monkeypatch):
    (tmp_path / "review.gpkg").write_text("none")
    monkeypatch.setitem(sys.modules, "pipelines.runs.finetune", None)
    with pytest.raises(InputError, match=r"review.gpkg: not a polygon file"):
        command.train(recipe_of(chips, tmp_path / "review.gpkg"), out=tmp_path / "run")


def test_corrected_pixels_count_as_often_as_is_said(chips, split, tmp_path):
    one = split[0][0]
    file = write_review(tmp_path / "a.gpkg", grid_of(one), [(square(4, 4), Answer("class", WATER))], CLASSES)
    samples, _ = taken(recipe_of(chips, file, corrections_weight=3.0))
    counts = {chip.name[:3]: samples.counts(chip) for chip in samples.samples}
    assert (counts[f"c{one:02d}"] == np.where(square(4, 4), 3, 1)).all()
    assert all((count == 1).all() for name, count in counts.items() if name != f"c{one:02d}")
    samples, _ = taken(recipe_of(chips, file))
    assert samples.counts(samples.samples[0]) is None
    turned = samples.varied(
        {"y": square(0, 0), "counts": square(0, 0) * 2.0, IMAGERY: np.zeros((6, 1, 32, 32))}, np.random.default_rng(5)
    )
    assert (turned["counts"] == turned["y"] * 2.0).all()


@pytest.mark.parametrize(
    ("task", "changes", "told"),
    [
        ("regression", {"corrections": ["a.gpkg"]}, "data.corrections: task regression does not use it"),
        ("classification", {"corrections": ["a.gpkg"]}, "data.corrections: task classification does not use it"),
        ("segmentation", {"corrections_weight": 2.0}, "data.corrections_weight: nothing is corrected"),
        ("segmentation", {"corrections": ["a.gpkg"], "corrections_weight": 0.0}, "corrections_weight 0.0: wanted"),
    ],
)
def test_settings_that_say_nothing_are_refused(tmp_path, task, changes, told):
    recipe = tiny_recipe(tmp_path, task=task, classes=[])
    data = dataclasses.replace(recipe.data, **changes)
    plain = {"model": dataclasses.replace(recipe.model, decoder="upernet", detail=16, statistics=128)}
    data = dataclasses.replace(data, labels=None) if task == "classification" else data
    with pytest.raises(InputError, match=told):
        check(task_named(task), dataclasses.replace(recipe, data=data, **plain))


def make_wrong(tmp_path, monkeypatch, count):
    """Chips of which most that are learned from have two classes exchanged; and the reviews that set them right."""
    monkeypatch.setattr(statistics, "LEAST", 100)
    monkeypatch.setattr(statistics, "BATCH", 256)
    root = make_chips(tmp_path / "chips", count)
    samples = prepare(tiny_recipe(root))
    files = []
    for i in numbers(samples, "train"):
        if i % 4 == 0:
            continue
        codes = make_chip(i)[1]
        other = np.where(codes == TREE, GRASS, np.where(codes == GRASS, TREE, codes)).astype(np.uint8)
        write(root / f"c{i:02d}_lc.tif", other, corner=(500000 + 5000 * i, 5000000), nodata=0)
        say = [(codes[0] == code, Answer("class", int(code))) for code in np.unique(codes)]
        files.append(write_review(tmp_path / f"r{i}.gpkg", grid_of(i), say, CLASSES))
    return root, files


def test_a_run_tells_what_the_corrections_changed(tmp_path, monkeypatch, torch_only):
    root, files = make_wrong(tmp_path, monkeypatch, 24)
    said, out = [], tmp_path / "run"
    recipe = shortly(recipe_of(root, *files), 2)
    result = finetune(recipe, out, launch=Launch(say=said.append))
    found = result["corrections"]
    untouched = found["untouched"]
    assert untouched["with"] > untouched["without"] + 0.2 and untouched["compared"]["verdict"] == "ahead"
    assert untouched["with"] == pytest.approx(result["model"][untouched["score"]], abs=1e-6)  # all tested are untouched
    assert found["learned"]["with"] > 0.8 > 0.6 > found["learned"]["without"] and found["left_out"] is None
    assert found["told"][0].startswith("Corrections, on groups that none of them touches: mean IoU")
    assert "The model with them is ahead by" in found["told"][0]
    assert all(line in (out / "report.html").read_text() for line in found["told"])
    assert json.loads((out / "metrics.json").read_text())["corrections"] == found
    kept = read_bundle(out).training["corrections"]
    assert [one["file"] for one in kept] == [file.name for file in files] and len(kept[0]["sha256"]) == 64
    assert sum(sum(one["pixels"].values()) for one in kept) == 32 * 32 * len(files)
    assert any(f"corrections of {files[0].name} (sha256 {kept[0]['sha256'][:12]})" in line for line in said)
    assert set(read_split(out / "split.csv", ("chip",)).values()) == {"train", "val", "test"}


def test_with_folds_the_corrected_places_are_told_by_models_that_never_saw_them(tmp_path, monkeypatch, torch_only):
    root, files = make_wrong(tmp_path, monkeypatch, 12)
    recipe = recipe_of(root, *files)
    result = finetune(dataclasses.replace(shortly(recipe, 1), folds=2), tmp_path / "run")
    found = result["corrections"]
    assert found["learned"] is None and found["left_out"]["with"] > found["left_out"]["without"] + 0.2
    assert found["untouched"]["compared"]["groups"] == 12 - len(files)
    assert result["model"][found["untouched"]["score"]] < found["untouched"]["with"]  # wrong labels are scored, too


def test_a_second_training_comes_where_it_is_asked_for(chips, split, tmp_path, monkeypatch):
    file = write_review(tmp_path / "a.gpkg", grid_of(split[0][0]), [(square(4, 4), Answer("class", WATER))], CLASSES)
    recipe = recipe_of(chips, file, corrections_compare=False)
    samples, _ = taken(recipe)
    monkeypatch.setattr(module, "train", lambda *given: pytest.fail("trained"))
    assert module.without(task_named("segmentation"), recipe, samples, tmp_path, Launch(), first=True) is None


def test_a_run_is_not_gone_on_with_by_other_answers(chips, split, tmp_path):
    one = split[0][0]
    for name, size in (("a", 8), ("b", 8), ("b", 9)):
        file = write_review(
            tmp_path / f"{name}.gpkg", grid_of(one), [(square(4, 4, size), Answer("class", WATER))], CLASSES
        )
        _, told = taken(recipe_of(chips, file))
        told = [{**one, "file": "", "sha256": ""} for one in told]
        if size == 8:
            module.keep(tmp_path, told)
    with pytest.raises(InputError, match="reviews are others than when the run was begun"):
        module.keep(tmp_path, told)
