"""A student beside its teacher: what is told of confidence, and the table of the report."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torchmetrics.classification import MulticlassCalibrationError

from models.spec import Classes, Values
from pipelines.runs.worth import costs
from pipelines.runs.worth.students import ALONE, sure, view
from tests.runs import CLASSES

GROUPS, EACH = 12, 400


def answers(p, truth, groups=GROUPS):
    """Answers as `Answers` keeps them, of so many groups that all say the same."""
    names = np.repeat([f"g{i:02d}" for i in range(groups)], len(p))
    return SimpleNamespace(rows=[0], joined=lambda: (np.tile(p, (groups, 1)), np.tile(truth, groups), names))


def too_sure():
    """Probabilities (N, 3) that are squared, and the classes that are drawn by their roots."""
    rng = np.random.default_rng(0)
    right = rng.dirichlet((2, 2, 2), EACH)
    truth = np.array([rng.choice(3, p=row) for row in right])
    p = right**3
    return (p / p.sum(1, keepdims=True)).astype(np.float32), truth


def calibration_error(p, truth):
    """By another library."""
    error = MulticlassCalibrationError(3, n_bins=15, norm="l1")
    return float(error(torch.from_numpy(p), torch.from_numpy(truth)))


def test_calibration_error_is_that_of_another_library_before_and_after():
    p, truth = too_sure()
    samples = SimpleNamespace(spec=SimpleNamespace(answer=Classes(tuple(CLASSES))))
    found = sure(samples, answers(p, truth))
    assert found["groups"] == GROUPS and "why" not in found
    assert found["ece"] == pytest.approx(calibration_error(p, truth), abs=1e-5)
    losses = {t: -np.log((p ** (1 / t) / (p ** (1 / t)).sum(1, keepdims=True))[range(EACH), truth]).mean()
              for t in np.geomspace(0.3, 3.3, 97)}  # fmt: skip
    warm = p ** (1 / min(losses, key=losses.get))  # all groups choose the same
    after = calibration_error((warm / warm.sum(1, keepdims=True)).astype(np.float32), truth)
    assert found["ece_calibrated"] == pytest.approx(after, abs=1e-3) and after < found["ece"] / 2
    assert found["auroc"] == pytest.approx(roc_auc_score(p.argmax(1) == truth, p.max(1)), abs=1e-6)


def test_few_groups_and_no_mistakes_are_told_and_give_no_number():
    p, truth = too_sure()
    samples = SimpleNamespace(spec=SimpleNamespace(answer=Classes(tuple(CLASSES))))
    found = sure(samples, answers(p, truth, groups=3))
    assert found["ece_calibrated"] is None and found["why"].startswith("Not calibrated: 3 groups")
    assert sure(samples, answers(p, p.argmax(1)))["auroc"] is None
    assert sure(samples, None) == {"groups": 0, "why": "nothing was left out"}


def test_of_values_the_interval_is_told():
    """Errors of all groups alike: nine of ten lie within 1.8, and eleven groups ask for 0.9 x 12 / 11 of them."""
    truth = np.linspace(-1, 1, EACH)
    spec = SimpleNamespace(answer=Values("biomass", "t/ha"), inputs={}, over_weather=False)
    found = sure(SimpleNamespace(spec=spec), answers(np.zeros((EACH, 1), np.float32), truth))
    assert found["level"] == 0.9 and found["coverage"] == pytest.approx(0.98, abs=0.01)
    assert 1.9 < found["width"] < 2.3


def row(name, **changes):
    sure = {"groups": 11, "ece": 0.12, "ece_calibrated": 0.03, "auroc": None}
    shown = {"name": name, "score": 0.5, "zeroed": None, "parameters": 600_000, "products": 2_540_000_000}
    return shown | {"confidence": sure} | changes


def test_the_table_has_a_column_for_each_and_a_row_for_each_number(tmp_path):
    cost = {"f32": {"engine": "OpenVINO CPU f32", "cpu_s": 0.012, "wh_per_1000_km2": [1, 2, 4]}}
    more = {"int8": {"engine": "OpenVINO CPU int8", "cpu_s": 0.04, "wh_per_1000_km2": [2, 4, 8]}}
    (tmp_path / costs.PAGE).write_text(
        json.dumps({"of": "tile", "km2": 2.0, "models": {"student": cost, "teacher": cost | more}})
    )
    unsure = {"groups": 3, "ece": 0.2, "ece_calibrated": None, "auroc": 0.75, "why": "Not calibrated: 3 groups."}
    found = {
        "score": "mean_iou",
        "of": "tile",
        "rows": [row("student"), row("teacher", confidence=unsure), row(ALONE)],
        "told": ["a sentence"],
        "unfamiliar": {"auroc": 0.9, "least": 0.6, "kind": "swapped", "kinds": 24},
    }
    shown = view(found, "", tmp_path)
    table = {one["name"]: one["cells"] for one in shown["rows"]}
    assert shown["columns"] == ["student", "teacher", "without a teacher"]
    assert table["Mean IoU"] == ["0.500"] * 3 and table["Mean IoU, tokens at zero"] == ["–"] * 3
    assert table["Parameters"][0] == "0.60 M" and table["Products a tile"][0] == "2.54 G"
    assert table["CPU time a tile, f32"] == ["12 ms"] * 3  # without a teacher it is the same network
    assert table["CPU time a tile, int8"] == ["–", "40 ms", "–"]
    assert table["Energy per 1,000 km2, f32"] == ["1 to 4 Wh"] * 3
    assert table["Energy per 1,000 km2, int8"] == ["–", "2 to 8 Wh", "–"]
    assert table["Expected calibration error"] == ["0.120", "0.200", "0.120"]
    assert table["Expected calibration error, calibrated"] == ["0.030", "–", "0.030"]
    assert table["AUROC of wrong input, by what is unfamiliar"] == ["0.900"] * 3
    assert "Measured within its interval" not in table
    assert shown["told"][:2] == ["a sentence", "Teacher: Not calibrated: 3 groups."]
    assert "(swapped) has an AUROC of 0.60" in shown["told"][2]
    few = view(found | {"unfamiliar": {"why": "2 groups are too few"}}, "", tmp_path)
    assert few["told"][2] == "How well wrong input is told is not said: 2 groups are too few."
