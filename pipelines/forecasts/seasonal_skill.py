"""The skill of outlooks in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.baselines.seasons import ENOUGH, Years, is_skill
from pipelines.forecasts.seasonal_years import Case


def table(result: Mapping[str, Any]) -> str:
    """The skill as lines of text."""
    if not all(result["skill"].values()):
        return not_told(len(result["years"]))
    lines = [f"{'skill over climatology':<24}{'RPSS':>8}  {'90 % interval':<18}{'CRPSS':>8}  90 % interval"]
    for name, scores in result["skill"].items():
        parts = [f"{s['value']:>8.3f}  {_interval(s):<18}" for s in (scores["rpss"], scores["crpss"])]
        lines.append(f"{name:<24}{''.join(parts)}".rstrip())
    return "\n".join(lines)


def _interval(score: Mapping[str, float]) -> str:
    return f"{score['low']:.3f}..{score['high']:.3f}"


def not_told(years: int) -> str:
    """Why no skill is told."""
    return f"skill: not told: {years} years, {ENOUGH} wanted"


def headline(case: Case, known: Years, told: Mapping[str, Any], method: str) -> str:
    """The result in one line, and whether to trust it."""
    what = f"{case.season.name} {case.year}, {case.target}, from {case.season.known_month(case.year)} by {method}"
    learnt = f"{what}, learnt from {len(known.years)} years"
    if method == "climatology":
        return f"{learnt}: a third for each tercile, by definition"
    if told[method] is None:
        return f"{learnt}: nothing says how far to trust it"
    rpss, years = told[method]["rpss"], len(known.years)
    verdict = "better than climatology" if is_skill(rpss, years) else "no better than climatology as these years tell"
    return f"{learnt}: RPSS {rpss['value']:.3f} ({_interval(rpss)}), ahead in {rpss['ahead']} of them, {verdict}"


def verdict(result: Mapping[str, Any]) -> str:
    """Method and skill, as short as a picture wants them."""
    if result["method"] == "climatology":
        return "climatology"
    rpss = result["skill"][result["method"]]["rpss"]
    return f"{result['method']}, RPSS of {len(result['years'])} years {rpss['value']:.3f} ({_interval(rpss)})"
