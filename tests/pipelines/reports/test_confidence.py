"""What a report shows of trust: sentences, a column more where a run is calibrated, nothing where nothing is known."""

import pytest

from pipelines.reports.confidence import view

WAY = {"ece": 0.05, "nll": 0.8, "half": 0.9, "auroc": 0.78, "bins": [[0.3, 0.4, 10], [0.9, 0.8, 5]]}


@pytest.mark.parametrize(("temperature", "ways"), [(1.0, ["raw"]), (0.8, ["raw", "calibrated"])])
def test_a_column_for_each_way_that_there_is(temperature, ways):
    measured = {"raw": WAY, "calibrated": WAY | {"ece": 0.01}, "coverage": [0.99, 0.9, 0.9, 0.9, 0.85] + [0.75] * 5}
    found = {"calibration": {"temperature": temperature}, "measures": measured, "told": ["A sentence."]}
    shown = view(found, None)
    assert shown["ways"] == ways and shown["told"] == ["A sentence."]
    assert shown["rows"][0]["cells"] == ["0.050", "0.010"][: len(ways)]
    assert "0.850 of the surest 50 %" in shown["coverage"]


def test_ground_is_told_of_without_calibration_and_few_groups_warn_of_nothing():
    (told,) = view(None, {"limit": 0.4, "flagged": 0.08, "groups": 20})["told"]
    assert "8%" in told and "less than 40%" in told
    assert "too few" in view(None, {"limit": 1.0, "flagged": 1.0, "groups": 6})["told"][0]
    assert view(None, None) is None
