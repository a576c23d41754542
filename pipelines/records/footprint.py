"""What energy stands for: CO2e by country, water, phone charges. All factors and their sources are in factors.csv."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from typing import NamedTuple

from models.errors import InputError
from models.types import nearest

WORLD = ""  # the country of whoever names none


class Span(NamedTuple):
    """A value that is known to lie somewhere: the same number three times where it was measured."""

    low: float
    mid: float
    high: float

    def times(self, other: Span | float) -> Span:
        """The product with a number or another span, of values that are not negative."""
        by = other if isinstance(other, Span) else Span(other, other, other)
        return Span(*(a * b for a, b in zip(self, by, strict=True)))

    def per(self, count: float, unit: float) -> Span | None:
        """For every `unit` of a count; None where nothing was counted."""
        return self.times(unit / count) if count else None


def total(spans: Iterable[Span]) -> Span:
    """The sum of spans."""
    return Span(*(sum(ends) for ends in zip((0.0, 0.0, 0.0), *spans, strict=True)))


class Factor(NamedTuple):
    """A row of the table: a span, and where it comes from."""

    name: str
    span: Span
    unit: str
    year: str
    source: str
    licence: str


@cache
def factors() -> Mapping[tuple[str, str], Factor]:
    """The rows of factors.csv by what they are of and their country (ISO 3166-1 alpha-3, empty for none)."""
    text = resources.files("pipelines.records").joinpath("factors.csv").read_text(encoding="utf-8")
    return {
        (row["factor"], row["country"]): Factor(
            row["name"],
            Span(*(float(row[end]) for end in Span._fields)),
            *(row[key] for key in ("unit", "year", "source", "licence")),
        )
        for row in csv.DictReader(text.splitlines())
    }


def factor(name: str, country: str = WORLD) -> Span:
    """The span of a factor."""
    return factors()[name, country].span


def country_of(asked: str) -> str:
    """The code of a country that is named by its code or in English, in any case; `WORLD` for no name.

    Raises:
        InputError: no such country in the table.
    """
    names = {code: row.name for (what, code), row in factors().items() if what == "grid" and code}
    known = {name.lower(): code for code, name in names.items()} | {code.lower(): code for code in names}
    if asked and asked.lower() not in known:
        short = len(asked) <= 3
        near = nearest(asked.upper() if short else asked.title(), names if short else names.values())
        advice = near if near.startswith("did you mean") else "wanted a code such as FRA, IND or USA (ISO 3166 alpha-3)"
        raise InputError(f"country {asked!r}: not in the table of power grids; {advice}")
    return known.get(asked.lower(), WORLD)


def grams(wh: Span, country: str) -> Span:
    """CO2e of energy in Wh, by a country's grid, or by any of the world."""
    return wh.times(factor("grid", country)).times(1e-3)


def litres(wh: Span) -> tuple[Span, Span]:
    """Water on the site of a data centre, and in all, with that of power generation."""
    site, generation = (wh.times(factor(f"water {of}")).times(1e-3) for of in ("on site", "of power generation"))
    return site, total((site, generation))


def charges(wh: Span) -> Span:
    """Phones that the energy charges."""
    return wh.times(1e-3 / factor("phone").mid)


_PREFIXES = ((1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"))
_LEAST = 0.001  # of what is counted in whole ones


def said(span: Span | None, unit: str) -> str:
    """A span with its unit in two or three digits: "0.8 to 3.2 Wh", "450 mg CO2e"; a count has no prefix."""
    if span is None:
        return "unknown"
    counted = unit.startswith("phone")
    if counted and span.high < _LEAST:
        return f"under {_LEAST} {unit}"
    steps = ((1.0, ""),) if counted else _PREFIXES
    size, prefix = next((step for step in steps if span.high >= step[0]), steps[-1])
    low, high = (_digits(end / size) for end in (span.low, span.high))
    return f"{low if low == high else f'{low} to {high}'} {prefix}{unit}"


def _digits(value: float) -> str:
    """A number in two digits that count, or whole where it has more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
