"""earthtune encode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.commands.outcome import Outcome
from pipelines.forecasts.encode import encode as encode


def told(result: Mapping[str, Any], options: Mapping[str, Any]) -> Outcome:
    """How many tokens, and how much of them is kept."""
    (rows, columns), times = result["tokens"], result["times"]
    period = times[0] if len(times) == 1 else f"{len(times)} times {times[0]} to {times[-1]}"
    many = f"{rows} x {columns} tokens of {result['features']} features at {period}"
    kept = f"{len(result['variables'])} components tell {result['explained']:.0%} of what varies in them"
    return Outcome(result, f"{result['file']}: {many}; {kept}")
