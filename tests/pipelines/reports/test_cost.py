"""The part of a report that tells what a run has cost."""

from __future__ import annotations

import re

import pytest

from pipelines.records.attempts import PAGE, fold
from pipelines.reports.cost import seconds, view
from pipelines.reports.report import PARTS, render
from tests.pipelines.commands.test_label import record

BARE = PARTS | {
    "title": "t",
    "headline": "h",
    "tiles": [{"name": "Mean IoU", "value": "0.50", "beside": ""}],
    "table": {"columns": [], "rows": [], "n": None, "note": ""},
    "bars": {"light": "", "dark": "", "alt": "", "width": 1, "height": 1},
    "best": None,
    "curves": [],
    "facts": {},
    "notes": [],
}


def test_the_sticker_says_energy_phases_and_units(tmp_path):
    fold(tmp_path / PAGE, record("a", cpu=3600.0, samples=10), parts=False)
    page = render(BARE | {"cost": view(tmp_path)})
    text = page[page.index("What it cost") :]
    assert "<strong>1 to 4 Wh</strong>" in text and ">estimated</span>" in text and "Mean IoU 0.50" in text
    assert [float(share) for share in re.findall(r"width:([\d.]+)%", text)] == [10, 90]
    assert "read 10 %" in text and "epochs 90 %" in text
    for unit in ("CO2e", "Water", "Phones", "Per 1,000 samples", "until this page was written"):
        assert unit in text
    assert "<script" not in page and "Attempts" not in text


@pytest.mark.parametrize("content", [None, "{"])
def test_a_report_goes_without_where_nothing_was_recorded_or_it_is_damaged(tmp_path, content):
    if content:
        (tmp_path / PAGE).write_text(content)
    assert view(tmp_path) is None
    assert "What it cost" not in render(BARE)


@pytest.mark.parametrize(("value", "text"), [(0.25, "0.25 s"), (42.4, "42 s"), (600, "10 min"), (7200, "2.0 h")])
def test_times_in_words(value, text):
    assert seconds(value) == text
