"""The sample of imagery and weather: the same on every run, small, and half of its truth in each."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.warp import transform
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.metrics import roc_auc_score

from pipelines.weather.dataset import open_weather
from pipelines.weather.series import Before, open_series

FUSED = Path(__file__).parents[2] / "sample_data" / "fused"
BANDS = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")


def table(name):
    with (FUSED / name).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def chips():
    return table("chips.csv")


@pytest.fixture(scope="module")
def labels(chips):
    return np.stack([read(FUSED / f"{chip['chip']}_stress.tif")[0] for chip in chips])


@pytest.fixture(scope="module")
def rain(chips):
    """Rain of each chip from 60 to 30 days before it, as the recipe's weather has it: mm."""
    opened = open_series(Before(files=("weather.nc",), variables=("rain",), join="cell"), root=FUSED)
    places = [np.array([chip[key] for chip in chips], float) for key in ("latitude", "longitude")]
    values, valid = opened.at(*places, [np.datetime64(chip["date"]) for chip in chips])
    assert valid.all() and opened.units == ("mm/h",) and opened.notes == []
    return values[:, 30:60, 0].sum(axis=1) * 24


def read(path):
    with rasterio.open(path) as file:
        return file.read()


def test_committed_files_are_what_the_script_makes(tmp_path):
    script = FUSED.parent / "make_fused.py"
    told = subprocess.run([sys.executable, script, tmp_path], check=True, capture_output=True, text=True).stdout
    names = sorted(path.name for path in FUSED.iterdir())
    assert sorted(path.name for path in (tmp_path / "fused").iterdir()) == names and len(names) == 164
    for name in names:
        one, two = FUSED / name, tmp_path / "fused" / name
        if name.endswith(".tif"):
            np.testing.assert_array_equal(read(one), read(two))
        elif name.endswith(".nc"):
            assert open_weather(one).identical(open_weather(two))
        else:
            assert one.read_text() == two.read_text()
    assert json.loads(told) == json.loads((FUSED / "best_scores.json").read_text())
    assert sum((FUSED / name).stat().st_size for name in names) < 1_500_000


def test_chips_lie_where_and_when_the_table_says(chips):
    for chip in chips:
        with rasterio.open(FUSED / f"{chip['chip']}_hls.tif") as image:
            assert (image.descriptions, image.dtypes[0], image.shape, image.res) == (BANDS, "int16", (64, 64), (30, 30))
            assert image.tags()["ACQUISITION_DATE"] == chip["date"] and image.scales == (0.0001,) * 6
            lon, lat = transform(image.crs, "EPSG:4326", *([at] for at in image.transform * (32, 32)))
            assert (lon[0], lat[0]) == pytest.approx((float(chip["longitude"]), float(chip["latitude"])), abs=1e-4)
            assert image.read().min() > 0
            with rasterio.open(FUSED / f"{chip['chip']}_stress.tif") as label:
                assert label.transform == image.transform and label.crs == image.crs
    assert len({chip["date"][:4] for chip in chips}) == 3 and len({chip["group"] for chip in chips}) == 40


def test_stress_is_grassland_after_little_rain(chips, labels, rain):
    dry = rain < 25
    assert dry.sum() == 40 and (rain[~dry] > 50).all()
    assert ((labels == 3).any(axis=(1, 2)) == dry).all() and ((labels == 2).any(axis=(1, 2)) == ~dry).all()
    grass = labels > 1
    assert (grass[0::2] == grass[1::2]).all()  # a place after a dry month and after a wet one
    assert (dry[0::2] != dry[1::2]).all()


def test_imagery_tells_grassland_and_neither_it_nor_the_season_tells_stress(chips, labels, rain):
    at = np.random.default_rng(0).integers(0, 64 * 64, 40)
    bands = np.stack([read(FUSED / f"{chip['chip']}_hls.tif").reshape(6, -1)[:, at].T for chip in chips])
    codes = labels.reshape(len(chips), -1)[:, at]
    days = np.array([np.datetime64(chip["date"]) - np.datetime64(chip["date"][:4]) for chip in chips]).astype(float)
    seen = np.concatenate([bands, np.tile(days[:, None, None], (1, len(at), 1))], axis=-1)  # (N, P, 7)
    held = np.arange(len(chips)) // 2 % 2 == 0

    def learned(x, y, keep):
        forest = RandomForestClassifier(30, min_samples_leaf=5, random_state=0)
        forest.fit(x[~held][keep[~held]], y[~held][keep[~held]])
        return roc_auc_score(y[held][keep[held]], forest.predict_proba(x[held][keep[held]])[:, 1])

    assert learned(seen, codes > 1, np.ones(codes.shape, bool)) > 0.99
    assert 0.35 < learned(seen, codes == 3, codes > 1) < 0.65
    assert 0.4 < roc_auc_score(rain < 25, days) < 0.6


def test_best_scores_follow_from_the_truth(chips, labels, rain):
    scores = json.loads((FUSED / "best_scores.json").read_text())
    other, fresh, stressed = ((labels == code).mean() for code in (1, 2, 3))
    assert scores["imagery"]["pixel_accuracy"] == pytest.approx(other + max(fresh, stressed), abs=1e-4)
    dry = rain < 25
    shares = [[(labels[of] == code).mean() for code in (1, 2, 3)] for of in (dry, ~dry)]
    assert scores["weather"]["pixel_accuracy"] == pytest.approx(np.mean([max(of) for of in shares]), abs=1e-4)
    assert scores["both"] == {"pixel_accuracy": 1, "mean_iou": 1, "value_r2": 1}
    value = np.array([row["value"] for row in table("values.csv")], float)
    parts = np.stack([(labels > 1).mean(axis=(1, 2)), np.minimum(rain, 50)], axis=-1)
    for name, columns in (("imagery", [0]), ("weather", [1]), ("both", [0, 1])):
        found = LinearRegression().fit(parts[:, columns], value).score(parts[:, columns], value)
        assert found == pytest.approx(scores[name]["value_r2"], abs=0.02)
