"""earthtune seasonal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.commands.outcome import Outcome
from pipelines.forecasts.seasonal import seasonal as seasonal
from pipelines.forecasts.seasonal_skill import table


def told(result: Mapping[str, Any], options: Mapping[str, Any]) -> Outcome:
    """The headline, the skill, and where map and picture are."""
    lines = [result["headline"], table(result), f"map: {result['map']}", f"picture: {result['picture']}"]
    return Outcome(result, "\n".join(line for line in lines if line))
