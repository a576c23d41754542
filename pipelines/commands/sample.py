"""earthtune sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.commands.outcome import Outcome
from pipelines.surveys.draw import sample as sample


def told(result: Mapping[str, Any], options: Mapping[str, Any]) -> Outcome:
    """The file, and the points of each stratum."""
    lines = [f"{result['file']}: {result['points']} points to label, of {result['hectares']:,.1f} ha"]
    for row in result["strata"]:
        lines.append(
            f"  {row['points']:>5} of {row['pixels']:>11,} pixels, {row['hectares']:>13,.1f} ha  {row['stratum']}"
        )
    kept = "kept: areas are prediction-powered" if result["powered"] else "not beside all maps (score --probabilities)"
    lines.append(f"  the maps' probabilities: {kept}")
    return Outcome(dict(result), "\n".join(lines))
