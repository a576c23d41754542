"""earthtune forecast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.commands.outcome import Outcome
from pipelines.forecasts.forecast import forecast as forecast
from pipelines.forecasts.verification import table


def told(result: Mapping[str, Any], options: Mapping[str, Any]) -> Outcome:
    """How far it went, and its errors where it was verified."""
    lines = [f"{len(result['files'])} steps from {result['start']}: {result['series']}", table(result["verification"])]
    lines += [f"rain: {', '.join(result['rain'])}", result["rain_inputs"]] if "rain" in result else []
    return Outcome(result, "\n".join(line for line in lines if line))
