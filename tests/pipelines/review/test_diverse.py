"""What to label next: unlike all before it, and every fourth by chance."""

from __future__ import annotations

import numpy as np
import pyogrio
import pytest

from models.errors import InputError
from pipelines.commands.review import review
from pipelines.review.diverse import k_centre
from pipelines.review.review import Page
from tests.pipelines.review.scenes_to_review import make_map

ONLY_FILE = {"page": Page(no_page=True)}


def test_each_is_the_farthest_from_all_before_but_those_by_chance():
    features = np.random.default_rng(3).normal(size=(60, 4)) * (1, 10, 100, 0.1)
    chosen = k_centre(features, 22, seed=1)
    scaled = (features - features.mean(0)) / features.std(0)
    rows = [row for row, _ in chosen]
    assert len(set(rows)) == 22 and [i for i, (_, why) in enumerate(chosen) if why == "random"] == [0, 4, 8, 12, 16, 20]
    for turn, (row, why) in enumerate(chosen):
        if why == "diverse":
            near = np.sqrt(((scaled[:, None] - scaled[rows[:turn]]) ** 2).sum(2)).min(1)
            assert near[row] == pytest.approx(near.max(), rel=1e-4)
    assert k_centre(features, 22, seed=1) == chosen != k_centre(features, 22, seed=2)
    assert {row for row, _ in k_centre(features[:5], 9)} == set(range(5))  # no more than there are


def test_a_review_of_what_is_unlike_names_each_choice_and_is_gone_on_with(tmp_path):
    path = make_map(tmp_path)
    with pytest.raises(InputError, match="begun with --most 500 --side 32 --pick doubt"):
        review(path, **ONLY_FILE)
        review(path, pick="diverse", **ONLY_FILE)
    for name in ("gpkg", "ndjson"):
        (tmp_path / f"scene_review.{name}").unlink()
    told = review(path, most=7, side=16, pick="diverse", **ONLY_FILE)
    table = pyogrio.read_dataframe(tmp_path / "scene_review.gpkg", layer="regions")
    assert told["regions"] == 7 and table["reason"].tolist() == ["random", *["diverse"] * 3, "random", *["diverse"] * 2]
    assert table.area.max() == 160 * 160 and set(table["code"]) == {10, 40}
    assert not any(one.overlaps(other) for one in table.geometry for other in table.geometry if one is not other)
    assert review(path, most=7, side=16, pick="diverse", **ONLY_FILE) == told
    (tmp_path / "scene.tif").rename(tmp_path / "other.tif")
    with pytest.raises(InputError, match="--pick diverse looks at its scene.* --scene FILE"):
        review(path, most=7, side=16, pick="diverse", **ONLY_FILE)
    assert review(path, most=7, side=16, pick="diverse", scene=str(tmp_path / "other.tif"), **ONLY_FILE) == told
