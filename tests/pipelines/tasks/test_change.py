"""Pairs with labels: what is refused, what the days tell, and what the report says of the pairs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from models.errors import InputError
from models.spec import ClassDef
from models.training.settings import Architecture
from pipelines.recipes.recipe import Data, SceneRecipe
from pipelines.runs.check import check as run_check
from pipelines.tasks.change import check, days_of, facts, prepare
from pipelines.tasks.task import task_named
from tests.runs import BANDS, make_chip, write

CLASSES = [ClassDef(0, "no loss", "#d9f0d3"), ClassDef(1, "loss", "#d73027")]
DATED = {"before": "2020-06-05", "after": "2021-06-15"}


def pairs(root, *, dated=DATED, changed=(1, 3)):
    for i in range(4):
        corner = (500000 + 20000 * i, 5000000)
        for folder in ("before", "after"):
            tags = {"ACQUISITION_DATE": dated[folder]} if folder in dated else {}
            write(root / folder / f"p{i}.tif", make_chip(i)[0], names=BANDS, corner=corner, tags=tags)
        write(root / "labels" / f"p{i}.tif", np.full((1, 32, 32), i in changed, np.uint8), corner=corner)
    data = Data(root=root, images=["before/*.tif", "after/*.tif"], labels="labels/*.tif", block_km=5, tile=32)
    model = Architecture(overrides={"embed_dim": 32, "depth": 2, "num_heads": 2}, blocks=[])
    return SceneRecipe("change", data, "prithvi_eo_v2_tiny_tl", weights="random", classes=CLASSES, model=model)


def test_days_by_hand():
    """1 January (0) and a quarter of a year later, a year on: sines, cosines, then the years between."""
    found = days_of({"time": np.array([[[2020, 0.0], [2021, 365.25 / 4]]], np.float32)})
    np.testing.assert_allclose(found, [[0, 1, 1, 0, 1.25]], atol=1e-6)


def test_pairs_are_prepared_with_both_days(tmp_path):
    samples = prepare(pairs(tmp_path))
    assert samples.spec.task == "change" and samples.spec.imagery.times == 2
    time = samples.item(samples.samples[0])["time"]
    assert time.shape == (2, 2) and time[1, 0] - time[0, 0] == 1
    told = facts(samples)["Pairs"]
    assert told == "4, 2 of them without a change; 9 to 9 days of the year apart"  # 2020 has a 29 February


def test_days_of_the_year_are_apart_the_short_way(tmp_path):
    samples = prepare(pairs(tmp_path, dated={"before": "2020-12-31", "after": "2022-01-04"}))
    assert "4 to 4 days" in facts(samples)["Pairs"] or "3 to 3 days" in facts(samples)["Pairs"]


def test_days_alone_are_a_baseline(tmp_path):
    samples = prepare(pairs(tmp_path))
    names = [*task_named("change").baselines(samples, samples.samples, 0)]
    assert names[-1] == "boosting on days of the year" and not any("imagery," in name for name in names)


@pytest.mark.parametrize("dated", [{}, {"after": "2021-06-15"}])
def test_undated_pairs_are_refused(tmp_path, dated):
    with pytest.raises(InputError, match="the day of a date is not known"):
        prepare(pairs(tmp_path, dated=dated))


def test_one_date_is_refused(tmp_path):
    recipe = pairs(tmp_path)
    with pytest.raises(InputError, match="one date a place"):
        prepare(dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, images="after/*.tif")))


def test_what_cannot_tell_a_season_or_a_place_is_refused(tmp_path):
    recipe = pairs(tmp_path)
    check(recipe)
    with pytest.raises(InputError, match="knows no dates"):
        check(dataclasses.replace(recipe, backbone="prithvi_eo_v2_300"))
    with pytest.raises(InputError, match="may fall into another split"):
        check(dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, block_km=0.0)))
    check(dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, block_km=0.0, groups="places.csv")))


def test_a_date_shown_twice_teaches_no_change(tmp_path):
    """Bands, day and label of the pair; frames differ by a gain each, and what is not labelled stays so."""
    recipe = pairs(tmp_path)
    samples = prepare(dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, unchanged=0.5)))
    samples.training = dataclasses.replace(samples.training, flips=False, gain=0.0, offset=0.0)
    chip = next(chip for chip in samples.samples if samples.truth(chip).max() > 0)
    truth = samples.truth(chip).copy()
    truth[0, :5] = -1
    item = samples.item(chip) | {"y": truth}
    seen = [samples.varied(item, np.random.default_rng(seed)) for seed in range(60)]
    same = [one for one in seen if (one["time"][0] == one["time"][1]).all()]
    assert 15 < len(same) < 45 and samples.dates.any
    for one in same:
        date = int((one["time"][0] == item["time"][1]).all())
        np.testing.assert_array_equal(one["imagery"], item["imagery"][:, [date, date]])
        np.testing.assert_array_equal(one["y"], np.where(truth < 0, -1, 0))
    assert {int((one["time"][0] == item["time"][1]).all()) for one in same} == {0, 1}
    others = [one for one in seen if (one["time"][0] != one["time"][1]).any()]
    assert all((one["y"] == truth).all() and (one["imagery"] == item["imagery"]).all() for one in others)
    again = samples.dates.always(item, np.random.default_rng(0))
    assert (again["time"][0] == again["time"][1]).all() and (item["y"] == truth).all()
    samples.training = dataclasses.replace(samples.training, gain=0.1)
    even = item | {"imagery": np.full_like(item["imagery"], 1000)}
    first, second = np.moveaxis(samples.dates.always(even, np.random.default_rng(0))["imagery"], 1, 0)
    ratio = first / second
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1, :1], ratio.shape), rtol=1e-4)
    assert np.unique(ratio[:, 0, 0].round(4)).size == len(ratio)


def test_other_tasks_show_no_date_twice(tmp_path):
    recipe = pairs(tmp_path)
    wrong = dataclasses.replace(recipe, task="segmentation", data=dataclasses.replace(recipe.data, unchanged=0.2))
    with pytest.raises(InputError, match=r"data\.unchanged"):
        run_check(task_named("segmentation"), wrong)
