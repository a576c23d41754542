"""What a run learns of how far to trust it: whether what it tells can be negative, by what was measured."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from models.spec import IMAGERY, Values
from pipelines.runs.trust import confidence


@pytest.mark.parametrize(
    ("training", "left_out", "positive"),
    [(0.0, 0.0, True), (-1.0, 0.0, False), (0.0, -1.0, False), (np.nan, 0.0, True)],
)
def test_values_are_never_negative_where_nothing_measured_is(training, left_out, positive):
    """A training image with a value, and eleven places that were left out, of which one has another."""
    answers = np.linspace(-1, 5, 1100)[:, None]
    truth = np.r_[left_out, np.linspace(0, 5, 1099)]
    spec = SimpleNamespace(answer=Values("biomass", "t/ha"), inputs={IMAGERY: None}, over_weather=False)
    samples = SimpleNamespace(
        spec=spec, of=lambda split: [split], truth=lambda sample: np.array([[training, 1.0]] * (sample == "train"))
    )
    given = SimpleNamespace(rows=[0], joined=lambda: (answers, truth, np.repeat(np.arange(11), 100).astype(str)))
    found = confidence(samples, given)
    assert found["calibration"]["positive"] is positive and found["calibration"]["intervals"]
    assert ("Nothing measured is below 0, and no end is." in found["told"][0]) is positive
