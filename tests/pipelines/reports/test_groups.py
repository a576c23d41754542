"""Group by group: what the report says of where a model fails."""

import numpy as np
import pytest

from models.baselines.fields import Forecast
from pipelines.reports.groups import view
from pipelines.reports.measures import Shown
from pipelines.reports.weather_scores import rmse_of_days

IOU, RMSE = Shown(("mean_iou",), ("mean_iou",)), Shown(("rmse",), ("rmse",), unit="mm/h")


def groups(ours, theirs):
    return {f"g{i}": {"model": a, "forest": b} for i, (a, b) in enumerate(zip(ours, theirs, strict=True))}


def test_the_worst_come_first_whether_more_or_less_is_better():
    ours = [0.9, 0.2, 0.5, None, 0.7, 0.6, 0.8]
    found = view(groups(ours, [0.5] * 7), IOU, "forest", counted="group")
    assert [row["name"] for row in found["rows"]] == ["g1", "g2", "g5", "g4", "g6"]
    assert found["told"] == (
        "Of 6 groups the middle one has 0.650, the worst 0.200. The model is better than the forest in 4 of 6."
    )
    found = view(groups([1.0, 3.0, 2.0], [1.5, 2.0, 2.5]), RMSE, "forest", counted="day")
    assert [row["cells"] for row in found["rows"]] == [["3.00", "2.00"], ["2.00", "2.50"], ["1.00", "1.50"]]
    assert "the worst 3.00 mm/h." in found["told"] and "in 2 of 3" in found["told"]


def test_one_group_says_nothing_and_no_baseline_is_no_error():
    assert view(groups([0.5], [0.4]), IOU, "forest", counted="group") is None
    found = view(groups([0.5, 0.6], [0.4, 0.4]), IOU, None, counted="group")
    assert found["columns"] == ["model"] and found["picture"] is None and "better" not in found["told"]


def test_the_error_of_a_day_is_that_of_its_cells_by_area():
    truth = np.array([[[1.0, 2.0]], [[4.0, np.nan]], [[np.nan, np.nan]]], np.float32)
    area = np.array([[3.0, 1.0]])
    found = rmse_of_days(Forecast.sure(np.zeros_like(truth)), truth, area, ["a", "a", "b"])
    assert found["a"] == pytest.approx(np.sqrt((3 * 1 + 1 * 4 + 3 * 16) / 7)) and found["b"] is None
