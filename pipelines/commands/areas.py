"""earthtune areas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.commands.outcome import Outcome
from pipelines.surveys.areas import areas as areas


def told(result: Mapping[str, Any], options: Mapping[str, Any]) -> Outcome:
    """A table of classes, the overall accuracy, and what to beware of."""
    wide = max(len(row["class"]) for row in result["classes"])
    areas_of = f"{'in the map':>13} {'hectares':>13} {'95 % interval':>27}"
    head = f"{'':<{wide}} {areas_of}  {'user':>13}  {'producer':>13} {'points':>7}"
    lines = [f"{result['points']} labelled points, {result['hectares']:,.1f} ha; {result['estimator']}", "", head]
    for row in result["classes"]:
        rates = f"{_rate(row['users'], row['users_se'])}  {_rate(row['producers'], row['producers_se'])}"
        lines.append(
            f"{row['class']:<{wide}} {row['mapped_hectares']:>13,.1f} {_area(row)}  {rates} {row['points']:>7}"
        )
    for row in result["regions"]:
        if row["points"]:
            lines.append(f"{row['region']}, {row['class']}: {_area(row).strip()} ha")
    overall = result["overall"]
    lines += ["", f"overall accuracy {_rate(overall['accuracy'], overall['se']).strip()} (standard errors after ±)"]
    lines += [f"note: {line}" for line in result["warnings"]]
    return Outcome(dict(result), "\n".join(lines))


def _area(row: Mapping[str, Any]) -> str:
    """Hectares and their interval."""
    between = "none" if row["high"] is None else f"{row['low']:,.1f} to {row['high']:,.1f}"
    return f"{row['hectares']:>13,.1f} {between:>27}"


def _rate(value: float | None, error: float | None) -> str:
    """An accuracy and its standard error."""
    return f"{'none' if value is None or error is None else f'{value:.3f} ± {error:.3f}':>13}"
