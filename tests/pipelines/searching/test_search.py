"""From a recipe to the best of its trials: folds that no trial has seen, one process after another, and the report."""

import csv
import dataclasses
import json
import re

import numpy as np
import pytest
import yaml

from models.errors import InputError, RunError
from models.networks.assembly import predict_by
from models.spec import Target
from models.training.settings import Architecture, TableArchitecture, Training
from pipelines.cli.main import main
from pipelines.recipes.reading import dump
from pipelines.recipes.tables import TableData, TableRecipe
from pipelines.runs.folder import Launch
from pipelines.samples.sets import inputs_of
from pipelines.searching import search as searching
from pipelines.searching import trial
from pipelines.searching.search import search
from pipelines.searching.trial import read_told
from pipelines.tasks.task import load_recipe, prepare
from tests.rain_files import rain_recipe
from tests.runs import TINY, tiny_recipe

SITES, EACH = 10, 6
SPACE = "training.lr: {low: 1e-3, high: 3e-2, log: true}\nmodel.leaf: {low: 1, high: 8}\nmodel.share: [0.5, 1.0]\n"
pytestmark = pytest.mark.usefixtures("unrendered")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table of sites, and a space in a file."""
    folder, rng = tmp_path_factory.mktemp("table"), np.random.default_rng(0)
    red, nir, rain = (rng.uniform(low, high, SITES * EACH) for low, high in ((200, 900), (1500, 4000), (0, 9)))
    y = 40 * (nir - red) / (nir + red) + rng.normal(size=SITES * EACH)
    with (folder / "samples.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["site", "red", "nir", "rain", "moisture"])
        rows.writerows([f"s{i // EACH}", red[i], nir[i], rain[i], y[i]] for i in range(SITES * EACH))
    (folder / "space.yaml").write_text(SPACE)
    return folder


def recipe_of(table, **changes):
    columns = {"imagery": {"RED": "red", "NIR_NARROW": "nir"}, "weather": ["rain"], "answer": "moisture"}
    data = TableData(table, **columns, group="site")
    quick = Training(epochs=1, batch=16, lr=5e-3, keep="last", precision="32-true")
    recipe = TableRecipe("table", data, model=TableArchitecture(trees=4, members=2, width=4), training=quick)
    return dataclasses.replace(recipe, target=Target("moisture", "%"), **changes)


@pytest.fixture
def watched(monkeypatch):
    """What was trained and on which samples, in order; a number in `cut` stops the training of that turn."""
    seen, real = [], trial.train_fold

    def watch(task, recipe, samples, folder, launch):
        seen.append((folder.parent.parent.name, folder.name, {samples.group(s) for s in samples.of("train")}))
        if len(seen) in watch.cut:
            raise watch.cut[len(seen)]
        real(task, recipe, samples, folder, launch)

    watch.cut, watch.seen = {}, seen
    monkeypatch.setattr(trial, "train_fold", watch)
    return watch


def tried(table, out, **changes):
    said = []
    asked = {"trials": 3, "space": table / "space.yaml", "launch": Launch(say=said.append), **changes}
    return search(asked.pop("recipe", None) or recipe_of(table), out, **asked), said


def test_a_search_that_is_killed_goes_on_and_does_nothing_twice(table, tmp_path, watched, monkeypatch):
    """Cut off in the second fold of the first trial, and between two files at the end of the second."""
    watched.cut = {2: KeyboardInterrupt(), 4: RunError("the disk is full")}
    networks = []
    kept = trial.trained
    monkeypatch.setattr(trial, "trained", lambda *args: networks.append(kept(*args)) or networks[-1])
    for error in (KeyboardInterrupt, RunError):
        with pytest.raises(error):
            tried(table, tmp_path / "out")
    result, said = tried(table, tmp_path / "out")
    done = [(name, fold) for name, fold, _ in watched.seen]
    once = [pair for turn, pair in enumerate(done, 1) if turn not in watched.cut]
    states = [read_told(path) for path in sorted((tmp_path / "out" / "trials").iterdir())]
    assert len(set(once)) == len(once) == sum(len(told.folds) for told in states)
    assert done[:4] == [("0001", "1"), ("0001", "2"), ("0001", "2"), ("0001", "3")]
    assert result["trials"]["running"] == 0 and sum(result["trials"].values()) == 3

    # Nothing of the test split was learned from, or asked about.
    samples = prepare(recipe_of(table))
    held = {samples.group(sample) for sample in samples.of("test")}
    every = {f"s{i}" for i in range(SITES)}
    assert held and all(trained <= every - held for _, _, trained in watched.seen)
    assert set(states[0].groups) == every - held
    assert any(f"{len(samples.of('test'))} samples of the test split take no part" in line for line in said)

    # The score of a group is that of the network that never saw it, of the first trial's as by hand.
    first = [(trained, networks[i]) for i, (_, _, trained) in enumerate([watched.seen[0], *watched.seen[2:4]])]
    for group, score in states[0].groups.items():
        ((_, network),) = [one for one in first if group not in one[0]]
        rows = [sample for sample in samples.samples if samples.group(sample) == group]
        off = predict_by(network)(inputs_of(samples, rows))[:, 0] - [samples.truth(row) for row in rows]
        assert score == pytest.approx(np.sqrt((off**2).mean()), rel=1e-5)
    again, _ = tried(table, tmp_path / "out")
    assert again["best"] == result["best"] and len(watched.seen) == len(done)
    check_outcome(table, tmp_path / "out", result, states)


def check_outcome(table, out, result, states):
    """The table, the recipe and the page tell what the trials told."""
    with (out / "trials.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row, told in zip(rows, states, strict=True):
        assert float(row["mean"]) == pytest.approx(np.mean([*told.groups.values()]))
        assert float(row["highest"]) == max(told.groups.values()) and row["state"] == told.state
        assert row["model.leaf"] == str(told.params["model.leaf"]) and float(row["seconds"]) > 0
        assert float(row["wh"]) > 0
    complete = [(told.mean, n) for n, told in enumerate(states, 1) if told.state == "complete"]
    assert (result["best"]["mean"], result["best"]["trial"]) == min(complete)  # an error: less is better
    best, told = load_recipe(out / "best.yaml"), states[result["best"]["trial"] - 1]
    assert best.model.leaf == told.params["model.leaf"] and best.training.lr == told.params["training.lr"]
    assert (best.folds, best.data.root, best.seed) == (0, table.resolve(), 0)
    assert best.model.trees == 4 and best.training.epochs == 1
    page = (out / "report.html").read_text()
    assert result["headline"] in page and "<script" not in page and 'src="http' not in page
    assert all(f'<th scope="row">{n}</th>' in page for n in (1, 2, 3))
    assert not list(out.glob("trials/*/folds")) and (out / "energy.json").is_file()
    assert json.loads(json.dumps(result)) == result


def test_a_trial_that_is_worse_costs_no_more_than_its_folds(table, tmp_path, watched):
    """The first trial is good; all others are of a forest that knows nothing, and are stopped after a fold."""
    space = tmp_path / "space.yaml"
    space.write_text("model.leaf: [1, 1000]\nmodel.trees: [4, 1]\n")
    recipe = recipe_of(table, model=TableArchitecture(trees=4, leaf=1, members=2, width=4, share=1.0))
    result, said = tried(table, tmp_path / "out", recipe=recipe, space=space, trials=4)
    told = [read_told(path) for path in sorted((tmp_path / "out" / "trials").iterdir())]
    poor = [one for one in told if one.params["model.leaf"] == 1000]
    assert poor and {one.state for one in poor} == {"pruned"} and all(len(one.folds) < 3 for one in poor)
    assert len(watched.seen) == sum(len(one.folds) for one in told)
    assert result["trials"]["pruned"] == len(poor) and any("stopped after fold" in line for line in said)


def test_settings_that_cannot_be_trained_fail_alone_but_the_recipes_own_at_once(table, tmp_path, watched):
    watched.cut = {1: InputError("no weights")}
    with pytest.raises(InputError, match="no weights"):
        tried(table, tmp_path / "out")
    assert read_told(tmp_path / "out" / "trials" / "0001").state == "running"
    watched.cut = {2 + 3: InputError("the loss is not finite")}
    result, said = tried(table, tmp_path / "out", trials=2)
    assert result["trials"] == {"complete": 1, "pruned": 0, "failed": 1, "running": 0}
    assert "trial 2: failed: the loss is not finite" in said
    assert "failed: the loss is not finite" in (tmp_path / "out" / "report.html").read_text()


def test_what_kills_each_process_is_not_tried_for_ever(table, tmp_path, watched, monkeypatch):
    monkeypatch.setattr(trial, "CUT_OFF", 2)
    watched.cut = {1: KeyboardInterrupt(), 2: KeyboardInterrupt()}
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            tried(table, tmp_path / "out", trials=1)
    result, said = tried(table, tmp_path / "out", trials=1)
    assert result["best"] is None and "was cut off 2 times in one fold" in said[-1] and len(watched.seen) == 2
    assert result["headline"] == "No trial is complete." and not (tmp_path / "out" / "best.yaml").exists()


def test_the_best_and_the_recipe_as_it_came_are_trained_with_the_same_seeds(table, tmp_path, watched):
    space = tmp_path / "space.yaml"
    space.write_text("model.leaf: [1, 1000]\n")
    recipe = recipe_of(table, model=TableArchitecture(trees=4, leaf=1000, members=2, width=4, share=1.0), folds=2)
    result, _ = tried(table, tmp_path / "out", recipe=recipe, space=space, trials=3, seeds=2)
    found = result["seeds"]
    assert (found["verdict"], found["compared"]["groups"]) == ("better", SITES - 1)
    assert found["told"] in (tmp_path / "out" / "report.html").read_text()
    seeded = watched.seen[-8:]
    best = f"{result['best']['trial']:04d}"
    assert [name for name, *_ in seeded] == [n for n in (f"{best}_1", "came_1", f"{best}_2", "came_2") for _ in "12"]
    for fold in (0, 1):  # all on the same folds
        assert len({frozenset(groups) for _, _, groups in seeded[fold::2]}) == 1
    means = [read_told(tmp_path / "out" / "seeds" / f"came_{seed}").mean for seed in (1, 2)]
    assert [pair[1] for pair in found["means"].values()] == means
    assert load_recipe(tmp_path / "out" / "seeds" / "came_2" / "recipe.yaml").seed == 2
    assert load_recipe(tmp_path / "out" / "best.yaml").folds == 0  # to be scored on the test split
    count = len(watched.seen)
    again, _ = tried(table, tmp_path / "out", recipe=recipe, space=space, trials=3, seeds=2)
    assert again["seeds"] == found and len(watched.seen) == count


def test_what_cannot_be_searched_is_one_line_and_leaves_nothing(table, tmp_path, capsys, monkeypatch):
    (tmp_path / "tiny.yaml").write_text(dump(recipe_of(table)))

    def said(words):
        assert main(["search", str(tmp_path / "tiny.yaml"), *words.split()]) == 2
        return capsys.readouterr().err

    out = tmp_path / "out"
    assert "--trials 0: wanted 1 to 10000" in said(f"--out {out} --trials 0")
    assert re.search("folds 10: wanted 2 to 9, as many as there are groups", said(f"--out {out} --folds 10"))
    assert "samples.csv: cannot be opened" in said(f"--out {out} --data.root {tmp_path}/no")
    assert not out.exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    assert "holds no search.yaml" in said(f"--out {tmp_path}/other")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["mine.txt"]
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    assert "pip install 'earthtune[search]'" in said(f"--out {out}")


def test_a_folder_is_gone_on_with_by_the_same_search_alone(table, tmp_path, monkeypatch):
    monkeypatch.setattr(searching, "_one", lambda *_: False)
    out = tmp_path / "out"
    tried(table, out)
    before = yaml.safe_load((out / "search.yaml").read_text())["study"]
    tried(table, out, trials=9, seeds=1)
    assert yaml.safe_load((out / "search.yaml").read_text())["study"] == before
    for changes, what in (
        ({"recipe": recipe_of(table, seed=1)}, "recipe"),
        ({"recipe": recipe_of(table, folds=2)}, "recipe, folds"),
        ({"space": None}, "space"),
        ({"storage": f"sqlite:///{tmp_path}/study.db"}, "storage"),
    ):
        with pytest.raises(InputError, match=f"was begun with another {what};"):
            tried(table, out, **changes)
    corrected = tiny_recipe(table)
    corrected = dataclasses.replace(corrected, data=dataclasses.replace(corrected.data, corrections=["a.gpkg"]))
    with pytest.raises(InputError, match=r"data\.corrections: search without it"):
        tried(table, out, recipe=corrected, space=None)


def test_scenes_and_weather_are_searched_alike(chips, rain_day, tmp_path, watched):
    space = tmp_path / "space.yaml"
    space.write_text("training.lr: {low: 1e-4, high: 1e-1, log: true}\n")
    model = Architecture(TINY, decoder="linear", channels=8, detail=0, statistics=0)
    recipes = {"scenes": tiny_recipe(chips, folds=2, model=model), "rain": rain_recipe(rain_day, folds=2, refit=False)}
    for name, recipe in recipes.items():
        quick = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, epochs=1))
        result, _ = tried(tmp_path, tmp_path / name, recipe=quick, trials=1)
        assert result["trials"]["complete"] == 1 and load_recipe(tmp_path / name / "best.yaml").folds == 0
        samples = prepare(quick)
        held = {samples.group(sample) for sample in samples.of("test")}
        groups = set(result["best"]["groups"])
        assert groups and (name == "rain" or not groups & held)
    assert groups == {"2020-03-30", "2020-03-30, fold 2"}  # one day, whose hours are in blocks
