"""The table of factors, and what is made of it."""

from __future__ import annotations

import re

import numpy as np
import pytest

from models.errors import InputError
from pipelines.records.footprint import Span, charges, country_of, factor, factors, grams, litres, said, total


def test_each_row_says_where_it_comes_from():
    for (what, country), row in factors().items():
        assert row.source and row.licence and row.unit, what
        assert re.fullmatch(r"20\d\d(-20\d\d)?", row.year), (what, country)
        assert 0 < row.span.low <= row.span.mid <= row.span.high
        assert not country or (re.fullmatch("[A-Z]{3}", country) and what == "grid" and row.name)


def test_known_grids_and_a_range_that_holds_nine_of_ten_countries():
    assert [factor("grid", code).mid for code in ("FRA", "USA", "DEU", "IND")] == [56, 369, 381, 713]
    values = [row.span.mid for (what, country), row in factors().items() if what == "grid" and country]
    world = factor("grid")
    assert np.percentile(values, 5) == pytest.approx(world.low, abs=1)
    assert np.percentile(values, 95) == pytest.approx(world.high, abs=1)
    assert len(values) > 200


def test_worked_by_hand():
    kwh = Span(1000, 1000, 1000)
    assert grams(kwh, "DEU") == pytest.approx((381,) * 3)
    site, every = litres(kwh)
    assert site == pytest.approx((0.36,) * 3) and every == pytest.approx((0.90, 4.88, 4.88))
    assert charges(kwh).mid == pytest.approx(1 / 0.019)
    assert total([Span(1, 2, 3), Span(1, 1, 1)]) == (2, 3, 4)
    assert Span(1, 2, 4).per(500, 1000) == (2, 4, 8) and kwh.per(0, 1000) is None


@pytest.mark.parametrize("asked", ["FRA", "fra", "France", "FRANCE"])
def test_a_country_by_code_or_name(asked):
    assert country_of(asked) == "FRA" and country_of("") == ""


@pytest.mark.parametrize(
    ("asked", "near"), [("FRX", "did you mean FR"), ("Indai", "did you mean India"), ("Qqqqqqqq", "ISO 3166")]
)
def test_an_unknown_country_is_refused_in_a_line(asked, near):
    with pytest.raises(InputError, match=near) as error:
        country_of(asked)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("span", "unit", "text"),
    [
        (Span(0.8, 1, 3.2), "Wh", "0.8 to 3.2 Wh"),
        (Span(2, 2, 2), "Wh", "2 Wh"),
        (Span(0.0005, 0.001, 0.002), "Wh", "0.5 to 2 mWh"),
        (Span(1500, 1500, 1500), "Wh", "1.5 kWh"),
        (Span(0, 0, 0), "Wh", "0 µWh"),
        (Span(1e-5, 2e-5, 3e-5), "phone charges", "under 0.001 phone charges"),
        (Span(120, 120, 1234), "phone charges", "120 to 1,234 phone charges"),
        (None, "Wh", "unknown"),
    ],
)
def test_spans_in_words(span, unit, text):
    assert said(span, unit) == text
