"""Students of runs: a run folder as any other, which knows its teacher and is told of beside it."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from models.bundle import Bundle, bundle_id, load_network, read_bundle, write_bundle
from models.errors import InputError
from models.runtime.export import example_inputs
from models.spec import Series, Spec, Values
from models.training.pruning import parameters
from models.training.settings import TableArchitecture
from pipelines.runs import training
from pipelines.runs.check import check
from pipelines.runs.distil import student_of, take_up
from pipelines.runs.finetune import finetune
from pipelines.runs.folder import Launch
from pipelines.runs.worth.students import products
from pipelines.tasks.task import prepare, task_named
from tests.runs import BANDS, make_chip, write

pytestmark = pytest.mark.usefixtures("unrendered")
WANTED = {"size": "small", "unlabelled": [], "epochs": 2, "data_root": None, "compare": True}


def recipe_of(run, **changes):
    bundle = read_bundle(run)
    most = int(0.6 * parameters(bundle.spec, bundle.backbone, bundle.architecture))
    return student_of(run, **{**WANTED, "params": most, **changes})


@pytest.fixture
def elsewhere(tmp_path):
    """Scenes without labels: one on the ground of a chip, one far from all."""
    for name, side, corner in (("near", 96, (500000, 5000000)), ("far", 64, (700000, 5300000))):
        bands, _ = make_chip(3, side=side)
        tags = {"ACQUISITION_DATE": "2021-07-15"}
        write(tmp_path / "free" / f"{name}.tif", bands, corner=corner, size=30.0, names=BANDS, tags=tags, nodata=-9999)
    return tmp_path / "free"


def test_a_student_is_a_run_that_is_told_of_beside_its_teacher(run, elsewhere, tmp_path, torch_only):
    recipe = recipe_of(run, unlabelled=[str(elsewhere)])
    said = []
    result = finetune(recipe, tmp_path / "student", launch=Launch(say=said.append), name="student of run")
    bundle, teacher = read_bundle(tmp_path / "student"), read_bundle(run)
    assert bundle.training["distilled"] == {"teacher": bundle_id(run), "unlabelled": 9}
    assert bundle.whole and bundle.spec.answers == teacher.spec.answers
    assert any("9 samples without labels" in line for line in said)
    rows = {row["name"]: row for row in result["student"]["rows"]}
    assert set(rows) == {"student", "teacher", "the same without a teacher"}
    mine, theirs = rows["student"], rows["teacher"]
    assert mine["parameters"] == sum(w.numel() for w in load_network(tmp_path / "student").parameters())
    assert mine["parameters"] <= 0.6 * theirs["parameters"] and mine["products"] < theirs["products"]
    assert rows["the same without a teacher"]["parameters"] == mine["parameters"]
    assert mine["score"] == pytest.approx(result["model"]["mean_iou"])
    assert theirs["score"] == pytest.approx(teacher.scores["mean_iou"], abs=1e-6)  # on the same test split
    page = (tmp_path / "student" / "report.html").read_text()
    assert "Student and teacher" in page and result["student"]["told"][0] in page
    assert json.loads((tmp_path / "student" / "metrics.json").read_text())["student"] == result["student"]
    sure = result["confidence"]["measures"]["raw"]
    assert mine["confidence"]["ece"] == pytest.approx(sure["ece"], abs=1e-4)  # asked about the same groups
    assert "6 groups are too few" in result["student"]["unfamiliar"]["why"]
    costs = json.loads((tmp_path / "student" / "cost.json").read_text())
    assert costs["km2"] == pytest.approx(0.72**2) and set(costs["models"]) == {"student", "teacher"}
    engines = {name: [one["engine"] for one in found.values()] for name, found in costs["models"].items()}
    assert engines["student"] == engines["teacher"] == ["torch cpu f32", "torch cpu bf16"]  # one of them has no graph
    assert "CPU time a tile, f32" in page and "Energy per 1,000 km2, bf16" in page
    for name in ("bundle.json", "metrics.json"):  # which are the same from run to run
        assert "cpu_s" not in (tmp_path / "student" / name).read_text()


def test_nothing_on_labelled_ground_is_learned_without_labels(run, elsewhere):
    recipe = recipe_of(run, unlabelled=[str(elsewhere)])
    samples = prepare(recipe)
    before = {chip.name for chip in samples.samples}
    take_up(recipe, samples)
    new = [chip for chip in samples.samples if chip.name not in before]
    assert sum(chip.images[0].name == "far.tif" for chip in new) == 4
    corners = sorted((c.window[0].start, c.window[1].start) for c in new if c.images[0].name == "near.tif")
    assert corners == [(0, 64), (32, 64), (64, 0), (64, 32), (64, 64)]  # the others are a chip, or touch it
    assert all(chip.split == "train" and (samples.truth(chip) == -1).all() for chip in new)
    assert len(samples.own) == len(before)


def test_all_of_it_on_labelled_ground_is_refused(run, chips):
    recipe = recipe_of(run, unlabelled=[str(chips / "c00_hls.tif")])
    with pytest.raises(InputError, match="all of it lies on ground that is labelled"):
        take_up(recipe, prepare(recipe))


def test_a_student_of_a_fold_learns_from_the_teacher_of_that_fold(run, tmp_path, monkeypatch):
    """Whoever told it of a group that it is asked about would tell it the answers."""
    recipe = dataclasses.replace(recipe_of(run), folds=2)
    asked = []
    monkeypatch.setattr(training, "trained", lambda recipe, spec, folder: asked.append(folder) or "network")
    assert training.teacher_of(recipe, None, tmp_path / "folds" / "2") != "network"  # a run in a folder of that name
    (tmp_path / "recipe.yaml").touch()
    assert training.teacher_of(recipe, None, tmp_path / "folds" / "2") == "network"
    assert asked == [run.resolve() / "folds" / "2"]
    with pytest.raises(InputError, match="the network of fold 1 is not there"):
        take_up(recipe, prepare(recipe))


def test_what_cannot_have_students_is_refused(run, rain_run, scene_run, elsewhere, tmp_path):
    rows = Spec("table", {"context": Series(("a",), ("",), (0.0,), (1.0,))}, {"value": Values(support="sample")})
    (tmp_path / "table").mkdir()
    write_bundle(tmp_path / "table", Bundle(rows, "none", TableArchitecture()))
    with pytest.raises(InputError, match="a table run; students are made of runs over scenes or weather"):
        student_of(tmp_path / "table", **WANTED, params=None)
    with pytest.raises(InputError, match="--unlabelled: scenes, for runs over scenes"):
        student_of(rain_run, **{**WANTED, "unlabelled": ["x.tif"]}, params=None)
    with pytest.raises(InputError, match="--size huge: wanted one of small, tiny"):
        student_of(run, **{**WANTED, "size": "huge"}, params=None)
    anew = shutil.copytree(run, tmp_path / "anew")
    (anew / "recipe.yaml").write_text((run / "recipe.yaml").read_text().replace("refit: false", "refit: true"))
    with pytest.raises(InputError, match="it would tell its student of the test split"):
        recipe_of(anew)
    recipe = recipe_of(scene_run, unlabelled=[str(elsewhere)])
    with pytest.raises(InputError, match="scene classes are learned from labels alone"):
        take_up(recipe, prepare(recipe))


def test_another_teacher_and_other_splits_are_refused(run, tmp_path):
    recipe = recipe_of(run)
    with pytest.raises(InputError, match="data or splits are others"):
        take_up(recipe, prepare(dataclasses.replace(recipe, seed=5)))
    other = dataclasses.replace(recipe, distil=dataclasses.replace(recipe.distil, bundle="0" * 64))
    with pytest.raises(InputError, match="another run than this student began with"):
        take_up(other, prepare(other))
    wide = prepare(recipe)
    wide.spec = wide.spec.revised(uses_location=False)
    with pytest.raises(InputError, match="eats or says something else"):
        take_up(recipe, wide)


def test_students_of_scene_classes_and_values(scene_run, value_run, tmp_path, torch_only):
    for run, lead in ((scene_run, "accuracy"), (value_run, "rmse")):
        result = finetune(recipe_of(run, compare=False), tmp_path / run.name)
        assert result["student"]["score"] == lead
        assert [row["name"] for row in result["student"]["rows"]] == ["student", "teacher"]
        assert np.isfinite(result["student"]["rows"][0]["score"])
        assert task_named(read_bundle(tmp_path / run.name).spec.task).name == read_bundle(run).spec.task


def test_products_are_those_of_the_layers(run):
    """A linear layer of n tokens has n * inputs * outputs of them."""
    network = load_network(run)
    count = (network.spec.imagery.tile // network.spec.imagery.patch) ** 2
    block = network.backbone.vit.blocks[0]
    inner = sum(layer.weight.numel() for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2))
    inputs = {name: x.numpy() for name, x in example_inputs(network.spec, batch=1).items()}
    whole = products(network, inputs)
    network.backbone.vit.blocks = network.backbone.vit.blocks[:1]
    network.backbone.blocks = (0, 0, 0, 0)[: len(network.backbone.blocks)]
    fewer = products(network, inputs)
    assert 0 <= (whole - fewer) - (count + 1) * inner <= 4 * (count + 1) ** 2 * block.attn.qkv.in_features


@pytest.mark.parametrize("kind", ["rain_run", "fine_run"])
def test_students_of_runs_over_weather(kind, request, tmp_path, torch_only):
    """Rain by its quantiles, and a field on finer cells; trees of rain are the student's own."""
    run = request.getfixturevalue(kind)
    recipe = recipe_of(run)
    assert (recipe.distil.features, recipe.training.layer_decay) == (0.0, 0.85)  # what it has no use for
    result = finetune(recipe, tmp_path / "student")
    bundle, teacher = read_bundle(tmp_path / "student"), read_bundle(run)
    assert bundle.training["distilled"] == {"teacher": bundle_id(run), "unlabelled": 0}
    assert bundle.spec.answers == teacher.spec.answers
    rows = {row["name"]: row for row in result["student"]["rows"]}
    mine, theirs, alone = (rows[name] for name in ("student", "teacher", "the same without a teacher"))
    assert mine["parameters"] == sum(w.numel() for w in load_network(tmp_path / "student").parameters())
    assert mine["parameters"] <= 0.6 * theirs["parameters"] and mine["products"] < theirs["products"]
    assert mine["score"] == pytest.approx(result["model"]["rmse"])
    assert theirs["score"] == pytest.approx(teacher.scores["rmse"], rel=1e-5)  # on the same test days
    assert mine["score"] < alone["score"]  # after two epochs the pruned one is far ahead
    assert "1 group left out" in mine["confidence"]["why"]
    costs = json.loads((tmp_path / "student" / "cost.json").read_text())
    assert costs["of"] == "map" and costs["km2"] is None and set(costs["models"]) == {"student", "teacher"}
    page = (tmp_path / "student" / "report.html").read_text()
    assert "CPU time a map, f32" in page and "Energy per 1,000 km2" not in page
    assert ("its trees" in page) == (kind == "rain_run")


def test_a_student_over_weather_is_asked_nothing_of_its_test_days(rain_run, monkeypatch, tmp_path):
    """The teacher tells of the training samples alone: what is learned from is of no other split."""
    recipe = recipe_of(rain_run)
    samples = prepare(recipe)
    assert take_up(recipe, samples) == {"teacher": bundle_id(rain_run), "unlabelled": 0}
    network, _, _ = training.build(recipe, samples.spec)
    asked, item = [], type(samples).item
    monkeypatch.setattr(type(samples), "item", lambda self, sample: asked.append(sample.split) or item(self, sample))
    training.module_of(task_named("rain"), recipe, network, samples, samples.of("train"), tmp_path)
    assert set(asked) == {"train"}
    other = prepare(recipe)
    other.spec = other.spec.revised(answer={"window": (0.0, 2.0)})
    with pytest.raises(InputError, match="eats or says something else"):
        take_up(recipe, other)
    odd = dataclasses.replace(recipe, distil=dataclasses.replace(recipe.distil, features=0.5))
    with pytest.raises(InputError, match=r"distil\.unlabelled, distil\.features"):
        check(task_named("rain"), odd)
