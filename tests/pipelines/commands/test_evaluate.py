"""Scores of a run against scores worked out by hand from its maps."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from sklearn.metrics import accuracy_score, jaccard_score

from models.bundle import read_bundle
from models.errors import InputError
from pipelines.commands.evaluate import check_addresses, evaluate
from pipelines.commands.score import score
from pipelines.runs.assess import baselines_of
from pipelines.scoring.opening import open_for
from pipelines.scoring.rows import class_map
from pipelines.tasks.rain import RainData
from tests.runs import make_chips

pytestmark = pytest.mark.usefixtures("unrendered")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Labelled chips that the run never saw."""
    root = make_chips(tmp_path_factory.mktemp("other"), 20)
    for path in root.glob("c0*"):
        path.unlink()
    return root


def test_scores_are_those_of_the_maps(run, other, tmp_path):
    result = evaluate(run, data_root=other, out=tmp_path / "e", codes=[10, 80])
    scenes = sorted(other.glob("*_hls.tif"))
    maps = score(run, [str(path) for path in scenes], out=tmp_path / "maps", overlap=0)
    truth, came = [], []
    for scene, made in zip(scenes, maps, strict=True):
        with rasterio.open(str(scene).replace("_hls", "_lc")) as label, rasterio.open(made["map"]) as file:
            truth.append(label.read(1).ravel())
            came.append(file.read(1).ravel())
    truth, came = np.concatenate(truth), np.concatenate(came)
    assert result["samples"] == 10 and result["model"]["n"] == truth.size
    assert result["model"]["accuracy"] == pytest.approx(accuracy_score(truth, came), abs=1e-3)
    iou = jaccard_score(truth, came, labels=[10, 30, 80], average=None)
    assert [c["iou"] for c in result["model"]["per_class"]] == pytest.approx(list(iou), abs=2e-3)
    assert result["model"]["mean_iou_of"]["mean_iou"] == pytest.approx((iou[0] + iou[2]) / 2, abs=2e-3)
    assert set(result["baselines"]) == {"majority", "pixel forest", "boosting on neighbourhoods"}
    assert json.loads((tmp_path / "e" / "metrics.json").read_text()) == result
    page = (tmp_path / "e" / "report.html").read_text()
    assert "pixel forest" in page and page.count("c1") >= 6


def test_own_data_means_the_test_split(run, tmp_path):
    result = evaluate(run, out=tmp_path)
    assert result["samples"] == 3
    assert result["model"] == json.loads((run / "metrics.json").read_text())["model"]


def test_the_validation_split_judges_where_there_is_no_test_split_and_a_lost_split_is_told(run, tmp_path):
    import shutil

    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run" / "split.csv"
    file.write_text(file.read_text().replace(",test", ",train"))
    validated = file.read_text().count(",val")
    assert evaluate(tmp_path / "run")["samples"] == validated > 0
    for damaged in (b"a,b\n1,2\n", b"\xff\xfe", None):
        file.unlink() if damaged is None else file.write_bytes(damaged)
        with pytest.raises(InputError, match=r"split\.csv: the splits cannot be read"):
            evaluate(tmp_path / "run")


def test_baselines_are_left_out_with_a_word_when_the_training_data_is_gone(run, other, tmp_path):
    import shutil

    moved = tmp_path / "run"
    shutil.copytree(run, moved)
    bundle = json.loads((moved / "bundle.json").read_text())
    bundle["data"]["root"] = str(tmp_path / "gone")
    (moved / "bundle.json").write_text(json.dumps(bundle))
    result = evaluate(moved, data_root=other)
    assert result["baselines"] == {}
    assert "No baselines" in (moved / "report.html").read_text()


def test_what_cannot_be_evaluated(run, tmp_path):
    with pytest.raises(InputError, match="no such run"):
        evaluate(tmp_path / "none")
    with pytest.raises(InputError, match="no such folder"):
        evaluate(run, data_root=tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="_hls"):
        evaluate(run, data_root=tmp_path / "empty")


def test_confusion_and_baselines_are_those_of_the_training(run):
    """The matrix counts what the score counts; the forest, trained anew, scores what it scored then."""
    told = json.loads((run / "metrics.json").read_text())
    confusion = np.array(told["confusion"])
    assert confusion.sum() == told["model"]["n"]
    assert np.trace(confusion) / confusion.sum() == pytest.approx(told["model"]["accuracy"])
    again = baselines_of(run)
    assert set(again) == set(told["baselines"])


def test_class_map_of_a_baseline_is_its_answer_pixel_by_pixel(run, chips):
    bundle, forest = read_bundle(run), baselines_of(run)["pixel forest"]
    scene = open_for(bundle, str(chips / "c03_hls.tif"))
    x, _ = scene.read(scene.window)
    wanted = forest({"imagery": x[None], "time": scene.time()[None]})[0].argmax(axis=0)
    np.testing.assert_array_equal(class_map(scene, bundle.spec, forest, overlap=8), wanted)


def test_climatology_is_for_runs_that_take_it(run, rain_run, tmp_path):
    with pytest.raises(InputError, match="was trained without .data.climatology none.; leave it out"):
        evaluate(rain_run, climatology=str(tmp_path), out=tmp_path / "a")
    with pytest.raises(InputError, match="this model wants imagery|eats imagery|no weather|imagery"):
        evaluate(run, climatology=str(tmp_path), out=tmp_path / "b")
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_addresses_that_a_run_names_are_asked_with_trust_alone(tmp_path):
    away = RainData(tmp_path, target_files=["a.nc", "https://user:secret@example.org/a.zarr"])
    with pytest.raises(InputError, match="its data lie at https://example.org/a.zarr; --trust asks there"):
        check_addresses(tmp_path, away, trust=False)
    check_addresses(tmp_path, away, trust=True)
    check_addresses(tmp_path, RainData(tmp_path, target_files=["a.nc"]), trust=False)
