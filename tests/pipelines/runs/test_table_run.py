"""A made table from recipe to run folder and back to a table: half of the truth is in the imagery, half in the rain."""

from __future__ import annotations

import csv
import dataclasses
import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from models.errors import InputError
from models.spec import Target
from models.training.settings import TableArchitecture, Training
from pipelines.commands.score import score
from pipelines.inspection.inspect import inspect
from pipelines.recipes.reading import RECIPES
from pipelines.recipes.tables import TableData, TableRecipe
from pipelines.runs import finetune as runs
from pipelines.runs.crossfit import crossfit
from pipelines.runs.folder import Launch
from pipelines.tasks.table import TASK, prepare
from pipelines.tasks.task import load_recipe
from tests.benchmarks.soy import departures
from tests.benchmarks.soy import recipe as soy_recipe
from tests.fused_files import weather
from tests.unexported import unexported

COLUMNS = ("site", "month", "red", "nir", "rain1", "rain2", "rain3", "moisture")
SITES, EACH = 12, 10


def write(path, *, shuffled=False):
    """Rows of sites; where shuffled, the rain is that of other rows."""
    rng = np.random.default_rng(0)
    n = SITES * EACH
    red, nir, rain = rng.uniform(200, 900, n), rng.uniform(1500, 4000, n), rng.gamma(2, 5, (n, 3))
    y = 40 * (nir - red) / (nir + red) + rain.mean(1) + rng.normal(size=n)
    rain = rain[rng.permutation(n)] if shuffled else rain
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for i in range(n):
            table.writerow([f"s{i // EACH}", i % 12 + 1, red[i], nir[i], *rain[i], y[i]])


def recipe_of(folder):
    data = TableData(
        folder,
        imagery={"RED": "red", "NIR_NARROW": "nir"},
        weather=["rain*"],
        month="month",
        answer="moisture",
        group="site",
    )
    small, quick = TableArchitecture(trees=16, members=2, width=8), Training(epochs=4, batch=32, lr=5e-3, keep="last")
    quick = dataclasses.replace(quick, precision="32-true")
    return TableRecipe("table", data, model=small, training=quick, target=Target("moisture", "%"), folds=3)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder, its data, and what `finetune` gave."""
    folder = tmp_path_factory.mktemp("table")
    write(folder / "samples.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "write_graph", unexported)  # what is exported answers alike by test_tables.py
        result = runs.finetune(recipe_of(folder), folder / "run")
    return folder, result


def test_inspect_asks_no_file_of_weather_for_a_run_over_tables(run, tmp_path):
    found = inspect(weather(tmp_path / "weather.nc"), for_run=run[0] / "run")
    assert not found.ok and not any("beside a scene" in note for note in found.notes)


def test_the_report_says_that_the_weather_helps_and_how_much_of_it_is_let_in(run):
    folder, result = run
    bundle = json.loads((folder / "run" / "bundle.json").read_text())

    assert result["inputs"]["helps"] > 0.95 and "It helps" in result["inputs"]["told"]
    assert bundle["architecture"]["gate"] >= 0.5
    assert result["tokens"] is None and result["samples"] == SITES * EACH
    forests = [f"forest on {what}" for what in ("imagery", "imagery, season and place", "weather", "all inputs")]
    assert set(result["baselines"]) == {"mean", *forests}
    scores = [result["baselines"][name]["r2"] for name in forests]
    assert scores[3] > max(scores[:3])  # what was put in is found by the same forests
    assert "It adds" in (folder / "run" / "report.html").read_text()


def test_a_scored_table_keeps_its_columns_and_tells_those_that_it_lacks(run, tmp_path):
    folder, _ = run
    with (folder / "samples.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[:4]
    rows[3] |= {"red": "", "nir": "", "rain3": "900"}  # no place had as much
    names = ["site", "note", "red", "nir", "rain1", "rain3"]
    with (tmp_path / "new.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, names, extrasaction="ignore")
        table.writeheader()
        table.writerows([{**row, "note": "a, b"} for row in rows[:2]])
        table.writerow({"site": "x"})
        table.writerow(rows[3])
    said = []
    (result,) = score(folder / "run", [str(tmp_path / "new.csv")], out=tmp_path / "out", say=said.append)

    with (tmp_path / "out" / "new_scored.csv").open(newline="") as file:
        scored = list(csv.DictReader(file))
    assert [*scored[0]] == [*names, "predicted_moisture", "weather_unfamiliar"] and scored[0]["note"] == "a, b"
    assert [bool(row["predicted_moisture"]) for row in scored] == [True, True, False, True]
    assert float(scored[0]["weather_unfamiliar"]) < 1 < 3 < float(scored[3]["weather_unfamiliar"])
    assert scored[2]["weather_unfamiliar"] == "" and any("25% of the rows: the weather before it" in s for s in said)
    assert any("has no rain2, month: missing in all rows" in line for line in said)
    assert result["valid"] == 0.75
    with pytest.raises(InputError, match="exists already"):
        score(folder / "run", [str(tmp_path / "new.csv")], out=tmp_path / "out")


def test_what_a_run_over_a_table_cannot_score_is_refused_and_leaves_nothing(run, tmp_path):
    folder, _ = run
    (tmp_path / "new.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="has none of the run's columns"):
        score(folder / "run", [str(tmp_path / "new.csv")], out=tmp_path / "out")
    with pytest.raises(InputError, match="--overlap"):
        score(folder / "run", [str(tmp_path / "new.csv")], out=tmp_path / "out", overlap=4)
    assert not (tmp_path / "out").exists()


def test_weather_of_other_rows_is_not_let_in_and_costs_nothing(tmp_path):
    write(tmp_path / "samples.csv", shuffled=True)
    recipe = recipe_of(tmp_path)
    samples = prepare(recipe)
    left = crossfit(TASK, recipe, samples, tmp_path / "run", Launch(), first=True, alone=True)

    assert left.weights["gate"] <= 0.1
    names = {"model": left.models["model"], "imagery": left.asked["imagery, season and place"]}
    scores = TASK.judge(samples, left.chosen, names).scores
    assert scores["model"]["rmse"] < 1.02 * scores["imagery"]["rmse"]


REAL = Path("../shared/data")


def converted(folder):
    """Presto's arrays as a table."""
    runpy.run_path("sample_data/fuel_moisture.py")["convert"](REAL / "fuel_moisture", folder / "fuel_moisture.csv")
    return folder


@pytest.mark.skipif(not REAL.is_dir(), reason="the real tables are not here")
@pytest.mark.parametrize(
    ("name", "root", "rows", "groups", "steps"),
    [
        ("fuel_moisture", converted, 2313, 150, 3),
        ("carbon_flux", lambda _: REAL / "carbon_flux", 975, 36, 1),
    ],
)
def test_the_recipes_run_on_the_real_tables(name, root, rows, groups, steps, tmp_path):
    quick = {"model.trees": 2, "model.members": 1, "training.epochs": 1, "training.batch": 512, "folds": 2}
    recipe = load_recipe(RECIPES / f"{name}.yaml", **quick, **{"data.root": root(tmp_path)})
    samples = prepare(recipe)
    left = crossfit(TASK, recipe, samples, tmp_path / "run", Launch(), first=True, alone=True)
    scores = TASK.judge(samples, left.chosen, left.models).scores["model"]

    assert len(samples.samples) == rows and len({row.group for row in samples.samples}) == groups
    assert {samples.spec.series[part].times for part in ("imagery", "weather")} == {steps}
    assert scores["n"] == rows and scores["r2"] > 0.1 and {*left.weights} == {"share", "gate"}


@pytest.mark.skipif(not REAL.is_dir(), reason="the real tables are not here")
def test_weeks_of_indices_and_weather_tell_the_yield_of_counties_that_were_left_out(tmp_path):
    departures(REAL / "yield_illinois_soy" / "samples.csv", tmp_path)
    recipe = soy_recipe(tmp_path, group="County", folds=2, seed=0)
    model = dataclasses.replace(recipe.model, trees=10, members=1)
    recipe = dataclasses.replace(recipe, model=model, training=dataclasses.replace(recipe.training, epochs=5))
    samples = prepare(recipe)
    left = crossfit(TASK, recipe, samples, tmp_path / "run", Launch(), first=True, alone=True)
    scores = TASK.judge(samples, left.chosen, left.models).scores["model"]

    assert (scores["n"], len({row.group for row in samples.samples})) == (288, 72)
    assert {samples.spec.series[part].times for part in ("imagery", "weather")} == {26}
    assert scores["r2"] > 0.2
