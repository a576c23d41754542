"""How often skill is claimed of records without any, and of some with it, 200 of each kind. Prints, asserts rates."""

from __future__ import annotations

import pytest

from tests.season_records import SHAPES, claims, record

RECORDS = 200


def rate(kind: str, **options: float) -> dict[str, float]:
    """By method, the share of records of which skill is claimed."""
    found = [claims(record(kind, seed, **options)) for seed in range(RECORDS)]
    return {method: sum(each[method] for each in found) / RECORDS for method in found[0]}


@pytest.mark.parametrize("size", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("kind", SHAPES)
def test_claims_of_nothing(kind, size):
    said = rate(kind, size=size)
    print(f"\n{kind}, noise of {size} K: " + ", ".join(f"{method} {share:.1%}" for method, share in said.items()))
    assert max(said.values()) <= 0.1


@pytest.mark.parametrize(("kind", "count"), [("kink", 30), ("step", 30), ("kink", 40), ("step", 40)])
def test_claims_of_nothing_in_short_records(kind, count):
    said = rate(kind, count=count)
    print(f"\n{kind}, {count} years: " + ", ".join(f"{method} {share:.1%}" for method, share in said.items()))
    assert max(said.values()) <= 0.1


@pytest.mark.parametrize(("kind", "signal", "count"), [("white", 1.0, 70), ("kink", 1.0, 70), ("white", 1.0, 30)])
def test_claims_of_planted_skill(kind, signal, count):
    said = rate(kind, signal=signal, count=count)
    print(f"\nplanted, {kind}, {count} years: " + ", ".join(f"{method} {share:.1%}" for method, share in said.items()))
    assert said["ridge"] > 0.5 and said["persistence"] <= 0.1
