"""Rows as samples: season and place as points, answers, splits by column and group, and what is refused."""

from __future__ import annotations

import datetime

import numpy as np
import pytest

from models.errors import InputError
from models.spec import CONTEXT, IMAGERY, WEATHER, ClassDef, Classes, Series, Spec, Values, valid_of
from pipelines.recipes.tables import TableData
from pipelines.samples.fused import context
from pipelines.tables.rows import read_rows

UNREAD = {IMAGERY: Series(("unread",), ("",), (0.0,), (1.0,))}
VALUE = Spec("table", UNREAD, {"y": Values("y", "", "sample")})
KINDS = Spec(
    "table", UNREAD, {"class": Classes((ClassDef(3, "dry", "#000000"), ClassDef(7, "wet", "#ffffff")), "sample")}
)
HEAD = "red,rain,y,day,lat,lon,site,part\n"


@pytest.fixture
def data(tmp_path):
    """A function that gives the settings of a table of some rows."""

    def make(*rows, head=HEAD, **changes):
        (tmp_path / "samples.csv").write_text(head + "".join(f"{row}\n" for row in rows), encoding="utf-8")
        plain = {"imagery": ["red"], "weather": ["rain"], "answer": "y", "group": "site"}
        return TableData(tmp_path, **{**plain, **changes})

    return make


def test_season_and_place_are_those_of_chips(data):
    """A day and a place mean the same to a model of either kind."""
    samples = read_rows(data("1,2,3,2021-03-05,45,9,a,", date="day", place=["lat", "lon"]), VALUE, split=False)

    item = samples.item(samples.samples[0])
    assert np.allclose(item[CONTEXT], context(datetime.date(2021, 3, 5), 45, 9), atol=1e-6)
    assert samples.spec.inputs[CONTEXT].channels[0] == "day of year, sine"


def test_a_month_is_its_middle(data):
    by_month = read_rows(data("1,2,3,7,0,0,a,", month="day"), VALUE, split=False).inputs[CONTEXT][0, 0]
    angle = np.arctan2(*by_month) % (2 * np.pi)
    assert abs(angle / (2 * np.pi) * 12 - 6.5) < 0.02


def test_what_has_no_answer_or_no_inputs_is_left_out_and_a_row_without_weather_stays(data):
    rows = ("1,2,3,,,,a,", "1,2,,,,,b,", ",,4,,,,c,", "1,,5,,,,d,", ",2,6,,,,e,")
    samples = read_rows(data(*rows), VALUE, split=False)

    assert [row.line for row in samples.samples] == [1, 4, 5] and [
        float(samples.truth(r)) for r in samples.samples
    ] == [3, 5, 6]
    assert samples.inputs[valid_of(WEATHER)].ravel().tolist() == [1, 0, 1]
    assert samples.inputs[valid_of(IMAGERY)].ravel().tolist() == [1, 1, 0]
    assert any("2 of 5 rows are left out" in note for note in samples.notes)


def test_classes_are_known_by_code_and_by_name(data):
    samples = read_rows(data("1,2,wet,,,,a,", "1,2,3,,,,b,", "1,2,7.0,,,,c,"), KINDS, split=False)
    assert samples.y.tolist() == [1, 0, 1]
    with pytest.raises(InputError, match=r"line 2: y 'damp': wanted one of 3 \(dry\), 7 \(wet\)"):
        read_rows(data("1,2,damp,,,,a,"), KINDS, split=False)


def test_a_split_of_a_column_is_kept_and_validation_comes_from_training_groups(data):
    rows = [f"1,2,3,,,,s{i % 10},{'test' if i % 10 == 0 else 'train'}" for i in range(40)]
    samples = read_rows(data(*rows, split="part"), VALUE)

    groups = {split: {row.group for row in samples.of(split)} for split in ("train", "val", "test")}
    assert groups["test"] == {"s0"} and groups["val"] and not groups["val"] & groups["train"]
    with pytest.raises(InputError, match="line 2: part 'left': wanted train, val or test"):
        read_rows(data("1,2,3,,,,a,left", split="part"), VALUE)


def test_folds_leave_groups_out_and_statistics_are_those_of_what_is_there(data):
    rows = [f"{i},{'' if i % 2 else i},3,,,,s{i // 2}," for i in range(12)]
    samples = read_rows(data(*rows), VALUE, split=False)
    samples.fold(3, 1, seed=0)
    left = {row.group for row in samples.of("test")}

    assert left and not left & {row.group for row in samples.of("train")}
    numbers = [row.at for row in samples.of("train") if row.at % 2 == 0]
    fitted = samples.fitted(("train",)).inputs[WEATHER]
    assert np.allclose((fitted.mean[0], fitted.std[0]), (np.mean(numbers), np.std(numbers)))


@pytest.mark.parametrize(
    ("row", "changes", "told"),
    [
        ("1,2,3,5 May,,,a,", {"date": "day"}, "line 2: day '5 May' is no day; wanted YYYY-MM-DD"),
        ("1,2,3,13,,,a,", {"month": "day"}, "line 2: day 13: wanted 1 to 12"),
        ("1,2,3,,95,9,a,", {"place": ["lat", "lon"]}, "line 2: lat 95: wanted -90 to 90"),
        ("1,2,3,5,,,a,", {"month": "day", "day_of_year": "day"}, "wanted one of them"),
        ("1,2,3,,,,a,", {"weather": []}, "data.weather: wanted columns"),
        ("1,2,3,,,,a,", {"place": ["lat"]}, "wanted the columns of latitude and longitude"),
        ("1,2,,,,,a,", {}, "no row has y and inputs"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(data, row, changes, told):
    with pytest.raises(InputError, match=told) as refused:
        read_rows(data(row, **changes), VALUE, split=False)
    assert "\n" not in str(refused.value)
