"""A CSV as columns: patterns in the order of their numbers, missing cells, and what is no table refused by its line."""

from __future__ import annotations

import numpy as np
import pytest

from models.errors import InputError
from pipelines.tables.columns import chosen, read_table, series


@pytest.fixture
def table(tmp_path):
    """A function that reads a CSV of some text."""

    def read(text, **how):
        path = tmp_path / "t.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_table(path, **how)

    return read


def test_a_pattern_is_a_series_in_the_order_of_its_numbers_and_a_column_alone_holds_for_all_steps(table):
    found = table("NDVI10,NDVI2,NDVI_x,slope,NDVI1\n.5,.2,9,3,.1\n,NA,9,4,-9999\n", missing=(-9999.0,))
    steps = chosen(["NDVI*", "slope"], found.names, "data.imagery")
    values, valid = series(found, steps, "data.imagery")

    assert steps == {"NDVI": ["NDVI1", "NDVI2", "NDVI10"], "slope": ["slope"] * 3}
    assert np.allclose(values[0], [[0.1, 3], [0.2, 3], [0.5, 3]])
    assert valid.tolist() == [[[1, 1]] * 3, [[0, 1]] * 3] and np.isfinite(values).all()


def test_channels_are_named_by_a_mapping(table):
    found = table("b5;before\n1;2\n")
    assert chosen({"NIR_NARROW": ["before", "b5"]}, found.names, "x") == {"NIR_NARROW": ["before", "b5"]}
    assert series(found, {"a": ["before", "b5"]}, "x")[0].ravel().tolist() == [2, 1]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a,b\n1\n", "row 2: wanted 2 cells, came 1"),
        ("a,b\n1,x\n", "line 2: b 'x' is no number"),
        ("a,a\n1,2\n", "two columns a"),
        ("a,b\n", "a header and rows"),
        (b"\xff\xfe\x00", "no table"),
        ("c,d\n1,2\n", "has no column a"),
    ],
)
def test_what_is_no_table_is_refused_in_a_line(table, text, told):
    with pytest.raises(InputError, match=told) as refused:
        series(table(text), {"a": ["a"], "b": ["b"]}, "data.imagery")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("columns", "told"), [(["NDVI*", "EVI*"], "EVI has 2 steps, NDVI 3"), (["LST*"], "no column matches")]
)
def test_series_of_other_lengths_and_patterns_of_nothing_are_refused(columns, told):
    with pytest.raises(InputError, match=told):
        chosen(columns, ["NDVI1", "NDVI2", "NDVI3", "EVI1", "EVI2"], "data.imagery")
